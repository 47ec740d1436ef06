//! How much memory the process has in use: what the engine holds against `maxmemory`.
//!
//! ```text
//!   resident = allocated + the allocator's own books + unused parts of pages in use + free pages not given back yet
//!              |---------- counts against maxmemory ------------------| up to an eighth
//! ```
//!
//! Free pages do not count, because evicting makes more of them; the allocator gives them back within seconds. The figures
//! are those of jemalloc, which is the allocator of the binary.

use std::sync::Arc;

use bowline::{MemoryGauge, MemoryInUse};
use tikv_jemalloc_ctl::{Error, background_thread, epoch, stats};

/// What the allocator says is in use. `None` when it does not keep books.
pub fn gauge() -> Option<MemoryGauge> {
    in_use().ok()?;
    // Gives free pages back also while nobody allocates. Where it cannot be had, they go back a little later.
    let _ = background_thread::write(true);
    // It told once, so it will go on telling.
    Some(Arc::new(|| in_use().unwrap_or_default()))
}

/// What is in use. Cost: the allocator sums up its arenas, some ten microseconds.
fn in_use() -> Result<MemoryInUse, Error> {
    epoch::advance()?;
    let (allocated, pages, books) = (stats::allocated::read()?, stats::active::read()?, stats::metadata::read()?);
    Ok(MemoryInUse { allocated: allocated + books, unused_parts: pages.saturating_sub(allocated) })
}
