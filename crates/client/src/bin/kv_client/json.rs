//! An answer as JSON.
//!
//! Text is a string. Bytes that are no UTF-8 become `{"base64": "..."}`, so that nothing is lost and nothing is
//! confused with text. An error within an answer becomes `{"error": "..."}`.

use bowline_client::Value;
use serde_json::{Map, Number, json};

/// The answer as JSON. A map whose keys are not all strings or numbers becomes a list of pairs.
pub(crate) fn of(value: &Value) -> serde_json::Value {
    match value {
        Value::Simple(text) | Value::BigNumber(text) => json!(text),
        Value::Error(text) => json!({ "error": text }),
        Value::Integer(number) => json!(number),
        Value::Bulk(bytes) | Value::Verbatim { text: bytes, .. } => of_bytes(bytes),
        Value::Null => serde_json::Value::Null,
        Value::Array(items) | Value::Set(items) | Value::Push(items) => items.iter().map(of).collect(),
        Value::Double(number) => Number::from_f64(*number).map_or_else(|| json!(number.to_string()), Into::into),
        Value::Boolean(truth) => json!(truth),
        Value::Map(pairs) => {
            let named: Option<Map<_, _>> = pairs.iter().map(|(key, value)| Some((name_of(key)?, of(value)))).collect();
            match named {
                Some(object) => object.into(),
                None => pairs.iter().map(|(key, value)| json!([of(key), of(value)])).collect(),
            }
        }
    }
}

/// Bytes as JSON: a string where they are UTF-8.
pub(crate) fn of_bytes(bytes: &[u8]) -> serde_json::Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => json!({ "base64": base64(bytes) }),
    }
}

fn name_of(key: &Value) -> Option<String> {
    match key {
        Value::Simple(text) => Some(text.clone()),
        Value::Bulk(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::Integer(number) => Some(number.to_string()),
        _ => None,
    }
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let sextet = bits >> (18 - 6 * place) & 63;
            text.push(if place <= group.len() { char::from(ALPHABET[sextet as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_standard() {
        let vectors =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")];
        for (bytes, text) in vectors {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xff, 0xfe, 0xfd]), "//79");
    }

    #[test]
    fn every_kind_of_answer_has_a_json_form() {
        let answer = Value::Array(vec![
            Value::Bulk(b"text".to_vec()),
            Value::Bulk(vec![0xff]),
            Value::Null,
            Value::Integer(-1),
            Value::Double(0.5),
            Value::Double(f64::INFINITY),
            Value::Boolean(true),
            Value::Error("ERR no".to_owned()),
            Value::Map(vec![(Value::Bulk(b"b".to_vec()), Value::Integer(1)), (Value::Integer(2), Value::Null)]),
            Value::Map(vec![(Value::Bulk(vec![0xff]), Value::Integer(1))]),
        ]);
        let expected = r#"["text",{"base64":"/w=="},null,-1,0.5,"inf",true,{"error":"ERR no"},{"b":1,"2":null},[[{"base64":"/w=="},1]]]"#;
        assert_eq!(of(&answer).to_string(), expected);
    }
}
