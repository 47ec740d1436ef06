//! A histogram that any thread may record into at any time: latencies, sizes, counts.
//!
//! ```text
//!   value < 32: a bucket of its own                       value >= 32: 32 buckets for every power of two
//!   so a bucket is at most 1/32 of its value wide (5 significant bits), for every u64
//! ```
//!
//! Recording is three relaxed atomic additions and never allocates. A snapshot taken meanwhile may miss records that are
//! just being made. Not here: units; the owner knows them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const SIGNIFICANT_BITS: u32 = 5;
const STEPS: usize = 1 << SIGNIFICANT_BITS;
const BUCKETS: usize = (64 - SIGNIFICANT_BITS as usize + 1) * STEPS;

/// Counts of values, about 3 % wide each. Takes 15 KiB.
#[derive(Debug)]
pub struct Histogram {
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
    max: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram::new()
    }
}

fn bucket_of(value: u64) -> usize {
    let bits = 64 - value.leading_zeros();
    let shift = bits.saturating_sub(SIGNIFICANT_BITS + 1);
    // `value >> shift` is below 32 for the first bucket row and in 32..64 for every other.
    shift as usize * STEPS + (value >> shift) as usize
}

/// The largest value of a bucket.
fn top_of(bucket: usize) -> u64 {
    let shift = (bucket / STEPS).saturating_sub(1) as u32;
    let step = (bucket - shift as usize * STEPS) as u64;
    (step << shift) | ((1u64 << shift) - 1)
}

impl Histogram {
    /// An empty histogram.
    pub fn new() -> Histogram {
        let buckets = (0..BUCKETS).map(|_| AtomicU64::new(0)).collect();
        Histogram { buckets, sum: AtomicU64::new(0), max: AtomicU64::new(0) }
    }

    /// Counts `value` once.
    pub fn record(&self, value: u64) {
        self.record_many(value, 1);
    }

    /// Counts `value` so many times.
    pub fn record_many(&self, value: u64, times: u64) {
        if let Some(bucket) = self.buckets.get(bucket_of(value)) {
            bucket.fetch_add(times, Relaxed);
        }
        self.sum.fetch_add(value.wrapping_mul(times), Relaxed);
        if value > self.max.load(Relaxed) {
            self.max.fetch_max(value, Relaxed);
        }
    }

    /// What has been counted so far.
    pub fn snapshot(&self) -> HistogramSnapshot {
        let buckets: Vec<u64> = self.buckets.iter().map(|bucket| bucket.load(Relaxed)).collect();
        let count = buckets.iter().sum();
        HistogramSnapshot { buckets, count, sum: self.sum.load(Relaxed), max: self.max.load(Relaxed) }
    }

    /// Forgets everything; records made meanwhile may be lost or kept.
    pub fn reset(&self) {
        for bucket in &self.buckets {
            bucket.store(0, Relaxed);
        }
        self.sum.store(0, Relaxed);
        self.max.store(0, Relaxed);
    }
}

/// What a histogram held at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistogramSnapshot {
    buckets: Vec<u64>,
    /// How many values.
    pub count: u64,
    /// Their sum; wraps around at 2^64.
    pub sum: u64,
    /// The largest of them; 0 when there are none.
    pub max: u64,
}

impl HistogramSnapshot {
    /// The value that `percent` (0 to 100) of all values do not exceed, at most 1/32 too high; 0 when there are none.
    pub fn percentile(&self, percent: f64) -> u64 {
        let rank = (self.count as f64 * percent.clamp(0.0, 100.0) / 100.0).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if *count > 0 && seen >= rank {
                return top_of(bucket).min(self.max);
            }
        }
        self.max
    }

    /// The mean; 0 when there are no values.
    pub fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum as f64 / self.count as f64 }
    }

    /// The filled buckets as (largest value of the bucket, count), rising; for cumulative exports.
    pub fn filled_buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.buckets.iter().enumerate().filter(|(_, count)| **count > 0).map(|(bucket, count)| (top_of(bucket), *count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_value_lies_in_its_bucket_and_buckets_meet() {
        for bucket in 0..BUCKETS - 1 {
            let top = top_of(bucket);
            assert_eq!(bucket_of(top), bucket, "largest value of bucket {bucket}");
            assert_eq!(bucket_of(top + 1), bucket + 1, "the next value is in the next bucket");
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
        assert_eq!(top_of(BUCKETS - 1), u64::MAX);
    }

    proptest! {
        #[test]
        fn a_percentile_is_at_most_a_32nd_above_the_exact_one(mut values in prop::collection::vec(any::<u64>(), 1..200)) {
            let histogram = Histogram::new();
            values.iter().for_each(|value| histogram.record(*value));
            values.sort_unstable();
            let snapshot = histogram.snapshot();
            for percent in [1u32, 50, 90, 99, 100] {
                let rank = (values.len() as f64 * f64::from(percent) / 100.0).ceil() as usize;
                let exact = values[rank.max(1) - 1];
                let told = snapshot.percentile(f64::from(percent));
                prop_assert!(told >= exact && told - exact <= exact / 32, "{told} for {exact}");
            }
        }
    }

    #[test]
    fn records_of_all_threads_are_counted() {
        let histogram = Histogram::new();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1_000).for_each(|value| histogram.record(value)));
            }
        });
        let snapshot = histogram.snapshot();
        assert_eq!((snapshot.count, snapshot.sum, snapshot.max), (4_000, 4 * 499_500, 999));
        histogram.reset();
        assert_eq!(histogram.snapshot().percentile(99.0), 0);
    }
}
