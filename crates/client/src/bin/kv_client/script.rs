//! A file of commands from a pipe: one command per line, one answer after the other.
//!
//! Lines are sent as soon as no further complete line waits in the input, so a program that writes a line and waits for
//! its answer gets it, while a long file travels in large bunches. An error of the server is printed in its place and
//! does not stop the script; its exit code tells. A lost connection stops it, and the message says of every line whether
//! it was answered, may have happened, or was not sent.
//!
//! Empty lines and lines that begin with `#` are skipped; `quit` or `exit` ends. Quotes must be closed within the line.

use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use bowline_client::{Client, Error, Value};
use bowline_resp::split_inline;
use indicatif::{ProgressBar, ProgressStyle};

use crate::failure::{Exit, Failure};
use crate::print::{self, Format};
use crate::verbs;

/// Commands sent in one bunch at most.
const BUNCH_COMMANDS: usize = 1000;
/// Bytes of lines in one bunch, after which it is sent.
const BUNCH_BYTES: usize = 256 * 1024;
/// A script that runs longer than this gets a progress bar.
const LONG: Duration = Duration::from_millis(500);

/// Runs the commands from standard input.
pub(crate) fn run(client: &mut Client, format: Format, out: &mut dyn Write) -> Result<Exit, Failure> {
    let input = io::stdin();
    let total_bytes = input
        .as_fd()
        .try_clone_to_owned()
        .and_then(|handle| std::fs::File::from(handle).metadata())
        .ok()
        .filter(std::fs::Metadata::is_file)
        .map(|metadata| metadata.len());
    let visible = io::stderr().is_terminal() && !io::stdout().is_terminal();
    let script = Script {
        client,
        format,
        out,
        bunch: Vec::new(),
        bunch_bytes: 0,
        answered: 0,
        refused: 0,
        first_refusal: None,
        progress: Progress::new(visible, total_bytes),
    };
    script.run(BufReader::with_capacity(BUNCH_BYTES, input))
}

/// One line that is to be sent.
struct Line {
    number: usize,
    args: Vec<Vec<u8>>,
}

struct Script<'a> {
    client: &'a mut Client,
    format: Format,
    out: &'a mut dyn Write,
    bunch: Vec<Line>,
    bunch_bytes: usize,
    answered: usize,
    refused: usize,
    first_refusal: Option<String>,
    progress: Progress,
}

impl Script<'_> {
    fn run<R: Read>(mut self, mut input: BufReader<R>) -> Result<Exit, Failure> {
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let length = input
                .read_until(b'\n', &mut line)
                .map_err(|source| Failure::Local { what: "read commands from stdin".to_owned(), source })?;
            if length == 0 {
                break;
            }
            self.bunch_bytes += length;
            match parse(&line) {
                Parsed::Nothing => {}
                Parsed::End => break,
                Parsed::Command(args) => self.bunch.push(Line { number, args }),
                Parsed::Unbalanced => {
                    self.send()?;
                    let message = format!(
                        "line {number}: a quote is not closed, or text follows it; nothing from this line on was sent"
                    );
                    return Err(Failure::Failed { message, exit: Exit::Usage });
                }
            }
            let more_waits = input.buffer().contains(&b'\n');
            if !more_waits || self.bunch.len() >= BUNCH_COMMANDS || self.bunch_bytes >= BUNCH_BYTES {
                self.send()?;
            }
        }
        self.send()?;
        self.finish()
    }

    /// Sends the bunch and prints its answers.
    fn send(&mut self) -> Result<(), Failure> {
        let bunch = std::mem::take(&mut self.bunch);
        let bytes = std::mem::take(&mut self.bunch_bytes);
        let (Some(first), Some(last)) = (bunch.first(), bunch.last()) else { return Ok(()) };
        let mut pipeline = self.client.pipeline();
        for line in &bunch {
            pipeline.command(&line.args);
        }
        let answers = pipeline.run().map_err(|error| {
            let message = format!("line {} to {}: nothing was sent: {error}", first.number, last.number);
            Failure::Failed { message, exit: Failure::from(error).exit() }
        })?;
        for (line, answer) in bunch.iter().zip(answers) {
            self.take(line, last.number, answer)?;
        }
        self.progress.advance(bytes, self.answered);
        self.out.flush().map_err(Failure::Output)
    }

    fn take(&mut self, line: &Line, last: usize, answer: Result<Value, Error>) -> Result<(), Failure> {
        let value = match answer {
            Ok(value) => value,
            Err(Error::Server(refusal)) => {
                self.refused += 1;
                self.first_refusal.get_or_insert_with(|| format!("line {}: {refusal}", line.number));
                Value::Error(refusal.text().to_owned())
            }
            Err(expected) if verbs::is_expected_end(&expected) => Value::Simple("OK".to_owned()),
            Err(error) => {
                self.out.flush().map_err(Failure::Output)?;
                let (number, answered) = (line.number, self.answered);
                let rest = if number < last {
                    format!("; lines {} to {last} may or may not have happened, later ones were not sent", number + 1)
                } else {
                    "; later lines were not sent".to_owned()
                };
                let message = format!("line {number}: {error}; the {answered} commands before it were answered{rest}");
                return Err(Failure::Failed { message, exit: Failure::from(error).exit() });
            }
        };
        self.answered += 1;
        print::answer(self.out, self.format, &line.args, &value).map_err(Failure::Output)
    }

    fn finish(self) -> Result<Exit, Failure> {
        self.progress.finish();
        let Some(first) = self.first_refusal else { return Ok(Exit::Success) };
        let message = format!("{} of {} commands failed; the first one in {first}", self.refused, self.answered);
        Err(Failure::Failed { message, exit: Exit::Server })
    }
}

