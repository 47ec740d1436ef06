//! The commands of an append-only file, as the units that must be executed whole or not at all.
//!
//! ```text
//!   *2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n        a command, as a client would send it
//!   #TS:1628217470\r\n                       a line about what follows (aof-timestamp-enabled): passed over
//!   MULTI ... EXEC                           one unit
//! ```
//!
//! A file may end in the middle of a command, because the machine or the server ended while it was written. What is whole
//! before it counts, and the rest is told by [`AofReader::truncation`]; an open transaction counts as not begun. That is
//! how Redis loads a file with `aof-load-truncated yes`. Anything else that is no command is damage.
//!
//! A file may begin with an RDB: read it with [`Reader`](crate::Reader), then go on here with
//! [`AofReader::starting_at`]. Not here: which files belong together (`manifest`).

use std::io::{self, Read};

use bowline_resp::{ArgRange, Args, Decoded, RequestDecoder, RequestLimits};

use crate::error::AofError;
use crate::limits::PIECE_BYTES;

/// Longest line that begins with `#`. Redis writes 16 bytes; beyond this it is damage.
const ANNOTATION_BYTES_MAX: usize = 1024;
/// Most that is asked of the source at once when a long argument is on its way.
const LONG_PIECE_BYTES: usize = 1024 * 1024;

/// Redis takes what it wrote itself without a limit; here only the codec's own positions limit a command (4 GiB).
const LIMITS: RequestLimits =
    RequestLimits { args_max: i32::MAX as u32, bulk_bytes_max: u32::MAX, inline_bytes_max: 0, authenticated: true };

/// Reads an append-only file unit by unit. It reads ahead: the source is its own until the end.
#[derive(Debug)]
pub struct AofReader<R> {
    source: R,
    source_ended: bool,
    buffer: Vec<u8>,
    /// Where in the file the buffer begins.
    buffer_offset: u64,
    /// Where in the buffer the next unit begins.
    next: usize,
    decoder: RequestDecoder,
    ranges: Vec<ArgRange>,
    commands: Vec<Found>,
    truncation: Option<Truncation>,
    ended: bool,
}

/// Where a command lies: its bytes in the buffer, its arguments in the ranges.
#[derive(Debug, Clone, Copy)]
struct Found {
    bytes: (usize, usize),
    ranges: (usize, usize),
}

/// How a file ended that does not end with a whole unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truncation {
    /// Where the last whole unit ends: everything before it counts.
    pub offset: u64,
    /// How many bytes after it do not count.
    pub bytes: u64,
    /// They are a transaction without its EXEC, not only a part of a command.
    pub in_transaction: bool,
}

/// What must be executed whole or not at all: one command, or MULTI, commands and EXEC.
#[derive(Debug, Clone, Copy)]
pub struct Unit<'a> {
    buffer: &'a [u8],
    ranges: &'a [ArgRange],
    commands: &'a [Found],
    offset: u64,
}

impl<'a> Unit<'a> {
    /// Where in the file it begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether it is a transaction.
    pub fn is_transaction(&self) -> bool {
        self.commands.len() > 1
    }

    /// Its commands in order (MULTI first and EXEC last, if it is a transaction): the arguments, and the bytes to send.
    pub fn commands(&self) -> impl ExactSizeIterator<Item = (Args<'a>, &'a [u8])> + use<'a> {
        let Unit { buffer, ranges, .. } = *self;
        self.commands.iter().map(move |found| {
            let ranges = ranges.get(found.ranges.0..found.ranges.1).unwrap_or_default();
            (Args::new(buffer, ranges), buffer.get(found.bytes.0..found.bytes.1).unwrap_or_default())
        })
    }
}

/// What stands at a place of the buffer.
enum Next {
    /// A command, up to this place.
    Command(usize),
    /// A line to pass over, up to this place.
    Annotation(usize),
    /// More bytes are needed to tell.
    Incomplete,
}

impl<R: Read> AofReader<R> {
    /// A reader at the beginning of a file.
    pub fn new(source: R) -> Self {
        AofReader::starting_at(source, 0)
    }

    /// A reader of what follows the first `offset` bytes of a file (an RDB), which `source` has passed.
    pub fn starting_at(source: R, offset: u64) -> Self {
        AofReader {
            source,
            source_ended: false,
            buffer: Vec::new(),
            buffer_offset: offset,
            next: 0,
            decoder: RequestDecoder::new(),
            ranges: Vec::new(),
            commands: Vec::new(),
            truncation: None,
            ended: false,
        }
    }

    /// How many bytes of the file have been handed out as whole units.
    pub fn offset(&self) -> u64 {
        self.buffer_offset + self.next as u64
    }

    /// After the last unit: what does not count, if the file ends within a unit.
    pub fn truncation(&self) -> Option<Truncation> {
        self.truncation
    }

