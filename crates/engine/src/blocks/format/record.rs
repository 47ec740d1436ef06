//! A record: one entry with all that belongs to it, in the stream of a data extent.
//!
//! ```text
//!  record   flags u8          bit 0 integer, 1 expires, 2 chunked, 3 to 6 zero (kinds of compression), 7 set
//!           database varint   key bytes varint   value bytes varint (as stored)
//!           version u64       created: zigzag varint of (the version's second - created)
//!           expiry u64 ms     only with bit 1
//!           key | value       without bit 2; a value with bit 0 is an i64 in 1 to 8 little-endian bytes
//!           depth u8 | list bytes varint | count varint | chunks: block u32, blocks u8, ...      with bit 2
//! ```
//!
//! A record whose flags are 0 ends the stream: what follows is padding. The *body* of a chunked record is its key and
//! its value, one behind the other, in the streams of chunk extents: all full but the last. With depth 1 the record
//! lists them; with depth 2 it lists chunks that hold `list bytes` bytes of such a list.

use super::{Reader, put_varint, varint_bytes};
use crate::keyspace::DatabaseId;
use crate::keyspace::entry::Value;
use crate::version::Version;

const INTEGER: u8 = 1 << 0;
const EXPIRES: u8 = 1 << 1;
const CHUNKED: u8 = 1 << 2;
const PRESENT: u8 = 1 << 7;

/// Bytes of a chunk in a list.
pub(crate) const CHUNK_REF_BYTES: usize = 5;
/// Most chunks that a record lists itself; more are listed in chunks.
pub(crate) const LISTED_MAX: usize = 400;
/// Longest part of a record before its key or its list.
const HEAD_BYTES_MAX: usize = 1 + 5 + 10 + 10 + 8 + 10 + 8;
/// Longest record that is kept in one piece; a longer one is put into chunks.
pub(crate) const INLINE_BYTES_MAX: usize = 48 * 1024;

const _: () =
    assert!(HEAD_BYTES_MAX + 1 + 10 + 2 + LISTED_MAX * CHUNK_REF_BYTES <= super::leaf::CHUNKED_RECORD_BYTES_MAX);

/// One entry as it stands in the block file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The database it belongs to.
    pub database: DatabaseId,
    /// Its key.
    pub key: &'a [u8],
    /// Its value.
    pub value: Value<'a>,
    /// Version of its last change.
    pub version: Version,
    /// When it was created, seconds since the Unix epoch.
    pub created: u32,
    /// When it expires, milliseconds since the Unix epoch.
    pub expire_at: Option<u64>,
}

/// A chunk extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkRef {
    pub(crate) block: u32,
    pub(crate) blocks: u8,
}

/// Where the body of a chunked record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkList<'a> {
    /// 1: `refs` are the body's chunks; 2: the chunks of a list of them.
    pub(crate) depth: u8,
    /// Bytes of that list; 0 with depth 1.
    pub(crate) list_bytes: u64,
    refs: &'a [u8],
}

/// What a record holds beside its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body<'a> {
    Inline { key: &'a [u8], value: Value<'a> },
    Chunked { key_bytes: u64, value_bytes: u64, list: ChunkList<'a> },
}

/// A record as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReadRecord<'a> {
    pub(crate) database: DatabaseId,
    pub(crate) version: Version,
    pub(crate) created: u32,
    pub(crate) expire_at: Option<u64>,
    pub(crate) body: Body<'a>,
    /// Bytes that the record takes.
    pub(crate) bytes: usize,
}

/// What a record in chunks lists.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ListedBody<'a> {
    pub(crate) key_bytes: u64,
    pub(crate) value_bytes: u64,
    pub(crate) depth: u8,
    pub(crate) list_bytes: u64,
    pub(crate) chunks: &'a [ChunkRef],
}

