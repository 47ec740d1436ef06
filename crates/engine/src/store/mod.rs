//! The store: keyspace, log and background work together. This is the embedded library's face.
//!
//! ```text
//!  put / delete / batch ---\                        /--> keyspace (memory)
//!                           Store -- locks, room --<
//!  server's executors -----/                        \--> log --> disk --> commit --> answer
//! ```
//!
//! Threads: "log-writer", "log-files" and "log-archive" (see `log`), "expiry", "memory", "eviction" and "checkpoint" (see
//! `background`), "fetch" once a value was read back (see `fetch`), and in a lazy start "load" and "load-wanted" (see
//! `load`). With [`Options::threads`] off none is started: [`Store::turn`] does their work and
//! [`Store::checkpoint`] the last one's, for simulations.

mod api;
mod background;
mod backlog;
mod base;
mod batch;
mod check;
mod checkpoints;
mod eviction;
mod fetch;
mod load;
mod options;
mod repair;
mod restore;
mod scrub;
mod snapshots;
mod staging;
mod tier;

pub use api::{EntryInfo, Iter};
pub use batch::Batch;
pub use check::{BlockFileCheck, StoreCheck, check_store, inspect_block_file};
pub use checkpoints::{Between, CheckpointPolicy, CheckpointStatistics};
pub use eviction::{MemoryGauge, MemoryInUse, MemoryLimit, MemoryStatistics};
pub use fetch::{Fetch, Waker};
pub(crate) use load::Load;
pub use load::LoadStatistics;
pub use options::{OnFailure, Options, Restart};
pub use repair::{Basis, Gap, RepairError, RepairPlan, RepairReport, Repaired, is_repair_pending, plan_repair};
pub use restore::{
    RestoreError, RestoreProgress, RestoreRequest, Restored, Target, check_no_unfinished_restore, restore,
};
pub use scrub::ScrubStatistics;
pub use tier::TierStatistics;

use crate::apply::Freed;
use crate::clock::Clock;
use crate::command::{Change, Context, Pending};
use crate::disk::Disk;
use crate::error::Error;
use crate::exec::Durability;
use crate::keyspace::{DatabaseId, DatabaseTable, Hold, Keyspace, SegmentSet};
use crate::limits::{EXPIRE_SLICE, EXPIRE_SLICE_BYTES, LOG_MARK_AFTER, LOG_RESERVE_BYTES, VALUE_BYTES_MAX};
use crate::log::format::STORE_ID_BYTES;
use crate::log::{self, Admission, Log, LogOptions, LogStatistics, NameSync, RoomClass};
use crate::recovery::Recovery;
use crate::time::StoreTime;
use crate::version::Version;
use background::Background;
use base::Base;
use checkpoints::Checkpoints;
use eviction::Memory;
pub(crate) use eviction::MemoryRoom;
pub(crate) use fetch::Wanted;
use parking_lot::Mutex;
use scrub::Scrub;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use tier::Tier;

type Result<T, E = Error> = std::result::Result<T, E>;

/// A store that is open. Cheap to clone; all clones are the same store. It closes when [`Store::close`] is called or the
/// last clone is dropped.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    keyspace: Arc<Keyspace>,
    log: Log,
    time: StoreTime,
    options: Options,
    background: Background,
    checkpoints: Checkpoints,
    memory: Memory,
    scrub: Scrub,
    tier: Tier,
    load: Arc<Load>,
    log_directory: PathBuf,
    expired: AtomicU64,
    key_bytes_max: AtomicUsize,
    value_bytes_max: AtomicUsize,
    seeds: AtomicU64,
    closed: AtomicBool,
    recovered: log::Recovered,
    /// Held as long as the store is open.
    directory_lock: Mutex<Option<Box<dyn Send + Sync>>>,
}

