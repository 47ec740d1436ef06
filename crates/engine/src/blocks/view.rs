//! Reading a published checkpoint.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::KeyHashes;
use super::device::Device;
use super::format::leaf::IndexEntry;
use super::format::manifest::LeafRef;
use super::format::record::{ReadRecord, Record};
use super::format::superblock::Superblock;
use super::format::{BlockKind, stream_bytes};
use super::published::Published;
use super::records::{BodyBuffer, Records};
use super::space::Run;
use crate::error::Result;
use crate::keyspace::DatabaseId;
use crate::keyspace::cold::ColdValue;
use crate::keyspace::entry::Entry;
pub use crate::keyspace::entry::Location;

/// Bytes read at once while loading.
const READ_BYTES: usize = 1024 * 1024;
/// Blocks that nobody asked for are read along when they lie between two that are, up to this many bytes.
const GAP_BYTES: usize = 64 * 1024;

/// Entries are counted into the order of their blocks where these lie among at most so many for each entry.
const SPAN_MAX: usize = 4;

/// Where the index says that an entry stands.
fn location_of(entry: &IndexEntry) -> Location {
    Location { block: entry.block, size_code: entry.size_code }
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
pub struct View {
    pub(super) device: Arc<Device>,
    pub(super) published: Arc<Published>,
}

/// An entry to be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Wanted {
    block: u32,
    hash: u64,
    database: u32,
    size_code: u8,
}

impl View {
    /// The checkpoint's superblock.
    pub fn superblock(&self) -> &Superblock {
        &self.published.superblock
    }

    /// Whether both read the same checkpoint.
    pub fn is_same(&self, other: &View) -> bool {
        Arc::ptr_eq(&self.published, &other.published)
    }

    /// Reads the entry whose value was left here: one read call, more only for a large value.
    ///
    /// # Errors
    /// `Corrupt`, also where its record is not there; `Io`.
    pub(crate) fn read_cold(&self, cold: &ColdValue, database: DatabaseId, key: &[u8]) -> Result<Entry> {
        let found = self.read(cold.location, database, key, |record| {
            let is_it = record.version == cold.version;
            is_it.then(|| Entry::new(record.key, record.value, record.version, record.created, record.expire_at))
        })?;
        let what = "the record of a value that is not in memory is not there";
        found.flatten().ok_or_else(|| self.device.corrupt(cold.location.block, what))
    }

    /// The database map of the checkpoint.
    pub fn databases(&self) -> &[u8] {
        &self.published.databases
    }

    /// About how many bytes the records take, those of large values counted. Cost: a pass over the block table, some
    /// milliseconds for each 10 GB of the file.
    pub fn data_bytes(&self) -> u64 {
        let chunks = self.published.table.extents(BlockKind::Chunk);
        let blocks: u64 = chunks.map(|(run, _)| u64::from(run.blocks)).sum();
        self.superblock().live_bytes + blocks * self.device.block_bytes as u64
    }

    /// The databases that have entries, and how many.
    pub fn database_entries(&self) -> Vec<(DatabaseId, u64)> {
        let count = |leaves: &[LeafRef]| leaves.iter().map(|leaf| u64::from(leaf.entries)).sum();
        self.published.directories.iter().map(|(id, leaves)| (DatabaseId(*id), count(leaves))).collect()
    }

