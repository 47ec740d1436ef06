//! The interleavings that break a checkpoint, one test each, on a whole store. The number in each test's comment is the
//! history's.
//!
//! What is not exact at the cut shows after a restart: APPEND and INCR, replayed on what has them already, count twice.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bowline::blocks::{BlockFile, Compression};
use bowline::clock::Clock;
use bowline::log::Head;
use bowline::{Durability, Error, check_store};
use bowline_sim::clock::SimClock;
use bowline_sim::crash::model::{Command, Databases};
use bowline_sim::disk::{Call, CallKind, Failure, SimDisk};
use bowline_sim::random::Random;
use bowline_sim::store_machine::{DIRECTORY, StoreMachine};

const NOW_MS: u64 = 1_800_000_000_000;
const IMAGES: u64 = 4;
const BLOCK_BYTES: u64 = 4096;
/// How checkpoints compress values, in turn; a restart begins with the first.
const COMPRESSIONS: [Compression; 3] = [Compression::None, Compression::Lz4, Compression::Zstd { level: 1 }];

fn block_file() -> PathBuf {
    Path::new(DIRECTORY).join("store.blocks")
}

/// Also under the name that it had while it was being made: a trace keeps that.
fn is_block_file(path: &Path) -> bool {
    path.to_string_lossy().contains("store.blocks")
}

fn open(disk: &SimDisk) -> Result<StoreMachine, Error> {
    StoreMachine::open(disk, &SimClock::new(NOW_MS))
}

fn new_store() -> StoreMachine {
    let mut machine = open(&SimDisk::default()).expect("a new store opens");
    assert!(machine.become_quiet());
    machine
}

/// The block where the newest superblock stands.
fn newest_slot(disk: &SimDisk) -> u64 {
    BlockFile::open_read_only(disk, &block_file()).expect("the block file is sound").found().newest.0 % 2
}

fn rot_newest_superblock(disk: &SimDisk) {
    disk.flip_bit(&block_file(), newest_slot(disk) * BLOCK_BYTES + 30, 2);
}

/// History 15: the newest superblock rots. What the older one leads to is not taken for the newest.
#[test]
fn a_rotten_newest_superblock_is_refused_by_name() {
    let mut machine = new_store();
    for round in 0..4u8 {
        machine.call(&[b"SET", b"key:1", &[b'0' + round]]);
        machine.store.checkpoint().expect("a checkpoint");
        let disk = machine.disk.process_killed();
        rot_newest_superblock(&disk);
        match open(&disk) {
            Err(Error::Corrupt { path, .. }) => assert_eq!(path, block_file()),
            Err(error) => panic!("round {round}: {error}"),
            Ok(mut machine) => {
                // The first checkpoint: the log still has everything from its beginning.
                panic!("round {round}: opened with {:?}", machine.contents());
            }
        }
    }
}

/// History 15, with two checkpoints of one version, the newer of which rots: the older one leads to the same state, and
/// the log must not look as if everything had been emptied after it.
#[test]
fn of_two_checkpoints_at_one_version_either_leads_to_the_state() {
    let mut machine = new_store();
    machine.call(&[b"SET", b"key:1", b"value"]);
    machine.call(&[b"INCR", b"counter:1"]);
    let contents = machine.contents().expect("the store answers");
    for round in 0..4 {
        machine.store.checkpoint().expect("a checkpoint");
        // A mark moves the end of the log, with nothing newer in it.
        machine.clock.advance(Duration::from_millis(50));
        assert!(machine.become_quiet());
        if round == 0 {
            continue;
        }
        let disk = machine.disk.process_killed();
        rot_newest_superblock(&disk);
        let mut after = open(&disk).unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert_eq!(after.contents().as_ref(), Some(&contents), "round {round}");
        // A store that was opened at it goes on as any other.
        after.call(&[b"INCR", b"counter:1"]);
        after.store.checkpoint().expect("a checkpoint");
        let mut after = open(&after.kill()).expect("the store opens");
        assert_eq!(after.call(&[b"GET", b"counter:1"]), b"$1\r\n2\r\n");
        assert_eq!(after.call(&[b"GET", b"key:1"]), b"$5\r\nvalue\r\n");
    }
}

