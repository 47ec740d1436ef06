//! The tier: with a limit on memory and the policy "tier", values that are used rarely stay in the block file only.
//!
//! ```text
//!   memory near its limit --> thread "eviction": choose values of one segment (short hold)
//!                                 -> look their records up in the index (no lock) -> let them go (short hold)
//!   nothing to let go -------> a checkpoint: only what it has published may go
//!   checkpoint published ----> per segment, in one hold: records that compaction moved, and the new checkpoint
//! ```
//!
//! A location is about one checkpoint, so each segment has a pinned view of it beside its cold values. Both change only
//! while the segment is held for changes; so whoever holds the segment reads them together, and may then read the disk
//! without any lock: no block that the view reaches is used again. The view is exchanged before the marks of the
//! checkpoint are settled: an entry that is clean is in the view of its segment.
//!
//! Where the policy is changed while some values are cold, this goes on until all are back: else memory would grow by every
//! value that is read. Entries are evicted then, if the new policy evicts, only when no more values can go.
//!
//! Writers never do any of this: at the limit they wait until the thread has made room, and are refused when neither
//! letting values go nor a checkpoint helps. Not here: reading values (`fetch`), which values go (`keyspace::cold`).

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

use super::fetch::FetchQueue;
use super::load::Views;
use super::{Store, one};
use crate::blocks::{Moved, View};
use crate::error::Result;
use crate::keyspace::cold::{Chosen, ColdCandidate};
use crate::keyspace::entry::{Entry, Location};
use crate::keyspace::{DatabaseId, EvictionPolicy, SegmentSet};
use crate::limits::{
    CHECKPOINT_RETRY, TIER_BUCKETS_FOR_VALUE, TIER_CHECKPOINT_PART, TIER_LOOK_AGAIN_VALUES, TIER_LOOK_ONE_IN,
    TIER_SLICE, TIER_SLICE_BUCKETS, TIER_STARTS_AT_PART, TIER_STEPS_FOR_VALUE, TIER_STOPS_AT_PART, TIER_WARMED_SLICE,
};

/// Figures about values that are in the block file only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TierStatistics {
    /// Entries whose value is in the block file only.
    pub cold: usize,
    /// Values that left memory since the store was opened.
    pub made_cold: u64,
    /// Buckets of tables, of up to seven entries each, in which values were looked for that may leave memory, since the
    /// store was opened.
    pub looked_at: u64,
    /// Values that were read back since the store was opened.
    pub fetched: u64,
    /// Reads that found no sound record since the store was opened.
    pub failed: u64,
}

/// See the head of this file.
pub(super) struct Tier {
    /// Of each segment: the checkpoint that the locations in it are about. Exchanged only while the segment is held for
    /// changes.
    views: Views,
    pub(super) queue: std::sync::Arc<FetchQueue>,
    next_segment: AtomicUsize,
    /// Letting values go did not help, nor will a checkpoint.
    exhausted: AtomicBool,
    /// A writer was held back until memory has room.
    pub(super) somebody_waits: AtomicBool,
    /// Memory waits for what a checkpoint publishes.
    wants_checkpoint: AtomicBool,
    /// Above zero, a request that was parked again and again has what it fetched left to it.
    pub(super) urgent: std::sync::Arc<AtomicUsize>,
    /// No value may leave memory: the file is being given up.
    frozen: AtomicBool,
    /// Checkpoints that had ended and values that were fetched when all values were last looked at in vain: before one of
    /// the two rises there is nothing new to let go.
    in_vain_at: Mutex<Option<(u64, u64)>>,
    /// Checkpoints that had ended when memory was near its limit and all values were looked at in vain for the first time;
    /// `None` once some went.
    full_at: Mutex<Option<u64>>,
    /// The last look for room for a value that came back found nothing, and how many came since.
    found_none: AtomicBool,
    values_since: AtomicUsize,
    made_cold: AtomicU64,
    looked_at: AtomicU64,
    pub(super) fetched: AtomicU64,
    pub(super) failed: AtomicU64,
}

/// Where values to let go are looked for.
#[derive(Clone, Copy)]
enum From {
    /// Among all, where the hand stands.
    Everything {
        /// Looks at so many buckets at most.
        buckets: usize,
    },
    /// Among those that came back lately.
    Warmed,
}

/// What one step of making room did.
struct Step {
    freed: usize,
    /// All of the segment had its turn.
    came_round: bool,
}

