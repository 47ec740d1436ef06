//! Sends requests without waiting for each other's answers, and looks at every answer.
//!
//! ```text
//!   this thread     encode -> batch --bytes--> socket --> server
//!                               \--marks--> channel (bounded)
//!   answers' thread                           marks + replies: confirmed, left out, refused
//! ```
//!
//! Marks go before the bytes, so every answer is awaited from the moment it can come, and no answer can stop the server
//! from reading. An answer that ends the import shuts the socket down, which also ends a write that waits for room. What
//! was sent after it may have been executed; the message says so.

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use bowline_client::{Stream, Value};
use bowline_resp::{ReplyDecoder, encode_request};

use crate::failure::{Exit, Failure};
use crate::print::printable;

/// A batch is sent when it has this many bytes of requests.
const BATCH_BYTES: usize = 64 * 1024;
/// A batch is sent when it has this many requests.
const BATCH_REQUESTS: usize = 1000;
/// Batches whose answers may be missing; bounds what is on its way beside what the sockets hold.
const BATCHES_AWAITED: usize = 64;
/// Bytes handed to the socket at once, so that progress is seen while a large value is written.
const PIECE_BYTES: usize = 64 * 1024;
/// Bytes of answers asked for by one read.
const READ_BYTES: usize = 64 * 1024;
/// What was left out is named up to this many times, and counted always.
pub(super) const NAMED_MAX: usize = 10;

/// What a request is, and so what its answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The SET of an entry.
    Entry,
    /// A command of an append-only file.
    Command,
    /// Something of this program's own, or MULTI.
    Setup,
    /// A command within a transaction.
    Queued,
    /// The end of a transaction, whose answer has those of all its commands.
    Exec,
}

/// What the answers' thread has seen so far.
#[derive(Debug, Default)]
pub(super) struct Confirmed {
    entries: AtomicU64,
    commands: AtomicU64,
    left_out: AtomicU64,
    named: Mutex<Vec<String>>,
    /// Pieces handed to the socket: while this number grows, silence is no timeout.
    pieces: AtomicU64,
}

impl Confirmed {
    /// Entries that the server has.
    pub(super) fn entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    /// Commands that the server has executed.
    pub(super) fn commands(&self) -> u64 {
        self.commands.load(Ordering::Relaxed)
    }

    /// Commands that failed because of something that was left out before, and the first of them by name.
    pub(super) fn left_out(&self) -> (u64, Vec<String>) {
        let named = self.named.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (self.left_out.load(Ordering::Relaxed), named)
    }
}

struct Mark {
    kind: Kind,
    name_end: usize,
}

/// The requests whose bytes follow.
#[derive(Default)]
struct Batch {
    marks: Vec<Mark>,
    names: Vec<u8>,
    /// Told when all of them are answered.
    settled: Option<SyncSender<()>>,
}

/// How the answers ended.
enum Ended {
    /// Every request was answered, and none was refused.
    Complete,
    /// The server refused a request.
    Refused { name: String, text: String },
    /// There will be no more answers.
    Lost(String),
}

/// The sending side.
pub(super) struct Sender {
    stream: Stream,
    address: String,
    bytes: Vec<u8>,
    batch: Batch,
    batches: Option<SyncSender<Batch>>,
    answers: Option<JoinHandle<Ended>>,
    confirmed: Arc<Confirmed>,
}

impl Sender {
    /// Takes over a connection on which nothing is unanswered. `lenient` leaves out commands that fail because their key
    /// is missing or of another type.
    pub(super) fn start(stream: Stream, address: String, lenient: bool) -> Result<Sender, Failure> {
        let cannot = |source| Failure::Local { what: "read and write at once".to_owned(), source };
        let reading = stream.try_clone().map_err(cannot)?;
        let (batches, receiver) = sync_channel(BATCHES_AWAITED);
        let confirmed = Arc::new(Confirmed::default());
        let shared = Arc::clone(&confirmed);
        let answers = std::thread::Builder::new()
            .name("answers".to_owned())
            .spawn(move || Answers::new(reading, shared, lenient).run(&receiver))
            .map_err(cannot)?;
        let (bytes, batch) = (Vec::new(), Batch::default());
        Ok(Sender { stream, address, bytes, batch, batches: Some(batches), answers: Some(answers), confirmed })
    }

    /// What has been confirmed so far.
    pub(super) fn confirmed(&self) -> &Confirmed {
        &self.confirmed
    }

    /// Whether nothing has ended the import yet, as far as this side knows.
    pub(super) fn is_running(&self) -> bool {
        self.answers.is_some()
    }

    /// Sends a request, soon. `name` is what a message about it says.
    pub(super) fn request<A: AsRef<[u8]>>(&mut self, kind: Kind, name: &[&[u8]], args: &[A]) -> Result<(), Failure> {
        encode_request(&mut self.bytes, args);
        self.mark(kind, name)
    }

