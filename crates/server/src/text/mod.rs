//! The plain text protocol on a connection: its lines run through the same engine, session and durability as the Redis
//! protocol. The grammar and its rules are in [`codec`].
//!
//! A line becomes one engine command; its reply is taken apart and written as text, and waits for the same version.
//! Database 0, the server's durability level.

pub mod codec;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use bowline::Version;
use bowline::exec::{Planned, Replies};
use bowline_resp::{ArgRange, Protocol, ReplyDecoder, Value};

use crate::commands::info;
use crate::commands::table::{self, Target};
use crate::loading::REFUSAL;
use crate::session::limits::{LINE_BYTES_MAX, UNAUTHENTICATED_LINE_BYTES_MAX, YIELD_BYTES};
use crate::session::{Session, Waits, Workbench};
use crate::state::PauseMode;
use codec::{Line, TextCommand, TextError, TextRequest, first_line, is_http, parse_command, write_error, write_value};

/// How often it is told that a connection sent HTTP: who scans ports must not fill the log.
const HTTP_TOLD_EVERY_MS: u64 = 10_000;

static HTTP_TOLD: Told = Told(AtomicU64::new(0));

/// When something was told last, Unix time in milliseconds.
struct Told(AtomicU64);

impl Told {
    /// Whether it may be told again, which it is then.
    fn may_tell(&self, now_ms: u64) -> bool {
        let last = self.0.load(Relaxed);
        now_ms >= last.saturating_add(HTTP_TOLD_EVERY_MS)
            && self.0.compare_exchange(last, now_ms, Relaxed, Relaxed).is_ok()
    }
}

impl Session {
    /// Runs the lines of `buffer` from `start` on; returns where the first one begins that did not run.
    pub(crate) fn run_lines(&mut self, buffer: &[u8], mut start: usize, bench: &mut Workbench) -> usize {
        let output_before = self.output_bytes();
        self.incomplete = false;
        while self.wants_input(bench) && self.output_bytes() < output_before + YIELD_BYTES {
            let rest = buffer.get(start..).unwrap_or_default();
            let bytes_max =
                if self.is_authenticated(&bench.settings) { LINE_BYTES_MAX } else { UNAUTHENTICATED_LINE_BYTES_MAX };
            match first_line(rest, self.line_searched, bytes_max) {
                Ok(Line::Incomplete) => {
                    self.line_searched = rest.len();
                    self.incomplete = true;
                    return start;
                }
                Ok(Line::Complete { text_end, end }) => {
                    if !self.run_line(rest.get(..text_end).unwrap_or_default(), bench) {
                        return start;
                    }
                    self.line_searched = 0;
                    start += end;
                }
                Err(error) => {
                    self.text(|out| write_error(out, &error.to_string()));
                    self.close_after_replies();
                }
            }
        }
        start
    }

    /// Runs one line. False: it must wait and be given again.
    fn run_line(&mut self, line: &[u8], bench: &mut Workbench) -> bool {
        if is_http(line) {
            self.refuse_http(bench);
            return true;
        }
        let (command, rest) = match parse_command(line) {
            Ok(Some(found)) => found,
            Ok(None) => return true,
            Err(error) => return self.refuse_line(&error, bench),
        };
        let open = matches!(command, TextCommand::Auth | TextCommand::Quit);
        // Before the rest of the line is read: a stranger's words cost nothing.
        if !open && !self.is_authenticated(&bench.settings) {
            bench.server.metrics.error("NOAUTH");
            self.text(|out| write_error(out, "authentication required: AUTH \"password\""));
            return true;
        }
        let request = match command.request(rest) {
            Ok(request) => request,
            Err(error) => return self.refuse_line(&error, bench),
        };
        if bench.is_loading() && !open && request != TextRequest::Stats {
            bench.server.metrics.error(REFUSAL);
            self.text(|out| write_error(out, REFUSAL));
            return true;
        }
        let words: Vec<&[u8]> = match &request {
            TextRequest::Put { key, value } => vec![b"set", key, value],
            TextRequest::Get(key) => vec![b"get", key],
            TextRequest::Delete(key) => vec![b"del", key],
            TextRequest::Exists(key) => vec![b"exists", key],
            TextRequest::Size => vec![b"dbsize"],
            TextRequest::Flush => vec![b"flushdb"],
            TextRequest::Ping => {
                self.text(|out| out.extend_from_slice(b"PONG\n"));
                return true;
            }
            TextRequest::Stats => {
                let figures = info::figures(bench);
                self.text(|out| out.extend_from_slice(figures.as_bytes()));
                return true;
            }
            TextRequest::Auth(password) => {
                self.authenticate_line(password, bench);
                return true;
            }
            TextRequest::Quit => {
                self.text(|out| out.extend_from_slice(b"OK\n"));
                self.close_after_replies();
                return true;
            }
        };
        self.run_words(&request, &words, bench)
    }

