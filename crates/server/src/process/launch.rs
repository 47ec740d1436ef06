//! From the command line to the running server, and to the exit code.
//!
//! ```text
//! arguments -> settings -> (background) -> messages, signals -> run -> exit code
//! ```
//!
//! Everything that can be wrong with the settings is found before anything is made on disk. What runs and what checks
//! are given by `main`, so that this is the same for every build of them.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use super::daemon::{Starter, detach};
use super::{Exit, Process, end_before_start, say};
use crate::settings::arguments::{Invocation, RepairArguments, RestoreArguments, Surroundings, read};
use crate::settings::{Settings, SettingsStore, Sources, document};

/// The line that `--version` prints. Tools that look for the version of a Redis server find the one whose protocol this is.
const VERSION: &str = concat!("Bowline kv_server ", env!("CARGO_PKG_VERSION"), " (replies as Redis server v=7.2.4)");

/// What the process is for.
pub struct Purposes {
    /// Serves until it is asked to end.
    pub run: fn(Arc<SettingsStore>, Process) -> Exit,
    /// Restores a backup into the data directory.
    pub restore: fn(Arc<SettingsStore>, Process, &RestoreArguments) -> Exit,
    /// Verifies the files of a data directory, prints what it finds, and changes nothing.
    pub check: fn(&Path, &Settings) -> Exit,
    /// Prints what the blocks of a block file, or of that in a data directory, are used for.
    pub inspect: fn(&Path, &Settings) -> Exit,
    /// Says what is damaged in a data directory and what a repair would lose, and repairs it after a yes.
    pub repair: fn(&RepairArguments, Settings) -> Exit,
}

/// Does what the command line asks for. To be called first in `main`, as `--daemonize` needs a process without threads.
pub fn launch(arguments: impl IntoIterator<Item = OsString>, purposes: &Purposes) -> ExitCode {
    let directory = match std::env::current_dir() {
        Ok(directory) => directory,
        // Paths that are absolute work all the same; others fail where they are opened, by name.
        Err(_) => PathBuf::new(),
    };
    let surroundings = Surroundings {
        arguments: arguments.into_iter().collect(),
        variable: &|name| std::env::var(name).ok(),
        directory,
        // Not locked: a repair asks there.
        standard_input: &mut io::stdin(),
    };
    let exit = match read(surroundings) {
        Ok(Invocation::Run(sources)) => return ExitCode::from(serve(sources, true, purposes.run)),
        Ok(Invocation::Restore(sources, arguments)) => {
            let restore = |settings, process| (purposes.restore)(settings, process, &arguments);
            return ExitCode::from(serve(sources, false, restore));
        }
        Ok(Invocation::Check(sources, path)) => with(&sources, |settings| (purposes.check)(&path, &settings)),
        Ok(Invocation::Inspect(sources, path)) => with(&sources, |settings| (purposes.inspect)(&path, &settings)),
        Ok(Invocation::Repair(sources, arguments)) => {
            with(&sources, |settings| (purposes.repair)(&arguments, settings))
        }
        Ok(Invocation::Help) => print(&document::help()),
        Ok(Invocation::Version) => print(&format!("{VERSION}\n")),
        Ok(Invocation::ExampleFile) => print(&document::example_file()),
        Ok(Invocation::SettingsTable) => print(&document::markdown_table()),
        Err(error) => Exit::Usage(error.to_string()),
    };
    if let Some(message) = exit.message() {
        say(message);
    }
    ExitCode::from(exit.code())
}

/// Does something with the files that the settings name.
fn with(sources: &Sources, act: impl FnOnce(Settings) -> Exit) -> Exit {
    sources.load().map_or_else(|error| Exit::Usage(error.to_string()), act)
}

fn print(text: &str) -> Exit {
    match io::stdout().write_all(text.as_bytes()) {
        // Who reads only the first lines has seen what they wanted.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Exit::StartFailed(format!("cannot write to the standard output: {error}"))
        }
        _ => Exit::Ok,
    }
}

/// Runs with these settings; in the background only what `may_detach`.
fn serve(sources: Sources, may_detach: bool, run: impl FnOnce(Arc<SettingsStore>, Process) -> Exit) -> u8 {
    let settings = match SettingsStore::load(sources) {
        Ok(settings) => Arc::new(settings),
        Err(error) => return end_before_start(None, &Exit::Usage(error.to_string())),
    };
    let mut starter: Option<Starter> = None;
    let current = settings.current();
    if current.daemonize && may_detach {
        if current.message_file().is_none() {
            say("messages of the daemon are lost, as it has no logfile: give it one with --logfile");
        }
        match detach() {
            Ok(detached) => starter = Some(detached),
            Err(error) => return end_before_start(None, &Exit::StartFailed(error.to_string())),
        }
    }
    let process = match Process::start(&settings, &mut starter) {
        Ok(process) => process,
        Err(error) => return end_before_start(starter, &Exit::StartFailed(error.to_string())),
    };
    let exit = run(settings, process.clone());
    process.end(&exit)
}
