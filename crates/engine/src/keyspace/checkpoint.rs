//! What a checkpoint asks of the keyspace: an exact cut, the entries that were dirty at it, and what has gone.
//!
//! ```text
//!  cut (all segments held) --> take (segment by segment, short holds) --> published | failed --> settle (short holds)
//!                                  ^                                                                |
//!                                  \-- writers hand over what they are about to change              \--> next cut
//! ```
//!
//! What a checkpoint is given brings the file of the last published one to the state at the cut, when it is applied in
//! this order: `Cut::reset` (empty the file), `Cut::dropped` (whole databases), removals, entries. Each record of the file
//! is named at most once, by a removal or by an entry with `stored`; an entry without it is not in the file. So a key that
//! was removed and written anew comes as a removal and as an entry that is not stored.
//!
//! Not here: the block file (`blocks`), when a checkpoint begins and what is done with it (`store`).

use super::database::{DatabaseId, DatabaseIds};
use super::entry::EntryRef;
use super::mark::Outcome;
use super::segment::{DatabaseTable, DoesNotFit};
use super::tracking::{Counters, Handed};
use super::{Hold, Keyspace, SegmentSet};
use crate::version::Version;
use bowline_resp::Chunks;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What is known at the cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// What the database numbers stand for.
    pub databases: DatabaseIds,
    /// Everything was emptied (FLUSHALL) since the last published cut: the file starts empty.
    pub reset: bool,
    /// Databases emptied (FLUSHDB) since the last published cut: the file drops them. No id here has entries; some may
    /// never have been in the file.
    pub dropped: Vec<DatabaseId>,
    /// Entries in all databases.
    pub entries: usize,
}

/// How much one [`Keyspace::take`] may take, so that its hold stays short. At least one entry is taken in any case.
#[derive(Clone, Copy, Debug)]
pub struct TakeLimits {
    /// Most entries.
    pub entries: usize,
    /// Most bytes of entries, as allocated; the last one may go beyond.
    pub bytes: usize,
}

/// An entry as it was at the cut.
#[derive(Clone, Copy, Debug)]
pub struct CutEntry<'a> {
    /// Its database.
    pub database: DatabaseId,
    /// The hash of its key.
    pub hash: u64,
    /// The entry.
    pub entry: EntryRef<'a>,
    /// Whether the file has a record of this key, which this one replaces.
    pub stored: bool,
}

/// A record of the file whose key is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removal {
    /// The hash of the key.
    pub hash: u64,
    /// The fingerprint of the key: see [`KeyHasher::fingerprint`](super::hash::KeyHasher::fingerprint).
    pub fingerprint: u64,
}

/// An entry whose value is in chunks: they are shared, and whoever changes the entry copies those that he writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LargeEntry {
    /// Its database.
    pub database: DatabaseId,
    /// The hash of its key.
    pub hash: u64,
    /// Its key.
    pub key: Vec<u8>,
    /// The version of its last change.
    pub version: Version,
    /// When it was first written, seconds since the Unix epoch.
    pub created: u32,
    /// When it expires, milliseconds since the Unix epoch.
    pub expire_at: Option<u64>,
    /// Its value.
    pub value: Chunks,
    /// As [`CutEntry::stored`].
    pub stored: bool,
}

impl LargeEntry {
    pub(super) fn new(
        database: DatabaseId,
        hash: u64,
        entry: EntryRef<'_>,
        value: &Chunks,
        stored: bool,
    ) -> LargeEntry {
        LargeEntry {
            database,
            hash,
            key: entry.key().to_vec(),
            version: entry.version(),
            created: entry.created(),
            expire_at: entry.expire_at(),
            value: value.clone(),
            stored,
        }
    }
}

/// Entries of one database that writers handed over before they changed them. Their bytes count as handed until this is
/// dropped.
pub struct HandedEntries {
    database: DatabaseId,
    entries: Vec<Handed>,
    bytes: usize,
    counters: Arc<Counters>,
}

impl HandedEntries {
    pub(super) fn new(
        database: DatabaseId,
        entries: Vec<Handed>,
        bytes: usize,
        counters: Arc<Counters>,
    ) -> HandedEntries {
        HandedEntries { database, entries, bytes, counters }
    }

