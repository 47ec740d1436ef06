//! The limit on memory: what is evicted, what is not, what is refused.
//!
//! The stores here have no allocator to ask, so what counts is what they count themselves: entries and tables.

mod support;

use bowline::{Error, EvictionPolicy, MemoryInUse, MemoryLimit, Options, Store};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use support::{HandClock, Session, options};

const OOM: &str = "-OOM command not allowed when used memory > 'maxmemory'.\r\n";
const LIMIT: usize = 64 * 1024;
/// More than a command of these tests asks for ahead, a subtable and an entry.
const SLACK: usize = 8 * 1024;

const EVICTING: [EvictionPolicy; 7] = [
    EvictionPolicy::AllKeysLru,
    EvictionPolicy::AllKeysLfu,
    EvictionPolicy::AllKeysRandom,
    EvictionPolicy::VolatileLru,
    EvictionPolicy::VolatileLfu,
    EvictionPolicy::VolatileRandom,
    EvictionPolicy::VolatileTtl,
];

fn limit(bytes: usize, policy: EvictionPolicy) -> MemoryLimit {
    MemoryLimit { bytes, policy }
}

fn limited(directory: &std::path::Path, bytes: usize, policy: EvictionPolicy) -> Options {
    let mut options = options(directory, &HandClock::at(1_800_000_000_000));
    options.memory_limit = limit(bytes, policy);
    options
}

fn keys_of(store: &Store) -> BTreeSet<Vec<u8>> {
    store.iter().map(|found| found.expect("an entry").0).collect()
}

