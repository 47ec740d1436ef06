//! Which blocks are free: a bit for each, and runs of them handed out from the start of the file.
//!
//! Runs are taken where they stand first, so that the end of the file becomes free and can be given back. Every
//! allocation finds a run if there is one. The scans are cheap because `cursors` remembers, for each length, up to where
//! no such run begins; releasing moves the cursors back.
//!
//! Not here: when a block may be used again (`BlockFile` waits for superblocks and readers), what it holds (`table`).

use super::format::{BLOCK_BYTES_MIN, EXTENT_BYTES_MAX};

/// Longest run that is handed out.
const RUN_BLOCKS_MAX: usize = EXTENT_BYTES_MAX / BLOCK_BYTES_MIN as usize;
/// When there is no run of the length wished for, one of this length is better than the shortest that will do.
const RUN_BLOCKS_GOOD: u32 = 4;
const WORD_BITS: u32 = u64::BITS;

/// Blocks that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Run {
    pub(crate) block: u32,
    pub(crate) blocks: u32,
}

/// The free blocks of a file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Space {
    /// A bit for each block, set when it is free. Bits behind the file's end are 0.
    words: Vec<u64>,
    blocks: u32,
    free: u32,
    /// No run of at least this many blocks begins before its cursor.
    cursors: [u32; RUN_BLOCKS_MAX + 1],
}

impl Space {
    /// A file without blocks.
    pub(crate) fn new() -> Space {
        Space::default()
    }

    /// Free blocks.
    pub(crate) fn free(&self) -> u32 {
        self.free
    }

    /// Blocks of the file.
    pub(crate) fn blocks(&self) -> u32 {
        self.blocks
    }

    /// Whether a block is free.
    pub(crate) fn is_free(&self, block: u32) -> bool {
        self.words.get((block / WORD_BITS) as usize).is_some_and(|word| word >> (block % WORD_BITS) & 1 == 1)
    }

    /// The file has `blocks` blocks from now on; the new ones are free.
    pub(crate) fn grow(&mut self, blocks: u32) {
        let old = self.blocks;
        self.grow_used(blocks);
        self.release(Run { block: old, blocks: blocks - old });
    }

    /// The file has `blocks` blocks from now on; the new ones are in use.
    pub(crate) fn grow_used(&mut self, blocks: u32) {
        assert!(blocks >= self.blocks, "the file grows");
        self.words.resize(blocks.div_ceil(WORD_BITS) as usize, 0);
        self.blocks = blocks;
    }

    /// The file has `blocks` blocks from now on; what is free behind them is forgotten.
    pub(crate) fn shrink(&mut self, blocks: u32) {
        assert!(blocks <= self.blocks, "the file shrinks");
        for block in blocks..self.blocks {
            if self.is_free(block) {
                self.take(block);
            }
        }
        self.words.truncate(blocks.div_ceil(WORD_BITS) as usize);
        self.blocks = blocks;
    }

    /// Free blocks at the end of the file.
    pub(crate) fn free_at_end(&self) -> u32 {
        (0..self.blocks).rev().take_while(|block| self.is_free(*block)).count() as u32
    }

    /// Takes a run of `most` blocks, or if there is none, of at least `least`.
    pub(crate) fn allocate(&mut self, least: u32, most: u32) -> Option<Run> {
        assert!(0 < least && least <= most && most as usize <= RUN_BLOCKS_MAX, "runs have a bounded length");
        let good = RUN_BLOCKS_GOOD.clamp(least, most);
        let run = [most, good, least].into_iter().find_map(|length| self.find(length, most))?;
        for block in run.block..run.block + run.blocks {
            self.take(block);
        }
        Some(run)
    }

    /// Gives a run back.
    pub(crate) fn release(&mut self, run: Run) {
        assert!(run.block + run.blocks <= self.blocks, "the run is of this file");
        for block in run.block..run.block + run.blocks {
            assert!(!self.is_free(block), "a block is freed once");
            if let Some(word) = self.words.get_mut((block / WORD_BITS) as usize) {
                *word |= 1 << (block % WORD_BITS);
            }
        }
        self.free += run.blocks;
        // The run may lengthen one that begins before it.
        let from = run.block.saturating_sub(RUN_BLOCKS_MAX as u32);
        for cursor in &mut self.cursors {
            *cursor = from.min(*cursor);
        }
    }

