//! One connection: bytes out, answers in, in order.
//!
//! A run sends requests and reads their answers. No more than [`WINDOW_BYTES`] of requests are unanswered at any time
//! (one larger request goes alone), so that what was sent always fits into the sockets' buffers: a server that stops
//! reading until its replies are read can never stand against a client that stops reading until its requests are sent.
//!
//! When a run breaks off it says exactly how many requests had a byte handed to the operating system, because those are
//! the ones that may have been executed. Not here: connecting again, and what a lost answer means (`client`).

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use bowline_resp::{Protocol, ReplyDecoder, Value, encode_request};

use crate::address::{Address, Stream, Waiting};
use crate::error::{Error, LostReply, Result, ServerError};
use crate::options::Options;
use crate::session::Session;

/// Most bytes of requests that wait for answers at once; a quarter of Linux's default receive buffer for TCP (128 KiB).
const WINDOW_BYTES: usize = 32 * 1024;
/// Bytes asked for by one read.
const READ_BYTES: usize = 32 * 1024;
/// A receive buffer that grew above this for one large answer is given back.
const KEPT_BUFFER_BYTES: usize = 1024 * 1024;
/// Unread pushes that are kept; older ones are dropped.
const PUSHES_MAX: usize = 1024;

/// Encoded requests, one after the other.
#[derive(Debug, Default, Clone)]
pub(crate) struct Requests {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Requests {
    pub(crate) fn push<A: AsRef<[u8]>>(&mut self, args: &[A]) {
        encode_request(&mut self.bytes, args);
        self.ends.push(self.bytes.len());
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Where request `i` begins; the end of all for `i == len`.
    fn begin(&self, i: usize) -> usize {
        i.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0)
    }
}

/// A run that broke off.
#[derive(Debug)]
pub(crate) struct Broken {
    /// Requests of which at least one byte was handed to the operating system.
    pub(crate) sent: usize,
    /// What ended it.
    pub(crate) cause: LostReply,
}

/// One connected, greeted socket.
pub struct Connection {
    stream: Stream,
    address: Address,
    protocol: Protocol,
    input: Vec<u8>,
    consumed: usize,
    chunk: Box<[u8]>,
    decoder: ReplyDecoder,
    pushes: VecDeque<Value>,
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Connection {
    /// Connects once and greets: HELLO with AUTH, or AUTH alone where HELLO is unknown, then SELECT and
    /// [`Options::setup`].
    ///
    /// # Errors
    /// [`Error::Connection`] when the server is not reached, [`Error::Server`] when it refuses the password or the
    /// database, [`Error::Protocol`] when something else answers.
    pub fn open(options: &Options) -> Result<Connection> {
        Connection::open_as(options, &Session::default())
    }

    /// Like [`Connection::open`], then repeats what an earlier connection was told.
    pub(crate) fn open_as(options: &Options, session: &Session) -> Result<Connection> {
        let refused = |source| Error::Connection { address: options.address.to_string(), source };
        let stream = Stream::connect(&options.address, options.connect_timeout).map_err(refused)?;
        stream.set_read_timeout(options.read_timeout).map_err(refused)?;
        stream.set_write_timeout(options.write_timeout).map_err(refused)?;
        let mut connection = Connection {
            stream,
            address: options.address.clone(),
            protocol: Protocol::Resp2,
            input: Vec::new(),
            consumed: 0,
            chunk: vec![0; READ_BYTES].into_boxed_slice(),
            decoder: ReplyDecoder::default(),
            pushes: VecDeque::new(),
            read_timeout: options.read_timeout,
            write_timeout: options.write_timeout,
        };
        connection.greet(options)?;
        if options.database != 0 {
            connection.tell(&[b"SELECT".to_vec(), options.database.to_string().into_bytes()])?;
        }
        for args in &options.setup {
            connection.tell(args)?;
        }
        for args in session.settings() {
            connection.tell(args)?;
        }
        Ok(connection)
    }

    /// The protocol that both sides agreed on.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The socket, for callers that go on with it themselves (a load generator). Nothing is buffered when no request is
    /// unanswered, except pushes.
    pub fn into_stream(self) -> Stream {
        self.stream
    }

    /// Takes the oldest push (RESP3) that came between answers.
    pub fn next_push(&mut self) -> Option<Value> {
        self.pushes.pop_front()
    }

    fn greet(&mut self, options: &Options) -> Result<()> {
        let user = options.user.as_deref().unwrap_or("default");
        if options.protocol == Protocol::Resp3 {
            let mut hello = vec!["HELLO", "3"];
            if let Some(password) = &options.password {
                hello.extend(["AUTH", user, password]);
            }
            match self.ask(&hello)? {
                Value::Error(text) if is_without_hello(&text) => {}
                // Without a password the connection stays usable for AUTH; each other command will say NOAUTH.
                Value::Error(text) if text.starts_with("NOAUTH") && options.password.is_none() => {}
                Value::Error(text) => return Err(Error::Server(ServerError::new(text))),
                _ => {
                    self.protocol = Protocol::Resp3;
                    return Ok(());
                }
            }
        }
        match (&options.password, &options.user) {
            (Some(password), Some(user)) => self.tell(&["AUTH", user, password]),
            (Some(password), None) => self.tell(&["AUTH", password]),
            (None, _) => Ok(()),
        }
    }

    /// Sends one request whose refusal makes the connection useless.
    fn tell<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Result<()> {
        match self.ask(args)? {
            Value::Error(text) => Err(Error::Server(ServerError::new(text))),
            _ => Ok(()),
        }
    }

    /// Sends one request of the greeting, which changes no data.
    fn ask<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Result<Value> {
        let mut requests = Requests::default();
        requests.push(args);
        let mut answer = Value::Null;
        let run = self.run(&requests, false, &mut |_, value| answer = value);
        run.map(|()| answer).map_err(|broken| match broken.cause {
            LostReply::Closed(source) => Error::Connection { address: self.address.to_string(), source },
            LostReply::Timeout(waited) => Error::Connection {
                address: self.address.to_string(),
                source: io::Error::new(io::ErrorKind::TimedOut, format!("connected, but no answer within {waited:?}")),
            },
            LostReply::Garbled(source) => {
                Error::Protocol { address: self.address.to_string(), what: source.to_string() }
            }
        })
    }

    /// Sends all requests and hands each answer on, with its place, in order. `patient` waits for answers for ever.
    pub(crate) fn run(
        &mut self,
        requests: &Requests,
        patient: bool,
        on_answer: &mut dyn FnMut(usize, Value),
    ) -> Result<(), Broken> {
        if let Err(cause) = self.check_idle() {
            return Err(Broken { sent: 0, cause });
        }
        if patient && let Err(source) = self.stream.set_read_timeout(None) {
            return Err(Broken { sent: 0, cause: LostReply::Closed(source) });
        }
        let (mut sent, mut answered) = (0, 0);
        while answered < requests.len() {
            let until = window_end(requests, sent, answered);
            let unsent = requests.bytes.get(requests.begin(sent)..requests.begin(until)).unwrap_or_default();
            if let Err((accepted, cause)) = self.write(unsent) {
                let reached = requests.begin(sent) + accepted;
                let begun = (sent..until).take_while(|i| requests.begin(*i) < reached).count();
                return Err(Broken { sent: sent + begun, cause });
            }
            sent = until;
            match self.read_answer() {
                Ok(value) => on_answer(answered, value),
                Err(cause) => return Err(Broken { sent, cause }),
            }
            answered += 1;
        }
        if patient && let Err(source) = self.stream.set_read_timeout(self.read_timeout) {
            return Err(Broken { sent, cause: LostReply::Closed(source) });
        }
        Ok(())
    }

    /// Sees whether the server has closed the connection while it was idle. That is the usual way in which connections
    /// die, and seeing it before the first byte is sent is what makes it harmless.
    fn check_idle(&mut self) -> Result<(), LostReply> {
        loop {
            match self.stream.look().map_err(LostReply::Closed)? {
                Waiting::Nothing => return Ok(()),
                Waiting::Closed => return Err(closed_by_server()),
                Waiting::Bytes => self.fill()?,
            }
            while let Some(value) = self.decode()? {
                if !self.keep_push(value)? {
                    let what = "the server sent an answer that nobody asked for";
                    return Err(LostReply::Closed(io::Error::new(io::ErrorKind::InvalidData, what)));
                }
            }
        }
    }

    fn write(&mut self, mut bytes: &[u8]) -> Result<(), (usize, LostReply)> {
        let mut accepted = 0;
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(0) => return Err((accepted, closed_by_server())),
                Ok(written) => {
                    accepted += written;
                    bytes = bytes.get(written..).unwrap_or_default();
                }
                Err(source) if source.kind() == io::ErrorKind::Interrupted => {}
                Err(source) if is_timeout(&source) => {
                    return Err((accepted, LostReply::Timeout(self.write_timeout.unwrap_or_default())));
                }
                Err(source) => return Err((accepted, LostReply::Closed(source))),
            }
        }
        Ok(())
    }

