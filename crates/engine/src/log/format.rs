//! The bytes of a log file. From this head alone one can write a reader.
//!
//! ```text
//!  log file   0          512     2048       2560    4096                                            file length
//!             | header A | zeros | header B | zeros | frame | frame | ... | zeros or stale bytes  |
//!
//!  file header (96 bytes, twice: the valid one with the highest (sequence, generation) counts)
//!    0 magic u64        8 crc u32 of bytes 12..96   12 format u16     14 header bytes u16   16 store id, 16 bytes
//!   32 sequence u64    40 generation u64            48 start position u64                   56 epoch u64
//!   64 replay from u64 72 checkpoint version u64    80 previous frame's header crc u32      84 flags u32 (bit 0: closed)
//!   88 durable position u64
//!
//!  frame      | frame header (144 bytes) | payload |        payload = records, see `record`
//!    0 magic u32          4 header crc u32 of bytes 8..144        8 header bytes u16    10 flags u16
//!   12 payload bytes u32 16 records u32   20 payload crc u32     24 previous frame's header crc u32   28 zero u32
//!   32 store id, 16 bytes                 48 epoch u64           56 position u64
//!   64 term u64          72 index u64     80 session u64         88 sequence u64        (0 on a node that is alone)
//!   96 wall ms u64      104 durable position u64                112 commit version u64
//!  120 first version u64                 128 last version u64   136 version limit u64
//! ```
//!
//! Little-endian; every crc is CRC-32C. The first 16 bytes of a file header keep their places and meaning in every format to
//! come, see `head`. A position is a byte of the whole log, counted over frames only: the frame at
//! position p of a file stands at `4096 + p - start position`. The first frame that does not fit what remains of a file
//! starts the next one, whose start position is the end of the last frame before it. Frames share sectors: the log
//! relies on a disk that writes a 512-byte sector whole or not at all.
//!
//! - *The chain*: each frame repeats its predecessor's header crc, which covers the payload through the payload crc.
//! - *Witnesses*: every byte before the durable position of a frame or of a file's header was synced before that was
//!   written. The header stands far from the end of the log, so a lost block there takes one witness with it at most.
//! - *Epoch* rises at every open, so frames of an earlier life never continue a later one.
//! - *Replay from*: nothing before this position matters any more; it only rises.
//! - *Closed*: the log was closed in order. Its last frame is the closing mark at the durable position, and nothing was
//!   ever written behind it. The next open says otherwise in both headers before it writes a frame; a reader looks
//!   whether the closing mark is there, and whether anything follows it after all.
//! - *Version limit*: versions up to it may have been seen by somebody and are not handed out again.
//! - A frame without records is a mark; its first and last version are the newest version before it.
//!
//! Not here: what a record is (`record`), which frames form the log (`scan`).

use crate::head::{self, HeadRead};
use crate::version::Version;

/// The newest format that this release reads, and the one it writes.
pub const FORMAT: u16 = 1;
/// Bytes at the start of a file before its first frame.
pub const HEADER_BLOCK_BYTES: u64 = 4096;
/// Where the two file headers stand; each within one sector.
pub const SLOT_OFFSETS: [u64; 2] = [0, 2048];
/// Bytes of a file header.
pub const FILE_HEADER_BYTES: usize = 96;
/// Bytes of a frame header.
pub const FRAME_HEADER_BYTES: usize = 144;
/// The first bytes of a frame.
pub const FRAME_MAGIC: [u8; 4] = [0xB0, 0x3E, 0x1F, 0xA9];
/// Bytes of a store's identity.
pub const STORE_ID_BYTES: usize = 16;

/// Flag of a frame without records.
pub const FLAG_MARK: u16 = 1 << 0;
/// Flag of a frame whose first record makes everything before it unimportant.
pub const FLAG_RESET: u16 = 1 << 1;
/// Flag of the mark that a close writes.
pub const FLAG_CLOSED: u16 = 1 << 2;

/// Flag of a file header: the log was closed.
const FILE_CLOSED: u32 = 1 << 0;

const FILE_MAGIC: [u8; 8] = *b"BOWL-LOG";
const SECTOR_BYTES: u64 = 512;

