//! Who waits for a commit: threads in the order of their versions, and event loops with the oldest version they hold.
//!
//! ```text
//!   thread:  register(version), look at commit once more, park           commit moves: wakes exactly the satisfied ones
//!   loop:    want(version): store it, look at commit once more           commit >= wanted: wake once, forget the wish
//! ```
//!
//! The commit is stored before waiters are looked at, and waiters are stored before the commit is looked at (both
//! sequentially consistent), so one of the two sides always sees the other.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst, fence};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::{self, Thread};

use parking_lot::Mutex;

use super::Shared;
use crate::version::Version;

/// No version is wanted.
const NOTHING: u64 = u64::MAX;

/// A thread of the log that sleeps until somebody has work for it. A wish that comes first is not lost.
#[derive(Debug, Default)]
pub(crate) struct Signal(OnceLock<Thread>);

impl Signal {
    /// The calling thread is the one to wake; it sleeps with `thread::park`.
    pub(crate) fn attach(&self) {
        let _ = self.0.set(thread::current());
        fence(SeqCst);
    }

    pub(crate) fn notify(&self) {
        fence(SeqCst);
        if let Some(thread) = self.0.get() {
            thread.unpark();
        }
    }
}

/// One thread that waits.
#[derive(Debug)]
struct Waiter {
    thread: Thread,
    done: AtomicBool,
}

#[derive(Debug, Default)]
struct Queue {
    /// By version, then by order of arrival.
    waiters: BTreeMap<(u64, u64), Arc<Waiter>>,
    arrivals: u64,
}

/// The waiting threads.
#[derive(Debug, Default)]
pub(crate) struct Waiters(Mutex<Queue>);

impl Waiters {
    /// Parks the thread until `version` is released; returns at once when `settled` says so after registering.
    pub(crate) fn wait(&self, version: Version, settled: impl Fn() -> bool) {
        let waiter = Arc::new(Waiter { thread: thread::current(), done: AtomicBool::new(false) });
        {
            let mut queue = self.0.lock();
            if settled() {
                return;
            }
            queue.arrivals += 1;
            let arrival = queue.arrivals;
            queue.waiters.insert((version.0, arrival), Arc::clone(&waiter));
        }
        while !waiter.done.load(SeqCst) {
            thread::park();
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.lock().waiters.len()
    }

    /// Wakes the threads that wait for `commit` or less, oldest version first. Returns how many.
    pub(crate) fn release(&self, commit: Version) -> usize {
        let released = {
            let mut queue = self.0.lock();
            if queue.waiters.first_key_value().is_none_or(|((version, _), _)| *version > commit.0) {
                return 0;
            }
            let later = match commit.0.checked_add(1) {
                Some(next) => queue.waiters.split_off(&(next, 0)),
                None => BTreeMap::new(),
            };
            std::mem::replace(&mut queue.waiters, later)
        };
        for waiter in released.values() {
            waiter.done.store(true, SeqCst);
            waiter.thread.unpark();
        }
        released.len()
    }
}

/// An event loop's ear at the log.
///
/// The rule: first say what you want ([`Listener::want`], [`Listener::want_room`]), then look once more
/// ([`super::Log::commit`], [`super::Log::admit`]), then sleep. What happens after the look wakes the loop, once; then
/// say again what you want. A wake may also come for nothing.
pub struct Listener {
    shared: Arc<Shared>,
    wanted: AtomicU64,
    wants_room: AtomicBool,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Listener {
    /// Asks for one wake when `version` is committed, and for the sync that this takes. Call it with the oldest version
    /// that is held; a new wish replaces the old one. True when it is committed already or the log has failed: then no
    /// wake comes for it.
    pub fn want(&self, version: Version) -> bool {
        self.wanted.store(version.0, SeqCst);
        self.shared.request_sync(version);
        if self.shared.is_settled(version) {
            self.wanted.store(NOTHING, SeqCst);
            return true;
        }
        false
    }

    /// Asks for one wake when room appears in the log. Ask [`super::Log::admit`] once more after this call.
    pub fn want_room(&self) {
        self.wants_room.store(true, SeqCst);
        self.shared.want_room();
    }
}

/// All event loops that listen.
#[derive(Default)]
pub(crate) struct Listeners(Mutex<Vec<Weak<Listener>>>);

impl Listeners {
    pub(crate) fn add(&self, shared: &Arc<Shared>, wake: Box<dyn Fn() + Send + Sync>) -> Arc<Listener> {
        let shared = Arc::clone(shared);
        let listener = Listener { shared, wanted: AtomicU64::new(NOTHING), wants_room: AtomicBool::new(false), wake };
        let listener = Arc::new(listener);
        let mut all = self.0.lock();
        all.retain(|listener| listener.strong_count() > 0);
        all.push(Arc::downgrade(&listener));
        listener
    }

    /// Wakes the loops whose wish `commit` satisfies.
    pub(crate) fn committed(&self, commit: Version) {
        self.wake_where(|listener| {
            let wanted = listener.wanted.load(SeqCst);
            // A wish that was replaced meanwhile is looked at by the one who replaced it.
            wanted != NOTHING
                && wanted <= commit.0
                && listener.wanted.compare_exchange(wanted, NOTHING, SeqCst, SeqCst).is_ok()
        });
    }

    /// Wakes the loops that wait for room.
    pub(crate) fn room_appeared(&self) {
        self.wake_where(|listener| listener.wants_room.swap(false, SeqCst));
    }

    /// Wakes every loop: the log has failed.
    pub(crate) fn failed(&self) {
        self.wake_where(|_| true);
    }

    fn wake_where(&self, wakes: impl Fn(&Listener) -> bool) {
        let chosen: Vec<Arc<Listener>> =
            self.0.lock().iter().filter_map(Weak::upgrade).filter(|listener| wakes(listener)).collect();
        for listener in chosen {
            (listener.wake)();
        }
    }
}
