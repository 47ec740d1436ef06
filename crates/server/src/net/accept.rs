//! Who may come in: takes connections from the doors and hands them round to the event loops.
//!
//! A connection over `max_connections`, and one from another machine while protected mode holds, gets its refusal in
//! one write and is closed. The same holds for one over what the limit of open files has room for, beside what the log
//! needs: strangers cannot take the descriptors of its next file. At most [`ACCEPT_TURN_MAX`] are taken at a time, so
//! that a flood at the doors does not keep those waiting who are in. When descriptors run out, a spare one is given up for a moment, so that the waiting
//! connection is taken and closed (its client learns at once) and the loop does not spin on an edge that stays; if
//! even that fails, the doors rest for a tenth of a second.
//!
//! Not here: the sockets of the doors (`listen`), what happens on a connection (`connection`).

use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};

use super::listen::{Dialect, Door, Listening};
use super::mailbox::{Letter, Mailbox};
use super::socket::Socket;
use crate::session::limits::{ACCEPT_TURN_MAX, OTHER_FILES};
use crate::state::Server;

/// Redis's text for a client that protected mode turns away.
const DENIED: &[u8] = b"-DENIED kv_server runs in protected mode because no password is set. In this mode only \
connections from this machine (loopback, UNIX socket) are accepted. To accept others: set a password (requirepass), \
or bind to the right interfaces behind a firewall and run 'CONFIG SET protected-mode no' from this machine.\r\n";

/// How often the want of descriptors is told at most.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// What a client over the limit is told.
const FULL: &[u8] = b"-ERR max number of clients reached\r\n";

/// A connection on its way to its loop.
#[derive(Debug)]
pub struct Arrival {
    /// The socket, tuned, not yet registered.
    pub socket: Socket,
    /// What is spoken on it.
    pub dialect: Dialect,
    /// The peer as "address:port", or the UNIX socket's path with ":0".
    pub peer: String,
    /// Our end, written likewise.
    pub local: String,
}

/// What a try to empty a door ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// Nobody waits any more.
    All,
    /// As many as one turn may take; more may wait. No new edge tells of them: accept again after other work.
    More,
    /// The system has no room for another connection now; try again in a while.
    Exhausted,
}

/// Takes connections and deals them out in turn.
#[derive(Debug)]
pub struct Acceptor {
    server: Arc<Server>,
    loops: Vec<Arc<Mailbox>>,
    next: usize,
    spare: Option<File>,
    warned: Option<Instant>,
}

impl Acceptor {
    /// An acceptor that deals to `loops`.
    pub fn new(server: Arc<Server>, loops: Vec<Arc<Mailbox>>) -> Acceptor {
        Acceptor { server, loops, next: 0, spare: File::open("/dev/null").ok(), warned: None }
    }

    /// Takes every connection that waits at a door.
    pub fn accept(&mut self, listening: &Listening) -> Accepted {
        loop {
            let accepted = self.accept_turn(listening);
            if accepted != Accepted::More {
                return accepted;
            }
        }
    }

    /// Takes connections that wait at a door, at most [`ACCEPT_TURN_MAX`], those that are refused counted.
    pub fn accept_turn(&mut self, listening: &Listening) -> Accepted {
        for _ in 0..ACCEPT_TURN_MAX {
            let taken = match &listening.door {
                Door::Tcp(listener) => listener.accept().map(|(stream, peer)| self.admit_tcp(stream, peer)),
                Door::Unix(listener) => listener.accept().map(|(stream, _)| self.admit_unix(stream, listener)),
            };
            match taken {
                Ok(Some(mut arrival)) => {
                    arrival.dialect = listening.dialect;
                    self.deal(arrival);
                }
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Accepted::All,
                Err(error) if is_exhaustion(&error) => {
                    self.server.metrics.accept_failures.fetch_add(1, Relaxed);
                    if !self.turn_one_away(&listening.door) {
                        self.warn(&error);
                        return Accepted::Exhausted;
                    }
                }
                // The peer went away before it was taken, or was interrupted: the next one may be fine.
                Err(_) => {}
            }
        }
        Accepted::More
    }

    /// Says it once in a while and not with every try.
    fn warn(&mut self, error: &io::Error) {
        if self.warned.is_none_or(|last| last.elapsed() >= WARN_EVERY) {
            self.warned = Some(Instant::now());
            tracing::warn!(%error, "cannot accept connections: raise the limit of open files");
        }
    }

    fn deal(&mut self, arrival: Arrival) {
        self.server.metrics.connections_received.fetch_add(1, Relaxed);
        // Counted here and not in the loop, so that a burst cannot slip past the limit.
        self.server.metrics.connections.fetch_add(1, Relaxed);
        let mailbox = self.loops.get(self.next % self.loops.len().max(1));
        self.next = self.next.wrapping_add(1);
        if let Some(mailbox) = mailbox {
            mailbox.send(Letter::Arrival(arrival));
        }
    }

    fn admit_tcp(&self, stream: mio::net::TcpStream, peer: SocketAddr) -> Option<Arrival> {
        let local = stream.local_addr().map_or_else(|_| String::new(), |local| local.to_string());
        let mut socket = Socket::Tcp(stream);
        let settings = self.server.settings.current();
        let refusal = if self.is_full() {
            Some(FULL)
        } else if settings.protected_mode && settings.requirepass.is_empty() && !peer.ip().to_canonical().is_loopback()
        {
            Some(DENIED)
        } else {
            None
        };
        if let Some(text) = refusal {
            self.refuse(&mut socket, text);
            return None;
        }
        socket.tune(settings.tcp_keepalive);
        Some(Arrival { socket, dialect: Dialect::Resp, peer: peer.to_string(), local })
    }

