//! Bowline, the embedded library: a key-value store that keeps every acknowledged write.
//!
//! ```
//! # fn main() -> bowline::Result<()> {
//! # let directory = tempfile::tempdir().expect("a temporary directory");
//! let store = bowline::Store::open(bowline::Options::new(directory.path()))?;
//! store.put(b"key", b"value")?; // returns when the write is safe on disk
//! assert_eq!(store.get(b"key")?.as_deref(), Some(&b"value"[..]));
//! for entry in store.iter() {
//!     let (key, info) = entry?;
//!     println!("{} has version {}", key.escape_ascii(), info.version);
//! }
//! store.close()
//! # }
//! ```
//!
//! The way of a write: a command locks the segments of its keys ([`keyspace`]), changes memory and emits effects
//! ([`command`], [`effect`]); still under the locks the effects get a version and a place in the log ([`log`]); the answer
//! waits until that version is committed. [`exec`] is that way for a server, [`Store`] for a program.
//!
//! No sockets and no async runtime live here. Files, time and randomness come in as arguments ([`disk::Disk`],
//! [`clock::Clock`], a seed), so that a simulator can take their place.

mod apply;
pub mod blocks;
pub mod clock;
pub mod command;
pub mod disk;
pub mod effect;
mod error;
pub mod exec;
#[doc(hidden)]
pub mod fuzz;
mod head;
pub mod histogram;
pub mod keyspace;
pub mod limits;
pub mod log;
pub mod patient_disk;
mod recovery;
pub mod snapshot;
mod store;
mod time;
mod version;

pub use error::{Damage, Error, Result};
pub use exec::Durability;
pub use keyspace::EvictionPolicy;
pub use store::{
    Basis, Batch, Between, BlockFileCheck, CheckpointPolicy, CheckpointStatistics, EntryInfo, Fetch, Gap, Iter,
    LoadStatistics, MemoryGauge, MemoryInUse, MemoryLimit, MemoryStatistics, OnFailure, Options, RepairError,
    RepairPlan, RepairReport, Repaired, Restart, RestoreError, RestoreProgress, RestoreRequest, Restored,
    ScrubStatistics, Statistics, Store, StoreCheck, Target, TierStatistics, Waker, check_no_unfinished_restore,
    check_store, inspect_block_file, is_repair_pending, plan_repair, restore,
};
pub use version::Version;
