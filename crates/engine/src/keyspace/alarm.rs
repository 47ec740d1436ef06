//! Wakes the thread that removes expired entries when one becomes due earlier than it planned to look.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::Thread;

/// When the sleeper looks again, and who it is.
pub struct Alarm {
    at_ms: AtomicU64,
    sleeper: OnceLock<Thread>,
}

impl Default for Alarm {
    fn default() -> Alarm {
        Alarm { at_ms: AtomicU64::new(u64::MAX), sleeper: OnceLock::new() }
    }
}

impl Alarm {
    /// Makes the calling thread the one that is woken.
    pub fn wake_this_thread(&self) {
        // A second thread would not be woken; there is one such thread in a store.
        let _ = self.sleeper.set(std::thread::current());
    }

    /// Notes when the sleeper will look by itself. It must read the deadlines after this and before it sleeps.
    pub fn planned_for(&self, at_ms: u64) {
        self.at_ms.store(at_ms, Ordering::SeqCst);
    }

    /// An entry is due at `deadline_ms`: wakes the sleeper if it would look later.
    pub fn set_for(&self, deadline_ms: u64) {
        if deadline_ms < self.at_ms.load(Ordering::SeqCst) {
            self.at_ms.store(deadline_ms, Ordering::SeqCst);
            if let Some(sleeper) = self.sleeper.get() {
                sleeper.unpark();
            }
        }
    }
}
