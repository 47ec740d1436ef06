//! The mark of an entry: what checkpoints know of it, in three bits of its slot.
//!
//! ```text
//!  bits  mark             the current entry is        the file of the last published checkpoint has
//!   0    DirtyEven        dirty, generation even      no record of the key
//!   1    DirtyOdd         dirty, generation odd       no record of the key
//!   2    DirtyEvenStored  dirty, generation even      a record of the key
//!   3    DirtyOddStored   dirty, generation odd       a record of the key
//!   4    DirtyUnsettled   dirty, current generation   a record of the key, if the running checkpoint is published
//!   5    TakenNew         in the running checkpoint   no record of the key
//!   6    Taken            in the running checkpoint   a record of the key
//!   7    Clean            in the file                 that record
//! ```
//!
//! A cut turns the current generation of a table from even to odd or back. From then on a dirty mark of the *other* generation says
//! *cut*: the running checkpoint has yet to take this entry, or to have it handed over. Marks 4 to 6 exist between a cut and
//! the moment that the checkpoint's end has been settled, so a cut finds none of them.
//!
//! Invariant: a record of the file has exactly one owner, which is the entry whose mark says that there is one, or one
//! removal that was noted (`tracking`). So what a checkpoint is told names each record once at most.

/// Which of the two dirty marks is given at the moment. Its number has a bit for each mark that says dirty then: every
/// write of an entry asks that, so it should cost one instruction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Generation {
    #[default]
    Even = 0b1_0101,
    Odd = 0b1_1010,
}

/// The marks that say dirty in one generation or the other.
const DIRTY_IN_EITHER: u8 = 0b0_1111;

impl Generation {
    pub(super) fn next(self) -> Generation {
        match self {
            Generation::Even => Generation::Odd,
            Generation::Odd => Generation::Even,
        }
    }
}

/// How a checkpoint ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Published,
    Failed,
}

/// The record that the file has of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Record {
    None,
    Stored,
    /// There is one if the running checkpoint is published.
    IfPublished,
}

/// See the head of this file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Mark {
    DirtyEven = 0,
    DirtyOdd = 1,
    DirtyEvenStored = 2,
    DirtyOddStored = 3,
    DirtyUnsettled = 4,
    TakenNew = 5,
    Taken = 6,
    Clean = 7,
}

impl Mark {
    /// The mark in the low three bits.
    #[inline]
    pub(super) fn from_bits(bits: u64) -> Mark {
        match bits & 7 {
            0 => Mark::DirtyEven,
            1 => Mark::DirtyOdd,
            2 => Mark::DirtyEvenStored,
            3 => Mark::DirtyOddStored,
            4 => Mark::DirtyUnsettled,
            5 => Mark::TakenNew,
            6 => Mark::Taken,
            _ => Mark::Clean,
        }
    }

    /// The mark of an entry that has changed in this generation and whose key has this record.
    pub(super) fn dirty(now: Generation, record: Record) -> Mark {
        match record {
            Record::IfPublished => Mark::DirtyUnsettled,
            Record::None if now == Generation::Even => Mark::DirtyEven,
            Record::None => Mark::DirtyOdd,
            Record::Stored if now == Generation::Even => Mark::DirtyEvenStored,
            Record::Stored => Mark::DirtyOddStored,
        }
    }

    /// Whether the running checkpoint has yet to take the entry as it is.
    #[inline]
    pub(super) fn is_cut(self, now: Generation) -> bool {
        DIRTY_IN_EITHER & !(now as u8) & 1 << self as u8 != 0
    }

    /// Whether the entry has changed since the cut.
    #[inline]
    pub(super) fn is_dirty(self, now: Generation) -> bool {
        Mark::bits_are_dirty(self as u64, now)
    }

    /// The same for the mark in the low three bits.
    #[inline]
    pub(super) fn bits_are_dirty(bits: u64, now: Generation) -> bool {
        now as u8 & 1 << (bits & 7) != 0
    }

