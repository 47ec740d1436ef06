//! What was acknowledged before a power cut is there after it, wherever the cut falls.
//!
//! Method: a seeded workload; the power goes off before storage call k, for every k; synced bytes and a random part of
//! the rest are kept; the log is opened again, perhaps cut once more meanwhile, and compared with a model.
//!
//! Replay a failure with the line it prints, `SEED=<n> CUT=<k> cargo test -p bowline-sim --test crash`;
//! `SEEDS=<count>` runs more seeds than the everyday few.

use bowline_sim::crash::log::{check_cut, check_failure, undisturbed};
use bowline_sim::crash::{Problem, Replay};
use bowline_sim::disk::Failure;

const SEEDS: u64 = 6;
const IMAGES: u64 = 3;

fn number_from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text:?}")))
}

/// The seeds to run: the one asked for, or the first ones.
fn seeds() -> std::ops::Range<u64> {
    match number_from_environment("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number_from_environment("SEEDS").unwrap_or(SEEDS),
    }
}

/// Runs `check` for every storage call of every seed, or for the one that `fault` in the environment names.
fn for_every_call(fault: &'static str, check: impl Fn(u64, u64) -> Result<(), Problem>) {
    let asked = number_from_environment(fault);
    let mut checked = 0;
    for seed in seeds() {
        let (calls, _) = undisturbed(seed).unwrap_or_else(|problem| panic!("{problem}; SEED={seed}, no fault"));
        let wanted = |call: &u64| asked.is_none_or(|asked| asked == *call);
        for call in (0..=calls.len() as u64).filter(wanted) {
            let replay = Replay { seed, call, fault };
            let at = calls.get(call as usize).map_or_else(|| "the end".to_owned(), ToString::to_string);
            check(seed, call).unwrap_or_else(|problem| panic!("{problem}\n  at {at}\n  {replay}"));
            checked += 1;
        }
    }
    assert!(checked > 0, "no storage call was checked");
}

#[test]
fn acknowledged_writes_survive_a_power_cut_at_every_storage_call() {
    for_every_call("CUT", |seed, call| check_cut(seed, call, IMAGES, None));
}

#[test]
fn acknowledged_writes_survive_any_storage_call_failing_once() {
    for_every_call("EIO", |seed, call| check_failure(seed, call, Failure::Eio, None));
}

#[test]
fn acknowledged_writes_survive_any_storage_call_finding_the_disk_full() {
    for_every_call("ENOSPC", |seed, call| check_failure(seed, call, Failure::Enospc, None));
}
