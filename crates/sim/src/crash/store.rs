//! Crash tests of the whole store: commands in, replies out, the log's state machines stepped by hand.
//!
//! A reply leaves when the version that it waits for is committed; what has left must be true for ever:
//! - a write whose reply has left is there after the restart;
//! - a read whose reply has left told nothing that the restart has lost;
//! - what is there is the state after some first part of the commands: none is half applied, transactions are whole.

use std::collections::VecDeque;
use std::time::Duration;

use bowline::blocks::{Compression, FileSize, Geometry};
use bowline::clock::Clock;
use bowline::{Durability, Error, EvictionPolicy, MemoryLimit, Restart, Version};

use super::model::{Command, DATABASES, Databases};
use super::{Mistake, Problem, START_WALL_MS, check_no_second_sync, clock_after_restart, shared_disk};
use crate::clock::SimClock;
use crate::disk::{Call, Failure, SimDisk};
use crate::random::Random;
use crate::store_machine::{StoreMachine, options};

/// Bytes of a block.
const BLOCK_BYTES: u32 = 4096;
/// A block file of a fixed size that the workload fills: the smallest there is.
const SMALL_FILE_BYTES: u64 = 64 * BLOCK_BYTES as u64;

/// A limit on memory that some values exceed, with the tables of a few databases below it.
const SMALL_MEMORY_BYTES: usize = 12 * 1024;

/// Seeds after which the shapes come again.
const SHAPES: u64 = 8;
/// How values are compressed, in turn.
const COMPRESSIONS: [Compression; 3] = [Compression::None, Compression::Lz4, Compression::Zstd { level: 1 }];

/// What a seed makes of the block file and of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// It grows by itself, and has no reason to.
    #[default]
    Roomy,
    /// It is soon full: checkpoints compact, and writes are refused.
    Full,
    /// Values are large: it grows.
    Growing,
    /// Memory is small, and has the policy "tier": most values are in the file only.
    Tiered,
}

/// How replies begin that say that nothing was done.
const REFUSALS: [&[u8]; 5] = [
    b"-MISCONF",
    b"-ERR the block file",
    b"-OOM",
    b"-EXECABORT Transaction discarded because of: OOM",
    b"-ERR the sum of",
];
/// What a reply says of a value that cannot be read.
const UNREADABLE: &[u8] = b"the value cannot be read back";

/// Commands that ran at one moment: one, or those of a transaction.
#[derive(Clone, Debug)]
struct Operation {
    database: usize,
    commands: Vec<Command>,
    transaction: bool,
    now_ms: u64,
}

/// A reply that a client may have got, and what it waits for.
#[derive(Clone, Debug)]
struct Told {
    operation: Operation,
    reply: Vec<u8>,
    /// How many changing operations had run when it was written, its own counted.
    writes: usize,
    waits_for: Version,
    /// Whether it tells of a change that it made, not only of what was there.
    changed: bool,
}

/// What was done to a store in all its lives, and what clients know.
#[derive(Clone, Debug, Default)]
pub struct StoreHistory {
    /// The state before the first of `writes`.
    base: Databases,
    writes: Vec<Operation>,
    /// The state now.
    model: Databases,
    acknowledged: usize,
    /// Operations that changed nothing and whose replies have left.
    reads: Vec<Told>,
    seen: Version,
    shape: Shape,
    /// Rises with every life: values are compressed otherwise in the next.
    turn: u64,
    refused: u32,
    /// Values that left memory, and values that were read back.
    tiered: (u64, u64),
}

impl Shape {
    /// The shape of the run of `seed`.
    pub fn of(seed: u64) -> Shape {
        // Large values make a run ten times as slow.
        match seed % SHAPES {
            1 | 3 | 7 => Shape::Full,
            5 => Shape::Growing,
            2 | 6 => Shape::Tiered,
            _ => Shape::Roomy,
        }
    }

    fn geometry(self) -> Geometry {
        let size = if self == Shape::Full { FileSize::Fixed(SMALL_FILE_BYTES) } else { FileSize::Auto };
        Geometry { block_bytes: BLOCK_BYTES, size }
    }

    fn memory_limit(self) -> MemoryLimit {
        match self {
            Shape::Tiered => MemoryLimit { bytes: SMALL_MEMORY_BYTES, policy: EvictionPolicy::Tier },
            _ => MemoryLimit::default(),
        }
    }

    fn value(self, random: &mut Random) -> Vec<u8> {
        let length = match self {
            Shape::Growing if random.chance(1, 3) => 50_000 + random.index(200_000),
            Shape::Full if random.chance(1, 3) => 2_000 + random.index(12_000),
            Shape::Tiered if random.chance(1, 2) => 200 + random.index(1_500),
            _ if random.chance(1, 30) => 3_000 + random.index(20_000),
            _ => random.index(300),
        };
        let mut value = vec![0; length.min(BLOCK_BYTES as usize)];
        random.fill(&mut value);
        value.iter().copied().cycle().take(length).collect()
    }
}

