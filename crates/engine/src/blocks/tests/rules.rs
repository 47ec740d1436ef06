//! The promises of the block file, one by one.

use std::collections::BTreeSet;

use super::disk::Call;
use super::*;
use crate::blocks::format::record::CHUNK_REF_BYTES;

const BLOCK: u64 = 4096;

/// The blocks that a checkpoint reaches.
fn reached(view: &View) -> BTreeSet<u32> {
    view.published.table.all().filter(|(_, entry)| !entry.is_free()).map(|(block, _)| block).collect()
}

fn numbered(count: u32, bytes: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    (0..count).map(|number| (format!("key:{number}").into_bytes(), vec![number as u8; bytes])).collect()
}

fn publish_numbered(file: &mut BlockFile, entries: &[(Vec<u8>, Vec<u8>)], stored: bool) -> Published {
    let entries: Vec<(&[u8], &[u8])> = entries.iter().map(|(key, value)| (&key[..], &value[..])).collect();
    publish(file, &entries, stored)
}

#[test]
fn the_superblock_is_written_between_two_syncs_and_last() {
    let disk = MemoryDisk::default();
    let mut file = create(&disk, &auto());
    for sequence in 1..4 {
        let before = disk.state().calls.len();
        publish(&mut file, &[(b"key", b"value")], sequence > 1);
        let calls = disk.state().calls[before..].to_vec();
        let slot = Call::Write { offset: sequence % 2 * BLOCK, bytes: 4096 };
        assert_eq!(calls[calls.len() - 3..], [Call::Sync, slot, Call::Sync]);
        let others = &calls[..calls.len() - 3];
        assert!(others.iter().all(|call| !matches!(call, Call::Write { offset, .. } if *offset < 2 * BLOCK)));
    }
}

#[test]
fn what_a_published_or_pinned_checkpoint_reaches_is_not_overwritten() {
    let disk = MemoryDisk::default();
    let mut file = create(&disk, &auto());
    let entries = numbered(2000, 100);
    publish_numbered(&mut file, &entries, false);
    let pinned = file.view();
    let at_pin = contents(&pinned, STRONG);
    for round in 0..20 {
        let forbidden: BTreeSet<u32> = reached(&pinned).union(&reached(&file.view())).copied().collect();
        let before = disk.state().calls.len();
        publish_numbered(&mut file, &entries[round * 100..][..100], true);
        for call in &disk.state().calls[before..] {
            if let Call::Write { offset, bytes } = call {
                let blocks = (offset / BLOCK) as u32..((offset + *bytes as u64).div_ceil(BLOCK)) as u32;
                let hit: Vec<u32> = blocks.filter(|block| *block > 1 && forbidden.contains(block)).collect();
                assert_eq!(hit, [], "overwritten in round {round}");
            }
        }
    }
    assert_eq!(contents(&pinned, STRONG), at_pin);
    assert_sound(&pinned, STRONG);
}

#[test]
fn blocks_are_used_again_when_the_last_reader_is_gone() {
    let disk = MemoryDisk::default();
    let mut file = create(&disk, &fixed(1024 * 1024));
    let entries = numbered(100, 4000);
    publish_numbered(&mut file, &entries, false);
    let room = file.room().bytes;
    let (reader, second) = (file.view(), file.view());
    publish_numbered(&mut file, &entries, true);
    assert!(file.room().bytes < room / 2, "the old values are pinned");
    drop(reader);
    assert!(file.room().bytes < room / 2, "the old values are still pinned");
    drop(second);
    assert!(file.room().bytes >= room - 64 * 1024, "{} of {room}", file.room().bytes);
    publish_numbered(&mut file, &entries, true);
}

#[test]
fn a_dropped_checkpoint_leaves_the_file_as_it_was() {
    let disk = MemoryDisk::default();
    let mut file = create(&disk, &auto());
    publish(&mut file, &[(b"a", b"1"), (b"b", b"2")], false);
    file.begin(&STRONG, &CheckpointOptions::default()).unwrap().abort();
    let (free, superblock) = (file.space.free(), *file.superblock());
    let mut checkpoint = file.begin(&STRONG, &CheckpointOptions::default()).unwrap();
    put(&mut checkpoint, &record(b"a", &[7; 200_000]), STRONG, true).unwrap();
    remove(&mut checkpoint, b"b", STRONG);
    checkpoint.finish_range(u64::MAX).unwrap();
    drop(checkpoint);
    assert_eq!((file.space.free(), *file.superblock()), (free, superblock));
    assert_eq!(contents(&file.view(), STRONG).len(), 2);
    publish(&mut file, &[(b"c", b"3")], false);
    assert_eq!(contents(&open(&disk).unwrap().view(), STRONG).len(), 3);
}

