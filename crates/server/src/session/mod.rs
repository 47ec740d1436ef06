//! A session: the conversation with one client as bytes in, bytes out. No sockets, no threads, no waiting.
//!
//! ```text
//!   receive(bytes) -> decode up to 32 requests -> runs of data commands: the engine's executor, a whole batch at once
//!                                              \> a server command, or anything out of the ordinary: one at a time
//!                  -> replies, marked with the version they wait for
//!   output(commit) -> the bytes that may leave now;  sent(n) -> they are gone
//! ```
//!
//! What a session waits for it says, and the loop calls [`Session::resume`] when it has come: room in the log
//! ([`Waits::Room`]), values that are read from the block file ([`Waits::Values`]), the end of a CLIENT PAUSE
//! ([`Waits::Pause`]). Replies held for a commit do not stop a session
//! until they are many (`limits::HELD_BYTES_MAX`); then it reads on when they have left.
//!
//! A long argument is received beside the input, in chunks that the value will be kept in ([`Session::receive_chunk`]), and a
//! long value leaves in pieces ([`Session::output_pieces`]): neither is copied here.
//!
//! A batch is a run of ordinary data commands; whatever is not ordinary (a server command, an unknown name, a wrong
//! number of arguments, anything inside MULTI, with replies off, or before authentication) ends the batch and runs by
//! itself in `single`. What is not executed stays in the input as bytes and is decoded again: nothing else has to be
//! remembered while a session is parked.
//!
//! Not here: reading and writing sockets (`net`), what commands do (`commands`, crate `bowline`), the text protocol
//! (`text`, which shares everything but the decoding).

pub mod clients;
pub mod limits;
mod single;
#[cfg(test)]
mod tests;
mod transaction;
mod turn;
mod workbench;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bowline::Fetch;
use bowline::Version;
use bowline::exec::{Caller, Durability, PIECES_MAX, Replies, Stop, Watched};
use bowline_resp::{CHUNK_BYTES, Protocol, Reply, RequestDecoder};
use smallvec::SmallVec;

use crate::commands::backup::Backup;
use crate::net::listen::Dialect;
use crate::settings::Settings;
use clients::Client;
use limits::{HELD_BYTES_MAX, KEPT_BYTES, STRANGER_REPLY_BYTES_MAX};
use transaction::Transaction;
pub use workbench::{SyncsSeen, Workbench};

/// Whether the client is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyMode {
    /// Every request is.
    On,
    /// None is, until ON.
    Off,
    /// The next one is not.
    SkipNext,
    /// This one is not; the next one is, unless this one changes that.
    Skip,
}

/// What keeps a session from running its next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// Nothing.
    No,
    /// The log has no room for the next write.
    Room,
    /// Values that the next request needs are being read from the block file.
    Values,
    /// CLIENT PAUSE.
    Pause,
    /// The end of a checkpoint, or the next piece of a backup.
    Checkpoint,
}

/// The conversation with one client.
pub struct Session {
    /// What others see of this connection.
    pub client: Arc<Client>,
    /// Whether the password was given, or none was needed when the connection came.
    pub authenticated: bool,
    /// Since when it has not said the password that it must, milliseconds of the store's time.
    pub stranger_since_ms: u64,
    /// RESP2 or RESP3.
    pub protocol: Protocol,
    /// Whether requests are answered.
    pub reply_mode: ReplyMode,
    /// The durability asked for by this connection; `None`: the server's.
    pub level: Option<Durability>,
    pub(crate) dialect: Dialect,
    database: u32,
    decoder: RequestDecoder,
    /// Bytes received and not executed; those before `input_start` are done with.
    input: Vec<u8>,
    input_start: usize,
    /// In the text protocol: bytes of `input` known to hold no line end.
    pub(crate) line_searched: usize,
    replies: Replies,
    waits: Waits,
    /// The values that it waits for, or that the request being run has waited for.
    fetch: Option<Arc<Fetch>>,
    /// How often the next request has waited for values.
    waited: u8,
    /// The checkpoint that a SAVE of this client waits for.
    pub(crate) saving: Option<u64>,
    /// The backup that this client reads.
    pub(crate) backup: Backup,
    closing: bool,
    transaction: Option<Box<Transaction>>,
    watched: Vec<Watched>,
    /// Database and key of everything in `watched`, so that watching a key twice costs no search.
    watching: HashSet<(u32, Box<[u8]>)>,
    /// Memory of the two.
    watched_bytes: usize,
    /// The input ends in a request of which bytes are missing, and holds nothing before it.
    pub(crate) incomplete: bool,
}