mod file_at {
    pub(super) const MAGIC: usize = 0;
    pub(super) const CRC: usize = 8;
    pub(super) const FORMAT: usize = 12;
    pub(super) const HEADER_BYTES: usize = 14;
    pub(super) const STORE_ID: usize = 16;
    pub(super) const SEQUENCE: usize = 32;
    pub(super) const GENERATION: usize = 40;
    pub(super) const START_POSITION: usize = 48;
    pub(super) const EPOCH: usize = 56;
    pub(super) const REPLAY_FROM: usize = 64;
    pub(super) const CHECKPOINT: usize = 72;
    pub(super) const PREVIOUS_CRC: usize = 80;
    pub(super) const FLAGS: usize = 84;
    pub(super) const DURABLE_POSITION: usize = 88;
}

mod frame_at {
    pub(super) const MAGIC: usize = 0;
    pub(super) const HEADER_CRC: usize = 4;
    pub(super) const HEADER_BYTES: usize = 8;
    pub(super) const FLAGS: usize = 10;
    pub(super) const PAYLOAD_BYTES: usize = 12;
    pub(super) const RECORDS: usize = 16;
    pub(super) const PAYLOAD_CRC: usize = 20;
    pub(super) const PREVIOUS_CRC: usize = 24;
    pub(super) const STORE_ID: usize = 32;
    pub(super) const EPOCH: usize = 48;
    pub(super) const POSITION: usize = 56;
    pub(super) const TERM: usize = 64;
    pub(super) const INDEX: usize = 72;
    pub(super) const SESSION: usize = 80;
    pub(super) const SEQUENCE: usize = 88;
    pub(super) const WALL_MS: usize = 96;
    pub(super) const DURABLE_POSITION: usize = 104;
    pub(super) const COMMIT: usize = 112;
    pub(super) const FIRST_VERSION: usize = 120;
    pub(super) const LAST_VERSION: usize = 128;
    pub(super) const VERSION_LIMIT: usize = 136;
}

const _: () = assert!(file_at::FLAGS + 4 == file_at::DURABLE_POSITION);
const _: () = assert!(file_at::DURABLE_POSITION + 8 == FILE_HEADER_BYTES);
const _: () = assert!(FILE_HEADER_BYTES as u64 <= SECTOR_BYTES);
const _: () = assert!(SLOT_OFFSETS[0] + SECTOR_BYTES <= SLOT_OFFSETS[1]);
const _: () = assert!(SLOT_OFFSETS[1] + SECTOR_BYTES <= HEADER_BLOCK_BYTES);
const _: () = assert!(SLOT_OFFSETS[0].is_multiple_of(SECTOR_BYTES) && SLOT_OFFSETS[1].is_multiple_of(SECTOR_BYTES));
const _: () = assert!(file_at::STORE_ID + STORE_ID_BYTES == file_at::SEQUENCE);
const _: () = assert!(frame_at::STORE_ID + STORE_ID_BYTES == frame_at::EPOCH);
const _: () = assert!(frame_at::VERSION_LIMIT + 8 == FRAME_HEADER_BYTES);

/// Where the store id stands in the first file header; for messages.
pub(crate) const STORE_ID_OFFSET: u64 = file_at::STORE_ID as u64;
/// Where the replay position stands in the first file header; for messages.
pub(crate) const REPLAY_FROM_OFFSET: u64 = file_at::REPLAY_FROM as u64;

/// What a log file says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileHeader {
    /// The store that the file belongs to.
    pub store_id: [u8; STORE_ID_BYTES],
    /// Place of the file in the log; rises by one with every file that is started.
    pub sequence: u64,
    /// Which writing of this file's header it is, from 1.
    pub generation: u64,
    /// Position of the first frame.
    pub start_position: u64,
    /// Epoch in which the file was started.
    pub epoch: u64,
    /// Nothing before this position matters any more.
    pub replay_from: u64,
    /// Version of the newest published checkpoint; 0 while there is none.
    pub checkpoint: Version,
    /// Header crc of the frame before this file; 0 at the start of the log.
    pub previous_crc: u32,
    /// Every byte before this position was durable when the header was written.
    pub durable_position: u64,
    /// The log was closed: the mark at `durable_position` is its last frame, and nothing was written behind it.
    pub is_closed: bool,
}

