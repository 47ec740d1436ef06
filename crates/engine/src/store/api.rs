//! The embedded library's calls: put, get, delete, batches, iteration. All are about database 0.

use super::{Batch, Store, Wanted, one};
use crate::command::{Change, Expiry, Pending, View};
use crate::error::{Error, Result};
use crate::keyspace::SegmentSet;
use crate::keyspace::cold::ColdValue;
use crate::keyspace::entry::EntryRef;
use crate::keyspace::table::TableCursor;
use crate::keyspace::value::{KeptValue, NewValue};
use crate::limits::RECORD_BYTES_MAX;
use crate::log::RoomClass;
use crate::version::Version;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// An entry, copied out of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EntryInfo {
    /// The value.
    pub value: Vec<u8>,
    /// The version of its last change: what [`Store::put_if_version`] compares.
    pub version: Version,
    /// When the key was first written; whole seconds.
    pub created: SystemTime,
    /// When it was last changed.
    pub updated: SystemTime,
    /// When it expires, if it does.
    pub expires: Option<SystemTime>,
}

/// An entry as it was under the lock; a long value is copied after it.
struct KeptEntry {
    value: KeptValue,
    version: Version,
    created: u32,
    expire_at: Option<u64>,
}

impl KeptEntry {
    /// The entry, whose value is in memory.
    fn new(entry: EntryRef<'_>) -> KeptEntry {
        let (value, expire_at) = (KeptValue::of(entry.value()), entry.expire_at());
        KeptEntry { value, version: entry.version(), created: entry.created(), expire_at }
    }

    fn into_info(self) -> EntryInfo {
        let at_ms = |ms| UNIX_EPOCH + Duration::from_millis(ms);
        EntryInfo {
            value: self.value.into_vec(),
            version: self.version,
            created: at_ms(u64::from(self.created) * 1000),
            updated: at_ms(self.version.time_ms()),
            expires: self.expire_at.map(at_ms),
        }
    }
}

/// Most bytes of a change in the log beside its key and its value.
const CHANGE_OVERHEAD: usize = 64;

impl Store {
    /// Writes a value, without expiry. Returns the version of the change when it is as durable as the options ask for.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::OutOfMemory`] and [`Error::DiskFull`] (nothing was changed), [`Error::Poisoned`].
    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<Version> {
        self.check_sizes(key, value)?;
        self.wait_for_memory(key.len() + value.len() + CHANGE_OVERHEAD)?;
        let value = NewValue::new(value);
        self.change(&[key], value.value().stored_bytes(), RoomClass::Ordinary, |change| {
            change.put(key, value.value(), Expiry::Clear);
        })
        .map(|((), version)| version)
    }

    /// Writes a value that expires after `lifetime`.
    ///
    /// # Errors
    /// As [`Store::put`].
    pub fn put_with_lifetime(&self, key: &[u8], value: &[u8], lifetime: Duration) -> Result<Version> {
        self.check_sizes(key, value)?;
        self.wait_for_memory(key.len() + value.len() + CHANGE_OVERHEAD)?;
        let lifetime_ms = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
        let value = NewValue::new(value);
        self.change(&[key], value.value().stored_bytes(), RoomClass::Ordinary, |change| {
            // As far as Redis's commands can tell it.
            let at = change.now_ms().saturating_add(lifetime_ms).min(i64::MAX as u64);
            change.put(key, value.value(), Expiry::At(at));
        })
        .map(|((), version)| version)
    }

