//! A checkpoint gives exactly the state at its cut, whatever is written, emptied, moved or taken meanwhile, and whatever
//! became of the checkpoints before it.
//! Method: seeded random changes, cuts, takes, failures, publications and restarts from the file; the file is a map that
//! refuses a removal or a replacement of what it has not got, and an addition of what it has.
//! Replay: SEED=<n> cargo test -p bowline --lib keyspace::tests

use super::checkpoint::{Cut, CutEntry, LargeEntry, Removal, TakeLimits};
use super::entry::{CHUNKED_FROM, Entry, EntryRef, Value};
use super::value::KeptValue;
use super::{DatabaseId, Keyspace, SegmentSet};
use crate::apply::{Freed, apply_to_key, apply_to_many};
use crate::effect::Effect;
use crate::version::Version;
use bowline_resp::Bulk;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

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
    changed_while_taken: usize,
}

fn new_keyspace() -> Keyspace {
    Keyspace::new(4, HASH_SEED, 0)
}

impl Running {
    /// The file after this checkpoint, which must be the state at its cut.
    fn written_to(self, mut file: State, keyspace: &Keyspace, seed: u64) -> State {
        let Running { cut, expected, removals, puts, .. } = self;
        if cut.reset {
            file.clear();
        }
        file.retain(|(database, _), _| !cut.dropped.contains(database));
        let hasher = keyspace.hasher();
        let name = |(database, key): &Key| (*database, hasher.hash(key), hasher.fingerprint(key));
        let mut by_hash: BTreeMap<_, Key> = file.keys().map(|key| (name(key), key.clone())).collect();
        for (database, Removal { hash, fingerprint }) in removals {
            let key = by_hash.remove(&(database, hash, fingerprint));
            let key = key.unwrap_or_else(|| panic!("seed {seed}: a removal names a record that is not in the file"));
            file.remove(&key);
        }
        let mut put = BTreeSet::new();
        for (key, kept, stored) in puts {
            assert!(put.insert(key.clone()), "seed {seed}: {key:?} was taken twice");
            let before = file.insert(key.clone(), kept);
            assert_eq!(before.is_some(), stored, "seed {seed}: {key:?} is in the file or not, as its mark says");
        }
        assert_eq!(cut.entries, file.len(), "seed {seed}: the file has as many entries as the cut");
        assert!(file == expected, "seed {seed}: the file is the state at the cut");
        file
    }
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
            changed_while_taken: 0,
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
        let bytes = Bulk::Bytes(&[b'x'; 9]);
        match self.random.below(5) {
            _ if removes => self.apply(&Effect::Delete { database, key: &key }),
            0 => self.apply(&Effect::Expire { database, key: &key, expire_at }),
            1 => self.apply(&Effect::Append { database, key: &key, bytes }),
            2 => {
                // Mostly at the front; at times in the middle of what is long, or far beyond the end.
                let offset = if self.random.one_in(12) { self.random.below(300 * 1024) as u32 } else { 3 };
                self.apply(&Effect::SetRange { database, key: &key, offset, bytes });
            }
            3 => self.copy(database, &key),
            _ => {
                let to_key = if number != other && self.random.one_in(2) { key.clone() } else { self.key() };
                let to_database = self.keyspace.databases.id(other);
                if (database, &key) != (to_database, &to_key) {
                    self.apply(&Effect::Move { database, key: &key, to_database, to_key: &to_key });
                }
            }
        }
    }

    /// What COPY does: another key gets the value, and shares its chunks.
    fn copy(&mut self, database: DatabaseId, key: &[u8]) {
        let kept = {
            let hash = self.keyspace.hash(key);
            let segment = self.keyspace.segment_of(hash);
            let hold = self.keyspace.hold(SegmentSet::one(segment), SegmentSet::EMPTY);
            let entry = hold.table(segment, database).and_then(|table| table.find(hash, key));
            KeptValue::of(entry.expect("it exists").value())
        };
        let to_key = self.key();
        self.apply(&Effect::Put { database, key: &to_key, value: kept.value(), expire_at: None });
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
        taken.large.into_iter().for_each(|large| self.take_large(large));
        all
    }

    /// Writes a large entry chunk by chunk, between changes of it and of others.
    fn take_large(&mut self, large: LargeEntry) {
        let LargeEntry { database, key, version, created, expire_at, value: chunks, stored, .. } = large;
        let mut value = Vec::new();
        for chunk in chunks.iter() {
            if self.random.one_in(3) {
                self.change();
            }
            if self.random.one_in(3) && self.exists(database, &key) {
                let offset = self.random.below(chunks.len() + 10) as u32;
                self.apply(&Effect::SetRange { database, key: &key, offset, bytes: Bulk::Bytes(b"written meanwhile") });
                self.changed_while_taken += 1;
            }
            value.extend_from_slice(chunk);
        }
        let running = self.running.as_mut().expect("a checkpoint runs");
        running.puts.push(((database, key), Kept { value, version, created, expire_at }, stored));
    }

    fn publish(&mut self, seed: u64) {
        let running = self.running.take().expect("a checkpoint runs");
        self.file_cut = Some(running.cut.clone());
        self.file = running.written_to(std::mem::take(&mut self.file), &self.keyspace, seed);
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
        // Emptied tables count what they were handed until they are dropped.
        self.freed = Freed::default();
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
        match world.random.below(24) {
            0 | 1 => world.restart(),
            2 => world.keyspace.forget_file(),
            _ => {}
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
    let (mut published, mut failed, mut changed_while_taken) = (0, 0, 0);
    for seed in seeds(60) {
        let world = run(seed, plain_keys(200), 12, 14);
        published += world.published;
        failed += world.failed;
        changed_while_taken += world.changed_while_taken;
    }
    println!(
        "{published} published, {failed} failed, {changed_while_taken} changes of large entries while they were written"
    );
    assert!(published > 0 && (published < 100 || failed > 100 && changed_while_taken > 10));
}

#[test]
fn checkpoints_are_exact_while_tables_grow_by_splits_and_would_shrink_by_joins() {
    for seed in seeds(6) {
        run(seed, plain_keys(9000), 1500, 8);
    }
}

#[test]
fn checkpoints_are_exact_for_keys_that_look_alike_in_their_slots() {
    let keyspace = new_keyspace();
    let tag = |key: &[u8]| (keyspace.segment_of(keyspace.hash(key)), keyspace.hash(key) >> 32 & 0xffff);
    let wanted = tag(b"key:0");
    let alike = (0u32..).map(|number| format!("key:{number}").into_bytes()).filter(|key| tag(key) == wanted);
    let keys: Vec<Vec<u8>> = alike.take(12).collect();
    for seed in seeds(20) {
        run(seed, keys.clone(), 6, 14);
    }
}

/// A keyspace with one database, changed as replay does.
struct Small {
    keyspace: Keyspace,
    version: u64,
}

const ZERO: DatabaseId = DatabaseId(0);

impl Small {
    fn new() -> Small {
        Small { keyspace: new_keyspace(), version: 1 << 32 }
    }

    fn apply(&mut self, effect: &Effect<'_>) {
        self.version += 1;
        apply_one(&self.keyspace, effect, Version(self.version));
    }

    fn put(&mut self, key: &str, value: &str) {
        let (key, value) = (key.as_bytes(), Value::compact(value.as_bytes()));
        self.apply(&Effect::Put { database: ZERO, key, value, expire_at: None });
    }

    fn delete(&mut self, key: &str) {
        self.apply(&Effect::Delete { database: ZERO, key: key.as_bytes() });
    }

    fn cut(&self) -> Cut {
        self.keyspace.cut(&mut self.keyspace.hold(SegmentSet::EMPTY, self.keyspace.every_segment()))
    }

    /// Takes one segment, or all that is left: entries as `key=value`, with a `+` in front where they are not stored, then
    /// the number of removals.
    fn take(&self, segments: SegmentSet) -> (Vec<String>, usize) {
        let (mut entries, mut removals) = (Vec::new(), 0);
        let text = |cut: CutEntry<'_>| {
            let new = if cut.stored { "" } else { "+" };
            let (key, value) = (cut.entry.key().escape_ascii(), cut.entry.value().to_vec());
            format!("{new}{key}={}", value.escape_ascii())
        };
        for segment in segments.iter() {
            let limits = TakeLimits { entries: 100, bytes: 1 << 20 };
            let mut done = false;
            while !done {
                let taken = self.keyspace.take(segment, limits, &mut |cut| entries.push(text(cut)));
                entries.extend(taken.handed.iter().flat_map(|handed| handed.iter()).map(text));
                entries.extend(taken.large.iter().map(|large| {
                    let new = if large.stored { "" } else { "+" };
                    format!("{new}{}={}", large.key.escape_ascii(), large.value.to_vec().escape_ascii())
                }));
                removals += taken.removals.len();
                done = taken.done;
            }
        }
        entries.sort();
        (entries, removals)
    }

    fn take_all(&self) -> (Vec<String>, usize) {
        self.take(self.keyspace.every_segment())
    }

    fn segment_of(&self, key: &str) -> usize {
        self.keyspace.segment_of(self.keyspace.hash(key.as_bytes()))
    }

    fn settle(&self) {
        for segment in self.keyspace.every_segment().iter() {
            while !self.keyspace.settle(segment).done {}
        }
    }

    fn publish(&self) {
        self.keyspace.published();
        self.settle();
    }

    fn fail(&self) {
        self.keyspace.failed();
        self.settle();
    }

    /// A whole checkpoint.
    fn checkpoint(&self) -> (Vec<String>, usize) {
        self.cut();
        let taken = self.take_all();
        self.publish();
        taken
    }
}

