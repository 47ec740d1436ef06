//! The kinds of values a setting can have: how a text becomes one, how it is written, what is said about a wrong one.
//!
//! A text is accepted as Redis accepts it (`yes`, `64mb`, `0700`), and written in one canonical form. Not here: which
//! settings there are ([`super::rows`]), and the types of those of words ([`super::words`]) and of parts
//! ([`super::lists`]).

use std::path::PathBuf;

use super::lists::{BindAddresses, OutputLimits};

/// What a setting takes. One value decides parsing, its error texts and its line in the documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `yes` or `no`.
    Flag,
    /// A whole number in a closed range.
    Integer {
        /// Smallest value.
        min: i64,
        /// Largest value.
        max: i64,
    },
    /// A power of two in a closed range.
    PowerOfTwo {
        /// Smallest value.
        min: i64,
        /// Largest value.
        max: i64,
    },
    /// A number of bytes in a closed range; may end in b, k, kb, m, mb, g, gb (kb = 1024, k = 1000).
    Bytes {
        /// Smallest value.
        min: i64,
        /// Largest value.
        max: i64,
    },
    /// As `Bytes`, or the word `auto`.
    BytesOrAuto {
        /// Smallest value.
        min: i64,
        /// Largest value.
        max: i64,
    },
    /// A number of bytes as in `Bytes`, or a share of something else: `1%` to `100%`.
    BytesOrPercent,
    /// File permissions as an octal number, 0 to 777.
    Permissions,
    /// One of a few words.
    Word(&'static [&'static str]),
    /// Any text, also an empty one.
    Text,
    /// Words separated by spaces, or none.
    Words,
    /// A path, empty for none; relative ones start at the directory the server was started in.
    Path,
    /// Addresses or host names to listen on, separated by spaces.
    Addresses,
    /// Redis's output limits: `class hard soft seconds`, repeated.
    OutputLimits,
    /// Redis's snapshot points: `seconds changes`, repeated; several lines of a file add up.
    SavePoints,
    /// A line of redis.conf that is not a setting (`user`, `loadmodule`); kept in the file, not shown by CONFIG GET.
    Directive,
}

/// What is wrong with a value, worded as Redis words it in the reply to CONFIG SET.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// Not a whole number.
    #[error("argument couldn't be parsed into an integer")]
    NotAnInteger,
    /// Not a number of bytes.
    #[error("argument must be a memory value")]
    NotBytes,
    /// Neither a number of bytes nor a share.
    #[error("argument must be a memory or percent value")]
    NotBytesOrPercent,
    /// Not an octal number.
    #[error("argument couldn't be parsed as an octal number")]
    NotOctal,
    /// Outside its range.
    #[error("argument must be between {min} and {max} inclusive")]
    OutOfRange {
        /// Smallest value, as it is written.
        min: String,
        /// Largest value, as it is written.
        max: String,
    },
    /// Not a power of two.
    #[error("argument must be a power of two")]
    NotAPowerOfTwo,
    /// Neither `yes` nor `no`.
    #[error("argument must be 'yes' or 'no'")]
    NotAFlag,
    /// None of the words.
    #[error("argument(s) must be one of the following: {}", .0.join(", "))]
    NotAWord(&'static [&'static str]),
    /// More or fewer parts than the value has.
    #[error("wrong number of arguments")]
    WrongCount,
    /// Snapshot points that are not pairs of numbers.
    #[error("Invalid save parameters")]
    NotSavePoints,
    /// Output limits that do not come in fours.
    #[error("Wrong number of arguments in buffer limit configuration.")]
    NotFours,
    /// An output limit of an unknown class.
    #[error("Invalid client class specified in buffer limit configuration.")]
    NotAClass,
    /// An output limit that is no number.
    #[error("Error in hard, soft or soft_seconds setting in buffer limit configuration.")]
    NotALimit,
    /// A control character where none can be meant.
    #[error("argument must not contain control characters")]
    ControlCharacter,
    /// Does not fit another setting.
    #[error("{0}")]
    Conflict(String),
}