impl Tier {
    /// `views` are those that the store was loaded from, or is being loaded.
    pub(super) fn new(views: Views) -> Tier {
        Tier {
            views,
            queue: std::sync::Arc::default(),
            next_segment: AtomicUsize::new(0),
            exhausted: AtomicBool::new(false),
            somebody_waits: AtomicBool::new(false),
            wants_checkpoint: AtomicBool::new(false),
            urgent: std::sync::Arc::default(),
            frozen: AtomicBool::new(false),
            in_vain_at: Mutex::new(None),
            full_at: Mutex::new(None),
            found_none: AtomicBool::new(false),
            values_since: AtomicUsize::new(0),
            made_cold: AtomicU64::new(0),
            looked_at: AtomicU64::new(0),
            fetched: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }

    /// The checkpoint that the locations in a segment are about. The segment is held.
    pub(super) fn view(&self, segment: usize) -> Option<View> {
        self.views.get(segment).and_then(|view| view.lock().clone())
    }

    /// Whether memory waits for a checkpoint.
    pub(super) fn wants_checkpoint(&self) -> bool {
        self.wants_checkpoint.load(Relaxed)
    }

    /// A checkpoint begins.
    pub(super) fn checkpoint_begins(&self) {
        self.wants_checkpoint.store(false, Relaxed);
    }

    /// Values went, or memory is well within its limit.
    fn has_room(&self) {
        self.exhausted.store(false, Relaxed);
        *self.full_at.lock() = None;
    }

    /// Whether any segment may have locations in it.
    pub(super) fn has_views(&self) -> bool {
        self.views.iter().any(|view| view.lock().is_some())
    }

    /// Whether values that somebody fetched are left to him until he has run, so that none may leave memory.
    fn is_urgent(&self) -> bool {
        self.urgent.load(Relaxed) > 0
    }

    /// Nothing can be let go, and no checkpoint would change that.
    pub(super) fn is_exhausted(&self) -> bool {
        self.exhausted.load(Relaxed)
    }
}

impl Store {
    /// Figures about values that are in the block file only.
    pub fn tier(&self) -> TierStatistics {
        let tier = &self.shared.tier;
        TierStatistics {
            cold: self.shared.keyspace.cold(),
            made_cold: tier.made_cold.load(Relaxed),
            looked_at: tier.looked_at.load(Relaxed),
            fetched: tier.fetched.load(Relaxed),
            failed: tier.failed.load(Relaxed),
        }
    }

    /// What the locations in a segment, which is held, are about.
    pub(super) fn cold_values_of(&self, segment: usize) -> Option<View> {
        self.shared.tier.view(segment)
    }

    /// Whether values become cold, or some are.
    pub(super) fn is_tiered(&self) -> bool {
        self.eviction_policy() == EvictionPolicy::Tier
            || self.shared.keyspace.cold() > 0
            || self.shared.load.may_leave_values()
    }

    /// Whether values leave memory when it is short.
    pub(super) fn lets_values_go(&self) -> bool {
        self.eviction_policy() == EvictionPolicy::Tier || self.shared.keyspace.cold() > 0
    }

    /// Whether values are leaving memory, which is near its limit.
    pub(super) fn is_near_tier_limit(&self) -> bool {
        let limit = self.memory_limit_bytes();
        let is_near = || self.used_memory() > limit - limit / TIER_STARTS_AT_PART;
        limit > 0 && self.lets_values_go() && is_near()
    }

    /// Whether a checkpoint is wanted because of what memory holds that no checkpoint has.
    pub(super) fn wants_tier_checkpoint(&self) -> bool {
        let limit = self.memory_limit_bytes();
        if limit == 0 || !self.lets_values_go() {
            return false;
        }
        let much = self.used_memory() > limit / 2 && self.logged_since_cut() > (limit / TIER_CHECKPOINT_PART) as u64;
        much || self.shared.tier.wants_checkpoint()
    }

    /// Lets values go until memory is well within its limit, if it is near it. Returns whether it did anything.
    pub(super) fn tier_down(&self) -> bool {
        self.look_at_memory();
        let (limit, tier) = (self.memory_limit_bytes(), &self.shared.tier);
        let (start, stop) = (limit - limit / TIER_STARTS_AT_PART, limit - limit / TIER_STOPS_AT_PART);
        if limit == 0 || self.used_memory() <= start {
            tier.has_room();
            // It may have become so by itself. Whoever waits for the log alone is the log's to wake.
            if tier.somebody_waits.swap(false, Relaxed) {
                self.shared.log.wake_for_room();
            }
            return false;
        }
        let mut did = false;
        // The hand of a segment may have stood anywhere: two turns see all of it.
        let turns = 2 * self.shared.keyspace.segment_count();
        while self.used_memory() > stop && !tier.is_urgent() && !self.shared.background.is_closing() {
            let now = self.looked_at();
            if self.would_look_in_vain(now) || self.let_some_go(turns) == 0 {
                tier.in_vain_at.lock().get_or_insert(now);
                self.nothing_to_let_go(now.0);
                return did;
            }
            did = true;
            tier.has_room();
            self.look_at_memory();
            self.shared.log.wake_for_room();
        }
        did
    }

