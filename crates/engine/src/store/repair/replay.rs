//! Effects on a keyspace in which entries may be missing: what can be applied for sure is, the rest is told.
//!
//! | effect | on an entry that is there | on one that is missing |
//! | --- | --- | --- |
//! | Put | applied | applied: the entry is whole again |
//! | Delete | applied | nothing to do: it is gone either way |
//! | Expire, Append, SetRange | applied | left out, the key is told as lost |
//! | Move | applied | what it would have replaced goes; the new key is told as lost |
//! | NewTable, Swap, Reset | applied | applied |
//!
//! An entry that is there may be in doubt: a part of the past is missing before the log begins, or it was found without the
//! index. Until it is written anew or removed, what would change only a part of it is left out and told. A Move takes it
//! away.
//!
//! An effect that is not newer than its entry is in it already, unless both are of one command. On a keyspace in which nothing is missing this does
//! exactly what a start does.

use std::collections::{BTreeSet, HashSet};

use crate::apply::{Freed, apply_to_key, apply_to_many};
use crate::effect::Effect;
use crate::error::{Error, Result};
use crate::keyspace::{DatabaseId, DoesNotFit, Hold, Keyspace, SegmentSet};
use crate::log::ReplayFrame;
use crate::version::Version;

type Outcome = std::result::Result<(), DoesNotFit>;

/// What a replay over missing entries did.
#[derive(Default)]
pub(super) struct LossyReplay {
    /// Entries known to be lost: database and hash.
    pub(super) lost: BTreeSet<(u32, u64)>,
    /// Entries in doubt.
    pub(super) doubtful: BTreeSet<(u32, u64)>,
    /// A part of the past is missing: every entry is in doubt that was not written since.
    pub(super) has_gap: bool,
    /// Entries written since, if there is a gap.
    whole: BTreeSet<(u32, u64)>,
    /// Keys of which a change was left out.
    pub(super) left_out: BTreeSet<(u32, Vec<u8>)>,
    /// Records applied.
    pub(super) records: u64,
    /// What the record that is applied has changed so far.
    touched: HashSet<(u32, u64)>,
}

impl LossyReplay {
    /// Applies the records of a frame that are above `cut`.
    pub(super) fn replay(&mut self, keyspace: &Keyspace, frame: &ReplayFrame, cut: Version) -> Result<()> {
        let mut hold = keyspace.hold(SegmentSet::EMPTY, keyspace.every_segment());
        for record in frame.records() {
            let record = record?;
            if record.version <= cut {
                continue;
            }
            self.records += 1;
            self.touched.clear();
            let mut rest = record.effects;
            while !rest.is_empty() {
                let decoded = Effect::decode(rest);
                let (effect, after) = decoded.map_err(|_| frame.damaged("it holds an effect of an unknown kind"))?;
                self.apply(&mut hold, &effect, record.version).map_err(|problem| frame.damaged(problem.0))?;
                rest = after;
            }
        }
        Ok(())
    }

    fn apply(&mut self, hold: &mut Hold<'_>, effect: &Effect<'_>, version: Version) -> Outcome {
        let freed = &mut Freed::default();
        let Some(key) = effect.single_key() else {
            return self.apply_to_many(hold, effect, version);
        };
        let hash = hold.keyspace().hash(key);
        let database = database_of(effect);
        match found(hold, database, key) {
            Some(newer) if self.has_it(newer, version, database, hash) => return Ok(()),
            Some(_) if self.is_doubtful(database, hash) => match effect {
                Effect::Put { .. } | Effect::Delete { .. } => {
                    self.left_out.remove(&(database.0, key.to_vec()));
                }
                _ => {
                    self.left_out.insert((database.0, key.to_vec()));
                    return Ok(());
                }
            },
            Some(_) => {}
            None => {
                let is_lost = self.lost.remove(&(database.0, hash));
                self.left_out.remove(&(database.0, key.to_vec()));
                match effect {
                    Effect::Put { .. } => {}
                    Effect::Delete { .. } => return Ok(()),
                    _ => {
                        if is_lost {
                            self.lost.insert((database.0, hash));
                        }
                        self.left_out.insert((database.0, key.to_vec()));
                        return Ok(());
                    }
                }
            }
        }
        self.touched.insert((database.0, hash));
        if matches!(effect, Effect::Put { .. }) {
            self.note_whole(database, hash);
        }
        apply_to_key(hold, hash, effect, version, freed)
    }

