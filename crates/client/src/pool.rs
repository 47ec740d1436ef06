//! Connections shared by threads.
//!
//! A pool holds at most `size` clients, each with one connection. A thread takes one, uses it alone, and gives it back
//! by dropping it. A client that was left within a transaction, or was told something that the next user would not
//! expect (SELECT, AUTH), is thrown away instead of being handed on.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::error::{Error, Result};
use crate::options::Options;

/// A bounded set of connections to one server; clones share it.
///
/// ```no_run
/// # use bowline_client::{Options, Pool};
/// let pool = Pool::new(Options::default(), 8);
/// std::thread::scope(|scope| {
///     for worker in 0..32 {
///         let pool = pool.clone();
///         scope.spawn(move || pool.get()?.put(format!("worker:{worker}").as_bytes(), b"done"));
///     }
/// });
/// ```
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    options: Options,
    size: usize,
    waiting_time: Duration,
    state: Mutex<State>,
    given_back: Condvar,
}

#[derive(Default)]
struct State {
    idle: Vec<Client>,
    in_use: usize,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("address", &self.shared.options.address).field("size", &self.shared.size).finish()
    }
}

impl Pool {
    /// A pool of at most `size` connections (at least one), each made when it is first needed. A taker waits up to 30 s.
    pub fn new(options: Options, size: usize) -> Pool {
        Pool::with_waiting_time(options, size, Duration::from_secs(30))
    }

    /// Like [`Pool::new`], with the longest time that a taker waits for a free connection.
    pub fn with_waiting_time(options: Options, size: usize, waiting_time: Duration) -> Pool {
        let shared = Shared {
            options,
            size: size.max(1),
            waiting_time,
            state: Mutex::new(State::default()),
            given_back: Condvar::new(),
        };
        Pool { shared: Arc::new(shared) }
    }

    /// Takes a client, waiting while all are in use. The most recently used one is taken first, so that the others can
    /// be closed by an idle timeout of the server.
    ///
    /// # Errors
    /// [`Error::PoolExhausted`] when none became free in time. Connecting comes later, with the first call.
    pub fn get(&self) -> Result<PooledClient> {
        let shared = &self.shared;
        let deadline = Instant::now() + shared.waiting_time;
        let mut state = shared.lock();
        while state.in_use >= shared.size {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::PoolExhausted { size: shared.size, waited: shared.waiting_time });
            }
            state = shared.given_back.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.in_use += 1;
        let client = state.idle.pop().unwrap_or_else(|| Client::new(shared.options.clone()));
        Ok(PooledClient { client: Some(client), shared: Arc::clone(shared) })
    }

    /// How many clients are in use now.
    pub fn in_use(&self) -> usize {
        self.shared.lock().in_use
    }

    /// How many clients wait to be used, with their connections.
    pub fn idle(&self) -> usize {
        self.shared.lock().idle.len()
    }
}

impl Shared {
    /// The state is a count and a list, whole at every moment, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A client on loan; dropping it gives it back.
pub struct PooledClient {
    /// Only `drop` takes it out.
    client: Option<Client>,
    shared: Arc<Shared>,
}

impl fmt::Debug for PooledClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PooledClient").field(&self.client).finish()
    }
}

impl Deref for PooledClient {
    type Target = Client;

    fn deref(&self) -> &Client {
        self.client.as_ref().expect("a client on loan is there until it is dropped")
    }
}

impl DerefMut for PooledClient {
    fn deref_mut(&mut self) -> &mut Client {
        self.client.as_mut().expect("a client on loan is there until it is dropped")
    }
}

impl Drop for PooledClient {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.in_use -= 1;
        if let Some(client) = self.client.take()
            && client.is_connected()
            && client.is_fresh()
        {
            state.idle.push(client);
        }
        drop(state);
        self.shared.given_back.notify_one();
    }
}
