//! What a server reads: requests of both forms, their limits, and the exact words of every refusal.
//! Replies of a real Redis 7 to the same bytes are what the expected texts were taken from.

use bowline_resp::{
    ArgRange, Args, Bulk, CHUNK_BYTES, Decoded, ProtocolError, RequestDecoder, RequestLimits, encode_request,
    split_inline,
};

/// Decodes `input` as it stands and returns the words of each request, and the text of the error that ended it.
fn decode(input: &[u8], limits: &RequestLimits) -> (Vec<Vec<Vec<u8>>>, Option<String>) {
    let (mut decoder, mut start, mut requests) = (RequestDecoder::new(), 0, Vec::new());
    loop {
        let mut ranges = Vec::new();
        let end = match decoder.decode(input, start, limits, &mut ranges) {
            Err(error) => return (requests, Some(error.to_string())),
            Ok(Decoded::Incomplete) => return (requests, None),
            Ok(Decoded::Nothing { end }) => end,
            Ok(Decoded::Inline { end }) => {
                requests.push(decoder.inline_args().iter().map(<[u8]>::to_vec).collect());
                end
            }
            Ok(Decoded::Request { end }) => {
                requests.push(Args::new(input, &ranges).iter().map(<[u8]>::to_vec).collect());
                end
            }
        };
        start = end;
    }
}

fn words(words: &[&str]) -> Vec<Vec<u8>> {
    words.iter().map(|word| word.as_bytes().to_vec()).collect()
}

#[track_caller]
fn refused(input: &[u8], text: &str) {
    let (requests, error) = decode(input, &RequestLimits::default());
    assert_eq!(requests, [] as [Vec<Vec<u8>>; 0]);
    assert_eq!(error.as_deref(), Some(text));
}

#[test]
fn pipelined_requests_of_both_forms_are_read_in_order() {
    let input =
        b"*1\r\n$4\r\nPING\r\nECHO hi\n\r\n*0\r\n*-1\r\n*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\nPING\r\n*1\r\n$4\r\nPI";
    let (requests, error) = decode(input, &RequestLimits::default());
    assert_eq!(requests, [words(&["PING"]), words(&["ECHO", "hi"]), words(&["SET", "k", ""]), words(&["PING"])]);
    assert_eq!(error, None);
}

#[test]
fn a_multibulk_request_points_into_the_buffer() {
    let buffer = b"xx*2\r\n$3\r\nGET\r\n$12\r\n0123456789ab\r\n";
    let mut ranges = vec![ArgRange { start: 1, len: 1 }];
    let decoded = RequestDecoder::new().decode(buffer, 2, &RequestLimits::default(), &mut ranges);
    assert_eq!(decoded, Ok(Decoded::Request { end: buffer.len() }));
    assert_eq!(
        ranges,
        [ArgRange { start: 1, len: 1 }, ArgRange { start: 10, len: 3 }, ArgRange { start: 20, len: 12 }]
    );
}

#[test]
fn broken_headers_are_refused_in_the_words_of_redis() {
    refused(b"*\r\n", "Protocol error: invalid multibulk length");
    refused(b"*abc\r\n", "Protocol error: invalid multibulk length");
    refused(b"*00\r\n", "Protocol error: invalid multibulk length");
    refused(b"*+1\r\n", "Protocol error: invalid multibulk length");
    refused(b"*3000000000\r\n", "Protocol error: invalid multibulk length");
    refused(b"*1048577\r\n", "Protocol error: invalid multibulk length");
    refused(b"*99999999999999999999\r\n", "Protocol error: invalid multibulk length");
    refused(b"*1\r\nfoo\r\n", "Protocol error: expected '$', got 'f'");
    refused(b"*1\r\n\r\n", "Protocol error: expected '$', got ' '");
    refused(b"*1\r\n\xff\r\n", "Protocol error: expected '$', got '\\xff'");
    refused(b"*1\r\n$-1\r\n", "Protocol error: invalid bulk length");
    refused(b"*1\r\n$x\r\n", "Protocol error: invalid bulk length");
    refused(b"*1\r\n$\r\n", "Protocol error: invalid bulk length");
    refused(b"*1\r\n$2000000000\r\n", "Protocol error: invalid bulk length");
    refused(b"\"abc\r\n", "Protocol error: unbalanced quotes in request");
    refused(b"PING \"a\"b\r\n", "Protocol error: unbalanced quotes in request");
}

#[test]
fn lines_without_an_end_are_refused_after_64_kib() {
    let endless = vec![b'1'; 64 * 1024];
    let after = |head: &[u8]| [head, &endless].concat();
    refused(&after(b"1"), "Protocol error: too big inline request");
    refused(&after(b"*"), "Protocol error: too big mbulk count string");
    refused(&after(b"*1\r\n$"), "Protocol error: too big bulk count string");
    assert_eq!(decode(&endless, &RequestLimits::default()), (vec![], None));
}

