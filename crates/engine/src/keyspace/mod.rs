//! The keyspace: what is in memory.
pub mod entry;
pub mod hash;
mod prefetch;
pub mod table;
