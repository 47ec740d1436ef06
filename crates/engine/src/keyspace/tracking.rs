//! What a table notes for checkpoints beside the marks of its entries: old states handed over, removals, and counts.
//!
//! Removals are kept in pieces of a fixed size, so that noting one never moves the others and lists are joined without
//! copying. Not here: which entries are taken and when (`segment`, `checkpoint`).

use super::checkpoint::{HandedEntries, Removal};
use super::database::DatabaseId;
use super::entry::Entry;
use super::hash::KeyHasher;
use super::mark::{Generation, Mark, Outcome, Record};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Figures about all tables together.
#[derive(Default)]
pub(super) struct Counters {
    /// Of entries and tables, as of the last hold of each segment.
    pub(super) data_bytes: AtomicUsize,
    /// The others are kept for checkpoints.
    pub(super) handed_bytes: AtomicUsize,
    pub(super) removal_bytes: AtomicUsize,
    pub(super) touched_bytes: AtomicU64,
    /// Entries whose value is in the block file only.
    pub(super) cold: AtomicUsize,
}

impl Counters {
    /// Notes that the tables of a segment take `now` bytes, where they took `before`.
    pub(super) fn note_data_bytes(&self, before: usize, now: usize) {
        // Differences wrap around and come out right in sum.
        self.data_bytes.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
    }
}

/// An entry as it was at the cut, kept because a writer changed it before it was taken.
pub(super) struct Handed {
    pub(super) hash: u64,
    pub(super) entry: Entry,
    pub(super) stored: bool,
}

/// Removals in one piece of a list.
const PIECE: usize = 1024;

/// Removals, in pieces.
#[derive(Default)]
pub(super) struct RemovalList {
    pieces: Vec<Vec<Removal>>,
}

impl RemovalList {
    fn len(&self) -> usize {
        self.pieces.iter().map(Vec::len).sum()
    }

    fn bytes(&self) -> usize {
        self.pieces.iter().map(|piece| piece.capacity() * size_of::<Removal>()).sum()
    }

    /// Adds a removal; returns by how many bytes the list grew.
    fn push(&mut self, removal: Removal) -> usize {
        if self.pieces.last().is_none_or(|piece| piece.len() >= PIECE) {
            self.pieces.push(Vec::new());
        }
        let Some(piece) = self.pieces.last_mut() else { unreachable!("a piece has just been added") };
        let before = piece.capacity();
        piece.push(removal);
        (piece.capacity() - before) * size_of::<Removal>()
    }

    fn append(&mut self, mut other: RemovalList) {
        self.pieces.append(&mut other.pieces);
    }
}

/// What a table notes for checkpoints.
pub(super) struct Tracking {
    counters: Arc<Counters>,
    /// The table's own: it has meaning only against the marks in this table.
    pub(super) generation: Generation,
    /// Entries that have changed since the last cut.
    dirty: usize,
    /// Entries of the cut that are neither taken nor handed over.
    cut: usize,
    handed: Vec<Handed>,
    handed_bytes: usize,
    /// Long values were taken by sharing their chunks, and the checkpoint has not come by since.
    is_shared: bool,
    /// Records without a key, noted since the last cut.
    removals: RemovalList,
    /// The same for records that exist if the running checkpoint is published.
    removals_if_published: RemovalList,
    /// The removals that the running checkpoint takes. They stay until it is settled.
    removals_cut: RemovalList,
    /// How many pieces of those it has taken.
    pieces_taken: usize,
    /// Entries whose value is cold. They are clean.
    cold: usize,
}

impl Tracking {
    pub(super) fn new(counters: Arc<Counters>) -> Tracking {
        Tracking {
            counters,
            generation: Generation::default(),
            dirty: 0,
            cut: 0,
            handed: Vec::new(),
            handed_bytes: 0,
            is_shared: false,
            removals: RemovalList::default(),
            removals_if_published: RemovalList::default(),
            removals_cut: RemovalList::default(),
            pieces_taken: 0,
            cold: 0,
        }
    }

    /// Entries whose value is cold.
    pub(super) fn cold(&self) -> usize {
        self.cold
    }

