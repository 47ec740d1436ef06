//! The manifest of an append-only directory: which files there are and in which order they are loaded.
//!
//! ```text
//!   file appendonly.aof.2.base.rdb seq 2 type b        the base: an RDB, or commands; at most one
//!   file appendonly.aof.7.incr.aof seq 7 type i        what came after it, in ascending order
//!   file appendonly.aof.1.incr.aof seq 1 type h        history: no longer needed, about to be removed
//! ```
//!
//! Names may be quoted as in a request. A line that begins with `#` is a comment. Not here: opening the files.

use bowline_resp::split_inline;

use crate::error::ManifestError;
use crate::limits::MANIFEST_BYTES_MAX;

/// A file that is to be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestFile {
    /// Its name within the directory of the manifest; never a path.
    pub name: Vec<u8>,
    /// What it holds.
    pub kind: FileKind,
}

/// What a file of the directory holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// The state from which the others go on.
    Base,
    /// Commands that came later.
    Increment,
}

/// The files that `text` lists, in the order in which they are loaded; those of history are left out.
///
/// # Errors
/// [`ManifestError`], naming the line that is not one of a manifest.
pub fn parse_manifest(text: &[u8]) -> Result<Vec<ManifestFile>, ManifestError> {
    if text.len() > MANIFEST_BYTES_MAX {
        return Err(ManifestError::TooLong { bytes_max: MANIFEST_BYTES_MAX });
    }
    let mut base = None;
    let mut increments = Vec::new();
    let mut newest = 0;
    for (place, content) in text.strip_suffix(b"\n").unwrap_or(text).split(|byte| *byte == b'\n').enumerate() {
        if content.starts_with(b"#") {
            continue;
        }
        let wrong = |what| ManifestError::Line { line: place + 1, what };
        let line = parse_line(content).map_err(wrong)?;
        match line.kind {
            b'b' if base.is_some() => return Err(wrong("there is a second base file")),
            b'b' => base = Some(ManifestFile { name: line.name, kind: FileKind::Base }),
            b'i' if line.sequence <= newest => {
                return Err(wrong("the sequence number is not higher than the one before"));
            }
            b'i' => {
                newest = line.sequence;
                increments.push(ManifestFile { name: line.name, kind: FileKind::Increment });
            }
            _ => {}
        }
    }
    let files: Vec<ManifestFile> = base.into_iter().chain(increments).collect();
    if files.is_empty() { Err(ManifestError::Empty) } else { Ok(files) }
}

struct Line {
    name: Vec<u8>,
    sequence: u64,
    kind: u8,
}

fn parse_line(content: &[u8]) -> Result<Line, &'static str> {
    let words = split_inline(content.trim_ascii()).map_err(|_| "a quote is not closed")?;
    let (pairs, []) = words.as_chunks::<2>() else { return Err("words must come in pairs") };
    let (mut name, mut sequence, mut kind) = (None, None, None);
    for [word, value] in pairs {
        match word.to_ascii_lowercase().as_slice() {
            b"file" => name = Some(value),
            b"seq" => sequence = std::str::from_utf8(value).ok().and_then(|digits| digits.parse::<u64>().ok()),
            b"type" => kind = value.first().copied().filter(|kind| value.len() == 1 && b"bih".contains(kind)),
            // Redis passes over words that a later release may add.
            _ => {}
        }
    }
    let name = name.ok_or("it must name a file")?.clone();
    if name.is_empty() || name.contains(&b'/') || name.contains(&0) || name.starts_with(b"..") || name == b"." {
        return Err("the name of the file is a path, and only files of the same directory are read");
    }
    let sequence = sequence.filter(|sequence| *sequence > 0).ok_or("seq must be a number from 1 on")?;
    Ok(Line { name, sequence, kind: kind.ok_or("type must be b, i or h")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Result<Vec<String>, ManifestError> {
        let shown = |file: ManifestFile| String::from_utf8_lossy(&file.name).into_owned();
        parse_manifest(text.as_bytes()).map(|files| files.into_iter().map(shown).collect())
    }

    #[test]
    fn the_base_comes_first_and_history_is_left_out() {
        let text = "# made by hand\nfile a.1.incr.aof seq 1 type h\nfile a.2.incr.aof seq 2 type i\n\
                    file \"a 2.base.rdb\" seq 2 type b\nfile a.3.incr.aof seq 3 type i later added\n";
        assert_eq!(names(text), Ok(vec!["a 2.base.rdb".into(), "a.2.incr.aof".into(), "a.3.incr.aof".into()]));
        let kinds: Vec<FileKind> =
            parse_manifest(text.as_bytes()).expect("a manifest").iter().map(|file| file.kind).collect();
        assert_eq!(kinds, [FileKind::Base, FileKind::Increment, FileKind::Increment]);
    }

    #[test]
    fn a_name_that_leaves_the_directory_is_refused() {
        for name in ["/etc/passwd", "../dump.rdb", "..", "a/b", "\"\"", "\"a\\x00b\""] {
            let error = names(&format!("file {name} seq 1 type b\n")).expect_err(name);
            assert!(matches!(error, ManifestError::Line { line: 1, .. }), "{error}");
        }
    }

    #[test]
    fn what_is_no_manifest_is_refused_with_its_line() {
        for text in [
            "file a seq 1 type i\nnonsense\n",
            "file a seq 1 type i\nfile b seq 1 type i\n",
            "file a seq 1 type b\nfile b seq 2 type b\n",
            "file a seq 1 type b\nfile b seq 2 type x\n",
            "file a seq 1 type b\nfile b seq 0 type i\n",
            "file a seq 1 type b\nseq 2 type i\n",
            "file a seq 1 type b\n\nfile b seq 2 type i\n",
            "file a seq 1 type b\nfile \"b seq 2 type i\n",
        ] {
            assert!(matches!(names(text), Err(ManifestError::Line { line: 2, .. })), "{text}");
        }
        assert_eq!(names("# nothing\n"), Err(ManifestError::Empty));
    }
}
