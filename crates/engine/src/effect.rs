//! Effects: the deterministic changes that the log stores. From this file alone one can read a record of the log.
//!
//! ```text
//!  effect  = kind (1 byte), then by kind:
//!   1 Put       database, flags, key, [expiry if flag 0], value      flag 1: the value is an integer, 1 to 8 LE bytes
//!   2 Delete    database, key
//!   3 Expire    database, key, expiry                                 expiry 0: none any more
//!   4 Append    database, key, bytes
//!   5 SetRange  database, key, offset (varint), bytes
//!   6 Move      database, key, to database, to key                    keeps creation time and expiry
//!   7 NewTable  number (varint), database                             FLUSHDB: the number stands for an empty database
//!   8 Swap      number (varint), number (varint)                      SWAPDB
//!   9 Reset                                                           FLUSHALL: nothing before it matters
//!  database = physical id, varint          key, value, bytes = length (varint), bytes
//!  expiry   = milliseconds since the Unix epoch, u64 LE                varint = LEB128, at most 5 bytes
//! ```
//!
//! The numbers of the kinds are fixed for ever; new ones are added at the end. An effect holds no time, no randomness
//! and no relative number: replaying it is a pure function of bytes. Not here: which version it has (`log`).

use crate::keyspace::DatabaseId;
use crate::keyspace::entry::Value;
use bowline_resp::{Bulk, Chunks};

const PUT: u8 = 1;
const DELETE: u8 = 2;
const EXPIRE: u8 = 3;
const APPEND: u8 = 4;
const SET_RANGE: u8 = 5;
const MOVE: u8 = 6;
const NEW_TABLE: u8 = 7;
const SWAP: u8 = 8;
const RESET: u8 = 9;

const FLAG_EXPIRES: u8 = 1 << 0;
const FLAG_INTEGER: u8 = 1 << 1;

/// One change; the head of this file says what its bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect<'a> {
    /// The key has this value and this expiry.
    Put {
        /// Where.
        database: DatabaseId,
        /// The key.
        key: &'a [u8],
        /// Its new value.
        value: Value<'a>,
        /// Milliseconds since the Unix epoch.
        expire_at: Option<u64>,
    },
    /// The key is gone.
    Delete {
        /// Where.
        database: DatabaseId,
        /// The key.
        key: &'a [u8],
    },
    /// The key, which exists, has this expiry.
    Expire {
        /// Where.
        database: DatabaseId,
        /// The key.
        key: &'a [u8],
        /// Milliseconds since the Unix epoch.
        expire_at: Option<u64>,
    },
    /// These bytes follow the value of the key, which exists.
    Append {
        /// Where.
        database: DatabaseId,
        /// The key.
        key: &'a [u8],
        /// What is added.
        bytes: Bulk<'a>,
    },
    /// These bytes stand at `offset` of the value of the key, which exists; zeros fill a gap before them.
    SetRange {
        /// Where.
        database: DatabaseId,
        /// The key.
        key: &'a [u8],
        /// First byte that changes.
        offset: u32,
        /// What is put there.
        bytes: Bulk<'a>,
    },
    /// The entry, which exists, has another key or database; an entry there is replaced.
    Move {
        /// From where.
        database: DatabaseId,
        /// The old key.
        key: &'a [u8],
        /// To where.
        to_database: DatabaseId,
        /// The new key.
        to_key: &'a [u8],
    },
    /// The database number stands for an empty database.
    NewTable {
        /// A number of SELECT.
        number: u32,
        /// Its fresh id.
        database: DatabaseId,
    },
    /// Two database numbers exchange what they stand for.
    Swap {
        /// A number of SELECT.
        first: u32,
        /// Another.
        second: u32,
    },
    /// Everything is empty, and every number stands for its own id.
    Reset,
}

/// The bytes are not an effect that this release knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAnEffect;

impl<'a> Effect<'a> {
    /// Appends the effect's bytes to `out`.
    pub fn encode(&self, out: &mut impl EffectBytes) {
        match *self {
            Effect::Put { database, key, value, expire_at } => {
                encode_put(out.bytes(), database, key, value, expire_at);
                put_value(out, value);
            }
            Effect::Append { database, key, bytes } => {
                start(out.bytes(), APPEND, database, key);
                put_bulk(out, bytes);
            }
            Effect::SetRange { database, key, offset, bytes } => {
                start(out.bytes(), SET_RANGE, database, key);
                put_varint(out.bytes(), offset);
                put_bulk(out, bytes);
            }
            _ => self.encode_short(out.bytes()),
        }
    }

