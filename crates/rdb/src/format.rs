//! The bytes of an RDB file.
//!
//! ```text
//!   header   "REDIS" and four digits (0001 to 0012), or "VALKEY" and three (080): nine bytes
//!   then, until 255, one of
//!     250 AUX           string name, string value
//!     254 SELECTDB      length: number of the database that the following entries belong to
//!     251 RESIZEDB      length: keys, length: keys with an expiry (a hint)
//!     253 EXPIRETIME    i32 seconds          of the next entry, since 1970
//!     252 EXPIRETIME_MS i64 milliseconds     of the next entry, since 1970
//!     249 FREQ          one byte             of the next entry (LFU)
//!     248 IDLE          length: seconds      of the next entry (LRU)
//!     247 MODULE_AUX    length: module, length 2, length: when, module values
//!     245 FUNCTION2     string: the source of a function library
//!     244 SLOT_INFO     three lengths (a hint)
//!     type below 128    an entry: string key, then the value as its type says
//!   255 EOF  then, from version 5 on, CRC-64 of everything before it, u64 little-endian; 0 when it was switched off
//!
//!   length   00xxxxxx                              0 to 63
//!            01xxxxxx xxxxxxxx                     14 bits, big-endian
//!            10000000 and 4 bytes, 10000001 and 8  big-endian
//!            11xxxxxx                              no length but an encoded string:
//!   string   length, bytes;  or 11 0: i8   11 1: i16   11 2: i32 (little-endian, its decimal digits are the string)
//!            11 3: length compressed, length plain, LZF bytes
//! ```
//!
//! Not here: how values other than strings are laid out (`skip`), and LZF (`lzf`).

/// Who wrote the file, as far as its first bytes tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Magic {
    /// `REDIS`: Redis of any release, Valkey up to 8.
    Redis,
    /// `VALKEY`: Valkey from 9.0 on.
    Valkey,
}

/// The newest version with the magic `REDIS` that is read: that of Redis 7.4 and 8.
pub const NEWEST_REDIS_VERSION: u32 = 12;
/// The newest version with the magic `VALKEY` that is read: that of Valkey 9.0.
pub const NEWEST_VALKEY_VERSION: u32 = 80;
/// The version that is written: Redis 7.0 and everything after it reads it.
pub const DEFAULT_VERSION: u32 = 10;

/// Length of the header.
pub(crate) const HEADER_BYTES: usize = 9;
/// The first version with a checksum at the end.
pub(crate) const CHECKSUM_SINCE: u32 = 5;

pub(crate) const AUX: u8 = 250;
pub(crate) const RESIZE_DATABASE: u8 = 251;
pub(crate) const EXPIRE_MILLISECONDS: u8 = 252;
pub(crate) const EXPIRE_SECONDS: u8 = 253;
pub(crate) const SELECT_DATABASE: u8 = 254;
pub(crate) const END: u8 = 255;
pub(crate) const FREQUENCY: u8 = 249;
pub(crate) const IDLE: u8 = 248;
pub(crate) const MODULE_AUX: u8 = 247;
pub(crate) const FUNCTION: u8 = 245;
pub(crate) const SLOT_INFO: u8 = 244;
/// Operations are counted down from 255; types up from 0. What lies between is nothing that a release ever wrote.
pub(crate) const LOWEST_OPERATION: u8 = 128;

/// Type of a string.
pub(crate) const STRING: u8 = 0;

/// What the six low bits of a string's first byte mean when its two high bits are set.
pub(crate) const ENCODED_I8: u8 = 0;
pub(crate) const ENCODED_I16: u8 = 1;
pub(crate) const ENCODED_I32: u8 = 2;
pub(crate) const ENCODED_LZF: u8 = 3;

/// First bytes of lengths that do not fit 14 bits, and of encoded strings.
pub(crate) const LENGTH_14: u8 = 0x40;
pub(crate) const LENGTH_32: u8 = 0x80;
pub(crate) const LENGTH_64: u8 = 0x81;
pub(crate) const ENCODED: u8 = 0xc0;

/// Reads the header: who wrote it, in which version. `None` when these are not the first bytes of an RDB.
pub(crate) fn parse_header(header: [u8; HEADER_BYTES]) -> Option<(Magic, u32)> {
    let (magic, digits) = match header.strip_prefix(b"REDIS") {
        Some(digits) => (Magic::Redis, digits),
        None => (Magic::Valkey, header.strip_prefix(b"VALKEY")?),
    };
    let mut version = 0;
    for digit in digits {
        version = version * 10 + u32::from(digit.checked_sub(b'0').filter(|value| *value < 10)?);
    }
    Some((magic, version))
}

/// The name that a module's 64-bit number stands for: nine characters of six bits, then ten bits of version.
pub(crate) fn module_name(number: u64) -> String {
    const CHARACTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    (0..9)
        .map(|place| {
            let index = (number >> (58 - 6 * place)) & 63;
            char::from(CHARACTERS.get(index as usize).copied().unwrap_or(b'?'))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_names_its_writer_and_version() {
        assert_eq!(parse_header(*b"REDIS0011"), Some((Magic::Redis, 11)));
        assert_eq!(parse_header(*b"VALKEY080"), Some((Magic::Valkey, 80)));
        for other in [b"REDIS00x1", b"redis0011", b"VALKEY+80", b"*2\r\n$6\r\nS"] {
            assert_eq!(parse_header(*other), None);
        }
    }

    #[test]
    fn a_module_number_spells_its_name() {
        // "MBbloom--" in encoding version 2, as RedisBloom writes it.
        let spelled = b"MBbloom--".iter().fold(0_u64, |number, character| {
            let place = match character {
                b'A'..=b'Z' => character - b'A',
                b'a'..=b'z' => character - b'a' + 26,
                _ => 62,
            };
            (number << 6) | u64::from(place)
        });
        assert_eq!(module_name((spelled << 10) | 2), "MBbloom--");
    }
}