#[derive(Clone, Debug)]
enum Step {
    Set { key: u16, bytes: usize, expires: bool },
    Get { key: u16 },
    Append { key: u16, bytes: usize },
    Delete { key: u16 },
    Limit { bytes: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let key = || 0u16..600;
    prop_oneof![
        10 => (key(), 1usize..400, any::<bool>()).prop_map(|(key, bytes, expires)| Step::Set { key, bytes, expires }),
        6 => key().prop_map(|key| Step::Get { key }),
        1 => (key(), 1usize..200).prop_map(|(key, bytes)| Step::Append { key, bytes }),
        1 => key().prop_map(|key| Step::Delete { key }),
        1 => (LIMIT / 2..2 * LIMIT).prop_map(|bytes| Step::Limit { bytes }),
    ]
}

/// What the store may hold: by key, the value's length and whether it expires.
type Model = BTreeMap<String, (usize, bool)>;

/// Runs a step on both. Returns whether a write was refused.
fn run(step: &Step, session: &mut Session, model: &mut Model, policy: EvictionPolicy) -> bool {
    let command = match step {
        Step::Set { key, bytes, expires } => {
            let lifetime = if *expires { format!(" EX {}", 1000 + bytes) } else { String::new() };
            format!("SET k{key} {}{lifetime}", "v".repeat(*bytes))
        }
        Step::Get { key } => format!("GET k{key}"),
        Step::Append { key, bytes } => format!("APPEND k{key} {}", "v".repeat(*bytes)),
        Step::Delete { key } => format!("DEL k{key}"),
        Step::Limit { bytes } => {
            session.store.set_memory_limit(limit(*bytes, policy));
            session.store.turn();
            return false;
        }
    };
    let reply = session.run(&[&command]);
    if reply == OOM {
        return true;
    }
    match step {
        Step::Set { key, bytes, expires } => {
            model.insert(format!("k{key}"), (*bytes, *expires));
        }
        Step::Append { key, bytes } => {
            // Where the key was evicted before, the reply is the length of what was appended alone.
            let len: usize = reply.trim_start_matches(':').trim_end().parse().expect("a length");
            let expires = len > *bytes && model.get(&format!("k{key}")).is_some_and(|(_, expires)| *expires);
            model.insert(format!("k{key}"), (len, expires));
        }
        Step::Delete { key } => {
            model.remove(&format!("k{key}"));
        }
        Step::Get { .. } | Step::Limit { .. } => {}
    }
    false
}

/// Takes out of the model what was evicted; nothing that the policy forbids is among it.
fn take_evicted(store: &Store, model: &mut Model, policy: EvictionPolicy) -> usize {
    let kept = keys_of(store);
    let before = model.len();
    model.retain(|key, (_, expires)| {
        let is_kept = kept.contains(key.as_bytes());
        assert!(is_kept || *expires || !policy.only_expiring(), "{policy:?} evicted {key}, which does not expire");
        is_kept
    });
    assert_eq!(model.len(), kept.len(), "nothing comes from nowhere");
    before - model.len()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn no_policy_evicts_what_it_must_not_or_more_than_it_must(
        steps in proptest::collection::vec(step(), 1..500), policy in 0..EVICTING.len(),
    ) {
        let (directory, policy) = (tempfile::tempdir().expect("a temporary directory"), EVICTING[policy]);
        let store = Store::open(limited(directory.path(), LIMIT, policy)).expect("a new store");
        let (mut session, mut model, mut evicted) = (Session::new(&store), Model::new(), 0);
        for (at, step) in steps.iter().enumerate() {
            let refused = run(step, &mut session, &mut model, policy);
            let memory = store.memory();
            if memory.evicted > evicted {
                prop_assert!(memory.used + SLACK > memory.limit.bytes, "{:?} left at {}", memory, at);
            }
            if memory.evicted > evicted || at % 50 == 0 {
                let missing = take_evicted(&store, &mut model, policy);
                // An APPEND to an entry that was evicted for it makes it anew.
                prop_assert!(missing as u64 <= memory.evicted - evicted);
            }
            evicted = memory.evicted;
            prop_assert!(!refused || policy.only_expiring() && model.values().all(|(_, expires)| !expires));
            let only_lasting = model.values().all(|(_, expires)| !expires);
            prop_assert!(memory.used <= memory.limit.bytes + SLACK || policy.only_expiring() && only_lasting);
        }
        let (kept, dropped) = (keys_of(&store), session);
        drop(dropped);
        store.close_without_checkpoint().expect("a close");
        let store = Store::open(limited(directory.path(), 0, policy)).expect("the same store");
        let figures = store.statistics();
        let entries_and_tables = figures.entry_bytes + figures.table_bytes;
        let order_of_expiry = figures.expiring * 24;
        prop_assert_eq!(figures.memory.used, entries_and_tables + order_of_expiry, "what was read is counted");
        prop_assert_eq!(keys_of(&store), kept, "what was evicted is gone after a restart, and nothing else");
        for (key, (len, _)) in &model {
            prop_assert_eq!(store.get(key.as_bytes()).expect("a get").map(|value| value.len()), Some(*len));
        }
        store.close_without_checkpoint().expect("a close");
    }
}

#[test]
fn a_limit_without_eviction_refuses_what_may_add_data_and_nothing_else() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(limited(directory.path(), 0, EvictionPolicy::NoEviction)).expect("a new store");
    let mut session = Session::new(&store);
    assert_eq!(session.run(&["MSET a 1 b 2 c 3"]), "+OK\r\n");
    store.set_memory_limit(limit(1, EvictionPolicy::NoEviction));
    for command in
        ["SET d 4", "SET a 1", "APPEND a 1", "INCR a", "INCRBYFLOAT a 1", "SETRANGE a 0 x", "MSET a 1", "MSETNX z 1"]
    {
        assert_eq!(session.run(&[command]), OOM, "{command}");
    }
    for command in ["SETNX z 1", "SETEX z 1 1", "PSETEX z 1 1", "GETSET a 1", "COPY a z", "BL.CAS a 0 1", "DECRBY a 1"]
    {
        assert_eq!(session.run(&[command]), OOM, "{command}");
    }
    assert_eq!(
        session.run(&["GET a", "EXPIRE a 100", "PERSIST a", "RENAME a e", "GETEX e"]),
        "$1\r\n1\r\n:1\r\n:1\r\n+OK\r\n$1\r\n1\r\n"
    );
    assert_eq!(session.run(&["GET b", "SET b 3", "GET b", "DEL b"]), format!("$1\r\n2\r\n{OOM}$1\r\n2\r\n:1\r\n"));
    let aborted = format!("-EXECABORT Transaction discarded because of: {}", &OOM[1..]);
    assert_eq!(session.transaction(&["GET e", "SET e 2"], &[]), aborted);
    assert_eq!(session.transaction(&["GET e", "DEL e"], &[]), "*2\r\n$1\r\n1\r\n:1\r\n");
    assert_eq!((session.run(&["FLUSHALL"]), store.memory().evicted), ("+OK\r\n".to_owned(), 0));
    store.set_memory_limit(limit(0, EvictionPolicy::NoEviction));
    assert_eq!(session.run(&["SET d 4"]), "+OK\r\n");
}

#[test]
fn the_library_says_that_memory_is_at_its_limit() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(limited(directory.path(), 1, EvictionPolicy::NoEviction)).expect("a new store");
    store.put(b"key", b"value").expect("a put while nothing is there");
    assert!(matches!(store.put(b"more", b"value"), Err(Error::OutOfMemory { limit: 1 })));
    let mut batch = bowline::Batch::new();
    batch.put(b"more", b"value");
    assert!(matches!(store.write(&batch), Err(Error::OutOfMemory { limit: 1 })));
    store.delete(b"key").expect("a delete");
    let mut batch = bowline::Batch::new();
    batch.delete(b"key");
    store.write(&batch).expect("a batch that adds nothing");
}

