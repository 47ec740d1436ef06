//! The interleavings that break a naive log, one test each, on the simulated disk. The number in each test's comment is
//! the history's; where a lying disk can take the rule away, the test also shows that it fails without it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bowline::Error;
use bowline::Version;
use bowline::clock::Clock;
use bowline::disk::Disk;
use bowline::log::format::{FRAME_HEADER_BYTES, FileHeader, FileHeaderRead, FrameHeader, HEADER_BLOCK_BYTES};
use bowline::log::{Admission, RoomClass};
use bowline_sim::clock::SimClock;
use bowline_sim::disk::lying::{Lie, LyingDisk};
use bowline_sim::disk::meddling::MeddlingDisk;
use bowline_sim::disk::{CallKind, Failure, SimDisk};
use bowline_sim::machine::LogMachine;
use bowline_sim::random::Random;

const NOW_MS: u64 = 1_800_000_000_000;
const IMAGES: u64 = 200;

fn clock() -> SimClock {
    SimClock::new(NOW_MS)
}

fn open(disk: &SimDisk) -> LogMachine {
    LogMachine::open(disk, &clock()).expect("the log opens")
}

/// A new log on a new disk, its next file prepared.
fn new_log() -> LogMachine {
    let mut machine = open(&SimDisk::default());
    assert!(machine.become_quiet());
    machine
}

/// A log that is open on what `disk` holds after a power cut, once for each of many seeds.
fn after_power_cuts(disk: &SimDisk) -> impl Iterator<Item = LogMachine> {
    (0..IMAGES).map(|seed| open(&disk.power_cut(&mut Random::new(seed))))
}

/// What was replayed, in words short enough for a message.
fn effects_of(machine: &LogMachine) -> Vec<String> {
    machine.replayed.iter().map(|(_, effects)| short(effects)).collect()
}

fn short(effects: &[u8]) -> String {
    match effects {
        [first, rest @ ..] if rest.iter().all(|byte| byte == first) => format!("{} x {first}", effects.len()),
        _ => format!("{} bytes, checksum {}", effects.len(), checksum(effects)),
    }
}

/// FNV-1a, good enough to tell two test values apart.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3))
}

/// Steps the writer until what was appended is written, without asking for a sync.
fn write_without_sync(machine: &mut LogMachine) {
    machine.clock.advance(Duration::from_millis(3));
    let syncs = count(machine, CallKind::Sync);
    let writes = count(machine, CallKind::Write);
    while count(machine, CallKind::Write) == writes {
        machine.step_writer();
    }
    assert_eq!(count(machine, CallKind::Sync), syncs, "this test needs a write that is not synced yet");
}

fn count(machine: &LogMachine, kind: CallKind) -> usize {
    machine.disk.trace().iter().filter(|call| call.kind == kind).count()
}

/// The file and offset where `wanted` stands.
fn find(disk: &SimDisk, wanted: &[u8]) -> (PathBuf, usize) {
    let found = disk.paths().into_iter().find_map(|path| {
        let at = disk.contents(&path).windows(wanted.len()).position(|window| window == wanted)?;
        Some((path, at))
    });
    found.expect("the bytes are on the disk")
}

/// History 1: A commit covers every version up to it. A thread draws a version during each write and each sync of the
/// writer; no commit covers one that a power cut at that moment loses.
#[test]
fn a_commit_covers_no_version_that_was_drawn_while_it_was_made() {
    let disk = SimDisk::default();
    let meddling = MeddlingDisk::new(&disk);
    let mut machine = LogMachine::open_through(Arc::new(meddling.clone()), &disk, &clock()).expect("the log opens");
    let (log, drawn) = (machine.log.clone(), Arc::new(Mutex::new(Vec::new())));
    let drawn_there = drawn.clone();
    let in_between = move || drawn_there.lock().unwrap().push(log.append(NOW_MS, &mut b"from another thread".to_vec()));
    assert!(machine.become_quiet());
    meddling.set(in_between);
    for _ in 0..20 {
        let version = machine.append(b"from this thread");
        drawn.lock().unwrap().push(version);
        machine.log.request_sync(version);
        while machine.log.commit() < version {
            machine.step_writer();
            let commit = machine.log.commit();
            let after = open(&disk.power_cut(&mut Random::new(commit.0)));
            let there: BTreeSet<Version> = after.replayed.iter().map(|(version, _)| *version).collect();
            let drawn = drawn.lock().unwrap();
            let missing = drawn.iter().find(|version| **version <= commit && !there.contains(version));
            assert_eq!(missing, None, "commit {commit} does not cover it");
        }
    }
    meddling.stop();
    assert!(drawn.lock().unwrap().len() >= 3 * 20, "versions were drawn in between");
}

