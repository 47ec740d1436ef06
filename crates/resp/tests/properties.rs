//! What holds for every input: written is read back, pieces do not matter, nothing panics.

use bowline_resp::{
    Args, Decoded, Protocol, Reply, ReplyDecoder, RequestDecoder, RequestLimits, Value, encode_request, format_double,
    format_long_double_human, fuzz, parse_integer,
};
use proptest::collection::vec;
use proptest::prelude::*;

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(any::<u8>(), 0..40), vec(proptest::sample::select(&b"\r\n\0$*:+-_1"[..]), 0..40)]
}

/// Text that tries to break out of its line.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "[\r\n\\x00a:$*+-]{0,20}"]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        text().prop_map(Value::Simple),
        text().prop_map(Value::Error),
        any::<i64>().prop_map(Value::Integer),
        bytes().prop_map(Value::Bulk),
        Just(Value::Null),
        any::<f64>().prop_map(Value::Double),
        any::<bool>().prop_map(Value::Boolean),
        ("[!-~]{3}", bytes()).prop_map(|(format, text)| {
            let mut name = [0; 3];
            name.copy_from_slice(format.as_bytes());
            Value::Verbatim { format: name, text }
        }),
        "-?[0-9]{1,30}".prop_map(Value::BigNumber),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::Array),
            vec((inner.clone(), inner.clone()), 0..3).prop_map(Value::Map),
            vec(inner.clone(), 0..6).prop_map(Value::Set),
            vec(inner, 0..6).prop_map(Value::Push),
        ]
    })
}

/// The value as it must come back: no line ends in text.
fn on_one_line(value: Value) -> Value {
    let line = |text: String| text.replace(['\r', '\n'], " ");
    let all = |values: Vec<Value>| values.into_iter().map(on_one_line).collect();
    match value {
        Value::Simple(text) => Value::Simple(line(text)),
        Value::Error(text) => Value::Error(line(text)),
        Value::Array(values) => Value::Array(all(values)),
        Value::Set(values) => Value::Set(all(values)),
        Value::Push(values) => Value::Push(all(values)),
        Value::Map(pairs) => {
            Value::Map(pairs.into_iter().map(|(key, value)| (on_one_line(key), on_one_line(value))).collect())
        }
        other => other,
    }
}

proptest! {
    #[test]
    fn requests_read_back_from_any_pieces(
        requests in vec(vec(bytes(), 1..8), 0..8),
        cuts in vec(1_usize..50, 1..20),
    ) {
        let mut input = Vec::new();
        requests.iter().for_each(|args| encode_request(&mut input, args));
        let (mut decoder, mut start, mut fed) = (RequestDecoder::new(), 0, 0);
        let (mut found, mut cuts) = (Vec::new(), cuts.iter().cycle());
        while found.len() < requests.len() {
            let mut ranges = Vec::new();
            match decoder.decode(&input[..fed], start, &RequestLimits::default(), &mut ranges) {
                Ok(Decoded::Request { end }) => {
                    found.push(Args::new(&input, &ranges).iter().map(<[u8]>::to_vec).collect::<Vec<_>>());
                    start = end;
                }
                Ok(Decoded::Incomplete) => {
                    prop_assert!(fed < input.len());
                    fed = input.len().min(fed + cuts.next().unwrap_or(&1));
                }
                other => prop_assert!(false, "unexpected {other:?}"),
            }
        }
        prop_assert_eq!(start, input.len());
        prop_assert_eq!(found, requests);
    }

    #[test]
    fn a_reply_is_exactly_one_value(value in value(), resp3 in any::<bool>()) {
        let mut out = Vec::new();
        let protocol = if resp3 { Protocol::Resp3 } else { Protocol::Resp2 };
        value.write(&mut Reply::new(&mut out, protocol));
        let (read, bytes) = ReplyDecoder::new().decode(&out).expect("a reply").expect("a whole reply");
        prop_assert_eq!(bytes, out.len());
        if resp3 {
            prop_assert_eq!(read, on_one_line(value));
        }
    }

    #[test]
    fn replies_read_back_from_single_bytes(value in value()) {
        let mut out = Vec::new();
        value.write(&mut Reply::new(&mut out, Protocol::Resp3));
        let mut decoder = ReplyDecoder::new();
        for fed in 0..out.len() {
            prop_assert_eq!(decoder.decode(&out[..fed]), Ok(None));
        }
        prop_assert_eq!(decoder.decode(&out), Ok(Some((on_one_line(value), out.len()))));
    }

    #[test]
    fn any_bytes_keep_the_rules_of_the_codec(input in bytes()) {
        fuzz::resp_request(&input);
        fuzz::resp_reply(&input);
        fuzz::inline(&input);
    }

    #[test]
    fn integers_are_read_only_in_the_form_in_which_they_are_written(value in any::<i64>(), text in "[-+0 ]{0,2}[0-9]{0,20}") {
        prop_assert_eq!(parse_integer(value.to_string().as_bytes()), Some(value));
        let parsed = parse_integer(text.as_bytes());
        let expected = text.parse::<i64>().ok().filter(|number| number.to_string() == text);
        prop_assert_eq!(parsed, expected);
    }

    #[test]
    fn doubles_read_back_as_the_same_number(bits in any::<u64>()) {
        let value = f64::from_bits(bits);
        let text = format_double(value);
        prop_assert!(text.as_bytes().len() <= 25, "{}", text);
        let read: f64 = text.as_str().parse().expect("a number");
        prop_assert!(read == value || (read.is_nan() && value.is_nan()), "{} from {:e}", text, value);
    }

    #[test]
    fn decimals_have_no_exponent_and_at_most_17_places(value in prop_oneof![any::<f64>(), -1e6..1e6]) {
        let text = format_long_double_human(value);
        if value.is_finite() {
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.' || byte == b'-'), "{}", text);
            let places = text.split_once('.').map_or(0, |(_, places)| places.len());
            prop_assert!(places <= 17 && !(places > 0 && text.ends_with('0')), "{}", text);
            let read: f64 = text.parse().expect("a number");
            prop_assert!((read - value).abs() <= 0.500_001e-17 || read == value, "{} from {:e}", text, value);
        }
    }
}
