//! Bringing the entries of the newest checkpoint into memory, segment by segment: all before the store opens (eager), or
//! while it serves (lazy).
//!
//! ```text
//!   eager:  threads load all segments --> log's tail --> the store opens
//!   lazy:   log's tail: each effect has its segment loaded first --> the store opens
//!             --> threads "load" take what is left, one after another
//!             --> a command that needs a segment parks without locks: threads "load-wanted" take that one next
//! ```
//!
//! A segment is read from its view (`Views`) into tables apart, without a lock; they are put in its place in a short hold.
//! The view is of the checkpoint that the store began with or of a later one: nothing of the segment changes before it is
//! loaded, so all of them have the same entries. With the policy "tier" values stay in the file when memory is short; where
//! these stand must be right at the moment of the hold, so a segment whose view was exchanged meanwhile is read again.
//!
//! A segment that cannot be read stops the store: nothing of it was told to anybody. Not here: which segments a command
//! needs (`exec`), what a loaded segment is (`keyspace::load`).

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::Store;
use super::base::damage;
use super::eviction::MemoryLimit;
use super::fetch::{Fetch, Waker};
use super::options::Options;
use crate::blocks::View;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::keyspace::cold;
use crate::keyspace::entry::Entry;
use crate::keyspace::{DatabaseId, EvictionPolicy, Keyspace, SegmentSet};
use crate::limits::{LOAD_THREADS_MAX, LOAD_WANTED_THREADS};
use crate::log::Progress;

/// What an entry takes in memory whose value stays in the file, with a key of some 16 bytes.
const COLD_ENTRY_BYTES: usize = 50;
/// How often an eager load says how far it is.
const REPORT_EVERY: Duration = Duration::from_millis(20);
/// How often a lazy one tells the log of the process.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// Entries after which a loading thread says how far it is.
const REPORT_ENTRIES: u64 = 4096;

/// Of each segment: the checkpoint that its entries are to be read from, or that the locations of its cold values are
/// about. Exchanged only while the segment is held for changes.
pub(super) type Views = Arc<[Mutex<Option<View>>]>;

/// How far a lazy start is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadStatistics {
    /// Segments of the store.
    pub segments: usize,
    /// Those whose entries are in memory.
    pub segments_done: usize,
    /// About how many bytes of records have been read.
    pub bytes_done: u64,
    /// How many there are.
    pub bytes_total: u64,
    /// How long the rest takes at the pace so far; zero when that cannot be told.
    pub left: Duration,
}

impl LoadStatistics {
    /// Whether everything is in memory.
    pub fn is_done(&self) -> bool {
        self.segments_done == self.segments
    }
}

/// A load on its way, shared by the threads that do it and those that wait for it.
pub(crate) struct Load {
    keyspace: Arc<Keyspace>,
    views: Views,
    rooms: Vec<(DatabaseId, usize)>,
    path: PathBuf,
    /// When the entries of a segment take so many bytes, further values stay in the file.
    segment_bytes_max: Option<usize>,
    entries: AtomicU64,
    entries_total: u64,
    bytes_total: u64,
    clock: Arc<dyn Clock>,
    began: Duration,
    stopped: AtomicBool,
    state: Mutex<State>,
    /// A segment is there, or wanted, or the load has stopped.
    changed: Condvar,
}

/// Where a segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    InFile,
    Loading,
    Loaded,
}

struct State {
    stages: Vec<Stage>,
    /// Segments before this one are not in the file only, unless loading them was given up.
    next: usize,
    /// Segments that somebody waits for; they come first.
    wanted: VecDeque<usize>,
    waiting: Vec<(usize, Arc<Fetch>)>,
    /// Why a segment could not be loaded.
    failure: Option<String>,
    told_at: Duration,
    told_end: bool,
}

