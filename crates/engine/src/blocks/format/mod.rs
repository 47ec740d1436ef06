//! The bytes of a block file. From this head and the drawings of its parts one can write a reader.
//!
//! ```text
//!  block file   0            1            2       3                                    file blocks
//!               | superblock | superblock | block | block | ...                        |
//!
//!     superblock --crc--> manifest block -> manifest block -> ...
//!                            |-- the dictionary of compressed values
//!                            |-- per database: leaf references  --crc--> leaf --> (hash, block, size code)
//!                            '-- table page references          --crc--> table page
//!     table page: for every block its kind and, for data and chunks, its crc ------------------> data and chunk blocks
//!
//!  block header (16 bytes: data, chunk, leaf, table page, manifest)
//!    0 kind u8    1 flags u8 (0)    2 detail u16    4 its own block number u32    8 sequence u64
//! ```
//!
//! Little-endian; every crc is CRC-32C over the whole block. A block is `block bytes` long, a power of two from 4096 to
//! 65536. `sequence` is that of the checkpoint which wrote the block. The superblock of an even sequence is block 0,
//! that of an odd one block 1; the valid one with the higher sequence counts.
//!
//! An *extent* is a run of at most 64 KiB of data or chunk blocks that was written in one piece and is freed in one
//! piece. Its *stream* is what its blocks hold behind their headers, joined:
//!
//! ```text
//!  data extent   | header | record | record | rec-  | header | -ord | record | ... zeros |
//!                                                               ^ detail: where the first record that starts in the
//!  chunk extent  | header | bytes of one large value ...        | block starts, from the block's first byte; ffff: none
//! ```
//!
//! Not here: what a record is (`record`), a leaf (`leaf`), a table page (`table`), a manifest (`manifest`), a superblock
//! (`superblock`).

pub(crate) mod extent;
pub(crate) mod leaf;
pub(crate) mod manifest;
pub(crate) mod record;
pub(crate) mod superblock;
pub(crate) mod table;

/// Bytes of the header of every block but a superblock.
pub(crate) const BLOCK_HEADER_BYTES: usize = 16;
/// Smallest and largest block.
pub(crate) const BLOCK_BYTES_MIN: u32 = 4096;
pub(crate) const BLOCK_BYTES_MAX: u32 = 65536;
/// Most bytes of an extent.
pub(crate) const EXTENT_BYTES_MAX: usize = 65536;
/// Blocks at the start of the file that are superblocks.
pub(crate) const SUPERBLOCKS: u32 = 2;
/// No record starts in the block.
pub(crate) const NO_RECORD: u16 = u16::MAX;

const _: () = assert!(EXTENT_BYTES_MAX as u32 == BLOCK_BYTES_MAX);
const _: () = assert!(EXTENT_BYTES_MAX as u32 / BLOCK_BYTES_MIN == 16);

/// What a block is for. The numbers are on disk; 0 is a free block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub(crate) enum BlockKind {
    Superblock = 1,
    Data = 2,
    Chunk = 3,
    Leaf = 4,
    Table = 5,
    Manifest = 6,
}

impl BlockKind {
    pub(crate) const ALL: [BlockKind; 6] = [
        BlockKind::Superblock,
        BlockKind::Data,
        BlockKind::Chunk,
        BlockKind::Leaf,
        BlockKind::Table,
        BlockKind::Manifest,
    ];

    /// The kind of a number on disk.
    pub(crate) fn from_number(number: u8) -> Option<BlockKind> {
        BlockKind::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// The first bytes of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockHeader {
    pub(crate) kind: BlockKind,
    pub(crate) detail: u16,
    pub(crate) block: u32,
    pub(crate) sequence: u64,
}

impl BlockHeader {
    /// Writes the header over the first bytes of `block`, which is at least that long.
    pub(crate) fn encode_into(&self, block: &mut [u8]) {
        put(block, 0, [self.kind as u8, 0]);
        put(block, 2, self.detail.to_le_bytes());
        put(block, 4, self.block.to_le_bytes());
        put(block, 8, self.sequence.to_le_bytes());
    }

