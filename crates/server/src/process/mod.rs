//! The process around the server: background, messages, signals, readiness, how it ends.
//!
//! ```text
//! launch -> daemon::detach      (two forks, before any thread exists)
//!        -> Process::start      messages (tracing), signals, systemd's socket, limit of open files
//!        -> run                 calls `ready` when it serves, is told by `on_stop` when to end
//!        -> Process::end        message, pid file, exit code
//! ```
//!
//! Whoever started the daemon waits until `ready` or until it has failed, and ends with its exit code and message.
//! Not here: what is served.

pub mod daemon;
pub mod launch;
mod logging;
mod messages;
mod notify;
mod open_files;
mod pid_file;
mod signals;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tracing::{error, info, warn};

use crate::settings::{Settings, SettingsStore};
use daemon::Starter;
use logging::Logging;
use notify::Notifier;
use pid_file::PidFile;

/// How the server ended. The number is the exit code of the process; the text says what happened, to what, and what to
/// do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// 0: it was asked to end, or the files are sound.
    Ok,
    /// 1: it could not start, for instance because a port is in use.
    StartFailed(String),
    /// 2: the arguments or settings are wrong.
    Usage(String),
    /// 3: another process uses the data directory.
    Locked(String),
    /// 4: the files are damaged, or another release wrote them.
    Damaged(String),
    /// 5: a repair was not agreed to; nothing was changed.
    NotRepaired(String),
    /// 74: a write or sync failed, so nothing more can be acknowledged. (The number of `EX_IOERR` in sysexits.h.)
    StorageFailed(String),
}

impl Exit {
    /// The exit code.
    pub fn code(&self) -> u8 {
        match self {
            Exit::Ok => 0,
            Exit::StartFailed(_) => 1,
            Exit::Usage(_) => 2,
            Exit::Locked(_) => 3,
            Exit::Damaged(_) => 4,
            Exit::NotRepaired(_) => 5,
            Exit::StorageFailed(_) => 74,
        }
    }

    /// What there is to say.
    pub fn message(&self) -> Option<&str> {
        match self {
            Exit::Ok => None,
            Exit::StartFailed(text)
            | Exit::Usage(text)
            | Exit::Locked(text)
            | Exit::Damaged(text)
            | Exit::NotRepaired(text)
            | Exit::StorageFailed(text) => Some(text),
        }
    }
}

/// Why the process could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// The file for the messages cannot be opened.
    #[error("cannot open the logfile {}: {source}; check its directory and permissions", path.display())]
    MessageFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file for the process id cannot be written.
    #[error("cannot write the pidfile {}: {source}; check its directory and permissions", path.display())]
    PidFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A thread cannot be started.
    #[error("cannot start a thread: {source}; raise the limit of processes (ulimit -u, TasksMax)")]
    Threads {
        /// What the system said.
        source: io::Error,
    },
    /// The signals cannot be watched.
    #[error("cannot watch for signals: {source}")]
    Signals {
        /// What the system said.
        source: io::Error,
    },
    /// systemd asked for, but not there.
    #[error("supervised is systemd, but {what}: start it from a unit with Type=notify, or set supervised to auto")]
    NotSupervised {
        /// What is missing.
        what: String,
    },
    /// Messages go to another subscriber of `tracing` already.
    #[error("the messages of this process go somewhere else already: set them up once only")]
    MessagesTaken,
}

type Stop = Box<dyn Fn() + Send + Sync>;

/// What a request to stop meets.
#[derive(Default)]
struct Stopping {
    requested: bool,
    action: Option<Arc<Stop>>,
}

struct Inner {
    starter: Mutex<Option<Starter>>,
    ready: AtomicBool,
    stopping_told: AtomicBool,
    notifier: Notifier,
    pid_path: Option<PathBuf>,
    pid_file: Mutex<Option<PidFile>>,
    stop: Mutex<Stopping>,
    logging: Option<Logging>,
}

