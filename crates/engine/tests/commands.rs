//! Commands through the executor: replies, what they wait for, transactions. Their details against a real Redis are
//! compared in `tests/compat` at the root of the repository.

mod support;

use bowline::{Store, Version};
use support::{HandClock, Session, options};

struct Fixture {
    _directory: tempfile::TempDir,
    clock: std::sync::Arc<HandClock>,
    store: Store,
    session: Session,
}

fn fixture() -> Fixture {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let clock = HandClock::at(1_700_000_000_000);
    let store = Store::open(options(directory.path(), &clock)).expect("a new store");
    let session = Session::new(&store);
    Fixture { _directory: directory, clock, store, session }
}

#[test]
fn a_pipeline_answers_in_order() {
    let mut fixture = fixture();
    let replies = fixture.session.run(&[
        "set a 1",
        "get a",
        "incr a",
        "get a",
        "append a x",
        "get a",
        "incr a",
        "strlen a",
        "mget a b a",
        "del a b",
        "get a",
    ]);
    let expected = "+OK\r\n$1\r\n1\r\n:2\r\n$1\r\n2\r\n:2\r\n$2\r\n2x\r\n\
                    -ERR value is not an integer or out of range\r\n:2\r\n*3\r\n$2\r\n2x\r\n$-1\r\n$2\r\n2x\r\n:1\r\n$-1\r\n";
    assert_eq!(replies, expected);
}

#[test]
fn replies_of_every_command_over_whole_databases() {
    let mut fixture = fixture();
    let run = |session: &mut Session, command: &str| session.run(&[command]);
    let session = &mut fixture.session;
    assert_eq!(run(session, "dbsize"), ":0\r\n");
    assert_eq!(run(session, "randomkey"), "$-1\r\n");
    assert_eq!(run(session, "mset k1 a k2 b other c"), "+OK\r\n");
    assert_eq!(run(session, "dbsize"), ":3\r\n");
    assert_eq!(run(session, "keys other"), "*1\r\n$5\r\nother\r\n");
    assert!(run(session, "keys k*").starts_with("*2\r\n"));
    assert!(run(session, "scan 0 match k* count 100").starts_with("*2\r\n$1\r\n0\r\n*2\r\n"));
    assert!(run(session, "randomkey").starts_with('$'));
    assert_eq!(run(session, "swapdb 0 1"), "+OK\r\n");
    assert_eq!(run(session, "dbsize"), ":0\r\n");
    session.caller.database = 1;
    assert_eq!(run(session, "dbsize"), ":3\r\n");
    assert_eq!(run(session, "move k1 0"), ":1\r\n");
    assert_eq!(run(session, "copy k2 k2 db 0"), ":1\r\n");
    assert_eq!(run(session, "flushdb"), "+OK\r\n");
    assert_eq!(run(session, "dbsize"), ":0\r\n");
    session.caller.database = 0;
    assert_eq!(run(session, "dbsize"), ":2\r\n");
    assert_eq!(run(session, "flushall async"), "+OK\r\n");
    assert_eq!(run(session, "dbsize"), ":0\r\n");
}

