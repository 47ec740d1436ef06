//! The bytes of one simulated file: what a reader sees, what a power cut keeps, and what lies between.
//!
//! ```text
//!     write --> cached (readers see it) --sync--> durable (kept for sure)
//!                  |
//!                  +--> dirty: per 512-byte sector, every content it had since the last sync
//! ```
//!
//! After a power cut each sector holds its durable content or any content it had in the cache since: sectors reach a
//! disk one by one, in any order. Not here: names ([`super::names`]) and who may fail ([`super::faults`]).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::random::Random;

/// Bytes that a disk writes whole or not at all.
pub(crate) const SECTOR_BYTES: usize = 512;

type Sector = Box<[u8; SECTOR_BYTES]>;

/// What one write since the last sync left in a sector.
#[derive(Clone, Debug)]
struct DirtySector {
    write: u64,
    content: Sector,
}

/// The bytes of one file.
#[derive(Clone, Debug, Default)]
pub(crate) struct FileBytes {
    cached: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeMap<usize, Vec<DirtySector>>,
    /// Length after each write since the last sync that made the file longer.
    lengths: Vec<u64>,
    writes: u64,
    /// What each sector held before its newest durable content; for stale reads.
    before: BTreeMap<usize, Sector>,
    /// Sectors that the disk cannot read until they are written again.
    unreadable: BTreeSet<usize>,
    /// Write-back errors that happened; an open file reports each once, at its next sync.
    pub(crate) write_back_errors: u64,
}

/// How much of the unsynced writes a power cut keeps in one file.
#[derive(Clone, Copy, Debug)]
enum Kept {
    Nothing,
    Everything,
    /// Each sector on its own, at any of its contents.
    Sectors,
    /// Each write on its own, whole.
    Writes,
    /// The first writes, then a torn one.
    Prefix,
    /// The later writes without the earlier ones.
    Suffix,
    /// All but one sector.
    AllButOne,
    /// One sector alone.
    One,
}

const ALL_KEPT: [Kept; 8] = [
    Kept::Nothing,
    Kept::Everything,
    Kept::Sectors,
    Kept::Writes,
    Kept::Prefix,
    Kept::Suffix,
    Kept::AllButOne,
    Kept::One,
];

/// The sectors that have any of these bytes.
fn sectors_of(offset: u64, bytes: usize) -> Range<usize> {
    let first = offset as usize / SECTOR_BYTES;
    first..(offset as usize + bytes).div_ceil(SECTOR_BYTES).max(first)
}