    /// Checkpoints that have ended, and values that were fetched.
    fn looked_at(&self) -> (u64, u64) {
        let checkpoints = self.checkpoints();
        (checkpoints.published + checkpoints.failed, self.shared.tier.fetched.load(Relaxed))
    }

    /// Whether all values were looked at in vain and none, or few, may go since. If some may, forgets that.
    fn would_look_in_vain(&self, (ended, fetched): (u64, u64)) -> bool {
        let mut at = self.shared.tier.in_vain_at.lock();
        // Looking at everything for a few takes more than it gives, and the end of the checkpoint gives more.
        let few = if self.shared.checkpoints.is_running() { TIER_LOOK_AGAIN_VALUES } else { 1 };
        at.take_if(|at| at.0 != ended || fetched - at.1 >= few);
        at.is_some()
    }

    /// Lets some values of the next segments go, after up to `turns` segments in vain; returns the bytes.
    fn let_some_go(&self, turns: usize) -> usize {
        for _ in 0..turns {
            let segment = self.next_segment();
            loop {
                let all = From::Everything { buckets: TIER_SLICE_BUCKETS };
                let Step { freed, came_round } = self.let_go_in(segment, all);
                if freed > 0 {
                    return freed;
                }
                if came_round {
                    break;
                }
            }
        }
        0
    }

    /// Before a value of so many bytes comes back, others go: a few, in a short time.
    pub(super) fn make_room_for_value(&self, bytes: usize) {
        let (limit, tier) = (self.memory_limit_bytes(), &self.shared.tier);
        let is_full = || limit > 0 && self.used_memory().saturating_add(bytes) > limit;
        if !is_full() || !self.lets_values_go() {
            return;
        }
        let mut freed = 0;
        let is_turn = || tier.values_since.fetch_add(1, Relaxed).is_multiple_of(TIER_LOOK_ONE_IN);
        let mut looks = !tier.found_none.load(Relaxed) || is_turn();
        for _ in 0..TIER_STEPS_FOR_VALUE {
            if freed >= bytes || tier.is_urgent() {
                break;
            }
            let segment = self.next_segment();
            if looks {
                freed += self.let_go_in(segment, From::Everything { buckets: TIER_BUCKETS_FOR_VALUE }).freed;
                looks = freed > 0;
                tier.found_none.store(!looks, Relaxed);
            }
            if freed < bytes {
                freed += self.let_go_in(segment, From::Warmed).freed;
            }
        }
        if is_full() {
            self.shared.memory.wake();
        }
    }

    /// The segment whose turn it is.
    fn next_segment(&self) -> usize {
        self.shared.tier.next_segment.fetch_add(1, Relaxed) % self.shared.keyspace.segment_count()
    }

    /// What is in memory is newer than the checkpoint published last, or takes no room in values. `ended` checkpoints had
    /// ended when that was looked at.
    fn nothing_to_let_go(&self, ended: u64) {
        let (tier, checkpoints) = (&self.shared.tier, &self.shared.checkpoints);
        if checkpoints.is_running() {
            return;
        }
        // One began after that had been seen, and let nothing go: something is always dirty while others write, but it is not
        // what fills memory. Writers are told; another is tried now and then.
        let was_in_vain = ended > *tier.full_at.lock().get_or_insert(ended);
        let may_help = self.is_dirty() && checkpoints.last_error().is_none();
        if may_help && (!was_in_vain || self.since_checkpoint_began() >= CHECKPOINT_RETRY) {
            tier.wants_checkpoint.store(true, Relaxed);
            checkpoints.wake();
        }
        if was_in_vain || !may_help {
            tier.exhausted.store(true, Relaxed);
            self.shared.log.wake_for_room();
        }
    }

    /// Lets some values of one segment go, if their places can be found.
    fn let_go_in(&self, segment: usize, from: From) -> Step {
        self.try_let_go_in(segment, from).unwrap_or_else(|error| {
            tracing::error!(%error, "values cannot leave memory");
            Step { freed: 0, came_round: true }
        })
    }