impl Kind {
    /// What the kind takes, to follow "expected".
    pub fn expected(&self) -> String {
        match self {
            Kind::Flag => "yes or no".to_owned(),
            Kind::Integer { min, max } => format!("a whole number from {min} to {max}"),
            Kind::PowerOfTwo { min, max } => format!("a power of two from {min} to {max}"),
            Kind::Bytes { min, max } => {
                format!("a number of bytes from {} to {}, such as 64mb", short_bytes(*min), short_bytes(*max))
            }
            Kind::BytesOrAuto { min, max } => {
                format!("auto, or a number of bytes from {} to {}", short_bytes(*min), short_bytes(*max))
            }
            Kind::BytesOrPercent => "a number of bytes, such as 64mb, or a share from 1% to 100%".to_owned(),
            Kind::Permissions => "permissions as an octal number from 0 to 777".to_owned(),
            Kind::Word(words) => format!("one of {}", words.join(", ")),
            Kind::Text => "a text, in quotes if it has spaces".to_owned(),
            Kind::Words => "words separated by spaces".to_owned(),
            Kind::Path => "a path, in quotes if it has spaces".to_owned(),
            Kind::Addresses => "addresses separated by spaces".to_owned(),
            Kind::OutputLimits => "class (normal, replica or pubsub), hard limit, soft limit, soft seconds".to_owned(),
            Kind::SavePoints => "pairs of seconds and changes, or \"\"".to_owned(),
            Kind::Directive => "anything".to_owned(),
        }
    }

    /// Whether the value may be several words: the parts of a line are joined by spaces.
    pub fn takes_several(&self) -> bool {
        matches!(self, Kind::Words | Kind::Addresses | Kind::OutputLimits | Kind::SavePoints | Kind::Directive)
    }

    /// Reads a number of this kind and checks its range.
    fn number(&self, text: &str) -> Result<i64, Problem> {
        let (number, min, max) = match *self {
            Kind::Integer { min, max } => (integer(text)?, min, max),
            Kind::PowerOfTwo { min, max } => {
                let number = integer(text)?;
                if number < 1 || number & (number - 1) != 0 {
                    return Err(Problem::NotAPowerOfTwo);
                }
                (number, min, max)
            }
            Kind::Bytes { min, max } | Kind::BytesOrAuto { min, max } => (bytes(text)?, min, max),
            Kind::Permissions => {
                let number = i64::from_str_radix(text, 8).map_err(|_| Problem::NotOctal)?;
                if !(0..=0o777).contains(&number) {
                    return Err(Problem::OutOfRange { min: "0".to_owned(), max: "777".to_owned() });
                }
                return Ok(number);
            }
            _ => return Err(Problem::NotAnInteger),
        };
        if number < min || number > max {
            return Err(Problem::OutOfRange { min: min.to_string(), max: max.to_string() });
        }
        Ok(number)
    }

    /// The canonical form of a value that is remembered but has no field.
    ///
    /// # Errors
    /// What is wrong with `text`.
    pub fn canonical(&self, text: &str) -> Result<String, Problem> {
        match self {
            Kind::Flag => Ok(bool::parse(text, self)?.render()),
            Kind::Integer { .. } | Kind::PowerOfTwo { .. } | Kind::Bytes { .. } => Ok(self.number(text)?.to_string()),
            Kind::BytesOrAuto { .. } => Ok(SizeOrAuto::parse(text, self)?.render()),
            Kind::BytesOrPercent => Ok(BytesOrPercent::parse(text, self)?.render()),
            Kind::Permissions => Ok(Permissions::parse(text, self)?.render()),
            Kind::Word(words) => {
                let word = words.iter().find(|word| word.eq_ignore_ascii_case(text));
                word.map(|word| (*word).to_owned()).ok_or(Problem::NotAWord(words))
            }
            Kind::Addresses => Ok(BindAddresses::parse(text, self)?.render()),
            Kind::OutputLimits => Ok(OutputLimits::parse(text, self)?.render()),
            Kind::SavePoints => save_points(text),
            Kind::Path => Ok(PathBuf::parse(text, self)?.render()),
            Kind::Text | Kind::Words | Kind::Directive => Ok(text.to_owned()),
        }
    }
}

/// Bytes as a person writes them: the largest unit that divides them.
pub(super) fn short_bytes(bytes: i64) -> String {
    const UNITS: [(i64, &str); 4] = [(1 << 40, "tb"), (1 << 30, "gb"), (1 << 20, "mb"), (1 << 10, "kb")];
    match UNITS.iter().find(|(unit, _)| bytes >= *unit && bytes % unit == 0) {
        // Only gb, mb and kb can be written; what is larger is shown in gb.
        Some((unit, "tb")) => format!("{}gb", (bytes / unit) << 10),
        Some((unit, name)) => format!("{}{name}", bytes / unit),
        None => bytes.to_string(),
    }
}