#[test]
fn one_entry_is_read_with_one_call() {
    let disk = MemoryDisk::default();
    let mut file = create(&disk, &auto());
    publish_numbered(&mut file, &numbered(500, 3000), false);
    let view = file.view();
    let mut found = Vec::new();
    view.entries(0..=u64::MAX, &mut |_, hash, location| found.push((hash, location))).unwrap();
    for (key, value) in numbered(500, 3000) {
        let (_, location) = found[found.iter().position(|(hash, _)| *hash == STRONG.hash(&key)).unwrap()];
        let before = disk.state().reads;
        let read = view.read(location, DatabaseId(0), &key, |record| record.value.to_vec()).unwrap();
        assert_eq!(disk.state().reads - before, 1);
        assert_eq!(read.as_ref(), Some(&value));
        assert!(view.read(location, DatabaseId(0), b"other", |_| ()).unwrap().is_none());
        assert!(view.read(location, DatabaseId(1), &key, |_| ()).unwrap().is_none());
    }
}

#[test]
fn a_range_loads_what_lies_in_it() {
    let disk = MemoryDisk::default();
    let mut file = create(&disk, &auto());
    let entries = numbered(3000, 30);
    publish_numbered(&mut file, &entries[..1500], false);
    publish_numbered(&mut file, &entries[1500..], false);
    let mut seen = BTreeSet::new();
    for part in 0..7u64 {
        let width = u64::MAX / 7;
        let range = part * width + u64::from(part > 0)..=if part == 6 { u64::MAX } else { (part + 1) * width };
        file.view()
            .load(range.clone(), &STRONG, &mut |loaded| {
                assert!(range.contains(&loaded.hash) && seen.insert(loaded.record.key.to_vec()));
                Ok(())
            })
            .unwrap();
    }
    assert_eq!(seen.len(), 3000);
}

#[test]
fn an_older_superblock_is_taken_and_told_when_the_newest_rots() {
    let disk = MemoryDisk::default();
    let mut file = create(&disk, &auto());
    publish(&mut file, &[(b"key", b"old")], false);
    let mut checkpoint = file.begin(&STRONG, &CheckpointOptions::default()).unwrap();
    put(&mut checkpoint, &record(b"key", b"new"), STRONG, true).unwrap();
    checkpoint.publish(&commit(8)).unwrap();
    let found = open(&disk).unwrap().found();
    assert_eq!(found, FoundSuperblocks { newest: (2, Version(8)), older: Some((1, Version(7))) });
    disk.change(PATH, |bytes| bytes[100] ^= 1);
    let older = open(&disk).unwrap();
    assert_eq!(older.found(), FoundSuperblocks { newest: (1, Version(7)), older: None });
    assert_eq!(older.databases(), b"numbers");
    disk.change(PATH, |bytes| bytes[4096 + 100] ^= 1);
    assert!(matches!(open(&disk), Err(Error::Corrupt { offset: 0, .. })));
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let disk = MemoryDisk::default();
    create(&disk, &auto());
    disk.change(PATH, |bytes| bytes[12] = 2);
    assert!(matches!(open(&disk), Err(Error::Corrupt { offset: 0, .. })), "its number has rotted");
    disk.change(PATH, |bytes| crate::head::seal(&mut bytes[..256]));
    assert!(matches!(open(&disk), Err(Error::FormatTooNew { found: 2, newest: 1, .. })));
}

#[test]
fn a_superblock_that_cannot_be_written_stops_later_checkpoints() {
    let disk = MemoryDisk::default();
    let mut file = create(&disk, &auto());
    let before = disk.state().calls.len();
    publish(&mut file, &[(b"key", b"value")], false);
    let calls = disk.state().calls.len() - before;
    {
        let mut state = disk.state();
        state.fails_from = Some(state.calls.len() + calls - 2);
    }
    let mut checkpoint = file.begin(&STRONG, &CheckpointOptions::default()).unwrap();
    put(&mut checkpoint, &record(b"key", b"other"), STRONG, true).unwrap();
    assert!(matches!(checkpoint.publish(&commit(9)), Err(Error::Io { op: "write", .. })));
    disk.state().fails_from = None;
    let refused = file.begin(&STRONG, &CheckpointOptions::default()).map(drop);
    assert!(matches!(refused, Err(Error::CheckpointFailed { .. })));
    assert_eq!(open(&disk).unwrap().superblock().cut, Version(7));
}

