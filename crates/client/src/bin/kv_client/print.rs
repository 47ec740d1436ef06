//! An answer as text: for a terminal with types, places and quotes, for a pipe as plain lines.
//!
//! The terminal form is the one that users of redis-cli know. Nothing that a server sends can steer the terminal: in
//! that form every control byte is escaped.

use std::io::{self, Write};

use bowline_client::Value;
use bowline_resp::{format_double, quote};

use crate::json;

/// How answers are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// For people: types, places, quotes.
    Terminal,
    /// For programs: one line per element.
    Plain,
    /// Bytes as they are; a value that was asked for alone comes without a newline.
    Raw,
    /// JSON.
    Json,
}

impl Format {
    /// The format that the flags ask for, else the one that fits the output.
    pub(crate) fn choose(raw: bool, no_raw: bool, json: bool, to_terminal: bool) -> Format {
        match (raw, json) {
            (true, _) => Format::Raw,
            (_, true) => Format::Json,
            _ if no_raw || to_terminal => Format::Terminal,
            _ => Format::Plain,
        }
    }
}

/// Commands whose string is a text for people, so it is shown without quotes.
const TEXTS: &[&str] = &["INFO", "LOLWUT", "STATS"];
/// The same for subcommands.
const TEXT_SUBCOMMANDS: &[(&str, &str)] = &[
    ("CLIENT", "INFO"),
    ("CLIENT", "LIST"),
    ("CLUSTER", "INFO"),
    ("CLUSTER", "NODES"),
    ("DEBUG", "HTSTATS"),
    ("LATENCY", "DOCTOR"),
    ("LATENCY", "GRAPH"),
    ("MEMORY", "DOCTOR"),
    ("MEMORY", "MALLOC-STATS"),
];

/// Prints the answer to the command `args`, with a newline at its end.
pub(crate) fn answer(out: &mut dyn Write, format: Format, args: &[Vec<u8>], value: &Value) -> io::Result<()> {
    match format {
        Format::Json => writeln!(out, "{}", json::of(value)),
        Format::Plain | Format::Raw => {
            plain(out, value)?;
            out.write_all(b"\n")
        }
        Format::Terminal => match value {
            Value::Bulk(text) if is_text(args) => text_block(out, text),
            value => out.write_all(pretty(value, "").as_bytes()),
        },
    }
}

/// Prints text of many lines, its control bytes made harmless, with a newline at its end.
pub(crate) fn text_block(out: &mut dyn Write, text: &[u8]) -> io::Result<()> {
    let text = String::from_utf8_lossy(text).replace("\r\n", "\n");
    writeln!(out, "{}", printable(text.strip_suffix('\n').unwrap_or(&text)))
}

/// Text with every control character but newline and tab escaped.
pub(crate) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\t' => shown.push(character),
            control if control.is_control() => shown.extend(control.escape_default()),
            other => shown.push(other),
        }
    }
    shown
}

fn is_text(args: &[Vec<u8>]) -> bool {
    let word = |place: usize| {
        args.get(place).map(|word| String::from_utf8_lossy(word).to_ascii_uppercase()).unwrap_or_default()
    };
    let (name, subcommand) = (word(0), word(1));
    TEXTS.contains(&name.as_str()) || TEXT_SUBCOMMANDS.contains(&(name.as_str(), subcommand.as_str()))
}

/// One line per element, in order, maps as key line and value line; nothing between the last element and the end.
fn plain(out: &mut dyn Write, value: &Value) -> io::Result<()> {
    match value {
        Value::Simple(text) | Value::BigNumber(text) | Value::Error(text) => out.write_all(text.as_bytes()),
        Value::Integer(number) => write!(out, "{number}"),
        Value::Bulk(bytes) | Value::Verbatim { text: bytes, .. } => out.write_all(bytes),
        Value::Null => Ok(()),
        Value::Double(number) => write!(out, "{}", double_text(*number)),
        Value::Boolean(truth) => write!(out, "{truth}"),
        Value::Array(items) | Value::Set(items) | Value::Push(items) => plain_lines(out, items.iter()),
        Value::Map(pairs) => plain_lines(out, pairs.iter().flat_map(|(key, value)| [key, value])),
    }
}

fn plain_lines<'a>(out: &mut dyn Write, items: impl Iterator<Item = &'a Value>) -> io::Result<()> {
    for (place, item) in items.enumerate() {
        if place > 0 {
            out.write_all(b"\n")?;
        }
        plain(out, item)?;
    }
    Ok(())
}

/// The form for people, ending in a newline. Lines after the first begin with `indent`.
fn pretty(value: &Value, indent: &str) -> String {
    match value {
        Value::Simple(text) => format!("{}\n", printable(text)),
        Value::Error(text) => format!("(error) {}\n", printable(text)),
        Value::Integer(number) => format!("(integer) {number}\n"),
        Value::Bulk(bytes) => format!("{}\n", quote(bytes)),
        Value::Null => "(nil)\n".to_owned(),
        Value::Double(number) => format!("(double) {}\n", double_text(*number)),
        Value::Boolean(truth) => format!("({truth})\n"),
        Value::Verbatim { text, .. } => {
            let text = String::from_utf8_lossy(text).replace("\r\n", "\n");
            format!("{}\n", printable(text.strip_suffix('\n').unwrap_or(&text)))
        }
        Value::BigNumber(digits) => format!("(bignum) {}\n", printable(digits)),
        Value::Array(items) => pretty_list(items, "(empty array)\n", ')', indent),
        Value::Set(items) => pretty_list(items, "(empty set)\n", '~', indent),
        Value::Push(items) => pretty_list(items, "(empty push)\n", '>', indent),
        Value::Map(pairs) => pretty_map(pairs, indent),
    }
}

