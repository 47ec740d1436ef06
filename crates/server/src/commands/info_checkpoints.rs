//! The checkpoints' figures in INFO and STATS.

use bowline::{CheckpointStatistics, ScrubStatistics};

use super::info::line;

/// Writes the lines about the file's soundness.
pub(super) fn scrub_lines(scrub: &ScrubStatistics, out: &mut String) {
    line(out, "scrub_bytes", scrub.bytes);
    line(out, "scrub_passes", scrub.passes);
    line(out, "scrub_damage", scrub.damage);
    line(out, "scrub_last_damage", scrub.last_damage.as_deref().unwrap_or(""));
    line(out, "scrub_repairs", scrub.repairs);
}

/// Writes the lines: first those that Redis has for its snapshots.
pub(super) fn lines(checkpoints: &CheckpointStatistics, out: &mut String) {
    line(out, "rdb_bgsave_in_progress", u8::from(checkpoints.running));
    line(out, "rdb_last_save_time", checkpoints.last_at_ms / 1000);
    line(out, "rdb_last_bgsave_status", if checkpoints.last_error.is_none() { "ok" } else { "err" });
    line(out, "rdb_last_bgsave_time_sec", checkpoints.last_took.as_secs());
    line(out, "rdb_saves", checkpoints.published);
    let (done, segments) = checkpoints.segments_done;
    line(out, "checkpoint_perc", if checkpoints.running { 100 * done / segments.max(1) } else { 100 });
    line(out, "checkpoint_version", checkpoints.cut);
    line(out, "checkpoint_entries", checkpoints.entries);
    line(out, "checkpoint_msec", checkpoints.last_took.as_millis());
    line(out, "checkpoints_failed", checkpoints.failed);
    line(out, "checkpoint_last_error", checkpoints.last_error.as_deref().unwrap_or(""));
    line(out, "block_file_bytes", checkpoints.file_bytes);
    line(out, "block_file_live_bytes", checkpoints.live_bytes);
    line(out, "block_file_bytes_written", checkpoints.written_bytes);
}
