//! One simulated machine that runs a whole store: commands in, replies out, no threads.

use std::path::Path;
use std::sync::Arc;

use bowline::clock::Clock;
use bowline::command::lookup;
use bowline::disk::Disk;
use bowline::exec::{Caller, Executor, Planned, Replies, RunEnd, Transaction, TransactionEnd};
use bowline::log::Listener;
use bowline::{Durability, Error, Options, Store, Version};
use bowline_resp::{ArgRange, Args, Protocol};

use crate::clock::SimClock;
use crate::crash::model::{Command, DATABASES, Databases, Item, keys};
use crate::disk::SimDisk;
use crate::machine::FILE_BYTES;

/// Where the simulated store lives.
pub const DIRECTORY: &str = "/data/store";
/// How often a command asks for room before it is given up.
const ROOM_ASKED_MAX: u32 = 20;
/// More turns than any store needs to become quiet.
const QUIET_TURNS_MAX: u32 = 2_000;

/// A machine whose store is open.
pub struct StoreMachine {
    /// Its disk.
    pub disk: SimDisk,
    /// Its clocks.
    pub clock: SimClock,
    /// The store.
    pub store: Store,
    executor: Executor,
    listener: Arc<Listener>,
}

/// The options of a simulated store that reaches files through `shared`.
pub fn options(shared: Arc<dyn Disk>, clock: &SimClock) -> Options {
    let mut options = Options::new(Path::new(DIRECTORY));
    options.segments = 4;
    options.databases = DATABASES as u32;
    options.log_file_bytes = FILE_BYTES;
    options.log_buffer_bytes = FILE_BYTES as usize / 2;
    options.seed = Some(0x5EED);
    options.threads = false;
    options.disk = shared;
    options.clock = Arc::new(clock.clone());
    options
}

impl StoreMachine {
    /// Opens the store on `disk`.
    pub fn open(disk: &SimDisk, clock: &SimClock) -> Result<StoreMachine, Error> {
        StoreMachine::open_through(Arc::new(disk.clone()), disk, clock)
    }

    /// Opens the store on `disk`, which it sees through `shared`.
    pub fn open_through(shared: Arc<dyn Disk>, disk: &SimDisk, clock: &SimClock) -> Result<StoreMachine, Error> {
        StoreMachine::open_with(options(shared, clock), disk, clock)
    }

    /// Opens the store of these options, whose disk and clock are `disk` and `clock`.
    pub fn open_with(options: Options, disk: &SimDisk, clock: &SimClock) -> Result<StoreMachine, Error> {
        let store = Store::open(options)?;
        let executor = Executor::new(&store);
        let listener = store.log().subscribe(Box::new(|| {}));
        Ok(StoreMachine { disk: disk.clone(), clock: clock.clone(), store, executor, listener })
    }

    /// The process is killed: nothing is tidied up. Returns the disk as it is then.
    pub fn kill(self) -> SimDisk {
        let disk = self.disk.process_killed();
        self.disk.crash_now();
        disk
    }

    /// Runs commands one after another, or as a transaction, in database `number`. Returns the replies and the version
    /// that they wait for; `None` when the log has no room, and then nothing has run. Several commands outside a
    /// transaction may stop in the middle and panic: give one at a time where room may be short.
    pub fn execute(
        &mut self,
        number: usize,
        commands: &[Command],
        transaction: bool,
        level: Durability,
    ) -> Option<(Vec<u8>, Version)> {
        let caller = Caller { database: number as u32, protocol: Protocol::Resp2, level, no_touch: false, waited: 0 };
        let mut replies = Replies::new();
        for _ in 0..ROOM_ASKED_MAX {
            let done = match transaction {
                true => self.run_transaction(&caller, commands, &mut replies),
                false => self.run_pipelined(&caller, commands, &mut replies),
            };
            if done {
                return Some(finished(&mut replies));
            }
            self.wait_for_room();
        }
        None
    }

    /// What a connection does whose command finds no room.
    fn wait_for_room(&mut self) {
        self.listener.want_room();
        self.store.turn();
    }

    fn run_pipelined(&mut self, caller: &Caller, commands: &[Command], replies: &mut Replies) -> bool {
        let (mut buffer, mut ranges, mut batch) = (Vec::new(), Vec::new(), Vec::new());
        for command in commands {
            let words = command.words();
            batch.push(Planned {
                command: lookup(&words[0]).expect("the model uses commands that exist"),
                first_range: ranges.len() as u32,
                ranges: words.len() as u32,
            });
            for word in words {
                ranges.push(ArgRange { start: buffer.len() as u32, len: word.len() as u32 });
                buffer.extend(word);
            }
        }
        let RunEnd { done, stopped } = self.executor.run(caller, &buffer, &ranges, &batch, replies);
        assert!(done == batch.len() || done == 0, "a pipeline stopped in the middle: {stopped:?}");
        done == batch.len()
    }

    fn run_transaction(&mut self, caller: &Caller, commands: &[Command], replies: &mut Replies) -> bool {
        let mut transaction = Transaction::default();
        for command in commands {
            let (buffer, ranges) = words_in_one_buffer(command);
            let row = lookup(&command.words()[0]).expect("the model uses commands that exist");
            assert!(transaction.push(row, Args::new(&buffer, &ranges)), "a small transaction fits");
        }
        self.executor.transaction(caller, &transaction, &[], replies) == TransactionEnd::Done
    }

