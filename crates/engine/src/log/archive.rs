//! The archive: copies of finished log files, and how they are read again.
//!
//! ```text
//!   directory | <store id, 32 hex digits>-<place in the log, 20 digits>.log   a log file as `format` says, cut after
//!             |                                                                its last frame
//!             | <store id>.archiving                                          a copy being made; means nothing
//!
//!   line of a store:   file 7 | file 8 | file 9          each goes on exactly where the one before ends (position,
//!                                                        crc of the last frame): one past, without a gap
//! ```
//!
//! What a file is, its header says; names only have to end in `.log`. One directory may hold the lines of many stores;
//! none is ever read into another. A replay cuts between commands. Whatever is missing or damaged between its start and
//! its limit is an error that names it; nothing is skipped.
//!
//! The last file of a line that was closed in order ends with the newest version of the store then; the file replaces
//! it that holds more of the same place. A raw log file put there by hand is read like the others, except that the last
//! one of a line must end with its last frame.
//!
//! Not here: making the copies (`archiver`), what the records do ([`crate::effect`]).

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::format::{FRAME_HEADER_BYTES, FileHeader, FrameHeader, HEADER_BLOCK_BYTES, STORE_ID_BYTES};
use super::record::encode_record_header;
use super::scan::{Reader, Scan};
use super::survey::{FoundFile, Survey, look_at, read_up_to};
use super::{Progress, ReplayFrame};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::version::Version;

/// Ending of the names of archived files.
const ARCHIVED_SUFFIX: &str = "log";

/// Where finished log files are copied before they are given up, and how long they stay there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveOptions {
    /// The directory; created when missing at open. Several stores may share one. It should be on another disk.
    pub directory: PathBuf,
    /// Files of this store are removed when everything in them is older than this. `None` keeps them.
    pub keep_for: Option<Duration>,
    /// The oldest files of this store are removed when all of them together are larger than this many bytes; the newest
    /// one stays. `None` keeps them.
    pub keep_bytes: Option<u64>,
}

/// Identity of a store, as file headers have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoreId(pub [u8; STORE_ID_BYTES]);

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Name of the archived file that is at place `sequence` of the log of `store_id`.
pub(crate) fn archived_name(store_id: StoreId, sequence: u64) -> String {
    format!("{store_id}-{sequence:020}.{ARCHIVED_SUFFIX}")
}

/// The store and the place in its log that the name of an archived file tells; `None` for another name.
fn place_in_name(path: &Path) -> Option<(StoreId, u64)> {
    let name = path.file_name()?.to_str()?;
    let (id, rest) = name.split_at_checked(2 * STORE_ID_BYTES)?;
    let store_id = StoreId(u128::from_str_radix(id, 16).ok()?.to_be_bytes());
    let sequence = rest.strip_prefix('-')?.get(..20)?.parse().ok()?;
    (name == archived_name(store_id, sequence)).then_some((store_id, sequence))
}

/// Why an archive cannot give what was asked of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// A file cannot be read, is damaged or of a newer release; or the receiver of a frame refused it.
    #[error(transparent)]
    Store(#[from] Error),
    /// Nothing in the directory belongs to the store.
    #[error("the archive {} has no log files of store {store_id}, only of {}: give the archive that belongs to the backup",
        directory.display(), list(found))]
    NoLine {
        /// The archive.
        directory: PathBuf,
        /// The store asked for.
        store_id: StoreId,
        /// The stores that it has files of.
        found: Vec<StoreId>,
    },
    /// The archive begins after the place asked for.
    #[error("the archive begins with {} at position {begins_position}{}, which is after {asked}: use a newer backup, or bring back the files before it",
        path.display(), begins_version.map_or_else(String::new, |version| format!(" and version {version}")))]
    BeginsLater {
        /// The oldest file of the store.
        path: PathBuf,
        /// Position of its first frame.
        begins_position: u64,
        /// Version of its first frame, if it has one.
        begins_version: Option<Version>,
        /// What was asked for.
        asked: ReplayFrom,
    },
    /// Files are missing between two others.
    #[error("log files {first_missing} to {last_missing} are missing in the archive: {} ends at its byte {offset} (position {position}), and the next one there is {}; bring them back, or stop before version {after}",
        before.display(), next.display())]
    Gap {
        /// The file before the gap.
        before: PathBuf,
        /// Where it ends, bytes.
        offset: u64,
        /// Position in the log where the gap begins.
        position: u64,
        /// The newest version before the gap.
        after: Version,
        /// Place in the log of the first file that is missing.
        first_missing: u64,
        /// Place in the log of the last file that is missing.
        last_missing: u64,
        /// The file after the gap.
        next: PathBuf,
    },
    /// The limit lies before the state that the replay begins with.
    #[error(
        "version {limit} was asked for, but the backup holds everything up to version {after} and cannot go back: use an older backup"
    )]
    LimitTooEarly {
        /// The limit asked for, as a version.
        limit: Version,
        /// The version that the replay goes on after.
        after: Version,
    },
}

