//! A disk in memory that remembers what was synced and records its calls. Losing sectors one by one is the simulator's.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile};

/// A call that changes something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Write(PathBuf, u64, Vec<u8>),
    Sync(PathBuf),
    SyncDirectory(PathBuf),
    Rename,
    Remove(PathBuf),
}

#[derive(Clone, Default)]
struct Contents {
    cached: Vec<u8>,
    synced: Vec<u8>,
}

#[derive(Clone)]
struct State {
    names: BTreeMap<PathBuf, usize>,
    files: Vec<Contents>,
    calls: Vec<Call>,
    capacity: u64,
    failing_write: Option<i32>,
    failing_sync: Option<i32>,
    /// Whatever is done to a name in it fails.
    failing_directory: Option<PathBuf>,
}

#[derive(Clone)]
pub(super) struct TestDisk(Arc<Mutex<State>>);

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

impl Default for TestDisk {
    fn default() -> TestDisk {
        TestDisk(Arc::new(Mutex::new(State {
            names: BTreeMap::new(),
            files: Vec::new(),
            calls: Vec::new(),
            capacity: u64::MAX,
            failing_write: None,
            failing_sync: None,
            failing_directory: None,
        })))
    }
}

impl TestDisk {
    /// The same contents, independent of this one: a process was killed here.
    pub(super) fn copy(&self) -> TestDisk {
        TestDisk(Arc::new(Mutex::new(State { calls: Vec::new(), ..self.0.lock().clone() })))
    }

    /// What a power cut leaves when it loses everything that was not synced.
    pub(super) fn power_cut(&self) -> TestDisk {
        let copy = self.copy();
        for file in &mut copy.0.lock().files {
            file.cached = file.synced.clone();
        }
        copy
    }

    pub(super) fn contents(&self, path: &Path) -> Vec<u8> {
        let state = self.0.lock();
        state.files[state.names[path]].cached.clone()
    }

    /// Changes bytes behind everybody's back, on the disk and in the cache.
    pub(super) fn change(&self, path: &Path, offset: u64, change: impl Fn(&mut [u8])) {
        let mut state = self.0.lock();
        let file = state.names[path];
        let Contents { cached, synced } = &mut state.files[file];
        change(&mut cached[offset as usize..]);
        let from = (offset as usize).min(synced.len());
        change(&mut synced[from..]);
    }

    pub(super) fn flip_bit(&self, path: &Path, offset: u64) {
        self.change(path, offset, |bytes| bytes.first_mut().into_iter().for_each(|byte| *byte ^= 1));
    }

    pub(super) fn set_capacity(&self, bytes: u64) {
        self.0.lock().capacity = bytes;
    }

    pub(super) fn used(&self) -> u64 {
        self.0.lock().used()
    }

    pub(super) fn fail_next_write(&self) {
        self.0.lock().failing_write = Some(EIO);
    }

    pub(super) fn fail_next_sync(&self) {
        self.0.lock().failing_sync = Some(EIO);
    }

    /// Every change below `directory` fails from now on; `None` repairs it.
    pub(super) fn fail_directory(&self, directory: Option<&Path>) {
        self.0.lock().failing_directory = directory.map(Path::to_owned);
    }

    pub(super) fn calls(&self) -> Vec<Call> {
        self.0.lock().calls.clone()
    }

    pub(super) fn forget_calls(&self) {
        self.0.lock().calls.clear();
    }

    pub(super) fn paths(&self) -> Vec<PathBuf> {
        self.0.lock().names.keys().cloned().collect()
    }

    fn find(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = self.0.lock().names.get(path).copied().ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(TestFile { disk: self.clone(), file }))
    }
}

impl State {
    /// What an open file is called now.
    fn name_of(&self, file: usize) -> PathBuf {
        self.names.iter().find(|(_, named)| **named == file).map(|(name, _)| name.clone()).unwrap_or_default()
    }

    fn check(&self, path: &Path) -> io::Result<()> {
        let fails = self.failing_directory.as_ref().is_some_and(|directory| path.starts_with(directory));
        if fails { Err(io::Error::from_raw_os_error(EIO)) } else { Ok(()) }
    }

    fn used(&self) -> u64 {
        self.names.values().map(|file| self.files[*file].cached.len() as u64).sum()
    }
}

impl Disk for TestDisk {
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.find(path)
    }

    fn open_read_only(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.find(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        {
            let mut state = self.0.lock();
            state.check(path)?;
            if state.names.contains_key(path) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            let file = state.files.len();
            state.files.push(Contents::default());
            state.names.insert(path.to_owned(), file);
        }
        self.find(path)
    }

    fn create_directory(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.check(to)?;
        let file = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), file);
        state.calls.push(Call::Rename);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.check(path)?;
        state.names.remove(path).ok_or(io::ErrorKind::NotFound)?;
        state.calls.push(Call::Remove(path.to_owned()));
        Ok(())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(self.paths().into_iter().filter(|path| path.parent() == Some(directory)).collect())
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.calls.push(Call::SyncDirectory(directory.to_owned()));
        state.check(directory)
    }

    fn lock(&self, _path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        Ok(Box::new(()))
    }
}

struct TestFile {
    disk: TestDisk,
    file: usize,
}

impl DiskFile for TestFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.0.lock();
        let cached = &state.files[self.file].cached;
        let from = (offset as usize).min(cached.len());
        // Short reads are allowed, so they are made.
        let count = buffer.len().min(cached.len() - from).min(50_000);
        buffer[..count].copy_from_slice(&cached[from..from + count]);
        Ok(count)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        let path = state.name_of(self.file);
        state.calls.push(Call::Write(path.clone(), offset, bytes.to_vec()));
        state.check(&path)?;
        if let Some(code) = state.failing_write.take() {
            return Err(io::Error::from_raw_os_error(code));
        }
        let end = offset as usize + bytes.len();
        let growth = end.saturating_sub(state.files[self.file].cached.len());
        if growth > 0 && state.used() + growth as u64 > state.capacity {
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        let cached = &mut state.files[self.file].cached;
        cached.resize(cached.len().max(end), 0);
        cached[offset as usize..end].copy_from_slice(bytes);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        let path = state.name_of(self.file);
        state.calls.push(Call::Sync(path.clone()));
        state.check(&path)?;
        if let Some(code) = state.failing_sync.take() {
            return Err(io::Error::from_raw_os_error(code));
        }
        let file = &mut state.files[self.file];
        file.synced.clone_from(&file.cached);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.0.lock().files[self.file].cached.len() as u64)
    }
}
