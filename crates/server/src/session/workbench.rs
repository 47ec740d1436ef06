//! What an event loop keeps for its sessions: the executor with its scratch, the settings in force, the counters, and
//! the vectors that every batch uses again. A session borrows it for a turn, so idle sessions own next to nothing.

use std::sync::Arc;
use std::time::Instant;

use bowline::command::Flags;
use bowline::exec::{Executor, Failure, Planned, Timing};
use bowline::histogram::HistogramSnapshot;
use bowline::{Durability, Waker};
use bowline_resp::{ArgRange, Args, RequestLimits};

use super::Session;
use super::limits::{ARGS_MAX, INLINE_BYTES_MAX};
use crate::commands::table::{self, Entry};
use crate::metrics::LoopMetrics;
use crate::metrics::events::{Event, Sample, longest_since};
use crate::metrics::slowlog::{Slow, shorten};
use crate::run::level;
use crate::settings::Settings;
use crate::state::Server;

/// The tools of one event loop.
pub struct Workbench {
    /// What all loops share.
    pub server: Arc<Server>,
    /// Unix time in milliseconds at the loop's last wake-up.
    pub now_ms: u64,
    /// The durability level of connections that did not choose one.
    pub default_level: Durability,
    pub(crate) settings: Arc<Settings>,
    settings_generation: u64,
    pub(crate) metrics: Arc<LoopMetrics>,
    /// None while the store is loaded.
    executor: Option<Executor>,
    pub(crate) limits: RequestLimits,
    pub(super) ranges: Vec<ArgRange>,
    pub(super) batch: Batch,
    /// Reply bytes of a session above which it runs nothing.
    pub(super) reply_bytes_max: usize,
    /// What takes as long stands in SLOWLOG.
    slow_nanoseconds: u64,
    /// What takes as long is an event of LATENCY.
    event_nanoseconds: u64,
    track_latency: bool,
}

/// Thresholds of SLOWLOG below this are about small commands, and each command is timed by itself, which
/// costs a fifth of the speed of pipelines of GETs in the executor.
const SMALL_COMMAND_NANOSECONDS: u64 = 1_000_000;

/// A run of decoded data commands.
#[derive(Default)]
pub(super) struct Batch {
    /// What the executor is given.
    pub(super) planned: Vec<Planned>,
    /// The table entry of each.
    pub(super) entries: Vec<&'static Entry>,
    /// Where in the input each ends.
    pub(super) ends: Vec<usize>,
}

impl Batch {
    pub(super) fn clear(&mut self) {
        self.planned.clear();
        self.entries.clear();
        self.ends.clear();
    }
}

impl Workbench {
    /// The tools of a new loop.
    pub fn new(server: Arc<Server>) -> Workbench {
        let settings = server.settings.current();
        let mut bench = Workbench {
            now_ms: server.now_ms(),
            default_level: level(settings.durability),
            settings_generation: 0,
            metrics: server.metrics.add_loop(),
            executor: server.opened().map(Executor::new),
            limits: RequestLimits::default(),
            ranges: Vec::new(),
            batch: Batch::default(),
            reply_bytes_max: usize::MAX,
            slow_nanoseconds: u64::MAX,
            event_nanoseconds: u64::MAX,
            track_latency: true,
            settings,
            server,
        };
        bench.refresh_settings();
        bench
    }

    /// The data is there: commands on it run from now on. `waker` is called by other threads when values that a session
    /// waits for are there.
    pub fn take_store(&mut self, waker: Waker) {
        let mut executor = Executor::new(self.server.store());
        executor.set_waker(waker);
        self.executor = Some(executor);
        self.apply_size_limits();
    }

    /// Whether the data is still loaded, so that commands on it are refused.
    #[inline]
    pub fn is_loading(&self) -> bool {
        self.executor.is_none()
    }

    /// What runs commands on data. Only for requests that are refused while [`Workbench::is_loading`].
    #[inline]
    pub(crate) fn executor(&mut self) -> &mut Executor {
        let Some(executor) = &mut self.executor else { unreachable!("what needs data is refused while it is loaded") };
        executor
    }

