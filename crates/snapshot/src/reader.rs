//! Reads a snapshot from anything that can be read. Holds one frame.

use std::io::{ErrorKind, Read};

use crate::Result;
use crate::check::{Checker, Totals};
use crate::error::SnapshotError;
use crate::format::{FRAME_HEAD_BYTES, FrameKind, HEADER_BYTES, Header};

/// A frame that has been verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it holds; never the end.
    pub kind: FrameKind,
    /// Records that end in it.
    pub records: u32,
    /// Its payload.
    pub payload: &'a [u8],
}

/// Reads a snapshot, frame by frame, and verifies every byte.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    checker: Checker,
    payload: Vec<u8>,
}

impl<R: Read> Reader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// `NotASnapshot`, `TooNew`, `Damaged`, `Incomplete`, `Io`.
    pub fn new(mut input: R) -> Result<Reader<R>> {
        let mut fixed = [0; HEADER_BYTES];
        let read = fill(&mut input, &mut fixed)?;
        if read < HEADER_BYTES {
            // What is shorter than a header and begins otherwise is something else.
            let begins = Header::default().encode().iter().zip(&fixed).take(read.min(8)).all(|(a, b)| a == b);
            let incomplete = SnapshotError::Incomplete { offset: read as u64 };
            return Err(if begins { incomplete } else { SnapshotError::NotASnapshot });
        }
        let mut map = vec![0; Header::bytes_after(&fixed)?];
        let read = fill(&mut input, &mut map)?;
        if read < map.len() {
            return Err(SnapshotError::Incomplete { offset: (HEADER_BYTES + read) as u64 });
        }
        Ok(Reader { input, checker: Checker::begin(&fixed, &map)?, payload: Vec::new() })
    }

    /// What the snapshot says of itself.
    pub fn header(&self) -> &Header {
        self.checker.header()
    }

    /// What was read so far.
    pub fn totals(&self) -> Totals {
        self.checker.totals()
    }

    /// Bytes read so far.
    pub fn bytes(&self) -> u64 {
        self.checker.bytes()
    }

    /// The next frame with records; `None` after the end frame, behind which nothing stands.
    ///
    /// # Errors
    /// `Damaged`, `Incomplete`, `Io`.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>> {
        let mut bytes = [0; FRAME_HEAD_BYTES];
        let read = fill(&mut self.input, &mut bytes)?;
        if self.checker.is_complete() && read == 0 {
            return Ok(None);
        }
        if read < FRAME_HEAD_BYTES && !self.checker.is_complete() {
            return Err(SnapshotError::Incomplete { offset: self.bytes() + read as u64 });
        }
        let head = self.checker.head(&bytes)?;
        // At most a frame, however long it says it is.
        self.payload.resize(head.payload_bytes as usize, 0);
        let read = fill(&mut self.input, &mut self.payload)?;
        if read < self.payload.len() {
            return Err(SnapshotError::Incomplete { offset: self.bytes() + (FRAME_HEAD_BYTES + read) as u64 });
        }
        self.checker.payload(head, &self.payload)?;
        match head.kind {
            // Once more, for what must not follow.
            FrameKind::End => self.next_frame(),
            kind => Ok(Some(Frame { kind, records: head.records, payload: &self.payload })),
        }
    }

    /// Reads to the end and verifies everything; calls `progress` after every frame.
    ///
    /// # Errors
    /// As [`Reader::next_frame`].
    pub fn verify(mut self, progress: &mut dyn FnMut(&Checker)) -> Result<Checker> {
        while self.next_frame()?.is_some() {
            progress(&self.checker);
        }
        Ok(self.checker)
    }
}

/// Reads until `buffer` is full or the input ends; returns how much.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> Result<usize> {
    let mut read = 0;
    while let Some(rest) = buffer.get_mut(read..).filter(|rest| !rest.is_empty()) {
        match input.read(rest) {
            Ok(0) => break,
            Ok(count) => read += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(read)
}
