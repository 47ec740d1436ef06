//! `kv_server --repair DIR`: says what is damaged and what would be lost, asks, and makes a new store of everything that
//! can be read. Never by itself.
//!
//! Not here: how damaged files are read and how the new ones take their place (crate `bowline`).

use std::fmt::Write as _;
use std::io::{self, BufRead, IsTerminal, Write};

use bowline::log::LogCut;
use bowline::snapshot::Moment;
use bowline::{Basis, Error, Gap, RepairError, RepairReport, Repaired, Version, plan_repair};

use crate::check::paths_in;
use crate::process::{Exit, Process};
use crate::run;
use crate::settings::Settings;
use crate::settings::arguments::RepairArguments;

/// Damaged places, lost entries and ranges that are printed of each.
const SHOWN: usize = 20;
/// Longest part of a key that is printed.
const KEY_CHARACTERS: usize = 80;

/// Repairs the data directory after a yes.
///
/// Ends with [`Exit::Ok`] when the store is sound, before or after it; with [`Exit::NotRepaired`] when nobody said yes.
pub fn repair(arguments: &RepairArguments, mut settings: Settings) -> Exit {
    let directory = arguments.directory.clone();
    if !directory.is_dir() {
        return Exit::StartFailed(format!("{} is no directory: give --repair a data directory", directory.display()));
    }
    let paths = paths_in(&directory, &settings);
    settings.dir.clone_from(&directory);
    let mut options = run::options(&settings, &Process::bare());
    (options.block_file, options.log_directory) = (Some(paths.block_file), Some(paths.log_directory.clone()));
    let plan = match plan_repair(&options) {
        Ok(Some(plan)) => plan,
        Ok(None) => {
            tell(&format!("sound: there is nothing to repair in {}\n", directory.display()));
            return Exit::Ok;
        }
        Err(error) => return exit_of(&error),
    };
    tell(&describe(plan.report(), &directory.display().to_string()));
    if !arguments.yes
        && let Err(exit) = ask()
    {
        return exit;
    }
    match plan.carry_out() {
        Ok(repaired) => {
            // It is empty; nobody misses it.
            let _ = std::fs::remove_dir(paths.log_directory.join("repaired"));
            tell(&describe_done(&repaired));
            Exit::Ok
        }
        Err(error) => exit_of(&error),
    }
}

