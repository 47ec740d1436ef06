//! Which storage call fails, and the record of the calls made.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// How a storage call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The device could not do it.
    Eio,
    /// No room is left.
    Enospc,
}

impl Failure {
    /// The error that the operating system gives.
    pub fn error(self) -> io::Error {
        io::Error::from_raw_os_error(match self {
            Failure::Eio => EIO,
            Failure::Enospc => ENOSPC,
        })
    }
}

/// The kind of a storage call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallKind {
    /// `Disk::open` or `Disk::open_read_only`.
    Open,
    /// `Disk::create`.
    Create,
    /// `Disk::create_directory`.
    CreateDirectory,
    /// `Disk::rename`.
    Rename,
    /// `Disk::remove`.
    Remove,
    /// `Disk::list`.
    List,
    /// `Disk::sync_directory`.
    SyncDirectory,
    /// `Disk::lock`.
    Lock,
    /// `DiskFile::read_at`.
    Read,
    /// `DiskFile::write_all_at`.
    Write,
    /// `DiskFile::sync_data`.
    Sync,
    /// `DiskFile::resize`.
    Resize,
    /// `DiskFile::len`.
    Length,
}

impl CallKind {
    /// Whether the call can change what is on the disk; a power cut before any other call shows nothing new.
    pub fn changes(self) -> bool {
        !matches!(self, CallKind::Open | CallKind::List | CallKind::Read | CallKind::Length)
    }
}

/// One storage call that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its number, from 0, as [`super::SimDisk::crash_at`] and [`super::SimDisk::fail_at`] count.
    pub index: u64,
    /// What was called.
    pub kind: CallKind,
    /// The file or directory.
    pub path: PathBuf,
    /// Number of the file, whatever its name, for calls on an open one.
    pub file: Option<u64>,
    /// Where in the file, for reads and writes.
    pub offset: u64,
    /// How many bytes, for reads and writes.
    pub bytes: usize,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "call {} {:?} {}", self.index, self.kind, self.path.display())?;
        match self.kind {
            CallKind::Read | CallKind::Write => write!(f, " [{}..{}]", self.offset, self.offset + self.bytes as u64),
            _ => Ok(()),
        }
    }
}

/// What to do with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Go,
    PowerIsOff,
    Fail(Failure),
}

/// The plan of failures and the record of calls.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) calls: Vec<Call>,
    pub(crate) crash_at: Option<u64>,
    pub(crate) fail_at: Option<(u64, Failure)>,
    pub(crate) power_is_off: bool,
}

impl Faults {
    /// Counts a call and says how it ends.
    pub(crate) fn count(&mut self, kind: CallKind, path: &Path) -> Verdict {
        self.count_at(kind, path, None, 0, 0)
    }

    /// Counts a call on an open file and says how it ends.
    pub(crate) fn count_at(
        &mut self,
        kind: CallKind,
        path: &Path,
        file: Option<u64>,
        offset: u64,
        bytes: usize,
    ) -> Verdict {
        let index = self.calls.len() as u64;
        self.power_is_off |= self.crash_at.is_some_and(|at| index >= at);
        if self.power_is_off {
            return Verdict::PowerIsOff;
        }
        self.calls.push(Call { index, kind, path: path.to_owned(), file, offset, bytes });
        match self.fail_at {
            Some((at, failure)) if at == index => Verdict::Fail(failure),
            _ => Verdict::Go,
        }
    }
}

pub(crate) fn power_is_off() -> io::Error {
    io::Error::other("the simulated power is off")
}
