//! Reads the log from the position where it begins to matter to its end, and tells a torn tail from damage. Reads only.
//!
//! ```text
//!   file 7                    file 8                          file 9 (spare or torn start)
//!   | frame | frame | frame | | frame | frame | ?  ...      | | ...
//!                             chain --------->  P = the first byte that is no valid next frame
//! ```
//!
//! A frame is the next one when its crcs are right, it stands at its own position, repeats its predecessor's crc, is of
//! this store and of no earlier epoch. The next file is the one whose header says the same of itself.
//!
//! The first invalid frame ends the log. It was never acknowledged, unless something proves that the bytes at P were
//! durable once. Proof is a *witness*: a frame header or file header of this store, of no earlier epoch, that was
//! written when bytes beyond P were known to be synced. Frame headers are looked for by their magic at every offset
//! after P and in all files without a header, so that a rotten length or file header hides nothing. A witness need not
//! have a whole payload.
//!
//! A log that was closed in order says so in its file header (`format`): nothing was ever written behind its closing mark.
//! Where that mark is there, only what stands right behind it is looked at, in case the header is one from before; and
//! when it is opened, reading begins at the frame from which replay begins: every frame repeats its predecessor's crc, so
//! the closing mark proves those before it. What stands before them is never used; it is not looked at, unless it is yet to be
//! archived.
//!
//! Values hold whatever a client likes, also frames. So a witness must stand where its position says, and what lies
//! inside a torn frame whose header is the next one is not looked at. Only who knows the store's identity, which no
//! client is told, could forge one; it would make the log refuse to open, never lose anything.
//!
//! Not here: repairing the tail (`recovery`).

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::format::{
    FLAG_CLOSED, FRAME_HEADER_BYTES, FRAME_MAGIC, FileHeader, FrameHeader, HEADER_BLOCK_BYTES, REPLAY_FROM_OFFSET,
};
use super::survey::{FoundFile, Survey, read_up_to};
use super::{Progress, ReplayFrame};
use crate::disk::{Disk, DiskFile};
use crate::error::{Error, Result};
use crate::version::Version;

/// Bytes read at once.
const CHUNK_BYTES: u64 = 4 * 1024 * 1024;
/// Bytes read at once in the search for witnesses: they stay in the processor's cache until they are looked at.
const SEARCH_BYTES: u64 = 1024 * 1024;
/// How far behind a closing mark a witness is looked for.
const SEARCH_CLOSED_BYTES: u64 = 1024 * 1024;
/// Bytes before a closing mark that are read before any of them is replayed.
const CLOSED_TAIL_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// A rest of a payload of this size or more is read into its place without a detour.
const DIRECT_BYTES: usize = 1024 * 1024;

/// What the reader of a log is given.
pub(crate) struct Reader<'a> {
    pub(crate) disk: &'a dyn Disk,
    pub(crate) survey: &'a Survey,
    pub(crate) deliver: &'a mut dyn FnMut(ReplayFrame) -> Result<()>,
    pub(crate) progress: &'a dyn Fn(Progress),
}

/// What has been read so far; after success, the whole log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scan {
    /// Places in the survey of the files that matter, oldest first.
    pub(crate) chain: Vec<usize>,
    /// Where the next frame would begin.
    pub(crate) position: u64,
    /// Header crc of the last frame.
    pub(crate) previous_crc: u32,
    /// Epoch of the last frame.
    pub(crate) epoch: u64,
    /// The highest epoch seen anywhere.
    pub(crate) epoch_max: u64,
    pub(crate) last_version: Version,
    /// Version limit of the last frame.
    pub(crate) version_limit: Version,
    /// Everything before this position was durable.
    pub(crate) witnessed: u64,
    pub(crate) was_closed: bool,
    pub(crate) frames: u64,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) torn_bytes: u64,
    /// Wall clock of the last frame, milliseconds since the Unix epoch.
    pub(crate) wall_ms: u64,
    /// Nothing is read that is newer than this version, if it is given.
    limit: Option<Version>,
    /// A frame beyond the limit was seen.
    limit_passed: bool,
    replay_from: u64,
    /// The newest file header says that everything before this position was durable.
    proven: u64,
    bytes_done: u64,
    bytes_total: u64,
}

