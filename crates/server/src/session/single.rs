//! One request by itself: server commands, errors, and data commands where something is out of the ordinary.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use bowline::command::{Command, Flags, quotable};
use bowline::exec::{Arguments, OUT_OF_MEMORY, Planned, Stop};
use bowline::{Durability, Store, Version};
use bowline_resp::{ArgRange, Args, Bulk};

use super::{ReplyMode, Session, Waits, Workbench};
use crate::commands::row::{Call, InMulti, ServerCommand};
use crate::commands::table::{self, Entry, Target};
use crate::loading::REFUSAL;
use crate::state::PauseMode;

impl Session {
    /// Runs one request. False: it must wait ([`Session::waits`] says for what) and be given again.
    pub(super) fn single(&mut self, args: Args<'_>, entry: Option<&'static Entry>, bench: &mut Workbench) -> bool {
        if args.is_any_in_chunks() && takes_one_piece(entry) {
            let (bytes, ranges) = contiguous(args);
            return self.single(Args::new(&bytes, &ranges), entry, bench);
        }
        let mode = self.reply_mode;
        if mode == ReplyMode::On {
            return self.answer(args, entry, bench);
        }
        if mode == ReplyMode::SkipNext {
            self.reply_mode = ReplyMode::Skip;
        }
        // Not answered: the replies go nowhere, and nothing waits for them.
        let kept = std::mem::take(&mut self.replies);
        let ran = self.answer(args, entry, bench);
        let mut unsaid = std::mem::replace(&mut self.replies, kept);
        match self.reply_mode {
            _ if !ran => self.reply_mode = mode,
            ReplyMode::Skip => self.reply_mode = ReplyMode::On,
            // What switches replies on is answered: CLIENT REPLY ON, RESET, an EXEC with one of them.
            ReplyMode::On => {
                let (start, version) = (self.replies.end(), unsaid.waits_for(Version::ZERO));
                while !unsaid.is_empty() {
                    let piece = unsaid.ready(Version::MAX);
                    let len = piece.len();
                    self.reply().raw(piece);
                    unsaid.consume(len);
                }
                if let Some(version) = version {
                    self.replies.depend_on(start, version);
                }
            }
            ReplyMode::Off | ReplyMode::SkipNext => {}
        }
        ran
    }

    fn answer(&mut self, args: Args<'_>, entry: Option<&'static Entry>, bench: &mut Workbench) -> bool {
        let Some(entry) = entry else {
            self.refuse_unknown(args, bench);
            return true;
        };
        if let Some(problem) = self.objection(args, entry, bench) {
            bench.metrics.rejected(entry.index);
            self.refuse(entry, &problem, bench);
            return true;
        }
        if self.must_pause(args, entry, bench) {
            self.wait_for(Waits::Pause);
            return false;
        }
        if self.in_transaction() && !runs_at_once(entry, args) {
            return self.queue(args, entry, bench);
        }
        self.note_command(entry, bench.now_ms);
        let began = Instant::now();
        match entry.target {
            Target::Data(command) => self.run_data(args, command, bench),
            Target::Server(row) => {
                let errors = bench.metrics.errors();
                self.run_server(args, row, bench);
                if bench.metrics.errors() != errors {
                    bench.metrics.failed(entry.index, 1);
                }
            }
        }
        if self.waits != Waits::No {
            return false;
        }
        bench.count_single(entry, began, self, args);
        true
    }

