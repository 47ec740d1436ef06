//! `kv_server`: Bowline over the network. What the parts are called by; the parts are in the library beside.

use std::process::ExitCode;

use bowline_server::process::launch::{Purposes, launch};
use bowline_server::{check, inspect, repair, restore, run};

/// Its size classes are near enough to each other that an entry costs what it needs.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What the allocator reads when the process starts: free pages go back to the system after a second and not after ten, so
/// that what `maxmemory` promises is true of the resident memory too. Its thread for that is started later: a process that
/// goes into the background has none yet. Entries of 48 to 96 bytes come in slabs of
/// four pages, the hash tables' pages of 512 bytes in slabs of eight: the allocator's books for a slab of one page cost two
/// bytes an entry. Larger slabs for all sizes would be kept by the last entry in them when sizes change.
// SAFETY: the name is jemalloc's own, for just this: a pointer to a text that ends with a zero. A reference to an
// array is one.
#[allow(unsafe_code)]
#[unsafe(export_name = "_rjem_malloc_conf")]
static ALLOCATOR_CONFIGURATION: &[u8; 49] = b"dirty_decay_ms:1000,slab_sizes:48-96:4|512-512:8\0";

fn main() -> ExitCode {
    let purposes = Purposes {
        run: run::run,
        restore: restore::restore,
        check: check::check,
        inspect: inspect::inspect,
        repair: repair::repair,
    };
    launch(std::env::args_os().skip(1), &purposes)
}