#[test]
fn a_scan_in_small_steps_meets_every_key() {
    let mut fixture = fixture();
    for n in 0..2000 {
        fixture.session.run(&[&format!("set key:{n} x")]);
    }
    let (mut cursor, mut met) = ("0".to_owned(), std::collections::BTreeSet::new());
    loop {
        let reply = fixture.session.run(&[&format!("scan {cursor} count 7")]);
        let mut lines = reply.split("\r\n");
        cursor = lines.nth(2).expect("a cursor").to_owned();
        met.extend(lines.filter(|line| line.starts_with("key:")).map(str::to_owned));
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(met.len(), 2000);
}

/// History 22: a reply that tells of an uncommitted write waits for its commit, whatever command it is.
#[test]
fn every_reply_that_tells_of_an_uncommitted_write_is_held() {
    for (write, read) in [
        ("set k v", "get k"),
        ("set k v", "exists k"),
        ("set k v", "setnx k w"),
        ("set k v", "incr k"),
        ("set k v", "dbsize"),
        ("set k v", "keys *"),
        ("set k v", "scan 0"),
        ("set k v", "randomkey"),
        ("set k v", "type k"),
        ("set k v", "ttl k"),
        ("set k v", "bl.entry k"),
        ("set k v", "object encoding k"),
        ("set k v", "memory usage k"),
        ("del old", "get old"),
        ("del old", "exists old"),
        ("flushdb", "get old"),
        ("swapdb 0 1", "get old"),
        ("rename old new", "get old"),
        ("rename old new", "get new"),
        ("expire old 0", "get old"),
    ] {
        let mut fixture = fixture();
        fixture.session.run(&["set old x"]);
        let mut reader = Session::new(&fixture.store);
        let before = fixture.store.log().commit();
        fixture.session.run_held(&[write]);
        reader.run_held(&[read]);
        assert!(reader.replies.ready(before).is_empty(), "{read} after an uncommitted {write} must wait");
        assert!(reader.replies.waits_for(before).is_some());
        assert!(!reader.take().is_empty());
        // And once it is committed, the same read does not wait any more.
        reader.run_held(&[read]);
        if !matches!(read, "incr k" | "setnx k w") {
            assert_eq!(reader.replies.waits_for(fixture.store.log().commit()), None, "{read} of a committed state");
        }
    }
}

#[test]
fn a_read_of_an_old_key_does_not_wait_for_a_write_of_another() {
    let mut fixture = fixture();
    fixture.session.run(&["set old x", "set other y"]);
    let commit = fixture.store.log().commit();
    fixture.session.run_held(&["set other z"]);
    let mut reader = Session::new(&fixture.store);
    reader.run_held(&["get old"]);
    assert_eq!(reader.replies.ready(commit), b"$1\r\nx\r\n");
}

/// History 23: whoever meets an expired key first removes it by an effect, and says so only when that is committed.
#[test]
fn a_reader_that_finds_a_key_expired_waits_until_its_removal_is_committed() {
    for read in ["get k", "mget a k", "exists k", "dbsize", "keys *", "ttl k", "set k w nx", "strlen k", "randomkey"] {
        let mut fixture = fixture();
        fixture.session.run(&["set k v px 100", "set a b"]);
        fixture.clock.advance(100);
        let commit = fixture.store.log().commit();
        fixture.session.run_held(&[read]);
        assert!(fixture.session.replies.waits_for(commit).is_some(), "{read} must wait for the removal");
        let reply = fixture.session.take();
        assert!(!reply.contains("\r\nv\r\n"), "{read} showed the expired value: {reply}");
        assert!(fixture.session.run(&["get k"]) == "$-1\r\n" || read.starts_with("set"));
    }
}

#[test]
fn expired_keys_are_removed_without_anybody_asking() {
    let mut fixture = fixture();
    for n in 0..500 {
        fixture.session.run(&[&format!("set key:{n} x px 50")]);
    }
    fixture.clock.advance(50);
    while fixture.store.turn() {}
    assert_eq!(fixture.store.statistics().keys, 0);
    assert_eq!(fixture.store.statistics().expired, 500);
}

#[test]
fn a_transaction_is_one_record_with_one_version() {
    let mut fixture = fixture();
    let replies =
        fixture.session.transaction(&["set a 1", "incr a", "incr b", "get a", "incr a x"].map(|c| c)[..4], &[]);
    assert_eq!(replies, "*4\r\n+OK\r\n:2\r\n:1\r\n$1\r\n2\r\n");
    let version = |session: &mut Session, key: &str| {
        let reply = session.run(&[&format!("bl.entry {key}")]);
        reply.split("\r\n").nth(3).expect("a version").to_owned()
    };
    assert_eq!(version(&mut fixture.session, "a"), version(&mut fixture.session, "b"));
}

#[test]
fn an_error_inside_a_transaction_leaves_the_rest() {
    let mut fixture = fixture();
    let replies = fixture.session.transaction(&["set a x", "incr a", "set b y"], &[]);
    assert_eq!(replies, "*3\r\n+OK\r\n-ERR value is not an integer or out of range\r\n+OK\r\n");
}

#[test]
fn a_watched_key_that_changed_refuses_the_transaction() {
    let mut fixture = fixture();
    fixture.session.run(&["set k 1"]);
    for (change, refused) in [
        ("get k", false),
        ("set k 1", true),
        ("expire k 100", true),
        ("del k", true),
        ("set k 2", true),
        ("swapdb 0 1", true),
        ("swapdb 0 1", true),
        ("flushall", true),
    ] {
        let caller = fixture.session.caller;
        let watched = fixture.session.executor.watch(&caller, b"k");
        Session::new(&fixture.store).run(&[change]);
        let replies = fixture.session.transaction(&["get k"], &[watched]);
        assert_eq!(replies == "*-1\r\n", refused, "after {change}: {replies}");
    }
}

#[test]
fn a_watched_key_that_expires_refuses_the_transaction() {
    let mut fixture = fixture();
    fixture.session.run(&["set k 1 px 100"]);
    let caller = fixture.session.caller;
    let watched = fixture.session.executor.watch(&caller, b"k");
    fixture.clock.advance(100);
    assert_eq!(fixture.session.transaction(&["set other 1"], &[watched]), "*-1\r\n");
}

#[test]
fn compare_and_set_tells_the_new_version() {
    let mut fixture = fixture();
    let reply = fixture.session.run(&["bl.cas k 0 first"]);
    let version = reply.trim_start_matches(':').trim_end().to_owned();
    assert_eq!(fixture.session.run(&["bl.cas k 0 second"]), "$-1\r\n");
    let reply = fixture.session.run(&[&format!("bl.cas k {version} third"), "get k"]);
    let mut lines = reply.split("\r\n");
    let newer = lines.next().expect("a version").trim_start_matches(':').to_owned();
    assert!(newer.parse::<u64>().expect("a number") > version.parse::<u64>().expect("a number"));
    assert_eq!(lines.nth(1), Some("third"));
    assert!(fixture.session.run(&["bl.entry k"]).contains(&format!(":{newer}\r\n")));
    assert!(Version(newer.parse().expect("a number")).time_ms() >= 1_700_000_000_000);
}

#[test]
fn copies_of_large_values_take_the_room_that_they_need() {
    let mut fixture = fixture();
    let value = "x".repeat(200_000);
    fixture.session.run(&[&format!("set a {value}")]);
    let copies: Vec<String> = (0..20).map(|n| format!("copy a copy:{n}")).collect();
    let copies: Vec<&str> = copies.iter().map(String::as_str).collect();
    assert_eq!(fixture.session.run(&copies), ":1\r\n".repeat(20));
    assert_eq!(
        fixture.session.transaction(&["copy a b", "copy b c", "strlen c"], &[]),
        "*3\r\n:1\r\n:1\r\n:200000\r\n"
    );
}

#[test]
fn a_transaction_may_be_about_several_databases() {
    let mut fixture = fixture();
    let mut transaction = bowline::exec::Transaction::default();
    let push = |transaction: &mut bowline::exec::Transaction, words: &[&str]| {
        let (mut buffer, mut ranges) = (Vec::new(), Vec::new());
        for word in words {
            ranges.push(bowline_resp::ArgRange { start: buffer.len() as u32, len: word.len() as u32 });
            buffer.extend_from_slice(word.as_bytes());
        }
        let command = bowline::command::lookup(words[0].as_bytes()).expect("a command");
        assert!(transaction.push(command, bowline_resp::Args::new(&buffer, &ranges)));
    };
    push(&mut transaction, &["set", "k", "zero"]);
    transaction.select(1, 0);
    push(&mut transaction, &["set", "k", "one"]);
    transaction.select(0, 1);
    push(&mut transaction, &["get", "k"]);
    let caller = fixture.session.caller;
    fixture.session.executor.transaction(&caller, &transaction, &[], &mut fixture.session.replies);
    assert_eq!(fixture.session.take(), "*3\r\n+OK\r\n+OK\r\n$4\r\nzero\r\n");
    fixture.session.caller.database = 1;
    assert_eq!(fixture.session.run(&["get k"]), "$3\r\none\r\n");
}

#[test]
fn a_run_stops_where_too_many_replies_wait_and_says_who_failed() {
    let mut fixture = fixture();
    fixture.session.run(&[&format!("set big {}", "x".repeat(1000)), "incr big"]);
    let failures = fixture.session.executor.take_failures();
    assert_eq!(failures.len(), 1);
    assert_eq!((failures[0].command.info.name, &failures[0].code[..4]), ("incr", &b"ERR\0"[..]));
    fixture.session.executor.set_reply_bytes_max(2500);
    let end = fixture.session.run_held(&["get big"; 20]);
    assert_eq!((end.done, end.stopped), (3, Some(bowline::exec::Stop::Replies)));
}

#[test]
fn a_flush_that_follows_other_changes_in_its_record_can_be_replayed() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let clock = HandClock::at(1_700_000_000_000);
    let store = Store::open(options(directory.path(), &clock)).expect("a new store");
    let mut session = Session::new(&store);
    session.run(&["set k 1", "set expires x px 10"]);
    session.transaction(&["append k 2", "del k", "flushall", "set k new"], &[]);
    session.run(&["set expires x px 10"]);
    clock.advance(20);
    session.run(&["flushall", "set last x"]);
    drop(session);
    store.close().expect("a close");
    let store = Store::open(options(directory.path(), &clock)).expect("the same store");
    assert_eq!(Session::new(&store).run(&["dbsize", "get last"]), ":1\r\n$1\r\nx\r\n");
}

