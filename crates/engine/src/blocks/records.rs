//! Reading records and the bodies that lie in chunks, each block compared with the block table. The one place where
//! values are decompressed.

use super::compression::Decompressor;
use super::device::{Device, ReadBuffer};
use super::dictionary::Dictionary;
use super::format::extent;
use super::format::leaf::{code_bytes, size_code};
use super::format::record::{Body, ChunkList, ChunkRef, ReadRecord, Record, StoredValue, chunks_of};
use super::format::{BlockKind, stream_bytes};
use super::space::Run;
use super::table::BlockTable;
use crate::error::{Error, Result};
use crate::keyspace::entry::Value;

/// Records as a block table knows them.
#[derive(Clone, Copy)]
pub(crate) struct Records<'a> {
    pub(crate) device: &'a Device,
    pub(crate) table: &'a BlockTable,
    /// The file's.
    pub(crate) dictionary: Option<&'a Dictionary>,
}

/// What large and compressed values are read with; kept from one to the next.
#[derive(Default)]
pub(crate) struct BodyBuffer {
    raw: Vec<u8>,
    body: Vec<u8>,
    decompressor: Decompressor,
}

impl BodyBuffer {
    /// Bytes of memory that it keeps.
    pub(crate) fn bytes(&self) -> usize {
        self.raw.capacity() + self.body.capacity() + self.decompressor.bytes()
    }
}

const NO_VALUE: &str = "a compressed value is not what was written";

