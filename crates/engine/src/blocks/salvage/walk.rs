//! The walk over the records of a damaged block file: block after block in the order of the file.
//!
//! A record that starts in a block is read as far as its blocks are right; it is lost when one of them is not. What the
//! index names and the walk did not find is lost, by its key where that can still be read.

use std::collections::{BTreeMap, BTreeSet};

use super::{BlockRemains, DAMAGE_MAX, Named, READ_BYTES, Roots};
use crate::blocks::Record;
use crate::blocks::compression::Decompressor;
use crate::blocks::format::leaf::size_code;
use crate::blocks::format::record::{Body, ChunkList, ChunkRef, ReadRecord, StoredValue, chunks_of};
use crate::blocks::format::table::TableEntry;
use crate::blocks::format::{
    BLOCK_HEADER_BYTES, BlockHeader, BlockKind, NO_RECORD, SUPERBLOCKS, extent_blocks_max, stream_bytes,
};
use crate::error::{Damage, Result};
use crate::keyspace::DatabaseId;
use crate::keyspace::entry::Value;
use crate::keyspace::hash::KeyHasher;

/// A record that can be read.
pub(crate) struct SalvagedRecord<'a> {
    pub(crate) record: Record<'a>,
    /// The index names it.
    pub(crate) is_named: bool,
    /// Every block of it has the checksum that the block table has.
    pub(crate) is_checked: bool,
}

/// An entry that the index names and whose record cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostEntry {
    /// Its database.
    pub database: DatabaseId,
    /// The hash of its key.
    pub hash: u64,
    /// Its key, where it can still be read.
    pub key: Option<Vec<u8>>,
}

/// What the walk did not find.
#[derive(Default)]
pub(crate) struct Losses {
    pub(crate) entries: Vec<LostEntry>,
    /// Damaged blocks of data, the first thousand.
    pub(crate) damage: Vec<Damage>,
}

/// What is known of a block.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// It has the checksum that the table has.
    Checked,
    /// The table's page is lost; its header is right.
    Unchecked,
    /// It is not what was written.
    Wrong,
}

/// Blocks that are held in memory.
#[derive(Default)]
struct Window {
    first: u32,
    bytes: Vec<u8>,
}

/// A walk under way.
struct Walk<'a> {
    remains: &'a BlockRemains,
    roots: &'a Roots,
    hasher: Option<&'a KeyHasher>,
    visit: &'a mut dyn FnMut(SalvagedRecord<'_>),
    window: Window,
    stream: Vec<u8>,
    decompressor: Decompressor,
    /// Which of the named entries were found.
    found: Vec<bool>,
    /// Keys of named entries whose values are lost.
    lost_keys: BTreeMap<usize, Vec<u8>>,
    wrong: BTreeSet<u32>,
}

impl BlockRemains {
    /// Passes every record to `visit` that is live or may be: those that the index names, and those that a lost part of
    /// the index may have named. `hasher` is that of the store; without it (both superblocks are lost) nothing counts as
    /// named.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn read(
        &self,
        roots: &Roots,
        hasher: Option<&KeyHasher>,
        visit: &mut dyn FnMut(SalvagedRecord<'_>),
    ) -> Result<Losses> {
        let mut walk = Walk {
            remains: self,
            roots,
            hasher,
            visit,
            window: Window::default(),
            stream: Vec::new(),
            decompressor: Decompressor::default(),
            found: vec![false; roots.named.len()],
            lost_keys: BTreeMap::new(),
            wrong: BTreeSet::new(),
        };
        for block in SUPERBLOCKS..self.blocks {
            let kind = roots.entry(block).map(TableEntry::kind);
            if kind.is_none_or(|kind| kind == Some(BlockKind::Data)) {
                walk.block(block, kind.is_some())?;
            }
        }
        Ok(walk.losses())
    }
}

impl Roots {
    fn entry(&self, block: u32) -> Option<TableEntry> {
        self.table.get(block as usize).copied().flatten()
    }

