//! Where the time of a pipelined run went: which commands are timed by themselves and which together.

mod support;

use bowline::Store;
use bowline::exec::{Lap, Timing};
use std::sync::atomic::Ordering;
use support::{HandClock, Session, options};

/// The laps of a run, each as the commands done at its end and how many of them it has.
fn laps(timing: Timing, commands: &[&str]) -> Vec<(usize, usize)> {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(options(directory.path(), &HandClock::at(1_700_000_000_000))).expect("opens");
    let mut session = Session::new(&store);
    session.run(&[&format!("set large {}", "v".repeat(10_000))]);
    session.executor.set_timing(timing);
    session.run_held(commands);
    session.executor.laps().iter().map(|lap| (lap.done, lap.commands)).collect()
}

#[test]
fn heavy_commands_end_a_lap_and_small_ones_share_it() {
    let large = format!("set k {}", "v".repeat(5000));
    let commands = ["get a", "get b", "get large", "get a", &large, "get a", "keys *", "get b", "get a"];
    assert_eq!(laps(Timing::Heavy, &commands), [(3, 3), (5, 2), (6, 1), (7, 1), (9, 2)]);
}

#[test]
fn every_command_is_timed_when_that_is_asked_for() {
    assert_eq!(laps(Timing::Every, &["get a", "keys *", "set a 1"]), [(1, 1), (2, 1), (3, 1)]);
}

#[test]
fn a_command_by_itself_and_an_untimed_run_have_no_laps() {
    assert_eq!(laps(Timing::Every, &["get a"]), []);
    assert_eq!(laps(Timing::Off, &["get a", "keys *"]), []);
}

#[test]
fn what_passed_before_a_run_is_in_none_of_its_laps() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = HandClock::at(1_700_000_000_000);
    let store = Store::open(options(directory.path(), &clock)).expect("opens");
    let mut session = Session::new(&store);
    session.executor.set_timing(Timing::Every);
    clock.monotonic_ms.fetch_add(500, Ordering::SeqCst);
    session.run_held(&["get a", "get b"]);
    let time = std::time::Duration::ZERO;
    assert_eq!(session.executor.laps(), [Lap { done: 1, commands: 1, time }, Lap { done: 2, commands: 1, time }]);
}
