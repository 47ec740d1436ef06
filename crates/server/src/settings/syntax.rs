//! The lines of a settings file: reading them and writing them.
//!
//! ```text
//! # a comment
//! port=6379                      our form; spaces around the = are allowed
//! bind 127.0.0.1 ::1             redis.conf's form
//! requirepass "two words\x21"    in double quotes: \n \r \t \b \a \xHH, and \ before any other character
//! logfile 'C:\it\'s raw'         in single quotes: only \'
//! maxclients 100   # a word that begins with # ends the line, unless it is the first of the value
//! ```
//!
//! The text may come from anywhere: any bytes give lines or an error, nothing else. Not here: which names there are and
//! what their values mean ([`super::table`]).

use super::limits::{LINE_BYTES_MAX, LINES_MAX};

/// One line that sets something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directive {
    /// Its line in the text, counted from 1.
    pub line: usize,
    /// The name as it was written.
    pub name: String,
    /// The words of the value, without their quotes.
    pub values: Vec<String>,
}

/// A line that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct SyntaxError {
    /// The line, counted from 1.
    pub line: usize,
    /// What was expected and what was found.
    pub what: &'static str,
}

/// How a line separates its name from the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `name value`
    Space,
    /// `name=value`
    Equals,
}

/// One line that sets something, with its form.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) values: Vec<String>,
    pub(super) form: Form,
}

/// Reads the lines of a settings file.
///
/// # Errors
/// The first line that is no setting, comment or blank.
pub fn parse_text(text: &[u8]) -> Result<Vec<Directive>, SyntaxError> {
    let mut directives = Vec::new();
    for (index, line) in without_mark(text).split(|byte| *byte == b'\n').enumerate() {
        let number = index + 1;
        if index >= LINES_MAX {
            return Err(SyntaxError { line: number, what: "expected the end of the file, found too many lines" });
        }
        match parse_line(line) {
            Ok(None) => {}
            Ok(Some(Line { name, values, .. })) => directives.push(Directive { line: number, name, values }),
            Err(what) => return Err(SyntaxError { line: number, what }),
        }
    }
    Ok(directives)
}

/// The text without the mark of UTF-8 that some editors put at the beginning of a file.
pub(super) fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}

/// Reads one line; `None` for a blank one or a comment.
pub(super) fn parse_line(line: &[u8]) -> Result<Option<Line>, &'static str> {
    let line = line.trim_ascii();
    if line.is_empty() || line.starts_with(b"#") {
        return Ok(None);
    }
    if line.len() > LINE_BYTES_MAX {
        return Err("expected at most 65536 bytes in a line, found more");
    }
    let line = std::str::from_utf8(line).map_err(|_| "expected UTF-8, found other bytes (write them as \"\\xHH\")")?;
    let end = line.find(|character: char| !is_name(character)).unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    if name.is_empty() {
        return Err("expected the name of a setting, found another character");
    }
    let value = rest.trim_ascii_start();
    if let Some(value) = value.strip_prefix('=') {
        let mut values = split_values(value)?;
        if values.is_empty() {
            values.push(String::new());
        }
        return Ok(Some(Line { name: name.to_owned(), values, form: Form::Equals }));
    }
    if !rest.is_empty() && !rest.starts_with(|character: char| character.is_ascii_whitespace()) {
        return Err("expected a space or = after the name of a setting, found another character");
    }
    Ok(Some(Line { name: name.to_owned(), values: split_values(value)?, form: Form::Space }))
}

fn is_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.')
}

/// Splits a value into its words.
fn split_values(text: &str) -> Result<Vec<String>, &'static str> {
    let mut bytes = text.bytes().peekable();
    let mut values = Vec::new();
    loop {
        while bytes.next_if(u8::is_ascii_whitespace).is_some() {}
        match bytes.peek() {
            None => return Ok(values),
            Some(b'#') if !values.is_empty() => return Ok(values),
            Some(_) => {}
        }
        let mut word = Vec::new();
        while let Some(byte) = bytes.next_if(|byte| !byte.is_ascii_whitespace()) {
            let quoted = match byte {
                b'"' => double_quoted(&mut bytes, &mut word),
                b'\'' => single_quoted(&mut bytes, &mut word),
                _ => {
                    word.push(byte);
                    continue;
                }
            };
            quoted.ok_or("expected a closing quote, found the end of the line")?;
            if bytes.peek().is_some_and(|byte| !byte.is_ascii_whitespace()) {
                return Err("expected a space after a closing quote, found another character");
            }
        }
        values.push(String::from_utf8(word).map_err(|_| "expected UTF-8, found other bytes behind \\x")?);
    }
}

type Bytes<'a> = std::iter::Peekable<std::str::Bytes<'a>>;

