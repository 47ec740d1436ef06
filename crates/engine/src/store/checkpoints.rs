//! Checkpoints: when the block file is brought to a new cut, and how.
//!
//! ```text
//!   cut (all segments, an instant) -> per segment: take a slice under its lock, write it without -> merge its range
//!      -> wait until the cut is durable in the log -> publish (superblock) -> the log lets go of what is before the cut
//! ```
//!
//! The next checkpoint begins only when the log durably names this one: from then on blocks that it freed are used
//! again, and an older superblock is known to be damage. What fails for want of room is tried again later, and what was
//! taken is dirty again; every other failure to write or sync stops the store.
//!
//! Not here: the exact cut (`keyspace::checkpoint`), the bytes (`blocks`), what a restart makes of it (`base`).

use std::cell::{Cell, RefCell};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread::Thread;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use super::backlog::Limits;
use super::staging::{Staging, record_of};
use super::{Shared, Store, base};
use crate::blocks::{BlockFile, Checkpoint, CheckpointOptions, Commit, Compression, KeyHashes, Published, Record};
use crate::error::{Error, Result};
use crate::keyspace::SegmentSet;
use crate::keyspace::checkpoint::{Cut, LargeEntry, Taken};
use crate::keyspace::entry::Value;
use crate::keyspace::hash::KeyHasher;
use crate::limits::{
    CHECKPOINT_LOG_FACTOR, CHECKPOINT_REMOVAL_BYTES, CHECKPOINT_RETRY, CHECKPOINT_SLICE, CHECKPOINT_WAKE,
};
use crate::log;
use crate::version::Version;

/// Called after every short piece of work, some ten microseconds, when no segment is held: to let others work.
pub type Between<'a> = &'a mut dyn FnMut();

/// What is known of checkpoints.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct CheckpointStatistics {
    /// Checkpoints published since the store was opened.
    pub published: u64,
    /// Checkpoints given up since the store was opened.
    pub failed: u64,
    /// Whether one is running.
    pub running: bool,
    /// Segments that the running one has finished, and how many there are.
    pub segments_done: (usize, usize),
    /// When the newest one was published, milliseconds since the Unix epoch; when the store was opened, if none was.
    pub last_at_ms: u64,
    /// How long the newest one took.
    pub last_took: Duration,
    /// Why the last attempt failed; `None` when it did not.
    pub last_error: Option<String>,
    /// The version that the newest one is exact at.
    pub cut: Version,
    /// Entries in the newest one.
    pub entries: u64,
    /// Size of the block file, bytes.
    pub file_bytes: u64,
    /// Bytes of the records that count in the newest one.
    pub live_bytes: u64,
    /// Bytes written to the block file since the store was opened.
    pub written_bytes: u64,
}

/// The block file and who brings it forward.
pub(super) struct Checkpoints {
    pub(super) path: PathBuf,
    pub(super) file: Mutex<BlockFile>,
    state: Mutex<State>,
    /// A running checkpoint is given up: the store is closing.
    abandoned: AtomicBool,
    /// The thread that runs checkpoints when they are due.
    pub(super) thread: OnceLock<Thread>,
    segments_done: AtomicUsize,
    pub(super) limits: Limits,
    /// Versions assigned up to the newest cut; what is above is dirty.
    cut: AtomicU64,
}

#[derive(Default)]
struct State {
    /// Rises with every checkpoint that is asked for; a checkpoint that begins serves all asked for until then.
    asked: u64,
    /// The last request that a finished checkpoint has served.
    served: u64,
    statistics: CheckpointStatistics,
    attempted_at: Duration,
    policy: CheckpointPolicy,
    compression: Compression,
}

