//! What commands get to work with: [`View`] to read, [`Change`] to read and change. Only a `Change` can emit effects, so
//! a command's kind is its type.
//!
//! Both note what the reply depends on: the version of every entry found, the newest removal of a segment where a key
//! was not found, the last version of all for whole databases. And both never show an expired entry: a `Change` removes
//! it by an effect first; a `View` asks to be run again where that is possible.

use super::CommandError;
use crate::apply::{Freed, apply_to_key, apply_to_many};
use crate::effect::{Effect, Effects};
use crate::keyspace::entry::{CHUNKED_FROM, EntryRef, Value};
use crate::keyspace::{DatabaseId, DatabaseTable, EvictionPolicy, Hold, SegmentSet};
use crate::version::Version;
use bowline_resp::{Bulk, Chunks};
use std::ops::ControlFlow;

/// A key whose hash is already known, because it was needed to choose the locks.
#[derive(Clone, Copy)]
pub(crate) struct PlannedKey {
    /// Address and length: the very same bytes, not equal ones.
    place: (usize, usize),
    pub(crate) hash: u64,
}

impl PlannedKey {
    pub(crate) fn new(key: &[u8], hash: u64) -> PlannedKey {
        PlannedKey { place: PlannedKey::place_of(key), hash }
    }

    fn place_of(key: &[u8]) -> (usize, usize) {
        (key.as_ptr().addr(), key.len())
    }
}

/// What a command is told and what it tells, beside its reply.
pub struct Context<'p> {
    pub(crate) database: u32,
    pub(crate) databases: u32,
    pub(crate) now_ms: u64,
    /// Longest value that a command may make, bytes.
    pub(crate) value_bytes_max: usize,
    /// Which entries go when memory is short: some policies want to know what is used.
    pub(crate) policy: EvictionPolicy,
    /// Whether what the caller looks at counts as used.
    pub(crate) counts_uses: bool,
    /// The keys of this command that were hashed already, in order.
    pub(crate) planned: &'p [PlannedKey],
    /// The newest version that the reply tells of; `Version::MAX` for the command's own.
    pub(crate) depends: Version,
    pub(crate) last_version: Version,
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    /// Where in the reply the command's own version is to be put, once it is known.
    pub(crate) own_version_at: Vec<usize>,
    pub(crate) random: u64,
}

impl Context<'_> {
    #[inline]
    fn hash(&self, hold: &Hold<'_>, key: &[u8]) -> u64 {
        // Keys stand in the buffer in the order in which they were planned.
        let place = self.planned.binary_search_by_key(&PlannedKey::place_of(key), |planned| planned.place);
        match place.ok().and_then(|place| self.planned.get(place)) {
            Some(planned) => planned.hash,
            None => hold.keyspace().hash(key),
        }
    }

    fn depend_on(&mut self, version: Version) {
        self.depends = self.depends.max(version);
    }

    fn next_random(&mut self) -> u64 {
        // SplitMix64 (Steele, Lea, Flood 2014).
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}

/// The keyspace for a command that reads.
pub struct View<'a, 'p> {
    pub(crate) hold: &'a Hold<'a>,
    pub(crate) context: &'a mut Context<'p>,
}

