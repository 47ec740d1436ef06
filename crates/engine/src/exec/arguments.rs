//! Long arguments: in chunks where a command takes a value, in one piece everywhere else, whatever they came in. Done before
//! any lock is taken, so that nothing long is copied under one.
//!
//! Not here: how arguments are received (`bowline_resp`), where a command takes values (its row).

use super::Planned;
use crate::keyspace::entry::CHUNKED_FROM;
use bowline_resp::{ArgRange, Args, Bulk, Chunks};
use std::borrow::Cow;

/// The arguments of commands: places in a buffer, and chunks beside it.
#[derive(Clone, Copy)]
pub struct Arguments<'a> {
    /// The buffer.
    pub buffer: &'a [u8],
    /// Where in it, or in which chunks, each argument is.
    pub ranges: &'a [ArgRange],
    /// The chunks.
    pub chunked: &'a [Chunks],
}

impl<'a> From<Args<'a>> for Arguments<'a> {
    /// Those of one command, which is planned with its first range at 0.
    fn from(args: Args<'a>) -> Arguments<'a> {
        Arguments { buffer: args.buffer(), ranges: args.ranges(), chunked: args.chunked() }
    }
}

impl<'a> Arguments<'a> {
    /// Whether some of them could have to be arranged.
    #[inline]
    pub(super) fn may_be_long(&self) -> bool {
        self.buffer.len() >= CHUNKED_FROM || !self.chunked.is_empty()
    }

    fn of(&self, planned: &Planned) -> Args<'a> {
        let first = planned.first_range as usize;
        let ranges = self.ranges.get(first..first + planned.ranges as usize).unwrap_or_default();
        Args::with_chunks(self.buffer, ranges, self.chunked)
    }

    /// The arguments of these commands as they take them; `None` where they are so already.
    pub(super) fn arranged(&self, commands: &[Planned]) -> Option<Arranged<'a>> {
        let misplaced = |planned: &Planned| {
            let args = self.of(planned);
            (0..args.len()).any(|index| takes_chunks(planned, args, index) != is_chunked(args, index))
        };
        if !commands.iter().any(misplaced) {
            return None;
        }
        let mut arranged = Arranged {
            buffer: Cow::Borrowed(self.buffer),
            ranges: self.ranges.to_vec(),
            chunked: self.chunked.to_vec(),
        };
        for planned in commands {
            let args = self.of(planned);
            for index in 0..args.len() {
                let range = arranged.add(args.bulk(index), takes_chunks(planned, args, index));
                if let (Some(range), Some(place)) =
                    (range, arranged.ranges.get_mut(planned.first_range as usize + index))
                {
                    *place = range;
                }
            }
        }
        Some(arranged)
    }
}

fn is_chunked(args: Args<'_>, index: usize) -> bool {
    matches!(args.bulk(index), Bulk::Chunks(_))
}

/// Whether the command takes this argument in chunks: it is a value, and long.
pub(super) fn takes_chunks(planned: &Planned, args: Args<'_>, index: usize) -> bool {
    args.bulk(index).len() >= CHUNKED_FROM && planned.command.values.of(args.len()).any(|position| position == index)
}

/// See [`Arguments::arranged`].
pub(super) struct Arranged<'a> {
    buffer: Cow<'a, [u8]>,
    ranges: Vec<ArgRange>,
    chunked: Vec<Chunks>,
}

impl Arranged<'_> {
    /// Adds an argument that is not in the form it is taken in; returns where it is now.
    fn add(&mut self, argument: Bulk<'_>, in_chunks: bool) -> Option<ArgRange> {
        match argument {
            Bulk::Bytes(bytes) if in_chunks => {
                self.chunked.push(Chunks::copy_of(bytes));
                ArgRange::of_chunks(self.chunked.len() - 1, bytes.len() as u32)
            }
            Bulk::Chunks(chunks) if !in_chunks => {
                let buffer = self.buffer.to_mut();
                let range = ArgRange { start: buffer.len() as u32, len: chunks.len() as u32 };
                chunks.iter().for_each(|chunk| buffer.extend_from_slice(chunk));
                Some(range)
            }
            _ => None,
        }
    }

    pub(super) fn as_arguments(&self) -> Arguments<'_> {
        Arguments { buffer: &self.buffer, ranges: &self.ranges, chunked: &self.chunked }
    }
}