    /// Writes a value if the key still has `version` ([`Version::ZERO`]: if it does not exist): optimistic locking. An
    /// expiry is kept. Returns the new version, or `None` when somebody was faster.
    ///
    /// ```
    /// # fn main() -> bowline::Result<()> {
    /// # let directory = tempfile::tempdir().expect("a temporary directory");
    /// # let store = bowline::Store::open(bowline::Options::new(directory.path()))?;
    /// let first = store.put(b"counter", b"1")?;
    /// assert!(store.put_if_version(b"counter", b"2", first)?.is_some());
    /// assert!(store.put_if_version(b"counter", b"3", first)?.is_none());
    /// # store.close()
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Store::put`].
    pub fn put_if_version(&self, key: &[u8], value: &[u8], version: Version) -> Result<Option<Version>> {
        self.check_sizes(key, value)?;
        self.wait_for_memory(key.len() + value.len() + CHANGE_OVERHEAD)?;
        let value = NewValue::new(value);
        let (same, new) = self.change(&[key], value.value().stored_bytes(), RoomClass::Ordinary, |change| {
            let same = change.find(key).map_or(Version::ZERO, EntryRef::version) == version;
            if same {
                change.put(key, value.value(), Expiry::Keep);
            }
            same
        })?;
        Ok(same.then_some(new))
    }

    /// Removes a key; returns whether it was there.
    ///
    /// # Errors
    /// [`Error::Poisoned`]; [`Error::DiskFull`] only when even the reserve for removals is used up.
    pub fn delete(&self, key: &[u8]) -> Result<bool> {
        self.change(&[key], 0, RoomClass::Removal, |change| change.remove(key)).map(|(removed, _)| removed)
    }

    /// Makes several changes together or not at all. Returns their version.
    ///
    /// # Errors
    /// As [`Store::put`]; a batch of more than 1 GiB is [`Error::TooLarge`].
    pub fn write(&self, batch: &Batch) -> Result<Version> {
        let mut bytes = 0;
        for (key, value) in &batch.changes {
            self.check_sizes(key, value.as_deref().unwrap_or_default())?;
            bytes += 2 * key.len() + value.as_ref().map_or(0, Vec::len) + CHANGE_OVERHEAD;
        }
        if bytes > RECORD_BYTES_MAX {
            return Err(Error::TooLarge { what: "batch", found: bytes, limit: RECORD_BYTES_MAX });
        }
        if batch.changes.iter().any(|(_, value)| value.is_some()) {
            self.wait_for_memory(bytes)?;
        }
        let keys: Vec<&[u8]> = batch.changes.iter().map(|(key, _)| key.as_slice()).collect();
        let changes: Vec<_> =
            batch.changes.iter().map(|(key, value)| (key, value.as_deref().map(NewValue::new))).collect();
        self.change(&keys, bytes, RoomClass::Ordinary, |change| {
            for (key, value) in &changes {
                match value {
                    Some(value) => change.put(key, value.value(), Expiry::Clear),
                    None => {
                        change.remove(key);
                    }
                }
            }
        })
        .map(|((), version)| version)
    }

    /// The value of a key. Nothing is returned that a power cut could still take back. Reads the block file where the value
    /// is not in memory.
    ///
    /// # Errors
    /// [`Error::Poisoned`], [`Error::Unreadable`].
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.view_value(key, |entry| KeptValue::of(entry.value()))?.map(KeptValue::into_vec))
    }

    /// The value of a key with its version and times; as [`Store::get`].
    ///
    /// # Errors
    /// [`Error::Poisoned`], [`Error::Unreadable`].
    pub fn get_entry(&self, key: &[u8]) -> Result<Option<EntryInfo>> {
        Ok(self.view_value(key, KeptEntry::new)?.map(KeptEntry::into_info))
    }

    /// Whether a key exists.
    ///
    /// # Errors
    /// [`Error::Poisoned`].
    pub fn exists(&self, key: &[u8]) -> Result<bool> {
        Ok(self.view(key, |_| ())?.is_some())
    }

    /// Number of keys. Nothing is told that a power cut could still take back.
    ///
    /// # Errors
    /// [`Error::Poisoned`].
    pub fn len(&self) -> Result<usize> {
        let keyspace = self.keyspace();
        self.load_segments(keyspace.every_segment())?;
        let hold = keyspace.hold(keyspace.every_segment(), SegmentSet::EMPTY);
        let tables = (0..keyspace.segment_count()).filter_map(|segment| hold.table(segment, keyspace.databases.id(0)));
        let keys = tables.map(|table| table.entries().len()).sum();
        let newest = self.log().last_version();
        drop(hold);
        self.wait_for_commit(newest)?;
        Ok(keys)
    }

    /// Whether there is no key.
    ///
    /// # Errors
    /// As [`Store::len`].
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Removes all keys. Memory is freed in the background.
    ///
    /// # Errors
    /// As [`Store::delete`].
    pub fn clear(&self) -> Result<()> {
        // Nothing is loaded for it: what is to go need not come first.
        self.change_loaded(self.keyspace().every_segment(), 0, RoomClass::Removal, |change| change.flush(0)).map(|_| ())
    }

    /// Waits until everything written so far is durable, whatever the options say.
    ///
    /// # Errors
    /// [`Error::Poisoned`].
    #[doc(alias = "flush")]
    pub fn sync(&self) -> Result<()> {
        let version = self.log().last_version();
        self.log().request_sync(version);
        if self.options().threads {
            return self.log().wait(version);
        }
        while self.log().commit() < version && !self.log().is_poisoned() {
            self.turn();
        }
        if self.log().is_poisoned() { Err(Error::Poisoned) } else { Ok(()) }
    }

    /// All keys with their values, in no order, a few at a time. A key that is there from the first call to the last is met
    /// at least once, others perhaps.
    pub fn iter(&self) -> Iter<'_> {
        Iter { store: self, segment: 0, cursor: TableCursor::default(), found: Vec::new() }
    }

    fn check_sizes(&self, key: &[u8], value: &[u8]) -> Result<()> {
        let limits = [("key", key.len(), self.key_bytes_max()), ("value", value.len(), self.value_bytes_max())];
        for (what, found, limit) in limits {
            if found > limit {
                return Err(Error::TooLarge { what, found, limit });
            }
        }
        Ok(())
    }

    fn change<R>(
        &self,
        keys: &[&[u8]],
        value_bytes: usize,
        class: RoomClass,
        run: impl FnOnce(&mut Change<'_, '_, '_>) -> R,
    ) -> Result<(R, Version)> {
        let mut segments = SegmentSet::EMPTY;
        for key in keys {
            segments.insert(self.keyspace().segment_of(self.keyspace().hash(key)));
        }
        let key_bytes: usize = keys.iter().map(|key| 2 * key.len() + CHANGE_OVERHEAD).sum();
        self.change_held(segments, key_bytes + value_bytes, class, run)
    }

    /// Runs a change with these segments held; returns the version that its caller may learn of once it is committed.
    fn change_held<R>(
        &self,
        segments: SegmentSet,
        bytes: usize,
        class: RoomClass,
        run: impl FnOnce(&mut Change<'_, '_, '_>) -> R,
    ) -> Result<(R, Version)> {
        self.load_segments(segments)?;
        self.change_loaded(segments, bytes, class, run)
    }

    /// As [`Store::change_held`], where what is needed of the segments is in memory.
    fn change_loaded<R>(
        &self,
        segments: SegmentSet,
        bytes: usize,
        class: RoomClass,
        run: impl FnOnce(&mut Change<'_, '_, '_>) -> R,
    ) -> Result<(R, Version)> {
        let room = bytes + 64;
        self.wait_for_room(room, class)?;
        let now_ms = self.now_ms();
        let mut pending = Pending::default();
        let mut hold = self.keyspace().hold(SegmentSet::EMPTY, segments);
        let mut context = self.context(now_ms);
        let result = run(&mut Change { hold: &mut hold, context: &mut context, pending: &mut pending });
        let (version, appended) = self.append(&mut hold, &mut pending, now_ms);
        drop(hold);
        self.log().settle(room, appended);
        self.free_in_background(pending.freed);
        let version = version.unwrap_or(context.depends);
        self.wait_for_commit(version)?;
        Ok((result, version))
    }

    /// As [`Store::view`], for what looks at the value: a cold one is fetched.
    fn view_value<R>(&self, key: &[u8], read: impl Fn(EntryRef<'_>) -> R) -> Result<Option<R>> {
        loop {
            match self.view(key, |entry| (!entry.is_cold()).then(|| read(entry)))? {
                None => return Ok(None),
                Some(Some(found)) => return Ok(Some(found)),
                Some(None) => {
                    let keyspace = self.keyspace();
                    let (database, hash) = (keyspace.databases.id(0), keyspace.hash(key));
                    self.fetch_here(&Wanted { database, hash, key: key.into() })?;
                }
            }
        }
    }

    fn view<R>(&self, key: &[u8], read: impl Fn(EntryRef<'_>) -> R) -> Result<Option<R>> {
        let segment = one(self.keyspace().segment_of(self.keyspace().hash(key)));
        self.load_segments(segment)?;
        let hold = self.keyspace().hold(segment, SegmentSet::EMPTY);
        let mut context = self.context(self.now_ms());
        let found = View { hold: &hold, context: &mut context }.find(key).map(|entry| entry.map(&read));
        drop(hold);
        match found {
            Ok(found) => {
                self.wait_for_commit(context.depends)?;
                Ok(found)
            }
            // It has expired: remove it, so that "gone" is in the log before anybody is told.
            Err(_) => self.change(&[key], 0, RoomClass::Removal, |change| change.find(key).map(&read)).map(|(r, _)| r),
        }
    }
}

/// Iterates over a store; see [`Store::iter`].
pub struct Iter<'s> {
    store: &'s Store,
    segment: usize,
    cursor: TableCursor,
    found: Vec<(Vec<u8>, KeptEntry)>,
}

/// Entries that an iterator copies out under one lock.
const ITER_STEP: usize = 256;

impl Iter<'_> {
    /// Copies the next entries out; returns the version that telling of them, or of their absence, depends on. Cold values
    /// are read without bringing them into memory.
    fn step(&mut self) -> Result<Version> {
        let keyspace = self.store.keyspace();
        let now_ms = self.store.now_ms();
        self.store.load_segments(one(self.segment))?;
        // What is left out because it has expired is gone for good first, where there is room to say so.
        let _ = self.store.remove_due(self.segment, now_ms, RoomClass::Removal);
        let hold = keyspace.hold(one(self.segment), SegmentSet::EMPTY);
        let newest = self.store.log().last_version();
        let (mut cold, view) = (Vec::new(), self.store.cold_values_of(self.segment));
        // Once nothing is held, the number may stand for another database.
        let database = keyspace.databases.id(0);
        let next = hold.table(self.segment, database).and_then(|table| {
            table.entries().scan(self.cursor, ITER_STEP, &mut |entry| {
                if entry.is_expired(now_ms) {
                    return;
                }
                match ColdValue::of(entry) {
                    Some(value) => cold.push((entry.key().to_vec(), value)),
                    None => self.found.push((entry.key().to_vec(), KeptEntry::new(entry))),
                }
            })
        });
        drop(hold);
        for (key, value) in cold {
            let unreadable = |error: Error| Error::Unreadable { cause: error.to_string() };
            let Some(view) = &view else {
                unreachable!("a segment with cold values has the checkpoint that they are in")
            };
            let entry = view.read_cold(&value, database, &key).map_err(unreadable)?;
            self.found.push((key, KeptEntry::new(entry.borrow())));
        }
        self.cursor = next.unwrap_or_default();
        self.segment += usize::from(next.is_none());
        Ok(newest)
    }
}

impl Iterator for Iter<'_> {
    type Item = Result<(Vec<u8>, EntryInfo)>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.found.is_empty() && self.segment < self.store.keyspace().segment_count() {
            if let Err(error) = self.step().and_then(|newest| self.store.wait_for_commit(newest)) {
                self.segment = self.store.keyspace().segment_count();
                self.found.clear();
                return Some(Err(error));
            }
        }
        self.found.pop().map(|(key, entry)| Ok((key, entry.into_info())))
    }
}
