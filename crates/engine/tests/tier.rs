//! The policy "tier": values leave memory, and every command answers as if they had not.
//!
//! The stores here have no allocator to ask, so what counts is what they count themselves: entries and tables.

mod support;

use bowline::exec::Stop;
use bowline::{Error, EvictionPolicy, Fetch, MemoryLimit, Options, Store};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use support::{HandClock, Session, Step, options, random_command, random_step, text};

const LIMIT: usize = 96 * 1024;

fn tiered(directory: &Path, bytes: usize) -> Options {
    let mut options = options(directory, &HandClock::at(1_800_000_000_000));
    options.memory_limit = MemoryLimit { bytes, policy: EvictionPolicy::Tier };
    options
}

/// A store with `keys` keys of 1000 bytes each under a limit of [`LIMIT`], most of them cold.
fn filled(directory: &Path, keys: u32) -> Store {
    let store = Store::open(tiered(directory, LIMIT)).expect("a new store");
    for number in 0..keys {
        store.put(format!("key:{number}").as_bytes(), text(number, 1000).as_bytes()).expect("a put");
    }
    store.checkpoint().expect("a checkpoint");
    while store.turn() {}
    assert!(store.memory().used <= LIMIT, "{:?}", store.memory());
    assert!(store.tier().cold > keys as usize / 2, "{:?}", store.tier());
    store
}

#[test]
fn ten_times_as_much_as_memory_holds_is_kept_and_read_back() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = filled(directory.path(), 1000);
    for number in (0..1000).rev() {
        let found = store.get(format!("key:{number}").as_bytes()).expect("a read");
        assert_eq!(found.as_deref(), Some(text(number, 1000).as_bytes()), "key {number}");
        assert!(store.memory().used <= LIMIT + 2000, "{:?}", store.memory());
    }
    assert!(store.tier().fetched >= 900, "{:?}", store.tier());
}

#[test]
fn a_start_leaves_in_the_file_what_memory_has_no_room_for() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    filled(directory.path(), 1000).close().expect("a clean close");
    let store = Store::open(tiered(directory.path(), LIMIT)).expect("the store again");
    assert!(store.memory().used <= LIMIT, "{:?}", store.memory());
    assert!(store.tier().cold > 900, "{:?}", store.tier());
    assert_eq!(store.len().expect("a count"), 1000);
    let met: BTreeMap<Vec<u8>, Vec<u8>> =
        store.iter().map(|found| found.map(|(key, entry)| (key, entry.value)).expect("an entry")).collect();
    assert_eq!(met.len(), 1000);
    for number in 0..1000 {
        assert_eq!(met.get(format!("key:{number}").as_bytes()).map(Vec::as_slice), Some(text(number, 1000).as_bytes()));
    }
}

#[test]
fn what_was_logged_after_the_checkpoint_finds_the_values_that_it_changes() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = filled(directory.path(), 300);
    let mut session = Session::new(&store);
    session.run(&["APPEND key:1 more", "SETRANGE key:2 0 new", "EXPIRE key:3 1000", "RENAME key:4 other"]);
    drop(session);
    store.close_without_checkpoint().expect("a close");
    let store = Store::open(tiered(directory.path(), LIMIT)).expect("the store again");
    let get =
        |key: &str| String::from_utf8(store.get(key.as_bytes()).expect("a read").expect("a value")).expect("text");
    assert_eq!(get("key:1"), text(1, 1000) + "more");
    assert_eq!(get("key:2"), "new".to_owned() + &text(2, 1000)[3..]);
    assert_eq!((get("key:3"), get("other")), (text(3, 1000), text(4, 1000)));
    assert_eq!(store.get(b"key:4").expect("a read"), None);
    assert!(store.get_entry(b"key:3").expect("a read").expect("an entry").expires.is_some());
}