impl Session {
    /// A session that begins now.
    pub fn new(client: Arc<Client>, dialect: Dialect, settings: &Settings) -> Session {
        Session {
            stranger_since_ms: client.since_ms,
            client,
            authenticated: settings.requirepass.is_empty(),
            protocol: Protocol::Resp2,
            reply_mode: ReplyMode::On,
            level: None,
            dialect,
            database: 0,
            decoder: RequestDecoder::new(),
            input: Vec::new(),
            input_start: 0,
            line_searched: 0,
            replies: Replies::default(),
            waits: Waits::No,
            fetch: None,
            waited: 0,
            saving: None,
            backup: Backup::None,
            closing: false,
            transaction: None,
            watched: Vec::new(),
            watching: HashSet::new(),
            watched_bytes: 0,
            incomplete: false,
        }
    }

    /// Takes bytes from the client and runs every complete request, as far as nothing stands in the way.
    pub fn receive(&mut self, bytes: &[u8], bench: &mut Workbench) {
        if self.closing {
            return;
        }
        let bytes = if self.decoder.chunk_bytes_missing() > 0 { self.decoder.fill_chunks(bytes) } else { bytes };
        if self.input.is_empty() {
            // The usual case: whole requests, executed where they were received.
            let used = self.run(bytes, 0, bench);
            if self.closing {
                return;
            }
            self.input.extend_from_slice(bytes.get(used..).unwrap_or_default());
            self.decoder.rebase(used);
            self.begin_chunks();
        } else {
            self.input.extend_from_slice(bytes);
            self.resume(bench);
        }
        self.check_input_limit(bench);
    }

    /// Goes on with what was received before: room has come, the pause is over, held replies have left.
    pub fn resume(&mut self, bench: &mut Workbench) {
        if self.closing {
            return;
        }
        let input = std::mem::take(&mut self.input);
        let start = self.run(&input, self.input_start, bench);
        if self.closing {
            return;
        }
        self.input = input;
        self.input_start = start;
        self.decoder.forget_chunks(start);
        self.compact();
        self.begin_chunks();
    }

    /// Has a long argument of which bytes are missing received in chunks from here on.
    fn begin_chunks(&mut self) {
        if self.incomplete {
            self.decoder.begin_chunks(&mut self.input, self.input_start, CHUNK_BYTES);
        }
    }

    /// Bytes still missing of a long argument that is received in chunks; 0 when none is.
    pub fn chunk_bytes_missing(&self) -> usize {
        self.decoder.chunk_bytes_missing()
    }

    /// Lets `read` add the next bytes of such an argument to the end of the chunk that it is given, as many as that has room
    /// for; returns what `read` does, and how many bytes were asked for.
    pub fn receive_chunk<R>(&mut self, bench: &mut Workbench, read: impl FnOnce(&mut Vec<u8>) -> R) -> (usize, R) {
        let missing = self.decoder.chunk_bytes_missing();
        let Some(space) = self.decoder.chunk_space() else { return (0, read(&mut Vec::new())) };
        let room = missing.min(space.capacity() - space.len());
        let read = read(space);
        self.input.extend(self.decoder.received_chunk());
        self.check_input_limit(bench);
        (room, read)
    }

    /// Room for the client's next bytes in the session's own buffer, for reading a large argument without a copy.
    /// To be followed by [`Session::received_directly`].
    pub fn direct_space(&mut self, bytes: usize) -> &mut [u8] {
        let end = self.input.len();
        self.input.resize(end + bytes, 0);
        self.input.get_mut(end..).unwrap_or_default()
    }

    /// `received` of the `offered` bytes of [`Session::direct_space`] have been filled.
    pub fn received_directly(&mut self, offered: usize, received: usize, bench: &mut Workbench) {
        let unused = offered.saturating_sub(received);
        self.input.truncate(self.input.len().saturating_sub(unused));
        if received > 0 {
            self.resume(bench);
            self.check_input_limit(bench);
        }
    }