/// What stands in the place of a file header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileHeaderRead {
    /// A header.
    Header(FileHeader),
    /// A header of a newer format than [`FORMAT`].
    TooNew(u16),
    /// Something else.
    None,
}

impl FileHeader {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; FILE_HEADER_BYTES] {
        let mut bytes = [0; FILE_HEADER_BYTES];
        put(&mut bytes, file_at::MAGIC, FILE_MAGIC);
        put(&mut bytes, file_at::FORMAT, FORMAT.to_le_bytes());
        put(&mut bytes, file_at::HEADER_BYTES, (FILE_HEADER_BYTES as u16).to_le_bytes());
        put(&mut bytes, file_at::STORE_ID, self.store_id);
        put(&mut bytes, file_at::SEQUENCE, self.sequence.to_le_bytes());
        put(&mut bytes, file_at::GENERATION, self.generation.to_le_bytes());
        put(&mut bytes, file_at::START_POSITION, self.start_position.to_le_bytes());
        put(&mut bytes, file_at::EPOCH, self.epoch.to_le_bytes());
        put(&mut bytes, file_at::REPLAY_FROM, self.replay_from.to_le_bytes());
        put(&mut bytes, file_at::CHECKPOINT, self.checkpoint.0.to_le_bytes());
        put(&mut bytes, file_at::PREVIOUS_CRC, self.previous_crc.to_le_bytes());
        put(&mut bytes, file_at::FLAGS, if self.is_closed { FILE_CLOSED } else { 0 }.to_le_bytes());
        put(&mut bytes, file_at::DURABLE_POSITION, self.durable_position.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[file_at::FORMAT..]);
        put(&mut bytes, file_at::CRC, crc.to_le_bytes());
        bytes
    }

    /// The bytes of the whole block at the start of a file that is being started; the second header is left empty.
    pub fn encode_block(&self) -> Vec<u8> {
        let mut block = vec![0; HEADER_BLOCK_BYTES as usize];
        block[..FILE_HEADER_BYTES].copy_from_slice(&self.encode());
        block
    }

    /// Where this generation of the header stands in the file.
    pub fn slot_offset(&self) -> u64 {
        if self.generation % 2 == 1 { SLOT_OFFSETS[0] } else { SLOT_OFFSETS[1] }
    }

    /// Reads the newest valid header of a header block; shorter input has none.
    pub fn decode_block(block: &[u8]) -> FileHeaderRead {
        let mut newest = FileHeaderRead::None;
        for offset in SLOT_OFFSETS {
            let slot = block.get(offset as usize..).unwrap_or_default();
            newest = match (newest, FileHeader::decode(slot)) {
                (FileHeaderRead::TooNew(format), _) | (_, FileHeaderRead::TooNew(format)) => {
                    FileHeaderRead::TooNew(format)
                }
                (FileHeaderRead::Header(old), FileHeaderRead::Header(new)) if old.age() >= new.age() => {
                    FileHeaderRead::Header(old)
                }
                (old, FileHeaderRead::None) => old,
                (_, new) => new,
            };
        }
        newest
    }

    /// Reads one header.
    pub fn decode(bytes: &[u8]) -> FileHeaderRead {
        let bytes = match (head::read(bytes, FILE_MAGIC, FORMAT), bytes.first_chunk::<FILE_HEADER_BYTES>()) {
            (HeadRead::Known(FILE_HEADER_BYTES), Some(bytes)) => bytes,
            (HeadRead::TooNew(format), _) => return FileHeaderRead::TooNew(format),
            _ => return FileHeaderRead::None,
        };
        FileHeaderRead::Header(FileHeader {
            store_id: field(bytes, file_at::STORE_ID),
            sequence: u64_at(bytes, file_at::SEQUENCE),
            generation: u64_at(bytes, file_at::GENERATION),
            start_position: u64_at(bytes, file_at::START_POSITION),
            epoch: u64_at(bytes, file_at::EPOCH),
            replay_from: u64_at(bytes, file_at::REPLAY_FROM),
            checkpoint: Version(u64_at(bytes, file_at::CHECKPOINT)),
            previous_crc: u32_at(bytes, file_at::PREVIOUS_CRC),
            durable_position: u64_at(bytes, file_at::DURABLE_POSITION),
            is_closed: u32_at(bytes, file_at::FLAGS) & FILE_CLOSED != 0,
        })
    }

    fn age(&self) -> (u64, u64) {
        (self.sequence, self.generation)
    }
}

