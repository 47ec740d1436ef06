//! Checkpoints on demand: SAVE, BGSAVE, BGREWRITEAOF, LASTSAVE.
//!
//! Acknowledged writes are durable without any of these. A checkpoint brings the block file to this moment, and the log
//! gives up what is before it. None of them stops other clients: SAVE answers when the checkpoint is durable.

use bowline::command::{Arity, Flags};

use super::row::{Call, ServerCommand};
use crate::session::Waits;

const DANGEROUS: Flags = Flags::ADMIN.with(Flags::DANGEROUS).with(Flags::NO_MULTI);

/// The rows of this file.
pub(super) static ROWS: &[ServerCommand] = &[
    ServerCommand::new("save", Arity::Exactly(1), "", "Writes a checkpoint and answers when it is durable.", save)
        .flags(DANGEROUS)
        .needs_data(),
    ServerCommand::new("bgsave", Arity::AtLeast(1), "[SCHEDULE]", "Begins to write a checkpoint.", begin)
        .flags(Flags::ADMIN.with(Flags::DANGEROUS))
        .needs_data(),
    ServerCommand::new("bgrewriteaof", Arity::Exactly(1), "", "Begins to shorten the log by a checkpoint.", shorten)
        .flags(Flags::ADMIN.with(Flags::DANGEROUS))
        .needs_data(),
    ServerCommand::new("lastsave", Arity::Exactly(1), "", "Answers when the newest checkpoint was written.", last_save)
        .flags(Flags::FAST),
];

fn save(call: &mut Call<'_>) {
    let server = call.server();
    let store = server.store();
    let number = call.session.saving.take().unwrap_or_else(|| store.request_checkpoint());
    match store.checkpoint_ended(number) {
        None => {
            call.session.saving = Some(number);
            call.session.wait_for(Waits::Checkpoint);
        }
        Some(Ok(())) => call.reply().ok(),
        Some(Err(problem)) => call.error(&format!("ERR {problem}")),
    }
}

fn begin(call: &mut Call<'_>) {
    let schedule = match call.args.len() {
        1 => false,
        2 if call.word(1) == "schedule" => true,
        _ => return call.syntax_error(),
    };
    let server = call.server();
    let store = server.store();
    let running = store.checkpoints().running;
    if running && !schedule {
        return call.error("ERR Background save already in progress");
    }
    store.request_checkpoint();
    call.reply().simple(if running { "Background saving scheduled" } else { "Background saving started" });
}

fn shorten(call: &mut Call<'_>) {
    call.server().store().request_checkpoint();
    call.reply().simple("Background append only file rewriting started");
}

fn last_save(call: &mut Call<'_>) {
    let server = call.server();
    let newest_ms = server.opened().map_or(server.started_ms, |store| store.checkpoints().last_at_ms);
    call.reply().integer((newest_ms / 1000) as i64);
}
