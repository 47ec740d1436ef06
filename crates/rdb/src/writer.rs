//! Writes an RDB of strings that Redis from 7.0 on, Valkey, and every tool for their files can load.
//!
//! Integers of up to 32 bits and what LZF makes smaller are encoded as Redis does. Not here: syncing and renaming the
//! file, which is its owner's business.

use std::io::{self, Write};

use crate::crc64;
use crate::format::{
    AUX, DEFAULT_VERSION, ENCODED, ENCODED_I8, ENCODED_I16, ENCODED_I32, ENCODED_LZF, END, EXPIRE_MILLISECONDS,
    LENGTH_14, LENGTH_32, LENGTH_64, RESIZE_DATABASE, SELECT_DATABASE, STRING,
};
use crate::lzf;

/// Strings longer than this are tried with LZF, as Redis does.
const COMPRESSED_FROM_BYTES: usize = 21;
/// Longer strings stay as they are: the compressed form would be built beside them in memory.
const COMPRESSED_TO_BYTES: usize = 64 * 1024 * 1024;
/// The most digits of an integer that is encoded, with its sign.
const INTEGER_DIGITS_MAX: usize = 11;

/// An RDB being written: fields about the file first, then databases with their entries, then [`finish`](Writer::finish).
#[derive(Debug)]
pub struct Writer<W> {
    output: W,
    checksum: u64,
    compress: bool,
    /// The bytes of one call, so that the output gets them in one piece.
    pending: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Writes the header (version [`DEFAULT_VERSION`]) to `output`, which should be buffered.
    ///
    /// # Errors
    /// When the output cannot be written; so for every call.
    pub fn new(output: W) -> io::Result<Self> {
        let mut writer = Writer { output, checksum: 0, compress: true, pending: Vec::new() };
        writer.pending.extend_from_slice(format!("REDIS{DEFAULT_VERSION:04}").as_bytes());
        writer.flush_pending()?;
        Ok(writer)
    }

    /// Whether strings are compressed where that makes them smaller; on at first.
    pub fn set_compress(&mut self, compress: bool) {
        self.compress = compress;
    }

    /// Writes a field about the file, for instance `redis-ver`, `ctime` or one of one's own.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn auxiliary(&mut self, name: &str, value: &str) -> io::Result<()> {
        self.pending.push(AUX);
        self.put_string(name.as_bytes());
        self.put_string(value.as_bytes());
        self.flush_pending()
    }

    /// The following entries belong to database `number`. A database may be written in one part only.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn database(&mut self, number: u64) -> io::Result<()> {
        self.pending.push(SELECT_DATABASE);
        put_length(&mut self.pending, number);
        self.flush_pending()
    }

    /// Says how many keys follow in this database, and how many of them expire, so that a reader can make room.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn sizes(&mut self, keys: u64, expiring: u64) -> io::Result<()> {
        self.pending.push(RESIZE_DATABASE);
        put_length(&mut self.pending, keys);
        put_length(&mut self.pending, expiring);
        self.flush_pending()
    }

    /// Writes an entry; `expires_at_ms` counts milliseconds since 1970.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn entry(&mut self, key: &[u8], value: &[u8], expires_at_ms: Option<i64>) -> io::Result<()> {
        if let Some(at) = expires_at_ms {
            self.pending.push(EXPIRE_MILLISECONDS);
            self.pending.extend_from_slice(&at.to_le_bytes());
        }
        self.pending.push(STRING);
        self.put_string(key);
        self.put_string(value);
        self.flush_pending()
    }

    /// Writes the end mark and the checksum, flushes, and gives the output back.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn finish(mut self) -> io::Result<W> {
        self.pending.push(END);
        self.flush_pending()?;
        self.output.write_all(&self.checksum.to_le_bytes())?;
        self.output.flush()?;
        Ok(self.output)
    }

    fn put_string(&mut self, bytes: &[u8]) {
        if let Some(number) = small_integer(bytes) {
            put_integer(&mut self.pending, number);
            return;
        }
        let worth_trying = self.compress && (COMPRESSED_FROM_BYTES..=COMPRESSED_TO_BYTES).contains(&bytes.len());
        match worth_trying.then(|| lzf::compress(bytes)).flatten() {
            Some(compressed) => {
                self.pending.push(ENCODED | ENCODED_LZF);
                put_length(&mut self.pending, compressed.len() as u64);
                put_length(&mut self.pending, bytes.len() as u64);
                self.pending.extend_from_slice(&compressed);
            }
            None => {
                put_length(&mut self.pending, bytes.len() as u64);
                self.pending.extend_from_slice(bytes);
            }
        }
    }

    fn flush_pending(&mut self) -> io::Result<()> {
        self.checksum = crc64::extend(self.checksum, &self.pending);
        let written = self.output.write_all(&self.pending);
        self.pending.clear();
        written
    }
}

fn put_length(out: &mut Vec<u8>, length: u64) {
    if let Ok(small) = u8::try_from(length)
        && small < LENGTH_14
    {
        out.push(small);
    } else if let Ok(medium) = u16::try_from(length)
        && medium < 1 << 14
    {
        let [high, low] = medium.to_be_bytes();
        out.extend([LENGTH_14 | high, low]);
    } else if let Ok(large) = u32::try_from(length) {
        out.push(LENGTH_32);
        out.extend_from_slice(&large.to_be_bytes());
    } else {
        out.push(LENGTH_64);
        out.extend_from_slice(&length.to_be_bytes());
    }
}

/// The integer that is written exactly as `bytes`, if it has at most 32 bits.
fn small_integer(bytes: &[u8]) -> Option<i32> {
    if bytes.len() > INTEGER_DIGITS_MAX {
        return None;
    }
    let number: i32 = std::str::from_utf8(bytes).ok()?.parse().ok()?;
    (number.to_string().as_bytes() == bytes).then_some(number)
}

fn put_integer(out: &mut Vec<u8>, number: i32) {
    if let Ok(byte) = i8::try_from(number) {
        out.push(ENCODED | ENCODED_I8);
        out.extend_from_slice(&byte.to_le_bytes());
    } else if let Ok(short) = i16::try_from(number) {
        out.push(ENCODED | ENCODED_I16);
        out.extend_from_slice(&short.to_le_bytes());
    } else {
        out.push(ENCODED | ENCODED_I32);
        out.extend_from_slice(&number.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_digits_that_would_come_back_are_an_integer() {
        assert_eq!(small_integer(b"-2147483648"), Some(i32::MIN));
        for text in [&b"2147483648"[..], b"+1", b"01", b"-0", b" 1", b"", b"1.0"] {
            assert_eq!(small_integer(text), None);
        }
    }

    #[test]
    fn a_length_is_written_in_its_shortest_form() {
        for (length, bytes) in
            [(63, &[63][..]), (64, &[0x40, 64]), (16383, &[0x7f, 0xff]), (16384, &[0x80, 0, 0, 0x40, 0])]
        {
            let mut out = Vec::new();
            put_length(&mut out, length);
            assert_eq!(out, bytes);
        }
        let mut out = Vec::new();
        put_length(&mut out, 1 << 32);
        assert_eq!(out, [0x81, 0, 0, 0, 1, 0, 0, 0, 0]);
    }
}
