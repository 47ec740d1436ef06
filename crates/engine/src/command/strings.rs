//! Strings as a whole: GET, SET and their family.

use super::arguments::{TimeKind, integer, is_word};
use super::{
    Arity, Change, Command, CommandError, CommandInfo, Expiry, Flags, Group, KeyPositions, Outcome, Run, View,
};
use crate::keyspace::entry::{EntryRef, Value};
use crate::limits::REPLY_BYTES_MAX;
use bowline_resp::{Args, Bulk, Reply};

const fn row(
    name: &'static str,
    arity: Arity,
    keys: KeyPositions,
    syntax: &'static str,
    summary: &'static str,
    run: Run,
) -> Command {
    let flags = Flags::FAST;
    Command::new(CommandInfo { name, arity, keys, flags, group: Group::String, syntax, summary, since: "0.1.0" }, run)
}

const SET_SYNTAX: &str = "key value [NX | XX | IFEQ comparison-value] [GET] [EX seconds | PX milliseconds | \
                          EXAT unix-time-seconds | PXAT unix-time-milliseconds | KEEPTTL]";
const GETEX_SYNTAX: &str =
    "key [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | PERSIST]";

/// The rows of this file.
pub(super) static COMMANDS: &[Command] = &[
    row("get", Arity::Exactly(2), KeyPositions::FIRST, "key", "Returns the string value of a key.", Run::Read(get)),
    row("set", Arity::AtLeast(3), KeyPositions::FIRST, SET_SYNTAX, "Sets the string value of a key.", Run::Write(set))
        .adding()
        .value_at(2)
        .reading(set_reads),
    row(
        "getset",
        Arity::Exactly(3),
        KeyPositions::FIRST,
        "key value",
        "Returns the previous value of a key after setting it to a new one.",
        Run::Write(getset),
    )
    .adding()
    .value_at(2),
    row(
        "getdel",
        Arity::Exactly(2),
        KeyPositions::FIRST,
        "key",
        "Returns the string value of a key after deleting the key.",
        Run::Write(getdel),
    ),
    row(
        "getex",
        Arity::AtLeast(2),
        KeyPositions::FIRST,
        GETEX_SYNTAX,
        "Returns the string value of a key after setting its expiry.",
        Run::Write(getex),
    ),
    row(
        "mget",
        Arity::AtLeast(2),
        KeyPositions::EVERY,
        "key [key ...]",
        "Returns the string values of several keys at one moment.",
        Run::Read(mget),
    ),
    row(
        "mset",
        Arity::AtLeast(3),
        KeyPositions::PAIRS,
        "key value [key value ...]",
        "Sets the string values of several keys, all or none.",
        Run::Write(mset),
    )
    .blind()
    .adding()
    .values_at(KeyPositions::VALUES_OF_PAIRS),
    row(
        "msetnx",
        Arity::AtLeast(3),
        KeyPositions::PAIRS,
        "key value [key value ...]",
        "Sets the string values of several keys if none of them exists.",
        Run::Write(msetnx),
    )
    .blind()
    .adding()
    .values_at(KeyPositions::VALUES_OF_PAIRS),
    row(
        "setnx",
        Arity::Exactly(3),
        KeyPositions::FIRST,
        "key value",
        "Sets the string value of a key if the key does not exist.",
        Run::Write(setnx),
    )
    .blind()
    .adding()
    .value_at(2),
    row(
        "setex",
        Arity::Exactly(4),
        KeyPositions::FIRST,
        "key seconds value",
        "Sets the string value of a key and its expiry in seconds.",
        Run::Write(setex),
    )
    .blind()
    .adding()
    .value_at(3),
    row(
        "psetex",
        Arity::Exactly(4),
        KeyPositions::FIRST,
        "key milliseconds value",
        "Sets the string value of a key and its expiry in milliseconds.",
        Run::Write(psetex),
    )
    .blind()
    .adding()
    .value_at(3),
];

/// Writes a value, or nil, as a bulk reply.
pub(super) fn reply_value(entry: Option<EntryRef<'_>>, reply: &mut Reply<'_>) {
    match entry.map(EntryRef::value) {
        Some(Value::Bytes(bytes)) => reply.bulk(bytes),
        Some(Value::Integer(number)) => reply.bulk_integer(number),
        Some(Value::Chunks(chunks)) => reply.bulk_chunks(chunks, 0, chunks.len()),
        None => reply.null(),
    }
}

