//! The log's figures in INFO and STATS.

use bowline::log::LogStatistics;

use super::info::{human, line, percentiles};

/// Writes the lines.
pub(super) fn lines(log: &LogStatistics, out: &mut String) {
    line(out, "log_bytes", log.live_bytes);
    line(out, "log_bytes_human", human(usize::try_from(log.live_bytes).unwrap_or(usize::MAX)));
    line(out, "log_files", log.files);
    line(out, "log_spare_files", log.spares);
    line(out, "log_unwritten_bytes", log.unwritten_bytes);
    line(out, "log_disk_full", u8::from(log.disk_full));
    line(out, "log_bytes_written", log.bytes_written);
    line(out, "log_frames", log.frames);
    line(out, "log_marks", log.marks);
    line(out, "log_records", log.records);
    line(out, "log_records_per_frame", format_args!("{:.2}", log.records_per_frame.mean()));
    line(out, "log_records_per_frame_max", log.records_per_frame.max);
    line(out, "log_syncs", log.syncs);
    for (name, latency) in [("sync", &log.sync_latency_us), ("commit", &log.commit_latency_us)] {
        line(out, &format!("log_{name}_usec"), percentiles(latency, 1.0));
        line(out, &format!("log_{name}_usec_mean"), format_args!("{:.1}", latency.mean()));
        line(out, &format!("log_{name}_usec_max"), latency.max);
    }
    line(out, "log_admissions_exceeded", log.admissions_exceeded);
}
