//! Looking a published checkpoint over: is every block what was written, and used exactly once; and what is it used for.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::KeyHashes;
use super::compaction::live_percent;
use super::format::BlockKind;
use super::format::leaf::{code_bytes, code_units, is_chunked};
use super::format::record::{Body, Method, ReadRecord};
use super::published::Published;
use super::space::Run;
use super::view::{Location, View};
use crate::error::{Error, Result};
use crate::keyspace::DatabaseId;

/// The index is looked over in so many parts, to bound the memory.
const PARTS: u64 = 64;
/// Problems that are told one by one; further ones are counted.
const PROBLEMS_MAX: usize = 1000;
/// Entries named as the biggest.
const BIGGEST: usize = 10;

/// Something in a block file that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where in the file, bytes.
    pub offset: u64,
    /// What does not fit.
    pub what: &'static str,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Blocks whose checksums were compared.
    pub blocks_read: u64,
    /// Entries whose records were read.
    pub entries: u64,
    /// What is wrong, the first thousand of it; empty for a sound file.
    pub problems: Vec<Problem>,
    /// How many problems there are in all.
    pub problem_count: u64,
}

/// What the blocks of a file are used for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// Blocks by use: "superblock", "data", "large value", "index", "block table", "manifest", "free".
    pub blocks: Vec<(&'static str, u64)>,
    /// Data extents by the part of them that lives: below 10 %, below 20 %, ...
    pub extent_fill: [u64; 10],
    /// Leaves of the index.
    pub leaves: u64,
    /// Entries of the emptiest and the fullest leaf.
    pub leaf_entries: (u16, u16),
    /// Databases with their entries.
    pub databases: Vec<(DatabaseId, u64)>,
    /// The biggest entries: database, key, and bytes of key and value.
    pub biggest: Vec<(DatabaseId, Vec<u8>, u64)>,
    /// Values by how they stand in the file: "plain", "lz4", "zstd", "zstd, dictionary"; kinds that there are none of are
    /// left out.
    pub values: Vec<(&'static str, ValueBytes)>,
    /// Bytes of the dictionary that values are compressed with; 0 without one.
    pub dictionary_bytes: u64,
}

/// How many values there are and what they take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ValueBytes {
    /// Values.
    pub count: u64,
    /// Their bytes; of an integer those of its text.
    pub plain_bytes: u64,
    /// Bytes that they take in the file.
    pub stored_bytes: u64,
}

impl CheckReport {
    fn problem(&mut self, offset: u64, what: &'static str) {
        self.problem_count += 1;
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(Problem { offset, what });
        }
    }

    /// Notes damage; other errors end the check.
    fn note(&mut self, result: Result<()>) -> Result<()> {
        match result {
            Err(Error::Corrupt { offset, what, .. }) => {
                self.problem(offset, what);
                Ok(())
            }
            other => other,
        }
    }
}

/// What each block is used for, as far as the check has come.
struct Uses<'a> {
    view: &'a View,
    kinds: Vec<Option<BlockKind>>,
    /// Live units by the first block of their extent.
    live: BTreeMap<u32, u32>,
}

impl Uses<'_> {
    fn take(&mut self, run: Run, kind: BlockKind, report: &mut CheckReport) {
        for block in run.block..run.block + run.blocks {
            match self.kinds.get_mut(block as usize) {
                Some(used @ None) => *used = Some(kind),
                Some(Some(_)) => report.problem(self.view.device.offset(block), "a block is used twice"),
                None => report.problem(self.view.device.offset(block), "a block behind the end of the file is used"),
            }
        }
    }

    /// Counts an entry of the index.
    fn entry(&mut self, location: Location, report: &mut CheckReport) {
        let table = &self.view.published.table;
        match table.extent_of(location.block) {
            Some(run) => {
                if !self.live.contains_key(&run.block) {
                    self.take(run, BlockKind::Data, report);
                }
                *self.live.entry(run.block).or_default() += code_units(location.size_code);
            }
            None => {
                let offset = self.view.device.offset(location.block);
                report.problem(offset, "the index names a block that holds no records");
            }
        }
    }
}

