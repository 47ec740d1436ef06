//! What the writer writes and when; who is told; and what happens when the disk fails.

use super::disk::Call;
use super::format::{FLAG_CLOSED, FLAG_MARK, FLAG_RESET};
use super::*;

fn syncs(disk: &TestDisk) -> usize {
    disk.calls().iter().filter(|call| matches!(call, Call::Sync(_))).count()
}

fn writes(disk: &TestDisk) -> usize {
    disk.calls().iter().filter(|call| matches!(call, Call::Write(..))).count()
}

/// A log whose next calls are counted from zero, with a spare file.
fn ready_log() -> TestLog {
    let disk = TestDisk::default();
    let mut log = TestLog::open(&disk);
    log.prepare();
    disk.forget_calls();
    log
}

#[test]
fn many_commands_share_one_write_and_one_sync() {
    let mut log = ready_log();
    let versions: Vec<Version> = (0..50).map(|_| log.append(b"a command")).collect();
    log.commit(versions[49]);
    assert_eq!((writes(&log.disk), syncs(&log.disk)), (1, 1));
    assert!(versions.windows(2).all(|two| two[0] < two[1]));
    let frames = record_frames_of(&log.disk, &file(1));
    assert_eq!((frames.len(), frames[0].1.records), (1, 50));
    let statistics = log.log.statistics();
    assert_eq!((statistics.frames, statistics.records), (1, 50));
    assert_eq!(statistics.commit_latency_us.count, 1);
}

#[test]
fn nothing_is_committed_before_its_sync() {
    let mut log = ready_log();
    let before = log.log.commit();
    let version = log.append(b"a command");
    log.write_only();
    assert_eq!((log.log.commit(), log.log.durable()), (before, before));
    log.commit(version);
    assert_eq!((log.log.commit(), log.log.durable()), (version, version));
}

#[test]
fn a_record_that_nobody_waits_for_lingers_and_is_synced_in_the_background() {
    let mut log = ready_log();
    let version = log.append(b"a command");
    assert_eq!(log.rest(), Some(Duration::from_millis(2)));
    assert_eq!(writes(&log.disk), 0);
    log.write_only();
    let due = Duration::from_millis(2) + Duration::from_secs(1);
    assert_eq!(log.rest(), Some(due));
    log.clock.advance(due);
    log.rest();
    assert_eq!(log.log.commit(), version);
}

#[test]
fn a_reply_held_for_somebody_elses_write_asks_for_its_sync() {
    let mut log = ready_log();
    let read = log.append(b"written at level none");
    log.write_only();
    assert_ne!(log.log.commit(), read);
    log.log.request_sync(read);
    assert_eq!(log.step(), Step::Worked);
    assert_eq!(log.log.commit(), read);
}

#[test]
fn a_mark_follows_the_last_commit_and_nothing_follows_the_mark() {
    let mut log = ready_log();
    let version = log.append(b"a command");
    log.commit(version);
    assert_eq!(log.rest(), Some(Duration::from_millis(5)));
    log.clock.advance(Duration::from_millis(5));
    assert_eq!(log.rest(), None);
    let frames = frames_of(&log.disk, &file(1));
    let [.., (_, last), (_, mark)] = frames[..] else { panic!("{frames:?}") };
    assert_eq!((last.records, mark.flags, mark.durable_position), (1, FLAG_MARK, last.position + last.frame_bytes()));
    log.clock.advance(Duration::from_secs(3_600));
    assert_eq!(log.rest(), None);
}

#[test]
fn no_mark_is_written_while_frames_follow_each_other() {
    let mut log = ready_log();
    for _ in 0..20 {
        log.put(b"a command");
        log.rest();
        log.clock.advance(Duration::from_millis(4));
    }
    assert_eq!(log.log.statistics().marks, 1, "the opening mark alone");
}

#[test]
fn a_frame_names_what_was_durable_when_it_was_written() {
    let mut log = ready_log();
    let version = log.put(b"one");
    log.append(b"two");
    log.write_only();
    log.append(b"three");
    log.write_only();
    let frames = record_frames_of(&log.disk, &file(1));
    let end_of_one = frames[0].1.position + frames[0].1.frame_bytes();
    assert_eq!((frames[1].1.durable_position, frames[2].1.durable_position), (end_of_one, end_of_one));
    assert_eq!((frames[1].1.commit, frames[2].1.commit), (version, version));
}

#[test]
fn the_version_limit_stays_ahead_of_what_is_handed_out() {
    let mut log = ready_log();
    let limit = log.log.version_limit();
    assert!(limit >= Version::at_ms(log.now_ms() + 10_000));
    log.clock.advance(Duration::from_secs(60));
    let version = log.append(b"nobody asks for a sync");
    assert!(version > limit);
    log.rest();
    assert!(log.log.version_limit() >= version, "the log raised it by a sync of its own");
}

#[test]
fn large_effects_are_taken_over_and_come_back_among_small_ones() {
    let mut log = ready_log();
    let expected: Vec<Vec<u8>> = vec![vec![1; 10], vec![2; 7_000], vec![3; 9_000], vec![4; 20]];
    for effects in &expected {
        log.append(effects);
    }
    let version = log.append(b"");
    log.commit(version);
    assert_eq!(log.log.admit(70_000, RoomClass::Ordinary), Admission::Wait);
    log.prepare();
    assert_eq!(log.log.admit(70_000, RoomClass::Ordinary), Admission::Admitted);
    let mut large = vec![5; 70_000];
    let place = large.as_ptr();
    let version = log.log.append(log.now_ms(), &mut large);
    assert!(large.is_empty() && large.as_ptr() != place, "the bytes were taken, not copied");
    log.log.settle(70_000, 70_000);
    log.commit(version);
    let mut expected = expected;
    expected.extend([Vec::new(), vec![5; 70_000]]);
    assert_eq!(TestLog::open(&log.disk).effects(), expected);
}