/// History 15, after a restart between the two checkpoints: refused, or the state is there.
#[test]
fn a_checkpoint_right_after_a_restart_may_rot_without_silent_loss() {
    for quiet in [false, true] {
        let mut machine = new_store();
        machine.call(&[b"SET", b"key:1", b"value"]);
        machine.store.checkpoint().expect("a checkpoint");
        let mut machine = open(&machine.kill()).expect("the store opens");
        assert!(!quiet || machine.become_quiet());
        machine.store.checkpoint().expect("a checkpoint with nothing new");
        let disk = machine.kill();
        rot_newest_superblock(&disk);
        match open(&disk) {
            Ok(mut after) => assert_eq!(after.call(&[b"GET", b"key:1"]), b"$5\r\nvalue\r\n"),
            Err(Error::Corrupt { path, .. }) => assert_eq!(path, block_file()),
            Err(error) => panic!("{error}"),
        }
    }
}

/// The commands that change much at once, each with what must be there before.
fn sweeping_commands() -> Vec<Vec<Command>> {
    let key = |number: usize| format!("key:{number}").into_bytes();
    let set = |number: usize| Command::Set(key(number), b"anew".to_vec(), None);
    vec![
        (0..6).map(|number| Command::Rename(key(number), key(number + 6))).collect(),
        vec![
            Command::Rename(key(0), key(1)),
            Command::Rename(key(1), key(0)),
            Command::Rename(key(2), b"key:3".to_vec()),
        ],
        vec![Command::Swap(0, 1)],
        vec![Command::Swap(0, 1), Command::Append(key(1), b"+".to_vec()), Command::Swap(0, 2)],
        vec![Command::FlushDatabase, set(1), set(2)],
        vec![Command::FlushDatabase, Command::Swap(0, 1), Command::FlushDatabase, set(5)],
        vec![set(1), Command::FlushAll, set(2), Command::Increment(b"counter:0".to_vec())],
        (0..12).map(|number| Command::Append(key(number), b"more".to_vec())).collect(),
        (0..3).map(|number| Command::Increment(format!("counter:{number}").into_bytes())).collect(),
        vec![Command::Delete((0..12).map(key).collect()), set(3)],
        (0..6).map(|number| Command::ExpireAt(key(number), NOW_MS + 20)).collect(),
    ]
}

/// A store with entries in three databases, and its model.
fn filled_store() -> (StoreMachine, Databases) {
    let (mut machine, mut model) = (new_store(), Databases::default());
    for database in 0..3 {
        for number in 0..8 {
            let value = format!("{database}:{number}:").repeat(1 + 40 * number).into_bytes();
            run(&mut machine, &mut model, database, &Command::Set(format!("key:{number}").into_bytes(), value, None));
        }
        for number in 0..3 {
            let counter = Command::Increment(format!("counter:{number}").into_bytes());
            run(&mut machine, &mut model, database, &counter);
        }
    }
    (machine, model)
}

/// Runs a command on both; its reply need not have left.
fn run(machine: &mut StoreMachine, model: &mut Databases, database: usize, command: &Command) {
    let now_ms = machine.store.now_ms();
    let done = machine.execute(database, std::slice::from_ref(command), false, Durability::Always);
    let (reply, _) = done.expect("the log has room");
    assert_eq!(reply, model.run(database, command, now_ms), "{command:?}");
}

/// A checkpoint during which `commands` run the `moment`-th time that others may work. False when it has fewer moments.
fn checkpoint_with((machine, model): (&mut StoreMachine, &mut Databases), commands: &[Command], moment: usize) -> bool {
    let (store, mut passed) = (machine.store.clone(), 0);
    let done = store.checkpoint_with(&mut || {
        if passed == moment {
            commands.iter().for_each(|command| run(machine, model, 0, command));
        }
        passed += 1;
    });
    done.expect("a checkpoint");
    passed > moment
}

