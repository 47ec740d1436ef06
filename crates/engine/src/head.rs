//! What the head of every file of a store begins with, in every format to come.
//!
//! ```text
//!    0 magic, 8 bytes    8 crc u32 of bytes 12..length    12 format u16    14 length u16: bytes of the head
//! ```
//!
//! Little-endian, CRC-32C. So a head of a format that this release does not know can still be told from one whose format
//! number has rotted: the first fits its checksum. Not here: what else is in a head (the `format` of each file).

/// Most bytes of a head: it lies within one sector, which a disk writes whole or not at all.
pub(crate) const HEAD_BYTES_MAX: usize = 512;

/// The bytes before what the crc covers.
const COVERED_FROM: usize = 12;
/// Bytes that every head has.
const HEAD_BYTES_MIN: usize = 16;

/// What stands where a head should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeadRead {
    /// A whole head of a format up to the newest known one; so many bytes.
    Known(usize),
    /// A whole head of a newer format.
    TooNew(u16),
    /// Something else, or damage.
    None,
}

/// Looks at the head at the start of `bytes`; behind it may stand anything.
pub(crate) fn read(bytes: &[u8], magic: [u8; 8], newest_format: u16) -> HeadRead {
    let Some((begin, after_crc)) = bytes.split_first_chunk::<COVERED_FROM>() else { return HeadRead::None };
    let Some([f0, f1, l0, l1]) = after_crc.first_chunk() else { return HeadRead::None };
    let (format, length) = (u16::from_le_bytes([*f0, *f1]), usize::from(u16::from_le_bytes([*l0, *l1])));
    let covered = bytes.get(COVERED_FROM..length).filter(|_| (HEAD_BYTES_MIN..=HEAD_BYTES_MAX).contains(&length));
    let Some(crc) = covered.map(crc32c::crc32c) else { return HeadRead::None };
    if begin[..8] != magic || begin[8..] != crc.to_le_bytes() || format == 0 {
        return HeadRead::None;
    }
    if format > newest_format { HeadRead::TooNew(format) } else { HeadRead::Known(length) }
}

/// Makes a head's crc right for what is in it: a test that changes heads needs it.
#[cfg(test)]
pub(crate) fn seal(head: &mut [u8]) {
    let crc = crc32c::crc32c(&head[COVERED_FROM..]).to_le_bytes();
    head[8..COVERED_FROM].copy_from_slice(&crc);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAGIC: [u8; 8] = *b"BOWL-TST";

    fn head(format: u16, length: usize) -> Vec<u8> {
        let mut head = vec![7; length];
        head[..8].copy_from_slice(&MAGIC);
        head[12..14].copy_from_slice(&format.to_le_bytes());
        head[14..16].copy_from_slice(&(length as u16).to_le_bytes());
        seal(&mut head);
        head
    }

    #[test]
    fn a_newer_format_is_named_whatever_else_its_head_holds() {
        for length in [16, 96, 512] {
            assert_eq!(read(&[head(4, length), vec![9; 30]].concat(), MAGIC, 4), HeadRead::Known(length));
            assert_eq!(read(&[head(5, length), vec![9; 30]].concat(), MAGIC, 4), HeadRead::TooNew(5));
        }
    }

    #[test]
    fn a_rotten_bit_makes_no_newer_format() {
        let sound = head(1, 96);
        for bit in 0..sound.len() * 8 {
            let mut rotten = sound.clone();
            rotten[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&rotten, MAGIC, 1), HeadRead::None, "bit {bit}");
        }
    }

    #[test]
    fn what_is_too_short_or_too_long_is_no_head() {
        assert_eq!(read(&head(1, 513), MAGIC, 1), HeadRead::None);
        assert_eq!(read(&head(0, 96), MAGIC, 1), HeadRead::None);
        let sound = head(1, 96);
        assert!((0..96).all(|length| read(&sound[..length], MAGIC, 1) == HeadRead::None));
    }
}
