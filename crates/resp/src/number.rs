//! Numbers as text, by the rules of Redis: strict integers, doubles for replies, decimals for INCRBYFLOAT.

/// Reads a decimal integer as Redis does: an optional `-`, digits without leading zeros, nothing else.
///
/// ```
/// use bowline_resp::parse_integer;
/// assert_eq!(parse_integer(b"-17"), Some(-17));
/// assert_eq!(parse_integer(b"+1").or(parse_integer(b"01")).or(parse_integer(b"-0")).or(parse_integer(b" 1")), None);
/// ```
#[must_use]
pub fn parse_integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] if digits.len() <= 19 => {}
        _ => return None,
    }
    let mut magnitude = 0_u64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        // At most 19 digits: below 10^19, which is less than 2^64.
        magnitude = magnitude * 10 + u64::from(digit - b'0');
    }
    if negative { 0_i64.checked_sub_unsigned(magnitude) } else { i64::try_from(magnitude).ok() }
}

/// The text of a double, without allocation. At most 25 bytes of ASCII.
#[derive(Debug, Clone, Copy)]
pub struct DoubleText {
    bytes: [u8; DOUBLE_BYTES_MAX],
    len: usize,
}

const DOUBLE_BYTES_MAX: usize = 32;

impl DoubleText {
    fn new() -> Self {
        Self { bytes: [0; DOUBLE_BYTES_MAX], len: 0 }
    }

    fn push(&mut self, text: &[u8]) {
        self.bytes[self.len..self.len + text.len()].copy_from_slice(text);
        self.len += text.len();
    }

    fn push_zeros(&mut self, count: usize) {
        self.bytes[self.len..self.len + count].fill(b'0');
        self.len += count;
    }

    /// The text as bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

impl std::fmt::Display for DoubleText {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A double as Redis 7.2 writes it in replies and as a score.
///
/// Integers up to 2^62 have no point and no exponent; other numbers have the fewest digits that read back as the same
/// double, with an exponent when the plain form would be long (`1e+20`, `1.5e-7`). Not a number is `nan`, infinities are
/// `inf` and `-inf`. The layout is that of Redis, the digits may not be: its algorithm misses the shortest or nearest ones
/// for about three in a thousand random numbers. Both texts read back as the same double.
///
/// ```
/// use bowline_resp::format_double;
/// assert_eq!(format_double(3.0).as_str(), "3");
/// assert_eq!(format_double(3.14).as_str(), "3.14");
/// assert_eq!(format_double(1e21).as_str(), "1e+21");
/// ```
#[must_use]
pub fn format_double(value: f64) -> DoubleText {
    let mut text = DoubleText::new();
    if value.is_nan() {
        text.push(b"nan");
    } else if value.is_infinite() {
        text.push(if value > 0.0 { b"inf" } else { b"-inf" });
    } else if value == 0.0 {
        text.push(if value.is_sign_negative() { b"-0" } else { b"0" });
    } else if value.abs() <= INTEGER_MAX && value.trunc() == value {
        text.push(itoa::Buffer::new().format(value as i64).as_bytes());
    } else {
        push_decimal(&mut text, value);
    }
    text
}

/// Up to here a double that is an integer is written by its digits. 2^62: the next double of Redis's check.
const INTEGER_MAX: f64 = 4_611_686_018_427_387_904.0;

/// The significant decimal digits of a finite double and the power of ten of the last one.
struct Digits {
    bytes: [u8; 24],
    len: usize,
    exponent: i32,
}

impl Digits {
    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// The shortest digits that read back as `value`; the sign is left out.
    fn shortest(value: f64) -> Self {
        let mut buffer = ryu::Buffer::new();
        let mut digits = Self { bytes: [0; 24], len: 0, exponent: 0 };
        let (mut after_point, mut in_exponent, mut negative, mut written) = (false, false, false, 0_i32);
        for byte in buffer.format_finite(value.abs()).bytes() {
            match byte {
                b'.' => after_point = true,
                b'e' => in_exponent = true,
                b'-' => negative = true,
                digit if in_exponent => written = written * 10 + i32::from(digit - b'0'),
                digit => {
                    digits.exponent -= i32::from(after_point);
                    if digits.len > 0 || digit != b'0' {
                        digits.bytes[digits.len] = digit;
                        digits.len += 1;
                    }
                }
            }
        }
        digits.exponent += if negative { -written } else { written };
        while digits.len > 1 && digits.bytes[digits.len - 1] == b'0' {
            digits.len -= 1;
            digits.exponent += 1;
        }
        digits
    }
}

/// The layout that Redis 7.2 uses: plain while that is short, else scientific.
fn push_decimal(text: &mut DoubleText, value: f64) {
    let digits = Digits::shortest(value);
    let (bytes, count) = (digits.as_bytes(), digits.len as i32);
    // The power of ten of the first digit.
    let magnitude = digits.exponent + count - 1;
    if value < 0.0 {
        text.push(b"-");
    }
    if digits.exponent >= 0 && magnitude < count + 7 {
        text.push(bytes);
        text.push_zeros(digits.exponent as usize);
    } else if digits.exponent < 0 && (digits.exponent > -7 || magnitude.abs() < 4) {
        push_with_point(text, bytes, digits.exponent.unsigned_abs() as usize);
    } else {
        text.push(&bytes[..1]);
        if count > 1 {
            text.push(b".");
            text.push(&bytes[1..]);
        }
        text.push(if magnitude < 0 { b"e-" } else { b"e+" });
        text.push(itoa::Buffer::new().format(magnitude.unsigned_abs()).as_bytes());
    }
}

/// The digits with a point before the last `decimals` of them.
fn push_with_point(text: &mut DoubleText, digits: &[u8], decimals: usize) {
    if digits.len() > decimals {
        let (whole, fraction) = digits.split_at(digits.len() - decimals);
        text.push(whole);
        text.push(b".");
        text.push(fraction);
    } else {
        text.push(b"0.");
        text.push_zeros(decimals - digits.len());
        text.push(digits);
    }
}

/// A double as INCRBYFLOAT and HINCRBYFLOAT store and answer it: no exponent, at most 17 decimals, no trailing zeros.
///
/// Redis computes in 80-bit long doubles and prints 17 decimals, which shows `10.5 + 0.1` as `10.6`. Seventeen decimals of
/// a 64-bit double would show `10.59999999999999964`. We write the fewest digits that read back as the same double, so
/// that sums look as people expect. Results can still differ from Redis in the last digits, because a 64-bit sum is
/// rounded earlier: `0.1 + 0.2` is `0.30000000000000004` here and `0.3` there.
///
/// ```
/// use bowline_resp::format_long_double_human;
/// assert_eq!(format_long_double_human(10.5 + 0.1), "10.6");
/// assert_eq!(format_long_double_human(3.0e3), "3000");
/// ```
#[must_use]
pub fn format_long_double_human(value: f64) -> String {
    const DECIMALS_MAX: usize = 17;
    if !value.is_finite() {
        return format_double(value).as_str().to_owned();
    }
    // The standard library's plain form of a float has the shortest digits and no exponent.
    let shortest = value.to_string();
    let decimals = shortest.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    if decimals <= DECIMALS_MAX {
        return if shortest == "-0" { "0".to_owned() } else { shortest };
    }
    let rounded = format!("{value:.DECIMALS_MAX$}");
    match rounded.trim_end_matches('0').trim_end_matches('.') {
        "-0" => "0".to_owned(),
        trimmed => trimmed.to_owned(),
    }
}
#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn double(value: f64, text: &str) {
        assert_eq!(format_double(value).as_str(), text);
    }

