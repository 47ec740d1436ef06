//! Running commands: locks, log and replies.
//!
//! ```text
//!  pipelined commands --+-- a group of keyed commands: room in the log, one hold of all their segments,
//!                       |   prefetch all buckets, then all entries, then run one after another
//!                       |-- a unit: a transaction, a command over whole databases, or one that needs more locks or
//!                       |   room than its arguments show
//!                       \-- KEYS and SCAN by themselves: one segment after another (`by_segment`)
//!  each write: effects -> one record in the log -> its version is stamped on what it changed -> reply held for it
//! ```
//!
//! A group is nothing but a shared hold: each command is still on its own, with a version of its own. Room in the log is
//! taken before anything executes; where there is none yet the caller parks, where the disk is full the command is
//! refused. A command that needs a cold value is not begun either: the caller parks until it was read
//! (`values`); the same for keys in a segment that is not loaded yet (`segments`). Not here: bytes of connections (crate
//! `server`), what commands do (`command`).

mod arguments;
mod by_segment;
mod laps;
mod replies;
mod segments;
mod unit;
mod values;

pub use arguments::Arguments;
pub use laps::{Lap, Timing};
pub use replies::{PIECES_MAX, Replies};
pub use unit::{OUT_OF_MEMORY, Transaction, TransactionEnd, Watched};

use crate::command::{Change, Command, CommandError, Context, Flags, Pending, PlannedKey, Run, View};
use crate::keyspace::{Hold, Keyspace, SegmentSet};
use crate::limits::{GROUP_BYTES_MAX, GROUP_COMMANDS_MAX};
use crate::log::{self, Admission, Log, RoomClass};
use crate::store::{Fetch, MemoryRoom, Store, Waker};
use crate::version::Version;
use bowline_resp::{ArgRange, Args, Protocol};
use by_segment::is_by_segment;
use laps::Laps;
use std::sync::Arc;

/// When a reply may leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// When everything it tells of is committed.
    #[default]
    Always,
    /// At once; the log is synced every second. A power cut can take the last second of acknowledged writes.
    EverySecond,
    /// At once; the log is synced when something else asks for it. A power cut can take more.
    None,
}

/// What a connection says of itself.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// The database number that it has selected.
    pub database: u32,
    /// The protocol of its replies.
    pub protocol: Protocol,
    /// When its replies may leave.
    pub level: Durability,
    /// What it looks at does not count as used, unless by TOUCH (CLIENT NO-TOUCH).
    pub no_touch: bool,
    /// How often it has waited for values for the command that it runs first.
    pub waited: u8,
}

/// One decoded command and where its arguments stand among the ranges.
#[derive(Clone, Copy, Debug)]
pub struct Planned {
    /// Its row.
    pub command: &'static Command,
    /// Index of its name among the ranges.
    pub first_range: u32,
    /// Number of its arguments, its name counted.
    pub ranges: u32,
}

impl Planned {
    fn args<'a>(&self, request: &Request<'a>) -> Args<'a> {
        let Arguments { buffer, ranges, chunked } = request.arguments;
        let first = self.first_range as usize;
        Args::with_chunks(buffer, ranges.get(first..first + self.ranges as usize).unwrap_or_default(), chunked)
    }

    /// The command's keys.
    fn keys<'a>(&self, request: &Request<'a>) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let args = self.args(request);
        self.command.info.keys.of(args.len()).map(move |position| args.at(position))
    }
}

/// Why a run ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The log has no room at the moment: park, and run the rest when the log's listener is woken.
    Room,
    /// Values, or segments of the store, are being read from the block file: take [`Executor::take_fetch`], park, and run
    /// the rest when it is done.
    Values,
    /// More replies wait than [`Executor::set_reply_bytes_max`] allows: send some, then run the rest.
    Replies,
}

/// How far a run came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunEnd {
    /// Commands that are done, replies written.
    pub done: usize,
    /// Why not all are.
    pub stopped: Option<Stop>,
}

/// What a command's effects can come to in the log, beyond its arguments: kinds, lengths, expiries, removals of expired
/// keys, the record's own head.
const RECORD_OVERHEAD: usize = 32 + log::RECORD_ROOM_BYTES;
const KEY_OVERHEAD: usize = 32;
/// Longest text that a sum of INCRBYFLOAT can have.
const NUMBER_BYTES_MAX: usize = 5 * 1024;

