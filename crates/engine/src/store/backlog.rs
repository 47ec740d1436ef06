//! How far checkpoints may be behind the writers, and what a write is told when they are further.
//!
//! | what grows | a write meanwhile |
//! | --- | --- |
//! | entries handed to the running checkpoint | waits, for milliseconds |
//! | the log, because checkpoints are slow | waits for the one that runs |
//! | the log, because checkpoints fail | is refused, with the cause |
//! | what is dirty, towards the room in a block file of fixed size | waits for a checkpoint, which shows what room there is |
//! | nothing is dirty, and the block file is full | is refused |
//!
//! What the next checkpoint needs is estimated from above, by what was logged since the last cut: near the end of a full
//! file checkpoints become frequent, and the answer is right. Removals are never held back. Not here: room in the log.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::Store;
use crate::error::Error;
use crate::limits::CHECKPOINT_HANDED_BYTES_MAX;
use crate::log::{Admission, RoomClass};

/// Bytes in the block file for each byte logged, at most: the shortest records have more index than data.
const BLOCK_BYTES_FOR_LOGGED: u64 = 3;

/// How far checkpoints are behind the writers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Backlog {
    /// Nothing to worry about.
    Small,
    /// Writers wait.
    Large,
    /// Waiting may take for ever.
    Stuck,
}

/// What the writers are held against.
pub(super) struct Limits {
    /// Writers wait while the log is longer, bytes.
    log_bytes_max: AtomicU64,
    /// Room in the block file after the newest checkpoint; `u64::MAX` where it grows by itself.
    room: AtomicU64,
    /// The log's position at the newest cut, and `Keyspace::touched_bytes` then.
    position: AtomicU64,
    touched: AtomicU64,
    /// A writer waits for what the next checkpoint finds.
    wants_room: AtomicBool,
    /// A writer waits until a running checkpoint has written some of what was handed to it.
    waits_for_handed: AtomicBool,
}

impl Limits {
    /// For a block file whose newest checkpoint leaves `room` bytes and was cut at `position` of the log.
    pub(super) fn new(log_bytes_max: u64, room: u64, position: u64) -> Limits {
        Limits {
            log_bytes_max: AtomicU64::new(log_bytes_max),
            room: AtomicU64::new(room),
            position: AtomicU64::new(position),
            touched: AtomicU64::new(0),
            wants_room: AtomicBool::new(false),
            waits_for_handed: AtomicBool::new(false),
        }
    }

    /// Whether a writer was held back, since this was last asked, by what is handed to the running checkpoint.
    pub(super) fn takes_writers_held_back(&self) -> bool {
        self.waits_for_handed.load(Relaxed) && self.waits_for_handed.swap(false, Relaxed)
    }

    pub(super) fn set_log_bytes_max(&self, bytes: u64) {
        self.log_bytes_max.store(bytes, Relaxed);
    }

    /// A checkpoint was published: cut at `position` of the log when `touched` bytes had been touched, it leaves `room`.
    pub(super) fn published(&self, room: u64, position: u64, touched: u64) {
        self.position.store(position, Relaxed);
        self.touched.store(touched, Relaxed);
        self.room.store(room, Relaxed);
        self.wants_room.store(false, Relaxed);
    }
}

impl Store {
    /// Asks for room for one record of `bytes` effects: in the log, and for what checkpoints must catch up with. Else as
    /// [`Log::admit`](crate::log::Log::admit).
    pub(crate) fn admit(&self, bytes: usize, class: RoomClass) -> Admission {
        if bytes > 0 && class == RoomClass::Ordinary {
            match self.backlog(bytes as u64) {
                Backlog::Small => {}
                Backlog::Large => return Admission::Wait,
                Backlog::Stuck => return Admission::DiskFull,
            }
        }
        self.shared.log.admit(bytes, class)
    }