fn apply_one(keyspace: &Keyspace, effect: &Effect<'_>, version: Version) {
    let mut hold = keyspace.hold(SegmentSet::EMPTY, keyspace.every_segment());
    let freed = &mut Freed::default();
    let applied = match effect.single_key() {
        Some(key) => apply_to_key(&mut hold, keyspace.hash(key), effect, version, freed),
        None => apply_to_many(&mut hold, effect, version, freed),
    };
    applied.expect("it fits");
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

#[test]
fn only_what_changed_is_taken() {
    let mut small = Small::new();
    small.put("a", "1");
    small.put("b", "2");
    assert_eq!(small.checkpoint(), (strings(&["+a=1", "+b=2"]), 0));
    assert_eq!(small.checkpoint(), (strings(&[]), 0));
    small.put("b", "3");
    assert_eq!(small.checkpoint(), (strings(&["b=3"]), 0));
}

#[test]
fn what_a_failed_checkpoint_took_is_taken_by_the_next() {
    let mut small = Small::new();
    small.put("a", "1");
    small.put("b", "2");
    small.checkpoint();
    small.put("a", "3");
    small.put("c", "4");
    small.delete("b");
    small.cut();
    assert_eq!(small.take_all(), (strings(&["+c=4", "a=3"]), 1));
    small.put("c", "5");
    small.fail();
    assert_eq!(small.checkpoint(), (strings(&["+c=5", "a=3"]), 1));
}

#[test]
fn a_file_that_is_given_up_is_written_anew() {
    let mut small = Small::new();
    small.put("a", "1");
    small.put("b", "2");
    small.put("c", "3");
    small.checkpoint();
    small.put("b", "4");
    small.delete("c");
    small.keyspace.forget_file();
    assert_eq!(small.keyspace.removal_bytes(), 0);
    assert!(small.cut().reset);
    assert_eq!(small.take_all(), (strings(&["+a=1", "+b=4"]), 0));
    small.publish();
    assert!(!small.cut().reset);
}

#[test]
fn a_key_renamed_between_two_takes_is_taken_once_and_as_it_was() {
    let mut small = Small::new();
    let elsewhere = (0..100).map(|number| format!("b{number}"));
    let b = elsewhere.into_iter().find(|b| small.segment_of(b) != small.segment_of("a")).expect("another segment");
    small.put("a", "old");
    small.cut();
    assert_eq!(small.take(SegmentSet::one(small.segment_of(&b))).0, strings(&[]));
    small.apply(&Effect::Move { database: ZERO, key: b"a", to_database: ZERO, to_key: b.as_bytes() });
    assert_eq!(small.take_all(), (strings(&["+a=old"]), 0));
    small.publish();
    assert_eq!(small.checkpoint(), (vec![format!("+{b}=old")], 1));
}

#[test]
fn a_database_emptied_before_it_is_taken_is_taken_and_then_dropped() {
    let mut small = Small::new();
    small.put("a", "1");
    small.put("b", "2");
    small.cut();
    let emptied = small.keyspace.databases.fresh_id();
    small.apply(&Effect::NewTable { number: 0, database: emptied });
    assert_eq!(small.take_all(), (strings(&["+a=1", "+b=2"]), 0));
    small.publish();
    let cut = small.cut();
    assert_eq!((cut.dropped, cut.databases.exchanged, cut.entries), (vec![ZERO], vec![(0, emptied)], 0));
    assert_eq!(small.take_all(), (strings(&[]), 0));
    small.publish();
    assert_eq!(small.cut().dropped, []);
}

#[test]
fn keys_written_anew_after_everything_was_emptied_are_not_those_of_the_cut() {
    let mut small = Small::new();
    small.put("a", "1");
    small.checkpoint();
    small.put("a", "2");
    assert!(!small.cut().reset);
    small.apply(&Effect::Reset);
    small.put("a", "3");
    assert_eq!(small.take_all(), (strings(&["a=2"]), 0));
    small.fail();
    assert!(small.cut().reset, "the reset is told to the next checkpoint");
    assert_eq!(small.take_all(), (strings(&["+a=3"]), 0));
    small.fail();
    assert!(small.cut().reset, "and to the one after that, when it fails");
    assert_eq!(small.take_all(), (strings(&["+a=3"]), 0));
    small.publish();
    assert!(!small.cut().reset);
}

#[test]
fn a_database_dropped_before_everything_was_emptied_is_not_dropped_after_it() {
    let mut small = Small::new();
    small.put("a", "1");
    small.checkpoint();
    small.apply(&Effect::NewTable { number: 0, database: small.keyspace.databases.fresh_id() });
    assert_eq!(small.cut().dropped, [ZERO]);
    small.apply(&Effect::Reset);
    small.put("a", "2");
    small.fail();
    let cut = small.cut();
    assert_eq!((cut.reset, cut.dropped), (true, vec![]), "the id has entries again");
}

#[test]
fn a_large_entry_is_taken_as_it_was_by_sharing_its_chunks() {
    let mut small = Small::new();
    let value: String = ('a'..='z').cycle().take(600_000).collect();
    small.put("key", &value);
    small.cut();
    let all = TakeLimits { entries: usize::MAX, bytes: usize::MAX };
    let before = small.keyspace.bytes();
    let taken = small.keyspace.take(small.segment_of("key"), all, &mut |_| unreachable!("it is large"));
    let [large] = &taken.large[..] else { panic!("one large entry") };
    assert_eq!((large.value.len(), large.stored), (600_000, false));
    small.apply(&Effect::SetRange { database: ZERO, key: b"key", offset: 70_000, bytes: Bulk::Bytes(b"!") });
    assert_eq!(small.keyspace.handed_bytes(), CHUNKED_FROM, "one chunk was copied");
    small.take_all();
    small.apply(&Effect::SetRange { database: ZERO, key: b"key", offset: 0, bytes: Bulk::Bytes(b"!") });
    assert_eq!(small.keyspace.handed_bytes(), 0, "the checkpoint has written it");
    small.apply(&Effect::Delete { database: ZERO, key: b"key" });
    assert!(large.value == *value.as_bytes() && before > 600_000);
    assert_eq!((small.take_all().0, small.keyspace.handed_bytes()), (vec![], 0), "it comes once");
}

#[test]
fn a_large_entry_that_is_changed_before_it_is_taken_is_handed_over_without_a_copy() {
    let mut small = Small::new();
    let value: String = ('a'..='z').cycle().take(600_000).collect();
    small.put("key", &value);
    small.cut();
    small.apply(&Effect::Append { database: ZERO, key: b"key", bytes: Bulk::Bytes(b"!") });
    assert!((10_000..80_000).contains(&small.keyspace.handed_bytes()), "{}", small.keyspace.handed_bytes());
    assert!(small.take_all().0 == [format!("+key={value}")], "as it was");
    small.fail();
    small.cut();
    assert!(small.take_all().0 == [format!("+key={value}!")]);
}

#[test]
fn keys_that_come_and_go_between_two_cuts_leave_nothing_to_remember() {
    let mut small = Small::new();
    small.put("stays", "1");
    small.checkpoint();
    for number in 0..5000 {
        small.put(&format!("key:{number}"), "1");
        small.delete(&format!("key:{number}"));
        small.delete("stays");
        small.put("stays", "2");
    }
    assert_eq!(small.checkpoint(), (strings(&["+stays=2"]), 1));
    assert_eq!((small.keyspace.removal_bytes(), small.keyspace.handed_bytes()), (0, 0));
}

#[test]
fn a_key_written_anew_while_the_checkpoint_that_has_it_fails_is_no_replacement() {
    let mut small = Small::new();
    small.put("a", "1");
    small.cut();
    assert_eq!(small.take_all().0, strings(&["+a=1"]));
    small.delete("a");
    small.put("a", "2");
    small.fail();
    assert_eq!(small.checkpoint(), (strings(&["+a=2"]), 0), "the file never had it");
    small.put("a", "3");
    small.cut();
    assert_eq!(small.take_all().0, strings(&["a=3"]));
    small.delete("a");
    small.put("a", "4");
    small.publish();
    assert_eq!(small.checkpoint(), (strings(&["+a=4"]), 1), "the file has the old one, which goes");
}

#[test]
fn a_slice_is_bounded_and_what_was_handed_over_is_counted_until_it_is_dropped() {
    let mut small = Small::new();
    (0..3000).for_each(|number| small.put(&format!("key:{number}"), "0123456789"));
    small.cut();
    let (mut visited, mut bytes) = (0, 0);
    let taken = small.keyspace.take(0, TakeLimits { entries: 50, bytes: 400 }, &mut |cut| {
        visited += 1;
        bytes += cut.entry.allocated_bytes();
    });
    assert!(visited < 50 && bytes < 450 && !taken.done, "{visited} entries, {bytes} bytes");
    (0..3000).for_each(|number| small.put(&format!("key:{number}"), "9876543210"));
    let handed = small.keyspace.handed_bytes();
    assert!(handed >= (3000 - visited) * 40, "{handed} bytes");
    let all: Vec<_> = small.keyspace.every_segment().iter().collect();
    let kept: Vec<_> = all
        .iter()
        .map(|segment| small.keyspace.take(*segment, TakeLimits { entries: 1, bytes: 1 }, &mut |_| unreachable!()))
        .collect();
    assert!(kept.iter().all(|taken| taken.done));
    assert_eq!(small.keyspace.handed_bytes(), handed, "they are in memory still");
    drop(kept);
    assert_eq!(small.keyspace.handed_bytes(), 0);
}

#[test]
fn a_table_is_not_joined_behind_the_pass() {
    let mut small = Small::new();
    let keys: Vec<String> = (0..30_000).map(|number| format!("key:{number}")).collect();
    keys.iter().for_each(|key| small.put(key, "1"));
    small.cut();
    let mut taken = 0;
    for segment in small.keyspace.every_segment().iter() {
        // About half of the subtables.
        for _ in 0..37 {
            small.keyspace.take(segment, TakeLimits { entries: 100, bytes: 1 << 20 }, &mut |_| taken += 1);
        }
    }
    assert!((10_000..20_000).contains(&taken));
    let (gone, stay) = keys.split_at(29_500);
    gone.iter().for_each(|key| small.delete(key));
    let rest = small.take_all().0;
    assert_eq!(taken + rest.len(), 30_000);
    small.publish();
    assert_eq!(small.checkpoint(), (strings(&[]), 29_500), "what stayed was taken");
    stay.iter().for_each(|key| small.delete(key));
    assert_eq!(small.checkpoint().1, 500);
    let hold = small.keyspace.hold(SegmentSet::one(0), SegmentSet::EMPTY);
    let table = hold.table(0, ZERO).expect("there was one").entries();
    assert!(table.table_bytes() < 8 * 1024, "joins go on afterwards: {} bytes", table.table_bytes());
}

#[test]
fn a_file_that_holds_a_key_twice_or_in_a_wrong_place_is_not_loaded() {
    let keyspace = new_keyspace();
    let hash = keyspace.hash(b"a");
    let entry = || Entry::new(b"a", Value::Integer(1), Version(9), 0, None);
    let mut loader = keyspace.loader(keyspace.segment_of(hash), &[]);
    assert!(loader.add(ZERO, hash ^ 1 << 63, entry()).is_err());
    loader.add(ZERO, hash, entry()).expect("it waits");
    loader.add(ZERO, hash, entry()).expect("it waits");
    assert!(loader.finish().is_err());
    let databases = super::DatabaseIds { exchanged: vec![(0, DatabaseId(1))], next: 2000 };
    assert!(keyspace.restore_databases(&databases).is_err(), "two numbers stand for one id");
}

#[test]
fn what_was_being_loaded_when_everything_was_emptied_stays_out() {
    let keyspace = new_keyspace();
    keyspace.await_segments([(ZERO, 2), (DatabaseId(1), 0)]);
    assert_eq!(keyspace.entries_to_come(), [(ZERO, 2)]);
    let entry = || Entry::new(b"a", Value::Integer(1), Version(9), 0, None);
    let (hash, mut freed) = (keyspace.hash(b"a"), Freed::default());
    let mut loader = keyspace.loader(keyspace.segment_of(hash), &[]);
    loader.add(ZERO, hash, entry()).expect("it waits");
    let mut hold = keyspace.hold(SegmentSet::EMPTY, keyspace.every_segment());
    apply_to_many(&mut hold, &Effect::Reset, Version(10), &mut freed).expect("a reset");
    let put = Effect::Put { database: ZERO, key: b"a", value: Value::Bytes(b"new"), expire_at: None };
    apply_to_key(&mut hold, hash, &put, Version(11), &mut freed).expect("a put");
    drop(hold);
    assert!(keyspace.all_loaded() && keyspace.entries_to_come().is_empty());
    let loaded = loader.finish_if(|cold| cold == 0).expect("nothing is put in");
    assert!(loaded);
    assert_eq!(state_of(&keyspace).len(), 1);
    let hold = keyspace.hold(keyspace.every_segment(), SegmentSet::EMPTY);
    let found = hold.table(keyspace.segment_of(hash), ZERO).and_then(|table| table.find(hash, b"a"));
    assert_eq!(found.map(|entry| entry.version()), Some(Version(11)));
}

/// Ends the writers, also when the test fails.
struct StopsAtEnd<'a>(&'a AtomicBool);

