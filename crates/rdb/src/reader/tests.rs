//! Files made by hand, byte by byte.

use super::*;
use crate::crc64;

/// `REDIS0012`, the bytes, the end mark and the right checksum.
fn file(body: &[u8]) -> Vec<u8> {
    let mut bytes = [b"REDIS0012", body, &[END]].concat();
    bytes.extend(crc64::extend(0, &bytes).to_le_bytes());
    bytes
}

fn read(bytes: &[u8]) -> Result<Vec<Item>, ReadError> {
    Reader::new(bytes)?.collect()
}

fn entry(key: &[u8], value: &[u8], expires_at_ms: Option<i64>) -> Item {
    Item::Entry(Entry { database: 0, key: key.to_vec(), value: value.to_vec(), expires_at_ms })
}

/// What the value of type `number` is, followed by an entry that shows where it ends.
fn kind_of(number: u8, value: &[u8]) -> ValueKind {
    let items = read(&file(&[&[number, 1, b'k'], value, b"\x00\x01a\x01b"].concat())).expect("a file");
    assert_eq!(items.last(), Some(&entry(b"a", b"b", None)));
    match items.into_iter().next() {
        Some(Item::Unsupported { key, kind, .. }) if key == b"k" => kind,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_expiry_and_its_companions_belong_to_the_next_entry_only() {
    let body = [
        &b"\xfc\x88\x13\0\0\0\0\0\0\xf9\x05\x00\x01a\x01x"[..],
        b"\x00\x01b\x01y",
        b"\xfd\x07\0\0\0\xf8\x40\x64\x00\x01c\xc0\xff",
    ]
    .concat();
    let items = read(&file(&body)).expect("a file");
    assert_eq!(items, [entry(b"a", b"x", Some(5000)), entry(b"b", b"y", None), entry(b"c", b"-1", Some(7000))]);
}

#[test]
fn databases_sizes_fields_functions_and_slots_are_told() {
    let items =
        read(&file(b"\xfa\x01n\x01v\xf5\x03lib\xf4\x01\x02\x03\xfe\x09\xfb\x02\x01\x00\x01a\x01b")).expect("a file");
    let text = |text: &[u8]| text.to_vec();
    assert_eq!(
        items,
        [
            Item::Auxiliary { name: text(b"n"), value: text(b"v") },
            Item::Function(text(b"lib")),
            Item::Database(9),
            Item::Sizes { keys: 2, expiring: 1 },
            Item::Entry(Entry { database: 9, key: text(b"a"), value: text(b"b"), expires_at_ms: None }),
        ]
    );
}

#[test]
fn every_other_type_is_walked_over_exactly() {
    let string = b"\x03abc";
    assert_eq!(kind_of(1, b"\x02\x01x\xc0\x05"), ValueKind::List);
    assert_eq!(kind_of(2, b"\x01\x01x"), ValueKind::Set);
    assert_eq!(kind_of(3, b"\x04\x01x\x031.5\x01y\xfd\x01z\xfe\x01w\xff"), ValueKind::SortedSet);
    assert_eq!(kind_of(4, b"\x01\x01f\x01v"), ValueKind::Hash);
    assert_eq!(kind_of(5, b"\x01\x01x\0\0\0\0\0\0\xf8\x3f"), ValueKind::SortedSet);
    for (numbers, kind) in [
        (&[9, 13, 16][..], ValueKind::Hash),
        (&[10], ValueKind::List),
        (&[11, 20], ValueKind::Set),
        (&[12, 17], ValueKind::SortedSet),
    ] {
        numbers.iter().for_each(|number| assert_eq!(kind_of(*number, string), kind));
    }
    assert_eq!(kind_of(14, b"\x02\x03abc\xc3\x04\x04\x00a\x20\x00"), ValueKind::List);
    assert_eq!(kind_of(18, b"\x02\x01\x03abc\x02\x03def"), ValueKind::List);
}

#[test]
fn hashes_with_expiring_fields_are_walked_over() {
    assert_eq!(kind_of(24, b"\x01\x02\x03\x04\x05\x06\x07\x08\x02\x00\x01f\x01v\x41\x00\x01g\x01w"), ValueKind::Hash);
    assert_eq!(kind_of(25, b"\x01\x02\x03\x04\x05\x06\x07\x08\x03abc"), ValueKind::Hash);
    let mut valkey = b"VALKEY080\x16\x01k\x01\x01f\x01v\xff\xff\xff\xff\xff\xff\xff\xff\xff".to_vec();
    valkey.extend([0; 8]);
    let kinds: Vec<Item> = read(&valkey).expect("a file");
    assert!(matches!(&kinds[..], [Item::Unsupported { kind: ValueKind::Hash, .. }]));
}

#[test]
fn streams_of_every_release_are_walked_over() {
    let node = b"\x01\x10................\x03abc";
    let first = [
        &node[..],
        b"\x01\x05\x00",
        b"\x01\x01g\x05\x00",
        b"\x01",
        &[7; 24],
        b"\x01",
        b"\x01\x01c",
        &[7; 8],
        b"\x01",
        &[7; 16],
    ];
    assert_eq!(kind_of(15, &first.concat()), ValueKind::Stream);
    let figures = b"\x01\x05\x00\x05\x00\x00\x00\x01";
    let second = [
        &node[..],
        figures,
        b"\x01\x01g\x05\x00\x01",
        b"\x01",
        &[7; 24],
        b"\x01",
        b"\x01\x01c",
        &[7; 8],
        b"\x01",
        &[7; 16],
    ];
    assert_eq!(kind_of(19, &second.concat()), ValueKind::Stream);
    let third = [&node[..], figures, b"\x01\x01g\x05\x00\x01", b"\x00", b"\x01\x01c", &[7; 16], b"\x00"];
    assert_eq!(kind_of(21, &third.concat()), ValueKind::Stream);
}

#[test]
fn values_and_data_of_modules_are_walked_over_and_named() {
    let number = b"\x81\x30\x11\xb9\xa6\xca\xfb\xef\x82";
    let values = b"\x01\x05\x02\x06\x03abcd\x04abcdefgh\x05\x02hi\x00";
    let ValueKind::Module(name) = kind_of(7, &[&number[..], values].concat()) else { panic!("a module") };
    assert_eq!(name.len(), 9);
    let items = read(&file(&[&b"\xf7"[..], number, b"\x02\x02", values].concat())).expect("a file");
    assert_eq!(items, [Item::ModuleData { module: name }]);
}

#[test]
fn a_longer_string_than_the_limit_is_named_and_passed_over() {
    let limits = Limits { string_bytes_max: 4 };
    let bytes = file(b"\x00\x01k\x05hello\x00\x01z\xc3\x04\x05\x00a\x40\x00\x00\x01a\x01b");
    let items: Vec<Item> =
        Reader::with_limits(&bytes[..], limits).expect("a header").collect::<Result<_, _>>().expect("a file");
    assert!(matches!(&items[0], Item::Unsupported { kind: ValueKind::LongString { bytes: 5 }, .. }));
    assert!(matches!(&items[1], Item::Unsupported { kind: ValueKind::LongString { bytes: 5 }, .. }));
    assert_eq!(items[2], entry(b"a", b"b", None));
    let long_key = Reader::with_limits(&file(b"\x00\x05hello\x01b")[..], limits).expect("a header").next();
    assert!(matches!(long_key, Some(Err(ReadError::Damaged { .. }))));
}

#[test]
fn another_file_and_a_newer_one_are_refused_by_name() {
    let message = |bytes: &[u8]| read(bytes).expect_err("no RDB").to_string();
    assert!(message(b"*2\r\n$6\r\nSELECT\r\n").contains("begins with \"*2\\r\\n$6"));
    assert!(message(b"REDIS0013\xff").contains("version 13, and this program reads versions 1 to 12"));
    assert!(message(b"VALKEY081\xff").contains("version 81"));
    assert!(message(b"REDIS0000\xff").contains("never written"));
    assert!(message(b"REDIS").contains("ends at byte 5"));
}

#[test]
fn a_cut_anywhere_is_told_with_its_place() {
    let bytes = file(b"\xfe\x00\x00\x01a\x01b\x0e\x01l\x01\x03abc");
    for cut in HEADER_BYTES..bytes.len() {
        match read(&bytes[..cut]) {
            Err(ReadError::Truncated { offset, .. }) => assert_eq!(offset, cut as u64),
            other => panic!("cut at {cut}: {other:?}"),
        }
    }
}

#[test]
fn a_flipped_bit_anywhere_is_found() {
    let bytes = file(b"\xfe\x00\xfb\x02\x00\x00\x03key\x05value\x00\x01l\xc3\x04\x04\x00a\x20\x00");
    for place in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[place] ^= 1 << bit;
            // Below version 5 there is no checksum: the one digit whose change is a promise of less.
            let older = flipped.starts_with(b"REDIS000") && flipped[8] < b'5';
            assert!(older || read(&flipped).is_err(), "byte {place}, bit {bit}");
        }
    }
}

