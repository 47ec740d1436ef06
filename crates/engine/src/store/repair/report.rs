//! What a repair says before it does anything, and why it refuses. Not here: finding it out (`repair`).

use std::path::PathBuf;

use crate::blocks::{LostEntry, LostRange};
use crate::error::{Damage, Error};
use crate::log::LogCut;
use crate::log::archive::StoreId;
use crate::version::Version;

/// Why a store is not repaired. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepairError {
    /// Its files cannot be read or written; or another process uses them.
    #[error(transparent)]
    Store(#[from] Error),
    /// Block file and log are of two stores.
    #[error("{} belongs to store {of_blocks}, the log in {} to store {of_log}: put the files of one store together", block_file.display(), log_directory.display())]
    TwoStores {
        /// The block file.
        block_file: PathBuf,
        /// Its store.
        of_blocks: StoreId,
        /// The log.
        log_directory: PathBuf,
        /// Its store.
        of_log: StoreId,
    },
    /// The block file is a device, which has room for one store only.
    #[error("{} is a device, and a repair keeps the damaged store: copy it into a file (dd if={} of=FILE bs=1M), repair with --block-file FILE, and write zeros over the device's first megabyte, and bring a backup of the result back with --restore", path.display(), path.display())]
    Device {
        /// The device.
        path: PathBuf,
    },
    /// There is neither a log nor a block file that anything can be read of.
    #[error("nothing of a store can be read in {}: restore a backup", directory.display())]
    NothingLeft {
        /// The store's directory.
        directory: PathBuf,
    },
}

/// What a repaired state begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Basis {
    /// The newest checkpoint, whole.
    Checkpoint(Version),
    /// The newest checkpoint, whole, whose superblock was put together again.
    Rebuilt(Version),
    /// The checkpoint before the newest, whole; the log reaches back to it.
    Older(Version),
    /// The log alone, from its first record on.
    Log,
    /// What can be read of a checkpoint.
    Salvaged(Version),
    /// Records found in a block file without a superblock.
    Scanned,
    /// Nothing: no block file is left.
    Nothing,
}

/// A part of the past that is missing altogether.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Gap {
    /// Changes above the first version, up to the second.
    Between(Version, Version),
    /// Everything above this version: the log is missing.
    After(Version),
    /// Everything up to this version that was not written again after it.
    Before(Version),
}

/// What is damaged, what would be kept and what would be lost.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RepairReport {
    /// The damaged store, where it is known.
    pub store_id: Option<StoreId>,
    /// Damaged places, the first thousand.
    pub damage: Vec<Damage>,
    /// What the state begins with.
    pub basis: Basis,
    /// The last change that is kept.
    pub version: Version,
    /// Entries that are kept; some of them may be due to expire.
    pub entries: u64,
    /// Commands replayed from the log.
    pub records: u64,
    /// Entries that are lost and that the log does not bring back.
    pub lost: Vec<LostEntry>,
    /// Parts of the index that are lost: entries in them were looked for in the data.
    pub lost_ranges: Vec<LostRange>,
    /// Entries kept that were found without the index: some of them may have been removed or changed before.
    pub unnamed: u64,
    /// Entries kept whose checksums are lost.
    pub unchecked: u64,
    /// What is missing altogether.
    pub gap: Option<Gap>,
    /// What stands behind the first damage in the log.
    pub log_cut: Option<LogCut>,
    /// Lost frames of the log that held nothing.
    pub marks_passed: u64,
    /// Log files that were read from the archive.
    pub archived: Vec<PathBuf>,
    /// Whether the map of databases is lost: numbers may stand for other databases than before.
    pub databases_lost: bool,
    /// What is wrong with the archive; a repair does not change it.
    pub archive_damage: Option<String>,
}

impl RepairReport {
    /// Whether the repaired store would have everything that was acknowledged.
    pub fn is_exact(&self) -> bool {
        let whole = matches!(self.basis, Basis::Checkpoint(_) | Basis::Rebuilt(_) | Basis::Older(_) | Basis::Log);
        whole && self.lost.is_empty() && self.gap.is_none() && self.log_cut.is_none()
    }
}

/// What a repair did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Repaired {
    /// The new store.
    pub store_id: StoreId,
    /// Its entries.
    pub entries: u64,
    /// The last change in it.
    pub version: Version,
    /// The names that the old files have now.
    pub put_aside: Vec<PathBuf>,
}
