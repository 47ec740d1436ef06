//! A restore that is cut off at any storage call leaves nothing that opens as a store with half of the data; one that has
//! returned has left all of it, whatever happens next.
//!
//! Method: a store with an archive, backed up in the middle of its life. Restored into an empty directory, with the power
//! cut (or the disk failing) at storage call k, for every k; then the directory is opened on several disks that may be
//! left. Replay: SEED=<n> cargo test -p bowline-sim --test restore; `SEEDS=<count>` for more than the everyday few.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bowline::Durability;
use bowline::clock::Clock;
use bowline::disk::Disk;
use bowline::log::ArchiveOptions;
use bowline::{Error, Options, RestoreRequest, Store, Target, Version, restore};
use bowline_sim::clock::SimClock;
use bowline_sim::crash::model::{Command, DATABASES, Databases};
use bowline_sim::crash::number_from_environment;
use bowline_sim::disk::{Failure, SimDisk};
use bowline_sim::random::Random;
use bowline_sim::store_machine::{self, StoreMachine};

const NOW_MS: u64 = 1_800_000_000_000;
const RESTORED: &str = "/new/store";
const BACKUP: &str = "/backup/base.bowline";
const ARCHIVE: &str = "/archive";
/// Disks that may be left by each power cut, everyday.
const IMAGES: u64 = 6;
/// Lives that are restored from, everyday.
const LIVES: u64 = 12;

/// `SEED=<n>` for one seed, `SEEDS=<count>` for more than the everyday `count`.
fn seeds(count: u64) -> std::ops::Range<u64> {
    match number_from_environment("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number_from_environment("SEEDS").unwrap_or(count),
    }
}

type Contents = Vec<(Vec<u8>, Vec<u8>)>;

fn options(disk: &SimDisk) -> Options {
    let clock = SimClock::new(NOW_MS + 3_600_000);
    let mut options = store_machine::options(Arc::new(disk.clone()), &clock);
    options.directory = PathBuf::from(RESTORED);
    options
}

fn contents(store: &Store) -> Contents {
    let mut contents: Contents = store
        .iter()
        .map(|entry| {
            let (key, info) = entry.expect("an entry");
            (key, info.value)
        })
        .collect();
    contents.sort();
    contents
}

/// Writes a backup of the store onto its disk.
fn back_up(disk: &SimDisk, store: &Store) {
    disk.create_directory(Path::new("/backup")).expect("made");
    let file = disk.create(Path::new(BACKUP)).expect("created");
    let mut at = 0;
    let snapshot = store.snapshot().expect("taken");
    snapshot
        .write(&mut |piece| {
            file.write_all_at(&piece, at).map_err(|source| Error::io("write", Path::new(BACKUP), source))?;
            at += piece.len() as u64;
            Ok(())
        })
        .expect("backed up");
    file.sync_data().expect("synced");
    disk.sync_directory(Path::new("/backup")).expect("synced");
    disk.sync_directory(Path::new("/")).expect("synced");
}

/// A disk with a backup and an archive, the version to restore to, and what is there then.
fn prepared() -> (SimDisk, Version, Contents) {
    let disk = SimDisk::new(7);
    let clock = SimClock::new(NOW_MS);
    let mut options = store_machine::options(Arc::new(disk.clone()), &clock);
    options.archive = Some(ArchiveOptions { directory: ARCHIVE.into(), keep_for: None, keep_bytes: None });
    let store = Store::open(options).expect("opened");
    let put = |range: std::ops::Range<u32>, word: &str| {
        for number in range {
            let value = format!("{word} {}", "x".repeat(number as usize * 37 % 900));
            store.put(format!("key:{number}").as_bytes(), value.as_bytes()).expect("written");
        }
    };
    put(0..60, "before");
    back_up(&disk, &store);
    put(30..90, "after");
    store.delete(b"key:5").expect("removed");
    let version = store.put(b"last", b"before the mistake").expect("written");
    let expected = contents(&store);
    store.clear().expect("cleared");
    store.put(b"late", b"1").expect("written");
    store.close().expect("closed");
    (disk, version, expected)
}

fn run(disk: &SimDisk, version: Version) -> Result<(), bowline::RestoreError> {
    let archive = Some(PathBuf::from(ARCHIVE));
    let request = RestoreRequest { snapshot: BACKUP.into(), archive, target: Target::Version(version) };
    restore(&options(disk), &request, &|_| {}).map(|_| ())
}

/// What the directory of the restore is on this disk.
enum Found {
    Nothing,
    Refused,
    Complete,
}

fn look(disk: &SimDisk, expected: &Contents, what: &str) -> Found {
    let made =
        disk.paths().into_iter().any(|path| path.starts_with(RESTORED) && path.file_name() != Some("lock".as_ref()));
    if !made {
        return Found::Nothing;
    }
    match Store::open(options(disk)) {
        Err(Error::RestoreUnfinished { .. }) => Found::Refused,
        Err(error) => panic!("{what}: {error}"),
        Ok(store) => {
            assert!(contents(&store) == *expected, "{what}: it opens with something else");
            Found::Complete
        }
    }
}

fn empty(disk: &SimDisk) {
    for path in disk.paths().into_iter().filter(|path| path.starts_with("/new")) {
        disk.remove(&path).expect("removed");
    }
}

