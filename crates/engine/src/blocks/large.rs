//! A large entry on its way into the file: its key and value go into chunks while they come, its record is written last.
//! A value that is compressed is gathered into parts first.

use super::checkpoint::Checkpoint;
use super::format::record::{
    CHUNK_REF_BYTES, ChunkRef, ChunkedValue, LISTED_MAX, ListedBody, PART_BYTES_MAX, Record, encode_chunked,
    parts_bytes_max,
};
use super::format::{BlockKind, stream_bytes};
use super::index::Change;
use super::space::Run;
use super::writer::Writer;
use crate::error::Result;
use crate::keyspace::entry::Value;

/// Bytes that are being cut into chunks.
struct Chunks {
    done: Vec<ChunkRef>,
    run: Option<Run>,
    stream: Vec<u8>,
    /// Most bytes still to come.
    remaining: u64,
}

impl Chunks {
    fn new(bytes: u64) -> Chunks {
        Chunks { done: Vec::new(), run: None, stream: Vec::new(), remaining: bytes }
    }

    fn write(&mut self, mut bytes: &[u8], writer: &mut Writer<'_>) -> Result<()> {
        while !bytes.is_empty() {
            let run = match self.run {
                Some(run) => run,
                None => *self.run.insert(writer.allocate_chunk(self.remaining)?),
            };
            let room = run.blocks as usize * stream_bytes(writer.device.block_bytes) - self.stream.len();
            let (part, rest) = bytes.split_at(room.min(bytes.len()));
            self.stream.extend_from_slice(part);
            assert!(part.len() as u64 <= self.remaining, "no more comes than was announced");
            self.remaining -= part.len() as u64;
            bytes = rest;
            if part.len() == room {
                self.close(writer)?;
            }
        }
        Ok(())
    }

    fn close(&mut self, writer: &mut Writer<'_>) -> Result<()> {
        if let Some(run) = self.run.take() {
            let used = writer.write_extent(BlockKind::Chunk, run, &self.stream, &[], 1)?;
            self.done.push(ChunkRef { block: used.block, blocks: used.blocks as u8 });
            self.stream.clear();
        }
        Ok(())
    }

    fn give_back(&mut self, writer: &mut Writer<'_>) {
        if let Some(run) = self.run.take() {
            writer.space.release(run);
        }
        // An error says that they are gone already.
        let _ = writer.free_chunks(std::mem::take(&mut self.done).into_iter().map(|chunk| chunk.block));
    }
}

/// The value of a large entry on its way into the file.
pub struct LargePut<'c, 'a> {
    checkpoint: &'c mut Checkpoint<'a>,
    head: Record<'static>,
    key_bytes: u64,
    value_bytes: u64,
    /// Bytes of the value still to come.
    remaining: u64,
    /// Bytes of the value that have been written as parts, with their heads.
    parts_bytes: u64,
    /// A part of a value that is compressed, until it is complete.
    part: Vec<u8>,
    change: Change,
    body: Chunks,
    lists: Chunks,
    is_finished: bool,
}

impl<'c, 'a> LargePut<'c, 'a> {
    pub(super) fn begin(
        checkpoint: &'c mut Checkpoint<'a>,
        record: &Record<'_>,
        value_bytes: u64,
        change: Change,
    ) -> Result<LargePut<'c, 'a>> {
        let Record { database, version, created, expire_at, key, .. } = *record;
        let head = Record { database, key: &[], value: Value::Bytes(&[]), version, created, expire_at };
        let key_bytes = key.len() as u64;
        let stored_max = match checkpoint.compressor.part_method() {
            Some(_) => parts_bytes_max(value_bytes),
            None => value_bytes,
        };
        let mut put = LargePut {
            checkpoint,
            head,
            key_bytes,
            value_bytes,
            remaining: value_bytes,
            parts_bytes: 0,
            part: Vec::new(),
            change,
            body: Chunks::new(key_bytes + stored_max),
            lists: Chunks::new(0),
            is_finished: false,
        };
        put.body.write(key, &mut put.checkpoint.writer)?;
        Ok(put)
    }

    /// Appends a part of the value.
    ///
    /// # Errors
    /// `BlockFileFull`, `Io`.
    ///
    /// # Panics
    /// When the parts are longer than was announced.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        assert!(bytes.len() as u64 <= self.remaining, "the value is no longer than was announced");
        self.remaining -= bytes.len() as u64;
        if self.checkpoint.compressor.part_method().is_none() {
            return self.body.write(bytes, &mut self.checkpoint.writer);
        }
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(PART_BYTES_MAX - self.part.len()));
            self.part.extend_from_slice(now);
            bytes = later;
            if self.part.len() == PART_BYTES_MAX {
                self.close_part(bytes.len() as u64)?;
            }
        }
        Ok(())
    }

    /// Writes the part that has been gathered; `behind` more bytes are at hand.
    fn close_part(&mut self, behind: u64) -> Result<()> {
        let Checkpoint { compressor, writer, .. } = &mut *self.checkpoint;
        let part = compressor.part(&self.part);
        let (head, later) = (part.head(), parts_bytes_max(self.remaining + behind));
        let bytes = (head.len() + part.bytes.len()) as u64;
        // Less is to come than was thought: the next run need not be as long.
        self.body.remaining = bytes + later;
        self.parts_bytes += bytes;
        self.body.write(&head, writer)?;
        self.body.write(part.bytes, writer)?;
        self.part.clear();
        Ok(())
    }

    /// Stores the entry. Dropped without it, the entry is not stored and its blocks are free again.
    ///
    /// # Errors
    /// `BlockFileFull`, `Io`.
    ///
    /// # Panics
    /// When the parts were shorter than was announced.
    pub fn finish(mut self) -> Result<()> {
        assert!(self.remaining == 0, "the value is as long as was announced");
        if !self.part.is_empty() {
            self.close_part(0)?;
        }
        let value = match self.checkpoint.compressor.part_method() {
            Some(method) => {
                ChunkedValue { stored_bytes: self.parts_bytes, compression: Some((method, self.value_bytes)) }
            }
            None => ChunkedValue { stored_bytes: self.value_bytes, compression: None },
        };
        let writer = &mut self.checkpoint.writer;
        self.body.close(writer)?;
        let mut list = Vec::new();
        if self.body.done.len() > LISTED_MAX {
            list.reserve(self.body.done.len() * CHUNK_REF_BYTES);
            self.body.done.iter().for_each(|chunk| chunk.encode(&mut list));
            self.lists = Chunks::new(list.len() as u64);
            self.lists.write(&list, writer)?;
            self.lists.close(writer)?;
        }
        let (depth, chunks) = if list.is_empty() { (1, &self.body.done) } else { (2, &self.lists.done) };
        if chunks.len() > LISTED_MAX {
            return Err(writer.full());
        }
        let key_bytes = self.key_bytes;
        let listed = ListedBody { key_bytes, value, depth, list_bytes: list.len() as u64, chunks };
        let mut record = Vec::new();
        encode_chunked(&self.head, &listed, &mut record);
        self.checkpoint.put_encoded(self.change, &record)?;
        self.is_finished = true;
        Ok(())
    }
}

impl Drop for LargePut<'_, '_> {
    fn drop(&mut self) {
        if !self.is_finished {
            self.body.give_back(&mut self.checkpoint.writer);
            self.lists.give_back(&mut self.checkpoint.writer);
        }
    }
}
