//! The limits of what a settings file and a request about settings may ask for, each with its reason.

/// Longest settings file in bytes. A file of known settings is some 20 KiB; beyond 1 MiB it is another kind of file,
/// and it is refused before it is read into memory.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 20;

/// Longest line of a settings file in bytes; longer ones are refused with file and line.
pub(super) const LINE_BYTES_MAX: usize = 64 << 10;

/// How deep `include` may nest. A file that includes itself ends here with an error instead of running for ever.
pub(super) const INCLUDE_DEPTH_MAX: usize = 16;

/// How many lines one start may read over all files: 16 levels that include each other twice would be 65,536 files.
pub(super) const LINES_MAX: usize = 1 << 20;

/// Longest path of a UNIX socket in bytes: the kernel's `sun_path` has 108 with its end mark.
pub(super) const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Longest piece of a wrong value that an error message repeats, in characters.
pub(super) const SHOWN_CHARACTERS_MAX: usize = 60;

/// Longest pattern in bytes that is compared: more than any name with every byte in brackets. A longer one matches
/// nothing, so that one request cannot keep a loop busy with patterns that go back at every byte.
pub(super) const PATTERN_BYTES_MAX: usize = 256;

/// Bytes of all patterns of one CONFIG GET, each counted with one more. Every name is compared with every pattern, so the
/// time of a request grows with this; all names together are half of it. More: the request is refused.
pub(crate) const PATTERNS_BYTES_MAX: usize = 8 << 10;
