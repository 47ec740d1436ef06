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
//! A line ends in LF or CR LF, and is at most 64 MiB long, 1 KiB before the password was given. Command words are case-insensitive. Words follow the quoting of
//! [`bowline_resp::split_inline`]: `"..."` with `\n \r \t \b \a \" \\ \xHH`, `'...'`, or plain where nothing needs
//! quotes. A value is answered plain where a line can carry it unmistakably, else in double quotes with the same
//! escapes: when it is empty, holds a control byte or bytes that are no UTF-8, begins with a quote, begins or ends in a
//! space, or reads like `NOT_FOUND` or an `ERROR`.
//!
//! Not here: execution, limits on connections, authentication (`text`).

use std::io::BufRead;

use bowline_resp::{ProtocolError, quote, split_inline};

use crate::session::limits::LINE_BYTES_MAX;

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
    #[error("line longer than {bytes_max} bytes: {}", too_long_remedy(*.bytes_max))]
    LineTooLong {
        /// What was allowed.
        bytes_max: usize,
    },
}

fn too_long_remedy(bytes_max: usize) -> &'static str {
    if bytes_max < LINE_BYTES_MAX {
        "authenticate first: AUTH \"password\""
    } else {
        "use the Redis protocol for such values"
    }
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

/// Finds the end of the line that `bytes` begin with; the first `searched` bytes are known to hold none. `bytes_max` is
/// [`LINE_BYTES_MAX`] or, for strangers, `UNAUTHENTICATED_LINE_BYTES_MAX`.
///
/// # Errors
/// [`TextError::LineTooLong`] when the line cannot end within `bytes_max`.
pub fn first_line(bytes: &[u8], searched: usize, bytes_max: usize) -> Result<Line, TextError> {
    let too_long = Err(TextError::LineTooLong { bytes_max });
    let allowed = bytes.get(..bytes_max).unwrap_or(bytes);
    let Some(found) = find_line_feed(allowed.get(searched..).unwrap_or_default()) else {
        return if bytes.len() >= bytes_max { too_long } else { Ok(Line::Incomplete) };
    };
    let feed = searched + found;
    let text = bytes.get(..feed).unwrap_or_default();
    Ok(Line::Complete { text_end: text.strip_suffix(b"\r").unwrap_or(text).len(), end: feed + 1 })
}

/// The position of the first line feed. The standard library has its fast search behind this door only.
fn find_line_feed(mut bytes: &[u8]) -> Option<usize> {
    let whole = bytes;
    let passed = bytes.skip_until(b'\n').ok()?;
    let last = passed.checked_sub(1)?;
    (whole.get(last) == Some(&b'\n')).then_some(last)
}

/// The command that a line begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextCommand {
    /// PUT
    Put,
    /// GET
    Get,
    /// DELETE
    Delete,
    /// EXISTS
    Exists,
    /// SIZE
    Size,
    /// PING
    Ping,
    /// FLUSH
    Flush,
    /// STATS
    Stats,
    /// AUTH
    Auth,
    /// QUIT
    Quit,
}

/// Reads the first word of a line and returns what follows it, not looked at. `None` for an empty line, which asks for
/// nothing. Costs no memory: whether the caller may ask at all can be checked before the rest is read.
///
/// # Errors
/// [`TextError`] when the line begins with no command; the connection can go on with the next line.
pub fn parse_command(line: &[u8]) -> Result<Option<(TextCommand, &[u8])>, TextError> {
    let Some((name, rest)) = cut_word(line)? else { return Ok(None) };
    let short = name.get(..NAME_BYTES_MAX).unwrap_or(name);
    let unknown = || TextError::Unknown(quote(short));
    let name = if short.len() == name.len() { unescape(name)? } else { return Err(unknown()) };
    let command = match name.to_ascii_uppercase().as_slice() {
        b"PUT" => TextCommand::Put,
        b"GET" => TextCommand::Get,
        b"DELETE" => TextCommand::Delete,
        b"EXISTS" => TextCommand::Exists,
        b"SIZE" => TextCommand::Size,
        b"PING" => TextCommand::Ping,
        b"FLUSH" => TextCommand::Flush,
        b"STATS" => TextCommand::Stats,
        b"AUTH" => TextCommand::Auth,
        b"QUIT" => TextCommand::Quit,
        _ => return Err(unknown()),
    };
    Ok(Some((command, rest)))
}

/// Longest command word as it is written: six letters in quotes, each as `\xHH`, are fewer. Also how much of an unknown
/// one is repeated.
const NAME_BYTES_MAX: usize = 64;

