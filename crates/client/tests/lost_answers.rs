//! What a caller is told when connections break, and what is never sent twice.

mod support;

use std::time::Duration;

use bowline_client::{Client, Error, LostReply, Options, Protocol, Retry, Value};
use support::{Action, FakeServer, reply};

#[test]
fn a_write_whose_answer_was_lost_is_unknown_and_not_sent_again() {
    let server = FakeServer::start(|_| Action::Close);
    let mut client = Client::new(server.options());
    let error = client.put(b"k", b"v").expect_err("the answer is lost");
    assert!(matches!(&error, Error::Unknown { command, cause: LostReply::Closed(_) } if command == "SET"), "{error:?}");
    assert!(!error.changed_nothing());
    assert_eq!(server.received(), ["1: SET k v"]);
}

#[test]
fn the_client_works_on_after_a_lost_answer() {
    let server = FakeServer::start(|request| if request.connection == 1 { Action::Close } else { reply("+OK\r\n") });
    let mut client = Client::new(server.options());
    client.put(b"k", b"1").expect_err("the answer is lost");
    client.put(b"k", b"2").expect("a new connection");
    assert_eq!(server.received(), ["1: SET k 1", "2: SET k 2"]);
}

#[test]
fn a_command_nobody_knows_is_never_sent_twice() {
    let server = FakeServer::start(|_| Action::Close);
    let mut client = Client::new(server.options());
    assert!(matches!(client.command(&["FUTURE.COMMAND", "x"]), Err(Error::Unknown { .. })));
    assert_eq!(server.received().len(), 1);
}

#[test]
fn a_read_whose_answer_was_lost_is_sent_again_on_a_new_connection() {
    let server =
        FakeServer::start(|request| if request.connection < 3 { Action::Close } else { reply("$5\r\nvalue\r\n") });
    let mut client = Client::new(server.options());
    assert_eq!(client.get(b"k").expect("the third try"), Some(b"value".to_vec()));
    assert_eq!(server.received(), ["1: GET k", "2: GET k", "3: GET k"]);
}

#[test]
fn a_read_that_is_lost_every_time_ends_after_its_retries() {
    let server = FakeServer::start(|_| Action::Close);
    let mut client = Client::new(server.options());
    assert!(matches!(client.get(b"k"), Err(Error::Connection { .. })));
    assert_eq!(server.received().len(), 4, "one try and three retries");
}

#[test]
fn a_write_that_is_not_answered_in_time_is_unknown() {
    let server = FakeServer::start(|_| Action::Silence);
    let mut client = Client::new(Options { read_timeout: Some(Duration::from_millis(30)), ..server.options() });
    let error = client.delete(b"k").expect_err("no answer");
    assert!(matches!(&error, Error::Unknown { cause: LostReply::Timeout(_), .. }), "{error:?}");
    assert_eq!(server.received(), ["1: DEL k"]);
    assert!(!client.is_connected(), "a late answer must not be taken for the next one");
}

#[test]
fn a_read_that_is_not_answered_in_time_is_a_timeout() {
    let server = FakeServer::start(|_| Action::Silence);
    let mut client = Client::new(Options { read_timeout: Some(Duration::from_millis(30)), ..server.options() });
    assert!(matches!(client.get(b"k"), Err(Error::Timeout { .. })));
    assert_eq!(server.received(), ["1: GET k"]);
}

#[test]
fn half_an_answer_is_a_lost_answer() {
    let server = FakeServer::start(|_| Action::ReplyAndClose(b"+O".to_vec()));
    let mut client = Client::new(server.options());
    assert!(matches!(client.put(b"k", b"v"), Err(Error::Unknown { .. })));
    assert_eq!(server.received().len(), 1);
}

#[test]
fn a_write_on_a_connection_that_was_closed_while_idle_is_sent_once_on_a_new_one() {
    let server = FakeServer::start(|request| match request.connection {
        1 => Action::ReplyAndClose(b"+PONG\r\n".to_vec()),
        _ => reply("+OK\r\n"),
    });
    let mut client = Client::new(server.options());
    client.ping().expect("the first connection");
    server.wait_until_closed();
    client.put(b"k", b"v").expect("the second connection");
    assert_eq!(server.received(), ["1: PING", "2: SET k v"]);
}

#[test]
fn an_answer_that_nobody_asked_for_is_not_taken_for_the_next_one() {
    let server = FakeServer::start(|request| match request.connection {
        1 => Action::ReplyAndClose(b"+PONG\r\n$5\r\nwrong\r\n".to_vec()),
        _ => reply("$5\r\nright\r\n"),
    });
    let mut client = Client::new(server.options());
    client.ping().expect("the first connection");
    server.wait_until_closed();
    assert_eq!(client.get(b"k").expect("the second connection"), Some(b"right".to_vec()));
}

#[test]
fn bytes_that_are_no_answer_are_a_protocol_error_for_a_read_and_unknown_for_a_write() {
    let server = FakeServer::start(|_| reply("HTTP/1.1 400 Bad Request\r\n"));
    let mut client = Client::new(server.options());
    assert!(matches!(client.get(b"k"), Err(Error::Protocol { .. })));
    assert!(matches!(client.put(b"k", b"v"), Err(Error::Unknown { cause: LostReply::Garbled(_), .. })));
}

#[test]
fn a_server_that_is_not_there_is_a_connection_error() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    drop(listener);
    let retry = Retry { retries: 2, first: Duration::ZERO, longest: Duration::ZERO };
    let mut client = Client::new(Options { retry, ..Options::at(&address).expect("an address") });
    let attempts = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counted = std::sync::Arc::clone(&attempts);
    client.observe(move |event| {
        if matches!(event, bowline_client::Event::Connecting { .. }) {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    });
    let error = client.put(b"k", b"v").expect_err("nobody listens");
    assert!(matches!(error, Error::Connection { .. }) && error.changed_nothing());
    assert_eq!(attempts.load(std::sync::atomic::Ordering::Relaxed), 3);
}

