//! A checkpoint gives exactly the state at its cut, whatever is written, emptied, moved or taken meanwhile, and whatever
//! became of the checkpoints before it.
//! Method: seeded random changes, cuts, takes, failures, publications and restarts from the file; the file is a map that
//! refuses a removal or a replacement of what it has not got, and an addition of what it has.
//! Replay: SEED=<n> cargo test -p bowline --lib keyspace::tests

use super::checkpoint::{Cut, CutEntry, LargeEntry, Removal, TakeLimits};
use super::entry::{Entry, EntryRef, Value};
use super::{DatabaseId, Keyspace, SegmentSet};
use crate::apply::{Freed, apply_to_key, apply_to_many};
use crate::effect::Effect;
use crate::version::Version;
use std::collections::{BTreeMap, BTreeSet};

/// The hash seed of all tests, so that keys with equal tags need be looked for once.
const HASH_SEED: u128 = 77;

/// Random numbers (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}

/// All that a record keeps of an entry, beside its key.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Kept {
    value: Vec<u8>,
    version: Version,
    created: u32,
    expire_at: Option<u64>,
}

impl Kept {
    fn of(entry: EntryRef<'_>) -> Kept {
        let (version, created) = (entry.version(), entry.created());
        Kept { value: entry.value().to_vec(), version, created, expire_at: entry.expire_at() }
    }
}

type Key = (DatabaseId, Vec<u8>);
type State = BTreeMap<Key, Kept>;

/// A running checkpoint.
struct Running {
    cut: Cut,
    /// What the keyspace was at the cut.
    expected: State,
    removals: Vec<(DatabaseId, Removal)>,
    puts: Vec<(Key, Kept, bool)>,
    done: BTreeSet<usize>,
}

struct World {
    keyspace: Keyspace,
    keys: Vec<Vec<u8>>,
    random: Random,
    version: u64,
    file: State,
    file_cut: Option<Cut>,
    running: Option<Running>,
    freed: Freed,
    /// Ops that put fall behind those that remove, in turns, so that tables grow and shrink.
    shrinking: bool,
    published: usize,
    failed: usize,
    parts_lost: usize,
}

fn new_keyspace() -> Keyspace {
    Keyspace::new(4, HASH_SEED, 0)
}

/// Everything in a keyspace.
fn state_of(keyspace: &Keyspace) -> State {
    let hold = keyspace.hold(keyspace.every_segment(), SegmentSet::EMPTY);
    let segments = keyspace.every_segment();
    let tables = segments.iter().flat_map(|segment| hold.segment(segment).tables());
    let entries = tables.flat_map(|(id, table)| table.entries().iter().map(move |entry| (id, entry)));
    entries.map(|(id, entry)| ((id, entry.key().to_vec()), Kept::of(entry))).collect()
}

impl World {
    fn new(seed: u64, keys: Vec<Vec<u8>>) -> World {
        World {
            keyspace: new_keyspace(),
            keys,
            random: Random(seed),
            version: 1 << 32,
            file: State::new(),
            file_cut: None,
            running: None,
            freed: Freed::default(),
            shrinking: false,
            published: 0,
            failed: 0,
            parts_lost: 0,
        }
    }

    fn key(&mut self) -> Vec<u8> {
        let index = self.random.below(self.keys.len());
        self.keys[index].clone()
    }

    fn number(&mut self) -> u32 {
        [0, 0, 0, 1, 2][self.random.below(5)]
    }

    fn value(&mut self, large_in: usize) -> Vec<u8> {
        let len = match self.random.below(8) {
            0 => 300,
            1 => 5,
            2 if self.random.one_in(large_in) => 300 * 1024 + self.random.below(9),
            _ => 24 + self.random.below(16),
        };
        let fill = self.random.next();
        if len == 5 { (fill % 100_000).to_string().into_bytes() } else { vec![fill as u8; len] }
    }

