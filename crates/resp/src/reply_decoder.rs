//! From the bytes of a server to values: the client's half of the protocol, both versions at once.
//!
//! ```text
//!   line        +text  -error  :integer  ,double  #t/#f  (big number  _  (null)            ... CRLF
//!   string      $length  =length (verbatim)  !length (error)     CRLF <bytes> CRLF;        $-1 is null
//!   aggregate   *count  %pairs  ~count  >count  |pairs (attribute, left out)  CRLF values; *-1 is null
//! ```
//!
//! Nesting is kept on a stack of our own, bounded by `depth_max`, so an unfinished reply goes on where it stood and no
//! input can exhaust the program's stack. Streamed strings and aggregates (`$?`, `*?`) are not read: no server sends them.

use memchr::memchr;

use crate::limits::RESERVED_ELEMENTS_MAX;
use crate::{ProtocolError, ReplyLimits, Value, parse_integer};

/// Decodes replies, one after the other. Holds the progress in the one reply that is not complete yet.
#[derive(Debug, Default)]
pub struct ReplyDecoder {
    limits: ReplyLimits,
    /// Bytes from the reply's start up to the line or string that is not complete.
    position: usize,
    /// Bytes from `position` on that were searched for the end of the line in vain.
    searched: usize,
    /// The kind and length of the string whose bytes begin at `position`, when its length line has been read.
    string: Option<(StringKind, usize)>,
    /// The aggregates around `position`, outermost first.
    open: Vec<OpenAggregate>,
}

#[derive(Debug, Clone, Copy)]
enum StringKind {
    Bulk,
    Error,
    Verbatim,
}

#[derive(Debug, Clone, Copy)]
enum Aggregate {
    Array,
    Map,
    Set,
    Push,
    Attribute,
}

#[derive(Debug)]
struct OpenAggregate {
    kind: Aggregate,
    values_left: u64,
    values: Vec<Value>,
}

/// What one line begins or is.
enum Head {
    Value(Value),
    String(StringKind, usize),
    Aggregate(Aggregate, u64),
}

