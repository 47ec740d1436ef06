//! Copies finished log files into the archive, oldest first, and removes from it what need not be kept.
//!
//! ```text
//!   log file --1 MiB a step--> <store>.archiving --synced, read back--> renamed, directory synced --> may be recycled
//!                                     ^                                                              --> old files removed
//!                                     +-- any failure: removed, begun anew after a while; the log file stays
//! ```
//!
//! A state machine like the log's others: a step is one bounded piece of work. What happens to it never stops the log;
//! files that are not archived pile up beside it.
//!
//! Files get their names in the archive in the order of the log. So whatever is older than the newest one there was
//! archived once, and if it is missing it was removed because of its age; only what is newer has to be copied. That it
//! is the same past, the checksum chain through the file headers shows.
//!
//! Not here: reading an archive (`archive`), when a file is given up (`files`).

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use super::archive::{Archive, ArchiveOptions, ArchivedFile, StoreId, archived_name, end_of};
use super::files::FullFile;
use super::format::{FRAME_HEADER_BYTES, FileHeader, FrameHeader, HEADER_BLOCK_BYTES};
use super::recovery::make_directory;
use super::statistics::Counters;
use super::survey::read_up_to;
use super::{Shared, Step};
use crate::disk::{Disk, DiskFile};
use crate::error::{Error, Result};
use crate::version::Version;

/// Bytes copied in a step.
const COPY_BYTES: u64 = 1024 * 1024;
/// A copy is synced this often, so that its last sync does not hold up the log's.
const COPY_SYNC_BYTES: u64 = 4 * 1024 * 1024;
/// When to try again after a failure.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// Ending of the name of a copy that is being made.
const COPY_SUFFIX: &str = "archiving";

/// What is known of the archive.
enum Known {
    /// Nothing yet.
    Nothing,
    /// The files of this store in it, by their place in the log; their names are durable.
    Files(BTreeMap<u64, ArchivedFile>),
    /// Its name, or names that were found in it, could not be made durable. A second sync could succeed although they
    /// are not, so only a restart helps.
    Uncertain,
}

/// What a file that waits needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    Copy,
    /// It is in the archive, or was once.
    Nothing,
}

/// Archives finished files; the head of its file says how.
pub(crate) struct Archiver {
    pub(crate) shared: Arc<Shared>,
    options: ArchiveOptions,
    store_id: StoreId,
    /// Place in the log of the file that was active at open.
    active_at_open: u64,
    known: Known,
    /// A removal may not last, so nothing newer is removed before a restart: it would leave a gap.
    removes_nothing: bool,
    copying: Option<Copying>,
    retry_at: Option<Duration>,
    is_failing: bool,
}

impl Archiver {
    /// `active` is the header of the file that the log goes on in.
    pub(crate) fn new(shared: Arc<Shared>, options: ArchiveOptions, active: &FileHeader) -> Archiver {
        Archiver {
            shared,
            options,
            store_id: StoreId(active.store_id),
            active_at_open: active.sequence,
            known: Known::Nothing,
            removes_nothing: false,
            copying: None,
            retry_at: None,
            is_failing: false,
        }
    }

    /// Does one bounded piece of work. A failure is noted and tried again at the time in the answer.
    pub(crate) fn step(&mut self) -> Step {
        let now = self.shared.clock.monotonic();
        if self.shared.is_poisoned() {
            return Step::Idle { until: None };
        }
        if self.retry_at.is_some_and(|at| now < at) {
            return Step::Idle { until: self.retry_at };
        }
        self.retry_at = None;
        match self.work() {
            Ok(step) => step,
            Err(error) => {
                self.note(&error);
                self.drop_copy();
                let until = Some(now.saturating_add(RETRY_AFTER));
                self.retry_at = until;
                Step::Idle { until }
            }
        }
    }

    /// Archives everything that waits, until something fails.
    pub(crate) fn finish(&mut self) {
        self.retry_at = None;
        while self.step() == Step::Worked {}
        self.drop_copy();
    }