#[test]
fn commands_that_need_no_value_read_none() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = filled(directory.path(), 300);
    let mut session = Session::new(&store);
    let all: Vec<String> = (0..300).map(|number| format!("key:{number}")).collect();
    let exists = "EXISTS ".to_owned() + &all.join(" ");
    assert_eq!(session.run(&[&exists]), ":300\r\n");
    assert_eq!(session.run(&["TTL key:5", "TYPE key:5", "STRLEN missing"]), ":-1\r\n+string\r\n:0\r\n");
    let set: Vec<String> = all.iter().take(50).map(|key| format!("SET {key} short")).collect();
    let set: Vec<&str> = set.iter().map(String::as_str).collect();
    assert_eq!(session.run(&set), "+OK\r\n".repeat(50));
    let del = "DEL ".to_owned() + &all[50..].join(" ");
    assert_eq!(session.run(&[&del]), ":250\r\n");
    assert_eq!((store.tier().fetched, store.tier().cold), (0, 0), "{:?}", store.tier());
}

#[test]
fn a_transaction_that_meets_a_cold_value_runs_once_and_whole() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = filled(directory.path(), 300);
    let mut session = Session::new(&store);
    for number in 0..300 {
        let reply = session.transaction(&["INCR count", &format!("STRLEN key:{number}"), "INCR count"], &[]);
        assert_eq!(reply, format!("*3\r\n:{}\r\n:1000\r\n:{}\r\n", 2 * number + 1, 2 * number + 2));
    }
    assert!(store.tier().fetched >= 150, "{:?}", store.tier());
}

#[test]
fn writes_are_refused_when_nothing_is_left_to_let_go() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(tiered(directory.path(), LIMIT)).expect("a new store");
    let refused =
        (0..100_000u32).find_map(|number| store.put(&[&number.to_le_bytes()[..], &[7; 100]].concat(), b"1").err());
    assert!(matches!(refused, Some(Error::OutOfMemory { .. })), "{refused:?}");
    store.delete(&[&0u32.to_le_bytes()[..], &[7; 100]].concat()).expect("a delete");
}

#[test]
fn a_damaged_value_is_named_and_the_others_are_read() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    filled(directory.path(), 300).close().expect("a clean close");
    let store = Store::open(tiered(directory.path(), LIMIT)).expect("the store again");
    let mut session = Session::new(&store);
    let usage = |session: &mut Session, number: u32| session.run(&[&format!("MEMORY USAGE key:{number}")]);
    let cold =
        (0..300).find(|number| usage(&mut session, *number).len() < 6).expect("a cold value takes two digits of bytes");
    let key = format!("key:{cold}");
    let path = directory.path().join("store.blocks");
    let mut bytes = std::fs::read(&path).expect("the block file");
    let needle = key.clone() + &text(cold, 1000);
    let at = bytes.windows(needle.len()).position(|window| window == needle.as_bytes()).expect("its record");
    bytes[at] ^= 1;
    std::fs::write(&path, &bytes).expect("the block file, damaged");
    let get = format!("GET {key}");
    let reply = session.run(&[&get]);
    assert!(reply.starts_with("-ERR the value cannot be read back") && reply.contains("store.blocks"), "{reply}");
    assert_eq!(session.run(&[&get, &format!("TYPE {key}")]), reply + "+string\r\n");
    assert!(matches!(store.get(key.as_bytes()), Err(Error::Unreadable { .. })));
    assert_eq!(session.run(&[&format!("SET {key} anew"), &get]), "+OK\r\n$4\r\nanew\r\n");
    let sound = (0..300).filter(|number| store.get(format!("key:{number}").as_bytes()).is_ok()).count();
    assert!(sound >= 290, "{sound} of 300 can be read");
}

#[test]
fn values_that_come_back_make_room_for_each_other_where_nothing_else_may_go() {
    const KEYS: u32 = 40_000;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut options = tiered(directory.path(), 0);
    options.durability = bowline::Durability::None;
    let store = Store::open(options.clone()).expect("a new store");
    let key = |number: u32| format!("key:{number}").into_bytes();
    (0..KEYS).for_each(|number| _ = store.put(&key(number), text(number, 200).as_bytes()).expect("a put"));
    store.close().expect("a clean close");
    options.memory_limit.bytes = 1;
    let store = Store::open(options).expect("the store again");
    assert_eq!(store.tier().cold, KEYS as usize);
    let limit = MemoryLimit { bytes: 4 << 20, policy: EvictionPolicy::Tier };
    store.set_memory_limit(limit);
    // Values that no checkpoint has take all the room there is.
    let mut session = Session::new(&store);
    let large = "x".repeat(1000);
    for number in 0.. {
        if store.memory().used + 2000 > limit.bytes {
            break;
        }
        session.run_now(&format!("SET new:{number} {large}"));
    }
    let before = store.tier();
    for number in 0..2000 {
        assert_eq!(store.get(&key(number)).expect("a read").as_deref(), Some(text(number, 200).as_bytes()));
        assert!(store.memory().used <= limit.bytes + 10_000, "{:?}", store.memory());
    }
    let (fetched, looked_at) = (store.tier().fetched - before.fetched, store.tier().looked_at - before.looked_at);
    assert!(fetched > 1000, "{:?}", store.tier());
    assert!(looked_at < 64 * fetched, "{looked_at} buckets were looked at for {fetched} values");
}

