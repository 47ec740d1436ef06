//! LZF, the compression of strings in RDB files.
//!
//! ```text
//!   000LLLLL                    L + 1 bytes follow as they are
//!   LLLooooo oooooooo           copy L + 2 bytes (L 1 to 6) from o + 1 bytes back
//!   111ooooo LLLLLLLL oooooooo  copy L + 9 bytes from o + 1 bytes back
//! ```
//!
//! A copy may reach into what it is writing: that is how runs are told. Not here: whether compressing is worth it.

/// Farthest back that a copy reaches.
const DISTANCE_MAX: usize = 1 << 13;
/// Longest copy.
const COPY_MAX: usize = 255 + 9;
/// Longest run of bytes told as they are.
const LITERAL_MAX: usize = 32;
/// Places remembered by the compressor, a power of two.
const PLACES: usize = 1 << 14;

/// Appends what `compressed` stands for to `plain`; never more than `bytes_max` bytes. `None` when it is not LZF or would
/// be longer.
pub(crate) fn decompress(compressed: &[u8], plain: &mut Vec<u8>, bytes_max: usize) -> Option<()> {
    let begin = plain.len();
    let mut rest = compressed;
    while let Some(control) = take(&mut rest) {
        let room = bytes_max - (plain.len() - begin);
        if control < 32 {
            let (literal, after) = rest.split_at_checked(usize::from(control) + 1)?;
            if literal.len() > room {
                return None;
            }
            plain.extend_from_slice(literal);
            rest = after;
        } else {
            let mut length = usize::from(control >> 5) + 2;
            if length == 9 {
                length += usize::from(take(&mut rest)?);
            }
            let distance = (usize::from(control & 31) << 8 | usize::from(take(&mut rest)?)) + 1;
            if length > room || distance > plain.len() - begin {
                return None;
            }
            copy_back(plain, distance, length);
        }
    }
    Some(())
}

fn take(bytes: &mut &[u8]) -> Option<u8> {
    let (first, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(*first)
}

/// Appends `length` bytes from `distance` back, which must be there.
fn copy_back(plain: &mut Vec<u8>, distance: usize, mut length: usize) {
    let from = plain.len() - distance;
    while length > 0 {
        // What lies between `from` and the end repeats, so each round may copy all of it.
        let piece = length.min(plain.len() - from);
        plain.extend_from_within(from..from + piece);
        length -= piece;
    }
}

/// `plain` in LZF, or `None` when that would not save at least four bytes, as Redis has it.
pub(crate) fn compress(plain: &[u8]) -> Option<Vec<u8>> {
    let worth = plain.len().checked_sub(4).filter(|worth| *worth > 0)?;
    let mut places = vec![usize::MAX; PLACES];
    let mut out = Vec::with_capacity(plain.len() / 2);
    let (mut literal_begin, mut at) = (0, 0);
    while let Some(next) = plain.get(at..at + 3) {
        let [a, b, c] = *next else { break };
        let hash = (u32::from_le_bytes([a, b, c, 0]).wrapping_mul(0x9e37_79b1) >> 18) as usize & (PLACES - 1);
        let candidate = std::mem::replace(&mut places[hash], at);
        let usable = candidate < at && at - candidate <= DISTANCE_MAX;
        let length = if usable { common(plain, candidate, at) } else { 0 };
        if length < 3 {
            at += 1;
            continue;
        }
        put_literals(&mut out, plain.get(literal_begin..at).unwrap_or_default());
        put_copy(&mut out, at - candidate - 1, length);
        at += length;
        literal_begin = at;
        if out.len() > worth {
            return None;
        }
    }
    put_literals(&mut out, plain.get(literal_begin..).unwrap_or_default());
    (out.len() <= worth).then_some(out)
}

/// How many bytes from `at` on are the same as those from `before` on.
fn common(plain: &[u8], before: usize, at: usize) -> usize {
    let here = plain.iter().skip(at).take(COPY_MAX);
    here.zip(plain.iter().skip(before)).take_while(|(one, other)| one == other).count()
}

fn put_literals(out: &mut Vec<u8>, bytes: &[u8]) {
    for piece in bytes.chunks(LITERAL_MAX) {
        out.push((piece.len() - 1) as u8);
        out.extend_from_slice(piece);
    }
}

fn put_copy(out: &mut Vec<u8>, offset: usize, length: usize) {
    let high = (offset >> 8) as u8;
    match length - 2 {
        short @ 1..=6 => out.push((short as u8) << 5 | high),
        long => out.extend([7 << 5 | high, (long - 7) as u8]),
    }
    out.push(offset as u8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plain_of(compressed: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
        let mut plain = b"before".to_vec();
        decompress(compressed, &mut plain, bytes_max)?;
        Some(plain.split_off(6))
    }

    #[test]
    fn literals_and_copies_are_told_apart() {
        assert_eq!(plain_of(b"\x02abc", 3), Some(b"abc".to_vec()));
        assert_eq!(plain_of(b"\x00a\x20\x00", 4), Some(b"aaaa".to_vec()), "a copy may reach into itself");
        assert_eq!(plain_of(b"\x01ab\xe0\x00\x01", 11), Some(b"abababababa".to_vec()));
    }

    #[test]
    fn a_copy_never_reaches_before_the_string() {
        assert_eq!(plain_of(b"\x00a\x20\x01", 100), None);
        assert_eq!(plain_of(b"\x20\x00", 100), None);
    }

    #[test]
    fn a_longer_string_than_promised_is_refused() {
        assert_eq!(plain_of(b"\x02abc", 2), None);
        assert_eq!(plain_of(b"\x00a\xe0\xff\x00", 100), None);
        assert_eq!(plain_of(b"\x05abc", 100), None, "bytes are missing");
    }

    #[test]
    fn what_cannot_be_made_smaller_is_left_alone() {
        assert_eq!(compress(b""), None);
        assert_eq!(compress(b"abcdefgh"), None);
        assert!(compress(&[b'x'; 1000]).expect("a run").len() < 30);
    }

    proptest! {
        #[test]
        fn what_is_compressed_comes_back(plain in prop::collection::vec(prop::sample::select(&b"abc\0"[..]), 0..5000)) {
            if let Some(compressed) = compress(&plain) {
                prop_assert!(compressed.len() + 4 <= plain.len());
                prop_assert_eq!(plain_of(&compressed, plain.len()), Some(plain));
            }
        }

        #[test]
        fn any_bytes_are_answered_within_the_promised_length(bytes: Vec<u8>, bytes_max in 0_usize..500) {
            let plain = plain_of(&bytes, bytes_max);
            prop_assert!(plain.is_none_or(|plain| plain.len() <= bytes_max));
        }
    }
}
