//! `kv_client export FILE|-`: the server's state of one moment as an RDB, which Redis and Valkey load.
//!
//! ```text
//!   BL.BACKUP BEGIN FORMAT RDB -> READ ... -> FILE.partial -> fsync -> read back, checksum and entries -> rename
//! ```
//!
//! Not here: the bytes of an RDB (crate `bowline-rdb`), how the file gets its name (`target`).

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::time::Duration;

use bowline_rdb::{Item, Reader};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use crate::arguments::ExportArguments;
use crate::download::{self, Stream, figure, odd};
use crate::failure::{Exit, Failure};

/// What was fetched.
struct Fetched {
    bytes: u64,
    /// Entries that the server's snapshot has, and then those in the file: what has expired is left out of it.
    entries: u64,
}

/// Exports the server, and prints what came of it.
pub(crate) fn run(arguments: &ExportArguments) -> Result<Exit, Failure> {
    download::run(&arguments.download, "an RDB", fetch, verify, describe)
}

fn describe(fetched: &Fetched, name: &str, took: Duration) -> String {
    format!("RDB in {name}: {} entries, {} bytes; {:.1} s", fetched.entries, fetched.bytes, took.as_secs_f64())
}

/// Fetches the whole RDB.
fn fetch(mut stream: Stream<'_>) -> Result<Fetched, Failure> {
    let (answer, id) = stream.begin(&["FORMAT", "RDB"])?;
    let named = |name: &str| figure(&answer, name).and_then(|number| u64::try_from(number).ok());
    let entries = named("entries").ok_or_else(|| odd("it named no number of entries"))?;
    let progress = bar("fetching", named("bytes").unwrap_or(0));
    let mut bytes = 0;
    loop {
        let piece = stream.read(&id)?;
        if piece.is_empty() {
            break;
        }
        stream.write(&piece)?;
        bytes += piece.len() as u64;
        progress.set_position(bytes);
        progress.set_message(HumanBytes(bytes).to_string());
    }
    progress.finish_and_clear();
    stream.end(&id);
    Ok(Fetched { bytes, entries })
}

/// Reads the file back: its checksum, its end, its entries; returns with how many it has.
fn verify(partial: &Path, fetched: Fetched) -> Result<Fetched, Failure> {
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
    Ok(Fetched { entries, ..fetched })
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