    /// Sends the bytes of a request, soon.
    pub(super) fn request_bytes(&mut self, kind: Kind, name: &[&[u8]], bytes: &[u8]) -> Result<(), Failure> {
        self.bytes.extend_from_slice(bytes);
        self.mark(kind, name)
    }

    /// Sends what is waiting and waits until everything is answered.
    pub(super) fn settle(&mut self) -> Result<(), Failure> {
        let (settled, all_answered) = sync_channel(1);
        self.batch.settled = Some(settled);
        self.flush()?;
        all_answered.recv().map_err(|_| self.failure())
    }

    /// Sends what is waiting, waits for every answer, and ends.
    pub(super) fn finish(mut self) -> Result<Arc<Confirmed>, Failure> {
        self.flush()?;
        match self.ended() {
            Ended::Complete => Ok(Arc::clone(&self.confirmed)),
            ended => Err(self.failure_of(ended)),
        }
    }

    fn mark(&mut self, kind: Kind, name: &[&[u8]]) -> Result<(), Failure> {
        const NAME_BYTES_MAX: usize = 100;
        for (place, part) in name.iter().enumerate() {
            if place > 0 {
                self.batch.names.push(b' ');
            }
            self.batch.names.extend(part.iter().take(NAME_BYTES_MAX));
        }
        self.batch.marks.push(Mark { kind, name_end: self.batch.names.len() });
        if self.bytes.len() >= BATCH_BYTES || self.batch.marks.len() >= BATCH_REQUESTS { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let batch = std::mem::take(&mut self.batch);
        let awaited = self.batches.as_ref().is_some_and(|batches| batches.send(batch).is_ok());
        if !awaited {
            return Err(self.failure());
        }
        for piece in self.bytes.chunks(PIECE_BYTES) {
            if let Err(source) = self.stream.write_all(piece) {
                // The other side knows better why: its answer, or its silence.
                let _ = self.stream.shutdown();
                let ended = match self.ended() {
                    Ended::Complete => Ended::Lost(source.to_string()),
                    Ended::Lost(_) if is_timeout(&source) => {
                        Ended::Lost("the server took no more bytes in time; see --timeout".to_owned())
                    }
                    ended => ended,
                };
                return Err(self.failure_of(ended));
            }
            self.confirmed.pieces.fetch_add(1, Ordering::Relaxed);
        }
        self.bytes.clear();
        if self.bytes.capacity() > 16 * BATCH_BYTES {
            self.bytes = Vec::new();
        }
        Ok(())
    }

    /// Waits for the answers' thread, which ends when it has no more marks.
    fn ended(&mut self) -> Ended {
        self.batches = None;
        let gone = || Ended::Lost("the thread that reads the answers ended".to_owned());
        self.answers.take().and_then(|answers| answers.join().ok()).unwrap_or_else(gone)
    }

    fn failure(&mut self) -> Failure {
        let ended = self.ended();
        self.failure_of(ended)
    }

    fn failure_of(&self, ended: Ended) -> Failure {
        let (entries, commands) = (self.confirmed.entries(), self.confirmed.commands());
        let confirmed = format!("confirmed before: {}", counted(entries, commands));
        match ended {
            Ended::Refused { name, text } => Failure::Failed {
                message: format!(
                    "{name}: the server answered {}; {confirmed}; what was on its way behind it may have been executed too",
                    printable(&text)
                ),
                exit: Exit::Server,
            },
            Ended::Lost(cause) => Failure::Failed {
                message: format!(
                    "the connection to {} was lost ({cause}); {confirmed}; what was sent after them may or may not have been executed",
                    self.address
                ),
                exit: Exit::Connection,
            },
            Ended::Complete => Failure::Failed {
                message: format!("the connection to {} ended too early; {confirmed}", self.address),
                exit: Exit::Connection,
            },
        }
    }
}

impl Drop for Sender {
    /// An import that breaks off leaves no thread that waits for answers.
    fn drop(&mut self) {
        if let Some(answers) = self.answers.take() {
            self.batches = None;
            let _ = self.stream.shutdown();
            let _ = answers.join();
        }
    }
}

/// The side that reads the answers.
struct Answers {
    stream: Stream,
    decoder: ReplyDecoder,
    input: Vec<u8>,
    consumed: usize,
    confirmed: Arc<Confirmed>,
    lenient: bool,
    /// Commands of the open transaction, and the first refusal among them.
    queued: u64,
    queue_refusal: Option<(String, String)>,
}

impl Answers {
    fn new(stream: Stream, confirmed: Arc<Confirmed>, lenient: bool) -> Self {
        Answers {
            stream,
            decoder: ReplyDecoder::default(),
            input: Vec::new(),
            consumed: 0,
            confirmed,
            lenient,
            queued: 0,
            queue_refusal: None,
        }
    }