    /// What is to be said against running this request, in Redis's order and words.
    fn objection(&self, args: Args<'_>, entry: &'static Entry, bench: &Workbench) -> Option<Vec<u8>> {
        let wrong_arity = |name: &str| Some(format!("ERR wrong number of arguments for '{name}' command").into_bytes());
        let mut info = &entry.info;
        match entry.target {
            Target::Server(container) if judges_itself(container) => {}
            Target::Server(container) => match container.resolve(args) {
                Some(row) => info = &row.info,
                None => return Some(unknown_subcommand(container, args)),
            },
            Target::Data(_) => {}
        }
        // An alias has an arity of its own, a subcommand its own.
        if !info.arity.allows(args.len()) || !entry.info.arity.allows(args.len()) {
            return wrong_arity(info.name);
        }
        if let Target::Data(command) = entry.target
            && let Err(error) = command.check_subcommand(args)
        {
            return Some(error.to_bytes());
        }
        if !self.is_authenticated(&bench.settings) && !entry.info.flags.has(Flags::NO_AUTH) {
            return Some(b"NOAUTH Authentication required.".to_vec());
        }
        if bench.is_loading() && entry.needs_data() {
            return Some(REFUSAL.as_bytes().to_vec());
        }
        let queued = self.in_transaction() && !runs_at_once(entry, args);
        // What is queued takes memory too, whatever it is.
        let needs_memory = queued || entry.info.name == "exec" && self.transaction_adds();
        if needs_memory && bench.server.opened().is_some_and(Store::is_out_of_memory) {
            return Some(OUT_OF_MEMORY.as_bytes().to_vec());
        }
        (queued && info.flags.has(Flags::NO_MULTI)).then(|| b"ERR Command not allowed inside a transaction".to_vec())
    }

    /// Answers an objection. A transaction that it is about will not run; an EXEC that cannot run ends it.
    fn refuse(&mut self, entry: &Entry, problem: &[u8], bench: &Workbench) {
        if entry.info.name == "exec" {
            self.discard();
            let cause = problem.strip_prefix(b"ERR ").unwrap_or(problem);
            return self.fail(&[b"EXECABORT Transaction discarded because of: ", cause].concat(), bench);
        }
        self.spoil_transaction();
        self.fail(problem, bench);
    }

    /// Answers an error that may repeat the client's bytes, and counts it.
    pub(crate) fn fail(&mut self, text: &[u8], bench: &Workbench) {
        bench.count_error(&String::from_utf8_lossy(text));
        self.reply().error_bytes(text);
    }

    /// Whether CLIENT PAUSE holds this request back.
    fn must_pause(&self, args: Args<'_>, entry: &Entry, bench: &Workbench) -> bool {
        match bench.server.paused(bench.now_ms) {
            None => false,
            Some(PauseMode::All) => !matches!(entry.target, Target::Server(row) if row.in_pause),
            Some(PauseMode::Writes) if entry.info.name == "exec" => self.transaction_writes(),
            Some(PauseMode::Writes) if entry.info.name == "bl.at" => {
                table::lookup(args.at(2)).is_some_and(|inner| inner.writes)
            }
            Some(PauseMode::Writes) => entry.writes && !self.in_transaction(),
        }
    }

    /// Runs one data command. When the log has no room the session waits and nothing has happened.
    fn run_data(&mut self, args: Args<'_>, command: &'static Command, bench: &mut Workbench) {
        let caller = self.begin_run(bench);
        let planned = [Planned { command, first_range: 0, ranges: args.len() as u32 }];
        let end = bench.executor().run_arguments(&caller, Arguments::from(args), &planned, &mut self.replies);
        assert_ne!(end.stopped, Some(Stop::Replies), "a request begins within the limit of replies only");
        self.note_stop(end.done, end.stopped, bench);
    }

    pub(super) fn run_server(&mut self, args: Args<'_>, container: &'static ServerCommand, bench: &mut Workbench) {
        match container.resolve(args) {
            Some(row) if !judges_itself(container) || row.info.arity.allows(args.len()) => {
                (row.run)(&mut Call { session: self, bench, args, row });
            }
            _ => {
                let word = quotable(args.at(1), SHOWN_BYTES);
                let before = b"ERR unknown subcommand or wrong number of arguments for '";
                let after = format!("'. Try {} HELP.", container.info.name.to_ascii_uppercase());
                self.fail(&[before, word, after.as_bytes()].concat(), bench);
            }
        }
    }

