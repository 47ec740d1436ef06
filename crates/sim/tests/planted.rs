//! The test of the crash tests: each mistake that is planted on purpose must be found.
//!
//! The mistakes are planted in the disk that the engine sees ([`bowline_sim::disk::lying`]) or in what counts as
//! acknowledged; the engine's code is the one that ships. Without a mistake the same seeds pass (`crash.rs`).

use bowline::Error;
use bowline_sim::crash::{Mistake, Problem, log, store};
use bowline_sim::disk::Failure;
use bowline_sim::disk::lying::Lie;

const SEEDS: u64 = 20;
/// Runs with checkpoints for each mistake in them; every storage call of each.
const CHECKPOINT_SEEDS: u64 = 2;

/// The problem that `check` finds first, over the storage calls of some seeds.
fn first_problem(check: impl Fn(u64, u64) -> Result<(), Problem>) -> Option<Problem> {
    (0..SEEDS).find_map(|seed| {
        let (calls, _) = log::undisturbed(seed).expect("the run without a mistake is right");
        (0..=calls.len() as u64).find_map(|call| check(seed, call).err())
    })
}

/// Power cuts find the mistake in the log alone, and in the whole store.
fn assert_power_cuts_find(mistake: Mistake) {
    let in_the_log = first_problem(|seed, call| log::check_cut(seed, call, 3, Some(mistake)));
    assert!(in_the_log.is_some(), "the log's crash test does not find {mistake:?}");
    let in_the_store = first_problem(|seed, call| store::check_cut(seed, call, 3, Some(mistake)));
    assert!(in_the_store.is_some(), "the store's crash test does not find {mistake:?}");
}

#[test]
fn a_skipped_sync_is_found() {
    assert_power_cuts_find(Mistake::Disk(Lie::SkipSync));
}

#[test]
fn a_skipped_directory_sync_is_found() {
    assert_power_cuts_find(Mistake::Disk(Lie::SkipDirectorySync));
}

#[test]
fn an_acknowledgement_before_the_commit_is_found() {
    assert_power_cuts_find(Mistake::AcknowledgeEarly);
}

#[test]
fn an_ignored_checksum_is_found() {
    assert_power_cuts_find(Mistake::Disk(Lie::IgnoreChecksum));
}

#[test]
fn a_frame_taken_from_a_recycled_file_is_found() {
    assert_power_cuts_find(Mistake::Disk(Lie::TakeRecycledFrame));
}

#[test]
fn a_second_sync_after_a_failed_one_is_found() {
    let mistake = Some(Mistake::Disk(Lie::RetrySync));
    let problem = first_problem(|seed, call| log::check_failure(seed, call, Failure::Eio, mistake));
    assert!(problem.is_some());
}

/// What power cuts over some seeds find wrong with a store on a disk that lies so.
fn problems_of_the_store(lie: Lie) -> Vec<(u64, u64, Problem)> {
    let calls_of = |seed| store::undisturbed(seed).expect("the run without a mistake is right").0.len() as u64;
    let cuts = (0..CHECKPOINT_SEEDS).flat_map(|seed| (0..=calls_of(seed)).map(move |call| (seed, call)));
    let found = |(seed, call)| Some((seed, call, store::check_cut(seed, call, 2, Some(Mistake::Disk(lie))).err()?));
    cuts.filter_map(found).collect()
}

/// Whether the store saw the damage itself, and said so.
fn is_refusal(problem: &Problem) -> bool {
    matches!(problem, Problem::Refused(Error::Corrupt { .. } | Error::NotLoaded { .. }) | Problem::Damaged(_))
}

/// Power cuts find the mistake; all that ever follows from it is that the store says what is damaged.
fn assert_refused(lie: Lie) {
    let problems = problems_of_the_store(lie);
    assert!(!problems.is_empty(), "the store's crash test does not find {lie:?}");
    for (seed, call, problem) in &problems {
        assert!(is_refusal(problem), "{lie:?} is not seen by the store itself: {problem}; SEED={seed} CUT={call}");
    }
}

#[test]
fn a_block_file_that_is_never_synced_is_found_and_refused() {
    assert_refused(Lie::SkipBlockSync);
}

#[test]
fn a_superblock_that_is_written_before_what_it_leads_to_is_found_and_refused() {
    assert_refused(Lie::SkipSyncBeforeSuperblock);
}

#[test]
fn a_superblock_that_is_not_durable_when_the_log_names_it_is_found_and_refused() {
    assert_refused(Lie::SkipSyncAfterSuperblock);
}

#[test]
fn a_superblock_that_was_never_written_is_found_and_refused() {
    assert_refused(Lie::LoseSuperblock);
}

#[test]
fn an_older_superblock_in_place_of_the_newest_is_found_and_refused() {
    assert_refused(Lie::HideNewestSuperblock);
}

#[test]
fn stale_blocks_of_the_block_file_are_found_and_refused() {
    assert_refused(Lie::StaleBlocks);
}

/// History 15 without its rule: what the older superblock leads to is taken for the newest checkpoint.
#[test]
fn a_log_that_does_not_name_the_newest_checkpoint_is_found() {
    let problems = problems_of_the_store(Lie::HideNewestSuperblockUnnamed);
    let lost = |problem: &Problem| matches!(problem, Problem::Lost { .. } | Problem::State(_));
    assert!(problems.iter().any(|(.., problem)| lost(problem)), "no image shows an older state: {problems:?}");
}

#[test]
fn a_checkpoint_that_the_log_was_not_told_of_is_found() {
    // It shows where a file was given up that the header still names: not in every run.
    let calls_of = |seed| store::undisturbed(seed).expect("the run without a mistake is right").0.len() as u64;
    let mut cuts = (0..SEEDS).flat_map(|seed| (0..=calls_of(seed)).map(move |call| (seed, call)));
    let mistake = Some(Mistake::Disk(Lie::LoseCheckpointNote));
    assert!(cuts.any(|(seed, call)| store::check_cut(seed, call, 2, mistake).is_err()));
}