    fn run(mut self, batches: &Receiver<Batch>) -> Ended {
        for batch in batches {
            let mut name_begin = 0;
            for mark in &batch.marks {
                let name = batch.names.get(name_begin..mark.name_end).unwrap_or_default();
                name_begin = mark.name_end;
                let taken = match self.read_answer() {
                    Ok(value) => self.take(mark.kind, name, value),
                    Err(cause) => Err(Ended::Lost(cause)),
                };
                if let Err(ended) = taken {
                    // A write that waits for room must not wait for a reader that is gone.
                    let _ = self.stream.shutdown();
                    return ended;
                }
            }
            if let Some(settled) = batch.settled {
                let _ = settled.send(());
            }
        }
        Ended::Complete
    }

    fn take(&mut self, kind: Kind, name: &[u8], value: Value) -> Result<(), Ended> {
        match (kind, value) {
            (Kind::Queued, Value::Error(text)) => {
                self.queue_refusal.get_or_insert_with(|| (described(name), text));
            }
            (Kind::Queued, _) => self.queued += 1,
            (Kind::Exec, Value::Error(text)) => {
                let (name, text) = self.queue_refusal.take().unwrap_or_else(|| (described(name), text));
                return Err(Ended::Refused { name, text });
            }
            (Kind::Exec, Value::Array(answers)) => {
                let mut executed = std::mem::take(&mut self.queued);
                for answer in answers {
                    if let Value::Error(text) = answer {
                        self.refusal(name, text)?;
                        executed = executed.saturating_sub(1);
                    }
                }
                self.confirmed.commands.fetch_add(executed, Ordering::Relaxed);
            }
            (Kind::Exec, _) => return Err(Ended::Lost("EXEC was not answered by a list".to_owned())),
            (_, Value::Error(text)) => self.refusal(name, text)?,
            (Kind::Entry, _) => drop(self.confirmed.entries.fetch_add(1, Ordering::Relaxed)),
            (Kind::Command, _) => drop(self.confirmed.commands.fetch_add(1, Ordering::Relaxed)),
            (Kind::Setup, _) => {}
        }
        Ok(())
    }

    /// An error ends the import, unless it only follows from what was left out.
    fn refusal(&self, name: &[u8], text: String) -> Result<(), Ended> {
        let follows = text.starts_with("WRONGTYPE ") || text.eq_ignore_ascii_case("ERR no such key");
        if !(self.lenient && follows) {
            return Err(Ended::Refused { name: described(name), text });
        }
        self.confirmed.left_out.fetch_add(1, Ordering::Relaxed);
        let mut named = self.confirmed.named.lock().unwrap_or_else(PoisonError::into_inner);
        if named.len() < NAMED_MAX {
            named.push(format!("{}: {}", described(name), printable(&text)));
        }
        Ok(())
    }

    fn read_answer(&mut self) -> Result<Value, String> {
        loop {
            let unread = self.input.get(self.consumed..).unwrap_or_default();
            match self.decoder.decode(unread) {
                Err(error) => return Err(format!("what came is no answer: {error}")),
                Ok(Some((value, length))) => {
                    self.consumed += length;
                    if !matches!(value, Value::Push(_)) {
                        return Ok(value);
                    }
                }
                Ok(None) => self.fill()?,
            }
        }
    }

    fn fill(&mut self) -> Result<(), String> {
        self.input.drain(..self.consumed);
        self.consumed = 0;
        let begin = self.input.len();
        self.input.resize(begin + READ_BYTES, 0);
        let read = self.read(begin);
        self.input.truncate(begin + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => Err("the server closed it".to_owned()),
            Ok(_) => Ok(()),
            Err(source) if is_timeout(&source) => Err("no answer in time; see --timeout".to_owned()),
            Err(source) => Err(source.to_string()),
        }
    }

    /// One read. Silence counts only while nothing is being written: a large value takes its time.
    fn read(&mut self, begin: usize) -> io::Result<usize> {
        loop {
            let pieces = self.confirmed.pieces.load(Ordering::Relaxed);
            match self.stream.read(self.input.get_mut(begin..).unwrap_or_default()) {
                Err(source) if source.kind() == io::ErrorKind::Interrupted => {}
                Err(source) if is_timeout(&source) && pieces != self.confirmed.pieces.load(Ordering::Relaxed) => {}
                other => return other,
            }
        }
    }
}

fn is_timeout(source: &io::Error) -> bool {
    matches!(source.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Both figures in words.
pub(super) fn counted(entries: u64, commands: u64) -> String {
    let plural = |number: u64, word: &str| format!("{number} {word}{}", if number == 1 { "" } else { "s" });
    format!("{} and {}", plural(entries, "key"), plural(commands, "command"))
}

fn described(name: &[u8]) -> String {
    name.escape_ascii().to_string()
}
