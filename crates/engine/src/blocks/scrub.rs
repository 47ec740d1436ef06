//! Reading a checkpoint slowly and for ever, so that rot is found while what it hit is still in memory or in a replica.
//!
//! ```text
//!   extents in the order of the file --> leaves of the index --> superblock, manifest, block table --> from the start
//! ```
//!
//! Each step takes a new view, so that no block is pinned for the length of a pass; what a checkpoint moves meanwhile is
//! met in the next pass. Blocks are read from the disk, not from the system's cache, where the file system can be told.
//!
//! Not here: how fast, and what is done about damage (`store`).

use super::View;
use super::format::{BlockKind, SUPERBLOCKS};
use super::published::{Published, find_superblock};
use crate::error::Result;

/// How far a pass has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubCursor {
    /// The next block to look at among extents.
    block: u32,
    /// Leaves looked at.
    leaf: usize,
}

/// What a step did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// Bytes read and found right.
    pub bytes: u64,
    /// The pass has ended; the cursor stands at the start of the next.
    pub ended: bool,
}

impl View {
    /// Verifies what follows `cursor`, until about `bytes` were read.
    ///
    /// # Errors
    /// `Corrupt` names the first block that is not what was written; the cursor stands behind it. `Io`.
    pub fn scrub(&self, cursor: &mut ScrubCursor, bytes: u64) -> Result<Scrubbed> {
        let mut scrubbed = Scrubbed::default();
        self.scrub_extents(cursor, bytes, &mut scrubbed)?;
        if scrubbed.bytes < bytes {
            self.scrub_leaves(cursor, bytes, &mut scrubbed)?;
        }
        if scrubbed.bytes < bytes {
            *cursor = ScrubCursor::default();
            scrubbed.ended = true;
            self.scrub_roots()?;
        }
        Ok(scrubbed)
    }

    /// What everything else is reached from.
    fn scrub_roots(&self) -> Result<()> {
        let ours = &self.published.superblock;
        self.device.forget_cached(0, SUPERBLOCKS);
        let newest = find_superblock(&*self.device.file, &self.device.path);
        if newest.is_ok_and(|(found, _)| found.sequence >= ours.sequence) {
            return Published::read(&self.device, *ours).map(drop);
        }
        Err(self.device.corrupt(ours.slot(), "the superblock is not what was written"))
    }

    fn scrub_extents(&self, cursor: &mut ScrubCursor, bytes: u64, scrubbed: &mut Scrubbed) -> Result<()> {
        let table = &self.published.table;
        let (mut raw, mut stream) = (Vec::new(), Vec::new());
        while scrubbed.bytes < bytes && cursor.block < table.blocks() {
            let (block, kind) = (cursor.block, table.get(cursor.block).kind());
            let run = kind.filter(|kind| matches!(kind, BlockKind::Data | BlockKind::Chunk));
            let Some((kind, run)) = run.and_then(|kind| Some((kind, table.extent_of(block)?))) else {
                cursor.block += 1;
                continue;
            };
            cursor.block = run.block + run.blocks;
            stream.clear();
            self.device.forget_cached(run.block, run.blocks);
            self.device.read_into(run.block, run.blocks, &mut raw)?;
            self.records().stream(kind, run.block, &raw, &mut stream)?;
            scrubbed.bytes += u64::from(run.blocks) * self.device.block_bytes as u64;
        }
        Ok(())
    }

    fn scrub_leaves(&self, cursor: &mut ScrubCursor, bytes: u64, scrubbed: &mut Scrubbed) -> Result<()> {
        let directories = self.published.directories.iter();
        let leaves = directories.flat_map(|(database, leaves)| leaves.iter().map(move |leaf| (*database, leaf)));
        let mut entries = Vec::new();
        for (database, leaf) in leaves.skip(cursor.leaf) {
            if scrubbed.bytes >= bytes {
                return Ok(());
            }
            cursor.leaf += 1;
            entries.clear();
            self.device.forget_cached(leaf.at.block, 1);
            self.device.read_leaf(database, leaf, &mut entries)?;
            scrubbed.bytes += self.device.block_bytes as u64;
        }
        Ok(())
    }
}
