//! The body of the fuzz target `log_frame`, shared by `fuzz/` and by the seeded test below. Not part of the API.
//!
//! Takes any bytes and panics when a rule of the formats is broken: what is read must be written back alike, and nothing
//! may be allocated by a length that the bytes only promise.

use crate::Version;
use crate::effect::Effect;
use crate::log::ReplayFrame;
use crate::log::format::{FileHeader, FrameHeader};

/// Reads the bytes as a file's header block, as a frame's header, and as the payload of a frame whose checksum is right.
pub fn log_frame(data: &[u8]) {
    let _ = FileHeader::decode_block(data);
    if let Some((header, _)) = FrameHeader::decode(data) {
        let (bytes, crc) = header.encode();
        assert_eq!(FrameHeader::decode(&bytes), Some((header, crc)), "a header reads back");
    }
    let frame = ReplayFrame::for_fuzzing(data.to_vec(), Version(1));
    for record in frame.records() {
        let Ok(record) = record else { break };
        let mut rest = record.effects;
        while let Ok((effect, after)) = Effect::decode(rest) {
            let mut again = Vec::new();
            effect.encode(&mut again);
            assert_eq!(Effect::decode(&again), Ok((effect, &b""[..])), "an effect reads back");
            assert!(after.len() < rest.len(), "reading an effect makes progress");
            rest = after;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::log_frame;
    use crate::effect::Effect;
    use crate::keyspace::DatabaseId;
    use crate::keyspace::entry::Value;
    use proptest::prelude::*;

    fn payload() -> Vec<u8> {
        let mut effects = Vec::new();
        let (database, key) = (DatabaseId(0), b"key".as_slice());
        Effect::Put { database, key, value: Value::Bytes(b"value"), expire_at: Some(1) }.encode(&mut effects);
        Effect::SetRange { database, key, offset: 3, bytes: b"bytes" }.encode(&mut effects);
        Effect::Move { database, key, to_database: database, to_key: b"other" }.encode(&mut effects);
        let mut payload = vec![0, effects.len() as u8];
        payload.extend_from_slice(&effects);
        payload
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            log_frame(&bytes);
        }

        #[test]
        fn a_payload_with_a_few_wrong_bytes_is_read_or_refused(edits in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..4)) {
            let mut bytes = payload();
            for (at, byte) in edits {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            log_frame(&bytes);
        }
    }
}
