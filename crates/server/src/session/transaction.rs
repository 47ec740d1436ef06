//! MULTI to EXEC: what a session queues, and how it runs.
//!
//! Data commands run in the engine as one unit: one moment, one record of the log, one array as the reply. Server
//! commands among them (PING, CONFIG GET, ...) run right after the unit; their replies are put where they belong in the
//! array. SELECT among them says in which database the data commands after it run; it takes hold of the connection when its
//! own turn in the array comes, so a transaction that does not run selects nothing.

use std::collections::HashSet;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use bowline::Version;
use bowline::command::Flags;
use bowline::exec::{Replies, Stop, TransactionEnd};
use bowline_resp::{ArgRange, Args, ReplyDecoder};

use super::limits::{QUEUE_BYTES_MAX, WATCHED_KEYS_MAX};
use super::single::contiguous;
use super::{ReplyMode, Session, Workbench};
use crate::commands::row::ServerCommand;
use crate::commands::table::{Entry, Target};

/// What was queued since MULTI.
#[derive(Default)]
pub(super) struct Transaction {
    /// The data commands, as the engine takes them.
    data: bowline::exec::Transaction,
    /// Everything in order.
    order: Vec<Queued>,
    /// Bytes of all arguments.
    bytes: usize,
    /// A command was refused while queueing: EXEC will not run.
    spoiled: bool,
    /// A data command that may change something is among them.
    writes: bool,
    /// A data command that may make more data is among them.
    adds: bool,
}

/// One queued command.
enum Queued {
    /// The next data command.
    Data(&'static Entry),
    /// A server command with its arguments.
    Server { row: &'static ServerCommand, entry: &'static Entry, bytes: Vec<u8>, ranges: Vec<ArgRange> },
}

/// Memory of a queued command beside its arguments, about.
const QUEUED_OVERHEAD: usize = 128;

/// Memory of a watched key beside its bytes, about.
const WATCHED_OVERHEAD: usize = 128;

const ABORTED: &str = "EXECABORT Transaction discarded because of previous errors.";

impl Session {
    /// Whether MULTI was said and not yet EXEC.
    pub fn in_transaction(&self) -> bool {
        self.transaction.is_some()
    }

    /// MULTI. False when one has begun already.
    pub fn begin_transaction(&mut self) -> bool {
        if self.in_transaction() {
            return false;
        }
        self.transaction = Some(Box::default());
        self.client.queued.store(0, Relaxed);
        true
    }

    /// DISCARD: drops what is queued and what is watched.
    pub fn discard(&mut self) {
        self.transaction = None;
        self.client.queued.store(-1, Relaxed);
        self.unwatch();
    }

    /// Makes EXEC refuse, because a command could not be queued.
    pub(super) fn spoil_transaction(&mut self) {
        if let Some(transaction) = &mut self.transaction {
            transaction.spoiled = true;
        }
    }

    /// Whether EXEC would change data.
    pub(super) fn transaction_writes(&self) -> bool {
        self.transaction.as_ref().is_some_and(|transaction| transaction.writes)
    }

    /// Whether EXEC may make more data.
    pub(super) fn transaction_adds(&self) -> bool {
        self.transaction.as_ref().is_some_and(|transaction| transaction.adds)
    }

    /// Has the keys' entries in memory before WATCH looks at them, after a lazy start. False when the session waits for them,
    /// and WATCH is to be given again; or when that cannot be, which was answered.
    #[must_use]
    pub fn load_watched<'k>(&mut self, bench: &mut Workbench, keys: impl Iterator<Item = &'k [u8]>) -> bool {
        match bench.executor().load_keys(keys) {
            Ok(true) => true,
            Ok(false) => {
                self.note_stop(0, Some(Stop::Values), bench);
                false
            }
            Err(error) => {
                bench.failed(self, &format!("ERR {error}"));
                false
            }
        }
    }

    /// WATCH of one key. False when the connection watches too many already.
    #[must_use]
    pub fn watch(&mut self, bench: &mut Workbench, key: &[u8]) -> bool {
        if self.watching.len() >= WATCHED_KEYS_MAX {
            return false;
        }
        if !self.watching.insert((self.database, key.into())) {
            return true;
        }
        // Its bytes are in both.
        self.watched_bytes += 2 * key.len() + WATCHED_OVERHEAD;
        let caller = self.caller(bench);
        self.watched.push(bench.executor().watch(&caller, key));
        self.client.watched.store(self.watched.len() as u32, Relaxed);
        true
    }

    /// UNWATCH.
    pub fn unwatch(&mut self) {
        self.watched = Vec::new();
        self.watching = HashSet::new();
        self.watched_bytes = 0;
        self.client.watched.store(0, Relaxed);
    }

