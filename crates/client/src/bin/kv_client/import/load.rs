//! What is done with what the files hold: the first time it is only checked, the second time it is sent.
//!
//! An entry becomes `SET key value [PXAT ms]`, a command goes as it is (but see `expiry`). The database is selected when
//! the first entry needs it, and the first SELECT of each number is answered before anything follows it: what a refused
//! SELECT was meant for must not land in another database.

use std::collections::BTreeSet;

use bowline_rdb::{Entry, Truncation, Unit};
use bowline_resp::Args;

use super::expiry::{Holder, now_ms};
use super::known::KnownCommands;
use super::progress::Progress;
use super::send::{Kind, NAMED_MAX, Sender};
use super::walk::{Visitor, shown};
use crate::failure::{Exit, Failure};

/// Figures of one pass.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Entries that were not sent because they had expired.
    pub(super) expired: u64,
    /// What the server cannot hold, and the first of it by name.
    pub(super) skipped: u64,
    /// The first ones by name.
    pub(super) skipped_names: Vec<String>,
    /// Databases that something was sent to.
    pub(super) databases: BTreeSet<u64>,
    /// Entries and commands so far.
    pub(super) items: u64,
    /// Commands of an append-only file were among them.
    pub(super) has_commands: bool,
    /// The file that ends within a command, and where.
    pub(super) truncated: Option<(String, Truncation)>,
}

/// One pass through the files.
pub(super) struct Loader<'a> {
    known: &'a KnownCommands,
    skip_unsupported: bool,
    /// None: only check.
    sender: Option<Sender>,
    progress: Progress,
    holder: Holder,
    commands_may_follow: bool,
    /// The database that the connection is in, as far as it is known.
    database: Option<u64>,
    /// Numbers that the server has accepted.
    accepted: BTreeSet<u64>,
    counts: Counts,
}

impl<'a> Loader<'a> {
    pub(super) fn new(
        known: &'a KnownCommands,
        skip_unsupported: bool,
        sender: Option<Sender>,
        progress: Progress,
    ) -> Self {
        Loader {
            known,
            skip_unsupported,
            sender,
            progress,
            holder: Holder::new(),
            commands_may_follow: false,
            // That is where a new connection is.
            database: Some(0),
            accepted: BTreeSet::from([0]),
            counts: Counts::default(),
        }
    }

    /// The figures, the sender, and whether expiries are held.
    pub(super) fn into_parts(self) -> (Counts, Option<Sender>, bool) {
        (self.counts, self.sender, self.holder.holds)
    }

    fn select(&mut self, number: u64) -> Result<(), Failure> {
        self.counts.databases.insert(number);
        let Some(sender) = self.sender.as_mut().filter(|_| self.database != Some(number)) else { return Ok(()) };
        let digits = number.to_string();
        sender.request(Kind::Setup, &[b"SELECT", digits.as_bytes()], &["SELECT", &digits])?;
        if self.accepted.insert(number) {
            sender.settle()?;
        }
        self.database = Some(number);
        Ok(())
    }

    /// Whether the server has this command; if not, it is left out or ends the import.
    fn admits(&mut self, args: Args<'_>, offset: u64) -> Result<bool, Failure> {
        if args.at(0).eq_ignore_ascii_case(b"SELECT") || self.known.is_write(args.at(0))? {
            return Ok(true);
        }
        let key = args.get(1).map(|key| format!(" {}", shown(key))).unwrap_or_default();
        let name = args.at(0).escape_ascii();
        self.unsupported(&format!("byte {offset}: {name}{key} is no write that the server has"))?;
        Ok(false)
    }

    fn command(&mut self, kind: Kind, args: Args<'_>, bytes: &[u8]) -> Result<(), Failure> {
        self.counts.items += 1;
        let changed = self.holder.rewrite(args);
        let Some(sender) = &mut self.sender else { return Ok(()) };
        let name = [args.at(0), args.at(1)];
        match changed {
            Some(args) => sender.request(kind, &name, &args),
            None => sender.request_bytes(kind, &name, bytes),
        }
    }

