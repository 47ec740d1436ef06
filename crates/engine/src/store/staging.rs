//! Entries copied out of a segment while it is held, to be written when it is not.
//!
//! One buffer for all bytes and one list of what they are, both used again for the next slice. Not here: which entries
//! (`keyspace::checkpoint`), where they go (`blocks`).

use crate::blocks::Record;
use crate::error::Result;
use crate::keyspace::DatabaseId;
use crate::keyspace::checkpoint::CutEntry;
use crate::keyspace::entry::{EntryRef, Value};
use crate::version::Version;

/// An entry of the cut, its key and value in the buffer.
struct Staged {
    database: DatabaseId,
    hash: u64,
    version: Version,
    created: u32,
    expire_at: Option<u64>,
    stored: bool,
    key_bytes: usize,
    value: StagedValue,
}

enum StagedValue {
    Bytes(usize),
    Integer(i64),
}

/// See the head of this file.
#[derive(Default)]
pub(super) struct Staging {
    bytes: Vec<u8>,
    entries: Vec<Staged>,
}

impl Staging {
    /// Copies an entry.
    pub(super) fn add(&mut self, cut: &CutEntry<'_>) {
        let (entry, key) = (cut.entry, cut.entry.key());
        self.bytes.extend_from_slice(key);
        let value = match entry.value() {
            Value::Bytes(value) => {
                self.bytes.extend_from_slice(value);
                StagedValue::Bytes(value.len())
            }
            Value::Integer(number) => StagedValue::Integer(number),
            Value::Chunks(_) => unreachable!("a value in chunks is shared, not copied"),
        };
        self.entries.push(Staged {
            database: cut.database,
            hash: cut.hash,
            version: entry.version(),
            created: entry.created(),
            expire_at: entry.expire_at(),
            stored: cut.stored,
            key_bytes: key.len(),
            value,
        });
    }

    /// Gives every copy to `each`, with its hash and whether the file has a record of the key; then it is empty.
    pub(super) fn drain(&mut self, mut each: impl FnMut(&Record<'_>, u64, bool) -> Result<()>) -> Result<()> {
        let mut rest = &self.bytes[..];
        for staged in self.entries.drain(..) {
            let (key, after) = rest.split_at(staged.key_bytes);
            let (value, after) = match staged.value {
                StagedValue::Bytes(bytes) => {
                    let (value, after) = after.split_at(bytes);
                    (Value::Bytes(value), after)
                }
                StagedValue::Integer(number) => (Value::Integer(number), after),
            };
            rest = after;
            let Staged { database, hash, version, created, expire_at, stored, .. } = staged;
            each(&Record { database, key, value, version, created, expire_at }, hash, stored)?;
        }
        self.bytes.clear();
        Ok(())
    }
}

/// The record of an entry.
pub(super) fn record_of(database: DatabaseId, entry: EntryRef<'_>) -> Record<'_> {
    Record {
        database,
        key: entry.key(),
        value: entry.value(),
        version: entry.version(),
        created: entry.created(),
        expire_at: entry.expire_at(),
    }
}
