//! Replies as bytes, in the protocol that the connection speaks. Commands call this; nothing here can fail.
//!
//! A command writes exactly one value, or an array, map, set or push followed by exactly as many values as it announced.
//! Text from outside cannot end a line early: CR and LF in simple strings and errors become spaces, as in Redis.

use crate::chunks::Chunks;
use crate::format_double;

/// Which protocol a connection speaks. HELLO changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// What every client understands, and every connection starts with.
    #[default]
    Resp2,
    /// Adds maps, sets, doubles, booleans, one null, pushes.
    Resp3,
}

/// A part of a reply that is not in the output itself but in chunks, which it shares.
#[derive(Debug, Clone)]
pub struct LongPart {
    /// It comes after so many bytes of the output.
    pub at: usize,
    /// Where its bytes are.
    pub chunks: Chunks,
    /// The first of them.
    pub start: usize,
    /// The end of them.
    pub end: usize,
}

/// Shorter parts than this are copied, bytes: that costs less than a write of their own.
const LONG_FROM: usize = 16 * 1024;

/// Writes the reply of one command at the end of a connection's output.
#[derive(Debug)]
pub struct Reply<'a> {
    out: &'a mut Vec<u8>,
    /// Where long parts go; without it they are copied.
    long: Option<&'a mut Vec<LongPart>>,
    /// Bytes that this reply has in long parts.
    long_bytes: usize,
    start: usize,
    protocol: Protocol,
}

/// Type, 20 digits of a length, CR LF.
const HEADER_BYTES_MAX: usize = 23;

impl<'a> Reply<'a> {
    /// A reply that begins at the end of `out`; what stands there already is never touched.
    #[inline]
    pub fn new(out: &'a mut Vec<u8>, protocol: Protocol) -> Self {
        let start = out.len();
        Self { out, long: None, long_bytes: 0, start, protocol }
    }

    /// As [`Reply::new`]; long parts go to the end of `long` instead of being copied.
    #[inline]
    pub fn with_long(out: &'a mut Vec<u8>, long: &'a mut Vec<LongPart>, protocol: Protocol) -> Self {
        let start = out.len();
        Self { out, long: Some(long), long_bytes: 0, start, protocol }
    }

    /// The protocol in which this reply is written.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// `OK`.
    #[inline]
    pub fn ok(&mut self) {
        self.out.extend_from_slice(b"+OK\r\n");
    }

    /// A short status text. CR and LF become spaces.
    pub fn simple(&mut self, text: &str) {
        self.line(b'+', text.as_bytes());
    }

    /// An error: its code, a space, its message (`ERR syntax error`), without the leading `-`. CR and LF become spaces.
    pub fn error(&mut self, text: &str) {
        self.line(b'-', text.as_bytes());
    }

