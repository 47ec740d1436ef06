//! A disk in memory that behaves as badly as a real one may.
//!
//! ```text
//!     engine --> SimDisk --> names (`names`): seen now | kept for sure
//!                       \--> bytes (`bytes`): cached | dirty sectors | durable
//!     every call is counted (`faults`): the power goes at call k, or call k fails with EIO or ENOSPC
//!     power_cut(random) --> another SimDisk: the same machine after the power came back
//! ```
//!
//! What it does worse than most disks, because some disk does it: unsynced sectors are kept in any subset and at any of
//! their contents; names are kept only after their directory was synced, a new directory only after its parent was; a
//! failed sync marks the bytes clean, so a second sync succeeds and they are gone.
//!
//! Deterministic: the same calls and the same seeds give the same bytes. Not here: delays, and several machines.

mod bytes;
mod faults;
pub mod front;
pub mod lying;
pub mod meddling;
mod names;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bowline::disk::{Disk, DiskFile};

use self::bytes::{FileBytes, SECTOR_BYTES};
pub use self::faults::{Call, CallKind, Failure};
use self::faults::{Faults, Verdict, power_is_off};
use self::names::{Change, FileId, Names, Node};
use crate::random::Random;

/// A simulated disk. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimDisk(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    names: Names,
    files: BTreeMap<FileId, FileBytes>,
    next_file: FileId,
    locks: BTreeSet<PathBuf>,
    capacity: u64,
    faults: Faults,
    /// Decides what a failing call leaves behind.
    random: Random,
}

impl Default for SimDisk {
    fn default() -> SimDisk {
        SimDisk::new(0)
    }
}

impl SimDisk {
    /// An empty disk without a limit. `seed` decides what failing calls leave behind.
    pub fn new(seed: u64) -> SimDisk {
        SimDisk::from_parts(Names::new(), BTreeMap::new(), 0, u64::MAX, Random::for_part(seed, 0xD15C))
    }

