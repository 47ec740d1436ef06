//! Crash tests of the log alone: random commands, its two state machines stepped by hand.

use std::time::Duration;

use bowline::Error;
use bowline::Version;
use bowline::clock::Clock;
use bowline::log::RoomClass;

use super::history::History;
use super::{Mistake, Problem, START_WALL_MS, check_no_second_sync, clock_after_restart_or_earlier, shared_disk};
use crate::clock::SimClock;
use crate::disk::{Call, Failure, SimDisk};
use crate::machine::{FILE_BYTES, LogMachine};
use crate::random::Random;

/// One life of a process that uses the log.
struct LogProcess<'a> {
    machine: LogMachine,
    history: &'a mut History,
    /// Whether commands larger than a file are written. They bring large files, which are not changed often.
    large: bool,
    mistake: Option<Mistake>,
    commit_when_poisoned: Option<Version>,
}

/// How a run ended.
#[derive(Debug)]
enum End {
    /// All actions were done.
    Finished,
    /// The log did not open.
    Refused(Error),
    /// A storage call failed and the log stopped.
    Poisoned,
}

impl LogProcess<'_> {
    /// Does `actions` random things and then, mostly, waits until everything is committed.
    fn run(mut self, random: &mut Random, actions: u32) -> Result<End, Problem> {
        for _ in 0..actions {
            self.act(random)?;
            self.observe()?;
        }
        if random.chance(3, 4) {
            self.become_quiet()?;
        }
        Ok(if self.machine.log.is_poisoned() { End::Poisoned } else { End::Finished })
    }

    fn act(&mut self, random: &mut Random) -> Result<(), Problem> {
        match random.below(100) {
            0..45 => self.append(random)?,
            45..72 => drop(self.machine.step_writer()),
            72..85 => self.machine.step_preparer(),
            85..94 => self.machine.clock.advance(Duration::from_micros(random.below(8_000))),
            94..96 => self.machine.clock.advance(Duration::from_millis(random.below(3_000))),
            96 => self.become_quiet()?,
            97 => self.jump(random),
            _ => self.reset(random)?,
        }
        Ok(())
    }

    fn append(&mut self, random: &mut Random) -> Result<(), Problem> {
        let effects = effects(random, &self.machine.disk, self.large);
        let class = if random.chance(1, 5) { RoomClass::Removal } else { RoomClass::Ordinary };
        // One that is larger than a file waits for a file of its own; others give way to whatever comes next.
        let tries = if effects.len() as u64 > FILE_BYTES { 12 } else { 1 };
        let admitted = (0..tries).find_map(|_| {
            let version = self.machine.try_append(&effects, class);
            if version.is_none() {
                self.machine.wait_for_room();
            }
            version
        });
        let Some(version) = admitted else {
            return Ok(());
        };
        if random.chance(2, 3) {
            self.machine.log.request_sync(version);
        }
        self.history.append(version, effects, false)
    }

    fn reset(&mut self, random: &mut Random) -> Result<(), Problem> {
        let effects = vec![0xEE; 1 + random.index(40)];
        let Some(version) = self.machine.try_append_reset(&effects) else {
            return Ok(());
        };
        self.machine.log.request_sync(version);
        self.history.append(version, effects, true)
    }

    /// Somebody sets the wall clock.
    fn jump(&self, random: &mut Random) {
        let away = random.below(10_000_000);
        let now = self.machine.clock.wall_ms();
        self.machine.clock.set_wall_ms(if random.chance(1, 2) { now + away } else { now - away });
    }

    fn become_quiet(&mut self) -> Result<(), Problem> {
        let quiet = self.machine.become_quiet();
        self.observe()?;
        if !quiet && !self.machine.log.is_poisoned() {
            return Err(Problem::Stuck("an appended write is never committed"));
        }
        Ok(())
    }

    /// What clients are told and see at this moment.
    fn observe(&mut self) -> Result<(), Problem> {
        let log = &self.machine.log;
        let commit = log.commit();
        if log.is_poisoned() {
            let before = *self.commit_when_poisoned.get_or_insert(commit);
            if commit != before {
                return Err(Problem::AcknowledgedAfterFailure { before, after: commit });
            }
        }
        self.history.show(log.version_limit());
        match self.mistake {
            Some(Mistake::AcknowledgeEarly) => self.history.acknowledge(log.last_version()),
            _ => self.history.acknowledge(commit),
        }
        Ok(())
    }
}

/// Effects of a random size; now and then they hold a piece of the log itself, frames and all, as a client's value may.
fn effects(random: &mut Random, disk: &SimDisk, large: bool) -> Vec<u8> {
    let length = match random.below(100) {
        0..60 => 10 + random.index(200),
        60..90 => 200 + random.index(3_800),
        97.. if large => 40_000 + random.index(400_000),
        _ => 4_000 + random.index(8_000),
    };
    let mut bytes = vec![0; length];
    let logs = disk.paths();
    if random.chance(1, 10) && !logs.is_empty() {
        let contents = disk.contents(&logs[random.index(logs.len())]);
        let from = random.index(contents.len().max(1)).min(contents.len()) / 2;
        for (byte, copied) in bytes.iter_mut().zip(&contents[from..]) {
            *byte = *copied;
        }
    } else {
        random.fill(&mut bytes);
    }
    bytes
}

