//! A record: one entry with all that belongs to it, in the stream of a data extent.
//!
//! ```text
//!  record   flags u8          bit 0 integer, 1 expires, 2 chunked, 3 to 6 compression (below), 7 set
//!           database varint   key bytes varint   value bytes varint (as stored)
//!           plain bytes varint                    only with compression: those of the value itself
//!           version u64       created: zigzag varint of (the version's second - created)
//!           expiry u64 ms     only with bit 1
//!           key | value       without bit 2; a value with bit 0 is an i64 in 1 to 8 little-endian bytes, a compressed
//!                             one is itself at most 48 KiB long
//!           depth u8 | list bytes varint | count varint | chunks: block u32, blocks u8, ...      with bit 2
//! ```
//!
//! Compression is 0 for none, 1 for a block of LZ4, 2 for a frame of Zstandard, 3 for one that needs the dictionary in
//! the manifest (not in chunks).
//!
//! A record whose flags are 0 ends the stream: what follows is padding. The *body* of a chunked record is its key and
//! its value, one behind the other, in the streams of chunk extents: all full but the last. With depth 1 the record
//! lists them; with depth 2 it lists chunks that hold `list bytes` bytes of such a list. A compressed value in chunks
//! is a row of parts, each compressed by itself:
//!
//! ```text
//!  part     plain bytes u32, at most 128 KiB   stored bytes u32   as many bytes; as they are when both are equal
//! ```

use super::{Reader, put, put_varint, varint_bytes};
use crate::keyspace::DatabaseId;
use crate::keyspace::entry::Value;
use crate::limits::VALUE_BYTES_MAX;
use crate::version::Version;

const INTEGER: u8 = 1 << 0;
const EXPIRES: u8 = 1 << 1;
const CHUNKED: u8 = 1 << 2;
const COMPRESSION: u8 = 0xF << COMPRESSION_SHIFT;
const COMPRESSION_SHIFT: u32 = 3;
const PRESENT: u8 = 1 << 7;

/// Bytes of a chunk in a list.
pub(crate) const CHUNK_REF_BYTES: usize = 5;
/// Most chunks that a record lists itself; more are listed in chunks.
pub(crate) const LISTED_MAX: usize = 400;
/// Longest part of a record before its key or its list, without what compression adds: a compressed record is never
/// longer than the plain one.
const HEAD_BYTES_MAX: usize = 1 + 5 + 10 + 10 + 8 + 10 + 8;
/// Longest number of plain bytes.
const PLAIN_NUMBER_BYTES_MAX: usize = 5;
/// Longest record that is kept in one piece; one that would be longer without compression is put into chunks.
pub(crate) const INLINE_BYTES_MAX: usize = 48 * 1024;
/// Most bytes of a value in one part of it.
pub(crate) const PART_BYTES_MAX: usize = 128 * 1024;
/// Bytes before those of a part.
pub(crate) const PART_HEAD_BYTES: usize = 8;

const _: () = assert!(
    HEAD_BYTES_MAX + PLAIN_NUMBER_BYTES_MAX + 1 + 10 + 2 + LISTED_MAX * CHUNK_REF_BYTES
        <= super::leaf::CHUNKED_RECORD_BYTES_MAX
);
const _: () = assert!(VALUE_BYTES_MAX < 1 << (7 * PLAIN_NUMBER_BYTES_MAX));

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

/// How bytes of a value are compressed. The numbers are on disk; 0 is not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Method {
    /// A block of LZ4, without its length.
    Lz4 = 1,
    /// A frame of Zstandard.
    Zstd = 2,
    /// The same with the file's dictionary.
    ZstdDictionary = 3,
}

/// The value of a record in one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoredValue<'a> {
    Plain(Value<'a>),
    Compressed(CompressedValue<'a>),
}

/// A value as its compression left it, or a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CompressedValue<'a> {
    pub(crate) method: Method,
    /// Its bytes before.
    pub(crate) plain_bytes: usize,
    pub(crate) bytes: &'a [u8],
}

/// A part of a compressed value in chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part<'a> {
    pub(crate) plain_bytes: usize,
    /// As they are when there are `plain_bytes` of them.
    pub(crate) bytes: &'a [u8],
}

/// What a record holds beside its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body<'a> {
    Inline { key: &'a [u8], value: StoredValue<'a> },
    Chunked { key_bytes: u64, value: ChunkedValue, list: ChunkList<'a> },
}

