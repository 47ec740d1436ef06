//! Replies, at once and in pieces: the same values, and what is written reads back in both protocols.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bowline_resp::fuzz::resp_reply(data));
