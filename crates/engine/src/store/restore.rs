//! Restoring: a snapshot, then the archived log up to a version or a moment, become a new store.
//!
//! ```text
//!   snapshot --load--> keyspace <--replay-- archive: the line of the snapshot's store
//!                         |                           \-- and of the stores restored from it, one after the other
//!                         v
//!   "restore.unfinished" -> block file, one checkpoint -> log that names it -> the mark is removed
//! ```
//!
//! - Nothing is made in the directory before the state is complete in memory. Then it holds a mark until everything is
//!   durable: with it no store opens there, so nothing half restored is ever served.
//! - The new store has an identity of its own, and names its parent and the last version that it took from it. Its own
//!   versions are above every version that is known to have been handed out, and above the time of the restore.
//! - *Which past*: where a store was restored to a moment before and went on, the archive holds two pasts. The one
//!   counts that was alive at the moment asked for: the parent until the restored store was born, that store from then
//!   on. A parent that lived on beside it stays the one that counts: then the restored store was a copy to look at. Cuts
//!   fall between commands.
//!
//! The state must fit into memory. Not here: the bytes of a snapshot (crate `bowline-snapshot`), of the archive (`log`).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bowline_snapshot::{Header, Moment, SnapshotError};

use super::background::close_by_hand;
use super::options::Options;
use super::staging::record_of;
use super::{VERSION_MAX, base, lock_directory, log_options, random_u128};
use crate::blocks::{BlockFile, CheckpointOptions, Commit, Identity, Parent};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::keyspace::entry::Entry;
use crate::keyspace::load::Loader;
use crate::keyspace::table::TableCursor;
use crate::keyspace::{Keyspace, SegmentSet};
use crate::log::archive::{Archive, ArchiveError, Limit, ReplayEnd, ReplayFrom, ReplayRequest, StoreId};
use crate::log::{self, Log, Progress};
use crate::recovery::Recovery;
use crate::snapshot::{Lineage, SnapshotFile, read_lineages};
use crate::version::Version;

/// Name of the mark in a directory whose restore has not finished.
const UNFINISHED_NAME: &str = "restore.unfinished";

/// Up to where a restore goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Everything there is.
    Newest,
    /// The last command of this version or below.
    Version(Version),
    /// The last command of this millisecond or before, Unix time.
    TimeMs(u64),
}

impl Target {
    fn limit(self) -> Limit {
        match self {
            Target::Newest => Limit::End,
            Target::Version(version) => Limit::Version(version),
            Target::TimeMs(ms) => Limit::TimeMs(ms),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::Newest => f.write_str("the newest state"),
            Target::Version(version) => write!(f, "version {version}"),
            Target::TimeMs(ms) => write!(f, "the state of {}", Moment(*ms)),
        }
    }
}

/// What to restore.
#[derive(Clone, Debug)]
pub struct RestoreRequest {
    /// The snapshot file to begin with.
    pub snapshot: PathBuf,
    /// The archive of log files to go on with.
    pub archive: Option<PathBuf>,
    /// Where to stop.
    pub target: Target,
}

/// How far a restore has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreProgress {
    /// Entries of the snapshot are read.
    Loading {
        /// So many.
        entries: u64,
        /// Of so many.
        of: u64,
    },
    /// The archive is read.
    Replaying(Progress),
    /// The new store is written.
    Writing {
        /// Segments written.
        segments: usize,
        /// Of so many.
        of: usize,
    },
}

/// What was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Restored {
    /// The new store.
    pub store_id: StoreId,
    /// The stores whose past it has, the snapshot's first.
    pub past: Vec<StoreId>,
    /// The cut of the snapshot.
    pub cut: Version,
    /// The last change in the new store.
    pub version: Version,
    /// Commands replayed from the archive.
    pub records: u64,
    /// Entries of the new store; some of them may be due to expire.
    pub entries: u64,
}

