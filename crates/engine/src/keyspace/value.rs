//! A value as commands, effects and records see it: bytes, a number, or chunks.
//!
//! Not here: how an entry keeps it (`entry`), what chunks are (`bowline_resp::Chunks`).

use bowline_resp::{Bulk, Chunks};

/// A value of this many bytes or more is kept in chunks. As long as one: below, a copy takes some ten microseconds at most.
pub const CHUNKED_FROM: usize = bowline_resp::CHUNK_BYTES;

/// A value as commands see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Any bytes.
    Bytes(&'a [u8]),
    /// A number whose canonical decimal text is the value.
    Integer(i64),
    /// Any bytes, in chunks that may be shared.
    Chunks(&'a Chunks),
}

impl<'a> Value<'a> {
    /// The most compact form of `bytes`: a number where its text is exactly what the number prints as.
    pub fn compact(bytes: &'a [u8]) -> Value<'a> {
        match parse_canonical(bytes) {
            Some(number) => Value::Integer(number),
            None => Value::Bytes(bytes),
        }
    }

    /// The most compact form of `bytes`, which are not copied.
    pub fn of(bytes: Bulk<'a>) -> Value<'a> {
        match bytes {
            Bulk::Bytes(bytes) => Value::compact(bytes),
            Bulk::Chunks(chunks) => Value::Chunks(chunks),
        }
    }

    /// Length of the value's text in bytes.
    pub fn len(self) -> usize {
        match self {
            Value::Bytes(bytes) => bytes.len(),
            Value::Chunks(chunks) => chunks.len(),
            Value::Integer(number) => itoa::Buffer::new().format(number).len(),
        }
    }

    /// Whether the value's text has no bytes.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Calls `read` with the value's text. One in chunks is copied for it.
    pub fn with_bytes<R>(self, read: impl FnOnce(&[u8]) -> R) -> R {
        match self {
            Value::Bytes(bytes) => read(bytes),
            Value::Chunks(chunks) => read(&chunks.to_vec()),
            Value::Integer(number) => read(itoa::Buffer::new().format(number).as_bytes()),
        }
    }

    /// Calls `read` with the value's text piece by piece; none is empty. Nothing is copied.
    ///
    /// # Errors
    /// The first that `read` returns.
    pub fn try_each_piece<E>(self, mut read: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        match self {
            Value::Chunks(chunks) => chunks.iter().try_for_each(read),
            _ if self.is_empty() => Ok(()),
            _ => self.with_bytes(&mut read),
        }
    }

    /// Whether the value's text is `bytes`.
    pub fn is_text(self, bytes: &[u8]) -> bool {
        match self {
            Value::Chunks(chunks) => *chunks == *bytes,
            _ => self.with_bytes(|text| text == bytes),
        }
    }

    /// The value's text, copied.
    pub fn to_vec(self) -> Vec<u8> {
        match self {
            Value::Chunks(chunks) => chunks.to_vec(),
            _ => self.with_bytes(<[u8]>::to_vec),
        }
    }

    /// The value's text in chunks; those it has are shared.
    pub fn to_chunks(self) -> Chunks {
        match self {
            Value::Chunks(chunks) => chunks.clone(),
            _ => self.with_bytes(Chunks::copy_of),
        }
    }

    /// Reads an integer from the 1 to 8 little-endian bytes it is kept as.
    pub fn from_integer_bytes(stored: &[u8]) -> Option<Value<'static>> {
        let negative = stored.last()? & 0x80 != 0;
        let mut wide = if negative { [0xff; 8] } else { [0; 8] };
        wide.get_mut(..stored.len())?.copy_from_slice(stored);
        Some(Value::Integer(i64::from_le_bytes(wide)))
    }

    /// Bytes that the value takes in the log.
    pub fn stored_bytes(self) -> usize {
        match self {
            Value::Bytes(bytes) => bytes.len(),
            Value::Chunks(chunks) => chunks.len(),
            Value::Integer(number) => integer_bytes(number),
        }
    }
}

/// Reads `bytes` as an `i64` if they are exactly the text that the number prints as (no sign `+`, no leading zero).
pub fn parse_canonical(bytes: &[u8]) -> Option<i64> {
    let (negative, digits) = match bytes {
        [b'-', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    match digits {
        [] => return None,
        [b'0', ..] => return (digits.len() == 1 && !negative).then_some(0),
        _ if digits.len() > 19 => return None,
        _ => {}
    }
    let mut magnitude: u64 = 0;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        magnitude = magnitude * 10 + u64::from(digit - b'0');
    }
    if negative { 0i64.checked_sub_unsigned(magnitude) } else { i64::try_from(magnitude).ok() }
}

/// How many little-endian bytes hold `number` (sign-extended), 1 to 8.
fn integer_bytes(number: i64) -> usize {
    let significant = 65 - (if number < 0 { !number } else { number }).leading_zeros() as usize;
    significant.div_ceil(8)
}

/// A value that was taken out of an entry, or is on its way into one: nothing of it changes, whoever holds which lock.
#[derive(Clone, Debug)]
pub(crate) enum KeptValue {
    /// A copy of its text.
    Short(Vec<u8>),
    /// Its chunks, shared.
    Chunks(Chunks),
}

impl KeptValue {
    pub(crate) fn of(value: Value<'_>) -> KeptValue {
        match value {
            Value::Chunks(chunks) => KeptValue::Chunks(chunks.clone()),
            _ => KeptValue::Short(value.to_vec()),
        }
    }

    pub(crate) fn value(&self) -> Value<'_> {
        match self {
            KeptValue::Short(bytes) => Value::compact(bytes),
            KeptValue::Chunks(chunks) => Value::Chunks(chunks),
        }
    }

    pub(crate) fn into_vec(self) -> Vec<u8> {
        match self {
            KeptValue::Short(bytes) => bytes,
            KeptValue::Chunks(chunks) => chunks.to_vec(),
        }
    }
}

/// A value that is to be written, in the form that an entry keeps it in: a long one is copied into chunks. For those who
/// hold no lock yet.
pub(crate) enum NewValue<'a> {
    Short(&'a [u8]),
    Chunks(Chunks),
}

impl<'a> NewValue<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> NewValue<'a> {
        if bytes.len() < CHUNKED_FROM { NewValue::Short(bytes) } else { NewValue::Chunks(Chunks::copy_of(bytes)) }
    }

    pub(crate) fn value(&self) -> Value<'_> {
        match self {
            NewValue::Short(bytes) => Value::compact(bytes),
            NewValue::Chunks(chunks) => Value::Chunks(chunks),
        }
    }
}
