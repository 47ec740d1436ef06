//! The plain text protocol as pure functions: one request a line, one reply a line, for people with `nc` and scripts.
//!
//! ```text
//!   request                  replies
//!   PUT "key" "value"        OK
//!   GET "key"                the value, or NOT_FOUND
//!   DELETE "key"             OK, or NOT_FOUND
//!   EXISTS "key"             true or false
//!   SIZE                     a number
//!   PING                     PONG
//!   FLUSH                    OK
//!   STATS                    lines of "name: value"
//!   AUTH "password"          OK             (only where a password is set)
//!   QUIT                     OK, then the connection closes
//!   anything else            ERROR message
//! ```
//!
//! A line ends in LF or CR LF. Command words are case-insensitive. Words follow the quoting of
//! [`bowline_resp::split_inline`]: `"..."` with `\n \r \t \b \a \" \\ \xHH`, `'...'`, or plain where nothing needs
//! quotes. A value is answered plain where a line can carry it unmistakably, else in double quotes with the same
//! escapes: when it is empty, holds a control byte or bytes that are no UTF-8, begins with a quote, begins or ends in a
//! space, or reads like `NOT_FOUND` or an `ERROR`.
//!
//! Not here: execution, limits on connections, authentication (`text`).

use bowline_resp::{ProtocolError, quote, split_inline};

/// Longest line of a request in bytes, line end included: room for the largest value with every byte escaped would be
/// gigabytes; the Redis protocol is the one for such values. A longer line is an error that closes the connection.
pub const LINE_BYTES_MAX: usize = 64 << 20;

/// A request, unescaped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextRequest {
    /// Stores a value.
    Put {
        /// The key.
        key: Vec<u8>,
        /// Its new value.
        value: Vec<u8>,
    },
    /// Asks for a value.
    Get(Vec<u8>),
    /// Removes a key.
    Delete(Vec<u8>),
    /// Asks whether a key is there.
    Exists(Vec<u8>),
    /// Asks for the number of keys.
    Size,
    /// Asks for a sign of life.
    Ping,
    /// Removes every key.
    Flush,
    /// Asks for the figures of the server.
    Stats,
    /// Gives the password.
    Auth(Vec<u8>),
    /// Ends the connection.
    Quit,
}

/// Why a line is no request. The text is what the client reads after `ERROR `.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// A quote is not closed or is followed by text.
    #[error("unbalanced quotes: write words as \"...\" with \\\" for a quote")]
    Quotes,
    /// No such command.
    #[error("unknown command {0}: PUT GET DELETE EXISTS SIZE PING FLUSH STATS AUTH QUIT are known")]
    Unknown(String),
    /// Too few or too many words.
    #[error("wrong number of words: {0}")]
    Arity(&'static str),
    /// The line goes on for too long.
    #[error("line longer than {LINE_BYTES_MAX} bytes: use the Redis protocol for such values")]
    LineTooLong,
}

/// Where the first line of some bytes ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// Its end has not arrived.
    Incomplete,
    /// The line is `..text_end`, the next one begins at `end`.
    Complete {
        /// End of the text, without the line end.
        text_end: usize,
        /// Where the next line begins.
        end: usize,
    },
}

/// Finds the end of the line that `bytes` begin with; the first `searched` bytes are known to hold none.
///
/// # Errors
/// [`TextError::LineTooLong`] when the line cannot end within [`LINE_BYTES_MAX`].
pub fn first_line(bytes: &[u8], searched: usize) -> Result<Line, TextError> {
    let fresh = bytes.get(searched..).unwrap_or_default();
    let Some(found) = fresh.iter().position(|byte| *byte == b'\n') else {
        return if bytes.len() >= LINE_BYTES_MAX { Err(TextError::LineTooLong) } else { Ok(Line::Incomplete) };
    };
    let feed = searched.min(bytes.len()) + found;
    if feed >= LINE_BYTES_MAX {
        return Err(TextError::LineTooLong);
    }
    let text = bytes.get(..feed).unwrap_or_default();
    Ok(Line::Complete { text_end: text.strip_suffix(b"\r").unwrap_or(text).len(), end: feed + 1 })
}

