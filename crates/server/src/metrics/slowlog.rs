//! The commands that took long, newest first, for SLOWLOG.
//!
//! What an entry is about: one command that took longer than the threshold, waiting for locks counted, waiting for the
//! disk and the client not. Small commands of a pipeline are timed together where the threshold is 1 ms or more, as reading
//! the clock takes as long as a part of them; an entry that has more than one command says how many ran before the one it
//! names. A pipeline that took long although none of its commands did makes no entry.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::limits::{SLOW_ARG_BYTES_MAX, SLOW_ARGS_MAX};
use parking_lot::Mutex;

/// One slow command.
#[derive(Debug, Clone)]
pub struct Slow {
    /// Rises by one with every entry, also over resets.
    pub id: u64,
    /// Unix time in seconds.
    pub at_seconds: u64,
    /// What it took.
    pub microseconds: u64,
    /// Its arguments, shortened.
    pub args: Vec<Vec<u8>>,
    /// The client's address.
    pub peer: String,
    /// The client's name.
    pub name: String,
}

/// The list.
#[derive(Debug, Default)]
pub struct Slowlog {
    next_id: AtomicU64,
    entries: Mutex<VecDeque<Slow>>,
}

impl Slowlog {
    /// Adds an entry (its id is given here) and drops the oldest over `entries_max`.
    pub fn add(&self, mut slow: Slow, entries_max: u64) {
        slow.id = self.next_id.fetch_add(1, Relaxed);
        let mut entries = self.entries.lock();
        entries.push_front(slow);
        entries.truncate(usize::try_from(entries_max).unwrap_or(usize::MAX));
    }

    /// The newest `count` entries.
    pub fn newest(&self, count: usize) -> Vec<Slow> {
        self.entries.lock().iter().take(count).cloned().collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.lock().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all.
    pub fn clear(&self) {
        self.entries.lock().clear();
    }
}

/// Arguments as an entry keeps them: of each its beginning and its whole length. `before` it ran small commands that were timed
/// with it.
pub fn shorten<'a>(args: impl ExactSizeIterator<Item = (&'a [u8], usize)>, before: usize) -> Vec<Vec<u8>> {
    let total = args.len();
    let shown = if total > SLOW_ARGS_MAX { SLOW_ARGS_MAX - 1 } else { total };
    let mut kept: Vec<Vec<u8>> = args.take(shown).map(shorten_one).collect();
    if total > shown {
        kept.push(format!("... ({} more arguments)", total - shown).into_bytes());
    }
    if before > 0 {
        kept.push(format!("... (timed with {before} small commands before it)").into_bytes());
    }
    kept
}

fn shorten_one((arg, len): (&[u8], usize)) -> Vec<u8> {
    let mut kept = arg.get(..SLOW_ARG_BYTES_MAX).unwrap_or(arg).to_vec();
    if len > SLOW_ARG_BYTES_MAX {
        kept.extend_from_slice(format!("... ({} more bytes)", len - SLOW_ARG_BYTES_MAX).as_bytes());
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slow(microseconds: u64) -> Slow {
        Slow { id: 0, at_seconds: 0, microseconds, args: Vec::new(), peer: String::new(), name: String::new() }
    }

    #[test]
    fn the_newest_come_first_and_the_oldest_go() {
        let log = Slowlog::default();
        for microseconds in 1..=3 {
            log.add(slow(microseconds), 2);
        }
        let kept: Vec<(u64, u64)> = log.newest(10).iter().map(|slow| (slow.id, slow.microseconds)).collect();
        assert_eq!(kept, [(2, 3), (1, 2)]);
        log.clear();
        assert!(log.is_empty());
    }

    #[test]
    fn long_arguments_and_many_are_shortened() {
        let long = vec![b'x'; 200];
        let args: Vec<&[u8]> = std::iter::repeat_n(long.as_slice(), 40).collect();
        let kept = shorten(args.into_iter().map(|arg: &[u8]| (arg, arg.len())), 3);
        assert_eq!(kept.len(), 33);
        assert!(kept[0].ends_with(b"... (72 more bytes)"));
        assert_eq!(kept[31], b"... (9 more arguments)");
        assert_eq!(kept[32], b"... (timed with 3 small commands before it)");
    }
}
