//! Expiries that pass before the last command of an append-only file has been executed.
//!
//! Redis lets nothing expire while it loads: `SET k 1 PXAT t`, then `INCR k`, leaves a key that expires at t, also when t
//! is long past. A running server would have removed the key before the INCR, which would then make one that never
//! expires. So an expiry that is past or near is sent later by a fixed span, which no real expiry reaches; when all
//! commands are through, every key with such an expiry gets its real one, and is removed by that if it is past.
//!
//! ```text
//!   real time t  --hold-->  t + 2^46 ms (2229 years)  --release-->  PEXPIREAT k t
//! ```

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bowline_client::{Client, Value};
use bowline_resp::Args;

use crate::failure::{Exit, Failure};

/// How far an expiry is moved away, in milliseconds.
const HELD_BY_MS: i64 = 1 << 46;
/// An expiry so near that an import may last until then counts as near.
const NEAR: Duration = Duration::from_secs(24 * 60 * 60);
/// Keys asked for by one SCAN.
const SCAN_COUNT: &[u8] = b"1000";

/// The time, in milliseconds since 1970.
pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Moves expiries away.
pub(super) struct Holder {
    near_ms: i64,
    /// Some expiry was moved.
    pub(super) holds: bool,
}

impl Holder {
    pub(super) fn new() -> Self {
        let near = i64::try_from(NEAR.as_millis()).unwrap_or(i64::MAX);
        Holder { near_ms: now_ms().saturating_add(near), holds: false }
    }

    /// The expiry to send for `at_ms`.
    pub(super) fn hold(&mut self, at_ms: i64) -> i64 {
        if at_ms > self.near_ms {
            return at_ms;
        }
        self.holds = true;
        at_ms.max(1) + HELD_BY_MS
    }

    /// The arguments to send instead of `args`, when they set an expiry that is to be held.
    pub(super) fn rewrite(&mut self, args: Args<'_>) -> Option<Vec<Vec<u8>>> {
        let (place, in_seconds) = expiry_place(args)?;
        let number: i64 = std::str::from_utf8(args.get(place)?).ok()?.parse().ok()?;
        let at_ms = if in_seconds { number.checked_mul(1000)? } else { number };
        let held = self.hold(at_ms);
        if held == at_ms {
            return None;
        }
        let mut changed: Vec<Vec<u8>> = args.iter().map(<[u8]>::to_vec).collect();
        let in_unit = if in_seconds { held / 1000 } else { held };
        *changed.get_mut(place)? = in_unit.to_string().into_bytes();
        Some(changed)
    }
}

/// Which argument is the Unix time at which a key is to expire, and whether it counts seconds.
fn expiry_place(args: Args<'_>) -> Option<(usize, bool)> {
    let name = args.at(0);
    let is = |word: &str| name.eq_ignore_ascii_case(word.as_bytes());
    // With a condition (NX, GT, ...) the time is compared with another one; Redis logs none of these.
    if args.len() == 3 && (is("pexpireat") || is("expireat")) {
        return Some((2, is("expireat")));
    }
    let options = if is("set") {
        3
    } else if is("getex") {
        2
    } else {
        return None;
    };
    (options..args.len()).find_map(|place| {
        let option = args.at(place);
        let in_seconds = option.eq_ignore_ascii_case(b"exat");
        (in_seconds || option.eq_ignore_ascii_case(b"pxat")).then_some((place + 1, in_seconds))
    })
}

/// Gives every key with a held expiry its real one; returns how many were removed because theirs is past.
pub(super) fn release(client: &mut Client) -> Result<u64, Failure> {
    let mut removed = 0;
    for database in databases(client)? {
        client.command(&["SELECT", &database])?;
        let mut cursor = b"0".to_vec();
        loop {
            let answer = client.command(&[b"SCAN", cursor.as_slice(), b"COUNT", SCAN_COUNT])?;
            let (next, keys) = scanned(answer).ok_or_else(|| odd_answer("SCAN"))?;
            removed += release_keys(client, &keys)?;
            if next == b"0" {
                break;
            }
            cursor = next;
        }
    }
    Ok(removed)
}

