//! The manifest: everything of a checkpoint that its superblock has no room for.
//!
//! ```text
//!  manifest block   | block header | 16 next block u32 (0: last) | 20 next block's crc u32 | 24 bytes u32 | 28 zero u32 |
//!     32            | that many bytes of the manifest |
//!
//!  manifest   store id, 16 bytes
//!             u32 length, database map of the caller
//!             u32 length, at most 16 KiB: the dictionary of Zstandard that records refer to; none when it is 0
//!             u32 count, table pages in order:  block u32 | crc u32
//!             u32 count, databases by rising id:  id u32 | u32 count, leaves in order of their hashes:
//!                                                            first hash u64 | block u32 | crc u32 | entries u16
//! ```

use super::{BLOCK_HEADER_BYTES, BlockHeader, BlockKind, Reader, put};

/// Longest dictionary, bytes.
pub(crate) const DICTIONARY_BYTES_MAX: usize = 16 * 1024;

/// Bytes of a manifest block before its part of the manifest.
const MANIFEST_HEADER_BYTES: usize = 32;

/// A block and the checksum that it must have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BlockRef {
    pub(crate) block: u32,
    pub(crate) crc: u32,
}

/// A leaf as the directory knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeafRef {
    pub(crate) first_hash: u64,
    pub(crate) at: BlockRef,
    pub(crate) entries: u16,
}

/// The leaves of one database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DatabaseLeaves {
    pub(crate) database: u32,
    pub(crate) leaves: Vec<LeafRef>,
}

/// A manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) store_id: [u8; 16],
    pub(crate) databases: Vec<u8>,
    pub(crate) dictionary: Vec<u8>,
    pub(crate) pages: Vec<BlockRef>,
    pub(crate) directories: Vec<DatabaseLeaves>,
}

/// Bytes of a manifest's payload in one block.
pub(crate) const fn payload_bytes(block_bytes: usize) -> usize {
    block_bytes - MANIFEST_HEADER_BYTES
}

/// Bytes of a manifest with these parts.
pub(crate) fn encoded_bytes(
    database_map: usize,
    dictionary: usize,
    pages: usize,
    leaves: impl Iterator<Item = usize>,
) -> usize {
    16 + 4 + database_map + 4 + dictionary + 4 + pages * 8 + 4 + leaves.map(|count| 8 + count * 18).sum::<usize>()
}

impl Manifest {
    /// The manifest's bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&self.store_id);
        bytes.extend_from_slice(&(self.databases.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&self.databases);
        assert!(self.dictionary.len() <= DICTIONARY_BYTES_MAX, "a dictionary is short");
        bytes.extend_from_slice(&(self.dictionary.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&self.dictionary);
        bytes.extend_from_slice(&(self.pages.len() as u32).to_le_bytes());
        for page in &self.pages {
            bytes.extend_from_slice(&page.block.to_le_bytes());
            bytes.extend_from_slice(&page.crc.to_le_bytes());
        }
        bytes.extend_from_slice(&(self.directories.len() as u32).to_le_bytes());
        for directory in &self.directories {
            bytes.extend_from_slice(&directory.database.to_le_bytes());
            bytes.extend_from_slice(&(directory.leaves.len() as u32).to_le_bytes());
            for leaf in &directory.leaves {
                bytes.extend_from_slice(&leaf.first_hash.to_le_bytes());
                bytes.extend_from_slice(&leaf.at.block.to_le_bytes());
                bytes.extend_from_slice(&leaf.at.crc.to_le_bytes());
                bytes.extend_from_slice(&leaf.entries.to_le_bytes());
            }
        }
        bytes
    }

    /// Reads a manifest; `None` for other bytes, also when some are left over.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Manifest> {
        let mut reader = Reader::new(bytes);
        let store_id = reader.array()?;
        let map_bytes = reader.u32()? as usize;
        let databases = reader.bytes(map_bytes)?.to_vec();
        let dictionary_bytes = Some(reader.u32()? as usize).filter(|bytes| *bytes <= DICTIONARY_BYTES_MAX)?;
        let dictionary = reader.bytes(dictionary_bytes)?.to_vec();
        let mut manifest = Manifest { store_id, databases, dictionary, ..Manifest::default() };
        for _ in 0..reader.u32()? {
            manifest.pages.push(BlockRef { block: reader.u32()?, crc: reader.u32()? });
        }
        for _ in 0..reader.u32()? {
            let database = reader.u32()?;
            if manifest.directories.last().is_some_and(|last| last.database >= database) {
                return None;
            }
            let mut leaves: Vec<LeafRef> = Vec::new();
            for _ in 0..reader.u32()? {
                let first_hash = reader.u64()?;
                let at = BlockRef { block: reader.u32()?, crc: reader.u32()? };
                if leaves.last().is_some_and(|last| last.first_hash > first_hash) {
                    return None;
                }
                leaves.push(LeafRef { first_hash, at, entries: reader.u16()? });
            }
            manifest.directories.push(DatabaseLeaves { database, leaves });
        }
        reader.rest().is_empty().then_some(manifest)
    }
}

