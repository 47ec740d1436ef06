//! A lazy start: the store answers before its entries are loaded, and no answer shows it.

mod support;

use bowline::exec::Stop;
use bowline::{Error, EvictionPolicy, MemoryLimit, Options, Restart, Store};
use proptest::prelude::*;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use support::{HandClock, Session, Step, options, random_command, random_step};

const NOW_MS: u64 = 1_800_000_000_000;
const KEYS: u32 = 1000;

fn lazy_at(directory: &Path, clock: &Arc<HandClock>) -> Options {
    let mut options = options(directory, clock);
    options.restart = Restart::Lazy;
    options
}

fn lazy(directory: &Path) -> Store {
    Store::open(lazy_at(directory, &HandClock::at(NOW_MS))).expect("a lazy start")
}

fn eager(directory: &Path) -> Store {
    Store::open(options(directory, &HandClock::at(NOW_MS))).expect("an eager start")
}

fn key(number: u32) -> Vec<u8> {
    format!("key:{number}").into_bytes()
}

fn value(number: u32) -> Vec<u8> {
    format!("value of {number} ").repeat(1 + number as usize % 20).into_bytes()
}

/// A directory with a closed store of [`KEYS`] keys, all in its checkpoint.
fn filled() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = eager(directory.path());
    (0..KEYS).for_each(|number| _ = store.put(&key(number), &value(number)).expect("a put"));
    store.close().expect("a clean close");
    directory
}

fn done(store: &Store) -> usize {
    store.loading().segments_done
}

fn check_all(store: &Store) {
    for number in 0..KEYS {
        assert_eq!(store.get(&key(number)).expect("a read"), Some(value(number)), "key {number}");
    }
}

#[test]
fn a_lazy_start_reads_nothing_but_what_is_asked_for() {
    let directory = filled();
    let store = lazy(directory.path());
    assert_eq!((done(&store), store.loading().segments), (0, 8));
    assert_eq!(store.get(&key(7)).expect("a read"), Some(value(7)));
    assert_eq!(store.get_entry(&key(7)).expect("a read").expect("an entry").value, value(7));
    assert_eq!(done(&store), 1);
    check_all(&store);
    assert!(store.loading().is_done() && store.loading().bytes_done == store.loading().bytes_total);
    assert_eq!(store.len().expect("a count"), KEYS as usize);
}

#[test]
fn turns_load_what_nobody_asks_for() {
    let directory = filled();
    let store = lazy(directory.path());
    for turns in 0..8 {
        assert_eq!(done(&store), turns);
        assert!(store.turn());
    }
    assert!(store.loading().is_done());
    check_all(&store);
}

#[test]
fn an_eager_start_and_a_start_without_a_checkpoint_have_nothing_left_to_load() {
    let directory = filled();
    assert!(eager(directory.path()).loading().is_done());
    let empty = tempfile::tempdir().expect("a temporary directory");
    let store = lazy(empty.path());
    assert!(store.loading().is_done());
    store.put(b"a", b"1").expect("a put");
    store.close_without_checkpoint().expect("a close");
    let store = lazy(empty.path());
    assert!(store.loading().is_done(), "all of it came from the log");
    assert_eq!(store.get(b"a").expect("a read").as_deref(), Some(&b"1"[..]));
}

#[test]
fn a_transaction_and_a_watch_load_all_their_segments_first() {
    let directory = filled();
    let store = lazy(directory.path());
    let mut session = Session::new(&store);
    let caller = session.caller;
    let watched = session.executor.watch(&caller, b"key:1");
    let reply = session.transaction(&["APPEND key:1 x", "STRLEN key:2", "DEL key:3", "EXISTS key:3 key:4"], &[watched]);
    let lengths = [value(1).len() + 1, value(2).len()];
    assert_eq!(reply, format!("*4\r\n:{}\r\n:{}\r\n:1\r\n:1\r\n", lengths[0], lengths[1]));
    let watched = session.executor.watch(&caller, b"key:5");
    store.put(b"key:5", b"changed").expect("a put");
    assert_eq!(session.transaction(&["SET key:6 never"], &[watched]), "*-1\r\n");
    assert_eq!(store.get(&key(6)).expect("a read"), Some(value(6)));
}

