//! Putting a repaired store in the place of the damaged one, so that a crash at any moment leaves one of the two.
//!
//! ```text
//!   build      store.blocks.repaired, log/repaired/*.log       the old store counts; what is half made is removed later
//!   decide     repair.pending: written, synced, renamed        from here on the new one counts
//!   put aside  store.blocks -> store.blocks.damaged-T, log/N.log -> log/N.log.damaged-T      sync
//!   put in     store.blocks.repaired -> store.blocks, log/repaired/N.log -> log/M.log        sync
//!   done       repair.pending is removed
//! ```
//!
//! Each step can be done again, so the next start goes on where a crash broke off. Nothing of the old store is removed.
//! New log files get numbers above the old ones', so no name means two files.
//!
//! ```text
//!  repair.pending   "BOWL-REP" | crc u32 of what follows | format u16 | renames u32, those that put aside u32,
//!                   then for each: length u32, old path | length u32, new path          (little-endian, CRC-32C)
//! ```
//!
//! Not here: what the new store holds (`repair`).

use std::collections::BTreeSet;
use std::io::ErrorKind::NotFound;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::disk::Disk;
use crate::error::{Error, Result};

/// Name of the mark in the store's directory.
const PENDING_NAME: &str = "repair.pending";
const MAGIC: [u8; 8] = *b"BOWL-REP";
const FORMAT: u16 = 1;
/// Longest mark: the log's files are what makes it long.
const BYTES_MAX: u64 = 64 << 20;

/// Which files get which names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Swap {
    /// The old store's files.
    pub(super) aside: Vec<(PathBuf, PathBuf)>,
    /// The new store's files.
    pub(super) into_place: Vec<(PathBuf, PathBuf)>,
}

impl Swap {
    fn encode(&self) -> Vec<u8> {
        let mut covered = FORMAT.to_le_bytes().to_vec();
        covered.extend(((self.aside.len() + self.into_place.len()) as u32).to_le_bytes());
        covered.extend((self.aside.len() as u32).to_le_bytes());
        for path in self.aside.iter().chain(&self.into_place).flat_map(|(from, to)| [from, to]) {
            let path = path.as_os_str().as_bytes();
            covered.extend((path.len() as u32).to_le_bytes());
            covered.extend(path);
        }
        [&MAGIC[..], &crc32c::crc32c(&covered).to_le_bytes(), &covered].concat()
    }

    fn decode(bytes: &[u8], path: &Path) -> Result<Swap> {
        let damaged = || Error::Corrupt { path: path.to_owned(), offset: 0, what: "it is not what a repair writes" };
        let (magic, rest) = bytes.split_first_chunk().ok_or_else(damaged)?;
        let (crc, covered) = rest.split_first_chunk().ok_or_else(damaged)?;
        let (format, mut rest) = covered.split_first_chunk().ok_or_else(damaged)?;
        let format = u16::from_le_bytes(*format);
        // A crc that is wrong is damage, whatever the number of the format has become.
        if *magic != MAGIC || crc32c::crc32c(covered) != u32::from_le_bytes(*crc) || format == 0 {
            return Err(damaged());
        }
        if format > FORMAT {
            return Err(Error::FormatTooNew { path: path.to_owned(), found: format, newest: FORMAT });
        }
        let number = |rest: &mut &[u8]| {
            let (number, after) = rest.split_first_chunk()?;
            *rest = after;
            Some(u32::from_le_bytes(*number))
        };
        let (all, aside) = (number(&mut rest).ok_or_else(damaged)?, number(&mut rest).ok_or_else(damaged)?);
        let mut swap = Swap::default();
        for place in 0..all {
            let mut name = || {
                let length = number(&mut rest)? as usize;
                let (name, after) = rest.split_at_checked(length)?;
                rest = after;
                Some(PathBuf::from(std::ffi::OsString::from_vec(name.to_vec())))
            };
            let pair = name().zip(name()).ok_or_else(damaged)?;
            if place < aside { swap.aside.push(pair) } else { swap.into_place.push(pair) }
        }
        Ok(swap)
    }

    /// Decides for the new store, and puts it in place.
    pub(super) fn carry_out(&self, disk: &dyn Disk, directory: &Path) -> Result<()> {
        let pending = directory.join(PENDING_NAME);
        let making = directory.join(format!("{PENDING_NAME}.new"));
        // Left by a crash.
        let _ = disk.remove(&making);
        let file = disk.create(&making).map_err(|source| Error::io("create", &making, source))?;
        file.write_all_at(&self.encode(), 0).map_err(|source| Error::io("write", &making, source))?;
        file.sync_data().map_err(|source| Error::io("sync", &making, source))?;
        drop(file);
        rename(disk, &making, &pending)?;
        sync(disk, directory)?;
        self.go_on(disk, directory)
    }