impl Load {
    /// A load from `view`; of nothing without it.
    pub(super) fn new(keyspace: &Arc<Keyspace>, view: Option<View>, path: &Path, options: &Options) -> Load {
        let view = view.filter(|view| view.superblock().entries > 0);
        let segments = keyspace.segment_count();
        let stage = if view.is_some() { Stage::InFile } else { Stage::Loaded };
        if let Some(view) = &view {
            keyspace.await_segments(view.database_entries());
        }
        let entries_total = view.as_ref().map_or(0, |view| view.superblock().entries);
        Load {
            keyspace: keyspace.clone(),
            views: (0..segments).map(|_| Mutex::new(view.clone())).collect(),
            rooms: view.as_ref().map_or_else(Vec::new, |view| rooms(view, segments)),
            path: path.to_owned(),
            segment_bytes_max: segment_bytes_max(options.memory_limit, entries_total, segments),
            entries: AtomicU64::new(0),
            entries_total,
            bytes_total: view.as_ref().map_or(0, |view| view.superblock().live_bytes),
            clock: options.clock.clone(),
            began: options.clock.monotonic(),
            stopped: AtomicBool::new(false),
            state: Mutex::new(State {
                stages: vec![stage; segments],
                next: 0,
                wanted: VecDeque::new(),
                waiting: Vec::new(),
                failure: None,
                told_at: options.clock.monotonic(),
                told_end: false,
            }),
            changed: Condvar::new(),
        }
    }

    /// See [`Views`].
    pub(super) fn views(&self) -> Views {
        self.views.clone()
    }

    /// The checkpoint that the cold values of a segment, which is held, are in.
    pub(crate) fn view(&self, segment: usize) -> Option<View> {
        self.views.get(segment).and_then(|view| view.lock().clone())
    }

    /// Whether segments that come may have values that stay in the file.
    pub(super) fn may_leave_values(&self) -> bool {
        self.segment_bytes_max.is_some() && !self.keyspace.all_loaded()
    }

    /// How far it is.
    pub(super) fn statistics(&self) -> LoadStatistics {
        let segments = self.keyspace.segment_count();
        let Progress { bytes_done, bytes_total } = self.progress();
        let elapsed = self.clock.monotonic().saturating_sub(self.began);
        let left = match bytes_done {
            0 => Duration::ZERO,
            done => elapsed.mul_f64(bytes_total.saturating_sub(done) as f64 / done as f64),
        };
        let unloaded = self.keyspace.unloaded();
        let (bytes_done, left) = if unloaded == 0 { (bytes_total, Duration::ZERO) } else { (bytes_done, left) };
        LoadStatistics { segments, segments_done: segments - unloaded, bytes_done, bytes_total, left }
    }

    fn progress(&self) -> Progress {
        let share = self.entries.load(Relaxed) as f64 / self.entries_total.max(1) as f64;
        let bytes_total = self.bytes_total;
        Progress { bytes_done: (bytes_total as f64 * share.min(1.0)) as u64, bytes_total }
    }

    /// Loads everything that is left, on several threads if `parallel`.
    pub(crate) fn load_all(&self, parallel: bool, progress: &dyn Fn(Progress)) -> Result<()> {
        let rest = || while_some(|| self.next().map(|segment| self.load(segment)));
        if !parallel || self.keyspace.all_loaded() {
            rest()?;
        } else {
            thread::scope(|scope| {
                let workers: Vec<_> = (0..threads()).map(|_| scope.spawn(rest)).collect();
                while !workers.iter().all(thread::ScopedJoinHandle::is_finished) {
                    progress(self.progress());
                    thread::sleep(REPORT_EVERY);
                }
                workers.into_iter().try_for_each(|worker| match worker.join() {
                    Ok(result) => result,
                    Err(panic) => std::panic::resume_unwind(panic),
                })
            })?;
        }
        // What another thread was loading.
        self.load_here(self.keyspace.every_segment())
    }