/// What is known of a value in chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkedValue {
    /// Its bytes in the chunks.
    pub(crate) stored_bytes: u64,
    /// How its parts are compressed, and its bytes before.
    pub(crate) compression: Option<(Method, u64)>,
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
    pub(crate) value: ChunkedValue,
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

/// Appends what comes before the value's bytes in a record of one piece, and the value of an integer or in chunks; returns the bytes
/// that complete it, so that a large value need not be copied.
pub(crate) fn encode_up_to_value<'a>(record: &Record<'a>, bytes: &mut Vec<u8>) -> &'a [u8] {
    let (value, integer) = match record.value {
        Value::Bytes(value) => (value, None),
        Value::Integer(number) => (&[][..], Some(number.to_le_bytes())),
        Value::Chunks(_) => (&[][..], None),
    };
    let stored = record.value.stored_bytes();
    let flags = if integer.is_some() { INTEGER } else { 0 };
    encode_head(record, flags, record.key.len() as u64, (stored as u64, None), bytes);
    bytes.extend_from_slice(record.key);
    if let Some(number) = integer {
        bytes.extend_from_slice(&number[..stored]);
    }
    if let Value::Chunks(chunks) = record.value {
        chunks.iter().for_each(|chunk| bytes.extend_from_slice(chunk));
    }
    value
}

/// Appends a record with its key and a compressed value in one piece; the value of `record` is not looked at.
pub(crate) fn encode_compressed(record: &Record<'_>, value: &CompressedValue<'_>, bytes: &mut Vec<u8>) {
    assert!(value.plain_bytes <= INLINE_BYTES_MAX, "a longer value lies in chunks");
    let plain = (value.method, value.plain_bytes as u64);
    encode_head(record, 0, record.key.len() as u64, (value.bytes.len() as u64, Some(plain)), bytes);
    bytes.extend_from_slice(record.key);
    bytes.extend_from_slice(value.bytes);
}

/// Appends a record whose key and value lie in chunks; those of `record` are not looked at.
pub(crate) fn encode_chunked(record: &Record<'_>, body: &ListedBody<'_>, bytes: &mut Vec<u8>) {
    assert!(body.chunks.len() <= LISTED_MAX, "a record lists a bounded number of chunks");
    let ChunkedValue { stored_bytes, compression } = body.value;
    encode_head(record, CHUNKED, body.key_bytes, (stored_bytes, compression), bytes);
    bytes.push(body.depth);
    put_varint(bytes, body.list_bytes);
    put_varint(bytes, body.chunks.len() as u64);
    for chunk in body.chunks {
        chunk.encode(bytes);
    }
}

fn encode_head(
    record: &Record<'_>,
    flags: u8,
    key_bytes: u64,
    (stored_bytes, compression): (u64, Option<(Method, u64)>),
    bytes: &mut Vec<u8>,
) {
    let method = compression.map_or(0, |(method, _)| (method as u8) << COMPRESSION_SHIFT);
    bytes.push(PRESENT | flags | method | if record.expire_at.is_some() { EXPIRES } else { 0 });
    put_varint(bytes, u64::from(record.database.0));
    put_varint(bytes, key_bytes);
    put_varint(bytes, stored_bytes);
    if let Some((_, plain_bytes)) = compression {
        put_varint(bytes, plain_bytes);
    }
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

/// Most bytes that a value of `plain_bytes` takes as a row of parts.
pub(crate) fn parts_bytes_max(plain_bytes: u64) -> u64 {
    plain_bytes + plain_bytes.div_ceil(PART_BYTES_MAX as u64) * PART_HEAD_BYTES as u64
}

impl<'a> Part<'a> {
    /// What stands before the part's bytes.
    pub(crate) fn head(&self) -> [u8; PART_HEAD_BYTES] {
        assert!(self.plain_bytes <= PART_BYTES_MAX && self.bytes.len() <= self.plain_bytes, "a part has its limits");
        let mut head = [0; PART_HEAD_BYTES];
        put(&mut head, 0, (self.plain_bytes as u32).to_le_bytes());
        put(&mut head, 4, (self.bytes.len() as u32).to_le_bytes());
        head
    }

    /// Takes the part that `bytes` begin with off; `None` for what no part begins with.
    pub(crate) fn take(bytes: &mut &'a [u8]) -> Option<Part<'a>> {
        let mut reader = Reader::new(bytes);
        let (plain_bytes, stored_bytes) = (reader.u32()? as usize, reader.u32()? as usize);
        if plain_bytes == 0 || plain_bytes > PART_BYTES_MAX || stored_bytes > plain_bytes {
            return None;
        }
        let part = Part { plain_bytes, bytes: reader.bytes(stored_bytes)? };
        *bytes = reader.rest();
        Some(part)
    }
}

impl Method {
    const ALL: [Method; 3] = [Method::Lz4, Method::Zstd, Method::ZstdDictionary];

    /// As people call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Method::Lz4 => "lz4",
            Method::Zstd => "zstd",
            Method::ZstdDictionary => "zstd, dictionary",
        }
    }
}

