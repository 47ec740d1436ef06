//! The archive: what gets into it and when, what a failing one does, and how it is read.

use proptest::prelude::*;

use super::*;
use crate::log::archive::{Archive, ArchiveError, Limit, ReplayEnd, ReplayFrom, ReplayRequest, StoreId};
use crate::log::format::{FILE_HEADER_BYTES, SLOT_OFFSETS};

const ARCHIVE: &str = "/archive";
const STORE: StoreId = StoreId(*b"store under test");

type Written = Vec<(Version, Vec<u8>)>;

fn keep_all() -> ArchiveOptions {
    ArchiveOptions { directory: ARCHIVE.into(), keep_for: None, keep_bytes: None }
}

fn open_with(disk: &TestDisk, archive: ArchiveOptions) -> TestLog {
    TestLog::try_open_with(disk, |options| LogOptions { archive: Some(archive), ..options }).unwrap()
}

fn open(disk: &TestDisk) -> TestLog {
    open_with(disk, keep_all())
}

fn archive_of(disk: &TestDisk) -> Archive {
    Archive::open(Arc::new(disk.clone()), Path::new(ARCHIVE)).unwrap()
}

fn replay_from(
    disk: &TestDisk,
    from: ReplayFrom,
    upto: Limit,
) -> (std::result::Result<ReplayEnd, ArchiveError>, Written) {
    let mut written = Vec::new();
    let mut deliver = |frame: ReplayFrame| {
        assert_eq!(frame.records().count(), frame.record_count() as usize);
        for record in frame.records() {
            let record = record?;
            written.push((record.version, record.effects.to_vec()));
        }
        Ok(())
    };
    let request = ReplayRequest { store_id: STORE, from, upto };
    let end = archive_of(disk).replay(&request, &mut deliver, &|_| {});
    (end, written)
}

fn replay_all(disk: &TestDisk) -> Written {
    let (end, written) = replay_from(disk, ReplayFrom::START, Limit::End);
    end.unwrap();
    written
}

fn archived(disk: &TestDisk) -> Vec<PathBuf> {
    disk.list(Path::new(ARCHIVE)).unwrap()
}

/// Writes until `files` more files are full; what was written.
fn fill_files(log: &mut TestLog, files: usize) -> Written {
    let mut written = Vec::new();
    let start = log.writer.file_header().sequence;
    while log.writer.file_header().sequence < start + files as u64 {
        let effects = vec![written.len() as u8; 5_000];
        written.push((log.put(&effects), effects));
    }
    log.prepare();
    written
}

fn put_small(log: &mut TestLog, effects: &[u8]) -> (Version, Vec<u8>) {
    (log.put(effects), effects.to_vec())
}

fn is_corrupt(error: &ArchiveError, expected: &Path) -> bool {
    matches!(error, ArchiveError::Store(Error::Corrupt { path, .. }) if path == expected)
}

#[test]
fn a_full_file_is_archived_without_what_stands_behind_its_last_frame() {
    let disk = TestDisk::default();
    let mut log = open(&disk);
    fill_files(&mut log, 1);
    let [path] = archived(&disk).try_into().unwrap();
    assert_eq!(path, Path::new(ARCHIVE).join(format!("{STORE}-{:020}.log", 1)));
    let (offset, last) = *frames_of(&disk, &file(1)).last().unwrap();
    let bytes = disk.contents(&file(1));
    assert_eq!(disk.contents(&path), bytes[..(offset + last.frame_bytes()) as usize]);
    assert_eq!(disk.power_cut().contents(&path), disk.contents(&path));
    let statistics = log.log.statistics();
    assert_eq!((statistics.archived_files, statistics.archive_pending_files), (1, 0));
    assert_eq!(statistics.archived_bytes, disk.contents(&path).len() as u64);
}

#[test]
fn a_closed_log_is_in_the_archive_to_its_last_version_and_goes_on_there() {
    let disk = TestDisk::default();
    let mut written = Written::new();
    for round in 0..4 {
        let mut log = open(&disk);
        written.push(put_small(&mut log, &[round; 20]));
        if round == 2 {
            written.extend(fill_files(&mut log, 2));
        }
        log.close();
        assert_eq!(replay_all(&disk), written, "round {round}");
    }
    assert_eq!(archived(&disk).len(), 3);
}

