//! From the bytes of a connection to the arguments of a request, one request at a time.
//!
//! ```text
//!   multibulk    *<count> CRLF, then <count> times:  $<length> CRLF <bytes> CRLF
//!   inline       words up to LF or CR LF             (anything that does not begin with '*')
//! ```
//!
//! The decoder looks at each byte once: what it has understood of an unfinished request stays with it, as positions counted
//! from the request's first byte, so the buffer may move or be compacted between calls.
//!
//! ```text
//!   buffer   *3 .. SET .. key .. $104857600 CRLF | CRLF ..      a long argument whose bytes were taken out of the buffer
//!   chunks                                        \-- 64 KiB, 64 KiB, ..     and are received beside it
//! ```
//!
//! Not here: which bytes are kept and when they are dropped (the session), what the arguments mean (the commands).

use memchr::memchr;

use crate::chunks::{Chunks, ChunksBuilder};
use crate::inline::split_into;
use crate::limits::{
    BUFFER_BYTES_MAX, INLINE_BUFFER_BYTES_MAX, KEPT_RANGES_MAX, LENGTH_LINE_BYTES_MAX, UNAUTHENTICATED_ARGS_MAX,
    UNAUTHENTICATED_BULK_BYTES_MAX, UNAUTHENTICATED_REQUEST_BYTES_MAX,
};
use crate::reply::write_length;
use crate::{ArgRange, Args, ProtocolError, RequestLimits, parse_integer};

/// What [`RequestDecoder::decode`] found. Every `end` is the position in the buffer right after the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoded {
    /// The request is not all there yet: call again with the same start and more bytes.
    Incomplete,
    /// A request whose arguments are in the ranges, as places in the buffer.
    Request {
        /// Where the next request begins.
        end: usize,
    },
    /// An inline request: [`RequestDecoder::inline_args`] has its arguments, at least one; the ranges are untouched.
    Inline {
        /// Where the next request begins.
        end: usize,
    },
    /// Something that asks for nothing and gets no reply: an empty line, or a count of zero or less.
    Nothing {
        /// Where the next request begins.
        end: usize,
    },
}

/// Decodes the requests of one connection. Holds the progress in the one request that is not complete yet.
#[derive(Debug, Default)]
pub struct RequestDecoder {
    progress: Progress,
    /// Arguments understood so far of a request that did not arrive in one piece; positions from the request's start.
    partial: Vec<ArgRange>,
    /// The unescaped arguments of the last inline request.
    inline_bytes: Vec<u8>,
    inline_ranges: Vec<ArgRange>,
    /// Long arguments that have come in chunks, and where in the buffer their bytes would begin.
    chunked: Vec<Chunks>,
    chunked_at: Vec<usize>,
    /// The one that is being received.
    receiving: Option<Receiving>,
}

/// A long argument on its way.
#[derive(Debug)]
struct Receiving {
    /// Where in the buffer its bytes would begin.
    at: usize,
    len: usize,
    bytes: ChunksBuilder,
}

/// How far the unfinished request has been understood. All zero: nothing of it yet.
#[derive(Debug, Default, Clone, Copy)]
struct Progress {
    /// Bytes from the request's start up to the line or bulk that is not complete.
    position: usize,
    /// Bytes from `position` on that were searched for the end of the line in vain.
    searched: usize,
    /// Arguments still to come; 0 before the count is known, which is always at least 1.
    args_left: u32,
    /// The length of the argument whose bytes begin at `position`, when its length line has been read.
    bulk: Option<u32>,
    /// Bytes still missing of that argument and its line end.
    wanted: usize,
}

/// How a walk over a multibulk request ended.
enum Walk {
    Incomplete,
    Complete { end: usize },
    Nothing { end: usize },
}