/// Reads one line without its end. `None` for an empty line, which asks for nothing.
///
/// # Errors
/// [`TextError`] when the line is no request; the connection can go on with the next line.
///
/// ```
/// use bowline_server::text::codec::{TextRequest, parse_request};
/// let request = parse_request(br#"put "a key" "two\nlines""#);
/// assert_eq!(request, Ok(Some(TextRequest::Put { key: b"a key".to_vec(), value: b"two\nlines".to_vec() })));
/// ```
pub fn parse_request(line: &[u8]) -> Result<Option<TextRequest>, TextError> {
    let words = split_inline(line).map_err(|_: ProtocolError| TextError::Quotes)?;
    let mut words = words.into_iter();
    let Some(name) = words.next() else { return Ok(None) };
    let rest: Vec<Vec<u8>> = words.collect();
    let request = match name.to_ascii_uppercase().as_slice() {
        b"PUT" => {
            let [key, value] = exactly(rest, "PUT \"key\" \"value\"")?;
            TextRequest::Put { key, value }
        }
        b"GET" => TextRequest::Get(one(rest, "GET \"key\"")?),
        b"DELETE" => TextRequest::Delete(one(rest, "DELETE \"key\"")?),
        b"EXISTS" => TextRequest::Exists(one(rest, "EXISTS \"key\"")?),
        b"AUTH" => TextRequest::Auth(one(rest, "AUTH \"password\"")?),
        b"SIZE" => none(rest, TextRequest::Size, "SIZE")?,
        b"PING" => none(rest, TextRequest::Ping, "PING")?,
        b"FLUSH" => none(rest, TextRequest::Flush, "FLUSH")?,
        b"STATS" => none(rest, TextRequest::Stats, "STATS")?,
        b"QUIT" => none(rest, TextRequest::Quit, "QUIT")?,
        _ => return Err(TextError::Unknown(quote(name.get(..64).unwrap_or(&name)))),
    };
    Ok(Some(request))
}

fn exactly<const N: usize>(words: Vec<Vec<u8>>, syntax: &'static str) -> Result<[Vec<u8>; N], TextError> {
    words.try_into().map_err(|_| TextError::Arity(syntax))
}

fn one(words: Vec<Vec<u8>>, syntax: &'static str) -> Result<Vec<u8>, TextError> {
    exactly::<1>(words, syntax).map(|[word]| word)
}

fn none(words: Vec<Vec<u8>>, request: TextRequest, syntax: &'static str) -> Result<TextRequest, TextError> {
    exactly::<0>(words, syntax).map(|[]| request)
}

/// Writes a value as a reply line, in quotes where it needs them.
pub fn write_value(out: &mut Vec<u8>, value: &[u8]) {
    if is_plain(value) {
        out.extend_from_slice(value);
    } else {
        out.extend_from_slice(quote(value).as_bytes());
    }
    out.push(b'\n');
}

/// Writes an error as a reply line; line ends in it become spaces.
pub fn write_error(out: &mut Vec<u8>, message: &str) {
    out.extend_from_slice(b"ERROR ");
    out.extend(message.bytes().map(|byte| if byte.is_ascii_control() { b' ' } else { byte }));
    out.push(b'\n');
}

/// Whether a line carries the value unmistakably without quotes.
fn is_plain(value: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(value) else { return false };
    !text.is_empty()
        && !text.chars().any(char::is_control)
        && !text.starts_with(['"', '\'', ' '])
        && !text.ends_with(' ')
        && text != "NOT_FOUND"
        && !text.starts_with("ERROR")
}

