//! What opening takes, cuts and refuses; one fault for each test.

use super::disk::Call;
use super::format::{FILE_HEADER_BYTES, FLAG_MARK, FileHeader, FileHeaderRead, SLOT_OFFSETS};
use super::*;
use crate::disk::DIRECT_BLOCK_BYTES;

const PAYLOAD: u64 = FRAME_HEADER_BYTES as u64;
/// Of a record of 128 bytes to 16 KiB that has its frame's first version.
const RECORD_HEADER_BYTES: usize = 1 + 2;

fn header_of(disk: &TestDisk, path: &Path) -> FileHeader {
    match FileHeader::decode_block(&disk.contents(path)) {
        FileHeaderRead::Header(header) => header,
        other => panic!("{} has no header: {other:?}", path.display()),
    }
}

/// Overwrites bytes of a file.
fn put(disk: &TestDisk, path: &Path, offset: u64, bytes: &[u8]) {
    disk.change(path, offset, |place| {
        let count = place.len().min(bytes.len());
        place[..count].copy_from_slice(&bytes[..count]);
    });
}

#[test]
fn a_new_log_is_empty_and_gives_back_what_was_committed() {
    let disk = TestDisk::default();
    let mut log = TestLog::open(&disk);
    assert!(log.recovered.created && log.replayed.is_empty());
    let (first, second) = (log.put(b"one"), log.put(b"two"));
    let log = TestLog::open(&disk.power_cut());
    assert_eq!(log.replayed, [(first, b"one".to_vec()), (second, b"two".to_vec())]);
    assert!(!log.recovered.created && !log.recovered.was_closed);
}

#[test]
fn a_torn_last_frame_is_cut() {
    let disk = TestDisk::default();
    let mut log = TestLog::open(&disk);
    log.put(b"kept");
    log.append(b"written, never synced");
    log.write_only();
    let (offset, header) = record_frames_of(&disk, &file(1))[1];
    disk.flip_bit(&file(1), offset + PAYLOAD);
    let log = TestLog::open(&disk);
    assert_eq!(log.effects(), [b"kept"]);
    assert_eq!(log.recovered.torn_bytes_cut, header.frame_bytes());
}

#[test]
fn a_rotten_frame_that_a_later_one_proves_durable_is_damage_at_its_offset() {
    let disk = disk_with(&[b"one", b"two", b"three"]);
    let (offset, _) = record_frames_of(&disk, &file(1))[1];
    disk.flip_bit(&file(1), offset + PAYLOAD);
    assert_eq!(damage(&disk), (file(1), offset));
}

#[test]
fn the_last_acknowledged_frame_of_an_idle_log_has_a_witness() {
    let disk = disk_with(&[b"one", b"two"]);
    let (offset, _) = record_frames_of(&disk, &file(1))[1];
    assert_eq!(frames_of(&disk, &file(1)).last().unwrap().1.flags, FLAG_MARK);
    disk.flip_bit(&file(1), offset + PAYLOAD);
    assert_eq!(damage(&disk), (file(1), offset));
}

#[test]
fn a_rotten_length_hides_no_later_frame() {
    let disk = disk_with(&[b"one", b"two", b"three"]);
    let (offset, _) = record_frames_of(&disk, &file(1))[0];
    let payload_bytes_at = offset + 12;
    put(&disk, &file(1), payload_bytes_at, &u32::MAX.to_le_bytes());
    assert_eq!(damage(&disk), (file(1), offset));
}

#[test]
fn damage_refuses_without_changing_a_byte() {
    let disk = disk_with(&[b"one", b"two"]);
    let (offset, _) = record_frames_of(&disk, &file(1))[0];
    disk.flip_bit(&file(1), offset + PAYLOAD);
    damage(&disk);
    let changes = disk.calls().into_iter().filter(|call| !matches!(call, Call::SyncDirectory(_)));
    assert_eq!(changes.collect::<Vec<_>>(), []);
}

