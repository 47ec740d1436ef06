//! The server's messages: `tracing` events as lines of text or JSON, to the standard error or a file.
//!
//! One event is one line, whatever it repeats of what clients sent: control bytes are escaped, so that nobody can forge a
//! line or talk to a terminal. The level follows the setting while the server runs. Nothing is told per command, so an
//! event is written by the thread it comes from. Not here: the write-ahead log, which is no log of messages.

use std::borrow::Cow;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use super::ProcessError;
use crate::settings::{LogFormat, LogLevel, Settings};

/// Messages are for the operator and their group.
const FILE_MODE: u32 = 0o640;

/// Where messages go, and how many there are.
pub(super) struct Logging {
    output: Arc<Mutex<Target>>,
    level: reload::Handle<LevelFilter, Registry>,
}

impl Logging {
    /// Opens the target and takes all events of this process from now on, panics included.
    pub(super) fn start(settings: &Settings) -> Result<Logging, ProcessError> {
        let target = match settings.message_file() {
            Some(path) => Target::file(path)?,
            None => Target::StandardError,
        };
        let output = Arc::new(Mutex::new(target));
        let (filter, level) = reload::Layer::new(level_filter(settings.loglevel));
        let lines = fmt::layer().with_ansi(false).with_writer(Lines { output: Arc::clone(&output) });
        let lines = match settings.log_format {
            LogFormat::Text => lines.with_target(false).boxed(),
            LogFormat::Json => lines.json().flatten_event(true).boxed(),
        };
        tracing_subscriber::registry().with(filter).with(lines).try_init().map_err(|_| ProcessError::MessagesTaken)?;
        // A panic is a mistake of ours; in the background nobody would see it on the standard error.
        std::panic::set_hook(Box::new(|panic| {
            let backtrace = std::backtrace::Backtrace::capture();
            tracing::error!("a mistake in kv_server, please report it: {panic}; backtrace: {backtrace}");
        }));
        Ok(Logging { output, level })
    }

    /// Tells as much as `level` says from now on.
    pub(super) fn set_level(&self, level: LogLevel) {
        let filter = level_filter(level);
        if self.level.with_current(|current| *current == filter).unwrap_or(true) {
            return;
        }
        // It fails only when the subscriber is gone, which lasts as long as the process.
        let _ = self.level.reload(filter);
    }

    /// Opens the file anew, so that one that was moved away is written no more. Returns the path where there is a file.
    pub(super) fn reopen(&self) -> Result<Option<PathBuf>, ProcessError> {
        let path = match &*self.output.lock() {
            Target::StandardError => return Ok(None),
            Target::File { path, .. } => path.clone(),
        };
        let target = Target::file(path.clone())?;
        *self.output.lock() = target;
        Ok(Some(path))
    }

    /// Whether errors come out on the standard error.
    pub(super) fn tells_errors_on_standard_error(&self) -> bool {
        let told = self.level.with_current(|level| *level >= LevelFilter::ERROR).unwrap_or(false);
        told && matches!(&*self.output.lock(), Target::StandardError)
    }
}

fn level_filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Trace => LevelFilter::TRACE,
        LogLevel::Debug | LogLevel::Verbose => LevelFilter::DEBUG,
        LogLevel::Info | LogLevel::Notice => LevelFilter::INFO,
        LogLevel::Warn | LogLevel::Warning => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Nothing => LevelFilter::OFF,
    }
}

enum Target {
    StandardError,
    File { path: PathBuf, file: File },
}

impl Target {
    fn file(path: PathBuf) -> Result<Target, ProcessError> {
        match open(&path) {
            Ok(file) => Ok(Target::File { path, file }),
            Err(source) => Err(ProcessError::MessageFile { path, source }),
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(path)
}

/// Writes each event as one line.
#[derive(Clone)]
struct Lines {
    output: Arc<Mutex<Target>>,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Lines;

    fn make_writer(&'a self) -> Lines {
        self.clone()
    }
}

impl Write for Lines {
    /// Gets one whole event: the formatting layer writes each with one call.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let line = one_line(event);
        // Written at once, so that a file opened for appending never mixes lines of two writers.
        match &mut *self.output.lock() {
            Target::StandardError => io::stderr().write_all(&line)?,
            Target::File { file, .. } => file.write_all(&line)?,
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Escapes every control character but the line end that ends the event.
fn one_line(event: &[u8]) -> Cow<'_, [u8]> {
    let content = event.strip_suffix(b"\n").unwrap_or(event);
    // C1 controls (U+0080 to U+009F) are C2 80 to C2 9F in UTF-8.
    let c1 = |pair: &[u8]| matches!(pair, [0xc2, 0x80..=0x9f]);
    if !content.iter().any(u8::is_ascii_control) && !content.windows(2).any(c1) {
        return Cow::Borrowed(event);
    }
    let mut line = Vec::with_capacity(event.len() + 16);
    let mut rest = content;
    while let [byte, after @ ..] = rest {
        rest = after;
        match (*byte, after) {
            (b'\n', _) => line.extend_from_slice(b"\\n"),
            (control, _) if control.is_ascii_control() => {
                line.extend_from_slice(format!("\\x{control:02x}").as_bytes())
            }
            (0xc2, [control @ 0x80..=0x9f, after @ ..]) => {
                line.extend_from_slice(format!("\\u{{{control:x}}}").as_bytes());
                rest = after;
            }
            (other, _) => line.push(other),
        }
    }
    line.extend_from_slice(event.get(content.len()..).unwrap_or_default());
    Cow::Owned(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_whatever_it_repeats() {
        let hostile = "name=\u{1b}[2J\r\n2026 INFO forged\u{9b}31m\t\u{7f}ä\n";
        let line = one_line(hostile.as_bytes());
        let line = std::str::from_utf8(&line).expect("UTF-8");
        assert_eq!(line, "name=\\x1b[2J\\x0d\\n2026 INFO forged\\u{9b}31m\\x09\\x7fä\n");
    }

    #[test]
    fn an_ordinary_event_is_not_copied() {
        assert!(matches!(one_line("ready ä\n".as_bytes()), Cow::Borrowed(_)));
    }

    #[test]
    fn a_file_that_was_moved_away_is_opened_anew() {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, moved) = (directory.path().join("kv.log"), directory.path().join("kv.log.1"));
        let output = Arc::new(Mutex::new(Target::file(path.clone()).expect("opened")));
        let (_filter, level) = reload::Layer::new(LevelFilter::INFO);
        let logging = Logging { output: Arc::clone(&output), level };
        let mut lines = Lines { output };
        lines.write_all(b"first\n").expect("written");
        std::fs::rename(&path, &moved).expect("moved");
        lines.write_all(b"second\n").expect("written");
        assert_eq!(logging.reopen().expect("opened"), Some(path.clone()));
        lines.write_all(b"third\n").expect("written");
        assert_eq!(std::fs::read_to_string(&moved).expect("read"), "first\nsecond\n");
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "third\n");
    }
}