    /// Answers what is wrong with a line; the next one may be better.
    fn refuse_line(&mut self, error: &TextError, bench: &Workbench) -> bool {
        bench.server.metrics.error("ERR");
        self.text(|out| write_error(out, &error.to_string()));
        true
    }

    /// Ends the conversation with a browser before a line of its request's body runs.
    fn refuse_http(&mut self, bench: &Workbench) {
        bench.server.metrics.error("ERR");
        if HTTP_TOLD.may_tell(bench.now_ms) {
            let peer = &self.client.peer;
            tracing::warn!(
                peer,
                "closes a connection to text-port that sends HTTP: perhaps a page in a browser on that machine that \
                 tries to send commands; set a password or close the port to it"
            );
        }
        self.text(|out| write_error(out, "this is not an HTTP server"));
        self.close_after_replies();
    }

    fn authenticate_line(&mut self, password: &[u8], bench: &Workbench) {
        let right = crate::commands::same_secret(password, bench.settings.requirepass.as_bytes());
        self.authenticated |= right;
        match right {
            true => self.text(|out| out.extend_from_slice(b"OK\n")),
            false => {
                bench.server.metrics.error("WRONGPASS");
                self.text(|out| write_error(out, "wrong password"));
            }
        }
    }

    /// Runs an engine command and writes its reply as text, held for what it tells of.
    fn run_words(&mut self, request: &TextRequest, words: &[&[u8]], bench: &mut Workbench) -> bool {
        let Some(entry) = words.first().and_then(|name| table::lookup(name)) else { return true };
        let Target::Data(command) = entry.target else { return true };
        let held_back = match bench.server.paused(bench.now_ms) {
            None => false,
            Some(PauseMode::All) => true,
            Some(PauseMode::Writes) => entry.writes,
        };
        if held_back {
            self.wait_for(Waits::Pause);
            return false;
        }
        let (mut bytes, mut ranges) = (Vec::new(), Vec::new());
        for word in words {
            ranges.push(ArgRange { start: bytes.len() as u32, len: word.len() as u32 });
            bytes.extend_from_slice(word);
        }
        let planned = [Planned { command, first_range: 0, ranges: ranges.len() as u32 }];
        let began = Instant::now();
        let mut apart = Replies::new();
        let caller = self.begin_run(bench);
        let end = bench.executor().run(&caller, &bytes, &ranges, &planned, &mut apart);
        self.note_stop(end.done, end.stopped, bench);
        if end.done == 0 {
            return false;
        }
        let version = apart.waits_for(Version::ZERO);
        let decoded = ReplyDecoder::new().decode(&apart.take_all());
        let Ok(Some((value, _))) = decoded else { unreachable!("the engine wrote a whole reply") };
        let commit = bench.server.commit();
        self.reply_when(version.unwrap_or_default(), commit, |reply| {
            let mut out = Vec::new();
            write_reply(&mut out, request, &value);
            reply.raw(&out);
        });
        bench.count_text(entry, began);
        true
    }

    fn text(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut out = Vec::new();
        write(&mut out);
        debug_assert_eq!(self.protocol, Protocol::Resp2, "HELLO cannot be said in text");
        self.reply().raw(&out);
    }
}

