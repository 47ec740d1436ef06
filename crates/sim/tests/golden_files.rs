//! Files that a release has written are read for ever: log, block file and archive of format 1, checked in as they were
//! made. (Backups have theirs in `crates/engine` and `crates/snapshot`, RDBs in `crates/rdb`.)
//!
//! A golden file is text: `file PATH LENGTH` begins a file, a line of an offset and bytes in hexadecimal fills a part of
//! it; the rest is zeros. Never edit them; a new format gets new ones:
//! `cargo test -p bowline-sim --test golden_files -- --ignored` writes those of the present format where none are.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bowline::blocks::{BlockFile, Compression};
use bowline::clock::Clock;
use bowline::disk::Disk;
use bowline::effect::Effect;
use bowline::log::ArchiveOptions;
use bowline::log::archive::{Archive, ArchiveError, Limit, ReplayFrom, ReplayRequest, StoreId};
use bowline::{Error, Options, Version, check_store, inspect_block_file};
use bowline_sim::clock::SimClock;
use bowline_sim::disk::SimDisk;
use bowline_sim::store_machine::{self, DIRECTORY, StoreMachine};

const NOW_MS: u64 = 1_800_000_000_000;
const ARCHIVE: &str = "/archive";
/// The store of the golden archive.
const STORE_ID: &str = "12a1ffffffffffffffffffffffffffff";
/// Zeros that end a part.
const GAP: usize = 24;
/// Where every file has the checksum of its head, its format, and the head's length.
const CRC_AT: usize = 8;
const FORMAT_AT: usize = 12;
const LENGTH_AT: usize = 14;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn options(disk: &SimDisk, clock: &SimClock) -> Options {
    let mut options = store_machine::options(Arc::new(disk.clone()), clock);
    options.archive = Some(ArchiveOptions { directory: ARCHIVE.into(), keep_for: None, keep_bytes: None });
    options.log_file_bytes = 16 * 1024;
    options.log_buffer_bytes = 4 * 1024;
    options
}

fn open(disk: &SimDisk, clock: &SimClock) -> Result<StoreMachine, Error> {
    StoreMachine::open_with(options(disk, clock), disk, clock)
}

/// The files of a disk as text.
fn text_of(disk: &SimDisk, wanted: impl Fn(&Path) -> bool) -> String {
    let mut text = String::new();
    for path in disk.paths().into_iter().filter(|path| wanted(path)) {
        let bytes = disk.contents(&path);
        writeln!(text, "file {} {}", path.display(), bytes.len()).expect("a String takes it");
        let mut at = 0;
        while let Some(start) = bytes[at..].iter().position(|byte| *byte != 0).map(|place| at + place) {
            let rest = &bytes[start..];
            let is_end = |place: &usize| rest[*place..].iter().take(GAP).all(|byte| *byte == 0);
            let end = start + (0..rest.len()).find(is_end).unwrap_or(rest.len());
            for (line, part) in bytes[start..end].chunks(64).enumerate() {
                let hex: String = part.iter().map(|byte| format!("{byte:02x}")).collect();
                writeln!(text, "{:08x} {hex}", start + line * 64).expect("a String takes it");
            }
            at = end;
        }
    }
    text
}

/// A disk with the files of a golden text.
fn disk_of(name: &str) -> SimDisk {
    let text = std::fs::read_to_string(golden(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let disk = SimDisk::new(1);
    let mut file = None;
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["file", path, length] => {
                let path = Path::new(path);
                disk.create_directory(path.parent().expect("a directory")).expect("made");
                let made = disk.create(path).expect("made");
                made.resize(length.parse().expect("a length")).expect("resized");
                file = Some(made);
            }
            [offset, hex] => {
                let byte = |place: usize| u8::from_str_radix(&hex[place..place + 2], 16).expect("hexadecimal");
                let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
                let offset = u64::from_str_radix(offset, 16).expect("an offset");
                file.as_ref().expect("a file").write_all_at(&bytes, offset).expect("written");
            }
            _ => panic!("{name}: {line:?} is no line of a golden file"),
        }
    }
    disk
}

