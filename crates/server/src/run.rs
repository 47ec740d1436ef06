//! From settings to a serving process and back: opens the doors, starts the loops, opens the store, waits for the end.
//!
//! ```text
//!   doors (fail early) -> loops (answer LOADING) -> store (recovery) -> ready ... stop: loops end -> store closes -> exit
//! ```
//!
//! Not here: arguments, background, signals, messages (`process`).

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bowline::blocks::{Compression, FileSize, Geometry};
use bowline::log::ArchiveOptions;
use bowline::{CheckpointPolicy, Durability, Error, EvictionPolicy, MemoryLimit, Options, Restart, Store};

use crate::memory;
use crate::net::accept::Acceptor;
use crate::net::event_loop::{EventLoop, Reception};
use crate::net::listen::{self, Dialect, ListenError, Listening, SocketFile};
use crate::process::{Exit, Process};
use crate::settings::{self, MaxmemoryPolicy, Settings, SettingsStore, SizeOrAuto};
use crate::state::Server;

/// Serves until it is asked to end.
pub fn run(settings: Arc<SettingsStore>, process: Process) -> Exit {
    let server = Server::new(settings);
    let serving = match Serving::begin(&server) {
        Ok(serving) => serving,
        Err(exit) => return exit,
    };
    let stopped = server.clone();
    process.on_stop(Box::new(move || stopped.shut_down()));
    let serving = Cell::new(Some(serving));
    let opened = open_store(&server, &process, &|| {
        // Nothing was acknowledged, and a recovery that was cut off is begun again at the next start.
        process.end_now(&serving.take().map_or(Exit::Ok, Serving::end))
    });
    let end_serving = || serving.take().map_or(Exit::Ok, Serving::end);
    let store = match opened {
        Ok(store) => store,
        Err(exit) => {
            server.shut_down();
            end_serving();
            return exit;
        }
    };
    server.open(store.clone());
    follow_settings(&server, &store);
    let mut exit = Exit::Ok;
    if !server.is_stopping()
        && let Err(error) = process.ready()
    {
        server.shut_down();
        exit = Exit::StartFailed(error.to_string());
    }
    let ended = end_serving();
    if exit == Exit::Ok {
        exit = ended;
    }
    let with_checkpoint = server.checkpoint_at_end.load(Ordering::Relaxed);
    match if with_checkpoint { store.close() } else { store.close_without_checkpoint() } {
        Ok(()) => exit,
        Err(error) => Exit::StorageFailed(error.to_string()),
    }
}

/// The loops that run, and the file of the UNIX socket.
struct Serving {
    threads: Vec<Loop>,
    socket_file: Option<SocketFile>,
}

impl Serving {
    /// Opens the doors and starts the loops.
    fn begin(server: &Arc<Server>) -> Result<Serving, Exit> {
        let current = server.settings.current();
        let (doors, socket_file) =
            open_doors(&current).map_err(|error: ListenError| Exit::StartFailed(error.to_string()))?;
        let threads = start_loops(server, doors, current.event_loops())?;
        Ok(Serving { threads, socket_file })
    }

    /// Waits until the loops have ended. The socket's file goes before the store closes: clients see a refused connection
    /// and not a silent one.
    fn end(self) -> Exit {
        let mut exit = Exit::Ok;
        for thread in self.threads {
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => exit = Exit::StartFailed(format!("an event loop ended: {error}")),
                Err(_) => {
                    exit = Exit::StartFailed("an event loop panicked: please report the message above".to_owned())
                }
            }
        }
        drop(self.socket_file);
        exit
    }
}

/// Opens every door that the settings name.
fn open_doors(settings: &Settings) -> Result<(Vec<Listening>, Option<SocketFile>), ListenError> {
    let mut doors = Vec::new();
    for (port, dialect) in [(settings.port, Dialect::Resp), (settings.text_port, Dialect::Text)] {
        if port != 0 {
            let addresses = settings.bind.resolve(port).map_err(|source| ListenError::Name { source })?;
            doors.extend(listen::tcp(&addresses, settings.tcp_backlog, dialect)?);
        }
    }
    let mut socket_file = None;
    if let Some(path) = settings.unix_socket() {
        let (listening, file) = listen::unix(&path, settings.unixsocketperm.0, settings.tcp_backlog)?;
        doors.push(listening);
        socket_file = Some(file);
    }
    if doors.is_empty() { Err(ListenError::Nothing) } else { Ok((doors, socket_file)) }
}

