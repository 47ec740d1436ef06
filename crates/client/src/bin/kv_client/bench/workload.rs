//! Which commands are sent: their mix, and their bytes.
//!
//! Every request of a command has the same bytes but for the digits of its key. So each command is encoded once, and a
//! request is a copy of that with the digits written over it: no formatting and no allocation.

use std::str::FromStr;

use bowline_resp::encode_request;

use super::random::{Chooser, Random};
use crate::arguments::LoadArguments;
use crate::failure::Failure;

/// A command of the mix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    Set,
    Delete,
    Exists,
    Incr,
    Append,
    Strlen,
    Ping,
}

/// Every verb with its word.
const VERBS: &[(&str, Verb)] = &[
    ("get", Verb::Get),
    ("set", Verb::Set),
    ("delete", Verb::Delete),
    ("exists", Verb::Exists),
    ("incr", Verb::Incr),
    ("append", Verb::Append),
    ("strlen", Verb::Strlen),
    ("ping", Verb::Ping),
];

impl Verb {
    /// Its word in options and reports.
    pub(crate) fn word(self) -> &'static str {
        VERBS.iter().find(|(_, verb)| *verb == self).map_or("", |(word, _)| word)
    }
}

/// Commands and how often each is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mix {
    parts: Vec<(Verb, u32)>,
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts: Vec<(Verb, u32)> = Vec::new();
        for part in text.split(',') {
            let (word, weight) = part.split_once(':').unwrap_or((part, "1"));
            let verb = VERBS.iter().find(|(known, _)| *known == word).map(|(_, verb)| *verb);
            let words: Vec<&str> = VERBS.iter().map(|(word, _)| *word).collect();
            let verb = verb.ok_or_else(|| format!("\"{word}\" is none of {}", words.join(", ")))?;
            let weight: u32 = weight.parse().map_err(|_| format!("the weight \"{weight}\" is not a whole number"))?;
            if weight > 1_000_000 {
                return Err("a weight is at most 1000000".to_owned());
            }
            if parts.iter().any(|(known, _)| *known == verb) {
                return Err(format!("\"{word}\" stands there twice"));
            }
            parts.push((verb, weight));
        }
        parts.retain(|(_, weight)| *weight > 0);
        if parts.is_empty() { Err("all weights are 0".to_owned()) } else { Ok(Mix { parts }) }
    }
}

impl std::fmt::Display for Mix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts: Vec<String> = self.parts.iter().map(|(verb, weight)| format!("{}:{weight}", verb.word())).collect();
        f.write_str(&parts.join(" "))
    }
}

/// How often each key is used.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Distribution {
    Uniform,
    /// With its exponent.
    Zipf(f64),
}

impl FromStr for Distribution {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "uniform" => Ok(Distribution::Uniform),
            None if text == "zipf" => Ok(Distribution::Zipf(0.99)),
            Some(("zipf", exponent)) => match exponent.parse::<f64>() {
                Ok(exponent) if exponent > 0.0 && exponent <= 10.0 => Ok(Distribution::Zipf(exponent)),
                _ => Err("the exponent must be above 0 and at most 10".to_owned()),
            },
            _ => Err("must be uniform, zipf or zipf:EXPONENT".to_owned()),
        }
    }
}

impl std::fmt::Display for Distribution {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Distribution::Uniform => f.write_str("uniform"),
            Distribution::Zipf(exponent) => write!(f, "zipf:{exponent}"),
        }
    }
}

/// One command's request, ready to be copied.
#[derive(Debug, Clone)]
struct Template {
    bytes: Vec<u8>,
    /// Where the digits of the key end; none for a command without a key.
    digits_end: Option<usize>,
}

/// The source of requests of one thread.
#[derive(Debug, Clone)]
pub(super) struct Workload {
    templates: Vec<Template>,
    /// For each command of the mix, the sum of the weights up to and with it.
    bounds: Vec<u64>,
    chooser: Chooser,
    random: Random,
}

impl Workload {
    /// The load that the arguments describe, with random choices of its own for each `thread`.
    pub(super) fn new(load: &LoadArguments, thread: u32) -> Result<Self, Failure> {
        let chooser = match load.distribution {
            Distribution::Uniform => Chooser::Uniform { keys: load.keys },
            Distribution::Zipf(exponent) => Chooser::zipf(load.keys, exponent),
        };
        Workload::of(load, &load.mix, chooser, thread)
    }

    /// One SET of each key from `first` on.
    pub(super) fn filling(load: &LoadArguments, first: u64) -> Result<Self, Failure> {
        Workload::of(load, &Mix { parts: vec![(Verb::Set, 1)] }, Chooser::Sequential { next: first }, 0)
    }

    fn of(load: &LoadArguments, mix: &Mix, chooser: Chooser, thread: u32) -> Result<Self, Failure> {
        let digits = (load.keys - 1).to_string().len();
        let key_bytes = load.key_bytes as usize;
        if digits > key_bytes {
            let keys = load.keys;
            let message = format!("{keys} keys need at least {digits} bytes each; raise --key-bytes or lower --keys");
            return Err(Failure::Usage(message));
        }
        let mut random = Random::new(load.seed);
        let value: Vec<u8> = (0..load.value_bytes).map(|_| b'a' + random.below(26) as u8).collect();
        let template = |verb| template(verb, key_bytes, key_bytes - digits, &value);
        let mut sum = 0;
        let bounds = mix.parts.iter().map(|(_, weight)| {
            sum += u64::from(*weight);
            sum
        });
        Ok(Workload {
            bounds: bounds.collect(),
            templates: mix.parts.iter().map(|(verb, _)| template(*verb)).collect(),
            chooser,
            random: Random::new(load.seed ^ (u64::from(thread) << 40)),
        })
    }

