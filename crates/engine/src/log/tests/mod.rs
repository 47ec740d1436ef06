//! Tests of the log as a whole, on a disk in memory and a clock that stands still; the state machines stepped by hand.

mod archive;
mod checkpoint;
mod disk;
mod recovery;
mod room;
mod threads;
mod writing;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use self::disk::TestDisk;
use super::format::{FRAME_HEADER_BYTES, FrameHeader, HEADER_BLOCK_BYTES};
use super::*;

const DIRECTORY: &str = "/data/log";
const FILE_BYTES: u64 = 64 * 1024;
const START_MS: u64 = 1_800_000_000_000;
const STEPS_MAX: usize = 10_000;

/// Both clocks move together, when told to; the wall clock alone can be set back.
#[derive(Clone, Default)]
struct TestClock(Arc<AtomicU64>, Arc<AtomicU64>);

impl TestClock {
    fn advance(&self, time: Duration) {
        self.0.fetch_add(time.as_micros() as u64, SeqCst);
    }

    fn set_wall_back(&self, time: Duration) {
        self.1.fetch_add(time.as_millis() as u64, SeqCst);
    }
}

impl Clock for TestClock {
    fn wall_ms(&self) -> u64 {
        START_MS + self.0.load(SeqCst) / 1_000 - self.1.load(SeqCst)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.0.load(SeqCst))
    }
}

/// An open log.
struct TestLog {
    disk: TestDisk,
    clock: TestClock,
    log: Log,
    writer: LogWriter,
    preparer: FilePreparer,
    recovered: Recovered,
    replayed: Vec<(Version, Vec<u8>)>,
    failures: Arc<AtomicUsize>,
}

fn options(disk: &TestDisk, clock: &TestClock, failures: &Arc<AtomicUsize>) -> LogOptions {
    let failures = Arc::clone(failures);
    LogOptions {
        directory: DIRECTORY.into(),
        file_bytes: FILE_BYTES,
        buffer_bytes_max: 24 * 1024,
        reserve_bytes: 4 * 1024,
        background_sync: Duration::from_secs(1),
        version_floor: Version::ZERO,
        mark_after: Duration::from_millis(5),
        store_id: *b"store under test",
        disk: Arc::new(disk.clone()),
        names: None,
        clock: Arc::new(clock.clone()),
        archive: None,
        on_failure: Some(Box::new(move |_| {
            failures.fetch_add(1, SeqCst);
        })),
    }
}

impl TestLog {
    fn try_open(disk: &TestDisk) -> Result<TestLog> {
        TestLog::try_open_with(disk, |options| options)
    }

    fn try_open_with(disk: &TestDisk, change: impl FnOnce(LogOptions) -> LogOptions) -> Result<TestLog> {
        let (clock, failures) = (TestClock::default(), Arc::new(AtomicUsize::new(0)));
        let mut replayed = Vec::new();
        let mut replay = |frame: ReplayFrame| {
            for record in frame.records() {
                let record = record?;
                replayed.push((record.version, record.effects.to_vec()));
            }
            Ok(())
        };
        let options = change(options(disk, &clock, &failures));
        let (log, writer, preparer, recovered) = Log::open(options, &mut replay, &|_| {})?;
        Ok(TestLog { disk: disk.clone(), clock, log, writer, preparer, recovered, replayed, failures })
    }

    fn open(disk: &TestDisk) -> TestLog {
        TestLog::try_open(disk).unwrap()
    }

    fn now_ms(&self) -> u64 {
        self.clock.wall_ms()
    }

    /// Appends, without looking whether anything gets written.
    fn append(&self, effects: &[u8]) -> Version {
        assert_eq!(self.log.admit(effects.len(), RoomClass::Ordinary), Admission::Admitted);
        let version = self.log.append(self.now_ms(), &mut effects.to_vec());
        self.log.settle(effects.len(), effects.len());
        version
    }

