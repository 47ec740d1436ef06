//! What one lock guards: the tables of all databases in a segment, with their expiry order.
//!
//! Every change marks its entry for the next checkpoint, and hands over what the entry was where the running one has yet to
//! take it: the allocation itself where it is replaced, else a copy, which shares the chunks of a long value. Not here: how a
//! checkpoint takes (`pass`).

use super::database::DatabaseId;
use super::entry::{CREATED_UNKNOWN, Entry, EntryRef, Value};
use super::eviction::{Hands, USES_OF_GHOSTS};
use super::ghosts::Ghosts;
use super::hash::KeyHasher;
use super::mark::Mark;
use super::pass::Pass;
use super::slot::EntryMut;
use super::table::Table;
use super::tracking::{Counters, Tracking};
use crate::version::Version;
use bowline_resp::Bulk;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The guarded part of a segment.
pub struct Segment {
    pub(super) tables: Vec<(DatabaseId, DatabaseTable)>,
    /// Tables that were emptied before the running checkpoint had taken all it wants of them.
    pub(super) detached: Vec<(DatabaseId, DatabaseTable)>,
    counters: Arc<Counters>,
    /// Version of the newest removal in this segment: what a reply that says "not there" depends on.
    pub newest_removal: Version,
    /// Where eviction goes on: the place of a table among `tables`.
    pub(super) evict_from: usize,
    /// Tables whose hand has come round since all had their turn, in looking for values that may become cold.
    pub(super) tables_done: usize,
    /// The same for giving entries new allocations.
    pub(super) move_from: usize,
    /// What `bytes` was when the keyspace was last told.
    pub(super) bytes_told: usize,
    /// Version of the newest SWAPDB: what a reply about an entry that was found depends on, beside the entry itself.
    pub newest_exchange: Version,
}

impl Segment {
    pub(super) fn new(counters: Arc<Counters>) -> Segment {
        Segment {
            tables: Vec::new(),
            detached: Vec::new(),
            counters,
            evict_from: 0,
            tables_done: 0,
            move_from: 0,
            bytes_told: 0,
            newest_removal: Version::ZERO,
            newest_exchange: Version::ZERO,
        }
    }

    /// The table of a database, if anything was ever written to it here.
    #[inline]
    pub fn table(&self, id: DatabaseId) -> Option<&DatabaseTable> {
        self.tables.iter().find(|(found, _)| *found == id).map(|(_, table)| table)
    }

    /// The table of a database, made if need be with room for `room` entries.
    pub fn table_mut(&mut self, id: DatabaseId, room: usize) -> &mut DatabaseTable {
        let index = self.tables.iter().position(|(found, _)| *found == id).unwrap_or_else(|| {
            self.tables.push((id, DatabaseTable::new(room, self.counters.clone())));
            self.tables.len() - 1
        });
        &mut self.tables[index].1
    }

    /// The table of a database if there is one, to change it.
    pub fn existing_table_mut(&mut self, id: DatabaseId) -> Option<&mut DatabaseTable> {
        self.tables.iter_mut().find(|(found, _)| *found == id).map(|(_, table)| table)
    }

    /// Takes the table of a database out; returns it to be freed elsewhere, unless a checkpoint needs it first.
    pub fn detach(&mut self, id: DatabaseId) -> Option<DatabaseTable> {
        let index = self.tables.iter().position(|(found, _)| *found == id)?;
        let (id, table) = self.tables.swap_remove(index);
        if table.has_cut() {
            self.detached.push((id, table));
            return None;
        }
        Some(table)
    }

    /// Takes all tables out; as [`Segment::detach`].
    pub fn detach_all(&mut self) -> Vec<DatabaseTable> {
        let ids: Vec<DatabaseId> = self.tables.iter().map(|(id, _)| *id).collect();
        ids.into_iter().filter_map(|id| self.detach(id)).collect()
    }

    /// Takes the tables of a segment that was filled apart.
    pub(super) fn take_over(&mut self, apart: &mut Segment) {
        assert!(self.tables.is_empty() && self.detached.is_empty(), "nothing is in a segment before it is loaded");
        self.tables = std::mem::take(&mut apart.tables);
    }

    /// The tables and the databases they belong to.
    pub fn tables(&self) -> impl Iterator<Item = (DatabaseId, &DatabaseTable)> {
        self.tables.iter().map(|(id, table)| (*id, table))
    }

