//! CONFIG REWRITE: brings the settings in force into the file the server was started with.
//!
//! Lines that are right stay as they are, byte for byte, and so do comments and blank lines. A line that is not right is
//! written anew in its own form; a setting that has no line is appended. The new text is read back before it is written:
//! when it does not give the settings in force, for instance because a later include overrides them, they are appended
//! as well. The file is replaced in one step: written beside, synced, renamed, its directory synced.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::error::SettingsError;
use super::rows::Settings;
use super::sources::{Sources, read_bounded};
use super::store::differing;
use super::syntax::{Form, parse_line, render_as, without_mark};
use super::table::{Named, find};
use super::values::Kind;

const HEADING: &str = "# Written by CONFIG REWRITE";

/// Permissions of a file that was not there before: it may hold a password.
const NEW_FILE_MODE: u32 = 0o600;

pub(super) fn rewrite(sources: &Sources, path: &Path, settings: &Settings) -> Result<(), SettingsError> {
    // Behind a symbolic link the file itself is replaced, not the link.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let text = match File::open(&path).and_then(read_bounded) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(SettingsError::Unreadable { path, source }),
    };
    let rewritten = rewritten(sources, &path, &text, settings)?;
    if rewritten == text && path.exists() {
        return Ok(());
    }
    replace(&path, &rewritten)
}

/// The new text of the file.
fn rewritten(sources: &Sources, path: &Path, text: &[u8], settings: &Settings) -> Result<Vec<u8>, SettingsError> {
    let wrong = wrong_settings(sources, path, text, settings)?;
    let (mut text, written) = with_lines_replaced(text, &wrong, settings);
    append(&mut text, wrong.iter().filter(|name| !written.contains(**name)), settings);
    let still_wrong = wrong_settings(sources, path, &text, settings)?;
    append(&mut text, still_wrong.iter(), settings);
    match wrong_settings(sources, path, &text, settings)?.first() {
        None => Ok(text),
        Some(name) => Err(SettingsError::NotRepresentable { path: path.to_owned(), name }),
    }
}

/// The settings that the file would not give as they are.
fn wrong_settings(
    sources: &Sources,
    path: &Path,
    text: &[u8],
    settings: &Settings,
) -> Result<BTreeSet<&'static str>, SettingsError> {
    let from_file = sources.load_text(text, path)?;
    let is_setting = |name: &&str| find(name).is_some_and(|named| named.setting.kind != Kind::Directive);
    Ok(differing(&from_file, settings).filter(is_setting).collect())
}

/// Replaces the last line of each wrong setting and drops its other lines. Says also which settings have a line now.
fn with_lines_replaced(
    text: &[u8],
    wrong: &BTreeSet<&'static str>,
    settings: &Settings,
) -> (Vec<u8>, BTreeSet<&'static str>) {
    let all: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
    let mut written = BTreeSet::new();
    let mut kept = Vec::with_capacity(all.len());
    // From the end, as the last line of a setting is the one that rules.
    for line in all.iter().rev() {
        let Some((named, form)) = setting_of(line).filter(|(named, _)| wrong.contains(named.setting.name)) else {
            kept.push(line.to_vec());
            continue;
        };
        if written.insert(named.setting.name) {
            kept.push(line_of(&named, form, settings).into_bytes());
        }
    }
    kept.reverse();
    (kept.join(&b'\n'), written)
}

fn setting_of(line: &[u8]) -> Option<(Named, Form)> {
    let line = parse_line(without_mark(line)).ok().flatten()?;
    Some((find(&line.name)?, line.form))
}

fn line_of(named: &Named, form: Form, settings: &Settings) -> String {
    let value = named.get(settings);
    let mut values = vec![value.clone()];
    if named.setting.kind.takes_several() && !value.trim().is_empty() {
        values = value.split_whitespace().map(str::to_owned).collect();
    }
    render_as(form, named.name, &values)
}

fn append<'a>(text: &mut Vec<u8>, names: impl Iterator<Item = &'a &'static str>, settings: &Settings) {
    let lines: Vec<String> =
        names.filter_map(|name| find(name)).map(|named| line_of(&named, Form::Space, settings)).collect();
    if lines.is_empty() {
        return;
    }
    if !text.is_empty() && !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    let heading = HEADING.as_bytes();
    if !text.split(|byte| *byte == b'\n').any(|line| line == heading) {
        text.extend_from_slice(heading);
        text.push(b'\n');
    }
    for line in lines {
        text.extend_from_slice(line.as_bytes());
        text.push(b'\n');
    }
}

/// Puts a file with this text in the place of the old one.
fn replace(path: &Path, text: &[u8]) -> Result<(), SettingsError> {
    let failed = |op, path: &Path| {
        let path = path.to_owned();
        move |source| SettingsError::Rewrite { op, path, source }
    };
    let directory = path.parent().unwrap_or(Path::new("/"));
    let beside = beside(path);
    let mode = fs::metadata(path).map_or(NEW_FILE_MODE, |metadata| metadata.permissions().mode() & 0o7777);
    let write = || {
        // One of a process that was killed may be left over; it is ours by its name.
        match fs::remove_file(&beside) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &beside)(source)),
            _ => {}
        }
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(NEW_FILE_MODE)
            .open(&beside)
            .map_err(failed("create", &beside))?;
        file.set_permissions(Permissions::from_mode(mode)).map_err(failed("set the permissions of", &beside))?;
        file.write_all(text).map_err(failed("write", &beside))?;
        file.sync_all().map_err(failed("sync", &beside))?;
        fs::rename(&beside, path).map_err(failed("rename", &beside))
    };
    let written = write();
    if written.is_err() {
        // The error that is returned says more than one of tidying up.
        let _ = fs::remove_file(&beside);
    }
    written?;
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed("sync", directory))
}

fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.tmp", std::process::id()));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::settings::{Directive, FirstFile, SettingsStore};

    struct Case {
        directory: tempfile::TempDir,
        path: PathBuf,
        store: SettingsStore,
    }

    fn case_with(text: &str, arguments: Vec<Directive>) -> Case {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("kv.conf");
        fs::write(&path, text).expect("written");
        let store = load(&path, arguments);
        Case { directory, path, store }
    }

    fn case(text: &str) -> Case {
        case_with(text, Vec::new())
    }

    fn load(path: &Path, arguments: Vec<Directive>) -> SettingsStore {
        let file = Some(FirstFile::Path(path.to_owned()));
        SettingsStore::load(Sources { file, arguments, ..Sources::default() }).expect("valid")
    }

    impl Case {
        fn rewritten(&self) -> String {
            self.store.rewrite().expect("rewritten");
            let again = load(&self.path, Vec::new());
            assert_eq!(*again.current(), *self.store.current(), "the file gives the settings in force");
            fs::read_to_string(&self.path).expect("read")
        }
    }

    #[test]
    fn comments_blank_lines_order_and_form_are_kept() {
        let case = case("# mine\n\ntimeout = 1\n  # why\nMAXCLIENTS 5   # few\nuser default on\nhz 10\n\n# end");
        case.store.set(&[("timeout", "2")]).expect("valid");
        assert_eq!(
            case.rewritten(),
            "# mine\n\ntimeout=2\n  # why\nMAXCLIENTS 5   # few\nuser default on\nhz 10\n\n# end"
        );
    }

    #[test]
    fn a_file_that_is_right_is_not_touched() {
        let case = case("timeout 1\r\ntimeout 2\n# \u{e4}");
        let before = fs::metadata(&case.path).and_then(|metadata| metadata.modified()).expect("a time");
        assert_eq!(case.rewritten(), "timeout 1\r\ntimeout 2\n# \u{e4}");
        let after = fs::metadata(&case.path).and_then(|metadata| metadata.modified()).expect("a time");
        assert_eq!(before, after);
    }

    #[test]
    fn a_setting_without_a_line_is_appended_once() {
        let case = case("port 7000\n");
        case.store.set(&[("requirepass", "two \"words\""), ("save", "")]).expect("valid");
        let first = "port 7000\n# Written by CONFIG REWRITE\nrequirepass \"two \\\"words\\\"\"\nsave \"\"\n";
        assert_eq!(case.rewritten(), first);
        case.store.set(&[("timeout", "9")]).expect("valid");
        assert_eq!(case.rewritten(), format!("{first}timeout 9\n"));
    }

    #[test]
    fn several_lines_of_one_setting_become_one() {
        let case = case("save 1 2\nport 7000\nsave 3 4\nmaxclients 1\nmax_connections=2\n");
        case.store.set(&[("save", "5 6 7 8"), ("maxclients", "3")]).expect("valid");
        assert_eq!(case.rewritten(), "port 7000\nsave 5 6 7 8\nmax_connections=3\n");
    }

    #[test]
    fn a_value_goes_back_under_the_name_and_words_of_its_line() {
        let case = case("appendfsync always\n");
        case.store.set(&[("durability", "none")]).expect("valid");
        assert_eq!(case.rewritten(), "appendfsync no\n");
    }

    #[test]
    fn flags_are_written_too() {
        let flag = Directive { line: 0, name: "port".to_owned(), values: vec!["7001".to_owned()] };
        let case = case_with("port 7000\n", vec![flag]);
        assert_eq!(case.rewritten(), "port 7001\n");
    }

    #[test]
    fn a_later_include_does_not_override_what_was_written() {
        let case = case("timeout 1\n");
        fs::write(case.directory.path().join("other.conf"), "timeout 7\n").expect("written");
        fs::write(&case.path, "timeout 1\ninclude other.conf\n").expect("written");
        case.store.set(&[("timeout", "3")]).expect("valid");
        assert_eq!(case.rewritten(), "timeout 3\ninclude other.conf\n# Written by CONFIG REWRITE\ntimeout 3\n");
    }

    #[test]
    fn permissions_and_a_symbolic_link_stay_and_nothing_is_left_beside() {
        let case = case("timeout 1\n");
        fs::set_permissions(&case.path, Permissions::from_mode(0o640)).expect("set");
        let link = case.directory.path().join("link.conf");
        symlink(&case.path, &link).expect("linked");
        let store = load(&link, Vec::new());
        store.set(&[("timeout", "4")]).expect("valid");
        store.rewrite().expect("rewritten");
        assert_eq!(fs::read_to_string(&case.path).expect("read"), "timeout 4\n");
        assert_eq!(fs::metadata(&case.path).expect("there").permissions().mode() & 0o777, 0o640);
        assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
        let names: BTreeSet<_> = fs::read_dir(case.directory.path())
            .expect("listed")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }

    #[test]
    fn without_a_file_it_is_refused() {
        let store = SettingsStore::load(Sources::default()).expect("valid");
        let error = store.rewrite().expect_err("no file");
        assert_eq!(error.reply(), "ERR The server is running without a config file");
    }

    #[test]
    fn a_file_that_was_broken_in_the_meantime_is_left_alone() {
        let case = case("timeout 1\n");
        fs::write(&case.path, "timeout 1\nnosuch 1\n").expect("written");
        case.store.set(&[("timeout", "4")]).expect("valid");
        assert!(case.store.rewrite().is_err());
        assert_eq!(fs::read_to_string(&case.path).expect("read"), "timeout 1\nnosuch 1\n");
    }
}
