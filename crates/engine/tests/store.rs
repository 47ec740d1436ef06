//! The embedded library through its public door.

mod support;

use bowline::blocks::{FileSize, Geometry};
use bowline::{Batch, Error, Options, Store, Version};
use std::collections::BTreeMap;
use std::time::Duration;
use support::{HandClock, options};

#[test]
fn what_was_written_is_there_after_reopening() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(Options::new(directory.path())).expect("a new store");
    let version = store.put(b"key", b"value").expect("a put");
    store.put(b"number", b"12").expect("a put");
    store.put(b"gone", b"x").expect("a put");
    assert!(store.delete(b"gone").expect("a delete"));
    assert!(!store.delete(b"gone").expect("a delete"));
    let created = store.get_entry(b"key").expect("a get").expect("an entry").created;
    store.close().expect("a close");

    let store = Store::open(Options::new(directory.path())).expect("the same store");
    let entry = store.get_entry(b"key").expect("a get").expect("an entry");
    assert_eq!((entry.value.as_slice(), entry.version, entry.created), (&b"value"[..], version, created));
    assert_eq!(store.get(b"number").expect("a get").as_deref(), Some(&b"12"[..]));
    assert!(!store.exists(b"gone").expect("a look"));
    assert_eq!(store.len().expect("a count"), 2);
    assert!(store.put(b"key", b"later").expect("a put") > version);
    store.close().expect("a close");
}

#[test]
fn a_second_opener_is_told_who_has_the_directory() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(Options::new(directory.path())).expect("a new store");
    match Store::open(Options::new(directory.path())) {
        Err(Error::Locked { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
        other => panic!("expected Locked, got {:?}", other.map(|_| ())),
    }
    store.close().expect("a close");
    Store::open(Options::new(directory.path())).expect("free again").close().expect("a close");
}

#[test]
fn optimistic_locking_lets_one_of_many_threads_win_each_round() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(Options::new(directory.path())).expect("a new store");
    store.put(b"counter", b"0").expect("a put");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    loop {
                        let entry = store.get_entry(b"counter").expect("a get").expect("an entry");
                        let number: u64 = String::from_utf8_lossy(&entry.value).parse().expect("a number");
                        let next = (number + 1).to_string();
                        let put = store.put_if_version(b"counter", next.as_bytes(), entry.version);
                        if put.expect("a put").is_some() {
                            break;
                        }
                    }
                }
            });
        }
    });
    assert_eq!(store.get(b"counter").expect("a get").as_deref(), Some(&b"200"[..]));
    assert_eq!(store.put_if_version(b"new", b"1", Version(1)).expect("a put"), None);
    assert!(store.put_if_version(b"new", b"1", Version::ZERO).expect("a put").is_some());
    store.close().expect("a close");
}

#[test]
fn a_batch_has_one_version_and_survives_whole() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(Options::new(directory.path())).expect("a new store");
    store.put(b"old", b"x").expect("a put");
    let mut batch = Batch::new();
    (0..1000u32).for_each(|n| {
        batch.put(&n.to_be_bytes(), b"value");
    });
    batch.delete(b"old");
    let version = store.write(&batch).expect("a batch");
    store.close().expect("a close");
    let store = Store::open(Options::new(directory.path())).expect("the same store");
    assert_eq!(store.len().expect("a count"), 1000);
    let versions: Vec<Version> = store.iter().map(|entry| entry.expect("an entry").1.version).collect();
    assert!(versions.iter().all(|found| *found == version));
    store.close().expect("a close");
}

#[test]
fn iteration_meets_every_key_once_when_nothing_changes() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let clock = HandClock::at(1_000_000);
    let store = Store::open(options(directory.path(), &clock)).expect("a new store");
    let mut batch = Batch::new();
    let expected: BTreeMap<Vec<u8>, Vec<u8>> =
        (0..5000u32).map(|n| (n.to_be_bytes().to_vec(), n.to_string().into_bytes())).collect();
    expected.iter().for_each(|(key, value)| {
        batch.put(key, value);
    });
    store.write(&batch).expect("a batch");
    let found: Vec<(Vec<u8>, Vec<u8>)> =
        store.iter().map(|entry| entry.map(|(key, info)| (key, info.value)).expect("an entry")).collect();
    assert_eq!(found.len(), expected.len());
    assert_eq!(found.into_iter().collect::<BTreeMap<_, _>>(), expected);
    store.close().expect("a close");
}