    fn read_answer(&mut self) -> Result<Value, LostReply> {
        loop {
            match self.decode()? {
                Some(value @ Value::Push(_)) => {
                    self.keep_push(value)?;
                }
                Some(value) => return Ok(value),
                None => self.fill()?,
            }
        }
    }

    /// Keeps a push for later; false if the value is an answer.
    fn keep_push(&mut self, value: Value) -> Result<bool, LostReply> {
        let is_push = matches!(value, Value::Push(_));
        if is_push {
            if self.pushes.len() == PUSHES_MAX {
                self.pushes.pop_front();
            }
            self.pushes.push_back(value);
        }
        Ok(is_push)
    }

    fn decode(&mut self) -> Result<Option<Value>, LostReply> {
        let unread = self.input.get(self.consumed..).unwrap_or_default();
        let Some((value, length)) = self.decoder.decode(unread).map_err(LostReply::Garbled)? else { return Ok(None) };
        self.consumed += length;
        if self.consumed >= self.input.len() {
            self.input.clear();
            self.consumed = 0;
            if self.input.capacity() > KEPT_BUFFER_BYTES {
                self.input = Vec::new();
            }
        }
        Ok(Some(value))
    }

    /// Reads what is there, waiting for at least one byte.
    fn fill(&mut self) -> Result<(), LostReply> {
        if self.consumed > READ_BYTES {
            self.input.drain(..self.consumed);
            self.consumed = 0;
        }
        loop {
            match self.stream.read(&mut self.chunk) {
                Ok(0) => return Err(closed_by_server()),
                Ok(length) => {
                    self.input.extend_from_slice(self.chunk.get(..length).unwrap_or_default());
                    return Ok(());
                }
                Err(source) if source.kind() == io::ErrorKind::Interrupted => {}
                Err(source) if is_timeout(&source) => {
                    return Err(LostReply::Timeout(self.read_timeout.unwrap_or_default()));
                }
                Err(source) => return Err(LostReply::Closed(source)),
            }
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Up to which request may be sent now. Refills only when half the window is free, so that requests go out in bunches.
fn window_end(requests: &Requests, sent: usize, answered: usize) -> usize {
    let oldest = requests.begin(answered);
    if sent > answered && requests.begin(sent) - oldest > WINDOW_BYTES / 2 {
        return sent;
    }
    let mut until = sent;
    while until < requests.len() && (requests.begin(until + 1) - oldest <= WINDOW_BYTES || until == answered) {
        until += 1;
    }
    until
}

/// HELLO is not known here, or not in this version: go on in RESP2.
fn is_without_hello(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    text.starts_with("noproto") || text.contains("unknown command")
}

fn is_timeout(source: &io::Error) -> bool {
    matches!(source.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn closed_by_server() -> LostReply {
    LostReply::Closed(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(value_bytes: &[usize]) -> Requests {
        let mut requests = Requests::default();
        for length in value_bytes {
            requests.push(&[b"SET".to_vec(), b"k".to_vec(), vec![b'x'; *length]]);
        }
        requests
    }

    #[test]
    fn small_requests_share_a_window() {
        let requests = requests(&[10; 3]);
        assert_eq!(window_end(&requests, 0, 0), 3);
        assert_eq!(window_end(&requests, 3, 1), 3);
    }

    #[test]
    fn a_request_larger_than_the_window_goes_alone() {
        let requests = requests(&[10, 2 * WINDOW_BYTES, 10]);
        assert_eq!(window_end(&requests, 0, 0), 1);
        assert_eq!(window_end(&requests, 1, 1), 2);
        assert_eq!(window_end(&requests, 2, 1), 2);
        assert_eq!(window_end(&requests, 2, 2), 3);
    }

    #[test]
    fn the_window_is_refilled_in_bunches() {
        let requests = requests(&[1000; 100]);
        let first = window_end(&requests, 0, 0);
        assert!(first > 20 && first < 33);
        assert_eq!(window_end(&requests, first, 1), first);
        assert!(window_end(&requests, first, first / 2 + 2) > first);
    }
}
