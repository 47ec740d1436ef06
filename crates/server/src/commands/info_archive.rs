//! The figures of archive and backups in INFO and STATS.

use std::sync::atomic::Ordering::Relaxed;

use bowline::log::LogStatistics;

use super::info::line;
use crate::state::Server;

/// Writes the lines.
pub(super) fn lines(server: &Server, log: &LogStatistics, out: &mut String) {
    let on = !server.settings.current().archive_dir.as_os_str().is_empty();
    line(out, "archive_enabled", u8::from(on));
    line(out, "archive_files", log.archived_files);
    line(out, "archive_bytes", log.archived_bytes);
    line(out, "archive_pending_files", log.archive_pending_files);
    line(out, "archive_failures", log.archive_failures);
    line(out, "archive_last_error", log.archive_last_error.as_deref().unwrap_or(""));
    line(out, "backups_running", server.backups.running.load(Relaxed));
    line(out, "backups_begun", server.backups.begun.load(Relaxed));
}
