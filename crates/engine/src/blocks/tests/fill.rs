//! How much of a fixed file its users get, and that a full one can still be emptied.

use proptest::prelude::*;

use super::compression::{KINDS, noise};
use super::*;

const FILE_BYTES: u64 = 64 * 1024 * 1024;

fn key_of(number: u64) -> [u8; 16] {
    let mut key = *b"key:............";
    key[4..].copy_from_slice(format!("{number:012}").as_bytes());
    key
}

/// One checkpoint that puts entries until `bytes` are used or `room` is spent; returns how many.
fn put_some(file: &mut BlockFile, first: u64, value: &[u8], bytes: u64) -> u64 {
    put_some_with(file, first, value, bytes, Compression::None)
}

fn put_some_with(file: &mut BlockFile, first: u64, value: &[u8], bytes: u64, compression: Compression) -> u64 {
    let count = (bytes / (16 + value.len() as u64)).min(file.room().bytes / put_cost(16, value.len()));
    let mut keys: Vec<[u8; 16]> = (first..first + count).map(key_of).collect();
    keys.sort_by_key(|key| STRONG.hash(key));
    let options = CheckpointOptions { compression, ..CheckpointOptions::default() };
    let mut checkpoint = file.begin(&STRONG, &options).unwrap();
    for key in &keys {
        put(&mut checkpoint, &record(key, value), STRONG, false).expect("room was promised");
    }
    checkpoint.publish(&commit(first + 1)).expect("room was promised");
    count
}

/// Fills the file; returns the number of entries.
fn fill(file: &mut BlockFile, value: &[u8]) -> u64 {
    fill_with(file, value, Compression::None)
}

fn fill_with(file: &mut BlockFile, value: &[u8], compression: Compression) -> u64 {
    let mut entries = 0;
    loop {
        match put_some_with(file, entries, value, 4 * 1024 * 1024, compression) {
            0 => return entries,
            count => entries += count,
        }
    }
}

fn user_percent(entries: u64, value_bytes: u64) -> u64 {
    entries * (16 + value_bytes) * 100 / FILE_BYTES
}

#[test]
fn values_of_a_kibibyte_fill_four_fifths_of_the_file() {
    let disk = MemoryDisk::default();
    let mut file = create(&disk, &fixed(FILE_BYTES));
    let entries = fill(&mut file, &[b'v'; 1024]);
    assert!(user_percent(entries, 1024) >= 80, "{} % are user data", user_percent(entries, 1024));
    println!("1 KiB values: {} %", user_percent(entries, 1024));
    assert_sound(&file.view(), STRONG);
}

#[test]
fn values_of_32_bytes_fill_half_of_the_file() {
    let disk = MemoryDisk::default();
    let mut file = create(&disk, &fixed(FILE_BYTES));
    let entries = fill(&mut file, &[b'v'; 32]);
    assert!(user_percent(entries, 32) >= 50, "{} % are user data", user_percent(entries, 32));
    println!("32 byte values: {} %", user_percent(entries, 32));
    assert_sound(&file.view(), STRONG);
}

#[test]
fn a_file_of_a_fixed_size_holds_more_than_its_size_of_what_becomes_smaller() {
    let mut value = b"{\"some\":\"text\"},".repeat(40);
    value.extend_from_slice(&noise(1024 - value.len(), 3));
    for compression in &KINDS[1..] {
        let disk = MemoryDisk::default();
        let mut file = create(&disk, &fixed(FILE_BYTES));
        let entries = fill_with(&mut file, &value, *compression);
        assert!(user_percent(entries, 1024) >= 150, "{} % are user data", user_percent(entries, 1024));
        println!("1 KiB values, {compression:?}: {} %", user_percent(entries, 1024));
        assert_sound(&file.view(), STRONG);
    }
}

#[test]
fn a_full_file_can_be_emptied_and_filled_again() {
    let disk = MemoryDisk::default();
    let mut file = create(&disk, &fixed(4 * 1024 * 1024));
    let value = [b'v'; 300];
    let entries = fill(&mut file, &value);
    assert!(entries > 8000, "{entries}");
    // Every second entry goes: no extent becomes free by itself.
    let mut keys: Vec<[u8; 16]> = (0..entries).step_by(2).map(key_of).collect();
    keys.sort_by_key(|key| STRONG.hash(key));
    let mut checkpoint = file.begin(&STRONG, &CheckpointOptions::default()).unwrap();
    for key in &keys {
        remove(&mut checkpoint, key, STRONG);
    }
    checkpoint.publish(&commit(1)).expect("removals have room");
    let reclaimable = file.room().reclaimable_bytes;
    assert!(reclaimable > 1024 * 1024, "{reclaimable} bytes can be won back");
    for round in 0..200 {
        if file.room().bytes > 1024 * 1024 {
            break;
        }
        let checkpoint = file.begin(&STRONG, &CheckpointOptions::default()).unwrap();
        checkpoint.publish(&commit(2 + round)).expect("compaction has room");
    }
    assert!(file.room().bytes > 1024 * 1024, "{:?}", file.room());
    assert_sound(&file.view(), STRONG);
    assert_eq!(contents(&file.view(), STRONG).len() as u64, entries / 2);
    assert!(put_some(&mut file, entries, &value, 1024 * 1024) > 2000);
}

