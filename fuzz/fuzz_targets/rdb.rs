//! Files of Redis: RDB, append-only files, manifests; what was read can be written and read again.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bowline_rdb::fuzz::rdb(data));
