//! What a server writes, byte by byte in both protocols, and what a client makes of it.

use bowline_resp::{Protocol, ProtocolError, Reply, ReplyDecoder, ReplyLimits, Value};

fn written(protocol: Protocol, write: &dyn Fn(&mut Reply<'_>)) -> String {
    let mut out = Vec::new();
    write(&mut Reply::new(&mut out, protocol));
    String::from_utf8(out).expect("golden replies are text")
}

#[track_caller]
fn golden(resp2: &str, resp3: &str, write: impl Fn(&mut Reply<'_>)) {
    assert_eq!(written(Protocol::Resp2, &write), resp2);
    assert_eq!(written(Protocol::Resp3, &write), resp3);
}

#[test]
fn types_of_both_protocols_have_one_form() {
    golden("+OK\r\n", "+OK\r\n", |reply| reply.ok());
    golden("+PONG\r\n", "+PONG\r\n", |reply| reply.simple("PONG"));
    golden("-ERR syntax error\r\n", "-ERR syntax error\r\n", |reply| reply.error("ERR syntax error"));
    golden(":0\r\n", ":0\r\n", |reply| reply.integer(0));
    golden(":10\r\n", ":10\r\n", |reply| reply.integer(10));
    golden(":-1\r\n", ":-1\r\n", |reply| reply.integer(-1));
    golden(":-9223372036854775808\r\n", ":-9223372036854775808\r\n", |reply| reply.integer(i64::MIN));
    golden("$0\r\n\r\n", "$0\r\n\r\n", |reply| reply.bulk(b""));
    golden("$9\r\n123456789\r\n", "$9\r\n123456789\r\n", |reply| reply.bulk(b"123456789"));
    golden("$10\r\n1234567890\r\n", "$10\r\n1234567890\r\n", |reply| reply.bulk(b"1234567890"));
    golden("$3\r\n-42\r\n", "$3\r\n-42\r\n", |reply| reply.bulk_integer(-42));
    golden("*0\r\n", "*0\r\n", |reply| reply.array(0));
    golden("*99\r\n", "*99\r\n", |reply| reply.array(99));
    golden("*100\r\n", "*100\r\n", |reply| reply.array(100));
}

#[test]
fn types_of_resp3_have_a_form_in_resp2() {
    golden("$-1\r\n", "_\r\n", |reply| reply.null());
    golden("*-1\r\n", "_\r\n", |reply| reply.null_array());
    golden("*4\r\n", "%2\r\n", |reply| reply.map(2));
    golden("*2\r\n", "~2\r\n", |reply| reply.set(2));
    golden("*3\r\n", ">3\r\n", |reply| reply.push(3));
    golden("$5\r\n12.34\r\n", ",12.34\r\n", |reply| reply.double(12.34));
    golden("$4\r\n-inf\r\n", ",-inf\r\n", |reply| reply.double(f64::NEG_INFINITY));
    golden(":1\r\n", "#t\r\n", |reply| reply.boolean(true));
    golden(":0\r\n", "#f\r\n", |reply| reply.boolean(false));
    golden("$2\r\nhi\r\n", "=6\r\ntxt:hi\r\n", |reply| reply.verbatim("txt", b"hi"));
    golden("$2\r\nhi\r\n", "=6\r\nm  :hi\r\n", |reply| reply.verbatim("m", b"hi"));
    golden("$2\r\nhi\r\n", "=6\r\nmar:hi\r\n", |reply| reply.verbatim("markdown", b"hi"));
    golden("$21\r\n123456789012345678901\r\n", "(123456789012345678901\r\n", |reply| {
        reply.big_number("123456789012345678901");
    });
}

#[test]
fn text_from_outside_cannot_end_a_line() {
    golden("-ERR unknown command 'a  -ERR b'\r\n", "-ERR unknown command 'a  -ERR b'\r\n", |reply| {
        reply.error("ERR unknown command 'a\r\n-ERR b'");
    });
    let mut out = Vec::new();
    Reply::new(&mut out, Protocol::Resp2).error_bytes(b"ERR \xff\r-\n\r\n");
    assert_eq!(out, b"-ERR \xff -\r\n");
    golden("+a  b\0\r\n", "+a  b\0\r\n", |reply| reply.simple("a\n\rb\0"));
    golden("$4\r\n1\r\n2\r\n", "(1  2\r\n", |reply| reply.big_number("1\r\n2"));
}

#[test]
fn a_reply_is_cut_back_to_its_own_start_at_most() {
    let mut out = b"+OK\r\n".to_vec();
    let mut reply = Reply::new(&mut out, Protocol::Resp2);
    reply.array(2);
    let mark = reply.bytes_written();
    reply.bulk(b"one");
    assert_eq!((mark, reply.bytes_written()), (4, 13));
    reply.rollback(mark);
    reply.null();
    reply.rollback(1000);
    assert_eq!(reply.bytes_written(), 9);
    reply.rollback(0);
    reply.raw(b"+QUEUED\r\n");
    assert_eq!(out, b"+OK\r\n+QUEUED\r\n");
}

#[track_caller]
fn read(input: &str) -> Value {
    let mut decoder = ReplyDecoder::new();
    let (value, bytes) = decoder.decode(input.as_bytes()).expect("a reply").expect("a whole reply");
    assert_eq!(bytes, input.len());
    value
}

#[track_caller]
fn refused(input: &[u8], error: ProtocolError) {
    assert_eq!(ReplyDecoder::new().decode(input), Err(error));
}

#[test]
fn every_type_is_read() {
    let text = |text: &str| Value::Bulk(text.into());
    assert_eq!(read("+OK\r\n"), Value::Simple("OK".into()));
    assert_eq!(read("-ERR no\r\n"), Value::Error("ERR no".into()));
    assert_eq!(read("!6\r\nERR no\r\n"), Value::Error("ERR no".into()));
    assert_eq!(read(":-7\r\n"), Value::Integer(-7));
    assert_eq!(read("$2\r\nhi\r\n"), text("hi"));
    assert_eq!(read("$-1\r\n"), Value::Null);
    assert_eq!(read("*-1\r\n"), Value::Null);
    assert_eq!(read("_\r\n"), Value::Null);
    assert_eq!(read(",1.5e3\r\n"), Value::Double(1500.0));
    assert_eq!(read(",-inf\r\n"), Value::Double(f64::NEG_INFINITY));
    assert_eq!(read("#t\r\n"), Value::Boolean(true));
    assert_eq!(read("(-123\r\n"), Value::BigNumber("-123".into()));
    assert_eq!(read("=6\r\ntxt:hi\r\n"), Value::Verbatim { format: *b"txt", text: b"hi".into() });
    assert_eq!(
        read("*2\r\n*1\r\n:1\r\n$1\r\na\r\n"),
        Value::Array(vec![Value::Array(vec![Value::Integer(1)]), text("a")])
    );
    assert_eq!(read("%1\r\n+k\r\n~0\r\n"), Value::Map(vec![(Value::Simple("k".into()), Value::Set(vec![]))]));
    assert_eq!(read(">1\r\n+m\r\n"), Value::Push(vec![Value::Simple("m".into())]));
}

#[test]
fn attributes_are_left_out_wherever_they_stand() {
    assert_eq!(read("|1\r\n+ttl\r\n*1\r\n:9\r\n:1\r\n"), Value::Integer(1));
    assert_eq!(
        read("*2\r\n|1\r\n+a\r\n+b\r\n:1\r\n|0\r\n:2\r\n"),
        Value::Array(vec![Value::Integer(1), Value::Integer(2)])
    );
}

#[test]
fn what_is_no_reply_is_refused() {
    refused(b"x\r\n", ProtocolError::UnknownReplyType { got: b'x' });
    refused(b":1x\r\n", ProtocolError::InvalidReply { what: "integer" });
    refused(b",1x\r\n", ProtocolError::InvalidReply { what: "double" });
    refused(b"#x\r\n", ProtocolError::InvalidReply { what: "boolean" });
    refused(b"_x\r\n", ProtocolError::InvalidReply { what: "null" });
    refused(b"(12a\r\n", ProtocolError::InvalidReply { what: "big number" });
    refused(b"$-2\r\n", ProtocolError::InvalidReply { what: "length" });
    refused(b"$?\r\n", ProtocolError::InvalidReply { what: "length" });
    refused(b"*-2\r\n", ProtocolError::InvalidReply { what: "count" });
    refused(b"%-1\r\n", ProtocolError::InvalidReply { what: "count" });
    refused(b"=3\r\ntxt\r\n", ProtocolError::InvalidReply { what: "verbatim string" });
    refused(b"+a\rb\r\n", ProtocolError::ReplyLineEnd);
    refused(b"$2\r\nabc\r\n", ProtocolError::BulkEndMissing);
}

#[test]
fn replies_are_bounded() {
    refused("*1\r\n".repeat(65).as_bytes(), ProtocolError::ReplyTooDeep);
    refused(b"$536870913\r\n", ProtocolError::ReplyTooLarge);
    refused(&vec![b'+'; 1024 * 1024 + 1], ProtocolError::ReplyTooLarge);

    let limits = ReplyLimits { reply_bytes_max: 11, ..ReplyLimits::default() };
    let decode = |input: &[u8]| ReplyDecoder::with_limits(limits).decode(input);
    assert!(decode(b"*2\r\n:1\r\n:1").is_ok());
    assert_eq!(decode(b"*2\r\n:1\r\n:1\r\n"), Err(ProtocolError::ReplyTooLarge));
    assert_eq!(decode(b"$9\r\n"), Err(ProtocolError::ReplyTooLarge));
    // Found by fuzzing: what was wrong beyond the limit decided the error when it had arrived already.
    assert_eq!(decode(b"*3\r\n:1\r\n:1234\r\n?"), Err(ProtocolError::ReplyTooLarge));
}

#[test]
fn a_count_with_nothing_behind_it_waits_for_more() {
    assert_eq!(ReplyDecoder::new().decode(b"*9223372036854775807\r\n"), Ok(None));
    assert_eq!(ReplyDecoder::new().decode(b"%9223372036854775807\r\n:1\r\n"), Ok(None));
}

#[test]
fn replies_that_follow_each_other_are_read_one_by_one() {
    let mut decoder = ReplyDecoder::new();
    let input = b"$5\r\nhello\r\n:1\r\n";
    assert_eq!(decoder.decode(&input[..7]), Ok(None));
    assert_eq!(decoder.bytes_wanted(7), 4);
    assert_eq!(decoder.decode(input), Ok(Some((Value::Bulk(b"hello".into()), 11))));
    assert_eq!(decoder.decode(&input[11..]), Ok(Some((Value::Integer(1), 4))));
    assert_eq!(decoder.bytes_wanted(0), 0);
}
