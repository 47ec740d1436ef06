//! Reads all files of an import in order and hands on what is in them, whichever kind they are.
//!
//! Not here: what is done with it (`load`).

use std::io::{self, BufReader, Cursor, Read};

use bowline_rdb::{AofReader, Entry, Item, Reader, Truncation, Unit};

use super::source::{Part, Source, refused};
use crate::failure::Failure;
use crate::print::printable;

/// Bytes asked of a file by one read.
const READ_BYTES: usize = 256 * 1024;
/// Enough of a file to tell what it is.
const HEAD_BYTES: u64 = 6;

/// Takes what the files hold, in order.
pub(super) trait Visitor {
    /// An RDB begins whose entries may be changed by commands that follow, or not.
    fn begin_entries(&mut self, commands_may_follow: bool);
    /// A string with its key.
    fn entry(&mut self, entry: &Entry) -> Result<(), Failure>;
    /// Something that no string holds: `what` names it and its key.
    fn unsupported(&mut self, what: &str) -> Result<(), Failure>;
    /// Commands begin: they start in database 0.
    fn begin_commands(&mut self) -> Result<(), Failure>;
    /// A command, or a transaction.
    fn unit(&mut self, unit: &Unit<'_>) -> Result<(), Failure>;
    /// The last file ends within a unit.
    fn truncated(&mut self, part: &str, truncation: Truncation);
    /// So many bytes of all files have been read.
    fn passed(&mut self, bytes: u64);
}

/// Reads everything once.
pub(super) fn walk(source: &Source, visitor: &mut dyn Visitor) -> Result<(), Failure> {
    let mut before = 0;
    for (place, part) in source.parts.iter().enumerate() {
        let last = place + 1 == source.parts.len();
        let walk = Walk { part, visitor: &mut *visitor, before, last, is_append_only: source.is_append_only };
        before += walk.run()?;
    }
    Ok(())
}

/// The walk through one file.
struct Walk<'a> {
    part: &'a Part,
    visitor: &'a mut dyn Visitor,
    /// Bytes of the files before this one.
    before: u64,
    last: bool,
    is_append_only: bool,
}

type Input = BufReader<io::Chain<Cursor<Vec<u8>>, Box<dyn Read>>>;

impl Walk<'_> {
    /// Reads the file and returns its length.
    fn run(mut self) -> Result<u64, Failure> {
        let mut file = self.part.open()?;
        let mut head = Vec::new();
        file.by_ref()
            .take(HEAD_BYTES)
            .read_to_end(&mut head)
            .map_err(|source| Failure::Local { what: format!("read {}", self.part.name), source })?;
        let is_rdb = head.starts_with(b"REDIS") || head.starts_with(b"VALKEY");
        let is_commands = head.first().is_none_or(|first| matches!(first, b'*' | b'#'));
        if !(is_rdb || is_commands) || (head.is_empty() && !self.is_append_only) {
            let what = if head.is_empty() {
                "it is empty".to_owned()
            } else {
                format!("it begins with \"{}\"", head.escape_ascii())
            };
            return Err(self.refused(&format!("this is neither an RDB nor an append-only file: {what}")));
        }
        let input = BufReader::with_capacity(READ_BYTES, Cursor::new(head).chain(file));
        if is_rdb { self.entries(input) } else { self.commands(input, 0) }
    }

    fn entries(&mut self, input: Input) -> Result<u64, Failure> {
        let mut reader = Reader::new(input).map_err(|error| self.refused(&error.to_string()))?;
        self.visitor.begin_entries(self.is_append_only);
        while let Some(item) = reader.next() {
            match item.map_err(|error| self.refused(&error.to_string()))? {
                Item::Entry(entry) => self.visitor.entry(&entry)?,
                Item::Unsupported { database, key, kind, .. } => {
                    let what = format!("key {} of database {database} is {kind}", shown(&key));
                    self.visitor.unsupported(&what)?;
                }
                Item::Function(_) => self.visitor.unsupported("there is a library of functions")?,
                Item::ModuleData { module } => {
                    self.visitor.unsupported(&format!("there is data of the module type {module}"))?;
                }
                // Redis says so in the RDB that begins an append-only file.
                Item::Auxiliary { name, value }
                    if (name == b"aof-base" || name == b"aof-preamble") && value == b"1" =>
                {
                    self.visitor.begin_entries(true);
                }
                _ => {}
            }
            self.visitor.passed(self.before + reader.offset());
        }
        let offset = reader.offset();
        self.commands(reader.into_source(), offset)
    }

    fn commands(&mut self, input: Input, offset: u64) -> Result<u64, Failure> {
        let mut reader = AofReader::starting_at(input, offset);
        let mut begun = false;
        loop {
            let next = reader.next_unit();
            let Some(unit) = next.map_err(|error| refused(format!("{}: {error}", self.part.name)))? else { break };
            if !begun {
                self.visitor.begin_commands()?;
                begun = true;
            }
            self.visitor.unit(&unit)?;
            self.visitor.passed(self.before + reader.offset());
        }
        if let Some(truncation) = reader.truncation() {
            if !self.last {
                return Err(self.refused(&format!(
                    "it ends within a command after byte {}, and it is not the last file: something is missing",
                    truncation.offset
                )));
            }
            self.visitor.truncated(&self.part.name, truncation);
        }
        Ok(reader.offset())
    }

    fn refused(&self, message: &str) -> Failure {
        refused(format!("{}: {}", self.part.name, printable(message)))
    }
}

/// A key or a name as it may stand in a message.
pub(super) fn shown(bytes: &[u8]) -> String {
    const SHOWN_BYTES_MAX: usize = 80;
    let quoted = bowline_resp::quote(bytes.get(..SHOWN_BYTES_MAX).unwrap_or(bytes));
    if bytes.len() > SHOWN_BYTES_MAX { format!("{quoted}...") } else { quoted }
}
