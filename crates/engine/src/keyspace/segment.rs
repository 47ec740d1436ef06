//! What one lock guards: the tables of all databases in a segment, with their expiry order.

use super::database::DatabaseId;
use super::entry::{CREATED_UNKNOWN, Entry, EntryRef, Value};
use super::hash::KeyHasher;
use super::table::{EntryMut, Table};
use crate::version::Version;
use std::collections::BTreeSet;

/// The guarded part of a segment.
#[derive(Default)]
pub struct Segment {
    tables: Vec<(DatabaseId, DatabaseTable)>,
    /// Version of the newest removal in this segment: what a reply that says "not there" depends on.
    pub newest_removal: Version,
    /// Version of the newest SWAPDB: what a reply about an entry that was found depends on, beside the entry itself.
    pub newest_exchange: Version,
}

impl Segment {
    /// The table of a database, if anything was ever written to it here.
    #[inline]
    pub fn table(&self, id: DatabaseId) -> Option<&DatabaseTable> {
        self.tables.iter().find(|(found, _)| *found == id).map(|(_, table)| table)
    }

    /// The table of a database, made if need be with room for `room` entries.
    pub fn table_mut(&mut self, id: DatabaseId, room: usize) -> &mut DatabaseTable {
        let index = self.tables.iter().position(|(found, _)| *found == id).unwrap_or_else(|| {
            self.tables.push((id, DatabaseTable { table: Table::with_room(room), expiry: BTreeSet::new() }));
            self.tables.len() - 1
        });
        &mut self.tables[index].1
    }

    /// The table of a database if there is one, to change it.
    pub fn existing_table_mut(&mut self, id: DatabaseId) -> Option<&mut DatabaseTable> {
        self.tables.iter_mut().find(|(found, _)| *found == id).map(|(_, table)| table)
    }

    /// Takes the table of a database out, to be freed elsewhere.
    pub fn detach(&mut self, id: DatabaseId) -> Option<DatabaseTable> {
        let index = self.tables.iter().position(|(found, _)| *found == id)?;
        Some(self.tables.swap_remove(index).1)
    }

    /// Takes all tables out, to be freed elsewhere.
    pub fn detach_all(&mut self) -> Vec<DatabaseTable> {
        self.tables.drain(..).map(|(_, table)| table).collect()
    }

    /// The tables and the databases they belong to.
    pub fn tables(&self) -> impl Iterator<Item = (DatabaseId, &DatabaseTable)> {
        self.tables.iter().map(|(id, table)| (*id, table))
    }

    /// An entry of any database that is due at `now_ms`.
    pub fn due(&self, now_ms: u64) -> Option<(DatabaseId, Vec<u8>)> {
        self.tables.iter().find_map(|(id, table)| table.due(now_ms).map(|key| (*id, key)))
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

/// The entries of one database in one segment, with the order in which they expire.
#[derive(Default)]
pub struct DatabaseTable {
    table: Table,
    /// (expiry in milliseconds, hash) of every entry that expires.
    expiry: BTreeSet<(u64, u64)>,
}

impl DatabaseTable {
    /// The entries, to look at.
    pub fn entries(&self) -> &Table {
        &self.table
    }

    /// Number of entries that have an expiry.
    pub fn expiring(&self) -> usize {
        self.expiry.len()
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
            self.table.insert(hash, Entry::new(key, value, version, created, expire_at), hasher);
            self.note_expiry(hash, None, expire_at);
            return Ok(None);
        };
        if found.get().version() > version {
            return Err(OLDER);
        }
        let (created, before) = (found.get().created(), found.get().expire_at());
        let replaced = found.change(|entry| {
            if entry.overwrite(value, expire_at) {
                entry.set_version(version);
                return None;
            }
            Some(std::mem::replace(entry, Entry::new(key, value, version, created, expire_at)))
        });
        self.note_expiry(hash, before, expire_at);
        Ok(replaced)
    }

    /// Puts in an entry that was taken out elsewhere, under its own key; returns the one it replaces.
    pub fn put_entry(&mut self, hash: u64, entry: Entry, hasher: &KeyHasher) -> Option<Entry> {
        let expire_at = entry.borrow().expire_at();
        let replaced = match self.table.find_mut(hash, entry.borrow().key()) {
            Some(mut found) => Some(found.replace(entry)),
            None => {
                self.table.insert(hash, entry, hasher);
                None
            }
        };
        self.note_expiry(hash, replaced.as_ref().and_then(|old| old.borrow().expire_at()), expire_at);
        replaced
    }

    /// Takes an entry out.
    pub fn remove(&mut self, hash: u64, key: &[u8], version: Version) -> Result<Entry, DoesNotFit> {
        if self.table.find(hash, key).ok_or(MISSING)?.version() > version {
            return Err(OLDER);
        }
        let entry = self.table.remove(hash, key).ok_or(MISSING)?;
        self.note_expiry(hash, entry.borrow().expire_at(), None);
        Ok(entry)
    }

    /// Sets or takes away the expiry of an entry.
    pub fn set_expiry(
        &mut self,
        hash: u64,
        key: &[u8],
        expire_at: Option<u64>,
        version: Version,
    ) -> Result<(), DoesNotFit> {
        let mut found = self.find_older(hash, key, version)?;
        let before = found.get().expire_at();
        found.change(|entry| {
            let now = entry.borrow();
            // With the expiry the fields behind it move: a new allocation, unless only its number changes.
            if before.is_some() == expire_at.is_some() {
                if let Some(at) = expire_at {
                    entry.set_expire_at(at);
                }
            } else {
                *entry = Entry::new(now.key(), now.value(), version, now.created(), expire_at);
            }
            entry.set_version(version);
        });
        self.note_expiry(hash, before, expire_at);
        Ok(())
    }

    /// Makes a value at least `len` bytes long and hands it to `change`.
    pub fn grow_value(
        &mut self,
        hash: u64,
        key: &[u8],
        len: usize,
        version: Version,
        change: impl FnOnce(&mut [u8]),
    ) -> Result<(), DoesNotFit> {
        let mut found = self.find_older(hash, key, version)?;
        let len = len.max(found.get().value().len());
        found.change(|entry| {
            entry.grow_value(len, change);
            entry.set_version(version);
        });
        Ok(())
    }

    fn find_older(&mut self, hash: u64, key: &[u8], version: Version) -> Result<EntryMut<'_>, DoesNotFit> {
        let found = self.table.find_mut(hash, key).ok_or(MISSING)?;
        if found.get().version() > version { Err(OLDER) } else { Ok(found) }
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
