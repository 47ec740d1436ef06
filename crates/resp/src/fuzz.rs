//! The bodies of the fuzz targets, shared by `fuzz/` and by the seeded tests of this crate. Not part of the API.
//!
//! Each takes any bytes and panics when a rule of the codec is broken: the result must not depend on the pieces in which
//! the bytes arrive, positions must lie inside the buffer, and what is written must read back.

use crate::{
    ArgRange, Args, Decoded, Protocol, ProtocolError, Reply, ReplyDecoder, ReplyLimits, RequestDecoder, RequestLimits,
    Value, encode_request, quote, split_inline,
};

/// The sizes of the pieces in which input is fed, repeated: derived from the input itself.
struct Pieces {
    seed: u8,
}

impl Pieces {
    /// The next size, 1 to 64 bytes, mostly small.
    fn next(&mut self) -> usize {
        self.seed = self.seed.wrapping_mul(37).wrapping_add(11);
        match self.seed >> 6 {
            0 => 1,
            1 => 2 + usize::from(self.seed & 3),
            _ => 1 + usize::from(self.seed & 63),
        }
    }
}

/// Requests, then how the connection ended.
type Requests = (Vec<Vec<Vec<u8>>>, Option<ProtocolError>);

/// Feeds requests at once and in pieces, with small limits so that they are met, and compares.
pub fn resp_request(data: &[u8]) {
    let [seed, options, input @ ..] = data else { return };
    let small = options & 1 == 1;
    let limits = RequestLimits {
        args_max: if small { 20 } else { 1024 * 1024 },
        bulk_bytes_max: if small { 100 } else { u32::MAX },
        inline_bytes_max: if small { 50 } else { 64 * 1024 },
        authenticated: options & 2 == 0,
    };
    let whole = decode_requests(input, &limits, || usize::MAX);
    let mut pieces = Pieces { seed: *seed };
    let pieced = decode_requests(input, &limits, || pieces.next());
    assert_eq!(whole, pieced, "requests must not depend on the pieces in which they arrive");
    for args in whole.0 {
        let mut encoded = Vec::new();
        encode_request(&mut encoded, &args);
        let generous = RequestLimits { bulk_bytes_max: u32::MAX, ..RequestLimits::default() };
        assert_eq!(decode_requests(&encoded, &generous, || usize::MAX), (vec![args], None), "a request reads back");
    }
}

/// Decodes all of `input`, given to the decoder in pieces of these sizes, the buffer compacted now and then.
fn decode_requests(input: &[u8], limits: &RequestLimits, mut piece: impl FnMut() -> usize) -> Requests {
    let (mut decoder, mut requests) = (RequestDecoder::new(), Vec::new());
    let (mut buffer, mut start, mut fed) = (Vec::new(), 0, 0);
    let untouched = ArgRange { start: 7, len: 7 };
    let mut ranges = vec![untouched];
    loop {
        let decoded = match decoder.decode(&buffer, start, limits, &mut ranges) {
            Ok(decoded) => decoded,
            Err(error) => {
                assert_eq!(ranges, [untouched], "an error leaves the ranges alone");
                return (requests, Some(error));
            }
        };
        match decoded {
            Decoded::Incomplete => {
                assert_eq!(ranges, [untouched], "an unfinished request leaves the ranges alone");
                if fed == input.len() {
                    return (requests, None);
                }
                if buffer.len() % 3 == 0 {
                    buffer.drain(..start);
                    decoder.rebase(start);
                    start = 0;
                }
                let next = fed + piece().min(input.len() - fed);
                buffer.extend_from_slice(&input[fed..next]);
                fed = next;
                continue;
            }
            Decoded::Request { end } => {
                let (first, found) = ranges.split_first().expect("the mark stays");
                assert_eq!(*first, untouched, "earlier ranges are left alone");
                assert!(found.iter().all(|range| range.start as usize + range.len as usize + 2 <= end));
                requests.push(Args::new(&buffer, found).iter().map(<[u8]>::to_vec).collect());
            }
            Decoded::Inline { .. } => requests.push(decoder.inline_args().iter().map(<[u8]>::to_vec).collect()),
            Decoded::Nothing { .. } => {}
        }
        let (Decoded::Request { end } | Decoded::Inline { end } | Decoded::Nothing { end }) = decoded else { continue };
        assert!(end > start && end <= buffer.len(), "a request takes bytes that are there");
        start = end;
        ranges.truncate(1);
    }
}

/// Feeds replies at once and in pieces and compares; writes what was read and reads it again.
pub fn resp_reply(data: &[u8]) {
    let [seed, options, input @ ..] = data else { return };
    let mut limits = ReplyLimits::default();
    if options & 1 == 1 {
        limits = ReplyLimits { depth_max: 4, bulk_bytes_max: 100, line_bytes_max: 50, reply_bytes_max: 200 };
    }
    let (whole, whole_error) = decode_replies(input, limits, || usize::MAX);
    let mut pieces = Pieces { seed: *seed };
    let (pieced, pieced_error) = decode_replies(input, limits, || pieces.next());
    assert_eq!(whole_error, pieced_error, "errors must not depend on the pieces in which replies arrive");
    // As bytes, because a double that is not a number equals nothing.
    assert_eq!(write(&whole, Protocol::Resp3), write(&pieced, Protocol::Resp3));
    for protocol in [Protocol::Resp2, Protocol::Resp3] {
        let written = write(&whole, protocol);
        let (again, error) = decode_replies(&written, ReplyLimits::default(), || usize::MAX);
        assert_eq!(error, None, "what is written can be read");
        assert_eq!(again.len(), whole.len(), "each value is one reply");
        assert_eq!(write(&again, protocol), written, "what is read back is what was written");
    }
}

fn write(values: &[Value], protocol: Protocol) -> Vec<u8> {
    let mut out = Vec::new();
    let mut reply = Reply::new(&mut out, protocol);
    for value in values {
        value.write(&mut reply);
    }
    out
}

/// Decodes all of `input`, given to the decoder in pieces of these sizes.
fn decode_replies(
    input: &[u8],
    limits: ReplyLimits,
    mut piece: impl FnMut() -> usize,
) -> (Vec<Value>, Option<ProtocolError>) {
    let (mut decoder, mut values) = (ReplyDecoder::with_limits(limits), Vec::new());
    let (mut start, mut fed) = (0, 0);
    loop {
        match decoder.decode(&input[start..fed]) {
            Err(error) => return (values, Some(error)),
            Ok(None) if fed == input.len() => return (values, None),
            Ok(None) => fed += piece().min(input.len() - fed),
            Ok(Some((value, bytes))) => {
                assert!(bytes > 0 && bytes <= fed - start, "a reply takes bytes that are there");
                values.push(value);
                start += bytes;
            }
        }
    }
}

/// Splits a line, quotes its words, and splits that again; quotes the line itself as one word.
pub fn inline(data: &[u8]) {
    assert_eq!(split_inline(quote(data).as_bytes()), Ok(vec![data.to_vec()]), "a quoted word reads back");
    let Ok(words) = split_inline(data) else { return };
    let line = words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ");
    assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "a quoted word is printable");
    assert_eq!(split_inline(line.as_bytes()), Ok(words), "quoted words read back");
}
