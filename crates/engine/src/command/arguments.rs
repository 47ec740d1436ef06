//! Reading numbers and options from arguments, with Redis's idea of what a number is.

use super::CommandError;
use crate::keyspace::entry::{Value, parse_canonical};

/// A 64-bit integer in canonical form.
pub(super) fn integer(argument: &[u8]) -> Result<i64, CommandError> {
    parse_canonical(argument).ok_or(CommandError::NotAnInteger)
}

/// A value as an integer. What APPEND and SETRANGE made is kept as bytes, also where it reads as a number.
pub(super) fn integer_value(value: Value<'_>) -> Result<i64, CommandError> {
    match value {
        Value::Integer(number) => Ok(number),
        Value::Bytes(bytes) => integer(bytes),
        Value::Chunks(_) => Err(CommandError::NotAnInteger),
    }
}

/// As much of an argument as an error repeats: up to a NUL, where Redis's texts end, and at most `bytes_max`.
pub fn quotable(argument: &[u8], bytes_max: usize) -> &[u8] {
    let text = argument.split(|byte| *byte == 0).next().unwrap_or_default();
    text.get(..bytes_max).unwrap_or(text)
}

/// Whether an argument is this word, in any case of letters.
pub(super) fn is_word(argument: &[u8], word: &str) -> bool {
    argument.eq_ignore_ascii_case(word.as_bytes())
}

/// The unit and the starting point of a time argument.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum TimeKind {
    /// Seconds from now.
    Seconds,
    /// Milliseconds from now.
    Milliseconds,
    /// Seconds since the Unix epoch.
    UnixSeconds,
    /// Milliseconds since the Unix epoch.
    UnixMilliseconds,
}

impl TimeKind {
    /// The kind that an option of SET or GETEX names.
    pub(super) fn of_option(word: &[u8]) -> Option<TimeKind> {
        [
            ("ex", Self::Seconds),
            ("px", Self::Milliseconds),
            ("exat", Self::UnixSeconds),
            ("pxat", Self::UnixMilliseconds),
        ]
        .into_iter()
        .find_map(|(name, kind)| is_word(word, name).then_some(kind))
    }

    /// The absolute time in milliseconds, or `None` when it leaves the range of an i64 as Redis computes it.
    pub(super) fn absolute_ms(self, number: i64, now_ms: u64) -> Option<i64> {
        let ms = match self {
            Self::Seconds | Self::UnixSeconds => number.checked_mul(1000)?,
            Self::Milliseconds | Self::UnixMilliseconds => number,
        };
        match self {
            Self::Seconds | Self::Milliseconds => ms.checked_add(now_ms as i64),
            Self::UnixSeconds | Self::UnixMilliseconds => Some(ms),
        }
    }
}
