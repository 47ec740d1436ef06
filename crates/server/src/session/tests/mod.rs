//! Sessions over a real store, without sockets: bytes in, bytes out. The log runs only when a test turns it, so what is
//! held for a commit can be seen.

mod backups;
mod bounds;
mod long_values;

use super::*;
use crate::net::mailbox::Mailbox;
use crate::session::clients::Introduction;
use crate::settings::{SettingsStore, Sources};
use crate::state::{PauseMode, Server};
use bowline::{Options, Store};

/// A client of a server in this thread.
struct Talk {
    session: Session,
    bench: Workbench,
    // The waker of the mailbox belongs to it.
    _poll: mio::Poll,
    directory: tempfile::TempDir,
}

fn talk() -> Talk {
    talk_with(Dialect::Resp, &[], |_| {})
}

fn talk_with(dialect: Dialect, changes: &[(&str, &str)], adjust: impl FnOnce(&mut Options)) -> Talk {
    let directory = tempfile::tempdir().unwrap();
    let mut options = Options::new(directory.path());
    options.threads = false;
    options.seed = Some(7);
    options.log_file_bytes = 1 << 20;
    options.log_buffer_bytes = 256 << 10;
    adjust(&mut options);
    let mut talk = talk_while_loading(dialect, changes, directory);
    talk.open(options);
    talk
}

/// A client of a server that has no store yet.
fn talk_while_loading(dialect: Dialect, changes: &[(&str, &str)], directory: tempfile::TempDir) -> Talk {
    let settings = Arc::new(SettingsStore::load(Sources::default()).unwrap());
    settings.set(changes).unwrap();
    let server = Server::new(settings);
    let bench = Workbench::new(server.clone());
    let poll = mio::Poll::new().unwrap();
    let client = server.clients.register(Introduction {
        peer: "127.0.0.1:50000".to_owned(),
        local: "127.0.0.1:6379".to_owned(),
        unix: false,
        descriptor: 9,
        now_ms: bench.now_ms,
        home: Mailbox::new(poll.registry(), mio::Token(0)).unwrap(),
    });
    let session = Session::new(client, dialect, &bench.settings());
    Talk { session, bench, _poll: poll, directory }
}

impl Talk {
    fn open(&mut self, options: Options) {
        self.bench.server.open(Store::open(options).unwrap());
        self.bench.take_store(std::sync::Arc::new(|| {}));
    }

    fn send(&mut self, bytes: &[u8]) {
        self.session.receive(bytes, &mut self.bench);
    }

    /// What may leave now.
    fn take(&mut self) -> String {
        let (commit, mut all) = (self.bench.server.commit(), Vec::new());
        // Long values leave in pieces of their own.
        loop {
            let out = self.session.output(commit);
            if out.is_empty() {
                return String::from_utf8_lossy(&all).into_owned();
            }
            all.extend_from_slice(out);
            let bytes = out.len();
            self.session.sent(bytes);
        }
    }

    /// Lets the log write and sync all there is.
    fn commit(&mut self) {
        if let Some(store) = self.bench.server.opened() {
            store.sync().unwrap();
        }
    }

    /// Sends, commits, and takes the answer.
    fn ask(&mut self, bytes: &[u8]) -> String {
        self.send(bytes);
        self.commit();
        self.take()
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let mut talk = talk();
    assert_eq!(talk.ask(b"SET a 1\r\nINCR a\r\nPING\r\nGET a\r\n"), "+OK\r\n:2\r\n+PONG\r\n$1\r\n2\r\n");
    let request = b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n".repeat(100);
    assert_eq!(talk.ask(&request), "$1\r\n2\r\n".repeat(100));
}

#[test]
fn a_request_may_arrive_byte_by_byte() {
    let mut talk = talk();
    for byte in b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2\r\nvv\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n" {
        talk.send(&[*byte]);
    }
    talk.commit();
    assert_eq!(talk.take(), "+OK\r\n$2\r\nvv\r\n");
}

#[test]
fn a_reply_to_a_write_leaves_only_after_its_commit() {
    let mut talk = talk();
    talk.send(b"GET before\r\nSET k v\r\nGET k\r\n");
    assert_eq!(talk.take(), "$-1\r\n");
    let awaited = talk.session.awaited_version(talk.bench.server.store().log().commit());
    assert!(awaited.is_some());
    talk.commit();
    assert_eq!(talk.take(), "+OK\r\n$1\r\nv\r\n");
}

