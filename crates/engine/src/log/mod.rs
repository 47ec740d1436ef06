//! The write-ahead log: the one place where a write becomes durable.
//!
//! ```text
//!   admit -> append -> buffer -> write + fdatasync (one per group) -> durable -> commit -> reply
//!   room     version and place   log-writer                           |
//!            in one step         log-files keeps a file ahead         alone, commit = durable
//! ```
//!
//! Watermarks are versions: `commit <= durable <= last_version`, and none of them ever goes back. A record is the
//! effects of one command; a frame is the records of one group commit; all of a command is in one frame, so recovery
//! sees all of it or nothing.
//!
//! A failed write or sync poisons the log: the kernel may have dropped the dirty pages, so a second sync could succeed
//! for bytes that are gone. From then on no commit moves.
//!
//! | file | subject |
//! | --- | --- |
//! | `format` | the bytes of a log file |
//! | `record` | the records in a frame |
//! | `buffer`, `room` | where records wait, and how much may |
//! | `writer`, `tail_block` | writes, syncs, commits, marks; the last block, written whole |
//! | `files` | prepares, starts, recycles files |
//! | `archive`, `archiver` | copies of finished files: reads them, makes them |
//! | `waiters` | who waits for a commit |
//! | `survey`, `scan`, `recovery`, `check` | finds the files, reads them, repairs the tail, verifies |
//! | `salvage` | reads what a damaged log still holds |
//!
//! Not here: what an effect means ([`crate::effect`]), who asks for which durability, majorities.

pub mod archive;
mod archiver;
mod buffer;
mod check;
mod files;
pub mod format;
mod record;
mod recovery;
mod room;
pub(crate) mod salvage;
mod scan;
mod statistics;
mod survey;
mod tail_block;
#[cfg(test)]
mod tests;
mod threads;
mod waiters;
mod writer;

use std::io::ErrorKind::NotFound;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;

pub use self::archive::ArchiveOptions;
use self::archiver::Archiver;
use self::buffer::Buffer;
pub use self::check::{CheckReport, CheckedFile, FileState, check};
pub use self::files::FilePreparer;
use self::files::Files;
pub(crate) use self::files::{is_full, number_of};
pub use self::record::{Record, Records, ReplayFrame};
pub use self::recovery::{NameSync, Progress, Recovered};
pub use self::room::{Admission, RECORD_ROOM_BYTES, RoomClass};
use self::room::{NoRoom, Room};
pub use self::salvage::LogCut;
use self::statistics::Counters;
pub use self::statistics::LogStatistics;
use self::survey::Survey;
pub(crate) use self::survey::read_up_to;
pub use self::threads::{LogThreads, spawn};
pub use self::waiters::Listener;
use self::waiters::{Listeners, Signal, Waiters};
pub use self::writer::LogWriter;
use crate::clock::Clock;
use crate::disk::Disk;
use crate::effect::Effects;
use crate::error::{Error, Result};
use crate::time::StoreTime;
use crate::version::Version;

/// Called once, with the error that stopped the log.
pub type OnFailure = Box<dyn Fn(&Error) + Send + Sync>;

/// How a log is opened.
pub struct LogOptions {
    /// Where its files are; created when missing. Nothing else may write there: the caller holds a lock.
    pub directory: PathBuf,
    /// Size of a log file, bytes; at least 16 KiB. Files of another size are read and then replaced.
    pub file_bytes: u64,
    /// Most bytes appended and not yet written; at most half a file is used.
    pub buffer_bytes_max: usize,
    /// Kept for removals in the last file when the disk is full, bytes; at most a 16th of a file is used.
    pub reserve_bytes: u64,
    /// When written records that nobody asked a sync for are synced.
    pub background_sync: Duration,
    /// When a mark is written after the last commit, if nothing follows.
    pub mark_after: Duration,
    /// Identity of the store; used only when the log is created.
    pub store_id: [u8; format::STORE_ID_BYTES],
    /// Versions up to this one were handed out, whatever the log says: those that a checkpoint knows of.
    pub version_floor: Version,
    /// The file system.
    pub disk: Arc<dyn Disk>,
    /// The directory's names, where they are being made durable already; else opening the log does it.
    pub names: Option<NameSync>,
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// Where finished files are copied before they are given up; `None` keeps no copies.
    pub archive: Option<ArchiveOptions>,
    /// Called once when the log is poisoned, after everybody who waits was woken.
    pub on_failure: Option<OnFailure>,
}

