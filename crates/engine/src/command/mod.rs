//! Commands: one row and one function each, side by side in the file of their type.
//!
//! ```text
//!  name -> Command row -> Read(fn(&mut View, ..))      reads memory, notes what the reply depends on
//!                      \> Write(fn(&mut Change, ..))   the same, and emits effects
//! ```
//!
//! To add a command, add a row to the table of its file and write its function beneath. Everything else (dispatch, arity
//! errors, COMMAND DOCS, key positions, locks, the client's help) follows from the row. Not here: locks, the log and
//! transactions (`exec`); commands about connections and the server (crate `server`).

mod arguments;
mod context;
mod counters;
mod databases;
mod decimal;
mod error;
mod expiry;
mod keys;
mod lcs;
mod pattern;
mod ranges;
mod strings;
mod table;
mod versions;

pub use arguments::quotable;
pub use context::{Change, Context, Expiry, View};
pub(crate) use context::{Pending, PlannedKey};
pub use error::CommandError;
pub use pattern::Pattern;
pub use table::{Arity, CommandInfo, Flags, Group, KeyPositions, NameTable};

use bowline_resp::{Args, Reply};
use std::sync::OnceLock;

/// What a command's function gets and gives: `Ok` when the whole reply is written, or an error reply.
pub type Outcome = Result<(), CommandError>;

/// A command's function; its kind says whether it may change anything.
#[derive(Clone, Copy)]
pub enum Run {
    /// Only reads.
    Read(fn(&mut View<'_, '_>, Args<'_>, &mut Reply<'_>) -> Outcome),
    /// May change what it reads.
    Write(fn(&mut Change<'_, '_, '_>, Args<'_>, &mut Reply<'_>) -> Outcome),
}

/// A command on keys or databases.
pub struct Command {
    /// What is said of it.
    pub info: CommandInfo,
    /// What it does.
    pub run: Run,
    /// Bytes that a call with these arguments may put before its own into a value: what the log needs room for when a later
    /// command of the same unit copies it. 0 for all but SETRANGE.
    pub padding: fn(Args<'_>) -> usize,
    /// Whether a call with these arguments looks at the values of its keys, or changes less than all of an entry: then
    /// values that are in the block file only are fetched before it runs.
    pub reads_values: fn(Args<'_>) -> bool,
    /// Where values stand among its arguments that it takes in chunks where they are long ([`Args::bulk`]). All others come
    /// in one piece.
    pub values: KeyPositions,
}

impl Command {
    /// A row that pads nothing and reads values.
    pub const fn new(info: CommandInfo, run: Run) -> Command {
        Command { info, run, padding: |_| 0, reads_values: |_| true, values: KeyPositions::NONE }
    }

    /// A row of a command that never reads values.
    #[must_use]
    pub const fn blind(self) -> Command {
        self.reading(|_| false)
    }

    /// A row of a command that reads values where its arguments say so.
    #[must_use]
    pub const fn reading(mut self, reads_values: fn(Args<'_>) -> bool) -> Command {
        self.reads_values = reads_values;
        self
    }

    /// A row of a command that takes a value, which may be in chunks, at this position.
    #[must_use]
    pub const fn value_at(self, position: usize) -> Command {
        self.values_at(KeyPositions { first: position, last: position as isize, step: 1 })
    }

    /// A row of a command that takes values at several positions.
    #[must_use]
    pub const fn values_at(mut self, values: KeyPositions) -> Command {
        self.values = values;
        self
    }

    /// A row of a command that may make more data.
    #[must_use]
    pub const fn adding(mut self) -> Command {
        self.info.flags = self.info.flags.with(Flags::ADDS);
        self
    }

    /// A row that pads.
    #[must_use]
    pub const fn padding(mut self, padding: fn(Args<'_>) -> usize) -> Command {
        self.padding = padding;
        self
    }

    /// Whether it may change anything.
    pub fn is_write(&self) -> bool {
        matches!(self.run, Run::Write(_))
    }

    /// Whether a command with subcommands has the one that `args` name, for so many arguments. Running it says the same;
    /// this is for those who queue it. True of every other command.
    ///
    /// # Errors
    /// The error that running it would answer.
    pub fn check_subcommand(&self, args: Args<'_>) -> Outcome {
        if self.info.flags.has(Flags::CONTAINER) { keys::check_subcommand(self.info.name, args) } else { Ok(()) }
    }
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.info.name)
    }
}

/// All commands, type by type.
pub fn all() -> impl Iterator<Item = &'static Command> {
    let tables: [&'static [Command]; 8] = [
        strings::COMMANDS,
        ranges::COMMANDS,
        counters::COMMANDS,
        lcs::COMMANDS,
        keys::COMMANDS,
        expiry::COMMANDS,
        databases::COMMANDS,
        versions::COMMANDS,
    ];
    tables.into_iter().flatten()
}

/// The command of this name, in any case of letters.
pub fn lookup(name: &[u8]) -> Option<&'static Command> {
    static TABLE: OnceLock<NameTable<Command>> = OnceLock::new();
    TABLE.get_or_init(|| NameTable::new(all().map(|command| (command.info.name, command)))).find(name)
}
