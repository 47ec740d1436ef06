//! Opening a log: find it, read it, make what was read durable, begin a new epoch.
//!
//! ```text
//!   survey -> scan (replays) -> write again what no witness covers, sync -> opening mark of a new epoch, sync -> serve
//! ```
//!
//! What a scan read may have come from the page cache: written before the process was killed, never synced; or its sync
//! failed and the page counts as clean. So everything after the last witness is written once more, byte for byte, and
//! synced, before anybody can read it. Only the newest file can hold such bytes: its header was written after the files
//! before it were synced. Then the opening mark, with an epoch above every other, makes sure that what is left of a torn
//! tail never continues the log. A header that says that the log was closed is followed by two that do not: one before
//! anything else is written, the other with the opening mark.
//!
//! Every other step writes bytes that are there already, or behind the end; so a crash at any of them changes nothing.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;

use super::buffer::Buffer;
use super::files::{Files, FullFile, PREPARE_NAME, Spare};
use super::format::{FileHeader, HEADER_BLOCK_BYTES};
use super::room::Room;
use super::scan::{Reader, Scan, check_headerless};
use super::statistics::Counters;
use super::survey::{FoundFile, Survey, read_up_to};
use super::waiters::{Listeners, Signal, Waiters};
use super::writer::{ActiveFile, LogWriter, Tail};
use super::{LogOptions, ReplayFrame, Shared, format};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::time::StoreTime;
use crate::version::Version;

/// The smallest log file that makes sense.
const FILE_BYTES_MIN: u64 = 16 * 1024;
/// Bytes written again at once.
const REWRITE_BYTES: u64 = 1024 * 1024;

/// How far opening has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes read.
    pub bytes_done: u64,
    /// Bytes there are to read at most.
    pub bytes_total: u64,
}

/// What opening found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovered {
    /// The next version handed out is above this one.
    pub last_version: Version,
    /// Frames read, with those that have no records.
    pub frames: u64,
    /// Records handed to the replay.
    pub records: u64,
    /// Bytes of the frames read.
    pub bytes: u64,
    /// Bytes of frames after the end of the log that had begun to be written, as far as their headers tell.
    pub torn_bytes_cut: u64,
    /// Bytes written again because nothing proved that they were durable.
    pub rewritten_bytes: u64,
    /// Whether the log was closed in order.
    pub was_closed: bool,
    /// Whether there was no log before.
    pub created: bool,
    /// Identity of the store.
    pub store_id: [u8; format::STORE_ID_BYTES],
    /// The epoch that begins with this open.
    pub epoch: u64,
}

/// What [`super::Log::open`] does.
pub(crate) fn open(
    mut options: LogOptions,
    replay: &mut dyn FnMut(ReplayFrame) -> Result<()>,
    progress: &dyn Fn(Progress),
) -> Result<(Arc<Shared>, LogWriter, Recovered)> {
    let disk = Arc::clone(&options.disk);
    remove_leftover(&*disk, &options.directory)?;
    let names = options.names.take();
    if names.is_none() {
        // A spare may have got its name just before a crash: it counts from here on.
        make_directory(&*disk, &options.directory)?;
    }
    let survey = Survey::of(&*disk, &options.directory)?;
    let mut scan = Scan::default();
    if let Some(newest) = survey.newest {
        let mut reader = Reader { disk: &*disk, survey: &survey, deliver: replay, progress };
        // What is yet to be archived matters from the file's beginning on.
        if options.archive.is_some() { scan.run(&mut reader, newest) } else { scan.run_to_open(&mut reader, newest) }?;
    }
    let is_new = survey.newest.is_none();
    let mut opened = if is_new { create(options, &survey) } else { go_on(options, &survey, &scan) }?;
    opened.1.wait_for_names(names);
    Ok(opened)
}

