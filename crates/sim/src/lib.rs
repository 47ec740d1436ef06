//! The simulator: a disk and a clock that behave as badly as real ones may, and the crash tests that use them.
//!
//! - [`disk`]: files in memory; loses, reorders and tears what was not synced, fails the n-th call, fills up, rots.
//! - [`clock`]: time that passes only when it is told to, and jumps.
//! - [`random`]: the seeded source that everything here draws from, so that a seed replays a run.
//! - [`machine`]: one machine that runs the log, its threads stepped by hand.
//! - [`store_machine`]: one machine that runs a whole store, commands in and replies out.
//! - [`crash`]: power cuts and failures at every storage call, compared with a model.
//!
//! Nothing here starts a thread or reads the machine's clock. Not here: the engine, which is tested through its own
//! public calls.

#![forbid(unsafe_code)]

pub mod clock;
pub mod crash;
pub mod disk;
pub mod machine;
pub mod random;
pub mod store_machine;