fn tier_limit(bytes: usize) -> MemoryLimit {
    MemoryLimit { bytes, policy: EvictionPolicy::Tier }
}

/// A store with `keys` keys of `bytes` bytes each under a limit of `limit`, all of them cold, and a client of it who parks.
fn all_cold(directory: &Path, (keys, bytes): (u32, usize), limit: usize) -> Session {
    let store = Store::open(tiered(directory, 0)).expect("a new store");
    for number in 0..keys {
        store.put(format!("key:{number}").as_bytes(), text(number, bytes).as_bytes()).expect("a put");
    }
    store.checkpoint().expect("a checkpoint");
    store.set_memory_limit(tier_limit(1));
    while store.turn() {}
    assert_eq!(store.tier().cold, keys as usize);
    store.set_memory_limit(tier_limit(limit));
    store.turn();
    assert!(store.memory().used < limit, "{:?}", store.memory());
    let mut session = Session::new(&store);
    session.executor.set_waker(Arc::new(|| {}));
    session
}

/// The values that a run stopped for, read.
fn fetched(session: &mut Session) -> Option<Arc<Fetch>> {
    let fetch = session.executor.take_fetch();
    while fetch.as_ref().is_some_and(|fetch| !fetch.is_done()) {
        std::thread::yield_now();
    }
    assert!(fetch.is_some(), "the run stopped for values");
    fetch
}

/// How often a command has waited that is left what it fetched.
const WAITED_OFTEN: u8 = 2;

#[test]
fn a_command_that_is_left_what_it_fetched_does_not_wait_for_memory() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut session = all_cold(directory.path(), (300, 100), 4 << 20);
    let store = session.store.clone();
    session.caller.waited = WAITED_OFTEN;
    assert_eq!(session.run_held(&["APPEND key:1 more"]).stopped, Some(Stop::Values));
    let fetch = fetched(&mut session);
    // Others fill memory meanwhile.
    store.set_memory_limit(tier_limit(1));
    store.turn();
    assert_eq!(store.tier().cold, 299, "it is left what it fetched");
    session.executor.give_fetch(fetch);
    let end = session.run_held(&["APPEND key:1 more", "APPEND key:1 even"]);
    assert_eq!((end.done, end.stopped), (1, Some(Stop::Room)), "the next command waits as any other");
    assert_eq!(session.take(), ":104\r\n");
}

#[test]
fn a_command_that_waits_for_more_values_keeps_those_that_came() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut session = all_cold(directory.path(), (400, 100), 4 << 20);
    let store = session.store.clone();
    // More than are fetched at once.
    let keys: Vec<String> = (0..300).map(|number| format!("key:{number}")).collect();
    let command = "MGET ".to_owned() + &keys.join(" ");
    session.caller.waited = WAITED_OFTEN;
    for _ in 0..2 {
        assert_eq!(session.run_held(&[&command]).stopped, Some(Stop::Values));
        let fetch = fetched(&mut session);
        session.executor.give_fetch(fetch);
        session.caller.waited += 1;
    }
    store.set_memory_limit(tier_limit(1));
    store.turn();
    assert_eq!(store.tier().cold, 100);
    assert_eq!(session.run_held(&[&command]).done, 1);
    assert!(session.take().starts_with("*300\r\n"));
    while store.turn() {}
    assert_eq!(store.tier().cold, 400, "they may leave memory again");
}

