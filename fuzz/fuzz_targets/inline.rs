//! Words in quotes: what is split can be quoted and split again.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bowline_resp::fuzz::inline(data));
