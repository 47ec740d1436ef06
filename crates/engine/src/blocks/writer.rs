//! Where a checkpoint puts its blocks: extents of records, chunks, and single blocks of the index. Copy on write: it
//! takes free blocks only, and what it frees of the published checkpoint is not used again before the next one.
//!
//! A writer owns copies of the block table and of the free space. Dropped, it leaves nothing behind but bytes in blocks
//! that are free.
//!
//! Not here: what is put (`checkpoint`), how leaves are merged (`index`).

use std::collections::VecDeque;
use std::sync::Arc;

use super::KeyHashes;
use super::device::Device;
use super::format::extent::Extent;
use super::format::leaf::{self, IndexEntry, code_units, is_chunked};
use super::format::manifest::{BlockRef, LeafRef};
use super::format::record::{Body, ReadRecord};
use super::format::table::TableEntry;
use super::format::{BlockKind, EXTENT_BYTES_MAX, extent_blocks_max, stream_bytes};
use super::index::LeafStore;
use super::published::Published;
use super::records::{BodyBuffer, Records};
use super::room::{compaction_blocks, own_copy_blocks};
use super::space::{Run, Space};
use super::table::BlockTable;
use crate::disk::AlignedBuffer;
use crate::error::{Error, Result};

/// A file that grows by itself grows by an eighth, within these bounds, bytes.
const GROW_BYTES: std::ops::RangeInclusive<u64> = 1024 * 1024..=64 * 1024 * 1024;
/// From this size on writes go past the system's cache.
const DIRECT_BYTES_MIN: usize = 16 * 1024;
/// Single blocks that follow each other are written together up to this.
const GATHER_BYTES: usize = 256 * 1024;

const NO_RECORD: &str = "the index names a record that is not there";

/// The extent that records are being appended to.
struct OpenExtent {
    run: Run,
    stream: Vec<u8>,
    /// Where in the stream records start.
    starts: Vec<u32>,
    /// Hashes of the records that start in the newest block: two of the same hash never share one.
    hashes: Vec<u64>,
    live: u32,
}