impl Drop for StopsAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Puts and deletes from several threads, for as long as they are wanted.
fn write_for_ever(keyspace: &Keyspace, version: &AtomicU64, stop: &AtomicBool, seed: u64) {
    let mut random = Random(seed);
    while !stop.load(Ordering::Relaxed) {
        let key = format!("key:{}", random.below(5000));
        let (hash, value) = (keyspace.hash(key.as_bytes()), [random.next() as u8; 30]);
        let segment = keyspace.segment_of(hash);
        let mut hold = keyspace.hold(SegmentSet::EMPTY, SegmentSet::one(segment));
        let version = Version(version.fetch_add(1, Ordering::SeqCst));
        let there = hold.table(segment, ZERO).is_some_and(|table| table.find(hash, key.as_bytes()).is_some());
        let (database, key) = (ZERO, key.as_bytes());
        let effect = match there && random.one_in(3) {
            true => Effect::Delete { database, key },
            false => Effect::Put { database, key, value: Value::Bytes(&value), expire_at: None },
        };
        apply_to_key(&mut hold, hash, &effect, version, &mut Freed::default()).expect("it fits");
    }
}

#[test]
fn checkpoints_are_exact_while_several_threads_write() {
    let (keyspace, version, stop) = (&new_keyspace(), &AtomicU64::new(1 << 32), &AtomicBool::new(false));
    std::thread::scope(|scope| {
        for seed in 0..2 {
            scope.spawn(move || write_for_ever(keyspace, version, stop, seed));
        }
        let _stops_them = StopsAtEnd(stop);
        let mut file = State::new();
        for round in 0..40 {
            file = checkpoint_under_writers(keyspace, file, round);
        }
    });
}