/// Fuzz door: any bytes, as a connection would deliver them. Panics only on a mistake of ours: a plain or quoted value
/// that does not read back.
pub fn fuzz(bytes: &[u8]) {
    let mut rest = bytes;
    while let Ok(Line::Complete { text_end, end }) = first_line(rest, 0) {
        let line = rest.get(..text_end).unwrap_or_default();
        if let Ok(Some(TextRequest::Put { value, .. })) = parse_request(line) {
            let mut out = b"GET ".to_vec();
            out.extend_from_slice(quote(&value).as_bytes());
            assert_eq!(parse_request(&out), Ok(Some(TextRequest::Get(value))), "a quoted value must read back");
        }
        rest = rest.get(end..).unwrap_or_default();
    }
    let mut out = Vec::new();
    write_value(&mut out, bytes);
    assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1, "a value is one line");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_request_of_the_grammar_is_read() {
        let cases: [(&[u8], TextRequest); 10] = [
            (br#"PUT "k" "v""#, TextRequest::Put { key: b"k".to_vec(), value: b"v".to_vec() }),
            (b"get k", TextRequest::Get(b"k".to_vec())),
            (br#"DELETE "\x00\xff""#, TextRequest::Delete(vec![0, 255])),
            (b"Exists 'a b'", TextRequest::Exists(b"a b".to_vec())),
            (b"SIZE", TextRequest::Size),
            (b" PING ", TextRequest::Ping),
            (b"FLUSH", TextRequest::Flush),
            (b"STATS", TextRequest::Stats),
            (b"AUTH secret", TextRequest::Auth(b"secret".to_vec())),
            (b"QUIT", TextRequest::Quit),
        ];
        for (line, request) in cases {
            assert_eq!(parse_request(line), Ok(Some(request)));
        }
        assert_eq!(parse_request(b"  "), Ok(None));
    }

    #[test]
    fn wrong_lines_are_errors_that_say_what_to_write() {
        assert_eq!(parse_request(b"PUT k"), Err(TextError::Arity("PUT \"key\" \"value\"")));
        assert_eq!(parse_request(br#"GET "k"#), Err(TextError::Quotes));
        assert!(parse_request(b"HGET a b").unwrap_err().to_string().contains("HGET"));
        assert_eq!(parse_request(b"SIZE now"), Err(TextError::Arity("SIZE")));
    }

    #[test]
    fn a_line_may_arrive_in_any_pieces() {
        assert_eq!(first_line(b"GET", 0), Ok(Line::Incomplete));
        assert_eq!(first_line(b"GET k\r\nPI", 3), Ok(Line::Complete { text_end: 5, end: 7 }));
        assert_eq!(first_line(b"\n", 0), Ok(Line::Complete { text_end: 0, end: 1 }));
        assert_eq!(first_line(b"\n", 9), Ok(Line::Incomplete));
    }

    #[test]
    fn an_endless_line_is_refused() {
        assert_eq!(first_line(&vec![b'x'; LINE_BYTES_MAX], 0), Err(TextError::LineTooLong));
    }

    #[test]
    fn ambiguous_values_are_quoted_and_others_are_not() {
        let shown = |value: &[u8]| {
            let mut out = Vec::new();
            write_value(&mut out, value);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(shown(b"plain value"), "plain value\n");
        assert_eq!(shown("größe".as_bytes()), "größe\n");
        assert_eq!(shown(b"NOT_FOUND"), "\"NOT_FOUND\"\n");
        assert_eq!(shown(b""), "\"\"\n");
        assert_eq!(shown(b"a\nb"), "\"a\\nb\"\n");
        assert_eq!(shown(b"\xff"), "\"\\xff\"\n");
    }

    proptest! {
        #[test]
        fn any_key_and_value_survive_quoting(key: Vec<u8>, value: Vec<u8>) {
            let line = format!("PUT {} {}", quote(&key), quote(&value));
            prop_assert_eq!(parse_request(line.as_bytes()), Ok(Some(TextRequest::Put { key, value })));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            fuzz(&bytes);
        }
    }
}