/// The process around the server. A clone is the same process.
#[derive(Clone)]
pub struct Process {
    inner: Arc<Inner>,
}

impl Process {
    /// Opens the messages, watches for signals, and raises the limit of open files. `starter` is who waits for a daemon.
    ///
    /// # Errors
    /// When a file cannot be opened or systemd is not there; [`end_before_start`] tells it.
    pub fn start(settings: &Arc<SettingsStore>, starter: &mut Option<Starter>) -> Result<Process, ProcessError> {
        let current = settings.current();
        let notifier = Notifier::from_environment(current.supervised)?;
        let logging = Logging::start(&current)?;
        let process = Process {
            inner: Arc::new(Inner {
                starter: Mutex::new(starter.take()),
                ready: AtomicBool::new(false),
                stopping_told: AtomicBool::new(false),
                notifier,
                pid_path: current.pid_file(),
                pid_file: Mutex::new(None),
                stop: Mutex::new(Stopping::default()),
                logging: Some(logging),
            }),
        };
        info!(version = env!("CARGO_PKG_VERSION"), pid = std::process::id(), "kv_server starts");
        warn_of_settings(&current);
        open_files::raise_limit(current.max_connections);
        let weak = Arc::downgrade(&process.inner);
        settings.subscribe(Box::new(move |settings| {
            if let Some(logging) = weak.upgrade().as_deref().and_then(|inner| inner.logging.as_ref()) {
                logging.set_level(settings.loglevel);
            }
            open_files::raise_limit(settings.max_connections);
        }));
        signals::watch(&process, settings).map_err(|source| ProcessError::Signals { source })?;
        Ok(process)
    }

    /// A process without messages, signals and files of its own: for a server inside a test.
    pub fn bare() -> Process {
        Process {
            inner: Arc::new(Inner {
                starter: Mutex::new(None),
                ready: AtomicBool::new(false),
                stopping_told: AtomicBool::new(false),
                notifier: Notifier::none(),
                pid_path: None,
                pid_file: Mutex::new(None),
                stop: Mutex::new(Stopping::default()),
                logging: None,
            }),
        }
    }

    /// Says that the server answers: writes the pid file, tells systemd, and lets who started a daemon end with 0.
    ///
    /// # Errors
    /// When the pid file cannot be written; nobody was told anything then.
    pub fn ready(&self) -> Result<(), ProcessError> {
        if let Some(path) = &self.inner.pid_path {
            let file = PidFile::write(path).map_err(|source| ProcessError::PidFile { path: path.clone(), source })?;
            *self.inner.pid_file.lock() = Some(file);
        }
        self.inner.ready.store(true, Ordering::Release);
        self.inner.notifier.tell(&format!("READY=1\nMAINPID={}\nSTATUS=ready", std::process::id()));
        if let Some(starter) = self.inner.starter.lock().take() {
            starter.ready();
        }
        info!("ready");
        Ok(())
    }

    /// Shows a line of text in `systemctl status`, such as how far loading is.
    pub fn status(&self, text: &str) {
        let line: String = text.chars().filter(|character| !character.is_control()).collect();
        self.inner.notifier.tell(&format!("STATUS={line}"));
    }

    /// Tells systemd that the server is about to end. Only the first call counts.
    pub fn stopping(&self) {
        if !self.inner.stopping_told.swap(true, Ordering::AcqRel) {
            self.inner.notifier.tell("STOPPING=1\nSTATUS=stopping");
        }
    }

    /// Says what to do at SIGTERM or SIGINT: start to end, and return soon. Before this was called a signal ends the
    /// process at once, as nothing was acknowledged yet; a second signal always does.
    pub fn on_stop(&self, stop: Stop) {
        let stop = Arc::new(stop);
        let requested = {
            let mut stopping = self.inner.stop.lock();
            stopping.action = Some(Arc::clone(&stop));
            stopping.requested
        };
        if requested {
            stop();
        }
    }

