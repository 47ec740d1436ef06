//! One thread of load: many nonblocking connections in one event loop.
//!
//! ```text
//!   closed loop (no --rate)   a connection sends a bunch of `pipeline` requests, reads all answers, sends the next bunch
//!   open loop   (--rate)      request n is due at n / rate; it goes to the next connection with room, or waits for one.
//!                             Its latency counts from when it was due, so waiting behind a slow server is not hidden.
//! ```
//!
//! The clock is read once per read of a socket, not once per request. Every quarter of a second the histograms are handed
//! to the reporting thread, the only lock here. Between two due times the open loop does not sleep below the resolution
//! of the poll (a millisecond) but spins, for the sake of exact send times.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bowline_client::Stream;
use hdrhistogram::Histogram;
use mio::net::{TcpStream, UnixStream};
use mio::{Events, Interest, Poll, Token};

use super::answers::{Answer, Scanner};
use super::workload::Workload;
use crate::failure::{Exit, Failure};

/// Bytes of one read; shared by all connections of the thread.
const READ_BYTES: usize = 256 * 1024;
/// How often histograms are handed over.
const HAND_OVER: Duration = Duration::from_millis(250);
/// Longest latency that is told apart, one hour.
const LATENCY_NS_MAX: u64 = 3_600_000_000_000;
/// Below this, the wait for the next due request is spun.
const SPIN_NS: u64 = 2_000_000;

/// When a thread stops, and how it sends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// Requests on their way per connection.
    pub(super) pipeline: usize,
    /// Requests per second of this thread; none is the closed loop.
    pub(super) rate: Option<f64>,
    /// Requests to send, after the warm-up.
    pub(super) requests: Option<u64>,
    /// When to stop sending, counted from the start with the warm-up.
    pub(super) until_ns: Option<u64>,
    /// What is answered earlier than this is not measured.
    pub(super) warm_up_ns: u64,
    /// Longest silence of the server that is endured.
    pub(super) silence_ns: u64,
}

/// What was measured, by the commands of the mix.
#[derive(Debug, Clone)]
pub(super) struct Measured {
    /// Latencies in nanoseconds.
    pub(super) latencies: Vec<Histogram<u64>>,
    /// Answers that were null.
    pub(super) misses: Vec<u64>,
    /// Answers that were errors.
    pub(super) errors: Vec<u64>,
    /// The first of them.
    pub(super) first_error: Option<String>,
}

impl Measured {
    pub(super) fn new(verbs: usize) -> Self {
        let histogram = Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("the bounds are valid");
        Measured {
            latencies: vec![histogram; verbs],
            misses: vec![0; verbs],
            errors: vec![0; verbs],
            first_error: None,
        }
    }

    /// Adds `other` and empties it.
    pub(super) fn take(&mut self, other: &mut Measured) {
        for (mine, theirs) in self.latencies.iter_mut().zip(&mut other.latencies) {
            mine.add(&*theirs).expect("both have the same bounds");
            theirs.reset();
        }
        let add = |mine: &mut Vec<u64>, theirs: &mut Vec<u64>| {
            mine.iter_mut().zip(theirs).for_each(|(mine, theirs)| *mine += std::mem::take(theirs));
        };
        add(&mut self.misses, &mut other.misses);
        add(&mut self.errors, &mut other.errors);
        self.first_error = self.first_error.take().or(other.first_error.take());
    }
}

/// How a thread ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ended {
    /// When the last answer came, counted from the start.
    pub(super) last_ns: u64,
    /// Processor time of the thread.
    pub(super) busy: Duration,
}

/// A request that was sent, or is about to be.
#[derive(Debug, Clone, Copy)]
struct Pending {
    /// From when its latency counts.
    since_ns: u64,
    /// The place of its command in the mix.
    verb: u8,
}

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

struct Link {
    socket: Socket,
    out: Vec<u8>,
    written: usize,
    pending: VecDeque<Pending>,
    scanner: Scanner,
}