impl StoredValue<'_> {
    /// Bytes of the value itself, an integer as text.
    pub(crate) fn plain_bytes(&self) -> u64 {
        match self {
            StoredValue::Plain(value) => value.len() as u64,
            StoredValue::Compressed(value) => value.plain_bytes as u64,
        }
    }

    /// Bytes that it takes in the record.
    pub(crate) fn stored_bytes(&self) -> u64 {
        match self {
            StoredValue::Plain(value) => value.stored_bytes() as u64,
            StoredValue::Compressed(value) => value.bytes.len() as u64,
        }
    }

    /// How it is compressed.
    pub(crate) fn method(&self) -> Option<Method> {
        match self {
            StoredValue::Plain(_) => None,
            StoredValue::Compressed(value) => Some(value.method),
        }
    }
}

impl ChunkedValue {
    /// Bytes of the value itself.
    pub(crate) fn plain_bytes(&self) -> u64 {
        self.compression.map_or(self.stored_bytes, |(_, plain_bytes)| plain_bytes)
    }
}

impl<'a> ChunkList<'a> {
    fn read(key_bytes: u64, stored_bytes: u64, reader: &mut Reader<'a>) -> Option<ChunkList<'a>> {
        let (depth, list_bytes) = (reader.u8()?, reader.varint()?);
        let count = usize::try_from(reader.varint()?).ok().filter(|count| *count <= LISTED_MAX)?;
        if !(1..=2).contains(&depth) || key_bytes.checked_add(stored_bytes).is_none() {
            return None;
        }
        Some(ChunkList { depth, list_bytes, refs: reader.bytes(count * CHUNK_REF_BYTES)? })
    }

    /// The chunks that the record itself lists.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = ChunkRef> + use<'a> {
        chunks_of(self.refs)
    }
}

/// Reads how a value is compressed and its bytes before, which are no more than a value may have.
fn read_compression(flags: u8, reader: &mut Reader<'_>) -> Option<(Method, u64)> {
    let number = (flags & COMPRESSION) >> COMPRESSION_SHIFT;
    let method = Method::ALL.into_iter().find(|method| *method as u8 == number)?;
    if flags & CHUNKED != 0 && method == Method::ZstdDictionary {
        return None;
    }
    let plain_bytes = reader.varint()?;
    (plain_bytes <= VALUE_BYTES_MAX as u64).then_some((method, plain_bytes))
}

