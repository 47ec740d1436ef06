//! What one client can ask of the server is bounded.

use super::*;

#[test]
fn config_get_refuses_more_patterns_than_one_request_should_cost() {
    let mut talk = talk();
    let asked = |patterns: usize| format!("CONFIG GET{}\r\n", " port".repeat(patterns));
    assert_eq!(talk.ask(asked(1000).as_bytes()), "*2\r\n$4\r\nport\r\n$4\r\n6379\r\n");
    let reply = talk.ask(asked(10_000).as_bytes());
    assert!(reply.starts_with("-ERR too many patterns: CONFIG GET takes 8192 bytes"), "{reply}");
}

#[test]
fn every_setting_can_be_asked_for_by_name_in_one_request() {
    let mut talk = talk();
    let names: Vec<_> = crate::settings::names().map(|named| named.name).collect();
    let reply = talk.ask(format!("CONFIG GET {}\r\n", names.join(" ")).as_bytes());
    assert_eq!(reply, talk.ask(b"CONFIG GET *\r\n"));
}

#[test]
fn config_set_of_more_pairs_than_there_are_settings_finds_the_second_of_a_name() {
    let mut talk = talk();
    let reply = talk.ask(format!("CONFIG SET{} nosuch 1\r\n", " timeout 1".repeat(2000)).as_bytes());
    assert!(reply.ends_with("(possibly related to argument 'timeout') - duplicate parameter\r\n"), "{reply}");
    let reply = talk.ask(b"CONFIG SET timeout 1 timeout 1 nosuch 1\r\n");
    assert_eq!(reply, "-ERR Unknown option or number of arguments for CONFIG SET - 'nosuch'\r\n");
}
