//! Where an import comes from: which files, in which order.
//!
//! ```text
//!   -                       standard input
//!   dump.rdb, one.aof       that file (an append-only file may begin with an RDB)
//!   appendonlydir           the files that its one manifest lists
//!   x.aof.manifest          the same, when a directory has several
//! ```
//!
//! Not here: what is in the files (`walk`).

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use bowline_rdb::parse_manifest;

use crate::failure::{Exit, Failure};

/// What is imported.
pub(super) struct Source {
    /// In the order in which they are read.
    pub(super) parts: Vec<Part>,
    /// They are those of an append-only directory, so commands may follow an RDB in another file.
    pub(super) is_append_only: bool,
}

/// One file, or standard input.
pub(super) struct Part {
    /// As a person knows it.
    pub(super) name: String,
    path: Option<PathBuf>,
    /// Its length, when it is a file that can be read again.
    bytes: Option<u64>,
}

impl Source {
    /// Finds the files that `path` stands for; nothing of them is read yet but a manifest.
    pub(super) fn find(path: &Path) -> Result<Source, Failure> {
        if path == Path::new("-") {
            let part = Part { name: "stdin".to_owned(), path: None, bytes: None };
            return Ok(Source { parts: vec![part], is_append_only: false });
        }
        let metadata = fs::metadata(path).map_err(|source| cannot_open(path, source))?;
        if metadata.is_dir() {
            return Source::of_manifest(&find_manifest(path)?);
        }
        if is_manifest(path) {
            return Source::of_manifest(path);
        }
        Ok(Source { parts: vec![Part::of(path)?], is_append_only: false })
    }

    fn of_manifest(path: &Path) -> Result<Source, Failure> {
        let text = fs::read(path).map_err(|source| cannot_open(path, source))?;
        let files = parse_manifest(&text).map_err(|error| refused(format!("{}: {error}", path.display())))?;
        let directory = path.parent().unwrap_or(Path::new(""));
        let parts = files
            .iter()
            .map(|file| Part::of(&directory.join(OsStr::from_bytes(&file.name))))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Source { parts, is_append_only: true })
    }

    /// Whether all of it can be read twice, so that it can be checked before anything is sent.
    pub(super) fn is_repeatable(&self) -> bool {
        self.parts.iter().all(|part| part.bytes.is_some())
    }

    /// The length of all files together, when it is known.
    pub(super) fn bytes(&self) -> Option<u64> {
        self.parts.iter().map(|part| part.bytes).sum()
    }
}

impl Part {
    fn of(path: &Path) -> Result<Part, Failure> {
        let metadata = fs::metadata(path).map_err(|source| cannot_open(path, source))?;
        let bytes = metadata.is_file().then_some(metadata.len());
        Ok(Part { name: path.display().to_string(), path: Some(path.to_owned()), bytes })
    }

    /// Opens it at its beginning.
    pub(super) fn open(&self) -> Result<Box<dyn Read>, Failure> {
        match &self.path {
            Some(path) => {
                let file = File::open(path).map_err(|source| cannot_open(path, source))?;
                Ok(Box::new(file))
            }
            None => Ok(Box::new(io::stdin().lock())),
        }
    }
}

fn find_manifest(directory: &Path) -> Result<PathBuf, Failure> {
    let entries = fs::read_dir(directory).map_err(|source| cannot_open(directory, source))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|source| cannot_open(directory, source))?.path();
        if is_manifest(&path) {
            found.push(path);
        }
    }
    found.sort();
    let shown = directory.display();
    match found.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(refused(format!(
            "{shown} has no *.manifest, so it is no append-only directory: name the .rdb or .aof file itself"
        ))),
        [first, ..] => Err(refused(format!(
            "{shown} has {} manifests: name the one that is meant, for instance {}",
            found.len(),
            first.display()
        ))),
    }
}

fn is_manifest(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "manifest")
}

fn cannot_open(path: &Path, source: io::Error) -> Failure {
    Failure::Local { what: format!("open {}", path.display()), source }
}

/// A file that cannot be imported.
pub(super) fn refused(message: String) -> Failure {
    Failure::Failed { message, exit: Exit::Usage }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(path: &Path) -> Result<Vec<String>, String> {
        let source = Source::find(path).map_err(|failure| failure.to_string())?;
        let name = |part: &Part| part.name.rsplit('/').next().unwrap_or_default().to_owned();
        Ok(source.parts.iter().map(name).collect())
    }

    #[test]
    fn a_directory_stands_for_the_files_of_its_one_manifest() {
        let directory = tempfile::tempdir().expect("a directory");
        let place = |name: &str| directory.path().join(name);
        let message = names(directory.path()).expect_err("no manifest");
        assert!(message.contains("no *.manifest"), "{message}");
        let text = "file a.base.rdb seq 1 type b\nfile a.incr.aof seq 1 type i\n";
        fs::write(place("a.manifest"), text).expect("a file");
        let message = names(directory.path()).expect_err("a missing file");
        assert!(message.contains("a.base.rdb"), "{message}");
        for name in ["a.base.rdb", "a.incr.aof"] {
            fs::write(place(name), "").expect("a file");
        }
        let expected = Ok(vec!["a.base.rdb".to_owned(), "a.incr.aof".to_owned()]);
        assert_eq!(names(directory.path()), expected);
        fs::write(place("b.manifest"), text).expect("a file");
        assert!(names(directory.path()).expect_err("two").contains("a.manifest"));
        assert_eq!(names(&place("a.manifest")), expected);
    }

    #[test]
    fn standard_input_and_a_single_file_are_one_part() {
        assert_eq!(names(Path::new("-")), Ok(vec!["stdin".to_owned()]));
        let file = tempfile::NamedTempFile::new().expect("a file");
        let source = Source::find(file.path()).expect("a source");
        assert!(source.is_repeatable() && !source.is_append_only);
        assert_eq!(source.bytes(), Some(0));
        assert!(!Source::find(Path::new("-")).expect("stdin").is_repeatable());
    }
}
