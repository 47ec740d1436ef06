//! The files of Redis and Valkey: RDB snapshots, append-only files, and the manifest that lists them.
//!
//! ```text
//!   dump.rdb               --Reader-->         Item (entry, database, auxiliary field, ...)      Writer --> export.rdb
//!   appendonly.aof         --AofReader-->      Unit (one command, or one transaction)
//!   appendonly.aof.manifest --parse_manifest--> which files, in which order
//! ```
//!
//! Three rules hold for everything that is read:
//!
//! - **Nothing is allocated by a promise.** A length is believed only as far as its bytes have come; a value that is not
//!   asked for (a list, a hash, ...) is walked over without being held.
//! - **No input panics**, and every error says at which byte of the file it was found.
//! - **Exactly the file's bytes are taken** from the source, so that what follows an RDB (an append-only file's commands)
//!   can be read by someone else. Give a buffered source: single bytes are asked for.
//!
//! Strings are decoded; values of other types are reported by key and type ([`Item::Unsupported`]), so that the caller
//! decides. Not here: opening files, sending what was read to a server, the types other than strings.
//!
//! ```
//! use bowline_rdb::{Entry, Item, Reader, Writer};
//!
//! let mut writer = Writer::new(Vec::new())?;
//! writer.database(3)?;
//! writer.entry(b"greeting", b"hello", None)?;
//! let file = writer.finish()?;
//!
//! let items = Reader::new(file.as_slice())?.collect::<Result<Vec<_>, _>>()?;
//! let entry = Entry { database: 3, key: b"greeting".to_vec(), value: b"hello".to_vec(), expires_at_ms: None };
//! assert_eq!(items.last(), Some(&Item::Entry(entry)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod aof;
mod crc64;
mod error;
mod format;
#[doc(hidden)]
pub mod fuzz;
mod input;
mod item;
mod limits;
mod lzf;
mod manifest;
mod reader;
mod skip;
mod writer;

pub use aof::{AofReader, Truncation, Unit};
pub use error::{AofError, ManifestError, ReadError};
pub use format::{DEFAULT_VERSION, Magic, NEWEST_REDIS_VERSION, NEWEST_VALKEY_VERSION};
pub use item::{Entry, Item, ValueKind};
pub use limits::Limits;
pub use manifest::{FileKind, ManifestFile, parse_manifest};
pub use reader::Reader;
pub use writer::Writer;
