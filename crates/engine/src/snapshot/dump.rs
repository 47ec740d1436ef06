//! A pinned checkpoint becomes frames.
//!
//! Entries come in ranges of hashes, so that memory does not grow with the store; within a range they come as they lie
//! in the block file.

use bowline_snapshot::{Header, Writer};

use crate::blocks::View;
use crate::blocks::format::record::encode_up_to_value;
use crate::error::Result;
use crate::keyspace::hash::KeyHasher;
use crate::version::Version;

/// Entries that a range has about; the reader of a range holds 24 bytes for each.
const RANGE_ENTRIES: u64 = 256 * 1024;

/// A state of a store that stays as it is while this lives: a checkpoint whose blocks are not used again.
pub struct Snapshot {
    view: View,
    hasher: KeyHasher,
    header: Header,
}

impl Snapshot {
    /// `taken_at_ms`: until then nothing was written after the view's cut.
    pub(crate) fn new(view: View, hasher: KeyHasher, taken_at_ms: u64) -> Snapshot {
        let superblock = *view.superblock();
        let header = Header {
            store_id: superblock.identity.store_id,
            parent_store_id: superblock.parent_store_id,
            hash_seed: superblock.identity.hash_seed,
            fork_version: superblock.fork_version.0,
            cut_version: superblock.cut.0,
            log_position: superblock.log_position,
            taken_at_ms: taken_at_ms.max(superblock.cut.time_ms()),
            entries: superblock.entries,
            live_bytes: view.data_bytes(),
            databases: view.databases().to_vec(),
        };
        Snapshot { view, hasher, header }
    }

    /// What it says of itself: identity, cut, size.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Every change up to this version is in it, and none after it.
    pub fn cut(&self) -> Version {
        Version(self.header.cut_version)
    }

    /// Hands the snapshot to `each`, piece by piece: the header, then whole frames of at most 1 MiB. Memory: some MiB, and
    /// the largest value.
    ///
    /// # Errors
    /// `Corrupt` and `Io` from reading the block file, and what `each` returns. What was handed out then has no end
    /// frame, so nobody takes it for a whole one.
    pub fn write(&self, each: &mut dyn FnMut(Vec<u8>) -> Result<()>) -> Result<()> {
        let (mut writer, header) = Writer::new(&self.header);
        each(header)?;
        let bits = self.header.entries.div_ceil(RANGE_ENTRIES).next_power_of_two().ilog2();
        let mut scratch = Vec::new();
        for range in 0..1u64 << bits {
            let first = range.checked_shl(u64::BITS - bits).unwrap_or(0);
            let last = first | u64::MAX.checked_shr(bits).unwrap_or(0);
            self.view.load(first..=last, &self.hasher, &mut |found| {
                scratch.clear();
                let rest = encode_up_to_value(&found.record, &mut scratch);
                writer.record(&[&scratch, rest], each)
            })?;
        }
        writer.finish(each).map(|_| ())
    }
}