    fn work(&mut self) -> Result<Step> {
        if let Some(mut copying) = self.copying.take() {
            let complete = copying.copy();
            let bytes = copying.written;
            let file = copying.file.clone();
            // Kept also when it failed: its name has to be removed.
            self.copying = Some(copying);
            if complete? {
                self.publish(&file, bytes)?;
            }
            return Ok(Step::Worked);
        }
        let known = match &self.known {
            Known::Files(known) => known,
            Known::Nothing => {
                self.survey()?;
                return Ok(Step::Worked);
            }
            Known::Uncertain => {
                return Err(self.refused(&self.options.directory, "its names may be lost after a failed sync: restart"));
            }
        };
        let Some(file) = self.shared.files.set.lock().unarchived.front().cloned() else {
            return Ok(Step::Idle { until: None });
        };
        match self.need(&file, known)? {
            Need::Copy => self.copying = Some(Copying::begin(&*self.shared.files.disk, file, &self.copy_path())?),
            Need::Nothing => self.done(&file),
        }
        Ok(Step::Worked)
    }

    /// Makes the directory where it is missing, and finds out what is in it.
    fn survey(&mut self) -> Result<()> {
        let (disk, directory) = (&self.shared.files.disk, &self.options.directory);
        let names = match make_directory(&**disk, directory) {
            // A failed sync of a directory: what it held may be lost, whatever the next one says.
            Err(error) if is_failed_sync(&error) => {
                self.known = Known::Uncertain;
                return Err(error);
            }
            other => other,
        };
        names?;
        let archive = Archive::open(Arc::clone(disk), directory)?;
        let files = archive.line(self.store_id).map(|line| line.files.clone()).unwrap_or_default();
        if let Some(newest) = files.last().filter(|file| file.header.sequence > self.active_at_open) {
            return Err(self.refused(&newest.path, "it is of this store and newer than its log"));
        }
        self.known = Known::Files(files.into_iter().map(|file| (file.header.sequence, file)).collect());
        Ok(())
    }

    /// What `file` needs, given what is in the archive.
    fn need(&self, file: &FullFile, known: &BTreeMap<u64, ArchivedFile>) -> Result<Need> {
        let Some(header) = file.header else {
            return Ok(Need::Nothing);
        };
        let (here, next) = (known.get(&header.sequence), known.get(&header.sequence.saturating_add(1)));
        let oldest = known.keys().next();
        if let Some(next) = next {
            let same = next.header.start_position == file.end_position && next.header.previous_crc == file.end_crc;
            return match (same, here) {
                (false, _) => Err(self.another_past(&next.path)),
                (true, None) if oldest.is_some_and(|oldest| header.sequence > *oldest) => Ok(Need::Copy),
                (true, _) => Ok(Need::Nothing),
            };
        }
        if oldest.is_some_and(|oldest| header.sequence < *oldest) {
            return Ok(Need::Nothing);
        }
        match here {
            Some(here) => self.need_beside(file, &header, here),
            None => Ok(Need::Copy),
        }
    }

    /// What `file` needs when the archive has a file of its place, the newest one there.
    fn need_beside(&self, file: &FullFile, header: &FileHeader, here: &ArchivedFile) -> Result<Need> {
        let disk = &*self.shared.files.disk;
        let end = end_of(disk, here)?;
        if here.header.start_position != header.start_position || here.header.previous_crc != header.previous_crc {
            return Err(self.another_past(&here.path));
        }
        if !end.is_whole {
            tracing::warn!(path = %here.path.display(), "an archived log file is damaged; it is replaced by a new copy");
            return Ok(Need::Copy);
        }
        if end.position == file.end_position && end.crc == file.end_crc {
            return Ok(Need::Nothing);
        }
        // The last close archived it as far as it was written then; what was there must be the beginning of it.
        let opened = disk.open_read_only(&file.path).map_err(|source| Error::io("open", &file.path, source))?;
        let mut bytes = [0; FRAME_HEADER_BYTES];
        let offset = HEADER_BLOCK_BYTES + (end.position - header.start_position);
        read_up_to(&*opened, &mut bytes, offset).map_err(|source| Error::io("read", &file.path, source))?;
        match FrameHeader::decode(&bytes) {
            Some((next, _))
                if next.store_id == header.store_id
                    && next.position == end.position
                    && next.previous_crc == end.crc
                    && end.position < file.end_position =>
            {
                Ok(Need::Copy)
            }
            _ => Err(self.another_past(&here.path)),
        }
    }