    /// Loads segments on the calling thread; waits for those that other threads are loading.
    pub(crate) fn load_here(&self, segments: SegmentSet) -> Result<()> {
        self.keyspace.unloaded_of(segments).iter().try_for_each(|segment| {
            let mut state = self.state.lock();
            loop {
                state.check(&self.stopped)?;
                match state.stages.get(segment) {
                    Some(Stage::InFile) => break,
                    Some(Stage::Loading) => self.changed.wait(&mut state),
                    Some(Stage::Loaded) | None => return Ok(()),
                }
            }
            state.set(segment, Stage::Loading);
            drop(state);
            self.load(segment)
        })
    }

    /// The next segment for the calling thread to load: one that is wanted, else any. `None` when none is left.
    fn next(&self) -> Option<usize> {
        let mut state = self.state.lock();
        state.check(&self.stopped).ok()?;
        let next = state.next_wanted().or_else(|| {
            let rest = state.stages.get(state.next..)?;
            Some(state.next + rest.iter().position(|stage| *stage == Stage::InFile)?)
        });
        if let Some(segment) = next {
            state.set(segment, Stage::Loading);
        }
        next
    }

    /// As [`Load::next`], for a thread that loads only what is wanted, and waits for that.
    fn next_wanted(&self) -> Option<usize> {
        let mut state = self.state.lock();
        loop {
            if state.check(&self.stopped).is_err() || self.keyspace.all_loaded() {
                return None;
            }
            if let Some(segment) = state.next_wanted() {
                state.set(segment, Stage::Loading);
                return Some(segment);
            }
            self.changed.wait(&mut state);
        }
    }

    /// Loads a segment whose stage says so.
    fn load(&self, segment: usize) -> Result<()> {
        let result = self.try_load(segment);
        let done = {
            let mut state = self.state.lock();
            let stage = if result.is_ok() { Stage::Loaded } else { Stage::InFile };
            state.set(segment, stage);
            if let Err(error) = &result {
                state.failure.get_or_insert_with(|| error.to_string());
            }
            let all = result.is_err();
            state.waiting.extract_if(.., |(wanted, _)| all || *wanted == segment).collect::<Vec<_>>()
        };
        self.changed.notify_all();
        done.into_iter().for_each(|(_, fetch)| fetch.one_done());
        result
    }

    fn try_load(&self, segment: usize) -> Result<()> {
        let keyspace = &self.keyspace;
        let first = segment.checked_sub(1).and_then(|before| keyspace.hash_end(before)).unwrap_or(0);
        let last = keyspace.hash_end(segment).map_or(u64::MAX, |end| end - 1);
        loop {
            let Some(view) = self.view(segment) else {
                assert!(keyspace.is_loaded(segment), "a segment in the file has a view of it");
                return Ok(());
            };
            let mut loader = keyspace.loader(segment, &self.rooms);
            let mut loaded = 0;
            let read = view.load(first..=last, keyspace.hasher(), &mut |found| {
                let record = found.record;
                let mut entry = Entry::new(record.key, record.value, record.version, record.created, record.expire_at);
                if self.segment_bytes_max.is_some_and(|most| loader.bytes() > most) {
                    entry = cold::leave_in_file(entry, found.location);
                }
                loaded += 1;
                if loaded % REPORT_ENTRIES == 0 {
                    self.entries.fetch_add(REPORT_ENTRIES, Relaxed);
                    // Loaded already: everything was emptied meanwhile.
                    if self.stopped.load(Relaxed) || keyspace.is_loaded(segment) {
                        return Err(Error::Closed);
                    }
                }
                loader.add(record.database, found.hash, entry).map_err(|problem| damage(&self.path, problem.0))
            });
            if !keyspace.is_loaded(segment) {
                read?;
            }
            let mut unused = None;
            let put_in = loader.finish_if(|cold| {
                let Some(now) = self.views.get(segment) else { return false };
                let mut now = now.lock();
                if cold == 0 {
                    // Nothing of it is in the file only any more.
                    unused = now.take();
                }
                cold == 0 || now.as_ref().is_some_and(|now| now.is_same(&view))
            });
            // The last reader of a checkpoint gives its tables back.
            drop(unused);
            if put_in.map_err(|problem| damage(&self.path, problem.0))? {
                self.entries.fetch_add(loaded % REPORT_ENTRIES, Relaxed);
                return Ok(());
            }
            self.entries.fetch_sub(loaded - loaded % REPORT_ENTRIES, Relaxed);
        }
    }

