//! The limit on memory: what counts against it, and making room before a write runs.
//!
//! ```text
//!  used = what the allocator said when it was last asked - what it said when the store was opened
//!       + what entries, tables and notes of checkpoints have grown by since
//! ```
//!
//! The allocator is asked by the thread "eviction" every `MEMORY_LOOK`, and at the limit more often; the growth since is summed by the segments as their
//! holds end, so the figure costs a write four loads. The buffers of the log do not count (they are bounded, and evicting
//! fills them), nor what was given to the background to be freed.
//!
//! A write that may add data, and finds too little room, evicts first: a few entries in each hold of one segment, each hold
//! a record of its own in the log. It goes on until there is room, or until it has made as much as it takes itself and has
//! done its share; the thread evicts the rest. So memory falls also while everybody writes, and no command waits for more
//! than its own size.
//!
//! An allocator has pages for each size of entry. Where the entries of one size go and those of another come, pages remain
//! in use for a few entries each, and memory grows though what is allocated does not. So the thread gives entries new
//! allocations, a few in each hold, until the pages are full again. Where nothing can be evicted the write is refused, and nothing else is. Not here: which entry goes
//! (`keyspace::eviction`), the allocator.

use super::{Result, Store, one};
use crate::command::{Change, Pending};
use crate::error::Error;
use crate::keyspace::{EvictionPolicy, SegmentSet};
use crate::limits::{
    EVICT_SLICE, EVICT_SLICES, EXPIRE_SLICE_BYTES, MEMORY_LOOK_AT_LIMIT, MOVE_PAUSE, MOVE_SLICE, MOVE_TIME,
    UNUSED_PARTS_COUNTED, UNUSED_PARTS_MIN,
};
use crate::log::{Admission, RoomClass};
use std::sync::atomic::{AtomicIsize, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;

/// The background asks the gauge anew when it has evicted so much, bytes.
const LOOK_AGAIN_BYTES: usize = 256 * 1024;

/// Tells what the process has in use.
pub type MemoryGauge = Arc<dyn Fn() -> MemoryInUse + Send + Sync>;

/// What a process has in use, as its allocator counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryInUse {
    /// Bytes allocated, with the allocator's own books.
    pub allocated: usize,
    /// Bytes beyond these in pages that are in use in part. Counted up to an eighth of `allocated`: where there are more,
    /// entries are moved together.
    pub unused_parts: usize,
}

impl MemoryInUse {
    fn counted(self) -> usize {
        self.allocated + self.unused_parts.min(self.allocated / UNUSED_PARTS_COUNTED)
    }

    /// Unused bytes that moving entries together may give back.
    fn sparse(self) -> usize {
        self.unused_parts.saturating_sub(self.allocated / UNUSED_PARTS_COUNTED)
    }
}

/// How much memory the data may take, and what happens when it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryLimit {
    /// Bytes; 0 for no limit.
    pub bytes: usize,
    /// Which entries go.
    pub policy: EvictionPolicy,
}

/// Figures about the limit on memory.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct MemoryStatistics {
    /// What counts against the limit, bytes.
    pub used: usize,
    /// The limit in force.
    pub limit: MemoryLimit,
    /// Entries evicted since the store was opened.
    pub evicted: u64,
}

/// Whether a write that may add data finds room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MemoryRoom {
    /// It may run.
    Enough,
    /// Evicting has to wait for room in the log.
    Wait,
    /// There is none, and nothing can be evicted.
    Exhausted,
}

/// What a store knows of its memory.
pub(super) struct Memory {
    gauge: Option<MemoryGauge>,
    /// What the gauge said when the store was opened, empty.
    empty: usize,
    limit: AtomicUsize,
    policy: AtomicU8,
    /// What the gauge said beyond what the store counts itself, when it was last asked.
    beyond: AtomicIsize,
    /// When a write at the limit asked it, milliseconds of the monotonic clock.
    looked_at_ms: AtomicU64,
    /// What `MemoryInUse::sparse` said then.
    sparse: AtomicUsize,
    /// Bytes given to the background to be freed and not free yet.
    pub(super) freeing: Arc<AtomicUsize>,
    turn: Turn,
    thread: OnceLock<Thread>,
}

/// What every eviction writes, away from what every command reads.
#[derive(Default)]
#[repr(align(128))]
struct Turn {
    next_segment: AtomicUsize,
    randoms: AtomicU64,
    evicted: AtomicU64,
}

