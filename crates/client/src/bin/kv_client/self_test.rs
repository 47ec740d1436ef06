//! `kv_client test`: does this server keep what it is given?
//!
//! A key with a random name is written, read, overwritten and deleted, and each answer is checked. It expires by itself
//! within a minute, should this program be stopped in between. No other key is touched.

use std::io::Write;
use std::time::Instant;

use bowline_client::{Client, Error, Value};

use crate::failure::{Exit, Failure};

/// What one step found.
type Step = Result<(), Problem>;

/// How one step is done.
type Run = fn(&mut Probe, &mut Client) -> Step;

enum Problem {
    /// The server was not reached or said no.
    Client(Error),
    /// The server answered, but not as it must.
    Wrong(String),
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Problem::Client(error)
    }
}

/// Runs every step, printing a line for each; ends at the first one that fails.
pub(crate) fn run(client: &mut Client, out: &mut dyn Write) -> Result<Exit, Failure> {
    let random = |place: u64| getrandom::u64().unwrap_or_else(|_| u64::from(std::process::id()) << place);
    let key = format!("kv_client:test:{:016x}{:016x}", random(1), random(2)).into_bytes();
    let mut probe = Probe { first: all_bytes(random(3)), second: all_bytes(random(4)), key };
    let steps: [(&str, Run); 8] = [
        ("ping", Probe::ping),
        ("write", Probe::write),
        ("read back", Probe::read_back),
        ("overwrite", Probe::overwrite),
        ("read the new value", Probe::read_new),
        ("exists", Probe::exists),
        ("delete", Probe::delete),
        ("read what is gone", Probe::read_gone),
    ];
    let start = Instant::now();
    for (name, step) in steps {
        let begin = Instant::now();
        let result = step(&mut probe, client);
        let verdict = if result.is_ok() { "OK" } else { "FAILED" };
        writeln!(out, "{name:<20} {verdict:<6} {:>9.1?}", begin.elapsed()).map_err(Failure::Output)?;
        match result {
            Ok(()) => {}
            Err(Problem::Client(error)) => return Err(error.into()),
            Err(Problem::Wrong(what)) => {
                let message = format!("self-test failed at \"{name}\": {what}");
                return Err(Failure::Failed { message, exit: Exit::Server });
            }
        }
    }
    writeln!(out, "{:<20} {:<6} {:>9.1?}", "all", "OK", start.elapsed()).map_err(Failure::Output)?;
    Ok(Exit::Success)
}

/// Every byte value, twice, in an order that depends on `seed`.
fn all_bytes(seed: u64) -> Vec<u8> {
    let step = (seed | 1) as u8;
    (0..512_u16).map(|place| (place as u8).wrapping_mul(step).wrapping_add((seed >> 32) as u8)).collect()
}

struct Probe {
    key: Vec<u8>,
    first: Vec<u8>,
    second: Vec<u8>,
}

impl Probe {
    fn ping(&mut self, client: &mut Client) -> Step {
        Ok(client.ping()?)
    }

    fn write(&mut self, client: &mut Client) -> Step {
        Self::set(client, &self.key, &self.first)
    }

    fn read_back(&mut self, client: &mut Client) -> Step {
        Self::compare(client.get(&self.key)?.as_deref(), Some(&self.first))
    }

    fn overwrite(&mut self, client: &mut Client) -> Step {
        Self::set(client, &self.key, &self.second)
    }

    fn read_new(&mut self, client: &mut Client) -> Step {
        Self::compare(client.get(&self.key)?.as_deref(), Some(&self.second))
    }

    fn exists(&mut self, client: &mut Client) -> Step {
        if client.exists(&self.key)? { Ok(()) } else { Err(Problem::Wrong("the key is not there".to_owned())) }
    }

    fn delete(&mut self, client: &mut Client) -> Step {
        if client.delete(&self.key)? { Ok(()) } else { Err(Problem::Wrong("there was nothing to delete".to_owned())) }
    }

    fn read_gone(&mut self, client: &mut Client) -> Step {
        Self::compare(client.get(&self.key)?.as_deref(), None)
    }

    fn set(client: &mut Client, key: &[u8], value: &[u8]) -> Step {
        match client.command(&[b"SET", key, value, b"EX", b"60"])? {
            Value::Simple(text) if text == "OK" => Ok(()),
            other => Err(Problem::Wrong(format!("SET was answered with {other:?}"))),
        }
    }

    fn compare(found: Option<&[u8]>, expected: Option<&[u8]>) -> Step {
        if found == expected {
            return Ok(());
        }
        let bytes = |value: Option<&[u8]>| match value {
            Some(value) => format!("{} bytes", value.len()),
            None => "nothing".to_owned(),
        };
        Err(Problem::Wrong(format!("{} were read, {} were expected, or other ones", bytes(found), bytes(expected))))
    }
}
