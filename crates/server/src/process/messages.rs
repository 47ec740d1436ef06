//! The way of a message to its file: threads leave lines in a bounded queue, one thread writes them.
//!
//! ```text
//! any thread -> push (never waits) -> queue -> thread "messages" -> file or standard error
//! ```
//!
//! A disk that stalls, or a terminal that does not scroll, must not hold up an event loop that has something to say. So
//! lines that find the queue full are counted and dropped, and the count is written when there is room again. `flush`
//! waits for a moment until everything is written; the process ends with it.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// Most bytes of lines that wait: far more than a server says in a second, and little beside its memory.
const WAITING_BYTES_MAX: usize = 1 << 20;

/// Messages are for the operator and their group.
const FILE_MODE: u32 = 0o640;

/// How long a request to open the file anew waits for a write that has stalled. The thread that asks also handles SIGTERM.
const REOPEN_AT_MOST: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Waiting {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    dropped: u64,
    /// Whether lines were taken out that are not written yet.
    writing: bool,
}

/// Where the lines go in the end.
pub(super) enum Target {
    /// The standard error.
    StandardError,
    /// A file, written at its end.
    File {
        /// Its path, to open it anew.
        path: PathBuf,
        /// The open file.
        file: File,
    },
}

impl Target {
    /// Opens a file for appending, and makes it where it is missing.
    pub(super) fn file(path: &Path) -> io::Result<Target> {
        let file = OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(path)?;
        Ok(Target::File { path: path.to_owned(), file })
    }

    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        match self {
            Target::StandardError => io::stderr().write_all(text),
            Target::File { file, .. } => file.write_all(text),
        }
    }
}

/// The queue and what it is written to.
pub(super) struct Messages {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    target: Mutex<Target>,
    to_standard_error: bool,
}

impl Messages {
    /// Starts the thread that writes.
    pub(super) fn start(target: Target) -> io::Result<Arc<Messages>> {
        let messages = Arc::new(Messages::new(target));
        let writer = Arc::clone(&messages);
        // It lasts as long as the process; `flush` is what waits for it.
        thread::Builder::new().name("messages".to_owned()).spawn(move || {
            loop {
                writer.write_waiting();
            }
        })?;
        Ok(messages)
    }

    fn new(target: Target) -> Messages {
        let to_standard_error = matches!(target, Target::StandardError);
        let (waiting, target) = (Mutex::new(Waiting::default()), Mutex::new(target));
        Messages { waiting, changed: Condvar::new(), target, to_standard_error }
    }

    /// Leaves a line to be written.
    pub(super) fn push(&self, line: &[u8]) {
        let mut waiting = self.waiting.lock();
        if waiting.bytes + line.len() > WAITING_BYTES_MAX {
            waiting.dropped += 1;
            return;
        }
        waiting.bytes += line.len();
        waiting.lines.push_back(line.to_vec());
        self.changed.notify_all();
    }

    /// Waits until there is something, and writes it.
    fn write_waiting(&self) {
        let (text, dropped) = {
            let mut waiting = self.waiting.lock();
            self.changed.wait_while(&mut waiting, |waiting| waiting.lines.is_empty());
            waiting.writing = true;
            waiting.bytes = 0;
            let text: Vec<u8> = waiting.lines.drain(..).flatten().collect();
            (text, std::mem::take(&mut waiting.dropped))
        };
        let mut target = self.target.lock();
        // When messages cannot be written there is nowhere to say so; the server goes on without them.
        let _ = target.write(&text);
        if dropped > 0 {
            let note = format!(
                "kv_server: {dropped} messages were dropped here, as they came faster than they were written\n"
            );
            let _ = target.write(note.as_bytes());
        }
        drop(target);
        self.waiting.lock().writing = false;
        self.changed.notify_all();
    }

