//! Listening sockets: TCP on several addresses, and a UNIX socket that is never open wider than asked.
//!
//! The UNIX socket has its permissions from the moment its file exists: the mode is put on the socket, and `bind` makes
//! the file with it under a umask that takes nothing of it away. The file is never changed by its path, where another
//! one could have been put meanwhile. A file that a dead server left behind is
//! recognised by a refused connection and replaced; any other file in the way is an error. At exit the file is
//! removed only while it is still the one made here.
//!
//! Not here: accepting (`accept`), who may come in (`accept`), reading and writing (`connection`).

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustix::fs::Mode;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::settings::Listen;

/// Why a listening socket could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The operating system refused an address.
    #[error("cannot listen on {address}: {source}; choose another port or address, or stop what uses this one")]
    Address {
        /// Host and port, or the path, as configured.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// A name in `bind` stands for no address. The text of the source says which.
    #[error("{source}")]
    Name {
        /// What the resolver said.
        source: io::Error,
    },
    /// Another server answers on the UNIX socket.
    #[error("another process listens on {}: stop it or set another unixsocket", path.display())]
    InUse {
        /// The socket file.
        path: PathBuf,
    },
    /// Something that is not a socket stands at the UNIX socket's path.
    #[error("{} exists and is not a socket: move it away or set another unixsocket", path.display())]
    NotASocket {
        /// The file in the way.
        path: PathBuf,
    },
    /// `bind` and the ports leave no door at all.
    #[error("nothing to listen on: set port, text-port or unixsocket")]
    Nothing,
}

/// What the clients of a listening socket speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// The Redis protocol.
    Resp,
    /// The plain text protocol (`text`).
    Text,
}

/// A listening socket, not blocking, ready to be registered.
#[derive(Debug)]
pub enum Door {
    /// TCP, either family.
    Tcp(mio::net::TcpListener),
    /// A UNIX socket.
    Unix(mio::net::UnixListener),
}

/// A door and what is spoken behind it.
#[derive(Debug)]
pub struct Listening {
    /// The socket.
    pub door: Door,
    /// The protocol of its clients.
    pub dialect: Dialect,
}

/// The UNIX socket's file; removed when dropped, if it is still the same file.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let same = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|found| found.dev() == self.device && found.ino() == self.inode);
        if same && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the UNIX socket");
        }
    }
}

/// Opens TCP doors on these addresses.
///
/// A machine without IPv6 is no reason to stay down: an optional address that does not exist here is passed over with a
/// warning as long as another one opened. Errors: an address in use or refused, none opened.
pub fn tcp(listens: &[Listen], backlog: u32, dialect: Dialect) -> Result<Vec<Listening>, ListenError> {
    let mut doors = Vec::new();
    let mut absent = None;
    for listen in listens {
        let refused = |source| ListenError::Address { address: listen.address.to_string(), source };
        match tcp_one(listen.address, backlog) {
            Ok(listener) => doors.push(Listening { door: Door::Tcp(listener), dialect }),
            Err(error) if listen.optional && is_absent(&error) => {
                tracing::warn!(address = %listen.address, %error, "address passed over");
                absent = Some(refused(error));
            }
            Err(error) => return Err(refused(error)),
        }
    }
    match absent {
        Some(error) if doors.is_empty() => Err(error),
        _ => Ok(doors),
    }
}

/// Whether the error says that the machine has no such address or family.
fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

fn tcp_one(address: SocketAddr, backlog: u32) -> io::Result<mio::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.cloexec(), Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(mio::net::TcpListener::from_std(socket.into()))
}