    /// Gives a complete copy its name, durably, when reading it back shows that it is right.
    fn publish(&mut self, file: &FullFile, bytes: u64) -> Result<()> {
        let (disk, copy) = (Arc::clone(&self.shared.files.disk), self.copy_path());
        let archived = ArchivedFile::look_at(&*disk, &copy)?;
        let end = archived.as_ref().map(|archived| end_of(&*disk, archived)).transpose()?;
        let expected = |header: FileHeader| file.header.is_some_and(|own| own.start_position == header.start_position);
        let right = end.is_some_and(|end| end.is_whole && end.position == file.end_position && end.crc == file.end_crc);
        let Some(mut archived) = archived.filter(|archived| right && expected(archived.header)) else {
            if file.is_leftover {
                // Made ready to be used again, perhaps written to, and then the power went: it was archived before.
                tracing::warn!(path = %file.path.display(), "an old log file is damaged and cannot be archived again");
                self.drop_copy();
                self.done(file);
                return Ok(());
            }
            let offset = end.map_or(0, |end| end.position - file.start_position() + HEADER_BLOCK_BYTES);
            let what = "a finished log file is damaged and cannot be archived; make a new backup";
            return Err(Error::Corrupt { path: file.path.clone(), offset, what });
        };
        archived.path = self.path_of(archived.header.sequence);
        self.check_name(&archived)?;
        disk.rename(&copy, &archived.path).map_err(|source| Error::io("rename", &copy, source))?;
        self.copying = None;
        let directory = &self.options.directory;
        // After a failure the file is copied and renamed once more: a later sync says nothing about this rename.
        disk.sync_directory(directory).map_err(|source| Error::io("sync", directory, source))?;
        if let Known::Files(known) = &mut self.known {
            known.insert(archived.header.sequence, archived);
        }
        let counters = &self.shared.counters;
        Counters::add(&counters.archived_files, 1);
        Counters::add(&counters.archived_bytes, bytes);
        self.done(file);
        if let Err(error) = self.remove_old() {
            self.note(&error);
        }
        Ok(())
    }

    /// Nobody else's file stands where `archived` is to stand.
    fn check_name(&self, archived: &ArchivedFile) -> Result<()> {
        let disk = &*self.shared.files.disk;
        let there = match ArchivedFile::look_at(disk, &archived.path) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
            other => other?,
        };
        let own = (archived.header.store_id, archived.header.sequence);
        match there {
            Some(there) if (there.header.store_id, there.header.sequence) != own => {
                Err(self.refused(&archived.path, "it holds another log file than its name says"))
            }
            _ => Ok(()),
        }
    }

    /// `file` is in the archive: it may be recycled once nothing else needs it.
    fn done(&mut self, file: &FullFile) {
        self.recovered();
        self.shared.files.set.lock().archived(file);
        self.shared.files_signal.notify();
    }

    /// Removes the files that need not be kept, never the newest.
    fn remove_old(&mut self) -> Result<()> {
        let now_ms = self.shared.time.now_ms();
        let Known::Files(known) = &mut self.known else {
            return Ok(());
        };
        if self.removes_nothing {
            return Ok(());
        }
        let (disk, directory) = (&self.shared.files.disk, &self.options.directory);
        let mut bytes: u64 = known.values().map(|file| file.bytes).sum();
        loop {
            let mut oldest = known.values();
            let (Some(first), Some(second)) = (oldest.next(), oldest.next()) else {
                return Ok(());
            };
            // What the next file begins with is not older than everything in this one.
            let newer = second.first_version.map_or(u64::MAX, Version::time_ms);
            let keep_ms = self.options.keep_for.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
            let is_old = keep_ms.is_some_and(|keep_ms| newer.saturating_add(keep_ms) < now_ms);
            if !is_old && self.options.keep_bytes.is_none_or(|keep| bytes <= keep) {
                return Ok(());
            }
            bytes -= first.bytes;
            let path = first.path.clone();
            let sequence = first.header.sequence;
            match disk.remove(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other.map_err(|source| Error::io("remove", &path, source))?,
            }
            known.remove(&sequence);
            // One after the other, so that a power cut leaves no gap.
            let synced = disk.sync_directory(directory);
            self.removes_nothing = synced.is_err();
            synced.map_err(|source| Error::io("sync", directory, source))?;
        }
    }

    fn path_of(&self, sequence: u64) -> PathBuf {
        self.options.directory.join(archived_name(self.store_id, sequence))
    }

    fn copy_path(&self) -> PathBuf {
        self.options.directory.join(format!("{}.{COPY_SUFFIX}", self.store_id))
    }

    fn refused(&self, path: &Path, why: &str) -> Error {
        Error::io("archive beside", path, io::Error::other(why.to_owned()))
    }

    fn another_past(&self, path: &Path) -> Error {
        self.refused(path, "it is of this store and of another past; give this store an archive of its own")
    }

    /// Forgets a copy that is being made.
    fn drop_copy(&mut self) {
        if let Some(copying) = self.copying.take() {
            drop(copying);
            // Where this fails, the next copy replaces it.
            let _ = self.shared.files.disk.remove(&self.copy_path());
        }
    }

    /// Something failed, and is tried again.
    fn note(&mut self, error: &Error) {
        let counters = &self.shared.counters;
        Counters::add(&counters.archive_failures, 1);
        *counters.archive_last_error.lock() = Some(error.to_string());
        if !self.is_failing {
            tracing::error!(%error, "cannot archive log files; they are kept beside the log until it works again");
        }
        self.is_failing = true;
    }

    fn recovered(&mut self) {
        *self.shared.counters.archive_last_error.lock() = None;
        if self.is_failing {
            tracing::info!("log files can be archived again");
        }
        self.is_failing = false;
    }
}