impl View {
    /// Reads the whole checkpoint and compares everything: the checksum of every block that is used, the block table
    /// with what index and manifest reach, and every entry of the index with its record.
    ///
    /// # Errors
    /// `Io`. Damage is in the report.
    pub fn check(&self, hashes: &dyn KeyHashes) -> Result<CheckReport> {
        let mut report = CheckReport::default();
        let kinds = vec![None; self.published.table.blocks() as usize];
        let mut uses = Uses { view: self, kinds, live: BTreeMap::new() };
        for (block, kind) in self.published.own_blocks() {
            uses.take(Run { block, blocks: 1 }, kind, &mut report);
        }
        // What is kept in memory is read again: it may have rotted since.
        let again = Published::read(&self.device, self.published.superblock).map(drop);
        report.blocks_read += self.published.own_blocks().count() as u64;
        report.note(again)?;
        self.check_extents(&mut report)?;
        for part in 0..PARTS {
            let range = range_of(part);
            let mut chunked = Vec::new();
            let entries = self.entries(range.clone(), &mut |_, hash, location| {
                uses.entry(location, &mut report);
                if is_chunked(location.size_code) {
                    chunked.push((hash, location));
                }
            });
            report.note(entries)?;
            for (hash, location) in chunked {
                let taken = self.take_chunks(hash, location, hashes, &mut uses, &mut report);
                report.note(taken)?;
            }
            let mut loaded = 0;
            let all = self.load(range, hashes, &mut |_| {
                loaded += 1;
                Ok(())
            });
            report.entries += loaded;
            report.note(all)?;
        }
        self.compare_table(&uses, &mut report);
        Ok(report)
    }

    /// Compares the checksum of every block of data and chunks.
    fn check_extents(&self, report: &mut CheckReport) -> Result<()> {
        let (mut raw, mut stream) = (Vec::new(), Vec::new());
        for kind in [BlockKind::Data, BlockKind::Chunk] {
            for (run, _) in self.published.table.extents(kind) {
                stream.clear();
                self.device.read_into(run.block, run.blocks, &mut raw)?;
                let read = self.records().stream(kind, run.block, &raw, &mut stream).map(drop);
                report.blocks_read += u64::from(run.blocks);
                report.note(read)?;
            }
        }
        Ok(())
    }

    fn take_chunks(
        &self,
        hash: u64,
        location: Location,
        hashes: &dyn KeyHashes,
        uses: &mut Uses<'_>,
        report: &mut CheckReport,
    ) -> Result<()> {
        self.with_named(hash, location, hashes, |record| {
            let Body::Chunked { list, .. } = &record.body else {
                return Ok(());
            };
            let (body, lists) = self.records().all_chunks(list)?;
            for chunk in body.into_iter().chain(lists) {
                let run = Run { block: chunk.block, blocks: u32::from(chunk.blocks) };
                uses.take(run, BlockKind::Chunk, report);
                uses.live.insert(chunk.block, 1);
            }
            Ok(())
        })
        .map(drop)
    }

    /// Passes the record to `visit` that an entry of the index names.
    fn with_named<R>(
        &self,
        hash: u64,
        location: Location,
        hashes: &dyn KeyHashes,
        visit: impl FnOnce(&ReadRecord<'_>) -> Result<R>,
    ) -> Result<Option<R>> {
        let at = (location.block, location.size_code);
        self.records().find(at, |_, key| hashes.hash(key) == hash, |record, _| visit(record))
    }

    fn compare_table(&self, uses: &Uses<'_>, report: &mut CheckReport) {
        let mut live = 0;
        for ((block, entry), used) in self.published.table.all().zip(&uses.kinds) {
            let offset = self.device.offset(block);
            match (entry.kind(), used) {
                (Some(_), None) => {
                    report.problem(offset, "a block is leaked: the table has it in use, nothing names it")
                }
                (kind, used) if kind != *used => report.problem(offset, "the table says otherwise what a block is for"),
                _ => {}
            }
            let is_extent = matches!(entry.kind(), Some(BlockKind::Data | BlockKind::Chunk)) && entry.place() == 0;
            if is_extent && uses.live.get(&block) != Some(&entry.live()) {
                report.problem(offset, "the table counts the live units of an extent otherwise than the index");
            }
            if entry.kind() == Some(BlockKind::Data) {
                live += code_bytes_of(entry.live());
            }
        }
        if live != self.published.superblock.live_bytes {
            report.problem(
                self.device.offset(self.published.superblock.slot()),
                "the superblock counts other live bytes",
            );
        }
    }

    /// What the blocks are used for.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub fn inspect(&self, hashes: &dyn KeyHashes) -> Result<Inspection> {
        let published = &self.published;
        let mut inspection = Inspection { databases: self.database_entries(), ..Inspection::default() };
        let mut counts = BTreeMap::new();
        for (_, entry) in published.table.all() {
            *counts.entry(entry.kind()).or_default() += 1;
        }
        let names = BlockKind::ALL.into_iter().map(|kind| (Some(kind), name(kind))).chain([(None, "free")]);
        inspection.blocks = names.map(|(kind, name)| (name, counts.get(&kind).copied().unwrap_or(0))).collect();
        for (run, live) in published.table.extents(BlockKind::Data) {
            let (percent, _) = live_percent(run, live, self.device.block_bytes);
            if let Some(count) = inspection.extent_fill.get_mut((percent / 10).min(9) as usize) {
                *count += 1;
            }
        }
        let leaves = || published.directories.values().flat_map(|leaves| leaves.iter().map(|leaf| leaf.entries));
        inspection.leaves = published.leaf_count() as u64;
        inspection.leaf_entries = (leaves().min().unwrap_or(0), leaves().max().unwrap_or(0));
        inspection.biggest = self.biggest(hashes)?;
        inspection.values = self.values(hashes)?;
        inspection.dictionary_bytes = published.dictionary.as_ref().map_or(0, |it| it.bytes().len() as u64);
        Ok(inspection)
    }

