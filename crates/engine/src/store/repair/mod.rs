//! Repairing a damaged store: what can still be read becomes a new store, and the old files are put aside.
//!
//! ```text
//!   block file --salvage--\
//!                          base --> keyspace --lossy replay of the log--> report --yes--> new store beside --> swap
//!   log, archive ---------/                                                 \--no--> nothing was changed
//! ```
//!
//! The base is the first of these that, with the log after it, gives a whole state: the newest checkpoint; the newest one
//! with its superblock put together again; the one before, where the log still reaches back so far; the log alone. If
//! there is none, what can be read of the newest checkpoint is taken, and what is missing in it is told: by key where the
//! key is known, else by hash.
//!
//! The new store has an identity of its own that names its parent, as a restored one has: the old log and the archive
//! cannot be mixed into it. The state must fit into memory. Not here: reading damaged files (`blocks::salvage`,
//! `log::salvage`), how the new files take the old ones' place (`swap`).

mod gather;
mod replay;
mod report;
mod swap;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bowline_snapshot::Moment;

use super::check::{StoreCheck, check_store};
use super::options::Options;
use super::restore::{NewStore, check_no_unfinished_restore, count};
use super::{base, lock_directory, random_u128};
use crate::blocks::salvage::{BlockRemains, Losses};
use crate::blocks::{FileSize, Geometry, Identity, LostEntry, Parent, Superblock};
use crate::disk::Disk;
use crate::error::{Damage, Error};
use crate::keyspace::hash::KeyHasher;
use crate::keyspace::{DatabaseId, DoesNotFit, Keyspace};
use crate::log::archive::{Archive, Limit, ReplayFrom, ReplayRequest, StoreId};
use crate::log::salvage::{LogRemains, Replayed};
use crate::patient_disk::PatientDisk;
use crate::version::Version;
use gather::{Gathered, numbered};
use replay::LossyReplay;
pub use report::{Basis, Gap, RepairError, RepairReport, Repaired};
use swap::Swap;
pub(crate) use swap::finish_repair;
pub use swap::is_repair_pending;

/// Damaged places that are told one by one.
const DAMAGE_MAX: usize = 1000;

type Refusal<T> = std::result::Result<T, RepairError>;

/// A repair that has been worked out and not begun. The directory stays locked as long as it lives.
pub struct RepairPlan {
    options: Options,
    report: RepairReport,
    keyspace: Arc<Keyspace>,
    hash_seed: [u8; 16],
    geometry: Geometry,
    floor: Version,
    old_log_files: Vec<PathBuf>,
    _lock: Box<dyn Send + Sync>,
}

/// The files of a damaged store.
struct Remains<'a> {
    options: &'a Options,
    blocks: Option<BlockRemains>,
    log: LogRemains,
}

/// A base that was chosen.
struct Chosen {
    superblock: Option<Superblock>,
    basis: Basis,
    /// Where replay begins, and above which version.
    from: u64,
    cut: Version,
}

/// A base in memory.
#[derive(Default)]
struct Loaded {
    /// What is lost in it.
    losses: Losses,
    /// Versions up to this one may have been handed out.
    limit: Version,
    /// Entries that may be older than they should: database and hash.
    doubtful: BTreeSet<(u32, u64)>,
}

