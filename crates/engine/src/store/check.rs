//! Looking over the files of a store that is not open, without changing a byte.

use std::io;
use std::path::Path;

use super::base;
use crate::blocks::{self, BlockFile, FoundSuperblocks, Inspection, Superblock};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::keyspace::hash::KeyHasher;
use crate::log::{self, Head};

/// What a check of a store found.
#[derive(Debug)]
#[non_exhaustive]
pub struct StoreCheck {
    /// The block file; `None` where there is none, or none that can be opened.
    pub blocks: Option<BlockFileCheck>,
    /// The log.
    pub log: log::CheckReport,
    /// Why the store would not open, or what is wrong beside that; the first of it.
    pub damage: Option<Error>,
}

/// What a check of a block file found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BlockFileCheck {
    /// The superblock that counts.
    pub superblock: Superblock,
    /// Both superblocks.
    pub found: FoundSuperblocks,
    /// Its blocks.
    pub report: blocks::CheckReport,
}

/// Verifies the block file at `block_file` and the log in `log_directory`, each by itself and that they belong together:
/// as a start would, and beyond that every block that is in use.
///
/// # Errors
/// `Io`, and `FormatTooNew` of the log. Damage is in the report.
pub fn check_store(disk: &dyn Disk, block_file: &Path, log_directory: &Path) -> Result<StoreCheck> {
    let log = log::check(log_directory, disk)?;
    let mut check = StoreCheck { blocks: None, log, damage: None };
    let file = match BlockFile::open_read_only(disk, block_file) {
        Ok(file) => Some(file),
        Err(error) if is_missing(&error) => None,
        Err(error) => {
            check.damage = Some(error);
            return Ok(check);
        }
    };
    let head = Head::read(disk, log_directory)?;
    let superblock = file.as_ref().map(BlockFile::superblock);
    check.damage = base::belong_together(head, superblock, block_file, log_directory).err();
    if let Some(file) = file {
        let report = file.view().check(&hasher(file.superblock()))?;
        if let (None, Some(problem)) = (&check.damage, report.problems.first()) {
            check.damage =
                Some(Error::Corrupt { path: block_file.to_owned(), offset: problem.offset, what: problem.what });
        }
        check.blocks = Some(BlockFileCheck { superblock: *file.superblock(), found: file.found(), report });
    }
    if check.damage.is_none() {
        check.damage = check.log.damage.take();
    }
    Ok(check)
}

/// Looks at what the blocks of a block file are used for.
///
/// # Errors
/// `Corrupt`, `FormatTooNew`, `Io`.
pub fn inspect_block_file(disk: &dyn Disk, block_file: &Path) -> Result<(Superblock, FoundSuperblocks, Inspection)> {
    let file = BlockFile::open_read_only(disk, block_file)?;
    let inspection = file.view().inspect(&hasher(file.superblock()))?;
    Ok((*file.superblock(), file.found(), inspection))
}

fn hasher(superblock: &Superblock) -> KeyHasher {
    KeyHasher::new(u128::from_le_bytes(superblock.identity.hash_seed))
}

fn is_missing(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
}
