//! A checkpoint being written: puts and removals are gathered range by range and merged into the index.
//!
//! Not here: where blocks go (`writer`), the last steps (`publish`), what is compacted (`compaction`).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::compaction::Compaction;
use super::compression::{Compression, Compressor};
use super::format::leaf::size_code;
use super::format::manifest::LeafRef;
use super::format::record::{INLINE_BYTES_MAX, Record, encode_compressed, encode_inline, inline_bytes};
use super::index::{Change, ChangeKind, LeafStore, Merge, MergeOptions};
use super::large::LargePut;
use super::sort;
use super::writer::Writer;
use super::{BlockFile, KeyHashes};
use crate::error::Result;
use crate::keyspace::DatabaseId;
use crate::version::Version;

/// How a checkpoint spends input and output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointOptions {
    /// `sync_data` is called whenever this many bytes have been written, so that the log's syncs are not held up by
    /// one large write-back.
    pub sync_bytes: u64,
    /// Most bytes of live records that compaction moves; up to four times as many are held in memory.
    pub compact_bytes: u64,
    /// The sum of [`put_cost`](super::put_cost) of what will be put, where it is known. In a file of a fixed size
    /// compaction uses what this leaves of the room; if it is not known, only what is always kept for it.
    pub put_bytes: Option<u64>,
    /// Whether [`Published::moved`] is wanted.
    pub note_moves: bool,
    /// How the values that are put are compressed. What compaction moves stays as it is.
    pub compression: Compression,
}

impl Default for CheckpointOptions {
    fn default() -> CheckpointOptions {
        CheckpointOptions {
            sync_bytes: 8 * 1024 * 1024,
            compact_bytes: 4 * 1024 * 1024,
            put_bytes: None,
            note_moves: false,
            compression: Compression::None,
        }
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

/// A record that compaction moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Its database.
    pub database: DatabaseId,
    /// The hash of its key.
    pub hash: u64,
    /// The block that it started in.
    pub from: u32,
    /// The block that its copy starts in.
    pub to: u32,
}

impl Moved {
    fn of(change: &Change) -> Option<Moved> {
        let ChangeKind::Move { from } = change.kind else { return None };
        Some(Moved { database: DatabaseId(change.database), hash: change.hash, from, to: change.block })
    }
}

/// What a published checkpoint did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Its sequence.
    pub sequence: u64,
    /// Entries in the index now.
    pub entries: u64,
    /// Bytes written, superblock included.
    pub written_bytes: u64,
    /// Records that compaction moved.
    pub compacted_records: u64,
    /// Extents that compaction wanted to move and could not read: a check says what is wrong with them.
    pub unreadable_extents: u64,
    /// Blocks of the file now.
    pub file_blocks: u32,
    /// The records that compaction moved, by ascending hash, if [`CheckpointOptions::note_moves`] asked for them.
    pub moved: Vec<Moved>,
}

/// A checkpoint being written. The order of calls:
///
/// 1. [`start_empty`](Checkpoint::start_empty), [`drop_database`](Checkpoint::drop_database), for FLUSHALL and FLUSHDB;
/// 2. for each range of hashes, ascending: any number of puts and removals in any order, then
///    [`finish_range`](Checkpoint::finish_range), which the last range may leave out;
/// 3. [`publish`](Checkpoint::publish), or drop it.
///
/// Each key is put at most once in a checkpoint. A key may be removed and put: the removal means the entry of the
/// checkpoint before, whatever order the calls come in. After an error the checkpoint can only be dropped.
pub struct Checkpoint<'a> {
    pub(super) file: &'a mut BlockFile,
    pub(super) writer: Writer<'a>,
    /// The leaves of the checkpoint before.
    pub(super) directories: BTreeMap<u32, Arc<Vec<LeafRef>>>,
    pub(super) merges: BTreeMap<u32, Merge>,
    pub(super) compaction: Compaction,
    pub(super) is_published: bool,
    pub(super) compressor: Compressor,
    compression: Compression,
    /// What was put and removed since the last range ended.
    changes: Vec<Change>,
    options: MergeOptions,
    /// The last hash of the range before.
    last: Option<u64>,
    scratch: Vec<u8>,
    note_moves: bool,
    pub(super) moved: Vec<Moved>,
}

