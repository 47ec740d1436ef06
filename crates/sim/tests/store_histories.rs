//! The interleavings that break what a client may be told, one test each, on a whole store. The number in each test's
//! comment is the history's.

use std::time::Duration;

use bowline::clock::Clock;
use bowline::exec::{Caller, Executor, Replies, Transaction};
use bowline::{Durability, Version};
use bowline_sim::clock::SimClock;
use bowline_sim::crash::model::Command;
use bowline_sim::disk::SimDisk;
use bowline_sim::random::Random;
use bowline_sim::store_machine::StoreMachine;

const NOW_MS: u64 = 1_800_000_000_000;
const TEN_YEARS_MS: u64 = 10 * 365 * 24 * 3_600_000;
const IMAGES: u64 = 100;

fn open_at(disk: &SimDisk, wall_ms: u64) -> StoreMachine {
    StoreMachine::open(disk, &SimClock::new(wall_ms)).expect("the store opens")
}

fn new_store() -> StoreMachine {
    let mut machine = open_at(&SimDisk::default(), NOW_MS);
    assert!(machine.become_quiet());
    machine
}

/// The store on what `disk` holds after a power cut, once for each of many seeds, its clock at `wall_ms`.
fn after_power_cuts(disk: &SimDisk, wall_ms: u64) -> impl Iterator<Item = StoreMachine> {
    (0..IMAGES).map(move |seed| open_at(&disk.power_cut(&mut Random::new(seed)), wall_ms))
}

fn text(reply: &[u8]) -> String {
    String::from_utf8_lossy(reply).into_owned()
}

/// History 6: a SET that meets a full disk is refused before it runs; reads and DEL go on, and SET resumes by itself.
#[test]
fn a_write_to_a_full_disk_is_refused_before_it_runs() {
    let mut machine = new_store();
    machine.call(&[b"SET", b"victim", b"old"]);
    machine.disk.set_capacity(machine.disk.used());
    let refusal = (0..1_000).find_map(|number| {
        let reply = machine.call(&[b"SET", b"victim", format!("{number:01000}").as_bytes()]);
        reply.starts_with(b"-MISCONF").then_some((number, reply))
    });
    let (number, reply) = refusal.expect("the disk is full at last");
    assert!(text(&reply).contains("free some space"), "{}", text(&reply));
    let kept = format!("$1000\r\n{:01000}\r\n", number - 1);
    assert_eq!(text(&machine.call(&[b"GET", b"victim"])), kept);
    assert_eq!(text(&machine.call(&[b"SET", b"other", &[b'x'; 1_000]]))[..8], *"-MISCONF");
    assert_eq!(text(&machine.call(&[b"DEL", b"victim"])), ":1\r\n");
    machine.disk.set_capacity(u64::MAX);
    machine.clock.advance(Duration::from_secs(5));
    assert!(machine.become_quiet());
    assert_eq!(text(&machine.call(&[b"SET", b"victim", b"new"])), "+OK\r\n");
    for mut after in after_power_cuts(&machine.disk, NOW_MS).take(10) {
        assert_eq!(text(&after.call(&[b"GET", b"victim"])), "$3\r\nnew\r\n");
        assert_eq!(text(&after.call(&[b"GET", b"other"])), "$-1\r\n");
    }
}

/// History 10: the clock is ten years ahead for a second; later versions do not say so.
#[test]
fn ten_wrong_years_for_a_second_leave_no_mark_on_versions() {
    let mut machine = new_store();
    machine.clock.set_wall_ms(NOW_MS + TEN_YEARS_MS);
    machine.call(&[b"SET", b"key", b"during"]);
    machine.clock.advance(Duration::from_secs(1));
    machine.call(&[b"SET", b"key", b"still"]);
    machine.clock.set_wall_ms(NOW_MS + 2_000);
    machine.call(&[b"SET", b"key", b"after"]);
    let newest = machine.store.log().last_version();
    assert!(newest < Version::at_ms(NOW_MS + 60_000), "version {newest} is of {} ms", newest.time_ms());
}

/// History 11: a version seen at level `none` and lost in a crash is not given to another value, so that a compare-and-set
/// that names it fails.
#[test]
fn a_compare_and_set_on_a_lost_version_fails() {
    let mut machine = new_store();
    let (reply, waits_for) = machine.ask(0, &[b"BL.CAS", b"key", b"0", b"lost"], Durability::None);
    assert_eq!(waits_for, Version::ZERO, "at level none the reply leaves at once");
    let seen = text(&reply)[1..].trim_end().to_owned();
    let disk = machine.disk.clone();
    disk.crash_now();
    let mut lost = 0;
    for mut after in after_power_cuts(&disk, NOW_MS - 3_600_000) {
        if text(&after.call(&[b"EXISTS", b"key"])) == ":1\r\n" {
            continue;
        }
        lost += 1;
        for number in 0..20u8 {
            after.call(&[b"SET", b"key", &[number]]);
            assert_eq!(text(&after.call(&[b"BL.CAS", b"key", seen.as_bytes(), b"wrong"])), "$-1\r\n");
        }
    }
    assert!(lost > 0, "no image lost the write");
}

