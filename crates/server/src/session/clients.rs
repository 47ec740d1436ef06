//! What the server knows of its clients, for CLIENT LIST, INFO and KILL: one shared record per connection.
//!
//! The connection's own loop writes the numbers (plain stores, no locked instruction); any loop reads them. Names
//! change rarely and stand behind a mutex. A record never leads to the connection itself: a kill is a letter with the
//! client's id to its loop, and an id is never used twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::net::mailbox::{Letter, Mailbox};

/// Names that a client gives itself.
#[derive(Debug, Clone, Default)]
pub struct ClientNames {
    /// CLIENT SETNAME.
    pub name: String,
    /// CLIENT SETINFO LIB-NAME.
    pub library: String,
    /// CLIENT SETINFO LIB-VER.
    pub library_version: String,
}

/// One connection as the others see it.
#[derive(Debug)]
pub struct Client {
    /// Its id; rises from 1 and is never used again.
    pub id: u64,
    /// The peer's address, "ip:port" or "path:0".
    pub peer: String,
    /// Our address.
    pub local: String,
    /// Whether it came through the UNIX socket.
    pub unix: bool,
    /// Number of the descriptor.
    pub descriptor: i32,
    /// Unix time in milliseconds of the accept.
    pub since_ms: u64,
    /// Names.
    pub names: Mutex<ClientNames>,
    /// Unix time in milliseconds of the last request.
    pub active_ms: AtomicU64,
    /// Selected database.
    pub database: AtomicU32,
    /// Index in the command table of the last command; `u16::MAX` = none yet.
    pub command: AtomicU16,
    /// Protocol version, 2 or 3.
    pub protocol: AtomicU16,
    /// Commands queued by MULTI; -1 = no MULTI.
    pub queued: AtomicI64,
    /// Keys watched.
    pub watched: AtomicU32,
    /// Bytes received and not executed.
    pub input_bytes: AtomicU64,
    /// Reply bytes not sent.
    pub output_bytes: AtomicU64,
    /// CLIENT NO-EVICT.
    pub no_evict: AtomicBool,
    /// CLIENT NO-TOUCH.
    pub no_touch: AtomicBool,
    home: Arc<Mailbox>,
}

impl Client {
    /// Asks the connection's loop to close it.
    pub fn kill(&self) {
        self.home.send(Letter::Kill { client: self.id });
    }

    /// Whether it comes from this machine.
    pub fn is_local(&self) -> bool {
        self.unix || self.peer.parse::<std::net::SocketAddr>().is_ok_and(|peer| peer.ip().to_canonical().is_loopback())
    }

    /// The line of CLIENT LIST, without a line end. `now_ms` is Unix time; `command` turns an index into a name.
    pub fn line(&self, now_ms: u64, command: &dyn Fn(u16) -> &'static str) -> String {
        let names = self.names.lock().clone();
        let seconds = |ms: u64| now_ms.saturating_sub(ms) / 1000;
        let queued = self.queued.load(Relaxed);
        let mut flags = String::new();
        for (set, letter) in [
            (queued >= 0, 'x'),
            (self.unix, 'U'),
            (self.no_evict.load(Relaxed), 'e'),
            (self.no_touch.load(Relaxed), 'T'),
        ] {
            flags.extend(set.then_some(letter));
        }
        if flags.is_empty() {
            flags.push('N');
        }
        let (input, output) = (self.input_bytes.load(Relaxed), self.output_bytes.load(Relaxed));
        format!(
            "id={} addr={} laddr={} fd={} name={} age={} idle={} flags={flags} db={} sub=0 psub=0 ssub=0 multi={queued} \
             watch={} qbuf={input} qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl={output} oll=0 omem={output} \
             tot-mem={} events=r cmd={} user=default redir=-1 resp={} lib-name={} lib-ver={}",
            self.id,
            self.peer,
            self.local,
            self.descriptor,
            names.name,
            seconds(self.since_ms),
            seconds(self.active_ms.load(Relaxed)),
            self.database.load(Relaxed),
            self.watched.load(Relaxed),
            input + output + CLIENT_BYTES,
            command(self.command.load(Relaxed)),
            self.protocol.load(Relaxed),
            names.library,
            names.library_version,
        )
    }
}

/// About what an idle connection takes in this process: socket, session and record.
const CLIENT_BYTES: u64 = 1024;

/// All clients by id.
#[derive(Debug, Default)]
pub struct Clients {
    last_id: AtomicU64,
    by_id: Mutex<BTreeMap<u64, Arc<Client>>>,
}

/// What a connection tells of itself when it is registered.
#[derive(Debug)]
pub struct Introduction {
    /// The peer's address.
    pub peer: String,
    /// Our address.
    pub local: String,
    /// Whether it came through the UNIX socket.
    pub unix: bool,
    /// Number of the descriptor.
    pub descriptor: i32,
    /// Unix time, milliseconds.
    pub now_ms: u64,
    /// The mailbox of its loop.
    pub home: Arc<Mailbox>,
}

impl Clients {
    /// Registers a connection and gives it an id.
    pub fn register(&self, told: Introduction) -> Arc<Client> {
        let client = Arc::new(Client {
            id: self.last_id.fetch_add(1, Relaxed) + 1,
            peer: told.peer,
            local: told.local,
            unix: told.unix,
            descriptor: told.descriptor,
            since_ms: told.now_ms,
            names: Mutex::default(),
            active_ms: AtomicU64::new(told.now_ms),
            database: AtomicU32::new(0),
            command: AtomicU16::new(u16::MAX),
            protocol: AtomicU16::new(2),
            queued: AtomicI64::new(-1),
            watched: AtomicU32::new(0),
            input_bytes: AtomicU64::new(0),
            output_bytes: AtomicU64::new(0),
            no_evict: AtomicBool::new(false),
            no_touch: AtomicBool::new(false),
            home: told.home,
        });
        self.by_id.lock().insert(client.id, client.clone());
        client
    }

    /// Forgets a connection that closed.
    pub fn forget(&self, id: u64) {
        self.by_id.lock().remove(&id);
    }

    /// Every client, oldest first.
    pub fn all(&self) -> Vec<Arc<Client>> {
        self.by_id.lock().values().cloned().collect()
    }
}