/// History 1: versions and places have one order, whichever thread drew them.
#[test]
fn what_threads_append_at_once_comes_back_in_the_order_of_versions() {
    let mut machine = new_log();
    let log = &machine.log;
    let mut drawn: Vec<Version> = std::thread::scope(|scope| {
        let append = |thread: u8| move |_| log.append(NOW_MS, &mut vec![thread; 16]);
        let threads: Vec<_> =
            (0..4).map(|thread| scope.spawn(move || (0..20).map(append(thread)).collect::<Vec<Version>>())).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("the thread ends")).collect()
    });
    drawn.sort_unstable();
    assert!(machine.commit_up_to(drawn[drawn.len() - 1]));
    for after in after_power_cuts(&machine.disk).take(20) {
        assert_eq!(after.replayed.iter().map(|(version, _)| *version).collect::<Vec<Version>>(), drawn);
    }
}

/// History 2: What a restart read from the page cache and served is there after the power cut that follows.
#[test]
fn what_a_restart_served_survives_the_next_power_cut() {
    let mut machine = new_log();
    machine.append(b"written, never synced");
    write_without_sync(&mut machine);
    let killed = machine.disk.process_killed();
    let served = open(&killed);
    assert_eq!(effects_of(&served), [short(b"written, never synced")]);
    for after in after_power_cuts(&killed) {
        assert_eq!(effects_of(&after), effects_of(&served));
    }
}

/// History 2, without its rule: a recovery that does not sync what it rewrites.
#[test]
fn a_recovery_that_syncs_nothing_loses_what_it_served() {
    let mut machine = new_log();
    machine.append(b"written, never synced");
    write_without_sync(&mut machine);
    let killed = machine.disk.process_killed();
    let lying = Arc::new(LyingDisk { disk: killed.clone(), rules: Lie::SkipSync });
    let served = LogMachine::open_through(lying, &killed, &clock()).expect("the log opens");
    assert_eq!(served.replayed.len(), 1);
    assert!(after_power_cuts(&killed).any(|after| after.replayed.is_empty()));
}

/// History 2, second half: the sync failed, so the kernel calls the pages clean; the restart must write them again.
#[test]
fn what_a_restart_read_after_a_failed_sync_is_written_again() {
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let mut machine = open(&disk);
        assert!(machine.become_quiet());
        let version = machine.append(&[7; 3_000]);
        write_without_sync(&mut machine);
        disk.fail_at(disk.calls(), Failure::Eio);
        assert!(!machine.commit_up_to(version));
        let restarted = disk.process_killed();
        let served = open(&restarted);
        for after in after_power_cuts(&restarted) {
            assert_eq!(effects_of(&after), effects_of(&served));
        }
    }
}

/// History 3: A frame that outlived the torn one before it is not taken for the successor of the frame written in its stead.
#[test]
fn a_frame_behind_a_torn_one_never_comes_back() {
    let mut machine = new_log();
    let first = machine.append(&[1; 2_000]);
    assert!(machine.commit_up_to(first));
    for fill in [2, 3] {
        machine.append(&[fill; 2_000]);
        write_without_sync(&mut machine);
    }
    let mut dangerous = 0;
    for seed in 0..IMAGES {
        let image = machine.disk.power_cut(&mut Random::new(seed));
        let third_is_there =
            image.paths().iter().any(|path| image.contents(path).windows(2_000).any(|window| window == [3; 2_000]));
        let mut reopened = open(&image);
        if reopened.replayed.len() != 1 || !third_is_there {
            continue;
        }
        dangerous += 1;
        // With the mark that opening wrote, as long as the lost frame was: the third stands right behind it.
        let second = reopened.append(&[4; 2_000 - FRAME_HEADER_BYTES]);
        assert!(reopened.commit_up_to(second));
        for after in after_power_cuts(&image).take(10) {
            assert_eq!(effects_of(&after), ["2000 x 1", "1856 x 4"]);
        }
    }
    assert!(dangerous > 0, "no image kept the third frame without the second");
}