    /// Bytes received and not yet executed.
    pub fn received_bytes(&self) -> usize {
        self.input.len() - self.input_start.min(self.input.len()) + self.decoder.chunk_bytes()
    }

    /// Bytes still missing of a large argument, 0 when none is on its way.
    pub fn bytes_wanted(&self) -> usize {
        if self.input.is_empty() { 0 } else { self.decoder.bytes_wanted() }
    }

    /// Drops what was executed from the front of the input; gives memory back when nothing is left.
    fn compact(&mut self) {
        if self.input_start >= self.input.len() {
            self.decoder.rebase(self.input_start);
            self.input_start = 0;
            if self.input.capacity() > KEPT_BYTES {
                self.input = Vec::new();
            } else {
                self.input.clear();
            }
        } else if self.input_start > self.input.len() / 2 {
            // At most as many bytes are moved as have been executed since the last time: linear over all.
            self.input.drain(..self.input_start);
            self.decoder.rebase(self.input_start);
            self.input_start = 0;
        }
    }

    fn check_input_limit(&mut self, bench: &Workbench) {
        let limit = bench.settings.client_query_buffer_limit;
        let waiting = self.received_bytes();
        if waiting as u64 > limit && !self.closing {
            bench.server.metrics.query_limit_closes.fetch_add(1, Relaxed);
            tracing::warn!(client = self.client.id, bytes = waiting, limit, "closes a connection: request too large");
            self.abandon();
        }
    }

    /// Whether more bytes of the client are welcome now.
    pub fn wants_input(&mut self, bench: &Workbench) -> bool {
        !self.closing && self.may_run(bench)
    }

    /// Whether requests may run: nothing awaited, not too many replies unread or held for a commit.
    fn may_run(&mut self, bench: &Workbench) -> bool {
        self.waits == Waits::No
            && !self.is_over_reply_limit(bench)
            && (self.replies.len() < HELD_BYTES_MAX || self.held_bytes(bench.server.commit()) < HELD_BYTES_MAX)
    }

    /// Whether there are more reply bytes than the settings allow. The session runs nothing until the client has taken some.
    pub fn is_over_reply_limit(&self, bench: &Workbench) -> bool {
        let known = self.is_authenticated(&bench.settings());
        let limit = if known { bench.reply_bytes_max } else { bench.reply_bytes_max.min(STRANGER_REPLY_BYTES_MAX) };
        self.replies.len() > limit
    }

    /// Reply bytes that wait for a commit.
    fn held_bytes(&mut self, commit: Version) -> usize {
        self.replies.len() - self.replies.ready_len(commit)
    }

    /// Whether there is received input that may hold a whole request. False after a run that ended with a request of
    /// which bytes are missing.
    pub fn has_input(&self) -> bool {
        self.input_start < self.input.len() && !self.incomplete
    }

    /// What the session waits for.
    pub fn waits(&self) -> Waits {
        self.waits
    }

    /// Runs nothing until the loop says that it has come.
    pub(crate) fn wait_for(&mut self, waits: Waits) {
        self.waits = waits;
        // It may take long, and others may need the memory.
        self.fetch = None;
    }

    /// Whether the values that it waits for are there.
    pub fn has_values(&self) -> bool {
        self.fetch.as_ref().is_none_or(|fetch| fetch.is_done())
    }

    /// Notes how far a run of data commands came and what it waits for, if it stopped.
    pub(crate) fn note_stop(&mut self, done: usize, stopped: Option<Stop>, bench: &mut Workbench) {
        if done > 0 {
            self.waited = 0;
        }
        match stopped {
            Some(Stop::Room) => self.waits = Waits::Room,
            Some(Stop::Values) => {
                self.waits = Waits::Values;
                self.waited = self.waited.saturating_add(1);
            }
            // The turn is over: what there is is sent, then the rest is decoded again.
            Some(Stop::Replies) | None => {}
        }
        // What was fetched for a request is its own until it has run.
        self.fetch = bench.executor().take_fetch();
    }

    /// The wait is over; [`Session::resume`] follows.
    pub fn stop_waiting(&mut self) {
        self.waits = Waits::No;
    }

    /// The reply bytes that may leave when everything up to `commit` is committed; up to the end of a chunk where long values
    /// are among them.
    #[inline]
    pub fn output(&mut self, commit: Version) -> &[u8] {
        self.replies.ready(commit)
    }