    fn admit_unix(&self, stream: mio::net::UnixStream, listener: &mio::net::UnixListener) -> Option<Arrival> {
        let mut socket = Socket::Unix(stream);
        if self.is_full() {
            self.refuse(&mut socket, FULL);
            return None;
        }
        let path = listener.local_addr().ok().and_then(|address| address.as_pathname().map(ToOwned::to_owned));
        let local = format!("{}:0", path.unwrap_or_default().display());
        Some(Arrival { socket, dialect: Dialect::Resp, peer: local.clone(), local })
    }

    fn is_full(&self) -> bool {
        let most = connections_accepted(self.server.settings.current().max_connections);
        self.server.metrics.connections.load(Relaxed) >= u64::from(most)
    }

    fn refuse(&self, socket: &mut Socket, text: &[u8]) {
        self.server.metrics.connections_rejected.fetch_add(1, Relaxed);
        // A new socket's buffer takes these few bytes; if not, the client sees the close only.
        let _ = socket.write(text);
        socket.shutdown_write();
    }

    /// Gives the spare descriptor up to take and close one waiting connection. False: not even that helped.
    fn turn_one_away(&mut self, door: &Door) -> bool {
        if self.spare.take().is_none() {
            self.spare = File::open("/dev/null").ok();
            return false;
        }
        let taken = match door {
            Door::Tcp(listener) => listener.accept().is_ok(),
            Door::Unix(listener) => listener.accept().is_ok(),
        };
        self.spare = File::open("/dev/null").ok();
        self.server.metrics.connections_rejected.fetch_add(u64::from(taken), Relaxed);
        taken && self.spare.is_some()
    }
}

/// How many connections are accepted when so many are wanted: no more than the limit of open files has room for. Asked
/// anew each time, as a change of `max_connections` may have raised that limit.
pub fn connections_accepted(max_connections: u32) -> u32 {
    connections_max(max_connections, getrlimit(Resource::Nofile).current)
}

/// How many connections there may be under these limits; `None`: any number of open files.
fn connections_max(max_connections: u32, open_files: Option<u64>) -> u32 {
    let room = open_files.unwrap_or(u64::MAX).saturating_sub(OTHER_FILES);
    max_connections.min(u32::try_from(room).unwrap_or(u32::MAX))
}

/// Whether no further connection can be had for want of descriptors or memory.
fn is_exhaustion(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    error.raw_os_error().is_some_and(|code| exhausted.iter().any(|errno| errno.raw_os_error() == code))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use mio::{Poll, Token};

    use super::super::listen::unix;
    use super::*;
    use crate::settings::{SettingsStore, Sources};

    /// An acceptor of a server with these settings, and the mailbox of its only loop.
    fn acceptor(changes: &[(&str, &str)]) -> (Acceptor, Arc<Mailbox>, Poll) {
        let settings = Arc::new(SettingsStore::load(Sources::default()).unwrap());
        settings.set(changes).unwrap();
        let poll = Poll::new().unwrap();
        let mailbox = Mailbox::new(poll.registry(), Token(0)).unwrap();
        (Acceptor::new(Server::new(settings), vec![mailbox.clone()]), mailbox, poll)
    }

    #[test]
    fn only_exhaustion_pauses_the_doors() {
        assert!(is_exhaustion(&rustix::io::Errno::MFILE.into()));
        assert!(!is_exhaustion(&rustix::io::Errno::CONNABORTED.into()));
    }

    #[test]
    fn a_turn_takes_a_bounded_number_and_says_that_more_may_wait() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let (listening, _file) = unix(&path, 0o766, 256).unwrap();
        let (mut acceptor, mailbox, _poll) = acceptor(&[]);
        let clients: Vec<_> = (0..ACCEPT_TURN_MAX + 1).map(|_| UnixStream::connect(&path).unwrap()).collect();
        assert_eq!(acceptor.accept_turn(&listening), Accepted::More);
        assert_eq!(mailbox.take().len(), ACCEPT_TURN_MAX);
        assert_eq!(acceptor.accept_turn(&listening), Accepted::All);
        assert_eq!(mailbox.take().len(), clients.len() - ACCEPT_TURN_MAX);
    }

    #[test]
    fn a_connection_over_the_limit_is_refused_also_after_the_limit_was_changed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let (listening, _file) = unix(&path, 0o766, 16).unwrap();
        let (mut acceptor, mailbox, _poll) = acceptor(&[("maxclients", "1")]);
        let _clients = [UnixStream::connect(&path).unwrap(), UnixStream::connect(&path).unwrap()];
        assert_eq!(acceptor.accept_turn(&listening), Accepted::All);
        assert_eq!(mailbox.take().len(), 1);
        acceptor.server.settings.set(&[("maxclients", "4294967295")]).unwrap();
        let _third = UnixStream::connect(&path).unwrap();
        assert_eq!(acceptor.accept_turn(&listening), Accepted::All);
        assert_eq!(mailbox.take().len(), 1);
        let open_files = getrlimit(Resource::Nofile).current.unwrap();
        acceptor.server.metrics.connections.store(open_files - OTHER_FILES, Relaxed);
        let _fourth = UnixStream::connect(&path).unwrap();
        assert_eq!(acceptor.accept_turn(&listening), Accepted::All);
        assert_eq!(mailbox.take().len(), 0, "the rest of the descriptors is the log's");
    }

    #[test]
    fn connections_leave_descriptors_to_the_log() {
        assert_eq!(connections_max(10_000, Some(1024)), 1024 - 64);
        assert_eq!(connections_max(100, Some(1024)), 100);
        assert_eq!(connections_max(100, None), 100);
        assert_eq!(connections_max(u32::MAX, Some(10)), 0);
    }
}
