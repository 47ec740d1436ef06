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

use crate::version::Version;
use bowline_resp::{Protocol, Reply};
use std::collections::VecDeque;

/// The output of one connection.
#[derive(Default)]
pub struct Replies {
    bytes: Vec<u8>,
    /// Bytes at the front of `bytes` that have left already.
    front: usize,
    /// (index into `bytes`, version): rising in both.
    marks: VecDeque<(usize, Version)>,
}

/// Consumed bytes are moved out of the way when they are at least this many and the greater part.
const COMPACT_BYTES: usize = 16 * 1024;

impl Replies {
    /// No output.
    pub fn new() -> Replies {
        Replies::default()
    }

    /// Writes replies at the end.
    pub fn writer(&mut self, protocol: Protocol) -> Reply<'_> {
        Reply::new(&mut self.bytes, protocol)
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
        while self.marks.back().is_some_and(|(start, _)| *start >= end) {
            self.marks.pop_back();
        }
    }

    /// Puts bytes into the output at an index that is not held by a later mark yet.
    pub(super) fn insert(&mut self, at: usize, bytes: &[u8]) {
        self.bytes.splice(at..at, bytes.iter().copied());
    }

    /// The bytes that may leave once everything up to `commit` is committed.
    pub fn ready(&mut self, commit: Version) -> &[u8] {
        while self.marks.front().is_some_and(|(_, version)| *version <= commit) {
            self.marks.pop_front();
        }
        let end = self.marks.front().map_or(self.bytes.len(), |(start, _)| *start);
        self.bytes.get(self.front..end).unwrap_or_default()
    }

    /// Forgets `count` bytes from the front: they have left.
    pub fn consume(&mut self, count: usize) {
        self.front += count;
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
            self.front = 0;
        }
    }

    /// The version that the first held byte waits for, if any is held at `commit`.
    pub fn waits_for(&self, commit: Version) -> Option<Version> {
        self.marks.iter().map(|(_, version)| *version).find(|version| *version > commit)
    }

    /// Bytes that have not left.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.front
    }

    /// Whether everything has left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory that the output fills, bytes; what was allocated beyond is not touched yet.
    #[inline]
    pub fn memory_bytes(&self) -> usize {
        self.bytes.len() + self.marks.len() * size_of::<(usize, Version)>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