    /// Waits until everything left before is written, but no longer than `at_most`. Says whether it is.
    pub(super) fn flush(&self, at_most: Duration) -> bool {
        let deadline = Instant::now() + at_most;
        let mut waiting = self.waiting.lock();
        let unwritten = |waiting: &mut Waiting| waiting.writing || !waiting.lines.is_empty();
        !self.changed.wait_while_until(&mut waiting, unwritten, deadline).timed_out()
    }

    /// Opens the file anew; lines go on into the old one when that fails. Returns the path where there is a file.
    pub(super) fn reopen(&self) -> Result<Option<PathBuf>, (PathBuf, io::Error)> {
        if self.to_standard_error {
            return Ok(None);
        }
        let Some(mut target) = self.target.try_lock_for(REOPEN_AT_MOST) else {
            let stalled = io::Error::new(io::ErrorKind::TimedOut, "writing into it has stalled");
            return Err((PathBuf::from("that is open"), stalled));
        };
        let Target::File { path, .. } = &*target else { return Ok(None) };
        let path = path.clone();
        match Target::file(&path) {
            Ok(opened) => *target = opened,
            Err(error) => return Err((path, error)),
        }
        Ok(Some(path))
    }

    /// Whether lines go to the standard error.
    pub(super) fn go_to_standard_error(&self) -> bool {
        self.to_standard_error
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn lines_reach_a_file_in_their_order_and_a_moved_one_is_opened_anew() {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, moved) = (directory.path().join("kv.log"), directory.path().join("kv.log.1"));
        let messages = Messages::start(Target::file(&path).expect("opened")).expect("started");
        messages.push(b"first\n");
        assert!(messages.flush(Duration::from_secs(60)));
        fs::rename(&path, &moved).expect("moved");
        messages.push(b"second\n");
        assert!(messages.flush(Duration::from_secs(60)));
        assert_eq!(messages.reopen().expect("opened"), Some(path.clone()));
        messages.push(b"third\n");
        messages.push(b"fourth\n");
        assert!(messages.flush(Duration::from_secs(60)));
        assert_eq!(fs::read_to_string(&moved).expect("read"), "first\nsecond\n");
        assert_eq!(fs::read_to_string(&path).expect("read"), "third\nfourth\n");
    }

    #[test]
    fn a_full_queue_drops_lines_and_says_how_many() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("kv.log");
        // No thread writes, as when the disk stalls.
        let messages = Messages::new(Target::file(&path).expect("opened"));
        let line = vec![b'x'; WAITING_BYTES_MAX / 2];
        for _ in 0..5 {
            messages.push(&line);
        }
        assert!(!messages.flush(Duration::ZERO), "nothing was written yet");
        messages.write_waiting();
        assert!(messages.flush(Duration::ZERO));
        let text = fs::read_to_string(&path).expect("read");
        assert!(text.len() < WAITING_BYTES_MAX + 200 && text.contains("3 messages were dropped"), "{}", text.len());
    }

    #[test]
    fn what_the_thread_has_taken_but_not_written_is_waited_for() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("kv.log");
        let messages = Messages::start(Target::file(&path).expect("opened")).expect("started");
        let stalled = messages.target.lock();
        messages.push(b"taken\n");
        while !messages.waiting.lock().lines.is_empty() {
            thread::yield_now();
        }
        assert!(!messages.flush(Duration::ZERO));
        drop(stalled);
        assert!(messages.flush(Duration::from_secs(60)));
        assert_eq!(fs::read_to_string(&path).expect("read"), "taken\n");
    }

    #[test]
    fn a_file_that_cannot_be_opened_anew_is_named_and_the_old_one_stays() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("inside").join("kv.log");
        fs::create_dir(directory.path().join("inside")).expect("made");
        let messages = Messages::new(Target::file(&path).expect("opened"));
        fs::rename(directory.path().join("inside"), directory.path().join("moved")).expect("moved");
        assert_eq!(messages.reopen().expect_err("no directory").0, path);
        messages.push(b"still\n");
        messages.write_waiting();
        assert_eq!(fs::read_to_string(directory.path().join("moved").join("kv.log")).expect("read"), "still\n");
    }
}
