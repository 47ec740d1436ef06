//! Bowline, the embedded library: a key-value store that keeps every acknowledged write.
//!
//! No sockets and no async runtime live here. Files, time and randomness come in as arguments
//! ([`disk::Disk`], [`clock::Clock`], a seed), so that a simulator can take their place.

pub mod clock;
pub mod disk;
pub mod effect;
pub mod error;
pub mod histogram;
pub mod keyspace;
pub mod limits;
pub mod log;
pub mod time;
pub mod version;
