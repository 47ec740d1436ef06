//! One event loop: waits for edges, gives each connection its turn, releases held replies when their commit has come.
//!
//! ```text
//!   poll -> turns of ready connections -> letters -> commits: release, say what is wanted next, or gather more -> poll
//! ```
//!
//! The race with the log is closed by order: the loop tells the log's listener the smallest version it waits for, then
//! looks at the commit once more before it sleeps. A wake-up for a commit, for room and for a letter is the same bell.
//!
//! Not here: what a turn is (`connection`), who may come in (`accept`), when a sync is asked for (`gathering`).

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bowline::exec::Replies;
use bowline::log::Listener;
use mio::{Events, Poll, Token};

use super::accept::{Accepted, Acceptor, Arrival};
use super::connection::{After, Connection};
use super::gathering::{Gathering, Held};
use super::listen::{Door, Listening};
use super::mailbox::{Letter, Mailbox};
use super::socket::Socket;
use super::waiting::Waiting;
use crate::session::clients::Introduction;
use crate::session::limits::{
    ACCEPT_REST_MS, AUTHENTICATION_SECONDS_MAX, LAST_REPLY_SECONDS_MAX, READ_BYTES, SHUTDOWN_SECONDS_MAX,
    UNREAD_SECONDS_MAX,
};
use crate::session::{Session, SyncsSeen, Waits, Workbench};
use crate::state::Server;

const BELL: Token = Token(usize::MAX);
/// Doors have the tokens below the bell's.
const DOORS_FROM: usize = usize::MAX - 1 - DOORS_MAX;
const DOORS_MAX: usize = 1024;

/// Events taken from one poll.
const EVENTS: usize = 1024;

/// How often a loop looks after time-outs.
const TICK: Duration = Duration::from_secs(1);
/// How often a client that waits for a checkpoint is looked after.
const CHECKPOINT_LOOK: Duration = Duration::from_millis(5);

/// Doors and who deals with the arrivals: on one loop only.
pub struct Reception {
    /// The doors.
    pub doors: Vec<Listening>,
    /// Deals arrivals to the loops.
    pub acceptor: Acceptor,
}

/// A loop before its thread begins.
pub struct EventLoop {
    poll: Poll,
    mailbox: Arc<Mailbox>,
    /// What the log wakes this loop by; none while the store is loaded.
    log: Option<Arc<Listener>>,
    bench: Workbench,
    connections: Vec<Option<Box<Connection>>>,
    free: Vec<usize>,
    waiting: Waiting,
    gathering: Gathering,
    /// This wake-up found nothing to do.
    is_quiet: bool,
    /// Connections to be given another turn.
    to_run: Vec<usize>,
    /// Connections that wait for room in the log.
    for_room: Vec<usize>,
    /// Connections that wait for values from the block file.
    for_values: Vec<usize>,
    /// Connections held back by CLIENT PAUSE.
    paused: Vec<usize>,
    /// Connections that wait for a checkpoint to end.
    saving: Vec<usize>,
    reception: Option<Reception>,
    /// Doors at which more may wait than a turn took; no edge tells of them.
    ready_doors: Vec<usize>,
    rest_until: Option<Instant>,
    /// Memory of the requests and replies of the loop's clients.
    client_bytes: usize,
    /// In this wake-up clients are looked for to be closed only when all hold more than this.
    evict_above: u64,
    spare_replies: Replies,
    buffer: Vec<u8>,
    next_tick: Instant,
    requests_at_tick: u64,
    syncs_seen: SyncsSeen,
    closing_since: Option<Instant>,
}

impl EventLoop {
    /// A loop without doors, and without a store until the server has one. Errors: the system refuses a poll or a
    /// waker.
    pub fn new(server: Arc<Server>) -> io::Result<EventLoop> {
        let poll = Poll::new()?;
        let mailbox = Mailbox::new(poll.registry(), BELL)?;
        Ok(EventLoop {
            poll,
            mailbox,
            log: None,
            bench: Workbench::new(server),
            connections: Vec::new(),
            free: Vec::new(),
            waiting: Waiting::default(),
            gathering: Gathering::default(),
            is_quiet: false,
            to_run: Vec::new(),
            for_room: Vec::new(),
            for_values: Vec::new(),
            paused: Vec::new(),
            saving: Vec::new(),
            reception: None,
            ready_doors: Vec::new(),
            rest_until: None,
            client_bytes: 0,
            evict_above: 0,
            spare_replies: Replies::new(),
            buffer: vec![0; READ_BYTES],
            next_tick: Instant::now() + TICK,
            requests_at_tick: 0,
            syncs_seen: None,
            closing_since: None,
        })
    }

