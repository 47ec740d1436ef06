//! Reads an RDB, one item after the other, without ever holding more than one of them.
//!
//! The checksum stands at the end: only when the iterator has ended without an error is every item before it known to be
//! what was written. Who must know before the first item is used reads the file twice.

use std::io::Read;

use crate::error::ReadError;
use crate::format::{
    AUX, CHECKSUM_SINCE, END, EXPIRE_MILLISECONDS, EXPIRE_SECONDS, FREQUENCY, FUNCTION, HEADER_BYTES, IDLE,
    LOWEST_OPERATION, MODULE_AUX, Magic, NEWEST_REDIS_VERSION, NEWEST_VALKEY_VERSION, RESIZE_DATABASE, SELECT_DATABASE,
    SLOT_INFO, STRING, parse_header,
};
use crate::input::{Input, Text};
use crate::item::{Entry, Item, ValueKind};
use crate::limits::{Limits, SHOWN_KEY_BYTES_MAX};
use crate::skip;

/// The items of an RDB. After an error, and after the end, there are no more.
#[derive(Debug)]
pub struct Reader<R> {
    input: Input<R>,
    limits: Limits,
    magic: Magic,
    version: u32,
    database: u64,
    /// Of the next entry.
    expires_at_ms: Option<i64>,
    ended: bool,
}

impl<R: Read> Reader<R> {
    /// Reads the header of `source`, which should be buffered.
    ///
    /// # Errors
    /// [`ReadError::NotRdb`] for another file, [`ReadError::TooNew`] for a version this crate does not know.
    pub fn new(source: R) -> Result<Self, ReadError> {
        Reader::with_limits(source, Limits::default())
    }

    /// As [`Reader::new`], with limits of one's own.
    ///
    /// # Errors
    /// As [`Reader::new`].
    pub fn with_limits(source: R, limits: Limits) -> Result<Self, ReadError> {
        let mut input = Input::new(source);
        let header: [u8; HEADER_BYTES] = input.array("the header")?;
        let Some((magic, version)) = parse_header(header) else {
            return Err(ReadError::NotRdb { found: header.escape_ascii().to_string() });
        };
        let (oldest, newest) = match magic {
            Magic::Redis => (1, NEWEST_REDIS_VERSION),
            Magic::Valkey => (NEWEST_VALKEY_VERSION, NEWEST_VALKEY_VERSION),
        };
        if version > newest {
            return Err(ReadError::TooNew { found: version, newest });
        }
        if version < oldest {
            return Err(input.damaged("the version is one that was never written"));
        }
        Ok(Reader { input, limits, magic, version, database: 0, expires_at_ms: None, ended: false })
    }

    /// Who wrote the file.
    pub fn magic(&self) -> Magic {
        self.magic
    }

    /// The version of the format.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// How many bytes have been read.
    pub fn offset(&self) -> u64 {
        self.input.offset()
    }

    /// The source, at the byte after the last one read: after the end, at what follows the RDB.
    pub fn into_source(self) -> R {
        self.input.into_source()
    }

    /// Reads up to the next item; `None` at the end, when the checksum fits.
    fn read(&mut self) -> Result<Option<Item>, ReadError> {
        loop {
            let begin = self.input.offset();
            let operation = self.input.byte("the next entry (the end mark is missing)")?;
            match operation {
                EXPIRE_SECONDS => {
                    let seconds = i32::from_le_bytes(self.input.array("an expiry")?);
                    self.expires_at_ms = Some(i64::from(seconds) * 1000);
                }
                EXPIRE_MILLISECONDS => {
                    self.expires_at_ms = Some(i64::from_le_bytes(self.input.array("an expiry")?));
                }
                FREQUENCY => self.input.discard(1, "a frequency")?,
                IDLE => drop(self.input.length("an idle time")?),
                SLOT_INFO => {
                    for _ in 0..3 {
                        self.input.length("figures of a slot")?;
                    }
                }
                END => return self.end().map(|()| None),
                0..LOWEST_OPERATION => return self.entry(operation, begin).map(Some),
                _ => return self.operation(operation, begin).map(Some),
            }
        }
    }

    /// An operation that stands for an item.
    fn operation(&mut self, operation: u8, begin: u64) -> Result<Item, ReadError> {
        match operation {
            AUX => {
                Ok(Item::Auxiliary { name: self.text("an auxiliary field")?, value: self.text("an auxiliary field")? })
            }
            SELECT_DATABASE => {
                self.database = self.input.length("the number of a database")?;
                Ok(Item::Database(self.database))
            }
            RESIZE_DATABASE => Ok(Item::Sizes {
                keys: self.input.length("the size of a database")?,
                expiring: self.input.length("the size of a database")?,
            }),
            FUNCTION => Ok(Item::Function(self.text("a function library")?)),
            MODULE_AUX => Ok(Item::ModuleData { module: skip::module(&mut self.input)? }),
            _ => Err(ReadError::Unknown { offset: begin, what: "an operation".to_owned(), number: operation }),
        }
    }

    fn entry(&mut self, number: u8, begin: u64) -> Result<Item, ReadError> {
        let key = self.text("a key")?;
        let (database, expires_at_ms) = (self.database, self.expires_at_ms.take());
        let kind = if number == STRING {
            let mut value = Vec::new();
            match self.input.string(self.limits.string_bytes_max, &mut value, "a value")? {
                Text::Whole => return Ok(Item::Entry(Entry { database, key, value, expires_at_ms })),
                Text::TooLong(bytes) => ValueKind::LongString { bytes },
            }
        } else {
            match skip::value(&mut self.input, self.magic, number)? {
                Some(kind) => kind,
                None => {
                    let shown = key.get(..SHOWN_KEY_BYTES_MAX).unwrap_or(&key).escape_ascii();
                    let what = format!("key \"{shown}\" with a value of type");
                    return Err(ReadError::Unknown { offset: begin, what, number });
                }
            }
        };
        Ok(Item::Unsupported { database, key, kind, expires_at_ms })
    }

    /// A string that must fit the limit.
    fn text(&mut self, what: &'static str) -> Result<Vec<u8>, ReadError> {
        let mut text = Vec::new();
        match self.input.string(self.limits.string_bytes_max, &mut text, what)? {
            Text::Whole => Ok(text),
            Text::TooLong(_) => Err(self.input.damaged("a key, field or library is longer than the limit")),
        }
    }

    fn end(&mut self) -> Result<(), ReadError> {
        if self.version < CHECKSUM_SINCE {
            return Ok(());
        }
        let (offset, computed) = (self.input.offset(), self.input.checksum());
        let stored = u64::from_le_bytes(self.input.array("the checksum")?);
        if stored != 0 && stored != computed {
            return Err(ReadError::Checksum { offset, stored, computed });
        }
        Ok(())
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Result<Item, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let item = self.read().transpose();
        self.ended = !matches!(item, Some(Ok(_)));
        item
    }
}

#[cfg(test)]
mod tests;