impl Checkpoints {
    /// `clean` is the last version when nothing was written after the checkpoint of `file`.
    pub(super) fn new(
        file: BlockFile,
        (policy, compression): (CheckpointPolicy, Compression),
        now_ms: u64,
        clean: Option<Version>,
    ) -> Checkpoints {
        let superblock = *file.superblock();
        let limits = Limits::new(policy.log_bytes_max(), file.room().bytes, superblock.log_position);
        let statistics = CheckpointStatistics {
            last_at_ms: if superblock.cut > Version::ZERO { superblock.cut.time_ms() } else { now_ms },
            cut: superblock.cut,
            entries: superblock.entries,
            file_bytes: u64::from(superblock.file_blocks) * u64::from(superblock.block_bytes),
            live_bytes: superblock.live_bytes,
            ..CheckpointStatistics::default()
        };
        Checkpoints {
            path: file.path().to_owned(),
            file: Mutex::new(file),
            state: Mutex::new(State { statistics, policy, compression, ..State::default() }),
            abandoned: AtomicBool::new(false),
            thread: OnceLock::new(),
            segments_done: AtomicUsize::new(0),
            limits,
            cut: AtomicU64::new(clean.unwrap_or(superblock.cut).0),
        }
    }

    pub(super) fn statistics(&self) -> CheckpointStatistics {
        let mut statistics = self.state.lock().statistics.clone();
        statistics.segments_done.0 = self.segments_done.load(Relaxed);
        statistics
    }

    /// Whether one is running.
    pub(super) fn is_running(&self) -> bool {
        self.state.lock().statistics.running
    }

    /// Why the last checkpoint failed, if it did.
    pub(super) fn last_error(&self) -> Option<String> {
        self.state.lock().statistics.last_error.clone()
    }

    /// Gives a running checkpoint up.
    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Relaxed);
    }

    /// The block file; `None` while a checkpoint is being written into it.
    pub(super) fn try_file(&self) -> Option<MutexGuard<'_, BlockFile>> {
        self.file.try_lock()
    }

    /// Wakes the thread that runs checkpoints.
    pub(super) fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Nothing was written since the newest checkpoint: that one serves every request.
    fn serve_all(&self) {
        let mut state = self.state.lock();
        state.served = state.asked;
        state.statistics.last_error = None;
    }
}

impl KeyHashes for KeyHasher {
    fn hash(&self, key: &[u8]) -> u64 {
        KeyHasher::hash(self, key)
    }

    fn fingerprint(&self, key: &[u8]) -> u64 {
        KeyHasher::fingerprint(self, key)
    }
}

impl Store {
    /// Brings the block file to this moment, on the calling thread, and lets the log forget what is before it. Everything
    /// acknowledged is durable without it; it shortens the log and the next start. Others go on reading and writing.
    ///
    /// # Errors
    /// `BlockFileFull` or `DiskFull` when it found no room: the one before stays, and the log keeps what is newer.
    /// [`Error::Poisoned`] when the store has stopped.
    pub fn checkpoint(&self) -> Result<()> {
        self.checkpoint_with(&mut || {})
    }

    /// As [`Store::checkpoint`]; `between` is called after every short piece of work, while no segment is held.
    ///
    /// # Errors
    /// As [`Store::checkpoint`].
    pub fn checkpoint_with(&self, between: Between<'_>) -> Result<()> {
        let checkpoints = &self.shared.checkpoints;
        let mut file = checkpoints.file.lock();
        let serves = {
            let mut state = checkpoints.state.lock();
            state.statistics.running = true;
            state.statistics.segments_done.1 = self.shared.keyspace.segment_count();
            state.attempted_at = self.shared.options.clock.monotonic();
            state.asked
        };
        let from = self.shared.options.clock.monotonic();
        let result = Run { store: self, between: RefCell::new(between), woken_at: Cell::new(from) }.run(&mut file);
        let took = self.shared.options.clock.monotonic().saturating_sub(from);
        let mut state = checkpoints.state.lock();
        let statistics = &mut state.statistics;
        statistics.running = false;
        let result = match result {
            Ok(published) => {
                let superblock = file.superblock();
                statistics.published += 1;
                statistics.last_at_ms = self.now_ms();
                statistics.last_took = took;
                statistics.last_error = None;
                statistics.cut = superblock.cut;
                statistics.entries = superblock.entries;
                statistics.live_bytes = superblock.live_bytes;
                statistics.file_bytes = u64::from(superblock.file_blocks) * u64::from(superblock.block_bytes);
                statistics.written_bytes += published.written_bytes;
                Ok(())
            }
            Err(error) => {
                statistics.failed += 1;
                statistics.last_error = Some(error.to_string());
                Err(error)
            }
        };
        state.served = state.served.max(serves);
        drop(state);
        self.shared.log.wake_for_room();
        // What was published may leave memory now.
        self.shared.memory.wake();
        result
    }

