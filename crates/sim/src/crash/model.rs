//! A model of the databases: commands on ordered maps, with the replies that a client must get.
//!
//! It knows just enough commands to reach every kind of effect. Replies are RESP2 bytes. Not here: what is acknowledged
//! and what may be lost ([`super::store`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::random::Random;

/// Numbered databases that the model has.
pub const DATABASES: usize = 3;
const KEYS: usize = 12;
const COUNTERS: usize = 3;

/// One command, as a client sends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// SET, with the Unix milliseconds at which the key expires.
    Set(Vec<u8>, Vec<u8>, Option<u64>),
    /// SETNX.
    SetIfAbsent(Vec<u8>, Vec<u8>),
    /// MSET of the same value at several keys.
    SetMany(Vec<Vec<u8>>, Vec<u8>),
    /// APPEND.
    Append(Vec<u8>, Vec<u8>),
    /// INCR.
    Increment(Vec<u8>),
    /// DEL.
    Delete(Vec<Vec<u8>>),
    /// RENAME.
    Rename(Vec<u8>, Vec<u8>),
    /// PEXPIREAT.
    ExpireAt(Vec<u8>, u64),
    /// PERSIST.
    Persist(Vec<u8>),
    /// SWAPDB.
    Swap(usize, usize),
    /// FLUSHDB.
    FlushDatabase,
    /// FLUSHALL.
    FlushAll,
    /// GET.
    Get(Vec<u8>),
    /// EXISTS.
    Exists(Vec<u8>),
    /// DBSIZE.
    Size,
}

/// A value and when it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The value; shared, because states are copied often.
    pub value: Arc<Vec<u8>>,
    /// Unix milliseconds of its expiry.
    pub expire_at: Option<u64>,
}

/// All keys of all databases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Databases([BTreeMap<Vec<u8>, Item>; DATABASES]);

/// The keys that commands use.
pub fn keys() -> impl Iterator<Item = Vec<u8>> {
    let plain = (0..KEYS).map(|number| format!("key:{number}").into_bytes());
    plain.chain((0..COUNTERS).map(|number| format!("counter:{number}").into_bytes()))
}

impl Command {
    /// A random command at the time `now_ms`. `reset` lets it empty all databases.
    pub fn random(random: &mut Random, now_ms: u64, value: Vec<u8>) -> Command {
        let later = now_ms + 1 + random.below(4_000);
        match random.below(100) {
            0..30 => Command::Set(key(random), value, random.chance(1, 4).then_some(later)),
            30..34 => Command::SetIfAbsent(key(random), value),
            34..38 => Command::SetMany((0..1 + random.index(4)).map(|_| key(random)).collect(), value),
            38..44 => Command::Append(key(random), value),
            44..50 => Command::Increment(counter(random)),
            50..57 => Command::Delete((0..1 + random.index(3)).map(|_| any_key(random)).collect()),
            57..62 => Command::Rename(key(random), key(random)),
            62..67 => Command::ExpireAt(any_key(random), later),
            67..69 => Command::Persist(any_key(random)),
            69 => Command::Swap(random.index(DATABASES), random.index(DATABASES)),
            70 => Command::FlushDatabase,
            71..73 => Command::FlushAll,
            73..90 => Command::Get(any_key(random)),
            90..95 => Command::Exists(any_key(random)),
            _ => Command::Size,
        }
    }

    /// Its words, the name first.
    pub fn words(&self) -> Vec<Vec<u8>> {
        let number = |number: &u64| number.to_string().into_bytes();
        let named = |name: &str, rest: &[&[u8]]| {
            std::iter::once(name.as_bytes()).chain(rest.iter().copied()).map(<[u8]>::to_vec).collect()
        };
        match self {
            Command::Set(key, value, None) => named("SET", &[key, value]),
            Command::Set(key, value, Some(at)) => named("SET", &[key, value, b"PXAT", &number(at)]),
            Command::SetIfAbsent(key, value) => named("SETNX", &[key, value]),
            Command::SetMany(keys, value) => {
                let pairs: Vec<&[u8]> = keys.iter().flat_map(|key| [key.as_slice(), value.as_slice()]).collect();
                named("MSET", &pairs)
            }
            Command::Append(key, value) => named("APPEND", &[key, value]),
            Command::Increment(key) => named("INCR", &[key]),
            Command::Delete(keys) => named("DEL", &keys.iter().map(Vec::as_slice).collect::<Vec<&[u8]>>()),
            Command::Rename(from, to) => named("RENAME", &[from, to]),
            Command::ExpireAt(key, at) => named("PEXPIREAT", &[key, &number(at)]),
            Command::Persist(key) => named("PERSIST", &[key]),
            Command::Swap(first, second) => {
                named("SWAPDB", &[first.to_string().as_bytes(), second.to_string().as_bytes()])
            }
            Command::FlushDatabase => named("FLUSHDB", &[]),
            Command::FlushAll => named("FLUSHALL", &[]),
            Command::Get(key) => named("GET", &[key]),
            Command::Exists(key) => named("EXISTS", &[key]),
            Command::Size => named("DBSIZE", &[]),
        }
    }
}

