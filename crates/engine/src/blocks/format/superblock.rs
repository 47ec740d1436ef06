//! The superblock: the root of one checkpoint.
//!
//! ```text
//!  superblock (256 bytes at the start of block 0 or 1; the rest of the block is zeros)
//!    0 magic u64          8 crc u32 of bytes 12..256   12 format u16         14 superblock bytes u16
//!   16 store id, 16 bytes                              32 hash seed, 16 bytes
//!   48 block bytes u32   52 file blocks u32            56 flags u32 (bit 0: the file grows by itself)
//!   60 encryption u32 (0: none)                        64 sequence u64       72 cut version u64
//!   80 log position u64  88 parent store id, 16 bytes 104 fork version u64
//!  112 manifest's first block u32   116 its crc u32   120 manifest bytes u64
//!  128 entries u64      136 live bytes u64            144 zeros
//! ```
//!
//! It lies within one 512-byte sector, which a disk writes whole or not at all. The first 16 bytes keep their places
//! and meaning in every format to come, see `head`. A sequence is even in block 0 and odd in block 1.

use super::{Reader, put};
use crate::head::{self, HEAD_BYTES_MAX, HeadRead};
use crate::version::Version;

/// The newest format that this release reads, and the one it writes.
pub const FORMAT: u16 = 1;
/// Bytes of a superblock.
pub(crate) const SUPERBLOCK_BYTES: usize = 256;

const MAGIC: [u8; 8] = *b"BOWL-BLK";
const FLAG_AUTO: u32 = 1;
const CRC_OFFSET: usize = 8;
const FORMAT_OFFSET: usize = 12;
/// Magic, crc, format, length: see `head`.
const HEAD_BYTES: usize = 16;

const _: () = assert!(SUPERBLOCK_BYTES <= HEAD_BYTES_MAX);

/// Whose data a block file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The store, as in the headers of its log.
    pub store_id: [u8; 16],
    /// The seed of the hash that orders the index: the keyspace's.
    pub hash_seed: [u8; 16],
}

/// Where a manifest begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ManifestRef {
    pub(crate) block: u32,
    pub(crate) crc: u32,
    pub(crate) bytes: u64,
}

/// What the superblock of a checkpoint says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Whose data it is.
    pub identity: Identity,
    /// Bytes of a block.
    pub block_bytes: u32,
    /// Blocks of the file.
    pub file_blocks: u32,
    /// Whether the file grows and shrinks by itself.
    pub auto: bool,
    /// Rises by one with every published checkpoint; 0 for the empty one that a new file begins with.
    pub sequence: u64,
    /// The version the checkpoint is exact at.
    pub cut: Version,
    /// Where in the log replay begins.
    pub log_position: u64,
    /// The store that this one was restored from; zeroes for none.
    pub parent_store_id: [u8; 16],
    /// The version where this store left its parent's line.
    pub fork_version: Version,
    /// Entries in the index.
    pub entries: u64,
    /// Bytes of the live records, each rounded up to the size that the index knows it by.
    pub live_bytes: u64,
    /// Where the rest of the checkpoint is found.
    pub(crate) manifest: ManifestRef,
}

/// What stands in the place of a superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SuperblockRead {
    Superblock(Superblock),
    /// One of a newer format than [`FORMAT`].
    TooNew(u16),
    /// Something else.
    None,
}

impl Superblock {
    /// The superblock's bytes.
    pub(crate) fn encode(&self) -> [u8; SUPERBLOCK_BYTES] {
        let mut bytes = [0; SUPERBLOCK_BYTES];
        put(&mut bytes, 0, MAGIC);
        put(&mut bytes, FORMAT_OFFSET, FORMAT.to_le_bytes());
        put(&mut bytes, 14, (SUPERBLOCK_BYTES as u16).to_le_bytes());
        put(&mut bytes, 16, self.identity.store_id);
        put(&mut bytes, 32, self.identity.hash_seed);
        put(&mut bytes, 48, self.block_bytes.to_le_bytes());
        put(&mut bytes, 52, self.file_blocks.to_le_bytes());
        put(&mut bytes, 56, if self.auto { FLAG_AUTO } else { 0 }.to_le_bytes());
        put(&mut bytes, 64, self.sequence.to_le_bytes());
        put(&mut bytes, 72, self.cut.0.to_le_bytes());
        put(&mut bytes, 80, self.log_position.to_le_bytes());
        put(&mut bytes, 88, self.parent_store_id);
        put(&mut bytes, 104, self.fork_version.0.to_le_bytes());
        put(&mut bytes, 112, self.manifest.block.to_le_bytes());
        put(&mut bytes, 116, self.manifest.crc.to_le_bytes());
        put(&mut bytes, 120, self.manifest.bytes.to_le_bytes());
        put(&mut bytes, 128, self.entries.to_le_bytes());
        put(&mut bytes, 136, self.live_bytes.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[FORMAT_OFFSET..]);
        put(&mut bytes, CRC_OFFSET, crc.to_le_bytes());
        bytes
    }

