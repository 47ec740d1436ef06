//! Reading what a damaged log still holds, for a repair. Reads only.
//!
//! ```text
//!   file 7                     file 8, its header lost       file 9
//!   | frame | frame | frame |  | frame | rot | frame | ...   | frame | ...
//!     a copy in the archive?    first frame says where        never read: what came before is lost
//!     then it is read instead   the file starts
//! ```
//!
//! The log is read as a start reads it (`scan`), with three allowances. Each is exact: what is delivered is what was
//! written, without a gap.
//!
//! - A file whose header is lost, or an old one, starts where its first frame says.
//! - Where a file is damaged, a copy of it in the archive is read on from there.
//! - A lost frame is passed over when it had no records: a frame of a header's length, or any number of them before a
//!   mark that names the newest version read so far.
//!
//! Everything behind the first damage that remains is counted and not delivered: its effects build on what is lost.
//! Not here: what is done with the records (`store::repair`).

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind::NotFound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::archive::{Archive, StoreId};
use super::files::number_of;
use super::format::{FRAME_HEADER_BYTES, FileHeader, FrameHeader, HEADER_BLOCK_BYTES};
use super::scan::{Reader, Scan, for_each_frame_header, implied_start};
use super::survey::{FoundFile, Survey, look_at, read_up_to};
use super::{Progress, ReplayFrame};
use crate::disk::Disk;
use crate::error::{Damage, Error, Result};
use crate::version::Version;

/// The files of a log and of its archive, as far as they say what they are.
pub(crate) struct LogRemains {
    disk: Arc<dyn Disk>,
    /// The log's own files, then copies from the archive.
    survey: Survey,
    /// How many are the log's own.
    own: usize,
    /// The store that the files belong to.
    pub(crate) store_id: Option<StoreId>,
    /// Nothing before this position matters, by the newest header that is left.
    pub(crate) replay_from: u64,
    /// Version of the newest checkpoint that the headers know of.
    pub(crate) checkpoint: Version,
    /// Everything before this position was durable.
    durable: u64,
    /// Damaged headers, and files of other stores.
    pub(crate) damage: Vec<Damage>,
}

/// What a damaged log cannot give any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogCut {
    /// The file in which the readable part ends.
    pub path: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// Frames behind it that can still be recognized.
    pub frames: u64,
    /// Commands in them.
    pub records: u64,
    /// Versions of the first and the last of those commands.
    pub versions: Option<(Version, Version)>,
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Replayed {
    /// Whether everything from the position asked for on was there.
    pub(crate) is_contiguous: bool,
    /// Whether the oldest file begins after the position asked for.
    pub(crate) begins_late: bool,
    /// Where the readable part ends.
    pub(crate) position: u64,
    /// The newest version delivered or passed over.
    pub(crate) last_version: Version,
    /// Versions up to this one may have been handed out.
    pub(crate) version_limit: Version,
    /// Records delivered.
    pub(crate) records: u64,
    /// Lost frames without records that were passed over.
    pub(crate) marks_passed: u64,
    /// Copies from the archive that were read in place of damaged or missing files.
    pub(crate) archived: Vec<PathBuf>,
    /// Where the readable part ends, if something durable came after it.
    pub(crate) cut: Option<LogCut>,
}

/// Where a frame stands: its file, its header, and where in the file.
type Place = ((usize, FileHeader), FrameHeader, u64);

/// A reading on its way.
struct Reading<'r> {
    scan: Scan,
    reader: Reader<'r>,
    /// The file that is read.
    at: (usize, FileHeader),
    tried: BTreeSet<usize>,
    done: Replayed,
}

impl LogRemains {
    /// Looks at every file in `directory` and at those of the same store in `archive`. `store_id` where it is known; else
    /// the one that most files name.
    ///
    /// # Errors
    /// `Io`, `FormatTooNew`.
    pub(crate) fn find(
        disk: &Arc<dyn Disk>,
        directory: &Path,
        archive: Option<&Path>,
        store_id: Option<StoreId>,
    ) -> Result<LogRemains> {
        let mut files = Vec::new();
        for path in list(&**disk, directory)? {
            if let Some(number) = number_of(&path) {
                files.push(look_at(&**disk, number, path)?);
            }
        }
        files.sort_by_key(|file| file.number);
        let store_id = store_id.or_else(|| commonest(&files));
        let mut remains = LogRemains {
            disk: Arc::clone(disk),
            own: files.len(),
            survey: Survey { files, newest: None },
            store_id,
            replay_from: 0,
            checkpoint: Version::ZERO,
            durable: 0,
            damage: Vec::new(),
        };
        remains.leave_out_foreign_files();
        remains.find_lost_headers()?;
        for header in remains.survey.files.iter().filter_map(|file| file.header) {
            remains.replay_from = remains.replay_from.max(header.replay_from);
            remains.checkpoint = remains.checkpoint.max(header.checkpoint);
            remains.durable = remains.durable.max(header.durable_position).max(header.replay_from);
        }
        remains.add_archive(archive)?;
        Ok(remains)
    }

