//! Reading cold values back: nobody who runs commands waits for the disk.
//!
//! ```text
//!   a command meets a cold value, before anything executed: its caller parks with a Fetch, without locks or room
//!      -> queue (each key once) -> threads "fetch": location and view under the segment's lock, read without it,
//!         put in place if the entry is still the same -> the Fetch's last value wakes its caller -> it runs from its start
//! ```
//!
//! A thread that takes a key wakes the next one if more are left: on a machine with nothing else to do all of them read at
//! once, and where the loops have the cores busy nobody is woken in vain.
//!
//! A value that cannot be read is remembered until the next checkpoint, and commands that need it answer with why. What the
//! system said, not the bytes, may pass: that is remembered for some seconds only.
//! Callers without a waker (the embedded library, simulations) read on their own thread.
//!
//! What was fetched may be let go again before its caller runs. A caller that was parked for the third time is urgent: as
//! long as its [`Fetch`] lives no value leaves memory, so it does not wait for room in memory either. There is one such
//! caller at a time, and a command may want at most half of the limit at once. Not here: which values are cold, and where
//! (`tier`).

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::{Shared, Store, one};
use crate::error::{Error, Result};
use crate::keyspace::{DatabaseId, SegmentSet};
use crate::limits::{FETCH_THREADS, FETCH_URGENT_AFTER, UNREADABLE_AGAIN};
use crate::version::Version;

/// Called by another thread when values that somebody waits for are there.
pub type Waker = Arc<dyn Fn() + Send + Sync>;

/// Bytes of a key that the log shows.
const SHOWN_BYTES: usize = 100;

/// A key whose value is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Wanted {
    pub(crate) database: DatabaseId,
    pub(crate) hash: u64,
    pub(crate) key: Box<[u8]>,
}

/// Values, or whole segments of the store, on their way for one caller.
pub struct Fetch {
    left: AtomicUsize,
    wake: Waker,
    urgency: Option<Urgency>,
}

/// As long as one lives no value leaves memory. Counted, because a caller that waits again has two for a moment.
struct Urgency(Arc<AtomicUsize>);

impl Urgency {
    /// For a caller who has waited often enough: in place of what `before` has, or if nobody has one.
    fn take(count: &Arc<AtomicUsize>, before: Option<&Fetch>) -> Option<Urgency> {
        if before.is_some_and(Fetch::is_urgent) {
            count.fetch_add(1, Ordering::SeqCst);
        } else {
            count.compare_exchange(0, 1, Ordering::SeqCst, Ordering::SeqCst).ok()?;
        }
        Some(Urgency(count.clone()))
    }
}

impl Drop for Urgency {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Fetch {
    /// Waits for so many things; nothing leaves memory any later because of it.
    pub(super) fn new(count: usize, wake: Waker) -> Fetch {
        Fetch { left: AtomicUsize::new(count), wake, urgency: None }
    }

    /// Whether all of it is there, or known to be unreadable.
    pub fn is_done(&self) -> bool {
        self.left.load(Ordering::SeqCst) == 0
    }

    /// Whether no value leaves memory as long as this lives.
    pub(crate) fn is_urgent(&self) -> bool {
        self.urgency.is_some()
    }

    /// One of what it waits for is there.
    pub(super) fn one_done(&self) {
        if self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            (self.wake)();
        }
    }
}

impl std::fmt::Debug for Fetch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fetch({} left)", self.left.load(Ordering::SeqCst))
    }
}

/// Keys whose values are to be read, and who waits for them.
#[derive(Default)]
pub(super) struct FetchQueue {
    state: Mutex<QueueState>,
    filled: Condvar,
    /// Values that could not be read, by database and hash.
    unreadable: Mutex<HashMap<(DatabaseId, u64), Unreadable>>,
    unreadable_count: AtomicUsize,
}

