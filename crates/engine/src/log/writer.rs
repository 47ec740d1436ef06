//! The log's writer: takes what waits in the buffer, writes it, syncs once for everybody, moves the commit.
//!
//! ```text
//!   buffer --take--> frames --write--> written --sync, when asked or due--> durable = commit --> waiters, listeners
//!                      |                            nothing follows for a while: a mark, which witnesses the last frame
//!                      +-- does not fit the active file: sync it, then start the spare with a new file header
//! ```
//!
//! A state machine: one call of [`LogWriter::step`] does what is due and says when the next call makes sense. It blocks
//! on nothing but the disk. The order of its disk calls carries the promises that recovery relies on:
//! - a frame's durable position covers synced bytes only, so a later frame is a witness for what stands before it;
//! - a file header is written after everything before the file was synced, so it is such a witness too;
//! - older files are given up only after the header that says "replay from here" was synced;
//! - after a failed write or sync nothing is written, synced or committed any more.
//!
//! Not here: who may append how much (`room`), making files (`files`), threads (`threads`).

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;

use super::buffer::{PendingFrame, Piece, memory_of};
use super::files::{FullFile, Spare};
use super::format::{
    FLAG_CLOSED, FLAG_MARK, FLAG_RESET, FRAME_HEADER_BYTES, FileHeader, FrameHeader, HEADER_BLOCK_BYTES,
};
use super::recovery::NameSync;
use super::statistics::Counters;
use super::survey::read_up_to;
use super::tail_block::TailBlock;
use super::{Checkpoint, Shared, Step};
use crate::disk::{DIRECT_BLOCK_BYTES, DiskFile};
use crate::error::{Error, Result};
use crate::version::Version;

/// A record that nobody waits for is written after this time at the latest.
const LINGER: Duration = Duration::from_millis(2);
/// A buffer of this size is written without lingering.
const LINGER_BYTES_MAX: usize = 256 * 1024;
/// How far ahead of the clock a frame raises the version limit, milliseconds.
const LIMIT_AHEAD_MS: u64 = 10_000;

/// The file that frames are written to.
pub(crate) struct ActiveFile {
    pub(crate) file: Box<dyn DiskFile>,
    pub(crate) path: PathBuf,
    pub(crate) header: FileHeader,
    /// Bytes of frames that it holds.
    pub(crate) capacity: u64,
    /// What stands in the block where the next frame begins.
    pub(crate) tail: TailBlock,
}

impl ActiveFile {
    /// A file whose first frame is to be written.
    pub(crate) fn start(spare: Spare, header: FileHeader) -> ActiveFile {
        let Spare { file, path, capacity } = spare;
        ActiveFile { file, path, header, capacity, tail: TailBlock::new(&[]) }
    }

    /// A file that frames follow in at `position`.
    pub(crate) fn go_on(spare: Spare, header: FileHeader, position: u64) -> Result<ActiveFile> {
        let mut active = ActiveFile::start(spare, header);
        let end = active.offset_of(position);
        let mut bytes = vec![0; (end % DIRECT_BLOCK_BYTES as u64) as usize];
        let offset = end - bytes.len() as u64;
        let read = read_up_to(&*active.file, &mut bytes, offset);
        let read = read.map_err(|source| Error::io("read", &active.path, source))?;
        if read != bytes.len() {
            let what = "bytes that were read a moment ago are gone";
            return Err(Error::Corrupt { path: active.path, offset, what });
        }
        active.tail = TailBlock::new(&bytes);
        Ok(active)
    }

    pub(crate) fn offset_of(&self, position: u64) -> u64 {
        HEADER_BLOCK_BYTES + (position - self.header.start_position)
    }

    pub(crate) fn remaining(&self, position: u64) -> u64 {
        self.capacity.saturating_sub(position - self.header.start_position)
    }

    /// Writes the header of a file that is being started; it becomes durable with the first frame.
    pub(crate) fn write_header_block(&self) -> Result<()> {
        self.write(&self.header.encode_block(), 0)
    }

    pub(crate) fn write(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.file.write_all_at(bytes, offset).map_err(|source| Error::io("write", &self.path, source))
    }