impl RequestDecoder {
    /// A decoder at the beginning of a request.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Decodes the request that begins at `buffer[start..]`.
    ///
    /// The ranges of a [`Decoded::Request`] are appended to `ranges`, as positions in `buffer`; nothing else ever changes
    /// `ranges`. After [`Decoded::Incomplete`] call again with the same start, moved by [`rebase`](Self::rebase) at most,
    /// and the same bytes with more behind them; `limits` may be others. The cost is linear in the bytes not seen before.
    ///
    /// # Errors
    /// [`ProtocolError`] when the bytes can never become a request. The connection has no next request: close it.
    #[inline]
    pub fn decode(
        &mut self,
        buffer: &[u8],
        start: usize,
        limits: &RequestLimits,
        ranges: &mut Vec<ArgRange>,
    ) -> Result<Decoded, ProtocolError> {
        let chunk_bytes = if self.chunked.is_empty() { 0 } else { self.chunk_bytes() };
        if (buffer.len() + chunk_bytes) as u64 > BUFFER_BYTES_MAX {
            return Err(ProtocolError::BufferTooLarge);
        }
        if !self.inline_ranges.is_empty() {
            self.shrink_inline();
        }
        match buffer.get(start) {
            None => Ok(Decoded::Incomplete),
            Some(b'*') if self.partial.is_empty() => self.decode_into_ranges(buffer, start, limits, ranges),
            Some(b'*') => self.decode_into_partial(buffer, start, limits, ranges),
            Some(_) => self.decode_inline(buffer, start, limits),
        }
    }

