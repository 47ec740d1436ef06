//! Replies that are written but may not leave yet.
//!
//! A reply tells of versions; it leaves when they are committed. Replies of one connection keep their order, so what is
//! held is a suffix of the bytes: each mark says from which byte on a version must be committed.
//!
//! ```text
//!   consumed | may leave at commit 7        | held
//!   ---------+------------------------------+--------------------
//!            ^ front                        ^ mark (byte, 9)   ^ mark (byte, 12)
//! ```
//!
//! A long value is not among the bytes: the reply shares its chunks, and a part says after which byte they come. A part
//! always stands within a reply, between the line of its length and its line end, so no mark falls on it.

use crate::version::Version;
use bowline_resp::{LongPart, Protocol, Reply};
use smallvec::SmallVec;
use std::collections::VecDeque;

/// The output of one connection.
#[derive(Default)]
pub struct Replies {
    bytes: Vec<u8>,
    /// Bytes at the front of `bytes` that have left already.
    front: usize,
    /// (index into `bytes`, version): rising in both.
    marks: VecDeque<(usize, Version)>,
    /// Long values, in order.
    long: Vec<LongPart>,
    /// Bytes of the first one that have left already.
    long_left: usize,
}

/// Most pieces of output that are written at once: some 1 MiB, so that no connection keeps the others waiting for long.
pub const PIECES_MAX: usize = 16;

/// Consumed bytes are moved out of the way when they are at least this many and the greater part.
const COMPACT_BYTES: usize = 16 * 1024;

impl Replies {
    /// No output.
    pub fn new() -> Replies {
        Replies::default()
    }