    /// Notes that an entry has a cold value now.
    pub(super) fn became_cold(&mut self) {
        self.cold += 1;
        self.counters.cold.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that an entry with a cold value is gone, or has a value in memory.
    #[cold]
    pub(super) fn is_cold_no_more(&mut self) {
        self.cold -= 1;
        self.counters.cold.fetch_sub(1, Ordering::Relaxed);
    }

    /// Entries that have changed since the last cut.
    pub(super) fn dirty(&self) -> usize {
        self.dirty
    }

    /// Removals noted since the last cut.
    pub(super) fn removals(&self) -> usize {
        self.removals.len() + self.removals_if_published.len()
    }

    /// The mark of an entry whose key was not there before.
    #[inline]
    pub(super) fn inserted(&mut self) -> Mark {
        self.dirty += 1;
        Mark::dirty(self.generation, Record::None)
    }

    /// The mark of an entry that had this one and has changed. A cut entry must have been handed over. Not inlined: where
    /// an entry is dirty already, callers in a hurry need not call it.
    #[inline(never)]
    pub(super) fn changed(&mut self, mark: Mark) -> Mark {
        self.dirty += usize::from(!mark.is_dirty(self.generation));
        self.cut -= usize::from(mark.is_cut(self.generation));
        mark.changed(self.generation)
    }

    /// Notes that an entry of so many bytes becomes dirty by a change of which the log holds less.
    pub(super) fn touched(&self, bytes: usize) {
        self.counters.touched_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Notes that an entry with this mark is gone. A cut entry must have been handed over.
    pub(super) fn removed(&mut self, hash: u64, key: &[u8], mark: Mark, hasher: &KeyHasher) {
        self.dirty -= usize::from(mark.is_dirty(self.generation));
        self.cut -= usize::from(mark.is_cut(self.generation));
        let list = match mark.record(self.generation) {
            Record::None => return,
            Record::Stored => &mut self.removals,
            Record::IfPublished => &mut self.removals_if_published,
        };
        let grown = list.push(Removal { hash, fingerprint: hasher.fingerprint(key) });
        if grown > 0 {
            self.counters.removal_bytes.fetch_add(grown, Ordering::Relaxed);
        }
    }

    /// Keeps what a cut entry with this mark was: `bytes` of memory that would not be needed otherwise.
    #[cold]
    pub(super) fn hand_over(&mut self, hash: u64, entry: Entry, bytes: usize, mark: Mark) {
        let bytes = bytes + size_of::<Handed>();
        self.handed.push(Handed { hash, entry, stored: mark.is_stored() });
        self.handed_bytes += bytes;
        self.counters.handed_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Notes that so many bytes of shared chunks were copied by a change. Where a checkpoint has yet to come by here, it may
    /// be what keeps the others: they count as handed over until then.
    #[cold]
    pub(super) fn copied(&mut self, bytes: usize) {
        if self.has_cut() || self.is_shared {
            self.handed_bytes += bytes;
            self.counters.handed_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Notes that a checkpoint has taken a long value by sharing its chunks. It comes by again when it has written it.
    pub(super) fn shared(&mut self) {
        self.is_shared = true;
    }

    /// Begins the next generation. Returns whether anything is left to take.
    pub(super) fn begin_generation(&mut self) -> bool {
        assert!(self.cut == 0 && self.removals_cut.pieces.is_empty(), "a cut comes when the last one is settled");
        self.generation = self.generation.next();
        self.cut = std::mem::take(&mut self.dirty);
        self.removals_cut = std::mem::take(&mut self.removals);
        self.pieces_taken = 0;
        self.has_cut()
    }

    /// Whether anything of the cut is left to take.
    pub(super) fn has_cut(&self) -> bool {
        self.has_cut_entries() || !self.handed.is_empty() || self.pieces_taken < self.removals_cut.pieces.len()
    }

    /// Whether entries of the cut are left to take from the table.
    pub(super) fn has_cut_entries(&self) -> bool {
        self.cut > 0
    }

    /// Entries of the cut that are left to take from the table.
    #[cfg(test)]
    pub(super) fn cut_entries(&self) -> usize {
        self.cut
    }

    /// Notes that a cut entry was taken.
    pub(super) fn took(&mut self, mark: Mark) -> Mark {
        self.cut -= 1;
        mark.taken()
    }

    /// Takes what was handed over.
    pub(super) fn take_handed(&mut self, database: DatabaseId) -> HandedEntries {
        let entries = std::mem::take(&mut self.handed);
        self.is_shared = false;
        HandedEntries::new(database, entries, std::mem::take(&mut self.handed_bytes), self.counters.clone())
    }

    /// Takes the next piece of the removals.
    pub(super) fn take_removals(&mut self) -> Option<&[Removal]> {
        let piece = self.removals_cut.pieces.get(self.pieces_taken)?;
        self.pieces_taken += 1;
        Some(piece)
    }

    /// The mark of an entry now that the checkpoint has ended.
    pub(super) fn settled(&mut self, mark: Mark, outcome: Outcome) -> Mark {
        let settled = mark.settled(self.generation, outcome);
        self.cut -= usize::from(mark.is_cut(self.generation));
        self.dirty += usize::from(settled.is_dirty(self.generation));
        self.dirty -= usize::from(mark.is_dirty(self.generation));
        settled
    }

    /// The mark of an entry whose record in the file, if it has one, is given up.
    pub(super) fn forgotten(&mut self, mark: Mark) -> Mark {
        self.dirty += usize::from(!mark.is_dirty(self.generation));
        Mark::dirty(self.generation, Record::None)
    }

    /// Gives up the records without a key.
    pub(super) fn forget_removals(&mut self) {
        self.counters.removal_bytes.fetch_sub(self.removal_bytes(), Ordering::Relaxed);
        self.removals = RemovalList::default();
    }

    /// Settles the removals; every mark has been settled before.
    pub(super) fn settle_removals(&mut self, outcome: Outcome) {
        assert!(self.cut == 0, "every mark was settled");
        let bytes_before = self.removal_bytes();
        let cut = std::mem::take(&mut self.removals_cut);
        let if_published = std::mem::take(&mut self.removals_if_published);
        match outcome {
            Outcome::Published => {
                assert!(
                    self.pieces_taken == cut.pieces.len(),
                    "a checkpoint is published when all of the cut is taken"
                );
                self.removals.append(if_published);
            }
            Outcome::Failed => self.removals.append(cut),
        }
        self.pieces_taken = 0;
        self.counters.removal_bytes.fetch_sub(bytes_before - self.removal_bytes(), Ordering::Relaxed);
    }

    fn removal_bytes(&self) -> usize {
        self.removals.bytes() + self.removals_if_published.bytes() + self.removals_cut.bytes()
    }
}

impl Drop for Tracking {
    fn drop(&mut self) {
        self.counters.removal_bytes.fetch_sub(self.removal_bytes(), Ordering::Relaxed);
        self.counters.handed_bytes.fetch_sub(self.handed_bytes, Ordering::Relaxed);
        self.counters.cold.fetch_sub(self.cold, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracking() -> (Arc<Counters>, Tracking) {
        let counters = Arc::new(Counters::default());
        (counters.clone(), Tracking::new(counters))
    }

    /// Notes that these keys, which the file has, are gone.
    fn remove(tracking: &mut Tracking, numbers: std::ops::Range<u64>, mark: Mark) {
        for number in numbers {
            tracking.removed(number, &number.to_le_bytes(), mark, &KeyHasher::new(1));
        }
    }

    fn take(tracking: &mut Tracking) -> Vec<u64> {
        let mut taken = Vec::new();
        while let Some(piece) = tracking.take_removals() {
            taken.extend(piece.iter().map(|removal| removal.hash));
        }
        taken.sort_unstable();
        taken
    }

    #[test]
    fn removals_of_a_failed_checkpoint_come_with_the_next_one() {
        let (counters, mut tracking) = tracking();
        remove(&mut tracking, 0..3000, Mark::Clean);
        assert!(tracking.begin_generation());
        remove(&mut tracking, 3000..3010, Mark::Taken);
        remove(&mut tracking, 9000..9010, Mark::TakenNew);
        assert_eq!(take(&mut tracking), (0..3000).collect::<Vec<_>>());
        tracking.settle_removals(Outcome::Failed);
        assert!(tracking.begin_generation());
        assert_eq!(
            take(&mut tracking),
            (0..3010).collect::<Vec<_>>(),
            "records that were never published are not named"
        );
        tracking.settle_removals(Outcome::Published);
        assert_eq!((tracking.removals(), counters.removal_bytes.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn removals_of_what_the_running_checkpoint_writes_come_with_the_next_one_if_it_is_published() {
        let (counters, mut tracking) = tracking();
        assert!(!tracking.begin_generation());
        remove(&mut tracking, 0..5, Mark::TakenNew);
        tracking.settle_removals(Outcome::Published);
        assert!(tracking.begin_generation());
        assert_eq!(take(&mut tracking), [0, 1, 2, 3, 4]);
        assert!(counters.removal_bytes.load(Ordering::Relaxed) >= 80);
        drop(tracking);
        assert_eq!(counters.removal_bytes.load(Ordering::Relaxed), 0);
    }
}
