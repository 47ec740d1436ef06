//! Points in time as people write them: RFC 3339, in UTC when written, with any offset when read.

use std::fmt;
use std::str::FromStr;

/// Milliseconds since the Unix epoch, written and read as RFC 3339: `2026-11-20T10:15:00.250Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

/// The text is no point in time since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a time such as 2026-11-20T10:15:00Z or 2026-11-20T11:15:00.250+01:00")]
pub struct NotAMoment;

const DAY_MS: u64 = 86_400_000;
/// The last millisecond of the year 9999; later ones are written as it.
const LAST_MS: u64 = 253_402_300_799_999;

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.min(LAST_MS);
        let (year, month, day) = date_of(ms / DAY_MS);
        let of_day = ms % DAY_MS;
        let (hour, minute, second) = (of_day / 3_600_000, of_day / 60_000 % 60, of_day / 1000 % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", of_day % 1000)
    }
}

/// The date of a day since 1970-01-01. Years are counted from March, so that the leap day is the last of a year; 400 of
/// them have 146,097 days.
fn date_of(day: u64) -> (u64, u64, u64) {
    let shifted = day + 719_468;
    let (cycle, of_cycle) = (shifted / 146_097, shifted % 146_097);
    let year = (of_cycle - of_cycle / 1460 + of_cycle / 36_524 - of_cycle / 146_096) / 365;
    let of_year = of_cycle - (365 * year + year / 4 - year / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (year + cycle * 400 + u64::from(month <= 2), month, day)
}

/// Days from 1970-01-01 to a date; `None` for a date before.
fn day_of(year: u64, month: u64, day: u64) -> Option<u64> {
    let year = if month <= 2 { year.checked_sub(1)? } else { year };
    let (cycle, of_cycle) = (year / 400, year % 400);
    let march_month = (month + 9) % 12;
    let of_year = (153 * march_month + 2) / 5 + day - 1;
    (cycle * 146_097 + of_cycle * 365 + of_cycle / 4 - of_cycle / 100 + of_year).checked_sub(719_468)
}

impl FromStr for Moment {
    type Err = NotAMoment;

    fn from_str(text: &str) -> Result<Moment, NotAMoment> {
        parse(text.as_bytes()).map(Moment).ok_or(NotAMoment)
    }
}

fn parse(text: &[u8]) -> Option<u64> {
    let (date, rest) = text.split_at_checked(10)?;
    let (time, mut rest) = rest.split_at_checked(9)?;
    let [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1] = date else { return None };
    let [b'T' | b't' | b' ', h0, h1, b':', n0, n1, b':', s0, s1] = time else { return None };
    let (year, month, day) = (number(&[*y0, *y1, *y2, *y3])?, number(&[*m0, *m1])?, number(&[*d0, *d1])?);
    let (hour, minute, second) = (number(&[*h0, *h1])?, number(&[*n0, *n1])?, number(&[*s0, *s1])?);
    let days = day_of(year, month, day).filter(|_| (1..=12).contains(&month) && day >= 1)?;
    // A day that a month does not have is another day when it is written again. A second 60 is a leap second.
    if date_of(days) != (year, month, day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut ms = days * DAY_MS + hour * 3_600_000 + minute * 60_000 + second * 1000;
    if let [b'.', after @ ..] = rest {
        let digits = after.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, after) = after.split_at(digits);
        // What is finer than a millisecond is cut off.
        let scaled = digits.iter().chain(b"00").take(3).fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
        ms += if digits.is_empty() { return None } else { scaled };
        rest = after;
    }
    match rest {
        [b'Z' | b'z'] => Some(ms),
        [sign @ (b'+' | b'-'), h0, h1, b':', n0, n1] => {
            let (hours, minutes) = (number(&[*h0, *h1])?, number(&[*n0, *n1])?);
            let offset = (hours * 60 + minutes) * 60_000;
            let fits = hours <= 23 && minutes <= 59;
            if *sign == b'+' { ms.checked_sub(offset) } else { ms.checked_add(offset) }.filter(|_| fits)
        }
        _ => None,
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_moments_are_written_and_read() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_795_169_700_250, "2026-11-20T10:15:00.250Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(Moment(ms).to_string(), text);
            assert_eq!(text.parse(), Ok(Moment(ms)));
        }
    }

    #[test]
    fn offsets_fractions_and_spaces_are_read() {
        let expected = Ok(Moment(1_795_169_700_000));
        for text in ["2026-11-20T10:15:00Z", "2026-11-20 11:15:00+01:00", "2026-11-20T04:45:00.0009-05:30"] {
            assert_eq!(text.parse(), expected, "{text}");
        }
        assert_eq!("2026-11-20T10:15:00.5z".parse(), Ok(Moment(1_795_169_700_500)));
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for text in [
            "",
            "now",
            "2026-11-20",
            "2026-11-20T10:15",
            "2026-11-20T10:15:00",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:60:00Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00+1:00",
            "2026-01-01T00:00:00Zx",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00+01:00",
            "2026-11-2\u{e9}T10:15:00Z",
        ] {
            assert_eq!(text.parse::<Moment>(), Err(NotAMoment), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_moment_comes_back(ms in 0..=LAST_MS) {
            prop_assert_eq!(Moment(ms).to_string().parse(), Ok(Moment(ms)));
        }
    }
}
