//! The test of the crash tests: each mistake that is planted on purpose must be found.
//!
//! The mistakes are planted in the disk that the engine sees ([`bowline_sim::disk::lying`]) or in what counts as
//! acknowledged; the engine's code is the one that ships. Without a mistake the same seeds pass (`crash.rs`).

use bowline_sim::crash::{Mistake, Problem, log, store};
use bowline_sim::disk::Failure;
use bowline_sim::disk::lying::Lie;

const SEEDS: u64 = 20;

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
