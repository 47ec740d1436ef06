//! Requests, at once and in pieces: the same result, positions inside the buffer, and what is encoded reads back.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bowline_resp::fuzz::resp_request(data));
