//! What signals do. A thread of its own waits for them, so nothing here runs inside a signal handler.
//!
//! ```text
//! TERM, INT    the server is asked to end; a second one ends the process at once
//! HUP          settings are read again, the file of messages is opened anew
//! USR1, USR2   one step more, one step less is told
//! ```

use std::io;
use std::sync::Arc;
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;
use tracing::{info, warn};

use super::{Exit, Process};
use crate::settings::{LogLevel, SettingsStore, Value};

/// Starts the thread that waits for signals.
pub(super) fn watch(process: &Process, settings: &Arc<SettingsStore>) -> io::Result<()> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2])?;
    let (process, settings) = (process.clone(), Arc::clone(settings));
    let wait = move || {
        for signal in signals.forever() {
            handle(signal, &process, &settings);
        }
    };
    // It lasts as long as the process, so nobody waits for it.
    thread::Builder::new().name("signals".to_owned()).spawn(wait).map(drop)
}

fn handle(signal: i32, process: &Process, settings: &SettingsStore) {
    match signal {
        SIGHUP => {
            // First the file, so that what there is to say about the settings stands in the new one.
            process.reopen_messages();
            reload(settings);
        }
        SIGUSR1 => change_level(settings, finer),
        SIGUSR2 => change_level(settings, coarser),
        _ => {
            info!("asked to end by {}", if signal == SIGINT { "SIGINT" } else { "SIGTERM" });
            if !process.request_stop() {
                process.end_now(&Exit::StartFailed("ended at once by a second signal".to_owned()));
            }
        }
    }
}

fn reload(settings: &SettingsStore) {
    match settings.reload() {
        Ok(reloaded) => {
            info!("settings were read again; changed: {}", list(&reloaded.changed));
            if !reloaded.needs_restart.is_empty() {
                warn!("these settings change with the next start only: {}", list(&reloaded.needs_restart));
            }
        }
        Err(error) => warn!("{error}; the settings stay as they were"),
    }
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

fn change_level(settings: &SettingsStore, next: fn(LogLevel) -> LogLevel) {
    let level = next(settings.current().loglevel).render();
    match settings.set(&[("loglevel", &level)]) {
        Ok(_) => warn!("loglevel is {level} now"),
        Err(error) => warn!("{error}"),
    }
}

fn finer(level: LogLevel) -> LogLevel {
    match level {
        LogLevel::Nothing => LogLevel::Error,
        LogLevel::Error => LogLevel::Warn,
        LogLevel::Warn | LogLevel::Warning => LogLevel::Info,
        LogLevel::Info | LogLevel::Notice => LogLevel::Debug,
        LogLevel::Debug | LogLevel::Verbose | LogLevel::Trace => LogLevel::Trace,
    }
}

fn coarser(level: LogLevel) -> LogLevel {
    match level {
        LogLevel::Trace => LogLevel::Debug,
        LogLevel::Debug | LogLevel::Verbose => LogLevel::Info,
        LogLevel::Info | LogLevel::Notice => LogLevel::Warn,
        LogLevel::Warn | LogLevel::Warning => LogLevel::Error,
        LogLevel::Error | LogLevel::Nothing => LogLevel::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Sources;

    #[test]
    fn steps_up_and_down_meet_every_level_and_stop_at_the_ends() {
        let mut levels = vec![LogLevel::Nothing];
        for _ in 0..6 {
            levels.extend(levels.last().copied().map(finer));
        }
        let words: Vec<String> = levels.iter().map(Value::render).collect();
        assert_eq!(words, ["nothing", "error", "warn", "info", "debug", "trace", "trace"]);
        for pair in levels.windows(2).filter(|pair| pair[0] != pair[1]) {
            assert_eq!(coarser(pair[1]), pair[0]);
        }
        assert_eq!(coarser(LogLevel::Nothing), LogLevel::Nothing);
    }

    #[test]
    fn the_level_is_changed_as_a_setting_so_config_get_shows_it() {
        let settings = SettingsStore::load(Sources::default()).expect("valid");
        change_level(&settings, finer);
        assert_eq!(settings.current().loglevel, LogLevel::Debug);
        change_level(&settings, coarser);
        assert_eq!(settings.current().loglevel, LogLevel::Info);
    }
}
