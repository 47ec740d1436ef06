//! The log's threads: `log-writer`, `log-files` and, where there is an archive, `log-archive`. They step the state machines and sleep in between.
//!
//! Not here: what a step does (`writer`, `files`).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::archiver::Archiver;
use super::{FilePreparer, Log, LogWriter, Shared, Step};
use crate::error::{Error, Result};

/// A writer that sleeps longer than this is woken by an append, not only by who waits for one.
const LONG_SLEEP: Duration = Duration::from_millis(10);

/// The running threads. Dropping it closes the log.
pub struct LogThreads {
    log: Log,
    writer: Option<JoinHandle<()>>,
    preparer: Option<JoinHandle<()>>,
    archiver: Option<JoinHandle<()>>,
    stop_archiver: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
}

/// Starts the threads.
///
/// # Errors
/// `Io` when the system has no thread to give.
pub fn spawn(writer: LogWriter, mut preparer: FilePreparer, log: &Log) -> Result<LogThreads> {
    let stop = Arc::new(AtomicBool::new(false));
    let stop_archiver = Arc::new(AtomicBool::new(false));
    let mut threads = LogThreads {
        log: log.clone(),
        writer: None,
        preparer: None,
        archiver: None,
        stop_archiver: Arc::clone(&stop_archiver),
        stop: Arc::clone(&stop),
    };
    let failed = |source: io::Error| Error::io("start the threads of", &log.shared.files.directory, source);
    if let Some(archiver) = preparer.take_archiver() {
        let archives = thread::Builder::new().name("log-archive".to_owned());
        let archives = archives.spawn(move || run_archiver(archiver, &stop_archiver));
        threads.archiver = Some(archives.map_err(failed)?);
    }
    let files = thread::Builder::new().name("log-files".to_owned()).spawn(move || run_preparer(preparer, &stop));
    threads.preparer = Some(files.map_err(failed)?);
    let writes = thread::Builder::new().name("log-writer".to_owned()).spawn(move || run_writer(writer));
    threads.writer = Some(writes.map_err(failed)?);
    Ok(threads)
}

impl LogThreads {
    /// Writes and syncs everything appended, ends with the closing mark, archives what is not archived yet, and joins the
    /// threads. Archiving that fails is no error here: the files wait for the next open.
    ///
    /// # Errors
    /// `Poisoned` when the log has failed.
    pub fn close(mut self) -> Result<()> {
        self.end();
        if self.log.is_poisoned() { Err(Error::Poisoned) } else { Ok(()) }
    }

    fn end(&mut self) {
        self.log.begin_close();
        if let Some(writer) = self.writer.take() {
            join(writer);
        }
        self.log.shared.end();
        self.stop_archiver.store(true, SeqCst);
        self.log.shared.archive_signal.notify();
        if let Some(archiver) = self.archiver.take() {
            join(archiver);
        }
        // The preparer goes last: the writer may need a file to finish.
        self.stop.store(true, SeqCst);
        self.log.shared.files_signal.notify();
        if let Some(preparer) = self.preparer.take() {
            join(preparer);
        }
    }
}

fn join(thread: JoinHandle<()>) {
    // The last handle may be dropped by a thread of the log, in a callback; it cannot wait for itself. A panic of the
    // thread has poisoned the log.
    if thread.thread().id() != thread::current().id() {
        let _ = thread.join();
    }
}

impl Drop for LogThreads {
    fn drop(&mut self) {
        self.end();
    }
}

/// Poisons the log when its thread panics, so that nobody waits for ever.
struct PanicGuard(Arc<Shared>);

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if thread::panicking() {
            let source = io::Error::other("a thread of the log panicked");
            self.0.poison(Error::io("go on with", &self.0.files.directory, source));
        }
    }
}

fn run_writer(mut writer: LogWriter) {
    let shared = Arc::clone(&writer.shared);
    let _guard = PanicGuard(Arc::clone(&shared));
    shared.writer_signal.attach();
    while !writer.is_closed() && !shared.is_poisoned() {
        let now = shared.clock.monotonic();
        let Step::Idle { until } = writer.step(now) else {
            continue;
        };
        let sleep = until.map(|until| until.saturating_sub(now));
        if sleep.is_some_and(|sleep| sleep <= LONG_SLEEP) {
            park(sleep);
            continue;
        }
        // First say that we sleep, then look once more: an append does it the other way round.
        shared.writer_sleeps_long.store(true, SeqCst);
        let nothing_came = shared.buffer.lock().is_empty();
        if nothing_came || writer.is_stalled() {
            park(sleep);
        }
        shared.writer_sleeps_long.store(false, SeqCst);
    }
}

fn run_preparer(mut preparer: FilePreparer, stop: &AtomicBool) {
    let shared = Arc::clone(&preparer.shared);
    let _guard = PanicGuard(Arc::clone(&shared));
    shared.files_signal.attach();
    while !stop.load(SeqCst) && !shared.is_poisoned() {
        if let Step::Idle { until } = preparer.step() {
            park(until.map(|until| until.saturating_sub(shared.clock.monotonic())));
        }
    }
    preparer.discard();
}

fn run_archiver(mut archiver: Archiver, stop: &AtomicBool) {
    let shared = Arc::clone(&archiver.shared);
    let _guard = PanicGuard(Arc::clone(&shared));
    shared.archive_signal.attach();
    while !stop.load(SeqCst) && !shared.is_poisoned() {
        if let Step::Idle { until } = archiver.step() {
            park(until.map(|until| until.saturating_sub(shared.clock.monotonic())));
        }
    }
    archiver.finish();
}

fn park(time: Option<Duration>) {
    match time {
        Some(time) => thread::park_timeout(time),
        None => thread::park(),
    }
}