#[test]
fn a_frame_of_an_earlier_epoch_never_continues_the_log() {
    let disk = TestDisk::default();
    let mut log = TestLog::open(&disk);
    log.put(b"kept");
    // The stale frame begins with a block: zeros after the new frame do not reach it.
    let (kept, header) = *record_frames_of(&disk, &file(1)).last().unwrap();
    let place = (kept + header.frame_bytes()) as usize + FRAME_HEADER_BYTES + RECORD_HEADER_BYTES;
    let second = vec![2; place.next_multiple_of(DIRECT_BLOCK_BYTES) - place];
    for effects in [&second[..], b"stale"] {
        log.append(effects);
        log.write_only();
    }
    let frames = record_frames_of(&disk, &file(1));
    assert!(frames[2].0.is_multiple_of(DIRECT_BLOCK_BYTES as u64));
    disk.flip_bit(&file(1), frames[1].0 + PAYLOAD);
    // The opening mark and the new frame take exactly the place of the torn one: the stale one follows.
    let mut log = TestLog::open(&disk);
    let new = vec![3; frames[1].1.frame_bytes() as usize - 2 * FRAME_HEADER_BYTES - RECORD_HEADER_BYTES];
    log.put(&new);
    let frames_now = record_frames_of(&disk, &file(1));
    let [.., (offset, header), stale] = frames_now[..] else { panic!("{frames_now:?}") };
    assert_eq!((offset + header.frame_bytes(), stale), (frames[2].0, frames[2]));
    let log = TestLog::open(&disk);
    assert_eq!(log.effects(), [b"kept".to_vec(), new]);
}

/// A log whose first file is being written a second time, after a reset.
fn disk_with_recycled_file() -> (TestDisk, Vec<Vec<u8>>) {
    let disk = TestDisk::default();
    let mut log = TestLog::open(&disk);
    while log.log.statistics().files < 2 {
        log.put(&[1; 5_000]);
    }
    log.append_reset(b"reset");
    log.commit(log.log.last_version());
    log.prepare();
    let mut kept = vec![b"reset".to_vec()];
    let mut left = 2;
    while left > 0 {
        let effects = vec![kept.len() as u8; 9_000];
        log.put(&effects);
        kept.push(effects);
        // The first file is in use again.
        left -= u8::from(header_of(&disk, &file(1)).sequence > 2);
    }
    (disk.copy(), kept)
}

#[test]
fn stale_frames_of_a_recycled_file_are_not_taken() {
    let (disk, kept) = disk_with_recycled_file();
    let bytes = disk.contents(&file(1));
    let (offset, last) = *frames_of(&disk, &file(1)).last().unwrap();
    let stale = (offset + last.frame_bytes()) as usize..bytes.len() - FRAME_HEADER_BYTES;
    assert!(stale.into_iter().any(|at| FrameHeader::decode(&bytes[at..]).is_some()), "stale frames follow");
    let log = TestLog::open(&disk);
    assert_eq!(log.effects(), kept);
}

#[test]
fn a_recycled_file_whose_new_header_was_lost_is_a_spare_again() {
    let disk = TestDisk::default();
    let mut log = TestLog::open(&disk);
    log.prepare();
    let spare = file(2);
    let before = disk.contents(&spare);
    let mut kept = Vec::new();
    while log.log.statistics().files < 2 {
        kept.push(log.put(&[1; 5_000]));
    }
    // The header never reached the disk, and the frame's sync had not returned.
    put(&disk, &spare, 0, &before[..HEADER_BLOCK_BYTES as usize]);
    kept.pop();
    let log = TestLog::open(&disk);
    assert_eq!(log.replayed.iter().map(|(version, _)| *version).collect::<Vec<_>>(), kept);
}

#[test]
fn a_newest_file_that_shows_the_header_of_its_former_life_is_damage_once_a_mark_covers_its_frames() {
    let disk = TestDisk::default();
    let mut log = TestLog::open(&disk);
    while log.log.statistics().files < 2 {
        log.put(&[1; 5_000]);
    }
    let former = disk.contents(&file(1));
    log.append_reset(b"reset");
    log.commit(log.log.last_version());
    log.prepare();
    while header_of(&disk, &file(1)).sequence < 3 {
        log.put(&[2; 9_000]);
    }
    log.become_quiet();
    put(&disk, &file(1), 0, &former[..HEADER_BLOCK_BYTES as usize]);
    assert_eq!(header_of(&disk, &file(1)).sequence, 1);
    assert_eq!(damage(&disk).0, file(3), "the log goes on behind that file");
}

