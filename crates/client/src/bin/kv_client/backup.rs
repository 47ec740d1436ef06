//! `kv_client backup FILE|-`: fetches a backup, verifies it, and only then gives it its name.
//!
//! ```text
//!   BL.BACKUP BEGIN -> READ ... -> FILE.partial -> fsync -> read back, every checksum -> rename -> fsync of the directory
//! ```
//!
//! Every piece is verified as it comes, too, so that a broken connection or server is seen at once. To `-` (stdout) that
//! is all the verifying there is: whoever stores it should run `kv_server --check` on the file.

use std::fs::File;
use std::io::{self, BufReader, IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use bowline_client::{Client, Value};
use bowline_snapshot::{Checker, Header, Moment, Reader, SnapshotError};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use crate::arguments::BackupArguments;
use crate::failure::{Exit, Failure};
use crate::print;
use crate::target::Target;

/// Makes a backup, and prints what it is.
pub(crate) fn run(arguments: &BackupArguments) -> Result<Exit, Failure> {
    let mut client = Client::new(arguments.connection.options()?);
    if arguments.connection.is_verbose() {
        client.observe(crate::arguments::tell);
    }
    let begin = Instant::now();
    if arguments.file.as_os_str() == "-" {
        if io::stdout().is_terminal() {
            return Err(Failure::Usage("a backup is no text: send it into a file or a pipe".to_owned()));
        }
        let mut out = io::stdout().lock();
        let checker = fetch(&mut client, arguments.rate, &mut out, &|source| Failure::Output(source))?;
        out.flush().map_err(Failure::Output)?;
        eprintln!("kv_client: {}", describe(&checker, "stdout", begin.elapsed()));
        return Ok(Exit::Success);
    }
    let checker =
        Target::new(&arguments.file).make(|file, failed| fetch(&mut client, arguments.rate, file, failed), verify)?;
    let text = describe(&checker, &arguments.file.display().to_string(), begin.elapsed());
    writeln!(io::stdout(), "{}", print::printable(&text)).map_err(Failure::Output)?;
    Ok(Exit::Success)
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
fn verify(partial: &Path, fetched: &Checker) -> Result<(), Failure> {
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
        return Ok(());
    }
    let message = format!("the backup {} reads back as another one", partial.display());
    Err(Failure::Failed { message, exit: Exit::Usage })
}

/// Fetches a whole backup into `out`, verifying it on the way.
fn fetch(
    client: &mut Client,
    rate: Option<u64>,
    out: &mut dyn Write,
    failed: &dyn Fn(io::Error) -> Failure,
) -> Result<Checker, Failure> {
    let mut begin = vec!["BL.BACKUP".to_owned(), "BEGIN".to_owned()];
    if let Some(rate) = rate {
        begin.extend(["RATE".to_owned(), rate.to_string()]);
    }
    let id = figure(&client.command(&begin)?, "id").ok_or_else(|| odd("it named no id for the backup"))?.to_string();
    let read = ["BL.BACKUP", "READ", &id];
    let mut checker = None;
    let mut progress = None;
    loop {
        let Value::Bulk(piece) = client.command(&read)? else {
            return Err(odd("it sent something else than a piece of the backup"));
        };
        let Some(checker) = &mut checker else {
            let first = Checker::new(&piece).map_err(|error| odd(&error.to_string()))?;
            progress = Some(bar("fetching", first.header().entries));
            checker = Some(first);
            out.write_all(&piece).map_err(failed)?;
            continue;
        };
        checker.frame(&piece).map_err(|error| odd(&error.to_string()))?;
        out.write_all(&piece).map_err(failed)?;
        progress.iter().for_each(|bar| show(bar, checker));
        if checker.is_complete() {
            break;
        }
    }
    progress.iter().for_each(ProgressBar::finish_and_clear);
    // It ends with the connection as well.
    let _ = client.command(&["BL.BACKUP", "END", &id]);
    checker.ok_or_else(|| odd("it sent nothing"))
}

pub(crate) fn odd(what: &str) -> Failure {
    Failure::Failed { message: format!("the server's backup is not what it should be: {what}"), exit: Exit::Server }
}

/// A figure of the answer to BEGIN, which is a map, or a flat list in RESP2.
pub(crate) fn figure(answer: &Value, name: &str) -> Option<i64> {
    let is_name = |value: &Value| matches!(value, Value::Bulk(bytes) if bytes == name.as_bytes());
    let number = |value: &Value| match value {
        Value::Integer(number) => Some(*number),
        _ => None,
    };
    match answer {
        Value::Map(pairs) => pairs.iter().find(|(key, _)| is_name(key)).and_then(|(_, value)| number(value)),
        Value::Array(values) => {
            let mut pairs = values.chunks_exact(2);
            pairs.find_map(|pair| pair.first().is_some_and(is_name).then(|| pair.last().and_then(number))).flatten()
        }
        _ => None,
    }
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
