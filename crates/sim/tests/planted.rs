//! The test of the crash tests: each mistake that is planted on purpose must be found.

use bowline_sim::crash::Mistake;
use bowline_sim::crash::log::{check_cut, check_failure, undisturbed};
use bowline_sim::disk::Failure;
use bowline_sim::disk::lying::Lie;

const SEEDS: u64 = 20;

/// Whether `check` finds a problem at some storage call of some seed.
fn is_found(check: impl Fn(u64, u64) -> bool) -> bool {
    (0..SEEDS).any(|seed| {
        let (calls, _) = undisturbed(seed).expect("the run without a mistake is right");
        (0..=calls.len() as u64).any(|call| check(seed, call))
    })
}

fn power_cuts_find(mistake: Mistake) -> bool {
    is_found(|seed, call| check_cut(seed, call, 3, Some(mistake)).is_err())
}

#[test]
fn a_skipped_sync_is_found() {
    assert!(power_cuts_find(Mistake::Disk(Lie::SkipSync)));
}

#[test]
fn a_skipped_directory_sync_is_found() {
    assert!(power_cuts_find(Mistake::Disk(Lie::SkipDirectorySync)));
}

#[test]
fn an_acknowledgement_before_the_commit_is_found() {
    assert!(power_cuts_find(Mistake::AcknowledgeEarly));
}

#[test]
fn a_second_sync_after_a_failed_one_is_found() {
    let mistake = Some(Mistake::Disk(Lie::RetrySync));
    assert!(is_found(|seed, call| check_failure(seed, call, Failure::Eio, mistake).is_err()));
}