impl<'a> ReadRecord<'a> {
    /// Reads the record that `bytes` begin with; `None` for padding and for what no record begins with.
    #[inline]
    pub(crate) fn decode(bytes: &'a [u8]) -> Option<ReadRecord<'a>> {
        let mut reader = Reader::new(bytes);
        let flags = reader.u8()?;
        let known = INTEGER | EXPIRES | CHUNKED | COMPRESSION;
        if flags & !known != PRESENT || flags & INTEGER != 0 && flags & (CHUNKED | COMPRESSION) != 0 {
            return None;
        }
        let database = DatabaseId(u32::try_from(reader.varint()?).ok()?);
        let (key_bytes, stored_bytes) = (reader.varint()?, reader.varint()?);
        let compression = if flags & COMPRESSION != 0 { Some(read_compression(flags, &mut reader)?) } else { None };
        let version = Version(reader.u64()?);
        let age = from_zigzag(reader.varint()?);
        let created = u32::try_from(((version.time_ms() / 1000) as i64).checked_sub(age)?).ok()?;
        let expire_at = if flags & EXPIRES != 0 { Some(reader.u64()?) } else { None };
        let body = if flags & CHUNKED != 0 {
            let value = ChunkedValue { stored_bytes, compression };
            Body::Chunked { key_bytes, value, list: ChunkList::read(key_bytes, stored_bytes, &mut reader)? }
        } else {
            let key = reader.bytes(usize::try_from(key_bytes).ok()?)?;
            let bytes = reader.bytes(usize::try_from(stored_bytes).ok()?)?;
            let value = match compression {
                Some((method, plain_bytes)) => {
                    let plain_bytes = usize::try_from(plain_bytes).ok().filter(|bytes| *bytes <= INLINE_BYTES_MAX)?;
                    StoredValue::Compressed(CompressedValue { method, plain_bytes, bytes })
                }
                None if flags & INTEGER != 0 => StoredValue::Plain(Value::from_integer_bytes(bytes)?),
                None => StoredValue::Plain(Value::Bytes(bytes)),
            };
            Body::Inline { key, value }
        };
        let bytes = bytes.len() - reader.rest().len();
        Some(ReadRecord { database, version, created, expire_at, body, bytes })
    }

    /// Whether the value is compressed.
    #[cfg(test)]
    pub(crate) fn is_compressed(&self) -> bool {
        match self.body {
            Body::Inline { value, .. } => value.method().is_some(),
            Body::Chunked { value, .. } => value.compression.is_some(),
        }
    }

    /// The database and the key of a record in one piece whose end is missing, for telling what is lost.
    pub(crate) fn key_of_torn(bytes: &'a [u8]) -> Option<(DatabaseId, &'a [u8])> {
        let mut reader = Reader::new(bytes);
        let flags = reader.u8()?;
        if flags & !(INTEGER | EXPIRES | COMPRESSION) != PRESENT {
            return None;
        }
        let database = DatabaseId(u32::try_from(reader.varint()?).ok()?);
        let key_bytes = usize::try_from(reader.varint()?).ok()?;
        let _value_bytes = reader.varint()?;
        if flags & COMPRESSION != 0 {
            read_compression(flags, &mut reader)?;
        }
        let _times = (reader.u64()?, reader.varint()?);
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
        let value = ChunkedValue { stored_bytes: 70_000, compression: None };
        let body = ListedBody { key_bytes: 3, value, depth: 1, list_bytes: 0, chunks: &chunks };
        encode_chunked(&SMALL, &body, &mut bytes);
        assert_eq!(
            hex(&bytes),
            "84ac0203f0a20400000024f4000000".to_owned() + "02" + "010002" + "0102030410" + "0900000001"
        );
    }

    #[test]
    fn the_bytes_of_compressed_records_are_fixed() {
        let mut bytes = Vec::new();
        let value = CompressedValue { method: Method::Lz4, plain_bytes: 300, bytes: b"value" };
        encode_compressed(&SMALL, &value, &mut bytes);
        assert_eq!(hex(&bytes), "88ac020305ac0200000024f40000".to_owned() + "00" + "02" + "6b6579" + "76616c7565");
        let mut bytes = Vec::new();
        let value = ChunkedValue { stored_bytes: 70_000, compression: Some((Method::Zstd, 300_000)) };
        let chunks = [ChunkRef { block: 9, blocks: 1 }];
        let body = ListedBody { key_bytes: 3, value, depth: 1, list_bytes: 0, chunks: &chunks };
        encode_chunked(&SMALL, &body, &mut bytes);
        assert_eq!(hex(&bytes), "94ac0203f0a204e0a71200000024f4000000".to_owned() + "02" + "010001" + "0900000001");
        assert_eq!(hex(&Part { plain_bytes: 0x0201, bytes: b"abc" }.head()), "0102000003000000");
    }

    #[test]
    fn the_numbers_of_methods_are_fixed() {
        assert_eq!(Method::ALL.map(|method| method as u8), [1, 2, 3]);
    }

    #[test]
    fn a_compressed_record_may_not_promise_more_than_fits_one_piece() {
        let encoded = |plain_bytes: u64| {
            let mut bytes = Vec::new();
            encode_head(&SMALL, 0, 3, (5, Some((Method::Zstd, plain_bytes))), &mut bytes);
            bytes.extend_from_slice(b"keyvalue");
            bytes
        };
        assert!(ReadRecord::decode(&encoded(INLINE_BYTES_MAX as u64)).is_some());
        for promised in [INLINE_BYTES_MAX as u64 + 1, u64::from(u32::MAX), u64::MAX] {
            assert_eq!(ReadRecord::decode(&encoded(promised)), None);
        }
        let mut bytes = Vec::new();
        encode_head(&SMALL, CHUNKED, 3, (5, Some((Method::Zstd, VALUE_BYTES_MAX as u64 + 1))), &mut bytes);
        bytes.extend_from_slice(&[1, 0, 0]);
        assert_eq!(ReadRecord::decode(&bytes), None);
    }

    #[test]
    fn compression_of_a_later_release_and_of_integers_is_no_record() {
        let mut bytes = Vec::new();
        encode_compressed(
            &SMALL,
            &CompressedValue { method: Method::Lz4, plain_bytes: 9, bytes: b"value" },
            &mut bytes,
        );
        for number in 0..16u8 {
            bytes[0] = PRESENT | number << COMPRESSION_SHIFT;
            let known = (1..=3).contains(&number);
            assert_eq!(matches!(ReadRecord::decode(&bytes), Some(read) if read.is_compressed()), known, "{number}");
            bytes[0] |= INTEGER;
            assert!(number == 0 || ReadRecord::decode(&bytes).is_none());
        }
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
            prop_assert_eq!(read.body, Body::Inline { key: &key, value: StoredValue::Plain(value) });
            for cut in 0..length {
                prop_assert_eq!(ReadRecord::decode(&bytes[..cut]), None);
            }
        }

        #[test]
        fn every_compressed_record_comes_back(
            key in prop::collection::vec(any::<u8>(), 0..300), value in prop::collection::vec(any::<u8>(), 0..300),
            plain_bytes in 0..=INLINE_BYTES_MAX, method in prop::sample::select(&Method::ALL), expire_at: Option<u64>,
        ) {
            let (record, value) = (Record { key: &key, expire_at, ..SMALL }, CompressedValue { method, plain_bytes, bytes: &value });
            let mut bytes = Vec::new();
            encode_compressed(&record, &value, &mut bytes);
            let read = ReadRecord::decode(&bytes).expect("a record");
            prop_assert_eq!(read.bytes, bytes.len());
            prop_assert_eq!(read.body, Body::Inline { key: &key, value: StoredValue::Compressed(value) });
            prop_assert_eq!(read.expire_at, expire_at);
            for cut in 0..bytes.len() {
                prop_assert_eq!(ReadRecord::decode(&bytes[..cut]), None);
            }
        }

        #[test]
        fn every_part_comes_back_and_any_bytes_are_read_without_a_panic(
            plain_bytes in 1..=PART_BYTES_MAX, stored in prop::collection::vec(any::<u8>(), 0..300), any in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let part = Part { plain_bytes: plain_bytes.max(stored.len()), bytes: &stored };
            let bytes = [&part.head()[..], &stored, b"behind"].concat();
            let mut rest = &bytes[..];
            prop_assert_eq!(Part::take(&mut rest), Some(part).filter(|part| part.plain_bytes > 0));
            prop_assert_eq!(rest, b"behind");
            let mut any = &any[..];
            while Part::take(&mut any).is_some() {}
        }

        #[test]
        fn every_record_in_chunks_comes_back(
            blocks in prop::collection::vec((any::<u32>(), any::<u8>()), 0..LISTED_MAX), stored_bytes: u32, two: bool,
            plain_bytes in prop::option::of(0..=VALUE_BYTES_MAX as u64),
        ) {
            let chunks: Vec<ChunkRef> = blocks.iter().map(|&(block, blocks)| ChunkRef { block, blocks }).collect();
            let body = ListedBody {
                key_bytes: 3,
                value: ChunkedValue {
                    stored_bytes: u64::from(stored_bytes),
                    compression: plain_bytes.map(|bytes| (Method::Zstd, bytes)),
                },
                depth: 1 + u8::from(two), list_bytes: 7, chunks: &chunks,
            };
            let mut bytes = Vec::new();
            encode_chunked(&SMALL, &body, &mut bytes);
            prop_assert!(bytes.len() <= super::super::leaf::CHUNKED_RECORD_BYTES_MAX);
            let read = ReadRecord::decode(&bytes).expect("a record");
            let Body::Chunked { key_bytes, value, list } = read.body else {
                return Err(TestCaseError::fail("not in chunks"));
            };
            prop_assert_eq!((key_bytes, value, list.depth, list.list_bytes), (3, body.value, body.depth, 7));
            prop_assert!(list.chunks().eq(chunks));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(mut bytes in prop::collection::vec(any::<u8>(), 1..100), flags in 0u8..128) {
            let _ = ReadRecord::decode(&bytes);
            bytes[0] = PRESENT | flags;
            let _ = ReadRecord::decode(&bytes);
        }
    }
}
