//! The block table in memory: what each block of one checkpoint is for. Cheap to clone: a checkpoint begins with a clone
//! of the published table, and its pages are copied when they are first changed.

use std::sync::Arc;

use super::format::BlockKind;
use super::format::table::{TableEntry, entries_per_page};
use super::space::{Run, Space};

/// What every block of a file is for.
#[derive(Clone, Debug)]
pub(crate) struct BlockTable {
    /// Each with all the entries that a page has room for; those behind the file's end are free.
    pages: Vec<Arc<Vec<TableEntry>>>,
    per_page: usize,
    blocks: u32,
}

impl BlockTable {
    /// The table of a file of `blocks` free blocks.
    pub(crate) fn new(block_bytes: usize, blocks: u32) -> BlockTable {
        let mut table = BlockTable { pages: Vec::new(), per_page: entries_per_page(block_bytes), blocks: 0 };
        table.resize(blocks);
        table
    }

    /// The table with the pages that were read for it.
    pub(crate) fn from_pages(block_bytes: usize, blocks: u32, pages: Vec<Vec<TableEntry>>) -> BlockTable {
        let mut table = BlockTable::new(block_bytes, 0);
        table.pages = pages.into_iter().map(Arc::new).collect();
        table.resize(blocks);
        table
    }

    /// The file has `blocks` blocks from now on. What lay behind is forgotten; what comes is free.
    pub(crate) fn resize(&mut self, blocks: u32) {
        let pages = page_count(self.per_page, blocks);
        self.pages.resize_with(pages, || Arc::new(vec![TableEntry::FREE; self.per_page]));
        for block in blocks..self.blocks.min((pages * self.per_page) as u32) {
            self.set(block, TableEntry::FREE);
        }
        self.blocks = blocks;
    }

    /// Blocks of the file.
    pub(crate) fn blocks(&self) -> u32 {
        self.blocks
    }

    /// What the table says of a block; a block that is not of the file is free.
    pub(crate) fn get(&self, block: u32) -> TableEntry {
        let (page, place) = self.place_of(block);
        self.pages.get(page).and_then(|page| page.get(place)).copied().unwrap_or(TableEntry::FREE)
    }

    /// Changes what the table says of a block of the file.
    pub(crate) fn set(&mut self, block: u32, entry: TableEntry) {
        let (page, place) = self.place_of(block);
        let page = self.pages.get_mut(page).and_then(|page| Arc::make_mut(page).get_mut(place));
        *page.unwrap_or_else(|| panic!("block {block} is of the file")) = entry;
    }

    /// The extent that `block` belongs to, if it belongs to one.
    pub(crate) fn extent_of(&self, block: u32) -> Option<Run> {
        let entry = self.get(block);
        match entry.kind()? {
            BlockKind::Data | BlockKind::Chunk => {
                Some(Run { block: block.checked_sub(entry.place())?, blocks: entry.extent_blocks() })
            }
            _ => None,
        }
    }

    /// All extents of a kind with their live units, by their places in the file.
    pub(crate) fn extents(&self, kind: BlockKind) -> impl Iterator<Item = (Run, u32)> {
        self.all()
            .filter(move |(_, entry)| entry.kind() == Some(kind) && entry.place() == 0)
            .map(|(block, entry)| (Run { block, blocks: entry.extent_blocks() }, entry.live()))
    }

    /// Every block of the file with what the table says of it.
    pub(crate) fn all(&self) -> impl Iterator<Item = (u32, TableEntry)> {
        self.pages
            .iter()
            .flat_map(|page| page.iter().copied())
            .take(self.blocks as usize)
            .enumerate()
            .map(|(block, entry)| (block as u32, entry))
    }

    /// The free blocks.
    pub(crate) fn space(&self) -> Space {
        let mut space = Space::new();
        space.grow_used(self.blocks);
        for (block, entry) in self.all() {
            if entry.is_free() {
                space.release(Run { block, blocks: 1 });
            }
        }
        space
    }

    /// Pages of the table.
    pub(crate) fn page_count(&self) -> usize {
        self.pages.len()
    }

    /// The entries of a page.
    pub(crate) fn page(&self, page: usize) -> &[TableEntry] {
        self.pages.get(page).map_or(&[], |page| page.as_slice())
    }

    /// Whether a page is the very one of `other`, untouched.
    pub(crate) fn shares_page(&self, other: &BlockTable, page: usize) -> bool {
        match (self.pages.get(page), other.pages.get(page)) {
            (Some(ours), Some(theirs)) => Arc::ptr_eq(ours, theirs),
            _ => false,
        }
    }

    fn place_of(&self, block: u32) -> (usize, usize) {
        (block as usize / self.per_page, block as usize % self.per_page)
    }
}

/// Pages of the table of a file of `blocks` blocks.
pub(crate) fn page_count(per_page: usize, blocks: u32) -> usize {
    (blocks as usize).div_ceil(per_page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_shares_the_pages_that_were_not_changed() {
        let published = BlockTable::new(4096, 2000);
        let mut table = published.clone();
        table.set(600, TableEntry::single(BlockKind::Leaf));
        assert_eq!(table.get(600).kind(), Some(BlockKind::Leaf));
        assert!(published.get(600).is_free());
        let shared: Vec<bool> = (0..4).map(|page| table.shares_page(&published, page)).collect();
        assert_eq!(shared, [true, false, true, true]);
    }

    #[test]
    fn what_lay_behind_a_shorter_end_is_forgotten() {
        let mut table = BlockTable::new(4096, 2000);
        table.set(700, TableEntry::single(BlockKind::Leaf));
        table.set(1999, TableEntry::single(BlockKind::Leaf));
        table.resize(650);
        table.resize(2000);
        assert!(table.get(700).is_free() && table.get(1999).is_free());
        assert_eq!(table.all().count(), 2000);
    }

    #[test]
    fn an_extent_is_found_from_each_of_its_blocks() {
        let mut table = BlockTable::new(4096, 100);
        for place in 0..3 {
            table.set(40 + place, TableEntry::extent(BlockKind::Data, 9, place, 3, if place == 0 { 5 } else { 0 }));
        }
        for block in 40..43 {
            assert_eq!(table.extent_of(block), Some(Run { block: 40, blocks: 3 }));
        }
        assert_eq!(table.extent_of(43), None);
        assert_eq!(table.extents(BlockKind::Data).collect::<Vec<_>>(), [(Run { block: 40, blocks: 3 }, 5)]);
        assert_eq!(table.space().free(), 97);
    }
}