/// Reads what is left of a store and works out a repair. `None` for a sound store. Changes nothing, except that a repair
/// which was decided before and broke off is finished.
///
/// # Errors
/// [`RepairError`].
pub fn plan_repair(options: &Options) -> Refusal<Option<RepairPlan>> {
    let patient = PatientDisk::over(Arc::clone(&options.disk));
    let options = &Options { disk: Arc::new(patient.clone()), ..options.clone() };
    let disk = &*options.disk;
    let lock = lock_directory(disk, &options.directory)?;
    check_no_unfinished_restore(disk, &options.directory)?;
    finish_repair(disk, &options.directory)?;
    let (block_file, log_directory) = (options.block_path(), options.log_path());
    let mut damage = match check_store(disk, &block_file, &log_directory) {
        Ok(check) if check.damage.is_none() && has_files(&check) && patient.unreadable().is_empty() => return Ok(None),
        Ok(check) => damage_of(&check, &block_file),
        Err(Error::Corrupt { path, offset, what }) => vec![Damage { path, offset, what }],
        Err(error) if is_missing(&error) => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    damage.extend(patient.unreadable());
    refuse_device(disk, &block_file)?;
    let remains = Remains::find(options)?;
    let chosen = remains.choose()?;
    remains.plan(&chosen, damage, lock).map(Some)
}

fn has_files(check: &StoreCheck) -> bool {
    check.blocks.is_some() || !check.log.files.is_empty()
}

fn is_missing(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

fn damage_of(check: &StoreCheck, block_file: &Path) -> Vec<Damage> {
    let mut damage = Vec::new();
    for error in [&check.damage, &check.log.damage].into_iter().flatten() {
        if let Error::Corrupt { path, offset, what } = error {
            damage.push(Damage { path: path.clone(), offset: *offset, what });
        }
    }
    for problem in check.blocks.iter().flat_map(|blocks| &blocks.report.problems) {
        // Books that do not fit follow from the damage.
        if !["leaked", "counts"].iter().any(|word| problem.what.contains(word)) {
            damage.push(Damage { path: block_file.to_owned(), offset: problem.offset, what: problem.what });
        }
    }
    damage
}

fn refuse_device(disk: &dyn Disk, path: &Path) -> Refusal<()> {
    match crate::blocks::is_device_at(disk, path)? {
        true => Err(RepairError::Device { path: path.to_owned() }),
        false => Ok(()),
    }
}

fn hasher(superblock: &Superblock) -> KeyHasher {
    KeyHasher::new(u128::from_le_bytes(superblock.identity.hash_seed))
}

impl<'a> Remains<'a> {
    fn find(options: &'a Options) -> Refusal<Remains<'a>> {
        let (block_file, log_directory) = (options.block_path(), options.log_path());
        let blocks = BlockRemains::open(&*options.disk, &block_file)?;
        let of_blocks = blocks.as_ref().and_then(|blocks| blocks.superblocks.first());
        let of_blocks = of_blocks.map(|superblock| StoreId(superblock.identity.store_id));
        let archive = options.archive.as_ref().map(|archive| archive.directory.as_path());
        let of_log = LogRemains::find(&options.disk, &log_directory, None, None)?.store_id;
        if let (Some(of_blocks), Some(of_log)) = (of_blocks, of_log)
            && of_blocks != of_log
        {
            return Err(RepairError::TwoStores { block_file, of_blocks, log_directory, of_log });
        }
        let log = LogRemains::find(&options.disk, &log_directory, archive, of_blocks.or(of_log))?;
        if blocks.is_none() && log.is_empty() {
            return Err(RepairError::NothingLeft { directory: options.directory.clone() });
        }
        Ok(Remains { options, blocks, log })
    }

    fn superblocks(&self) -> &[Superblock] {
        self.blocks.as_ref().map_or(&[], |blocks| &blocks.superblocks)
    }

    /// The newest cut that is known of.
    fn newest_cut(&self) -> Version {
        let cuts = self.superblocks().iter().map(|superblock| superblock.cut);
        cuts.fold(self.log.checkpoint, Version::max)
    }

    /// Chooses a base: see the head of this file.
    fn choose(&self) -> Refusal<Chosen> {
        let with = |superblock: Superblock, basis: Basis| Chosen {
            superblock: Some(superblock),
            basis,
            from: superblock.log_position,
            cut: superblock.cut,
        };
        let mut candidates = Vec::new();
        let mut superblocks = self.superblocks().iter();
        let newest = superblocks.next().copied();
        if let (Some(newest), Some(blocks)) = (newest, &self.blocks) {
            if newest.cut >= self.log.checkpoint {
                candidates.extend(self.emptied_since(Some(&newest)));
                candidates.push(with(newest, Basis::Checkpoint(newest.cut)));
            } else {
                let rebuilt = blocks.rebuild(&newest, self.log.checkpoint, self.log.replay_from)?;
                candidates.extend(rebuilt.map(|rebuilt| with(rebuilt, Basis::Rebuilt(rebuilt.cut))));
                candidates.push(with(newest, Basis::Older(newest.cut)));
            }
        }
        if newest.is_none() {
            candidates.extend(self.emptied_since(None));
        }
        candidates.extend(superblocks.map(|older| with(*older, Basis::Older(older.cut))));
        if !self.log.is_empty() {
            candidates.push(Chosen { superblock: None, basis: Basis::Log, from: 0, cut: Version::ZERO });
        }
        for candidate in &candidates {
            if self.is_whole(candidate)? {
                return Ok(Chosen { ..*candidate });
            }
        }
        let salvaged = candidates.into_iter().find(|candidate| candidate.superblock.is_some());
        Ok(match (salvaged, &self.blocks) {
            (Some(chosen), _) => Chosen { basis: Basis::Salvaged(chosen.cut), ..chosen },
            (None, blocks) => Chosen {
                superblock: None,
                basis: if blocks.is_some() { Basis::Scanned } else { Basis::Nothing },
                from: self.log.replay_from,
                cut: if blocks.is_some() { self.log.checkpoint } else { Version::ZERO },
            },
        })
    }

    /// The log from where everything was emptied (FLUSHALL), if that was after the newest checkpoint.
    fn emptied_since(&self, newest: Option<&Superblock>) -> Option<Chosen> {
        let from = self.log.replay_from;
        let was_emptied = match newest {
            Some(newest) => newest.log_position < from,
            None => self.log.checkpoint == Version::ZERO && from > 0,
        };
        was_emptied.then_some(Chosen { superblock: None, basis: Basis::Log, from, cut: Version::ZERO })
    }

    /// Whether nothing is missing in a base, and in the log from it to the newest cut.
    fn is_whole(&self, candidate: &Chosen) -> Refusal<bool> {
        if let (Some(superblock), Some(blocks)) = (&candidate.superblock, &self.blocks) {
            let checked = blocks.view(superblock).and_then(|view| view.check(&hasher(superblock)));
            match checked {
                Ok(report) if report.problem_count == 0 => {}
                Ok(_) | Err(Error::Corrupt { .. }) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        let read = self.log.replay(candidate.from, &mut |_| Ok(()))?;
        Ok(read.is_contiguous && read.last_version.max(candidate.cut) >= self.newest_cut())
    }

    /// Brings what is left into memory.
    fn plan(&self, chosen: &Chosen, damage: Vec<Damage>, lock: Box<dyn Send + Sync>) -> Refusal<RepairPlan> {
        let options = self.options;
        let newest = self.superblocks().first();
        let seed = match chosen.superblock.as_ref().or(newest) {
            Some(superblock) => u128::from_le_bytes(superblock.identity.hash_seed),
            None => options.seed.map_or_else(random_u128, Ok)?,
        };
        let mut report = RepairReport {
            store_id: self.log.store_id,
            damage,
            basis: chosen.basis,
            version: Version::ZERO,
            entries: 0,
            records: 0,
            lost: Vec::new(),
            lost_ranges: Vec::new(),
            unnamed: 0,
            unchecked: 0,
            gap: None,
            log_cut: None,
            marks_passed: 0,
            archived: Vec::new(),
            databases_lost: false,
            archive_damage: self.archive_damage(),
        };
        report.damage.extend(self.log.damage.iter().cloned());
        let keyspace = Arc::new(Keyspace::new(options.segments, seed, 0));
        let loaded = self.load(chosen, &keyspace, &mut report)?;
        let seen = self.log.replay(chosen.from, &mut |_| Ok(()))?;
        let mut replay = LossyReplay::default();
        (replay.has_gap, replay.doubtful) = (seen.begins_late, loaded.doubtful);
        let losses = loaded.losses;
        replay.lost.extend(losses.entries.iter().map(|lost| (lost.database.0, lost.hash)));
        let read = self.log.replay(chosen.from, &mut |frame| replay.replay(&keyspace, &frame, chosen.cut))?;
        self.tell(chosen, &keyspace, &losses, &replay, read, &mut report);
        let limits = [loaded.limit, self.newest_cut(), report.version, Version::at_ms(options.clock.wall_ms())];
        let floor = limits.into_iter().fold(seen.version_limit, Version::max);
        Ok(RepairPlan {
            options: options.clone(),
            keyspace,
            hash_seed: seed.to_le_bytes(),
            geometry: self.geometry(),
            floor,
            old_log_files: self.log.own_files().map(Path::to_owned).collect(),
            report,
            _lock: lock,
        })
    }

    /// The shape of the old block file.
    fn geometry(&self) -> Geometry {
        match self.superblocks().first() {
            Some(superblock) => Geometry {
                block_bytes: superblock.block_bytes,
                size: match superblock.auto {
                    true => FileSize::Auto,
                    false => FileSize::Fixed(u64::from(superblock.file_blocks) * u64::from(superblock.block_bytes)),
                },
            },
            None => {
                let asked = self.options.block_file_geometry;
                let block_bytes = self.blocks.as_ref().map_or(asked.block_bytes, BlockRemains::block_bytes);
                Geometry { block_bytes, ..asked }
            }
        }
    }

    /// Loads the base.
    fn load(&self, chosen: &Chosen, keyspace: &Keyspace, report: &mut RepairReport) -> Refusal<Loaded> {
        let wants_blocks = !matches!(chosen.basis, Basis::Log | Basis::Nothing);
        let Some(blocks) = self.blocks.as_ref().filter(|_| wants_blocks) else {
            return Ok(Loaded::default());
        };
        let mut roots = blocks.roots(chosen.superblock.as_ref())?;
        report.damage.append(&mut roots.damage);
        report.lost_ranges.append(&mut roots.lost_ranges.clone());
        let map = roots.databases.as_deref();
        let decoded = map.map(|bytes| if bytes.is_empty() { Some(Default::default()) } else { base::decode(bytes) });
        let mut gathered = Gathered::new(keyspace);
        let hasher = chosen.superblock.as_ref().map(hasher);
        let losses = blocks.read(&roots, hasher.as_ref(), &mut |record| gathered.add(&record))?;
        report.damage.extend(losses.damage.iter().take(DAMAGE_MAX).cloned());
        let limit = match decoded.flatten() {
            Some((ids, limit)) => {
                let ids = if map.is_some_and(<[u8]>::is_empty) { keyspace.databases.to_ids() } else { ids };
                report.databases_lost = keyspace.restore_databases(&ids).is_err();
                limit
            }
            None => {
                report.databases_lost = true;
                Version::ZERO
            }
        };
        if report.databases_lost {
            let ids = gathered.databases();
            let restored = keyspace.restore_databases(&numbered(&ids));
            debug_assert!(restored.is_ok());
        }
        let path = self.options.block_path();
        let unfit = |problem: DoesNotFit| Error::Corrupt { path: path.clone(), offset: 0, what: problem.0 };
        // Where all data can be read, the newest record of a key that the log goes on changing is the live one.
        let doubtful = if losses.damage.is_empty() { BTreeSet::new() } else { gathered.unnamed_hashes() };
        (report.unnamed, report.unchecked) = gathered.finish().map_err(unfit)?;
        Ok(Loaded { losses, limit, doubtful })
    }

    /// Writes down what was found.
    fn tell(
        &self,
        chosen: &Chosen,
        keyspace: &Keyspace,
        losses: &Losses,
        replay: &LossyReplay,
        read: Replayed,
        report: &mut RepairReport,
    ) {
        let is_lost = |lost: &&LostEntry| replay.lost.contains(&(lost.database.0, lost.hash));
        let mut lost: BTreeMap<(u32, u64), LostEntry> = BTreeMap::new();
        for entry in losses.entries.iter().filter(is_lost) {
            lost.insert((entry.database.0, entry.hash), entry.clone());
        }
        for (database, key) in &replay.left_out {
            let (database, hash) = (DatabaseId(*database), keyspace.hash(key));
            lost.insert((database.0, hash), LostEntry { database, hash, key: Some(key.clone()) });
        }
        report.lost = lost.into_values().collect();
        report.records = replay.records;
        report.version = read.last_version.max(chosen.cut);
        report.entries = count(keyspace);
        let known = self.newest_cut();
        report.gap = if self.log.is_empty() {
            Some(Gap::After(chosen.cut))
        } else if matches!(chosen.basis, Basis::Nothing) {
            Some(Gap::Before(self.log.checkpoint))
        } else if read.begins_late || chosen.cut < self.log.checkpoint && read.last_version < known {
            Some(Gap::Between(chosen.cut, self.log.checkpoint.max(chosen.cut)))
        } else if chosen.basis == Basis::Log && chosen.from > 0 && read.position <= chosen.from && read.cut.is_some() {
            // Everything was emptied at `from`, but the frame that says so is lost: the version is of what was before it.
            let next = read.cut.as_ref().and_then(|cut| cut.versions).map_or(report.version, |(first, _)| first);
            Some(Gap::Between(report.version, next.max(report.version)))
        } else {
            None
        };
        report.log_cut = read.cut;
        (report.marks_passed, report.archived) = (read.marks_passed, read.archived);
        report.damage.sort_by(|a, b| (&a.path, a.offset).cmp(&(&b.path, b.offset)));
        report.damage.dedup_by(|a, b| (&a.path, a.offset) == (&b.path, b.offset));
        report.damage.truncate(DAMAGE_MAX);
    }

    /// What is wrong with the store's files in the archive.
    fn archive_damage(&self) -> Option<String> {
        let options = self.options.archive.as_ref()?;
        let archive = match Archive::open(Arc::clone(&self.options.disk), &options.directory) {
            Err(error) if is_missing(&error) => return None,
            Err(error) => return Some(error.to_string()),
            Ok(archive) => archive,
        };
        let store_id = self.log.store_id.filter(|store_id| archive.has_files_of(*store_id))?;
        let oldest = archive.line(store_id).and_then(|line| line.files.first());
        let from = ReplayFrom { position: oldest.map(|file| file.header.start_position), after: Version::ZERO };
        let request = ReplayRequest { store_id, from, upto: Limit::End };
        archive.replay(&request, &mut |_| Ok(()), &|_| {}).err().map(|error| error.to_string())
    }
}

impl RepairPlan {
    /// What was found and what would be lost.
    pub fn report(&self) -> &RepairReport {
        &self.report
    }

    /// Writes the new store beside the old one, reads it back, and puts it in its place. The old files get names that end
    /// in `.damaged-` and the time.
    ///
    /// # Errors
    /// Whatever the disk says: then the old store is as it was, or, after the swap was decided, the next start finishes it.
    pub fn carry_out(self) -> Refusal<Repaired> {
        let disk = &*self.options.disk;
        let (block_file, log_directory) = (self.options.block_path(), self.options.log_path());
        let beside = Options {
            block_file: Some(with_suffix(&block_file, ".repaired")),
            log_directory: Some(log_directory.join("repaired")),
            block_file_geometry: self.geometry,
            ..self.options.clone()
        };
        let (new_blocks, new_log) = (beside.block_path(), beside.log_path());
        remove_leftovers(disk, &new_blocks, &new_log)?;
        let store_id = StoreId(random_u128()?.to_le_bytes());
        let new = NewStore {
            options: &beside,
            identity: Identity { store_id: store_id.0, hash_seed: self.hash_seed },
            parent: Parent {
                store_id: self.report.store_id.map_or([0; 16], |parent| parent.0),
                fork_version: self.report.version,
            },
            version: self.report.version,
            floor: self.floor,
        };
        new.write_blocks(&self.keyspace, &|_| {})?;
        new.write_log()?;
        let check = check_store(disk, &new_blocks, &new_log)?;
        if let Some(damage) = check.damage {
            return Err(damage.into());
        }
        let swap = self.swap(&new_blocks, &new_log)?;
        swap.carry_out(disk, &self.options.directory)?;
        Ok(Repaired {
            store_id,
            entries: self.report.entries,
            version: self.report.version,
            put_aside: swap.aside.into_iter().map(|(_, to)| to).collect(),
        })
    }

    fn swap(&self, new_blocks: &Path, new_log: &Path) -> Refusal<Swap> {
        let disk = &*self.options.disk;
        let (block_file, log_directory) = (self.options.block_path(), self.options.log_path());
        let moment = Moment(self.options.clock.wall_ms()).to_string().replace(':', "");
        let suffix = format!(".damaged-{moment}");
        let mut swap = Swap::default();
        for path in self.old_log_files.iter().chain([&block_file]) {
            swap.aside.push((path.clone(), with_suffix(path, &suffix)));
        }
        let number = |path: &Path| crate::log::number_of(path);
        let mut next = self.old_log_files.iter().filter_map(|path| number(path)).max().unwrap_or(0);
        let listed = disk.list(new_log).map_err(|source| Error::io("list", new_log, source))?;
        let mut new_files: Vec<PathBuf> = listed.into_iter().filter(|path| number(path).is_some()).collect();
        new_files.sort();
        for from in new_files {
            next += 1;
            swap.into_place.push((from, log_directory.join(format!("{next:08}.log"))));
        }
        swap.into_place.push((new_blocks.to_owned(), block_file));
        Ok(swap)
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Removes what a repair left that was broken off before it was decided.
fn remove_leftovers(disk: &dyn Disk, new_blocks: &Path, new_log: &Path) -> Refusal<()> {
    let mut leftovers = vec![new_blocks.to_owned()];
    match disk.list(new_log) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        listed => leftovers.extend(listed.map_err(|source| Error::io("list", new_log, source))?),
    }
    for path in leftovers {
        match disk.remove(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed.map_err(|source| Error::io("remove", &path, source))?,
        }
    }
    Ok(())
}
