//! `kv_client` as a shell meets it: words, output, exit codes.

#[path = "support/store.rs"]
mod store;
mod support;

use std::io::Write;
use std::process::{Command, Output, Stdio};

use support::FakeServer;

struct Shell {
    server: FakeServer,
}

impl Shell {
    fn start() -> Self {
        Shell { server: store::start() }
    }

    fn run(&self, words: &[&str]) -> Output {
        self.run_with(words, b"", &[])
    }

    fn run_with(&self, words: &[&str], input: &[u8], environment: &[(&str, &str)]) -> Output {
        let port = self.server.port().to_string();
        let mut child = Command::new(env!("CARGO_BIN_EXE_kv_client"))
            .env("KV_HOST", "127.0.0.1")
            .env("KV_PORT", port)
            .env_remove("KV_VERBOSE")
            .env_remove("KV_PASSWORD")
            .envs(environment.iter().copied())
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        let input = input.to_vec();
        // A program that does not read its input closes the pipe, which is no failure of the test.
        let writer = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().expect("the program ends");
        let _ = writer.join().expect("the writer ends");
        output
    }
}

/// Standard output and the exit code.
fn seen(output: &Output) -> (String, i32) {
    (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.code().unwrap_or(-1))
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn each_word_prints_its_answer_and_ends_with_its_code() {
    let shell = Shell::start();
    let steps: &[(&[&str], &str, i32)] = &[
        (&["ping"], "PONG\n", 0),
        (&["get", "k"], "", 1),
        (&["exists", "k"], "false\n", 1),
        (&["put", "k", "a value"], "OK\n", 0),
        (&["get", "k"], "a value\n", 0),
        (&["exists", "k"], "true\n", 0),
        (&["size"], "1\n", 0),
        (&["stats"], "redis_version: 7.2.4\nbowline_version: 0.1.0\nload: 0.5\n", 0),
        (&["delete", "k"], "OK\n", 0),
        (&["delete", "k"], "", 1),
        (&["put", "--raw", "-x"], "OK\n", 0),
        (&["get", "--raw"], "-x\n", 0),
        (&["flush"], "OK\n", 0),
        (&["size"], "0\n", 0),
    ];
    for (words, text, code) in steps {
        assert_eq!(seen(&shell.run(words)), ((*text).to_owned(), *code), "{words:?}");
    }
}

#[test]
fn the_exit_code_tells_what_went_wrong() {
    let shell = Shell::start();
    for words in
        [&["put", "k"][..], &["get"], &["get", "a", "b"], &["--bogus"], &["--server=", "ping"], &["-x"], &["-p", "0"]]
    {
        let output = shell.run(words);
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        assert!(!output.stderr.is_empty() && output.stdout.is_empty(), "{words:?}");
    }
    let refused = shell.run(&["incr", "k"]);
    assert_eq!(refused.status.code(), Some(4));
    assert!(errors(&refused).contains("not an integer") && refused.stdout.is_empty());
    let absent = shell.run(&["--server=127.0.0.1:1", "--retries", "0", "ping"]);
    assert_eq!(absent.status.code(), Some(3));
    assert!(errors(&absent).contains("127.0.0.1:1"));
    let lost = shell.run(&["close", "k"]);
    assert_eq!(lost.status.code(), Some(3));
    assert!(errors(&lost).contains("may or may not have happened"), "{}", errors(&lost));
}

#[test]
fn any_byte_goes_in_from_stdin_and_comes_out_raw() {
    let shell = Shell::start();
    let value: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    assert_eq!(seen(&shell.run_with(&["-x", "put", "bytes"], &value, &[])), ("OK\n".to_owned(), 0));
    assert_eq!(shell.run(&["--raw", "get", "bytes"]).stdout, value);
}

#[test]
fn json_is_asked_for_by_a_flag() {
    let shell = Shell::start();
    shell.run(&["put", "k", "v"]);
    let steps: &[(&[&str], &str, i32)] = &[
        (&["get", "k"], "\"v\"\n", 0),
        (&["get", "none"], "null\n", 1),
        (&["exists", "k"], "true\n", 0),
        (&["size"], "1\n", 0),
        (&["mget", "k", "none"], "[\"v\",null]\n", 0),
        (&["incr", "k"], "{\"error\":\"ERR value is not an integer or out of range\"}\n", 4),
    ];
    for (words, text, code) in steps {
        let words = [&["--json"], *words].concat();
        assert_eq!(seen(&shell.run(&words)), ((*text).to_owned(), *code), "{words:?}");
    }
}

#[test]
fn other_words_are_sent_as_they_are() {
    let shell = Shell::start();
    assert_eq!(seen(&shell.run(&["SET", "k", "v"])), ("OK\n".to_owned(), 0));
    assert_eq!(seen(&shell.run(&["mget", "k", "none", "k"])), ("v\n\nv\n".to_owned(), 0));
    let typed = shell.run(&["--no-raw", "mget", "k", "none"]);
    assert_eq!(seen(&typed).0, "1) \"v\"\n2) (nil)\n");
}

#[test]
fn verbose_tells_attempts_and_timings_on_stderr_only() {
    let shell = Shell::start();
    let output = shell.run_with(&["ping"], b"", &[("KV_VERBOSE", "1")]);
    assert_eq!(seen(&output), ("PONG\n".to_owned(), 0));
    let told = errors(&output);
    assert!(told.contains("connecting to 127.0.0.1") && told.contains("PING answered in"), "{told}");
}

#[test]
fn the_self_test_passes_and_leaves_no_key() {
    let shell = Shell::start();
    shell.run(&["put", "mine", "v"]);
    let output = shell.run(&["test"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(seen(&output).0.matches(" OK ").count(), 9);
    assert_eq!(seen(&shell.run(&["size"])).0, "1\n");
}

#[test]
fn the_self_test_fails_on_a_server_that_forgets() {
    let server = FakeServer::start(|request| {
        support::reply(if request.text.starts_with("GET") { "$-1\r\n" } else { "+OK\r\n" })
    });
    let output = Shell { server }.run(&["test"]);
    assert_eq!(output.status.code(), Some(4));
    assert!(seen(&output).0.contains("FAILED") && errors(&output).contains("read back"));
}

#[test]
fn a_script_from_a_pipe_is_answered_line_by_line() {
    let shell = Shell::start();
    let mut script = b"# a comment\n\n".to_vec();
    (0..3000).for_each(|n| script.extend(format!("SET line:{n} value:{n}\n").into_bytes()));
    script.extend(b"set \"two words\" \"x\\ny\"\nGET line:2999\nDBSIZE\nexit\nFLUSHDB\n");
    let (text, code) = seen(&shell.run_with(&[], &script, &[]));
    assert_eq!(code, 0);
    assert_eq!(text, "OK\n".repeat(3001) + "value:2999\n3001\n");
    assert_eq!(shell.run(&["--raw", "get", "two words"]).stdout, b"x\ny");
}

#[test]
fn a_script_goes_on_after_an_error_and_tells_it_at_the_end() {
    let shell = Shell::start();
    let output = shell.run_with(&[], b"SET a 1\nINCR a\nGET a\n", &[]);
    assert_eq!(seen(&output), ("OK\nERR value is not an integer or out of range\n1\n".to_owned(), 4));
    assert!(errors(&output).contains("1 of 3 commands failed; the first one in line 2"), "{}", errors(&output));
}

#[test]
fn a_script_stops_where_its_connection_is_lost_and_says_what_is_unknown() {
    let shell = Shell::start();
    let output = shell.run_with(&[], b"SET a 1\nCLOSE now\nSET b 2\n", &[]);
    assert_eq!(seen(&output), ("OK\n".to_owned(), 3));
    let told = errors(&output);
    assert!(told.contains("line 2: CLOSE was sent") && told.contains("lines 3 to 3 may or may not"), "{told}");
    assert_eq!(seen(&shell.run(&["exists", "b"])).0, "false\n");
}

#[test]
fn a_script_with_an_open_quote_stops_before_it() {
    let shell = Shell::start();
    let output = shell.run_with(&[], b"SET a 1\nSET b \"2\nSET c 3\n", &[]);
    assert_eq!(seen(&output), ("OK\n".to_owned(), 2));
    assert!(errors(&output).contains("line 2: a quote is not closed"));
    assert_eq!(seen(&shell.run(&["size"])).0, "1\n");
}

#[test]
fn the_load_generator_sends_what_it_was_told_and_writes_its_reports() {
    let shell = Shell::start();
    let directory = tempfile::tempdir().expect("a directory");
    let (json, svg) = (directory.path().join("report.json"), directory.path().join("plot.svg"));
    let (json_path, svg_path) = (json.to_string_lossy().into_owned(), svg.to_string_lossy().into_owned());
    let output = shell.run(&[
        "bench",
        "--fill",
        "--keys",
        "500",
        "--requests",
        "3000",
        "--mix",
        "get:70,set:20,exists:10",
        "-c",
        "4",
        "-P",
        "5",
        "--threads",
        "2",
        "--distribution",
        "zipf",
        "--value-bytes",
        "10",
        "--json",
        &json_path,
        "--svg",
        &svg_path,
    ]);
    let (text, code) = seen(&output);
    assert_eq!(code, 0, "{}", errors(&output));
    for word in ["bowline 0.1.0", "p99.9", "get", "set", "exists", "all", "3,000"] {
        assert!(text.contains(word), "{word} is missing in {text}");
    }
    assert_eq!(seen(&shell.run(&["size"])).0, "500\n");
    assert_eq!(shell.run(&["--raw", "get", "key:000000000499"]).stdout.len(), 10);
    let report: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(json).expect("a report")).expect("JSON");
    assert_eq!(report["commands"]["all"]["ops"], 3000);
    assert_eq!(report["commands"]["get"]["not_found"], 0);
    assert!(report["commands"]["get"]["p99_us"].as_f64() > Some(0.0));
    assert!(std::fs::read_to_string(svg).expect("a plot").starts_with("<svg"));
    let sent = shell.server.received();
    let measured = |name: &str| sent.iter().filter(|request| request.contains(name)).count();
    // 500 SETs fill the keys; one GET and one DBSIZE are this test's own.
    assert_eq!(measured(": GET ") - 1 + measured(": SET ") - 500 + measured(": EXISTS "), 3000);
}

#[test]
fn the_open_loop_sends_the_requests_it_was_told() {
    let shell = Shell::start();
    let output = shell.run(&["bench", "--rate", "5000", "--requests", "300", "--mix", "ping", "-c", "3"]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    assert_eq!(shell.server.received().iter().filter(|request| request.contains(": PING")).count(), 300);
}

#[test]
fn the_load_generator_tells_errors_and_lost_connections() {
    let shell = Shell::start();
    let refused = shell.run(&["bench", "--requests", "50", "--mix", "incr", "-c", "2"]);
    assert_eq!(refused.status.code(), Some(4));
    assert!(seen(&refused).0.contains("not an integer"));
    let server = FakeServer::start(|request| match request.text.as_str() {
        "PING" => support::Action::Close,
        _ => support::reply("+OK\r\n"),
    });
    let lost = Shell { server }.run(&["bench", "--requests", "50", "--mix", "ping", "-c", "2"]);
    assert_eq!(lost.status.code(), Some(3), "{}", errors(&lost));
}
