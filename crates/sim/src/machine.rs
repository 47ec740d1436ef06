//! One simulated machine that runs the log: its disk, its clock, and the log's two state machines, stepped by hand.

use std::sync::Arc;
use std::time::Duration;

use bowline::Error;
use bowline::Version;
use bowline::clock::Clock;
use bowline::disk::Disk;
use bowline::log::{Admission, FilePreparer, Listener, Log, LogOptions, LogWriter, ReplayFrame, RoomClass, Step};

use crate::clock::SimClock;
use crate::disk::SimDisk;

/// Where the simulated log lives.
pub const DIRECTORY: &str = "/data/log";
/// Size of a simulated log file: small, so that files are changed and recycled often.
pub const FILE_BYTES: u64 = 32 * 1024;
/// More steps than any log needs to become quiet.
const QUIET_STEPS_MAX: u32 = 2_000;

/// One command as it came back: its version and its effects.
pub type Replayed = (Version, Vec<u8>);

/// A machine whose log is open.
pub struct LogMachine {
    /// Its disk.
    pub disk: SimDisk,
    /// Its clocks.
    pub clock: SimClock,
    /// The log's handle.
    pub log: Log,
    /// What opening replayed, oldest first.
    pub replayed: Vec<Replayed>,
    /// The version after which the log goes on.
    pub last_version: Version,
    writer: LogWriter,
    preparer: FilePreparer,
    listener: Arc<Listener>,
}

/// The options of a simulated log that reaches files through `shared`.
pub fn options(shared: Arc<dyn Disk>, clock: &SimClock) -> LogOptions {
    LogOptions {
        directory: DIRECTORY.into(),
        file_bytes: FILE_BYTES,
        buffer_bytes_max: FILE_BYTES as usize / 2,
        reserve_bytes: 2 * 1024,
        background_sync: Duration::from_secs(1),
        version_floor: Version::ZERO,
        mark_after: Duration::from_millis(5),
        store_id: *b"simulated store!",
        disk: shared,
        names: None,
        clock: Arc::new(clock.clone()),
        archive: None,
        on_failure: None,
    }
}

impl LogMachine {
    /// Opens the log on `disk`.
    pub fn open(disk: &SimDisk, clock: &SimClock) -> Result<LogMachine, Error> {
        LogMachine::open_through(Arc::new(disk.clone()), disk, clock)
    }

    /// Opens the log on `disk`, which it sees through `shared`.
    pub fn open_through(shared: Arc<dyn Disk>, disk: &SimDisk, clock: &SimClock) -> Result<LogMachine, Error> {
        LogMachine::open_with(options(shared, clock), disk, clock)
    }

    /// Opens the log with `options`, which lead to `disk` and `clock`.
    pub fn open_with(options: LogOptions, disk: &SimDisk, clock: &SimClock) -> Result<LogMachine, Error> {
        let mut replayed = Vec::new();
        let mut replay = |frame: ReplayFrame| {
            for record in frame.records() {
                let record = record?;
                replayed.push((record.version, record.effects.to_vec()));
            }
            Ok(())
        };
        let (log, writer, preparer, recovered) = Log::open(options, &mut replay, &|_| {})?;
        let (disk, clock, last_version) = (disk.clone(), clock.clone(), recovered.last_version);
        let listener = log.subscribe(Box::new(|| {}));
        Ok(LogMachine { disk, clock, log, replayed, last_version, writer, preparer, listener })
    }

    /// Appends a command when the log has room for it; `None` when it has not.
    pub fn try_append(&mut self, effects: &[u8], class: RoomClass) -> Option<Version> {
        if self.log.admit(effects.len(), class) != Admission::Admitted {
            return None;
        }
        let version = self.log.append(self.clock.wall_ms(), &mut effects.to_vec());
        self.log.settle(effects.len(), effects.len());
        Some(version)
    }

    /// Appends a command, preparing files and writing until there is room. Panics when there never is.
    pub fn append(&mut self, effects: &[u8]) -> Version {
        for _ in 0..QUIET_STEPS_MAX {
            if let Some(version) = self.try_append(effects, RoomClass::Ordinary) {
                return version;
            }
            self.wait_for_room();
        }
        panic!(
            "the log has no room for {} bytes: {:?}",
            effects.len(),
            self.log.admit(effects.len(), RoomClass::Ordinary)
        );
    }

    /// What a connection does whose command finds no room.
    pub fn wait_for_room(&mut self) {
        self.listener.want_room();
        self.step_preparer();
        self.step_writer();
    }

    /// Appends a reset, a command before which nothing matters; `None` when the log has no room.
    pub fn try_append_reset(&mut self, effects: &[u8]) -> Option<Version> {
        if self.log.admit(effects.len(), RoomClass::Removal) != Admission::Admitted {
            return None;
        }
        let version = self.log.append_reset(self.clock.wall_ms(), &mut effects.to_vec());
        self.log.settle(effects.len(), effects.len());
        Some(version)
    }

    /// One step of the log's writer. Says when it wants the next one, if at all.
    pub fn step_writer(&mut self) -> Option<Duration> {
        let now = self.clock.monotonic();
        match self.writer.step(now) {
            Step::Worked => Some(now),
            Step::Idle { until } => until,
        }
    }

    /// One step of what prepares log files.
    pub fn step_preparer(&mut self) {
        self.preparer.step();
    }

    /// Steps without letting time pass until `version` is committed. False when it never is.
    pub fn commit_up_to(&mut self, version: Version) -> bool {
        self.log.request_sync(version);
        for _ in 0..QUIET_STEPS_MAX {
            if self.log.commit() >= version {
                return true;
            }
            if self.log.is_poisoned() {
                return false;
            }
            self.step_preparer();
            self.step_writer();
        }
        false
    }

    /// Steps and lets time pass until everything is committed and witnessed by a mark. False when it never is.
    pub fn become_quiet(&mut self) -> bool {
        self.log.request_sync(self.log.last_version());
        for _ in 0..QUIET_STEPS_MAX {
            self.step_preparer();
            let until = self.step_writer();
            match until {
                _ if self.log.is_poisoned() => return false,
                Some(until) => self.clock.advance(until.saturating_sub(self.clock.monotonic())),
                None if self.log.commit() == self.log.last_version() => return true,
                None => {}
            }
        }
        false
    }

    /// Closes the log in order, with its archive. False when it cannot be closed.
    pub fn close(mut self) -> bool {
        self.log.begin_close();
        for _ in 0..QUIET_STEPS_MAX {
            if self.writer.is_closed() {
                self.preparer.finish_archive();
                return true;
            }
            if self.log.is_poisoned() {
                return false;
            }
            self.step_preparer();
            self.step_writer();
        }
        false
    }
}