    /// BL.AT: runs the command in `args` at a level of its own. Its name has not been looked at yet.
    pub fn run_at(&mut self, bench: &mut Workbench, level: Durability, args: Args<'_>) {
        let entry = table::lookup(args.at(0));
        let Some(Entry { target: Target::Data(command), info, .. }) = entry else {
            return bench.failed(self, "ERR BL.AT takes a command on keys or databases");
        };
        if !info.arity.allows(args.len()) {
            return bench.failed(self, &format!("ERR wrong number of arguments for '{}' command", info.name));
        }
        let own = self.level.replace(level);
        self.run_data(args, command, bench);
        self.level = own;
    }

    fn refuse_unknown(&mut self, args: Args<'_>, bench: &Workbench) {
        let name = args.at(0);
        if name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:") {
            // A browser was made to send requests here: the next lines would be the attacker's.
            tracing::warn!(
                client = self.client.id,
                peer = %self.client.peer.escape_debug(),
                "possible attack: this looks like HTTP (POST or Host:); the connection is closed"
            );
            return self.abandon();
        }
        self.spoil_transaction();
        let mut beginning = Vec::new();
        for arg in args.from(1).iter() {
            if beginning.len() >= SHOWN_BYTES {
                break;
            }
            let shown = quotable(arg, SHOWN_BYTES - beginning.len());
            beginning.extend_from_slice(&[b"'", shown, b"' "].concat());
        }
        let name = quotable(name, SHOWN_BYTES);
        self.fail(&[b"ERR unknown command '", name, b"', with args beginning with: ", &beginning].concat(), bench);
    }

    pub(super) fn note_command(&self, entry: &Entry, now_ms: u64) {
        self.client.command.store(entry.index, Relaxed);
        self.client.active_ms.store(now_ms, Relaxed);
    }
}

/// Bytes of an unknown command that its error repeats.
const SHOWN_BYTES: usize = 128;

fn unknown_subcommand(container: &ServerCommand, args: Args<'_>) -> Vec<u8> {
    let after = format!("'. Try {} HELP.", container.info.name.to_ascii_uppercase());
    [b"ERR unknown subcommand '", quotable(args.at(1), SHOWN_BYTES), after.as_bytes()].concat()
}

/// DEBUG looks at its subcommands only when it runs, so MULTI queues wrong ones: in Redis they are no commands.
fn judges_itself(container: &ServerCommand) -> bool {
    container.info.name == "debug"
}

/// Whether a command takes its arguments in one piece, however long. The engine's put them as they need them, and BL.AT hands
/// its own on.
fn takes_one_piece(entry: Option<&'static Entry>) -> bool {
    !entry.is_some_and(|entry| matches!(entry.target, Target::Data(_)) || entry.info.name == "bl.at")
}

/// Whether a command is not queued by MULTI.
fn runs_at_once(entry: &Entry, args: Args<'_>) -> bool {
    let Target::Server(row) = entry.target else { return false };
    row.resolve(args).is_some_and(|row| row.in_multi == InMulti::AtOnce)
}

/// Copies arguments into one piece with ranges of its own, as the executor takes them.
pub(super) fn contiguous(args: Args<'_>) -> (Vec<u8>, Vec<ArgRange>) {
    let mut bytes = Vec::with_capacity(args.lens().sum());
    let mut ranges = Vec::with_capacity(args.len());
    for index in 0..args.len() {
        let arg = args.bulk(index);
        ranges.push(ArgRange { start: bytes.len() as u32, len: arg.len() as u32 });
        match arg {
            Bulk::Bytes(arg) => bytes.extend_from_slice(arg),
            Bulk::Chunks(chunks) => chunks.iter().for_each(|chunk| bytes.extend_from_slice(chunk)),
        }
    }
    (bytes, ranges)
}