fn assert_shows(machine: &mut StoreMachine, model: &Databases, what: &str) {
    let mut model = model.clone();
    model.expire(machine.clock.wall_ms());
    assert_eq!(machine.contents().as_ref(), Some(&model), "{what}");
}

/// What the machine's disk holds after power cuts shows `model`, and its block file has no block lost or used twice.
fn assert_survives(disk: &SimDisk, model: &Databases, what: &str) {
    for seed in 0..IMAGES {
        let image = disk.power_cut(&mut Random::new(seed));
        let check = check_store(&image, &block_file(), &Path::new(DIRECTORY).join("log")).expect("it can be read");
        assert!(check.damage.is_none(), "{what}, image {seed}: {:?}", check.damage);
        let mut after = open(&image).unwrap_or_else(|error| panic!("{what}, image {seed}: {error}"));
        after.clock.advance(Duration::from_secs(1));
        assert_shows(&mut after, model, &format!("{what}, image {seed}"));
    }
}

/// Histories 13 and 14: whatever is renamed, exchanged, emptied, written anew or added to while a checkpoint is on its
/// way, the checkpoint and the log after its cut lead to what there is.
#[test]
fn a_checkpoint_is_exact_whatever_happens_between_its_steps() {
    for (number, commands) in sweeping_commands().iter().enumerate() {
        for moment in 0.. {
            let what = format!("commands {number} at moment {moment}");
            let (mut machine, mut model) = filled_store();
            machine.store.set_compression(COMPRESSIONS[moment % 3]);
            machine.store.checkpoint().expect("a first checkpoint");
            machine.store.set_compression(COMPRESSIONS[(moment + number) % 3]);
            run(&mut machine, &mut model, 0, &Command::Append(b"key:1".to_vec(), b"between".to_vec()));
            run(&mut machine, &mut model, 1, &Command::Increment(b"counter:1".to_vec()));
            if !checkpoint_with((&mut machine, &mut model), commands, moment) {
                assert!(moment > 4, "a checkpoint lets others work between its segments");
                break;
            }
            assert!(machine.become_quiet());
            assert_shows(&mut machine, &model, &what);
            let next = machine.disk.process_killed();
            machine.disk.crash_now();
            assert_survives(&machine.disk, &model, &what);
            // The marks that it left are right: the next checkpoint has the rest.
            let machine = open(&next).unwrap_or_else(|error| panic!("{what}: {error}"));
            machine.store.checkpoint().expect("a next checkpoint");
            machine.disk.crash_now();
            assert_survives(&machine.disk, &model, &format!("{what}, after the next checkpoint"));
        }
    }
}

/// History 13: a value of many parts is changed when some of them are in the checkpoint and others are not.
#[test]
fn a_large_value_changed_between_its_parts_is_as_it_was_at_the_cut() {
    let large = vec![b'a'; 1 << 20];
    for moment in 0.. {
        let (mut machine, mut model) = (new_store(), Databases::default());
        machine.store.set_compression(COMPRESSIONS[moment % 3]);
        run(&mut machine, &mut model, 0, &Command::Set(b"key:1".to_vec(), large.clone(), None));
        let changes = [
            Command::Append(b"key:1".to_vec(), b"appended".to_vec()),
            Command::Rename(b"key:1".to_vec(), b"key:2".to_vec()),
            Command::Append(b"key:2".to_vec(), b"again".to_vec()),
        ];
        if !checkpoint_with((&mut machine, &mut model), &changes, moment) {
            assert!(moment > 6, "a large value is taken in parts");
            break;
        }
        assert!(machine.become_quiet());
        machine.disk.crash_now();
        let mut after = open(&machine.disk.power_cut(&mut Random::new(moment as u64))).expect("the store opens");
        let expected = model.item(0, b"key:2").map(|item| item.value.clone());
        let found = after.contents().and_then(|contents| contents.item(0, b"key:2").map(|item| item.value.clone()));
        assert!(found == expected, "moment {moment}: {:?} bytes", found.map(|value| value.len()));
    }
}