    /// Lets batches stop between two commands when more than `bytes` of replies wait.
    #[inline]
    pub(super) fn limit_replies(&mut self, bytes: usize) {
        if let Some(executor) = &mut self.executor {
            executor.set_reply_bytes_max(bytes);
        }
    }

    /// The settings in force, as of this turn.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.clone()
    }

    /// Takes over settings that changed. Called at every wake-up; costs one load when nothing did.
    #[inline]
    pub fn refresh_settings(&mut self) {
        let generation = self.server.settings.generation();
        if generation != self.settings_generation {
            self.settings_generation = generation;
            self.take_settings();
        }
    }

    fn take_settings(&mut self) {
        self.settings = self.server.settings.current();
        let settings = &self.settings;
        self.default_level = level(settings.durability);
        let bulk_bytes_max = u32::try_from(settings.max_value_size).unwrap_or(u32::MAX);
        self.limits = RequestLimits {
            args_max: ARGS_MAX,
            bulk_bytes_max,
            inline_bytes_max: INLINE_BYTES_MAX,
            authenticated: true,
        };
        self.reply_bytes_max = usize::try_from(settings.reply_bytes_limit()).unwrap_or(usize::MAX);
        let microseconds = settings.slowlog_log_slower_than;
        self.slow_nanoseconds = u64::try_from(microseconds).map_or(u64::MAX, |slow| slow.saturating_mul(1000));
        self.event_nanoseconds = match settings.latency_monitor_threshold {
            0 => u64::MAX,
            milliseconds => milliseconds.saturating_mul(1_000_000),
        };
        self.track_latency = settings.latency_tracking;
        self.apply_size_limits();
    }

    /// Lets the store know the longest key and value; every loop says the same.
    fn apply_size_limits(&self) {
        if let Some(store) = self.server.opened() {
            let bytes = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
            store.set_size_limits(bytes(self.settings.max_key_size), bytes(self.settings.max_value_size));
        }
    }

    /// Takes over what the executor counted since the last wake-up.
    pub fn count_lookups(&mut self) {
        let Some(executor) = &mut self.executor else { return };
        let (hits, misses) = executor.take_hits_and_misses();
        if hits + misses > 0 {
            self.metrics.looked_up(hits, misses);
        }
        self.count_failures();
    }

    /// Takes over which data commands answered an error. After every batch, as the executor keeps a bounded number.
    #[inline]
    pub(super) fn count_failures(&mut self) {
        let failures = self.executor().take_failures();
        if !failures.is_empty() {
            self.count_errors(&failures);
        }
    }

    #[cold]
    fn count_errors(&self, failures: &[Failure]) {
        for alike in failures.chunk_by(|one, next| one.code == next.code && std::ptr::eq(one.command, next.command)) {
            let [Failure { command, code }, ..] = alike else { continue };
            self.server.metrics.errors_of(&code_text(code), alike.len() as u64);
            if let Some(entry) = table::lookup(command.info.name.as_bytes()) {
                self.metrics.failed(entry.index, alike.len() as u64);
            }
        }
    }

    /// Counts an error that the server answers by itself, with whatever text.
    pub(super) fn count_error(&self, text: &str) {
        self.metrics.answered_error();
        self.server.metrics.error(text);
    }

    /// Answers an error on a session and counts it.
    pub fn failed(&self, session: &mut Session, text: &str) {
        self.count_error(text);
        session.reply().error(text);
    }

    /// Lets the executor time batches as the thresholds ask for: a low one is about small commands too.
    #[inline]
    pub(super) fn time_batches(&mut self) {
        let timing = match self.slow_nanoseconds.min(self.event_nanoseconds) {
            u64::MAX => Timing::Off,
            0..SMALL_COMMAND_NANOSECONDS => Timing::Every,
            _ => Timing::Heavy,
        };
        self.executor().set_timing(timing);
    }

    /// Whether SLOWLOG or LATENCY is to note what took so long.
    #[inline]
    pub(super) fn is_long(&self, nanoseconds: u64) -> bool {
        nanoseconds >= self.slow_nanoseconds.min(self.event_nanoseconds)
    }

    /// Counts the first `done` commands of a batch that began at `began`; returns what it took.
    #[inline]
    pub(super) fn count_batch(&self, batch: &Batch, done: usize, began: Instant) -> u64 {
        let nanoseconds = began.elapsed().as_nanos() as u64;
        let each = nanoseconds / done.max(1) as u64;
        let mut entries = batch.entries.iter().take(done).copied().peekable();
        self.metrics.batch();
        // Neighbours are mostly the same command: one update for all of them.
        while let Some(entry) = entries.next() {
            let mut calls = 1;
            while entries.next_if(|next| next.index == entry.index).is_some() {
                calls += 1;
            }
            self.metrics.ran(entry.index, calls, each * calls, self.track_latency);
        }
        nanoseconds
    }

    /// Counts one call of a queued command.
    pub(super) fn count_call(&self, entry: &Entry, nanoseconds: u64) {
        self.metrics.ran(entry.index, 1, nanoseconds, self.track_latency);
    }

    /// Counts one line of the text protocol.
    pub(crate) fn count_text(&self, entry: &Entry, began: Instant) {
        self.count_call(entry, began.elapsed().as_nanos() as u64);
    }

    /// Counts one call.
    pub(super) fn count_single(&self, entry: &Entry, began: Instant, session: &Session, args: Args<'_>) {
        let nanoseconds = began.elapsed().as_nanos() as u64;
        self.metrics.ran(entry.index, 1, nanoseconds, self.track_latency);
        if self.is_long(nanoseconds) {
            self.note_long(session, entry, nanoseconds, || shorten(args.iter().zip(args.lens()), 0));
        }
    }

    /// Notes a command that took long where it is to be noted.
    #[cold]
    pub(super) fn note_long(
        &self,
        session: &Session,
        entry: &Entry,
        nanoseconds: u64,
        args: impl FnOnce() -> Vec<Vec<u8>>,
    ) {
        if nanoseconds >= self.event_nanoseconds {
            let event = if entry.info.flags.has(Flags::FAST) { Event::FastCommand } else { Event::Command };
            self.note_event(event, nanoseconds);
        }
        if nanoseconds < self.slow_nanoseconds {
            return;
        }
        let slow = Slow {
            id: 0,
            at_seconds: self.now_ms / 1000,
            microseconds: nanoseconds / 1000,
            args: args(),
            peer: session.client.peer.clone(),
            name: session.client.names.lock().name.clone(),
        };
        self.server.slowlog.add(slow, self.settings.slowlog_max_len);
    }
}

