//! LCS: the longest common subsequence of two strings, by the textbook table (Wagner and Fischer 1974), walked backwards
//! as Redis does so that the same one of several answers is given.

use super::arguments::{integer, is_word};
use super::{Arity, Command, CommandError, CommandInfo, Flags, Group, KeyPositions, Outcome, Run, View};
use bowline_resp::{Args, Reply};

/// Most bytes of the table; a larger one is refused, as in Redis.
const TABLE_BYTES_MAX: usize = 512 * 1024 * 1024;

/// The row of this file.
pub(super) static COMMANDS: &[Command] = &[Command::new(
    CommandInfo {
        name: "lcs",
        arity: Arity::AtLeast(3),
        keys: KeyPositions::FIRST_TWO,
        flags: Flags::NONE,
        group: Group::String,
        syntax: "key1 key2 [LEN] [IDX] [MINMATCHLEN min-match-len] [WITHMATCHLEN]",
        summary: "Finds the longest common subsequence of two strings.",
        since: "0.1.0",
    },
    Run::Read(lcs),
)];

#[derive(Default)]
struct Options {
    len: bool,
    idx: bool,
    with_match_len: bool,
    min_match_len: usize,
}

impl Options {
    fn parse(args: Args<'_>) -> Result<Options, CommandError> {
        let mut options = Options::default();
        let mut words = args.from(3).iter();
        while let Some(word) = words.next() {
            if is_word(word, "len") {
                options.len = true;
            } else if is_word(word, "idx") {
                options.idx = true;
            } else if is_word(word, "withmatchlen") {
                options.with_match_len = true;
            } else if is_word(word, "minmatchlen") {
                let len = integer(words.next().ok_or(CommandError::Syntax)?)?;
                options.min_match_len = usize::try_from(len).unwrap_or(0);
            } else {
                return Err(CommandError::Syntax);
            }
        }
        if options.len && options.idx {
            let text = "ERR If you want both the length and indexes, please just use IDX.";
            return Err(CommandError::text(text));
        }
        Ok(options)
    }
}

/// `lengths[i][j]` = length of the longest common subsequence of the first i and j bytes.
struct Lengths {
    cells: Vec<u32>,
    width: usize,
}

impl Lengths {
    fn new(a: &[u8], b: &[u8]) -> Result<Lengths, CommandError> {
        let width = b.len() + 1;
        let cells = (a.len() + 1).checked_mul(width).filter(|cells| *cells <= TABLE_BYTES_MAX / size_of::<u32>());
        let text = "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len";
        let mut lengths = Lengths { cells: vec![0; cells.ok_or(CommandError::text(text))?], width };
        for (i, x) in a.iter().enumerate() {
            for (j, y) in b.iter().enumerate() {
                let length = if x == y { lengths.at(i, j) + 1 } else { lengths.at(i, j + 1).max(lengths.at(i + 1, j)) };
                lengths.cells[(i + 1) * width + j + 1] = length;
            }
        }
        Ok(lengths)
    }

    fn at(&self, i: usize, j: usize) -> u32 {
        self.cells[i * self.width + j]
    }
}

/// A run of bytes that both strings share: first position in each, and its length.
#[derive(Clone, Copy)]
struct Match {
    a: usize,
    b: usize,
    len: usize,
}

/// The runs of one longest common subsequence, from the back to the front.
fn matches(a: &[u8], b: &[u8], lengths: &Lengths) -> Vec<Match> {
    let (mut i, mut j) = (a.len(), b.len());
    let mut runs: Vec<Match> = Vec::new();
    while i > 0 && j > 0 {
        if a[i - 1] == b[j - 1] {
            i -= 1;
            j -= 1;
            match runs.last_mut() {
                Some(run) if run.a == i + 1 && run.b == j + 1 => *run = Match { a: i, b: j, len: run.len + 1 },
                _ => runs.push(Match { a: i, b: j, len: 1 }),
            }
        } else if lengths.at(i - 1, j) > lengths.at(i, j - 1) {
            i -= 1;
        } else {
            j -= 1;
        }
    }
    runs
}

fn lcs(view: &mut View<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let a = view.find(args.at(1))?.map_or_else(Vec::new, |entry| entry.value().to_vec());
    let b = view.find(args.at(2))?.map_or_else(Vec::new, |entry| entry.value().to_vec());
    let options = Options::parse(args)?;
    let lengths = Lengths::new(&a, &b)?;
    let total = lengths.at(a.len(), b.len());
    if options.len {
        reply.integer(i64::from(total));
        return Ok(());
    }
    let runs = matches(&a, &b, &lengths);
    if !options.idx {
        let text: Vec<u8> = runs.iter().rev().flat_map(|run| &a[run.a..run.a + run.len]).copied().collect();
        reply.bulk(&text);
        return Ok(());
    }
    let shown: Vec<&Match> = runs.iter().filter(|run| run.len >= options.min_match_len).collect();
    reply.map(2);
    reply.bulk(b"matches");
    reply.array(shown.len());
    for run in shown {
        reply.array(if options.with_match_len { 3 } else { 2 });
        for start in [run.a, run.b] {
            reply.array(2);
            reply.integer(start as i64);
            reply.integer((start + run.len - 1) as i64);
        }
        if options.with_match_len {
            reply.integer(run.len as i64);
        }
    }
    reply.bulk(b"len");
    reply.integer(i64::from(total));
    Ok(())
}
