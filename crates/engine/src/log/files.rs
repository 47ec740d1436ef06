//! The files of the log while it runs: the active one, older ones that still matter, and spares made ahead.
//!
//! ```text
//!   prepare.tmp --zero-filled, synced, renamed, directory synced--> spare --header + first frame, one sync--> active
//!        ^                                                            ^                                         |
//!        +-- full disk: removed, tried again                          +------- retired <-- nothing in it <-- live
//!                                                                              or removed   matters any more
//!                                                                                           and it is archived
//! ```
//!
//! Only preparing can need new space on the disk, so a full disk is known while the active file still has room. A
//! recycled file keeps its name and its stale bytes; what a file holds is told by its header alone.
//!
//! Where there is an archive, a finished file waits to be copied there (`unarchived`), also while it is still live; one
//! that is given up before is set aside (`given_up`).
//!
//! Not here: what is written into them (`writer`), copying them into an archive (`archiver`), how they are found again (`survey`).

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::archiver::Archiver;
use super::format::{FileHeader, HEADER_BLOCK_BYTES};
use super::room::Room;
use super::{Shared, Step};
use crate::disk::{Disk, DiskFile};
use crate::error::{Error, Result};

/// What a file is called while it is being made; one that is found at open is removed.
pub(crate) const PREPARE_NAME: &str = "prepare.tmp";
/// Ending of the names of log files; a decimal number stands before it.
const LOG_SUFFIX: &str = ".log";
/// Zeros written at once.
const FILL_BYTES: u64 = 1024 * 1024;
/// A file being made is synced this often, so that its sync does not hold up the active file's for long.
const FILL_SYNC_BYTES: u64 = 4 * 1024 * 1024;
/// Recycled files kept as spares; further ones are removed and give their space back.
const RECYCLED_SPARES_MAX: usize = 4;
/// When to try again after the disk was full.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// A file of unusual size is rounded up to this.
const UNUSUAL_ROUND_BYTES: u64 = 1024 * 1024;

/// A prepared file: overwriting its bytes needs no new space.
pub(crate) struct Spare {
    pub(crate) file: Box<dyn DiskFile>,
    pub(crate) path: PathBuf,
    /// Bytes of frames that it holds.
    pub(crate) capacity: u64,
}

/// A file whose frames are all written.
#[derive(Clone, Debug)]
pub(crate) struct FullFile {
    pub(crate) path: PathBuf,
    /// What it says about itself; `None` for one whose frames nobody needs.
    pub(crate) header: Option<FileHeader>,
    /// Position after its last frame.
    pub(crate) end_position: u64,
    /// Header crc of its last frame.
    pub(crate) end_crc: u32,
    pub(crate) capacity: u64,
    /// It was no part of the log any more when that was opened: it may have been recycled and written to.
    pub(crate) is_leftover: bool,
}

impl FullFile {
    /// Position of its first frame.
    pub(crate) fn start_position(&self) -> u64 {
        self.header.map_or(self.end_position, |header| header.start_position)
    }
}

/// The files beside the active one.
#[derive(Default)]
pub(crate) struct FileSet {
    /// Bytes of frames that still fit the active file.
    pub(crate) active_remaining: u64,
    pub(crate) spares: Vec<Spare>,
    /// Oldest first.
    pub(crate) live: VecDeque<FullFile>,
    /// Nothing in these matters; to be recycled or removed.
    pub(crate) retired: Vec<FullFile>,
    /// Whether files are archived before they are retired.
    pub(crate) archives: bool,
    /// To be archived, oldest first.
    pub(crate) unarchived: VecDeque<FullFile>,
    /// To be retired once they are archived, oldest first.
    pub(crate) given_up: VecDeque<FullFile>,
}

pub(crate) struct Files {
    pub(crate) set: Mutex<FileSet>,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) directory: PathBuf,
    /// What a file of the usual size holds.
    pub(crate) usual_capacity: u64,
    /// A file of this capacity is asked for, because something fits no file there is.
    wanted_capacity: AtomicU64,
    pub(crate) disk_full: AtomicBool,
    next_number: AtomicU64,
}

