//! `kv_server`: Bowline over the network. What the parts are called by; the parts are in the library beside.

use std::process::ExitCode;

use bowline_server::process::launch::{Purposes, launch};
use bowline_server::{check, inspect, restore, run};

/// Its size classes are near enough to each other that an entry costs what it needs.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let purposes =
        Purposes { run: run::run, restore: restore::restore, check: check::check, inspect: inspect::inspect };
    launch(std::env::args_os().skip(1), &purposes)
}
