//! Crash tests of the archive: whatever happens, it is one past without a gap, and after a close all of it.
//!
//! The archive is on the simulated disk like the log, in a directory of its own. At every image of a crash it is read
//! as it is: it must be readable, and a prefix of what was written (with retention, a piece of it). After the last,
//! undisturbed life of a process it must hold every write there ever was.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bowline::Error;
use bowline::disk::{Disk, DiskFile};
use bowline::log::archive::{Archive, ArchiveOptions, Limit, ReplayFrom, ReplayRequest, StoreId};
use bowline::log::{Checkpoint, LogOptions, RoomClass};

use super::{Problem, START_WALL_MS, check_no_second_sync};
use crate::clock::SimClock;
use crate::disk::front::{FrontDisk, Opening, Rules};
use crate::disk::{Call, Failure, SimDisk};
use crate::machine::{FILE_BYTES, LogMachine, Replayed, options};
use crate::random::Random;

/// Where the simulated archive is.
pub const DIRECTORY: &str = "/backup/archive";
const STORE: StoreId = StoreId(*b"simulated store!");

/// A mistake planted on purpose in how the archive is written, for whatever is below its directory: each must make the crash tests fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgotten {
    /// A copy gets its name before its bytes are durable.
    Sync,
    /// A file is given up before the name of its copy is durable.
    DirectorySync,
}

struct ForgetfulFile(Box<dyn DiskFile>);

impl Rules for Forgotten {
    fn file(&self, _disk: &SimDisk, path: &Path, opening: Opening, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        let forgets = *self == Forgotten::Sync && opening == Opening::New && path.starts_with(DIRECTORY);
        if forgets { Box::new(ForgetfulFile(file)) } else { file }
    }

    fn sync_directory(&self, disk: &SimDisk, directory: &Path) -> io::Result<()> {
        let forgets = *self == Forgotten::DirectorySync && directory.starts_with(DIRECTORY);
        if forgets { Ok(()) } else { disk.sync_directory(directory) }
    }
}

impl DiskFile for ForgetfulFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
}

/// What all lives of a store have in common.
#[derive(Clone, Debug)]
struct Past {
    /// Every write that is not known to be lost, oldest first.
    writes: Vec<Replayed>,
    /// How many of them were committed.
    committed: usize,
    /// How many of them are in a checkpoint.
    in_checkpoint: usize,
    keep_bytes: Option<u64>,
    forgotten: Option<Forgotten>,
}

impl Past {
    /// A restart replayed `replayed`: what was written and is not there is lost.
    fn recover(&mut self, replayed: &[Replayed]) -> Result<(), Problem> {
        let start = match replayed.first() {
            Some((first, _)) => self.writes.partition_point(|(version, _)| version < first),
            None => self.in_checkpoint,
        };
        for (place, found) in (start..).zip(replayed) {
            if self.writes.get(place) != Some(found) {
                return Err(Problem::Foreign { place, found: found.0 });
            }
        }
        let kept = start + replayed.len();
        if kept < self.committed {
            return Err(Problem::Lost { acknowledged: self.committed, kept });
        }
        self.writes.truncate(kept);
        self.committed = kept;
        Ok(())
    }

    /// Reads the archive on `disk`: what is in it is a piece of what was written, from the start unless old files are
    /// removed; all of it to the end when `complete`.
    fn check_archive(&self, disk: &SimDisk, complete: bool) -> Result<(), Problem> {
        let wrong = |what: String| Err(Problem::State(format!("the archive {what}")));
        let archive = match Archive::open(Arc::new(disk.clone()), Path::new(DIRECTORY)) {
            Ok(archive) => archive,
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound && !complete => return Ok(()),
            Err(error) => return wrong(format!("does not open: {error}")),
        };
        let Some(oldest) = archive.line(STORE).and_then(|line| line.files.first()) else {
            return if complete { wrong("is empty after a close".to_owned()) } else { Ok(()) };
        };
        let position = if self.keep_bytes.is_some() { oldest.header.start_position } else { 0 };
        let mut found = Vec::new();
        let mut deliver = |frame: bowline::log::ReplayFrame| {
            for record in frame.records() {
                let record = record?;
                found.push((record.version, record.effects.to_vec()));
            }
            Ok(())
        };
        let from = ReplayFrom { position: Some(position), ..ReplayFrom::START };
        let request = ReplayRequest { store_id: STORE, from, upto: Limit::End };
        if let Err(error) = archive.replay(&request, &mut deliver, &|_| {}) {
            return wrong(format!("cannot be read: {error}"));
        }
        let start = found.first().map_or(0, |(first, _)| self.writes.partition_point(|(version, _)| version < first));
        let end = start + found.len();
        if self.writes.get(start..end) != Some(&found[..]) || (start > 0 && self.keep_bytes.is_none()) {
            return wrong(format!("holds {} writes that are not those from {start} on", found.len()));
        }
        let to_the_end = end == self.writes.len() || (self.keep_bytes.is_some() && found.is_empty());
        if complete && !to_the_end {
            return wrong(format!("ends with write {end} of {} after a close", self.writes.len()));
        }
        Ok(())
    }
}