impl Files {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        directory: PathBuf,
        file_bytes: u64,
        next_number: u64,
        archives: bool,
    ) -> Files {
        Files {
            set: Mutex::new(FileSet { archives, ..FileSet::default() }),
            disk,
            directory,
            usual_capacity: file_bytes - HEADER_BLOCK_BYTES,
            wanted_capacity: AtomicU64::new(0),
            disk_full: AtomicBool::new(false),
            next_number: AtomicU64::new(next_number),
        }
    }

    /// Asks for a spare of at least `capacity`.
    pub(crate) fn want(&self, capacity: u64) {
        self.wanted_capacity.fetch_max(capacity, Ordering::SeqCst);
    }

    fn next_path(&self) -> PathBuf {
        let number = self.next_number.fetch_add(1, Ordering::SeqCst);
        self.directory.join(format!("{number:08}{LOG_SUFFIX}"))
    }

    fn prepare_path(&self) -> PathBuf {
        self.directory.join(PREPARE_NAME)
    }

    /// The capacity of the file that should be made now.
    fn missing_capacity(&self) -> Option<u64> {
        let set = self.set.lock();
        let largest = set.largest_spare().unwrap_or(0);
        let wanted = self.wanted_capacity.load(Ordering::SeqCst);
        if wanted > largest && wanted > self.usual_capacity {
            let whole = wanted.saturating_add(HEADER_BLOCK_BYTES).div_ceil(UNUSUAL_ROUND_BYTES);
            return Some(whole.saturating_mul(UNUSUAL_ROUND_BYTES).saturating_sub(HEADER_BLOCK_BYTES));
        }
        (largest < self.usual_capacity).then_some(self.usual_capacity)
    }

    /// Recycles or removes one file that nothing needs; whether there was one.
    pub(crate) fn recycle_one(&self) -> bool {
        let (file, keep) = {
            let mut set = self.set.lock();
            let Some(file) = set.retired.pop() else {
                return false;
            };
            let keep = file.capacity == self.usual_capacity && set.spares.len() < RECYCLED_SPARES_MAX;
            (file, keep)
        };
        match if keep { self.disk.open(&file.path).ok() } else { None } {
            Some(opened) => {
                self.set.lock().spares.push(Spare { file: opened, path: file.path, capacity: file.capacity })
            }
            None => remove_quietly(self, &file.path),
        }
        true
    }

    /// Makes a spare from its first byte to its name, at once.
    pub(crate) fn make_spare(&self) -> Result<Spare> {
        let mut filling = Filling::begin(self, self.usual_capacity)?;
        while !filling.fill()? {}
        filling.finish(self)
    }
}

impl FileSet {
    fn largest_spare(&self) -> Option<u64> {
        self.spares.iter().map(|spare| spare.capacity).max()
    }

    /// Tells `room` what there is; to be called after every change, before the lock on the set is given back.
    pub(crate) fn publish(&self, room: &Room) {
        room.set_files(self.active_remaining, self.largest_spare());
    }

    /// Takes the smallest spare that holds `frame_bytes` and everything else that has been admitted.
    pub(crate) fn take_spare(&mut self, frame_bytes: u64, room: &Room) -> Option<Spare> {
        self.spares.sort_by_key(|spare| spare.capacity);
        let fitting = |spare: &Spare| spare.capacity >= frame_bytes;
        let place = self.spares.iter().position(|spare| fitting(spare) && room.fits_spare(spare.capacity));
        let place = place.or_else(|| self.spares.iter().rposition(fitting));
        let Some(place) = place else {
            self.publish(room);
            return None;
        };
        let spare = self.spares.remove(place);
        Some(spare)
    }

    /// A file of the log is full.
    pub(crate) fn finish(&mut self, file: FullFile) {
        self.archive(file.clone());
        self.live.push_back(file);
    }

    /// `file` is to be archived, as it is now, after all others.
    pub(crate) fn archive(&mut self, file: FullFile) {
        if self.archives {
            self.unarchived.push_back(file);
        }
    }