fn list(stores: &[StoreId]) -> String {
    let names: Vec<String> = stores.iter().map(StoreId::to_string).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// Where a replay begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayFrom {
    /// Frames before this position of the log are not delivered. Without it the file that goes on after `after` is
    /// looked for, and it must be sure that nothing is missing in between: a checkpoint knows its position, so give it.
    pub position: Option<u64>,
    /// Records up to this version are not delivered.
    pub after: Version,
}

impl ReplayFrom {
    /// The first record there ever was.
    pub const START: ReplayFrom = ReplayFrom { position: Some(0), after: Version::ZERO };
}

impl fmt::Display for ReplayFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position {
            Some(position) => write!(f, "position {position}"),
            None => write!(f, "version {}", self.after),
        }
    }
}

/// Where a replay ends; always between two commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// After the last command of this version or below.
    Version(Version),
    /// After the last command of this millisecond or before, Unix time.
    TimeMs(u64),
    /// Where the archive ends.
    End,
}

impl Limit {
    /// The highest version that lies within the limit; `None` without one.
    pub fn version(self) -> Option<Version> {
        match self {
            Limit::Version(version) => Some(version),
            Limit::TimeMs(ms) if ms >= Version::MAX.time_ms() => Some(Version::MAX),
            Limit::TimeMs(ms) => Some(Version(Version::at_ms(ms + 1).0 - 1)),
            Limit::End => None,
        }
    }
}

/// What a replay did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplayEnd {
    /// Version of the last record delivered, or the one that the replay began after.
    pub version: Version,
    /// Whether the limit was reached: a record beyond it was seen, or the one that it names. Without it the archive
    /// ended before; see `written_until_ms` for a store that nobody wrote to.
    pub limit_reached: bool,
    /// Wall clock when the last frame read was written, milliseconds since the Unix epoch. Everything written before is
    /// in the archive, if the machine's clock was right.
    pub written_until_ms: u64,
    /// Position after the last frame read.
    pub position: u64,
    /// The newest version seen, also beyond the limit of the replay.
    pub newest_version: Version,
    /// Whether the last frame read is the mark of an orderly close: no higher version was handed out until then.
    pub was_closed: bool,
    /// Files read.
    pub files: u64,
    /// Frames delivered.
    pub frames: u64,
    /// Records delivered.
    pub records: u64,
}

/// One file of an archive.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ArchivedFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// What it says about itself.
    pub header: FileHeader,
    /// Version of its first record, or the newest before it when it begins with a mark. `None` without a frame.
    pub first_version: Option<Version>,
    /// Nothing above this version comes before its first frame: it is enough for whoever has everything up to it.
    goes_on_after: Option<Version>,
}

impl ArchivedFile {
    /// Looks at a file; `None` when it has no header.
    pub(crate) fn look_at(disk: &dyn Disk, path: &Path) -> Result<Option<ArchivedFile>> {
        let found = look_at(disk, 0, path.to_owned())?;
        let Some(header) = found.header else {
            return Ok(None);
        };
        let file = disk.open_read_only(path).map_err(|source| Error::io("open", path, source))?;
        let mut bytes = [0; FRAME_HEADER_BYTES];
        read_up_to(&*file, &mut bytes, HEADER_BLOCK_BYTES).map_err(|source| Error::io("read", path, source))?;
        let first = FrameHeader::decode(&bytes).map(|(frame, _)| frame);
        let first = first.filter(|frame| frame.store_id == header.store_id && frame.position == header.start_position);
        let before = |frame: FrameHeader| match frame.records {
            0 => frame.first_version,
            _ => Version(frame.first_version.0.saturating_sub(1)),
        };
        let goes_on_after = if header.start_position == 0 { Some(Version::ZERO) } else { first.map(before) };
        let first_version = first.map(|frame| frame.first_version);
        Ok(Some(ArchivedFile { path: found.path, bytes: found.length, header, first_version, goes_on_after }))
    }
}

