//! Why a command refused, with the words that Redis uses.

use std::borrow::Cow;

/// Why a command refused. `Display` gives the whole text of the error reply, without the leading `-`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// Options that make no sense together, or unknown ones.
    #[error("ERR syntax error")]
    Syntax,
    /// An argument or a value should be a 64-bit integer.
    #[error("ERR value is not an integer or out of range")]
    NotAnInteger,
    /// An argument or a value should be a floating-point number.
    #[error("ERR value is not a valid float")]
    NotAFloat,
    /// INCR and friends would leave the range of 64 bits.
    #[error("ERR increment or decrement would overflow")]
    Overflow,
    /// The key must exist for this command.
    #[error("ERR no such key")]
    NoSuchKey,
    /// A value would be longer than the limit.
    #[error("ERR string exceeds maximum allowed size (proto-max-bulk-len)")]
    StringTooLong,
    /// An expiry that is not a time, for the command named.
    #[error("ERR invalid expire time in '{0}' command")]
    InvalidExpiry(&'static str),
    /// Wrong number of arguments, for the command named.
    #[error("ERR wrong number of arguments for '{0}' command")]
    WrongArity(Cow<'static, str>),
    /// A number of SELECT that there is not.
    #[error("ERR DB index is out of range")]
    NoSuchDatabase,
    /// The reply would pass [`REPLY_BYTES_MAX`](crate::limits::REPLY_BYTES_MAX).
    #[error("ERR the reply would be longer than 1 GiB: ask for less at once")]
    ReplyTooLong,
    /// Any other text.
    #[error("{0}")]
    Text(Cow<'static, str>),
    /// Any other text that repeats bytes of the request.
    #[error("{}", .0.escape_ascii())]
    Quoting(Vec<u8>),
    /// The command met an expired entry under a lock that does not let it remove it: run it again with one that does.
    /// Never leaves the engine.
    #[error("ERR an expired entry was met")]
    MetExpired,
}

impl CommandError {
    /// An error with a fixed text.
    pub const fn text(text: &'static str) -> CommandError {
        CommandError::Text(Cow::Borrowed(text))
    }

    /// The whole text of the error reply, with the client's bytes as they came.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            CommandError::Quoting(text) => text.clone(),
            other => other.to_string().into_bytes(),
        }
    }
}
