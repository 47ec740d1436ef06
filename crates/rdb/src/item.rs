//! What an RDB holds, one thing after the other.

use std::fmt;

/// One thing of an RDB, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Item {
    /// A field about the file: `redis-ver`, `ctime`, `aof-base`, ...
    Auxiliary {
        /// Its name.
        name: Vec<u8>,
        /// Its value.
        value: Vec<u8>,
    },
    /// The following entries belong to this database.
    Database(u64),
    /// A hint about the database that begins: how many keys, how many of them with an expiry.
    Sizes {
        /// Keys in all.
        keys: u64,
        /// Keys that expire.
        expiring: u64,
    },
    /// A string with its key.
    Entry(Entry),
    /// A key whose value is no string, or too long a one. The value was walked over.
    Unsupported {
        /// The database it belongs to.
        database: u64,
        /// Its key.
        key: Vec<u8>,
        /// What its value is.
        kind: ValueKind,
        /// When it expires, in milliseconds since 1970.
        expires_at_ms: Option<i64>,
    },
    /// The source of a function library (FUNCTION LOAD).
    Function(Vec<u8>),
    /// Data that a module keeps beside the keys; it was walked over.
    ModuleData {
        /// Name of the module's type.
        module: String,
    },
}

/// A string with its key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entry {
    /// The number of its database.
    pub database: u64,
    /// The key, any bytes.
    pub key: Vec<u8>,
    /// The value, any bytes.
    pub value: Vec<u8>,
    /// When it expires, in milliseconds since 1970. It may be past: Redis saves entries that it has not removed yet.
    pub expires_at_ms: Option<i64>,
}

/// What a value is that this crate does not decode.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ValueKind {
    /// A list.
    List,
    /// A set.
    Set,
    /// A sorted set.
    SortedSet,
    /// A hash, with or without fields that expire.
    Hash,
    /// A stream.
    Stream,
    /// A value of a module.
    Module(String),
    /// A string longer than the limit.
    LongString {
        /// Its length.
        bytes: u64,
    },
}

impl fmt::Display for ValueKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ValueKind::List => formatter.write_str("a list"),
            ValueKind::Set => formatter.write_str("a set"),
            ValueKind::SortedSet => formatter.write_str("a sorted set"),
            ValueKind::Hash => formatter.write_str("a hash"),
            ValueKind::Stream => formatter.write_str("a stream"),
            ValueKind::Module(name) => write!(formatter, "a value of module type {name}"),
            ValueKind::LongString { bytes } => write!(formatter, "a string of {bytes} bytes"),
        }
    }
}