    #[test]
    fn doubles_that_are_integers_have_no_point() {
        double(0.0, "0");
        double(-0.0, "-0");
        double(3.0, "3");
        double(-3.0, "-3");
        double(1e15, "1000000000000000");
        double(1e18, "1000000000000000000");
        double(4_611_686_018_427_387_904.0, "4611686018427387904");
        double(f64::INFINITY, "inf");
        double(f64::NEG_INFINITY, "-inf");
        double(f64::NAN, "nan");
        double(-f64::NAN, "nan");
    }

    #[test]
    fn doubles_have_their_shortest_digits() {
        double(12.34, "12.34");
        double(-0.1, "-0.1");
        double(0.1 + 0.2, "0.30000000000000004");
        double(10.5 + 0.1, "10.6");
        double(123_456.789, "123456.789");
        double(1.0 / 3.0, "0.3333333333333333");
    }

    #[test]
    fn doubles_far_from_one_have_an_exponent() {
        double(5e18, "5e+18");
        double(1e20, "1e+20");
        double(1e21, "1e+21");
        double(1.5e300, "1.5e+300");
        double(9_223_372_036_854_775_807.0, "9223372036854776000");
        double(0.0001, "0.0001");
        double(0.000_001, "0.000001");
        double(1e-7, "1e-7");
        double(1.5e-7, "1.5e-7");
        double(-1.234_567_890_123_4e-5, "-1.2345678901234e-5");
        double(f64::MAX, "1.7976931348623157e+308");
        double(f64::MIN_POSITIVE, "2.2250738585072014e-308");
        double(5e-324, "5e-324");
    }

    #[test]
    fn the_longest_double_fits() {
        double(-1.797_693_134_862_315_7e308, "-1.7976931348623157e+308");
        double(-2.225_073_858_507_201_4e-308, "-2.2250738585072014e-308");
        double(-0.001_234_567_890_123_456_7, "-0.0012345678901234567");
    }

    #[track_caller]
    fn decimal(value: f64, text: &str) {
        assert_eq!(format_long_double_human(value), text);
    }

    #[test]
    fn decimals_look_as_people_write_them() {
        decimal(3.0e3, "3000");
        decimal(5.0e3 + 200.0, "5200");
        decimal(10.5 + 0.1, "10.6");
        decimal(10.6 - 5.0, "5.6");
        decimal(-0.25, "-0.25");
        decimal(0.0, "0");
        decimal(-0.0, "0");
        decimal(1e20, "100000000000000000000");
        decimal(1e23, "100000000000000000000000");
    }

    #[test]
    fn decimals_end_after_17_places() {
        decimal(1e-17, "0.00000000000000001");
        decimal(1e-18, "0");
        decimal(-1e-18, "0");
        decimal(1.234_567_890_123_456_7e-5, "0.00001234567890123");
        decimal(f64::INFINITY, "inf");
        decimal(f64::NEG_INFINITY, "-inf");
        decimal(f64::NAN, "nan");
    }

    #[test]
    fn integers_at_the_ends_of_their_range_are_read() {
        assert_eq!(parse_integer(b"9223372036854775807"), Some(i64::MAX));
        assert_eq!(parse_integer(b"-9223372036854775808"), Some(i64::MIN));
        assert_eq!(parse_integer(b"9223372036854775808"), None);
        assert_eq!(parse_integer(b"-9223372036854775809"), None);
        assert_eq!(parse_integer(b"9999999999999999999"), None);
        assert_eq!(parse_integer(b"10000000000000000000"), None);
    }
}
