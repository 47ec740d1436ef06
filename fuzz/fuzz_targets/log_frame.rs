//! Headers, records and effects of the log, as if their checksums were right.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bowline::fuzz::log_frame(data));
