//! Whole databases: DBSIZE, KEYS, SCAN, RANDOMKEY, FLUSHDB, FLUSHALL, SWAPDB.

use super::arguments::{integer, is_word, quotable};
use super::{
    Arity, Change, Command, CommandError, CommandInfo, Flags, Group, KeyPositions, Outcome, Pattern, Run, View,
};
use crate::keyspace::table::TableCursor;
use bowline_resp::{Args, Reply};
use std::ops::ControlFlow;

const fn row(
    name: &'static str,
    arity: Arity,
    (group, flags): (Group, Flags),
    syntax: &'static str,
    summary: &'static str,
    run: Run,
) -> Command {
    let (keys, flags) = (KeyPositions::NONE, flags.with(Flags::WHOLE));
    Command::new(CommandInfo { name, arity, keys, flags, group, syntax, summary, since: "0.1.0" }, run)
}

const READS: (Group, Flags) = (Group::Generic, Flags::NONE);
const READS_BY_SEGMENT: (Group, Flags) = (Group::Generic, Flags::BY_SEGMENT);
const EMPTIES: (Group, Flags) = (Group::Server, Flags::FREES.with(Flags::DANGEROUS));

/// The rows of this file.
pub(super) static COMMANDS: &[Command] = &[
    row(
        "dbsize",
        Arity::Exactly(1),
        (Group::Server, Flags::FAST),
        "",
        "Returns the number of keys in the database.",
        Run::Read(dbsize),
    ),
    row(
        "keys",
        Arity::Exactly(2),
        READS_BY_SEGMENT,
        "pattern",
        "Returns all keys that match a pattern.",
        Run::Read(keys),
    ),
    row(
        "scan",
        Arity::AtLeast(2),
        READS_BY_SEGMENT,
        "cursor [MATCH pattern] [COUNT count] [TYPE type]",
        "Returns some of the keys and where to go on.",
        Run::Read(scan),
    ),
    row("randomkey", Arity::Exactly(1), READS, "", "Returns a key chosen at random.", Run::Read(randomkey)),
    row(
        "flushdb",
        Arity::AtLeast(1),
        EMPTIES,
        "[ASYNC | SYNC]",
        "Empties the database; memory is freed in the background.",
        Run::Write(flushdb),
    ),
    row(
        "flushall",
        Arity::AtLeast(1),
        EMPTIES,
        "[ASYNC | SYNC]",
        "Empties all databases; memory is freed in the background.",
        Run::Write(flushall),
    ),
    row(
        "swapdb",
        Arity::Exactly(3),
        (Group::Server, Flags::DANGEROUS.with(Flags::FAST)),
        "index1 index2",
        "Exchanges two databases.",
        Run::Write(swapdb),
    ),
];

fn dbsize(view: &mut View<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let count: usize = view.tables()?.iter().map(|(_, table)| table.entries().len()).sum();
    reply.integer(count as i64);
    Ok(())
}

fn keys(view: &mut View<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let pattern = Pattern::new(args.at(1));
    let (mut matching, mut bytes) = (Vec::new(), Vec::new());
    view.visit_tables(0, |_, table| {
        table.entries().visit_all(|entry| {
            if pattern.matches_all() || pattern.matches(entry.key()) {
                bytes.extend_from_slice(entry.key());
                matching.push(entry.key().len());
            }
        });
        ControlFlow::Continue(())
    })?;
    reply.array(matching.len());
    let mut rest = bytes.as_slice();
    for length in matching {
        let (key, after) = rest.split_at(length);
        reply.bulk(key);
        rest = after;
    }
    Ok(())
}

/// A cursor of SCAN: segment, place in its table. Packed into 53 bits, so that clients which keep numbers as doubles can
/// hold it; 0 is both the start and the end.
fn unpack_cursor(cursor: u64) -> (usize, TableCursor) {
    let range = ((cursor >> 16) as u32 & 0x00ff_ffff) << 8;
    let table = TableCursor { range, tag: cursor as u16, bits: (cursor >> 40) as u8 & 0x1f };
    ((cursor >> 45) as usize, table)
}

fn pack_cursor(segment: usize, table: TableCursor) -> u64 {
    // A range has at most 24 significant bits, the uppermost: 2^24 subtables in a segment are 8.6 billion entries.
    (segment as u64) << 45 | u64::from(table.bits) << 40 | u64::from(table.range >> 8) << 16 | u64::from(table.tag)
}