/// A published checkpoint: what the log need not say again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Records up to this version are in it.
    pub version: Version,
    /// No record above `version` stands before this position of the log.
    pub position: u64,
}

/// What the newest file header of a log says, without reading the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Identity of the store.
    pub store_id: [u8; format::STORE_ID_BYTES],
    /// Nothing before this position matters any more.
    pub replay_from: u64,
    /// Version of the newest published checkpoint that the log knows of; 0 when there is none.
    pub checkpoint: Version,
}

impl Head {
    /// Looks for a log in `directory` and reads its file headers. `None` when there is no log.
    ///
    /// # Errors
    /// `FormatTooNew`, `Corrupt`, `Io`.
    pub fn read(disk: &dyn Disk, directory: &Path) -> Result<Option<Head>> {
        let missing = |error: &Error| matches!(error, Error::Io { source, .. } if source.kind() == NotFound);
        let survey = match Survey::of(disk, directory) {
            Err(error) if missing(&error) => return Ok(None),
            other => other?,
        };
        Ok(survey.newest.map(|(_, header)| Head {
            store_id: header.store_id,
            replay_from: header.replay_from,
            checkpoint: header.checkpoint,
        }))
    }
}

/// What a step of one of the log's state machines did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Something; there may be more to do.
    Worked,
    /// Nothing. Comes again at `until` (the clock's monotonic time), or when it is given something to do.
    Idle {
        /// The time, if there is one.
        until: Option<Duration>,
    },
}

/// The log's handle: append, admit, commit, wait. Clones are the same log.
#[derive(Clone)]
pub struct Log {
    shared: Arc<Shared>,
}

/// What the handle, the writer and the preparer share.
pub(crate) struct Shared {
    pub(crate) buffer: Mutex<Buffer>,
    /// Memory of the frames that the writer has taken, bytes.
    pub(crate) writer_bytes: AtomicUsize,
    last_version: AtomicU64,
    commit: AtomicU64,
    durable: AtomicU64,
    version_limit: AtomicU64,
    sync_requested: AtomicU64,
    /// A checkpoint that the file header does not name yet.
    checkpoint_wanted: Mutex<Option<Checkpoint>>,
    /// Version of the checkpoint that the durable file header names.
    checkpoint: AtomicU64,
    poisoned: AtomicBool,
    failure: OnceLock<String>,
    pub(crate) closing: AtomicBool,
    /// The writer has ended: what it has not written will never be.
    ended: AtomicBool,
    pub(crate) room: Room,
    pub(crate) files: Files,
    waiters: Waiters,
    /// Who waits until the file header names a checkpoint.
    notes: Waiters,
    listeners: Listeners,
    pub(crate) writer_signal: Signal,
    pub(crate) files_signal: Signal,
    pub(crate) archive_signal: Signal,
    /// The writer sleeps longer than a record may linger.
    pub(crate) writer_sleeps_long: AtomicBool,
    pub(crate) counters: Counters,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) time: StoreTime,
    background_sync_ns: AtomicU64,
    pub(crate) mark_after: Duration,
    on_failure: Option<OnFailure>,
}

impl Log {
    /// Opens the log: verifies the files, hands every frame that matters to `replay` in order, repairs the tail and
    /// begins a new epoch. `progress` is called after every few megabytes. A crash at any moment of it is harmless.
    ///
    /// The writer and the preparer are state machines: give them to [`spawn`], or step them by hand.
    ///
    /// # Errors
    /// `Corrupt` where bytes are gone that were durable, `FormatTooNew`, `DiskFull`, `Io`; errors of `replay` as they
    /// are. Nothing was changed then, except that bytes already there may have been written once more.
    pub fn open(
        options: LogOptions,
        replay: &mut dyn FnMut(ReplayFrame) -> Result<()>,
        progress: &dyn Fn(Progress),
    ) -> Result<(Log, LogWriter, FilePreparer, Recovered)> {
        let archive = options.archive.clone();
        let (shared, writer, recovered) = recovery::open(options, replay, progress)?;
        let archiver = archive.map(|archive| Archiver::new(Arc::clone(&shared), archive, writer.file_header()));
        let preparer = FilePreparer::new(Arc::clone(&shared), archiver);
        Ok((Log { shared }, writer, preparer, recovered))
    }

