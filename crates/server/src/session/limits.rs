//! Every limit of a connection: its value, its reason, and what happens when it is reached.
//!
//! Limits that a person sets (`max_reply_bytes`, `client-query-buffer-limit`, `max_value_size`) are settings; the limits
//! of the codec are in `bowline_resp`.

/// Requests that are decoded before the first of them runs. The engine prefetches what a batch will touch, and memory
/// latency is hidden from about 16 on; the bound keeps the scratch in the first-level cache.
pub const BATCH_REQUESTS_MAX: usize = 32;

/// Reply bytes held for a commit above which a session reads no further requests, until the commit has come. It is not
/// closed: the wait is ours, not the client's.
pub const HELD_BYTES_MAX: usize = 4 << 20;

/// Reply bytes that one turn may make before they are offered to the socket, and one reply more: a batch stops between two
/// requests there, and the rest of the input waits for the next turn.
pub const YIELD_BYTES: usize = 1 << 20;

/// Seconds without a byte taken after which a client is closed that has more unread replies than `max_reply_bytes`. No
/// request of it runs meanwhile, so it cannot grow; who reads, however slowly, gets all that was asked for.
pub const UNREAD_SECONDS_MAX: u64 = 10;

/// Bytes read from a socket at once into the loop's own buffer; what a connection may have executed per turn, so that
/// none starves the others.
pub const READ_BYTES: usize = 64 << 10;

/// Most bytes read at once straight into a connection's buffer while a large argument arrives. Memory grows by what
/// arrives, never by what a length promises.
pub const DIRECT_READ_BYTES: usize = 1 << 20;

/// A missing argument of at least this many bytes is read straight into the connection's buffer, saving a copy.
pub const DIRECT_READ_FROM: usize = 32 << 10;

/// A buffer that is empty and larger than this is given back, so that 10,000 idle connections are cheap.
pub const KEPT_BYTES: usize = 16 << 10;

/// Inline requests are for people at a terminal; Redis's limit. Longer: a protocol error closes the connection.
pub const INLINE_BYTES_MAX: u32 = 64 << 10;

/// Most arguments of a request, Redis's limit.
pub const ARGS_MAX: u32 = 1 << 20;

/// Bytes of all commands queued by one MULTI. The transaction's log frame and its memory are bounded with it; a command
/// over it is refused and EXEC answers EXECABORT.
pub const QUEUE_BYTES_MAX: usize = 512 << 20;

/// Longest name that a client may give itself (CLIENT SETNAME, SETINFO); longer is an error.
pub const CLIENT_NAME_BYTES_MAX: usize = 1024;

/// Seconds that a connection may stay without having authenticated where a password is set. Then it is closed, so that
/// strangers cannot hold all connections.
pub const AUTHENTICATION_SECONDS_MAX: u64 = 60;

/// Reply bytes that wait for a client which has not authenticated where a password is set: the session runs nothing more
/// until it takes some, so that strangers cannot fill the memory.
pub const STRANGER_REPLY_BYTES_MAX: usize = 64 << 10;

/// Keys that one connection may watch at once; a WATCH beyond is an error and EXEC will refuse.
pub const WATCHED_KEYS_MAX: usize = 1 << 20;

/// Seconds that SHUTDOWN and SIGTERM wait for replies to be committed and taken before connections are closed.
pub const SHUTDOWN_SECONDS_MAX: u64 = 10;

/// Milliseconds for which the doors rest when the system has no descriptors left.
pub const ACCEPT_REST_MS: u64 = 100;

/// Seconds for which a connection that is closing waits for its client to take the last replies.
pub const LAST_REPLY_SECONDS_MAX: u64 = 60;

/// Connections taken from a door before the loop looks after those that are in. The door stays ready meanwhile.
pub const ACCEPT_TURN_MAX: usize = 64;

/// Descriptors that connections leave to the rest: listeners, log files, the lock, pollers, and some to spare. When they
/// would take them, they are told that the server is full.
pub const OTHER_FILES: u64 = 64;

/// Longest line of the text protocol in bytes, line end included: room for the largest value with every byte escaped would be
/// gigabytes; the Redis protocol is the one for such values. A longer line is an error that closes the connection.
pub const LINE_BYTES_MAX: usize = 64 << 20;

/// Longest line of the text protocol in bytes, line end included, before the client has authenticated: room for a password. A stranger's bytes
/// are not kept beyond it; a longer line is an error that closes the connection.
pub const UNAUTHENTICATED_LINE_BYTES_MAX: usize = 1 << 10;

/// Longest answer of COMMAND INFO in bytes: every command is told in a hundredth of it, so only a request that names
/// commands thousands of times meets it. It is answered an error.
pub const DESCRIPTION_BYTES_MAX: usize = 16 << 20;

/// Backups that are handed out at a time: each keeps a thread, some MiB, and the blocks that are freed meanwhile. A further
/// one is answered an error.
pub const BACKUPS_MAX: u64 = 4;

/// Seconds after which a backup ends that nobody reads: the blocks that it keeps are wanted.
pub const BACKUP_IDLE_SECONDS_MAX: u64 = 60;
