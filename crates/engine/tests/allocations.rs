//! How often a command asks the allocator for memory, in steady state: a GET never, a SET of a new key once.
//!
//! Method: an allocator that counts the calls of this thread, around runs whose requests were made before. The store has
//! no threads here; the log is turned between runs and not counted, as its thread would be another one. What is counted is
//! the beginning of a frame, which is once for all commands that share a sync.

#[path = "support/counting.rs"]
mod counting;
mod support;

use bowline::exec::{Planned, Replies};
use bowline_resp::ArgRange;
use counting::{Counting, allocations_of};
use support::{HandClock, Session, options};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Decoded requests, as a session hands them to the executor.
#[derive(Default)]
struct Requests {
    buffer: Vec<u8>,
    ranges: Vec<ArgRange>,
    batch: Vec<Planned>,
}

impl Requests {
    fn new<'a>(requests: impl Iterator<Item = Vec<&'a [u8]>>) -> Requests {
        let mut made = Requests::default();
        for words in requests {
            let command = bowline::command::lookup(words[0]).expect("a command");
            let first_range = made.ranges.len() as u32;
            for word in &words {
                made.ranges.push(ArgRange { start: made.buffer.len() as u32, len: word.len() as u32 });
                made.buffer.extend_from_slice(word);
            }
            made.batch.push(Planned { command, first_range, ranges: words.len() as u32 });
        }
        made
    }
}

const KEYS: usize = 20_000;
const MEASURED: usize = 1000;
/// A usual pipeline, and no pipeline at all.
const PIPELINES: [usize; 2] = [16, 1];

fn key(index: usize) -> Vec<u8> {
    format!("key:{index:012}").into_bytes()
}

/// Commands that share a frame of the log, and so a sync.
const FRAME: usize = 100;
/// What the beginning of a frame takes: a piece of the log's buffer, its place in the list of frames.
const FRAME_ALLOCATIONS: u64 = 2;

/// Runs requests in pipelines of `pipeline`, the log turned now and then; returns the allocations of the runs alone.
fn run(session: &mut Session, requests: &Requests, pipeline: usize) -> u64 {
    let mut allocations = 0;
    for frame in requests.batch.chunks(FRAME) {
        let Session { executor, replies, caller, .. } = session;
        for batch in frame.chunks(pipeline) {
            allocations += allocations_of(|| {
                let end = executor.run(caller, &requests.buffer, &requests.ranges, batch, replies);
                assert_eq!(end.done, batch.len());
            });
        }
        session.store.sync().expect("a sync");
        session.store.turn();
        let commit = session.store.log().commit();
        allocations += allocations_of(|| send_all(&mut session.replies, commit));
    }
    allocations
}

/// What the frames of so many writes take.
fn frames_of(writes: usize) -> u64 {
    writes.div_ceil(FRAME) as u64 * FRAME_ALLOCATIONS
}

fn send_all(replies: &mut Replies, commit: bowline::Version) {
    let bytes = replies.ready(commit).len();
    assert!(bytes > 0);
    replies.consume(bytes);
}

/// A store with `KEYS` keys of 32 bytes each, whose own buffers have grown to what pipelines need.
fn filled(directory: &std::path::Path) -> Session {
    let store = bowline::Store::open(options(directory, &HandClock::at(1_700_000_000_000))).expect("opens");
    let mut session = Session::new(&store);
    let keys: Vec<_> = (0..KEYS).map(key).collect();
    let sets = Requests::new(keys.iter().map(|key| vec![&b"set"[..], key, &[b'v'; 32]]));
    run(&mut session, &sets, 100);
    session
}

#[test]
fn a_get_allocates_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut session = filled(directory.path());
    let keys: Vec<_> = (0..MEASURED).map(|index| key(index * 7)).collect();
    let gets = Requests::new(keys.iter().map(|key| vec![&b"get"[..], key]));
    let absent = Requests::new((0..MEASURED).map(|_| vec![&b"get"[..], b"no such key"]));
    for pipeline in PIPELINES {
        run(&mut session, &gets, pipeline);
        assert_eq!(run(&mut session, &gets, pipeline), 0, "hits, pipelines of {pipeline}");
        assert_eq!(run(&mut session, &absent, pipeline), 0, "misses, pipelines of {pipeline}");
    }
}

#[test]
fn a_set_of_a_new_key_allocates_its_entry_and_now_and_then_a_part_of_a_table() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut session = filled(directory.path());
    let mut next = KEYS;
    for pipeline in PIPELINES {
        let keys: Vec<_> = (next..next + KEYS).map(key).collect();
        next += KEYS;
        let sets = Requests::new(keys.iter().map(|key| vec![&b"set"[..], key, &[b'v'; 32]]));
        let allocations = run(&mut session, &sets, pipeline);
        let (entries, parts) = (KEYS as u64, KEYS as u64 / 10);
        assert!(
            (entries..=entries + parts + frames_of(KEYS)).contains(&allocations),
            "{allocations}, pipelines of {pipeline}"
        );
    }
}

#[test]
fn a_set_of_a_value_as_long_as_the_old_one_allocates_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut session = filled(directory.path());
    let keys: Vec<_> = (0..MEASURED).map(key).collect();
    let sets = Requests::new(keys.iter().map(|key| vec![&b"set"[..], key, &[b'w'; 32]]));
    for pipeline in PIPELINES {
        let allocations = run(&mut session, &sets, pipeline);
        assert!(allocations <= frames_of(MEASURED), "{allocations}, pipelines of {pipeline}");
    }
}

#[test]
fn a_set_of_a_longer_value_allocates_its_new_entry() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut session = filled(directory.path());
    let keys: Vec<_> = (0..MEASURED).map(key).collect();
    for (pipeline, value) in PIPELINES.into_iter().zip([[b'w'; 100].as_slice(), &[b'w'; 200]]) {
        let sets = Requests::new(keys.iter().map(|key| vec![&b"set"[..], key, value]));
        let allocations = run(&mut session, &sets, pipeline);
        let entries = MEASURED as u64;
        assert!(
            (entries..=entries + frames_of(MEASURED) + 10).contains(&allocations),
            "{allocations}, pipelines of {pipeline}"
        );
    }
}
