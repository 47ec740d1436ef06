//! What was acknowledged before a power cut is there after it, wherever the cut falls.
//!
//! Method: a seeded workload; the power goes off before storage call k, for every k; synced bytes and a random part of
//! the rest are kept; the log (or the whole store) is opened again, perhaps cut once more meanwhile, and compared with a
//! model. The same with call k failing once.
//!
//! Replay a failure with the line that it prints, `SEED=<n> CUT=<k> cargo test -p bowline-sim --test crash <test>`;
//! `SEEDS=<count>` runs more seeds than the everyday few, starting at `FIRST_SEED` (0 unless set).

use std::path::Path;

use bowline_sim::crash::number_from_environment;
use bowline_sim::crash::{Problem, Replay, log, store};
use bowline_sim::disk::{Call, CallKind, Failure};
use bowline_sim::machine::FILE_BYTES;

const SEEDS: u64 = 4;
const IMAGES: u64 = 3;

/// The seeds to run: the one asked for, or the first ones.
fn seeds() -> std::ops::Range<u64> {
    if let Some(seed) = number_from_environment("SEED") {
        return seed..seed + 1;
    }
    let first = number_from_environment("FIRST_SEED").unwrap_or(0);
    first..first + number_from_environment("SEEDS").unwrap_or(SEEDS)
}

/// Runs `check` for every storage call of every seed, or for the one that `fault` in the environment names.
fn for_every_call(
    (fault, test, images): (&'static str, &'static str, u64),
    undisturbed: impl Fn(u64) -> Result<Vec<Call>, Problem>,
    check: impl Fn(u64, u64) -> Result<(), Problem>,
) {
    let asked = number_from_environment(fault);
    let mut checked = 0;
    for seed in seeds() {
        let calls = undisturbed(seed).unwrap_or_else(|problem| panic!("{problem}\n  SEED={seed}, nothing failing"));
        for call in (0..=calls.len() as u64).filter(|call| asked.is_none_or(|asked| asked == *call)) {
            let replay = Replay { seed, call, fault, suite: "crash", test };
            let at = calls.get(call as usize).map_or_else(|| "the end".to_owned(), ToString::to_string);
            check(seed, call).unwrap_or_else(|problem| panic!("{problem}\n  at {at}\n  {replay}"));
            checked += 1;
        }
    }
    assert!(checked > 0, "no storage call was checked");
    println!("{test}: {checked} storage calls, {} images", checked * images);
}

/// How many states of the disk are opened for each storage call.
fn images_of(fault: &str) -> u64 {
    if fault == "CUT" { IMAGES } else { 1 }
}

fn of_the_log(fault: &'static str, test: &'static str, check: impl Fn(u64, u64) -> Result<(), Problem>) {
    for_every_call((fault, test, images_of(fault)), |seed| Ok(log::undisturbed(seed)?.0), check);
}

fn of_the_store(fault: &'static str, test: &'static str, check: impl Fn(u64, u64) -> Result<(), Problem>) {
    for_every_call((fault, test, images_of(fault)), |seed| Ok(store::undisturbed(seed)?.0), check);
}

/// A crash test proves nothing about what its workload never does.
#[test]
fn the_workloads_change_files_recycle_them_and_commit_in_groups() {
    let (mut started, mut recycled, mut larger, mut syncs, mut writes) = (0, 0, 0, 0, 0);
    for seed in 0..SEEDS {
        let (calls, history) = log::undisturbed(seed).expect("nothing fails");
        let count = |wanted: &dyn Fn(&Call) -> bool| calls.iter().filter(|call| wanted(call)).count();
        let header_written = |call: &Call| call.kind == CallKind::Write && call.offset == 0 && call.bytes == 4096;
        started += count(&header_written);
        recycled += count(&|call| call.kind == CallKind::Open);
        larger += count(&|call| call.kind == CallKind::Write && call.offset > 0 && call.bytes as u64 > FILE_BYTES);
        syncs += count(&|call| call.kind == CallKind::Sync);
        writes += history.acknowledged();
    }
    let seeds = SEEDS as usize;
    assert!(started >= 4 * seeds, "{started} log files were started in {seeds} runs");
    assert!(recycled >= 2 * seeds, "{recycled} log files were recycled in {seeds} runs");
    assert!(larger >= 1, "no command was larger than a file");
    assert!(writes > syncs, "{writes} writes were committed by {syncs} syncs");
}

/// The same for values that leave memory and are read back.
#[test]
fn some_workloads_are_larger_than_memory() {
    let of_run = |seed| store::undisturbed(seed).expect("nothing fails").1.tiered();
    let tiered = (0..6 * SEEDS).filter(|seed| store::Shape::of(*seed) == store::Shape::Tiered).map(of_run);
    let (gone, read) = tiered.fold((0, 0), |sum, run| (sum.0 + run.0, sum.1 + run.1));
    println!("{gone} values left memory, {read} were read back");
    assert!(gone > 50 && read > 10, "{gone} and {read}");
}

/// The same for what the store's workload makes of the block file.
#[test]
fn the_workloads_fill_and_grow_the_block_file() {
    let (mut refused, mut resized, mut superblocks) = (0, 0, 0);
    for seed in 0..6 * SEEDS {
        let (calls, history) = store::undisturbed(seed).expect("nothing fails");
        let of_blocks = |kind| calls.iter().filter(move |call| call.kind == kind && is_block_file(&call.path));
        let grown = of_blocks(CallKind::Resize).count() - 1;
        assert!(grown == 0 || store::Shape::of(seed) == store::Shape::Growing, "SEED={seed}");
        resized += grown;
        superblocks += of_blocks(CallKind::Write).filter(|call| call.offset <= 4096).count() - 1;
        refused += history.refused();
    }
    println!("{refused} commands were refused, the file was resized {resized} times, {superblocks} checkpoints");
    assert!(refused > 0 && resized >= 3 && superblocks > 100);
}

fn is_block_file(path: &Path) -> bool {
    path.to_string_lossy().contains(".blocks")
}

#[test]
fn log_survives_a_power_cut_at_every_storage_call() {
    let test = "log_survives_a_power_cut";
    of_the_log("CUT", test, |seed, call| log::check_cut(seed, call, IMAGES, None));
}

#[test]
fn log_survives_any_storage_call_failing_once() {
    let test = "log_survives_any_storage_call_failing";
    of_the_log("EIO", test, |seed, call| log::check_failure(seed, call, Failure::Eio, None));
}

#[test]
fn log_survives_any_storage_call_finding_the_disk_full() {
    let test = "log_survives_any_storage_call_finding";
    of_the_log("ENOSPC", test, |seed, call| log::check_failure(seed, call, Failure::Enospc, None));
}

#[test]
fn store_survives_a_power_cut_at_every_storage_call() {
    let test = "store_survives_a_power_cut";
    of_the_store("CUT", test, |seed, call| store::check_cut(seed, call, IMAGES, None));
}

#[test]
fn store_survives_any_storage_call_failing_once() {
    let test = "store_survives_any_storage_call_failing";
    of_the_store("EIO", test, |seed, call| store::check_failure(seed, call, Failure::Eio, None));
}

#[test]
fn store_survives_any_storage_call_finding_the_disk_full() {
    let test = "store_survives_any_storage_call_finding";
    of_the_store("ENOSPC", test, |seed, call| store::check_failure(seed, call, Failure::Enospc, None));
}
