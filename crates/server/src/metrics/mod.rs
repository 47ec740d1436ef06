//! What the server counts about itself: one registry that INFO, STATS, LATENCY and later a metrics endpoint read.
//!
//! ```text
//!   loop 0: LoopMetrics --\
//!   loop 1: LoopMetrics ---+-- summed when somebody asks
//!   rare events: atomics --/
//! ```
//!
//! A loop writes only its own counters, with plain loads and stores: nothing is shared on the way of a request. Time is
//! taken once before and once after a batch of pipelined commands; each command of the batch counts an equal part, so
//! the sums are exact, and every call of a batch stands in its command's histogram with what it took in the company it came
//! in.
//!
//! Not here: what the log and the keyspace count (the engine's statistics), slow commands one by one (`slowlog`).

pub mod events;
mod limits;
pub mod slowlog;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use bowline::histogram::{Histogram, HistogramSnapshot};
use limits::ERROR_CODES_MAX;
use parking_lot::{Mutex, RwLock};

/// Adds to a counter that only the calling thread writes.
#[inline]
fn bump(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(by), Relaxed);
}

/// Counters of one command on one loop.
#[derive(Debug, Default)]
pub struct CommandMetrics {
    calls: AtomicU64,
    nanoseconds: AtomicU64,
    rejected: AtomicU64,
    failed: AtomicU64,
}

/// Nanoseconds a call, command by command, of all loops: made at the first call, as most commands are never called.
type Latencies = Arc<[OnceLock<Histogram>]>;

/// Counters of one event loop. Only its loop writes them.
#[derive(Debug)]
pub struct LoopMetrics {
    /// Bytes read from clients.
    bytes_in: AtomicU64,
    /// Bytes written to clients.
    bytes_out: AtomicU64,
    /// Batches of data commands handed to the engine.
    batches: AtomicU64,
    /// Requests run, data and server commands.
    requests: AtomicU64,
    /// Lookups that found their key.
    hits: AtomicU64,
    /// Lookups that did not.
    misses: AtomicU64,
    /// Errors that the server answered by itself.
    errors: AtomicU64,
    /// Bytes of requests and replies that the loop's clients hold now.
    client_bytes: AtomicU64,
    commands: Box<[CommandMetrics]>,
    latencies: Latencies,
}

impl LoopMetrics {
    /// Counters for a table of `commands` commands.
    fn new(commands: usize, latencies: Latencies) -> LoopMetrics {
        LoopMetrics {
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            batches: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            client_bytes: AtomicU64::new(0),
            commands: (0..commands).map(|_| CommandMetrics::default()).collect(),
            latencies,
        }
    }

    /// Bytes came in.
    #[inline]
    pub fn received(&self, bytes: usize) {
        bump(&self.bytes_in, bytes as u64);
    }

    /// Bytes went out.
    #[inline]
    pub fn sent(&self, bytes: usize) {
        bump(&self.bytes_out, bytes as u64);
    }

    /// Lookups found and did not find their keys.
    pub fn looked_up(&self, hits: u64, misses: u64) {
        bump(&self.hits, hits);
        bump(&self.misses, misses);
    }

    /// A batch of data commands ran.
    #[inline]
    pub fn batch(&self) {
        bump(&self.batches, 1);
    }

    /// `calls` calls of the command at `index` of the table took `nanoseconds` together; with `track` they are also counted
    /// in its histogram.
    #[inline]
    pub fn ran(&self, index: u16, calls: u64, nanoseconds: u64, track: bool) {
        bump(&self.requests, calls);
        let Some(command) = self.commands.get(usize::from(index)) else { return };
        bump(&command.calls, calls);
        bump(&command.nanoseconds, nanoseconds);
        if track && let Some(latency) = self.latencies.get(usize::from(index)) {
            latency.get_or_init(Histogram::new).record_many(nanoseconds / calls.max(1), calls);
        }
    }

    /// A call of the command was refused before it ran (arity, authentication, transaction aborted).
    pub fn rejected(&self, index: u16) {
        if let Some(command) = self.commands.get(usize::from(index)) {
            bump(&command.rejected, 1);
        }
    }

    /// `calls` calls of the command answered an error.
    pub fn failed(&self, index: u16, calls: u64) {
        if let Some(command) = self.commands.get(usize::from(index)) {
            bump(&command.failed, calls);
        }
    }

