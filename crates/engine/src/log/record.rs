//! The records of a frame: one command each, all of it or nothing.
//!
//! ```text
//!  payload = record, record, ...         record = version - first version of the frame (varint, at most 10 bytes),
//!                                                 length (varint, at most 5 bytes), that many bytes of effects
//!  varint  = LEB128                      versions rise strictly
//! ```
//!
//! Not here: what an effect is ([`crate::effect`]), the frame around them (`format`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::format::FRAME_HEADER_BYTES;
use crate::error::{Error, Result};
use crate::version::Version;

/// Most bytes before the effects of a record.
pub(crate) const RECORD_HEADER_BYTES_MAX: usize = 10 + 5;

/// Appends what stands before the effects of a record.
pub(crate) fn encode_record_header(out: &mut Vec<u8>, delta: u64, effect_bytes: u32) {
    encode_varint(out, delta);
    encode_varint(out, u64::from(effect_bytes));
}

fn encode_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Reads a varint at `at`; returns it and where it ends.
fn decode_varint(bytes: &[u8], mut at: usize) -> Option<(u64, usize)> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(at)?;
        at += 1;
        let bits = u64::from(byte & 0x7F);
        if bits << shift >> shift != bits {
            return None;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Some((number, at));
        }
    }
    None
}

/// One command as the log keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The version of everything that the command changed.
    pub version: Version,
    /// Its effects, one after the other.
    pub effects: &'a [u8],
    /// Where in the frame's payload the effects begin.
    pub offset: usize,
}

/// A frame read back: valid bytes of this log, in order.
#[derive(Debug)]
pub struct ReplayFrame {
    /// The records.
    pub payload: Vec<u8>,
    /// Version of the first record.
    pub first_version: Version,
    /// Version of the last record.
    pub last_version: Version,
    /// Where in the log the frame begins.
    pub position: u64,
    pub(crate) record_count: u32,
    pub(crate) path: Arc<Path>,
    /// Where in its file the frame begins.
    pub(crate) file_offset: u64,
}

impl ReplayFrame {
    /// A payload as if it had come from a frame with a valid checksum.
    pub(crate) fn for_fuzzing(payload: Vec<u8>, first_version: Version) -> ReplayFrame {
        let (last_version, path) = (Version::MAX, Arc::from(Path::new("fuzzed")));
        ReplayFrame { payload, first_version, last_version, position: 0, record_count: 1, path, file_offset: 0 }
    }

    /// The records in the order of their versions.
    ///
    /// An item is `Error::Corrupt` when the bytes are no records although the frame's crc is right; nothing follows it.
    pub fn records(&self) -> Records<'_> {
        Records { frame: self, at: 0, newest: None, seen: 0, failed: false }
    }

    /// How many records the frame has.
    pub fn record_count(&self) -> u32 {
        self.record_count
    }

    fn corrupt(&self, at: usize, what: &'static str) -> Error {
        let offset = self.file_offset + (FRAME_HEADER_BYTES + at) as u64;
        Error::Corrupt { path: PathBuf::from(&*self.path), offset, what }
    }
}

/// The records of a frame, one by one.
#[derive(Debug)]
pub struct Records<'a> {
    frame: &'a ReplayFrame,
    at: usize,
    newest: Option<Version>,
    seen: u32,
    failed: bool,
}