/// What a frame says about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameHeader {
    /// [`FLAG_MARK`], [`FLAG_RESET`], [`FLAG_CLOSED`].
    pub flags: u16,
    /// Bytes that follow the header.
    pub payload_bytes: u32,
    /// Records in the payload.
    pub records: u32,
    /// CRC-32C of the payload.
    pub payload_crc: u32,
    /// Header crc of the frame before this one, as the head of this file says.
    pub previous_crc: u32,
    /// The store that the frame belongs to.
    pub store_id: [u8; STORE_ID_BYTES],
    /// Rises at every open.
    pub epoch: u64,
    /// Where in the log the header begins.
    pub position: u64,
    /// Term of consensus; 0 when alone.
    pub term: u64,
    /// Index of consensus; 0 when alone.
    pub index: u64,
    /// Session of the leader; 0 when alone.
    pub session: u64,
    /// Place in the leader's session; 0 when alone.
    pub sequence: u64,
    /// Wall clock when it was written, milliseconds since the Unix epoch; for people.
    pub wall_ms: u64,
    /// Every byte before this position was durable when the frame was written.
    pub durable_position: u64,
    /// The commit known when it was written.
    pub commit: Version,
    /// Version of the first record.
    pub first_version: Version,
    /// Version of the last record.
    pub last_version: Version,
    /// Versions up to this one may have been seen once the frame is durable.
    pub version_limit: Version,
}

impl FrameHeader {
    /// The header's bytes, and its crc: what the next frame repeats.
    pub fn encode(&self) -> ([u8; FRAME_HEADER_BYTES], u32) {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        put(&mut bytes, frame_at::MAGIC, FRAME_MAGIC);
        put(&mut bytes, frame_at::HEADER_BYTES, (FRAME_HEADER_BYTES as u16).to_le_bytes());
        put(&mut bytes, frame_at::FLAGS, self.flags.to_le_bytes());
        put(&mut bytes, frame_at::PAYLOAD_BYTES, self.payload_bytes.to_le_bytes());
        put(&mut bytes, frame_at::RECORDS, self.records.to_le_bytes());
        put(&mut bytes, frame_at::PAYLOAD_CRC, self.payload_crc.to_le_bytes());
        put(&mut bytes, frame_at::PREVIOUS_CRC, self.previous_crc.to_le_bytes());
        put(&mut bytes, frame_at::STORE_ID, self.store_id);
        put(&mut bytes, frame_at::EPOCH, self.epoch.to_le_bytes());
        put(&mut bytes, frame_at::POSITION, self.position.to_le_bytes());
        put(&mut bytes, frame_at::TERM, self.term.to_le_bytes());
        put(&mut bytes, frame_at::INDEX, self.index.to_le_bytes());
        put(&mut bytes, frame_at::SESSION, self.session.to_le_bytes());
        put(&mut bytes, frame_at::SEQUENCE, self.sequence.to_le_bytes());
        put(&mut bytes, frame_at::WALL_MS, self.wall_ms.to_le_bytes());
        put(&mut bytes, frame_at::DURABLE_POSITION, self.durable_position.to_le_bytes());
        put(&mut bytes, frame_at::COMMIT, self.commit.0.to_le_bytes());
        put(&mut bytes, frame_at::FIRST_VERSION, self.first_version.0.to_le_bytes());
        put(&mut bytes, frame_at::LAST_VERSION, self.last_version.0.to_le_bytes());
        put(&mut bytes, frame_at::VERSION_LIMIT, self.version_limit.0.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[frame_at::HEADER_BYTES..]);
        put(&mut bytes, frame_at::HEADER_CRC, crc.to_le_bytes());
        (bytes, crc)
    }

