//! Keys of any type: DEL, EXISTS, RENAME, COPY, MOVE, OBJECT, MEMORY.

use super::arguments::{integer, is_word, quotable};
use super::{
    Arity, Change, Command, CommandError, CommandInfo, Expiry, Flags, Group, KeyPositions, Outcome, Run, View,
};
use crate::keyspace::entry::{EntryRef, Value};
use crate::keyspace::value::KeptValue;
use bowline_resp::{Args, Reply};

const fn row(
    name: &'static str,
    arity: Arity,
    keys: KeyPositions,
    flags: Flags,
    syntax: &'static str,
    summary: &'static str,
    run: Run,
) -> Command {
    let group = Group::Generic;
    Command::new(CommandInfo { name, arity, keys, flags, group, syntax, summary, since: "0.1.0" }, run)
}

const FREES: Flags = Flags::FAST.with(Flags::FREES);

/// The rows of this file.
pub(super) static COMMANDS: &[Command] = &[
    row(
        "del",
        Arity::AtLeast(2),
        KeyPositions::EVERY,
        FREES,
        "key [key ...]",
        "Deletes keys; memory of large values is freed in the background.",
        Run::Write(del),
    )
    .blind(),
    row(
        "unlink",
        Arity::AtLeast(2),
        KeyPositions::EVERY,
        FREES,
        "key [key ...]",
        "Deletes keys; the same as DEL, which never blocks either.",
        Run::Write(del),
    )
    .blind(),
    row(
        "exists",
        Arity::AtLeast(2),
        KeyPositions::EVERY,
        Flags::FAST,
        "key [key ...]",
        "Counts how many of the keys exist.",
        Run::Read(exists),
    )
    .blind(),
    row(
        "touch",
        Arity::AtLeast(2),
        KeyPositions::EVERY,
        Flags::FAST,
        "key [key ...]",
        "Counts how many of the keys exist, and counts it as a use of each.",
        Run::Read(touch),
    )
    .blind(),
    row(
        "type",
        Arity::Exactly(2),
        KeyPositions::FIRST,
        Flags::FAST,
        "key",
        "Names the type of the value at a key.",
        Run::Read(type_of),
    )
    .blind(),
    row(
        "rename",
        Arity::Exactly(3),
        KeyPositions::FIRST_TWO,
        Flags::NONE,
        "key newkey",
        "Gives a key another name; an entry of that name is replaced.",
        Run::Write(rename),
    ),
    row(
        "renamenx",
        Arity::Exactly(3),
        KeyPositions::FIRST_TWO,
        Flags::FAST,
        "key newkey",
        "Gives a key another name if no key has it.",
        Run::Write(renamenx),
    ),
    row(
        "copy",
        Arity::AtLeast(3),
        KeyPositions::FIRST_TWO,
        Flags::LOGS_VALUES.with(Flags::ADDS),
        "source destination [DB destination-db] [REPLACE]",
        "Copies the value and the expiry of a key to another key.",
        Run::Write(copy),
    ),
    row(
        "move",
        Arity::Exactly(3),
        KeyPositions::FIRST,
        Flags::FAST,
        "key db",
        "Moves a key to another database if it has no such key.",
        Run::Write(move_key),
    ),
    row(
        "object",
        Arity::AtLeast(2),
        KeyPositions::SECOND,
        Flags::CONTAINER,
        "ENCODING key | FREQ key | IDLETIME key | REFCOUNT key | HELP",
        "Tells how the value at a key is kept.",
        Run::Read(object),
    )
    .blind(),
    row(
        "memory",
        Arity::AtLeast(2),
        KeyPositions::SECOND,
        Flags::CONTAINER,
        "USAGE key [SAMPLES count] | HELP",
        "Tells how many bytes a key takes in memory.",
        Run::Read(memory),
    )
    .blind(),
];

fn del(change: &mut Change<'_, '_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let removed = args.from(1).iter().filter(|key| change.remove(key)).count();
    reply.integer(removed as i64);
    Ok(())
}

fn exists(view: &mut View<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let mut count = 0;
    for key in args.from(1).iter() {
        count += i64::from(view.look(key)?.is_some());
    }
    reply.integer(count);
    Ok(())
}

