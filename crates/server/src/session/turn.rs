//! From received bytes to executed requests: gathers a batch, hands it to the engine, and steps over what ran.

use std::time::Instant;

use bowline::exec::{Arguments, Planned, RunEnd};
use bowline_resp::{ArgRange, Args, Decoded, ProtocolError};

use super::limits::{BATCH_REQUESTS_MAX, YIELD_BYTES};
use super::workbench::Batch;
use super::{ReplyMode, Session, Workbench};
use crate::commands::table::{self, Entry, Target};
use crate::metrics::slowlog::shorten;
use crate::net::listen::Dialect;

/// Why gathering stopped. `end` is where the request that stopped it ends.
enum Then {
    /// The batch is full.
    More,
    /// The next request is not all there.
    Incomplete,
    /// A request that must run by itself; its arguments are in `ranges` from `first` on.
    Single { entry: Option<&'static Entry>, first: usize, end: usize },
    /// The same, as an inline request whose arguments are in the decoder.
    Inline { end: usize },
    /// The bytes follow no protocol.
    Broken(ProtocolError),
}

impl Session {
    /// Runs the requests of `buffer` from `start` on; returns where the first one begins that did not run.
    pub(super) fn run(&mut self, buffer: &[u8], start: usize, bench: &mut Workbench) -> usize {
        if self.dialect == Dialect::Text {
            return self.run_lines(buffer, start, bench);
        }
        // Moved out so that handlers may borrow the whole workbench.
        let mut ranges = std::mem::take(&mut bench.ranges);
        let mut batch = std::mem::take(&mut bench.batch);
        let end = self.run_requests(buffer, start, bench, &mut ranges, &mut batch);
        bench.ranges = ranges;
        bench.batch = batch;
        end
    }

    fn run_requests(
        &mut self,
        buffer: &[u8],
        mut start: usize,
        bench: &mut Workbench,
        ranges: &mut Vec<ArgRange>,
        batch: &mut Batch,
    ) -> usize {
        let yield_at = bench.reply_bytes_max.min(self.replies.len().saturating_add(YIELD_BYTES));
        bench.limit_replies(yield_at);
        self.incomplete = false;
        while self.may_go_on(yield_at, bench) {
            let (gathered_to, then) = self.gather(buffer, start, bench, ranges, batch);
            if !batch.planned.is_empty() {
                let done = self.run_batch(buffer, bench, ranges, batch);
                if done < batch.planned.len() {
                    self.decoder.restart();
                    return done.checked_sub(1).and_then(|last| batch.ends.get(last)).copied().unwrap_or(start);
                }
            }
            start = gathered_to;
            match then {
                Then::More => {}
                Then::Incomplete => {
                    self.incomplete = true;
                    return start;
                }
                Then::Single { .. } | Then::Inline { .. } if !self.may_go_on(yield_at, bench) => return start,
                Then::Single { entry, first, end } => {
                    let chunked = self.decoder.chunked().to_vec();
                    let args = Args::with_chunks(buffer, ranges.get(first..).unwrap_or_default(), &chunked);
                    if !self.single(args, entry, bench) {
                        return start;
                    }
                    start = end;
                }
                Then::Inline { end } => {
                    if !self.inline(bench) {
                        return start;
                    }
                    start = end;
                }
                Then::Broken(error) => {
                    self.break_off(&error, bench);
                    return start;
                }
            }
        }
        start
    }

    /// Whether this turn runs another request: it may, and has not made `yield_at` bytes of replies yet.
    fn may_go_on(&mut self, yield_at: usize, bench: &Workbench) -> bool {
        !self.closing && self.replies.len() <= yield_at && self.may_run(bench)
    }