/// Where moving entries together stands.
#[derive(Default)]
pub(super) struct Round {
    segment: usize,
    /// What was sparse when the last round ended; 0 before the first.
    sparse_before: usize,
    rests_until: std::time::Duration,
}

impl Memory {
    /// For a process with nothing in memory that counts: the gauge is asked for the first time.
    pub(super) fn new(limit: MemoryLimit, gauge: Option<MemoryGauge>) -> Memory {
        Memory {
            empty: gauge.as_ref().map_or(0, |gauge| gauge().counted()),
            gauge,
            limit: AtomicUsize::new(limit.bytes),
            policy: AtomicU8::new(limit.policy as u8),
            beyond: AtomicIsize::new(0),
            looked_at_ms: AtomicU64::new(0),
            sparse: AtomicUsize::new(0),
            freeing: Arc::default(),
            turn: Turn::default(),
            thread: OnceLock::new(),
        }
    }

    /// Makes the calling thread the one that evicts in the background.
    pub(super) fn wake_this_thread(&self) {
        // There is one such thread in a store.
        let _ = self.thread.set(std::thread::current());
    }

    pub(super) fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Whether there is a limit, so that the gauge has to be asked now and then.
    pub(super) fn is_limited(&self) -> bool {
        self.limit.load(Relaxed) != 0
    }
}

impl Store {
    /// Changes the limit on memory. What is over it is evicted in the background, if the policy evicts at all.
    pub fn set_memory_limit(&self, limit: MemoryLimit) {
        let memory = &self.shared.memory;
        memory.policy.store(limit.policy as u8, Relaxed);
        memory.limit.store(limit.bytes, Relaxed);
        self.look_at_memory();
        memory.wake();
    }

    /// Figures about the limit on memory. Asks the gauge.
    pub fn memory(&self) -> MemoryStatistics {
        self.look_at_memory();
        let memory = &self.shared.memory;
        MemoryStatistics {
            used: self.used_memory(),
            limit: MemoryLimit { bytes: memory.limit.load(Relaxed), policy: self.eviction_policy() },
            evicted: memory.turn.evicted.load(Relaxed),
        }
    }

    /// Whether memory is over its limit and nothing can be evicted, so that a write that may add data would be refused.
    /// Evicts what it can, as such a write would.
    pub fn is_out_of_memory(&self) -> bool {
        self.make_room_in_memory(0) == MemoryRoom::Exhausted
    }

    /// Which entries go when memory is short.
    #[inline]
    pub(crate) fn eviction_policy(&self) -> EvictionPolicy {
        EvictionPolicy::from_number(self.shared.memory.policy.load(Relaxed))
    }

    /// Makes room in memory for a write that may add about `wanted` bytes. Hold no segment.
    #[inline]
    pub(crate) fn make_room_in_memory(&self, wanted: usize) -> MemoryRoom {
        let limit = self.memory_limit_bytes();
        if limit == 0 || self.used_memory().saturating_add(wanted) <= limit {
            return MemoryRoom::Enough;
        }
        if self.lets_values_go() {
            match self.wait_for_tier() {
                MemoryRoom::Exhausted if self.eviction_policy().evicts() => {}
                room => return room,
            }
        }
        self.evict_for(wanted, limit)
    }

    /// The limit on memory, bytes; 0 for none.
    #[inline]
    pub(super) fn memory_limit_bytes(&self) -> usize {
        self.shared.memory.limit.load(Relaxed)
    }

    /// Values leave memory in the background, and whoever waits for room is woken then.
    #[cold]
    fn wait_for_tier(&self) -> MemoryRoom {
        self.look_at_memory_again();
        let (limit, used) = (self.memory_limit_bytes(), self.used_memory());
        if used <= limit {
            return MemoryRoom::Enough;
        }
        if self.shared.tier.is_exhausted() {
            return MemoryRoom::Exhausted;
        }
        self.shared.tier.somebody_waits.store(true, Relaxed);
        self.shared.memory.wake();
        MemoryRoom::Wait
    }

