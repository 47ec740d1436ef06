//! A socket and its session: one turn reads once, runs every complete request, and writes once.
//!
//! Edges are level enough: the poll tells of a change only, so a connection remembers that its socket may hold more
//! (`readable`) and that it was full (`blocked`). A read that brings less than was asked for has emptied the socket.

use std::io::{self, ErrorKind, IoSlice, Read, Write};

use bowline::Version;
use bowline::exec::PIECES_MAX;
use smallvec::SmallVec;

use super::socket::Socket;
use crate::session::limits::{DIRECT_READ_BYTES, DIRECT_READ_FROM};
use crate::session::{Session, Waits, Workbench};

/// A connected client.
pub(super) struct Connection {
    pub(super) socket: Socket,
    pub(super) session: Session,
    /// The socket may hold bytes that were not read.
    pub(super) readable: bool,
    /// The peer has said that it sends no more: the end comes after the bytes that are there.
    pub(super) ended: bool,
    /// The socket took less than was offered: the next writable edge continues.
    pub(super) blocked: bool,
    /// The version for which this connection stands in the loop's queue of held replies.
    pub(super) queued_for: Option<Version>,
    /// The commit that the last write went by. What it held back is asked for by this one, not by a newer commit: the
    /// replies that became free in between would be neither written nor waited for.
    pub(super) written_at: Version,
    /// Whether it stands in the loop's queue of connections with something to do.
    pub(super) queued_to_run: bool,
    /// Whether it stands in a queue for room or for the end of a pause.
    pub(super) parked: bool,
    /// Memory of its session when the loop last added up that of all.
    pub(super) weighed: usize,
    /// Unix time in milliseconds of the last request or reply that moved.
    pub(super) active_ms: u64,
}

/// What the loop has to do for a connection after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// Close it.
    Close,
    /// Give it another turn soon: there is more to read or to run.
    Again,
    /// Wait for the next edge, commit, room or the end of a pause.
    Wait,
}

impl Connection {
    /// A connection that was just taken in. Its socket is taken to hold bytes: the first read tells.
    pub(super) fn new(socket: Socket, session: Session, now_ms: u64) -> Connection {
        Connection {
            socket,
            session,
            readable: true,
            ended: false,
            blocked: false,
            queued_for: None,
            written_at: Version::ZERO,
            queued_to_run: false,
            parked: false,
            weighed: 0,
            active_ms: now_ms,
        }
    }

    /// A turn: reads what there is, runs what is complete, writes what may leave.
    pub(super) fn turn(&mut self, bench: &mut Workbench, buffer: &mut [u8]) -> After {
        if self.session.has_input() && self.session.wants_input(bench) {
            self.session.resume(bench);
        } else if self.readable && self.session.wants_input(bench) && self.read(bench, buffer).is_err() {
            return After::Close;
        }
        self.finish(bench)
    }

    /// Writes, then says what comes next.
    pub(super) fn finish(&mut self, bench: &Workbench) -> After {
        if self.write(bench).is_err() {
            return After::Close;
        }
        if self.ended && self.session.waits() == Waits::Pause && self.session.output_bytes() == 0 {
            // Whether it only sends no more or has gone, the socket does not tell. A pause may be long and a request that it
            // holds back was not acknowledged: it is dropped with its connection, as in Redis.
            return After::Close;
        }
        if !self.blocked && self.session.output_bytes() > 0 && !self.session.output(self.written_at).is_empty() {
            // Long values leave in several writes, so that others have their turn between them.
            return After::Again;
        }
        if self.session.is_closing() {
            return if self.session.output_bytes() == 0 { After::Close } else { After::Wait };
        }
        let runnable = self.session.has_input();
        if self.session.wants_input(bench) && (self.readable || runnable) { After::Again } else { After::Wait }
    }