#[test]
fn a_reset_begins_a_frame_and_moves_the_start_of_the_log() {
    let mut log = ready_log();
    log.append(b"before");
    let reset = log.append_reset(b"reset");
    let after = log.append(b"after");
    log.commit(after);
    let frames = record_frames_of(&log.disk, &file(1));
    assert_eq!(frames.len(), 2);
    assert_eq!((frames[1].1.flags, frames[1].1.first_version, frames[1].1.last_version), (FLAG_RESET, reset, after));
    assert_eq!(log.log.live_bytes(), log.log.append_position() - frames[1].1.position);
}

#[test]
fn a_close_writes_everything_and_ends_with_the_exact_version() {
    let log = ready_log();
    let version = log.append(b"nobody asked for a sync");
    let disk = log.close();
    let (_, last) = *frames_of(&disk, &file(1)).last().unwrap();
    assert_eq!((last.flags, last.version_limit), (FLAG_MARK | FLAG_CLOSED, version));
    assert_eq!(TestLog::open(&disk.power_cut()).effects(), [b"nobody asked for a sync"]);
}

#[test]
fn after_a_failed_sync_nothing_is_committed_and_nothing_synced_again() {
    let mut log = ready_log();
    let before = log.log.commit();
    let version = log.append(b"a command");
    log.log.request_sync(version);
    log.disk.fail_next_sync();
    log.rest();
    assert!(log.log.is_poisoned());
    log.clock.advance(Duration::from_secs(10));
    log.log.request_sync(version);
    log.rest();
    assert_eq!((log.log.commit(), syncs(&log.disk), log.failures.load(SeqCst)), (before, 1, 1));
    assert!(matches!(log.log.wait(version), Err(Error::Poisoned)));
    assert!(log.log.wait(before).is_ok());
    assert_eq!(log.log.admit(1, RoomClass::Removal), Admission::Poisoned);
    assert!(log.log.failure().unwrap().contains("cannot sync"));
}

#[test]
fn after_a_failed_write_nothing_is_synced() {
    let mut log = ready_log();
    let version = log.append(b"a command");
    log.log.request_sync(version);
    log.disk.fail_next_write();
    log.rest();
    assert!(log.log.is_poisoned());
    assert_eq!((syncs(&log.disk), log.failures.load(SeqCst)), (0, 1));
}

#[test]
fn a_failed_sync_of_a_file_being_prepared_stops_the_log() {
    let disk = TestDisk::default();
    let mut log = TestLog::open(&disk);
    disk.fail_next_sync();
    log.prepare();
    assert!(log.log.is_poisoned());
    assert_eq!(log.failures.load(SeqCst), 1);
}

#[test]
fn a_listener_is_woken_once_for_what_it_wants() {
    let mut log = ready_log();
    let woken = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&woken);
    let listener = log.log.subscribe(Box::new(move || {
        counter.fetch_add(1, SeqCst);
    }));
    let (first, second) = (log.append(b"one"), Version(u64::MAX - 1));
    assert!(!listener.want(first));
    log.rest();
    assert_eq!(woken.load(SeqCst), 1, "and the sync was asked for");
    assert!(listener.want(first), "committed already: no wake will come");
    assert!(!listener.want(second));
    log.put(b"two");
    assert_eq!(woken.load(SeqCst), 1, "a commit below what is wanted wakes nobody");
    log.append(b"three");
    log.disk.fail_next_sync();
    log.log.request_sync(log.log.last_version());
    log.rest();
    assert_eq!(woken.load(SeqCst), 2, "a failure wakes everybody");
    assert!(listener.want(second));
}

#[test]
fn a_file_is_left_only_when_everything_in_it_is_durable() {
    let mut log = ready_log();
    let mut versions = Vec::new();
    while log.log.statistics().files < 2 {
        versions.push(log.append(&[1; 5_000]));
        log.write_only();
    }
    // Written, and nobody asked for a sync: the frames of the first file are safe all the same, not the newest one.
    assert_eq!(log.log.durable(), versions[versions.len() - 2]);
    let calls = log.disk.calls();
    let last_write = calls.iter().rposition(|call| matches!(call, Call::Write(path, ..) if *path == file(1))).unwrap();
    let is_header = |call: &Call| matches!(call, Call::Write(_, 0, bytes) if bytes.len() as u64 == HEADER_BLOCK_BYTES);
    let left = calls.iter().position(is_header).unwrap();
    assert!(calls[last_write..left].contains(&Call::Sync(file(1))));
    assert_eq!(TestLog::open(&log.disk.power_cut()).replayed.len(), versions.len() - 1);
}

#[test]
fn a_clock_that_goes_back_does_not_lower_the_version_limit() {
    let mut log = ready_log();
    let limit = log.log.version_limit();
    log.clock.set_wall_back(Duration::from_secs(120));
    // The store's time follows a jump after a minute.
    log.put(b"the jump is noticed");
    log.clock.advance(Duration::from_secs(61));
    log.append(b"written with the clock set back");
    log.write_only();
    let seen = log.log.append(START_MS + 5_000, &mut vec![1]);
    assert!(seen <= limit);
    // The process is killed: the frame stays in the page cache, what was handed out after it is lost.
    let reopened = TestLog::open(&log.disk.copy());
    assert!(reopened.log.last_version() >= seen);
}
