//! Units: what runs all at once or not at all under locks and room of its own. A transaction is one; so is a command over
//! whole databases, one whose effects may be larger than its arguments, and one that met an expired entry while reading.

use super::arguments::{Arguments, takes_chunks};
use super::{
    Caller, Executor, KEY_OVERHEAD, Planned, RECORD_OVERHEAD, Replies, Request, context, finish, room_for,
    room_in_memory, run_one,
    values::{self, Missing},
};
use crate::command::{Change, Command, CommandError, Context, Flags};
use crate::keyspace::entry::EntryRef;
use crate::keyspace::{Hold, SegmentSet};
use crate::limits::{RECORD_BYTES_MAX, REPLY_BYTES_MAX};
use crate::log::{Admission, RoomClass};
use crate::store::{MemoryRoom, Store};
use crate::version::Version;
use bowline_resp::{ArgRange, Args, Bulk, Chunks};

/// A key that WATCH saw.
#[derive(Clone, Debug)]
pub struct Watched {
    database: u32,
    key: Vec<u8>,
    /// Its version then; zero when it was not there.
    version: Version,
}

impl Watched {
    pub(super) fn key(&self) -> &[u8] {
        &self.key
    }

    /// Whether this is about `key` of database `number`.
    pub fn is(&self, number: u32, key: &[u8]) -> bool {
        self.database == number && self.key == key
    }
}

/// The commands between MULTI and EXEC, with bytes of their own.
#[derive(Default)]
pub struct Transaction {
    buffer: Vec<u8>,
    ranges: Vec<ArgRange>,
    /// Long values.
    chunked: Vec<Chunks>,
    bytes: usize,
    commands: Vec<Planned>,
    /// The database of each command; empty while all are the caller's.
    databases: Vec<u32>,
    selected: Option<u32>,
}

impl Transaction {
    /// Adds a command. Returns false, and adds nothing, when the transaction would pass [`RECORD_BYTES_MAX`].
    #[must_use]
    pub fn push(&mut self, command: &'static Command, args: Args<'_>) -> bool {
        let bytes: usize = args.lens().sum();
        if self.bytes + bytes > RECORD_BYTES_MAX {
            return false;
        }
        self.bytes += bytes;
        let first_range = self.ranges.len() as u32;
        let planned = Planned { command, first_range, ranges: args.len() as u32 };
        for index in 0..args.len() {
            self.push_argument(args.bulk(index), takes_chunks(&planned, args, index));
        }
        self.commands.push(planned);
        self.databases.extend(self.selected);
        true
    }

    fn push_argument(&mut self, argument: Bulk<'_>, in_chunks: bool) {
        if in_chunks {
            self.chunked.push(match argument {
                Bulk::Bytes(bytes) => Chunks::copy_of(bytes),
                Bulk::Chunks(chunks) => chunks.clone(),
            });
            // So many long ones are over the limit of bytes long before.
            self.ranges.extend(ArgRange::of_chunks(self.chunked.len() - 1, argument.len() as u32));
            return;
        }
        self.ranges.push(ArgRange { start: self.buffer.len() as u32, len: argument.len() as u32 });
        match argument {
            Bulk::Bytes(bytes) => self.buffer.extend_from_slice(bytes),
            Bulk::Chunks(chunks) => chunks.iter().for_each(|chunk| self.buffer.extend_from_slice(chunk)),
        }
    }

    /// Lets the commands added from here on be about database `number`. `before` is the caller's database.
    pub fn select(&mut self, number: u32, before: u32) {
        if self.selected.is_none() {
            self.databases.resize(self.commands.len(), before);
        }
        self.selected = Some(number);
    }

    /// Number of commands.
    pub fn len(&self) -> usize {
        self.commands.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// Memory that its arguments take, bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionEnd {
    /// The reply is written.
    Done,
    /// The log has no room at the moment: park, and try the same again when the log's listener is woken.
    Room,
    /// Values, or segments of the store, are being read from the block file: take [`Executor::take_fetch`], park, and try the same again when it is
    /// done.
    Values,
}

/// The error of a write that may add data while memory is at its limit.
pub const OUT_OF_MEMORY: &str = "OOM command not allowed when used memory > 'maxmemory'.";
const OUT_OF_MEMORY_ABORT: &str = "EXECABORT Transaction discarded because of: ";

impl Executor {
    /// Notes the state of a key for a later transaction. After a lazy start [`Executor::load_keys`] comes first; without
    /// it the key's segment is loaded here.
    pub fn watch(&mut self, caller: &Caller, key: &[u8]) -> Watched {
        let keyspace = self.store.keyspace();
        let hash = keyspace.hash(key);
        let mut segment = SegmentSet::EMPTY;
        segment.insert(keyspace.segment_of(hash));
        // Where that fails the store has stopped, and no transaction runs.
        let _ = self.store.load_segments(segment);
        let hold = keyspace.hold(segment, SegmentSet::EMPTY);
        let version = current_version(&hold, caller.database, key, self.store.now_ms());
        Watched { database: caller.database, key: key.to_vec(), version }
    }

