//! Cold values: in the block file only, so that the data may be larger than memory.
//!
//! ```text
//!   hot, clean --choose_cold, look up where the record stands, make_cold--> cold --fetch, make_warm--> hot, clean
//!                                                                            |
//!                                                                            \--put or remove--> as for any entry
//! ```
//!
//! A cold entry keeps its key, version, times and uses in memory, and the location of its record in place of its value.
//! Invariant: it is clean, so the record is the one that the newest published checkpoint has of its key. Whatever changes
//! an entry by less than a new value has it fetched first (`exec`), and compaction tells where records went
//! ([`Segment::relocate`]). Which checkpoint a location is about is known per segment, by whoever reads (`store::tier`).
//!
//! Where most of what memory holds may not go, because it is dirty, and most of the rest is cold, looking for what may is
//! looking at everything. So each table remembers the last values that came back, and those that come next take the place
//! of them: the least used of a few goes, the others have lost a use and come again later.
//!
//! Entries are named by hash and version here, which costs no copies of keys: one command may write many keys with one
//! version, but hardly two of the same 64-bit hash; and then the index has two records of that hash and neither becomes
//! cold.

use super::database::DatabaseId;
use super::entry::{Entry, EntryRef, Location};
use super::eviction::{Choice, EvictionPolicy};
use super::hash::KeyHasher;
use super::mark::Mark;
use super::segment::{DatabaseTable, Segment};
use super::slot::EntryMut;
use crate::limits::{EVICT_BUCKETS_MAX, EVICT_WINDOW, TIER_VALUE_BYTES_MIN, TIER_WARMED_MAX, TIER_WARMED_WINDOW};
use crate::version::Version;
use std::collections::VecDeque;

/// The hashes of entries whose values came back into memory, in the order in which they did.
#[derive(Default)]
pub(super) struct Warmed {
    hashes: VecDeque<u64>,
}

impl Warmed {
    fn add(&mut self, hash: u64) {
        if self.hashes.len() >= TIER_WARMED_MAX {
            // The hand finds it.
            self.hashes.pop_front();
        }
        self.hashes.push_back(hash);
    }
}

/// What was chosen to become cold.
#[derive(Debug, Default)]
pub(crate) struct Chosen {
    /// Those that were found.
    pub(crate) candidates: Vec<ColdCandidate>,
    /// Whether all of the segment had its turn.
    pub(crate) came_round: bool,
    /// Buckets that were looked at.
    pub(crate) buckets: usize,
}

/// An entry whose value may become cold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ColdCandidate {
    pub(crate) database: DatabaseId,
    pub(crate) hash: u64,
    pub(crate) version: Version,
}

/// A cold value that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ColdValue {
    pub(crate) location: Location,
    pub(crate) version: Version,
    /// About how long it is.
    pub(crate) bytes: usize,
}

impl ColdValue {
    /// That of an entry; `None` when it is in memory.
    pub(crate) fn of(entry: EntryRef<'_>) -> Option<ColdValue> {
        let (location, bytes) = (entry.location()?, entry.cold_value_bytes()?);
        Some(ColdValue { location, version: entry.version(), bytes })
    }
}

/// Whether memory could be gained by making this value cold. `Clean` says that the published checkpoint has it.
fn may_become_cold(entry: EntryRef<'_>, mark: Mark) -> bool {
    mark == Mark::Clean && entry.bytes_in_value() >= TIER_VALUE_BYTES_MIN
}

/// The entry as it comes into memory when its value is to stay in the file at `location`, where that gains anything.
pub(crate) fn leave_in_file(entry: Entry, location: Location) -> Entry {
    if may_become_cold(entry.borrow(), Mark::Clean) { entry.borrow().with_cold_value(location) } else { entry }
}

impl Segment {
    /// Chooses up to `count` values to become cold: those used the least among some neighbours each. Looks at `buckets`
    /// buckets at most, and goes on there the next time: a segment whose tables are large has its turn in several calls.
    pub(crate) fn choose_cold(
        &mut self,
        (count, buckets): (usize, usize),
        hasher: &KeyHasher,
        random: &mut dyn FnMut() -> u64,
    ) -> Chosen {
        let (mut chosen, mut left) = (Vec::new(), buckets);
        while chosen.len() < count && left > 0 && self.tables_done < self.tables.len() {
            let at = if self.evict_from < self.tables.len() { self.evict_from } else { 0 };
            let Some((id, table)) = self.tables.get_mut(at) else { break };
            let (found, came_round) = table.choose_cold(&mut left, random);
            if let Some((hash, version)) = found.map(|entry| (hasher.hash(entry.key()), entry.version())) {
                let candidate = ColdCandidate { database: *id, hash, version };
                if !chosen.contains(&candidate) {
                    chosen.push(candidate);
                }
            }
            self.evict_from = at + usize::from(came_round);
            self.tables_done += usize::from(came_round);
        }
        let came_round = self.tables_done >= self.tables.len();
        if came_round {
            self.tables_done = 0;
        }
        Chosen { candidates: chosen, came_round, buckets: buckets - left }
    }

    /// Chooses up to `count` values to become cold among those that came back lately. Looks at a few entries for each, however
    /// many there are.
    pub(crate) fn choose_warmed(&mut self, count: usize, hasher: &KeyHasher) -> Chosen {
        let mut chosen: Vec<ColdCandidate> = Vec::new();
        for (id, table) in &mut self.tables {
            while chosen.len() < count
                && let Some((hash, version)) = table.choose_warmed(hasher)
            {
                chosen.push(ColdCandidate { database: *id, hash, version });
            }
        }
        Chosen { candidates: chosen, came_round: true, buckets: 0 }
    }