/// History 3, in a recycled file: old frames under an old name are not taken for new ones, though they stand right
/// behind the end.
#[test]
fn a_frame_of_a_recycled_file_never_comes_back() {
    // Frames of a quarter of a block: some end with a block, and no zeros are written behind those.
    const EFFECTS: usize = 1024 - FRAME_HEADER_BYTES - 3;
    let mut machine = new_log();
    let (mut number, mut since_reset) = (0, 0);
    while since_reset == 0 || !a_stale_frame_stands_at_the_end(&machine.disk) {
        assert!(number < 2_000, "no old frame ever stands right behind the end");
        let version = machine.append(&[1; EFFECTS]);
        assert!(machine.commit_up_to(version));
        (number, since_reset) = (number + 1, since_reset + 1);
        if number % 50 == 20 {
            let reset = machine.try_append_reset(&[2; EFFECTS]).expect("a reset finds room");
            assert!(machine.commit_up_to(reset));
            since_reset = 0;
        }
    }
    for after in after_power_cuts(&machine.disk).take(20) {
        assert_eq!(after.replayed.len(), 1 + since_reset);
        assert_eq!(short(&after.replayed[0].1), short(&[2; EFFECTS]));
    }
}

/// Whether the bytes behind the last frame of the log are a whole frame of the file's earlier life.
fn a_stale_frame_stands_at_the_end(disk: &SimDisk) -> bool {
    let files = disk.paths().into_iter().map(|path| disk.contents(&path));
    let headed = files.filter_map(|contents| match FileHeader::decode_block(&contents) {
        FileHeaderRead::Header(header) => Some((header, contents)),
        _ => None,
    });
    let (header, contents) = headed.max_by_key(|(header, _)| header.sequence).expect("a log file exists");
    let (mut at, mut previous_crc) = (HEADER_BLOCK_BYTES as usize, header.previous_crc);
    while let Some((frame, crc)) = FrameHeader::decode(&contents[at..]) {
        if frame.previous_crc != previous_crc {
            return frame.position < header.start_position;
        }
        previous_crc = crc;
        at += frame.frame_bytes() as usize;
    }
    false
}

/// History 4: One bit of any acknowledged frame rots on an idle server: the log refuses to open and names the file.
#[test]
fn rot_in_an_acknowledged_frame_is_never_taken_for_a_torn_tail() {
    let mut machine = new_log();
    let written: Vec<Vec<u8>> = (1..=3).map(|fill| vec![fill; 300]).collect();
    for effects in &written {
        let version = machine.append(effects);
        assert!(machine.commit_up_to(version));
    }
    assert!(machine.become_quiet());
    let expected: Vec<String> = written.iter().map(|effects| short(effects)).collect();
    let (path, first) = find(&machine.disk, &written[0]);
    let (_, last) = find(&machine.disk, &written[2]);
    let mut damaged = 0;
    for offset in first..last + 300 {
        let image = machine.disk.power_cut(&mut Random::new(1));
        image.flip_bit(&path, offset as u64, offset as u32);
        match LogMachine::open(&image, &clock()).map(|reopened| effects_of(&reopened)) {
            Err(Error::Corrupt { path: named, offset: at, .. }) => {
                assert_eq!(named, path);
                assert!(at <= offset as u64, "byte {offset} is damaged, {at} is named");
                damaged += 1;
            }
            // The bit did not matter, or it fell into a mark, which holds no write.
            Ok(effects) => assert_eq!(effects, expected, "byte {offset}"),
            Err(error) => panic!("byte {offset}: {error}"),
        }
    }
    assert!(damaged >= 3 * 300, "only {damaged} damaged bytes were found");
}

/// History 4: A whole sector of acknowledged frames is lost by the disk: zeroes, or what stood there before.
#[test]
fn a_lost_sector_before_the_last_one_is_damage() {
    let mut machine = new_log();
    let version = machine.append(&[9; 5_000]);
    assert!(machine.commit_up_to(version));
    assert!(machine.become_quiet());
    let (path, at) = find(&machine.disk, &[9; 5_000]);
    for offset in (at..at + 4_000).step_by(512) {
        let zeroed = machine.disk.power_cut(&mut Random::new(1));
        zeroed.zero_sector(&path, offset as u64);
        assert!(matches!(LogMachine::open(&zeroed, &clock()).err(), Some(Error::Corrupt { .. })), "zero {offset}");
    }
    for offset in (at..at + 4_000).step_by(512) {
        let killed = machine.disk.process_killed();
        assert!(killed.make_sector_stale(&path, offset as u64));
        assert!(matches!(LogMachine::open(&killed, &clock()).err(), Some(Error::Corrupt { .. })), "stale {offset}");
    }
}