    /// Runs a transaction: all its commands at one moment, one record in the log, one array as the reply; nil, and nothing
    /// done, when a watched key has changed.
    pub fn transaction(
        &mut self,
        caller: &Caller,
        transaction: &Transaction,
        watched: &[Watched],
        replies: &mut Replies,
    ) -> TransactionEnd {
        let now_ms = self.store.now_ms();
        let Transaction { buffer, ranges, chunked, databases, .. } = transaction;
        let request = Request { caller, arguments: Arguments { buffer, ranges, chunked }, databases, now_ms };
        loop {
            match self.load_unit(&request, &transaction.commands, watched) {
                Ok(true) => {}
                Ok(false) => return TransactionEnd::Values,
                Err(error) => {
                    replies.writer(caller.protocol).error(&format!("ERR {error}"));
                    self.fetch = None;
                    return TransactionEnd::Done;
                }
            }
            let end = self.run_unit(&request, &transaction.commands, watched, true, replies);
            if end != TransactionEnd::Values {
                self.fetch = None;
                return end;
            }
            if self.fetch_for(&request, &transaction.commands, true) {
                return end;
            }
        }
    }

    /// Runs commands all at once: takes the room and the locks that they need, or more once it has been seen that they
    /// need more. Only the end of the loop executes anything.
    pub(super) fn run_unit(
        &mut self,
        request: &Request<'_>,
        unit: &[Planned],
        watched: &[Watched],
        as_array: bool,
        replies: &mut Replies,
    ) -> TransactionEnd {
        let store = self.store.clone();
        let mut refuse = |text: &str| {
            replies.writer(request.caller.protocol).error(text);
            TransactionEnd::Done
        };
        if unit.iter().flat_map(|planned| planned.keys(request)).any(|key| key.len() > store.key_bytes_max()) {
            return refuse("ERR a key is longer than max_key_size allows; nothing was changed");
        }
        let class = class_of(unit);
        let mut needs = self.first_needs(request, unit, watched);
        loop {
            if needs.room > RECORD_BYTES_MAX {
                return refuse("ERR the command or transaction would log more than 1 GiB at once; nothing was changed");
            }
            match room_in_memory(&store, unit, needs.room) {
                MemoryRoom::Enough => {}
                // No value leaves memory before this has run: it would wait for itself.
                MemoryRoom::Wait if self.fetch.as_ref().is_some_and(|fetch| fetch.is_urgent()) => {}
                MemoryRoom::Wait => return TransactionEnd::Room,
                MemoryRoom::Exhausted => {
                    unit.iter()
                        .take(1)
                        .for_each(|first| self.told.note_failure(first.command, OUT_OF_MEMORY.as_bytes()));
                    return refuse(&if as_array {
                        OUT_OF_MEMORY_ABORT.to_owned() + OUT_OF_MEMORY
                    } else {
                        OUT_OF_MEMORY.to_owned()
                    });
                }
            }
            match admit(&store, needs.room, class) {
                Admission::Admitted => {}
                Admission::Wait => return TransactionEnd::Room,
                Admission::DiskFull | Admission::Poisoned => return refuse(&store.no_room_text()),
            }
            let mut hold = store.keyspace().hold(needs.shared, needs.exclusive);
            if let Some(missing) = values::missing(&store, &hold, request, unit) {
                drop(hold);
                settle(&store, needs.room, 0);
                return match missing {
                    Missing::Cold => TransactionEnd::Values,
                    Missing::Refused(error) => refuse(&format!("ERR {error}")),
                };
            }
            let more = needs.seen_from(&hold, request, unit, watched);
            if more == Needs::default() {
                let appended = self.run_held(request, unit, watched, as_array, &mut hold, replies);
                drop(hold);
                settle(&store, needs.room, appended);
                self.free_in_background();
                return TransactionEnd::Done;
            }
            drop(hold);
            settle(&store, needs.room, 0);
            if more.sweep {
                match store.remove_due_everywhere(request.now_ms) {
                    Ok(_) => {}
                    Err(Admission::DiskFull | Admission::Poisoned) => return refuse(&store.no_room_text()),
                    Err(Admission::Wait | Admission::Admitted) => return TransactionEnd::Room,
                }
            } else {
                needs = more;
            }
        }
    }

