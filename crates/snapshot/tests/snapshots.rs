//! Snapshots come back as they were written, in the bytes they always had; nothing else is taken for one.

use std::convert::Infallible;

use bowline_snapshot::{
    Checker, FRAME_BYTES_MAX, FrameKind, HEADER_BYTES, Header, PAYLOAD_BYTES_MAX, Reader, SnapshotError, Writer,
};
use proptest::prelude::*;

fn header(entries: u64) -> Header {
    Header {
        store_id: *b"0123456789abcdef",
        parent_store_id: *b"parentparentpare",
        hash_seed: *b"ABCDEFGHIJKLMNOP",
        fork_version: 0x3333,
        cut_version: 0x1111,
        log_position: 0x2222,
        taken_at_ms: 0x4444,
        entries,
        live_bytes: 0x66,
        databases: vec![7, 8, 9],
    }
}

/// The pieces of a snapshot of these records: header, frames.
fn pieces(records: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    let (mut writer, first) = Writer::new(&header(records.len() as u64));
    pieces.push(first);
    let mut each = |frame: Vec<u8>| -> Result<(), Infallible> {
        pieces.push(frame);
        Ok(())
    };
    for record in records {
        // In two parts, as a long value is given.
        let (head, rest) = record.split_at(record.len() / 3);
        writer.record(&[head, rest], &mut each).unwrap();
    }
    writer.finish(&mut each).unwrap();
    pieces
}

