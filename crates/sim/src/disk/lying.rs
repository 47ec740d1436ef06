//! A disk that lies, as a mistake in the engine would: the test of the crash tests. Each lie is one forgotten rule.
//!
//! The first lies forget a call. Two show a reader of the log what a careless recovery would believe: a frame whose
//! payload is torn with a checksum that fits, and a frame of the file's earlier life with a place in the chain. The rest
//! are about checkpoints: calls on the block file are forgotten, or its reader is shown what stood there before.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use bowline::Version;
use bowline::blocks::BlockFile;
use bowline::disk::{Disk, DiskFile};
use bowline::log::format::{
    FRAME_HEADER_BYTES, FRAME_MAGIC, FileHeader, FileHeaderRead, FrameHeader, HEADER_BLOCK_BYTES,
};

use super::SimDisk;
use super::front::{FrontDisk, Opening, Rules};

/// Bytes of a block in the simulated stores.
const BLOCK_BYTES: u64 = 4096;
/// Where the two superblocks end.
const SUPERBLOCKS_END: u64 = 2 * BLOCK_BYTES;

/// What is silently left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// `DiskFile::sync_data` answers `Ok` and does nothing.
    SkipSync,
    /// `Disk::sync_directory` answers `Ok` and does nothing.
    SkipDirectorySync,
    /// A failed `DiskFile::sync_data` is tried once more, and the second answer is believed.
    RetrySync,
    /// A frame's payload checksum fits whatever its payload is.
    IgnoreChecksum,
    /// A frame that stands where the next one should counts as the next one, whatever life of the file it is from.
    TakeRecycledFrame,
    /// No sync of the block file does anything.
    SkipBlockSync,
    /// A sync of the block file does nothing unless the last write was that of a superblock: the superblock may reach
    /// the disk before what it leads to.
    SkipSyncBeforeSuperblock,
    /// A sync of the block file right after a superblock was written does nothing: what it frees is used again, and the
    /// log forgets what it holds, too early.
    SkipSyncAfterSuperblock,
    /// Every second superblock is never written.
    LoseSuperblock,
    /// The newest superblock has rotted when it is read.
    HideNewestSuperblock,
    /// The same, and no header of a log file names a checkpoint.
    HideNewestSuperblockUnnamed,
    /// A header of a log file that names a checkpoint is never written, but where a file is started.
    LoseCheckpointNote,
    /// A block of the block file reads as what stood there before.
    StaleBlocks,
}

/// A [`SimDisk`] seen through one [`Lie`].
pub type LyingDisk = FrontDisk<Lie>;

struct LyingFile {
    file: Box<dyn DiskFile>,
    disk: SimDisk,
    path: PathBuf,
    lie: Lie,
    is_block_file: bool,
    /// Nothing was written since the last superblock.
    superblock_was_last: AtomicBool,
}

impl Rules for Lie {
    fn file(&self, disk: &SimDisk, path: &Path, _opening: Opening, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(LyingFile {
            file,
            disk: disk.clone(),
            path: path.to_owned(),
            lie: *self,
            // Also while it is being made, under a longer name.
            is_block_file: path.to_string_lossy().contains(".blocks"),
            superblock_was_last: AtomicBool::new(false),
        })
    }

    fn sync_directory(&self, disk: &SimDisk, directory: &Path) -> io::Result<()> {
        match self {
            Lie::SkipDirectorySync => Ok(()),
            _ => disk.sync_directory(directory),
        }
    }
}

impl LyingFile {
    /// What the lie makes of the whole file, for a read at `offset`; `None` when that read is told the truth.
    fn shown(&self, offset: u64) -> Option<Vec<u8>> {
        if !self.disk.exists(&self.path) {
            return None;
        }
        let mut contents = self.disk.contents(&self.path);
        match self.lie {
            Lie::IgnoreChecksum => mend_checksums(&mut contents),
            Lie::TakeRecycledFrame => mend_chain(&mut contents),
            Lie::StaleBlocks if self.is_block_file && offset >= SUPERBLOCKS_END => {
                contents = self.disk.contents_before(&self.path);
            }
            Lie::HideNewestSuperblock | Lie::HideNewestSuperblockUnnamed
                if self.is_block_file && offset < SUPERBLOCKS_END =>
            {
                let slot = self.newest_superblock()? * BLOCK_BYTES as usize;
                contents[slot..slot + BLOCK_BYTES as usize].fill(0);
            }
            _ => return None,
        }
        Some(contents)
    }

