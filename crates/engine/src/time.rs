//! The store's time: the wall clock without its jumps.
//!
//! It runs on the monotonic clock and follows the wall clock at once while the two differ by little. A jump (someone set
//! the clock, a machine was restored) is followed only after it has lasted a minute, so that ten wrong years for one
//! second do not mark every later version. Going back is harmless to versions (they take `max(last + 1, ..)`).

use crate::clock::Clock;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// A difference of up to this many milliseconds is drift and followed at once.
const DRIFT_MS_MAX: u64 = 1_000;
/// How long a larger difference must last before it is believed, milliseconds.
const JUMP_LASTS_MS: u64 = 60_000;
const NO_JUMP: u64 = u64::MAX;

/// A source of the store's time; cheap, lock-free, for all threads.
pub(crate) struct StoreTime {
    clock: Arc<dyn Clock>,
    /// Wall minus monotonic milliseconds, as we believe it.
    offset_ms: AtomicI64,
    /// Monotonic milliseconds at which the present jump was first seen.
    jumped_at_ms: AtomicU64,
}

impl StoreTime {
    /// Starts with what the wall clock says now.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> StoreTime {
        let offset = clock.wall_ms() as i64 - clock.monotonic().as_millis() as i64;
        StoreTime { clock, offset_ms: AtomicI64::new(offset), jumped_at_ms: AtomicU64::new(NO_JUMP) }
    }

    /// Milliseconds since the Unix epoch, without jumps.
    pub(crate) fn now_ms(&self) -> u64 {
        let monotonic_ms = self.clock.monotonic().as_millis() as u64;
        let offset = self.offset_ms.load(Ordering::Relaxed);
        let believed = monotonic_ms.saturating_add_signed(offset);
        let wall = self.clock.wall_ms();
        let jumped_at = self.jumped_at_ms.load(Ordering::Relaxed);
        if wall == believed && jumped_at == NO_JUMP {
            return wall;
        }
        if wall.abs_diff(believed) <= DRIFT_MS_MAX {
            self.jumped_at_ms.store(NO_JUMP, Ordering::Relaxed);
        } else if jumped_at == NO_JUMP {
            self.jumped_at_ms.store(monotonic_ms, Ordering::Relaxed);
            return believed;
        } else if monotonic_ms.saturating_sub(jumped_at) < JUMP_LASTS_MS {
            return believed;
        } else {
            tracing::warn!(believed_ms = believed, wall_ms = wall, "the wall clock jumped a minute ago; following it");
            self.jumped_at_ms.store(NO_JUMP, Ordering::Relaxed);
        }
        self.offset_ms.store(wall as i64 - monotonic_ms as i64, Ordering::Relaxed);
        wall
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[derive(Default)]
    struct Clocks {
        wall: AtomicU64,
        monotonic: AtomicU64,
    }

    impl Clock for Clocks {
        fn wall_ms(&self) -> u64 {
            self.wall.load(Ordering::Relaxed)
        }

        fn monotonic(&self) -> Duration {
            Duration::from_millis(self.monotonic.load(Ordering::Relaxed))
        }
    }

    #[test]
    fn ten_wrong_years_for_a_second_are_not_followed() {
        let clocks = Arc::new(Clocks::default());
        clocks.wall.store(1_000_000, Ordering::Relaxed);
        let time = StoreTime::new(clocks.clone());
        clocks.wall.store(1_000_000 + 315_360_000_000, Ordering::Relaxed);
        assert_eq!(time.now_ms(), 1_000_000);
        clocks.monotonic.store(1_000, Ordering::Relaxed);
        assert_eq!(time.now_ms(), 1_001_000);
        clocks.wall.store(1_001_500, Ordering::Relaxed);
        assert_eq!(time.now_ms(), 1_001_500);
    }

    #[test]
    fn a_jump_is_followed_after_a_minute() {
        let clocks = Arc::new(Clocks::default());
        clocks.wall.store(1_000_000, Ordering::Relaxed);
        let time = StoreTime::new(clocks.clone());
        clocks.wall.store(5_000, Ordering::Relaxed);
        assert_eq!(time.now_ms(), 1_000_000);
        clocks.monotonic.store(59_000, Ordering::Relaxed);
        assert_eq!(time.now_ms(), 1_059_000);
        clocks.monotonic.store(61_000, Ordering::Relaxed);
        clocks.wall.store(66_000, Ordering::Relaxed);
        assert_eq!(time.now_ms(), 66_000);
    }
}
