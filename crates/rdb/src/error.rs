//! Why a file could not be read, split by what a person can do next. Each error says at which byte it was found.

use std::io;

/// Why an RDB could not be read on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The first bytes are not those of an RDB: it is another file.
    #[error("this is not an RDB file: it begins with \"{found}\" instead of REDIS or VALKEY and a version")]
    NotRdb {
        /// The first bytes, made printable.
        found: String,
    },
    /// Written by a release newer than this program knows. Nothing was read.
    #[error(
        "the RDB has version {found}, and this program reads versions 1 to {newest}: save it with an older release, or upgrade this program"
    )]
    TooNew {
        /// The version in the file.
        found: u32,
        /// The newest version that is read with this magic.
        newest: u32,
    },
    /// The file ends too early: it was copied while it was written, or not completely.
    #[error("the RDB ends at byte {offset} in the middle of {what}: copy it again")]
    Truncated {
        /// Bytes that were there.
        offset: u64,
        /// What was being read.
        what: &'static str,
    },
    /// Bytes are not what the format allows: the file is damaged.
    #[error("the RDB is damaged at byte {offset}: {what}")]
    Damaged {
        /// Where the wrong bytes end.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// The checksum at the end does not fit what was read: some byte before it is wrong.
    #[error(
        "the RDB is damaged somewhere before byte {offset}: its checksum is {stored:016x}, its bytes give {computed:016x}"
    )]
    Checksum {
        /// Where the checksum begins.
        offset: u64,
        /// The checksum in the file.
        stored: u64,
        /// The checksum of the bytes.
        computed: u64,
    },
    /// A value of a type or an operation whose length is not known, so that nothing after it can be read.
    #[error("the RDB has {what} {number} at byte {offset}, which this program cannot read past")]
    Unknown {
        /// Where its bytes begin.
        offset: u64,
        /// Type or operation, with the key where there is one.
        what: String,
        /// Its number.
        number: u8,
    },
    /// The source could not be read.
    #[error("cannot read on at byte {offset}: {source}")]
    Io {
        /// Bytes that were read.
        offset: u64,
        /// What the operating system said.
        source: io::Error,
    },
}

/// Why an append-only file could not be read on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AofError {
    /// Bytes are no command: the file is damaged. `redis-check-aof --fix` cuts it there.
    #[error("the append-only file is damaged at byte {offset}: {what}")]
    Damaged {
        /// Where the command begins that cannot be read.
        offset: u64,
        /// What is wrong with it.
        what: String,
    },
    /// The source could not be read.
    #[error("cannot read on at byte {offset}: {source}")]
    Io {
        /// Bytes that were read.
        offset: u64,
        /// What the operating system said.
        source: io::Error,
    },
}

/// Why a manifest could not be understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// A line is not one of a manifest.
    #[error("line {line} of the manifest: {what}")]
    Line {
        /// Number of the line, from 1.
        line: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// It names no file.
    #[error("the manifest names no file")]
    Empty,
    /// It is longer than a manifest can be.
    #[error("the manifest is longer than {bytes_max} bytes")]
    TooLong {
        /// The longest one that is read.
        bytes_max: usize,
    },
}
