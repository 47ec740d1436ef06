//! The block file: the one checkpoint of the store, brought from cut to cut by copying on write.
//!
//! ```text
//!     begin -> put / remove / finish_range ... -> new data, leaves, table pages, manifest -> sync -> superblock -> sync
//!                                                                                                       |
//!     View (a pinned checkpoint) <--- published <-------------------------------------------------------+
//! ```
//!
//! - Nothing that a published superblock reaches is ever overwritten. A block freed by checkpoint N is used again only
//!   when superblock N is durable and no [`View`] of an older checkpoint is left.
//! - Every reference carries the checksum of what it leads to, so stale, foreign, misdirected and zeroed blocks are
//!   seen before their bytes are used.
//! - An entry is named by the 64-bit hash of its key. Two keys of the same hash are told apart by a second hash of the
//!   key as it stands in the records, which are read only then.
//! - A checkpoint works on copies of the block table and the free space; dropping it leaves nothing behind.
//!
//! Not here: what is dirty, when to begin, what a lost superblock means beside the log; those are the caller's.

mod check;
mod checkpoint;
mod compaction;
pub(crate) mod compression;
mod device;
mod dictionary;
pub(crate) mod format;
mod index;
mod large;
mod publish;
mod published;
mod records;
mod room;
pub(crate) mod salvage;
mod scrub;
mod sort;
mod space;
mod table;
mod view;
mod writer;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

pub use check::{CheckReport, Inspection, Problem, ValueBytes};
pub use checkpoint::{Checkpoint, CheckpointOptions, Commit, Moved, Published};
pub use compression::Compression;
pub use format::record::Record;
pub use format::superblock::{FORMAT, Identity, Superblock};
pub use large::LargePut;
pub use published::FoundSuperblocks;
pub use room::{Room, put_cost};
pub use salvage::{LostEntry, LostRange};
pub use scrub::{ScrubCursor, Scrubbed};
pub use view::{LoadedRecord, Location, View};

use crate::disk::{Disk, DiskFile};
use crate::error::{Error, Result};
use crate::version::Version;
use device::Device;
use format::table::TableEntry;
use format::{BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, BlockKind, SUPERBLOCKS, manifest};
use space::{Run, Space};
use table::BlockTable;

/// First size of a file that grows by itself, bytes.
const FIRST_BYTES: u64 = 1024 * 1024;
/// Smallest file of a fixed size, blocks: superblocks, tables and an extent or two, twice over.
const BLOCKS_MIN: u64 = 64;

/// How the size of a block file is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSize {
    /// This many bytes, rounded down to whole blocks, all reserved when the file is made. At least 64 blocks.
    Fixed(u64),
    /// As large as needed: grows in steps and gives free blocks at its end back.
    Auto,
}

/// The shape of a new block file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes of a block: a power of two, 4096 to 65536.
    pub block_bytes: u32,
    /// Its size.
    pub size: FileSize,
}

/// Where a restored store comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parent {
    /// The store whose backup it was.
    pub store_id: [u8; 16],
    /// The last version that both have.
    pub fork_version: Version,
}

/// The two independent hashes of a key; the same functions for the whole life of a block file.
pub trait KeyHashes: Send + Sync {
    /// The hash that orders the index. The bits that choose a segment should be its highest, so that a segment is one
    /// range: rotate the keyspace's hash where they are not.
    fn hash(&self, key: &[u8]) -> u64;
    /// A second hash, independent of the first: tells keys of equal hash apart.
    fn fingerprint(&self, key: &[u8]) -> u64;
}

/// An open block file. One owner writes checkpoints; any number of [`View`]s read beside it.
pub struct BlockFile {
    device: Arc<Device>,
    found: FoundSuperblocks,
    published: Arc<published::Published>,
    space: Space,
    /// Blocks that checkpoints freed, oldest first, each with the checkpoint that reached them last: they wait until no
    /// reader has it or an older one.
    retired: VecDeque<(Weak<published::Published>, Vec<Run>)>,
    /// The last superblock may or may not have been written.
    in_doubt: bool,
    /// The last checkpoint failed: what the caller believes to be stored may not be.
    verify: bool,
    /// The last time that the file should have become longer, it could not.
    is_disk_full: bool,
}