    fn try_let_go_in(&self, segment: usize, from: From) -> Result<Step> {
        let (keyspace, tier) = (&self.shared.keyspace, &self.shared.tier);
        let mut random = self.random_seed();
        let mut next = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            random >> 20
        };
        let mut hold = keyspace.hold(SegmentSet::EMPTY, one(segment));
        let (held, hasher) = (hold.segment_mut(segment), keyspace.hasher());
        let Chosen { candidates: mut chosen, came_round, buckets } = match from {
            From::Everything { buckets } => held.choose_cold((TIER_SLICE, buckets), hasher, &mut next),
            From::Warmed => held.choose_warmed(TIER_WARMED_SLICE, hasher),
        };
        let view = tier.view(segment).or_else(|| self.pin_newest_checkpoint(segment));
        drop(hold);
        tier.looked_at.fetch_add(buckets as u64, Relaxed);
        let Some(view) = view.filter(|_| !chosen.is_empty()) else { return Ok(Step { freed: 0, came_round }) };
        chosen.sort_unstable_by_key(|candidate| (candidate.database, candidate.hash));
        let located = locate(&view, &chosen)?;
        let mut hold = keyspace.hold(SegmentSet::EMPTY, one(segment));
        let is_same = !tier.frozen.load(Relaxed) && tier.view(segment).is_some_and(|now| now.is_same(&view));
        let held = hold.segment_mut(segment);
        let gone: Vec<Entry> = if is_same {
            located.iter().filter_map(|(candidate, at)| held.make_cold(candidate, *at, hasher)).collect()
        } else {
            Vec::new()
        };
        drop(hold);
        tier.made_cold.fetch_add(gone.len() as u64, Relaxed);
        let freed = gone.iter().map(|entry| entry.borrow().allocated_bytes()).sum();
        Ok(Step { freed, came_round })
    }

    /// Gives the block file up, so that the next checkpoint writes it anew from memory; false when memory does not have
    /// all entries and values. No checkpoint may run.
    pub(super) fn forget_file_unless_cold(&self) -> bool {
        let (keyspace, tier) = (&self.shared.keyspace, &self.shared.tier);
        tier.frozen.store(true, Relaxed);
        // Whoever lets values go at the moment has ended when all segments were held.
        drop(keyspace.hold(SegmentSet::EMPTY, keyspace.every_segment()));
        let is_whole = keyspace.cold() == 0 && keyspace.all_loaded();
        if is_whole {
            keyspace.forget_file();
        }
        tier.frozen.store(false, Relaxed);
        is_whole
    }

    /// Makes the newest checkpoint that of a segment, which is held for changes. `None` while one is being written.
    fn pin_newest_checkpoint(&self, segment: usize) -> Option<View> {
        let view = self.shared.checkpoints.try_file()?.view();
        *self.shared.tier.views.get(segment)?.lock() = Some(view.clone());
        Some(view)
    }

    /// A checkpoint was published: cold values are about it from now on. `moved` ascends by hash. Before its marks are
    /// settled.
    pub(super) fn follow_checkpoint(&self, view: &View, moved: &[Moved]) {
        let (keyspace, is_tiered) = (&self.shared.keyspace, self.is_tiered());
        let mut rest = moved;
        for segment in keyspace.every_segment().iter() {
            let count = keyspace.hash_end(segment).map_or(rest.len(), |end| rest.partition_point(|m| m.hash < end));
            let (here, later) = rest.split_at(count);
            rest = later;
            let mut hold = keyspace.hold(SegmentSet::EMPTY, one(segment));
            for Moved { database, hash, from, to } in here {
                hold.segment_mut(segment).relocate(*database, *hash, *from, *to, keyspace.hasher());
            }
            // A segment that is not loaded yet is read from the newest checkpoint there is, so that older blocks come free.
            // The policy may have been another for a moment since.
            let is_used = is_tiered || !keyspace.is_loaded(segment) || hold.segment(segment).cold() > 0;
            let now = self.shared.tier.views.get(segment);
            let before = now.map(|now| std::mem::replace(&mut *now.lock(), is_used.then(|| view.clone())));
            drop(hold);
            // The last reader of a checkpoint gives its tables back.
            drop(before);
        }
    }
}

/// Where the records of candidates, which are in order, stand; those that cannot be told from another key are left out.
fn locate(view: &View, chosen: &[ColdCandidate]) -> Result<Vec<(ColdCandidate, Location)>> {
    let mut located = Vec::with_capacity(chosen.len());
    for group in chosen.chunk_by(|a, b| a.database == b.database) {
        let hashes: Vec<u64> = group.iter().map(|candidate| candidate.hash).collect();
        let database = group.first().map_or(DatabaseId(0), |candidate| candidate.database);
        let mut rest = group.iter();
        view.locate(database, &hashes, &mut |hash, location| {
            if let Some(candidate) = rest.find(|candidate| candidate.hash == hash) {
                located.push((*candidate, location));
            }
        })?;
    }
    Ok(located)
}