    /// The log's own files, whatever they hold.
    pub(crate) fn own_files(&self) -> impl Iterator<Item = &Path> {
        self.survey.files.iter().take(self.own).map(|file| file.path.as_path())
    }

    /// Whether there is any file that says something.
    pub(crate) fn is_empty(&self) -> bool {
        self.survey.files.iter().all(|file| file.header.is_none())
    }

    fn leave_out_foreign_files(&mut self) {
        for file in &mut self.survey.files {
            if file.header.is_some_and(|header| Some(StoreId(header.store_id)) != self.store_id) {
                let what = "it belongs to another store and is left out";
                self.damage.push(Damage { path: file.path.clone(), offset: 0, what });
                file.header = None;
            }
        }
    }

    /// Gives files whose header is lost one that follows from their first frame.
    fn find_lost_headers(&mut self) -> Result<()> {
        let Some(store_id) = self.store_id else {
            return Ok(());
        };
        let known: Vec<FileHeader> = self.survey.files.iter().filter_map(|file| file.header).collect();
        for file in &mut self.survey.files {
            let Some(frame) = first_frame(&*self.disk, file)?.filter(|frame| frame.store_id == store_id.0) else {
                continue;
            };
            // A header may be there and be one from before the file was recycled.
            if file.header.is_some_and(|header| header.start_position >= frame.position) {
                continue;
            }
            let before = known.iter().filter(|header| header.start_position < frame.position);
            let after = known.iter().filter(|header| header.start_position > frame.position);
            let newest_before = before.max_by_key(|header| header.sequence).map(|header| header.sequence + 1);
            let first_after =
                after.min_by_key(|header| header.sequence).map(|header| header.sequence.saturating_sub(1));
            if known.iter().any(|header| header.start_position == frame.position) {
                // Left from before the file was recycled.
                continue;
            }
            file.header = Some(FileHeader {
                store_id: store_id.0,
                sequence: newest_before.or(first_after).unwrap_or(1),
                generation: 0,
                start_position: frame.position,
                epoch: frame.epoch,
                replay_from: 0,
                checkpoint: Version::ZERO,
                previous_crc: frame.previous_crc,
                durable_position: 0,
                is_closed: false,
            });
            let what = "the file header is damaged; the first frame says where the file starts";
            self.damage.push(Damage { path: file.path.clone(), offset: 0, what });
        }
        Ok(())
    }

    fn add_archive(&mut self, archive: Option<&Path>) -> Result<()> {
        let (Some(directory), Some(store_id)) = (archive, self.store_id) else {
            return Ok(());
        };
        let archive = match Archive::open(Arc::clone(&self.disk), directory) {
            Err(Error::Io { source, .. }) if source.kind() == NotFound => return Ok(()),
            opened => opened?,
        };
        for file in archive.line(store_id).into_iter().flat_map(|line| &line.files) {
            let (path, header) = (file.path.clone(), Some(file.header));
            self.survey.files.push(FoundFile { path, number: 0, length: file.bytes, header });
        }
        Ok(())
    }

    /// Hands everything from position `from` on to `deliver`, up to the first damage that remains.
    ///
    /// # Errors
    /// `Io`; errors of `deliver` as they are.
    pub(crate) fn replay(&self, from: u64, deliver: &mut dyn FnMut(ReplayFrame) -> Result<()>) -> Result<Replayed> {
        let Some(at) = self.first_file(from) else {
            let is_contiguous = from >= self.durable;
            return Ok(Replayed { is_contiguous, begins_late: !is_contiguous, ..Replayed::default() });
        };
        let ignore = |_: Progress| {};
        let mut scan = Scan::default();
        scan.begin(&at.1, from);
        let reader = Reader { disk: &*self.disk, survey: &self.survey, deliver, progress: &ignore };
        let begins_late = at.1.start_position > from;
        let done = Replayed { is_contiguous: !begins_late, begins_late, ..Replayed::default() };
        let mut reading = Reading { scan, reader, at, tried: BTreeSet::from([at.0]), done };
        reading.scan.read_file(&mut reading.reader, at.0, at.1)?;
        while self.go_on(&mut reading, from)? {}
        let Reading { scan, at, mut done, .. } = reading;
        done.is_contiguous &= scan.position >= from;
        (done.position, done.last_version, done.records) = (scan.position, scan.last_version, scan.records);
        done.version_limit = scan.version_limit.max(scan.last_version);
        self.count_what_follows(&scan, at, &mut done)?;
        Ok(done)
    }

