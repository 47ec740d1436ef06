//! Values that are compressed: all kinds beside each other, rot in their bytes, what they take.

use super::*;
use crate::blocks::format::record::{Body, PART_BYTES_MAX};
use crate::blocks::format::table::TableEntry;
use crate::blocks::records::Records;

pub(in crate::blocks) const KINDS: [Compression; 3] =
    [Compression::None, Compression::Lz4, Compression::Zstd { level: 1 }];

/// Bytes that nothing makes smaller.
pub(in crate::blocks) fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    (0..bytes).map(|_| next()).collect()
}

/// A short text that has much in common with the others, and too little in itself to become smaller.
pub(in crate::blocks) fn short_text(number: u64) -> Vec<u8> {
    let state = (number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let (user, host, score) = (state >> 40, state >> 20 & 0xFFFF, state & 0xFFF);
    format!(
        "{{\"id\":{number},\"user\":\"{user:x}\",\"mail\":\"m{host:x}@host.example\",\"score\":{score},\"open\":true}}"
    )
    .into_bytes()
}

fn short_texts(keys: std::ops::Range<u64>, seed: u64) -> Vec<(Vec<u8>, Vec<u8>)> {
    keys.map(|number| (format!("key:{number}").into_bytes(), short_text(number * 31 + seed))).collect()
}

fn text(bytes: usize, seed: usize) -> Vec<u8> {
    let piece = format!("{{\"name\":\"number {seed}\",\"values\":[1,2,3,{seed}]}},");
    piece.bytes().cycle().take(bytes).collect()
}

fn publish_with(file: &mut BlockFile, entries: &[(Vec<u8>, Vec<u8>)], stored: bool, compression: Compression) {
    let options = CheckpointOptions { compression, ..CheckpointOptions::default() };
    let mut checkpoint = file.begin(&STRONG, &options).expect("a checkpoint");
    for (key, value) in entries {
        put(&mut checkpoint, &record(key, value), STRONG, stored).expect("room");
    }
    checkpoint.publish(&commit(7)).expect("a checkpoint");
}

fn numbered(count: usize, bytes: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    (0..count).map(|number| (format!("key:{number}").into_bytes(), text(bytes, number))).collect()
}

/// Blocks in use.
fn used_blocks(file: &BlockFile) -> u64 {
    file.published.table.all().filter(|(_, entry)| !entry.is_free()).count() as u64
}

fn names(file: &BlockFile) -> Vec<(&'static str, u64)> {
    let values = file.view().inspect(&STRONG).expect("a sound file").values;
    values.into_iter().map(|(name, bytes)| (name, bytes.count)).collect()
}

#[test]
fn a_file_holds_values_of_every_kind_beside_each_other() {
    let disk = MemoryDisk::default();
    let mut file = create(&disk, &auto());
    let mut model = Contents::new();
    for (round, compression) in KINDS.into_iter().chain(KINDS).enumerate() {
        // Some are new, some replace those of another kind; some are short, some lie in chunks.
        let mut entries = numbered(300, 700);
        entries.retain(|(key, _)| round < 3 || key.len() % 2 == 0 && key.ends_with(&[b'0' + round as u8]));
        entries.iter_mut().for_each(|(key, value)| {
            key.push(b'a' + round as u8 % 3);
            value.extend_from_slice(&[round as u8; 9]);
        });
        entries.push((format!("large:{round}").into_bytes(), text(300_000 + round, round)));
        entries.push((format!("short:{}", round % 3).into_bytes(), text(20, round)));
        entries.push((format!("noise:{}", round % 3).into_bytes(), noise(3000, round as u64)));
        entries.push((format!("number:{}", round % 3).into_bytes(), b"-1234567890123".to_vec()));
        publish_with(&mut file, &entries, false, compression);
        model.extend(entries.into_iter().map(|(key, value)| ((0, key), value)));
        file = open(&disk).expect("a sound file");
        assert_eq!(contents(&file.view(), STRONG), model);
        assert_sound(&file.view(), STRONG);
    }
    assert_eq!(names(&file).iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["plain", "lz4", "zstd"]);
}

#[test]
fn a_compressed_entry_is_read_with_one_call() {
    for compression in [Compression::Lz4, Compression::Zstd { level: 3 }] {
        let disk = MemoryDisk::default();
        let mut file = create(&disk, &auto());
        let entries = numbered(200, 9000);
        publish_with(&mut file, &entries, false, compression);
        let view = file.view();
        let mut found = BTreeMap::new();
        view.entries(0..=u64::MAX, &mut |_, hash, location| {
            found.insert(hash, location);
        })
        .unwrap();
        for (key, value) in entries {
            let before = disk.state().reads;
            let location = found[&STRONG.hash(&key)];
            let read = view.read(location, DatabaseId(0), &key, |record| record.value.to_vec()).unwrap();
            assert_eq!((read, disk.state().reads - before), (Some(value), 1));
        }
    }
}

#[test]
fn compression_makes_a_file_smaller_and_what_is_random_no_larger() {
    let blocks = |entries: &[(Vec<u8>, Vec<u8>)], compression| {
        let disk = MemoryDisk::default();
        let mut file = create(&disk, &auto());
        publish_with(&mut file, entries, false, compression);
        used_blocks(&file)
    };
    let mut random = numbered(2000, 1000);
    random.iter_mut().enumerate().for_each(|(number, (_, value))| *value = noise(1000, number as u64));
    random.push((b"large".to_vec(), noise(2_000_000, 1)));
    let mut texts = numbered(2000, 1000);
    texts.push((b"large".to_vec(), text(2_000_000, 1)));
    let (plain_random, plain_texts) = (blocks(&random, Compression::None), blocks(&texts, Compression::None));
    for compression in &KINDS[1..] {
        // A large value in parts has a few bytes more before each.
        assert!(blocks(&random, *compression) <= plain_random + 1, "{compression:?}");
        assert!(blocks(&texts, *compression) < plain_texts / 4, "{compression:?}");
    }
}

#[test]
fn large_values_are_compressed_in_parts_however_they_come() {
    for compression in KINDS {
        for bytes in [PART_BYTES_MAX - 1, PART_BYTES_MAX, PART_BYTES_MAX + 1, 30_000_000] {
            // Half of it becomes smaller, half does not.
            let value: Vec<u8> = [text(bytes / 2, 1), noise(bytes - bytes / 2, 5)].concat();
            let disk = MemoryDisk::default();
            let mut file = create(&disk, &auto());
            let options = CheckpointOptions { compression, ..CheckpointOptions::default() };
            let (hash, fingerprint) = (STRONG.hash(b"large"), STRONG.fingerprint(b"large"));
            let mut checkpoint = file.begin(&STRONG, &options).unwrap();
            let large = record(b"large", b"");
            let mut put = checkpoint.put_large(&large, bytes as u64, hash, false, fingerprint).unwrap();
            value.chunks(100_003).for_each(|part| put.write(part).unwrap());
            put.finish().unwrap();
            checkpoint.publish(&commit(1)).unwrap();
            let read = file.view().get(DatabaseId(0), b"large", hash, |record, _| record.value == Value::Bytes(&value));
            assert_eq!(read.unwrap(), Some(true), "{compression:?}, {bytes}");
            assert_sound(&file.view(), STRONG);
            let inspection = file.view().inspect(&STRONG).unwrap();
            assert_eq!(inspection.biggest, [(DatabaseId(0), b"large".to_vec(), bytes as u64 + 5)]);
            let found = inspection.values[0].1;
            assert_eq!((found.count, found.plain_bytes), (1, bytes as u64));
            let most = if compression == Compression::None { bytes } else { bytes * 3 / 4 };
            assert!(found.stored_bytes <= most as u64, "{found:?}");
            // All its blocks come back.
            let mut checkpoint = file.begin(&STRONG, &options).unwrap();
            remove(&mut checkpoint, b"large", STRONG);
            checkpoint.publish(&commit(2)).unwrap();
            assert_sound(&file.view(), STRONG);
        }
    }
}

#[test]
fn rot_in_compressed_bytes_is_seen_by_the_checksum() {
    for compression in &KINDS[1..] {
        let disk = MemoryDisk::default();
        let mut file = create(&disk, &auto());
        publish_with(&mut file, &[(b"key".to_vec(), text(9000, 1))], false, *compression);
        let view = file.view();
        let mut at = None;
        view.entries(0..=u64::MAX, &mut |_, _, location| at = Some(location)).unwrap();
        let location = at.expect("an entry");
        disk.change(PATH, |bytes| bytes[location.block as usize * 4096 + 60] ^= 4);
        let read = view.read(location, DatabaseId(0), b"key", |_| ());
        assert!(matches!(read, Err(Error::Corrupt { .. })), "{compression:?}: {read:?}");
    }
}

/// Reads the one entry of a file in which each byte of `block` in turn is another, the block table's checksum made right.
/// Returns how often it was damage, and how often it was read as something else.
fn read_with_each_byte_wrong(disk: &MemoryDisk, view: &View, block: u32, bytes: usize, plain: &[u8]) -> (u32, u32) {
    let mut location = None;
    view.entries(0..=u64::MAX, &mut |_, _, found| location = Some(found)).unwrap();
    let location = location.expect("an entry");
    let sound = disk.bytes(PATH);
    let start = block as usize * 4096;
    let (mut damaged, mut others) = (0, 0);
    for place in 16..16 + bytes {
        for mask in [0x01, 0x80, 0xFF] {
            let mut wrong = sound.clone();
            wrong[start + place] ^= mask;
            let crc = crc32c::crc32c(&wrong[start..start + 4096]);
            disk.change(PATH, |all| *all = wrong);
            let mut table = view.published.table.clone();
            let entry = table.get(block);
            let kind = entry.kind().expect("a block in use");
            table.set(block, TableEntry::extent(kind, crc, entry.place(), entry.extent_blocks(), entry.live()));
            let records = Records { device: &view.device, table: &table, dictionary: None };
            let read = records.find(
                (location.block, location.size_code),
                |_, key| key == b"key",
                |record, buffer| records.with_body(location.block, record, buffer, |record| record.value.to_vec()),
            );
            match read {
                Ok(Some(value)) if value == plain => {}
                Ok(Some(_)) => others += 1,
                // Another key, or no record at all: whoever asked the index says that it is not there.
                Ok(None) | Err(Error::Corrupt { .. }) => damaged += 1,
                Err(error) => panic!("{error}"),
            }
        }
    }
    disk.change(PATH, |all| *all = sound);
    (damaged, others)
}

#[test]
fn wrong_bytes_behind_a_right_checksum_are_damage_or_a_value_and_never_a_panic() {
    for compression in &KINDS[1..] {
        // One piece, and a value whose compressed parts stand in a chunk.
        for bytes in [2000, 300_000] {
            let plain = text(bytes, 1);
            let disk = MemoryDisk::default();
            let mut file = create(&disk, &auto());
            publish_with(&mut file, &[(b"key".to_vec(), plain.clone())], false, *compression);
            let view = file.view();
            let kind = if bytes > 50_000 { BlockKind::Chunk } else { BlockKind::Data };
            let (run, _) = view.published.table.extents(kind).next().expect("an extent");
            let (damaged, others) = read_with_each_byte_wrong(&disk, &view, run.block, 120, &plain);
            println!("{compression:?}, {bytes} bytes: {damaged} times damage, {others} times another value");
            assert!(damaged > 60, "{compression:?}, {bytes} bytes: {damaged}, {others}");
        }
    }
}

#[test]
fn a_record_in_chunks_that_promises_too_much_is_damage() {
    let disk = MemoryDisk::default();
    let mut file = create(&disk, &auto());
    publish_with(&mut file, &[(b"key".to_vec(), text(300_000, 1))], false, KINDS[2]);
    let view = file.view();
    let mut promised = None;
    view.load_stored(0..=u64::MAX, &STRONG, &mut |record, _, location, buffer| {
        let mut larger = *record;
        if let Body::Chunked { value, .. } = &mut larger.body
            && let Some((_, plain_bytes)) = &mut value.compression
        {
            *plain_bytes = 500_000_000;
        }
        promised = Some(view.records().with_body(location.block, &larger, buffer, |_| ()));
        Ok(())
    })
    .unwrap();
    assert!(matches!(promised, Some(Err(Error::Corrupt { .. }))), "{promised:?}");
}

#[test]
fn what_compaction_moves_stays_as_it_was_written() {
    let disk = MemoryDisk::default();
    let mut file = create(&disk, &auto());
    let entries = numbered(4000, 900);
    publish_with(&mut file, &entries, false, KINDS[1]);
    let mut checkpoint = file.begin(&STRONG, &CheckpointOptions::default()).unwrap();
    for (number, (key, _)) in entries.iter().enumerate() {
        if number % 10 != 0 {
            remove(&mut checkpoint, key, STRONG);
        }
    }
    checkpoint.publish(&commit(2)).unwrap();
    let moved: u64 = (0..3).map(|_| publish(&mut file, &[], false).compacted_records).sum();
    assert!(moved > 100, "{moved} records were moved");
    assert_eq!(names(&file), [("lz4", 400)]);
    assert_sound(&file.view(), STRONG);
    assert!(contents(&file.view(), STRONG).into_values().all(|value| value.len() == 900));
}

const ZSTD: Compression = Compression::Zstd { level: 3 };

#[test]
fn short_values_become_smaller_by_a_dictionary_that_stays_with_the_file() {
    let disk = MemoryDisk::default();
    let mut file = create(&disk, &auto());
    let mut model = Contents::new();
    let mut note = |entries: &[(Vec<u8>, Vec<u8>)]| {
        model.extend(entries.iter().map(|(key, value)| ((0, key.clone()), value.clone())));
        model.clone()
    };
    let first = short_texts(0..6000, 1);
    publish_with(&mut file, &first, false, ZSTD);
    let expected = note(&first);
    let dictionary = file.published.dictionary.as_ref().expect("one was trained").bytes().to_vec();
    assert_eq!(names(&file).last(), Some(&("zstd, dictionary", 6000 - names(&file)[0].1)));
    assert_eq!(contents(&file.view(), STRONG), expected);
    assert_sound(&file.view(), STRONG);
    let pinned = file.view();
    // Whatever is set after a restart: what is there is read, and written with the same dictionary.
    for (round, compression) in [ZSTD, Compression::None, Compression::Lz4, ZSTD].into_iter().enumerate() {
        file = open(&disk).expect("a sound file");
        let changed = short_texts(round as u64 * 500..round as u64 * 500 + 700, 1000);
        publish_with(&mut file, &changed, true, compression);
        let expected = note(&changed);
        assert_eq!(contents(&file.view(), STRONG), expected);
        assert_sound(&file.view(), STRONG);
        assert_eq!(file.published.dictionary.as_ref().map(|it| it.bytes().to_vec()), Some(dictionary.clone()));
    }
    for ((_, key), value) in &model {
        let read = file.view().get(DatabaseId(0), key, STRONG.hash(key), |record, _| record.value.to_vec());
        assert_eq!(read.unwrap().as_ref(), Some(value));
    }
    assert_eq!(file.view().inspect(&STRONG).unwrap().dictionary_bytes, dictionary.len() as u64);
    // Emptied, the file needs it no more. A reader of what was before has it still.
    let mut checkpoint = file.begin(&STRONG, &CheckpointOptions::default()).unwrap();
    checkpoint.start_empty();
    checkpoint.publish(&commit(9)).unwrap();
    assert!(open(&disk).unwrap().published.dictionary.is_none());
    assert!(pinned.published.dictionary.is_some());
}

#[test]
fn values_with_a_dictionary_take_half_of_their_blocks() {
    let blocks = |compression| {
        let disk = MemoryDisk::default();
        let mut file = create(&disk, &auto());
        publish_with(&mut file, &short_texts(0..30_000, 1), false, compression);
        file.published.table.extents(BlockKind::Data).map(|(run, _)| run.blocks).sum::<u32>()
    };
    let (plain, lz4, zstd) = (blocks(Compression::None), blocks(Compression::Lz4), blocks(ZSTD));
    println!("{plain} blocks plain, {lz4} with lz4, {zstd} with zstd and a dictionary");
    assert!(zstd * 3 < plain * 2 && lz4 <= plain);
}

#[test]
fn a_small_file_of_a_fixed_size_has_no_dictionary_and_a_larger_one_has_room_for_it() {
    for (bytes, has_one) in [(4 * 1024 * 1024 - 4096, false), (4 * 1024 * 1024, true)] {
        let disk = MemoryDisk::default();
        let mut file = create(&disk, &fixed(bytes));
        let mut stored = 0;
        for round in 0..20 {
            // As many as there is room for, each time.
            let count = (file.room().bytes / put_cost(10, 120)).min(8000);
            publish_with(&mut file, &short_texts(stored..stored + count, round), false, ZSTD);
            stored += count;
        }
        assert_eq!(file.published.dictionary.is_some(), has_one);
        assert_eq!(contents(&file.view(), STRONG).len() as u64, stored);
        assert_sound(&file.view(), STRONG);
    }
}

#[test]
fn a_file_that_may_have_a_dictionary_keeps_room_for_it() {
    let (small, large) = (MemoryDisk::default(), MemoryDisk::default());
    let without = create(&small, &fixed(4 * 1024 * 1024 - 4096));
    let with = create(&large, &fixed(4 * 1024 * 1024));
    // The one block that the larger file has more is kept for compaction.
    assert_eq!(without.room().bytes - with.room().bytes, 5 * 4080);
}

#[test]
fn a_dictionary_that_is_another_or_none_is_damage() {
    let disk = MemoryDisk::default();
    let mut file = create(&disk, &auto());
    publish_with(&mut file, &short_texts(0..6000, 1), false, ZSTD);
    let view = file.view();
    let mut sample = crate::blocks::dictionary::Sample::default();
    let _ = (0..).find(|number| sample.add(&text(100, *number * 7919)));
    let other = sample.train(3).expect("a dictionary");
    let (mut damaged, mut read) = (0, 0);
    view.load_stored(0..=u64::MAX, &STRONG, &mut |record, _, location, buffer| {
        for dictionary in [None, Some(&other)] {
            let records = Records { dictionary, ..view.records() };
            match records.with_body(location.block, record, buffer, |_| ()) {
                Ok(()) => read += 1,
                Err(Error::Corrupt { .. }) => damaged += 1,
                Err(error) => panic!("{error}"),
            }
        }
        Ok(())
    })
    .unwrap();
    // Those put before it was trained are read without it.
    assert!(damaged > 3000 && read > 1000, "{damaged} were damage, {read} were read");
}