impl ReplyDecoder {
    /// A decoder at the beginning of a reply, with the default limits.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A decoder at the beginning of a reply, with these limits.
    #[must_use]
    pub fn with_limits(limits: ReplyLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Decodes the reply that begins at `buffer[0]`: the value and the bytes it took, or `None` when it is not all there.
    /// Then call again with the same bytes and more behind them. The cost is linear in the bytes not seen before.
    ///
    /// # Errors
    /// [`ProtocolError`] when the bytes can never become a reply, or exceed a limit: close the connection.
    pub fn decode(&mut self, buffer: &[u8]) -> Result<Option<(Value, usize)>, ProtocolError> {
        // What lies beyond the limit is never looked at, so the error cannot depend on how much of it has arrived.
        let within = usize::try_from(self.limits.reply_bytes_max).unwrap_or(usize::MAX).min(buffer.len());
        let result = match self.read_reply(buffer.get(..within).unwrap_or_default()) {
            Ok(Some(value)) => Ok(Some((value, self.position))),
            Ok(None) if buffer.len() > within => Err(ProtocolError::ReplyTooLarge),
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        };
        if !matches!(result, Ok(None)) {
            *self = Self::with_limits(self.limits);
        }
        result
    }

    /// How many bytes are missing of the string that is being received when `buffered` bytes of the reply are there; 0 if
    /// that is not known. A promise of the other side: bound what is allocated for it.
    #[must_use]
    pub fn bytes_wanted(&self, buffered: usize) -> usize {
        self.string.map_or(0, |(_, length)| (self.position + length + 2).saturating_sub(buffered))
    }

    fn read_reply(&mut self, buffer: &[u8]) -> Result<Option<Value>, ProtocolError> {
        loop {
            let Some(value) = self.read_scalar(buffer)? else { return Ok(None) };
            if let Some(value) = value.and_then(|value| self.close(value)) {
                return Ok(Some(value));
            }
        }
    }

    /// Reads one line, or one string. `None`: bytes are missing. `Some(None)`: an aggregate was opened, or an empty
    /// attribute passed over.
    fn read_scalar(&mut self, buffer: &[u8]) -> Result<Option<Option<Value>>, ProtocolError> {
        let (kind, length) = match self.string {
            Some(string) => string,
            None => match self.read_head(buffer)? {
                None => return Ok(None),
                Some(Head::Value(value)) => return Ok(Some(Some(value))),
                Some(Head::String(kind, length)) => (kind, length),
                Some(Head::Aggregate(kind, count)) => return self.open(kind, count).map(Some),
            },
        };
        self.string = Some((kind, length));
        let rest = buffer.get(self.position..).unwrap_or_default();
        let Some((bytes, line_end)) = rest.split_at_checked(length).filter(|(_, tail)| tail.len() >= 2) else {
            return Ok(None);
        };
        if !line_end.starts_with(b"\r\n") {
            return Err(ProtocolError::BulkEndMissing);
        }
        self.string = None;
        self.position += length + 2;
        string_value(kind, bytes).map(|value| Some(Some(value)))
    }

    /// Begins an aggregate; an empty one is a value at once.
    fn open(&mut self, kind: Aggregate, count: u64) -> Result<Option<Value>, ProtocolError> {
        if self.open.len() >= self.limits.depth_max {
            return Err(ProtocolError::ReplyTooDeep);
        }
        if count == 0 {
            return Ok(aggregate_value(kind, Vec::new()));
        }
        let reserved = usize::try_from(count).unwrap_or(usize::MAX).min(RESERVED_ELEMENTS_MAX);
        self.open.push(OpenAggregate { kind, values_left: count, values: Vec::with_capacity(reserved) });
        Ok(None)
    }

    /// Puts a complete value into the aggregates around it. Returns the whole reply when that completes it.
    fn close(&mut self, mut value: Value) -> Option<Value> {
        while let Some(mut innermost) = self.open.pop() {
            innermost.values.push(value);
            innermost.values_left -= 1;
            if innermost.values_left > 0 {
                self.open.push(innermost);
                return None;
            }
            value = aggregate_value(innermost.kind, innermost.values)?;
        }
        Some(value)
    }

    /// Reads the line at `position`. Nothing when its end has not arrived.
    fn read_head(&mut self, buffer: &[u8]) -> Result<Option<Head>, ProtocolError> {
        let line_bytes_max = self.limits.line_bytes_max;
        let rest = buffer.get(self.position..).unwrap_or_default();
        let Some(&kind) = rest.first() else { return Ok(None) };
        if !b"+-:,#(_$=!*%~>|".contains(&kind) {
            return Err(ProtocolError::UnknownReplyType { got: kind });
        }
        let last = rest.len().min(line_bytes_max.saturating_add(1));
        let searched = rest.get(self.searched..last).unwrap_or_default();
        let Some(length) = memchr(b'\r', searched).map(|found| self.searched + found) else {
            self.searched = last;
            return if rest.len() > line_bytes_max { Err(ProtocolError::ReplyTooLarge) } else { Ok(None) };
        };
        match rest.get(length + 1) {
            None => {
                self.searched = length;
                Ok(None)
            }
            Some(b'\n') => {
                self.searched = 0;
                self.position += length + 2;
                self.parse_head(kind, rest.get(1..length).unwrap_or_default()).map(Some)
            }
            Some(_) => Err(ProtocolError::ReplyLineEnd),
        }
    }

    fn parse_head(&self, kind: u8, text: &[u8]) -> Result<Head, ProtocolError> {
        Ok(match kind {
            b'+' => Head::Value(Value::Simple(String::from_utf8_lossy(text).into_owned())),
            b'-' => Head::Value(Value::Error(String::from_utf8_lossy(text).into_owned())),
            b':' => Head::Value(Value::Integer(parse_integer(text).ok_or(invalid("integer"))?)),
            b',' => Head::Value(Value::Double(parse_double(text)?)),
            b'#' if text == b"t" => Head::Value(Value::Boolean(true)),
            b'#' if text == b"f" => Head::Value(Value::Boolean(false)),
            b'#' => return Err(invalid("boolean")),
            b'(' => Head::Value(Value::BigNumber(parse_big_number(text)?)),
            b'_' if text.is_empty() => Head::Value(Value::Null),
            b'_' => return Err(invalid("null")),
            b'$' | b'*' if text == b"-1" => Head::Value(Value::Null),
            b'$' => self.string_head(StringKind::Bulk, text)?,
            b'=' => self.string_head(StringKind::Verbatim, text)?,
            b'!' => self.string_head(StringKind::Error, text)?,
            b'*' => Head::Aggregate(Aggregate::Array, parse_count(text)?),
            b'%' => Head::Aggregate(Aggregate::Map, parse_count(text)? * 2),
            b'~' => Head::Aggregate(Aggregate::Set, parse_count(text)?),
            b'>' => Head::Aggregate(Aggregate::Push, parse_count(text)?),
            b'|' => Head::Aggregate(Aggregate::Attribute, parse_count(text)? * 2),
            got => return Err(ProtocolError::UnknownReplyType { got }),
        })
    }

    fn string_head(&self, kind: StringKind, text: &[u8]) -> Result<Head, ProtocolError> {
        let length = parse_integer(text).and_then(|length| u64::try_from(length).ok()).ok_or(invalid("length"))?;
        if length > self.limits.bulk_bytes_max || self.position as u64 + length > self.limits.reply_bytes_max {
            return Err(ProtocolError::ReplyTooLarge);
        }
        // The sum with the position is needed later: it must fit too.
        let fits = |length: &usize| length.checked_add(self.position).and_then(|end| end.checked_add(2)).is_some();
        let length = usize::try_from(length).ok().filter(fits).ok_or(ProtocolError::ReplyTooLarge)?;
        Ok(Head::String(kind, length))
    }
}

fn invalid(what: &'static str) -> ProtocolError {
    ProtocolError::InvalidReply { what }
}

/// A number of values, or of pairs: below 2^63, so that twice as many can still be counted.
fn parse_count(text: &[u8]) -> Result<u64, ProtocolError> {
    parse_integer(text).and_then(|count| u64::try_from(count).ok()).ok_or(invalid("count"))
}

fn parse_double(text: &[u8]) -> Result<f64, ProtocolError> {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(invalid("double"))
}

fn parse_big_number(text: &[u8]) -> Result<String, ProtocolError> {
    let digits = text.strip_prefix(b"-").or(text.strip_prefix(b"+")).unwrap_or(text);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(invalid("big number"));
    }
    Ok(String::from_utf8_lossy(text).into_owned())
}

