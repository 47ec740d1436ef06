//! `kv_client import` against a server that refuses, forgets and leaves exactly when it is told to.

mod support;

use std::io::Write;
use std::process::{Command, Output, Stdio};

use bowline_rdb::Writer;
use support::{Action, FakeServer, Request, reply};

const COMMANDS: &str = "*3\r\n*3\r\n$3\r\nset\r\n:-3\r\n*1\r\n+write\r\n*3\r\n$4\r\nincr\r\n:2\r\n*2\r\n+write\r\n+fast\r\n*3\r\n$6\r\nconfig\r\n:-2\r\n*1\r\n+admin\r\n";

/// A server that knows SET, INCR and CONFIG; `other` may answer first.
fn server(mut other: impl FnMut(&Request) -> Option<Action> + Send + 'static) -> FakeServer {
    FakeServer::start(move |request| {
        if let Some(action) = other(request) {
            return action;
        }
        match request.text.as_str() {
            "COMMAND" => reply(COMMANDS),
            "EXEC" => reply("*2\r\n+OK\r\n:2\r\n"),
            _ => reply("+OK\r\n"),
        }
    })
}

fn import(server: &FakeServer, words: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kv_client"))
        .args(["--server", &format!("127.0.0.1:{}", server.port()), "import"])
        .args(words)
        .env_remove("KV_VERBOSE")
        .env_remove("KV_PASSWORD")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_vec();
    // A program that stops early closes the pipe, which is no failure of the test.
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("the program ends");
    let _ = writer.join().expect("the writer ends");
    output
}

/// Exit code, standard output, standard error.
fn seen(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

/// What was sent after COMMAND, without the number of the connection.
fn sent(server: &FakeServer) -> Vec<String> {
    let texts = server.received().into_iter().map(|line| line.split_once(": ").expect("a number").1.to_owned());
    texts.filter(|text| text != "COMMAND").collect()
}

/// An RDB of these keys, each with its database.
fn rdb(keys: &[(u64, &str)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new()).expect("memory");
    for (database, key) in keys {
        writer.database(*database).expect("memory");
        writer.entry(key.as_bytes(), b"value", None).expect("memory");
    }
    writer.finish().expect("memory")
}

fn aof(commands: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for command in commands {
        bowline_resp::encode_request(&mut bytes, &command.split(' ').collect::<Vec<_>>());
    }
    bytes
}

fn in_a_file(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(bytes).expect("a file");
    file
}

#[test]
fn each_entry_is_set_in_its_database() {
    let server = server(|_| None);
    let output = import(&server, &["-"], &rdb(&[(0, "a"), (3, "b"), (3, "c"), (0, "d")]));
    let (code, out, _) = seen(&output);
    assert_eq!(code, 0);
    assert!(out.starts_with("imported 4 keys in ") && out.ends_with("databases: 0, 3\n"), "{out}");
    assert_eq!(sent(&server), ["SET a value", "SELECT 3", "SET b value", "SET c value", "SELECT 0", "SET d value"]);
}

#[test]
fn an_expired_entry_is_left_out_and_a_later_one_keeps_its_time() {
    let mut writer = Writer::new(Vec::new()).expect("memory");
    writer.entry(b"gone", b"v", Some(1000)).expect("memory");
    writer.entry(b"later", b"v", Some(4_102_444_800_000)).expect("memory");
    let server = server(|_| None);
    let output = import(&server, &["--json", "-"], &writer.finish().expect("memory"));
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&result["keys"], &result["expired"]), (&1.into(), &1.into()));
    assert_eq!(sent(&server), ["SET later v PXAT 4102444800000"]);
}

#[test]
fn a_refused_select_keeps_its_keys_out_of_other_databases() {
    let server = server(|request| (request.text == "SELECT 20").then(|| reply("-ERR DB index is out of range\r\n")));
    let file = in_a_file(&rdb(&[(0, "a"), (20, "b"), (1, "c")]));
    let (code, _, told) = seen(&import(&server, &[&file.path().display().to_string()], b""));
    assert_eq!(code, 4);
    assert!(
        told.contains(
            "SELECT 20: the server answered ERR DB index is out of range; confirmed before: 1 key and 0 commands"
        ),
        "{told}"
    );
    assert_eq!(sent(&server), ["SET a value", "SELECT 20"]);
}

#[test]
fn a_refused_key_is_named() {
    let server = server(|request| request.text.starts_with("SET b ").then(|| reply("-OOM no room\r\n")));
    let (code, out, told) = seen(&import(&server, &["-"], &rdb(&[(0, "a"), (0, "b"), (0, "c")])));
    assert_eq!((code, out.as_str()), (4, ""));
    assert!(told.contains("key b: the server answered OOM no room; confirmed before: 1 key and 0 commands"), "{told}");
}

#[test]
fn a_lost_connection_ends_the_import_and_says_how_far_it_came() {
    let server = server(|request| request.text.starts_with("SET b ").then_some(Action::Close));
    let (code, _, told) = seen(&import(&server, &["-"], &rdb(&[(0, "a"), (0, "b"), (0, "c")])));
    assert_eq!(code, 3);
    assert!(told.contains("was lost") && told.contains("confirmed before: 1 key and 0 commands"), "{told}");
    assert!(told.contains("importing again is harmless"), "{told}");
    assert!(server.received().iter().all(|request| request.starts_with("1: ")), "no second connection is made");
}

