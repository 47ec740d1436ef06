//! Where the time of a run went, for a caller that finds that a run took long and has to say which command it was.
//!
//! Reading the clock takes as long as a fifth of a small command, so small commands are timed together:
//!
//! ```text
//!   GET GET SET KEYS GET GET(1 MB) GET GET
//!   |-----lap------| |---lap-----| |-lap-|     a lap ends after a heavy command, a unit, a group
//! ```
//!
//! Heavy is what may take long: not [`Flags::FAST`], or with many bytes in its arguments or its reply. The last command of
//! a lap is the one that took long, when one did.

use super::{Planned, Request};
use crate::clock::Clock;
use crate::command::Flags;
use std::time::Duration;

/// Bytes of arguments or of reply from which a command is timed by itself.
const HEAVY_BYTES: usize = 4096;

/// How runs of several commands are timed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Timing {
    /// Not at all.
    #[default]
    Off,
    /// Heavy commands by themselves, the others together: costs a clock reading for each group.
    Heavy,
    /// Every command by itself: costs a clock reading for each.
    Every,
}

/// A stretch of commands of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lap {
    /// Commands of the run that were done when it ended.
    pub done: usize,
    /// How many of them it has.
    pub commands: usize,
    /// What it took, waiting for locks counted.
    pub time: Duration,
}

/// The laps of the run that goes on, or of the last one.
#[derive(Default)]
pub(super) struct Laps {
    pub(super) timing: Timing,
    on: bool,
    last: Duration,
    laps: Vec<Lap>,
}

impl Laps {
    /// A run of `commands` commands begins. One by itself is timed by its caller.
    pub(super) fn begin(&mut self, commands: usize, clock: &dyn Clock) {
        self.laps.clear();
        self.on = self.timing != Timing::Off && commands > 1;
        if self.on {
            self.last = clock.monotonic();
        }
    }

    /// A command of a group is done, the `done`th of the run, and replied `reply_bytes`.
    #[inline]
    pub(super) fn command(
        &mut self,
        done: usize,
        planned: &Planned,
        request: &Request<'_>,
        reply_bytes: usize,
        clock: &dyn Clock,
    ) {
        if self.on && (self.timing == Timing::Every || is_heavy(planned, request, reply_bytes)) {
            self.lap(done, clock);
        }
    }

    /// A group or a unit ended when `done` commands of the run were done.
    pub(super) fn lap(&mut self, done: usize, clock: &dyn Clock) {
        let before = self.laps.last().map_or(0, |lap| lap.done);
        if self.on && done > before {
            let now = clock.monotonic();
            let time = now.saturating_sub(std::mem::replace(&mut self.last, now));
            self.laps.push(Lap { done, commands: done - before, time });
        }
    }

    pub(super) fn all(&self) -> &[Lap] {
        &self.laps
    }
}

fn is_heavy(planned: &Planned, request: &Request<'_>, reply_bytes: usize) -> bool {
    let args = planned.args(request);
    !planned.command.info.flags.has(Flags::FAST)
        || reply_bytes >= HEAVY_BYTES
        || args.iter().map(<[u8]>::len).sum::<usize>() >= HEAVY_BYTES
}