enum Parsed {
    Nothing,
    Command(Vec<Vec<u8>>),
    End,
    Unbalanced,
}

fn parse(line: &[u8]) -> Parsed {
    let line = line.trim_ascii();
    if line.is_empty() || line.starts_with(b"#") {
        return Parsed::Nothing;
    }
    match split_inline(line) {
        Err(_) => Parsed::Unbalanced,
        Ok(args) if args.is_empty() => Parsed::Nothing,
        Ok(args) if args.len() == 1 && matches!(args.concat().to_ascii_lowercase().as_slice(), b"quit" | b"exit") => {
            Parsed::End
        }
        Ok(args) => Parsed::Command(args),
    }
}

/// The bar on standard error; nothing is drawn for a short script or without a terminal.
struct Progress {
    begun: Instant,
    visible: bool,
    total_bytes: Option<u64>,
    bytes: u64,
    bar: Option<ProgressBar>,
}

impl Progress {
    fn new(visible: bool, total_bytes: Option<u64>) -> Self {
        Progress { begun: Instant::now(), visible, total_bytes, bytes: 0, bar: None }
    }

    fn advance(&mut self, bytes: usize, answered: usize) {
        self.bytes += bytes as u64;
        if !self.visible || self.begun.elapsed() < LONG {
            return;
        }
        let per_second = answered as f64 / self.begun.elapsed().as_secs_f64();
        let bar = self.bar.get_or_insert_with(|| new_bar(self.total_bytes));
        bar.set_message(format!("{answered} commands, {per_second:.0}/s"));
        bar.set_position(self.bytes);
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish();
        }
    }
}

fn new_bar(total_bytes: Option<u64>) -> ProgressBar {
    let (bar, template) = match total_bytes {
        Some(total) => (ProgressBar::new(total), "{percent:>3} % [{bar:30}] {msg}, {eta} left"),
        None => (ProgressBar::no_length(), "{spinner} {bytes}, {msg}"),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style.progress_chars("=> ")),
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_command_unless_it_is_empty_or_a_comment() {
        assert!(matches!(parse(b"  \r\n"), Parsed::Nothing));
        assert!(matches!(parse(b"# SET a b\n"), Parsed::Nothing));
        assert!(matches!(parse(b"QUIT\n"), Parsed::End));
        assert!(matches!(parse(b"SET a \"b\n"), Parsed::Unbalanced));
        assert!(matches!(parse(b"SET a \"\\x00 b\"\r\n"), Parsed::Command(args) if args[2] == b"\0 b"));
    }
}
