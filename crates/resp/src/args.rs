//! The arguments of one request as slices of the buffer that they arrived in: nothing is copied.
//!
//! A long argument may be in chunks beside the buffer instead; its range then names them by their number, counted down from
//! the highest start there is, which no buffer reaches.
//!
//! Not here: how they are found (`request`), what they mean (the commands).

use crate::chunks::{Bulk, Chunks};

/// Most arguments of one buffer that are in chunks.
const CHUNKED_MAX: u32 = 1 << 20;
const CHUNKED_FROM: u32 = u32::MAX - CHUNKED_MAX;

/// Where the bytes of one argument lie in the connection's buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ArgRange {
    /// Position of the first byte.
    pub start: u32,
    /// Length in bytes.
    pub len: u32,
}

impl ArgRange {
    /// The range of the argument of `len` bytes that is in the chunks of this number; `None` where there are too many.
    #[must_use]
    pub fn of_chunks(number: usize, len: u32) -> Option<ArgRange> {
        let number = u32::try_from(number).ok().filter(|number| *number < CHUNKED_MAX)?;
        Some(ArgRange { start: u32::MAX - number, len })
    }

    /// The number of the chunks that the argument is in; `None` for one in the buffer.
    #[must_use]
    #[inline]
    pub fn chunks_number(self) -> Option<usize> {
        (self.start > CHUNKED_FROM).then_some((u32::MAX - self.start) as usize)
    }

    /// The range as it is when so many chunks of lower numbers are gone; that of an argument in the buffer is the same.
    pub(crate) fn renumbered(self, gone: usize) -> ArgRange {
        match self.chunks_number() {
            Some(_) => ArgRange { start: self.start.saturating_add(gone as u32), len: self.len },
            None => self,
        }
    }
}

/// The arguments of one request; number 0 is the command's name. Cheap to copy.
#[derive(Clone, Copy)]
pub struct Args<'a> {
    buffer: &'a [u8],
    ranges: &'a [ArgRange],
    chunked: &'a [Chunks],
}

impl<'a> Args<'a> {
    /// Arguments at `ranges` of `buffer`, as [`RequestDecoder::decode`](crate::RequestDecoder::decode) found them.
    /// A range that leaves the buffer reads as an empty argument.
    #[must_use]
    pub fn new(buffer: &'a [u8], ranges: &'a [ArgRange]) -> Self {
        Self { buffer, ranges, chunked: &[] }
    }

    /// As [`Args::new`], where some are in these chunks.
    #[must_use]
    pub fn with_chunks(buffer: &'a [u8], ranges: &'a [ArgRange], chunked: &'a [Chunks]) -> Self {
        Self { buffer, ranges, chunked }
    }

    /// The number of arguments, the command's name included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether there is no argument at all, not even a name.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The argument at `index`, or `None` past the end. Of one in chunks the first chunk: see [`bulk`](Self::bulk).
    #[must_use]
    #[inline]
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        self.ranges.get(index).map(|range| slice(self.buffer, *range, self.chunked))
    }

    /// The argument at `index`, or an empty slice past the end: for commands whose arity has been checked.
    #[must_use]
    #[inline]
    pub fn at(&self, index: usize) -> &'a [u8] {
        self.get(index).unwrap_or_default()
    }

    /// The argument at `index`, in one piece or in chunks; empty past the end.
    #[must_use]
    #[inline]
    pub fn bulk(&self, index: usize) -> Bulk<'a> {
        let number = self.ranges.get(index).and_then(|range| range.chunks_number());
        match number.and_then(|number| self.chunked.get(number)) {
            Some(chunks) => Bulk::Chunks(chunks),
            None => Bulk::Bytes(self.at(index)),
        }
    }

    /// Whether some argument is in chunks.
    #[must_use]
    pub fn is_any_in_chunks(&self) -> bool {
        !self.chunked.is_empty() && self.ranges.iter().any(|range| range.chunks_number().is_some())
    }

    /// The lengths of the arguments in bytes, in order.
    pub fn lens(&self) -> impl ExactSizeIterator<Item = usize> + Clone + use<'a> {
        self.ranges.iter().map(|range| range.len as usize)
    }

    /// The buffer that they are in.
    #[must_use]
    pub fn buffer(&self) -> &'a [u8] {
        self.buffer
    }

    /// The chunks that some are in.
    #[must_use]
    pub fn chunked(&self) -> &'a [Chunks] {
        self.chunked
    }

    /// Where the arguments are.
    #[must_use]
    pub fn ranges(&self) -> &'a [ArgRange] {
        self.ranges
    }

    /// The arguments from `index` on; none past the end.
    #[must_use]
    pub fn from(&self, index: usize) -> Args<'a> {
        Self { ranges: self.ranges.get(index..).unwrap_or_default(), ..*self }
    }

    /// The arguments in order; as [`get`](Self::get).
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + DoubleEndedIterator + Clone + use<'a> {
        let (buffer, chunked) = (self.buffer, self.chunked);
        self.ranges.iter().map(move |range| slice(buffer, *range, chunked))
    }
}