impl Operation {
    fn run_on(&self, model: &mut Databases) -> Vec<u8> {
        if self.transaction {
            return model.run_all(self.database, &self.commands, self.now_ms);
        }
        self.commands.iter().flat_map(|command| model.run(self.database, command, self.now_ms)).collect()
    }
}

impl StoreHistory {
    /// Number of writing operations that came back or were run since.
    pub fn writes(&self) -> usize {
        self.writes.len()
    }

    /// Values that left memory, and values that were read back.
    pub fn tiered(&self) -> (u64, u64) {
        self.tiered
    }

    /// Number of commands that were refused for want of room.
    pub fn refused(&self) -> u32 {
        self.refused
    }

    /// How the next life compresses values: what it finds was written otherwise.
    fn next_compression(&mut self) -> Compression {
        self.turn += 1;
        COMPRESSIONS[(self.turn - 1) as usize % COMPRESSIONS.len()]
    }

    fn leave(&mut self, told: Told) {
        if told.changed {
            self.acknowledged = self.acknowledged.max(told.writes);
        } else {
            self.reads.push(told);
        }
    }

    /// A restart found `found` at `now_ms`, and its log goes on after `last`.
    fn recover(&mut self, found: &Databases, now_ms: u64, last: Version) -> Result<(), Problem> {
        if last < self.seen {
            return Err(Problem::VersionReused { seen: self.seen, found: last });
        }
        let mut state = self.base.clone();
        let (mut right, mut too_short) = (None, None);
        for kept in 0..=self.writes.len() {
            if kept > 0 {
                self.writes[kept - 1].run_on(&mut state);
            }
            let mut visible = state.clone();
            visible.expire(now_ms);
            if visible != *found {
                continue;
            }
            if kept >= self.acknowledged && self.reads_hold(kept, &state) {
                right = Some(state.clone());
            } else {
                too_short = Some(kept);
            }
        }
        match (right, too_short) {
            (Some(state), _) => {
                self.writes.clear();
                self.reads.clear();
                (self.acknowledged, self.base, self.model) = (0, state.clone(), state);
                Ok(())
            }
            (None, Some(kept)) if kept < self.acknowledged => {
                Err(Problem::Lost { acknowledged: self.acknowledged, kept })
            }
            (None, Some(kept)) => Err(Problem::State(format!("a reply told of more than the {kept} writes there are"))),
            (None, None) => Err(Problem::State(format!("no first part of the commands leads to {found:?}"))),
        }
    }

    /// Whether every read that a client was told, of more than the first `kept` writes, says nothing that is lost.
    fn reads_hold(&self, kept: usize, state: &Databases) -> bool {
        let later = self.reads.iter().filter(|told| told.writes > kept);
        later.into_iter().all(|told| told.operation.run_on(&mut state.clone()) == told.reply)
    }
}

/// One life of a process.
struct StoreProcess<'a> {
    machine: StoreMachine,
    history: &'a mut StoreHistory,
    mistake: Option<Mistake>,
    held: VecDeque<Told>,
}

/// How a life ended.
enum End {
    Lived { poisoned: bool },
    Refused(Error),
}

