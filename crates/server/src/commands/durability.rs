//! Ours: what an answer promises, per connection or per command, and waiting for the commit.

use bowline::command::{Arity, Flags, Group};
use bowline::exec::Durability;

use super::row::{Call, ServerCommand};

/// The rows of this file.
pub(super) static ROWS: &[ServerCommand] = &[
    ServerCommand::new(
        "bl.durability",
        Arity::AtLeast(1),
        "[always | everysec | none | default]",
        "Answers or sets what a reply to a write of this connection promises.",
        durability,
    )
    .of(Group::Connection)
    .flags(Flags::FAST),
    ServerCommand::new(
        "bl.at",
        Arity::AtLeast(3),
        "always | everysec | none command [arg ...]",
        "Runs one command at a durability level of its own.",
        at,
    )
    .of(Group::Connection)
    .flags(Flags::NO_MULTI)
    .needs_data()
    .at_once(),
    ServerCommand::new(
        "bl.sync",
        Arity::Exactly(1),
        "",
        "Answers a version when everything this connection wrote is committed.",
        sync,
    )
    .of(Group::Connection)
    .flags(Flags::NO_MULTI)
    .needs_data()
    .at_once(),
];

/// The level's word, as in the setting `durability`.
pub(super) fn word(level: Durability) -> &'static str {
    match level {
        Durability::Always => "always",
        Durability::EverySecond => "everysec",
        Durability::None => "none",
    }
}

fn parse(text: &[u8]) -> Option<Durability> {
    match text.to_ascii_lowercase().as_slice() {
        b"always" => Some(Durability::Always),
        b"everysec" => Some(Durability::EverySecond),
        b"none" | b"no" => Some(Durability::None),
        _ => None,
    }
}

const UNKNOWN: &str = "ERR unknown durability level: always, everysec, none or default";

fn durability(call: &mut Call<'_>) {
    let wanted = call.args.at(1);
    if call.args.len() > 2 {
        return call.wrong_arity();
    }
    if call.args.len() == 1 {
        let level = call.session.level.unwrap_or(call.bench.default_level);
        return call.reply().bulk(word(level).as_bytes());
    }
    let level = parse(wanted);
    if level.is_none() && !wanted.eq_ignore_ascii_case(b"default") {
        return call.error(UNKNOWN);
    }
    call.session.level = level;
    call.reply().ok();
}

fn at(call: &mut Call<'_>) {
    if call.session.in_transaction() {
        return call.error("ERR BL.AT inside MULTI is not allowed: a transaction has one level, set it before");
    }
    let Some(level) = parse(call.args.at(1)) else { return call.error(UNKNOWN) };
    call.session.run_at(call.bench, level, call.args.from(2));
}

fn sync(call: &mut Call<'_>) {
    if call.session.in_transaction() {
        return call.error("ERR BL.SYNC inside MULTI is not allowed");
    }
    // The last version of the whole store is no older than the last one of this connection.
    let version = call.bench.server.store().log().last_version();
    let commit = call.bench.server.commit();
    call.session.reply_when(version, commit, |reply| reply.integer(version.0 as i64));
}
