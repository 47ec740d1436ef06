//! Where appended records wait for the writer: frames being filled, their bytes in pieces that are written as they are.
//!
//! ```text
//!  frame = | room for the header, records ... | big effects | records ... |      one write for the first piece (nearly
//!            first piece, at most 256 KiB       own piece     next piece         always the only one), one for each other
//! ```
//!
//! Chunks among the effects are pieces as they are, shared with the entry that has them. So nothing long is copied here, or
//! freed, while others wait for the mutex.
//!
//! A version and its place are one step under the mutex around this buffer: what the writer takes has every place filled.
//! Not here: room (`room`), headers (`format`).

use std::mem;
use std::time::Duration;

use super::format::FRAME_HEADER_BYTES;
use super::record::{RECORD_HEADER_BYTES_MAX, encode_record_header};
use super::room::RECORD_ROOM_BYTES;
use crate::effect::Effects;
use crate::version::Version;
use bowline_resp::Chunks;

/// Effects of this size or more are not copied: the caller's bytes become a piece of their own.
const BIG_EFFECT_BYTES: usize = 64 * 1024;
/// A piece of small records is not made larger than this, so that growing it never copies much under the mutex.
const PIECE_BYTES: usize = 256 * 1024;
/// Empty pieces kept for later frames.
const POOLED_PIECES_MAX: usize = 16;
/// A frame takes no further record at this size: its length is kept in 32 bits.
const FRAME_BYTES_MAX: usize = 1 << 31;

/// A frame that is being filled or waits to be written.
#[derive(Debug)]
pub(crate) struct PendingFrame {
    pub(crate) first_version: Version,
    pub(crate) last_version: Version,
    pub(crate) records: u32,
    /// Nothing before this frame's first record matters.
    pub(crate) reset: bool,
    /// The first one begins with room for the frame header.
    pub(crate) pieces: Vec<Piece>,
    pub(crate) payload_bytes: usize,
    /// What the records count for in `Room`.
    pub(crate) room_bytes: u64,
    /// Monotonic time of the first record.
    pub(crate) first_append_at: Duration,
    /// Whether the last piece takes further small records.
    last_is_open: bool,
}

/// Bytes of a frame.
#[derive(Debug)]
pub(crate) enum Piece {
    Bytes(Vec<u8>),
    Chunks(Chunks),
}

impl Piece {
    fn len(&self) -> usize {
        match self {
            Piece::Bytes(bytes) => bytes.len(),
            Piece::Chunks(chunks) => chunks.len(),
        }
    }

    /// Memory that is the log's own, bytes: chunks are an entry's too.
    pub(crate) fn memory_bytes(&self) -> usize {
        match self {
            Piece::Bytes(bytes) => bytes.capacity(),
            Piece::Chunks(chunks) => chunks.list_bytes(),
        }
    }

    /// Whether it is kept for later frames when it was written.
    pub(crate) fn is_used_again(&self) -> bool {
        matches!(self, Piece::Bytes(bytes) if bytes.capacity() <= 2 * PIECE_BYTES)
    }

    /// The bytes, in order.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let (bytes, chunks) = match self {
            Piece::Bytes(bytes) => (Some(bytes.as_slice()), None),
            Piece::Chunks(chunks) => (None, Some(chunks)),
        };
        bytes.into_iter().chain(chunks.into_iter().flat_map(Chunks::iter))
    }
}

/// The frames that wait to be written, the last of them being filled.
#[derive(Debug)]
pub(crate) struct Buffer {
    last_version: Version,
    frames: Vec<PendingFrame>,
    pool: Vec<Vec<u8>>,
    bytes: usize,
}