    /// Retires the files that end before `position`. The one that ends there stays: if the next one's first frame is
    /// lost, the newest version and the version limit stand in its last frame only.
    pub(crate) fn retire_before(&mut self, position: u64) {
        while let Some(file) = self.live.pop_front_if(|file| file.end_position < position) {
            self.give_up(file);
        }
    }

    /// The log does not need `file` any more.
    pub(crate) fn give_up(&mut self, file: FullFile) {
        // The oldest are archived first, so all before the first that waits are done.
        let archived_to = self.unarchived.front().map_or(u64::MAX, FullFile::start_position);
        if file.end_position <= archived_to {
            self.retired.push(file);
        } else {
            self.given_up.push_back(file);
        }
    }

    /// `file`, the oldest that waits, is in the archive.
    pub(crate) fn archived(&mut self, file: &FullFile) {
        self.unarchived.pop_front_if(|first| first.path == file.path);
        while let Some(file) = self.given_up.pop_front() {
            let waits = self.unarchived.front().is_some_and(|first| first.start_position() < file.end_position);
            if waits {
                self.given_up.push_front(file);
                break;
            }
            self.retired.push(file);
        }
    }
}

/// Whether the disk or a quota is full.
pub(crate) fn is_full(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. }
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
}

/// The number in the name of a log file.
pub(crate) fn number_of(path: &Path) -> Option<u64> {
    let digits = path.file_name()?.to_str()?.strip_suffix(LOG_SUFFIX)?;
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { digits.parse().ok() } else { None }
}

/// A file that is being zero-filled.
struct Filling {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    length: u64,
    written: u64,
}

impl Filling {
    fn begin(files: &Files, capacity: u64) -> Result<Filling> {
        let path = files.prepare_path();
        let file = match files.disk.create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                files.disk.remove(&path).map_err(|source| Error::io("remove", &path, source))?;
                files.disk.create(&path)
            }
            other => other,
        };
        let file = file.map_err(|source| Error::io("create", &path, source))?;
        Ok(Filling { file, path, length: capacity + HEADER_BLOCK_BYTES, written: 0 })
    }

    /// Writes some zeros; whether the file is complete and synced.
    fn fill(&mut self) -> Result<bool> {
        let bytes = FILL_BYTES.min(self.length - self.written);
        // Written, not allocated: an overwrite of bytes that were never written still commits the journal.
        let zeros = vec![0; bytes as usize];
        self.file.write_all_at(&zeros, self.written).map_err(|source| Error::io("write", &self.path, source))?;
        self.written += bytes;
        let complete = self.written == self.length;
        if complete || self.written.is_multiple_of(FILL_SYNC_BYTES) {
            self.file.sync_data().map_err(|source| Error::io("sync", &self.path, source))?;
        }
        Ok(complete)
    }

    /// Gives the file its name, durably.
    fn finish(self, files: &Files) -> Result<Spare> {
        let path = files.next_path();
        files.disk.rename(&self.path, &path).map_err(|source| Error::io("rename", &self.path, source))?;
        if let Err(source) = files.disk.sync_directory(&files.directory) {
            let error = Error::io("sync", &files.directory, source);
            if is_full(&error) {
                remove_quietly(files, &path);
            }
            return Err(error);
        }
        Ok(Spare { file: self.file, path, capacity: self.length - HEADER_BLOCK_BYTES })
    }
}

/// Removes a file that nothing depends on.
fn remove_quietly(files: &Files, path: &Path) {
    if let Err(error) = files.disk.remove(path) {
        tracing::warn!(path = %path.display(), %error, "cannot remove a log file that is not needed any more");
    }
}

/// Keeps one spare file ready, recycles or removes what nothing needs any more.
pub struct FilePreparer {
    pub(crate) shared: Arc<Shared>,
    filling: Option<Filling>,
    archiver: Option<Archiver>,
}

impl FilePreparer {
    pub(crate) fn new(shared: Arc<Shared>, archiver: Option<Archiver>) -> FilePreparer {
        FilePreparer { shared, filling: None, archiver }
    }

    /// The archiver, for a thread of its own: an archive that hangs must not keep files from being prepared.
    pub(crate) fn take_archiver(&mut self) -> Option<Archiver> {
        self.archiver.take()
    }