/// One life of a process on `disk`: opens the log, compares what it replayed with `history`, does random things.
fn live(
    disk: &SimDisk,
    clock: &SimClock,
    history: &mut History,
    mistake: Option<Mistake>,
    (random, actions): (&mut Random, u32),
) -> Result<End, Problem> {
    let large = random.chance(1, 4);
    let machine = match LogMachine::open_through(shared_disk(disk, mistake), disk, clock) {
        Ok(machine) => machine,
        Err(error) => return Ok(End::Refused(error)),
    };
    history.recover(&machine.replayed, machine.last_version)?;
    LogProcess { machine, history, large, mistake, commit_when_poisoned: None }.run(random, actions)
}

/// The first life that `seed` describes; `plan` sets its fault. Returns the disk and what was written.
fn first_life(
    seed: u64,
    mistake: Option<Mistake>,
    plan: impl FnOnce(&SimDisk),
) -> Result<(SimDisk, History, End), Problem> {
    let (disk, clock, mut history) = (SimDisk::new(seed), SimClock::new(START_WALL_MS), History::default());
    plan(&disk);
    let mut random = Random::for_part(seed, 1);
    let actions = 150 + random.below(350) as u32;
    let end = live(&disk, &clock, &mut history, mistake, (&mut random, actions))?;
    Ok((disk, history, end))
}

/// The storage calls of the run that `seed` describes, with nothing failing, and its history.
pub fn undisturbed(seed: u64) -> Result<(Vec<Call>, History), Problem> {
    let (disk, history, end) = first_life(seed, None, |_| {})?;
    match end {
        End::Finished => Ok((disk.trace(), history)),
        End::Refused(error) => Err(Problem::Refused(error)),
        End::Poisoned => Err(Problem::Stuck("the log is poisoned")),
    }
}

/// The power goes off before storage call `cut` of the run of `seed`; several images of that moment must open right.
pub fn check_cut(seed: u64, cut: u64, images: u64, mistake: Option<Mistake>) -> Result<(), Problem> {
    let (disk, history, end) = first_life(seed, mistake, |disk| disk.crash_at(cut))?;
    if let (End::Refused(error), false) = (end, disk.is_off()) {
        return Err(Problem::Refused(error));
    }
    for image in 0..images {
        let mut random = Random::for_part(seed, (cut << 16) | (image + 2));
        check_lives_after(&disk, history.clone(), &mut random, mistake)?;
    }
    Ok(())
}

/// Storage call `call` of the run of `seed` fails; then the process is restarted, and later the power goes.
pub fn check_failure(seed: u64, call: u64, failure: Failure, mistake: Option<Mistake>) -> Result<(), Problem> {
    let (disk, mut history, _) = first_life(seed, mistake, |disk| disk.fail_at(call, failure))?;
    check_no_second_sync(&disk, call)?;
    let mut random = Random::for_part(seed, (call << 16) | 1);
    if random.chance(1, 2) {
        return check_lives_after(&disk, history, &mut random, mistake);
    }
    let restarted = disk.process_killed();
    let clock = SimClock::new(START_WALL_MS);
    if let End::Refused(error) = live(&restarted, &clock, &mut history, mistake, (&mut random, 20))? {
        return Err(Problem::Refused(error));
    }
    check_lives_after(&restarted, history, &mut random, mistake)
}

/// Power cuts and restarts after `disk` lost its power, some of them in the middle of recovery.
fn check_lives_after(
    disk: &SimDisk,
    mut history: History,
    random: &mut Random,
    mistake: Option<Mistake>,
) -> Result<(), Problem> {
    let mut image = disk.power_cut(random);
    for _ in 0..random.below(4) {
        let clock = clock_after_restart_or_earlier(random);
        let fault = random.below(60);
        match random.below(6) {
            0..3 => image.crash_at(fault),
            3 => image.fail_at(fault, Failure::Eio),
            4 => image.fail_at(fault, Failure::Enospc),
            _ => {}
        }
        let actions = random.below(60) as u32;
        let end = live(&image, &clock, &mut history, mistake, (random, actions))?;
        if let (End::Refused(error), false) = (end, image.is_off() || image.has_failed()) {
            return Err(Problem::Refused(error));
        }
        image = if random.chance(1, 3) { image.process_killed() } else { image.power_cut(random) };
    }
    let clock = clock_after_restart_or_earlier(random);
    match live(&image, &clock, &mut history, mistake, (random, 5))? {
        End::Refused(error) => Err(Problem::Refused(error)),
        End::Poisoned => Err(Problem::Stuck("the log is poisoned although no call failed")),
        End::Finished => Ok(()),
    }
}