fn touch(view: &mut View<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let mut count = 0;
    for key in args.from(1).iter() {
        count += i64::from(view.touch(key)?.is_some());
    }
    reply.integer(count);
    Ok(())
}

fn type_of(view: &mut View<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    reply.simple(if view.peek(args.at(1))?.is_some() { "string" } else { "none" });
    Ok(())
}

fn rename(change: &mut Change<'_, '_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (key, to_key) = (args.at(1), args.at(2));
    if !change.exists(key) {
        return Err(CommandError::NoSuchKey);
    }
    if key != to_key {
        change.move_key(key, change.database(), to_key);
    }
    reply.ok();
    Ok(())
}

fn renamenx(change: &mut Change<'_, '_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (key, to_key) = (args.at(1), args.at(2));
    if !change.exists(key) {
        return Err(CommandError::NoSuchKey);
    }
    let free = !change.exists(to_key);
    if free {
        change.move_key(key, change.database(), to_key);
    }
    reply.integer(i64::from(free));
    Ok(())
}

/// Redis's text for a number that no database could ever have.
const NO_DATABASE_NUMBER: CommandError =
    CommandError::text("ERR value is out of range, value must between -2147483648 and 2147483647");

/// A database number given as an argument.
fn database_number(argument: &[u8], databases: u32) -> Result<u32, CommandError> {
    let number = i32::try_from(integer(argument)?).map_err(|_| NO_DATABASE_NUMBER)?;
    u32::try_from(number).ok().filter(|number| *number < databases).ok_or(CommandError::NoSuchDatabase)
}

const SAME_OBJECT: CommandError = CommandError::text("ERR source and destination objects are the same");

fn copy(change: &mut Change<'_, '_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (key, to_key) = (args.at(1), args.at(2));
    let (mut to_database, mut replace) = (change.database(), false);
    let mut words = args.from(3).iter();
    while let Some(word) = words.next() {
        if is_word(word, "replace") {
            replace = true;
        } else if is_word(word, "db") {
            to_database = database_number(words.next().ok_or(CommandError::Syntax)?, change.databases())?;
        } else {
            return Err(CommandError::Syntax);
        }
    }
    if key == to_key && to_database == change.database() {
        return Err(SAME_OBJECT);
    }
    let Some(source) = change.find(key).map(|entry| (KeptValue::of(entry.value()), entry.expire_at())) else {
        reply.integer(0);
        return Ok(());
    };
    let free = replace || change.find_in(to_database, to_key).is_none();
    if free {
        let (value, expire_at) = source;
        let expiry = expire_at.map_or(Expiry::Clear, Expiry::At);
        change.put_in(to_database, to_key, value.value(), expiry);
    }
    reply.integer(i64::from(free));
    Ok(())
}

fn move_key(change: &mut Change<'_, '_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let key = args.at(1);
    let to_database = database_number(args.at(2), change.databases())?;
    if to_database == change.database() {
        return Err(SAME_OBJECT);
    }
    let moves = change.exists(key) && change.find_in(to_database, key).is_none();
    if moves {
        change.move_key(key, to_database, key);
    }
    reply.integer(i64::from(moves));
    Ok(())
}

/// Container, subcommand, how many arguments.
const SUBCOMMANDS: [(&str, &str, Arity); 7] = [
    ("object", "encoding", Arity::Exactly(3)),
    ("object", "freq", Arity::Exactly(3)),
    ("object", "help", Arity::Exactly(2)),
    ("object", "idletime", Arity::Exactly(3)),
    ("object", "refcount", Arity::Exactly(3)),
    ("memory", "help", Arity::Exactly(2)),
    ("memory", "usage", Arity::AtLeast(3)),
];

/// Bytes of an unknown subcommand that its error repeats.
const SHOWN_BYTES: usize = 128;

