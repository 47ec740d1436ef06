//! A published checkpoint in memory: its superblock, directories and block table. Never changed; a reader holds it, and
//! as long as one does, its blocks are not used again.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::device::Device;
use super::dictionary::Dictionary;
use super::format::manifest::{self, BlockRef, LeafRef, Manifest};
use super::format::superblock::{FORMAT, ManifestRef, Superblock, SuperblockRead};
use super::format::table::{self, entries_per_page};
use super::format::{BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, BlockKind, SUPERBLOCKS};
use super::table::{BlockTable, page_count};
use crate::disk::DiskFile;
use crate::error::{Error, Result};
use crate::head::HEAD_BYTES_MAX;
use crate::patient_disk::read_around;
use crate::version::Version;

/// What the two superblocks of a file said when it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundSuperblocks {
    /// Sequence and cut of the one that counts.
    pub newest: (u64, Version),
    /// The same of the other one, where it is valid.
    pub older: Option<(u64, Version)>,
}

/// A checkpoint as its superblock leads to it.
pub(crate) struct Published {
    pub(crate) superblock: Superblock,
    pub(crate) databases: Vec<u8>,
    /// What records with compressed values refer to.
    pub(crate) dictionary: Option<Arc<Dictionary>>,
    /// The leaves of each database that has any.
    pub(crate) directories: BTreeMap<u32, Arc<Vec<LeafRef>>>,
    pub(crate) table: BlockTable,
    /// Where the pages of the table stand.
    pub(crate) pages: Vec<BlockRef>,
    /// The blocks of the manifest.
    pub(crate) manifest: Vec<u32>,
}

/// Finds the superblock that counts.
pub(crate) fn find_superblock(file: &dyn DiskFile, path: &Path) -> Result<(Superblock, FoundSuperblocks)> {
    let found = valid_superblocks(file, path)?;
    let newest = *found.first().ok_or(Error::Corrupt {
        path: path.to_owned(),
        offset: 0,
        what: "neither superblock is valid",
    })?;
    let told = |superblock: &Superblock| (superblock.sequence, superblock.cut);
    Ok((newest, FoundSuperblocks { newest: told(&newest), older: found.get(1).map(told) }))
}

/// The superblocks that are valid, the newest first.
pub(super) fn valid_superblocks(file: &dyn DiskFile, path: &Path) -> Result<Vec<Superblock>> {
    let read = |offset: u32| -> Result<Option<Superblock>> {
        // A newer format may have a longer one.
        let mut bytes = [0; HEAD_BYTES_MAX];
        // One that cannot be read is none: whether the other one may stand in for it is decided as after any damage.
        let count = read_around(file, &mut bytes, u64::from(offset), &mut |offset| {
            tracing::error!(path = %path.display(), offset, "the disk cannot read a superblock");
        });
        let count = count.map_err(|source| Error::io("read", path, source))?;
        match Superblock::decode(bytes.get(..count).unwrap_or_default()) {
            SuperblockRead::Superblock(superblock) => {
                let place = superblock.slot().checked_mul(superblock.block_bytes);
                Ok((has_valid_shape(&superblock) && place == Some(offset)).then_some(superblock))
            }
            SuperblockRead::TooNew(found) => Err(Error::FormatTooNew { path: path.to_owned(), found, newest: FORMAT }),
            SuperblockRead::None => Ok(None),
        }
    };
    let mut found = Vec::new();
    found.extend(read(0)?);
    let sizes = (BLOCK_BYTES_MIN.ilog2()..=BLOCK_BYTES_MAX.ilog2()).map(|bits| 1 << bits);
    let wanted = found.first().map(|first: &Superblock| first.block_bytes);
    for size in sizes.filter(|size| wanted.is_none_or(|wanted| wanted == *size)) {
        // With larger blocks this is within block 0, behind the superblock: zeros.
        found.extend(read(size)?);
    }
    found.sort_by_key(|superblock| std::cmp::Reverse(superblock.sequence));
    Ok(found)
}

fn has_valid_shape(superblock: &Superblock) -> bool {
    superblock.block_bytes.is_power_of_two()
        && (BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&superblock.block_bytes)
        && superblock.file_blocks > SUPERBLOCKS
}

