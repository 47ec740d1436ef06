//! `kv_server --restore FILE`: makes the data directory from a backup, and from the archive up to a version or a moment.
//!
//! It does not serve afterwards: whoever restores looks first. Not here: how a restore works (crate `bowline`).

use std::cell::Cell;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bowline::snapshot::Moment;
use bowline::{Error, RestoreError, RestoreProgress, RestoreRequest, Restored};

use crate::process::{Exit, Process};
use crate::run;
use crate::settings::SettingsStore;
use crate::settings::arguments::RestoreArguments;

/// How often it is said how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// Restores what `arguments` name into the directory of `settings`, and prints what it was.
pub fn restore(settings: Arc<SettingsStore>, process: Process, arguments: &RestoreArguments) -> Exit {
    let settings = settings.current();
    let options = run::options(&settings, &process);
    let archive = options.archive.as_ref().map(|archive| archive.directory.clone());
    let request = RestoreRequest { snapshot: arguments.snapshot.clone(), archive, target: arguments.target };
    tracing::info!(
        snapshot = %request.snapshot.display(),
        directory = %options.directory.display(),
        target = %request.target,
        "restores"
    );
    let told = Cell::new(Instant::now());
    let progress = |progress: RestoreProgress| {
        if told.get().elapsed() >= PROGRESS_EVERY {
            told.set(Instant::now());
            let text = describe_progress(progress);
            tracing::info!("{text}");
            process.status(&text);
        }
    };
    match bowline::restore(&options, &request, &progress) {
        Ok(restored) => {
            let text = describe(&restored, &options.directory);
            tracing::info!("{text}");
            // Who does not read it finds it in the messages.
            let _ = writeln!(io::stdout(), "{text}");
            Exit::Ok
        }
        Err(error) => exit_of(&error),
    }
}

fn describe_progress(progress: RestoreProgress) -> String {
    match progress {
        RestoreProgress::Loading { entries, of } => format!("reads the backup: {entries} of {of} entries"),
        RestoreProgress::Replaying(done) => {
            format!("replays the archive: {} of at most {} bytes", done.bytes_done, done.bytes_total)
        }
        RestoreProgress::Writing { segments, of } => format!("writes the store: part {segments} of {of}"),
    }
}

fn describe(restored: &Restored, directory: &std::path::Path) -> String {
    let past: Vec<String> = restored.past.iter().map(ToString::to_string).collect();
    format!(
        "restored into {}: {} entries at version {} ({}); the backup's cut is version {} ({}), {} commands were replayed \
         after it; past of {}; the new store is {}",
        directory.display(),
        restored.entries,
        restored.version,
        Moment(restored.version.time_ms()),
        restored.cut,
        Moment(restored.cut.time_ms()),
        restored.records,
        past.join(", then "),
        restored.store_id,
    )
}

fn exit_of(error: &RestoreError) -> Exit {
    let text = error.to_string();
    match error {
        RestoreError::Store(Error::Locked { .. }) => Exit::Locked(text),
        RestoreError::Snapshot { source, .. } => match source {
            bowline::snapshot::SnapshotError::Io(_) => Exit::StartFailed(text),
            _ => Exit::Damaged(text),
        },
        RestoreError::Store(Error::Corrupt { .. } | Error::FormatTooNew { .. }) => Exit::Damaged(text),
        RestoreError::Archive(bowline::log::archive::ArchiveError::Store(
            Error::Corrupt { .. } | Error::FormatTooNew { .. },
        )) => Exit::Damaged(text),
        _ => Exit::StartFailed(text),
    }
}