    /// The arguments of the last [`Decoded::Inline`], valid until the next call of [`decode`](Self::decode) or
    /// [`finish_inline`](Self::finish_inline).
    #[must_use]
    pub fn inline_args(&self) -> Args<'_> {
        Args::new(&self.inline_bytes, &self.inline_ranges)
    }

    /// To be called when an inline request has run: gives its memory back at once. Without it the arguments stay until
    /// the next [`decode`](Self::decode), which on an idle connection may never come.
    ///
    /// ```
    /// use bowline_resp::{Decoded, RequestDecoder, RequestLimits};
    /// let mut decoder = RequestDecoder::new();
    /// let decoded = decoder.decode(b"PING\r\n", 0, &RequestLimits::default(), &mut Vec::new());
    /// assert_eq!(decoded, Ok(Decoded::Inline { end: 6 }));
    /// assert_eq!(decoder.inline_args().at(0), b"PING");
    /// decoder.finish_inline();
    /// assert!(decoder.inline_args().is_empty());
    /// ```
    pub fn finish_inline(&mut self) {
        self.inline_bytes = Vec::new();
        self.inline_ranges = Vec::new();
    }

    /// Forgets the last inline request and keeps little of its memory.
    #[cold]
    fn shrink_inline(&mut self) {
        self.inline_bytes.clear();
        self.inline_ranges.clear();
        self.inline_bytes.shrink_to(INLINE_BUFFER_BYTES_MAX);
        self.inline_ranges.shrink_to(INLINE_BUFFER_BYTES_MAX / size_of::<ArgRange>());
    }

    /// How many bytes are missing of the argument that is being received, its line end included; 0 if that is not known.
    /// A hint for the size of the next read. It is a promise of the other side: bound what is allocated for it.
    #[must_use]
    pub fn bytes_wanted(&self) -> usize {
        self.progress.wanted
    }

    /// To be called when `bytes_removed` bytes before the current request were cut off the buffer's front: the next
    /// `start` is smaller by that many. Progress is counted from the request's own start, so this costs nothing.
    pub fn rebase(&mut self, bytes_removed: usize) {
        if self.chunked.is_empty() && self.receiving.is_none() {
            // Nothing else here depends on where in the buffer the request begins.
            return;
        }
        self.forget_chunks(bytes_removed);
        self.chunked_at.iter_mut().for_each(|at| *at -= bytes_removed);
        if let Some(receiving) = &mut self.receiving {
            receiving.at -= bytes_removed;
        }
    }

    /// Lets go of the arguments in chunks of requests that have run: those before `end` of the buffer.
    pub fn forget_chunks(&mut self, end: usize) {
        let gone = self.chunked_at.iter().take_while(|at| **at < end).count();
        if gone > 0 {
            self.chunked_at.drain(..gone);
            self.chunked.drain(..gone);
            self.partial.iter_mut().for_each(|range| *range = range.renumbered(gone));
        }
    }

    /// Begins anew with a request that was decoded before and did not run. Arguments in chunks are kept.
    pub fn restart(&mut self) {
        self.progress = Progress::default();
        self.partial.clear();
    }

    /// After [`Decoded::Incomplete`] of the request at `start`: if the argument that is being received has at least `from`
    /// bytes, takes what is there of it out of the buffer, so that the rest may be received into
    /// [`chunk_space`](Self::chunk_space). Returns whether it did. What follows the argument goes to the buffer's end again.
    pub fn begin_chunks(&mut self, buffer: &mut Vec<u8>, start: usize, from: usize) -> bool {
        let Some(len) = self.progress.bulk.map(|len| len as usize).filter(|len| *len >= from) else { return false };
        let at = start + self.progress.position;
        let there = buffer.get(at..).unwrap_or_default();
        if self.receiving.is_some() || there.len() >= len || self.chunked_at.contains(&at) {
            return false;
        }
        let mut bytes = ChunksBuilder::default();
        bytes.append(there);
        buffer.truncate(at);
        self.progress.wanted = 2;
        self.receiving = Some(Receiving { at, len, bytes });
        true
    }

    /// How many bytes are missing of the argument that is received in chunks; 0 when none is.
    #[must_use]
    pub fn chunk_bytes_missing(&self) -> usize {
        self.receiving.as_ref().map_or(0, |receiving| receiving.len - receiving.bytes.len())
    }

    /// Where its next bytes go: at the end of this vector, no more than are missing and no more than it has room for.
    /// [`received_chunk`](Self::received_chunk) follows.
    pub fn chunk_space(&mut self) -> Option<&mut Vec<u8>> {
        let missing = self.chunk_bytes_missing();
        self.receiving.as_mut().map(|receiving| receiving.bytes.space(missing))
    }

    /// Adds the next bytes of the argument that is received in chunks; returns those that are not its own.
    pub fn fill_chunks<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let missing = self.chunk_bytes_missing();
        let (its_own, rest) = bytes.split_at(bytes.len().min(missing));
        if let Some(receiving) = &mut self.receiving {
            receiving.bytes.append(its_own);
            let surplus = self.received_chunk();
            debug_assert!(surplus.is_empty(), "no more was added than was missing");
        }
        rest
    }

    /// Bytes were added to [`chunk_space`](Self::chunk_space). Those that were too many are given back: they belong to the
    /// buffer.
    #[must_use]
    pub fn received_chunk(&mut self) -> Vec<u8> {
        let Some(mut receiving) = self.receiving.take() else { return Vec::new() };
        let surplus = receiving.bytes.cut(receiving.len);
        if receiving.bytes.len() < receiving.len {
            self.receiving = Some(receiving);
        } else {
            self.chunked_at.push(receiving.at);
            self.chunked.push(receiving.bytes.finish());
        }
        surplus
    }

    /// The arguments that came in chunks, by their numbers in the ranges, of requests that were not forgotten.
    #[must_use]
    pub fn chunked(&self) -> &[Chunks] {
        &self.chunked
    }

    /// Bytes of arguments that came in chunks or are coming.
    #[must_use]
    pub fn chunk_bytes(&self) -> usize {
        let coming = self.receiving.as_ref().map_or(0, |receiving| receiving.bytes.len());
        coming + self.chunked.iter().map(Chunks::len).sum::<usize>()
    }

    /// The usual way: all arguments so far go straight to the caller, nothing is kept unless bytes are missing.
    #[inline]
    fn decode_into_ranges(
        &mut self,
        buffer: &[u8],
        start: usize,
        limits: &RequestLimits,
        ranges: &mut Vec<ArgRange>,
    ) -> Result<Decoded, ProtocolError> {
        let mark = ranges.len();
        match walk((buffer, &self.chunked_at), start, limits, &mut self.progress, ranges, 0) {
            Ok(Walk::Complete { end }) => Ok(Decoded::Request { end }),
            Ok(Walk::Nothing { end }) => Ok(Decoded::Nothing { end }),
            Ok(Walk::Incomplete) => {
                let moved = |range| moved(range, |at| at - position_u32(start));
                self.partial.extend(ranges.drain(mark..).map(moved));
                Ok(Decoded::Incomplete)
            }
            Err(error) => {
                ranges.truncate(mark);
                Err(self.give_up(error))
            }
        }
    }

    /// The way of a request that comes in pieces: its arguments are collected here and handed over when it is complete.
    #[cold]
    fn decode_into_partial(
        &mut self,
        buffer: &[u8],
        start: usize,
        limits: &RequestLimits,
        ranges: &mut Vec<ArgRange>,
    ) -> Result<Decoded, ProtocolError> {
        match walk((buffer, &self.chunked_at), start, limits, &mut self.progress, &mut self.partial, start) {
            Ok(Walk::Complete { end }) => {
                let moved = |range| moved(range, |at| at + position_u32(start));
                ranges.extend(self.partial.drain(..).map(moved));
                self.partial.shrink_to(KEPT_RANGES_MAX);
                Ok(Decoded::Request { end })
            }
            Ok(Walk::Nothing { end }) => Ok(Decoded::Nothing { end }),
            Ok(Walk::Incomplete) => Ok(Decoded::Incomplete),
            Err(error) => Err(self.give_up(error)),
        }
    }

    #[cold]
    fn decode_inline(&mut self, buffer: &[u8], start: usize, limits: &RequestLimits) -> Result<Decoded, ProtocolError> {
        let mut line_bytes_max = limits.inline_bytes_max as usize;
        if !limits.authenticated {
            line_bytes_max = line_bytes_max.min(UNAUTHENTICATED_REQUEST_BYTES_MAX);
        }
        let rest = buffer.get(start..).unwrap_or_default();
        let Some(length) = find_in_line(rest, b'\n', self.progress.searched, line_bytes_max) else {
            if rest.len() > line_bytes_max {
                return Err(self.give_up(ProtocolError::InlineTooBig));
            }
            self.progress.searched = rest.len();
            return Ok(Decoded::Incomplete);
        };
        self.progress = Progress::default();
        // The CR of the line's end is white space for the split.
        let line = rest.get(..length).unwrap_or_default();
        if let Err(error) = split_into(line, &mut self.inline_bytes, &mut self.inline_ranges) {
            return Err(self.give_up(error));
        }
        let end = start + length + 1;
        Ok(if self.inline_ranges.is_empty() { Decoded::Nothing { end } } else { Decoded::Inline { end } })
    }

    /// Forgets everything of a request that broke the protocol.
    #[cold]
    fn give_up(&mut self, error: ProtocolError) -> ProtocolError {
        *self = Self::default();
        error
    }
}