    /// Why a write that was not admitted was refused.
    pub(super) fn no_room(&self) -> Error {
        let checkpoints = &self.shared.checkpoints;
        let last_error = checkpoints.last_error();
        // The write was larger than what is left, also where that is something.
        let is_fixed = checkpoints.limits.room.load(Relaxed) != u64::MAX;
        if !self.has_block_room(0) || is_fixed && !self.shared.log.is_disk_full() && !self.is_log_too_long() {
            let bytes = checkpoints.statistics().file_bytes;
            return Error::BlockFileFull { path: checkpoints.path.clone(), bytes };
        }
        match last_error.filter(|_| self.is_log_too_long()) {
            Some(cause) => Error::CheckpointsFail { path: checkpoints.path.clone(), cause },
            None => Error::DiskFull { path: self.shared.log_directory.clone() },
        }
    }

    /// Whether a writer waits for a checkpoint because the block file may be full.
    pub(super) fn wants_room_in_block_file(&self) -> bool {
        self.shared.checkpoints.limits.wants_room.load(Relaxed)
    }

    #[inline]
    fn backlog(&self, bytes: u64) -> Backlog {
        if !self.has_block_room(bytes) {
            return self.wait_for_block_room();
        }
        if self.is_log_too_long() {
            let fails = self.shared.checkpoints.last_error().is_some();
            return if fails { Backlog::Stuck } else { Backlog::Large };
        }
        if self.shared.keyspace.handed_bytes() <= CHECKPOINT_HANDED_BYTES_MAX {
            return Backlog::Small;
        }
        // Where it was written meanwhile, the next slice wakes.
        self.shared.checkpoints.limits.waits_for_handed.store(true, Relaxed);
        Backlog::Large
    }

    fn is_log_too_long(&self) -> bool {
        self.shared.log.live_bytes() > self.shared.checkpoints.limits.log_bytes_max.load(Relaxed)
    }

    /// Whether the next checkpoint finds room for everything dirty and `bytes` more.
    #[inline]
    fn has_block_room(&self, bytes: u64) -> bool {
        let room = self.shared.checkpoints.limits.room.load(Relaxed);
        room == u64::MAX || self.pending_block_bytes(bytes) <= room
    }

    /// What the next checkpoint writes at most, if `bytes` more are logged.
    pub(super) fn pending_block_bytes(&self, bytes: u64) -> u64 {
        let limits = &self.shared.checkpoints.limits;
        let logged = self.logged_since_cut() + bytes;
        let touched = self.shared.keyspace.touched_bytes().saturating_sub(limits.touched.load(Relaxed));
        logged.saturating_add(touched).saturating_mul(BLOCK_BYTES_FOR_LOGGED)
    }

    /// Bytes logged since the newest cut.
    pub(super) fn logged_since_cut(&self) -> u64 {
        let (limits, log) = (&self.shared.checkpoints.limits, &self.shared.log);
        log.append_position().saturating_sub(limits.position.load(Relaxed)) + log.unwritten_bytes()
    }

    /// A writer was refused and nothing is dirty: looks whether those who read an older checkpoint have given blocks back
    /// since.
    pub(super) fn look_for_block_room(&self) {
        let limits = &self.shared.checkpoints.limits;
        if !limits.wants_room.load(Relaxed) {
            return;
        }
        let Some(mut file) = self.shared.checkpoints.try_file() else { return };
        limits.wants_room.store(false, Relaxed);
        if file.release_retired() {
            limits.room.store(file.room().bytes, Relaxed);
        }
    }

    #[cold]
    fn wait_for_block_room(&self) -> Backlog {
        let checkpoints = &self.shared.checkpoints;
        if !self.is_dirty() {
            // Readers may have held blocks that are free by now.
            if !checkpoints.limits.wants_room.swap(true, Relaxed) {
                checkpoints.wake();
            }
            return Backlog::Stuck;
        }
        // Also where the last one failed: keys may have been removed since.
        checkpoints.limits.wants_room.store(true, Relaxed);
        checkpoints.wake();
        if checkpoints.last_error().is_some() { Backlog::Stuck } else { Backlog::Large }
    }
}