    /// As [`Store::make_room_in_memory`], waiting for the log if need be.
    pub(super) fn wait_for_memory(&self, wanted: usize) -> Result<()> {
        loop {
            match self.make_room_in_memory(wanted) {
                MemoryRoom::Enough => return Ok(()),
                MemoryRoom::Exhausted => {
                    return Err(Error::OutOfMemory { limit: self.shared.memory.limit.load(Relaxed) });
                }
                MemoryRoom::Wait if self.lets_values_go() && !self.shared.tier.is_exhausted() => {
                    self.wait_until_values_went(wanted)
                }
                MemoryRoom::Wait => {
                    // Room of the same size as an eviction asks for; given back at once.
                    self.wait_for_room(EXPIRE_SLICE_BYTES, RoomClass::Ordinary)?;
                    self.shared.log.settle(EXPIRE_SLICE_BYTES, 0);
                }
            }
        }
    }

    /// Waits until the background has let values go, or said that it cannot.
    fn wait_until_values_went(&self, wanted: usize) {
        if self.shared.options.threads {
            let is_over = || (self.make_room_in_memory(wanted) != MemoryRoom::Wait).then_some(());
            return self.shared.log.wait_for_room(is_over);
        }
        if !self.tier_down() {
            self.checkpoint_if_due(&mut || {});
        }
    }

    #[cold]
    fn evict_for(&self, wanted: usize, limit: usize) -> MemoryRoom {
        self.look_at_memory_again();
        let (mut slices, mut freed, mut in_vain, mut looked) = (0, 0, 0, false);
        loop {
            let used = self.used_memory();
            let over = used.saturating_add(wanted).saturating_sub(limit);
            if over == 0 {
                return MemoryRoom::Enough;
            }
            if slices >= EVICT_SLICES && freed >= wanted {
                self.shared.memory.wake();
                return MemoryRoom::Enough;
            }
            if in_vain >= self.shared.keyspace.segment_count() {
                let evicts = self.eviction_policy().evicts();
                if used > limit && evicts && !std::mem::replace(&mut looked, true) {
                    self.look_at_memory();
                    in_vain = 0;
                    continue;
                }
                return if used > limit { MemoryRoom::Exhausted } else { MemoryRoom::Enough };
            }
            match self.evict_from_next_segment(over) {
                Ok(0) => in_vain += 1,
                Ok(bytes) => {
                    (slices, in_vain) = (slices + 1, 0);
                    freed += bytes;
                }
                Err(Admission::Wait) => return MemoryRoom::Wait,
                // The write itself is refused for the same cause, and says which.
                Err(_) => return MemoryRoom::Enough,
            }
        }
    }

    /// Evicts until memory is within its limit, as far as the policy and the log allow. Returns whether it did anything.
    pub(super) fn evict_down(&self) -> bool {
        let (mut in_vain, mut did) = (0, false);
        if self.lets_values_go() {
            did = self.tier_down();
            if !self.eviction_policy().evicts() || !self.shared.tier.is_exhausted() {
                return did;
            }
        }
        loop {
            self.look_at_memory();
            let limit = self.shared.memory.limit.load(Relaxed);
            let over = self.used_memory().saturating_sub(limit);
            if limit == 0 || over == 0 {
                return did;
            }
            // Half of the way at a time: entries take more than they count for, so what goes frees more.
            let (wanted, mut freed) = ((over / 2).max(LOOK_AGAIN_BYTES), 0);
            while freed < wanted.min(over) {
                match self.evict_from_next_segment(wanted) {
                    Ok(0) => in_vain += 1,
                    Ok(bytes) => (in_vain, did, freed) = (0, true, freed + bytes),
                    Err(_) => return did,
                }
                if in_vain >= self.shared.keyspace.segment_count() {
                    return did;
                }
            }
        }
    }

    /// Evicts some entries of the segment whose turn it is, at most until `wanted` bytes are free. Returns the bytes.
    fn evict_from_next_segment(&self, wanted: usize) -> Result<usize, Admission> {
        let (keyspace, policy) = (&self.shared.keyspace, self.eviction_policy());
        let segment = match policy {
            EvictionPolicy::NoEviction | EvictionPolicy::Tier => return Ok(0),
            // The one with the entry that expires next of all.
            EvictionPolicy::VolatileTtl => {
                (0..keyspace.segment_count()).min_by_key(|segment| keyspace.deadline(*segment)).unwrap_or(0)
            }
            _ => self.shared.memory.turn.next_segment.fetch_add(1, Relaxed) % keyspace.segment_count(),
        };
        if policy.only_expiring() && keyspace.deadline(segment) == u64::MAX {
            return Ok(0);
        }
        let (freed, next) = self.evict_slice(segment, policy, wanted, EXPIRE_SLICE_BYTES)?;
        match next {
            // A key longer than a whole slice gets a slice of its size.
            Some(room) if freed == 0 => Ok(self.evict_slice(segment, policy, wanted, room)?.0),
            _ => Ok(freed),
        }
    }

