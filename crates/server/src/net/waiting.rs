//! Which connections of a loop wait for which version, in the order of the versions.
//!
//! A connection stands here at most once, for the version of its first held reply. When it leaves or closes early its
//! place stays behind and is passed over: the client's id, never used twice, tells.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use bowline::Version;

/// A connection's place: the version, the slot of the connection, the client's id.
type Place = Reverse<(Version, usize, u64)>;

/// The queue of held replies of one loop.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    places: BinaryHeap<Place>,
}

impl Waiting {
    /// Puts a connection in its place. Versions mostly rise, so this is a push at the end.
    pub(super) fn insert(&mut self, version: Version, slot: usize, client: u64) {
        self.places.push(Reverse((version, slot, client)));
    }

    /// Takes out the first connection that `commit` satisfies.
    pub(super) fn pop_committed(&mut self, commit: Version) -> Option<(usize, u64)> {
        let Reverse((version, ..)) = self.places.peek()?;
        if *version > commit {
            return None;
        }
        self.places.pop().map(|Reverse((_, slot, client))| (slot, client))
    }

    /// How many wait; those that left count until their version is committed.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// The smallest version that somebody waits for.
    pub(super) fn first(&self) -> Option<Version> {
        self.places.peek().map(|Reverse((version, ..))| *version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_releases_exactly_those_it_satisfies_in_order() {
        let mut waiting = Waiting::default();
        for (version, slot) in [(30, 3), (10, 1), (20, 2), (10, 4)] {
            waiting.insert(Version(version), slot, slot as u64);
        }
        let mut released = Vec::new();
        while let Some((slot, _)) = waiting.pop_committed(Version(20)) {
            released.push(slot);
        }
        assert_eq!(released, [1, 4, 2]);
        assert_eq!(waiting.first(), Some(Version(30)));
        assert_eq!(waiting.pop_committed(Version(29)), None);
    }
}
