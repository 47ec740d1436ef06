//! Segments that are in the block file only, after a lazy start: commands have them loaded before they take a hold.
//!
//! A command whose segments are there runs at once, whatever else is still to be loaded. Once everything is, all that is
//! left of this is one look at a number. Not here: loading (`store::load`).

use super::unit::{Watched, empties, whole};
use super::{Executor, Planned, Request};
use crate::error::Result;
use crate::keyspace::{Keyspace, SegmentSet};

/// The segments whose entries these commands may look at or change.
fn segments_of(keyspace: &Keyspace, request: &Request<'_>, commands: &[Planned]) -> SegmentSet {
    let mut segments = SegmentSet::EMPTY;
    for planned in commands {
        if empties(planned) {
            // What is to go need not come first.
            continue;
        }
        if whole(planned) {
            return keyspace.every_segment();
        }
        planned.keys(request).for_each(|key| segments.insert(keyspace.segment_of(keyspace.hash(key))));
    }
    segments
}

impl Executor {
    /// How many of `commands`, from the front, have all their segments in memory. 0: those of the first are being loaded,
    /// left alone until [`Executor::take_fetch`].
    ///
    /// # Errors
    /// Why segments of the first cannot be loaded.
    #[inline]
    pub(super) fn loaded_part(&mut self, request: &Request<'_>, commands: &[Planned]) -> Result<usize> {
        if self.store.keyspace().all_loaded() { Ok(commands.len()) } else { self.load_front(request, commands) }
    }

    #[cold]
    fn load_front(&mut self, request: &Request<'_>, commands: &[Planned]) -> Result<usize> {
        let store = self.store.clone();
        let keyspace = store.keyspace();
        let of = |planned: &Planned| segments_of(keyspace, request, std::slice::from_ref(planned));
        let is_there = |planned: &&Planned| keyspace.unloaded_of(of(planned)).is_empty();
        let there = commands.iter().take_while(is_there).count();
        let Some(first) = commands.first().filter(|_| there == 0) else { return Ok(there) };
        if self.load_segments(of(first))? {
            return Ok(1);
        }
        // What the others will need may come meanwhile, but the first waits for none of it.
        let others = commands.iter().take_while(|planned| !whole(planned));
        store.load_soon(others.fold(SegmentSet::EMPTY, |segments, planned| segments.union(of(planned))));
        Ok(0)
    }

    /// As [`Executor::loaded_part`], for commands that run all at once.
    pub(super) fn load_unit(&mut self, request: &Request<'_>, unit: &[Planned], watched: &[Watched]) -> Result<bool> {
        if self.store.keyspace().all_loaded() {
            return Ok(true);
        }
        let keyspace = self.store.keyspace();
        let watched = watched.iter().map(|watched| SegmentSet::one(keyspace.segment_of(keyspace.hash(watched.key()))));
        let segments = watched.fold(segments_of(keyspace, request, unit), SegmentSet::union);
        self.load_segments(segments)
    }

    /// Has the segments of these keys loaded, before [`Executor::watch`]. False: they are being loaded, left alone until
    /// [`Executor::take_fetch`].
    ///
    /// # Errors
    /// [`Error::NotLoaded`](crate::Error::NotLoaded), [`Error::Closed`](crate::Error::Closed).
    pub fn load_keys<'k>(&mut self, keys: impl Iterator<Item = &'k [u8]>) -> Result<bool> {
        let keyspace = self.store.keyspace();
        if keyspace.all_loaded() {
            return Ok(true);
        }
        let mut segments = SegmentSet::EMPTY;
        keys.for_each(|key| segments.insert(keyspace.segment_of(keyspace.hash(key))));
        self.load_segments(segments)
    }

    /// Has segments loaded: by other threads if there is somebody to wake, then they may be missing still (false).
    fn load_segments(&mut self, segments: SegmentSet) -> Result<bool> {
        let missing = self.store.keyspace().unloaded_of(segments);
        if missing.is_empty() {
            return Ok(true);
        }
        match self.waker.clone() {
            None => self.store.load_segments(missing).map(|()| true),
            Some(waker) => {
                self.fetch = Some(self.store.fetch_segments(missing, waker)?);
                Ok(false)
            }
        }
    }
}
