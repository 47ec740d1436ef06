//! The log with its threads, and many threads that append.

use std::thread;

use super::waiters::Waiters;
use super::*;

const THREADS: usize = 4;

/// A log that runs, on real time.
fn running(disk: &TestDisk) -> (Log, LogThreads) {
    let clock = Arc::new(crate::clock::OsClock::default());
    let log = TestLog::try_open_with(disk, |options| LogOptions { clock, ..options }).unwrap();
    let threads = spawn(log.writer, log.preparer, &log.log).unwrap();
    (log.log, threads)
}

#[test]
fn versions_have_the_order_of_places_and_nothing_committed_is_lost() {
    let disk = TestDisk::default();
    let (log, threads) = running(&disk);
    let records = 500u32;
    thread::scope(|scope| {
        for number in 0..THREADS {
            let log = &log;
            scope.spawn(move || {
                for count in 0..records {
                    let effects = [&[number as u8][..], &count.to_le_bytes(), &[0; 90]].concat();
                    log.admit_blocking(effects.len(), RoomClass::Ordinary).unwrap();
                    let version = log.append(START_MS, &mut effects.clone());
                    log.settle(effects.len(), effects.len());
                    if count % 7 == 0 {
                        log.wait(version).unwrap();
                        assert!(log.commit() >= version);
                    }
                }
            });
        }
    });
    log.wait(log.last_version()).unwrap();
    // A power cut right now.
    let image = disk.power_cut();
    threads.close().unwrap();
    for disk in [image, disk] {
        let replayed = TestLog::open(&disk).replayed;
        assert_eq!(replayed.len(), THREADS * records as usize);
        assert!(replayed.windows(2).all(|two| two[0].0 < two[1].0), "versions rise with the places");
        for number in 0..THREADS {
            let own: Vec<u32> = replayed
                .iter()
                .filter(|(_, effects)| effects[0] == number as u8)
                .map(|(_, effects)| u32::from_le_bytes(effects[1..5].try_into().unwrap()))
                .collect();
            assert_eq!(own, (0..records).collect::<Vec<_>>(), "a thread's records keep their order");
        }
    }
}

#[test]
fn large_and_small_records_of_many_threads_all_find_room() {
    let disk = TestDisk::default();
    let (log, threads) = running(&disk);
    thread::scope(|scope| {
        for number in 0..THREADS {
            let log = &log;
            scope.spawn(move || {
                for count in 0..30 {
                    let bytes = if count % 10 == number { 150_000 } else { 3_000 };
                    log.admit_blocking(bytes, RoomClass::Ordinary).unwrap();
                    log.append(START_MS, &mut vec![number as u8; bytes]);
                    log.settle(bytes, bytes);
                }
            });
        }
    });
    threads.close().unwrap();
    assert_eq!(TestLog::open(&disk).replayed.len(), THREADS * 30);
}

#[test]
fn a_commit_wakes_only_the_threads_it_satisfies() {
    let waiters = Waiters::default();
    let woken = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for version in [30, 10, 20] {
            let (waiters, woken) = (&waiters, &woken);
            scope.spawn(move || {
                waiters.wait(Version(version), || false);
                woken.lock().push(version);
            });
        }
        while waiters.len() < 3 {
            thread::yield_now();
        }
        assert_eq!(waiters.release(Version(9)), 0);
        assert_eq!(waiters.release(Version(20)), 2);
        assert_eq!(waiters.len(), 1);
        while woken.lock().len() < 2 {
            thread::yield_now();
        }
        assert!(!woken.lock().contains(&30));
        assert_eq!(waiters.release(Version::MAX), 1);
    });
}

#[test]
fn a_failure_wakes_every_thread_that_waits() {
    let disk = TestDisk::default();
    let (log, threads) = running(&disk);
    disk.fail_next_sync();
    let results: Vec<Result<()>> = thread::scope(|scope| {
        let waiting: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    log.admit_blocking(10, RoomClass::Ordinary)?;
                    let version = log.append(START_MS, &mut vec![0; 10]);
                    log.settle(10, 10);
                    log.wait(version)
                })
            })
            .collect();
        waiting.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(results.iter().all(|result| matches!(result, Err(Error::Poisoned))), "{results:?}");
    assert!(matches!(threads.close(), Err(Error::Poisoned)));
}

#[test]
fn dropping_the_threads_closes_the_log() {
    let disk = TestDisk::default();
    let (log, threads) = running(&disk);
    log.admit_blocking(10, RoomClass::Ordinary).unwrap();
    log.append(START_MS, &mut vec![1; 10]);
    log.settle(10, 10);
    drop(threads);
    let log = TestLog::open(&disk.power_cut());
    assert!(log.recovered.was_closed);
    assert_eq!(log.effects(), [vec![1; 10]]);
}
