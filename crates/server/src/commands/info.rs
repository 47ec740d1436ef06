//! INFO and STATS: the figures of the server for people and for tools that know Redis's names.
//!
//! Fields with a meaning here have Redis's names; what only we have is in the section "bowline" or named after the log.
//! While the data is loaded there are the same sections without the figures of the store.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bowline::command::{Arity, Flags};
use bowline::histogram::HistogramSnapshot;

use super::durability::word;
use super::row::{Call, ServerCommand};
use super::table;
use crate::net::accept::connections_accepted;
use crate::session::Workbench;
use crate::state::Server;

/// The release of Redis whose replies these are.
pub const REDIS_VERSION: &str = "7.2.4";

/// The rows of this file.
pub(super) static ROWS: &[ServerCommand] = &[
    ServerCommand::new("info", Arity::AtLeast(1), "[section [section ...]]", "Answers figures of the server.", info)
        .flags(Flags::DANGEROUS),
    ServerCommand::new("stats", Arity::Exactly(1), "", "Answers the main figures as lines.", stats)
        .flags(Flags::DANGEROUS),
];

/// A section: its name, whether it is shown unless asked otherwise, and what writes its lines.
type Section = (&'static str, bool, fn(&Figures<'_>, &mut String));

static SECTIONS: &[Section] = &[
    ("server", true, server),
    ("clients", true, clients),
    ("memory", true, memory),
    ("persistence", true, persistence),
    ("stats", true, statistics),
    ("replication", true, replication),
    ("cpu", true, cpu),
    ("modules", true, |_, _| {}),
    ("commandstats", false, command_statistics),
    ("errorstats", true, error_statistics),
    ("latencystats", false, latency_statistics),
    ("cluster", true, |_, out| line(out, "cluster_enabled", 0)),
    ("keyspace", true, keyspace),
    ("bowline", true, bowline_section),
];

/// What the sections read, taken once for all of them.
struct Figures<'a> {
    bench: &'a Workbench,
    server: Arc<Server>,
    /// None while the data is loaded.
    store: Option<bowline::Statistics>,
}

impl Figures<'_> {
    fn take(bench: &Workbench) -> Figures<'_> {
        Figures { bench, server: bench.server.clone(), store: bench.server.opened().map(bowline::Store::statistics) }
    }
}

pub(super) fn line(out: &mut String, name: &str, value: impl std::fmt::Display) {
    // Writing to a String cannot fail.
    let _ = write!(out, "{name}:{value}\r\n");
}

fn info(call: &mut Call<'_>) {
    let asked: Vec<String> = (1..call.args.len()).map(|index| call.word(index)).collect();
    let chosen = |(name, by_default, _): &&Section| {
        if asked.is_empty() {
            return *by_default;
        }
        asked.iter().any(|word| match word.as_str() {
            "all" | "everything" => true,
            "default" => *by_default,
            word => word == *name,
        })
    };
    let figures = Figures::take(call.bench);
    let mut text = String::new();
    for (name, _, write) in SECTIONS.iter().filter(chosen) {
        if !text.is_empty() {
            text.push_str("\r\n");
        }
        let (first, rest) = name.split_at(1);
        let title = if *name == "cpu" { "CPU".to_owned() } else { first.to_ascii_uppercase() + rest };
        let _ = write!(text, "# {title}\r\n");
        write(&figures, &mut text);
    }
    call.reply().verbatim("txt", text.as_bytes());
}

fn stats(call: &mut Call<'_>) {
    let text = figures(call.bench);
    call.reply().verbatim("txt", text.as_bytes());
}

/// The main figures as lines `name: value`, for STATS of both protocols.
pub fn figures(bench: &Workbench) -> String {
    let figures = Figures::take(bench);
    let mut told = String::new();
    for write in [simple, persistence, bowline_section] {
        write(&figures, &mut told);
    }
    told.lines().filter_map(|line| line.split_once(':')).fold(String::new(), |mut text, (name, value)| {
        let _ = writeln!(text, "{name}: {value}");
        text
    })
}

