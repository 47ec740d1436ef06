//! A reply as a value that a client can look at. Not here: how it is read from bytes (`reply_decoder`).

use crate::Reply;

/// One reply, or one element of it. Text is made valid UTF-8 (a bad byte becomes U+FFFD); strings of bytes stay as they
/// are. Attributes of RESP3 are read and left out.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A status such as `OK`.
    Simple(String),
    /// An error: code, space, message.
    Error(String),
    /// An integer.
    Integer(i64),
    /// A string of any bytes.
    Bulk(Vec<u8>),
    /// Nothing: every kind of null of both protocols.
    Null,
    /// Values in order.
    Array(Vec<Value>),
    /// Keys and values in the order in which they were sent.
    Map(Vec<(Value, Value)>),
    /// Distinct values, in the order in which they were sent.
    Set(Vec<Value>),
    /// A message that answers no request.
    Push(Vec<Value>),
    /// A floating point number.
    Double(f64),
    /// True or false.
    Boolean(bool),
    /// Text for people.
    Verbatim {
        /// Three ASCII bytes that name the format, such as `txt`.
        format: [u8; 3],
        /// The text.
        text: Vec<u8>,
    },
    /// An integer of any size, as its decimal digits with an optional sign.
    BigNumber(String),
}

impl Value {
    /// Writes this value as a reply: the inverse of decoding, as far as the protocol has the type.
    pub fn write(&self, reply: &mut Reply<'_>) {
        match self {
            Value::Simple(text) => reply.simple(text),
            Value::Error(text) => reply.error(text),
            Value::Integer(value) => reply.integer(*value),
            Value::Bulk(bytes) => reply.bulk(bytes),
            Value::Null => reply.null(),
            Value::Array(values) => {
                reply.array(values.len());
                write_all(values, reply);
            }
            Value::Map(pairs) => {
                reply.map(pairs.len());
                for (key, value) in pairs {
                    key.write(reply);
                    value.write(reply);
                }
            }
            Value::Set(values) => {
                reply.set(values.len());
                write_all(values, reply);
            }
            Value::Push(values) => {
                reply.push(values.len());
                write_all(values, reply);
            }
            Value::Double(value) => reply.double(*value),
            Value::Boolean(value) => reply.boolean(*value),
            Value::Verbatim { format, text } => reply.verbatim(std::str::from_utf8(format).unwrap_or("txt"), text),
            Value::BigNumber(digits) => reply.big_number(digits),
        }
    }
}

fn write_all(values: &[Value], reply: &mut Reply<'_>) {
    for value in values {
        value.write(reply);
    }
}
