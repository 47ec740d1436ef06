//! Verifies a log without changing a byte.

use std::path::{Path, PathBuf};

use super::Progress;
use super::scan::{Reader, Scan, check_headerless};
use super::survey::Survey;
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::version::Version;

/// What a log file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileState {
    /// It holds frames that a restart reads.
    Live,
    /// It is the newest file, where the log goes on.
    Active,
    /// Nothing in it matters: made ahead or recycled.
    Spare,
}

/// One log file.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CheckedFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// What it is for; as far as the check came.
    pub state: FileState,
    /// Position of its first frame, if it has a valid header.
    pub start_position: Option<u64>,
    /// Its place in the log, if it has a valid header.
    pub sequence: Option<u64>,
}

/// What a check found.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct CheckReport {
    /// The log files by name.
    pub files: Vec<CheckedFile>,
    /// Valid frames.
    pub frames: u64,
    /// Valid records that a restart would replay.
    pub records: u64,
    /// Bytes of the valid frames.
    pub bytes: u64,
    /// Position where the log ends.
    pub end_position: u64,
    /// The newest version.
    pub last_version: Version,
    /// Bytes of frames that had begun to be written; a restart cuts them. Not damage: nobody was told of them.
    pub torn_bytes: u64,
    /// Whether the log was closed in order.
    pub was_closed: bool,
    /// Why the log would not open.
    pub damage: Option<Error>,
}

/// Reads every file of the log in `directory` and verifies it as opening would, and every record. The store must not be
/// running.
///
/// # Errors
/// Only what keeps it from reading: `Io`, `FormatTooNew`. Damage stands in the report.
pub fn check(directory: &Path, disk: &dyn Disk) -> Result<CheckReport> {
    let mut report = CheckReport::default();
    let survey = match Survey::of(disk, directory) {
        Ok(survey) => survey,
        Err(damage @ Error::Corrupt { .. }) => {
            report.damage = Some(damage);
            return Ok(report);
        }
        Err(error) => return Err(error),
    };
    let mut scan = Scan::default();
    let ignore = |_: Progress| {};
    let mut verify = |frame: super::ReplayFrame| frame.records().try_for_each(|record| record.map(drop));
    let mut reader = Reader { disk, survey: &survey, deliver: &mut verify, progress: &ignore };
    let result = match survey.newest {
        Some(newest) => scan.run(&mut reader, newest),
        None => check_headerless(disk, &survey).map(drop),
    };
    match result {
        Ok(()) => {}
        Err(damage @ Error::Corrupt { .. }) => report.damage = Some(damage),
        Err(error) => return Err(error),
    }
    for (place, file) in survey.files.iter().enumerate() {
        let state = match scan.chain.iter().position(|live| *live == place) {
            Some(at) if at + 1 == scan.chain.len() => FileState::Active,
            Some(_) => FileState::Live,
            None => FileState::Spare,
        };
        let header = file.header;
        report.files.push(CheckedFile {
            path: file.path.clone(),
            bytes: file.length,
            state,
            start_position: header.map(|header| header.start_position),
            sequence: header.map(|header| header.sequence),
        });
    }
    report.frames = scan.frames;
    report.records = scan.records;
    report.bytes = scan.bytes;
    report.end_position = scan.position;
    report.last_version = scan.last_version;
    report.torn_bytes = scan.torn_bytes;
    report.was_closed = scan.was_closed;
    Ok(report)
}
