//! Room before execution: disk full, the reserve, the bounded buffer, records larger than a file.

use proptest::prelude::*;

use super::disk::Call;
use super::*;

/// The disk has no room for another file.
fn full_log() -> TestLog {
    let disk = TestDisk::default();
    let mut log = TestLog::open(&disk);
    disk.set_capacity(disk.used() + 10_000);
    assert!(matches!(log.preparer.step(), Step::Idle { until: Some(_) }));
    log
}

/// Commits records until one is not admitted; returns that answer and how many were.
fn fill(log: &mut TestLog, bytes: usize, class: RoomClass) -> (Admission, usize) {
    for count in 0.. {
        let answer = log.log.admit(bytes, class);
        if answer != Admission::Admitted {
            return (answer, count);
        }
        let version = log.log.append(log.now_ms(), &mut vec![7; bytes]);
        log.log.settle(bytes, bytes);
        log.commit(version);
    }
    unreachable!("it is full some day");
}

#[test]
fn a_full_disk_refuses_writes_before_they_execute_and_keeps_a_reserve_for_removals() {
    let mut log = full_log();
    let (answer, ordinary) = fill(&mut log, 1_000, RoomClass::Ordinary);
    assert_eq!(answer, Admission::DiskFull);
    let (answer, removals) = fill(&mut log, 100, RoomClass::Removal);
    assert_eq!(answer, Admission::DiskFull);
    assert!(removals >= 4_096 / (100 + RECORD_ROOM_BYTES), "{removals} removals fit the reserve");
    assert!(!log.log.is_poisoned() && log.log.is_disk_full());
    log.become_quiet();
    assert_eq!(TestLog::open(&log.disk.power_cut()).replayed.len(), ordinary + removals);
}

#[test]
fn a_full_disk_gives_back_what_it_took_in_vain() {
    let log = full_log();
    assert_eq!(log.disk.used(), FILE_BYTES);
}

#[test]
fn writes_resume_by_themselves_when_there_is_room() {
    let mut log = full_log();
    fill(&mut log, 1_000, RoomClass::Ordinary);
    let woken = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&woken);
    let listener = log.log.subscribe(Box::new(move || {
        counter.fetch_add(1, SeqCst);
    }));
    listener.want_room();
    log.disk.set_capacity(u64::MAX);
    log.prepare();
    assert_eq!(woken.load(SeqCst), 1);
    assert!(!log.log.is_disk_full());
    log.put(b"goes on");
    assert_eq!(TestLog::open(&log.disk).effects().last().unwrap(), b"goes on");
}

#[test]
fn a_reset_makes_room_on_a_full_disk() {
    let disk = TestDisk::default();
    let mut log = TestLog::open(&disk);
    while log.log.statistics().files < 3 {
        log.put(&[1; 5_000]);
    }
    log.prepare();
    disk.set_capacity(disk.used());
    while log.log.statistics().files < 4 {
        log.put(&[1; 5_000]);
    }
    assert_eq!(fill(&mut log, 5_000, RoomClass::Ordinary).0, Admission::DiskFull);
    log.append_reset(b"reset");
    log.commit(log.log.last_version());
    log.prepare();
    assert!(!log.log.is_disk_full());
    log.put(&[2; 5_000]);
    assert_eq!(TestLog::open(&disk).effects(), [b"reset".to_vec(), vec![2; 5_000]]);
}

#[test]
fn while_a_file_is_being_prepared_the_answer_is_to_wait() {
    let disk = TestDisk::default();
    let mut log = TestLog::open(&disk);
    let (answer, _) = fill_without_preparer(&mut log);
    assert_eq!(answer, Admission::Wait);
    log.prepare();
    log.append(&[1; 5_000]);
}

fn fill_without_preparer(log: &mut TestLog) -> (Admission, usize) {
    for count in 0.. {
        let answer = log.log.admit(5_000, RoomClass::Ordinary);
        if answer != Admission::Admitted {
            return (answer, count);
        }
        log.log.append(log.now_ms(), &mut vec![1; 5_000]);
        log.log.settle(5_000, 5_000);
        log.write_only();
    }
    unreachable!("the file is full some day");
}

