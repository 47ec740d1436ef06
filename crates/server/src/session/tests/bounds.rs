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

#[test]
fn what_a_client_makes_the_server_keep_is_counted() {
    let mut talk = talk();
    talk.ask(b"PING\r\n");
    let bytes = |talk: &Talk| talk.session.memory_bytes();
    let (word, mut before) = ("x".repeat(10_000), 0);
    let mut grows = |talk: &Talk, by: usize| {
        let grown = bytes(talk) - before;
        assert!((by..by * 2 + 1000).contains(&grown), "{grown}, not about {by}");
        before = bytes(talk);
    };
    talk.ask(format!("WATCH {word}\r\n").as_bytes());
    grows(&talk, 20_000);
    talk.ask(format!("MULTI\r\nSET k {word}\r\n").as_bytes());
    grows(&talk, 10_000);
    talk.send(b"*2\r\n$3\r\nGET\r\n$20000\r\n");
    talk.send(&[b'x'; 15_000]);
    grows(&talk, 15_000);
    talk.send(&[b'x'; 5_000]);
    talk.ask(b"\r\nEXEC\r\n");
    assert_eq!(bytes(&talk), 0, "all is done");
    talk.send(b"GET k\r\n");
    assert!(bytes(&talk) >= 10_000, "the reply that was not taken: {}", bytes(&talk));
}

#[test]
fn a_stranger_that_takes_no_replies_gets_no_further_ones() {
    let mut talk = talk_with(Dialect::Resp, &[("requirepass", "secret")], |_| {});
    let asked = 10_000;
    let refusal = "-NOAUTH Authentication required.\r\n";
    let mut replies = 0;
    for _ in 0..asked / 100 {
        talk.send("GET k\r\n".repeat(100).as_bytes());
        let kept = talk.session.output_bytes();
        assert!(kept <= crate::session::limits::STRANGER_REPLY_BYTES_MAX + refusal.len(), "{kept}");
    }
    while talk.session.output_bytes() > 0 {
        let taken = talk.take();
        assert_eq!(taken, refusal.repeat(taken.len() / refusal.len()));
        replies += taken.len() / refusal.len();
        talk.session.resume(&mut talk.bench);
    }
    assert_eq!(replies, asked, "those that waited were answered when some had been taken");
}
