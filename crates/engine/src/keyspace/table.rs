//! The hash table of one database in one segment. It grows in bounded steps and wastes little room.
//!
//! ```text
//!  hash  63 .. 48 | 47 .. 32 | 31 .. 0            the segment takes the top bits (see `mod`)
//!                    tag        which subtable
//!
//!  subtables   [0] [1] [2] ... [2^level + split - 1]         linear hashing over whole subtables (see `subtable`)
//! ```
//!
//! Linear hashing (Litwin 1980): when the entries exceed `SUBTABLE_ENTRIES` a subtable, the subtable at `split` is
//! divided in two; so one insert moves at most the entries of one subtable (about 1100), and memory never doubles. A lookup
//! touches one bucket and one entry in nearly all cases, and both can be prefetched.
//!
//! A pass over all slots goes by the numbers of the subtables: a split moves entries to the end, where the pass comes by
//! later. Only a join would move entries back behind it, so whoever makes a pass holds joins off.
//!
//! Safe face: slots own their entries; entries are reached only through `&self` or `&mut self` of the table.
#![allow(unsafe_code)]

use super::entry::{Entry, EntryRef};
use super::hash::KeyHasher;
use super::mark::Mark;
use super::prefetch::prefetch;
use super::slot::{EntryMut, Slot, entry_ref};
use super::subtable::Subtable;
use crate::limits::MOVE_BYTES_MAX;
use crate::version::Version;
use std::mem::ManuallyDrop;

/// Mean number of entries in a subtable at which the next one is split.
const SUBTABLE_ENTRIES: usize = 512;
/// Below this mean number two subtables are joined again.
const SUBTABLE_ENTRIES_MIN: usize = SUBTABLE_ENTRIES / 4;

/// A place in a table to go on scanning from; survives growth and shrinking between two calls.
///
/// The order is: subtable number with its bits reversed (so that a split divides a range in two), then tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableCursor {
    /// Reversed subtable bits.
    pub range: u32,
    /// Tags below this one are done in the current subtable.
    pub tag: u16,
    /// How many bits told the subtable when that was so: a subtable that was joined since has more to show.
    pub bits: u8,
}

/// Where a pass over all buckets goes on. Growth and shrinking may let it miss some entries and meet others twice.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TableHand {
    subtable: usize,
    bucket: usize,
}

/// A hash table that owns its entries; see the head of this file.
pub struct Table {
    subtables: Vec<Subtable>,
    /// `2^level` subtables existed when the current round of splits began.
    level: u32,
    /// The subtable that is split next.
    split: usize,
    entries: usize,
    entry_bytes: usize,
    /// Memory of all subtables' buckets.
    bucket_bytes: usize,
    /// Subtables are not joined at the moment.
    joins_held_off: bool,
}

impl Default for Table {
    fn default() -> Table {
        let subtables = vec![Subtable::default()];
        Table { subtables, level: 0, split: 0, entries: 0, entry_bytes: 0, bucket_bytes: 0, joins_held_off: false }
    }
}

fn tag_of(hash: u64) -> u16 {
    (hash >> 32) as u16
}

impl Table {
    /// A table with room for `entries` before anything has to move.
    pub fn with_room(entries: usize) -> Table {
        let count = (entries / SUBTABLE_ENTRIES).max(1).next_power_of_two();
        let mut table = Table::default();
        table.level = count.ilog2();
        table.subtables = (0..count).map(|_| Subtable::with_room(entries / count)).collect();
        table.bucket_bytes = table.subtables.iter().map(|subtable| subtable.buckets.memory_bytes()).sum();
        table
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Bytes of all entries together, as allocated.
    pub fn entry_bytes(&self) -> usize {
        self.entry_bytes
    }

    /// Bytes of the table itself.
    #[inline]
    pub fn table_bytes(&self) -> usize {
        self.bucket_bytes + self.subtables.capacity() * size_of::<Subtable>()
    }

    fn subtable_index(&self, hash: u64) -> usize {
        let low = hash as u32 as usize;
        let index = low & ((1 << self.level) - 1);
        if index < self.split { low & ((2 << self.level) - 1) } else { index }
    }

    /// The entry of `key`.
    #[inline]
    pub fn find(&self, hash: u64, key: &[u8]) -> Option<EntryRef<'_>> {
        self.find_where(hash, |entry| entry.key() == key)
    }

