//! The bytes of an RDB as they come: counted, summed, and grown into memory only as far as they are there.

use std::io::{self, Read};

use crate::crc64;
use crate::error::ReadError;
use crate::format::{ENCODED, ENCODED_I8, ENCODED_I16, ENCODED_I32, ENCODED_LZF, LENGTH_14, LENGTH_32, LENGTH_64};
use crate::limits::PIECE_BYTES;
use crate::lzf;

/// A source whose bytes are counted and summed.
#[derive(Debug)]
pub(crate) struct Input<R> {
    source: R,
    offset: u64,
    checksum: u64,
    /// Bytes that are walked over, or an LZF string before it is decompressed.
    scratch: Vec<u8>,
}

/// What stands where a length may stand.
pub(crate) enum Length {
    /// A number of bytes or elements.
    Plain(u64),
    /// How the string that follows is encoded.
    Encoded(u8),
}

/// What became of a string.
pub(crate) enum Text {
    /// It was appended.
    Whole,
    /// It is this long, more than the limit, and was walked over.
    TooLong(u64),
}

impl<R: Read> Input<R> {
    pub(crate) fn new(source: R) -> Self {
        Input { source, offset: 0, checksum: 0, scratch: Vec::new() }
    }

    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    pub(crate) fn checksum(&self) -> u64 {
        self.checksum
    }

    pub(crate) fn into_source(self) -> R {
        self.source
    }

    pub(crate) fn damaged(&self, what: &'static str) -> ReadError {
        ReadError::Damaged { offset: self.offset, what }
    }