/// History 5: A write-back error that a sync collects stops every later acknowledgement.
#[test]
fn nothing_is_acknowledged_after_a_write_back_error() {
    let mut machine = new_log();
    machine.append(b"first");
    write_without_sync(&mut machine);
    let (path, _) = find(&machine.disk, b"first");
    machine.disk.fail_write_back(&path);
    let before = machine.log.commit();
    let second = machine.append(b"second");
    assert!(!machine.commit_up_to(second));
    assert!(machine.log.is_poisoned());
    machine.clock.advance(Duration::from_secs(5));
    for _ in 0..20 {
        machine.step_preparer();
        machine.step_writer();
    }
    assert_eq!(machine.log.commit(), before);
    assert_eq!(machine.log.admit(10, RoomClass::Removal), Admission::Poisoned);
}

/// History 6: A full disk is known before anything is appended; removals go on, and writes resume when there is room.
#[test]
fn a_full_disk_refuses_before_execution_and_resumes_by_itself() {
    let mut machine = new_log();
    machine.disk.set_capacity(machine.disk.used());
    let mut accepted = 0u64;
    while let Some(version) = machine.try_append(&[accepted as u8; 1_000], RoomClass::Ordinary) {
        assert!(machine.commit_up_to(version), "what was admitted finds room");
        machine.step_preparer();
        accepted += 1;
        assert!(accepted < 1_000, "the disk is never full");
    }
    assert_eq!(machine.log.admit(1_000, RoomClass::Ordinary), Admission::DiskFull);
    let removal = machine.try_append(&[0xDD; 50], RoomClass::Removal).expect("a reserve is kept for removals");
    assert!(machine.commit_up_to(removal));
    assert!(!machine.log.is_poisoned());
    machine.disk.set_capacity(u64::MAX);
    assert!(machine.become_quiet());
    let resumed = machine.append(b"there is room again");
    assert!(machine.commit_up_to(resumed));
    for after in after_power_cuts(&machine.disk).take(20) {
        assert_eq!(after.replayed.len() as u64, accepted + 2);
    }
}

/// History 7: A reply that is held for a write at level `none` asks for the sync itself: no time passes, nothing else comes.
#[test]
fn a_held_reply_asks_for_its_own_sync() {
    let mut machine = new_log();
    let version = machine.append(b"at level none");
    let time = machine.clock.monotonic();
    for _ in 0..20 {
        machine.step_writer();
    }
    assert!(machine.log.commit() < version, "nobody asked yet");
    machine.log.request_sync(version);
    for _ in 0..20 {
        machine.step_writer();
    }
    assert!(machine.log.commit() >= version);
    assert_eq!(machine.clock.monotonic(), time);
}

/// History 9: One command with more effects than a whole file is there whole or not at all.
#[test]
fn a_command_larger_than_a_file_is_whole_or_absent() {
    let mut machine = new_log();
    let first = machine.append(b"first");
    assert!(machine.commit_up_to(first));
    let large: Vec<u8> = (0..200_000u32).map(|byte| byte as u8).collect();
    let expected = [short(b"first"), short(&large)];
    let version = machine.append(&large);
    let call = machine.disk.calls();
    assert!(machine.commit_up_to(version));
    for cut in call..machine.disk.calls() {
        let again = new_log();
        again.disk.crash_at(cut);
        let mut again = again;
        let first = again.append(b"first");
        again.commit_up_to(first);
        let log_has_room = again.log.admit(large.len(), RoomClass::Ordinary);
        if log_has_room != Admission::Admitted {
            continue;
        }
        let version = again.log.append(again.clock.wall_ms(), &mut large.clone());
        assert!(!again.commit_up_to(version));
        for after in after_power_cuts(&again.disk).take(10) {
            let effects = effects_of(&after);
            assert!(effects == expected[..1] || effects == expected, "{effects:?}");
        }
    }
    for after in after_power_cuts(&machine.disk).take(20) {
        assert_eq!(effects_of(&after), expected);
    }
}