#[test]
fn a_damaged_header_of_the_newest_file_is_damage_once_a_mark_covers_its_frames() {
    let disk = TestDisk::default();
    let mut log = TestLog::open(&disk);
    while log.log.statistics().files < 2 {
        log.put(&[1; 5_000]);
    }
    log.become_quiet();
    SLOT_OFFSETS.iter().for_each(|slot| disk.flip_bit(&file(2), slot + 20));
    let (offset, last) = *frames_of(&disk, &file(1)).last().unwrap();
    assert_eq!(damage(&disk), (file(1), offset + last.frame_bytes()));
}

#[test]
fn a_damaged_header_of_the_only_file_is_damage() {
    let disk = disk_with(&[b"one"]);
    SLOT_OFFSETS.iter().for_each(|slot| disk.flip_bit(&file(1), slot + 20));
    assert_eq!(damage(&disk), (file(1), 0));
}

#[test]
fn either_header_of_the_only_file_will_do() {
    for slot in SLOT_OFFSETS {
        let disk = disk_with(&[b"one"]);
        disk.flip_bit(&file(1), slot + 20);
        assert_eq!(TestLog::open(&disk).effects(), [b"one".to_vec()]);
    }
}

#[test]
fn a_lost_block_with_the_last_frame_and_its_mark_is_damage() {
    let disk = disk_with(&[b"one", b"two"]);
    let (first, header) = record_frames_of(&disk, &file(1))[0];
    let end = first + header.frame_bytes();
    assert!(end < HEADER_BLOCK_BYTES + DIRECT_BLOCK_BYTES as u64, "everything stands in one block");
    disk.change(&file(1), end, |bytes| bytes[..DIRECT_BLOCK_BYTES].fill(0));
    assert_eq!(damage(&disk), (file(1), end));
}

/// A log of three files, with records to the end.
fn disk_with_three_files() -> TestDisk {
    let disk = TestDisk::default();
    let mut log = TestLog::open(&disk);
    while log.log.statistics().files < 3 {
        log.put(&[1; 5_000]);
    }
    disk.copy()
}

#[test]
fn a_missing_file_between_others_is_damage() {
    let disk = disk_with_three_files();
    let (offset, last) = *frames_of(&disk, &file(1)).last().unwrap();
    disk.remove(&file(2)).unwrap();
    assert_eq!(damage(&disk), (file(1), offset + last.frame_bytes()));
}

#[test]
fn a_missing_first_file_is_damage() {
    let disk = disk_with_three_files();
    disk.remove(&file(1)).unwrap();
    let (path, _) = damage(&disk);
    assert_eq!(path, file(3));
}

#[test]
fn the_order_of_files_comes_from_their_headers() {
    let disk = disk_with_three_files();
    let expected = TestLog::open(&disk.copy()).replayed;
    disk.rename(&file(1), &file(900)).unwrap();
    disk.rename(&file(3), &file(1)).unwrap();
    assert_eq!(TestLog::open(&disk).replayed, expected);
}

#[test]
fn a_copy_of_a_log_file_under_another_name_is_refused() {
    let disk = disk_with_three_files();
    let bytes = disk.contents(&file(2));
    disk.create(&file(77)).unwrap().write_all_at(&bytes, 0).unwrap();
    let (path, _) = damage(&disk);
    assert!(path == file(77) || path == file(2), "{}", path.display());
}

