//! Whatever rots, a repair keeps what can be read: every entry that it returns was written at some time, what the damage
//! did not touch is all there, and what is lost is named. A repair that breaks off leaves the old store or the new one.
//!
//! Method: a life of random commands with checkpoints, and what a model says was there after each; one place rots, as in
//! `rot`; the store is repaired, opened, and compared. Then each kind of damage by itself, and the power cut at the
//! storage calls of a repair.
//!
//! Replay: SEED=<n> cargo test -p bowline-sim --test repair; `ROTS=<count>` for more than the everyday few.

mod damage;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bowline::disk::Disk;
use bowline::keyspace::hash::KeyHasher;
use bowline::log::ArchiveOptions;
use bowline::{
    Basis, Durability, Error, Gap, Options, RepairError, RepairReport, Version, check_store, is_repair_pending,
    plan_repair,
};
use bowline_sim::clock::SimClock;
use bowline_sim::crash::model::{Command, DATABASES, Databases, keys};
use bowline_sim::crash::number_from_environment;
use bowline_sim::disk::SimDisk;
use bowline_sim::random::Random;
use bowline_sim::store_machine::{self, DIRECTORY, StoreMachine};

const NOW_MS: u64 = 1_800_000_000_000;
/// Everything that expires has expired by then.
const LATER_MS: u64 = NOW_MS + 600_000;
const ROTS: u64 = 400;
const BLOCK: u64 = 4096;
const ARCHIVE: &str = "/archive";
const STEPS: usize = 160;

/// A store that was killed, and what is known of its life.
struct Life {
    /// At the first checkpoint.
    earlier: SimDisk,
    disk: SimDisk,
    /// What was there after each command, with the newest version then.
    states: Vec<(Version, Databases)>,
    /// Every key with every value that it ever had.
    written: BTreeSet<(Vec<u8>, Vec<u8>)>,
}

impl Life {
    /// `checkpoints`: before which steps one is taken.
    fn new(seed: u64, checkpoints: &[usize], archive: bool) -> Life {
        let (disk, clock) = (SimDisk::new(seed), SimClock::new(NOW_MS));
        let mut options = options(&disk, &clock);
        if !archive {
            options.archive = None;
        }
        let mut machine = StoreMachine::open_with(options, &disk, &clock).expect("opened");
        let (mut random, mut model) = (Random::for_part(seed, 7), Databases::default());
        let (mut states, mut written, mut earlier) = (Vec::new(), BTreeSet::new(), None);
        for step in 0..STEPS {
            if checkpoints.contains(&step) {
                machine.store.checkpoint().expect("a checkpoint");
                earlier.get_or_insert_with(|| machine.disk.process_killed());
            }
            let now_ms = machine.store.now_ms();
            let longest = [300, 300, 300, 9_000, 90_000][random.index(5)];
            let mut value = vec![0; random.index(longest)];
            random.fill(&mut value);
            let command = match Command::random(&mut random, now_ms, value) {
                // After it nothing before matters, and every repair is exact.
                Command::FlushAll if seed % 4 != 3 => Command::Size,
                other => other,
            };
            let number = random.index(DATABASES);
            let (_, version) =
                machine.execute(number, std::slice::from_ref(&command), false, Durability::Always).expect("room");
            model.run(number, &command, now_ms);
            assert!(machine.commit_up_to(version));
            states.push((machine.store.log().last_version(), model.clone()));
            for (number, key) in everywhere() {
                written.extend(model.item(number, &key).map(|item| (key.clone(), item.value.to_vec())));
            }
            clock.advance(Duration::from_millis(1 + random.below(3)));
        }
        // Long enough for the last frame to get its witnesses, that of what has expired meanwhile too.
        for _ in 0..3 {
            clock.advance(Duration::from_millis(5_000));
            assert!(machine.become_quiet());
            let newest = machine.store.log().last_version();
            assert!(machine.commit_up_to(newest));
        }
        states.push((machine.store.log().last_version(), model));
        let disk = machine.kill();
        Life { earlier: earlier.unwrap_or_else(|| disk.clone()), disk, states, written }
    }

    /// What was there at a version; everything that expires has expired.
    fn at(&self, version: Version) -> Databases {
        let known = self.states.iter().rev().find(|(of, _)| *of <= version);
        let mut state = known.map(|(_, state)| state.clone()).unwrap_or_default();
        state.expire(LATER_MS);
        state
    }

    fn end(&self) -> Databases {
        self.at(Version::MAX)
    }
}

