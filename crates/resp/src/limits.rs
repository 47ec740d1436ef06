//! Every limit of the codec: its value, its reason, and what happens when it is reached.
//!
//! Not here: how much may be buffered on a connection before a request is complete, which is the session's decision.

/// Longest buffer in which positions fit an [`ArgRange`](crate::ArgRange), arguments in chunks counted: they may have to be put
/// into one piece. The highest positions stand for the numbers of those. Beyond it: `ProtocolError::BufferTooLarge`.
pub(crate) const BUFFER_BYTES_MAX: u64 = u32::MAX as u64 - (1 << 20);

/// Longest line that announces a count or a length. Twenty bytes would do; Redis waits this long for the end of the line
/// before it gives up, and clients that test for it expect the same.
pub(crate) const LENGTH_LINE_BYTES_MAX: usize = 64 * 1024;

/// Most arguments of a request before the connection has authenticated. AUTH and HELLO need fewer; a stranger gets no more.
pub(crate) const UNAUTHENTICATED_ARGS_MAX: i64 = 10;

/// Longest argument, in bytes, before the connection has authenticated.
pub(crate) const UNAUTHENTICATED_BULK_BYTES_MAX: i64 = 16 * 1024;

/// Longest request in bytes, lengths and line ends counted, before the connection has authenticated: room for a name and a
/// password of some kilobytes. Ten arguments that are each within their own limit would add up to 160 KiB for a stranger.
pub(crate) const UNAUTHENTICATED_REQUEST_BYTES_MAX: usize = 32 * 1024;

/// A decoder gives memory back after a request that needed more argument places than this (8 bytes each).
pub(crate) const KEPT_RANGES_MAX: usize = 1024;

/// A decoder gives memory back after an inline request that needed more bytes than this.
pub(crate) const KEPT_INLINE_BYTES_MAX: usize = 4 * 1024;

/// What each side buffer of inline requests may keep while the connection goes on, in bytes.
pub(crate) const INLINE_BUFFER_BYTES_MAX: usize = KEPT_INLINE_BYTES_MAX / 8;

/// Places reserved for the elements of an aggregate before any of them has arrived, whatever its header promises.
pub(crate) const RESERVED_ELEMENTS_MAX: usize = 16;

/// What a request may ask for. Each field, when exceeded, makes the request a [`ProtocolError`](crate::ProtocolError):
/// the session answers it and closes the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestLimits {
    /// Most arguments of one request, the command's name included. Default 1048576.
    pub args_max: u32,
    /// Longest argument in bytes (`proto-max-bulk-len`). Default 512 MiB.
    pub bulk_bytes_max: u32,
    /// Longest inline request in bytes. Default 64 KiB.
    pub inline_bytes_max: u32,
    /// Whether the connection may run commands. While it may not, a request has at most 10 arguments of at most 16 KiB.
    /// Default true: servers without a password have nothing to wait for.
    pub authenticated: bool,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self {
            args_max: 1024 * 1024,
            bulk_bytes_max: 512 * 1024 * 1024,
            inline_bytes_max: 64 * 1024,
            authenticated: true,
        }
    }
}

/// What a client accepts as one reply. Each field, when exceeded, makes the reply a
/// [`ProtocolError`](crate::ProtocolError), after which the connection must be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyLimits {
    /// Deepest nesting of arrays, maps, sets, pushes and attributes. Default 64; Redis itself needs about 8.
    pub depth_max: usize,
    /// Longest string in bytes. Default 512 MiB, the longest value that Redis stores.
    pub bulk_bytes_max: u64,
    /// Longest line (simple string, error, number) in bytes. Default 1 MiB.
    pub line_bytes_max: usize,
    /// Longest whole reply in bytes. Default 4 GiB.
    pub reply_bytes_max: u64,
}

impl Default for ReplyLimits {
    fn default() -> Self {
        Self {
            depth_max: 64,
            bulk_bytes_max: 512 * 1024 * 1024,
            line_bytes_max: 1024 * 1024,
            reply_bytes_max: 4 * 1024 * 1024 * 1024,
        }
    }
}