impl BlockFile {
    /// Makes a block file with an empty checkpoint of sequence 0. It is written under another name and renamed when it
    /// is durable, so a crash leaves either no file at `path` or a whole one. An empty device at `path` is written in place.
    ///
    /// # Errors
    /// `Io`, also with `AlreadyExists` when a file stands at `path`, and with `InvalidInput` when the geometry is
    /// impossible.
    pub fn create(disk: &dyn Disk, path: &Path, geometry: &Geometry, identity: &Identity) -> Result<BlockFile> {
        BlockFile::create_restored(disk, path, geometry, identity, &Parent::default())
    }

    /// As [`BlockFile::create`], for a store that was restored: its superblocks name the parent.
    ///
    /// # Errors
    /// The same.
    pub fn create_restored(
        disk: &dyn Disk,
        path: &Path,
        geometry: &Geometry,
        identity: &Identity,
        parent: &Parent,
    ) -> Result<BlockFile> {
        let refuse = |kind: io::ErrorKind| Err(Error::io("create", path, kind.into()));
        let block_bytes = geometry.block_bytes;
        if !block_bytes.is_power_of_two() || !(BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&block_bytes) {
            return refuse(io::ErrorKind::InvalidInput);
        }
        let (file, is_device, making) = create_file(disk, path)?;
        let bytes = match geometry.size {
            _ if is_device => file.len().map_err(|source| Error::io("read the length of", path, source))?,
            FileSize::Fixed(bytes) => bytes,
            FileSize::Auto => FIRST_BYTES.max(BLOCKS_MIN * u64::from(block_bytes)),
        };
        let blocks = match u32::try_from(bytes / u64::from(block_bytes)) {
            Ok(blocks) if u64::from(blocks) >= BLOCKS_MIN => blocks,
            _ => return refuse(io::ErrorKind::InvalidInput),
        };
        let device = Device::new(file, making.clone(), block_bytes as usize);
        let auto = geometry.size == FileSize::Auto && !is_device;
        let first = Superblock {
            parent_store_id: parent.store_id,
            fork_version: parent.fork_version,
            ..first_superblock(identity, block_bytes, blocks, auto)
        };
        write_empty(&device, &first, is_device)?;
        if !is_device {
            disk.rename(&making, path).map_err(|source| Error::io("rename", &making, source))?;
            let directory = path.parent().unwrap_or(Path::new("/"));
            disk.sync_directory(directory).map_err(|source| Error::io("sync", directory, source))?;
        }
        BlockFile::open_device(Device { path: path.to_owned(), ..device })
    }

    /// Opens a block file at its newest valid superblock, and reads its index's directory and its block table.
    ///
    /// # Errors
    /// `Corrupt` when no superblock is valid or what the newest one reaches is damaged; `FormatTooNew`; `Io`.
    pub fn open(disk: &dyn Disk, path: &Path) -> Result<BlockFile> {
        let file = disk.open(path).map_err(|source| Error::io("open", path, source))?;
        BlockFile::open_device(Device::new(file, path.to_owned(), 0))
    }

    /// As [`BlockFile::open`], for reading only: a checkpoint cannot be begun.
    ///
    /// # Errors
    /// The same.
    pub fn open_read_only(disk: &dyn Disk, path: &Path) -> Result<BlockFile> {
        let file = disk.open_read_only(path).map_err(|source| Error::io("open", path, source))?;
        BlockFile::open_device(Device::new(file, path.to_owned(), 0))
    }