    /// The effects that hold no value.
    fn encode_short(&self, out: &mut Vec<u8>) {
        match *self {
            Effect::Put { .. } | Effect::Append { .. } | Effect::SetRange { .. } => {
                unreachable!("effects with values are encoded by `encode`")
            }
            Effect::Delete { database, key } => {
                start(out, DELETE, database, key);
            }
            Effect::Expire { database, key, expire_at } => {
                start(out, EXPIRE, database, key);
                out.extend_from_slice(&expire_at.unwrap_or(0).to_le_bytes());
            }
            Effect::Move { database, key, to_database, to_key } => {
                start(out, MOVE, database, key);
                put_varint(out, to_database.0);
                put_bytes(out, to_key);
            }
            Effect::NewTable { number, database } => {
                out.push(NEW_TABLE);
                put_varint(out, number);
                put_varint(out, database.0);
            }
            Effect::Swap { first, second } => {
                out.push(SWAP);
                put_varint(out, first);
                put_varint(out, second);
            }
            Effect::Reset => out.push(RESET),
        }
    }

    /// Reads the effect at the front of `bytes`; returns it and what follows.
    pub fn decode(bytes: &'a [u8]) -> Result<(Effect<'a>, &'a [u8]), NotAnEffect> {
        let mut reader = Reader(bytes);
        let effect = match reader.byte()? {
            PUT => decode_put(&mut reader)?,
            DELETE => Effect::Delete { database: reader.database()?, key: reader.bytes()? },
            EXPIRE => {
                let (database, key) = (reader.database()?, reader.bytes()?);
                Effect::Expire { database, key, expire_at: Some(reader.u64()?).filter(|&at| at != 0) }
            }
            APPEND => {
                let (database, key) = (reader.database()?, reader.bytes()?);
                Effect::Append { database, key, bytes: Bulk::Bytes(reader.bytes()?) }
            }
            SET_RANGE => {
                let (database, key) = (reader.database()?, reader.bytes()?);
                Effect::SetRange { database, key, offset: reader.varint()?, bytes: Bulk::Bytes(reader.bytes()?) }
            }
            MOVE => {
                let (database, key) = (reader.database()?, reader.bytes()?);
                Effect::Move { database, key, to_database: reader.database()?, to_key: reader.bytes()? }
            }
            NEW_TABLE => Effect::NewTable { number: reader.varint()?, database: reader.database()? },
            SWAP => Effect::Swap { first: reader.varint()?, second: reader.varint()? },
            RESET => Effect::Reset,
            _ => return Err(NotAnEffect),
        };
        Ok((effect, reader.0))
    }

    /// The key whose value the effect changes in part or takes elsewhere: its value must be in memory.
    pub(crate) fn needs_value_of(&self) -> Option<(DatabaseId, &'a [u8])> {
        match *self {
            Effect::Expire { database, key, .. }
            | Effect::Append { database, key, .. }
            | Effect::SetRange { database, key, .. }
            | Effect::Move { database, key, .. } => Some((database, key)),
            Effect::Put { .. }
            | Effect::Delete { .. }
            | Effect::NewTable { .. }
            | Effect::Swap { .. }
            | Effect::Reset => None,
        }
    }

    /// The key whose segment the effect changes; `None` where it is more than one or all of them.
    pub fn single_key(&self) -> Option<&'a [u8]> {
        match *self {
            Effect::Put { key, .. }
            | Effect::Delete { key, .. }
            | Effect::Expire { key, .. }
            | Effect::Append { key, .. }
            | Effect::SetRange { key, .. } => Some(key),
            Effect::Move { .. } | Effect::NewTable { .. } | Effect::Swap { .. } | Effect::Reset => None,
        }
    }
}

fn encode_put(out: &mut Vec<u8>, database: DatabaseId, key: &[u8], value: Value<'_>, expire_at: Option<u64>) {
    out.push(PUT);
    put_varint(out, database.0);
    let integer = matches!(value, Value::Integer(_));
    out.push(if expire_at.is_some() { FLAG_EXPIRES } else { 0 } | if integer { FLAG_INTEGER } else { 0 });
    put_bytes(out, key);
    if let Some(at) = expire_at {
        out.extend_from_slice(&at.to_le_bytes());
    }
}