/// Why a restore was refused. The directory holds no store then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The new store cannot be written, or the archive's files cannot be read.
    #[error(transparent)]
    Store(#[from] Error),
    /// The archive cannot give what was asked for.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The snapshot cannot be used.
    #[error("cannot restore from {}: {source}", path.display())]
    Snapshot {
        /// The snapshot.
        path: PathBuf,
        /// What is wrong with it.
        source: SnapshotError,
    },
    /// Something is there already.
    #[error("cannot restore into {}: {} is there; give an empty directory", directory.display(), found.display())]
    NotEmpty {
        /// Where the store was to be made.
        directory: PathBuf,
        /// What was found.
        found: PathBuf,
    },
    /// The target lies before the snapshot.
    #[error("{} was taken at version {cut}, {}, and cannot go back to {target}: use an older backup",
        path.display(), Moment(cut.time_ms()))]
    BeforeCut {
        /// The snapshot.
        path: PathBuf,
        /// What it holds.
        cut: Version,
        /// What was asked for.
        target: Target,
    },
    /// The target lies after what there is.
    #[error("{} reaches to version {reached}, and nothing is known after {}: {target} is not in it; give an earlier target, or none for everything there is",
        path.display(), Moment(*until_ms))]
    Beyond {
        /// The archive, or the snapshot when there is none.
        path: PathBuf,
        /// The newest version in it.
        reached: Version,
        /// Until when it is known that nothing else was written, Unix milliseconds.
        until_ms: u64,
        /// What was asked for.
        target: Target,
    },
    /// A store restored from this one exists, and its past up to there is not in the archive.
    #[error("the archive {} ends at version {reached} of store {store_id}, but a store that was restored from it goes on from version {fork}: bring back the log files in between", path.display())]
    MissingBeforeFork {
        /// The archive.
        path: PathBuf,
        /// The parent.
        store_id: StoreId,
        /// How far its log goes.
        reached: Version,
        /// How far its child has it.
        fork: Version,
    },
}

type Refusal<T> = std::result::Result<T, RestoreError>;

/// Makes a new store in the directory of `options`, which must be empty: the snapshot, and the archive up to the target.
/// Tells `progress` how far it is, often. The new store is not opened.
///
/// # Errors
/// [`RestoreError`]. What was made in the directory then does not open as a store; remove it and try again.
pub fn restore(options: &Options, request: &RestoreRequest, progress: &dyn Fn(RestoreProgress)) -> Refusal<Restored> {
    let disk = &*options.disk;
    check_empty(options)?;
    disk.create_directory(&options.directory).map_err(|source| Error::io("create", &options.directory, source))?;
    let _lock = lock_directory(disk, &options.directory)?;
    let source = Source::open(options, request)?;
    let (header, cut) = (source.header.clone(), source.cut());
    let keyspace = source.load(options, progress)?;
    let (end, past) = source.replay(options, &keyspace, progress)?;
    let entries = count(&keyspace);
    let store_id = StoreId(random_u128()?.to_le_bytes());
    let new = NewStore {
        options,
        identity: Identity { store_id: store_id.0, hash_seed: header.hash_seed },
        parent: Parent { store_id: past.last().map_or(header.store_id, |store| store.0), fork_version: end.version },
        version: end.version,
        floor: source.floor(options, end.version)?,
    };
    new.write(&keyspace, progress)?;
    Ok(Restored { store_id, past, cut, version: end.version, records: end.records, entries })
}

/// Whether `directory` may hold a store: not when a restore into it broke off.
///
/// # Errors
/// `RestoreUnfinished`, `Io`.
pub fn check_no_unfinished_restore(disk: &dyn Disk, directory: &Path) -> Result<()> {
    let mark = directory.join(UNFINISHED_NAME);
    match disk.open_read_only(&mark) {
        Ok(_) => Err(Error::RestoreUnfinished { path: directory.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(Error::io("open", &mark, source)),
    }
}

/// Refuses a place where something is already.
fn check_empty(options: &Options) -> Refusal<()> {
    let refuse =
        |directory: &Path, found: PathBuf| Err(RestoreError::NotEmpty { directory: directory.to_owned(), found });
    for directory in [&options.directory, &options.log_path()] {
        let names = match options.disk.list(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            listed => listed.map_err(|source| Error::io("list", directory, source))?,
        };
        // The lock file holds nothing; the other is in the root of every ext4 file system.
        let is_nothing = |path: &PathBuf| path.file_name().is_some_and(|name| name == "lock" || name == "lost+found");
        if let Some(found) = names.into_iter().find(|path| !is_nothing(path)) {
            return refuse(directory, found);
        }
    }
    let block_file = options.block_path();
    if BlockFile::is_at(&*options.disk, &block_file)? {
        return refuse(block_file.parent().unwrap_or(Path::new("/")), block_file.clone());
    }
    Ok(())
}

/// One store's part of the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Leg {
    store_id: StoreId,
    from: ReplayFrom,
    upto: Limit,
}

/// The snapshot and the archive.
struct Source<'a> {
    request: &'a RestoreRequest,
    header: Header,
    archive: Option<Archive>,
    lineages: Vec<Lineage>,
}

