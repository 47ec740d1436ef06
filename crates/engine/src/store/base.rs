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
//! Not here: how the bytes are found again (`blocks`), the log's tail (`recovery`).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use super::options::Options;
use super::random_u128;
use crate::blocks::{BlockFile, Identity, Superblock, View};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::keyspace::entry::Entry;
use crate::keyspace::{DatabaseId, DatabaseIds, Keyspace};
use crate::log::{Head, Progress};
use crate::version::Version;

/// How often a load says how far it is.
const REPORT_EVERY: Duration = Duration::from_millis(20);
/// Entries after which a loading thread says how far it is.
const REPORT_ENTRIES: u64 = 4096;

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

    /// Brings the entries of the checkpoint into memory, on several threads if `parallel`.
    pub(super) fn load(&self, keyspace: &Arc<Keyspace>, parallel: bool, progress: &dyn Fn(Progress)) -> Result<()> {
        if !self.counts {
            return Ok(());
        }
        let path = self.file.path();
        keyspace.restore_databases(&self.databases).map_err(|problem| damage(path, problem.0))?;
        let view = self.file.view();
        let load = Load {
            keyspace,
            rooms: rooms(&view, keyspace.segment_count()),
            view,
            path: path.to_owned(),
            next: AtomicUsize::new(0),
            entries: AtomicU64::new(0),
        };
        if !parallel {
            return load.run();
        }
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| load.run())).collect();
            while !workers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
                progress(load.progress());
                std::thread::sleep(REPORT_EVERY);
            }
            workers.into_iter().try_for_each(|worker| match worker.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })
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

/// Entries of each database that a segment will hold, with some to spare.
fn rooms(view: &View, segments: usize) -> Vec<(DatabaseId, usize)> {
    let of_segment = |entries: u64| usize::try_from(entries).unwrap_or(usize::MAX) / segments;
    view.database_entries().into_iter().map(|(id, entries)| (id, of_segment(entries))).collect()
}

/// A load on its way, shared by the threads that do it.
struct Load<'a> {
    keyspace: &'a Keyspace,
    view: View,
    rooms: Vec<(DatabaseId, usize)>,
    path: PathBuf,
    /// The next segment that nobody has begun.
    next: AtomicUsize,
    entries: AtomicU64,
}

impl Load<'_> {
    /// Loads segments until none is left.
    fn run(&self) -> Result<()> {
        loop {
            let segment = self.next.fetch_add(1, Relaxed);
            if segment >= self.keyspace.segment_count() {
                return Ok(());
            }
            if let Err(error) = self.load_segment(segment) {
                // The others need not go on.
                self.next.store(self.keyspace.segment_count(), Relaxed);
                return Err(error);
            }
        }
    }

    fn load_segment(&self, segment: usize) -> Result<()> {
        let first = segment.checked_sub(1).and_then(|before| self.keyspace.hash_end(before)).unwrap_or(0);
        let last = self.keyspace.hash_end(segment).map_or(u64::MAX, |end| end - 1);
        let mut loader = self.keyspace.loader(segment, &self.rooms);
        let mut loaded = 0;
        self.view.load(first..=last, self.keyspace.hasher(), &mut |found| {
            let record = found.record;
            let entry = Entry::new(record.key, record.value, record.version, record.created, record.expire_at);
            loaded += 1;
            if loaded % REPORT_ENTRIES == 0 {
                self.entries.fetch_add(REPORT_ENTRIES, Relaxed);
            }
            loader.add(record.database, found.hash, entry).map_err(|problem| damage(&self.path, problem.0))
        })?;
        loader.finish().map_err(|problem| damage(&self.path, problem.0))
    }

    fn progress(&self) -> Progress {
        let superblock = self.view.superblock();
        let share = self.entries.load(Relaxed) as f64 / superblock.entries.max(1) as f64;
        let bytes_total = superblock.live_bytes;
        Progress { bytes_done: (bytes_total as f64 * share.min(1.0)) as u64, bytes_total }
    }
}

fn damage(path: &Path, what: &'static str) -> Error {
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