impl FileBytes {
    pub(crate) fn len(&self) -> u64 {
        self.cached.len() as u64
    }

    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty() || !self.lengths.is_empty()
    }

    /// Copies from the cache; less than asked for only at the end.
    pub(crate) fn read(&self, buffer: &mut [u8], offset: u64) -> usize {
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(self.cached.len());
        let count = buffer.len().min(self.cached.len() - from);
        buffer[..count].copy_from_slice(&self.cached[from..from + count]);
        count
    }

    /// Writes into the cache; a hole before it reads as zeroes.
    /// The disk can no longer read the sectors that have any of these bytes.
    pub(crate) fn make_unreadable(&mut self, offset: u64, bytes: usize) {
        self.unreadable.extend(sectors_of(offset, bytes));
    }

    /// Whether a read of these bytes meets a sector that cannot be read.
    pub(crate) fn is_unreadable(&self, offset: u64, bytes: usize) -> bool {
        self.unreadable.range(sectors_of(offset, bytes)).next().is_some()
    }

    pub(crate) fn write(&mut self, bytes: &[u8], offset: u64) {
        for sector in sectors_of(offset, bytes.len()) {
            self.unreadable.remove(&sector);
        }
        if bytes.is_empty() {
            return;
        }
        let start = offset as usize;
        let end = start + bytes.len();
        self.writes += 1;
        if end > self.cached.len() {
            self.cached.resize(end, 0);
            self.lengths.push(end as u64);
        }
        self.cached[start..end].copy_from_slice(bytes);
        for sector in start / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES) {
            let content = sector_of(&self.cached, sector);
            self.dirty.entry(sector).or_default().push(DirtySector { write: self.writes, content });
        }
    }

    /// Makes the file longer, with zeroes, or shorter.
    pub(crate) fn resize(&mut self, bytes: u64) {
        self.cached.resize(bytes as usize, 0);
        self.dirty.retain(|sector, _| sector * SECTOR_BYTES < bytes as usize);
        self.lengths.push(bytes);
    }

    /// What was written becomes durable.
    pub(crate) fn sync(&mut self) {
        for (sector, versions) in std::mem::take(&mut self.dirty) {
            if let Some(newest) = versions.last() {
                self.make_durable(sector, &newest.content);
            }
        }
        self.lengths.clear();
        self.durable.resize(self.cached.len(), 0);
    }

    /// A write-back that failed: some sectors reached the disk, the others never will, and all count as clean from
    /// here on. Readers still see the new bytes.
    pub(crate) fn lose_dirty(&mut self, random: &mut Random) {
        self.write_back_errors += 1;
        for (sector, versions) in std::mem::take(&mut self.dirty) {
            if let Some(newest) = versions.last().filter(|_| random.chance(1, 3)) {
                self.make_durable(sector, &newest.content);
            }
        }
        self.lengths.clear();
        self.durable.resize(self.cached.len(), 0);
    }

    fn make_durable(&mut self, sector: usize, content: &[u8; SECTOR_BYTES]) {
        let old = sector_of(&self.durable, sector);
        if *old != *content {
            self.before.insert(sector, old);
        }
        put_sector(&mut self.durable, sector, content);
    }

    /// The file as it may stand after a power cut: durable bytes, and of the rest what `random` decides.
    pub(crate) fn after_power_cut(&self, random: &mut Random) -> FileBytes {
        let kept = ALL_KEPT[random.index(ALL_KEPT.len())];
        let chosen = self.choose(kept, random);
        let mut after =
            FileBytes { durable: self.durable.clone(), before: self.before.clone(), ..FileBytes::default() };
        for (sector, content) in chosen {
            after.make_durable(sector, content);
        }
        after.durable.resize(self.length_after_cut(kept, random), 0);
        after.cached.clone_from(&after.durable);
        after
    }

    fn length_after_cut(&self, kept: Kept, random: &mut Random) -> usize {
        let durable = self.durable.len();
        match (kept, self.lengths.last()) {
            (_, None) | (Kept::Nothing, _) => durable,
            (Kept::Everything, Some(newest)) => *newest as usize,
            // The length is metadata and reaches the disk apart from the bytes.
            (_, Some(newest)) => match random.index(self.lengths.len() + 2) {
                0 => durable,
                1 => *newest as usize,
                other => self.lengths[other - 2] as usize,
            },
        }
    }

    fn choose(&self, kept: Kept, random: &mut Random) -> Vec<(usize, &[u8; SECTOR_BYTES])> {
        let mut writes: Vec<u64> = self.dirty.values().flatten().map(|dirty| dirty.write).collect();
        writes.sort_unstable();
        writes.dedup();
        if writes.is_empty() {
            return Vec::new();
        }
        let pivot = writes[random.index(writes.len())];
        let coins: BTreeMap<u64, bool> = writes.iter().map(|write| (*write, random.chance(1, 2))).collect();
        let one = random.index(self.dirty.len());
        let mut chosen = Vec::new();
        for (place, (sector, versions)) in self.dirty.iter().enumerate() {
            let newest = versions.last();
            let content = match kept {
                Kept::Nothing => None,
                Kept::Everything => newest,
                Kept::AllButOne => newest.filter(|_| place != one),
                Kept::One => newest.filter(|_| place == one),
                Kept::Sectors => match random.index(versions.len() + 1) {
                    0 => None,
                    some => versions.get(some - 1),
                },
                Kept::Writes => versions.iter().rfind(|dirty| coins[&dirty.write]),
                Kept::Prefix => {
                    let torn = random.chance(1, 2);
                    versions.iter().rfind(|dirty| dirty.write < pivot || (dirty.write == pivot && torn))
                }
                Kept::Suffix => newest.filter(|dirty| dirty.write >= pivot),
            };
            chosen.extend(content.map(|dirty| (*sector, &*dirty.content)));
        }
        chosen
    }

    /// Turns bit `bit` of the byte at `offset`, on the disk and in the cache. False past the end.
    pub(crate) fn flip_bit(&mut self, offset: u64, bit: u32) -> bool {
        let mask = 1u8 << (bit % 8);
        let offset = offset as usize;
        let (Some(cached), Some(durable)) = (self.cached.get_mut(offset), self.durable.get_mut(offset)) else {
            return false;
        };
        *cached ^= mask;
        *durable ^= mask;
        true
    }

    /// Puts `content` where the sector of `offset` stands, on the disk and in the cache. False past the end.
    pub(crate) fn replace_sector(&mut self, offset: u64, content: &[u8; SECTOR_BYTES]) -> bool {
        let start = offset as usize / SECTOR_BYTES * SECTOR_BYTES;
        let end = (start + SECTOR_BYTES).min(self.cached.len()).min(self.durable.len());
        if start >= end {
            return false;
        }
        for bytes in [&mut self.cached, &mut self.durable] {
            bytes[start..end].copy_from_slice(&content[..end - start]);
        }
        true
    }

    /// What the sector of `offset` held on the disk before its newest content: what a disk that lost one write shows.
    pub(crate) fn content_before(&self, offset: u64) -> Option<Sector> {
        self.before.get(&(offset as usize / SECTOR_BYTES)).cloned()
    }
}

fn sector_of(bytes: &[u8], sector: usize) -> Sector {
    let mut content = Box::new([0u8; SECTOR_BYTES]);
    let start = (sector * SECTOR_BYTES).min(bytes.len());
    let end = (start + SECTOR_BYTES).min(bytes.len());
    content[..end - start].copy_from_slice(&bytes[start..end]);
    content
}

/// Writes a sector, making `bytes` longer where it must; the length is put right by the caller.
fn put_sector(bytes: &mut Vec<u8>, sector: usize, content: &[u8; SECTOR_BYTES]) {
    let start = sector * SECTOR_BYTES;
    if bytes.len() < start + SECTOR_BYTES {
        bytes.resize(start + SECTOR_BYTES, 0);
    }
    bytes[start..start + SECTOR_BYTES].copy_from_slice(content);
}