#[test]
fn a_number_that_append_or_setrange_made_is_a_number() {
    let mut fixture = fixture();
    let replies = fixture.session.run(&[
        "set a -1",
        "append a 12",
        "decr a",
        "set b 10",
        "setrange b 1 5",
        "incrby b 5",
        "append a x",
        "incr a",
    ]);
    let expected = "+OK\r\n:4\r\n:-113\r\n+OK\r\n:2\r\n:20\r\n:5\r\n-ERR value is not an integer or out of range\r\n";
    assert!(replies.starts_with(expected), "{replies}");
}

#[test]
fn the_same_unit_of_time_twice_counts_as_the_last() {
    let mut fixture = fixture();
    let replies = fixture.session.run(&[
        "set k v ex 1 EX 100",
        "ttl k",
        "getex k px abc px 50000",
        "ttl k",
        "getex k persist persist",
        "ttl k",
        "set k v ex 1 px 1",
        "getex k ex 1 persist",
        "set k v ex abc ex 0",
    ]);
    let expected = "+OK\r\n:100\r\n$1\r\nv\r\n:50\r\n$1\r\nv\r\n:-1\r\n-ERR syntax error\r\n-ERR syntax error\r\n\
                    -ERR invalid expire time in 'set' command\r\n";
    assert_eq!(replies, expected);
}

