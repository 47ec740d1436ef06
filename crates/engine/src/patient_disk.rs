//! Reading around places that a disk cannot read any more: the usual form of rot.
//!
//! Whoever compares what he reads with a checksum learns nothing new from the error of a read: the block is lost either way,
//! and its neighbours in the same read are not. So what cannot be read is taken for zeros here, and told. Not for a start,
//! which may try again later: there the error stands.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::io::Errno;

use crate::disk::{Disk, DiskFile, read_up_to};
use crate::error::Damage;

/// What is read again, piece by piece, where a read fails: a sector of the disks in use, and the page of the cache.
const PIECE_BYTES: usize = 4096;
/// Places that are remembered one by one.
const PLACES_MAX: usize = 1000;
const UNREADABLE: &str = "the disk cannot read this";

/// Whether a read failed because of what stands there, and not because of how it was asked for.
fn is_unreadable(error: &io::Error) -> bool {
    // The last two: checksums of file systems.
    let codes = [Errno::IO, Errno::BADMSG, Errno::UCLEAN].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

/// As [`read_up_to`], but pieces that the disk cannot read are zeros, and `lost` is told where each of them begins.
///
/// # Errors
/// Those of reading, but not that of a place that cannot be read.
pub(crate) fn read_around(
    file: &dyn DiskFile,
    buffer: &mut [u8],
    offset: u64,
    lost: &mut dyn FnMut(u64),
) -> io::Result<usize> {
    match read_up_to(file, buffer, offset) {
        Err(error) if is_unreadable(&error) => {}
        other => return other,
    }
    let mut done = 0;
    while done < buffer.len() {
        let at = offset + done as u64;
        // Pieces end where sectors do.
        let bytes = PIECE_BYTES - (at % PIECE_BYTES as u64) as usize;
        let rest = buffer.get_mut(done..).unwrap_or_default();
        let (piece, _) = rest.split_at_mut(bytes.min(rest.len()));
        match read_up_to(file, piece, at) {
            Ok(read) if read < piece.len() => return Ok(done + read),
            Ok(_) => {}
            Err(error) if is_unreadable(&error) => {
                piece.fill(0);
                lost(at);
            }
            Err(error) => return Err(error),
        }
        done += piece.len();
    }
    Ok(done)
}

/// A disk whose files are read around what cannot be read, and that remembers these places. Clones remember together.
#[derive(Clone)]
pub struct PatientDisk {
    disk: Arc<dyn Disk>,
    places: Arc<Mutex<Vec<Damage>>>,
}

impl PatientDisk {
    /// Reads `disk` patiently.
    pub fn over(disk: Arc<dyn Disk>) -> PatientDisk {
        PatientDisk { disk, places: Arc::default() }
    }

    /// What could not be read so far, each place once; the first thousand.
    pub fn unreadable(&self) -> Vec<Damage> {
        self.places.lock().clone()
    }

    fn file(&self, path: &Path, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(PatientFile { file, path: path.to_owned(), places: Arc::clone(&self.places) })
    }
}

impl Disk for PatientDisk {
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.disk.open(path).map(|file| self.file(path, file))
    }

    fn open_read_only(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.disk.open_read_only(path).map(|file| self.file(path, file))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.disk.create(path).map(|file| self.file(path, file))
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
        self.disk.sync_directory(directory)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.disk.lock(path)
    }
}

struct PatientFile {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    places: Arc<Mutex<Vec<Damage>>>,
}

impl DiskFile for PatientFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        read_around(&*self.file, buffer, offset, &mut |offset| {
            let place = Damage { path: self.path.clone(), offset, what: UNREADABLE };
            let mut places = self.places.lock();
            if places.len() < PLACES_MAX && !places.contains(&place) {
                places.push(place);
            }
        })
    }

    fn forget_cached(&self, offset: u64, bytes: u64) {
        self.file.forget_cached(offset, bytes);
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn write_blocks_at(&self, blocks: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_blocks_at(blocks, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn resize(&self, bytes: u64) -> io::Result<()> {
        self.file.resize(bytes)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of 7s of which some bytes cannot be read.
    struct Sick {
        bytes: usize,
        sick: std::ops::Range<u64>,
        error: i32,
    }

    impl DiskFile for Sick {
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
            let count = buffer.len().min(self.bytes.saturating_sub(offset as usize));
            if offset < self.sick.end && offset + count as u64 > self.sick.start {
                return Err(io::Error::from_raw_os_error(self.error));
            }
            buffer[..count].fill(7);
            Ok(count)
        }

        fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn sync_data(&self) -> io::Result<()> {
            Ok(())
        }

        fn len(&self) -> io::Result<u64> {
            Ok(self.bytes as u64)
        }
    }

    fn read(file: &Sick, bytes: usize, offset: u64) -> (io::Result<usize>, Vec<u8>, Vec<u64>) {
        let (mut buffer, mut lost) = (vec![1; bytes], Vec::new());
        let read = read_around(file, &mut buffer, offset, &mut |at| lost.push(at));
        (read, buffer, lost)
    }

    #[test]
    fn only_the_pieces_that_cannot_be_read_are_zeros() {
        let file = Sick { bytes: 20_000, sick: 5000..5001, error: Errno::IO.raw_os_error() };
        let (count, bytes, lost) = read(&file, 15_000, 100);
        assert_eq!((count.ok(), lost), (Some(15_000), vec![4096]));
        let lost = 4096 - 100..8192 - 100;
        assert!(bytes.iter().enumerate().all(|(place, &byte)| byte == if lost.contains(&place) { 0 } else { 7 }));
    }

    #[test]
    fn a_file_ends_where_it_ends() {
        let file = Sick { bytes: 10_000, sick: 0..1, error: Errno::BADMSG.raw_os_error() };
        let (count, bytes, lost) = read(&file, 15_000, 0);
        assert_eq!((count.ok(), lost), (Some(10_000), vec![0]));
        assert!(bytes[4096..10_000].iter().all(|&byte| byte == 7));
        assert_eq!(read(&file, 15_000, 10_000).0.ok(), Some(0));
    }

    #[test]
    fn other_errors_stay_errors() {
        let file = Sick { bytes: 10_000, sick: 0..1, error: Errno::ACCESS.raw_os_error() };
        assert!(read(&file, 100, 0).0.is_err());
    }
}
