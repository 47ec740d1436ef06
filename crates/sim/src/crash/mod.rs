//! Crash tests: what was acknowledged is there after the power was cut, wherever the cut falls.
//!
//! ```text
//!     seed -> run: open, append, step the log's threads by hand, ...   power off at storage call k
//!          -> image: synced bytes, and of the rest what the seed lets survive
//!          -> open again (the power may go once more meanwhile), compare with the model (`history`), go on, cut again
//! ```
//!
//! The log's threads are state machines that the run steps by hand, so one seed is one interleaving, and the same seed
//! replays it. A failure names the seed and the call: `SEED=<n> CUT=<k> cargo test -p bowline-sim --test crash`.
//!
//! Not here: the disk that loses ([`crate::disk`]), real processes and real power.

pub mod archive;
pub mod history;
pub mod log;
pub mod model;
pub mod store;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use bowline::Version;
use bowline::disk::Disk;

use crate::clock::SimClock;
use crate::disk::lying::{Lie, LyingDisk};
use crate::disk::{CallKind, SimDisk};
use crate::random::Random;

/// What the wall clock says when a run begins.
const START_WALL_MS: u64 = 1_800_000_000_000;

/// A promise that did not hold.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// A write that a client was told of is not there.
    #[error("{acknowledged} writes were acknowledged, only the first {kept} are there after the restart")]
    Lost {
        /// How many writes a client had been told of.
        acknowledged: usize,
        /// How many came back.
        kept: usize,
    },
    /// What came back is not what was written at this place.
    #[error("after the restart write {place} is {found}, which is not what was written there")]
    Foreign {
        /// Place in the order of all writes.
        place: usize,
        /// What came back.
        found: Version,
    },
    /// A version was handed out for two writes, or one that does not rise.
    #[error("version {found} was handed out after {seen} had been seen")]
    VersionReused {
        /// The newest version that anybody had seen.
        seen: Version,
        /// The version handed out.
        found: Version,
    },
    /// The store does not open although nothing but the power failed.
    #[error("the store does not open after a power cut: {0}")]
    Refused(bowline::Error),
    /// A checkpoint found damage although nothing but the power failed.
    #[error("a checkpoint found damage: {0}")]
    Damaged(bowline::Error),
    /// Nothing failed, and still the log makes no progress.
    #[error("the log makes no progress although no call fails: {0}")]
    Stuck(&'static str),
    /// Something was acknowledged after a write or sync had failed.
    #[error("commit moved from {before} to {after} after a storage call had failed")]
    AcknowledgedAfterFailure {
        /// Commit when the call failed.
        before: Version,
        /// Commit later.
        after: Version,
    },
    /// A failed sync was tried again, and the second answer means nothing.
    #[error("{} was synced again after a sync of it had failed", .0.display())]
    SyncedAgain(PathBuf),
    /// The state after the restart is not the state of any prefix of the writes.
    #[error("{0}")]
    State(String),
}

/// A mistake planted on purpose: each must make the crash tests fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// The disk lies to the engine.
    Disk(Lie),
    /// A write counts as acknowledged once it was appended.
    AcknowledgeEarly,
}

/// What one run needs to be repeated.
#[derive(Clone, Copy, Debug)]
pub struct Replay {
    /// Seed of the run.
    pub seed: u64,
    /// The storage call at which the power goes off or that fails.
    pub call: u64,
    /// "CUT", "EIO" or "ENOSPC".
    pub fault: &'static str,
    /// The file in `tests` that the test is in.
    pub suite: &'static str,
    /// Name of the test.
    pub test: &'static str,
}

impl fmt::Display for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Replay { seed, call, fault, suite, test } = self;
        write!(f, "replay: SEED={seed} {fault}={call} cargo test -p bowline-sim --test {suite} {test}")
    }
}

/// A number that the environment variable `name` holds: the seed to replay, how many to run.
///
/// # Panics
/// When it holds something else.
pub fn number_from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text:?}")))
}

/// The disk as an engine with `mistake` sees it.
fn shared_disk(disk: &SimDisk, mistake: Option<Mistake>) -> Arc<dyn Disk> {
    match mistake {
        Some(Mistake::Disk(lie)) => Arc::new(LyingDisk { disk: disk.clone(), rules: lie }),
        _ => Arc::new(disk.clone()),
    }
}

/// No file is synced again after call `failed`, if that was a sync of it.
fn check_no_second_sync(disk: &SimDisk, failed: u64) -> Result<(), Problem> {
    let trace = disk.trace();
    let Some(call) = trace.get(failed as usize).filter(|call| call.kind == CallKind::Sync) else {
        return Ok(());
    };
    let mut later = trace[failed as usize + 1..].iter();
    let again = later.find(|later| later.kind == CallKind::Sync && later.file == call.file);
    again.map_or(Ok(()), |later| Err(Problem::SyncedAgain(later.path.clone())))
}

/// A machine comes back with its clock a little or far later than `wall_ms`.
fn clock_after_restart(random: &mut Random, wall_ms: u64) -> SimClock {
    SimClock::new(match random.below(2) {
        0 => wall_ms + random.below(100_000),
        _ => wall_ms + random.below(10_000_000_000),
    })
}

/// A machine comes back with its clock anywhere, also before the crash.
fn clock_after_restart_or_earlier(random: &mut Random) -> SimClock {
    match random.below(3) {
        0 => SimClock::new(START_WALL_MS - random.below(100_000_000)),
        _ => clock_after_restart(random, START_WALL_MS),
    }
}