/// History 11: Versions that a client saw at level `none` are not handed out again, though their writes are lost and the clock
/// comes back an hour earlier.
#[test]
fn a_version_seen_at_level_none_is_never_handed_out_again() {
    let mut machine = new_log();
    let seen: Vec<Version> = (0..20).map(|_| machine.append(b"at level none")).collect();
    let newest = *seen.last().expect("something was appended");
    assert!(newest <= machine.log.version_limit(), "a client may see this version");
    for seed in 0..IMAGES {
        let image = machine.disk.power_cut(&mut Random::new(seed));
        let earlier = SimClock::new(NOW_MS - 3_600_000);
        let mut after = LogMachine::open(&image, &earlier).expect("the log opens");
        assert!(after.append(b"another value") > newest);
    }
}

/// The last page of DESIGN section 6: a client's value that holds a frame of the log is not taken for one.
#[test]
fn a_value_that_holds_a_frame_is_not_taken_for_one() {
    let mut machine = new_log();
    let first = machine.append(&[5; 400]);
    assert!(machine.commit_up_to(first));
    assert!(machine.become_quiet());
    let (path, at) = find(&machine.disk, &[5; 400]);
    let frames = machine.disk.contents(&path)[at - 300..at + 1_000].to_vec();
    machine.append(&[frames.as_slice(), &[6; 700], frames.as_slice()].concat());
    write_without_sync(&mut machine);
    for after in after_power_cuts(&machine.disk) {
        assert_eq!(effects_of(&after)[0], "400 x 5");
        assert!(after.replayed.len() <= 2);
    }
}

/// The same with a frame that a hostile client has made up: it claims to stand far behind the end and to witness it.
#[test]
fn a_forged_frame_in_a_torn_value_is_no_witness() {
    let mut machine = new_log();
    let first = machine.append(&[5; 400]);
    assert!(machine.commit_up_to(first));
    let forged = FrameHeader {
        store_id: *b"simulated store!",
        epoch: u64::MAX / 2,
        position: u64::MAX / 4,
        durable_position: u64::MAX / 4,
        ..FrameHeader::default()
    };
    let (header, _) = forged.encode();
    machine.append(&[&[6; 1_000], header.as_slice(), &[6; 3_000]].concat());
    write_without_sync(&mut machine);
    for after in after_power_cuts(&machine.disk) {
        assert_eq!(effects_of(&after)[0], "400 x 5");
    }
}

/// Opening twice what nobody wrote to in between changes nothing that a reader sees.
#[test]
fn recovery_can_be_repeated() {
    let mut machine = new_log();
    for fill in 0..50 {
        let version = machine.append(&[fill; 500]);
        assert!(machine.commit_up_to(version));
    }
    let mut disk = machine.disk.power_cut(&mut Random::new(1));
    let expected = effects_of(&open(&disk));
    for seed in 2..12 {
        disk = disk.power_cut(&mut Random::new(seed));
        assert_eq!(effects_of(&open(&disk)), expected);
    }
}

/// A file of another store among the log files is refused by name, not replayed.
#[test]
fn a_log_file_of_another_store_is_refused() {
    let mut machine = new_log();
    let version = machine.append(b"ours");
    assert!(machine.commit_up_to(version));
    let (ours, _) = find(&machine.disk, b"ours");
    let mut contents = machine.disk.contents(&ours);
    let FileHeaderRead::Header(mut header) = FileHeader::decode_block(&contents) else {
        panic!("the active file has a header");
    };
    header.store_id[0] ^= 1;
    header.sequence += 1;
    contents[..HEADER_BLOCK_BYTES as usize].copy_from_slice(&header.encode_block());
    let disk = machine.disk.power_cut(&mut Random::new(1));
    let foreign = Path::new(bowline_sim::machine::DIRECTORY).join("4711.log");
    disk.create(&foreign).expect("the name is free").write_all_at(&contents, 0).expect("the disk has room");
    match LogMachine::open(&disk, &clock()).err() {
        Some(Error::Corrupt { path, .. }) => assert_eq!(path, foreign),
        other => panic!("the log opens with a file of another store: {other:?}"),
    }
}
