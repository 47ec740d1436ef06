//! Long arguments, which are received beside the input, and long replies, which leave in pieces: whatever the pieces are,
//! whatever the session has to wait for in between, and whichever command it is.

use super::*;
use bowline_resp::encode_request;

fn request(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_request(&mut bytes, words);
    bytes
}

fn long(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at as u8).wrapping_mul(41) ^ (at >> 8) as u8).collect()
}

fn bulk(bytes: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

impl Talk {
    /// Sends in pieces, long arguments as a loop does it, and takes all answers, whatever they wait for.
    fn ask_in_pieces(&mut self, bytes: &[u8], piece: usize) -> Vec<u8> {
        let mut answer = Vec::new();
        for mut part in bytes.chunks(piece) {
            while self.session.chunk_bytes_missing() > 0 && !part.is_empty() {
                let missing = self.session.chunk_bytes_missing();
                self.session.receive_chunk(&mut self.bench, |space| {
                    let room = missing.min(space.capacity() - space.len());
                    let (now, later) = part.split_at(part.len().min(room));
                    space.extend_from_slice(now);
                    part = later;
                });
            }
            self.send(part);
            answer.extend(self.run_out());
        }
        answer
    }

    /// Has everything run that was received, and takes what it answers.
    fn run_out(&mut self) -> Vec<u8> {
        let mut answer = Vec::new();
        loop {
            self.commit();
            self.bench.server.store().turn();
            let commit = self.bench.server.commit();
            while !self.session.output(commit).is_empty() {
                let pieces = self.session.output_pieces(commit).concat();
                self.session.sent(pieces.len());
                answer.extend(pieces);
            }
            if self.session.waits() == Waits::No && !self.session.has_input() {
                return answer;
            }
            self.session.stop_waiting();
            self.session.resume(&mut self.bench);
        }
    }
}

#[test]
fn long_arguments_may_come_in_any_pieces_and_wait_for_room_in_the_log() {
    let value = long(700_000);
    let requests = [
        request(&[b"SET", b"a", &value]),
        request(&[b"GET", b"a"]),
        request(&[b"MSET", b"b", &value[..65_536], b"c", &value[..65_535], b"d", &value[1..300_000]]),
        request(&[b"APPEND", b"d", &value]),
        request(&[b"GETRANGE", b"d", b"299990", b"400000"]),
        b"PING\r\n".to_vec(),
    ]
    .concat();
    let answers = [
        b"+OK\r\n".to_vec(),
        bulk(&value),
        b"+OK\r\n:999999\r\n".to_vec(),
        bulk(&[&value[299_991..300_000], &value[..100_002]].concat()),
        b"+PONG\r\n".to_vec(),
    ]
    .concat();
    for piece in [10_000_000, 65_536, 100_000, 4_001] {
        let mut talk = talk();
        assert!(talk.ask_in_pieces(&requests, piece) == answers, "in pieces of {piece}");
        assert_eq!(talk.session.memory_bytes(), 0, "nothing is kept");
    }
}

#[test]
fn bytes_that_come_by_the_usual_way_belong_to_the_long_argument_too() {
    let (mut talk, value) = (talk(), long(300_000));
    let bytes = request(&[b"SET", b"a", &value]);
    bytes.chunks(50_000).for_each(|part| talk.send(part));
    assert!(talk.session.received_bytes() == 0 || talk.session.waits() == Waits::Room);
    assert_eq!(talk.run_out(), b"+OK\r\n");
    assert!(talk.ask_in_pieces(&request(&[b"GET", b"a"]), 100) == bulk(&value));
}

#[test]
fn long_arguments_that_are_no_values_are_answered_as_short_ones() {
    let (mut talk, value) = (talk(), long(200_000));
    talk.ask_in_pieces(&request(&[b"SET", b"a", &value]), 70_000);
    for (words, answer) in [
        (&[b"GET".as_slice(), &value][..], b"$-1\r\n".to_vec()),
        (&[b"SET", b"b", b"x", b"IFEQ", &value], b"$-1\r\n".to_vec()),
        (&[b"SET", b"a", b"x", b"IFEQ", &value], b"+OK\r\n".to_vec()),
        (&[b"INCRBY", b"n", &value], b"-ERR value is not an integer or out of range\r\n".to_vec()),
        (&[b"ECHO", &value], bulk(&value)),
        (&[b"GET", b"a", &value], b"-ERR wrong number of arguments for 'get' command\r\n".to_vec()),
        (&[b"MGET", &value, b"a", &value], b"*3\r\n$-1\r\n$1\r\nx\r\n$-1\r\n".to_vec()),
    ] {
        let found = talk.ask_in_pieces(&request(words), 66_000);
        assert!(found == answer, "{}: {}", words[0].escape_ascii(), found[..found.len().min(80)].escape_ascii());
    }
}

#[test]
fn transactions_and_unanswered_requests_take_long_arguments() {
    let (mut talk, value) = (talk(), long(150_000));
    let requests = [
        request(&[b"MULTI"]),
        request(&[b"SET", b"a", &value]),
        request(&[b"GET", b"a"]),
        request(&[b"TIME"]),
        request(&[b"APPEND", b"a", &value]),
        request(&[b"EXEC"]),
    ];
    let answer = talk.ask_in_pieces(&requests.concat(), 80_000);
    let end = [b"*4\r\n+OK\r\n".to_vec(), bulk(&value)].concat();
    assert!(answer.windows(end.len()).any(|window| window == end) && answer.ends_with(b":300000\r\n"));
    let requests = [
        request(&[b"CLIENT", b"REPLY", b"OFF"]),
        request(&[b"SET", b"b", &value]),
        request(&[b"GET", b"b"]),
        request(&[b"CLIENT", b"REPLY", b"ON"]),
        request(&[b"BL.AT", b"none", b"SET", b"c", &value]),
        request(&[b"STRLEN", b"b"]),
        request(&[b"STRLEN", b"c"]),
    ];
    assert_eq!(talk.ask_in_pieces(&requests.concat(), 90_000), b"+OK\r\n+OK\r\n:150000\r\n:150000\r\n");
}

#[test]
fn what_is_received_in_chunks_is_counted_and_bounded() {
    let mut talk = talk_with(Dialect::Resp, &[("client-query-buffer-limit", "1mb")], |_| {});
    let head = b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$5000000\r\n";
    talk.send(head);
    talk.send(&[b'x'; 600_000]);
    assert_eq!(talk.session.chunk_bytes_missing(), 4_400_000);
    assert!((600_000..610_000).contains(&talk.session.memory_bytes()), "{}", talk.session.memory_bytes());
    assert_eq!(talk.session.received_bytes(), 600_000 + head.len());
    talk.send(&[b'x'; 600_000]);
    assert!(talk.session.is_closing() && talk.session.memory_bytes() == 0);
}
