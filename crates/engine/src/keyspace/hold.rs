//! Holding segments: every access to a segment goes through here.
//!
//! Rule: segments are locked in ascending order and all at once, and a thread that holds some locks no others. So two
//! holds can never wait for each other.
//!
//! Invariants behind the `unsafe`: `Segment` data is touched only by a `Hold` that has the segment's lock, mutably only
//! with the lock exclusive and the `Hold` borrowed mutably; both are asserted at each access (one bit test).
#![allow(unsafe_code)]

use super::Keyspace;
use super::database::DatabaseId;
use super::hash::KeyHasher;
use super::segment::{DatabaseTable, Segment};
use super::tracking::Counters;
use lock_api::RawRwLock as _;
use parking_lot::RawRwLock;
use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A set of segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentSet([u64; 4]);

impl SegmentSet {
    /// Most segments there can be.
    pub const CAPACITY: usize = 256;
    /// No segment.
    pub const EMPTY: SegmentSet = SegmentSet([0; 4]);

    /// The first `count` segments.
    pub fn first(count: usize) -> SegmentSet {
        let mut set = SegmentSet::EMPTY;
        (0..count).for_each(|segment| set.insert(segment));
        set
    }

    /// One segment.
    pub fn one(segment: usize) -> SegmentSet {
        let mut set = SegmentSet::EMPTY;
        set.insert(segment);
        set
    }

    /// Adds a segment.
    #[inline]
    pub fn insert(&mut self, segment: usize) {
        self.0[segment / 64] |= 1 << (segment % 64);
    }

    /// Whether a segment is in the set.
    #[inline]
    pub fn contains(&self, segment: usize) -> bool {
        self.0[segment / 64] & 1 << (segment % 64) != 0
    }

    /// Whether no segment is in the set.
    pub fn is_empty(&self) -> bool {
        *self == SegmentSet::EMPTY
    }

    /// Both together.
    #[must_use]
    pub fn union(self, other: SegmentSet) -> SegmentSet {
        SegmentSet(std::array::from_fn(|word| self.0[word] | other.0[word]))
    }

    /// These without those of `other`.
    #[must_use]
    pub fn without(self, other: SegmentSet) -> SegmentSet {
        SegmentSet(std::array::from_fn(|word| self.0[word] & !other.0[word]))
    }

    /// The segments, ascending.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = usize> + use<> {
        let words = self.0;
        (0..4).flat_map(move |word| {
            let mut bits = words[word];
            std::iter::from_fn(move || {
                let bit = (bits != 0).then(|| bits.trailing_zeros() as usize)?;
                bits &= bits - 1;
                Some(word * 64 + bit)
            })
        })
    }
}

/// A segment with its lock, on cache lines of its own.
#[repr(align(128))]
pub(super) struct LockedSegment {
    lock: RawRwLock,
    deadline: AtomicU64,
    /// Changes only while the segment is held for changes, or nobody else has the keyspace.
    is_loaded: AtomicBool,
    segment: UnsafeCell<Segment>,
}

const fn is_send_and_sync<T: Send + Sync>() {}
const _: () = is_send_and_sync::<Segment>();

// SAFETY: the segment is reached only under the lock, see the head of this file; `Segment` itself is Send and Sync, which
// the line above has the compiler check.
unsafe impl Sync for LockedSegment {}

impl LockedSegment {
    pub(super) fn new(counters: Arc<Counters>) -> LockedSegment {
        LockedSegment {
            lock: RawRwLock::INIT,
            deadline: AtomicU64::new(u64::MAX),
            is_loaded: AtomicBool::new(true),
            segment: UnsafeCell::new(Segment::new(counters)),
        }
    }

    pub(super) fn deadline(&self) -> u64 {
        self.deadline.load(Ordering::Relaxed)
    }

    pub(super) fn is_loaded(&self) -> bool {
        self.is_loaded.load(Ordering::Relaxed)
    }

    pub(super) fn set_loaded(&self, is_loaded: bool) {
        self.is_loaded.store(is_loaded, Ordering::Relaxed);
    }
}

/// Locked segments; dropping it unlocks them.
pub struct Hold<'k> {
    keyspace: &'k Keyspace,
    shared: SegmentSet,
    exclusive: SegmentSet,
    /// A hold stays on its thread, as its locks do.
    on_this_thread: PhantomData<*const ()>,
}