fn release_keys(client: &mut Client, keys: &[Vec<u8>]) -> Result<u64, Failure> {
    let mut asking = client.pipeline();
    for key in keys {
        asking.command(&[b"PEXPIRETIME", key.as_slice()]);
    }
    let mut held = Vec::new();
    for (key, answer) in keys.iter().zip(asking.run()?) {
        if let Value::Integer(at_ms) = answer?
            && at_ms >= HELD_BY_MS
        {
            held.push((key, at_ms - HELD_BY_MS));
        }
    }
    let now = now_ms();
    let mut setting = client.pipeline();
    for (key, at_ms) in &held {
        setting.command(&[b"PEXPIREAT", key.as_slice(), at_ms.to_string().as_bytes()]);
    }
    for answer in setting.run()? {
        answer?;
    }
    Ok(held.iter().filter(|(_, at_ms)| *at_ms <= now).count() as u64)
}

/// The numbers of the databases that have keys.
fn databases(client: &mut Client) -> Result<Vec<String>, Failure> {
    let text = match client.command(&["INFO", "keyspace"])? {
        Value::Bulk(text) | Value::Verbatim { text, .. } => String::from_utf8_lossy(&text).into_owned(),
        Value::Simple(text) => text,
        _ => return Err(odd_answer("INFO")),
    };
    let number = |line: &str| Some(line.strip_prefix("db")?.split_once(':')?.0.to_owned());
    Ok(text.lines().filter_map(number).filter(|number| number.bytes().all(|byte| byte.is_ascii_digit())).collect())
}

/// The next cursor and the keys of an answer of SCAN.
fn scanned(answer: Value) -> Option<(Vec<u8>, Vec<Vec<u8>>)> {
    let bytes = |value| if let Value::Bulk(bytes) = value { Some(bytes) } else { None };
    let Value::Array(parts) = answer else { return None };
    let [cursor, Value::Array(keys)] = <[Value; 2]>::try_from(parts).ok()? else { return None };
    Some((bytes(cursor)?, keys.into_iter().map(bytes).collect::<Option<_>>()?))
}

fn odd_answer(command: &str) -> Failure {
    Failure::Failed { message: format!("the server's answer to {command} cannot be understood"), exit: Exit::Server }
}

#[cfg(test)]
mod tests {
    use bowline_resp::{Decoded, RequestDecoder, RequestLimits, encode_request};

    use super::*;

    fn rewritten(holder: &mut Holder, command: &str) -> Option<String> {
        let (mut bytes, mut ranges) = (Vec::new(), Vec::new());
        encode_request(&mut bytes, &command.split(' ').collect::<Vec<_>>());
        let decoded = RequestDecoder::new().decode(&bytes, 0, &RequestLimits::default(), &mut ranges);
        assert!(matches!(decoded, Ok(Decoded::Request { .. })));
        let changed = holder.rewrite(Args::new(&bytes, &ranges))?;
        Some(String::from_utf8_lossy(&changed.join(&b' ')).into_owned())
    }

    #[test]
    fn a_past_expiry_is_held_wherever_it_stands() {
        let mut holder = Holder::new();
        let held = |at: i64| at + HELD_BY_MS;
        let expected = [
            ("SET k v PXAT 1000", format!("SET k v PXAT {}", held(1000))),
            ("set k v NX exat 7", format!("set k v NX exat {}", held(7000) / 1000)),
            ("PEXPIREAT k 1000", format!("PEXPIREAT k {}", held(1000))),
            ("PEXPIREAT k -5", format!("PEXPIREAT k {}", held(1))),
            ("EXPIREAT k 7", format!("EXPIREAT k {}", held(7000) / 1000)),
            ("GETEX k PXAT 1000", format!("GETEX k PXAT {}", held(1000))),
        ];
        for (command, changed) in expected {
            assert_eq!(rewritten(&mut holder, command), Some(changed));
        }
        assert!(holder.holds);
    }

    #[test]
    fn everything_else_is_sent_as_it_is() {
        let mut holder = Holder::new();
        for command in [
            "SET pxat 1000",
            "SET k PXAT 1000",
            "SET k v PXAT 4102444800000",
            "PEXPIREAT k 1000 GT",
            "SET k v PXAT",
            "DEL k",
        ] {
            assert_eq!(rewritten(&mut holder, command), None, "{command}");
        }
        assert!(!holder.holds);
    }
}