    /// Writes the next bytes of frames, at `position`. `sync_follows` says that waiting for the disk costs nothing.
    fn extend(&mut self, bytes: &[u8], position: u64, sync_follows: bool) -> Result<()> {
        let offset = self.offset_of(position);
        let end = HEADER_BLOCK_BYTES + self.capacity;
        let from = offset - self.tail.filled() as u64;
        let blocks = if sync_follows { self.tail.blocks(bytes) } else { None };
        match blocks.filter(|blocks| from + blocks.len() as u64 <= end) {
            Some(blocks) => {
                let written = self.file.write_blocks_at(blocks, from);
                written.map_err(|source| Error::io("write", &self.path, source))?;
            }
            None => self.write(bytes, offset)?,
        }
        self.tail.add(bytes);
        Ok(())
    }
}

/// Where the log ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tail {
    /// Where the next frame begins.
    pub(crate) position: u64,
    /// Header crc of the last frame.
    pub(crate) previous_crc: u32,
    /// The epoch that frames are written in.
    pub(crate) epoch: u64,
    /// Version of the newest record written.
    pub(crate) version: Version,
    /// The highest version limit written.
    pub(crate) limit: Version,
}

/// Writes the log; the head of its file says how.
pub struct LogWriter {
    pub(crate) shared: Arc<Shared>,
    active: ActiveFile,
    tail: Tail,
    /// Frames taken from the buffer that are not written yet.
    queue: VecDeque<PendingFrame>,
    written_pieces: Vec<Piece>,
    /// Everything before this position is durable.
    synced: u64,
    /// The durable position that the newest written frame carries, and the newest durable one.
    witness_written: u64,
    witness: u64,
    /// End of the newest frame with records.
    records_end: u64,
    /// When the oldest frame that is not synced was written.
    unsynced_since: Option<Duration>,
    synced_at: Duration,
    /// When the first record of each frame that is not synced was appended.
    appended_at: Vec<Duration>,
    /// A reset was written here, and no file header says so yet.
    replay_from: Option<u64>,
    is_closed: bool,
    /// The names of the log's files, while they are being made durable after a start.
    names: Option<NameSync>,
}

impl LogWriter {
    /// A writer that goes on at `tail`, before which everything is durable.
    pub(crate) fn new(shared: Arc<Shared>, active: ActiveFile, tail: Tail) -> LogWriter {
        let synced_at = shared.clock.monotonic();
        LogWriter {
            shared,
            active,
            tail,
            queue: VecDeque::new(),
            written_pieces: Vec::new(),
            synced: tail.position,
            witness_written: tail.position,
            witness: tail.position,
            records_end: tail.position,
            unsynced_since: None,
            synced_at,
            appended_at: Vec::new(),
            replay_from: None,
            is_closed: false,
            names: None,
        }
    }

    /// Does what is due at `now` (the clock's monotonic time): writes, syncs, marks. `Worked` asks for another call at
    /// once; `Idle` for one at the time it names, or when something was appended or asked for.
    pub fn step(&mut self, now: Duration) -> Step {
        if self.is_closed || self.shared.is_poisoned() {
            return Step::Idle { until: None };
        }
        match self.work(now) {
            Ok(step) => step,
            Err(error) => {
                self.shared.poison(error);
                Step::Worked
            }
        }
    }

    /// Whether the closing mark was written: nothing more will be.
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// What the active file says about itself.
    pub(crate) fn file_header(&self) -> &FileHeader {
        &self.active.header
    }

    /// Whether frames wait for a file that holds them.
    pub(crate) fn is_stalled(&self) -> bool {
        !self.queue.is_empty()
    }

    fn work(&mut self, now: Duration) -> Result<Step> {
        let closing = self.shared.closing.load(SeqCst);
        let sync = closing || self.shared.is_sync_asked() || self.is_background_sync_due(now);
        self.take(now, sync);
        let mut worked = self.write_queue(now, sync)?;
        if sync && self.tail.position > self.synced {
            self.sync()?;
            worked = true;
        }
        if self.note_checkpoint()? || worked {
            return Ok(Step::Worked);
        }
        if closing && self.is_stalled() && self.shared.files.disk_full.load(SeqCst) {
            // Only what was never admitted comes here; a close that waits for an administrator helps nobody.
            return Err(Error::DiskFull { path: self.shared.files.directory.clone() });
        }
        if closing && !self.is_stalled() && self.shared.buffer.lock().is_empty() {
            self.close()?;
            return Ok(Step::Worked);
        }
        self.idle(now)
    }