/// Runs commands for one thread; owns the memory that runs reuse.
pub struct Executor {
    store: Store,
    pending: Pending,
    plan: Plan,
    told: Told,
    laps: Laps,
    reply_bytes_max: usize,
    waker: Option<Waker>,
    fetch: Option<Arc<Fetch>>,
}

/// A command that answered with an error.
#[derive(Clone, Copy, Debug)]
pub struct Failure {
    /// The command.
    pub command: &'static Command,
    /// The first word of the error, such as `ERR`, cut to 16 bytes; padded with zeros.
    pub code: [u8; 16],
}

/// Failures kept until they are taken: enough for every command of some batches.
const FAILURES_KEPT: usize = 1024;

impl Executor {
    /// An executor on this store.
    pub fn new(store: &Store) -> Executor {
        Executor {
            store: store.clone(),
            pending: Pending::default(),
            plan: Plan::default(),
            told: Told { random: store.random_seed(), ..Told::default() },
            laps: Laps::default(),
            reply_bytes_max: usize::MAX,
            waker: None,
            fetch: None,
        }
    }

    /// What is called, by another thread, when values that a run stopped for are there. Without it runs read such values
    /// themselves and never stop for them.
    pub fn set_waker(&mut self, waker: Waker) {
        self.waker = Some(waker);
    }

    /// Before a run of what an earlier run stopped at: what [`Executor::take_fetch`] returned then, if anything. Without it
    /// values that were fetched may leave memory before they are used, again and again.
    pub fn give_fetch(&mut self, fetch: Option<Arc<Fetch>>) {
        self.fetch = fetch;
    }

    /// What the last run stopped for; or what it was given, where it stopped for something else before anything was done.
    pub fn take_fetch(&mut self) -> Option<Arc<Fetch>> {
        self.fetch.take()
    }

    /// Chooses how runs of several commands are timed; not at all at first.
    pub fn set_timing(&mut self, timing: Timing) {
        self.laps.timing = timing;
    }

    /// Where the time of the last [`Executor::run`] went, from front to back; nothing when it was not timed or had one
    /// command only.
    pub fn laps(&self) -> &[Lap] {
        self.laps.all()
    }

    /// Makes runs stop between two commands when more bytes of replies than this wait; no limit at first.
    pub fn set_reply_bytes_max(&mut self, bytes: usize) {
        self.reply_bytes_max = bytes;
    }

    /// The commands that answered with an error since the last call; at most about a thousand are kept.
    pub fn take_failures(&mut self) -> Vec<Failure> {
        std::mem::take(&mut self.told.failures)
    }

    /// Lookups that found their key, and lookups that did not, since the last call.
    pub fn take_hits_and_misses(&mut self) -> (u64, u64) {
        (std::mem::take(&mut self.told.hits), std::mem::take(&mut self.told.misses))
    }

    /// Runs commands front to back and writes their replies.
    pub fn run(
        &mut self,
        caller: &Caller,
        buffer: &[u8],
        ranges: &[ArgRange],
        batch: &[Planned],
        replies: &mut Replies,
    ) -> RunEnd {
        self.run_arguments(caller, Arguments { buffer, ranges, chunked: &[] }, batch, replies)
    }

    /// As [`Executor::run`], where long arguments may be in chunks.
    pub fn run_arguments(
        &mut self,
        caller: &Caller,
        arguments: Arguments<'_>,
        batch: &[Planned],
        replies: &mut Replies,
    ) -> RunEnd {
        if arguments.may_be_long()
            && let Some(arranged) = arguments.arranged(batch)
        {
            return self.run_arranged(caller, arranged.as_arguments(), batch, replies);
        }
        self.run_arranged(caller, arguments, batch, replies)
    }

