//! A checkpoint's passes over a segment: the cut, the takes, the settling. All under the segment's exclusive lock.
//!
//! ```text
//!  cut:  other generation, Pass::None -> Taking(0)       entries of the cut = those that were dirty
//!  take: Taking(n): subtables below n hold no entry of the cut. Splits add subtables at the end, so entries move ahead of
//!        the pass or stay where it was; joins are held off until the marks are settled.
//!  settle: Settling(n): the marks in subtables below n are settled -> Pass::None
//! ```
//!
//! A subtable that was taken in part is looked through again: its taken entries are told by their marks. Not here: when
//! which pass is made, and what is not about one segment (`checkpoint`).

use super::checkpoint::{CutEntry, HandedEntries, LargeEntry, Settled, TakeLimits, Taken};
use super::database::DatabaseId;
use super::entry::Value;
use super::hash::KeyHasher;
use super::mark::Outcome;
use super::segment::{DatabaseTable, Segment};
use crate::limits::{CHECKPOINT_SLICE_REMOVALS, CHECKPOINT_SLICE_SLOTS, LONG_VALUE_COUNTS_FOR};

/// How far a checkpoint has come with a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    /// Not there, or settled.
    None,
    /// Taking goes on at this subtable.
    Taking(usize),
    /// Settling goes on at this subtable.
    Settling(usize),
}

/// What is left of a hold's work.
struct Budget {
    entries: usize,
    bytes: usize,
    slots: usize,
    removals: usize,
}

impl Budget {
    fn is_spent(&self) -> bool {
        self.entries == 0 || self.bytes == 0 || self.slots == 0 || self.removals == 0
    }
}

impl Segment {
    /// Begins the next generation of every table; returns the number of entries.
    pub(super) fn cut(&mut self) -> usize {
        assert!(self.detached.is_empty(), "a cut comes when the last one is settled");
        self.tables.iter_mut().for_each(|(_, table)| table.cut());
        self.tables.iter().map(|(_, table)| table.entries().len()).sum()
    }

    pub(super) fn take(
        &mut self,
        limits: TakeLimits,
        hasher: &KeyHasher,
        visit: &mut dyn FnMut(CutEntry<'_>),
    ) -> Taken {
        let mut budget = Budget {
            entries: limits.entries.max(1),
            bytes: limits.bytes.max(1),
            slots: CHECKPOINT_SLICE_SLOTS,
            removals: CHECKPOINT_SLICE_REMOVALS,
        };
        let mut taken = Taken::default();
        for (id, table) in self.detached.iter_mut().chain(&mut self.tables) {
            table.take(*id, hasher, &mut budget, visit, &mut taken);
        }
        let emptied = self.detached.extract_if(.., |(_, table)| !table.has_cut());
        taken.freed.extend(emptied.map(|(_, table)| table));
        taken.done = self.detached.is_empty() && !self.tables.iter().any(|(_, table)| table.has_cut());
        taken
    }

    /// Makes every entry dirty, as if the file had none of them.
    pub(super) fn forget_file(&mut self) {
        self.tables.iter_mut().for_each(|(_, table)| table.forget_file());
    }

    pub(super) fn settle(&mut self, outcome: Outcome) -> Settled {
        let mut settled = Settled { done: true, ..Settled::default() };
        assert!(outcome == Outcome::Failed || self.detached.is_empty(), "all of a published cut was taken");
        settled.freed.extend(self.detached.drain(..).map(|(_, table)| table));
        let mut slots = CHECKPOINT_SLICE_SLOTS;
        for (id, table) in &mut self.tables {
            settled.done &= table.settle(*id, outcome, &mut slots, &mut settled.handed);
        }
        settled
    }
}

impl DatabaseTable {
    /// Whether the running checkpoint has yet to take something from here.
    pub(super) fn has_cut(&self) -> bool {
        matches!(self.pass, Pass::Taking(_)) && self.tracking.has_cut()
    }