#[test]
fn what_the_allocator_says_counts() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let in_use = Arc::new(AtomicUsize::new(1_000_000));
    let told = in_use.clone();
    let mut options = limited(directory.path(), 500_000, EvictionPolicy::NoEviction);
    options.memory_gauge =
        Some(Arc::new(move || MemoryInUse { allocated: told.load(Ordering::SeqCst), unused_parts: 0 }));
    let store = Store::open(options).expect("a new store");
    assert_eq!(store.memory().used, 0, "what there was before does not count");
    store.put(b"key", b"value").expect("a put");
    in_use.fetch_add(510_001, Ordering::SeqCst);
    // Without what the log has in its buffers.
    let about = |used: usize, wanted: usize| (wanted - 10_000..=wanted).contains(&used);
    assert!(about(store.memory().used, 510_001), "{:?}", store.memory());
    assert!(matches!(store.put(b"key", b"value"), Err(Error::OutOfMemory { .. })));
    in_use.fetch_sub(400_000, Ordering::SeqCst);
    store.put(b"key", b"value").expect("a put");
    store.put(b"other", &[1; 30_000]).expect("a put");
    // The allocator has not heard of the 30,000 bytes, and its word counts once it is asked.
    let used = store.memory().used;
    assert!((70_000..=110_001).contains(&used), "{used}");
}

#[test]
fn a_lower_limit_evicts_in_the_background() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(limited(directory.path(), 0, EvictionPolicy::AllKeysLfu)).expect("a new store");
    let mut session = Session::new(&store);
    for start in (0..5_000).step_by(100) {
        let pairs: Vec<String> = (start..start + 100).map(|key| format!("key:{key} {}", "v".repeat(100))).collect();
        session.run(&[&format!("MSET {}", pairs.join(" "))]);
    }
    let used = store.memory().used;
    store.set_memory_limit(limit(used / 4, EvictionPolicy::AllKeysLfu));
    while store.turn() {}
    let memory = store.memory();
    assert!(memory.used <= used / 4 && memory.used + SLACK > used / 4, "{memory:?}");
    assert_eq!(store.len().expect("a count") as u64 + memory.evicted, 5_000);
}

#[test]
fn what_is_read_often_outlives_what_is_read_once() {
    for policy in [EvictionPolicy::AllKeysLru, EvictionPolicy::AllKeysLfu] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(limited(directory.path(), 2 * LIMIT, policy)).expect("a new store");
        let mut session = Session::new(&store);
        let hot: Vec<String> = (0..50).map(|key| format!("hot:{key}")).collect();
        hot.iter().for_each(|key| assert_eq!(session.run(&[&format!("SET {key} {}", "v".repeat(100))]), "+OK\r\n"));
        for round in 0..100 {
            hot.iter().for_each(|key| assert!(!session.run(&[&format!("GET {key}")]).is_empty()));
            for cold in 0..50 {
                session.run(&[&format!("SET cold:{round}:{cold} {}", "v".repeat(100))]);
            }
        }
        let left = hot.iter().filter(|key| store.exists(key.as_bytes()).expect("a look")).count();
        assert!(left >= 48, "{policy:?} kept {left} of 50");
        assert!(store.memory().evicted > 3_000, "{:?}", store.memory());
    }
}

#[test]
fn what_expires_first_goes_first() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let policy = EvictionPolicy::VolatileTtl;
    let store = Store::open(limited(directory.path(), 0, policy)).expect("a new store");
    let mut session = Session::new(&store);
    for key in 0..1_000 {
        session.run(&[&format!("SET key:{key} {} EX {}", "v".repeat(100), 1_000 + key)]);
    }
    store.set_memory_limit(limit(store.memory().used / 2, policy));
    while store.turn() {}
    let kept: Vec<usize> =
        (0..1_000).filter(|key| store.exists(format!("key:{key}").as_bytes()).expect("a look")).collect();
    let evicted = 1_000 - kept.len();
    assert!((300..700).contains(&evicted), "{evicted}");
    // Up to a slice goes from the segment of the one that expires first.
    assert!(kept.iter().all(|key| key + 16 * 8 > evicted), "{kept:?} were kept");
}

