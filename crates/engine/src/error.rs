//! Why the store refused, split by what the caller can do next.

use std::io;
use std::path::{Path, PathBuf};

/// Why the store refused, split by what the caller can do next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused `op` on `path`.
    #[error("cannot {op} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb: "open", "write", "sync".
        op: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Bytes are not what we wrote: restore from a backup or a replica.
    #[error("{} is damaged at byte {offset}: {what}; restore it from a backup, nothing was changed", path.display())]
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// Where in the file.
        offset: u64,
        /// What does not fit.
        what: &'static str,
    },
    /// Written by a newer release: upgrade this one. Nothing was changed.
    #[error("{} has format {found}, this release reads up to {newest}: upgrade it; nothing was changed", path.display())]
    FormatTooNew {
        /// The file.
        path: PathBuf,
        /// Its format number.
        found: u16,
        /// The newest this release reads.
        newest: u16,
    },
    /// A restore into the directory broke off: it holds no store.
    #[error("a restore into {} was not finished: empty it and restore again", path.display())]
    RestoreUnfinished {
        /// The directory.
        path: PathBuf,
    },
    /// Another process has the directory open.
    #[error("{} is in use by process {}: stop it or choose another directory", path.display(), pid.map_or_else(|| "(unknown)".to_owned(), |pid| pid.to_string()))]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The owner, where the lock file tells.
        pid: Option<u32>,
    },
    /// The disk is full. The write was refused before anything changed; reads and deletes go on and writes resume by
    /// themselves when there is room.
    #[error("no room for the log in {}: free some space there, writes resume by themselves", path.display())]
    DiskFull {
        /// The log's directory.
        path: PathBuf,
    },
    /// Memory is at its limit and the policy finds nothing to evict. The write was refused before anything changed; reads
    /// and removals go on.
    #[error("memory is at its limit of {limit} bytes: remove entries, raise the limit or choose a policy that evicts")]
    OutOfMemory {
        /// The limit in bytes.
        limit: usize,
    },
    /// A value is in the block file only and cannot be read from it. Everything else goes on.
    #[error("the value cannot be read back ({cause}): write it anew, delete the key, or restore a backup")]
    Unreadable {
        /// What is wrong with the file.
        cause: String,
    },
    /// A part of the store was not in memory yet and cannot be loaded. The store stops: nothing acknowledged is lost by that.
    #[error("the entries cannot be loaded ({cause}): see the log, restore a backup")]
    NotLoaded {
        /// What is wrong with the file.
        cause: String,
    },
    /// The block file is full: the checkpoint was given up, the one before stays. Writes wait until there is room.
    #[error("the block file {} is full at {bytes} bytes: delete some keys, or make a larger one", path.display())]
    BlockFileFull {
        /// The block file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// Checkpoints fail, so the log cannot be shortened and has become too long. The write was refused before anything
    /// changed; reads and deletes go on, and writes resume by themselves after the next checkpoint.
    #[error("the log is too long, because checkpoints into {} fail ({cause}): see to that; writes resume by themselves", path.display())]
    CheckpointsFail {
        /// The block file.
        path: PathBuf,
        /// What the last one said.
        cause: String,
    },
    /// An earlier checkpoint failed while its superblock was written, so nobody knows which one the file holds: reopen
    /// the store. Nothing acknowledged is lost.
    #[error("an earlier checkpoint into {} failed at its last step: see the log, repair the disk and restart", path.display())]
    CheckpointFailed {
        /// The block file.
        path: PathBuf,
    },
    /// An earlier write or sync failed, so nothing more can be acknowledged: reopen the store. Nothing acknowledged is
    /// lost.
    #[error("an earlier write to the log failed, the store is stopped: see the log, repair the disk and restart")]
    Poisoned,
    /// The store was closed by another of its handles: open it again.
    #[error("the store is closed: open it again")]
    Closed,
    /// A key or value is longer than the settings allow.
    #[error("{what} of {found} bytes is over the limit of {limit}")]
    TooLarge {
        /// "key", "value" or "batch".
        what: &'static str,
        /// Its size in bytes.
        found: usize,
        /// The limit in bytes.
        limit: usize,
    },
}

impl Error {
    /// Says what was tried on which path.
    pub fn io(op: &'static str, path: &Path, source: io::Error) -> Error {
        Error::Io { op, path: path.to_owned(), source }
    }
}

/// A place in a file whose bytes are not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// Where in it, bytes.
    pub offset: u64,
    /// What does not fit.
    pub what: &'static str,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at byte {}: {}", self.path.display(), self.offset, self.what)
    }
}

/// Short for a result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