/// A range counted from elsewhere; that of an argument in chunks is the same everywhere.
fn moved(range: ArgRange, to: impl Fn(u32) -> u32) -> ArgRange {
    match range.chunks_number() {
        Some(_) => range,
        None => ArgRange { start: to(range.start), len: range.len },
    }
}

/// Reads on from where `progress` stands and pushes each complete argument to `sink`, its position counted from `origin`.
/// Leaves `progress` at zero when the request is complete, and where to go on when it is not.
#[inline]
fn walk(
    (buffer, chunked_at): (&[u8], &[usize]),
    start: usize,
    limits: &RequestLimits,
    progress: &mut Progress,
    sink: &mut Vec<ArgRange>,
    origin: usize,
) -> Result<Walk, ProtocolError> {
    let mut position = start + progress.position;
    let mut args_left = progress.args_left;
    let mut bulk = progress.bulk;
    let mut searched = progress.searched;
    if args_left == 0 {
        let Some((count, next)) = read_count(buffer, position, searched, limits)? else {
            progress.searched = buffer.len() - position;
            return Ok(Walk::Incomplete);
        };
        position = next;
        searched = 0;
        let Some(count) = count else {
            *progress = Progress::default();
            return Ok(Walk::Nothing { end: position });
        };
        args_left = count;
    }
    loop {
        let length = match bulk {
            Some(length) => length,
            None => match read_bulk_length(buffer, position, searched, limits)? {
                Some((length, next)) => {
                    position = next;
                    if !limits.authenticated && position - start + length as usize > UNAUTHENTICATED_REQUEST_BYTES_MAX {
                        return Err(ProtocolError::UnauthenticatedBulkLength);
                    }
                    length
                }
                None => {
                    let searched = buffer.len() - position;
                    *progress = Progress { position: position - start, searched, args_left, ..Progress::default() };
                    return Ok(Walk::Incomplete);
                }
            },
        };
        let chunked = if chunked_at.is_empty() { None } else { chunked_at.iter().position(|at| *at == position) };
        let chunked = chunked.and_then(|number| ArgRange::of_chunks(number, length));
        let here = if chunked.is_some() { 0 } else { length };
        let rest = buffer.get(position..).unwrap_or_default();
        let Some(line_end) = rest.get(here as usize..).and_then(|tail| tail.get(..2)) else {
            let wanted = (u64::from(here) + 2).saturating_sub(rest.len() as u64);
            if (position - start) as u64 + u64::from(length) + 2 > BUFFER_BYTES_MAX {
                return Err(ProtocolError::BufferTooLarge);
            }
            let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
            *progress = Progress { position: position - start, searched: 0, args_left, bulk: Some(length), wanted };
            return Ok(Walk::Incomplete);
        };
        if line_end != b"\r\n" {
            return Err(ProtocolError::BulkEndMissing);
        }
        sink.push(chunked.unwrap_or(ArgRange { start: position_u32(position - origin), len: length }));
        position += here as usize + 2;
        (bulk, searched) = (None, 0);
        args_left -= 1;
        if args_left == 0 {
            *progress = Progress::default();
            return Ok(Walk::Complete { end: position });
        }
    }
}