    /// Writes replies at the end.
    pub fn writer(&mut self, protocol: Protocol) -> Reply<'_> {
        Reply::with_long(&mut self.bytes, &mut self.long, protocol)
    }

    /// Where the next reply begins; for [`Replies::depend_on`] and [`Replies::rollback`].
    pub fn end(&self) -> usize {
        self.bytes.len()
    }

    /// Holds everything from `start` (an earlier [`Replies::end`]) on until `version` is committed.
    pub fn depend_on(&mut self, start: usize, version: Version) {
        // Behind a mark with the same or a newer version it is held long enough as it is.
        if self.marks.back().is_none_or(|(_, held)| *held < version) {
            self.marks.push_back((start, version));
        }
    }

    /// Cuts the output back to an earlier [`Replies::end`].
    pub fn rollback(&mut self, end: usize) {
        self.bytes.truncate(end);
        while self.long.pop_if(|part| part.at > end).is_some() {}
        while self.marks.back().is_some_and(|(start, _)| *start >= end) {
            self.marks.pop_back();
        }
    }

    /// Puts bytes into the output at an index that is not held by a later mark yet.
    pub(super) fn insert(&mut self, at: usize, bytes: &[u8]) {
        self.bytes.splice(at..at, bytes.iter().copied());
        self.long.iter_mut().filter(|part| part.at >= at).for_each(|part| part.at += bytes.len());
    }

    /// The next bytes that may leave once everything up to `commit` is committed: all of them, but up to the end of a chunk
    /// where there are long values. Empty when there is none.
    pub fn ready(&mut self, commit: Version) -> &[u8] {
        let end = self.ready_end(commit);
        if self.long.is_empty() {
            return self.bytes.get(self.front..end).unwrap_or_default();
        }
        self.pieces_to(end).next().unwrap_or_default()
    }

    /// As [`Replies::ready`], several pieces at once.
    pub fn ready_pieces(&mut self, commit: Version) -> SmallVec<[&[u8]; PIECES_MAX]> {
        let end = self.ready_end(commit);
        self.pieces_to(end).take(PIECES_MAX).collect()
    }

    /// How many bytes may leave once everything up to `commit` is committed.
    pub fn ready_len(&mut self, commit: Version) -> usize {
        let end = self.ready_end(commit);
        let long: usize = self.long.iter().filter(|part| part.at < end).map(|part| part.end - part.start).sum();
        end - self.front + long - self.long_left
    }

    /// Takes everything in one piece, whatever it depends on.
    pub fn take_all(&mut self) -> Vec<u8> {
        let all = self.pieces_to(self.bytes.len()).collect::<Vec<_>>().concat();
        *self = Replies::default();
        all
    }

    /// Whether long values are among the output, so that it is in several pieces.
    #[inline]
    pub fn is_in_pieces(&self) -> bool {
        !self.long.is_empty()
    }

    fn ready_end(&mut self, commit: Version) -> usize {
        while self.marks.front().is_some_and(|(_, version)| *version <= commit) {
            self.marks.pop_front();
        }
        self.marks.front().map_or(self.bytes.len(), |(start, _)| *start)
    }

    /// The output up to an index into `bytes`, piece by piece; none is empty.
    fn pieces_to(&self, end: usize) -> impl Iterator<Item = &[u8]> {
        let before = self.long.iter().take_while(move |part| part.at < end);
        let ends = before.clone().map(|part| part.at).chain([end]);
        let starts = std::iter::once(self.front).chain(before.clone().map(|part| part.at));
        let left = std::iter::once(self.long_left).chain(std::iter::repeat(0));
        let long = before.zip(left).map(Some).chain([None]);
        let pieces = starts.zip(ends).zip(long).flat_map(|((start, end), long)| {
            let plain = self.bytes.get(start..end).unwrap_or_default();
            let chunks = long.map(|(part, left)| part.chunks.range(part.start + left, part.end));
            std::iter::once(plain).chain(chunks.into_iter().flatten())
        });
        pieces.filter(|piece| !piece.is_empty())
    }

    /// Forgets `count` bytes from the front: they have left.
    pub fn consume(&mut self, count: usize) {
        self.front += if self.long.is_empty() { count } else { self.consume_long(count) };
        if self.front == self.bytes.len() {
            self.bytes.clear();
            self.front = 0;
            // An idle connection keeps no large buffer.
            if self.bytes.capacity() > COMPACT_BYTES {
                self.bytes = Vec::new();
            }
        } else if self.front >= COMPACT_BYTES && self.front * 2 >= self.bytes.len() {
            self.bytes.drain(..self.front);
            for (start, _) in &mut self.marks {
                *start -= self.front;
            }
            self.long.iter_mut().for_each(|part| part.at -= self.front);
            self.front = 0;
        }
    }

    /// The version that the first held byte waits for, if any is held at `commit`.
    pub fn waits_for(&self, commit: Version) -> Option<Version> {
        self.marks.iter().map(|(_, version)| *version).find(|version| *version > commit)
    }

    /// Takes what left of long values; returns how much left of `bytes`.
    #[cold]
    fn consume_long(&mut self, mut count: usize) -> usize {
        let (mut plain, mut gone) = (0, 0);
        for part in &self.long {
            let before = part.at - (self.front + plain);
            let missing = part.end - part.start - self.long_left;
            if count < before {
                break;
            }
            (plain, count) = (plain + before, count - before);
            if count < missing {
                self.long_left += count;
                count = 0;
                break;
            }
            (count, gone, self.long_left) = (count - missing, gone + 1, 0);
        }
        self.long.drain(..gone);
        plain + count
    }

    /// Bytes that have not left.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.front + self.long_bytes() - self.long_left
    }

    /// Bytes from an earlier [`Replies::end`] on.
    pub fn bytes_since(&self, end: usize) -> usize {
        let long = self.long.iter().rev().take_while(|part| part.at > end);
        self.bytes.len() - end + long.map(|part| part.end - part.start).sum::<usize>()
    }

    #[inline]
    fn long_bytes(&self) -> usize {
        self.long.iter().map(|part| part.end - part.start).sum()
    }

    /// Whether everything has left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory that the output fills, bytes, long values counted in full; what was allocated beyond is not touched yet.
    #[inline]
    pub fn memory_bytes(&self) -> usize {
        self.bytes.len() + self.marks.len() * size_of::<(usize, Version)>() + self.long_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bowline_resp::Chunks;

    fn reply(replies: &mut Replies, text: &str, version: u64) {
        let start = replies.end();
        replies.writer(Protocol::Resp2).simple(text);
        if version > 0 {
            replies.depend_on(start, Version(version));
        }
    }

    #[test]
    fn a_reply_leaves_when_what_it_tells_of_is_committed_and_in_order() {
        let mut replies = Replies::new();
        reply(&mut replies, "a", 0);
        reply(&mut replies, "b", 9);
        reply(&mut replies, "c", 0);
        reply(&mut replies, "d", 12);
        assert_eq!(replies.ready(Version(8)), b"+a\r\n");
        assert_eq!(replies.waits_for(Version(8)), Some(Version(9)));
        replies.consume(4);
        assert_eq!(replies.ready(Version(9)), b"+b\r\n+c\r\n");
        replies.consume(2);
        assert_eq!(replies.ready(Version(12)), b"\r\n+c\r\n+d\r\n");
        replies.consume(10);
        assert!(replies.is_empty());
        assert_eq!(replies.waits_for(Version(12)), None);
    }

    #[test]
    fn a_rolled_back_reply_leaves_no_mark() {
        let mut replies = Replies::new();
        reply(&mut replies, "a", 3);
        let end = replies.end();
        reply(&mut replies, "b", 9);
        replies.rollback(end);
        assert_eq!(replies.ready(Version(3)), b"+a\r\n");
    }

    #[test]
    fn long_values_leave_piece_by_piece_in_their_place() {
        let value: Vec<u8> = (0..200_000u32).map(|at| (at % 251) as u8).collect();
        let chunks = Chunks::copy_of(&value);
        let mut state = 3u64;
        for round in 0..50 {
            let mut replies = Replies::new();
            let mut all = Vec::new();
            for (number, (from, to)) in [(0, 200_000), (5, 9), (70_000, 140_001), (0, 65_536)].into_iter().enumerate() {
                let start = replies.end();
                replies.writer(Protocol::Resp2).bulk_chunks(&chunks, from, to);
                reply(&mut replies, "between", 0);
                replies.depend_on(start, Version(number as u64));
                let rolled_back = replies.end();
                replies.writer(Protocol::Resp2).bulk_chunks(&chunks, 0, 100_000);
                replies.rollback(rolled_back);
                let whole = [format!("${}\r\n", to - from).as_bytes(), &value[from..to], b"\r\n+between\r\n"].concat();
                assert_eq!(replies.bytes_since(start), whole.len());
                all.extend(whole);
            }
            assert_eq!(replies.len(), all.len(), "round {round}");
            assert!(replies.memory_bytes() >= all.len() - 100);
            let mut sent = Vec::new();
            for commit in 0..4 {
                while replies.ready_len(Version(commit)) > 0 {
                    let pieces = replies.ready_pieces(Version(commit)).concat();
                    assert!(pieces.starts_with(replies.ready(Version(commit))));
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let count = ((state >> 33) as usize % 90_000 + 1).min(pieces.len());
                    sent.extend_from_slice(&pieces[..count]);
                    replies.consume(count);
                    assert_eq!(replies.len(), all.len() - sent.len());
                }
                assert_eq!(replies.waits_for(Version(commit)).is_some(), commit < 3);
            }
            assert!(sent == all && replies.is_empty() && !replies.is_in_pieces());
        }
    }

    #[test]
    fn a_version_put_into_the_output_moves_the_long_values_behind_it() {
        let (mut replies, chunks) = (Replies::new(), Chunks::copy_of(&[b'x'; 100_000]));
        reply(&mut replies, "a", 0);
        let at = replies.end();
        replies.writer(Protocol::Resp2).bulk_chunks(&chunks, 0, 100_000);
        replies.insert(at, b":7\r\n");
        assert_eq!(replies.ready(Version::MAX), b"+a\r\n:7\r\n$100000\r\n");
    }

    #[test]
    fn compaction_keeps_the_marks_in_place() {
        let mut replies = Replies::new();
        let text = "x".repeat(COMPACT_BYTES);
        reply(&mut replies, &text, 0);
        reply(&mut replies, "held", 5);
        replies.consume(text.len() + 3);
        assert_eq!(replies.ready(Version(4)), b"");
        assert_eq!(replies.ready(Version(5)), b"+held\r\n");
    }
}