#[test]
fn a_server_that_never_answers_is_given_up() {
    let server = server(|request| request.text.starts_with("SET").then_some(Action::Silence));
    let (code, _, told) = seen(&import(&server, &["--timeout", "0.2", "-"], &rdb(&[(0, "a")])));
    assert_eq!(code, 3);
    assert!(told.contains("no answer in time"), "{told}");
}

#[test]
fn a_damaged_file_is_refused_before_anything_is_sent() {
    let mut bytes = rdb(&[(0, "a"), (0, "b")]);
    let place = bytes.len() - 12;
    bytes[place] ^= 1;
    let file = in_a_file(&bytes);
    let file_server = server(|_| None);
    let (code, _, told) = seen(&import(&file_server, &[&file.path().display().to_string()], b""));
    assert_eq!(code, 2);
    assert!(told.contains("damaged") && told.contains("nothing was imported"), "{told}");
    assert_eq!(sent(&file_server), [""; 0]);

    let pipe_server = server(|_| None);
    let (code, _, told) = seen(&import(&pipe_server, &["-"], &bytes));
    assert_eq!(code, 2);
    assert!(told.contains("imported before: 2 keys and 0 commands"), "{told}");
}

#[test]
fn commands_go_as_they_are_and_a_transaction_as_a_whole() {
    let server = server(|_| None);
    let commands = ["SELECT 2", "SET a 1", "MULTI", "SET b 1", "INCR b", "EXEC", "INCR a"];
    let (code, out, told) = seen(&import(&server, &["-"], &aof(&commands)));
    assert_eq!(code, 0, "{told}");
    assert!(out.contains("0 keys, 4 commands in"), "{out}");
    assert_eq!(sent(&server), commands);
}

#[test]
fn what_is_no_write_of_the_server_never_reaches_it() {
    let server = server(|_| None);
    let file = in_a_file(&aof(&["SET a 1", "CONFIG SET requirepass x", "HSET h f v"]));
    let path = file.path().display().to_string();
    let (code, _, told) = seen(&import(&server, &[&path], b""));
    assert_eq!(code, 4);
    assert!(told.contains("byte 27: CONFIG \"SET\" is no write that the server has"), "{told}");
    assert!(told.contains("nothing was imported"), "{told}");
    assert_eq!(sent(&server), [""; 0]);

    let (code, out, told) = seen(&import(&server, &["--skip-unsupported", &path], b""));
    assert_eq!(code, 0);
    assert!(out.contains("1 commands") && out.contains("2 skipped"), "{out}");
    assert!(told.contains("HSET \"h\""), "{told}");
    assert_eq!(sent(&server), ["SET a 1"]);
}

#[test]
fn a_cut_last_command_is_left_out_and_told() {
    let server = server(|_| None);
    let mut bytes = aof(&["SET a 1", "MULTI", "SET b 1"]);
    bytes.truncate(bytes.len() - 4);
    let (code, out, told) = seen(&import(&server, &["--json", "-"], &bytes));
    assert_eq!(code, 0);
    let result: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((&result["commands"], &result["truncated"]["offset"]), (&1.into(), &27.into()));
    assert!(told.contains("ends within a transaction: everything up to byte 27 was imported"), "{told}");
    assert_eq!(sent(&server), ["SET a 1"]);
}

#[test]
fn a_transaction_that_the_server_refuses_is_named_with_its_cause() {
    let server = server(|request| match request.text.as_str() {
        "INCR b c" => Some(reply("-ERR wrong number of arguments\r\n")),
        "EXEC" => Some(reply("-EXECABORT Transaction discarded because of previous errors.\r\n")),
        _ => None,
    });
    let (code, _, told) = seen(&import(&server, &["-"], &aof(&["MULTI", "SET b 1", "INCR b c", "EXEC"])));
    assert_eq!(code, 4);
    assert!(told.contains("INCR b: the server answered ERR wrong number of arguments"), "{told}");
    assert!(told.contains("must not run twice"), "{told}");
}

#[test]
fn wrong_words_and_other_files_are_refused() {
    let server = server(|_| None);
    for words in [&[][..], &["/no/such/file"], &["a", "b"], &["--bogus", "-"], &["-n", "3", "-"]] {
        let (code, _, told) = seen(&import(&server, words, b""));
        assert_eq!(code, 2, "{words:?}: {told}");
        assert!(!told.is_empty());
    }
    let file = in_a_file(b"\x7fELF");
    for (path, what) in [(file.path().display().to_string(), "\\x7fELF"), ("/".to_owned(), "no *.manifest")] {
        let (code, _, told) = seen(&import(&server, &[&path], b""));
        assert_eq!(code, 2);
        assert!(told.contains(what), "{told}");
    }
    assert_eq!(seen(&import(&server, &["-"], b"")).0, 2, "an empty pipe is no file");
}