    fn from_parts(
        names: Names,
        files: BTreeMap<FileId, FileBytes>,
        next_file: FileId,
        capacity: u64,
        random: Random,
    ) -> SimDisk {
        let (locks, faults) = (BTreeSet::new(), Faults::default());
        SimDisk(Arc::new(Mutex::new(State { names, files, next_file, locks, capacity, faults, random })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panics under the lock has failed already; its message must not be hidden by a second one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The power goes off right before call `call`: it and every later call fail and change nothing.
    pub fn crash_at(&self, call: u64) {
        self.state().faults.crash_at = Some(call);
    }

    /// The power goes off now.
    pub fn crash_now(&self) {
        self.state().faults.power_is_off = true;
    }

    /// Whether the power is off.
    pub fn is_off(&self) -> bool {
        self.state().faults.power_is_off
    }

    /// Call `call` fails, once. A failing write leaves a part of its bytes in the cache; a failing sync brings a part
    /// of the sectors to the disk and marks all of them clean; a directory sync that fails with `EIO` leaves the names
    /// uncertain for the rest of this process's life, whatever a later one says.
    pub fn fail_at(&self, call: u64, failure: Failure) {
        self.state().faults.fail_at = Some((call, failure));
    }

    /// Whether the call that was to fail has failed.
    pub fn has_failed(&self) -> bool {
        let state = self.state();
        state.faults.fail_at.is_some_and(|(at, _)| at < state.faults.calls.len() as u64)
    }

    /// The kernel could not write the dirty sectors of `path` back: they count as clean, some of them are lost, and
    /// each open file on it reports `EIO` at its next sync, once. Panics when there is no such file.
    pub fn fail_write_back(&self, path: &Path) {
        let state = &mut *self.state();
        let file = state.file_at(path);
        state.files.get_mut(&file).expect("a name leads to a file").lose_dirty(&mut state.random);
    }

    /// The disk holds at most `bytes`: what would make a file longer past that fails with `ENOSPC`. Overwriting never
    /// needs room.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().capacity = bytes;
    }

    /// Bytes that files take up.
    pub fn used(&self) -> u64 {
        self.state().used()
    }

    /// Number of calls made so far: the index of the next one.
    pub fn calls(&self) -> u64 {
        self.state().faults.calls.len() as u64
    }

    /// Every call made so far, in order.
    pub fn trace(&self) -> Vec<Call> {
        self.state().faults.calls.clone()
    }

    /// Full paths of all files, in order of their names.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.state().names.files().map(|(path, _)| path.to_owned()).collect()
    }

    /// Whether a file has this name.
    pub fn exists(&self, path: &Path) -> bool {
        matches!(self.state().names.find(path), Some(Node::File(_)))
    }

    /// The bytes that a reader of `path` sees, without a storage call. Panics when there is no such file.
    pub fn contents(&self, path: &Path) -> Vec<u8> {
        let state = self.state();
        let file = &state.files[&state.file_at(path)];
        let mut bytes = vec![0; file.len() as usize];
        file.read(&mut bytes, 0);
        bytes
    }

    /// The bytes of `path` with every sector as it was before its newest durable content, where it ever held anything
    /// else: a disk that lost the last write of each. Panics when there is no such file.
    pub fn contents_before(&self, path: &Path) -> Vec<u8> {
        let mut bytes = self.contents(path);
        let state = self.state();
        let file = &state.files[&state.file_at(path)];
        for (place, sector) in bytes.chunks_mut(SECTOR_BYTES).enumerate() {
            if let Some(before) = file.content_before((place * SECTOR_BYTES) as u64) {
                sector.copy_from_slice(&before[..sector.len()]);
            }
        }
        bytes
    }

    /// Whether some bytes of `path` are not durable. Panics when there is no such file.
    pub fn is_dirty(&self, path: &Path) -> bool {
        let state = self.state();
        state.files[&state.file_at(path)].is_dirty()
    }

    /// The same machine after a power cut at this moment, with what `random` lets survive; power is on again.
    pub fn power_cut(&self, random: &mut Random) -> SimDisk {
        let state = self.state();
        let names = state.names.after_power_cut(random);
        let files = names
            .files()
            .filter_map(|(_, file)| Some((file, state.files.get(&file)?)))
            .map(|(file, bytes)| (file, bytes.after_power_cut(random)))
            .collect();
        SimDisk::from_parts(names, files, state.next_file, state.capacity, Random::new(random.bits()))
    }

    /// The same machine after its process was killed: the cache survives, locks and the plan of failures do not.
    pub fn process_killed(&self) -> SimDisk {
        let mut state = self.state();
        let random = Random::new(state.random.bits());
        let mut names = state.names.clone();
        names.forget_failures();
        SimDisk::from_parts(names, state.files.clone(), state.next_file, state.capacity, random)
    }

    /// Turns one bit of the byte at `offset` of `path` over, as rot does. Panics when there is no such byte.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u32) {
        let flipped = self.change_bytes(path, |file| file.flip_bit(offset, bit));
        assert!(flipped, "{} has no durable byte {offset}", path.display());
    }

    /// The sector around `offset` of `path` reads as zeroes. Panics when there is no such byte.
    pub fn zero_sector(&self, path: &Path, offset: u64) {
        let zeroed = self.change_bytes(path, |file| file.replace_sector(offset, &[0; SECTOR_BYTES]));
        assert!(zeroed, "{} has no durable byte {offset}", path.display());
    }

    /// The sector around `offset` of `path` shows what it held before its newest durable content, as if the disk had
    /// lost one write. False when it never held anything else.
    pub fn make_sector_stale(&self, path: &Path, offset: u64) -> bool {
        self.change_bytes(path, |file| match file.content_before(offset) {
            Some(old) => file.replace_sector(offset, &old),
            None => false,
        })
    }

    /// The disk cannot read the sectors with these bytes of `path` any more, until they are written again.
    pub fn make_unreadable(&self, path: &Path, offset: u64, bytes: usize) {
        self.change_bytes(path, |file| file.make_unreadable(offset, bytes));
    }