impl<'a> Checkpoint<'a> {
    pub(super) fn new(
        file: &'a mut BlockFile,
        hashes: &'a dyn KeyHashes,
        options: &CheckpointOptions,
    ) -> Checkpoint<'a> {
        let (device, base) = (Arc::clone(&file.device), Arc::clone(&file.published));
        let merge = MergeOptions {
            block_bytes: device.block_bytes,
            tight: file.is_tight(),
            verify: file.verify,
            move_from: file.move_from(),
        };
        let budget = file.compact_bytes(options);
        let compaction = Compaction::choose(&base, budget, merge.tight, merge.move_from);
        Checkpoint {
            directories: base.directories.clone(),
            merges: BTreeMap::new(),
            compaction,
            is_published: false,
            compressor: Compressor::new(options.compression, base.dictionary.clone(), file.may_train()),
            compression: options.compression,
            changes: Vec::new(),
            options: merge,
            last: None,
            scratch: Vec::new(),
            note_moves: options.note_moves,
            moved: Vec::new(),
            writer: Writer::new(device, base, file.space.clone(), hashes, options.sync_bytes),
            file,
        }
    }

    /// Has `pause` called after every short piece of work, some ten microseconds each: to let others work.
    pub fn pause_with(&mut self, pause: &'a dyn Fn()) {
        self.writer.pause = pause;
    }

    /// Forgets every entry of the checkpoint before (FLUSHALL).
    ///
    /// # Panics
    /// When a range has been finished already.
    pub fn start_empty(&mut self) {
        assert!(self.last.is_none() && self.changes.is_empty(), "a checkpoint starts empty or not at all");
        self.writer.start_empty();
        self.directories.clear();
        self.compaction = Compaction::default();
        // No record refers to the dictionary any more; what comes may be of another kind.
        self.compressor = Compressor::new(self.compression, None, self.file.may_train());
    }

    /// Forgets every entry that the checkpoint before has of a database (FLUSHDB); one that is not there is fine.
    ///
    /// # Errors
    /// `Io` and `Corrupt`: its leaves are read to free what they name.
    ///
    /// # Panics
    /// When a range has been finished already.
    pub fn drop_database(&mut self, database: DatabaseId) -> Result<()> {
        assert!(self.last.is_none(), "databases are dropped first");
        for leaf in self.directories.remove(&database.0).unwrap_or_default().iter() {
            let mut entries = Vec::new();
            self.writer.device.read_leaf(database.0, leaf, &mut entries)?;
            for entry in &entries {
                self.writer.release(entry)?;
            }
            self.writer.free_leaf(leaf);
        }
        Ok(())
    }

    /// Stores an entry. `hash` and `fingerprint` are [`KeyHashes`] of the key. `stored`: the checkpoint before holds
    /// this key, so this replaces it. A wrong `true` is harmless when the checkpoint before this one failed (then it is
    /// verified) or no other key has the same hash; else it must be right. A wrong `false` is found out.
    ///
    /// # Errors
    /// `BlockFileFull`, `Io`.
    pub fn put(&mut self, record: &Record<'_>, hash: u64, stored: bool, fingerprint: u64) -> Result<()> {
        // By its plain length, so that what a record promises stays little.
        if inline_bytes(record) <= INLINE_BYTES_MAX {
            self.scratch.clear();
            match self.compressor.value(record.value) {
                Some(value) => encode_compressed(record, &value, &mut self.scratch),
                None => encode_inline(record, &mut self.scratch),
            }
            let size_code = size_code(self.scratch.len(), false);
            if let Some(block) = self.writer.append(hash, size_code, &self.scratch)? {
                let kind = ChangeKind::Put { stored };
                let database = record.database.0;
                self.changes.push(Change { database, hash, fingerprint, kind, block, size_code });
                return Ok(());
            }
        }
        let mut large = self.put_large(record, record.value.len() as u64, hash, stored, fingerprint)?;
        record.value.try_each_piece(|piece| large.write(piece))?;
        large.finish()
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
    ) -> Result<LargePut<'_, 'a>> {
        let change = Change {
            database: record.database.0,
            hash,
            fingerprint,
            kind: ChangeKind::Put { stored },
            block: 0,
            size_code: 0,
        };
        LargePut::begin(self, record, value_bytes, change)
    }

    /// Stores the record of a large entry, whose body has been written.
    pub(super) fn put_encoded(&mut self, mut change: Change, record: &[u8]) -> Result<()> {
        change.size_code = size_code(record.len(), true);
        let block = self.writer.append(change.hash, change.size_code, record)?;
        change.block = block.ok_or_else(|| self.writer.full())?;
        self.changes.push(change);
        Ok(())
    }

    /// Removes the entry that the checkpoint before has of this key. One that is not there is fine.
    pub fn remove(&mut self, database: DatabaseId, hash: u64, fingerprint: u64) {
        let (database, kind) = (database.0, ChangeKind::Remove);
        self.changes.push(Change { database, hash, fingerprint, kind, block: 0, size_code: 0 });
    }

    /// Merges what was put and removed since the last call into the index. All of it had hashes up to and including
    /// `last` and above the `last` of the call before.
    ///
    /// # Errors
    /// `BlockFileFull`, `Io`, `Corrupt`.
    ///
    /// # Panics
    /// When a hash was out of the range.
    pub fn finish_range(&mut self, last: u64) -> Result<()> {
        let mut changes = std::mem::take(&mut self.changes);
        sort::by_hash(&mut changes, |change| change.hash, self.writer.pause);
        assert!(changes.last().is_none_or(|change| change.hash <= last), "hashes lie within their range");
        assert!(changes.first().is_none_or(|change| self.last.is_none_or(|end| change.hash > end)), "ranges ascend");
        sort_by_database(&mut changes);
        let moved = self.compaction.moves(last, &changes, &self.directories, &mut self.writer)?;
        if !moved.is_empty() {
            if self.note_moves {
                self.moved.extend(moved.iter().filter_map(Moved::of));
            }
            changes.extend(moved);
            sort::by_hash(&mut changes, |change| change.hash, self.writer.pause);
            sort_by_database(&mut changes);
        }
        self.last = Some(last);
        for group in changes.chunk_by(|a, b| a.database == b.database) {
            let Some(database) = group.first().map(|change| change.database) else {
                continue;
            };
            self.begin_merge(database);
            if let Some(merge) = self.merges.get_mut(&database) {
                merge.apply(group, &mut self.writer)?;
            }
        }
        changes.clear();
        self.changes = changes;
        Ok(())
    }

    pub(super) fn begin_merge(&mut self, database: u32) {
        self.merges.entry(database).or_insert_with(|| {
            let old = self.directories.get(&database).cloned().unwrap_or_default();
            Merge::new(database, old, self.options)
        });
    }

    /// The block from which on nothing should stay.
    pub(super) fn move_from(&self) -> u32 {
        self.options.move_from
    }

    /// Gives everything back; the same as dropping it.
    pub fn abort(self) {}
}

/// Brings changes that are in order of their hashes in order of their databases first.
fn sort_by_database(changes: &mut [Change]) {
    // Nearly always there is one database, and nothing to do.
    if !changes.is_sorted_by_key(|change| change.database) {
        changes.sort_by_key(|change| change.database);
    }
}

impl Drop for Checkpoint<'_> {
    fn drop(&mut self) {
        if let Some(is_disk_full) = self.writer.could_not_grow() {
            self.file.is_disk_full = is_disk_full;
        }
        if !self.is_published {
            // The caller believes of some keys that they are stored now.
            self.file.verify = true;
        }
    }
}
