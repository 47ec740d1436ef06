//! What took longer than `latency-monitor-threshold`, by kind, for LATENCY: commands, fast commands, syncs of the log.
//!
//! As in Redis a kind keeps at most one sample for each second, the longest of it, and a bounded number of them.

use std::collections::{BTreeMap, VecDeque};

use bowline::histogram::HistogramSnapshot;
use parking_lot::Mutex;

use super::limits::EVENT_SAMPLES_MAX;

/// A kind of event; the names are Redis's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// A command.
    Command,
    /// A command that should take a short time always.
    FastCommand,
    /// A sync of the log.
    Sync,
}

impl Event {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Event::Command => "command",
            Event::FastCommand => "fast-command",
            Event::Sync => "aof-fsync-always",
        }
    }
}

/// The longest event of a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Unix time in seconds.
    pub at_seconds: u64,
    /// What it took.
    pub milliseconds: u64,
}

#[derive(Debug, Default)]
struct Samples {
    /// Oldest first.
    kept: VecDeque<Sample>,
    milliseconds_max: u64,
}

/// The events of the server.
#[derive(Debug, Default)]
pub struct Events {
    samples: Mutex<BTreeMap<Event, Samples>>,
}

impl Events {
    /// Notes an event.
    pub fn note(&self, event: Event, sample: Sample) {
        let mut samples = self.samples.lock();
        let Samples { kept, milliseconds_max } = samples.entry(event).or_default();
        *milliseconds_max = sample.milliseconds.max(*milliseconds_max);
        match kept.back_mut().filter(|last| last.at_seconds == sample.at_seconds) {
            Some(last) => last.milliseconds = last.milliseconds.max(sample.milliseconds),
            None => kept.push_back(sample),
        }
        if kept.len() > EVENT_SAMPLES_MAX {
            kept.pop_front();
        }
    }

    /// Of each kind that happened the newest sample and the most milliseconds ever.
    pub fn latest(&self) -> Vec<(Event, Sample, u64)> {
        let samples = self.samples.lock();
        let latest = |(event, samples): (&Event, &Samples)| {
            samples.kept.back().map(|newest| (*event, *newest, samples.milliseconds_max))
        };
        samples.iter().filter_map(latest).collect()
    }

    /// The samples of a kind, oldest first; nothing for a name that is none.
    pub fn history(&self, name: &[u8]) -> Vec<Sample> {
        let samples = self.samples.lock();
        let found = samples.iter().find(|(event, _)| event.name().as_bytes().eq_ignore_ascii_case(name));
        found.map_or_else(Vec::new, |(_, samples)| samples.kept.iter().copied().collect())
    }

    /// Forgets the kinds for which `chosen` says so; returns how many had happened.
    pub fn forget(&self, chosen: impl Fn(Event) -> bool) -> usize {
        let mut samples = self.samples.lock();
        let before = samples.len();
        samples.retain(|event, _| !chosen(*event));
        before - samples.len()
    }
}

/// The longest value, about, that a histogram has counted since it was as `before`; `None` when it has counted none.
pub fn longest_since(before: &HistogramSnapshot, now: &HistogramSnapshot) -> Option<u64> {
    let old: BTreeMap<u64, u64> = before.filled_buckets().collect();
    let grown = |(top, count): &(u64, u64)| *count > old.get(top).copied().unwrap_or(0);
    now.filled_buckets().filter(grown).map(|(top, _)| top.min(now.max)).last()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bowline::histogram::Histogram;

    #[test]
    fn a_second_has_one_sample_the_longest() {
        let events = Events::default();
        for (at_seconds, milliseconds) in [(1, 20), (1, 50), (1, 30), (2, 10)] {
            events.note(Event::Command, Sample { at_seconds, milliseconds });
        }
        let newest = Sample { at_seconds: 2, milliseconds: 10 };
        assert_eq!(events.history(b"COMMAND"), [Sample { at_seconds: 1, milliseconds: 50 }, newest]);
        assert_eq!(events.latest(), [(Event::Command, newest, 50)]);
        assert_eq!(events.history(b"fork"), []);
    }

    #[test]
    fn the_oldest_samples_go_and_the_maximum_stays() {
        let events = Events::default();
        for at_seconds in 0..200 {
            events.note(Event::Sync, Sample { at_seconds, milliseconds: 1000 - at_seconds });
        }
        let kept = events.history(b"aof-fsync-always");
        assert_eq!((kept.len(), kept[0].at_seconds), (EVENT_SAMPLES_MAX, 200 - EVENT_SAMPLES_MAX as u64));
        assert_eq!(events.latest()[0].2, 1000);
        assert_eq!(events.forget(|event| event == Event::Command), 0);
        assert_eq!(events.forget(|event| event == Event::Sync), 1);
        assert_eq!(events.latest(), []);
    }

    #[test]
    fn only_what_was_counted_since_is_the_longest() {
        let histogram = Histogram::new();
        histogram.record(90_000);
        let before = histogram.snapshot();
        assert_eq!(longest_since(&before, &histogram.snapshot()), None);
        histogram.record(3);
        histogram.record(20);
        assert_eq!(longest_since(&before, &histogram.snapshot()), Some(20));
        histogram.record(90_000);
        assert_eq!(longest_since(&before, &histogram.snapshot()), Some(90_000));
    }
}