#[test]
fn what_a_reset_gives_up_is_archived_before() {
    let disk = TestDisk::default();
    let mut log = open(&disk);
    log.prepare();
    disk.fail_directory(Some(Path::new(ARCHIVE)));
    let mut written = fill_files(&mut log, 3);
    let reset = log.append_reset(b"reset");
    log.commit(reset);
    written.push((reset, b"reset".to_vec()));
    log.prepare();
    assert_eq!(log.log.statistics().archive_pending_files, 3);
    disk.fail_directory(None);
    written.push(put_small(&mut log, b"after"));
    // It has not tried again yet.
    assert_eq!(log.log.statistics().archive_pending_files, 3);
    log.clock.advance(Duration::from_secs(10));
    log.prepare();
    assert_eq!(log.log.statistics().archive_pending_files, 0);
    log.close();
    assert_eq!(replay_all(&disk), written);
}

#[test]
fn files_are_recycled_only_once_they_are_archived() {
    let disk = TestDisk::default();
    let mut log = open(&disk);
    log.prepare();
    disk.fail_directory(Some(Path::new(ARCHIVE)));
    fill_files(&mut log, 3);
    let cut = Checkpoint { version: log.log.last_version(), position: log.log.append_position() };
    let before = disk.paths();
    log.log.note_checkpoint(cut);
    log.become_quiet();
    assert_eq!(log.log.statistics().files, 1);
    assert_eq!(disk.paths(), before);
    disk.forget_calls();
    log.prepare();
    assert_eq!(disk.calls(), [], "a failing archive is tried again only after a while");
    disk.fail_directory(None);
    log.clock.advance(Duration::from_secs(10));
    log.prepare();
    assert_eq!(archived(&disk).len(), 3);
    assert_eq!(log.log.statistics().spares, 4);
}

#[test]
fn a_failing_archive_is_reported_and_stops_nothing() {
    let disk = TestDisk::default();
    disk.fail_directory(Some(Path::new(ARCHIVE)));
    let mut log = open(&disk);
    let mut written = fill_files(&mut log, 2);
    let statistics = log.log.statistics();
    assert_eq!((statistics.archived_files, statistics.archive_pending_files), (0, 2));
    assert!(statistics.archive_failures >= 1);
    assert!(statistics.archive_last_error.unwrap().contains(ARCHIVE));
    // Only a restart helps where names could not be made durable.
    let disk = log.close();
    disk.fail_directory(None);
    let mut log = open(&disk);
    written.extend(fill_files(&mut log, 1));
    let statistics = log.log.statistics();
    assert_eq!((statistics.archived_files, statistics.archive_pending_files), (3, 0));
    assert_eq!(statistics.archive_last_error, None);
    log.close();
    assert_eq!(replay_all(&disk), written);
}

#[test]
fn what_was_given_up_and_not_archived_is_archived_after_the_next_open() {
    let disk = TestDisk::default();
    let mut log = open(&disk);
    log.prepare();
    disk.fail_directory(Some(Path::new(ARCHIVE)));
    let mut written = fill_files(&mut log, 3);
    let cut = Checkpoint { version: log.log.last_version(), position: log.log.append_position() };
    log.log.note_checkpoint(cut);
    log.become_quiet();
    let killed = disk.power_cut();
    killed.fail_directory(None);
    let mut log = open(&killed);
    assert_eq!(log.effects(), Vec::<Vec<u8>>::new());
    written.push(put_small(&mut log, b"after"));
    log.close();
    assert_eq!(replay_all(&killed), written);
}

#[test]
fn what_is_in_the_archive_is_not_copied_again() {
    let disk = TestDisk::default();
    let mut log = open(&disk);
    fill_files(&mut log, 3);
    let cut = Checkpoint { version: log.log.last_version(), position: log.log.append_position() };
    fill_files(&mut log, 2);
    log.log.note_checkpoint(cut);
    log.become_quiet();
    let mut log = open(&disk.copy());
    log.prepare();
    let statistics = log.log.statistics();
    assert_eq!((statistics.archived_files, statistics.archive_pending_files), (0, 0));
}