#[test]
fn damage_anywhere_in_a_used_block_is_found() {
    let disk = MemoryDisk::default();
    let mut file = create(&disk, &auto());
    publish_numbered(&mut file, &numbered(1500, 200), false);
    publish(&mut file, &[(b"large", &[9; 150_000])], false);
    publish_numbered(&mut file, &numbered(300, 210), true);
    assert_sound(&file.view(), STRONG);
    let used: Vec<u32> = reached(&file.view()).into_iter().filter(|block| *block > 1).collect();
    let sound = disk.bytes(PATH);
    let mut random = 99u64;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    for round in 0..400 {
        let block = used[next(used.len())] as usize * 4096;
        let other = used[next(used.len())] as usize * 4096;
        let mut bytes = sound.clone();
        match round % 4 {
            0 | 1 => bytes[block + next(4096)] ^= 1 << next(8),
            2 => bytes[block..block + 4096].fill(0),
            _ => bytes.copy_within(other..other + 4096, block),
        }
        if bytes == sound {
            continue;
        }
        disk.change(PATH, |all| *all = bytes);
        let problems = match open(&disk) {
            Err(Error::Corrupt { offset, .. }) => vec![offset],
            Err(error) => panic!("{error}"),
            Ok(file) => file.view().check(&STRONG).unwrap().problems.iter().map(|problem| problem.offset).collect(),
        };
        assert!(problems.contains(&(block as u64)), "round {round}: {problems:?}, not {block}");
    }
}

#[test]
fn a_large_value_comes_in_parts_and_its_blocks_come_back() {
    let disk = MemoryDisk::default();
    let mut file = create(&disk, &auto());
    let value: Vec<u8> = (0..30_000_000u32).map(|place| (place % 251) as u8).collect();
    let large = Record { value: Value::Bytes(b""), ..record(b"large", b"") };
    let (hash, fingerprint) = (STRONG.hash(b"large"), STRONG.fingerprint(b"large"));
    let mut checkpoint = file.begin(&STRONG, &CheckpointOptions::default()).unwrap();
    let mut put = checkpoint.put_large(&large, value.len() as u64, hash, false, fingerprint).unwrap();
    value.chunks(100_000).for_each(|part| put.write(part).unwrap());
    put.finish().unwrap();
    checkpoint.publish(&commit(1)).unwrap();
    // So many chunks that they are listed in a chunk themselves.
    assert!(value.len() / 65536 * CHUNK_REF_BYTES > 2000);
    let read =
        file.view().get(DatabaseId(0), b"large", hash, |record, _| record.value == Value::Bytes(&value)).unwrap();
    assert_eq!(read, Some(true));
    assert_sound(&file.view(), STRONG);
    let biggest = file.view().inspect(&STRONG).unwrap().biggest;
    assert_eq!(biggest, [(DatabaseId(0), b"large".to_vec(), 30_000_005)]);

    let mut checkpoint = file.begin(&STRONG, &CheckpointOptions::default()).unwrap();
    remove(&mut checkpoint, b"large", STRONG);
    checkpoint.publish(&commit(2)).unwrap();
    // The first moves what stands at the end, the second cuts it off.
    publish(&mut file, &[], false);
    publish(&mut file, &[], false);
    assert_sound(&file.view(), STRONG);
    assert!(disk.bytes(PATH).len() < 8_000_000, "the file gave its end back: {}", disk.bytes(PATH).len());
    assert!(open(&disk).is_ok());
}