#[test]
fn a_pipeline_runs_as_far_as_its_segments_are_there_and_its_caller_is_woken_for_the_rest() {
    let directory = filled();
    let store = lazy(directory.path());
    let mut session = Session::new(&store);
    let woken = Arc::new(AtomicUsize::new(0));
    let count = woken.clone();
    session.executor.set_waker(Arc::new(move || _ = count.fetch_add(1, Ordering::SeqCst)));
    let commands = ["GET key:1", "STRLEN key:2", "DBSIZE", "GET missing"];
    let (mut ran, mut stops) = (0, 0);
    while ran < commands.len() {
        let before = done(&store);
        let end = session.run_held(&commands[ran..]);
        ran += end.done;
        if end.stopped == Some(Stop::Values) {
            stops += 1;
            let fetch = session.executor.take_fetch().expect("what it waits for");
            assert!(fetch.is_done() && done(&store) > before, "without threads it is there at once");
        }
    }
    assert_eq!(woken.load(Ordering::SeqCst), stops);
    assert!((2..=3).contains(&stops), "{stops} stops: one for each segment, one for all");
    let text = String::from_utf8(value(1)).expect("text");
    let expected = format!("${}\r\n{text}\r\n:{}\r\n:{KEYS}\r\n$-1\r\n", text.len(), value(2).len());
    assert_eq!(session.take(), expected);
}

#[test]
fn commands_over_whole_databases_see_every_key() {
    let directory = filled();
    for commands in [
        vec!["DBSIZE"],
        vec!["SWAPDB 0 1", "DBSIZE", "GET key:1"],
        vec!["FLUSHDB", "DBSIZE", "GET key:1"],
        vec!["FLUSHALL", "EXISTS key:1 key:2", "SET key:1 new", "DBSIZE"],
        vec!["MOVE key:1 1", "RENAME key:2 key:3", "DBSIZE", "COPY key:4 key:5 REPLACE", "GET key:5"],
    ] {
        let run = |restart: Restart| {
            let copy = tempfile::tempdir().expect("a temporary directory");
            copy_directory(directory.path(), copy.path());
            let mut options = options(copy.path(), &HandClock::at(NOW_MS));
            options.restart = restart;
            let mut session = Session::new(&Store::open(options).expect("a start"));
            (session.run(&commands), session.run(&["DBSIZE"]))
        };
        assert_eq!(run(Restart::Lazy), run(Restart::Eager), "{commands:?}");
    }
    let store = lazy(directory.path());
    assert_eq!(Session::new(&store).run(&["KEYS *"]).matches("key:").count(), KEYS as usize);
    let store = (drop(store), lazy(directory.path())).1;
    assert_eq!(store.iter().filter(Result::is_ok).count(), KEYS as usize);
    let store = (drop(store), lazy(directory.path())).1;
    store.clear().expect("a flush");
    assert!(store.is_empty().expect("a count"));
}

