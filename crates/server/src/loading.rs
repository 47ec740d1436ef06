//! The time before the store is open: how far recovery is, and what clients are told meanwhile.
//!
//! ```text
//!   doors -> loops run, without a store -> recovery ... advance -> Server::open -> letters: loops take the store
//! ```
//!
//! The event loops serve from the first moment, with the same sessions, limits and connections as later; only what needs
//! data is refused. So nothing is handed over when recovery ends: the same connection asks again. Not here: recovery (crate
//! `bowline`), who is refused (`session::single`, by the rows).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// What is answered to a request that needs the data. Clients know it by its first word and try again later.
pub const REFUSAL: &str = "LOADING Bowline is loading its log into memory";

/// How far recovery is. Written by the thread that recovers, read by all.
#[derive(Debug)]
pub struct Loading {
    began: Instant,
    bytes_done: AtomicU64,
    bytes_total: AtomicU64,
}

/// How far recovery was at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loaded {
    /// Bytes of the log read.
    pub bytes_done: u64,
    /// Bytes of the log there are to read at most; 0 before the first was read.
    pub bytes_total: u64,
    /// How long the rest takes at the pace so far; zero when that cannot be told yet.
    pub left: Duration,
}

impl Loading {
    /// A recovery that begins now.
    pub fn begin() -> Loading {
        Loading { began: Instant::now(), bytes_done: AtomicU64::new(0), bytes_total: AtomicU64::new(0) }
    }

    /// Recovery has come so far.
    pub fn advance(&self, progress: bowline::log::Progress) {
        self.bytes_done.store(progress.bytes_done, Relaxed);
        self.bytes_total.store(progress.bytes_total, Relaxed);
    }

    /// How far it is now.
    pub fn loaded(&self) -> Loaded {
        let (bytes_done, bytes_total) = (self.bytes_done.load(Relaxed), self.bytes_total.load(Relaxed));
        Loaded { bytes_done, bytes_total, left: time_left(self.began.elapsed(), bytes_done, bytes_total) }
    }
}

impl Loaded {
    /// Percent of the bytes read, 0 to 100.
    pub fn percent(&self) -> f64 {
        if self.bytes_total == 0 { 0.0 } else { 100.0 * self.bytes_done as f64 / self.bytes_total as f64 }
    }
}

fn time_left(elapsed: Duration, bytes_done: u64, bytes_total: u64) -> Duration {
    if bytes_done == 0 {
        return Duration::ZERO;
    }
    elapsed.mul_f64(bytes_total.saturating_sub(bytes_done) as f64 / bytes_done as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_expected_at_the_pace_so_far() {
        let second = Duration::from_secs(1);
        assert_eq!(time_left(second, 25, 100), 3 * second);
        assert_eq!(time_left(second, 100, 100), Duration::ZERO);
        assert_eq!(time_left(second, 0, 100), Duration::ZERO);
        assert_eq!(time_left(second, 100, 50), Duration::ZERO);
    }

    #[test]
    fn an_empty_log_is_no_percentage_of_nothing() {
        assert_eq!(Loading::begin().loaded().percent(), 0.0);
    }
}
