//! Random checkpoints against a map: what is loaded is what was put, whatever failed in between.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Change {
    Put { database: u32, key: u16, bytes: usize, seed: u8 },
    Remove { database: u32, key: u16 },
}

#[derive(Clone, Debug)]
struct Round {
    changes: Vec<Change>,
    /// What happens before the changes.
    start: Start,
    end: End,
    ranges: u32,
}

#[derive(Clone, Debug, PartialEq)]
enum Start {
    Nothing,
    Empty,
    Drop(u32),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Publish,
    Abort,
    /// Published and opened again.
    Reopen,
    /// Published while a reader of the checkpoint before goes on.
    Pin,
    /// The n-th storage call and all that follow fail.
    Fail(usize),
}

fn change() -> impl Strategy<Value = Change> {
    let bytes = prop_oneof![30 => 0usize..200, 6 => 200usize..5000, 2 => 5000usize..60_000, 1 => 60_000usize..300_000];
    prop_oneof![
        4 => (0u32..3, 0u16..400, bytes, any::<u8>())
            .prop_map(|(database, key, bytes, seed)| Change::Put { database, key, bytes, seed }),
        2 => (0u32..3, 0u16..400).prop_map(|(database, key)| Change::Remove { database, key }),
    ]
}

fn round() -> impl Strategy<Value = Round> {
    let start = prop_oneof![8 => Just(Start::Nothing), 1 => Just(Start::Empty), 1 => (0u32..3).prop_map(Start::Drop)];
    let end = prop_oneof![
        6 => Just(End::Publish), 1 => Just(End::Abort), 1 => Just(End::Reopen), 1 => Just(End::Pin),
        1 => (0usize..40).prop_map(End::Fail),
    ];
    (prop::collection::vec(change(), 0..150), start, end, 1u32..6).prop_map(|(changes, start, end, ranges)| Round {
        changes,
        start,
        end,
        ranges,
    })
}

fn key_of(key: u16) -> Vec<u8> {
    // Some keys are longer than a block.
    let mut bytes = format!("key:{key}").into_bytes();
    if key.is_multiple_of(97) {
        bytes.resize(9000, b'k');
    }
    bytes
}

fn value_of(bytes: usize, seed: u8) -> Vec<u8> {
    (0..bytes).map(|place| (place as u8).wrapping_mul(31).wrapping_add(seed)).collect()
}

/// Entries that the caller believes to be stored: those of all checkpoints that were begun.
type Believed = BTreeSet<(u32, Vec<u8>)>;

fn apply(
    checkpoint: &mut Checkpoint<'_>,
    round: &Round,
    model: &mut Contents,
    believed: &mut Believed,
    hashes: Weak,
) -> Result<()> {
    match round.start {
        Start::Nothing => {}
        Start::Empty => {
            checkpoint.start_empty();
            (*model, *believed) = Default::default();
        }
        Start::Drop(database) => {
            checkpoint.drop_database(DatabaseId(database))?;
            model.retain(|(its, _), _| *its != database);
            believed.retain(|(its, _)| *its != database);
        }
    }
    let mut seen = BTreeSet::new();
    let mut changes: Vec<(u64, &Change, u32, Vec<u8>)> = Vec::new();
    for change in &round.changes {
        let (Change::Put { database, key, .. } | Change::Remove { database, key }) = change;
        let key = key_of(*key);
        if round.start != Start::Drop(*database) && seen.insert((*database, key.clone())) {
            changes.push((hashes.hash(&key), change, *database, key));
        }
    }
    for range in 0..round.ranges {
        let width = u64::MAX / u64::from(round.ranges);
        let last = if range + 1 == round.ranges { u64::MAX } else { width * (u64::from(range) + 1) };
        let first = if range == 0 { 0 } else { width * u64::from(range) + 1 };
        for (hash, change, database, key) in changes.iter().filter(|(hash, ..)| (first..=last).contains(hash)) {
            let name = (*database, key.clone());
            match change {
                Change::Put { bytes, seed, .. } => {
                    let value = value_of(*bytes, *seed);
                    let database = DatabaseId(*database);
                    let record =
                        Record { database, expire_at: Some(5).filter(|_| seed % 2 == 0), ..record(key, &value) };
                    // A key that was removed and made again is told as both.
                    let again = seed % 5 == 0 && believed.contains(&name);
                    if again {
                        checkpoint.remove(database, *hash, hashes.fingerprint(key));
                    }
                    let stored = believed.contains(&name) && !again;
                    believed.insert(name.clone());
                    put(checkpoint, &record, hashes, stored)?;
                    model.insert(name, value);
                }
                Change::Remove { .. } => {
                    model.remove(&name);
                    if believed.remove(&name) {
                        checkpoint.remove(DatabaseId(*database), *hash, hashes.fingerprint(key));
                    }
                }
            }
        }
        checkpoint.finish_range(last)?;
    }
    Ok(())
}