    /// Passes the hash and location of every entry of the range to `visit`, by database and ascending hash, from the
    /// leaves alone.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub fn entries(&self, range: RangeInclusive<u64>, visit: &mut dyn FnMut(DatabaseId, u64, Location)) -> Result<()> {
        let databases = self.published.directories.keys();
        databases.copied().map(DatabaseId).try_for_each(|database| {
            self.entries_of(database, range.clone(), &mut |hash, location| visit(database, hash, location))
        })
    }

    fn entries_of(
        &self,
        database: DatabaseId,
        range: RangeInclusive<u64>,
        visit: &mut dyn FnMut(u64, Location),
    ) -> Result<()> {
        let Some(leaves) = self.published.directories.get(&database.0) else {
            return Ok(());
        };
        let mut entries = Vec::new();
        // The leaf before the first that begins within the range may reach into it.
        let first = leaves.partition_point(|leaf| leaf.first_hash < *range.start()).saturating_sub(1);
        for leaf in leaves.iter().skip(first).take_while(|leaf| leaf.first_hash <= *range.end()) {
            entries.clear();
            self.device.read_leaf(database.0, leaf, &mut entries)?;
            for entry in entries.iter().filter(|entry| range.contains(&entry.hash)) {
                visit(entry.hash, location_of(entry));
            }
        }
        Ok(())
    }

    /// Looks up where the records of keys with these hashes, which ascend, stand. Passes a hash to `visit` if one key of
    /// the database has it, and no second one. Reads each leaf once.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub fn locate(&self, database: DatabaseId, hashes: &[u64], visit: &mut dyn FnMut(u64, Location)) -> Result<()> {
        let Some(leaves) = self.published.directories.get(&database.0) else { return Ok(()) };
        let (mut entries, mut read) = (Vec::new(), 0..0);
        for &hash in hashes {
            let first = leaves.partition_point(|leaf| leaf.first_hash < hash).saturating_sub(1);
            let end = leaves.partition_point(|leaf| leaf.first_hash <= hash);
            if read != (first..end) {
                entries.clear();
                for leaf in leaves.get(first..end).unwrap_or_default() {
                    self.device.read_leaf(database.0, leaf, &mut entries)?;
                }
                read = first..end;
            }
            let mut equal = entries.iter().skip(entries.partition_point(|entry| entry.hash < hash));
            let found = equal.next().filter(|entry| entry.hash == hash);
            if let (Some(entry), true) = (found, equal.next().is_none_or(|next| next.hash != hash)) {
                visit(hash, location_of(entry));
            }
        }
        Ok(())
    }

    /// Passes every entry whose hash lies in `range` to `visit`, in the order of the file. Reads neighbouring blocks
    /// together. Memory: some MiB, 48 bytes for each entry of the range, and the largest value, twice where it is compressed.
    ///
    /// # Errors
    /// `Corrupt` for any block that is not what was written and any entry without its record, `Io`, and what `visit`
    /// returns.
    pub fn load(
        &self,
        range: RangeInclusive<u64>,
        hashes: &dyn KeyHashes,
        visit: &mut dyn FnMut(LoadedRecord<'_>) -> Result<()>,
    ) -> Result<()> {
        self.load_stored(range, hashes, &mut |read, hash, location, buffer| {
            let records = self.records();
            records.with_body(location.block, read, buffer, |record| visit(LoadedRecord { record, hash, location }))?
        })
    }

    /// As [`View::load`], with the records as they stand in the file.
    pub(super) fn load_stored(
        &self,
        range: RangeInclusive<u64>,
        hashes: &dyn KeyHashes,
        visit: VisitStored<'_>,
    ) -> Result<()> {
        let mut wanted = Vec::new();
        self.entries(range, &mut |database, hash, Location { block, size_code }| {
            wanted.push(Wanted { block, hash, database: database.0, size_code });
        })?;
        self.load_wanted(wanted, hashes, visit)
    }

    /// As [`View::load`], for the entries of one database.
    ///
    /// # Errors
    /// The same.
    pub fn load_database(
        &self,
        of: DatabaseId,
        range: RangeInclusive<u64>,
        hashes: &dyn KeyHashes,
        visit: &mut dyn FnMut(LoadedRecord<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut wanted = Vec::new();
        self.entries_of(of, range, &mut |hash, Location { block, size_code }| {
            wanted.push(Wanted { block, hash, database: of.0, size_code });
        })?;
        self.load_wanted(wanted, hashes, &mut |read, hash, location, buffer| {
            let records = self.records();
            records.with_body(location.block, read, buffer, |record| visit(LoadedRecord { record, hash, location }))?
        })
    }

    fn load_wanted(&self, mut wanted: Vec<Wanted>, hashes: &dyn KeyHashes, visit: VisitStored<'_>) -> Result<()> {
        sort_by_place(&mut wanted);
        let mut loading =
            Loading { view: self, hashes, visit, raw: Vec::new(), stream: Vec::new(), body: BodyBuffer::default() };
        let mut rest = &wanted[..];
        while !rest.is_empty() {
            let (extents, count) = loading.gather(rest)?;
            let (now, later) = rest.split_at(count);
            loading.read(&extents, now)?;
            rest = later;
        }
        Ok(())
    }

    /// Reads the entry of `key` whose location is known: one read call, more only for a large value. `None` when
    /// another key stands there.
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
        let records = self.records();
        records.find(
            (location.block, location.size_code),
            |record, its_key| record.database == database && its_key == key,
            |record, buffer| records.with_body(location.block, record, buffer, visit),
        )
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
        let Some(leaves) = self.published.directories.get(&database.0) else {
            return Ok(None);
        };
        let mut visit = Some(visit);
        let first = leaves.partition_point(|leaf| leaf.first_hash < hash).saturating_sub(1);
        let mut entries = Vec::new();
        for leaf in leaves.iter().skip(first).take_while(|leaf| leaf.first_hash <= hash) {
            entries.clear();
            self.device.read_leaf(database.0, leaf, &mut entries)?;
            for location in entries.iter().filter(|entry| entry.hash == hash).map(location_of) {
                let found =
                    self.read(location, database, key, |record| visit.take().map(|visit| visit(record, location)))?;
                if let Some(found) = found {
                    return Ok(found);
                }
            }
        }
        Ok(None)
    }

    pub(super) fn records(&self) -> Records<'_> {
        let Published { table, dictionary, .. } = &*self.published;
        Records { device: &self.device, table, dictionary: dictionary.as_deref() }
    }
}