impl Records<'_> {
    /// Appends the stream of the blocks in `bytes`, the first of which is `block`; returns where in it the first record
    /// starts.
    pub(crate) fn stream(
        &self,
        kind: BlockKind,
        block: u32,
        bytes: &[u8],
        stream: &mut Vec<u8>,
    ) -> Result<Option<usize>> {
        let crc_of = |block| self.table.get(block).crc;
        extent::decode(bytes, self.device.block_bytes, kind, block, crc_of, stream)
            .map_err(|bad| self.device.corrupt(bad.block, bad.what))
    }

    /// Reads the record that starts in `block`, has this size code and a key that `is_wanted`, and passes it to `visit`.
    /// `None` when there is none.
    pub(crate) fn find<R>(
        &self,
        (block, code): (u32, u8),
        is_wanted: impl FnMut(&ReadRecord<'_>, &[u8]) -> bool,
        visit: impl FnOnce(&ReadRecord<'_>, &mut BodyBuffer) -> Result<R>,
    ) -> Result<Option<R>> {
        self.device.buffers.with(|buffer| self.find_with(buffer, (block, code), is_wanted, visit))
    }

    fn find_with<R>(
        &self,
        ReadBuffer { raw, stream, body: buffer }: &mut ReadBuffer,
        (block, code): (u32, u8),
        mut is_wanted: impl FnMut(&ReadRecord<'_>, &[u8]) -> bool,
        visit: impl FnOnce(&ReadRecord<'_>, &mut BodyBuffer) -> Result<R>,
    ) -> Result<Option<R>> {
        let part = stream_bytes(self.device.block_bytes);
        let run = self.table.extent_of(block).filter(|_| self.table.get(block).kind() == Some(BlockKind::Data));
        let run = run.ok_or_else(|| self.device.corrupt(block, "the index names a block that holds no records"))?;
        let blocks = 1 + code_bytes(code).div_ceil(part) as u32;
        self.device.read_into(block, blocks.min(run.block + run.blocks - block), raw)?;
        let Some(mut at) = self.stream(BlockKind::Data, block, raw, stream)? else {
            return Ok(None);
        };
        while at < part
            && let Some(record) = stream.get(at..).and_then(ReadRecord::decode)
        {
            at += record.bytes;
            if size_code(record.bytes, record.is_chunked()) != code {
                continue;
            }
            if self.with_key(&record, buffer, |key| is_wanted(&record, key))? == Some(true) {
                return visit(&record, buffer).map(Some);
            }
        }
        Ok(None)
    }

    /// Calls `visit` with the whole of a record that the index names; it starts in `block`.
    pub(crate) fn with_body<R>(
        &self,
        block: u32,
        record: &ReadRecord<'_>,
        buffer: &mut BodyBuffer,
        visit: impl FnOnce(Record<'_>) -> R,
    ) -> Result<R> {
        let no_value = || self.device.corrupt(block, NO_VALUE);
        match record.body {
            Body::Inline { key, value: StoredValue::Plain(value) } => Ok(visit(record.with(key, value))),
            Body::Inline { key, value: StoredValue::Compressed(value) } => {
                let plain = buffer.decompressor.value(&value, self.dictionary).ok_or_else(no_value)?;
                Ok(visit(record.with(key, Value::Bytes(plain))))
            }
            Body::Chunked { key_bytes, value, list } => {
                let is_whole = self.read_body(&list, key_bytes + value.stored_bytes, buffer)?;
                let split = usize::try_from(key_bytes).ok().and_then(|at| buffer.body.split_at_checked(at));
                let (key, stored) = split.filter(|_| is_whole).ok_or_else(|| self.no_chunks(&list))?;
                let plain = match value.compression {
                    Some((method, plain_bytes)) => buffer.decompressor.parts(method, plain_bytes, stored),
                    None => Some(stored),
                };
                Ok(visit(record.with(key, Value::compact(plain.ok_or_else(no_value)?))))
            }
        }
    }

    /// Calls `visit` with the key of a record. `None` when the key lies in chunks that are not the record's any more:
    /// then the index does not name it.
    pub(crate) fn with_key<R>(
        &self,
        record: &ReadRecord<'_>,
        buffer: &mut BodyBuffer,
        visit: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>> {
        match record.body {
            Body::Inline { key, .. } => Ok(Some(visit(key))),
            Body::Chunked { key_bytes, list, .. } => {
                let is_whole = self.read_body(&list, key_bytes, buffer)?;
                Ok(is_whole.then(|| visit(&buffer.body)))
            }
        }
    }

    /// All chunks of a record that the index names: those of its body, and those that list them.
    pub(crate) fn all_chunks(&self, list: &ChunkList<'_>) -> Result<(Vec<ChunkRef>, Vec<ChunkRef>)> {
        let listed: Vec<ChunkRef> = list.chunks().collect();
        let body = self.body_chunks(list)?.ok_or_else(|| self.no_chunks(list))?;
        Ok((body, if list.depth == 1 { Vec::new() } else { listed }))
    }

    fn body_chunks(&self, list: &ChunkList<'_>) -> Result<Option<Vec<ChunkRef>>> {
        if list.depth == 1 {
            return Ok(Some(list.chunks().collect()));
        }
        let mut buffer = BodyBuffer::default();
        let is_whole = self.read_chunks(list.chunks(), list.list_bytes, &mut buffer)?;
        Ok(is_whole.then(|| chunks_of(&buffer.body).collect()))
    }

    /// Reads the first `bytes` of a body; false when the chunks are not a large value's.
    fn read_body(&self, list: &ChunkList<'_>, bytes: u64, buffer: &mut BodyBuffer) -> Result<bool> {
        match self.body_chunks(list)? {
            Some(body) => self.read_chunks(body.into_iter(), bytes, buffer),
            None => Ok(false),
        }
    }

    /// Reads chunks until there are `bytes`; false when the block table does not know them as such. Memory grows with
    /// what was read, not with what was promised.
    fn read_chunks(&self, chunks: impl Iterator<Item = ChunkRef>, bytes: u64, buffer: &mut BodyBuffer) -> Result<bool> {
        buffer.body.clear();
        for chunk in chunks {
            if buffer.body.len() as u64 >= bytes {
                break;
            }
            let run = Run { block: chunk.block, blocks: u32::from(chunk.blocks) };
            let is_chunk = self.table.get(chunk.block).kind() == Some(BlockKind::Chunk);
            if !is_chunk || self.table.extent_of(chunk.block) != Some(run) {
                return Ok(false);
            }
            self.device.read_into(run.block, run.blocks, &mut buffer.raw)?;
            self.stream(BlockKind::Chunk, run.block, &buffer.raw, &mut buffer.body)?;
        }
        match usize::try_from(bytes).ok().filter(|bytes| *bytes <= buffer.body.len()) {
            Some(bytes) => buffer.body.truncate(bytes),
            None => return Ok(false),
        }
        Ok(true)
    }

    fn no_chunks(&self, list: &ChunkList<'_>) -> Error {
        let block = list.chunks().next().map_or(0, |chunk| chunk.block);
        self.device.corrupt(block, "a large value names blocks that are not its own")
    }
}