#[test]
fn a_pipeline_asks_for_no_more_at_once_than_one_command_may() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut session = all_cold(directory.path(), (64, 10_000), 100_000);
    let commands: Vec<String> = (0..32).map(|number| format!("GET key:{number}")).collect();
    let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
    let (mut done, mut before) = (0, 0);
    while done < commands.len() {
        let end = session.run_held(&commands[done..]);
        done += end.done;
        if end.stopped == Some(Stop::Values) {
            let fetch = fetched(&mut session);
            session.executor.give_fetch(fetch);
        }
        let now = session.store.tier().fetched;
        assert!(now - before <= 5, "half of the limit holds five values, {} came", now - before);
        before = now;
    }
    let replies: String = (0..32).map(|number| format!("$10000\r\n{}\r\n", text(number, 10_000))).collect();
    assert_eq!(session.take(), replies);
}

#[test]
fn values_go_on_leaving_memory_under_another_policy_while_some_are_cold() {
    for policy in [EvictionPolicy::NoEviction, EvictionPolicy::AllKeysLru, EvictionPolicy::VolatileTtl] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let store = filled(directory.path(), 1000);
        store.set_memory_limit(MemoryLimit { bytes: LIMIT, policy });
        for number in 0..1000 {
            let found = store.get(format!("key:{number}").as_bytes()).expect("a read");
            assert_eq!(found.as_deref(), Some(text(number, 1000).as_bytes()), "{policy:?}, key {number}");
            assert!(store.memory().used <= LIMIT + 2000, "{policy:?}: {:?}", store.memory());
            if number % 50 == 0 {
                store.put(format!("new:{number}").as_bytes(), b"small").expect("there is room for it");
            }
        }
        assert_eq!((store.memory().evicted, store.len().expect("a count")), (0, 1020), "{policy:?}");
    }
}

#[test]
fn a_write_is_refused_although_others_keep_the_store_dirty() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(tiered(directory.path(), 0)).expect("a new store");
    let mut session = Session::new(&store);
    (0..500).for_each(|number| _ = session.run_now(&format!("SET key:{number} short")));
    store.set_memory_limit(tier_limit(store.memory().used - 1000));
    let refused = (0..20).any(|_| {
        store.checkpoint().expect("a checkpoint");
        // Something that needs no memory is written between every checkpoint and the look at what may go now.
        session.run_held(&["EXPIRE key:1 1000"]);
        store.turn();
        session.run_held(&["SET new 1"]).done == 1
    });
    assert!(refused, "it waits for ever");
    assert!(session.take().ends_with("-OOM command not allowed when used memory > 'maxmemory'.\r\n"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// The same steps on a store that keeps everything in memory.
    #[test]
    fn replies_are_those_of_a_store_that_has_all_in_memory(
        steps in proptest::collection::vec(random_step(random_command, 3, 1), 50..400),
    ) {
        let (small, large) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let open = |limit| {
            let directory = if limit == 0 { &large } else { &small };
            Session::new(&Store::open(tiered(directory.path(), limit)).expect("a store"))
        };
        let (mut tiered, mut whole) = (open(LIMIT), open(0));
        let mut cold = 0;
        for step in steps {
            match step {
                Step::Run(command) => prop_assert_eq!(tiered.run(&[&command]), whole.run(&[&command]), "{:.60}", command),
                Step::Transaction(commands) => {
                    let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
                    prop_assert_eq!(tiered.transaction(&commands, &[]), whole.transaction(&commands, &[]));
                }
                Step::Checkpoint => tiered.store.checkpoint().expect("a checkpoint"),
                Step::Turn => _ = tiered.store.turn(),
                Step::Reopen { checkpoint } => {
                    let Session { store, executor, .. } = tiered;
                    drop(executor);
                    let closed = if checkpoint { store.close() } else { store.close_without_checkpoint() };
                    closed.expect("a close");
                    tiered = open(LIMIT);
                }
            }
            cold = cold.max(tiered.store.tier().cold);
        }
        for number in 0..200 {
            let command = format!("GET k{number}");
            prop_assert_eq!(tiered.run(&[&command]), whole.run(&[&command]));
        }
    }
}
