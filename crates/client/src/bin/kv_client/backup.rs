//! `kv_client backup FILE|-`: fetches a backup, verifies it, and only then gives it its name.
//!
//! ```text
//!   BL.BACKUP BEGIN -> READ ... -> FILE.partial -> fsync -> read back, every checksum -> rename -> fsync of the directory
//! ```
//!
//! Every piece is verified as it comes, too, so that a broken connection or server is seen at once. To `-` (stdout) that
//! is all the verifying there is: whoever stores it should run `kv_server --check` on the file.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::time::Duration;

use bowline_snapshot::{Checker, Header, Moment, Reader, SnapshotError};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use crate::arguments::BackupArguments;
use crate::download::{self, Stream, odd};
use crate::failure::{Exit, Failure};

/// Makes a backup, and prints what it is.
pub(crate) fn run(arguments: &BackupArguments) -> Result<Exit, Failure> {
    download::run(&arguments.download, "a backup", fetch, verify, describe)
}

fn describe(checker: &Checker, name: &str, took: Duration) -> String {
    let Header { cut_version, taken_at_ms, .. } = checker.header();
    format!(
        "backup in {name}: {} entries, {} bytes, every change up to version {cut_version}, the state of {}; {:.1} s",
        checker.totals().records,
        checker.bytes(),
        Moment(*taken_at_ms),
        took.as_secs_f64(),
    )
}

/// Reads the file back and verifies every checksum and the totals.
fn verify(partial: &Path, fetched: Checker) -> Result<Checker, Failure> {
    let damaged = |error: SnapshotError| {
        let message = format!("the backup {} reads back wrong: {error}", partial.display());
        Failure::Failed { message, exit: Exit::Usage }
    };
    let file = File::open(partial).map_err(|source| damaged(source.into()))?;
    let bar = bar("verifying", fetched.totals().records);
    let reader = Reader::new(BufReader::new(file)).map_err(damaged)?;
    let read = reader.verify(&mut |checker| show(&bar, checker)).map_err(damaged)?;
    bar.finish_and_clear();
    if read.totals() == fetched.totals() && read.header() == fetched.header() {
        return Ok(fetched);
    }
    let message = format!("the backup {} reads back as another one", partial.display());
    Err(Failure::Failed { message, exit: Exit::Usage })
}

/// Fetches a whole backup, verifying it on the way.
fn fetch(mut stream: Stream<'_>) -> Result<Checker, Failure> {
    let (_, id) = stream.begin(&[])?;
    let first = stream.read(&id)?;
    let mut checker = Checker::new(&first).map_err(|error| odd(&error.to_string()))?;
    let progress = bar("fetching", checker.header().entries);
    stream.write(&first)?;
    while !checker.is_complete() {
        let piece = stream.read(&id)?;
        checker.frame(&piece).map_err(|error| odd(&error.to_string()))?;
        stream.write(&piece)?;
        show(&progress, &checker);
    }
    progress.finish_and_clear();
    stream.end(&id);
    Ok(checker)
}

/// A bar on a terminal; nothing elsewhere.
fn bar(doing: &'static str, entries: u64) -> ProgressBar {
    let bar = ProgressBar::new(entries);
    let template = "{prefix} {percent:>3} % [{bar:30}] {pos}/{len} entries, {msg}, {eta} left";
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style.progress_chars("=> ")),
        Err(_) => bar,
    }
    .with_prefix(doing)
}

fn show(bar: &ProgressBar, checker: &Checker) {
    bar.set_position(checker.totals().records);
    bar.set_message(HumanBytes(checker.bytes()).to_string());
}
