//! The log's figures in INFO and STATS.

use std::fmt::Write;

use bowline::log::LogStatistics;

/// Writes the lines.
pub(super) fn lines(_log: &LogStatistics, _out: &mut String) {}
