//! The bytes of a snapshot. From this head alone one can write a reader.
//!
//! ```text
//!  snapshot   | header | frame | frame | ... | end frame |         nothing follows
//!
//!  header (120 bytes and the database map)
//!    0 magic u64          8 crc u32 of bytes 12 to the header's end    12 format u16    14 header bytes without map u16
//!   16 store id, 16 bytes                 32 parent store id, 16 bytes                  48 hash seed, 16 bytes
//!   64 fork version u64  72 cut version u64   80 log position u64   88 taken at, Unix ms u64
//!   96 entries u64      104 live bytes u64   112 encryption u32 (0: none)  116 bytes of the database map u32
//!  120 database map
//!
//!  frame (at most 1 MiB)
//!    0 kind u8    1 zeros, 3 bytes    4 payload bytes u32    8 records that end in it u32    12 crc u32    16 payload
//!
//!  kind   1 records: whole records, one behind the other
//!         2 part: bytes of a record that is longer than a frame; 2 or 3 follows
//!         3 last part: the rest of that record
//!         4 end: payload = frames before it u64, records u64, payload bytes u64, cut version u64
//! ```
//!
//! Little-endian; every crc is CRC-32C. The crc of a frame is over its first 12 bytes and its payload, and goes on from
//! the crc of the frame before, the first one's from the header's: a frame that is missing, repeated or of another
//! snapshot is seen. A snapshot without its end frame is not complete. The first 16 bytes and the length of the map keep
//! their places and meaning in every format to come, so that a newer one is told from a number that has rotted: it fits its
//! crc. What a newer header has more stands between byte 120 and the map.
//!
//! - *Cut version*: every change up to it is in the snapshot, none after it.
//! - *Log position*: the log of the store goes on from there; records up to the cut may stand behind it as well.
//! - *Parent, fork*: the store that this one was restored from, and the last version that it took from there; else 0.

use crate::error::SnapshotError;

/// The newest format that this release reads, and the one it writes.
pub const FORMAT: u16 = 1;
/// Bytes of the header without the database map.
pub const HEADER_BYTES: usize = 120;
/// Most bytes that the header of a newer format may have more.
const HEADER_BYTES_MORE_MAX: usize = 4096;
/// Most bytes of the database map.
pub const DATABASES_BYTES_MAX: usize = 64 * 1024;
/// Bytes before the payload of a frame.
pub const FRAME_HEAD_BYTES: usize = 16;
/// Most bytes of a frame.
pub const FRAME_BYTES_MAX: usize = 1024 * 1024;
/// Most bytes of a frame's payload.
pub const PAYLOAD_BYTES_MAX: usize = FRAME_BYTES_MAX - FRAME_HEAD_BYTES;
/// Bytes of the end frame's payload.
pub(crate) const END_BYTES: usize = 32;

const MAGIC: [u8; 8] = *b"BOWL-SNP";
const CRC_AT: usize = 8;
const FORMAT_AT: usize = 12;
const MAP_BYTES_AT: usize = 116;
/// What the crc of a frame covers of its head.
pub(crate) const FRAME_CRC_AT: usize = 12;

const _: () = assert!(MAP_BYTES_AT + 4 == HEADER_BYTES);
const _: () = assert!(FRAME_CRC_AT + 4 == FRAME_HEAD_BYTES);

/// What a snapshot says of itself before its records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The store it was taken from.
    pub store_id: [u8; 16],
    /// The store which that one was restored from; zeros for none.
    pub parent_store_id: [u8; 16],
    /// The seed of the store's key hash. Records come in ranges of that hash.
    pub hash_seed: [u8; 16],
    /// The last version taken from the parent.
    pub fork_version: u64,
    /// Every change up to this version is in it, and none after it.
    pub cut_version: u64,
    /// Where the store's log goes on.
    pub log_position: u64,
    /// When it was taken by the server's clock, milliseconds since the Unix epoch: nothing was written between the cut
    /// and this moment.
    pub taken_at_ms: u64,
    /// Records in it.
    pub entries: u64,
    /// About how many bytes the records take.
    pub live_bytes: u64,
    /// Which number stands for which database, as the store keeps it.
    pub databases: Vec<u8>,
}

