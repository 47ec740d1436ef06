//! Many requests at once over one connection, and many threads over few connections.

mod support;

use std::time::Duration;

use bowline_client::{Client, Error, Pool, Value};
use support::{Action, FakeServer, reply};

fn echo_server() -> FakeServer {
    FakeServer::start(|request| match request.text.split_once(' ') {
        Some(("ECHO", text)) => Action::Reply(format!("${}\r\n{text}\r\n", text.len()).into_bytes()),
        Some(_) => reply("+OK\r\n"),
        None => reply("+PONG\r\n"),
    })
}

#[test]
fn a_pipeline_gives_each_command_its_own_answer_in_order() {
    let server = echo_server();
    let mut client = Client::new(server.options());
    let mut pipeline = client.pipeline();
    for number in 0..500 {
        pipeline.command(&["ECHO".to_owned(), number.to_string()]);
    }
    let answers = pipeline.run().expect("sent");
    assert!(pipeline.is_empty());
    for (number, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer.expect("answered"), Value::Bulk(number.to_string().into_bytes()));
    }
}

#[test]
fn a_server_that_reads_nothing_until_its_answers_are_read_does_not_block_a_long_pipeline() {
    let server = echo_server();
    let mut client = Client::new(server.options());
    let text = "x".repeat(20_000);
    let mut pipeline = client.pipeline();
    for _ in 0..2_000 {
        pipeline.command(&["ECHO", &text]);
    }
    let answers = pipeline.run().expect("sent");
    assert!(answers.iter().all(|answer| matches!(answer, Ok(Value::Bulk(bytes)) if bytes.len() == text.len())));
}

#[test]
fn a_pipeline_that_breaks_off_tells_the_truth_about_each_command() {
    let server = FakeServer::start(|request| match request.text.as_str() {
        "SET a 1" => reply("+OK\r\n"),
        "SET b 2" => reply("-OOM no room\r\n"),
        _ => Action::Close,
    });
    let mut client = Client::new(server.options());
    let mut pipeline = client.pipeline();
    pipeline.command(&["SET", "a", "1"]).command(&["SET", "b", "2"]).command(&["SET", "c", "3"]).command(&["GET", "a"]);
    let large = "x".repeat(100_000);
    pipeline.command(&["SET", "d", &large]);
    let answers = pipeline.run().expect("sent");
    assert!(matches!(answers[0], Ok(Value::Simple(_))));
    assert!(matches!(answers[1], Err(Error::Server(_))));
    assert!(matches!(answers[2], Err(Error::Unknown { .. })));
    assert!(matches!(answers[3], Err(Error::Connection { .. })), "a read changes nothing");
    assert!(matches!(answers[4], Err(Error::Connection { .. })), "it did not fit the window, so it was not sent");
    assert!(server.received().iter().all(|request| request.starts_with("1: ")), "nothing is sent again");
}

#[test]
fn a_pipeline_of_reads_is_sent_again_when_it_breaks_off() {
    let server = FakeServer::start(|request| match request.text.as_str() {
        "GET b" if request.connection == 1 => Action::Close,
        key => Action::Reply(format!("${}\r\n{key}\r\n", key.len()).into_bytes()),
    });
    let mut client = Client::new(server.options());
    let mut pipeline = client.pipeline();
    pipeline.command(&["GET", "a"]).command(&["GET", "b"]);
    let answers: Vec<Value> = pipeline.run().expect("sent").into_iter().map(|answer| answer.expect("read")).collect();
    assert_eq!(answers, [Value::Bulk(b"GET a".to_vec()), Value::Bulk(b"GET b".to_vec())]);
}

#[test]
fn a_batch_is_one_command() {
    let server = echo_server();
    let mut client = Client::new(server.options());
    client.put_batch(&[("a", "1"), ("b", "2")]).expect("set");
    client.put_batch::<&str, &str>(&[]).expect("nothing to do");
    assert_eq!(server.received(), ["1: MSET a 1 b 2"]);
}

#[test]
fn a_pool_uses_a_connection_again() {
    let server = echo_server();
    let pool = Pool::new(server.options(), 4);
    for _ in 0..3 {
        pool.get().expect("free").ping().expect("answered");
    }
    assert_eq!((pool.idle(), pool.in_use()), (1, 0));
    assert_eq!(server.received(), ["1: PING"; 3]);
}

#[test]
fn a_full_pool_refuses_after_its_waiting_time_and_serves_again_when_one_is_given_back() {
    let server = echo_server();
    let pool = Pool::with_waiting_time(server.options(), 1, Duration::from_millis(20));
    let taken = pool.get().expect("free");
    assert!(matches!(pool.get(), Err(Error::PoolExhausted { size: 1, .. })));
    drop(taken);
    pool.get().expect("given back").ping().expect("answered");
}

#[test]
fn many_threads_share_few_connections() {
    let server = echo_server();
    let pool = Pool::new(server.options(), 3);
    std::thread::scope(|scope| {
        for worker in 0..24 {
            let pool = pool.clone();
            scope.spawn(move || {
                for round in 0..20 {
                    let text = format!("{worker}-{round}");
                    let answer = pool.get().expect("free").command(&["ECHO", &text]).expect("answered");
                    assert_eq!(answer, Value::Bulk(text.into_bytes()));
                }
            });
        }
    });
    let connections = server.received().iter().filter_map(|request| request.split(':').next()?.parse().ok()).max();
    assert!(connections <= Some(3_usize), "{connections:?}");
    assert_eq!(server.received().len(), 24 * 20);
}

#[test]
fn a_connection_left_in_another_state_is_not_handed_on() {
    let server = echo_server();
    let pool = Pool::new(server.options(), 1);
    pool.get().expect("free").command(&["SELECT", "3"]).expect("selected");
    assert_eq!(pool.idle(), 0);
    pool.get().expect("free").ping().expect("answered");
    assert_eq!(server.received(), ["1: SELECT 3", "2: PING"]);
}