/// Bytes of a record with its key and value in one piece.
pub(crate) fn inline_bytes(record: &Record<'_>) -> usize {
    let value = record.value.stored_bytes();
    let expiry = if record.expire_at.is_some() { 8 } else { 0 };
    1 + varint_bytes(u64::from(record.database.0))
        + varint_bytes(record.key.len() as u64)
        + varint_bytes(value as u64)
        + 8
        + varint_bytes(zigzag(age(record.version, record.created)))
        + expiry
        + record.key.len()
        + value
}

/// Most bytes that a record adds to its key and value.
pub(crate) const fn overhead_bytes_max() -> usize {
    HEAD_BYTES_MAX
}

/// Appends a record with its key and value in one piece.
pub(crate) fn encode_inline(record: &Record<'_>, bytes: &mut Vec<u8>) {
    let value = encode_up_to_value(record, bytes);
    bytes.extend_from_slice(value);
}

/// Appends what comes before the value's bytes in a record of one piece, and the value of an integer; returns the bytes
/// that complete it, so that a large value need not be copied.
pub(crate) fn encode_up_to_value<'a>(record: &Record<'a>, bytes: &mut Vec<u8>) -> &'a [u8] {
    let (value, integer) = match record.value {
        Value::Bytes(value) => (value, None),
        Value::Integer(number) => (&[][..], Some(number.to_le_bytes())),
    };
    let stored = record.value.stored_bytes();
    let flags = if integer.is_some() { INTEGER } else { 0 };
    encode_head(record, flags, record.key.len() as u64, stored as u64, bytes);
    bytes.extend_from_slice(record.key);
    if let Some(number) = integer {
        bytes.extend_from_slice(&number[..stored]);
    }
    value
}

/// Appends a record whose key and value lie in chunks; those of `record` are not looked at.
pub(crate) fn encode_chunked(record: &Record<'_>, body: &ListedBody<'_>, bytes: &mut Vec<u8>) {
    assert!(body.chunks.len() <= LISTED_MAX, "a record lists a bounded number of chunks");
    encode_head(record, CHUNKED, body.key_bytes, body.value_bytes, bytes);
    bytes.push(body.depth);
    put_varint(bytes, body.list_bytes);
    put_varint(bytes, body.chunks.len() as u64);
    for chunk in body.chunks {
        chunk.encode(bytes);
    }
}

fn encode_head(record: &Record<'_>, flags: u8, key_bytes: u64, value_bytes: u64, bytes: &mut Vec<u8>) {
    bytes.push(PRESENT | flags | if record.expire_at.is_some() { EXPIRES } else { 0 });
    put_varint(bytes, u64::from(record.database.0));
    put_varint(bytes, key_bytes);
    put_varint(bytes, value_bytes);
    bytes.extend_from_slice(&record.version.0.to_le_bytes());
    put_varint(bytes, zigzag(age(record.version, record.created)));
    if let Some(at) = record.expire_at {
        bytes.extend_from_slice(&at.to_le_bytes());
    }
}

/// Seconds from the creation to the last change; below 0 where a clock was turned back.
fn age(version: Version, created: u32) -> i64 {
    (version.time_ms() / 1000) as i64 - i64::from(created)
}

fn zigzag(number: i64) -> u64 {
    (number << 1 ^ number >> 63) as u64
}

fn from_zigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

impl ChunkRef {
    pub(crate) fn encode(self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.block.to_le_bytes());
        bytes.push(self.blocks);
    }
}

/// The chunks in the bytes of a list; what is left over at the end is ignored.
pub(crate) fn chunks_of(list: &[u8]) -> impl Iterator<Item = ChunkRef> {
    list.chunks_exact(CHUNK_REF_BYTES).filter_map(|bytes| {
        let mut reader = Reader::new(bytes);
        Some(ChunkRef { block: reader.u32()?, blocks: reader.u8()? })
    })
}

impl<'a> ChunkList<'a> {
    /// The chunks that the record itself lists.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = ChunkRef> + use<'a> {
        chunks_of(self.refs)
    }
}

