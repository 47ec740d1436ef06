//! What the engine's tests share: a store in a temporary directory, a clock that is set by hand, and commands as text.
#![allow(dead_code, unreachable_pub, missing_docs)]

use bowline::clock::Clock;
use bowline::exec::{Caller, Executor, Planned, Replies, RunEnd, Transaction, TransactionEnd};
use bowline::{Durability, Options, Store};
use bowline_resp::{ArgRange, Args, Protocol};
use proptest::prelude::*;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A clock that stands still until it is set.
#[derive(Default)]
pub struct HandClock {
    pub wall_ms: AtomicU64,
    pub monotonic_ms: AtomicU64,
}

impl HandClock {
    pub fn at(wall_ms: u64) -> Arc<HandClock> {
        let clock = HandClock::default();
        clock.wall_ms.store(wall_ms, Ordering::SeqCst);
        Arc::new(clock)
    }

    /// Lets both clocks go on.
    pub fn advance(&self, ms: u64) {
        self.wall_ms.fetch_add(ms, Ordering::SeqCst);
        self.monotonic_ms.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for HandClock {
    fn wall_ms(&self) -> u64 {
        self.wall_ms.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.monotonic_ms.load(Ordering::SeqCst))
    }
}

/// Small files, few segments, no threads, a fixed seed.
pub fn options(directory: &Path, clock: &Arc<HandClock>) -> Options {
    let mut options = Options::new(directory);
    options.segments = 8;
    options.seed = Some(42);
    options.threads = false;
    options.log_file_bytes = 1 << 20;
    options.log_buffer_bytes = 1 << 18;
    options.clock = clock.clone();
    options
}

/// Words in one buffer, and where each is.
pub fn joined(words: &[&[u8]]) -> (Vec<u8>, Vec<ArgRange>) {
    let (mut buffer, mut ranges) = (Vec::new(), Vec::new());
    for word in words {
        ranges.push(ArgRange { start: buffer.len() as u32, len: word.len() as u32 });
        buffer.extend_from_slice(word);
    }
    (buffer, ranges)
}

/// One connection to a store, without sockets.
pub struct Session {
    pub store: Store,
    pub executor: Executor,
    pub replies: Replies,
    pub caller: Caller,
}

impl Session {
    pub fn new(store: &Store) -> Session {
        let caller =
            Caller { database: 0, protocol: Protocol::Resp2, level: Durability::Always, no_touch: false, waited: 0 };
        Session { store: store.clone(), executor: Executor::new(store), replies: Replies::new(), caller }
    }

    /// Runs commands as one pipeline; the replies stay held. Words are split at spaces; `""` is the empty word.
    pub fn run_held(&mut self, commands: &[&str]) -> RunEnd {
        let (mut buffer, mut ranges, mut batch) = (Vec::new(), Vec::new(), Vec::new());
        for command in commands {
            let first_range = ranges.len() as u32;
            for word in command.split(' ') {
                let word = if word == "\"\"" { "" } else { word };
                ranges.push(ArgRange { start: buffer.len() as u32, len: word.len() as u32 });
                buffer.extend_from_slice(word.as_bytes());
            }
            let count = ranges.len() as u32 - first_range;
            let name = command.split(' ').next().unwrap_or_default();
            let command = bowline::command::lookup(name.as_bytes()).unwrap_or_else(|| panic!("no command {name}"));
            assert!(command.info.arity.allows(count as usize), "arity of {name}");
            batch.push(Planned { command, first_range, ranges: count });
        }
        self.executor.run(&self.caller, &buffer, &ranges, &batch, &mut self.replies)
    }

    /// Runs commands as one pipeline, makes everything durable and returns the replies as text.
    pub fn run(&mut self, commands: &[&str]) -> String {
        let mut done = 0;
        while done < commands.len() {
            done += self.run_held(&commands[done..]).done;
            self.store.sync().expect("a sync");
            self.store.turn();
        }
        self.take()
    }

    /// Runs one command and returns its reply, durable or not: the store works for it only when it needs room.
    pub fn run_now(&mut self, command: &str) -> String {
        while self.run_held(&[command]).done == 0 {
            self.store.turn();
        }
        String::from_utf8_lossy(&self.replies.take_all()).into_owned()
    }

    /// Makes everything durable and returns the replies.
    pub fn take(&mut self) -> String {
        self.store.sync().expect("a sync");
        let commit = self.store.log().commit();
        assert_eq!(self.replies.waits_for(commit), None);
        String::from_utf8_lossy(&self.replies.take_all()).into_owned()
    }