    fn evict_slice(
        &self,
        segment: usize,
        policy: EvictionPolicy,
        wanted: usize,
        room: usize,
    ) -> Result<(usize, Option<usize>), Admission> {
        match self.admit(room, RoomClass::Ordinary) {
            Admission::Admitted => {}
            refused => return Err(refused),
        }
        let (now_ms, memory) = (self.now_ms(), &self.shared.memory);
        let mut pending = Pending::default();
        let mut hold = self.shared.keyspace.hold(SegmentSet::EMPTY, one(segment));
        let mut context = self.context(now_ms);
        context.random = self.shared.keyspace.hash(&memory.turn.randoms.fetch_add(1, Relaxed).to_le_bytes());
        let mut change = Change { hold: &mut hold, context: &mut context, pending: &mut pending };
        let (evicted, freed, next) = change.evict(segment, policy, (EVICT_SLICE, wanted, room));
        let appended = self.append(&mut hold, &mut pending, now_ms).1;
        drop(hold);
        self.shared.log.settle(room, appended);
        self.free_in_background(pending.freed);
        memory.turn.evicted.fetch_add(evicted as u64, Relaxed);
        Ok((freed, next))
    }

    /// Moves entries together for a while where pages are in use in part, because entries of another size lay there. Goes
    /// on where `round` says, and rests when it did not help.
    pub(super) fn move_together(&self, round: &mut Round) {
        let (clock, sparse) = (&self.shared.options.clock, self.shared.memory.sparse.load(Relaxed));
        let began = clock.monotonic();
        if sparse < UNUSED_PARTS_MIN || began < round.rests_until {
            return;
        }
        // Where much is wasted, memory is far over its limit.
        let urgent = sparse > self.used_memory() / UNUSED_PARTS_COUNTED;
        let end = began + if urgent { 3 * MOVE_TIME } else { MOVE_TIME };
        while clock.monotonic() < end {
            let segments = SegmentSet::one(round.segment);
            let mut hold = self.shared.keyspace.hold(SegmentSet::EMPTY, segments);
            let all_moved = hold.segment_mut(round.segment).move_some(MOVE_SLICE);
            drop(hold);
            round.segment += usize::from(all_moved);
            if round.segment == self.shared.keyspace.segment_count() {
                let helped = sparse < round.sparse_before - round.sparse_before / 4 || round.sparse_before == 0;
                let rests_until = if helped { Default::default() } else { began + MOVE_PAUSE };
                *round = Round { segment: 0, sparse_before: sparse, rests_until };
                return;
            }
        }
    }

    /// What counts against the limit, bytes.
    #[inline]
    pub(super) fn used_memory(&self) -> usize {
        let counted = self.shared.keyspace.bytes() as isize;
        usize::try_from(counted + self.shared.memory.beyond.load(Relaxed)).unwrap_or(0)
    }

    /// Asks the gauge if nobody has for a while: what the data stands aside for may be gone since.
    fn look_at_memory_again(&self) {
        let (memory, now) = (&self.shared.memory, self.shared.options.clock.monotonic().as_millis() as u64);
        let looked_at = memory.looked_at_ms.load(Relaxed);
        let again_at = looked_at + MEMORY_LOOK_AT_LIMIT.as_millis() as u64;
        let may_look = now >= again_at || !self.shared.options.threads;
        if may_look && memory.looked_at_ms.compare_exchange(looked_at, now, Relaxed, Relaxed).is_ok() {
            self.look_at_memory();
        }
    }

    /// Asks the gauge, where there is one.
    pub(super) fn look_at_memory(&self) {
        let memory = &self.shared.memory;
        if let Some(gauge) = &memory.gauge {
            let counted = || {
                let not_data = memory.freeing.load(Relaxed) + self.shared.log.memory_bytes();
                self.shared.keyspace.bytes() + not_data
            };
            let before = counted();
            let in_use = gauge();
            memory.sparse.store(in_use.sparse(), Relaxed);
            // Others go on meanwhile, and this thread may have been interrupted for long. What was there before and is gone
            // may be in the gauge's figure or not: were it taken for something else, data would be evicted for it.
            let counted = before.max(counted()) as isize;
            memory.beyond.store(in_use.counted() as isize - memory.empty as isize - counted, Relaxed);
        }
    }
}