    /// Does what is left to be done.
    fn go_on(&self, disk: &dyn Disk, directory: &Path) -> Result<()> {
        // What has its new name got it before a crash. An old file's old name may be a new file's by now.
        for (from, to) in &self.aside {
            if !is_there(disk, to)? && is_there(disk, from)? {
                rename(disk, from, to)?;
            }
        }
        sync_directories(disk, &self.aside)?;
        for (from, to) in &self.into_place {
            if is_there(disk, from)? {
                rename(disk, from, to)?;
            }
        }
        sync_directories(disk, &self.into_place)?;
        let pending = directory.join(PENDING_NAME);
        disk.remove(&pending).map_err(|source| Error::io("remove", &pending, source))?;
        sync(disk, directory)
    }
}

/// Whether a repair of the store in `directory` was decided and not finished.
///
/// # Errors
/// `Io`.
pub fn is_repair_pending(disk: &dyn Disk, directory: &Path) -> Result<bool> {
    is_there(disk, &directory.join(PENDING_NAME))
}

/// Finishes a repair that a crash broke off after it was decided. The directory is locked.
///
/// # Errors
/// `Io`, `Corrupt`, `FormatTooNew`.
pub(crate) fn finish_repair(disk: &dyn Disk, directory: &Path) -> Result<()> {
    let pending = directory.join(PENDING_NAME);
    let file = match disk.open_read_only(&pending) {
        Err(error) if error.kind() == NotFound => return Ok(()),
        opened => opened.map_err(|source| Error::io("open", &pending, source))?,
    };
    let length = file.len().map_err(|source| Error::io("read the length of", &pending, source))?;
    let mut bytes = vec![0; length.min(BYTES_MAX) as usize];
    let read = crate::log::read_up_to(&*file, &mut bytes, 0).map_err(|source| Error::io("read", &pending, source))?;
    let swap = Swap::decode(bytes.get(..read).unwrap_or_default(), &pending)?;
    tracing::warn!(directory = %directory.display(), "finishes a repair that was broken off");
    swap.go_on(disk, directory)
}

fn is_there(disk: &dyn Disk, path: &Path) -> Result<bool> {
    match disk.open_read_only(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == NotFound => Ok(false),
        Err(source) => Err(Error::io("open", path, source)),
    }
}

fn rename(disk: &dyn Disk, from: &Path, to: &Path) -> Result<()> {
    disk.rename(from, to).map_err(|source| Error::io("rename", from, source))
}

fn sync_directories(disk: &dyn Disk, renames: &[(PathBuf, PathBuf)]) -> Result<()> {
    let directories: BTreeSet<&Path> =
        renames.iter().flat_map(|(from, to)| [from, to]).filter_map(|path| path.parent()).collect();
    directories.into_iter().try_for_each(|directory| sync(disk, directory))
}

fn sync(disk: &dyn Disk, directory: &Path) -> Result<()> {
    disk.sync_directory(directory).map_err(|source| Error::io("sync", directory, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn swap() -> Swap {
        let pair = |from: &str, to: &str| (PathBuf::from(from), PathBuf::from(to));
        Swap { aside: vec![pair("/a", "/b")], into_place: vec![pair("/c", "/a"), pair("/d", "/e")] }
    }

    #[test]
    fn the_bytes_of_a_mark_are_fixed() {
        let bytes = swap().encode();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let names: String = ["/a", "/b", "/c", "/a", "/d", "/e"]
            .iter()
            .map(|name| format!("02000000{:02x}{:02x}", name.as_bytes()[0], name.as_bytes()[1]))
            .collect();
        assert_eq!(hex[..16], *"424f574c2d524550");
        assert_eq!(hex[24..], format!("01000300000001000000{names}"));
        assert_eq!(Swap::decode(&bytes, Path::new("x")).unwrap(), swap());
    }

    #[test]
    fn one_wrong_bit_anywhere_is_refused() {
        for bit in 0..swap().encode().len() * 8 {
            let mut bytes = swap().encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Swap::decode(&bytes, Path::new("x")).is_err(), "bit {bit}");
        }
    }
}