impl Scan {
    /// A scan that reads nothing newer than `limit`.
    pub(crate) fn upto(limit: Option<Version>) -> Scan {
        Scan { limit, ..Scan::default() }
    }

    /// Reads what a start needs of the log whose newest file is at `newest` in the survey: where it was closed in order,
    /// only the frames from which replay begins. Reads like [`Scan::run`] otherwise.
    ///
    /// # Errors
    /// As [`Scan::run`].
    pub(crate) fn run_to_open(&mut self, reader: &mut Reader<'_>, newest: (usize, FileHeader)) -> Result<()> {
        let Some((closed, frames)) = read_closed(reader, newest)? else {
            return self.run(reader, newest);
        };
        *self = closed;
        self.check_end(reader)?;
        frames.into_iter().try_for_each(|frame| (reader.deliver)(frame))
    }

    /// Reads the log whose newest file is at `newest` in the survey.
    ///
    /// # Errors
    /// `Corrupt` for damage; what was read before it stands in `self`.
    pub(crate) fn run(&mut self, reader: &mut Reader<'_>, (newest, header): (usize, FileHeader)) -> Result<()> {
        self.expect_proven(reader.survey, &header);
        let first = self.first_file(reader.survey, newest)?;
        self.bytes_total = header.start_position.saturating_sub(first.1.start_position)
            + reader.survey.files.get(newest).map_or(0, FoundFile::capacity);
        let mut next = Some(first);
        while let Some((place, header)) = next {
            self.chain.push(place);
            self.read_file(reader, place, header)?;
            next = self.successor(reader.survey, header);
        }
        self.check_end(reader)
    }

    /// What the newest file header proves.
    fn expect_proven(&mut self, survey: &Survey, newest: &FileHeader) {
        self.replay_from = newest.replay_from;
        // Going on before the position where replay begins would put frames where the next start does not look for them.
        self.proven = newest.durable_position.max(newest.replay_from);
        self.witnessed = self.proven;
        self.epoch_max = survey.files.iter().filter_map(|file| Some(file.header?.epoch)).max().unwrap_or(0);
    }

    /// Whether the log ends with the closing mark that the newest file header, `newest`, tells of.
    fn is_closed(&self, newest: &FileHeader) -> bool {
        let mark_bytes = FRAME_HEADER_BYTES as u64;
        newest.is_closed && self.was_closed && self.position.checked_sub(mark_bytes) == Some(newest.durable_position)
    }

    /// The file that holds what is right before the position where replay begins.
    fn first_file(&mut self, survey: &Survey, newest: usize) -> Result<(usize, FileHeader)> {
        let headers = survey.files.iter().enumerate().filter_map(|(place, file)| Some((place, file.header?)));
        let first = headers
            .filter(|(_, header)| header.start_position < self.replay_from || header.start_position == 0)
            .max_by_key(|(_, header)| header.sequence);
        let Some((place, header)) = first else {
            return Err(corrupt(survey, newest, REPLAY_FROM_OFFSET, "the file that the log begins in is missing"));
        };
        self.begin(&header, self.replay_from);
        Ok((place, header))
    }

    /// The next file to be read is the one with `header`; what stands before `replay_from` is not delivered.
    pub(crate) fn begin(&mut self, header: &FileHeader, replay_from: u64) {
        self.position = header.start_position;
        self.previous_crc = header.previous_crc;
        self.epoch = 0;
        self.replay_from = replay_from;
    }

    /// There are `bytes` to read, for the progress.
    pub(crate) fn expect(&mut self, bytes: u64) {
        self.bytes_total = bytes;
    }

    /// Whether the file with header `next` goes on where the last frame ended.
    pub(crate) fn is_continued_by(&self, next: &FileHeader) -> bool {
        next.start_position == self.position && next.previous_crc == self.previous_crc && next.epoch >= self.epoch
    }

    /// The file that goes on where the present one, with `header`, ended.
    pub(super) fn successor(&self, survey: &Survey, header: FileHeader) -> Option<(usize, FileHeader)> {
        let headers = survey.files.iter().enumerate().filter_map(|(place, file)| Some((place, file.header?)));
        headers.filter(|(_, next)| next.sequence > header.sequence).find(|(_, next)| self.is_continued_by(next))
    }