fn copy_directory(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("its type").is_dir() {
            std::fs::create_dir(&target).expect("a directory");
            copy_directory(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

/// Changes some keys while most segments are in the file only; returns what to expect of them.
fn change_some(store: &Store) -> Vec<(u32, Option<Vec<u8>>)> {
    let mut session = Session::new(store);
    session.run_held(&["SET key:1 anew", "DEL key:2", "APPEND key:3 more", "EXPIRE key:4 100", "SETRANGE key:5 2 XY"]);
    let appended = [&value(3)[..], b"more"].concat();
    let mut patched = value(5);
    patched[2..4].copy_from_slice(b"XY");
    vec![(1, Some(b"anew".to_vec())), (2, None), (3, Some(appended)), (4, Some(value(4))), (5, Some(patched))]
}

fn check_changed(store: &Store, changed: &[(u32, Option<Vec<u8>>)]) {
    for number in 0..KEYS {
        let expected = changed.iter().find(|(n, _)| *n == number).map_or(Some(value(number)), |(_, v)| v.clone());
        assert_eq!(store.get(&key(number)).expect("a read"), expected, "key {number}");
    }
    assert!(store.get_entry(&key(4)).expect("a read").expect("an entry").expires.is_some());
}

#[test]
fn a_checkpoint_while_segments_are_missing_has_them_and_what_has_changed() {
    let directory = filled();
    let mut options = lazy_at(directory.path(), &HandClock::at(NOW_MS));
    options.segments = 64;
    let store = Store::open(options.clone()).expect("a lazy start");
    let changed = change_some(&store);
    assert!(done(&store) <= 5, "{:?}", store.loading());
    store.checkpoint().expect("a checkpoint");
    assert!(!store.loading().is_done(), "{:?}", store.loading());
    assert_eq!(store.checkpoints().entries, u64::from(KEYS) - 1);
    // What is loaded after it comes from it.
    check_changed(&store, &changed);
    store.put(b"later", b"1").expect("a put");
    store.close().expect("a close");
    let store = Store::open(options).expect("a lazy start");
    check_changed(&store, &changed);
    assert_eq!(store.get(b"later").expect("a read").as_deref(), Some(&b"1"[..]));
    store.close_without_checkpoint().expect("a close");
    let mut options = self::options(directory.path(), &HandClock::at(NOW_MS));
    options.segments = 64;
    check_changed(&Store::open(options).expect("an eager start"), &changed);
}

#[test]
fn the_tail_of_the_log_loads_only_the_segments_that_it_changes() {
    for threads in [false, true] {
        let directory = filled();
        let mut options = lazy_at(directory.path(), &HandClock::at(NOW_MS));
        options.segments = 64;
        let store = Store::open(options.clone()).expect("a lazy start");
        let changed = change_some(&store);
        store.close_without_checkpoint().expect("a close");
        options.threads = threads;
        let store = Store::open(options).expect("a lazy start");
        assert!(threads || done(&store) <= 5, "{:?}", store.loading());
        check_changed(&store, &changed);
    }
}

#[test]
fn effects_over_whole_databases_in_the_tail_of_the_log_find_everything() {
    for threads in [false, true] {
        let directory = filled();
        let mut session = Session::new(&lazy(directory.path()));
        session.run(&["MOVE key:1 1", "SWAPDB 0 1", "SET key:2 new", "FLUSHDB", "SWAPDB 1 0", "RENAME key:3 key:4"]);
        let Session { store, executor, .. } = session;
        drop(executor);
        store.close_without_checkpoint().expect("a close");
        let mut options = lazy_at(directory.path(), &HandClock::at(NOW_MS));
        options.threads = threads;
        let store = Store::open(options).expect("a lazy start");
        assert_eq!(store.len().expect("a count"), KEYS as usize - 2, "one was moved away, one renamed over another");
        assert_eq!(store.get(&key(4)).expect("a read"), Some(value(3)));
    }
}

#[test]
fn what_expired_before_it_was_loaded_is_gone() {
    let directory = filled();
    let store = lazy(directory.path());
    let expiring: Vec<String> = (0..50).map(|number| format!("EXPIRE key:{number} 100")).collect();
    Session::new(&store).run(&expiring.iter().map(String::as_str).collect::<Vec<_>>());
    store.close().expect("a close");
    let later = HandClock::at(NOW_MS + 200_000);
    let store = Store::open(lazy_at(directory.path(), &later)).expect("a lazy start");
    assert_eq!(store.get(&key(3)).expect("a read"), None);
    assert!(!store.loading().is_done());
    assert_eq!(Session::new(&store).run(&["EXISTS key:4 key:60", "DBSIZE"]), format!(":1\r\n:{}\r\n", KEYS - 50));
    store.close_without_checkpoint().expect("a close");
    let store = Store::open(lazy_at(directory.path(), &later)).expect("a lazy start");
    assert_eq!(store.len().expect("a count"), KEYS as usize - 50);
}

#[test]
fn a_store_may_close_before_everything_is_loaded() {
    let directory = filled();
    for threads in [false, true, true] {
        let mut options = lazy_at(directory.path(), &HandClock::at(NOW_MS));
        options.threads = threads;
        let store = Store::open(options).expect("a lazy start");
        let other = store.clone();
        store.put(&key(1), &value(1)).expect("a put");
        store.close().expect("a close");
        match other.get(&key(900)) {
            Ok(found) => assert_eq!(found, Some(value(900))),
            Err(error) => assert!(matches!(error, Error::Closed), "{error}"),
        }
    }
    check_all(&lazy(directory.path()));
}

/// Turns a byte of a value in the block file.
fn damage(directory: &Path, number: u32) {
    let path = directory.join("store.blocks");
    let mut bytes = std::fs::read(&path).expect("the block file");
    let needle = [key(number), value(number)].concat();
    let at = bytes.windows(needle.len()).position(|window| window == needle).expect("its record");
    bytes[at + needle.len() - 1] ^= 1;
    std::fs::write(&path, &bytes).expect("the block file, damaged");
}

#[test]
fn a_segment_that_is_damaged_is_not_served_and_stops_the_store() {
    let directory = filled();
    damage(directory.path(), 500);
    let store = lazy(directory.path());
    let errors: Vec<Error> = (0..KEYS).filter_map(|number| store.get(&key(number)).err()).collect();
    assert!(matches!(errors.first(), Some(Error::NotLoaded { .. })), "{errors:?}");
    assert!(errors[0].to_string().contains("store.blocks"), "{}", errors[0]);
    assert!(store.log().is_poisoned());
    let reply = {
        let mut session = Session::new(&store);
        session.run_held(&["GET key:500", "DBSIZE"]);
        String::from_utf8_lossy(session.replies.ready(bowline::Version::MAX)).into_owned()
    };
    assert_eq!(reply.matches("-ERR the entries cannot be loaded").count(), 2, "{reply}");
    assert!(Store::open(options(directory.path(), &HandClock::at(NOW_MS))).is_err() || store.get(&key(500)).is_err());
}

#[test]
fn a_damaged_file_is_not_given_up_while_it_alone_has_entries() {
    let directory = filled();
    damage(directory.path(), 500);
    let store = lazy(directory.path());
    while store.scrubbing().damage == 0 {
        assert!(store.scrub(1 << 20) > 0 || store.scrubbing().damage > 0, "the scrub finds it");
    }
    assert!(done(&store) == 0 && !store.log().is_poisoned(), "it is named, nothing else");
    // While it waits for the log the damaged segment is loaded: the store stops then.
    let _ = store.checkpoint();
    drop(store);
    // Another start for each key: the first that meets the damage stops its store.
    let is_read = |number: &u32| match lazy(directory.path()).get(&key(*number)) {
        Ok(found) => found == Some(value(*number)) || panic!("key {number} is lost without a word"),
        Err(_) => false,
    };
    let read = (0..40).filter(is_read).count();
    assert!((1..40).contains(&read), "{read} of 40 keys are in sound segments");
}

#[test]
fn threads_load_while_others_read_write_and_check_point() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let open = |restart| {
        let mut options = Options::new(directory.path());
        (options.restart, options.durability) = (restart, bowline::Durability::None);
        Store::open(options).expect("a store")
    };
    let total = 40_000;
    let store = open(Restart::Eager);
    (0..total).for_each(|number| _ = store.put(&key(number), &value(number)).expect("a put"));
    store.close().expect("a close");
    for round in 0..4 {
        let store = open(Restart::Lazy);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let store = &store;
                scope.spawn(move || {
                    for number in (thread..total).step_by(37) {
                        let number = (number * 7919 + round) % total;
                        assert_eq!(store.get(&key(number)).expect("a read"), Some(value(number)), "key {number}");
                        store.put(&key(number), &value(number)).expect("a put");
                    }
                });
            }
            store.checkpoint().expect("a checkpoint");
            store.checkpoint().expect("another checkpoint");
        });
        assert_eq!(store.len().expect("a count"), total as usize);
        assert!(store.loading().is_done());
        let closed = if round % 2 == 0 { store.close() } else { store.close_without_checkpoint() };
        closed.expect("a close");
    }
    let store = open(Restart::Lazy);
    for number in 0..total {
        assert_eq!(store.get(&key(number)).expect("a read"), Some(value(number)), "key {number}");
    }
}

