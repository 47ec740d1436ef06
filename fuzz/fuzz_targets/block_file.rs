//! The parts of a block file: superblock, manifest, table page, leaf, extent, record, list of chunks.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bowline::fuzz::block_file(data));