    /// Appends one request, and returns the place of its command in the mix.
    pub(super) fn push(&mut self, out: &mut Vec<u8>) -> u8 {
        let place = match self.bounds.as_slice() {
            [] | [_] => 0,
            bounds => {
                let all = bounds.last().copied().unwrap_or(1);
                let draw = self.random.below(all);
                bounds.iter().take_while(|bound| **bound <= draw).count()
            }
        };
        let template = &self.templates[place];
        let begin = out.len();
        out.extend_from_slice(&template.bytes);
        if let Some(end) = template.digits_end {
            write_digits(&mut out[begin..begin + end], self.chooser.next(&mut self.random));
        }
        place as u8
    }
}

impl Mix {
    /// The commands in their order.
    pub(super) fn verbs(&self) -> Vec<Verb> {
        self.parts.iter().map(|(verb, _)| *verb).collect()
    }
}

/// Writes the digits of a number backwards from the end, over zeros.
fn write_digits(bytes: &mut [u8], mut number: u64) {
    let mut place = bytes.len();
    while number > 0 && place > 0 {
        place -= 1;
        bytes[place] = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// Encodes one command with a key of all zeros. `spare` bytes of the key are not needed for digits and may hold a prefix.
fn template(verb: Verb, key_bytes: usize, spare: usize, value: &[u8]) -> Template {
    // Numbers live under keys of their own, so that INCR does not meet the texts that SET wrote.
    let prefix = if verb == Verb::Incr { "num:" } else { "key:" };
    let mut key = vec![b'0'; key_bytes];
    if spare >= prefix.len() {
        key[..prefix.len()].copy_from_slice(prefix.as_bytes());
    }
    let key = key.as_slice();
    let args: &[&[u8]] = match verb {
        Verb::Get => &[b"GET", key],
        Verb::Set => &[b"SET", key, value],
        Verb::Delete => &[b"DEL", key],
        Verb::Exists => &[b"EXISTS", key],
        Verb::Incr => &[b"INCR", key],
        Verb::Append => &[b"APPEND", key, value],
        Verb::Strlen => &[b"STRLEN", key],
        Verb::Ping => &[b"PING"],
    };
    let mut bytes = Vec::new();
    encode_request(&mut bytes, args.get(..2).unwrap_or(args));
    let digits_end = (args.len() > 1).then(|| bytes.len() - 2);
    // The header line counts the arguments in one digit, so the place of the key is the same with a value behind it.
    bytes.clear();
    encode_request(&mut bytes, args);
    Template { bytes, digits_end }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::BenchArguments;
    use clap::Parser;

    fn load(options: &[&str]) -> LoadArguments {
        BenchArguments::parse_from([&["bench"], options].concat()).load
    }

    fn text(workload: &mut Workload) -> String {
        let mut out = b"before".to_vec();
        workload.push(&mut out);
        String::from_utf8(out.split_off(6)).expect("text")
    }

    #[test]
    fn a_request_is_its_template_with_the_digits_of_the_key() {
        let load = load(&["--keys", "2000", "--value-bytes", "3"]);
        let mut workload = Workload::filling(&load, 1041).expect("a workload");
        let request = text(&mut workload);
        assert!(request.starts_with("*3\r\n$3\r\nSET\r\n$16\r\nkey:000000001041\r\n$3\r\n"), "{request}");
        assert!(text(&mut workload).contains("key:000000001042"));
    }

    #[test]
    fn short_keys_have_no_prefix_and_too_short_ones_are_refused() {
        let short = load(&["--keys", "1000", "--key-bytes", "3", "--mix", "get"]);
        assert_eq!(text(&mut Workload::filling(&short, 7).expect("a workload")).lines().nth(4), Some("007"));
        let too_short = load(&["--keys", "1001", "--key-bytes", "3"]);
        assert!(matches!(Workload::new(&too_short, 0), Err(Failure::Usage(_))));
    }

    #[test]
    fn the_mix_is_kept() {
        let load = load(&["--mix", "get:80,set:15,ping:5", "--keys", "10"]);
        let mut workload = Workload::new(&load, 0).expect("a workload");
        let mut counts = [0; 3];
        let mut out = Vec::new();
        for _ in 0..100_000 {
            out.clear();
            counts[usize::from(workload.push(&mut out))] += 1;
        }
        for (found, percent) in counts.iter().zip([80, 15, 5]) {
            assert!((found - percent * 1000_i32).abs() < 600, "{counts:?}");
        }
    }

    #[test]
    fn a_wrong_mix_or_distribution_says_what_is_wrong() {
        for text in ["fly", "get:x", "get:0", "get,get", "get:9999999"] {
            assert!(text.parse::<Mix>().is_err(), "{text}");
        }
        for text in ["normal", "zipf:0", "zipf:x", "uniform:1"] {
            assert!(text.parse::<Distribution>().is_err(), "{text}");
        }
        assert_eq!("zipf:1.2".parse(), Ok(Distribution::Zipf(1.2)));
    }
}
