//! The file below the blocks: whole blocks in and out, and every block that is read compared with its reference.

use std::path::PathBuf;

use parking_lot::Mutex;

use super::format::leaf::{self, IndexEntry};
use super::format::manifest::{BlockRef, LeafRef};
use super::records::BodyBuffer;
use crate::disk::DiskFile;
use crate::error::{Error, Result};
use crate::patient_disk::read_around;

/// Most buffers that are kept, and the longest that is, bytes; each has some 100 KiB more once it has read zstd.
const BUFFERS_MAX: usize = 8;
const BUFFER_BYTES_MAX: usize = 256 * 1024;

/// An open block file as a row of blocks.
pub(crate) struct Device {
    pub(crate) file: Box<dyn DiskFile>,
    pub(crate) path: PathBuf,
    pub(crate) block_bytes: usize,
    pub(crate) buffers: ReadBuffers,
}

/// What a record was read with, kept for the next: making what decompresses takes a fifth of the time of a read.
#[derive(Default)]
pub(crate) struct ReadBuffers {
    kept: Mutex<Vec<ReadBuffer>>,
}

/// What a record is read with.
#[derive(Default)]
pub(crate) struct ReadBuffer {
    pub(crate) raw: Vec<u8>,
    pub(crate) stream: Vec<u8>,
    pub(crate) body: BodyBuffer,
}

impl ReadBuffers {
    /// Runs `read` with empty buffers.
    pub(crate) fn with<R>(&self, read: impl FnOnce(&mut ReadBuffer) -> R) -> R {
        let mut buffer = self.kept.lock().pop().unwrap_or_default();
        buffer.stream.clear();
        let result = read(&mut buffer);
        if buffer.body.bytes() <= BUFFER_BYTES_MAX {
            let mut kept = self.kept.lock();
            if kept.len() < BUFFERS_MAX {
                kept.push(buffer);
            }
        }
        result
    }
}

impl Device {
    pub(crate) fn new(file: Box<dyn DiskFile>, path: PathBuf, block_bytes: usize) -> Device {
        Device { file, path, block_bytes, buffers: ReadBuffers::default() }
    }

    /// Where a block stands in the file, bytes.
    pub(crate) fn offset(&self, block: u32) -> u64 {
        u64::from(block) * self.block_bytes as u64
    }

    /// Says that a block is not what was written.
    pub(crate) fn corrupt(&self, block: u32, what: &'static str) -> Error {
        Error::Corrupt { path: self.path.clone(), offset: self.offset(block), what }
    }

    /// Reads `blocks` blocks into `buffer`, in place of what it holds; fewer bytes where the file ends. What the disk cannot
    /// read are zeros, and so what they are compared with tells.
    pub(crate) fn read_into(&self, block: u32, blocks: u32, buffer: &mut Vec<u8>) -> Result<()> {
        buffer.resize(blocks as usize * self.block_bytes, 0);
        let count = read_around(&*self.file, buffer, self.offset(block), &mut |offset| {
            tracing::error!(path = %self.path.display(), offset, "the disk cannot read a part of the block file");
        });
        buffer.truncate(count.map_err(|source| Error::io("read", &self.path, source))?);
        Ok(())
    }

    /// The next read of these blocks comes from the disk, where the system lets itself be told.
    pub(crate) fn forget_cached(&self, block: u32, blocks: u32) {
        self.file.forget_cached(self.offset(block), u64::from(blocks) * self.block_bytes as u64);
    }

    /// Reads a block that must have the checksum of its reference.
    pub(crate) fn read_checked(&self, at: BlockRef, what: &'static str) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.read_into(at.block, 1, &mut bytes)?;
        if bytes.len() < self.block_bytes || crc32c::crc32c(&bytes) != at.crc {
            return Err(self.corrupt(at.block, what));
        }
        Ok(bytes)
    }

    /// Appends the entries of a leaf.
    pub(crate) fn read_leaf(&self, database: u32, leaf: &LeafRef, entries: &mut Vec<IndexEntry>) -> Result<()> {
        const WHAT: &str = "a leaf of the index is not what was written";
        let bytes = self.read_checked(leaf.at, WHAT)?;
        let before = entries.len();
        let decoded = leaf::decode(&bytes, leaf.at.block, database, entries);
        let first = entries.get(before).map(|entry| entry.hash);
        if decoded.is_none() || entries.len() - before != usize::from(leaf.entries) || first != Some(leaf.first_hash) {
            return Err(self.corrupt(leaf.at.block, WHAT));
        }
        Ok(())
    }

    /// Writes whole blocks from `block` on.
    pub(crate) fn write(&self, block: u32, bytes: &[u8]) -> Result<()> {
        self.file.write_all_at(bytes, self.offset(block)).map_err(|source| Error::io("write", &self.path, source))
    }

    /// As [`Device::write`], past the system's cache: `bytes` are aligned.
    pub(crate) fn write_direct(&self, block: u32, bytes: &[u8]) -> Result<()> {
        let written = self.file.write_blocks_at(bytes, self.offset(block));
        written.map_err(|source| Error::io("write", &self.path, source))
    }

    /// Makes everything written durable.
    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|source| Error::io("sync", &self.path, source))
    }

    /// Makes the file this many blocks long.
    pub(crate) fn resize(&self, blocks: u32) -> Result<()> {
        self.file.resize(self.offset(blocks)).map_err(|source| Error::io("resize", &self.path, source))
    }
}