    /// The entry of `key` and its mark.
    pub(super) fn find_marked(&self, hash: u64, key: &[u8]) -> Option<(EntryRef<'_>, Mark)> {
        let subtable = &self.subtables[self.subtable_index(hash)];
        let place = subtable.find(tag_of(hash), |entry| entry.key() == key)?;
        let slot = &subtable.buckets[place.bucket].0[place.slot];
        Some((entry_ref(slot), slot.mark()))
    }

    /// The first entry with this hash for which `is_it` holds.
    pub fn find_where(&self, hash: u64, is_it: impl FnMut(EntryRef<'_>) -> bool) -> Option<EntryRef<'_>> {
        let subtable = &self.subtables[self.subtable_index(hash)];
        let place = subtable.find(tag_of(hash), is_it)?;
        Some(entry_ref(&subtable.buckets[place.bucket].0[place.slot]))
    }

    /// The entry of `key`, to change it.
    #[inline]
    pub fn find_mut(&mut self, hash: u64, key: &[u8]) -> Option<EntryMut<'_>> {
        self.find_mut_where(hash, |entry| entry.key() == key)
    }

    /// The first entry for which `is_it` holds, among some that have this hash or resemble it; to change it.
    #[inline]
    pub(super) fn find_mut_where(
        &mut self,
        hash: u64,
        is_it: impl FnMut(EntryRef<'_>) -> bool,
    ) -> Option<EntryMut<'_>> {
        let index = self.subtable_index(hash);
        let subtable = &mut self.subtables[index];
        let place = subtable.find(tag_of(hash), is_it)?;
        let slot = &mut subtable.buckets[place.bucket].0[place.slot];
        Some(EntryMut { slot, entry_bytes: &mut self.entry_bytes })
    }

    /// Puts in an entry whose key must not be there yet. Moves at most the entries of one subtable.
    pub(super) fn insert(&mut self, hash: u64, entry: Entry, mark: Mark, hasher: &KeyHasher) {
        self.entry_bytes += entry.borrow().allocated_bytes();
        self.entries += 1;
        let index = self.subtable_index(hash);
        self.bucket_bytes += self.subtables[index].insert(Slot::new(entry, mark, tag_of(hash)));
        if self.entries > self.subtables.len() * SUBTABLE_ENTRIES {
            self.split_one(hasher);
        }
    }

    /// Takes the entry of `key` out.
    pub(super) fn remove(&mut self, hash: u64, key: &[u8]) -> Option<(Entry, Mark)> {
        let index = self.subtable_index(hash);
        let place = self.subtables[index].find(tag_of(hash), |entry| entry.key() == key)?;
        let before = self.subtables[index].buckets.memory_bytes();
        let (entry, mark) = self.subtables[index].remove(place);
        self.bucket_bytes -= before - self.subtables[index].buckets.memory_bytes();
        self.entries -= 1;
        self.entry_bytes -= entry.borrow().allocated_bytes();
        let sparse = self.subtables.len() > 1 && self.entries < self.subtables.len() * SUBTABLE_ENTRIES_MIN;
        if sparse && !self.joins_held_off {
            self.join_one();
        }
        Some((entry, mark))
    }

    /// Holds joins of subtables off, for a pass over the marks, or lets them happen again.
    pub(super) fn hold_joins_off(&mut self, off: bool) {
        self.joins_held_off = off;
    }

    /// Number of slots of a subtable; `None` behind the last one.
    pub(super) fn slots_of(&self, subtable: usize) -> Option<usize> {
        self.subtables.get(subtable).map(|subtable| subtable.buckets.slots())
    }

    /// Shows the entries of a subtable whose mark is `wanted` to `visit`, which gives them a new mark or stops the pass.
    /// Returns whether all were visited.
    pub(super) fn visit_marked(
        &mut self,
        subtable: usize,
        wanted: impl Fn(Mark) -> bool,
        mut visit: impl FnMut(EntryRef<'_>, Mark) -> Option<Mark>,
    ) -> bool {
        let wanted = |slot: &Slot| !slot.is_empty() && wanted(slot.mark());
        let buckets = &mut self.subtables[subtable].buckets;
        for at in 0..buckets.len() {
            let ahead = buckets.get(at + 2).map_or(&[][..], |bucket| &bucket.0);
            ahead.iter().filter(|slot| wanted(slot)).for_each(|slot| prefetch(slot.pointer()));
            for slot in buckets[at].0.iter_mut().filter(|slot| wanted(slot)) {
                match visit(entry_ref(slot), slot.mark()) {
                    Some(mark) => *slot = slot.with_mark(mark),
                    None => return false,
                }
            }
        }
        true
    }

    /// Gives every entry of a subtable a new mark. Reads no entry.
    pub(super) fn set_marks(&mut self, subtable: usize, mut change: impl FnMut(Mark) -> Mark) {
        for bucket in self.subtables[subtable].buckets.iter_mut() {
            for slot in bucket.0.iter_mut().filter(|slot| !slot.is_empty()) {
                let (before, after) = (slot.mark(), change(slot.mark()));
                if before != after {
                    *slot = slot.with_mark(after);
                }
            }
        }
    }

    /// Gives an entry of this hash that still has the version `Version::MAX` its real one; to be called once for each time
    /// that an entry was changed.
    pub fn stamp(&mut self, hash: u64, version: Version) {
        let index = self.subtable_index(hash);
        let subtable = &mut self.subtables[index];
        if let Some(place) = subtable.find(tag_of(hash), |entry| entry.version() == Version::MAX) {
            let slot = subtable.buckets[place.bucket].0[place.slot];
            // SAFETY: the slot is filled and `&mut self` has it alone; stamping neither moves the entry nor changes its
            // size, and ManuallyDrop leaves it to the slot.
            ManuallyDrop::new(unsafe { slot.take() }).stamp(version);
        }
    }

    /// First half of a prefetch: the bucket where `hash` is at home.
    #[inline]
    pub fn prefetch_bucket(&self, hash: u64) {
        let subtable = &self.subtables[self.subtable_index(hash)];
        if let Some(bucket) = subtable.buckets.get(subtable.home(tag_of(hash))) {
            prefetch(bucket);
        }
    }

    /// Second half: the entries in the home bucket that carry the hash's tag.
    #[inline]
    pub fn prefetch_entries(&self, hash: u64) {
        let subtable = &self.subtables[self.subtable_index(hash)];
        let Some(bucket) = subtable.buckets.get(subtable.home(tag_of(hash))) else { return };
        let mut bits = bucket.matches(tag_of(hash));
        while bits != 0 {
            prefetch(bucket.0[bits.trailing_zeros() as usize].pointer());
            bits &= bits - 1;
        }
    }

    /// Shows the entries of the bucket at `hand` to `visit`, and moves the hand on; entries a little ahead are fetched.
    /// Returns whether the hand came to the end and begins anew.
    pub(super) fn visit_bucket<'a>(&'a self, hand: &mut TableHand, mut visit: impl FnMut(EntryRef<'a>, Mark)) -> bool {
        if self.subtables.get(hand.subtable).is_none_or(|subtable| hand.bucket >= subtable.buckets.len()) {
            hand.subtable += 1;
            hand.bucket = 0;
            if hand.subtable >= self.subtables.len() {
                *hand = TableHand::default();
                return true;
            }
        }
        let buckets = &self.subtables[hand.subtable].buckets;
        let ahead = buckets.get(hand.bucket + 2).map_or(&[][..], |bucket| &bucket.0);
        ahead.iter().filter(|slot| !slot.is_empty()).for_each(|slot| prefetch(slot.pointer()));
        let bucket = buckets.get(hand.bucket).map_or(&[][..], |bucket| &bucket.0);
        bucket.iter().filter(|slot| !slot.is_empty()).for_each(|slot| visit(entry_ref(slot), slot.mark()));
        hand.bucket += 1;
        false
    }

    /// Gives the entries of the bucket at `hand` new allocations, large ones left aside, and moves the hand on. Returns how
    /// many, and whether the hand came to the end and begins anew.
    pub(super) fn move_bucket(&mut self, hand: &mut TableHand) -> (usize, bool) {
        let mut entries = 0;
        let came_round = self.visit_bucket(hand, |_, _| entries += 1);
        if came_round || entries == 0 {
            return (0, came_round);
        }
        // The hand stands behind the bucket that it has just visited.
        let Some(bucket) = self.subtables[hand.subtable].buckets.get_mut(hand.bucket - 1) else { return (0, false) };
        for slot in bucket.0.iter_mut().filter(|slot| !slot.is_empty()) {
            let mut entry = EntryMut { slot, entry_bytes: &mut self.entry_bytes };
            if entry.get().allocated_bytes() <= MOVE_BYTES_MAX {
                entry.change(Entry::move_allocation);
            }
        }
        (entries, false)
    }

    /// Sets the hand on a bucket drawn at random; the subtables have about equally many.
    pub(super) fn place_at_random(&self, hand: &mut TableHand, random: u64) {
        hand.subtable = ((random >> 32) as usize * self.subtables.len()) >> 32;
        let buckets = self.subtables.get(hand.subtable).map_or(0, |subtable| subtable.buckets.len());
        hand.bucket = ((random as u32 as usize) * buckets) >> 32;
    }

    /// All entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = EntryRef<'_>> {
        let buckets = self.subtables.iter().flat_map(|subtable| subtable.buckets.iter());
        buckets.flat_map(|bucket| &bucket.0).filter(|slot| !slot.is_empty()).map(entry_ref)
    }

    /// An entry chosen by `random`, each about as likely as another.
    pub fn random(&self, random: u64) -> Option<EntryRef<'_>> {
        if self.entries == 0 {
            return None;
        }
        let mut wanted = ((u128::from(random) * self.entries as u128) >> 64) as usize;
        for subtable in &self.subtables {
            if wanted < subtable.entries {
                let mut slots = subtable.buckets.iter().flat_map(|bucket| &bucket.0).filter(|slot| !slot.is_empty());
                return slots.nth(wanted).map(entry_ref);
            }
            wanted -= subtable.entries;
        }
        None
    }