/// Figures about a store.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Statistics {
    /// Keys in all databases; those that a lazy start has yet to load as the checkpoint had them.
    pub keys: usize,
    /// Keys in memory that have an expiry.
    pub expiring: usize,
    /// Entries changed since the newest checkpoint, or since the cut of the one that runs.
    pub dirty: usize,
    /// Bytes of all entries, as allocated.
    pub entry_bytes: usize,
    /// Bytes of the tables that find them.
    pub table_bytes: usize,
    /// Entries removed because they had expired, since the store was opened.
    pub expired: u64,
    /// The limit on memory.
    pub memory: MemoryStatistics,
    /// The log.
    pub log: LogStatistics,
    /// What was read when the store was opened.
    pub recovered: log::Recovered,
}

impl Store {
    /// Opens the store in a directory, which is made if need be, and brings back every acknowledged write.
    ///
    /// ```
    /// # fn main() -> bowline::Result<()> {
    /// # let directory = tempfile::tempdir().expect("a temporary directory");
    /// let store = bowline::Store::open(bowline::Options::new(directory.path()))?;
    /// store.put(b"greeting", b"hello")?; // returns when it is safe on disk
    /// assert_eq!(store.get(b"greeting")?.as_deref(), Some(&b"hello"[..]));
    /// store.close()
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Locked`] when another process has it open, [`Error::Corrupt`] when the files are damaged,
    /// [`Error::FormatTooNew`], and whatever the disk says.
    pub fn open(options: Options) -> Result<Store> {
        Store::open_watched(options, &|_| {})
    }

    /// As [`Store::open`], telling `progress` how far recovery has come: often, and from the calling thread.
    pub fn open_watched(options: Options, progress: &dyn Fn(log::Progress)) -> Result<Store> {
        let memory = Memory::new(options.memory_limit, options.memory_gauge.clone());
        let reached = tell_phases(options.clock.clone());
        let directory_lock = take_directory(&*options.disk, &options.directory)?;
        let log_directory = options.log_path();
        let sync_names = || NameSync::start(options.disk.clone(), log_directory.clone()).ok();
        let names = options.threads.then(sync_names).flatten();
        reached("the directory is ours");
        let base = Base::open(&options, &options.block_path(), &log_directory)?;
        let seed = u128::from_le_bytes(base.identity.hash_seed);
        let keyspace = Arc::new(Keyspace::new(options.segments, seed, options.entries_per_segment));
        let load = base.load(&keyspace, &options)?;
        reached("the index is read");
        if options.restart == Restart::Eager {
            load.load_all(options.threads, progress)?;
            reached("the entries are read");
        }
        let mut recovery = Recovery::new(keyspace.clone(), base.cut(), options.threads, Some(load.clone()));
        let log_options = LogOptions { names, ..log_options(&options, base.identity.store_id, base.version_floor) };
        let (log, writer, files, recovered) = Log::open(log_options, &mut |frame| recovery.replay(frame), progress)?;
        let is_clean = recovery.finish()? == 0;
        reached("the log is read");
        snapshots::note_origin(&options, &base, recovered.last_version);
        if recovered.last_version > VERSION_MAX {
            let what = "its versions are beyond any time; it cannot be continued";
            return Err(Error::Corrupt { path: log_directory, offset: 0, what });
        }
        let shared = Shared {
            keyspace,
            background: Background::new(writer, files, &log, options.threads)?,
            log,
            checkpoints: Checkpoints::new(
                base.file,
                (options.checkpoints, options.compression),
                options.clock.wall_ms(),
                is_clean.then_some(recovered.last_version),
            ),
            memory,
            tier: Tier::new(load.views()),
            load,
            scrub: Scrub::new(options.scrub_bytes_per_second),
            time: StoreTime::new(options.clock.clone()),
            key_bytes_max: AtomicUsize::new(options.key_bytes_max.min(VALUE_BYTES_MAX)),
            value_bytes_max: AtomicUsize::new(options.value_bytes_max.min(VALUE_BYTES_MAX)),
            seeds: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            options,
            log_directory,
            expired: AtomicU64::new(0),
            recovered,
            directory_lock: Mutex::new(Some(directory_lock)),
        };
        let store = Store { shared: Arc::new(shared) };
        store.look_at_memory();
        if store.shared.options.threads {
            store.shared.background.start(&store)?;
            store.start_loading()?;
        }
        reached("the store is open");
        Ok(store)
    }

    /// Makes everything durable, writes a last checkpoint, stops the background and gives the directory free. Other
    /// clones of the store refuse further writes.
    ///
    /// # Errors
    /// [`Error::Poisoned`] when the last writes could not be made durable. A checkpoint that finds no room is no error:
    /// the next start reads the log instead.
    pub fn close(self) -> Result<()> {
        self.shared.closed.store(true, Ordering::SeqCst);
        self.checkpoint_at_close();
        self.shared.close()
    }

    /// As [`Store::close`], without the checkpoint; one that is running is given up. The next start reads the log.
    ///
    /// # Errors
    /// As [`Store::close`].
    pub fn close_without_checkpoint(self) -> Result<()> {
        self.shared.closed.store(true, Ordering::SeqCst);
        self.shared.close()
    }

    /// The log.
    pub fn log(&self) -> &Log {
        &self.shared.log
    }

    /// The keyspace.
    pub fn keyspace(&self) -> &Keyspace {
        &self.shared.keyspace
    }

    /// The options it was opened with.
    pub fn options(&self) -> &Options {
        &self.shared.options
    }

    /// The store's time: milliseconds since the Unix epoch, without the jumps of the wall clock.
    pub fn now_ms(&self) -> u64 {
        self.shared.time.now_ms()
    }

    /// How many database numbers there are.
    pub fn databases(&self) -> u32 {
        self.shared.options.databases
    }

    /// Longest value that a command may make, bytes.
    pub fn value_bytes_max(&self) -> usize {
        self.shared.value_bytes_max.load(Ordering::Relaxed)
    }

    /// Longest key, bytes.
    pub fn key_bytes_max(&self) -> usize {
        self.shared.key_bytes_max.load(Ordering::Relaxed)
    }

    /// Changes the longest key and value, bytes; neither goes above [`VALUE_BYTES_MAX`]. What is longer already stays.
    pub fn set_size_limits(&self, key_bytes_max: usize, value_bytes_max: usize) {
        self.shared.key_bytes_max.store(key_bytes_max.min(VALUE_BYTES_MAX), Ordering::Relaxed);
        self.shared.value_bytes_max.store(value_bytes_max.min(VALUE_BYTES_MAX), Ordering::Relaxed);
    }

    /// A seed for an executor's random choices; another one each time.
    pub fn random_seed(&self) -> u64 {
        self.shared.keyspace.hash(&self.shared.seeds.fetch_add(1, Ordering::Relaxed).to_le_bytes())
    }

    /// The error reply of a write that was refused because the log has no room.
    pub fn no_room_text(&self) -> String {
        let error = if self.shared.log.is_poisoned() { Error::Poisoned } else { self.no_room() };
        match error {
            Error::BlockFileFull { .. } => format!("ERR {error}"),
            _ => format!("MISCONF {error}"),
        }
    }

    /// Figures; takes each segment's lock for a moment.
    pub fn statistics(&self) -> Statistics {
        let (mut keys, mut expiring, mut dirty, mut entry_bytes, mut table_bytes) = (0, 0, 0, 0, 0);
        let to_come = self.for_each_table(|_, table| {
            keys += table.entries().len();
            expiring += table.expiring();
            dirty += table.dirty();
            entry_bytes += table.entries().entry_bytes();
            table_bytes += table.entries().table_bytes();
        });
        keys += to_come.into_iter().map(|(_, entries)| entries).sum::<usize>();
        Statistics {
            keys,
            expiring,
            dirty,
            entry_bytes,
            table_bytes,
            expired: self.shared.expired.load(Ordering::Relaxed),
            memory: self.memory(),
            log: self.shared.log.statistics(),
            recovered: self.shared.recovered,
        }
    }

    /// Keys and expiring keys of each database number that has any. In a lazy start, keys that are not loaded are counted as
    /// the checkpoint had them: those that have expired since too, and none as expiring.
    pub fn database_sizes(&self) -> Vec<(u32, usize, usize)> {
        let mut sizes = std::collections::BTreeMap::new();
        let mut count = |id, keys, expiring| {
            if let Some(number) = self.shared.keyspace.databases.number_of(id) {
                let size: &mut (usize, usize) = sizes.entry(number).or_default();
                *size = (size.0 + keys, size.1 + expiring);
            }
        };
        let to_come = self.for_each_table(|id, table| count(id, table.entries().len(), table.expiring()));
        to_come.into_iter().for_each(|(id, entries)| count(id, entries, 0));
        sizes.into_iter().filter(|(_, (keys, _))| *keys > 0).map(|(n, (keys, expiring))| (n, keys, expiring)).collect()
    }

    /// Visits every table that is in memory; returns how many entries of which databases are not, at that moment.
    fn for_each_table(&self, mut visit: impl FnMut(DatabaseId, &DatabaseTable)) -> Vec<(DatabaseId, usize)> {
        let keyspace = &self.shared.keyspace;
        if keyspace.all_loaded() {
            for segment in keyspace.every_segment().iter() {
                let hold = keyspace.hold(one(segment), SegmentSet::EMPTY);
                hold.segment(segment).tables().for_each(|(id, table)| visit(id, table));
            }
            return Vec::new();
        }
        // A segment that comes meanwhile would be counted twice, or not at all.
        let hold = keyspace.hold(keyspace.every_segment(), SegmentSet::EMPTY);
        for segment in keyspace.every_segment().iter() {
            hold.segment(segment).tables().for_each(|(id, table)| visit(id, table));
        }
        let entries = |of: u64| usize::try_from(of).unwrap_or(usize::MAX);
        keyspace.entries_to_come().into_iter().map(|(id, of)| (id, entries(of))).collect()
    }

    /// Does the background's work once, for a store without threads: one step of the log's writer, one of its files, and
    /// the removal of what has expired, a segment that is still to be loaded. Returns whether anything was done.
    pub fn turn(&self) -> bool {
        let expired = self.remove_all_due();
        let wants_checkpoint = self.wants_room_in_block_file() || self.shared.tier.wants_checkpoint();
        if wants_checkpoint && !self.shared.checkpoints.is_running() {
            self.checkpoint_if_due(&mut || {});
        }
        let evicted = self.shared.memory.is_limited() && self.evict_down();
        let loaded = self.load_one();
        self.shared.background.turn(self.shared.options.clock.monotonic()) || expired > 0 || evicted || loaded
    }

    /// Removes every entry that is due, in slices, as far as the log has room. Returns how many.
    pub(crate) fn remove_all_due(&self) -> usize {
        // Not from the reserve: that is for people who remove things to make room.
        let now_ms = self.now_ms();
        let segments = 0..self.shared.keyspace.segment_count();
        segments.map_while(|segment| self.remove_due(segment, now_ms, RoomClass::Ordinary).ok()).sum()
    }

    /// Removes every entry that is due at `now_ms`, for a reply that would tell of it.
    ///
    /// # Errors
    /// Why the log gave no room.
    pub(crate) fn remove_due_everywhere(&self, now_ms: u64) -> Result<usize, Admission> {
        let segments = 0..self.shared.keyspace.segment_count();
        segments.map(|segment| self.remove_due(segment, now_ms, RoomClass::Removal)).sum()
    }

    /// Removes the entries of a segment that are due at `now_ms`, a slice in each hold. Returns how many.
    fn remove_due(&self, segment: usize, now_ms: u64, class: RoomClass) -> Result<usize, Admission> {
        let (mut total, mut room) = (0, EXPIRE_SLICE_BYTES);
        while self.shared.keyspace.deadline(segment) <= now_ms {
            let (removed, next) = self.remove_due_slice(segment, now_ms, room, class)?;
            total += removed;
            // A key longer than a whole slice gets a slice of its size.
            room = next.unwrap_or(0).max(EXPIRE_SLICE_BYTES);
            if removed == 0 && next.is_none() {
                break;
            }
        }
        Ok(total)
    }

    fn remove_due_slice(
        &self,
        segment: usize,
        now_ms: u64,
        room: usize,
        class: RoomClass,
    ) -> Result<(usize, Option<usize>), Admission> {
        match self.admit(room, class) {
            Admission::Admitted => {}
            refused => return Err(refused),
        }
        let mut pending = Pending::default();
        let mut hold = self.shared.keyspace.hold(SegmentSet::EMPTY, one(segment));
        let mut context = self.context(now_ms);
        let mut change = Change { hold: &mut hold, context: &mut context, pending: &mut pending };
        let removed = change.remove_due(segment, EXPIRE_SLICE, room);
        let appended = self.append(&mut hold, &mut pending, now_ms).1;
        drop(hold);
        self.shared.log.settle(room, appended);
        self.free_in_background(pending.freed);
        self.shared.expired.fetch_add(removed.0 as u64, Ordering::Relaxed);
        Ok(removed)
    }

    fn context(&self, now_ms: u64) -> Context<'static> {
        Context {
            database: 0,
            databases: self.databases(),
            now_ms,
            value_bytes_max: self.value_bytes_max(),
            policy: self.eviction_policy(),
            counts_uses: false,
            planned: &[],
            depends: Version::ZERO,
            last_version: self.shared.log.last_version(),
            hits: 0,
            misses: 0,
            own_version_at: Vec::new(),
            random: 0,
        }
    }

    /// Logs what is pending, if anything is; returns its version and its bytes in the log.
    fn append(&self, hold: &mut Hold<'_>, pending: &mut Pending, now_ms: u64) -> (Option<Version>, usize) {
        crate::exec::append(&self.shared.log, hold, pending, now_ms)
    }

    /// Frees memory that would take long, on another thread.
    pub(crate) fn free_in_background(&self, freed: Freed) {
        if !freed.is_empty() {
            self.shared.background.free(freed, &self.shared.memory.freeing);
        }
    }

    /// Takes room in the log, waiting for it if need be.
    fn wait_for_room(&self, bytes: usize, class: RoomClass) -> Result<()> {
        if self.shared.closed.load(Ordering::SeqCst) {
            return Err(Error::Closed);
        }
        let ask = || match self.admit(bytes, class) {
            Admission::Admitted => Some(Ok(())),
            Admission::DiskFull => Some(Err(self.no_room())),
            Admission::Poisoned => Some(Err(Error::Poisoned)),
            Admission::Wait => None,
        };
        loop {
            if let Some(answer) = ask() {
                return answer;
            }
            if self.shared.options.threads {
                return self.shared.log.wait_for_room(ask);
            }
            // What waits to be written makes room; nobody else may ask for it.
            self.shared.log.request_sync(self.shared.log.last_version());
            self.turn();
        }
    }

    /// Waits until a version is durable, whatever the durability of the options is.
    fn wait_for_durable(&self, version: Version) -> Result<()> {
        let log = &self.shared.log;
        if self.shared.options.threads {
            return log.wait(version);
        }
        self.turn_until(|| log.commit() >= version)
    }

    /// Waits until the log durably names the checkpoint of this version.
    fn wait_for_note(&self, version: Version) -> Result<()> {
        let log = &self.shared.log;
        if self.shared.options.threads {
            return log.wait_for_note(version);
        }
        self.turn_until(|| log.noted_checkpoint() >= version)
    }

    fn turn_until(&self, mut done: impl FnMut() -> bool) -> Result<()> {
        let log = &self.shared.log;
        while !done() {
            if log.is_poisoned() {
                return Err(Error::Poisoned);
            }
            log.request_sync(log.last_version());
            self.turn();
        }
        Ok(())
    }

    /// Waits until a version is committed, as the durability of the options asks for.
    fn wait_for_commit(&self, version: Version) -> Result<()> {
        let log = &self.shared.log;
        if self.shared.options.durability != Durability::Always && version <= log.version_limit() {
            return Ok(());
        }
        if self.shared.options.threads {
            return log.wait(version);
        }
        log.request_sync(version);
        while log.commit() < version {
            if log.is_poisoned() {
                return Err(Error::Poisoned);
            }
            self.turn();
        }
        Ok(())
    }
}

impl Shared {
    /// Stops the background and gives the directory free. The second call does nothing.
    fn close(&self) -> Result<()> {
        self.checkpoints.abandon();
        self.load.stop();
        self.tier.queue.close();
        let closed = self.background.close(&self.log, self.options.clock.monotonic());
        self.directory_lock.lock().take();
        closed
    }
}

/// The last version from which there is a way up: far beyond any date.
const VERSION_MAX: Version = Version(u64::MAX >> 1);

fn one(segment: usize) -> SegmentSet {
    let mut set = SegmentSet::EMPTY;
    set.insert(segment);
    set
}

fn log_options(options: &Options, store_id: [u8; STORE_ID_BYTES], version_floor: Version) -> LogOptions {
    let on_failure = options.on_failure.clone();
    LogOptions {
        directory: options.log_path(),
        file_bytes: options.log_file_bytes,
        buffer_bytes_max: options.log_buffer_bytes,
        reserve_bytes: LOG_RESERVE_BYTES,
        background_sync: options.durability.background_sync(),
        version_floor,
        mark_after: LOG_MARK_AFTER,
        store_id,
        disk: options.disk.clone(),
        names: None,
        clock: options.clock.clone(),
        archive: options.archive.clone(),
        on_failure: on_failure.map(|report| -> log::OnFailure { Box::new(move |error| report(error)) }),
    }
}

fn random_u128() -> Result<u128> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::io("read", Path::new("/dev/urandom"), std::io::Error::other(error.to_string())))?;
    Ok(u128::from_le_bytes(bytes))
}

/// Tells the log of the process how long a start took to reach each of its phases.
fn tell_phases(clock: Arc<dyn Clock>) -> impl Fn(&'static str) {
    let began = clock.monotonic();
    move |phase| {
        let ms = clock.monotonic().saturating_sub(began).as_secs_f64() * 1e3;
        tracing::debug!(phase, ms, "the start goes on");
    }
}

/// Makes the store's directory, locks it, and ends what a crash left half done there.
fn take_directory(disk: &dyn Disk, directory: &Path) -> Result<Box<dyn Send + Sync>> {
    disk.create_directory(directory).map_err(|source| Error::io("create", directory, source))?;
    let lock = lock_directory(disk, directory)?;
    restore::check_no_unfinished_restore(disk, directory)?;
    repair::finish_repair(disk, directory)?;
    Ok(lock)
}

fn lock_directory(disk: &dyn Disk, directory: &Path) -> Result<Box<dyn Send + Sync>> {
    let path = directory.join("lock");
    disk.lock(&path).map_err(|source| {
        if source.kind() != std::io::ErrorKind::WouldBlock {
            return Error::io("lock", &path, source);
        }
        let mut text = [0; 16];
        let read = disk.open_read_only(&path).and_then(|file| file.read_at(&mut text, 0)).unwrap_or(0);
        let pid =
            text.get(..read).and_then(|text| std::str::from_utf8(text).ok()).and_then(|text| text.trim().parse().ok());
        Error::Locked { path: directory.to_owned(), pid }
    })
}
