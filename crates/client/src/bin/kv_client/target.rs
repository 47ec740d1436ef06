//! A file that gets its name only when it is complete, verified and durable.
//!
//! ```text
//!   FILE.partial -> filled -> fsync -> verified -> rename -> fsync of the directory
//! ```

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// See the head of this file.
pub(crate) struct Target<'a> {
    path: &'a Path,
    partial: PathBuf,
}

impl Target<'_> {
    pub(crate) fn new(path: &Path) -> Target<'_> {
        let mut name = path.as_os_str().to_owned();
        name.push(".partial");
        Target { path, partial: PathBuf::from(name) }
    }

    /// Makes the file with what `fill` writes, once `verify` finds the partial file right; returns what `verify` says.
    /// Nothing is left of a failure.
    pub(crate) fn make<T>(
        &self,
        fill: impl FnOnce(&mut File, &dyn Fn(io::Error) -> Failure) -> Result<T, Failure>,
        verify: impl FnOnce(&Path, T) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let made = self.try_make(fill, verify);
        if made.is_err() {
            // What is not complete is of no use to anybody.
            let _ = fs::remove_file(&self.partial);
        }
        made
    }

    fn try_make<T>(
        &self,
        fill: impl FnOnce(&mut File, &dyn Fn(io::Error) -> Failure) -> Result<T, Failure>,
        verify: impl FnOnce(&Path, T) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let partial = &self.partial;
        let mut file = File::create(partial).map_err(failed("create", partial))?;
        let filled = fill(&mut file, &failed("write", partial))?;
        file.sync_all().map_err(failed("sync", partial))?;
        drop(file);
        let verified = verify(partial, filled)?;
        fs::rename(partial, self.path).map_err(failed("rename", partial))?;
        let directory = match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed("sync", directory))?;
        Ok(verified)
    }
}

fn failed(verb: &str, path: &Path) -> impl Fn(io::Error) -> Failure + use<> {
    let what = format!("{verb} {}", path.display());
    move |source| Failure::Local { what: what.clone(), source }
}
