//! Long strings of bytes in chunks that are shared and copied only where they are written.
//!
//! ```text
//!  Chunks --> list: | end, chunk | end, chunk | end, chunk |      shared as a whole: a clone costs no more than a pointer
//!                          |            |            |
//!                       64 KiB       64 KiB      1 to 64 KiB      shared one by one: a write copies the chunks it touches
//! ```
//!
//! A request's long argument arrives in chunks, and a value, a log record, a checkpoint and a reply hold the same ones: what
//! moves between them are pointers. Chunks need not be full: appending long bytes takes over their chunks as they are.
//!
//! Invariants: no chunk is empty; ends rise; a chunk is at most [`CHUNK_BYTES`] long. Not here: which strings are long enough
//! (who makes them decides), memory limits.

use std::sync::Arc;

/// Longest chunk in bytes: copying one takes some ten microseconds, and a value of 100 MB has 1526 of them.
pub const CHUNK_BYTES: usize = 64 * 1024;

/// About what a chunk takes beside its bytes: its place in the list, its counters, its vector.
const CHUNK_OVERHEAD: usize = 64;

/// A string of bytes in shared chunks. Cloning costs no copy.
#[derive(Clone, Default)]
pub struct Chunks(Arc<Vec<Chunk>>);

#[derive(Clone)]
struct Chunk {
    /// Where the next one begins in the whole.
    end: usize,
    bytes: Arc<Vec<u8>>,
}

impl Chunks {
    /// A copy of `bytes`.
    #[must_use]
    pub fn copy_of(bytes: &[u8]) -> Chunks {
        let mut chunks = Chunks::default();
        chunks.append(bytes);
        chunks
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.last().map_or(0, |chunk| chunk.end)
    }

