//! The version: one number for order, time and optimism.
//!
//! Every command that changes something gets one 64-bit version when it enters the log,
//! `max(last + 1, now_ms << 20)`. It is strictly increasing for the whole store, across restarts, and its upper
//! 44 bits are the store's time of the write in milliseconds since the Unix epoch.

/// Bits of a version below the milliseconds.
const COUNTER_BITS: u32 = 20;

/// The place of a change in the store's one order; 0 means "before every change".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Version(pub u64);

impl Version {
    /// Before every change; what an absent key has.
    pub const ZERO: Version = Version(0);
    /// After every change.
    pub const MAX: Version = Version(u64::MAX);

    /// The smallest version of the millisecond `now_ms` (Unix time).
    pub const fn at_ms(now_ms: u64) -> Version {
        Version(now_ms << COUNTER_BITS)
    }

    /// The version after `self` for a change made at `now_ms`: never repeats, never goes back.
    #[must_use]
    pub fn next(self, now_ms: u64) -> Version {
        Version(Version::at_ms(now_ms).0.max(self.0 + 1))
    }

    /// Time of the change, milliseconds since the Unix epoch.
    pub const fn time_ms(self) -> u64 {
        self.0 >> COUNTER_BITS
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_rise_when_the_clock_stands_or_goes_back() {
        let first = Version::ZERO.next(1_000);
        assert_eq!(first, Version::at_ms(1_000));
        assert_eq!(first.next(1_000).0, first.0 + 1);
        assert_eq!(first.next(10).0, first.0 + 1);
        assert_eq!(first.next(1_001).time_ms(), 1_001);
    }
}
