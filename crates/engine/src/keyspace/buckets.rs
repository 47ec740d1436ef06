//! The buckets of a subtable: an array in pages of one size, so that whatever one table gives up another can use.
//!
//! ```text
//!  pages   [0] [1] [2] ...                   a box for each
//!           |
//!           +-> 8 buckets of 64 bytes        bucket number = page * 8 + place in the page
//! ```
//!
//! In one piece, an array that grows passes through many sizes, and each leaves memory that only arrays of that size can
//! use: 1.5 to 3 bytes for each key, measured with five million. Not here: what stands in a bucket (`slot`), which
//! bucket an entry belongs to (`subtable`).

use super::slot::{Bucket, SLOTS};
use std::mem;
use std::ops::{Index, IndexMut};

/// Buckets of a page.
const PAGE: usize = 8;
/// Slots of a page.
pub(super) const PAGE_SLOTS: usize = PAGE * SLOTS;

type Page = [Bucket; PAGE];
const EMPTY_PAGE: Page = [Bucket::EMPTY; PAGE];

/// See the head of this file.
#[derive(Default)]
pub(super) struct Buckets(Box<[Box<Page>]>);

impl Buckets {
    /// `pages` pages of empty buckets.
    pub(super) fn of_pages(pages: usize) -> Buckets {
        Buckets((0..pages).map(|_| Box::new(EMPTY_PAGE)).collect())
    }

    /// Empties all buckets and keeps `pages` pages of them: some of those it has and as many new ones as it needs.
    pub(super) fn empty_with(&mut self, pages: usize) {
        let mut kept = mem::take(&mut self.0).into_vec();
        kept.truncate(pages);
        kept.iter_mut().for_each(|page| **page = EMPTY_PAGE);
        kept.reserve_exact(pages - kept.len());
        kept.resize_with(pages, || Box::new(EMPTY_PAGE));
        self.0 = kept.into_boxed_slice();
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len() * PAGE
    }

    /// How many slots they have.
    pub(super) fn slots(&self) -> usize {
        self.0.len() * PAGE_SLOTS
    }

    /// The memory they take, bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.0.len() * (size_of::<Page>() + size_of::<Box<Page>>())
    }

    pub(super) fn get(&self, bucket: usize) -> Option<&Bucket> {
        self.0.get(bucket / PAGE).map(|page| &page[bucket % PAGE])
    }

    pub(super) fn get_mut(&mut self, bucket: usize) -> Option<&mut Bucket> {
        self.0.get_mut(bucket / PAGE).map(|page| &mut page[bucket % PAGE])
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Bucket> {
        self.0.iter().flat_map(|page| page.iter())
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Bucket> {
        self.0.iter_mut().flat_map(|page| page.iter_mut())
    }
}

impl Index<usize> for Buckets {
    type Output = Bucket;

    fn index(&self, bucket: usize) -> &Bucket {
        &self.0[bucket / PAGE][bucket % PAGE]
    }
}

impl IndexMut<usize> for Buckets {
    fn index_mut(&mut self, bucket: usize) -> &mut Bucket {
        &mut self.0[bucket / PAGE][bucket % PAGE]
    }
}
