//! The block file as a whole: random checkpoints against a map, and its promises one by one.

pub(super) mod compression;
mod crash;
mod disk;
mod fill;
mod model;
mod rules;
mod system;

use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use crate::keyspace::DatabaseId;
use crate::keyspace::entry::Value;
use disk::MemoryDisk;

const PATH: &str = "/blocks";

/// Hashes of which only so many high bits differ.
#[derive(Clone, Copy)]
struct Weak(u32);

impl KeyHashes for Weak {
    fn hash(&self, key: &[u8]) -> u64 {
        let hash = key
            .iter()
            .fold(0xCBF2_9CE4_8422_2325u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01B3));
        (hash ^ hash >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9) & !(u64::MAX.checked_shr(self.0).unwrap_or(0))
    }

    fn fingerprint(&self, key: &[u8]) -> u64 {
        key.iter().fold(7u64, |hash, byte| hash.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(23) ^ u64::from(*byte))
    }
}

const STRONG: Weak = Weak(64);

const IDENTITY: Identity = Identity { store_id: *b"0123456789abcdef", hash_seed: *b"seedseedseedseed" };

fn auto() -> Geometry {
    Geometry { block_bytes: 4096, size: FileSize::Auto }
}

fn fixed(bytes: u64) -> Geometry {
    Geometry { block_bytes: 4096, size: FileSize::Fixed(bytes) }
}

fn create(disk: &MemoryDisk, geometry: &Geometry) -> BlockFile {
    BlockFile::create(disk, Path::new(PATH), geometry, &IDENTITY).expect("a block file")
}

fn open(disk: &MemoryDisk) -> Result<BlockFile> {
    BlockFile::open(disk, Path::new(PATH))
}

fn record<'a>(key: &'a [u8], value: &'a [u8]) -> Record<'a> {
    let (version, value) = (Version::at_ms(1_700_000_000_000), Value::compact(value));
    Record { database: DatabaseId(0), key, value, version, created: 1_700_000_000, expire_at: None }
}

fn put(checkpoint: &mut Checkpoint<'_>, record: &Record<'_>, hashes: Weak, stored: bool) -> Result<()> {
    checkpoint.put(record, hashes.hash(record.key), stored, hashes.fingerprint(record.key))
}

fn remove(checkpoint: &mut Checkpoint<'_>, key: &[u8], hashes: Weak) {
    checkpoint.remove(DatabaseId(0), hashes.hash(key), hashes.fingerprint(key));
}

fn commit(version: u64) -> Commit<'static> {
    Commit { cut: Version(version), log_position: version * 10, databases: b"numbers" }
}

/// Publishes a checkpoint with these entries.
fn publish(file: &mut BlockFile, entries: &[(&[u8], &[u8])], stored: bool) -> Published {
    let mut checkpoint = file.begin(&STRONG, &CheckpointOptions::default()).expect("a checkpoint");
    for (key, value) in entries {
        put(&mut checkpoint, &record(key, value), STRONG, stored).expect("room");
    }
    checkpoint.publish(&commit(7)).expect("a checkpoint")
}

type Contents = BTreeMap<(u32, Vec<u8>), Vec<u8>>;

fn contents(view: &View, hashes: Weak) -> Contents {
    let mut all = Contents::new();
    view.load(0..=u64::MAX, &hashes, &mut |loaded| {
        let record = loaded.record;
        assert_eq!(loaded.hash, hashes.hash(record.key));
        let before = all.insert((record.database.0, record.key.to_vec()), record.value.to_vec());
        assert_eq!(before, None, "an entry is loaded once");
        Ok(())
    })
    .expect("a sound file");
    all
}

fn assert_sound(view: &View, hashes: Weak) {
    let report = view.check(&hashes).expect("a readable file");
    assert_eq!(report.problems, []);
    assert_eq!(report.entries, view.superblock().entries);
}
