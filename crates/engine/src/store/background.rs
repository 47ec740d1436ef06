//! What goes on beside the commands: writing the log, removing what has expired, freeing memory.

use super::Store;
use super::eviction::Round;
use crate::apply::Freed;
use crate::error::{Error, Result};
use crate::limits::{CHECKPOINT_TURN, MEMORY_LOOK};
use crate::log::{self, FilePreparer, Log, LogThreads, LogWriter, Step};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The sleeper looks at least this often.
const EXPIRY_PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long it waits when the log has no room for its removals.
const EXPIRY_RETRY: Duration = Duration::from_millis(10);

/// How long the thread that evicts sleeps while there is no limit; a new limit wakes it.
const UNLIMITED_PAUSE: Duration = Duration::from_secs(1);

/// How often it is looked whether a checkpoint is due.
const CHECKPOINT_LOOK: Duration = Duration::from_millis(100);
/// How much threads stand back whose work nobody waits for, as `nice` counts it.
pub(super) const NICE: i32 = 10;

/// The log's state machines: on threads of their own, or turned by hand.
enum LogMachines {
    Threads(LogThreads),
    ByHand(Box<(LogWriter, FilePreparer)>),
}

/// Memory to be freed, the bytes it takes, and where these are counted until it is.
struct ToFree {
    freed: Freed,
    bytes: usize,
    counted: Arc<AtomicUsize>,
}

impl Drop for ToFree {
    fn drop(&mut self) {
        drop(std::mem::take(&mut self.freed));
        self.counted.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The background's threads, or the state machines in their place.
pub(super) struct Background {
    log: Mutex<Option<LogMachines>>,
    free: Mutex<Option<Sender<ToFree>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    closing: AtomicBool,
}

impl Background {
    pub(super) fn new(writer: LogWriter, files: FilePreparer, log: &Log, threads: bool) -> Result<Background> {
        let machines = if threads {
            LogMachines::Threads(log::spawn(writer, files, log)?)
        } else {
            LogMachines::ByHand(Box::new((writer, files)))
        };
        Ok(Background {
            log: Mutex::new(Some(machines)),
            free: Mutex::new(None),
            threads: Mutex::new(Vec::new()),
            closing: AtomicBool::new(false),
        })
    }

    /// Starts the threads "expiry", "memory", "eviction" and "checkpoint".
    pub(super) fn start(&self, store: &Store) -> Result<()> {
        let (sender, receiver) = channel();
        *self.free.lock() = Some(sender);
        let weak = std::sync::Arc::downgrade(&store.shared);
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            thread::Builder::new()
                .name(name.to_owned())
                .spawn(run)
                .map_err(|source| Error::io("start a thread for", &store.shared.options.directory, source))
        };
        let mut threads = self.threads.lock();
        threads.push(spawn("expiry", Box::new(move || remove_expired(&weak)))?);
        let weak = std::sync::Arc::downgrade(&store.shared);
        threads.push(spawn("eviction", Box::new(move || evict(&weak)))?);
        threads.push(spawn("memory", Box::new(move || free_memory(receiver)))?);
        let weak = std::sync::Arc::downgrade(&store.shared);
        threads.push(spawn("checkpoint", Box::new(move || write_checkpoints(&weak)))?);
        Ok(())
    }

    /// Whether the store is being closed.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// Has a thread that was started later waited for when the store closes; it ends by itself then.
    pub(super) fn adopt(&self, thread: JoinHandle<()>) {
        self.threads.lock().push(thread);
    }

    /// Drops memory elsewhere, or here when there is no thread for it. Until that is done its bytes are part of `counted`.
    pub(super) fn free(&self, freed: Freed, counted: &Arc<AtomicUsize>) {
        let bytes = freed.bytes();
        counted.fetch_add(bytes, Ordering::Relaxed);
        let freed = ToFree { freed, bytes, counted: counted.clone() };
        let unsent = match &*self.free.lock() {
            Some(sender) => sender.send(freed).map_err(|unsent| unsent.0).err(),
            None => Some(freed),
        };
        drop(unsent);
    }

    /// One step of the log's machines, when they have no threads.
    pub(super) fn turn(&self, now: Duration) -> bool {
        match &mut *self.log.lock() {
            Some(LogMachines::ByHand(machines)) => {
                let wrote = machines.0.step(now) == Step::Worked;
                let prepared = machines.1.step() == Step::Worked;
                wrote || prepared
            }
            Some(LogMachines::Threads(_)) | None => false,
        }
    }

    /// Writes and syncs everything, stops all threads. The second call does nothing.
    pub(super) fn close(&self, log: &Log, now: Duration) -> Result<()> {
        self.closing.store(true, Ordering::SeqCst);
        let machines = self.log.lock().take();
        let closed = match machines {
            Some(LogMachines::Threads(threads)) => threads.close(),
            Some(LogMachines::ByHand(mut machines)) => close_by_hand(log, &mut machines, now),
            None => Ok(()),
        };
        self.free.lock().take();
        loop {
            // Waited for without the lock: a thread that starts another one needs it before it ends.
            let threads = std::mem::take(&mut *self.threads.lock());
            if threads.is_empty() {
                return closed;
            }
            for thread in threads {
                thread.thread().unpark();
                // The last clone may be dropped by one of these threads; it cannot wait for itself.
                if thread.thread().id() != thread::current().id() {
                    let _ = thread.join();
                }
            }
        }
    }
}

pub(super) fn close_by_hand(log: &Log, (writer, files): &mut (LogWriter, FilePreparer), now: Duration) -> Result<()> {
    log.begin_close();
    while !writer.is_closed() {
        if log.is_poisoned() {
            return Err(Error::Poisoned);
        }
        let worked = [writer.step(now), files.step()].contains(&Step::Worked);
        assert!(worked || writer.is_closed(), "a log that is closing makes progress");
    }
    files.finish_archive();
    Ok(())
}

impl Drop for super::Shared {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::error!(%error, "the store was dropped and its last writes could not be made durable");
        }
    }
}

