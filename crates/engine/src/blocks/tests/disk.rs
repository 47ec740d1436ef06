//! One file in memory that remembers in which order it was written and synced.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::disk::{Disk, DiskFile};

/// A call that changed the file or made it durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Write { offset: u64, bytes: usize },
    Sync,
    Resize(u64),
}

/// The same with the bytes, for rebuilding what a power cut leaves.
#[derive(Clone, Debug)]
pub(super) enum Traced {
    Write { offset: u64, bytes: Vec<u8> },
    Sync,
    Resize(u64),
}

#[derive(Default)]
pub(super) struct State {
    names: std::collections::BTreeMap<PathBuf, usize>,
    files: Vec<Vec<u8>>,
    pub(super) calls: Vec<Call>,
    /// Every call with its bytes, once this is wanted.
    pub(super) trace: Option<Vec<Traced>>,
    pub(super) reads: usize,
    /// This call and all after it fail.
    pub(super) fails_from: Option<usize>,
    /// Bytes of all files.
    pub(super) capacity: Option<u64>,
}

#[derive(Clone, Default)]
pub(super) struct MemoryDisk(Arc<Mutex<State>>);

struct MemoryFile {
    disk: MemoryDisk,
    file: usize,
}

impl MemoryDisk {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics under the lock")
    }

    /// The bytes of a file.
    pub(super) fn bytes(&self, path: &str) -> Vec<u8> {
        let state = self.state();
        state.files[state.names[Path::new(path)]].clone()
    }

    /// A disk with one file.
    pub(super) fn with_file(path: &str, bytes: Vec<u8>) -> MemoryDisk {
        let disk = MemoryDisk::default();
        let mut state = disk.state();
        state.names.insert(PathBuf::from(path), 0);
        state.files.push(bytes);
        drop(state);
        disk
    }

    /// Changes the bytes of a file.
    pub(super) fn change(&self, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let file = state.names[Path::new(path)];
        change(&mut state.files[file]);
    }

    fn find(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = *self.state().names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(MemoryFile { disk: self.clone(), file }))
    }
}

impl State {
    fn trace(&mut self, call: impl FnOnce() -> Traced) {
        if let Some(trace) = &mut self.trace {
            trace.push(call());
        }
    }

    fn call(&mut self, call: Call) -> io::Result<()> {
        self.calls.push(call);
        match self.fails_from {
            Some(from) if self.calls.len() > from => Err(io::Error::from_raw_os_error(5)),
            _ => Ok(()),
        }
    }
}

impl Disk for MemoryDisk {
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.find(path)
    }

    fn open_read_only(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.find(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        let file = state.files.len();
        state.files.push(Vec::new());
        if state.names.insert(path.to_owned(), file).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        drop(state);
        self.find(path)
    }

    fn create_directory(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let file = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.state().names.remove(path).map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn list(&self, _: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, _: &Path) -> io::Result<Box<dyn Send + Sync>> {
        Ok(Box::new(()))
    }
}

impl DiskFile for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.state();
        state.reads += 1;
        let bytes = &state.files[self.file];
        let from = (offset as usize).min(bytes.len());
        let count = buffer.len().min(bytes.len() - from);
        buffer[..count].copy_from_slice(&bytes[from..from + count]);
        Ok(count)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.call(Call::Write { offset, bytes: bytes.len() })?;
        state.trace(|| Traced::Write { offset, bytes: bytes.to_vec() });
        let (file, end) = (&mut state.files[self.file], offset as usize + bytes.len());
        assert!(end <= file.len(), "the file is made longer before it is written");
        file[offset as usize..end].copy_from_slice(bytes);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.call(Call::Sync)?;
        state.trace(|| Traced::Sync);
        Ok(())
    }

    fn resize(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.call(Call::Resize(bytes))?;
        if state.capacity.is_some_and(|capacity| bytes > capacity) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.trace(|| Traced::Resize(bytes));
        state.files[self.file].resize(bytes as usize, 0);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state().files[self.file].len() as u64)
    }
}