    /// Reads a header, wherever it stands: its own crc decides. Returns it with its crc.
    pub fn decode(bytes: &[u8]) -> Option<(FrameHeader, u32)> {
        let bytes = bytes.first_chunk::<FRAME_HEADER_BYTES>()?;
        let crc = u32_at(bytes, frame_at::HEADER_CRC);
        if field(bytes, frame_at::MAGIC) != FRAME_MAGIC
            || usize::from(u16_at(bytes, frame_at::HEADER_BYTES)) != FRAME_HEADER_BYTES
            || crc32c::crc32c(bytes.get(frame_at::HEADER_BYTES..)?) != crc
        {
            return None;
        }
        let header = FrameHeader {
            flags: u16_at(bytes, frame_at::FLAGS),
            payload_bytes: u32_at(bytes, frame_at::PAYLOAD_BYTES),
            records: u32_at(bytes, frame_at::RECORDS),
            payload_crc: u32_at(bytes, frame_at::PAYLOAD_CRC),
            previous_crc: u32_at(bytes, frame_at::PREVIOUS_CRC),
            store_id: field(bytes, frame_at::STORE_ID),
            epoch: u64_at(bytes, frame_at::EPOCH),
            position: u64_at(bytes, frame_at::POSITION),
            term: u64_at(bytes, frame_at::TERM),
            index: u64_at(bytes, frame_at::INDEX),
            session: u64_at(bytes, frame_at::SESSION),
            sequence: u64_at(bytes, frame_at::SEQUENCE),
            wall_ms: u64_at(bytes, frame_at::WALL_MS),
            durable_position: u64_at(bytes, frame_at::DURABLE_POSITION),
            commit: Version(u64_at(bytes, frame_at::COMMIT)),
            first_version: Version(u64_at(bytes, frame_at::FIRST_VERSION)),
            last_version: Version(u64_at(bytes, frame_at::LAST_VERSION)),
            version_limit: Version(u64_at(bytes, frame_at::VERSION_LIMIT)),
        };
        Some((header, crc))
    }

    /// Bytes of the frame with its payload.
    pub fn frame_bytes(&self) -> u64 {
        FRAME_HEADER_BYTES as u64 + u64::from(self.payload_bytes)
    }
}

fn put<const N: usize>(bytes: &mut [u8], offset: usize, value: [u8; N]) {
    bytes[offset..offset + N].copy_from_slice(&value);
}

/// The field at `offset`; the constants above lie within the array.
fn field<const N: usize, const ALL: usize>(bytes: &[u8; ALL], offset: usize) -> [u8; N] {
    bytes.get(offset..).and_then(|rest| rest.first_chunk::<N>()).copied().unwrap_or([0; N])
}

fn u16_at<const ALL: usize>(bytes: &[u8; ALL], offset: usize) -> u16 {
    u16::from_le_bytes(field(bytes, offset))
}

fn u32_at<const ALL: usize>(bytes: &[u8; ALL], offset: usize) -> u32 {
    u32::from_le_bytes(field(bytes, offset))
}

