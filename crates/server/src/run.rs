//! From settings to a serving process and back: opens the doors and the store, starts the loops, waits for their end.
//!
//! ```text
//!   doors (fail early) -> store (recovery) -> loops -> ready ... stop: loops end -> store closes -> exit code
//! ```
//!
//! Not here: arguments, background, signals, messages (`process`).

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bowline::{Durability, Error, Options, Store};

use crate::net::accept::Acceptor;
use crate::net::event_loop::{EventLoop, Reception};
use crate::net::listen::{self, Dialect, ListenError, Listening, SocketFile};
use crate::process::{Exit, Process};
use crate::settings::{self, Settings, SettingsStore};
use crate::state::Server;

/// Serves until it is asked to end.
pub fn run(settings: Arc<SettingsStore>, process: Process) -> Exit {
    let current = settings.current();
    let (doors, socket_file) = match open_doors(&current) {
        Ok(doors) => doors,
        Err(error) => return Exit::StartFailed(error.to_string()),
    };
    let store = match open_store(&current, &process) {
        Ok(store) => store,
        Err(exit) => return exit,
    };
    let server = Server::new(store, settings.clone());
    follow_durability(&server);
    let exit = serve(&server, doors, &process);
    // The file goes before the store closes: clients see a refused connection and not a silent one.
    drop(socket_file);
    match server.store.clone().close() {
        Ok(()) => exit,
        Err(error) => Exit::StorageFailed(error.to_string()),
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
fn options(settings: &Settings, process: &Process) -> Options {
    let bytes = |wanted: u64| usize::try_from(wanted).unwrap_or(usize::MAX);
    let mut options = Options::new(settings.data_directory());
    options.log_directory = Some(settings.log_directory());
    options.durability = level(settings.durability);
    options.segments = settings.num_segments as usize;
    options.entries_per_segment = bytes(settings.initial_bucket_size);
    options.databases = settings.databases;
    options.key_bytes_max = bytes(settings.max_key_size);
    options.value_bytes_max = bytes(settings.max_value_size);
    options.log_file_bytes = settings.wal_file_size;
    options.log_buffer_bytes = bytes(settings.log_buffer_bytes());
    let process = process.clone();
    options.on_failure = Some(Arc::new(move |error: &Error| {
        process.end_now(&Exit::StorageFailed(format!("{error}; the server ends, nothing acknowledged is lost")))
    }));
    options
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

fn open_store(settings: &Settings, process: &Process) -> Result<Store, Exit> {
    let began = Instant::now();
    let told = std::cell::Cell::new(began);
    let progress = |progress: bowline::log::Progress| {
        if told.get().elapsed() >= PROGRESS_EVERY {
            told.set(Instant::now());
            let (done, total) = (progress.bytes_done, progress.bytes_total);
            let left = began.elapsed().as_secs_f64() * (total.saturating_sub(done)) as f64 / done.max(1) as f64;
            let text = format!("loads the log: {done} of {total} bytes, about {left:.0} s left");
            tracing::info!("{text}");
            process.status(&text);
        }
    };
    let opened = Store::open_watched(options(settings, process), &progress);
    let store = opened.map_err(|error| match error {
        Error::Locked { .. } => Exit::Locked(error.to_string()),
        Error::Corrupt { .. } | Error::FormatTooNew { .. } => Exit::Damaged(error.to_string()),
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

/// A change of `durability` also changes how often the log is synced when nobody waits.
fn follow_durability(server: &Arc<Server>) {
    let store = server.store.clone();
    server.settings.subscribe(Box::new(move |settings| {
        store.log().set_background_sync(level(settings.durability).background_sync());
    }));
}

fn serve(server: &Arc<Server>, doors: Vec<Listening>, process: &Process) -> Exit {
    let count = server.settings.current().event_loops();
    let mut loops = match (0..count).map(|_| EventLoop::new(server.clone())).collect::<Result<Vec<_>, _>>() {
        Ok(loops) => loops,
        Err(error) => {
            return Exit::StartFailed(format!("cannot make an event loop: {error}; raise the limit of open files"));
        }
    };
    let mailboxes: Vec<_> = loops.iter().map(EventLoop::mailbox).collect();
    server.set_loops(mailboxes.clone());
    let reception = Reception { doors, acceptor: Acceptor::new(server.clone(), mailboxes) };
    if let Some(Err(error)) = loops.first_mut().map(|first| first.receive_at(reception)) {
        return Exit::StartFailed(format!("cannot watch the listening sockets: {error}"));
    }
    let mut threads = Vec::new();
    for (number, event_loop) in loops.into_iter().enumerate() {
        match start_loop(server.clone(), number, event_loop) {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                server.shut_down();
                return Exit::StartFailed(format!("cannot start a thread: {error}; raise the limit of processes"));
            }
        }
    }
    let stopped = server.clone();
    process.on_stop(Box::new(move || stopped.shut_down()));
    if let Err(error) = process.ready() {
        server.shut_down();
        return Exit::StartFailed(error.to_string());
    }
    let mut exit = Exit::Ok;
    for thread in threads {
        match thread.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => exit = Exit::StartFailed(format!("an event loop ended: {error}")),
            Err(_) => exit = Exit::StartFailed("an event loop panicked: please report the message above".to_owned()),
        }
    }
    exit
}

fn start_loop(
    server: Arc<Server>,
    number: usize,
    event_loop: EventLoop,
) -> std::io::Result<JoinHandle<std::io::Result<()>>> {
    thread::Builder::new().name(format!("loop-{number}")).spawn(move || {
        let ended = event_loop.run();
        // A loop that fails takes the others with it: half a server would leave clients hanging.
        server.shut_down();
        ended
    })
}
