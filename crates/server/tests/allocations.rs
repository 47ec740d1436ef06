//! How often a request asks the allocator for memory on its way through a session, bytes in, bytes out, in steady state: a
//! GET never, a SET of a new key once for its entry.
//!
//! Method: as in the engine's test of this name, with the session around it: decoding, dispatch, counters, replies.

#[path = "../../engine/tests/support/counting.rs"]
mod counting;

use std::sync::Arc;

use bowline::exec::Replies;
use bowline::{Options, Store};
use bowline_server::net::listen::Dialect;
use bowline_server::net::mailbox::Mailbox;
use bowline_server::session::clients::Introduction;
use bowline_server::session::{Session, Workbench};
use bowline_server::settings::{SettingsStore, Sources};
use bowline_server::state::Server;
use counting::{Counting, allocations_of};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A client of a server in this thread, with what its event loop would lend it.
struct Talk {
    session: Session,
    bench: Workbench,
    spare: Replies,
    // The waker of the mailbox belongs to it.
    _poll: mio::Poll,
    _directory: tempfile::TempDir,
}

fn talk() -> Talk {
    let directory = tempfile::tempdir().expect("a directory");
    let mut options = Options::new(directory.path());
    options.threads = false;
    options.seed = Some(7);
    options.log_file_bytes = 1 << 20;
    options.log_buffer_bytes = 256 << 10;
    let settings = Arc::new(SettingsStore::load(Sources::default()).expect("the defaults"));
    // On a busy machine any command may take long, and be noted.
    settings.set(&[("slowlog-log-slower-than", "-1")]).expect("valid");
    let server = Server::new(settings);
    server.open(Store::open(options).expect("opens"));
    let bench = Workbench::new(server.clone());
    let poll = mio::Poll::new().expect("a poll");
    let client = server.clients.register(Introduction {
        peer: "127.0.0.1:50000".to_owned(),
        local: "127.0.0.1:6379".to_owned(),
        unix: false,
        descriptor: 9,
        now_ms: bench.now_ms,
        home: Mailbox::new(poll.registry(), mio::Token(0)).expect("a waker"),
    });
    let session = Session::new(client, Dialect::Resp, &bench.settings());
    Talk { session, bench, spare: Replies::new(), _poll: poll, _directory: directory }
}

impl Talk {
    /// Runs requests in pipelines of `pipeline` and does for them what an event loop does: it lends a buffer, runs what has
    /// come, sends what may leave, takes the buffer back. Replies leave a hundred at a time, when the log was turned.
    /// Returns the allocations, those of the log's turn left out.
    fn run(&mut self, requests: &[Vec<u8>], pipeline: usize) -> usize {
        let mut allocations = 0;
        for frame in requests.chunks(FRAME) {
            let pipelines: Vec<Vec<u8>> = frame.chunks(pipeline).map(<[Vec<u8>]>::concat).collect();
            let Talk { session, bench, spare, .. } = self;
            allocations += allocations_of(|| {
                session.lend_replies(spare);
                for bytes in &pipelines {
                    session.receive(bytes, bench);
                    bench.count_lookups();
                }
            });
            bench.server.store().sync().expect("a sync");
            allocations += allocations_of(|| {
                let bytes = session.output(bench.server.commit()).len();
                assert!(bytes > 0, "the replies may leave");
                session.sent(bytes);
                session.return_replies(spare);
            });
        }
        usize::try_from(allocations).expect("fits")
    }
}

const KEYS: usize = 20_000;
const MEASURED: usize = 1000;
/// Requests that share a frame of the log, and so a sync.
const FRAME: usize = 100;
/// What the beginning of a frame of the log takes: a piece of its buffer, its place in the list of frames.
const FRAME_ALLOCATIONS: usize = 2;

fn get(index: usize) -> Vec<u8> {
    format!("*2\r\n$3\r\nGET\r\n$16\r\nkey:{index:012}\r\n").into_bytes()
}

fn set(index: usize) -> Vec<u8> {
    format!("*3\r\n$3\r\nSET\r\n$16\r\nkey:{index:012}\r\n$32\r\n{:032}\r\n", 7).into_bytes()
}

fn filled() -> Talk {
    let mut talk = talk();
    talk.run(&(0..KEYS).map(set).collect::<Vec<_>>(), 100);
    talk
}

#[test]
fn a_get_allocates_nothing() {
    let mut talk = filled();
    let hits: Vec<_> = (0..MEASURED).map(|index| get(index * 7)).collect();
    let misses: Vec<_> = (KEYS..KEYS + MEASURED).map(get).collect();
    for pipeline in [16, 1] {
        talk.run(&hits, pipeline);
        assert_eq!(talk.run(&hits, pipeline), 0, "hits, pipelines of {pipeline}");
        assert_eq!(talk.run(&misses, pipeline), 0, "misses, pipelines of {pipeline}");
    }
}

#[test]
fn a_set_of_a_new_key_allocates_its_entry_and_now_and_then_a_part_of_a_table() {
    let mut talk = filled();
    let mut next = KEYS;
    for pipeline in [16, 1] {
        let sets: Vec<_> = (next..next + KEYS).map(set).collect();
        next += KEYS;
        let allocations = talk.run(&sets, pipeline);
        let most = KEYS + KEYS / 10 + KEYS / FRAME * FRAME_ALLOCATIONS;
        assert!((KEYS..=most).contains(&allocations), "{allocations}, at most {most}, pipelines of {pipeline}");
    }
}
