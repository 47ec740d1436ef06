//! A tiny key-value server over `FakeServer`, enough for a client's words and its load generator.

use std::collections::BTreeMap;

use crate::support::{Action, FakeServer, Request, reply};

/// Starts a server that keeps keys in memory.
pub(crate) fn start() -> FakeServer {
    let mut keys = BTreeMap::new();
    FakeServer::start_raw(move |request| answer(&mut keys, request))
}

fn answer(keys: &mut BTreeMap<Vec<u8>, Vec<u8>>, request: &Request) -> Action {
    let args: Vec<&[u8]> = request.args.iter().map(Vec::as_slice).collect();
    let name = String::from_utf8_lossy(args[0]).to_ascii_uppercase();
    match (name.as_str(), &args[1..]) {
        ("HELLO", _) => reply("%1\r\n$5\r\nproto\r\n:3\r\n"),
        ("PING", _) => reply("+PONG\r\n"),
        ("SET", [key, value, ..]) => {
            keys.insert(key.to_vec(), value.to_vec());
            reply("+OK\r\n")
        }
        ("GET", [key]) => keys.get(*key).map_or_else(|| reply("_\r\n"), |value| bulk(value)),
        ("MGET", asked) => {
            let mut bytes = format!("*{}\r\n", asked.len()).into_bytes();
            for key in asked {
                let Action::Reply(one) = keys.get(*key).map_or_else(|| reply("_\r\n"), |value| bulk(value)) else {
                    continue;
                };
                bytes.extend(one);
            }
            Action::Reply(bytes)
        }
        ("DEL", [key]) => number(usize::from(keys.remove(*key).is_some())),
        ("EXISTS", [key]) => number(usize::from(keys.contains_key(*key))),
        ("DBSIZE", _) => number(keys.len()),
        ("FLUSHDB", _) => {
            keys.clear();
            reply("+OK\r\n")
        }
        ("STATS", _) => reply("-ERR unknown command 'STATS', with args beginning with: \r\n"),
        ("INFO", _) => bulk(b"# Server\r\nredis_version:7.2.4\r\nbowline_version:0.1.0\r\nload: 0.5\r\n"),
        ("INCR", _) => reply("-ERR value is not an integer or out of range\r\n"),
        ("COMMAND", [b"DOCS"]) => reply(
            "%1\r\n$3\r\nget\r\n%2\r\n$6\r\nsyntax\r\n$3\r\nkey\r\n$7\r\nsummary\r\n$18\r\nReturns the value.\r\n",
        ),
        ("CLOSE", _) => Action::Close,
        _ => reply("-ERR unknown command\r\n"),
    }
}

fn bulk(bytes: &[u8]) -> Action {
    Action::Reply([format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat())
}

fn number(number: usize) -> Action {
    Action::Reply(format!(":{number}\r\n").into_bytes())
}
