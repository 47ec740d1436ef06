//! A client that connects when it must and never sends a write twice.
//!
//! What happens when something breaks:
//!
//! ```text
//!   when                                   a read                    a write
//!   no connection, or found closed         tried again, waiting      tried again, waiting
//!   a byte was sent, connection broke      tried again, waiting      Unknown
//!   a byte was sent, no answer in time     Timeout                   Unknown
//!   within MULTI or WATCH                  TransactionLost           TransactionLost (EXEC: Unknown)
//! ```
//!
//! A read that timed out is not sent again: a server that is slow gets no faster by more requests.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use bowline_resp::{Protocol, Value};

use crate::command::Traits;
use crate::connection::{Broken, Connection, Requests};
use crate::error::{Error, LostReply, Result, ServerError};
use crate::options::Options;
use crate::pipeline::Pipeline;
use crate::session::Session;

/// Something that happened on the way to an answer, for callers that want to show it.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A connection attempt begins; `attempt` counts from 1 for each call.
    Connecting {
        /// Where to.
        address: String,
        /// Which attempt of this call it is.
        attempt: u32,
    },
    /// Connected and greeted.
    Connected {
        /// Where to.
        address: String,
        /// The protocol agreed on.
        protocol: Protocol,
        /// From the start of the attempt.
        took: Duration,
    },
    /// An attempt failed; the next one follows after `wait`.
    Retrying {
        /// Why the attempt failed.
        error: &'a Error,
        /// How long the client sleeps now.
        wait: Duration,
    },
    /// A run of requests was answered.
    Answered {
        /// Name of the first command.
        command: &'a str,
        /// How many requests.
        requests: usize,
        /// From before the first byte was sent to after the last was read.
        took: Duration,
    },
}