/// A checkpoint whose storage call number `place` meets a full disk: what it says, and what call that was. `None` when it
/// makes fewer calls.
fn checkpoint_on_full_disk(machine: &StoreMachine, place: u64) -> Option<(Result<(), Error>, Call)> {
    let at = machine.disk.calls() + place;
    machine.disk.fail_at(at, Failure::Enospc);
    let result = machine.store.checkpoint();
    machine.disk.has_failed().then(|| (result, machine.disk.trace()[at as usize].clone()))
}

/// History 12: what a failed checkpoint took is dirty again, and the next one has it, so that the log may forget it.
#[test]
fn what_a_failed_checkpoint_took_is_in_the_next_one() {
    let mut failed = 0;
    for place in 0.. {
        let (mut machine, mut model) = filled_store();
        machine.store.checkpoint().expect("a first checkpoint");
        for number in 0..8 {
            run(&mut machine, &mut model, 0, &Command::Append(format!("key:{number}").into_bytes(), vec![b'x'; 900]));
        }
        run(&mut machine, &mut model, 1, &Command::Delete(vec![b"key:1".to_vec(), b"key:2".to_vec()]));
        run(&mut machine, &mut model, 2, &Command::FlushDatabase);
        assert!(machine.become_quiet());
        let Some((result, call)) = checkpoint_on_full_disk(&machine, place) else { break };
        if call.kind == CallKind::Sync || machine.store.log().is_poisoned() {
            // A sync that fails stops the store, whatever it says.
            continue;
        }
        failed += u32::from(result.is_err());
        for round in 0..3 {
            // Files of the log fill up and are used again, once nobody needs them.
            let filler = Command::Set(b"key:11".to_vec(), vec![b'f'; 3000 + round], None);
            (0..10).for_each(|_| run(&mut machine, &mut model, 2, &filler));
            assert!(machine.become_quiet());
            machine.store.checkpoint().unwrap_or_else(|error| panic!("after {call}: {error}"));
        }
        machine.disk.crash_now();
        assert_survives(&machine.disk, &model, &format!("a checkpoint failed at {call}"));
    }
    assert!(failed > 2, "{failed} checkpoints failed");
}

/// A superblock that could not be written may be on the disk in part, also where a full disk is the reason: nobody knows
/// which one counts, so nothing more is acknowledged.
#[test]
fn a_full_disk_under_the_superblock_stops_the_store_at_once() {
    let mut stopped = 0;
    for place in 0.. {
        let (mut machine, mut model) = filled_store();
        machine.store.checkpoint().expect("a first checkpoint");
        run(&mut machine, &mut model, 0, &Command::Append(b"key:1".to_vec(), vec![b'x'; 900]));
        assert!(machine.become_quiet());
        let Some((result, call)) = checkpoint_on_full_disk(&machine, place) else { break };
        if call.kind == CallKind::Write && is_block_file(&call.path) && call.offset < 2 * BLOCK_BYTES {
            stopped += 1;
            assert!(result.is_err() && machine.store.log().is_poisoned(), "{call}");
            machine.disk.crash_now();
            assert_survives(&machine.disk, &model, &format!("a superblock failed at {call}"));
        }
    }
    assert_eq!(stopped, 1, "a checkpoint writes one superblock");
}

/// History 16: until the new superblock is durable, everything that the older one leads to stands where it stood, also
/// where the checkpoint frees nearly all of it.
#[test]
fn what_the_older_superblock_leads_to_stands_until_the_newer_is_durable() {
    for cut in 0.. {
        let (mut machine, mut model) = filled_store();
        machine.store.set_compression(COMPRESSIONS[cut as usize % 3]);
        for _ in 0..2 {
            machine.store.checkpoint().expect("a checkpoint");
            run(&mut machine, &mut model, 0, &Command::Append(b"key:7".to_vec(), vec![b'y'; 5000]));
        }
        run(&mut machine, &mut model, 1, &Command::FlushDatabase);
        run(&mut machine, &mut model, 0, &Command::Delete((0..6).map(|n| format!("key:{n}").into_bytes()).collect()));
        assert!(machine.become_quiet());
        machine.disk.crash_at(machine.disk.calls() + cut);
        // It fails when the power goes.
        let _ = machine.store.checkpoint();
        let is_over = !machine.disk.is_off();
        machine.disk.crash_now();
        assert_survives(&machine.disk, &model, &format!("the power went at call {cut} of a checkpoint"));
        if is_over {
            assert!(cut > 10, "a checkpoint makes many calls");
            break;
        }
    }
}