fn put_value(out: &mut impl EffectBytes, value: Value<'_>) {
    match value {
        Value::Bytes(bytes) => put_bytes(out.bytes(), bytes),
        Value::Integer(number) => put_bytes(out.bytes(), &number.to_le_bytes()[..value.stored_bytes()]),
        Value::Chunks(chunks) => put_bulk(out, Bulk::Chunks(chunks)),
    }
}

fn decode_put<'a>(reader: &mut Reader<'a>) -> Result<Effect<'a>, NotAnEffect> {
    let (database, flags, key) = (reader.database()?, reader.byte()?, reader.bytes()?);
    if flags & !(FLAG_EXPIRES | FLAG_INTEGER) != 0 {
        return Err(NotAnEffect);
    }
    let expire_at = if flags & FLAG_EXPIRES != 0 { Some(reader.u64()?) } else { None };
    let bytes = reader.bytes()?;
    let value = if flags & FLAG_INTEGER == 0 {
        Value::Bytes(bytes)
    } else {
        Value::from_integer_bytes(bytes).ok_or(NotAnEffect)?
    };
    Ok(Effect::Put { database, key, value, expire_at })
}

fn start(out: &mut Vec<u8>, kind: u8, database: DatabaseId, key: &[u8]) {
    out.push(kind);
    put_varint(out, database.0);
    put_bytes(out, key);
}

fn put_varint(out: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    // Keys and values are below 4 GiB: see `limits`.
    put_varint(out, bytes.len() as u32);
    out.extend_from_slice(bytes);
}

fn put_bulk(out: &mut impl EffectBytes, bytes: Bulk<'_>) {
    match bytes {
        Bulk::Bytes(bytes) => put_bytes(out.bytes(), bytes),
        Bulk::Chunks(chunks) => {
            put_varint(out.bytes(), chunks.len() as u32);
            out.put_chunks(chunks);
        }
    }
}

/// Where the bytes of effects go.
pub trait EffectBytes {
    /// All of them, or those behind the last chunks.
    fn bytes(&mut self) -> &mut Vec<u8>;
    /// Adds bytes that are in chunks.
    fn put_chunks(&mut self, chunks: &Chunks);
}

impl EffectBytes for Vec<u8> {
    fn bytes(&mut self) -> &mut Vec<u8> {
        self
    }

    fn put_chunks(&mut self, chunks: &Chunks) {
        chunks.iter().for_each(|chunk| self.extend_from_slice(chunk));
    }
}

/// The bytes of a command's effects. Chunks are among them as they are, shared.
#[derive(Debug, Default)]
pub struct Effects {
    /// What is behind the last chunks.
    bytes: Vec<u8>,
    /// What is before it, in order: bytes, and the chunks behind them.
    before: Vec<(Vec<u8>, Chunks)>,
    /// Length of that.
    before_bytes: usize,
}

impl Effects {
    /// Length in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.before_bytes + self.bytes.len()
    }

    /// Whether there is no effect.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all effects.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.before.clear();
        self.before_bytes = 0;
    }

    /// The bytes, where none are in chunks.
    pub(crate) fn plain(&mut self) -> Option<&mut Vec<u8>> {
        self.before.is_empty().then_some(&mut self.bytes)
    }

    /// Takes everything: bytes and the chunks behind them, in order, and the bytes behind the last chunks.
    pub(crate) fn take(&mut self) -> (Vec<(Vec<u8>, Chunks)>, Vec<u8>) {
        self.before_bytes = 0;
        (std::mem::take(&mut self.before), std::mem::take(&mut self.bytes))
    }
}

impl EffectBytes for Effects {
    fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    fn put_chunks(&mut self, chunks: &Chunks) {
        let bytes = std::mem::take(&mut self.bytes);
        self.before_bytes += bytes.len() + chunks.len();
        self.before.push((bytes, chunks.clone()));
    }
}