impl<'k> Hold<'k> {
    pub(super) fn lock(keyspace: &'k Keyspace, shared: SegmentSet, exclusive: SegmentSet) -> Hold<'k> {
        let shared = shared.without(exclusive);
        for segment in shared.union(exclusive).iter() {
            let lock = &keyspace.segments[segment].lock;
            if exclusive.contains(segment) { lock.lock_exclusive() } else { lock.lock_shared() }
        }
        Hold { keyspace, shared, exclusive, on_this_thread: PhantomData }
    }

    /// The keyspace whose segments these are.
    pub fn keyspace(&self) -> &'k Keyspace {
        self.keyspace
    }

    /// A held segment.
    #[inline]
    pub fn segment(&self, segment: usize) -> &Segment {
        assert!(self.shared.contains(segment) || self.exclusive.contains(segment), "segment {segment} is not held");
        // SAFETY: the lock is held for as long as `self` lives; a change needs `&mut self`.
        unsafe { &*self.keyspace.segments[segment].segment.get() }
    }

    /// A segment held for changes.
    #[inline]
    pub fn segment_mut(&mut self, segment: usize) -> &mut Segment {
        assert!(self.exclusive.contains(segment), "segment {segment} is not held for changes");
        // SAFETY: the lock is held exclusively, and `&mut self` rules out other references through this hold.
        unsafe { &mut *self.keyspace.segments[segment].segment.get() }
    }

    /// The table of a database in a held segment.
    #[inline]
    pub fn table(&self, segment: usize, id: DatabaseId) -> Option<&DatabaseTable> {
        self.segment(segment).table(id)
    }

    /// The table of a database in a segment held for changes, and the hasher that changing it takes.
    #[inline]
    pub fn table_mut(&mut self, segment: usize, id: DatabaseId) -> (&mut DatabaseTable, &'k KeyHasher) {
        let keyspace = self.keyspace;
        (self.segment_mut(segment).table_mut(id, keyspace.table_room), keyspace.hasher())
    }

    /// The held segments.
    pub fn held(&self) -> SegmentSet {
        self.shared.union(self.exclusive)
    }

    /// The segments held for changes.
    pub fn exclusive(&self) -> SegmentSet {
        self.exclusive
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        for segment in self.exclusive.iter() {
            let locked = &self.keyspace.segments[segment];
            let held = self.segment_mut(segment);
            let (deadline, bytes) = (held.deadline(), held.bytes());
            let told = std::mem::replace(&mut held.bytes_told, bytes);
            if bytes != told {
                self.keyspace.counters.note_data_bytes(told, bytes);
            }
            if locked.deadline() != deadline {
                locked.deadline.store(deadline, Ordering::Relaxed);
                self.keyspace.alarm.set_for(deadline);
            }
            // SAFETY: locked exclusively in `lock`.
            unsafe { locked.lock.unlock_exclusive() }
        }
        for segment in self.shared.iter() {
            // SAFETY: locked shared in `lock`.
            unsafe { self.keyspace.segments[segment].lock.unlock_shared() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_gives_its_segments_in_ascending_order() {
        let mut set = SegmentSet::EMPTY;
        for segment in [200, 3, 64, 63, 255, 0] {
            set.insert(segment);
        }
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 3, 63, 64, 200, 255]);
        assert_eq!(SegmentSet::first(65).iter().count(), 65);
    }

    #[test]
    fn holds_over_many_segments_from_many_threads_do_not_block_each_other_for_ever() {
        let (keyspace, rounds) = (Keyspace::new(8, 1, 0), if cfg!(miri) { 50 } else { 2_000 });
        std::thread::scope(|scope| {
            for thread in 0..4usize {
                let keyspace = &keyspace;
                scope.spawn(move || {
                    for round in 0..rounds {
                        let (mut some, mut others) = (SegmentSet::EMPTY, SegmentSet::EMPTY);
                        some.insert((round + thread) % 8);
                        some.insert((round * 3) % 8);
                        others.insert((round * 5 + thread) % 8);
                        let mut hold = keyspace.hold(others, some);
                        let newest = &mut hold.segment_mut((round + thread) % 8).newest_removal;
                        newest.0 += 1;
                    }
                });
            }
        });
        let hold = keyspace.hold(keyspace.every_segment(), SegmentSet::EMPTY);
        assert_eq!((0..8).map(|segment| hold.segment(segment).newest_removal.0).sum::<u64>(), 4 * rounds as u64);
    }

    #[test]
    #[should_panic(expected = "is not held for changes")]
    fn a_segment_held_for_reading_cannot_be_changed() {
        let keyspace = Keyspace::new(8, 1, 0);
        let mut hold = keyspace.hold(keyspace.every_segment(), SegmentSet::EMPTY);
        hold.segment_mut(3);
    }
}
