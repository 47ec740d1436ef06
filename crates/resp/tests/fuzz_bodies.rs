//! The fuzz targets without a fuzzer: seeded random and mutated inputs, the same in every run.
//! Replay or vary:   SEED=<n> ROUNDS=<n> cargo test -p bowline-resp --test fuzz_bodies

use std::panic::catch_unwind;

use bowline_resp::fuzz;

/// A small random generator (splitmix64): the same numbers for the same seed, everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn pick<'a>(&mut self, from: &[&'a [u8]]) -> &'a [u8] {
        from[self.below(from.len())]
    }

    /// A few of `parts` in a row, then up to four random edits.
    fn input(&mut self, parts: &[&[u8]]) -> Vec<u8> {
        let mut input = vec![self.next() as u8, self.next() as u8];
        for _ in 0..self.below(12) {
            input.extend_from_slice(self.pick(parts));
        }
        for _ in 0..self.below(5) {
            let at = self.below(input.len());
            match self.below(4) {
                0 => input[at] = self.next() as u8,
                1 => input.truncate(at.max(2)),
                2 => input.insert(at, self.pick(&[b"\r", b"\n", b"0", b"9", b"-", b"$", b"*", b"\"", b"\\"])[0]),
                _ => drop(input.remove(at.min(input.len() - 1))),
            }
            if input.is_empty() {
                input.push(0);
            }
        }
        input
    }
}

fn run(name: &str, body: fn(&[u8]), parts: &[&[u8]]) {
    let number =
        |variable: &str, default| std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (seed, rounds) = (number("SEED", 1_u64), number("ROUNDS", 20_000));
    let mut random = Random(seed);
    for round in 0..rounds {
        let input = random.input(parts);
        let shown = input.escape_ascii().to_string();
        assert!(
            catch_unwind(|| body(&input)).is_ok(),
            "{name} failed in round {round} on \"{shown}\"; replay: SEED={seed} cargo test -p bowline-resp --test fuzz_bodies"
        );
    }
}

#[test]
fn requests_do_not_depend_on_their_pieces() {
    run(
        "resp_request",
        fuzz::resp_request,
        &[
            b"*1\r\n$4\r\nPING\r\n",
            b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$12\r\nhello\r\nworld\r\n",
            b"*2\r\n$3\r\nGET\r\n$0\r\n\r\n",
            b"*0\r\n",
            b"*-1\r\n",
            b"*21\r\n",
            b"*1\r\n$101\r\n",
            b"*1000000\r\n$1\r\nx\r\n",
            b"$4294967295\r\n",
            b"SET \"a\\x00b\" 'c d'\r\n",
            b"ECHO \"open\r\n",
            b"PING\n",
            b"\r\n",
            b"*1\r",
            b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        ],
    );
}

#[test]
fn replies_do_not_depend_on_their_pieces() {
    run(
        "resp_reply",
        fuzz::resp_reply,
        &[
            b"+OK\r\n",
            b"-ERR a \n b\r\n",
            b":-12\r\n",
            b"$5\r\nhe\r\nl\r\n",
            b"$-1\r\n",
            b"*-1\r\n",
            b"_\r\n",
            b",1e-7\r\n",
            b",nan\r\n",
            b"#t\r\n",
            b"(-12345678901234567890\r\n",
            b"=7\r\ntxt:abc\r\n",
            b"!5\r\nE\r\nRR\r\n",
            b"*3\r\n",
            b"%2\r\n",
            b"~1\r\n",
            b">2\r\n",
            b"|1\r\n",
            b"*0\r\n",
            b"|0\r\n",
            b"*9223372036854775807\r\n",
            b"$100\r\n",
        ],
    );
}

#[test]
fn quoted_words_read_back() {
    run(
        "inline",
        fuzz::inline,
        &[
            b"SET",
            b" ",
            b"\"a b\"",
            b"'c\\'d'",
            b"\\x",
            b"\"\\x0g\\xff\\n\"",
            b"\t",
            b"\x0b",
            b"\0",
            b"\"",
            b"'",
            b"\\",
        ],
    );
}