#[test]
fn what_was_read_but_never_synced_is_written_again_and_synced_before_it_is_served() {
    let disk = TestDisk::default();
    let mut log = TestLog::open(&disk);
    log.put(b"synced");
    log.append(b"only in the page cache");
    log.write_only();
    assert_eq!(TestLog::open(&disk.power_cut()).effects(), [b"synced"]);

    let (killed, path) = (disk.copy(), file(1));
    let log = TestLog::open(&killed);
    assert_eq!(log.effects(), [b"synced".to_vec(), b"only in the page cache".to_vec()]);
    assert_eq!(TestLog::open(&killed.power_cut()).effects(), log.effects());

    let (offset, header) = record_frames_of(&killed, &path)[1];
    let end = offset + header.frame_bytes();
    let calls = killed.calls();
    let covers = |call: &Call| match call {
        Call::Write(_, from, bytes) => {
            let to = from + bytes.len() as u64;
            *from <= offset && to >= end && killed.contents(&path)[*from as usize..to as usize] == bytes[..]
        }
        _ => false,
    };
    let rewritten = calls.iter().position(covers).expect("the frame is written once more, byte for byte");
    assert_eq!(calls[rewritten + 1], Call::Sync(path), "and synced before the opening mark is written");
    assert!(log.recovered.rewritten_bytes >= header.frame_bytes());
}

#[test]
fn a_witnessed_frame_is_not_written_again() {
    let disk = disk_with(&[b"one", b"two"]);
    let (last, header) = *record_frames_of(&disk, &file(1)).last().unwrap();
    let (before, end) = (disk.contents(&file(1)), last + header.frame_bytes());
    TestLog::open(&disk);
    for call in disk.calls() {
        if let Call::Write(_, offset, bytes) = call {
            let is_header = SLOT_OFFSETS.contains(&offset) && bytes.len() == FILE_HEADER_BYTES;
            // Only the block that they end in is written again, with the opening mark, and not changed.
            let again = end.saturating_sub(offset) as usize;
            let is_block = offset.is_multiple_of(DIRECT_BLOCK_BYTES as u64) && again < DIRECT_BLOCK_BYTES;
            assert!(is_header || again == 0 || is_block, "{} bytes were written at {offset}", bytes.len());
            let offset = offset as usize;
            assert!(is_header || bytes[..again] == before[offset..offset + again]);
        }
    }
}

#[test]
fn names_are_made_durable_before_the_files_are_used() {
    let disk = disk_with(&[b"one"]);
    TestLog::open(&disk);
    let calls = disk.calls();
    let used = calls.iter().position(|call| matches!(call, Call::Write(..))).unwrap();
    for directory in [DIRECTORY, "/data", "/"] {
        assert!(calls[..used].contains(&Call::SyncDirectory(directory.into())), "{directory} is synced first");
    }
}

#[test]
fn a_file_of_another_store_is_named() {
    let disk = disk_with(&[b"one"]);
    let header = header_of(&disk, &file(1));
    let foreign = FileHeader { store_id: *b"another store's!", ..header };
    disk.create(&file(5)).unwrap().write_all_at(&foreign.encode_block(), 0).unwrap();
    assert_eq!(damage(&disk), (file(5), 16));
}

#[test]
fn a_newer_format_is_named() {
    let disk = disk_with(&[b"one"]);
    let mut header = header_of(&disk, &file(1)).encode();
    header[12] = 77;
    crate::head::seal(&mut header);
    put(&disk, &file(1), 0, &header);
    match TestLog::try_open(&disk).map(|log| log.replayed) {
        Err(Error::FormatTooNew { path, found: 77, newest: 1 }) => assert_eq!(path, file(1)),
        other => panic!("not refused as too new: {other:?}"),
    }
}

#[test]
fn a_creation_that_was_interrupted_begins_again() {
    let disk = TestDisk::default();
    disk.create(&Path::new(DIRECTORY).join("prepare.tmp")).unwrap().write_all_at(&[0; 100], 0).unwrap();
    disk.create(&file(1)).unwrap().write_all_at(&[0; FILE_BYTES as usize], 0).unwrap();
    let mut log = TestLog::open(&disk);
    assert!(log.recovered.created);
    log.put(b"one");
    assert_eq!(disk.paths(), [file(1), file(2)], "the zeroed file is used and nothing half made is left");
    assert_eq!(TestLog::open(&disk).effects(), [b"one"]);
}