    /// Asks the checkpoint thread for a checkpoint of this moment or later; returns the number to ask
    /// [`Store::checkpoint_ended`] for.
    pub fn request_checkpoint(&self) -> u64 {
        let number = {
            let mut state = self.shared.checkpoints.state.lock();
            state.asked += 1;
            state.asked
        };
        self.shared.checkpoints.wake();
        number
    }

    /// How the checkpoint that was asked for under `number` ended: `None` while it has not.
    pub fn checkpoint_ended(&self, number: u64) -> Option<std::result::Result<(), String>> {
        let state = self.shared.checkpoints.state.lock();
        (state.served >= number).then(|| state.statistics.last_error.clone().map_or(Ok(()), Err))
    }

    /// Changes when checkpoints are written.
    pub fn set_checkpoint_policy(&self, policy: CheckpointPolicy) {
        self.shared.checkpoints.state.lock().policy = policy;
        self.shared.checkpoints.limits.set_log_bytes_max(policy.log_bytes_max());
    }

    /// Changes how values are compressed, from the next checkpoint on; what is in the block file stays as it is until it
    /// is written anew.
    pub fn set_compression(&self, compression: Compression) {
        self.shared.checkpoints.state.lock().compression = compression;
    }

    /// What is known of checkpoints.
    pub fn checkpoints(&self) -> CheckpointStatistics {
        self.shared.checkpoints.statistics()
    }

    /// Whether something was written since the newest checkpoint.
    pub(super) fn is_dirty(&self) -> bool {
        self.shared.log.last_version().0 > self.shared.checkpoints.cut.load(Relaxed)
    }

    /// How long ago the last checkpoint began, or was tried.
    pub(super) fn since_checkpoint_began(&self) -> Duration {
        let attempted_at = self.shared.checkpoints.state.lock().attempted_at;
        self.shared.options.clock.monotonic().saturating_sub(attempted_at)
    }

    /// The last checkpoint, so that the next start need not read the log.
    pub(super) fn checkpoint_at_close(&self) {
        if (self.is_dirty() || self.shared.scrub.wants_rewrite()) && !self.shared.log.is_poisoned() {
            tracing::info!("writing a checkpoint before closing");
            // It has told the log why it failed; everything is in the log.
            let _ = self.checkpoint();
        }
    }

    /// Runs a checkpoint if one is due: asked for, or wanted by the policy.
    pub(super) fn checkpoint_if_due(&self, between: Between<'_>) {
        let checkpoints = &self.shared.checkpoints;
        let now = self.shared.options.clock.monotonic();
        let (is_asked, failed, attempted_at, policy) = {
            let state = checkpoints.state.lock();
            (state.asked > state.served, state.statistics.last_error.is_some(), state.attempted_at, state.policy)
        };
        if !self.is_dirty() && !self.shared.scrub.wants_rewrite() {
            if is_asked {
                checkpoints.serve_all();
            }
            self.look_for_block_room();
            return;
        }
        let since = now.saturating_sub(attempted_at);
        let is_wanted = self.wants_room_in_block_file()
            || self.wants_tier_checkpoint()
            || self.shared.scrub.wants_rewrite()
            || self.shared.log.live_bytes() >= policy.log_bytes
            // It gives log files back, so that removals and then writes go on where the disk stays full.
            || (self.shared.log.is_disk_full() && since >= CHECKPOINT_RETRY)
            || (!policy.interval.is_zero() && since >= policy.interval)
            || self.shared.keyspace.removal_bytes() >= CHECKPOINT_REMOVAL_BYTES;
        if is_asked || is_wanted && !(failed && since < CHECKPOINT_RETRY) {
            // It has told the log and the statistics what went wrong.
            let _ = self.checkpoint_with(between);
        }
    }
}

/// One checkpoint on its way.
struct Run<'a, 'b> {
    store: &'a Store,
    between: RefCell<Between<'b>>,
    /// When writers who wait were woken last, by the monotonic clock.
    woken_at: Cell<Duration>,
}