impl<'a> Source<'a> {
    fn open(options: &Options, request: &'a RestoreRequest) -> Refusal<Source<'a>> {
        let file = SnapshotFile::open(&*options.disk, &request.snapshot);
        let header = file.map_err(|source| of_snapshot(request, source))?.header().clone();
        let cut = Version(header.cut_version);
        if request.target.limit().version().is_some_and(|limit| limit < cut) {
            let path = request.snapshot.clone();
            return Err(RestoreError::BeforeCut { path, cut, target: request.target });
        }
        let (archive, lineages) = match &request.archive {
            Some(directory) => {
                (Some(Archive::open(Arc::clone(&options.disk), directory)?), read_lineages(&*options.disk, directory)?)
            }
            None => (None, Vec::new()),
        };
        Ok(Source { request, header, archive, lineages })
    }

    fn cut(&self) -> Version {
        Version(self.header.cut_version)
    }

    /// Brings the snapshot into memory.
    fn load(&self, options: &Options, progress: &dyn Fn(RestoreProgress)) -> Refusal<Arc<Keyspace>> {
        let header = &self.header;
        let seed = u128::from_le_bytes(header.hash_seed);
        let keyspace = Arc::new(Keyspace::new(options.segments, seed, options.entries_per_segment));
        let damaged = |what| of_snapshot(self.request, SnapshotError::Damaged { offset: 0, what });
        if !header.databases.is_empty() {
            let ids = base::decode(&header.databases);
            let ids = ids.ok_or_else(|| damaged("its map of databases is not one that a store writes"))?.0;
            keyspace.restore_databases(&ids).map_err(|problem| damaged(problem.0))?;
        }
        let mut loaders: Vec<Option<Loader<'_>>> = (0..keyspace.segment_count()).map(|_| None).collect();
        let file = SnapshotFile::open(&*options.disk, &self.request.snapshot);
        let of = header.entries;
        let loaded = file.and_then(|file| {
            file.load(&mut |record, entries| {
                if entries.is_multiple_of(4096) {
                    progress(RestoreProgress::Loading { entries, of });
                }
                if record.version > self.cut() {
                    return Err("a record is newer than the cut");
                }
                let hash = keyspace.hash(record.key);
                let segment = keyspace.segment_of(hash);
                let Some(loader) = loaders.get_mut(segment) else {
                    unreachable!("a hash belongs to a segment");
                };
                let loader = loader.get_or_insert_with(|| keyspace.loader(segment, &[]));
                let entry = Entry::new(record.key, record.value, record.version, record.created, record.expire_at);
                loader.add(record.database, hash, entry).map_err(|problem| problem.0)
            })
        });
        loaded.map_err(|source| of_snapshot(self.request, source))?;
        for loader in loaders.into_iter().flatten() {
            loader.finish().map_err(|problem| damaged(problem.0))?;
        }
        progress(RestoreProgress::Loading { entries: of, of });
        Ok(keyspace)
    }

    /// The parts of the past that lead to the target.
    fn legs(&self) -> Vec<Leg> {
        let (target, mut legs) = (self.request.target.limit(), Vec::new());
        let mut store_id = StoreId(self.header.store_id);
        let mut from = ReplayFrom { position: Some(self.header.log_position), after: self.cut() };
        let mut born = Version::ZERO;
        let has_files = |store_id| self.archive.as_ref().is_some_and(|archive| archive.has_files_of(store_id));
        // What is damaged there is met again when it is replayed.
        let newest = |store_id| {
            let end = self.archive.as_ref().and_then(|archive| archive.end_of_line(store_id).ok());
            end.unwrap_or_default().newest_version
        };
        loop {
            let ended_at = newest(store_id);
            let children = self.lineages.iter().filter(|child| {
                child.parent == store_id
                    && child.fork >= from.after
                    && child.birth > born
                    && child.birth >= ended_at
                    && target.version().is_none_or(|limit| child.birth <= limit)
                    && has_files(child.store_id)
            });
            let Some(child) = children.max_by_key(|child| child.birth) else {
                legs.push(Leg { store_id, from, upto: target });
                return legs;
            };
            legs.push(Leg { store_id, from, upto: Limit::Version(child.fork) });
            // A restored store's log begins at its own position 0.
            from = ReplayFrom { position: Some(0), after: child.fork };
            (store_id, born) = (child.store_id, child.birth);
        }
    }

    /// Brings the keyspace from the cut to the target; returns where it ended and whose past it is.
    fn replay(
        &self,
        options: &Options,
        keyspace: &Arc<Keyspace>,
        progress: &dyn Fn(RestoreProgress),
    ) -> Refusal<(ReplayEnd, Vec<StoreId>)> {
        let mut recovery = Recovery::new(Arc::clone(keyspace), self.cut(), options.threads, None);
        let legs = self.legs();
        let mut end =
            ReplayEnd { version: self.cut(), written_until_ms: self.header.taken_at_ms, ..ReplayEnd::default() };
        let mut records = 0;
        for (place, leg) in legs.iter().enumerate() {
            let is_last = place + 1 == legs.len();
            tracing::info!(store = %leg.store_id, after = %leg.from.after, "replays the archived log");
            if let Some(reached) = self.replay_leg(leg, &mut recovery, is_last, progress)? {
                records += reached.records;
                let until_ms = end.written_until_ms.max(reached.written_until_ms);
                end = ReplayEnd { written_until_ms: until_ms, ..reached };
            }
            if is_last {
                self.check_reached(&end)?;
            } else if Limit::Version(end.version) != leg.upto {
                let path = self.request.archive.clone().unwrap_or_default();
                let fork = leg.upto.version().unwrap_or_default();
                let (store_id, reached) = (leg.store_id, end.version);
                return Err(RestoreError::MissingBeforeFork { path, store_id, reached, fork });
            }
        }
        recovery.finish()?;
        end.records = records;
        Ok((end, legs.iter().map(|leg| leg.store_id).collect()))
    }

    /// Replays one store's part; `None` when there is nothing to replay from.
    fn replay_leg(
        &self,
        leg: &Leg,
        recovery: &mut Recovery,
        is_last: bool,
        progress: &dyn Fn(RestoreProgress),
    ) -> Refusal<Option<ReplayEnd>> {
        let Some(archive) = &self.archive else {
            return Ok(None);
        };
        if leg.upto == Limit::Version(leg.from.after) {
            return Ok(None);
        }
        if !archive.has_files_of(leg.store_id) && is_last {
            // The snapshot alone may be enough; `check_reached` knows.
            tracing::warn!(store = %leg.store_id, "the archive has no log files of the snapshot's store");
            return Ok(None);
        }
        let request = ReplayRequest { store_id: leg.store_id, from: leg.from, upto: leg.upto };
        let mut deliver = |frame| recovery.replay(frame);
        Ok(Some(archive.replay(&request, &mut deliver, &|done| progress(RestoreProgress::Replaying(done)))?))
    }

    /// Whether the target was reached.
    fn check_reached(&self, end: &ReplayEnd) -> Refusal<()> {
        let reached = match self.request.target {
            Target::Newest => true,
            Target::Version(version) => end.limit_reached || end.version >= version,
            Target::TimeMs(ms) => end.limit_reached || ms <= end.written_until_ms,
        };
        if reached {
            return Ok(());
        }
        Err(RestoreError::Beyond {
            path: self.request.archive.as_ref().unwrap_or(&self.request.snapshot).clone(),
            reached: end.version,
            until_ms: end.written_until_ms,
            target: self.request.target,
        })
    }

    /// A version above all that the stores of this family are known to have handed out, and not before now.
    fn floor(&self, options: &Options, version: Version) -> Refusal<Version> {
        let now = Version::at_ms(options.clock.wall_ms());
        // How far the store may have gone after the cut, unless the archive knows how far it went.
        let mut limit = base::decode(&self.header.databases).map_or(Version::ZERO, |(_, limit)| limit);
        let mut floor = version.max(now).max(self.cut());
        let mut family = vec![StoreId(self.header.store_id)];
        let mut next = 0;
        while let Some(store_id) = family.get(next).copied() {
            next += 1;
            for child in self.lineages.iter().filter(|child| child.parent == store_id) {
                floor = floor.max(child.birth);
                if !family.contains(&child.store_id) {
                    family.push(child.store_id);
                }
            }
            match self.archive.as_ref().map(|archive| archive.end_of_line(store_id)) {
                Some(Ok(end)) => {
                    floor = floor.max(end.newest_version);
                    if end.was_closed && store_id.0 == self.header.store_id && end.position > self.header.log_position {
                        limit = Version::ZERO;
                    }
                }
                // What comes after the target may be the reason for the restore.
                Some(Err(error)) => tracing::warn!(%error, "versions after the damage are taken to be older than now"),
                None => {}
            }
        }
        let floor = floor.max(limit);
        if floor > VERSION_MAX {
            let what = "its versions are beyond any time; it cannot be continued";
            return Err(Error::Corrupt { path: self.request.snapshot.clone(), offset: 0, what }.into());
        }
        Ok(floor)
    }
}

fn of_snapshot(request: &RestoreRequest, source: SnapshotError) -> RestoreError {
    RestoreError::Snapshot { path: request.snapshot.clone(), source }
}

pub(super) fn count(keyspace: &Keyspace) -> u64 {
    let hold = keyspace.hold(keyspace.every_segment(), SegmentSet::EMPTY);
    let segments = (0..keyspace.segment_count()).map(|segment| hold.segment(segment));
    segments.flat_map(|segment| segment.tables()).map(|(_, table)| table.entries().len() as u64).sum()
}

/// A store to be written from a keyspace.
pub(super) struct NewStore<'a> {
    pub(super) options: &'a Options,
    pub(super) identity: Identity,
    pub(super) parent: Parent,
    /// The last change in it.
    pub(super) version: Version,
    /// Its own versions are above this one.
    pub(super) floor: Version,
}

