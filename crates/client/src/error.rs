//! Why a call failed, split by what the caller can do next.
//!
//! The question that matters after a failed write is "did it happen?". Each variant answers it: only
//! [`Error::Unknown`] leaves it open.

use std::fmt;
use std::io;
use std::time::Duration;

use bowline_resp::ProtocolError;

/// The result of every call in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed, split by what the caller can do next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server was not reached, and nothing was changed: either nothing was sent, or only reads were. Try again later.
    #[error("cannot reach the server at {address}: {source}; check that it runs there, or name another with --server")]
    Connection {
        /// The address that was tried.
        address: String,
        /// What the operating system said last.
        source: io::Error,
    },
    /// A write was sent and its answer was lost. It may or may not have happened, and it was not sent again: read the
    /// key before you repeat the write.
    #[error(
        "{command} was sent, but its answer was lost ({cause}): it may or may not have happened; read before you repeat it"
    )]
    Unknown {
        /// Name of the command, in capitals.
        command: String,
        /// How the answer was lost.
        cause: LostReply,
    },
    /// A read was not answered in time. Nothing was changed.
    #[error("{command} was not answered within {waited:?}; the server is busy or gone, or --timeout is too short")]
    Timeout {
        /// Name of the command, in capitals.
        command: String,
        /// How long the client waited for one more byte.
        waited: Duration,
    },
    /// The connection broke in the middle of MULTI or WATCH, which ends both: start the transaction again.
    #[error(
        "the connection to {address} broke within a transaction ({cause}): nothing of it was executed; start it again"
    )]
    TransactionLost {
        /// The address of the server.
        address: String,
        /// How the connection broke.
        cause: LostReply,
    },
    /// The server answered with an error: the command was refused and changed nothing unless the text says so.
    #[error("{0}")]
    Server(ServerError),
    /// The peer does not speak the Redis protocol, or answers another question. Only reads end here; a write whose
    /// answer cannot be understood is [`Error::Unknown`].
    #[error("the server at {address} sent something that is not an answer: {what}; is it a Redis-protocol server?")]
    Protocol {
        /// The address of the server.
        address: String,
        /// What was wrong with the bytes.
        what: String,
    },
    /// The call itself is wrong; nothing was sent.
    #[error("{0}")]
    Usage(String),
    /// Every connection of the pool stayed in use for the whole waiting time. Nothing was sent.
    #[error(
        "no connection of the pool became free within {waited:?}; give them back sooner, or make the pool larger than {size}"
    )]
    PoolExhausted {
        /// The size of the pool.
        size: usize,
        /// How long the caller waited.
        waited: Duration,
    },
}

impl Error {
    /// True if the failed call certainly changed nothing, so that repeating it is safe.
    ///
    /// An error of the server counts as "changed nothing": a command is executed wholly or refused. A script that calls
    /// several commands and then fails is its own judge.
    pub fn changed_nothing(&self) -> bool {
        !matches!(self, Error::Unknown { .. })
    }
}

/// How an answer was lost.
#[derive(Debug)]
#[non_exhaustive]
pub enum LostReply {
    /// The connection broke.
    Closed(io::Error),
    /// No byte came for this long.
    Timeout(Duration),
    /// Bytes came that are not an answer.
    Garbled(ProtocolError),
}

impl fmt::Display for LostReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LostReply::Closed(source) => write!(f, "the connection broke: {source}"),
            LostReply::Timeout(waited) => write!(f, "no answer within {waited:?}"),
            LostReply::Garbled(source) => write!(f, "the answer is not RESP: {source}"),
        }
    }
}

/// An error reply: a code in capitals, then a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerError {
    text: String,
}

impl ServerError {
    /// Takes the whole text of the reply, without its leading `-`.
    pub fn new(text: impl Into<String>) -> Self {
        ServerError { text: text.into() }
    }

    /// The first word, for instance `ERR`, `WRONGTYPE` or `MISCONF`.
    pub fn code(&self) -> &str {
        self.text.split(' ').next().unwrap_or_default()
    }

    /// The whole text, code included.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_of_a_server_error_is_its_first_word() {
        assert_eq!(ServerError::new("WRONGTYPE Operation against a key").code(), "WRONGTYPE");
        assert_eq!(ServerError::new("OOM").code(), "OOM");
        assert_eq!(ServerError::new("").code(), "");
    }

    #[test]
    fn only_a_lost_answer_leaves_open_what_happened() {
        let unknown = Error::Unknown { command: "SET".into(), cause: LostReply::Timeout(Duration::from_secs(1)) };
        assert!(!unknown.changed_nothing());
        assert!(Error::Usage("x".into()).changed_nothing());
        assert!(Error::Server(ServerError::new("ERR no")).changed_nothing());
    }
}
