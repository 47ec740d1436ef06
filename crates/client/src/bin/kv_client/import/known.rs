//! Which commands of an append-only file may be sent to this server: those that it knows as writes.
//!
//! That tells before anything is sent what the server cannot hold, and a file that someone tampered with can change data
//! but not settings, passwords or the server's life.

use std::collections::HashSet;

use bowline_client::{Client, Error, Value};

use crate::failure::{Exit, Failure};
use crate::print::printable;

/// The writes of one server.
pub(super) struct KnownCommands {
    /// Names in small letters, or why the server does not tell them.
    writes: Result<HashSet<Vec<u8>>, String>,
}

impl KnownCommands {
    /// Asks the server. One that does not tell can still take an RDB.
    pub(super) fn ask(client: &mut Client) -> Result<KnownCommands, Failure> {
        let writes = match client.command(&["COMMAND"]) {
            Ok(Value::Array(rows)) => Ok(rows.iter().filter_map(name_of_write).collect()),
            Ok(_) => Err("it answered something else".to_owned()),
            Err(Error::Server(refusal)) => Err(refusal.text().to_owned()),
            Err(error) => return Err(error.into()),
        };
        Ok(KnownCommands { writes })
    }

    /// Whether `name` is a write of the server.
    pub(super) fn is_write(&self, name: &[u8]) -> Result<bool, Failure> {
        match &self.writes {
            Ok(writes) => Ok(writes.contains(name.to_ascii_lowercase().as_slice())),
            Err(why) => Err(Failure::Failed {
                message: format!(
                    "the server does not tell which commands it has (COMMAND: {}), so an append-only file cannot be imported",
                    printable(why)
                ),
                exit: Exit::Server,
            }),
        }
    }
}

/// The name in a row of COMMAND, if its flags have `write`.
fn name_of_write(row: &Value) -> Option<Vec<u8>> {
    let Value::Array(columns) = row else { return None };
    let [name, _arity, flags, ..] = columns.as_slice() else { return None };
    let (Value::Array(flags) | Value::Set(flags)) = flags else { return None };
    flags.iter().any(|flag| text(flag) == Some(b"write")).then(|| text(name).map(<[u8]>::to_ascii_lowercase))?
}

fn text(value: &Value) -> Option<&[u8]> {
    match value {
        Value::Simple(text) => Some(text.as_bytes()),
        Value::Bulk(bytes) => Some(bytes),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rows_with_the_flag_write_count() {
        let row = |name: &str, flags: &[&str]| {
            let flags = flags.iter().map(|flag| Value::Simple((*flag).to_owned())).collect();
            Value::Array(vec![Value::Bulk(name.into()), Value::Integer(-2), Value::Set(flags), Value::Integer(1)])
        };
        assert_eq!(name_of_write(&row("SET", &["denyoom", "write"])), Some(b"set".to_vec()));
        assert_eq!(name_of_write(&row("config", &["admin"])), None);
        assert_eq!(name_of_write(&Value::Null), None);
    }
}