/// How a life ended.
#[derive(Debug)]
enum End {
    Refused(Error),
    Poisoned,
    Quiet,
    Closed,
}

fn log_options(disk: &SimDisk, clock: &SimClock, past: &Past) -> LogOptions {
    let shared: Arc<dyn Disk> = match past.forgotten {
        Some(forgotten) => Arc::new(FrontDisk { disk: disk.clone(), rules: forgotten }),
        None => Arc::new(disk.clone()),
    };
    let archive = ArchiveOptions { directory: DIRECTORY.into(), keep_for: None, keep_bytes: past.keep_bytes };
    LogOptions { archive: Some(archive), ..options(shared, clock) }
}

/// One life of a process: opens, does random things, and closes in order if it is `to_close`.
fn live(disk: &SimDisk, past: &mut Past, random: &mut Random, actions: u32, to_close: bool) -> Result<End, Problem> {
    let clock = SimClock::new(START_WALL_MS + random.below(100_000));
    let mut machine = match LogMachine::open_with(log_options(disk, &clock, past), disk, &clock) {
        Ok(machine) => machine,
        Err(error) => return Ok(End::Refused(error)),
    };
    past.recover(&machine.replayed)?;
    for _ in 0..actions {
        act(&mut machine, past, random);
        let commit = machine.log.commit();
        past.committed = past.committed.max(past.writes.partition_point(|(version, _)| *version <= commit));
        if machine.log.is_poisoned() {
            return Ok(End::Poisoned);
        }
    }
    if !to_close {
        return Ok(End::Quiet);
    }
    let closed = machine.close();
    Ok(if closed { End::Closed } else { End::Poisoned })
}

fn act(machine: &mut LogMachine, past: &mut Past, random: &mut Random) {
    match random.below(100) {
        0..40 => {
            let length = match random.below(40) {
                0 => 40_000 + random.index(20_000),
                1..20 => 3_000 + random.index(9_000),
                _ => 1 + random.index(300),
            };
            let mut effects = vec![0; length];
            random.fill(&mut effects);
            let tries = if length as u64 > FILE_BYTES { 12 } else { 2 };
            for _ in 0..tries {
                if let Some(version) = machine.try_append(&effects, RoomClass::Ordinary) {
                    past.writes.push((version, effects));
                    machine.log.request_sync(version);
                    break;
                }
                machine.wait_for_room();
            }
        }
        40..65 => drop(machine.step_writer()),
        65..88 => machine.step_preparer(),
        88..92 => machine.clock.advance(Duration::from_millis(random.below(6_000))),
        92..97 => {
            if machine.become_quiet() {
                let version = machine.log.last_version();
                machine.log.note_checkpoint(Checkpoint { version, position: machine.log.append_position() });
                let covered = past.writes.partition_point(|(written, _)| *written <= version);
                // Whether the header says so is uncertain from here on; what it covers is committed.
                past.in_checkpoint = covered;
                past.committed = covered;
            }
        }
        _ => {
            if let Some(version) = machine.try_append_reset(&[0xEE; 30]) {
                past.writes.push((version, vec![0xEE; 30]));
                machine.log.request_sync(version);
            }
        }
    }
}