/// Puts the blocks of one checkpoint.
pub(crate) struct Writer<'a> {
    pub(crate) device: Arc<Device>,
    pub(crate) base: Arc<Published>,
    pub(crate) hashes: &'a dyn KeyHashes,
    pub(crate) table: BlockTable,
    pub(crate) space: Space,
    /// Runs of the base that this checkpoint does not reach any more.
    pub(crate) freed: Vec<Run>,
    pub(crate) sequence: u64,
    pub(crate) auto: bool,
    /// Live units of all records.
    pub(crate) live_units: u64,
    pub(crate) written_bytes: u64,
    sync_bytes: u64,
    unsynced_bytes: u64,
    open: Option<OpenExtent>,
    /// Blocks set aside for the index.
    singles: Run,
    /// Single blocks not yet written, from a block on.
    gathered: (u32, Vec<u8>),
    /// What is written past the system's cache, so that the log's syncs do not wait for a checkpoint's write-back.
    aligned: AlignedBuffer,
    /// Called after every short piece of work.
    pub(crate) pause: &'a dyn Fn(),
    /// The file could not be made longer.
    is_disk_full: bool,
    has_grown: bool,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(
        device: Arc<Device>,
        base: Arc<Published>,
        space: Space,
        hashes: &'a dyn KeyHashes,
        sync_bytes: u64,
    ) -> Writer<'a> {
        let superblock = base.superblock;
        Writer {
            device,
            hashes,
            table: base.table.clone(),
            space,
            freed: Vec::new(),
            sequence: superblock.sequence + 1,
            auto: superblock.auto,
            live_units: superblock.live_bytes / leaf::UNIT_BYTES as u64,
            written_bytes: 0,
            sync_bytes,
            unsynced_bytes: 0,
            open: None,
            singles: Run { block: 0, blocks: 0 },
            gathered: (0, Vec::new()),
            aligned: AlignedBuffer::new(EXTENT_BYTES_MAX),
            pause: &|| {},
            is_disk_full: false,
            has_grown: false,
            base,
        }
    }

    /// No entry of the base is reached any more. Table pages and manifest are freed when they are written anew.
    pub(crate) fn start_empty(&mut self) {
        for (block, _) in self.base.table.all() {
            // What was freed before, with a dropped database, is not freed again.
            let kind = self.table.get(block).kind();
            if matches!(kind, Some(BlockKind::Data | BlockKind::Chunk | BlockKind::Leaf)) {
                self.table.set(block, TableEntry::FREE);
                self.freed.push(Run { block, blocks: 1 });
            }
        }
        self.live_units = 0;
    }

    /// The error of a file without room.
    pub(crate) fn full(&self) -> Error {
        let bytes = self.device.offset(self.space.blocks());
        Error::BlockFileFull { path: self.device.path.clone(), bytes }
    }

    /// Takes free blocks, growing the file where it may; `None` when there is no such run.
    fn allocate(&mut self, least: u32, most: u32) -> Result<Option<Run>> {
        // A file that may grow does so before it falls to pieces.
        let whole = if self.auto && self.space.free() < self.space.blocks() / 8 { most } else { least };
        if let Some(run) = self.space.allocate(whole, most) {
            return Ok(Some(run));
        }
        if self.is_disk_full
            && let Some(run) = self.space.allocate(least, most)
        {
            return Ok(Some(run));
        }
        let grown = if self.auto { self.grow() } else { Ok(false) };
        self.is_disk_full |= grown.is_err();
        if !matches!(grown, Ok(true)) {
            self.release_singles();
        }
        match (self.space.allocate(least, most), grown) {
            // On a full disk, what there is will do: single blocks too, for who asks again.
            (None, Err(error)) if least == 1 => Err(error),
            (run, _) => Ok(run),
        }
    }

    /// Whether the file could not become longer when it should have; `None` when nothing of the kind was tried.
    pub(crate) fn could_not_grow(&self) -> Option<bool> {
        (self.is_disk_full || self.has_grown).then_some(self.is_disk_full)
    }

    /// Whether there is room to move a record, not only for what must be written.
    pub(crate) fn may_move(&self) -> bool {
        let tables = self.base.pages.len() + self.base.manifest.len();
        let kept = own_copy_blocks(self.base.leaf_count(), tables) + compaction_blocks(self.space.blocks()) / 4;
        !self.is_disk_full || self.space.free() > kept
    }

    /// Makes the file longer; false when it cannot be.
    pub(super) fn grow(&mut self) -> Result<bool> {
        let old = self.space.blocks();
        let step = (self.device.offset(old) / 8).clamp(*GROW_BYTES.start(), *GROW_BYTES.end());
        let Some(blocks) = old.checked_add((step / self.device.block_bytes as u64) as u32) else {
            return Ok(false);
        };
        let length =
            self.device.file.len().map_err(|source| Error::io("read the length of", &self.device.path, source))?;
        // A checkpoint that failed may have left the file longer; what is cut off later is still there.
        let grown = if length < self.device.offset(blocks) { self.device.resize(blocks) } else { Ok(()) };
        match grown {
            Ok(()) => {}
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::Unsupported => return Ok(false),
            Err(error) => return Err(error),
        }
        self.space.grow(blocks);
        self.table.resize(blocks);
        self.has_grown = true;
        Ok(true)
    }

    /// A run is no part of the checkpoint any more.
    pub(crate) fn free(&mut self, run: Run) {
        for block in run.block..run.block + run.blocks {
            self.table.set(block, TableEntry::FREE);
        }
        if self.base.table.get(run.block).is_free() {
            self.space.release(run);
        } else {
            self.freed.push(run);
        }
    }

    fn write(&mut self, block: u32, bytes: &[u8]) -> Result<()> {
        if bytes.len() < DIRECT_BYTES_MIN {
            // The system's cache joins it with its neighbours before the sync.
            self.device.write(block, bytes)?;
        } else {
            let mut at = block;
            for piece in bytes.chunks(EXTENT_BYTES_MAX) {
                let aligned = &mut self.aligned.bytes()[..piece.len()];
                aligned.copy_from_slice(piece);
                self.device.write_direct(at, aligned)?;
                at += (piece.len() / self.device.block_bytes) as u32;
                (self.pause)();
            }
        }
        self.written_bytes += bytes.len() as u64;
        self.unsynced_bytes += bytes.len() as u64;
        if self.unsynced_bytes >= self.sync_bytes {
            self.unsynced_bytes = 0;
            self.device.sync()?;
        }
        (self.pause)();
        Ok(())
    }

    /// Writes an extent into the first blocks of `run` and gives the others back.
    pub(crate) fn write_extent(
        &mut self,
        kind: BlockKind,
        run: Run,
        stream: &[u8],
        starts: &[u32],
        live: u32,
    ) -> Result<Run> {
        let extent = Extent { kind, block: run.block, sequence: self.sequence, stream, starts };
        let (bytes, crcs) = extent.encode(self.device.block_bytes);
        let used = Run { block: run.block, blocks: crcs.len() as u32 };
        assert!(used.blocks <= run.blocks, "an extent fits its run");
        self.write(run.block, &bytes)?;
        for (place, crc) in (0..).zip(crcs) {
            let live = if place == 0 { live } else { 0 };
            self.table.set(run.block + place, TableEntry::extent(kind, crc, place, used.blocks, live));
        }
        if used.blocks < run.blocks {
            self.space.release(Run { block: run.block + used.blocks, blocks: run.blocks - used.blocks });
        }
        Ok(used)
    }

    /// Takes blocks for an extent of up to `bytes` of stream: as many as there are in a row.
    pub(crate) fn allocate_chunk(&mut self, bytes: u64) -> Result<Run> {
        let block_bytes = self.device.block_bytes;
        let most = bytes.div_ceil(stream_bytes(block_bytes) as u64).clamp(1, extent_blocks_max(block_bytes) as u64);
        self.allocate(1, most as u32)?.ok_or_else(|| self.full())
    }

    /// Appends a record to the data; returns the block it starts in. `None` when no run of free blocks is long enough
    /// for a record of more than one block.
    pub(crate) fn append(&mut self, hash: u64, size_code: u8, record: &[u8]) -> Result<Option<u32>> {
        let part = stream_bytes(self.device.block_bytes);
        let fits = self.open.as_ref().is_some_and(|open| {
            open.stream.len() + record.len() <= open.run.blocks as usize * part
                && (open.stream.len().is_multiple_of(part) || !open.hashes.contains(&hash))
        });
        if !fits {
            self.close_extent()?;
            let least = record.len().div_ceil(part) as u32;
            let Some(run) = self.allocate(least, extent_blocks_max(self.device.block_bytes) as u32)? else {
                return if least > 1 { Ok(None) } else { Err(self.full()) };
            };
            let stream = Vec::with_capacity(run.blocks as usize * part);
            self.open = Some(OpenExtent { run, stream, starts: Vec::new(), hashes: Vec::new(), live: 0 });
        }
        let Some(open) = &mut self.open else {
            return Ok(None);
        };
        let start = open.stream.len();
        if open.starts.last().is_none_or(|last| *last as usize / part != start / part) {
            open.hashes.clear();
        }
        open.hashes.push(hash);
        open.starts.push(start as u32);
        open.stream.extend_from_slice(record);
        open.live += code_units(size_code);
        self.live_units += u64::from(code_units(size_code));
        Ok(Some(open.run.block + (start / part) as u32))
    }

    /// Writes the extent that records are being appended to.
    pub(crate) fn close_extent(&mut self) -> Result<()> {
        if let Some(open) = self.open.take() {
            if open.live == 0 {
                self.space.release(open.run);
            } else {
                self.write_extent(BlockKind::Data, open.run, &open.stream, &open.starts, open.live)?;
            }
        }
        Ok(())
    }

    /// Takes a block for the index, the table or the manifest.
    pub(crate) fn allocate_single(&mut self, kind: BlockKind) -> Result<u32> {
        if self.singles.blocks == 0 {
            let most = extent_blocks_max(self.device.block_bytes) as u32;
            self.singles = self.allocate(1, most)?.ok_or_else(|| self.full())?;
        }
        let block = self.singles.block;
        self.singles = Run { block: block + 1, blocks: self.singles.blocks - 1 };
        self.table.set(block, TableEntry::single(kind));
        Ok(block)
    }

    /// Gives the blocks back that were set aside for the index and not taken.
    pub(crate) fn release_singles(&mut self) {
        let rest = std::mem::replace(&mut self.singles, Run { block: 0, blocks: 0 });
        if rest.blocks > 0 {
            self.space.release(rest);
        }
    }

    /// Writes a single block, together with its neighbours.
    pub(crate) fn write_single(&mut self, block: u32, bytes: &[u8]) -> Result<()> {
        let (start, gathered) = &mut self.gathered;
        let end = *start + (gathered.len() / self.device.block_bytes) as u32;
        if gathered.is_empty() || block != end || gathered.len() >= GATHER_BYTES {
            self.write_gathered()?;
            self.gathered.0 = block;
        }
        self.gathered.1.extend_from_slice(bytes);
        Ok(())
    }

    /// Writes the single blocks that wait for their neighbours.
    pub(crate) fn write_gathered(&mut self) -> Result<()> {
        let (start, mut bytes) = std::mem::take(&mut self.gathered);
        if !bytes.is_empty() {
            self.write(start, &bytes)?;
        }
        bytes.clear();
        self.gathered = (start, bytes);
        Ok(())
    }

    /// The table that knows a record of this very checkpoint; `None` for one of the base. Only a key that was put twice
    /// is looked for among the new records.
    fn own_table_for(&mut self, entry: &IndexEntry) -> Result<Option<BlockTable>> {
        if !self.base.table.get(entry.block).is_free() {
            return Ok(None);
        }
        self.close_extent()?;
        Ok(Some(self.table.clone()))
    }

    /// Reads the record that an index entry names.
    fn with_record<R>(
        &mut self,
        entry: &IndexEntry,
        visit: impl FnOnce(&ReadRecord<'_>, &Records<'_>, &mut BodyBuffer) -> Result<R>,
    ) -> Result<R> {
        (self.pause)();
        let (device, base, own) = (Arc::clone(&self.device), Arc::clone(&self.base), self.own_table_for(entry)?);
        let table = own.as_ref().unwrap_or(&base.table);
        // Keys and chunks are asked for, never a value.
        let records = Records { device: &device, table, dictionary: None };
        let hashes = self.hashes;
        let found = records.find(
            (entry.block, entry.size_code),
            |_, key| hashes.hash(key) == entry.hash,
            |record, buffer| visit(record, &records, buffer),
        )?;
        found.ok_or_else(|| device.corrupt(entry.block, NO_RECORD))
    }

    /// Takes the units of a record off its extent, and frees the extent when nothing in it lives.
    fn subtract(&mut self, entry: &IndexEntry) -> Result<()> {
        let units = code_units(entry.size_code);
        self.live_units = self.live_units.saturating_sub(u64::from(units));
        if let Some(open) = &mut self.open
            && (open.run.block..open.run.block + open.run.blocks).contains(&entry.block)
        {
            open.live = open.live.saturating_sub(units);
            return Ok(());
        }
        const WHAT: &str = "the block table counts less than the index names";
        let run = self.table.extent_of(entry.block).ok_or_else(|| self.device.corrupt(entry.block, WHAT))?;
        let first = self.table.get(run.block);
        match first.live().checked_sub(units).ok_or_else(|| self.device.corrupt(entry.block, WHAT))? {
            0 => self.free(run),
            live => self.table.set(run.block, first.with_live(live)),
        }
        Ok(())
    }

    /// Frees chunk extents.
    pub(crate) fn free_chunks(&mut self, chunks: impl Iterator<Item = u32>) -> Result<()> {
        for block in chunks {
            let run = self.table.extent_of(block).filter(|run| run.block == block);
            let what = "a large value names a block that is no part of one";
            self.free(run.ok_or_else(|| self.device.corrupt(block, what))?);
        }
        Ok(())
    }
}