/// A value that could not be read.
struct Unreadable {
    version: Version,
    why: String,
    /// When it is tried again, by the monotonic clock; the next checkpoint is another occasion.
    until: Option<Duration>,
}

#[derive(Default)]
struct QueueState {
    keys: VecDeque<Arc<Wanted>>,
    /// Every key that is queued or being read.
    waiting: HashMap<Arc<Wanted>, Vec<Arc<Fetch>>>,
    threads: usize,
    /// Threads that sleep until a key comes, those left aside that were woken for one and have yet to take it.
    idle: usize,
    #[cfg(test)]
    wakes: usize,
    closed: bool,
}

impl FetchQueue {
    fn push(&self, wanted: Vec<Wanted>, fetch: &Arc<Fetch>) {
        let mut state = self.state.lock();
        for wanted in wanted {
            if state.closed {
                fetch.one_done();
                continue;
            }
            let wanted = Arc::new(wanted);
            if let Some(waiting) = state.waiting.get_mut(&wanted) {
                waiting.push(fetch.clone());
            } else {
                state.keys.push_back(wanted.clone());
                state.waiting.insert(wanted, vec![fetch.clone()]);
            }
        }
        self.wake_one(&mut state);
    }

    /// Wakes a thread if there is a key for it.
    fn wake_one(&self, state: &mut QueueState) {
        if !state.keys.is_empty() && state.idle > 0 {
            state.idle -= 1;
            #[cfg(test)]
            {
                state.wakes += 1;
            }
            self.filled.notify_one();
        }
    }

    /// The next key to read; `None` when the store closes.
    fn next(&self) -> Option<Arc<Wanted>> {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(wanted) = state.keys.pop_front() {
                self.wake_one(&mut state);
                return Some(wanted);
            }
            // Whoever wakes a thread takes it off this number.
            state.idle += 1;
            self.filled.wait(&mut state);
        }
    }

    /// Whether there is to be another thread; then it is counted.
    fn takes_thread(&self) -> bool {
        let mut state = self.state.lock();
        let takes = state.threads < FETCH_THREADS && !state.closed;
        state.threads += usize::from(takes);
        takes
    }

    fn done(&self, wanted: &Arc<Wanted>) {
        let waiting = self.state.lock().waiting.remove(wanted);
        waiting.into_iter().flatten().for_each(|fetch| fetch.one_done());
    }

    /// Ends the threads; who still waits is woken.
    pub(super) fn close(&self) {
        let waiting = {
            let mut state = self.state.lock();
            state.closed = true;
            state.keys.clear();
            std::mem::take(&mut state.waiting)
        };
        self.filled.notify_all();
        waiting.into_values().flatten().for_each(|fetch| fetch.one_done());
    }

    /// Why a value cannot be read, if that is known. `now` is the monotonic clock's.
    fn why_unreadable(
        &self,
        (database, hash): (DatabaseId, u64),
        version: Version,
        now: impl Fn() -> Duration,
    ) -> Option<String> {
        if self.unreadable_count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let unreadable = self.unreadable.lock();
        let found = unreadable.get(&(database, hash)).filter(|found| found.version == version)?;
        found.until.is_none_or(|until| now() < until).then(|| found.why.clone())
    }

    fn note_unreadable(&self, wanted: &Wanted, found: Unreadable) {
        let mut unreadable = self.unreadable.lock();
        unreadable.insert((wanted.database, wanted.hash), found);
        self.unreadable_count.store(unreadable.len(), Ordering::Relaxed);
    }

    /// A checkpoint was published: it may have become better.
    pub(super) fn forget_unreadable(&self) {
        let mut unreadable = self.unreadable.lock();
        unreadable.clear();
        self.unreadable_count.store(0, Ordering::Relaxed);
    }
}

