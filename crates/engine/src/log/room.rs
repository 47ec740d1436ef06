//! Room in the log: what may be appended without ever needing new space on the disk.
//!
//! ```text
//!   unwritten = reserved by admissions + appended and not yet written, each record with the framing it may need
//!   invariant:  unwritten <= what remains in the active file   or   unwritten <= what the spare file holds
//! ```
//!
//! Either way the writer finds a prepared place for every frame, whichever way the records are cut into frames. A few
//! frame headers of both files are kept back for marks. The writer lowers the limit before it lowers `unwritten`, and an
//! admission looks at the limit after it has raised `unwritten`: so a record is never admitted to room that is gone.
//!
//! Not here: how files come and go (`files`).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use parking_lot::{Condvar, Mutex};

use super::format::FRAME_HEADER_BYTES;
use super::record::RECORD_HEADER_BYTES_MAX;

/// What a record needs at most beside its effects: a frame of its own, and a mark after it. An admission has it for one
/// record; whoever appends several after one admission adds it for each further one.
pub const RECORD_ROOM_BYTES: usize = 2 * FRAME_HEADER_BYTES + RECORD_HEADER_BYTES_MAX;

/// Kept back in every file for marks that no record has paid for: at open, when a file begins with one, and at close.
pub(crate) const MARK_ROOM_BYTES: u64 = 4 * FRAME_HEADER_BYTES as u64;

/// What a command does to the amount of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoomClass {
    /// May add data: leaves the reserve alone.
    Ordinary,
    /// Removes data, or is the store's own bookkeeping: may use the reserve.
    Removal,
}

/// The answer to a command that wants to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Room is reserved: execute, append, settle.
    Admitted,
    /// Not now: ask again when room appears. Nothing is reserved.
    Wait,
    /// The disk is full and this does not fit what is prepared: refuse the command. Nothing is reserved.
    DiskFull,
    /// The log has failed: nothing can be acknowledged any more.
    Poisoned,
}

/// Why there is no room now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// The buffer is full; the writer makes room.
    Buffer,
    /// No prepared file holds it; so many bytes are needed.
    Files(u64),
}

#[derive(Debug)]
pub(crate) struct Room {
    unwritten: AtomicU64,
    /// The most that `unwritten` may be.
    limit: AtomicU64,
    /// What the largest spare file holds; 0 without one. Only for choosing an answer.
    spare_limit: AtomicU64,
    reserve_bytes: u64,
    buffer_bytes_max: u64,
    /// What a file of the usual size holds.
    usual_limit: u64,
    /// Something larger than the buffer waits for everything else to be written.
    drain: AtomicBool,
    /// Somebody waits for room.
    wanted: AtomicBool,
    waiting: Mutex<u64>,
    appeared: Condvar,
}

/// What an admission for `bytes` of effects reserves.
fn reservation(bytes: usize) -> u64 {
    (bytes as u64).saturating_add(RECORD_ROOM_BYTES as u64)
}

impl Room {
    pub(crate) fn new(usual_capacity: u64, reserve_bytes: u64, buffer_bytes_max: u64) -> Room {
        Room {
            unwritten: AtomicU64::new(0),
            limit: AtomicU64::new(0),
            spare_limit: AtomicU64::new(0),
            reserve_bytes,
            buffer_bytes_max,
            usual_limit: usual_capacity.saturating_sub(MARK_ROOM_BYTES),
            drain: AtomicBool::new(false),
            wanted: AtomicBool::new(false),
            waiting: Mutex::new(0),
            appeared: Condvar::new(),
        }
    }

