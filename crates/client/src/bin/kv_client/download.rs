//! What `backup` and `export` have in common: a stream that the server makes goes into a file, or to stdout.
//!
//! ```text
//!   BL.BACKUP BEGIN -> READ ... -> END        to FILE by way of `target`: it gets its name only when it reads back right
//! ```
//!
//! To `-` (stdout) nothing can be read back. Not here: what is in the stream, and whether it is right.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use bowline_client::{Client, Value};

use crate::arguments::DownloadArguments;
use crate::failure::{Exit, Failure};
use crate::print;
use crate::target::Target;

/// A stream of the server that is being fetched.
pub(crate) struct Stream<'a> {
    client: &'a mut Client,
    rate: Option<u64>,
    out: &'a mut dyn Write,
    failed: &'a dyn Fn(io::Error) -> Failure,
}

impl Stream<'_> {
    /// Has the server begin, with these words more; returns its answer and the stream's id.
    pub(crate) fn begin(&mut self, words: &[&str]) -> Result<(Value, String), Failure> {
        let mut begin: Vec<String> =
            ["BL.BACKUP", "BEGIN"].iter().chain(words).map(|word| (*word).to_owned()).collect();
        if let Some(rate) = self.rate {
            begin.extend(["RATE".to_owned(), rate.to_string()]);
        }
        let answer = self.client.command(&begin)?;
        let id = figure(&answer, "id").ok_or_else(|| odd("it named no id"))?.to_string();
        Ok((answer, id))
    }

    /// The next piece.
    pub(crate) fn read(&mut self, id: &str) -> Result<Vec<u8>, Failure> {
        match self.client.command(&["BL.BACKUP", "READ", id])? {
            Value::Bulk(piece) => Ok(piece),
            _ => Err(odd("it sent something else than a piece of it")),
        }
    }

    /// Writes a piece where the stream goes.
    pub(crate) fn write(&mut self, piece: &[u8]) -> Result<(), Failure> {
        self.out.write_all(piece).map_err(self.failed)
    }

    /// Tells the server that all was read.
    pub(crate) fn end(self, id: &str) {
        // It ends with the connection as well.
        let _ = self.client.command(&["BL.BACKUP", "END", id]);
    }
}

/// Fetches a stream to where `arguments` say and prints what `describe` makes of it, the name of the file, and the time it
/// took. `verify` reads the file back before it gets its name.
pub(crate) fn run<T>(
    arguments: &DownloadArguments,
    what: &str,
    fetch: impl FnOnce(Stream<'_>) -> Result<T, Failure>,
    verify: impl FnOnce(&Path, T) -> Result<T, Failure>,
    describe: impl FnOnce(&T, &str, Duration) -> String,
) -> Result<Exit, Failure> {
    let mut client = Client::new(arguments.connection.options()?);
    if arguments.connection.is_verbose() {
        client.observe(crate::arguments::tell);
    }
    let (client, rate, begin) = (&mut client, arguments.rate, Instant::now());
    if arguments.file.as_os_str() == "-" {
        if io::stdout().is_terminal() {
            return Err(Failure::Usage(format!("{what} is no text: send it into a file or a pipe")));
        }
        let mut out = io::stdout().lock();
        let fetched = fetch(Stream { client, rate, out: &mut out, failed: &|source| Failure::Output(source) })?;
        out.flush().map_err(Failure::Output)?;
        eprintln!("kv_client: {}", describe(&fetched, "stdout", begin.elapsed()));
        return Ok(Exit::Success);
    }
    let target = Target::new(&arguments.file);
    let fetched = target.make(|out, failed| fetch(Stream { client, rate, out, failed }), verify)?;
    let text = describe(&fetched, &arguments.file.display().to_string(), begin.elapsed());
    writeln!(io::stdout(), "{}", print::printable(&text)).map_err(Failure::Output)?;
    Ok(Exit::Success)
}

/// The stream is not what it should be.
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
