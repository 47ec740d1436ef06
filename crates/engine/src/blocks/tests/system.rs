//! Block files on the operating system's disk, and how fast they are there.

use std::time::Instant;

use super::*;
use crate::disk::OsDisk;

const NUMBERS: u64 = 5_000_000;

fn key_of(number: u64) -> [u8; 16] {
    let mut key = *b"key:............";
    let mut rest = number;
    for digit in key[4..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key
}

#[test]
fn a_file_of_the_operating_system_grows_shrinks_and_opens_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("blocks");
    let mut file = BlockFile::create(&OsDisk, &path, &auto(), &IDENTITY).unwrap();
    let first = std::fs::metadata(&path).unwrap().len();
    let value = vec![7; 12_000_000];
    publish(&mut file, &[(b"large", &value), (b"small", b"1")], false);
    let grown = std::fs::metadata(&path).unwrap().len();
    assert!(first < 2_000_000 && grown > 12_000_000, "{first} bytes became {grown}");
    let mut checkpoint = file.begin(&STRONG, &CheckpointOptions::default()).unwrap();
    remove(&mut checkpoint, b"large", STRONG);
    checkpoint.publish(&commit(8)).unwrap();
    publish(&mut file, &[], false);
    publish(&mut file, &[], false);
    assert!(std::fs::metadata(&path).unwrap().len() < 6_000_000);
    drop(file);
    let file = BlockFile::open(&OsDisk, &path).unwrap();
    assert_sound(&file.view(), STRONG);
    assert_eq!(contents(&file.view(), STRONG).into_values().collect::<Vec<_>>(), [b"1"]);
    let read_only = BlockFile::open_read_only(&OsDisk, &path).unwrap();
    assert_eq!(read_only.superblock(), file.superblock());
}

#[test]
fn a_fixed_file_has_its_space_reserved_when_it_is_made() {
    use std::os::unix::fs::MetadataExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("blocks");
    BlockFile::create(&OsDisk, &path, &fixed(8_000_000), &IDENTITY).unwrap();
    let metadata = std::fs::metadata(&path).unwrap();
    assert_eq!(metadata.len(), 8_000_000 / 4096 * 4096);
    assert!(metadata.blocks() * 512 >= 7_900_000, "{} bytes are reserved", metadata.blocks() * 512);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}

/// Measures; to be run with `cargo test --release -p bowline --lib blocks::tests::system -- --ignored --nocapture`.
#[test]
#[ignore = "measures speed, which no test asserts"]
fn writing_and_loading_five_million_entries() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("blocks");
    let mut file = BlockFile::create(&OsDisk, &path, &auto(), &IDENTITY).unwrap();
    let hasher = crate::keyspace::hash::KeyHasher::new(7);
    struct Sip(crate::keyspace::hash::KeyHasher);
    impl KeyHashes for Sip {
        fn hash(&self, key: &[u8]) -> u64 {
            self.0.hash(key)
        }
        fn fingerprint(&self, key: &[u8]) -> u64 {
            !self.0.hash(key)
        }
    }
    let hashes = Sip(hasher);
    let mut keys: Vec<(u64, u64)> = (0..NUMBERS).map(|number| (hashes.hash(&key_of(number)), number)).collect();
    keys.sort_unstable_by_key(|(hash, _)| hash >> 58);
    for (round, share) in [(0u64, 1), (1, 1), (2, 20)] {
        let start = Instant::now();
        let mut checkpoint = file.begin(&hashes, &CheckpointOptions::default()).unwrap();
        for segment in keys.chunk_by(|a, b| a.0 >> 58 == b.0 >> 58) {
            for (hash, number) in segment.iter().filter(|(_, number)| number % share == 0) {
                let key = key_of(*number);
                let record = record(&key, b"a value of thirty-two bytes here");
                checkpoint.put(&record, *hash, round > 0, !hash).unwrap();
            }
            checkpoint.finish_range(segment[0].0 | u64::MAX >> 6).unwrap();
        }
        let told = checkpoint.publish(&commit(round + 1)).unwrap();
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "checkpoint of 1 in {share}: {seconds:.2} s, {} MB written, file of {} MB",
            told.written_bytes / 1_000_000,
            u64::from(told.file_blocks) * 4096 / 1_000_000,
        );
    }
    let start = Instant::now();
    let file = BlockFile::open(&OsDisk, &path).unwrap();
    println!("open: {:.3} s", start.elapsed().as_secs_f64());
    for threads in [1u64, 2] {
        let (view, hashes, start) = (file.view(), &hashes, Instant::now());
        let loaded: u64 = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|thread| {
                    let view = view.clone();
                    scope.spawn(move || {
                        let mut count = 0;
                        for segment in (0..64).filter(|segment| segment % threads == thread) {
                            let range = segment << 58..=(segment << 58 | u64::MAX >> 6);
                            view.load(range, hashes, &mut |loaded| {
                                count += u64::from(loaded.record.key.len() == 16);
                                Ok(())
                            })
                            .unwrap();
                        }
                        count
                    })
                })
                .collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert_eq!(loaded, NUMBERS);
        println!("load on {threads} threads: {:.2} M/s", loaded as f64 / 1e6 / start.elapsed().as_secs_f64());
    }
    let (view, mut named, start) = (file.view(), 0, Instant::now());
    view.entries(0..=u64::MAX, &mut |_, _, _| named += 1).unwrap();
    println!("index alone: {:.1} M/s", f64::from(named) / 1e6 / start.elapsed().as_secs_f64());
}
