//! Effects in, keyspace out: the one place where an effect changes memory.
//!
//! Execution, recovery and (later) followers all come through [`apply`], so that a replay cannot differ from what the
//! first execution did. Callers hold the segments that the effect touches.

use crate::effect::Effect;
use crate::keyspace::entry::Entry;
use crate::keyspace::{DatabaseId, DatabaseTable, DoesNotFit, Hold, Put};
use crate::limits::{DATABASES_MAX, FREE_LATER_BYTES, VALUE_BYTES_MAX};
use crate::version::Version;

/// Memory that an effect made free and that takes long to give back: drop it without holding a lock.
#[derive(Default)]
pub(crate) struct Freed {
    entries: Vec<Entry>,
    tables: Vec<DatabaseTable>,
}

impl Freed {
    /// Whether there is nothing to drop.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.tables.is_empty()
    }

    /// Bytes that will be free.
    pub(crate) fn bytes(&self) -> usize {
        let entries: usize = self.entries.iter().map(|entry| entry.borrow().allocated_bytes()).sum();
        entries + self.tables.iter().map(DatabaseTable::bytes).sum::<usize>()
    }

    fn entry(&mut self, entry: Option<Entry>) {
        self.entries.extend(entry.filter(|entry| entry.borrow().allocated_bytes() >= FREE_LATER_BYTES));
    }
}

/// Applies an effect to one key, whose hash is known. `version` is `Version::MAX` while it is not assigned yet.
///
/// # Errors
/// When the key is missing that the effect changes, or has a newer version: then the effects are not in their order.
pub(crate) fn apply_to_key(
    hold: &mut Hold<'_>,
    hash: u64,
    effect: &Effect<'_>,
    version: Version,
    freed: &mut Freed,
) -> Result<(), DoesNotFit> {
    let segment = hold.keyspace().segment_of(hash);
    assert!(hold.keyspace().is_loaded(segment), "a segment is loaded before anything in it is changed");
    match *effect {
        Effect::Put { database, key, value, expire_at } => {
            let (table, hasher) = hold.table_mut(segment, database);
            freed.entry(table.put(hash, &Put { key, value, version, expire_at }, hasher)?);
        }
        Effect::Delete { database, key } => {
            let (table, hasher) = hold.table_mut(segment, database);
            freed.entry(table.remove(hash, key, version, hasher)?);
            hold.segment_mut(segment).newest_removal = version;
        }
        Effect::Expire { database, key, expire_at } => {
            hold.table_mut(segment, database).0.set_expiry(hash, key, expire_at, version)?;
        }
        Effect::Append { database, key, bytes } => {
            let table = hold.table_mut(segment, database).0;
            let offset = table.find(hash, key).map_or(0, |found| found.value().len());
            check_length(offset.saturating_add(bytes.len()))?;
            table.write_value_at(hash, key, offset, bytes, version)?;
        }
        Effect::SetRange { database, key, offset, bytes } => {
            let (table, offset) = (hold.table_mut(segment, database).0, offset as usize);
            check_length(offset.saturating_add(bytes.len()))?;
            table.write_value_at(hash, key, offset, bytes, version)?;
        }
        Effect::Move { .. } | Effect::NewTable { .. } | Effect::Swap { .. } | Effect::Reset => {
            unreachable!("effects over several segments go through apply_to_many")
        }
    }
    Ok(())
}

/// Applies an effect that is not about one key.
///
/// # Errors
/// As [`apply_to_key`].
pub(crate) fn apply_to_many(
    hold: &mut Hold<'_>,
    effect: &Effect<'_>,
    version: Version,
    freed: &mut Freed,
) -> Result<(), DoesNotFit> {
    let keyspace = hold.keyspace();
    // What is emptied need not be there.
    assert!(!matches!(effect, Effect::Swap { .. }) || keyspace.all_loaded(), "all is loaded before databases change");
    match *effect {
        Effect::Move { database, key, to_database, to_key } => {
            return apply_move(hold, (database, key), (to_database, to_key), version, freed);
        }
        Effect::NewTable { number, database } => {
            check_number(number)?;
            // Ids are numbered without end; the last one stands for a log that is not ours.
            database.0.checked_add(1).ok_or(DoesNotFit("a database has an id that none can have"))?;
            let old = keyspace.databases.id(number);
            for segment in keyspace.every_segment().iter() {
                let segment = hold.segment_mut(segment);
                freed.tables.extend(segment.detach(old));
                segment.newest_removal = version;
            }
            keyspace.note_dropped(old);
            keyspace.databases.assign(number, database);
        }
        Effect::Swap { first, second } => {
            check_number(first)?;
            check_number(second)?;
            keyspace.databases.swap(first, second);
            for segment in keyspace.every_segment().iter() {
                let segment = hold.segment_mut(segment);
                (segment.newest_removal, segment.newest_exchange) = (version, version);
            }
        }
        Effect::Reset => {
            for segment in keyspace.every_segment().iter() {
                let segment = hold.segment_mut(segment);
                freed.tables.extend(segment.detach_all());
                segment.newest_removal = version;
            }
            keyspace.note_reset();
            keyspace.databases.reset();
        }
        _ => unreachable!("effects on one key go through apply_to_key"),
    }
    Ok(())
}

fn check_length(bytes: usize) -> Result<(), DoesNotFit> {
    if bytes > VALUE_BYTES_MAX { Err(DoesNotFit("a value is longer than any can be")) } else { Ok(()) }
}

fn check_number(number: u32) -> Result<(), DoesNotFit> {
    let known = (number as usize) < DATABASES_MAX;
    known.then_some(()).ok_or(DoesNotFit("a database has a number that none can have"))
}

fn apply_move(
    hold: &mut Hold<'_>,
    (database, key): (DatabaseId, &[u8]),
    (to_database, to_key): (DatabaseId, &[u8]),
    version: Version,
    freed: &mut Freed,
) -> Result<(), DoesNotFit> {
    let keyspace = hold.keyspace();
    let (hash, to_hash) = (keyspace.hash(key), keyspace.hash(to_key));
    let segment = keyspace.segment_of(hash);
    let are_loaded = keyspace.is_loaded(segment) && keyspace.is_loaded(keyspace.segment_of(to_hash));
    assert!(are_loaded, "segments are loaded before anything in them is changed");
    let (table, hasher) = hold.table_mut(segment, database);
    let (mut entry, old) = table.move_out(hash, key, to_key, version, hasher)?;
    freed.entry(old);
    hold.segment_mut(segment).newest_removal = version;
    entry.set_version(version);
    let (table, hasher) = hold.table_mut(keyspace.segment_of(to_hash), to_database);
    freed.entry(table.put_entry(to_hash, entry, hasher));
    Ok(())
}