/// Who reads only the first lines still gets the exit code.
fn tell(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

/// Asks on a terminal.
fn ask() -> Result<(), Exit> {
    if !io::stdin().is_terminal() {
        let text = "nothing was changed: answer on a terminal, or give --yes to agree to what is said above";
        return Err(Exit::NotRepaired(text.to_owned()));
    }
    tell("Repair it? Type yes: ");
    let _ = io::stdout().flush();
    let mut answer = String::new();
    match io::stdin().lock().read_line(&mut answer) {
        Ok(_) if answer.trim() == "yes" => Ok(()),
        _ => Err(Exit::NotRepaired("nothing was changed".to_owned())),
    }
}

fn exit_of(error: &RepairError) -> Exit {
    let text = error.to_string();
    match error {
        RepairError::Store(Error::Locked { .. }) => Exit::Locked(text),
        RepairError::Store(Error::Corrupt { .. } | Error::FormatTooNew { .. } | Error::RestoreUnfinished { .. })
        | RepairError::TwoStores { .. }
        | RepairError::NothingLeft { .. } => Exit::Damaged(text),
        _ => Exit::StartFailed(text),
    }
}

/// The first of many, and how many more there are. Writing to a String cannot fail.
fn list<T>(text: &mut String, all: &[T], one: impl Fn(&T) -> String) {
    for item in all.iter().take(SHOWN) {
        let _ = writeln!(text, "  {}", one(item));
    }
    if all.len() > SHOWN {
        let _ = writeln!(text, "  and {} more", all.len() - SHOWN);
    }
}

fn key_text(key: &[u8]) -> String {
    key.escape_ascii().to_string().chars().take(KEY_CHARACTERS).collect()
}

fn at(version: Version) -> String {
    format!("version {version} ({})", Moment(version.time_ms()))
}

fn describe(report: &RepairReport, directory: &str) -> String {
    let mut text = String::new();
    match report.store_id {
        Some(store_id) => writeln!(text, "store {store_id} in {directory} is damaged:"),
        None => writeln!(text, "the store in {directory} is damaged:"),
    }
    .unwrap_or_default();
    list(&mut text, &report.damage, ToString::to_string);
    let _ = writeln!(text, "\nA repair would keep {} entries, the state of {}:", report.entries, at(report.version));
    let _ = writeln!(text, "  {}", basis(report));
    let _ = writeln!(text, "  {} commands of the log after it", report.records);
    describe_sources(&mut text, report);
    if report.is_exact() {
        text.push_str("\nNothing that was acknowledged would be lost.\n");
    } else {
        text.push_str("\nIt would lose:\n");
        describe_losses(&mut text, report);
    }
    if let Some(damage) = &report.archive_damage {
        let _ = writeln!(text, "\nThe archive is damaged too, and a repair does not change it: {damage}");
    }
    text.push_str(
        "\nThe old files stay under names that end in .damaged-TIME. The new store has an identity of its own: take a\nnew backup of it; its archive begins anew.\n",
    );
    text
}

fn basis(report: &RepairReport) -> String {
    match report.basis {
        Basis::Checkpoint(cut) => format!("the newest checkpoint, of {}, which is whole", at(cut)),
        Basis::Rebuilt(cut) => format!("the newest checkpoint, of {}, whose superblock is put together again", at(cut)),
        Basis::Older(cut) => format!("the checkpoint before the newest, of {}, which is whole", at(cut)),
        Basis::Log => "the log alone, which has everything".to_owned(),
        Basis::Salvaged(cut) => format!("what can be read of the checkpoint of {}", at(cut)),
        Basis::Scanned => {
            "the newest record of each key that is found in the block file, which has no superblock".to_owned()
        }
        _ => "nothing but what the log says: there is no block file".to_owned(),
    }
}

fn describe_sources(text: &mut String, report: &RepairReport) {
    if report.marks_passed > 0 {
        let _ = writeln!(text, "  {} damaged frames of the log held nothing", report.marks_passed);
    }
    for path in &report.archived {
        let _ = writeln!(text, "  {} from the archive, in place of a damaged file", path.display());
    }
    if report.unchecked > 0 {
        let _ = writeln!(text, "  {} of the entries cannot be verified: their checksums are lost", report.unchecked);
    }
    if report.unnamed > 0 {
        let count = report.unnamed;
        let _ =
            writeln!(text, "  {count} of the entries were found without the index: some may have been removed before");
    }
    if report.databases_lost {
        text.push_str("  the numbers of the databases are lost: SELECT may lead to others than before\n");
    }
}

fn describe_losses(text: &mut String, report: &RepairReport) {
    match report.gap {
        Some(Gap::Between(from, to)) => writeln!(text, "  every change after {}, up to {}", at(from), at(to)),
        Some(Gap::After(cut)) => writeln!(text, "  every change after {}: there is no log", at(cut)),
        Some(Gap::Before(cut)) => writeln!(text, "  every entry written up to {} and not written again since", at(cut)),
        _ => Ok(()),
    }
    .unwrap_or_default();
    if let Some(LogCut { path, offset, frames, records, versions }) = &report.log_cut {
        let versions = versions.map_or_else(String::new, |(first, last)| format!(", {} to {}", at(first), at(last)));
        let path = path.display();
        let _ = writeln!(
            text,
            "  what the log says after {path} byte {offset}: at least {records} commands in {frames} frames{versions}"
        );
    }
    if !report.lost.is_empty() {
        let _ = writeln!(text, "  {} entries:", report.lost.len());
        list(text, &report.lost, |lost| match &lost.key {
            Some(key) => format!("  database id {}  {}", lost.database.0, key_text(key)),
            None => format!("  database id {}  hash {:016x}", lost.database.0, lost.hash),
        });
    }
    for range in report.lost_ranges.iter().take(SHOWN) {
        let (database, entries) = (range.database.0, range.entries);
        let (first, last) = (range.first_hash, range.last_hash);
        let _ = writeln!(
            text,
            "  the index of {entries} entries of database id {database}, hashes {first:016x} to {last:016x}: those whose records are there are kept",
        );
    }
    if report.lost_ranges.len() > SHOWN {
        let _ = writeln!(text, "  and {} more parts of the index", report.lost_ranges.len() - SHOWN);
    }
    if report.basis == Basis::Scanned {
        text.push_str("  the index: entries that were removed may come back\n");
    }
}

fn describe_done(repaired: &Repaired) -> String {
    let Repaired { store_id, entries, version, .. } = repaired;
    let mut text = format!("repaired: {entries} entries, {}; the new store is {store_id}\n", at(*version));
    list(&mut text, &repaired.put_aside, |path| format!("kept {}", path.display()));
    text
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::FileExt;
    use std::path::Path;

    use bowline::{Options, Store};

    use super::*;
    use crate::check::check;

    fn options(directory: &Path) -> Options {
        let mut options = Options::new(directory.to_owned());
        options.log_file_bytes = 1 << 20;
        options.log_buffer_bytes = 1 << 18;
        options
    }

    /// A directory whose block file has lost an entry.
    fn damaged() -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::open(options(directory.path())).expect("opened");
        let value = "v".repeat(3000);
        for number in 0..20 {
            store.put(format!("key:{number}").as_bytes(), format!("{value}{number}.").as_bytes()).expect("written");
        }
        store.close().expect("closed");
        let path = directory.path().join("store.blocks");
        let bytes = fs::read(&path).expect("read");
        let at = bytes.windows(4).position(|window| window == b"v13.").expect("in the block file");
        File::options().write(true).open(&path).expect("opened").write_all_at(b"w", at as u64).expect("damaged");
        // The log would have it.
        let log = directory.path().join("log/00000001.log");
        let file = File::options().write(true).open(log).expect("opened");
        file.write_all_at(&[0; 2000], 4096).expect("damaged");
        directory
    }

    fn arguments(directory: &Path, yes: bool) -> RepairArguments {
        RepairArguments { directory: directory.to_owned(), yes }
    }

    #[test]
    fn without_a_yes_nothing_is_changed() {
        let directory = damaged();
        let before = fs::read(directory.path().join("store.blocks")).expect("read");
        let exit = repair(&arguments(directory.path(), false), Settings::default());
        assert!(matches!(exit, Exit::NotRepaired(_)), "{exit:?}");
        assert!(fs::read(directory.path().join("store.blocks")).expect("read") == before);
        assert!(matches!(check(directory.path(), &Settings::default()), Exit::Damaged(_)));
    }

    #[test]
    fn with_a_yes_the_store_is_sound_again_and_the_rest_is_there() {
        let directory = damaged();
        assert_eq!(repair(&arguments(directory.path(), true), Settings::default()), Exit::Ok);
        assert_eq!(check(directory.path(), &Settings::default()), Exit::Ok);
        let store = Store::open(options(directory.path())).expect("opened");
        let there = (0..20).filter(|number| store.get(format!("key:{number}").as_bytes()).expect("read").is_some());
        let count = there.count();
        assert!((17..20).contains(&count), "{count}");
        store.close().expect("closed");
        assert_eq!(repair(&arguments(directory.path(), true), Settings::default()), Exit::Ok);
    }

    #[test]
    fn a_sound_directory_needs_no_answer() {
        let directory = tempfile::tempdir().expect("a directory");
        Store::open(options(directory.path())).expect("opened").close().expect("closed");
        assert_eq!(repair(&arguments(directory.path(), false), Settings::default()), Exit::Ok);
    }
}