/// Makes the directory, and removes what a crash left half made.
fn remove_leftover(disk: &dyn Disk, directory: &Path) -> Result<()> {
    let leftover = directory.join(PREPARE_NAME);
    disk.create_directory(directory).map_err(|source| Error::io("create", directory, source))?;
    match disk.remove(&leftover) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", &leftover, source)),
        _ => Ok(()),
    }
}

/// The names of a log being made durable on a thread: some flushes of the disk, one after another. The start reads
/// meanwhile, and serves; nothing is acknowledged before the names are durable.
pub struct NameSync(JoinHandle<Result<()>>);

impl NameSync {
    /// Begins to make the log's directory, every name on the way to it, and every name in it durable.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(disk: Arc<dyn Disk>, directory: PathBuf) -> io::Result<NameSync> {
        let thread = thread::Builder::new().name("log-names".to_owned());
        Ok(NameSync(thread.spawn(move || make_directory(&*disk, &directory))?))
    }

    /// Waits until they are.
    pub(crate) fn finish(self) -> Result<()> {
        self.0.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Makes the directory, every name on the way to it, and every name in it durable.
pub(crate) fn make_directory(disk: &dyn Disk, directory: &Path) -> Result<()> {
    let failed = |source| Error::io("create", directory, source);
    disk.create_directory(directory).map_err(failed)?;
    for ancestor in directory.ancestors().skip(1) {
        let ancestor = if ancestor.as_os_str().is_empty() { Path::new(".") } else { ancestor };
        match disk.sync_directory(ancestor) {
            Ok(()) => {}
            // Whoever may not open a directory has made no name in it. Some file systems sync none.
            Err(error) if is_beyond_us(&error) => {}
            Err(source) => return Err(Error::io("sync", ancestor, source)),
        }
    }
    disk.sync_directory(directory).map_err(|source| Error::io("sync", directory, source))
}

fn is_beyond_us(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported)
}

/// Begins a log where there was none, or where making one was interrupted before anything was acknowledged.
fn create(options: LogOptions, survey: &Survey) -> Result<(Arc<Shared>, LogWriter, Recovered)> {
    let epoch = check_headerless(&*options.disk, survey)?.saturating_add(1);
    let store_id = options.store_id;
    let floor = options.version_floor;
    let tail = Tail { position: 0, previous_crc: 0, epoch, version: floor, limit: floor };
    let shared = share(options, survey, tail.version);
    retire_others(&shared.files, survey, &[]);
    while shared.files.set.lock().spares.is_empty() && shared.files.recycle_one() {}
    let recycled = shared.files.set.lock().spares.pop();
    let spare = match recycled {
        Some(spare) => spare,
        None => shared.files.make_spare().map_err(|error| full_or(error, &shared.files.directory))?,
    };
    let header = FileHeader {
        store_id,
        sequence: 1,
        generation: 1,
        start_position: 0,
        epoch,
        replay_from: 0,
        durable_position: 0,
        checkpoint: Version::ZERO,
        previous_crc: 0,
        is_closed: false,
    };
    let active = ActiveFile::start(spare, header);
    active.write_header_block()?;
    let recovered = Recovered { created: true, store_id, epoch, ..Recovered::default() };
    Ok((Arc::clone(&shared), begin_epoch(shared, active, tail)?, recovered))
}

