//! Reading what a damaged block file still holds, for a repair. Reads only.
//!
//! ```text
//!   superblock   valid, or rebuilt from the manifest whose sequence follows the other superblock's
//!   manifest     whole, or none: then the newest table pages and the leaves are found by their headers
//!   table page   lost: the checksums of 509 blocks (of 4 KiB) are not known; their records are kept, and told apart
//!   leaf         lost: records whose hashes lie in its range are looked for in all extents that are in use
//!   data, chunk  a block lost: the records that touch it
//! ```
//!
//! A record is *named* when the index leads to it: it is live, for sure. Others were live once; of those of one key the
//! newest counts, and whoever repairs must be told that removed entries may come back. What the block table has a
//! checksum for is compared with it; without one a record has to be where its headers say, with a key of the right hash.
//!
//! Not here: the walk over the records (`walk`), what is done with them and with the log (`store::repair`).

mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind::NotFound;
use std::path::Path;
use std::sync::Arc;

pub use walk::LostEntry;
pub(crate) use walk::{Losses, SalvagedRecord};

use super::device::Device;
use super::dictionary::Dictionary;
use super::format::leaf::{self, IndexEntry, UNIT_BYTES};
use super::format::manifest::{self, BlockRef, Manifest};
use super::format::superblock::{ManifestRef, Superblock};
use super::format::table::{self, TableEntry, entries_per_page};
use super::format::{BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, BlockHeader, BlockKind, SUPERBLOCKS};
use super::published::{self, Published};
use super::view::View;
use crate::disk::Disk;
use crate::error::{Damage, Error, Result};
use crate::keyspace::DatabaseId;
use crate::version::Version;

/// Bytes read at once.
const READ_BYTES: usize = 1024 * 1024;
/// Blocks by whose headers the size of a block is guessed.
const GUESS_BLOCKS: u64 = 4096;
/// Damaged places that are told one by one.
pub(crate) const DAMAGE_MAX: usize = 1000;

/// A block file with whatever of it can be read.
pub(crate) struct BlockRemains {
    device: Arc<Device>,
    /// Valid superblocks, the newest first.
    pub(crate) superblocks: Vec<Superblock>,
    /// Blocks that the file is long.
    blocks: u32,
}

/// A range of hashes whose leaf of the index is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostRange {
    /// The database.
    pub database: DatabaseId,
    /// The lowest hash.
    pub first_hash: u64,
    /// The highest hash.
    pub last_hash: u64,
    /// Entries that the leaf named.
    pub entries: u64,
}

/// An entry of the index and its database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Named {
    database: u32,
    entry: IndexEntry,
}

/// What leads to the records, as far as it can be read.
#[derive(Default)]
pub(crate) struct Roots {
    /// What the table says of each block; `None` where its page is lost.
    table: Vec<Option<TableEntry>>,
    /// Entries of the index by block and hash.
    named: Vec<Named>,
    /// Leaves that are lost.
    pub(crate) lost_ranges: Vec<LostRange>,
    /// Leaves are lost, and nobody knows which.
    pub(crate) index_is_partial: bool,
    /// The caller's map of databases; `None` when it is lost.
    pub(crate) databases: Option<Vec<u8>>,
    /// The dictionary that compressed values need; `None` when there is none or it is lost.
    dictionary: Option<Dictionary>,
    /// What is damaged so far, the first thousand places.
    pub(crate) damage: Vec<Damage>,
}

impl BlockRemains {
    /// Opens what stands at `path`; `None` for nothing, or nothing that was a block file.
    ///
    /// # Errors
    /// `Io`, `FormatTooNew`.
    pub(crate) fn open(disk: &dyn Disk, path: &Path) -> Result<Option<BlockRemains>> {
        let file = match disk.open_read_only(path) {
            Err(error) if error.kind() == NotFound => return Ok(None),
            opened => opened.map_err(|source| Error::io("open", path, source))?,
        };
        let superblocks = published::valid_superblocks(&*file, path)?;
        let length = file.len().map_err(|source| Error::io("read the length of", path, source))?;
        let mut device = Device::new(file, path.to_owned(), 0);
        device.block_bytes = match superblocks.first() {
            Some(superblock) => superblock.block_bytes as usize,
            None => match guess_block_bytes(&device, length)? {
                Some(bytes) => bytes as usize,
                None => return Ok(None),
            },
        };
        let blocks = u32::try_from(length / device.block_bytes as u64).unwrap_or(u32::MAX);
        Ok(Some(BlockRemains { device: Arc::new(device), superblocks, blocks }))
    }

