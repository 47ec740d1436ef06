//! A page of the block table: for each block of the file what it is, and for data and chunks its checksum.
//!
//! ```text
//!  table page   | block header | 16 page number u32 | 20 zero u32 |
//!     24        | crc u32 | info u32 |      ... one of these for each block; page p begins with block p * entries
//!
//!  info   bit 0..4 kind (0: free)   4..8 place in the extent   8..12 extent blocks - 1   12..32 live units
//! ```
//!
//! Superblocks, leaves, table pages and manifest blocks have a kind alone: their checksums stand where they are
//! referred to. The live units of an extent (of 16 bytes, as size codes round them) are kept with its first block; a
//! chunk extent has 1. An extent whose live units are 0 is free.

use super::{BlockHeader, BlockKind, Reader, put};

/// Bytes before the first entry.
const PAGE_HEADER_BYTES: usize = 24;
const ENTRY_BYTES: usize = 8;
/// Most live units of an extent.
pub(crate) const LIVE_UNITS_MAX: u32 = (1 << 20) - 1;

/// What the table says of one block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TableEntry {
    /// Checksum of a data or chunk block.
    pub(crate) crc: u32,
    info: u32,
}

impl TableEntry {
    /// A free block.
    pub(crate) const FREE: TableEntry = TableEntry { crc: 0, info: 0 };

    /// A block that is no part of an extent.
    pub(crate) fn single(kind: BlockKind) -> TableEntry {
        TableEntry { crc: 0, info: kind as u32 }
    }

    /// Block number `place` of an extent of `blocks`.
    pub(crate) fn extent(kind: BlockKind, crc: u32, place: u32, blocks: u32, live: u32) -> TableEntry {
        assert!(place < blocks && blocks <= 16, "an extent has 1 to 16 blocks");
        TableEntry { crc, info: kind as u32 | place << 4 | (blocks - 1) << 8 }.with_live(live)
    }

    /// The same with other live units.
    pub(crate) fn with_live(self, live: u32) -> TableEntry {
        assert!(live <= LIVE_UNITS_MAX, "an extent's live units fit 20 bits");
        TableEntry { info: self.info & 0xfff | live << 12, ..self }
    }

    /// What the block is for; `None` for a free one.
    pub(crate) fn kind(self) -> Option<BlockKind> {
        BlockKind::from_number((self.info & 0xf) as u8)
    }

    /// Whether the block is free.
    pub(crate) fn is_free(self) -> bool {
        self.info == 0
    }

    /// Its place in its extent.
    pub(crate) fn place(self) -> u32 {
        self.info >> 4 & 0xf
    }

    /// Blocks of its extent; 1 for a block that is no part of one.
    pub(crate) fn extent_blocks(self) -> u32 {
        (self.info >> 8 & 0xf) + 1
    }

    /// Live units of its extent, at the extent's first block.
    pub(crate) fn live(self) -> u32 {
        self.info >> 12
    }
}

/// Entries of a page.
pub(crate) const fn entries_per_page(block_bytes: usize) -> usize {
    (block_bytes - PAGE_HEADER_BYTES) / ENTRY_BYTES
}

/// The block of a table page; `entries` fit.
pub(crate) fn encode(block_bytes: usize, block: u32, sequence: u64, page: u32, entries: &[TableEntry]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(block_bytes);
    bytes.resize(PAGE_HEADER_BYTES, 0);
    BlockHeader { kind: BlockKind::Table, detail: 0, block, sequence }.encode_into(&mut bytes);
    put(&mut bytes, 16, page.to_le_bytes());
    for entry in entries {
        bytes.extend_from_slice(&entry.crc.to_le_bytes());
        bytes.extend_from_slice(&entry.info.to_le_bytes());
    }
    assert!(bytes.len() <= block_bytes, "the entries fit a page");
    bytes.resize(block_bytes, 0);
    bytes
}

/// The number that a block says it has as a page of the table.
pub(crate) fn page_of(bytes: &[u8]) -> Option<u32> {
    Reader::new(bytes.get(super::BLOCK_HEADER_BYTES..)?).u32()
}

/// The entries of page `page`, all that the block has room for; `None` for any other bytes.
pub(crate) fn decode(bytes: &[u8], block: u32, page: u32) -> Option<Vec<TableEntry>> {
    BlockHeader::expect(bytes, BlockKind::Table, block)?;
    let mut reader = Reader::new(bytes.get(super::BLOCK_HEADER_BYTES..)?);
    if reader.u32()? != page || reader.u32()? != 0 {
        return None;
    }
    let mut entries = Vec::with_capacity(reader.rest().len() / ENTRY_BYTES);
    while let (Some(crc), Some(info)) = (reader.u32(), reader.u32()) {
        let entry = TableEntry { crc, info };
        if !entry.is_valid() {
            return None;
        }
        entries.push(entry);
    }
    Some(entries)
}

impl TableEntry {
    fn is_valid(self) -> bool {
        match self.kind() {
            None => self == TableEntry::FREE,
            Some(BlockKind::Data | BlockKind::Chunk) => self.place() < self.extent_blocks(),
            Some(_) => self.crc == 0 && self.info <= 0xf,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::hex;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_bytes_of_a_table_page_are_fixed() {
        let entries = [
            TableEntry::single(BlockKind::Superblock),
            TableEntry::FREE,
            TableEntry::extent(BlockKind::Data, 0x0403_0201, 0, 3, 0x12345),
            TableEntry::extent(BlockKind::Chunk, 0x0807_0605, 15, 16, 0),
        ];
        let bytes = encode(4096, 7, 2, 9, &entries);
        let golden = "05000000070000000200000000000000\
                      0900000000000000\
                      0000000001000000\
                      0000000000000000\
                      0102030402523412\
                      05060708f30f0000";
        assert_eq!(hex(&bytes[..56]), golden);
        let read = decode(&bytes, 7, 9).unwrap();
        assert_eq!(read.len(), entries_per_page(4096));
        assert_eq!(read[..4], entries);
        assert!(decode(&bytes, 7, 8).is_none() && decode(&bytes, 8, 9).is_none());
    }

    #[test]
    fn an_entry_keeps_what_it_is_given() {
        let entry = TableEntry::extent(BlockKind::Data, 5, 2, 16, 77);
        assert_eq!((entry.kind(), entry.place(), entry.extent_blocks()), (Some(BlockKind::Data), 2, 16));
        assert_eq!((entry.live(), entry.with_live(LIVE_UNITS_MAX).live(), entry.crc), (77, LIVE_UNITS_MAX, 5));
        assert!(TableEntry::FREE.is_free() && !entry.is_free());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes, 1, 2);
            if bytes.len() >= PAGE_HEADER_BYTES {
                BlockHeader { kind: BlockKind::Table, detail: 0, block: 1, sequence: 1 }.encode_into(&mut bytes);
                put(&mut bytes, 16, 2u64.to_le_bytes());
                let _ = decode(&bytes, 1, 2);
            }
        }
    }
}