impl StoreProcess<'_> {
    fn run(mut self, random: &mut Random, actions: u32) -> Result<End, Problem> {
        for _ in 0..actions {
            match random.below(100) {
                0..3 => self.checkpoint(random)?,
                _ => self.act(random)?,
            }
        }
        if random.chance(3, 4) && !self.machine.become_quiet() && !self.machine.store.log().is_poisoned() {
            return Err(Problem::Stuck("a reply is never committed"));
        }
        self.let_replies_leave(random)?;
        let poisoned = self.machine.store.log().is_poisoned();
        let tier = self.machine.store.tier();
        self.history.tiered = (self.history.tiered.0 + tier.made_cold, self.history.tiered.1 + tier.fetched);
        if random.chance(3, 4) {
            // The process ends without a farewell; dropping the store must not tidy up what a crash would leave.
            self.machine.disk.crash_now();
        }
        Ok(End::Lived { poisoned })
    }

    fn act(&mut self, random: &mut Random) -> Result<(), Problem> {
        match random.below(100) {
            0..50 => self.operate(random)?,
            50..86 => drop(self.machine.store.turn()),
            86..95 => self.machine.clock.advance(Duration::from_micros(random.below(8_000))),
            95..99 => self.machine.clock.advance(Duration::from_millis(random.below(3_000))),
            _ => drop(self.machine.become_quiet()),
        }
        self.let_replies_leave(random)
    }

    /// A checkpoint, with other things going on between its steps. It may fail: then nothing is lost either.
    fn checkpoint(&mut self, random: &mut Random) -> Result<(), Problem> {
        let store = self.machine.store.clone();
        let mut problem = Ok(());
        let failed = store.checkpoint_with(&mut || {
            if problem.is_ok() && random.chance(1, 4) {
                problem = self.act(random);
            }
        });
        problem?;
        match failed {
            Err(damage @ Error::Corrupt { .. }) => Err(Problem::Damaged(damage)),
            _ => Ok(()),
        }
    }

    fn operate(&mut self, random: &mut Random) -> Result<(), Problem> {
        let now_ms = self.machine.store.now_ms();
        let count = if random.chance(1, 6) { 2 + random.index(4) } else { 1 };
        let shape = self.history.shape;
        let commands: Vec<Command> = (0..count)
            .map(|_| {
                let value = shape.value(random);
                Command::random(random, now_ms, value)
            })
            .collect();
        let operation = Operation { database: random.index(DATABASES), commands, transaction: count > 1, now_ms };
        let level = match random.below(4) {
            0 => Durability::None,
            _ => Durability::Always,
        };
        self.perform(operation, level)
    }

    fn perform(&mut self, operation: Operation, level: Durability) -> Result<(), Problem> {
        let before = self.machine.store.log().last_version();
        let Some((reply, waits_for)) =
            self.machine.execute(operation.database, &operation.commands, operation.transaction, level)
        else {
            return Ok(());
        };
        let newest = self.machine.store.log().last_version();
        if newest > before && newest <= self.history.seen {
            return Err(Problem::VersionReused { seen: self.history.seen, found: newest });
        }
        // A disk that fails, or has no power, gives no values back.
        let is_unread = reply.windows(UNREADABLE.len()).any(|part| part == UNREADABLE);
        if is_unread && !self.machine.disk.has_failed() && !self.machine.disk.is_off() {
            return Err(Problem::State(format!("{operation:?} was answered {:?}", String::from_utf8_lossy(&reply))));
        }
        if is_unread || REFUSALS.iter().any(|refusal| reply.starts_with(refusal)) {
            self.history.refused += 1;
            return Ok(());
        }
        self.history.model.expire(operation.now_ms);
        let model_before = self.history.model.clone();
        let expected = operation.run_on(&mut self.history.model);
        if reply != expected {
            let (reply, expected) = (String::from_utf8_lossy(&reply), String::from_utf8_lossy(&expected));
            return Err(Problem::State(format!("{operation:?} was answered {reply:?} instead of {expected:?}")));
        }
        // A write that changes nothing logs nothing: it tells of what was there, as a read does.
        let changed = self.history.model != model_before;
        if changed {
            self.history.writes.push(operation.clone());
        }
        let told = Told { operation, reply, writes: self.history.writes.len(), waits_for, changed };
        if level == Durability::Always {
            self.held.push_back(told);
        }
        Ok(())
    }

    fn let_replies_leave(&mut self, random: &mut Random) -> Result<(), Problem> {
        let log = self.machine.store.log();
        let commit = match self.mistake {
            Some(Mistake::AcknowledgeEarly) => Version::MAX,
            _ => log.commit(),
        };
        self.history.seen = self.history.seen.max(log.last_version().min(log.commit().max(log.version_limit())));
        let (left, held) = std::mem::take(&mut self.held).into_iter().partition(|told| told.waits_for <= commit);
        self.held = held;
        let left: VecDeque<Told> = left;
        left.into_iter().for_each(|told| self.history.leave(told));
        if let Some(newest) = self.held.iter().map(|told| told.waits_for).max().filter(|_| random.chance(1, 2)) {
            log.request_sync(newest);
        }
        Ok(())
    }
}

/// One life of a process on `disk`: opens the store, compares it with `history`, does random things.
fn live(
    disk: &SimDisk,
    clock: &SimClock,
    history: &mut StoreHistory,
    mistake: Option<Mistake>,
    (random, actions): (&mut Random, u32),
) -> Result<End, Problem> {
    let mut options = options(shared_disk(disk, mistake), clock);
    options.block_file_geometry = history.shape.geometry();
    options.memory_limit = history.shape.memory_limit();
    options.compression = history.next_compression();
    // Taken from the clock, so that every other start is lazy and a seed means the rest of what it always meant.
    let (is_lazy, checkpoint_first) = (clock.wall_ms() & 1 == 0, clock.wall_ms() & 2 == 0);
    options.restart = if is_lazy { Restart::Lazy } else { Restart::Eager };
    let mut machine = match StoreMachine::open_with(options, disk, clock) {
        Ok(machine) => machine,
        Err(error) => return Ok(End::Refused(error)),
    };
    if is_lazy
        && checkpoint_first
        && let Err(damage @ Error::Corrupt { .. }) = machine.store.checkpoint()
    {
        return Err(Problem::Damaged(damage));
    }
    let Some(found) = machine.contents() else {
        // In a lazy start damage is met when it is read.
        return Ok(match machine.store.len() {
            Err(error @ Error::NotLoaded { .. }) if !disk.is_off() => End::Refused(error),
            _ => End::Lived { poisoned: true },
        });
    };
    history.recover(&found, clock.wall_ms(), machine.store.log().last_version())?;
    StoreProcess { machine, history, mistake, held: VecDeque::new() }.run(random, actions)
}

