//! Numbers in strings: INCR and its family.

use super::arguments::{integer, integer_value, is_word};
use super::decimal::Decimal;
use super::{Arity, Change, Command, CommandError, CommandInfo, Expiry, Flags, Group, KeyPositions, Outcome, Run};
use crate::keyspace::entry::Value;
use bowline_resp::{Args, Reply};

const fn row(name: &'static str, arguments: usize, syntax: &'static str, summary: &'static str, run: Run) -> Command {
    let (arity, keys, flags) = (Arity::Exactly(arguments), KeyPositions::FIRST, Flags::FAST.with(Flags::ADDS));
    Command::new(CommandInfo { name, arity, keys, flags, group: Group::String, syntax, summary, since: "0.1.0" }, run)
}

/// The rows of this file.
pub(super) static COMMANDS: &[Command] = &[
    row("incr", 2, "key", "Increments the integer value of a key by one; a missing key counts as 0.", Run::Write(incr)),
    row("decr", 2, "key", "Decrements the integer value of a key by one; a missing key counts as 0.", Run::Write(decr)),
    row("incrby", 3, "key increment", "Increments the integer value of a key by a number.", Run::Write(incrby)),
    row("decrby", 3, "key decrement", "Decrements the integer value of a key by a number.", Run::Write(decrby)),
    logging_a_number(row(
        "incrbyfloat",
        3,
        "key increment",
        "Increments the floating-point value of a key by a number.",
        Run::Write(incrbyfloat),
    )),
];

const fn logging_a_number(mut command: Command) -> Command {
    command.info.flags = command.info.flags.with(Flags::LOGS_NUMBER);
    command
}

fn add(change: &mut Change<'_, '_, '_>, key: &[u8], by: i64, reply: &mut Reply<'_>) -> Outcome {
    let old = change.find(key).map_or(Ok(0), |entry| integer_value(entry.value()))?;
    let new = old.checked_add(by).ok_or(CommandError::Overflow)?;
    change.put(key, Value::Integer(new), Expiry::Keep);
    reply.integer(new);
    Ok(())
}

fn incr(change: &mut Change<'_, '_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    add(change, args.at(1), 1, reply)
}

fn decr(change: &mut Change<'_, '_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    add(change, args.at(1), -1, reply)
}

fn incrby(change: &mut Change<'_, '_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    add(change, args.at(1), integer(args.at(2))?, reply)
}

fn decrby(change: &mut Change<'_, '_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let by = integer(args.at(2))?.checked_neg().ok_or(CommandError::text("ERR decrement would overflow"))?;
    add(change, args.at(1), by, reply)
}

/// Longest text that is read as a number, bytes; Redis has the same limit.
const NUMBER_BYTES_MAX: usize = 5 * 1024;

/// Digits before the point of the greatest number that Redis keeps in a long double.
const WHOLE_DIGITS_MAX: usize = 4933;

/// A number, or `None` where it is infinite.
fn number(text: &[u8]) -> Result<Option<Decimal>, CommandError> {
    let unsigned = text.strip_prefix(b"-").or_else(|| text.strip_prefix(b"+")).unwrap_or(text);
    if is_word(unsigned, "inf") || is_word(unsigned, "infinity") {
        return Ok(None);
    }
    Decimal::parse(text).map(Some).ok_or(CommandError::NotAFloat)
}

fn incrbyfloat(change: &mut Change<'_, '_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (key, by) = (args.at(1), args.at(2));
    let old = change.find(key).map_or_else(
        || Some(b"0".to_vec()),
        |entry| (entry.value().len() <= NUMBER_BYTES_MAX).then(|| entry.value().to_vec()),
    );
    let old = old.ok_or(CommandError::NotAFloat)?;
    let sum = number(&old)?.zip(number(by)?).map(|(old, by)| old.plus(&by));
    let text = sum.map(|sum| sum.to_string()).filter(|text| text.len() < WHOLE_DIGITS_MAX + 20);
    let text = text.ok_or(CommandError::text("ERR increment would produce NaN or Infinity"))?;
    // The sum is logged, not the increment: a replay does no arithmetic.
    change.put(key, Value::compact(text.as_bytes()), Expiry::Keep);
    reply.bulk(text.as_bytes());
    Ok(())
}