#[test]
fn replay_begins_at_the_newest_reset() {
    let disk = TestDisk::default();
    let mut log = TestLog::open(&disk);
    log.put(b"before");
    let reset = log.append_reset(b"reset");
    let after = log.append(b"after");
    log.commit(after);
    let log = TestLog::open(&disk);
    assert_eq!(log.replayed, [(reset, b"reset".to_vec()), (after, b"after".to_vec())]);
}

#[test]
fn a_reset_that_was_torn_leaves_what_was_before_it() {
    let disk = TestDisk::default();
    let mut log = TestLog::open(&disk);
    log.put(b"before");
    log.append_reset(b"reset");
    log.write_only();
    let (offset, _) = record_frames_of(&disk, &file(1))[1];
    disk.flip_bit(&file(1), offset + PAYLOAD);
    assert_eq!(TestLog::open(&disk).effects(), [b"before"]);
}

#[test]
fn a_lost_header_update_after_a_reset_replays_from_further_back() {
    let disk = TestDisk::default();
    let mut log = TestLog::open(&disk);
    log.put(b"before");
    log.append_reset(b"reset");
    log.commit(log.log.last_version());
    disk.flip_bit(&file(1), SLOT_OFFSETS[1] + 20);
    assert_eq!(TestLog::open(&disk).effects(), [b"before".to_vec(), b"reset".to_vec()]);
}

#[test]
fn a_reset_gives_up_older_files_only_once_a_durable_header_says_so() {
    let disk = TestDisk::default();
    let mut log = TestLog::open(&disk);
    while log.log.statistics().files < 3 {
        log.put(&[1; 5_000]);
    }
    let all = TestLog::open(&disk.copy()).replayed.len();
    disk.forget_calls();
    log.append_reset(b"reset");
    log.commit(log.log.last_version());
    let syncs = disk.calls().iter().filter(|call| matches!(call, Call::Sync(_))).count();
    assert_eq!(syncs, 2, "the frame, then the header");
    // Whatever falls between the two leaves a whole log.
    put(&disk, &file(3), SLOT_OFFSETS[1], &[0; 512]);
    assert_eq!(TestLog::open(&disk.copy()).replayed.len(), all + 1);
    log.prepare();
    assert_eq!(log.log.statistics().files, 1);
}

#[test]
fn versions_start_above_those_that_may_have_been_seen() {
    let disk = TestDisk::default();
    let mut log = TestLog::open(&disk);
    log.put(b"one");
    let lost = log.append(b"seen at level none, lost by the crash");
    let limit = log.log.version_limit();
    assert!(lost <= limit);
    let log = TestLog::open(&disk.power_cut());
    assert_eq!(log.log.last_version(), limit);
    assert!(log.append(b"next") > lost);
}

#[test]
fn a_closed_log_goes_on_right_after_its_last_version() {
    let disk = TestDisk::default();
    let mut log = TestLog::open(&disk);
    let last = log.put(b"one");
    log.append(b"two");
    let last = Version(last.0 + 1);
    let disk = log.close();
    let log = TestLog::open(&disk.power_cut());
    assert!(log.recovered.was_closed);
    assert_eq!((log.recovered.last_version, log.log.commit()), (last, last));
    assert_eq!(log.effects(), [b"one", b"two"]);
}

/// A log of one file with a checkpoint in its middle, records behind it, closed in order; and those records.
fn closed_log() -> (TestDisk, Vec<Vec<u8>>) {
    let disk = TestDisk::default();
    let mut log = TestLog::open(&disk);
    (0..20).for_each(|_| _ = log.put(&[1; 1_000]));
    let cut = Checkpoint { version: log.log.last_version(), position: log.log.append_position() };
    let after = vec![vec![2; 100], vec![3; 100]];
    after.iter().for_each(|effects| _ = log.put(effects));
    log.log.note_checkpoint(cut);
    log.become_quiet();
    (log.close().power_cut(), after)
}