fn first_life(
    seed: u64,
    mistake: Option<Mistake>,
    plan: impl FnOnce(&SimDisk),
) -> Result<(SimDisk, SimClock, StoreHistory, End), Problem> {
    let (disk, clock) = (SimDisk::new(seed), SimClock::new(START_WALL_MS));
    let shape = Shape::of(seed);
    // Compressed, large values would not let the file grow.
    let turn = if shape == Shape::Growing { 0 } else { seed / SHAPES };
    let mut history = StoreHistory { shape, turn, ..StoreHistory::default() };
    plan(&disk);
    let mut random = Random::for_part(seed, 1);
    let actions = 100 + random.below(300) as u32;
    let end = live(&disk, &clock, &mut history, mistake, (&mut random, actions))?;
    Ok((disk, clock, history, end))
}

/// The storage calls of the run that `seed` describes, with nothing failing, and its history.
pub fn undisturbed(seed: u64) -> Result<(Vec<Call>, StoreHistory), Problem> {
    let (disk, _, history, end) = first_life(seed, None, |_| {})?;
    match end {
        End::Lived { poisoned: false } => Ok((disk.trace(), history)),
        End::Lived { poisoned: true } => Err(Problem::Stuck("the log is poisoned")),
        End::Refused(error) => Err(Problem::Refused(error)),
    }
}

/// The power goes off before storage call `cut` of the run of `seed`; several images of that moment must open right.
pub fn check_cut(seed: u64, cut: u64, images: u64, mistake: Option<Mistake>) -> Result<(), Problem> {
    let (disk, clock, history, end) = first_life(seed, mistake, |disk| disk.crash_at(cut))?;
    if let (End::Refused(error), false) = (end, disk.is_off()) {
        return Err(Problem::Refused(error));
    }
    for image in 0..images {
        let mut random = Random::for_part(seed, (cut << 16) | (image + 2));
        check_lives_after(&disk, clock.wall_ms(), history.clone(), (&mut random, mistake))?;
    }
    Ok(())
}

/// Storage call `call` of the run of `seed` fails; then the process is restarted, and later the power goes.
pub fn check_failure(seed: u64, call: u64, failure: Failure, mistake: Option<Mistake>) -> Result<(), Problem> {
    let (disk, clock, mut history, _) = first_life(seed, mistake, |disk| disk.fail_at(call, failure))?;
    check_no_second_sync(&disk, call)?;
    let mut random = Random::for_part(seed, (call << 16) | 1);
    let restarted = disk.process_killed();
    let clock = clock_after_restart(&mut random, clock.wall_ms());
    if let End::Refused(error) = live(&restarted, &clock, &mut history, mistake, (&mut random, 30))? {
        return Err(Problem::Refused(error));
    }
    check_lives_after(&restarted, clock.wall_ms(), history, (&mut random, mistake))
}

/// Power cuts and restarts after `disk` lost its power, some of them in the middle of recovery.
fn check_lives_after(
    disk: &SimDisk,
    wall_ms: u64,
    mut history: StoreHistory,
    (random, mistake): (&mut Random, Option<Mistake>),
) -> Result<(), Problem> {
    let mut image = disk.power_cut(random);
    let mut clock = clock_after_restart(random, wall_ms);
    for _ in 0..random.below(3) {
        if random.chance(2, 3) {
            image.crash_at(random.below(60));
        }
        let actions = random.below(60) as u32;
        let end = live(&image, &clock, &mut history, mistake, (random, actions))?;
        if let (End::Refused(error), false) = (end, image.is_off()) {
            return Err(Problem::Refused(error));
        }
        image = if random.chance(1, 3) { image.process_killed() } else { image.power_cut(random) };
        clock = clock_after_restart(random, clock.wall_ms());
    }
    match live(&image, &clock, &mut history, mistake, (random, 5))? {
        End::Refused(error) => Err(Problem::Refused(error)),
        End::Lived { poisoned: true } => Err(Problem::Stuck("the log is poisoned although no call failed")),
        End::Lived { poisoned: false } => Ok(()),
    }
}