    /// Whether there is no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of memory, counted in full however many share it.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        // Only the last chunk may have room left.
        let room = self.0.last().map_or(0, |chunk| chunk.bytes.capacity() - chunk.bytes.len());
        self.len() + room + self.list_bytes()
    }

    /// Bytes of memory that a copy which shares all chunks may come to.
    #[must_use]
    pub fn list_bytes(&self) -> usize {
        self.0.len() * CHUNK_OVERHEAD
    }

    /// The bytes, chunk by chunk.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> + Clone {
        self.0.iter().map(|chunk| chunk.bytes.as_slice())
    }

    /// The bytes from `start` to before `end`, chunk by chunk; what lies beyond the end is left out.
    pub fn range(&self, start: usize, end: usize) -> impl Iterator<Item = &[u8]> + Clone {
        let first = self.chunk_at(start);
        self.0.get(first..).unwrap_or_default().iter().map_while(move |chunk| {
            let begin = chunk.end - chunk.bytes.len();
            let (from, to) = (start.max(begin), end.min(chunk.end));
            (from < to).then(|| chunk.bytes.get(from - begin..to - begin).unwrap_or_default())
        })
    }

    /// The bytes in one piece.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.len());
        self.iter().for_each(|chunk| all.extend_from_slice(chunk));
        all
    }

    /// Adds bytes at the end. Returns how many bytes of chunks that others share were copied for it.
    pub fn append(&mut self, mut bytes: &[u8]) -> usize {
        let mut copied = 0;
        let list = Arc::make_mut(&mut self.0);
        if let Some(last) = list.last_mut().filter(|last| last.bytes.len() < CHUNK_BYTES) {
            let (here, later) = bytes.split_at(bytes.len().min(CHUNK_BYTES - last.bytes.len()));
            copied = fill(&mut last.bytes, here);
            last.end += here.len();
            bytes = later;
        }
        for piece in bytes.chunks(CHUNK_BYTES) {
            push(list, Arc::new(piece.to_vec()));
        }
        copied
    }

    /// Adds bytes at the end that are in chunks: shares those, unless they are few. Returns as [`Chunks::append`].
    pub fn append_chunks(&mut self, others: &Chunks) -> usize {
        if self.is_empty() {
            *self = others.clone();
            return 0;
        }
        if others.len() < CHUNK_BYTES {
            return others.iter().map(|bytes| self.append(bytes)).sum();
        }
        let list = Arc::make_mut(&mut self.0);
        others.0.iter().for_each(|chunk| push(list, chunk.bytes.clone()));
        0
    }

    /// Writes bytes at `offset`, with zeros before them where that is beyond the end. The zeros are one chunk that is shared
    /// until it is written. Returns as [`Chunks::append`].
    pub fn write_at(&mut self, offset: usize, bytes: &[u8]) -> usize {
        let len = self.len();
        if offset >= len {
            return self.append_zeros(offset - len) + self.append(bytes);
        }
        let (inside, beyond) = bytes.split_at(bytes.len().min(len - offset));
        let copied = self.overwrite(offset, inside);
        copied + if beyond.is_empty() { 0 } else { self.append(beyond) }
    }

    /// As [`Chunks::write_at`], for bytes in chunks. Those are shared only where they begin at or beyond the end.
    pub fn write_chunks_at(&mut self, offset: usize, others: &Chunks) -> usize {
        let len = self.len();
        if offset >= len {
            return self.append_zeros(offset - len) + self.append_chunks(others);
        }
        let mut at = offset;
        let mut copied = 0;
        for bytes in others.iter() {
            copied += self.write_at(at, bytes);
            at += bytes.len();
        }
        copied
    }

    /// Writes bytes over others: from `offset` on there are at least as many.
    fn overwrite(&mut self, offset: usize, bytes: &[u8]) -> usize {
        let (mut rest, mut at, mut copied) = (bytes, offset, 0);
        let first = self.chunk_at(offset);
        for chunk in Arc::make_mut(&mut self.0).iter_mut().skip(first) {
            if rest.is_empty() {
                break;
            }
            let begin = at - (chunk.end - chunk.bytes.len());
            let (here, later) = rest.split_at(rest.len().min(chunk.bytes.len() - begin));
            copied += if Arc::get_mut(&mut chunk.bytes).is_none() { chunk.bytes.len() } else { 0 };
            if here.len() == chunk.bytes.len() && Arc::get_mut(&mut chunk.bytes).is_none() {
                // Nothing of it stays: no copy of what is written over.
                chunk.bytes = Arc::new(here.to_vec());
            } else if let Some(place) = Arc::make_mut(&mut chunk.bytes).get_mut(begin..begin + here.len()) {
                place.copy_from_slice(here);
            }
            at += here.len();
            rest = later;
        }
        copied
    }

    fn append_zeros(&mut self, count: usize) -> usize {
        if count == 0 {
            return 0;
        }
        let room = self.0.last().map_or(0, |last| CHUNK_BYTES - last.bytes.len()).min(count);
        let copied = if room > 0 { self.append(&vec![0; room]) } else { 0 };
        let (whole, rest) = ((count - room) / CHUNK_BYTES, (count - room) % CHUNK_BYTES);
        if whole > 0 {
            let (zeros, list) = (Arc::new(vec![0; CHUNK_BYTES]), Arc::make_mut(&mut self.0));
            (0..whole).for_each(|_| push(list, zeros.clone()));
        }
        if rest > 0 {
            self.append(&vec![0; rest]);
        }
        copied
    }

    /// Index of the chunk that the byte at `offset` is in; the number of chunks beyond the end.
    fn chunk_at(&self, offset: usize) -> usize {
        self.0.partition_point(|chunk| chunk.end <= offset)
    }

    /// How many of the chunks are shared with others that look the same, for tests: `(shared, all)`.
    #[doc(hidden)]
    #[must_use]
    pub fn shared_with(&self, other: &Chunks) -> (usize, usize) {
        let same = |chunk: &&Chunk| other.0.iter().any(|other| Arc::ptr_eq(&chunk.bytes, &other.bytes));
        (self.0.iter().filter(same).count(), self.0.len())
    }
}

fn push(list: &mut Vec<Chunk>, bytes: Arc<Vec<u8>>) {
    let end = list.last().map_or(0, |last| last.end) + bytes.len();
    list.push(Chunk { end, bytes });
}

/// Adds bytes to a chunk that has room for them; returns the bytes copied where it was shared.
fn fill(chunk: &mut Arc<Vec<u8>>, bytes: &[u8]) -> usize {
    let needed = chunk.len() + bytes.len();
    // In doubling steps, so that appending little by little copies little, and never beyond a whole chunk.
    let wanted = needed.max(2 * chunk.len()).min(CHUNK_BYTES);
    if let Some(own) = Arc::get_mut(chunk) {
        if own.capacity() < needed {
            own.reserve_exact(wanted - own.len());
        }
        own.extend_from_slice(bytes);
        return 0;
    }
    let mut copy = Vec::with_capacity(wanted);
    copy.extend_from_slice(chunk);
    copy.extend_from_slice(bytes);
    let copied = chunk.len();
    *chunk = Arc::new(copy);
    copied
}

impl PartialEq for Chunks {
    fn eq(&self, other: &Chunks) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || self.len() == other.len() && {
                let mut at = 0;
                self.iter().all(|bytes| {
                    let same = is_at(other, at, bytes);
                    at += bytes.len();
                    same
                })
            }
    }
}

impl Eq for Chunks {}

impl PartialEq<[u8]> for Chunks {
    fn eq(&self, other: &[u8]) -> bool {
        self.len() == other.len() && is_at(self, 0, other)
    }
}

