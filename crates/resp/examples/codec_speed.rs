//! How long the codec takes for one request and one reply, in nanoseconds: `cargo run --release --example codec_speed`.
//! Each figure is the median of 15 runs over a pipeline that fits the second-level cache.

use std::hint::black_box;
use std::time::Instant;

use bowline_resp::{ArgRange, Decoded, Protocol, Reply, ReplyDecoder, RequestDecoder, RequestLimits, encode_request};

const PIPELINE: usize = 1000;
const REPEATS: usize = 1000;

/// Runs `body`, which does [`PIPELINE`] operations, and prints the time of one.
fn measure(name: &str, mut body: impl FnMut()) {
    let mut runs: Vec<f64> = (0..15)
        .map(|_| {
            let begin = Instant::now();
            (0..REPEATS).for_each(|_| body());
            begin.elapsed().as_nanos() as f64 / (PIPELINE * REPEATS) as f64
        })
        .collect();
    runs.sort_by(f64::total_cmp);
    println!("{name:<44} {:7.2} ns", runs[runs.len() / 2]);
}

fn measure_requests(name: &str, args: &[&[u8]]) {
    let mut input = Vec::new();
    (0..PIPELINE).for_each(|_| encode_request(&mut input, args));
    let (mut decoder, limits) = (RequestDecoder::new(), RequestLimits::default());
    let mut ranges: Vec<ArgRange> = Vec::new();
    measure(name, || {
        let mut start = 0;
        while let Ok(Decoded::Request { end }) = decoder.decode(black_box(&input), start, &limits, &mut ranges) {
            black_box(&ranges);
            ranges.clear();
            start = end;
        }
        assert_eq!(start, input.len());
    });
}

fn measure_replies(name: &str, write: impl Fn(&mut Reply<'_>)) {
    let mut out = Vec::new();
    measure(name, || {
        out.clear();
        for _ in 0..PIPELINE {
            write(&mut Reply::new(black_box(&mut out), Protocol::Resp2));
        }
    });
}

fn main() {
    measure_requests("decode PING", &[b"PING"]);
    measure_requests("decode GET, key 16", &[b"GET", b"key:000000000001"]);
    measure_requests("decode SET, key 16, value 32", &[b"SET", b"key:000000000001", &[b'v'; 32]]);
    measure_requests("decode SET, key 16, value 4096", &[b"SET", b"key:000000000001", &[b'v'; 4096]]);
    measure_replies("encode OK", |reply| reply.ok());
    measure_replies("encode bulk 3", |reply| reply.bulk(black_box(b"abc")));
    measure_replies("encode bulk 32", |reply| reply.bulk(black_box(&[b'v'; 32])));
    measure_replies("encode bulk 1000", |reply| reply.bulk(black_box(&[b'v'; 1000])));
    measure_replies("encode null", |reply| reply.null());
    measure_replies("encode integer 7", |reply| reply.integer(black_box(7)));
    measure_replies("encode integer 1234567", |reply| reply.integer(black_box(1_234_567)));
    measure_replies("encode double 12.34", |reply| reply.double(black_box(12.34)));

    let mut replies = Vec::new();
    (0..PIPELINE).for_each(|_| Reply::new(&mut replies, Protocol::Resp2).bulk(&[b'v'; 32]));
    let mut decoder = ReplyDecoder::new();
    measure("decode reply bulk 32 (client)", || {
        let mut start = 0;
        while let Ok(Some((value, bytes))) = decoder.decode(black_box(&replies[start..])) {
            black_box(value);
            start += bytes;
        }
    });
}