#[test]
fn of_a_closed_log_only_what_is_replayed_is_read() {
    let (disk, after) = closed_log();
    let log = TestLog::open(&disk.copy());
    assert_eq!(log.effects(), after);
    assert!(log.recovered.was_closed && log.recovered.bytes < 2_000, "{:?}", log.recovered);
    // The same, read from the beginning.
    let headers = header_of(&disk, &file(1));
    assert!(headers.is_closed);
    let unclosed = FileHeader { is_closed: false, ..headers }.encode();
    put(&disk, &file(1), headers.slot_offset(), &unclosed);
    let whole = TestLog::open(&disk);
    assert_eq!(whole.effects(), after);
    assert!(whole.recovered.bytes > 20_000, "{:?}", whole.recovered);
    let same = |log: &TestLog| (log.recovered.last_version, log.recovered.epoch, log.log.append_position());
    assert_eq!(same(&log), same(&whole));
}

#[test]
fn damage_before_the_place_where_replay_begins_keeps_no_closed_log_from_opening() {
    let (disk, after) = closed_log();
    let (offset, header) = record_frames_of(&disk, &file(1))[3];
    assert!(header.position + header.frame_bytes() < header_of(&disk, &file(1)).replay_from);
    disk.flip_bit(&file(1), offset + PAYLOAD);
    let report = check(Path::new(DIRECTORY), &disk).unwrap();
    assert!(matches!(report.damage, Some(Error::Corrupt { offset: at, .. }) if at == offset), "{:?}", report.damage);
    assert_eq!(TestLog::open(&disk).effects(), after);
}

#[test]
fn a_closed_log_is_opened_and_closed_again_and_again() {
    let (disk, after) = closed_log();
    let mut disk = disk;
    for round in 0..300u32 {
        let mut log = TestLog::open(&disk);
        assert_eq!(log.effects().len(), after.len() + round as usize);
        log.put(&round.to_le_bytes());
        disk = log.close().power_cut();
    }
    assert!(header_of(&disk, &file(2)).sequence > 1, "it went on into other files");
}

#[test]
fn once_a_closed_log_is_open_neither_header_says_that_it_is_closed() {
    let (disk, _) = closed_log();
    TestLog::open(&disk);
    let image = disk.power_cut();
    for slot in SLOT_OFFSETS {
        let image = image.copy();
        image.flip_bit(&file(1), slot + 20);
        assert!(!header_of(&image, &file(1)).is_closed, "the header beside {slot}");
    }
}

#[test]
fn nothing_is_written_behind_a_closing_mark_before_a_header_says_that_it_is_not_the_end() {
    let (disk, _) = closed_log();
    let end = frames_of(&disk, &file(1)).last().map(|(offset, last)| offset + last.frame_bytes()).unwrap();
    TestLog::open(&disk);
    let calls = disk.calls();
    let synced = calls.iter().position(|call| *call == Call::Sync(file(1))).unwrap();
    let is_before = |call: &Call| matches!(call, Call::Write(_, at, bytes) if at + bytes.len() as u64 <= end);
    let written: Vec<_> = calls[..synced].iter().filter(|call| matches!(call, Call::Write(..))).collect();
    assert!(written.iter().all(|call| is_before(call)), "{written:?}");
    let unclosed = |call: &&&Call| match call {
        Call::Write(_, _, bytes) => {
            matches!(FileHeader::decode(bytes), FileHeaderRead::Header(header) if !header.is_closed)
        }
        _ => false,
    };
    assert_eq!(written.iter().filter(unclosed).count(), 1, "{written:?}");
}

#[test]
fn a_lost_opening_mark_after_a_close_is_damage() {
    let (disk, _) = closed_log();
    let end = frames_of(&disk, &file(1)).last().map(|(offset, last)| offset + last.frame_bytes()).unwrap();
    let mut log = TestLog::open(&disk);
    log.put(b"acknowledged");
    log.become_quiet();
    disk.flip_bit(&file(1), end);
    assert_eq!(damage(&disk), (file(1), end));
    for slot in SLOT_OFFSETS {
        let image = disk.copy();
        image.flip_bit(&file(1), slot + 20);
        assert_eq!(damage(&image), (file(1), end), "with the header at {slot} lost too");
    }
}

