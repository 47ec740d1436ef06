//! When keys expire: EXPIRE, TTL, PERSIST and their families.

use super::arguments::{TimeKind, integer, is_word, quotable};
use super::{Arity, Change, Command, CommandError, CommandInfo, Flags, Group, KeyPositions, Outcome, Run, View};
use bowline_resp::{Args, Reply};

const fn row(name: &'static str, arity: Arity, syntax: &'static str, summary: &'static str, run: Run) -> Command {
    let (keys, flags, group) = (KeyPositions::FIRST, Flags::FAST, Group::Generic);
    Command::new(CommandInfo { name, arity, keys, flags, group, syntax, summary, since: "0.1.0" }, run)
}

const RELATIVE: &str = "key seconds [NX | XX | GT | LT]";
const RELATIVE_MS: &str = "key milliseconds [NX | XX | GT | LT]";
const ABSOLUTE: &str = "key unix-time-seconds [NX | XX | GT | LT]";
const ABSOLUTE_MS: &str = "key unix-time-milliseconds [NX | XX | GT | LT]";

/// The rows of this file.
pub(super) static COMMANDS: &[Command] = &[
    row("expire", Arity::AtLeast(3), RELATIVE, "Sets the expiry of a key in seconds.", Run::Write(expire)),
    row("pexpire", Arity::AtLeast(3), RELATIVE_MS, "Sets the expiry of a key in milliseconds.", Run::Write(pexpire)),
    row("expireat", Arity::AtLeast(3), ABSOLUTE, "Sets the expiry of a key to a Unix time.", Run::Write(expireat)),
    row(
        "pexpireat",
        Arity::AtLeast(3),
        ABSOLUTE_MS,
        "Sets the expiry of a key to a Unix time in milliseconds.",
        Run::Write(pexpireat),
    ),
    row("ttl", Arity::Exactly(2), "key", "Returns the seconds until a key expires.", Run::Read(ttl)).blind(),
    row("pttl", Arity::Exactly(2), "key", "Returns the milliseconds until a key expires.", Run::Read(pttl)).blind(),
    row("expiretime", Arity::Exactly(2), "key", "Returns the Unix time at which a key expires.", Run::Read(expiretime))
        .blind(),
    row(
        "pexpiretime",
        Arity::Exactly(2),
        "key",
        "Returns the Unix time in milliseconds at which a key expires.",
        Run::Read(pexpiretime),
    )
    .blind(),
    row("persist", Arity::Exactly(2), "key", "Takes the expiry of a key away.", Run::Write(persist)),
];

/// NX, XX, GT and LT.
#[derive(Default)]
struct Conditions {
    if_none: bool,
    if_some: bool,
    if_later: bool,
    if_earlier: bool,
}

impl Conditions {
    fn parse(args: Args<'_>) -> Result<Conditions, CommandError> {
        let mut conditions = Conditions::default();
        for word in args.from(3).iter() {
            if is_word(word, "nx") {
                conditions.if_none = true;
            } else if is_word(word, "xx") {
                conditions.if_some = true;
            } else if is_word(word, "gt") {
                conditions.if_later = true;
            } else if is_word(word, "lt") {
                conditions.if_earlier = true;
            } else {
                return Err(CommandError::Quoting([b"ERR Unsupported option ", quotable(word, word.len())].concat()));
            }
        }
        if conditions.if_none && (conditions.if_some || conditions.if_later || conditions.if_earlier) {
            let text = "ERR NX and XX, GT or LT options at the same time are not compatible";
            return Err(CommandError::text(text));
        }
        if conditions.if_later && conditions.if_earlier {
            return Err(CommandError::text("ERR GT and LT options at the same time are not compatible"));
        }
        Ok(conditions)
    }

    /// Whether an expiry of `old` may become `new`; a key without one lives for ever.
    fn allow(&self, old: Option<u64>, new: i64) -> bool {
        let old_ms = old.map_or(i64::MAX, |at| i64::try_from(at).unwrap_or(i64::MAX));
        (!self.if_none || old.is_none())
            && (!self.if_some || old.is_some())
            && (!self.if_later || (old.is_some() && new > old_ms))
            && (!self.if_earlier || old.is_none() || new < old_ms)
    }
}

fn set_expiry(
    change: &mut Change<'_, '_, '_>,
    args: Args<'_>,
    reply: &mut Reply<'_>,
    kind: TimeKind,
    name: &'static str,
) -> Outcome {
    let key = args.at(1);
    let conditions = Conditions::parse(args)?;
    let number = integer(args.at(2))?;
    let at = kind.absolute_ms(number, change.now_ms()).ok_or(CommandError::InvalidExpiry(name))?;
    let now_ms = change.now_ms();
    let Some(old) = change.find(key).map(|entry| entry.expire_at()) else {
        reply.integer(0);
        return Ok(());
    };
    let allowed = conditions.allow(old, at);
    if allowed {
        match u64::try_from(at) {
            Ok(at) if at > now_ms => change.set_expiry(key, Some(at)),
            _ => {
                change.remove(key);
            }
        }
    }
    reply.integer(i64::from(allowed));
    Ok(())
}

fn expire(change: &mut Change<'_, '_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    set_expiry(change, args, reply, TimeKind::Seconds, "expire")
}

fn pexpire(change: &mut Change<'_, '_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    set_expiry(change, args, reply, TimeKind::Milliseconds, "pexpire")
}

fn expireat(change: &mut Change<'_, '_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    set_expiry(change, args, reply, TimeKind::UnixSeconds, "expireat")
}

fn pexpireat(change: &mut Change<'_, '_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    set_expiry(change, args, reply, TimeKind::UnixMilliseconds, "pexpireat")
}

/// Replies -2 for a missing key, -1 for one that does not expire, or what `tell` makes of its time.
fn tell_expiry(
    view: &mut View<'_, '_>,
    args: Args<'_>,
    reply: &mut Reply<'_>,
    tell: impl FnOnce(u64, u64) -> u64,
) -> Outcome {
    let now_ms = view.now_ms();
    reply.integer(match view.look(args.at(1))?.map(|entry| entry.expire_at()) {
        None => -2,
        Some(None) => -1,
        Some(Some(at)) => tell(at, now_ms) as i64,
    });
    Ok(())
}

fn ttl(view: &mut View<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    tell_expiry(view, args, reply, |at, now_ms| (at - now_ms).saturating_add(500) / 1000)
}

fn pttl(view: &mut View<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    tell_expiry(view, args, reply, |at, now_ms| at - now_ms)
}

fn expiretime(view: &mut View<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    tell_expiry(view, args, reply, |at, _| at.saturating_add(500) / 1000)
}

fn pexpiretime(view: &mut View<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    tell_expiry(view, args, reply, |at, _| at)
}

fn persist(change: &mut Change<'_, '_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let expires = change.find(args.at(1)).is_some_and(|entry| entry.expire_at().is_some());
    if expires {
        change.set_expiry(args.at(1), None);
    }
    reply.integer(i64::from(expires));
    Ok(())
}