/// A block file that has become too long is cut off behind its new end, and the power goes meanwhile.
#[test]
fn a_power_cut_while_the_block_file_becomes_shorter_loses_nothing() {
    let key = |number: u8| [b'k', b'e', b'y', b':', b'0' + number];
    let mut machine = new_store();
    // What stays is behind what goes.
    for number in 0..8 {
        machine.call(&[b"SET", &key(number), &vec![number; 1 << 20]]);
    }
    machine.store.checkpoint().expect("a checkpoint");
    machine.call(&[b"SET", &key(8), b"stays"]);
    machine.store.checkpoint().expect("a checkpoint");
    let long = machine.disk.contents(&block_file()).len();
    for number in 0..8 {
        machine.call(&[b"DEL", &key(number)]);
    }
    let contents = machine.contents().expect("the store answers");
    let (before, mut shortened) = (machine.kill(), false);
    for cut in 0.. {
        let machine = open(&before.process_killed()).expect("the store opens");
        machine.disk.crash_at(machine.disk.calls() + cut);
        let done = (0..4).all(|_| machine.store.checkpoint().is_ok());
        machine.disk.crash_now();
        for seed in 0..2 {
            let image = machine.disk.power_cut(&mut Random::new(seed));
            shortened |= image.contents(&block_file()).len() < long;
            let mut after = open(&image).unwrap_or_else(|error| panic!("call {cut}, image {seed}: {error}"));
            assert!(after.contents().as_ref() == Some(&contents), "call {cut}, image {seed}");
        }
        if done {
            break;
        }
    }
    assert!(shortened, "the block file never became shorter");
}

/// History 15: as long as the log does not name a checkpoint, everything that the one before leads to stands, and so does
/// the log after it; the newest superblock may rot then.
#[test]
fn a_superblock_that_rots_before_the_log_names_it_costs_nothing() {
    let (mut needless, mut named) = (0, 0);
    for cut in 0.. {
        let (mut machine, mut model) = filled_store();
        machine.store.checkpoint().expect("a checkpoint");
        assert!(machine.become_quiet());
        machine.disk.crash_at(machine.disk.calls() + cut);
        let mut done = true;
        for round in 0..3 {
            for number in 0..8 {
                let command = Command::Append(format!("key:{number}").into_bytes(), vec![b'0' + round; 700]);
                let executed = machine.execute(0, std::slice::from_ref(&command), false, Durability::Always);
                if executed.is_some_and(|(reply, version)| reply[0] == b':' && machine.commit_up_to(version)) {
                    model.run(0, &command, NOW_MS);
                }
            }
            done &= machine.store.checkpoint().is_ok();
        }
        machine.disk.crash_now();
        let image = machine.disk.power_cut(&mut Random::new(cut));
        let file = BlockFile::open_read_only(&image, &block_file()).expect("the block file is sound");
        let head = Head::read(&image, &Path::new(DIRECTORY).join("log")).expect("the log is sound");
        if head.is_some_and(|head| head.checkpoint < file.superblock().cut) {
            needless += 1;
            rot_newest_superblock(&image);
            let mut after = open(&image).unwrap_or_else(|error| panic!("call {cut}: {error}"));
            let found = after.contents().expect("the store answers");
            // What was not acknowledged may be there.
            let grown = |number: usize| {
                let key = format!("key:{number}").into_bytes();
                let bytes = |databases: &Databases| databases.item(0, &key).map(|item| item.value.to_vec());
                bytes(&found).zip(bytes(&model)).is_some_and(|(found, model)| found.starts_with(&model))
            };
            assert!((0..8).all(grown), "call {cut}");
        } else {
            named += 1;
        }
        if done {
            break;
        }
    }
    assert!(needless > 3 && named > 10, "{needless} superblocks were not needed, {named} were");
}
