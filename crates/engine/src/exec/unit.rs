//! Units: what runs all at once or not at all under locks and room of its own. A transaction is one; so is a command over
//! whole databases, one whose effects may be larger than its arguments, and one that met an expired entry while reading.

use super::{
    Caller, Durability, Executor, KEY_OVERHEAD, Planned, Replies, Request, context, finish, room_for, room_for_args,
    run_one,
};
use crate::command::{Change, Command, CommandError, Context, Flags};
use crate::keyspace::entry::{EntryRef, parse_canonical};
use crate::keyspace::{Hold, SegmentSet};
use crate::limits::{RECORD_BYTES_MAX, VALUE_BYTES_MAX};
use crate::log::{Admission, RoomClass};
use crate::version::Version;
use bowline_resp::{ArgRange, Args};

/// A key that WATCH saw.
#[derive(Clone, Debug)]
pub struct Watched {
    database: u32,
    key: Vec<u8>,
    /// Its version then; zero when it was not there.
    version: Version,
}

impl Watched {
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
    commands: Vec<Planned>,
    /// The database of each command; empty while all are the caller's.
    databases: Vec<u32>,
    selected: Option<u32>,
}

impl Transaction {
    /// Adds a command. Returns false, and adds nothing, when the transaction would pass [`RECORD_BYTES_MAX`].
    #[must_use]
    pub fn push(&mut self, command: &'static Command, args: Args<'_>) -> bool {
        let bytes: usize = args.iter().map(<[u8]>::len).sum();
        if self.buffer.len() + bytes > RECORD_BYTES_MAX {
            return false;
        }
        let first_range = self.ranges.len() as u32;
        for arg in args.iter() {
            self.ranges.push(ArgRange { start: self.buffer.len() as u32, len: arg.len() as u32 });
            self.buffer.extend_from_slice(arg);
        }
        self.commands.push(Planned { command, first_range, ranges: args.len() as u32 });
        self.databases.extend(self.selected);
        true
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
        self.buffer.len()
    }
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionEnd {
    /// The reply is written.
    Done,
    /// The log has no room at the moment: park, and try the same again when the log's listener is woken.
    Room,
}

/// The locks of a unit.
struct Locks {
    shared: SegmentSet,
    exclusive: SegmentSet,
}

impl Executor {
    /// Notes the state of a key for a later transaction.
    pub fn watch(&mut self, caller: &Caller, key: &[u8]) -> Watched {
        let keyspace = self.store.keyspace();
        let hash = keyspace.hash(key);
        let mut segment = SegmentSet::EMPTY;
        segment.insert(keyspace.segment_of(hash));
        let hold = keyspace.hold(segment, SegmentSet::EMPTY);
        let version = current_version(&hold, caller.database, key, self.store.now_ms());
        Watched { database: caller.database, key: key.to_vec(), version }
    }

    /// Whether a watched key is still as it was; for tests and for early refusal.
    pub fn is_unchanged(&mut self, watched: &Watched) -> bool {
        let caller = Caller { database: watched.database, protocol: Default::default(), level: Durability::Always };
        self.watch(&caller, &watched.key).version == watched.version
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
        let Transaction { buffer, ranges, databases, .. } = transaction;
        let request = Request { caller, buffer, ranges, databases, now_ms };
        self.run_unit(&request, &transaction.commands, watched, true, replies)
    }

    pub(super) fn run_unit(
        &mut self,
        request: &Request<'_>,
        unit: &[Planned],
        watched: &[Watched],
        as_array: bool,
        replies: &mut Replies,
    ) -> TransactionEnd {
        let store = self.store.clone();
        let class = if unit.iter().all(|planned| !planned.command.is_write() || frees(planned)) {
            RoomClass::Removal
        } else {
            RoomClass::Ordinary
        };
        let mut room = unit.iter().map(|planned| room_for(planned, request)).sum::<usize>();
        let mut locks = self.locks(request, unit, watched);
        loop {
            if room > RECORD_BYTES_MAX {
                let text = "ERR the command or transaction would log more than 1 GiB at once; nothing was changed";
                replies.writer(request.caller.protocol).error(text);
                return TransactionEnd::Done;
            }
            if room > 0 {
                match store.log().admit(room, class) {
                    Admission::Admitted => {}
                    Admission::Wait => return TransactionEnd::Room,
                    Admission::DiskFull | Admission::Poisoned => {
                        replies.writer(request.caller.protocol).error(&store.no_room_text());
                        return TransactionEnd::Done;
                    }
                }
            }
            let mut hold = store.keyspace().hold(locks.shared, locks.exclusive);
            let needed = room_under_hold(&hold, request, unit);
            let due = anything_expired(&hold, request, unit);
            if needed <= room && (!due || !locks.exclusive.is_empty() && locks.shared.is_empty()) {
                let appended = self.run_held(request, unit, watched, as_array, &mut hold, replies);
                drop(hold);
                if room > 0 {
                    store.log().settle(room, appended);
                }
                self.free_in_background();
                return TransactionEnd::Done;
            }
            // Once more, with the room and the locks that it turned out to need.
            drop(hold);
            if room > 0 {
                store.log().settle(room, 0);
            }
            room = needed.max(room);
            if due {
                room = room.max(unit.iter().map(|planned| room_for_args(planned, request)).sum());
                locks.exclusive = locks.exclusive.union(std::mem::take(&mut locks.shared));
                if unit.iter().any(whole) && !self.remove_due_everywhere(request.now_ms) {
                    return TransactionEnd::Room;
                }
            }
        }
    }