    /// Whether the file has a record that an entry of the cut replaces.
    pub(super) fn is_stored(self) -> bool {
        matches!(self, Mark::DirtyEvenStored | Mark::DirtyOddStored | Mark::Taken | Mark::Clean)
    }

    /// The record of the key, once what the entry was at the cut has been taken or handed over.
    pub(super) fn record(self, now: Generation) -> Record {
        match self {
            Mark::DirtyEven | Mark::DirtyOdd if !self.is_cut(now) => Record::None,
            Mark::DirtyEven | Mark::DirtyOdd | Mark::DirtyUnsettled | Mark::TakenNew => Record::IfPublished,
            Mark::DirtyEvenStored | Mark::DirtyOddStored | Mark::Taken | Mark::Clean => Record::Stored,
        }
    }

    /// The mark after a change. What a cut entry was must have been handed over.
    pub(super) fn changed(self, now: Generation) -> Mark {
        Mark::dirty(now, self.record(now))
    }

    /// The mark of a cut entry that has been taken.
    pub(super) fn taken(self) -> Mark {
        if self.is_stored() { Mark::Taken } else { Mark::TakenNew }
    }

    /// The mark when the checkpoint has ended.
    pub(super) fn settled(self, now: Generation, outcome: Outcome) -> Mark {
        match (outcome, self) {
            (_, Mark::Clean) | (Outcome::Published, Mark::TakenNew | Mark::Taken) => Mark::Clean,
            (Outcome::Published, Mark::DirtyUnsettled) => Mark::dirty(now, Record::Stored),
            (Outcome::Published, _) => {
                assert!(!self.is_cut(now), "a checkpoint is published when all of the cut is taken");
                self
            }
            (Outcome::Failed, _) if self.is_stored() => Mark::dirty(now, Record::Stored),
            (Outcome::Failed, _) => Mark::dirty(now, Record::None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Mark; 8] = [
        Mark::DirtyEven,
        Mark::DirtyOdd,
        Mark::DirtyEvenStored,
        Mark::DirtyOddStored,
        Mark::DirtyUnsettled,
        Mark::TakenNew,
        Mark::Taken,
        Mark::Clean,
    ];

    #[test]
    fn marks_are_their_bits() {
        assert!(
            ALL.iter().enumerate().all(|(bits, mark)| *mark as usize == bits && Mark::from_bits(bits as u64) == *mark)
        );
    }

    #[test]
    fn a_change_makes_every_mark_dirty_and_never_cut() {
        for now in [Generation::Even, Generation::Odd] {
            for mark in ALL {
                assert!(mark.changed(now).is_dirty(now) && !mark.changed(now).is_cut(now), "{mark:?}");
                assert_eq!(mark.changed(now).record(now), mark.record(now), "{mark:?}: the record stays");
            }
        }
    }

    #[test]
    fn after_a_failure_no_mark_is_of_the_failed_checkpoint() {
        for now in [Generation::Even, Generation::Odd] {
            for mark in ALL {
                let settled = mark.settled(now, Outcome::Failed);
                assert!(settled == Mark::Clean || settled.is_dirty(now) && settled != Mark::DirtyUnsettled, "{mark:?}");
                assert_eq!(settled.is_stored(), mark.is_stored(), "{mark:?}: the file is as it was");
            }
        }
    }

    #[test]
    fn after_a_publication_what_was_taken_is_clean_and_what_changed_since_is_stored() {
        let now = Generation::Odd;
        let settled = |mark: Mark| mark.settled(now, Outcome::Published);
        assert_eq!([Mark::Taken, Mark::TakenNew, Mark::Clean].map(settled), [Mark::Clean; 3]);
        assert_eq!(settled(Mark::DirtyUnsettled), Mark::DirtyOddStored);
        assert_eq!([Mark::DirtyOdd, Mark::DirtyOddStored].map(settled), [Mark::DirtyOdd, Mark::DirtyOddStored]);
    }
}
