//! SLOWLOG and LATENCY: what took long.

use std::collections::BTreeSet;

use bowline::command::{Arity, Flags};
use bowline::histogram::HistogramSnapshot;
use bowline_resp::Args;

use super::row::{Call, ServerCommand, container, help};
use super::table::{self, Entry};

const ADMIN: Flags = Flags::ADMIN;

/// The rows of this file.
pub(super) static ROWS: &[ServerCommand] = &[
    ServerCommand::new("slowlog", Arity::AtLeast(2), "", "Shows commands that took long.", container)
        .flags(ADMIN)
        .container(SLOWLOG),
    ServerCommand::new("latency", Arity::AtLeast(2), "", "Shows how long commands take.", container)
        .flags(ADMIN)
        .container(LATENCY),
];

static SLOWLOG: &[ServerCommand] = &[
    ServerCommand::new("slowlog|get", Arity::AtLeast(2), "[count]", "Answers the newest slow commands.", slowlog_get)
        .flags(ADMIN),
    ServerCommand::new("slowlog|len", Arity::Exactly(2), "", "Answers how many slow commands are kept.", slowlog_len)
        .flags(ADMIN),
    ServerCommand::new("slowlog|reset", Arity::Exactly(2), "", "Forgets the slow commands.", slowlog_reset)
        .flags(ADMIN),
    ServerCommand::new("slowlog|help", Arity::Exactly(2), "", "Lists the subcommands.", help),
];

static LATENCY: &[ServerCommand] = &[
    ServerCommand::new(
        "latency|histogram",
        Arity::AtLeast(2),
        "[command [command ...]]",
        "Answers how often commands took how long.",
        histogram,
    )
    .flags(ADMIN),
    ServerCommand::new(
        "latency|latest",
        Arity::Exactly(2),
        "",
        "Answers the newest and the longest event of each kind.",
        latest,
    )
    .flags(ADMIN),
    ServerCommand::new(
        "latency|history",
        Arity::Exactly(3),
        "event",
        "Answers the events of a kind, at most one for each second.",
        history,
    )
    .flags(ADMIN),
    ServerCommand::new(
        "latency|reset",
        Arity::AtLeast(2),
        "[event [event ...]]",
        "Forgets events, all unless some are named.",
        latency_reset,
    )
    .flags(ADMIN),
    ServerCommand::new("latency|help", Arity::Exactly(2), "", "Lists the subcommands.", help),
];

/// What SLOWLOG GET answers without a count.
const SLOWLOG_COUNT: usize = 10;

fn slowlog_get(call: &mut Call<'_>) {
    let count = match call.args.len() {
        2 => SLOWLOG_COUNT,
        3 => match bowline_resp::parse_integer(call.args.at(2)) {
            Some(-1) => usize::MAX,
            Some(count) if count >= 0 => usize::try_from(count).unwrap_or(usize::MAX),
            _ => return call.error("ERR count should be greater than or equal to -1"),
        },
        _ => {
            let before = "ERR unknown subcommand or wrong number of arguments for '";
            return call.error_about(before, 1, "'. Try SLOWLOG HELP.");
        }
    };
    let entries = call.bench.server.slowlog.newest(count);
    let mut reply = call.reply();
    reply.array(entries.len());
    for slow in entries {
        reply.array(6);
        reply.integer(slow.id as i64);
        reply.integer(slow.at_seconds as i64);
        reply.integer(slow.microseconds as i64);
        reply.array(slow.args.len());
        for arg in &slow.args {
            reply.bulk(arg);
        }
        reply.bulk(slow.peer.as_bytes());
        reply.bulk(slow.name.as_bytes());
    }
}

fn slowlog_len(call: &mut Call<'_>) {
    let entries = call.bench.server.slowlog.len();
    call.reply().integer(entries as i64);
}

fn slowlog_reset(call: &mut Call<'_>) {
    call.bench.server.slowlog.clear();
    call.reply().ok();
}