fn integer(text: &str) -> Result<i64, Problem> {
    if text.starts_with('+') {
        return Err(Problem::NotAnInteger);
    }
    text.parse().map_err(|_| Problem::NotAnInteger)
}

pub(super) fn bytes(text: &str) -> Result<i64, Problem> {
    let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale: i64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" => 1000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return Err(Problem::NotBytes),
    };
    let number: i64 = number.parse().map_err(|_| Problem::NotBytes)?;
    number.checked_mul(scale).ok_or(Problem::NotBytes)
}

fn save_points(text: &str) -> Result<String, Problem> {
    let parts: Vec<&str> = text.split_whitespace().collect();
    let whole = |part: &&str| part.parse::<u32>().is_ok();
    if !parts.len().is_multiple_of(2) || !parts.iter().all(whole) {
        return Err(Problem::NotSavePoints);
    }
    Ok(parts.join(" "))
}

/// A type that a field of [`super::Settings`] can have.
pub trait Value: Sized {
    /// Reads a text as `kind` says.
    ///
    /// # Errors
    /// What is wrong with the text.
    fn parse(text: &str, kind: &Kind) -> Result<Self, Problem>;

    /// Writes the canonical text; parsing it gives the same value.
    fn render(&self) -> String;

    /// Takes over a text given at run time or in a further line of a file; only values of parts merge.
    ///
    /// # Errors
    /// What is wrong with the text; the value is unchanged then.
    fn assign(&mut self, text: &str, kind: &Kind) -> Result<(), Problem> {
        *self = Self::parse(text, kind)?;
        Ok(())
    }
}

macro_rules! number_values {
    ($($type:ty),*) => { $(
        impl Value for $type {
            fn parse(text: &str, kind: &Kind) -> Result<Self, Problem> {
                // The ranges in the table fit their types, which a test holds.
                <$type>::try_from(kind.number(text)?).map_err(|_| Problem::NotAnInteger)
            }

            fn render(&self) -> String {
                self.to_string()
            }
        }
    )* };
}

number_values!(u16, u32, u64, i64);

impl Value for bool {
    fn parse(text: &str, _: &Kind) -> Result<Self, Problem> {
        match text.to_ascii_lowercase().as_str() {
            "yes" => Ok(true),
            "no" => Ok(false),
            _ => Err(Problem::NotAFlag),
        }
    }

    fn render(&self) -> String {
        if *self { "yes" } else { "no" }.to_owned()
    }
}

impl Value for String {
    fn parse(text: &str, _: &Kind) -> Result<Self, Problem> {
        Ok(text.to_owned())
    }

    fn render(&self) -> String {
        self.clone()
    }
}

impl Value for PathBuf {
    fn parse(text: &str, _: &Kind) -> Result<Self, Problem> {
        if text.chars().any(char::is_control) {
            return Err(Problem::ControlCharacter);
        }
        Ok(PathBuf::from(text))
    }

    fn render(&self) -> String {
        // Every path came in as text, so this loses nothing.
        self.to_string_lossy().into_owned()
    }
}

/// A number of bytes, or as many as it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SizeOrAuto {
    /// As many as it takes.
    Auto,
    /// This many bytes.
    Bytes(u64),
}

impl Value for SizeOrAuto {
    fn parse(text: &str, kind: &Kind) -> Result<Self, Problem> {
        if text.eq_ignore_ascii_case("auto") {
            return Ok(SizeOrAuto::Auto);
        }
        u64::try_from(kind.number(text)?).map(SizeOrAuto::Bytes).map_err(|_| Problem::NotBytes)
    }

    fn render(&self) -> String {
        match self {
            SizeOrAuto::Auto => "auto".to_owned(),
            SizeOrAuto::Bytes(bytes) => bytes.to_string(),
        }
    }
}

/// A number of bytes, or a share of something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BytesOrPercent {
    /// So many.
    Bytes(u64),
    /// A share, 1 to 100.
    Percent(u8),
}

impl BytesOrPercent {
    /// The bytes, where the whole is `whole`.
    pub fn of(self, whole: impl FnOnce() -> u64) -> u64 {
        match self {
            BytesOrPercent::Bytes(bytes) => bytes,
            BytesOrPercent::Percent(percent) => whole() / 100 * u64::from(percent),
        }
    }
}

