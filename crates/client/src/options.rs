//! What a client is told before it connects.

use std::time::Duration;

use bowline_resp::Protocol;

use crate::address::Address;

/// What a client is told before it connects. Every field has a sensible default.
///
/// ```
/// use std::time::Duration;
/// use bowline_client::Options;
///
/// let options = Options { read_timeout: Some(Duration::from_millis(500)), ..Options::at("db.example:6379")? };
/// assert_eq!(options.address.to_string(), "db.example:6379");
/// # Ok::<(), bowline_client::AddressError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the server listens; default 127.0.0.1:6379.
    pub address: Address,
    /// User name for AUTH; `None` means the default user.
    pub user: Option<String>,
    /// Password for AUTH; `None` sends no AUTH.
    pub password: Option<String>,
    /// Database number for SELECT; 0 sends no SELECT.
    pub database: u32,
    /// Commands that every new connection sends first, for instance `BL.DURABILITY everysec`. They must not change data,
    /// because they are sent again whenever the client connects again. Default none.
    pub setup: Vec<Vec<String>>,
    /// The protocol to ask for; a server that has only RESP2 is spoken to in RESP2. Default RESP3.
    pub protocol: Protocol,
    /// How long one connection attempt may take; default 5 s.
    pub connect_timeout: Duration,
    /// Longest silence while an answer is awaited, before it counts as lost; default 30 s. `None` waits for ever.
    /// Commands that block on purpose (BLPOP, WAIT, ...) always wait for ever.
    pub read_timeout: Option<Duration>,
    /// Longest wait for room to send; default 30 s. `None` waits for ever.
    pub write_timeout: Option<Duration>,
    /// How failed connections and lost reads are tried again.
    pub retry: Retry,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            address: Address::default(),
            user: None,
            password: None,
            database: 0,
            setup: Vec::new(),
            protocol: Protocol::Resp3,
            connect_timeout: Duration::from_secs(5),
            read_timeout: Some(Duration::from_secs(30)),
            write_timeout: Some(Duration::from_secs(30)),
            retry: Retry::default(),
        }
    }
}

impl Options {
    /// Defaults with the address `text` (see [`Address`] for its forms).
    ///
    /// # Errors
    /// When `text` is not an address.
    pub fn at(text: &str) -> Result<Self, crate::AddressError> {
        Ok(Options { address: text.parse()?, ..Options::default() })
    }
}

/// How often and how soon something is tried again: exponential back-off with full jitter.
///
/// The wait before retry `n` is uniformly random between 0 and `min(first << n, longest)`, so that many clients that
/// lost the same server do not return in step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Retries after the first attempt; 0 tries once. Default 4.
    pub retries: u32,
    /// Upper bound of the first wait; default 50 ms.
    pub first: Duration,
    /// Upper bound of every wait; default 2 s.
    pub longest: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Retry { retries: 4, first: Duration::from_millis(50), longest: Duration::from_secs(2) }
    }
}

impl Retry {
    /// Tries once.
    pub fn never() -> Self {
        Retry { retries: 0, ..Retry::default() }
    }

    /// The wait before retry `retry` (0 is the first one), for `random` uniform over all of `u64`.
    pub fn wait(&self, retry: u32, random: u64) -> Duration {
        let bound = self.first.saturating_mul(1_u32.checked_shl(retry).unwrap_or(u32::MAX)).min(self.longest);
        bound.mul_f64(random as f64 / u64::MAX as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_one() {
        let retry = Retry { retries: 10, first: Duration::from_millis(10), longest: Duration::from_millis(65) };
        let bounds: Vec<u128> = (0..5).map(|n| retry.wait(n, u64::MAX).as_millis()).collect();
        assert_eq!(bounds, [10, 20, 40, 65, 65]);
        assert_eq!(retry.wait(60, u64::MAX), Duration::from_millis(65));
    }

    #[test]
    fn the_wait_is_spread_down_to_nothing() {
        assert_eq!(Retry::default().wait(3, 0), Duration::ZERO);
        assert!(Retry::default().wait(0, u64::MAX / 2) < Duration::from_millis(26));
    }
}