impl NewStore<'_> {
    fn write(&self, keyspace: &Keyspace, progress: &dyn Fn(RestoreProgress)) -> Result<()> {
        let (disk, directory) = (&*self.options.disk, &self.options.directory);
        let unfinished = directory.join(UNFINISHED_NAME);
        let mark = disk.create(&unfinished).map_err(|source| Error::io("create", &unfinished, source))?;
        mark.sync_data().map_err(|source| Error::io("sync", &unfinished, source))?;
        disk.sync_directory(directory).map_err(|source| Error::io("sync", directory, source))?;
        drop(mark);
        self.write_blocks(keyspace, progress)?;
        self.write_log()?;
        disk.remove(&unfinished).map_err(|source| Error::io("remove", &unfinished, source))?;
        disk.sync_directory(directory).map_err(|source| Error::io("sync", directory, source))
    }

    pub(super) fn write_blocks(&self, keyspace: &Keyspace, progress: &dyn Fn(RestoreProgress)) -> Result<()> {
        let Options { disk, block_file_geometry, .. } = self.options;
        let path = self.options.block_path();
        let mut file = BlockFile::create_restored(&**disk, &path, block_file_geometry, &self.identity, &self.parent)?;
        let hasher = keyspace.hasher();
        let compression = self.options.compression;
        let mut checkpoint = file.begin(hasher, &CheckpointOptions { compression, ..CheckpointOptions::default() })?;
        let of = keyspace.segment_count();
        for segment in 0..of {
            let hold = keyspace.hold(SegmentSet::one(segment), SegmentSet::EMPTY);
            for (database, table) in hold.segment(segment).tables() {
                let mut put = Ok(());
                let mut cursor = Some(TableCursor::default());
                while let Some(from) = cursor.filter(|_| put.is_ok()) {
                    cursor = table.entries().scan(from, usize::MAX, &mut |entry| {
                        if put.is_ok() {
                            let record = record_of(database, entry);
                            let fingerprint = hasher.fingerprint(record.key);
                            put = checkpoint.put(&record, hasher.hash(record.key), false, fingerprint);
                        }
                    });
                }
                put?;
            }
            checkpoint.finish_range(keyspace.hash_end(segment).map_or(u64::MAX, |end| end - 1))?;
            progress(RestoreProgress::Writing { segments: segment + 1, of });
        }
        let databases = base::encode(&keyspace.databases.to_ids(), self.floor);
        checkpoint.publish(&Commit { cut: self.version, log_position: 0, databases: &databases })?;
        Ok(())
    }

    /// Begins the log. It names the checkpoint, so that nobody takes the empty one before it for the newest.
    pub(super) fn write_log(&self) -> Result<()> {
        let clock = &self.options.clock;
        let log_options =
            log::LogOptions { archive: None, ..log_options(self.options, self.identity.store_id, self.floor) };
        let (log, writer, files, _) = Log::open(log_options, &mut |_| Ok(()), &|_| {})?;
        let mut machines = (writer, files);
        log.note_checkpoint(log::Checkpoint { version: self.version, position: 0 });
        while log.noted_checkpoint() < self.version && !log.is_poisoned() {
            machines.0.step(clock.monotonic());
            machines.1.step();
        }
        close_by_hand(&log, &mut machines, clock.monotonic())
    }
}
