//! Every limit of the readers: its value, its reason, and what happens when it is reached.

/// The longest string that Redis stores unless it was told otherwise (`proto-max-bulk-len`).
const STRING_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// How much is asked of the source at once while a string grows: what a false length can cost at most.
pub(crate) const PIECE_BYTES: usize = 64 * 1024;

/// Longest text of a manifest: thousands of files. Beyond it: `ManifestError::TooLong`.
pub(crate) const MANIFEST_BYTES_MAX: usize = 1024 * 1024;

/// Most bytes of a key that are shown in a message; the rest is left out.
pub(crate) const SHOWN_KEY_BYTES_MAX: usize = 80;

/// How much a reader holds at most for one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest key or value in bytes. A longer value is reported as [`ValueKind::LongString`](crate::ValueKind), a longer
    /// key, auxiliary field or function library is an error. Default 512 MiB.
    pub string_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { string_bytes_max: STRING_BYTES_MAX }
    }
}
