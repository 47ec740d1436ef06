//! One command from the command line.
//!
//! The words `put get delete exists size ping flush stats test` have outputs and exit codes made for shells. Every other
//! word is sent as it is, and its answer printed.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStringExt;

use bowline_client::{Client, Error, LostReply, Value};
use serde_json::json;

use crate::arguments::Arguments;
use crate::failure::{Exit, Failure};
use crate::print::{self, Format};
use crate::{json, self_test};

type Done = Result<Exit, Failure>;

/// Runs the words of the command line.
pub(crate) fn run(client: &mut Client, arguments: &Arguments, format: Format, out: &mut dyn Write) -> Done {
    let mut words: Vec<Vec<u8>> = arguments.words.iter().cloned().map(OsString::into_vec).collect();
    if arguments.value_from_stdin {
        let mut value = Vec::new();
        std::io::stdin()
            .read_to_end(&mut value)
            .map_err(|source| Failure::Local { what: "read the value from stdin".to_owned(), source })?;
        words.push(value);
    }
    let text: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    let mut printer = Printer { format, out };
    match text.as_slice() {
        [b"put", key, value] => client.put(key, value).map_err(Failure::from).and_then(|()| printer.done()),
        [b"get", key] => get(client, key, &mut printer),
        [b"delete", key] => delete(client, key, &mut printer),
        [b"exists", key] => exists(client, key, &mut printer),
        [b"size"] => client.size().map_err(Failure::from).and_then(|size| printer.line(&size.to_string(), json!(size))),
        [b"ping"] => client.ping().map_err(Failure::from).and_then(|()| printer.line("PONG", json!("PONG"))),
        [b"flush"] => client.flush().map_err(Failure::from).and_then(|()| printer.done()),
        [b"stats"] => stats(client, &mut printer),
        [b"test"] => self_test::run(client, printer.out),
        [verb, given @ ..] => match usage_of(verb) {
            Some(usage) => Err(wrong_usage(usage, given)),
            None => pass_on(client, &words, &mut printer),
        },
        [] => Err(Failure::Usage("a command is missing".to_owned())),
    }
    .or_else(|failure| printer.failure(failure))
}

/// How a verb is called, for those that are ours.
fn usage_of(verb: &[u8]) -> Option<&'static str> {
    match verb {
        b"put" => Some("put KEY VALUE (or: kv_client -x put KEY, which reads the value from stdin)"),
        b"get" => Some("get KEY"),
        b"delete" => Some("delete KEY"),
        b"exists" => Some("exists KEY"),
        b"size" => Some("size"),
        b"ping" => Some("ping"),
        b"flush" => Some("flush"),
        b"stats" => Some("stats"),
        b"test" => Some("test"),
        _ => None,
    }
}

fn wrong_usage(usage: &str, given: &[&[u8]]) -> Failure {
    let misplaced = given.iter().find(|word| word.starts_with(b"-") && word.len() > 1);
    let hint = match misplaced {
        Some(word) => format!("; options such as {} stand before the command", String::from_utf8_lossy(word)),
        None => String::new(),
    };
    Failure::Usage(format!("{} arguments were given, but the call is: kv_client {usage}{hint}", given.len()))
}

fn get(client: &mut Client, key: &[u8], printer: &mut Printer<'_>) -> Done {
    let Some(value) = client.get(key)? else { return printer.not_found() };
    match printer.format {
        Format::Json => writeln!(printer.out, "{}", json::of_bytes(&value)),
        Format::Raw => printer.out.write_all(&value),
        Format::Plain => printer.out.write_all(&value).and_then(|()| printer.out.write_all(b"\n")),
        Format::Terminal => writeln!(printer.out, "{}", print::printable(&String::from_utf8_lossy(&value))),
    }
    .map_err(Failure::Output)?;
    Ok(Exit::Success)
}

fn delete(client: &mut Client, key: &[u8], printer: &mut Printer<'_>) -> Done {
    if client.delete(key)? { printer.done() } else { printer.not_found() }
}

fn exists(client: &mut Client, key: &[u8], printer: &mut Printer<'_>) -> Done {
    let exists = client.exists(key)?;
    printer.line(&exists.to_string(), json!(exists))?;
    Ok(if exists { Exit::Success } else { Exit::NotFound })
}

fn stats(client: &mut Client, printer: &mut Printer<'_>) -> Done {
    let figures = client.stats()?;
    if printer.format == Format::Json {
        let object: serde_json::Map<_, _> = figures.into_iter().map(|(name, value)| (name, json!(value))).collect();
        writeln!(printer.out, "{}", serde_json::Value::from(object)).map_err(Failure::Output)?;
    } else {
        for (name, value) in figures {
            let line = print::printable(&format!("{name}: {value}"));
            writeln!(printer.out, "{line}").map_err(Failure::Output)?;
        }
    }
    Ok(Exit::Success)
}

fn pass_on(client: &mut Client, words: &[Vec<u8>], printer: &mut Printer<'_>) -> Done {
    let answer = match client.command(words) {
        Err(lost) if is_expected_end(&lost) => Value::Simple("OK".to_owned()),
        other => other?,
    };
    print::answer(printer.out, printer.format, words, &answer).map_err(Failure::Output)?;
    Ok(Exit::Success)
}

/// A server that was told to shut down ends the connection instead of answering.
pub(crate) fn is_expected_end(error: &Error) -> bool {
    matches!(error, Error::Unknown { command, cause: LostReply::Closed(_) } if command == "SHUTDOWN")
}

/// Where and how the output goes.
struct Printer<'a> {
    format: Format,
    out: &'a mut dyn Write,
}

impl Printer<'_> {
    fn line(&mut self, text: &str, json: serde_json::Value) -> Done {
        match self.format {
            Format::Json => writeln!(self.out, "{json}"),
            _ => writeln!(self.out, "{text}"),
        }
        .map_err(Failure::Output)?;
        Ok(Exit::Success)
    }

    fn done(&mut self) -> Done {
        self.line("OK", json!("OK"))
    }

    /// Nothing on stdout, so that `$(kv_client get k)` is empty.
    fn not_found(&mut self) -> Done {
        match self.format {
            Format::Json => writeln!(self.out, "null").map_err(Failure::Output)?,
            _ => eprintln!("(not found)"),
        }
        Ok(Exit::NotFound)
    }

    /// A program that reads JSON gets the server's error as JSON too.
    fn failure(&mut self, failure: Failure) -> Done {
        if let (Format::Json, Failure::Client(Error::Server(refusal))) = (self.format, &failure) {
            writeln!(self.out, "{}", json!({ "error": refusal.text() })).map_err(Failure::Output)?;
        }
        Err(failure)
    }
}
