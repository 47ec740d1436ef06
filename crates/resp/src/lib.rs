//! RESP2 and RESP3, the protocol of Redis, as pure functions over bytes. No sockets, no time, no threads.
//!
//! ```text
//!   server:   request bytes --RequestDecoder--> Args  ... command ...  Reply --> reply bytes
//!   client:   arguments --encode_request--> request bytes          reply bytes --ReplyDecoder--> Value
//! ```
//!
//! Three rules hold for everything that comes from outside:
//!
//! - **Bytes are read once.** Decoders keep their place between calls, so the work is linear in the bytes received,
//!   however small the pieces are in which they arrive, and the result does not depend on the pieces.
//! - **Nothing is allocated by a promise.** Memory grows with the bytes that have arrived, never with a length or a count
//!   that a header announces.
//! - **No input panics.** A request that breaks the protocol is a [`ProtocolError`], whose text is the one of Redis 7.2.
//!
//! A multibulk request (`*2\r\n$3\r\nGET\r\n$1\r\nk\r\n`) is not copied: its [`ArgRange`]s point into the connection's
//! buffer. An inline request (`GET "a key"`) may hold escapes, so its bytes need a place of their own: the decoder answers
//! [`Decoded::Inline`] and [`RequestDecoder::inline_args`] gives its arguments.
//!
//! A long argument may be received into [`Chunks`] beside the buffer ([`RequestDecoder::begin_chunks`]), and a long reply may
//! refer to such chunks ([`Reply::bulk_chunks`]): neither is copied on its way from the socket to the value and back.
//!
//! Two things are stricter than in Redis, which skips two bytes unseen: a length must end in CR LF and so must every bulk.
//! A client that counts wrongly is told so, and no part of its data is ever run as a command.
//!
//! ```
//! use bowline_resp::{Args, Decoded, Protocol, Reply, RequestDecoder, RequestLimits};
//!
//! let buffer = b"*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\n";
//! let (mut decoder, mut ranges) = (RequestDecoder::new(), Vec::new());
//! let decoded = decoder.decode(buffer, 0, &RequestLimits::default(), &mut ranges);
//! assert_eq!(decoded, Ok(Decoded::Request { end: buffer.len() }));
//!
//! let args = Args::new(buffer, &ranges);
//! let mut out = Vec::new();
//! Reply::new(&mut out, Protocol::Resp2).bulk(args.at(1));
//! assert_eq!(out, b"$2\r\nhi\r\n");
//! ```
#![forbid(unsafe_code)]

mod args;
mod chunks;
mod error;
#[doc(hidden)]
pub mod fuzz;
mod inline;
mod limits;
mod number;
mod reply;
mod reply_decoder;
mod request;
mod value;

pub use args::{ArgRange, Args};
pub use chunks::{Bulk, CHUNK_BYTES, Chunks, ChunksBuilder};
pub use error::ProtocolError;
pub use inline::{quote, split_inline};
pub use limits::{ReplyLimits, RequestLimits};
pub use number::{DoubleText, format_double, format_long_double_human, parse_integer};
pub use reply::{LongPart, Protocol, Reply};
pub use reply_decoder::ReplyDecoder;
pub use request::{Decoded, RequestDecoder, encode_request};
pub use value::Value;