    /// Reads the frames of a file as far as each is the next one, or to the limit.
    pub(crate) fn read_file(&mut self, reader: &mut Reader<'_>, place: usize, header: FileHeader) -> Result<()> {
        self.epoch = self.epoch.max(header.epoch);
        self.witnessed = self.witnessed.max(header.start_position);
        self.read_frames(reader, place, header, HEADER_BLOCK_BYTES)
    }

    /// As [`Scan::read_file`], from `offset` in the file on.
    pub(super) fn read_frames(
        &mut self,
        reader: &mut Reader<'_>,
        place: usize,
        header: FileHeader,
        offset: u64,
    ) -> Result<()> {
        let Some(found) = reader.survey.files.get(place) else {
            return Ok(());
        };
        self.read_chunks(reader, &mut Chunks::open(reader.disk, found, CHUNK_BYTES)?, header, offset)
    }

    fn read_chunks(
        &mut self,
        reader: &mut Reader<'_>,
        chunks: &mut Chunks<'_>,
        header: FileHeader,
        mut offset: u64,
    ) -> Result<()> {
        while let Some((frame, crc)) = self.next_header(chunks, offset, &header)? {
            if self.is_beyond_limit(&frame) {
                return Ok(());
            }
            let bytes = frame.frame_bytes();
            let payload_at = offset + FRAME_HEADER_BYTES as u64;
            let Some(payload) = chunks.payload(payload_at, frame.payload_bytes as usize)? else {
                return Ok(());
            };
            if crc32c::crc32c(&payload) != frame.payload_crc {
                return Ok(());
            }
            self.accept(reader, chunks.found, offset, (frame, crc), payload)?;
            self.report(reader, bytes);
            offset += bytes;
        }
        Ok(())
    }

    /// `next` goes on behind a frame that is lost and had no records.
    pub(super) fn pass_over_mark(&mut self, next: &FrameHeader) {
        (self.position, self.previous_crc) = (next.position, next.previous_crc);
    }

    /// Whether everything up to the limit was read.
    pub(crate) fn has_reached_limit(&self) -> bool {
        self.limit_passed || self.limit.is_some_and(|limit| self.last_version >= limit)
    }

    /// Whether `frame`, the next one, has only records beyond the limit, or everything up to the limit came before it.
    fn is_beyond_limit(&mut self, frame: &FrameHeader) -> bool {
        let newer = |limit: Version| frame.records > 0 && frame.first_version > limit;
        self.limit_passed = self.limit_passed || self.limit.is_some_and(newer);
        self.has_reached_limit()
    }

    /// The header at `offset` if it is that of the next frame.
    fn next_header(&self, chunks: &mut Chunks, offset: u64, file: &FileHeader) -> Result<Option<(FrameHeader, u32)>> {
        let Some(bytes) = chunks.get(offset, FRAME_HEADER_BYTES)? else {
            return Ok(None);
        };
        let next = FrameHeader::decode(bytes).filter(|(frame, _)| {
            frame.store_id == file.store_id
                && frame.position == self.position
                && frame.previous_crc == self.previous_crc
                && frame.epoch >= self.epoch
                && frame.durable_position <= frame.position
                && frame.position.checked_add(frame.frame_bytes()).is_some()
        });
        Ok(next)
    }

    fn accept(
        &mut self,
        reader: &mut Reader<'_>,
        file: &FoundFile,
        offset: u64,
        (frame, crc): (FrameHeader, u32),
        payload: Vec<u8>,
    ) -> Result<()> {
        let rises = if frame.records == 0 {
            frame.first_version == frame.last_version && frame.last_version >= self.last_version && payload.is_empty()
        } else {
            frame.first_version > self.last_version && frame.last_version >= frame.first_version
        };
        if !rises {
            let what = "a frame with right checksums has versions that do not rise";
            return Err(Error::Corrupt { path: file.path.clone(), offset, what });
        }
        let position = self.position;
        self.position += frame.frame_bytes();
        self.previous_crc = crc;
        self.epoch = frame.epoch;
        self.epoch_max = self.epoch_max.max(frame.epoch);
        self.last_version = frame.last_version;
        self.version_limit = frame.version_limit;
        self.wall_ms = frame.wall_ms;
        self.witnessed = self.witnessed.max(frame.durable_position);
        self.was_closed = frame.flags & FLAG_CLOSED != 0;
        self.frames += 1;
        self.bytes += frame.frame_bytes();
        if frame.records == 0 || position < self.replay_from {
            return Ok(());
        }
        self.records += u64::from(frame.records);
        (reader.deliver)(ReplayFrame {
            payload,
            first_version: frame.first_version,
            last_version: frame.last_version,
            position,
            record_count: frame.records,
            path: Arc::from(file.path.as_path()),
            file_offset: offset,
        })
    }