    fn run_arranged(
        &mut self,
        caller: &Caller,
        arguments: Arguments<'_>,
        batch: &[Planned],
        replies: &mut Replies,
    ) -> RunEnd {
        let now_ms = self.store.now_ms();
        let request = Request { caller, arguments, databases: &[], now_ms };
        let mut done = 0;
        self.laps.begin(batch.len(), &*self.store.options().clock);
        while done < batch.len() {
            if replies.len() > self.reply_bytes_max {
                return RunEnd { done, stopped: Some(Stop::Replies) };
            }
            let rest = match self.loaded_part(&request, &batch[done..]) {
                Ok(0) => return RunEnd { done, stopped: Some(Stop::Values) },
                Ok(count) => &batch[done..done + count],
                Err(error) => {
                    self.told.note_failure(batch[done].command, b"ERR");
                    replies.writer(caller.protocol).error(&format!("ERR {error}"));
                    self.fetch = None;
                    done += 1;
                    continue;
                }
            };
            let group = group_of(rest, &request, self.store.key_bytes_max());
            let finished = if group == 0 { None } else { self.run_group(&request, &rest[..group], done, replies) };
            match finished {
                Some(count) if count > 0 => {
                    done += count;
                    self.fetch = None;
                }
                Some(_) | None => match self.run_alone(&request, &rest[..1], replies) {
                    TransactionEnd::Done => {
                        done += 1;
                        // What was fetched for it may leave memory again.
                        self.fetch = None;
                    }
                    TransactionEnd::Room => return RunEnd { done, stopped: Some(Stop::Room) },
                    TransactionEnd::Values => {
                        if self.fetch_for(&request, rest, done == 0) {
                            return RunEnd { done, stopped: Some(Stop::Values) };
                        }
                    }
                },
            }
            self.laps.lap(done, &*self.store.options().clock);
        }
        RunEnd { done, stopped: None }
    }

    /// Runs the one command of `unit`.
    fn run_alone(&mut self, request: &Request<'_>, unit: &[Planned], replies: &mut Replies) -> TransactionEnd {
        match unit {
            [planned] if is_by_segment(planned) => self.run_by_segment(request, planned, replies),
            _ => self.run_unit(request, unit, &[], false, replies),
        }
    }

    /// Runs a group under one hold, `before` commands of the run being done. Returns how many commands of it it has done;
    /// the next one needs a unit of its own. `None` when the log has no room for the whole group.
    fn run_group(
        &mut self,
        request: &Request<'_>,
        group: &[Planned],
        before: usize,
        replies: &mut Replies,
    ) -> Option<usize> {
        let wanted: usize = group.iter().map(|planned| room_for(planned, request)).sum();
        let fits = wanted == 0
            || room_in_memory(&self.store, group, wanted) == MemoryRoom::Enough
                && self.store.admit(wanted, RoomClass::Ordinary) == Admission::Admitted;
        if !fits {
            let reads = group.iter().take_while(|planned| !planned.command.is_write()).count();
            return if reads == 0 { None } else { self.run_group(request, &group[..reads], before, replies) };
        }
        let Executor { store, pending, plan, told, laps, reply_bytes_max, .. } = self;
        let (shared, exclusive) = plan.make(store.keyspace(), request, group);
        let mut hold = store.keyspace().hold(shared, exclusive);
        if group.len() > 1 {
            prefetch(&hold, request, &plan.keys);
        }
        let any_cold = store.keyspace().cold() > 0;
        let (mut done, mut appended) = (0, 0);
        for (index, planned) in group.iter().enumerate() {
            let start = replies.end();
            if any_cold && values::meets_cold(&hold, request, planned, plan.keys_of(index)) {
                break;
            }
            let mut context = context(store, request, plan.keys_of(index), told.random);
            let outcome = run_one(planned, request, &mut hold, &mut context, pending, (told, replies));
            if outcome == Err(CommandError::MetExpired) {
                replies.rollback(start);
                break;
            }
            let (depends, own_version_at) = told.note(context);
            appended += finish(store.log(), request, &mut hold, pending, (depends, &own_version_at), start, replies);
            done += 1;
            laps.command(before + done, planned, request, replies.end() - start, &*store.options().clock);
            if replies.len() > *reply_bytes_max {
                break;
            }
        }
        drop(hold);
        if wanted > 0 {
            store.log().settle(wanted, appended);
        }
        self.free_in_background();
        Some(done)
    }

    fn free_in_background(&mut self) {
        if !self.pending.freed.is_empty() {
            self.store.free_in_background(std::mem::take(&mut self.pending.freed));
        }
    }
}

/// The keys of some commands, hashed once: the hash chooses the lock, then finds the entry.
#[derive(Default)]
struct Plan {
    keys: Vec<PlannedKey>,
    /// Of each command, where its keys begin.
    first_key: Vec<usize>,
}