    /// As [`Session::output`], more pieces of it at once.
    pub fn output_pieces(&mut self, commit: Version) -> SmallVec<[&[u8]; PIECES_MAX]> {
        self.replies.ready_pieces(commit)
    }

    /// Whether long values are among the replies, so that they are in several pieces.
    #[inline]
    pub fn is_output_in_pieces(&self) -> bool {
        self.replies.is_in_pieces()
    }

    /// The first `bytes` of [`Session::output`] have been written to the socket.
    pub fn sent(&mut self, bytes: usize) {
        self.replies.consume(bytes);
    }

    /// The version that the next held reply waits for; `None` when none is held.
    #[inline]
    pub fn awaited_version(&self, commit: Version) -> Option<Version> {
        self.replies.waits_for(commit)
    }

    /// Reply bytes not sent yet, held ones counted.
    pub fn output_bytes(&self) -> usize {
        self.replies.len()
    }

    /// Memory of requests that did not run, of replies not sent, of what MULTI queued and WATCH noted.
    #[inline]
    pub fn memory_bytes(&self) -> usize {
        let transaction = self.transaction.as_ref().map_or(0, |transaction| transaction.memory_bytes());
        self.input.len() + self.decoder.chunk_bytes() + self.replies.memory_bytes() + transaction + self.watched_bytes
    }

    /// Whether the connection shall close once its replies have been sent.
    pub fn is_closing(&self) -> bool {
        self.closing
    }

    /// Runs no further request; the connection closes when the replies so far have been sent.
    pub fn close_after_replies(&mut self) {
        self.closing = true;
        self.waits = Waits::No;
        self.decoder = RequestDecoder::new();
        self.fetch = None;
        self.input = Vec::new();
        self.input_start = 0;
    }

    /// As [`Session::close_after_replies`], and drops the replies as well.
    pub fn abandon(&mut self) {
        self.close_after_replies();
        self.replies = Replies::default();
    }

    /// Exchanges the reply buffer for `spare` while this session has none of its own: idle connections keep no buffer.
    pub fn lend_replies(&mut self, spare: &mut Replies) {
        if self.replies.is_empty() {
            std::mem::swap(&mut self.replies, spare);
        }
    }

    /// Gives the buffer back when all replies have left.
    pub fn return_replies(&mut self, spare: &mut Replies) {
        if self.replies.is_empty() {
            std::mem::swap(&mut self.replies, spare);
        }
    }

    /// The writer of the next reply.
    pub fn reply(&mut self) -> Reply<'_> {
        self.replies.writer(self.protocol)
    }

    /// Writes a reply that is held until `version` is committed.
    pub fn reply_when(&mut self, version: Version, commit: Version, write: impl FnOnce(&mut Reply<'_>)) {
        let start = self.replies.end();
        write(&mut self.reply());
        if version > commit {
            self.replies.depend_on(start, version);
        }
    }

    /// Chooses the database.
    pub fn select(&mut self, database: u32) {
        self.database = database;
        self.client.database.store(database, Relaxed);
    }

    /// Chooses the protocol version.
    pub fn speak(&mut self, protocol: Protocol) {
        self.protocol = protocol;
        self.client.protocol.store(if protocol == Protocol::Resp3 { 3 } else { 2 }, Relaxed);
    }

    /// Whether this connection may run commands.
    pub fn is_authenticated(&self, settings: &Settings) -> bool {
        self.authenticated || settings.requirepass.is_empty()
    }

    /// Tells the others how much is buffered here.
    pub fn publish(&self) {
        self.client.input_bytes.store(self.received_bytes() as u64, Relaxed);
        self.client.output_bytes.store(self.replies.len() as u64, Relaxed);
        self.client.memory_bytes.store(self.memory_bytes() as u64, Relaxed);
    }

    /// Before data commands run, until [`Session::note_stop`]: who runs them, with what was fetched for the first.
    pub(crate) fn begin_run(&mut self, bench: &mut Workbench) -> Caller {
        bench.executor().give_fetch(self.fetch.take());
        self.caller(bench)
    }

    fn caller(&self, bench: &Workbench) -> Caller {
        let level = self.level.unwrap_or(bench.default_level);
        let no_touch = self.client.no_touch.load(Relaxed);
        Caller { database: self.database, protocol: self.protocol, level, no_touch, waited: self.waited }
    }
}
