//! Merging changes into the leaves of one database's index.
//!
//! ```text
//!   old leaves    [ a ][ b ][ c ][ d ][ e ]        changes, ascending:   b'  b''   d'
//!                   |    |    |    |    |
//!                pass  read pass  read pass        a leaf that no change falls into is kept as it is
//!                   |    |    |    |    |
//!   new leaves    [ a ][ b1 ][ b2 ][ c ][ d1 ][ e ]
//! ```
//!
//! Leaf i holds the hashes from its first to the first of leaf i + 1; what is below the first leaf belongs to it too.
//! Leaves that follow each other and are all changed are packed full; a single one that overflows is divided in two; one
//! that became small is joined with the next. When space is short (`tight`) a leaf that overflows is divided among eight.
//! The merge stops between two ranges of hashes and goes on where it was, with at most a few leaves in memory.
//!
//! A change that removes or replaces names an entry by hash and fingerprint. The fingerprints of the entries that are
//! there stand in their records, which are read only where the hash alone does not decide.
//!
//! Not here: where leaves are written and what is done with a record that is not named any more (`LeafStore`).

use std::collections::VecDeque;
use std::sync::Arc;

use super::format::leaf::{IndexEntry, capacity_min, fitting};
use super::format::manifest::LeafRef;
use crate::error::Result;

/// So many leaves that are changed together are divided evenly, further ones are packed.
const DIVIDED: usize = 2;
/// The same when space is short: a full leaf then takes its neighbours' gaps.
const DIVIDED_TIGHT: usize = 8;

/// What a change does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChangeKind {
    /// Removes the old entry of the key, if there is one.
    Remove,
    /// Names the key's new record in place of its old entry. `stored`: there is one.
    Put { stored: bool },
    /// Names the copy of a record instead of the record in block `from`, if that one is still named.
    Move { from: u32 },
}

/// A change of the index.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    pub(crate) database: u32,
    pub(crate) hash: u64,
    pub(crate) fingerprint: u64,
    pub(crate) kind: ChangeKind,
    /// The new record, except for a removal.
    pub(crate) block: u32,
    pub(crate) size_code: u8,
}

impl Change {
    fn entry(&self) -> IndexEntry {
        IndexEntry { hash: self.hash, block: self.block, size_code: self.size_code }
    }

    /// Whether it is about a key, not only about the place of a record.
    fn names_key(&self) -> bool {
        !matches!(self.kind, ChangeKind::Move { .. })
    }
}

/// Where leaves come from and go to.
pub(crate) trait LeafStore {
    /// Appends the entries of a leaf of the checkpoint before.
    fn read_leaf(&mut self, database: u32, leaf: &LeafRef, entries: &mut VecDeque<IndexEntry>) -> Result<()>;
    /// Writes a leaf.
    fn write_leaf(&mut self, database: u32, entries: &[IndexEntry]) -> Result<LeafRef>;
    /// A leaf of the checkpoint before is no part of this one.
    fn free_leaf(&mut self, leaf: &LeafRef);
    /// The fingerprint of the key of a record of the checkpoint before.
    fn fingerprint(&mut self, entry: &IndexEntry) -> Result<u64>;
    /// A record is not named any more.
    fn release(&mut self, entry: &IndexEntry) -> Result<()>;
    /// A record is not named any more, a copy of it is.
    fn release_moved(&mut self, entry: &IndexEntry) -> Result<()>;
}

/// How a merge treats the leaves it writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MergeOptions {
    pub(crate) block_bytes: usize,
    /// Pack leaves as full as possible.
    pub(crate) tight: bool,
    /// Do not believe that a key is stored; look.
    pub(crate) verify: bool,
    /// Leaves from this block on are written again, so that the file can become shorter.
    pub(crate) move_from: u32,
}

/// The merge of changes into one database, between two ranges.
pub(crate) struct Merge {
    database: u32,
    options: MergeOptions,
    old: Arc<Vec<LeafRef>>,
    /// The first old leaf that is neither read nor kept.
    next: usize,
    /// Entries of the old leaf that the merge stands in, not yet passed.
    loaded: VecDeque<IndexEntry>,
    /// Entries that go into the next new leaves.
    open: Vec<IndexEntry>,
    new: Vec<LeafRef>,
}

impl Merge {
    pub(crate) fn new(database: u32, old: Arc<Vec<LeafRef>>, options: MergeOptions) -> Merge {
        let (loaded, open, new) = (VecDeque::new(), Vec::new(), Vec::with_capacity(old.len()));
        Merge { database, options, old, next: 0, loaded, open, new }
    }