    fn take(&mut self, block: u32) {
        if let Some(word) = self.words.get_mut((block / WORD_BITS) as usize) {
            *word &= !(1 << (block % WORD_BITS));
        }
        self.free -= 1;
    }

    /// The first run of at least `length`, cut off at `most`.
    fn find(&mut self, length: u32, most: u32) -> Option<Run> {
        let mut from = self.cursors[length as usize];
        let found = loop {
            let Some(start) = self.next_free(from) else {
                break None;
            };
            let blocks = self.run_length(start, most);
            if blocks >= length {
                break Some(Run { block: start, blocks });
            }
            from = start + blocks;
        };
        self.cursors[length as usize] = found.map_or(self.blocks, |run| run.block);
        found
    }

    fn next_free(&self, from: u32) -> Option<u32> {
        let first = (from / WORD_BITS) as usize;
        let head = self.words.get(first)? & (u64::MAX << (from % WORD_BITS));
        let rest = self.words.iter().skip(first + 1).copied();
        let (place, word) = std::iter::once(head).chain(rest).enumerate().find(|(_, word)| *word != 0)?;
        Some((first + place) as u32 * WORD_BITS + word.trailing_zeros())
    }

    fn run_length(&self, start: u32, most: u32) -> u32 {
        (start..start + most).take_while(|block| self.is_free(*block)).count() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn space(blocks: u32) -> Space {
        let mut space = Space::new();
        space.grow(blocks);
        space
    }

    #[test]
    fn a_long_run_is_preferred_and_a_short_one_taken_when_there_is_no_other() {
        let mut space = space(40);
        let all: Vec<Run> = (0..40).map(|_| space.allocate(1, 1).unwrap()).collect();
        assert_eq!(space.allocate(1, 16), None);
        for block in [3, 10, 11, 12, 13, 20] {
            space.release(all[block]);
        }
        assert_eq!(space.allocate(1, 16), Some(Run { block: 10, blocks: 4 }));
        assert_eq!(space.allocate(2, 16), None);
        assert_eq!(space.allocate(1, 16), Some(Run { block: 3, blocks: 1 }));
        assert_eq!(space.free(), 1);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Allocate(u32, u32),
        Release(prop::sample::Index),
        Grow(u32),
        Shrink,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (1u32..=16, 1u32..=16).prop_map(|(a, b)| Step::Allocate(a.min(b), a.max(b))),
            5 => any::<prop::sample::Index>().prop_map(Step::Release),
            1 => (0u32..200).prop_map(Step::Grow),
            1 => Just(Step::Shrink),
        ]
    }

    fn longest(model: &[bool]) -> u32 {
        model.split(|free| !free).map(<[bool]>::len).max().unwrap_or(0) as u32
    }

    proptest! {
        #[test]
        fn runs_are_found_when_there_are_any_and_are_never_handed_out_twice(
            steps in prop::collection::vec(step(), 1..200),
        ) {
            let mut space = space(100);
            let mut model = vec![true; 100];
            let mut held: Vec<Run> = Vec::new();
            for step in steps {
                match step {
                    Step::Allocate(least, most) => match space.allocate(least, most) {
                        Some(run) => {
                            prop_assert!((least..=most).contains(&run.blocks));
                            prop_assert!(run.blocks == most || longest(&model) < most, "a longer run was there");
                            for block in run.block..run.block + run.blocks {
                                prop_assert!(std::mem::replace(&mut model[block as usize], false), "used twice");
                            }
                            held.push(run);
                        }
                        None => prop_assert!(longest(&model) < least),
                    },
                    Step::Release(index) if !held.is_empty() => {
                        let run = held.swap_remove(index.index(held.len()));
                        model[run.block as usize..(run.block + run.blocks) as usize].fill(true);
                        space.release(run);
                    }
                    Step::Release(_) => {}
                    Step::Grow(more) => {
                        model.resize(model.len() + more as usize, true);
                        space.grow(model.len() as u32);
                    }
                    Step::Shrink => {
                        let kept = model.iter().rposition(|free| !free).map_or(0, |last| last + 1);
                        prop_assert_eq!(space.free_at_end() as usize, model.len() - kept);
                        model.truncate(kept);
                        space.shrink(kept as u32);
                    }
                }
                prop_assert_eq!(space.free() as usize, model.iter().filter(|free| **free).count());
                prop_assert_eq!(space.blocks() as usize, model.len());
            }
        }
    }
}