#[test]
fn a_half_made_copy_means_nothing_and_is_replaced() {
    let disk = TestDisk::default();
    let mut log = open(&disk);
    log.prepare();
    let written = fill_files(&mut log, 1);
    let copy = Path::new(ARCHIVE).join(format!("{STORE}.archiving"));
    disk.create(&copy).unwrap().write_all_at(&[7; 100], 0).unwrap();
    assert_eq!(archive_of(&disk).line(STORE).unwrap().files.len(), 1);
    let more = fill_files(&mut log, 1);
    log.close();
    assert_eq!(replay_all(&disk), [written, more].concat());
    assert!(!archived(&disk).contains(&copy));
}

#[test]
fn a_copy_that_is_not_what_was_written_gets_no_name() {
    let disk = TestDisk::default();
    let mut log = open(&disk);
    log.prepare();
    disk.fail_directory(Some(Path::new(ARCHIVE)));
    fill_files(&mut log, 1);
    disk.fail_directory(None);
    let (offset, _) = frames_of(&disk, &file(1))[2];
    disk.flip_bit(&file(1), offset + 200);
    log.clock.advance(Duration::from_secs(10));
    log.prepare();
    assert_eq!(archived(&disk), Vec::<PathBuf>::new());
    let statistics = log.log.statistics();
    assert_eq!(statistics.archive_pending_files, 1);
    let error = statistics.archive_last_error.unwrap();
    assert!(error.contains("00000001.log") && error.contains(&format!("byte {offset}")), "{error}");
    disk.flip_bit(&file(1), offset + 200);
    log.clock.advance(Duration::from_secs(10));
    log.prepare();
    assert_eq!(log.log.statistics().archive_pending_files, 0);
}

#[test]
fn a_damaged_file_that_had_been_given_up_before_the_open_keeps_nothing_from_being_archived() {
    let disk = TestDisk::default();
    let mut log = TestLog::open(&disk);
    fill_files(&mut log, 3);
    let cut = Checkpoint { version: log.log.last_version(), position: log.log.append_position() };
    log.log.note_checkpoint(cut);
    log.become_quiet();
    let (offset, _) = frames_of(&disk, &file(2))[1];
    disk.flip_bit(&file(2), offset);
    let mut log = open(&disk.copy());
    log.prepare();
    assert_eq!(log.log.statistics().archive_pending_files, 0);
    let files = archive_of(&log.disk).line(STORE).unwrap().files.clone();
    assert_eq!(files.iter().map(|file| file.header.sequence).collect::<Vec<_>>(), [1, 3]);
}

#[test]
fn two_pasts_of_one_store_are_never_mixed() {
    let disk = TestDisk::default();
    let mut log = open(&disk);
    let start = put_small(&mut log, b"common");
    let disk = log.close();
    // Somebody copies the directory and goes on with both.
    let copy = disk.copy();
    let mut log = open(&disk);
    let mut written = vec![start];
    written.extend(fill_files(&mut log, 2));
    log.close();
    for path in archived(&disk) {
        let bytes = disk.contents(&path);
        let _ = copy.remove(&path);
        copy.create(&path).unwrap().write_all_at(&bytes, 0).unwrap();
    }
    let mut other = open(&copy);
    other.put(b"another past");
    fill_files(&mut other, 4);
    let error = other.log.statistics().archive_last_error.unwrap();
    assert!(error.contains("newer than its log"), "{error}");
    other.close();
    assert_eq!(replay_all(&copy), written);
    // Its log has grown as long as the archive.
    let mut other = open(&copy);
    other.prepare();
    let error = other.log.statistics().archive_last_error.unwrap();
    assert!(error.contains("another past"), "{error}");
    assert_eq!(replay_all(&copy), written);
}

#[test]
fn a_damaged_copy_of_the_active_file_is_replaced_by_the_next_one() {
    let disk = TestDisk::default();
    let mut log = open(&disk);
    let mut written = vec![put_small(&mut log, b"one")];
    let disk = log.close();
    let [path] = archived(&disk).try_into().unwrap();
    disk.flip_bit(&path, HEADER_BLOCK_BYTES + 150);
    assert!(is_corrupt(&replay_from(&disk, ReplayFrom::START, Limit::End).0.unwrap_err(), &path));
    let mut log = open(&disk);
    written.push(put_small(&mut log, b"two"));
    log.close();
    assert_eq!(replay_all(&disk), written);
}