/// The first life that `seed` describes, and the second, after a close; `plan` sets the fault.
fn first_lives(
    seed: u64,
    forgotten: Option<Forgotten>,
    plan: impl FnOnce(&SimDisk),
) -> Result<(SimDisk, Past, End), Problem> {
    let mut random = Random::for_part(seed, 3);
    let disk = SimDisk::new(seed);
    let keep_bytes = random.chance(1, 4).then(|| random.below(6) * FILE_BYTES);
    let mut past = Past { writes: Vec::new(), committed: 0, in_checkpoint: 0, keep_bytes, forgotten };
    plan(&disk);
    let actions = 60 + random.below(120) as u32;
    let end = live(&disk, &mut past, &mut random, actions, true)?;
    // After a failed call the next process starts on what `process_killed` gives.
    if !matches!(end, End::Closed) || disk.is_off() || disk.has_failed() {
        return Ok((disk, past, end));
    }
    let end = live(&disk, &mut past, &mut random, actions / 2, false)?;
    Ok((disk, past, end))
}

/// The storage calls of the run that `seed` describes, with nothing failing.
pub fn undisturbed(seed: u64) -> Result<Vec<Call>, Problem> {
    let (disk, past, end) = first_lives(seed, None, |_| {})?;
    let trace = disk.trace();
    match end {
        End::Refused(error) => return Err(Problem::Refused(error)),
        End::Poisoned => return Err(Problem::Stuck("the log is poisoned")),
        End::Quiet | End::Closed => past.check_archive(&disk, false)?,
    }
    Ok(trace)
}

/// The power goes off before storage call `cut` of the run of `seed`: several images of that moment.
pub fn check_cut(seed: u64, cut: u64, images: u64, forgotten: Option<Forgotten>) -> Result<(), Problem> {
    let (disk, past, end) = first_lives(seed, forgotten, |disk| disk.crash_at(cut))?;
    if let (End::Refused(error), false) = (end, disk.is_off()) {
        return Err(Problem::Refused(error));
    }
    for image in 0..images {
        let mut random = Random::for_part(seed, (cut << 16) | (image + 7));
        check_lives_after(&disk, past.clone(), &mut random)?;
    }
    Ok(())
}

/// Storage call `call` of the run of `seed` fails; then the process is perhaps restarted, and the power goes.
pub fn check_failure(seed: u64, call: u64, failure: Failure) -> Result<(), Problem> {
    let (disk, mut past, _) = first_lives(seed, None, |disk| disk.fail_at(call, failure))?;
    check_no_second_sync(&disk, call)?;
    let mut random = Random::for_part(seed, (call << 16) | 5);
    if random.chance(1, 2) {
        return check_lives_after(&disk, past, &mut random);
    }
    let restarted = disk.process_killed();
    let (actions, to_close) = (random.below(60) as u32, random.chance(1, 2));
    if let End::Refused(error) = live(&restarted, &mut past, &mut random, actions, to_close)? {
        return Err(Problem::Refused(error));
    }
    check_lives_after(&restarted, past, &mut random)
}

/// Power cuts and restarts after `disk` lost its power; then a life that nothing disturbs.
fn check_lives_after(disk: &SimDisk, mut past: Past, random: &mut Random) -> Result<(), Problem> {
    let mut image = disk.power_cut(random);
    past.check_archive(&image, false)?;
    for _ in 0..random.below(3) {
        let fault = random.below(60);
        match random.below(5) {
            0..2 => image.crash_at(fault),
            2 => image.fail_at(fault, Failure::Eio),
            3 => image.fail_at(fault, Failure::Enospc),
            _ => {}
        }
        let (actions, to_close) = (random.below(40) as u32, random.chance(1, 2));
        let end = live(&image, &mut past, random, actions, to_close)?;
        if let (End::Refused(error), false) = (end, image.is_off() || image.has_failed()) {
            return Err(Problem::Refused(error));
        }
        image = if random.chance(1, 3) { image.process_killed() } else { image.power_cut(random) };
        past.check_archive(&image, false)?;
    }
    match live(&image, &mut past, random, 3, true)? {
        End::Refused(error) => Err(Problem::Refused(error)),
        End::Closed => past.check_archive(&image.power_cut(random), true),
        End::Poisoned | End::Quiet => Err(Problem::Stuck("the log is poisoned although no call failed")),
    }
}
