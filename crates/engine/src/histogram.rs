//! Histogram (being written).