/// Takes a record as it stands in the file, the hash of its key, its location, and what its value is read with.
type VisitStored<'a> = &'a mut dyn FnMut(&ReadRecord<'_>, u64, Location, &mut BodyBuffer) -> Result<()>;

/// A load under way.
struct Loading<'a> {
    view: &'a View,
    hashes: &'a dyn KeyHashes,
    visit: VisitStored<'a>,
    raw: Vec<u8>,
    stream: Vec<u8>,
    body: BodyBuffer,
}

impl Loading<'_> {
    /// The extents of the first of `wanted`, as far as they are read with one call, and how many entries they hold.
    fn gather(&self, wanted: &[Wanted]) -> Result<(Vec<Run>, usize)> {
        let (device, table) = (&self.view.device, &self.view.published.table);
        let blocks = |bytes: usize| (bytes / device.block_bytes) as u32;
        let mut extents: Vec<Run> = Vec::new();
        for (place, entry) in wanted.iter().enumerate() {
            let run = table.extent_of(entry.block).filter(|_| table.get(entry.block).kind() == Some(BlockKind::Data));
            let what = "the index names a block that holds no records";
            let run = run.ok_or_else(|| device.corrupt(entry.block, what))?;
            match (extents.first(), extents.last()) {
                (_, Some(last)) if last.block == run.block => continue,
                (Some(first), Some(last))
                    if run.block + run.blocks - first.block > blocks(READ_BYTES)
                        || run.block - (last.block + last.blocks) > blocks(GAP_BYTES) =>
                {
                    return Ok((extents, place));
                }
                _ => extents.push(run),
            }
        }
        Ok((extents, wanted.len()))
    }

    /// Reads extents that lie near each other and passes on what is wanted of them.
    fn read(&mut self, extents: &[Run], wanted: &[Wanted]) -> Result<()> {
        let (Some(first), Some(last)) = (extents.first(), extents.last()) else {
            return Ok(());
        };
        let block_bytes = self.view.device.block_bytes;
        let mut raw = std::mem::take(&mut self.raw);
        self.view.device.read_into(first.block, last.block + last.blocks - first.block, &mut raw)?;
        let mut rest = wanted;
        for extent in extents {
            let count = rest.partition_point(|entry| entry.block < extent.block + extent.blocks);
            let (now, later) = rest.split_at(count);
            let start = (extent.block - first.block) as usize * block_bytes;
            let bytes = raw.get(start..).unwrap_or_default();
            let bytes = bytes.get(..extent.blocks as usize * block_bytes).unwrap_or(bytes);
            self.pass_on(*extent, bytes, now)?;
            rest = later;
        }
        self.raw = raw;
        Ok(())
    }

    /// Passes the records of an extent on that are wanted; each of them must be there.
    fn pass_on(&mut self, extent: Run, bytes: &[u8], wanted: &[Wanted]) -> Result<()> {
        let records = self.view.records();
        let part = stream_bytes(self.view.device.block_bytes);
        self.stream.clear();
        let first = records.stream(BlockKind::Data, extent.block, bytes, &mut self.stream)?;
        let mut at = first.unwrap_or(self.stream.len());
        let mut found = 0;
        let mut of_block = (extent.block, of_block(wanted, extent.block));
        while let Some(record) = self.stream.get(at..).and_then(ReadRecord::decode) {
            let block = extent.block + (at / part) as u32;
            if of_block.0 != block {
                of_block = (block, self::of_block(wanted, block));
            }
            at += record.bytes;
            if of_block.1.is_empty() {
                continue;
            }
            let hashes = self.hashes;
            let Some(hash) = records.with_key(&record, &mut self.body, |key| hashes.hash(key))? else {
                continue;
            };
            let Ok(place) = of_block.1.binary_search_by_key(&hash, |entry| entry.hash) else {
                continue;
            };
            let Some(entry) = of_block.1.get(place).filter(|entry| entry.database == record.database.0) else {
                continue;
            };
            found += 1;
            let location = Location { block, size_code: entry.size_code };
            (self.visit)(&record, hash, location, &mut self.body)?;
        }
        if found != wanted.len() {
            let what = "the index names a record that is not there";
            return Err(self.view.device.corrupt(extent.block, what));
        }
        Ok(())
    }
}