/// Opens the UNIX socket at `path` with the permission bits `mode`.
///
/// Errors: another server listens there, another kind of file stands there, the system refuses.
pub fn unix(path: &Path, mode: u32, backlog: u32) -> Result<(Listening, SocketFile), ListenError> {
    let refused = |source| ListenError::Address { address: path.display().to_string(), source };
    clear_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM.cloexec(), None).map_err(refused)?;
    let address = SockAddr::unix(path).map_err(refused)?;
    bind_with_mode(&socket, &address, mode).map_err(refused)?;
    let made = std::fs::symlink_metadata(path).map_err(refused)?;
    let file = SocketFile { path: path.to_owned(), device: made.dev(), inode: made.ino() };
    socket.set_nonblocking(true).map_err(refused)?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX)).map_err(refused)?;
    let listener = std::os::unix::net::UnixListener::from(OwnedFd::from(socket));
    Ok((Listening { door: Door::Unix(mio::net::UnixListener::from_std(listener)), dialect: Dialect::Resp }, file))
}

/// Makes the socket's file with exactly these permission bits.
fn bind_with_mode(socket: &Socket, address: &SockAddr, mode: u32) -> io::Result<()> {
    // The umask belongs to the process: one at a time, or an older one would be put back after a newer one.
    static UMASK: Mutex<()> = Mutex::new(());
    let bits = Mode::from_raw_mode(mode & 0o777);
    // Linux gives the file the socket's own mode less the umask.
    rustix::fs::fchmod(socket, bits)?;
    let _alone = UMASK.lock();
    // What other threads make in this moment can only be narrower for it.
    let before = rustix::process::umask(Mode::RWXU.union(Mode::RWXG).union(Mode::RWXO).difference(bits));
    let bound = socket.bind(address);
    rustix::process::umask(before);
    bound
}

/// Removes the socket file of a server that is gone; leaves everything else alone.
fn clear_stale(path: &Path) -> Result<(), ListenError> {
    let refused = |source| ListenError::Address { address: path.display().to_string(), source };
    let found = match std::fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(refused(error)),
    };
    if !found.file_type().is_socket() {
        return Err(ListenError::NotASocket { path: path.to_owned() });
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::info!(path = %path.display(), "replaces the UNIX socket of a server that is gone");
            std::fs::remove_file(path).map_err(refused)
        }
        Err(error) => Err(refused(error)),
        Ok(_) => Err(ListenError::InUse { path: path.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_unix_socket_has_exactly_the_mode_asked_for_whatever_the_umask() {
        let directory = tempfile::tempdir().unwrap();
        // 0o762 has bits that the usual umask takes away.
        for (name, mode) in [("a", 0o740), ("b", 0o762), ("c", 0o1766)] {
            let path = directory.path().join(name);
            let (_listening, _file) = unix(&path, mode, 16).unwrap();
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode & 0o777);
        }
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let (listening, file) = unix(&path, 0o766, 16).unwrap();
        assert!(matches!(unix(&path, 0o766, 16), Err(ListenError::InUse { .. })));
        drop((listening, file));
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notes");
        std::fs::write(&path, "keep me").unwrap();
        assert!(matches!(unix(&path, 0o766, 16), Err(ListenError::NotASocket { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "keep me");
    }

    #[test]
    fn the_socket_of_a_successor_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let (listening, file) = unix(&path, 0o766, 16).unwrap();
        std::fs::remove_file(&path).unwrap();
        let successor = std::os::unix::net::UnixListener::bind(&path).unwrap();
        drop((listening, file));
        assert!(path.exists());
        drop(successor);
    }

    #[test]
    fn an_address_in_use_is_an_error_that_names_it() {
        let listen = |port| [Listen { address: ([127, 0, 0, 1], port).into(), optional: false }];
        let first = tcp(&listen(0), 16, Dialect::Resp).unwrap();
        let Some(Listening { door: Door::Tcp(listener), .. }) = first.first() else { panic!("no door") };
        let port = listener.local_addr().unwrap().port();
        let error = tcp(&listen(port), 16, Dialect::Resp).unwrap_err();
        assert!(error.to_string().contains(&format!("127.0.0.1:{port}")), "{error}");
    }
}