type Observer = Box<dyn FnMut(&Event<'_>) + Send>;

/// A client with one connection, made on first use and again whenever it was lost.
///
/// ```no_run
/// use bowline_client::{Client, Error, Options};
///
/// let mut client = Client::new(Options::at("127.0.0.1:6379")?);
/// client.put(b"greeting", b"hello")?;
/// assert_eq!(client.get(b"greeting")?.as_deref(), Some(&b"hello"[..]));
/// match client.put(b"greeting", b"good morning") {
///     Ok(()) => println!("kept: it is on disk"),
///     Err(Error::Unknown { .. }) => println!("may or may not have happened: read it back"),
///     Err(other) => println!("nothing changed: {other}"),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Client {
    options: Options,
    connection: Option<Connection>,
    session: Session,
    observer: Option<Observer>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("options", &self.options)
            .field("connection", &self.connection)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A client that connects on its first call.
    pub fn new(options: Options) -> Client {
        Client { options, connection: None, session: Session::default(), observer: None }
    }

    /// A client that is connected now.
    ///
    /// # Errors
    /// As [`Client::connect_now`].
    pub fn connect(options: Options) -> Result<Client> {
        let mut client = Client::new(options);
        client.connect_now()?;
        Ok(client)
    }

    /// Connects unless connected, trying again as [`Options::retry`] says.
    ///
    /// # Errors
    /// [`Error::Connection`] when no attempt succeeded; [`Error::Server`] when the password or database is refused;
    /// [`Error::Protocol`] when something that is no such server answers.
    pub fn connect_now(&mut self) -> Result<()> {
        let mut attempt = 0;
        while self.connection.is_none() {
            attempt += 1;
            if let Err(error) = self.connect_once(attempt) {
                self.wait_to_retry(attempt, error)?;
            }
        }
        Ok(())
    }

    /// The connection itself, for callers that go on with it themselves (an import, a load generator); made now if there
    /// is none.
    ///
    /// # Errors
    /// As [`Client::connect_now`].
    pub fn into_connection(mut self) -> Result<Connection> {
        self.connect_now()?;
        let gone = || Error::Usage("the connection is gone".to_owned());
        self.connection.take().ok_or_else(gone)
    }

    /// What the client was made with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The database in use: the last one selected, else that of the options.
    pub fn database(&self) -> u32 {
        self.session.database().unwrap_or(self.options.database)
    }

    /// True while a connection is open, as far as is known without using it.
    pub fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// True between MULTI and EXEC.
    pub fn in_transaction(&self) -> bool {
        self.session.in_multi()
    }

    /// True when the connection is as it was made: nothing selected, watched or begun.
    pub(crate) fn is_fresh(&self) -> bool {
        self.session.is_fresh()
    }

    /// Closes the connection; the next call makes another. Ends MULTI and WATCH.
    pub fn disconnect(&mut self) {
        self.connection = None;
        self.session.end_transaction();
    }

    /// Takes the oldest push (RESP3: invalidations, messages) that came between answers.
    pub fn next_push(&mut self) -> Option<Value> {
        self.connection.as_mut()?.next_push()
    }

    /// Calls `observer` for each connection attempt, retry and answer.
    pub fn observe(&mut self, observer: impl FnMut(&Event<'_>) + Send + 'static) {
        self.observer = Some(Box::new(observer));
    }

    /// Sends any command and returns its answer; an error answer becomes [`Error::Server`].
    ///
    /// A command that changes nothing is sent again when its answer was lost; every other command never is, also those
    /// this crate does not know.
    ///
    /// # Errors
    /// Each of [`Error`], as the head of this file tells. [`Error::Usage`] for no arguments and for commands that are
    /// answered by a stream (SUBSCRIBE, MONITOR, CLIENT REPLY OFF).
    pub fn command<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Result<Value> {
        let mut answers = self.run_all(&[args])?;
        answers.pop().unwrap_or_else(|| Err(Error::Usage("no command was given".to_owned())))
    }

    /// Collects commands that are sent without waiting for each other's answers.
    pub fn pipeline(&mut self) -> Pipeline<'_> {
        Pipeline::new(self)
    }

    /// Sends all commands in order and gives each its own result.
    ///
    /// # Errors
    /// The outer error is for all: nothing was sent.
    pub(crate) fn run_all<C: AsRef<[A]>, A: AsRef<[u8]>>(&mut self, commands: &[C]) -> Result<Vec<Result<Value>>> {
        let mut requests = Requests::default();
        let traits =
            commands.iter().map(|args| self.admit(args.as_ref(), &mut requests)).collect::<Result<Vec<_>>>()?;
        if traits.is_empty() {
            return Ok(Vec::new());
        }
        let repeatable = traits.iter().all(|traits| traits.repeatable);
        let patient = traits.iter().any(|traits| traits.blocking);
        let mut attempt = 0;
        loop {
            attempt += 1;
            let mut answers = Vec::with_capacity(commands.len());
            match self.attempt(attempt, commands, &requests, patient, &mut answers) {
                Ok(took) => {
                    let command = traits.first().map(|traits| traits.name.as_str()).unwrap_or_default();
                    self.tell(&Event::Answered { command, requests: commands.len(), took });
                    return Ok(answers);
                }
                Err(Failed::Connecting(error)) => self.wait_to_retry(attempt, error)?,
                Err(Failed::Running(broken)) => {
                    let nothing_sent = broken.sent == 0;
                    let again = nothing_sent || (repeatable && matches!(broken.cause, LostReply::Closed(_)));
                    if again && !self.session.holds_transaction() {
                        let error = self.not_reached(&broken.cause);
                        self.wait_to_retry(attempt, error)?;
                    } else {
                        let unanswered = traits.iter().enumerate().skip(answers.len());
                        let exec_sent = unanswered.clone().any(|(i, traits)| i < broken.sent && traits.name == "EXEC");
                        answers.extend(unanswered.map(|(i, traits)| {
                            let fate = Fate { sent: i < broken.sent, exec_sent };
                            Err(self.lost(traits, fate, &broken.cause))
                        }));
                        self.session.end_transaction();
                        return Ok(answers);
                    }
                }
            }
        }
    }

    /// Checks and encodes one command.
    fn admit<A: AsRef<[u8]>>(&self, args: &[A], requests: &mut Requests) -> Result<Traits> {
        let traits = Traits::of(args);
        if args.is_empty() {
            return Err(Error::Usage("a command without a name cannot be sent".to_owned()));
        }
        if traits.streaming {
            let name = &traits.name;
            return Err(Error::Usage(format!(
                "{name} is not answered once per request, so this client cannot send it"
            )));
        }
        requests.push(args);
        Ok(traits)
    }

    fn attempt<C: AsRef<[A]>, A: AsRef<[u8]>>(
        &mut self,
        attempt: u32,
        commands: &[C],
        requests: &Requests,
        patient: bool,
        answers: &mut Vec<Result<Value>>,
    ) -> Result<Duration, Failed> {
        if self.connection.is_none() {
            self.connect_once(attempt).map_err(Failed::Connecting)?;
        }
        let Some(connection) = self.connection.as_mut() else {
            return Err(Failed::Connecting(Error::Usage("the connection is gone".to_owned())));
        };
        let session = &mut self.session;
        let begin = Instant::now();
        let run = connection.run(requests, patient, &mut |place, value| {
            if let Some(args) = commands.get(place) {
                session.observe(args.as_ref(), &value);
            }
            answers.push(match value {
                Value::Error(text) => Err(Error::Server(ServerError::new(text))),
                value => Ok(value),
            });
        });
        run.map(|()| begin.elapsed()).map_err(|broken| {
            self.connection = None;
            Failed::Running(broken)
        })
    }

    fn connect_once(&mut self, attempt: u32) -> Result<()> {
        let begin = Instant::now();
        self.tell(&Event::Connecting { address: self.options.address.to_string(), attempt });
        let connection = Connection::open_as(&self.options, &self.session)?;
        let (address, protocol) = (self.options.address.to_string(), connection.protocol());
        self.tell(&Event::Connected { address, protocol, took: begin.elapsed() });
        self.connection = Some(connection);
        Ok(())
    }

    /// Sleeps before the next attempt, or gives the error back when there is to be none.
    fn wait_to_retry(&mut self, attempt: u32, error: Error) -> Result<()> {
        let Error::Connection { source, .. } = &error else { return Err(error) };
        let hopeless = matches!(source.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput);
        if attempt > self.options.retry.retries || hopeless {
            return Err(error);
        }
        let random = getrandom::u64().unwrap_or(u64::MAX / 2);
        let wait = self.options.retry.wait(attempt - 1, random);
        self.tell(&Event::Retrying { error: &error, wait });
        thread::sleep(wait);
        Ok(())
    }

    /// The error of a request that was not answered, in a run that is not tried again.
    fn lost(&self, traits: &Traits, fate: Fate, cause: &LostReply) -> Error {
        let address = self.options.address.to_string();
        let Fate { sent, exec_sent } = fate;
        let in_multi = self.session.in_multi();
        let may_have_changed_something = if in_multi { exec_sent } else { !traits.repeatable };
        if sent && may_have_changed_something {
            return Error::Unknown { command: traits.name.clone(), cause: copy_of(cause) };
        }
        if self.session.holds_transaction() {
            return Error::TransactionLost { address, cause: copy_of(cause) };
        }
        match cause {
            LostReply::Timeout(waited) if sent => Error::Timeout { command: traits.name.clone(), waited: *waited },
            LostReply::Garbled(source) if sent => Error::Protocol { address, what: source.to_string() },
            cause => self.not_reached(cause),
        }
    }

    fn not_reached(&self, cause: &LostReply) -> Error {
        let source = match cause {
            LostReply::Closed(source) => io::Error::new(source.kind(), source.to_string()),
            other => io::Error::other(other.to_string()),
        };
        Error::Connection { address: self.options.address.to_string(), source }
    }

    fn tell(&mut self, event: &Event<'_>) {
        if let Some(observer) = &mut self.observer {
            observer(event);
        }
    }
}

/// Why one attempt gave no answers.
enum Failed {
    /// There is no connection; nothing was sent.
    Connecting(Error),
    /// The connection broke during the run.
    Running(Broken),
}

/// What is known of a request that was not answered.
#[derive(Clone, Copy)]
struct Fate {
    /// At least one byte of it left.
    sent: bool,
    /// An EXEC left in the same run: what was queued before it may have been executed.
    exec_sent: bool,
}

fn copy_of(cause: &LostReply) -> LostReply {
    match cause {
        LostReply::Closed(source) => LostReply::Closed(io::Error::new(source.kind(), source.to_string())),
        LostReply::Timeout(waited) => LostReply::Timeout(*waited),
        LostReply::Garbled(source) => LostReply::Garbled(*source),
    }
}
