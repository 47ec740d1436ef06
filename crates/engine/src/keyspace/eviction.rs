//! Which entry goes when memory is short.
//!
//! ```text
//!  table   . x x . x | x x . x x x . x x x x x . x x x | . x x . x ...        a hand goes round over all buckets
//!                    +-- the next 16 entries ----------+
//!                       the one with the fewest uses goes, among equals the one written the longest ago;
//!                       each of the others forgets a use now and then
//! ```
//!
//! Buckets are ordered by hash, so 16 neighbours are 16 entries drawn at random, and each entry has its turn once in a
//! round. What is kept of an entry are three bits in its header (`uses` in `entry`), no lists and no times: a read writes
//! at most one byte, and mostly none. The number of uses grows with the logarithm, so that entries which were used 5 and 50
//! times are told apart; a new entry begins at 0, so it goes before those that were used twice, and one that is written
//! and never read goes first. A key that comes back soon after it was evicted is known by a byte (`ghosts`). How often uses are forgotten is the only difference between the policies "lru" and "lfu":
//! the first follows a working set that moves, the second keeps what was used the most over a long time.
//!
//! For the volatile policies the hand goes round in the order of expiry, which has only entries that expire; so the cost
//! does not depend on how many others there are. With the policy "tier" no entry goes, only values do: `cold` has that.
//! Not here: when and how many (`store`), the effect (`command`).

use super::database::DatabaseId;
use super::entry::EntryRef;
use super::segment::{DatabaseTable, Segment};
use super::table::{Table, TableHand};
use crate::limits::{EVICT_BUCKETS_MAX, EVICT_WINDOW};
use crate::version::Version;
use std::ops::Bound::{Excluded, Unbounded};

/// What happens to the data when memory reaches its limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
#[non_exhaustive]
pub enum EvictionPolicy {
    /// Nothing: writes that may add data are refused.
    #[default]
    NoEviction = 0,
    /// Entries go that were not used lately.
    AllKeysLru = 1,
    /// Entries go that were used the least over a long time.
    AllKeysLfu = 2,
    /// Any entries go.
    AllKeysRandom = 3,
    /// As `AllKeysLru`, among those that expire.
    VolatileLru = 4,
    /// As `AllKeysLfu`, among those that expire.
    VolatileLfu = 5,
    /// Any entries go that expire.
    VolatileRandom = 6,
    /// Those go that expire next.
    VolatileTtl = 7,
    /// No entry goes: values that were not used lately stay in the block file only, and are read from there when they are
    /// wanted.
    Tier = 8,
}

impl EvictionPolicy {
    const ALL: [EvictionPolicy; 9] = [
        EvictionPolicy::NoEviction,
        EvictionPolicy::AllKeysLru,
        EvictionPolicy::AllKeysLfu,
        EvictionPolicy::AllKeysRandom,
        EvictionPolicy::VolatileLru,
        EvictionPolicy::VolatileLfu,
        EvictionPolicy::VolatileRandom,
        EvictionPolicy::VolatileTtl,
        EvictionPolicy::Tier,
    ];

    /// The policy of a number that `as u8` gave.
    #[inline]
    pub(crate) fn from_number(number: u8) -> EvictionPolicy {
        EvictionPolicy::ALL.get(usize::from(number)).copied().unwrap_or_default()
    }

    /// Whether only entries go that expire.
    pub fn only_expiring(self) -> bool {
        (EvictionPolicy::VolatileLru as u8..=EvictionPolicy::VolatileTtl as u8).contains(&(self as u8))
    }

    /// Whether entries go for good when memory is short.
    pub fn evicts(self) -> bool {
        !matches!(self, EvictionPolicy::NoEviction | EvictionPolicy::Tier)
    }

    /// Whether it prefers what was used often.
    pub fn is_lfu(self) -> bool {
        matches!(self, EvictionPolicy::AllKeysLfu | EvictionPolicy::VolatileLfu)
    }