/// One thread of load.
pub(super) struct Worker<'a> {
    poll: Poll,
    links: Vec<Link>,
    plan: Plan,
    workload: Workload,
    start: Instant,
    recorder: Recorder,
    shared: &'a Mutex<Measured>,
    chunk: Box<[u8]>,
    /// Requests that are still to be sent.
    left: Option<u64>,
    issued: u64,
    /// Where the open loop looks next for room.
    next_link: usize,
    handed_over_ns: u64,
}

impl<'a> Worker<'a> {
    /// Takes over connected, greeted sockets. `start` is the common zero of all threads.
    pub(super) fn new(
        streams: Vec<Stream>,
        plan: Plan,
        workload: Workload,
        shared: &'a Mutex<Measured>,
        start: Instant,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut links = Vec::with_capacity(streams.len());
        for (place, stream) in streams.into_iter().enumerate() {
            let mut socket = Socket::nonblocking(stream)?;
            let both = Interest::READABLE | Interest::WRITABLE;
            match &mut socket {
                Socket::Tcp(stream) => poll.registry().register(stream, Token(place), both)?,
                Socket::Unix(stream) => poll.registry().register(stream, Token(place), both)?,
            }
            let pending = VecDeque::with_capacity(plan.pipeline);
            links.push(Link { socket, out: Vec::new(), written: 0, pending, scanner: Scanner::default() });
        }
        let verbs = shared.lock().unwrap_or_else(PoisonError::into_inner).latencies.len();
        Ok(Worker {
            poll,
            links,
            plan,
            workload,
            start,
            recorder: Recorder::new(verbs, plan.warm_up_ns),
            shared,
            chunk: vec![0; READ_BYTES].into_boxed_slice(),
            left: plan.requests,
            issued: 0,
            next_link: 0,
            handed_over_ns: 0,
        })
    }

    /// Sends and measures until the plan is done and everything is answered.
    pub(super) fn run(mut self) -> Result<Ended, Failure> {
        let mut events = Events::with_capacity(1024);
        if self.plan.rate.is_none() {
            for place in 0..self.links.len() {
                self.send_bunch(place)?;
            }
        }
        loop {
            let now = self.now_ns();
            if self.plan.rate.is_some() {
                self.send_due(now)?;
            }
            if self.is_done(now) {
                break;
            }
            self.check_silence(now)?;
            let wait = self.wait(now);
            match self.poll.poll(&mut events, Some(wait)) {
                Err(source) if source.kind() == io::ErrorKind::Interrupted => continue,
                other => other.map_err(|source| local("wait for the sockets", source))?,
            }
            for event in &events {
                let place = event.token().0;
                if event.is_readable() || event.is_read_closed() || event.is_error() {
                    self.receive(place)?;
                }
                if event.is_writable() {
                    self.links[place].flush()?;
                }
            }
            self.hand_over(false);
        }
        self.hand_over(true);
        Ok(Ended { last_ns: self.recorder.last_ns, busy: thread_time() })
    }

    fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// Nothing more may be sent.
    fn is_over(&self, now: u64) -> bool {
        self.left == Some(0) || self.plan.until_ns.is_some_and(|until| now >= until)
    }

    fn is_done(&self, now: u64) -> bool {
        self.is_over(now) && self.links.iter().all(|link| link.pending.is_empty())
    }

    fn check_silence(&mut self, now: u64) -> Result<(), Failure> {
        let waiting: usize = self.links.iter().map(|link| link.pending.len()).sum();
        if waiting == 0 || now.saturating_sub(self.recorder.last_ns) < self.plan.silence_ns {
            return Ok(());
        }
        let seconds = self.plan.silence_ns / 1_000_000_000;
        let message = format!(
            "the server has not answered any of {waiting} requests for {seconds} s; --timeout sets how long to wait"
        );
        Err(Failure::Failed { message, exit: Exit::Connection })
    }

    fn wait(&self, now: u64) -> Duration {
        let Some(rate) = self.plan.rate.filter(|_| !self.is_over(now)) else { return HAND_OVER };
        let due_in = due_ns(self.issued, rate).saturating_sub(now);
        if due_in < SPIN_NS { Duration::ZERO } else { Duration::from_nanos(due_in - SPIN_NS / 2).min(HAND_OVER) }
    }

