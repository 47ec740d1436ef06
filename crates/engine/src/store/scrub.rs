//! Looking for rot in the block file, and mending it: where every value is in memory, a damaged file is written anew.
//!
//! ```text
//!   scrub, a little at a time --damage--> named in the log and the figures --> the file is given up: the next checkpoint
//!   checkpoint --damage------------------/                                    begins with an empty one and takes everything
//! ```
//!
//! With cold values the file is not given up: they are nowhere else. The damage is named, and commands that need a damaged
//! value answer with it.
//!
//! Acknowledged writes are in no danger meanwhile: the log is given up only when a later checkpoint is durable; but a
//! restart before that would refuse the damaged file. Not here: reading the blocks (`blocks`).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use super::Store;
use crate::blocks::BlockFile;
use crate::blocks::ScrubCursor;
use crate::error::Error;

/// What is known of the file's soundness.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ScrubStatistics {
    /// Bytes read and found right since the store was opened.
    pub bytes: u64,
    /// Times that the whole file was read since the store was opened.
    pub passes: u64,
    /// Damage found since the store was opened.
    pub damage: u64,
    /// What was found last.
    pub last_damage: Option<String>,
    /// Times that the file was written anew because of damage.
    pub repairs: u64,
}

/// The scrub's state.
#[derive(Default)]
pub(super) struct Scrub {
    cursor: Mutex<ScrubCursor>,
    statistics: Mutex<ScrubStatistics>,
    /// Bytes a second; 0 for none.
    bytes_per_second: AtomicU64,
    /// The next checkpoint writes the file anew.
    wants_rewrite: AtomicBool,
}

impl Scrub {
    pub(super) fn new(bytes_per_second: u64) -> Scrub {
        Scrub { bytes_per_second: AtomicU64::new(bytes_per_second), ..Scrub::default() }
    }

    /// Whether the next checkpoint writes the file anew.
    pub(super) fn wants_rewrite(&self) -> bool {
        self.wants_rewrite.load(Relaxed)
    }

    /// A checkpoint was published; one that wrote the file anew has mended it.
    pub(super) fn published(&self) {
        if self.wants_rewrite.swap(false, Relaxed) {
            self.statistics.lock().repairs += 1;
            tracing::info!("the block file was written anew from memory; it is sound again");
        }
    }
}

impl Store {
    /// What is known of the block file's soundness.
    pub fn scrubbing(&self) -> ScrubStatistics {
        self.shared.scrub.statistics.lock().clone()
    }

    /// Changes how many bytes of the block file are verified each second; 0 for none.
    pub fn set_scrub_bytes_per_second(&self, bytes: u64) {
        self.shared.scrub.bytes_per_second.store(bytes, Relaxed);
    }

    /// Verifies the next part of the block file, as much as fits into `milliseconds` of the rate. Returns the bytes read.
    pub(super) fn scrub_for(&self, milliseconds: u64) -> u64 {
        let rate = self.shared.scrub.bytes_per_second.load(Relaxed);
        if rate == 0 { 0 } else { self.scrub(rate.saturating_mul(milliseconds).div_ceil(1000)) }
    }

    /// Verifies about `bytes` more of the block file; returns how many were read. Damage is named and mended by the next
    /// checkpoint. Does nothing while a checkpoint runs.
    pub fn scrub(&self, bytes: u64) -> u64 {
        // Held until damage is noted, so that no checkpoint begins before.
        let Some(file) = self.shared.checkpoints.try_file() else { return 0 };
        let result = file.view().scrub(&mut self.shared.scrub.cursor.lock(), bytes);
        match result {
            Ok(scrubbed) => {
                let mut statistics = self.shared.scrub.statistics.lock();
                statistics.bytes += scrubbed.bytes;
                statistics.passes += u64::from(scrubbed.ended);
                scrubbed.bytes
            }
            Err(error) => {
                self.note_damage(&file, &error);
                0
            }
        }
    }

    /// Damage was found in the block file while it is open: it is given up, if memory has everything and the file has room
    /// to take it anew. No checkpoint may run.
    pub(super) fn note_damage(&self, file: &BlockFile, error: &Error) {
        let scrub = &self.shared.scrub;
        {
            let mut statistics = scrub.statistics.lock();
            statistics.damage += 1;
            statistics.last_damage = Some(error.to_string());
        }
        if scrub.wants_rewrite.load(Relaxed) {
            return;
        }
        if !file.has_room_for_copy() {
            tracing::error!(%error, "the block file is damaged, and too full to be written anew: restore a backup, or stop and --repair");
        } else if self.forget_file_unless_cold() {
            scrub.wants_rewrite.store(true, Relaxed);
            tracing::error!(%error, "the block file is damaged; the next checkpoint writes it anew from memory");
        } else {
            tracing::error!(%error, "the block file is damaged, and has values that are not in memory: restore a backup");
        }
    }
}
