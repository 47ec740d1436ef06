//! The body of the fuzz target `rdb`, shared with the property tests of this crate. Not part of the API.

use bowline_resp::encode_request;

use crate::{AofReader, Item, Limits, Reader, Writer, parse_manifest};

/// Takes any bytes as each kind of file and panics when a rule of the crate is broken.
pub fn rdb(data: &[u8]) {
    let items = read(data);
    if let Some(items) = &items {
        written_again(items);
    }
    // A fuzzer seldom finds the header by itself.
    let body = [b"REDIS0004", data].concat();
    if items.is_none()
        && let Some(items) = read(&body)
    {
        written_again(&items);
    }
    append_only(data);
    let _ = parse_manifest(data);
}

/// The items of a file that is whole.
fn read(data: &[u8]) -> Option<Vec<Item>> {
    let limits = Limits { string_bytes_max: 1 << 20 };
    let mut reader = Reader::with_limits(data, limits).ok()?;
    let items: Result<Vec<Item>, _> = reader.by_ref().collect();
    assert!(reader.next().is_none(), "nothing follows an error or the end");
    assert!(reader.offset() <= data.len() as u64, "no more is read than there is");
    let items = items.ok()?;
    let rest = data.len() as u64 - reader.offset();
    assert_eq!(reader.into_source().len() as u64, rest, "what follows the end is left alone");
    Some(items)
}

/// What can be written must read back.
fn written_again(items: &[Item]) {
    let mut writer = Writer::new(Vec::new()).expect("memory takes all bytes");
    let mut expected = Vec::new();
    for item in items {
        match item {
            Item::Database(number) => writer.database(*number),
            Item::Sizes { keys, expiring } => writer.sizes(*keys, *expiring),
            Item::Entry(entry) => writer.entry(&entry.key, &entry.value, entry.expires_at_ms),
            _ => continue,
        }
        .expect("memory takes all bytes");
        expected.push(item.clone());
    }
    let file = writer.finish().expect("memory takes all bytes");
    assert_eq!(read(&file), Some(expected), "what was written is read back");
}

/// The whole units must be whole again without what follows them.
fn append_only(data: &[u8]) {
    let (units, end) = units(data);
    let end = usize::try_from(end).expect("a place in the input");
    let (again, same_end) = self::units(data.get(..end).expect("a place in the input"));
    assert_eq!((units, end as u64), (again, same_end), "what counts does not depend on what follows");
}

fn units(data: &[u8]) -> (Vec<Vec<u8>>, u64) {
    let (mut reader, mut units) = (AofReader::new(data), Vec::new());
    while let Ok(Some(unit)) = reader.next_unit() {
        let mut bytes = Vec::new();
        for (args, raw) in unit.commands() {
            assert!(!args.is_empty() && raw.starts_with(b"*"));
            encode_request(&mut bytes, &args.iter().collect::<Vec<_>>());
        }
        units.push(bytes);
    }
    (units, reader.offset())
}
