//! Commands about the connection itself: who it is, which database and protocol it uses, how it ends.

use std::sync::atomic::Ordering::Relaxed;

use bowline::command::{Arity, Flags, Group};
use bowline_resp::{Protocol, Reply};

use super::row::{Call, ServerCommand};
use crate::session::limits::CLIENT_NAME_BYTES_MAX;
use crate::session::{ReplyMode, Session};

const GROUP: Group = Group::Connection;
const OPEN: Flags = Flags::FAST.with(Flags::NO_AUTH);

/// The rows of this file.
pub(super) static ROWS: &[ServerCommand] = &[
    // Refused while the data is loaded, as in Redis: scripts and balancers take PONG for "ready".
    ServerCommand::new("ping", Arity::AtLeast(1), "[message]", "Answers PONG, or the message.", ping)
        .of(GROUP)
        .flags(Flags::FAST)
        .needs_data(),
    ServerCommand::new("echo", Arity::Exactly(2), "message", "Answers the message.", echo).of(GROUP).flags(Flags::FAST),
    ServerCommand::new("select", Arity::Exactly(2), "index", "Chooses the database of this connection.", select)
        .of(GROUP)
        .flags(Flags::FAST),
    ServerCommand::new("auth", Arity::AtLeast(2), "[username] password", "Gives the password.", auth)
        .of(GROUP)
        .flags(OPEN),
    ServerCommand::new(
        "hello",
        Arity::AtLeast(1),
        "[protover [AUTH username password] [SETNAME clientname]]",
        "Chooses the protocol version and tells about the server.",
        hello,
    )
    .of(GROUP)
    .flags(OPEN),
    ServerCommand::new("quit", Arity::AtLeast(1), "", "Ends the connection after its replies.", quit)
        .of(GROUP)
        .flags(OPEN)
        .at_once(),
    ServerCommand::new("reset", Arity::Exactly(1), "", "Makes the connection as new.", reset)
        .of(GROUP)
        .flags(OPEN)
        .at_once(),
];

fn ping(call: &mut Call<'_>) {
    match call.args.len() {
        1 => call.reply().simple("PONG"),
        2 => {
            let message = call.args.at(1);
            call.reply().bulk(message);
        }
        _ => call.wrong_arity(),
    }
}

fn echo(call: &mut Call<'_>) {
    let message = call.args.at(1);
    call.reply().bulk(message);
}

fn select(call: &mut Call<'_>) {
    let Some(index) = call.integer(1) else { return };
    let Ok(index) = i32::try_from(index) else {
        return call.error("ERR value is out of range, value must between -2147483648 and 2147483647");
    };
    let databases = call.bench.settings().databases;
    match u32::try_from(index) {
        Ok(index) if index < databases => {
            call.session.select(index);
            call.reply().ok();
        }
        _ => call.error("ERR DB index is out of range"),
    }
}

