//! The model: every write in the order of its version, and how much of it a client was told.
//!
//! ```text
//!     0 ........ acknowledged ........ appended
//!     must come back | whole and in order, or not at all
//! ```
//!
//! After a restart what came back counts as acknowledged: it can be read from then on.

use bowline::Version;

use super::Problem;

/// One command's effects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Its version.
    pub version: Version,
    /// Its effects.
    pub effects: Vec<u8>,
    /// Whether nothing before it matters.
    pub reset: bool,
}

/// All writes of a store's life.
#[derive(Clone, Debug, Default)]
pub struct History {
    writes: Vec<Write>,
    acknowledged: usize,
    seen: Version,
}

impl History {
    /// A write got `version`: it must be newer than whatever anybody has seen.
    pub fn append(&mut self, version: Version, effects: Vec<u8>, reset: bool) -> Result<(), Problem> {
        let newest = self.writes.last().map_or(Version::ZERO, |write| write.version);
        let seen = self.seen.max(newest);
        if version <= seen {
            return Err(Problem::VersionReused { seen, found: version });
        }
        self.writes.push(Write { version, effects, reset });
        Ok(())
    }

    /// Clients are told of every write up to `commit`.
    pub fn acknowledge(&mut self, commit: Version) {
        let told = self.writes.partition_point(|write| write.version <= commit);
        self.acknowledged = self.acknowledged.max(told);
        self.show(commit);
    }

    /// Clients that do not wait for commits have seen the versions up to `limit`.
    pub fn show(&mut self, limit: Version) {
        let shown = self.writes.partition_point(|write| write.version <= limit);
        if let Some(newest) = shown.checked_sub(1).and_then(|place| self.writes.get(place)) {
            self.seen = self.seen.max(newest.version);
        }
    }

    /// Version of the newest write.
    pub fn newest(&self) -> Version {
        self.writes.last().map_or(Version::ZERO, |write| write.version)
    }

    /// Number of writes that a client was told of.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged
    }

    /// Number of writes, acknowledged or not.
    pub fn appended(&self) -> usize {
        self.writes.len()
    }

    /// The writes, oldest first.
    pub fn writes(&self) -> &[Write] {
        &self.writes
    }

    /// A restart replayed `replayed`, and its log goes on after `last`. Checks that it is a prefix of what was written
    /// (from the start or from a reset) with everything acknowledged in it, and forgets the writes that were lost.
    pub fn recover(&mut self, replayed: &[(Version, Vec<u8>)], last: Version) -> Result<(), Problem> {
        let start = self.start_of(replayed)?;
        for (place, (version, effects)) in (start..).zip(replayed) {
            let same = |write: &Write| write.version == *version && write.effects == *effects;
            if !self.writes.get(place).is_some_and(same) {
                return Err(Problem::Foreign { place, found: *version });
            }
        }
        let kept = start + replayed.len();
        if kept < self.acknowledged {
            return Err(Problem::Lost { acknowledged: self.acknowledged, kept });
        }
        self.writes.truncate(kept);
        self.acknowledged = kept;
        self.seen = self.seen.max(self.newest());
        if last < self.seen {
            return Err(Problem::VersionReused { seen: self.seen, found: last });
        }
        Ok(())
    }

    fn start_of(&self, replayed: &[(Version, Vec<u8>)]) -> Result<usize, Problem> {
        let Some((first, _)) = replayed.first() else {
            return Ok(0);
        };
        let place = self.writes.partition_point(|write| write.version < *first);
        match self.writes.get(place) {
            Some(write) if write.version == *first && (place == 0 || write.reset) => Ok(place),
            _ => Err(Problem::Foreign { place, found: *first }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(resets: &[bool], acknowledged: u64) -> History {
        let mut history = History::default();
        for (place, reset) in resets.iter().enumerate() {
            history.append(Version(place as u64 + 1), vec![place as u8], *reset).unwrap();
        }
        history.acknowledge(Version(acknowledged));
        history
    }

    fn replay(places: std::ops::Range<u8>) -> Vec<(Version, Vec<u8>)> {
        places.map(|place| (Version(u64::from(place) + 1), vec![place])).collect()
    }

    #[test]
    fn a_prefix_that_holds_what_was_acknowledged_is_right() {
        let mut history = history(&[false; 5], 2);
        history.recover(&replay(0..3), Version(9)).unwrap();
        assert_eq!((history.appended(), history.acknowledged()), (3, 3));
        assert!(matches!(history.recover(&replay(0..2), Version(9)), Err(Problem::Lost { acknowledged: 3, kept: 2 })));
    }

    #[test]
    fn a_gap_a_foreign_write_and_a_missing_start_are_found() {
        let mut gap = replay(0..5);
        gap.remove(2);
        assert!(matches!(history(&[false; 5], 1).recover(&gap, Version(9)), Err(Problem::Foreign { place: 2, .. })));
        let mut foreign = replay(0..2);
        foreign[1].1.push(1);
        assert!(matches!(history(&[false; 5], 1).recover(&foreign, Version(9)), Err(Problem::Foreign { .. })));
        assert!(matches!(history(&[false; 5], 0).recover(&replay(1..3), Version(9)), Err(Problem::Foreign { .. })));
    }

    #[test]
    fn replay_may_start_at_a_reset_and_nowhere_else() {
        let resets = [false, false, true, false];
        history(&resets, 4).recover(&replay(2..4), Version(9)).unwrap();
        history(&resets, 4).recover(&replay(0..4), Version(9)).unwrap();
        assert!(history(&resets, 4).recover(&replay(3..4), Version(9)).is_err());
        assert!(matches!(history(&resets, 4).recover(&[], Version(9)), Err(Problem::Lost { kept: 0, .. })));
    }

    #[test]
    fn a_version_that_somebody_saw_is_not_handed_out_again() {
        let mut history = history(&[false; 3], 0);
        history.show(Version(2));
        assert!(matches!(history.clone().recover(&[], Version(1)), Err(Problem::VersionReused { .. })));
        history.recover(&[], Version(2)).unwrap();
        assert!(matches!(history.append(Version(2), Vec::new(), false), Err(Problem::VersionReused { .. })));
        history.append(Version(3), Vec::new(), false).unwrap();
    }
}