    /// Runs one command of any bytes, makes everything durable and returns the reply.
    pub fn run_words(&mut self, words: &[&[u8]]) -> Vec<u8> {
        let (buffer, ranges) = joined(words);
        let command = bowline::command::lookup(words[0]).expect("a command");
        let planned = [Planned { command, first_range: 0, ranges: ranges.len() as u32 }];
        while self.executor.run(&self.caller, &buffer, &ranges, &planned, &mut self.replies).done == 0 {
            self.store.turn();
        }
        self.store.sync().expect("a sync");
        self.store.turn();
        self.replies.take_all()
    }

    /// Runs commands as one transaction.
    pub fn transaction(&mut self, commands: &[&str], watched: &[bowline::exec::Watched]) -> String {
        let mut transaction = Transaction::default();
        for text in commands {
            let words: Vec<&str> = text.split(' ').collect();
            let (mut buffer, mut ranges) = (Vec::new(), Vec::new());
            for word in &words {
                ranges.push(ArgRange { start: buffer.len() as u32, len: word.len() as u32 });
                buffer.extend_from_slice(word.as_bytes());
            }
            let command = bowline::command::lookup(words[0].as_bytes()).expect("a command");
            assert!(transaction.push(command, Args::new(&buffer, &ranges)));
        }
        while self.executor.transaction(&self.caller, &transaction, watched, &mut self.replies) == TransactionEnd::Room
        {
            self.store.turn();
        }
        self.take()
    }
}

/// What a random test does with a store.
#[derive(Clone, Debug)]
pub enum Step {
    Run(String),
    Transaction(Vec<String>),
    Checkpoint,
    Turn,
    Reopen { checkpoint: bool },
}

/// A random command on one of 200 keys; some move keys or change a part of a value of up to 1500 bytes.
pub fn random_command() -> BoxedStrategy<String> {
    let key = || (0u32..200).prop_map(|number| format!("k{number}"));
    prop_oneof![
        12 => (key(), any::<u32>(), 1usize..1500).prop_map(|(key, seed, bytes)| format!("SET {key} {}", text(seed, bytes))),
        2 => (key(), any::<u32>(), 1usize..900).prop_map(|(key, seed, bytes)| format!("SET {key} {} GET", text(seed, bytes))),
        12 => key().prop_map(|key| format!("GET {key}")),
        3 => (key(), 1usize..300).prop_map(|(key, bytes)| format!("APPEND {key} {}", text(3, bytes))),
        2 => (key(), 0usize..2000).prop_map(|(key, offset)| format!("SETRANGE {key} {offset} changed")),
        3 => key().prop_map(|key| format!("DEL {key}")),
        2 => (key(), key()).prop_map(|(from, to)| format!("RENAME {from} {to}")),
        2 => (key(), key()).prop_map(|(from, to)| format!("COPY {from} {to} REPLACE")),
        2 => (key(), 1u32..900).prop_map(|(key, seconds)| format!("EXPIRE {key} {seconds}")),
        1 => key().prop_map(|key| format!("PERSIST {key}")),
        1 => key().prop_map(|key| format!("GETDEL {key}")),
        1 => key().prop_map(|key| format!("STRLEN {key}")),
        1 => key().prop_map(|key| format!("EXPIRETIME {key}")),
        1 => proptest::collection::vec(key(), 1..8).prop_map(|keys| format!("MGET {}", keys.join(" "))),
        1 => Just("SWAPDB 0 1".to_owned()),
        1 => key().prop_map(|key| format!("MOVE {key} 1")),
    ]
    .boxed()
}

/// A random step: beside thirty commands a few transactions and checkpoints, and so many `turns` and `reopens`.
pub fn random_step(command: fn() -> BoxedStrategy<String>, turns: u32, reopens: u32) -> BoxedStrategy<Step> {
    prop_oneof![
        30 => command().prop_map(Step::Run),
        3 => proptest::collection::vec(command(), 1..4).prop_map(Step::Transaction),
        2 => Just(Step::Checkpoint),
        turns => Just(Step::Turn),
        reopens => any::<bool>().prop_map(|checkpoint| Step::Reopen { checkpoint }),
    ]
    .boxed()
}

/// A text of `bytes` letters that another number has differently.
pub fn text(number: u32, bytes: usize) -> String {
    let letters = (0..bytes).map(|at| char::from(b'a' + ((number as usize * 31 + at * at) % 26) as u8));
    letters.collect()
}