/// What a try to authenticate came to.
enum Authentication {
    Done,
    Refused(&'static str),
}

const WRONG: &str = "WRONGPASS invalid username-password pair or user is disabled.";

/// Compares in a time that depends on the length of what was given only.
pub(crate) fn same_secret(given: &[u8], secret: &[u8]) -> bool {
    let mut difference = u8::from(given.len() != secret.len());
    for (position, byte) in given.iter().enumerate() {
        let expected = secret.get(position % secret.len().max(1)).copied().unwrap_or_default();
        difference = std::hint::black_box(difference | (byte ^ expected));
    }
    difference == 0
}

fn authenticate(call: &mut Call<'_>, user: Option<&[u8]>, password: &[u8]) -> Authentication {
    let settings = call.bench.settings();
    let secret = settings.requirepass.as_bytes();
    if secret.is_empty() {
        return match user {
            None => Authentication::Refused(
                "ERR AUTH <password> called without any password configured for the default user. Are you sure your \
                 configuration is correct?",
            ),
            Some(b"default") => Authentication::Done,
            Some(_) => Authentication::Refused(WRONG),
        };
    }
    // Both are looked at in any case, so that time does not tell which one was wrong.
    let right_password = same_secret(password, secret);
    let right_user = user.is_none_or(|user| user == b"default");
    if right_password & right_user {
        call.session.authenticated = true;
        Authentication::Done
    } else {
        call.bench.server.metrics.authentication_failures.fetch_add(1, Relaxed);
        Authentication::Refused(WRONG)
    }
}

fn auth(call: &mut Call<'_>) {
    let args = call.args;
    let outcome = match args.len() {
        2 => authenticate(call, None, args.at(1)),
        3 => authenticate(call, Some(args.at(1)), args.at(2)),
        _ => Authentication::Refused("ERR syntax error"),
    };
    match outcome {
        Authentication::Done => call.reply().ok(),
        Authentication::Refused(text) => call.error(text),
    }
}

/// Why a word cannot be a name, or nothing.
pub(super) fn name_problem(name: &[u8]) -> bool {
    name.len() > CLIENT_NAME_BYTES_MAX || !name.iter().all(|byte| (b'!'..=b'~').contains(byte))
}

/// The error for a name with bytes that would break CLIENT LIST.
pub(super) const BAD_NAME: &str = "ERR Client names cannot contain spaces, newlines or special characters.";

fn hello(call: &mut Call<'_>) {
    let args = call.args;
    let mut protocol = call.session.protocol;
    if let Some(version) = args.get(1) {
        protocol = match bowline_resp::parse_integer(version) {
            Some(2) => Protocol::Resp2,
            Some(3) => Protocol::Resp3,
            Some(_) => return call.error("NOPROTO unsupported protocol version"),
            None => return call.error("ERR Protocol version is not an integer or out of range"),
        };
    }
    let (mut credentials, mut name, mut next) = (None, None, 2);
    while next < args.len() {
        let left = args.len() - next - 1;
        match args.at(next).to_ascii_lowercase().as_slice() {
            b"auth" if left >= 2 => (credentials, next) = (Some((args.at(next + 1), args.at(next + 2))), next + 3),
            b"setname" if left >= 1 => (name, next) = (Some(args.at(next + 1)), next + 2),
            _ => return call.error_about("ERR Syntax error in HELLO option '", next, "'"),
        }
    }
    if name.is_some_and(name_problem) {
        return call.error(BAD_NAME);
    }
    if let Some((user, password)) = credentials
        && let Authentication::Refused(text) = authenticate(call, Some(user), password)
    {
        return call.error(text);
    }
    if !call.session.is_authenticated(&call.bench.settings()) {
        return call.error(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH \
             <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the \
             same time",
        );
    }
    if let Some(name) = name {
        call.session.client.names.lock().name = String::from_utf8_lossy(name).into_owned();
    }
    call.session.speak(protocol);
    let id = call.session.client.id;
    greeting(&mut call.reply(), id, protocol);
}

fn greeting(reply: &mut Reply<'_>, id: u64, protocol: Protocol) {
    reply.map(7);
    for (field, value) in [("server", "redis"), ("version", super::info::REDIS_VERSION)] {
        reply.bulk(field.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"proto");
    reply.integer(if protocol == Protocol::Resp3 { 3 } else { 2 });
    reply.bulk(b"id");
    reply.integer(id as i64);
    for (field, value) in [("mode", "standalone"), ("role", "master")] {
        reply.bulk(field.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"modules");
    reply.array(0);
}

fn quit(call: &mut Call<'_>) {
    call.reply().ok();
    call.session.close_after_replies();
}

fn reset(call: &mut Call<'_>) {
    let password_free = call.bench.settings().requirepass.is_empty();
    let session: &mut Session = call.session;
    session.discard();
    session.unwatch();
    session.select(0);
    session.speak(Protocol::Resp2);
    session.reply_mode = ReplyMode::On;
    session.level = None;
    session.authenticated = password_free;
    session.stranger_since_ms = call.bench.now_ms;
    session.client.names.lock().name.clear();
    session.client.no_evict.store(false, Relaxed);
    session.client.no_touch.store(false, Relaxed);
    call.reply().simple("RESET");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_equal_only_when_they_are() {
        assert!(same_secret(b"abc", b"abc"));
        for given in [&b""[..], b"ab", b"abcd", b"abd", b"abcabc"] {
            assert!(!same_secret(given, b"abc"), "{given:?}");
        }
    }

    #[test]
    fn names_that_would_break_a_line_are_refused() {
        assert!(!name_problem(b"worker:1"));
        assert!(name_problem(b"two words") && name_problem(b"a\nb") && name_problem("ü".as_bytes()));
        assert!(name_problem(&[b'x'; CLIENT_NAME_BYTES_MAX + 1]));
    }
}