/// A position in a buffer whose length was checked against [`BUFFER_BYTES_MAX`].
#[inline]
fn position_u32(position: usize) -> u32 {
    position as u32
}

/// Reads the count at `position`, where a `*` stands: the number of arguments, `None` for zero or less, and what follows.
/// Nothing when the line is not complete.
#[inline]
fn read_count(
    buffer: &[u8],
    position: usize,
    searched: usize,
    limits: &RequestLimits,
) -> Result<Option<(Option<u32>, usize)>, ProtocolError> {
    let rest = buffer.get(position..).unwrap_or_default();
    let (count, bytes) = match short_length(rest.get(1..).unwrap_or_default()) {
        Some((count, bytes)) => (i64::from(count), bytes + 1),
        None => match length_line(rest, searched) {
            Line::Partial => return Ok(None),
            Line::TooLong => return Err(ProtocolError::MultibulkCountTooBig),
            Line::Broken => return Err(ProtocolError::InvalidMultibulkLength),
            Line::Complete { content, bytes } => {
                let digits = content.get(1..).unwrap_or_default();
                (parse_integer(digits).ok_or(ProtocolError::InvalidMultibulkLength)?, bytes)
            }
        },
    };
    if count > i64::from(limits.args_max) {
        return Err(ProtocolError::InvalidMultibulkLength);
    }
    if count > UNAUTHENTICATED_ARGS_MAX && !limits.authenticated {
        return Err(ProtocolError::UnauthenticatedMultibulkLength);
    }
    let count = if count > 0 { u32::try_from(count).ok() } else { None };
    Ok(Some((count, position + bytes)))
}

/// Reads the length line at `position`: the length of an argument and where its bytes begin. Nothing when the line is not
/// complete.
#[inline]
fn read_bulk_length(
    buffer: &[u8],
    position: usize,
    searched: usize,
    limits: &RequestLimits,
) -> Result<Option<(u32, usize)>, ProtocolError> {
    let rest = buffer.get(position..).unwrap_or_default();
    let short = if let [b'$', digits @ ..] = rest { short_length(digits) } else { None };
    let (length, bytes) = match short {
        Some((length, bytes)) => (i64::from(length), bytes + 1),
        None => match length_line(rest, searched) {
            Line::Partial => return Ok(None),
            Line::TooLong => return Err(ProtocolError::BulkCountTooBig),
            Line::Broken => return Err(ProtocolError::InvalidBulkLength),
            Line::Complete { content: [b'$', digits @ ..], bytes } => {
                (parse_integer(digits).ok_or(ProtocolError::InvalidBulkLength)?, bytes)
            }
            Line::Complete { .. } => {
                return Err(ProtocolError::ExpectedBulk { got: rest.first().copied().unwrap_or_default() });
            }
        },
    };
    if length < 0 || length > i64::from(limits.bulk_bytes_max) {
        return Err(ProtocolError::InvalidBulkLength);
    }
    if length > UNAUTHENTICATED_BULK_BYTES_MAX && !limits.authenticated {
        return Err(ProtocolError::UnauthenticatedBulkLength);
    }
    let length = u32::try_from(length).map_err(|_| ProtocolError::InvalidBulkLength)?;
    Ok(Some((length, position + bytes)))
}

