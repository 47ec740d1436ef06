//! Every command by name: the engine's data commands, the server's own and the aliases, in one table.
//!
//! The table is made once and never changes, so loops share it without a lock. The index of an entry names it in the
//! metrics.

use std::sync::OnceLock;

use bowline::command::{Arity, Command, CommandInfo, NameTable};

use super::row::ServerCommand;

/// What a name stands for.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// A command of the engine.
    Data(&'static Command),
    /// A command of the server.
    Server(&'static ServerCommand),
}

/// A name and what it stands for.
#[derive(Debug)]
pub struct Entry {
    /// The columns; an alias has its own name, arity and syntax in them.
    pub info: CommandInfo,
    /// Position in the table; stays the same while the process runs.
    pub index: u16,
    /// What runs.
    pub target: Target,
    /// Whether it may change data.
    pub writes: bool,
}

/// Simple words for data commands: alias, command, arity, syntax.
const ALIASES: [(&str, &str, Arity, &str); 4] = [
    ("put", "set", Arity::Exactly(3), "key value"),
    ("delete", "del", Arity::AtLeast(2), "key [key ...]"),
    ("size", "dbsize", Arity::Exactly(1), ""),
    ("flush", "flushdb", Arity::AtLeast(1), "[ASYNC | SYNC]"),
];

impl Entry {
    /// Whether it is refused while the data is loaded.
    pub fn needs_data(&self) -> bool {
        match self.target {
            Target::Data(_) => true,
            Target::Server(row) => row.needs_data,
        }
    }
}

struct Table {
    entries: Vec<&'static Entry>,
    names: NameTable<Entry>,
}

fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut rows: Vec<(CommandInfo, Target)> = Vec::new();
        rows.extend(super::all_rows().map(|row| (row.info, Target::Server(row))));
        rows.extend(bowline::command::all().map(|row| (row.info, Target::Data(row))));
        for (alias, name, arity, syntax) in ALIASES {
            if let Some(command) = bowline::command::lookup(name.as_bytes()) {
                rows.push((CommandInfo { name: alias, arity, syntax, ..command.info }, Target::Data(command)));
            }
        }
        let entry = |(index, (info, target)): (usize, (CommandInfo, Target))| {
            let writes = matches!(target, Target::Data(command) if command.is_write());
            Entry { info, index: index as u16, target, writes }
        };
        // Lives as long as the process: references to entries are kept everywhere without counting.
        let entries: &'static [Entry] = rows.into_iter().enumerate().map(entry).collect::<Vec<_>>().leak();
        let names = NameTable::new(entries.iter().map(|entry| (entry.info.name, entry)));
        Table { entries: entries.iter().collect(), names }
    })
}

/// The entry of a command's name in any case.
#[inline]
pub fn lookup(name: &[u8]) -> Option<&'static Entry> {
    table().names.find(name)
}

/// All entries in the order of their index.
pub fn all() -> &'static [&'static Entry] {
    &table().entries
}

/// The server's row of a name.
pub fn server_command(name: &str) -> Option<&'static ServerCommand> {
    match lookup(name.as_bytes())?.target {
        Target::Server(row) => Some(row),
        Target::Data(_) => None,
    }
}

/// The name at an index, for CLIENT LIST; "NULL" as Redis writes where no command ran yet.
pub fn name_at(index: u16) -> &'static str {
    all().get(usize::from(index)).map_or("NULL", |entry| entry.info.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_found_in_any_case_and_nothing_else() {
        for entry in all() {
            let found = lookup(entry.info.name.to_ascii_uppercase().as_bytes()).unwrap();
            assert_eq!(found.index, entry.index);
        }
        for name in [&b""[..], b"x", b"getx", b"no such command at all", &[0xff; 300]] {
            assert!(lookup(name).is_none());
        }
    }

    #[test]
    fn the_simple_words_stand_for_data_commands() {
        for (alias, ..) in ALIASES {
            assert!(matches!(lookup(alias.as_bytes()).unwrap().target, Target::Data(_)), "{alias}");
        }
    }

    #[test]
    fn every_row_says_what_it_does() {
        for entry in all() {
            assert!(entry.info.summary.ends_with('.'), "{}", entry.info.name);
            assert!(entry.info.name.bytes().all(|byte| !byte.is_ascii_uppercase()), "{}", entry.info.name);
        }
    }
}
