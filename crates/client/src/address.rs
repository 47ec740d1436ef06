//! Where a server listens, and the socket to it.
//!
//! [`Address`] is the place as a person writes it; [`Stream`] is one connected socket of either kind. Not here: the
//! protocol (`connection`) and trying again (`client`).

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// The port of a server that was given none.
pub const DEFAULT_PORT: u16 = 6379;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A host name or IP address, and a port.
    Tcp {
        /// Name, IPv4 address, or IPv6 address without brackets.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// The path of a UNIX socket.
    Unix(PathBuf),
}

impl Default for Address {
    fn default() -> Self {
        Address::Tcp { host: "127.0.0.1".to_owned(), port: DEFAULT_PORT }
    }
}

/// The text is not `host:port`, `host`, `:port`, `[ipv6]:port` or `unix:/path`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is not an address: {what}; write host:port, [ipv6]:port or unix:/path")]
pub struct AddressError {
    text: String,
    what: &'static str,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = |what| AddressError { text: text.to_owned(), what };
        if text.is_empty() {
            return Err(wrong("it is empty"));
        }
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() { Err(wrong("the path is empty")) } else { Ok(Address::Unix(path.into())) };
        }
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, after) = rest.split_once(']').ok_or_else(|| wrong("the bracket is not closed"))?;
            match after.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if after.is_empty() => (host, None),
                None => return Err(wrong("a colon and a port must follow the bracket")),
            }
        } else {
            match text.split_once(':') {
                Some((_, port)) if port.contains(':') => (text, None),
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            }
        };
        let port = match port {
            None => DEFAULT_PORT,
            Some(digits) => match digits.parse() {
                Ok(port) if port != 0 => port,
                _ => return Err(wrong("the port is not a number from 1 to 65535")),
            },
        };
        let host = if host.is_empty() { "127.0.0.1" } else { host };
        Ok(Address::Tcp { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp { host, port } => write!(f, "{host}:{port}"),
            Address::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// One connected socket.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP, without Nagle's delay.
    Tcp(TcpStream),
    /// Over a UNIX socket.
    Unix(UnixStream),
}

impl Stream {
    /// Connects, trying each address of the host's name in turn; `timeout` bounds each single try.
    ///
    /// # Errors
    /// The last error of the operating system when no address answered.
    pub fn connect(address: &Address, timeout: Duration) -> io::Result<Stream> {
        match address {
            Address::Unix(path) => UnixStream::connect(path).map(Stream::Unix),
            Address::Tcp { host, port } => {
                let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
                for candidate in (host.as_str(), *port).to_socket_addrs()? {
                    match TcpStream::connect_timeout(&candidate, timeout) {
                        Ok(stream) => {
                            stream.set_nodelay(true)?;
                            return Ok(Stream::Tcp(stream));
                        }
                        Err(source) => last = source,
                    }
                }
                Err(last)
            }
        }
    }

    /// Sets how long one read may wait for a byte; `None` waits for ever.
    ///
    /// # Errors
    /// When the operating system refuses, for instance a timeout of zero.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.set_read_timeout(timeout),
            Stream::Unix(stream) => stream.set_read_timeout(timeout),
        }
    }

    /// Sets how long one write may wait for room; `None` waits for ever.
    ///
    /// # Errors
    /// When the operating system refuses, for instance a timeout of zero.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.set_write_timeout(timeout),
            Stream::Unix(stream) => stream.set_write_timeout(timeout),
        }
    }

    /// A second handle on the same socket, for a thread of its own: one reads while the other writes.
    ///
    /// # Errors
    /// When the operating system has no more descriptors.
    pub fn try_clone(&self) -> io::Result<Stream> {
        match self {
            Stream::Tcp(stream) => stream.try_clone().map(Stream::Tcp),
            Stream::Unix(stream) => stream.try_clone().map(Stream::Unix),
        }
    }

    /// Ends both directions at once: whoever waits in a read or a write of this socket returns.
    ///
    /// # Errors
    /// When the socket is not connected any more.
    pub fn shutdown(&self) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Both),
        }
    }

    /// What waits in the socket right now, without taking it and without waiting.
    ///
    /// # Errors
    /// When the socket is broken.
    pub(crate) fn look(&self) -> io::Result<Waiting> {
        let mut byte = [0_u8; 1];
        let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
        match rustix::net::recv(self.as_fd(), &mut byte[..], flags) {
            Ok((_, 0)) => Ok(Waiting::Closed),
            Ok(_) => Ok(Waiting::Bytes),
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => Ok(Waiting::Nothing),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// What a look at an idle socket found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// Nothing: the connection is idle and alive, as far as can be known.
    Nothing,
    /// Bytes that nobody asked for.
    Bytes,
    /// The peer has closed its side.
    Closed,
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(buffer),
            Stream::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(buffer),
            Stream::Unix(stream) => stream.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Address {
        Address::Tcp { host: host.to_owned(), port }
    }

    #[test]
    fn an_address_is_read_in_every_form_people_write() {
        assert_eq!("db.example:7000".parse(), Ok(tcp("db.example", 7000)));
        assert_eq!("db.example".parse(), Ok(tcp("db.example", DEFAULT_PORT)));
        assert_eq!(":7000".parse(), Ok(tcp("127.0.0.1", 7000)));
        assert_eq!("[::1]:7000".parse(), Ok(tcp("::1", 7000)));
        assert_eq!("[::1]".parse(), Ok(tcp("::1", DEFAULT_PORT)));
        assert_eq!("fe80::1".parse(), Ok(tcp("fe80::1", DEFAULT_PORT)));
        assert_eq!("unix:/run/kv.sock".parse(), Ok(Address::Unix("/run/kv.sock".into())));
    }

    #[test]
    fn a_wrong_address_says_what_is_wrong_with_it() {
        for text in ["", "host:0", "host:70000", "host:port", "[::1", "[::1]7000", "unix:"] {
            let message = text.parse::<Address>().expect_err(text).to_string();
            assert!(message.contains(text) && message.contains("host:port"), "{message}");
        }
    }

    #[test]
    fn an_address_prints_as_it_is_read() {
        for text in ["db.example:7000", "[::1]:7000"] {
            assert_eq!(text.parse::<Address>().map(|address| address.to_string()), Ok(text.to_owned()));
        }
    }
}