impl Header {
    /// The header's bytes.
    ///
    /// # Panics
    /// When the database map is over [`DATABASES_BYTES_MAX`].
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.databases.len() <= DATABASES_BYTES_MAX, "a map of databases has a bounded length");
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.databases.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&(HEADER_BYTES as u16).to_le_bytes());
        for id in [self.store_id, self.parent_store_id, self.hash_seed] {
            bytes.extend_from_slice(&id);
        }
        let Header { fork_version, cut_version, log_position, taken_at_ms, entries, live_bytes, .. } = *self;
        for number in [fork_version, cut_version, log_position, taken_at_ms, entries, live_bytes] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&(self.databases.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&self.databases);
        let crc = crc32c::crc32c(bytes.get(FORMAT_AT..).unwrap_or_default());
        if let Some(place) = bytes.get_mut(CRC_AT..FORMAT_AT) {
            place.copy_from_slice(&crc.to_le_bytes());
        }
        bytes
    }

    /// Bytes of the header that follow its fixed part: the map, and before it what a newer format has more.
    ///
    /// # Errors
    /// `NotASnapshot`, `Damaged`.
    pub(crate) fn bytes_after(fixed: &[u8; HEADER_BYTES]) -> Result<usize, SnapshotError> {
        let mut fields = Fields(fixed);
        if fields.array::<8>() != MAGIC {
            return Err(SnapshotError::NotASnapshot);
        }
        let _crc = fields.u32();
        let (format, bytes) = (fields.u16(), fields.u16());
        let map_bytes = Fields(fixed.get(MAP_BYTES_AT..).unwrap_or_default()).u32() as usize;
        let more = usize::from(bytes).checked_sub(HEADER_BYTES).filter(|more| *more == 0 || format > FORMAT);
        match more {
            Some(more) if format > 0 && more <= HEADER_BYTES_MORE_MAX && map_bytes <= DATABASES_BYTES_MAX => {
                Ok(more + map_bytes)
            }
            _ => Err(DAMAGED_HEADER),
        }
    }

    /// Reads a whole header; returns its crc as well.
    ///
    /// # Errors
    /// `NotASnapshot`, `Damaged`; `TooNew` for a header of a newer format that fits its crc.
    pub(crate) fn decode(fixed: &[u8; HEADER_BYTES], map: &[u8]) -> Result<(Header, u32), SnapshotError> {
        if Header::bytes_after(fixed)? != map.len() {
            return Err(DAMAGED_HEADER);
        }
        let found = Fields(fixed.get(CRC_AT..).unwrap_or_default()).u32();
        let covered = crc32c::crc32c(fixed.get(FORMAT_AT..).unwrap_or_default());
        if crc32c::crc32c_append(covered, map) != found {
            return Err(DAMAGED_HEADER);
        }
        let format = Fields(fixed.get(FORMAT_AT..).unwrap_or_default()).u16();
        if format > FORMAT {
            return Err(SnapshotError::TooNew { found: format, newest: FORMAT });
        }
        let mut fields = Fields(fixed.get(FORMAT_AT + 4..).unwrap_or_default());
        let header = Header {
            store_id: fields.array(),
            parent_store_id: fields.array(),
            hash_seed: fields.array(),
            fork_version: fields.u64(),
            cut_version: fields.u64(),
            log_position: fields.u64(),
            taken_at_ms: fields.u64(),
            entries: fields.u64(),
            live_bytes: fields.u64(),
            databases: map.to_vec(),
        };
        match fields.u32() {
            0 => Ok((header, found)),
            _ => Err(SnapshotError::Damaged { offset: 112, what: "it is encrypted, which this release cannot read" }),
        }
    }
}

const DAMAGED_HEADER: SnapshotError =
    SnapshotError::Damaged { offset: 0, what: "the header does not fit its checksum" };

/// What a frame holds. The numbers are in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// Whole records.
    Records = 1,
    /// A part of a record.
    Part = 2,
    /// The rest of a record.
    LastPart = 3,
    /// The totals: the snapshot is complete.
    End = 4,
}

/// What stands before the payload of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// What it holds.
    pub kind: FrameKind,
    /// Bytes of the payload.
    pub payload_bytes: u32,
    /// Records that end in it.
    pub records: u32,
    /// Its checksum.
    pub(crate) crc: u32,
}

impl FrameHead {
    /// The head's bytes, without the crc.
    pub(crate) fn covered(&self) -> [u8; FRAME_CRC_AT] {
        let [p0, p1, p2, p3] = self.payload_bytes.to_le_bytes();
        let [r0, r1, r2, r3] = self.records.to_le_bytes();
        [self.kind as u8, 0, 0, 0, p0, p1, p2, p3, r0, r1, r2, r3]
    }

    /// Reads a head; `None` when it is none.
    pub(crate) fn decode(bytes: &[u8; FRAME_HEAD_BYTES]) -> Option<FrameHead> {
        let mut fields = Fields(bytes);
        let kind = match fields.array::<4>() {
            [1, 0, 0, 0] => FrameKind::Records,
            [2, 0, 0, 0] => FrameKind::Part,
            [3, 0, 0, 0] => FrameKind::LastPart,
            [4, 0, 0, 0] => FrameKind::End,
            _ => return None,
        };
        let (payload_bytes, records, crc) = (fields.u32(), fields.u32(), fields.u32());
        ((payload_bytes as usize) <= PAYLOAD_BYTES_MAX).then_some(FrameHead { kind, payload_bytes, records, crc })
    }
}

/// Reads fields of bytes whose length is known to be enough; zeros beyond.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl Fields<'_> {
    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk() {
            Some((array, rest)) => {
                self.0 = rest;
                *array
            }
            None => [0; N],
        }
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }
}