    /// The next unit, or `None` at the end; see [`AofReader::truncation`] then.
    ///
    /// # Errors
    /// [`AofError::Damaged`] for bytes that are no command, and for MULTI and EXEC in the wrong order;
    /// [`AofError::Io`]. After an error there are no more units.
    pub fn next_unit(&mut self) -> Result<Option<Unit<'_>>, AofError> {
        if self.ended {
            return Ok(None);
        }
        let found = self.find_unit();
        self.ended = !matches!(found, Ok(true));
        if !found? {
            return Ok(None);
        }
        let begin = self.commands.first().map_or(0, |found| found.bytes.0);
        Ok(Some(Unit {
            buffer: &self.buffer,
            ranges: &self.ranges,
            commands: &self.commands,
            offset: self.buffer_offset + begin as u64,
        }))
    }

    /// Collects the commands of the next unit; false at the end.
    fn find_unit(&mut self) -> Result<bool, AofError> {
        self.ranges.clear();
        self.commands.clear();
        let mut at = self.next;
        loop {
            let ranges_begin = self.ranges.len();
            match self.look(at)? {
                Next::Annotation(end) => at = end,
                Next::Command(end) => {
                    let found = Found { bytes: (at, end), ranges: (ranges_begin, self.ranges.len()) };
                    let whole = self.take_command(found)?;
                    at = end;
                    if whole {
                        self.next = end;
                        return Ok(true);
                    }
                }
                Next::Incomplete => {
                    if self.source_ended {
                        self.tell_truncation(at);
                        return Ok(false);
                    }
                    if self.commands.is_empty() {
                        self.drop_before(at);
                        at = 0;
                    }
                    self.fill()?;
                }
            }
        }
    }

    /// Adds a command to the unit; true when the unit is whole.
    fn take_command(&mut self, found: Found) -> Result<bool, AofError> {
        let ranges = self.ranges.get(found.ranges.0..found.ranges.1).unwrap_or_default();
        let name = Args::new(&self.buffer, ranges).at(0);
        let (begins, ends) = (name.eq_ignore_ascii_case(b"MULTI"), name.eq_ignore_ascii_case(b"EXEC"));
        let in_transaction = !self.commands.is_empty();
        if in_transaction && begins {
            return Err(self.damaged(found.bytes.0, "MULTI stands within a transaction"));
        }
        if ends && !in_transaction {
            return Err(self.damaged(found.bytes.0, "EXEC stands without its MULTI"));
        }
        self.commands.push(found);
        Ok(ends || !(in_transaction || begins))
    }

    /// What stands at `at`. The arguments of a command are appended to the ranges.
    fn look(&mut self, at: usize) -> Result<Next, AofError> {
        match self.buffer.get(at) {
            None => Ok(Next::Incomplete),
            Some(b'#') => self.look_at_annotation(at),
            Some(b'*') => match self.decoder.decode(&self.buffer, at, &LIMITS, &mut self.ranges) {
                Ok(Decoded::Request { end }) => Ok(Next::Command(end)),
                Ok(Decoded::Incomplete) => Ok(Next::Incomplete),
                Ok(Decoded::Nothing { .. } | Decoded::Inline { .. }) => {
                    Err(self.damaged(at, "a command has no arguments"))
                }
                Err(error) => Err(self.damaged(at, &error.to_string())),
            },
            Some(_) => Err(self.damaged(at, "a command must begin with '*'")),
        }
    }

    fn look_at_annotation(&self, at: usize) -> Result<Next, AofError> {
        let line = self.buffer.iter().skip(at).take(ANNOTATION_BYTES_MAX);
        match line.clone().position(|byte| *byte == b'\n') {
            Some(length) => Ok(Next::Annotation(at + length + 1)),
            None if line.len() == ANNOTATION_BYTES_MAX => {
                Err(self.damaged(at, "a line that begins with '#' has no end"))
            }
            None => Ok(Next::Incomplete),
        }
    }

    fn tell_truncation(&mut self, at: usize) {
        let bytes = (self.buffer.len() - self.next) as u64;
        // A line about what would have followed is no loss.
        if at < self.buffer.len() || !self.commands.is_empty() {
            let in_transaction = !self.commands.is_empty();
            self.truncation = Some(Truncation { offset: self.offset(), bytes, in_transaction });
        }
    }

    /// Forgets the bytes before `at`, where the next unit begins.
    fn drop_before(&mut self, at: usize) {
        self.buffer.drain(..at);
        self.buffer_offset += at as u64;
        self.decoder.rebase(at);
        self.next = 0;
        if self.buffer.is_empty() && self.buffer.capacity() > 4 * LONG_PIECE_BYTES {
            self.buffer = Vec::new();
        }
    }

    fn fill(&mut self) -> Result<(), AofError> {
        let piece = self.decoder.bytes_wanted().clamp(PIECE_BYTES, LONG_PIECE_BYTES);
        let begin = self.buffer.len();
        self.buffer.resize(begin + piece, 0);
        let read = loop {
            match self.source.read(self.buffer.get_mut(begin..).unwrap_or_default()) {
                Err(source) if source.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        let length = *read.as_ref().unwrap_or(&0);
        self.buffer.truncate(begin + length);
        self.source_ended = length == 0;
        match read {
            Ok(_) => Ok(()),
            Err(source) => Err(AofError::Io { offset: self.buffer_offset + begin as u64, source }),
        }
    }

    fn damaged(&self, at: usize, what: &str) -> AofError {
        AofError::Damaged { offset: self.buffer_offset + at as u64, what: what.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use bowline_resp::encode_request;

    use super::*;

    /// A source that gives its bytes in pieces of this size.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = self.1.min(buffer.len());
            (&mut self.0).take(length as u64).read(buffer)
        }
    }

    fn file(commands: &[&str]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for command in commands {
            encode_request(&mut bytes, &command.split(' ').collect::<Vec<_>>());
        }
        bytes
    }

    /// The units as text, and how the file ended.
    fn units(bytes: &[u8], piece: usize) -> (Vec<String>, Result<Option<Truncation>, String>) {
        let (mut reader, mut units) = (AofReader::new(Pieces(bytes, piece)), Vec::new());
        loop {
            match reader.next_unit() {
                Ok(Some(unit)) => {
                    let text = |(args, raw): (Args<'_>, &[u8])| {
                        let mut again = Vec::new();
                        encode_request(&mut again, &args.iter().collect::<Vec<_>>());
                        assert_eq!(again, raw, "the bytes are those of the arguments");
                        String::from_utf8_lossy(&args.iter().collect::<Vec<_>>().join(&b' ')).into_owned()
                    };
                    units.push(unit.commands().map(text).collect::<Vec<_>>().join("; "));
                }
                Ok(None) => return (units, Ok(reader.truncation())),
                Err(error) => {
                    assert!(matches!(reader.next_unit(), Ok(None)), "nothing follows an error");
                    return (units, Err(error.to_string()));
                }
            }
        }
    }

    #[test]
    fn commands_and_transactions_are_units_whatever_the_pieces() {
        let mut bytes = file(&["SELECT 0", "SET a 1"]);
        bytes.extend(b"#TS:1628217470\r\n");
        bytes.extend(file(&["multi", "SET b 2", "INCR a", "exec", "DEL b"]));
        let expected = ["SELECT 0", "SET a 1", "multi; SET b 2; INCR a; exec", "DEL b"].map(str::to_owned).to_vec();
        for piece in [1, 2, 3, 7, 16, 1 << 20] {
            assert_eq!(units(&bytes, piece), (expected.clone(), Ok(None)));
        }
    }

    #[test]
    fn a_cut_anywhere_leaves_the_whole_units_before_it() {
        let whole = ["SET a 1", "MULTI", "SET b 2", "EXEC", "SET c 3"];
        let bytes = file(&whole);
        let ends = [file(&whole[..1]).len(), file(&whole[..4]).len(), bytes.len()];
        for cut in 0..bytes.len() {
            let (found, end) = units(&bytes[..cut], 5);
            let kept = ends.iter().filter(|end| **end <= cut).count();
            assert_eq!(found.len(), kept, "cut at {cut}");
            let offset = kept.checked_sub(1).map_or(0, |last| ends[last]);
            let truncation = end.expect("a cut is no damage");
            if cut == offset {
                assert_eq!(truncation, None);
            } else {
                let truncation = truncation.expect("something is cut off");
                assert_eq!((truncation.offset, truncation.bytes), (offset as u64, (cut - offset) as u64));
                assert_eq!(truncation.in_transaction, kept == 1 && cut >= file(&whole[..2]).len());
            }
        }
    }

    #[test]
    fn bytes_that_are_no_command_are_damage_with_their_place() {
        let good = file(&["SET a 1"]);
        for (bad, what) in [
            (&b"SET a 1\r\n"[..], "must begin with '*'"),
            (b"\0\0\0\0", "must begin with '*'"),
            (b"*0\r\n", "no arguments"),
            (b"*1\r\n:3\r\n", "expected '$'"),
            (b"*1\r\n$4\r\nEXEC\r\n", "without its MULTI"),
            (b"*1\r\n$5\r\nMULTI\r\n*1\r\n$5\r\nMULTI\r\n", "within a transaction"),
        ] {
            let (found, end) = units(&[&good, bad].concat(), 4);
            assert_eq!(found, ["SET a 1"]);
            let message = end.expect_err("damage");
            assert!(message.contains(what), "{message}");
            assert!(message.contains("byte 27") || message.contains("byte 42"), "{message}");
        }
        let (_, end) = units(&[b'#'; 2000], 100);
        assert!(end.is_err());
    }

    #[test]
    fn places_count_from_the_beginning_of_the_file_also_after_an_rdb() {
        let bytes = file(&["SET a 1", "SET b 2"]);
        let mut reader = AofReader::starting_at(&bytes[..], 1000);
        let first = reader.next_unit().expect("a file").map(|unit| unit.offset());
        let second = reader.next_unit().expect("a file").map(|unit| unit.offset());
        assert_eq!((first, second), (Some(1000), Some(1027)));
        assert_eq!(reader.offset(), 1054);
    }
}