impl TextCommand {
    /// Reads the words that follow this command on its line: as many as it takes, and not one more, however long the
    /// line is.
    ///
    /// # Errors
    /// [`TextError`] when they are too few or too many, or their quotes do not match.
    pub fn request(self, rest: &[u8]) -> Result<TextRequest, TextError> {
        Ok(match self {
            TextCommand::Put => {
                let [key, value] = exactly(rest, "PUT \"key\" \"value\"")?;
                TextRequest::Put { key, value }
            }
            TextCommand::Get => TextRequest::Get(one(rest, "GET \"key\"")?),
            TextCommand::Delete => TextRequest::Delete(one(rest, "DELETE \"key\"")?),
            TextCommand::Exists => TextRequest::Exists(one(rest, "EXISTS \"key\"")?),
            TextCommand::Auth => TextRequest::Auth(one(rest, "AUTH \"password\"")?),
            TextCommand::Size => none(rest, TextRequest::Size, "SIZE")?,
            TextCommand::Ping => none(rest, TextRequest::Ping, "PING")?,
            TextCommand::Flush => none(rest, TextRequest::Flush, "FLUSH")?,
            TextCommand::Stats => none(rest, TextRequest::Stats, "STATS")?,
            TextCommand::Quit => none(rest, TextRequest::Quit, "QUIT")?,
        })
    }
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
    match parse_command(line)? {
        Some((command, rest)) => command.request(rest).map(Some),
        None => Ok(None),
    }
}

fn exactly<const N: usize>(mut rest: &[u8], syntax: &'static str) -> Result<[Vec<u8>; N], TextError> {
    let mut words = [const { Vec::new() }; N];
    for word in &mut words {
        let (raw, after) = cut_word(rest)?.ok_or(TextError::Arity(syntax))?;
        (*word, rest) = (unescape(raw)?, after);
    }
    if without_space(rest).is_empty() { Ok(words) } else { Err(TextError::Arity(syntax)) }
}

fn one(rest: &[u8], syntax: &'static str) -> Result<Vec<u8>, TextError> {
    exactly::<1>(rest, syntax).map(|[word]| word)
}

fn none(rest: &[u8], request: TextRequest, syntax: &'static str) -> Result<TextRequest, TextError> {
    exactly::<0>(rest, syntax).map(|[]| request)
}

/// A word as it is written, and what follows it.
type Cut<'a> = (&'a [u8], &'a [u8]);

/// Cuts the first word off a line, still quoted and escaped. `None`: there is no further word.
fn cut_word(line: &[u8]) -> Result<Option<Cut<'_>>, TextError> {
    let line = without_space(line);
    let word = line.get(..raw_word_length(line)).unwrap_or(line);
    let rest = line.get(word.len()..).unwrap_or_default();
    let closed_by_quote = word.contains(&b'"') || word.contains(&b'\'');
    if closed_by_quote && rest.first().is_some_and(|byte| !is_space(*byte)) {
        return Err(TextError::Quotes);
    }
    Ok(if word.is_empty() { None } else { Some((word, rest)) })
}

/// The length of the word that a line begins with, as it is written: up to a space, or behind its closing quote.
fn raw_word_length(line: &[u8]) -> usize {
    let ends_plain = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b'"' | b'\'');
    let Some(plain) = line.iter().position(ends_plain) else { return line.len() };
    let quote = match line.get(plain) {
        Some(quote @ (b'"' | b'\'')) => *quote,
        _ => return plain,
    };
    let mut end = plain + 1;
    loop {
        match line.get(end..).unwrap_or_default() {
            // Not closed: `unescape` finds that out.
            [] => return line.len(),
            [b'\\', escaped, ..] if quote == b'"' || *escaped == quote => end += 2,
            [byte, ..] if *byte == quote => return end + 1,
            _ => end += 1,
        }
    }
}

/// One word without its quotes and escapes.
fn unescape(word: &[u8]) -> Result<Vec<u8>, TextError> {
    let mut words = split_inline(word).map_err(|_: ProtocolError| TextError::Quotes)?;
    Ok(words.pop().unwrap_or_default())
}

fn without_space(line: &[u8]) -> &[u8] {
    let start = line.iter().position(|byte| !is_space(*byte)).unwrap_or(line.len());
    line.get(start..).unwrap_or_default()
}

/// White space as the rules of the quoting have it.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

