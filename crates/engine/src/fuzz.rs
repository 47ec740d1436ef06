//! The bodies of the fuzz targets `log_frame`, `snapshot`, `block_record`, `block_file` and `remains`, shared by `fuzz/` and
//! by the seeded tests below. Not part of the API.
//!
//! Takes any bytes and panics when a rule of the formats is broken: what is read must be written back alike, and nothing
//! may be allocated by a length that the bytes only promise.

mod files;

use std::convert::Infallible;

use bowline_snapshot::{Header, SnapshotError, Totals, Writer};

use crate::Version;
use crate::blocks::Record;
use crate::blocks::compression::Decompressor;
use crate::blocks::format::manifest::{self, Manifest};
use crate::blocks::format::record::{Body, Method, ReadRecord, StoredValue, chunks_of, encode_inline};
use crate::blocks::format::superblock::{Superblock, SuperblockRead};
use crate::blocks::format::{BlockHeader, BlockKind, extent, leaf, table};
use crate::effect::Effect;
use crate::log::ReplayFrame;
use crate::log::format::{FileHeader, FrameHeader};
use crate::snapshot::SnapshotFile;

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

/// Reads the bytes as a snapshot, and as the records of one whose checksums are right; what is read reads back.
pub fn snapshot(data: &[u8]) {
    if let Ok(file) = SnapshotFile::new(data) {
        let _ = file.load(&mut |_, _| Ok(()));
    }
    let mut records = Vec::new();
    let _ = load(&[data], 1, &mut |record| records.push(encoded(&record)));
    let mut again = Vec::new();
    let parts: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
    let loaded = load(&parts, parts.len() as u64, &mut |record| again.push(encoded(&record)));
    assert!(loaded.is_ok(), "records that were written are read");
    assert_eq!(again, records, "a record reads back");
}

/// Reads the bytes as a record of the block file, and as a compressed value of the length that the first byte says.
pub fn block_record(data: &[u8]) {
    let mut decompressor = Decompressor::default();
    if let Some(record) = ReadRecord::decode(data) {
        assert!((1..=data.len()).contains(&record.bytes), "a record lies within its bytes");
        if let Body::Inline { value: StoredValue::Compressed(value), .. } = record.body {
            let given = decompressor.value(&value, None);
            assert!(
                given.is_none_or(|plain| plain.len() == value.plain_bytes),
                "a value is as long as its record says"
            );
        }
    }
    let Some((length, parts)) = data.split_first() else {
        return;
    };
    let plain_bytes = u64::from(*length) << 10;
    for method in [Method::Lz4, Method::Zstd] {
        let given = decompressor.parts(method, plain_bytes, parts);
        assert!(given.is_none_or(|plain| plain.len() as u64 == plain_bytes), "a value is as long as was said");
    }
}