    /// Runs one effect as a command does, or as a replay does.
    fn apply(&mut self, effect: &Effect<'_>) {
        self.version += 1;
        let version = Version(self.version);
        let keyspace = &self.keyspace;
        let mut hold = keyspace.hold(SegmentSet::EMPTY, keyspace.every_segment());
        let as_command = self.random.one_in(2);
        let applied_as = if as_command { Version::MAX } else { version };
        let Some(key) = effect.single_key() else {
            apply_to_many(&mut hold, effect, applied_as, &mut self.freed).expect("it fits");
            if let Effect::Move { to_database, to_key, .. } = *effect {
                let hash = keyspace.hash(to_key);
                hold.table_mut(keyspace.segment_of(hash), to_database).0.stamp(hash, version);
            }
            return;
        };
        let hash = keyspace.hash(key);
        apply_to_key(&mut hold, hash, effect, applied_as, &mut self.freed).expect("it fits");
        if let Effect::Put { database, .. }
        | Effect::Expire { database, .. }
        | Effect::Append { database, .. }
        | Effect::SetRange { database, .. } = *effect
        {
            hold.table_mut(keyspace.segment_of(hash), database).0.stamp(hash, version);
        }
    }

    fn exists(&self, database: DatabaseId, key: &[u8]) -> bool {
        let (hash, keyspace) = (self.keyspace.hash(key), &self.keyspace);
        let segment = keyspace.segment_of(hash);
        let hold = keyspace.hold(SegmentSet::one(segment), SegmentSet::EMPTY);
        hold.table(segment, database).is_some_and(|table| table.find(hash, key).is_some())
    }

    /// One random change.
    fn change(&mut self) {
        let (key, number, other) = (self.key(), self.number(), self.number());
        let database = self.keyspace.databases.id(number);
        if self.random.one_in(400) {
            return self.change_databases(number, other);
        }
        let expire_at = self.random.one_in(3).then(|| self.random.next() >> 20);
        let exists = self.exists(database, &key);
        let removes = self.random.below(10) < if self.shrinking { 7 } else { 2 };
        if !exists && removes {
            return;
        }
        if !exists || (!removes && self.random.one_in(2)) {
            let value = self.value(25);
            return self.apply(&Effect::Put { database, key: &key, value: Value::compact(&value), expire_at });
        }
        let bytes = [b'x'; 9];
        match self.random.below(4) {
            _ if removes => self.apply(&Effect::Delete { database, key: &key }),
            0 => self.apply(&Effect::Expire { database, key: &key, expire_at }),
            1 => self.apply(&Effect::Append { database, key: &key, bytes: &bytes }),
            2 => self.apply(&Effect::SetRange { database, key: &key, offset: 3, bytes: &bytes }),
            _ => {
                let to_key = if number != other && self.random.one_in(2) { key.clone() } else { self.key() };
                let to_database = self.keyspace.databases.id(other);
                if (database, &key) != (to_database, &to_key) {
                    self.apply(&Effect::Move { database, key: &key, to_database, to_key: &to_key });
                }
            }
        }
    }

    fn change_databases(&mut self, first: u32, second: u32) {
        match self.random.below(5) {
            0 | 1 => self.apply(&Effect::Swap { first, second }),
            2 | 3 => {
                let database = self.keyspace.databases.fresh_id();
                self.apply(&Effect::NewTable { number: first, database });
            }
            _ => self.apply(&Effect::Reset),
        }
    }

    fn cut(&mut self) {
        let expected = state_of(&self.keyspace);
        let mut hold = self.keyspace.hold(SegmentSet::EMPTY, self.keyspace.every_segment());
        let cut = self.keyspace.cut(&mut hold);
        assert_eq!(cut.entries, expected.len());
        self.running = Some(Running { cut, expected, removals: Vec::new(), puts: Vec::new(), done: BTreeSet::new() });
    }

    fn note(running: &mut Running, cut: CutEntry<'_>, keyspace: &Keyspace) {
        assert_eq!(cut.hash, keyspace.hash(cut.entry.key()));
        running.puts.push(((cut.database, cut.entry.key().to_vec()), Kept::of(cut.entry), cut.stored));
    }

