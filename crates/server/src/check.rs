//! `kv_server --check DIR`: verifies the files of a data directory as a start would, and changes none of them.
//!
//! It takes part in the lock of the directory without writing into it, so a server that runs is named and not read
//! while it writes. Not here: what makes a log or a block file valid (the engine's `log::check` and `blocks`),
//! what a restore reads (`check_backup`).

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bowline::disk::OsDisk;
use bowline::log::{CheckReport, FileState};
use bowline::patient_disk::PatientDisk;
use bowline::{BlockFileCheck, Damage, Error, StoreCheck};
use rustix::fs::{FlockOperation, flock};

use crate::check_backup::{check_archive, check_backup, is_archive};
use crate::process::Exit;
use crate::settings::Settings;

/// Problems of a block file that are printed.
const PROBLEMS_SHOWN: usize = 20;

/// Verifies the data directory `directory`, a directory of log files, a backup file or an archive, and prints
/// what it finds.
///
/// Ends with [`Exit::Ok`] when a start would find everything that was acknowledged, [`Exit::Damaged`] when it would
/// refuse, [`Exit::Locked`] when a server uses the directory, [`Exit::StartFailed`] when there is nothing to verify.
pub fn check(directory: &Path, settings: &Settings) -> Exit {
    if directory.is_file() {
        return check_backup(directory);
    }
    if is_archive(directory) {
        return check_archive(directory);
    }
    match verify(directory, settings) {
        Ok((paths, check)) => {
            let text = describe(&paths, &check);
            // Who reads only the first lines still gets the exit code.
            let _ = io::stdout().write_all(text.as_bytes());
            check.damage.map_or(Exit::Ok, |damage| Exit::Damaged(damage.to_string()))
        }
        Err(error) => exit_of(&error, "--check"),
    }
}

/// How the process ends when `flag` failed.
pub(crate) fn exit_of(error: &Error, flag: &str) -> Exit {
    match error {
        Error::Locked { .. } => Exit::Locked(error.to_string()),
        Error::Corrupt { .. } | Error::FormatTooNew { .. } | Error::RestoreUnfinished { .. } => {
            Exit::Damaged(error.to_string())
        }
        _ => Exit::StartFailed(format!("{error}; give {flag} the data directory of a server")),
    }
}

/// Where the files of a store are.
pub(crate) struct Paths {
    pub(crate) log_directory: PathBuf,
    pub(crate) block_file: PathBuf,
}

/// The files in a data directory, or beside a directory of log files; where the settings name others, those.
pub(crate) fn paths_in(directory: &Path, settings: &Settings) -> Paths {
    let mut settings = settings.clone();
    settings.dir = directory.to_owned();
    let (log_directory, block_file) = (settings.log_directory(), settings.block_file());
    let names_all = !settings.wal_directory.as_os_str().is_empty();
    if names_all || log_directory.is_dir() {
        return Paths { log_directory, block_file };
    }
    settings.dir = directory.parent().unwrap_or(directory).to_owned();
    Paths { log_directory: directory.to_owned(), block_file: settings.block_file() }
}

fn verify(directory: &Path, settings: &Settings) -> bowline::Result<(Paths, StoreCheck)> {
    fs::metadata(directory).map_err(|source| Error::io("open", directory, source))?;
    let _shared = shared_lock(directory)?;
    bowline::check_no_unfinished_restore(&OsDisk, directory)?;
    if bowline::is_repair_pending(&OsDisk, directory)? {
        let what = "a repair of it broke off after it was decided; the next start, or --repair, finishes it";
        return Err(Error::Corrupt { path: directory.to_owned(), offset: 0, what });
    }
    let paths = paths_in(directory, settings);
    let disk = PatientDisk::over(Arc::new(OsDisk));
    let mut check = bowline::check_store(&disk, &paths.block_file, &paths.log_directory)?;
    if let Some(Damage { path, offset, what }) = disk.unreadable().into_iter().next() {
        // What was read as zeros may have looked like the end of something.
        check.damage.get_or_insert(Error::Corrupt { path, offset, what });
    }
    if check.log.files.is_empty() && check.blocks.is_none() && check.damage.is_none() {
        let nothing = io::Error::new(io::ErrorKind::NotFound, "there are none");
        return Err(Error::io("find the files of a store in", directory, nothing));
    }
    Ok((paths, check))
}

/// Keeps a server from starting meanwhile. `None` when none has ever run in the directory.
pub(crate) fn shared_lock(directory: &Path) -> bowline::Result<Option<File>> {
    let path = directory.join("lock");
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::io("open", &path, source)),
    };
    match flock(&file, FlockOperation::NonBlockingLockShared).map_err(io::Error::from) {
        Ok(()) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            let pid = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
            Err(Error::Locked { path: directory.to_owned(), pid })
        }
        Err(source) => Err(Error::io("lock", &path, source)),
    }
}

fn describe(paths: &Paths, check: &StoreCheck) -> String {
    let mut lines = Vec::new();
    if let Some(blocks) = &check.blocks {
        describe_blocks(&paths.block_file, blocks, &mut lines);
    }
    describe_log(&paths.log_directory, &check.log, &mut lines);
    lines.push(match &check.damage {
        None => "sound: a start would find everything that was acknowledged".to_owned(),
        Some(damage) => format!("damage: {damage}"),
    });
    lines.push(String::new());
    lines.join("\n")
}