impl LeafStore for Writer<'_> {
    fn read_leaf(&mut self, database: u32, leaf: &LeafRef, entries: &mut VecDeque<IndexEntry>) -> Result<()> {
        let mut read = Vec::new();
        self.device.read_leaf(database, leaf, &mut read)?;
        entries.extend(read);
        (self.pause)();
        Ok(())
    }

    fn write_leaf(&mut self, database: u32, entries: &[IndexEntry]) -> Result<LeafRef> {
        let block = self.allocate_single(BlockKind::Leaf)?;
        let bytes = leaf::encode(self.device.block_bytes, block, self.sequence, database, entries);
        let at = BlockRef { block, crc: crc32c::crc32c(&bytes) };
        self.write_single(block, &bytes)?;
        (self.pause)();
        let first_hash = entries.first().map_or(0, |entry| entry.hash);
        Ok(LeafRef { first_hash, at, entries: entries.len() as u16 })
    }

    fn free_leaf(&mut self, leaf: &LeafRef) {
        self.free(Run { block: leaf.at.block, blocks: 1 });
    }

    fn fingerprint(&mut self, entry: &IndexEntry) -> Result<u64> {
        let hashes = self.hashes;
        let fingerprint = self.with_record(entry, |record, records, buffer| {
            records.with_key(record, buffer, |key| hashes.fingerprint(key))
        })?;
        fingerprint.ok_or_else(|| self.device.corrupt(entry.block, NO_RECORD))
    }

    fn release(&mut self, entry: &IndexEntry) -> Result<()> {
        if is_chunked(entry.size_code) {
            let (body, lists) = self.with_record(entry, |record, records, _| match &record.body {
                Body::Chunked { list, .. } => records.all_chunks(list),
                Body::Inline { .. } => Ok((Vec::new(), Vec::new())),
            })?;
            self.free_chunks(body.into_iter().chain(lists).map(|chunk| chunk.block))?;
        }
        self.subtract(entry)
    }

    fn release_moved(&mut self, entry: &IndexEntry) -> Result<()> {
        self.subtract(entry)
    }
}