impl Buffer {
    pub(crate) fn new(last_version: Version) -> Buffer {
        Buffer { last_version, frames: Vec::new(), pool: Vec::new(), bytes: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Adds a record and leaves `effects` empty. `at` is asked for the time when a frame begins.
    pub(crate) fn append(
        &mut self,
        now_ms: u64,
        effects: &mut Vec<u8>,
        reset: bool,
        at: impl FnOnce() -> Duration,
    ) -> Version {
        let copied = if effects.len() < BIG_EFFECT_BYTES { effects.len() } else { 0 };
        let (version, frame) = self.begin_record(now_ms, effects.len(), copied, reset, at);
        if copied > 0 || effects.is_empty() {
            frame.add_bytes(effects);
            effects.clear();
        } else {
            frame.pieces.push(Piece::Bytes(mem::take(effects)));
            frame.last_is_open = false;
        }
        version
    }

    /// As [`Buffer::append`], for effects with chunks among them.
    pub(crate) fn append_chunked(
        &mut self,
        now_ms: u64,
        effects: &mut Effects,
        reset: bool,
        at: impl FnOnce() -> Duration,
    ) -> Version {
        let (version, frame) = self.begin_record(now_ms, effects.len(), 0, reset, at);
        let (before, last) = effects.take();
        for (bytes, chunks) in before {
            frame.pieces.extend([Piece::Bytes(bytes), Piece::Chunks(chunks)]);
        }
        frame.pieces.push(Piece::Bytes(last));
        frame.last_is_open = false;
        version
    }

    /// Begins a record of `effect_bytes`, of which `copied` go to the open piece; returns its version and its frame.
    fn begin_record(
        &mut self,
        now_ms: u64,
        effect_bytes: usize,
        copied: usize,
        reset: bool,
        at: impl FnOnce() -> Duration,
    ) -> (Version, &mut PendingFrame) {
        let version = self.last_version.next(now_ms);
        self.last_version = version;
        let needed = effect_bytes + RECORD_HEADER_BYTES_MAX;
        let fits = |frame: &PendingFrame| frame.payload_bytes + needed <= FRAME_BYTES_MAX;
        if reset || !self.frames.last().is_some_and(fits) {
            self.begin_frame(version, reset, at());
        }
        let Some(frame) = self.frames.last_mut() else {
            unreachable!("a frame was begun");
        };
        let copied = copied + RECORD_HEADER_BYTES_MAX;
        if !frame.last_is_open || frame.pieces.last().is_none_or(|piece| piece.len() + copied > PIECE_BYTES) {
            frame.pieces.push(Piece::Bytes(self.pool.pop().unwrap_or_default()));
            frame.last_is_open = true;
        }
        self.bytes += frame.begin_record(version, effect_bytes);
        (version, frame)
    }

    fn begin_frame(&mut self, first_version: Version, reset: bool, first_append_at: Duration) {
        let mut piece = self.pool.pop().unwrap_or_default();
        piece.resize(FRAME_HEADER_BYTES, 0);
        self.frames.push(PendingFrame {
            first_version,
            last_version: first_version,
            records: 0,
            reset,
            pieces: vec![Piece::Bytes(piece)],
            payload_bytes: 0,
            room_bytes: 0,
            first_append_at,
            last_is_open: true,
        });
    }

    /// Hands over everything that waits, and takes back pieces that were written.
    pub(crate) fn take(&mut self, written: &mut Vec<Piece>) -> Vec<PendingFrame> {
        for piece in written.drain(..) {
            let is_used_again = self.pool.len() < POOLED_PIECES_MAX && piece.is_used_again();
            if let Piece::Bytes(mut bytes) = piece
                && is_used_again
            {
                bytes.clear();
                self.pool.push(bytes);
            }
        }
        self.bytes = 0;
        mem::take(&mut self.frames)
    }

    /// Memory of the pieces that are filled, wait or are kept for later, bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.pool.iter().map(Vec::capacity).sum::<usize>() + memory_of(&self.frames)
    }

    /// Gives up what a burst has left, but for one piece: to be dropped without the mutex.
    pub(crate) fn take_spare_pieces(&mut self) -> Vec<Vec<u8>> {
        self.pool.split_off(self.pool.len().min(1))
    }

    /// Payload bytes that wait, and since when.
    pub(crate) fn waiting(&self) -> Option<(usize, Duration)> {
        self.frames.first().map(|frame| (self.bytes, frame.first_append_at))
    }
}

/// Memory of the pieces of frames, bytes.
pub(crate) fn memory_of(frames: &[PendingFrame]) -> usize {
    frames.iter().flat_map(|frame| &frame.pieces).map(Piece::memory_bytes).sum()
}

impl PendingFrame {
    /// Begins a record; returns by how much the payload grows.
    fn begin_record(&mut self, version: Version, effect_bytes: usize) -> usize {
        let Ok(effects) = u32::try_from(effect_bytes) else {
            panic!("{effect_bytes} bytes of effects in one record: limits::RECORD_BYTES_MAX is below that")
        };
        let first_version = self.first_version.0;
        let piece = self.open_piece();
        let before = piece.len();
        encode_record_header(piece, version.0 - first_version, effects);
        let added = piece.len() - before + effect_bytes;
        self.payload_bytes += added;
        self.room_bytes += (effect_bytes + RECORD_ROOM_BYTES) as u64;
        self.last_version = version;
        self.records += 1;
        added
    }

    fn add_bytes(&mut self, effects: &[u8]) {
        self.open_piece().extend_from_slice(effects);
    }

    fn open_piece(&mut self) -> &mut Vec<u8> {
        match self.pieces.last_mut() {
            Some(Piece::Bytes(piece)) => piece,
            Some(Piece::Chunks(_)) | None => unreachable!("a record begins in an open piece"),
        }
    }

    /// Where the header goes.
    pub(crate) fn header_space(&mut self) -> Option<&mut [u8; FRAME_HEADER_BYTES]> {
        match self.pieces.first_mut() {
            Some(Piece::Bytes(piece)) => piece.first_chunk_mut(),
            Some(Piece::Chunks(_)) | None => None,
        }
    }

    /// CRC-32C of the payload.
    pub(crate) fn payload_crc(&self) -> u32 {
        let mut crc = 0;
        let mut header = FRAME_HEADER_BYTES;
        for part in self.pieces.iter().flat_map(Piece::parts) {
            let (_, payload) = part.split_at(mem::take(&mut header));
            crc = crc32c::crc32c_append(crc, payload);
        }
        crc
    }

    /// Bytes of the frame in the file.
    pub(crate) fn frame_bytes(&self) -> u64 {
        (FRAME_HEADER_BYTES + self.payload_bytes) as u64
    }
}