impl Value for BytesOrPercent {
    fn parse(text: &str, _: &Kind) -> Result<Self, Problem> {
        let Some(share) = text.strip_suffix('%') else {
            let bytes = bytes(text).ok().and_then(|bytes| u64::try_from(bytes).ok());
            return bytes.map(BytesOrPercent::Bytes).ok_or(Problem::NotBytesOrPercent);
        };
        let digits = share.bytes().all(|byte| byte.is_ascii_digit());
        let percent = share.parse().ok().filter(|percent| digits && (1..=100).contains(percent));
        percent.map(BytesOrPercent::Percent).ok_or(Problem::NotBytesOrPercent)
    }

    fn render(&self) -> String {
        match self {
            BytesOrPercent::Bytes(bytes) => bytes.to_string(),
            BytesOrPercent::Percent(percent) => format!("{percent}%"),
        }
    }
}

/// Permissions of a file, the lower nine bits of its mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permissions(pub u32);

impl Value for Permissions {
    fn parse(text: &str, kind: &Kind) -> Result<Self, Problem> {
        Ok(Permissions(u32::try_from(kind.number(text)?).map_err(|_| Problem::NotOctal)?))
    }

    fn render(&self) -> String {
        format!("{:o}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY_BYTES: Kind = Kind::Bytes { min: 0, max: i64::MAX };

    #[test]
    fn bytes_take_redis_units() {
        for (text, bytes) in [
            ("0", 0),
            ("17", 17),
            ("17b", 17),
            ("1k", 1000),
            ("1kb", 1024),
            ("2m", 2_000_000),
            ("2MB", 2 << 20),
            ("3g", 3_000_000_000),
            ("3Gb", 3 << 30),
        ] {
            assert_eq!(u64::parse(text, &ANY_BYTES), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn bytes_without_a_number_or_with_an_unknown_unit_are_refused() {
        for text in ["", "mb", "1kk", "1 mb", "-1", "1.5mb", "9223372036854775807kb", "99999999999999999999"] {
            assert_eq!(u64::parse(text, &ANY_BYTES), Err(Problem::NotBytes), "{text:?}");
        }
    }

    #[test]
    fn numbers_outside_their_range_name_it() {
        let kind = Kind::Integer { min: 0, max: 65535 };
        let problem = u16::parse("65536", &kind).expect_err("out of range");
        assert_eq!(problem.to_string(), "argument must be between 0 and 65535 inclusive");
        assert_eq!(u16::parse("+1", &kind), Err(Problem::NotAnInteger));
        assert_eq!(u16::parse("", &kind), Err(Problem::NotAnInteger));
    }

    #[test]
    fn powers_of_two_only() {
        let kind = Kind::PowerOfTwo { min: 1, max: 256 };
        assert_eq!(u32::parse("64", &kind), Ok(64));
        for text in ["0", "-2", "3", "100"] {
            assert_eq!(u32::parse(text, &kind), Err(Problem::NotAPowerOfTwo), "{text}");
        }
        assert!(matches!(u32::parse("512", &kind), Err(Problem::OutOfRange { .. })));
    }

    #[test]
    fn bytes_may_be_a_share() {
        let parse = |text| BytesOrPercent::parse(text, &Kind::BytesOrPercent);
        assert_eq!(parse("2kb"), Ok(BytesOrPercent::Bytes(2048)));
        for (text, percent) in [("1%", 1), ("5%", 5), ("100%", 100)] {
            assert_eq!(parse(text), Ok(BytesOrPercent::Percent(percent)));
            assert_eq!(BytesOrPercent::Percent(percent).render(), text);
        }
        for text in ["", "%", "0%", "101%", "+5%", "-1", "5 %", "300%"] {
            assert_eq!(parse(text), Err(Problem::NotBytesOrPercent), "{text:?}");
        }
    }

    #[test]
    fn permissions_are_octal() {
        assert_eq!(Permissions::parse("0750", &Kind::Permissions), Ok(Permissions(0o750)));
        assert_eq!(Permissions(0o750).render(), "750");
        assert_eq!(Permissions::parse("789", &Kind::Permissions), Err(Problem::NotOctal));
        assert!(matches!(Permissions::parse("7777", &Kind::Permissions), Err(Problem::OutOfRange { .. })));
    }

    #[test]
    fn bytes_are_shown_in_their_largest_unit() {
        assert_eq!(short_bytes(64 << 20), "64mb");
        assert_eq!(short_bytes(1 << 40), "1024gb");
        assert_eq!(short_bytes(1000), "1000");
    }
}
