//! A small open-addressing table of slots, of which the table has many.
//!
//! ```text
//!  buckets of 64 bytes: 8 slots (see `slot`); home bucket = tag * buckets / 65536, then the next ones
//! ```
//!
//! It grows by a page of buckets (see `buckets`), an empty one has none. Its entries' homes follow from their tags, so moving
//! them inside it reads no entry. A lookup touches one bucket and one entry in nearly all cases.
//!
//! Invariant: between an entry's home bucket and the bucket it lies in, all buckets are full. So a lookup ends at the first
//! bucket with an empty slot. A removal repairs the invariant by moving later entries back.
//!
//! Not here: which subtable an entry belongs to, and dropping entries that are still there (`table`).
#![allow(unsafe_code)]

use super::buckets::{Buckets, PAGE_SLOTS};
use super::entry::{Entry, EntryRef};
use super::mark::Mark;
use super::slot::{SLOTS, Slot};

/// Where a slot lies in a subtable.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) bucket: usize,
    pub(super) slot: usize,
}

/// Most entries that are put into a page: fifteen sixteenths of its slots. A lookup then ends in its first bucket in most
/// cases, and in the next one in nearly all others.
const PAGE_ENTRIES: usize = PAGE_SLOTS * 15 / 16;

/// See the head of this file.
#[derive(Default)]
pub(super) struct Subtable {
    pub(super) buckets: Buckets,
    pub(super) entries: usize,
}

impl Subtable {
    pub(super) fn with_room(entries: usize) -> Subtable {
        Subtable { buckets: Buckets::of_pages(entries.div_ceil(PAGE_ENTRIES)), entries: 0 }
    }

    /// Most entries before it grows.
    pub(super) fn entries_max(&self) -> usize {
        self.buckets.slots() / PAGE_SLOTS * PAGE_ENTRIES
    }

    pub(super) fn home(&self, tag: u16) -> usize {
        (usize::from(tag) * self.buckets.len()) >> 16
    }

    fn after(&self, bucket: usize) -> usize {
        if bucket + 1 == self.buckets.len() { 0 } else { bucket + 1 }
    }

    /// How many buckets lie from `from` on to `to`, going round.
    fn distance(&self, from: usize, to: usize) -> usize {
        if to >= from { to - from } else { to + self.buckets.len() - from }
    }

    /// The place of the first entry with `tag` for which `is_it` holds.
    #[inline]
    pub(super) fn find(&self, tag: u16, mut is_it: impl FnMut(EntryRef<'_>) -> bool) -> Option<Place> {
        let mut index = self.home(tag);
        for _ in 0..self.buckets.len() {
            let bucket = self.buckets.get(index)?;
            let mut bits = bucket.matches(tag);
            while bits != 0 {
                let slot = bits.trailing_zeros() as usize;
                // SAFETY: `matches` names filled slots only; `&self` keeps the entry in place.
                let entry = unsafe { bucket.0[slot].peek() };
                if is_it(entry) {
                    return Some(Place { bucket: index, slot });
                }
                bits &= bits - 1;
            }
            if !bucket.is_full() {
                return None;
            }
            index = self.after(index);
        }
        None
    }

    /// Puts a slot in; returns by how many bytes the subtable grew.
    pub(super) fn insert(&mut self, slot: Slot) -> usize {
        let before = self.buckets.memory_bytes();
        if self.entries + 1 > self.entries_max() {
            // A page; more only for one that is far beyond the usual size.
            self.rebuild(self.entries + 1 + self.entries / 32);
        }
        self.place(slot);
        self.entries += 1;
        self.buckets.memory_bytes() - before
    }

    fn place(&mut self, slot: Slot) {
        let mut index = self.home(slot.tag());
        loop {
            if let Some(free) = self.buckets[index].0.iter_mut().find(|slot| slot.is_empty()) {
                *free = slot;
                return;
            }
            index = self.after(index);
        }
    }

    /// Makes room for `entries`, which are those that it has at least, and moves every slot to where it belongs then. Reads
    /// no entry.
    pub(super) fn rebuild(&mut self, entries: usize) {
        let mut slots = Vec::with_capacity(self.entries);
        slots.extend(self.slots());
        self.buckets.empty_with(entries.div_ceil(PAGE_ENTRIES));
        for slot in slots {
            self.place(slot);
        }
    }

    pub(super) fn remove(&mut self, place: Place) -> (Entry, Mark) {
        let removed = std::mem::replace(&mut self.buckets[place.bucket].0[place.slot], Slot::EMPTY);
        self.entries -= 1;
        self.close_gap(place);
        if self.entries * 2 <= self.entries_max().saturating_sub(PAGE_ENTRIES) || self.entries == 0 {
            self.rebuild(self.entries + self.entries / 8);
        }
        // SAFETY: the slot was filled and has just been emptied, so this is its only copy.
        (unsafe { removed.take() }, removed.mark())
    }

    /// Restores the invariant after a slot of a bucket that was full has been emptied.
    fn close_gap(&mut self, mut gap: Place) {
        let filled_beside = self.buckets[gap.bucket].0.iter().filter(|slot| !slot.is_empty()).count();
        if filled_beside + 1 < SLOTS {
            return;
        }
        let mut index = self.after(gap.bucket);
        while index != gap.bucket {
            let was_full = self.buckets[index].is_full();
            let beyond = self.distance(gap.bucket, index);
            let mover = (0..SLOTS).find(|&slot| {
                let slot = self.buckets[index].0[slot];
                !slot.is_empty() && self.distance(self.home(slot.tag()), index) >= beyond
            });
            if let Some(slot) = mover {
                let moved = std::mem::replace(&mut self.buckets[index].0[slot], Slot::EMPTY);
                self.buckets[gap.bucket].0[gap.slot] = moved;
                gap = Place { bucket: index, slot };
            }
            if !was_full {
                return;
            }
            index = self.after(index);
        }
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        self.buckets.iter().flat_map(|bucket| bucket.0).filter(|slot| !slot.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_what_was_asked_and_less_than_a_page_more() {
        for entries in 0..1200 {
            let room = Subtable::with_room(entries).entries_max();
            assert!((entries..entries + PAGE_ENTRIES).contains(&room), "{room} for {entries}");
        }
    }
}