#[test]
fn old_files_are_removed_when_all_are_too_large_but_never_the_newest() {
    let disk = TestDisk::default();
    let mut log = open_with(&disk, ArchiveOptions { keep_bytes: Some(3 * FILE_BYTES), ..keep_all() });
    fill_files(&mut log, 7);
    let files = archive_of(&disk).line(STORE).unwrap().files.clone();
    assert_eq!(files.iter().map(|file| file.header.sequence).collect::<Vec<_>>(), [5, 6, 7]);
    let mut log = open_with(&log.close(), ArchiveOptions { keep_bytes: Some(0), ..keep_all() });
    fill_files(&mut log, 1);
    assert_eq!(archived(&disk), [Path::new(ARCHIVE).join(format!("{STORE}-{:020}.log", 8))]);
}

#[test]
fn old_files_are_removed_when_everything_in_them_is_too_old() {
    let disk = TestDisk::default();
    let hour = Duration::from_secs(3600);
    let mut log = open_with(&disk, ArchiveOptions { keep_for: Some(10 * hour), ..keep_all() });
    let mut written = Vec::new();
    for _ in 0..5 {
        written.push(fill_files(&mut log, 2));
        log.clock.advance(4 * hour);
        log.become_quiet();
    }
    // At 16 h the last files were archived: what was written before 6 h may be gone, and nothing else. Each round's last
    // record begins a file.
    let files = archive_of(&disk).line(STORE).unwrap().files.clone();
    assert_eq!(files.first().unwrap().header.sequence, 5);
    let from = ReplayFrom { position: None, after: Version::at_ms(START_MS + 6 * 3_600_000) };
    let from = ReplayFrom { position: Some(files[0].header.start_position), ..from };
    let kept = replay_from(&disk, from, Limit::End).1;
    let expected: Written = written
        .concat()
        .into_iter()
        .filter(|(version, _)| *version > from.after && *version <= kept.last().unwrap().0)
        .collect();
    assert_eq!(kept, expected);
    assert!(kept.len() > 40);
}

#[test]
fn stores_that_share_an_archive_do_not_touch_each_other() {
    let (disk, other_id) = (TestDisk::default(), StoreId(*b"another store..."));
    let other = |options: LogOptions| LogOptions {
        directory: "/data/other".into(),
        store_id: other_id.0,
        archive: Some(ArchiveOptions { keep_bytes: Some(0), ..keep_all() }),
        ..options
    };
    let mut first = open(&disk);
    let mut second = TestLog::try_open_with(&disk, other).unwrap();
    let written = fill_files(&mut first, 3);
    fill_files(&mut second, 3);
    first.close();
    second.close();
    let archive = archive_of(&disk);
    let lines: Vec<_> = archive.lines().iter().map(|line| (line.store_id, line.files.len())).collect();
    assert_eq!(lines, [(other_id, 1), (STORE, 4)]);
    assert_eq!(replay_all(&disk), written);
    let request = ReplayRequest { store_id: StoreId([9; 16]), from: ReplayFrom::START, upto: Limit::End };
    let error = archive.replay(&request, &mut |_| Ok(()), &|_| {}).unwrap_err();
    assert!(matches!(&error, ArchiveError::NoLine { found, .. } if *found == [other_id, STORE]), "{error}");
}

/// An archive of a closed log with frames of many records, and a millisecond between them; what was written.
fn archive_with_groups() -> (TestDisk, Written) {
    let disk = TestDisk::default();
    let mut log = open(&disk);
    let mut written = Vec::new();
    for group in 0..30u8 {
        log.prepare();
        for record in 0..10 {
            let effects = vec![group ^ record; 700];
            written.push((log.append(&effects), effects));
            if record % 3 == 0 {
                log.clock.advance(Duration::from_millis(1));
            }
        }
        log.commit(written.last().unwrap().0);
    }
    log.close();
    assert!(archived(&disk).len() > 3);
    (disk, written)
}

