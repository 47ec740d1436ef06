//! `kv_client bench`: a load generator.
//!
//! ```text
//!   arguments -> workload   (which bytes; `random` chooses the keys)
//!             -> load       (one event loop per thread; `answers` counts what comes back)
//!             -> live line  every second, from the histograms the threads hand over
//!             -> report     (table, JSON)  and  plot (SVG)
//! ```

mod answers;
mod load;
mod plot;
mod random;
mod report;
mod workload;

pub(crate) use workload::{Distribution, Mix};

use std::io::{self, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bowline_client::{Client, Connection, Options, Stream};
use indicatif::{ProgressBar, ProgressStyle};

use crate::arguments::{BenchArguments, LoadArguments};
use crate::failure::{Exit, Failure};
use load::{Ended, Measured, Plan, Worker};
use report::{Report, Second};
use workload::Workload;

/// How long is measured when nothing is said.
const DEFAULT_SECONDS: f64 = 10.0;
/// Requests on their way per connection while the keys are filled in.
const FILL_PIPELINE: u32 = 64;

/// Measures, and prints and writes what was found.
pub(crate) fn run(arguments: &BenchArguments) -> Result<Exit, Failure> {
    let options = arguments.connection.options()?;
    let mut load = arguments.load.clone();
    load.threads = load.threads.min(load.connections);
    Workload::new(&load, 0)?;
    raise_file_limit(u64::from(load.connections) + 64);
    let server = server_name(&options)?;
    if load.fill {
        fill(&options, &load)?;
    }
    let bench = Bench { options: &options, load: &load, progress: live_line(&load) };
    let report = bench.measure(server, arguments.title.clone())?;
    let mut out = io::stdout().lock();
    report.write_table(&mut out).and_then(|()| out.flush()).map_err(Failure::Output)?;
    if let Some(path) = &arguments.json {
        write_file(path, &report.json().map_err(|source| Failure::Local { what: "make JSON".to_owned(), source })?)?;
    }
    if let Some(path) = &arguments.svg {
        write_file(path, &plot::svg(&report))?;
    }
    if report.all_failed() {
        let message = "every request was answered with an error; the figures say nothing".to_owned();
        return Err(Failure::Failed { message, exit: Exit::Server });
    }
    Ok(Exit::Success)
}

fn write_file(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(|source| Failure::Local { what: format!("write {}", path.display()), source })
}

/// What the server calls itself, with its version.
fn server_name(options: &Options) -> Result<String, Failure> {
    let mut client = Client::connect(options.clone())?;
    let figures = client.command(&["INFO", "server"]).ok();
    let text = match figures {
        Some(bowline_client::Value::Bulk(text) | bowline_client::Value::Verbatim { text, .. }) => text,
        _ => Vec::new(),
    };
    let text = String::from_utf8_lossy(&text).into_owned();
    let version_of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix("_version:"));
        line.map(|version| format!("{name} {}", crate::print::printable(version.trim())))
    };
    Ok(["bowline", "valkey", "redis"].into_iter().find_map(version_of).unwrap_or_else(|| "unknown server".to_owned()))
}

/// Each connection is an open file; most systems allow more of them when asked.
fn raise_file_limit(files: u64) {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < files) {
        limit.current = Some(limit.maximum.map_or(files, |maximum| maximum.min(files)));
        // Without it, connecting fails with a message that says so.
        let _ = setrlimit(Resource::Nofile, limit);
    }
}

/// Sets every key once.
fn fill(options: &Options, load: &LoadArguments) -> Result<(), Failure> {
    let load = LoadArguments {
        pipeline: load.pipeline.max(FILL_PIPELINE),
        rate: None,
        seconds: None,
        requests: Some(load.keys),
        warm_up: 0.0,
        fill: true,
        ..load.clone()
    };
    let progress = ProgressBar::new(load.keys);
    let template = "filling {percent:>3} % [{bar:30}] {pos} keys, {per_sec}, {eta} left";
    let progress = match ProgressStyle::with_template(template) {
        Ok(style) => progress.with_style(style.progress_chars("=> ")),
        Err(_) => progress,
    };
    let bench = Bench { options, load: &load, progress };
    let (measured, _) = bench.run_threads(
        1,
        &mut |measured, _| {
            bench.progress.inc(measured.latencies.iter().map(hdrhistogram::Histogram::len).sum());
        },
        true,
    )?;
    bench.progress.finish_and_clear();
    match measured.first_error {
        None => Ok(()),
        Some(error) => {
            let message = format!("filling failed: {}", crate::print::printable(&error));
            Err(Failure::Failed { message, exit: Exit::Server })
        }
    }
}

fn live_line(load: &LoadArguments) -> ProgressBar {
    let (bar, template) = match load.requests {
        Some(requests) => (ProgressBar::new(requests), "{elapsed} [{bar:20}] {msg}"),
        None => {
            let milliseconds = (load.seconds.unwrap_or(DEFAULT_SECONDS) + load.warm_up) * 1e3;
            (ProgressBar::new(milliseconds as u64), "{elapsed} [{bar:20}] {msg}")
        }
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style.progress_chars("=> ")),
        Err(_) => bar,
    }
}

