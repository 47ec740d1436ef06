//! Lineage: which store was restored from which, and when. A small file of each restored store beside its archived log.
//!
//! ```text
//!  <store id, 32 hex digits>.lineage, 72 bytes
//!    0 magic u64          8 crc u32 of bytes 12..72    12 format u16    14 bytes u16
//!   16 store id, 16 bytes                 32 parent store id, 16 bytes
//!   48 fork version u64  56 birth version u64          64 zeros u64
//! ```
//!
//! Little-endian, CRC-32C; the first 16 bytes as `head` says. Up to the *fork version* the store's past is its parent's. Every version of its own is above
//! the *birth version*, which is above every version of the parent that was known then: so a version, and a moment,
//! belongs to one of the two. The file is made once and never changed.

use std::io;
use std::path::{Path, PathBuf};

use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::head::{self, HeadRead};
use crate::log::archive::StoreId;
use crate::version::Version;

const MAGIC: [u8; 8] = *b"BOWL-LIN";
const FORMAT: u16 = 1;
const BYTES: usize = 72;
const SUFFIX: &str = "lineage";

/// Where a restored store comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lineage {
    pub(crate) store_id: StoreId,
    pub(crate) parent: StoreId,
    /// The last version of the parent that the store has.
    pub(crate) fork: Version,
    /// The store's own versions are above this one.
    pub(crate) birth: Version,
}

impl Lineage {
    fn encode(&self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        let mut put = |at: usize, field: &[u8]| {
            if let Some(place) = bytes.get_mut(at..at + field.len()) {
                place.copy_from_slice(field);
            }
        };
        put(0, &MAGIC);
        put(12, &FORMAT.to_le_bytes());
        put(14, &(BYTES as u16).to_le_bytes());
        put(16, &self.store_id.0);
        put(32, &self.parent.0);
        put(48, &self.fork.0.to_le_bytes());
        put(56, &self.birth.0.to_le_bytes());
        let crc = crc32c::crc32c(bytes.get(12..).unwrap_or_default()).to_le_bytes();
        if let Some(place) = bytes.get_mut(8..12) {
            place.copy_from_slice(&crc);
        }
        bytes
    }

    fn decode(bytes: &[u8], path: &Path) -> Result<Lineage> {
        let damaged = |what| Error::Corrupt { path: path.to_owned(), offset: 0, what };
        let field = |at: usize| bytes.get(at..).and_then(|rest| rest.first_chunk::<8>().copied()).unwrap_or_default();
        let id = |at: usize| StoreId(bytes.get(at..).and_then(|rest| rest.first_chunk().copied()).unwrap_or_default());
        match head::read(bytes, MAGIC, FORMAT) {
            HeadRead::Known(BYTES) if bytes.len() == BYTES => {}
            HeadRead::TooNew(found) => {
                return Err(Error::FormatTooNew { path: path.to_owned(), found, newest: FORMAT });
            }
            HeadRead::Known(_) | HeadRead::None => return Err(damaged("it does not fit its checksum")),
        }
        let version = |at| Version(u64::from_le_bytes(field(at)));
        Ok(Lineage { store_id: id(16), parent: id(32), fork: version(48), birth: version(56) })
    }
}

fn path_of(directory: &Path, store_id: StoreId) -> PathBuf {
    directory.join(format!("{store_id}.{SUFFIX}"))
}

/// Writes a store's lineage into the archive, unless it is there: under another name, synced, renamed.
///
/// # Errors
/// `Io`.
pub(crate) fn note_lineage(disk: &dyn Disk, directory: &Path, lineage: &Lineage) -> Result<()> {
    let path = path_of(directory, lineage.store_id);
    match disk.open_read_only(&path) {
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(Error::io("open", &path, source)),
    }
    disk.create_directory(directory).map_err(|source| Error::io("create", directory, source))?;
    let making = path.with_extension("making");
    // Left by a crash.
    let _ = disk.remove(&making);
    let file = disk.create(&making).map_err(|source| Error::io("create", &making, source))?;
    file.write_all_at(&lineage.encode(), 0).map_err(|source| Error::io("write", &making, source))?;
    file.sync_data().map_err(|source| Error::io("sync", &making, source))?;
    disk.rename(&making, &path).map_err(|source| Error::io("rename", &making, source))?;
    disk.sync_directory(directory).map_err(|source| Error::io("sync", directory, source))
}

/// All lineages in an archive.
///
/// # Errors
/// `Io`, `FormatTooNew`, `Corrupt`: without one of them it is not known which log belongs to which past.
pub(crate) fn read_lineages(disk: &dyn Disk, directory: &Path) -> Result<Vec<Lineage>> {
    let mut lineages = Vec::new();
    for path in disk.list(directory).map_err(|source| Error::io("list", directory, source))? {
        if path.extension().is_none_or(|suffix| suffix != SUFFIX) {
            continue;
        }
        let file = disk.open_read_only(&path).map_err(|source| Error::io("open", &path, source))?;
        let mut bytes = [0; BYTES + 1];
        let read = crate::log::read_up_to(&*file, &mut bytes, 0).map_err(|source| Error::io("read", &path, source))?;
        lineages.push(Lineage::decode(bytes.get(..read).unwrap_or_default(), &path)?);
    }
    Ok(lineages)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::OsDisk;

    const LINEAGE: Lineage = Lineage {
        store_id: StoreId(*b"0123456789abcdef"),
        parent: StoreId(*b"parentparentpare"),
        fork: Version(0x1111),
        birth: Version(0x2222),
    };

    #[test]
    fn the_bytes_of_a_lineage_are_fixed() {
        let bytes = LINEAGE.encode();
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let golden = "424f574c2d4c494e\
                      5a64c390\
                      01004800\
                      30313233343536373839616263646566\
                      706172656e74706172656e7470617265\
                      11110000000000002222000000000000\
                      0000000000000000";
        assert_eq!(text, golden);
        assert_eq!(Lineage::decode(&bytes, Path::new("x")).unwrap(), LINEAGE);
    }

    #[test]
    fn one_wrong_bit_anywhere_is_refused() {
        for bit in 0..BYTES * 8 {
            let mut bytes = LINEAGE.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Lineage::decode(&bytes, Path::new("x")).is_err(), "bit {bit}");
        }
        for cut in 0..BYTES {
            assert!(Lineage::decode(&LINEAGE.encode()[..cut], Path::new("x")).is_err(), "{cut} bytes");
        }
    }

    #[test]
    fn a_lineage_is_written_once_and_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let archive = directory.path().join("archive");
        note_lineage(&OsDisk, &archive, &LINEAGE).unwrap();
        note_lineage(&OsDisk, &archive, &Lineage { fork: Version(9), ..LINEAGE }).unwrap();
        assert_eq!(read_lineages(&OsDisk, &archive).unwrap(), [LINEAGE]);
    }
}