    /// Asks the server to end, as the first SIGTERM does. Says whether this was the first time.
    pub fn request_stop(&self) -> bool {
        let (first, action) = {
            let mut stopping = self.inner.stop.lock();
            (!std::mem::replace(&mut stopping.requested, true), stopping.action.clone())
        };
        if !first {
            return false;
        }
        self.stopping();
        match action {
            Some(action) => action(),
            None => self.end_now(&Exit::Ok),
        }
        true
    }

    /// Says how the server ended: in the messages, to who started a daemon, to systemd. Removes the pid file. Returns the
    /// exit code, with which `main` should end the process.
    pub fn end(&self, exit: &Exit) -> u8 {
        self.stopping();
        match exit.message() {
            Some(message) => error!("{message}"),
            None => info!("kv_server ends"),
        }
        let starter = self.inner.starter.lock().take();
        match (starter, exit.message()) {
            (Some(starter), Some(message)) => starter.failed(exit.code(), message),
            (Some(starter), None) => starter.failed(1, "the daemon was asked to end before it was ready"),
            (None, Some(message)) if !self.reaches_standard_error() => say(message),
            _ => {}
        }
        drop(self.inner.pid_file.lock().take());
        if let Some(logging) = &self.inner.logging {
            logging.flush();
        }
        exit.code()
    }

    /// As [`Process::end`], and ends the process here and now, on any thread: for a storage failure, after which no reply
    /// may leave any more.
    pub fn end_now(&self, exit: &Exit) -> ! {
        std::process::exit(i32::from(self.end(exit)))
    }

    /// Opens the file for the messages anew, after it was moved away.
    fn reopen_messages(&self) {
        let Some(logging) = &self.inner.logging else { return };
        match logging.reopen() {
            Ok(Some(path)) => info!("opened {} anew", path.display()),
            Ok(None) => {}
            Err(error) => warn!("{error}; messages go on into the old file"),
        }
    }

    fn reaches_standard_error(&self) -> bool {
        self.inner.logging.as_ref().is_some_and(Logging::tells_errors_on_standard_error)
    }
}

/// Says why the process could not be set up, to who started a daemon or on the standard error. Returns the exit code.
pub fn end_before_start(starter: Option<Starter>, exit: &Exit) -> u8 {
    let message = exit.message().unwrap_or_default();
    match starter {
        Some(starter) => starter.failed(exit.code(), message),
        None => say(message),
    }
    exit.code()
}

/// Writes a message on the standard error.
pub fn say(message: &str) {
    use io::Write;
    // There is nobody left to tell when the standard error is closed.
    let _ = writeln!(io::stderr(), "kv_server: {message}");
}

fn warn_of_settings(settings: &Settings) {
    let ignored: Vec<&str> = settings.without_effect().collect();
    if !ignored.is_empty() {
        warn!("these settings have no effect in this release: {}", ignored.join(", "));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn a_stop_that_was_asked_for_before_the_action_was_known_is_not_lost() {
        let process = Process::bare();
        process.inner.stop.lock().requested = true;
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        process.on_stop(Box::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
        }));
        assert_eq!(calls.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn only_the_first_request_to_stop_acts() {
        let process = Process::bare();
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        process.on_stop(Box::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
        }));
        assert!(process.request_stop());
        assert!(!process.request_stop());
        assert_eq!(calls.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn exit_codes_stand_as_they_are_documented() {
        let text = String::new;
        let exits = [
            Exit::Ok,
            Exit::StartFailed(text()),
            Exit::Usage(text()),
            Exit::Locked(text()),
            Exit::Damaged(text()),
            Exit::NotRepaired(text()),
            Exit::StorageFailed(text()),
        ];
        assert_eq!(exits.map(|exit| exit.code()), [0, 1, 2, 3, 4, 5, 74]);
    }
}