/// Calls and mean microseconds of some commands together.
fn calls(figures: &Figures<'_>, names: &[&str]) -> (u64, f64) {
    let (mut calls, mut nanoseconds) = (0, 0);
    for entry in names.iter().filter_map(|name| table::lookup(name.as_bytes())) {
        let totals = figures.server.metrics.command(entry.index);
        calls += totals.calls;
        nanoseconds += totals.nanoseconds;
    }
    (calls, nanoseconds as f64 / 1000.0 / calls.max(1) as f64)
}

fn simple(figures: &Figures<'_>, out: &mut String) {
    let metrics = &figures.server.metrics;
    let totals = metrics.totals();
    if let Some(store) = &figures.store {
        line(out, "keys", store.keys);
    }
    line(out, "uptime_in_seconds", figures.server.started.elapsed().as_secs());
    let kinds: [(&str, &[&str]); 3] = [
        ("puts", &["set", "put", "setex", "psetex", "setnx", "mset", "msetnx", "getset"]),
        ("gets", &["get", "mget", "getex", "getdel"]),
        ("deletes", &["del", "delete", "unlink"]),
    ];
    for (name, commands) in kinds {
        let (count, mean) = calls(figures, commands);
        line(out, name, count);
        line(out, &format!("{name}_usec_mean"), format_args!("{mean:.2}"));
    }
    line(out, "connected_clients", metrics.connections.load(Relaxed));
    line(out, "total_commands_processed", totals.requests);
    line(out, "total_net_input_bytes", totals.bytes_in);
    line(out, "total_net_output_bytes", totals.bytes_out);
    line(out, "used_memory_rss", resident_bytes());
    if let Some(store) = &figures.store {
        line(out, "dataset_bytes", store.entry_bytes + store.table_bytes);
    }
}

fn server(figures: &Figures<'_>, out: &mut String) {
    let settings = figures.bench.settings();
    let uptime = figures.server.started.elapsed().as_secs();
    line(out, "redis_version", REDIS_VERSION);
    line(out, "bowline_version", env!("CARGO_PKG_VERSION"));
    line(out, "redis_mode", "standalone");
    line(out, "os", format_args!("{} {}", std::env::consts::OS, std::env::consts::ARCH));
    line(out, "arch_bits", usize::BITS);
    line(out, "multiplexing_api", if cfg!(target_os = "linux") { "epoll" } else { "kqueue" });
    line(out, "process_id", std::process::id());
    line(out, "run_id", &figures.server.run_id);
    line(out, "tcp_port", settings.port);
    line(out, "server_time_usec", figures.bench.now_ms * 1000);
    line(out, "uptime_in_seconds", uptime);
    line(out, "uptime_in_days", uptime / 86_400);
    line(out, "hz", 10);
    line(out, "event_loops", figures.server.loop_count());
    line(out, "executable", std::env::current_exe().unwrap_or_default().display());
    line(out, "config_file", figures.server.settings.file().unwrap_or_else(|| "".as_ref()).display());
}

fn clients(figures: &Figures<'_>, out: &mut String) {
    let metrics = &figures.server.metrics;
    line(out, "connected_clients", metrics.connections.load(Relaxed));
    line(out, "maxclients", connections_accepted(figures.bench.settings().max_connections));
    line(out, "blocked_clients", 0);
}