/// A value that is long and takes little room in the golden file.
fn long() -> Vec<u8> {
    let mut value = vec![0; 150_000];
    (value[0], value[70_000], value[149_999]) = (b'<', b'|', b'>');
    value
}

/// A value like its neighbours, of 4 KiB: 64 of them are what a dictionary is trained on.
fn row(number: usize) -> Vec<u8> {
    let field =
        |line: usize, place: usize| format!("\"field-{:x}\":{},", place * place * 7919, (number + line * place) % 3);
    let mut text: String = (0..6).flat_map(|line| (0..48).map(move |place| field(line, place))).collect();
    text.truncate(4096);
    text.into_bytes()
}

const ROWS: usize = 80;

/// A value of several chunks whose parts become smaller.
fn long_text() -> Vec<u8> {
    (0..60).flat_map(row).collect()
}

/// The values of the compressed golden file, each with how checkpoints compressed when it was put.
fn compressed_values() -> Vec<(Compression, Vec<u8>, Vec<u8>)> {
    let zstd = Compression::Zstd { level: 3 };
    let named = |name: &str| name.as_bytes().to_vec();
    let mut values: Vec<_> =
        (0..ROWS).map(|number| (zstd, format!("row {number}").into_bytes(), row(number))).collect();
    values.push((zstd, named("long, zstd"), long_text()));
    values.push((Compression::Lz4, named("lz4"), row(1000)));
    values.push((Compression::Lz4, named("long, lz4"), long_text()));
    values.push((Compression::None, named("plain"), row(1001)));
    values.push((Compression::None, named("long"), long()));
    // The log needs another file for it, and then none of those before.
    values.push((Compression::None, named("zeros"), vec![0; 300_000]));
    values
}

fn assert_compressed_values(machine: &mut StoreMachine) {
    for (_, key, value) in compressed_values() {
        let reply = [format!("${}\r\n", value.len()).as_bytes(), &value, b"\r\n"].concat();
        assert!(machine.call(&[b"GET", &key]) == reply, "{}", key.escape_ascii());
    }
    assert_eq!(machine.call(&[b"DBSIZE"]), format!(":{}\r\n", compressed_values().len()).into_bytes());
}

/// Writes what the golden files hold, with every kind of effect.
fn fill(machine: &mut StoreMachine, clock: &SimClock) {
    let expiry = (NOW_MS + 10_000_000).to_string();
    let commands: &[(usize, &[&[u8]])] = &[
        (0, &[b"SET", b"before", b"the reset"]),
        (0, &[b"FLUSHALL"]),
        (0, &[b"SET", b"text", b"a value"]),
        (0, &[b"SET", b"number", b"-12345"]),
        (0, &[b"SET", b"expires", b"later", b"PXAT", expiry.as_bytes()]),
        (0, &[b"SET", b"persists", b"1", b"PXAT", expiry.as_bytes()]),
        (0, &[b"PERSIST", b"persists"]),
        (0, &[b"APPEND", b"text", b", longer"]),
        (0, &[b"SETRANGE", b"text", b"2", b"VALUE"]),
        (0, &[b"SET", b"old name", b"moved"]),
        (0, &[b"RENAME", b"old name", b"new name"]),
        (0, &[b"SET", b"gone", b"x"]),
        (0, &[b"DEL", b"gone"]),
        (1, &[b"SET", b"flushed", b"x"]),
        (1, &[b"FLUSHDB"]),
        (1, &[b"SET", b"in one", b"11"]),
        (2, &[b"SET", b"in two", b"22"]),
        (0, &[b"SWAPDB", b"1", b"2"]),
    ];
    for (number, words) in commands {
        let (_, version) = machine.ask(*number, words, bowline::Durability::Always);
        assert!(machine.commit_up_to(version));
        clock.advance(std::time::Duration::from_millis(1));
    }
}