impl Plan {
    /// Hashes every key and says which segments the commands need, to read and to change.
    fn make(&mut self, keyspace: &Keyspace, request: &Request<'_>, commands: &[Planned]) -> (SegmentSet, SegmentSet) {
        let (mut shared, mut exclusive) = (SegmentSet::EMPTY, SegmentSet::EMPTY);
        self.keys.clear();
        self.first_key.clear();
        for planned in commands {
            self.first_key.push(self.keys.len());
            let set = if planned.command.is_write() { &mut exclusive } else { &mut shared };
            for key in planned.keys(request) {
                let hash = keyspace.hash(key);
                set.insert(keyspace.segment_of(hash));
                self.keys.push(PlannedKey::new(key, hash));
            }
        }
        (shared, exclusive)
    }

    fn keys_of(&self, index: usize) -> &[PlannedKey] {
        let end = self.first_key.get(index + 1).copied().unwrap_or(self.keys.len());
        self.first_key.get(index).and_then(|first| self.keys.get(*first..end)).unwrap_or_default()
    }
}

/// What commands told beside their replies, added up.
#[derive(Default)]
struct Told {
    hits: u64,
    misses: u64,
    random: u64,
    failures: Vec<Failure>,
}

impl Told {
    fn note_failure(&mut self, command: &'static Command, text: &[u8]) {
        if self.failures.len() < FAILURES_KEPT {
            let mut code = [0; 16];
            let word = text.split(|byte| *byte == b' ').next().unwrap_or_default();
            code.iter_mut().zip(word).for_each(|(to, from)| *to = *from);
            self.failures.push(Failure { command, code });
        }
    }

    /// Adds what one command told; returns what its reply depends on and where its own version goes.
    fn note(&mut self, context: Context<'_>) -> (Version, Vec<usize>) {
        self.hits += context.hits;
        self.misses += context.misses;
        self.random = context.random;
        (context.depends, context.own_version_at)
    }
}

fn context<'p>(store: &Store, request: &Request<'_>, planned: &'p [PlannedKey], random: u64) -> Context<'p> {
    let policy = store.eviction_policy();
    Context {
        database: request.caller.database,
        databases: store.databases(),
        now_ms: request.now_ms,
        value_bytes_max: store.value_bytes_max(),
        policy,
        counts_uses: policy.counts_uses() && !request.caller.no_touch,
        planned,
        depends: Version::ZERO,
        last_version: store.log().last_version(),
        hits: 0,
        misses: 0,
        own_version_at: Vec::new(),
        random,
    }
}

/// Puts what a command changed into the log, stamps the version it got, and holds its reply for what it tells of.
/// Returns the bytes that went into the log.
fn finish(
    log: &Log,
    request: &Request<'_>,
    hold: &mut Hold<'_>,
    pending: &mut Pending,
    (mut depends, own_version_at): (Version, &[usize]),
    start: usize,
    replies: &mut Replies,
) -> usize {
    let (version, appended) = append(log, hold, pending, request.now_ms);
    if let Some(version) = version {
        depends = version;
        // Back to front, so that earlier places stay where they are.
        for &at in own_version_at.iter().rev() {
            replies.insert(at, format!(":{version}\r\n").as_bytes());
        }
    }
    let safe = match request.caller.level {
        Durability::Always => log.commit(),
        Durability::EverySecond | Durability::None => log.commit().max(log.version_limit()),
    };
    if depends > safe {
        replies.depend_on(start, depends);
    }
    appended
}

/// What the commands of one run have in common.
struct Request<'a> {
    caller: &'a Caller,
    arguments: Arguments<'a>,
    /// The database of each command of a unit, where it is not always the caller's.
    databases: &'a [u32],
    now_ms: u64,
}

impl Request<'_> {
    /// The database number of the command at `index` of a unit.
    fn database_of(&self, index: usize) -> u32 {
        self.databases.get(index).copied().unwrap_or(self.caller.database)
    }
}

/// How many commands from the front can share a hold; 0 when the first needs a unit of its own.
fn group_of(batch: &[Planned], request: &Request<'_>, key_bytes_max: usize) -> usize {
    let mut bytes = 0;
    let fits = |planned: &&Planned| {
        let args = planned.args(request);
        bytes += args.lens().sum::<usize>();
        let flags = planned.command.info.flags;
        bytes <= GROUP_BYTES_MAX && bytes <= key_bytes_max && !flags.has(Flags::WHOLE) && !flags.has(Flags::LOGS_VALUES)
    };
    batch.iter().take(GROUP_COMMANDS_MAX).take_while(fits).count()
}

