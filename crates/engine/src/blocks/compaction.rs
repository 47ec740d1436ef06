//! Compaction: the records that still live in sparse extents are put again, so that the extents become free.
//!
//! At the beginning of a checkpoint the sparsest extents are chosen, within a budget. Their records are read with the
//! first range and wait in memory, ordered by hash; each range puts its own again, where the index of the checkpoint
//! before names them and no change of this checkpoint is about their hash. So records stay near others of their range,
//! and what is not moved only keeps its extent alive.
//!
//! Liveness is what the index says: an extent is free when nothing in it is named, whoever moved its records.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::format::leaf::{IndexEntry, UNIT_BYTES};
use super::format::manifest::LeafRef;
use super::format::record::ReadRecord;
use super::format::{BlockKind, stream_bytes};
use super::index::{Change, ChangeKind};
use super::published::Published;
use super::records::{BodyBuffer, Records};
use super::sort;
use super::space::Run;
use super::writer::Writer;
use crate::error::Result;

/// An extent is sparse when less than this part of it lives, percent; moving its records frees at least as much as it
/// takes.
const SPARSE_PERCENT: u64 = 50;
/// The same when space is short.
const SPARSE_TIGHT_PERCENT: u64 = 85;
/// Most bytes read for each byte that may be moved.
const READ_FACTOR: u64 = 4;

/// A record in a sparse extent.
#[derive(Clone, Copy)]
struct Candidate {
    hash: u64,
    database: u32,
    /// The block that it starts in.
    from: u32,
    /// Where its bytes stand in the buffer.
    start: usize,
    bytes: usize,
}

/// The sparse extents of a checkpoint and what was read of them.
#[derive(Default)]
pub(crate) struct Compaction {
    /// Not yet read.
    extents: Vec<Run>,
    /// By rising hash.
    candidates: Vec<Candidate>,
    bytes: Vec<u8>,
    /// The first candidate of the ranges to come.
    next: usize,
    pub(crate) moved: u64,
    pub(crate) moved_bytes: u64,
    /// Chosen extents that could not be read.
    pub(crate) unreadable: u64,
}

/// The part of an extent that lives, percent, and its size in bytes.
pub(crate) fn live_percent(run: Run, live_units: u32, block_bytes: usize) -> (u64, u64) {
    let size = u64::from(run.blocks) * stream_bytes(block_bytes) as u64;
    ((u64::from(live_units) * UNIT_BYTES as u64).saturating_mul(100) / size, size)
}

impl Compaction {
    /// Chooses extents with up to `budget` live bytes: those from block `move_from` on, then the sparsest.
    pub(crate) fn choose(base: &Published, budget: u64, tight: bool, move_from: u32) -> Compaction {
        let block_bytes = base.superblock.block_bytes as usize;
        let threshold = if tight { SPARSE_TIGHT_PERCENT } else { SPARSE_PERCENT };
        let mut sparse: Vec<(u64, Run, u32)> = base
            .table
            .extents(BlockKind::Data)
            .map(|(run, live)| match run.block {
                block if block >= move_from => (0, run, live),
                _ => (live_percent(run, live, block_bytes).0, run, live),
            })
            .filter(|(percent, ..)| *percent < threshold)
            .collect();
        sparse.sort_unstable_by_key(|(percent, run, _)| (*percent, *run));
        let (mut live_bytes, mut read_bytes) = (0, 0);
        let within = sparse.into_iter().take_while(|(_, run, live)| {
            live_bytes += u64::from(*live) * UNIT_BYTES as u64;
            read_bytes += u64::from(run.blocks) * block_bytes as u64;
            live_bytes <= budget && read_bytes <= budget.saturating_mul(READ_FACTOR)
        });
        let mut extents: Vec<Run> = within.map(|(_, run, _)| run).collect();
        if let [only] = extents[..]
            && only.blocks == 1
            && only.block < move_from
        {
            // A single block would become a single block again.
            extents.clear();
        }
        extents.sort_unstable();
        Compaction { extents, ..Compaction::default() }
    }

