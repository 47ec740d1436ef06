//! The settings of `kv_server`: one table of rows, and everything that is derived from it.
//!
//! ```text
//! rows, remembered   one row each: name, other names, kind, default, when it may change, one sentence
//!   -> arguments     flags                          \
//!   -> sources       file, environment, precedence   }  -> Settings -> SettingsStore -> CONFIG GET, SET, REWRITE
//!   -> syntax        the lines of a file            /
//!   -> document      help, example file, table of the README
//! ```
//!
//! A value is checked when it is given: who reads a field of [`Settings`] may rely on its range. Not here: what the
//! settings do.

pub mod arguments;
pub mod document;
mod error;
mod glob;
pub(crate) mod limits;
mod lists;
mod machine;
mod remembered;
mod rewrite;
mod rows;
mod sources;
mod store;
mod syntax;
mod table;
mod values;
mod words;

use std::num::NonZero;
use std::path::{Path, PathBuf};

pub use error::{Place, SettingsError, WrongValue};
pub use lists::{BindAddresses, Listen, OutputLimit, OutputLimits};
pub use rows::Settings;
pub use sources::{FirstFile, Sources, Variable};
pub use store::{Reloaded, SettingsStore};
pub use syntax::{Directive, SyntaxError, parse_text, render_line};
pub use table::{Alias, Changes, Named, Setting, all, find, names};
pub use values::{BytesOrPercent, Kind, Permissions, Problem, SizeOrAuto, Value};
pub use words::{Compression, Durability, LocalAccess, LogFormat, LogLevel, MaxmemoryPolicy, Restart, Supervised};

impl Settings {
    /// The directory of the data, absolute once the settings were loaded.
    pub fn data_directory(&self) -> PathBuf {
        self.placed(&self.dir)
    }

    /// The directory of the log files (the write-ahead log).
    pub fn log_directory(&self) -> PathBuf {
        self.absolute(&self.wal_directory).unwrap_or_else(|| self.data_directory().join("log"))
    }

    /// The block file.
    pub fn block_file(&self) -> PathBuf {
        self.absolute(&self.block_file).unwrap_or_else(|| self.data_directory().join("store.blocks"))
    }

    /// The archive of log files, where there is one.
    pub fn archive_directory(&self) -> Option<PathBuf> {
        self.absolute(&self.archive_dir)
    }

    /// The path of the UNIX socket, where there is one.
    pub fn unix_socket(&self) -> Option<PathBuf> {
        self.absolute(&self.unixsocket)
    }

    /// The file for the process id, where there is one.
    pub fn pid_file(&self) -> Option<PathBuf> {
        self.absolute(&self.pidfile)
    }

    /// The file for the messages, where they do not go to the standard error.
    pub fn message_file(&self) -> Option<PathBuf> {
        self.absolute(&self.logfile)
    }

    /// How many event loops to run: `threads`, or one per core this process may use.
    pub fn event_loops(&self) -> usize {
        match usize::try_from(self.threads) {
            Ok(threads) if threads > 0 => threads,
            _ => std::thread::available_parallelism().map_or(1, NonZero::get),
        }
    }

    /// The buffer of the log in bytes: at most half a log file.
    pub fn log_buffer_bytes(&self) -> u64 {
        self.wal_buffer_size.min(self.wal_file_size / 2)
    }

    /// Bytes of unread replies at which a connection is closed.
    pub fn reply_bytes_limit(&self) -> u64 {
        match self.client_output_buffer_limit.normal.hard_bytes {
            0 => self.max_reply_bytes,
            hard => hard.min(self.max_reply_bytes),
        }
    }

    /// Bytes that the data may take in memory; 0 for no limit. Cost: a share asks the system how much there is.
    pub fn memory_limit(&self) -> u64 {
        self.maxmemory.of(machine::memory_bytes)
    }

    /// Bytes that all clients together may hold in requests and replies; 0 for no limit, as also a share of no `maxmemory`.
    pub fn client_memory_limit(&self) -> u64 {
        self.maxmemory_clients.of(|| self.memory_limit())
    }

    /// The settings that were given another value than their default although they have no effect here.
    pub fn without_effect(&self) -> impl Iterator<Item = &'static str> {
        self.remembered.keys().copied()
    }

    fn absolute(&self, path: &Path) -> Option<PathBuf> {
        (!path.as_os_str().is_empty()).then(|| self.placed(path))
    }

    /// The path as it is from the directory the server was started in, without the "." of "./data".
    fn placed(&self, path: &Path) -> PathBuf {
        self.base.join(path).components().collect()
    }
}