/// A cursor as Redis reads it, with C's `strtoul`: no text is 0, a negative number lies behind every key.
fn parse_cursor(text: &[u8]) -> Option<u64> {
    let text = quotable(text, text.len());
    let (negative, digits) = match text {
        [] => return Some(0),
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    // The sign is off already: a second one is no digit.
    let number: u64 = std::str::from_utf8(digits).ok().filter(|text| !text.starts_with('+'))?.parse().ok()?;
    Some(if negative { number.wrapping_neg() } else { number })
}

struct ScanOptions {
    pattern: Pattern,
    count: usize,
    strings: bool,
}

impl ScanOptions {
    fn parse(args: Args<'_>) -> Result<ScanOptions, CommandError> {
        let mut options = ScanOptions { pattern: Pattern::new(b"*"), count: 10, strings: true };
        let mut words = args.from(2).iter();
        while let Some(word) = words.next() {
            let value = words.next().ok_or(CommandError::Syntax)?;
            if is_word(word, "match") {
                options.pattern = Pattern::new(value);
            } else if is_word(word, "count") {
                options.count = usize::try_from(integer(value)?).ok().filter(|n| *n > 0).ok_or(CommandError::Syntax)?;
            } else if is_word(word, "type") {
                options.strings = is_word(value, "string");
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(options)
    }
}

fn scan(view: &mut View<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let cursor = parse_cursor(args.at(1)).ok_or(CommandError::text("ERR invalid cursor"))?;
    let options = ScanOptions::parse(args)?;
    let (first, mut at) = unpack_cursor(cursor);
    let (mut visited, mut found, mut next) = (0, Vec::new(), 0);
    view.visit_tables(first, |segment, table| {
        let mut place = Some(if segment == first { std::mem::take(&mut at) } else { TableCursor::default() });
        while let Some(from) = place
            && visited < options.count
        {
            place = table.entries().scan(from, options.count - visited, &mut |entry| {
                visited += 1;
                if options.strings && options.pattern.matches(entry.key()) {
                    found.push(entry.key().to_vec());
                }
            });
        }
        if visited >= options.count {
            next = match place {
                Some(place) => pack_cursor(segment, place),
                None => pack_cursor(segment + 1, TableCursor::default()),
            };
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    reply.array(2);
    reply.bulk(next.to_string().as_bytes());
    reply.array(found.len());
    found.iter().for_each(|key| reply.bulk(key));
    Ok(())
}

fn randomkey(view: &mut View<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let tables = view.tables()?;
    let total: usize = tables.iter().map(|(_, table)| table.entries().len()).sum();
    let mut wanted = ((u128::from(view.random()) * total as u128) >> 64) as usize;
    let second = view.random();
    for (_, table) in tables {
        if wanted < table.entries().len()
            && let Some(entry) = table.entries().random(second)
        {
            reply.bulk(entry.key());
            return Ok(());
        }
        wanted = wanted.saturating_sub(table.entries().len());
    }
    reply.null();
    Ok(())
}

/// FLUSHDB and FLUSHALL take one word, and mean the same with either: freeing is always in the background.
fn check_flush_word(args: Args<'_>) -> Outcome {
    match args.get(1) {
        None => Ok(()),
        Some(word) if args.len() == 2 && (is_word(word, "async") || is_word(word, "sync")) => Ok(()),
        Some(_) => Err(CommandError::Syntax),
    }
}

fn flushdb(change: &mut Change<'_, '_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    check_flush_word(args)?;
    change.flush(change.database());
    reply.ok();
    Ok(())
}

fn flushall(change: &mut Change<'_, '_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    check_flush_word(args)?;
    change.flush_all();
    reply.ok();
    Ok(())
}

fn swapdb(change: &mut Change<'_, '_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let number = |index: usize, text: &'static str| {
        let number = integer(args.at(index)).ok().and_then(|number| i32::try_from(number).ok());
        number.ok_or(CommandError::text(text))
    };
    let first = number(1, "ERR invalid first DB index")?;
    let second = number(2, "ERR invalid second DB index")?;
    let in_range = |number: i32| {
        u32::try_from(number).ok().filter(|n| *n < change.databases()).ok_or(CommandError::NoSuchDatabase)
    };
    let (first, second) = (in_range(first)?, in_range(second)?);
    if first != second {
        change.swap(first, second);
    }
    reply.ok();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_survive_packing() {
        let table = TableCursor { range: 0xabcd_ef00, tag: 0x1234, bits: 31 };
        assert_eq!(unpack_cursor(pack_cursor(255, table)), (255, table));
        assert!(pack_cursor(255, table) < 1 << 53);
        assert_eq!(unpack_cursor(0), (0, TableCursor::default()));
    }
}
