//! COMMAND: what every command is, derived from the rows.

use std::collections::BTreeSet;

use bowline::command::{Arity, CommandInfo, Flags, Group, KeyPositions, Pattern};
use bowline_resp::{Args, Reply};

use super::row::{Call, ServerCommand, help};
use super::table::{self, Entry, Target};
use crate::session::limits::DESCRIPTION_BYTES_MAX;

/// The rows of this file.
pub(super) static ROWS: &[ServerCommand] =
    &[ServerCommand::new("command", Arity::AtLeast(1), "", "Describes all commands.", every).container(SUBCOMMANDS)];

static SUBCOMMANDS: &[ServerCommand] = &[
    ServerCommand::new("command|count", Arity::Exactly(2), "", "Answers how many commands there are.", count)
        .flags(Flags::FAST),
    ServerCommand::new(
        "command|info",
        Arity::AtLeast(2),
        "[command-name [command-name ...]]",
        "Describes commands for programs.",
        info,
    ),
    ServerCommand::new(
        "command|docs",
        Arity::AtLeast(2),
        "[command-name [command-name ...]]",
        "Describes commands for people.",
        docs,
    ),
    ServerCommand::new(
        "command|list",
        Arity::AtLeast(2),
        "[FILTERBY MODULE module-name | ACLCAT category | PATTERN pattern]",
        "Lists the names of commands.",
        list,
    ),
    ServerCommand::new(
        "command|getkeys",
        Arity::AtLeast(4),
        "command [arg [arg ...]]",
        "Answers which arguments of a command are keys.",
        get_keys,
    ),
    ServerCommand::new("command|help", Arity::Exactly(2), "", "Lists the subcommands.", help),
];

/// A command or subcommand as it is told.
struct Described<'a> {
    info: &'a CommandInfo,
    writes: bool,
    data: bool,
    while_loading: bool,
    subcommands: &'static [ServerCommand],
}

impl<'a> Described<'a> {
    fn entry(entry: &'a Entry) -> Described<'a> {
        match entry.target {
            Target::Data(_) => Described {
                info: &entry.info,
                writes: entry.writes,
                data: true,
                while_loading: false,
                subcommands: &[],
            },
            Target::Server(row) => Described::row(row),
        }
    }

    fn row(row: &'a ServerCommand) -> Described<'a> {
        Described {
            info: &row.info,
            writes: false,
            data: false,
            while_loading: !row.needs_data,
            subcommands: row.subcommands,
        }
    }

    fn flags(&self) -> Vec<&'static str> {
        let has = |flag| self.info.flags.has(flag);
        let told = [
            (self.data && self.writes, "write"),
            (self.data && !self.writes, "readonly"),
            (has(Flags::ADDS), "denyoom"),
            (has(Flags::ADMIN), "admin"),
            (!self.data, "noscript"),
            (self.while_loading, "loading"),
            (self.while_loading, "stale"),
            (has(Flags::FAST), "fast"),
            (has(Flags::NO_AUTH), "no_auth"),
            (has(Flags::NO_MULTI), "no_multi"),
        ];
        told.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect()
    }

    fn categories(&self) -> Vec<&'static str> {
        let has = |flag| self.info.flags.has(flag);
        let group = match self.info.group {
            Group::Generic => "@keyspace",
            Group::String => "@string",
            Group::Transactions => "@transaction",
            Group::Connection => "@connection",
            Group::Server => "@admin",
        };
        let told = [
            (self.info.group != Group::Server, group),
            (self.data && self.writes, "@write"),
            (self.data && !self.writes, "@read"),
            (has(Flags::ADMIN), "@admin"),
            (has(Flags::DANGEROUS), "@dangerous"),
            (has(Flags::FAST), "@fast"),
            (!has(Flags::FAST), "@slow"),
        ];
        told.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect()
    }

    /// The ten columns of COMMAND INFO.
    fn write_info(&self, reply: &mut Reply<'_>) {
        let KeyPositions { first, last, step } = self.info.keys;
        reply.array(10);
        reply.bulk(self.info.name.as_bytes());
        reply.integer(self.info.arity.as_number());
        words(reply, &self.flags());
        reply.integer(first as i64);
        reply.integer(last as i64);
        reply.integer(if first == 0 { 0 } else { step as i64 });
        words(reply, &self.categories());
        reply.array(0);
        reply.array(0);
        reply.array(self.subcommands.len());
        for row in self.subcommands {
            Described::row(row).write_info(reply);
        }
    }

    /// A name and the map of COMMAND DOCS.
    fn write_docs(&self, reply: &mut Reply<'_>) {
        let (with_syntax, container) = (!self.info.syntax.is_empty(), !self.subcommands.is_empty());
        reply.bulk(self.info.name.as_bytes());
        reply.map(3 + 2 * usize::from(with_syntax) + usize::from(container));
        for (field, text) in
            [("summary", self.info.summary), ("since", self.info.since), ("group", self.info.group.name())]
        {
            reply.bulk(field.as_bytes());
            reply.bulk(text.as_bytes());
        }
        if with_syntax {
            reply.bulk(b"syntax");
            reply.bulk(self.info.syntax.as_bytes());
            // One argument that reads as the whole line: enough for the hints of redis-cli.
            reply.bulk(b"arguments");
            reply.array(1);
            reply.map(3);
            for (field, text) in [("name", self.info.syntax), ("type", "string"), ("display_text", self.info.syntax)] {
                reply.bulk(field.as_bytes());
                reply.bulk(text.as_bytes());
            }
        }
        if container {
            reply.bulk(b"subcommands");
            reply.map(self.subcommands.len());
            for row in self.subcommands {
                Described::row(row).write_docs(reply);
            }
        }
    }
}