/// An engine's reply in the words of the text protocol.
fn write_reply(out: &mut Vec<u8>, request: &TextRequest, value: &Value) {
    match (request, value) {
        (_, Value::Error(message)) => write_error(out, message.strip_prefix("ERR ").unwrap_or(message)),
        (TextRequest::Get(_), Value::Bulk(bytes)) => write_value(out, bytes),
        (TextRequest::Get(_), Value::Null) | (TextRequest::Delete(_), Value::Integer(0)) => {
            out.extend_from_slice(b"NOT_FOUND\n");
        }
        (TextRequest::Exists(_), Value::Integer(count)) => {
            out.extend_from_slice(if *count > 0 { b"true\n" } else { b"false\n" });
        }
        (TextRequest::Size, Value::Integer(count)) => out.extend_from_slice(format!("{count}\n").as_bytes()),
        _ => out.extend_from_slice(b"OK\n"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::net::listen::Dialect;
    use crate::net::mailbox::Mailbox;
    use crate::session::clients::Introduction;
    use crate::settings::{SettingsStore, Sources};
    use crate::state::Server;

    /// What a server without data answers to these bytes, and whether it closes then.
    fn answer(settings: &[(&str, &str)], bytes: &[u8]) -> (String, bool) {
        let store = Arc::new(SettingsStore::load(Sources::default()).unwrap());
        store.set(settings).unwrap();
        let server = Server::new(store);
        let mut bench = Workbench::new(server.clone());
        let poll = mio::Poll::new().unwrap();
        let client = server.clients.register(Introduction {
            peer: "127.0.0.1:50000".to_owned(),
            local: "127.0.0.1:6380".to_owned(),
            unix: false,
            descriptor: 9,
            now_ms: bench.now_ms,
            home: Mailbox::new(poll.registry(), mio::Token(0)).unwrap(),
        });
        let mut session = Session::new(client, Dialect::Text, &bench.settings());
        session.receive(bytes, &mut bench);
        (String::from_utf8_lossy(session.output(Version::ZERO)).into_owned(), session.is_closing())
    }

    #[test]
    fn a_stranger_gets_a_short_line_and_after_auth_a_long_one() {
        let long = vec![b'x'; UNAUTHENTICATED_LINE_BYTES_MAX];
        let (text, closes) = answer(&[("requirepass", "secret")], &long);
        assert_eq!(text, "ERROR line longer than 1024 bytes: authenticate first: AUTH \"password\"\n");
        assert!(closes);
        let (text, closes) = answer(&[("requirepass", "secret")], &[b"AUTH secret\nAUTH ", &long[..], b"\n"].concat());
        assert_eq!((text.as_str(), closes), ("OK\nERROR wrong password\n", false));
        let (text, closes) = answer(&[], &long);
        assert_eq!((text.as_str(), closes), ("", false));
    }

    #[test]
    fn a_stranger_is_refused_before_the_words_are_read() {
        let (text, closes) = answer(&[("requirepass", "secret")], b"GET \"open\nPING one too many\nAUTH secret\nGET\n");
        let refusal = "ERROR authentication required: AUTH \"password\"\n";
        assert_eq!(text, [refusal, refusal, "OK\n", "ERROR wrong number of words: GET \"key\"\n"].concat());
        assert!(!closes);
    }

    #[test]
    fn the_body_of_a_browsers_request_does_not_run() {
        for head in ["POST / HTTP/1.1\r\n", "Host: localhost\r\n", "PUT /k HTTP/1.1\r\n", "GET /?x HTTP/1.0\r\n"] {
            let request = format!("{head}Content-Length: 7\r\n\r\nSTATS\r\n");
            let (text, closes) = answer(&[], request.as_bytes());
            assert_eq!((text.as_str(), closes), ("ERROR this is not an HTTP server\n", true), "{head}");
        }
    }

    #[test]
    fn http_is_told_once_in_a_while() {
        let told = Told(AtomicU64::new(0));
        let start = 1_700_000_000_000;
        let at = [0, 1, HTTP_TOLD_EVERY_MS - 1, HTTP_TOLD_EVERY_MS, HTTP_TOLD_EVERY_MS + 1];
        assert_eq!(at.map(|later| told.may_tell(start + later)), [true, false, false, true, false]);
    }

    #[test]
    fn engine_replies_become_the_words_of_the_grammar() {
        let shown = |request: TextRequest, value: Value| {
            let mut out = Vec::new();
            write_reply(&mut out, &request, &value);
            String::from_utf8(out).unwrap()
        };
        let key = || b"k".to_vec();
        assert_eq!(shown(TextRequest::Get(key()), Value::Bulk(b"v".to_vec())), "v\n");
        assert_eq!(shown(TextRequest::Get(key()), Value::Null), "NOT_FOUND\n");
        assert_eq!(shown(TextRequest::Delete(key()), Value::Integer(0)), "NOT_FOUND\n");
        assert_eq!(shown(TextRequest::Delete(key()), Value::Integer(1)), "OK\n");
        assert_eq!(shown(TextRequest::Exists(key()), Value::Integer(1)), "true\n");
        assert_eq!(shown(TextRequest::Size, Value::Integer(3)), "3\n");
        assert_eq!(shown(TextRequest::Flush, Value::Simple("OK".into())), "OK\n");
        assert_eq!(shown(TextRequest::Flush, Value::Error("MISCONF full\n".into())), "ERROR MISCONF full \n");
    }
}