    /// Decodes requests from `start` on into `batch`, up to the first that is not an ordinary data command.
    fn gather(
        &mut self,
        buffer: &[u8],
        start: usize,
        bench: &Workbench,
        ranges: &mut Vec<ArgRange>,
        batch: &mut Batch,
    ) -> (usize, Then) {
        ranges.clear();
        batch.clear();
        let mut limits = bench.limits;
        limits.authenticated = self.is_authenticated(&bench.settings);
        let ordinary = limits.authenticated
            && self.transaction.is_none()
            && self.reply_mode == ReplyMode::On
            && !bench.is_loading()
            && bench.server.paused(bench.now_ms).is_none();
        let mut end = start;
        while batch.planned.len() < BATCH_REQUESTS_MAX {
            let first = ranges.len();
            match self.decoder.decode(buffer, end, &limits, ranges) {
                Ok(Decoded::Request { end: next }) => {
                    let args = Args::new(buffer, ranges.get(first..).unwrap_or_default());
                    let entry = table::lookup(args.at(0));
                    match entry {
                        Some(entry) if ordinary && entry.info.arity.allows(args.len()) => match entry.target {
                            Target::Data(command) => batch.push(entry, command, first, args.len(), next),
                            Target::Server(_) => return (end, Then::Single { entry: Some(entry), first, end: next }),
                        },
                        _ => return (end, Then::Single { entry, first, end: next }),
                    }
                    end = next;
                }
                Ok(Decoded::Nothing { end: next }) => end = next,
                Ok(Decoded::Inline { end: next }) => return (end, Then::Inline { end: next }),
                Ok(Decoded::Incomplete) => return (end, Then::Incomplete),
                Err(error) => return (end, Then::Broken(error)),
            }
        }
        (end, Then::More)
    }

    /// Runs a batch as far as the log has room and the replies stay within bounds; returns how many commands ran.
    fn run_batch(&mut self, buffer: &[u8], bench: &mut Workbench, ranges: &[ArgRange], batch: &Batch) -> usize {
        let began = Instant::now();
        let caller = self.begin_run(bench);
        bench.time_batches();
        let arguments = Arguments { buffer, ranges, chunked: self.decoder.chunked() };
        let end = bench.executor().run_arguments(&caller, arguments, &batch.planned, &mut self.replies);
        let RunEnd { done, stopped } = end;
        self.note_stop(done, stopped, bench);
        bench.count_failures();
        let nanoseconds = bench.count_batch(batch, done, began);
        if bench.is_long(nanoseconds) {
            self.note_long_batch(buffer, bench, ranges, batch, nanoseconds);
        }
        if let Some(entry) = done.checked_sub(1).and_then(|last| batch.entries.get(last)) {
            self.note_command(entry, bench.now_ms);
        }
        done
    }

    /// Notes what took long of a batch that did: single commands, or several that were timed together.
    #[cold]
    fn note_long_batch(
        &self,
        buffer: &[u8],
        bench: &mut Workbench,
        ranges: &[ArgRange],
        batch: &Batch,
        nanoseconds: u64,
    ) {
        let note = |bench: &Workbench, index: usize, nanoseconds, before| {
            let (Some(planned), Some(entry)) = (batch.planned.get(index), batch.entries.get(index)) else { return };
            let first = planned.first_range as usize;
            let ranges = ranges.get(first..first + planned.ranges as usize).unwrap_or_default();
            let args = Args::with_chunks(buffer, ranges, self.decoder.chunked());
            bench.note_long(self, entry, nanoseconds, || shorten(args.iter().zip(args.lens()), before));
        };
        if batch.planned.len() == 1 {
            return note(bench, 0, nanoseconds, 0);
        }
        for lap in bench.executor().laps().to_vec() {
            let nanoseconds = u64::try_from(lap.time.as_nanos()).unwrap_or(u64::MAX);
            if bench.is_long(nanoseconds) {
                note(bench, lap.done - 1, nanoseconds, lap.commands - 1);
            }
        }
    }

    /// Runs the inline request that the decoder has just read.
    fn inline(&mut self, bench: &mut Workbench) -> bool {
        // Copied: it stands in the decoder, which belongs to the session that runs it. People type these.
        let mut bytes = Vec::new();
        let mut ranges = Vec::new();
        for word in self.decoder.inline_args().iter() {
            ranges.push(ArgRange { start: bytes.len() as u32, len: word.len() as u32 });
            bytes.extend_from_slice(word);
        }
        self.decoder.finish_inline();
        let args = Args::new(&bytes, &ranges);
        self.single(args, table::lookup(args.at(0)), bench)
    }

    /// Answers what is wrong with the bytes and ends the conversation.
    fn break_off(&mut self, error: &ProtocolError, bench: &Workbench) {
        tracing::debug!(client = self.client.id, %error, "protocol error");
        bench.failed(self, &format!("ERR {error}"));
        self.close_after_replies();
    }
}

impl Batch {
    #[inline]
    fn push(
        &mut self,
        entry: &'static Entry,
        command: &'static bowline::command::Command,
        first_range: usize,
        ranges: usize,
        end: usize,
    ) {
        self.planned.push(Planned { command, first_range: first_range as u32, ranges: ranges as u32 });
        self.entries.push(entry);
        self.ends.push(end);
    }
}