#[test]
fn a_restore_cut_off_at_any_storage_call_serves_nothing_half_done() {
    let (prepared, version, expected) = prepared();
    let whole = prepared.process_killed();
    let before = whole.calls();
    run(&whole, version).expect("restored");
    let calls = whole.calls() - before;
    for seed in seeds(IMAGES) {
        let after = whole.power_cut(&mut Random::new(seed));
        assert!(matches!(look(&after, &expected, "a power cut after the end"), Found::Complete));
    }
    let (mut nothing, mut refused, mut complete) = (0, 0, 0);
    for call in 0..calls {
        let disk = prepared.process_killed();
        disk.crash_at(disk.calls() + call);
        run(&disk, version).expect_err("the power went");
        for seed in seeds(IMAGES) {
            let what = format!("power cut at call {call} of {calls}, seed {seed}");
            let after = disk.power_cut(&mut Random::for_part(seed, call));
            match look(&after, &expected, &what) {
                Found::Nothing => nothing += 1,
                Found::Refused => refused += 1,
                Found::Complete => complete += 1,
            }
        }
        if call % 7 == 0 {
            let again = disk.power_cut(&mut Random::new(call));
            empty(&again);
            run(&again, version).unwrap_or_else(|error| panic!("again after a cut at call {call}: {error}"));
            assert!(matches!(look(&again, &expected, "again"), Found::Complete), "call {call}");
        }
    }
    assert!(nothing > 0 && refused > 0, "{nothing} with nothing, {refused} refused, {complete} complete");
}

#[test]
fn the_empty_checkpoint_that_a_restored_store_began_with_is_never_taken_for_the_newest() {
    let (disk, version, _) = prepared();
    run(&disk, version).expect("restored");
    let block_file = Path::new(RESTORED).join("store.blocks");
    disk.zero_sector(&block_file, 4096);
    let error = Store::open(options(&disk)).err().expect("refused");
    assert!(matches!(&error, Error::Corrupt { path, .. } if *path == block_file), "{error}");
}

#[test]
fn a_restore_on_a_disk_that_fails_at_any_call_serves_nothing_half_done() {
    let (prepared, version, expected) = prepared();
    let whole = prepared.process_killed();
    let before = whole.calls();
    run(&whole, version).expect("restored");
    let calls = whole.calls() - before;
    for (number, failure) in [Failure::Eio, Failure::Enospc].into_iter().enumerate() {
        for call in (number as u64..calls).step_by(2) {
            let disk = prepared.process_killed();
            disk.fail_at(disk.calls() + call, failure);
            let result = run(&disk, version);
            let what = format!("{failure:?} at call {call} of {calls}");
            match (look(&disk, &expected, &what), result) {
                (Found::Complete, Ok(())) | (Found::Nothing | Found::Refused, Err(_)) => {}
                // What failed was the sync after the mark was removed: nobody knows whether it is gone.
                (Found::Complete, Err(_)) if call + 3 >= calls => {}
                (_, result) => panic!("{what}: {result:?}"),
            }
        }
    }
}

/// Random commands, a backup in the middle; then restores to moments and versions after it, each compared with what a
/// model says was there then.
#[test]
fn every_moment_after_a_backup_is_restored_as_the_model_knows_it() {
    for seed in seeds(LIVES) {
        let mut random = Random::new(seed);
        let (disk, states) = a_life(&mut random);
        let end_ms = states.last().expect("a life").1;
        for number in 0..12 {
            let (version, now_ms, model) = &states[random.index(states.len())];
            let target = if random.chance(1, 2) { Target::Version(*version) } else { Target::TimeMs(*now_ms) };
            let what = format!("seed {seed}, restore {number} to {target}");
            let copy = disk.process_killed();
            let request = RestoreRequest { snapshot: BACKUP.into(), archive: Some(ARCHIVE.into()), target };
            let clock = SimClock::new(end_ms);
            let mut options = options(&copy);
            options.clock = Arc::new(clock.clone());
            restore(&options, &request, &|_| {}).unwrap_or_else(|error| panic!("{what}: {error}"));
            let mut machine = StoreMachine::open_with(options, &copy, &clock).expect("opened");
            let mut expected = model.clone();
            expected.expire(end_ms);
            assert!(machine.contents().expect("read") == expected, "{what}: another state");
        }
    }
}

/// A store that lives for a while with an archive and is backed up once. What was there after each command since: the
/// newest version, the time, and the data.
fn a_life(random: &mut Random) -> (SimDisk, Vec<(Version, u64, Databases)>) {
    let (disk, clock) = (SimDisk::new(random.bits()), SimClock::new(NOW_MS));
    let mut options = store_machine::options(Arc::new(disk.clone()), &clock);
    options.archive = Some(ArchiveOptions { directory: ARCHIVE.into(), keep_for: None, keep_bytes: None });
    let mut machine = StoreMachine::open_with(options, &disk, &clock).expect("opened");
    let (mut model, mut states) = (Databases::default(), Vec::new());
    let backup_at = 50 + random.index(150);
    for step in 0..600 {
        if step == backup_at {
            back_up(&disk, &machine.store);
            states.push((machine.store.log().last_version(), machine.store.now_ms(), model.clone()));
            clock.advance(Duration::from_millis(1));
        }
        if random.chance(1, 40) {
            machine.store.checkpoint().expect("a checkpoint");
        }
        let now_ms = machine.store.now_ms();
        let length = random.index(400);
        let command = Command::random(random, now_ms, vec![b'v'; length]);
        let number = random.index(DATABASES);
        let (_, version) =
            machine.execute(number, std::slice::from_ref(&command), false, Durability::Always).expect("room");
        model.run(number, &command, now_ms);
        if step > backup_at {
            states.push((machine.store.log().last_version(), now_ms, model.clone()));
        }
        assert!(machine.commit_up_to(version));
        clock.advance(Duration::from_millis(1 + random.below(5)));
    }
    let end_ms = clock.wall_ms();
    states.push((machine.store.log().last_version(), end_ms, model));
    machine.store.close().expect("closed");
    (disk, states)
}