impl<'a> View<'a, '_> {
    /// The entry of a key in the caller's database.
    ///
    /// # Errors
    /// `MetExpired`, for the executor.
    #[inline]
    pub fn find(&mut self, key: &[u8]) -> Result<Option<EntryRef<'a>>, CommandError> {
        let found = self.look(key)?;
        if let Some(entry) = found.filter(|_| self.context.counts_uses) {
            entry.note_use(|| self.context.next_random());
        }
        Ok(found)
    }

    /// As [`View::find`], and a use even where the caller's lookups are none.
    ///
    /// # Errors
    /// `MetExpired`, for the executor.
    pub fn touch(&mut self, key: &[u8]) -> Result<Option<EntryRef<'a>>, CommandError> {
        let found = self.look(key)?;
        if let Some(entry) = found.filter(|_| self.context.policy.counts_uses()) {
            entry.note_use(|| self.context.next_random());
        }
        Ok(found)
    }

    /// As [`View::find`], but no use: for what only asks about a key.
    ///
    /// # Errors
    /// `MetExpired`, for the executor.
    #[inline]
    pub fn look(&mut self, key: &[u8]) -> Result<Option<EntryRef<'a>>, CommandError> {
        let found = self.peek(key)?;
        match found {
            Some(_) => self.context.hits += 1,
            None => self.context.misses += 1,
        }
        Ok(found)
    }

    /// As [`View::look`], but not counted as a hit or miss.
    #[inline]
    pub fn peek(&mut self, key: &[u8]) -> Result<Option<EntryRef<'a>>, CommandError> {
        let keyspace = self.hold.keyspace();
        let hash = self.context.hash(self.hold, key);
        let segment = keyspace.segment_of(hash);
        debug_assert!(keyspace.is_loaded(segment), "a segment is loaded before anything in it is looked at");
        let id = keyspace.databases.id(self.context.database);
        match self.hold.table(segment, id).and_then(|table| table.find(hash, key)) {
            Some(entry) if entry.is_expired(self.context.now_ms) => Err(CommandError::MetExpired),
            Some(entry) => {
                self.context.depend_on(entry.version());
                self.context.depend_on(self.hold.segment(segment).newest_exchange);
                Ok(Some(entry))
            }
            None => {
                self.context.depend_on(self.hold.segment(segment).newest_removal);
                Ok(None)
            }
        }
    }

    /// The tables of the caller's database, segment by segment, for commands over a whole database.
    ///
    /// # Errors
    /// `MetExpired`, for the executor, when an entry of it has expired.
    pub fn tables(&mut self) -> Result<Vec<(usize, &'a DatabaseTable)>, CommandError> {
        let keyspace = self.hold.keyspace();
        debug_assert!(keyspace.all_loaded(), "all is loaded before a whole database is looked at");
        let id = keyspace.databases.id(self.context.database);
        self.context.depend_on(self.context.last_version);
        let mut tables = Vec::new();
        for segment in 0..keyspace.segment_count() {
            if let Some(table) = self.hold.table(segment, id) {
                if table.deadline() <= self.context.now_ms {
                    return Err(CommandError::MetExpired);
                }
                tables.push((segment, table));
            }
        }
        Ok(tables)
    }

    /// Shows the tables of the caller's database, segment by segment from `first` on, until `visit` breaks off. A segment
    /// that the command does not hold is held while its table is shown.
    ///
    /// # Errors
    /// `MetExpired`, for the executor, when an entry of a table has expired.
    pub fn visit_tables(
        &mut self,
        first: usize,
        mut visit: impl FnMut(usize, &DatabaseTable) -> ControlFlow<()>,
    ) -> Result<(), CommandError> {
        let keyspace = self.hold.keyspace();
        debug_assert!(keyspace.all_loaded(), "all is loaded before a whole database is looked at");
        self.context.depend_on(self.context.last_version);
        for segment in first..keyspace.segment_count() {
            let own;
            let hold = if self.hold.held().contains(segment) {
                self.hold
            } else {
                own = keyspace.hold(SegmentSet::one(segment), SegmentSet::EMPTY);
                &own
            };
            // Which database has the number cannot change while any segment is held.
            let id = keyspace.databases.id(self.context.database);
            let Some(table) = hold.table(segment, id) else { continue };
            if table.deadline() <= self.context.now_ms {
                return Err(CommandError::MetExpired);
            }
            if visit(segment, table).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The store's time, milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        self.context.now_ms
    }

    /// Notes that the version of the transaction that this command is part of belongs at this place of the reply, as
    /// an integer reply.
    pub fn own_version_at(&mut self, reply_len: usize) {
        self.context.own_version_at.push(reply_len);
    }

    /// Which entries go when memory is short.
    pub fn policy(&self) -> EvictionPolicy {
        self.context.policy
    }

    /// A random number.
    pub fn random(&mut self) -> u64 {
        self.context.next_random()
    }
}