#[test]
fn an_error_answer_is_a_server_error_and_keeps_the_connection() {
    let server = FakeServer::start(|request| match request.text.as_str() {
        "GET list" => reply("-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"),
        _ => reply("+PONG\r\n"),
    });
    let mut client = Client::new(server.options());
    let error = client.get(b"list").expect_err("refused");
    assert!(matches!(&error, Error::Server(refusal) if refusal.code() == "WRONGTYPE"), "{error:?}");
    client.ping().expect("the same connection");
    assert_eq!(server.received(), ["1: GET list", "1: PING"]);
}

#[test]
fn an_old_server_is_spoken_to_in_resp2_with_auth_and_select() {
    let server = FakeServer::start(|request| reply(if request.text == "PING" { "+PONG\r\n" } else { "+OK\r\n" }));
    let options = Options { password: Some("secret".to_owned()), database: 4, ..server.options() };
    Client::connect(options).expect("greeted").ping().expect("answered");
    assert_eq!(server.received(), ["1: AUTH secret", "1: SELECT 4", "1: PING"]);
}

#[test]
fn a_new_server_is_greeted_once_with_protocol_and_password() {
    let server = FakeServer::start_raw(|request| {
        reply(if request.text == "HELLO 3 AUTH default secret" { "%1\r\n$5\r\nproto\r\n:3\r\n" } else { "-ERR no\r\n" })
    });
    let options = Options { password: Some("secret".to_owned()), ..server.options() };
    let connection = bowline_client::Connection::open(&options).expect("greeted");
    assert_eq!(connection.protocol(), Protocol::Resp3);
}

#[test]
fn a_refused_password_is_a_server_error_at_once() {
    let server = FakeServer::start_raw(|_| reply("-WRONGPASS invalid username-password pair or user is disabled.\r\n"));
    let options = Options { password: Some("wrong".to_owned()), ..server.options() };
    assert!(matches!(Client::connect(options), Err(Error::Server(refusal)) if refusal.code() == "WRONGPASS"));
}

#[test]
fn a_new_connection_is_told_what_the_lost_one_was_told() {
    let server = FakeServer::start(|request| match request.text.as_str() {
        "GET k" if request.connection == 1 => Action::Close,
        "GET k" => reply("$1\r\nv\r\n"),
        _ => reply("+OK\r\n"),
    });
    let mut client = Client::new(server.options());
    client.command(&["SELECT", "7"]).expect("selected");
    client.command(&["BL.DURABILITY", "everysec"]).expect("set");
    assert_eq!(client.get(b"k").expect("answered"), Some(b"v".to_vec()));
    assert_eq!(client.database(), 7);
    assert_eq!(server.received()[3..], ["2: SELECT 7", "2: BL.DURABILITY everysec", "2: GET k"]);
}

#[test]
fn a_transaction_whose_watch_was_lost_is_not_executed() {
    let server = FakeServer::start(|request| match request.text.as_str() {
        "GET k" => Action::Close,
        _ => reply("+OK\r\n"),
    });
    let mut client = Client::new(server.options());
    client.command(&["WATCH", "k"]).expect("watched");
    assert!(matches!(client.get(b"k"), Err(Error::TransactionLost { .. })));
    assert_eq!(server.received(), ["1: WATCH k", "1: GET k"]);
}

#[test]
fn a_lost_exec_is_unknown() {
    let server = FakeServer::start(|request| match request.text.as_str() {
        "EXEC" => Action::Close,
        "MULTI" => reply("+OK\r\n"),
        _ => reply("+QUEUED\r\n"),
    });
    let mut client = Client::new(server.options());
    client.command(&["MULTI"]).expect("begun");
    client.command(&["SET", "k", "v"]).expect("queued");
    assert!(matches!(client.command(&["EXEC"]), Err(Error::Unknown { .. })));
    assert!(!client.in_transaction());
}

#[test]
fn what_was_queued_is_unknown_when_its_exec_left_in_the_same_run() {
    let server = FakeServer::start(|request| if request.text == "MULTI" { reply("+OK\r\n") } else { Action::Close });
    let mut client = Client::new(server.options());
    let mut pipeline = client.pipeline();
    pipeline.command(&["MULTI"]).command(&["SET", "k", "v"]).command(&["EXEC"]);
    let answers = pipeline.run().expect("sent");
    assert!(answers[0].is_ok());
    assert!(matches!(answers[1], Err(Error::Unknown { .. })) && matches!(answers[2], Err(Error::Unknown { .. })));
}

#[test]
fn pushes_between_answers_are_kept_apart() {
    let server = FakeServer::start_raw(|request| match request.text.as_str() {
        "HELLO 3" => reply("%0\r\n"),
        _ => reply(">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n$1\r\nv\r\n"),
    });
    let mut client = Client::new(server.options());
    assert_eq!(client.get(b"k").expect("answered"), Some(b"v".to_vec()));
    assert!(matches!(client.next_push(), Some(Value::Push(items)) if items.len() == 2));
    assert_eq!(client.next_push(), None);
}

#[test]
fn a_command_that_is_answered_by_a_stream_is_not_sent() {
    let server = FakeServer::start(|_| Action::Close);
    let mut client = Client::new(server.options());
    assert!(matches!(client.command(&["SUBSCRIBE", "news"]), Err(Error::Usage(_))));
    assert!(matches!(client.command::<&str>(&[]), Err(Error::Usage(_))));
    assert!(server.received().is_empty());
}