/// One to four digits and CR LF, which is nearly every length there is: the number and the bytes it took.
#[inline]
fn short_length(line: &[u8]) -> Option<(u32, usize)> {
    let digit = |byte: u8| u32::from(byte - b'0');
    match *line {
        [a @ b'0'..=b'9', b'\r', b'\n', ..] => Some((digit(a), 3)),
        [a @ b'1'..=b'9', b @ b'0'..=b'9', b'\r', b'\n', ..] => Some((digit(a) * 10 + digit(b), 4)),
        [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', b'\r', b'\n', ..] => {
            Some((digit(a) * 100 + digit(b) * 10 + digit(c), 5))
        }
        [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', d @ b'0'..=b'9', b'\r', b'\n', ..] => {
            Some((digit(a) * 1000 + digit(b) * 100 + digit(c) * 10 + digit(d), 6))
        }
        _ => None,
    }
}

/// A line that ends in CR LF, from its first byte.
enum Line<'a> {
    /// What stands before CR LF, and the bytes of the line with it.
    Complete { content: &'a [u8], bytes: usize },
    /// The end has not arrived.
    Partial,
    /// A CR without LF.
    Broken,
    /// No end within [`LENGTH_LINE_BYTES_MAX`].
    TooLong,
}

/// Finds the end of the line that begins `rest`; its first `searched` bytes are known to hold no complete end.
#[cold]
fn length_line(rest: &[u8], searched: usize) -> Line<'_> {
    // One byte back: the last byte searched may have been the CR whose LF had not arrived.
    match find_in_line(rest, b'\r', searched.saturating_sub(1), LENGTH_LINE_BYTES_MAX) {
        None if rest.len() > LENGTH_LINE_BYTES_MAX => Line::TooLong,
        None => Line::Partial,
        Some(length) => match rest.get(length + 1) {
            None => Line::Partial,
            Some(b'\n') => Line::Complete { content: rest.get(..length).unwrap_or_default(), bytes: length + 2 },
            Some(_) => Line::Broken,
        },
    }
}

/// The position of `end` in `rest`, not before `searched` and at `line_bytes_max` at the latest.
fn find_in_line(rest: &[u8], end: u8, searched: usize, line_bytes_max: usize) -> Option<usize> {
    let last = rest.len().min(line_bytes_max.saturating_add(1));
    memchr(end, rest.get(searched..last)?).map(|found| searched + found)
}