    fn locks(&mut self, request: &Request<'_>, unit: &[Planned], watched: &[Watched]) -> Locks {
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
        Locks { shared, exclusive }
    }

    /// Removes what is due, in slices. Returns false when the log has no room for that at the moment.
    fn remove_due_everywhere(&mut self, now_ms: u64) -> bool {
        (0..self.store.keyspace().segment_count()).all(|segment| self.store.remove_due(segment, now_ms).is_some())
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
        if let Some(seen) = changed(hold, watched, request.now_ms) {
            replies.writer(request.caller.protocol).null_array();
            return self.finish_unit(request, hold, (seen, &[]), start, replies);
        }
        if as_array {
            replies.writer(request.caller.protocol).array(unit.len());
        }
        let plan = std::mem::take(&mut self.plan);
        let mut context = context(&self.store, request, &plan.keys, self.told.random);
        if !hold.exclusive().is_empty() {
            self.remove_expired_keys(request, unit, hold, &mut context);
        }
        for (index, planned) in unit.iter().enumerate() {
            context.database = request.database_of(index);
            let outcome = run_one(planned, request, hold, &mut context, &mut self.pending, (&mut self.told, replies));
            assert_ne!(outcome, Err(CommandError::MetExpired), "expired entries were removed before");
        }
        let (depends, own_version_at) = self.told.note(context);
        self.plan = plan;
        self.finish_unit(request, hold, (depends, &own_version_at), start, replies)
    }

    fn finish_unit(
        &mut self,
        request: &Request<'_>,
        hold: &mut Hold<'_>,
        told: (Version, &[usize]),
        start: usize,
        replies: &mut Replies,
    ) -> usize {
        finish(self.store.log(), request, hold, &mut self.pending, told, start, replies)
    }

    /// Removes what has expired among the keys that the unit may look at, so that readers in it find nothing expired.
    fn remove_expired_keys(
        &mut self,
        request: &Request<'_>,
        unit: &[Planned],
        hold: &mut Hold<'_>,
        context: &mut Context<'_>,
    ) {
        let exclusive = hold.exclusive();
        let keyspace = hold.keyspace();
        let mut change = Change { hold, context, pending: &mut self.pending };
        for (index, planned) in unit.iter().enumerate() {
            for key in planned.keys(request) {
                if exclusive.contains(keyspace.segment_of(keyspace.hash(key))) {
                    change.find_in(request.database_of(index), key);
                }
            }
        }
        if unit.iter().any(whole) && keyspace.anything_due(request.now_ms) {
            for segment in exclusive.iter() {
                change.remove_due(segment, usize::MAX);
            }
        }
        (change.context.hits, change.context.misses) = (0, 0);
    }
}

/// Whether a key of the unit has expired and was not removed yet.
fn anything_expired(hold: &Hold<'_>, request: &Request<'_>, unit: &[Planned]) -> bool {
    if unit.iter().any(whole) && hold.keyspace().anything_due(request.now_ms) {
        return true;
    }
    entries(hold, request, unit).any(|entry| entry.is_expired(request.now_ms))
}

fn whole(planned: &Planned) -> bool {
    planned.command.info.flags.has(Flags::WHOLE)
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
    // A copy may be of what an earlier command of the unit wrote: no value is longer than the longest now, or than a
    // SETRANGE makes it, plus all bytes that the unit brings.
    let longest = entries(hold, request, unit).map(|entry| entry.value().len()).max().unwrap_or(0);
    let reached = unit.iter().filter(|planned| planned.command.info.name == "setrange").map(|planned| {
        let offset = parse_canonical(planned.args(request.buffer, request.ranges).at(2)).unwrap_or(0);
        // Beyond the longest value there can be it will be refused, and makes nothing.
        usize::try_from(offset).ok().filter(|offset| *offset <= VALUE_BYTES_MAX).unwrap_or(0)
    });
    let longest = longest.max(reached.max().unwrap_or(0));
    base.saturating_add(copies.saturating_mul(longest + base + KEY_OVERHEAD))
}

/// The entries that the unit's keys have now, expired or not.
fn entries<'h>(hold: &'h Hold<'_>, request: &Request<'h>, unit: &'h [Planned]) -> impl Iterator<Item = EntryRef<'h>> {
    unit.iter().enumerate().flat_map(move |(index, planned)| {
        let id = hold.keyspace().databases.id(request.database_of(index));
        planned.keys(request).filter_map(move |key| {
            let hash = hold.keyspace().hash(key);
            hold.table(hold.keyspace().segment_of(hash), id)?.find(hash, key)
        })
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