#[test]
fn a_replay_ends_between_any_two_commands() {
    let (disk, written) = archive_with_groups();
    for (place, (version, _)) in written.iter().enumerate() {
        for (limit, count) in [(*version, place + 1), (Version(version.0 - 1), place)] {
            let (end, replayed) = replay_from(&disk, ReplayFrom::START, Limit::Version(limit));
            let end = end.unwrap();
            assert_eq!(replayed, written[..count], "limit {limit}");
            assert!(end.limit_reached);
            assert_eq!(end.version, written[..count].last().map_or(Version::ZERO, |(version, _)| *version));
            assert_eq!(end.records, count as u64);
        }
    }
    let (end, replayed) = replay_from(&disk, ReplayFrom::START, Limit::Version(Version::MAX));
    let end = end.unwrap();
    assert_eq!(replayed, written);
    assert!(!end.limit_reached);
    assert!(end.written_until_ms >= written.last().unwrap().0.time_ms());
}

#[test]
fn a_replay_to_a_time_has_every_command_of_that_millisecond() {
    let (disk, written) = archive_with_groups();
    for ms in START_MS - 1..=START_MS + 125 {
        let (end, replayed) = replay_from(&disk, ReplayFrom::START, Limit::TimeMs(ms));
        let expected: Written = written.iter().filter(|(version, _)| version.time_ms() <= ms).cloned().collect();
        assert_eq!(end.unwrap().limit_reached, expected.len() < written.len(), "{ms}");
        assert_eq!(replayed, expected, "{ms}");
    }
}

#[test]
fn a_replay_goes_on_after_any_version() {
    let (disk, written) = archive_with_groups();
    for (place, (version, _)) in written.iter().enumerate() {
        let from = ReplayFrom { position: None, after: *version };
        let (end, replayed) = replay_from(&disk, from, Limit::End);
        let end = end.unwrap();
        assert_eq!(replayed, written[place + 1..], "after {version}");
        assert_eq!(end.version, written.last().unwrap().0);
        assert!(end.files <= archived(&disk).len() as u64 - place as u64 / 100, "it begins near the version");
    }
}

#[test]
fn a_limit_before_the_backup_is_refused() {
    let (disk, written) = archive_with_groups();
    let (after, limit) = (written[50].0, written[49].0);
    let error = replay_from(&disk, ReplayFrom { position: None, after }, Limit::Version(limit)).0.unwrap_err();
    assert!(matches!(error, ArchiveError::LimitTooEarly { limit: l, after: a } if (l, a) == (limit, after)));
    let (end, replayed) = replay_from(&disk, ReplayFrom { position: None, after }, Limit::Version(after));
    assert!(end.unwrap().limit_reached && replayed.is_empty());
}

#[test]
fn a_missing_beginning_is_named_with_what_is_there() {
    let (disk, written) = archive_with_groups();
    let files = archive_of(&disk).line(STORE).unwrap().files.clone();
    disk.remove(&files[0].path).unwrap();
    let position = Some(files[1].header.start_position - 1);
    for from in [
        ReplayFrom::START,
        ReplayFrom { position, after: Version::MAX },
        ReplayFrom { position: None, after: written[0].0 },
    ] {
        match replay_from(&disk, from, Limit::End).0.unwrap_err() {
            ArchiveError::BeginsLater { path, begins_position, begins_version, asked } => {
                assert_eq!((path, asked), (files[1].path.clone(), from));
                assert_eq!(begins_position, files[1].header.start_position);
                assert_eq!(begins_version, files[1].first_version);
            }
            other => panic!("{other}"),
        }
    }
    let from = ReplayFrom { position: Some(files[1].header.start_position), after: Version::ZERO };
    let replayed = replay_from(&disk, from, Limit::End).1;
    assert_eq!(replayed, written[written.len() - replayed.len()..]);
}

#[test]
fn a_gap_is_named_unless_the_limit_lies_before_it() {
    let (disk, written) = archive_with_groups();
    let files = archive_of(&disk).line(STORE).unwrap().files.clone();
    disk.remove(&files[2].path).unwrap();
    let (end, replayed) = replay_from(&disk, ReplayFrom::START, Limit::End);
    match end.unwrap_err() {
        ArchiveError::Gap { before, offset, position, after, first_missing, last_missing, next } => {
            assert_eq!((before, next), (files[1].path.clone(), files[3].path.clone()));
            assert_eq!((offset, position), (files[1].bytes, files[2].header.start_position));
            assert_eq!((first_missing, last_missing), (3, 3));
            assert_eq!(after, replayed.last().unwrap().0);
        }
        other => panic!("{other}"),
    }
    assert_eq!(replayed, written[..replayed.len()]);
    let limit = replayed.last().unwrap().0;
    let (end, again) = replay_from(&disk, ReplayFrom::START, Limit::Version(limit));
    assert!(end.unwrap().limit_reached);
    assert_eq!(again, replayed);
}

