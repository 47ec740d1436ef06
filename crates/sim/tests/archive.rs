//! The archive of log files through power cuts and failing calls, at every storage call of a seeded workload.
//!
//! Replay a failure with the line that it prints; `SEEDS=<count>` runs more seeds than the everyday few, starting at
//! `FIRST_SEED` (0 unless set).

use bowline_sim::crash::archive::{DIRECTORY, Forgotten, check_cut, check_failure, undisturbed};
use bowline_sim::crash::number_from_environment;
use bowline_sim::crash::{Problem, Replay};
use bowline_sim::disk::{CallKind, Failure};

const SEEDS: u64 = 4;
const IMAGES: u64 = 3;

fn seeds() -> std::ops::Range<u64> {
    if let Some(seed) = number_from_environment("SEED") {
        return seed..seed + 1;
    }
    let first = number_from_environment("FIRST_SEED").unwrap_or(0);
    first..first + number_from_environment("SEEDS").unwrap_or(SEEDS)
}

/// Runs `check` for every storage call of every seed, or for the one that `fault` in the environment names.
fn for_every_call(fault: &'static str, test: &'static str, check: impl Fn(u64, u64) -> Result<(), Problem>) {
    let asked = number_from_environment(fault);
    let (mut checked, images) = (0, if fault == "CUT" { IMAGES } else { 1 });
    for seed in seeds() {
        let calls = undisturbed(seed).unwrap_or_else(|problem| panic!("{problem}\n  SEED={seed}, nothing failing"));
        for call in (0..=calls.len() as u64).filter(|call| asked.is_none_or(|asked| asked == *call)) {
            let at = calls.get(call as usize).map_or_else(|| "the end".to_owned(), ToString::to_string);
            let replay = Replay { seed, call, fault, suite: "archive", test };
            check(seed, call).unwrap_or_else(|problem| panic!("{problem}\n  at {at}\n  {replay}"));
            checked += 1;
        }
    }
    println!("{test}: {checked} storage calls, {} images", checked * images);
}

/// A crash test proves nothing about what its workload never does.
#[test]
fn the_workload_archives_recycles_and_removes() {
    let (mut renamed, mut removed) = (0, 0);
    for seed in 0..4 * SEEDS {
        let calls = undisturbed(seed).expect("nothing fails");
        let in_archive = |kind| calls.iter().filter(move |call| call.kind == kind && call.path.starts_with(DIRECTORY));
        renamed += in_archive(CallKind::Rename).count() as u64;
        removed += in_archive(CallKind::Remove).count() as u64;
    }
    assert!(renamed >= 16 * SEEDS, "{renamed} files were archived in {} runs", 4 * SEEDS);
    assert!(removed >= SEEDS, "{removed} archived files were removed in {} runs", 4 * SEEDS);
}

#[test]
fn the_archive_survives_a_power_cut_at_every_storage_call() {
    let test = "the_archive_survives_a_power_cut";
    for_every_call("CUT", test, |seed, call| check_cut(seed, call, IMAGES, None));
}

#[test]
fn the_archive_survives_any_storage_call_failing_once() {
    let test = "the_archive_survives_any_storage_call_failing";
    for_every_call("EIO", test, |seed, call| check_failure(seed, call, Failure::Eio));
}

#[test]
fn the_archive_survives_any_storage_call_finding_the_disk_full() {
    let test = "the_archive_survives_any_storage_call_finding";
    for_every_call("ENOSPC", test, |seed, call| check_failure(seed, call, Failure::Enospc));
}

fn assert_found(forgotten: Forgotten) {
    let found = (0..20).any(|seed| {
        let calls = undisturbed(seed).expect("the run without a mistake is right").len() as u64;
        (0..=calls).any(|call| check_cut(seed, call, 3, Some(forgotten)).is_err())
    });
    assert!(found, "the crash test does not find a forgotten {forgotten:?}");
}

#[test]
fn a_copy_named_before_it_is_durable_is_found() {
    assert_found(Forgotten::Sync);
}

#[test]
fn a_file_given_up_before_the_name_of_its_copy_is_durable_is_found() {
    assert_found(Forgotten::DirectorySync);
}
