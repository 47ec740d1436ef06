//! Long values, which are kept in chunks: commands do with them what they do with a vector of bytes, through checkpoints and
//! restarts, and what moves or shares one copies none of its bytes.
//!
//! Method: seeded random commands on a store and on a map of vectors; and an allocator that counts the bytes that the thread
//! asks for, which a copy would need.   Replay: SEED=<n> cargo test -p bowline --test long_values

#[path = "support/counting.rs"]
mod counting;
mod support;

use bowline::exec::{Arguments, Planned, Transaction};
use bowline::{Store, Version};
use bowline_resp::{ArgRange, Args, Chunks};
use counting::{Counting, bytes_of};
use std::collections::BTreeMap;
use support::{HandClock, Session, joined, options};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const NOW_MS: u64 = 1_700_000_000_000;

struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ mixed >> 31) % end as u64) as usize
    }

    /// A length: short, about that of a chunk, or of several.
    fn length(&mut self) -> usize {
        match self.below(4) {
            0 => self.below(200),
            1 => 65_530 + self.below(12),
            2 => self.below(70_000),
            _ => self.below(300_000),
        }
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let seed = self.below(256) as u8;
        (0..len).map(|at| (at as u8).wrapping_mul(37) ^ (at >> 8) as u8 ^ seed).collect()
    }
}