struct Bench<'a> {
    options: &'a Options,
    load: &'a LoadArguments,
    progress: ProgressBar,
}

impl Bench<'_> {
    fn measure(&self, server: String, title: Option<String>) -> Result<Report, Failure> {
        let verbs = self.load.mix.verbs();
        let mut seconds = Vec::new();
        let warm_up = Duration::from_secs_f64(self.load.warm_up);
        let mut answered = 0;
        let begun = Instant::now();
        let (measured, ended) = self.run_threads(
            verbs.len(),
            &mut |measured, over| {
                let second = Second::of(measured, over);
                answered += second.answered;
                self.progress.set_message(second.line());
                match self.load.requests {
                    Some(_) => self.progress.set_position(answered),
                    None => self.progress.set_position(begun.elapsed().as_millis() as u64),
                }
                // What lies within the warm-up is shown, but is no part of the result.
                if begun.elapsed().saturating_sub(over) >= warm_up {
                    seconds.push(second);
                }
            },
            false,
        )?;
        self.progress.finish_and_clear();
        let last = ended.iter().map(|ended| ended.last_ns).max().unwrap_or(0);
        Ok(Report {
            server,
            title,
            address: self.options.address.to_string(),
            durability: self.options.setup.first().and_then(|args| args.get(1)).cloned(),
            load: self.load.clone(),
            verbs,
            measured,
            took: Duration::from_nanos(last).saturating_sub(warm_up),
            busy: ended.iter().map(|ended| ended.busy.as_secs_f64() / (last.max(1) as f64 / 1e9)).fold(0.0, f64::max),
            seconds,
        })
    }

    /// Runs all threads to their end. About once a second `on_interval` gets what was measured since, and for how long.
    fn run_threads(
        &self,
        verbs: usize,
        on_interval: &mut dyn FnMut(&Measured, Duration),
        filling: bool,
    ) -> Result<(Measured, Vec<Ended>), Failure> {
        let shared = Mutex::new(Measured::new(verbs));
        let mut streams = self.connect()?;
        let threads = u64::from(self.load.threads);
        let start = Instant::now();
        thread::scope(|scope| {
            let (finished, finishing) = channel();
            for thread in 0..threads {
                let share = |total: u64| total / threads + u64::from(thread < total % threads);
                let first = |total: u64| total / threads * thread + thread.min(total % threads);
                let mine = streams.split_off(streams.len() - share(u64::from(self.load.connections)) as usize);
                let workload = if filling {
                    Workload::filling(self.load, first(self.load.keys))?
                } else {
                    Workload::new(self.load, thread as u32)?
                };
                let plan = self.plan(share(self.load.requests.unwrap_or(0)));
                let worker = Worker::new(mine, plan, workload, &shared, start)
                    .map_err(|source| Failure::Local { what: "watch the sockets".to_owned(), source })?;
                let finished = finished.clone();
                scope.spawn(move || finished.send(worker.run()));
            }
            drop(finished);
            collect(&finishing, &shared, verbs, on_interval)
        })
    }

    fn connect(&self) -> Result<Vec<Stream>, Failure> {
        let open = |_| Ok(Connection::open(self.options)?.into_stream());
        (0..self.load.connections).map(open).collect()
    }

    fn plan(&self, requests: u64) -> Plan {
        let nanoseconds = |seconds: f64| (seconds * 1e9) as u64;
        let until = self.load.warm_up + self.load.seconds.unwrap_or(DEFAULT_SECONDS);
        Plan {
            pipeline: self.load.pipeline as usize,
            rate: self.load.rate.map(|rate| rate / f64::from(self.load.threads)),
            requests: self.load.requests.map(|_| requests),
            until_ns: self.load.requests.is_none().then(|| nanoseconds(until)),
            warm_up_ns: nanoseconds(self.load.warm_up),
            silence_ns: self.options.read_timeout.map_or(u64::MAX, |timeout| timeout.as_nanos() as u64),
        }
    }
}

/// Takes what the threads hand over until all of them have ended.
fn collect(
    finishing: &Receiver<Result<Ended, Failure>>,
    shared: &Mutex<Measured>,
    verbs: usize,
    on_interval: &mut dyn FnMut(&Measured, Duration),
) -> Result<(Measured, Vec<Ended>), Failure> {
    let (mut total, mut interval) = (Measured::new(verbs), Measured::new(verbs));
    let mut ended = Vec::new();
    let mut failure = None;
    let mut interval_begun = Instant::now();
    let mut all_ended = false;
    while !all_ended {
        let left = Duration::from_secs(1).saturating_sub(interval_begun.elapsed());
        match finishing.recv_timeout(left) {
            Ok(Ok(end)) => ended.push(end),
            Ok(Err(error)) => failure = failure.or(Some(error)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => all_ended = true,
        }
        if all_ended || interval_begun.elapsed() >= Duration::from_secs(1) {
            interval.take(&mut shared.lock().unwrap_or_else(PoisonError::into_inner));
            on_interval(&interval, interval_begun.elapsed());
            total.take(&mut interval);
            interval_begun = Instant::now();
        }
    }
    match failure {
        Some(failure) => Err(failure),
        None => Ok((total, ended)),
    }
}
