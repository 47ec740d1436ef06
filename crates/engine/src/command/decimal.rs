//! Decimal sums for INCRBYFLOAT: exact, then rounded to 17 places after the point, as many as Redis prints.
//!
//! Redis adds in binary with 64 significant bits and prints the same places, so that the two agree unless the error of
//! its binary sum shows (`3000.1 + 0.1` is `3000.2` here and `3000.20000000000000018` there).

use std::cmp::Ordering;

/// Places after the point that are kept.
const PLACES: usize = 17;
/// Longest number that is read, bytes; Redis has the same limit.
const TEXT_MAX: usize = 5 * 1024;
/// Greatest power of ten that is read, that of a long double in Redis; numbers below the inverse are too small to be seen.
const EXPONENT_MAX: i32 = 4932;

/// A finite decimal number: `digits * 10^exponent`, the most significant digit first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decimal {
    negative: bool,
    digits: Vec<u8>,
    exponent: i32,
}

impl Decimal {
    /// Reads a number such as `-12.5`, `.5`, `5.` or `1.5e-3`.
    pub(super) fn parse(text: &[u8]) -> Option<Decimal> {
        let unsigned = text.strip_prefix(b"-").or_else(|| text.strip_prefix(b"+")).unwrap_or(text);
        let (mantissa, power) = match unsigned.iter().position(|byte| matches!(byte, b'e' | b'E')) {
            Some(at) => {
                let (mantissa, power) = unsigned.split_at(at);
                let power = std::str::from_utf8(power.get(1..)?).ok()?;
                (mantissa, power.parse::<i32>().ok()?)
            }
            None => (unsigned, 0),
        };
        let (whole, fraction) = match mantissa.iter().position(|byte| *byte == b'.') {
            Some(at) => (mantissa.get(..at)?, mantissa.get(at + 1..)?),
            None => (mantissa, &[][..]),
        };
        let digits: Vec<u8> = whole.iter().chain(fraction).map(|digit| digit.wrapping_sub(b'0')).collect();
        if digits.is_empty() || digits.len() > TEXT_MAX || digits.iter().any(|digit| *digit > 9) {
            return None;
        }
        let too_small = power < -EXPONENT_MAX;
        if power > EXPONENT_MAX {
            return None;
        }
        let digits = if too_small { vec![0] } else { digits };
        let exponent = if too_small { 0 } else { power - fraction.len() as i32 };
        Some(Decimal { negative: text.first() == Some(&b'-'), digits, exponent })
    }

    /// The exact sum.
    pub(super) fn plus(&self, other: &Decimal) -> Decimal {
        let exponent = self.exponent.min(other.exponent);
        let (a, b) = (self.scaled_to(exponent), other.scaled_to(exponent));
        let len = a.len().max(b.len());
        let (a, b) = (padded(a, len), padded(b, len));
        if self.negative == other.negative {
            return Decimal { negative: self.negative, digits: add(&a, &b), exponent };
        }
        match a.cmp(&b) {
            Ordering::Less => Decimal { negative: other.negative, digits: subtract(&b, &a), exponent },
            _ => Decimal { negative: self.negative, digits: subtract(&a, &b), exponent },
        }
    }

    fn scaled_to(&self, exponent: i32) -> Vec<u8> {
        let zeros = usize::try_from(self.exponent - exponent).unwrap_or(0);
        let mut digits = self.digits.clone();
        digits.resize(digits.len() + zeros, 0);
        digits
    }

    /// Rounded to 17 places (a half to the even digit), without trailing zeros and without an exponent.
    fn rounded(&self) -> Vec<u8> {
        let places = PLACES as i32;
        if self.exponent >= -places {
            return self.scaled_to(-places);
        }
        let cut = usize::try_from(-places - self.exponent).unwrap_or(usize::MAX);
        let kept = self.digits.len().saturating_sub(cut);
        let (front, rest) = self.digits.split_at(kept);
        let mut half = padded(vec![5], cut);
        half.rotate_left(cut - 1);
        let up = match padded(rest.to_vec(), cut).cmp(&half) {
            Ordering::Less => false,
            Ordering::Equal => front.last().is_some_and(|digit| digit % 2 == 1),
            Ordering::Greater => true,
        };
        let front = padded(front.to_vec(), kept.max(1));
        if up { add(&front, &padded(vec![1], front.len())) } else { front }
    }
}