    /// The entries.
    pub fn iter(&self) -> impl Iterator<Item = CutEntry<'_>> {
        let database = self.database;
        self.entries.iter().map(move |Handed { hash, entry, stored }| CutEntry {
            database,
            hash: *hash,
            entry: entry.borrow(),
            stored: *stored,
        })
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl Drop for HandedEntries {
    fn drop(&mut self) {
        self.entries.clear();
        self.counters.handed_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What one [`Keyspace::take`] took, beside the entries that it showed.
#[derive(Default)]
pub struct Taken {
    /// Entries that were handed over. They are no longer in the keyspace: write them without its locks.
    pub handed: Vec<HandedEntries>,
    /// Records of the file whose keys are gone.
    pub removals: Vec<(DatabaseId, Removal)>,
    /// Entries with values in chunks. Take once more when they are written, also where nothing is left: what was copied because
    /// they were shared counts as handed over until then.
    pub large: Vec<LargeEntry>,
    /// Emptied databases whose last entries were taken: memory to be freed without a lock.
    pub freed: Vec<DatabaseTable>,
    /// Nothing of the cut is left in this segment.
    pub done: bool,
}

/// What one [`Keyspace::settle`] did: drop it without a lock, it may hold much memory.
#[derive(Default)]
pub struct Settled {
    /// Every mark of the segment is settled.
    pub done: bool,
    /// Emptied databases that a failed checkpoint no longer needs.
    pub freed: Vec<DatabaseTable>,
    /// Entries that were handed over to a failed checkpoint.
    pub handed: Vec<HandedEntries>,
}

/// What happened to whole databases, between cuts.
#[derive(Default)]
pub(super) struct History {
    /// Since the last cut, or since the last published one when checkpoints failed.
    current: Gone,
    /// What the running checkpoint was told.
    cut: Option<Gone>,
    ended: Option<Outcome>,
    /// Ids below this may be in the file: those of the last cut, or of the file that was loaded.
    ids_in_file: u32,
}

/// Databases whose records are to go from the file.
#[derive(Clone, Default)]
struct Gone {
    /// All there were.
    all: bool,
    /// These.
    databases: Vec<DatabaseId>,
}

impl Keyspace {
    /// Begins a checkpoint: what is dirty now is what it will take. `hold` has all segments for changes; read the log's last
    /// version under it too. Cost: segments times databases, no entry is looked at.
    ///
    /// # Panics
    /// If the last checkpoint is not settled, or a segment is not held for changes.
    pub fn cut(&self, hold: &mut Hold<'_>) -> Cut {
        let databases = self.databases.to_ids();
        let mut history = self.history.lock();
        assert!(history.cut.is_none(), "a cut comes when the last checkpoint has ended");
        let gone = std::mem::take(&mut history.current);
        history.ids_in_file = databases.next;
        history.cut = Some(gone.clone());
        history.ended = None;
        let entries = self.every_segment().iter().map(|segment| hold.segment_mut(segment).cut()).sum();
        Cut { databases, reset: gone.all, dropped: gone.databases, entries }
    }

    /// Shows entries of the cut in one segment to `visit` and takes them, in one hold for changes: `visit` copies what it
    /// needs and does no I/O. Call it until [`Taken::done`]; entries come in no order.
    pub fn take(&self, segment: usize, limits: TakeLimits, visit: &mut dyn FnMut(CutEntry<'_>)) -> Taken {
        let mut hold = self.hold(SegmentSet::EMPTY, SegmentSet::one(segment));
        hold.segment_mut(segment).take(limits, &self.hasher, visit)
    }

    /// The checkpoint's superblock is durable. Call [`Keyspace::settle`] for every segment before the next cut.
    ///
    /// # Panics
    /// If no checkpoint runs. Settling panics if something of the cut was not taken.
    pub fn published(&self) {
        let mut history = self.history.lock();
        assert!(history.cut.take().is_some(), "a checkpoint runs");
        history.ended = Some(Outcome::Published);
    }

    /// The checkpoint was given up; what it took is dirty again. May come at any moment after the cut. Call
    /// [`Keyspace::settle`] for every segment before the next cut.
    ///
    /// # Panics
    /// If no checkpoint runs.
    pub fn failed(&self) {
        let mut history = self.history.lock();
        let Some(mut gone) = history.cut.take() else { panic!("a checkpoint runs") };
        let since = std::mem::take(&mut history.current);
        if since.all {
            // Ids began anew, so the older ones mean other databases now.
            gone.databases.clear();
        }
        gone.databases.extend(since.databases);
        history.current = Gone { all: gone.all || since.all, databases: gone.databases };
        history.ended = Some(Outcome::Failed);
    }

    /// Brings the marks of a segment in line with how the checkpoint ended, in one bounded hold. Call it for every segment
    /// until [`Settled::done`]. What was taken counts as clean only then: a removal or a change before that is still right.
    ///
    /// # Panics
    /// If no checkpoint has ended, or one was published whose cut was not taken.
    pub fn settle(&self, segment: usize) -> Settled {
        let Some(outcome) = self.history.lock().ended else { panic!("a checkpoint has ended") };
        self.hold(SegmentSet::EMPTY, SegmentSet::one(segment)).segment_mut(segment).settle(outcome)
    }

    /// Gives the file up: the next checkpoint begins with an empty one and takes every entry. For a file that is damaged
    /// while all entries are in memory. Others may write meanwhile. Cost: a hold for each segment, as long as marking its
    /// slots takes (8 bytes of memory for each entry).
    ///
    /// # Panics
    /// If a checkpoint runs or is not settled, or if the file has entries that memory does not.
    pub fn forget_file(&self) {
        assert!(self.all_loaded(), "the file is given up when all entries are in memory");
        for segment in self.every_segment().iter() {
            self.hold(SegmentSet::EMPTY, SegmentSet::one(segment)).segment_mut(segment).forget_file();
        }
        let mut history = self.history.lock();
        assert!(history.cut.is_none(), "the file is given up between checkpoints");
        history.current = Gone { all: true, databases: Vec::new() };
        history.ids_in_file = 0;
    }

    /// Bytes of entries that were handed over and not yet dropped by the taker.
    pub fn handed_bytes(&self) -> usize {
        self.counters.handed_bytes.load(Ordering::Relaxed)
    }

    /// Bytes that the lists of removals take: when it grows, a checkpoint is wanted.
    pub fn removal_bytes(&self) -> usize {
        self.counters.removal_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of entries that became dirty by changes of which the log holds less than the entry: appended to, renamed, given
    /// an expiry. Only rises.
    pub fn touched_bytes(&self) -> u64 {
        self.counters.touched_bytes.load(Ordering::Relaxed)
    }

    /// Notes that a database was emptied: its number gets another id. Only while every segment is locked for changes.
    pub(crate) fn note_dropped(&self, id: DatabaseId) {
        let mut history = self.history.lock();
        if id.0 < history.ids_in_file {
            history.current.databases.push(id);
        }
        drop(history);
        self.leave_out(id);
    }

    /// Notes that everything was emptied and ids begin anew. Only while every segment is locked for changes.
    pub(crate) fn note_reset(&self) {
        let mut history = self.history.lock();
        history.current = Gone { all: true, databases: Vec::new() };
        history.ids_in_file = 0;
        drop(history);
        self.leave_out_all();
    }

    /// Brings the map of databases back from a checkpoint, before anything is loaded.
    ///
    /// # Errors
    /// When it is none that [`Keyspace::cut`] gives.
    pub fn restore_databases(&self, databases: &DatabaseIds) -> Result<(), DoesNotFit> {
        self.databases.restore(databases)?;
        self.history.lock().ids_in_file = databases.next;
        Ok(())
    }

    /// The end of a segment's hashes: the first hash that belongs to the next one; `None` for the last segment. Segments are
    /// ranges of hashes in ascending order.
    pub fn hash_end(&self, segment: usize) -> Option<u64> {
        let next = segment + 1;
        (next < self.segments.len()).then(|| (next as u64) << (u64::BITS - self.segments.len().ilog2()))
    }
}
