//! Words in quotes: how a line becomes arguments, and how bytes become a line.
//!
//! ```text
//!   plain              up to a space, tab, CR or LF; a quote may open inside a word
//!   "..."              \n \r \t \b \a, \xHH for any byte, \ before anything else is that byte
//!   '...'              bytes as they are; only \' is an escape
//!   a closing quote must be followed by a space or the end
//! ```
//!
//! These are the rules of Redis for inline requests, `redis-cli` and configuration files. One difference: a NUL byte ends
//! a line in Redis, here it is a byte like any other.

use crate::{ArgRange, ProtocolError};

/// Splits a line into its words, unescaped. An empty line has none.
///
/// # Errors
/// [`ProtocolError::UnbalancedQuotes`] for a quote that is not closed or is followed by more text;
/// [`ProtocolError::BufferTooLarge`] for a line over 4 GiB.
///
/// ```
/// let words = bowline_resp::split_inline(br#"SET "a key" 'it\'s' \x"#).unwrap();
/// assert_eq!(words, [&b"SET"[..], b"a key", b"it's", b"\\x"]);
/// ```
pub fn split_inline(line: &[u8]) -> Result<Vec<Vec<u8>>, ProtocolError> {
    let (mut bytes, mut ranges) = (Vec::new(), Vec::new());
    split_into(line, &mut bytes, &mut ranges)?;
    Ok(crate::Args::new(&bytes, &ranges).iter().map(<[u8]>::to_vec).collect())
}

/// The bytes as one word in double quotes that [`split_inline`] reads back, all of it printable ASCII.
///
/// ```
/// assert_eq!(bowline_resp::quote(b"a\n\xff\""), r#""a\n\xff\"""#);
/// ```
#[must_use]
pub fn quote(bytes: &[u8]) -> String {
    const HEX: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let mut text = String::with_capacity(bytes.len() + 2);
    text.push('"');
    for &byte in bytes {
        match byte {
            b'\\' => text.push_str("\\\\"),
            b'"' => text.push_str("\\\""),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b'\t' => text.push_str("\\t"),
            7 => text.push_str("\\a"),
            8 => text.push_str("\\b"),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => {
                text.push_str("\\x");
                text.push(HEX[usize::from(byte >> 4)]);
                text.push(HEX[usize::from(byte & 15)]);
            }
        }
    }
    text.push('"');
    text
}

/// Appends the words of `line`, unescaped, to `bytes`, and where each lies in `bytes` to `ranges`.
pub(crate) fn split_into(line: &[u8], bytes: &mut Vec<u8>, ranges: &mut Vec<ArgRange>) -> Result<(), ProtocolError> {
    let mut rest = line;
    loop {
        while let [b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c, tail @ ..] = rest {
            rest = tail;
        }
        if rest.is_empty() {
            return Ok(());
        }
        let start = bytes.len();
        rest = read_word(rest, bytes)?;
        let (Ok(start), Ok(len)) = (u32::try_from(start), u32::try_from(bytes.len() - start)) else {
            return Err(ProtocolError::BufferTooLarge);
        };
        ranges.push(ArgRange { start, len });
    }
}

/// Appends one word to `bytes` and returns what follows it.
fn read_word<'a>(mut rest: &'a [u8], bytes: &mut Vec<u8>) -> Result<&'a [u8], ProtocolError> {
    loop {
        match rest {
            [b' ' | b'\t' | b'\n' | b'\r', tail @ ..] => return Ok(tail),
            [b'"', tail @ ..] => return read_double_quoted(tail, bytes),
            [b'\'', tail @ ..] => return read_single_quoted(tail, bytes),
            [byte, tail @ ..] => {
                bytes.push(*byte);
                rest = tail;
            }
            [] => return Ok(rest),
        }
    }
}

fn read_double_quoted<'a>(mut rest: &'a [u8], bytes: &mut Vec<u8>) -> Result<&'a [u8], ProtocolError> {
    loop {
        rest = match rest {
            [b'"', tail @ ..] => return after_quote(tail),
            [b'\\', b'x', high, low, tail @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                bytes.push(hex_digit(*high) << 4 | hex_digit(*low));
                tail
            }
            [b'\\', escaped, tail @ ..] => {
                bytes.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                tail
            }
            [byte, tail @ ..] => {
                bytes.push(*byte);
                tail
            }
            [] => return Err(ProtocolError::UnbalancedQuotes),
        }
    }
}

fn read_single_quoted<'a>(mut rest: &'a [u8], bytes: &mut Vec<u8>) -> Result<&'a [u8], ProtocolError> {
    loop {
        rest = match rest {
            [b'\\', b'\'', tail @ ..] => {
                bytes.push(b'\'');
                tail
            }
            [b'\'', tail @ ..] => return after_quote(tail),
            [byte, tail @ ..] => {
                bytes.push(*byte);
                tail
            }
            [] => return Err(ProtocolError::UnbalancedQuotes),
        }
    }
}

/// A closing quote ends the word: only white space or the end may follow.
fn after_quote(rest: &[u8]) -> Result<&[u8], ProtocolError> {
    match rest {
        [] | [b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c, ..] => Ok(rest),
        _ => Err(ProtocolError::UnbalancedQuotes),
    }
}

/// The value of a byte that is a hexadecimal digit.
fn hex_digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}