impl Databases {
    /// Runs a command in database `number` at `now_ms` and returns its reply.
    pub fn run(&mut self, number: usize, command: &Command, now_ms: u64) -> Vec<u8> {
        self.expire(now_ms);
        let items = &mut self.0[number];
        match command {
            Command::Set(key, value, expire_at) => {
                items.insert(key.clone(), Item { value: Arc::new(value.clone()), expire_at: *expire_at });
                ok()
            }
            Command::SetIfAbsent(key, value) => {
                let absent = !items.contains_key(key);
                items.entry(key.clone()).or_insert(Item { value: Arc::new(value.clone()), expire_at: None });
                integer(usize::from(absent))
            }
            Command::SetMany(keys, value) => {
                let item = Item { value: Arc::new(value.clone()), expire_at: None };
                items.extend(keys.iter().map(|key| (key.clone(), item.clone())));
                ok()
            }
            Command::Append(key, value) => {
                let item = items.entry(key.clone()).or_insert(Item { value: Arc::default(), expire_at: None });
                Arc::make_mut(&mut item.value).extend_from_slice(value);
                integer(item.value.len())
            }
            Command::Increment(key) => {
                let item = items.entry(key.clone()).or_insert(Item { value: Arc::new(b"0".to_vec()), expire_at: None });
                let count: usize = String::from_utf8_lossy(&item.value).parse().expect("a counter holds a number");
                item.value = Arc::new((count + 1).to_string().into_bytes());
                integer(count + 1)
            }
            Command::Delete(keys) => integer(keys.iter().filter(|key| items.remove(*key).is_some()).count()),
            Command::Rename(from, to) => match items.remove(from) {
                Some(item) => {
                    items.insert(to.clone(), item);
                    ok()
                }
                None => b"-ERR no such key\r\n".to_vec(),
            },
            Command::ExpireAt(key, at) => {
                let found = items.get_mut(key).map(|item| item.expire_at = Some(*at));
                integer(usize::from(found.is_some()))
            }
            Command::Persist(key) => {
                let had = items.get_mut(key).and_then(|item| item.expire_at.take());
                integer(usize::from(had.is_some()))
            }
            Command::Swap(..) | Command::FlushDatabase | Command::FlushAll => self.run_on_whole(number, command),
            Command::Get(key) => bulk(items.get(key)),
            Command::Exists(key) => integer(usize::from(items.contains_key(key))),
            Command::Size => integer(items.len()),
        }
    }

    fn run_on_whole(&mut self, number: usize, command: &Command) -> Vec<u8> {
        match command {
            Command::Swap(first, second) => self.0.swap(*first, *second),
            Command::FlushDatabase => self.0[number].clear(),
            _ => *self = Databases::default(),
        }
        ok()
    }

    /// Runs commands as a transaction: the reply is an array of theirs.
    pub fn run_all(&mut self, number: usize, commands: &[Command], now_ms: u64) -> Vec<u8> {
        let mut reply = format!("*{}\r\n", commands.len()).into_bytes();
        for command in commands {
            reply.extend(self.run(number, command, now_ms));
        }
        reply
    }

    /// Forgets what has expired at `now_ms`.
    pub fn expire(&mut self, now_ms: u64) {
        for items in &mut self.0 {
            items.retain(|_, item| item.expire_at.is_none_or(|at| at > now_ms));
        }
    }

    /// The item at `key` of database `number`.
    pub fn item(&self, number: usize, key: &[u8]) -> Option<&Item> {
        self.0.get(number)?.get(key)
    }

    /// Puts an item, as found in the store.
    pub fn put(&mut self, number: usize, key: Vec<u8>, item: Item) {
        self.0[number].insert(key, item);
    }
}

fn key(random: &mut Random) -> Vec<u8> {
    format!("key:{}", random.index(KEYS)).into_bytes()
}

fn counter(random: &mut Random) -> Vec<u8> {
    format!("counter:{}", random.index(COUNTERS)).into_bytes()
}

fn any_key(random: &mut Random) -> Vec<u8> {
    if random.chance(1, 4) { counter(random) } else { key(random) }
}

fn ok() -> Vec<u8> {
    b"+OK\r\n".to_vec()
}

fn integer(number: usize) -> Vec<u8> {
    format!(":{number}\r\n").into_bytes()
}

fn bulk(item: Option<&Item>) -> Vec<u8> {
    match item {
        Some(item) => [format!("${}\r\n", item.value.len()).as_bytes(), item.value.as_slice(), b"\r\n"].concat(),
        None => b"$-1\r\n".to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(databases: &mut Databases, command: &Command, now_ms: u64) -> String {
        String::from_utf8(databases.run(0, command, now_ms)).unwrap()
    }

    #[test]
    fn commands_answer_as_redis_does() {
        let mut databases = Databases::default();
        let key = || b"key:1".to_vec();
        assert_eq!(run(&mut databases, &Command::Set(key(), b"v".to_vec(), Some(10)), 1), "+OK\r\n");
        assert_eq!(run(&mut databases, &Command::Append(key(), b"w".to_vec()), 2), ":2\r\n");
        assert_eq!(run(&mut databases, &Command::Get(key()), 9), "$2\r\nvw\r\n");
        assert_eq!(run(&mut databases, &Command::Get(key()), 10), "$-1\r\n");
        assert_eq!(run(&mut databases, &Command::Increment(b"counter:1".to_vec()), 11), ":1\r\n");
        assert_eq!(run(&mut databases, &Command::Size, 11), ":1\r\n");
    }

    #[test]
    fn words_name_the_command_first() {
        let words = Command::Set(b"k".to_vec(), b"v".to_vec(), Some(7)).words();
        assert_eq!(words, [&b"SET"[..], b"k", b"v", b"PXAT", b"7"]);
    }
}