    /// Changes the database for the commands that follow.
    fn select_command(&mut self, args: Args<'_>, offset: u64) -> Result<(), Failure> {
        let number = std::str::from_utf8(args.at(1)).ok().and_then(|digits| digits.parse().ok());
        match number {
            Some(number) if args.len() == 2 => self.select(number),
            _ => Err(Failure::Failed {
                message: format!("byte {offset}: SELECT without the number of a database"),
                exit: Exit::Usage,
            }),
        }
    }

    fn transaction(&mut self, unit: &Unit<'_>) -> Result<(), Failure> {
        let offset = unit.offset();
        let mut admitted = Vec::with_capacity(unit.commands().len());
        for (args, bytes) in unit.commands().skip(1).take(unit.commands().len().saturating_sub(2)) {
            if self.admits(args, offset)? {
                admitted.push((args, bytes));
            }
        }
        if admitted.is_empty() {
            return Ok(());
        }
        // A database that does not exist would be noticed only within the transaction.
        let before = self.database;
        for (args, _) in &admitted {
            if args.at(0).eq_ignore_ascii_case(b"SELECT") {
                self.select_command(*args, offset)?;
            }
        }
        let last = self.database;
        if let Some(before) = before {
            self.select(before)?;
        }
        self.setup(b"MULTI", Kind::Setup, offset)?;
        for (args, bytes) in admitted {
            self.command(Kind::Queued, args, bytes)?;
        }
        self.database = last;
        self.setup(b"EXEC", Kind::Exec, offset)
    }

    fn setup(&mut self, command: &[u8], kind: Kind, offset: u64) -> Result<(), Failure> {
        let Some(sender) = &mut self.sender else { return Ok(()) };
        let place = format!("the transaction at byte {offset}");
        sender.request(kind, &[place.as_bytes()], &[command])
    }
}

impl Visitor for Loader<'_> {
    fn begin_entries(&mut self, commands_may_follow: bool) {
        self.commands_may_follow = commands_may_follow;
    }

    fn entry(&mut self, entry: &Entry) -> Result<(), Failure> {
        let expires_at_ms = match entry.expires_at_ms {
            Some(at_ms) if self.commands_may_follow => Some(self.holder.hold(at_ms)),
            Some(at_ms) if at_ms <= now_ms() => {
                self.counts.expired += 1;
                return Ok(());
            }
            other => other,
        };
        self.counts.items += 1;
        self.select(entry.database)?;
        let Some(sender) = &mut self.sender else { return Ok(()) };
        let name: [&[u8]; 2] = [b"key", &entry.key];
        let (key, value) = (entry.key.as_slice(), entry.value.as_slice());
        match expires_at_ms {
            None => sender.request(Kind::Entry, &name, &[b"SET", key, value]),
            Some(at_ms) => {
                sender.request(Kind::Entry, &name, &[b"SET", key, value, b"PXAT", at_ms.to_string().as_bytes()])
            }
        }
    }

    fn unsupported(&mut self, what: &str) -> Result<(), Failure> {
        if !self.skip_unsupported {
            return Err(Failure::Failed {
                message: format!(
                    "{what}, which the server cannot hold; --skip-unsupported leaves such keys and commands out"
                ),
                exit: Exit::Server,
            });
        }
        self.counts.skipped += 1;
        if self.counts.skipped_names.len() < NAMED_MAX {
            self.counts.skipped_names.push(what.to_owned());
        }
        Ok(())
    }

    fn begin_commands(&mut self) -> Result<(), Failure> {
        self.counts.has_commands = true;
        self.select(0)
    }

    fn unit(&mut self, unit: &Unit<'_>) -> Result<(), Failure> {
        if unit.is_transaction() {
            return self.transaction(unit);
        }
        for (args, bytes) in unit.commands() {
            if args.at(0).eq_ignore_ascii_case(b"SELECT") {
                self.select_command(args, unit.offset())?;
            } else if self.admits(args, unit.offset())? {
                self.command(Kind::Command, args, bytes)?;
            }
        }
        Ok(())
    }

    fn truncated(&mut self, part: &str, truncation: Truncation) {
        self.counts.truncated = Some((part.to_owned(), truncation));
    }

    fn passed(&mut self, bytes: u64) {
        let (items, sender) = (self.counts.items, &self.sender);
        let done =
            || sender.as_ref().map_or(items, |sender| sender.confirmed().entries() + sender.confirmed().commands());
        self.progress.passed(bytes, done);
    }
}