impl std::fmt::Debug for Args<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_list().entries(self.iter().map(crate::quote)).finish()
    }
}

#[inline]
fn slice<'a>(buffer: &'a [u8], range: ArgRange, chunked: &'a [Chunks]) -> &'a [u8] {
    let start = range.start as usize;
    match buffer.get(start..start.saturating_add(range.len as usize)) {
        Some(bytes) => bytes,
        None => first_chunk(range, chunked),
    }
}

#[cold]
fn first_chunk(range: ArgRange, chunked: &[Chunks]) -> &[u8] {
    let chunks = range.chunks_number().and_then(|number| chunked.get(number));
    chunks.and_then(|chunks| chunks.iter().next()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUFFER: &[u8] = b"SETkeyvalue";
    const RANGES: [ArgRange; 3] =
        [ArgRange { start: 0, len: 3 }, ArgRange { start: 3, len: 3 }, ArgRange { start: 6, len: 5 }];

    #[test]
    fn arguments_are_slices_of_the_buffer() {
        let args = Args::new(BUFFER, &RANGES);
        assert_eq!(args.len(), 3);
        assert_eq!(args.at(0), b"SET");
        assert_eq!(args.get(2), Some(&b"value"[..]));
        assert_eq!(args.from(1).iter().rev().collect::<Vec<_>>(), [&b"value"[..], b"key"]);
    }

    #[test]
    fn an_argument_in_chunks_is_found_by_its_number() {
        let chunked = [Chunks::copy_of(b"first"), Chunks::copy_of(&[b'x'; 100_000])];
        let long = ArgRange::of_chunks(1, 100_000).unwrap();
        let ranges = [RANGES[0], RANGES[1], long];
        let args = Args::with_chunks(BUFFER, &ranges, &chunked);
        assert!(matches!(args.bulk(2), Bulk::Chunks(chunks) if chunks.len() == 100_000));
        assert!(matches!(args.from(1).bulk(1), Bulk::Chunks(_)));
        assert!(matches!(args.bulk(1), Bulk::Bytes(b"key")));
        assert_eq!(args.at(2).len(), crate::CHUNK_BYTES, "the beginning, for those who show it");
        assert_eq!(args.lens().collect::<Vec<_>>(), [3, 3, 100_000]);
        assert_eq!((long.renumbered(1).chunks_number(), RANGES[1].renumbered(1)), (Some(0), RANGES[1]));
        assert_eq!(Args::new(BUFFER, &ranges).at(2), b"");
    }

    #[test]
    fn past_the_end_there_is_nothing() {
        let args = Args::new(BUFFER, &RANGES);
        assert_eq!(args.get(3), None);
        assert_eq!(args.at(3), b"");
        assert!(args.from(3).is_empty());
        assert!(args.from(usize::MAX).is_empty());
    }

    #[test]
    fn a_range_outside_the_buffer_reads_as_empty() {
        let ranges = [ArgRange { start: 8, len: 4 }, ArgRange { start: u32::MAX, len: u32::MAX }];
        let args = Args::new(BUFFER, &ranges);
        assert_eq!((args.at(0), args.at(1)), (&b""[..], &b""[..]));
    }
}