/// Refuses a subcommand that there is not, or that takes other arguments.
pub(super) fn check_subcommand(container: &'static str, args: Args<'_>) -> Outcome {
    let word = args.at(1);
    let known = SUBCOMMANDS.iter().find(|(of, name, _)| *of == container && is_word(word, name));
    match known {
        Some((.., arity)) if arity.allows(args.len()) => Ok(()),
        Some((_, name, _)) => Err(CommandError::WrongArity(format!("{container}|{name}").into())),
        None => {
            let help = format!("'. Try {} HELP.", container.to_uppercase());
            let text = [b"ERR unknown subcommand '", quotable(word, SHOWN_BYTES), help.as_bytes()].concat();
            Err(CommandError::Quoting(text))
        }
    }
}

fn help(lines: &[&str], reply: &mut Reply<'_>) -> Outcome {
    reply.array(lines.len());
    lines.iter().for_each(|line| reply.simple(line));
    Ok(())
}

fn object(view: &mut View<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    check_subcommand("object", args)?;
    let what = args.at(1);
    if is_word(what, "help") {
        return help(
            &[
                "OBJECT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
                "ENCODING <key>",
                "    Return the kind of internal representation used to store the value of <key>.",
                "FREQ <key>",
                "    Return how often <key> is used, from 0 to 7 on a scale of powers of two; needs an LFU policy.",
                "IDLETIME <key>",
                "    Return the seconds since <key> was last written, the most it can have been idle; reads are not timed.",
                "REFCOUNT <key>",
                "    Return the number of references to the value of <key>.",
                "HELP",
                "    Print this help.",
            ],
            reply,
        );
    }
    let now_ms = view.now_ms();
    let Some(entry) = view.peek(args.at(2))? else {
        reply.null();
        return Ok(());
    };
    if is_word(what, "encoding") {
        reply.bulk(encoding(entry).as_bytes());
    } else if is_word(what, "refcount") {
        // Redis shares the integers below 10000 and says so with this number; clients that test for it see the same.
        let shared = !entry.is_cold() && matches!(entry.value(), Value::Integer(0..10_000));
        reply.integer(if shared { i64::from(i32::MAX) } else { 1 });
    } else if is_word(what, "freq") {
        if !view.policy().is_lfu() {
            return Err(NO_FREQUENCY);
        }
        reply.integer(i64::from(entry.uses()));
    } else if view.policy().is_lfu() {
        return Err(NO_IDLE_TIME);
    } else {
        let written_ms = entry.version().time_ms().min(now_ms);
        reply.integer(((now_ms - written_ms) / 1000) as i64);
    }
    Ok(())
}

const NO_FREQUENCY: CommandError = CommandError::text(
    "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching between \
     policies at runtime LRU and LFU data will take some time to adjust.",
);
const NO_IDLE_TIME: CommandError = CommandError::text(
    "ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when switching between policies at \
     runtime LRU and LFU data will take some time to adjust.",
);

/// The name that Redis gives the way in which a value is kept.
fn encoding(entry: EntryRef<'_>) -> &'static str {
    if entry.is_cold() {
        // Shorter values stay in memory.
        return "raw";
    }
    match entry.value() {
        Value::Integer(_) => "int",
        Value::Bytes(bytes) if bytes.len() <= 44 => "embstr",
        Value::Bytes(_) | Value::Chunks(_) => "raw",
    }
}

/// What an entry takes in its table beside its own allocation: an 8-byte slot at a fill of about five sixths.
const TABLE_BYTES_PER_ENTRY: usize = 10;

fn memory(view: &mut View<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    check_subcommand("memory", args)?;
    if is_word(args.at(1), "help") {
        return help(
            &[
                "MEMORY <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
                "USAGE <key> [SAMPLES <count>]",
                "    Return the bytes that <key> and its value take in memory.",
                "HELP",
                "    Print this help.",
            ],
            reply,
        );
    }
    let mut words = args.from(3).iter();
    while let Some(word) = words.next() {
        // Nothing is sampled here: a string is counted whole.
        match words.next() {
            Some(count) if is_word(word, "samples") && integer(count)? >= 0 => {}
            _ => return Err(CommandError::Syntax),
        }
    }
    match view.peek(args.at(2))? {
        Some(entry) => reply.integer((entry.allocated_bytes() + TABLE_BYTES_PER_ENTRY) as i64),
        None => reply.null(),
    }
    Ok(())
}
