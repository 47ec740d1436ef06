//! A disk in front of the simulated one that passes every call on, but for what its rules do differently.
//!
//! What such a disk is for stands in its rules: `lying` (rules of the engine that are forgotten), `meddling` (what others do
//! meanwhile), and the crash tests of the archive.

use std::io;
use std::path::{Path, PathBuf};

use bowline::disk::{Disk, DiskFile};

use super::SimDisk;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// It exists, for reading and writing.
    Existing,
    /// It exists, for reading.
    ReadOnly,
    /// It is created.
    New,
}

/// What is different from the disk behind.
pub trait Rules: Send + Sync {
    /// What is given out for a file of the disk behind.
    fn file(&self, disk: &SimDisk, path: &Path, opening: Opening, file: Box<dyn DiskFile>) -> Box<dyn DiskFile>;

    /// [`Disk::sync_directory`].
    ///
    /// # Errors
    /// Those of the disk behind.
    fn sync_directory(&self, disk: &SimDisk, directory: &Path) -> io::Result<()> {
        disk.sync_directory(directory)
    }
}

/// A [`SimDisk`] seen through rules.
#[derive(Clone, Debug)]
pub struct FrontDisk<R> {
    /// The disk behind.
    pub disk: SimDisk,
    /// What is different from it.
    pub rules: R,
}

impl<R: Rules> FrontDisk<R> {
    fn give(
        &self,
        path: &Path,
        opening: Opening,
        file: io::Result<Box<dyn DiskFile>>,
    ) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.rules.file(&self.disk, path, opening, file?))
    }
}

impl<R: Rules> Disk for FrontDisk<R> {
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.give(path, Opening::Existing, self.disk.open(path))
    }

    fn open_read_only(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.give(path, Opening::ReadOnly, self.disk.open_read_only(path))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.give(path, Opening::New, self.disk.create(path))
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.disk.create_directory(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        self.disk.list(directory)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        self.rules.sync_directory(&self.disk, directory)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.disk.lock(path)
    }
}