#[test]
fn an_inline_request_of_exactly_the_limit_is_read() {
    let limits = RequestLimits { inline_bytes_max: 7, ..RequestLimits::default() };
    assert_eq!(decode(b"ECHO xy\n", &limits), (vec![words(&["ECHO", "xy"])], None));
    let too_long = decode(b"ECHO xyz\n", &limits);
    assert_eq!(too_long, (vec![], Some("Protocol error: too big inline request".to_owned())));
}

#[test]
fn a_length_line_must_end_in_cr_lf() {
    refused(b"*1\rx$4\r\nPING\r\n", "Protocol error: invalid multibulk length");
    refused(b"*1\r\n$4\rxPING\r\n", "Protocol error: invalid bulk length");
}

#[test]
fn a_bulk_that_is_longer_than_it_says_never_becomes_a_request() {
    refused(b"*1\r\n$4\r\nPINGFLUSHALL\r\n", "Protocol error: expected CR LF after a bulk, its length is wrong");
}

#[test]
fn strangers_get_few_and_short_arguments() {
    let limits = RequestLimits { authenticated: false, ..RequestLimits::default() };
    let refusal = |input: &[u8]| decode(input, &limits).1.unwrap_or_default();
    assert_eq!(refusal(b"*11\r\n"), "Protocol error: unauthenticated multibulk length");
    assert_eq!(refusal(b"*1\r\n$16385\r\n"), "Protocol error: unauthenticated bulk length");

    let mut allowed = Vec::new();
    let args = vec![vec![b'a'; 3 * 1024]; 10];
    encode_request(&mut allowed, &args);
    assert_eq!(decode(&allowed, &limits), (vec![args], None));

    let mut too_long_together = Vec::new();
    encode_request(&mut too_long_together, &vec![vec![b'a'; 16 * 1024]; 10]);
    assert_eq!(refusal(&too_long_together), "Protocol error: unauthenticated bulk length");
}

#[test]
fn limits_may_change_while_a_request_arrives() {
    let input = b"*1\r\n$20000\r\n";
    let (mut decoder, mut ranges) = (RequestDecoder::new(), Vec::new());
    let stranger = RequestLimits { authenticated: false, ..RequestLimits::default() };
    assert_eq!(decoder.decode(&input[..6], 0, &stranger, &mut ranges), Ok(Decoded::Incomplete));
    assert_eq!(decoder.decode(input, 0, &RequestLimits::default(), &mut ranges), Ok(Decoded::Incomplete));
    assert_eq!(decoder.bytes_wanted(), 20_002);
}

#[test]
fn inline_words_are_unescaped() {
    let (requests, error) = decode(b"SET 'it\\'s' \"\\x41\\n\\q\\\"\" \"\"\r\n", &RequestLimits::default());
    assert_eq!(requests, [words(&["SET", "it's", "A\nq\"", ""])]);
    assert_eq!(error, None);
}

#[test]
fn vertical_space_parts_words_only_where_one_could_begin() {
    assert_eq!(split_inline(b"\x0b\x0cECHO \x0c\x0ba\x0bb\x0c"), Ok(words(&["ECHO", "a\x0bb\x0c"])));
}

#[test]
fn a_length_line_in_two_pieces_leaves_no_trace_on_the_next_one() {
    let input = [&b"*2\r\n$10000\r\n"[..], &[b'v'; 10_000], b"\r\nx\r\n"].concat();
    let (mut decoder, mut ranges, limits) = (RequestDecoder::new(), Vec::new(), RequestLimits::default());
    assert_eq!(decoder.decode(&input[..9], 0, &limits, &mut ranges), Ok(Decoded::Incomplete));
    assert_eq!(decoder.decode(&input, 0, &limits, &mut ranges), Err(ProtocolError::ExpectedBulk { got: b'x' }));
}

#[test]
fn the_bytes_still_missing_of_an_argument_are_told() {
    let input = b"*1\r\n$100\r\nabc";
    let (mut decoder, mut ranges) = (RequestDecoder::new(), Vec::new());
    assert_eq!(decoder.bytes_wanted(), 0);
    assert_eq!(decoder.decode(input, 0, &RequestLimits::default(), &mut ranges), Ok(Decoded::Incomplete));
    assert_eq!(decoder.bytes_wanted(), 99);

    let whole = [&input[..], &[b'x'; 97], b"\r\n"].concat();
    let decoded = decoder.decode(&whole, 0, &RequestLimits::default(), &mut ranges);
    assert_eq!(decoded, Ok(Decoded::Request { end: whole.len() }));
    assert_eq!(decoder.bytes_wanted(), 0);
}

#[test]
fn a_request_that_could_not_be_addressed_is_refused_by_its_promise() {
    let limits = RequestLimits { bulk_bytes_max: u32::MAX, ..RequestLimits::default() };
    let (requests, error) = decode(b"*1\r\n$4294967290\r\n", &limits);
    assert_eq!((requests, error), (vec![], Some(ProtocolError::BufferTooLarge.to_string())));
}