    /// The file to begin with: the newest that begins before `from`, or the first that there is.
    fn first_file(&self, from: u64) -> Option<(usize, FileHeader)> {
        let headers = || self.survey.files.iter().enumerate().filter_map(|(place, file)| Some((place, file.header?)));
        let age = |header: &FileHeader| (header.start_position, header.epoch);
        // The last of equals is taken by `max_by_key`: the log's own files stand first.
        let before = headers().filter(|(_, header)| header.start_position < from || header.start_position == 0);
        let before = before.collect::<Vec<_>>().into_iter().rev().max_by_key(|(_, header)| age(header));
        before.or_else(|| headers().min_by_key(|(_, header)| age(header)))
    }

    /// Finds where the log goes on behind the end of what was read; false when it does not.
    fn go_on(&self, reading: &mut Reading<'_>, from: u64) -> Result<bool> {
        if let Some((place, header)) = reading.scan.successor(&self.survey, reading.at.1) {
            reading.note_file(self, place);
            reading.at = (place, header);
            reading.scan.read_file(&mut reading.reader, place, header)?;
            return Ok(true);
        }
        if self.read_other_copy(reading, from)? {
            return Ok(true);
        }
        let next = if reading.scan.position < from {
            // What is damaged there is in the checkpoint.
            self.frame_at(reading.at, from)?
        } else {
            self.frame_behind_marks(reading)?
        };
        if let Some((at, frame, offset)) = next {
            reading.done.marks_passed += u64::from(reading.scan.position >= from);
            reading.scan.pass_over_mark(&frame);
            reading.at = at;
            reading.tried.insert(at.0);
            reading.scan.read_frames(&mut reading.reader, at.0, at.1, offset)?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Reads the same part of the log from another file, if one has more of it.
    fn read_other_copy(&self, reading: &mut Reading<'_>, from: u64) -> Result<bool> {
        let start = reading.at.1.start_position;
        let mut files = self.survey.files.iter().enumerate().filter_map(|(place, file)| Some((place, file.header?)));
        let other = files.find(|(place, header)| header.start_position == start && !reading.tried.contains(place));
        let Some((place, header)) = other else {
            return Ok(false);
        };
        reading.note_file(self, place);
        let mut again = Scan::default();
        again.begin(&header, from.max(reading.scan.position));
        again.read_file(&mut reading.reader, place, header)?;
        if again.position > reading.scan.position {
            again.records += reading.scan.records;
            (reading.scan, reading.at) = (again, (place, header));
        } else {
            reading.done.archived.pop_if(|path| self.survey.files.get(place).is_some_and(|file| file.path == *path));
        }
        Ok(true)
    }

    /// The frame at exactly this position, in the file that holds it.
    fn frame_at(&self, at: (usize, FileHeader), position: u64) -> Result<Option<Place>> {
        let Some(file) = self.survey.files.get(at.0) else {
            return Ok(None);
        };
        let offset = HEADER_BLOCK_BYTES + position.saturating_sub(at.1.start_position);
        let frame = frame_header(&*self.disk, file, offset)?;
        let fits = frame.filter(|frame| frame.position == position && frame.store_id == at.1.store_id);
        Ok(fits.map(|frame| (at, frame, offset)))
    }

    /// The next frame behind lost ones that had no records.
    fn frame_behind_marks(&self, reading: &Reading<'_>) -> Result<Option<Place>> {
        let ((place, header), scan) = (reading.at, &reading.scan);
        let Some(file) = self.survey.files.get(place) else {
            return Ok(None);
        };
        let end = HEADER_BLOCK_BYTES + (scan.position - header.start_position);
        if frame_header(&*self.disk, file, end)?.is_some_and(|frame| frame.position == scan.position) {
            // It is there, with its records, and its payload is damaged.
            return Ok(None);
        }
        let behind_one = scan.position + FRAME_HEADER_BYTES as u64;
        let mut next = None;
        for_each_frame_header(&*self.disk, file, end..u64::MAX, &mut |offset, frame| {
            let is_ours = frame.store_id == header.store_id
                && implied_start(offset, frame.position) == Some(header.start_position)
                && frame.epoch >= scan.epoch
                && frame.last_version >= scan.last_version;
            if is_ours && next.is_none() {
                next = Some((offset, *frame));
            }
        })?;
        let had_no_records = |frame: &FrameHeader| {
            frame.position == behind_one || frame.records == 0 && frame.last_version == scan.last_version
        };
        if let Some((offset, frame)) = next.filter(|(_, frame)| had_no_records(frame)) {
            return Ok(Some(((place, header), frame, offset)));
        }
        if next.is_some() {
            return Ok(None);
        }
        // The lost frame was the last one of its file.
        for (place, file) in self.survey.files.iter().enumerate() {
            let Some(header) = file.header.filter(|header| header.start_position == behind_one) else {
                continue;
            };
            if header.sequence > reading.at.1.sequence
                && let Some(found) = self.frame_at((place, header), behind_one)?
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Counts what cannot be read any more, if any of it was durable.
    fn count_what_follows(&self, scan: &Scan, at: (usize, FileHeader), done: &mut Replayed) -> Result<()> {
        let mut frames: BTreeMap<u64, FrameHeader> = BTreeMap::new();
        let mut was_durable = self.durable > scan.position;
        let starts = self.survey.files.iter().filter_map(|file| Some(file.header?.start_position));
        was_durable |= starts.max().is_some_and(|start| start > scan.position);
        // An archive may be as long as the store is old.
        for file in self.survey.files.iter().take(self.own) {
            let start = file.header.map(|header| header.start_position);
            for_each_frame_header(&*self.disk, file, 0..u64::MAX, &mut |offset, frame| {
                let implied = implied_start(offset, frame.position);
                let stands_there = start.map_or(implied >= Some(scan.position), |start| implied == Some(start));
                if stands_there
                    && Some(StoreId(frame.store_id)) == self.store_id
                    && frame.position >= scan.position
                    && frame.epoch >= scan.epoch
                {
                    was_durable |= frame.durable_position > scan.position;
                    frames.insert(frame.position, *frame);
                }
            })?;
        }
        for frame in frames.values() {
            done.version_limit = done.version_limit.max(frame.version_limit).max(frame.last_version);
        }
        if !was_durable {
            return Ok(());
        }
        let with_records = || frames.values().filter(|frame| frame.records > 0);
        let first = with_records().map(|frame| frame.first_version).min();
        let last = with_records().map(|frame| frame.last_version).max();
        done.cut = Some(LogCut {
            path: self.survey.files.get(at.0).map(|file| file.path.clone()).unwrap_or_default(),
            offset: HEADER_BLOCK_BYTES + scan.position.saturating_sub(at.1.start_position),
            frames: frames.len() as u64,
            records: with_records().map(|frame| u64::from(frame.records)).sum(),
            versions: first.zip(last),
        });
        Ok(())
    }
}

impl Reading<'_> {
    /// A file is read; one of the archive is told.
    fn note_file(&mut self, remains: &LogRemains, place: usize) {
        self.tried.insert(place);
        if place >= remains.own {
            self.done.archived.extend(remains.survey.files.get(place).map(|file| file.path.clone()));
        }
    }
}

/// The files in a directory; none where it is missing.
fn list(disk: &dyn Disk, directory: &Path) -> Result<Vec<PathBuf>> {
    match disk.list(directory) {
        Err(error) if error.kind() == NotFound => Ok(Vec::new()),
        listed => listed.map_err(|source| Error::io("list", directory, source)),
    }
}

/// The store that most files name.
fn commonest(files: &[FoundFile]) -> Option<StoreId> {
    let mut counts: BTreeMap<StoreId, usize> = BTreeMap::new();
    for header in files.iter().filter_map(|file| file.header) {
        *counts.entry(StoreId(header.store_id)).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(store_id, _)| store_id)
}

fn first_frame(disk: &dyn Disk, file: &FoundFile) -> Result<Option<FrameHeader>> {
    frame_header(disk, file, HEADER_BLOCK_BYTES)
}

fn frame_header(disk: &dyn Disk, file: &FoundFile, offset: u64) -> Result<Option<FrameHeader>> {
    let opened = disk.open_read_only(&file.path).map_err(|source| Error::io("open", &file.path, source))?;
    let mut bytes = [0; FRAME_HEADER_BYTES];
    read_up_to(&*opened, &mut bytes, offset).map_err(|source| Error::io("read", &file.path, source))?;
    Ok(FrameHeader::decode(&bytes).map(|(frame, _)| frame))
}