/// What the syncs of the log took, as LATENCY saw it the last time.
pub type SyncsSeen = Option<HistogramSnapshot>;

impl Workbench {
    fn note_event(&self, event: Event, nanoseconds: u64) {
        let sample = Sample { at_seconds: self.now_ms / 1000, milliseconds: nanoseconds / 1_000_000 };
        self.server.metrics.events.note(event, sample);
    }

    /// Makes an event of the longest sync of the log since the last call, if it took long enough. One loop calls this once
    /// a second, so the thread that syncs has nothing to do with it.
    pub fn watch_syncs(&self, seen: &mut SyncsSeen) {
        let watched = self.event_nanoseconds != u64::MAX;
        let now = self.server.opened().filter(|_| watched).map(|store| store.statistics().log.sync_latency_us);
        if let (Some(before), Some(now)) = (seen.as_ref(), now.as_ref())
            && let Some(microseconds) = longest_since(before, now)
            && microseconds.saturating_mul(1000) >= self.event_nanoseconds
        {
            self.note_event(Event::Sync, microseconds.saturating_mul(1000));
        }
        *seen = now;
    }
}

/// An error's code without the zeros that fill it up.
fn code_text(code: &[u8]) -> String {
    let len = code.iter().position(|byte| *byte == 0).unwrap_or(code.len());
    String::from_utf8_lossy(code.get(..len).unwrap_or(code)).into_owned()
}