/// Whether a line is a piece of HTTP: a page in a browser may have had it sent here, and the lines of its body would run
/// in the name of who looks at the page. To be asked of a line before it is read, so that no second one is reached.
///
/// It is HTTP when its first word is POST or `Host:`, or its last one, not in quotes, begins with `HTTP/`: a value of
/// that kind must be in quotes.
pub fn is_http(line: &[u8]) -> bool {
    let line = line.trim_ascii();
    let space = |byte: &u8| byte.is_ascii_whitespace();
    let first = line.get(..line.iter().position(space).unwrap_or(line.len())).unwrap_or_default();
    let last = line.get(line.iter().rposition(space).map_or(0, |at| at + 1)..).unwrap_or_default();
    let host = first.get(..5).is_some_and(|name| name.eq_ignore_ascii_case(b"host:"));
    host || first.eq_ignore_ascii_case(b"post")
        || (last.starts_with(b"HTTP/") && !last.ends_with(b"\"") && !last.ends_with(b"'"))
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
    while let Ok(Line::Complete { text_end, end }) = first_line(rest, 0, LINE_BYTES_MAX) {
        let line = rest.get(..text_end).unwrap_or_default();
        is_http(line);
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
    use crate::session::limits::UNAUTHENTICATED_LINE_BYTES_MAX;

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
        let first_line = |bytes, searched| first_line(bytes, searched, LINE_BYTES_MAX);
        assert_eq!(first_line(b"", 0), Ok(Line::Incomplete));
        assert_eq!(first_line(b"GET", 0), Ok(Line::Incomplete));
        assert_eq!(first_line(b"GET k\r\nPI", 3), Ok(Line::Complete { text_end: 5, end: 7 }));
        assert_eq!(first_line(b"\n", 0), Ok(Line::Complete { text_end: 0, end: 1 }));
        assert_eq!(first_line(b"\n", 9), Ok(Line::Incomplete));
    }

    #[test]
    fn an_endless_line_is_refused() {
        for bytes_max in [LINE_BYTES_MAX, UNAUTHENTICATED_LINE_BYTES_MAX] {
            let refusal = Err(TextError::LineTooLong { bytes_max });
            let mut line = vec![b'x'; bytes_max];
            assert_eq!(first_line(&line, 0, bytes_max), refusal);
            line.push(b'\n');
            assert_eq!(first_line(&line, bytes_max, bytes_max), refusal);
            line[bytes_max - 1] = b'\n';
            let text_end = bytes_max - 1;
            assert_eq!(first_line(&line, 7, bytes_max), Ok(Line::Complete { text_end, end: bytes_max }));
        }
    }

    #[test]
    fn only_as_many_words_are_read_as_the_command_takes() {
        let many = [&b"GET k"[..], &b" x".repeat(100_000), b" \"open"].concat();
        assert_eq!(parse_request(&many), Err(TextError::Arity("GET \"key\"")));
        let Ok(Some((command, rest))) = parse_command(&many) else { panic!("no command") };
        assert_eq!((command, rest.len()), (TextCommand::Get, many.len() - 3), "the rest is not looked at");
        assert_eq!(parse_request(b"\"\\x47et\" k \x0b"), Ok(Some(TextRequest::Get(b"k".to_vec()))));
        assert_eq!(parse_request(&[b'x'; 100]), Err(TextError::Unknown(quote(&[b'x'; 64]))));
    }

    #[test]
    fn http_is_told_from_requests() {
        let http: [&[u8]; 7] = [
            b"POST / HTTP/1.1",
            b"GET / HTTP/1.0",
            b"PUT /k HTTP/1.1 ",
            b"Host: 127.0.0.1:6380",
            b"host:evil",
            b"post /",
            b"PRI * HTTP/2.0",
        ];
        for line in http {
            assert!(is_http(line), "{}", line.escape_ascii());
        }
        let requests: [&[u8]; 7] = [
            b"",
            b"GET HTTP",
            b"GET POST",
            b"PUT k \"HTTP/1.1\"",
            b"PUT k 'see HTTP/1.1'",
            b"PUT HTTP/1.1 v",
            b"hostile",
        ];
        for line in requests {
            assert!(!is_http(line), "{}", line.escape_ascii());
        }
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

        /// Words are cut here and unescaped there: both must see the same ones.
        #[test]
        fn words_are_those_of_the_quoting_of_the_redis_protocol(line in "[ab\"'\\\\x4 \t\r\x0b\x0c]{0,40}") {
            let mut rest = line.as_bytes();
            let mut words = Ok(Vec::new());
            while let Ok(found) = &mut words {
                match cut_word(rest).and_then(|word| word.map(|(raw, after)| Ok((unescape(raw)?, after))).transpose()) {
                    Ok(Some((word, after))) => {
                        found.push(word);
                        rest = after;
                    }
                    Ok(None) => break,
                    Err(error) => words = Err(error),
                }
            }
            prop_assert_eq!(words, split_inline(line.as_bytes()).map_err(|_| TextError::Quotes));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            fuzz(&bytes);
        }
    }
}
