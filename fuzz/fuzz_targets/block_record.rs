//! Records of the block file and compressed values: any bytes behind checksums that are right.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bowline::fuzz::block_record(data));