    /// Lets the value of a candidate go that stands at `location` of the checkpoint published last; returns the entry as
    /// it was, to be freed. `None` when it has changed since it was chosen.
    pub(crate) fn make_cold(
        &mut self,
        candidate: &ColdCandidate,
        location: Location,
        hasher: &KeyHasher,
    ) -> Option<Entry> {
        let table = self.existing_table_mut(candidate.database)?;
        let mut found = table.find_version(candidate.hash, candidate.version, hasher)?;
        if !may_become_cold(found.get(), found.mark()) {
            return None;
        }
        let cold = found.get().with_cold_value(location);
        let hot = found.replace(cold);
        table.tracking.became_cold();
        Some(hot)
    }

    /// Puts an entry that was read from the file in place of the cold one; returns the allocation to be freed: in `Err`
    /// the new one, when the old one has changed meanwhile or has its value already.
    pub(crate) fn make_warm(&mut self, database: DatabaseId, hash: u64, mut warm: Entry) -> Result<Entry, Entry> {
        let Some(table) = self.existing_table_mut(database) else { return Err(warm) };
        let is_it = |entry: EntryRef<'_>| entry.key() == warm.borrow().key();
        let Some(mut found) = table.table.find_mut_where(hash, is_it) else { return Err(warm) };
        if !found.get().is_cold() || found.get().version() != warm.borrow().version() {
            return Err(warm);
        }
        // What has just been wanted does not go again first.
        warm.set_uses(found.get().uses().max(1));
        let cold = found.replace(warm);
        table.tracking.is_cold_no_more();
        table.hands.warmed.add(hash);
        Ok(cold)
    }

    /// Notes that the record of a cold entry, if this hash has one in block `from`, was moved to block `to`.
    pub(crate) fn relocate(&mut self, database: DatabaseId, hash: u64, from: u32, to: u32, hasher: &KeyHasher) {
        let Some(table) = self.existing_table_mut(database) else { return };
        let is_it = |entry: EntryRef<'_>| {
            entry.location().is_some_and(|location| location.block == from) && hasher.hash(entry.key()) == hash
        };
        if let Some(mut found) = table.table.find_mut_where(hash, is_it) {
            found.change(|entry| entry.set_block(to));
        }
    }
}

impl DatabaseTable {
    /// The next value to become cold, and whether the hand has come round.
    fn choose_cold(&mut self, buckets: &mut usize, random: &mut dyn FnMut() -> u64) -> (Option<EntryRef<'_>>, bool) {
        let DatabaseTable { table, hands, .. } = self;
        let mut choice = Choice { seen: 0, best: None };
        let (mut came_round, mut looked_at) = (false, 0);
        while choice.seen < EVICT_WINDOW
            && !came_round
            && *buckets > 0
            && (choice.best.is_none() || looked_at < EVICT_BUCKETS_MAX)
        {
            came_round = table.visit_bucket(&mut hands.all, |entry, mark| {
                if may_become_cold(entry, mark) {
                    choice.consider(entry, EvictionPolicy::Tier, random());
                }
            });
            *buckets -= 1;
            looked_at += 1;
        }
        (choice.best.map(|(.., entry)| entry), came_round)
    }

    /// The next of the values that came back to become cold.
    fn choose_warmed(&mut self, hasher: &KeyHasher) -> Option<(u64, Version)> {
        let DatabaseTable { table, hands, .. } = self;
        let mut best: Option<(u8, u64, Version)> = None;
        let (mut seen, mut left) = (0, hands.warmed.hashes.len());
        while seen < TIER_WARMED_WINDOW && left > 0 {
            left -= 1;
            let Some(hash) = hands.warmed.hashes.pop_front() else { break };
            // What has changed since has no place here; what is cold again neither.
            let is_it = |entry: EntryRef<'_>| !entry.is_cold() && hasher.hash(entry.key()) == hash;
            let found = table.find_mut_where(hash, is_it);
            let Some(found) = found.filter(|found| may_become_cold(found.get(), found.mark())) else { continue };
            seen += 1;
            let this = (found.get().uses(), hash, found.get().version());
            found.get().forget_use();
            let stays = match best {
                Some(before) if before.0 <= this.0 => Some(this),
                _ => best.replace(this),
            };
            hands.warmed.hashes.extend(stays.map(|(_, hash, _)| hash));
        }
        best.map(|(_, hash, version)| (hash, version))
    }

    /// The entry of this hash and version.
    fn find_version(&mut self, hash: u64, version: Version, hasher: &KeyHasher) -> Option<EntryMut<'_>> {
        self.table.find_mut_where(hash, |entry| entry.version() == version && hasher.hash(entry.key()) == hash)
    }

    /// The location of a key's cold value, and the version that its record has.
    pub(crate) fn cold_value(&self, hash: u64, key: &[u8]) -> Option<ColdValue> {
        ColdValue::of(self.find(hash, key)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_segment_has_its_turn_however_many_large_tables_it_has() {
        let mut segment = Segment::new(Arc::default());
        for id in 0..3 {
            segment.table_mut(DatabaseId(id), 20_000);
        }
        let (hasher, mut looked_at) = (KeyHasher::new(7), 0);
        for turn in 0..2 {
            let steps = (1..1000).find(|_| {
                let Chosen { came_round, buckets, .. } = segment.choose_cold((64, 1024), &hasher, &mut || 1);
                looked_at += buckets;
                came_round
            });
            assert!(steps.is_some_and(|steps| steps > 3), "turn {turn}: {steps:?} steps, {looked_at} buckets");
        }
    }
}