#[test]
fn a_header_from_before_that_says_closed_hides_nothing_that_was_written_since() {
    let (disk, _) = closed_log();
    let before = disk.contents(&file(1))[..HEADER_BLOCK_BYTES as usize].to_vec();
    let end = frames_of(&disk, &file(1)).last().map(|(offset, last)| offset + last.frame_bytes()).unwrap();
    let mut log = TestLog::open(&disk);
    let acknowledged = log.put(b"acknowledged");
    log.become_quiet();
    put(&disk, &file(1), 0, &before);
    let image = disk.copy();
    assert_eq!(TestLog::open(&image).replayed.last().map(|(version, _)| *version), Some(acknowledged));
    disk.flip_bit(&file(1), end);
    assert_eq!(damage(&disk), (file(1), end));
}

#[test]
fn a_damaged_frame_of_a_closed_log_is_named_as_in_any_other() {
    let (disk, after) = closed_log();
    let frames = frames_of(&disk, &file(1));
    let replay_from = HEADER_BLOCK_BYTES + header_of(&disk, &file(1)).replay_from;
    let (mark, _) = *frames.last().unwrap();
    for (offset, header) in frames.into_iter().filter(|(offset, _)| (replay_from..mark).contains(offset)) {
        for at in [offset, offset + header.frame_bytes() - 1] {
            let image = disk.copy();
            image.flip_bit(&file(1), at);
            assert_eq!(damage(&image), (file(1), offset));
        }
    }
    // Of the closing mark nothing is missed.
    disk.flip_bit(&file(1), mark);
    assert_eq!(TestLog::open(&disk).effects(), after);
}

#[test]
fn opening_again_and_again_keeps_everything_and_grows_by_a_mark_each() {
    let disk = disk_with(&[b"one"]);
    let (mut positions, mut epoch) = (Vec::new(), 0);
    for _ in 0..600 {
        let log = TestLog::open(&disk);
        assert_eq!(log.effects(), [b"one"]);
        assert!(log.recovered.epoch > epoch, "an epoch never comes back");
        epoch = log.recovered.epoch;
        positions.push(log.log.append_position());
    }
    assert!(positions.windows(2).all(|two| two[1] == two[0] + PAYLOAD));
    assert!(positions[599] > FILE_BYTES, "the marks went on into another file");
}

#[test]
fn a_value_that_holds_the_bytes_of_the_log_changes_nothing() {
    let disk = TestDisk::default();
    let mut log = TestLog::open(&disk);
    log.put(b"one");
    log.put(b"two");
    let copy = disk.contents(&file(1))[..8_000].to_vec();
    log.put(&copy);
    log.append(&copy);
    log.write_only();
    let (offset, header) = *record_frames_of(&disk, &file(1)).last().unwrap();
    disk.flip_bit(&file(1), offset + header.frame_bytes() - 1);
    assert_eq!(TestLog::open(&disk).effects(), [b"one".to_vec(), b"two".to_vec(), copy]);
}

/// A frame that a client who knows the store's identity has made up.
fn forged(position: u64) -> Vec<u8> {
    let (store_id, durable_position) = (*b"store under test", position);
    FrameHeader { store_id, position, durable_position, epoch: 1 << 40, ..FrameHeader::default() }.encode().0.to_vec()
}

#[test]
fn a_frame_forged_in_a_value_is_no_witness_where_it_cannot_stand() {
    for torn_at in [0, PAYLOAD] {
        let disk = TestDisk::default();
        let mut log = TestLog::open(&disk);
        log.put(b"kept");
        log.append(&[vec![6; 1_000], forged(1 << 60), vec![6; 1_000]].concat());
        log.write_only();
        let (offset, _) = record_frames_of(&disk, &file(1))[1];
        disk.flip_bit(&file(1), offset + torn_at);
        let log = TestLog::open(&disk);
        assert_eq!(log.effects(), [b"kept"]);
        assert!(log.recovered.epoch < 1 << 40, "a forged epoch is not believed either");
    }
}