    /// An entry of any database that is due at `now_ms`.
    pub fn due(&self, now_ms: u64) -> Option<(DatabaseId, Vec<u8>)> {
        self.tables.iter().find_map(|(id, table)| table.due(now_ms).map(|key| (*id, key)))
    }

    /// Bytes that the tables and their entries take.
    #[inline]
    pub(super) fn bytes(&self) -> usize {
        self.tables.iter().chain(&self.detached).map(|(_, table)| table.bytes()).sum()
    }

    /// Entries whose value is cold.
    pub(crate) fn cold(&self) -> usize {
        self.tables.iter().map(|(_, table)| table.tracking.cold()).sum()
    }

    /// The earliest expiry of any entry here, milliseconds; `u64::MAX` when none expires.
    pub fn deadline(&self) -> u64 {
        self.tables.iter().map(|(_, table)| table.deadline()).min().unwrap_or(u64::MAX)
    }
}

/// Why an effect cannot be applied: its bytes are intact, but they do not fit what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DoesNotFit(pub &'static str);

const OLDER: DoesNotFit = DoesNotFit("a change is older than the entry it changes");
const MISSING: DoesNotFit = DoesNotFit("a change needs an entry that is not there");

/// What a put writes.
#[derive(Clone, Copy)]
pub struct Put<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The value.
    pub value: Value<'a>,
    /// Version of the change, or `Version::MAX` until it is known (see `DatabaseTable::stamp`).
    pub version: Version,
    /// Milliseconds since the Unix epoch.
    pub expire_at: Option<u64>,
}

/// What a place in the expiry order takes: 16 bytes in a node that is about two thirds full.
const EXPIRY_BYTES: usize = 24;

/// The entries of one database in one segment, with the order in which they expire.
pub struct DatabaseTable {
    pub(super) table: Table,
    /// (expiry in milliseconds, hash) of every entry that expires.
    pub(super) expiry: BTreeSet<(u64, u64)>,
    pub(super) hands: Hands,
    pub(super) ghosts: Ghosts,
    pub(super) tracking: Tracking,
    pub(super) pass: Pass,
}

impl DatabaseTable {
    fn new(room: usize, counters: Arc<Counters>) -> DatabaseTable {
        DatabaseTable {
            table: Table::with_room(room),
            expiry: BTreeSet::new(),
            hands: Hands::default(),
            ghosts: Ghosts::default(),
            tracking: Tracking::new(counters),
            pass: Pass::None,
        }
    }

    /// The entries, to look at.
    pub fn entries(&self) -> &Table {
        &self.table
    }