    /// The slot of the newest superblock, if there is an older one.
    fn newest_superblock(&self) -> Option<usize> {
        // On a copy: looking is no storage call of the store.
        let file = BlockFile::open_read_only(&self.disk.process_killed(), &self.path).ok()?;
        let found = file.found();
        found.older.map(|_| (found.newest.0 % 2) as usize)
    }

    /// Whether this write is left out.
    fn loses(&self, bytes: &[u8], offset: u64) -> bool {
        match self.lie {
            Lie::LoseSuperblock => self.is_block_file && offset == BLOCK_BYTES,
            Lie::LoseCheckpointNote => {
                let started = bytes.len() as u64 == HEADER_BLOCK_BYTES;
                let header = FileHeader::decode(bytes);
                !started && matches!(header, FileHeaderRead::Header(header) if header.checkpoint > Version::ZERO)
            }
            _ => false,
        }
    }
}

impl DiskFile for LyingFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let read = self.file.read_at(buffer, offset)?;
        if let Some(contents) = self.shown(offset) {
            let from = offset as usize;
            buffer[..read].copy_from_slice(&contents[from..from + read]);
        }
        Ok(read)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.superblock_was_last.store(offset == 0 || offset == BLOCK_BYTES, Relaxed);
        if self.loses(bytes, offset) {
            return Ok(());
        }
        if self.lie == Lie::HideNewestSuperblockUnnamed
            && let FileHeaderRead::Header(header) = FileHeader::decode(bytes)
        {
            let unnamed = FileHeader { checkpoint: Version::ZERO, ..header }.encode();
            return self.file.write_all_at(&[&unnamed, &bytes[unnamed.len()..]].concat(), offset);
        }
        self.file.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        let after_superblock = self.superblock_was_last.load(Relaxed);
        match self.lie {
            Lie::SkipSync => Ok(()),
            Lie::SkipBlockSync if self.is_block_file => Ok(()),
            Lie::SkipSyncBeforeSuperblock if self.is_block_file && !after_superblock => Ok(()),
            Lie::SkipSyncAfterSuperblock if self.is_block_file && after_superblock => Ok(()),
            Lie::RetrySync => self.file.sync_data().or_else(|_| self.file.sync_data()),
            _ => self.file.sync_data(),
        }
    }

    fn resize(&self, bytes: u64) -> io::Result<()> {
        self.file.resize(bytes)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
}

/// Gives every frame the payload checksum that its payload has.
fn mend_checksums(contents: &mut [u8]) {
    let heads: Vec<usize> = contents
        .windows(FRAME_MAGIC.len())
        .enumerate()
        .filter_map(|(at, window)| (window == FRAME_MAGIC).then_some(at))
        .collect();
    for at in heads {
        if let Some((mut header, payload)) = frame_at(contents, at) {
            header.payload_crc = crc32c::crc32c(payload);
            contents[at..at + FRAME_HEADER_BYTES].copy_from_slice(&header.encode().0);
        }
    }
}

/// Gives every whole frame that stands where the next one should the place of the next one.
fn mend_chain(contents: &mut [u8]) {
    let FileHeaderRead::Header(file) = FileHeader::decode_block(contents) else {
        return;
    };
    let (mut at, mut previous_crc, mut epoch) = (HEADER_BLOCK_BYTES as usize, file.previous_crc, file.epoch);
    while let Some((mut header, payload)) = frame_at(contents, at) {
        if crc32c::crc32c(payload) != header.payload_crc {
            return;
        }
        header.position = file.start_position + (at as u64 - HEADER_BLOCK_BYTES);
        header.previous_crc = previous_crc;
        epoch = header.epoch.max(epoch);
        header.epoch = epoch;
        let (bytes, crc) = header.encode();
        contents[at..at + FRAME_HEADER_BYTES].copy_from_slice(&bytes);
        previous_crc = crc;
        at += header.frame_bytes() as usize;
    }
}

/// A frame whose header is valid, with its payload as it stands.
fn frame_at(contents: &[u8], at: usize) -> Option<(FrameHeader, &[u8])> {
    let rest = contents.get(at..)?;
    let (header, _) = FrameHeader::decode(rest)?;
    let payload = rest.get(FRAME_HEADER_BYTES..header.frame_bytes() as usize)?;
    Some((header, payload))
}