impl Store {
    /// Reads values on the calling thread; none leaves memory again as long as the result lives, if nobody else has that.
    /// What cannot be read is remembered. `before` is what the caller had for the same request.
    pub(crate) fn fetch_all_here(&self, wanted: &[Wanted], before: Option<&Fetch>) -> Arc<Fetch> {
        let urgency = Urgency::take(&self.shared.tier.urgent, before);
        let fetch = Arc::new(Fetch { left: AtomicUsize::new(0), wake: Arc::new(|| {}), urgency });
        for wanted in wanted {
            let _ = self.fetch_here(wanted);
        }
        fetch
    }

    /// Most bytes of values that one command or transaction may have fetched at once: half of the limit on memory.
    pub(crate) fn fetch_bytes_max(&self) -> usize {
        match self.memory_limit_bytes() {
            0 => usize::MAX,
            limit => limit / 2,
        }
    }

    /// The error of a command that needs this value, if it is known that it cannot be read.
    pub(crate) fn unreadable(&self, wanted: &Wanted, version: Version) -> Option<Error> {
        let (queue, clock) = (&self.shared.tier.queue, &self.shared.options.clock);
        let cause = queue.why_unreadable((wanted.database, wanted.hash), version, || clock.monotonic())?;
        Some(Error::Unreadable { cause })
    }

    /// Has values read by other threads, which call `wake` when the last one is there. `attempts`: how often the caller
    /// has waited for the same request, the last time for `before`.
    pub(crate) fn fetch(
        &self,
        wanted: Vec<Wanted>,
        (attempts, before): (u8, Option<&Fetch>),
        wake: Waker,
    ) -> Arc<Fetch> {
        let tier = &self.shared.tier;
        let waited_enough = attempts >= FETCH_URGENT_AFTER;
        let urgency = waited_enough.then(|| Urgency::take(&tier.urgent, before)).flatten();
        let fetch = Arc::new(Fetch { left: AtomicUsize::new(wanted.len()), wake, urgency });
        if self.has_fetch_threads() {
            tier.queue.push(wanted, &fetch);
        } else {
            wanted.iter().for_each(|wanted| {
                // Who runs again finds out.
                let _ = self.fetch_here(wanted);
                fetch.one_done();
            });
        }
        fetch
    }

    /// Starts the threads that read, if that was not done; whether there is one.
    fn has_fetch_threads(&self) -> bool {
        let queue = &self.shared.tier.queue;
        while queue.takes_thread() {
            let (weak, its_queue) = (Arc::downgrade(&self.shared), queue.clone());
            let thread = thread::Builder::new().name("fetch".to_owned());
            match thread.spawn(move || read_values(&weak, &its_queue)) {
                // Nothing is locked here: who closes the store waits for these threads, and they take from the queue.
                Ok(handle) => self.shared.background.adopt(handle),
                Err(error) => {
                    tracing::error!(%error, "a thread that reads values cannot be started");
                    queue.state.lock().threads -= 1;
                    break;
                }
            }
        }
        queue.state.lock().threads > 0
    }

    /// Reads a cold value and puts it in its place, on the calling thread. What is not cold any more is left as it is, and
    /// what cannot be read is remembered.
    ///
    /// # Errors
    /// `Unreadable`.
    pub(crate) fn fetch_here(&self, wanted: &Wanted) -> Result<()> {
        let Err((version, error)) = self.try_fetch(wanted) else { return Ok(()) };
        let (tier, cause) = (&self.shared.tier, error.to_string());
        let shown = wanted.key.get(..SHOWN_BYTES).unwrap_or(&wanted.key).escape_ascii();
        tracing::error!(%error, key = %shown, "a value cannot be read from the block file");
        tier.failed.fetch_add(1, Ordering::Relaxed);
        let may_pass = matches!(error, Error::Io { .. });
        let until = may_pass.then(|| self.shared.options.clock.monotonic() + UNREADABLE_AGAIN);
        tier.queue.note_unreadable(wanted, Unreadable { version, why: cause.clone(), until });
        Err(Error::Unreadable { cause })
    }

