//! What all event loops share: the store, the settings, the counters, who is connected, and whether the server is paused
//! or ends.
//!
//! Nothing here is touched on the way of an ordinary request but the pause, which is one load.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bowline::Store;

use crate::commands::table;
use crate::metrics::Metrics;
use crate::metrics::slowlog::Slowlog;
use crate::net::mailbox::{Letter, Mailbox};
use crate::session::clients::Clients;
use crate::settings::SettingsStore;

/// Which commands CLIENT PAUSE holds back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PauseMode {
    /// All.
    All,
    /// Those that may change data.
    Writes,
}

/// What all loops share.
pub struct Server {
    /// The data.
    pub store: Store,
    /// The settings in force.
    pub settings: Arc<SettingsStore>,
    /// The counters.
    pub metrics: Metrics,
    /// Slow commands.
    pub slowlog: Slowlog,
    /// Who is connected.
    pub clients: Clients,
    /// Unix time in milliseconds of the start.
    pub started_ms: u64,
    /// The start.
    pub started: Instant,
    /// 40 random hexadecimal digits, new at every start.
    pub run_id: String,
    loops: OnceLock<Vec<Arc<Mailbox>>>,
    paused_until_ms: AtomicU64,
    paused_writes_only: AtomicU8,
    stopping: AtomicBool,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Server").field("run_id", &self.run_id).finish_non_exhaustive()
    }
}

impl Server {
    /// The state of a server over an open store.
    pub fn new(store: Store, settings: Arc<SettingsStore>) -> Arc<Server> {
        Arc::new(Server {
            started_ms: store.now_ms(),
            store,
            settings,
            metrics: Metrics::new(table::all().len()),
            slowlog: Slowlog::default(),
            clients: Clients::default(),
            started: Instant::now(),
            run_id: run_id(),
            loops: OnceLock::new(),
            paused_until_ms: AtomicU64::new(0),
            paused_writes_only: AtomicU8::new(0),
            stopping: AtomicBool::new(false),
        })
    }

    /// Tells the server its loops; once, before they run.
    pub fn set_loops(&self, loops: Vec<Arc<Mailbox>>) {
        let first = self.loops.set(loops).is_ok();
        assert!(first, "the loops are told once");
    }

    fn tell_all(&self, letter: fn() -> Letter) {
        for mailbox in self.loops.get().into_iter().flatten() {
            mailbox.send(letter());
        }
    }

    /// How many loops there are.
    pub fn loop_count(&self) -> usize {
        self.loops.get().map_or(0, Vec::len)
    }

    /// Holds commands back until `until_ms` (Unix time, milliseconds). A longer pause that is on stays, as in Redis.
    pub fn pause(&self, mode: PauseMode, until_ms: u64) {
        self.paused_writes_only.store(u8::from(mode == PauseMode::Writes), Relaxed);
        self.paused_until_ms.fetch_max(until_ms, Relaxed);
    }

    /// Ends a pause.
    pub fn unpause(&self) {
        self.paused_until_ms.store(0, Relaxed);
        self.tell_all(|| Letter::Unpaused);
    }

    /// What is held back at `now_ms`.
    #[inline]
    pub fn paused(&self, now_ms: u64) -> Option<PauseMode> {
        if now_ms >= self.paused_until_ms.load(Relaxed) {
            return None;
        }
        Some(if self.paused_writes_only.load(Relaxed) == 0 { PauseMode::All } else { PauseMode::Writes })
    }

    /// When the pause ends, Unix time in milliseconds; in the past when there is none.
    pub fn paused_until_ms(&self) -> u64 {
        self.paused_until_ms.load(Relaxed)
    }

    /// Starts the graceful end: no new connections, no new requests; replies are committed and sent; then the loops end.
    pub fn shut_down(&self) {
        if !self.stopping.swap(true, Relaxed) {
            self.tell_all(|| Letter::Shutdown);
        }
    }
}

fn run_id() -> String {
    let mut digits: String = (0..3_u8).map(|part| format!("{:016x}", RandomState::new().hash_one(part))).collect();
    digits.truncate(40);
    digits
}
