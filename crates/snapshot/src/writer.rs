//! Makes the bytes of a snapshot: records in, frames out, each as soon as it is full.

use std::mem;

use crate::check::Totals;
use crate::format::{
    END_BYTES, FRAME_BYTES_MAX, FRAME_CRC_AT, FRAME_HEAD_BYTES, FrameHead, FrameKind, Header, PAYLOAD_BYTES_MAX,
};

/// Makes one snapshot. Every `Vec` that is handed out is the header or one whole frame.
#[derive(Debug)]
pub struct Writer {
    crc: u32,
    cut_version: u64,
    totals: Totals,
    /// The frame that records are put into, with room for its head.
    open: Vec<u8>,
    records: u32,
}

impl Writer {
    /// Begins a snapshot; returns the header's bytes, which come first.
    ///
    /// # Panics
    /// When the database map is over its limit.
    pub fn new(header: &Header) -> (Writer, Vec<u8>) {
        let bytes = header.encode();
        let crc = bytes.get(8..).and_then(|rest| rest.first_chunk()).map_or(0, |crc| u32::from_le_bytes(*crc));
        let cut_version = header.cut_version;
        (Writer { crc, cut_version, totals: Totals::default(), open: Vec::new(), records: 0 }, bytes)
    }

    /// Adds a record that comes in `parts`, one behind the other. Hands frames that are full to `each`.
    ///
    /// # Errors
    /// What `each` returns.
    pub fn record<E>(&mut self, parts: &[&[u8]], each: &mut dyn FnMut(Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        if bytes > self.room() {
            self.flush(each)?;
        }
        if bytes <= PAYLOAD_BYTES_MAX {
            parts.iter().for_each(|part| self.fill(part));
            self.records += 1;
            return Ok(());
        }
        let mut left = bytes;
        for part in parts {
            let mut part = *part;
            while !part.is_empty() {
                let (now, later) = part.split_at(part.len().min(self.room()));
                self.fill(now);
                (left, part) = (left - now.len(), later);
                if self.room() == 0 && left > 0 {
                    each(self.close(FrameKind::Part, 0))?;
                }
            }
        }
        each(self.close(FrameKind::LastPart, 1))
    }

    /// Ends the snapshot: hands the last frames to `each`.
    ///
    /// # Errors
    /// What `each` returns.
    pub fn finish<E>(mut self, each: &mut dyn FnMut(Vec<u8>) -> Result<(), E>) -> Result<Totals, E> {
        self.flush(each)?;
        let totals = self.totals;
        let mut end = [0; END_BYTES];
        let numbers = [totals.frames, totals.records, totals.payload_bytes, self.cut_version];
        for (place, number) in end.as_chunks_mut::<8>().0.iter_mut().zip(numbers) {
            *place = number.to_le_bytes();
        }
        self.fill(&end);
        each(self.close(FrameKind::End, 0))?;
        Ok(totals)
    }

    fn room(&self) -> usize {
        if self.open.is_empty() { PAYLOAD_BYTES_MAX } else { FRAME_BYTES_MAX - self.open.len() }
    }

    fn fill(&mut self, bytes: &[u8]) {
        if self.open.is_empty() {
            self.open.reserve(FRAME_BYTES_MAX);
            self.open.resize(FRAME_HEAD_BYTES, 0);
        }
        self.open.extend_from_slice(bytes);
    }

    fn flush<E>(&mut self, each: &mut dyn FnMut(Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        match mem::take(&mut self.records) {
            0 => Ok(()),
            records => each(self.close(FrameKind::Records, records)),
        }
    }

    /// Ends the open frame.
    fn close(&mut self, kind: FrameKind, records: u32) -> Vec<u8> {
        let mut frame = mem::take(&mut self.open);
        let Some((place, payload)) = frame.split_first_chunk_mut::<FRAME_HEAD_BYTES>() else {
            unreachable!("a frame that is closed has been filled");
        };
        let head = FrameHead { kind, payload_bytes: payload.len() as u32, records, crc: 0 };
        let covered = head.covered();
        self.crc = crc32c::crc32c_append(crc32c::crc32c_append(self.crc, &covered), payload);
        let (before, crc) = place.split_at_mut(FRAME_CRC_AT);
        before.copy_from_slice(&covered);
        crc.copy_from_slice(&self.crc.to_le_bytes());
        self.totals.frames += 1;
        self.totals.records += u64::from(records);
        self.totals.payload_bytes += payload.len() as u64;
        frame
    }
}