    /// Takes the buffer's frames when it is time to write them.
    fn take(&mut self, now: Duration, sync: bool) {
        if !self.queue.is_empty() {
            return;
        }
        let mut buffer = self.shared.buffer.lock();
        let Some((bytes, since)) = buffer.waiting() else {
            return;
        };
        if sync || bytes >= LINGER_BYTES_MAX || now >= since.saturating_add(LINGER) || self.shared.room.is_wanted() {
            let frames = buffer.take(&mut self.written_pieces);
            // They stay here, written or not, until the next are taken.
            self.shared.writer_bytes.store(memory_of(&frames), Relaxed);
            self.queue = frames.into();
        }
    }

    fn write_queue(&mut self, now: Duration, sync_follows: bool) -> Result<bool> {
        let mut worked = false;
        while let Some(mut frame) = self.queue.pop_front() {
            if !self.make_place(frame.frame_bytes())? {
                self.queue.push_front(frame);
                break;
            }
            self.write_frame(&mut frame, now, sync_follows)?;
            // What is long is given back here, not under the buffer's mutex.
            self.written_pieces.extend(frame.pieces.drain(..).filter(Piece::is_used_again));
            worked = true;
        }
        Ok(worked)
    }

    /// Nothing is due; a mark may be, or tells when to come again.
    fn idle(&mut self, now: Duration) -> Result<Step> {
        if self.queue.is_empty() && !self.written_pieces.is_empty() {
            // A burst would leave its memory here until the next one.
            self.written_pieces.truncate(1);
            let kept = self.written_pieces.iter().map(Piece::memory_bytes).sum();
            self.shared.writer_bytes.store(kept, Relaxed);
        }
        let mut until: Option<Duration> = None;
        let mut earliest = |at: Duration| until = Some(until.map_or(at, |until| until.min(at)));
        if self.tail.position > self.synced {
            earliest(self.unsynced_since.unwrap_or(now).saturating_add(self.shared.background_sync()));
        }
        let waiting = self.shared.buffer.lock().waiting();
        if let Some((_, since)) = waiting {
            // Frames that found no file wait for the preparer, whatever the time.
            if self.queue.is_empty() {
                earliest(since.saturating_add(LINGER));
            }
        } else if self.records_end > self.witness && self.tail.position == self.synced && self.queue.is_empty() {
            let due = self.synced_at.saturating_add(self.shared.mark_after);
            if now < due {
                earliest(due);
            } else if self.write_mark(FLAG_MARK, self.tail.limit)? {
                let spare = self.shared.buffer.lock().take_spare_pieces();
                drop(spare);
                // A second witness, in another block than the frame and its mark.
                self.write_header()?;
                self.sync()?;
                return Ok(Step::Worked);
            }
        }
        Ok(Step::Idle { until })
    }

    fn is_background_sync_due(&self, now: Duration) -> bool {
        self.unsynced_since.is_some_and(|since| now >= since.saturating_add(self.shared.background_sync()))
    }

    /// Sees to it that the next frame, of `bytes`, fits the active file. False when no spare is there to hold it.
    fn make_place(&mut self, bytes: u64) -> Result<bool> {
        if bytes <= self.active.remaining(self.tail.position) {
            return Ok(true);
        }
        if self.tail.position > self.synced {
            self.sync()?;
        }
        let files = &self.shared.files;
        let spare = {
            let mut set = files.set.lock();
            let Some(spare) = set.take_spare(bytes, &self.shared.room) else {
                drop(set);
                if bytes > files.usual_capacity {
                    files.want(bytes);
                }
                self.shared.files_signal.notify();
                return Ok(false);
            };
            set.active_remaining = spare.capacity;
            set.finish(self.full_file());
            set.publish(&self.shared.room);
            spare
        };
        self.shared.notify_files();
        let old = self.active.header;
        let header = FileHeader {
            sequence: old.sequence + 1,
            generation: 1,
            start_position: self.tail.position,
            durable_position: self.tail.position,
            epoch: self.tail.epoch,
            previous_crc: self.tail.previous_crc,
            ..old
        };
        self.active = ActiveFile::start(spare, header);
        self.active.write_header_block()?;
        Ok(true)
    }