#[test]
fn a_growing_file_on_a_full_disk_can_be_emptied_and_filled_again() {
    let disk = MemoryDisk::default();
    let mut file = create(&disk, &auto());
    let value = [b'v'; 300];
    let mut entries = 0;
    for _ in 0..5 {
        entries += put_some(&mut file, entries, &value, 4 * 1024 * 1024);
    }
    disk.state().capacity = Some(disk.bytes(PATH).len() as u64);
    // More than the file has: refused, and what is kept for removals stays.
    let refusal = loop {
        let mut checkpoint = file.begin(&STRONG, &CheckpointOptions::default()).unwrap();
        let mut keys: Vec<[u8; 16]> = (entries..entries + 200).map(key_of).collect();
        keys.sort_by_key(|key| STRONG.hash(key));
        let put = keys.iter().try_for_each(|key| put(&mut checkpoint, &record(key, &value), STRONG, false));
        match put.and_then(|()| checkpoint.publish(&commit(entries))) {
            Ok(_) => entries += 200,
            Err(error) => break error,
        }
    };
    assert!(matches!(refusal, Error::Io { op: "resize", .. }), "{refusal}");
    let mut keys: Vec<[u8; 16]> = (0..entries).step_by(2).map(key_of).collect();
    keys.sort_by_key(|key| STRONG.hash(key));
    let mut checkpoint = file.begin(&STRONG, &CheckpointOptions::default()).unwrap();
    for key in &keys {
        remove(&mut checkpoint, key, STRONG);
    }
    checkpoint.publish(&commit(entries)).expect("removals have room");
    for _ in 0..100 {
        file.begin(&STRONG, &CheckpointOptions::default())
            .unwrap()
            .publish(&commit(entries))
            .expect("compaction has room");
    }
    assert_sound(&file.view(), STRONG);
    assert_eq!(contents(&file.view(), STRONG).len() as u64, entries / 2);
    for _ in 0..4 {
        entries += put_some(&mut file, entries, &value, 1024 * 1024);
    }
    assert_sound(&file.view(), STRONG);
}

#[test]
fn single_overwrites_in_a_nearly_full_file_never_fail_while_there_is_room() {
    let disk = MemoryDisk::default();
    let mut file = create(&disk, &fixed(2 * 1024 * 1024));
    let entries = fill(&mut file, &[b'v'; 40]);
    let mut random = 7u64;
    for round in 0..300u64 {
        let mut room = file.room().bytes;
        let mut checkpoint = file.begin(&STRONG, &CheckpointOptions::default()).unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..40 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let number = (random >> 33) % entries;
            let cost = put_cost(16, 40);
            if room >= cost && seen.insert(number) {
                room -= cost;
                put(&mut checkpoint, &record(&key_of(number), &[round as u8; 40]), STRONG, true).expect("room");
            }
        }
        checkpoint.publish(&commit(round + 1)).expect("room was promised");
    }
    assert_sound(&file.view(), STRONG);
    assert_eq!(file.superblock().entries, entries);
}

/// Values of one size class: a workload has mostly one.
fn sizes() -> impl Strategy<Value = std::ops::Range<usize>> {
    prop_oneof![
        Just(0..40),
        Just(0..300),
        Just(900..1100),
        Just(2000..4200),
        Just(0..9000),
        Just(9000..48_000),
        Just(0..200_000)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn what_there_is_room_for_is_always_taken(
        sizes in sizes(), blocks in 64u64..1500, seed: u64, block_bits in 12u32..=14, rounds in 3usize..25,
        known: bool, batch in 1usize..400, compression in prop::sample::select(&KINDS), noisy: bool,
    ) {
        let mut random = seed;
        let mut next = |limit: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as usize % limit.max(1)
        };
        let disk = MemoryDisk::default();
        let geometry = Geometry { block_bytes: 1 << block_bits, size: FileSize::Fixed(blocks << block_bits) };
        let mut file = create(&disk, &geometry);
        let mut stored = std::collections::BTreeMap::new();
        for round in 0..rounds {
            let mut room = file.room().bytes;
            let (mut puts, mut removals) = (Vec::new(), Vec::new());
            let mut seen = std::collections::BTreeSet::new();
            let removing = round % 3 == 2;
            for _ in 0..batch {
                let key = format!("key:{}", next(3000));
                if !seen.insert(key.clone()) {
                    continue;
                }
                if removing && next(2) == 0 {
                    if stored.remove(&key).is_some() {
                        removals.push(key);
                    }
                    continue;
                }
                let bytes = sizes.start + next(sizes.end - sizes.start);
                let cost = put_cost(key.len(), bytes);
                if cost <= room {
                    room -= cost;
                    puts.push((key.clone(), bytes, stored.insert(key, bytes).is_some()));
                }
            }
            let put_bytes = known.then(|| file.room().bytes - room);
            let options = CheckpointOptions { put_bytes, compression, ..CheckpointOptions::default() };
            let mut checkpoint = file.begin(&STRONG, &options).unwrap();
            for (key, bytes, is_stored) in puts {
                let value = if noisy { noise(bytes, seed) } else { vec![b'v'; bytes] };
                put(&mut checkpoint, &record(key.as_bytes(), &value), STRONG, is_stored).expect("there was room");
            }
            for key in removals {
                remove(&mut checkpoint, key.as_bytes(), STRONG);
            }
            checkpoint.publish(&commit(round as u64 + 1)).expect("there was room");
        }
        assert_sound(&file.view(), STRONG);
        prop_assert_eq!(contents(&file.view(), STRONG).len(), stored.len());
    }
}