#[test]
fn what_is_not_loaded_is_counted_as_the_checkpoint_had_it() {
    let directory = filled();
    let mut session = Session::new(&lazy(directory.path()));
    session.run(&["MOVE key:1 1"]);
    let Session { store, executor, .. } = session;
    drop(executor);
    store.close().expect("a close");
    let store = lazy(directory.path());
    let sizes = [(0, KEYS as usize - 1, 0), (1, 1, 0)];
    assert_eq!((done(&store), store.database_sizes(), store.statistics().keys), (0, sizes.to_vec(), KEYS as usize));
    assert_eq!(Session::new(&store).run_now("DEL key:2"), ":1\r\n");
    assert_eq!((store.database_sizes()[0].1, store.statistics().keys), (KEYS as usize - 2, KEYS as usize - 1));
    while store.turn() {}
    assert!(store.loading().is_done());
    assert_eq!((store.database_sizes()[0].1, store.database_sizes()[1].1), (KEYS as usize - 2, 1));
}

#[test]
fn emptying_everything_reads_nothing_first() {
    for command in ["FLUSHALL", "FLUSHDB"] {
        let directory = filled();
        // What would be read is damaged: reading it would stop the store.
        (0..KEYS).step_by(50).for_each(|number| damage(directory.path(), number));
        let store = lazy(directory.path());
        let mut session = Session::new(&store);
        assert_eq!((done(&store), session.run_now(command)), (0, "+OK\r\n".to_owned()));
        assert!(store.loading().is_done() && store.database_sizes().is_empty());
        assert_eq!(
            session.run(&["SET key:7 new", "GET key:7", "GET key:8", "DBSIZE"]),
            "+OK\r\n$3\r\nnew\r\n$-1\r\n:1\r\n"
        );
        drop(session);
        store.close().expect("a close");
        let store = eager(directory.path());
        assert_eq!((store.len().expect("a count"), store.get(&key(7)).expect("a read")), (1, Some(b"new".to_vec())));
    }
}

