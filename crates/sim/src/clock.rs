//! A clock that stands still until it is told to move.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bowline::clock::Clock;

/// The two clocks of a simulated machine. Clones show the same time. Time passes only by [`SimClock::advance`]; the
/// wall clock alone can be set, as an administrator or a time server would.
#[derive(Clone, Debug)]
pub struct SimClock(Arc<Times>);

#[derive(Debug)]
struct Times {
    wall_us: AtomicU64,
    monotonic_us: AtomicU64,
}

impl SimClock {
    /// A machine whose wall clock says `wall_ms` (Unix time) and whose monotonic clock says zero.
    pub fn new(wall_ms: u64) -> SimClock {
        let wall_us = AtomicU64::new(wall_ms.saturating_mul(1_000));
        SimClock(Arc::new(Times { wall_us, monotonic_us: AtomicU64::new(0) }))
    }

    /// Lets `time` pass on both clocks. Microseconds are the finest that counts.
    pub fn advance(&self, time: Duration) {
        let us = time.as_micros() as u64;
        self.0.wall_us.fetch_add(us, Ordering::SeqCst);
        self.0.monotonic_us.fetch_add(us, Ordering::SeqCst);
    }

    /// Sets the wall clock to `wall_ms` (Unix time), forwards or backwards; the monotonic clock does not notice.
    pub fn set_wall_ms(&self, wall_ms: u64) {
        self.0.wall_us.store(wall_ms.saturating_mul(1_000), Ordering::SeqCst);
    }
}

impl Clock for SimClock {
    fn wall_ms(&self) -> u64 {
        self.0.wall_us.load(Ordering::SeqCst) / 1_000
    }

    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.0.monotonic_us.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_wall_clock_jumps() {
        let clock = SimClock::new(1_000);
        let shared = clock.clone();
        clock.advance(Duration::from_millis(5));
        assert_eq!((shared.wall_ms(), shared.monotonic()), (1_005, Duration::from_millis(5)));
        clock.set_wall_ms(10);
        assert_eq!((shared.wall_ms(), shared.monotonic()), (10, Duration::from_millis(5)));
    }
}