    /// What can be said before anything is seen: room for the arguments, locks for the keys.
    fn first_needs(&mut self, request: &Request<'_>, unit: &[Planned], watched: &[Watched]) -> Needs {
        let store = self.store.clone();
        let keyspace = store.keyspace();
        let (mut shared, mut exclusive) = self.plan.make(keyspace, request, unit);
        for watched in watched {
            shared.insert(keyspace.segment_of(keyspace.hash(&watched.key)));
        }
        for planned in unit.iter().filter(|planned| whole(planned)) {
            let set = if planned.command.is_write() { &mut exclusive } else { &mut shared };
            *set = keyspace.every_segment();
        }
        let room = unit.iter().map(|planned| room_for(planned, request)).sum();
        Needs { room, shared: shared.without(exclusive), exclusive, sweep: false }
    }

    /// The unit itself, with everything it needs held. Returns the bytes that went into the log.
    fn run_held(
        &mut self,
        request: &Request<'_>,
        unit: &[Planned],
        watched: &[Watched],
        as_array: bool,
        hold: &mut Hold<'_>,
        replies: &mut Replies,
    ) -> usize {
        let start = replies.end();
        let plan = std::mem::take(&mut self.plan);
        let mut context = context(&self.store, request, &plan.keys, self.told.random);
        let mut change = Change { hold, context: &mut context, pending: &mut self.pending };
        let watched_keys = watched.iter().map(|watched| watched.key.as_slice());
        for key in unit.iter().flat_map(|planned| planned.keys(request)).chain(watched_keys) {
            change.remove_expired_everywhere(key);
        }
        if let Some(seen) = changed(hold, watched, request.now_ms) {
            context.depends = context.depends.max(seen);
            replies.writer(request.caller.protocol).null_array();
        } else {
            if as_array {
                replies.writer(request.caller.protocol).array(unit.len());
            }
            self.run_commands(request, unit, hold, &mut context, start, replies);
        }
        let (depends, own_version_at) = self.told.note(context);
        self.plan = plan;
        let told = (depends, own_version_at.as_slice());
        finish(self.store.log(), request, hold, &mut self.pending, told, start, replies)
    }

    fn run_commands(
        &mut self,
        request: &Request<'_>,
        unit: &[Planned],
        hold: &mut Hold<'_>,
        context: &mut Context<'_>,
        start: usize,
        replies: &mut Replies,
    ) {
        for (index, planned) in unit.iter().enumerate() {
            context.database = request.database_of(index);
            let before = replies.end();
            let outcome = run_one(planned, request, hold, context, &mut self.pending, (&mut self.told, replies));
            assert_ne!(outcome, Err(CommandError::MetExpired), "expired entries were removed before");
            if unit.len() > 1 && replies.bytes_since(start) > REPLY_BYTES_MAX {
                replies.rollback(before);
                replies.writer(request.caller.protocol).error(&CommandError::ReplyTooLong.to_string());
            }
        }
    }
}

/// What a unit takes before it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Needs {
    /// Bytes in the log.
    room: usize,
    shared: SegmentSet,
    exclusive: SegmentSet,
    /// Everything that is due must be removed first, in slices and without these locks.
    sweep: bool,
}

impl Needs {
    /// What is needed beyond this, as it can be seen under the locks; nothing at all when this is enough.
    fn seen_from(&self, hold: &Hold<'_>, request: &Request<'_>, unit: &[Planned], watched: &[Watched]) -> Needs {
        let reads_whole = |planned: &Planned| whole(planned) && !planned.command.is_write();
        if unit.iter().any(reads_whole) && hold.keyspace().anything_due(request.now_ms) {
            return Needs { sweep: true, ..Needs::default() };
        }
        let due = entries(hold, request, unit, watched).any(|entry| entry.is_expired(request.now_ms));
        let mut room = room_under_hold(hold, request, unit);
        if due {
            // Each key may be due in several databases that the unit reaches.
            let keys = unit.iter().flat_map(|planned| planned.keys(request)).map(<[u8]>::len);
            let keys = keys.chain(watched.iter().map(|watched| watched.key.len()));
            let databases = hold.held().iter().map(|segment| hold.segment(segment).tables().count()).max();
            room += keys.map(|len| len + KEY_OVERHEAD).sum::<usize>() * databases.unwrap_or(1) + RECORD_OVERHEAD;
        }
        if room <= self.room && (!due || self.shared.is_empty()) {
            return Needs::default();
        }
        let (shared, exclusive) = match due {
            true => (SegmentSet::EMPTY, self.exclusive.union(self.shared)),
            false => (self.shared, self.exclusive),
        };
        Needs { room: room.max(self.room), shared, exclusive, sweep: false }
    }
}

