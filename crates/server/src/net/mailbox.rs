//! Letters to an event loop from other threads: new connections, kills, the end of a pause, shutdown.
//!
//! A letter is put under a short mutex and the loop is woken; a loop that has been woken and has not looked yet is not
//! woken again. Nothing of the request path goes through here.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::accept::Arrival;

/// One letter.
#[derive(Debug)]
pub enum Letter {
    /// A connection that this loop shall serve from now on.
    Arrival(Arrival),
    /// Close the connection of this client, if it is still here.
    Kill {
        /// Client id.
        client: u64,
    },
    /// The data is loaded: the loop wakes and takes it.
    Opened,
    /// CLIENT PAUSE ended early: paused connections may go on.
    Unpaused,
    /// Take no more requests, answer what is held, then end.
    Shutdown,
}

/// The letters of one loop and the bell that wakes it.
#[derive(Debug)]
pub struct Mailbox {
    letters: Mutex<Vec<Letter>>,
    rung: AtomicBool,
    waker: mio::Waker,
}

impl Mailbox {
    /// A mailbox whose bell is a waker on `registry`.
    pub fn new(registry: &mio::Registry, token: mio::Token) -> io::Result<Arc<Mailbox>> {
        let waker = mio::Waker::new(registry, token)?;
        Ok(Arc::new(Mailbox { letters: Mutex::new(Vec::new()), rung: AtomicBool::new(false), waker }))
    }

    /// Leaves a letter and wakes the loop.
    pub fn send(&self, letter: Letter) {
        self.letters.lock().push(letter);
        self.ring();
    }

    /// Wakes the loop; what the log calls when something that the loop waits for has come.
    pub fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel)
            && let Err(error) = self.waker.wake()
        {
            tracing::error!(%error, "cannot wake an event loop");
        }
    }

    /// Takes all letters. Called by the loop after every wake-up, before it looks at anything the bell may be for.
    pub fn take(&self) -> Vec<Letter> {
        // The flag falls first: a letter put after the take rings again.
        if self.rung.swap(false, Ordering::AcqRel) { std::mem::take(&mut *self.letters.lock()) } else { Vec::new() }
    }
}
