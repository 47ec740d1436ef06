//! The seam to the file system. The engine reaches files only through [`Disk`] and [`DiskFile`], so that a simulated
//! disk can lose unsynced writes, tear sectors, fail the n-th call and fill up.
//!
//! What the engine relies on, and nothing more:
//! - bytes written are kept for sure only after [`DiskFile::sync_data`] has returned `Ok`;
//! - a created, renamed or removed name is kept for sure only after [`Disk::sync_directory`] has returned `Ok`;
//! - a file whose bytes were written and synced once can be overwritten in place without needing new room.

use std::fs;
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Blocks that [`DiskFile::write_blocks_at`] takes: what every disk and file system in use can write past its cache.
pub const DIRECT_BLOCK_BYTES: usize = 4096;

/// A directory tree of files. All paths are full paths.
pub trait Disk: Send + Sync {
    /// Opens a file for reading and writing; it must exist.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens a file for reading only; it must exist.
    fn open_read_only(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Creates a file that must not exist, open for reading and writing.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Creates a directory and its missing parents; one that exists is fine.
    fn create_directory(&self, path: &Path) -> io::Result<()>;
    /// Renames a file over whatever stands at `to`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Full paths of the files in a directory, in no order.
    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>>;
    /// Makes the names in a directory durable.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;
    /// Takes the advisory lock on `path` (creating it) and writes our process id into it. The lock is held until the
    /// returned value is dropped. `WouldBlock` says that another process has it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>>;
}

/// An open file.
pub trait DiskFile: Send + Sync {
    /// Reads at `offset`; 0 at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Asks that the next read of these bytes comes from the disk itself. A wish: nothing happens where it cannot be.
    fn forget_cached(&self, _offset: u64, _bytes: u64) {}
    /// Writes the whole of `bytes` at `offset`.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// As [`DiskFile::write_all_at`], for whole blocks that are to be synced at once: they go past the page cache where
    /// the file system lets them. The address and length of `blocks` and `offset` are multiples of
    /// [`DIRECT_BLOCK_BYTES`]. Not durable before a sync either.
    fn write_blocks_at(&self, blocks: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(blocks, offset)
    }
    /// Makes every byte written so far durable (`fdatasync`), and the length where it changed.
    fn sync_data(&self) -> io::Result<()>;
    /// Makes the file `bytes` long. What is added reads as zeroes and its space is reserved, so a full disk is known
    /// here and not when it is written; what is cut off is given back. The length is durable after a sync.
    ///
    /// # Errors
    /// `Unsupported` for a device, which has one size, and for a disk that cannot.
    fn resize(&self, bytes: u64) -> io::Result<()> {
        let _ = bytes;
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Length in bytes; the size of a device.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// Fills `buffer` from `offset` on; returns less than its length only at the end of the file.
pub(crate) fn read_up_to(file: &dyn DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut read = 0;
    while let Some(rest) = buffer.get_mut(read..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + read as u64) {
            Ok(0) => break,
            Ok(count) => read += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

/// Zeroed memory at an address that suits [`DiskFile::write_blocks_at`].
pub(crate) struct AlignedBuffer {
    memory: Vec<u8>,
    start: usize,
    length: usize,
}

impl AlignedBuffer {
    /// A buffer of `length` bytes.
    pub(crate) fn new(length: usize) -> AlignedBuffer {
        let memory = vec![0; length + DIRECT_BLOCK_BYTES];
        let start = memory.as_ptr().align_offset(DIRECT_BLOCK_BYTES).min(DIRECT_BLOCK_BYTES);
        AlignedBuffer { memory, start, length }
    }

    /// All of it.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.length]
    }
}

/// The disk of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsDisk;

impl Disk for OsDisk {
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OsFile::new(fs::File::options().read(true).write(true).open(path)?, path)))
    }

    fn open_read_only(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OsFile { file: fs::File::open(path)?, direct: None, is_direct: AtomicBool::new(false) }))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = fs::File::options().read(true).write(true).create_new(true).open(path)?;
        Ok(Box::new(OsFile::new(file, path)))
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect()
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        fs::File::open(directory)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let file = fs::File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
        let pid = format!("{}\n", std::process::id());
        file.write_all_at(pid.as_bytes(), 0)?;
        // Cutting a file may wait for the file system's journal.
        if file.metadata()?.len() != pid.len() as u64 {
            file.set_len(pid.len() as u64)?;
        }
        Ok(Box::new(file))
    }
}

struct OsFile {
    file: fs::File,
    /// The same file, opened to be written past the page cache; `None` where the file system refuses.
    direct: Option<fs::File>,
    is_direct: AtomicBool,
}

impl OsFile {
    fn new(file: fs::File, path: &Path) -> OsFile {
        let flags = rustix::fs::OFlags::DIRECT.bits().cast_signed();
        let direct = fs::File::options().write(true).custom_flags(flags).open(path).ok();
        OsFile { file, is_direct: AtomicBool::new(direct.is_some()), direct }
    }
}

impl DiskFile for OsFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(&self.file, buffer, offset)
    }

    fn forget_cached(&self, offset: u64, bytes: u64) {
        let _ = rustix::fs::fadvise(&self.file, offset, NonZeroU64::new(bytes), rustix::fs::Advice::DontNeed);
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(&self.file, bytes, offset)
    }

    fn write_blocks_at(&self, blocks: &[u8], offset: u64) -> io::Result<()> {
        if let Some(direct) = self.direct.as_ref().filter(|_| self.is_direct.load(Ordering::Relaxed)) {
            match direct.write_all_at(blocks, offset) {
                // Larger blocks than ours, or memory that the device cannot read: the cache takes anything.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    self.is_direct.store(false, Ordering::Relaxed);
                }
                done => return done,
            }
        }
        self.write_all_at(blocks, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        // One call, never a second: after a failure the kernel may have marked the pages clean.
        self.file.sync_data()
    }

    fn resize(&self, bytes: u64) -> io::Result<()> {
        let metadata = self.file.metadata()?;
        if !metadata.is_file() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        if bytes > metadata.len() {
            let none = rustix::fs::FallocateFlags::empty();
            match rustix::fs::fallocate(&self.file, none, metadata.len(), bytes - metadata.len()) {
                // Not every file system can reserve space.
                Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {}
                Ok(()) => return Ok(()),
                Err(error) => {
                    // A full disk may have given a part, which others need now.
                    let _ = self.file.set_len(metadata.len());
                    return Err(error.into());
                }
            }
        }
        self.file.set_len(bytes)
    }

    fn len(&self) -> io::Result<u64> {
        let metadata = self.file.metadata()?;
        if metadata.file_type().is_block_device() {
            return Ok(rustix::fs::seek(&self.file, rustix::fs::SeekFrom::End(0))?);
        }
        Ok(metadata.len())
    }
}