/// Whether `bytes` stand at `offset`.
fn is_at(chunks: &Chunks, offset: usize, bytes: &[u8]) -> bool {
    let mut rest = bytes;
    chunks.range(offset, offset + bytes.len()).all(|part| match rest.split_at_checked(part.len()) {
        Some((here, later)) => {
            rest = later;
            here == part
        }
        None => false,
    }) && rest.is_empty()
}

impl std::fmt::Debug for Chunks {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Chunks({} bytes in {})", self.len(), self.0.len())
    }
}

/// Chunks that are being received: memory follows what has come.
#[derive(Debug, Default)]
pub struct ChunksBuilder {
    done: Chunks,
    last: Vec<u8>,
}

impl ChunksBuilder {
    /// Bytes so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.done.len() + self.last.len()
    }

    /// Whether there is none so far.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds bytes.
    pub fn append(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let space = self.space(bytes.len());
            let (here, later) = bytes.split_at(bytes.len().min(CHUNK_BYTES - space.len()));
            space.extend_from_slice(here);
            bytes = later;
        }
    }

    /// The chunk that is being filled: to be extended to at most [`CHUNK_BYTES`]. It has room for `missing` further bytes,
    /// or all that a chunk holds.
    pub fn space(&mut self, missing: usize) -> &mut Vec<u8> {
        if self.last.len() >= CHUNK_BYTES {
            push(Arc::make_mut(&mut self.done.0), Arc::new(std::mem::take(&mut self.last)));
        }
        let room = missing.min(CHUNK_BYTES - self.last.len());
        if self.last.capacity() - self.last.len() < room {
            self.last.reserve_exact(room);
        }
        &mut self.last
    }

    /// Cuts what is beyond `len` bytes off the chunk that is being filled, and gives it back.
    #[must_use]
    pub fn cut(&mut self, len: usize) -> Vec<u8> {
        let keep = len.saturating_sub(self.done.len());
        if keep < self.last.len() { self.last.split_off(keep) } else { Vec::new() }
    }

    /// All that was added.
    #[must_use]
    pub fn finish(mut self) -> Chunks {
        if !self.last.is_empty() {
            push(Arc::make_mut(&mut self.done.0), Arc::new(self.last));
        }
        self.done
    }
}