/// Bytes of room that a command takes in the log before it runs: an upper bound of what it logs, values of other keys
/// left aside.
fn room_for(planned: &Planned, request: &Request<'_>) -> usize {
    if planned.command.is_write() { room_for_args(planned, request) } else { 0 }
}

/// Whether there is room in memory for commands that log so many bytes, and may add as much.
fn room_in_memory(store: &Store, commands: &[Planned], bytes: usize) -> MemoryRoom {
    let adds = commands.iter().any(|planned| planned.command.info.flags.has(Flags::ADDS));
    if adds { store.make_room_in_memory(bytes) } else { MemoryRoom::Enough }
}

/// The same for any command, as if it wrote: the removal of expired keys is logged for readers too.
fn room_for_args(planned: &Planned, request: &Request<'_>) -> usize {
    let args = planned.args(request);
    let number = if planned.command.info.flags.has(Flags::LOGS_NUMBER) { NUMBER_BYTES_MAX } else { 0 };
    // Three times: an expired key is removed, put anew, and changed. A value in chunks is logged once.
    let times = |range: &ArgRange| if range.chunks_number().is_some() { 1 } else { 3 };
    let bytes = args.ranges().iter().map(|range| times(range) * range.len as usize + KEY_OVERHEAD);
    RECORD_OVERHEAD + number + bytes.sum::<usize>()
}

/// Fetches what the group will touch: first every bucket, then every entry, so that the misses overlap.
fn prefetch(hold: &Hold<'_>, request: &Request<'_>, planned: &[PlannedKey]) {
    let keyspace = hold.keyspace();
    let id = keyspace.databases.id(request.caller.database);
    let table = |key: &PlannedKey| hold.table(keyspace.segment_of(key.hash), id);
    for key in planned {
        if let Some(table) = table(key) {
            table.entries().prefetch_bucket(key.hash);
        }
    }
    for key in planned {
        if let Some(table) = table(key) {
            table.entries().prefetch_entries(key.hash);
        }
    }
}

/// Runs one command's function; an error becomes its reply.
fn run_one(
    planned: &Planned,
    request: &Request<'_>,
    hold: &mut Hold<'_>,
    context: &mut Context<'_>,
    pending: &mut Pending,
    (told, replies): (&mut Told, &mut Replies),
) -> Result<(), CommandError> {
    let args = planned.args(request);
    let start = replies.end();
    let own_versions = context.own_version_at.len();
    let mut reply = replies.writer(request.caller.protocol);
    let outcome = match planned.command.run {
        Run::Read(run) => run(&mut View { hold, context }, args, &mut reply),
        Run::Write(run) => run(&mut Change { hold, context, pending }, args, &mut reply),
    };
    match outcome {
        Ok(()) => {
            // Commands count from the start of their own reply.
            context.own_version_at.iter_mut().skip(own_versions).for_each(|at| *at += start);
            Ok(())
        }
        Err(CommandError::MetExpired) => Err(CommandError::MetExpired),
        Err(error) => {
            context.own_version_at.truncate(own_versions);
            let text = error.to_bytes();
            told.note_failure(planned.command, &text);
            replies.rollback(start);
            replies.writer(request.caller.protocol).error_bytes(&text);
            Ok(())
        }
    }
}

/// Logs what is pending as one record, if there is anything, and stamps its version on everything it changed. Returns the
/// version and the bytes in the log.
pub(crate) fn append(log: &Log, hold: &mut Hold<'_>, pending: &mut Pending, now_ms: u64) -> (Option<Version>, usize) {
    if pending.effects.is_empty() {
        return (None, 0);
    }
    let bytes = pending.effects.len();
    let version = log.append_effects(now_ms, &mut pending.effects, std::mem::take(&mut pending.resets));
    pending.effects.clear();
    let keyspace = hold.keyspace();
    for (database, hash) in pending.touched.drain(..) {
        // The table is gone where the same command emptied the database.
        if let Some(table) = hold.segment_mut(keyspace.segment_of(hash)).existing_table_mut(database) {
            table.stamp(hash, version);
        }
    }
    if std::mem::take(&mut pending.exchanges) {
        for segment in keyspace.every_segment().iter() {
            hold.segment_mut(segment).newest_exchange = version;
        }
    }
    for segment in std::mem::take(&mut pending.removed_in).iter() {
        hold.segment_mut(segment).newest_removal = version;
    }
    (Some(version), bytes)
}