fn class_of(unit: &[Planned]) -> RoomClass {
    let removes_only = unit.iter().all(|planned| !planned.command.is_write() || frees(planned));
    if removes_only { RoomClass::Removal } else { RoomClass::Ordinary }
}

fn admit(store: &Store, room: usize, class: RoomClass) -> Admission {
    if room == 0 { Admission::Admitted } else { store.admit(room, class) }
}

fn settle(store: &Store, room: usize, appended: usize) {
    if room > 0 {
        store.log().settle(room, appended);
    }
}

pub(super) fn whole(planned: &Planned) -> bool {
    planned.command.info.flags.has(Flags::WHOLE)
}

/// Whether it is FLUSHDB or FLUSHALL.
pub(super) fn empties(planned: &Planned) -> bool {
    whole(planned) && frees(planned)
}

fn frees(planned: &Planned) -> bool {
    planned.command.info.flags.has(Flags::FREES)
}

/// What the unit may log, now that the values of its keys can be seen.
fn room_under_hold(hold: &Hold<'_>, request: &Request<'_>, unit: &[Planned]) -> usize {
    let base: usize = unit.iter().map(|planned| room_for(planned, request)).sum();
    let copies = unit.iter().filter(|planned| planned.command.info.flags.has(Flags::LOGS_VALUES)).count();
    if copies == 0 {
        return base;
    }
    // A copy may be of what an earlier command of the unit wrote: no value is longer than the longest now, or than one
    // that a command pads, plus all bytes that the unit brings.
    // What is copied is in memory by now.
    let hot = entries(hold, request, unit, &[]).filter(|entry| !entry.is_cold());
    let longest = hot.map(|entry| entry.value().len()).max().unwrap_or(0);
    let padded = unit.iter().map(|planned| (planned.command.padding)(planned.args(request)));
    let longest = longest.max(padded.max().unwrap_or(0));
    base.saturating_add(copies.saturating_mul(longest + base + KEY_OVERHEAD))
}

/// The entries that these keys have now, expired or not, in whatever database: a SWAPDB of the unit may bring them up.
fn entries<'h>(
    hold: &'h Hold<'_>,
    request: &'h Request<'h>,
    unit: &'h [Planned],
    watched: &'h [Watched],
) -> impl Iterator<Item = EntryRef<'h>> {
    let watched = watched.iter().map(|watched| watched.key.as_slice());
    unit.iter().flat_map(|planned| planned.keys(request)).chain(watched).flat_map(|key| {
        let hash = hold.keyspace().hash(key);
        let tables = hold.segment(hold.keyspace().segment_of(hash)).tables();
        tables.filter_map(move |(_, table)| table.find(hash, key))
    })
}

/// The version of a key; zero when it is not there or has expired.
fn current_version(hold: &Hold<'_>, database: u32, key: &[u8], now_ms: u64) -> Version {
    let keyspace = hold.keyspace();
    let hash = keyspace.hash(key);
    let table = hold.table(keyspace.segment_of(hash), keyspace.databases.id(database));
    let entry = table.and_then(|table| table.find(hash, key)).filter(|entry| !entry.is_expired(now_ms));
    entry.map_or(Version::ZERO, |entry| entry.version())
}

/// When a watched key is not as it was: the version that a reply saying so depends on.
fn changed(hold: &Hold<'_>, watched: &[Watched], now_ms: u64) -> Option<Version> {
    watched.iter().find_map(|watched| {
        let version = current_version(hold, watched.database, &watched.key, now_ms);
        let segment = hold.keyspace().segment_of(hold.keyspace().hash(&watched.key));
        (version != watched.version).then(|| version.max(hold.segment(segment).newest_removal))
    })
}