#[test]
fn a_weak_level_answers_before_the_commit_and_sync_waits() {
    let mut talk = talk();
    talk.commit();
    assert_eq!(
        talk.ask(b"BL.DURABILITY\r\nBL.DURABILITY none\r\nBL.DURABILITY\r\n"),
        "$6\r\nalways\r\n+OK\r\n$4\r\nnone\r\n"
    );
    talk.send(b"SET k v\r\n");
    assert_eq!(talk.take(), "+OK\r\n");
    talk.send(b"BL.SYNC\r\n");
    assert_eq!(talk.take(), "");
    talk.commit();
    assert!(talk.take().starts_with(':'));
    talk.send(b"BL.DURABILITY default\r\nBL.AT none SET k w\r\n");
    assert_eq!(talk.take(), "+OK\r\n+OK\r\n");
}

#[test]
fn errors_have_the_words_of_redis() {
    let mut talk = talk();
    let cases: [(&[u8], &str); 10] = [
        (b"FROB a b\r\n", "-ERR unknown command 'FROB', with args beginning with: 'a' 'b' \r\n"),
        (b"GET\r\n", "-ERR wrong number of arguments for 'get' command\r\n"),
        (b"CLIENT FROB\r\n", "-ERR unknown subcommand 'FROB'. Try CLIENT HELP.\r\n"),
        (b"CLIENT KILL\r\n", "-ERR wrong number of arguments for 'client|kill' command\r\n"),
        (b"SELECT 99\r\n", "-ERR DB index is out of range\r\n"),
        (b"SELECT 99999999999\r\n", "-ERR value is out of range, value must between -2147483648 and 2147483647\r\n"),
        (b"EXEC\r\n", "-ERR EXEC without MULTI\r\n"),
        (
            b"EXEC x\r\n",
            "-EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' command\r\n",
        ),
        (b"PING a b\r\n", "-ERR wrong number of arguments for 'ping' command\r\n"),
        (
            b"AUTH x\r\n",
            "-ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?\r\n",
        ),
    ];
    for (request, reply) in cases {
        assert_eq!(talk.ask(request), reply);
    }
}

#[test]
fn errors_repeat_the_bytes_of_a_client_as_they_came() {
    let mut talk = talk();
    let cases: [(&[u8], &[u8]); 3] = [
        (
            b"*3\r\n$4\r\nFR\xff\n\r\n$3\r\na\0b\r\n$2\r\n\r\n\r\n",
            b"-ERR unknown command 'FR\xff ', with args beginning with: 'a' '  ' \r\n",
        ),
        (b"*2\r\n$6\r\nCLIENT\r\n$3\r\n\xfe\0x\r\n", b"-ERR unknown subcommand '\xfe'. Try CLIENT HELP.\r\n"),
        (b"*4\r\n$6\r\nEXPIRE\r\n$1\r\nk\r\n$1\r\n1\r\n$4\r\n\xff\r\r\n\r\n", b"-ERR Unsupported option \xff\r\n"),
    ];
    for (request, reply) in cases {
        talk.send(request);
        let sent = talk.session.output(bowline::Version::MAX).to_vec();
        assert_eq!(sent.escape_ascii().to_string(), reply.escape_ascii().to_string());
        talk.session.sent(sent.len());
    }
}

#[test]
fn a_wrong_subcommand_is_refused_when_it_is_queued() {
    let mut talk = talk();
    let reply = talk.ask(b"MULTI\r\nOBJECT FROB k\r\nDEBUG FROB\r\nEXEC\r\n");
    let refused = "-ERR unknown subcommand 'FROB'. Try OBJECT HELP.\r\n+QUEUED\r\n";
    assert_eq!(reply, format!("+OK\r\n{refused}-EXECABORT Transaction discarded because of previous errors.\r\n"));
    let reply = talk.ask(b"MULTI\r\nDEBUG FROB\r\nEXEC\r\n");
    let refused = "-ERR unknown subcommand or wrong number of arguments for 'FROB'. Try DEBUG HELP.\r\n";
    assert_eq!(reply, format!("+OK\r\n+QUEUED\r\n*1\r\n{refused}"));
    assert_eq!(talk.ask(b"MULTI\r\nEXEC x\r\nEXEC\r\n").lines().last(), Some("-ERR EXEC without MULTI"));
}

#[test]
fn a_transaction_answers_one_array() {
    let mut talk = talk();
    let asked = b"MULTI\r\nSET a 1\r\nINCR a\r\nEXEC\r\n";
    assert_eq!(talk.ask(asked), "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+OK\r\n:2\r\n");
    assert_eq!(talk.ask(b"MULTI\r\nEXEC\r\n"), "+OK\r\n*0\r\n");
    assert_eq!(talk.ask(b"MULTI\r\nMULTI\r\nDISCARD\r\n"), "+OK\r\n-ERR MULTI calls can not be nested\r\n+OK\r\n");
}

