//! Records on their way from a damaged block file into the keyspace: those that the index names at once, of the others the
//! newest of each key when all have been seen. Not here: reading them (`blocks::salvage`).

use std::collections::{BTreeMap, BTreeSet};

use crate::blocks::salvage::SalvagedRecord;
use crate::keyspace::entry::{Entry, Value};
use crate::keyspace::load::Loader;
use crate::keyspace::{DATABASES_MAX, DatabaseId, DatabaseIds, DoesNotFit, Keyspace};

/// A map of databases by which every id that has entries has a number.
pub(super) fn numbered(ids: &[DatabaseId]) -> DatabaseIds {
    let next = ids.iter().map(|id| id.0 + 1).max().unwrap_or(0).max(DATABASES_MAX as u32);
    let is_free = |number: &u32| !ids.contains(&DatabaseId(*number));
    let free: Vec<u32> = (0..DATABASES_MAX as u32).filter(is_free).collect();
    let without_number = ids.iter().filter(|id| id.0 as usize >= DATABASES_MAX);
    DatabaseIds { exchanged: free.into_iter().zip(without_number.copied()).collect(), next }
}

/// An entry with bytes of its own.
struct OwnedRecord {
    entry: Entry,
    is_checked: bool,
}

/// Records on their way into the keyspace.
pub(super) struct Gathered<'k> {
    keyspace: &'k Keyspace,
    loaders: Vec<Option<Loader<'k>>>,
    /// The newest record of each key that the index does not name.
    unnamed: BTreeMap<(u32, Vec<u8>), OwnedRecord>,
    named_databases: Vec<DatabaseId>,
    unchecked: u64,
    failed: Option<DoesNotFit>,
}

impl<'k> Gathered<'k> {
    pub(super) fn new(keyspace: &'k Keyspace) -> Gathered<'k> {
        Gathered {
            loaders: (0..keyspace.segment_count()).map(|_| None).collect(),
            keyspace,
            unnamed: BTreeMap::new(),
            named_databases: Vec::new(),
            unchecked: 0,
            failed: None,
        }
    }

    pub(super) fn add(&mut self, salvaged: &SalvagedRecord<'_>) {
        let SalvagedRecord { record, is_named, is_checked } = salvaged;
        let value = match record.value {
            // Only this form of an integer is ever kept.
            Value::Bytes(bytes) => Value::compact(bytes),
            integer => integer,
        };
        let entry = || Entry::new(record.key, value, record.version, record.created, record.expire_at);
        if !is_named {
            let key = (record.database.0, record.key.to_vec());
            let is_newest = self.unnamed.get(&key).is_none_or(|it| it.entry.borrow().version() < record.version);
            if is_newest {
                self.unnamed.insert(key, OwnedRecord { entry: entry(), is_checked: *is_checked });
            }
            return;
        }
        if !self.named_databases.contains(&record.database) {
            self.named_databases.push(record.database);
        }
        self.unchecked += u64::from(!is_checked);
        let (database, entry) = (record.database, entry());
        self.load(database, entry);
    }

    fn load(&mut self, database: DatabaseId, entry: Entry) {
        let hash = self.keyspace.hash(entry.borrow().key());
        let segment = self.keyspace.segment_of(hash);
        let Some(loader) = self.loaders.get_mut(segment) else {
            unreachable!("a hash belongs to a segment");
        };
        let loader = loader.get_or_insert_with(|| self.keyspace.loader(segment, &[]));
        if let Err(problem) = loader.add(database, hash, entry) {
            self.failed.get_or_insert(problem);
        }
    }

    /// The databases that have entries.
    pub(super) fn databases(&self) -> Vec<DatabaseId> {
        let mut ids = self.named_databases.clone();
        ids.extend(self.unnamed.keys().map(|(database, _)| DatabaseId(*database)));
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    pub(super) fn unnamed_hashes(&self) -> BTreeSet<(u32, u64)> {
        self.unnamed.keys().map(|(database, key)| (*database, self.keyspace.hash(key))).collect()
    }

    fn finish_loaders(&mut self) -> Result<(), DoesNotFit> {
        for loader in &mut self.loaders {
            if let Some(loader) = loader.take() {
                loader.finish()?;
            }
        }
        self.failed.take().map_or(Ok(()), Err)
    }

    /// Puts everything in; returns how many entries the index does not name, and how many have no checksum.
    pub(super) fn finish(mut self) -> Result<(u64, u64), DoesNotFit> {
        let mut unnamed = 0;
        for ((database, key), OwnedRecord { entry, is_checked }) in std::mem::take(&mut self.unnamed) {
            let (database, hash) = (DatabaseId(database), self.keyspace.hash(&key));
            let segment = self.keyspace.segment_of(hash);
            let loader = self.loaders.get_mut(segment).and_then(Option::as_mut);
            let is_there = loader.map_or(Ok(false), |loader| loader.has(database, hash, &key))?;
            if !is_there {
                unnamed += 1;
                self.unchecked += u64::from(!is_checked);
                self.load(database, entry);
            }
        }
        self.finish_loaders()?;
        Ok((unnamed, self.unchecked))
    }
}