    /// Closed loop: sends a whole bunch.
    fn send_bunch(&mut self, place: usize) -> Result<(), Failure> {
        let now = self.now_ns();
        if self.is_over(now) {
            return Ok(());
        }
        let mut count = self.plan.pipeline as u64;
        if let Some(left) = &mut self.left
            && now >= self.plan.warm_up_ns
        {
            count = count.min(*left);
            *left -= count;
        }
        let link = &mut self.links[place];
        for _ in 0..count {
            let verb = self.workload.push(&mut link.out);
            link.pending.push_back(Pending { since_ns: now, verb });
        }
        link.flush()
    }

    /// Open loop: sends what is due, as far as there is room.
    fn send_due(&mut self, now: u64) -> Result<(), Failure> {
        let Some(rate) = self.plan.rate else { return Ok(()) };
        while !self.is_over(now) {
            let since_ns = due_ns(self.issued, rate);
            if since_ns > now {
                break;
            }
            let Some(place) = self.link_with_room() else { break };
            if let Some(left) = &mut self.left
                && since_ns >= self.plan.warm_up_ns
            {
                *left -= 1;
            }
            let link = &mut self.links[place];
            let verb = self.workload.push(&mut link.out);
            link.pending.push_back(Pending { since_ns, verb });
            self.issued += 1;
            link.flush()?;
        }
        Ok(())
    }

    /// The next connection, in turn, that may have another request on its way.
    fn link_with_room(&mut self) -> Option<usize> {
        let count = self.links.len();
        let found = (0..count).map(|step| (self.next_link + step) % count);
        let place = found.into_iter().find(|place| self.links[*place].pending.len() < self.plan.pipeline)?;
        self.next_link = (place + 1) % count;
        Some(place)
    }

    fn receive(&mut self, place: usize) -> Result<(), Failure> {
        loop {
            let link = &mut self.links[place];
            let length = match link.socket.read(&mut self.chunk) {
                Ok(0) => return Err(lost("the server closed it")),
                Ok(length) => length,
                Err(source) if source.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(source) if source.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(lost(&source.to_string())),
            };
            let now = self.start.elapsed().as_nanos() as u64;
            let Link { scanner, pending, .. } = link;
            self.recorder.begin(now);
            let mut unasked = false;
            let scanned = scanner.scan(&self.chunk[..length], |answer| match pending.pop_front() {
                Some(request) => self.recorder.note(request, answer),
                None => unasked = true,
            });
            self.recorder.end();
            if scanned.is_err() || unasked {
                let message = "the server sent something that is not an answer to a request".to_owned();
                return Err(Failure::Failed { message, exit: Exit::Server });
            }
            if self.plan.rate.is_none() && self.links[place].pending.is_empty() {
                self.send_bunch(place)?;
            }
            // The readiness is edge-triggered: a read that did not fill the buffer has emptied the socket.
            if length < self.chunk.len() {
                return Ok(());
            }
        }
    }

    fn hand_over(&mut self, now_or_never: bool) {
        let now = self.now_ns();
        if now_or_never || now - self.handed_over_ns >= HAND_OVER.as_nanos() as u64 {
            self.handed_over_ns = now;
            self.shared.lock().unwrap_or_else(PoisonError::into_inner).take(&mut self.recorder.measured);
        }
    }
}

/// Notes answers; those of one read that were sent together are noted at once.
struct Recorder {
    measured: Measured,
    warm_up_ns: u64,
    /// When the last read came; the present one, between `begin` and `end`.
    last_ns: u64,
    /// From when the answers in `counts` count.
    since_ns: u64,
    counts: Vec<u64>,
}

impl Recorder {
    fn new(verbs: usize, warm_up_ns: u64) -> Self {
        Recorder { measured: Measured::new(verbs), warm_up_ns, last_ns: 0, since_ns: 0, counts: vec![0; verbs] }
    }

    fn begin(&mut self, now: u64) {
        self.last_ns = now;
    }

