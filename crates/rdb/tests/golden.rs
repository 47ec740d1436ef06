//! Files made by redis-server 7.0 (`tests/data`), as they must be read for ever.

use bowline_rdb::{Entry, Item, Magic, Reader, ValueKind};

/// Database, key, value, expiry.
type Row<'a> = (u64, &'a [u8], &'a [u8], Option<i64>);

const STRINGS: &[u8] = include_bytes!("data/strings-redis-7.0.rdb");
const TYPES: &[u8] = include_bytes!("data/types-redis-7.0.rdb");
const WITHOUT_CHECKSUM: &[u8] = include_bytes!("data/no-checksum-redis-7.0.rdb");

fn read(file: &[u8]) -> Vec<Item> {
    let mut reader = Reader::new(file).expect("a header");
    assert_eq!((reader.magic(), reader.version()), (Magic::Redis, 10));
    let items = reader.by_ref().collect::<Result<_, _>>().expect("a whole file");
    assert_eq!(reader.offset(), file.len() as u64);
    items
}

fn entries(file: &[u8]) -> Vec<Entry> {
    let entry = |item| if let Item::Entry(entry) = item { Some(entry) } else { None };
    let mut entries: Vec<Entry> = read(file).into_iter().filter_map(entry).collect();
    entries.sort_by(|one, other| (one.database, &one.key).cmp(&(other.database, &other.key)));
    entries
}

#[test]
fn strings_in_every_encoding_with_expiries_and_databases() {
    let all_bytes: Vec<u8> = (0..=255).collect();
    let backwards: Vec<u8> = (0..=255).rev().collect();
    let hundred: Vec<u8> = (0_u32..100).map(|i| 33 + ((i * i * 7 + i / 3) % 90) as u8).collect();
    let expected: &[Row<'_>] = &[
        (0, &all_bytes, &backwards, None),
        (0, b"empty", b"", None),
        (0, b"expires", b"later", Some(4_102_444_800_123)),
        (0, b"i16", b"30000", None),
        (0, b"i32", b"-2000000000", None),
        (0, b"i64", b"9000000000000", None),
        (0, b"i8", b"-100", None),
        (0, b"length14", &hundred, None),
        (0, b"lzf", &b"abc".repeat(100), None),
        (0, b"notint", b"007", None),
        (0, b"text", b"hello", None),
        (3, b"also", b"expires", Some(4_102_444_800_000)),
        (3, b"three", b"3", None),
        (15, b"last", b"database", None),
    ];
    let found = entries(STRINGS);
    assert_eq!(found.len(), expected.len());
    for (entry, (database, key, value, expires_at_ms)) in found.iter().zip(expected) {
        let wanted =
            Entry { database: *database, key: key.to_vec(), value: value.to_vec(), expires_at_ms: *expires_at_ms };
        assert_eq!(*entry, wanted);
    }
    let sizes: Vec<Item> = read(STRINGS).into_iter().filter(|item| matches!(item, Item::Sizes { .. })).collect();
    assert_eq!(sizes.first(), Some(&Item::Sizes { keys: 11, expiring: 1 }));
}

#[test]
fn the_fields_about_the_file_name_the_release() {
    let release = read(STRINGS).into_iter().find_map(|item| match item {
        Item::Auxiliary { name, value } if name == b"redis-ver" => Some(value),
        _ => None,
    });
    assert_eq!(release.as_deref(), Some(&b"7.0.15"[..]));
}

#[test]
fn values_of_other_types_are_named_and_the_strings_among_them_read() {
    let mut named = Vec::new();
    for item in read(TYPES) {
        if let Item::Unsupported { key, kind, .. } = item {
            named.push((String::from_utf8(key).expect("a plain key"), kind));
        }
    }
    named.sort_by(|one, other| one.0.cmp(&other.0));
    let expected = [
        ("hash", ValueKind::Hash),
        ("hashset", ValueKind::Set),
        ("hashtable", ValueKind::Hash),
        ("intset", ValueKind::Set),
        ("list", ValueKind::List),
        ("plainlist", ValueKind::List),
        ("set", ValueKind::Set),
        ("skiplist", ValueKind::SortedSet),
        ("stream", ValueKind::Stream),
        ("zset", ValueKind::SortedSet),
    ];
    assert_eq!(named, expected.map(|(key, kind)| (key.to_owned(), kind)));
    let keys: Vec<Vec<u8>> = entries(TYPES).into_iter().map(|entry| entry.key).collect();
    assert_eq!(keys, [b"freq".to_vec(), b"hll".to_vec(), b"string".to_vec()]);
    assert!(read(TYPES).iter().any(|item| matches!(item, Item::Function(source) if source.starts_with(b"#!lua"))));
}

#[test]
fn a_file_without_a_checksum_is_read() {
    assert!(WITHOUT_CHECKSUM.ends_with(&[0; 8]));
    let expected = Entry { database: 0, key: b"a".to_vec(), value: b"b".to_vec(), expires_at_ms: None };
    assert_eq!(entries(WITHOUT_CHECKSUM), [expected]);
}