#[test]
fn subcommands_and_numbers_are_checked_as_redis_does() {
    let mut fixture = fixture();
    for (command, reply) in [
        ("object frob k", "-ERR unknown subcommand 'frob'. Try OBJECT HELP.\r\n"),
        ("object freq", "-ERR wrong number of arguments for 'object|freq' command\r\n"),
        ("memory usage", "-ERR wrong number of arguments for 'memory|usage' command\r\n"),
        ("memory usage k samples -1", "-ERR syntax error\r\n"),
        ("memory usage k samples 1 samples x", "-ERR value is not an integer or out of range\r\n"),
        ("memory usage k samples 0 samples 5", "$-1\r\n"),
        ("move k 99999999999", "-ERR value is out of range, value must between -2147483648 and 2147483647\r\n"),
        ("move k 99", "-ERR DB index is out of range\r\n"),
        ("swapdb 99999999999 0", "-ERR invalid first DB index\r\n"),
        ("scan +0", "*2\r\n$1\r\n0\r\n*0\r\n"),
        ("scan -+1", "-ERR invalid cursor\r\n"),
        ("scan 18446744073709551616", "-ERR invalid cursor\r\n"),
    ] {
        assert_eq!(fixture.session.run(&[command]), reply, "{command}");
    }
}

#[test]
fn a_transaction_is_not_refused_for_a_setrange_that_cannot_be() {
    let mut fixture = fixture();
    let replies = fixture.session.transaction(&["copy a b", "setrange c 600000000 x", "copy a d"], &[]);
    assert_eq!(replies, "*3\r\n:0\r\n-ERR string exceeds maximum allowed size (proto-max-bulk-len)\r\n:0\r\n");
}