#[test]
fn a_large_value_that_is_given_up_leaves_nothing_behind() {
    let disk = MemoryDisk::default();
    let mut file = create(&disk, &auto());
    let large = record(b"large", b"");
    let (hash, fingerprint) = (STRONG.hash(b"large"), STRONG.fingerprint(b"large"));
    let mut checkpoint = file.begin(&STRONG, &CheckpointOptions::default()).unwrap();
    let mut given_up = checkpoint.put_large(&large, 1_000_000, hash, false, fingerprint).unwrap();
    given_up.write(&[1; 400_000]).unwrap();
    drop(given_up);
    put(&mut checkpoint, &record(b"key", b"value"), STRONG, false).unwrap();
    checkpoint.publish(&commit(1)).unwrap();
    assert_sound(&file.view(), STRONG);
    assert_eq!(file.superblock().entries, 1);
}

#[test]
fn a_fixed_file_that_is_full_says_so_and_stays_as_it_was() {
    let disk = MemoryDisk::default();
    let mut file = create(&disk, &fixed(1024 * 1024));
    publish(&mut file, &[(b"key", b"value")], false);
    let mut checkpoint = file.begin(&STRONG, &CheckpointOptions::default()).unwrap();
    let full = put(&mut checkpoint, &record(b"large", &[1; 2_000_000]), STRONG, false).unwrap_err();
    assert!(matches!(full, Error::BlockFileFull { bytes: 1_048_576, .. }));
    drop(checkpoint);
    assert_eq!(contents(&file.view(), STRONG).len(), 1);
    publish(&mut file, &[(b"key", b"other")], true);
}

#[test]
fn a_disk_without_room_stops_growth_and_nothing_else() {
    let disk = MemoryDisk::default();
    let mut file = create(&disk, &auto());
    publish(&mut file, &[(b"key", b"value")], false);
    disk.state().capacity = Some(1_500_000);
    let mut checkpoint = file.begin(&STRONG, &CheckpointOptions::default()).unwrap();
    let error = put(&mut checkpoint, &record(b"large", &[1; 4_000_000]), STRONG, false).unwrap_err();
    assert!(matches!(error, Error::Io { op: "resize", .. }), "{error}");
    drop(checkpoint);
    publish(&mut file, &[(b"key", b"other")], true);
    // What is free in the file is used to the last block.
    publish(&mut file, &[(b"large", &[1; 950_000])], false);
    assert_eq!(contents(&open(&disk).unwrap().view(), STRONG).len(), 2);
}

#[test]
fn compaction_moves_what_lives_and_the_file_becomes_small() {
    let disk = MemoryDisk::default();
    let mut file = create(&disk, &auto());
    let entries = numbered(20_000, 500);
    publish_numbered(&mut file, &entries, false);
    let large = disk.bytes(PATH).len();
    let mut checkpoint = file.begin(&STRONG, &CheckpointOptions::default()).unwrap();
    for (number, (key, _)) in entries.iter().enumerate() {
        if number % 20 != 0 {
            remove(&mut checkpoint, key, STRONG);
        }
    }
    checkpoint.publish(&commit(2)).unwrap();
    let moved: u64 = (0..3).map(|_| publish(&mut file, &[], false).compacted_records).sum();
    assert!(moved >= 900, "{moved} records were moved");
    assert_sound(&file.view(), STRONG);
    assert_eq!(contents(&file.view(), STRONG).len(), 1000);
    assert!(disk.bytes(PATH).len() < large / 2, "{} of {large} bytes", disk.bytes(PATH).len());
}

#[test]
fn a_file_is_not_made_over_another_or_in_an_impossible_shape() {
    let disk = MemoryDisk::default();
    create(&disk, &auto());
    let refused = |geometry: Geometry| match BlockFile::create(&disk, Path::new(PATH), &geometry, &IDENTITY) {
        Err(Error::Io { source, .. }) => source.kind(),
        _ => panic!("it was made"),
    };
    assert_eq!(refused(auto()), io::ErrorKind::AlreadyExists);
    assert_eq!(refused(Geometry { block_bytes: 5000, size: FileSize::Auto }), io::ErrorKind::InvalidInput);
    assert_eq!(refused(Geometry { block_bytes: 131_072, size: FileSize::Auto }), io::ErrorKind::InvalidInput);
    let small = MemoryDisk::default();
    let made = BlockFile::create(&small, Path::new(PATH), &fixed(100_000), &IDENTITY);
    assert!(made.is_err());
}