impl<'a> ReadRecord<'a> {
    /// Reads the record that `bytes` begin with; `None` for padding and for what no record begins with.
    #[inline]
    pub(crate) fn decode(bytes: &'a [u8]) -> Option<ReadRecord<'a>> {
        let mut reader = Reader::new(bytes);
        let flags = reader.u8()?;
        if flags & !(INTEGER | EXPIRES | CHUNKED) != PRESENT || flags & (INTEGER | CHUNKED) == INTEGER | CHUNKED {
            return None;
        }
        let database = DatabaseId(u32::try_from(reader.varint()?).ok()?);
        let (key_bytes, value_bytes) = (reader.varint()?, reader.varint()?);
        let version = Version(reader.u64()?);
        let age = from_zigzag(reader.varint()?);
        let created = u32::try_from(((version.time_ms() / 1000) as i64).checked_sub(age)?).ok()?;
        let expire_at = if flags & EXPIRES != 0 { Some(reader.u64()?) } else { None };
        let body = if flags & CHUNKED != 0 {
            let (depth, list_bytes) = (reader.u8()?, reader.varint()?);
            let count = usize::try_from(reader.varint()?).ok().filter(|count| *count <= LISTED_MAX)?;
            if !(1..=2).contains(&depth) || key_bytes.checked_add(value_bytes).is_none() {
                return None;
            }
            let list = ChunkList { depth, list_bytes, refs: reader.bytes(count * CHUNK_REF_BYTES)? };
            Body::Chunked { key_bytes, value_bytes, list }
        } else {
            let key = reader.bytes(usize::try_from(key_bytes).ok()?)?;
            let value = reader.bytes(usize::try_from(value_bytes).ok()?)?;
            let value = if flags & INTEGER != 0 { Value::from_integer_bytes(value)? } else { Value::Bytes(value) };
            Body::Inline { key, value }
        };
        let bytes = bytes.len() - reader.rest().len();
        Some(ReadRecord { database, version, created, expire_at, body, bytes })
    }

    /// The database and the key of a record in one piece whose end is missing, for telling what is lost.
    pub(crate) fn key_of_torn(bytes: &'a [u8]) -> Option<(DatabaseId, &'a [u8])> {
        let mut reader = Reader::new(bytes);
        let flags = reader.u8()?;
        if flags & !(INTEGER | EXPIRES) != PRESENT {
            return None;
        }
        let database = DatabaseId(u32::try_from(reader.varint()?).ok()?);
        let key_bytes = usize::try_from(reader.varint()?).ok()?;
        let _after_lengths = (reader.varint()?, reader.u64()?, reader.varint()?);
        if flags & EXPIRES != 0 {
            reader.u64()?;
        }
        Some((database, reader.bytes(key_bytes)?))
    }

    /// Whether key and value lie in chunks.
    pub(crate) fn is_chunked(&self) -> bool {
        matches!(self.body, Body::Chunked { .. })
    }

    /// The entry with the key and value that were read for it.
    pub(crate) fn with<'b>(&self, key: &'b [u8], value: Value<'b>) -> Record<'b> {
        let ReadRecord { database, version, created, expire_at, .. } = *self;
        Record { database, key, value, version, created, expire_at }
    }
}

#[cfg(test)]
mod tests {
    use super::super::hex;
    use super::*;
    use proptest::prelude::*;

    const SMALL: Record<'_> = Record {
        database: DatabaseId(300),
        key: b"key",
        value: Value::Bytes(b"value"),
        version: Version::at_ms(1_000_000),
        created: 999,
        expire_at: None,
    };

