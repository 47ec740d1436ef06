//! Glob patterns as Redis's KEYS and SCAN understand them: `*`, `?`, `[abc]`, `[^a-z]`, `\x`.
//!
//! The matcher goes back only to the last `*`, without recursion, so that a hostile pattern costs at most the product of
//! the two lengths.

/// A compiled pattern.
#[derive(Clone, Debug)]
pub struct Pattern {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Any,
    One,
    Byte(u8),
    Class { negated: bool, ranges: Vec<(u8, u8)> },
}

impl Part {
    fn matches(&self, byte: u8) -> bool {
        match self {
            Part::Any | Part::One => true,
            Part::Byte(wanted) => *wanted == byte,
            Part::Class { negated, ranges } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&byte)) != *negated
            }
        }
    }
}

impl Pattern {
    /// Compiles a pattern; every byte string is one.
    pub fn new(pattern: &[u8]) -> Pattern {
        let mut parts = Vec::new();
        let mut rest = pattern;
        while let [byte, after @ ..] = rest {
            rest = after;
            let part = match byte {
                b'*' if parts.last() == Some(&Part::Any) => continue,
                b'*' => Part::Any,
                b'?' => Part::One,
                b'[' => class(&mut rest),
                b'\\' => Part::Byte(escaped(&mut rest)),
                other => Part::Byte(*other),
            };
            parts.push(part);
        }
        Pattern { parts }
    }

    /// Whether the pattern matches every string.
    pub fn matches_all(&self) -> bool {
        self.parts == [Part::Any]
    }

    /// Whether the pattern matches the whole of `text`.
    pub fn matches(&self, text: &[u8]) -> bool {
        let (mut part, mut at) = (0, 0);
        let mut last_any: Option<(usize, usize)> = None;
        while at < text.len() {
            match self.parts.get(part) {
                Some(Part::Any) => {
                    last_any = Some((part, at));
                    part += 1;
                }
                Some(one) if one.matches(text[at]) => {
                    part += 1;
                    at += 1;
                }
                _ => {
                    let Some((any, from)) = last_any else { return false };
                    last_any = Some((any, from + 1));
                    (part, at) = (any + 1, from + 1);
                }
            }
        }
        self.parts[part..].iter().all(|rest| *rest == Part::Any)
    }
}

/// The byte after a backslash; at the end of the pattern the backslash itself.
fn escaped(rest: &mut &[u8]) -> u8 {
    match rest.split_first() {
        Some((byte, after)) => {
            *rest = after;
            *byte
        }
        None => b'\\',
    }
}

/// Reads a class after its `[`; an unclosed one ends with the pattern. As in Redis a range takes whatever follows its `-`,
/// even the closing bracket.
fn class(rest: &mut &[u8]) -> Part {
    let negated = rest.first() == Some(&b'^');
    if negated {
        *rest = rest.get(1..).unwrap_or_default();
    }
    let mut ranges = Vec::new();
    loop {
        match *rest {
            [] => break,
            [b']', after @ ..] => {
                *rest = after;
                break;
            }
            [b'\\', after @ ..] => {
                *rest = after;
                let byte = escaped(rest);
                ranges.push((byte, byte));
            }
            [first, b'-', last, after @ ..] => {
                *rest = after;
                ranges.push((*first.min(last), *first.max(last)));
            }
            [byte, after @ ..] => {
                *rest = after;
                ranges.push((*byte, *byte));
            }
        }
    }
    Part::Class { negated, ranges }
}

#[cfg(test)]
mod tests {
    use super::Pattern;
    use proptest::prelude::*;

    #[test]
    fn patterns_match_as_in_redis() {
        for (pattern, text, matches) in [
            ("*", "", true),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h*llo", "heeeello", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-b]llo", "hbllo", true),
            ("h[b-a]llo", "hallo", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("[abc", "b", true),
            ("*a*b*c", "xxaxxbxxc", true),
            ("*a*b*c", "xxaxxcxxb", false),
            ("", "", true),
            ("", "a", false),
            ("a**b", "ab", true),
            ("key:[0-9]*", "key:5x", true),
            ("k[e-]y*", "key:2", false),
            ("k[e-]y]", "kb", true),
            ("k[e-", "k-", true),
            ("[\\]]", "]", true),
        ] {
            assert_eq!(Pattern::new(pattern.as_bytes()).matches(text.as_bytes()), matches, "{pattern} on {text}");
        }
    }

    #[test]
    fn a_hostile_pattern_ends() {
        let pattern = Pattern::new(&b"*a".repeat(32 * 1024));
        assert!(!pattern.matches(&[b'a'; 20_000]));
    }

    proptest! {
        #[test]
        fn escaped_text_matches_itself_alone(
            text in proptest::collection::vec(any::<u8>(), 0..20),
            other in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let pattern: Vec<u8> = text.iter().flat_map(|byte| [b'\\', *byte]).collect();
            let pattern = Pattern::new(&pattern);
            prop_assert!(pattern.matches(&text));
            prop_assert_eq!(pattern.matches(&other), text == other);
        }

        #[test]
        fn any_bytes_are_a_pattern(pattern: Vec<u8>, text: Vec<u8>) {
            Pattern::new(&pattern).matches(&text);
        }
    }
}
