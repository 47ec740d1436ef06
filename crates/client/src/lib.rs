//! Client library of Bowline, for any server that speaks the Redis protocol.
//!
//! ```text
//!   Pool  -> Client      connects, tries again what may be tried again, tells what is unknown
//!              |           operations: put get exists delete size ping flush stats put_batch
//!              |           pipeline:   many commands on their way at once
//!              v
//!            Connection  one socket: requests out, answers in, in order
//!              v
//!            bowline-resp (the codec)
//! ```
//!
//! **A write whose answer was lost is never sent again.** The call returns [`Error::Unknown`], and the caller, who alone
//! knows whether doing it twice is harmless, decides. Reads are sent again on a new connection, with growing random
//! waits. A write is sent again only when surely no byte of it had left: the server could not be reached, or the idle
//! connection turned out to be closed before the first byte was written.
//!
//! **Blocking, on purpose.** A call is one write and one read of a socket; the time is spent in the network, not in
//! waiting threads. A blocking client has no runtime to choose, works in any thread of any program (also within
//! `spawn_blocking` of an asynchronous one), and its stack traces read from top to bottom. Many requests at once are what
//! the pipeline is for, many threads what the pool is for. Who needs ten thousand connections in one process needs an
//! asynchronous client; those for Redis speak the same protocol. A thin client of our own was taken instead of the `redis`
//! crate so that what was sent, and what certainly was not, is known here byte by byte: the distinction above rests on it.
//!
//! Not here: cluster routing, publish/subscribe, TLS.

#![forbid(unsafe_code)]

mod address;
mod client;
mod command;
mod connection;
mod error;
mod operations;
mod options;
mod pipeline;
mod pool;
mod session;

pub use address::{Address, AddressError, DEFAULT_PORT, Stream};
pub use bowline_resp::{Protocol, ProtocolError, Value};
pub use client::{Client, Event};
pub use connection::Connection;
pub use error::{Error, LostReply, Result, ServerError};
pub use options::{Options, Retry};
pub use pipeline::Pipeline;
pub use pool::{Pool, PooledClient};