fn pretty_list(items: &[Value], empty: &str, mark: char, indent: &str) -> String {
    if items.is_empty() {
        return empty.to_owned();
    }
    let width = items.len().to_string().len();
    let deeper = format!("{indent}{:1$}", "", width + 2);
    let mut text = String::new();
    for (place, item) in (1..).zip(items) {
        let before = if place == 1 { "" } else { indent };
        text.push_str(&format!("{before}{place:width$}{mark} {}", pretty(item, &deeper)));
    }
    text
}

fn pretty_map(pairs: &[(Value, Value)], indent: &str) -> String {
    if pairs.is_empty() {
        return "(empty hash)\n".to_owned();
    }
    let width = pairs.len().to_string().len();
    let deeper = format!("{indent}{:1$}", "", width + 2);
    let mut text = String::new();
    for (place, (key, value)) in (1..).zip(pairs) {
        let before = if place == 1 { "" } else { indent };
        let key = pretty(key, &deeper);
        let gap = if has_lines(value) { format!("\n{deeper}") } else { " ".to_owned() };
        text.push_str(&format!("{before}{place:width$}# {} =>{gap}{}", key.trim_end(), pretty(value, &deeper)));
    }
    text
}

/// A value that takes more than one line goes below its key.
fn has_lines(value: &Value) -> bool {
    match value {
        Value::Array(items) | Value::Set(items) | Value::Push(items) => !items.is_empty(),
        Value::Map(pairs) => !pairs.is_empty(),
        _ => false,
    }
}

fn double_text(number: f64) -> String {
    format_double(number).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::Bulk(text.as_bytes().to_vec())
    }

    fn shown(format: Format, args: &[&str], value: &Value) -> String {
        let args: Vec<Vec<u8>> = args.iter().map(|word| word.as_bytes().to_vec()).collect();
        let mut out = Vec::new();
        answer(&mut out, format, &args, value).expect("memory takes it");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn scalars_are_shown_with_their_type() {
        let cases = [
            (Value::Simple("OK".into()), "OK\n"),
            (Value::Error("ERR no".into()), "(error) ERR no\n"),
            (Value::Integer(-7), "(integer) -7\n"),
            (bulk("a\n\"b\""), "\"a\\n\\\"b\\\"\"\n"),
            (Value::Null, "(nil)\n"),
            (Value::Double(3.25), "(double) 3.25\n"),
            (Value::Boolean(true), "(true)\n"),
            (Value::Array(vec![]), "(empty array)\n"),
            (Value::Map(vec![]), "(empty hash)\n"),
        ];
        for (value, expected) in cases {
            assert_eq!(shown(Format::Terminal, &["X"], &value), expected);
        }
    }

    #[test]
    fn nested_lists_are_indented_below_their_place() {
        let inner = Value::Array(vec![Value::Integer(2), Value::Array(vec![Value::Integer(3), bulk("x")])]);
        let mut items = vec![Value::Integer(1), inner];
        items.extend((0..8).map(Value::Integer));
        let expected = " 1) (integer) 1\n 2) 1) (integer) 2\n    2) 1) (integer) 3\n       2) \"x\"\n 3) (integer) 0\n";
        let text = shown(Format::Terminal, &["X"], &Value::Array(items));
        assert!(text.starts_with(expected), "{text}");
        assert!(text.ends_with("10) (integer) 7\n"));
    }

    #[test]
    fn a_map_shows_long_values_below_their_key() {
        let list = Value::Array(vec![Value::Integer(1), Value::Integer(2)]);
        let map = Value::Map(vec![(bulk("a"), Value::Integer(1)), (bulk("b"), list)]);
        let expected = "1# \"a\" => (integer) 1\n2# \"b\" =>\n   1) (integer) 1\n   2) (integer) 2\n";
        assert_eq!(shown(Format::Terminal, &["X"], &map), expected);
    }

    #[test]
    fn a_pipe_gets_one_line_per_element() {
        let inner = Value::Array(vec![Value::Integer(2), Value::Null]);
        let value = Value::Array(vec![bulk("a b"), inner, Value::Map(vec![(bulk("k"), bulk("v"))])]);
        assert_eq!(shown(Format::Plain, &["X"], &value), "a b\n2\n\nk\nv\n");
    }

    #[test]
    fn texts_for_people_come_without_quotes_and_without_control_bytes() {
        let text = bulk("# Server\r\nname:\x1b[31mred\r\n");
        assert_eq!(shown(Format::Terminal, &["info"], &text), "# Server\nname:\\u{1b}[31mred\n");
        assert!(shown(Format::Terminal, &["GET", "k"], &text).starts_with("\"# Server\\r\\n"));
    }
}
