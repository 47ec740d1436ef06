//! Segments that are still in the file: which ones, and how one comes into memory.
//!
//! ```text
//!   await_segments --> not loaded --Loader: tables apart, without a lock--> finish: one short hold --> loaded, for good
//! ```
//!
//! How many entries are to come is known of each database. One that is emptied has none to come: where everything is, all
//! segments are loaded at once; where one database is, its entries are left out of every segment that comes later.
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
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;

/// The entries of segments that are not loaded.
#[derive(Default)]
pub(super) struct ToCome {
    /// How many each database has.
    entries: BTreeMap<DatabaseId, u64>,
    /// Databases that were emptied: what the file has of them does not come.
    dropped: Vec<DatabaseId>,
}

impl Keyspace {
    /// Says that the entries of all segments are still to come, so many of each database. Before anything is in them.
    pub(crate) fn await_segments(&self, entries: impl IntoIterator<Item = (DatabaseId, u64)>) {
        self.segments.iter().for_each(|segment| segment.set_loaded(false));
        self.unloaded.store(self.segments.len(), Ordering::Relaxed);
        *self.to_come.lock() = ToCome { entries: entries.into_iter().collect(), dropped: Vec::new() };
    }

    /// Entries of each database in segments that are not loaded, those that have expired counted. Exact together with what
    /// a hold on all segments shows.
    pub fn entries_to_come(&self) -> Vec<(DatabaseId, u64)> {
        if self.all_loaded() {
            return Vec::new();
        }
        self.to_come.lock().entries.iter().filter(|(_, entries)| **entries > 0).map(|(id, of)| (*id, *of)).collect()
    }

    /// What is to come of a database is not wanted any more. Only while every segment is locked for changes.
    pub(super) fn leave_out(&self, id: DatabaseId) {
        if !self.all_loaded() {
            let mut to_come = self.to_come.lock();
            to_come.entries.remove(&id);
            to_come.dropped.push(id);
        }
    }

    /// Nothing that is to come is wanted any more: every segment counts as loaded. Only while each is locked for changes.
    pub(super) fn leave_out_all(&self) {
        if !self.all_loaded() {
            *self.to_come.lock() = ToCome::default();
            self.segments.iter().for_each(|segment| segment.set_loaded(true));
            self.unloaded.store(0, Ordering::Relaxed);
        }
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
        self.put_in(true, |_| true).map(drop)
    }

    /// As [`Loader::finish`], if `is_right` says so: it is told how many of the entries are cold, while the segment is held
    /// for changes. Else drops them; returns which. Where everything was emptied meanwhile none goes in, and that is right.
    pub(crate) fn finish_if(self, is_right: impl FnOnce(usize) -> bool) -> Result<bool, DoesNotFit> {
        self.put_in(false, is_right)
    }

    fn put_in(mut self, also_unawaited: bool, is_right: impl FnOnce(usize) -> bool) -> Result<bool, DoesNotFit> {
        while !self.waiting.is_empty() {
            self.put_one()?;
        }
        let segment = &self.keyspace.segments[self.segment];
        let mut hold = self.keyspace.hold(SegmentSet::EMPTY, SegmentSet::one(self.segment));
        let is_awaited = !segment.is_loaded();
        if !is_awaited && !also_unawaited {
            return Ok(is_right(0));
        }
        let dropped = self.keyspace.to_come.lock().dropped.clone();
        let unwanted: Vec<_> = dropped.into_iter().filter_map(|id| self.apart.detach(id)).collect();
        let is_right = is_right(self.apart.tables().map(|(_, table)| table.cold()).sum());
        if is_right {
            if is_awaited {
                let mut to_come = self.keyspace.to_come.lock();
                for (id, table) in self.apart.tables() {
                    let entries = to_come.entries.entry(id).or_default();
                    *entries = entries.saturating_sub(table.entries().len() as u64);
                }
                self.keyspace.unloaded.fetch_sub(1, Ordering::Relaxed);
            }
            hold.segment_mut(self.segment).take_over(&mut self.apart);
            segment.set_loaded(true);
        }
        drop(hold);
        // Much memory may go with them.
        drop(unwanted);
        Ok(is_right)
    }

    fn put_one(&mut self) -> Result<(), DoesNotFit> {
        let Some((database, hash, entry)) = self.waiting.pop_front() else { return Ok(()) };
        self.waiting_bytes -= entry.borrow().allocated_bytes();
        let table = self.apart.table_mut(database, self.keyspace.table_room);
        table.load(hash, entry, self.keyspace.hasher())
    }
}
