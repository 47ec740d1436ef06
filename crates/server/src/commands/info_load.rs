//! INFO's lines about a lazy start.

use bowline::LoadStatistics;

use super::info::line;

/// The lines of the section "persistence".
pub(super) fn lines(load: &LoadStatistics, out: &mut String) {
    line(out, "lazy_loading", u8::from(!load.is_done()));
    line(out, "lazy_loading_segments", load.segments);
    line(out, "lazy_loading_segments_done", load.segments_done);
    line(out, "lazy_loading_bytes", load.bytes_total);
    line(out, "lazy_loading_bytes_done", load.bytes_done);
    line(out, "lazy_loading_eta_seconds", load.left.as_secs_f64().ceil());
}