#[test]
fn a_frame_forged_for_its_very_place_is_no_witness_inside_a_torn_frame() {
    let disk = TestDisk::default();
    let mut log = TestLog::open(&disk);
    log.put(b"kept");
    let record_header = 1 + 2;
    let position = log.log.append_position() + PAYLOAD + record_header + 1_000;
    log.append(&[vec![6; 1_000], forged(position), vec![6; 1_000]].concat());
    log.write_only();
    let (offset, header) = record_frames_of(&disk, &file(1))[1];
    let at = offset + PAYLOAD + record_header + 1_000;
    let (found, _) = FrameHeader::decode(&disk.contents(&file(1))[at as usize..]).unwrap();
    assert_eq!(found.position - header.position, at - offset, "it stands where it says");
    disk.flip_bit(&file(1), offset + PAYLOAD);
    assert_eq!(TestLog::open(&disk).effects(), [b"kept"]);
}

#[test]
fn a_check_finds_what_opening_finds_and_changes_nothing() {
    let disk = disk_with_three_files();
    let report = check(Path::new(DIRECTORY), &disk).unwrap();
    assert!(report.damage.is_none());
    let states: Vec<FileState> = report.files.iter().map(|file| file.state).collect();
    assert_eq!(states[..3], [FileState::Live, FileState::Live, FileState::Active]);
    let records = report.records;
    let (offset, _) = record_frames_of(&disk, &file(2))[2];
    disk.flip_bit(&file(2), offset + PAYLOAD);
    let report = check(Path::new(DIRECTORY), &disk).unwrap();
    assert_eq!(disk.calls(), []);
    assert!(report.records < records);
    match report.damage {
        Some(Error::Corrupt { path, offset: at, .. }) => assert_eq!((path, at), (file(2), offset)),
        other => panic!("no damage found: {other:?}"),
    }
}

/// Whether the log opens with everything that was acknowledged, or refuses by name.
fn is_whole_or_refused(disk: &TestDisk, expected: &[(Version, Vec<u8>)]) -> bool {
    match TestLog::try_open(disk) {
        Ok(log) => log.replayed == expected,
        Err(Error::Corrupt { .. } | Error::FormatTooNew { .. }) => true,
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn one_wrong_bit_anywhere_loses_nothing_silently() {
    let disk = TestDisk::default();
    let mut log = TestLog::open(&disk);
    log.put(b"before");
    log.append_reset(b"reset");
    log.put(&[3; 300]);
    log.put(b"last");
    log.become_quiet();
    let end = frames_of(&disk, &file(1)).last().map(|(offset, header)| offset + header.frame_bytes()).unwrap();
    let expected = TestLog::open(&disk.copy()).replayed;
    let with_before = [&TestLog::open(&disk_with(&[b"before"])).replayed[..], &expected].concat();
    assert_eq!(expected.len(), 3);
    let slots = SLOT_OFFSETS.iter().flat_map(|slot| *slot..slot + FILE_HEADER_BYTES as u64);
    // The closing mark itself is the one frame without a witness, and holds nothing.
    for offset in slots.chain(HEADER_BLOCK_BYTES..end) {
        let image = disk.copy();
        image.flip_bit(&file(1), offset);
        assert!(
            is_whole_or_refused(&image, &expected) || is_whole_or_refused(&image, &with_before),
            "a wrong bit at {offset} changed what comes back"
        );
    }
}

proptest::proptest! {
    #[test]
    fn files_cut_or_overwritten_anywhere_never_panic(
        number in 1..4u64, at in 0..FILE_BYTES, bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 1..600),
    ) {
        let disk = disk_with_three_files();
        put(&disk, &file(number), at, &bytes);
        if let Err(error) = TestLog::try_open(&disk) {
            proptest::prop_assert!(matches!(error, Error::Corrupt { .. } | Error::FormatTooNew { .. }), "{error}");
        }
    }
}
