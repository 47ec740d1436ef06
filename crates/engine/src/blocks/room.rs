//! What a block file can still take.
//!
//! A checkpoint copies what it changes before it can free anything, so a part of the file is never promised: room to
//! write the whole index, table and manifest once more, and to compact. With it a full file can still remove, and win
//! space back.

use super::compaction::live_percent;
use super::format::leaf::capacity_min;
use super::format::manifest::{self, DICTIONARY_BYTES_MAX};
use super::format::record::{INLINE_BYTES_MAX, overhead_bytes_max};
use super::format::{BLOCK_BYTES_MAX, BlockKind, stream_bytes};
use super::{BlockFile, CheckpointOptions};

/// Blocks of the file for each one kept for compaction, and how many are kept at least.
const COMPACTION_SHARE: u32 = 64;
const COMPACTION_BLOCKS_MIN: u32 = 8;
/// Free space that a file which grows by itself keeps when it becomes shorter.
const MOVE_SPARE_BYTES: u64 = 1024 * 1024;
/// Smallest file of a fixed size that may have a dictionary: 256 times the dictionary.
const DICTIONARY_FILE_BYTES_MIN: u64 = 256 * DICTIONARY_BYTES_MAX as u64;
/// Index bytes of a new entry: in the leaf that names it, and in the copy of that leaf which the next checkpoint needs.
const INDEX_BYTES: u64 = 2 * 16;

/// How much the next checkpoint can take, while what it needs for its index, its tables and one compaction stays free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes left for the sum of [`put_cost`] of everything not yet in a published checkpoint; `u64::MAX` for a file
    /// that grows by itself.
    pub bytes: u64,
    /// Bytes of dead records that compaction can win back over the next checkpoints.
    pub reclaimable_bytes: u64,
    /// Size of the file.
    pub file_bytes: u64,
}

/// Upper bound of the room that one entry takes: what to subtract from [`Room::bytes`] before a write is executed. A
/// replaced entry takes as much as a new one, removals take none.
pub fn put_cost(key_bytes: usize, value_bytes: usize) -> u64 {
    let record = (key_bytes + value_bytes + overhead_bytes_max()) as u64;
    // The end of an extent stays empty when the next record does not fit there.
    let waste = match record {
        0..8192 => record / 8,
        8192..=INLINE_LAST => record,
        _ => record / 32 + 2 * u64::from(BLOCK_BYTES_MAX),
    };
    record + waste + INDEX_BYTES
}

/// Blocks that one more copy takes of an index of so many leaves, of the table's pages and of the manifest (`tables`).
pub(super) fn own_copy_blocks(leaves: usize, tables: usize) -> u32 {
    // A leaf for each database whose few entries grow, and one for divisions at the end of the index.
    let index = leaves + leaves / 8 + 2;
    // Two: the last block of the data and the last of the blocks set aside are hardly ever full.
    (index + tables + 1) as u32 + 2
}

/// Blocks that are kept for a compaction.
pub(super) fn compaction_blocks(file_blocks: u32) -> u32 {
    (file_blocks / COMPACTION_SHARE).max(COMPACTION_BLOCKS_MIN)
}

const INLINE_LAST: u64 = INLINE_BYTES_MAX as u64;

impl BlockFile {
    /// What the next checkpoint can take. Reads the whole block table in memory: to be asked once a checkpoint.
    pub fn room(&self) -> Room {
        let block_bytes = self.device.block_bytes;
        let superblock = &self.published.superblock;
        let dead = self.published.table.extents(BlockKind::Data).map(|(run, live)| {
            let (percent, size) = live_percent(run, live, block_bytes);
            size * 100u64.saturating_sub(percent) / 100
        });
        let spare = self.free_blocks().saturating_sub(self.kept_blocks());
        Room {
            bytes: if superblock.auto { u64::MAX } else { u64::from(spare) * stream_bytes(block_bytes) as u64 },
            reclaimable_bytes: dead.sum(),
            file_bytes: self.device.offset(superblock.file_blocks),
        }
    }