/// What is left to read; every method fails where it is too short.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], NotAnEffect> {
        let (front, rest) = self.0.split_at_checked(len).ok_or(NotAnEffect)?;
        self.0 = rest;
        Ok(front)
    }

    fn byte(&mut self) -> Result<u8, NotAnEffect> {
        let (&first, rest) = self.0.split_first().ok_or(NotAnEffect)?;
        self.0 = rest;
        Ok(first)
    }

    fn u64(&mut self) -> Result<u64, NotAnEffect> {
        let (front, rest) = self.0.split_first_chunk::<8>().ok_or(NotAnEffect)?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*front))
    }

    fn varint(&mut self) -> Result<u32, NotAnEffect> {
        let mut number = 0u64;
        for shift in (0..35).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(number).map_err(|_| NotAnEffect);
            }
        }
        Err(NotAnEffect)
    }

    fn database(&mut self) -> Result<DatabaseId, NotAnEffect> {
        Ok(DatabaseId(self.varint()?))
    }

    fn bytes(&mut self) -> Result<&'a [u8], NotAnEffect> {
        let len = self.varint()?;
        self.take(len as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn effects() -> Vec<(Effect<'static>, &'static [u8])> {
        let (database, key) = (DatabaseId(300), b"k".as_slice());
        vec![
            (
                Effect::Put { database, key, value: Value::Bytes(b"vv"), expire_at: None },
                b"\x01\xac\x02\x00\x01k\x02vv",
            ),
            (
                Effect::Put { database, key, value: Value::Integer(-2), expire_at: Some(258) },
                b"\x01\xac\x02\x03\x01k\x02\x01\0\0\0\0\0\0\x01\xfe",
            ),
            (Effect::Delete { database, key }, b"\x02\xac\x02\x01k"),
            (Effect::Expire { database, key, expire_at: Some(1) }, b"\x03\xac\x02\x01k\x01\0\0\0\0\0\0\0"),
            (Effect::Expire { database, key, expire_at: None }, b"\x03\xac\x02\x01k\0\0\0\0\0\0\0\0"),
            (Effect::Append { database, key, bytes: Bulk::Bytes(b"x") }, b"\x04\xac\x02\x01k\x01x"),
            (
                Effect::SetRange { database, key, offset: 128, bytes: Bulk::Bytes(b"x") },
                b"\x05\xac\x02\x01k\x80\x01\x01x",
            ),
            (Effect::Move { database, key, to_database: DatabaseId(1), to_key: b"t" }, b"\x06\xac\x02\x01k\x01\x01t"),
            (Effect::NewTable { number: 2, database }, b"\x07\x02\xac\x02"),
            (Effect::Swap { first: 0, second: 9 }, b"\x08\x00\x09"),
            (Effect::Reset, b"\x09"),
        ]
    }

    #[test]
    fn every_kind_has_the_bytes_that_it_had_in_the_first_release() {
        for (effect, golden) in effects() {
            let mut bytes = Vec::new();
            effect.encode(&mut bytes);
            assert_eq!(bytes.escape_ascii().to_string(), golden.escape_ascii().to_string(), "{effect:?}");
            assert_eq!(Effect::decode(golden), Ok((effect, &b""[..])));
        }
    }

    #[test]
    fn chunks_among_the_bytes_make_the_same_record() {
        let (database, key, bytes) = (DatabaseId(3), b"k".as_slice(), vec![b'v'; 200_000]);
        let chunks = Chunks::copy_of(&bytes);
        let (mut plain, mut effects) = (Vec::new(), Effects::default());
        for (value, bulk) in
            [(Value::Bytes(&bytes), Bulk::Bytes(&bytes)), (Value::Chunks(&chunks), Bulk::Chunks(&chunks))]
        {
            let shared = matches!(value, Value::Chunks(_));
            for effect in [
                Effect::Put { database, key, value, expire_at: Some(9) },
                Effect::Append { database, key, bytes: bulk },
                Effect::SetRange { database, key, offset: 300, bytes: bulk },
                Effect::Delete { database, key },
            ] {
                if shared { effect.encode(&mut effects) } else { effect.encode(&mut plain) }
            }
        }
        assert_eq!((effects.len(), effects.is_empty()), (plain.len(), false));
        let (before, last) = effects.take();
        let mut all = Vec::new();
        for (bytes, chunks) in &before {
            all.extend_from_slice(bytes);
            all.put_chunks(chunks);
        }
        all.extend(last);
        assert!(all == plain && before.len() == 3 && effects.is_empty());
    }

    #[test]
    fn a_cut_effect_is_refused() {
        for (effect, golden) in effects() {
            for len in 0..golden.len() {
                assert_eq!(Effect::decode(&golden[..len]), Err(NotAnEffect), "{effect:?} cut to {len}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok((effect, rest)) = Effect::decode(&bytes) {
                let mut again = Vec::new();
                effect.encode(&mut again);
                prop_assert_eq!(Effect::decode(&again), Ok((effect, &b""[..])));
                prop_assert!(rest.len() < bytes.len());
            }
        }
    }
}