    /// The server answered an error by itself, not the engine.
    pub fn answered_error(&self) {
        bump(&self.errors, 1);
    }

    /// The loop's clients hold so many bytes of requests and replies now.
    #[inline]
    pub fn clients_hold(&self, bytes: usize) {
        self.client_bytes.store(bytes as u64, Relaxed);
    }

    /// How often it answered an error by itself.
    pub fn errors(&self) -> u64 {
        self.errors.load(Relaxed)
    }
}

/// Sums over all loops.
#[derive(Debug, Clone, Copy, Default)]
pub struct Totals {
    /// Bytes read from clients.
    pub bytes_in: u64,
    /// Bytes written to clients.
    pub bytes_out: u64,
    /// Batches of data commands.
    pub batches: u64,
    /// Requests run.
    pub requests: u64,
    /// Lookups that found their key.
    pub hits: u64,
    /// Lookups that did not.
    pub misses: u64,
}

/// Sums of one command over all loops.
#[derive(Debug, Clone, Copy, Default)]
pub struct CommandTotals {
    /// Calls that ran.
    pub calls: u64,
    /// Nanoseconds of all calls.
    pub nanoseconds: u64,
    /// Calls refused before they ran.
    pub rejected: u64,
    /// Calls that answered an error.
    pub failed: u64,
}

/// All counters of the server.
#[derive(Debug)]
pub struct Metrics {
    /// What took long, for LATENCY.
    pub events: events::Events,
    /// Connections open now.
    pub connections: AtomicU64,
    /// Connections accepted since the start.
    pub connections_received: AtomicU64,
    /// Connections refused: limit, protected mode, no descriptor.
    pub connections_rejected: AtomicU64,
    /// Times that the system had no descriptor or memory for a connection.
    pub accept_failures: AtomicU64,
    /// Connections closed because they did not take their replies.
    pub output_limit_closes: AtomicU64,
    /// Connections closed because all of them together held too much.
    pub clients_evicted: AtomicU64,
    /// Connections closed because one request was larger than allowed.
    pub query_limit_closes: AtomicU64,
    /// Requests per second over the last second.
    pub requests_per_second: AtomicU64,
    /// AUTH with a wrong password.
    pub authentication_failures: AtomicU64,
    commands: usize,
    latencies: Latencies,
    loops: RwLock<Vec<Arc<LoopMetrics>>>,
    errors: Mutex<BTreeMap<String, u64>>,
    /// What `CONFIG RESETSTAT` subtracts.
    base: Mutex<Base>,
}

#[derive(Debug, Default)]
struct Base {
    totals: Totals,
    commands: BTreeMap<u16, CommandTotals>,
}

impl Metrics {
    /// Counters for a command table of `commands` rows.
    pub fn new(commands: usize) -> Metrics {
        Metrics {
            events: events::Events::default(),
            connections: AtomicU64::new(0),
            connections_received: AtomicU64::new(0),
            connections_rejected: AtomicU64::new(0),
            accept_failures: AtomicU64::new(0),
            output_limit_closes: AtomicU64::new(0),
            clients_evicted: AtomicU64::new(0),
            query_limit_closes: AtomicU64::new(0),
            requests_per_second: AtomicU64::new(0),
            authentication_failures: AtomicU64::new(0),
            commands,
            latencies: (0..commands).map(|_| OnceLock::new()).collect(),
            loops: RwLock::default(),
            errors: Mutex::default(),
            base: Mutex::default(),
        }
    }

    /// The counters of a new loop.
    pub fn add_loop(&self) -> Arc<LoopMetrics> {
        let metrics = Arc::new(LoopMetrics::new(self.commands, self.latencies.clone()));
        self.loops.write().push(metrics.clone());
        metrics
    }

    /// Counts an error reply by its code, the first word of its text.
    pub fn error(&self, text: &str) {
        self.errors_of(text.split([' ', '\r', '\n']).next().unwrap_or_default(), 1);
    }

    /// Counts `times` error replies of a code.
    pub fn errors_of(&self, code: &str, times: u64) {
        let mut errors = self.errors.lock();
        if let Some(count) = errors.get_mut(code) {
            *count += times;
        } else {
            let code = if errors.len() < ERROR_CODES_MAX { code } else { "OTHER" };
            *errors.entry(code.to_owned()).or_default() += times;
        }
    }

    /// Errors answered, by code.
    pub fn errors(&self) -> BTreeMap<String, u64> {
        self.errors.lock().clone()
    }

