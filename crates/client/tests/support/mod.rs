//! A RESP server in the test's own process that breaks connections exactly when it is told to.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use bowline_client::{Address, Options, Retry};
use bowline_resp::{Decoded, RequestDecoder, RequestLimits};

/// What the server does with one request.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    /// Sends these bytes.
    Reply(Vec<u8>),
    /// Closes the connection without an answer.
    Close,
    /// Sends these bytes, then closes the connection.
    ReplyAndClose(Vec<u8>),
    /// Never answers, and keeps the connection open.
    Silence,
}

/// `Reply` with bytes written as a string.
pub(crate) fn reply(text: &str) -> Action {
    Action::Reply(text.as_bytes().to_vec())
}

/// One request as the server received it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    /// Which connection it came on, counted from 1.
    pub(crate) connection: usize,
    /// The arguments joined by spaces.
    pub(crate) text: String,
    /// The arguments.
    pub(crate) args: Vec<Vec<u8>>,
}

type Handler = dyn FnMut(&Request) -> Action + Send;

/// The server. It lives until the test's process ends.
pub(crate) struct FakeServer {
    port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
    closed: Receiver<usize>,
}

impl FakeServer {
    /// Starts on a free port. `handler` decides about every request but HELLO, which is answered like an old server
    /// does (unknown command) so that tests meet only what they are about.
    pub(crate) fn start(mut handler: impl FnMut(&Request) -> Action + Send + 'static) -> FakeServer {
        FakeServer::start_raw(move |request| {
            if request.text.starts_with("HELLO") { reply("-ERR unknown command 'HELLO'\r\n") } else { handler(request) }
        })
    }

    /// Starts on a free port; `handler` decides about every request.
    pub(crate) fn start_raw(handler: impl FnMut(&Request) -> Action + Send + 'static) -> FakeServer {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (closing, closed) = channel();
        let handler: Arc<Mutex<Handler>> = Arc::new(Mutex::new(handler));
        let log = Arc::clone(&requests);
        thread::spawn(move || {
            for (place, stream) in listener.incoming().enumerate() {
                let (handler, log, closing) = (Arc::clone(&handler), Arc::clone(&log), closing.clone());
                let stream = stream.expect("a connection");
                stream.set_nodelay(true).expect("no delay");
                thread::spawn(move || serve(stream, place + 1, &handler, &log, &closing));
            }
        });
        FakeServer { port, requests, closed }
    }

    /// The port it listens on, at 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Options for a client of this server: no waiting between retries.
    pub(crate) fn options(&self) -> Options {
        Options {
            address: Address::Tcp { host: "127.0.0.1".to_owned(), port: self.port },
            retry: Retry { retries: 3, first: Duration::ZERO, longest: Duration::ZERO },
            ..Options::default()
        }
    }

    /// All requests so far but HELLO, as `connection: text`.
    pub(crate) fn received(&self) -> Vec<String> {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = |request: &Request| format!("{}: {}", request.connection, request.text);
        requests.iter().filter(|request| !request.text.starts_with("HELLO")).map(shown).collect()
    }

    /// Waits until the server has closed a connection, and so the client's socket knows it.
    pub(crate) fn wait_until_closed(&self) {
        self.closed.recv_timeout(Duration::from_secs(60)).expect("the server closes a connection");
    }
}

fn serve(
    mut stream: TcpStream,
    connection: usize,
    handler: &Mutex<Handler>,
    log: &Mutex<Vec<Request>>,
    closing: &Sender<usize>,
) {
    let limits = RequestLimits::default();
    let (mut decoder, mut ranges) = (RequestDecoder::new(), Vec::new());
    let (mut buffer, mut chunk) = (Vec::new(), [0_u8; 4096]);
    loop {
        let length = match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return,
            Ok(length) => length,
        };
        buffer.extend_from_slice(&chunk[..length]);
        while let Decoded::Request { end } = decoder.decode(&buffer, 0, &limits, &mut ranges).expect("a request") {
            let args: Vec<&[u8]> = bowline_resp::Args::new(&buffer, &ranges).iter().collect();
            let request = Request {
                connection,
                text: String::from_utf8_lossy(&args.join(&b' ')).into_owned(),
                args: args.into_iter().map(<[u8]>::to_vec).collect(),
            };
            buffer.drain(..end);
            decoder = RequestDecoder::new();
            ranges.clear();
            log.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
            let action = handler.lock().unwrap_or_else(PoisonError::into_inner)(&request);
            let (bytes, close) = match action {
                Action::Reply(bytes) => (bytes, false),
                Action::ReplyAndClose(bytes) => (bytes, true),
                Action::Close => (Vec::new(), true),
                Action::Silence => (Vec::new(), false),
            };
            if stream.write_all(&bytes).is_err() {
                return;
            }
            if close {
                let _ = stream.shutdown(Shutdown::Both);
                drop(stream);
                let _ = closing.send(connection);
                return;
            }
        }
    }
}