    /// Appends one command's effects and leaves the vector empty. Version and place are one step. `now_ms` is the
    /// store's time. Cannot fail: the room was admitted, and a log that has failed acknowledges nothing.
    ///
    /// # Panics
    /// When the effects are over [`crate::limits::RECORD_BYTES_MAX`].
    pub fn append(&self, now_ms: u64, effects: &mut Vec<u8>) -> Version {
        self.append_record(now_ms, effects, false)
    }

    /// As [`Log::append`], for a record before which nothing matters. Once it is durable, older files are given up.
    ///
    /// # Panics
    /// As [`Log::append`].
    pub fn append_reset(&self, now_ms: u64, effects: &mut Vec<u8>) -> Version {
        self.append_record(now_ms, effects, true)
    }

    /// As [`Log::append`] and, with `reset`, [`Log::append_reset`], for effects that may be in chunks.
    ///
    /// # Panics
    /// As [`Log::append`].
    pub(crate) fn append_effects(&self, now_ms: u64, effects: &mut Effects, reset: bool) -> Version {
        if let Some(bytes) = effects.plain() {
            return self.append_record(now_ms, bytes, reset);
        }
        self.append_with(effects.len(), |buffer| {
            buffer.append_chunked(now_ms, effects, reset, || self.shared.clock.monotonic())
        })
    }

    fn append_record(&self, now_ms: u64, effects: &mut Vec<u8>, reset: bool) -> Version {
        self.append_with(effects.len(), |buffer| {
            buffer.append(now_ms, effects, reset, || self.shared.clock.monotonic())
        })
    }

    #[inline]
    fn append_with(&self, bytes: usize, append: impl FnOnce(&mut Buffer) -> Version) -> Version {
        assert!(bytes <= crate::limits::RECORD_BYTES_MAX, "{bytes} bytes of effects are over the limit of a record");
        let shared = &*self.shared;
        shared.room.add(bytes);
        let (version, was_empty) = {
            let mut buffer = shared.buffer.lock();
            let was_empty = buffer.is_empty();
            let version = append(&mut buffer);
            shared.last_version.store(version.0, SeqCst);
            (version, was_empty)
        };
        if was_empty && shared.writer_sleeps_long.load(SeqCst) {
            shared.writer_signal.notify();
        }
        version
    }

    /// Asks for room for one record of `bytes` effects, before anything executes. Holds no lock and does not wait.
    /// Whoever is admitted appends at most that, then calls [`Log::settle`], also when it appended nothing. For several
    /// records, [`RECORD_ROOM_BYTES`] are added for each further one. 0 reserves nothing: nothing may be appended then.
    pub fn admit(&self, bytes: usize, class: RoomClass) -> Admission {
        self.shared.admit(bytes, class)
    }

    /// Ends an admission for `admitted` bytes after which `appended` bytes of effects were appended.
    pub fn settle(&self, admitted: usize, appended: usize) {
        if appended > admitted {
            Counters::add(&self.shared.counters.admissions_exceeded, 1);
        }
        self.shared.room.settle(admitted);
        self.shared.wake_for_room();
    }

    /// As [`Log::admit`], blocking the thread while the answer is [`Admission::Wait`].
    ///
    /// # Errors
    /// `DiskFull`, `Poisoned`.
    pub fn admit_blocking(&self, bytes: usize, class: RoomClass) -> Result<()> {
        let ask = || match self.admit(bytes, class) {
            Admission::Admitted => Some(Ok(())),
            Admission::DiskFull => Some(Err(Error::DiskFull { path: self.shared.files.directory.clone() })),
            Admission::Poisoned => Some(Err(Error::Poisoned)),
            Admission::Wait => None,
        };
        ask().unwrap_or_else(|| self.wait_for_room(ask))
    }

    /// Blocks the thread until `ask` answers; it is asked again whenever room may have appeared.
    pub fn wait_for_room<T>(&self, ask: impl Fn() -> Option<T>) -> T {
        self.shared.room.wait_while(|| {
            self.shared.writer_signal.notify();
            ask()
        })
    }

    /// Lets everybody who waits for room ask again: what they were refused for elsewhere is over.
    pub fn wake_for_room(&self) {
        self.shared.wake_for_room();
    }

