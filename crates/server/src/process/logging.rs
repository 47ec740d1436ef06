//! The server's messages: `tracing` events as lines of text or JSON, to the standard error or a file.
//!
//! One event is one line, whatever it repeats of what clients sent: control bytes are escaped, so that nobody can forge a
//! line or talk to a terminal. The level follows the setting while the server runs. Nothing is told per command. Not here:
//! how lines reach their file ([`super::messages`]), and the write-ahead log, which is no log of messages.

use std::borrow::Cow;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use super::ProcessError;
use super::messages::{Messages, Target};
use crate::settings::{LogFormat, LogLevel, Settings};

/// How long the process waits at its end for its last messages to be written.
const FLUSH_AT_MOST: Duration = Duration::from_secs(2);

/// Where messages go, and how many there are.
pub(super) struct Logging {
    messages: Arc<Messages>,
    level: reload::Handle<LevelFilter, Registry>,
}

impl Logging {
    /// Opens the target and takes all events of this process from now on, panics included.
    pub(super) fn start(settings: &Settings) -> Result<Logging, ProcessError> {
        let target = match settings.message_file() {
            Some(path) => Target::file(&path).map_err(|source| ProcessError::MessageFile { path, source })?,
            None => Target::StandardError,
        };
        let messages = Messages::start(target).map_err(|source| ProcessError::Threads { source })?;
        let (filter, level) = reload::Layer::new(level_filter(settings.loglevel));
        let lines = fmt::layer().with_ansi(false).with_writer(Lines { messages: Arc::clone(&messages) });
        let lines = match settings.log_format {
            LogFormat::Text => lines.with_target(false).boxed(),
            LogFormat::Json => lines.json().flatten_event(true).boxed(),
        };
        tracing_subscriber::registry().with(filter).with(lines).try_init().map_err(|_| ProcessError::MessagesTaken)?;
        // A panic is a mistake of ours; in the background nobody would see it on the standard error.
        let last_words = Arc::clone(&messages);
        std::panic::set_hook(Box::new(move |panic| {
            let backtrace = std::backtrace::Backtrace::capture();
            tracing::error!("a mistake in kv_server, please report it: {panic}; backtrace: {backtrace}");
            last_words.flush(FLUSH_AT_MOST);
        }));
        Ok(Logging { messages, level })
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
        self.messages.reopen().map_err(|(path, source)| ProcessError::MessageFile { path, source })
    }

    /// Waits for a moment until what was said is written.
    pub(super) fn flush(&self) {
        self.messages.flush(FLUSH_AT_MOST);
    }

    /// Whether errors come out on the standard error.
    pub(super) fn tells_errors_on_standard_error(&self) -> bool {
        let told = self.level.with_current(|level| *level >= LevelFilter::ERROR).unwrap_or(false);
        told && self.messages.go_to_standard_error()
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

/// Takes each event as one line.
#[derive(Clone)]
struct Lines {
    messages: Arc<Messages>,
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
        self.messages.push(&one_line(event));
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
}
