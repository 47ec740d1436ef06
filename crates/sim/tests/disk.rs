//! The simulated disk loses what a real one may lose, and nothing that was synced.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use bowline::disk::{Disk, DiskFile};
use bowline_sim::disk::{CallKind, Failure, SimDisk};
use bowline_sim::random::Random;

const SECTOR: usize = 512;

fn path(name: &str) -> PathBuf {
    Path::new("/").join(name)
}

/// A file of `sectors` sectors of `fill`, durable under its name.
fn durable_file(disk: &SimDisk, name: &str, fill: u8, sectors: usize) -> Box<dyn DiskFile> {
    let file = disk.create(&path(name)).unwrap();
    file.write_all_at(&vec![fill; sectors * SECTOR], 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_directory(Path::new("/")).unwrap();
    file
}

/// The contents of a file in many images of one moment.
fn images(disk: &SimDisk, name: &str) -> BTreeSet<Vec<u8>> {
    (0..300).map(|seed| disk.power_cut(&mut Random::new(seed)).contents(&path(name))).collect()
}

#[test]
fn synced_bytes_survive_every_power_cut() {
    let disk = SimDisk::default();
    durable_file(&disk, "a", 7, 4);
    assert_eq!(images(&disk, "a"), BTreeSet::from([vec![7; 4 * SECTOR]]));
}

#[test]
fn an_unsynced_write_is_kept_lost_or_torn_at_sectors() {
    let disk = SimDisk::default();
    let file = durable_file(&disk, "a", 1, 3);
    file.write_all_at(&[2; 3 * SECTOR], 0).unwrap();
    let images = images(&disk, "a");
    assert_eq!(images.len(), 8, "each of three sectors is old or new");
    for image in images {
        assert!(image.chunks(SECTOR).all(|sector| sector == [1; SECTOR] || sector == [2; SECTOR]));
    }
}

#[test]
fn unsynced_writes_reach_the_disk_in_any_order() {
    let disk = SimDisk::default();
    let file = durable_file(&disk, "a", 0, 2);
    file.write_all_at(&[1; SECTOR], 0).unwrap();
    file.write_all_at(&[2; SECTOR], SECTOR as u64).unwrap();
    let second_alone = [[0; SECTOR], [2; SECTOR]].concat();
    assert!(images(&disk, "a").contains(&second_alone));
}

#[test]
fn a_sector_may_hold_any_content_it_had_since_the_last_sync() {
    let disk = SimDisk::default();
    let file = durable_file(&disk, "a", 0, 1);
    file.write_all_at(&[1; 10], 0).unwrap();
    file.write_all_at(&[2; 10], 10).unwrap();
    let first_bytes: BTreeSet<(u8, u8)> = images(&disk, "a").iter().map(|image| (image[0], image[10])).collect();
    assert_eq!(first_bytes, BTreeSet::from([(0, 0), (1, 0), (1, 2)]), "the cache writes whole sectors back");
}

#[test]
fn a_grown_length_is_kept_or_not_and_a_hole_reads_as_zeroes() {
    let disk = SimDisk::default();
    let file = durable_file(&disk, "a", 9, 1);
    file.write_all_at(&[5; SECTOR], SECTOR as u64).unwrap();
    let old = vec![9; SECTOR];
    let hole = [[9; SECTOR], [0; SECTOR]].concat();
    let new = [[9; SECTOR], [5; SECTOR]].concat();
    assert_eq!(images(&disk, "a"), BTreeSet::from([old, hole, new]));
    file.sync_data().unwrap();
    assert_eq!(images(&disk, "a").len(), 1);
}

#[test]
fn an_odd_length_stays_after_a_sync() {
    let disk = SimDisk::default();
    let file = disk.create(&path("a")).unwrap();
    file.write_all_at(&[1; 700], 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_directory(Path::new("/")).unwrap();
    assert_eq!(images(&disk, "a"), BTreeSet::from([vec![1; 700]]));
}

#[test]
fn a_name_is_kept_for_sure_only_after_its_directory_was_synced() {
    let disk = SimDisk::default();
    let file = disk.create(&path("a")).unwrap();
    file.write_all_at(&[1], 0).unwrap();
    file.sync_data().unwrap();
    let kept = |disk: &SimDisk| -> BTreeSet<bool> {
        (0..50).map(|seed| !disk.power_cut(&mut Random::new(seed)).paths().is_empty()).collect()
    };
    assert_eq!(kept(&disk), BTreeSet::from([false, true]));
    disk.sync_directory(Path::new("/")).unwrap();
    assert_eq!(kept(&disk), BTreeSet::from([true]));
    disk.remove(&path("a")).unwrap();
    assert_eq!(kept(&disk), BTreeSet::from([false, true]), "a removal needs its sync as well");
}

#[test]
fn a_rename_is_kept_whole_or_not_at_all() {
    let disk = SimDisk::default();
    durable_file(&disk, "a", 1, 1);
    durable_file(&disk, "b", 2, 1);
    disk.rename(&path("a"), &path("b")).unwrap();
    for seed in 0..50 {
        let image = disk.power_cut(&mut Random::new(seed));
        match image.paths().len() {
            1 => assert_eq!(image.contents(&path("b"))[0], 1),
            _ => assert_eq!((image.contents(&path("a"))[0], image.contents(&path("b"))[0]), (1, 2)),
        }
    }
}

#[test]
fn a_new_directory_is_lost_with_its_files_until_its_parent_is_synced() {
    let disk = SimDisk::default();
    disk.create_directory(Path::new("/data/log")).unwrap();
    disk.create(&path("data/log/1")).unwrap();
    disk.sync_directory(Path::new("/data/log")).unwrap();
    disk.sync_directory(Path::new("/data")).unwrap();
    let counts = |disk: &SimDisk| -> BTreeSet<usize> {
        (0..50).map(|seed| disk.power_cut(&mut Random::new(seed)).paths().len()).collect()
    };
    assert_eq!(counts(&disk), BTreeSet::from([0, 1]));
    disk.sync_directory(Path::new("/")).unwrap();
    assert_eq!(counts(&disk), BTreeSet::from([1]));
}

#[test]
fn a_second_sync_after_a_failed_one_succeeds_and_the_bytes_are_gone() {
    let lost = (0..20).any(|seed| {
        let disk = SimDisk::new(seed);
        let file = durable_file(&disk, "a", 1, 2);
        file.write_all_at(&[2; 2 * SECTOR], 0).unwrap();
        disk.fail_at(disk.calls(), Failure::Eio);
        assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Failure::Eio.error().raw_os_error());
        assert_eq!(disk.contents(&path("a")), [2; 2 * SECTOR], "readers still see the cache");
        file.sync_data().unwrap();
        let image = disk.power_cut(&mut Random::new(seed));
        image.contents(&path("a")) != [2; 2 * SECTOR]
    });
    assert!(lost);
}

#[test]
fn a_write_back_error_is_told_once_to_each_open_file() {
    let disk = SimDisk::default();
    let first = durable_file(&disk, "a", 1, 1);
    let second = disk.open(&path("a")).unwrap();
    first.write_all_at(&[2; SECTOR], 0).unwrap();
    disk.fail_write_back(&path("a"));
    first.sync_data().unwrap_err();
    first.sync_data().unwrap();
    second.sync_data().unwrap_err();
    disk.open(&path("a")).unwrap().sync_data().unwrap();
}

#[test]
fn no_call_does_anything_once_the_power_is_off() {
    let disk = SimDisk::default();
    let file = durable_file(&disk, "a", 1, 1);
    disk.crash_at(disk.calls() + 1);
    file.write_all_at(&[2; 4], 0).unwrap();
    assert!(!disk.is_off());
    file.sync_data().unwrap_err();
    file.write_all_at(&[3; 4], 0).unwrap_err();
    disk.create(&path("b")).err().unwrap();
    assert!(disk.is_off());
    assert!(disk.is_dirty(&path("a")));
    assert_eq!(disk.contents(&path("a"))[..4], [2; 4]);
}

#[test]
fn a_failing_call_fails_once_and_is_named_in_the_trace() {
    let disk = SimDisk::default();
    disk.fail_at(1, Failure::Enospc);
    let file = disk.create(&path("a")).unwrap();
    file.write_all_at(&[1; 100], 0).unwrap_err();
    file.write_all_at(&[1; 100], 0).unwrap();
    let kinds: Vec<CallKind> = disk.trace().iter().map(|call| call.kind).collect();
    assert_eq!(kinds, [CallKind::Create, CallKind::Write, CallKind::Write]);
    assert_eq!(disk.trace()[1].to_string(), "call 1 Write /a [0..100]");
}

#[test]
fn a_full_disk_refuses_growth_and_takes_overwrites() {
    let disk = SimDisk::default();
    let file = durable_file(&disk, "a", 1, 2);
    disk.set_capacity(2 * SECTOR as u64 + 10);
    file.write_all_at(&[2; SECTOR], 100).unwrap();
    let error = file.write_all_at(&[3; SECTOR], 2 * SECTOR as u64).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    disk.set_capacity(u64::MAX);
    file.write_all_at(&[3; SECTOR], 2 * SECTOR as u64).unwrap();
    assert_eq!(disk.used(), 3 * SECTOR as u64);
}

#[test]
fn rot_changes_what_is_on_the_disk() {
    let disk = SimDisk::default();
    let file = durable_file(&disk, "a", 1, 2);
    file.write_all_at(&[2; 2 * SECTOR], 0).unwrap();
    file.sync_data().unwrap();
    disk.flip_bit(&path("a"), 0, 7);
    assert_eq!(disk.contents(&path("a"))[0], 0x82);
    assert!(disk.make_sector_stale(&path("a"), 5));
    assert_eq!(disk.contents(&path("a"))[..SECTOR], [1; SECTOR]);
    disk.zero_sector(&path("a"), 600);
    let image = disk.power_cut(&mut Random::new(3));
    assert_eq!(image.contents(&path("a")), [[1; SECTOR], [0; SECTOR]].concat());
}

#[test]
fn one_holder_at_a_time_has_a_lock() {
    let disk = SimDisk::default();
    let held = disk.lock(&path("lock")).unwrap();
    assert_eq!(disk.lock(&path("lock")).err().unwrap().kind(), io::ErrorKind::WouldBlock);
    disk.process_killed().lock(&path("lock")).unwrap();
    drop(held);
    disk.lock(&path("lock")).unwrap();
}

#[test]
fn a_killed_process_loses_nothing_that_it_wrote() {
    let disk = SimDisk::default();
    let file = durable_file(&disk, "a", 1, 1);
    file.write_all_at(&[2; SECTOR], 0).unwrap();
    let after = disk.process_killed();
    assert_eq!(after.contents(&path("a")), [2; SECTOR]);
    assert!(after.is_dirty(&path("a")), "what was not synced can still be lost");
    assert_eq!(disk.power_cut(&mut Random::new(1)).calls(), 0);
}

#[test]
fn a_file_open_for_reading_refuses_writes() {
    let disk = SimDisk::default();
    durable_file(&disk, "a", 1, 1);
    let file = disk.open_read_only(&path("a")).unwrap();
    assert_eq!(file.write_all_at(&[1], 0).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
}

#[test]
fn a_second_directory_sync_after_a_failed_one_does_not_bring_the_name() {
    let lost = |disk: &SimDisk| (0..50).any(|seed| disk.power_cut(&mut Random::new(seed)).paths().is_empty());
    let disk = SimDisk::default();
    disk.create(&path("a")).unwrap();
    disk.fail_at(disk.calls(), Failure::Eio);
    disk.sync_directory(Path::new("/")).unwrap_err();
    assert!(disk.has_failed());
    disk.sync_directory(Path::new("/")).unwrap();
    assert!(lost(&disk));
    let restarted = disk.process_killed();
    restarted.sync_directory(Path::new("/")).unwrap();
    assert!(!lost(&restarted));
}
