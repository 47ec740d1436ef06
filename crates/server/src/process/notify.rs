//! What systemd is told of a unit with `Type=notify`: datagrams of `NAME=value` lines to the socket that it names in the
//! environment (sd_notify(3)).

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use super::ProcessError;
use crate::settings::Supervised;

/// The way to the supervisor, where there is one.
#[derive(Debug)]
pub(super) struct Notifier {
    socket: Option<(UnixDatagram, SocketAddr)>,
}

impl Notifier {
    /// A way to nobody.
    pub(super) fn none() -> Notifier {
        Notifier { socket: None }
    }

    /// Finds the socket that NOTIFY_SOCKET names.
    pub(super) fn from_environment(supervised: Supervised) -> Result<Notifier, ProcessError> {
        let name = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        match (supervised, name) {
            (Supervised::No, _) | (Supervised::Auto, None) => Ok(Notifier::none()),
            (Supervised::Systemd, None) => {
                Err(ProcessError::NotSupervised { what: "the environment has no NOTIFY_SOCKET".to_owned() })
            }
            (Supervised::Systemd | Supervised::Auto, Some(name)) => Notifier::to(&name).map_err(|source| {
                ProcessError::NotSupervised { what: format!("NOTIFY_SOCKET cannot be used: {source}") }
            }),
        }
    }

    /// A way to the socket of this name; a leading @ stands for the abstract names of Linux.
    fn to(name: &OsStr) -> io::Result<Notifier> {
        let address = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        // A supervisor that does not read must not hold up the server.
        socket.set_nonblocking(true)?;
        Ok(Notifier { socket: Some((socket, address)) })
    }

    /// Tells the supervisor. It is only told: what it does not hear is logged and forgotten.
    pub(super) fn tell(&self, text: &str) {
        if let Some((socket, address)) = &self.socket
            && let Err(error) = socket.send_to_addr(text.as_bytes(), address)
        {
            tracing::warn!("cannot tell systemd ({}): {error}", text.replace('\n', " "));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 100];
        let length = socket.recv(&mut bytes).expect("a datagram");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    #[test]
    fn a_socket_with_a_path_is_told() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("bound");
        Notifier::to(path.as_os_str()).expect("a notifier").tell("READY=1");
        assert_eq!(heard(&socket), "READY=1");
    }

    #[test]
    fn a_socket_with_an_abstract_name_is_told() {
        let name = format!("bowline-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("an address");
        let socket = UnixDatagram::bind_addr(&address).expect("bound");
        Notifier::to(OsStr::new(&format!("@{name}"))).expect("a notifier").tell("STOPPING=1");
        assert_eq!(heard(&socket), "STOPPING=1");
    }

    #[test]
    fn a_supervisor_that_is_gone_does_not_matter() {
        Notifier::to(OsStr::new("/nowhere/notify")).expect("a notifier").tell("READY=1");
    }
}
