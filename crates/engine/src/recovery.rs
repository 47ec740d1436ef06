//! Bringing the keyspace back from the log, in parallel by segment.
//!
//! ```text
//!  log frames --> router: decodes each effect, hashes its key --+--> worker 0: segments 0, 2, 4 ..
//!                                                               \--> worker 1: segments 1, 3, 5 ..
//!  an effect over several segments is a barrier: the router waits for the workers and applies it itself
//! ```
//!
//! Effects on one key keep their order, because a key has one segment and a segment one worker. A value that was left in
//! the block file is read before an effect that changes a part of it, and so is a segment that was not loaded (lazy start). Not here: finding and verifying the frames
//! (`log::recovery`).

use crate::apply::{Freed, apply_to_key, apply_to_many};
use crate::effect::Effect;
use crate::error::{Error, Result};
use crate::keyspace::{DoesNotFit, Hold, Keyspace, SegmentSet};
use crate::log::ReplayFrame;
use crate::store::Load;
use crate::version::Version;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

/// Frames' worth of work that may wait for a worker: bounds the memory of recovery.
const QUEUE: usize = 4;
/// How far ahead of the effect that it applies a worker prefetches.
const PREFETCH_BUCKET: usize = 16;
const PREFETCH_ENTRY: usize = 8;

/// One effect on one key, somewhere in a frame.
#[derive(Clone, Copy)]
struct Item {
    hash: u64,
    version: Version,
    offset: u32,
}

enum Work {
    Apply(Arc<ReplayFrame>, Vec<Item>),
    /// Answer when everything before is done.
    Barrier(Sender<()>),
}

struct Worker {
    work: SyncSender<Work>,
    items: Vec<Item>,
    thread: JoinHandle<Result<()>>,
}

/// Takes frames and brings the keyspace to their state.
pub(crate) struct Recovery {
    keyspace: Arc<Keyspace>,
    /// Where entries and values are that are not in memory.
    load: Option<Arc<Load>>,
    /// Records up to this version are there already: a checkpoint was loaded.
    cut: Version,
    /// Records beyond it.
    records: u64,
    /// Empty until there is something to do.
    workers: Vec<Worker>,
    parallel: bool,
}

impl Recovery {
    /// A recovery into a keyspace that is exact at `cut`, with threads of its own if `parallel`.
    /// `load` has what is still in the block file.
    pub(crate) fn new(keyspace: Arc<Keyspace>, cut: Version, parallel: bool, load: Option<Arc<Load>>) -> Recovery {
        Recovery { keyspace, load, cut, records: 0, workers: Vec::new(), parallel }
    }

    /// Starts the threads: all or none, the segments are divided by their number.
    fn start_workers(&mut self) {
        let cores = if self.parallel { std::thread::available_parallelism().map_or(1, usize::from) } else { 0 };
        let count = cores.min(self.keyspace.segment_count()).min(8);
        let workers = (0..count).map_while(|index| Worker::start(&self.keyspace, self.load.clone(), index, count));
        let workers: Vec<Worker> = workers.collect();
        self.workers = if workers.len() == count { workers } else { Vec::new() };
    }

    /// Applies the records of one frame, or hands them to the workers.
    pub(crate) fn replay(&mut self, frame: ReplayFrame) -> Result<()> {
        let frame = Arc::new(frame);
        for record in frame.records() {
            let record = record?;
            if record.version <= self.cut {
                continue;
            }
            if self.records == 0 {
                self.start_workers();
            }
            self.records += 1;
            let mut rest = record.effects;
            let mut offset = record.offset;
            while !rest.is_empty() {
                let decoded = Effect::decode(rest);
                let (effect, after) = decoded.map_err(|_| corrupt(&frame, "it holds an effect of an unknown kind"))?;
                self.route(&frame, effect, record.version, offset)?;
                offset += rest.len() - after.len();
                rest = after;
            }
        }
        self.send(&frame)
    }

    fn route(&mut self, frame: &Arc<ReplayFrame>, effect: Effect<'_>, version: Version, offset: usize) -> Result<()> {
        let Some(key) = effect.single_key() else {
            self.send(frame)?;
            self.wait_for_workers();
            return self.apply_alone(frame, &effect, |hold, freed| apply_to_many(hold, &effect, version, freed));
        };
        let hash = self.keyspace.hash(key);
        if self.workers.is_empty() {
            return self.apply_alone(frame, &effect, |hold, freed| apply_to_key(hold, hash, &effect, version, freed));
        }
        let worker = self.keyspace.segment_of(hash) % self.workers.len();
        // A payload is below 4 GiB: its length is a u32 in the frame.
        self.workers[worker].items.push(Item { hash, version, offset: offset as u32 });
        Ok(())
    }