fn everywhere() -> impl Iterator<Item = (usize, Vec<u8>)> {
    (0..DATABASES).flat_map(|number| keys().map(move |key| (number, key)))
}

fn options(disk: &SimDisk, clock: &SimClock) -> Options {
    let mut options = store_machine::options(Arc::new(disk.clone()), clock);
    options.log_file_bytes = 256 * 1024;
    options.log_buffer_bytes = 128 * 1024;
    options.archive = Some(ArchiveOptions { directory: ARCHIVE.into(), keep_for: None, keep_bytes: None });
    options
}

fn clock() -> SimClock {
    SimClock::new(LATER_MS)
}

fn block_file() -> PathBuf {
    Path::new(DIRECTORY).join("store.blocks")
}

/// What the store shows that is on a disk.
fn contents(disk: &SimDisk) -> Result<Databases, Error> {
    let clock = clock();
    let mut machine = StoreMachine::open_with(options(disk, &clock), disk, &clock)?;
    Ok(machine.contents().expect("the store answers"))
}

/// Repairs the store on a disk; `None` when it is sound.
fn repair(disk: &SimDisk) -> Result<Option<RepairReport>, RepairError> {
    let Some(report) = repair_unchecked(disk)? else { return Ok(None) };
    let log = Path::new(DIRECTORY).join("log");
    let check = check_store(disk, &block_file(), &log).expect("readable");
    assert!(check.damage.is_none(), "a repaired store is damaged: {:?}", check.damage);
    Ok(Some(report))
}

fn repair_unchecked(disk: &SimDisk) -> Result<Option<RepairReport>, RepairError> {
    let Some(plan) = plan_repair(&options(disk, &clock()))? else { return Ok(None) };
    let report = plan.report().clone();
    plan.carry_out()?;
    Ok(Some(report))
}

/// Compares what a repair left with what there was.
fn judge(life: &Life, report: &RepairReport, found: &Databases, what: &str) {
    let expected = life.at(report.version);
    if report.is_exact() {
        assert!(*found == life.end(), "{what}: an exact repair shows another state: {report:?}");
        return;
    }
    let hasher = KeyHasher::new(0x5EED);
    let is_named = |key: &[u8]| {
        let hash = hasher.hash(key);
        report.lost.iter().any(|lost| lost.hash == hash || lost.key.as_deref() == Some(key))
    };
    let is_vague = !report.lost_ranges.is_empty() || report.gap.is_some() || report.basis == Basis::Scanned;
    for (number, key) in everywhere() {
        let (found, expected) = (found.item(number, &key), expected.item(number, &key));
        if found == expected || found.is_none() && is_named(&key) {
            continue;
        }
        assert!(is_vague, "{what}: {} in {number} is another: {report:?}", key.escape_ascii());
        if let Some(found) = found {
            let was_written = life.written.contains(&(key.clone(), found.value.to_vec()));
            assert!(was_written, "{what}: {} in {number} was never that: {report:?}", key.escape_ascii());
        }
    }
}

#[test]
fn a_repair_after_rot_anywhere_returns_what_was_written_and_names_what_is_lost() {
    let (first, count) = match number_from_environment("SEED") {
        Some(seed) => (seed, 1),
        None => (0, number_from_environment("ROTS").unwrap_or(ROTS)),
    };
    let (mut sound, mut exact, mut lossy, mut refused) = (0, 0, 0, 0);
    let mut lived: Option<(u64, Life)> = None;
    for seed in first..first + count {
        if lived.as_ref().is_none_or(|(of, _)| *of != seed / 20) {
            let checkpoints = [&[50, 100][..], &[40, 80, 120], &[150], &[]][(seed / 20 % 4) as usize];
            let life = Life::new(seed / 20, checkpoints, seed / 20 % 3 == 0);
            if seed / 20 % 2 == 0 {
                damage::forget_history(&life.disk, DIRECTORY);
            }
            lived = Some((seed / 20, life));
        }
        let Some((_, life)) = &lived else { unreachable!("it was made") };
        let damaged = life.disk.process_killed();
        let mut random = Random::for_part(seed, 9);
        let Some((path, what)) = damage::rot(&damaged, &life.earlier, &mut random) else { continue };
        let what = format!("{}: {what}; replay: SEED={seed}", path.display());
        match repair(&damaged) {
            Ok(None) => {
                let found = contents(&damaged).unwrap_or_else(|error| panic!("{what}: {error}"));
                assert!(found == life.end(), "{what}: nobody noticed");
                sound += 1;
            }
            Ok(Some(report)) => {
                let found = contents(&damaged).unwrap_or_else(|error| panic!("{what}: {error}"));
                judge(life, &report, &found, &what);
                *(if report.is_exact() { &mut exact } else { &mut lossy }) += 1;
            }
            // A number of a format rots too.
            Err(RepairError::Store(Error::FormatTooNew { .. })) => refused += 1,
            Err(error) => panic!("{what}: {error}"),
        }
    }
    println!("{sound} sound, {exact} repaired exactly, {lossy} with losses, {refused} refused");
    assert!(count == 1 || (sound > 0 && exact > 0 && lossy > 0), "{sound} {exact} {lossy}");
}