    /// Fills `buffer` wholly.
    pub(crate) fn fill(&mut self, buffer: &mut [u8], what: &'static str) -> Result<(), ReadError> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.source.read(rest) {
                Ok(0) => return Err(ReadError::Truncated { offset: self.offset + done as u64, what }),
                Ok(length) => done += length,
                Err(source) if source.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(ReadError::Io { offset: self.offset + done as u64, source }),
            }
        }
        self.offset += done as u64;
        self.checksum = crc64::extend(self.checksum, buffer);
        Ok(())
    }

    pub(crate) fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], ReadError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes, what)?;
        Ok(bytes)
    }

    pub(crate) fn byte(&mut self, what: &'static str) -> Result<u8, ReadError> {
        self.array::<1>(what).map(|[byte]| byte)
    }

    /// Appends `length` bytes to `to`, which grows as they come.
    fn append(&mut self, length: u64, to: &mut Vec<u8>, what: &'static str) -> Result<(), ReadError> {
        let mut left = length;
        while left > 0 {
            let piece = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE_BYTES);
            let begin = to.len();
            to.resize(begin + piece, 0);
            self.fill(to.get_mut(begin..).unwrap_or_default(), what)?;
            left -= piece as u64;
        }
        Ok(())
    }

    /// Walks over `length` bytes.
    pub(crate) fn discard(&mut self, length: u64, what: &'static str) -> Result<(), ReadError> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut left = length;
        while left > 0 {
            let piece = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE_BYTES);
            scratch.resize(piece, 0);
            self.fill(&mut scratch, what)?;
            left -= piece as u64;
        }
        self.scratch = scratch;
        Ok(())
    }

    pub(crate) fn length_or_encoding(&mut self, what: &'static str) -> Result<Length, ReadError> {
        let first = self.byte(what)?;
        Ok(match first {
            0..LENGTH_14 => Length::Plain(u64::from(first)),
            LENGTH_14..LENGTH_32 => {
                let low = self.byte(what)?;
                Length::Plain(u64::from(u16::from_be_bytes([first & 0x3f, low])))
            }
            LENGTH_32 => Length::Plain(u64::from(u32::from_be_bytes(self.array(what)?))),
            LENGTH_64 => Length::Plain(u64::from_be_bytes(self.array(what)?)),
            ENCODED.. => Length::Encoded(first & 0x3f),
            _ => return Err(self.damaged("a length begins with a byte that means nothing")),
        })
    }

    pub(crate) fn length(&mut self, what: &'static str) -> Result<u64, ReadError> {
        match self.length_or_encoding(what)? {
            Length::Plain(length) => Ok(length),
            Length::Encoded(_) => Err(self.damaged("an encoded string stands where a length must be")),
        }
    }

    /// Appends a string to `to`, or walks over it when it is longer than `bytes_max`.
    pub(crate) fn string(&mut self, bytes_max: u64, to: &mut Vec<u8>, what: &'static str) -> Result<Text, ReadError> {
        match self.length_or_encoding(what)? {
            Length::Plain(length) if length > bytes_max => {
                self.discard(length, what)?;
                return Ok(Text::TooLong(length));
            }
            Length::Plain(length) => self.append(length, to, what)?,
            Length::Encoded(ENCODED_LZF) => return self.compressed(bytes_max, to, what),
            Length::Encoded(encoding) => {
                let number = self.small_integer(encoding, what)?;
                to.extend_from_slice(number.to_string().as_bytes());
            }
        }
        Ok(Text::Whole)
    }

    /// Walks over a string; the bytes of a compressed one are not decompressed.
    pub(crate) fn skip_string(&mut self, what: &'static str) -> Result<(), ReadError> {
        match self.length_or_encoding(what)? {
            Length::Plain(length) => self.discard(length, what),
            Length::Encoded(ENCODED_LZF) => {
                let compressed = self.length(what)?;
                self.length(what)?;
                self.discard(compressed, what)
            }
            Length::Encoded(encoding) => self.small_integer(encoding, what).map(drop),
        }
    }

    fn small_integer(&mut self, encoding: u8, what: &'static str) -> Result<i32, ReadError> {
        match encoding {
            ENCODED_I8 => Ok(i32::from(i8::from_le_bytes(self.array(what)?))),
            ENCODED_I16 => Ok(i32::from(i16::from_le_bytes(self.array(what)?))),
            ENCODED_I32 => Ok(i32::from_le_bytes(self.array(what)?)),
            _ => Err(self.damaged("a string has an encoding that means nothing")),
        }
    }

    fn compressed(&mut self, bytes_max: u64, to: &mut Vec<u8>, what: &'static str) -> Result<Text, ReadError> {
        let (compressed, plain) = (self.length(what)?, self.length(what)?);
        if plain > bytes_max {
            self.discard(compressed, what)?;
            return Ok(Text::TooLong(plain));
        }
        // Compressed by this much at most, and never made longer: a false pair of lengths is seen before its bytes.
        if compressed > plain {
            return Err(self.damaged("a compressed string is longer than what it stands for"));
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        self.append(compressed, &mut scratch, what)?;
        let begin = to.len();
        let decompressed = lzf::decompress(&scratch, to, plain as usize);
        if scratch.capacity() > 4 * PIECE_BYTES {
            scratch = Vec::new();
        }
        self.scratch = scratch;
        if decompressed.is_none() || (to.len() - begin) as u64 != plain {
            return Err(self.damaged("a compressed string cannot be decompressed to its length"));
        }
        Ok(Text::Whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn length_of(bytes: &[u8]) -> Result<u64, ReadError> {
        Input::new(bytes).length("a length")
    }

    fn string_of(bytes: &[u8]) -> Result<Vec<u8>, ReadError> {
        let mut text = Vec::new();
        Input::new(bytes).string(1000, &mut text, "a string")?;
        Ok(text)
    }

    #[test]
    fn a_length_has_four_forms() {
        assert_eq!(length_of(&[63]).ok(), Some(63));
        assert_eq!(length_of(&[0x7f, 0xff]).ok(), Some(16383));
        assert_eq!(length_of(&[0x80, 1, 2, 3, 4]).ok(), Some(0x0102_0304));
        assert_eq!(length_of(&[0x81, 1, 0, 0, 0, 0, 0, 0, 2]).ok(), Some((1 << 56) + 2));
        assert!(matches!(length_of(&[0x82]), Err(ReadError::Damaged { offset: 1, .. })));
        assert!(matches!(length_of(&[0xc0, 1]), Err(ReadError::Damaged { .. })));
        assert!(matches!(length_of(&[0x80, 1]), Err(ReadError::Truncated { offset: 2, .. })));
    }

    #[test]
    fn an_encoded_integer_is_its_digits() {
        assert_eq!(string_of(&[0xc0, 0x80]).ok().as_deref(), Some(&b"-128"[..]));
        assert_eq!(string_of(&[0xc1, 0xff, 0x7f]).ok().as_deref(), Some(&b"32767"[..]));
        assert_eq!(string_of(&[0xc2, 0, 0, 0, 0x80]).ok().as_deref(), Some(&b"-2147483648"[..]));
        assert!(matches!(string_of(&[0xc4, 0]), Err(ReadError::Damaged { .. })));
    }

    #[test]
    fn a_compressed_string_has_exactly_its_length() {
        assert_eq!(string_of(b"\xc3\x04\x04\x00a\x20\x00").ok().as_deref(), Some(&b"aaaa"[..]));
        assert!(matches!(string_of(b"\xc3\x04\x05\x00a\x20\x00"), Err(ReadError::Damaged { offset: 7, .. })));
        assert!(matches!(string_of(b"\xc3\x04\x03\x00a\x20\x00"), Err(ReadError::Damaged { .. })));
    }

    #[test]
    fn a_promised_length_allocates_nothing_before_its_bytes_come() {
        let mut text = Vec::new();
        let promise = [0x81, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, b'x'];
        let result = Input::new(&promise[..]).string(u64::MAX, &mut text, "a string");
        assert!(matches!(result, Err(ReadError::Truncated { offset: 10, .. })));
        assert!(text.capacity() <= 2 * PIECE_BYTES);
    }
}
