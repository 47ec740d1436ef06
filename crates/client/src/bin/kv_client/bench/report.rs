//! What was measured, for people (a table) and for programs (JSON).

use std::io::{self, Write};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::load::Measured;
use super::workload::Verb;
use crate::arguments::LoadArguments;
use crate::print::printable;

/// The latency below which this share of the requests was answered.
const PERCENTILES: &[f64] = &[50.0, 90.0, 99.0, 99.9, 99.99, 99.999];
/// The load generator counts as the limit when its busiest thread worked more than this share of the time.
const BUSY: f64 = 0.95;

/// About one second of the run.
#[derive(Debug, Clone)]
pub(super) struct Second {
    pub(super) answered: u64,
    per_second: f64,
    p50: u64,
    p99: u64,
    max: u64,
    errors: u64,
}

impl Second {
    pub(super) fn of(measured: &Measured, over: Duration) -> Self {
        let all = merged(&measured.latencies);
        Second {
            answered: all.len(),
            per_second: all.len() as f64 / over.as_secs_f64().max(1e-9),
            p50: all.value_at_quantile(0.5),
            p99: all.value_at_quantile(0.99),
            max: all.max(),
            errors: measured.errors.iter().sum(),
        }
    }

    /// The live line.
    pub(super) fn line(&self) -> String {
        let errors = if self.errors > 0 { format!("  {} errors", grouped(self.errors)) } else { String::new() };
        format!(
            "{} ops/s   p50 {}  p99 {}  max {}{errors}",
            grouped(self.per_second as u64),
            latency(self.p50),
            latency(self.p99),
            latency(self.max),
        )
    }
}

/// A whole run.
pub(super) struct Report {
    pub(super) server: String,
    pub(super) title: Option<String>,
    pub(super) address: String,
    pub(super) durability: Option<String>,
    pub(super) load: LoadArguments,
    pub(super) verbs: Vec<Verb>,
    pub(super) measured: Measured,
    /// From the end of the warm-up to the last answer.
    pub(super) took: Duration,
    /// Share of the time that the busiest thread of this program worked.
    pub(super) busy: f64,
    pub(super) seconds: Vec<Second>,
}

/// The figures of one command, or of all.
pub(super) struct Row<'a> {
    pub(super) name: &'a str,
    pub(super) latencies: Histogram<u64>,
    misses: u64,
    errors: u64,
}

