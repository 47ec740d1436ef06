//! What a start begins with: the newest checkpoint in the block file, before the log's tail is replayed.
//!
//! ```text
//!   log       block file        the start begins with
//!   none      none              a new store
//!   none      empty             a new store, whose making was interrupted
//!   none      a checkpoint      damage: what was written after it is missing
//!   a log     none              nothing, if the log knows of no checkpoint; else damage
//!   a log     older checkpoint than the log knows of: damage, what it reaches may have been used again
//!   a log     a checkpoint      it, and the log from its position; nothing, if everything was emptied after it
//! ```
//!
//! What the caller of `blocks` gives it to keep (the database map):
//! `version limit u64, next id u32, count u32, then count times: number u32, id u32`, little-endian.
//!
//! Not here: how the bytes are found again (`blocks`), how entries come into memory (`load`), the log's tail (`recovery`).

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::load::Load;
use super::options::Options;
use super::random_u128;
use crate::blocks::{BlockFile, Identity, Superblock};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::keyspace::{DatabaseId, DatabaseIds, Keyspace};
use crate::log::Head;
use crate::version::Version;

/// The block file, and what the log says of it.
pub(super) struct Base {
    pub(super) file: BlockFile,
    pub(super) identity: Identity,
    /// Whether its checkpoint counts; else everything was emptied after it.
    counts: bool,
    /// Versions up to this one may have been handed out.
    pub(super) version_floor: Version,
    databases: DatabaseIds,
}

impl Base {
    /// Opens the block file at `path`, or makes it, and checks that it and the log in `log_directory` belong together.
    pub(super) fn open(options: &Options, path: &Path, log_directory: &Path) -> Result<Base> {
        let disk = &*options.disk;
        let head = Head::read(disk, log_directory)?;
        let file = match BlockFile::open(disk, path) {
            Err(error) if is_to_be_made(disk, path, &error)? => {
                belong_together(head, None, path, log_directory)?;
                let seed = options.seed.map_or_else(random_u128, Ok)?.to_le_bytes();
                let new_id = || options.seed.map_or_else(random_u128, |seed| Ok(!seed)).map(u128::to_le_bytes);
                let store_id = head.map_or_else(new_id, |head| Ok(head.store_id))?;
                let identity = Identity { store_id, hash_seed: seed };
                BlockFile::create(disk, path, &options.block_file_geometry, &identity)?
            }
            found => found?,
        };
        let superblock = *file.superblock();
        let identity = superblock.identity;
        let counts = belong_together(head, Some(&superblock), path, log_directory)?;
        let (databases, limit) = match file.databases() {
            [] => (None, Version::ZERO),
            bytes => decode(bytes)
                .map(|(ids, limit)| (Some(ids), limit))
                .ok_or_else(|| damage(path, "its map of databases is not one that this store writes"))?,
        };
        let version_floor = superblock.cut.max(limit);
        let counts = counts && databases.is_some();
        Ok(Base { file, identity, counts, version_floor, databases: databases.unwrap_or_default() })
    }

    /// Records up to this version are loaded; the log's replay passes over them.
    pub(super) fn cut(&self) -> Version {
        if self.counts { self.file.superblock().cut } else { Version::ZERO }
    }

    /// What brings the entries of the checkpoint into memory. The keyspace has none yet, but its databases are those of the
    /// checkpoint.
    pub(super) fn load(&self, keyspace: &Arc<Keyspace>, options: &Options) -> Result<Arc<Load>> {
        if self.counts {
            let restored = keyspace.restore_databases(&self.databases);
            restored.map_err(|problem| damage(self.file.path(), problem.0))?;
        }
        Ok(Arc::new(Load::new(keyspace, self.counts.then(|| self.file.view()), self.file.path(), options)))
    }
}

/// Whether a block file has to be made where opening one failed: nothing is there, or an empty device.
fn is_to_be_made(disk: &dyn Disk, path: &Path, error: &Error) -> Result<bool> {
    match error {
        Error::Io { source, .. } => Ok(source.kind() == io::ErrorKind::NotFound),
        Error::Corrupt { .. } => BlockFile::is_blank_device(disk, path),
        _ => Ok(false),
    }
}

/// Whether the checkpoint in the block file counts, by the rules at the head of this file.
///
/// # Errors
/// `Corrupt` when the two cannot be what one store left.
pub(super) fn belong_together(
    head: Option<Head>,
    superblock: Option<&Superblock>,
    path: &Path,
    log_directory: &Path,
) -> Result<bool> {
    match (head, superblock) {
        (None, None) => Ok(false),
        (None, Some(superblock)) if superblock.sequence > 0 => {
            Err(damage(log_directory, "it has no log, but the block file has a checkpoint"))
        }
        (None, Some(_)) => Ok(false),
        (Some(head), None) if head.checkpoint > Version::ZERO => {
            Err(damage(path, "it is missing, and the log begins after its checkpoint"))
        }
        (Some(_), None) => Ok(false),
        (Some(head), Some(superblock)) if head.store_id != superblock.identity.store_id => {
            Err(damage(path, "it belongs to another store than the log"))
        }
        (Some(head), Some(superblock)) if superblock.cut < head.checkpoint => {
            Err(damage(path, "its newest superblock is lost; the log begins after a later checkpoint"))
        }
        (Some(head), Some(superblock)) => Ok(superblock.log_position >= head.replay_from),
    }
}

pub(super) fn damage(path: &Path, what: &'static str) -> Error {
    Error::Corrupt { path: path.to_owned(), offset: 0, what }
}

/// The database map and the version limit, as a checkpoint keeps them; see the head of this file.
pub(super) fn encode(databases: &DatabaseIds, limit: Version) -> Vec<u8> {
    let mut bytes = limit.0.to_le_bytes().to_vec();
    let count = databases.exchanged.len() as u32;
    let pairs = databases.exchanged.iter().flat_map(|&(number, id)| [number, id.0]);
    [databases.next, count].into_iter().chain(pairs).for_each(|word| bytes.extend(word.to_le_bytes()));
    bytes
}

/// What [`encode`] made.
pub(super) fn decode(bytes: &[u8]) -> Option<(DatabaseIds, Version)> {
    let (limit, rest) = bytes.split_first_chunk()?;
    let (words, []) = rest.as_chunks::<4>() else {
        return None;
    };
    let mut words = words.iter().map(|word| u32::from_le_bytes(*word));
    let (next, count) = (words.next()?, words.next()?);
    let mut exchanged = Vec::new();
    while let Some(number) = words.next() {
        exchanged.push((number, DatabaseId(words.next()?)));
    }
    let whole = exchanged.len() == count as usize;
    whole.then(|| (DatabaseIds { exchanged, next }, Version(u64::from_le_bytes(*limit))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_map_comes_back_from_its_bytes() {
        let ids = DatabaseIds { exchanged: vec![(1, DatabaseId(2)), (2, DatabaseId(1030))], next: 1031 };
        let bytes = encode(&ids, Version(0x0102));
        let golden = [2, 1, 0, 0, 0, 0, 0, 0, 7, 4, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 6, 4, 0, 0];
        assert_eq!(bytes, golden);
        assert_eq!(decode(&bytes), Some((ids, Version(0x0102))));
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut]), None, "{cut} bytes");
        }
    }
}