#[test]
fn a_checksum_of_zero_was_switched_off() {
    let mut bytes = file(b"\x00\x01a\x01b");
    let end = bytes.len() - 8;
    bytes[end..].fill(0);
    assert_eq!(read(&bytes).expect("a file"), [entry(b"a", b"b", None)]);
    bytes[end] = 1;
    assert!(matches!(read(&bytes), Err(ReadError::Checksum { offset, stored: 1, .. }) if offset == end as u64));
    let old = read(b"REDIS0003\x00\x01a\x01b\xff").expect("a file without a checksum");
    assert_eq!(old, [entry(b"a", b"b", None)]);
}

#[test]
fn what_cannot_be_passed_is_named_with_its_key() {
    let message = read(&file(b"\x06\x03key\x01x")).expect_err("unknown").to_string();
    assert!(message.contains("key \"key\" with a value of type 6 at byte 9"), "{message}");
    let message = read(&file(b"\xf3\x01")).expect_err("unknown").to_string();
    assert!(message.contains("an operation 243 at byte 9"), "{message}");
}

#[test]
fn what_follows_the_end_is_left_to_the_next_reader() {
    let bytes = [file(b"\x00\x01a\x01b"), b"*1\r\n$4\r\nPING\r\n".to_vec()].concat();
    let mut reader = Reader::new(&bytes[..]).expect("a header");
    assert_eq!(reader.by_ref().count(), 1);
    assert_eq!(reader.offset(), bytes.len() as u64 - 14);
    assert_eq!(reader.into_source(), b"*1\r\n$4\r\nPING\r\n");
}