    /// Counts what the values take, from their records alone.
    fn values(&self, hashes: &dyn KeyHashes) -> Result<Vec<(&'static str, ValueBytes)>> {
        let mut by_kind: BTreeMap<Option<u8>, (&'static str, ValueBytes)> = BTreeMap::new();
        for part in 0..PARTS {
            self.load_stored(range_of(part), hashes, &mut |record, _, _, _| {
                let (method, plain_bytes, stored_bytes) = match record.body {
                    Body::Inline { value, .. } => (value.method(), value.plain_bytes(), value.stored_bytes()),
                    Body::Chunked { value, .. } => {
                        (value.compression.map(|(method, _)| method), value.plain_bytes(), value.stored_bytes)
                    }
                };
                let name = method.map_or("plain", Method::name);
                let (_, bytes) = by_kind.entry(method.map(|method| method as u8)).or_insert((name, Default::default()));
                bytes.count += 1;
                bytes.plain_bytes += plain_bytes;
                bytes.stored_bytes += stored_bytes;
                Ok(())
            })?;
        }
        Ok(by_kind.into_values().collect())
    }

    fn biggest(&self, hashes: &dyn KeyHashes) -> Result<Vec<(DatabaseId, Vec<u8>, u64)>> {
        let mut inline: Vec<(usize, u64, Location)> = Vec::new();
        let mut chunked = Vec::new();
        self.entries(0..=u64::MAX, &mut |_, hash, location| {
            if is_chunked(location.size_code) {
                chunked.push((hash, location));
            } else {
                inline.push((code_bytes(location.size_code), hash, location));
            }
            if inline.len() >= 16 * BIGGEST {
                inline.sort_by_key(|(bytes, ..)| std::cmp::Reverse(*bytes));
                inline.truncate(BIGGEST);
            }
        })?;
        inline.sort_by_key(|(bytes, ..)| std::cmp::Reverse(*bytes));
        inline.truncate(BIGGEST);
        let mut biggest = Vec::new();
        for (hash, location) in chunked.into_iter().chain(inline.into_iter().map(|(_, hash, at)| (hash, at))) {
            let told = self.with_named(hash, location, hashes, |record| {
                let bytes = match record.body {
                    Body::Inline { key, value } => key.len() as u64 + value.plain_bytes(),
                    Body::Chunked { key_bytes, value, .. } => key_bytes.saturating_add(value.plain_bytes()),
                };
                let mut buffer = Default::default();
                self.records().with_key(record, &mut buffer, |key| (record.database, key.to_vec(), bytes))
            })?;
            biggest.extend(told.flatten());
            if biggest.len() >= 16 * BIGGEST {
                biggest.sort_by_key(|(_, _, bytes)| std::cmp::Reverse(*bytes));
                biggest.truncate(BIGGEST);
            }
        }
        biggest.sort_by_key(|(_, _, bytes)| std::cmp::Reverse(*bytes));
        biggest.truncate(BIGGEST);
        Ok(biggest)
    }
}

/// The hashes of one part.
fn range_of(part: u64) -> RangeInclusive<u64> {
    let first = part << (64 - PARTS.ilog2());
    first..=first + (u64::MAX >> PARTS.ilog2())
}

fn code_bytes_of(units: u32) -> u64 {
    u64::from(units) * super::format::leaf::UNIT_BYTES as u64
}

fn name(kind: BlockKind) -> &'static str {
    match kind {
        BlockKind::Superblock => "superblock",
        BlockKind::Data => "data",
        BlockKind::Chunk => "large value",
        BlockKind::Leaf => "index",
        BlockKind::Table => "block table",
        BlockKind::Manifest => "manifest",
    }
}
