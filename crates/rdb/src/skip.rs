//! Walking over values that are not decoded: every type tells enough lengths for that.
//!
//! ```text
//!   list, set            length n, n strings               hash   length n, n x (string field, string value)
//!   sorted set           length n, n x (string, score);    a score is a byte and that many digits, or 8 bytes (type 5)
//!   one string           zipmap, ziplist, intset, listpack: the whole collection in one string
//!   quicklist            length n, n strings;              from type 18 on, a length before each string
//!   hash with expiries   see `hash_with_expiries`          stream, module: see there
//! ```

use std::io::Read;

use crate::error::ReadError;
use crate::format::{Magic, module_name};
use crate::input::Input;
use crate::item::ValueKind;

/// Where an error happened when a value is cut off.
const VALUE: &str = "a value";

/// Scores that are told by the length byte alone: not a number, and the two infinities.
const SCORES_WITHOUT_DIGITS: std::ops::RangeInclusive<u8> = 253..=255;

/// How a stream is laid out: each release added to it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum StreamLayout {
    First,
    /// With the first entry's identifier, the highest deleted one, entries added, and entries read by each group.
    Second,
    /// With the time when each consumer was last active.
    Third,
}

/// Walks over the value of type `number` and says what it is; `None` when the type is not known, and nothing was read.
pub(crate) fn value<R: Read>(input: &mut Input<R>, magic: Magic, number: u8) -> Result<Option<ValueKind>, ReadError> {
    let kind = match number {
        1 => {
            strings(input, 1)?;
            ValueKind::List
        }
        2 => {
            strings(input, 1)?;
            ValueKind::Set
        }
        3 | 5 => {
            sorted_set(input, number == 5)?;
            ValueKind::SortedSet
        }
        4 => {
            strings(input, 2)?;
            ValueKind::Hash
        }
        7 => ValueKind::Module(module(input)?),
        9 | 13 | 16 => one_string(input, ValueKind::Hash)?,
        10 => one_string(input, ValueKind::List)?,
        11 | 20 => one_string(input, ValueKind::Set)?,
        12 | 17 => one_string(input, ValueKind::SortedSet)?,
        14 => {
            strings(input, 1)?;
            ValueKind::List
        }
        18 => {
            quicklist_with_containers(input)?;
            ValueKind::List
        }
        15 => stream(input, StreamLayout::First)?,
        19 => stream(input, StreamLayout::Second)?,
        21 => stream(input, StreamLayout::Third)?,
        22 if magic == Magic::Valkey => {
            hash_of_valkey(input)?;
            ValueKind::Hash
        }
        24 if magic == Magic::Redis => {
            hash_with_expiries(input)?;
            ValueKind::Hash
        }
        25 if magic == Magic::Redis => {
            input.discard(8, VALUE)?;
            one_string(input, ValueKind::Hash)?
        }
        _ => return Ok(None),
    };
    Ok(Some(kind))
}

fn one_string<R: Read>(input: &mut Input<R>, kind: ValueKind) -> Result<ValueKind, ReadError> {
    input.skip_string(VALUE)?;
    Ok(kind)
}

/// A count, then that many times `each` strings.
fn strings<R: Read>(input: &mut Input<R>, each: u8) -> Result<(), ReadError> {
    for _ in 0..input.length(VALUE)? {
        for _ in 0..each {
            input.skip_string(VALUE)?;
        }
    }
    Ok(())
}

fn sorted_set<R: Read>(input: &mut Input<R>, binary_scores: bool) -> Result<(), ReadError> {
    for _ in 0..input.length(VALUE)? {
        input.skip_string(VALUE)?;
        if binary_scores {
            input.discard(8, VALUE)?;
            continue;
        }
        let digits = input.byte(VALUE)?;
        if !SCORES_WITHOUT_DIGITS.contains(&digits) {
            input.discard(u64::from(digits), VALUE)?;
        }
    }
    Ok(())
}

fn quicklist_with_containers<R: Read>(input: &mut Input<R>) -> Result<(), ReadError> {
    for _ in 0..input.length(VALUE)? {
        input.length(VALUE)?;
        input.skip_string(VALUE)?;
    }
    Ok(())
}

/// Redis 7.4: the earliest expiry (8 bytes), a count, then (length: expiry relative to it, string field, string value).
fn hash_with_expiries<R: Read>(input: &mut Input<R>) -> Result<(), ReadError> {
    input.discard(8, VALUE)?;
    for _ in 0..input.length(VALUE)? {
        input.length(VALUE)?;
        input.skip_string(VALUE)?;
        input.skip_string(VALUE)?;
    }
    Ok(())
}

/// Valkey 9: a count, then (string field, string value, 8 bytes of expiry).
fn hash_of_valkey<R: Read>(input: &mut Input<R>) -> Result<(), ReadError> {
    for _ in 0..input.length(VALUE)? {
        input.skip_string(VALUE)?;
        input.skip_string(VALUE)?;
        input.discard(8, VALUE)?;
    }
    Ok(())
}

/// Listpacks of entries by their first identifier, figures about the whole, then the consumer groups.
fn stream<R: Read>(input: &mut Input<R>, layout: StreamLayout) -> Result<ValueKind, ReadError> {
    strings(input, 2)?;
    // Length and last identifier; then the first one, the highest deleted one, and how many were ever added.
    let figures = if layout >= StreamLayout::Second { 8 } else { 3 };
    lengths(input, figures)?;
    for _ in 0..input.length(VALUE)? {
        input.skip_string(VALUE)?;
        lengths(input, if layout >= StreamLayout::Second { 3 } else { 2 })?;
        for _ in 0..input.length(VALUE)? {
            // Pending: identifier (16 bytes) and time of delivery (8), then how often it was delivered.
            input.discard(24, VALUE)?;
            input.length(VALUE)?;
        }
        for _ in 0..input.length(VALUE)? {
            input.skip_string(VALUE)?;
            input.discard(if layout >= StreamLayout::Third { 16 } else { 8 }, VALUE)?;
            for _ in 0..input.length(VALUE)? {
                input.discard(16, VALUE)?;
            }
        }
    }
    Ok(ValueKind::Stream)
}

fn lengths<R: Read>(input: &mut Input<R>, count: u8) -> Result<(), ReadError> {
    for _ in 0..count {
        input.length(VALUE)?;
    }
    Ok(())
}

/// A module's number, then its values; returns the name of its type. What a module saves beside the keys looks the same:
/// when it is to be loaded stands there as a first value.
pub(crate) fn module<R: Read>(input: &mut Input<R>) -> Result<String, ReadError> {
    let number = input.length(VALUE)?;
    module_values(input)?;
    Ok(module_name(number))
}

/// Values, each with a number that says what it is, until 0.
fn module_values<R: Read>(input: &mut Input<R>) -> Result<(), ReadError> {
    loop {
        match input.length(VALUE)? {
            0 => return Ok(()),
            1 | 2 => drop(input.length(VALUE)?),
            3 => input.discard(4, VALUE)?,
            4 => input.discard(8, VALUE)?,
            5 => input.skip_string(VALUE)?,
            _ => return Err(input.damaged("a value of a module is of no known kind")),
        }
    }
}