/// The engine's options of these settings.
pub(crate) fn options(settings: &Settings, process: &Process) -> Options {
    let bytes = |wanted: u64| usize::try_from(wanted).unwrap_or(usize::MAX);
    let mut options = Options::new(settings.data_directory());
    options.log_directory = Some(settings.log_directory());
    options.block_file = Some(settings.block_file());
    options.block_file_geometry = Geometry {
        block_bytes: u32::try_from(settings.block_size).unwrap_or(u32::MAX),
        size: match settings.block_file_size {
            SizeOrAuto::Auto => FileSize::Auto,
            SizeOrAuto::Bytes(bytes) => FileSize::Fixed(bytes),
        },
    };
    options.checkpoints = checkpoint_policy(settings);
    options.compression = compression(settings);
    options.restart = match settings.restart {
        settings::Restart::Eager => Restart::Eager,
        settings::Restart::Lazy => Restart::Lazy,
    };
    options.archive = archive(settings);
    options.scrub_bytes_per_second = settings.scrub_rate;
    options.durability = level(settings.durability);
    options.segments = settings.num_segments as usize;
    options.entries_per_segment = bytes(settings.initial_bucket_size);
    options.databases = settings.databases;
    options.key_bytes_max = bytes(settings.max_key_size);
    options.value_bytes_max = bytes(settings.max_value_size);
    options.memory_limit = memory_limit(settings);
    options.memory_gauge = memory::gauge();
    options.log_file_bytes = settings.wal_file_size;
    options.log_buffer_bytes = bytes(settings.log_buffer_bytes());
    let process = process.clone();
    options.on_failure = Some(Arc::new(move |error: &Error| {
        process.end_now(&match error {
            // Met while entries are loaded, after a lazy start.
            Error::Corrupt { .. } => Exit::Damaged(error.to_string()),
            _ => Exit::StorageFailed(format!("{error}; the server ends, nothing acknowledged is lost")),
        })
    }));
    options
}

/// How much memory the data may take.
fn memory_limit(settings: &Settings) -> MemoryLimit {
    let policy = match settings.maxmemory_policy {
        MaxmemoryPolicy::NoEviction => EvictionPolicy::NoEviction,
        MaxmemoryPolicy::AllkeysLru => EvictionPolicy::AllKeysLru,
        MaxmemoryPolicy::AllkeysLfu => EvictionPolicy::AllKeysLfu,
        MaxmemoryPolicy::AllkeysRandom => EvictionPolicy::AllKeysRandom,
        MaxmemoryPolicy::VolatileLru => EvictionPolicy::VolatileLru,
        MaxmemoryPolicy::VolatileLfu => EvictionPolicy::VolatileLfu,
        MaxmemoryPolicy::VolatileRandom => EvictionPolicy::VolatileRandom,
        MaxmemoryPolicy::VolatileTtl => EvictionPolicy::VolatileTtl,
        MaxmemoryPolicy::Tier => EvictionPolicy::Tier,
    };
    MemoryLimit { bytes: usize::try_from(settings.memory_limit()).unwrap_or(usize::MAX), policy }
}

/// Where finished log files go.
fn archive(settings: &Settings) -> Option<ArchiveOptions> {
    let seconds = settings.archive_keep_time;
    settings.archive_directory().map(|directory| ArchiveOptions {
        directory,
        keep_for: (seconds > 0).then(|| Duration::from_secs(seconds)),
        keep_bytes: Some(settings.archive_keep_size).filter(|bytes| *bytes > 0),
    })
}

/// When checkpoints are written.
fn checkpoint_policy(settings: &Settings) -> CheckpointPolicy {
    CheckpointPolicy {
        log_bytes: settings.checkpoint_log_size,
        interval: Duration::from_secs(u64::from(settings.checkpoint_interval)),
    }
}

/// How values are compressed in the block file.
fn compression(settings: &Settings) -> Compression {
    match settings.compression {
        settings::Compression::None => Compression::None,
        settings::Compression::Lz4 => Compression::Lz4,
        settings::Compression::Zstd => {
            Compression::Zstd { level: i32::try_from(settings.compression_level).unwrap_or(i32::MAX) }
        }
    }
}

