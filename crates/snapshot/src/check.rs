//! Verifies a snapshot frame by frame: the chain of checksums, the order of frames, the totals.

use crate::Result;
use crate::error::SnapshotError;
use crate::format::{END_BYTES, FRAME_HEAD_BYTES, Fields, FrameHead, FrameKind, HEADER_BYTES, Header};

/// What has been seen of a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Frames, without the end.
    pub frames: u64,
    /// Records.
    pub records: u64,
    /// Bytes of payload.
    pub payload_bytes: u64,
}

/// Verifies the frames of one snapshot, in their order.
#[derive(Clone, Debug)]
pub struct Checker {
    header: Header,
    crc: u32,
    /// Bytes checked.
    offset: u64,
    totals: Totals,
    /// A record longer than a frame has begun.
    in_record: bool,
    is_complete: bool,
}

impl Checker {
    /// Begins with a whole header.
    ///
    /// # Errors
    /// `NotASnapshot`, `TooNew`, `Damaged`, `Incomplete`.
    pub fn new(header: &[u8]) -> Result<Checker> {
        let incomplete = SnapshotError::Incomplete { offset: header.len() as u64 };
        let (fixed, map) = header.split_first_chunk::<HEADER_BYTES>().ok_or(incomplete)?;
        Checker::begin(fixed, map)
    }

    pub(crate) fn begin(fixed: &[u8; HEADER_BYTES], map: &[u8]) -> Result<Checker> {
        let (header, crc) = Header::decode(fixed, map)?;
        let offset = (HEADER_BYTES + map.len()) as u64;
        Ok(Checker { header, crc, offset, totals: Totals::default(), in_record: false, is_complete: false })
    }

    /// What the snapshot says of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What was checked so far.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Bytes checked so far.
    pub fn bytes(&self) -> u64 {
        self.offset
    }

    /// Whether the end frame was seen: everything is there and nothing else.
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Checks one whole frame.
    ///
    /// # Errors
    /// `Damaged`, `Incomplete`.
    pub fn frame(&mut self, frame: &[u8]) -> Result<FrameHead> {
        let incomplete = SnapshotError::Incomplete { offset: self.offset + frame.len() as u64 };
        let (bytes, payload) = frame.split_first_chunk::<FRAME_HEAD_BYTES>().ok_or(incomplete)?;
        let head = self.head(bytes)?;
        self.payload(head, payload)?;
        Ok(head)
    }

    /// Reads a frame's head; nothing of it is verified but that it can be one.
    pub(crate) fn head(&self, bytes: &[u8; FRAME_HEAD_BYTES]) -> Result<FrameHead> {
        if self.is_complete {
            return Err(self.damaged("bytes follow its end"));
        }
        FrameHead::decode(bytes).ok_or_else(|| self.damaged("no frame stands where one must begin"))
    }

    /// Verifies a frame whose head was read.
    pub(crate) fn payload(&mut self, head: FrameHead, payload: &[u8]) -> Result<()> {
        let crc = crc32c::crc32c_append(crc32c::crc32c_append(self.crc, &head.covered()), payload);
        if crc != head.crc || payload.len() != head.payload_bytes as usize {
            return Err(self.damaged("a frame does not fit its checksum"));
        }
        let fits = match head.kind {
            FrameKind::Records => !self.in_record,
            FrameKind::Part => head.records == 0,
            FrameKind::LastPart => self.in_record && head.records == 1,
            FrameKind::End => !self.in_record && self.is_end(payload),
        };
        if !fits {
            return Err(self.damaged("a frame does not follow from those before it"));
        }
        self.in_record = head.kind == FrameKind::Part;
        self.crc = crc;
        self.offset += (FRAME_HEAD_BYTES + payload.len()) as u64;
        if head.kind == FrameKind::End {
            self.is_complete = true;
        } else {
            self.totals.frames += 1;
            self.totals.records += u64::from(head.records);
            self.totals.payload_bytes += payload.len() as u64;
        }
        Ok(())
    }

    fn is_end(&self, payload: &[u8]) -> bool {
        let Totals { frames, records, payload_bytes } = self.totals;
        let mut fields = Fields(payload);
        payload.len() == END_BYTES
            && [frames, records, payload_bytes, self.header.cut_version].iter().all(|known| fields.u64() == *known)
            && records == self.header.entries
    }

    fn damaged(&self, what: &'static str) -> SnapshotError {
        SnapshotError::Damaged { offset: self.offset, what }
    }
}