fn histogram(call: &mut Call<'_>) {
    let mut chosen: Vec<_> = if call.args.len() > 2 { each_once(call.args.from(2)) } else { table::all().to_vec() };
    let server = call.server();
    // A snapshot is kilobytes: only one is held at a time, and first it is asked who has any.
    chosen.retain(|entry| server.metrics.latency(entry.index).is_some());
    let mut reply = call.reply();
    reply.map(chosen.len());
    for entry in chosen {
        // None if another loop has just set the counters to zero.
        let latency = server.metrics.latency(entry.index);
        reply.bulk(entry.info.name.as_bytes());
        reply.map(2);
        reply.bulk(b"calls");
        reply.integer(latency.as_ref().map_or(0, |latency| latency.count) as i64);
        reply.bulk(b"histogram_usec");
        let buckets = latency.as_ref().map_or_else(Vec::new, microsecond_buckets);
        reply.map(buckets.len());
        for (bound, calls) in buckets {
            reply.integer(bound as i64);
            reply.integer(calls as i64);
        }
    }
}

/// The commands of these names, each once however often it is named, in the order of the names.
fn each_once(names: Args<'_>) -> Vec<&'static Entry> {
    let mut seen = BTreeSet::new();
    names.iter().filter_map(table::lookup).filter(|entry| seen.insert(entry.index)).collect()
}

/// Cumulated samples by powers of two of microseconds; a power without new ones is left out, as Redis does.
fn microsecond_buckets(latency: &HistogramSnapshot) -> Vec<(u64, u64)> {
    let mut buckets: Vec<(u64, u64)> = Vec::new();
    let mut samples = 0;
    for (top_nanoseconds, count) in latency.filled_buckets() {
        samples += count;
        let bound = top_nanoseconds.div_ceil(1000).max(1).checked_next_power_of_two().unwrap_or(u64::MAX);
        match buckets.last_mut() {
            Some(last) if last.0 == bound => last.1 = samples,
            _ => buckets.push((bound, samples)),
        }
    }
    buckets
}

fn latest(call: &mut Call<'_>) {
    let events = call.bench.server.metrics.events.latest();
    let mut reply = call.reply();
    reply.array(events.len());
    for (event, newest, milliseconds_max) in events {
        reply.array(4);
        reply.bulk(event.name().as_bytes());
        for number in [newest.at_seconds, newest.milliseconds, milliseconds_max] {
            reply.integer(number as i64);
        }
    }
}

fn history(call: &mut Call<'_>) {
    let samples = call.bench.server.metrics.events.history(call.args.at(2));
    let mut reply = call.reply();
    reply.array(samples.len());
    for sample in samples {
        reply.array(2);
        reply.integer(sample.at_seconds as i64);
        reply.integer(sample.milliseconds as i64);
    }
}

fn latency_reset(call: &mut Call<'_>) {
    let names = call.args.from(2);
    let named = |name: &str| names.iter().any(|word| word.eq_ignore_ascii_case(name.as_bytes()));
    let forgotten = call.bench.server.metrics.events.forget(|event| names.is_empty() || named(event.name()));
    call.reply().integer(forgotten as i64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_named_often_is_told_once() {
        let (names, get) = (b"setgetGETnone", |start, len| bowline_resp::ArgRange { start, len });
        let asked = [get(0, 3), get(3, 3), get(6, 3), get(9, 4), get(0, 3)].repeat(10_000);
        let told = each_once(Args::new(names, &asked));
        assert_eq!(told.iter().map(|entry| entry.info.name).collect::<Vec<_>>(), ["set", "get"]);
    }

    #[test]
    fn samples_are_cumulated_by_powers_of_two_microseconds() {
        let histogram = bowline::histogram::Histogram::new();
        for nanoseconds in [200, 900, 1_500, 3_900, 1_000_000] {
            histogram.record(nanoseconds);
        }
        assert_eq!(microsecond_buckets(&histogram.snapshot()), [(1, 2), (2, 3), (4, 4), (1024, 5)]);
    }
}
