//! A pinned checkpoint becomes frames.
//!
//! Entries come in ranges of hashes, so that memory does not grow with the store; within a range they come as they lie
//! in the block file.

use std::ops::RangeInclusive;

use bowline_snapshot::{Header, Writer};

use crate::blocks::format::record::encode_up_to_value;
use crate::blocks::{Record, View};
use crate::error::Result;
use crate::keyspace::DatabaseId;
use crate::keyspace::hash::KeyHasher;
use crate::version::Version;

/// Entries that a range has about; the reader of a range holds 24 bytes for each.
const RANGE_ENTRIES: u64 = 256 * 1024;

/// A state of a store that stays as it is while this lives: a checkpoint whose blocks are not used again.
pub struct Snapshot {
    view: View,
    hasher: KeyHasher,
    header: Header,
    numbers: Vec<(u32, DatabaseId)>,
}

/// A database of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotDatabase {
    /// Its number, as SELECT knows it.
    pub number: u32,
    /// What the number stands for.
    pub id: DatabaseId,
    /// Its entries; some of them may be due to expire.
    pub entries: u64,
}

impl Snapshot {
    /// `taken_at_ms`: until then nothing was written after the view's cut. `numbers`: those that stand for another id than
    /// their own.
    pub(crate) fn new(view: View, hasher: KeyHasher, taken_at_ms: u64, numbers: Vec<(u32, DatabaseId)>) -> Snapshot {
        let superblock = *view.superblock();
        let header = Header {
            store_id: superblock.identity.store_id,
            parent_store_id: superblock.parent_store_id,
            hash_seed: superblock.identity.hash_seed,
            fork_version: superblock.fork_version.0,
            cut_version: superblock.cut.0,
            log_position: superblock.log_position,
            taken_at_ms: taken_at_ms.max(superblock.cut.time_ms()),
            entries: superblock.entries,
            live_bytes: view.data_bytes(),
            databases: view.databases().to_vec(),
        };
        Snapshot { view, hasher, header, numbers }
    }

    /// What it says of itself: identity, cut, size.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Every change up to this version is in it, and none after it.
    pub fn cut(&self) -> Version {
        Version(self.header.cut_version)
    }

    /// Hands the snapshot to `each`, piece by piece: the header, then whole frames of at most 1 MiB. Memory: some MiB, and
    /// the largest value.
    ///
    /// # Errors
    /// `Corrupt` and `Io` from reading the block file, and what `each` returns. What was handed out then has no end
    /// frame, so nobody takes it for a whole one.
    pub fn write(&self, each: &mut dyn FnMut(Vec<u8>) -> Result<()>) -> Result<()> {
        let (mut writer, header) = Writer::new(&self.header);
        each(header)?;
        let mut scratch = Vec::new();
        for range in ranges(self.header.entries) {
            self.view.load(range, &self.hasher, &mut |found| {
                scratch.clear();
                let rest = encode_up_to_value(&found.record, &mut scratch);
                writer.record(&[&scratch, rest], each)
            })?;
        }
        writer.finish(each).map(|_| ())
    }

    /// The databases that have a number and entries, by their numbers.
    pub fn databases(&self) -> Vec<SnapshotDatabase> {
        let number_of = |id: DatabaseId| match self.numbers.iter().find(|(_, other)| *other == id) {
            Some((number, _)) => Some(*number),
            None if self.numbers.iter().any(|(number, _)| *number == id.0) => None,
            None => Some(id.0),
        };
        let all = self.view.database_entries().into_iter();
        let mut databases: Vec<SnapshotDatabase> =
            all.filter_map(|(id, entries)| Some(SnapshotDatabase { number: number_of(id)?, id, entries })).collect();
        databases.sort_by_key(|database| database.number);
        databases
    }

    /// Passes every entry of a database to `each`. Memory: some MiB, and the largest value.
    ///
    /// # Errors
    /// `Corrupt` and `Io` from reading the block file, and what `each` returns.
    pub fn records(&self, database: &SnapshotDatabase, each: &mut dyn FnMut(&Record<'_>) -> Result<()>) -> Result<()> {
        for range in ranges(database.entries) {
            self.view.load_database(database.id, range, &self.hasher, &mut |found| each(&found.record))?;
        }
        Ok(())
    }
}

/// Ranges of hashes with about [`RANGE_ENTRIES`] of so many entries each.
fn ranges(entries: u64) -> impl Iterator<Item = RangeInclusive<u64>> {
    let bits = entries.div_ceil(RANGE_ENTRIES).next_power_of_two().ilog2();
    (0..1u64 << bits).map(move |range| {
        let first = range.checked_shl(u64::BITS - bits).unwrap_or(0);
        first..=first | u64::MAX.checked_shr(bits).unwrap_or(0)
    })
}