    /// Takes a random slice of a random segment. Returns whether all is taken.
    fn take(&mut self) -> bool {
        let segment = self.random.below(self.keyspace.segment_count());
        let entries = [1, 3, 40, 1000][self.random.below(4)];
        let bytes = [1, 4000, 1 << 30][self.random.below(3)];
        let mut running = self.running.take().expect("a checkpoint runs");
        let (keyspace, mut visited) = (&self.keyspace, 0);
        let taken = keyspace.take(segment, TakeLimits { entries, bytes }, &mut |cut| {
            visited += 1;
            World::note(&mut running, cut, keyspace);
        });
        assert!(visited <= entries);
        for handed in &taken.handed {
            handed.iter().for_each(|cut| World::note(&mut running, cut, keyspace));
        }
        running.removals.extend(taken.removals);
        if taken.done {
            running.done.insert(segment);
        }
        let all = running.done.len() == keyspace.segment_count();
        self.running = Some(running);
        if let Some(large) = taken.large {
            self.take_large(large);
        }
        all
    }

    /// Reads a large entry in parts, between other changes.
    fn take_large(&mut self, large: LargeEntry) {
        let (mut value, mut part) = (Vec::new(), vec![0; 100 * 1024]);
        while value.len() < large.value_bytes {
            if self.random.one_in(3) {
                self.change();
            }
            if self.random.one_in(5) {
                let database = large.database;
                if self.exists(database, &large.key) {
                    self.apply(&Effect::Append { database, key: &large.key, bytes: b"more" });
                }
            }
            let Some(len) = self.keyspace.copy_part(&large, value.len(), &mut part) else {
                self.parts_lost += 1;
                return;
            };
            value.extend_from_slice(&part[..len]);
        }
        if self.random.one_in(4) {
            self.change();
        }
        if !self.keyspace.took(&large) {
            self.parts_lost += 1;
            return;
        }
        let LargeEntry { database, key, version, created, expire_at, stored, .. } = large;
        let running = self.running.as_mut().expect("a checkpoint runs");
        running.puts.push(((database, key), Kept { value, version, created, expire_at }, stored));
    }

    fn publish(&mut self, seed: u64) {
        let Running { cut, expected, removals, puts, .. } = self.running.take().expect("a checkpoint runs");
        if cut.reset {
            self.file.clear();
        }
        self.file.retain(|(database, _), _| !cut.dropped.contains(database));
        let hasher = self.keyspace.hasher();
        let mut by_hash: BTreeMap<(DatabaseId, u64, u64), Vec<u8>> = BTreeMap::new();
        for (database, key) in self.file.keys() {
            by_hash.insert((*database, hasher.hash(key), hasher.fingerprint(key)), key.clone());
        }
        for (database, Removal { hash, fingerprint }) in removals {
            let key = by_hash.remove(&(database, hash, fingerprint));
            let key = key.unwrap_or_else(|| panic!("seed {seed}: a removal names a record that is not in the file"));
            self.file.remove(&(database, key));
        }
        let mut put = BTreeSet::new();
        for (key, kept, stored) in puts {
            assert!(put.insert(key.clone()), "seed {seed}: {key:?} was taken twice");
            let before = self.file.insert(key.clone(), kept);
            assert_eq!(before.is_some(), stored, "seed {seed}: {key:?} is in the file or not, as its mark says");
        }
        assert_eq!(cut.entries, self.file.len(), "seed {seed}: the file has as many entries as the cut");
        assert!(self.file == expected, "seed {seed}: the file is the state at the cut");
        self.file_cut = Some(cut);
        self.published += 1;
        self.keyspace.published();
    }

    fn settle(&mut self) {
        let mut settled = BTreeSet::new();
        while settled.len() < self.keyspace.segment_count() {
            let segment = self.random.below(self.keyspace.segment_count());
            if self.keyspace.settle(segment).done {
                settled.insert(segment);
            }
            self.change();
        }
        self.check_counts();
        assert_eq!(self.keyspace.handed_bytes(), 0, "nothing stays handed over");
    }

