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

use super::Keyspace;
use super::database::{DatabaseId, DatabaseIds};
use super::entry::{Entry, EntryRef};
use super::hold::Hold;
use super::segment::{DatabaseTable, DoesNotFit};
use crate::version::Version;

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

/// An entry with a value too long to be copied in one hold: to be read with [`Keyspace::copy_part`].
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
    /// Length of its value, which is not an integer.
    pub value_bytes: usize,
    /// As [`CutEntry::stored`].
    pub stored: bool,
}

/// Entries that writers handed over before they changed them. Their bytes count as handed until this is dropped.
#[derive(Default)]
pub struct HandedEntries {
    entries: Vec<(DatabaseId, u64, Entry, bool)>,
}

impl HandedEntries {
    /// The entries.
    pub fn iter(&self) -> impl Iterator<Item = CutEntry<'_>> {
        self.entries.iter().map(|(database, hash, entry, stored)| CutEntry {
            database: *database,
            hash: *hash,
            entry: entry.borrow(),
            stored: *stored,
        })
    }
}

/// What one [`Keyspace::take`] took, beside the entries that it showed.
pub struct Taken {
    /// Entries that were handed over. They are no longer in the keyspace: write them without its locks.
    pub handed: Vec<HandedEntries>,
    /// Records of the file whose keys are gone.
    pub removals: Vec<(DatabaseId, Removal)>,
    /// An entry to be read in parts, then told to [`Keyspace::took`], before the next take; else that reports it again.
    pub large: Option<LargeEntry>,
    /// Emptied databases whose last entries were taken: memory to be freed without a lock.
    pub freed: Vec<DatabaseTable>,
    /// Nothing of the cut is left in this segment.
    pub done: bool,
}

impl Keyspace {
    /// Begins a checkpoint: what is dirty now is what it will take. `hold` has all segments for changes; read the log's last
    /// version under it too. Cost: segments times databases, no entry is looked at.
    ///
    /// # Panics
    /// If the last checkpoint is not settled, or a segment is not held for changes.
    pub fn cut(&self, hold: &mut Hold<'_>) -> Cut {
        let _ = hold;
        unimplemented!("in the next commit")
    }

    /// Shows entries of the cut in one segment to `visit` and takes them, in one hold for changes: `visit` copies what it
    /// needs and does no I/O. Call it until [`Taken::done`]; entries come in no order.
    pub fn take(&self, segment: usize, limits: TakeLimits, visit: &mut dyn FnMut(CutEntry<'_>)) -> Taken {
        let _ = (segment, limits, visit);
        unimplemented!("in the next commit")
    }

    /// Copies the value of a large entry from `offset` on into `buffer`, in a short shared hold; returns how many bytes.
    /// `None` when a writer has handed it over meanwhile: it comes with the handed entries, so forget the parts.
    pub fn copy_part(&self, large: &LargeEntry, offset: usize, buffer: &mut [u8]) -> Option<usize> {
        let _ = (large, offset, buffer);
        unimplemented!("in the next commit")
    }

    /// Takes a large entry whose parts are all copied. `false` when it was handed over meanwhile: as for
    /// [`Keyspace::copy_part`].
    #[must_use]
    pub fn took(&self, large: &LargeEntry) -> bool {
        let _ = large;
        unimplemented!("in the next commit")
    }

    /// The checkpoint's superblock is durable. Call [`Keyspace::settle`] for every segment before the next cut.
    pub fn published(&self) {
        unimplemented!("in the next commit")
    }

    /// The checkpoint was given up; what it took is dirty again. May come at any moment after the cut. Call
    /// [`Keyspace::settle`] for every segment before the next cut.
    pub fn failed(&self) {
        unimplemented!("in the next commit")
    }

    /// Brings the marks of a segment in line with how the checkpoint ended, in one bounded hold. Returns whether the segment
    /// is done, and memory to be freed without a lock.
    pub fn settle(&self, segment: usize) -> (bool, Vec<DatabaseTable>) {
        let _ = segment;
        unimplemented!("in the next commit")
    }

    /// Bytes of entries that were handed over and not yet dropped by the taker.
    pub fn handed_bytes(&self) -> usize {
        unimplemented!("in the next commit")
    }

    /// Bytes that the lists of removals take, in steps of a few KiB: when it grows, a checkpoint is wanted.
    pub fn removal_bytes(&self) -> usize {
        unimplemented!("in the next commit")
    }

    /// Brings the map of databases back from a checkpoint, before anything is loaded.
    ///
    /// # Errors
    /// When it is none that [`Keyspace::cut`] gives.
    pub fn restore_databases(&self, databases: &DatabaseIds) -> Result<(), DoesNotFit> {
        let _ = databases;
        unimplemented!("in the next commit")
    }

    /// The end of a segment's hashes: the first hash that belongs to the next one; `None` for the last segment. Segments are
    /// ranges of hashes in ascending order.
    pub fn hash_end(&self, segment: usize) -> Option<u64> {
        let _ = segment;
        unimplemented!("in the next commit")
    }

    /// Holds a segment for loading entries from the file, with room made in advance for so many in each database. Threads
    /// load different segments at once.
    pub fn loader(&self, segment: usize, rooms: &[(DatabaseId, usize)]) -> Loader<'_> {
        let _ = (segment, rooms);
        unimplemented!("in the next commit")
    }
}

/// Loads entries that come from the file into one segment: they are clean, and stored.
pub struct Loader<'k> {
    hold: Hold<'k>,
}

impl Loader<'_> {
    /// Adds an entry; it may go in a little later. Cost: no cache miss is waited for where entries follow each other.
    ///
    /// # Errors
    /// When its key is there already, or its hash belongs to another segment: the file is damaged.
    pub fn add(&mut self, database: DatabaseId, hash: u64, entry: Entry) -> Result<(), DoesNotFit> {
        let _ = (database, hash, entry, &mut self.hold);
        unimplemented!("in the next commit")
    }

    /// Puts in what is left.
    ///
    /// # Errors
    /// As [`Loader::add`].
    pub fn finish(self) -> Result<(), DoesNotFit> {
        unimplemented!("in the next commit")
    }
}