/// What a command changed, until it is in the log.
#[derive(Default)]
pub(crate) struct Pending {
    pub(crate) effects: Effects,
    pub(crate) touched: Vec<(DatabaseId, u64)>,
    pub(crate) removed_in: SegmentSet,
    pub(crate) exchanges: bool,
    pub(crate) resets: bool,
    pub(crate) freed: Freed,
}

/// Most bytes of a delete's effect beside its key.
const DELETE_OVERHEAD: usize = 32;

/// Whether a put keeps, drops or sets the expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// As it was.
    Keep,
    /// None.
    Clear,
    /// At this time, milliseconds since the Unix epoch.
    At(u64),
}

/// The keyspace for a command that changes it. Validation comes before the first change: a command that returns an
/// error has changed nothing.
pub struct Change<'a, 'k, 'p> {
    pub(crate) hold: &'a mut Hold<'k>,
    pub(crate) context: &'a mut Context<'p>,
    pub(crate) pending: &'a mut Pending,
}

impl Change<'_, '_, '_> {
    /// The entry of a key in the caller's database. An expired one is removed first, by an effect.
    #[inline]
    pub fn find(&mut self, key: &[u8]) -> Option<EntryRef<'_>> {
        self.find_in(self.context.database, key)
    }

    /// The entry of a key in database `number`.
    pub fn find_in(&mut self, number: u32, key: &[u8]) -> Option<EntryRef<'_>> {
        let hash = self.context.hash(self.hold, key);
        self.remove_expired(number, hash, key);
        let segment = self.hold.keyspace().segment_of(hash);
        let id = self.id(number);
        // Looked up through the shared face: the borrow of `self` must outlive this call.
        let found = self.hold.table(segment, id).and_then(|table| table.find(hash, key));
        let newest_removal = self.hold.segment(segment).newest_removal;
        let newest_exchange = self.hold.segment(segment).newest_exchange;
        match &found {
            Some(entry) => {
                self.context.hits += 1;
                if self.context.counts_uses {
                    entry.note_use(|| self.context.next_random());
                }
                self.context.depends = self.context.depends.max(entry.version()).max(newest_exchange);
            }
            None => {
                self.context.misses += 1;
                self.context.depends = self.context.depends.max(newest_removal);
            }
        }
        found
    }

    /// Whether a key exists; as [`Change::find`].
    pub fn exists(&mut self, key: &[u8]) -> bool {
        self.find(key).is_some()
    }

    /// Writes a value.
    #[inline]
    pub fn put(&mut self, key: &[u8], value: Value<'_>, expiry: Expiry) {
        self.put_in(self.context.database, key, value, expiry);
    }

    /// Writes a value in database `number`.
    pub fn put_in(&mut self, number: u32, key: &[u8], value: Value<'_>, expiry: Expiry) {
        self.remove_if_due(number, key);
        if expiry != Expiry::Keep && self.context.counts_uses {
            self.note_use(number, key);
        }
        let expire_at = match expiry {
            Expiry::Clear => None,
            Expiry::At(at) => Some(at),
            Expiry::Keep => self.find_in(number, key).and_then(|entry| entry.expire_at()),
        };
        self.on_key(Effect::Put { database: self.id(number), key, value, expire_at });
    }

    /// Removes a key; returns whether it was there.
    pub fn remove(&mut self, key: &[u8]) -> bool {
        let there = self.exists(key);
        if there {
            self.on_key(Effect::Delete { database: self.id(self.context.database), key });
        }
        there
    }

    /// Sets or takes away the expiry of a key that exists.
    pub fn set_expiry(&mut self, key: &[u8], expire_at: Option<u64>) {
        self.on_key(Effect::Expire { database: self.id(self.context.database), key, expire_at });
    }

    /// Adds bytes to the end of a key that exists.
    pub fn append(&mut self, key: &[u8], bytes: Bulk<'_>) {
        self.on_key(Effect::Append { database: self.id(self.context.database), key, bytes });
    }

    /// Writes bytes into the value of a key that exists.
    pub fn set_range(&mut self, key: &[u8], offset: u32, bytes: Bulk<'_>) {
        self.on_key(Effect::SetRange { database: self.id(self.context.database), key, offset, bytes });
    }

    /// Gives an entry that exists another key or database.
    pub fn move_key(&mut self, key: &[u8], to_number: u32, to_key: &[u8]) {
        let (database, to_database) = (self.id(self.context.database), self.id(to_number));
        self.on_many(Effect::Move { database, key, to_database, to_key });
        let keyspace = self.hold.keyspace();
        self.pending.touched.push((to_database, keyspace.hash(to_key)));
        self.pending.removed_in.insert(keyspace.segment_of(keyspace.hash(key)));
    }

    /// Empties database `number`.
    pub fn flush(&mut self, number: u32) {
        let (id, keyspace) = (self.id(number), self.hold.keyspace());
        let others_empty = keyspace.entries_to_come().iter().all(|(other, _)| *other == id)
            && keyspace.every_segment().iter().all(|segment| {
                self.hold.segment(segment).tables().all(|(other, table)| other == id || table.entries().is_empty())
            });
        if others_empty {
            // Then nothing before it matters, and the log can let go of it.
            return self.flush_all();
        }
        let database = self.hold.keyspace().databases.fresh_id();
        self.on_many(Effect::NewTable { number, database });
        self.pending.removed_in = self.hold.keyspace().every_segment();
    }

    /// Empties all databases.
    pub fn flush_all(&mut self) {
        // Replay may begin with this record: what it changed before the reset would not find its keys then.
        self.pending.effects.clear();
        self.pending.touched.clear();
        self.on_many(Effect::Reset);
        self.pending.resets = true;
        self.pending.removed_in = self.hold.keyspace().every_segment();
    }

    /// Exchanges two databases.
    pub fn swap(&mut self, first: u32, second: u32) {
        self.on_many(Effect::Swap { first, second });
        self.pending.exchanges = true;
        self.pending.removed_in = self.hold.keyspace().every_segment();
    }

    /// The caller's database number.
    pub fn database(&self) -> u32 {
        self.context.database
    }

    /// How many database numbers there are.
    pub fn databases(&self) -> u32 {
        self.context.databases
    }

    /// The store's time, milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        self.context.now_ms
    }

    /// Longest value that a command may make, bytes.
    pub fn value_bytes_max(&self) -> usize {
        self.context.value_bytes_max
    }

    /// Notes that the command's own version belongs at this place of the reply, as an integer reply.
    pub fn own_version_at(&mut self, reply_len: usize) {
        self.context.own_version_at.push(reply_len);
    }

    /// Removes entries of a held segment that are due, in any database: up to `count`, and no more than `bytes` of effects.
    /// Returns how many, and the bytes that the next one takes where it did not fit.
    pub(crate) fn remove_due(&mut self, segment: usize, count: usize, bytes: usize) -> (usize, Option<usize>) {
        let now_ms = self.context.now_ms;
        for removed in 0..count {
            let due = self.hold.segment(segment).due(now_ms);
            let Some((database, key)) = due else { return (removed, None) };
            let wanted = key.len() + DELETE_OVERHEAD;
            if self.pending.effects.len() + wanted > bytes {
                return (removed, Some(wanted));
            }
            self.on_key(Effect::Delete { database, key: &key });
        }
        (count, None)
    }

    /// Removes entries of a held segment as `policy` chooses them: up to `count`, until `wanted` bytes of memory are free,
    /// and no more than `room` bytes of effects. Returns how many, the memory they took, and the bytes that the next one
    /// takes in the log where it did not fit.
    pub(crate) fn evict(
        &mut self,
        segment: usize,
        policy: EvictionPolicy,
        (count, wanted, room): (usize, usize, usize),
    ) -> (usize, usize, Option<usize>) {
        let (mut evicted, mut freed) = (0, 0);
        while evicted < count && freed < wanted {
            let held = self.hold.segment_mut(segment);
            let chosen = held.choose_to_evict(policy, &mut || self.context.next_random());
            let Some((database, key, bytes)) = chosen else { break };
            let needed = key.len() + DELETE_OVERHEAD;
            if self.pending.effects.len() + needed > room {
                return (evicted, freed, Some(needed));
            }
            let hash = self.hold.keyspace().hash(&key);
            self.hold.segment_mut(segment).note_evicted(database, hash, policy);
            self.on_key(Effect::Delete { database, key: &key });
            evicted += 1;
            freed += bytes;
        }
        (evicted, freed, None)
    }

    /// Counts a use of a key that is written over without being looked at.
    fn note_use(&mut self, number: u32, key: &[u8]) {
        let hash = self.context.hash(self.hold, key);
        let segment = self.hold.keyspace().segment_of(hash);
        if let Some(entry) = self.hold.table(segment, self.id(number)).and_then(|table| table.find(hash, key)) {
            entry.note_use(|| self.context.next_random());
        }
    }

    /// Removes what has expired under this key, in every database. Does nothing where its segment is only held shared.
    pub(crate) fn remove_expired_everywhere(&mut self, key: &[u8]) {
        let hash = self.context.hash(self.hold, key);
        let segment = self.hold.keyspace().segment_of(hash);
        if !self.hold.exclusive().contains(segment) {
            return;
        }
        let now_ms = self.context.now_ms;
        let expired = |table: &DatabaseTable| table.find(hash, key).is_some_and(|entry| entry.is_expired(now_ms));
        loop {
            let mut tables = self.hold.segment(segment).tables();
            let Some(database) = tables.find_map(|(database, table)| expired(table).then_some(database)) else {
                return;
            };
            drop(tables);
            self.on_key(Effect::Delete { database, key });
        }
    }

    /// Removes an expired entry that a put would otherwise take for the key's own past. Costs a look at the table's first
    /// deadline where nothing is due.
    fn remove_if_due(&mut self, number: u32, key: &[u8]) {
        let hash = self.context.hash(self.hold, key);
        let (segment, database) = (self.hold.keyspace().segment_of(hash), self.id(number));
        if self.hold.table(segment, database).is_some_and(|table| table.deadline() <= self.context.now_ms) {
            self.remove_expired(number, hash, key);
        }
    }

    fn id(&self, number: u32) -> DatabaseId {
        self.hold.keyspace().databases.id(number)
    }

    fn remove_expired(&mut self, number: u32, hash: u64, key: &[u8]) {
        let (segment, database) = (self.hold.keyspace().segment_of(hash), self.id(number));
        let found = self.hold.table(segment, database).and_then(|table| table.find(hash, key));
        if found.is_some_and(|entry| entry.is_expired(self.context.now_ms)) {
            self.on_key(Effect::Delete { database, key });
        }
    }

    /// Logs and applies an effect on one key. The caller has seen that the key is there where the effect needs it.
    pub(crate) fn on_key(&mut self, effect: Effect<'_>) {
        if let Effect::Put { database, key, value: Value::Bytes(bytes), expire_at } = effect
            && bytes.len() >= CHUNKED_FROM
        {
            // Whoever has long values brings them in chunks, made without a lock; but one copy is better than two.
            let chunks = Chunks::copy_of(bytes);
            return self.on_key(Effect::Put { database, key, value: Value::Chunks(&chunks), expire_at });
        }
        let Some(key) = effect.single_key() else { unreachable!("an effect on one key has a key") };
        let hash = self.context.hash(self.hold, key);
        effect.encode(&mut self.pending.effects);
        let applied = apply_to_key(self.hold, hash, &effect, Version::MAX, &mut self.pending.freed);
        assert_eq!(applied, Ok(()), "a command changes only keys that it has found");
        match effect {
            Effect::Delete { .. } => self.pending.removed_in.insert(self.hold.keyspace().segment_of(hash)),
            Effect::Put { database, .. }
            | Effect::Expire { database, .. }
            | Effect::Append { database, .. }
            | Effect::SetRange { database, .. } => self.pending.touched.push((database, hash)),
            _ => {}
        }
        self.context.depends = Version::MAX;
    }

    fn on_many(&mut self, effect: Effect<'_>) {
        effect.encode(&mut self.pending.effects);
        let applied = apply_to_many(self.hold, &effect, Version::MAX, &mut self.pending.freed);
        assert_eq!(applied, Ok(()), "a command changes only keys that it has found");
        self.context.depends = Version::MAX;
    }
}