    /// Archives what is not archived yet, with the active file as far as it is written, so that the archive is
    /// complete; to be called when the writer is closed. Gives up at the first failure, which the statistics name: the
    /// files stay, and are archived after the next open. [`super::LogThreads::close`] does this by itself.
    pub fn finish_archive(&mut self) {
        if let Some(archiver) = &mut self.archiver {
            archiver.finish();
        }
    }

    /// Does one bounded piece of work on the next file, and one on the archive. A full disk is noted and tried again at the next call, which may come at any
    /// time; the time in the answer is when it makes sense. Any other failure to write or sync stops the log.
    pub fn step(&mut self) -> Step {
        if self.shared.is_poisoned() {
            return Step::Idle { until: None };
        }
        let prepared = match self.work() {
            Ok(step) => step,
            Err(error) => {
                self.shared.poison(error);
                return Step::Worked;
            }
        };
        let archived = self.archiver.as_mut().map_or(Step::Idle { until: None }, Archiver::step);
        match (prepared, archived) {
            (Step::Idle { until: Some(one) }, Step::Idle { until: Some(other) }) => {
                Step::Idle { until: Some(one.min(other)) }
            }
            (Step::Idle { until: one }, Step::Idle { until: other }) => Step::Idle { until: one.or(other) },
            _ => Step::Worked,
        }
    }

    /// Drops a file that is half made.
    pub(crate) fn discard(self) {
        if let Some(filling) = self.filling {
            remove_quietly(&self.shared.files, &filling.path);
        }
    }

    fn work(&mut self) -> Result<Step> {
        let shared = Arc::clone(&self.shared);
        let files = &shared.files;
        if self.filling.is_none() {
            if files.recycle_one() {
                self.announce();
                return Ok(Step::Worked);
            }
            let Some(capacity) = files.missing_capacity() else {
                self.set_disk_full(false);
                return Ok(Step::Idle { until: None });
            };
            match Filling::begin(files, capacity) {
                Ok(filling) => self.filling = Some(filling),
                // Nothing was written: too many open files, for instance, passes.
                Err(error) => return Ok(self.refuse(&error)),
            }
        }
        let Some(mut filling) = self.filling.take() else {
            return Ok(Step::Worked);
        };
        let path = filling.path.clone();
        let spare = match filling.fill() {
            Ok(false) => {
                self.filling = Some(filling);
                return Ok(Step::Worked);
            }
            Ok(true) => filling.finish(files),
            Err(error) => Err(error),
        };
        match spare {
            Ok(spare) => {
                files.set.lock().spares.push(spare);
                self.set_disk_full(false);
                self.announce();
                Ok(Step::Worked)
            }
            Err(error) if is_full(&error) => {
                // Gives the space back to others meanwhile. Where the name was given already, nothing is here.
                let _ = files.disk.remove(&path);
                Ok(self.refuse(&error))
            }
            Err(error) => Err(error),
        }
    }

    /// Tells everybody what spares there are now.
    fn announce(&self) {
        let files = &self.shared.files;
        {
            let set = files.set.lock();
            if set.largest_spare() >= Some(files.wanted_capacity.load(Ordering::SeqCst)) {
                files.wanted_capacity.store(0, Ordering::SeqCst);
            }
            set.publish(&self.shared.room);
        }
        self.shared.wake_for_room();
        self.shared.writer_signal.notify();
    }

    /// The next file cannot be made now.
    fn refuse(&self, error: &Error) -> Step {
        self.shared.files.wanted_capacity.store(0, Ordering::SeqCst);
        if !self.shared.files.disk_full.load(Ordering::SeqCst) {
            tracing::error!(%error, "cannot prepare the next log file; writes are refused when the present one is full");
        }
        self.set_disk_full(true);
        self.shared.wake_for_room();
        Step::Idle { until: Some(self.shared.clock.monotonic() + RETRY_AFTER) }
    }

    fn set_disk_full(&self, full: bool) {
        let was = self.shared.files.disk_full.swap(full, Ordering::SeqCst);
        if was && !full {
            tracing::info!("log files can be prepared again; writes go on");
        }
    }
}
