//! A snapshot file becomes records again. Every byte is verified before its record is passed on; whether the file is
//! complete is known only at its end.

use std::io::{self, Read};
use std::path::Path;

use bowline_snapshot::{FrameKind, Header, Reader, SnapshotError, Totals};

use crate::blocks::Record;
use crate::blocks::format::record::{Body, ReadRecord, StoredValue};
use crate::disk::{Disk, DiskFile};
use crate::limits::VALUE_BYTES_MAX;

/// Longest record: a key, a value, and what is between them.
const RECORD_BYTES_MAX: usize = 2 * VALUE_BYTES_MAX + 1024;

type Result<T, E = SnapshotError> = std::result::Result<T, E>;

/// A file of a disk, read from its begin to its end.
pub(crate) struct Input {
    file: Box<dyn DiskFile>,
    offset: u64,
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

/// A snapshot whose header has been read.
pub(crate) struct SnapshotFile<R = Input> {
    reader: Reader<R>,
}

impl SnapshotFile<Input> {
    /// Reads the header.
    pub(crate) fn open(disk: &dyn Disk, path: &Path) -> Result<SnapshotFile> {
        let file = disk.open_read_only(path)?;
        SnapshotFile::new(Input { file, offset: 0 })
    }
}

impl<R: Read> SnapshotFile<R> {
    /// Reads the header from any bytes.
    pub(crate) fn new(input: R) -> Result<SnapshotFile<R>> {
        Ok(SnapshotFile { reader: Reader::new(input)? })
    }

    /// What the snapshot says of itself.
    pub(crate) fn header(&self) -> &Header {
        self.reader.header()
    }

    /// Passes every record to `visit`, with the number of those before it, and verifies that the file is complete. What
    /// `visit` refuses is damage.
    pub(crate) fn load(mut self, visit: &mut dyn FnMut(Record<'_>, u64) -> Result<(), &'static str>) -> Result<Totals> {
        let mut long = Vec::new();
        let mut loaded = 0;
        loop {
            let offset = self.reader.bytes();
            let damaged = |what| SnapshotError::Damaged { offset, what };
            let Some(frame) = self.reader.next_frame()? else {
                return Ok(self.reader.totals());
            };
            let mut rest = frame.payload;
            if frame.kind != FrameKind::Records {
                if long.len() + rest.len() > RECORD_BYTES_MAX {
                    return Err(damaged("a record is longer than any can be"));
                }
                long.extend_from_slice(rest);
                if frame.kind == FrameKind::Part {
                    continue;
                }
                rest = &long;
            }
            let mut records = 0;
            while !rest.is_empty() {
                let read = ReadRecord::decode(rest).ok_or(damaged("no record stands where one must begin"))?;
                let Body::Inline { key, value: StoredValue::Plain(value) } = read.body else {
                    return Err(damaged("a record is compressed or names blocks of another file"));
                };
                visit(read.with(key, value), loaded).map_err(damaged)?;
                rest = rest.get(read.bytes..).unwrap_or_default();
                (records, loaded) = (records + 1, loaded + 1);
            }
            if records != frame.records {
                return Err(damaged("a frame has fewer or more records than it says"));
            }
            if frame.kind == FrameKind::LastPart {
                // The next one is rarely as long.
                long = Vec::new();
            }
        }
    }
}

/// Verifies a snapshot file: every checksum, every record, the totals. Returns its header and totals.
///
/// # Errors
/// [`SnapshotError`]: it cannot be restored.
pub fn check(disk: &dyn Disk, path: &Path) -> Result<(Header, Totals)> {
    let file = SnapshotFile::open(disk, path)?;
    let header = file.header().clone();
    let totals = file.load(&mut |_, _| Ok(()))?;
    Ok((header, totals))
}