fn string_value(kind: StringKind, bytes: &[u8]) -> Result<Value, ProtocolError> {
    match (kind, bytes) {
        (StringKind::Bulk, _) => Ok(Value::Bulk(bytes.to_vec())),
        (StringKind::Error, _) => Ok(Value::Error(String::from_utf8_lossy(bytes).into_owned())),
        (StringKind::Verbatim, [a, b, c, b':', text @ ..]) if [a, b, c].iter().all(|byte| byte.is_ascii()) => {
            Ok(Value::Verbatim { format: [*a, *b, *c], text: text.to_vec() })
        }
        (StringKind::Verbatim, _) => Err(invalid("verbatim string")),
    }
}

/// The complete aggregate as a value; an attribute is none.
fn aggregate_value(kind: Aggregate, values: Vec<Value>) -> Option<Value> {
    match kind {
        Aggregate::Array => Some(Value::Array(values)),
        Aggregate::Set => Some(Value::Set(values)),
        Aggregate::Push => Some(Value::Push(values)),
        Aggregate::Attribute => None,
        Aggregate::Map => {
            let mut pairs = Vec::with_capacity(values.len() / 2);
            let mut values = values.into_iter();
            while let (Some(key), Some(value)) = (values.next(), values.next()) {
                pairs.push((key, value));
            }
            Some(Value::Map(pairs))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_arrives_slowly_is_searched_once() {
        let mut decoder = ReplyDecoder::new();
        for fed in 1..=6 {
            assert_eq!(decoder.decode(&b"+abcde"[..fed]), Ok(None));
            assert_eq!(decoder.searched, fed);
        }
    }

    #[test]
    fn a_promised_count_reserves_a_few_places_at_most() {
        let mut decoder = ReplyDecoder::new();
        let promise = "*9223372036854775807\r\n".repeat(64);
        assert_eq!(decoder.decode(promise.as_bytes()), Ok(None));
        assert_eq!(decoder.open.len(), 64);
        assert!(decoder.open.iter().all(|aggregate| aggregate.values.capacity() <= RESERVED_ELEMENTS_MAX));
    }
}