    /// Has segments loaded before others. `fetch` learns of each; without it nobody waits for them.
    fn want(&self, segments: SegmentSet, fetch: Option<&Arc<Fetch>>) {
        let mut there = 0;
        let mut state = self.state.lock();
        let is_over = state.check(&self.stopped).is_err();
        for segment in segments.iter() {
            let stage = state.stages.get(segment).copied();
            if is_over || stage == Some(Stage::Loaded) {
                there += 1;
                continue;
            }
            if stage == Some(Stage::InFile) {
                match fetch {
                    Some(_) => state.wanted.push_front(segment),
                    None if !state.wanted.contains(&segment) => state.wanted.push_back(segment),
                    None => {}
                }
            }
            state.waiting.extend(fetch.map(|fetch| (segment, fetch.clone())));
        }
        drop(state);
        self.changed.notify_all();
        if let Some(fetch) = fetch {
            (0..there).for_each(|_| fetch.one_done());
        }
    }

    /// Ends the load; who waits for it is woken.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Relaxed);
        let waiting = std::mem::take(&mut self.state.lock().waiting);
        self.changed.notify_all();
        waiting.into_iter().for_each(|(_, fetch)| fetch.one_done());
    }

    /// Tells the log of the process how far it is, now and then, and once that it is over.
    fn tell(&self) {
        let now = self.clock.monotonic();
        let seconds = now.saturating_sub(self.began).as_secs_f64();
        let mut state = self.state.lock();
        let is_over = state.stages.iter().all(|stage| *stage == Stage::Loaded);
        if state.told_end || !is_over && now.saturating_sub(state.told_at) < TELL_EVERY {
            return;
        }
        state.told_at = now;
        state.told_end = is_over;
        drop(state);
        let LoadStatistics { segments, segments_done, bytes_done, bytes_total, left } = self.statistics();
        if is_over {
            tracing::info!(entries = self.entries_total, seconds, "all entries are in memory");
        } else {
            let left = left.as_secs_f64().ceil();
            tracing::info!(segments_done, segments, bytes_done, bytes_total, left, "loads entries while serving");
        }
    }
}

impl State {
    fn check(&self, stopped: &AtomicBool) -> Result<()> {
        if stopped.load(Relaxed) {
            return Err(Error::Closed);
        }
        self.failure.clone().map_or(Ok(()), |cause| Err(Error::NotLoaded { cause }))
    }

    fn set(&mut self, segment: usize, stage: Stage) {
        if let Some(slot) = self.stages.get_mut(segment) {
            *slot = stage;
        }
        while self.stages.get(self.next).is_some_and(|stage| *stage != Stage::InFile) {
            self.next += 1;
        }
    }

    fn next_wanted(&mut self) -> Option<usize> {
        while let Some(segment) = self.wanted.pop_front() {
            if self.stages.get(segment) == Some(&Stage::InFile) {
                return Some(segment);
            }
        }
        None
    }
}

impl Store {
    /// How far a lazy start is; done when it was eager.
    pub fn loading(&self) -> LoadStatistics {
        self.shared.load.statistics()
    }

    /// Has these segments in memory, on the calling thread; others are loaded by other threads meanwhile. Before a hold.
    pub(crate) fn load_segments(&self, segments: SegmentSet) -> Result<()> {
        let missing = self.keyspace().unloaded_of(segments);
        if missing.is_empty() {
            return Ok(());
        }
        self.load_soon(missing);
        self.check_load(self.shared.load.load_here(missing))
    }