/// Reads a snapshot back as the bytes of its records, joined.
fn read(bytes: &[u8]) -> Result<(Header, Vec<u8>, u64), SnapshotError> {
    let mut reader = Reader::new(bytes)?;
    let mut joined = Vec::new();
    while let Some(frame) = reader.next_frame()? {
        joined.extend_from_slice(frame.payload);
    }
    Ok((reader.header().clone(), joined, reader.totals().records))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_bytes_of_a_snapshot_are_fixed() {
    let bytes = pieces(&[b"one".to_vec(), b"two!".to_vec()]).concat();
    let golden = include_str!("golden/snapshot-1.hex").split_whitespace().collect::<String>();
    assert_eq!(hex(&bytes), golden);
    assert_eq!(read(&bytes).unwrap(), (header(2), b"onetwo!".to_vec(), 2));
}

#[test]
fn one_wrong_bit_anywhere_is_refused() {
    let bytes = pieces(&[b"one".to_vec(), b"two!".to_vec()]).concat();
    for bit in 0..bytes.len() * 8 {
        let mut wrong = bytes.clone();
        wrong[bit / 8] ^= 1 << (bit % 8);
        assert!(read(&wrong).is_err(), "bit {bit}");
    }
}

#[test]
fn a_snapshot_that_breaks_off_anywhere_is_incomplete() {
    let bytes = pieces(&[b"one".to_vec(), b"two!".to_vec()]).concat();
    for cut in 1..bytes.len() {
        let error = read(&bytes[..cut]).unwrap_err();
        assert!(matches!(error, SnapshotError::Incomplete { offset } if offset == cut as u64), "{cut}: {error}");
    }
}

#[test]
fn a_newer_format_is_named_and_told_from_a_rotten_number() {
    let pieces = pieces(&[]);
    let mut header = pieces[0].clone();
    header[12] = 9;
    let error = read(&[header.clone(), pieces[1].clone()].concat()).unwrap_err();
    assert!(matches!(error, SnapshotError::Damaged { offset: 0, .. }), "{error}");
    // A newer header has more between what is known and the map.
    let more = b"something new".len();
    header.splice(120..120, *b"something new");
    header[14] += more as u8;
    let crc = crc32c::crc32c(&header[12..]);
    header[8..12].copy_from_slice(&crc.to_le_bytes());
    let error = read(&[header, pieces[1].clone()].concat()).unwrap_err();
    assert!(matches!(error, SnapshotError::TooNew { found: 9, newest: 1 }), "{error}");
}

#[test]
fn something_else_is_no_snapshot() {
    for bytes in [&b"REDIS0011"[..], &[b'x'; 500], b""] {
        let error = read(bytes).unwrap_err();
        let is_empty = bytes.is_empty();
        assert!(matches!(error, SnapshotError::NotASnapshot) || is_empty, "{error}");
    }
}

#[test]
fn frames_that_are_missing_repeated_exchanged_or_foreign_are_refused() {
    let whole = pieces(&[vec![1; PAYLOAD_BYTES_MAX], vec![2; PAYLOAD_BYTES_MAX], vec![3; 10]]);
    let foreign = pieces(&[vec![4; PAYLOAD_BYTES_MAX], vec![2; PAYLOAD_BYTES_MAX], vec![3; 10]]);
    assert_eq!(whole.len(), 5);
    let orders: [&[usize]; 5] = [&[0, 2, 3, 4], &[0, 1, 1, 2, 3, 4], &[0, 2, 1, 3, 4], &[0, 1, 2, 3, 4, 4], &[0, 4]];
    for order in orders {
        let bytes = order.iter().map(|place| whole[*place].as_slice()).collect::<Vec<_>>().concat();
        assert!(read(&bytes).is_err(), "{order:?}");
    }
    let mixed = [&whole[0], &whole[1], &foreign[2], &whole[3], &whole[4]].map(Vec::as_slice).concat();
    assert!(read(&mixed).is_err());
    assert!(read(&whole.concat()).is_ok());
}

#[test]
fn a_record_longer_than_a_frame_takes_several() {
    let long: Vec<u8> = (0..PAYLOAD_BYTES_MAX * 2 + 17).map(|place| place as u8).collect();
    let records = [b"before".to_vec(), long, b"after".to_vec()];
    let pieces = pieces(&records);
    let mut checker = Checker::new(&pieces[0]).unwrap();
    let kinds: Vec<FrameKind> = pieces[1..].iter().map(|frame| checker.frame(frame).unwrap().kind).collect();
    use FrameKind::{End, LastPart, Part, Records};
    assert_eq!(kinds, [Records, Part, Part, LastPart, Records, End]);
    assert!(checker.is_complete() && pieces.iter().all(|piece| piece.len() <= FRAME_BYTES_MAX));
    assert_eq!(read(&pieces.concat()).unwrap().1, records.concat());
}

#[test]
fn a_record_that_just_fits_is_whole() {
    for more in [0, 1] {
        let records = [vec![5; PAYLOAD_BYTES_MAX + more]];
        assert_eq!(pieces(&records).len(), 3 + more);
        assert_eq!(read(&pieces(&records).concat()).unwrap().1, records.concat());
    }
}

#[test]
fn totals_that_differ_from_the_headers_are_refused() {
    let (mut writer, mut bytes) = Writer::new(&header(2));
    let mut each = |frame: Vec<u8>| -> Result<(), Infallible> {
        bytes.extend(frame);
        Ok(())
    };
    writer.record(&[b"only one"], &mut each).unwrap();
    writer.finish(&mut each).unwrap();
    assert!(matches!(read(&bytes), Err(SnapshotError::Damaged { .. })));
}

#[test]
fn nothing_is_allocated_for_a_promised_length() {
    let mut bytes = pieces(&[b"one".to_vec()]).concat();
    let at = HEADER_BYTES + 3 + 4;
    bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(read(&bytes), Err(SnapshotError::Damaged { .. })));
    bytes[116..120].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(read(&bytes), Err(SnapshotError::Damaged { offset: 0, .. })));
}

proptest! {
    #[test]
    fn every_snapshot_comes_back(records in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..3000), 0..50)) {
        let pieces = pieces(&records);
        let (_, joined, count) = read(&pieces.concat()).unwrap();
        prop_assert_eq!(joined, records.concat());
        prop_assert_eq!(count, records.len() as u64);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), real: bool) {
        let mut all = if real { pieces(&[])[0].clone() } else { Vec::new() };
        all.extend(bytes);
        prop_assert!(read(&all).is_err());
    }
}
