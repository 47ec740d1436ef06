//! Redis's patterns over the names of settings: `*`, `?`, `[a-z]`, `[^a]` and `\` before a character.

use super::limits::PATTERN_BYTES_MAX;
use super::table::folded;

/// Whether the whole name matches. Time is at most the product of the two lengths, whatever the pattern; one over
/// [`PATTERN_BYTES_MAX`] matches nothing.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    if pattern.len() > PATTERN_BYTES_MAX {
        return false;
    }
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut at, mut done) = (0, 0);
    // Where to go on when the last star has to take one more byte.
    let mut star: Option<(usize, usize)> = None;
    loop {
        let one = match (pattern.get(at), name.get(done)) {
            (None, None) => return true,
            (Some(b'*'), _) => {
                at += 1;
                star = Some((at, done));
                continue;
            }
            (Some(_), Some(byte)) => matches_one(&pattern[at..], *byte),
            _ => None,
        };
        if let Some(used) = one {
            at += used;
            done += 1;
            continue;
        }
        match star {
            Some((after, taken)) if taken < name.len() => {
                at = after;
                done = taken + 1;
                star = Some((after, done));
            }
            _ => return false,
        }
    }
}

/// Matches one byte against the front of the pattern and says how long that front is.
fn matches_one(pattern: &[u8], byte: u8) -> Option<usize> {
    let byte = folded(byte);
    match pattern {
        [b'?', ..] => Some(1),
        [b'\\', literal, ..] => (folded(*literal) == byte).then_some(2),
        [b'[', class @ ..] => {
            let (inside, length) = matches_class(class, byte);
            inside.then_some(length + 1)
        }
        [literal, ..] => (folded(*literal) == byte).then_some(1),
        [] => None,
    }
}

/// Matches a byte against the inside of brackets, and says how long it is with the closing one.
fn matches_class(class: &[u8], byte: u8) -> (bool, usize) {
    let negated = class.first() == Some(&b'^');
    let mut at = usize::from(negated);
    let mut inside = false;
    loop {
        match class.get(at..).unwrap_or_default() {
            [] => break,
            [b']', ..] => {
                at += 1;
                break;
            }
            [b'\\', literal, ..] => {
                inside |= folded(*literal) == byte;
                at += 2;
            }
            [low, b'-', high, ..] if *high != b']' => {
                let (low, high) = (folded(*low), folded(*high));
                inside |= (low.min(high)..=low.max(high)).contains(&byte);
                at += 3;
            }
            [literal, ..] => {
                inside |= folded(*literal) == byte;
                at += 1;
            }
        }
    }
    (inside != negated, at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_redis() {
        for (pattern, name, expected) in [
            ("*", "port", true),
            ("", "port", false),
            ("po*", "port", true),
            ("*rt", "port", true),
            ("*o*t", "port", true),
            ("p?rt", "port", true),
            ("p??rt", "port", false),
            ("PORT", "port", true),
            ("max*ions", "max_connections", true),
            ("max-connections", "max_connections", true),
            ("[op]ort", "port", true),
            ("[^p]ort", "port", false),
            ("[a-q]ort", "port", true),
            ("[q-a]ort", "port", true),
            ("\\port", "port", true),
            ("port\\", "port", false),
            ("[", "port", false),
            ("p[", "p", false),
            ("**********z", "port", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn many_stars_end_soon() {
        let pattern = "a*".repeat(127) + "z";
        assert!(!matches(&pattern, &"a".repeat(4000)));
    }

    #[test]
    fn a_pattern_over_the_limit_matches_nothing() {
        let longest = "*".repeat(PATTERN_BYTES_MAX);
        assert!(matches(&longest, "port"));
        assert!(!matches(&(longest + "*"), "port"));
    }
}
