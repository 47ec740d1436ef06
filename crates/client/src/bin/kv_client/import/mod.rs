//! `kv_client import`: the files of a Redis or Valkey server into the running server.
//!
//! ```text
//!   source    which files        walk   what is in them        load   checked, then sent
//!   send      requests without waiting, every answer looked at
//!   expiry    expiries that pass while commands are still to come
//! ```
//!
//! Files are read twice: a damaged file, or one with something that the server cannot hold, is refused before the first
//! key is sent. What comes from a pipe is read once, and refused where the damage is met.

mod expiry;
mod known;
mod load;
mod progress;
mod send;
mod source;
mod walk;

use std::io::{self, Write};
use std::time::Instant;

use bowline_client::{Client, Options};
use serde_json::json;

use crate::arguments::{ImportArguments, tell};
use crate::failure::{Exit, Failure};
use crate::print::printable;
use known::KnownCommands;
use load::{Counts, Loader};
use progress::Progress;
use send::Sender;
use source::Source;

/// Imports, and prints what was done.
pub(crate) fn run(arguments: &ImportArguments) -> Result<Exit, Failure> {
    if arguments.connection.database() != 0 {
        return Err(Failure::Usage(
            "each key is imported into the database that it comes from: leave -n out".to_owned(),
        ));
    }
    let source = Source::find(&arguments.path)?;
    let options = arguments.connection.options()?;
    let connect = || {
        let mut client = Client::new(options.clone());
        if arguments.connection.is_verbose() {
            client.observe(tell);
        }
        client
    };
    let mut client = connect();
    let known = KnownCommands::ask(&mut client)?;
    let skip = arguments.skip_unsupported;
    if source.is_repeatable() {
        let mut check = Loader::new(&known, skip, None, Progress::new("checking", source.bytes()));
        walk::walk(&source, &mut check).map_err(nothing_sent)?;
    }
    let begun = Instant::now();
    let sender = start(client, &options, skip)?;
    let mut loader = Loader::new(&known, skip, Some(sender), Progress::new("importing", source.bytes()));
    let walked = walk::walk(&source, &mut loader);
    let (counts, sender, holds) = loader.into_parts();
    let mut done = Done { counts, entries: 0, commands: 0, seconds: 0.0 };
    done.finish(walked, sender)?;
    if holds {
        done.counts.expired += expiry::release(&mut connect()).map_err(still_held)?;
    }
    done.seconds = begun.elapsed().as_secs_f64();
    done.print(arguments.json).map_err(Failure::Output)?;
    Ok(Exit::Success)
}

fn start(client: Client, options: &Options, lenient: bool) -> Result<Sender, Failure> {
    Sender::start(client.into_connection()?.into_stream(), options.address.to_string(), lenient)
}

/// A file that was refused by the check.
fn nothing_sent(failure: Failure) -> Failure {
    match failure {
        Failure::Failed { message, exit } => {
            Failure::Failed { message: format!("{message}; nothing was imported"), exit }
        }
        other => other,
    }
}

/// The keys are there, but some of them expire in two thousand years.
fn still_held(failure: Failure) -> Failure {
    let exit = failure.exit();
    let message = format!(
        "everything was imported, but setting the expiries failed ({failure}): some keys have an expiry far too late; \
         empty the server (FLUSHALL) and import again"
    );
    Failure::Failed { message, exit }
}

/// What was done.
struct Done {
    counts: Counts,
    entries: u64,
    commands: u64,
    seconds: f64,
}

impl Done {
    /// Waits for the answers, also when the files could not be read to their end, and tells what repeating would do.
    fn finish(&mut self, walked: Result<(), Failure>, sender: Option<Sender>) -> Result<(), Failure> {
        let finished = match (walked, sender) {
            (Ok(()), Some(sender)) => sender.finish().map(|confirmed| {
                (self.entries, self.commands) = (confirmed.entries(), confirmed.commands());
                let (left_out, names) = confirmed.left_out();
                self.counts.skipped += left_out;
                self.counts.skipped_names.extend(names);
            }),
            // The failure of a sender tells what was confirmed; any other one is told with it.
            (Err(failure), Some(sender)) if sender.is_running() => match sender.finish() {
                Ok(confirmed) => Err(Failure::Failed {
                    message: format!(
                        "{failure}; imported before: {}",
                        send::counted(confirmed.entries(), confirmed.commands())
                    ),
                    exit: failure.exit(),
                }),
                Err(failure) => Err(failure),
            },
            (walked, _) => walked,
        };
        finished.map_err(|failure| self.with_remedy(failure))
    }

    fn with_remedy(&self, failure: Failure) -> Failure {
        let Failure::Failed { message, exit } = failure else { return failure };
        let remedy = if self.counts.has_commands {
            "the commands of an append-only file must not run twice: empty the server (FLUSHALL) before the next import"
        } else {
            "importing again is harmless: it sets the same keys to the same values"
        };
        Failure::Failed { message: format!("{message}. {remedy}"), exit }
    }

    fn print(&self, as_json: bool) -> io::Result<()> {
        let Counts { expired, skipped, skipped_names, databases, truncated, .. } = &self.counts;
        for name in skipped_names.iter().take(send::NAMED_MAX) {
            eprintln!("kv_client: skipped: {}", printable(name));
        }
        let named = skipped_names.len().min(send::NAMED_MAX) as u64;
        if *skipped > named {
            eprintln!("kv_client: skipped: {} more", skipped - named);
        }
        if let Some((part, truncation)) = truncated {
            let what = if truncation.in_transaction { "a transaction" } else { "a command" };
            eprintln!(
                "kv_client: {} ends within {what}: everything up to byte {} was imported, the last {} bytes were not",
                printable(part),
                truncation.offset,
                truncation.bytes
            );
        }
        let mut out = io::stdout().lock();
        let Done { entries, commands, seconds, .. } = self;
        if as_json {
            let truncated = truncated.as_ref().map(
                |(part, cut)| json!({ "file": part, "offset": cut.offset, "bytes": cut.bytes, "in_transaction": cut.in_transaction }),
            );
            let result = json!({
                "keys": entries, "commands": commands, "expired": expired, "skipped": skipped,
                "databases": databases, "truncated": truncated, "seconds": seconds,
            });
            writeln!(out, "{result}")?;
        } else {
            let commands = if self.counts.has_commands { format!(", {commands} commands") } else { String::new() };
            let databases = databases.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
            writeln!(
                out,
                "imported {entries} keys{commands} in {seconds:.1} s; {expired} had expired, {skipped} skipped; databases: {databases}"
            )?;
        }
        out.flush()
    }
}
