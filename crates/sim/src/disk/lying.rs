//! A disk that lies, as a mistake in the engine would: the test of the crash tests. Each lie is one forgotten rule.
//!
//! The first lies forget a call. The last two show a reader of the log what a careless recovery would believe: a frame
//! whose payload is torn with a checksum that fits, and a frame of the file's earlier life with a place in the chain.

use std::io;
use std::path::{Path, PathBuf};

use bowline::disk::{Disk, DiskFile};
use bowline::log::format::{
    FRAME_HEADER_BYTES, FRAME_MAGIC, FileHeader, FileHeaderRead, FrameHeader, HEADER_BLOCK_BYTES,
};

use super::SimDisk;

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
}

/// A [`SimDisk`] seen through one [`Lie`].
#[derive(Clone, Debug)]
pub struct LyingDisk {
    /// The disk below.
    pub disk: SimDisk,
    /// The lie it is seen through.
    pub lie: Lie,
}

struct LyingFile {
    file: Box<dyn DiskFile>,
    disk: SimDisk,
    path: PathBuf,
    lie: Lie,
}

impl LyingDisk {
    fn wrap(&self, path: &Path, file: io::Result<Box<dyn DiskFile>>) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(LyingFile { file: file?, disk: self.disk.clone(), path: path.to_owned(), lie: self.lie }))
    }
}

impl Disk for LyingDisk {
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.wrap(path, self.disk.open(path))
    }

    fn open_read_only(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.wrap(path, self.disk.open_read_only(path))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.wrap(path, self.disk.create(path))
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.disk.create_directory(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        self.disk.list(directory)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        match self.lie {
            Lie::SkipDirectorySync => Ok(()),
            _ => self.disk.sync_directory(directory),
        }
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.disk.lock(path)
    }
}

impl DiskFile for LyingFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let read = self.file.read_at(buffer, offset)?;
        if !matches!(self.lie, Lie::IgnoreChecksum | Lie::TakeRecycledFrame) || !self.disk.exists(&self.path) {
            return Ok(read);
        }
        let mut contents = self.disk.contents(&self.path);
        match self.lie {
            Lie::IgnoreChecksum => mend_checksums(&mut contents),
            _ => mend_chain(&mut contents),
        }
        let from = offset as usize;
        buffer[..read].copy_from_slice(&contents[from..from + read]);
        Ok(read)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        match self.lie {
            Lie::SkipSync => Ok(()),
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
