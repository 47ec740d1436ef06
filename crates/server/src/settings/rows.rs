//! The rows of the settings that have an effect, and the fields they fill.
//!
//! A row reads: one sentence; field, type and default; name, other names, what it takes, when it may change.
//! To add a setting, add a row here and use the field: everything else follows (flags, file, CONFIG, documentation).

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::lists::{BindAddresses, OutputLimits};
use super::table::{Alias, Binding, Changes, Setting};
use super::values::{BytesOrPercent, Kind, Permissions, SizeOrAuto, Value};
use super::words::{Compression, Durability, LocalAccess, LogFormat, LogLevel, MaxmemoryPolicy, Restart, Supervised};

const KB: i64 = 1 << 10;
const MB: i64 = 1 << 20;
const GB: i64 = 1 << 30;

const fn integer(min: i64, max: i64) -> Kind {
    Kind::Integer { min, max }
}

const fn bytes(min: i64, max: i64) -> Kind {
    Kind::Bytes { min, max }
}

macro_rules! rows {
    ($(
        section $section:literal {
            $(
                #[doc = $summary:literal]
                $field:ident: $type:ty = $default:literal, $name:literal $(also [$($alias:expr),*])?, $kind:expr, $changes:ident;
            )*
        }
    )*) => {
        /// The value of every setting. `Settings::default()` is what a server without flags and file runs with.
        #[derive(Debug, Clone, PartialEq)]
        pub struct Settings {
            $( $( #[doc = $summary] pub $field: $type, )* )*
            /// Values that differ from their default, of settings without an effect.
            pub(super) remembered: BTreeMap<&'static str, String>,
            /// The directory that relative paths start at; empty for the current one.
            pub(super) base: PathBuf,
        }

        /// The rows that have an effect.
        pub(super) static ROWS: &[Setting] = &[ $( $(
            Setting {
                name: $name,
                aliases: &[$($($alias),*)?],
                section: $section,
                kind: $kind,
                default: $default,
                changes: Changes::$changes,
                summary: $summary.trim_ascii_start(),
                binding: Binding::Field {
                    get: |settings| settings.$field.render(),
                    set: |settings, kind, text| settings.$field.assign(text, kind),
                },
            },
        )* )* ];

        impl Default for Settings {
            fn default() -> Self {
                Settings {
                    $( $(
                        $field: <$type>::parse($default, &$kind).expect(concat!("the default of ", $name)),
                    )* )*
                    remembered: BTreeMap::new(),
                    base: PathBuf::new(),
                }
            }
        }
    };
}

rows! {
    section "Network" {
        /// TCP port of the Redis protocol; 0 listens on none.
        port: u16 = "6379", "port" also [Alias::of("server_port")], integer(0, 65535), Start;
        /// Addresses to listen on; a leading - makes one optional, * is every IPv4 and ::* every IPv6 address.
        bind: BindAddresses = "127.0.0.1 ::1", "bind", Kind::Addresses, Start;
        /// Path of a UNIX socket to listen on as well; empty for none.
        unixsocket: PathBuf = "", "unixsocket", Kind::Path, Start;
        /// Permissions of the UNIX socket.
        unixsocketperm: Permissions = "700", "unixsocketperm", Kind::Permissions, Start;
        /// TCP port of the plain text protocol; 0 listens on none.
        text_port: u16 = "0", "text-port", integer(0, 65535), Start;
        /// Whether a server without a password refuses clients of other machines.
        protected_mode: bool = "yes", "protected-mode", Kind::Flag, Live;
        /// Most connections at a time; further ones are refused with an error.
        max_connections: u32 = "10000", "max_connections" also [Alias::of("maxclients")], integer(1, 4_294_967_295), Live;
        /// Seconds without a command after which a connection is closed; 0 for never.
        timeout: u32 = "0", "timeout", integer(0, 2_147_483_647), Live;
        /// Seconds between TCP keepalive probes; 0 for none.
        tcp_keepalive: u32 = "300", "tcp-keepalive", integer(0, 2_147_483_647), Live;
        /// Length of the kernel's queue of connections that wait to be accepted.
        tcp_backlog: u32 = "511", "tcp-backlog", integer(1, 2_147_483_647), Start;
        /// Event loops; 0 for one per core.
        threads: u32 = "0", "threads", integer(0, 1024), Start;
    }
    section "Durability and files" {
        /// When a write is acknowledged: once it is on disk (always), or at once, with a sync each second or when it suits.
        durability: Durability = "always", "durability" also [
                Alias { name: "appendfsync", words: &[("no", "none")] },
                Alias { name: "sync_wal", words: &[("yes", "always"), ("no", "none")] }
            ], Kind::Word(Durability::WORDS), Live;
        /// Directory of the data; made where it is missing.
        dir: PathBuf = "./data", "dir", Kind::Path, Start;
        /// When a start brings the data into memory: before it serves (eager), or meanwhile (lazy): what a command needs at once, the rest in the background.
        restart: Restart = "eager", "restart", Kind::Word(Restart::WORDS), Start;
        /// Directory of the log files; empty for log inside dir.
        wal_directory: PathBuf = "", "wal_directory" also [Alias::of("wal_file")], Kind::Path, Start;
        /// Size of one log file.
        wal_file_size: u64 = "67108864", "wal_file_size", bytes(MB, 16 * GB), Start;
        /// Most bytes of writes that wait for the disk; what is over half of wal_file_size does not count.
        wal_buffer_size: u64 = "33554432", "wal_buffer_size", bytes(64 * KB, 8 * GB), Start;
        /// The block file, which holds the newest checkpoint, or a block device; empty for store.blocks inside dir.
        block_file: PathBuf = "", "block-file", Kind::Path, Start;
        /// Size of a new block file; auto lets it grow and shrink.
        block_file_size: SizeOrAuto = "auto", "block-file-size", Kind::BytesOrAuto { min: MB, max: 16_384 * GB }, Start;
        /// Size of a block of a new block file: a power of two from 4kb to 64kb.
        block_size: u64 = "4096", "block-size", bytes(4 * KB, 64 * KB), Start;
        /// How values are compressed in the block file when they are next written: none, lz4 (quick) or zstd (smaller, also short values that are alike).
        compression: Compression = "none", "compression", Kind::Word(Compression::WORDS), Live;
        /// How hard zstd tries: 1 is the quickest, 22 the smallest.
        compression_level: u32 = "3", "compression-level", integer(1, 22), Live;
        /// Directory that finished log files are copied to before they are given up, and that a restore reads; empty for none.
        archive_dir: PathBuf = "", "archive-dir", Kind::Path, Start;
        /// Seconds after which archived log files are removed, counted from their last write; 0 keeps them.
        archive_keep_time: u64 = "0", "archive-keep-time", integer(0, 10_000_000_000), Start;
        /// Bytes of archived log files beyond which the oldest are removed; 0 keeps them.
        archive_keep_size: u64 = "0", "archive-keep-size", bytes(0, i64::MAX), Start;
        /// A checkpoint is written when the log is longer than this: what a restart has to read at most, about.
        checkpoint_log_size: u64 = "536870912", "checkpoint-log-size", bytes(MB, 1024 * GB), Live;
        /// Seconds after which a checkpoint is written if anything has changed; 0 for never.
        checkpoint_interval: u32 = "900", "checkpoint-interval", integer(0, 2_147_483_647), Live;
        /// Bytes of the block file that are read and verified each second, to find rot early; 0 for none.
        scrub_rate: u64 = "1048576", "scrub-rate", bytes(0, 16 * GB), Live;
    }
    section "Keys and memory" {
        /// Numbered databases for SELECT.
        databases: u32 = "16", "databases", integer(1, 65536), Start;
        /// Parts of the keyspace that are locked independently.
        num_segments: u32 = "64", "num_segments", Kind::PowerOfTwo { min: 1, max: 256 }, Start;
        /// Entries that each segment reserves memory for at the start.
        initial_bucket_size: u64 = "0", "initial_bucket_size", integer(0, 1 << 28), Start;
        /// Longest key.
        max_key_size: u64 = "536870912", "max_key_size", bytes(1, 512 * MB), Live;
        /// Longest value, and longest argument of any command.
        max_value_size: u64 = "536870912", "max_value_size" also [Alias::of("proto-max-bulk-len")], bytes(MB, 512 * MB), Live;
        /// Memory that the data may take beyond what the empty server has, in bytes or as a share such as 50% of the machine or of the cgroup's limit, whichever is less; 0 for no limit.
        maxmemory: BytesOrPercent = "0", "maxmemory", Kind::BytesOrPercent, Live;
        /// What goes at the memory limit: by use of late (lru) or over long (lfu), at random, by expiry (ttl); of all keys or those that expire (volatile); values only, kept in the block file (tier); or nothing: writes are refused.
        maxmemory_policy: MaxmemoryPolicy = "noeviction", "maxmemory-policy", Kind::Word(MaxmemoryPolicy::WORDS), Live;
    }
    section "Limits of a connection" {
        /// Most bytes that a connection may have sent of commands not yet complete.
        client_query_buffer_limit: u64 = "1073741824", "client-query-buffer-limit", bytes(MB, i64::MAX), Live;
        /// Most bytes of replies that a client has not read: beyond, it waits, and is closed when it takes nothing for 10 s.
        max_reply_bytes: u64 = "268435456", "max_reply_bytes", bytes(64 * KB, i64::MAX), Live;
        /// Most bytes that all clients together may have in requests and replies, or a share of maxmemory such as 5%: beyond, those with the most are closed. 0 for no limit.
        maxmemory_clients: BytesOrPercent = "0", "maxmemory-clients", Kind::BytesOrPercent, Live;
        /// Redis's form of the same limit; a hard limit of the class normal below max_reply_bytes counts instead.
        client_output_buffer_limit: OutputLimits =
            "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60", "client-output-buffer-limit",
            Kind::OutputLimits, Live;
    }
    section "Access" {
        /// Password that clients must give with AUTH; empty for none.
        requirepass: String = "", "requirepass", Kind::Text, Live;
        /// Who may use DEBUG: nobody, clients of this machine, everybody.
        enable_debug_command: LocalAccess = "no", "enable-debug-command", Kind::Word(LocalAccess::WORDS), Start;
    }
    section "Process and log" {
        /// Whether the server puts itself into the background.
        daemonize: bool = "no", "daemonize", Kind::Flag, Start;
        /// File for the process id; empty for none.
        pidfile: PathBuf = "", "pidfile", Kind::Path, Start;
        /// File for the server's messages; empty for the standard error.
        logfile: PathBuf = "", "logfile", Kind::Path, Start;
        /// How much is told: trace, debug, info, warn, error or nothing; verbose, notice and warning as in Redis.
        loglevel: LogLevel = "info", "loglevel", Kind::Word(LogLevel::WORDS), Live;
        /// Form of the messages.
        log_format: LogFormat = "text", "log-format", Kind::Word(LogFormat::WORDS), Start;
        /// Whether systemd is told when the server is ready: no, systemd (it must be there), auto (if it asks).
        supervised: Supervised = "auto", "supervised", Kind::Word(Supervised::WORDS), Start;
    }
    section "Insight" {
        /// Microseconds from which a command is noted in SLOWLOG; 0 notes all, a negative number none.
        slowlog_log_slower_than: i64 = "10000", "slowlog-log-slower-than", integer(-1, i64::MAX), Live;
        /// How many commands SLOWLOG keeps.
        slowlog_max_len: u64 = "128", "slowlog-max-len", integer(0, i64::MAX), Live;
        /// Milliseconds from which a command or a sync of the log is an event for LATENCY; 0 for none.
        latency_monitor_threshold: u64 = "0", "latency-monitor-threshold", integer(0, i64::MAX), Live;
        /// Whether the time that each command takes is counted.
        latency_tracking: bool = "yes", "latency-tracking", Kind::Flag, Live;
    }
}
