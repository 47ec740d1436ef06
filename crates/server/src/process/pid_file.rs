//! The file with the process id. It is written when the server serves, and removed at the end if it is still ours.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file that holds the id of this process; removed when dropped.
#[derive(Debug)]
pub(super) struct PidFile {
    path: PathBuf,
}

impl PidFile {
    /// Writes the file, over one that an earlier process left. That no two processes serve one directory is not its
    /// business: the lock in the data directory sees to that, and this is written after it was taken.
    pub(super) fn write(path: &Path) -> io::Result<PidFile> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(path)?;
        file.write_all(format!("{}\n", std::process::id()).as_bytes())?;
        Ok(PidFile { path: path.to_owned() })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let ours = fs::read_to_string(&self.path).is_ok_and(|text| text.trim() == std::process::id().to_string());
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!("cannot remove the pidfile {}: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_removed_at_the_end() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("kv.pid");
        fs::write(&path, "an older and longer content\n").expect("written");
        let file = PidFile::write(&path).expect("written");
        assert_eq!(fs::read_to_string(&path).expect("read"), format!("{}\n", std::process::id()));
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn one_that_another_process_has_written_since_is_left() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("kv.pid");
        let file = PidFile::write(&path).expect("written");
        fs::write(&path, "1\n").expect("written");
        drop(file);
        assert_eq!(fs::read_to_string(&path).expect("read"), "1\n");
    }
}
