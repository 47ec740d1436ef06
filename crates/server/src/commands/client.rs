//! CLIENT: what is known of connections, and steering them.

use std::sync::Arc;

use bowline::command::{Arity, Flags, Group};

use super::connection::{BAD_NAME, name_problem};
use super::row::{Call, ServerCommand, container, help};
use crate::session::ReplyMode;
use crate::session::clients::Client;
use crate::state::PauseMode;

/// The rows of this file.
pub(super) static ROWS: &[ServerCommand] =
    &[ServerCommand::new("client", Arity::AtLeast(2), "", "Shows and steers connections.", container)
        .of(Group::Connection)
        .flags(Flags::FAST)
        .in_pause()
        .container(SUBCOMMANDS)];

static SUBCOMMANDS: &[ServerCommand] = &[
    ServerCommand::new("client|id", Arity::Exactly(2), "", "Answers the id of this connection.", id),
    ServerCommand::new("client|getname", Arity::Exactly(2), "", "Answers the name of this connection.", get_name),
    ServerCommand::new("client|setname", Arity::Exactly(3), "connection-name", "Names this connection.", set_name),
    ServerCommand::new(
        "client|setinfo",
        Arity::Exactly(4),
        "LIB-NAME libname | LIB-VER libver",
        "Tells the name or version of the client's library.",
        set_info,
    ),
    ServerCommand::new("client|info", Arity::Exactly(2), "", "Describes this connection.", info),
    ServerCommand::new(
        "client|list",
        Arity::AtLeast(2),
        "[TYPE normal | master | replica | pubsub] [ID client-id [client-id ...]]",
        "Lists connections.",
        list,
    )
    .flags(Flags::ADMIN),
    ServerCommand::new(
        "client|kill",
        Arity::AtLeast(3),
        "ip:port | [ID client-id] [TYPE type] [USER username] [ADDR ip:port] [LADDR ip:port] [SKIPME yes | no]",
        "Closes connections.",
        kill,
    )
    .flags(Flags::ADMIN),
    ServerCommand::new(
        "client|reply",
        Arity::Exactly(3),
        "ON | OFF | SKIP",
        "Chooses whether the server answers this connection.",
        reply_mode,
    ),
    ServerCommand::new("client|no-evict", Arity::Exactly(3), "ON | OFF", "Marks this connection as kept.", no_evict)
        .flags(Flags::ADMIN),
    ServerCommand::new(
        "client|no-touch",
        Arity::Exactly(3),
        "ON | OFF",
        "Chooses whether commands of this connection count as uses of keys.",
        no_touch,
    ),
    ServerCommand::new(
        "client|pause",
        Arity::AtLeast(3),
        "timeout [WRITE | ALL]",
        "Holds back commands of all connections for some milliseconds.",
        pause,
    )
    .flags(Flags::ADMIN),
    ServerCommand::new("client|unpause", Arity::Exactly(2), "", "Ends a pause.", unpause).flags(Flags::ADMIN),
    ServerCommand::new(
        "client|unblock",
        Arity::AtLeast(3),
        "client-id [TIMEOUT | ERROR]",
        "Ends the wait of a blocked connection.",
        unblock,
    )
    .flags(Flags::ADMIN),
    ServerCommand::new("client|getredir", Arity::Exactly(2), "", "Answers -1: nothing is redirected.", get_redirect),
    ServerCommand::new("client|help", Arity::Exactly(2), "", "Lists the subcommands.", help),
];

fn id(call: &mut Call<'_>) {
    let id = call.session.client.id;
    call.reply().integer(id as i64);
}

fn get_name(call: &mut Call<'_>) {
    let name = call.session.client.names.lock().name.clone();
    if name.is_empty() { call.reply().null() } else { call.reply().bulk(name.as_bytes()) }
}

fn set_name(call: &mut Call<'_>) {
    let name = call.args.at(2);
    if name_problem(name) {
        return call.error(BAD_NAME);
    }
    call.session.client.names.lock().name = String::from_utf8_lossy(name).into_owned();
    call.reply().ok();
}