    /// Where letters for this loop go.
    pub fn mailbox(&self) -> Arc<Mailbox> {
        self.mailbox.clone()
    }

    /// Gives the doors to this loop.
    pub fn receive_at(&mut self, mut reception: Reception) -> io::Result<()> {
        let doors = reception.doors.iter_mut().take(DOORS_MAX);
        for (number, listening) in doors.enumerate() {
            let (token, interest) = (Token(DOORS_FROM + number), mio::Interest::READABLE);
            match &mut listening.door {
                Door::Tcp(listener) => self.poll.registry().register(listener, token, interest)?,
                Door::Unix(listener) => self.poll.registry().register(listener, token, interest)?,
            }
        }
        self.reception = Some(reception);
        Ok(())
    }

    /// Runs until shutdown is complete. Errors: the poll itself fails.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        while !self.is_finished() {
            let timeout = self.timeout();
            match self.poll.poll(&mut events, timeout) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            self.is_quiet = events.is_empty() && self.to_run.is_empty() && self.ready_doors.is_empty();
            self.take_store();
            self.bench.now_ms = self.bench.server.now_ms();
            self.bench.refresh_settings();
            for door in std::mem::take(&mut self.ready_doors) {
                self.accept(Some(door));
            }
            for event in &events {
                match event.token() {
                    BELL => {}
                    Token(number) if number >= DOORS_FROM => self.accept(Some(number - DOORS_FROM)),
                    Token(slot) => self.edge(slot, event),
                }
            }
            for letter in self.mailbox.take() {
                self.open_letter(letter);
            }
            self.after_events();
        }
        Ok(())
    }

    /// Takes the store as soon as there is one: before any request of this wake-up, so that no client that was served on
    /// another loop is told here that data is still loaded.
    fn take_store(&mut self) {
        if self.log.is_none()
            && let Some(store) = self.bench.server.opened()
        {
            let bell = self.mailbox.clone();
            self.log = Some(store.log().subscribe(Box::new(move || bell.ring())));
            let bell = self.mailbox.clone();
            self.bench.take_store(Arc::new(move || bell.ring()));
        }
    }

    /// What every wake-up ends with: those that may go on go on, commits release replies, the log learns what is wanted.
    fn after_events(&mut self) {
        let again = std::mem::take(&mut self.to_run);
        for &slot in &again {
            if let Some(connection) = self.connection(slot) {
                connection.queued_to_run = false;
                self.turn(slot);
            }
        }
        self.retry_paused();
        for slot in std::mem::take(&mut self.saving) {
            self.go_on(slot);
        }
        self.retry_for_room();
        self.retry_for_values();
        self.release();
        self.evict_above = 0;
        self.bench.count_lookups();
        self.tick();
    }

    fn connection(&mut self, slot: usize) -> Option<&mut Connection> {
        self.connections.get_mut(slot)?.as_deref_mut()
    }

    /// How long to sleep: not at all when something is runnable.
    fn timeout(&self) -> Option<Duration> {
        if !self.to_run.is_empty() || !self.ready_doors.is_empty() || self.gathering.puts_off() {
            return Some(Duration::ZERO);
        }
        let now = Instant::now();
        let mut until = self.next_tick;
        if let Some(rest) = self.rest_until {
            until = until.min(rest);
        }
        let mut timeout = until.saturating_duration_since(now);
        if !self.paused.is_empty() {
            let left = self.bench.server.paused_until_ms().saturating_sub(self.bench.now_ms);
            timeout = timeout.min(Duration::from_millis(left.max(1)));
        }
        if !self.saving.is_empty() {
            timeout = timeout.min(CHECKPOINT_LOOK);
        }
        Some(timeout)
    }

    fn edge(&mut self, slot: usize, event: &mio::event::Event) {
        let Some(connection) = self.connection(slot) else { return };
        connection.ended |= event.is_read_closed() || event.is_error();
        connection.readable |= event.is_readable() || connection.ended;
        if event.is_writable() {
            connection.blocked = false;
        }
        // The edge that comes with registration finds nothing to do here.
        let idle = !connection.readable && connection.session.output_bytes() == 0;
        if !idle {
            self.turn(slot);
        }
    }

    /// Gives a connection a turn and does what follows from it.
    fn turn(&mut self, slot: usize) {
        let Some(connection) = self.connections.get_mut(slot).and_then(|place| place.as_deref_mut()) else { return };
        connection.session.lend_replies(&mut self.spare_replies);
        let after = connection.turn(&mut self.bench, &mut self.buffer);
        connection.session.return_replies(&mut self.spare_replies);
        self.weigh(slot);
        self.follow(slot, after);
    }

    /// Writes what may leave and does what follows.
    fn flush(&mut self, slot: usize) {
        let Some(connection) = self.connections.get_mut(slot).and_then(|place| place.as_deref_mut()) else { return };
        let after = connection.finish(&self.bench);
        connection.session.return_replies(&mut self.spare_replies);
        self.weigh(slot);
        self.follow(slot, after);
    }

    /// Keeps the sum of what the loop's clients hold, and bounds it.
    fn weigh(&mut self, slot: usize) {
        let Some(connection) = self.connections.get_mut(slot).and_then(|place| place.as_deref_mut()) else { return };
        let bytes = connection.session.memory_bytes();
        let before = std::mem::replace(&mut connection.weighed, bytes);
        if bytes == before {
            return;
        }
        connection.session.client.memory_bytes.store(bytes as u64, Relaxed);
        self.client_bytes = self.client_bytes - before + bytes;
        self.bench.metrics.clients_hold(self.client_bytes);
        if bytes > before {
            self.evict_clients();
        }
    }

    /// Closes the clients that hold the most while all together hold more than `maxmemory-clients`.
    fn evict_clients(&mut self) {
        let limit = self.bench.settings.client_memory_limit();
        if limit == 0 || self.bench.server.metrics.client_bytes() <= self.evict_above.max(limit) {
            return;
        }
        let server = self.bench.server.clone();
        for client in server.clients.choose_to_evict(limit) {
            let bytes = client.memory_bytes.load(Relaxed);
            tracing::warn!(client = client.id, bytes, limit, "closes a client: all hold more than maxmemory-clients");
            server.metrics.clients_evicted.fetch_add(1, Relaxed);
            if client.is_at(&self.mailbox) {
                self.close_client(client.id);
            } else {
                client.kill();
            }
        }
        // What is left is being closed by other loops or may not be: it is not looked for again with every turn.
        self.evict_above = server.metrics.client_bytes() + limit / 8;
    }

    fn follow(&mut self, slot: usize, after: After) {
        if after == After::Close {
            return self.close(slot);
        }
        let Some(connection) = self.connections.get_mut(slot).and_then(|place| place.as_deref_mut()) else { return };
        if after == After::Again && !connection.queued_to_run {
            connection.queued_to_run = true;
            self.to_run.push(slot);
        }
        if connection.queued_for.is_none()
            && let Some(version) = connection.session.awaited_version(connection.written_at)
        {
            connection.queued_for = Some(version);
            self.waiting.insert(version, slot, connection.session.client.id);
        }
        if connection.parked {
            return;
        }
        let queue = match connection.session.waits() {
            Waits::No => return,
            Waits::Room => &mut self.for_room,
            Waits::Values => &mut self.for_values,
            Waits::Pause => &mut self.paused,
            Waits::Checkpoint => &mut self.saving,
        };
        connection.parked = true;
        queue.push(slot);
    }

    /// Sends the replies whose commit has come, then tells the log which version is wanted next.
    fn release(&mut self) {
        loop {
            let commit = self.bench.server.commit();
            while let Some((slot, client)) = self.waiting.pop_committed(commit) {
                let here = self.connection(slot).filter(|connection| connection.session.client.id == client);
                if let Some(connection) = here {
                    connection.queued_for = None;
                    self.flush(slot);
                }
            }
            let (Some(first), Some(listener)) = (self.waiting.first(), &self.log) else {
                return self.gathering.rest();
            };
            let connections = self.connections.len() - self.free.len();
            let held = Held { first, waiting: self.waiting.len(), connections, is_quiet: self.is_quiet };
            if !self.gathering.is_due(held) {
                return;
            }
            // All that is held is asked for now: the log's next group begins when this one ends, not when we wake.
            let log = self.bench.server.store().log();
            let last = log.last_version();
            self.gathering.ask(last);
            log.request_sync(last);
            let settled = listener.want(first);
            if !settled || log.is_poisoned() {
                return;
            }
        }
    }

    /// Tries those again that found no room in the log. Whoever still finds none comes back into the queue.
    fn retry_for_room(&mut self) {
        let Some(listener) = self.log.as_ref().filter(|_| !self.for_room.is_empty()) else { return };
        // Asked for before the try: room that comes in between rings as well.
        listener.want_room();
        for slot in std::mem::take(&mut self.for_room) {
            self.go_on(slot);
        }
    }

    fn retry_for_values(&mut self) {
        for slot in std::mem::take(&mut self.for_values) {
            match self.connection(slot) {
                Some(connection) if !connection.session.has_values() => self.for_values.push(slot),
                Some(_) => self.go_on(slot),
                None => {}
            }
        }
    }

    fn retry_paused(&mut self) {
        if self.paused.is_empty() || self.bench.server.paused(self.bench.now_ms).is_some() {
            return;
        }
        for slot in std::mem::take(&mut self.paused) {
            self.go_on(slot);
        }
    }

    fn go_on(&mut self, slot: usize) {
        if let Some(connection) = self.connection(slot) {
            connection.parked = false;
            connection.session.stop_waiting();
            self.turn(slot);
        }
    }

    fn accept(&mut self, number: Option<usize>) {
        let Some(reception) = &mut self.reception else { return };
        let chosen = |door: usize| number.is_none_or(|number| number == door);
        for (door, listening) in reception.doors.iter().enumerate() {
            if !chosen(door) {
                continue;
            }
            match reception.acceptor.accept_turn(listening) {
                Accepted::All => {}
                Accepted::More if self.ready_doors.contains(&door) => {}
                Accepted::More => self.ready_doors.push(door),
                Accepted::Exhausted => {
                    self.rest_until = Some(Instant::now() + Duration::from_millis(ACCEPT_REST_MS));
                }
            }
        }
    }

    fn open_letter(&mut self, letter: Letter) {
        match letter {
            Letter::Arrival(arrival) => self.admit(arrival),
            Letter::Kill { client } => self.close_client(client),
            Letter::Opened | Letter::Unpaused => {}
            Letter::Shutdown => self.begin_shutdown(),
        }
    }

    /// Takes a connection in.
    fn admit(&mut self, arrival: Arrival) {
        let Arrival { mut socket, dialect, peer, local } = arrival;
        if self.closing_since.is_some() {
            self.bench.server.metrics.connections.fetch_sub(1, Relaxed);
            return;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        if let Err(error) = socket.register(self.poll.registry(), Token(slot)) {
            tracing::warn!(%error, "cannot watch a connection; it is closed");
            self.free.push(slot);
            self.bench.server.metrics.connections.fetch_sub(1, Relaxed);
            return;
        }
        let client = self.bench.server.clients.register(Introduction {
            peer,
            local,
            unix: matches!(socket, Socket::Unix(_)),
            descriptor: socket.descriptor(),
            now_ms: self.bench.now_ms,
            home: self.mailbox.clone(),
        });
        let session = Session::new(client, dialect, &self.bench.settings);
        if let Some(place) = self.connections.get_mut(slot) {
            *place = Some(Box::new(Connection::new(socket, session, self.bench.now_ms)));
        }
        // What was sent before registration makes an edge as well; the read costs less than being wrong about it.
        self.turn(slot);
    }

    /// Closes the connection of a client, if it is still here.
    fn close_client(&mut self, id: u64) {
        let here = |place: &Option<Box<Connection>>| {
            place.as_ref().is_some_and(|connection| connection.session.client.id == id)
        };
        if let Some(slot) = self.connections.iter().position(here) {
            self.close(slot);
        }
    }

    fn close(&mut self, slot: usize) {
        let Some(connection) = self.connections.get_mut(slot).and_then(Option::take) else { return };
        self.bench.server.clients.forget(connection.session.client.id);
        self.bench.server.metrics.connections.fetch_sub(1, Relaxed);
        connection.socket.shutdown();
        self.client_bytes -= connection.weighed;
        self.bench.metrics.clients_hold(self.client_bytes);
        if connection.parked {
            // The slot's next connection has not waited for this.
            self.for_room.retain(|held| *held != slot);
            self.for_values.retain(|held| *held != slot);
            self.paused.retain(|held| *held != slot);
            self.saving.retain(|held| *held != slot);
        }
        self.free.push(slot);
    }

    /// Once a second: time-outs, the rate of requests, a rest at the doors that is over.
    fn tick(&mut self) {
        let now = Instant::now();
        if self.rest_until.is_some_and(|until| until <= now) {
            self.rest_until = None;
            self.accept(None);
        }
        if now < self.next_tick {
            return;
        }
        self.next_tick = now + TICK;
        if self.reception.is_some() {
            self.bench.server.metrics.measure_rate(&mut self.requests_at_tick);
            self.bench.watch_syncs(&mut self.syncs_seen);
        }
        self.close_timed_out();
    }

    fn close_timed_out(&mut self) {
        let now_ms = self.bench.now_ms;
        for slot in 0..self.connections.len() {
            if let Some(connection) = self.connection(slot) {
                connection.session.end_idle_backup(now_ms);
            }
            let place = self.connections.get(slot).and_then(|place| place.as_deref());
            if let Some(connection) = place {
                connection.session.publish();
                if self.is_overdue(connection) {
                    self.close(slot);
                }
            }
        }
    }

    fn is_overdue(&self, connection: &Connection) -> bool {
        let Connection { session, active_ms, .. } = connection;
        let (settings, now_ms) = (self.bench.settings(), self.bench.now_ms);
        let quiet_ms = now_ms.saturating_sub(*active_ms);
        let age_ms = now_ms.saturating_sub(session.stranger_since_ms);
        if !session.is_authenticated(&settings) && age_ms > AUTHENTICATION_SECONDS_MAX * 1000 {
            return true;
        }
        // Who waits for us is not idle.
        if session.waits() != Waits::No || connection.queued_for.is_some() {
            return false;
        }
        let unread = session.is_over_reply_limit(&self.bench) && quiet_ms > UNREAD_SECONDS_MAX * 1000;
        if unread {
            self.bench.server.metrics.output_limit_closes.fetch_add(1, Relaxed);
            let (client, unread) = (session.client.id, session.output_bytes());
            tracing::warn!(client, unread, "closes a connection that does not read its replies");
        }
        let idle = settings.timeout > 0 && quiet_ms > u64::from(settings.timeout) * 1000;
        let stuck = session.is_closing() && quiet_ms > LAST_REPLY_SECONDS_MAX * 1000;
        unread || idle || stuck
    }

    fn begin_shutdown(&mut self) {
        if self.closing_since.is_some() {
            return;
        }
        self.closing_since = Some(Instant::now());
        self.reception = None;
        for slot in 0..self.connections.len() {
            if let Some(connection) = self.connection(slot) {
                connection.session.close_after_replies();
                self.flush(slot);
            }
        }
    }

    /// Whether shutdown was asked for and nothing is left to answer, or it took too long.
    fn is_finished(&self) -> bool {
        let Some(since) = self.closing_since else { return false };
        let all_closed = self.free.len() == self.connections.len();
        all_closed || since.elapsed() > Duration::from_secs(SHUTDOWN_SECONDS_MAX)
    }
}