    fn cut(&mut self) {
        assert!(self.pass == Pass::None, "a cut comes when the last one is settled");
        if self.tracking.begin_generation() {
            self.pass = Pass::Taking(0);
            self.table.hold_joins_off(true);
        }
    }

    fn forget_file(&mut self) {
        assert!(self.pass == Pass::None, "the file is given up between checkpoints");
        let mut subtable = 0;
        while self.table.slots_of(subtable).is_some() {
            self.table.set_marks(subtable, |mark| self.tracking.forgotten(mark));
            subtable += 1;
        }
        self.tracking.forget_removals();
    }

    fn take(
        &mut self,
        database: DatabaseId,
        hasher: &KeyHasher,
        budget: &mut Budget,
        visit: &mut dyn FnMut(CutEntry<'_>),
        taken: &mut Taken,
    ) {
        let Pass::Taking(mut subtable) = self.pass else { return };
        let handed = self.tracking.take_handed(database);
        if !handed.is_empty() {
            taken.handed.push(handed);
        }
        while !budget.is_spent() {
            let Some(piece) = self.tracking.take_removals() else { break };
            budget.removals = budget.removals.saturating_sub(piece.len());
            taken.removals.extend(piece.iter().map(|removal| (database, *removal)));
        }
        while self.tracking.has_cut_entries() && !budget.is_spent() {
            let Some(slots) = self.table.slots_of(subtable) else {
                unreachable!("every entry of the cut lies in a subtable that the pass has yet to see")
            };
            budget.slots = budget.slots.saturating_sub(slots);
            if self.take_from(subtable, database, hasher, budget, visit, taken) {
                subtable += 1;
            }
        }
        self.pass = Pass::Taking(subtable);
    }

    /// Takes from one subtable; returns whether it has nothing of the cut any more.
    fn take_from(
        &mut self,
        subtable: usize,
        database: DatabaseId,
        hasher: &KeyHasher,
        budget: &mut Budget,
        visit: &mut dyn FnMut(CutEntry<'_>),
        taken: &mut Taken,
    ) -> bool {
        let tracking = &mut self.tracking;
        let now = tracking.generation;
        self.table.visit_marked(
            subtable,
            |mark| mark.is_cut(now),
            |entry, mark| {
                if budget.entries == 0 || budget.bytes == 0 {
                    return None;
                }
                let (hash, stored) = (hasher.hash(entry.key()), mark.is_stored());
                if let Value::Chunks(chunks) = entry.value() {
                    taken.large.push(LargeEntry::new(database, hash, entry, chunks, stored));
                    tracking.shared();
                    budget.bytes = budget.bytes.saturating_sub(LONG_VALUE_COUNTS_FOR);
                } else {
                    visit(CutEntry { database, hash, entry, stored });
                    budget.bytes = budget.bytes.saturating_sub(entry.allocated_bytes());
                }
                budget.entries -= 1;
                Some(tracking.took(mark))
            },
        )
    }

    /// Goes on with settling; returns whether the table is settled.
    fn settle(
        &mut self,
        database: DatabaseId,
        outcome: Outcome,
        slots: &mut usize,
        memory: &mut Vec<HandedEntries>,
    ) -> bool {
        let mut subtable = match self.pass {
            Pass::None => return true,
            Pass::Taking(_) => 0,
            Pass::Settling(subtable) => subtable,
        };
        while let Some(here) = self.table.slots_of(subtable) {
            if *slots == 0 {
                self.pass = Pass::Settling(subtable);
                return false;
            }
            *slots = slots.saturating_sub(here);
            self.table.set_marks(subtable, |mark| self.tracking.settled(mark, outcome));
            subtable += 1;
        }
        let handed = self.tracking.take_handed(database);
        assert!(outcome == Outcome::Failed || handed.is_empty(), "all of a published cut was taken");
        memory.push(handed);
        self.tracking.settle_removals(outcome);
        self.table.hold_joins_off(false);
        self.pass = Pass::None;
        true
    }
}