/// A life with two checkpoints and a log behind them; what the log said before the newest one is gone.
fn usual_life() -> Life {
    let life = Life::new(11, &[60, 120], false);
    damage::forget_history(&life.disk, DIRECTORY);
    life
}

/// Repairs after `spoil`; returns the report and what the store shows then.
fn repaired(life: &Life, spoil: impl FnOnce(&SimDisk)) -> (RepairReport, Databases) {
    let disk = life.disk.process_killed();
    spoil(&disk);
    assert!(contents(&disk.process_killed()).is_err(), "the damage is seen by a start");
    let report = repair(&disk).expect("repaired").expect("damaged");
    let found = contents(&disk).expect("opened");
    judge(life, &report, &found, "one damage");
    (report, found)
}

#[test]
fn a_lost_data_block_loses_the_records_in_it_and_no_others() {
    let life = Life::new(17, &[100, 150], false);
    damage::forget_history(&life.disk, DIRECTORY);
    let data = damage::live_blocks(&life.disk, &block_file(), damage::DATA);
    let mut losses = 0;
    for block in &data {
        let disk = life.disk.process_killed();
        disk.flip_bit(&block_file(), block * BLOCK + 2000, 3);
        let report = repair(&disk).expect("repaired").expect("damaged");
        assert!(matches!(report.basis, Basis::Salvaged(_)) || report.is_exact(), "{report:?}");
        assert!(report.lost_ranges.is_empty() && report.gap.is_none() && report.unnamed == 0, "{report:?}");
        let found = contents(&disk).expect("opened");
        judge(&life, &report, &found, &format!("block {block}"));
        losses += report.lost.len();
    }
    assert!(losses > 0, "some of {} blocks matter", data.len());
}

#[test]
fn an_entry_that_the_log_writes_anew_is_not_lost_with_its_block() {
    let (disk, clock) = (SimDisk::new(1), SimClock::new(NOW_MS));
    let mut machine = StoreMachine::open_with(options(&disk, &clock), &disk, &clock).expect("opened");
    machine.call(&[b"SET", b"key:1", b"a value that is found by its bytes"]);
    machine.call(&[b"SET", b"key:2", b"another"]);
    machine.call(&[b"SET", b"key:3", b"a third"]);
    machine.store.checkpoint().expect("a checkpoint");
    machine.call(&[b"SET", b"key:1", b"whole again"]);
    machine.call(&[b"APPEND", b"key:2", b", longer"]);
    machine.call(&[b"RENAME", b"key:2", b"key:4"]);
    clock.advance(Duration::from_millis(50));
    machine.become_quiet();
    let disk = machine.kill();
    damage::forget_history(&disk, DIRECTORY);
    let bytes = disk.contents(&block_file());
    let at = bytes.windows(9).position(|window| window == b"found by ").expect("in the block file");
    disk.flip_bit(&block_file(), at as u64, 0);
    let report = repair(&disk).expect("repaired").expect("damaged");
    let lost: BTreeSet<Vec<u8>> = report.lost.iter().filter_map(|lost| lost.key.clone()).collect();
    // All of them stood in one block: one is written anew, one was changed without its start.
    assert_eq!((report.entries, report.lost.len()), (1, 2), "{report:?}");
    assert_eq!(lost, BTreeSet::from([b"key:4".to_vec()]), "{report:?}");
    let mut machine = StoreMachine::open(&disk, &SimClock::new(LATER_MS)).expect("opened");
    assert_eq!(machine.call(&[b"GET", b"key:1"]), b"$11\r\nwhole again\r\n");
}