    #[test]
    fn the_bytes_of_records_are_fixed() {
        let mut bytes = Vec::new();
        encode_inline(&SMALL, &mut bytes);
        assert_eq!(hex(&bytes), "80ac02030500000024f40000".to_owned() + "00" + "02" + "6b6579" + "76616c7565");
        let mut bytes = Vec::new();
        encode_inline(&Record { value: Value::Integer(-2), expire_at: Some(0x0807), ..SMALL }, &mut bytes);
        assert_eq!(hex(&bytes), "83ac02030100000024f40000".to_owned() + "00" + "02" + "0708000000000000" + "6b6579fe");
        let mut bytes = Vec::new();
        let chunks = [ChunkRef { block: 0x0403_0201, blocks: 16 }, ChunkRef { block: 9, blocks: 1 }];
        let body = ListedBody { key_bytes: 3, value_bytes: 70_000, depth: 1, list_bytes: 0, chunks: &chunks };
        encode_chunked(&SMALL, &body, &mut bytes);
        assert_eq!(
            hex(&bytes),
            "84ac0203f0a20400000024f4000000".to_owned() + "02" + "010002" + "0102030410" + "0900000001"
        );
    }

    #[test]
    fn a_small_record_takes_thirteen_bytes_more_than_its_key_and_value() {
        let record = Record { database: DatabaseId(0), ..SMALL };
        assert_eq!(inline_bytes(&record), 13 + 3 + 5);
    }

    fn values() -> impl Strategy<Value = (Vec<u8>, Option<i64>)> {
        (prop::collection::vec(any::<u8>(), 0..300), any::<Option<i64>>())
    }

    proptest! {
        #[test]
        fn every_record_comes_back(
            database: u32, key in prop::collection::vec(any::<u8>(), 0..300), value in values(), version: u64,
            created: u32, expire_at: Option<u64>, behind in prop::collection::vec(any::<u8>(), 0..9),
        ) {
            let value = value.1.map_or(Value::Bytes(&value.0), Value::Integer);
            let database = DatabaseId(database);
            let record = Record { database, key: &key, value, version: Version(version), created, expire_at };
            let mut bytes = Vec::new();
            encode_inline(&record, &mut bytes);
            prop_assert_eq!(bytes.len(), inline_bytes(&record));
            prop_assert!(bytes.len() <= overhead_bytes_max() + key.len() + value.stored_bytes());
            let length = bytes.len();
            bytes.extend_from_slice(&behind);
            let read = ReadRecord::decode(&bytes).expect("a record");
            prop_assert_eq!(read.bytes, length);
            prop_assert_eq!(read.with(&key, value), record);
            prop_assert_eq!(read.body, Body::Inline { key: &key, value });
            for cut in 0..length {
                prop_assert_eq!(ReadRecord::decode(&bytes[..cut]), None);
            }
        }

        #[test]
        fn every_record_in_chunks_comes_back(
            blocks in prop::collection::vec((any::<u32>(), any::<u8>()), 0..LISTED_MAX), value_bytes: u32, two: bool,
        ) {
            let chunks: Vec<ChunkRef> = blocks.iter().map(|&(block, blocks)| ChunkRef { block, blocks }).collect();
            let body = ListedBody {
                key_bytes: 3,
                value_bytes: u64::from(value_bytes), depth: 1 + u8::from(two), list_bytes: 7, chunks: &chunks,
            };
            let mut bytes = Vec::new();
            encode_chunked(&SMALL, &body, &mut bytes);
            prop_assert!(bytes.len() <= super::super::leaf::CHUNKED_RECORD_BYTES_MAX);
            let read = ReadRecord::decode(&bytes).expect("a record");
            let Body::Chunked { key_bytes, value_bytes: read_value, list } = read.body else {
                return Err(TestCaseError::fail("not in chunks"));
            };
            prop_assert_eq!((key_bytes, read_value, list.depth, list.list_bytes), (3, body.value_bytes, body.depth, 7));
            prop_assert!(list.chunks().eq(chunks));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(mut bytes in prop::collection::vec(any::<u8>(), 1..100), flags in 0u8..8) {
            let _ = ReadRecord::decode(&bytes);
            bytes[0] = PRESENT | flags;
            let _ = ReadRecord::decode(&bytes);
        }
    }
}
