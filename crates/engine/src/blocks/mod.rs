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
//!
//! Not here: what is dirty, when to begin, what a lost superblock means beside the log; those are the caller's.

mod checkpoint;
pub(crate) mod format;
mod index;
mod space;
mod table;
mod view;

use std::path::{Path, PathBuf};

pub use checkpoint::{Checkpoint, CheckpointOptions, Commit, LargePut, Published};
pub use format::record::Record;
pub use format::superblock::{FORMAT, Identity, Superblock};
pub use view::{LoadedRecord, Location, View};

use crate::disk::Disk;
use crate::error::Result;
use crate::version::Version;

/// How the size of a block file is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSize {
    /// This many bytes, rounded down to whole blocks, all allocated when the file is made.
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

/// The two independent hashes of a key; the same functions for the whole life of a block file.
pub trait KeyHashes: Send + Sync {
    /// The hash that orders the index. The bits that choose a segment should be its highest, so that a segment is one
    /// range: rotate the keyspace's hash where they are not.
    fn hash(&self, key: &[u8]) -> u64;
    /// A second hash, independent of the first: tells keys of equal hash apart.
    fn fingerprint(&self, key: &[u8]) -> u64;
}

/// What the two superblocks of a file said when it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundSuperblocks {
    /// The cut and sequence of the one that counts.
    pub newest: (u64, Version),
    /// The same of the other one, where it is valid.
    pub older: Option<(u64, Version)>,
}

/// How much the next checkpoint can take, while what it needs for its index, its tables and one compaction stays free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes left for the sum of [`put_cost`] of everything not yet in a published checkpoint; `u64::MAX` for a file
    /// that grows by itself.
    pub bytes: u64,
    /// Bytes of dead records that compaction can win back over the next checkpoints.
    pub reclaimable_bytes: u64,
}

/// Upper bound of the room that one entry takes: what to subtract from [`Room::bytes`] before a write is executed.
/// Removals take none.
pub fn put_cost(key_bytes: usize, value_bytes: usize) -> u64 {
    let _ = (key_bytes, value_bytes);
    todo!("comes with the allocator")
}

/// An open block file. One owner writes checkpoints; any number of [`View`]s read beside it.
pub struct BlockFile {
    path: PathBuf,
}

impl BlockFile {
    /// Makes a block file with an empty checkpoint of sequence 0. It is written under another name and renamed when it
    /// is durable, so a crash leaves either no file at `path` or a whole one. A device that exists at `path` is
    /// overwritten in place.
    ///
    /// # Errors
    /// `Io`, also when a file stands at `path`; `BlockFileFull` when the size is too small to hold anything.
    pub fn create(disk: &dyn Disk, path: &Path, geometry: &Geometry, identity: &Identity) -> Result<BlockFile> {
        let _ = (disk, path, geometry, identity);
        todo!()
    }

    /// Opens a block file at its newest valid superblock, and reads its index's directory and its block table.
    ///
    /// # Errors
    /// `Corrupt` when no superblock is valid or what the newest one reaches is damaged; `FormatTooNew`; `Io`.
    pub fn open(disk: &dyn Disk, path: &Path) -> Result<BlockFile> {
        let _ = (disk, path);
        todo!()
    }

    /// What the two superblocks said at [`BlockFile::open`]. The log knows which checkpoint must be there: an older one
    /// is damage, and only the caller can tell.
    pub fn found(&self) -> FoundSuperblocks {
        todo!()
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The superblock of the newest published checkpoint.
    pub fn superblock(&self) -> &Superblock {
        todo!()
    }

    /// The database map as the caller gave it to the newest published checkpoint; empty at first.
    pub fn databases(&self) -> &[u8] {
        todo!()
    }

    /// A reader of the newest published checkpoint. As long as it or a clone lives, the checkpoint's blocks are not
    /// used again: readers take a new one after each publish, a snapshot keeps its own.
    pub fn view(&self) -> View {
        todo!()
    }

    /// What the next checkpoint can take.
    pub fn room(&self) -> Room {
        todo!()
    }

    /// Begins a checkpoint and chooses what it compacts. Dropped without [`Checkpoint::publish`], it leaves the file
    /// as it was.
    ///
    /// # Errors
    /// `CheckpointFailed` when an earlier checkpoint failed while its superblock was written: reopen.
    pub fn begin<'a>(&'a mut self, hashes: &'a dyn KeyHashes, options: &CheckpointOptions) -> Result<Checkpoint<'a>> {
        let _ = (hashes, options);
        todo!()
    }
}