/// Puts entries, which are in order of database and hash, into that of their blocks, and by hash in each. Those of a segment
/// stand close together, so they are counted into their places, which takes a fifth of the time of comparing them.
fn sort_by_place(wanted: &mut Vec<Wanted>) {
    let blocks = wanted.iter().map(|entry| entry.block);
    let (Some(first), Some(last)) = (blocks.clone().min(), blocks.max()) else { return };
    let span = (last - first) as usize + 1;
    if span > SPAN_MAX * wanted.len() {
        wanted.sort_unstable();
        return;
    }
    // Of each block: where its next entry goes.
    let mut next = vec![0usize; span + 1];
    let of = |entry: &Wanted| (entry.block - first) as usize;
    wanted.iter().for_each(|entry| next[of(entry) + 1] += 1);
    (1..=span).for_each(|at| next[at] += next[at - 1]);
    let mut sorted = wanted.clone();
    for entry in wanted.iter() {
        let place = &mut next[of(entry)];
        sorted[*place] = *entry;
        *place += 1;
    }
    // Two databases may share a block.
    for block in sorted.chunk_by_mut(|one, other| one.block == other.block) {
        if !block.is_sorted() {
            block.sort_unstable();
        }
    }
    *wanted = sorted;
}

/// The entries of one block.
fn of_block(wanted: &[Wanted], block: u32) -> &[Wanted] {
    let start = wanted.partition_point(|entry| entry.block < block);
    let end = wanted.partition_point(|entry| entry.block <= block);
    wanted.get(start..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn entries_come_in_the_order_of_their_places(
            entries in prop::collection::vec((0u32..3, any::<u64>(), 0u32..400, any::<u8>()), 0..600),
            far in prop::option::of(any::<u32>()),
        ) {
            let make = |(database, hash, block, size_code): (u32, u64, u32, u8)| Wanted { block, hash: hash % 999, database, size_code };
            let mut wanted: Vec<Wanted> = entries.into_iter().map(make).collect();
            wanted.extend(far.map(|block| Wanted { block, hash: 7, database: 3, size_code: 1 }));
            wanted.sort_by_key(|entry| (entry.database, entry.hash));
            let mut expected = wanted.clone();
            expected.sort_unstable();
            sort_by_place(&mut wanted);
            prop_assert_eq!(wanted, expected);
        }
    }
}