    /// Visits about `count` entries from `cursor` on and returns where to go on; `None` at the end. Every entry that is
    /// there from the first call to the last is visited at least once, whatever is inserted and removed between.
    pub fn scan(&self, cursor: TableCursor, count: usize, visit: &mut dyn FnMut(EntryRef<'_>)) -> Option<TableCursor> {
        let index = self.subtable_index(u64::from(cursor.range.reverse_bits()));
        let subtable = &self.subtables[index];
        // This subtable covers every range that shares its low `bits` bits, reversed.
        let divided = index < self.split || index >= 1 << self.level;
        let bits = self.level + u32::from(divided);
        let first = if bits < u32::from(cursor.bits) { 0 } else { usize::from(cursor.tag) };
        let entries = subtable.entries.max(1);
        let end = first + ((1usize << 16) * count.clamp(1, entries) / entries).max(1);
        for slot in subtable.slots() {
            if (first..end).contains(&usize::from(slot.tag())) {
                // SAFETY: `slots` gives filled slots only; `&self` keeps the entry in place.
                visit(unsafe { slot.peek() });
            }
        }
        if let Ok(tag) = u16::try_from(end) {
            return Some(TableCursor { range: cursor.range, tag, bits: bits as u8 });
        }
        if bits == 0 {
            return None;
        }
        let covered = u32::MAX >> bits;
        (cursor.range | covered).checked_add(1).map(|range| TableCursor { range, tag: 0, bits: 0 })
    }

    /// Divides the next subtable: linear hashing's step of growth.
    fn split_one(&mut self, hasher: &KeyHasher) {
        let new_bit = 1u64 << self.level;
        let old = std::mem::take(&mut self.subtables[self.split]);
        let half = old.entries / 2 + old.entries / 32;
        let (mut stays, mut moves) = (Subtable::with_room(half), Subtable::with_room(half));
        let mut slots = Vec::with_capacity(old.entries);
        slots.extend(old.slots());
        for (index, &slot) in slots.iter().enumerate() {
            if let Some(ahead) = slots.get(index + 8) {
                prefetch(ahead.pointer());
            }
            // SAFETY: the slot is filled and `old` is not used for anything else.
            let hash = hasher.hash(unsafe { slot.peek() }.key());
            let _ = if hash & new_bit == 0 { stays.insert(slot) } else { moves.insert(slot) };
        }
        let grown = stays.buckets.memory_bytes() + moves.buckets.memory_bytes();
        self.bucket_bytes = self.bucket_bytes + grown - old.buckets.memory_bytes();
        self.subtables[self.split] = stays;
        self.subtables.push(moves);
        self.split += 1;
        if self.split == 1 << self.level {
            self.level += 1;
            self.split = 0;
        }
    }

    /// Joins the last subtable with the one it was divided from.
    fn join_one(&mut self) {
        if self.split == 0 {
            self.level -= 1;
            self.split = 1 << self.level;
        }
        self.split -= 1;
        let Some(last) = self.subtables.pop() else { return };
        let target = &mut self.subtables[self.split];
        let before = target.buckets.memory_bytes() + last.buckets.memory_bytes();
        target.rebuild(target.entries + last.entries);
        for slot in last.slots() {
            target.insert(slot);
        }
        self.bucket_bytes = self.bucket_bytes + target.buckets.memory_bytes() - before;
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        for slot in self.subtables.iter().flat_map(Subtable::slots) {
            // SAFETY: the table is going away, so this is the last use of each slot.
            drop(unsafe { slot.take() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::Value;
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn hasher() -> KeyHasher {
        KeyHasher::new(7)
    }

    fn entry(key: &[u8], version: u64) -> Entry {
        Entry::new(key, Value::Bytes(b"value"), Version(version), 0, None)
    }

    fn number(key: &[u8]) -> u32 {
        u32::from_be_bytes(key.try_into().expect("test keys have four bytes"))
    }

    /// Every entry can be found, and lies where the invariant wants it.
    fn check(table: &Table, hasher: &KeyHasher) {
        let mut seen = 0;
        for entry in table.iter() {
            seen += 1;
            assert_eq!(table.find(hasher.hash(entry.key()), entry.key()).map(|found| found.key()), Some(entry.key()));
        }
        assert_eq!(seen, table.len());
        let bytes = table.subtables.iter().map(|subtable| subtable.buckets.memory_bytes()).sum::<usize>();
        assert_eq!(table.bucket_bytes, bytes);
        for subtable in &table.subtables {
            assert_eq!(subtable.slots().count(), subtable.entries);
            assert!(subtable.entries <= subtable.entries_max());
        }
    }

    #[test]
    fn growth_and_shrinking_keep_every_entry_and_bound_each_step() {
        let (hasher, mut table) = (hasher(), Table::default());
        for n in 0..40_000u32 {
            let key = n.to_be_bytes();
            table.insert(hasher.hash(&key), entry(&key, 1), Mark::Clean, &hasher);
            assert!(table.subtables.iter().all(|s| s.entries < 3 * SUBTABLE_ENTRIES) || n % 1000 != 0);
        }
        check(&table, &hasher);
        let per_key = table.table_bytes() as f64 / table.len() as f64;
        assert!(per_key < 11.5, "{per_key} bytes of table for each key");
        for n in 0..39_900u32 {
            let key = n.to_be_bytes();
            assert!(table.remove(hasher.hash(&key), &key).is_some());
        }
        check(&table, &hasher);
        assert_eq!(table.len(), 100);
        assert!(table.table_bytes() < 8 * 1024, "{}", table.table_bytes());
    }

    #[test]
    fn a_scan_meets_every_entry_that_stays_while_the_table_grows_and_shrinks() {
        let (hasher, mut table) = (hasher(), Table::default());
        let stays: BTreeSet<u32> = (0..3_000).collect();
        for n in 0..12_000u32 {
            table.insert(hasher.hash(&n.to_be_bytes()), entry(&n.to_be_bytes(), 1), Mark::Clean, &hasher);
        }
        let (mut met, mut cursor, mut calls) = (BTreeSet::new(), Some(TableCursor::default()), 0u32);
        while let Some(at) = cursor {
            cursor = table.scan(at, 10, &mut |entry| {
                met.insert(number(entry.key()));
            });
            calls += 1;
            for n in (0..40).map(|n| calls * 40 + n) {
                let (old, new) = ((3_000 + n).to_be_bytes(), (100_000 + n).to_be_bytes());
                table.remove(hasher.hash(&old), &old);
                if calls > 150 {
                    table.insert(hasher.hash(&new), entry(&new, 1), Mark::Clean, &hasher);
                }
            }
        }
        assert!(stays.is_subset(&met), "{} of {} met", met.intersection(&stays).count(), stays.len());
        check(&table, &hasher);
    }

    #[test]
    fn a_scan_that_removes_most_of_what_it_meets_misses_nothing_that_stays() {
        let (hasher, mut table) = (hasher(), Table::default());
        let stays = |n: u32| n.is_multiple_of(50);
        for n in 0..40_000u32 {
            table.insert(hasher.hash(&n.to_be_bytes()), entry(&n.to_be_bytes(), 1), Mark::Clean, &hasher);
        }
        let (mut met, mut cursor, mut waiting) = (BTreeSet::new(), Some(TableCursor::default()), 0..40_000u32);
        while let Some(at) = cursor {
            cursor = table.scan(at, 10, &mut |entry| {
                met.insert(number(entry.key()));
            });
            for n in waiting.by_ref().take(60).filter(|n| !stays(*n)) {
                table.remove(hasher.hash(&n.to_be_bytes()), &n.to_be_bytes());
            }
        }
        let missed = (0..40_000u32).filter(|n| stays(*n) && !met.contains(n)).count();
        assert_eq!(missed, 0);
        assert!(table.subtables.len() < 20, "the table was joined while it was scanned");
    }

    #[test]
    fn a_scan_of_a_table_at_rest_meets_each_entry_once() {
        let (hasher, mut table) = (hasher(), Table::default());
        for n in 0..5_000u32 {
            table.insert(hasher.hash(&n.to_be_bytes()), entry(&n.to_be_bytes(), 1), Mark::Clean, &hasher);
        }
        let (mut met, mut cursor) = (Vec::new(), Some(TableCursor::default()));
        while let Some(at) = cursor {
            cursor = table.scan(at, 7, &mut |entry| met.push(number(entry.key())));
        }
        met.sort_unstable();
        assert_eq!(met, (0..5_000).collect::<Vec<_>>());
    }

    #[test]
    fn every_entry_can_be_drawn_at_random() {
        let (hasher, mut table) = (hasher(), Table::default());
        assert!(table.random(1).is_none());
        for n in 0..50u32 {
            table.insert(hasher.hash(&n.to_be_bytes()), entry(&n.to_be_bytes(), 1), Mark::Clean, &hasher);
        }
        let step = u64::MAX / 50;
        let drawn: BTreeSet<u32> =
            (0..50).filter_map(|n| table.random(n * step + step / 2)).map(|entry| number(entry.key())).collect();
        assert_eq!(drawn.len(), 50);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_table_does_what_a_map_does(changes in proptest::collection::vec((0u32..400, 0u8..4), 0..3000)) {
            let (hasher, mut table, mut model) = (hasher(), Table::with_room(30), BTreeMap::new());
            for (version, (n, what)) in changes.into_iter().enumerate() {
                let (key, version) = (n.to_be_bytes(), version as u64);
                let hash = hasher.hash(&key);
                match what {
                    0 => {
                        let removed = table.remove(hash, &key).map(|(entry, _)| entry.borrow().version().0);
                        prop_assert_eq!(removed, model.remove(&n));
                    }
                    _ => match table.find_mut(hash, &key) {
                        Some(mut found) => {
                            let old = found.replace(entry(&key, version));
                            prop_assert_eq!(Some(old.borrow().version().0), model.insert(n, version));
                        }
                        None => {
                            table.insert(hash, entry(&key, version), Mark::Clean, &hasher);
                            prop_assert_eq!(model.insert(n, version), None);
                        }
                    },
                }
            }
            check(&table, &hasher);
            let found: BTreeMap<u32, u64> =
                table.iter().map(|entry| (number(entry.key()), entry.version().0)).collect();
            prop_assert_eq!(found, model);
            prop_assert_eq!(table.entry_bytes(), table.iter().map(EntryRef::allocated_bytes).sum::<usize>());
        }
    }
}
