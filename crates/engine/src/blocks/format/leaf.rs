//! A leaf of the index: entries of one database in ascending order of their hashes.
//!
//! ```text
//!  leaf   | block header, detail = entries | 16 first hash u64 | 24 database u32 | 28 width u8 | 29 zeros |
//!   32    | hash - first hash, `width` bytes | block u32 | size code u8 |   ... one of these for each entry
//! ```
//!
//! `block` is the one that the entry's record starts in. Hashes of different keys may be equal, but no two records of
//! the same hash start in the same block, so hash and block together name a record. The size code tells how many bytes
//! the record takes, rounded up to units of 16:
//!
//! ```text
//!      0..16    that many units                     16..240   (16 + code % 16) << (code / 16 - 1) units
//!    240..=255  a record whose value lies in chunks, of at most (code - 239) * 9 units itself
//! ```

use super::{BLOCK_HEADER_BYTES, BlockHeader, BlockKind, Reader, put};

/// Bytes before the first entry.
pub(crate) const LEAF_HEADER_BYTES: usize = 32;
/// Bytes of the block number and the size code of an entry.
const REFERENCE_BYTES: usize = 5;
/// Bytes of a unit of size.
pub(crate) const UNIT_BYTES: usize = 16;
/// The first size code of a record in chunks.
pub(crate) const CODE_CHUNKED: u8 = 240;
/// Units of a record in chunks for each code from [`CODE_CHUNKED`].
const CHUNKED_UNITS: u32 = 9;
/// Longest record in chunks, without its value.
pub(crate) const CHUNKED_RECORD_BYTES_MAX: usize = 16 * CHUNKED_UNITS as usize * UNIT_BYTES;

const _: () = assert!(BLOCK_HEADER_BYTES + 16 == LEAF_HEADER_BYTES);

/// One entry of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct IndexEntry {
    pub(crate) hash: u64,
    pub(crate) block: u32,
    pub(crate) size_code: u8,
}

/// The smallest size code of a record of `bytes`.
pub(crate) fn size_code(bytes: usize, chunked: bool) -> u8 {
    let units = bytes.div_ceil(UNIT_BYTES) as u32;
    if chunked {
        assert!(bytes <= CHUNKED_RECORD_BYTES_MAX, "a record in chunks is short");
        return CODE_CHUNKED + (units.max(1).div_ceil(CHUNKED_UNITS) - 1) as u8;
    }
    if units < 16 {
        return units as u8;
    }
    let exponent = units.ilog2() - 4;
    let mantissa = units.div_ceil(1 << exponent); // 16..=32; 32 is the next exponent's 16
    let code = (exponent + 1) * 16 + (mantissa - 16);
    assert!(code < u32::from(CODE_CHUNKED), "a record that is this long lies in chunks");
    code as u8
}

/// Units of 16 bytes that a size code stands for.
pub(crate) fn code_units(code: u8) -> u32 {
    match u32::from(code) {
        units @ 0..16 => units,
        code if code >= u32::from(CODE_CHUNKED) => (code - u32::from(CODE_CHUNKED) + 1) * CHUNKED_UNITS,
        code => (16 + code % 16) << (code / 16 - 1),
    }
}

/// Bytes that a record of this size code takes at most.
pub(crate) fn code_bytes(code: u8) -> usize {
    code_units(code) as usize * UNIT_BYTES
}

/// Whether the value of a record of this size code lies in chunks.
pub(crate) fn is_chunked(code: u8) -> bool {
    code >= CODE_CHUNKED
}

/// Bytes that hold the difference of two hashes of one leaf.
fn width_of(span: u64) -> usize {
    (64 - (span | 1).leading_zeros() as usize).div_ceil(8)
}

/// How many of `entries`, which are in order, fit one leaf.
pub(crate) fn fitting(block_bytes: usize, entries: &[IndexEntry]) -> usize {
    let Some(first) = entries.first() else {
        return 0;
    };
    let room = block_bytes - LEAF_HEADER_BYTES;
    // The wider the leaf the fewer fit, so the widths are tried from the narrowest.
    let mut best = 0;
    for width in 1..=8 {
        let count = (room / (width + REFERENCE_BYTES)).min(entries.len());
        if count <= best {
            break;
        }
        let narrow = entries.get(best..count).unwrap_or_default();
        best += narrow.partition_point(|entry| width_of(entry.hash - first.hash) <= width);
    }
    best
}

/// Entries that fit a leaf whatever their hashes are.
pub(crate) fn capacity_min(block_bytes: usize) -> usize {
    (block_bytes - LEAF_HEADER_BYTES) / (8 + REFERENCE_BYTES)
}

/// The block of a leaf. `entries` are in order, not empty and fit.
pub(crate) fn encode(block_bytes: usize, block: u32, sequence: u64, database: u32, entries: &[IndexEntry]) -> Vec<u8> {
    let (first, last) = match entries {
        [first, .., last] => (first.hash, last.hash),
        [only] => (only.hash, only.hash),
        [] => unreachable!("a leaf is not empty"),
    };
    let width = width_of(last - first);
    let mut bytes = Vec::with_capacity(block_bytes);
    bytes.resize(LEAF_HEADER_BYTES, 0);
    BlockHeader { kind: BlockKind::Leaf, detail: entries.len() as u16, block, sequence }.encode_into(&mut bytes);
    put(&mut bytes, 16, first.to_le_bytes());
    put(&mut bytes, 24, database.to_le_bytes());
    put(&mut bytes, 28, [width as u8]);
    for entry in entries {
        let delta = (entry.hash - first).to_le_bytes();
        bytes.extend_from_slice(&delta[..width]);
        bytes.extend_from_slice(&entry.block.to_le_bytes());
        bytes.push(entry.size_code);
    }
    assert!(bytes.len() <= block_bytes, "the entries fit a leaf");
    bytes.resize(block_bytes, 0);
    bytes
}