/// Whether a directory was there and could not be synced. One that was not even opened loses nothing.
fn is_failed_sync(error: &Error) -> bool {
    let not_opened = [Errno::NOENT, Errno::MFILE, Errno::NFILE, Errno::NOMEM].map(|errno| Some(errno.raw_os_error()));
    matches!(error, Error::Io { op: "sync", source, .. } if !not_opened.contains(&source.raw_os_error()))
}

/// A copy that is being made.
struct Copying {
    file: FullFile,
    source: Box<dyn DiskFile>,
    copy: Box<dyn DiskFile>,
    copy_path: PathBuf,
    length: u64,
    written: u64,
}

impl Copying {
    fn begin(disk: &dyn Disk, file: FullFile, copy_path: &Path) -> Result<Copying> {
        let source = disk.open_read_only(&file.path).map_err(|source| Error::io("open", &file.path, source))?;
        let copy = match disk.create(copy_path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                disk.remove(copy_path).map_err(|source| Error::io("remove", copy_path, source))?;
                disk.create(copy_path)
            }
            other => other,
        };
        let copy = copy.map_err(|source| Error::io("create", copy_path, source))?;
        let length = HEADER_BLOCK_BYTES + (file.end_position - file.start_position());
        Ok(Copying { file, source, copy, copy_path: copy_path.to_owned(), length, written: 0 })
    }

    /// Copies some bytes; whether the copy is complete and synced.
    fn copy(&mut self) -> Result<bool> {
        let mut bytes = vec![0; COPY_BYTES.min(self.length - self.written) as usize];
        let read = read_up_to(&*self.source, &mut bytes, self.written);
        let read = read.map_err(|source| Error::io("read", &self.file.path, source))?;
        if read != bytes.len() {
            let (path, offset) = (self.file.path.clone(), self.written + read as u64);
            return Err(Error::Corrupt {
                path,
                offset,
                what: "a finished log file is shorter than what was written to it",
            });
        }
        let failed = |op| move |source| (op, source);
        let written = self.copy.write_all_at(&bytes, self.written).map_err(failed("write"));
        self.written += read as u64;
        let complete = self.written == self.length;
        let sync = complete || self.written.is_multiple_of(COPY_SYNC_BYTES);
        let synced = written.and_then(|()| if sync { self.copy.sync_data().map_err(failed("sync")) } else { Ok(()) });
        synced.map_err(|(op, source)| Error::io(op, &self.copy_path, source))?;
        Ok(complete)
    }
}