    fn change_bytes<T>(&self, path: &Path, change: impl FnOnce(&mut FileBytes) -> T) -> T {
        let mut state = self.state();
        let file = state.file_at(path);
        change(state.files.get_mut(&file).expect("a name leads to a file"))
    }

    fn open_as(&self, path: &Path, writable: bool) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        state.begin(CallKind::Open, path)?;
        match state.names.find(path) {
            Some(Node::File(file)) => Ok(self.opened(&state, path, file, writable)),
            Some(Node::Directory) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn opened(&self, state: &State, path: &Path, file: FileId, writable: bool) -> Box<dyn DiskFile> {
        let errors_seen = Mutex::new(state.files[&file].write_back_errors);
        Box::new(SimFile { disk: self.clone(), path: path.to_owned(), file, writable, errors_seen })
    }
}

impl State {
    /// Counts a call that leaves nothing behind when it fails.
    fn begin(&mut self, kind: CallKind, path: &Path) -> io::Result<()> {
        match self.faults.count(kind, path) {
            Verdict::Go => Ok(()),
            Verdict::PowerIsOff => Err(power_is_off()),
            Verdict::Fail(failure) => Err(failure.error()),
        }
    }

    fn file_at(&self, path: &Path) -> FileId {
        match self.names.find(path) {
            Some(Node::File(file)) => file,
            _ => panic!("the simulated disk has no file {}", path.display()),
        }
    }

    fn used(&self) -> u64 {
        self.names.files().map(|(_, file)| self.files[&file].len()).sum()
    }