/// The files of one store, in the order of its log.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ArchiveLine {
    /// The store.
    pub store_id: StoreId,
    /// Its files, oldest first; at least one. Gaps and damage are found by a replay.
    pub files: Vec<ArchivedFile>,
}

/// What a replay is asked for.
#[derive(Clone, Copy, Debug)]
pub struct ReplayRequest {
    /// Whose log.
    pub store_id: StoreId,
    /// Where to begin.
    pub from: ReplayFrom,
    /// Where to end.
    pub upto: Limit,
}

/// An archive that is read. What it knows of its files is what was there when it was opened.
pub struct Archive {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    lines: Vec<ArchiveLine>,
    /// Files with the name of an archived file and no valid header.
    damaged: Vec<PathBuf>,
}

impl Archive {
    /// Reads the header and the first frame's header of every file in `directory`.
    ///
    /// # Errors
    /// `Io`, also when the directory is missing; `FormatTooNew`.
    pub fn open(disk: Arc<dyn Disk>, directory: &Path) -> Result<Archive> {
        let paths = disk.list(directory).map_err(|source| Error::io("list", directory, source))?;
        let (mut files, mut damaged) = (Vec::new(), Vec::new());
        for path in paths {
            if path.extension().is_none_or(|suffix| suffix != ARCHIVED_SUFFIX) {
                continue;
            }
            match ArchivedFile::look_at(&*disk, &path)? {
                Some(file) => files.push(file),
                None => damaged.push(path),
            }
        }
        files.sort_by_key(|file| (file.header.store_id, file.header.sequence));
        let mut lines: Vec<ArchiveLine> = Vec::new();
        for file in files {
            let store_id = StoreId(file.header.store_id);
            match lines.last_mut().filter(|line| line.store_id == store_id) {
                Some(line) => line.files.push(file),
                None => lines.push(ArchiveLine { store_id, files: vec![file] }),
            }
        }
        Ok(Archive { disk, directory: directory.to_owned(), lines, damaged })
    }

    /// The stores that it has files of, in the order of their identities.
    pub fn lines(&self) -> &[ArchiveLine] {
        &self.lines
    }

    /// The files of one store, if there are any.
    pub fn line(&self, store_id: StoreId) -> Option<&ArchiveLine> {
        self.lines.iter().find(|line| line.store_id == store_id)
    }

    /// Whether there are files of a store, also if only their names tell it.
    pub fn has_files_of(&self, store_id: StoreId) -> bool {
        self.line(store_id).is_some() || self.check_not_damaged(store_id, 0..u64::MAX).is_err()
    }

    /// Files of stores whose headers are damaged: what is in them cannot be told.
    pub fn files_with_damaged_headers(&self) -> impl Iterator<Item = &Path> {
        self.damaged.iter().map(PathBuf::as_path).filter(|path| place_in_name(path).is_some())
    }

