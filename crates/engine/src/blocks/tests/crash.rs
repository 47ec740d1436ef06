//! A power cut at every storage call leaves the checkpoint that was published last, or the one that was being published,
//! whole and without a leaked block.
//!
//! Method: one scripted workload is traced; for every prefix of its calls, what was synced is kept and of each sector
//! written since any content it had; the file is opened, checked and compared. Replay: SEED=<n>.

use super::disk::Traced;
use super::*;

const SECTOR: usize = 512;

/// A small generator, so that a seed replays.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

/// What the calls leave behind when the power goes off after them.
fn image(before: &[u8], calls: &[Traced], random: &mut Random) -> Vec<u8> {
    let mut durable = before.to_vec();
    let synced = calls.iter().rposition(|call| matches!(call, Traced::Sync)).map_or(0, |last| last + 1);
    for call in &calls[..synced] {
        apply(&mut durable, call);
    }
    let kept = random.below(4);
    let mut length = durable.len();
    for call in &calls[synced..] {
        match call {
            Traced::Resize(bytes) => {
                if random.below(2) == 0 {
                    length = *bytes as usize;
                }
                durable.resize(durable.len().max(*bytes as usize), 0);
            }
            Traced::Write { offset, bytes } => {
                for (place, sector) in bytes.chunks(SECTOR).enumerate() {
                    let is_kept = match kept {
                        0 => false,
                        1 => true,
                        _ => random.below(2) == 0,
                    };
                    if is_kept {
                        let start = *offset as usize + place * SECTOR;
                        durable[start..start + sector.len()].copy_from_slice(sector);
                    }
                }
            }
            Traced::Sync => {}
        }
    }
    durable.resize(length, 0);
    durable
}

fn apply(bytes: &mut Vec<u8>, call: &Traced) {
    match call {
        Traced::Write { offset, bytes: written } => {
            bytes[*offset as usize..*offset as usize + written.len()].copy_from_slice(written);
        }
        Traced::Resize(length) => bytes.resize(*length as usize, 0),
        Traced::Sync => {}
    }
}

/// Runs the workload; returns the contents after each checkpoint and how many calls had been made when it was durable.
fn workload(disk: &MemoryDisk, geometry: &Geometry) -> Vec<(usize, Contents)> {
    let mut file = create(disk, geometry);
    disk.state().trace = Some(Vec::new());
    let mut random = Random(5);
    let mut model = Contents::new();
    let mut published = vec![(0, model.clone())];
    for round in 0..14u64 {
        let before = model.clone();
        let options = CheckpointOptions { sync_bytes: 60_000, compact_bytes: 100_000, ..CheckpointOptions::default() };
        let mut checkpoint = file.begin(&STRONG, &options).unwrap();
        if round == 9 {
            checkpoint.start_empty();
            model.clear();
        }
        let count = if round == 2 { 900 } else { 60 };
        for _ in 0..count {
            let key = format!("key:{}", random.below(1000)).into_bytes();
            let name = (0, key.clone());
            let stored = before.contains_key(&name) && round != 9;
            if model.get(&name) != before.get(&name) {
                continue;
            }
            if random.below(3) == 0 {
                if model.remove(&name).is_some() {
                    remove(&mut checkpoint, &key, STRONG);
                }
                continue;
            }
            let bytes = if random.below(40) == 0 { 70_000 } else { random.below(300) };
            let value = vec![round as u8 + 65; bytes];
            put(&mut checkpoint, &record(&key, &value), STRONG, stored).unwrap();
            model.insert(name, value);
        }
        if round == 5 {
            checkpoint.finish_range(u64::MAX).unwrap();
            checkpoint.abort();
            model = before;
            continue;
        }
        checkpoint.publish(&commit(round + 1)).unwrap();
        let calls = disk.state().trace.as_ref().unwrap().len();
        published.push((calls, model.clone()));
    }
    published
}

fn cut_everywhere(geometry: &Geometry) {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let disk = MemoryDisk::default();
    let first = {
        let disk = MemoryDisk::default();
        create(&disk, geometry);
        disk.bytes(PATH)
    };
    let published = workload(&disk, geometry);
    let trace = disk.state().trace.take().unwrap();
    for cut in 0..=trace.len() {
        let mut random = Random(seed + cut as u64);
        let image = image(&first, &trace[..cut], &mut random);
        let disk = MemoryDisk::with_file(PATH, image);
        let file = open(&disk).unwrap_or_else(|error| panic!("SEED={seed}, call {cut}: {error}"));
        let sure = published.iter().rposition(|(calls, _)| *calls <= cut).unwrap();
        let sequence = file.superblock().sequence as usize;
        assert!(sequence == sure || sequence == sure + 1, "SEED={seed}, call {cut}: {sequence} after {sure}");
        assert_eq!(contents(&file.view(), STRONG), published[sequence].1, "SEED={seed}, call {cut}");
        assert_sound(&file.view(), STRONG);
    }
}

#[test]
fn a_power_cut_at_every_call_leaves_a_whole_checkpoint_in_a_growing_file() {
    cut_everywhere(&auto());
}

#[test]
fn a_power_cut_at_every_call_leaves_a_whole_checkpoint_in_a_fixed_file() {
    cut_everywhere(&fixed(3_000_000));
}