fn memory(figures: &Figures<'_>, out: &mut String) {
    let settings = figures.bench.settings();
    let resident = resident_bytes();
    // What is held against maxmemory: what data, clients and all else have taken since the start.
    let used = figures.store.as_ref().map_or(resident, |store| store.memory.used);
    line(out, "used_memory", used);
    line(out, "used_memory_human", human(used));
    line(out, "used_memory_rss", resident);
    line(out, "used_memory_rss_human", human(resident));
    if let Some(bowline::Statistics { entry_bytes, table_bytes, .. }) = &figures.store {
        line(out, "used_memory_dataset", entry_bytes + table_bytes);
        line(out, "entry_bytes", entry_bytes);
        line(out, "table_bytes", table_bytes);
    }
    if figures.store.is_some() {
        super::info_tier::lines(&figures.server.store().tier(), out);
    }
    line(out, "mem_clients_normal", figures.server.metrics.client_bytes());
    let limit = settings.memory_limit();
    line(out, "maxmemory", limit);
    line(out, "maxmemory_human", human(usize::try_from(limit).unwrap_or(usize::MAX)));
    line(
        out,
        "maxmemory_policy",
        figures.server.settings.current().matching(&["maxmemory-policy"]).pop().unwrap_or_default().1,
    );
    line(out, "mem_allocator", "jemalloc");
}

fn persistence(figures: &Figures<'_>, out: &mut String) {
    line(out, "loading", u8::from(figures.store.is_none()));
    line(out, "durability", word(figures.bench.default_level));
    // The log is what the append-only file is in Redis, and it is always on.
    line(out, "aof_enabled", 1);
    match &figures.store {
        Some(store) => {
            super::info_load::lines(&figures.server.store().loading(), out);
            log_and_recovery(&figures.server, store, out);
        }
        None => progress(&figures.server, out),
    }
}

/// How far recovery is.
fn progress(server: &Server, out: &mut String) {
    let loaded = server.loading.loaded();
    line(out, "loading_start_time", server.started_ms / 1000);
    line(out, "loading_total_bytes", loaded.bytes_total);
    line(out, "loading_loaded_bytes", loaded.bytes_done);
    line(out, "loading_loaded_perc", format_args!("{:.2}", loaded.percent()));
    line(out, "loading_eta_seconds", loaded.left.as_secs_f64().ceil());
}

fn log_and_recovery(server: &Server, store: &bowline::Statistics, out: &mut String) {
    let newest = server.store().log();
    line(out, "aof_last_write_status", if newest.is_poisoned() { "err" } else { "ok" });
    line(out, "rdb_changes_since_last_save", store.dirty);
    super::info_checkpoints::lines(&server.store().checkpoints(), out);
    super::info_checkpoints::scrub_lines(&server.store().scrubbing(), out);
    line(out, "last_version", newest.last_version());
    line(out, "commit_version", newest.commit());
    line(out, "durable_version", newest.durable());
    let recovered = &store.recovered;
    line(out, "recovered_records", recovered.records);
    line(out, "recovered_bytes", recovered.bytes);
    line(out, "recovered_torn_bytes_cut", recovered.torn_bytes_cut);
    super::info_log::lines(&store.log, out);
    super::info_archive::lines(server, &store.log, out);
}

fn statistics(figures: &Figures<'_>, out: &mut String) {
    let metrics = &figures.server.metrics;
    let totals = metrics.totals();
    line(out, "total_connections_received", metrics.connections_received.load(Relaxed));
    line(out, "total_commands_processed", totals.requests);
    line(out, "instantaneous_ops_per_sec", metrics.requests_per_second.load(Relaxed));
    line(out, "total_net_input_bytes", totals.bytes_in);
    line(out, "total_net_output_bytes", totals.bytes_out);
    line(out, "rejected_connections", metrics.connections_rejected.load(Relaxed));
    line(out, "accept_failures", metrics.accept_failures.load(Relaxed));
    line(out, "expired_keys", figures.store.as_ref().map_or(0, |store| store.expired));
    line(out, "evicted_keys", figures.store.as_ref().map_or(0, |store| store.memory.evicted));
    line(out, "evicted_clients", metrics.clients_evicted.load(Relaxed));
    line(out, "keyspace_hits", totals.hits);
    line(out, "keyspace_misses", totals.misses);
    line(out, "pubsub_channels", 0);
    line(out, "pubsub_patterns", 0);
    line(out, "total_error_replies", metrics.errors().values().sum::<u64>());
    line(out, "acl_access_denied_auth", metrics.authentication_failures.load(Relaxed));
    line(out, "client_query_buffer_limit_disconnections", metrics.query_limit_closes.load(Relaxed));
    line(out, "client_output_buffer_limit_disconnections", metrics.output_limit_closes.load(Relaxed));
    line(out, "batches", totals.batches);
}

