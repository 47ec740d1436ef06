//! A disk during whose writes and syncs something else happens: what another thread could do in that time, at a moment
//! that a seed can repeat.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bowline::disk::{Disk, DiskFile};

use super::SimDisk;

type Meddle = Box<dyn FnMut() + Send>;

/// A [`SimDisk`] that calls a function right before every write and sync of a file.
#[derive(Clone)]
pub struct MeddlingDisk {
    disk: SimDisk,
    meddle: Arc<Mutex<Option<Meddle>>>,
}

struct MeddlingFile {
    file: Box<dyn DiskFile>,
    meddle: Arc<Mutex<Option<Meddle>>>,
}

impl MeddlingDisk {
    /// A disk on which nothing else happens yet.
    pub fn new(disk: &SimDisk) -> MeddlingDisk {
        MeddlingDisk { disk: disk.clone(), meddle: Arc::new(Mutex::new(None)) }
    }

    /// From now on `meddle` is called right before every write and sync. It must not use this disk.
    pub fn set(&self, meddle: impl FnMut() + Send + 'static) {
        *self.meddle.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(meddle));
    }

    /// From now on nothing else happens.
    pub fn stop(&self) {
        *self.meddle.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn wrap(&self, file: io::Result<Box<dyn DiskFile>>) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(MeddlingFile { file: file?, meddle: self.meddle.clone() }))
    }
}

impl MeddlingFile {
    fn meddle(&self) {
        if let Some(meddle) = &mut *self.meddle.lock().unwrap_or_else(PoisonError::into_inner) {
            meddle();
        }
    }
}

impl Disk for MeddlingDisk {
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.wrap(self.disk.open(path))
    }

    fn open_read_only(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.disk.open_read_only(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.wrap(self.disk.create(path))
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
        self.disk.sync_directory(directory)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.disk.lock(path)
    }
}

impl DiskFile for MeddlingFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.meddle();
        self.file.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.meddle();
        self.file.sync_data()
    }

    fn resize(&self, bytes: u64) -> io::Result<()> {
        self.meddle();
        self.file.resize(bytes)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
}