    fn note(&mut self, request: Pending, answer: Answer<'_>) {
        if request.since_ns != self.since_ns {
            self.end();
            self.since_ns = request.since_ns;
        }
        let verb = usize::from(request.verb);
        self.counts[verb] += 1;
        match answer {
            Answer::Value => {}
            Answer::Null => self.measured.misses[verb] += u64::from(self.last_ns >= self.warm_up_ns),
            Answer::Error(text) => {
                self.measured.errors[verb] += 1;
                let text = || String::from_utf8_lossy(text).into_owned();
                self.measured.first_error.get_or_insert_with(text);
            }
        }
    }

    fn end(&mut self) {
        let latency = self.last_ns.saturating_sub(self.since_ns);
        for (count, histogram) in self.counts.iter_mut().zip(&mut self.measured.latencies) {
            let count = std::mem::take(count);
            if count > 0 && self.last_ns >= self.warm_up_ns {
                histogram.saturating_record_n(latency, count);
            }
        }
    }
}

impl Link {
    /// Writes as much as the socket takes; the rest goes when it is writable again.
    fn flush(&mut self) -> Result<(), Failure> {
        while self.written < self.out.len() {
            match self.socket.write(&self.out[self.written..]) {
                Ok(0) => return Err(lost("it takes no more bytes")),
                Ok(length) => self.written += length,
                Err(source) if source.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(source) if source.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(lost(&source.to_string())),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(())
    }
}

impl Socket {
    fn nonblocking(stream: Stream) -> io::Result<Self> {
        Ok(match stream {
            Stream::Tcp(stream) => {
                stream.set_nonblocking(true)?;
                Socket::Tcp(TcpStream::from_std(stream))
            }
            Stream::Unix(stream) => {
                stream.set_nonblocking(true)?;
                Socket::Unix(UnixStream::from_std(stream))
            }
        })
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.read(buffer),
            Socket::Unix(stream) => stream.read(buffer),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.write(bytes),
            Socket::Unix(stream) => stream.write(bytes),
        }
    }
}

/// When request number `issued` is due.
fn due_ns(issued: u64, rate: f64) -> u64 {
    (issued as f64 * 1e9 / rate) as u64
}

/// Processor time of the calling thread.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn lost(what: &str) -> Failure {
    Failure::Failed { message: format!("a connection broke while measuring: {what}"), exit: Exit::Connection }
}

fn local(what: &str, source: io::Error) -> Failure {
    Failure::Local { what: what.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(warm_up_ns: u64, reads: &[(u64, &[(u64, u8)])]) -> Measured {
        let mut recorder = Recorder::new(2, warm_up_ns);
        for (now, answers) in reads {
            recorder.begin(*now);
            for (since_ns, verb) in *answers {
                recorder.note(Pending { since_ns: *since_ns, verb: *verb }, Answer::Value);
            }
            recorder.end();
        }
        recorder.measured
    }

    #[test]
    fn a_latency_counts_from_when_its_request_was_due() {
        let measured = recorded(0, &[(1000, &[(0, 0), (0, 0), (400, 0), (400, 1)]), (1500, &[(400, 1)])]);
        let latencies = |verb: usize| {
            let values = measured.latencies[verb].iter_recorded();
            values.map(|value| (value.value_iterated_to(), value.count_at_value())).collect::<Vec<_>>()
        };
        assert_eq!(latencies(0), [(600, 1), (1000, 2)]);
        assert_eq!(latencies(1), [(600, 1), (1100, 1)]);
    }

    #[test]
    fn what_is_answered_within_the_warm_up_is_not_measured() {
        let measured = recorded(1200, &[(1000, &[(900, 0)]), (1300, &[(1000, 0)])]);
        assert_eq!(measured.latencies[0].len(), 1);
    }

    #[test]
    fn the_schedule_keeps_its_rate_without_drifting() {
        assert_eq!(
            [0, 1, 3, 3_000_000].map(|issued| due_ns(issued, 3.0)),
            [0, 333_333_333, 1_000_000_000, 1_000_000_000_000_000]
        );
    }
}
