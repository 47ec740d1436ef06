//! How far an import is: a bar on a terminal, now and then a line elsewhere, both on standard error.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

/// Shorter work than this shows no bar.
const LONG: Duration = Duration::from_millis(500);
/// Time between two lines where there is no terminal.
const BETWEEN_LINES: Duration = Duration::from_secs(5);
/// The clock is looked at after this many items ...
const ITEMS_BETWEEN_LOOKS: u32 = 512;
/// ... or this many bytes.
const BYTES_BETWEEN_LOOKS: u64 = 1024 * 1024;

/// The progress of one pass through the files.
pub(super) struct Progress {
    /// What is being done, for instance `importing`.
    doing: &'static str,
    total_bytes: Option<u64>,
    begun: Instant,
    last_line: Instant,
    items: u32,
    looked_at_bytes: u64,
    bar: Option<ProgressBar>,
    to_terminal: bool,
}

impl Progress {
    pub(super) fn new(doing: &'static str, total_bytes: Option<u64>) -> Self {
        let now = Instant::now();
        Progress {
            doing,
            total_bytes,
            begun: now,
            last_line: now,
            items: 0,
            looked_at_bytes: 0,
            bar: None,
            to_terminal: io::stderr().is_terminal(),
        }
    }

    /// So many bytes have been read; `done` items are done.
    pub(super) fn passed(&mut self, bytes: u64, done: impl FnOnce() -> u64) {
        self.items += 1;
        if self.items < ITEMS_BETWEEN_LOOKS && bytes - self.looked_at_bytes < BYTES_BETWEEN_LOOKS {
            return;
        }
        (self.items, self.looked_at_bytes) = (0, bytes);
        if self.to_terminal {
            self.draw(bytes, done());
        } else if self.last_line.elapsed() >= BETWEEN_LINES {
            self.last_line = Instant::now();
            self.line(bytes, done());
        }
    }

    fn draw(&mut self, bytes: u64, done: u64) {
        if self.begun.elapsed() < LONG {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| new_bar(self.total_bytes));
        bar.set_message(format!("{}: {done} so far, {:.0}/s", self.doing, per_second(done, self.begun)));
        bar.set_position(bytes);
    }

    fn line(&self, bytes: u64, done: u64) {
        let share = match self.total_bytes.filter(|total| *total > 0) {
            Some(total) => format!("{} %", bytes.saturating_mul(100) / total),
            None => HumanBytes(bytes).to_string(),
        };
        eprintln!("kv_client: {}: {share}, {done} so far, {:.0}/s", self.doing, per_second(done, self.begun));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn per_second(done: u64, begun: Instant) -> f64 {
    done as f64 / begun.elapsed().as_secs_f64().max(0.001)
}

fn new_bar(total_bytes: Option<u64>) -> ProgressBar {
    let (bar, template) = match total_bytes {
        Some(total) => (ProgressBar::new(total), "{percent:>3} % [{bar:30}] {msg}, {eta} left"),
        None => (ProgressBar::no_length(), "{spinner} {bytes}, {msg}"),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style.progress_chars("=> ")),
        Err(_) => bar,
    }
}
