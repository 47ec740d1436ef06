//! What is wrong with bytes that do not follow the protocol. The texts on requests are those of Redis 7.2.

/// The other side broke the protocol: the connection has no defined position any more and must be closed.
///
/// The text is what Redis answers, without the leading `ERR `: a server replies `ERR ` followed by it, then closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The count after `*` is no number, is over `args_max`, or its line does not end in CR LF.
    #[error("Protocol error: invalid multibulk length")]
    InvalidMultibulkLength,
    /// More than 10 arguments before the connection authenticated.
    #[error("Protocol error: unauthenticated multibulk length")]
    UnauthenticatedMultibulkLength,
    /// An argument does not begin with `$`.
    #[error("Protocol error: expected '$', got '{}'", Shown(*.got))]
    ExpectedBulk {
        /// The byte that stands where `$` must be.
        got: u8,
    },
    /// The length after `$` is no number, is negative, is over `bulk_bytes_max`, or its line does not end in CR LF.
    #[error("Protocol error: invalid bulk length")]
    InvalidBulkLength,
    /// An argument of more than 16 KiB before the connection authenticated.
    #[error("Protocol error: unauthenticated bulk length")]
    UnauthenticatedBulkLength,
    /// An argument is not followed by CR LF: it is longer or shorter than its length says.
    #[error("Protocol error: expected CR LF after a bulk, its length is wrong")]
    BulkEndMissing,
    /// An inline request is longer than `inline_bytes_max`.
    #[error("Protocol error: too big inline request")]
    InlineTooBig,
    /// The line after `*` does not end within 64 KiB.
    #[error("Protocol error: too big mbulk count string")]
    MultibulkCountTooBig,
    /// The line after `$` does not end within 64 KiB.
    #[error("Protocol error: too big bulk count string")]
    BulkCountTooBig,
    /// A quote of an inline request is not closed, or is closed in the middle of a word.
    #[error("Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
    /// A request, or the buffer it arrives in, is longer than 4 GiB.
    #[error("Protocol error: request longer than 4 GiB")]
    BufferTooLarge,
    /// A reply begins with a byte that names no type.
    #[error("Protocol error: a reply cannot begin with '{}'", Shown(*.got))]
    UnknownReplyType {
        /// The byte that stands where the type must be.
        got: u8,
    },
    /// A line of a reply ends in CR without LF.
    #[error("Protocol error: a line of the reply does not end in CR LF")]
    ReplyLineEnd,
    /// A number, double, boolean, null, length or count in a reply cannot be read.
    #[error("Protocol error: invalid {what} in a reply")]
    InvalidReply {
        /// What could not be read.
        what: &'static str,
    },
    /// A reply is nested deeper than `depth_max`.
    #[error("Protocol error: reply nested too deep")]
    ReplyTooDeep,
    /// A reply, a string or a line in it is longer than its limit.
    #[error("Protocol error: reply too large")]
    ReplyTooLarge,
}

/// One byte from outside as it may stand in a message: Redis turns line ends into spaces, other unprintable bytes are
/// shown by their number.
struct Shown(u8);

impl std::fmt::Display for Shown {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            b'\r' | b'\n' => formatter.write_str(" "),
            printable @ b' '..=b'~' => write!(formatter, "{}", char::from(printable)),
            other => write!(formatter, "\\x{other:02x}"),
        }
    }
}
