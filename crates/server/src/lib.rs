//! The parts of `kv_server`, as a library so that tests and fuzz targets reach them.

pub mod check;
pub mod process;
pub mod settings;