    fn check_counts(&self) {
        let mut hold = self.keyspace.hold(SegmentSet::EMPTY, self.keyspace.every_segment());
        for segment in self.keyspace.every_segment().iter() {
            let segment = hold.segment_mut(segment);
            for (_, table) in segment.tables.iter_mut().chain(&mut segment.detached) {
                table.check_counts();
            }
        }
    }

    /// A new keyspace from the file: what came after the cut is lost.
    fn restart(&mut self) {
        let Some(cut) = self.file_cut.clone() else { return };
        let keyspace = new_keyspace();
        keyspace.restore_databases(&cut.databases).expect("a map that was written");
        for segment in keyspace.every_segment().iter() {
            let rooms = [(DatabaseId(0), self.random.below(2000))];
            let mut loader = keyspace.loader(segment, &rooms);
            let first = if segment == 0 { 0 } else { keyspace.hash_end(segment - 1).expect("not the last") };
            let range = first..=keyspace.hash_end(segment).map_or(u64::MAX, |end| end - 1);
            for ((database, key), Kept { value, version, created, expire_at }) in &self.file {
                let hash = keyspace.hash(key);
                if range.contains(&hash) {
                    let entry = Entry::new(key, Value::compact(value), *version, *created, *expire_at);
                    loader.add(*database, hash, entry).expect("the file is whole");
                }
            }
            loader.finish().expect("the file is whole");
        }
        assert!(state_of(&keyspace) == self.file, "what was loaded is what is in the file");
        self.keyspace = keyspace;
        self.check_counts();
    }
}

impl super::DatabaseTable {
    /// The counts are those of the marks.
    fn check_counts(&mut self) {
        let (mut dirty, mut cut, now) = (0, 0, self.tracking.generation);
        let mut subtable = 0;
        while self.table.slots_of(subtable).is_some() {
            self.table.set_marks(subtable, |mark| {
                dirty += usize::from(mark.is_dirty(now));
                cut += usize::from(mark.is_cut(now));
                mark
            });
            subtable += 1;
        }
        assert_eq!((self.tracking.dirty(), self.tracking.cut_entries()), (dirty, cut), "counts are those of the marks");
    }
}

/// Many checkpoints over one keyspace. Every tenth or so fails, sometimes before anything is taken.
fn run(seed: u64, keys: Vec<Vec<u8>>, changes_at_once: usize, checkpoints: usize) -> World {
    let mut world = World::new(seed, keys);
    for _ in 0..checkpoints {
        world.shrinking = world.random.one_in(2);
        for _ in 0..world.random.below(changes_at_once * 40) {
            world.change();
        }
        world.cut();
        let fails_after = world.random.one_in(3).then(|| world.random.below(30));
        let mut steps = 0;
        let failed = loop {
            if fails_after.is_some_and(|count| steps >= count) {
                break true;
            }
            if world.take() {
                break fails_after.is_some();
            }
            for _ in 0..world.random.below(changes_at_once) {
                world.change();
            }
            if world.random.one_in(20) {
                world.check_counts();
            }
            steps += 1;
        };
        for _ in 0..world.random.below(changes_at_once) {
            world.change();
        }
        if failed {
            world.running = None;
            world.keyspace.failed();
            world.failed += 1;
        } else {
            world.publish(seed);
        }
        world.settle();
        if world.random.one_in(12) {
            world.restart();
        }
    }
    world
}

fn seeds(count: u64) -> std::ops::Range<u64> {
    match std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 0..count,
    }
}

fn plain_keys(count: u32) -> Vec<Vec<u8>> {
    (0..count).map(|number| format!("key:{number}").into_bytes()).collect()
}

#[test]
fn checkpoints_are_exact_whatever_happens_between_and_during_them() {
    let (mut published, mut failed, mut parts_lost) = (0, 0, 0);
    for seed in seeds(60) {
        let world = run(seed, plain_keys(200), 12, 14);
        published += world.published;
        failed += world.failed;
        parts_lost += world.parts_lost;
    }
    println!("{published} published, {failed} failed, {parts_lost} large entries handed over while they were read");
    assert!(published > 0 && (published < 100 || failed > 100 && parts_lost > 10));
}