    /// Places of the named entries whose records start in `block`.
    fn of_block(&self, block: u32) -> std::ops::Range<usize> {
        let first = self.named.partition_point(|named| named.entry.block < block);
        first..self.named.partition_point(|named| named.entry.block <= block)
    }

    /// Whether a lost part of the index may have named this entry.
    fn may_name(&self, database: DatabaseId, hash: u64) -> bool {
        let holds = |range: &super::LostRange| {
            range.database == database && (range.first_hash..=range.last_hash).contains(&hash)
        };
        self.index_is_partial || self.lost_ranges.iter().any(holds)
    }
}

impl Walk<'_> {
    fn losses(self) -> Losses {
        const WHAT: &str = "a block of data is not what was written";
        let Walk { remains, roots, hasher, found, mut lost_keys, wrong, .. } = self;
        let mut losses = Losses::default();
        losses.damage.extend(wrong.iter().take(DAMAGE_MAX).map(|block| remains.damage(*block, WHAT)));
        if hasher.is_some() {
            let lost = roots.named.iter().zip(found).enumerate().filter(|(_, (_, found))| !found);
            losses.entries.extend(lost.map(|(place, (named, _))| LostEntry {
                database: DatabaseId(named.database),
                hash: named.entry.hash,
                key: lost_keys.remove(&place),
            }));
        }
        losses
    }

    /// The bytes of a block, from memory where it is there.
    fn read(&mut self, block: u32) -> Result<Vec<u8>> {
        let size = self.remains.device.block_bytes;
        let at = |window: &Window| Some(block.checked_sub(window.first)? as usize * size);
        let held = at(&self.window).and_then(|at| self.window.bytes.get(at..at + size)).map(<[u8]>::to_vec);
        if let Some(bytes) = held {
            return Ok(bytes);
        }
        let ahead = (READ_BYTES / size) as u32;
        self.window.first = block;
        let count = ahead.min(self.remains.blocks.saturating_sub(block));
        self.remains.device.read_into(block, count, &mut self.window.bytes)?;
        Ok(self.window.bytes.get(..size).unwrap_or_default().to_vec())
    }

    /// Reads a block that should be of `kind`.
    fn trusted(&mut self, block: u32, kind: BlockKind) -> Result<(Vec<u8>, Option<BlockHeader>, Trust)> {
        let bytes = self.read(block)?;
        let header = BlockHeader::expect(&bytes, kind, block);
        let trust = match (header, self.roots.entry(block)) {
            (None, _) => Trust::Wrong,
            (Some(_), None) => Trust::Unchecked,
            (Some(_), Some(entry)) if entry.kind() == Some(kind) && entry.crc == crc32c::crc32c(&bytes) => {
                Trust::Checked
            }
            (Some(_), Some(_)) => Trust::Wrong,
        };
        Ok((bytes, header, trust))
    }

    /// Walks over the records that start in a block.
    fn block(&mut self, block: u32, is_in_table: bool) -> Result<()> {
        let (bytes, header, trust) = self.trusted(block, BlockKind::Data)?;
        let Some(header) = header.filter(|_| trust != Trust::Wrong) else {
            if is_in_table {
                self.wrong.insert(block);
            }
            return Ok(());
        };
        let part = stream_bytes(self.remains.device.block_bytes);
        let start = usize::from(header.detail).checked_sub(BLOCK_HEADER_BYTES);
        let Some(mut at) = start.filter(|start| header.detail != NO_RECORD && *start < part) else {
            return Ok(());
        };
        let mut stream = std::mem::take(&mut self.stream);
        stream.clear();
        stream.extend_from_slice(bytes.get(BLOCK_HEADER_BYTES..).unwrap_or_default());
        let mut next = (block + 1, trust == Trust::Checked);
        while at < part {
            let rest = stream.get(at..).unwrap_or_default();
            if let Some(record) = ReadRecord::decode(rest) {
                at += record.bytes;
                self.record((block, header.sequence), &record, next.1)?;
                continue;
            }
            let is_padding = rest.first().is_none_or(|flags| *flags == 0);
            if is_padding || !self.append(block, &header, &mut next, &mut stream)? {
                self.note_torn(block, stream.get(at..).unwrap_or_default());
                break;
            }
        }
        self.stream = stream;
        Ok(())
    }

    /// Appends the next block of the extent that `first` belongs to; false when there is none that is right.
    fn append(
        &mut self,
        first: u32,
        header: &BlockHeader,
        next: &mut (u32, bool),
        stream: &mut Vec<u8>,
    ) -> Result<bool> {
        let block = next.0;
        let most = extent_blocks_max(self.remains.device.block_bytes) as u32;
        let is_of_extent = match (self.roots.entry(first), self.roots.entry(block)) {
            (Some(entry), Some(other)) => {
                let steps = block - first;
                other.kind() == Some(BlockKind::Data)
                    && other.place() == entry.place() + steps
                    && other.extent_blocks() == entry.extent_blocks()
            }
            _ => block - first < most,
        };
        if !is_of_extent || block >= self.remains.blocks {
            return Ok(false);
        }
        let (bytes, found, trust) = self.trusted(block, BlockKind::Data)?;
        if trust == Trust::Wrong || found.is_none_or(|found| found.sequence != header.sequence) {
            return Ok(false);
        }
        stream.extend_from_slice(bytes.get(BLOCK_HEADER_BYTES..).unwrap_or_default());
        *next = (block + 1, next.1 && trust == Trust::Checked);
        Ok(true)
    }

    /// A record was read; it starts in `block`, which the checkpoint `sequence` wrote.
    fn record(&mut self, (block, sequence): (u32, u64), record: &ReadRecord<'_>, is_checked: bool) -> Result<()> {
        match record.body {
            Body::Inline { key, value } => {
                let Some(named) = self.is_wanted(block, record, key) else { return Ok(()) };
                let mut decompressor = std::mem::take(&mut self.decompressor);
                let plain = match value {
                    StoredValue::Plain(value) => Some(value),
                    StoredValue::Compressed(value) => {
                        decompressor.value(&value, self.roots.dictionary.as_ref()).map(Value::Bytes)
                    }
                };
                self.pass_on_or_lose(named, record, key, plain, is_checked);
                self.decompressor = decompressor;
            }
            Body::Chunked { key_bytes, value, list } => {
                let bytes = key_bytes.saturating_add(value.stored_bytes);
                let (body, is_whole, chunks_checked) = self.body(&list, bytes, sequence)?;
                let Some(key) = usize::try_from(key_bytes).ok().and_then(|bytes| body.get(..bytes)) else {
                    return Ok(());
                };
                let Some(named) = self.is_wanted(block, record, key) else {
                    return Ok(());
                };
                let stored = body.get(key.len()..).filter(|_| is_whole);
                let mut decompressor = std::mem::take(&mut self.decompressor);
                let plain = match (stored, value.compression) {
                    (Some(stored), Some((method, plain_bytes))) => decompressor.parts(method, plain_bytes, stored),
                    (stored, _) => stored,
                };
                let is_checked = is_checked && chunks_checked;
                self.pass_on_or_lose(named, record, key, plain.map(Value::compact), is_checked);
                self.decompressor = decompressor;
            }
        }
        Ok(())
    }

    /// Passes a record on whose value could be read; notes the key of one whose value is lost.
    fn pass_on_or_lose(
        &mut self,
        named: Option<usize>,
        record: &ReadRecord<'_>,
        key: &[u8],
        value: Option<Value<'_>>,
        is_checked: bool,
    ) {
        match (value, named) {
            (Some(value), _) => {
                let record = record.with(key, value);
                self.pass_on(named, SalvagedRecord { record, is_named: false, is_checked });
            }
            (None, Some(place)) => {
                self.lost_keys.insert(place, key.to_vec());
            }
            (None, None) => {}
        }
    }

    fn pass_on(&mut self, named: Option<usize>, record: SalvagedRecord<'_>) {
        if let Some(found) = named.and_then(|place| self.found.get_mut(place)) {
            *found = true;
        }
        (self.visit)(SalvagedRecord { is_named: named.is_some(), ..record });
    }

    /// Whether a record is live (its place among the named entries) or may be (none); `None` when it is dead.
    fn is_wanted(&self, block: u32, record: &ReadRecord<'_>, key: &[u8]) -> Option<Option<usize>> {
        let Some(hasher) = self.hasher else {
            let code = size_code(record.bytes, record.is_chunked());
            let mut of_block = self.roots.of_block(block);
            let is_named =
                of_block.any(|place| self.roots.named.get(place).is_some_and(|it| it.entry.size_code == code));
            return (is_named || self.roots.index_is_partial || self.roots.named.is_empty()).then_some(None);
        };
        let hash = hasher.hash(key);
        match self.named(block, record.database, hash) {
            Some(place) => Some(Some(place)),
            None => self.roots.may_name(record.database, hash).then_some(None),
        }
    }

    fn named(&self, block: u32, database: DatabaseId, hash: u64) -> Option<usize> {
        let is_it = |named: &Named| named.entry.hash == hash && named.database == database.0;
        self.roots.of_block(block).find(|place| self.roots.named.get(*place).is_some_and(is_it))
    }

    /// A record's end is not there; its key may be.
    fn note_torn(&mut self, block: u32, rest: &[u8]) {
        if let (Some(hasher), Some((database, key))) = (self.hasher, ReadRecord::key_of_torn(rest))
            && let Some(place) = self.named(block, database, hasher.hash(key))
        {
            self.lost_keys.insert(place, key.to_vec());
        }
    }

    /// The body of a record in chunks as far as it can be read, whether it is whole, and whether all of it was checked.
    /// Chunks that a later checkpoint than `newest` wrote are those of another record by now.
    fn body(&mut self, list: &ChunkList<'_>, bytes: u64, newest: u64) -> Result<(Vec<u8>, bool, bool)> {
        let mut chunks: Vec<ChunkRef> = list.chunks().collect();
        let mut checked = true;
        if list.depth == 2 {
            let (listed, _, lists_checked) = self.chunks(&chunks, list.list_bytes, newest)?;
            checked = lists_checked;
            chunks = chunks_of(&listed).collect();
        }
        let (body, is_whole, chunks_checked) = self.chunks(&chunks, bytes, newest)?;
        Ok((body, is_whole, checked && chunks_checked))
    }

    fn chunks(&mut self, chunks: &[ChunkRef], bytes: u64, newest: u64) -> Result<(Vec<u8>, bool, bool)> {
        let (mut body, mut checked) = (Vec::new(), true);
        for chunk in chunks {
            for place in 0..u32::from(chunk.blocks) {
                if body.len() as u64 >= bytes {
                    break;
                }
                let Some(block) = chunk.block.checked_add(place).filter(|block| *block < self.remains.blocks) else {
                    return Ok((body, false, checked));
                };
                let (raw, header, trust) = self.trusted(block, BlockKind::Chunk)?;
                let is_of_another = header.is_some_and(|header| header.sequence > newest);
                if trust == Trust::Wrong || is_of_another {
                    if !is_of_another {
                        self.wrong.insert(block);
                    }
                    return Ok((body, false, checked));
                }
                checked &= trust == Trust::Checked;
                body.extend_from_slice(raw.get(BLOCK_HEADER_BYTES..).unwrap_or_default());
            }
        }
        let is_whole = body.len() as u64 >= bytes;
        body.truncate(usize::try_from(bytes).unwrap_or(usize::MAX));
        Ok((body, is_whole, checked))
    }
}
