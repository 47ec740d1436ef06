//! A slot of the hash table: one entry, owned, in eight bytes; and a bucket of eight slots.
//!
//! ```text
//!  slot = entry address << 16 | mark << 16 | tag      0 = empty
//!         entries are aligned to 8 bytes, so the mark (see `mark`) has three bits of its own
//! ```
//!
//! Invariants: a filled slot holds what `Entry::into_raw` gave, and is its only owner; a copy of a slot owns nothing. So a
//! slot is copied only to be looked at, or to be moved when the place that it came from is emptied or given up.
//!
//! Safe face: [`entry_ref`] and [`EntryMut`], which borrow the slot for as long as the entry is seen. Not here: where a slot
//! lies (`subtable`), who drops it (`table`).
#![allow(unsafe_code)]

use super::entry::{Entry, EntryRef};
use super::mark::{Generation, Mark};
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

/// Slots in a bucket, which is a cache line.
pub(super) const SLOTS: usize = 8;

/// The bits that an entry's address can have.
const ADDRESS_BITS: u64 = 0xffff_ffff_fff8;

/// A slot: the entry's address in the upper 48 bits, its mark in the low three bits of that, 16 bits of the key's hash
/// below; 0 is empty. User addresses have at most 48 bits on the platforms we build for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot(u64);

impl Slot {
    /// No entry.
    pub(super) const EMPTY: Slot = Slot(0);

    pub(super) fn new(entry: Entry, mark: Mark, tag: u16) -> Slot {
        let address = entry.into_raw().as_ptr().expose_provenance() as u64;
        assert!(address & !ADDRESS_BITS == 0, "entry addresses fit in 48 bits and are aligned");
        Slot((address | mark as u64) << 16 | u64::from(tag))
    }

    /// The same slot with another entry.
    fn with_entry(self, entry: Entry) -> Slot {
        Slot(Slot::new(entry, Mark::from_bits(0), 0).0 | self.0 & !(ADDRESS_BITS << 16))
    }

    pub(super) fn mark(self) -> Mark {
        Mark::from_bits(self.0 >> 16)
    }

    pub(super) fn with_mark(self, mark: Mark) -> Slot {
        Slot(self.0 & !(7 << 16) | (mark as u64) << 16)
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn tag(self) -> u16 {
        self.0 as u16
    }

    pub(super) fn pointer(self) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut((self.0 >> 16 & ADDRESS_BITS) as usize)
    }

    /// The entry, borrowed.
    ///
    /// # Safety
    /// The slot is not empty, and for `'a` the entry is neither dropped nor changed.
    pub(super) unsafe fn peek<'a>(self) -> EntryRef<'a> {
        // SAFETY: a slot that is not empty holds a pointer from `Entry::into_raw`, which is never null.
        unsafe { EntryRef::from_raw(NonNull::new_unchecked(self.pointer())) }
    }

    /// Takes the entry out of the slot.
    ///
    /// # Safety
    /// The slot is not empty and no copy of it is used afterwards.
    pub(super) unsafe fn take(self) -> Entry {
        // SAFETY: see above; the caller gives up every other copy.
        unsafe { Entry::from_raw(NonNull::new_unchecked(self.pointer())) }
    }
}

#[repr(align(64))]
#[derive(Clone, Copy)]
pub(super) struct Bucket(pub(super) [Slot; SLOTS]);

impl Bucket {
    pub(super) const EMPTY: Bucket = Bucket([Slot::EMPTY; SLOTS]);

    pub(super) fn is_full(&self) -> bool {
        // Slots are not kept dense, so all of them count.
        self.0.iter().all(|slot| !slot.is_empty())
    }

    /// One bit for each slot with this tag. Empty slots look like tag 0 and are told apart by the caller.
    pub(super) fn matches(&self, tag: u16) -> u32 {
        let mut bits = 0;
        for (index, slot) in self.0.iter().enumerate() {
            bits |= u32::from(slot.tag() == tag && !slot.is_empty()) << index;
        }
        bits
    }
}

/// The entry in a filled slot, for as long as the slot is borrowed.
pub(super) fn entry_ref(slot: &Slot) -> EntryRef<'_> {
    assert!(!slot.is_empty(), "only filled slots are read");
    // SAFETY: the slot is filled, and the table is borrowed for as long as the result lives.
    unsafe { slot.peek() }
}

/// A filled slot, borrowed for a change.
pub struct EntryMut<'a> {
    pub(super) slot: &'a mut Slot,
    /// Of the table, kept true.
    pub(super) entry_bytes: &'a mut usize,
}

impl EntryMut<'_> {
    /// The entry, for reading.
    pub fn get(&self) -> EntryRef<'_> {
        entry_ref(self.slot)
    }

    /// Whether the entry has changed since the cut.
    #[inline]
    pub(super) fn is_dirty(&self, now: Generation) -> bool {
        Mark::bits_are_dirty(self.slot.0 >> 16, now)
    }

    /// What checkpoints know of the entry.
    #[inline]
    pub(super) fn mark(&self) -> Mark {
        self.slot.mark()
    }

    /// Sets what checkpoints know of the entry.
    #[inline]
    pub(super) fn set_mark(&mut self, mark: Mark) {
        *self.slot = self.slot.with_mark(mark);
    }

    /// Changes the entry; its key must stay.
    pub fn change<R>(&mut self, change: impl FnOnce(&mut Entry) -> R) -> R {
        let (slot, before) = (*self.slot, self.get().allocated_bytes());
        // SAFETY: the slot is filled and `&mut self` has it alone; it is written again below. Should `change` panic,
        // the entry is leaked rather than dropped twice, because the slot is empty meanwhile.
        let mut entry = ManuallyDrop::new(unsafe { slot.take() });
        *self.slot = Slot::EMPTY;
        let result = change(&mut entry);
        *self.slot = slot.with_entry(ManuallyDrop::into_inner(entry));
        *self.entry_bytes = *self.entry_bytes + self.get().allocated_bytes() - before;
        result
    }

    /// Puts another entry of the same key in its place and returns the old one.
    pub fn replace(&mut self, entry: Entry) -> Entry {
        self.change(|old| std::mem::replace(old, entry))
    }
}
