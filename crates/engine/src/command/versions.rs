//! Versions: what Bowline adds to Redis. Names with a dot never collide with Redis's.

use super::arguments::integer;
use super::{
    Arity, Change, Command, CommandError, CommandInfo, Expiry, Flags, Group, KeyPositions, Outcome, Run, View,
};
use crate::keyspace::entry::Value;
use crate::version::Version;
use bowline_resp::{Args, Reply};

const fn row(name: &'static str, arguments: usize, syntax: &'static str, summary: &'static str, run: Run) -> Command {
    let (arity, keys, flags) = (Arity::Exactly(arguments), KeyPositions::FIRST, Flags::FAST);
    Command::new(CommandInfo { name, arity, keys, flags, group: Group::Generic, syntax, summary, since: "0.1.0" }, run)
}

/// The rows of this file.
pub(super) static COMMANDS: &[Command] = &[
    row(
        "bl.entry",
        2,
        "key",
        "Returns version, created and updated (Unix ms), expiry (Unix ms or nil) and value size in bytes, or nil.",
        Run::Read(entry),
    ),
    row(
        "bl.cas",
        4,
        "key version value",
        "Sets a value if the key still has this version (0: if it does not exist); returns the new version, or nil.",
        Run::Write(compare_and_set),
    )
    .blind()
    .adding()
    .value_at(3),
];

fn entry(view: &mut View<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let Some(entry) = view.find(args.at(1))? else {
        reply.null();
        return Ok(());
    };
    let own = entry.version() == Version::MAX;
    reply.map(5);
    reply.bulk(b"version");
    if own {
        view.own_version_at(reply.bytes_written());
    } else {
        reply.integer(entry.version().0 as i64);
    }
    let updated_ms = if own { view.now_ms() } else { entry.version().time_ms() };
    let created_ms = if own { updated_ms } else { u64::from(entry.created()) * 1000 };
    for (name, number) in [("created", Some(created_ms)), ("updated", Some(updated_ms)), ("expiry", entry.expire_at())]
    {
        reply.bulk(name.as_bytes());
        match number {
            Some(ms) => reply.integer(ms as i64),
            None => reply.null(),
        }
    }
    reply.bulk(b"size");
    reply.integer(entry.value().len() as i64);
    Ok(())
}

fn compare_and_set(change: &mut Change<'_, '_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (key, wanted, value) = (args.at(1), integer(args.at(2))?, args.bulk(3));
    if value.len() > change.value_bytes_max() {
        return Err(CommandError::StringTooLong);
    }
    let found = change.find(key).map_or(Version::ZERO, |entry| entry.version());
    if i64::try_from(found.0) != Ok(wanted) {
        reply.null();
        return Ok(());
    }
    change.put(key, Value::of(value), Expiry::Keep);
    change.own_version_at(reply.bytes_written());
    Ok(())
}
