//! Where appended records wait for the writer: frames being filled, their bytes in pieces that are written as they are.
//!
//! ```text
//!  frame = | room for the header, records ... | big effects | records ... |      one write for the first piece (nearly
//!            first piece, at most 256 KiB       own piece     next piece         always the only one), one for each other
//! ```
//!
//! A version and its place are one step under the mutex around this buffer: what the writer takes has every place filled.
//! Not here: room (`room`), headers (`format`).

use std::mem;
use std::time::Duration;

use super::format::FRAME_HEADER_BYTES;
use super::record::{RECORD_HEADER_BYTES_MAX, encode_record_header};
use super::room::RECORD_ROOM_BYTES;
use crate::version::Version;

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
    pub(crate) pieces: Vec<Vec<u8>>,
    pub(crate) payload_bytes: usize,
    /// What the records count for in `Room`.
    pub(crate) room_bytes: u64,
    /// Monotonic time of the first record.
    pub(crate) first_append_at: Duration,
    /// Whether the last piece takes further small records.
    last_is_open: bool,
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
        let version = self.last_version.next(now_ms);
        self.last_version = version;
        let needed = effects.len() + RECORD_HEADER_BYTES_MAX;
        let fits = |frame: &PendingFrame| frame.payload_bytes + needed <= FRAME_BYTES_MAX;
        if reset || !self.frames.last().is_some_and(fits) {
            self.begin_frame(version, reset, at());
        }
        let Some(frame) = self.frames.last_mut() else {
            unreachable!("a frame was begun");
        };
        let copied = if effects.len() < BIG_EFFECT_BYTES { needed } else { RECORD_HEADER_BYTES_MAX };
        if !frame.last_is_open || frame.pieces.last().is_none_or(|piece| piece.len() + copied > PIECE_BYTES) {
            frame.pieces.push(self.pool.pop().unwrap_or_default());
        }
        let before = frame.payload_bytes;
        frame.add(version, effects);
        self.bytes += frame.payload_bytes - before;
        version
    }

    fn begin_frame(&mut self, first_version: Version, reset: bool, first_append_at: Duration) {
        let mut piece = self.pool.pop().unwrap_or_default();
        piece.resize(FRAME_HEADER_BYTES, 0);
        self.frames.push(PendingFrame {
            first_version,
            last_version: first_version,
            records: 0,
            reset,
            pieces: vec![piece],
            payload_bytes: 0,
            room_bytes: 0,
            first_append_at,
            last_is_open: true,
        });
    }

    /// Hands over everything that waits, and takes back pieces that were written.
    pub(crate) fn take(&mut self, written: &mut Vec<Vec<u8>>) -> Vec<PendingFrame> {
        for mut piece in written.drain(..) {
            if self.pool.len() < POOLED_PIECES_MAX && piece.capacity() <= 2 * PIECE_BYTES {
                piece.clear();
                self.pool.push(piece);
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
    frames.iter().flat_map(|frame| &frame.pieces).map(Vec::capacity).sum()
}

impl PendingFrame {
    fn add(&mut self, version: Version, effects: &mut Vec<u8>) {
        let effect_bytes = u32::try_from(effects.len()).unwrap_or_else(|_| {
            panic!("{} bytes of effects in one record: limits::RECORD_BYTES_MAX is below that", effects.len())
        });
        let Some(piece) = self.pieces.last_mut() else {
            unreachable!("a frame has a piece");
        };
        let before = piece.len();
        encode_record_header(piece, version.0 - self.first_version.0, effect_bytes);
        self.payload_bytes += piece.len() - before + effects.len();
        self.room_bytes += (effects.len() + RECORD_ROOM_BYTES) as u64;
        self.last_is_open = effects.len() < BIG_EFFECT_BYTES;
        if self.last_is_open {
            piece.extend_from_slice(effects);
            effects.clear();
        } else {
            self.pieces.push(mem::take(effects));
        }
        self.last_version = version;
        self.records += 1;
    }

    /// CRC-32C of the payload.
    pub(crate) fn payload_crc(&self) -> u32 {
        let mut crc = 0;
        for (place, piece) in self.pieces.iter().enumerate() {
            let payload = if place == 0 { &piece[FRAME_HEADER_BYTES..] } else { &piece[..] };
            crc = crc32c::crc32c_append(crc, payload);
        }
        crc
    }

    /// Bytes of the frame in the file.
    pub(crate) fn frame_bytes(&self) -> u64 {
        (FRAME_HEADER_BYTES + self.payload_bytes) as u64
    }
}
