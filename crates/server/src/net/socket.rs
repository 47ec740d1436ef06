//! A connected socket of either kind, with what must be set on it.

use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use mio::event::Source;
use mio::{Interest, Registry, Token};

/// A connected stream socket, not blocking.
#[derive(Debug)]
pub enum Socket {
    /// TCP, either family.
    Tcp(mio::net::TcpStream),
    /// A UNIX socket.
    Unix(mio::net::UnixStream),
}

impl Socket {
    /// Sends small replies at once and notices dead peers: TCP_NODELAY always, keepalive every `keepalive_seconds`
    /// (0 = off). Errors are of no consequence for correctness and are dropped: the peer may be gone already.
    pub fn tune(&self, keepalive_seconds: u32) {
        let Socket::Tcp(stream) = self else { return };
        let _ = stream.set_nodelay(true);
        if keepalive_seconds > 0 {
            let every = Duration::from_secs(u64::from(keepalive_seconds));
            // Three probes within a third of the interval each, as Redis does.
            let keepalive = socket2::TcpKeepalive::new()
                .with_time(every)
                .with_interval((every / 3).max(Duration::from_secs(1)))
                .with_retries(3);
            let _ = socket2::SockRef::from(stream).set_tcp_keepalive(&keepalive);
        }
    }

    /// Asks to be told of readable and writable edges.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        match self {
            Socket::Tcp(stream) => stream.register(registry, token, interest),
            Socket::Unix(stream) => stream.register(registry, token, interest),
        }
    }

    /// Ends both directions; the descriptor closes on drop.
    pub fn shutdown(&self) {
        let _ = match self {
            Socket::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Socket::Unix(stream) => stream.shutdown(Shutdown::Both),
        };
    }

    /// Ends our direction only, so that the last reply reaches a peer that is still sending.
    pub fn shutdown_write(&self) {
        let _ = match self {
            Socket::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Socket::Unix(stream) => stream.shutdown(Shutdown::Write),
        };
    }

    /// The descriptor's number, as CLIENT LIST shows it.
    pub fn descriptor(&self) -> i32 {
        use std::os::fd::AsRawFd;
        match self {
            Socket::Tcp(stream) => stream.as_raw_fd(),
            Socket::Unix(stream) => stream.as_raw_fd(),
        }
    }
}

impl Socket {
    /// Reads to the end of a vector, as much as it has room for without growing.
    pub fn read_to_end_of(&mut self, bytes: &mut Vec<u8>) -> io::Result<usize> {
        let space = rustix::buffer::spare_capacity(bytes);
        let read = match self {
            Socket::Tcp(stream) => rustix::io::read(&*stream, space),
            Socket::Unix(stream) => rustix::io::read(&*stream, space),
        };
        Ok(read?)
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.read(buffer),
            Socket::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.write(bytes),
            Socket::Unix(stream) => stream.write(bytes),
        }
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.write_vectored(pieces),
            Socket::Unix(stream) => stream.write_vectored(pieces),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
