//! A disk during whose writes and syncs something else happens: what another thread could do in that time, at a moment
//! that a seed can repeat.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bowline::disk::DiskFile;

use super::SimDisk;
use super::front::{FrontDisk, Opening, Rules};

type Meddle = Box<dyn FnMut() + Send>;

/// A [`SimDisk`] that calls a function right before every write and sync of a file.
pub type MeddlingDisk = FrontDisk<Meddling>;

/// The function that is called, if there is one.
#[derive(Clone, Default)]
pub struct Meddling(Arc<Mutex<Option<Meddle>>>);

struct MeddlingFile {
    file: Box<dyn DiskFile>,
    meddling: Meddling,
}

impl MeddlingDisk {
    /// A disk on which nothing else happens yet.
    pub fn new(disk: &SimDisk) -> MeddlingDisk {
        FrontDisk { disk: disk.clone(), rules: Meddling::default() }
    }

    /// From now on `meddle` is called right before every write and sync. It must not use this disk.
    pub fn set(&self, meddle: impl FnMut() + Send + 'static) {
        *self.rules.function() = Some(Box::new(meddle));
    }

    /// From now on nothing else happens.
    pub fn stop(&self) {
        *self.rules.function() = None;
    }
}

impl Meddling {
    fn function(&self) -> MutexGuard<'_, Option<Meddle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn meddle(&self) {
        if let Some(meddle) = &mut *self.function() {
            meddle();
        }
    }
}

impl Rules for Meddling {
    fn file(&self, _disk: &SimDisk, _path: &Path, opening: Opening, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        match opening {
            Opening::ReadOnly => file,
            Opening::Existing | Opening::New => Box::new(MeddlingFile { file, meddling: self.clone() }),
        }
    }
}

impl DiskFile for MeddlingFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.meddling.meddle();
        self.file.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.meddling.meddle();
        self.file.sync_data()
    }

    fn resize(&self, bytes: u64) -> io::Result<()> {
        self.meddling.meddle();
        self.file.resize(bytes)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
}