    /// Whether it needs to know how often entries are used.
    #[inline]
    pub(crate) fn counts_uses(self) -> bool {
        use EvictionPolicy::{AllKeysLru, Tier, VolatileLru};
        matches!(self, AllKeysLru | VolatileLru | Tier) || self.is_lfu()
    }

    /// One in how many entries that the hand meets forgets a use; a power of two.
    fn forgets_one_in(self) -> u64 {
        if self.is_lfu() { 1024 } else { 64 }
    }
}

/// Uses with which a key begins that comes back soon after it was evicted (`ghosts`): as one that was read twice.
pub(super) const USES_OF_GHOSTS: u8 = 2;

/// Where eviction goes on in a table.
#[derive(Default)]
pub(super) struct Hands {
    pub(super) all: TableHand,
    moved: TableHand,
    /// The last place in the order of expiry.
    expiring: (u64, u64),
}

/// The best candidate so far.
pub(super) struct Choice<'a> {
    pub(super) seen: usize,
    pub(super) best: Option<(u8, Version, EntryRef<'a>)>,
}

impl<'a> Choice<'a> {
    pub(super) fn consider(&mut self, entry: EntryRef<'a>, policy: EvictionPolicy, random: u64) {
        self.seen += 1;
        let (uses, version) = match policy {
            // Any will do: the drawn number decides.
            EvictionPolicy::AllKeysRandom | EvictionPolicy::VolatileRandom => (0, Version(random)),
            _ => (entry.uses(), entry.version()),
        };
        if self.best.as_ref().is_none_or(|(fewest, oldest, _)| (uses, version) < (*fewest, *oldest)) {
            self.best = Some((uses, version, entry));
        }
        if policy.counts_uses() && random & (policy.forgets_one_in() - 1) == 0 {
            entry.forget_use();
        }
    }
}

impl DatabaseTable {
    /// The entry to evict next, if there is one that `policy` allows, and whether the hand has come round.
    fn choose(&mut self, policy: EvictionPolicy, random: &mut dyn FnMut() -> u64) -> (Option<EntryRef<'_>>, bool) {
        let DatabaseTable { table, expiry, hands, .. } = self;
        let mut choice = Choice { seen: 0, best: None };
        let mut rounds = 0;
        if policy == EvictionPolicy::VolatileTtl {
            let first = expiry.first().and_then(|&(at, hash)| expiring_at(table, at, hash));
            return (first, true);
        }
        if policy.only_expiring() {
            let rest = expiry.range((Excluded(hands.expiring), Unbounded)).take(EVICT_WINDOW);
            let start = expiry.iter().take(EVICT_WINDOW);
            // The second round serves a table with fewer entries than a window.
            for &(at, hash) in rest.chain(start).take(EVICT_WINDOW) {
                rounds += usize::from((at, hash) <= hands.expiring);
                hands.expiring = (at, hash);
                if let Some(entry) = expiring_at(table, at, hash) {
                    choice.consider(entry, policy, random());
                }
            }
            return (choice.best.map(|(.., entry)| entry), rounds > 0 || expiry.is_empty());
        }
        if policy == EvictionPolicy::AllKeysRandom {
            table.place_at_random(&mut hands.all, random());
        }
        let mut buckets = 0;
        while choice.seen < EVICT_WINDOW && rounds < 2 && (choice.best.is_none() || buckets < EVICT_BUCKETS_MAX) {
            rounds += usize::from(table.visit_bucket(&mut hands.all, |entry, _| {
                choice.consider(entry, policy, random());
            }));
            buckets += 1;
        }
        (choice.best.map(|(.., entry)| entry), rounds > 0)
    }
}

/// The entry of this hash that expires then.
fn expiring_at(table: &Table, at: u64, hash: u64) -> Option<EntryRef<'_>> {
    table.find_where(hash, |entry| entry.expire_at() == Some(at))
}

