//! Configuration files: read or refused with a line number.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| drop(bowline_server::settings::parse_text(data)));