    /// Bytes that the entries, the table and the order of expiry take; what checkpoints keep is not counted here.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.table.entry_bytes() + self.table.table_bytes() + self.expiry.len() * EXPIRY_BYTES + self.ghosts.bytes()
    }

    /// Number of entries that have an expiry.
    pub fn expiring(&self) -> usize {
        self.expiry.len()
    }

    /// Number of entries that have changed since the last cut.
    pub fn dirty(&self) -> usize {
        self.tracking.dirty()
    }

    /// Number of entries whose value is in the block file only.
    pub fn cold(&self) -> usize {
        self.tracking.cold()
    }

    /// Number of removals noted since the last cut.
    pub fn removals(&self) -> usize {
        self.tracking.removals()
    }

    /// The earliest expiry, milliseconds; `u64::MAX` when no entry expires.
    pub fn deadline(&self) -> u64 {
        self.expiry.first().map_or(u64::MAX, |(at, _)| *at)
    }

    /// The entry of a key, expired or not.
    #[inline]
    pub fn find(&self, hash: u64, key: &[u8]) -> Option<EntryRef<'_>> {
        self.table.find(hash, key)
    }

    /// Writes a value and an expiry; a key that exists keeps its creation time. Returns the allocation that was
    /// replaced, if one was, so that a large one can be freed elsewhere.
    ///
    /// # Errors
    /// As for all changes here: when the entry is missing that is to change, or has a newer version.
    pub fn put(&mut self, hash: u64, put: &Put<'_>, hasher: &KeyHasher) -> Result<Option<Entry>, DoesNotFit> {
        let Put { key, value, version, expire_at } = *put;
        let created = if version == Version::MAX { CREATED_UNKNOWN } else { (version.time_ms() / 1000) as u32 };
        let Some(mut found) = self.table.find_mut(hash, key) else {
            let mark = self.tracking.inserted();
            let mut entry = Entry::new(key, value, version, created, expire_at);
            if self.ghosts.take(hash) {
                entry.set_uses(USES_OF_GHOSTS);
            }
            self.table.insert(hash, entry, mark, hasher);
            self.note_expiry(hash, None, expire_at);
            return Ok(None);
        };
        if found.get().version() > version {
            return Err(OLDER);
        }
        let (created, before) = (found.get().created(), found.get().expire_at());
        if found.get().is_cold() {
            self.tracking.is_cold_no_more();
        }
        if !found.is_dirty(self.tracking.generation) {
            let mark = found.mark();
            if mark.is_cut(self.tracking.generation) {
                put_over_cut(found, &mut self.tracking, hash, put);
                self.note_expiry(hash, before, expire_at);
                return Ok(None);
            }
            found.set_mark(self.tracking.changed(mark));
        }
        let replaced = found.change(|entry| {
            if entry.overwrite(value, expire_at) {
                entry.set_version(version);
                return None;
            }
            let mut new = Entry::new(key, value, version, created, expire_at);
            new.take_uses_of(entry.borrow());
            Some(std::mem::replace(entry, new))
        });
        self.note_expiry(hash, before, expire_at);
        Ok(replaced)
    }

    /// Puts in an entry that was taken out elsewhere, under its own key; returns the one it replaces, to be freed.
    pub fn put_entry(&mut self, hash: u64, entry: Entry, hasher: &KeyHasher) -> Option<Entry> {
        let expire_at = entry.borrow().expire_at();
        let Some(mut found) = self.table.find_mut(hash, entry.borrow().key()) else {
            let mark = self.tracking.inserted();
            self.table.insert(hash, entry, mark, hasher);
            self.note_expiry(hash, None, expire_at);
            return None;
        };
        let (before, mark) = (found.get().expire_at(), found.mark());
        let replaced = found.replace(entry);
        if replaced.borrow().is_cold() {
            self.tracking.is_cold_no_more();
        }
        found.set_mark(self.tracking.changed(mark));
        self.note_expiry(hash, before, expire_at);
        self.unless_cut(hash, replaced, mark)
    }

    /// Removes an entry; returns it to be freed, unless a checkpoint needs it first.
    ///
    /// # Errors
    /// As [`DatabaseTable::put`].
    pub fn remove(
        &mut self,
        hash: u64,
        key: &[u8],
        version: Version,
        hasher: &KeyHasher,
    ) -> Result<Option<Entry>, DoesNotFit> {
        if self.table.find(hash, key).ok_or(MISSING)?.version() > version {
            return Err(OLDER);
        }
        let (entry, mark) = self.table.remove(hash, key).ok_or(MISSING)?;
        self.tracking.removed(hash, key, mark, hasher);
        if entry.borrow().is_cold() {
            self.tracking.is_cold_no_more();
        }
        self.note_expiry(hash, entry.borrow().expire_at(), None);
        Ok(self.unless_cut(hash, entry, mark))
    }

    /// Removes an entry to be put in elsewhere under `to_key`. Returns it, and what is to be freed.
    ///
    /// # Errors
    /// As [`DatabaseTable::put`].
    pub fn move_out(
        &mut self,
        hash: u64,
        key: &[u8],
        to_key: &[u8],
        version: Version,
        hasher: &KeyHasher,
    ) -> Result<(Entry, Option<Entry>), DoesNotFit> {
        let (found, mark) = self.table.find_marked(hash, key).ok_or(MISSING)?;
        self.tracking.touched(found.allocated_bytes());
        let copied = key != to_key || mark.is_cut(self.tracking.generation);
        let copy = copied.then(|| found.with_key(to_key));
        match (copy, self.remove(hash, key, version, hasher)?) {
            (Some(copy), removed) => Ok((copy, removed)),
            (None, Some(removed)) => Ok((removed, None)),
            (None, None) => unreachable!("an entry that is not cut is given back"),
        }
    }

    /// Sets or takes away the expiry of an entry.
    pub fn set_expiry(
        &mut self,
        hash: u64,
        key: &[u8],
        expire_at: Option<u64>,
        version: Version,
    ) -> Result<(), DoesNotFit> {
        let (mut found, tracking) = self.find_to_change(hash, key, version)?;
        let before = found.get().expire_at();
        found.change(|entry| {
            let now = entry.borrow();
            // With the expiry the fields behind it move: a new allocation, unless only its number changes.
            if before.is_some() == expire_at.is_some() {
                if let Some(at) = expire_at {
                    entry.set_expire_at(at);
                }
            } else {
                let mut new = Entry::new(now.key(), now.value(), version, now.created(), expire_at);
                new.take_uses_of(now);
                *entry = new;
            }
            entry.set_version(version);
        });
        found.set_mark(tracking.changed(found.mark()));
        self.note_expiry(hash, before, expire_at);
        Ok(())
    }

    /// Writes `bytes` into a value at `offset`, zeros before them where that is beyond its end.
    pub fn write_value_at(
        &mut self,
        hash: u64,
        key: &[u8],
        offset: usize,
        bytes: Bulk<'_>,
        version: Version,
    ) -> Result<(), DoesNotFit> {
        let is_taking = matches!(self.pass, Pass::Taking(_));
        let (mut found, tracking) = self.find_to_change(hash, key, version)?;
        let mut copied = 0;
        found.change(|entry| {
            copied = entry.write_value_at(offset, bytes);
            entry.set_version(version);
        });
        found.set_mark(tracking.changed(found.mark()));
        if is_taking && copied > 0 {
            tracking.copied(copied);
        }
        Ok(())
    }

    /// The entry of a key, to be changed in place: where the running checkpoint has yet to take it, what it was is handed
    /// over and a copy lies in its place. The caller sets its mark.
    fn find_to_change(
        &mut self,
        hash: u64,
        key: &[u8],
        version: Version,
    ) -> Result<(EntryMut<'_>, &mut Tracking), DoesNotFit> {
        let mut found = self.table.find_mut(hash, key).ok_or(MISSING)?;
        if found.get().version() > version {
            return Err(OLDER);
        }
        self.tracking.touched(found.get().allocated_bytes());
        if found.mark().is_cut(self.tracking.generation) {
            let copy = found.get().with_key(key);
            let bytes = copy.borrow().copied_bytes();
            let entry = found.replace(copy);
            self.tracking.hand_over(hash, entry, bytes, found.mark());
        }
        Ok((found, &mut self.tracking))
    }

    /// Hands over an entry that was cut, or gives it back.
    fn unless_cut(&mut self, hash: u64, entry: Entry, mark: Mark) -> Option<Entry> {
        if !mark.is_cut(self.tracking.generation) {
            return Some(entry);
        }
        let bytes = entry.borrow().allocated_bytes();
        self.tracking.hand_over(hash, entry, bytes, mark);
        None
    }

    /// Puts in an entry that comes from the file.
    ///
    /// # Errors
    /// When its key is there already.
    pub(super) fn load(&mut self, hash: u64, entry: Entry, hasher: &KeyHasher) -> Result<(), DoesNotFit> {
        if self.table.find(hash, entry.borrow().key()).is_some() {
            return Err(DoesNotFit("a key is in the file twice"));
        }
        let expire_at = entry.borrow().expire_at();
        if entry.borrow().is_cold() {
            self.tracking.became_cold();
        }
        self.table.insert(hash, entry, Mark::Clean, hasher);
        self.note_expiry(hash, None, expire_at);
        Ok(())
    }

    /// Gives the entries of this hash that were changed under `Version::MAX` their real version.
    pub fn stamp(&mut self, hash: u64, version: Version) {
        self.table.stamp(hash, version);
    }

    /// The key of an entry that has expired at `now_ms`: the earliest first.
    pub fn due(&self, now_ms: u64) -> Option<Vec<u8>> {
        let &(at, hash) = self.expiry.first().filter(|(at, _)| *at <= now_ms)?;
        let found = self.table.find_where(hash, |entry| entry.expire_at() == Some(at));
        found.map(|entry| entry.key().to_vec())
    }

    fn note_expiry(&mut self, hash: u64, before: Option<u64>, after: Option<u64>) {
        if before == after {
            return;
        }
        if let Some(at) = before {
            self.expiry.remove(&(at, hash));
        }
        if let Some(at) = after {
            self.expiry.insert((at, hash));
        }
    }
}

/// Writes over an entry that the running checkpoint has yet to take: the old allocation is handed over.
#[cold]
#[inline(never)]
fn put_over_cut(mut found: EntryMut<'_>, tracking: &mut Tracking, hash: u64, put: &Put<'_>) {
    let (mark, created) = (found.mark(), found.get().created());
    let mut new = Entry::new(put.key, put.value, put.version, created, put.expire_at);
    new.take_uses_of(found.get());
    let old = found.replace(new);
    found.set_mark(tracking.changed(mark));
    let bytes = old.borrow().allocated_bytes();
    tracking.hand_over(hash, old, bytes, mark);
}
