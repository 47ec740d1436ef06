//! The snapshot file: one exact state of a store as a stream of checked frames. A backup is one.
//!
//! ```text
//!   store -> Writer -> header, frames, end -> socket, file -> Checker / Reader -> store
//! ```
//!
//! Whoever carries a snapshot (the server, `kv_client`) verifies it without knowing what a record is. Nothing here knows
//! files, sockets or stores: a [`Writer`] makes bytes, a [`Checker`] takes them frame by frame, a [`Reader`] takes them
//! from any [`std::io::Read`]. Not here: what a record is (crate `bowline`).

#![forbid(unsafe_code)]

mod check;
mod error;
mod format;
mod moment;
mod reader;
mod writer;

pub use check::{Checker, Totals};
pub use error::SnapshotError;
pub use format::{
    DATABASES_BYTES_MAX, FORMAT, FRAME_BYTES_MAX, FRAME_HEAD_BYTES, FrameHead, FrameKind, HEADER_BYTES, Header,
    PAYLOAD_BYTES_MAX,
};
pub use moment::{Moment, NotAMoment};
pub use reader::{Frame, Reader};
pub use writer::Writer;

/// Short for a result with this crate's error.
pub type Result<T> = std::result::Result<T, SnapshotError>;
