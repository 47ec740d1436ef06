//! A snapshot on its way out: a thread reads it ahead of whoever takes it, a few frames at most, and no faster than asked.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::task::Poll;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::dump::Snapshot;
use crate::error::{Error, Result};
use crate::limits::{SNAPSHOT_NICE, SNAPSHOT_QUEUE};

/// Longest sleep before it is looked whether anybody still wants the rest.
const SLEEP_MAX: Duration = Duration::from_millis(50);

/// How a snapshot is handed out.
#[derive(Default)]
pub struct Pace {
    /// Most bytes in a second; `None` for as fast as they are taken.
    pub bytes_per_second: Option<u64>,
    /// Called on the snapshot's thread whenever something can be taken.
    pub wake: Option<Box<dyn Fn() + Send>>,
}

/// The pieces of a snapshot, made on a thread of their own. Dropping it ends the thread and lets the checkpoint go.
pub struct SnapshotStream {
    pieces: Option<Receiver<Result<Vec<u8>>>>,
    unwanted: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Snapshot {
    /// Starts to hand the snapshot out.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn stream(self, pace: Pace) -> io::Result<SnapshotStream> {
        self.stream_with(pace, |snapshot, each| snapshot.write(each))
    }

    /// As [`Snapshot::stream`], in the pieces that `write` makes of it. They are counted one by one, so that they should
    /// not be long.
    ///
    /// # Errors
    /// The same.
    pub fn stream_with(
        self,
        pace: Pace,
        write: impl FnOnce(&Snapshot, &mut dyn FnMut(Vec<u8>) -> Result<()>) -> Result<()> + Send + 'static,
    ) -> io::Result<SnapshotStream> {
        let (sender, pieces) = sync_channel(SNAPSHOT_QUEUE);
        let unwanted = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&unwanted);
        let run = move || {
            // Whoever waits for a reply goes first.
            let _ = rustix::process::nice(SNAPSHOT_NICE);
            let mut throttle = Throttle { pace, sender, stopped, free_at: Instant::now() };
            if let Err(error) = write(&self, &mut |piece| throttle.send(Ok(piece))) {
                // Nobody is there to be told when it is no longer wanted.
                let _ = throttle.send(Err(error));
            }
            let Throttle { pace, sender, .. } = throttle;
            drop(sender);
            // The end can be taken too.
            pace.wake.iter().for_each(|wake| wake());
        };
        let thread = thread::Builder::new().name("snapshot".to_owned()).spawn(run)?;
        Ok(SnapshotStream { pieces: Some(pieces), unwanted, thread: Some(thread) })
    }
}

impl SnapshotStream {
    /// The next piece, if there is one: the header first, then a frame each. `Ready(None)` after the last, which was the
    /// end frame unless an error came.
    pub fn poll(&self) -> Poll<Option<Result<Vec<u8>>>> {
        match self.pieces.as_ref().map(Receiver::try_recv) {
            Some(Ok(piece)) => Poll::Ready(Some(piece)),
            Some(Err(TryRecvError::Empty)) => Poll::Pending,
            Some(Err(TryRecvError::Disconnected)) | None => Poll::Ready(None),
        }
    }
}

impl Iterator for SnapshotStream {
    type Item = Result<Vec<u8>>;

    /// As [`SnapshotStream::poll`], waiting for it.
    fn next(&mut self) -> Option<Result<Vec<u8>>> {
        self.pieces.as_ref().and_then(|pieces| pieces.recv().ok())
    }
}

impl Drop for SnapshotStream {
    fn drop(&mut self) {
        self.unwanted.store(true, Relaxed);
        // A thread that waits for room in the queue finds it closed.
        self.pieces = None;
        if let Some(thread) = self.thread.take().filter(JoinHandle::is_finished) {
            let _ = thread.join();
        }
    }
}

struct Throttle {
    pace: Pace,
    sender: SyncSender<Result<Vec<u8>>>,
    stopped: Arc<AtomicBool>,
    /// When the next piece may leave.
    free_at: Instant,
}

impl Throttle {
    fn send(&mut self, piece: Result<Vec<u8>>) -> Result<()> {
        if let (Some(rate), Ok(piece)) = (self.pace.bytes_per_second, &piece) {
            self.wait()?;
            let takes = Duration::from_secs_f64(piece.len() as f64 / rate.max(1) as f64);
            self.free_at = self.free_at.max(Instant::now()) + takes.min(Duration::from_secs(3600));
        }
        self.sender.send(piece).map_err(|_| Error::Closed)?;
        self.pace.wake.iter().for_each(|wake| wake());
        Ok(())
    }

    fn wait(&self) -> Result<()> {
        loop {
            if self.stopped.load(Relaxed) {
                return Err(Error::Closed);
            }
            match self.free_at.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
                Some(left) => thread::sleep(left.min(SLEEP_MAX)),
                None => return Ok(()),
            }
        }
    }
}