fn get(view: &mut View<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    reply_value(view.find(args.at(1))?, reply);
    Ok(())
}

/// On what SET's write depends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition<'a> {
    Always,
    IfAbsent,
    IfPresent,
    IfEqual(&'a [u8]),
}

/// SET's options, read and checked.
struct SetOptions<'a> {
    condition: Condition<'a>,
    get: bool,
    expiry: Expiry,
}

impl<'a> SetOptions<'a> {
    fn parse(args: Args<'a>, now_ms: u64) -> Result<SetOptions<'a>, CommandError> {
        let mut options = SetOptions { condition: Condition::Always, get: false, expiry: Expiry::Clear };
        let mut timed: Option<(TimeKind, &[u8])> = None;
        let mut words = args.from(3).iter();
        while let Some(word) = words.next() {
            let unconditional = options.condition == Condition::Always;
            if is_word(word, "get") {
                options.get = true;
            } else if is_word(word, "nx") && (unconditional || options.condition == Condition::IfAbsent) {
                options.condition = Condition::IfAbsent;
            } else if is_word(word, "xx") && (unconditional || options.condition == Condition::IfPresent) {
                options.condition = Condition::IfPresent;
            } else if is_word(word, "ifeq") && unconditional {
                options.condition = Condition::IfEqual(words.next().ok_or(CommandError::Syntax)?);
            } else if is_word(word, "keepttl") && timed.is_none() {
                options.expiry = Expiry::Keep;
            } else if let Some(kind) = TimeKind::of_option(word)
                && options.expiry == Expiry::Clear
                && timed.is_none_or(|(earlier, _)| earlier == kind)
            {
                // The same unit once more is no contradiction: the last one counts, as in Redis.
                timed = Some((kind, words.next().ok_or(CommandError::Syntax)?));
            } else {
                return Err(CommandError::Syntax);
            }
        }
        if let Some((kind, number)) = timed {
            options.expiry = Expiry::At(expiry_in_future(kind, number, now_ms, "set")?);
        }
        Ok(options)
    }
}

/// The time of an EX, PX, EXAT or PXAT option; it must be above 0 and in range.
fn expiry_in_future(kind: TimeKind, number: &[u8], now_ms: u64, command: &'static str) -> Result<u64, CommandError> {
    let number = integer(number)?;
    let invalid = CommandError::InvalidExpiry(command);
    if number <= 0 {
        return Err(invalid);
    }
    kind.absolute_ms(number, now_ms).and_then(|at| u64::try_from(at).ok()).ok_or(invalid)
}

fn set(change: &mut Change<'_, '_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (key, value) = (args.at(1), args.bulk(2));
    if args.len() == 3 {
        put_value(change, key, value, Expiry::Clear)?;
        reply.ok();
        return Ok(());
    }
    let options = SetOptions::parse(args, change.now_ms())?;
    check_length(change, value)?;
    let old = change.find(key);
    let allowed = match options.condition {
        Condition::Always => true,
        Condition::IfAbsent => old.is_none(),
        Condition::IfPresent => old.is_some(),
        Condition::IfEqual(wanted) => old.is_some_and(|entry| entry.value().is_text(wanted)),
    };
    if options.get {
        reply_value(old, reply);
    } else if allowed {
        reply.ok();
    } else {
        reply.null();
    }
    if allowed {
        put_value(change, key, value, options.expiry)?;
    }
    Ok(())
}

/// Only GET and IFEQ look at the value that a SET replaces.
fn set_reads(args: Args<'_>) -> bool {
    args.from(3).iter().any(|word| is_word(word, "get") || is_word(word, "ifeq"))
}

fn check_length(change: &Change<'_, '_, '_>, value: Bulk<'_>) -> Outcome {
    if value.len() > change.value_bytes_max() { Err(CommandError::StringTooLong) } else { Ok(()) }
}

/// Writes a value; an expiry that has passed already removes the key instead.
fn put_value(change: &mut Change<'_, '_, '_>, key: &[u8], value: Bulk<'_>, expiry: Expiry) -> Outcome {
    check_length(change, value)?;
    if matches!(expiry, Expiry::At(at) if at <= change.now_ms()) {
        change.remove(key);
        return Ok(());
    }
    change.put(key, Value::of(value), expiry);
    Ok(())
}

fn getset(change: &mut Change<'_, '_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    check_length(change, args.bulk(2))?;
    reply_value(change.find(args.at(1)), reply);
    put_value(change, args.at(1), args.bulk(2), Expiry::Clear)
}

fn getdel(change: &mut Change<'_, '_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    reply_value(change.find(args.at(1)), reply);
    change.remove(args.at(1));
    Ok(())
}

/// GETEX's options: the time to set, and whether to take the expiry away.
#[derive(Default)]
struct GetexOptions<'a> {
    timed: Option<(TimeKind, &'a [u8])>,
    persist: bool,
}

fn getex_options(args: Args<'_>) -> Result<GetexOptions<'_>, CommandError> {
    let GetexOptions { mut timed, mut persist } = GetexOptions::default();
    let mut words = args.from(2).iter();
    while let Some(word) = words.next() {
        if is_word(word, "persist") && timed.is_none() {
            persist = true;
        } else if let Some(kind) = TimeKind::of_option(word)
            && !persist
            && timed.is_none_or(|(earlier, _)| earlier == kind)
        {
            timed = Some((kind, words.next().ok_or(CommandError::Syntax)?));
        } else {
            return Err(CommandError::Syntax);
        }
    }
    Ok(GetexOptions { timed, persist })
}

fn getex(change: &mut Change<'_, '_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (key, now_ms) = (args.at(1), change.now_ms());
    let GetexOptions { timed, persist } = getex_options(args)?;
    let Some(entry) = change.find(key) else {
        reply.null();
        return Ok(());
    };
    let expires = entry.expire_at().is_some();
    let at = timed.map(|(kind, number)| expiry_in_future(kind, number, now_ms, "getex")).transpose()?;
    reply_value(Some(entry), reply);
    match at {
        Some(at) if at <= now_ms => {
            change.remove(key);
        }
        Some(at) => change.set_expiry(key, Some(at)),
        None if persist && expires => change.set_expiry(key, None),
        None => {}
    }
    Ok(())
}

fn mget(view: &mut View<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    reply.array(args.len() - 1);
    for key in args.from(1).iter() {
        reply_value(view.find(key)?, reply);
        if reply.bytes_in_all() > REPLY_BYTES_MAX {
            return Err(CommandError::ReplyTooLong);
        }
    }
    Ok(())
}

/// The key-value pairs of MSET and MSETNX, checked.
fn pairs<'a>(
    change: &Change<'_, '_, '_>,
    args: Args<'a>,
    command: &'static str,
) -> Result<impl Iterator<Item = (&'a [u8], Bulk<'a>)> + Clone + use<'a>, CommandError> {
    if args.len().is_multiple_of(2) {
        return Err(CommandError::WrongArity(command.into()));
    }
    let pairs = (1..args.len()).step_by(2).map(move |index| (args.at(index), args.bulk(index + 1)));
    for (_, value) in pairs.clone() {
        check_length(change, value)?;
    }
    Ok(pairs)
}

