//! Whatever rots in the files of a store, no wrong byte is served: the store refuses to open and names the file, or shows
//! exactly what was written (the damage hit bytes that nobody needs).
//!
//! Method: a store with checkpoints and a log behind the newest one; then one bit flips, a sector is zeroed, a sector or a
//! block is as it was before, two blocks stand in each other's place, or the disk cannot read some sectors, anywhere in any
//! file.
//!
//! Replay: SEED=<n> cargo test -p bowline-sim --test rot; `ROTS=<count>` for more than the everyday few.

mod damage;

use std::time::Duration;

use bowline::Error;
use bowline_sim::clock::SimClock;
use bowline_sim::crash::model::Databases;
use bowline_sim::crash::number_from_environment;
use bowline_sim::disk::SimDisk;
use bowline_sim::random::Random;
use bowline_sim::store_machine::StoreMachine;
use damage::{UNREADABLE, rot};

const NOW_MS: u64 = 1_800_000_000_000;
const ROTS: u64 = 400;
const BLOCK: u64 = 4096;

/// A store that was killed with two checkpoints and a log behind them; its disk as it was at the first of them, its disk
/// at the end, and what it shows.
fn store(seed: u64) -> (SimDisk, SimDisk, Databases) {
    let (disk, clock) = (SimDisk::new(seed), SimClock::new(NOW_MS));
    let mut random = Random::for_part(seed, 7);
    let mut machine = StoreMachine::open(&disk, &clock).expect("a new store opens");
    let mut before = None;
    for round in 0..3 {
        for _ in 0..60 {
            let key = [b"key:", &[b'0' + random.index(10) as u8][..]].concat();
            let mut value = vec![0; if random.chance(1, 10) { random.index(30_000) } else { random.index(300) }];
            random.fill(&mut value);
            match random.below(5) {
                0 => machine.call(&[b"DEL", &key]),
                _ => machine.call(&[b"SET", &key, &value]),
            };
        }
        if round < 2 {
            machine.store.checkpoint().expect("a checkpoint");
            before.get_or_insert_with(|| machine.disk.process_killed());
        }
    }
    // Long enough for the last frame to get its witnesses.
    machine.clock.advance(Duration::from_millis(50));
    assert!(machine.become_quiet());
    let contents = machine.contents().expect("the store answers");
    (before.expect("there was a checkpoint"), machine.kill(), contents)
}

#[test]
fn no_rot_anywhere_shows_a_wrong_byte() {
    let (first, count) = match number_from_environment("SEED") {
        Some(seed) => (seed, 1),
        None => (0, number_from_environment("ROTS").unwrap_or(ROTS)),
    };
    let (mut refused, mut harmless) = (0, 0);
    let mut made: Option<(u64, (SimDisk, SimDisk, Databases))> = None;
    for seed in first..first + count {
        // A store serves for some places.
        if made.as_ref().is_none_or(|(of, ..)| *of != seed / 20) {
            made = Some((seed / 20, store(seed / 20)));
        }
        let Some((_, (earlier, disk, contents))) = &made else { unreachable!("it was made") };
        let damaged = disk.process_killed();
        let mut random = Random::for_part(seed, 9);
        let Some((path, what)) = rot(&damaged, earlier, &mut random) else { continue };
        match StoreMachine::open(&damaged, &SimClock::new(NOW_MS + 60_000)) {
            Ok(mut machine) => {
                let found = machine.contents();
                assert!(found.as_ref() == Some(contents), "{}: {what}; replay: SEED={seed}", path.display());
                harmless += 1;
            }
            Err(Error::Corrupt { .. }) => refused += 1,
            Err(Error::Io { op: "read", .. }) if what.starts_with(UNREADABLE) => refused += 1,
            Err(error) => panic!("{}: {what}: {error}; replay: SEED={seed}", path.display()),
        }
    }
    println!("{refused} times refused, {harmless} times nobody needed the bytes");
    assert!(count == 1 || (refused > 0 && harmless > 0));
}

#[test]
fn rot_in_the_block_file_of_an_open_store_is_found_and_mended_from_memory() {
    let (_, disk, contents) = store(3);
    let path = disk.paths().into_iter().find(|path| path.ends_with("store.blocks")).expect("there is a block file");
    let mut found = 0;
    let blocks = disk.contents(&path).len() as u64 / BLOCK;
    for (block, is_readable) in (0..2 * blocks).map(|case| (case / 2, case % 2 == 0)) {
        let damaged = disk.process_killed();
        let clock = SimClock::new(NOW_MS + 60_000);
        let machine = StoreMachine::open(&damaged, &clock).expect("a sound store opens");
        let offset = block * BLOCK + 3000 * u64::from(block > 1);
        if is_readable {
            damaged.flip_bit(&path, offset, 3);
        } else {
            damaged.make_unreadable(&path, offset, 1);
        }
        machine.store.scrub(u64::MAX);
        let is_damage = machine.store.scrubbing().damage > 0;
        found += u64::from(is_damage);
        machine.store.checkpoint().unwrap_or_else(|error| panic!("block {block}: {error}"));
        assert_eq!(machine.store.scrubbing().repairs, u64::from(is_damage), "block {block}");
        machine.store.scrub(u64::MAX);
        assert_eq!(machine.store.scrubbing().damage, u64::from(is_damage), "block {block} is sound again");
        let mut reopened = StoreMachine::open(&machine.kill(), &clock).expect("the mended store opens");
        assert!(reopened.contents().as_ref() == Some(&contents), "block {block}");
    }
    assert!(found > 5, "{found} blocks were found damaged");
}