    /// As [`error`](Self::error), for a text that repeats a client's bytes. CR and LF at its end are left out.
    pub fn error_bytes(&mut self, text: &[u8]) {
        let end = text.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |last| last + 1);
        self.line(b'-', text.get(..end).unwrap_or_default());
    }

    /// An integer.
    #[inline]
    pub fn integer(&mut self, value: i64) {
        self.header(b':', value);
    }

    /// A string of any bytes.
    #[inline]
    pub fn bulk(&mut self, bytes: &[u8]) {
        self.out.reserve(HEADER_BYTES_MAX + bytes.len() + 2);
        self.length(b'$', bytes.len());
        self.out.extend_from_slice(bytes);
        self.out.extend_from_slice(b"\r\n");
    }

    /// The bytes from `start` to before `end` of a string in chunks; they lie within it.
    pub fn bulk_chunks(&mut self, chunks: &Chunks, start: usize, end: usize) {
        let end = end.min(chunks.len());
        let len = end.saturating_sub(start);
        self.length(b'$', len);
        match &mut self.long {
            Some(long) if len >= LONG_FROM => {
                long.push(LongPart { at: self.out.len(), chunks: chunks.clone(), start, end });
                self.long_bytes += len;
            }
            _ => chunks.range(start, end).for_each(|part| self.out.extend_from_slice(part)),
        }
        self.out.extend_from_slice(b"\r\n");
    }

    /// An integer written as a string, for values that are numbers by chance.
    #[inline]
    pub fn bulk_integer(&mut self, value: i64) {
        self.bulk(itoa::Buffer::new().format(value).as_bytes());
    }

    /// Nothing, where a string could be.
    #[inline]
    pub fn null(&mut self) {
        self.by_protocol(b"$-1\r\n", b"_\r\n");
    }

    /// Nothing, where an array could be (an EXEC that was aborted, a pop that timed out).
    pub fn null_array(&mut self) {
        self.by_protocol(b"*-1\r\n", b"_\r\n");
    }

    /// The head of an array: `len` values must follow.
    #[inline]
    pub fn array(&mut self, len: usize) {
        self.length(b'*', len);
    }

    /// The head of a map: `pairs` times a key and a value must follow. In RESP2 a flat array.
    ///
    /// # Panics
    /// If twice the number of pairs does not fit a `usize`.
    pub fn map(&mut self, pairs: usize) {
        match self.protocol {
            Protocol::Resp2 => self.length(b'*', pairs * 2),
            Protocol::Resp3 => self.length(b'%', pairs),
        }
    }

    /// The head of a set: `len` distinct values must follow. In RESP2 an array.
    pub fn set(&mut self, len: usize) {
        let kind = self.kind(b'*', b'~');
        self.length(kind, len);
    }

    /// The head of a message that answers no request: `len` values must follow. In RESP2 an array.
    pub fn push(&mut self, len: usize) {
        let kind = self.kind(b'*', b'>');
        self.length(kind, len);
    }

    /// A floating point number, as [`format_double`] writes it. In RESP2 a string.
    pub fn double(&mut self, value: f64) {
        let text = format_double(value);
        match self.protocol {
            Protocol::Resp2 => self.bulk(text.as_bytes()),
            Protocol::Resp3 => self.line(b',', text.as_str().as_bytes()),
        }
    }

    /// True or false. In RESP2 the integer 1 or 0.
    pub fn boolean(&mut self, value: bool) {
        if value { self.by_protocol(b":1\r\n", b"#t\r\n") } else { self.by_protocol(b":0\r\n", b"#f\r\n") }
    }

    /// Text for people with a format of three ASCII letters (`txt`, `mkd`; longer is cut, shorter filled with spaces).
    /// In RESP2 a string without the format.
    pub fn verbatim(&mut self, format: &str, text: &[u8]) {
        if self.protocol == Protocol::Resp2 {
            return self.bulk(text);
        }
        let mut name = *b"   ";
        for (place, byte) in name.iter_mut().zip(format.bytes()) {
            *place = if byte.is_ascii_graphic() { byte } else { b' ' };
        }
        self.length(b'=', text.len() + 4);
        self.out.extend_from_slice(&name);
        self.out.push(b':');
        self.out.extend_from_slice(text);
        self.out.extend_from_slice(b"\r\n");
    }

    /// An integer of any size by its decimal digits, with a leading `-` if negative. In RESP2 a string.
    pub fn big_number(&mut self, digits: &str) {
        match self.protocol {
            Protocol::Resp2 => self.bulk(digits.as_bytes()),
            Protocol::Resp3 => self.line(b'(', digits.as_bytes()),
        }
    }

    /// How many bytes this reply has so far, long parts aside: its place in the output.
    #[must_use]
    #[inline]
    pub fn bytes_written(&self) -> usize {
        self.out.len() - self.start
    }

    /// How many bytes this reply has so far, long parts counted.
    #[must_use]
    #[inline]
    pub fn bytes_in_all(&self) -> usize {
        self.bytes_written() + self.long_bytes
    }

    /// Cuts the reply back to an earlier [`bytes_written`](Self::bytes_written), for instance to answer an error instead.
    /// A length beyond the end changes nothing.
    pub fn rollback(&mut self, len: usize) {
        let end = self.start.saturating_add(len);
        self.out.truncate(end);
        if let Some(long) = &mut self.long {
            while let Some(gone) = long.pop_if(|part| part.at > end) {
                self.long_bytes = self.long_bytes.saturating_sub(gone.end - gone.start);
            }
        }
    }

    /// Bytes that are already in the protocol of this connection.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    fn kind(&self, resp2: u8, resp3: u8) -> u8 {
        match self.protocol {
            Protocol::Resp2 => resp2,
            Protocol::Resp3 => resp3,
        }
    }

    #[inline]
    fn by_protocol(&mut self, resp2: &[u8], resp3: &[u8]) {
        self.out.extend_from_slice(match self.protocol {
            Protocol::Resp2 => resp2,
            Protocol::Resp3 => resp3,
        });
    }

    fn line(&mut self, kind: u8, text: &[u8]) {
        self.out.reserve(text.len() + 3);
        self.out.push(kind);
        let start = self.out.len();
        self.out.extend_from_slice(text);
        for byte in self.out.iter_mut().skip(start) {
            if matches!(byte, b'\r' | b'\n') {
                *byte = b' ';
            }
        }
        self.out.extend_from_slice(b"\r\n");
    }

    #[inline]
    fn length(&mut self, kind: u8, value: usize) {
        write_length(self.out, kind, value);
    }

    #[inline]
    fn header(&mut self, kind: u8, value: i64) {
        match u8::try_from(value) {
            Ok(digit @ 0..=9) => self.out.extend_from_slice(&[kind, b'0' + digit, b'\r', b'\n']),
            _ => write_number(self.out, kind, itoa::Buffer::new().format(value)),
        }
    }
}

/// A line of a type byte and a length. Short lengths, nearly all there are, are written in one piece.
#[inline]
pub(crate) fn write_length(out: &mut Vec<u8>, kind: u8, value: usize) {
    match value {
        0..=9 => out.extend_from_slice(&[kind, b'0' + value as u8, b'\r', b'\n']),
        10..=99 => out.extend_from_slice(&[kind, b'0' + (value / 10) as u8, b'0' + (value % 10) as u8, b'\r', b'\n']),
        _ => write_number(out, kind, itoa::Buffer::new().format(value)),
    }
}

fn write_number(out: &mut Vec<u8>, kind: u8, digits: &str) {
    out.reserve(digits.len() + 3);
    out.push(kind);
    out.extend_from_slice(digits.as_bytes());
    out.extend_from_slice(b"\r\n");
}