/// A whole checkpoint while others write, every third of which fails; returns the file after it.
fn checkpoint_under_writers(keyspace: &Keyspace, file: State, round: usize) -> State {
    let (cut, expected) = {
        let mut hold = keyspace.hold(SegmentSet::EMPTY, keyspace.every_segment());
        let cut = keyspace.cut(&mut hold);
        let tables = keyspace.every_segment();
        let tables = tables.iter().filter_map(|segment| hold.table(segment, ZERO));
        let entries = tables.flat_map(|table| table.entries().iter());
        (cut, entries.map(|entry| ((ZERO, entry.key().to_vec()), Kept::of(entry))).collect::<State>())
    };
    let mut running = Running { cut, expected, removals: Vec::new(), puts: Vec::new(), done: BTreeSet::new() };
    for segment in keyspace.every_segment().iter() {
        let mut done = false;
        while !done {
            let limits = TakeLimits { entries: 20, bytes: 1 << 20 };
            let taken = keyspace.take(segment, limits, &mut |cut| World::note(&mut running, cut, keyspace));
            for handed in &taken.handed {
                handed.iter().for_each(|cut| World::note(&mut running, cut, keyspace));
            }
            running.removals.extend(taken.removals);
            done = taken.done;
        }
    }
    let published = !round.is_multiple_of(3);
    let file = if published { running.written_to(file, keyspace, round as u64) } else { file };
    if published {
        keyspace.published()
    } else {
        keyspace.failed()
    }
    for segment in keyspace.every_segment().iter() {
        while !keyspace.settle(segment).done {}
    }
    file
}