    /// The active file, as one that is full.
    fn full_file(&self) -> FullFile {
        FullFile {
            path: self.active.path.clone(),
            header: Some(self.active.header),
            end_position: self.tail.position,
            end_crc: self.tail.previous_crc,
            capacity: self.active.capacity,
            is_leftover: false,
        }
    }

    fn write_frame(&mut self, frame: &mut PendingFrame, now: Duration, sync_follows: bool) -> Result<()> {
        let counters = &self.shared.counters;
        let header = FrameHeader {
            flags: if frame.reset { FLAG_RESET } else { 0 },
            payload_bytes: u32::try_from(frame.payload_bytes).unwrap_or_else(|_| panic!("a frame is below 4 GiB")),
            records: frame.records,
            payload_crc: frame.payload_crc(),
            first_version: frame.first_version,
            last_version: frame.last_version,
            version_limit: self.next_limit(frame.last_version),
            ..self.header()
        };
        let (bytes, crc) = header.encode();
        let mut position = self.tail.position;
        if let Some(space) = frame.header_space() {
            *space = bytes;
        }
        for piece in &frame.pieces {
            // Chunks are many: together they go through the page cache, and the sync waits for the disk once.
            let at_once = sync_follows && matches!(piece, Piece::Bytes(_));
            for part in piece.parts() {
                self.active.extend(part, position, at_once)?;
                position += part.len() as u64;
            }
        }
        if frame.reset {
            self.replay_from = Some(self.tail.position);
        }
        Counters::add(&counters.frames, 1);
        Counters::add(&counters.records, u64::from(frame.records));
        counters.records_per_frame.record(u64::from(frame.records));
        self.appended_at.push(frame.first_append_at);
        self.unsynced_since.get_or_insert(now);
        self.wrote(&header, crc);
        self.records_end = self.tail.position;
        self.shared.room.release(frame.room_bytes);
        self.shared.wake_for_room();
        Ok(())
    }

    /// Writes a frame without records; false when it fits no file.
    fn write_mark(&mut self, flags: u16, version_limit: Version) -> Result<bool> {
        if !self.make_place(FRAME_HEADER_BYTES as u64)? {
            return Ok(false);
        }
        let (first_version, last_version) = (self.tail.version, self.tail.version);
        let header = FrameHeader { flags, first_version, last_version, version_limit, ..self.header() };
        let (bytes, crc) = header.encode();
        self.active.extend(&bytes, self.tail.position, true)?;
        Counters::add(&self.shared.counters.marks, 1);
        self.wrote(&header, crc);
        Ok(true)
    }

    /// What every frame written now says.
    fn header(&self) -> FrameHeader {
        FrameHeader {
            previous_crc: self.tail.previous_crc,
            store_id: self.active.header.store_id,
            epoch: self.tail.epoch,
            position: self.tail.position,
            wall_ms: self.shared.clock.wall_ms(),
            durable_position: self.synced,
            commit: self.shared.commit(),
            ..FrameHeader::default()
        }
    }

    fn next_limit(&self, last: Version) -> Version {
        let ahead = Version::at_ms(self.shared.time.now_ms().saturating_add(LIMIT_AHEAD_MS));
        self.tail.limit.max(last).max(ahead)
    }

    /// Moves the tail behind a frame that was written.
    fn wrote(&mut self, header: &FrameHeader, crc: u32) {
        let bytes = header.frame_bytes();
        self.witness_written = header.durable_position;
        self.tail.position += bytes;
        self.tail.previous_crc = crc;
        self.tail.version = header.last_version;
        self.tail.limit = header.version_limit;
        let counters = &self.shared.counters;
        Counters::add(&counters.bytes_written, bytes);
        counters.append_position.store(self.tail.position, Relaxed);
        let mut set = self.shared.files.set.lock();
        set.active_remaining = self.active.remaining(self.tail.position);
        set.publish(&self.shared.room);
    }