impl Segment {
    /// The entry to evict next, if there is one that `policy` allows: its database, its key and the bytes that it takes.
    pub(crate) fn choose_to_evict(
        &mut self,
        policy: EvictionPolicy,
        random: &mut dyn FnMut() -> u64,
    ) -> Option<(DatabaseId, Vec<u8>, usize)> {
        for _ in 0..self.tables.len() {
            let at = self.first_table(policy, random);
            let (id, table) = self.tables.get_mut(at)?;
            let (chosen, came_round) = table.choose(policy, random);
            // Each table has its turn for a round of its hand, so that one as large as ten others gives ten times as much.
            self.evict_from = at + usize::from(came_round);
            if let Some(entry) = chosen {
                return Some((*id, entry.key().to_vec(), entry.allocated_bytes() + SLOT_BYTES));
            }
        }
        None
    }

    /// Gives some entries, about `count`, new allocations. An allocator that fills its oldest pages first, as jemalloc does,
    /// gets the others free that way. Returns whether all entries of the segment had their turn.
    pub(crate) fn move_some(&mut self, count: usize) -> bool {
        let mut moved = 0;
        while moved < count {
            let Some((_, table)) = self.tables.get_mut(self.move_from) else {
                self.move_from = 0;
                return true;
            };
            let (entries, came_round) = table.table.move_bucket(&mut table.hands.moved);
            moved += entries.max(1);
            self.move_from += usize::from(came_round);
        }
        false
    }

    /// Notes that the key of this hash is evicted.
    pub(crate) fn note_evicted(&mut self, database: DatabaseId, hash: u64, policy: EvictionPolicy) {
        if let Some(table) = self.existing_table_mut(database).filter(|_| policy.counts_uses()) {
            table.ghosts.note(hash, table.table.len());
        }
    }

    /// The place of the table whose turn it is.
    fn first_table(&self, policy: EvictionPolicy, random: &mut dyn FnMut() -> u64) -> usize {
        match policy {
            EvictionPolicy::VolatileTtl => {
                let tables = self.tables.iter().enumerate();
                tables.min_by_key(|(_, (_, table))| table.deadline()).map_or(0, |(at, _)| at)
            }
            EvictionPolicy::AllKeysRandom => {
                let entries: usize = self.tables.iter().map(|(_, table)| table.entries().len()).sum();
                let mut wanted = ((u128::from(random()) * entries as u128) >> 64) as usize;
                let mut tables = self.tables.iter().map(|(_, table)| table.entries().len());
                let place = tables.position(|len| {
                    let found = wanted < len;
                    wanted = wanted.saturating_sub(len);
                    found
                });
                place.unwrap_or(0)
            }
            _ if self.evict_from < self.tables.len() => self.evict_from,
            _ => 0,
        }
    }
}

/// What an entry takes in its table.
const SLOT_BYTES: usize = 8;

#[cfg(test)]
mod tests {
    use super::super::entry::Value;
    use super::super::segment::Put;
    use super::super::{Hold, Keyspace, SegmentSet};
    use super::*;

    const DATABASE: DatabaseId = DatabaseId(0);

    fn put(hold: &mut Hold<'_>, number: u32, expire_at: Option<u64>) {
        let key = number.to_le_bytes();
        let hash = hold.keyspace().hash(&key);
        let (table, hasher) = hold.table_mut(0, DATABASE);
        let put = Put { key: &key, value: Value::Bytes(&[7; 20]), version: Version(u64::from(number)), expire_at };
        assert_eq!(table.put(hash, &put, hasher).map(|replaced| replaced.is_none()), Ok(true));
    }