#[test]
fn server_commands_in_a_transaction_stand_in_their_places() {
    let mut talk = talk();
    let asked = b"MULTI\r\nPING\r\nSET a 1\r\nECHO hi\r\nGET a\r\nEXEC\r\n";
    let reply = talk.ask(asked);
    assert!(reply.ends_with("*4\r\n+PONG\r\n+OK\r\n$2\r\nhi\r\n$1\r\n1\r\n"), "{reply}");
}

#[test]
fn a_refused_command_spoils_the_transaction() {
    let mut talk = talk();
    let reply = talk.ask(b"MULTI\r\nSET a\r\nSET a 1\r\nEXEC\r\nGET a\r\n");
    assert!(reply.ends_with("-EXECABORT Transaction discarded because of previous errors.\r\n$-1\r\n"), "{reply}");
}

#[test]
fn select_in_a_transaction_counts_for_what_follows_it_and_stays() {
    let mut talk = talk();
    let asked = b"SET k zero\r\nMULTI\r\nGET k\r\nSELECT 3\r\nSET k three\r\nGET k\r\nSELECT 0\r\nGET k\r\nSELECT 3\r\nEXEC\r\n";
    let reply = talk.ask(asked);
    let array = "*7\r\n$4\r\nzero\r\n+OK\r\n+OK\r\n$5\r\nthree\r\n+OK\r\n$4\r\nzero\r\n+OK\r\n";
    assert!(reply.ends_with(array), "{reply}");
    assert_eq!(talk.ask(b"GET k\r\nSELECT 0\r\nGET k\r\n"), "$5\r\nthree\r\n+OK\r\n$4\r\nzero\r\n");
}

#[test]
fn select_in_a_transaction_that_does_not_run_selects_nothing() {
    let mut talk = talk();
    talk.ask(b"MULTI\r\nSELECT 3\r\nSET k v\r\nDISCARD\r\nSET k zero\r\n");
    assert_eq!(talk.ask(b"GET k\r\n"), "$4\r\nzero\r\n");
    talk.ask(b"WATCH k\r\nSET k new\r\nMULTI\r\nSELECT 3\r\nSET k v\r\n");
    assert_eq!(talk.ask(b"EXEC\r\nGET k\r\n"), "*-1\r\n$3\r\nnew\r\n");
    talk.ask(b"MULTI\r\nSELECT 3\r\nGET\r\n");
    assert!(talk.ask(b"EXEC\r\n").starts_with("-EXECABORT"));
    assert_eq!(talk.ask(b"GET k\r\n"), "$3\r\nnew\r\n");
}

#[test]
fn select_of_no_database_in_a_transaction_fails_in_its_place() {
    let mut talk = talk();
    let reply = talk.ask(b"MULTI\r\nSELECT 99\r\nSET k v\r\nEXEC\r\nGET k\r\n");
    assert!(reply.ends_with("*2\r\n-ERR DB index is out of range\r\n+OK\r\n$1\r\nv\r\n"), "{reply}");
}

#[test]
fn errors_of_either_kind_of_command_are_counted_by_code_and_command() {
    let mut talk = talk();
    talk.ask(b"SET k word\r\nINCR k\r\nINCR k\r\nGET k\r\nINCR k\r\nSELECT 99\r\nGET\r\n");
    talk.ask(b"MULTI\r\nINCR k\r\nEXEC\r\n");
    talk.bench.count_lookups();
    let metrics = &talk.bench.server.metrics;
    assert_eq!(metrics.errors().get("ERR"), Some(&6));
    let totals = |name: &str| metrics.command(crate::commands::table::lookup(name.as_bytes()).unwrap().index);
    assert_eq!((totals("incr").calls, totals("incr").failed), (4, 4));
    assert_eq!((totals("select").calls, totals("select").failed), (1, 1));
    assert_eq!((totals("get").calls, totals("get").failed, totals("get").rejected), (1, 0, 1));
    assert_eq!(totals("exec").failed, 0);
}

/// The commands that SLOWLOG has, oldest first.
fn slow_commands(talk: &Talk) -> Vec<String> {
    let entries = talk.bench.server.slowlog.newest(usize::MAX);
    let line = |args: &Vec<Vec<u8>>| args.iter().map(|arg| String::from_utf8_lossy(arg)).collect::<Vec<_>>().join(" ");
    entries.iter().rev().map(|slow| line(&slow.args)).collect()
}

