//! Damage to the files of a simulated store, and where to put it. The offsets are those of the formats' heads.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::path::{Path, PathBuf};

use bowline::disk::Disk;
use bowline_sim::disk::SimDisk;
use bowline_sim::random::Random;

const BLOCK: u64 = 4096;
const SECTOR: u64 = 512;
const FRAME_MAGIC: [u8; 4] = [0xB0, 0x3E, 0x1F, 0xA9];
/// What the description of rot begins with that the disk tells itself.
pub(crate) const UNREADABLE: &str = "cannot read";
/// Kinds of blocks.
pub(crate) const DATA: u8 = 2;
pub(crate) const LEAF: u8 = 4;
pub(crate) const TABLE: u8 = 5;
pub(crate) const MANIFEST: u8 = 6;

/// Damages one place; says what was done, or `None` when there is nothing to damage that way.
pub(crate) fn rot(disk: &SimDisk, earlier: &SimDisk, random: &mut Random) -> Option<(PathBuf, String)> {
    let is_part = |path: &PathBuf| !path.ends_with("lock") && !path.starts_with("/archive");
    let files: Vec<PathBuf> = disk.paths().into_iter().filter(is_part).collect();
    let path = files[random.index(files.len())].clone();
    let contents = disk.contents(&path);
    // Mostly where something stands: files are zero-filled ahead.
    let is_used = |offset: &u64| contents[*offset as usize] != 0;
    let mut tries = (0..20).map(|_| random.below(contents.len() as u64)).collect::<Vec<_>>().into_iter();
    let offset = tries.clone().find(is_used).or_else(|| tries.next())?;
    let (sector, block) = (offset / SECTOR * SECTOR, offset / BLOCK * BLOCK);
    let write = |at: u64, bytes: &[u8]| {
        disk.open(&path).and_then(|file| file.write_all_at(bytes, at)).expect("the simulated disk takes it");
    };
    let what = match random.below(6) {
        0 => {
            disk.flip_bit(&path, offset, random.below(8) as u32);
            format!("a bit of byte {offset} flipped")
        }
        1 => {
            disk.zero_sector(&path, sector);
            format!("the sector at {sector} zeroed")
        }
        2 => {
            write(block, &vec![0; (contents.len() as u64 - block).min(BLOCK) as usize]);
            format!("the block at {block} zeroed")
        }
        3 => {
            let old = if earlier.exists(&path) { earlier.contents(&path) } else { Vec::new() };
            let old = old.get(block as usize..)?;
            write(block, &old[..old.len().min(BLOCK as usize)]);
            format!("the block at {block} as it was before")
        }
        4 => {
            disk.make_unreadable(&path, sector, SECTOR as usize * random.below(20).max(1) as usize);
            format!("{UNREADABLE} the sectors from {sector}")
        }
        _ => {
            let other = random.below(contents.len() as u64) / BLOCK * BLOCK;
            let (from, to) = (&contents[other as usize..], contents.len() as u64 - block);
            write(block, &from[..from.len().min(BLOCK.min(to) as usize)]);
            format!("the block at {other} written to {block}")
        }
    };
    Some((path, what))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// The block of the superblock that counts.
pub(crate) fn newest_superblock(disk: &SimDisk, path: &Path) -> u64 {
    let bytes = disk.contents(path);
    u64::from(u64_at(&bytes, 64) < u64_at(&bytes, BLOCK as usize + 64))
}

/// The blocks of a kind that the newest checkpoint's table has in use.
pub(crate) fn live_blocks(disk: &SimDisk, path: &Path, kind: u8) -> Vec<u64> {
    let bytes = disk.contents(path);
    let newest = newest_superblock(disk, path) as usize * BLOCK as usize;
    let manifest = u32_at(&bytes, newest + 112) as usize * BLOCK as usize + 32;
    let map_bytes = u32_at(&bytes, manifest + 16) as usize;
    let dictionary = manifest + 16 + 4 + map_bytes;
    let dictionary_bytes = u32_at(&bytes, dictionary) as usize;
    let page = u32_at(&bytes, dictionary + 4 + dictionary_bytes + 4) as usize * BLOCK as usize;
    let blocks = bytes.len() / BLOCK as usize;
    let info = |block: usize| u32_at(&bytes, page + 24 + block * 8 + 4);
    (2..blocks.min(509)).filter(|block| info(*block) & 0xf == u32::from(kind)).map(|block| block as u64).collect()
}

/// Whether a frame with a right place stands at `at` of a log file.
fn is_frame(bytes: &[u8], at: usize) -> bool {
    bytes.get(at..at + 4) == Some(&FRAME_MAGIC) && at >= 4096
}

/// Where a frame of records stands that others follow.
pub(crate) fn frame_in_the_middle(disk: &SimDisk, directory: &str) -> (PathBuf, u64) {
    let path = Path::new(directory).join("log/00000001.log");
    let bytes = disk.contents(&path);
    let frames = (4096..bytes.len() - 144).filter(|at| is_frame(&bytes, *at) && u32_at(&bytes, at + 16) > 0);
    let frames: Vec<usize> = frames.collect();
    (path, frames[frames.len() / 2] as u64)
}

/// Where marks stand in a log file.
pub(crate) fn marks(bytes: &[u8]) -> Vec<u64> {
    let is_mark = |at: &usize| is_frame(bytes, *at) && u32_at(bytes, at + 16) == 0;
    (4096..bytes.len() - 144).filter(is_mark).map(|at| at as u64).collect()
}

/// Writes another store id into the superblocks.
pub(crate) fn give_other_identity(bytes: &mut [u8]) {
    for at in [0, BLOCK as usize] {
        bytes[at + 16] ^= 0xff;
        let crc = crc32c::crc32c(&bytes[at + 12..at + 256]);
        bytes[at + 8..at + 12].copy_from_slice(&crc.to_le_bytes());
    }
}

/// Makes unreadable what the log still holds from before the position where replay begins.
pub(crate) fn forget_history(disk: &SimDisk, directory: &str) {
    let directory = Path::new(directory).join("log");
    let is_log =
        |path: &PathBuf| path.starts_with(&directory) && path.extension().is_some_and(|suffix| suffix == "log");
    // Sequence, start position, replay position, path.
    let mut headers: Vec<(u64, u64, u64, PathBuf)> = Vec::new();
    for path in disk.paths().into_iter().filter(is_log) {
        let bytes = disk.contents(&path);
        let slot = [0, 2048].into_iter().max_by_key(|slot| u64_at(&bytes, slot + 40)).expect("two slots");
        if bytes[slot..].starts_with(b"BOWL-LOG") {
            headers.push((u64_at(&bytes, slot + 32), u64_at(&bytes, slot + 48), u64_at(&bytes, slot + 64), path));
        }
    }
    headers.sort();
    let replay_from = headers.last().expect("a log").2;
    let first = headers.iter().rposition(|(_, start, ..)| *start < replay_from).unwrap_or(0);
    for (place, (_, start, _, path)) in headers.iter().enumerate() {
        if place < first {
            disk.remove(path).expect("removed");
        } else if place == first && *start < replay_from {
            let bytes = disk.contents(path);
            // The last frame before it stays: it says which version was the newest.
            let end = (4096 + replay_from - start) as usize;
            let last = (4096..end).rev().find(|at| is_frame(&bytes, *at)).unwrap_or(end);
            let file = disk.open(path).expect("opened");
            file.write_all_at(&vec![0; last - 4096], 4096).expect("written");
            file.sync_data().expect("synced");
        }
    }
}