    /// The one sync for everything written so far; then everybody is told.
    fn sync(&mut self) -> Result<()> {
        let at = self.sync_active()?;
        self.synced = self.tail.position;
        self.witness = self.witness_written;
        self.unsynced_since = None;
        self.synced_at = at;
        self.shared.publish(self.tail.version, self.tail.limit);
        for appended_at in self.appended_at.drain(..) {
            let latency = at.saturating_sub(appended_at);
            self.shared.counters.commit_latency_us.record(latency.as_micros() as u64);
        }
        if let Some(position) = self.replay_from.take() {
            self.move_header(position, self.active.header.checkpoint)?;
        }
        self.retire();
        Ok(())
    }

    /// Lets the durable file header say that a checkpoint was published. Whether there was something to say.
    fn note_checkpoint(&mut self) -> Result<bool> {
        let Some(Checkpoint { version, position }) = self.shared.checkpoint_wanted.lock().take() else {
            return Ok(false);
        };
        assert!(position <= self.synced, "a checkpoint is published when its cut is durable");
        self.move_header(position, version)?;
        self.shared.checkpoint.store(version.0, SeqCst);
        self.shared.notes.release(version);
        self.retire();
        Ok(true)
    }

    /// Writes the active file's header anew and syncs it. The position never goes back: a reset may have been later.
    fn move_header(&mut self, replay_from: u64, checkpoint: Version) -> Result<()> {
        let header = &mut self.active.header;
        header.replay_from = header.replay_from.max(replay_from);
        header.checkpoint = checkpoint;
        self.write_header()?;
        self.sync_active()?;
        Ok(())
    }

    /// Writes the active file's header anew: it says what is durable now, and becomes durable with the next sync.
    fn write_header(&mut self) -> Result<()> {
        let header = &mut self.active.header;
        header.generation += 1;
        header.durable_position = self.synced;
        self.active.write(&self.active.header.encode(), self.active.header.slot_offset())
    }

    /// What is synced from now on counts only when these names are durable.
    pub(crate) fn wait_for_names(&mut self, names: Option<NameSync>) {
        self.names = names;
    }

    fn sync_active(&mut self) -> Result<Duration> {
        self.names.take().map_or(Ok(()), NameSync::finish)?;
        let counters = &self.shared.counters;
        let from = self.shared.clock.monotonic();
        // Once: after a failure a second sync may succeed for bytes that are gone.
        self.active.file.sync_data().map_err(|source| Error::io("sync", &self.active.path, source))?;
        let to = self.shared.clock.monotonic();
        counters.sync_latency_us.record(to.saturating_sub(from).as_micros() as u64);
        Counters::add(&counters.syncs, 1);
        Ok(to)
    }

    /// Gives up the files that the durable header of the active one says nobody needs.
    fn retire(&self) {
        let replay_from = self.active.header.replay_from;
        if self.shared.counters.replay_from.load(Relaxed) >= replay_from {
            return;
        }
        self.shared.counters.replay_from.store(replay_from, Relaxed);
        self.shared.files.set.lock().retire_before(replay_from);
        self.shared.files_signal.notify();
    }

    /// Everything is durable: one last mark says that no higher version was handed out.
    fn close(&mut self) -> Result<()> {
        if self.write_mark(FLAG_MARK | FLAG_CLOSED, self.tail.version)? {
            self.active.header.is_closed = true;
            self.write_header()?;
            self.sync()?;
        }
        self.shared.files.set.lock().archive(self.full_file());
        self.is_closed = true;
        Ok(())
    }

    /// Writes and syncs the mark that begins a new epoch. False when it fits no file there is.
    pub(crate) fn open_epoch(&mut self) -> Result<bool> {
        if !self.write_mark(FLAG_MARK, self.next_limit(self.tail.version))? {
            return Ok(false);
        }
        self.sync()?;
        Ok(true)
    }
}