    /// Queues a command whose name and arity are right, and answers QUEUED. Always true: queueing never waits.
    pub(super) fn queue(&mut self, args: Args<'_>, entry: &'static Entry, bench: &Workbench) -> bool {
        let bytes = QUEUED_OVERHEAD + args.lens().map(|len| len + size_of::<ArgRange>()).sum::<usize>();
        let Some(transaction) = &mut self.transaction else { return true };
        let fits = transaction.bytes + bytes <= QUEUE_BYTES_MAX && transaction.push(args, entry);
        if fits {
            transaction.bytes += bytes;
            if let Some(database) = selected(args, entry, bench) {
                transaction.data.select(database, self.database);
            }
            self.client.queued.store(transaction.order.len() as i64, Relaxed);
            self.reply().simple("QUEUED");
        } else {
            self.spoil_transaction();
            bench.failed(self, "ERR the transaction is too large: queue fewer or smaller commands");
        }
        true
    }

    /// EXEC. When the log has no room the session waits, and EXEC is to be given again.
    pub fn exec(&mut self, bench: &mut Workbench) {
        let Some(transaction) = self.transaction.take() else {
            return bench.failed(self, "ERR EXEC without MULTI");
        };
        if transaction.spoiled {
            self.discard();
            return bench.failed(self, ABORTED);
        }
        let began = Instant::now();
        let caller = self.begin_run(bench);
        let watched = std::mem::take(&mut self.watched);
        let plain = transaction.order.len() == transaction.data.len();
        let mut apart = Replies::new();
        let replies = if plain { &mut self.replies } else { &mut apart };
        match bench.executor().transaction(&caller, &transaction.data, &watched, replies) {
            end @ (TransactionEnd::Room | TransactionEnd::Values) => {
                self.transaction = Some(transaction);
                self.watched = watched;
                let stop = if end == TransactionEnd::Room { Stop::Room } else { Stop::Values };
                self.note_stop(0, Some(stop), bench);
            }
            TransactionEnd::Done => {
                self.note_stop(1, None, bench);
                self.discard();
                transaction.count(bench, began);
                if !plain {
                    self.weave(&transaction, &mut apart, bench);
                }
            }
        }
    }

    /// Puts the replies of the server commands between those of the data commands.
    fn weave(&mut self, transaction: &Transaction, data: &mut Replies, bench: &mut Workbench) {
        let start = self.replies.end();
        let version = data.waits_for(Version::ZERO);
        let bytes = &data.take_all()[..];
        let header = format!("*{}\r\n", transaction.data.len());
        match bytes.strip_prefix(header.as_bytes()) {
            None => self.reply().raw(bytes),
            Some(rest) => self.weave_replies(transaction, rest, bench),
        }
        if let Some(version) = version {
            self.replies.depend_on(start, version);
        }
    }

    /// The array itself, `rest` being the replies of the data commands. As in Redis, CLIENT REPLY counts from its place on:
    /// an array of which the client wanted a part only is not whole.
    fn weave_replies(&mut self, transaction: &Transaction, mut rest: &[u8], bench: &mut Workbench) {
        let mut unsaid = self.reply_mode != ReplyMode::On;
        if !unsaid {
            self.reply().array(transaction.order.len());
        }
        for queued in &transaction.order {
            let start = self.replies.end();
            match queued {
                Queued::Data(_) => {
                    let decoded = ReplyDecoder::new().decode(rest);
                    let Ok(Some((_, len))) = decoded else { unreachable!("the engine wrote whole replies") };
                    let (reply, others) = rest.split_at(len);
                    self.reply().raw(reply);
                    rest = others;
                }
                Queued::Server { row, entry, bytes, ranges } => {
                    let began = Instant::now();
                    let args = Args::new(bytes, ranges);
                    self.run_server(args, row, bench);
                    bench.count_single(entry, began, self, args);
                    unsaid = match self.reply_mode {
                        ReplyMode::On => false,
                        ReplyMode::Off => true,
                        ReplyMode::Skip | ReplyMode::SkipNext => unsaid,
                    };
                }
            }
            if unsaid {
                self.replies.rollback(start);
            }
        }
    }
}

/// The database that a queued SELECT will choose; `None` for other commands and for one that will answer an error.
fn selected(args: Args<'_>, entry: &Entry, bench: &Workbench) -> Option<u32> {
    let index = bowline_resp::parse_integer(args.at(1)).filter(|_| entry.info.name == "select")?;
    u32::try_from(index).ok().filter(|index| *index < bench.settings.databases)
}

impl Transaction {
    /// Memory of what is queued, about.
    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a command; false when the engine's limit of a transaction is reached.
    fn push(&mut self, args: Args<'_>, entry: &'static Entry) -> bool {
        match entry.target {
            Target::Data(command) => {
                if !self.data.push(command, args) {
                    return false;
                }
                self.writes |= entry.writes;
                self.adds |= entry.info.flags.has(Flags::ADDS);
                self.order.push(Queued::Data(entry));
            }
            Target::Server(row) => {
                let (bytes, ranges) = contiguous(args);
                self.order.push(Queued::Server { row, entry, bytes, ranges });
            }
        }
        true
    }

    /// Counts the data commands: each an equal part of the time.
    fn count(&self, bench: &Workbench, began: Instant) {
        let each = began.elapsed().as_nanos() as u64 / self.data.len().max(1) as u64;
        for queued in &self.order {
            if let Queued::Data(entry) = queued {
                bench.count_call(entry, each);
            }
        }
    }
}
