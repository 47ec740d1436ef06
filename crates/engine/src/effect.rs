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
        bytes: &'a [u8],
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
        bytes: &'a [u8],
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
    pub fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Effect::Put { database, key, value, expire_at } => encode_put(out, database, key, value, expire_at),
            Effect::Delete { database, key } => {
                start(out, DELETE, database, key);
            }
            Effect::Expire { database, key, expire_at } => {
                start(out, EXPIRE, database, key);
                out.extend_from_slice(&expire_at.unwrap_or(0).to_le_bytes());
            }
            Effect::Append { database, key, bytes } => {
                start(out, APPEND, database, key);
                put_bytes(out, bytes);
            }
            Effect::SetRange { database, key, offset, bytes } => {
                start(out, SET_RANGE, database, key);
                put_varint(out, offset);
                put_bytes(out, bytes);
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
            APPEND => Effect::Append { database: reader.database()?, key: reader.bytes()?, bytes: reader.bytes()? },
            SET_RANGE => {
                let (database, key) = (reader.database()?, reader.bytes()?);
                Effect::SetRange { database, key, offset: reader.varint()?, bytes: reader.bytes()? }
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
    match value {
        Value::Bytes(bytes) => put_bytes(out, bytes),
        Value::Integer(number) => put_bytes(out, &number.to_le_bytes()[..value.stored_bytes()]),
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
            (Effect::Append { database, key, bytes: b"x" }, b"\x04\xac\x02\x01k\x01x"),
            (Effect::SetRange { database, key, offset: 128, bytes: b"x" }, b"\x05\xac\x02\x01k\x80\x01\x01x"),
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
