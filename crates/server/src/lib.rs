//! The parts of `kv_server`, as a library so that tests and fuzz targets reach them.

pub mod check;
mod check_backup;
pub mod commands;
mod export;
pub mod inspect;
pub mod loading;
pub mod memory;
pub mod metrics;
pub mod net;
pub mod process;
pub mod repair;
pub mod restore;
pub mod run;
pub mod session;
pub mod settings;
pub mod state;
pub mod text;
