//! How the program ends.

use std::io;
use std::process::ExitCode;

use bowline_client::Error;

/// How the program ends when nothing broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Success = 0,
    /// The key is not there.
    NotFound = 1,
    /// The words on the command line are wrong; nothing was sent.
    Usage = 2,
    /// The server was not reached, or its answer was lost.
    Connection = 3,
    /// The server answered with an error, or not as it should.
    Server = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Why the program ends early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The words on the command line are wrong.
    #[error("{0}")]
    Usage(String),
    /// The client library said no.
    #[error("{0}")]
    Client(#[from] Error),
    /// Something this program needs from the operating system failed.
    #[error("cannot {what}: {source}")]
    Local {
        /// What was tried, with its name.
        what: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The output could not be written.
    #[error("cannot write the output: {0}")]
    Output(io::Error),
    /// A command of a script failed, or the self-test did.
    #[error("{message}")]
    Failed {
        /// What failed.
        message: String,
        /// How the program ends because of it.
        exit: Exit,
    },
}

impl Failure {
    /// The exit code that belongs to it.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Failure::Usage(_) | Failure::Client(Error::Usage(_)) => Exit::Usage,
            Failure::Client(Error::Server(_)) => Exit::Server,
            Failure::Client(_) => Exit::Connection,
            Failure::Failed { exit, .. } => *exit,
            // A reader that has seen enough (`kv_client keys '*' | head`) is no failure.
            Failure::Output(source) if source.kind() == io::ErrorKind::BrokenPipe => Exit::Success,
            Failure::Local { .. } | Failure::Output(_) => Exit::Usage,
        }
    }

    /// Tells the person at standard error.
    pub(crate) fn show(&self) {
        match self {
            Failure::Output(source) if source.kind() == io::ErrorKind::BrokenPipe => {}
            Failure::Usage(message) => eprintln!("kv_client: {message}\nTry: kv_client --help"),
            Failure::Client(Error::Server(refusal)) => {
                eprintln!("(error) {}", crate::print::printable(refusal.text()));
            }
            other => eprintln!("kv_client: {}", crate::print::printable(&other.to_string())),
        }
    }
}
