//! The limits of what the server remembers about itself, each with its reason.

/// Different error codes counted; further ones count as "OTHER", so that scripts cannot grow this without bound.
pub(super) const ERROR_CODES_MAX: usize = 128;

/// Most arguments of a command that SLOWLOG keeps; the last one says how many more there were. Redis's figure.
pub(super) const SLOW_ARGS_MAX: usize = 32;

/// Most bytes of an argument that SLOWLOG keeps; then "... (n more bytes)". Redis's figure.
pub(super) const SLOW_ARG_BYTES_MAX: usize = 128;

/// Samples that LATENCY keeps of a kind of event; the oldest goes. Redis's figure.
pub(super) const EVENT_SAMPLES_MAX: usize = 160;