impl<'a> Records<'a> {
    fn read(&mut self) -> Option<Record<'a>> {
        let payload = &self.frame.payload;
        let (delta, at) = decode_varint(payload, self.at)?;
        let (length, at) = decode_varint(payload, at)?;
        let end = at.checked_add(usize::try_from(length).ok()?)?;
        let effects = payload.get(at..end)?;
        let version = Version(self.frame.first_version.0.checked_add(delta)?);
        let in_order = match self.newest {
            None => delta == 0,
            Some(newest) => version > newest,
        };
        if !in_order || version > self.frame.last_version {
            return None;
        }
        self.at = end;
        self.newest = Some(version);
        self.seen = self.seen.checked_add(1)?;
        Some(Record { version, effects, offset: at })
    }

    fn fail(&mut self, what: &'static str) -> Option<Result<Record<'a>>> {
        self.failed = true;
        Some(Err(self.frame.corrupt(self.at, what)))
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        if self.at < self.frame.payload.len() {
            return match self.read() {
                Some(record) => Some(Ok(record)),
                None => self.fail("no record stands where one must begin"),
            };
        }
        let complete =
            self.seen == self.frame.record_count && self.newest.is_none_or(|newest| newest == self.frame.last_version);
        if complete { None } else { self.fail("the frame has fewer or other records than its header says") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(payload: Vec<u8>, first: u64, last: u64, record_count: u32) -> ReplayFrame {
        let path = Arc::from(Path::new("/log/00000001.log"));
        let (first_version, last_version) = (Version(first), Version(last));
        ReplayFrame { payload, first_version, last_version, position: 0, record_count, path, file_offset: 4096 }
    }

    fn encode(records: &[(u64, Vec<u8>)]) -> ReplayFrame {
        let first = records[0].0;
        let mut payload = Vec::new();
        for (version, effects) in records {
            encode_record_header(&mut payload, version - first, effects.len() as u32);
            payload.extend_from_slice(effects);
        }
        frame(payload, first, records[records.len() - 1].0, records.len() as u32)
    }

    #[test]
    fn the_bytes_of_records_are_fixed() {
        let frame = encode(&[(500, b"ab".to_vec()), (800, vec![7; 130])]);
        let mut golden = vec![0, 2, b'a', b'b', 0xAC, 0x02, 0x82, 0x01];
        golden.extend([7; 130]);
        assert_eq!(frame.payload, golden);
    }

    proptest! {
        #[test]
        fn records_come_back_in_order(
            first in 1..u64::MAX / 2,
            records in prop::collection::vec((1..1u64 << 40, prop::collection::vec(any::<u8>(), 0..300)), 1..20),
        ) {
            let mut version = first - 1;
            let records: Vec<_> = records.into_iter().map(|(step, effects)| { version += step; (version, effects) }).collect();
            let frame = encode(&records);
            let read: Vec<_> = frame.records().map(|record| record.unwrap()).collect();
            prop_assert_eq!(read.len(), records.len());
            for (record, (version, effects)) in read.iter().zip(&records) {
                prop_assert_eq!((record.version, record.effects), (Version(*version), &effects[..]));
                prop_assert_eq!(&frame.payload[record.offset..record.offset + effects.len()], &effects[..]);
            }
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(
            payload in prop::collection::vec(any::<u8>(), 0..200), first: u64, last: u64, count in 0..5u32,
        ) {
            frame(payload, first, last, count).records().for_each(drop);
        }
    }

    fn failure(frame: &ReplayFrame) -> (u64, &'static str) {
        match frame.records().find_map(Result::err) {
            Some(Error::Corrupt { offset, what, .. }) => (offset, what),
            other => panic!("not damage: {other:?}"),
        }
    }

    #[test]
    fn a_record_longer_than_its_frame_is_damage_at_its_offset() {
        let mut frame = encode(&[(5, b"abc".to_vec()), (6, b"def".to_vec())]);
        frame.payload[6] = 200;
        assert_eq!(failure(&frame).0, 4096 + 144 + 5);
    }

    #[test]
    fn a_version_that_does_not_rise_is_damage() {
        let mut frame = encode(&[(5, b"abc".to_vec()), (6, b"def".to_vec())]);
        frame.payload[5] = 0;
        assert_eq!(failure(&frame).0, 4096 + 144 + 5);
    }

    #[test]
    fn a_frame_with_fewer_records_than_it_says_is_damage() {
        let mut frame = encode(&[(5, b"abc".to_vec())]);
        frame.record_count = 2;
        assert!(failure(&frame).1.contains("fewer"));
    }
}