/// Damages both headers of a file: the newest one may have two that are valid.
fn rot_heads(disk: &TestDisk, path: &Path) {
    SLOT_OFFSETS.into_iter().for_each(|slot| disk.flip_bit(path, slot + 20));
}

#[test]
fn a_file_with_a_damaged_header_is_named_where_it_is_missed() {
    let (disk, _) = archive_with_groups();
    let files = archive_of(&disk).line(STORE).unwrap().files.clone();
    for file in [&files[0], &files[2], files.last().unwrap()] {
        let disk = disk.copy();
        rot_heads(&disk, &file.path);
        let error = replay_from(&disk, ReplayFrom::START, Limit::End).0.unwrap_err();
        assert!(is_corrupt(&error, &file.path), "{error}");
        assert!(archive_of(&disk).files_with_damaged_headers().eq([file.path.as_path()]));
    }
}

#[test]
fn an_archive_whose_files_all_have_damaged_headers_is_not_an_empty_one() {
    let (disk, _) = archive_with_groups();
    archived(&disk).iter().for_each(|path| rot_heads(&disk, path));
    let archive = archive_of(&disk);
    assert!(archive.line(STORE).is_none() && archive.has_files_of(STORE));
    let error = replay_from(&disk, ReplayFrom::START, Limit::End).0.unwrap_err();
    assert!(is_corrupt(&error, &archived(&disk)[0]), "{error}");
}