    /// Merges changes, in order of their hashes and above all that came before.
    pub(crate) fn apply(&mut self, changes: &[Change], store: &mut dyn LeafStore) -> Result<()> {
        for group in changes.chunk_by(|a, b| a.hash == b.hash) {
            let Some(hash) = group.first().map(|change| change.hash) else {
                continue;
            };
            self.advance(hash, store)?;
            let old = self.take_equal(hash, store)?;
            let new = resolve(old, group, self.options.verify, store)?;
            self.open.extend_from_slice(&new);
            self.write_full(store)?;
        }
        Ok(())
    }

    /// Merges the rest of the old leaves; returns the new ones.
    pub(crate) fn finish(mut self, store: &mut dyn LeafStore) -> Result<Vec<LeafRef>> {
        loop {
            self.open.extend(self.loaded.drain(..));
            self.write_full(store)?;
            if !self.pass_next(store)? {
                self.close(store)?;
                return Ok(self.new);
            }
        }
    }

    /// Passes every old entry below `hash`, and reads the leaf that `hash` belongs to.
    fn advance(&mut self, hash: u64, store: &mut dyn LeafStore) -> Result<()> {
        loop {
            while let Some(entry) = self.loaded.pop_front_if(|entry| entry.hash < hash) {
                self.open.push(entry);
            }
            self.write_full(store)?;
            if !self.loaded.is_empty() {
                return Ok(());
            }
            if self.old.get(self.next).is_none_or(|leaf| leaf.first_hash > hash) {
                return Ok(());
            }
            let is_before = self.old.get(self.next + 1).is_some_and(|after| after.first_hash < hash);
            if is_before {
                self.pass_next(store)?;
            } else {
                self.load_next(store)?;
            }
        }
    }

    /// Keeps the next old leaf, in which nothing changes, or reads it where it has to be written again; whether there
    /// was one.
    fn pass_next(&mut self, store: &mut dyn LeafStore) -> Result<bool> {
        match self.old.get(self.next).copied() {
            Some(leaf) if !self.wants_more() && leaf.at.block < self.options.move_from => {
                self.close(store)?;
                self.new.push(leaf);
                self.next += 1;
                Ok(true)
            }
            _ => self.load_next(store),
        }
    }

    /// Takes the old entries of `hash` out, also where they go on in the next leaf.
    fn take_equal(&mut self, hash: u64, store: &mut dyn LeafStore) -> Result<Vec<IndexEntry>> {
        let mut equal = Vec::new();
        loop {
            while let Some(entry) = self.loaded.pop_front_if(|entry| entry.hash == hash) {
                equal.push(entry);
            }
            let goes_on = self.old.get(self.next).is_some_and(|leaf| leaf.first_hash <= hash);
            if !self.loaded.is_empty() || !goes_on {
                return Ok(equal);
            }
            self.load_next(store)?;
        }
    }

    /// Reads the next old leaf; whether there was one.
    fn load_next(&mut self, store: &mut dyn LeafStore) -> Result<bool> {
        let Some(leaf) = self.old.get(self.next) else {
            return Ok(false);
        };
        store.read_leaf(self.database, leaf, &mut self.loaded)?;
        store.free_leaf(leaf);
        self.next += 1;
        Ok(true)
    }

    /// Whether what has been gathered would leave too small a leaf.
    fn wants_more(&self) -> bool {
        let capacity = capacity_min(self.options.block_bytes);
        let gathered = self.open.len();
        if self.options.tight {
            gathered < self.gathered_max() && (1..capacity * 3 / 4).contains(&(gathered % capacity))
        } else {
            (1..capacity / 4).contains(&gathered)
        }
    }

    /// Most entries that are divided evenly among leaves; more are packed.
    fn gathered_max(&self) -> usize {
        let leaves = if self.options.tight { DIVIDED_TIGHT } else { DIVIDED };
        leaves * capacity_min(self.options.block_bytes)
    }

    /// Writes full leaves when more has been gathered than may still be divided.
    fn write_full(&mut self, store: &mut dyn LeafStore) -> Result<()> {
        let divided = self.gathered_max();
        // Moving the rest to the front is worth it only now and then.
        if self.open.len() >= 2 * divided {
            while self.open.len() > divided {
                self.write_first(self.open.len(), store)?;
            }
        }
        Ok(())
    }