    /// The block that this superblock belongs in.
    pub(crate) fn slot(&self) -> u32 {
        (self.sequence % 2) as u32
    }

    /// Reads what stands at the start of `bytes`.
    pub(crate) fn decode(bytes: &[u8]) -> SuperblockRead {
        match head::read(bytes, MAGIC, FORMAT) {
            HeadRead::Known(SUPERBLOCK_BYTES) => {
                Superblock::decode_whole(bytes).map_or(SuperblockRead::None, SuperblockRead::Superblock)
            }
            HeadRead::TooNew(format) => SuperblockRead::TooNew(format),
            HeadRead::Known(_) | HeadRead::None => SuperblockRead::None,
        }
    }

    fn decode_whole(all: &[u8]) -> Option<Superblock> {
        let mut bytes = Reader::new(all.get(HEAD_BYTES..)?);
        let identity = Identity { store_id: bytes.array()?, hash_seed: bytes.array()? };
        let (block_bytes, file_blocks) = (bytes.u32()?, bytes.u32()?);
        let (flags, encryption) = (bytes.u32()?, bytes.u32()?);
        if flags & !FLAG_AUTO != 0 || encryption != 0 {
            return None;
        }
        Some(Superblock {
            identity,
            block_bytes,
            file_blocks,
            auto: flags & FLAG_AUTO != 0,
            sequence: bytes.u64()?,
            cut: Version(bytes.u64()?),
            log_position: bytes.u64()?,
            parent_store_id: bytes.array()?,
            fork_version: Version(bytes.u64()?),
            manifest: ManifestRef { block: bytes.u32()?, crc: bytes.u32()?, bytes: bytes.u64()? },
            entries: bytes.u64()?,
            live_bytes: bytes.u64()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::hex;
    use super::*;
    use proptest::prelude::*;

    const SUPERBLOCK: Superblock = Superblock {
        identity: Identity { store_id: *b"0123456789abcdef", hash_seed: *b"ABCDEFGHIJKLMNOP" },
        block_bytes: 4096,
        file_blocks: 0x4000,
        auto: true,
        sequence: 0x0102_0304_0506_0708,
        cut: Version(0x1111),
        log_position: 0x2222,
        parent_store_id: *b"parentparentpare",
        fork_version: Version(0x3333),
        entries: 0x77,
        live_bytes: 0x88,
        manifest: ManifestRef { block: 0x44, crc: 0x5555_5555, bytes: 0x66 },
    };

    #[test]
    fn the_bytes_of_a_superblock_are_fixed() {
        let bytes = SUPERBLOCK.encode();
        let golden = "424f574c2d424c4b\
                      3e41e0ec\
                      01000001\
                      30313233343536373839616263646566\
                      4142434445464748494a4b4c4d4e4f50\
                      00100000004000000100000000000000\
                      08070605040302011111000000000000\
                      2222000000000000\
                      706172656e74706172656e7470617265\
                      3333000000000000\
                      44000000555555556600000000000000\
                      77000000000000008800000000000000";
        assert_eq!(hex(&bytes[..144]), golden);
        assert!(bytes[144..].iter().all(|byte| *byte == 0));
        assert_eq!(Superblock::decode(&bytes), SuperblockRead::Superblock(SUPERBLOCK));
    }

    #[test]
    fn one_wrong_bit_anywhere_makes_a_superblock_invalid() {
        let bytes = SUPERBLOCK.encode();
        for bit in 0..bytes.len() * 8 {
            let mut wrong = bytes;
            wrong[bit / 8] ^= 1 << (bit % 8);
            let read = Superblock::decode(&wrong);
            assert!(!matches!(read, SuperblockRead::Superblock(_)), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_format_is_named_and_told_from_a_rotten_number() {
        let mut bytes = SUPERBLOCK.encode();
        bytes[FORMAT_OFFSET] = 7;
        assert_eq!(Superblock::decode(&bytes), SuperblockRead::None);
        head::seal(&mut bytes);
        assert_eq!(Superblock::decode(&bytes), SuperblockRead::TooNew(7));
    }

    proptest! {
        #[test]
        fn every_superblock_comes_back(ids: [[u8; 16]; 3], numbers: [u64; 7], small: [u32; 4], auto: bool) {
            let superblock = Superblock {
                identity: Identity { store_id: ids[0], hash_seed: ids[1] },
                block_bytes: small[0], file_blocks: small[1], auto, sequence: numbers[0],
                cut: Version(numbers[1]), log_position: numbers[2], parent_store_id: ids[2],
                fork_version: Version(numbers[3]), entries: numbers[4], live_bytes: numbers[5],
                manifest: ManifestRef { block: small[2], crc: small[3], bytes: numbers[6] },
            };
            prop_assert_eq!(Superblock::decode(&superblock.encode()), SuperblockRead::Superblock(superblock));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            prop_assert_eq!(Superblock::decode(&bytes), SuperblockRead::None);
        }
    }
}