/// Appends a request with these arguments to `out`: what a client sends. The first argument is the command's name.
///
/// ```
/// let mut out = Vec::new();
/// bowline_resp::encode_request(&mut out, &["GET", "k"]);
/// assert_eq!(out, b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n");
/// ```
pub fn encode_request<A: AsRef<[u8]>>(out: &mut Vec<u8>, args: &[A]) {
    write_length(out, b'*', args.len());
    for arg in args {
        let bytes = arg.as_ref();
        write_length(out, b'$', bytes.len());
        out.extend_from_slice(bytes);
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promised_count_allocates_nothing() {
        let (mut decoder, mut ranges) = (RequestDecoder::new(), Vec::new());
        let promise = b"*1048576\r\n$536870912\r\nx";
        assert_eq!(decoder.decode(promise, 0, &RequestLimits::default(), &mut ranges), Ok(Decoded::Incomplete));
        assert_eq!((ranges.capacity(), decoder.partial.capacity()), (0, 0));
    }

    #[test]
    fn memory_of_a_request_with_many_arguments_is_given_back() {
        let mut input = Vec::new();
        encode_request(&mut input, &vec![b"x"; 100_000]);
        let (mut decoder, mut ranges) = (RequestDecoder::new(), Vec::new());
        let (almost, limits) = (&input[..input.len() - 1], RequestLimits::default());
        assert_eq!(decoder.decode(almost, 0, &limits, &mut ranges), Ok(Decoded::Incomplete));
        assert!(decoder.partial.capacity() >= 99_999);
        assert_eq!(decoder.decode(&input, 0, &limits, &mut ranges), Ok(Decoded::Request { end: input.len() }));
        assert!(decoder.partial.capacity() <= KEPT_RANGES_MAX);
        assert_eq!(ranges.len(), 100_000);
    }

    #[test]
    fn memory_of_a_long_inline_request_is_given_back() {
        let (mut decoder, mut ranges) = (RequestDecoder::new(), Vec::new());
        let long = [&[b'x'; 60_000][..], b"\nPING\n"].concat();
        let limits = RequestLimits::default();
        assert_eq!(decoder.decode(&long, 0, &limits, &mut ranges), Ok(Decoded::Inline { end: 60_001 }));
        assert_eq!(decoder.inline_args().at(0).len(), 60_000);
        assert_eq!(decoder.decode(&long, 60_001, &limits, &mut ranges), Ok(Decoded::Inline { end: 60_006 }));
        assert!(decoder.inline_bytes.capacity() <= INLINE_BUFFER_BYTES_MAX);
        assert_eq!(decoder.inline_args().at(0), b"PING");
    }

    #[test]
    fn memory_of_an_inline_request_is_given_back_when_it_has_run_or_the_next_decode_begins() {
        let (mut decoder, mut ranges) = (RequestDecoder::new(), Vec::new());
        let many = [b"x ".repeat(30_000), b"\n".to_vec()].concat();
        let limits = RequestLimits::default();
        let kept = |decoder: &RequestDecoder| {
            decoder.inline_bytes.capacity() + decoder.inline_ranges.capacity() * size_of::<ArgRange>()
        };
        for end_of_life in [RequestDecoder::finish_inline, |decoder: &mut RequestDecoder| {
            let end = decoder.decode(b"", 0, &RequestLimits::default(), &mut Vec::new());
            assert_eq!(end, Ok(Decoded::Incomplete));
        }] {
            assert_eq!(decoder.decode(&many, 0, &limits, &mut ranges), Ok(Decoded::Inline { end: 60_001 }));
            assert_eq!(decoder.inline_args().len(), 30_000);
            end_of_life(&mut decoder);
            assert!(kept(&decoder) <= 1024, "{}", kept(&decoder));
            assert!(decoder.inline_args().is_empty());
        }
    }

    #[test]
    fn a_stranger_gets_32_kib_for_all_arguments_together() {
        let limits = RequestLimits { authenticated: false, ..RequestLimits::default() };
        let decode =
            |input: &[u8], limits: &RequestLimits| RequestDecoder::new().decode(input, 0, limits, &mut Vec::new());
        let mut input = Vec::new();
        encode_request(&mut input, &[&b"AUTH"[..], &[b'x'; 16_000], &[b'y'; 16_000]]);
        assert_eq!(decode(&input, &limits), Ok(Decoded::Request { end: input.len() }));
        let mut input = Vec::new();
        encode_request(&mut input, &[&b"AUTH"[..], &[b'x'; 16_384], &[b'y'; 16_384]]);
        let refusal = Err(ProtocolError::UnauthenticatedBulkLength);
        assert_eq!(decode(&input, &limits), refusal);
        let without_the_last_argument = input.len() - 16_384 - 2;
        assert_eq!(decode(&input[..without_the_last_argument], &limits), refusal, "refused by its promise");
        assert_eq!(decode(&input, &RequestLimits::default()), Ok(Decoded::Request { end: input.len() }));
        let line = [vec![b'x'; 32 * 1024 + 1], b"\n".to_vec()].concat();
        assert_eq!(decode(&line, &limits), Err(ProtocolError::InlineTooBig));
        assert_eq!(decode(&line[1..], &limits), Ok(Decoded::Inline { end: 32 * 1024 + 1 }));
    }

    #[test]
    fn a_line_that_arrives_slowly_is_searched_once() {
        let limits = RequestLimits::default();
        for line in [&b"PING x"[..], b"*00000", b"*1\r\n$0000"] {
            let (mut decoder, mut ranges) = (RequestDecoder::new(), Vec::new());
            for fed in 1..=line.len() {
                assert_eq!(decoder.decode(&line[..fed], 0, &limits, &mut ranges), Ok(Decoded::Incomplete));
                let line_begin = if fed >= 4 && line[0] == b'*' && line[1] == b'1' { 4 } else { 0 };
                assert_eq!(decoder.progress.position, line_begin);
                assert_eq!(decoder.progress.searched, fed - line_begin);
            }
        }
    }

    #[test]
    fn a_length_of_any_number_of_digits_is_read_alike() {
        for length in [0, 1, 9, 10, 99, 100, 999, 1000, 9999, 10_000, 123_456] {
            let mut input = Vec::new();
            encode_request(&mut input, &[vec![b'x'; length]]);
            let (mut decoder, mut ranges) = (RequestDecoder::new(), Vec::new());
            let decoded = decoder.decode(&input, 0, &RequestLimits::default(), &mut ranges);
            assert_eq!(decoded, Ok(Decoded::Request { end: input.len() }));
            assert_eq!(ranges.first().map(|range| range.len as usize), Some(length));
        }
    }
}
