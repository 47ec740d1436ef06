//! A snapshot as an RDB, which Redis from 7.0 on and Valkey load: database after database, each entry with its expiry.
//!
//! What has expired when the snapshot was taken is left out. Not here: the bytes of an RDB (crate `bowline-rdb`), handing
//! it out (`commands::backup`).

use std::io::{self, Write};
use std::path::Path;

use bowline::Error;
use bowline::snapshot::Snapshot;
use bowline_rdb::Writer;

/// Bytes of a piece.
const PIECE_BYTES: usize = 256 * 1024;

type Each<'a> = dyn FnMut(Vec<u8>) -> bowline::Result<()> + 'a;

/// Hands `snapshot` to `each` as an RDB, in pieces of at most 256 KiB. Memory: some MiB, and the largest value twice.
///
/// # Errors
/// From reading the block file, and what `each` returns.
pub(crate) fn write_rdb(snapshot: &Snapshot, each: &mut Each<'_>) -> bowline::Result<()> {
    let taken_at_ms = snapshot.header().taken_at_ms;
    let mut writer = begin(Pieces { each, bytes: Vec::new(), refusal: None }, taken_at_ms)?;
    for database in snapshot.databases() {
        writer.database(u64::from(database.number)).map_err(unwritten)?;
        writer.sizes(database.entries, 0).map_err(unwritten)?;
        snapshot.records(&database, &mut |record| {
            if record.expire_at.is_some_and(|at| at <= taken_at_ms) {
                return Ok(());
            }
            let expires_at_ms = record.expire_at.map(|at| i64::try_from(at).unwrap_or(i64::MAX));
            record.value.with_bytes(|value| writer.entry(record.key, value, expires_at_ms)).map_err(unwritten)
        })?;
    }
    writer.finish().map_err(unwritten).map(drop)
}

fn begin<'e, 'a>(pieces: Pieces<'e, 'a>, taken_at_ms: u64) -> bowline::Result<Writer<Pieces<'e, 'a>>> {
    let mut writer = Writer::new(pieces).map_err(unwritten)?;
    for (name, value) in [
        ("redis-ver", "7.2.4"),
        ("redis-bits", "64"),
        ("ctime", &(taken_at_ms / 1000).to_string()),
        ("bowline-ver", env!("CARGO_PKG_VERSION")),
    ] {
        writer.auxiliary(name, value).map_err(unwritten)?;
    }
    Ok(writer)
}

/// What came of the error that `each` gave.
fn unwritten(error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(refusal) => refusal,
        Err(source) => Error::io("write", Path::new("an RDB"), source),
    }
}

/// Bytes on their way out, cut into pieces.
struct Pieces<'e, 'a> {
    each: &'e mut Each<'a>,
    bytes: Vec<u8>,
    /// Nothing is handed out after an error.
    refusal: Option<io::ErrorKind>,
}

impl Pieces<'_, '_> {
    fn hand_out(&mut self) -> io::Result<()> {
        if let Some(kind) = self.refusal {
            return Err(kind.into());
        }
        let piece = std::mem::take(&mut self.bytes);
        (self.each)(piece).map_err(|error| {
            self.refusal = Some(io::ErrorKind::BrokenPipe);
            io::Error::other(error)
        })
    }
}

impl Write for Pieces<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = PIECE_BYTES - self.bytes.len();
        let part = bytes.get(..room).unwrap_or(bytes);
        self.bytes.extend_from_slice(part);
        if self.bytes.len() == PIECE_BYTES {
            self.hand_out()?;
        }
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.bytes.is_empty() { Ok(()) } else { self.hand_out() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bowline::{Options, Store};
    use bowline_rdb::{Item, Reader};

    use super::*;

    #[test]
    fn every_entry_is_in_the_rdb_and_pieces_are_short() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::open(Options::new(directory.path())).expect("opened");
        let mut expected = BTreeMap::new();
        for number in 0..500u32 {
            let value = if number % 7 == 0 { number.to_string() } else { "v".repeat(number as usize * 11) + "." };
            let key = format!("key:{number}");
            store.put(key.as_bytes(), value.as_bytes()).expect("written");
            expected.insert(key.into_bytes(), value.into_bytes());
        }
        let large: Vec<u8> = (0..3_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        store.put(b"large", &large).expect("written");
        expected.insert(b"large".to_vec(), large);
        let (mut rdb, mut longest) = (Vec::new(), 0);
        write_rdb(&store.snapshot().expect("taken"), &mut |piece| {
            longest = longest.max(piece.len());
            rdb.extend(piece);
            Ok(())
        })
        .expect("exported");
        let mut found = BTreeMap::new();
        for item in Reader::new(rdb.as_slice()).expect("an RDB") {
            if let Item::Entry(entry) = item.expect("sound") {
                assert_eq!((entry.database, entry.expires_at_ms), (0, None));
                found.insert(entry.key, entry.value);
            }
        }
        assert!(found == expected && longest <= PIECE_BYTES && rdb.len() > PIECE_BYTES);
    }

    #[test]
    fn what_the_receiver_refuses_is_told() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::open(Options::new(directory.path())).expect("opened");
        store.put(b"key", b"value").expect("written");
        let refused = write_rdb(&store.snapshot().expect("taken"), &mut |_| Err(Error::Closed));
        assert!(matches!(refused, Err(Error::Closed)), "{refused:?}");
    }
}