    fn append_reset(&self, effects: &[u8]) -> Version {
        assert_eq!(self.log.admit(effects.len(), RoomClass::Removal), Admission::Admitted);
        let version = self.log.append_reset(self.now_ms(), &mut effects.to_vec());
        self.log.settle(effects.len(), effects.len());
        version
    }

    fn step(&mut self) -> Step {
        self.writer.step(self.clock.monotonic())
    }

    /// Prepares what is missing.
    fn prepare(&mut self) {
        for _ in 0..STEPS_MAX {
            if self.preparer.step() != Step::Worked {
                return;
            }
        }
        panic!("the preparer never rests");
    }

    /// Steps the writer, without letting time pass, until it rests; says when it wants to go on.
    fn rest(&mut self) -> Option<Duration> {
        for _ in 0..STEPS_MAX {
            if let Step::Idle { until } = self.step() {
                return until;
            }
        }
        panic!("the writer never rests");
    }

    /// Appends and commits, so that it is one frame; prepares files as the thread would.
    fn put(&mut self, effects: &[u8]) -> Version {
        self.prepare();
        let version = self.append(effects);
        self.commit(version);
        version
    }

    fn commit(&mut self, version: Version) {
        self.log.request_sync(version);
        for _ in 0..STEPS_MAX {
            if self.log.commit() >= version {
                return;
            }
            self.step();
            self.preparer.step();
        }
        panic!("{version} is never committed");
    }

    /// Writes what was appended without syncing it.
    fn write_only(&mut self) {
        self.clock.advance(Duration::from_millis(2));
        assert_eq!(self.step(), Step::Worked);
    }

    /// Lets time pass until nothing is left to do.
    fn become_quiet(&mut self) {
        for _ in 0..STEPS_MAX {
            self.prepare();
            match self.rest() {
                None => return,
                Some(until) => self.clock.advance(until.saturating_sub(self.clock.monotonic())),
            }
        }
        panic!("the log never rests");
    }

    fn close(mut self) -> TestDisk {
        self.log.begin_close();
        for _ in 0..STEPS_MAX {
            if self.writer.is_closed() {
                self.preparer.finish_archive();
                return self.disk;
            }
            self.step();
            self.preparer.step();
        }
        panic!("the log never closes");
    }

    fn effects(&self) -> Vec<Vec<u8>> {
        self.replayed.iter().map(|(_, effects)| effects.clone()).collect()
    }
}

/// A log with these records, one frame each, quiet, its process killed.
fn disk_with(records: &[&[u8]]) -> TestDisk {
    let disk = TestDisk::default();
    let mut log = TestLog::open(&disk);
    for effects in records {
        log.put(effects);
    }
    log.become_quiet();
    disk.copy()
}

fn file(number: u64) -> PathBuf {
    Path::new(DIRECTORY).join(format!("{number:08}.log"))
}

/// The frames at the front of a file: where they begin and their headers.
fn frames_of(disk: &TestDisk, path: &Path) -> Vec<(u64, FrameHeader)> {
    let bytes = disk.contents(path);
    let mut offset = HEADER_BLOCK_BYTES;
    let mut frames: Vec<(u64, FrameHeader)> = Vec::new();
    while let Some((header, _)) = bytes.get(offset as usize..).and_then(FrameHeader::decode) {
        if frames.last().is_some_and(|(_, last)| last.position + last.frame_bytes() != header.position) {
            break;
        }
        frames.push((offset, header));
        offset += header.frame_bytes();
    }
    frames
}

/// The frames with records.
fn record_frames_of(disk: &TestDisk, path: &Path) -> Vec<(u64, FrameHeader)> {
    frames_of(disk, path).into_iter().filter(|(_, header)| header.records > 0).collect()
}

/// File and offset of the damage that keeps the log from opening.
fn damage(disk: &TestDisk) -> (PathBuf, u64) {
    match TestLog::try_open(disk).map(|log| log.replayed) {
        Err(Error::Corrupt { path, offset, .. }) => (path, offset),
        other => panic!("not refused as damaged: {other:?}"),
    }
}