#[test]
fn a_version_stands_where_its_command_answers() {
    let mut fixture = fixture();
    let reply = fixture.session.run(&["set a 1", "bl.cas k 0 v", "get a"]);
    let lines: Vec<&str> = reply.split("\r\n").collect();
    assert_eq!((lines[0], lines[2], lines[3]), ("+OK", "$1", "1"));
    let first = lines[1].strip_prefix(':').expect("a version").to_owned();
    let reply = fixture.session.transaction(&["set b 1", &format!("bl.cas k {first} w"), "bl.entry b"], &[]);
    let lines: Vec<&str> = reply.split("\r\n").collect();
    assert_eq!((lines[0], lines[1], lines[3], lines[5]), ("*3", "+OK", "*10", "version"));
    assert_eq!(lines[2], lines[6], "one transaction, one version");
}

#[test]
fn a_scan_may_ask_for_any_count() {
    let mut fixture = fixture();
    fixture.session.run(&["set a 1"]);
    let reply = fixture.session.run(&["scan 0 count 9223372036854775807"]);
    assert_eq!(reply, "*2\r\n$1\r\n0\r\n*1\r\n$1\r\na\r\n");
    assert_eq!(fixture.session.run(&["scan 18446744073709551615"]), "*2\r\n$1\r\n0\r\n*0\r\n");
}

#[test]
fn a_read_of_an_old_entry_waits_for_the_exchange_that_brought_it() {
    let mut fixture = fixture();
    fixture.session.run(&["set k old"]);
    let commit = fixture.store.log().commit();
    fixture.session.run_held(&["swapdb 0 1"]);
    let mut reader = Session::new(&fixture.store);
    reader.caller.database = 1;
    reader.run_held(&["get k"]);
    assert!(reader.replies.ready(commit).is_empty());
    assert_eq!(reader.take(), "$3\r\nold\r\n");
}

#[test]
fn an_exchange_in_a_transaction_shows_nothing_expired() {
    let mut fixture = fixture();
    fixture.session.run(&["set k v px 10", "set other v px 10", "swapdb 0 1", "set k here"]);
    fixture.clock.advance(20);
    let replies = fixture.session.transaction(&["swapdb 0 1", "get k", "dbsize", "swapdb 0 1", "get k"], &[]);
    assert_eq!(replies, "*5\r\n+OK\r\n$-1\r\n:0\r\n+OK\r\n$4\r\nhere\r\n");
}

#[test]
fn a_key_that_is_too_long_is_refused_before_anything_changes() {
    let mut fixture = fixture();
    fixture.store.set_size_limits(10, 100);
    let replies = fixture.session.run(&["set short v", "set much-too-long v", "get short"]);
    assert!(replies.starts_with("+OK\r\n-ERR a key is longer than max_key_size"), "{replies}");
    assert!(replies.ends_with("$1\r\nv\r\n"));
    assert!(fixture.session.transaction(&["set a b", "set much-too-long v"], &[]).starts_with("-ERR a key"));
    assert_eq!(fixture.session.run(&["exists a"]), ":0\r\n");
}