#[test]
fn a_buffer_may_be_compacted_between_the_pieces_of_a_request() {
    let first = b"PING\r\n*2\r\n$3\r\nGET\r\n$1";
    let (mut decoder, mut ranges) = (RequestDecoder::new(), Vec::new());
    let limits = RequestLimits::default();
    assert_eq!(decoder.decode(first, 0, &limits, &mut ranges), Ok(Decoded::Inline { end: 6 }));
    assert_eq!(decoder.decode(first, 6, &limits, &mut ranges), Ok(Decoded::Incomplete));
    assert_eq!(ranges, []);

    decoder.rebase(6);
    let moved = [&first[6..], b"\r\nk\r\n"].concat();
    assert_eq!(decoder.decode(&moved, 0, &limits, &mut ranges), Ok(Decoded::Request { end: moved.len() }));
    let args = Args::new(&moved, &ranges);
    assert_eq!(args.iter().collect::<Vec<_>>(), [&b"GET"[..], b"k"]);
}

/// With work that grows with the square of the input this would run for hours.
#[test]
fn a_huge_request_in_tiny_pieces_is_read_in_linear_time() {
    let args = vec![b"x"; 1024 * 1024];
    let mut input = Vec::new();
    encode_request(&mut input, &args);
    let (mut decoder, mut ranges) = (RequestDecoder::new(), Vec::new());
    let limits = RequestLimits::default();
    for piece in (0..input.len()).step_by(7) {
        assert_eq!(decoder.decode(&input[..piece], 0, &limits, &mut ranges), Ok(Decoded::Incomplete));
    }
    assert_eq!(decoder.decode(&input, 0, &limits, &mut ranges), Ok(Decoded::Request { end: input.len() }));
    assert_eq!(ranges.len(), args.len());
}

/// Feeds `input` in pieces as a session does, long arguments into chunks; returns the requests.
fn decode_with_chunks(input: &[u8], pieces: &[usize], from: usize) -> Vec<Vec<Vec<u8>>> {
    let (mut decoder, mut buffer, mut start, mut requests) = (RequestDecoder::new(), Vec::new(), 0, Vec::new());
    let (mut rest, mut turn) = (input, 0);
    while !rest.is_empty() {
        let piece = pieces[turn % pieces.len()].max(1).min(rest.len());
        turn += 1;
        let missing = decoder.chunk_bytes_missing();
        if missing > 0 && turn % 4 == 0 {
            let (now, later) = rest.split_at(piece);
            buffer.extend_from_slice(decoder.fill_chunks(now));
            rest = later;
        } else if let Some(space) = decoder.chunk_space() {
            // A read may bring more than was asked for.
            let (now, later) = rest.split_at(piece.min(missing + 3).min(CHUNK_BYTES - space.len()));
            space.extend_from_slice(now);
            rest = later;
            buffer.extend(decoder.received_chunk());
        } else {
            let (now, later) = rest.split_at(piece);
            buffer.extend_from_slice(now);
            rest = later;
        }
        loop {
            let mut ranges = Vec::new();
            if turn % 3 == 0 && decoder.chunk_bytes_missing() == 0 {
                decoder.restart();
            }
            match decoder.decode(&buffer, start, &RequestLimits::default(), &mut ranges).expect("a request") {
                Decoded::Request { end } => {
                    let args = Args::with_chunks(&buffer, &ranges, decoder.chunked());
                    let whole = |index| match args.bulk(index) {
                        Bulk::Bytes(bytes) => bytes.to_vec(),
                        Bulk::Chunks(chunks) => chunks.to_vec(),
                    };
                    requests.push((0..args.len()).map(whole).collect());
                    start = end;
                    decoder.forget_chunks(start);
                }
                _ => break,
            }
        }
        if turn % 2 == 0 {
            buffer.drain(..start);
            decoder.rebase(start);
            start = 0;
        }
        decoder.begin_chunks(&mut buffer, start, from);
    }
    assert_eq!((decoder.chunk_bytes(), start), (0, buffer.len()), "nothing is left");
    requests
}

#[test]
fn long_arguments_come_in_chunks_whatever_the_pieces() {
    let long = |len: usize, seed: u8| (0..len).map(|at| (at as u8).wrapping_mul(7) ^ seed).collect::<Vec<_>>();
    let wanted = vec![
        vec![b"GET".to_vec(), b"a".to_vec()],
        vec![
            b"MSET".to_vec(),
            b"a".to_vec(),
            long(200_000, 1),
            b"b".to_vec(),
            long(100_001, 2),
            b"c".to_vec(),
            long(9, 3),
        ],
        vec![b"SET".to_vec(), long(70_000, 4), long(65_536, 5)],
        vec![b"GET".to_vec(), b"b".to_vec()],
        vec![b"SET".to_vec(), b"k".to_vec(), long(300_000, 6), b"NX".to_vec()],
    ];
    let mut input = Vec::new();
    for request in &wanted {
        encode_request(&mut input, &request.iter().map(Vec::as_slice).collect::<Vec<_>>());
    }
    for pieces in [&[1usize << 20][..], &[65_536], &[1000, 1, 70_000], &[13, 4096], &[65_535, 65_537, 3]] {
        assert!(decode_with_chunks(&input, pieces, 65_536) == wanted, "in pieces of {pieces:?}");
        assert!(decode_with_chunks(&input, pieces, 5) == wanted, "in pieces of {pieces:?}, also short ones");
    }
}
