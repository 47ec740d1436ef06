//! What the server knows of its clients, for CLIENT LIST, INFO and KILL: one shared record per connection.
//!
//! The connection's own loop writes the numbers (plain stores, no locked instruction); any loop reads them. Names
//! change rarely and stand behind a mutex. A record never leads to the connection itself: a kill is a letter with the
//! client's id to its loop, and an id is never used twice.

use std::cmp::Reverse;
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
    /// Memory of its requests and replies, of what MULTI queued and WATCH noted.
    pub memory_bytes: AtomicU64,
    /// It was chosen to be closed because all clients together held too much.
    evicted: AtomicBool,
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

    /// Wakes the connection's loop: something that the client waits for may be there.
    pub fn wake(&self) {
        self.home.ring();
    }

    /// Whether its loop is the one of this mailbox.
    pub fn is_at(&self, mailbox: &Arc<Mailbox>) -> bool {
        Arc::ptr_eq(&self.home, mailbox)
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
            self.memory_bytes.load(Relaxed) + CLIENT_BYTES,
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
            memory_bytes: AtomicU64::new(0),
            evicted: AtomicBool::new(false),
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

    /// Chooses clients to be closed so that the others hold at most `limit` bytes together: those with the most first.
    /// Those with CLIENT NO-EVICT are counted and not chosen; who was chosen before is gone already.
    pub fn choose_to_evict(&self, limit: u64) -> Vec<Arc<Client>> {
        let by_id = self.by_id.lock();
        let left = by_id.values().filter(|client| !client.evicted.load(Relaxed));
        let mut holding: Vec<_> = left.map(|client| (client.memory_bytes.load(Relaxed), client)).collect();
        let mut total: u64 = holding.iter().map(|(bytes, _)| bytes).sum();
        holding.retain(|(bytes, client)| *bytes > 0 && !client.no_evict.load(Relaxed));
        holding.sort_unstable_by_key(|(bytes, client)| Reverse((*bytes, client.id)));
        let mut chosen = Vec::new();
        for (bytes, client) in holding {
            if total <= limit {
                break;
            }
            total -= bytes;
            client.evicted.store(true, Relaxed);
            chosen.push(client.clone());
        }
        chosen
    }

    /// Every client, oldest first.
    pub fn all(&self) -> Vec<Arc<Client>> {
        self.by_id.lock().values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Clients that hold so many bytes; their ids are 1, 2, ...
    fn holding(bytes: &[u64]) -> Clients {
        let poll = mio::Poll::new().unwrap();
        let home = Mailbox::new(poll.registry(), mio::Token(0)).unwrap();
        let clients = Clients::default();
        for bytes in bytes {
            let (peer, local) = ("127.0.0.1:50000".to_owned(), "127.0.0.1:6379".to_owned());
            let told = Introduction { peer, local, unix: false, descriptor: 9, now_ms: 0, home: home.clone() };
            clients.register(told).memory_bytes.store(*bytes, Relaxed);
        }
        clients
    }

    fn chosen(clients: &Clients, limit: u64) -> Vec<u64> {
        clients.choose_to_evict(limit).iter().map(|client| client.id).collect()
    }

    #[test]
    fn those_with_the_most_are_evicted_until_the_others_fit() {
        let clients = holding(&[10, 500, 0, 40, 300]);
        assert_eq!(chosen(&clients, 850), [0; 0]);
        assert_eq!(chosen(&clients, 100), [2, 5]);
        assert_eq!(chosen(&clients, 100), [0; 0], "they are gone, though they may still be in the list");
        assert_eq!(chosen(&clients, 0), [4, 1], "who holds nothing is of no use");
    }

    #[test]
    fn who_asked_not_to_be_evicted_is_counted_and_kept() {
        let clients = holding(&[10, 500, 40]);
        clients.all()[1].no_evict.store(true, Relaxed);
        assert_eq!(chosen(&clients, 520), [3]);
        assert_eq!(chosen(&clients, 100), [1]);
    }
}
