//! Segments that are still in the file: which ones, and how one comes into memory.
//!
//! ```text
//!   await_segments --> not loaded --Loader: tables apart, without a lock--> finish: one short hold --> loaded, for good
//! ```
//!
//! Invariant: nothing of a segment that is not loaded is in memory, so nothing of it is dirty, removed or due, and what any
//! checkpoint published meanwhile has of it is what the first one had. Whoever is about to look at entries, or to change
//! some, has their segments loaded before it takes a hold: a segment that was loaded stays so.
//!
//! Not here: reading the file, and who loads which segment when (`store::load`).

use super::database::DatabaseId;
use super::entry::Entry;
use super::segment::{DoesNotFit, Segment};
use super::{Keyspace, SegmentSet};
use std::collections::VecDeque;
use std::sync::atomic::Ordering;

impl Keyspace {
    /// Says that the entries of all segments are still to come. Before anything is in them.
    pub(crate) fn await_segments(&self) {
        self.segments.iter().for_each(|segment| segment.set_loaded(false));
        self.unloaded.store(self.segments.len(), Ordering::Relaxed);
    }

    /// Whether all segments are in memory: one load of a word that hardly ever changes.
    #[inline]
    pub fn all_loaded(&self) -> bool {
        // Who takes the segment's lock after it has seen this sees what was put in under that lock.
        self.unloaded.load(Ordering::Relaxed) == 0
    }

    /// Number of segments that are not loaded.
    pub fn unloaded(&self) -> usize {
        self.unloaded.load(Ordering::Relaxed)
    }

    /// Whether a segment is in memory. Once it is, it stays so.
    #[inline]
    pub fn is_loaded(&self, segment: usize) -> bool {
        self.all_loaded() || self.segments[segment].is_loaded()
    }

    /// Those of `segments` that are not in memory.
    #[inline]
    pub fn unloaded_of(&self, segments: SegmentSet) -> SegmentSet {
        let mut unloaded = SegmentSet::EMPTY;
        if !self.all_loaded() {
            segments.iter().filter(|segment| !self.is_loaded(*segment)).for_each(|segment| unloaded.insert(segment));
        }
        unloaded
    }

    /// Begins to load entries from the file into a segment, with room made in advance for so many in each database. No lock
    /// is held until they are put in. Threads load different segments at once.
    pub fn loader(&self, segment: usize, rooms: &[(DatabaseId, usize)]) -> Loader<'_> {
        let mut apart = Segment::new(self.counters.clone());
        for &(database, room) in rooms {
            apart.table_mut(database, room);
        }
        Loader { keyspace: self, segment, apart, waiting: VecDeque::with_capacity(LOAD_AHEAD), waiting_bytes: 0 }
    }
}

/// Entries that wait for their buckets to be fetched.
const LOAD_AHEAD: usize = 16;

/// Loads entries that come from the file into one segment: they are clean, and stored.
#[must_use = "nothing is in the segment until it is finished"]
pub struct Loader<'k> {
    keyspace: &'k Keyspace,
    segment: usize,
    apart: Segment,
    waiting: VecDeque<(DatabaseId, u64, Entry)>,
    waiting_bytes: usize,
}

impl Loader<'_> {
    /// Adds an entry; it may go in a little later. Cost: no cache miss is waited for where entries follow each other.
    ///
    /// # Errors
    /// When its key is there already, or its hash belongs to another segment: the file is damaged.
    pub fn add(&mut self, database: DatabaseId, hash: u64, entry: Entry) -> Result<(), DoesNotFit> {
        if self.keyspace.segment_of(hash) != self.segment {
            return Err(DoesNotFit("a record lies among hashes that are not its own"));
        }
        self.apart.table_mut(database, self.keyspace.table_room).entries().prefetch_bucket(hash);
        self.waiting_bytes += entry.borrow().allocated_bytes();
        self.waiting.push_back((database, hash, entry));
        if self.waiting.len() >= LOAD_AHEAD { self.put_one() } else { Ok(()) }
    }

    /// Bytes that the segment takes so far.
    pub fn bytes(&self) -> usize {
        self.apart.bytes() + self.waiting_bytes
    }

    /// Whether an entry of this key was added.
    ///
    /// # Errors
    /// As [`Loader::add`], of what was added before.
    pub(crate) fn has(&mut self, database: DatabaseId, hash: u64, key: &[u8]) -> Result<bool, DoesNotFit> {
        while !self.waiting.is_empty() {
            self.put_one()?;
        }
        Ok(self.apart.table(database).is_some_and(|table| table.find(hash, key).is_some()))
    }

    /// Puts everything in; the segment is loaded then.
    ///
    /// # Errors
    /// As [`Loader::add`].
    ///
    /// # Panics
    /// If something is in the segment already.
    pub fn finish(self) -> Result<(), DoesNotFit> {
        self.finish_if(|_| true).map(drop)
    }

    /// As [`Loader::finish`], if `is_right` says so: it is told how many of the entries are cold, while the segment is held
    /// for changes. Else drops them; returns which.
    pub(crate) fn finish_if(mut self, is_right: impl FnOnce(usize) -> bool) -> Result<bool, DoesNotFit> {
        while !self.waiting.is_empty() {
            self.put_one()?;
        }
        let cold = self.apart.tables().map(|(_, table)| table.cold()).sum();
        let mut hold = self.keyspace.hold(SegmentSet::EMPTY, SegmentSet::one(self.segment));
        let is_right = is_right(cold);
        if is_right {
            hold.segment_mut(self.segment).take_over(&mut self.apart);
            let segment = &self.keyspace.segments[self.segment];
            if !segment.is_loaded() {
                segment.set_loaded(true);
                self.keyspace.unloaded.fetch_sub(1, Ordering::Relaxed);
            }
        }
        drop(hold);
        Ok(is_right)
    }

    fn put_one(&mut self) -> Result<(), DoesNotFit> {
        let Some((database, hash, entry)) = self.waiting.pop_front() else { return Ok(()) };
        self.waiting_bytes -= entry.borrow().allocated_bytes();
        let table = self.apart.table_mut(database, self.keyspace.table_room);
        table.load(hash, entry, self.keyspace.hasher())
    }
}