impl Run<'_, '_> {
    fn run(self, file: &mut BlockFile) -> Result<Published> {
        let shared = Arc::clone(&self.store.shared);
        if shared.log.is_poisoned() {
            return Err(Error::Poisoned);
        }
        shared.checkpoints.segments_done.store(0, Relaxed);
        shared.tier.checkpoint_begins();
        let (cut, version, position) = cut(&shared);
        let newest = file.superblock();
        // At the version of the one before, replay begins where that one's does: each of the two superblocks then leads
        // to the same state, and a log that begins later always means that everything was emptied.
        let replay_from = if version == newest.cut { newest.log_position } else { position };
        let touched = shared.keyspace.touched_bytes();
        let mut written = self.write(file, &cut, version, replay_from);
        if let Ok(published) = &written {
            shared.keyspace.published();
            self.store.follow_checkpoint(&file.view(), &published.moved);
            shared.tier.queue.forget_unreadable();
            file.release_retired();
            shared.checkpoints.cut.store(version.0, Relaxed);
            shared.checkpoints.limits.published(file.room().bytes, position, touched);
        } else {
            shared.keyspace.failed();
        }
        self.settle(&shared);
        match &written {
            Ok(_) => shared.scrub.published(),
            Err(error @ Error::Corrupt { .. }) => self.store.note_damage(file, error),
            Err(_) => {}
        }
        if written.is_ok() {
            shared.log.note_checkpoint(log::Checkpoint { version, position: replay_from });
            if let Err(error) = self.store.wait_for_note(version) {
                written = Err(error);
            }
        }
        written.inspect_err(|error| self.stop_unless_it_passes(error, file.is_in_doubt()))
    }

    /// Lets others work.
    fn stand_back(&self) {
        (self.between.borrow_mut())();
    }

    /// As [`Run::stand_back`]; writers who wait for what was handed over try again. An error when the store is closing.
    fn pause(&self) -> Result<()> {
        let (shared, now) = (&self.store.shared, self.store.shared.options.clock.monotonic());
        // Each that is woken runs into the limit again, until what it waits for has come: not for every slice of 64 KiB.
        let is_long_ago = now.saturating_sub(self.woken_at.get()) >= CHECKPOINT_WAKE;
        if shared.checkpoints.limits.takes_writers_held_back() || is_long_ago {
            self.woken_at.set(now);
            shared.log.wake_for_room();
        }
        self.stand_back();
        if self.store.shared.checkpoints.abandoned.load(Relaxed) { Err(Error::Closed) } else { Ok(()) }
    }

    /// Ends the marks of this checkpoint, a short hold at a time.
    fn settle(&self, shared: &Shared) {
        for segment in 0..shared.keyspace.segment_count() {
            loop {
                let settled = shared.keyspace.settle(segment);
                self.stand_back();
                if settled.done {
                    break;
                }
            }
        }
    }

    fn write(&self, file: &mut BlockFile, cut: &Cut, version: Version, position: u64) -> Result<Published> {
        let shared = Arc::clone(&self.store.shared);
        let hasher = shared.keyspace.hasher();
        let put_bytes = Some(self.store.pending_block_bytes(0));
        let compression = shared.checkpoints.state.lock().compression;
        // A segment without a view gets none before this ends; one that has one may get cold values, if the policy changes.
        let note_moves = self.store.is_tiered() || shared.tier.has_views();
        let options = CheckpointOptions { put_bytes, note_moves, compression, ..CheckpointOptions::default() };
        let stand_back = || self.stand_back();
        let mut checkpoint = file.begin(hasher, &options)?;
        checkpoint.pause_with(&stand_back);
        if cut.reset {
            checkpoint.start_empty();
        }
        for database in &cut.dropped {
            checkpoint.drop_database(*database)?;
        }
        let mut staging = Staging::default();
        for segment in 0..shared.keyspace.segment_count() {
            self.write_segment(&mut checkpoint, &mut staging, segment)?;
            let last = shared.keyspace.hash_end(segment).map_or(u64::MAX, |end| end - 1);
            checkpoint.finish_range(last)?;
            shared.checkpoints.segments_done.store(segment + 1, Relaxed);
        }
        // What the superblock says must have happened: a cut that the log could still lose is no cut.
        self.store.wait_for_durable(version)?;
        let databases = base::encode(&cut.databases, shared.log.version_limit());
        checkpoint.publish(&Commit { cut: version, log_position: position, databases: &databases })
    }

