//! The arguments of one request as slices of the buffer that they arrived in: nothing is copied.
//!
//! Not here: how they are found (`request`), what they mean (the commands).

/// Where the bytes of one argument lie in the connection's buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ArgRange {
    /// Position of the first byte.
    pub start: u32,
    /// Length in bytes.
    pub len: u32,
}

/// The arguments of one request; number 0 is the command's name. Cheap to copy.
#[derive(Clone, Copy)]
pub struct Args<'a> {
    buffer: &'a [u8],
    ranges: &'a [ArgRange],
}

impl<'a> Args<'a> {
    /// Arguments at `ranges` of `buffer`, as [`RequestDecoder::decode`](crate::RequestDecoder::decode) found them.
    /// A range that leaves the buffer reads as an empty argument.
    #[must_use]
    pub fn new(buffer: &'a [u8], ranges: &'a [ArgRange]) -> Self {
        Self { buffer, ranges }
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

    /// The argument at `index`, or `None` past the end.
    #[must_use]
    #[inline]
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        self.ranges.get(index).map(|range| slice(self.buffer, *range))
    }

    /// The argument at `index`, or an empty slice past the end: for commands whose arity has been checked.
    #[must_use]
    #[inline]
    pub fn at(&self, index: usize) -> &'a [u8] {
        self.get(index).unwrap_or_default()
    }

    /// The arguments from `index` on; none past the end.
    #[must_use]
    pub fn from(&self, index: usize) -> Args<'a> {
        Self { buffer: self.buffer, ranges: self.ranges.get(index..).unwrap_or_default() }
    }

    /// The arguments in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + DoubleEndedIterator + Clone + use<'a> {
        let buffer = self.buffer;
        self.ranges.iter().map(move |range| slice(buffer, *range))
    }
}

impl std::fmt::Debug for Args<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_list().entries(self.iter().map(crate::quote)).finish()
    }
}

#[inline]
fn slice(buffer: &[u8], range: ArgRange) -> &[u8] {
    let start = range.start as usize;
    buffer.get(start..start.saturating_add(range.len as usize)).unwrap_or_default()
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