fn free_memory(freed: Receiver<ToFree>) {
    freed.into_iter().for_each(drop);
}

fn remove_expired(store: &Weak<super::Shared>) {
    let mut first = true;
    while let Some(shared) = store.upgrade() {
        let store = Store { shared };
        let keyspace = &store.shared.keyspace;
        if std::mem::take(&mut first) {
            keyspace.alarm.wake_this_thread();
        }
        if store.shared.background.is_closing() {
            return;
        }
        store.remove_all_due();
        keyspace.alarm.planned_for(u64::MAX);
        let deadline = (0..keyspace.segment_count()).map(|segment| keyspace.deadline(segment)).min();
        let (deadline, now_ms) = (deadline.unwrap_or(u64::MAX), store.now_ms());
        keyspace.alarm.planned_for(deadline);
        let pause = match deadline.checked_sub(now_ms) {
            Some(ms) if ms > 0 => Duration::from_millis(ms).min(EXPIRY_PAUSE_MAX),
            _ => EXPIRY_RETRY,
        };
        drop(store);
        thread::park_timeout(pause);
    }
}

/// Asks the allocator how much memory is in use and evicts what is over the limit, while there is one.
fn evict(store: &Weak<super::Shared>) {
    let mut round = Round::default();
    while let Some(shared) = store.upgrade() {
        let store = Store { shared };
        let memory = &store.shared.memory;
        memory.wake_this_thread();
        if store.shared.background.is_closing() {
            return;
        }
        let pause = if memory.is_limited() {
            store.evict_down();
            store.move_together(&mut round);
            MEMORY_LOOK
        } else {
            UNLIMITED_PAUSE
        };
        drop(store);
        thread::park_timeout(pause);
    }
}

/// Has whoever waits for this core go first when it has been in use for a turn. A system call every turn: where nobody waits
/// it costs less than a hundredth of the time.
fn stand_back(worked_since: &mut Instant) {
    if worked_since.elapsed() >= CHECKPOINT_TURN {
        thread::yield_now();
        *worked_since = Instant::now();
    }
}

/// Writes a checkpoint whenever one is due.
fn write_checkpoints(store: &Weak<super::Shared>) {
    // Whoever waits for a reply goes first.
    let _ = rustix::process::nice(NICE);
    while let Some(shared) = store.upgrade() {
        let store = Store { shared };
        let _ = store.shared.checkpoints.thread.set(thread::current());
        if store.shared.background.is_closing() {
            return;
        }
        let mut worked_since = Instant::now();
        store.checkpoint_if_due(&mut || {
            // What fills memory can leave it only when this checkpoint is published.
            if !store.is_near_tier_limit() {
                stand_back(&mut worked_since);
            }
        });
        store.scrub_for(CHECKPOINT_LOOK.as_millis() as u64);
        drop(store);
        thread::park_timeout(CHECKPOINT_LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Options;
    use std::sync::mpsc::RecvTimeoutError;

    #[test]
    fn a_thread_that_starts_another_one_is_waited_for_when_the_store_closes() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(Options::new(directory.path())).expect("a new store");
        let (shared, (closed, closing)) = (Arc::downgrade(&store.shared), channel());
        store.shared.background.adopt(thread::spawn(move || {
            while let Some(shared) = shared.upgrade() {
                // What waits for this thread has begun.
                if shared.background.is_closing() && shared.background.threads.try_lock().is_none_or(|t| t.is_empty()) {
                    shared.background.adopt(thread::spawn(|| {}));
                    return;
                }
                thread::yield_now();
            }
        }));
        let waits = thread::spawn(move || closed.send(store.close().is_ok()));
        let ended = closing.recv_timeout(Duration::from_secs(60));
        assert_ne!(ended, Err(RecvTimeoutError::Timeout), "closing waits for ever");
        assert_eq!((ended, waits.join().is_ok()), (Ok(true), true));
    }
}