fn mset(change: &mut Change<'_, '_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    for (key, value) in pairs(change, args, "mset")? {
        change.put(key, Value::of(value), Expiry::Clear);
    }
    reply.ok();
    Ok(())
}

fn msetnx(change: &mut Change<'_, '_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let pairs = pairs(change, args, "msetnx")?;
    for (key, _) in pairs.clone() {
        if change.exists(key) {
            reply.integer(0);
            return Ok(());
        }
    }
    for (key, value) in pairs {
        change.put(key, Value::of(value), Expiry::Clear);
    }
    reply.integer(1);
    Ok(())
}

fn setnx(change: &mut Change<'_, '_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let absent = !change.exists(args.at(1));
    if absent {
        put_value(change, args.at(1), args.bulk(2), Expiry::Clear)?;
    }
    reply.integer(i64::from(absent));
    Ok(())
}

fn setex(change: &mut Change<'_, '_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let at = expiry_in_future(TimeKind::Seconds, args.at(2), change.now_ms(), "setex")?;
    put_value(change, args.at(1), args.bulk(3), Expiry::At(at))?;
    reply.ok();
    Ok(())
}

fn psetex(change: &mut Change<'_, '_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let at = expiry_in_future(TimeKind::Milliseconds, args.at(2), change.now_ms(), "psetex")?;
    put_value(change, args.at(1), args.bulk(3), Expiry::At(at))?;
    reply.ok();
    Ok(())
}