fn words(reply: &mut Reply<'_>, words: &[&str]) {
    reply.set(words.len());
    for word in words {
        reply.simple(word);
    }
}

fn every(call: &mut Call<'_>) {
    let mut reply = call.reply();
    reply.array(table::all().len());
    for entry in table::all() {
        Described::entry(entry).write_info(&mut reply);
    }
}

fn count(call: &mut Call<'_>) {
    call.reply().integer(table::all().len() as i64);
}

/// What a name such as `get` or `client|list` stands for.
fn named(name: &[u8]) -> Option<Described<'static>> {
    let bar = name.iter().position(|byte| *byte == b'|');
    let (container, word) = match bar {
        Some(bar) => (name.get(..bar)?, name.get(bar + 1..)),
        None => (name, None),
    };
    let entry = table::lookup(container)?;
    let Some(word) = word else { return Some(Described::entry(entry)) };
    let Target::Server(row) = entry.target else { return None };
    row.subcommands.iter().find(|row| row.word().as_bytes().eq_ignore_ascii_case(word)).map(Described::row)
}

fn info(call: &mut Call<'_>) {
    if call.args.len() == 2 {
        return every(call);
    }
    let asked = call.args.from(2);
    if !write_infos(&mut call.reply(), asked) {
        call.error(&format!("ERR the answer is longer than {DESCRIPTION_BYTES_MAX} bytes: name fewer commands"));
    }
}

/// Answers what each name stands for. False: nothing is written, as it would be too much.
fn write_infos(reply: &mut Reply<'_>, asked: Args<'_>) -> bool {
    reply.array(asked.len());
    for name in asked.iter() {
        match named(name) {
            Some(described) => described.write_info(reply),
            None => reply.null_array(),
        }
        if reply.bytes_written() > DESCRIPTION_BYTES_MAX {
            reply.rollback(0);
            return false;
        }
    }
    true
}

fn docs(call: &mut Call<'_>) {
    let asked = call.args.from(2);
    let found: Vec<Described<'_>> = if asked.is_empty() {
        table::all().iter().map(|entry| Described::entry(entry)).collect()
    } else {
        named_once(asked)
    };
    let mut reply = call.reply();
    reply.map(found.len());
    for described in found {
        described.write_docs(&mut reply);
    }
}

/// What the names stand for, each once however often it is named: the answer is a map.
fn named_once(asked: Args<'_>) -> Vec<Described<'static>> {
    let mut seen = BTreeSet::new();
    asked.iter().filter_map(named).filter(|described| seen.insert(described.info.name)).collect()
}

fn list(call: &mut Call<'_>) {
    let chosen: Vec<&str> = match (call.args.len(), call.word(2).as_str(), call.word(3).as_str()) {
        (2, ..) => table::all().iter().map(|entry| entry.info.name).collect(),
        (5, "filterby", "module") => Vec::new(),
        (5, "filterby", "aclcat") => {
            let category = format!("@{}", call.word(4));
            let fits = |entry: &&&Entry| Described::entry(entry).categories().contains(&category.as_str());
            table::all().iter().filter(fits).map(|entry| entry.info.name).collect()
        }
        (5, "filterby", "pattern") => {
            let pattern = call.word(4);
            let pattern = Pattern::new(pattern.as_bytes());
            let fits = |entry: &&&Entry| pattern.matches(entry.info.name.as_bytes());
            table::all().iter().filter(fits).map(|entry| entry.info.name).collect()
        }
        _ => return call.syntax_error(),
    };
    let mut reply = call.reply();
    reply.array(chosen.len());
    for name in chosen {
        reply.bulk(name.as_bytes());
    }
}

fn get_keys(call: &mut Call<'_>) {
    let request: Args<'_> = call.args.from(2);
    let Some(described) = named(request.at(0)) else { return call.error("ERR Invalid command specified") };
    if !described.info.arity.allows(request.len()) {
        return call.error("ERR Invalid number of arguments specified for command");
    }
    let positions: Vec<usize> = described.info.keys.of(request.len()).collect();
    if positions.is_empty() {
        return call.error("ERR The command has no key arguments");
    }
    let mut reply = call.reply();
    reply.array(positions.len());
    for position in positions {
        reply.bulk(request.at(position));
    }
}

#[cfg(test)]
mod tests {
    use bowline_resp::{ArgRange, Protocol};

    use super::*;

    /// So many times the name of a container with its subcommands.
    fn names(times: usize) -> Vec<ArgRange> {
        vec![ArgRange { start: 0, len: 6 }; times]
    }

    #[test]
    fn a_command_named_often_is_documented_once() {
        let described = named_once(Args::new(b"client", &names(50_000)));
        assert_eq!(described.iter().map(|described| described.info.name).collect::<Vec<_>>(), ["client"]);
    }

    #[test]
    fn an_answer_that_names_a_command_too_often_is_refused_and_leaves_nothing() {
        let mut out = b"+OK\r\n".to_vec();
        assert!(!write_infos(&mut Reply::new(&mut out, Protocol::Resp2), Args::new(b"client", &names(50_000))));
        assert_eq!(out, b"+OK\r\n");
        assert!(write_infos(&mut Reply::new(&mut out, Protocol::Resp2), Args::new(b"client", &names(2))));
        assert!(out.starts_with(b"+OK\r\n*2\r\n*10\r\n$6\r\nclient\r\n"));
    }
}