/// A string of bytes in one piece or in chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bulk<'a> {
    /// In one piece.
    Bytes(&'a [u8]),
    /// In chunks.
    Chunks(&'a Chunks),
}

impl Bulk<'_> {
    /// Length in bytes.
    #[must_use]
    pub fn len(self) -> usize {
        match self {
            Bulk::Bytes(bytes) => bytes.len(),
            Bulk::Chunks(chunks) => chunks.len(),
        }
    }

    /// Whether there is no byte.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(len: usize, seed: u8) -> Vec<u8> {
        (0..len).map(|at| (at as u8).wrapping_mul(31).wrapping_add((at >> 8) as u8).wrapping_add(seed)).collect()
    }

    fn check(chunks: &Chunks) {
        let mut end = 0;
        for chunk in chunks.0.iter() {
            assert!(!chunk.bytes.is_empty() && chunk.bytes.len() <= CHUNK_BYTES, "{chunks:?}");
            end += chunk.bytes.len();
            assert_eq!(chunk.end, end);
        }
    }

    #[test]
    fn a_write_copies_the_chunks_that_it_touches_and_no_others() {
        let mut chunks = Chunks::copy_of(&bytes(10 * CHUNK_BYTES, 1));
        let before = chunks.clone();
        assert_eq!(chunks.write_at(3 * CHUNK_BYTES - 1, b"ab"), 2 * CHUNK_BYTES);
        assert_eq!(chunks.shared_with(&before), (8, 10));
        assert_eq!(chunks.write_at(3 * CHUNK_BYTES - 1, b"ab"), 0, "what was copied is its own");
        assert_eq!(before.to_vec(), bytes(10 * CHUNK_BYTES, 1));
        assert_eq!(chunks.append(b"x"), 0, "the last chunk is full");
        assert_eq!(before.len() + 1, chunks.len());
    }

    #[test]
    fn zeros_far_beyond_the_end_take_one_chunk_of_memory() {
        let mut chunks = Chunks::copy_of(b"front");
        chunks.write_at(500 << 20, b"end");
        assert_eq!(chunks.len(), (500 << 20) + 3);
        assert_eq!(chunks.range(3, 8).collect::<Vec<_>>().concat(), b"nt\0\0\0");
        assert!(chunks.shared_with(&chunks.clone()).1 > 7000);
        chunks.write_at(1 << 20, b"middle");
        assert_eq!(chunks.range((1 << 20) - 2, (1 << 20) + 8).collect::<Vec<_>>().concat(), b"\0\0middle\0\0");
        assert_eq!(chunks.range(2 << 20, (2 << 20) + 4).collect::<Vec<_>>().concat(), b"\0\0\0\0");
    }

    #[test]
    fn long_bytes_that_are_appended_are_shared() {
        let (mut chunks, other) = (Chunks::copy_of(b"front"), Chunks::copy_of(&bytes(4 * CHUNK_BYTES, 2)));
        assert_eq!(chunks.append_chunks(&other), 0);
        assert_eq!(chunks.shared_with(&other), (4, 5));
        check(&chunks);
        chunks.write_at(10, b"own");
        assert_eq!(other.to_vec(), bytes(4 * CHUNK_BYTES, 2));
    }

    #[test]
    fn appending_little_by_little_makes_whole_chunks() {
        let mut chunks = Chunks::copy_of(b"begin");
        (0..3 * CHUNK_BYTES).for_each(|at| {
            chunks.append(&[at as u8]);
        });
        check(&chunks);
        assert_eq!(chunks.0.len(), 4);
        assert!(chunks.memory_bytes() < 4 * CHUNK_BYTES, "{}", chunks.memory_bytes());
    }

    #[test]
    fn what_is_received_takes_memory_as_it_comes() {
        let mut builder = ChunksBuilder::default();
        builder.space(500 << 20).extend_from_slice(b"some");
        assert!(builder.last.capacity() <= CHUNK_BYTES);
        builder.append(&bytes(3 * CHUNK_BYTES, 5));
        assert_eq!(builder.len(), 3 * CHUNK_BYTES + 4);
        let chunks = builder.finish();
        check(&chunks);
        assert_eq!(chunks.to_vec(), [b"some".to_vec(), bytes(3 * CHUNK_BYTES, 5)].concat());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Append(usize),
        AppendChunks(usize),
        Write(usize, usize),
        WriteChunks(usize, usize),
        Clone,
    }

    fn step() -> impl Strategy<Value = Step> {
        let long = 0..3 * CHUNK_BYTES;
        prop_oneof![
            (0..200usize).prop_map(Step::Append),
            long.clone().prop_map(Step::Append),
            long.clone().prop_map(Step::AppendChunks),
            (0..8 * CHUNK_BYTES, 0..200usize).prop_map(|(at, len)| Step::Write(at, len)),
            (0..8 * CHUNK_BYTES, long.clone()).prop_map(|(at, len)| Step::Write(at, len)),
            (0..8 * CHUNK_BYTES, long).prop_map(|(at, len)| Step::WriteChunks(at, len)),
            Just(Step::Clone),
        ]
    }

    fn model_write(model: &mut Vec<u8>, at: usize, bytes: &[u8]) {
        model.resize(model.len().max(at + bytes.len()).max(at), 0);
        model[at..at + bytes.len()].copy_from_slice(bytes);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn chunks_are_as_one_vector_and_copies_stay_as_they_were(
            steps in proptest::collection::vec(step(), 1..20), first in 0..2 * CHUNK_BYTES,
        ) {
            let (mut chunks, mut model) = (Chunks::copy_of(&bytes(first, 0)), bytes(first, 0));
            let mut copies: Vec<(Chunks, Vec<u8>)> = Vec::new();
            for (number, step) in steps.into_iter().enumerate() {
                let seed = number as u8;
                match step {
                    Step::Append(len) => {
                        chunks.append(&bytes(len, seed));
                        model.extend(bytes(len, seed));
                    }
                    Step::AppendChunks(len) => {
                        chunks.append_chunks(&Chunks::copy_of(&bytes(len, seed)));
                        model.extend(bytes(len, seed));
                    }
                    Step::Write(at, len) => {
                        chunks.write_at(at, &bytes(len, seed));
                        model_write(&mut model, at, &bytes(len, seed));
                    }
                    Step::WriteChunks(at, len) => {
                        chunks.write_chunks_at(at, &Chunks::copy_of(&bytes(len, seed)));
                        model_write(&mut model, at, &bytes(len, seed));
                    }
                    Step::Clone => copies.push((chunks.clone(), model.clone())),
                }
                check(&chunks);
                prop_assert_eq!(chunks.len(), model.len());
                let (start, end) = (model.len() / 3, model.len() / 2);
                prop_assert!(chunks.range(start, end).collect::<Vec<_>>().concat() == model[start..end]);
            }
            prop_assert!(chunks == model[..]);
            prop_assert!(chunks == Chunks::copy_of(&model));
            for (copy, model) in copies {
                prop_assert!(copy.to_vec() == model);
            }
        }
    }
}
