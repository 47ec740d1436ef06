//! Commands about the server as a process: time, role, shutdown, debugging.

use std::sync::atomic::Ordering::Relaxed;

use bowline::command::{Arity, Flags};
use bowline_resp::Reply;

use super::row::{Call, ServerCommand, container, help};
use crate::settings::LocalAccess;

/// The rows of this file.
pub(super) static ROWS: &[ServerCommand] = &[
    ServerCommand::new("time", Arity::Exactly(1), "", "Answers the server's time.", time).flags(Flags::FAST),
    ServerCommand::new("role", Arity::Exactly(1), "", "Answers the role of this node.", role).flags(Flags::FAST),
    ServerCommand::new(
        "shutdown",
        Arity::AtLeast(1),
        "[NOSAVE | SAVE] [NOW] [FORCE] [ABORT]",
        "Commits, answers and ends the server.",
        shutdown,
    )
    .flags(Flags::ADMIN.with(Flags::DANGEROUS).with(Flags::NO_MULTI)),
    ServerCommand::new("debug", Arity::AtLeast(2), "", "Helps to test clients.", container)
        .flags(Flags::ADMIN.with(Flags::DANGEROUS))
        .container(DEBUG),
];

static DEBUG: &[ServerCommand] = &[
    ServerCommand::new("debug|sleep", Arity::Exactly(3), "seconds", "Stops this event loop for a while.", sleep)
        .flags(Flags::ADMIN),
    ServerCommand::new(
        "debug|protocol",
        Arity::Exactly(3),
        "string | integer | double | null | array | set | map | push | verbatim | bignum | true | false",
        "Answers an example of a reply type.",
        protocol,
    )
    .flags(Flags::ADMIN),
    ServerCommand::new("debug|log", Arity::Exactly(3), "message", "Writes a message into the server's log.", log)
        .flags(Flags::ADMIN),
    ServerCommand::new("debug|help", Arity::Exactly(2), "", "Lists the subcommands.", help).flags(Flags::ADMIN),
];

fn time(call: &mut Call<'_>) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let mut reply = call.reply();
    reply.array(2);
    reply.bulk_integer(now.as_secs() as i64);
    reply.bulk_integer(i64::from(now.subsec_micros()));
}

fn role(call: &mut Call<'_>) {
    let mut reply = call.reply();
    reply.array(3);
    reply.bulk(b"master");
    reply.integer(0);
    reply.array(0);
}

fn shutdown(call: &mut Call<'_>) {
    let (mut abort, mut checkpoint) = (false, true);
    for index in 1..call.args.len() {
        match call.word(index).as_str() {
            "save" => checkpoint = true,
            "nosave" => checkpoint = false,
            "now" | "force" => {}
            "abort" => abort = true,
            _ => return call.syntax_error(),
        }
    }
    if abort && call.args.len() > 2 {
        return call.syntax_error();
    }
    if abort {
        return call.error("ERR No shutdown in progress.");
    }
    tracing::info!(client = call.session.client.id, peer = %call.session.client.peer.escape_debug(), "SHUTDOWN");
    call.session.close_after_replies();
    call.bench.server.checkpoint_at_end.store(checkpoint, Relaxed);
    call.bench.server.shut_down();
}

const NOT_ALLOWED: &str = "ERR DEBUG command not allowed. If the enable-debug-command option is set to \"local\", you \
can run it from a local connection, otherwise you need to set this option in the configuration file, and then restart \
the server.";

fn debug_allowed(call: &mut Call<'_>) -> bool {
    let allowed = match call.bench.settings().enable_debug_command {
        LocalAccess::Yes => true,
        LocalAccess::Local => call.session.client.is_local(),
        LocalAccess::No => false,
    };
    if !allowed {
        call.error(NOT_ALLOWED);
    }
    allowed
}

fn sleep(call: &mut Call<'_>) {
    if !debug_allowed(call) {
        return;
    }
    let seconds = std::str::from_utf8(call.args.at(2)).ok().and_then(|text| text.parse::<f64>().ok());
    match seconds.and_then(|seconds| std::time::Duration::try_from_secs_f64(seconds).ok()) {
        Some(pause) => {
            std::thread::sleep(pause);
            call.reply().ok();
        }
        None => call.error("ERR value is not a valid float"),
    }
}

fn log(call: &mut Call<'_>) {
    if debug_allowed(call) {
        tracing::info!(message = %call.args.at(2).escape_ascii(), "DEBUG LOG");
        call.reply().ok();
    }
}

fn protocol(call: &mut Call<'_>) {
    if !debug_allowed(call) {
        return;
    }
    let kind = call.word(2);
    if !example(&mut call.reply(), &kind) {
        call.error(
            "ERR Wrong protocol type name. Please use one of the following: \
             string|integer|double|null|array|set|map|push|verbatim|bignum|true|false",
        );
    }
}

/// Redis's example, which is not meant to be pi.
const DOUBLE_EXAMPLE: f64 = 3141.0 / 1000.0;

/// Writes the example that Redis answers for a type; false when there is none.
fn example(reply: &mut Reply<'_>, kind: &str) -> bool {
    match kind {
        "string" => reply.bulk(b"Hello World"),
        "integer" => reply.integer(12345),
        "double" => reply.double(DOUBLE_EXAMPLE),
        "null" => reply.null(),
        "array" => {
            reply.array(3);
            (0..3).for_each(|number| reply.integer(number));
        }
        "set" => {
            reply.set(3);
            (0..3).for_each(|number| reply.integer(number));
        }
        "map" => {
            reply.map(3);
            for number in 0..3 {
                reply.integer(number);
                reply.boolean(number == 1);
            }
        }
        "push" => {
            reply.push(2);
            reply.bulk(b"server-cpu-usage");
            reply.integer(42);
        }
        "verbatim" => reply.verbatim("txt", b"This is a verbatim\nstring"),
        "bignum" => reply.big_number("1234567999999999999999999999999999999"),
        "true" => reply.boolean(true),
        "false" => reply.boolean(false),
        _ => return false,
    }
    true
}
