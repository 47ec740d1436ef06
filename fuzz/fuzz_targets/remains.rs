//! Block files and logs with anything in them, read as a repair reads damaged ones.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bowline::fuzz::remains(data));
