//! The dictionary of a file: what its values have in common, so that a short one becomes smaller all by itself.
//!
//! A file has one at most. It is trained on the first values that a checkpoint with zstd puts, and published with that
//! checkpoint, in its manifest. Records refer to it, so it stays until everything is emptied, whatever is set later.
//!
//! Not here: which values are compressed with it (`compression`), its bytes in the file (`format::manifest`).

use zstd::zstd_safe::{CompressionLevel, DDict};

use super::format::manifest::DICTIONARY_BYTES_MAX;

/// Bytes of values that one is trained on. Four times as many make it hardly better, and take 150 ms instead of 40.
const SAMPLE_BYTES: usize = 256 * 1024;
/// Bytes that are taken of one value.
const SAMPLE_VALUE_BYTES_MAX: usize = 4096;
/// Values below this length stay as they are, bytes.
pub(crate) const PLAIN_BELOW_BYTES: usize = 48;
/// A dictionary is worth it when it saves one byte of so many.
const SAVED_SHARE: usize = 8;

/// A dictionary that is ready to read with.
pub(crate) struct Dictionary {
    bytes: Vec<u8>,
    decoder: DDict<'static>,
}

impl Dictionary {
    /// `None` for bytes that are no dictionary.
    pub(crate) fn new(bytes: Vec<u8>) -> Option<Dictionary> {
        let decoder = DDict::try_create(&bytes)?;
        Some(Dictionary { bytes, decoder })
    }

    /// Its bytes as the file keeps them.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn decoder(&self) -> &DDict<'static> {
        &self.decoder
    }

    /// What compresses with it; `None` without memory for it.
    pub(crate) fn encoder(&self, level: CompressionLevel) -> Option<zstd::bulk::Compressor<'static>> {
        let mut encoder = zstd::bulk::Compressor::with_dictionary(level, &self.bytes).ok()?;
        // Four bytes in each value that say nothing: a file has one.
        encoder.include_dictid(false).ok()?;
        Some(encoder)
    }
}

/// Values that a dictionary is trained on.
#[derive(Default)]
pub(crate) struct Sample {
    bytes: Vec<u8>,
    lengths: Vec<usize>,
}

impl Sample {
    /// Takes a value; true when there are enough.
    pub(crate) fn add(&mut self, value: &[u8]) -> bool {
        let part = &value[..value.len().min(SAMPLE_VALUE_BYTES_MAX)];
        if part.len() >= PLAIN_BELOW_BYTES {
            self.bytes.extend_from_slice(part);
            self.lengths.push(part.len());
        }
        self.bytes.len() >= SAMPLE_BYTES
    }

    /// The dictionary of these values; `None` when it would not make them smaller than they become without.
    pub(crate) fn train(&self, level: CompressionLevel) -> Option<Dictionary> {
        let bytes = zstd::dict::from_continuous(&self.bytes, &self.lengths, DICTIONARY_BYTES_MAX).ok()?;
        let dictionary = Dictionary::new(bytes)?;
        let without = self.stored_bytes(&mut zstd::bulk::Compressor::new(level).ok()?);
        let with = self.stored_bytes(&mut dictionary.encoder(level)?);
        (with <= without - without / SAVED_SHARE).then_some(dictionary)
    }

    /// What the values take, each compressed where that is shorter.
    fn stored_bytes(&self, encoder: &mut zstd::bulk::Compressor<'_>) -> usize {
        let mut buffer = [0; SAMPLE_VALUE_BYTES_MAX];
        let (mut rest, mut stored) = (&self.bytes[..], 0);
        for length in &self.lengths {
            let (value, others) = rest.split_at(*length);
            rest = others;
            stored += encoder.compress_to_buffer(value, &mut buffer[..*length]).unwrap_or(*length);
        }
        stored
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::tests::compression::{noise, short_text};

    #[test]
    fn a_dictionary_is_trained_on_values_that_are_alike_and_on_no_others() {
        let mut alike = Sample::default();
        let count = (0..).take_while(|number| !alike.add(&short_text(*number))).count();
        assert!(count > 1000, "{count} short values are enough");
        let dictionary = alike.train(3).expect("it is worth it");
        assert!((1..=DICTIONARY_BYTES_MAX).contains(&dictionary.bytes().len()));
        let mut different = Sample::default();
        let enough = (0..1000).any(|number| different.add(&noise(1000, number)));
        assert!(enough && different.train(3).is_none());
        let mut short = Sample::default();
        assert!(!(0..100_000).any(|_| short.add(&[b'v'; PLAIN_BELOW_BYTES - 1])));
        assert!(short.train(3).is_none());
    }

    #[test]
    fn bytes_that_only_begin_as_a_dictionary_are_none() {
        let mut alike = Sample::default();
        let _ = (0..).find(|number| alike.add(&short_text(*number)));
        let dictionary = alike.train(3).expect("it is worth it");
        let mut wrong = dictionary.bytes().to_vec();
        assert!(Dictionary::new(wrong.clone()).is_some());
        // Behind magic number and name stand the tables.
        wrong[8..100].fill(0xFF);
        assert!(Dictionary::new(wrong).is_none());
        assert!(Dictionary::new(dictionary.bytes()[..60].to_vec()).is_none());
    }
}