    /// Writes what has been gathered, in leaves of about the same size: the next old leaf is kept as it is.
    fn close(&mut self, store: &mut dyn LeafStore) -> Result<()> {
        while self.open.len() > self.gathered_max() {
            self.write_first(self.open.len(), store)?;
        }
        while !self.open.is_empty() {
            let leaves = self.open.len().div_ceil(fitting(self.options.block_bytes, &self.open));
            self.write_first(self.open.len().div_ceil(leaves), store)?;
        }
        Ok(())
    }

    /// Writes a leaf of the first `count` entries, or as many as fit.
    fn write_first(&mut self, count: usize, store: &mut dyn LeafStore) -> Result<()> {
        let count = count.min(fitting(self.options.block_bytes, &self.open));
        self.new.push(store.write_leaf(self.database, self.open.get(..count).unwrap_or_default())?);
        self.open.drain(..count);
        Ok(())
    }
}

/// What the changes of one hash make of the old entries of that hash.
fn resolve(
    mut old: Vec<IndexEntry>,
    changes: &[Change],
    verify: bool,
    store: &mut dyn LeafStore,
) -> Result<Vec<IndexEntry>> {
    let named: Vec<&Change> = changes.iter().filter(|change| change.names_key()).collect();
    if let (Some(first), false) = (named.first(), old.is_empty()) {
        let one_key = named.iter().all(|change| change.fingerprint == first.fingerprint);
        let is_stored = named.iter().any(|change| change.kind != ChangeKind::Put { stored: false });
        if old.len() == 1 && one_key && is_stored && !verify {
            release_all(&mut old, store)?;
        } else {
            let mut others = Vec::new();
            for entry in old {
                let fingerprint = store.fingerprint(&entry)?;
                if named.iter().any(|change| change.fingerprint == fingerprint) {
                    store.release(&entry)?;
                } else {
                    others.push(entry);
                }
            }
            old = others;
        }
    }
    for (place, change) in named.iter().enumerate() {
        if matches!(change.kind, ChangeKind::Put { .. }) {
            let mut later = named.iter().skip(place + 1);
            let is_last = !later
                .any(|other| other.fingerprint == change.fingerprint && matches!(other.kind, ChangeKind::Put { .. }));
            if is_last { old.push(change.entry()) } else { store.release(&change.entry())? }
        }
    }
    for change in changes {
        if let ChangeKind::Move { from } = change.kind {
            match old.iter_mut().find(|entry| entry.block == from) {
                Some(entry) => store.release_moved(&std::mem::replace(entry, change.entry()))?,
                None => store.release_moved(&change.entry())?,
            }
        }
    }
    Ok(old)
}

