//! Keys that were evicted not long ago: a byte for each two entries of a table, and no more.
//!
//! ```text
//!  hash  .. | 47 .. | .. | 7 .. 0 |
//!              place        mark: the low bits, never 0         a later key in the same place takes it over
//! ```
//!
//! A key that comes back after it was evicted is used again and again, with longer pauses than the entries that stayed: it
//! begins with some uses instead of none, so that it is not evicted the same way again. One key in about five hundred is
//! mistaken for another, which does no harm. Nothing of this is kept through a restart.

/// Fewer places are not worth a list.
const PLACES_MIN: usize = 64;

/// The marks of evicted keys.
#[derive(Default)]
pub(super) struct Ghosts {
    /// 0 is an empty place.
    marks: Vec<u8>,
}

impl Ghosts {
    /// Memory it takes, bytes.
    #[inline]
    pub(super) fn bytes(&self) -> usize {
        self.marks.len()
    }

    /// Notes that the key of this hash is evicted from a table of so many entries.
    pub(super) fn note(&mut self, hash: u64, entries: usize) {
        let wanted = (entries / 2).max(PLACES_MIN).next_power_of_two();
        // As many places as entries would ask for, or half or twice of that: a new list has forgotten everything.
        if self.marks.len() * 2 < wanted || self.marks.len() > wanted * 4 {
            self.marks = vec![0; wanted / 2];
        }
        let place = self.place_of(hash);
        if let Some(mark) = self.marks.get_mut(place) {
            *mark = mark_of(hash);
        }
    }

    /// Whether the key of this hash was evicted not long ago. It is forgotten by that.
    #[inline]
    pub(super) fn take(&mut self, hash: u64) -> bool {
        let place = self.place_of(hash);
        let found = self.marks.get_mut(place).filter(|mark| **mark == mark_of(hash));
        found.map(|mark| *mark = 0).is_some()
    }

    /// The upper bits of the hash are alike in a segment, so the others count.
    fn place_of(&self, hash: u64) -> usize {
        ((u128::from(hash << 16) * self.marks.len() as u128) >> 64) as usize
    }
}

fn mark_of(hash: u64) -> u8 {
    (hash as u8).max(1)
}

#[cfg(test)]
mod tests {
    use super::super::hash::KeyHasher;
    use super::*;

    #[test]
    fn a_key_that_was_evicted_is_known_once() {
        let mut ghosts = Ghosts::default();
        assert!(!ghosts.take(0x1234_5678_9abc_def0));
        ghosts.note(0x1234_5678_9abc_def0, 1000);
        assert!(ghosts.take(0x1234_5678_9abc_def0));
        assert!(!ghosts.take(0x1234_5678_9abc_def0));
    }

    #[test]
    fn the_latest_of_many_are_known_and_strangers_are_not() {
        let (mut ghosts, hasher) = (Ghosts::default(), KeyHasher::new(3));
        let hash = |number: u64| hasher.hash(&number.to_le_bytes());
        (0..10_000).for_each(|number| ghosts.note(hash(number), 4096));
        assert!((1024..=4096).contains(&ghosts.bytes()), "{}", ghosts.bytes());
        let known = (9_500..10_000).filter(|number| ghosts.take(hash(*number))).count();
        assert!(known > 350, "{known} of 500");
        let mistaken = (20_000..30_000).filter(|number| ghosts.take(hash(*number))).count();
        assert!(mistaken < 100, "{mistaken} of 10,000");
    }

    #[test]
    fn the_list_follows_the_size_of_the_table() {
        let mut ghosts = Ghosts::default();
        for entries in [10, 1_000, 100_000, 1_000_000, 50] {
            ghosts.note(7, entries);
            assert!(ghosts.bytes() <= entries.max(128), "{} for {entries}", ghosts.bytes());
        }
    }
}