    /// Hands the records from `from` to the limit to `deliver`, in order, as the frames they were written in; the first
    /// and the last frame may be a part of one. `progress` is called after every few megabytes. Every byte read is
    /// verified. After an error everything delivered was right, and it is not all that was asked for.
    ///
    /// # Errors
    /// [`ArchiveError`]; errors of `deliver` as they are, in `Store`.
    pub fn replay(
        &self,
        request: &ReplayRequest,
        deliver: &mut dyn FnMut(ReplayFrame) -> Result<()>,
        progress: &dyn Fn(Progress),
    ) -> std::result::Result<ReplayEnd, ArchiveError> {
        let ReplayRequest { store_id, from, upto } = *request;
        let limit = upto.version();
        if let Some(limit) = limit.filter(|limit| *limit < from.after) {
            return Err(ArchiveError::LimitTooEarly { limit, after: from.after });
        }
        let Some(line) = self.line(store_id) else {
            self.check_not_damaged(store_id, 0..u64::MAX)?;
            let found = self.lines.iter().map(|line| line.store_id).collect();
            return Err(ArchiveError::NoLine { directory: self.directory.clone(), store_id, found });
        };
        let files = self.files_from(line, from)?;
        let mut end = ReplayEnd { version: from.after, ..ReplayEnd::default() };
        let mut cut = |frame: ReplayFrame| {
            let Some(frame) = part_of(frame, from.after, limit)? else {
                return Ok(());
            };
            end.version = frame.last_version;
            end.frames += 1;
            end.records += u64::from(frame.record_count);
            deliver(frame)
        };
        let position = from.position.unwrap_or(0);
        let survey = Survey { files: files.iter().map(found).collect(), newest: None };
        let mut reader = Reader { disk: &*self.disk, survey: &survey, deliver: &mut cut, progress };
        let scan = self.read(&mut reader, files, position, Scan::upto(limit))?;
        end.files = scan.chain.len() as u64;
        end.limit_reached = scan.has_reached_limit() || end.version >= limit.unwrap_or(Version::MAX);
        end.written_until_ms = scan.wall_ms;
        end.position = scan.position;
        end.newest_version = scan.last_version;
        end.was_closed = scan.was_closed;
        Ok(end)
    }

    /// Where the archive ends for a store: its last file is read. Nothing but zeros for one it has no files of.
    ///
    /// # Errors
    /// [`ArchiveError`]: the last file is damaged or cannot be read.
    pub fn end_of_line(&self, store_id: StoreId) -> std::result::Result<ReplayEnd, ArchiveError> {
        let Some(last) = self.line(store_id).and_then(|line| line.files.last()) else {
            return Ok(ReplayEnd::default());
        };
        let from = ReplayFrom { position: Some(last.header.start_position), after: Version::ZERO };
        let request = ReplayRequest { store_id, from, upto: Limit::End };
        self.replay(&request, &mut |_| Ok(()), &|_| {})
    }

    /// The files of `line` from the one on that holds `from`.
    fn files_from<'a>(
        &self,
        line: &'a ArchiveLine,
        from: ReplayFrom,
    ) -> std::result::Result<&'a [ArchivedFile], ArchiveError> {
        let holds = |file: &ArchivedFile| match from.position {
            Some(position) => file.header.start_position <= position,
            None => file.goes_on_after.is_some_and(|version| version <= from.after),
        };
        if let Some(first) = line.files.iter().rposition(holds) {
            return Ok(line.files.get(first..).unwrap_or_default());
        }
        let oldest = line.files.first();
        let (sequence, path) = oldest.map(|file| (file.header.sequence, file.path.clone())).unwrap_or_default();
        self.check_not_damaged(line.store_id, 0..sequence)?;
        Err(ArchiveError::BeginsLater {
            path,
            begins_position: oldest.map_or(0, |file| file.header.start_position),
            begins_version: oldest.and_then(|file| file.first_version),
            asked: from,
        })
    }

    /// Reads `files` as one log, and delivers what does not stand before `position`.
    fn read(
        &self,
        reader: &mut Reader<'_>,
        files: &[ArchivedFile],
        position: u64,
        mut scan: Scan,
    ) -> std::result::Result<Scan, ArchiveError> {
        scan.expect(files.iter().map(|file| file.bytes).sum());
        if let Some(first) = files.first() {
            scan.begin(&first.header, position);
        }
        for (place, file) in files.iter().enumerate() {
            scan.chain.push(place);
            scan.read_file(reader, place, file.header)?;
            if scan.has_reached_limit() {
                break;
            }
            self.check_next(&scan, file, files.get(place + 1))?;
        }
        Ok(scan)
    }

    /// `file` was read to where the scan stands: is it complete, and does `next` go on there?
    fn check_next(
        &self,
        scan: &Scan,
        file: &ArchivedFile,
        next: Option<&ArchivedFile>,
    ) -> std::result::Result<(), ArchiveError> {
        let offset = HEADER_BLOCK_BYTES + (scan.position - file.header.start_position);
        let damage = |path: &Path, offset, what| Err(Error::Corrupt { path: path.to_owned(), offset, what }.into());
        if next.is_some_and(|next| next.header.sequence == file.header.sequence) {
            let path = next.map(|next| next.path.as_path()).unwrap_or(&file.path);
            return damage(path, 0, "it claims a place in the log that another archived file has");
        }
        if next.is_some_and(|next| scan.is_continued_by(&next.header)) {
            return Ok(());
        }
        if offset != file.bytes {
            return damage(&file.path, offset, "a frame is damaged or cut off");
        }
        let Some(next) = next else {
            // What stands behind it with a damaged header would be missed without a word.
            return Ok(self.check_not_damaged(StoreId(file.header.store_id), file.header.sequence + 1..u64::MAX)?);
        };
        if next.header.sequence == file.header.sequence + 1 {
            return damage(
                &next.path,
                0,
                "it does not go on where the archived file before it ends; one is of another past",
            );
        }
        let (first_missing, last_missing) = (file.header.sequence + 1, next.header.sequence - 1);
        self.check_not_damaged(StoreId(file.header.store_id), first_missing..next.header.sequence)?;
        Err(ArchiveError::Gap {
            before: file.path.clone(),
            offset,
            position: scan.position,
            after: scan.last_version,
            first_missing,
            last_missing,
            next: next.path.clone(),
        })
    }

    /// Some of the files at these places are missing: are they there, with a damaged header?
    fn check_not_damaged(&self, store_id: StoreId, places: std::ops::Range<u64>) -> Result<()> {
        let names = |path: &&PathBuf| {
            place_in_name(path).is_some_and(|(store, sequence)| store == store_id && places.contains(&sequence))
        };
        match self.damaged.iter().filter(names).min() {
            Some(path) => Err(Error::Corrupt { path: path.clone(), offset: 0, what: "the file header is damaged" }),
            None => Ok(()),
        }
    }
}

