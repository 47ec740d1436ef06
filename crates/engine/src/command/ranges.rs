//! Parts of strings: APPEND, STRLEN, GETRANGE, SETRANGE.

use super::arguments::integer;
use super::{
    Arity, Change, Command, CommandError, CommandInfo, Expiry, Flags, Group, KeyPositions, Outcome, Run, View,
};
use crate::keyspace::entry::{EntryRef, Value, parse_canonical};
use crate::limits::VALUE_BYTES_MAX;
use bowline_resp::{Args, Reply};
use std::ops::Range;

const fn row(name: &'static str, arguments: usize, syntax: &'static str, summary: &'static str, run: Run) -> Command {
    let (arity, keys, flags) = (Arity::Exactly(arguments), KeyPositions::FIRST, Flags::FAST);
    Command::new(CommandInfo { name, arity, keys, flags, group: Group::String, syntax, summary, since: "0.1.0" }, run)
}

/// The rows of this file.
pub(super) static COMMANDS: &[Command] = &[
    row(
        "append",
        3,
        "key value",
        "Appends a string to the value of a key; creates the key if need be.",
        Run::Write(append),
    )
    .adding()
    .value_at(2),
    row("strlen", 2, "key", "Returns the length of a string value.", Run::Read(strlen)),
    row("getrange", 4, "key start end", "Returns part of the string at a key.", Run::Read(getrange)),
    row(
        "substr",
        4,
        "key start end",
        "Returns part of the string at a key; the old name of GETRANGE.",
        Run::Read(getrange),
    ),
    row(
        "setrange",
        4,
        "key offset value",
        "Overwrites part of a string value; creates the key if need be.",
        Run::Write(setrange),
    )
    .adding()
    .value_at(3)
    .padding(setrange_padding),
];

fn append(change: &mut Change<'_, '_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (key, bytes) = (args.at(1), args.bulk(2));
    let len = change.find(key).map(|entry| entry.value().len());
    let new_len = len.unwrap_or(0) + bytes.len();
    if new_len > change.value_bytes_max() {
        return Err(CommandError::StringTooLong);
    }
    match len {
        Some(_) if bytes.is_empty() => {}
        Some(_) => change.append(key, bytes),
        None => change.put(key, Value::of(bytes), Expiry::Clear),
    }
    reply.integer(new_len as i64);
    Ok(())
}

fn strlen(view: &mut View<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let len = view.find(args.at(1))?.map_or(0, |entry| entry.value().len());
    reply.integer(len as i64);
    Ok(())
}

/// What lies from `start` to `end` of `len` bytes, both included and negative from the back, as Redis clips them.
fn clip(len: usize, start: i64, end: i64) -> Range<usize> {
    let len = len as i64;
    if start < 0 && end < 0 && start > end {
        return 0..0;
    }
    let from_back = |index: i64| if index < 0 { index.saturating_add(len).max(0) } else { index };
    let (start, end) = (from_back(start), from_back(end).min(len - 1));
    if start > end { 0..0 } else { start as usize..end as usize + 1 }
}

fn getrange(view: &mut View<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (start, end) = (integer(args.at(2))?, integer(args.at(3))?);
    match view.find(args.at(1))?.map(EntryRef::value) {
        Some(Value::Chunks(chunks)) => {
            let Range { start, end } = clip(chunks.len(), start, end);
            reply.bulk_chunks(chunks, start, end);
        }
        Some(value) => value.with_bytes(|bytes| {
            reply.bulk(bytes.get(clip(bytes.len(), start, end)).unwrap_or_default());
        }),
        None => reply.bulk(b""),
    }
    Ok(())
}

fn setrange(change: &mut Change<'_, '_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (key, offset, bytes) = (args.at(1), integer(args.at(2))?, args.bulk(3));
    let Ok(offset) = usize::try_from(offset) else { return Err(CommandError::text("ERR offset is out of range")) };
    let len = change.find(key).map(|entry| entry.value().len());
    if bytes.is_empty() {
        reply.integer(len.unwrap_or(0) as i64);
        return Ok(());
    }
    let end = offset.saturating_add(bytes.len());
    if end > change.value_bytes_max() {
        return Err(CommandError::StringTooLong);
    }
    if len.is_none() {
        change.put(key, Value::Bytes(b""), Expiry::Clear);
    }
    // `end` is at most the longest value, far below 4 GiB.
    change.set_range(key, offset as u32, bytes);
    reply.integer(len.unwrap_or(0).max(end) as i64);
    Ok(())
}

/// The offset; one beyond the longest value there can be is refused, and pads nothing.
fn setrange_padding(args: Args<'_>) -> usize {
    let offset = parse_canonical(args.at(2)).and_then(|offset| usize::try_from(offset).ok());
    offset.filter(|offset| *offset <= VALUE_BYTES_MAX).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    fn clip(bytes: &[u8], start: i64, end: i64) -> &[u8] {
        bytes.get(super::clip(bytes.len(), start, end)).expect("a range within")
    }

    #[test]
    fn ranges_are_clipped_as_redis_does() {
        let text = b"This is a string";
        assert_eq!(clip(text, 0, 3), b"This");
        assert_eq!(clip(text, -3, -1), b"ing");
        assert_eq!(clip(text, 0, -1), text);
        assert_eq!(clip(text, 10, 100), b"string");
        assert_eq!(clip(text, 5, 3), b"");
        assert_eq!(clip(text, -100, 2), b"Thi");
        assert_eq!(clip(text, i64::MIN, i64::MAX), text);
        assert_eq!(clip(text, i64::MAX, i64::MIN), b"");
        assert_eq!(clip(text, -1, -5), b"");
        assert_eq!(clip(b"", 0, -1), b"");
    }
}
