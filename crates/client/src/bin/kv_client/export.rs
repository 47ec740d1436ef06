//! `kv_client export FILE|-`: the server's state of one moment as an RDB, which Redis and Valkey load.
//!
//! ```text
//!   BL.BACKUP BEGIN FORMAT RDB -> READ ... -> FILE.partial -> fsync -> read back, checksum and entries -> rename
//! ```
//!
//! Not here: the bytes of an RDB (crate `bowline-rdb`), how the file gets its name (`target`).

use std::fs::File;
use std::io::{self, BufReader, IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use bowline_client::{Client, Value};
use bowline_rdb::{Item, Reader};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use crate::arguments::ExportArguments;
use crate::backup::{figure, odd};
use crate::failure::{Exit, Failure};
use crate::print;
use crate::target::Target;

/// What was fetched.
struct Fetched {
    bytes: u64,
    /// Entries that the server's snapshot has; what has expired is left out of the file.
    entries: u64,
}

/// Exports the server, and prints what came of it.
pub(crate) fn run(arguments: &ExportArguments) -> Result<Exit, Failure> {
    let mut client = Client::new(arguments.connection.options()?);
    if arguments.connection.is_verbose() {
        client.observe(crate::arguments::tell);
    }
    let begin = Instant::now();
    if arguments.file.as_os_str() == "-" {
        if io::stdout().is_terminal() {
            return Err(Failure::Usage("an RDB is no text: send it into a file or a pipe".to_owned()));
        }
        let mut out = io::stdout().lock();
        let fetched = fetch(&mut client, arguments.rate, &mut out, &|source| Failure::Output(source))?;
        out.flush().map_err(Failure::Output)?;
        eprintln!("kv_client: {}", describe(&fetched, fetched.entries, "stdout", begin.elapsed()));
        return Ok(Exit::Success);
    }
    let mut entries = 0;
    let fetched = Target::new(&arguments.file).make(
        |file, failed| fetch(&mut client, arguments.rate, file, failed),
        |partial, fetched| {
            entries = verify(partial, fetched)?;
            Ok(())
        },
    )?;
    let text = describe(&fetched, entries, &arguments.file.display().to_string(), begin.elapsed());
    writeln!(io::stdout(), "{}", print::printable(&text)).map_err(Failure::Output)?;
    Ok(Exit::Success)
}

fn describe(fetched: &Fetched, entries: u64, name: &str, took: Duration) -> String {
    format!("RDB in {name}: {entries} entries, {} bytes; {:.1} s", fetched.bytes, took.as_secs_f64())
}

/// Fetches the whole RDB into `out`.
fn fetch(
    client: &mut Client,
    rate: Option<u64>,
    out: &mut dyn Write,
    failed: &dyn Fn(io::Error) -> Failure,
) -> Result<Fetched, Failure> {
    let mut begin = ["BL.BACKUP", "BEGIN", "FORMAT", "RDB"].map(str::to_owned).to_vec();
    if let Some(rate) = rate {
        begin.extend(["RATE".to_owned(), rate.to_string()]);
    }
    let answer = client.command(&begin)?;
    let named = |name: &str| figure(&answer, name).and_then(|number| u64::try_from(number).ok());
    let (id, entries) = named("id").zip(named("entries")).ok_or_else(|| odd("it named no id for the export"))?;
    let id = id.to_string();
    let progress = bar("fetching", named("bytes").unwrap_or(0));
    let mut bytes = 0;
    loop {
        let Value::Bulk(piece) = client.command(&["BL.BACKUP", "READ", &id])? else {
            return Err(odd("it sent something else than a piece of the export"));
        };
        if piece.is_empty() {
            break;
        }
        out.write_all(&piece).map_err(failed)?;
        bytes += piece.len() as u64;
        progress.set_position(bytes);
        progress.set_message(HumanBytes(bytes).to_string());
    }
    progress.finish_and_clear();
    // It ends with the connection as well.
    let _ = client.command(&["BL.BACKUP", "END", &id]);
    Ok(Fetched { bytes, entries })
}

/// Reads the file back: its checksum, its end, its entries; returns how many they are.
fn verify(partial: &Path, fetched: &Fetched) -> Result<u64, Failure> {
    let damaged = |what: String| Failure::Failed {
        message: format!("the export {} reads back wrong: {what}", partial.display()),
        exit: Exit::Usage,
    };
    let file = File::open(partial).map_err(|source| damaged(source.to_string()))?;
    let progress = bar("verifying", fetched.bytes);
    let mut entries = 0u64;
    let mut reader = Reader::new(BufReader::new(file)).map_err(|error| damaged(error.to_string()))?;
    while let Some(item) = reader.next() {
        if let Item::Entry(_) = item.map_err(|error| damaged(error.to_string()))? {
            entries += 1;
            progress.set_position(reader.offset());
        }
    }
    progress.finish_and_clear();
    if reader.offset() != fetched.bytes || entries > fetched.entries {
        return Err(damaged(format!("{entries} entries in {} bytes", reader.offset())));
    }
    Ok(entries)
}

/// A bar on a terminal; nothing elsewhere. The file may become shorter or longer than the store's records are.
fn bar(doing: &'static str, bytes: u64) -> ProgressBar {
    let bar = ProgressBar::new(bytes);
    match ProgressStyle::with_template("{prefix} {percent:>3} % [{bar:30}] {msg}, {eta} left") {
        Ok(style) => bar.with_style(style.progress_chars("=> ")),
        Err(_) => bar,
    }
    .with_prefix(doing)
}