#[test]
fn the_slow_log_names_the_command_of_a_pipeline_that_took_long() {
    let mut talk = talk_with(Dialect::Resp, &[("slowlog-log-slower-than", "1000")], |_| {});
    let (left, right) = ("ab".repeat(2000), "ba".repeat(2000));
    talk.ask(format!("SET left {left}\r\nSET right {right}\r\n").as_bytes());
    // 16 million steps between two commands that take nothing.
    talk.ask(b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n*4\r\n$3\r\nLCS\r\n$4\r\nleft\r\n$5\r\nright\r\n$3\r\nLEN\r\n*2\r\n$3\r\nGET\r\n$1\r\nb\r\n");
    let slow = slow_commands(&talk);
    assert!(slow.iter().any(|command| command.starts_with("LCS left right LEN")), "{slow:?}");
}

#[test]
fn a_slow_log_of_everything_has_each_command_of_a_pipeline() {
    let mut talk = talk_with(Dialect::Resp, &[("slowlog-log-slower-than", "0")], |_| {});
    talk.ask(b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nx\r\n*2\r\n$3\r\nGET\r\n$1\r\nb\r\n");
    assert_eq!(slow_commands(&talk), ["GET a", "SET a x", "GET b"]);
}

#[test]
fn a_latency_histogram_has_every_call_of_a_batch() {
    let mut talk = talk();
    talk.ask(&b"GET k\r\n".repeat(70));
    let get = crate::commands::table::lookup(b"get").unwrap().index;
    assert_eq!(talk.bench.server.metrics.latency(get).unwrap().count, 70);
}

#[test]
fn a_changed_watched_key_makes_exec_answer_nil() {
    let mut talk = talk();
    assert_eq!(
        talk.ask(b"SET a 1\r\nWATCH a\r\nSET a 2\r\nMULTI\r\nPING\r\nSET a 3\r\nEXEC\r\n").lines().last(),
        Some("*-1")
    );
    assert_eq!(talk.ask(b"GET a\r\n"), "$1\r\n2\r\n");
    let reply = talk.ask(b"WATCH a\r\nMULTI\r\nWATCH b\r\nSET a 3\r\nEXEC\r\n");
    assert_eq!(reply, "+OK\r\n+OK\r\n-ERR WATCH inside MULTI is not allowed\r\n+QUEUED\r\n*1\r\n+OK\r\n");
}

#[test]
fn replies_can_be_switched_off_and_skipped() {
    let mut talk = talk();
    assert_eq!(talk.ask(b"CLIENT REPLY OFF\r\nSET a 1\r\nGET a\r\nPING\r\n"), "");
    assert_eq!(talk.ask(b"CLIENT REPLY ON\r\nGET a\r\n"), "+OK\r\n$1\r\n1\r\n");
    assert_eq!(talk.ask(b"CLIENT REPLY SKIP\r\nINCR a\r\nGET a\r\n"), "$1\r\n2\r\n");
    assert_eq!(talk.ask(b"CLIENT REPLY SKIP\r\nCLIENT REPLY SKIP\r\nECHO a\r\nECHO b\r\n"), "$1\r\nb\r\n");
    assert_eq!(talk.ask(b"CLIENT REPLY SKIP\r\nCLIENT REPLY ON\r\nECHO b\r\n"), "+OK\r\n$1\r\nb\r\n");
    assert_eq!(talk.ask(b"CLIENT REPLY OFF\r\nRESET\r\nECHO b\r\n"), "+RESET\r\n$1\r\nb\r\n");
}

#[test]
fn replies_switched_in_a_transaction_are_switched_from_that_place_on() {
    // The answers of redis-server 7.0, the four that MULTI and queueing make left out.
    for (queued, reply) in [
        ("ECHO a\r\nCLIENT REPLY OFF\r\nSET k v\r\nEXEC\r\nECHO y\r\nCLIENT REPLY ON\r\n", "*3\r\n$1\r\na\r\n+OK\r\n"),
        ("CLIENT REPLY OFF\r\nECHO b\r\nCLIENT REPLY ON\r\nEXEC\r\nECHO y\r\n", "*3\r\n+OK\r\n$1\r\ny\r\n"),
        (
            "ECHO a\r\nCLIENT REPLY SKIP\r\nGET k\r\nEXEC\r\nECHO y\r\nECHO z\r\n",
            "*3\r\n$1\r\na\r\n$1\r\nv\r\n$1\r\nz\r\n",
        ),
    ] {
        let mut talk = talk();
        talk.ask(b"SET k v\r\n");
        let got = talk.ask(format!("MULTI\r\n{queued}").as_bytes());
        assert_eq!(got, format!("+OK\r\n{}{reply}", "+QUEUED\r\n".repeat(3)));
    }
}

#[test]
fn replies_switched_on_in_a_transaction_still_wait_for_its_commit() {
    let mut talk = talk();
    talk.commit();
    talk.send(b"CLIENT REPLY OFF\r\nMULTI\r\nECHO a\r\nCLIENT REPLY ON\r\nSET k v\r\nEXEC\r\n");
    assert_eq!(talk.take(), "");
    talk.commit();
    assert_eq!(talk.take(), "+OK\r\n+OK\r\n");
}

#[test]
fn reset_takes_the_marks_of_a_connection_away() {
    let mut talk = talk();
    talk.ask(b"CLIENT NO-EVICT ON\r\nCLIENT NO-TOUCH ON\r\n");
    assert!(talk.ask(b"CLIENT INFO\r\n").contains(" flags=eT "));
    talk.ask(b"RESET\r\n");
    assert!(talk.ask(b"CLIENT INFO\r\n").contains(" flags=N "));
}

#[test]
fn nothing_runs_before_the_password() {
    let mut talk = talk_with(Dialect::Resp, &[("requirepass", "secret")], |_| {});
    assert_eq!(talk.ask(b"GET a\r\n"), "-NOAUTH Authentication required.\r\n");
    assert_eq!(talk.ask(b"AUTH wrong\r\n"), "-WRONGPASS invalid username-password pair or user is disabled.\r\n");
    assert_eq!(talk.ask(b"AUTH default secret\r\nSET a 1\r\n"), "+OK\r\n+OK\r\n");
    let reply = talk.ask(b"RESET\r\nGET a\r\nHELLO 3\r\n");
    assert!(reply.starts_with("+RESET\r\n-NOAUTH Authentication required.\r\n-NOAUTH HELLO"), "{reply}");
    assert!(talk.ask(b"HELLO 3 AUTH default secret SETNAME me\r\n").starts_with("%7\r\n"));
}

#[test]
fn a_stranger_gets_no_large_arguments() {
    let mut talk = talk_with(Dialect::Resp, &[("requirepass", "secret")], |_| {});
    let reply = talk.ask(b"*2\r\n$4\r\nAUTH\r\n$20000\r\n");
    assert_eq!(reply, "-ERR Protocol error: unauthenticated bulk length\r\n");
    assert!(talk.session.is_closing());
}

#[test]
fn what_follows_auth_in_a_pipeline_has_the_limits_of_a_client() {
    let mut talk = talk_with(Dialect::Resp, &[("requirepass", "secret")], |_| {});
    let mut request = b"AUTH secret\r\n".to_vec();
    bowline_resp::encode_request(&mut request, &[b"STRLEN".to_vec(), vec![b'k'; 20_000]]);
    assert_eq!(talk.ask(&request), "+OK\r\n:0\r\n");
}

#[test]
fn http_is_closed_without_an_answer() {
    let mut talk = talk();
    assert_eq!(talk.ask(b"POST / HTTP/1.1\r\nHost: x\r\n\r\nSET a 1\r\n"), "");
    assert!(talk.session.is_closing());
}

#[test]
fn a_broken_request_is_answered_and_ends_the_session() {
    let mut talk = talk();
    assert_eq!(talk.ask(b"PING\r\n*x\r\nPING\r\n"), "+PONG\r\n-ERR Protocol error: invalid multibulk length\r\n");
    assert!(talk.session.is_closing());
    assert_eq!(talk.ask(b"PING\r\n"), "");
}

#[test]
fn quit_is_answered_and_ends_the_session() {
    let mut talk = talk();
    assert_eq!(talk.ask(b"SET a 1\r\nQUIT\r\nSET a 2\r\n"), "+OK\r\n+OK\r\n");
    assert!(talk.session.is_closing());
}

#[test]
fn a_write_without_room_in_the_log_parks_and_goes_on_later() {
    let mut talk = talk();
    let mut request = Vec::new();
    bowline_resp::encode_request(&mut request, &[b"SET".to_vec(), b"k".to_vec(), vec![b'v'; 20_000]]);
    let mut sent = 0;
    while talk.session.waits() == Waits::No {
        talk.send(&request);
        sent += 1;
        assert!(sent < 1000, "the buffer of the log is never full");
    }
    assert_eq!(talk.session.waits(), Waits::Room);
    assert!(!talk.session.wants_input(&talk.bench) && talk.session.has_input());
    talk.commit();
    talk.session.stop_waiting();
    talk.session.resume(&mut talk.bench);
    talk.commit();
    assert_eq!(talk.take(), "+OK\r\n".repeat(sent));
    assert!(!talk.session.has_input());
}

#[test]
fn held_replies_are_bounded_and_the_session_reads_on_after_the_commit() {
    let mut talk = talk_with(Dialect::Resp, &[], |options| {
        options.log_file_bytes = 16 << 20;
        options.log_buffer_bytes = 8 << 20;
    });
    let mut request = Vec::new();
    bowline_resp::encode_request(&mut request, &[b"SET".to_vec(), b"k".to_vec(), vec![b'v'; 1 << 20]]);
    talk.send(&request);
    for _ in 0..2000 {
        if talk.session.wants_input(&talk.bench) && !talk.session.has_input() {
            talk.send(b"GET k\r\n");
        } else if talk.session.wants_input(&talk.bench) {
            talk.session.resume(&mut talk.bench);
        }
    }
    assert!(!talk.session.wants_input(&talk.bench));
    assert!(talk.session.output_bytes() < limits::HELD_BYTES_MAX + (2 << 20), "{}", talk.session.output_bytes());
    talk.commit();
    assert!(talk.take().len() >= limits::HELD_BYTES_MAX);
    assert!(talk.session.wants_input(&talk.bench));
}

#[test]
fn unread_replies_stop_a_session_even_inside_a_batch_and_it_goes_on_when_some_are_taken() {
    const LIMIT: usize = 64 << 10;
    let mut talk = talk_with(Dialect::Resp, &[("max_reply_bytes", "64kb")], |_| {});
    let value = vec![b'v'; 20_000];
    let mut set = Vec::new();
    bowline_resp::encode_request(&mut set, &[b"SET".as_slice(), b"k", &value]);
    talk.ask(&set);
    let (mut got, mut most) = (String::new(), 0);
    talk.send(&b"GET k\r\n".repeat(32));
    while talk.session.has_input() || talk.session.output_bytes() > 0 {
        most = most.max(talk.session.output_bytes());
        if talk.session.output_bytes() > LIMIT {
            assert!(!talk.session.wants_input(&talk.bench));
        }
        got += &talk.take();
        talk.session.resume(&mut talk.bench);
    }
    assert!(most > LIMIT && most <= LIMIT + value.len() + 20, "{most}");
    assert_eq!(got, format!("$20000\r\n{}\r\n", "v".repeat(20_000)).repeat(32));
    assert!(!talk.session.is_closing());
}

#[test]
fn a_pause_holds_writes_back_and_then_lets_them_run() {
    let mut talk = talk();
    assert_eq!(talk.ask(b"CLIENT PAUSE 60000 WRITE\r\nGET a\r\nSET a 1\r\n"), "+OK\r\n$-1\r\n");
    assert_eq!(talk.session.waits(), Waits::Pause);
    talk.bench.server.unpause();
    talk.session.stop_waiting();
    talk.session.resume(&mut talk.bench);
    talk.commit();
    assert_eq!(talk.take(), "+OK\r\n");
}

#[test]
fn a_pause_takes_from_a_session_what_was_left_to_it() {
    let mut talk = talk();
    let value = "v".repeat(100);
    assert_eq!(talk.ask(format!("SET k {value}\r\n").as_bytes()), "+OK\r\n");
    let store = talk.bench.server.store().clone();
    store.checkpoint().unwrap();
    store.set_memory_limit(bowline::MemoryLimit { bytes: 1, policy: bowline::EvictionPolicy::Tier });
    let cold_after_a_turn = || {
        while store.turn() {}
        store.tier().cold
    };
    assert_eq!(cold_after_a_turn(), 1);
    let wait = |talk: &mut Talk| {
        assert_eq!(talk.session.waits(), Waits::Values);
        while !talk.session.has_values() {
            std::thread::yield_now();
        }
    };
    talk.send(b"GET k\r\n");
    for left_to_it in [false, false, true] {
        wait(&mut talk);
        assert_eq!(cold_after_a_turn(), usize::from(!left_to_it));
        if !left_to_it {
            talk.session.stop_waiting();
            talk.session.resume(&mut talk.bench);
        }
    }
    talk.bench.server.pause(PauseMode::All, talk.bench.now_ms + 60_000);
    talk.session.stop_waiting();
    talk.session.resume(&mut talk.bench);
    assert_eq!((talk.session.waits(), cold_after_a_turn()), (Waits::Pause, 1));
    talk.bench.server.unpause();
    talk.session.stop_waiting();
    talk.session.resume(&mut talk.bench);
    wait(&mut talk);
    talk.session.stop_waiting();
    talk.session.resume(&mut talk.bench);
    assert_eq!(talk.take(), format!("$100\r\n{value}\r\n"));
}

#[test]
fn a_pause_of_all_holds_everything_back_but_client_and_refusals() {
    // As redis-server 7.0 does, which holds CLIENT too.
    for held in ["PING", "GET a", "AUTH x", "HELLO", "SELECT 1", "MULTI", "EXEC", "QUIT", "RESET", "CONFIG GET port"] {
        let mut talk = talk();
        talk.ask(b"CLIENT PAUSE 60000 ALL\r\n");
        assert_eq!(talk.ask(format!("{held}\r\n").as_bytes()), "", "{held}");
        assert_eq!(talk.session.waits(), Waits::Pause, "{held}");
    }
    for answered in ["NOSUCH", "GET", "CLIENT NOSUCH", "CLIENT ID", "CLIENT UNPAUSE"] {
        let mut talk = talk();
        talk.ask(b"CLIENT PAUSE 60000 ALL\r\n");
        assert_ne!(talk.ask(format!("{answered}\r\n").as_bytes()), "", "{answered}");
    }
}

#[test]
fn client_tells_who_it_is() {
    let mut talk = talk();
    assert_eq!(talk.ask(b"CLIENT SETNAME me\r\nCLIENT GETNAME\r\n"), "+OK\r\n$2\r\nme\r\n");
    assert!(talk.ask(b"CLIENT SETNAME \"two words\"\r\n").starts_with("-ERR Client names cannot"));
    let list = talk.ask(b"CLIENT LIST\r\n");
    assert!(list.contains("id=1 addr=127.0.0.1:50000 laddr=127.0.0.1:6379 fd=9 name=me"), "{list}");
}

#[test]
fn hello_changes_the_protocol() {
    let mut talk = talk();
    assert!(talk.ask(b"HELLO 3\r\n").starts_with("%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n"));
    assert_eq!(talk.ask(b"GET nothing\r\n"), "_\r\n");
    assert_eq!(talk.ask(b"HELLO 4\r\n"), "-NOPROTO unsupported protocol version\r\n");
    assert!(talk.ask(b"HELLO 2\r\n").starts_with("*14\r\n"));
}

#[test]
fn the_simple_words_work_in_the_redis_protocol() {
    let mut talk = talk();
    assert_eq!(talk.ask(b"PUT a 1\r\nSIZE\r\nDELETE a\r\nFLUSH\r\n"), "+OK\r\n:1\r\n:1\r\n+OK\r\n");
    assert!(talk.ask(b"STATS\r\n").contains("keys: 0\n"));
}

#[test]
fn commands_are_described_from_their_rows() {
    let mut talk = talk();
    assert_eq!(talk.ask(b"COMMAND GETKEYS MSET a 1 b 2\r\n"), "*2\r\n$1\r\na\r\n$1\r\nb\r\n");
    assert_eq!(talk.ask(b"COMMAND GETKEYS ECHO hi\r\n"), "-ERR The command has no key arguments\r\n");
    assert!(talk.ask(b"COMMAND INFO get nothing\r\n").starts_with("*2\r\n*10\r\n$3\r\nget\r\n:2\r\n"));
    assert!(talk.ask(b"COMMAND DOCS get\r\n").contains("summary"));
}

#[test]
fn every_reply_of_every_command_is_one_value() {
    // Arguments that fit nothing, or anything: whatever a command answers must be whole.
    let words: [&[u8]; 6] = [b"", b"a\r\nb", b"1", b"-9223372036854775808", b"GET", b"nan"];
    let mut talk = talk();
    for entry in crate::commands::table::all() {
        // SAVE answers when its checkpoint has ended.
        if ["quit", "shutdown", "exec", "client", "debug", "flushall", "save"].contains(&entry.info.name) {
            continue;
        }
        for count in 0..5 {
            talk.session.discard();
            let mut args: Vec<&[u8]> = vec![entry.info.name.as_bytes()];
            args.extend(words.iter().cycle().skip(count).take(count));
            let mut request = Vec::new();
            bowline_resp::encode_request(&mut request, &args);
            talk.send(&request);
            talk.commit();
            let commit = talk.bench.server.store().log().commit();
            let out = talk.session.output(commit).to_vec();
            let decoded = bowline_resp::ReplyDecoder::new().decode(&out).unwrap();
            assert_eq!(decoded.map(|(_, len)| len), Some(out.len()), "{args:?}");
            talk.session.sent(out.len());
        }
    }
}

#[test]
fn what_needs_data_is_refused_while_it_is_loaded_and_runs_after() {
    let mut talk = talk_while_loading(Dialect::Resp, &[], tempfile::tempdir().unwrap());
    let refused = "-LOADING Bowline is loading its log into memory\r\n";
    for request in ["PING", "GET k", "SET k v", "PUT k v", "WATCH k", "BL.SYNC", "BL.AT none SET k v"] {
        assert_eq!(talk.ask(format!("{request}\r\n").as_bytes()), refused, "{request}");
    }
    assert_eq!(talk.ask(b"GET\r\n"), "-ERR wrong number of arguments for 'get' command\r\n");
    assert_eq!(talk.ask(b"ECHO hi\r\nSELECT 3\r\nCLIENT ID\r\n"), "$2\r\nhi\r\n+OK\r\n:1\r\n");
    assert!(talk.ask(b"COMMAND COUNT\r\n").starts_with(':'));
    assert!(talk.ask(b"HELLO 3 SETNAME me\r\n").starts_with("%7\r\n"));
    talk.open(Options::new(talk.directory.path()));
    assert_eq!(talk.ask(b"SET k v\r\nGET k\r\nPING\r\n"), "+OK\r\n$1\r\nv\r\n+PONG\r\n");
    assert!(talk.ask(b"CLIENT LIST\r\n").contains(" db=3 "));
}

#[test]
fn a_transaction_that_met_loading_does_not_run_then_or_later() {
    let mut talk = talk_while_loading(Dialect::Resp, &[], tempfile::tempdir().unwrap());
    let reply = talk.ask(b"MULTI\r\nSET k v\r\nEXEC\r\n");
    assert!(reply.starts_with("+OK\r\n-LOADING "), "{reply}");
    assert!(reply.contains("\r\n-EXECABORT Transaction discarded because of: LOADING "), "{reply}");
    talk.ask(b"MULTI\r\nSET k v\r\n");
    talk.open(Options::new(talk.directory.path()));
    assert!(talk.ask(b"EXEC\r\n").starts_with("-EXECABORT"));
    assert_eq!(talk.ask(b"GET k\r\n"), "$-1\r\n");
}

#[test]
fn info_tells_how_far_loading_is() {
    let mut talk = talk_while_loading(Dialect::Resp, &[], tempfile::tempdir().unwrap());
    talk.bench.server.loading.advance(bowline::log::Progress { bytes_done: 50, bytes_total: 200 });
    let told = talk.ask(b"INFO everything\r\n");
    for line in ["loading:1", "loading_total_bytes:200", "loading_loaded_bytes:50", "loading_loaded_perc:25.00"] {
        assert!(told.lines().any(|told| told == line), "{line} in {told}");
    }
    talk.open(Options::new(talk.directory.path()));
    let told = talk.ask(b"INFO persistence\r\n");
    assert!(told.contains("loading:0\r\n") && !told.contains("loading_total_bytes"), "{told}");
}

#[test]
fn the_password_is_asked_for_while_loading_too() {
    let mut talk = talk_while_loading(Dialect::Resp, &[("requirepass", "secret")], tempfile::tempdir().unwrap());
    assert_eq!(talk.ask(b"GET k\r\n"), "-NOAUTH Authentication required.\r\n");
    assert!(talk.ask(b"AUTH secret\r\nGET k\r\n").starts_with("+OK\r\n-LOADING "));
}

#[test]
fn no_command_panics_while_loading() {
    let mut talk = talk_while_loading(Dialect::Resp, &[], tempfile::tempdir().unwrap());
    for entry in crate::commands::table::all() {
        let container = match entry.target {
            crate::commands::table::Target::Server(row) => row.subcommands,
            crate::commands::table::Target::Data(_) => &[],
        };
        let names = [entry.info.name].into_iter().chain(container.iter().map(|row| row.info.name));
        for name in names.filter(|name| !["quit", "shutdown", "client|reply", "client|pause"].contains(name)) {
            for count in 0..4 {
                let mut args: Vec<&[u8]> = name.split('|').map(str::as_bytes).collect();
                args.extend(std::iter::repeat_n(b"1".as_slice(), count));
                let mut request = Vec::new();
                bowline_resp::encode_request(&mut request, &args);
                assert_ne!(talk.ask(&request), "", "{args:?}");
            }
        }
    }
}

#[test]
fn the_text_protocol_says_that_data_is_loaded() {
    let mut talk = talk_while_loading(Dialect::Text, &[], tempfile::tempdir().unwrap());
    let told = talk.ask(b"GET a\nPING\nSTATS\n");
    let refused = "ERROR LOADING Bowline is loading its log into memory\n";
    assert!(told.starts_with(&refused.repeat(2)) && told.contains("loading: 1\n"), "{told}");
    talk.open(Options::new(talk.directory.path()));
    assert_eq!(talk.ask(b"GET a\nPING\n"), "NOT_FOUND\nPONG\n");
}

#[test]
fn the_text_protocol_speaks_its_grammar() {
    let mut talk = talk_with(Dialect::Text, &[], |_| {});
    let asked = b"PUT \"a key\" \"two\\nlines\"\r\nGET \"a key\"\nEXISTS \"a key\"\nSIZE\nDELETE \"a key\"\nGET \"a key\"\nPING\nFLUSH\nFROB\n";
    let reply = talk.ask(asked);
    let lines: Vec<&str> = reply.lines().collect();
    assert_eq!(lines[..8], ["OK", "\"two\\nlines\"", "true", "1", "OK", "NOT_FOUND", "PONG", "OK"]);
    assert!(lines[8].starts_with("ERROR unknown command"), "{reply}");
    assert!(talk.ask(b"STATS\n").contains("keys: 0\n"));
}

#[test]
fn a_text_write_is_held_for_its_commit() {
    let mut talk = talk_with(Dialect::Text, &[], |_| {});
    talk.send(b"PUT a 1\nPI");
    assert_eq!(talk.take(), "");
    talk.commit();
    assert_eq!(talk.take(), "OK\n");
    assert_eq!(talk.ask(b"NG\n"), "PONG\n");
}