    /// Sums since the start.
    fn totals_ever(&self) -> Totals {
        let mut sum = Totals::default();
        for metrics in self.loops.read().iter() {
            sum.bytes_in += metrics.bytes_in.load(Relaxed);
            sum.bytes_out += metrics.bytes_out.load(Relaxed);
            sum.batches += metrics.batches.load(Relaxed);
            sum.requests += metrics.requests.load(Relaxed);
            sum.hits += metrics.hits.load(Relaxed);
            sum.misses += metrics.misses.load(Relaxed);
        }
        sum
    }

    /// Bytes of requests and replies that all clients hold now.
    pub fn client_bytes(&self) -> u64 {
        self.loops.read().iter().map(|metrics| metrics.client_bytes.load(Relaxed)).sum()
    }

    /// Sets the rate of requests; to be called once a second. `last` is the caller's memory of the sum before.
    pub fn measure_rate(&self, last: &mut u64) {
        let requests = self.totals_ever().requests;
        self.requests_per_second.store(requests - *last, Relaxed);
        *last = requests;
    }

    /// Sums since the start or the last [`reset`](Metrics::reset).
    pub fn totals(&self) -> Totals {
        // The base first: a reset in between would otherwise take away more than there is.
        let base = self.base.lock().totals;
        let now = self.totals_ever();
        Totals {
            bytes_in: now.bytes_in - base.bytes_in,
            bytes_out: now.bytes_out - base.bytes_out,
            batches: now.batches - base.batches,
            requests: now.requests - base.requests,
            hits: now.hits - base.hits,
            misses: now.misses - base.misses,
        }
    }

    fn command_ever(&self, index: u16) -> CommandTotals {
        let mut sum = CommandTotals::default();
        for metrics in self.loops.read().iter() {
            let Some(command) = metrics.commands.get(usize::from(index)) else { continue };
            sum.calls += command.calls.load(Relaxed);
            sum.nanoseconds += command.nanoseconds.load(Relaxed);
            sum.rejected += command.rejected.load(Relaxed);
            sum.failed += command.failed.load(Relaxed);
        }
        sum
    }

    /// Sums of a command since the start or the last reset.
    pub fn command(&self, index: u16) -> CommandTotals {
        // The base first, as in `totals`.
        let base = self.base.lock().commands.get(&index).copied();
        let mut sum = self.command_ever(index);
        if let Some(base) = base {
            sum.calls -= base.calls;
            sum.nanoseconds -= base.nanoseconds;
            sum.rejected -= base.rejected;
            sum.failed -= base.failed;
        }
        sum
    }

    /// Nanoseconds a call of a command; `None` when it was never called.
    pub fn latency(&self, index: u16) -> Option<HistogramSnapshot> {
        let latency = self.latencies.get(usize::from(index))?.get()?.snapshot();
        (latency.count > 0).then_some(latency)
    }

    /// CONFIG RESETSTAT: counts begin at zero again. Loops go on writing; what they have written is subtracted.
    pub fn reset(&self) {
        let totals = self.totals_ever();
        let rows = u16::try_from(self.commands).unwrap_or(u16::MAX);
        let commands = (0..rows).map(|index| (index, self.command_ever(index))).collect();
        *self.base.lock() = Base { totals, commands };
        self.errors.lock().clear();
        self.latencies.iter().filter_map(OnceLock::get).for_each(Histogram::reset);
        for counter in [
            &self.connections_received,
            &self.connections_rejected,
            &self.accept_failures,
            &self.output_limit_closes,
            &self.clients_evicted,
            &self.query_limit_closes,
            &self.authentication_failures,
        ] {
            counter.store(0, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_can_be_read_while_another_thread_sets_them_to_zero() {
        let metrics = Metrics::new(1);
        let (first, second) = (metrics.add_loop(), metrics.add_loop());
        std::thread::scope(|scope| {
            let resets = scope.spawn(|| {
                for _ in 0..200_000 {
                    first.ran(0, 1, 1, false);
                    metrics.reset();
                }
            });
            // A sum below what a reset in between takes away would panic here, as overflow is checked.
            while !resets.is_finished() {
                second.ran(0, 1, 1, false);
                let (totals, command) = (metrics.totals(), metrics.command(0));
                assert!(totals.requests <= 1 << 40 && command.calls <= 1 << 40);
            }
        });
    }
}
