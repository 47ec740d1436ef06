//! Backup files: any bytes, and any bytes as the records of a file whose checksums are right.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bowline::fuzz::snapshot(data));
