//! The blocks of a data or chunk extent; the drawing stands at the head of `format`.

use super::{BLOCK_HEADER_BYTES, BlockHeader, BlockKind, NO_RECORD, stream_bytes};

/// What is put into an extent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent<'a> {
    pub(crate) kind: BlockKind,
    /// Its first block.
    pub(crate) block: u32,
    pub(crate) sequence: u64,
    pub(crate) stream: &'a [u8],
    /// Where in the stream records start, ascending.
    pub(crate) starts: &'a [u32],
}

/// Why the blocks of an extent are not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadBlock {
    /// The block.
    pub(crate) block: u32,
    pub(crate) what: &'static str,
}

impl Extent<'_> {
    /// Blocks that the extent takes.
    pub(crate) fn blocks(&self, block_bytes: usize) -> usize {
        self.stream.len().div_ceil(stream_bytes(block_bytes)).max(1)
    }

    /// The extent's blocks, and the checksum of each.
    pub(crate) fn encode(&self, block_bytes: usize) -> (Vec<u8>, Vec<u32>) {
        let stream_bytes = stream_bytes(block_bytes);
        let mut bytes = vec![0; self.blocks(block_bytes) * block_bytes];
        let mut parts = self.stream.chunks(stream_bytes);
        let mut starts = self.starts.iter().peekable();
        let mut crcs = Vec::new();
        for (place, block) in bytes.chunks_exact_mut(block_bytes).enumerate() {
            let end = (place + 1) * stream_bytes;
            let mut detail = NO_RECORD;
            while let Some(start) = starts.next_if(|start| (**start as usize) < end) {
                if detail == NO_RECORD {
                    detail = (*start as usize - place * stream_bytes + BLOCK_HEADER_BYTES) as u16;
                }
            }
            let number = self.block + place as u32;
            BlockHeader { kind: self.kind, detail, block: number, sequence: self.sequence }.encode_into(block);
            let part = parts.next().unwrap_or_default();
            block[BLOCK_HEADER_BYTES..BLOCK_HEADER_BYTES + part.len()].copy_from_slice(part);
            crcs.push(crc32c::crc32c(block));
        }
        (bytes, crcs)
    }
}

/// Checks the blocks in `bytes`, the first of which is `block`, and appends their part of the stream to `stream`.
/// Returns where in the appended part the first record starts.
pub(crate) fn decode(
    bytes: &[u8],
    block_bytes: usize,
    kind: BlockKind,
    block: u32,
    crc_of: impl Fn(u32) -> u32,
    stream: &mut Vec<u8>,
) -> Result<Option<usize>, BadBlock> {
    let mut first = None;
    for (place, bytes) in bytes.chunks(block_bytes).enumerate() {
        let number = block + place as u32;
        let bad = |what| BadBlock { block: number, what };
        if bytes.len() < block_bytes {
            return Err(bad("the file ends within a block"));
        }
        if crc32c::crc32c(bytes) != crc_of(number) {
            return Err(bad("a block of data is not what was written"));
        }
        let header = BlockHeader::expect(bytes, kind, number).ok_or(bad("a block of data has a wrong header"))?;
        let part = bytes.get(BLOCK_HEADER_BYTES..).unwrap_or_default();
        if first.is_none() && header.detail != NO_RECORD {
            let start = usize::from(header.detail).checked_sub(BLOCK_HEADER_BYTES).filter(|start| *start < part.len());
            first = Some(place * part.len() + start.ok_or(bad("a block of data has a wrong header"))?);
        }
        stream.extend_from_slice(part);
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::super::hex;
    use super::*;

    #[test]
    fn the_bytes_of_an_extent_are_fixed() {
        let stream: Vec<u8> = (0..4080 * 2 + 3).map(|n| n as u8).collect();
        let starts = [0, 100, 8160];
        let extent = Extent { kind: BlockKind::Data, block: 0x0A, sequence: 3, stream: &stream, starts: &starts };
        let (bytes, crcs) = extent.encode(4096);
        assert_eq!((bytes.len(), crcs.len()), (3 * 4096, 3));
        assert_eq!(hex(&bytes[..18]), "020010000a0000000300000000000000".to_owned() + "0001");
        assert_eq!(hex(&bytes[4096..4114]), "0200ffff0b0000000300000000000000".to_owned() + "f0f1");
        assert_eq!(hex(&bytes[8192..8213]), "020010000c0000000300000000000000".to_owned() + "e0e1e20000");
        let crc_of = |block: u32| crcs[block as usize - 10];
        let mut read = Vec::new();
        assert_eq!(decode(&bytes, 4096, BlockKind::Data, 10, crc_of, &mut read), Ok(Some(0)));
        assert_eq!(read[..stream.len()], stream);
        let mut tail = Vec::new();
        assert_eq!(decode(&bytes[4096..], 4096, BlockKind::Data, 11, crc_of, &mut tail), Ok(Some(4080)));
        assert_eq!(tail[..], read[4080..]);
    }

    #[test]
    fn a_block_that_is_not_what_was_written_is_named() {
        let extent = Extent { kind: BlockKind::Chunk, block: 5, sequence: 3, stream: &[1; 5000], starts: &[] };
        let (mut bytes, crcs) = extent.encode(4096);
        let crc_of = |block: u32| crcs[block as usize - 5];
        let mut read = Vec::new();
        assert_eq!(decode(&bytes, 4096, BlockKind::Chunk, 5, crc_of, &mut read), Ok(None));
        let wrong_kind = decode(&bytes, 4096, BlockKind::Data, 5, crc_of, &mut read);
        assert_eq!(wrong_kind.unwrap_err().block, 5);
        bytes[4096 + 77] ^= 1;
        assert_eq!(decode(&bytes, 4096, BlockKind::Chunk, 5, crc_of, &mut read).unwrap_err().block, 6);
        let short = decode(&bytes[..4000], 4096, BlockKind::Chunk, 5, crc_of, &mut read);
        assert_eq!(short.unwrap_err().what, "the file ends within a block");
    }
}