/// Loads a snapshot with a record of each of `parts`.
fn load(parts: &[&[u8]], entries: u64, visit: &mut dyn FnMut(Record<'_>)) -> Result<Totals, SnapshotError> {
    let (mut writer, mut bytes) = Writer::new(&Header { entries, ..Header::default() });
    let mut each = |frame: Vec<u8>| -> Result<(), Infallible> {
        bytes.extend(frame);
        Ok(())
    };
    for part in parts {
        writer.record(&[part], &mut each).unwrap_or_else(|never| match never {});
    }
    writer.finish(&mut each).unwrap_or_else(|never| match never {});
    SnapshotFile::new(bytes.as_slice())?.load(&mut |record, _| {
        visit(record);
        Ok(())
    })
}

/// Reads the bytes as every part of a block file: as they are, and as the inside of a block with a right header.
pub fn block_file(data: &[u8]) {
    if let SuperblockRead::Superblock(superblock) = Superblock::decode(data) {
        let again = Superblock::decode(&superblock.encode());
        assert_eq!(again, SuperblockRead::Superblock(superblock), "a superblock reads back");
    }
    if let Some(manifest) = Manifest::decode(data) {
        assert_eq!(manifest.encode(), data, "a manifest is written as it was read");
    }
    let _ = chunks_of(data).count();
    walk_records(data);
    const BLOCK: usize = 4096;
    let detail = data.first_chunk().map_or(0, |bytes| u16::from_le_bytes(*bytes));
    for kind in BlockKind::ALL {
        let mut block = vec![0; BLOCK];
        let part = data.get(..BLOCK - 16).unwrap_or(data);
        block[16..16 + part.len()].copy_from_slice(part);
        BlockHeader { kind, detail, block: 5, sequence: 1 }.encode_into(&mut block);
        let _ = manifest::decode_block(&block, 5);
        read_table_page(&block);
        read_leaf(&block);
        let mut stream = Vec::new();
        let crc = crc32c::crc32c(&block);
        if let Ok(Some(first)) = extent::decode(&block, BLOCK, kind, 5, |_| crc, &mut stream) {
            walk_records(stream.get(first..).expect("a record starts within its block"));
        }
    }
}

fn read_table_page(block: &[u8]) {
    let Some(page) = table::page_of(block) else { return };
    if let Some(entries) = table::decode(block, 5, page) {
        let again = table::encode(block.len(), 5, 1, page, &entries);
        assert_eq!(table::decode(&again, 5, page), Some(entries), "a table page reads back");
    }
}

fn read_leaf(block: &[u8]) {
    let (mut entries, mut again) = (Vec::new(), Vec::new());
    let Some(database) = leaf::database_of(block) else { return };
    if leaf::decode(block, 5, database, &mut entries).is_none() || entries.is_empty() {
        return;
    }
    assert!(entries.is_sorted_by_key(|entry| entry.hash), "a leaf is in order");
    if leaf::fitting(block.len(), &entries) == entries.len() {
        let bytes = leaf::encode(block.len(), 5, 1, database, &entries);
        assert_eq!(leaf::decode(&bytes, 5, database, &mut again), Some(()), "a leaf reads back");
        assert_eq!(again, entries, "a leaf reads back");
    }
}

/// Reads records one behind the other, as the stream of an extent has them.
fn walk_records(mut stream: &[u8]) {
    while let Some(record) = ReadRecord::decode(stream) {
        assert!((1..=stream.len()).contains(&record.bytes), "a record takes some of the bytes");
        let _ = leaf::size_code(record.bytes.min(1 << 15), false);
        match record.body {
            Body::Inline { key, value: StoredValue::Plain(value) } => {
                let bytes = encoded(&record.with(key, value));
                let again = ReadRecord::decode(&bytes).expect("a record reads back");
                assert_eq!(again.with(key, value), record.with(key, value), "a record reads back");
                let torn = bytes.get(..bytes.len() - 1).unwrap_or_default();
                assert!(ReadRecord::decode(torn).is_none(), "a record is whole or none");
                let _ = ReadRecord::key_of_torn(torn);
            }
            Body::Inline { .. } => {}
            Body::Chunked { list, .. } => assert!(list.chunks().count() * 5 <= record.bytes),
        }
        stream = stream.get(record.bytes..).unwrap_or_default();
    }
    let _ = ReadRecord::key_of_torn(stream);
}

/// Reads whole files that are made of the bytes as a repair does.
pub fn remains(data: &[u8]) {
    files::block_remains(data);
    files::log_remains(data);
}

fn encoded(record: &Record<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_inline(record, &mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::{block_file, block_record, log_frame, remains, snapshot};
    use crate::Version;
    use crate::blocks::Record;
    use crate::effect::Effect;
    use crate::keyspace::DatabaseId;
    use crate::keyspace::entry::Value;
    use proptest::prelude::*;

    fn payload() -> Vec<u8> {
        let mut effects = Vec::new();
        let (database, key) = (DatabaseId(0), b"key".as_slice());
        Effect::Put { database, key, value: Value::Bytes(b"value"), expire_at: Some(1) }.encode(&mut effects);
        Effect::SetRange { database, key, offset: 3, bytes: bowline_resp::Bulk::Bytes(b"bytes") }.encode(&mut effects);
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
        fn any_record_of_a_block_file_is_read_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 1..300), flags: u8) {
            block_record(&bytes);
            bytes[0] = flags | 1 << 7;
            block_record(&bytes);
        }

        #[test]
        fn any_part_of_a_block_file_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..5000)) {
            block_file(&bytes);
        }

        #[test]
        fn any_remains_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            remains(&bytes);
        }

        #[test]
        fn any_snapshot_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            snapshot(&bytes);
        }

        #[test]
        fn records_with_a_few_wrong_bytes_are_read_or_refused(edits in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..4)) {
            let record = Record {
                database: DatabaseId(3),
                key: b"key",
                value: Value::Integer(-77),
                version: Version::at_ms(1_795_169_700_250),
                created: 1_795_169_000,
                expire_at: Some(9),
            };
            let mut bytes = [record, Record { value: Value::Bytes(b"some bytes"), ..record }].map(|record| super::encoded(&record)).concat();
            for (at, byte) in edits {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            snapshot(&bytes);
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