impl Published {
    /// Reads everything of a checkpoint that is kept in memory.
    pub(crate) fn read(device: &Device, superblock: Superblock) -> Result<Published> {
        let length = device.file.len().map_err(|source| Error::io("read the length of", &device.path, source))?;
        if length < device.offset(superblock.file_blocks) {
            let last = (length / device.block_bytes as u64) as u32;
            return Err(device.corrupt(last, "the file is shorter than its superblock says"));
        }
        let (bytes, manifest) = read_manifest(device, &superblock)?;
        let decoded = Manifest::decode(&bytes).filter(|decoded| decoded.store_id == superblock.identity.store_id);
        let bad = |what| device.corrupt(superblock.manifest.block, what);
        let decoded = decoded.ok_or_else(|| bad("the manifest is not what was written"))?;
        if decoded.pages.len() != page_count(entries_per_page(device.block_bytes), superblock.file_blocks) {
            return Err(bad("the manifest names a wrong number of table pages"));
        }
        let dictionary = match decoded.dictionary {
            bytes if bytes.is_empty() => None,
            bytes => Some(Arc::new(Dictionary::new(bytes).ok_or_else(|| bad("the dictionary cannot be read"))?)),
        };
        let mut pages = Vec::with_capacity(decoded.pages.len());
        for (page, at) in decoded.pages.iter().enumerate() {
            const WHAT: &str = "a page of the block table is not what was written";
            let bytes = device.read_checked(*at, WHAT)?;
            let entries = table::decode(&bytes, at.block, page as u32);
            pages.push(entries.ok_or_else(|| device.corrupt(at.block, WHAT))?);
        }
        let table = BlockTable::from_pages(device.block_bytes, superblock.file_blocks, pages);
        let directories =
            decoded.directories.into_iter().map(|directory| (directory.database, Arc::new(directory.leaves)));
        let published = Published {
            superblock,
            databases: decoded.databases,
            dictionary,
            directories: directories.collect(),
            table,
            pages: decoded.pages,
            manifest,
        };
        published.check_kinds(device)?;
        Ok(published)
    }

    /// Blocks that hold the index, the table and the manifest.
    pub(crate) fn own_blocks(&self) -> impl Iterator<Item = (u32, BlockKind)> {
        let leaves = self.directories.values().flat_map(|leaves| leaves.iter());
        (0..SUPERBLOCKS)
            .map(|block| (block, BlockKind::Superblock))
            .chain(self.pages.iter().map(|page| (page.block, BlockKind::Table)))
            .chain(self.manifest.iter().map(|block| (*block, BlockKind::Manifest)))
            .chain(leaves.map(|leaf| (leaf.at.block, BlockKind::Leaf)))
    }

    /// Leaves of all databases.
    pub(crate) fn leaf_count(&self) -> usize {
        self.directories.values().map(|leaves| leaves.len()).sum()
    }

    fn check_kinds(&self, device: &Device) -> Result<()> {
        for (block, kind) in self.own_blocks() {
            if self.table.get(block).kind() != Some(kind) {
                return Err(device.corrupt(block, "the block table says otherwise what this block is for"));
            }
        }
        let entries: u64 =
            self.directories.values().flat_map(|leaves| leaves.iter()).map(|leaf| u64::from(leaf.entries)).sum();
        if entries != self.superblock.entries {
            return Err(device.corrupt(self.superblock.slot(), "the index does not have as many entries as it should"));
        }
        Ok(())
    }
}

/// The manifest's bytes and blocks.
pub(super) fn read_manifest(device: &Device, superblock: &Superblock) -> Result<(Vec<u8>, Vec<u32>)> {
    const WHAT: &str = "a block of the manifest is not what was written";
    let ManifestRef { block, crc, bytes: length } = superblock.manifest;
    let (mut bytes, mut blocks) = (Vec::new(), Vec::new());
    let mut next = Some(BlockRef { block, crc });
    while let Some(at) = next {
        let read = device.read_checked(at, WHAT)?;
        let (part, after) = manifest::decode_block(&read, at.block).ok_or_else(|| device.corrupt(at.block, WHAT))?;
        bytes.extend_from_slice(part);
        blocks.push(at.block);
        next = after;
        if blocks.len() > superblock.file_blocks as usize {
            return Err(device.corrupt(at.block, "the manifest runs in a circle"));
        }
    }
    if bytes.len() as u64 != length {
        return Err(device.corrupt(block, "the manifest is not as long as its superblock says"));
    }
    Ok((bytes, blocks))
}