/// Goes on with the log that `scan` read.
fn go_on(options: LogOptions, survey: &Survey, scan: &Scan) -> Result<(Arc<Shared>, LogWriter, Recovered)> {
    let Some(((found, header), older)) = scan.chain.split_last().and_then(|(last, older)| {
        let file = survey.files.get(*last)?;
        Some(((file, file.header?), older))
    }) else {
        unreachable!("a log that was read has a newest file with a header");
    };
    let version = scan.last_version.max(scan.version_limit).max(options.version_floor);
    let epoch = scan.epoch_max.saturating_add(1);
    let shared = share(options, survey, version);
    let file = shared.files.disk.open(&found.path).map_err(|source| Error::io("open", &found.path, source))?;
    let spare = Spare { file, path: found.path.clone(), capacity: found.capacity() };
    let (was_closed, header) = (header.is_closed, reopened(header));
    let mut active = ActiveFile::go_on(spare, header, scan.position)?;
    let rewritten_bytes = rewrite(&active, scan.witnessed.max(header.start_position), scan.position)?;
    if was_closed {
        // The other header goes with the opening mark: one that is lost must not say again that the log is closed.
        active.header.generation += 1;
        active.write(&active.header.encode(), active.header.slot_offset())?;
    }
    retire_others(&shared.files, survey, &scan.chain);
    let ends = older.iter().zip(scan.chain.iter().skip(1));
    for (file, next) in ends {
        let (Some(file), Some(next)) = (survey.files.get(*file), survey.files.get(*next).and_then(|next| next.header))
        else {
            continue;
        };
        shared.files.set.lock().finish(full_file(file, &next, false));
    }
    let tail =
        Tail { position: scan.position, previous_crc: scan.previous_crc, epoch, version, limit: scan.version_limit };
    let recovered = Recovered {
        last_version: version,
        frames: scan.frames,
        records: scan.records,
        bytes: scan.bytes,
        torn_bytes_cut: scan.torn_bytes,
        rewritten_bytes,
        was_closed: scan.was_closed,
        created: false,
        store_id: header.store_id,
        epoch,
    };
    Ok((Arc::clone(&shared), begin_epoch(shared, active, tail)?, recovered))
}

/// The header of a file that is gone on with: no longer closed, beside the header that says it is.
fn reopened(header: FileHeader) -> FileHeader {
    FileHeader { is_closed: false, generation: header.generation + u64::from(header.is_closed), ..header }
}

/// Writes the bytes from position `from` to `to` once more, and the file's header, and syncs them.
fn rewrite(active: &ActiveFile, from: u64, to: u64) -> Result<u64> {
    active.write(&active.header.encode(), active.header.slot_offset())?;
    let mut position = from;
    let mut bytes = Vec::new();
    while position < to {
        bytes.resize(REWRITE_BYTES.min(to - position) as usize, 0);
        let offset = active.offset_of(position);
        let read = read_up_to(&*active.file, &mut bytes, offset);
        let read = read.map_err(|source| Error::io("read", &active.path, source))?;
        if read != bytes.len() {
            let what = "bytes that were read a moment ago are gone";
            return Err(Error::Corrupt { path: active.path.clone(), offset, what });
        }
        active.write(&bytes, offset)?;
        position += read as u64;
    }
    active.file.sync_data().map_err(|source| Error::io("sync", &active.path, source))?;
    Ok(to - from)
}

/// Files that nothing needs become spares, or are removed, by the preparer; those that may not be in the archive yet, not
/// before they are.
fn retire_others(files: &Files, survey: &Survey, chain: &[usize]) {
    let mut set = files.set.lock();
    let leftovers = if set.archives { leftovers(survey, chain) } else { Vec::new() };
    for (place, file) in survey.files.iter().enumerate() {
        if !chain.contains(&place) && !leftovers.iter().any(|(leftover, _)| *leftover == place) {
            let (path, capacity) = (file.path.clone(), file.capacity());
            let (header, end_position, end_crc) = (None, 0, 0);
            set.retired.push(FullFile { path, header, end_position, end_crc, capacity, is_leftover: true });
        }
    }
    for (_, file) in leftovers {
        set.archive(file.clone());
        set.give_up(file);
    }
}

