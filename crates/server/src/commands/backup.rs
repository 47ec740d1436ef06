//! BL.BACKUP: a snapshot of this moment, handed out in pieces while everybody goes on.
//!
//! ```text
//!   BEGIN [FORMAT RDB] -> a checkpoint of now, pinned -> READ, READ, ... an empty answer -> END
//! ```
//!
//! A backup belongs to its connection: it ends with it, and when nothing is read for a while. Neither command waits on
//! the loop: the session is parked until the checkpoint, or the next piece, is there. Not here: what a snapshot is (crate
//! `bowline`), writing it into a file and verifying it (`kv_client backup`).

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;

use bowline::command::{Arity, Flags};
use bowline::snapshot::{Pace, Snapshot, SnapshotStream};

use super::row::{Call, ServerCommand, container, help};
use crate::export::write_rdb;
use crate::session::limits::{BACKUP_IDLE_SECONDS_MAX, BACKUPS_MAX};
use crate::session::{Session, Waits};
use crate::state::Server;

const ADMIN: Flags = Flags::ADMIN.with(Flags::DANGEROUS).with(Flags::NO_MULTI);

/// The rows of this file.
pub(super) static ROWS: &[ServerCommand] =
    &[ServerCommand::new("bl.backup", Arity::AtLeast(2), "", "Hands out a backup of this moment.", container)
        .flags(ADMIN)
        .needs_data()
        .container(SUBCOMMANDS)];

static SUBCOMMANDS: &[ServerCommand] = &[
    ServerCommand::new(
        "bl.backup|begin",
        Arity::AtLeast(2),
        "[RATE bytes-per-second] [FORMAT RDB]",
        "Takes a snapshot; answers its id, version, time, entries and about how many bytes.",
        begin,
    )
    .flags(ADMIN)
    .needs_data(),
    ServerCommand::new(
        "bl.backup|read",
        Arity::Exactly(3),
        "id",
        "Answers the next piece of a backup, at most 1 MiB; nothing at its end.",
        read,
    )
    .flags(ADMIN)
    .needs_data(),
    ServerCommand::new("bl.backup|end", Arity::Exactly(3), "id", "Ends a backup.", end).flags(ADMIN).needs_data(),
    ServerCommand::new("bl.backup|help", Arity::Exactly(2), "", "Lists the subcommands.", help),
];

/// What a connection does about backups.
#[derive(Default)]
pub(crate) enum Backup {
    /// Nothing.
    #[default]
    None,
    /// A BEGIN waits for the checkpoint of this number.
    Awaited(u64),
    /// It reads one.
    Running(Box<Running>),
}

/// A backup that is handed out. Dropping it lets the checkpoint go.
pub(crate) struct Running {
    id: u64,
    /// None once everything was read.
    pieces: Option<SnapshotStream>,
    read_at_ms: u64,
    server: Arc<Server>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.server.backups.running.fetch_sub(1, Relaxed);
    }
}

impl Session {
    /// Ends a backup of which nothing was read for long: it keeps blocks from being used again.
    pub(crate) fn end_idle_backup(&mut self, now_ms: u64) {
        if let Backup::Running(running) = &self.backup
            && now_ms.saturating_sub(running.read_at_ms) > BACKUP_IDLE_SECONDS_MAX * 1000
        {
            tracing::warn!(client = self.client.id, "ends a backup that nobody reads");
            self.backup = Backup::None;
        }
    }
}

/// What BEGIN asks for.
#[derive(Clone, Copy, Default)]
struct Wishes {
    rate: Option<u64>,
    /// An RDB instead of a backup of our own.
    rdb: bool,
}

/// What BEGIN asks for; `None` when the arguments are wrong and that was answered.
fn wishes(call: &mut Call<'_>) -> Option<Wishes> {
    let mut wishes = Wishes::default();
    for at in (2..call.args.len()).step_by(2) {
        match (call.word(at).as_str(), call.args.len() > at + 1) {
            ("rate", true) => match u64::try_from(call.integer(at + 1)?) {
                Ok(rate) if rate > 0 => wishes.rate = Some(rate),
                _ => {
                    call.error("ERR RATE must be a number of bytes per second above 0");
                    return None;
                }
            },
            ("format", true) if call.word(at + 1) == "rdb" => wishes.rdb = true,
            _ => {
                call.syntax_error();
                return None;
            }
        }
    }
    Some(wishes)
}