fn replication(figures: &Figures<'_>, out: &mut String) {
    line(out, "role", "master");
    line(out, "connected_slaves", 0);
    line(out, "master_replid", &figures.server.run_id);
    line(out, "master_repl_offset", 0);
}

fn cpu(_: &Figures<'_>, out: &mut String) {
    let (user, system) = cpu_seconds().unwrap_or_default();
    line(out, "used_cpu_sys", format_args!("{system:.6}"));
    line(out, "used_cpu_user", format_args!("{user:.6}"));
}

fn command_statistics(figures: &Figures<'_>, out: &mut String) {
    for entry in table::all() {
        let totals = figures.server.metrics.command(entry.index);
        if totals.calls + totals.rejected == 0 {
            continue;
        }
        let microseconds = totals.nanoseconds as f64 / 1000.0;
        let mean = microseconds / totals.calls.max(1) as f64;
        let value = format!(
            "calls={},usec={microseconds:.0},usec_per_call={mean:.2},rejected_calls={},failed_calls={}",
            totals.calls, totals.rejected, totals.failed
        );
        line(out, &format!("cmdstat_{}", entry.info.name), value);
    }
}

fn error_statistics(figures: &Figures<'_>, out: &mut String) {
    for (code, count) in figures.server.metrics.errors() {
        line(out, &format!("errorstat_{code}"), format_args!("count={count}"));
    }
}

fn latency_statistics(figures: &Figures<'_>, out: &mut String) {
    for entry in table::all() {
        if let Some(latency) = figures.server.metrics.latency(entry.index) {
            line(out, &format!("latency_percentiles_usec_{}", entry.info.name), percentiles(&latency, 1000.0));
        }
    }
}

/// p50, p99 and p99.9 as Redis writes them; values are divided by `unit`.
pub(super) fn percentiles(values: &HistogramSnapshot, unit: f64) -> String {
    let at = |percent| values.percentile(percent) as f64 / unit;
    format!("p50={:.3},p99={:.3},p99.9={:.3}", at(50.0), at(99.0), at(99.9))
}

fn keyspace(figures: &Figures<'_>, out: &mut String) {
    let Some(store) = figures.server.opened() else { return };
    for (number, keys, expiring) in store.database_sizes() {
        line(out, &format!("db{number}"), format_args!("keys={keys},expires={expiring},avg_ttl=0"));
    }
}

fn bowline_section(figures: &Figures<'_>, out: &mut String) {
    let metrics = &figures.server.metrics;
    let (requests, batches) = (metrics.totals().requests, metrics.totals().batches);
    line(out, "requests_per_batch", format_args!("{:.2}", requests as f64 / batches.max(1) as f64));
    if let Some(store) = figures.server.opened() {
        line(out, "segments", store.keyspace().segment_count());
    }
}

/// Bytes of this process in memory; 0 where the system does not tell.
fn resident_bytes() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.as_deref().and_then(|text| text.split(' ').nth(1)?.parse::<usize>().ok());
    pages.unwrap_or_default() * rustix::param::page_size()
}

/// Seconds of processor time of this process, user and system.
fn cpu_seconds() -> Option<(f64, f64)> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field, the name, may hold spaces: count from behind its closing parenthesis.
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user / ticks, system / ticks))
}

/// Bytes for people: "1.50M".
pub(super) fn human(bytes: usize) -> String {
    let mut size = bytes as f64;
    for unit in ["B", "K", "M", "G"] {
        if size < 1024.0 {
            return format!("{size:.2}{unit}");
        }
        size /= 1024.0;
    }
    format!("{size:.2}T")
}
