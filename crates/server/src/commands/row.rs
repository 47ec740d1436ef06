//! A row of the server's own commands: those about the connection, the server and transactions.
//!
//! Data commands have their rows in the engine; what is said of a command has the same columns here. A server command
//! is one row and one function, side by side in the file of its subject; dispatch, arity errors, COMMAND DOCS, INFO and
//! GETKEYS and HELP texts are derived from the rows.

use std::sync::Arc;

use bowline::command::{Arity, CommandInfo, Flags, Group, KeyPositions, quotable};
use bowline_resp::{Args, Reply};

use crate::session::{Session, Workbench};
use crate::state::Server;

/// What happens to a command between MULTI and EXEC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InMulti {
    /// It is queued and runs at EXEC.
    Queued,
    /// It runs at once: it is about the transaction or the connection's end.
    AtOnce,
}

/// One server command, or one subcommand of a container.
#[derive(Debug)]
pub struct ServerCommand {
    /// Its columns. The name of a subcommand is "client|list".
    pub info: CommandInfo,
    /// What MULTI does to it.
    pub in_multi: InMulti,
    /// Whether it is refused while the data is loaded.
    pub needs_data: bool,
    /// Whether CLIENT PAUSE lets it through.
    pub in_pause: bool,
    /// What it does.
    pub run: fn(&mut Call<'_>),
    /// Subcommands; a row with some is a container.
    pub subcommands: &'static [ServerCommand],
}

/// The release that brought these commands.
const SINCE: &str = "0.1";

impl ServerCommand {
    /// A row with the usual columns; the others are changed by the functions below.
    pub const fn new(
        name: &'static str,
        arity: Arity,
        syntax: &'static str,
        summary: &'static str,
        run: fn(&mut Call<'_>),
    ) -> ServerCommand {
        let info = CommandInfo {
            name,
            arity,
            keys: KeyPositions::NONE,
            flags: Flags::NONE,
            group: Group::Server,
            syntax,
            summary,
            since: SINCE,
        };
        ServerCommand { info, in_multi: InMulti::Queued, needs_data: false, in_pause: false, run, subcommands: &[] }
    }

    /// With flags.
    pub const fn flags(mut self, flags: Flags) -> ServerCommand {
        self.info.flags = flags;
        self
    }

    /// Of the connection's group.
    pub const fn of(mut self, group: Group) -> ServerCommand {
        self.info.group = group;
        self
    }

    /// With keys.
    pub const fn keys(mut self, keys: KeyPositions) -> ServerCommand {
        self.info.keys = keys;
        self
    }

    /// Not queued by MULTI.
    pub const fn at_once(mut self) -> ServerCommand {
        self.in_multi = InMulti::AtOnce;
        self
    }

    /// Refused while the data is loaded.
    pub const fn needs_data(mut self) -> ServerCommand {
        self.needs_data = true;
        self
    }

    /// Not held back by CLIENT PAUSE. Redis holds everything, so that nobody can end a pause before its time.
    pub const fn in_pause(mut self) -> ServerCommand {
        self.in_pause = true;
        self
    }

    /// A container of these.
    pub const fn container(mut self, subcommands: &'static [ServerCommand]) -> ServerCommand {
        self.info.flags = self.info.flags.with(Flags::CONTAINER);
        self.subcommands = subcommands;
        self
    }

    /// The last part of the name: "list" of "client|list".
    pub fn word(&self) -> &'static str {
        self.info.name.rsplit('|').next().unwrap_or(self.info.name)
    }

    /// The row to run for these arguments: itself, or the subcommand that they name. `None`: no such subcommand.
    pub fn resolve(&'static self, args: Args<'_>) -> Option<&'static ServerCommand> {
        let Some(word) = args.get(1).filter(|_| !self.subcommands.is_empty()) else { return Some(self) };
        self.subcommands.iter().find(|row| row.word().as_bytes().eq_ignore_ascii_case(word))
    }
}

/// One call of a server command: who calls, with what, and where the answer goes.
pub struct Call<'a> {
    /// The caller's session.
    pub session: &'a mut Session,
    /// The loop's tools.
    pub bench: &'a mut Workbench,
    /// The arguments, the name at 0.
    pub args: Args<'a>,
    /// The row.
    pub row: &'static ServerCommand,
}

impl Call<'_> {
    /// Where the answer goes, in the session's protocol.
    pub fn reply(&mut self) -> Reply<'_> {
        self.session.reply()
    }

    /// Answers an error: its code, a space, its message.
    pub fn error(&mut self, text: &str) {
        self.bench.failed(self.session, text);
    }

    /// Answers an error that repeats the argument at `index` between two texts, its bytes as they came, up to a NUL.
    pub fn error_about(&mut self, before: &str, index: usize, after: &str) {
        let word = self.args.at(index);
        let text = [before.as_bytes(), quotable(word, word.len()), after.as_bytes()].concat();
        self.session.fail(&text, self.bench);
    }

    /// Redis's general complaint about arguments.
    pub fn syntax_error(&mut self) {
        self.error("ERR syntax error");
    }

    /// Redis's complaint about the number of arguments.
    pub fn wrong_arity(&mut self) {
        let text = format!("ERR wrong number of arguments for '{}' command", self.row.info.name);
        self.error(&text);
    }

    /// The argument at `index` as an integer, or Redis's error is answered and `None` returned.
    pub fn integer(&mut self, index: usize) -> Option<i64> {
        let parsed = bowline_resp::parse_integer(self.args.at(index));
        if parsed.is_none() {
            self.error("ERR value is not an integer or out of range");
        }
        parsed
    }

    /// What the server shares.
    pub fn server(&self) -> Arc<Server> {
        self.bench.server.clone()
    }

    /// The argument at `index` in lower case as text; bytes that are no UTF-8 become U+FFFD.
    pub fn word(&self, index: usize) -> String {
        String::from_utf8_lossy(self.args.at(index)).to_ascii_lowercase()
    }

    /// Answers lines for people.
    pub fn lines(&mut self, lines: &[String]) {
        let mut reply = self.reply();
        reply.array(lines.len());
        for line in lines {
            reply.simple(line);
        }
    }
}

/// A container called without a subcommand.
pub fn container(call: &mut Call<'_>) {
    call.wrong_arity();
}

/// HELP of any container, from its rows.
pub fn help(call: &mut Call<'_>) {
    let container = call.row.info.name.split('|').next().unwrap_or_default();
    let rows = super::table::server_command(container).map_or(&[][..], |row| row.subcommands);
    let head = format!("{} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:", container.to_ascii_uppercase());
    let mut lines = vec![head];
    for row in rows {
        lines.push(format!("{} {}", row.word().to_ascii_uppercase(), row.info.syntax).trim_end().to_owned());
        lines.push(format!("    {}", row.info.summary));
    }
    call.lines(&lines);
}
