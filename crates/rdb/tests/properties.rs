//! What holds for every input: written is read back, nothing panics, damage is found.

use bowline_rdb::{Entry, Item, Limits, Reader, Writer, fuzz};
use proptest::collection::vec;
use proptest::prelude::*;

const STRINGS: &[u8] = include_bytes!("data/strings-redis-7.0.rdb");
const TYPES: &[u8] = include_bytes!("data/types-redis-7.0.rdb");

/// Whole commands, halves and rubbish of an append-only file.
const COMMAND_PARTS: &[&[u8]] = &[
    b"*1\r\n$5\r\nMULTI\r\n",
    b"*1\r\n$4\r\nEXEC\r\n",
    b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb\r\n",
    b"#TS:1\r\n",
    b"*2\r\n$3\r\nDEL\r\n",
    b"$1\r\nx\r\n",
    b"*0\r\n",
    b"#",
    b"\0",
    b"*9999999999\r\n",
    b"$-1\r\n",
];

/// Strings that meet every encoding: integers and nearly integers, runs, noise, lengths around each boundary.
fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 0..100),
        any::<i64>().prop_map(|number| number.to_string().into_bytes()),
        any::<i16>().prop_map(|number| number.to_string().into_bytes()),
        "[-+]?0?[0-9]{1,11}".prop_map(String::into_bytes),
        vec(prop::sample::select(&b"ab"[..]), 0..600),
        (any::<u8>(), prop::sample::select(&[63_usize, 64, 16_383, 16_384, 70_000][..]))
            .prop_map(|(byte, length)| vec![byte; length]),
    ]
}

fn entry() -> impl Strategy<Value = Entry> {
    (0_u64..20, text(), text(), any::<Option<i64>>()).prop_map(|(database, key, value, expires_at_ms)| Entry {
        database,
        key,
        value,
        expires_at_ms,
    })
}

fn written(entries: &[Entry], compress: bool) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new()).expect("memory");
    writer.set_compress(compress);
    writer.auxiliary("redis-ver", "7.0.0").expect("memory");
    for entry in entries {
        writer.database(entry.database).expect("memory");
        writer.sizes(1, 1).expect("memory");
        writer.entry(&entry.key, &entry.value, entry.expires_at_ms).expect("memory");
    }
    writer.finish().expect("memory")
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(entries in vec(entry(), 0..20), compress: bool) {
        let file = written(&entries, compress);
        let items: Vec<Item> = Reader::new(&file[..])?.collect::<Result<_, _>>()?;
        let read: Vec<Entry> =
            items.into_iter().filter_map(|item| if let Item::Entry(entry) = item { Some(entry) } else { None }).collect();
        prop_assert_eq!(read, entries);
    }

    #[test]
    fn a_changed_byte_is_never_read_as_a_whole_file(entries in vec(entry(), 1..5), place: prop::sample::Index, by in 1_u8..) {
        let mut file = written(&entries, true);
        // The header says whether there is a checksum, so it is left alone.
        let place = 9 + place.index(file.len() - 9);
        file[place] ^= by;
        let end = file.len() - 8;
        prop_assume!(file[end..] != [0; 8]);
        let limits = Limits { string_bytes_max: 1 << 20 };
        let result: Result<Vec<Item>, _> = Reader::with_limits(&file[..], limits)?.collect();
        prop_assert!(result.is_err());
    }

    #[test]
    fn any_bytes_are_answered(bytes in vec(any::<u8>(), 0..300)) {
        fuzz::rdb(&bytes);
    }

    #[test]
    fn real_files_with_any_change_are_answered(
        types: bool,
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut: prop::sample::Index,
    ) {
        let mut file = if types { TYPES.to_vec() } else { STRINGS.to_vec() };
        for (place, byte) in changes {
            let place = place.index(file.len());
            file[place] = byte;
        }
        fuzz::rdb(&file);
        // Without its checksum, so that what is damaged is also read to the end.
        let end = file.len() - 8;
        file[end..].fill(0);
        fuzz::rdb(&file);
        file.truncate(cut.index(file.len()));
        fuzz::rdb(&file);
    }

    #[test]
    fn any_commands_are_answered(parts in vec(prop::sample::select(COMMAND_PARTS), 0..20)) {
        fuzz::rdb(&parts.concat());
    }
}