impl std::fmt::Display for Decimal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = self.rounded();
        let digits = padded(digits.clone(), digits.len().max(PLACES + 1));
        let text: String = digits.iter().map(|digit| char::from(b'0' + digit)).collect();
        let (whole, fraction) = text.split_at(text.len() - PLACES);
        let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
        let sign = if self.negative && !(whole.is_empty() && fraction.is_empty()) { "-" } else { "" };
        let whole = if whole.is_empty() { "0" } else { whole };
        let point = if fraction.is_empty() { "" } else { "." };
        write!(f, "{sign}{whole}{point}{fraction}")
    }
}

/// `digits` with zeros in front, up to `len`.
fn padded(digits: Vec<u8>, len: usize) -> Vec<u8> {
    let mut padded = vec![0; len.saturating_sub(digits.len())];
    padded.extend(digits);
    padded
}

/// The sum of two numbers of one length; one digit longer where it carries.
fn add(a: &[u8], b: &[u8]) -> Vec<u8> {
    let mut sum = Vec::with_capacity(a.len() + 1);
    let mut carry = 0;
    for (x, y) in a.iter().zip(b).rev() {
        let digit = x + y + carry;
        sum.push(digit % 10);
        carry = digit / 10;
    }
    sum.push(carry);
    sum.reverse();
    sum
}

/// `a - b`, where `a` is not smaller and both have one length.
fn subtract(a: &[u8], b: &[u8]) -> Vec<u8> {
    let mut difference = Vec::with_capacity(a.len());
    let mut borrow = 0;
    for (x, y) in a.iter().zip(b).rev() {
        let digit = 10 + x - y - borrow;
        difference.push(digit % 10);
        borrow = u8::from(digit < 10);
    }
    difference.reverse();
    difference
}

#[cfg(test)]
mod tests {
    use super::Decimal;
    use proptest::prelude::*;

    fn sum(a: &str, b: &str) -> String {
        let parse = |text: &str| Decimal::parse(text.as_bytes()).expect("a number");
        parse(a).plus(&parse(b)).to_string()
    }

    #[test]
    fn sums_are_what_a_person_expects() {
        for (a, b, expected) in [
            ("10.50", "0.1", "10.6"),
            ("0.1", "0.2", "0.3"),
            ("5.0e3", "2.0e2", "5200"),
            ("3", "-5", "-2"),
            ("-1.5", "1.5", "0"),
            ("1e20", "1", "100000000000000000001"),
            ("0", "1e-17", "0.00000000000000001"),
            ("0", "4e-18", "0"),
            ("0", "-6e-18", "-0.00000000000000001"),
            ("0", "5e-18", "0"),
            ("9.99999999999999999", "0.00000000000000001", "10"),
            (".5", "5.", "5.5"),
            ("1", "1e-5000", "1"),
        ] {
            assert_eq!(sum(a, b), expected, "{a} + {b}");
        }
    }

    #[test]
    fn what_is_not_a_number_is_refused() {
        for text in ["", ".", "-", "1x", "0x10", "inf", "1e", "1e4999", "1.2.3", " 1", "1e1.5"] {
            assert_eq!(Decimal::parse(text.as_bytes()), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn integers_add_as_integers(a in -1_000_000_000_000i64..1_000_000_000_000, b in -1_000_000_000_000i64..1_000_000_000_000) {
            prop_assert_eq!(sum(&a.to_string(), &b.to_string()), (a + b).to_string());
        }

        #[test]
        fn any_text_is_a_number_or_refused(text in "[-+0-9.eE]{0,12}") {
            if let Some(number) = Decimal::parse(text.as_bytes()) {
                let shown = number.to_string();
                prop_assert_eq!(Decimal::parse(shown.as_bytes()).expect("a number").to_string(), shown);
            }
        }
    }
}