fn set_info(call: &mut Call<'_>) {
    let (option, value) = (call.word(2), call.args.at(3));
    match option.as_str() {
        "lib-name" | "lib-ver" if name_problem(value) => {
            return call.error(&format!("ERR {option} cannot contain spaces, newlines or special characters."));
        }
        "lib-name" => call.session.client.names.lock().library = String::from_utf8_lossy(value).into_owned(),
        "lib-ver" => call.session.client.names.lock().library_version = String::from_utf8_lossy(value).into_owned(),
        _ => return call.error_about("ERR Unrecognized option '", 2, "'"),
    }
    call.reply().ok();
}

fn describe(call: &Call<'_>, clients: &[Arc<Client>]) -> String {
    let mut text = String::new();
    for client in clients {
        text.push_str(&client.line(call.bench.now_ms, &super::table::name_at));
        text.push('\n');
    }
    text
}

fn info(call: &mut Call<'_>) {
    call.session.publish();
    let own = [call.session.client.clone()];
    let text = describe(call, &own);
    call.reply().verbatim("txt", text.as_bytes());
}

fn list(call: &mut Call<'_>) {
    call.session.publish();
    let args = call.args;
    let mut chosen = call.server().clients.all();
    if args.len() > 2 {
        match (call.word(2).as_str(), args.len()) {
            ("type", 4) => match call.word(3).as_str() {
                "normal" => {}
                "master" | "replica" | "slave" | "pubsub" => chosen.clear(),
                _ => return call.error_about("ERR Unknown client type '", 3, "'"),
            },
            ("id", 4..) => {
                let mut ids = Vec::new();
                for word in args.from(3).iter() {
                    match bowline_resp::parse_integer(word) {
                        // No client has a negative one.
                        Some(id) => ids.extend(u64::try_from(id).ok()),
                        None => return call.error("ERR Invalid client ID"),
                    }
                }
                // A request may name a million of them, and there may be ten thousand clients.
                ids.sort_unstable();
                chosen.retain(|client| ids.binary_search(&client.id).is_ok());
            }
            _ => return call.syntax_error(),
        }
    }
    let text = describe(call, &chosen);
    call.reply().verbatim("txt", text.as_bytes());
}

/// What CLIENT KILL chooses by; all given must fit.
#[derive(Default)]
struct Filter {
    id: Option<u64>,
    peer: Option<String>,
    local: Option<String>,
    /// Never fits: a type or user that no connection here has.
    nobody: bool,
    keeps_self: bool,
}

impl Filter {
    fn fits(&self, client: &Client, own_id: u64) -> bool {
        !self.nobody
            && self.id.is_none_or(|id| id == client.id)
            && self.peer.as_ref().is_none_or(|peer| *peer == client.peer)
            && self.local.as_ref().is_none_or(|local| *local == client.local)
            && !(self.keeps_self && client.id == own_id)
    }

    /// Reads the pairs of the new form.
    fn parse(call: &Call<'_>) -> Result<Filter, String> {
        let mut filter = Filter { keeps_self: true, ..Filter::default() };
        let args = call.args;
        if !args.len().is_multiple_of(2) {
            return Err("ERR syntax error".to_owned());
        }
        for at in (2..args.len()).step_by(2) {
            let value = String::from_utf8_lossy(args.at(at + 1)).into_owned();
            match (call.word(at).as_str(), call.word(at + 1).as_str()) {
                ("id", _) => match value.parse::<i64>() {
                    Ok(id) if id > 0 => filter.id = Some(id.unsigned_abs()),
                    _ => return Err("ERR client-id should be greater than 0".to_owned()),
                },
                ("addr", _) => filter.peer = Some(value),
                ("laddr", _) => filter.local = Some(value),
                ("user", user) => {
                    if user != "default" {
                        return Err(format!("ERR No such user '{value}'"));
                    }
                }
                ("type", "normal") | ("skipme", "yes") => {}
                ("type", "master" | "slave" | "replica" | "pubsub") => filter.nobody = true,
                ("type", _) => return Err(format!("ERR Unknown client type '{value}'")),
                ("skipme", "no") => filter.keeps_self = false,
                _ => return Err("ERR syntax error".to_owned()),
            }
        }
        Ok(filter)
    }
}

