//! Sockets and event loops.
//!
//! ```text
//!   listen: doors --accept--> Arrival --mailbox--> event_loop 0..N
//!                                                     |-- connection: socket + session (a turn: read, run, write)
//!                                                     \-- woken by the log when a commit releases held replies
//! ```
//!
//! A connection lives on one loop. Loops share nothing on the way of a request but the store. Not here: what bytes mean
//! (`session`), commands (`commands`).

pub mod accept;
mod connection;
pub mod event_loop;
mod gathering;
pub mod listen;
pub mod mailbox;
pub mod socket;
mod waiting;