#[test]
fn an_expired_key_is_gone_and_stays_gone_even_when_the_clock_goes_back() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let clock = HandClock::at(1_000_000);
    let store = Store::open(options(directory.path(), &clock)).expect("a new store");
    store.put_with_lifetime(b"key", b"value", Duration::from_millis(500)).expect("a put");
    clock.advance(499);
    assert!(store.exists(b"key").expect("a look"));
    clock.advance(1);
    assert!(!store.exists(b"key").expect("a look"));
    store.close().expect("a close");

    let clock = HandClock::at(1_000_000);
    let store = Store::open(options(directory.path(), &clock)).expect("the same store");
    assert!(!store.exists(b"key").expect("a look"), "it was seen to be gone");
    store.close().expect("a close");
}

#[test]
fn keys_and_values_over_the_limit_are_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let clock = HandClock::at(1_000_000);
    let mut options = options(directory.path(), &clock);
    (options.key_bytes_max, options.value_bytes_max) = (10, 100);
    let store = Store::open(options).expect("a new store");
    assert!(matches!(store.put(&[1; 11], b""), Err(Error::TooLarge { what: "key", found: 11, limit: 10 })));
    assert!(matches!(store.put(b"k", &[1; 101]), Err(Error::TooLarge { what: "value", .. })));
    store.put(&[1; 10], &[1; 100]).expect("a put at the limits");
    store.close().expect("a close");
}

#[test]
fn a_value_larger_than_a_log_file_is_kept() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let clock = HandClock::at(1_000_000);
    let value: Vec<u8> = (0..5_000_000u32).map(|n| ((n * 31) >> 3) as u8).collect();
    let store = Store::open(options(directory.path(), &clock)).expect("a new store");
    store.put(b"before", b"1").expect("a put");
    store.put(b"big", &value).expect("a put");
    store.put(b"after", b"2").expect("a put");
    store.close().expect("a close");
    let store = Store::open(options(directory.path(), &clock)).expect("the same store");
    assert_eq!(store.get(b"big").expect("a get").as_deref(), Some(&value[..]));
    assert_eq!(store.get(b"after").expect("a get").as_deref(), Some(&b"2"[..]));
    store.close().expect("a close");
}

#[test]
fn clearing_lets_the_log_become_short_again() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let clock = HandClock::at(1_000_000);
    let store = Store::open(options(directory.path(), &clock)).expect("a new store");
    for round in 0..5u32 {
        for n in 0..400u32 {
            store.put(&n.to_be_bytes(), &[round as u8; 10_000]).expect("a put");
        }
        assert!(store.statistics().log.live_bytes > 3_000_000);
        store.clear().expect("a clear");
        (0..100).for_each(|_| {
            store.turn();
        });
        assert!(store.statistics().log.live_bytes < 2_000_000, "{}", store.statistics().log.live_bytes);
    }
    store.put(b"kept", b"value").expect("a put");
    store.close().expect("a close");
    let store = Store::open(options(directory.path(), &clock)).expect("the same store");
    assert_eq!(store.len().expect("a count"), 1);
    store.close().expect("a close");
}

#[test]
fn handles_of_a_closed_store_refuse_instead_of_waiting() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(Options::new(directory.path())).expect("a new store");
    let other = store.clone();
    store.close().expect("a close");
    assert!(matches!(other.put(b"k", b"v"), Err(Error::Closed)));
    assert!(matches!(other.delete(b"k"), Err(Error::Closed)));
    assert_eq!(other.get(b"k").expect("a read of what is committed"), None);
}

#[test]
fn a_full_block_file_takes_writes_again_when_a_snapshot_that_held_its_room_is_gone() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut options = options(directory.path(), &HandClock::at(1_800_000_000_000));
    options.block_file_geometry = Geometry { block_bytes: 4096, size: FileSize::Fixed(4 << 20) };
    let store = Store::open(options).expect("a new store");
    let write = |round: u8| (0..150u8).try_for_each(|key| store.put(&[key], &[round; 8000]).map(|_| ()));
    write(0).expect("room for all");
    store.checkpoint().expect("a checkpoint");
    let snapshot = store.snapshot().expect("a snapshot");

    let refused = (1..100).find_map(|round| write(round).and_then(|()| store.checkpoint()).err());
    assert!(matches!(refused, Some(Error::BlockFileFull { .. })), "{refused:?}");
    // What was admitted before may still fit.
    let _ = store.checkpoint();
    assert!(matches!(store.put(b"more", &[7; 8000]), Err(Error::BlockFileFull { .. })));

    drop(snapshot);
    // The refusal made the background look.
    assert!(matches!(store.put(b"more", &[7; 8000]), Ok(_) | Err(Error::BlockFileFull { .. })));
    store.turn();
    store.put(b"more", &[7; 8000]).expect("the room has come back");
    store.close().expect("a close");
}