    /// Runs one command and lets the store work until its reply may leave. Panics when it never may.
    pub fn call(&mut self, words: &[&[u8]]) -> Vec<u8> {
        let (reply, waits_for) = self.ask(0, words, Durability::Always);
        assert!(self.commit_up_to(waits_for), "version {waits_for} is never committed");
        reply
    }

    /// Turns without letting time pass until `version` is committed. False when it never is.
    pub fn commit_up_to(&mut self, version: Version) -> bool {
        self.store.log().request_sync(version);
        for _ in 0..QUIET_TURNS_MAX {
            if self.store.log().commit() >= version {
                return true;
            }
            if self.store.log().is_poisoned() {
                return false;
            }
            self.store.turn();
        }
        false
    }

    /// Turns and lets time pass until everything is committed and nothing is left to do. False when that never comes.
    pub fn become_quiet(&mut self) -> bool {
        let newest = self.store.log().last_version();
        if !self.commit_up_to(newest) {
            return false;
        }
        for _ in 0..QUIET_TURNS_MAX {
            if !self.store.turn() {
                return true;
            }
            self.clock.advance(std::time::Duration::from_millis(1));
        }
        false
    }

    /// Everything that the store shows, read through its commands; `None` when it fails meanwhile.
    pub fn contents(&mut self) -> Option<Databases> {
        let mut contents = Databases::default();
        let now_ms = self.clock.wall_ms();
        for number in 0..DATABASES {
            for key in keys() {
                let value = self.read(number, &[b"GET", &key])?;
                let expiry = self.read(number, &[b"PEXPIRETIME", &key])?;
                if let Some(item) = item(&value, &expiry) {
                    contents.put(number, key, item);
                }
            }
            let size = self.read(number, &[b"DBSIZE"])?;
            let expected = contents.run(number, &Command::Size, now_ms);
            assert_eq!(size, expected, "database {number} holds a key that nobody wrote");
        }
        Some(contents)
    }

    /// A read for the comparison; `None` when it gets no answer, because the power went off meanwhile.
    fn read(&mut self, number: usize, words: &[&[u8]]) -> Option<Vec<u8>> {
        let answer = self.try_ask(number, words, Durability::None).map(|(reply, _)| reply);
        let failed = self.store.log().is_poisoned() || self.disk.is_off() || self.disk.has_failed();
        match answer {
            Some(reply) if !reply.starts_with(b"-") => Some(reply),
            refusal => {
                let refusal = refusal.map(|reply| String::from_utf8_lossy(&reply).into_owned());
                assert!(failed, "{} is refused: {refusal:?}", words[0].escape_ascii());
                None
            }
        }
    }

    /// Runs one command given by its words. Returns its reply and the version that it waits for. Panics when the log has
    /// no room for it.
    pub fn ask(&mut self, number: usize, words: &[&[u8]], level: Durability) -> (Vec<u8>, Version) {
        let answer = self.try_ask(number, words, level);
        answer.unwrap_or_else(|| panic!("{} finds no room in the log", words[0].escape_ascii()))
    }

    fn try_ask(&mut self, number: usize, words: &[&[u8]], level: Durability) -> Option<(Vec<u8>, Version)> {
        let (buffer, ranges) = joined(words.iter().copied());
        let row = lookup(words[0]).expect("the command exists");
        let batch = [Planned { command: row, first_range: 0, ranges: ranges.len() as u32 }];
        let caller = Caller { database: number as u32, protocol: Protocol::Resp2, level, no_touch: false, waited: 0 };
        let mut replies = Replies::new();
        for _ in 0..ROOM_ASKED_MAX {
            if self.executor.run(&caller, &buffer, &ranges, &batch, &mut replies).done == 1 {
                return Some(finished(&mut replies));
            }
            self.wait_for_room();
        }
        None
    }
}

/// What the replies of GET and PEXPIRETIME tell.
fn item(value: &[u8], expiry: &[u8]) -> Option<Item> {
    if value == b"$-1\r\n" {
        return None;
    }
    let head = value.windows(2).position(|window| window == b"\r\n").expect("a bulk reply has a length");
    let expiry: i64 = String::from_utf8_lossy(expiry)
        .trim_start_matches(':')
        .trim_end()
        .parse()
        .expect("an integer reply holds a number");
    Some(Item { value: Arc::new(value[head + 2..value.len() - 2].to_vec()), expire_at: u64::try_from(expiry).ok() })
}

/// The whole of a reply and the newest version that it waits for.
fn finished(replies: &mut Replies) -> (Vec<u8>, Version) {
    let mut waits_for = Version::ZERO;
    while let Some(newer) = replies.waits_for(waits_for) {
        waits_for = newer;
    }
    (replies.take_all(), waits_for)
}

fn words_in_one_buffer(command: &Command) -> (Vec<u8>, Vec<ArgRange>) {
    let words = command.words();
    joined(words.iter().map(Vec::as_slice))
}

fn joined<'a>(words: impl Iterator<Item = &'a [u8]>) -> (Vec<u8>, Vec<ArgRange>) {
    let (mut buffer, mut ranges) = (Vec::new(), Vec::new());
    for word in words {
        ranges.push(ArgRange { start: buffer.len() as u32, len: word.len() as u32 });
        buffer.extend_from_slice(word);
    }
    (buffer, ranges)
}