#[test]
fn a_full_buffer_makes_writers_wait_until_it_is_written() {
    let disk = TestDisk::default();
    let mut log = TestLog::open(&disk);
    log.prepare();
    let mut waiting = 0;
    while log.log.admit(1_000, RoomClass::Ordinary) == Admission::Admitted {
        log.log.append(log.now_ms(), &mut vec![1; 1_000]);
        log.log.settle(1_000, 1_000);
        waiting += 1;
    }
    assert_eq!(log.log.admit(1_000, RoomClass::Ordinary), Admission::Wait);
    assert!((10..24).contains(&waiting), "{waiting} records of 1000 bytes in a buffer of 24 KiB");
    let woken = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&woken);
    let listener = log.log.subscribe(Box::new(move || {
        counter.fetch_add(1, SeqCst);
    }));
    listener.want_room();
    assert_eq!(log.step(), Step::Worked, "who waits for room is not made to linger");
    assert_eq!(woken.load(SeqCst), 1);
    log.append(&[1; 1_000]);
}

#[test]
fn what_was_admitted_and_not_appended_is_given_back() {
    let disk = TestDisk::default();
    let log = TestLog::open(&disk);
    for _ in 0..1_000 {
        assert_eq!(log.log.admit(20_000, RoomClass::Ordinary), Admission::Admitted);
        log.log.settle(20_000, 0);
        assert_eq!(log.log.admit(0, RoomClass::Ordinary), Admission::Admitted);
        log.log.settle(0, 0);
    }
    assert_eq!(log.log.statistics().unwritten_bytes, 0);
}

#[test]
fn a_record_larger_than_a_file_gets_a_file_made_to_size() {
    let disk = TestDisk::default();
    let mut log = TestLog::open(&disk);
    log.put(b"small");
    let big = vec![9; 300_000];
    assert_eq!(log.log.admit(big.len(), RoomClass::Ordinary), Admission::Wait);
    log.prepare();
    log.put(&big);
    log.put(b"after");
    assert_eq!(disk.contents(&file(3)).len(), 1024 * 1024);
    assert_eq!(TestLog::open(&disk).effects(), [b"small".to_vec(), big, b"after".to_vec()]);
}

#[test]
fn a_file_made_to_size_is_removed_when_nothing_in_it_matters() {
    let disk = TestDisk::default();
    let mut log = TestLog::open(&disk);
    let big = vec![9; 2_000_000];
    assert_eq!(log.log.admit(big.len(), RoomClass::Ordinary), Admission::Wait);
    log.prepare();
    log.put(&big);
    let sized = disk.paths().into_iter().find(|path| disk.contents(path).len() > 2_000_000).unwrap();
    let active = |log: &TestLog| log.log.statistics().files;
    let before = active(&log);
    while active(&log) == before {
        log.put(&[1; 20_000]);
    }
    log.append_reset(b"reset");
    log.commit(log.log.last_version());
    log.prepare();
    assert!(disk.calls().contains(&Call::Remove(sized.clone())));
    assert!(!disk.paths().contains(&sized));
}

#[test]
fn a_record_too_large_for_the_disk_is_refused_and_smaller_ones_go_on() {
    let disk = TestDisk::default();
    let mut log = TestLog::open(&disk);
    log.prepare();
    disk.set_capacity(disk.used() + 100_000);
    assert_eq!(log.log.admit(300_000, RoomClass::Ordinary), Admission::Wait);
    log.preparer.step();
    assert_eq!(log.log.admit(300_000, RoomClass::Ordinary), Admission::DiskFull);
    log.put(b"small");
    log.prepare();
    assert!(!log.log.is_disk_full(), "nothing that is needed is missing");
}

#[test]
fn one_large_record_at_a_time_waits_for_an_empty_buffer() {
    let disk = TestDisk::default();
    let mut log = TestLog::open(&disk);
    log.prepare();
    let large = 40_000;
    let small = log.append(b"small");
    assert_eq!(log.log.admit(large, RoomClass::Ordinary), Admission::Wait);
    assert_eq!(log.log.admit(10, RoomClass::Ordinary), Admission::Wait, "others let the large one pass");
    log.commit(small);
    assert_eq!(log.log.admit(large, RoomClass::Ordinary), Admission::Admitted);
    assert_eq!(log.log.admit(large, RoomClass::Ordinary), Admission::Wait);
    let version = log.log.append(log.now_ms(), &mut vec![1; large]);
    log.log.settle(large, large);
    log.commit(version);
    log.append(b"small");
}

