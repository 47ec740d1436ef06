//! What the log counts, for INFO and metrics. Counters only rise; the sizes are those of the moment.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use parking_lot::Mutex;

use super::Log;
use crate::histogram::{Histogram, HistogramSnapshot};

/// The counters, written by the log's threads.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) frames: AtomicU64,
    pub(crate) records: AtomicU64,
    pub(crate) marks: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) bytes_written: AtomicU64,
    pub(crate) admissions_exceeded: AtomicU64,
    pub(crate) append_position: AtomicU64,
    pub(crate) replay_from: AtomicU64,
    pub(crate) archived_files: AtomicU64,
    pub(crate) archived_bytes: AtomicU64,
    pub(crate) archive_failures: AtomicU64,
    pub(crate) archive_last_error: Mutex<Option<String>>,
    pub(crate) sync_latency_us: Histogram,
    pub(crate) commit_latency_us: Histogram,
    pub(crate) records_per_frame: Histogram,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, amount: u64) {
        counter.fetch_add(amount, Relaxed);
    }
}

/// What the log has done since it was opened, and how large it is.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct LogStatistics {
    /// Frames with records that were written.
    pub frames: u64,
    /// Records that were written.
    pub records: u64,
    /// Frames without records that were written.
    pub marks: u64,
    /// Syncs that returned success.
    pub syncs: u64,
    /// Bytes written, with headers.
    pub bytes_written: u64,
    /// Appends that were larger than what they had been admitted for: an estimate is wrong somewhere.
    pub admissions_exceeded: u64,
    /// Bytes of the log that a restart would read.
    pub live_bytes: u64,
    /// Bytes appended or reserved and not yet written.
    pub unwritten_bytes: u64,
    /// Log files that hold something that matters, with the active one.
    pub files: u64,
    /// Prepared files.
    pub spares: u64,
    /// Whether the next file could not be prepared.
    pub disk_full: bool,
    /// Files copied to the archive.
    pub archived_files: u64,
    /// Bytes copied to the archive.
    pub archived_bytes: u64,
    /// Finished files that are not in the archive yet; they are not recycled before.
    pub archive_pending_files: u64,
    /// How often a file could not be archived, or an old one not be removed; it is tried again.
    pub archive_failures: u64,
    /// Why the newest try failed; `None` when it did not.
    pub archive_last_error: Option<String>,
    /// Time of each sync, microseconds.
    pub sync_latency_us: HistogramSnapshot,
    /// Time from the first record of a frame until the frame was durable, microseconds.
    pub commit_latency_us: HistogramSnapshot,
    /// Records in each frame.
    pub records_per_frame: HistogramSnapshot,
}

impl Log {
    /// The counters. Copies three histograms.
    pub fn statistics(&self) -> LogStatistics {
        let (counters, files) = (&self.shared.counters, &self.shared.files);
        let (live_files, spares, archive_pending_files) = {
            let set = files.set.lock();
            (set.live.len() as u64 + 1, set.spares.len() as u64, set.unarchived.len() as u64)
        };
        LogStatistics {
            frames: counters.frames.load(SeqCst),
            records: counters.records.load(SeqCst),
            marks: counters.marks.load(SeqCst),
            syncs: counters.syncs.load(SeqCst),
            bytes_written: counters.bytes_written.load(SeqCst),
            admissions_exceeded: counters.admissions_exceeded.load(SeqCst),
            live_bytes: self.live_bytes(),
            unwritten_bytes: self.shared.room.unwritten(),
            files: live_files,
            spares,
            disk_full: self.is_disk_full(),
            archived_files: counters.archived_files.load(SeqCst),
            archived_bytes: counters.archived_bytes.load(SeqCst),
            archive_pending_files,
            archive_failures: counters.archive_failures.load(SeqCst),
            archive_last_error: counters.archive_last_error.lock().clone(),
            sync_latency_us: counters.sync_latency_us.snapshot(),
            commit_latency_us: counters.commit_latency_us.snapshot(),
            records_per_frame: counters.records_per_frame.snapshot(),
        }
    }
}
