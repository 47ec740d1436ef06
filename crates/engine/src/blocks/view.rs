//! Reading a published checkpoint.

use std::ops::RangeInclusive;

use super::{KeyHashes, Record, Superblock};
use crate::error::Result;
use crate::keyspace::DatabaseId;

/// Where an entry stands in the block file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// The block that its record starts in.
    pub block: u32,
    /// Its size as the index keeps it.
    pub size_code: u8,
}

/// An entry that has been loaded.
#[derive(Clone, Copy, Debug)]
pub struct LoadedRecord<'a> {
    /// The entry.
    pub record: Record<'a>,
    /// The hash of its key.
    pub hash: u64,
    /// Where it stands.
    pub location: Location,
}

/// A reader of one published checkpoint, and the pin on its blocks. Cheap to clone; any number of threads may read.
#[derive(Clone)]
pub struct View {}

impl View {
    /// The checkpoint's superblock.
    pub fn superblock(&self) -> &Superblock {
        todo!()
    }

    /// The database map of the checkpoint.
    pub fn databases(&self) -> &[u8] {
        todo!()
    }

    /// Entries of a database by the index's leaves, without reading them.
    pub fn database_entries(&self) -> Vec<(DatabaseId, u64)> {
        todo!()
    }

    /// Passes every entry whose hash lies in `range` to `visit`, in the order of the file. Reads neighbouring blocks
    /// together; memory: some MiB and 24 bytes for each entry of the range.
    ///
    /// # Errors
    /// `Corrupt` for any block that is not what was written, `Io`, and what `visit` returns.
    pub fn load(
        &self,
        range: RangeInclusive<u64>,
        hashes: &dyn KeyHashes,
        visit: &mut dyn FnMut(LoadedRecord<'_>) -> Result<()>,
    ) -> Result<()> {
        let _ = (range, hashes, visit);
        todo!()
    }

    /// Passes the hash and location of every entry of the range to `visit`, by database and ascending hash, from the
    /// leaves alone.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub fn entries(&self, range: RangeInclusive<u64>, visit: &mut dyn FnMut(DatabaseId, u64, Location)) -> Result<()> {
        let _ = (range, visit);
        todo!()
    }

    /// Reads the entry of `key` whose location is known: one read call, more only for a large value. `None` when
    /// another key of the same hash stands there.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub fn read<R>(
        &self,
        location: Location,
        database: DatabaseId,
        key: &[u8],
        visit: impl FnOnce(Record<'_>) -> R,
    ) -> Result<Option<R>> {
        let _ = (location, database, key, visit);
        todo!()
    }

    /// Looks a key up and reads it: a leaf and the record.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub fn get<R>(
        &self,
        database: DatabaseId,
        key: &[u8],
        hash: u64,
        visit: impl FnOnce(Record<'_>, Location) -> R,
    ) -> Result<Option<R>> {
        let _ = (database, key, hash, visit);
        todo!()
    }
}