fn begin(call: &mut Call<'_>) {
    let Some(wishes) = wishes(call) else { return };
    let server = call.server();
    let number = match call.session.backup {
        Backup::Running(_) => return call.error("ERR this connection has a backup already: BL.BACKUP END it first"),
        Backup::Awaited(number) => number,
        Backup::None => server.store().request_checkpoint(),
    };
    match server.store().snapshot_of_request(number) {
        None => {
            call.session.backup = Backup::Awaited(number);
            call.session.wait_for(Waits::Checkpoint);
        }
        Some(Ok(snapshot)) => {
            call.session.backup = Backup::None;
            start(call, server, snapshot, wishes);
        }
        Some(Err(problem)) => {
            call.session.backup = Backup::None;
            call.error(&format!("ERR {problem}"));
        }
    }
}

fn start(call: &mut Call<'_>, server: Arc<Server>, snapshot: Snapshot, wishes: Wishes) {
    if server.backups.running.fetch_add(1, Relaxed) >= BACKUPS_MAX {
        server.backups.running.fetch_sub(1, Relaxed);
        return call.error(&format!("ERR {BACKUPS_MAX} backups are running: wait until one has ended"));
    }
    let id = server.backups.begun.fetch_add(1, Relaxed) + 1;
    let mut running = Box::new(Running { id, pieces: None, read_at_ms: call.bench.now_ms, server });
    let header = snapshot.header().clone();
    let client = call.session.client.clone();
    let pace = Pace { bytes_per_second: wishes.rate, wake: Some(Box::new(move || client.wake())) };
    let stream = if wishes.rdb { snapshot.stream_with(pace, write_rdb) } else { snapshot.stream(pace) };
    match stream {
        Ok(pieces) => running.pieces = Some(pieces),
        Err(error) => return call.error(&format!("ERR cannot start a thread for the backup: {error}")),
    }
    let client = call.session.client.id;
    tracing::info!(client, backup = id, version = header.cut_version, entries = header.entries, "a backup begins");
    call.session.backup = Backup::Running(running);
    let mut reply = call.reply();
    let figures = [
        ("id", id),
        ("version", header.cut_version),
        ("time", header.taken_at_ms),
        ("entries", header.entries),
        ("bytes", header.live_bytes),
    ];
    reply.map(figures.len());
    for (name, figure) in figures {
        reply.bulk(name.as_bytes());
        reply.integer(i64::try_from(figure).unwrap_or(i64::MAX));
    }
}

const NO_SUCH_BACKUP: &str = "ERR this connection has no backup of that id: it was ended, or nothing was read for long";

/// Whether the connection has the backup that the arguments name; answers when not.
fn has_backup(call: &mut Call<'_>) -> bool {
    let Some(id) = call.integer(2) else { return false };
    let found = matches!(&call.session.backup, Backup::Running(running) if u64::try_from(id) == Ok(running.id));
    if !found {
        call.error(NO_SUCH_BACKUP);
    }
    found
}

fn read(call: &mut Call<'_>) {
    if !has_backup(call) {
        return;
    }
    let now_ms = call.bench.now_ms;
    let Backup::Running(running) = &mut call.session.backup else { return };
    running.read_at_ms = now_ms;
    match running.pieces.as_ref().map_or(Poll::Ready(None), SnapshotStream::poll) {
        Poll::Pending => call.session.wait_for(Waits::Checkpoint),
        Poll::Ready(Some(Ok(piece))) => call.reply().bulk(&piece),
        Poll::Ready(None) => {
            running.pieces = None;
            call.reply().bulk(b"");
        }
        Poll::Ready(Some(Err(error))) => {
            tracing::error!(%error, "a backup was given up");
            call.session.backup = Backup::None;
            call.error(&format!("ERR the backup was given up: {error}"));
        }
    }
}

fn end(call: &mut Call<'_>) {
    if has_backup(call) {
        call.session.backup = Backup::None;
        call.reply().ok();
    }
}