fn kill(call: &mut Call<'_>) {
    let own_id = call.session.client.id;
    let old_form = call.args.len() == 3;
    let filter = if old_form {
        Ok(Filter { peer: Some(String::from_utf8_lossy(call.args.at(2)).into_owned()), ..Filter::default() })
    } else {
        Filter::parse(call)
    };
    let filter = match filter {
        Ok(filter) => filter,
        Err(text) => return call.error(&text),
    };
    let mut killed = 0;
    for client in call.server().clients.all() {
        if !filter.fits(&client, own_id) {
            continue;
        }
        killed += 1;
        if client.id == own_id {
            // The answer is still sent.
            call.session.close_after_replies();
        } else {
            client.kill();
        }
    }
    match (old_form, killed) {
        (true, 0) => call.error("ERR No such client"),
        (true, _) => call.reply().ok(),
        (false, _) => call.reply().integer(killed),
    }
}

fn reply_mode(call: &mut Call<'_>) {
    match call.word(2).as_str() {
        "on" => {
            call.session.reply_mode = ReplyMode::On;
            call.reply().ok();
        }
        "off" => call.session.reply_mode = ReplyMode::Off,
        "skip" => {
            if call.session.reply_mode != ReplyMode::Off {
                call.session.reply_mode = ReplyMode::SkipNext;
            }
        }
        _ => call.syntax_error(),
    }
}

/// ON or OFF at argument 2; otherwise the error is answered.
fn on_or_off(call: &mut Call<'_>) -> Option<bool> {
    match call.word(2).as_str() {
        "on" => Some(true),
        "off" => Some(false),
        _ => {
            call.syntax_error();
            None
        }
    }
}

fn no_evict(call: &mut Call<'_>) {
    let Some(on) = on_or_off(call) else { return };
    call.session.client.no_evict.store(on, std::sync::atomic::Ordering::Relaxed);
    call.reply().ok();
}

fn no_touch(call: &mut Call<'_>) {
    let Some(on) = on_or_off(call) else { return };
    call.session.client.no_touch.store(on, std::sync::atomic::Ordering::Relaxed);
    call.reply().ok();
}

fn pause(call: &mut Call<'_>) {
    let mode = match (call.args.len(), call.word(3).as_str()) {
        (3, _) | (4, "all") => PauseMode::All,
        (4, "write") => PauseMode::Writes,
        (4, _) => return call.error("ERR CLIENT PAUSE mode must be WRITE or ALL"),
        _ => return call.syntax_error(),
    };
    let now_ms = call.bench.now_ms;
    let until_ms = match bowline_resp::parse_integer(call.args.at(2)) {
        Some(milliseconds) if milliseconds >= 0 => now_ms.saturating_add(milliseconds.unsigned_abs()),
        Some(_) => return call.error("ERR timeout is negative"),
        None => return call.error("ERR timeout is not an integer or out of range"),
    };
    if i64::try_from(until_ms).is_err() {
        return call.error("ERR timeout is out of range");
    }
    call.bench.server.pause(mode, until_ms);
    call.reply().ok();
}

fn unpause(call: &mut Call<'_>) {
    call.bench.server.unpause();
    call.reply().ok();
}

fn unblock(call: &mut Call<'_>) {
    if call.integer(2).is_none() {
        return;
    }
    if call.args.len() > 4 || (call.args.len() == 4 && !matches!(call.word(3).as_str(), "timeout" | "error")) {
        return call.error("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR");
    }
    // No command of this release blocks, so nobody waits.
    call.reply().integer(0);
}

fn get_redirect(call: &mut Call<'_>) {
    call.reply().integer(-1);
}
