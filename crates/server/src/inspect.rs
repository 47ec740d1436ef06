//! `kv_server --inspect DIR`: what the blocks of a block file are used for. Changes nothing.
//!
//! Not here: whether they are sound (`check`).

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;

use bowline::blocks::{FoundSuperblocks, Inspection, Superblock, ValueBytes};
use bowline::disk::OsDisk;
use bowline::log::archive::StoreId;
use bowline::snapshot::Moment;

use crate::check::{exit_of, paths_in, shared_lock};
use crate::process::Exit;
use crate::settings::Settings;

/// Width of the longest bar of the picture.
const BAR: u64 = 40;

/// Prints superblock, use of blocks, fill of extents, index and the biggest entries of the block file at `path`, or in
/// the data directory there. Ends as [`check`](crate::check::check) does.
pub fn inspect(path: &Path, settings: &Settings) -> Exit {
    let (block_file, directory) = match path.is_dir() {
        true => (paths_in(path, settings).block_file, path),
        false => (path.to_owned(), path.parent().unwrap_or(path)),
    };
    let found = shared_lock(directory).and_then(|_lock| bowline::inspect_block_file(&OsDisk, &block_file));
    match found {
        Ok((superblock, found, inspection)) => {
            let text = describe(&block_file, &superblock, found, &inspection);
            let _ = io::stdout().write_all(text.as_bytes());
            Exit::Ok
        }
        Err(error) => exit_of(&error, "--inspect"),
    }
}

fn describe(path: &Path, superblock: &Superblock, found: FoundSuperblocks, inspection: &Inspection) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "block file {}", path.display());
    let size = u64::from(superblock.file_blocks) * u64::from(superblock.block_bytes);
    let grows = if superblock.auto { "grows by itself" } else { "fixed size" };
    let _ = writeln!(text, "  {size} bytes, {} blocks of {}, {grows}", superblock.file_blocks, superblock.block_bytes);
    let _ = writeln!(text, "  of store {}", StoreId(superblock.identity.store_id));
    if superblock.parent_store_id != [0; 16] {
        let (parent, fork) = (StoreId(superblock.parent_store_id), superblock.fork_version);
        let _ = writeln!(text, "  made from store {parent}, whose changes it has up to version {fork}");
    }
    let at = Moment(superblock.cut.time_ms());
    let _ = writeln!(text, "  checkpoint {} at version {} ({at})", superblock.sequence, superblock.cut);
    match found.older {
        Some((sequence, cut)) => writeln!(text, "  the other superblock: checkpoint {sequence} at version {cut}"),
        None => writeln!(text, "  the other superblock is not valid"),
    }
    .unwrap_or_default();
    let _ = writeln!(text, "  log position {}, {} entries", superblock.log_position, superblock.entries);
    let all: u64 = inspection.blocks.iter().map(|(_, count)| count).sum();
    let free = inspection.blocks.iter().find(|(name, _)| *name == "free").map_or(0, |(_, count)| *count);
    let _ = writeln!(
        text,
        "  {} of {all} blocks in use ({:.1} %), records live in {} bytes",
        all - free,
        percent(all - free, all),
        superblock.live_bytes,
    );
    let _ = writeln!(text, "\nblocks");
    bars(&mut text, inspection.blocks.iter().map(|(name, count)| ((*name).to_owned(), *count)));
    let _ = writeln!(text, "\ndata extents by the part of them that lives");
    let fill = inspection.extent_fill.iter().enumerate();
    bars(&mut text, fill.map(|(tenth, count)| (format!("{:>3} to {:>3} %", tenth * 10, tenth * 10 + 10), *count)));
    let _ = writeln!(text, "\nvalues");
    for (name, values) in &inspection.values {
        let ValueBytes { count, plain_bytes, stored_bytes } = *values;
        let percent = (stored_bytes * 100).checked_div(plain_bytes).unwrap_or(100);
        let _ = writeln!(text, "  {name:<16} {count:>10}  {plain_bytes} bytes, stored in {stored_bytes} ({percent} %)");
    }
    if inspection.dictionary_bytes > 0 {
        let _ = writeln!(text, "  a dictionary of {} bytes", inspection.dictionary_bytes);
    }
    let (fewest, most) = inspection.leaf_entries;
    let mean = superblock.entries as f64 / inspection.leaves.max(1) as f64;
    let _ = writeln!(text, "\nindex: {} leaves of {fewest} to {most} entries, {mean:.0} on average", inspection.leaves);
    let index = inspection.blocks.iter().find(|(name, _)| *name == "index").map_or(0, |(_, count)| *count);
    let bytes = index * u64::from(superblock.block_bytes);
    let each = bytes as f64 / superblock.entries.max(1) as f64;
    let _ = writeln!(text, "  {bytes} bytes, {each:.1} for each entry");
    for (database, entries) in &inspection.databases {
        let _ = writeln!(text, "  database id {}: {entries} entries", database.0);
    }
    let _ = writeln!(text, "\nbiggest entries");
    for (database, key, bytes) in &inspection.biggest {
        let key: String = key.escape_ascii().to_string().chars().take(80).collect();
        let _ = writeln!(text, "  {bytes:>12} bytes  database id {}  {key}", database.0);
    }
    text
}

fn percent(part: u64, all: u64) -> f64 {
    part as f64 * 100.0 / all.max(1) as f64
}

/// A line with a bar for each count.
fn bars(text: &mut String, counts: impl Iterator<Item = (String, u64)>) {
    let counts: Vec<(String, u64)> = counts.collect();
    let most = counts.iter().map(|(_, count)| *count).max().unwrap_or(0).max(1);
    let all = counts.iter().map(|(_, count)| *count).sum();
    for (name, count) in counts {
        let bar = "#".repeat(usize::try_from((count * BAR).div_ceil(most)).unwrap_or(0));
        let share = percent(count, all);
        let _ = writeln!(text, "  {name:<14} {count:>10} {share:>5.1} %  {bar}");
    }
}
