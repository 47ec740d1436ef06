//! The last steps of a checkpoint: the rest of the index, table pages and manifest, sync, superblock, sync.
//!
//! Table pages and manifest are blocks themselves, so giving them blocks changes the table. All of them get their blocks
//! first, until no page is left that was changed and has none; then they are written.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::checkpoint::{Checkpoint, Commit, Published};
use super::format::leaf::UNIT_BYTES;
use super::format::manifest::{self, BlockRef, DatabaseLeaves, LeafRef, Manifest};
use super::format::superblock::{ManifestRef, Superblock};
use super::format::{BlockKind, stream_bytes, table};
use super::published;
use super::room::{compaction_blocks, own_copy_blocks};
use super::space::Run;
use super::writer::Writer;
use crate::error::Result;

/// Free space at the end of a file that is worth giving back: an eighth of it, but no less than this, bytes.
const SHRINK_BYTES_MIN: u64 = 4 * 1024 * 1024;

impl Checkpoint<'_> {
    /// Finishes the last range, writes the rest of the index, the block table and the manifest, syncs, writes the
    /// superblock, syncs. When it returns `Ok` the checkpoint is durable.
    ///
    /// # Errors
    /// `BlockFileFull`, `Io`, `Corrupt`: the checkpoint before stays. When writing the superblock itself failed, nobody
    /// knows which one counts: the file then refuses every later checkpoint with `CheckpointFailed` until it is
    /// reopened.
    pub fn publish(mut self, commit: &Commit<'_>) -> Result<Published> {
        self.finish_range(u64::MAX)?;
        let directories = self.finish_index()?;
        let next = self.write_tables(directories, commit)?;
        self.writer.device.sync()?;

        let (superblock, block_bytes) = (next.superblock, self.writer.device.block_bytes);
        let mut block = superblock.encode().to_vec();
        block.resize(block_bytes, 0);
        self.file.in_doubt = true;
        self.writer.device.write(superblock.slot(), &block)?;
        self.writer.device.sync()?;
        self.file.in_doubt = false;
        self.is_published = true;

        let shrunk = superblock.file_blocks < self.writer.base.superblock.file_blocks;
        self.file.take_over(next, std::mem::take(&mut self.writer.space), std::mem::take(&mut self.writer.freed));
        if shrunk {
            // Blocks behind the end are no harm: the superblock does not count them.
            let _ = self.writer.device.resize(superblock.file_blocks);
        }
        Ok(Published {
            sequence: superblock.sequence,
            entries: superblock.entries,
            written_bytes: self.writer.written_bytes + block_bytes as u64,
            compacted_records: self.compaction.moved,
            unreadable_extents: self.compaction.unreadable,
            file_blocks: superblock.file_blocks,
            moved: std::mem::take(&mut self.moved),
        })
    }

    /// Merges and writes what is left of the index; returns the directory of each database.
    fn finish_index(&mut self) -> Result<BTreeMap<u32, Arc<Vec<LeafRef>>>> {
        let limit = self.move_from();
        let has_to_move = |leaves: &[LeafRef]| leaves.iter().any(|leaf| leaf.at.block >= limit);
        let moving: Vec<u32> =
            self.directories.iter().filter(|(_, leaves)| has_to_move(leaves)).map(|(database, _)| *database).collect();
        for database in moving {
            self.begin_merge(database);
        }
        let mut directories = std::mem::take(&mut self.directories);
        for (database, merge) in std::mem::take(&mut self.merges) {
            let leaves = merge.finish(&mut self.writer)?;
            if leaves.is_empty() {
                directories.remove(&database);
            } else {
                directories.insert(database, Arc::new(leaves));
            }
        }
        self.writer.close_extent()?;
        Ok(directories)
    }

    /// Writes table pages and manifest.
    fn write_tables(
        &mut self,
        directories: BTreeMap<u32, Arc<Vec<LeafRef>>>,
        commit: &Commit<'_>,
    ) -> Result<published::Published> {
        let (move_from, moved_bytes) = (self.move_from(), self.compaction.moved_bytes);
        let dictionary = self.compressor.dictionary().cloned();
        let dictionary_bytes = dictionary.as_ref().map_or(0, |dictionary| dictionary.bytes().len());
        let writer = &mut self.writer;
        writer.release_singles();
        let base = Arc::clone(&writer.base);
        let leaf_counts = || directories.values().map(|leaves| leaves.len());
        let manifest_bytes =
            |pages: usize| manifest::encoded_bytes(commit.databases.len(), dictionary_bytes, pages, leaf_counts());
        writer.shrink_or_keep_room(leaf_counts().sum(), moved_bytes, manifest_bytes)?;
        let places = place_tables(writer, move_from, manifest_bytes)?;
        let pages = write_pages(writer, &places.pages)?;
        writer.written_pages_match(&places.pages);

        let entries = directories.values().flat_map(|leaves| leaves.iter()).map(|leaf| u64::from(leaf.entries)).sum();
        let manifest = Manifest {
            store_id: base.superblock.identity.store_id,
            databases: commit.databases.to_vec(),
            dictionary: dictionary.as_ref().map_or_else(Vec::new, |dictionary| dictionary.bytes().to_vec()),
            pages,
            directories: directories
                .iter()
                .map(|(database, leaves)| DatabaseLeaves { database: *database, leaves: leaves.to_vec() })
                .collect(),
        };
        let (block_bytes, sequence) = (writer.device.block_bytes, writer.sequence);
        let root = write_manifest(&manifest, &places.manifest, block_bytes, sequence, &mut |block, bytes| {
            writer.write_single(block, bytes)
        })?;
        writer.write_gathered()?;
        let superblock = Superblock {
            file_blocks: writer.table.blocks(),
            sequence: writer.sequence,
            cut: commit.cut,
            log_position: commit.log_position,
            entries,
            live_bytes: writer.live_units * UNIT_BYTES as u64,
            manifest: root,
            ..base.superblock
        };
        Ok(published::Published {
            superblock,
            databases: manifest.databases,
            dictionary,
            directories,
            table: writer.table.clone(),
            pages: manifest.pages,
            manifest: places.manifest,
        })
    }
}