#[test]
fn marks_take_no_room_from_what_was_admitted() {
    let mut log = full_log();
    let class = RoomClass::Removal;
    while log.log.admit(20_000, class) == Admission::Admitted {
        log.log.settle(20_000, 0);
        log.append(&[1; 1_000]);
        log.commit(log.log.last_version());
    }
    let small = 10;
    assert!((0..10).all(|_| log.log.admit(small, class) == Admission::Admitted));
    let large = (1..20_000).rev().find(|bytes| log.log.admit(*bytes, class) == Admission::Admitted).unwrap();
    for _ in 0..10 {
        log.log.append(log.now_ms(), &mut vec![2; small]);
        log.log.settle(small, small);
        log.commit(log.log.last_version());
        log.become_quiet();
    }
    assert!(log.log.statistics().marks >= 10);
    log.log.append(log.now_ms(), &mut vec![3; large]);
    log.log.settle(large, large);
    log.commit(log.log.last_version());
    assert_eq!(TestLog::open(&log.close()).effects().last().unwrap(), &vec![3; large]);
}

#[test]
fn more_than_was_admitted_is_counted_and_still_written() {
    let disk = TestDisk::default();
    let mut log = TestLog::open(&disk);
    assert_eq!(log.log.admit(10, RoomClass::Ordinary), Admission::Admitted);
    let version = log.log.append(log.now_ms(), &mut vec![1; 200_000]);
    log.log.settle(10, 200_000);
    log.commit(version);
    assert_eq!(log.log.statistics().admissions_exceeded, 1);
    assert_eq!(TestLog::open(&disk).effects(), [vec![1; 200_000]]);
}

/// One thing that happens to a log.
#[derive(Clone, Debug)]
enum Action {
    Admit { bytes: usize, removal: bool },
    AppendAndSettle { part: usize },
    Reset,
    Write,
    Prepare,
    Pass { us: u64 },
    Sync,
    Capacity { files: u64 },
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        8 => (prop_oneof![4 => 1..600usize, 2 => 600..9_000usize, 1 => 20_000..90_000usize], any::<bool>())
            .prop_map(|(bytes, removal)| Action::Admit { bytes, removal }),
        8 => (0..4usize).prop_map(|part| Action::AppendAndSettle { part }),
        1 => Just(Action::Reset),
        5 => Just(Action::Write),
        4 => Just(Action::Prepare),
        3 => (0..6_000u64).prop_map(|us| Action::Pass { us }),
        2 => Just(Action::Sync),
        1 => (1..8u64).prop_map(|files| Action::Capacity { files }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever is admitted finds a prepared place: the writer never stalls and never meets a full disk.
    #[test]
    fn what_was_admitted_is_written_without_new_space(actions in prop::collection::vec(action(), 1..300)) {
        let disk = TestDisk::default();
        let mut log = TestLog::open(&disk);
        let mut admitted: Vec<usize> = Vec::new();
        let mut appended = 0;
        for action in actions {
            match action {
                Action::Admit { bytes, removal } => {
                    let class = if removal { RoomClass::Removal } else { RoomClass::Ordinary };
                    if log.log.admit(bytes, class) == Admission::Admitted {
                        admitted.push(bytes);
                    }
                }
                Action::AppendAndSettle { part } => {
                    if let Some(bytes) = admitted.pop() {
                        let used = bytes * part / 3;
                        log.log.append(log.now_ms(), &mut vec![1; used]);
                        log.log.settle(bytes, used);
                        appended += 1;
                    }
                }
                Action::Reset => {
                    if log.log.admit(5, RoomClass::Removal) == Admission::Admitted {
                        log.log.append_reset(log.now_ms(), &mut vec![1; 5]);
                        log.log.settle(5, 5);
                        appended = 1;
                    }
                }
                Action::Write => drop(log.step()),
                Action::Prepare => drop(log.preparer.step()),
                Action::Pass { us } => log.clock.advance(Duration::from_micros(us)),
                Action::Sync => log.log.request_sync(log.log.last_version()),
                Action::Capacity { files } => disk.set_capacity(disk.used() + files * FILE_BYTES / 2),
            }
            prop_assert!(!log.writer.is_stalled(), "a frame finds no place");
            prop_assert!(!log.log.is_poisoned(), "{:?}", log.log.failure());
        }
        log.log.request_sync(log.log.last_version());
        log.rest();
        prop_assert_eq!(log.log.commit(), log.log.last_version());
        let reopened = TestLog::open(&disk.power_cut());
        prop_assert_eq!(reopened.replayed.len(), appended);
    }
}
