//! Taking snapshots: a checkpoint of this moment, pinned. And what a restored store says of itself beside its archive.

use super::base::{self, Base};
use super::options::Options;
use super::{Shared, Store};
use crate::blocks::View;
use crate::error::{Error, Result};
use crate::log::archive::StoreId;
use crate::snapshot::{Lineage, Snapshot, note_lineage};
use crate::version::Version;

impl Store {
    /// Takes a snapshot of this moment: brings the block file to it, on the calling thread, and keeps that state as long
    /// as the snapshot lives. Others go on reading and writing; blocks that they free meanwhile are used again only when
    /// it is gone.
    ///
    /// # Errors
    /// As [`Store::checkpoint`].
    pub fn snapshot(&self) -> Result<Snapshot> {
        if self.is_dirty() {
            self.checkpoint()?;
        }
        let view = self.shared.checkpoints.file.lock().view();
        Ok(self.pin(view))
    }

    /// As [`Store::snapshot`], without waiting: of the moment when `number` was asked for with
    /// [`Store::request_checkpoint`], or later. `None` while that checkpoint has not ended, or the next one is running.
    ///
    /// # Errors
    /// What the checkpoint said.
    pub fn snapshot_of_request(&self, number: u64) -> Option<std::result::Result<Snapshot, String>> {
        match self.checkpoint_ended(number)? {
            Ok(()) => self.shared.checkpoints.file.try_lock().map(|file| file.view()).map(|view| Ok(self.pin(view))),
            Err(problem) => Some(Err(problem)),
        }
    }

    fn pin(&self, view: View) -> Snapshot {
        let shared: &Shared = &self.shared;
        let cut = view.superblock().cut;
        // Read in this order: what was written until then has a version by now.
        let now_ms = self.now_ms();
        let is_newest = shared.log.last_version() <= cut;
        let numbers = base::decode(view.databases()).map_or_else(Vec::new, |(ids, _)| ids.exchanged);
        Snapshot::new(view, *shared.keyspace.hasher(), if is_newest { now_ms } else { cut.time_ms() }, numbers)
    }
}

/// Says beside the archive which store this one was restored from. `newest`: its versions are above it.
pub(super) fn note_origin(options: &Options, base: &Base, newest: Version) {
    let superblock = base.file.superblock();
    let Some(archive) = options.archive.as_ref().filter(|_| superblock.parent_store_id != [0; 16]) else {
        return;
    };
    let lineage = Lineage {
        store_id: StoreId(superblock.identity.store_id),
        parent: StoreId(superblock.parent_store_id),
        fork: superblock.fork_version,
        birth: newest,
    };
    if let Err(error) = note_lineage(&*options.disk, &archive.directory, &lineage) {
        warn_of_archive(&error);
    }
}

fn warn_of_archive(error: &Error) {
    tracing::error!(%error, "the archive does not say which store this one was restored from; the next start tries again");
}
