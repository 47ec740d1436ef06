//! How a store is opened.

use super::checkpoints::CheckpointPolicy;
use super::eviction::{MemoryGauge, MemoryLimit};
use crate::blocks::{Compression, FileSize, Geometry};
use crate::clock::{Clock, OsClock};
use crate::disk::{Disk, OsDisk};
use crate::error::Error;
use crate::exec::Durability;
use crate::limits::VALUE_BYTES_MAX;
use crate::log::ArchiveOptions;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Name of the log's directory, unless the options name another.
const LOG_DIRECTORY_NAME: &str = "log";
/// Name of the block file, unless the options name another.
const BLOCK_FILE_NAME: &str = "store.blocks";

/// Told once when the log has failed and nothing can be acknowledged any more.
pub type OnFailure = Arc<dyn Fn(&Error) + Send + Sync>;

/// When the entries of the last checkpoint come into memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Restart {
    /// Before the store opens.
    #[default]
    Eager,
    /// While it serves: what a call needs at once, the rest in the background. Calls that count or list keys wait for all of
    /// it; figures tell of what is there.
    Lazy,
}

/// How a store is opened. [`Options::new`] gives the defaults; change the fields that you want otherwise.
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// Where everything lies.
    pub directory: PathBuf,
    /// Where the log lies; `log` in the directory unless set.
    pub log_directory: Option<PathBuf>,
    /// The block file, or a block device; `store.blocks` in the directory unless set.
    pub block_file: Option<PathBuf>,
    /// The shape of the block file, if it has to be made.
    pub block_file_geometry: Geometry,
    /// When checkpoints are written.
    pub checkpoints: CheckpointPolicy,
    /// How values are compressed in the block file.
    pub compression: Compression,
    /// When entries come into memory: [`Restart::Eager`] unless set.
    pub restart: Restart,
    /// Where finished log files are copied before they are given up; nowhere unless set.
    pub archive: Option<ArchiveOptions>,
    /// Bytes of the block file that are verified each second while nothing else is done with it; 0 for none.
    pub scrub_bytes_per_second: u64,
    /// When calls return (and replies leave): [`Durability::Always`] unless weakened.
    pub durability: Durability,
    /// Independently locked parts of the keyspace: a power of two up to 256.
    pub segments: usize,
    /// Entries that each segment's tables have room for from the start.
    pub entries_per_segment: usize,
    /// Number of databases, up to 1024.
    pub databases: u32,
    /// Longest key, bytes.
    pub key_bytes_max: usize,
    /// Longest value, bytes.
    pub value_bytes_max: usize,
    /// Size of each log file, bytes.
    pub log_file_bytes: u64,
    /// Most bytes that wait to be written to the log; at most half of a log file.
    pub log_buffer_bytes: usize,
    /// Secret of the key hash; random unless set. With a seed a store without threads behaves the same each time.
    pub seed: Option<u128>,
    /// Whether background threads are started; without them call [`Store::turn`](super::Store::turn).
    pub threads: bool,
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// How much memory the data may take, and what happens when it does.
    pub memory_limit: MemoryLimit,
    /// What the process has in use, as its allocator counts it: what grows from the value at the opening on counts
    /// against the limit. Without it the store counts its entries and tables itself.
    pub memory_gauge: Option<MemoryGauge>,
    /// Called once when the log has failed and nothing can be acknowledged any more.
    pub on_failure: Option<OnFailure>,
}

impl Options {
    /// The defaults, for a store in `directory`.
    pub fn new(directory: impl Into<PathBuf>) -> Options {
        Options {
            directory: directory.into(),
            log_directory: None,
            block_file: None,
            block_file_geometry: Geometry { block_bytes: 4096, size: FileSize::Auto },
            checkpoints: CheckpointPolicy::default(),
            compression: Compression::None,
            restart: Restart::default(),
            archive: None,
            scrub_bytes_per_second: 1 << 20,
            durability: Durability::Always,
            segments: 64,
            entries_per_segment: 0,
            databases: 16,
            key_bytes_max: VALUE_BYTES_MAX,
            value_bytes_max: VALUE_BYTES_MAX,
            log_file_bytes: 64 << 20,
            log_buffer_bytes: 32 << 20,
            seed: None,
            threads: true,
            disk: Arc::new(OsDisk),
            clock: Arc::new(OsClock::default()),
            memory_limit: MemoryLimit::default(),
            memory_gauge: None,
            on_failure: None,
        }
    }
}

impl Options {
    /// Where the log lies.
    pub(super) fn log_path(&self) -> PathBuf {
        self.log_directory.clone().unwrap_or_else(|| self.directory.join(LOG_DIRECTORY_NAME))
    }

    /// Where the block file lies.
    pub(super) fn block_path(&self) -> PathBuf {
        self.block_file.clone().unwrap_or_else(|| self.directory.join(BLOCK_FILE_NAME))
    }
}

impl Durability {
    /// How often the log is synced when nobody waits for it.
    pub fn background_sync(self) -> Duration {
        match self {
            Durability::Always | Durability::EverySecond => Duration::from_secs(1),
            Durability::None => Duration::from_secs(10),
        }
    }
}
