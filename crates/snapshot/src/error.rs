//! Why a snapshot cannot be used.

use std::io;

/// Why a snapshot cannot be used. Whoever knows the file's name puts it in front.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The bytes could not be read.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// Something else.
    #[error("it is no snapshot of Bowline")]
    NotASnapshot,
    /// Written by a newer release.
    #[error("it is a snapshot of format {found}, this release reads up to {newest}: use the release that wrote it")]
    TooNew {
        /// Its format.
        found: u16,
        /// The newest this release reads.
        newest: u16,
    },
    /// The bytes are not what was written.
    #[error("it is damaged at byte {offset}: {what}; use another copy of the backup")]
    Damaged {
        /// Where in the snapshot.
        offset: u64,
        /// What does not fit.
        what: &'static str,
    },
    /// It ends before its end.
    #[error("it breaks off at byte {offset}: the backup was not finished, or a part of it was lost; use another one")]
    Incomplete {
        /// Where the bytes end.
        offset: u64,
    },
}
