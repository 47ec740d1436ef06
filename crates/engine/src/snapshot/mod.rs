//! Snapshots: a pinned checkpoint as a stream of frames, and back.
//!
//! ```text
//!   blocks::View --dump--> frames --stream--> a thread, a bounded queue --> server, file
//!   file --load--> records --> keyspace          lineage: which store was restored from which, beside the archive
//! ```
//!
//! There is one mechanism for a consistent copy: the checkpoint. A snapshot is one that is kept from being overwritten
//! while it is read; new checkpoints go on beside it. Not here: the bytes of a frame (crate `bowline-snapshot`), taking
//! a checkpoint and restoring a store (`store`).

mod dump;
mod lineage;
mod load;
mod stream;

pub use bowline_snapshot::{Header, Moment, NotAMoment, SnapshotError, Totals};
pub use dump::{Snapshot, SnapshotDatabase};
pub(crate) use lineage::{Lineage, note_lineage, read_lineages};
pub(crate) use load::SnapshotFile;
pub use load::check;
pub use stream::{Pace, SnapshotStream};