    /// Whether an entry of version `newest` has a change of `version` already.
    fn has_it(&self, newest: Version, version: Version, database: DatabaseId, hash: u64) -> bool {
        newest > version || newest == version && !self.touched.contains(&(database.0, hash))
    }

    fn is_doubtful(&self, database: DatabaseId, hash: u64) -> bool {
        let at = (database.0, hash);
        self.doubtful.contains(&at) || self.has_gap && !self.whole.contains(&at)
    }

    fn note_whole(&mut self, database: DatabaseId, hash: u64) {
        self.doubtful.remove(&(database.0, hash));
        if self.has_gap {
            self.whole.insert((database.0, hash));
        }
    }

    fn apply_to_many(&mut self, hold: &mut Hold<'_>, effect: &Effect<'_>, version: Version) -> Outcome {
        match *effect {
            Effect::Move { database, key, to_database, to_key } => {
                let (from, to) = (hold.keyspace().hash(key), hold.keyspace().hash(to_key));
                let is_there = match found(hold, database, key) {
                    Some(newer) if self.has_it(newer, version, database, from) => return Ok(()),
                    found => found.is_some(),
                };
                self.forget(database, from, key);
                self.forget(to_database, to, to_key);
                self.touched.extend([(database.0, from), (to_database.0, to)]);
                if !is_there || self.is_doubtful(database, from) {
                    self.left_out.insert((to_database.0, to_key.to_vec()));
                    remove_older(hold, (database, key), version)?;
                    return remove_older(hold, (to_database, to_key), version);
                }
                self.note_whole(to_database, to);
            }
            Effect::NewTable { number, .. } => {
                let old = if (number as usize) < crate::limits::DATABASES_MAX {
                    hold.keyspace().databases.id(number).0
                } else {
                    u32::MAX
                };
                self.lost.retain(|(database, _)| *database != old);
                self.left_out.retain(|(database, _)| *database != old);
            }
            Effect::Reset => {
                self.lost.clear();
                self.left_out.clear();
            }
            _ => {}
        }
        apply_to_many(hold, effect, version, &mut Freed::default())
    }

    fn forget(&mut self, database: DatabaseId, hash: u64, key: &[u8]) {
        self.lost.remove(&(database.0, hash));
        self.left_out.remove(&(database.0, key.to_vec()));
    }
}

/// Removes an entry that is older than `version`, if it is there.
fn remove_older(hold: &mut Hold<'_>, (database, key): (DatabaseId, &[u8]), version: Version) -> Outcome {
    if found(hold, database, key).is_none_or(|newer| newer > version) {
        return Ok(());
    }
    let hash = hold.keyspace().hash(key);
    apply_to_key(hold, hash, &Effect::Delete { database, key }, version, &mut Freed::default())
}

/// The version of an entry.
fn found(hold: &Hold<'_>, database: DatabaseId, key: &[u8]) -> Option<Version> {
    let hash = hold.keyspace().hash(key);
    let table = hold.table(hold.keyspace().segment_of(hash), database)?;
    table.find(hash, key).map(|entry| entry.version())
}

fn database_of(effect: &Effect<'_>) -> DatabaseId {
    match *effect {
        Effect::Put { database, .. }
        | Effect::Delete { database, .. }
        | Effect::Expire { database, .. }
        | Effect::Append { database, .. }
        | Effect::SetRange { database, .. }
        | Effect::Move { database, .. } => database,
        Effect::NewTable { database, .. } => database,
        Effect::Swap { .. } | Effect::Reset => DatabaseId(0),
    }
}

impl ReplayFrame {
    fn damaged(&self, what: &'static str) -> Error {
        Error::Corrupt { path: self.path.to_path_buf(), offset: self.file_offset, what }
    }
}