#[test]
fn a_lost_leaf_page_or_manifest_loses_no_entry_whose_record_is_there() {
    let life = usual_life();
    for kind in [damage::LEAF, damage::TABLE, damage::MANIFEST] {
        for block in damage::live_blocks(&life.disk, &block_file(), kind) {
            let (report, found) = repaired(&life, |disk| disk.zero_sector(&block_file(), block * BLOCK));
            assert!(report.lost.is_empty() && report.gap.is_none(), "kind {kind}: {report:?}");
            for (number, key) in everywhere() {
                let wanted = life.end().item(number, &key).cloned();
                let is_there = wanted.is_none() || found.item(number, &key) == wanted.as_ref();
                assert!(is_there, "kind {kind}: {} in {number}: {report:?}", key.escape_ascii());
            }
        }
    }
}

#[test]
fn the_newest_superblock_is_put_together_again() {
    let life = usual_life();
    let newest = damage::newest_superblock(&life.disk, &block_file());
    let (report, _) = repaired(&life, |disk| disk.zero_sector(&block_file(), newest * BLOCK));
    assert!(report.is_exact() && matches!(report.basis, Basis::Rebuilt(_)), "{report:?}");
}

#[test]
fn without_both_superblocks_the_records_are_found() {
    let life = Life::new(12, &[40, 80, 120], false);
    damage::forget_history(&life.disk, DIRECTORY);
    let (report, found) = repaired(&life, |disk| {
        disk.zero_sector(&block_file(), 0);
        disk.zero_sector(&block_file(), BLOCK);
    });
    assert!(report.entries > 0, "{report:?}");
    for (number, key) in everywhere() {
        let wanted = life.end().item(number, &key).cloned();
        let is_there = wanted.is_none() || found.item(number, &key) == wanted.as_ref();
        assert!(report.is_exact() || is_there || report.databases_lost, "{}: {report:?}", key.escape_ascii());
    }
}

#[test]
fn a_log_damaged_in_the_middle_is_cut_there() {
    let life = Life::new(13, &[], false);
    let (path, at) = damage::frame_in_the_middle(&life.disk, DIRECTORY);
    let (report, found) = repaired(&life, |disk| disk.flip_bit(&path, at + 144 + 5, 1));
    let cut = report.log_cut.clone().expect("cut");
    assert!(cut.path == path && cut.offset == at && cut.records > 0 && cut.versions.is_some(), "{report:?}");
    assert!(found == life.at(report.version) && found != life.end(), "{report:?}");
}

#[test]
fn an_archived_copy_stands_in_for_a_damaged_log_file() {
    let life = Life::new(13, &[], true);
    let (path, at) = damage::frame_in_the_middle(&life.disk, DIRECTORY);
    let (report, _) = repaired(&life, |disk| disk.flip_bit(&path, at + 144 + 5, 1));
    assert!(report.is_exact() && report.archived.len() == 1, "{report:?}");
}

#[test]
fn a_lost_mark_in_the_log_loses_nothing() {
    let (disk, clock) = (SimDisk::new(1), SimClock::new(NOW_MS));
    let mut machine = StoreMachine::open_with(options(&disk, &clock), &disk, &clock).expect("opened");
    for round in 0..4 {
        machine.call(&[b"SET", b"key:1", format!("{round}").as_bytes()]);
        clock.advance(Duration::from_millis(50));
        machine.become_quiet();
    }
    let disk = machine.kill();
    let log = disk.paths().into_iter().find(|path| path.ends_with("log/00000001.log")).expect("a log file");
    let marks = damage::marks(&disk.contents(&log));
    assert!(marks.len() > 3);
    for mark in &marks[1..marks.len() - 1] {
        let damaged = disk.process_killed();
        damaged.flip_bit(&log, mark + 50, 0);
        let report = repair(&damaged).expect("repaired").expect("damaged");
        assert!(report.is_exact() && report.marks_passed == 1 && report.entries == 1, "{report:?}");
        let mut machine = StoreMachine::open(&damaged, &clock).expect("opened");
        assert_eq!(machine.call(&[b"GET", b"key:1"]), b"$1\r\n3\r\n");
    }
}

#[test]
fn without_a_block_file_the_log_alone_is_enough_where_it_is_complete() {
    let life = Life::new(14, &[], false);
    // It is made anew by a start, so only the damaged one has to be told.
    let (report, _) = repaired(&life, |disk| {
        disk.zero_sector(&block_file(), 0);
    });
    assert!(report.is_exact() && report.basis == Basis::Log, "{report:?}");
}