/// One block of a manifest.
pub(crate) fn encode_block(block_bytes: usize, block: u32, sequence: u64, next: BlockRef, part: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; block_bytes];
    BlockHeader { kind: BlockKind::Manifest, detail: 0, block, sequence }.encode_into(&mut bytes);
    put(&mut bytes, 16, next.block.to_le_bytes());
    put(&mut bytes, 20, next.crc.to_le_bytes());
    put(&mut bytes, 24, (part.len() as u32).to_le_bytes());
    bytes[MANIFEST_HEADER_BYTES..MANIFEST_HEADER_BYTES + part.len()].copy_from_slice(part);
    bytes
}

/// The part of the manifest in a block that stands at `block`, and the next block if there is one.
pub(crate) fn decode_block(bytes: &[u8], block: u32) -> Option<(&[u8], Option<BlockRef>)> {
    BlockHeader::expect(bytes, BlockKind::Manifest, block)?;
    let mut reader = Reader::new(bytes.get(BLOCK_HEADER_BYTES..)?);
    let next = BlockRef { block: reader.u32()?, crc: reader.u32()? };
    let count = reader.u32()? as usize;
    reader.u32()?;
    Some((reader.bytes(count)?, (next.block != 0).then_some(next)))
}

#[cfg(test)]
mod tests {
    use super::super::hex;
    use super::*;
    use proptest::prelude::*;

    fn manifest() -> Manifest {
        let leaf = |first_hash, block| LeafRef { first_hash, at: BlockRef { block, crc: 0xC0 }, entries: 3 };
        Manifest {
            store_id: *b"0123456789abcdef",
            databases: b"map".to_vec(),
            dictionary: b"words".to_vec(),
            pages: vec![BlockRef { block: 5, crc: 6 }],
            directories: vec![
                DatabaseLeaves { database: 0, leaves: vec![leaf(1, 10), leaf(2, 11)] },
                DatabaseLeaves { database: 9, leaves: vec![] },
            ],
        }
    }

    #[test]
    fn the_bytes_of_a_manifest_are_fixed() {
        let golden = "30313233343536373839616263646566\
                      030000006d6170\
                      05000000776f726473\
                      010000000500000006000000\
                      02000000\
                      0000000002000000\
                      01000000000000000a000000c00000000300\
                      02000000000000000b000000c00000000300\
                      0900000000000000";
        let bytes = manifest().encode();
        assert_eq!(hex(&bytes), golden);
        assert_eq!(bytes.len(), encoded_bytes(3, 5, 1, [2, 0].into_iter()));
        assert_eq!(Manifest::decode(&bytes), Some(manifest()));
    }

    #[test]
    fn the_bytes_of_a_manifest_block_are_fixed() {
        let next = BlockRef { block: 3, crc: 4 };
        let bytes = encode_block(4096, 2, 1, next, b"part");
        assert_eq!(
            hex(&bytes[..36]),
            "0600000002000000010000000000000003000000040000000400000000000000".to_owned() + "70617274"
        );
        assert_eq!(decode_block(&bytes, 2), Some((&b"part"[..], Some(next))));
        assert_eq!(decode_block(&bytes, 3), None);
    }

    proptest! {
        #[test]
        fn a_changed_manifest_is_read_without_a_panic(at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
            let mut bytes = manifest().encode();
            let place = at.index(bytes.len());
            bytes[place] = byte;
            bytes.truncate(cut.index(bytes.len()) + 1);
            if let Some(read) = Manifest::decode(&bytes) {
                prop_assert_eq!(read.encode(), bytes);
            }
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Manifest::decode(&bytes);
            let _ = decode_block(&bytes, 2);
        }
    }
}
