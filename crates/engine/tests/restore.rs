//! A backup is exact at its cut, and a restore gives that state or any later one that the archive leads to.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bowline::blocks::BlockFile;
use bowline::clock::{Clock, OsClock};
use bowline::disk::OsDisk;
use bowline::log::ArchiveOptions;
use bowline::snapshot::{Pace, Snapshot, SnapshotError};
use bowline::{Options, RestoreError, RestoreRequest, Restored, Store, Target, Version, restore};

type Contents = BTreeMap<Vec<u8>, (Vec<u8>, Version)>;

/// A clock that is some hours ahead.
struct Ahead(OsClock, u64);

impl Clock for Ahead {
    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }

    fn wall_ms(&self) -> u64 {
        self.0.wall_ms() + self.1 * 3_600_000
    }
}

/// Directories of one test, and what the clock of stores that are opened says.
struct Place {
    root: tempfile::TempDir,
    hours: Cell<u64>,
}

impl Place {
    fn new() -> Place {
        Place { root: tempfile::tempdir().unwrap(), hours: Cell::new(0) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn options(&self, name: &str) -> Options {
        let mut options = Options::new(self.path(name));
        options.log_file_bytes = 64 << 10;
        options.log_buffer_bytes = 16 << 10;
        options.segments = 8;
        options.clock = Arc::new(Ahead(OsClock::default(), self.hours.get()));
        options.archive = Some(ArchiveOptions { directory: self.path("archive"), keep_for: None, keep_bytes: None });
        options
    }

    fn open(&self, name: &str) -> Store {
        Store::open(self.options(name)).unwrap()
    }

    /// Writes a backup file of a store.
    fn back_up(&self, store: &Store, name: &str) -> Version {
        let snapshot = store.snapshot().unwrap();
        let cut = snapshot.cut();
        fs::write(self.path(name), bytes_of(snapshot)).unwrap();
        cut
    }

    fn restore(&self, snapshot: &str, to: &str, target: Target) -> Result<Restored, RestoreError> {
        let archive = Some(self.path("archive")).filter(|path| path.exists());
        let request = RestoreRequest { snapshot: self.path(snapshot), archive, target };
        restore(&self.options(to), &request, &|_| {})
    }

    /// What a restore gives, to look at: it is opened without the archive.
    fn restored(&self, snapshot: &str, to: &str, target: Target) -> Contents {
        self.restore(snapshot, to, target).unwrap();
        let mut options = self.options(to);
        options.archive = None;
        let store = Store::open(options).unwrap();
        let contents = contents(&store);
        store.close().unwrap();
        contents
    }
}

fn bytes_of(snapshot: Snapshot) -> Vec<u8> {
    let stream = snapshot.stream(Pace::default()).unwrap();
    stream.map(|piece| piece.unwrap()).collect::<Vec<_>>().concat()
}

fn contents(store: &Store) -> Contents {
    store
        .iter()
        .map(|entry| {
            let (key, info) = entry.unwrap();
            (key, (info.value, info.version))
        })
        .collect()
}

/// Waits until the store's clock has moved on.
fn next_millisecond(store: &Store) -> u64 {
    let now = store.now_ms();
    while store.now_ms() == now {
        std::thread::yield_now();
    }
    now
}

#[test]
fn a_backup_taken_under_load_holds_the_state_at_its_cut() {
    let place = Place::new();
    let store = place.open("data");
    let written = std::sync::Mutex::new(Vec::new());
    let stop = AtomicBool::new(false);
    let cut = std::thread::scope(|scope| {
        for thread in 0..3u32 {
            let (store, written, stop) = (&store, &written, &stop);
            scope.spawn(move || {
                for round in 0..u32::MAX {
                    let key = format!("key:{}", (round * 7 + thread) % 211).into_bytes();
                    let value = format!("{thread}:{round}:{}", "x".repeat(round as usize % 300)).into_bytes();
                    let version = store.put(&key, &value).unwrap();
                    written.lock().unwrap().push((version, key, value));
                    if stop.load(Ordering::Relaxed) && round > 300 {
                        break;
                    }
                }
            });
        }
        while written.lock().unwrap().len() < 300 {
            std::thread::yield_now();
        }
        let cut = place.back_up(&store, "backup");
        stop.store(true, Ordering::Relaxed);
        cut
    });
    store.close().unwrap();
    let mut written = written.into_inner().unwrap();
    written.sort();
    assert!(written.last().unwrap().0 > cut, "something was written after the cut");
    let mut expected = Contents::new();
    for (version, key, value) in written.into_iter().filter(|(version, ..)| *version <= cut) {
        expected.insert(key, (value, version));
    }
    fs::remove_dir_all(place.path("archive")).unwrap();
    assert_eq!(place.restored("backup", "restored", Target::Newest), expected);
}

#[test]
fn values_of_every_length_and_kind_come_back() {
    let place = Place::new();
    let store = place.open("data");
    for bytes in [0, 1, 100, 48 << 10, 1 << 20, (1 << 20) + 1, 5 << 20] {
        let value: Vec<u8> = (0..bytes).map(|at: u32| (at * 7 / 3) as u8).collect();
        store.put(format!("bytes:{bytes}").as_bytes(), &value).unwrap();
    }
    for number in [0, -1, 77, i64::MIN, i64::MAX] {
        store.put(format!("number:{number}").as_bytes(), number.to_string().as_bytes()).unwrap();
    }
    store.put(b"", b"the key of no bytes").unwrap();
    store.put_with_lifetime(b"expires", b"later", Duration::from_secs(5000)).unwrap();
    place.back_up(&store, "backup");
    let (before, info) = (contents(&store), store.get_entry(b"expires").unwrap());
    store.close().unwrap();
    place.restore("backup", "restored", Target::Newest).unwrap();
    let store = place.open("restored");
    assert_eq!(contents(&store), before);
    assert_eq!(store.get_entry(b"expires").unwrap(), info);
    store.close().unwrap();
}

#[test]
fn an_empty_store_is_backed_up_and_restored() {
    let place = Place::new();
    let store = place.open("data");
    place.back_up(&store, "backup");
    store.close().unwrap();
    assert!(place.restored("backup", "restored", Target::Newest).is_empty());
}

#[test]
fn a_mistake_is_undone_by_version_and_by_time() {
    let place = Place::new();
    let store = place.open("data");
    for number in 0..200 {
        store.put(format!("early:{number}").as_bytes(), &[b'e'; 300]).unwrap();
    }
    place.back_up(&store, "backup");
    for number in 0..300 {
        store.put(format!("late:{number}").as_bytes(), &[b'l'; 300]).unwrap();
    }
    store.delete(b"early:7").unwrap();
    let before = contents(&store);
    let last = store.put(b"last", b"before the mistake").unwrap();
    let good = contents(&store);
    let good_ms = next_millisecond(&store);
    store.clear().unwrap();
    let after = store.put(b"first", b"after the mistake").unwrap();
    let ruined = contents(&store);
    store.close().unwrap();
    let versions = [(last.0 - 1, &before), (last.0, &good), (after.0 - 1, &Contents::new()), (after.0, &ruined)];
    for (place_number, (version, expected)) in versions.into_iter().enumerate() {
        let to = format!("by-version-{place_number}");
        assert_eq!(&place.restored("backup", &to, Target::Version(Version(version))), expected, "version {version}");
    }
    assert_eq!(place.restored("backup", "by-time", Target::TimeMs(good_ms)), good);
    assert_eq!(place.restored("backup", "newest", Target::Newest), ruined);
}

#[test]
fn an_archived_file_whose_header_has_rotted_is_missed_also_at_the_end() {
    let place = Place::new();
    let store = place.open("data");
    let cut = place.back_up(&store, "backup");
    for number in 0..500 {
        store.put(format!("key:{number}").as_bytes(), &[b'v'; 300]).unwrap();
    }
    store.close().unwrap();
    let mut files: Vec<PathBuf> =
        fs::read_dir(place.path("archive")).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    // The newest, then all of them.
    for (round, rotten) in [&files[files.len() - 1..], &files[..files.len() - 1]].into_iter().enumerate() {
        for path in rotten {
            let mut bytes = fs::read(path).unwrap();
            // Both headers: the newest file may have two that are valid.
            [20, 2048 + 20].into_iter().for_each(|at| bytes[at] ^= 1);
            fs::write(path, bytes).unwrap();
        }
        let error = place.restore("backup", &format!("newest-{round}"), Target::Newest).unwrap_err();
        assert!(error.to_string().contains(rotten[0].to_str().unwrap()), "{error}");
        let until_cut = place.restore("backup", &format!("cut-{round}"), Target::Version(cut)).unwrap();
        assert_eq!(until_cut.version, cut);
    }
}

#[test]
fn a_restored_store_is_another_one_and_goes_on_above_every_version() {
    let place = Place::new();
    let store = place.open("data");
    store.put(b"key", b"1").unwrap();
    let cut = place.back_up(&store, "backup");
    let mut newest = Version::ZERO;
    for round in 0..500 {
        newest = store.put(b"key", format!("{round}").as_bytes()).unwrap();
    }
    let id = store.statistics().recovered.store_id;
    store.close().unwrap();
    let restored = place.restore("backup", "restored", Target::Version(cut)).unwrap();
    assert_eq!((restored.version, restored.cut, restored.entries, restored.records), (cut, cut, 1, 0));
    let file = BlockFile::open(&OsDisk, &place.path("restored").join("store.blocks")).unwrap();
    let superblock = *file.superblock();
    assert_eq!((superblock.parent_store_id, superblock.fork_version), (id, cut));
    assert_eq!(superblock.identity.store_id, restored.store_id.0);
    assert_ne!(superblock.identity.store_id, id);
    drop(file);
    let store = place.open("restored");
    assert_eq!(store.get(b"key").unwrap().as_deref(), Some(&b"1"[..]));
    assert!(store.put(b"key", b"2").unwrap() > newest);
    store.close().unwrap();
    let store = place.open("restored");
    assert_eq!(store.get(b"key").unwrap().as_deref(), Some(&b"2"[..]));
    store.close().unwrap();
}

/// Restore to 10:15 at 12:00, go on, at 14:00 restore to 13:00: the archive holds both pasts.
#[test]
fn of_two_pasts_in_one_archive_the_one_counts_that_was_alive_at_the_target() {
    let place = Place::new();
    let fill = |store: &Store, word: &str| {
        for number in 0..150 {
            store.put(format!("{word}:{number}").as_bytes(), &[b'v'; 700]).unwrap();
        }
        (contents(store), next_millisecond(store))
    };
    let first = place.open("first");
    first.put(b"begin", b"0").unwrap();
    place.back_up(&first, "backup");
    let (at_10_15, ms_10_15) = fill(&first, "common");
    let (at_11_00, ms_11_00) = fill(&first, "mistake");
    first.close().unwrap();
    place.hours.set(2);
    place.restore("backup", "second", Target::TimeMs(ms_10_15)).unwrap();
    let second = place.open("second");
    assert_eq!(contents(&second), at_10_15);
    let (at_13_00, ms_13_00) = fill(&second, "second life");
    assert!(second.delete(b"common:3").unwrap());
    place.back_up(&second, "backup of the second");
    let (at_13_30, _) = fill(&second, "more");
    second.close().unwrap();
    place.hours.set(4);
    assert!(at_13_00.keys().all(|key| !key.starts_with(b"mistake")));
    // From the backup of the first store: through the fork, into the second life.
    assert_eq!(place.restored("backup", "third", Target::TimeMs(ms_13_00)), at_13_00);
    assert_eq!(place.restored("backup", "fourth", Target::TimeMs(ms_11_00)), at_11_00);
    assert_eq!(place.restored("backup", "fifth", Target::TimeMs(ms_10_15)), at_10_15);
    assert_eq!(place.restored("backup", "sixth", Target::Newest), at_13_30);
    assert_eq!(place.restored("backup of the second", "seventh", Target::Newest), at_13_30);
    let error = place.restore("backup of the second", "eighth", Target::TimeMs(ms_13_00)).unwrap_err();
    assert!(matches!(error, RestoreError::BeforeCut { .. }), "{error}");
}

#[test]
fn a_copy_to_look_at_does_not_take_the_place_of_a_store_that_lives_on() {
    let place = Place::new();
    let first = place.open("first");
    first.put(b"begin", b"0").unwrap();
    place.back_up(&first, "backup");
    first.put(b"first", b"1").unwrap();
    first.close().unwrap();
    place.hours.set(2);
    place.restore("backup", "copy", Target::Newest).unwrap();
    let copy = place.open("copy");
    copy.put(b"copy", b"1").unwrap();
    copy.close().unwrap();
    place.hours.set(3);
    let first = place.open("first");
    first.put(b"second", b"1").unwrap();
    let expected = contents(&first);
    first.close().unwrap();
    assert_eq!(place.restored("backup", "newest", Target::Newest), expected);
}

#[test]
fn targets_that_cannot_be_reached_are_refused_with_what_can() {
    let place = Place::new();
    let store = place.open("data");
    let first = store.put(b"a", b"1").unwrap();
    store.put(b"b", b"1").unwrap();
    let cut = place.back_up(&store, "backup");
    let last = store.put(b"c", b"1").unwrap();
    store.close().unwrap();
    let refused = |target| {
        let error = place.restore("backup", "restored", target).unwrap_err();
        // Nothing was made but the lock.
        let names: Vec<_> = fs::read_dir(place.path("restored")).map_or(Vec::new(), |names| names.collect());
        assert!(names.iter().all(|name| name.as_ref().unwrap().file_name() == "lock"), "{names:?}");
        error
    };
    let error = refused(Target::Version(first));
    assert!(matches!(error, RestoreError::BeforeCut { cut: found, .. } if found == cut), "{error}");
    assert!(error.to_string().contains(&format!("version {cut}")), "{error}");
    let error = refused(Target::TimeMs(1000));
    assert!(matches!(error, RestoreError::BeforeCut { .. }), "{error}");
    let error = refused(Target::Version(Version(last.0 + 1)));
    assert!(matches!(error, RestoreError::Beyond { reached, .. } if reached == last), "{error}");
    let error = refused(Target::TimeMs(last.time_ms() + 3_600_000));
    assert!(error.to_string().contains(&format!("version {last}")), "{error}");
    fs::remove_dir_all(place.path("archive")).unwrap();
    let error = refused(Target::Version(last));
    assert!(matches!(error, RestoreError::Beyond { reached, .. } if reached == cut), "{error}");
    assert_eq!(place.restored("backup", "restored", Target::Version(cut)).len(), 2);
}

#[test]
fn a_directory_with_anything_in_it_is_refused() {
    let place = Place::new();
    let store = place.open("data");
    store.put(b"a", b"1").unwrap();
    place.back_up(&store, "backup");
    store.close().unwrap();
    for to in ["data", "other"] {
        fs::create_dir_all(place.path(to)).unwrap();
        fs::write(place.path(to).join("note.txt"), "mine").unwrap();
        let error = place.restore("backup", to, Target::Newest).unwrap_err();
        assert!(matches!(error, RestoreError::NotEmpty { .. }), "{error}");
    }
    assert_eq!(fs::read(place.path("other").join("note.txt")).unwrap(), b"mine");
    let store = place.open("data");
    assert_eq!(contents(&store).len(), 1);
    store.close().unwrap();
}

#[test]
fn a_store_does_not_open_where_a_restore_was_not_finished() {
    let place = Place::new();
    fs::create_dir_all(place.path("data")).unwrap();
    fs::write(place.path("data").join("restore.unfinished"), "").unwrap();
    let error = Store::open(place.options("data")).err().unwrap();
    assert!(matches!(error, bowline::Error::RestoreUnfinished { .. }), "{error}");
    fs::remove_file(place.path("data").join("restore.unfinished")).unwrap();
    place.open("data").close().unwrap();
}

#[test]
fn damage_anywhere_in_a_backup_is_refused_by_name() {
    let place = Place::new();
    let store = place.open("data");
    for number in 0..50 {
        store.put(format!("key:{number}").as_bytes(), &[b'v'; 50]).unwrap();
    }
    place.back_up(&store, "backup");
    store.close().unwrap();
    let whole = fs::read(place.path("backup")).unwrap();
    let step = 37;
    for bit in (0..whole.len() * 8).step_by(step) {
        let mut wrong = whole.clone();
        wrong[bit / 8] ^= 1 << (bit % 8);
        fs::write(place.path("wrong"), &wrong).unwrap();
        let error = place.restore("wrong", "restored", Target::Newest).unwrap_err();
        assert!(error.to_string().contains("wrong"), "bit {bit}: {error}");
        assert!(matches!(error, RestoreError::Snapshot { .. } | RestoreError::BeforeCut { .. }), "bit {bit}: {error}");
    }
    for cut in (0..whole.len()).step_by(101) {
        fs::write(place.path("wrong"), &whole[..cut]).unwrap();
        let error = place.restore("wrong", "restored", Target::Newest).unwrap_err();
        let source = match &error {
            RestoreError::Snapshot { source, .. } => source,
            other => panic!("{other}"),
        };
        assert!(matches!(source, SnapshotError::Incomplete { .. }), "{cut}: {error}");
    }
    assert_eq!(place.restored("backup", "restored", Target::Newest).len(), 50);
}

#[test]
fn a_snapshot_stays_as_it_is_while_new_checkpoints_go_on() {
    let place = Place::new();
    let store = place.open("data");
    for number in 0..500 {
        store.put(format!("key:{number}").as_bytes(), &[b'1'; 200]).unwrap();
    }
    let snapshot = store.snapshot().unwrap();
    let expected = contents(&store);
    for round in 0..5 {
        for number in 0..500 {
            store.put(format!("key:{number}").as_bytes(), &[b'2' + round; 200]).unwrap();
        }
        store.checkpoint().unwrap();
    }
    fs::write(place.path("backup"), bytes_of(snapshot)).unwrap();
    store.close().unwrap();
    fs::remove_dir_all(place.path("archive")).unwrap();
    assert_eq!(place.restored("backup", "restored", Target::Newest), expected);
}

#[test]
fn a_stream_that_nobody_wants_ends_and_lets_the_checkpoint_go() {
    let place = Place::new();
    let store = place.open("data");
    for number in 0..40 {
        store.put(format!("key:{number}").as_bytes(), &vec![b'1'; 300_000]).unwrap();
    }
    let mut stream = store.snapshot().unwrap().stream(Pace { bytes_per_second: Some(1), wake: None }).unwrap();
    assert!(stream.next().unwrap().is_ok());
    drop(stream);
    store.close().unwrap();
}

/// The backup file of format 1 that this release has to read for ever.
#[test]
fn the_golden_backup_is_restored() {
    let place = Place::new();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/snapshot-1.bowline");
    if std::env::var_os("WRITE_GOLDEN").is_some() {
        let store = place.open("data");
        store.put(b"text", b"a value").unwrap();
        store.put(b"number", b"12345").unwrap();
        store.put(b"long", &[b'z'; 2000]).unwrap();
        fs::write(&golden, bytes_of(store.snapshot().unwrap())).unwrap();
        store.close().unwrap();
    }
    fs::copy(&golden, place.path("backup")).unwrap();
    let _ = fs::remove_dir_all(place.path("archive"));
    let contents = place.restored("backup", "restored", Target::Newest);
    let values: Vec<(&[u8], usize)> = contents.iter().map(|(key, (value, _))| (key.as_slice(), value.len())).collect();
    assert_eq!(values, [(&b"long"[..], 2000), (&b"number"[..], 5), (&b"text"[..], 7)]);
}