    /// The newest version that may be told to a client; moves only forward.
    pub fn commit(&self) -> Version {
        self.shared.commit()
    }

    /// The newest version that is safe on this machine's disk.
    pub fn durable(&self) -> Version {
        Version(self.shared.durable.load(SeqCst))
    }

    /// The last version assigned.
    pub fn last_version(&self) -> Version {
        Version(self.shared.last_version.load(SeqCst))
    }

    /// The durable high-water mark: versions up to it are never handed out again, whatever a crash loses.
    pub fn version_limit(&self) -> Version {
        Version(self.shared.version_limit.load(SeqCst))
    }

    /// A reply that depends on `upto` is held: sync up to it.
    pub fn request_sync(&self, upto: Version) {
        self.shared.request_sync(upto);
    }

    /// Blocks the thread until `version` is committed, and asks for the sync that this takes.
    ///
    /// # Errors
    /// `Poisoned` when the log has failed before.
    pub fn wait(&self, version: Version) -> Result<()> {
        let shared = &self.shared;
        if shared.commit() < version {
            shared.request_sync(version);
            shared.waiters.wait(version, || shared.is_settled(version));
        }
        if shared.commit() >= version { Ok(()) } else { Err(Error::Poisoned) }
    }

    /// An ear for an event loop; `wake` is called from any thread and must not block. Dropping it unsubscribes.
    pub fn subscribe(&self, wake: Box<dyn Fn() + Send + Sync>) -> Arc<Listener> {
        self.shared.listeners.add(&self.shared, wake)
    }

    /// Changes when records are synced that nobody asked a sync for.
    pub fn set_background_sync(&self, every: Duration) {
        self.shared.set_background_sync(every);
        self.shared.writer_signal.notify();
    }

    /// A checkpoint was published and is durable: the log lets its file header say so, and gives up what is before it.
    ///
    /// # Panics
    /// In the writer, when the checkpoint's version is not durable in the log.
    pub fn note_checkpoint(&self, checkpoint: Checkpoint) {
        *self.shared.checkpoint_wanted.lock() = Some(checkpoint);
        self.shared.writer_signal.notify();
    }

    /// Version of the newest checkpoint that the log durably knows of; 0 while there is none.
    pub fn noted_checkpoint(&self) -> Version {
        Version(self.shared.checkpoint.load(SeqCst))
    }

    /// Blocks the thread until the log durably knows of the checkpoint of `version`.
    ///
    /// # Errors
    /// `Poisoned` when the log has failed before.
    pub fn wait_for_note(&self, version: Version) -> Result<()> {
        let shared = &self.shared;
        let is_noted = || self.noted_checkpoint() >= version;
        shared.notes.wait(version, || is_noted() || shared.is_poisoned() || shared.ended.load(SeqCst));
        if is_noted() { Ok(()) } else { Err(Error::Poisoned) }
    }

    /// Stops the log because another file of the store has failed: nothing is acknowledged any more.
    pub fn fail(&self, error: Error) {
        self.shared.poison(error);
    }

    /// Whether a write or sync has failed: no commit moves any more.
    pub fn is_poisoned(&self) -> bool {
        self.shared.is_poisoned()
    }

    /// What failed, for people; `None` while nothing has.
    pub fn failure(&self) -> Option<&str> {
        self.shared.failure.get().map(String::as_str)
    }

    /// Whether the next file could not be prepared because the disk is full.
    pub fn is_disk_full(&self) -> bool {
        self.shared.files.disk_full.load(SeqCst)
    }

    /// Asks the writer to write and sync everything and to end with a closing mark; see [`LogWriter::is_closed`].
    /// Nothing may be appended any more. [`LogThreads::close`] does this and waits.
    pub fn begin_close(&self) {
        self.shared.closing.store(true, SeqCst);
        self.shared.writer_signal.notify();
    }

    /// Position after the last frame written, bytes of the whole log since it was created.
    pub fn append_position(&self) -> u64 {
        self.shared.counters.append_position.load(SeqCst)
    }

    /// Bytes of the log that a restart would read.
    pub fn live_bytes(&self) -> u64 {
        self.append_position().saturating_sub(self.shared.counters.replay_from.load(SeqCst))
    }

    /// Bytes admitted or appended and not yet written.
    pub fn unwritten_bytes(&self) -> u64 {
        self.shared.room.unwritten()
    }