#[test]
fn objects_tell_their_frequency_where_it_is_counted_and_their_idle_time_elsewhere() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(limited(directory.path(), 0, EvictionPolicy::AllKeysLru)).expect("a new store");
    let mut session = Session::new(&store);
    session.run(&["SET key value"]);
    assert!(session.run(&["OBJECT FREQ key"]).starts_with("-ERR An LFU maxmemory policy is not selected, access"));
    assert_eq!(session.run(&["OBJECT IDLETIME key"]), ":0\r\n");
    store.set_memory_limit(limit(0, EvictionPolicy::VolatileLfu));
    assert!(session.run(&["OBJECT IDLETIME key"]).starts_with("-ERR An LFU maxmemory policy is selected, idle time"));
    assert_eq!(session.run(&["OBJECT FREQ key", "OBJECT FREQ none"]), ":0\r\n$-1\r\n");
    assert_eq!(session.run(&["GET key", "SET key other", "OBJECT FREQ key"]), "$5\r\nvalue\r\n+OK\r\n:2\r\n");
    for _ in 0..2_000 {
        session.run_held(&["GET key"]);
    }
    session.take();
    assert_eq!(session.run(&["OBJECT FREQ key", "RENAME key name", "OBJECT FREQ name"]), ":7\r\n+OK\r\n:7\r\n");
}

#[test]
fn memory_falls_when_everything_is_flushed() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(limited(directory.path(), LIMIT, EvictionPolicy::NoEviction)).expect("a new store");
    let mut session = Session::new(&store);
    for database in 0..4 {
        session.caller.database = database;
        session.run(&[&format!("SET key {}", "v".repeat(20_000))]);
    }
    assert_eq!(session.run(&["SET more value"]), OOM);
    assert_eq!(session.run(&["FLUSHDB", "SET more value"]), "+OK\r\n+OK\r\n");
    assert_eq!(session.run(&["FLUSHALL"]), "+OK\r\n");
    assert!(store.memory().used < 4096, "{:?}", store.memory());
}

#[test]
fn readers_and_writers_at_once_stay_within_the_limit_and_see_whole_values() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut options = Options::new(directory.path());
    options.durability = bowline::Durability::None;
    options.memory_limit = limit(1 << 20, EvictionPolicy::AllKeysLfu);
    let store = Store::open(options).expect("a new store");
    let (done, most) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..2)
            .map(|writer: usize| {
                let (store, most) = (&store, &most);
                scope.spawn(move || {
                    for round in 0..20_000usize {
                        let number = writer * 20_000 + round;
                        store.put(format!("key:{number}").as_bytes(), &[number as u8; 200]).expect("a put");
                        store.put(format!("hot:{}", round % 100).as_bytes(), &[round as u8; 50]).expect("a put");
                        most.fetch_max(store.memory().used, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for reader in 0..2usize {
            let (store, done) = (&store, &done);
            scope.spawn(move || {
                let mut number = reader;
                while !done.load(Ordering::Relaxed) {
                    number = number.wrapping_mul(31).wrapping_add(7) % 40_000;
                    if let Some(value) = store.get(format!("key:{number}").as_bytes()).expect("a get") {
                        assert_eq!(value, [number as u8; 200]);
                    }
                }
            });
        }
        for writer in writers {
            writer.join().expect("a writer");
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(most.load(Ordering::Relaxed) < (1 << 20) + 64 * 1024, "{most:?}");
    assert!(store.memory().evicted > 30_000, "{:?}", store.memory());
    let hot = (0..100).filter(|key| store.exists(format!("hot:{key}").as_bytes()).expect("a look")).count();
    assert!(hot >= 95, "{hot} of 100 that are written again and again");
    store.close().expect("a close");
}

#[test]
fn what_a_client_without_touch_looks_at_counts_as_unused_but_for_touch() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(limited(directory.path(), 0, EvictionPolicy::AllKeysLfu)).expect("a new store");
    let mut session = Session::new(&store);
    session.run(&["SET key 1"]);
    // They only ask about it, for everybody.
    session.run(&["EXISTS key", "TTL key", "PEXPIRETIME key", "TYPE key", "OBJECT ENCODING key"]);
    assert_eq!(session.run(&["OBJECT FREQ key"]), ":0\r\n");
    session.caller.no_touch = true;
    session.run(&["GET key", "GETRANGE key 0 1", "INCR key", "APPEND key 2", "EXPIRE key 1000", "SET key 3"]);
    assert_eq!(session.transaction(&["GET key", "OBJECT FREQ key"], &[]), "*2\r\n$1\r\n3\r\n:0\r\n");
    assert_eq!(session.run(&["TOUCH key", "OBJECT FREQ key"]), ":1\r\n:1\r\n");
    session.caller.no_touch = false;
    assert_eq!(session.run(&["GET key", "OBJECT FREQ key"]), "$1\r\n3\r\n:2\r\n");
}