/// The files right before the first one of the log that still say what they held, oldest first. The newest of them may
/// have been given up and not been archived.
fn leftovers(survey: &Survey, chain: &[usize]) -> Vec<(usize, FullFile)> {
    let header_of = |place: usize| survey.files.get(place).and_then(|file| file.header);
    let mut next = chain.first().and_then(|first| header_of(*first));
    let mut found = Vec::new();
    while let Some(after) = next {
        let before = survey.files.iter().enumerate().find(|(place, file)| {
            let goes_on = |header: FileHeader| {
                let length = after.start_position.checked_sub(header.start_position);
                header.sequence.checked_add(1) == Some(after.sequence)
                    && header.epoch <= after.epoch
                    && length.is_some_and(|length| length <= file.capacity())
            };
            !chain.contains(place) && file.header.is_some_and(goes_on)
        });
        next = before.and_then(|(_, file)| file.header);
        found.extend(before.map(|(place, file)| (place, full_file(file, &after, true))));
    }
    found.reverse();
    found
}

/// A file that the one with the header `next` goes on after.
fn full_file(file: &FoundFile, next: &FileHeader, is_leftover: bool) -> FullFile {
    FullFile {
        path: file.path.clone(),
        header: file.header,
        end_position: next.start_position,
        end_crc: next.previous_crc,
        capacity: file.capacity(),
        is_leftover,
    }
}

/// A writer whose opening mark is durable.
fn begin_epoch(shared: Arc<Shared>, active: ActiveFile, tail: Tail) -> Result<LogWriter> {
    let counters = &shared.counters;
    counters.append_position.store(tail.position, SeqCst);
    counters.replay_from.store(active.header.replay_from, SeqCst);
    shared.checkpoint.store(active.header.checkpoint.0, SeqCst);
    {
        let mut set = shared.files.set.lock();
        set.active_remaining = active.remaining(tail.position);
        set.publish(&shared.room);
    }
    let mut writer = LogWriter::new(Arc::clone(&shared), active, tail);
    while !writer.open_epoch()? {
        // The newest file is full to its last bytes.
        let files = &shared.files;
        if !files.recycle_one() {
            let spare = files.make_spare().map_err(|error| full_or(error, &files.directory))?;
            files.set.lock().spares.push(spare);
        }
        files.set.lock().publish(&shared.room);
    }
    Ok(writer)
}

fn full_or(error: Error, directory: &Path) -> Error {
    if super::files::is_full(&error) { Error::DiskFull { path: PathBuf::from(directory) } } else { error }
}

/// What everybody shares, for a log whose newest version is `version`.
fn share(options: LogOptions, survey: &Survey, version: Version) -> Arc<Shared> {
    let file_bytes = options.file_bytes.max(FILE_BYTES_MIN);
    let capacity = file_bytes - HEADER_BLOCK_BYTES;
    let buffer_bytes_max = (options.buffer_bytes_max as u64).min(capacity / 2);
    let reserve_bytes = options.reserve_bytes.min(file_bytes / 16);
    let shared = Shared {
        buffer: Mutex::new(Buffer::new(version)),
        writer_bytes: AtomicUsize::new(0),
        last_version: AtomicU64::new(version.0),
        commit: AtomicU64::new(version.0),
        durable: AtomicU64::new(version.0),
        version_limit: AtomicU64::new(version.0),
        sync_requested: AtomicU64::new(0),
        checkpoint_wanted: Mutex::new(None),
        checkpoint: AtomicU64::new(0),
        poisoned: AtomicBool::new(false),
        failure: OnceLock::new(),
        closing: AtomicBool::new(false),
        ended: AtomicBool::new(false),
        room: Room::new(capacity, reserve_bytes, buffer_bytes_max),
        files: Files::new(options.disk, options.directory, file_bytes, survey.next_number(), options.archive.is_some()),
        waiters: Waiters::default(),
        notes: Waiters::default(),
        listeners: Listeners::default(),
        writer_signal: Signal::default(),
        files_signal: Signal::default(),
        archive_signal: Signal::default(),
        writer_sleeps_long: AtomicBool::new(false),
        counters: Counters::default(),
        time: StoreTime::new(Arc::clone(&options.clock)),
        clock: options.clock,
        background_sync_ns: AtomicU64::new(0),
        mark_after: options.mark_after,
        on_failure: options.on_failure,
    };
    shared.set_background_sync(options.background_sync);
    Arc::new(shared)
}