#[test]
fn a_file_cut_off_anywhere_is_damage_at_its_frame() {
    let (disk, _) = archive_with_groups();
    let files = archive_of(&disk).line(STORE).unwrap().files.clone();
    for file in [&files[1], files.last().unwrap()] {
        let disk = disk.copy();
        let (offset, _) = *frames_of(&disk, &file.path).last().unwrap();
        let bytes = disk.contents(&file.path);
        disk.remove(&file.path).unwrap();
        disk.create(&file.path).unwrap().write_all_at(&bytes[..bytes.len() - 1], 0).unwrap();
        match replay_from(&disk, ReplayFrom::START, Limit::End).0.unwrap_err() {
            ArchiveError::Store(Error::Corrupt { path, offset: found, .. }) => {
                assert_eq!((path, found), (file.path.clone(), offset))
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn one_wrong_bit_anywhere_in_an_archived_file_is_found() {
    let (disk, written) = archive_with_groups();
    let files = archive_of(&disk).line(STORE).unwrap().files.clone();
    let file = &files[1];
    for offset in (0..file.bytes).filter(|offset| *offset < 100 || (*offset > 4000 && offset % 37 == 0)) {
        disk.flip_bit(&file.path, offset);
        let (end, replayed) = replay_from(&disk, ReplayFrom::START, Limit::End);
        disk.flip_bit(&file.path, offset);
        match end {
            Ok(_) => assert!((88..HEADER_BLOCK_BYTES).contains(&offset) && replayed == written, "byte {offset}"),
            Err(error) => assert!(is_corrupt(&error, &file.path) && written.starts_with(&replayed), "{error}"),
        }
    }
}

#[test]
fn a_file_of_a_newer_format_is_named() {
    let (disk, _) = archive_with_groups();
    let path = archived(&disk).pop().unwrap();
    disk.change(&path, 0, |bytes| {
        bytes[12] = 9;
        crate::head::seal(&mut bytes[..FILE_HEADER_BYTES]);
    });
    let error = Archive::open(Arc::new(disk.clone()), Path::new(ARCHIVE)).err().unwrap();
    assert!(matches!(error, Error::FormatTooNew { path: found, found: 9, .. } if found == path));
}

#[test]
fn two_files_of_one_place_are_named() {
    let (disk, _) = archive_with_groups();
    let files = archive_of(&disk).line(STORE).unwrap().files.clone();
    let copy = Path::new(ARCHIVE).join("copy.log");
    disk.create(&copy).unwrap().write_all_at(&disk.contents(&files[1].path), 0).unwrap();
    let error = replay_from(&disk, ReplayFrom::START, Limit::End).0.unwrap_err();
    assert!(is_corrupt(&error, &files[1].path) || is_corrupt(&error, &copy), "{error}");
}

#[test]
fn the_threads_archive_everything_before_they_end() {
    let disk = TestDisk::default();
    let log = open(&disk);
    let handle = log.log.clone();
    let threads = spawn(log.writer, log.preparer, &handle).unwrap();
    let mut written = Written::new();
    for round in 0..200u8 {
        let effects = vec![round; 3_000];
        handle.admit_blocking(effects.len(), RoomClass::Ordinary).unwrap();
        let version = handle.append(START_MS, &mut effects.clone());
        handle.settle(effects.len(), effects.len());
        handle.wait(version).unwrap();
        written.push((version, effects));
    }
    threads.close().unwrap();
    assert_eq!(handle.statistics().archive_pending_files, 0);
    assert!(handle.statistics().archived_files > 8);
    assert_eq!(replay_all(&disk), written);
}

#[derive(Clone, Debug)]
enum Action {
    Put(u16),
    Group(u8),
    Reset,
    Checkpoint,
    Close,
    Kill,
    PowerCut,
    ArchiveFails,
    ArchiveWorks,
    Wait(u16),
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        10 => (1..9_000u16).prop_map(Action::Put),
        6 => (1..8u8).prop_map(Action::Group),
        1 => Just(Action::Reset),
        2 => Just(Action::Checkpoint),
        1 => Just(Action::Close),
        1 => Just(Action::Kill),
        1 => Just(Action::PowerCut),
        1 => Just(Action::ArchiveFails),
        2 => Just(Action::ArchiveWorks),
        2 => (1..8_000u16).prop_map(Action::Wait),
    ]
}

fn act(mut log: TestLog, action: &Action, written: &mut Written) -> TestLog {
    match action {
        Action::Put(bytes) => {
            let effects = vec![written.len() as u8; usize::from(*bytes)];
            written.push((log.put(&effects), effects));
        }
        Action::Group(records) => {
            log.prepare();
            for record in 0..*records {
                let effects = vec![record; 100];
                written.push((log.append(&effects), effects));
            }
            log.commit(written.last().unwrap().0);
        }
        Action::Reset => {
            log.prepare();
            let version = log.append_reset(b"reset");
            log.commit(version);
            written.push((version, b"reset".to_vec()));
        }
        Action::Checkpoint => {
            let cut = Checkpoint { version: log.log.last_version(), position: log.log.append_position() };
            log.log.note_checkpoint(cut);
            log.become_quiet();
        }
        Action::Close => log = open(&log.close()),
        Action::Kill => log = open(&log.disk.copy()),
        Action::PowerCut => log = open(&log.disk.power_cut()),
        Action::ArchiveFails => log.disk.fail_directory(Some(Path::new(ARCHIVE))),
        Action::ArchiveWorks => log.disk.fail_directory(None),
        Action::Wait(ms) => {
            log.clock.advance(Duration::from_millis(u64::from(*ms)));
            log.prepare();
        }
    }
    log
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_archive_of_a_closed_log_is_every_command_there_ever_was(
        actions in prop::collection::vec(action(), 1..150), limit in any::<prop::sample::Index>(),
    ) {
        let mut log = open(&TestDisk::default());
        let mut written = Written::new();
        for action in &actions {
            log = act(log, action, &mut written);
        }
        log.disk.fail_directory(None);
        // Whatever the last process could not archive, the next one does.
        let mut log = open(&log.disk.copy());
        written.push((log.put(b"last"), b"last".to_vec()));
        let disk = log.close();
        prop_assert_eq!(&replay_all(&disk), &written);
        let count = limit.index(written.len());
        let (end, replayed) = replay_from(&disk, ReplayFrom::START, Limit::Version(written[count].0));
        prop_assert!(end.unwrap().limit_reached);
        prop_assert_eq!(&replayed[..], &written[..=count]);
    }
}
