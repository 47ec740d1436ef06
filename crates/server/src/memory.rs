//! How much memory the process has in use: what the engine holds against `maxmemory`.
//!
//! ```text
//!   resident = allocated + unused parts of pages in use + the allocator's own books + free pages not given back yet
//!              |------------------ counts against maxmemory -----------------------|
//! ```
//!
//! Free pages do not count, because evicting makes more of them; the allocator gives them back within seconds. Unused parts
//! of pages count up to an eighth of what is allocated: beyond, evicting would not help but go on and on, since an entry
//! that goes frees a page only with its neighbours. The figures are those of jemalloc, which is the allocator of the binary.

use std::sync::Arc;

use bowline::MemoryGauge;
use tikv_jemalloc_ctl::{Error, epoch, stats};

/// Unused parts of pages count up to this part of what is allocated.
const UNUSED_PARTS_MAX: usize = 8;

/// What the allocator says is in use. `None` when it does not keep books.
pub fn gauge() -> Option<MemoryGauge> {
    in_use().ok()?;
    // It told once, so it will go on telling.
    Some(Arc::new(|| in_use().unwrap_or_default()))
}

/// Bytes in use. Cost: the allocator sums up its arenas, some ten microseconds.
fn in_use() -> Result<usize, Error> {
    epoch::advance()?;
    let (allocated, pages, books) = (stats::allocated::read()?, stats::active::read()?, stats::metadata::read()?);
    let unused_parts = pages.saturating_sub(allocated).min(allocated / UNUSED_PARTS_MAX);
    Ok(allocated + unused_parts + books)
}