#[test]
fn emptying_one_database_leaves_the_others_in_the_file() {
    for (checkpoint, threads) in [(false, false), (true, false), (false, true)] {
        let directory = filled();
        let mut session = Session::new(&lazy(directory.path()));
        session.run(&["MOVE key:1 1", "MOVE key:2 1"]);
        let Session { store, executor, .. } = session;
        drop(executor);
        store.close().expect("a close");
        let store = lazy(directory.path());
        assert_eq!(Session::new(&store).run_now("FLUSHDB"), "+OK\r\n");
        assert_eq!((done(&store), store.database_sizes()), (0, vec![(1, 2, 0)]));
        if checkpoint {
            store.checkpoint().expect("a checkpoint");
        }
        store.put(&key(3), b"anew").expect("a put");
        let check = |store: &Store| {
            assert_eq!(store.len().expect("a count"), 1);
            assert_eq!(store.get(&key(3)).expect("a read").as_deref(), Some(&b"anew"[..]));
            assert_eq!(store.get(&key(4)).expect("a read"), None);
            assert_eq!(store.database_sizes(), [(0, 1, 0), (1, 2, 0)]);
            assert_eq!(store.statistics().keys, 3, "nothing of what was emptied came into memory");
        };
        check(&store);
        store.close_without_checkpoint().expect("a close");
        let mut options = lazy_at(directory.path(), &HandClock::at(NOW_MS));
        options.threads = threads;
        let store = Store::open(options).expect("a lazy start");
        check(&store);
        store.close().expect("a close");
        check(&eager(directory.path()));
    }
}

/// Also commands over whole databases.
fn command() -> BoxedStrategy<String> {
    let whole = prop_oneof![4 => Just("DBSIZE"), 1 => Just("FLUSHDB"), 1 => Just("FLUSHALL")];
    prop_oneof![46 => random_command(), 1 => whole.prop_map(str::to_owned)].boxed()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// The same steps on a store that is never closed and has all in memory. `limit`: with the policy "tier", so that values stay in the file.
    #[test]
    fn replies_are_those_of_a_store_that_has_all_in_memory(
        limit in prop_oneof![Just(0usize), Just(96 * 1024)],
        steps in proptest::collection::vec(random_step(command, 1, 3), 50..300),
    ) {
        let (small, large) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let open = || {
            let mut options = lazy_at(small.path(), &HandClock::at(NOW_MS));
            options.memory_limit = MemoryLimit { bytes: limit, policy: EvictionPolicy::Tier };
            options.segments = 32;
            Session::new(&Store::open(options).expect("a store"))
        };
        let (mut lazy, mut whole) = (open(), Session::new(&eager(large.path())));
        for step in steps {
            match step {
                Step::Run(command) => {
                    // Without turns, which would load everything soon; what was written is asked to be durable at the end.
                    let reply = lazy.run_now(&command);
                    prop_assert_eq!(reply, whole.run(&[&command]), "{:.60}", command);
                }
                Step::Transaction(commands) => {
                    let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
                    prop_assert_eq!(lazy.transaction(&commands, &[]), whole.transaction(&commands, &[]));
                }
                Step::Checkpoint => lazy.store.checkpoint().expect("a checkpoint"),
                Step::Turn => _ = lazy.store.turn(),
                Step::Reopen { checkpoint } => {
                    let Session { store, executor, .. } = lazy;
                    drop(executor);
                    let closed = if checkpoint { store.close() } else { store.close_without_checkpoint() };
                    closed.expect("a close");
                    lazy = open();
                }
            }
        }
        for number in 0..200 {
            let command = format!("GET k{number}");
            prop_assert_eq!(lazy.run(&[&command]), whole.run(&[&command]));
        }
    }
}
