//! What the log does when a checkpoint is published: it says so durably, and gives up what it need not say again.

use super::*;

/// A log of three files whose records up to the cut are in a checkpoint; the effects after the cut.
fn log_with_checkpoint(disk: &TestDisk) -> (TestLog, Checkpoint, Vec<Vec<u8>>) {
    let mut log = TestLog::open(disk);
    while log.log.statistics().files < 3 {
        log.put(&[1; 5_000]);
    }
    let cut = Checkpoint { version: log.log.last_version(), position: log.log.append_position() };
    let after = vec![vec![2; 100], vec![3; 100]];
    for effects in &after {
        log.put(effects);
    }
    (log, cut, after)
}

#[test]
fn a_noted_checkpoint_shortens_the_log_to_what_follows_its_cut() {
    let disk = TestDisk::default();
    let (mut log, cut, after) = log_with_checkpoint(&disk);
    log.log.note_checkpoint(cut);
    log.become_quiet();
    assert_eq!(log.log.noted_checkpoint(), cut.version);
    assert_eq!(log.log.statistics().files, 1);
    assert!(log.log.live_bytes() < 1_000);
    let head = Head::read(&disk, Path::new(DIRECTORY)).unwrap().unwrap();
    assert_eq!((head.checkpoint, head.replay_from), (cut.version, cut.position));
    let log = TestLog::open(&disk.power_cut());
    assert_eq!(log.effects(), after);
    assert_eq!(log.log.noted_checkpoint(), cut.version);
}

#[test]
fn files_are_given_up_only_when_the_header_that_names_the_checkpoint_is_durable() {
    let disk = TestDisk::default();
    let (mut log, cut, _) = log_with_checkpoint(&disk);
    log.log.note_checkpoint(cut);
    disk.fail_next_sync();
    log.become_quiet();
    assert!(log.log.is_poisoned());
    assert_eq!(log.log.statistics().files, 3);
    assert_eq!(log.log.noted_checkpoint(), Version::ZERO);
}

#[test]
fn a_reset_after_the_cut_is_not_taken_back_by_the_checkpoint() {
    let disk = TestDisk::default();
    let (mut log, cut, _) = log_with_checkpoint(&disk);
    let reset = log.append_reset(b"reset");
    log.commit(reset);
    log.log.note_checkpoint(cut);
    log.become_quiet();
    let head = Head::read(&disk, Path::new(DIRECTORY)).unwrap().unwrap();
    assert!(head.replay_from > cut.position && head.checkpoint == cut.version, "{head:?}");
    assert_eq!(TestLog::open(&disk).effects(), [b"reset".to_vec()]);
}

#[test]
fn a_log_that_ends_before_its_start_is_damaged() {
    let disk = TestDisk::default();
    let mut log = TestLog::open(&disk);
    log.put(b"one");
    let cut = Checkpoint { version: log.put(b"two"), position: log.log.append_position() };
    log.log.note_checkpoint(cut);
    assert_eq!(log.step(), Step::Worked);
    // No mark follows: only the header knows that the frame was durable.
    let (offset, _) = *record_frames_of(&disk, &file(1)).last().unwrap();
    disk.flip_bit(&file(1), offset + 20);
    assert_eq!(damage(&disk), (file(1), offset));
}

#[test]
fn versions_never_go_back_when_the_frame_after_a_checkpoint_is_lost_with_its_file() {
    let disk = TestDisk::default();
    let mut log = TestLog::open(&disk);
    while log.writer.file_header().sequence == 1 && log.log.append_position() < 50_000 {
        log.put(&[1; 5_000]);
    }
    log.prepare();
    log.log.note_checkpoint(Checkpoint { version: log.log.last_version(), position: log.log.append_position() });
    assert_eq!(log.step(), Step::Worked);
    let limit = log.log.version_limit();
    log.append(&[2; 20_000]);
    log.write_only();
    log.prepare();
    assert_eq!(log.writer.file_header().start_position, log.writer.file_header().replay_from);
    // The power goes: of the new file only its header is there.
    let disk = disk.copy();
    disk.change(&file(2), HEADER_BLOCK_BYTES, |bytes| bytes.fill(0));
    let mut log = TestLog::open(&disk);
    assert_eq!(log.effects(), Vec::<Vec<u8>>::new());
    assert!(log.put(b"next") > limit);
}

#[test]
fn versions_start_above_those_that_a_checkpoint_knows_of() {
    for disk in [TestDisk::default(), disk_with(&[b"one"])] {
        let floor = Version::at_ms(START_MS + 3_600_000);
        let mut log = TestLog::try_open_with(&disk, |options| LogOptions { version_floor: floor, ..options }).unwrap();
        assert!(log.put(b"next") > floor);
    }
}

#[test]
fn there_is_no_head_where_there_is_no_log() {
    let disk = TestDisk::default();
    assert_eq!(Head::read(&disk, Path::new("/nowhere")).unwrap(), None);
}