/// One checkpoint; `None` when it was not published.
fn checkpoint(
    file: &mut BlockFile,
    round: &Round,
    cut: u64,
    options: &CheckpointOptions,
    model: &mut Contents,
    believed: &mut Believed,
    hashes: Weak,
) -> Option<Published> {
    let mut checkpoint = file.begin(&hashes, options).expect("no checkpoint is in doubt");
    let applied = apply(&mut checkpoint, round, model, believed, hashes);
    let published = match (applied, round.end) {
        (Ok(()), End::Abort) => return None,
        (Ok(()), _) => checkpoint.publish(&commit(cut)),
        (Err(error), _) => Err(error),
    };
    if let Err(error) = &published {
        assert!(matches!(round.end, End::Fail(_)) || matches!(error, Error::BlockFileFull { .. }), "{error}");
    }
    published.ok()
}

fn run(rounds: Vec<Round>, hashes: Weak, geometry: Geometry, compact_bytes: u64) {
    let disk = MemoryDisk::default();
    let mut file = create(&disk, &geometry);
    let options =
        CheckpointOptions { sync_bytes: 100_000, compact_bytes, put_bytes: Some(0), ..CheckpointOptions::default() };
    let (mut model, mut believed) = (Contents::new(), Believed::new());
    let mut pinned: Option<(View, Contents)> = None;
    for (number, round) in rounds.iter().enumerate() {
        let (before, view) = (model.clone(), file.view());
        if let End::Fail(call) = round.end {
            let mut state = disk.state();
            state.fails_from = Some(state.calls.len() + call);
        }
        let published = checkpoint(&mut file, round, number as u64 + 1, &options, &mut model, &mut believed, hashes);
        disk.state().fails_from = None;
        match published {
            Some(told) => {
                assert_eq!(told.entries, model.len() as u64);
                // What a failed checkpoint was given is in the next one again, so what is believed is right now.
                believed = model.keys().cloned().collect();
            }
            None => {
                // Once removed, a key is believed to be gone, and the next checkpoint is told of it again.
                believed.extend(before.keys().cloned());
                let after = std::mem::replace(&mut model, before.clone());
                if matches!(file.begin(&hashes, &options).map(drop), Err(Error::CheckpointFailed { .. })) {
                    file = open(&disk).expect("either checkpoint is whole");
                    pinned = None;
                    if file.superblock().cut == Version(number as u64 + 1) {
                        model = after;
                    }
                    believed = model.keys().cloned().collect();
                }
            }
        }
        if round.end == End::Reopen {
            file = open(&disk).expect("a sound file");
            // Readers of the file as it was open before hold nothing.
            pinned = None;
            believed = model.keys().cloned().collect();
        }
        assert_eq!(contents(&file.view(), hashes), model);
        assert_sound(&file.view(), hashes);
        if let Some((view, contents_then)) = &pinned {
            assert_eq!(contents(view, hashes), *contents_then, "a pinned checkpoint changed");
        }
        pinned = if round.end == End::Pin { Some((view, before)) } else { pinned.filter(|_| number % 3 != 0) };
    }
    for ((database, key), value) in &model {
        let got = file.view().get(DatabaseId(*database), key, hashes.hash(key), |record, _| record.value.to_vec());
        assert_eq!(got.expect("a sound file").as_ref(), Some(value));
        assert!(matches!(file.view().get(DatabaseId(9), key, hashes.hash(key), |_, _| ()), Ok(None)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_is_loaded_is_what_was_put(
        rounds in prop::collection::vec(round(), 1..12), bits in prop_oneof![4 => Just(64u32), 1 => Just(3), 1 => Just(8)],
        large_blocks: bool, compact_bytes in prop_oneof![Just(0u64), Just(20_000), Just(10_000_000)],
    ) {
        let block_bytes = if large_blocks { 16384 } else { 4096 };
        run(rounds, Weak(bits), Geometry { block_bytes, size: FileSize::Auto }, compact_bytes);
    }

    #[test]
    fn a_fixed_file_that_gets_full_loses_nothing(
        rounds in prop::collection::vec(round(), 1..12), compact_bytes in prop_oneof![Just(0u64), Just(10_000_000)],
    ) {
        run(rounds, STRONG, fixed(1_500_000), compact_bytes);
    }
}
