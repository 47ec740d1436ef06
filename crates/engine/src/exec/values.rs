//! Values that are in the block file only: whether commands need any, and having them read before the commands run.
//!
//! Looked at under the locks and before anything executes, so there is nothing to undo: a transaction that meets a cold
//! value at its third command has not run its first. Whoever needs one asks for all that the rest of its pipeline needs, so
//! that the disk is read for many at once. Not here: reading (`store::fetch`).

use super::unit::whole;
use super::{Executor, Planned, Request};
use crate::command::PlannedKey;
use crate::error::Error;
use crate::keyspace::cold::ColdValue;
use crate::keyspace::{Hold, SegmentSet};
use crate::limits::FETCH_VALUES_MAX;
use crate::store::{Store, Wanted};

/// Why a unit cannot run yet.
pub(super) enum Missing {
    /// A value has to be read.
    Cold,
    /// They cannot be read, or not all at once.
    Refused(Error),
}

/// Whether a command needs a value that is not in memory. `keys` are its keys' hashes, its segments are held.
pub(super) fn meets_cold(hold: &Hold<'_>, request: &Request<'_>, planned: &Planned, keys: &[PlannedKey]) -> bool {
    let keyspace = hold.keyspace();
    let id = keyspace.databases.id(request.caller.database);
    let is_cold = |(key, planned): (&[u8], &PlannedKey)| {
        let table = hold.table(keyspace.segment_of(planned.hash), id);
        table.and_then(|table| table.find(planned.hash, key)).is_some_and(|entry| entry.is_cold())
    };
    reads_values(request, planned) && planned.keys(request).zip(keys).any(is_cold)
}

fn reads_values(request: &Request<'_>, planned: &Planned) -> bool {
    (planned.command.reads_values)(planned.args(request))
}

/// The cold values that commands need. Their segments are held.
fn cold_values<'h>(
    hold: &'h Hold<'_>,
    request: &'h Request<'h>,
    commands: &'h [Planned],
) -> impl Iterator<Item = (Wanted, ColdValue)> {
    let keyspace = hold.keyspace();
    // A SWAPDB among them may bring the values of any database up.
    let any_database = commands.iter().any(|planned| whole(planned) && planned.command.is_write());
    let reading = commands.iter().enumerate().filter(|(_, planned)| reads_values(request, planned));
    let keys = reading.flat_map(move |(index, planned)| {
        let id = keyspace.databases.id(request.database_of(index));
        planned.keys(request).map(move |key| (id, key))
    });
    keys.flat_map(move |(id, key)| {
        let hash = keyspace.hash(key);
        let tables = hold.segment(keyspace.segment_of(hash)).tables();
        tables.filter(move |(database, _)| any_database || *database == id).filter_map(move |(database, table)| {
            let cold = table.cold_value(hash, key)?;
            Some((Wanted { database, hash, key: key.into() }, cold))
        })
    })
}

/// What a unit, whose segments are held, needs and memory does not have.
pub(super) fn missing(store: &Store, hold: &Hold<'_>, request: &Request<'_>, unit: &[Planned]) -> Option<Missing> {
    if store.keyspace().cold() == 0 {
        return None;
    }
    let (mut count, mut bytes) = (0, 0);
    for (wanted, cold) in cold_values(hold, request, unit) {
        if let Some(error) = store.unreadable(&wanted, cold.version) {
            return Some(Missing::Refused(error));
        }
        (count, bytes) = (count + 1, bytes + cold.bytes);
    }
    // A single value is fetched whatever its size: it was in memory when it was written.
    let limit = store.fetch_bytes_max();
    if count > 1 && bytes > limit {
        return Some(Missing::Refused(Error::TooLarge {
            what: "the sum of the values to be read",
            found: bytes,
            limit,
        }));
    }
    (count > 0).then_some(Missing::Cold)
}

impl Executor {
    /// Has the cold values read that the first of `commands` needs, and some for those behind it. False when they are there
    /// now, left alone until [`Executor::take_fetch`]: run it again. `is_first`: it is what the caller has waited for before.
    ///
    /// The values of the first fit into memory together (`missing`); those behind it only as far as they do as well.
    pub(super) fn fetch_for(&mut self, request: &Request<'_>, commands: &[Planned], is_first: bool) -> bool {
        let store = self.store.clone();
        let (shared, exclusive) = self.plan.make(store.keyspace(), request, commands);
        let hold = store.keyspace().hold(shared.union(exclusive), SegmentSet::EMPTY);
        let (mut bytes, bytes_max) = (0_usize, store.fetch_bytes_max());
        let fits = |(_, cold): &(Wanted, ColdValue)| {
            let is_only_one = bytes == 0;
            bytes = bytes.saturating_add(cold.bytes.max(1));
            is_only_one || bytes <= bytes_max
        };
        let cold = cold_values(&hold, request, commands).take(FETCH_VALUES_MAX);
        let wanted: Vec<Wanted> = cold.take_while(fits).map(|(wanted, _)| wanted).collect();
        drop(hold);
        if wanted.is_empty() {
            return false;
        }
        let Some(waker) = &self.waker else {
            self.fetch = Some(store.fetch_all_here(&wanted, self.fetch.as_deref()));
            return false;
        };
        let waited = if is_first { request.caller.waited } else { 0 };
        self.fetch = Some(store.fetch(wanted, (waited, self.fetch.as_deref()), waker.clone()));
        true
    }
}