    /// Reserves room for one record of `bytes`; for none, nothing. `appeared` is called when somebody else may have been refused for a
    /// reservation that was taken back.
    pub(crate) fn admit(&self, bytes: usize, class: RoomClass, appeared: &dyn Fn()) -> Result<(), NoRoom> {
        if bytes == 0 {
            return Ok(());
        }
        let needed = reservation(bytes);
        let reserve = if class == RoomClass::Ordinary { self.reserve_bytes } else { 0 };
        let mut before = self.unwritten.load(SeqCst);
        loop {
            let after = before.saturating_add(needed);
            if before != 0 && (after > self.buffer_bytes_max || self.drain.load(SeqCst)) {
                if needed > self.buffer_bytes_max {
                    self.drain.store(true, SeqCst);
                    self.stop_draining_when_empty();
                }
                return Err(NoRoom::Buffer);
            }
            let fits = |limit: &AtomicU64| after.saturating_add(reserve) <= limit.load(SeqCst);
            if !fits(&self.limit) {
                return Err(NoRoom::Files(needed.saturating_add(reserve)));
            }
            match self.unwritten.compare_exchange_weak(before, after, SeqCst, SeqCst) {
                // The limit may have been lowered meanwhile; only a look after the exchange counts.
                Ok(_) if fits(&self.limit) => return Ok(()),
                Ok(_) => {
                    self.release(needed);
                    appeared();
                    before = self.unwritten.load(SeqCst);
                }
                Err(now) => before = now,
            }
        }
    }

    /// A record was put into the buffer; its admission is settled later.
    pub(crate) fn add(&self, effect_bytes: usize) {
        self.unwritten.fetch_add((effect_bytes + RECORD_ROOM_BYTES) as u64, SeqCst);
    }

    /// Gives back the reservation of an admission; that for no bytes had none.
    pub(crate) fn settle(&self, bytes: usize) {
        if bytes > 0 {
            self.release(reservation(bytes));
        }
    }

    /// These bytes are written, or were never appended.
    pub(crate) fn release(&self, bytes: u64) {
        let before = self.unwritten.fetch_sub(bytes, SeqCst);
        assert!(before >= bytes, "{bytes} bytes of room were given back, {before} were reserved");
        if before == bytes {
            self.drain.store(false, SeqCst);
        }
    }

    /// The flag may have been raised just after the last byte was written, and nobody else would lower it.
    fn stop_draining_when_empty(&self) {
        if self.unwritten.load(SeqCst) == 0 {
            self.drain.store(false, SeqCst);
        }
    }

    /// What remains in the active file and what the largest spare file holds, if there is one.
    pub(crate) fn set_files(&self, active: u64, spare: Option<u64>) {
        let spare_limit = spare.unwrap_or(0).saturating_sub(MARK_ROOM_BYTES);
        self.spare_limit.store(spare_limit, SeqCst);
        self.limit.store(active.saturating_sub(MARK_ROOM_BYTES).max(spare_limit), SeqCst);
    }

    /// Lowers the limit to what a spare file of `capacity` holds; whether everything admitted so far fits into it.
    pub(crate) fn fits_spare(&self, capacity: u64) -> bool {
        let limit = capacity.saturating_sub(MARK_ROOM_BYTES);
        self.limit.store(limit, SeqCst);
        self.unwritten.load(SeqCst) <= limit
    }

    /// Whether `whole` bytes will fit the spare file once everything else is written.
    pub(crate) fn will_fit_spare(&self, whole: u64) -> bool {
        whole <= self.spare_limit.load(SeqCst)
    }

    /// The capacity of the file to ask for when `whole` bytes fit no file of the usual size.
    pub(crate) fn unusual_capacity(&self, whole: u64) -> Option<u64> {
        (whole > self.usual_limit).then(|| whole.saturating_add(MARK_ROOM_BYTES))
    }

    pub(crate) fn unwritten(&self) -> u64 {
        self.unwritten.load(SeqCst)
    }

    /// Notes that somebody waits for room: say so first, then ask once more, then wait.
    pub(crate) fn want(&self) {
        self.wanted.store(true, SeqCst);
    }

    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(SeqCst)
    }

    /// Whether somebody waited; the caller wakes the listeners.
    pub(crate) fn wake(&self) -> bool {
        if !self.wanted.load(SeqCst) || !self.wanted.swap(false, SeqCst) {
            return false;
        }
        *self.waiting.lock() += 1;
        self.appeared.notify_all();
        true
    }

    /// Blocks until [`Room::wake`] was called after `ask` said to wait.
    pub(crate) fn wait_while<T>(&self, mut ask: impl FnMut() -> Option<T>) -> T {
        loop {
            let seen = *self.waiting.lock();
            self.want();
            if let Some(answer) = ask() {
                return answer;
            }
            let mut wakes = self.waiting.lock();
            while *wakes == seen {
                self.appeared.wait(&mut wakes);
            }
        }
    }
}