#[test]
fn a_put_over_an_expired_key_begins_a_new_life() {
    let mut fixture = fixture();
    fixture.session.run(&["set k v px 10"]);
    fixture.clock.advance(5_000);
    let reply = fixture.session.run(&["set k w", "bl.entry k"]);
    assert!(reply.contains("created\r\n:1700000005000\r\n"), "{reply}");
}

#[test]
fn many_keys_that_are_due_are_removed_in_slices_and_without_exceeding_their_room() {
    let mut fixture = fixture();
    for n in 0..3_000 {
        fixture.session.run(&[&format!("set {}:{n} x px 10", "long".repeat(60))]);
    }
    fixture.clock.advance(20);
    assert_eq!(fixture.session.run(&["flushdb", "dbsize"]), "+OK\r\n:0\r\n");
    for n in 0..500 {
        fixture.session.run(&[&format!("set {}:{n} x px 10", "long".repeat(60))]);
    }
    fixture.clock.advance(20);
    assert_eq!(fixture.session.run(&["dbsize"]), ":0\r\n");
    assert_eq!(fixture.store.statistics().log.admissions_exceeded, 0);
}

#[test]
fn emptying_a_database_that_was_just_written_leaves_nothing_behind() {
    let mut fixture = fixture();
    fixture.session.run(&["swapdb 0 1", "set keep x", "swapdb 0 1"]);
    for _ in 0..50 {
        fixture.session.transaction(&["set a x", "flushdb"], &[]);
    }
    let hold = fixture.store.keyspace().hold(fixture.store.keyspace().every_segment(), Default::default());
    let tables: usize = (0..8).map(|segment| hold.segment(segment).tables().count()).sum();
    assert!(tables <= 16, "{tables} tables for one key");
}

#[test]
fn a_nil_from_exec_because_a_key_expired_waits_for_its_removal() {
    let mut fixture = fixture();
    fixture.session.run(&["set k v px 10"]);
    let caller = fixture.session.caller;
    let watched = fixture.session.executor.watch(&caller, b"k");
    fixture.clock.advance(20);
    let commit = fixture.store.log().commit();
    let transaction = bowline::exec::Transaction::default();
    fixture.session.executor.transaction(&caller, &transaction, &[watched], &mut fixture.session.replies);
    assert!(fixture.session.replies.waits_for(commit).is_some());
    assert_eq!(fixture.session.take(), "*-1\r\n");
}

/// Each key that is there all the time is shown once, whatever others do meanwhile, and nothing that never was there.
#[test]
fn keys_shows_all_that_stays_while_others_write() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(options(directory.path(), &HandClock::at(1_800_000_000_000))).expect("a new store");
    (0..500u32).for_each(|number| _ = store.put(format!("stays:{number}").as_bytes(), b"x").expect("a put"));
    let ended = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut session = Session::new(&store);
            for number in 0.. {
                session.run(&[&format!("SET comes:{number} x"), &format!("DEL comes:{}", number / 2)]);
                session.run_now(&format!("RENAME comes:{number} comes:{}", number + 1));
                if ended.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
            }
        });
        let mut session = Session::new(&store);
        for _ in 0..50 {
            let reply = session.run(&["KEYS *"]);
            let mut stays: Vec<&str> = reply.lines().filter(|line| line.starts_with("stays:")).collect();
            let others = reply.lines().filter(|line| line.starts_with("comes:")).count();
            stays.sort_unstable();
            stays.dedup();
            assert_eq!(stays.len(), 500);
            assert!(reply.starts_with(&format!("*{}\r\n", stays.len() + others)), "{}", &reply[..20]);
        }
        ended.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