    /// Bytes of a block.
    pub(crate) fn block_bytes(&self) -> u32 {
        self.device.block_bytes as u32
    }

    /// A place in the file.
    pub(crate) fn damage(&self, block: u32, what: &'static str) -> Damage {
        Damage { path: self.device.path.clone(), offset: self.device.offset(block), what }
    }

    /// The checkpoint of a superblock, if everything that leads to its records is whole.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub(crate) fn view(&self, superblock: &Superblock) -> Result<View> {
        let published = Published::read(&self.device, *superblock)?;
        Ok(View { device: Arc::clone(&self.device), published: Arc::new(published) })
    }

    /// The superblock after `before`, put together from its manifest: the one that was overwritten by rot. `cut` and
    /// `log_position` are known from the log. `None` when the manifest is not whole.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn rebuild(&self, before: &Superblock, cut: Version, log_position: u64) -> Result<Option<Superblock>> {
        let sequence = before.sequence + 1;
        let is_next = |of: u64, manifest: &Manifest| of == sequence && manifest.store_id == before.identity.store_id;
        let mut rebuilt = Vec::new();
        for (_, root, manifest) in self.manifests()?.into_iter().filter(|(of, _, manifest)| is_next(*of, manifest)) {
            let superblock = Superblock { sequence, cut, log_position, ..*before };
            rebuilt.extend(self.rebuild_from(&superblock, root, &manifest)?);
        }
        // A checkpoint that failed at its last step may have left one more: then nobody knows which it was.
        Ok(rebuilt.pop().filter(|_| rebuilt.is_empty()))
    }

    fn rebuild_from(&self, known: &Superblock, root: ManifestRef, manifest: &Manifest) -> Result<Option<Superblock>> {
        let page_blocks = manifest.pages.len() as u64 * entries_per_page(self.device.block_bytes) as u64;
        let leaves = manifest.directories.iter().flat_map(|directory| &directory.leaves);
        let mut superblock = Superblock {
            file_blocks: u64::from(self.blocks).min(page_blocks) as u32,
            entries: leaves.map(|leaf| u64::from(leaf.entries)).sum(),
            manifest: root,
            ..*known
        };
        match self.view(&superblock) {
            Ok(view) => {
                let extents = view.published.table.extents(BlockKind::Data);
                superblock.live_bytes = extents.map(|(_, live)| u64::from(live) * UNIT_BYTES as u64).sum();
                Ok(Some(superblock))
            }
            Err(Error::Corrupt { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads what leads to the records: of `superblock`, or of the newest checkpoint that left a trace.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn roots(&self, superblock: Option<&Superblock>) -> Result<Roots> {
        let mut roots = Roots { table: vec![None; self.blocks as usize], ..Roots::default() };
        let manifest = match superblock {
            Some(superblock) => match published::read_manifest(&self.device, superblock) {
                Ok((bytes, _)) => Manifest::decode(&bytes),
                Err(Error::Corrupt { offset, what, .. }) => {
                    roots.damage.push(Damage { path: self.device.path.clone(), offset, what });
                    None
                }
                Err(error) => return Err(error),
            },
            None => self.manifests()?.pop().map(|(.., manifest)| manifest),
        };
        match manifest {
            Some(manifest) => self.read_named_roots(&manifest, &mut roots)?,
            None => self.find_roots(superblock.map(|superblock| superblock.sequence), &mut roots)?,
        }
        for block in 0..SUPERBLOCKS.min(self.blocks) {
            roots.set(block, TableEntry::single(BlockKind::Superblock));
        }
        roots.named.sort_unstable_by_key(|named| (named.entry.block, named.entry.hash, named.database));
        Ok(roots)
    }

    /// Table and index as a manifest names them.
    fn read_named_roots(&self, manifest: &Manifest, roots: &mut Roots) -> Result<()> {
        const PAGE: &str = "a page of the block table is lost, and with it the checksums of the blocks that it covers";
        const LEAF: &str = "a leaf of the index is lost";
        roots.databases = Some(manifest.databases.clone());
        roots.dictionary = Dictionary::new(manifest.dictionary.clone());
        for (page, at) in manifest.pages.iter().enumerate() {
            let entries = match self.device.read_checked(*at, PAGE) {
                Ok(bytes) => table::decode(&bytes, at.block, page as u32),
                Err(Error::Corrupt { .. }) => None,
                Err(error) => return Err(error),
            };
            match entries {
                Some(entries) => roots.put_page(page, &entries, self.device.block_bytes),
                None => roots.damage.push(self.damage(at.block, PAGE)),
            }
        }
        let mut entries = Vec::new();
        for directory in &manifest.directories {
            for (place, leaf) in directory.leaves.iter().enumerate() {
                entries.clear();
                match self.device.read_leaf(directory.database, leaf, &mut entries) {
                    Ok(()) => roots.add_entries(directory.database, &entries),
                    Err(Error::Corrupt { .. }) => {
                        let next = directory.leaves.get(place + 1);
                        roots.damage.push(self.damage(leaf.at.block, LEAF));
                        roots.lost_ranges.push(LostRange {
                            database: DatabaseId(directory.database),
                            first_hash: leaf.first_hash,
                            last_hash: next.map_or(u64::MAX, |next| next.first_hash),
                            entries: u64::from(leaf.entries),
                        });
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Table and index by the headers of their blocks, where no manifest leads to them.
    fn find_roots(&self, newest: Option<u64>, roots: &mut Roots) -> Result<()> {
        let mut pages: BTreeMap<u32, (u64, Vec<TableEntry>)> = BTreeMap::new();
        self.for_each_block(&mut |block, header, bytes| {
            if header.kind != BlockKind::Table || newest.is_some_and(|newest| header.sequence > newest) {
                return;
            }
            let page = table::page_of(bytes).unwrap_or(u32::MAX);
            let is_newest = pages.get(&page).is_none_or(|(sequence, _)| *sequence <= header.sequence);
            if let Some(entries) = table::decode(bytes, block, page).filter(|_| is_newest) {
                pages.insert(page, (header.sequence, entries));
            }
        })?;
        for (page, (_, entries)) in &pages {
            roots.put_page(*page as usize, entries, self.device.block_bytes);
        }
        let mut index: BTreeMap<(u32, u64, u32), u8> = BTreeMap::new();
        let mut leaves = 0;
        let table = std::mem::take(&mut roots.table);
        let says_leaf = |block: u32| table.get(block as usize).copied().flatten().map(TableEntry::kind);
        self.for_each_block(&mut |block, header, bytes| {
            let is_in_use = says_leaf(block).is_none_or(|kind| kind == Some(BlockKind::Leaf));
            if header.kind != BlockKind::Leaf || !is_in_use {
                return;
            }
            let database = leaf::database_of(bytes).unwrap_or(0);
            let mut entries = Vec::new();
            if leaf::decode(bytes, block, database, &mut entries).is_some() {
                leaves += usize::from(says_leaf(block).is_some());
                index.extend(entries.iter().map(|entry| ((entry.block, entry.hash, database), entry.size_code)));
            }
        })?;
        let wanted = table.iter().flatten().filter(|entry| entry.kind() == Some(BlockKind::Leaf)).count();
        roots.index_is_partial = leaves < wanted || table.iter().any(Option::is_none);
        roots.table = table;
        for ((block, hash, database), size_code) in index {
            roots.named.push(Named { database, entry: IndexEntry { hash, block, size_code } });
        }
        // An older manifest may still say what the numbers of the databases stand for; a file keeps its dictionary.
        if let Some((.., manifest)) = self.manifests()?.pop() {
            roots.databases = Some(manifest.databases);
            roots.dictionary = Dictionary::new(manifest.dictionary);
        }
        Ok(())
    }

    /// All manifests that are whole, by their sequences.
    fn manifests(&self) -> Result<Vec<(u64, ManifestRef, Manifest)>> {
        let mut blocks: BTreeMap<(u64, u32), (Vec<u8>, u32)> = BTreeMap::new();
        self.for_each_block(&mut |block, header, bytes| {
            if header.kind == BlockKind::Manifest {
                blocks.insert((header.sequence, block), (bytes.to_vec(), crc32c::crc32c(bytes)));
            }
        })?;
        let next_of = |(sequence, block): (u64, u32)| {
            let (bytes, _) = blocks.get(&(sequence, block))?;
            manifest::decode_block(bytes, block)
        };
        let followers: BTreeSet<(u64, u32)> =
            blocks.keys().filter_map(|at| Some((at.0, next_of(*at)?.1?.block))).collect();
        let mut found = Vec::new();
        for (&(sequence, first), (_, crc)) in blocks.iter().filter(|(at, _)| !followers.contains(at)) {
            let (mut bytes, mut next) = (Vec::new(), Some(BlockRef { block: first, crc: *crc }));
            let mut steps = 0;
            while let Some(at) = next
                && blocks.get(&(sequence, at.block)).is_some_and(|(_, crc)| *crc == at.crc)
                && let Some((part, after)) = next_of((sequence, at.block))
                && steps <= blocks.len()
            {
                bytes.extend_from_slice(part);
                next = after;
                steps += 1;
            }
            if next.is_none()
                && let Some(manifest) = Manifest::decode(&bytes)
            {
                let root = ManifestRef { block: first, crc: *crc, bytes: bytes.len() as u64 };
                found.push((sequence, root, manifest));
            }
        }
        Ok(found)
    }

    /// Calls `visit` with every block whose header says that it stands where it does.
    fn for_each_block(&self, visit: &mut dyn FnMut(u32, BlockHeader, &[u8])) -> Result<()> {
        let step = (READ_BYTES / self.device.block_bytes) as u32;
        let mut raw = Vec::new();
        let mut block = SUPERBLOCKS;
        while block < self.blocks {
            self.device.read_into(block, step.min(self.blocks - block), &mut raw)?;
            for (place, bytes) in raw.chunks_exact(self.device.block_bytes).enumerate() {
                let block = block + place as u32;
                if let Some(header) = BlockHeader::decode(bytes).filter(|header| header.block == block) {
                    visit(block, header, bytes);
                }
            }
            block += step;
        }
        Ok(())
    }
}

impl Roots {
    fn set(&mut self, block: u32, entry: TableEntry) {
        if let Some(place) = self.table.get_mut(block as usize) {
            *place = Some(entry);
        }
    }

    fn put_page(&mut self, page: usize, entries: &[TableEntry], block_bytes: usize) {
        let first = page * entries_per_page(block_bytes);
        for (place, entry) in entries.iter().enumerate() {
            self.set((first + place) as u32, *entry);
        }
    }

    fn add_entries(&mut self, database: u32, entries: &[IndexEntry]) {
        self.named.extend(entries.iter().map(|entry| Named { database, entry: *entry }));
    }
}

/// The size of a block by which most blocks say that they stand where they do.
fn guess_block_bytes(device: &Device, length: u64) -> Result<Option<u32>> {
    let sizes = (BLOCK_BYTES_MIN.ilog2()..=BLOCK_BYTES_MAX.ilog2()).map(|bits| 1u32 << bits);
    let mut best = (0, None);
    for size in sizes {
        let mut right = 0;
        for block in u64::from(SUPERBLOCKS)..(length / u64::from(size)).min(GUESS_BLOCKS) {
            let mut bytes = [0; super::format::BLOCK_HEADER_BYTES];
            let read = crate::disk::read_up_to(&*device.file, &mut bytes, block * u64::from(size));
            read.map_err(|source| Error::io("read", &device.path, source))?;
            right += u64::from(BlockHeader::decode(&bytes).is_some_and(|header| u64::from(header.block) == block));
        }
        if right > best.0 {
            best = (right, Some(size));
        }
    }
    Ok(best.1)
}