/// Reads up to the closing quote; `None` when there is none.
fn double_quoted(bytes: &mut Bytes<'_>, word: &mut Vec<u8>) -> Option<()> {
    loop {
        let byte = match bytes.next()? {
            b'"' => return Some(()),
            b'\\' => match bytes.next()? {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'b' => 0x08,
                b'a' => 0x07,
                b'x' => {
                    let mut ahead = bytes.clone();
                    match (ahead.next().and_then(hex), ahead.next().and_then(hex)) {
                        (Some(high), Some(low)) => {
                            *bytes = ahead;
                            high << 4 | low
                        }
                        _ => b'x',
                    }
                }
                other => other,
            },
            other => other,
        };
        word.push(byte);
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Reads up to the closing quote; `None` when there is none.
fn single_quoted(bytes: &mut Bytes<'_>, word: &mut Vec<u8>) -> Option<()> {
    loop {
        let byte = match bytes.next()? {
            b'\'' => return Some(()),
            b'\\' if bytes.next_if_eq(&b'\'').is_some() => b'\'',
            other => other,
        };
        word.push(byte);
    }
}

/// Writes a line that [`parse_text`] reads as this name and these values.
pub fn render_line(name: &str, values: &[String]) -> String {
    render_as(Form::Space, name, values)
}

pub(super) fn render_as(form: Form, name: &str, values: &[String]) -> String {
    let mut line = name.to_owned();
    for (index, value) in values.iter().enumerate() {
        line.push(if index == 0 && form == Form::Equals { '=' } else { ' ' });
        line.push_str(&quoted_if_needed(value));
    }
    line
}

fn quoted_if_needed(value: &str) -> String {
    let special =
        |character: char| character.is_whitespace() || character.is_control() || matches!(character, '"' | '\'' | '\\');
    if !value.is_empty() && !value.starts_with(['#', '=']) && !value.contains(special) {
        return value.to_owned();
    }
    let mut quoted = String::with_capacity(value.len() + 2);
    quoted.push('"');
    for character in value.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            control if control.is_ascii_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(control))),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(line: &str) -> Vec<String> {
        let directives = parse_text(line.as_bytes()).expect("a valid line");
        let [directive] = directives.as_slice() else { panic!("one setting in {line:?}: {directives:?}") };
        assert_eq!(directive.name, "name");
        directive.values.clone()
    }

    #[test]
    fn both_forms_are_read() {
        for (line, values) in [
            ("name value", vec!["value"]),
            ("  name\tvalue  ", vec!["value"]),
            ("name=value", vec!["value"]),
            ("name = value", vec!["value"]),
            ("name= a b", vec!["a", "b"]),
            ("name a b", vec!["a", "b"]),
            ("name a=b", vec!["a=b"]),
            ("name=a=b", vec!["a=b"]),
            ("name value\r", vec!["value"]),
            ("\u{feff}name value", vec!["value"]),
        ] {
            assert_eq!(words(line), values, "{line:?}");
        }
    }

    #[test]
    fn an_empty_value_is_told_from_a_missing_one() {
        assert_eq!(words("name \"\""), [""]);
        assert_eq!(words("name ''"), [""]);
        assert_eq!(words("name="), [""]);
        assert!(words("name").is_empty());
    }

    #[test]
    fn quotes_and_escapes_are_taken_as_redis_takes_them() {
        for (line, value) in [
            (r#"name "a b""#, "a b"),
            (r#"name "a\"b\\c""#, "a\"b\\c"),
            (r#"name "\x41\n\r\t\a\b""#, "A\n\r\t\u{7}\u{8}"),
            (r#"name "\xzz""#, "xzz"),
            (r"name 'it\'s'", "it's"),
            (r"name 'a\nb'", r"a\nb"),
            (r"name a\nb", r"a\nb"),
            (r#"name "\xc3\xa4""#, "ä"),
            ("name \"#secret\"", "#secret"),
            ("name #secret", "#secret"),
        ] {
            assert_eq!(words(line), [value], "{line}");
        }
    }

    #[test]
    fn a_comment_may_follow_a_value() {
        assert_eq!(words("name 1 # one"), ["1"]);
        assert_eq!(words("name=1 #one \"unbalanced"), ["1"]);
        assert_eq!(words("name a#b"), ["a#b"]);
    }

    #[test]
    fn comments_and_blank_lines_set_nothing_whatever_their_bytes() {
        assert_eq!(parse_text(b"# \xff\xfe\n\n   \n\t# port 1\n"), Ok(Vec::new()));
    }

    #[test]
    fn what_cannot_be_read_names_its_line() {
        for text in ["a 1\nb \"open", "a 1\nb 'open", "a 1\nb \"x\"y", "a 1\n=1", "a 1\nb$ 1", "a 1\nb \"\\xff\""] {
            assert_eq!(parse_text(text.as_bytes()).map_err(|error| error.line), Err(2), "{text:?}");
        }
        assert_eq!(parse_text(b"a 1\nb \xff").map_err(|error| error.line), Err(2));
    }

    #[test]
    fn a_line_over_the_limit_is_refused() {
        let text = format!("a {}", "x".repeat(LINE_BYTES_MAX));
        assert!(parse_text(text.as_bytes()).is_err());
    }

    #[test]
    fn a_value_that_would_be_taken_for_something_else_is_quoted() {
        for value in ["#x", "=x", "", " ", "a b", "\"", "'", "\\", "\u{1b}", "a\nb"] {
            let line = render_line("name", &["1".to_owned(), value.to_owned()]);
            assert_eq!(words(&line), ["1", value], "{line}");
            assert_eq!(words(&render_line("name", &[value.to_owned()])), [value]);
        }
    }

    proptest! {
        #[test]
        fn a_line_that_was_written_is_read_back(
            name in "[a-z][a-z0-9_-]{0,12}",
            values in prop::collection::vec(any::<String>(), 1..5),
            equals in any::<bool>(),
        ) {
            let form = if equals { Form::Equals } else { Form::Space };
            let line = render_as(form, &name, &values);
            let directives = parse_text(line.as_bytes());
            prop_assert_eq!(directives, Ok(vec![Directive { line: 1, name, values }]));
        }

        #[test]
        fn what_was_read_is_written_and_read_again_the_same(text in "([a-z=\"'# \\\\x0-9\n]|name )*") {
            if let Ok(directives) = parse_text(text.as_bytes()) {
                for directive in directives.iter().filter(|directive| !directive.values.is_empty()) {
                    let line = render_line(&directive.name, &directive.values);
                    let again = parse_text(line.as_bytes());
                    prop_assert_eq!(again, Ok(vec![Directive { line: 1, ..directive.clone() }]));
                }
            }
        }
    }
}