fn release_all(entries: &mut Vec<IndexEntry>, store: &mut dyn LeafStore) -> Result<()> {
    for entry in entries.drain(..) {
        store.release(&entry)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::format::leaf;
    use crate::blocks::format::manifest::BlockRef;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    const BLOCK_BYTES: usize = 4096;

    /// Leaves and the fingerprints of records, in memory.
    #[derive(Default)]
    struct Memory {
        leaves: BTreeMap<u32, Vec<u8>>,
        next_leaf: u32,
        /// Fingerprint of the key of each record that has not been released.
        records: BTreeMap<u32, u64>,
        next_record: u32,
        fingerprints_read: usize,
        leaves_read: usize,
    }

    impl LeafStore for Memory {
        fn read_leaf(&mut self, database: u32, leaf: &LeafRef, entries: &mut VecDeque<IndexEntry>) -> Result<()> {
            let mut read = Vec::new();
            leaf::decode(&self.leaves[&leaf.at.block], leaf.at.block, database, &mut read).expect("a leaf");
            assert_eq!((read.len(), read[0].hash), (usize::from(leaf.entries), leaf.first_hash));
            entries.extend(read);
            self.leaves_read += 1;
            Ok(())
        }

        fn write_leaf(&mut self, database: u32, entries: &[IndexEntry]) -> Result<LeafRef> {
            self.next_leaf += 1;
            let block = self.next_leaf;
            self.leaves.insert(block, leaf::encode(BLOCK_BYTES, block, 1, database, entries));
            let (first_hash, at) = (entries[0].hash, BlockRef { block, crc: 0 });
            Ok(LeafRef { first_hash, at, entries: entries.len() as u16 })
        }

        fn free_leaf(&mut self, leaf: &LeafRef) {
            assert!(self.leaves.remove(&leaf.at.block).is_some(), "a leaf is freed once");
        }

        fn fingerprint(&mut self, entry: &IndexEntry) -> Result<u64> {
            self.fingerprints_read += 1;
            Ok(self.records[&entry.block])
        }

        fn release(&mut self, entry: &IndexEntry) -> Result<()> {
            assert!(self.records.remove(&entry.block).is_some(), "a record is released once");
            Ok(())
        }

        fn release_moved(&mut self, entry: &IndexEntry) -> Result<()> {
            self.release(entry)
        }
    }

    impl Memory {
        fn record(&mut self, fingerprint: u64) -> u32 {
            self.next_record += 1;
            self.records.insert(self.next_record, fingerprint);
            self.next_record
        }

        fn change(&mut self, hash: u64, fingerprint: u64, kind: ChangeKind) -> Change {
            let block = if kind == ChangeKind::Remove { 0 } else { self.record(fingerprint) };
            Change { database: 7, hash, fingerprint, kind, block, size_code: 1 }
        }

        fn merge(
            &mut self,
            old: &Arc<Vec<LeafRef>>,
            options: MergeOptions,
            ranges: &[Vec<Change>],
        ) -> Arc<Vec<LeafRef>> {
            let mut merge = Merge::new(7, Arc::clone(old), options);
            for range in ranges {
                merge.apply(range, self).expect("memory");
            }
            Arc::new(merge.finish(self).expect("memory"))
        }

        fn entries(&mut self, leaves: &[LeafRef]) -> Vec<IndexEntry> {
            assert_eq!(leaves.len(), self.leaves.len(), "leaves are leaked or lost");
            let mut entries = VecDeque::new();
            for leaf in leaves {
                self.read_leaf(7, leaf, &mut entries).expect("memory");
            }
            assert!(entries.iter().is_sorted_by_key(|entry| entry.hash));
            entries.into()
        }
    }

    fn options() -> MergeOptions {
        MergeOptions { block_bytes: BLOCK_BYTES, tight: false, verify: false, move_from: u32::MAX }
    }

    fn spread(place: u64) -> u64 {
        place.wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }

    fn filled(memory: &mut Memory, count: u64) -> Arc<Vec<LeafRef>> {
        let mut hashes: Vec<u64> = (0..count).map(spread).collect();
        hashes.sort_unstable();
        let puts: Vec<Change> =
            hashes.iter().map(|hash| memory.change(*hash, *hash, ChangeKind::Put { stored: false })).collect();
        memory.merge(&Arc::default(), options(), &[puts])
    }

    #[test]
    fn leaves_filled_at_once_are_full() {
        let mut memory = Memory::default();
        let leaves = filled(&mut memory, 100_000);
        let least = capacity_min(BLOCK_BYTES);
        let not_full = leaves.iter().filter(|leaf| usize::from(leaf.entries) < least).count();
        assert!(not_full <= 3, "{not_full} leaves of {} are not full", leaves.len());
    }

    #[test]
    fn a_leaf_without_a_change_is_neither_read_nor_written() {
        let mut memory = Memory::default();
        let leaves = filled(&mut memory, 10_000);
        memory.leaves_read = 0;
        let hash = leaves[5].first_hash + 1;
        let put = memory.change(hash, 1, ChangeKind::Put { stored: false });
        let changed = memory.merge(&leaves, options(), &[vec![put]]);
        assert_eq!(memory.leaves_read, 1);
        let kept = leaves.iter().filter(|leaf| changed.contains(leaf)).count();
        assert_eq!((kept, changed.len()), (leaves.len() - 1, leaves.len() + 1));
        let halves = [changed[5].entries, changed[6].entries];
        assert!(halves[0].abs_diff(halves[1]) <= 1, "{halves:?}");
    }

    #[test]
    fn a_replaced_key_is_not_read_when_its_hash_decides() {
        let mut memory = Memory::default();
        let leaves = filled(&mut memory, 1000);
        let hash = leaves[0].first_hash;
        let changes = vec![memory.change(hash, hash, ChangeKind::Put { stored: true })];
        let leaves = memory.merge(&leaves, options(), &[changes]);
        assert_eq!(memory.fingerprints_read, 0);
        let verify = MergeOptions { verify: true, ..options() };
        let changes = vec![memory.change(hash, 5, ChangeKind::Put { stored: true })];
        let leaves = memory.merge(&leaves, verify, &[changes]);
        assert_eq!((memory.fingerprints_read, memory.entries(&leaves).len()), (1, 1001));
    }

    #[test]
    fn leaves_that_lose_nearly_all_are_joined() {
        let mut memory = Memory::default();
        let mut leaves = filled(&mut memory, 10_000);
        let count = leaves.len();
        let mut hashes: Vec<u64> = (0..10_000).map(spread).filter(|hash| hash % 50 != 0).collect();
        hashes.sort_unstable();
        let removals = hashes.iter().map(|hash| memory.change(*hash, *hash, ChangeKind::Remove)).collect();
        leaves = memory.merge(&leaves, options(), &[removals]);
        assert!(leaves.len() <= 2, "{} of {count} leaves left", leaves.len());
        assert_eq!(memory.entries(&leaves).len(), memory.records.len());
    }

    #[test]
    fn tight_leaves_stay_full_under_single_inserts() {
        let mut memory = Memory::default();
        let mut leaves = filled(&mut memory, 20_000);
        let (tight, count) = (MergeOptions { tight: true, ..options() }, leaves.len());
        for round in 0..200 {
            let hash = spread(1_000_000 + round);
            let put = memory.change(hash, hash, ChangeKind::Put { stored: false });
            leaves = memory.merge(&leaves, tight, &[vec![put]]);
        }
        assert!(leaves.len() <= count * 6 / 5, "{count} leaves became {}", leaves.len());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Put(u16),
        Remove(u16),
        /// The file was said not to have the key, or to have it.
        PutWrongly(u16),
        Move(u16),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => any::<u16>().prop_map(Step::Put),
            3 => any::<u16>().prop_map(Step::Remove),
            1 => any::<u16>().prop_map(Step::PutWrongly),
            2 => any::<u16>().prop_map(Step::Move),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn the_index_equals_a_map(
            rounds in prop::collection::vec(prop::collection::vec(step(), 0..600), 1..8),
            hash_bits in prop_oneof![Just(1u32), Just(4), Just(9), Just(40)], tight: bool, ranges in 1usize..5,
        ) {
            // Fingerprints are the keys; hashes are so weak that many keys share one.
            let hash_of = |key: u16| spread(u64::from(key)) >> (64 - hash_bits) << 7;
            let mut memory = Memory::default();
            let mut model: BTreeMap<u16, u32> = BTreeMap::new();
            let mut leaves = Arc::new(Vec::new());
            for steps in rounds {
                let mut changes = Vec::new();
                let mut seen = BTreeSet::new();
                let before = model.clone();
                let mut verify = false;
                for step in steps {
                    let (Step::Put(key) | Step::Remove(key) | Step::PutWrongly(key) | Step::Move(key)) = step;
                    let (hash, fingerprint) = (hash_of(key), u64::from(key));
                    match step {
                        _ if !seen.insert(key) => continue,
                        Step::Put(_) | Step::PutWrongly(_) => {
                            let wrong = matches!(step, Step::PutWrongly(_));
                            verify |= wrong;
                            let stored = before.contains_key(&key) != wrong;
                            let change = memory.change(hash, fingerprint, ChangeKind::Put { stored });
                            model.insert(key, change.block);
                            changes.push(change);
                        }
                        Step::Remove(_) => {
                            verify |= !before.contains_key(&key);
                            model.remove(&key);
                            changes.push(memory.change(hash, fingerprint, ChangeKind::Remove));
                        }
                        Step::Move(_) => {
                            let from = before.get(&key).copied().unwrap_or(u32::MAX);
                            let change = memory.change(hash, fingerprint, ChangeKind::Move { from });
                            model.entry(key).and_modify(|block| *block = change.block);
                            changes.push(change);
                        }
                    }
                }
                changes.sort_by_key(|change| change.hash);
                let cut = changes.len() / ranges;
                let mut parts: Vec<Vec<Change>> = Vec::new();
                for group in changes.chunk_by(|a, b| a.hash == b.hash) {
                    match parts.last_mut() {
                        Some(part) if part.len() < cut => part.extend_from_slice(group),
                        _ => parts.push(group.to_vec()),
                    }
                }
                leaves = memory.merge(&leaves, MergeOptions { tight, verify, ..options() }, &parts);
                let named: BTreeSet<(u64, u32)> =
                    memory.entries(&leaves).iter().map(|entry| (entry.hash, entry.block)).collect();
                let wanted: BTreeSet<(u64, u32)> = model.iter().map(|(key, block)| (hash_of(*key), *block)).collect();
                prop_assert_eq!(named, wanted);
                prop_assert_eq!(memory.records.len(), model.len(), "records are leaked");
            }
        }
    }
}
