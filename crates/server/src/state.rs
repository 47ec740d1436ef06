//! What all event loops share: the store, the settings, the counters, who is connected, and whether the server loads, is
//! paused or ends.
//!
//! Nothing here is touched on the way of an ordinary request but the store and the pause, which is one load.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bowline::{Store, Version};

use crate::commands::table;
use crate::loading::Loading;
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

/// How many backups there are.
#[derive(Debug, Default)]
pub struct Backups {
    /// Handed out now.
    pub running: AtomicU64,
    /// Begun since the start; the id of the newest.
    pub begun: AtomicU64,
}

/// What all loops share.
pub struct Server {
    /// How far recovery is, until the store is open.
    pub loading: Loading,
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
    /// Backups.
    pub backups: Backups,
    /// Whether a checkpoint is written when the server ends.
    pub checkpoint_at_end: AtomicBool,
    store: OnceLock<Store>,
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
    /// The state of a server whose store is still to be opened.
    pub fn new(settings: Arc<SettingsStore>) -> Arc<Server> {
        Arc::new(Server {
            loading: Loading::begin(),
            started_ms: system_ms(),
            settings,
            metrics: Metrics::new(table::all().len()),
            slowlog: Slowlog::default(),
            clients: Clients::default(),
            started: Instant::now(),
            run_id: run_id(),
            backups: Backups::default(),
            checkpoint_at_end: AtomicBool::new(true),
            store: OnceLock::new(),
            loops: OnceLock::new(),
            paused_until_ms: AtomicU64::new(0),
            paused_writes_only: AtomicU8::new(0),
            stopping: AtomicBool::new(false),
        })
    }

    /// Gives the server its data: recovery is over, the loops take requests for data from now on. Once only.
    pub fn open(&self, store: Store) {
        let first = self.store.set(store).is_ok();
        assert!(first, "the store is opened once");
        self.tell_all(|| Letter::Opened);
    }

    /// The data, once it is loaded.
    pub fn opened(&self) -> Option<&Store> {
        self.store.get()
    }

    /// The data. For what runs on behalf of requests that are refused while it is loaded.
    #[inline]
    pub fn store(&self) -> &Store {
        let Some(store) = self.opened() else { unreachable!("requests that need data are refused while it is loaded") };
        store
    }

    /// The newest version that may be told of; zero while the data is loaded, when nothing tells of any.
    #[inline]
    pub fn commit(&self) -> Version {
        self.opened().map_or(Version::ZERO, |store| store.log().commit())
    }

    /// Unix time in milliseconds by the store's clock, and by the system's before there is a store.
    #[inline]
    pub fn now_ms(&self) -> u64 {
        self.opened().map_or_else(system_ms, Store::now_ms)
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

    /// Whether the end was asked for.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Relaxed)
    }

    /// Starts the graceful end: no new connections, no new requests; replies are committed and sent; then the loops end.
    pub fn shut_down(&self) {
        if !self.stopping.swap(true, Relaxed) {
            self.tell_all(|| Letter::Shutdown);
        }
    }
}

fn system_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn run_id() -> String {
    let mut digits: String = (0..3_u8).map(|part| format!("{:016x}", RandomState::new().hash_one(part))).collect();
    digits.truncate(40);
    digits
}