    /// Has segments loaded by other threads, which call `wake` when the last one is there.
    ///
    /// # Errors
    /// Why that cannot be.
    pub(crate) fn fetch_segments(&self, segments: SegmentSet, wake: Waker) -> Result<Arc<Fetch>> {
        let load = &self.shared.load;
        load.state.lock().check(&load.stopped)?;
        let fetch = Arc::new(Fetch::new(segments.iter().count(), wake));
        if !self.options().threads {
            self.load_segments(segments)?;
        }
        load.want(segments, Some(&fetch));
        Ok(fetch)
    }

    /// Lets threads load these segments before others.
    pub(crate) fn load_soon(&self, segments: SegmentSet) {
        if self.options().threads {
            self.shared.load.want(self.keyspace().unloaded_of(segments), None);
        }
    }

    /// Loads one segment, if any is left; for a store without threads.
    pub(super) fn load_one(&self) -> bool {
        let load = &self.shared.load;
        let Some(segment) = (!self.keyspace().all_loaded()).then(|| load.next()).flatten() else { return false };
        self.check_load(load.load(segment)).is_ok()
    }

    /// A segment that cannot be loaded stops the store, as it would have stopped an eager start.
    fn check_load(&self, result: Result<()>) -> Result<()> {
        let Err(error) = result else { return Ok(()) };
        if matches!(error, Error::Closed | Error::NotLoaded { .. }) {
            return Err(error);
        }
        tracing::error!(%error, "entries cannot be loaded; the store stops");
        let cause = error.to_string();
        self.shared.log.fail(error);
        Err(Error::NotLoaded { cause })
    }

    /// Starts the threads that load what is left.
    pub(super) fn start_loading(&self) -> Result<()> {
        let load = &self.shared.load;
        if self.keyspace().all_loaded() {
            return Ok(());
        }
        let background = (0..threads()).map(|_| ("load", false));
        for (name, only_wanted) in background.chain((0..LOAD_WANTED_THREADS).map(|_| ("load-wanted", true))) {
            let (load, weak) = (load.clone(), Arc::downgrade(&self.shared));
            let run = move || {
                if !only_wanted {
                    // Whoever waits for a reply goes first.
                    let _ = rustix::process::nice(super::background::NICE);
                }
                let next = || if only_wanted { load.next_wanted() } else { load.next() };
                while let Some(segment) = next() {
                    let result = load.load(segment);
                    if result.is_ok() {
                        load.tell();
                    } else if let Some(shared) = weak.upgrade() {
                        let _ = Store { shared }.check_load(result);
                    }
                }
                // The last one may have been loaded by somebody who needed it.
                load.tell();
            };
            let thread = thread::Builder::new().name(name.to_owned()).spawn(run);
            let thread = thread.map_err(|source| Error::io("start a thread for", &self.options().directory, source))?;
            self.shared.background.adopt(thread);
        }
        Ok(())
    }
}

/// Threads that load what nobody waits for.
fn threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(LOAD_THREADS_MAX)
}

/// Entries of each database that a segment will hold, with some to spare.
fn rooms(view: &View, segments: usize) -> Vec<(DatabaseId, usize)> {
    let of_segment = |entries: u64| usize::try_from(entries).unwrap_or(usize::MAX) / segments;
    view.database_entries().into_iter().map(|(id, entries)| (id, of_segment(entries))).collect()
}

/// With the policy "tier" values stay in the file once three quarters of the limit on memory are used, or will be.
fn segment_bytes_max(limit: MemoryLimit, entries: u64, segments: usize) -> Option<usize> {
    let MemoryLimit { bytes, policy } = limit;
    (policy == EvictionPolicy::Tier && bytes > 0).then(|| {
        let entries = usize::try_from(entries).unwrap_or(usize::MAX);
        (bytes / 4 * 3).saturating_sub(entries.saturating_mul(COLD_ENTRY_BYTES)) / segments
    })
}

/// Does steps until there is none, or one fails.
fn while_some(mut step: impl FnMut() -> Option<Result<()>>) -> Result<()> {
    while let Some(done) = step() {
        done?;
    }
    Ok(())
}