    /// Puts the records of the range that ends with `last` again. `changes` are those of the range, by database and hash.
    pub(crate) fn moves(
        &mut self,
        last: u64,
        changes: &[Change],
        directories: &BTreeMap<u32, Arc<Vec<LeafRef>>>,
        writer: &mut Writer<'_>,
    ) -> Result<Vec<Change>> {
        self.read_extents(writer);
        let mut lookup = Lookup { directories, database: 0, leaf: None, entries: Vec::new() };
        let mut moves = Vec::new();
        while let Some(candidate) = self.candidates.get(self.next).filter(|candidate| candidate.hash <= last) {
            self.next += 1;
            if !writer.may_move() {
                continue;
            }
            let (database, hash, from) = (candidate.database, candidate.hash, candidate.from);
            let wanted = (database, hash);
            if changes.binary_search_by_key(&wanted, |change| (change.database, change.hash)).is_ok() {
                continue;
            }
            let Some(entry) = lookup.find(writer, database, hash, from)? else {
                continue;
            };
            let record = self.bytes.get(candidate.start..candidate.start + candidate.bytes).unwrap_or_default();
            let Some(block) = writer.append(hash, entry.size_code, record)? else {
                continue;
            };
            self.moved += 1;
            self.moved_bytes += record.len() as u64;
            let kind = ChangeKind::Move { from };
            moves.push(Change { database, hash, fingerprint: 0, kind, block, size_code: entry.size_code });
        }
        if self.next == self.candidates.len() {
            (self.candidates, self.bytes, self.next) = (Vec::new(), Vec::new(), 0);
        }
        Ok(moves)
    }

    /// Reads the chosen extents. One that cannot be read stays where it is: who reads its entries will say so.
    fn read_extents(&mut self, writer: &Writer<'_>) {
        for run in std::mem::take(&mut self.extents) {
            let (candidates, bytes) = (self.candidates.len(), self.bytes.len());
            if self.read_extent(writer, run).is_err() {
                self.candidates.truncate(candidates);
                self.bytes.truncate(bytes);
                self.unreadable += 1;
            }
            (writer.pause)();
        }
        sort::by_hash(&mut self.candidates, |candidate| candidate.hash, writer.pause);
    }

    fn read_extent(&mut self, writer: &Writer<'_>, run: Run) -> Result<()> {
        let part = stream_bytes(writer.device.block_bytes);
        let records = Records { device: &writer.device, table: &writer.base.table, dictionary: None };
        let (mut raw, mut stream, mut body) = (Vec::new(), Vec::new(), BodyBuffer::default());
        writer.device.read_into(run.block, run.blocks, &mut raw)?;
        let mut at = records.stream(BlockKind::Data, run.block, &raw, &mut stream)?.unwrap_or(stream.len());
        while let Some(record) = stream.get(at..).and_then(ReadRecord::decode) {
            if let Some(hash) = records.with_key(&record, &mut body, |key| writer.hashes.hash(key))? {
                let (database, from) = (record.database.0, run.block + (at / part) as u32);
                let (start, bytes) = (self.bytes.len(), record.bytes);
                self.candidates.push(Candidate { hash, database, from, start, bytes });
                self.bytes.extend_from_slice(stream.get(at..at + bytes).unwrap_or_default());
            }
            at += record.bytes;
        }
        Ok(())
    }
}

/// Finds entries of the checkpoint before; quick when they are asked for in order.
struct Lookup<'a> {
    directories: &'a BTreeMap<u32, Arc<Vec<LeafRef>>>,
    database: u32,
    leaf: Option<LeafRef>,
    entries: Vec<IndexEntry>,
}

impl Lookup<'_> {
    fn find(&mut self, writer: &Writer<'_>, database: u32, hash: u64, block: u32) -> Result<Option<IndexEntry>> {
        let Some(leaves) = self.directories.get(&database) else {
            return Ok(None);
        };
        // Entries of one hash may go on in the next leaves.
        let first = leaves.partition_point(|leaf| leaf.first_hash < hash).saturating_sub(1);
        for leaf in leaves.iter().skip(first).take_while(|leaf| leaf.first_hash <= hash) {
            if self.leaf != Some(*leaf) || self.database != database {
                self.entries.clear();
                writer.device.read_leaf(database, leaf, &mut self.entries)?;
                (writer.pause)();
                (self.leaf, self.database) = (Some(*leaf), database);
            }
            let from = self.entries.partition_point(|entry| entry.hash < hash);
            let equal = self.entries.iter().skip(from).take_while(|entry| entry.hash == hash);
            if let Some(entry) = equal.copied().find(|entry| entry.block == block) {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }
}
