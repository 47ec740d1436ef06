//! The plain text protocol on a connection: its lines run through the same engine, session and durability as the Redis
//! protocol. The grammar and its rules are in [`codec`].
//!
//! A line becomes one engine command; its reply is taken apart and written as text, and waits for the same version.
//! Database 0, the server's durability level.

pub mod codec;

use std::time::Instant;

use bowline::Version;
use bowline::exec::{Planned, Replies, Stop};
use bowline_resp::{ArgRange, Protocol, ReplyDecoder, Value};

use crate::commands::info;
use crate::commands::table::{self, Target};
use crate::loading::REFUSAL;
use crate::session::limits::YIELD_BYTES;
use crate::session::{Session, Waits, Workbench};
use crate::state::PauseMode;
use codec::{Line, TextRequest, first_line, parse_request, write_error, write_value};

impl Session {
    /// Runs the lines of `buffer` from `start` on; returns where the first one begins that did not run.
    pub(crate) fn run_lines(&mut self, buffer: &[u8], mut start: usize, bench: &mut Workbench) -> usize {
        let output_before = self.output_bytes();
        self.incomplete = false;
        while self.wants_input(bench) && self.output_bytes() < output_before + YIELD_BYTES {
            let rest = buffer.get(start..).unwrap_or_default();
            match first_line(rest, self.line_searched) {
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
        let request = match parse_request(line) {
            Ok(Some(request)) => request,
            Ok(None) => return true,
            Err(error) => {
                bench.server.metrics.error("ERR");
                self.text(|out| write_error(out, &error.to_string()));
                return true;
            }
        };
        let open = matches!(request, TextRequest::Auth(_) | TextRequest::Quit);
        if !open && !self.is_authenticated(&bench.settings) {
            bench.server.metrics.error("NOAUTH");
            self.text(|out| write_error(out, "authentication required: AUTH \"password\""));
            return true;
        }
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
        let caller = self.caller(bench);
        let end = bench.executor().run(&caller, &bytes, &ranges, &planned, &mut apart);
        if let Some(Stop::Room) = end.stopped {
            self.wait_for(Waits::Room);
            return false;
        }
        let version = apart.waits_for(Version::ZERO);
        let decoded = ReplyDecoder::new().decode(apart.ready(Version::MAX));
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
    use super::*;

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