    fn report(&mut self, reader: &Reader<'_>, bytes: u64) {
        let before = self.bytes_done / CHUNK_BYTES;
        self.bytes_done += bytes;
        if self.bytes_done / CHUNK_BYTES != before {
            let bytes_total = self.bytes_total.max(self.bytes_done);
            (reader.progress)(Progress { bytes_done: self.bytes_done, bytes_total });
        }
    }

    /// Bytes of the frame at the end of the log, if its header is there and only its payload is torn.
    fn torn_frame_bytes(&self, reader: &Reader<'_>, last: usize, (at, file): (u64, &FileHeader)) -> Result<u64> {
        let Some(found) = reader.survey.files.get(last) else {
            return Ok(0);
        };
        let next = self.next_header(&mut Chunks::open(reader.disk, found, FRAME_HEADER_BYTES as u64)?, at, file)?;
        let fits = |bytes: &u64| at.saturating_add(*bytes) <= found.length;
        Ok(next.map(|(frame, _)| frame.frame_bytes()).filter(fits).unwrap_or(0))
    }

    /// The log ends at `self.position`: is it damage?
    fn check_end(&mut self, reader: &Reader<'_>) -> Result<()> {
        let survey = reader.survey;
        let (Some(&first), Some(&last)) = (self.chain.first(), self.chain.last()) else {
            return Ok(());
        };
        let header_of = |place: usize| survey.files.get(place).and_then(|file| file.header);
        let (Some(first), Some(active)) = (header_of(first), header_of(last)) else {
            return Ok(());
        };
        let end_offset = HEADER_BLOCK_BYTES + (self.position - active.start_position);
        if self.position < self.proven {
            let what = "a frame is damaged or missing; the newest file header proves it";
            return Err(corrupt(survey, last, end_offset, what));
        }
        for (place, file) in survey.files.iter().enumerate() {
            let Some(header) = file.header.filter(|_| !self.chain.contains(&place)) else {
                continue;
            };
            if header.sequence >= first.sequence {
                // Its header was written after everything before it was durable.
                return Err(if header.start_position > self.position {
                    corrupt(survey, last, end_offset, "a frame is damaged or missing; a later log file proves it")
                } else {
                    corrupt(survey, place, 0, "it claims a place in the log that another file has")
                });
            }
        }
        if self.find_witness(reader, last, (end_offset, &active))? {
            let what = "a frame is damaged that was durable; a later frame proves it";
            return Err(corrupt(survey, last, end_offset, what));
        }
        Ok(())
    }

    /// Looks for a witness behind the end of the log, which stands at `end_offset` of the file at `last`. Notes what of a
    /// torn tail it sees.
    fn find_witness(
        &mut self,
        reader: &Reader<'_>,
        last: usize,
        (end_offset, active): (u64, &FileHeader),
    ) -> Result<bool> {
        let is_closed = self.is_closed(active);
        let torn_bytes = self.torn_frame_bytes(reader, last, (end_offset, active))?;
        let from = end_offset + torn_bytes;
        let torn_end = self.position + torn_bytes;
        let chain = self.chain.clone();
        let mut witness = Search { scan: self, store_id: active.store_id, found: false, torn_end };
        for (place, file) in reader.survey.files.iter().enumerate() {
            if place == last {
                let to = if is_closed { from.saturating_add(SEARCH_CLOSED_BYTES) } else { u64::MAX };
                witness.look_through(reader.disk, file, from..to, Some(active.start_position))?;
            } else if !is_closed && !chain.contains(&place) {
                // Also where an older header stands: the newest one may be lost.
                witness.look_through(reader.disk, file, 0..u64::MAX, None)?;
            }
        }
        let Search { found, torn_end, .. } = witness;
        self.torn_bytes = torn_end - self.position;
        Ok(found)
    }
}