    fn require_directory(&self, path: &Path) -> io::Result<()> {
        match self.names.find(path) {
            Some(Node::Directory) => Ok(()),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn add_file(&mut self, path: &Path) -> io::Result<FileId> {
        self.require_directory(path.parent().unwrap_or(Path::new("/")))?;
        if self.names.find(path).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = self.next_file;
        self.next_file += 1;
        self.files.insert(file, FileBytes::default());
        self.names.change(Change::Add { path: path.to_owned(), node: Node::File(file) });
        Ok(file)
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.open_as(path, true)
    }

    fn open_read_only(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.open_as(path, false)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        state.begin(CallKind::Create, path)?;
        let file = state.add_file(path)?;
        Ok(self.opened(&state, path, file, true))
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.begin(CallKind::CreateDirectory, path)?;
        let mut missing: Vec<&Path> = path.ancestors().filter(|path| state.names.find(path).is_none()).collect();
        missing.reverse();
        for directory in missing {
            state.require_directory(directory.parent().unwrap_or(Path::new("/")))?;
            state.names.change(Change::Add { path: directory.to_owned(), node: Node::Directory });
        }
        state.require_directory(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.begin(CallKind::Rename, from)?;
        state.require_directory(to.parent().unwrap_or(Path::new("/")))?;
        let node = state.names.find(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.change(Change::Rename { from: from.to_owned(), to: to.to_owned(), node });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.begin(CallKind::Remove, path)?;
        match state.names.find(path) {
            Some(Node::File(_)) => state.names.change(Change::Remove { path: path.to_owned() }),
            Some(Node::Directory) => return Err(io::ErrorKind::IsADirectory.into()),
            None => return Err(io::ErrorKind::NotFound.into()),
        }
        Ok(())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let mut state = self.state();
        state.begin(CallKind::List, directory)?;
        state.require_directory(directory)?;
        let mut paths: Vec<PathBuf> = state.names.files_in(directory).into_iter().map(|(path, _)| path).collect();
        // "In no order": what relies on sorted names is found out.
        for place in (1..paths.len()).rev() {
            let other = state.random.index(place + 1);
            paths.swap(place, other);
        }
        Ok(paths)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        let mut state = self.state();
        match state.faults.count(CallKind::SyncDirectory, directory) {
            Verdict::Go => {}
            Verdict::PowerIsOff => return Err(power_is_off()),
            Verdict::Fail(failure) => {
                if failure == Failure::Eio {
                    state.names.abandon(directory);
                }
                return Err(failure.error());
            }
        }
        state.require_directory(directory)?;
        state.names.sync(directory);
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let mut state = self.state();
        state.begin(CallKind::Lock, path)?;
        if state.names.find(path).is_none() {
            state.add_file(path)?;
        }
        if !state.locks.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Lock { disk: self.clone(), path: path.to_owned() }))
    }
}

/// An advisory lock that is held.
struct Lock {
    disk: SimDisk,
    path: PathBuf,
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.disk.state().locks.remove(&self.path);
    }
}

/// An open file description.
struct SimFile {
    disk: SimDisk,
    path: PathBuf,
    file: FileId,
    writable: bool,
    errors_seen: Mutex<u64>,
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.state();
        match state.faults.count_at(CallKind::Read, &self.path, Some(self.file), offset, buffer.len()) {
            Verdict::Go => {
                let file = &state.files[&self.file];
                let held = file.len().saturating_sub(offset).min(buffer.len() as u64) as usize;
                if file.is_unreadable(offset, held) {
                    return Err(Failure::Eio.error());
                }
                Ok(file.read(buffer, offset))
            }
            Verdict::PowerIsOff => Err(power_is_off()),
            Verdict::Fail(failure) => Err(failure.error()),
        }
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if !self.writable {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let state = &mut *self.disk.state();
        let mut result = match state.faults.count_at(CallKind::Write, &self.path, Some(self.file), offset, bytes.len())
        {
            Verdict::Go => Ok(()),
            Verdict::PowerIsOff => return Err(power_is_off()),
            Verdict::Fail(failure) => Err(failure),
        };
        let used = state.used();
        let file = state.files.get_mut(&self.file).expect("an open file exists");
        let growth = (offset + bytes.len() as u64).saturating_sub(file.len());
        let mut room = bytes.len();
        if growth > state.capacity.saturating_sub(used) {
            room -= (growth - state.capacity.saturating_sub(used)).min(room as u64) as usize;
            result = Err(Failure::Enospc);
        }
        match result {
            Ok(()) => {
                file.write(bytes, offset);
                Ok(())
            }
            Err(failure) => {
                // A write that fails may have got some of the way.
                let written = state.random.index(room + 1);
                file.write(bytes.get(..written).unwrap_or_default(), offset);
                Err(failure.error())
            }
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        let state = &mut *self.disk.state();
        let verdict = state.faults.count_at(CallKind::Sync, &self.path, Some(self.file), 0, 0);
        let file = state.files.get_mut(&self.file).expect("an open file exists");
        let mut seen = self.errors_seen.lock().unwrap_or_else(PoisonError::into_inner);
        match verdict {
            Verdict::PowerIsOff => Err(power_is_off()),
            Verdict::Fail(failure) => {
                file.lose_dirty(&mut state.random);
                *seen = file.write_back_errors;
                Err(failure.error())
            }
            Verdict::Go if *seen < file.write_back_errors => {
                *seen = file.write_back_errors;
                file.sync();
                Err(Failure::Eio.error())
            }
            Verdict::Go => {
                file.sync();
                Ok(())
            }
        }
    }

    fn resize(&self, bytes: u64) -> io::Result<()> {
        if !self.writable {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let state = &mut *self.disk.state();
        match state.faults.count_at(CallKind::Resize, &self.path, Some(self.file), bytes, 0) {
            Verdict::Go => {}
            Verdict::PowerIsOff => return Err(power_is_off()),
            Verdict::Fail(failure) => return Err(failure.error()),
        }
        let used = state.used();
        let file = state.files.get_mut(&self.file).expect("an open file exists");
        if bytes.saturating_sub(file.len()) > state.capacity.saturating_sub(used) {
            return Err(Failure::Enospc.error());
        }
        file.resize(bytes);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let mut state = self.disk.state();
        state.begin(CallKind::Length, &self.path)?;
        Ok(state.files[&self.file].len())
    }
}