#[test]
fn without_a_block_file_what_the_log_writes_is_kept() {
    let life = Life::new(15, &[60, 120], false);
    damage::forget_history(&life.disk, DIRECTORY);
    let (report, found) = repaired(&life, |disk| disk.remove(&block_file()).expect("removed"));
    assert!(matches!(report.gap, Some(Gap::Before(_))) || report.is_exact(), "{report:?}");
    assert!(report.entries > 0, "{report:?}");
    let right = everywhere().filter(|(number, key)| found.item(*number, key) == life.end().item(*number, key)).count();
    assert!(right > 5, "{right}: {report:?}");
}

#[test]
fn without_a_log_the_checkpoint_is_kept() {
    let life = usual_life();
    let (report, _) = repaired(&life, |disk| {
        for path in disk.paths().into_iter().filter(|path| path.extension().is_some_and(|suffix| suffix == "log")) {
            disk.remove(&path).expect("removed");
        }
    });
    assert!(matches!((report.basis, report.gap), (Basis::Checkpoint(_), Some(Gap::After(_)))), "{report:?}");
    assert!(report.entries > 0);
}

#[test]
fn files_of_two_stores_are_refused() {
    let (life, other) = (usual_life(), Life::new(11, &[60], false));
    let disk = life.disk.process_killed();
    let bytes = other.disk.contents(&block_file());
    disk.remove(&block_file()).expect("removed");
    let file = disk.create(&block_file()).expect("created");
    let mut foreign = bytes.clone();
    // Its identity is another one: the same seed made both.
    damage::give_other_identity(&mut foreign);
    file.write_all_at(&foreign, 0).expect("written");
    assert!(matches!(repair(&disk), Err(RepairError::TwoStores { .. })));
}

#[test]
fn a_sound_store_is_left_alone() {
    let life = Life::new(11, &[60, 120], false);
    let disk = life.disk.process_killed();
    let before: Vec<_> = disk.paths().into_iter().map(|path| (disk.contents(&path), path)).collect();
    assert!(repair(&disk).expect("read").is_none());
    let after: Vec<_> = disk.paths().into_iter().map(|path| (disk.contents(&path), path)).collect();
    assert!(before == after || before.len() + 1 == after.len(), "only the lock may be new");
}

#[test]
fn a_repair_cut_off_anywhere_leaves_the_old_store_or_the_new_one() {
    let life = usual_life();
    let damaged = life.disk.process_killed();
    let data = damage::live_blocks(&damaged, &block_file(), damage::DATA);
    damaged.flip_bit(&block_file(), data[0] * BLOCK + 100, 3);
    let whole = damaged.process_killed();
    let first = whole.calls();
    repair_unchecked(&whole).expect("repaired").expect("damaged");
    let (last, expected) = (whole.calls(), contents(&whole).expect("opened"));
    let old: BTreeSet<Vec<u8>> = damaged.paths().iter().map(|path| damaged.contents(path)).collect();
    let mut random = Random::new(3);
    let (mut old_ones, mut new_ones) = (0, 0);
    // The last calls are the swap: every one of them; a sample of those before.
    let calls = (first..last).filter(|call| last - call < 80 || call % 37 == 0);
    for call in calls.collect::<Vec<_>>() {
        let disk = damaged.process_killed();
        disk.crash_at(call);
        if let Ok(done) = repair_unchecked(&disk) {
            panic!("call {call}: {done:?}");
        }
        let after = disk.power_cut(&mut random);
        if is_repair_pending(&after, Path::new(DIRECTORY)).expect("readable") {
            let again = after.process_killed();
            again.crash_at(again.calls() + 5 + call % 7);
            let _ = contents(&again);
            let twice = again.power_cut(&mut random);
            assert!(contents(&twice).expect("finished") == expected, "call {call}, twice");
        }
        match contents(&after.process_killed()) {
            Ok(found) => {
                assert!(found == expected, "call {call}: another state");
                new_ones += 1;
            }
            Err(Error::Corrupt { .. }) => {
                let again = after.process_killed();
                repair(&again).expect("repaired").expect("still damaged");
                assert!(contents(&again).expect("opened") == expected, "call {call}: another state");
                old_ones += 1;
            }
            Err(error) => panic!("call {call}: {error}"),
        }
        let kept: BTreeSet<Vec<u8>> = after.paths().iter().map(|path| after.contents(path)).collect();
        let missing = old.iter().filter(|bytes| bytes.len() > 100 && !kept.contains(*bytes)).count();
        assert!(missing == 0, "call {call}: {missing} old files are gone");
    }
    assert!(old_ones > 0 && new_ones > 0, "{old_ones} {new_ones}");
}