/// Reads a log that was closed in order, from the frame from which replay begins; returns the frames to be replayed.
/// `None` where it was not, or that frame is not in the newest file, or much follows it.
fn read_closed(reader: &Reader<'_>, (newest, header): (usize, FileHeader)) -> Result<Option<(Scan, Vec<ReplayFrame>)>> {
    let tail = header.durable_position.checked_sub(header.replay_from).filter(|bytes| *bytes <= CLOSED_TAIL_BYTES_MAX);
    // Where replay begins with the file, the one before it matters too.
    let before = header.replay_from.checked_sub(header.start_position).filter(|bytes| *bytes > 0);
    let (true, Some(tail), Some(before)) = (header.is_closed, tail, before) else {
        return Ok(None);
    };
    let Some(found) = reader.survey.files.get(newest) else {
        return Ok(None);
    };
    let offset = HEADER_BLOCK_BYTES + before;
    // With the closing mark, and the place of one that might follow it.
    let mut chunks = Chunks::open(reader.disk, found, tail + 2 * FRAME_HEADER_BYTES as u64)?;
    let Some((first, _)) = chunks.get(offset, FRAME_HEADER_BYTES)?.and_then(FrameHeader::decode) else {
        return Ok(None);
    };
    let mut scan = Scan { chain: vec![newest], ..Scan::default() };
    scan.expect_proven(reader.survey, &header);
    (scan.position, scan.previous_crc) = (header.replay_from, first.previous_crc);
    scan.epoch = header.epoch;
    let mut frames = Vec::new();
    let mut keep = |frame| {
        frames.push(frame);
        Ok(())
    };
    let mut keeping =
        Reader { disk: reader.disk, survey: reader.survey, deliver: &mut keep, progress: reader.progress };
    scan.read_chunks(&mut keeping, &mut chunks, header, offset)?;
    Ok(scan.is_closed(&header).then_some((scan, frames)))
}

/// Where a file whose frame at `offset` has `position` must start.
pub(super) fn implied_start(offset: u64, position: u64) -> Option<u64> {
    position.checked_sub(offset.checked_sub(HEADER_BLOCK_BYTES)?)
}

fn corrupt(survey: &Survey, place: usize, offset: u64, what: &'static str) -> Error {
    let path = survey.files.get(place).map(|file| file.path.clone()).unwrap_or_default();
    Error::Corrupt { path, offset, what }
}

/// The search for a witness behind the end of the log.
struct Search<'a> {
    scan: &'a mut Scan,
    store_id: [u8; 16],
    found: bool,
    /// End of the last frame that had begun to be written.
    torn_end: u64,
}

impl Search<'_> {
    /// Looks at what stands in a part of `file`; `start` is the file's start position where it is known.
    fn look_through(&mut self, disk: &dyn Disk, file: &FoundFile, part: Range<u64>, start: Option<u64>) -> Result<()> {
        for_each_frame_header(disk, file, part, &mut |offset, frame| {
            let end = frame.position.checked_add(frame.frame_bytes());
            let (Some(end), Some(implied)) = (end, implied_start(offset, frame.position)) else {
                return;
            };
            // A file whose header is lost begins where the log ends, or later.
            let stands_there = start.map_or(implied >= self.scan.position, |start| implied == start);
            if !stands_there
                || frame.store_id != self.store_id
                || frame.position < self.scan.position
                || frame.epoch < self.scan.epoch
                || frame.durable_position > frame.position
            {
                return;
            }
            self.scan.epoch_max = self.scan.epoch_max.max(frame.epoch);
            self.found |= frame.durable_position > self.scan.position;
            self.torn_end = self.torn_end.max(end);
        })
    }
}

/// Looks for proof that files of which none has a valid header were a log once. Returns the highest epoch seen.
pub(crate) fn check_headerless(disk: &dyn Disk, survey: &Survey) -> Result<u64> {
    let mut epoch = 0;
    for (place, file) in survey.files.iter().enumerate() {
        let mut was_log = false;
        for_each_frame_header(disk, file, 0..u64::MAX, &mut |_, frame| {
            epoch = epoch.max(frame.epoch);
            was_log |= frame.durable_position > 0;
        })?;
        if was_log {
            return Err(corrupt(survey, place, 0, "the file header is damaged, but frames of a log follow it"));
        }
    }
    Ok(epoch)
}

