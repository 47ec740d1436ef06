//! The calls that most programs need, typed.

use bowline_resp::Value;

use crate::client::Client;
use crate::error::{Error, Result, ServerError};

impl Client {
    /// Sets `key` to `value`, whatever it held before, and drops its expiry. When this returns `Ok`, the server has
    /// committed the write at the durability level of the connection.
    ///
    /// # Errors
    /// See [`Client::command`]; after [`Error::Unknown`] the value may be the old or the new one.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.command(&[b"SET", key, value]).map(drop)
    }

    /// Sets all pairs at once: after a crash either all of them are there or none. A key that occurs twice gets its last
    /// value. An empty batch does nothing.
    ///
    /// # Errors
    /// See [`Client::command`]; after [`Error::Unknown`] all pairs are set or none is.
    pub fn put_batch<K: AsRef<[u8]>, V: AsRef<[u8]>>(&mut self, pairs: &[(K, V)]) -> Result<()> {
        if pairs.is_empty() {
            return Ok(());
        }
        let mut args: Vec<&[u8]> = Vec::with_capacity(1 + 2 * pairs.len());
        args.push(b"MSET");
        for (key, value) in pairs {
            args.extend([key.as_ref(), value.as_ref()]);
        }
        self.command(&args).map(drop)
    }

    /// The value at `key`, or `None` when there is none.
    ///
    /// # Errors
    /// See [`Client::command`]; [`Error::Server`] with `WRONGTYPE` when the key holds no string.
    pub fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        match self.command(&[b"GET", key])? {
            Value::Null => Ok(None),
            Value::Bulk(value) => Ok(Some(value)),
            Value::Simple(text) => Ok(Some(text.into_bytes())),
            other => Err(self.unexpected("GET", &other)),
        }
    }

    /// Whether there is a value of any type at `key`.
    ///
    /// # Errors
    /// See [`Client::command`].
    pub fn exists(&mut self, key: &[u8]) -> Result<bool> {
        self.count("EXISTS", &[b"EXISTS", key]).map(|count| count > 0)
    }

    /// Removes `key`; true if it was there.
    ///
    /// # Errors
    /// See [`Client::command`]; after [`Error::Unknown`] the key may or may not be there.
    pub fn delete(&mut self, key: &[u8]) -> Result<bool> {
        self.count("DEL", &[b"DEL", key]).map(|count| count > 0)
    }

    /// How many keys the database in use holds.
    ///
    /// # Errors
    /// See [`Client::command`].
    pub fn size(&mut self) -> Result<u64> {
        self.count("DBSIZE", &[b"DBSIZE"])
    }

    /// Asks the server for a sign of life.
    ///
    /// # Errors
    /// See [`Client::command`].
    pub fn ping(&mut self) -> Result<()> {
        self.command(&[b"PING"]).map(drop)
    }

    /// Deletes **every key of the database in use** (see [`Client::database`]); other databases keep theirs. There is
    /// no way back.
    ///
    /// # Errors
    /// See [`Client::command`].
    pub fn flush(&mut self) -> Result<()> {
        self.command(&[b"FLUSHDB"]).map(drop)
    }

    /// The server's figures as name and value, in the server's order: STATS, or INFO where STATS is unknown.
    ///
    /// # Errors
    /// See [`Client::command`].
    pub fn stats(&mut self) -> Result<Vec<(String, String)>> {
        let answer = match self.command(&[b"STATS"]) {
            Err(Error::Server(refusal)) if is_unknown_command(&refusal) => self.command(&[b"INFO"])?,
            other => other?,
        };
        match answer {
            Value::Bulk(text) | Value::Verbatim { text, .. } => Ok(figures_of_lines(&String::from_utf8_lossy(&text))),
            Value::Map(pairs) => Ok(pairs.iter().map(|(name, value)| (text_of(name), text_of(value))).collect()),
            Value::Array(items) => Ok(items
                .chunks_exact(2)
                .filter_map(|pair| Some((text_of(pair.first()?), text_of(pair.get(1)?))))
                .collect()),
            other => Err(self.unexpected("STATS", &other)),
        }
    }

    fn count(&mut self, name: &str, args: &[&[u8]]) -> Result<u64> {
        match self.command(args)? {
            Value::Integer(count) if count >= 0 => Ok(count.unsigned_abs()),
            other => Err(self.unexpected(name, &other)),
        }
    }

    fn unexpected(&self, name: &str, answer: &Value) -> Error {
        let kind = match answer {
            Value::Simple(text) if text == "QUEUED" => "QUEUED: the connection is within MULTI",
            Value::Integer(_) => "a number",
            Value::Simple(_) | Value::Bulk(_) | Value::Verbatim { .. } => "a string",
            Value::Null => "null",
            _ => "a collection or another type",
        };
        Error::Protocol {
            address: self.options().address.to_string(),
            what: format!("{name} was answered with {kind}"),
        }
    }
}

fn is_unknown_command(refusal: &ServerError) -> bool {
    refusal.text().to_ascii_lowercase().contains("unknown command")
}

/// Reads lines of `name:value`; empty lines and headings (`# Memory`) are left out.
fn figures_of_lines(text: &str) -> Vec<(String, String)> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
        .collect()
}

fn text_of(value: &Value) -> String {
    match value {
        Value::Bulk(text) | Value::Verbatim { text, .. } => String::from_utf8_lossy(text).into_owned(),
        Value::Simple(text) | Value::BigNumber(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Double(number) => number.to_string(),
        Value::Boolean(truth) => truth.to_string(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_lines_without_headings() {
        let figures =
            figures_of_lines("# Server\r\nversion:0.1\r\n\r\n# Keys\r\ndb0:keys=1,expires=0\r\nload: 0.5\r\n");
        let expected = [("version", "0.1"), ("db0", "keys=1,expires=0"), ("load", "0.5")];
        assert_eq!(figures, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}