    /// Reads once and hands the bytes to the session. An error: the peer is gone.
    fn read(&mut self, bench: &mut Workbench, buffer: &mut [u8]) -> io::Result<()> {
        let wanted = self.session.bytes_wanted();
        let (asked, read) = if self.session.chunk_bytes_missing() > 0 {
            self.read_chunks(bench)
        } else if wanted >= DIRECT_READ_FROM {
            let space = direct_space(wanted, self.session.received_bytes(), buffer.len());
            let read = self.socket.read(self.session.direct_space(space));
            self.session.received_directly(space, *read.as_ref().unwrap_or(&0), bench);
            (space, read)
        } else {
            let read = self.socket.read(buffer);
            if let Ok(received) = read {
                self.session.receive(buffer.get(..received).unwrap_or_default(), bench);
            }
            (buffer.len(), read)
        };
        match read {
            Ok(0) => {
                // The peer may still read: it gets what it asked for.
                self.readable = false;
                self.session.close_after_replies();
                Ok(())
            }
            Ok(received) => {
                bench.metrics.received(received);
                self.active_ms = bench.now_ms;
                self.readable = received == asked || self.ended;
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Reads some chunks of a long argument. Returns how much was asked for, and what came.
    fn read_chunks(&mut self, bench: &mut Workbench) -> (usize, io::Result<usize>) {
        let (mut asked, mut received) = (0, 0);
        while received < DIRECT_READ_BYTES && self.session.chunk_bytes_missing() > 0 {
            let socket = &mut self.socket;
            let (room, read) = self.session.receive_chunk(bench, |space| socket.read_to_end_of(space));
            asked += room;
            match read {
                Ok(more @ 1..) => {
                    received += more;
                    if more < room {
                        break;
                    }
                }
                Err(error) if received > 0 && error.kind() == ErrorKind::WouldBlock => break,
                // The next read tells it again.
                Ok(0) | Err(_) if received > 0 => return (received, Ok(received)),
                other => return (asked, other),
            }
        }
        (asked, Ok(received))
    }

    /// Writes the replies that may leave, once.
    fn write(&mut self, bench: &Workbench) -> io::Result<()> {
        self.written_at = bench.server.commit();
        if self.blocked {
            return Ok(());
        }
        let (offered, written) = if self.session.is_output_in_pieces() {
            let pieces = self.session.output_pieces(self.written_at);
            if pieces.is_empty() {
                return Ok(());
            }
            let pieces: SmallVec<[IoSlice<'_>; PIECES_MAX]> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
            (pieces.iter().map(|piece| piece.len()).sum(), self.socket.write_vectored(&pieces))
        } else {
            let ready = self.session.output(self.written_at);
            if ready.is_empty() {
                return Ok(());
            }
            (ready.len(), self.socket.write(ready))
        };
        match written {
            Ok(0) => Err(ErrorKind::WriteZero.into()),
            Ok(written) => {
                self.session.sent(written);
                self.active_ms = bench.now_ms;
                bench.metrics.sent(written);
                self.blocked = written < offered;
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.blocked = true;
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// How much of an argument of which `wanted` bytes are missing is read at once, `received` bytes having come: as much
/// again, at least a usual read. Memory follows bytes, not what a header promises.
fn direct_space(wanted: usize, received: usize, usual: usize) -> usize {
    wanted.min(DIRECT_READ_BYTES).min(received.max(usual))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::limits::READ_BYTES;

    #[test]
    fn the_space_for_a_promised_argument_grows_with_what_has_come() {
        let promised = 512 << 20;
        let mut received = 20;
        let mut most = 0;
        while received < 4 << 20 {
            let space = direct_space(promised - received, received, READ_BYTES);
            assert!(space <= received.max(READ_BYTES), "{space} for {received}");
            most = most.max(space);
            received += space;
        }
        assert_eq!(most, DIRECT_READ_BYTES);
        assert_eq!(direct_space(100, received, READ_BYTES), 100, "never beyond the argument");
    }
}