/// Calls `each` with every valid frame header that begins anywhere in a part of `file`, and where it stands.
pub(super) fn for_each_frame_header(
    disk: &dyn Disk,
    file: &FoundFile,
    part: Range<u64>,
    each: &mut dyn FnMut(u64, &FrameHeader),
) -> Result<()> {
    let mut chunks = Chunks::open(disk, file, SEARCH_BYTES)?;
    let magic = memchr::memmem::Finder::new(&FRAME_MAGIC);
    let mut from = part.start;
    while from < part.end
        && let Some(bytes) = chunks.rest_from(from)?
    {
        for found in magic.find_iter(bytes).take_while(|found| from + (*found as u64) < part.end) {
            if let Some((frame, _)) = bytes.get(found..).and_then(FrameHeader::decode) {
                each(from + found as u64, &frame);
            }
        }
        // The next chunk begins so that a header cut by the end of this one is whole in it.
        from += (bytes.len() - (FRAME_HEADER_BYTES - 1)) as u64;
    }
    Ok(())
}

/// A file read in large pieces.
struct Chunks<'a> {
    file: Box<dyn DiskFile>,
    found: &'a FoundFile,
    /// Bytes of a whole chunk.
    chunk_bytes: u64,
    chunk: Vec<u8>,
    /// Where in the file the chunk begins.
    offset: u64,
}

impl<'a> Chunks<'a> {
    fn open(disk: &dyn Disk, found: &'a FoundFile, chunk_bytes: u64) -> Result<Chunks<'a>> {
        let file = disk.open_read_only(&found.path).map_err(|source| Error::io("open", &found.path, source))?;
        Ok(Chunks { file, found, chunk_bytes, chunk: Vec::new(), offset: 0 })
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::io("read", &self.found.path, source)
    }

    /// What the chunk holds of `bytes` from `offset` on.
    fn held(&self, offset: u64, bytes: usize) -> &[u8] {
        let from = offset.checked_sub(self.offset).and_then(|from| usize::try_from(from).ok());
        let rest = from.and_then(|from| self.chunk.get(from..)).unwrap_or_default();
        rest.get(..bytes).unwrap_or(rest)
    }

    /// Reads the chunk that begins at `offset`.
    fn load(&mut self, offset: u64) -> Result<()> {
        let bytes = self.chunk_bytes.min(self.found.length.saturating_sub(offset)) as usize;
        self.chunk.resize(bytes, 0);
        self.offset = offset;
        let read = read_up_to(&*self.file, &mut self.chunk, offset).map_err(|source| self.failed(source))?;
        self.chunk.truncate(read);
        Ok(())
    }

    /// `bytes` (at most a whole chunk) from `offset` on; `None` when the file ends before that.
    fn get(&mut self, offset: u64, bytes: usize) -> Result<Option<&[u8]>> {
        if self.held(offset, bytes).len() < bytes {
            self.load(offset)?;
        }
        let held = self.held(offset, bytes);
        Ok((held.len() == bytes).then_some(held))
    }

    /// A chunk from `offset` on; `None` when no frame header fits there any more.
    fn rest_from(&mut self, offset: u64) -> Result<Option<&[u8]>> {
        self.load(offset)?;
        Ok((self.chunk.len() >= FRAME_HEADER_BYTES).then_some(&self.chunk[..]))
    }

    /// A copy of `bytes` from `offset` on; `None` when the file ends before that.
    fn payload(&mut self, offset: u64, bytes: usize) -> Result<Option<Vec<u8>>> {
        // Nothing is allocated for a length that the file does not have.
        if offset.saturating_add(bytes as u64) > self.found.length {
            return Ok(None);
        }
        let mut payload = Vec::with_capacity(bytes);
        payload.extend_from_slice(self.held(offset, bytes));
        let at = offset + payload.len() as u64;
        let missing = bytes - payload.len();
        if missing >= DIRECT_BYTES {
            let held = payload.len();
            payload.resize(bytes, 0);
            let rest = payload.get_mut(held..).unwrap_or_default();
            let read = read_up_to(&*self.file, rest, at).map_err(|source| self.failed(source))?;
            return Ok((read == missing).then_some(payload));
        }
        if missing > 0 {
            let Some(rest) = self.get(at, missing)? else {
                return Ok(None);
            };
            payload.extend_from_slice(rest);
        }
        Ok(Some(payload))
    }
}