    /// Whether a block file or a device stands at `path` that has a superblock, of whatever format.
    ///
    /// # Errors
    /// `Io`, but not when nothing is there.
    pub fn is_at(disk: &dyn Disk, path: &Path) -> Result<bool> {
        let file = match disk.open_read_only(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            opened => opened.map_err(|source| Error::io("open", path, source))?,
        };
        match published::find_superblock(&*file, path) {
            Ok(_) | Err(Error::FormatTooNew { .. }) => Ok(true),
            Err(Error::Corrupt { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether a device stands at `path` that nothing was ever written to, or on which making a block file was broken off.
    ///
    /// # Errors
    /// `Io`.
    pub fn is_blank_device(disk: &dyn Disk, path: &Path) -> Result<bool> {
        let file = disk.open(path).map_err(|source| Error::io("open", path, source))?;
        Ok(is_device(&*file, path)? && is_blank(&*file, path)?)
    }

    fn open_device(device: Device) -> Result<BlockFile> {
        let (superblock, found) = published::find_superblock(&*device.file, &device.path)?;
        let device = Device { block_bytes: superblock.block_bytes as usize, ..device };
        let published = published::Published::read(&device, superblock)?;
        Ok(BlockFile {
            device: Arc::new(device),
            found,
            space: published.table.space(),
            published: Arc::new(published),
            retired: VecDeque::new(),
            in_doubt: false,
            verify: false,
            is_disk_full: false,
        })
    }

    /// What the two superblocks said at [`BlockFile::open`]. The log knows which checkpoint must be there: an older one
    /// is damage, and only the caller can tell.
    pub fn found(&self) -> FoundSuperblocks {
        self.found
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.device.path
    }

    /// The superblock of the newest published checkpoint.
    pub fn superblock(&self) -> &Superblock {
        &self.published.superblock
    }

    /// The database map as the caller gave it to the newest published checkpoint; empty at first.
    pub fn databases(&self) -> &[u8] {
        &self.published.databases
    }

    /// A reader of the newest published checkpoint. As long as it or a clone lives, the checkpoint's blocks are not
    /// used again: readers take a new one after each publish, a snapshot keeps its own.
    pub fn view(&self) -> View {
        View { device: Arc::clone(&self.device), published: Arc::clone(&self.published) }
    }

    /// Begins a checkpoint and chooses what it compacts. Dropped without [`Checkpoint::publish`], it leaves the file
    /// as it was.
    ///
    /// # Errors
    /// `CheckpointFailed` when an earlier checkpoint failed while its superblock was written: reopen.
    pub fn begin<'a>(&'a mut self, hashes: &'a dyn KeyHashes, options: &CheckpointOptions) -> Result<Checkpoint<'a>> {
        if self.in_doubt {
            return Err(Error::CheckpointFailed { path: self.device.path.clone() });
        }
        self.release_retired();
        Ok(Checkpoint::new(self, hashes, options))
    }

    /// Whether a checkpoint failed while its superblock was written: it may or may not count, so nothing may go on.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.in_doubt
    }

    /// A checkpoint has become durable.
    fn take_over(&mut self, next: published::Published, space: Space, freed: Vec<Run>) {
        let before = std::mem::replace(&mut self.published, Arc::new(next));
        self.retired.push_back((Arc::downgrade(&before), freed));
        drop(before);
        self.space = space;
        self.verify = false;
        self.release_retired();
    }

    /// Frees what no reader can reach any more. Done with each checkpoint; by hand where readers have just gone.
    pub(crate) fn release_retired(&mut self) -> bool {
        let before = self.space.free();
        // A later checkpoint's blocks may be reached by an earlier reader, so the oldest reader holds all of them.
        while let Some((_, runs)) = self.retired.pop_front_if(|(reader, _)| reader.strong_count() == 0) {
            for run in runs {
                self.space.release(run);
            }
        }
        self.space.free() > before
    }
}

/// Creates the file under the name it has while it is being made, or opens a device; says which.
fn create_file(disk: &dyn Disk, path: &Path) -> Result<(Box<dyn DiskFile>, bool, PathBuf)> {
    if let Ok(file) = disk.open(path) {
        if !is_device(&*file, path)? {
            return Err(Error::io("create", path, io::ErrorKind::AlreadyExists.into()));
        }
        if !is_blank(&*file, path)? {
            // It may be somebody's file system.
            let what = "the device is not empty: if nothing on it is needed, write zeros over its first megabyte";
            return Err(Error::io("use", path, io::Error::new(io::ErrorKind::AlreadyExists, what)));
        }
        return Ok((file, true, path.to_owned()));
    }
    let mut name = OsString::from(path);
    name.push(".new");
    let making = PathBuf::from(name);
    // Left by a crash.
    let _ = disk.remove(&making);
    let file = disk.create(&making).map_err(|source| Error::io("create", &making, source))?;
    Ok((file, false, making))
}

/// Whether a device stands at `path`.
pub(crate) fn is_device_at(disk: &dyn Disk, path: &Path) -> Result<bool> {
    disk.open(path).map_or(Ok(false), |file| is_device(&*file, path))
}

/// Only a device has one size for ever.
fn is_device(file: &dyn DiskFile, path: &Path) -> Result<bool> {
    let length = file.len().map_err(|source| Error::io("read the length of", path, source))?;
    Ok(matches!(file.resize(length), Err(error) if error.kind() == io::ErrorKind::Unsupported))
}

/// Whether nothing stands where file systems and volumes have their labels, except blocks of ours.
fn is_blank(file: &dyn DiskFile, path: &Path) -> Result<bool> {
    const STEP: usize = BLOCK_BYTES_MIN as usize;
    let mut start = vec![0; 2 * BLOCK_BYTES_MAX as usize];
    let read = crate::disk::read_up_to(file, &mut start, 0).map_err(|source| Error::io("read", path, source))?;
    start.truncate(read);
    let is_zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    // The superblocks are zeroed before anything else is written.
    let (superblocks, rest) = start.split_at(start.len().min(SUPERBLOCKS as usize * STEP));
    let is_ours = |(place, block): (usize, &[u8])| {
        let offset = (superblocks.len() + place * STEP) as u64;
        is_zero(block)
            || format::BlockHeader::decode(block).is_some_and(|header| {
                let sizes = (BLOCK_BYTES_MIN.ilog2()..=BLOCK_BYTES_MAX.ilog2()).map(|bits| 1u64 << bits);
                sizes.into_iter().any(|size| u64::from(header.block) * size == offset)
            })
    };
    Ok(is_zero(superblocks) && rest.chunks(STEP).enumerate().all(is_ours))
}

fn first_superblock(identity: &Identity, block_bytes: u32, file_blocks: u32, auto: bool) -> Superblock {
    Superblock {
        identity: *identity,
        block_bytes,
        file_blocks,
        auto,
        sequence: 0,
        cut: Version::ZERO,
        log_position: 0,
        parent_store_id: [0; 16],
        fork_version: Version::ZERO,
        entries: 0,
        live_bytes: 0,
        manifest: format::superblock::ManifestRef::default(),
    }
}

/// Writes the empty checkpoint that a file begins with.
fn write_empty(device: &Device, superblock: &Superblock, is_device: bool) -> Result<()> {
    let (block_bytes, file_blocks) = (device.block_bytes, superblock.file_blocks);
    if is_device {
        // What the device held must not look like a superblock while this is half done.
        device.write(0, &vec![0; block_bytes * SUPERBLOCKS as usize])?;
        device.sync()?;
    } else {
        device.resize(file_blocks)?;
    }
    let mut table = BlockTable::new(block_bytes, file_blocks);
    for block in 0..SUPERBLOCKS {
        table.set(block, TableEntry::single(BlockKind::Superblock));
    }
    let pages = table.page_count() as u32;
    let first_manifest = SUPERBLOCKS + pages;
    let manifest_bytes = manifest::encoded_bytes(0, 0, pages as usize, std::iter::empty());
    let manifest_blocks = manifest_bytes.div_ceil(manifest::payload_bytes(block_bytes)) as u32;
    for block in SUPERBLOCKS..first_manifest + manifest_blocks {
        let kind = if block < first_manifest { BlockKind::Table } else { BlockKind::Manifest };
        table.set(block, TableEntry::single(kind));
    }
    let mut written = manifest::Manifest { store_id: superblock.identity.store_id, ..Default::default() };
    for page in 0..pages {
        let block = SUPERBLOCKS + page;
        let bytes = format::table::encode(block_bytes, block, 0, page, table.page(page as usize));
        device.write(block, &bytes)?;
        written.pages.push(manifest::BlockRef { block, crc: crc32c::crc32c(&bytes) });
    }
    let blocks: Vec<u32> = (first_manifest..first_manifest + manifest_blocks).collect();
    let root =
        publish::write_manifest(&written, &blocks, block_bytes, 0, &mut |block, bytes| device.write(block, bytes))?;
    device.sync()?;
    let mut block = Superblock { manifest: root, ..*superblock }.encode().to_vec();
    block.resize(block_bytes, 0);
    device.write(0, &block)?;
    device.sync()
}

#[cfg(test)]
mod tests;