/// Blocks for what has to be written.
struct Places {
    /// For each page of the table its new block; `None` when it stays where it is.
    pages: Vec<Option<u32>>,
    manifest: Vec<u32>,
}

fn place_tables(writer: &mut Writer<'_>, move_from: u32, manifest_bytes: impl Fn(usize) -> usize) -> Result<Places> {
    let base = Arc::clone(&writer.base);
    let payload = manifest::payload_bytes(writer.device.block_bytes);
    writer.free_old(base.manifest.iter().copied());
    writer.free_old(base.pages.iter().skip(writer.table.page_count()).map(|page| page.block));
    let mut places = Places { pages: Vec::new(), manifest: Vec::new() };
    loop {
        let mut is_settled = true;
        places.pages.resize(writer.table.page_count(), None);
        for page in 0..places.pages.len() {
            let old = base.pages.get(page).map(|page| page.block);
            let is_kept = writer.table.shares_page(&base.table, page) && old.is_some_and(|block| block < move_from);
            if places.pages.get(page) == Some(&None) && !is_kept {
                writer.free_old(old.into_iter());
                let block = writer.allocate_single(BlockKind::Table)?;
                if let Some(place) = places.pages.get_mut(page) {
                    *place = Some(block);
                }
                is_settled = false;
            }
        }
        while places.manifest.len() < manifest_bytes(writer.table.page_count()).div_ceil(payload) {
            places.manifest.push(writer.allocate_single(BlockKind::Manifest)?);
            is_settled = false;
        }
        if is_settled && places.pages.len() == writer.table.page_count() {
            writer.release_singles();
            return Ok(places);
        }
    }
}

