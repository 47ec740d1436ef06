//! `kv_server --check` of what a restore reads: a backup file, an archive of log files. Reads only.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use bowline::disk::OsDisk;
use bowline::log::archive::{Archive, ArchiveError, ArchiveLine, Limit, ReplayFrom, ReplayRequest, StoreId};
use bowline::snapshot::{Header, Moment, SnapshotError};
use bowline::{Error, Version};

use crate::process::Exit;

/// Verifies a backup: every checksum, every record, the totals.
pub(crate) fn check_backup(path: &Path) -> Exit {
    match bowline::snapshot::check(&OsDisk, path) {
        Ok((header, totals)) => {
            let Header { cut_version, taken_at_ms, .. } = header;
            let _ = writeln!(
                io::stdout(),
                "backup {}: {} entries at version {cut_version}, the state of {}, of store {}\nsound: it can be restored",
                path.display(),
                totals.records,
                Moment(taken_at_ms),
                StoreId(header.store_id),
            );
            Exit::Ok
        }
        Err(SnapshotError::Io(error)) => Exit::StartFailed(format!("cannot read {}: {error}", path.display())),
        Err(error) => Exit::Damaged(format!("{}: {error}", path.display())),
    }
}

/// Whether `directory` holds archived log files; those of a running log have shorter names.
pub(crate) fn is_archive(directory: &Path) -> bool {
    let names = std::fs::read_dir(directory).into_iter().flatten().flatten();
    names.filter_map(|name| name.file_name().into_string().ok()).any(|name| {
        let (id, rest) = name.split_at_checked(32).unwrap_or_default();
        id.bytes().all(|digit| digit.is_ascii_hexdigit()) && rest.starts_with('-') && rest.ends_with(".log")
    })
}

/// Verifies an archive: for every store in it that its files are whole and follow one another.
pub(crate) fn check_archive(directory: &Path) -> Exit {
    let archive = match Archive::open(Arc::new(OsDisk), directory) {
        Ok(archive) => archive,
        Err(error @ (Error::Corrupt { .. } | Error::FormatTooNew { .. })) => return Exit::Damaged(error.to_string()),
        Err(error) => return Exit::StartFailed(error.to_string()),
    };
    let mut exit = Exit::Ok;
    for line in archive.lines() {
        let text = match check_line(&archive, line) {
            Ok(text) => text,
            Err(error) => {
                exit = Exit::Damaged(error.to_string());
                format!("store {}: damage: {error}", line.store_id)
            }
        };
        let _ = writeln!(io::stdout(), "{text}");
    }
    for path in archive.files_with_damaged_headers() {
        let text = format!("{} is damaged: its header does not fit its checksum", path.display());
        let _ = writeln!(io::stdout(), "{text}");
        exit = Exit::Damaged(text);
    }
    exit
}

fn check_line(archive: &Archive, line: &ArchiveLine) -> Result<String, ArchiveError> {
    let position = line.files.first().map(|file| file.header.start_position);
    let from = ReplayFrom { position, after: Version::ZERO };
    let request = ReplayRequest { store_id: line.store_id, from, upto: Limit::End };
    let mut first = None;
    let mut visit = |frame: bowline::log::ReplayFrame| {
        first = first.or(Some(frame.first_version));
        frame.records().try_for_each(|record| record.map(|_| ()))
    };
    let end = archive.replay(&request, &mut visit, &|_| {})?;
    Ok(format!(
        "store {}: {} files, {} commands from version {} to version {} ({}): sound",
        line.store_id,
        end.files,
        end.records,
        first.unwrap_or_default(),
        end.version,
        Moment(end.version.time_ms()),
    ))
}
