//! A checkpoint being written.

use super::Record;
use crate::error::Result;
use crate::keyspace::DatabaseId;
use crate::version::Version;

/// How a checkpoint spends input and output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointOptions {
    /// `sync_data` is called whenever this many bytes have been written, so that the log's syncs are not held up by
    /// one large write-back.
    pub sync_bytes: u64,
    /// Most bytes of live records that compaction moves; they are held in memory.
    pub compact_bytes: u64,
}

impl Default for CheckpointOptions {
    fn default() -> CheckpointOptions {
        CheckpointOptions { sync_bytes: 8 * 1024 * 1024, compact_bytes: 4 * 1024 * 1024 }
    }
}

/// What the superblock says beside what the checkpoint knows itself.
#[derive(Clone, Copy, Debug)]
pub struct Commit<'a> {
    /// The version that the checkpoint is exact at.
    pub cut: Version,
    /// Where in the log replay begins.
    pub log_position: u64,
    /// The database map, any bytes.
    pub databases: &'a [u8],
}

/// What a published checkpoint did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Its sequence.
    pub sequence: u64,
    /// Entries in the index now.
    pub entries: u64,
    /// Bytes written, superblock included.
    pub written_bytes: u64,
    /// Records that compaction moved.
    pub compacted_records: u64,
    /// Blocks of the file now.
    pub file_blocks: u32,
}

/// A checkpoint being written. The order of calls:
///
/// 1. [`start_empty`](Checkpoint::start_empty), [`drop_database`](Checkpoint::drop_database), for FLUSHALL and FLUSHDB;
/// 2. for each range of hashes, ascending: any number of puts and removals in any order, then
///    [`finish_range`](Checkpoint::finish_range);
/// 3. [`publish`](Checkpoint::publish), or drop it.
///
/// Each key is put at most once in a checkpoint. A key may be removed and put: the removal means the entry of the
/// checkpoint before, whatever order the calls come in. After an error the checkpoint can only be dropped.
pub struct Checkpoint<'a> {
    _file: std::marker::PhantomData<&'a ()>,
}

impl Checkpoint<'_> {
    /// Forgets every entry of the checkpoint before (FLUSHALL). To be called first.
    pub fn start_empty(&mut self) {
        todo!()
    }

    /// Forgets a database (FLUSHDB), before anything is put into it or removed from it; one that is not there is fine.
    ///
    /// # Errors
    /// `Io` and `Corrupt`: its leaves are read to free what they name.
    pub fn drop_database(&mut self, database: DatabaseId) -> Result<()> {
        let _ = database;
        todo!()
    }

    /// Stores an entry. `hash` and `fingerprint` are [`KeyHashes`](super::KeyHashes) of the key. `stored`: the
    /// checkpoint before holds this key, so this replaces it. A wrong `true` is harmless when the checkpoint before
    /// this one failed (then it is verified); else it must be right.
    ///
    /// # Errors
    /// `BlockFileFull`, `Io`.
    pub fn put(&mut self, record: &Record<'_>, hash: u64, stored: bool, fingerprint: u64) -> Result<()> {
        let _ = (record, hash, stored, fingerprint);
        todo!()
    }

    /// Stores an entry whose value of `value_bytes` comes in parts; `record.value` is not looked at. The parts go to
    /// the writer that is returned, which must be finished.
    ///
    /// # Errors
    /// `BlockFileFull`, `Io`.
    pub fn put_large(
        &mut self,
        record: &Record<'_>,
        value_bytes: u64,
        hash: u64,
        stored: bool,
        fingerprint: u64,
    ) -> Result<LargePut<'_>> {
        let _ = (record, value_bytes, hash, stored, fingerprint);
        todo!()
    }

    /// Removes the entry that the checkpoint before has of this key. One that is not there is fine.
    pub fn remove(&mut self, database: DatabaseId, hash: u64, fingerprint: u64) {
        let _ = (database, hash, fingerprint);
        todo!()
    }

    /// Merges what was put and removed since the last call into the index. All of it had hashes up to and including
    /// `last` and above the `last` of the call before.
    ///
    /// # Errors
    /// `BlockFileFull`, `Io`, `Corrupt`.
    pub fn finish_range(&mut self, last: u64) -> Result<()> {
        let _ = last;
        todo!()
    }

    /// Writes the rest of the index, the block table and the manifest, syncs, writes the superblock, syncs. When it
    /// returns `Ok` the checkpoint is durable.
    ///
    /// # Errors
    /// `BlockFileFull`, `Io`, `Corrupt`: the checkpoint before stays. When writing the superblock itself failed, nobody
    /// knows which one counts: the file then refuses every later checkpoint with `CheckpointFailed` until it is
    /// reopened.
    pub fn publish(self, commit: &Commit<'_>) -> Result<Published> {
        let _ = commit;
        todo!()
    }

    /// Gives everything back; the same as dropping it.
    pub fn abort(self) {}
}

/// The value of a large entry on its way into the file.
pub struct LargePut<'a> {
    _checkpoint: std::marker::PhantomData<&'a ()>,
}

impl LargePut<'_> {
    /// Appends a part of the value.
    ///
    /// # Errors
    /// `BlockFileFull`, `Io`.
    pub fn write(&mut self, part: &[u8]) -> Result<()> {
        let _ = part;
        todo!()
    }

    /// Stores the entry. Dropped without it, the entry is not stored and its blocks are lost to this checkpoint only.
    ///
    /// # Errors
    /// `BlockFileFull`, `Io`.
    ///
    /// # Panics
    /// When the parts were not `value_bytes` long.
    pub fn finish(self) -> Result<()> {
        todo!()
    }
}