    fn apply_alone(
        &self,
        frame: &ReplayFrame,
        effect: &Effect<'_>,
        apply: impl FnOnce(&mut Hold<'_>, &mut Freed) -> std::result::Result<(), DoesNotFit>,
    ) -> Result<()> {
        if let Some(load) = &self.load {
            match self.segments_of(effect) {
                Some(segments) => load.load_here(segments)?,
                None => load.load_all(self.parallel, &|_| {})?,
            }
        }
        let mut hold = self.keyspace.hold(SegmentSet::EMPTY, self.keyspace.every_segment());
        fetch_for(&mut hold, self.load.as_deref(), effect)?;
        apply(&mut hold, &mut Freed::default()).map_err(|problem| corrupt(frame, problem.0))
    }

    /// The segments whose entries an effect needs; `None` for all of them.
    fn segments_of(&self, effect: &Effect<'_>) -> Option<SegmentSet> {
        let segment_of = |key: &[u8]| SegmentSet::one(self.keyspace.segment_of(self.keyspace.hash(key)));
        match *effect {
            Effect::Move { key, to_key, .. } => Some(segment_of(key).union(segment_of(to_key))),
            Effect::NewTable { .. } | Effect::Reset => Some(SegmentSet::EMPTY),
            _ => effect.single_key().map(segment_of),
        }
    }

    fn send(&mut self, frame: &Arc<ReplayFrame>) -> Result<()> {
        let mut stopped = false;
        for worker in &mut self.workers {
            if !worker.items.is_empty() {
                let work = Work::Apply(frame.clone(), std::mem::take(&mut worker.items));
                stopped |= worker.work.send(work).is_err();
            }
        }
        if stopped { Err(self.join().err().unwrap_or(Error::Poisoned)) } else { Ok(()) }
    }

    fn wait_for_workers(&self) {
        let (done, waiting) = channel();
        for worker in &self.workers {
            // A worker that has stopped drops the sender, and says why when it is joined.
            let _ = worker.work.send(Work::Barrier(done.clone()));
        }
        drop(done);
        waiting.into_iter().for_each(drop);
    }

    /// Waits until everything is applied; returns how many records there were beyond the cut.
    pub(crate) fn finish(mut self) -> Result<u64> {
        self.join()?;
        Ok(self.records)
    }

    fn join(&mut self) -> Result<()> {
        let mut result = Ok(());
        for worker in self.workers.drain(..) {
            drop(worker.work);
            match worker.thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => result = Err(error),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        result
    }
}

/// The frame's checksum is right, but its effects are not what they should be.
fn corrupt(frame: &ReplayFrame, what: &'static str) -> Error {
    Error::Corrupt { path: frame.path.to_path_buf(), offset: frame.file_offset, what }
}

impl Worker {
    fn start(keyspace: &Arc<Keyspace>, load: Option<Arc<Load>>, index: usize, count: usize) -> Option<Worker> {
        let (work, queue) = sync_channel(QUEUE);
        let keyspace = keyspace.clone();
        let thread = std::thread::Builder::new().name(format!("recovery-{index}"));
        let thread = thread.spawn(move || apply_all(&keyspace, load.as_deref(), (index, count), &queue)).ok()?;
        Some(Worker { work, items: Vec::new(), thread })
    }
}

fn apply_all(
    keyspace: &Keyspace,
    load: Option<&Load>,
    (index, count): (usize, usize),
    queue: &Receiver<Work>,
) -> Result<()> {
    let mut own = SegmentSet::EMPTY;
    (index..keyspace.segment_count()).step_by(count).for_each(|segment| own.insert(segment));
    for work in queue {
        match work {
            Work::Apply(frame, items) => {
                if let Some(load) = load.filter(|_| !keyspace.all_loaded()) {
                    let mut wanted = SegmentSet::EMPTY;
                    items.iter().for_each(|item| wanted.insert(keyspace.segment_of(item.hash)));
                    load.load_here(wanted)?;
                }
                let mut hold = keyspace.hold(SegmentSet::EMPTY, own);
                apply_items(&mut hold, load, &frame, &items)?;
            }
            Work::Barrier(done) => drop(done),
        }
    }
    Ok(())
}

fn apply_items(hold: &mut Hold<'_>, load: Option<&Load>, frame: &ReplayFrame, items: &[Item]) -> Result<()> {
    let mut freed = Freed::default();
    let id = hold.keyspace().databases.id(0);
    for (index, item) in items.iter().enumerate() {
        prefetch(hold, id, items.get(index + PREFETCH_BUCKET), items.get(index + PREFETCH_ENTRY));
        let bytes = frame.payload.get(item.offset as usize..).unwrap_or_default();
        let decoded = Effect::decode(bytes);
        let (effect, _) = decoded.map_err(|_| corrupt(frame, "an effect that was read once is not there"))?;
        fetch_for(hold, load, &effect)?;
        let applied = apply_to_key(hold, item.hash, &effect, item.version, &mut freed);
        applied.map_err(|problem| corrupt(frame, problem.0))?;
    }
    Ok(())
}

/// Brings the value into memory that an effect needs, if it was left in the block file. Its segment is held.
fn fetch_for(hold: &mut Hold<'_>, load: Option<&Load>, effect: &Effect<'_>) -> Result<()> {
    let Some((load, (database, key))) = load.zip(effect.needs_value_of()) else { return Ok(()) };
    let hash = hold.keyspace().hash(key);
    let segment = hold.keyspace().segment_of(hash);
    let cold = hold.table(segment, database).and_then(|table| table.cold_value(hash, key));
    let Some((cold, view)) = cold.zip(load.view(segment)) else { return Ok(()) };
    let entry = view.read_cold(&cold, database, key)?;
    // The same as it was: nobody else has the segment.
    let _ = hold.segment_mut(segment).make_warm(database, hash, entry);
    Ok(())
}

fn prefetch(hold: &Hold<'_>, id: crate::keyspace::DatabaseId, bucket: Option<&Item>, entry: Option<&Item>) {
    let table = |item: &Item| hold.table(hold.keyspace().segment_of(item.hash), id);
    if let Some((item, table)) = bucket.and_then(|item| Some((item, table(item)?))) {
        table.entries().prefetch_bucket(item.hash);
    }
    if let Some((item, table)) = entry.and_then(|item| Some((item, table(item)?))) {
        table.entries().prefetch_entries(item.hash);
    }
}