/// The database of a block that may be a leaf.
pub(crate) fn database_of(bytes: &[u8]) -> Option<u32> {
    Reader::new(bytes.get(24..)?).u32()
}

/// Appends the entries of a leaf that stands at `block` to `entries`; `None` for any other bytes.
pub(crate) fn decode(bytes: &[u8], block: u32, database: u32, entries: &mut Vec<IndexEntry>) -> Option<()> {
    let header = BlockHeader::expect(bytes, BlockKind::Leaf, block)?;
    let mut reader = Reader::new(bytes.get(BLOCK_HEADER_BYTES..)?);
    let (first, its_database, width) = (reader.u64()?, reader.u32()?, usize::from(reader.u8()?));
    reader.bytes(3)?;
    if its_database != database || !(1..=8).contains(&width) {
        return None;
    }
    let all = reader.bytes(usize::from(header.detail) * (width + REFERENCE_BYTES))?;
    let mut previous = first;
    for entry in all.chunks_exact(width + REFERENCE_BYTES) {
        let (delta, reference) = entry.split_at_checked(width)?;
        let mut wide = [0; 8];
        wide.get_mut(..width)?.copy_from_slice(delta);
        let hash = first.checked_add(u64::from_le_bytes(wide))?;
        if hash < previous {
            return None;
        }
        previous = hash;
        let mut reference = Reader::new(reference);
        entries.push(IndexEntry { hash, block: reference.u32()?, size_code: reference.u8()? });
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::super::hex;
    use super::*;
    use proptest::prelude::*;

    fn entries(hashes: impl IntoIterator<Item = u64>) -> Vec<IndexEntry> {
        let mut all: Vec<IndexEntry> =
            hashes.into_iter().map(|hash| IndexEntry { hash, block: hash as u32 ^ 7, size_code: 3 }).collect();
        all.sort();
        all
    }

    #[test]
    fn the_bytes_of_a_leaf_are_fixed() {
        let entries = [
            IndexEntry { hash: 0x1_0000, block: 0x0403_0201, size_code: 5 },
            IndexEntry { hash: 0x1_0102, block: 9, size_code: 240 },
        ];
        let bytes = encode(4096, 0x55, 8, 3, &entries);
        let golden = "04000200550000000800000000000000\
                      00000100000000000300000002000000\
                      00000102030405\
                      020109000000f0";
        assert_eq!(hex(&bytes[..46]), golden);
        assert!(bytes.len() == 4096 && bytes[46..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_leaf_of_another_place_or_database_is_not_taken() {
        let bytes = encode(4096, 5, 8, 3, &entries([1, 2]));
        assert!(decode(&bytes, 5, 3, &mut Vec::new()).is_some());
        assert!(decode(&bytes, 6, 3, &mut Vec::new()).is_none());
        assert!(decode(&bytes, 5, 4, &mut Vec::new()).is_none());
    }

    #[test]
    fn size_codes_round_up_and_rise() {
        for bytes in (0..49_200).chain([65_535, 65_536]) {
            let code = size_code(bytes, false);
            assert!(code < CODE_CHUNKED && code_bytes(code) >= bytes, "{bytes}");
            assert!(code_bytes(code) <= bytes + 15 + bytes / 16 + 16, "{bytes} became {}", code_bytes(code));
            assert!(code == 0 || code_bytes(code - 1) < bytes.max(1), "{bytes} has a smaller code");
        }
        for bytes in 0..=CHUNKED_RECORD_BYTES_MAX {
            let code = size_code(bytes, true);
            assert!(is_chunked(code) && code_bytes(code) >= bytes && code_bytes(code) < bytes.max(1) + 144, "{bytes}");
        }
    }

    proptest! {
        #[test]
        fn what_fits_comes_back(
            hashes in prop::collection::vec(any::<u64>(), 1..900), shift in 0u32..64, base: u64, block: u32,
        ) {
            let all = entries(hashes.iter().map(|hash| (base >> 1) + ((hash >> 1) >> shift)));
            let count = fitting(4096, &all);
            prop_assert!(count >= capacity_min(4096).min(all.len()));
            let bytes = encode(4096, block, 1, 2, &all[..count]);
            let mut read = Vec::new();
            prop_assert!(decode(&bytes, block, 2, &mut read).is_some());
            prop_assert_eq!(&read[..], &all[..count]);
            if let Some(next) = all.get(count) {
                let wide = width_of(next.hash - all[0].hash);
                prop_assert!((count + 1) * (wide + REFERENCE_BYTES) + LEAF_HEADER_BYTES > 4096, "one more fits");
            }
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(
            mut bytes in prop::collection::vec(any::<u8>(), 0..300), count: u8, width in 0u8..10,
        ) {
            let _ = decode(&bytes, 5, 3, &mut Vec::new());
            if bytes.len() >= LEAF_HEADER_BYTES {
                let detail = u16::from(count);
                BlockHeader { kind: BlockKind::Leaf, detail, block: 5, sequence: 1 }.encode_into(&mut bytes);
                put(&mut bytes, 24, 3u32.to_le_bytes());
                put(&mut bytes, 28, [width]);
                let _ = decode(&bytes, 5, 3, &mut Vec::new());
            }
        }
    }
}