#[test]
fn every_block_size_works() {
    for block_bytes in [4096, 8192, 16384, 32768, 65536] {
        let disk = MemoryDisk::default();
        let mut file = create(&disk, &Geometry { block_bytes, size: FileSize::Auto });
        let entries = numbered(3000, 700);
        publish_numbered(&mut file, &entries, false);
        publish(&mut file, &[(b"large", &[3; 500_000]), (b"medium", &[4; 40_000])], false);
        // The superblock of block 0 rots: the other one is found without knowing the size of a block.
        let file = open(&disk).unwrap();
        assert_eq!(contents(&file.view(), STRONG).len(), 3002);
        assert_sound(&file.view(), STRONG);
        disk.change(PATH, |bytes| bytes[0] ^= 1);
        assert_eq!(open(&disk).unwrap().superblock().sequence, 1);
    }
}

#[test]
fn data_that_is_synced_piece_by_piece_is_not_held_back() {
    let disk = MemoryDisk::default();
    let mut file = create(&disk, &auto());
    let options = CheckpointOptions { sync_bytes: 1_000_000, ..CheckpointOptions::default() };
    let before = disk.state().calls.len();
    let mut checkpoint = file.begin(&STRONG, &options).unwrap();
    for (key, value) in numbered(10_000, 500) {
        put(&mut checkpoint, &record(&key, &value), STRONG, false).unwrap();
    }
    checkpoint.publish(&commit(1)).unwrap();
    let mut unsynced = 0;
    for call in &disk.state().calls[before..] {
        match call {
            Call::Write { bytes, .. } => unsynced += bytes,
            Call::Sync => unsynced = 0,
            Call::Resize(_) => {}
        }
        assert!(unsynced <= 1_000_000 + 256 * 1024 + 65536);
    }
}

#[test]
fn an_inspection_counts_every_block() {
    let disk = MemoryDisk::default();
    let mut file = create(&disk, &auto());
    publish_numbered(&mut file, &numbered(1000, 300), false);
    publish(&mut file, &[(b"large", &[9; 100_000])], false);
    let inspection = file.view().inspect(&STRONG).unwrap();
    let all: u64 = inspection.blocks.iter().map(|(_, count)| count).sum();
    assert_eq!(all, u64::from(file.superblock().file_blocks));
    assert_eq!(inspection.blocks[0], ("superblock", 2));
    assert_eq!(inspection.databases, [(DatabaseId(0), 1001)]);
    assert_eq!((inspection.biggest.len(), &inspection.biggest[0].1[..]), (10, &b"large"[..]));
    assert_eq!(
        inspection.extent_fill.iter().sum::<u64>(),
        file.published.table.extents(BlockKind::Data).count() as u64
    );
}

#[test]
fn a_database_may_be_dropped_changed_and_dropped_with_all_others_in_one_checkpoint() {
    let disk = MemoryDisk::default();
    let mut file = create(&disk, &auto());
    publish_numbered(&mut file, &numbered(1000, 100), false);
    let mut checkpoint = file.begin(&STRONG, &CheckpointOptions::default()).unwrap();
    checkpoint.drop_database(DatabaseId(0)).unwrap();
    checkpoint.drop_database(DatabaseId(0)).unwrap();
    remove(&mut checkpoint, b"key:5", STRONG);
    put(&mut checkpoint, &record(b"key:7", b"new"), STRONG, false).unwrap();
    checkpoint.publish(&commit(8)).unwrap();
    assert_eq!(contents(&file.view(), STRONG).into_values().collect::<Vec<_>>(), [b"new"]);
    assert_sound(&file.view(), STRONG);
    let mut checkpoint = file.begin(&STRONG, &CheckpointOptions::default()).unwrap();
    checkpoint.drop_database(DatabaseId(0)).unwrap();
    checkpoint.start_empty();
    checkpoint.publish(&commit(9)).unwrap();
    assert_eq!(file.superblock().entries, 0);
    assert_sound(&file.view(), STRONG);
}

#[test]
fn a_restored_file_names_its_parent_in_every_superblock() {
    let disk = MemoryDisk::default();
    let parent = Parent { store_id: *b"parentparentpare", fork_version: Version(99) };
    let mut file = BlockFile::create_restored(&disk, Path::new(PATH), &auto(), &IDENTITY, &parent).unwrap();
    publish(&mut file, &[(b"key", b"value")], false);
    let superblock = *open(&disk).unwrap().superblock();
    assert_eq!((superblock.parent_store_id, superblock.fork_version), (parent.store_id, parent.fork_version));
}