    /// Evicts `count` entries as `policy` says and returns their numbers in order.
    fn evict(hold: &mut Hold<'_>, policy: EvictionPolicy, count: usize) -> Vec<u32> {
        let mut random = 1u64;
        let mut next = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            random ^ random >> 29
        };
        (0..count)
            .map_while(|_| {
                let (_, key, bytes) = hold.segment_mut(0).choose_to_evict(policy, &mut next)?;
                assert!(bytes >= 40);
                let hash = hold.keyspace().hash(&key);
                hold.segment_mut(0).note_evicted(DATABASE, hash, policy);
                let (table, hasher) = hold.table_mut(0, DATABASE);
                assert!(table.remove(hash, &key, Version::MAX, hasher).is_ok());
                Some(u32::from_le_bytes(key.try_into().expect("keys have four bytes")))
            })
            .collect()
    }

    fn keyspace() -> Keyspace {
        Keyspace::new(1, 11, 0)
    }

    #[test]
    fn every_policy_comes_to_an_end_when_nothing_is_left() {
        for number in 1..=7 {
            let (keyspace, policy) = (keyspace(), EvictionPolicy::from_number(number));
            let mut hold = keyspace.hold(SegmentSet::EMPTY, SegmentSet::one(0));
            (1..=3000).for_each(|number| put(&mut hold, number, (number % 3 == 0).then_some(5000 - u64::from(number))));
            let mut evicted = evict(&mut hold, policy, 10_000);
            if policy == EvictionPolicy::VolatileTtl {
                assert!(evicted.is_sorted_by(|a, b| a > b), "the earliest first");
            }
            evicted.sort_unstable();
            let expected: Vec<u32> = (1..=3000).filter(|number| !policy.only_expiring() || number % 3 == 0).collect();
            assert_eq!(evicted, expected, "{policy:?}");
        }
    }

    #[test]
    fn without_uses_the_oldest_go_first_nearly() {
        let keyspace = keyspace();
        let mut hold = keyspace.hold(SegmentSet::EMPTY, SegmentSet::one(0));
        (1..=4000).for_each(|number| put(&mut hold, number, None));
        let evicted = evict(&mut hold, EvictionPolicy::AllKeysLfu, 1000);
        let old = evicted.iter().filter(|number| **number <= 2000).count();
        assert!(old > 950, "{old} of 1000 were of the older half");
    }

    #[test]
    fn a_key_that_comes_back_soon_begins_with_some_uses() {
        let keyspace = keyspace();
        let mut hold = keyspace.hold(SegmentSet::EMPTY, SegmentSet::one(0));
        (1..=1000).for_each(|number| put(&mut hold, number, None));
        let evicted = evict(&mut hold, EvictionPolicy::AllKeysLru, 1);
        let uses = |hold: &Hold<'_>, number: u32| {
            let hash = keyspace.hash(&number.to_le_bytes());
            let table = hold.table(0, DATABASE).expect("a table");
            table.find(hash, &number.to_le_bytes()).map(EntryRef::uses)
        };
        put(&mut hold, evicted[0], None);
        put(&mut hold, 5000, None);
        assert_eq!((uses(&hold, evicted[0]), uses(&hold, 5000)), (Some(USES_OF_GHOSTS), Some(0)));
    }

    #[test]
    fn entries_that_are_moved_are_all_there() {
        let keyspace = keyspace();
        let mut hold = keyspace.hold(SegmentSet::EMPTY, SegmentSet::one(0));
        (1..=3000).for_each(|number| put(&mut hold, number, (number % 2 == 0).then_some(9)));
        let bytes = hold.segment(0).bytes();
        let mut holds = 1;
        while !hold.segment_mut(0).move_some(100) {
            holds += 1;
        }
        assert!((25..=60).contains(&holds), "{holds} holds of about 100 entries");
        for number in 1..=3000u32 {
            let hash = keyspace.hash(&number.to_le_bytes());
            let found = hold.table(0, DATABASE).and_then(|table| table.find(hash, &number.to_le_bytes()));
            assert_eq!(found.map(EntryRef::version), Some(Version(u64::from(number))));
        }
        assert_eq!((hold.segment(0).bytes(), hold.segment_mut(0).move_some(1)), (bytes, false));
    }
}
