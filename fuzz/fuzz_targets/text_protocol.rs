//! Lines of the text protocol.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bowline_server::text::codec::fuzz(data));
