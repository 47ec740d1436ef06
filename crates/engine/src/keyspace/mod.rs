//! The keyspace: what is in memory.
//!
//! ```text
//!  key --seeded hash--> segment (one reader-writer lock each)
//!                         |-- database table (physical id) -- table of entries, each with its mark
//!                         |                               |-- expiry order
//!                         |                               \-- for checkpoints: old states handed over, removals
//!                         \-- version of the newest removal
//!  database number --> physical id      (changes only while every segment is locked)
//! ```
//!
//! Segments are reached only through a [`Hold`], which locks them in ascending order: the one rule against deadlock,
//! written once. What a checkpoint asks of all this is in `checkpoint`, what it knows of an entry in `mark`, which segments
//! are still to be loaded in `load`. Not here:
//! what commands mean (`command`), what is logged (`effect`).

mod alarm;
mod buckets;
pub mod checkpoint;
pub(crate) mod cold;
mod database;
pub mod entry;
mod eviction;
mod ghosts;
pub mod hash;
mod hold;
pub mod load;
mod mark;
mod pass;
mod prefetch;
mod segment;
mod slot;
mod subtable;
pub mod table;
#[cfg(test)]
mod tests;
mod tracking;
pub(crate) mod value;

pub use alarm::Alarm;
pub use database::{DATABASES_MAX, DatabaseId, DatabaseIds, DatabaseMap};
pub use eviction::EvictionPolicy;
pub use hold::{Hold, SegmentSet};
pub use segment::{DatabaseTable, DoesNotFit, Put, Segment};

use checkpoint::History;
use hash::KeyHasher;
use hold::LockedSegment;
use load::ToCome;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use tracking::Counters;

/// All segments and the map of databases.
pub struct Keyspace {
    segments: Box<[LockedSegment]>,
    hasher: KeyHasher,
    /// Database numbers and what they stand for.
    pub databases: DatabaseMap,
    /// Entries each new table has room for.
    table_room: usize,
    /// When whoever removes expired entries looks again, and how to make it look earlier.
    pub alarm: Alarm,
    counters: Arc<Counters>,
    history: Mutex<History>,
    /// Segments whose entries are still in the file only.
    unloaded: AtomicUsize,
    /// What is in them.
    to_come: Mutex<ToCome>,
}

impl Keyspace {
    /// An empty keyspace of `segments` segments (a power of two, at most [`SegmentSet::CAPACITY`]), whose hash secret
    /// follows from `seed`; each new table has room for `table_room` entries.
    pub fn new(segments: usize, seed: u128, table_room: usize) -> Keyspace {
        assert!(segments.is_power_of_two() && segments <= SegmentSet::CAPACITY, "a power of two up to 256");
        let counters = Arc::new(Counters::default());
        Keyspace {
            segments: (0..segments).map(|_| LockedSegment::new(counters.clone())).collect(),
            hasher: KeyHasher::new(seed),
            databases: DatabaseMap::default(),
            table_room,
            alarm: Alarm::default(),
            counters,
            history: Mutex::default(),
            unloaded: AtomicUsize::new(0),
            to_come: Mutex::default(),
        }
    }

    /// The hash of a key.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash(key)
    }

    /// The hasher of all tables.
    pub fn hasher(&self) -> &KeyHasher {
        &self.hasher
    }

    /// The segment of a hash. Segments are ranges of hashes in ascending order.
    #[inline]
    pub fn segment_of(&self, hash: u64) -> usize {
        ((hash >> 48) as usize * self.segments.len()) >> 16
    }

    /// Number of segments.
    pub fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// The set of all segments.
    pub fn every_segment(&self) -> SegmentSet {
        SegmentSet::first(self.segments.len())
    }

    /// Locks `shared` for reading and `exclusive` for changes, in ascending order; a segment in both is exclusive.
    pub fn hold(&self, shared: SegmentSet, exclusive: SegmentSet) -> Hold<'_> {
        Hold::lock(self, shared, exclusive)
    }

    /// The earliest time at which an entry of a segment expires, without a lock: milliseconds, `u64::MAX` when none
    /// does. May be out of date the moment it returns.
    pub fn deadline(&self, segment: usize) -> u64 {
        self.segments[segment].deadline()
    }

    /// Bytes that all entries and tables take, with what is kept for checkpoints. Costs no lock; what is being changed at
    /// the moment is counted when its hold ends.
    #[inline]
    pub fn bytes(&self) -> usize {
        use std::sync::atomic::Ordering::Relaxed;
        let Counters { data_bytes, handed_bytes, removal_bytes, .. } = &*self.counters;
        data_bytes.load(Relaxed) + handed_bytes.load(Relaxed) + removal_bytes.load(Relaxed)
    }

    /// Entries whose value is in the block file only.
    #[inline]
    pub fn cold(&self) -> usize {
        self.counters.cold.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Whether an entry is due at `now_ms` somewhere.
    pub fn anything_due(&self, now_ms: u64) -> bool {
        (0..self.segments.len()).any(|segment| self.deadline(segment) <= now_ms)
    }
}