fn bulk(bytes: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

fn integer(number: usize) -> Vec<u8> {
    format!(":{number}\r\n").into_bytes()
}

const NIL: &[u8] = b"$-1\r\n";
const OK: &[u8] = b"+OK\r\n";

/// A store and what it should hold.
struct World {
    directory: tempfile::TempDir,
    session: Session,
    model: BTreeMap<String, Vec<u8>>,
    random: Random,
}

impl World {
    fn new(seed: u64) -> World {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let session = open(&directory);
        World { directory, session, model: BTreeMap::new(), random: Random(seed) }
    }

    fn expect(&mut self, words: &[&[u8]], expected: &[u8]) {
        let found = self.session.run_words(words);
        let shown = words.iter().map(|word| word[..word.len().min(20)].escape_ascii().to_string()).collect::<Vec<_>>();
        assert!(found == expected, "{shown:?}: {}", found[..found.len().min(60)].escape_ascii());
    }

    fn key(&mut self) -> String {
        format!("key:{}", self.random.below(4))
    }

    fn step(&mut self) {
        let (key, other, len) = (self.key(), self.key(), self.random.length());
        let bytes = self.random.bytes(len);
        let old = self.model.get(&key).cloned();
        let name = key.as_bytes();
        match self.random.below(12) {
            0 | 1 => {
                self.expect(&[b"set", name, &bytes], OK);
                self.model.insert(key, bytes);
            }
            2 => {
                let answer = old.as_ref().map_or(NIL.to_vec(), |old| bulk(old));
                self.expect(&[b"set", name, &bytes, b"get", b"ex", b"1000"], &answer);
                self.model.insert(key, bytes);
            }
            3 => {
                let value = self.model.entry(key.clone()).or_default();
                value.extend_from_slice(&bytes);
                let answer = integer(value.len());
                self.expect(&[b"append", name, &bytes], &answer);
                if bytes.is_empty() && old.is_none() {
                    self.model.insert(key, Vec::new());
                }
            }
            4 | 5 => self.set_range(&key, bytes, old),
            6 => self.get_range(&key, &old.unwrap_or_default()),
            7 => {
                self.expect(
                    &[b"copy", name, other.as_bytes(), b"replace"],
                    &match (&old, key == other) {
                        (_, true) => b"-ERR source and destination objects are the same\r\n".to_vec(),
                        (old, false) => integer(usize::from(old.is_some())),
                    },
                );
                self.model.extend(old.map(|old| (other, old)));
            }
            8 if old.is_some() => {
                self.expect(&[b"rename", name, other.as_bytes()], OK);
                let value = self.model.remove(&key).expect("it was there");
                self.model.insert(other, value);
            }
            9 => {
                self.expect(&[b"mset", name, &bytes, b"more", b"1", other.as_bytes(), &bytes[..len / 2]], OK);
                self.model.insert(key, bytes.clone());
                self.model.insert(other, bytes[..len / 2].to_vec());
            }
            10 => self.transaction(&key, &bytes),
            _ => {
                let command: &[u8] = if self.random.below(3) == 0 { b"getdel" } else { b"get" };
                let answer = old.map_or(NIL.to_vec(), |old| bulk(&old));
                self.expect(&[command, name], &answer);
                if command == b"getdel" {
                    self.model.remove(&key);
                }
            }
        }
    }

    fn set_range(&mut self, key: &str, bytes: Vec<u8>, old: Option<Vec<u8>>) {
        let mut value = old.clone().unwrap_or_default();
        let offset = self.random.below(value.len() + 100_000);
        if !bytes.is_empty() {
            value.resize(value.len().max(offset + bytes.len()), 0);
            value[offset..offset + bytes.len()].copy_from_slice(&bytes);
        }
        let answer = integer(value.len());
        self.expect(&[b"setrange", key.as_bytes(), offset.to_string().as_bytes(), &bytes], &answer);
        if old.is_some() || !bytes.is_empty() {
            self.model.insert(key.to_owned(), value);
        }
    }

    fn get_range(&mut self, key: &str, value: &[u8]) {
        let start = self.random.below(value.len() + 2);
        let end = start + self.random.below(value.len() + 2);
        let answer = bulk(value.get(start..(end + 1).min(value.len())).unwrap_or_default());
        let words =
            [b"getrange", key.as_bytes(), start.to_string().as_bytes(), end.to_string().as_bytes()].map(<[u8]>::to_vec);
        self.expect(&words.each_ref().map(Vec::as_slice), &answer);
        self.expect(&[b"strlen", key.as_bytes()], &integer(value.len()));
    }

    fn transaction(&mut self, key: &str, bytes: &[u8]) {
        let mut transaction = Transaction::default();
        for words in [[b"set".as_slice(), key.as_bytes(), bytes], [b"append", key.as_bytes(), bytes]] {
            let (buffer, ranges) = joined(&words);
            let command = bowline::command::lookup(words[0]).expect("a command");
            assert!(transaction.push(command, Args::new(&buffer, &ranges)));
        }
        let Session { store, executor, caller, replies } = &mut self.session;
        while executor.transaction(caller, &transaction, &[], replies) != bowline::exec::TransactionEnd::Done {
            store.turn();
        }
        store.sync().expect("a sync");
        assert_eq!(replies.take_all(), [b"*2\r\n+OK\r\n", &integer(2 * bytes.len())[..]].concat());
        self.model.insert(key.to_owned(), [bytes, bytes].concat());
    }

    fn check(&mut self) {
        for key in (0..4).map(|number| format!("key:{number}")) {
            let answer = self.model.get(&key).map_or(NIL.to_vec(), |value| bulk(value));
            self.expect(&[b"get", key.as_bytes()], &answer);
        }
    }

    fn reopen(mut self, with_checkpoint: bool) -> World {
        let store = self.session.store.clone();
        let World { directory, model, random, session } = self;
        drop(session);
        if with_checkpoint { store.close() } else { store.close_without_checkpoint() }.expect("a close");
        let session = open(&directory);
        self = World { directory, session, model, random };
        self.check();
        self
    }
}

fn open(directory: &tempfile::TempDir) -> Session {
    Session::new(&Store::open(options(directory.path(), &HandClock::at(NOW_MS))).expect("a store"))
}

#[test]
fn commands_checkpoints_and_restarts_treat_long_values_as_vectors() {
    let seeds = match std::env::var("SEED") {
        Ok(seed) => {
            let seed = seed.parse::<u64>().expect("a number");
            seed..seed + 1
        }
        Err(_) => 0..6,
    };
    for seed in seeds {
        println!("SEED={seed}");
        let mut world = World::new(seed);
        for step in 0..120 {
            world.step();
            match step % 40 {
                13 => world.session.store.checkpoint().expect("a checkpoint"),
                20 => world = world.reopen(false),
                35 => world = world.reopen(true),
                _ => {}
            }
        }
        world.check();
    }
}

const LONG: usize = 8 << 20;

/// A store with one long value, committed.
fn with_long_value() -> World {
    let mut world = World::new(1);
    let value = world.random.bytes(LONG);
    world.expect(&[b"set", b"long", &value], OK);
    world.model.insert("long".into(), value);
    world
}

/// Runs a command; returns the bytes that running it asks for, what the log does meanwhile not counted.
fn bytes_of_running(session: &mut Session, words: &[&[u8]]) -> u64 {
    let (buffer, ranges) = joined(words);
    let command = bowline::command::lookup(words[0]).expect("a command");
    let planned = [Planned { command, first_range: 0, ranges: ranges.len() as u32 }];
    let Session { store, executor, caller, replies } = session;
    let (mut done, mut bytes) = (0, 0);
    while done == 0 {
        bytes += bytes_of(|| done = executor.run(caller, &buffer, &ranges, &planned, replies).done);
        store.turn();
    }
    bytes
}

#[test]
fn what_moves_or_reads_a_long_value_copies_none_of_its_bytes() {
    let mut world = with_long_value();
    for words in [
        &[b"copy".as_slice(), b"long", b"copy"][..],
        &[b"rename", b"copy", b"other"],
        &[b"get", b"other"],
        &[b"getrange", b"other", b"5", b"-5"],
        &[b"expire", b"other", b"1000"],
        &[b"append", b"other", b"more"],
        &[b"setrange", b"other", b"4000000", b"some bytes"],
        &[b"getdel", b"other"],
    ] {
        let bytes = bytes_of_running(&mut world.session, words);
        assert!(bytes < 300_000, "{} asked for {bytes} bytes", words[0].escape_ascii());
    }
    world.session.store.sync().expect("a sync");
    let replies = world.session.replies.take_all();
    let heads: usize = [":1", "+OK", "$8388608", "", "$8388599", "", ":1", ":8388612", ":8388612", "$8388612", ""]
        .iter()
        .map(|line| line.len() + 2)
        .sum();
    assert_eq!(replies.len(), heads + LONG + (LONG - 9) + (LONG + 4));
}

#[test]
fn a_value_that_came_in_chunks_is_the_one_that_is_kept() {
    let mut world = World::new(2);
    let (value, name) = (world.random.bytes(LONG), b"setlong");
    let chunked = [Chunks::copy_of(&value)];
    let ranges = [
        ArgRange { start: 0, len: 3 },
        ArgRange { start: 3, len: 4 },
        ArgRange::of_chunks(0, LONG as u32).expect("a range"),
    ];
    let planned = [Planned { command: bowline::command::lookup(b"set").expect("SET"), first_range: 0, ranges: 3 }];
    let arguments = Arguments { buffer: name, ranges: &ranges, chunked: &chunked };
    let Session { store, executor, caller, replies } = &mut world.session;
    let mut done = 0;
    while done == 0 {
        let bytes = bytes_of(|| done = executor.run_arguments(caller, arguments, &planned, replies).done);
        assert!(bytes < 100_000, "SET asked for {bytes} bytes");
        store.turn();
    }
    store.sync().expect("a sync");
    assert_eq!(replies.take_all(), OK);
    world.expect(&[b"get", b"long"], &bulk(&value));
    world.expect(&[b"memory", b"usage", b"other"], NIL);
}

#[test]
fn a_checkpoint_has_a_long_value_as_it_was_and_the_log_what_came_after() {
    let mut world = with_long_value();
    world.session.store.checkpoint().expect("a checkpoint");
    let before = world.session.store.checkpoints();
    world.expect(&[b"setrange", b"long", b"100000", b"after the cut"], &integer(LONG));
    let value = world.model.get_mut("long").expect("the value");
    value[100_000..100_013].copy_from_slice(b"after the cut");
    let answer = bulk(value);
    assert!(before.entries == 1 && world.session.store.log().last_version() > Version::ZERO);
    let mut world = world.reopen(false);
    world.expect(&[b"get", b"long"], &answer);
    world.expect(&[b"object", b"encoding", b"long"], b"$3\r\nraw\r\n");
    let mut world = world.reopen(true);
    world.expect(&[b"get", b"long"], &answer);
}