    fn write_segment(&self, checkpoint: &mut Checkpoint<'_>, staging: &mut Staging, segment: usize) -> Result<()> {
        let shared = Arc::clone(&self.store.shared);
        let (keyspace, hasher) = (&shared.keyspace, shared.keyspace.hasher());
        loop {
            let taken = keyspace.take(segment, CHECKPOINT_SLICE, &mut |entry| staging.add(&entry));
            let Taken { handed, removals, large, freed, done } = taken;
            drop(freed);
            staging
                .drain(|record, hash, stored| checkpoint.put(record, hash, stored, hasher.fingerprint(record.key)))?;
            for entry in handed.iter().flat_map(|handed| handed.iter()) {
                let record = record_of(entry.database, entry.entry);
                checkpoint.put(&record, entry.hash, entry.stored, hasher.fingerprint(record.key))?;
            }
            drop(handed);
            for (database, removal) in removals {
                checkpoint.remove(database, removal.hash, removal.fingerprint);
            }
            let is_last = done && large.is_empty();
            for large in large {
                self.write_large(checkpoint, &large)?;
            }
            self.pause()?;
            if is_last {
                return Ok(());
            }
        }
    }

    /// Writes a value chunk by chunk. They are shared with the entry: nobody is held up, and nobody changes them.
    fn write_large(&self, checkpoint: &mut Checkpoint<'_>, large: &LargeEntry) -> Result<()> {
        let record = Record {
            database: large.database,
            key: &large.key,
            value: Value::Chunks(&large.value),
            version: large.version,
            created: large.created,
            expire_at: large.expire_at,
        };
        let fingerprint = self.store.shared.keyspace.hasher().fingerprint(&large.key);
        let bytes = large.value.len() as u64;
        let mut put = checkpoint.put_large(&record, bytes, large.hash, large.stored, fingerprint)?;
        for chunk in large.value.iter() {
            put.write(chunk)?;
            self.pause()?;
        }
        put.finish()
    }

    /// Want of room passes, but not where the superblock itself was being written: a part of it may be on the disk, also on a
    /// full one whose file system copies what is overwritten. Anything else leaves the file in a state that nobody knows.
    fn stop_unless_it_passes(&self, error: &Error, is_in_doubt: bool) {
        let log = &self.store.shared.log;
        let passes = match error {
            _ if is_in_doubt => false,
            // Damage was there before; what is in memory and in the log is whole.
            Error::BlockFileFull { .. } | Error::Corrupt { .. } | Error::Poisoned | Error::Closed => true,
            // A failed sync tells nothing of what is on the disk, whatever its reason.
            Error::Io { op, .. } => *op != "sync" && log::is_full(error),
            _ => false,
        };
        if passes {
            tracing::error!(%error, "a checkpoint was given up; the log keeps what is newer than the last one");
        } else {
            tracing::error!(%error, "a checkpoint has failed");
            let source = io::Error::other(error.to_string());
            log.fail(Error::io("checkpoint into", &self.store.shared.checkpoints.path, source));
        }
    }
}

/// Draws the line: all segments for an instant. Frames that are written now hold nothing newer than the version.
fn cut(shared: &Shared) -> (Cut, Version, u64) {
    let keyspace = &shared.keyspace;
    let mut hold = keyspace.hold(SegmentSet::EMPTY, keyspace.every_segment());
    let position = shared.log.append_position();
    let cut = keyspace.cut(&mut hold);
    (cut, shared.log.last_version(), position)
}

/// When a checkpoint is due.
#[derive(Clone, Copy, Debug)]
pub struct CheckpointPolicy {
    /// When the log that a restart would read is this long, bytes.
    pub log_bytes: u64,
    /// When the newest one is this old, if anything was written since; zero for never.
    pub interval: Duration,
}

impl CheckpointPolicy {
    /// Writers wait while the log is longer than this: a checkpoint is on its way, and the next start must end.
    fn log_bytes_max(&self) -> u64 {
        self.log_bytes.saturating_mul(CHECKPOINT_LOG_FACTOR)
    }
}

impl Default for CheckpointPolicy {
    fn default() -> CheckpointPolicy {
        CheckpointPolicy { log_bytes: 512 << 20, interval: Duration::from_secs(900) }
    }
}