/// The setting `durability` in the engine's type.
pub fn level(setting: settings::Durability) -> Durability {
    match setting {
        settings::Durability::Always => Durability::Always,
        settings::Durability::EverySecond => Durability::EverySecond,
        settings::Durability::None => Durability::None,
    }
}

/// How often recovery says how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// Opens the store and tells how far that is. Calls `end` when the server is asked to end meanwhile.
fn open_store(server: &Server, process: &Process, end: &dyn Fn()) -> Result<Store, Exit> {
    let began = Instant::now();
    let told = Cell::new(began);
    let progress = |progress: bowline::log::Progress| {
        server.loading.advance(progress);
        if server.is_stopping() {
            end();
        }
        if told.get().elapsed() >= PROGRESS_EVERY {
            told.set(Instant::now());
            let loaded = server.loading.loaded();
            let (done, total, left) = (loaded.bytes_done, loaded.bytes_total, loaded.left.as_secs_f64());
            let text = format!("loads the log: {done} of {total} bytes, about {left:.0} s left");
            tracing::info!("{text}");
            process.status(&text);
        }
    };
    let opened = Store::open_watched(options(&server.settings.current(), process), &progress);
    let store = opened.map_err(|error| match error {
        Error::Locked { .. } => Exit::Locked(error.to_string()),
        Error::Corrupt { .. } | Error::FormatTooNew { .. } | Error::RestoreUnfinished { .. } => {
            Exit::Damaged(error.to_string())
        }
        _ => Exit::StartFailed(error.to_string()),
    })?;
    let statistics = store.statistics();
    tracing::info!(
        keys = statistics.keys,
        records = statistics.recovered.records,
        bytes = statistics.recovered.bytes,
        torn_bytes_cut = statistics.recovered.torn_bytes_cut,
        seconds = began.elapsed().as_secs_f64(),
        "store open"
    );
    Ok(store)
}

/// A change of `durability` also changes how often the log is synced when nobody waits; one of the checkpoints' settings
/// when the next one comes; one of the limit on memory is held at once, and evicts in the background.
fn follow_settings(server: &Server, store: &Store) {
    let store = store.clone();
    let follow = move |settings: &Settings| {
        store.log().set_background_sync(level(settings.durability).background_sync());
        store.set_checkpoint_policy(checkpoint_policy(settings));
        store.set_compression(compression(settings));
        store.set_memory_limit(memory_limit(settings));
        store.set_scrub_bytes_per_second(settings.scrub_rate);
    };
    // It may have changed while the store was opened.
    follow(&server.settings.current());
    server.settings.subscribe(Box::new(follow));
}

type Loop = JoinHandle<std::io::Result<()>>;

fn start_loops(server: &Arc<Server>, doors: Vec<Listening>, count: usize) -> Result<Vec<Loop>, Exit> {
    let mut loops =
        (0..count).map(|_| EventLoop::new(server.clone())).collect::<Result<Vec<_>, _>>().map_err(|error| {
            Exit::StartFailed(format!("cannot make an event loop: {error}; raise the limit of open files"))
        })?;
    let mailboxes: Vec<_> = loops.iter().map(EventLoop::mailbox).collect();
    server.set_loops(mailboxes.clone());
    let reception = Reception { doors, acceptor: Acceptor::new(server.clone(), mailboxes) };
    if let Some(Err(error)) = loops.first_mut().map(|first| first.receive_at(reception)) {
        return Err(Exit::StartFailed(format!("cannot watch the listening sockets: {error}")));
    }
    let mut threads = Vec::new();
    for (number, event_loop) in loops.into_iter().enumerate() {
        match start_loop(server.clone(), number, event_loop) {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                server.shut_down();
                return Err(Exit::StartFailed(format!("cannot start a thread: {error}; raise the limit of processes")));
            }
        }
    }
    Ok(threads)
}

fn start_loop(server: Arc<Server>, number: usize, event_loop: EventLoop) -> std::io::Result<Loop> {
    thread::Builder::new().name(format!("loop-{number}")).spawn(move || {
        let ended = event_loop.run();
        // A loop that fails takes the others with it: half a server would leave clients hanging.
        server.shut_down();
        ended
    })
}