    /// Whether everything fits into the file a second time, so that the next checkpoint can write it anew. A file that
    /// grows by itself is taken at its word: the disk shows.
    pub fn has_room_for_copy(&self) -> bool {
        let superblock = &self.published.superblock;
        if superblock.auto {
            return true;
        }
        let chunks = self.published.table.extents(BlockKind::Chunk).map(|(run, _)| run.blocks).sum::<u32>();
        // An eighth: extents are seldom filled to the last byte.
        let data = (superblock.live_bytes / 8 * 9).div_ceil(stream_bytes(self.device.block_bytes) as u64);
        let leaves = self.published.leaf_count() as u64;
        u64::from(self.free_blocks()) >= data + u64::from(chunks) + leaves + u64::from(self.kept_blocks())
    }

    /// Blocks that the next checkpoint can use.
    fn free_blocks(&self) -> u32 {
        let retired = self.retired.iter().take_while(|(reader, _)| reader.strong_count() == 0);
        self.space.free() + retired.flat_map(|(_, runs)| runs).map(|run| run.blocks).sum::<u32>()
    }

    /// Blocks that are not promised to anyone.
    fn kept_blocks(&self) -> u32 {
        let published = &self.published;
        let tables = published.pages.len() + published.manifest.len();
        let kept = own_copy_blocks(published.leaf_count(), tables) + compaction_blocks(self.space.blocks());
        kept + self.dictionary_blocks()
    }

    /// Blocks for a dictionary that the next checkpoint may train.
    fn dictionary_blocks(&self) -> u32 {
        let is_open = self.published.dictionary.is_none() && self.may_train();
        if is_open { DICTIONARY_BYTES_MAX.div_ceil(manifest::payload_bytes(self.device.block_bytes)) as u32 } else { 0 }
    }

    /// Whether the file is large enough for a dictionary to be little in it.
    pub(super) fn may_train(&self) -> bool {
        let superblock = &self.published.superblock;
        superblock.auto || self.device.offset(superblock.file_blocks) >= DICTIONARY_FILE_BYTES_MIN
    }

    /// Whether leaves have to be packed.
    pub(super) fn is_tight(&self) -> bool {
        let superblock = &self.published.superblock;
        let full_leaves = superblock.entries as usize / capacity_min(self.device.block_bytes);
        let may_grow = superblock.auto && !self.is_disk_full;
        let is_short = !may_grow && self.free_blocks() < self.space.blocks() / 3;
        is_short || self.published.leaf_count() > 2 * full_leaves + 8
    }

    /// The block from which on nothing should stay, so that the file can become shorter; `u32::MAX` when it need not.
    pub(super) fn move_from(&self) -> u32 {
        let blocks = self.space.blocks();
        let used = blocks - self.free_blocks();
        // A third is left free: what is moved needs room too, and what comes next.
        let wanted = used + used / 2 + (MOVE_SPARE_BYTES / self.device.block_bytes as u64) as u32;
        if self.published.superblock.auto && wanted < blocks - blocks / 4 { wanted } else { u32::MAX }
    }

    /// How many bytes of records may be moved: no more than leaves room for what will be put.
    pub(super) fn compact_bytes(&self, options: &CheckpointOptions) -> u64 {
        let limit = options.compact_bytes;
        if self.published.superblock.auto {
            // What is chosen must be moved whole: an extent of which something stays gives nothing back.
            let tables = self.published.pages.len() + self.published.manifest.len();
            let free = self.free_blocks().saturating_sub(own_copy_blocks(self.published.leaf_count(), tables));
            let moved = u64::from(free) * stream_bytes(self.device.block_bytes) as u64 / 2;
            return if self.is_disk_full { limit.min(moved) } else { limit };
        }
        // A part of what is kept is lost where extents end.
        let kept =
            u64::from(compaction_blocks(self.space.blocks())) * stream_bytes(self.device.block_bytes) as u64 * 3 / 4;
        let left = options.put_bytes.map_or(0, |put| self.room().bytes.saturating_sub(put) / 2);
        limit.min(kept + left)
    }
}