    /// Reads a header; `None` for an unknown kind or flags of a later release.
    pub(crate) fn decode(block: &[u8]) -> Option<BlockHeader> {
        let mut bytes = Reader::new(block);
        let kind = BlockKind::from_number(bytes.u8()?)?;
        if bytes.u8()? != 0 {
            return None;
        }
        Some(BlockHeader { kind, detail: bytes.u16()?, block: bytes.u32()?, sequence: bytes.u64()? })
    }

    /// Reads the header of a block that must be of `kind` and stand at `block`.
    pub(crate) fn expect(bytes: &[u8], kind: BlockKind, block: u32) -> Option<BlockHeader> {
        BlockHeader::decode(bytes).filter(|header| header.kind == kind && header.block == block)
    }
}

/// Blocks of the longest extent.
pub(crate) const fn extent_blocks_max(block_bytes: usize) -> usize {
    EXTENT_BYTES_MAX / block_bytes
}

/// Bytes of an extent's stream in each of its blocks.
pub(crate) const fn stream_bytes(block_bytes: usize) -> usize {
    block_bytes - BLOCK_HEADER_BYTES
}

/// Writes a field; the caller's offsets are constants that lie within `bytes`.
fn put<const N: usize>(bytes: &mut [u8], offset: usize, value: [u8; N]) {
    bytes[offset..offset + N].copy_from_slice(&value);
}

/// Reads fields one after the other from bytes that may be anything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*head)
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Option<u8> {
        let (&head, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(head)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    #[inline]
    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    #[inline]
    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A number in groups of seven bits, the lowest first, the top bit set on all but the last; at most 10 bytes.
    #[inline]
    pub(crate) fn varint(&mut self) -> Option<u64> {
        let first = self.u8()?;
        if first < 0x80 {
            return Some(u64::from(first));
        }
        let mut number = u64::from(first & 0x7f);
        for shift in (7..64).step_by(7) {
            let byte = self.u8()?;
            let group = u64::from(byte & 0x7f);
            if shift == 63 && group > 1 {
                return None;
            }
            number |= group << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }
}

/// Appends a number as [`Reader::varint`] reads it.
pub(crate) fn put_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Bytes that [`put_varint`] appends.
pub(crate) fn varint_bytes(number: u64) -> usize {
    (64 - (number | 1).leading_zeros() as usize).div_ceil(7)
}

#[cfg(test)]
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_numbers_of_kinds_are_fixed() {
        let numbers: Vec<u8> = BlockKind::ALL.iter().map(|kind| *kind as u8).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
        assert_eq!(BlockKind::from_number(0), None);
        assert_eq!(BlockKind::from_number(7), None);
    }

    #[test]
    fn the_bytes_of_a_block_header_are_fixed() {
        let header = BlockHeader { kind: BlockKind::Leaf, detail: 0x0201, block: 0x0605_0403, sequence: 9 };
        let mut bytes = [0xEE; 17];
        header.encode_into(&mut bytes);
        assert_eq!(hex(&bytes), "04000102030405060900000000000000ee");
        assert_eq!(BlockHeader::decode(&bytes), Some(header));
    }

    proptest! {
        #[test]
        fn every_varint_comes_back(number: u64, shift in 0u32..64) {
            let number = number >> shift;
            let mut bytes = Vec::new();
            put_varint(&mut bytes, number);
            prop_assert_eq!(bytes.len(), varint_bytes(number));
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.varint(), Some(number));
            prop_assert!(reader.rest().is_empty());
        }

        #[test]
        fn any_bytes_are_read_as_a_header_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Some(header) = BlockHeader::decode(&bytes) {
                let mut again = [0; BLOCK_HEADER_BYTES];
                header.encode_into(&mut again);
                prop_assert_eq!(&again[..], &bytes[..BLOCK_HEADER_BYTES]);
            }
            let _ = Reader::new(&bytes).varint();
        }
    }
}