fn call(machine: &mut StoreMachine, number: usize, words: &[&[u8]]) -> Vec<u8> {
    machine.ask(number, words, bowline::Durability::Always).0
}

/// Compares what a store shows with what `fill` wrote, and that nothing else is there.
fn assert_filled(machine: &mut StoreMachine, more: &[(&[u8], &[u8])]) {
    let expected: &[(usize, &[u8], &[u8])] = &[
        (0, b"text", b"a VALUE, longer"),
        (0, b"number", b"-12345"),
        (0, b"expires", b"later"),
        (0, b"persists", b"1"),
        (0, b"new name", b"moved"),
        (1, b"in two", b"22"),
        (2, b"in one", b"11"),
    ];
    let more = more.iter().map(|(key, value)| (0, *key, *value));
    let all: Vec<(usize, &[u8], &[u8])> = expected.iter().copied().chain(more).collect();
    for (number, key, value) in &all {
        let reply = [format!("${}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat();
        assert!(call(machine, *number, &[b"GET", key]) == reply, "{} in {number}", key.escape_ascii());
    }
    for number in 0..3 {
        let count = all.iter().filter(|(of, ..)| *of == number).count();
        assert_eq!(call(machine, number, &[b"DBSIZE"]), format!(":{count}\r\n").into_bytes(), "database {number}");
    }
    let expiry = format!(":{}\r\n", NOW_MS + 10_000_000).into_bytes();
    assert_eq!(call(machine, 0, &[b"PEXPIRETIME", b"expires"]), expiry);
    assert_eq!(call(machine, 0, &[b"PEXPIRETIME", b"persists"]), b":-1\r\n");
}

fn is_of_store(path: &Path) -> bool {
    path.starts_with(DIRECTORY) && !path.ends_with("lock")
}

#[test]
#[ignore = "writes the golden files of the present format where there are none"]
fn write_golden_files() {
    let write = |name: &str, text: String| {
        let path = golden(name);
        // Golden files are never written anew.
        if !path.exists() {
            std::fs::write(&path, text).expect("written");
        }
    };
    let (disk, clock) = (SimDisk::new(1), SimClock::new(NOW_MS));
    let mut machine = open(&disk, &clock).expect("opened");
    fill(&mut machine, &clock);
    clock.advance(std::time::Duration::from_millis(50));
    machine.become_quiet();
    write("log-1.txt", text_of(&machine.disk.process_killed(), is_of_store));
    machine.call(&[b"SET", b"long", &long()]);
    machine.store.checkpoint().expect("a checkpoint");
    machine.call(&[b"SET", b"behind", b"the checkpoint"]);
    clock.advance(std::time::Duration::from_millis(50));
    machine.become_quiet();
    let disk = machine.kill();
    write("blocks-1.txt", text_of(&disk, is_of_store));
    write("archive-1.txt", text_of(&disk, |path| path.starts_with(ARCHIVE)));
    write("blocks-1-compressed.txt", text_of(&compressed_disk(), is_of_store));
}

/// A store whose block file has values of every compression.
fn compressed_disk() -> SimDisk {
    let (disk, clock) = (SimDisk::new(1), SimClock::new(NOW_MS));
    let mut machine = open(&disk, &clock).expect("opened");
    let mut put = None;
    for (compression, key, value) in compressed_values() {
        if put.is_some_and(|before| before != compression) {
            machine.store.checkpoint().expect("a checkpoint");
        }
        machine.store.set_compression(compression);
        machine.call(&[b"SET", &key, &value]);
        put = Some(compression);
    }
    machine.store.checkpoint().expect("a checkpoint");
    clock.advance(std::time::Duration::from_millis(50));
    machine.become_quiet();
    let disk = machine.kill();
    // What the checkpoints have made needless would be most of the golden file.
    let log = |path: &PathBuf| path.extension().is_some_and(|suffix| suffix == "log") && is_of_store(path);
    for path in disk.paths().into_iter().filter(log) {
        let without = disk.process_killed();
        without.remove(&path).expect("removed");
        if open(&without, &SimClock::new(NOW_MS + 60_000)).is_ok() {
            disk.remove(&path).expect("removed");
        }
    }
    assert_compressed_values(&mut open(&disk.process_killed(), &SimClock::new(NOW_MS + 60_000)).expect("opened"));
    disk
}

#[test]
fn the_golden_log_is_read() {
    let disk = disk_of("log-1.txt");
    let mut machine = open(&disk, &SimClock::new(NOW_MS + 60_000)).expect("opened");
    assert_filled(&mut machine, &[]);
}

#[test]
fn the_golden_block_file_is_read() {
    let disk = disk_of("blocks-1.txt");
    let log = Path::new(DIRECTORY).join("log");
    let check = check_store(&disk, &Path::new(DIRECTORY).join("store.blocks"), &log).expect("readable");
    assert!(check.damage.is_none(), "{:?}", check.damage);
    let blocks = check.blocks.expect("a block file");
    assert_eq!((blocks.superblock.entries, blocks.report.problem_count), (8, 0));
    let mut machine = open(&disk, &SimClock::new(NOW_MS + 60_000)).expect("opened");
    assert_filled(&mut machine, &[(b"long", &long()), (b"behind", b"the checkpoint")]);
}

#[test]
fn the_golden_block_file_with_compressed_values_is_read() {
    let disk = disk_of("blocks-1-compressed.txt");
    let (blocks, log) = (Path::new(DIRECTORY).join("store.blocks"), Path::new(DIRECTORY).join("log"));
    let check = check_store(&disk, &blocks, &log).expect("readable");
    assert!(check.damage.is_none(), "{:?}", check.damage);
    let (.., inspection) = inspect_block_file(&disk, &blocks).expect("readable");
    let kinds: Vec<&str> = inspection.values.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, ["plain", "lz4", "zstd", "zstd, dictionary"]);
    assert!(inspection.dictionary_bytes > 0);
    assert!(inspection.blocks.iter().any(|(use_of, blocks)| *use_of == "large value" && *blocks > 30));
    let mut machine = open(&disk, &SimClock::new(NOW_MS + 60_000)).expect("opened");
    assert_compressed_values(&mut machine);
}

fn replay(disk: &SimDisk) -> Result<(usize, Vec<Vec<u8>>), ArchiveError> {
    let archive = Archive::open(Arc::new(disk.clone()), Path::new(ARCHIVE))?;
    // As in the name of the archived file.
    let store_id = StoreId(u128::from_str_radix(STORE_ID, 16).expect("hexadecimal").to_be_bytes());
    let request = ReplayRequest { store_id, from: ReplayFrom::START, upto: Limit::End };
    let (mut kinds, mut keys) = (std::collections::BTreeSet::new(), Vec::new());
    archive.replay(
        &request,
        &mut |frame| {
            for record in frame.records() {
                let mut rest = record?.effects;
                while let Ok((effect, after)) = Effect::decode(rest) {
                    kinds.insert(rest[0]);
                    if let Effect::Put { key, .. } = effect {
                        keys.push(key.to_vec());
                    }
                    rest = after;
                }
                assert!(rest.is_empty(), "every effect is known");
            }
            Ok(())
        },
        &|_| {},
    )?;
    Ok((kinds.len(), keys))
}

#[test]
fn the_golden_archive_is_read() {
    let (kinds, keys) = replay(&disk_of("archive-1.txt")).expect("read");
    // Every kind of effect that there was in format 1.
    assert_eq!(kinds, 9);
    let keys: Vec<String> = keys.iter().map(|key| key.escape_ascii().to_string()).collect();
    let expected =
        ["before", "text", "number", "expires", "persists", "old name", "gone", "flushed", "in one", "in two"];
    assert_eq!(keys[..expected.len()], expected);
}

/// Raises the number of the format of the head at `place` of a file, with a checksum that is right (`sealed`) or as it was.
fn make_newer(disk: &SimDisk, path: &Path, place: usize, sealed: bool) {
    let mut contents = disk.contents(path);
    let head = &mut contents[place..];
    head[FORMAT_AT..LENGTH_AT].copy_from_slice(&2u16.to_le_bytes());
    if sealed {
        let length = usize::from(u16::from_le_bytes([head[LENGTH_AT], head[LENGTH_AT + 1]]));
        let crc = crc32c::crc32c(&head[FORMAT_AT..length]);
        head[CRC_AT..FORMAT_AT].copy_from_slice(&crc.to_le_bytes());
    }
    disk.open(path).and_then(|file| file.write_all_at(&contents, 0)).expect("written");
}

#[test]
fn files_of_a_newer_format_are_refused_by_name_and_left_alone() {
    let clock = SimClock::new(NOW_MS + 60_000);
    let refused = |disk: &SimDisk, path: &Path| {
        let before = disk.contents(path);
        match open(disk, &clock).map(drop) {
            Err(Error::FormatTooNew { path: named, found: 2, newest: 1 }) => assert_eq!(named, path),
            other => panic!("{}: {other:?}", path.display()),
        }
        assert!(disk.contents(path) == before);
    };
    let blocks = Path::new(DIRECTORY).join("store.blocks");
    for place in [0, 4096] {
        let disk = disk_of("blocks-1.txt");
        make_newer(&disk, &blocks, place, true);
        refused(&disk, &blocks);
    }
    let disk = disk_of("log-1.txt");
    let is_log = |path: &PathBuf| path.extension().is_some_and(|suffix| suffix == "log");
    let log = disk.paths().into_iter().find(is_log).expect("a log file");
    make_newer(&disk, &log, 0, true);
    refused(&disk, &log);
    let disk = disk_of("archive-1.txt");
    let archived = disk.paths().into_iter().find(is_log).expect("an archived file");
    make_newer(&disk, &archived, 0, true);
    match replay(&disk) {
        Err(ArchiveError::Store(Error::FormatTooNew { path, found: 2, newest: 1 })) => assert_eq!(path, archived),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_rotten_number_of_a_format_is_damage_and_no_newer_format() {
    let clock = SimClock::new(NOW_MS + 60_000);
    let blocks = Path::new(DIRECTORY).join("store.blocks");
    let disk = disk_of("blocks-1.txt");
    // The newest superblock is the one that the log names: without it the store does not open.
    let newest = BlockFile::open_read_only(&disk, &blocks).expect("sound").found().newest.0 % 2;
    make_newer(&disk, &blocks, newest as usize * 4096, false);
    match open(&disk, &clock).map(drop) {
        Err(Error::Corrupt { path, .. }) => assert_eq!(path, blocks),
        other => panic!("{other:?}"),
    }
    let is_log = |path: &PathBuf| path.extension().is_some_and(|suffix| suffix == "log");
    // Each file of the log has two heads; one will do.
    let rot_heads = |disk: &SimDisk| {
        let path = disk.paths().into_iter().find(is_log).expect("a log file");
        [0, 2048].into_iter().for_each(|place| make_newer(disk, &path, place, false));
        path
    };
    let disk = disk_of("log-1.txt");
    let log = rot_heads(&disk);
    match open(&disk, &clock).map(drop) {
        Err(Error::Corrupt { path, .. }) => assert_eq!(path, log),
        other => panic!("{other:?}"),
    }
    let disk = disk_of("archive-1.txt");
    let archived = rot_heads(&disk);
    match replay(&disk) {
        Err(ArchiveError::Store(Error::Corrupt { path, .. })) => assert_eq!(path, archived),
        other => panic!("{other:?}"),
    }
}

#[test]
fn versions_of_golden_files_are_older_than_what_comes() {
    let disk = disk_of("blocks-1.txt");
    let clock = SimClock::new(NOW_MS + 60_000);
    let machine = open(&disk, &clock).expect("opened");
    let before = machine.store.log().last_version();
    assert!(before >= Version::at_ms(NOW_MS) && before < Version::at_ms(clock.wall_ms()));
}
