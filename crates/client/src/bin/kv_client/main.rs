//! `kv_client`: one command, a conversation, a file of commands, a load generator, or an import of Redis' files.
//!
//! ```text
//!   words given        -> verbs (put get delete exists size ping flush stats test), or passed on as a command
//!   "bench"            -> bench
//!   "backup"           -> backup
//!   "export"           -> export
//!   "import"           -> import
//!   no words, terminal -> interactive
//!   no words, pipe     -> script
//! ```
//!
//! Exit codes: 0 done, 1 not found, 2 wrong usage, 3 no (clear) answer from the server, 4 the server said no.

#![forbid(unsafe_code)]

mod arguments;
mod backup;
mod bench;
mod download;
mod export;
mod failure;
mod import;
mod interactive;
mod json;
mod print;
mod script;
mod self_test;
mod target;
mod verbs;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use bowline_client::Client;
use clap::{CommandFactory, Parser};

use arguments::{Arguments, BackupArguments, BenchArguments, ExportArguments, ImportArguments};
use failure::{Exit, Failure};
use print::Format;

fn main() -> ExitCode {
    let given: Vec<OsString> = std::env::args_os().collect();
    match run(&given) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            failure.show();
            failure.exit().into()
        }
    }
}

fn run(given: &[OsString]) -> Result<Exit, Failure> {
    let arguments = Arguments::parse_from(given);
    match arguments.words.first().and_then(|word| word.to_str()) {
        Some("bench") => return bench::run(&BenchArguments::parse_from(own_arguments(given, arguments.words.len()))),
        Some("import") => {
            return import::run(&ImportArguments::parse_from(own_arguments(given, arguments.words.len())));
        }
        Some("backup") => {
            return backup::run(&BackupArguments::parse_from(own_arguments(given, arguments.words.len())));
        }
        Some("export") => {
            return export::run(&ExportArguments::parse_from(own_arguments(given, arguments.words.len())));
        }
        _ => {}
    }
    if arguments.words.len() == 1 && arguments.words.first().is_some_and(|word| word == "help") {
        Arguments::command().print_help().map_err(Failure::Output)?;
        return Ok(Exit::Success);
    }
    if let Some(word) = arguments.words.first().filter(|word| word.as_encoded_bytes().starts_with(b"-")) {
        return Err(Failure::Usage(format!("there is no option {}", print::printable(&word.to_string_lossy()))));
    }
    let format = Format::choose(arguments.raw, arguments.no_raw, arguments.json, io::stdout().is_terminal());
    let mut client = Client::new(arguments.connection.options()?);
    if arguments.connection.is_verbose() {
        client.observe(arguments::tell);
    }
    let mut out = io::stdout().lock();
    let done = if !arguments.words.is_empty() {
        verbs::run(&mut client, &arguments, format, &mut out)
    } else if arguments.value_from_stdin {
        Err(Failure::Usage(
            "-x needs a command that the value belongs to, for instance: kv_client -x put KEY".to_owned(),
        ))
    } else if io::stdin().is_terminal() {
        interactive::run(client, format, &mut out)
    } else {
        script::run(&mut client, format, &mut out)
    };
    out.flush().map_err(Failure::Output).and(done)
}

/// The arguments of a word that has options of its own; those of the connection may stand before and after the word.
fn own_arguments(given: &[OsString], words: usize) -> impl Iterator<Item = &OsString> {
    let before = given.iter().take(given.len() - words);
    let after = given.iter().skip(given.len() - words + 1);
    before.chain(after)
}