impl Report {
    /// One row per command, and one for all when there are several.
    pub(super) fn rows(&self) -> Vec<Row<'_>> {
        let measured = &self.measured;
        let of_verb = |(place, verb): (usize, &Verb)| Row {
            name: verb.word(),
            latencies: measured.latencies[place].clone(),
            misses: measured.misses[place],
            errors: measured.errors[place],
        };
        let mut rows: Vec<Row<'_>> = self.verbs.iter().enumerate().map(of_verb).collect();
        if rows.len() > 1 {
            rows.push(Row {
                name: "all",
                latencies: merged(&measured.latencies),
                misses: measured.misses.iter().sum(),
                errors: measured.errors.iter().sum(),
            });
        }
        rows
    }

    fn per_second(&self, requests: u64) -> f64 {
        requests as f64 / self.took.as_secs_f64().max(1e-9)
    }

    /// True when no request was answered without an error.
    pub(super) fn all_failed(&self) -> bool {
        let answered: u64 = self.measured.latencies.iter().map(Histogram::len).sum();
        self.measured.errors.iter().sum::<u64>() >= answered
    }

    /// What was measured, on one line.
    pub(super) fn heading(&self) -> String {
        self.title.clone().unwrap_or_else(|| format!("{} at {}", self.server, self.address))
    }

    /// With which load, on one line.
    pub(super) fn conditions(&self) -> String {
        let load = &self.load;
        let mut parts = vec![
            plural(u64::from(load.connections), "connection"),
            plural(u64::from(load.threads), "thread"),
            format!("pipeline {}", load.pipeline),
            self.load.mix.to_string(),
            format!("{} of {} B, values {} B", plural(load.keys, "key"), load.key_bytes, load.value_bytes),
            load.distribution.to_string(),
        ];
        parts.extend(self.durability.iter().map(|level| format!("durability {level}")));
        parts.push(match load.rate {
            Some(rate) => format!("open loop at {} ops/s", grouped(rate as u64)),
            None => "closed loop".to_owned(),
        });
        parts.push(format!("{:.1} s", self.took.as_secs_f64()));
        parts.join(", ")
    }

    /// The table.
    pub(super) fn write_table(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", self.heading())?;
        writeln!(out, "{}\n", self.conditions())?;
        let titles = ["command", "ops", "ops/s", "p50", "p90", "p99", "p99.9", "max", "not found", "errors"];
        let mut lines = vec![titles.map(str::to_owned).to_vec()];
        for row in self.rows() {
            let at = |percentile: f64| latency(row.latencies.value_at_percentile(percentile));
            let count = row.latencies.len();
            lines.push(vec![
                row.name.to_owned(),
                grouped(count),
                grouped(self.per_second(count) as u64),
                at(50.0),
                at(90.0),
                at(99.0),
                at(99.9),
                latency(row.latencies.max()),
                grouped(row.misses),
                grouped(row.errors),
            ]);
        }
        write_aligned(out, &lines)?;
        if let Some(error) = &self.measured.first_error {
            writeln!(out, "\nfirst error: {}", printable(error))?;
        }
        if self.busy > BUSY && self.load.rate.is_none() {
            let percent = self.busy * 100.0;
            writeln!(
                out,
                "\nThe load generator's busiest thread was busy {percent:.0} % of the time: it may be the limit, not the server. Try --threads."
            )?;
        }
        Ok(())
    }

    /// The same and more as JSON; latencies in microseconds.
    pub(super) fn json(&self) -> io::Result<String> {
        let load = &self.load;
        let commands: serde_json::Map<String, Value> =
            self.rows().iter().map(|row| (row.name.to_owned(), self.row_json(row))).collect();
        let second = |second: &Second| {
            json!({
                "ops": second.answered, "ops_per_second": second.per_second, "errors": second.errors,
                "p50_us": microseconds(second.p50), "p99_us": microseconds(second.p99), "max_us": microseconds(second.max),
            })
        };
        let document = json!({
            "title": self.heading(),
            "server": self.server,
            "address": self.address,
            "load": {
                "connections": load.connections, "threads": load.threads, "pipeline": load.pipeline,
                "value_bytes": load.value_bytes, "key_bytes": load.key_bytes, "keys": load.keys,
                "distribution": load.distribution.to_string(), "mix": load.mix.to_string(), "rate": load.rate,
                "durability": self.durability, "filled": load.fill, "seed": load.seed, "warm_up_seconds": load.warm_up,
            },
            "seconds": self.took.as_secs_f64(),
            "generator_busy": self.busy,
            "commands": commands,
            "series": self.seconds.iter().map(second).collect::<Vec<_>>(),
        });
        serde_json::to_string_pretty(&document).map(|text| text + "\n").map_err(io::Error::from)
    }

    fn row_json(&self, row: &Row<'_>) -> Value {
        let latencies = &row.latencies;
        let mut object = json!({
            "ops": latencies.len(), "ops_per_second": self.per_second(latencies.len()),
            "not_found": row.misses, "errors": row.errors,
            "mean_us": latencies.mean() / 1e3, "max_us": microseconds(latencies.max()),
        });
        for percentile in PERCENTILES {
            object[format!("p{percentile}_us")] = json!(microseconds(latencies.value_at_percentile(*percentile)));
        }
        object
    }
}

fn merged(histograms: &[Histogram<u64>]) -> Histogram<u64> {
    let mut all = Measured::new(1).latencies.swap_remove(0);
    for histogram in histograms {
        all.add(histogram).expect("all histograms have the same bounds");
    }
    all
}

/// The first column to the left, the others to the right.
fn write_aligned(out: &mut dyn Write, lines: &[Vec<String>]) -> io::Result<()> {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column: usize| lines.iter().filter_map(|line| Some(line.get(column)?.chars().count())).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    for line in lines {
        let cells = line.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  "))?;
    }
    Ok(())
}

fn microseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e3
}

/// A latency with three digits and its unit.
pub(super) fn latency(nanoseconds: u64) -> String {
    let (number, unit) = match nanoseconds {
        0..1_000_000 => (nanoseconds as f64 / 1e3, "us"),
        1_000_000..1_000_000_000 => (nanoseconds as f64 / 1e6, "ms"),
        _ => (nanoseconds as f64 / 1e9, "s"),
    };
    let decimals = if number < 10.0 { 2 } else { usize::from(number < 100.0) };
    format!("{number:.decimals$} {unit}")
}

/// A number with commas between groups of three digits.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn plural(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(count), if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [950, 12_345, 123_456, 1_500_000, 2_500_000_000].map(latency),
            ["0.95 us", "12.3 us", "123 us", "1.50 ms", "2.50 s"]
        );
    }
}