/// History 22: every reply that tells of an uncommitted write waits for its commit, whatever the command.
#[test]
fn every_reply_that_tells_of_an_uncommitted_write_waits_for_it() {
    let tellers: [&[&[u8]]; 19] = [
        &[b"GET", b"new"],
        &[b"MGET", b"other", b"new"],
        &[b"EXISTS", b"new"],
        &[b"STRLEN", b"new"],
        &[b"GETRANGE", b"new", b"0", b"1"],
        &[b"TTL", b"new"],
        &[b"TYPE", b"new"],
        &[b"BL.ENTRY", b"new"],
        &[b"OBJECT", b"ENCODING", b"new"],
        &[b"DBSIZE"],
        &[b"KEYS", b"*"],
        &[b"SCAN", b"0"],
        &[b"RANDOMKEY"],
        &[b"SETNX", b"new", b"x"],
        &[b"SET", b"new", b"x", b"NX"],
        &[b"MSETNX", b"third", b"x", b"new", b"x"],
        &[b"INCR", b"new"],
        &[b"PERSIST", b"new"],
        &[b"BL.CAS", b"new", b"7", b"x"],
    ];
    for words in tellers.into_iter().filter(|words| bowline::command::lookup(words[0]).is_some()) {
        let mut machine = new_store();
        machine.call(&[b"SET", b"other", b"committed"]);
        let (_, version) = machine.ask(0, &[b"SET", b"new", b"uncommitted"], Durability::Always);
        assert!(version > machine.store.log().commit());
        let (reply, waits_for) = machine.ask(0, words, Durability::Always);
        let (words, reply) = (words.join(&b' ').escape_ascii().to_string(), text(&reply));
        assert!(waits_for >= version, "{words} answers {reply:?} and waits for {waits_for}, not for {version}");
        let (_, unrelated) = machine.ask(0, &[b"GET", b"other"], Durability::Always);
        assert_eq!(unrelated, Version::ZERO, "a read of an old key answers at once");
    }
}

/// History 22: so does every reply that tells that something is gone.
#[test]
fn every_reply_that_tells_of_an_uncommitted_removal_waits_for_it() {
    let tellers: [&[&[u8]]; 9] = [
        &[b"GET", b"gone"],
        &[b"EXISTS", b"gone"],
        &[b"TTL", b"gone"],
        &[b"DEL", b"gone"],
        &[b"DBSIZE"],
        &[b"KEYS", b"*"],
        &[b"RENAME", b"gone", b"other"],
        &[b"GETDEL", b"gone"],
        &[b"EXPIRE", b"gone", b"100"],
    ];
    let removals: [&[&[u8]]; 5] =
        [&[b"DEL", b"gone"], &[b"RENAME", b"gone", b"else"], &[b"FLUSHDB"], &[b"FLUSHALL"], &[b"SWAPDB", b"0", b"1"]];
    for removal in removals {
        for words in tellers {
            let mut machine = new_store();
            machine.call(&[b"SET", b"gone", b"committed"]);
            let (_, version) = machine.ask(0, removal, Durability::Always);
            assert!(version > machine.store.log().commit());
            let (reply, waits_for) = machine.ask(0, words, Durability::Always);
            let (removal, words) =
                (removal.join(&b' ').escape_ascii().to_string(), words.join(&b' ').escape_ascii().to_string());
            let reply = text(&reply);
            assert!(waits_for >= version, "after {removal} {words} answers {reply:?} and waits for {waits_for}");
        }
    }
}

/// History 22: a nil EXEC tells that a watched key was changed, and waits for that change.
#[test]
fn a_nil_transaction_waits_for_the_change_that_made_it_nil() {
    let machine = new_store();
    let mut executor = Executor::new(&machine.store);
    let caller = Caller {
        database: 0,
        protocol: bowline_resp::Protocol::Resp2,
        level: Durability::Always,
        no_touch: false,
        waited: 0,
    };
    let watched = [executor.watch(&caller, b"key")];
    let mut machine = machine;
    let (_, version) = machine.ask(0, &[b"SET", b"key", b"changed"], Durability::Always);
    let mut replies = Replies::new();
    executor.transaction(&caller, &Transaction::default(), &watched, &mut replies);
    assert!(replies.waits_for(Version::ZERO) >= Some(version));
    assert_eq!(text(replies.ready(Version::MAX)), "*-1\r\n");
}

/// History 22: after SWAPDB every reply about the database tells of the exchange, also of entries that are old.
#[test]
fn a_reply_about_an_old_entry_waits_for_the_exchange_that_brought_it() {
    for words in [&[b"GET", b"key".as_slice()], &[b"EXISTS".as_slice(), b"key"], &[b"APPEND".as_slice(), b"key"]] {
        let mut machine = new_store();
        machine.call(&[b"SET", b"key", b"old"]);
        let (_, version) = machine.ask(0, &[b"SWAPDB", b"0", b"1"], Durability::Always);
        assert!(version > machine.store.log().commit());
        let words: Vec<&[u8]> = if words[0] == b"APPEND" { vec![words[0], words[1], b""] } else { words.to_vec() };
        let (reply, waits_for) = machine.ask(1, &words, Durability::Always);
        assert!(waits_for >= version, "{} answers {:?}", words[0].escape_ascii(), text(&reply));
    }
}