fn describe_blocks(path: &Path, blocks: &BlockFileCheck, lines: &mut Vec<String>) {
    let BlockFileCheck { superblock, report, .. } = blocks;
    lines.push(format!(
        "block file {}: checkpoint {} at version {}, {} entries, {} blocks of {} bytes",
        path.display(),
        superblock.sequence,
        superblock.cut,
        superblock.entries,
        superblock.file_blocks,
        superblock.block_bytes,
    ));
    lines.push(format!("  {} blocks and {} entries read", report.blocks_read, report.entries));
    for problem in report.problems.iter().take(PROBLEMS_SHOWN) {
        lines.push(format!("  byte {}: {}", problem.offset, problem.what));
    }
    if let Some(more) = report.problem_count.checked_sub(PROBLEMS_SHOWN as u64).filter(|more| *more > 0) {
        lines.push(format!("  and {more} problems more"));
    }
}

fn describe_log(log_directory: &Path, report: &CheckReport, lines: &mut Vec<String>) {
    lines.push(format!("log in {}:", log_directory.display()));
    for file in &report.files {
        let state = match file.state {
            FileState::Live => "live",
            FileState::Active => "active",
            FileState::Spare => "spare",
            _ => "other",
        };
        lines.push(format!("  {} {} bytes, {state}", file.path.display(), file.bytes));
    }
    lines.push(format!(
        "{} frames with {} records in {} bytes, newest version {}, {}",
        report.frames,
        report.records,
        report.bytes,
        report.last_version.0,
        if report.was_closed { "closed in order" } else { "not closed in order" },
    ));
    if report.torn_bytes > 0 {
        lines.push(format!(
            "{} bytes of writes that had begun and were never acknowledged: the next start cuts them",
            report.torn_bytes
        ));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::FileExt;

    use bowline::{Options, Store};

    use super::*;

    const LOG_FILE_BYTES: u64 = 1 << 20;

    fn options(directory: &Path) -> Options {
        let mut options = Options::new(directory.to_owned());
        options.log_file_bytes = LOG_FILE_BYTES;
        options.log_buffer_bytes = 1 << 18;
        options
    }

    /// A directory with keys that were written one by one, closed in order.
    fn filled() -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::open(options(directory.path())).expect("opened");
        for number in 0..20 {
            store.put(format!("key:{number}").as_bytes(), format!("value:{number}").as_bytes()).expect("written");
        }
        store.close_without_checkpoint().expect("closed");
        directory
    }

    fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut contents = BTreeMap::new();
        for entry in fs::read_dir(directory).expect("listed") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                contents.extend(self::contents(&path));
            } else {
                contents.insert(path.clone(), fs::read(&path).expect("read"));
            }
        }
        contents
    }

    #[test]
    fn a_sound_directory_is_found_sound_and_left_alone() {
        let directory = filled();
        let before = contents(directory.path());
        assert_eq!(check(directory.path(), &Settings::default()), Exit::Ok);
        assert!(contents(directory.path()) == before, "a file was changed");
    }

    #[test]
    fn damage_is_named_with_its_file_and_left_alone() {
        let directory = filled();
        let early = b"value:3";
        let found = contents(directory.path()).into_iter().find_map(|(path, bytes)| {
            bytes.windows(early.len()).position(|window| window == early).map(|at| (path, at as u64))
        });
        let (path, at) = found.expect("the value is in the log");
        let file = File::options().write(true).open(&path).expect("opened");
        file.write_all_at(b"V", at).expect("damaged");
        let before = contents(directory.path());
        let exit = check(directory.path(), &Settings::default());
        assert!(
            matches!(&exit, Exit::Damaged(text) if text.contains(&path.display().to_string())),
            "expected damage in {}, found {exit:?}",
            path.display()
        );
        assert!(contents(directory.path()) == before, "a file was changed");
    }

    #[test]
    fn damage_in_the_block_file_is_named_with_its_place() {
        let directory = filled();
        Store::open(options(directory.path())).expect("opened").close().expect("closed, with a checkpoint");
        assert_eq!(check(directory.path(), &Settings::default()), Exit::Ok);
        let path = directory.path().join("store.blocks");
        let bytes = fs::read(&path).expect("read");
        let at = bytes.windows(8).position(|window| window == b"value:13").expect("the value is in the block file");
        File::options().write(true).open(&path).expect("opened").write_all_at(b"V", at as u64).expect("damaged");
        let exit = check(directory.path(), &Settings::default());
        let block = format!("byte {}", at / 4096 * 4096);
        assert!(
            matches!(&exit, Exit::Damaged(text) if text.contains("store.blocks") && text.contains(&block)),
            "{block}: {exit:?}"
        );
    }

    #[test]
    fn a_directory_in_use_is_refused_with_its_owner() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::open(options(directory.path())).expect("opened");
        let exit = check(directory.path(), &Settings::default());
        let pid = std::process::id().to_string();
        assert!(matches!(&exit, Exit::Locked(text) if text.contains(&pid)), "{exit:?}");
        store.close().expect("closed");
    }

    #[test]
    fn nothing_to_verify_is_an_error_and_nothing_is_made() {
        let directory = tempfile::tempdir().expect("a directory");
        let missing = directory.path().join("none");
        for path in [directory.path(), &missing] {
            let exit = check(path, &Settings::default());
            assert!(matches!(&exit, Exit::StartFailed(_)), "{exit:?}");
        }
        assert!(!missing.exists() && contents(directory.path()).is_empty());
    }
}