    /// Memory that records take on their way into a file, bytes: at most twice what the buffer may hold.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.shared.buffer.lock().memory_bytes() + self.shared.writer_bytes.load(SeqCst)
    }
}

impl Shared {
    pub(crate) fn commit(&self) -> Version {
        Version(self.commit.load(SeqCst))
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        self.poisoned.load(SeqCst)
    }

    /// Whether waiting for `version` has ended, one way or the other.
    pub(crate) fn is_settled(&self, version: Version) -> bool {
        self.commit() >= version || self.is_poisoned() || self.ended.load(SeqCst)
    }

    /// Nothing is written any more: lets go of everybody who still waits.
    pub(crate) fn end(&self) {
        self.ended.store(true, SeqCst);
        self.waiters.release(Version::MAX);
        self.notes.release(Version::MAX);
    }

    pub(crate) fn background_sync(&self) -> Duration {
        Duration::from_nanos(self.background_sync_ns.load(SeqCst))
    }

    fn set_background_sync(&self, every: Duration) {
        let ns = u64::try_from(every.as_nanos()).unwrap_or(u64::MAX);
        self.background_sync_ns.store(ns, SeqCst);
    }

    pub(crate) fn request_sync(&self, upto: Version) {
        let upto = upto.0.min(self.last_version.load(SeqCst));
        if upto <= self.durable.load(SeqCst) || self.sync_requested.load(SeqCst) >= upto {
            return;
        }
        if self.sync_requested.fetch_max(upto, SeqCst) < upto {
            self.writer_signal.notify();
        }
    }

    /// Whether somebody waits for a sync: for a commit, or for the version limit to rise above what was handed out.
    pub(crate) fn is_sync_asked(&self) -> bool {
        self.sync_requested.load(SeqCst) > self.durable.load(SeqCst)
            || self.last_version.load(SeqCst) > self.version_limit.load(SeqCst)
    }

    /// Everything up to `durable` is on disk, and the frame that carries `limit`.
    pub(crate) fn publish(&self, durable: Version, limit: Version) {
        if self.is_poisoned() {
            return;
        }
        self.version_limit.store(limit.0, SeqCst);
        self.durable.store(durable.0, SeqCst);
        self.commit.store(durable.0, SeqCst);
        self.waiters.release(durable);
        self.listeners.committed(durable);
    }

    /// Stops the log: a write or sync has failed.
    pub(crate) fn poison(&self, error: Error) {
        let message = error.to_string();
        if self.failure.set(message).is_err() {
            return;
        }
        self.poisoned.store(true, SeqCst);
        tracing::error!(%error, "the log has failed; nothing is acknowledged any more");
        self.waiters.release(Version::MAX);
        self.notes.release(Version::MAX);
        self.room.want();
        self.room.wake();
        self.listeners.failed();
        self.notify_files();
        self.writer_signal.notify();
        if let Some(on_failure) = &self.on_failure {
            on_failure(&error);
        }
    }

    fn admit(&self, bytes: usize, class: RoomClass) -> Admission {
        if self.is_poisoned() {
            return Admission::Poisoned;
        }
        match self.room.admit(bytes, class, &|| self.wake_for_room()) {
            Ok(()) => Admission::Admitted,
            Err(NoRoom::Buffer) => Admission::Wait,
            Err(NoRoom::Files(whole)) => self.ask_for_file(whole),
        }
    }

    /// No file there is holds `whole` bytes now.
    fn ask_for_file(&self, whole: u64) -> Admission {
        if self.room.will_fit_spare(whole) {
            return Admission::Wait;
        }
        if self.files.disk_full.load(SeqCst) {
            return Admission::DiskFull;
        }
        if let Some(capacity) = self.room.unusual_capacity(whole) {
            self.files.want(capacity);
        }
        self.files_signal.notify();
        Admission::Wait
    }

    /// A file was finished: another one is to be prepared, and this one archived.
    pub(crate) fn notify_files(&self) {
        self.files_signal.notify();
        self.archive_signal.notify();
    }

    pub(crate) fn want_room(&self) {
        self.room.want();
        self.writer_signal.notify();
    }

    pub(crate) fn wake_for_room(&self) {
        if self.room.wake() {
            self.listeners.room_appeared();
        }
    }
}