fn u64_at<const ALL: usize>(bytes: &[u8; ALL], offset: usize) -> u64 {
    u64::from_le_bytes(field(bytes, offset))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FILE_HEADER: FileHeader = FileHeader {
        store_id: *b"0123456789abcdef",
        sequence: 0x0102_0304_0506_0708,
        generation: 1,
        start_position: 0x1111,
        epoch: 0x22,
        replay_from: 0x3333,
        checkpoint: Version(0x44),
        previous_crc: 0xDEAD_BEEF,
        durable_position: 0x5555,
        is_closed: false,
    };

    const FRAME_HEADER: FrameHeader = FrameHeader {
        flags: FLAG_RESET,
        payload_bytes: 0x0A0B,
        records: 3,
        payload_crc: 0x1234_5678,
        previous_crc: 0x9ABC_DEF0,
        store_id: *b"0123456789abcdef",
        epoch: 7,
        position: 0x0102_0304_0506,
        term: 8,
        index: 9,
        session: 10,
        sequence: 11,
        wall_ms: 0x0198_0000_0000,
        durable_position: 0x0102_0304_0000,
        commit: Version(0x1000),
        first_version: Version(0x1001),
        last_version: Version(0x1003),
        version_limit: Version(0x2000),
    };

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_bytes_of_a_file_header_are_fixed() {
        let golden = "424f574c2d4c4f47\
                      bd3d995a01006000\
                      30313233343536373839616263646566\
                      08070605040302010100000000000000\
                      11110000000000002200000000000000\
                      33330000000000004400000000000000\
                      efbeadde00000000\
                      5555000000000000";
        assert_eq!(hex(&FILE_HEADER.encode()), golden);
        assert_eq!(FileHeader::decode(&FILE_HEADER.encode()), FileHeaderRead::Header(FILE_HEADER));
        let closed = FileHeader { is_closed: true, ..FILE_HEADER };
        let golden = golden.replace("efbeadde00000000", "efbeadde01000000");
        let crc_at = 2 * file_at::CRC..2 * file_at::FORMAT;
        assert_eq!(hex(&closed.encode())[crc_at.end..], golden[crc_at.end..]);
        assert_eq!(FileHeader::decode(&closed.encode()), FileHeaderRead::Header(closed));
    }

    #[test]
    fn the_bytes_of_a_frame_header_are_fixed() {
        let golden = "b03e1fa9\
                      f99ecbcf\
                      90000200\
                      0b0a00000300000078563412f0debc9a00000000\
                      30313233343536373839616263646566\
                      07000000000000000605040302010000\
                      08000000000000000900000000000000\
                      0a000000000000000b00000000000000\
                      00000000980100000000040302010000\
                      00100000000000000110000000000000\
                      03100000000000000020000000000000";
        let (bytes, crc) = FRAME_HEADER.encode();
        assert_eq!(hex(&bytes), golden);
        assert_eq!(FrameHeader::decode(&bytes), Some((FRAME_HEADER, crc)));
    }

    #[test]
    fn one_wrong_bit_anywhere_makes_a_header_invalid() {
        let (bytes, _) = FRAME_HEADER.encode();
        for bit in 0..bytes.len() * 8 {
            let mut wrong = bytes;
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FrameHeader::decode(&wrong), None, "bit {bit} of the frame header");
        }
        let bytes = FILE_HEADER.encode();
        for bit in 0..bytes.len() * 8 {
            let mut wrong = bytes;
            wrong[bit / 8] ^= 1 << (bit % 8);
            let read = FileHeader::decode(&wrong);
            assert!(!matches!(read, FileHeaderRead::Header(_)), "bit {bit} of the file header");
        }
    }

    #[test]
    fn the_newest_valid_of_two_file_headers_counts() {
        let newer = FileHeader { generation: 2, replay_from: 0x5555, ..FILE_HEADER };
        let mut block = FILE_HEADER.encode_block();
        let at = newer.slot_offset() as usize;
        block[at..at + FILE_HEADER_BYTES].copy_from_slice(&newer.encode());
        assert_eq!(FileHeader::decode_block(&block), FileHeaderRead::Header(newer));
        block[at + 20] ^= 1;
        assert_eq!(FileHeader::decode_block(&block), FileHeaderRead::Header(FILE_HEADER));
        block[20] ^= 1;
        assert_eq!(FileHeader::decode_block(&block), FileHeaderRead::None);
    }

    #[test]
    fn a_newer_format_is_named_and_told_from_a_rotten_number() {
        let mut bytes = FILE_HEADER.encode();
        bytes[file_at::FORMAT] = 9;
        assert_eq!(FileHeader::decode(&bytes), FileHeaderRead::None);
        head::seal(&mut bytes);
        assert_eq!(FileHeader::decode(&bytes), FileHeaderRead::TooNew(9));
    }

    proptest! {
        #[test]
        fn every_file_header_comes_back(store_id: [u8; 16], numbers: [u64; 7], previous_crc: u32, is_closed: bool) {
            let [sequence, generation, start_position, epoch, replay_from, checkpoint, durable_position] = numbers;
            let checkpoint = Version(checkpoint);
            let header = FileHeader {
                store_id, sequence, generation, start_position, epoch, replay_from, checkpoint, previous_crc,
                durable_position, is_closed,
            };
            prop_assert_eq!(FileHeader::decode_block(&header.encode_block()), FileHeaderRead::Header(header));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..5000)) {
            prop_assert_eq!(FileHeader::decode_block(&bytes), FileHeaderRead::None);
            prop_assert_eq!(FrameHeader::decode(&bytes), None);
        }
    }
}