    fn try_fetch(&self, wanted: &Wanted) -> std::result::Result<(), (Version, Error)> {
        let (keyspace, tier) = (&self.shared.keyspace, &self.shared.tier);
        let segment = keyspace.segment_of(wanted.hash);
        let look = || {
            let hold = keyspace.hold(one(segment), SegmentSet::EMPTY);
            let table = hold.table(segment, wanted.database)?;
            let cold = table.cold_value(wanted.hash, &wanted.key)?;
            Some((cold, tier.view(segment)?))
        };
        loop {
            let Some((cold, view)) = look() else { return Ok(()) };
            match view.read_cold(&cold, wanted.database, &wanted.key) {
                Ok(entry) => {
                    self.make_room_for_value(entry.borrow().allocated_bytes());
                    let mut hold = keyspace.hold(SegmentSet::EMPTY, one(segment));
                    let old = hold.segment_mut(segment).make_warm(wanted.database, wanted.hash, entry);
                    drop(hold);
                    tier.fetched.fetch_add(u64::from(old.is_ok()), Ordering::Relaxed);
                    return Ok(());
                }
                // The entry or the checkpoint may have changed while it was read.
                Err(error) => match look() {
                    Some((now, its_view)) if now == cold && its_view.is_same(&view) => {
                        return Err((cold.version, error));
                    }
                    _ => {}
                },
            }
        }
    }
}

/// Reads values until the store closes.
fn read_values(store: &Weak<Shared>, queue: &FetchQueue) {
    while let Some(wanted) = queue.next() {
        let Some(shared) = store.upgrade() else { return };
        // It is remembered for whoever runs again.
        let _ = Store { shared }.fetch_here(&wanted);
        queue.done(&wanted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn wanted(number: u64) -> Wanted {
        Wanted { database: DatabaseId(0), hash: number, key: Box::from(&number.to_le_bytes()[..]) }
    }

    #[test]
    fn what_the_system_could_not_read_is_tried_again_and_damage_is_not() {
        let (queue, at) = (FetchQueue::default(), Duration::from_secs);
        for (number, until) in [(1, Some(at(13))), (2, None)] {
            let found = Unreadable { version: Version(5), why: "why".to_owned(), until };
            queue.note_unreadable(&wanted(number), found);
        }
        let ask = |hash, version, seconds| {
            queue.why_unreadable((DatabaseId(0), hash), Version(version), || at(seconds)).is_some()
        };
        assert_eq!([ask(1, 5, 10), ask(1, 5, 12), ask(1, 5, 13), ask(1, 5, 1000)], [true, true, false, false]);
        assert_eq!([ask(2, 5, 10), ask(2, 5, 1000), ask(2, 6, 10)], [true, true, false]);
        queue.forget_unreadable();
        assert!(!ask(2, 5, 10));
    }

    #[test]
    fn no_more_threads_are_woken_than_there_are_keys() {
        let (queue, (taken, taking)) = (Arc::new(FetchQueue::default()), mpsc::channel());
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let (queue, taken) = (queue.clone(), taken.clone());
                thread::spawn(move || {
                    while let Some(wanted) = queue.next() {
                        taken.send(wanted.hash).expect("the test waits");
                        queue.done(&wanted);
                    }
                })
            })
            .collect();
        let mut keys = 0;
        for count in [1, 1, 3, 1, 20, 2] {
            while queue.state.lock().idle < 8 {
                thread::yield_now();
            }
            let fetch = Arc::new(Fetch::new(count, Arc::new(|| {})));
            queue.push((0..count).map(|number| wanted((keys + number) as u64)).collect(), &fetch);
            (0..count).for_each(|_| _ = taking.recv().expect("every key is taken"));
            keys += count;
            assert!(queue.state.lock().wakes <= keys, "{} were woken for {keys} keys", queue.state.lock().wakes);
        }
        queue.close();
        threads.into_iter().for_each(|thread| thread.join().expect("a thread ends"));
    }
}
