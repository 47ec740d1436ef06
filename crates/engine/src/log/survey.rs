//! Finds the log's files and what each says about itself. Reads only.
//!
//! A file is known by its header, never by its name; the name only has to be a number. Files without a valid header are
//! spares, files whose start was torn, or damaged ones: `scan` finds out.

use std::path::{Path, PathBuf};

use super::files::number_of;
use super::format::{FORMAT, FileHeader, FileHeaderRead, HEADER_BLOCK_BYTES, STORE_ID_OFFSET};
use crate::disk::Disk;
pub(crate) use crate::disk::read_up_to;
use crate::error::{Error, Result};

/// A file in the log's directory.
pub(crate) struct FoundFile {
    pub(crate) path: PathBuf,
    /// The number in its name.
    pub(crate) number: u64,
    pub(crate) length: u64,
    pub(crate) header: Option<FileHeader>,
}

impl FoundFile {
    /// Bytes of frames that it can hold.
    pub(crate) fn capacity(&self) -> u64 {
        self.length.saturating_sub(HEADER_BLOCK_BYTES)
    }
}

/// All log files, by name.
pub(crate) struct Survey {
    pub(crate) files: Vec<FoundFile>,
    /// Place of the newest valid header in `files`.
    pub(crate) newest: Option<(usize, FileHeader)>,
}

impl Survey {
    /// Looks at every file in `directory` whose name is that of a log file.
    pub(crate) fn of(disk: &dyn Disk, directory: &Path) -> Result<Survey> {
        let paths = disk.list(directory).map_err(|source| Error::io("list", directory, source))?;
        let mut numbered: Vec<(u64, PathBuf)> =
            paths.into_iter().filter_map(|path| Some((number_of(&path)?, path))).collect();
        numbered.sort();
        let mut files = Vec::new();
        for (number, path) in numbered {
            files.push(look_at(disk, number, path)?);
        }
        let survey = Survey { newest: newest_of(&files), files };
        survey.check_identity()?;
        Ok(survey)
    }

    /// The number for the next file's name.
    pub(crate) fn next_number(&self) -> u64 {
        self.files.last().map_or(0, |file| file.number).saturating_add(1)
    }

    fn check_identity(&self) -> Result<()> {
        let mut headers = self.files.iter().filter_map(|file| Some((file, file.header?)));
        let Some((_, first)) = headers.next() else {
            return Ok(());
        };
        match headers.find(|(_, header)| header.store_id != first.store_id) {
            None => Ok(()),
            Some((file, _)) => Err(Error::Corrupt {
                path: file.path.clone(),
                offset: STORE_ID_OFFSET,
                what: "it belongs to another store than the log files before it",
            }),
        }
    }
}

fn newest_of(files: &[FoundFile]) -> Option<(usize, FileHeader)> {
    let headers = files.iter().enumerate().filter_map(|(place, file)| Some((place, file.header?)));
    headers.max_by_key(|(_, header)| header.sequence)
}

/// Reads the length and the header of a file.
pub(crate) fn look_at(disk: &dyn Disk, number: u64, path: PathBuf) -> Result<FoundFile> {
    let file = disk.open_read_only(&path).map_err(|source| Error::io("open", &path, source))?;
    let length = file.len().map_err(|source| Error::io("measure", &path, source))?;
    let mut block = vec![0; HEADER_BLOCK_BYTES as usize];
    let read = read_up_to(&*file, &mut block, 0).map_err(|source| Error::io("read", &path, source))?;
    block.truncate(read);
    let header = match FileHeader::decode_block(&block) {
        FileHeaderRead::Header(header) => Some(header),
        FileHeaderRead::TooNew(found) => return Err(Error::FormatTooNew { path, found, newest: FORMAT }),
        FileHeaderRead::None => None,
    };
    Ok(FoundFile { path, number, length, header })
}