fn found(file: &ArchivedFile) -> FoundFile {
    FoundFile { path: file.path.clone(), number: 0, length: file.bytes, header: Some(file.header) }
}

/// Where the frames of a file end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileEnd {
    /// Position after the last frame.
    pub(crate) position: u64,
    /// Header crc of the last frame; it covers everything before.
    pub(crate) crc: u32,
    /// Whether nothing follows the last frame.
    pub(crate) is_whole: bool,
}

/// Reads the frames of `file` and says where they end.
pub(crate) fn end_of(disk: &dyn Disk, file: &ArchivedFile) -> Result<FileEnd> {
    let survey = Survey { files: vec![found(file)], newest: None };
    let mut scan = Scan::default();
    let (mut ignore, progress) = (|_: ReplayFrame| Ok(()), |_: Progress| {});
    scan.begin(&file.header, 0);
    let mut reader = Reader { disk, survey: &survey, deliver: &mut ignore, progress: &progress };
    scan.read_file(&mut reader, 0, file.header)?;
    let bytes = HEADER_BLOCK_BYTES + (scan.position - file.header.start_position);
    Ok(FileEnd { position: scan.position, crc: scan.previous_crc, is_whole: bytes == file.bytes })
}

/// The records of `frame` above `after` and within `limit`, as a frame; `None` when there are none.
fn part_of(frame: ReplayFrame, after: Version, limit: Option<Version>) -> Result<Option<ReplayFrame>> {
    let limit = limit.unwrap_or(Version::MAX);
    if frame.first_version > after && frame.last_version <= limit {
        return Ok(Some(frame));
    }
    let mut part: Option<ReplayFrame> = None;
    for record in frame.records() {
        let record = record?;
        if record.version <= after || record.version > limit {
            continue;
        }
        let part = part.get_or_insert_with(|| ReplayFrame {
            payload: Vec::new(),
            first_version: record.version,
            last_version: record.version,
            position: frame.position,
            record_count: 0,
            path: Arc::clone(&frame.path),
            file_offset: frame.file_offset,
        });
        let bytes = u32::try_from(record.effects.len()).unwrap_or_else(|_| panic!("a frame is below 4 GiB"));
        encode_record_header(&mut part.payload, record.version.0 - part.first_version.0, bytes);
        part.payload.extend_from_slice(record.effects);
        part.last_version = record.version;
        part.record_count += 1;
    }
    Ok(part)
}
