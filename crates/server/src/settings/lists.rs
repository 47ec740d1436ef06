//! The settings whose values have several parts: addresses to listen on, and Redis's output limits.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use super::values::{Kind, Problem, Value, bytes};

/// The addresses to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindAddresses {
    hosts: Vec<String>,
}

/// One address to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen {
    /// Address and port.
    pub address: SocketAddr,
    /// Whether the server may start when this machine does not have the address (`EADDRNOTAVAIL`, `EAFNOSUPPORT`): so
    /// for a host written with a leading `-`, and for `::1` beside another address, as a machine without IPv6 has none.
    pub optional: bool,
}

impl BindAddresses {
    /// Looks up the hosts. `*` is every IPv4 address, `::*` every IPv6 address. Empty when there is nothing to listen on.
    ///
    /// # Errors
    /// When a host that is not optional has no address; the message names it.
    pub fn resolve(&self, port: u16) -> io::Result<Vec<Listen>> {
        let mut listens = Vec::new();
        for written in &self.hosts {
            let (host, dash) = written.strip_prefix('-').map_or((written.as_str(), false), |host| (host, true));
            let optional = dash || (host == "::1" && self.hosts.len() > 1);
            let host = match host {
                "*" => "0.0.0.0",
                "::*" => "::",
                host => host,
            };
            match (host, port).to_socket_addrs() {
                Ok(addresses) => listens.extend(addresses.map(|address| Listen { address, optional })),
                Err(_) if optional => {}
                Err(error) => {
                    let text = format!("cannot find the address of {host:?} in bind: {error}; write an IP address");
                    return Err(io::Error::new(error.kind(), text));
                }
            }
        }
        // `localhost` may give one address twice.
        let mut distinct: Vec<Listen> = Vec::with_capacity(listens.len());
        for listen in listens {
            if !distinct.iter().any(|known| known.address == listen.address) {
                distinct.push(listen);
            }
        }
        Ok(distinct)
    }

    /// The hosts as they were written.
    pub fn hosts(&self) -> &[String] {
        &self.hosts
    }
}

impl Value for BindAddresses {
    fn parse(text: &str, _: &Kind) -> Result<Self, Problem> {
        if text.chars().any(|character| character.is_control() && !character.is_ascii_whitespace()) {
            return Err(Problem::ControlCharacter);
        }
        Ok(BindAddresses { hosts: text.split_whitespace().map(str::to_owned).collect() })
    }

    fn render(&self) -> String {
        self.hosts.join(" ")
    }
}

/// The output limit of one class of connections, in Redis's terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OutputLimit {
    /// Bytes at which the connection is closed at once; 0 for none.
    pub hard_bytes: u64,
    /// Bytes at which it is closed when they last for `soft_seconds`; 0 for none.
    pub soft_bytes: u64,
    /// How long, in seconds.
    pub soft_seconds: u64,
}

/// The output limits of Redis's three classes of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OutputLimits {
    /// Ordinary clients.
    pub normal: OutputLimit,
    /// Replicas.
    pub replica: OutputLimit,
    /// Clients that subscribed.
    pub pubsub: OutputLimit,
}

impl OutputLimits {
    fn merge(&mut self, text: &str) -> Result<(), Problem> {
        let parts: Vec<&str> = text.split_whitespace().collect();
        if parts.is_empty() || !parts.len().is_multiple_of(4) {
            return Err(Problem::NotFours);
        }
        let mut merged = *self;
        for four in parts.chunks_exact(4) {
            let &[class, hard, soft, seconds] = four else { return Err(Problem::NotFours) };
            let size = |text| bytes(text).map_err(|_| Problem::NotALimit);
            let limit = OutputLimit {
                hard_bytes: size(hard)?.unsigned_abs(),
                soft_bytes: size(soft)?.unsigned_abs(),
                soft_seconds: seconds.parse().map_err(|_| Problem::NotALimit)?,
            };
            match class.to_ascii_lowercase().as_str() {
                "normal" => merged.normal = limit,
                "replica" | "slave" => merged.replica = limit,
                "pubsub" => merged.pubsub = limit,
                _ => return Err(Problem::NotAClass),
            }
        }
        *self = merged;
        Ok(())
    }
}

impl Value for OutputLimits {
    fn parse(text: &str, _: &Kind) -> Result<Self, Problem> {
        let mut limits = OutputLimits::default();
        limits.merge(text)?;
        Ok(limits)
    }

    fn render(&self) -> String {
        // Redis still writes the replicas' class by its old name, and tools compare with that.
        format!("normal {} slave {} pubsub {}", self.normal, self.replica, self.pubsub)
    }

    fn assign(&mut self, text: &str, _: &Kind) -> Result<(), Problem> {
        self.merge(text)
    }
}

impl fmt::Display for OutputLimit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {} {}", self.hard_bytes, self.soft_bytes, self.soft_seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_limits_change_only_the_classes_that_are_named() {
        let mut limits = OutputLimits::default();
        limits.assign("normal 1mb 0 0 replica 2kb 1kb 9", &Kind::OutputLimits).expect("valid");
        limits.assign("pubsub 7 6 5", &Kind::OutputLimits).expect("valid");
        assert_eq!(limits.render(), "normal 1048576 0 0 slave 2048 1024 9 pubsub 7 6 5");
        assert_eq!(limits.assign("normal 1 2", &Kind::OutputLimits), Err(Problem::NotFours));
        assert_eq!(limits.assign("master 1 2 3", &Kind::OutputLimits), Err(Problem::NotAClass));
        assert_eq!(limits.assign("normal x 2 3", &Kind::OutputLimits), Err(Problem::NotALimit));
        assert_eq!(limits.render(), "normal 1048576 0 0 slave 2048 1024 9 pubsub 7 6 5");
    }

    #[test]
    fn the_loopback_of_ipv6_is_optional_beside_another_address() {
        let both = BindAddresses::parse("127.0.0.1 ::1", &Kind::Addresses).expect("valid");
        let optional: Vec<bool> = both.resolve(1).expect("addresses").iter().map(|listen| listen.optional).collect();
        assert_eq!(optional, [false, true]);
        let alone = BindAddresses::parse("::1", &Kind::Addresses).expect("valid");
        assert!(alone.resolve(1).expect("addresses").iter().all(|listen| !listen.optional));
    }

    #[test]
    fn stars_are_every_address_and_a_dash_makes_one_optional() {
        let all = BindAddresses::parse("* -::*", &Kind::Addresses).expect("valid").resolve(7).expect("addresses");
        let written: Vec<String> = all.iter().map(|listen| format!("{} {}", listen.address, listen.optional)).collect();
        assert_eq!(written, ["0.0.0.0:7 false", "[::]:7 true"]);
    }
}