fn write_pages(writer: &mut Writer<'_>, places: &[Option<u32>]) -> Result<Vec<BlockRef>> {
    let base = Arc::clone(&writer.base);
    let mut refs = Vec::with_capacity(places.len());
    for (page, place) in places.iter().enumerate() {
        let at = match place {
            Some(block) => {
                let entries = writer.table.page(page);
                let bytes = table::encode(writer.device.block_bytes, *block, writer.sequence, page as u32, entries);
                writer.write_single(*block, &bytes)?;
                BlockRef { block: *block, crc: crc32c::crc32c(&bytes) }
            }
            None => base.pages.get(page).copied().unwrap_or_else(|| unreachable!("a shared page is one of the base")),
        };
        refs.push(at);
    }
    Ok(refs)
}

/// Writes the manifest from its end, since each block names the checksum of the next.
pub(crate) fn write_manifest(
    manifest: &Manifest,
    blocks: &[u32],
    block_bytes: usize,
    sequence: u64,
    write: &mut dyn FnMut(u32, &[u8]) -> Result<()>,
) -> Result<ManifestRef> {
    let bytes = manifest.encode();
    let mut parts: Vec<&[u8]> = bytes.chunks(manifest::payload_bytes(block_bytes)).collect();
    assert!(parts.len() <= blocks.len(), "the manifest has enough blocks");
    parts.resize(blocks.len(), &[]);
    let mut next = BlockRef::default();
    for (block, part) in blocks.iter().zip(parts).rev() {
        let bytes = manifest::encode_block(block_bytes, *block, sequence, next, part);
        write(*block, &bytes)?;
        next = BlockRef { block: *block, crc: crc32c::crc32c(&bytes) };
    }
    Ok(ManifestRef { block: next.block, crc: next.crc, bytes: bytes.len() as u64 })
}

impl Writer<'_> {
    /// Frees single blocks of the base.
    fn free_old(&mut self, blocks: impl Iterator<Item = u32>) {
        for block in blocks {
            self.free(Run { block, blocks: 1 });
        }
    }

    /// Cuts free blocks off the end of a file that grows by itself, or lets it grow: on a disk that becomes full, what removes
    /// still needs blocks for a copy of the index before it gives any back. So a checkpoint that would leave too few is none.
    fn shrink_or_keep_room(
        &mut self,
        leaves: usize,
        moved_bytes: u64,
        manifest_bytes: impl Fn(usize) -> usize,
    ) -> Result<()> {
        if !self.auto {
            return Ok(());
        }
        let payload = manifest::payload_bytes(self.device.block_bytes);
        let kept = |writer: &Writer<'_>| {
            let pages = writer.table.page_count();
            let own_copy = own_copy_blocks(leaves, pages + manifest_bytes(pages).div_ceil(payload));
            own_copy + compaction_blocks(writer.space.blocks())
        };
        // Compaction may use what is kept for it, also where not all of an extent could be moved.
        let moved = 2 * moved_bytes / stream_bytes(self.device.block_bytes) as u64 + 1;
        let borrowed = compaction_blocks(self.space.blocks()).min(moved as u32);
        // What this checkpoint frees is free when it is published; its tables take about as much as those before give back.
        let freed: u32 = self.freed.iter().map(|run| run.blocks).sum();
        self.shrink(kept(self).saturating_sub(freed));
        while self.space.free() + freed < kept(self) {
            match self.grow() {
                Ok(true) => {}
                _ if moved_bytes > 0 && self.space.free() + freed + borrowed >= kept(self) => break,
                Ok(false) => return Err(self.full()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Cuts free blocks off the end; so many at least stay free.
    fn shrink(&mut self, stay: u32) {
        let (free, blocks) = (self.space.free_at_end(), self.space.blocks());
        let least = (self.device.offset(blocks) / 8).max(SHRINK_BYTES_MIN);
        // What is kept is what the next checkpoint will want to grow by.
        let kept = ((least / 2 / self.device.block_bytes as u64) as u32).max(stay);
        if self.device.offset(free) > least && free > kept {
            let blocks = blocks - (free - kept);
            self.space.shrink(blocks);
            self.table.resize(blocks);
        }
    }

    fn written_pages_match(&self, places: &[Option<u32>]) {
        let changed = |page| !self.table.shares_page(&self.base.table, page);
        let all = places.iter().enumerate().all(|(page, place)| place.is_some() || !changed(page));
        assert!(all, "every changed page of the table is written");
    }
}