/// A FLUSHALL is where replay starts: what its record did before it needs entries that replay does not have.
#[test]
fn a_store_opens_again_after_a_flush_that_removed_an_expired_key_first() {
    let mut machine = new_store();
    machine.call(&[b"SET", b"short", b"value", b"PX", b"10"]);
    machine.call(&[b"SET", b"long", b"value"]);
    machine.clock.advance(Duration::from_millis(11));
    machine.call(&[b"FLUSHALL"]);
    machine.call(&[b"SET", b"after", b"value"]);
    assert!(machine.become_quiet());
    for mut after in after_power_cuts(&machine.disk, NOW_MS + 1_000) {
        assert_eq!(text(&after.call(&[b"DBSIZE"])), ":1\r\n");
    }
}

/// The same with a transaction that changes old keys and then empties everything.
#[test]
fn a_store_opens_again_after_a_transaction_that_changed_a_key_and_flushed() {
    let mut machine = new_store();
    machine.call(&[b"SET", b"key:1", b"value"]);
    let commands = [
        Command::Append(b"key:1".to_vec(), b"more".to_vec()),
        Command::FlushAll,
        Command::Set(b"key:2".to_vec(), b"value".to_vec(), None),
    ];
    let executed = machine.execute(0, &commands, true, Durability::Always).expect("the log has room");
    assert!(machine.commit_up_to(executed.1));
    assert!(machine.become_quiet());
    for mut after in after_power_cuts(&machine.disk, NOW_MS + 1_000) {
        assert_eq!(text(&after.call(&[b"DBSIZE"])), ":1\r\n");
        assert_eq!(text(&after.call(&[b"GET", b"key:2"])), "$5\r\nvalue\r\n");
    }
}

/// A transaction that only reads takes no room in the log and gives none back.
#[test]
fn a_transaction_that_only_reads_takes_no_room() {
    let mut machine = new_store();
    let read = [Command::Get(b"key:1".to_vec()), Command::Size];
    let (reply, _) = machine.execute(0, &read, true, Durability::Always).expect("reading needs no room");
    assert_eq!(text(&reply), "*2\r\n$-1\r\n:0\r\n");
}

/// History 23: a key that was seen to be gone stays gone, also on a machine whose clock is two seconds behind.
#[test]
fn a_key_seen_expired_stays_gone_though_the_clock_goes_back() {
    for teller in [&[b"GET", b"key".as_slice()], &[b"EXISTS".as_slice(), b"key"], &[b"TTL".as_slice(), b"key"]] {
        let mut machine = new_store();
        machine.call(&[b"SET", b"key", b"value", b"PX", b"1000"]);
        machine.clock.advance(Duration::from_millis(1_001));
        let commit = machine.store.log().commit();
        let (_, waits_for) = machine.ask(0, teller, Durability::Always);
        assert!(waits_for > commit, "\"gone\" is a write of its own");
        assert!(machine.commit_up_to(waits_for));
        let disk = machine.disk.clone();
        let earlier = machine.clock.wall_ms() - 2_000;
        disk.crash_now();
        for mut after in after_power_cuts(&disk, earlier) {
            assert_eq!(text(&after.call(&[b"EXISTS", b"key"])), ":0\r\n");
        }
    }
}

/// A transaction is one record: after a power cut all of it is there or nothing.
#[test]
fn a_transaction_is_whole_or_absent() {
    let machine = new_store();
    let mut executor = Executor::new(&machine.store);
    let mut transaction = Transaction::default();
    for number in 0..40u8 {
        let (buffer, words) = (format!("SETkey{number:02}{}", "v".repeat(200)), [3u32, 5, 200]);
        let starts = [0, 3, 8];
        let ranges: Vec<bowline_resp::ArgRange> =
            starts.iter().zip(words).map(|(start, len)| bowline_resp::ArgRange { start: *start, len }).collect();
        let set = bowline::command::lookup(b"SET").expect("SET exists");
        assert!(transaction.push(set, bowline_resp::Args::new(buffer.as_bytes(), &ranges)));
    }
    let caller = Caller {
        database: 0,
        protocol: bowline_resp::Protocol::Resp2,
        level: Durability::Always,
        no_touch: false,
        waited: 0,
    };
    executor.transaction(&caller, &transaction, &[], &mut Replies::new());
    machine.clock.advance(Duration::from_millis(5));
    for _ in 0..3 {
        machine.store.turn();
    }
    let disk = machine.disk.clone();
    disk.crash_now();
    for mut after in after_power_cuts(&disk, NOW_MS) {
        let count = text(&after.call(&[b"DBSIZE"]));
        assert!(count == ":0\r\n" || count == ":40\r\n", "{count:?}");
    }
}
