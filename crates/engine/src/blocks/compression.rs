//! Compression of values: one at a time, so that one can be read without its neighbours, and moved without being read.
//!
//! What does not become smaller by an eighth stays as it is, and so do integers and short values. Values in chunks are
//! compressed part by part, without a dictionary.
//!
//! Not here: the bytes that say how a value is compressed (`format::record`), where they go, how a dictionary is made.

use std::sync::Arc;

use zstd::zstd_safe::DCtx;

use super::dictionary::{self, Dictionary, Sample};
use super::format::record::{CompressedValue, Method, PART_BYTES_MAX, Part};
use crate::keyspace::entry::Value;

/// Values below this length stay as they are without a dictionary, bytes: hardly one becomes smaller by an eighth.
const PLAIN_BELOW_BYTES: usize = 128;
/// Compression must save at least one byte of so many.
const SAVED_SHARE: usize = 8;

/// How the values that are written into the block file are compressed. What is there already stays as it is until it is
/// written anew; a file may hold values of every kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// LZ4: quick both ways.
    Lz4,
    /// Zstandard: smaller, and slower to write. Short values that are alike become smaller by a dictionary that the
    /// first checkpoint trains.
    Zstd {
        /// From 1, the quickest, to 22, the smallest; what is beyond is taken as the nearest.
        level: i32,
    },
}

/// Compresses values; keeps its memory from one to the next.
pub(crate) struct Compressor {
    encoder: Encoder,
    bytes: Vec<u8>,
    /// The file's, whether or not this compresses with it: records refer to it.
    dictionary: Option<Arc<Dictionary>>,
}

enum Encoder {
    None,
    Lz4,
    Zstd(ZstdEncoder),
}

struct ZstdEncoder {
    level: i32,
    plain: zstd::bulk::Compressor<'static>,
    with_dictionary: Option<zstd::bulk::Compressor<'static>>,
    /// What a dictionary will be trained on; `None` when there is one, or it was not worth it.
    sample: Option<Sample>,
}

impl Compressor {
    /// `dictionary` is the file's. Without one, and if it `may_train`, zstd makes one.
    pub(crate) fn new(compression: Compression, dictionary: Option<Arc<Dictionary>>, may_train: bool) -> Compressor {
        let encoder = match compression {
            Compression::None => Encoder::None,
            Compression::Lz4 => Encoder::Lz4,
            Compression::Zstd { level } => {
                let level = level.clamp(1, 22);
                // Without memory for it values stay as they are.
                zstd::bulk::Compressor::new(level).map_or(Encoder::None, |plain| {
                    let with_dictionary = dictionary.as_ref().and_then(|dictionary| dictionary.encoder(level));
                    let sample = (dictionary.is_none() && may_train).then(Sample::default);
                    Encoder::Zstd(ZstdEncoder { level, plain, with_dictionary, sample })
                })
            }
        };
        Compressor { encoder, bytes: Vec::new(), dictionary }
    }

    /// The dictionary that the file has from this checkpoint on.
    pub(crate) fn dictionary(&self) -> Option<&Arc<Dictionary>> {
        self.dictionary.as_ref()
    }

    /// How the parts of values in chunks are compressed, if they are.
    pub(crate) fn part_method(&self) -> Option<Method> {
        match self.encoder {
            Encoder::None => None,
            Encoder::Lz4 => Some(Method::Lz4),
            Encoder::Zstd(_) => Some(Method::Zstd),
        }
    }

    /// A value compressed; `None` when it stays as it is.
    pub(crate) fn value(&mut self, value: Value<'_>) -> Option<CompressedValue<'_>> {
        let Value::Bytes(plain) = value else {
            return None;
        };
        self.learn(plain);
        let (method, plain_below) = match &self.encoder {
            Encoder::None => return None,
            Encoder::Lz4 => (Method::Lz4, PLAIN_BELOW_BYTES),
            Encoder::Zstd(ZstdEncoder { with_dictionary: Some(_), .. }) => {
                (Method::ZstdDictionary, dictionary::PLAIN_BELOW_BYTES)
            }
            Encoder::Zstd(_) => (Method::Zstd, PLAIN_BELOW_BYTES),
        };
        if plain.len() < plain_below {
            return None;
        }
        let bytes = self.compress(method, plain)?;
        Some(CompressedValue { method, plain_bytes: plain.len(), bytes })
    }

    /// A part of a value that is put into chunks.
    pub(crate) fn part<'a>(&'a mut self, plain: &'a [u8]) -> Part<'a> {
        let method = self.part_method();
        let bytes = method.and_then(|method| self.compress(method, plain)).unwrap_or(plain);
        Part { plain_bytes: plain.len(), bytes }
    }

    /// Takes a value into account for the dictionary that there is not yet.
    fn learn(&mut self, plain: &[u8]) {
        if let Encoder::Zstd(encoder) = &mut self.encoder
            && encoder.sample.as_mut().is_some_and(|sample| sample.add(plain))
            && let Some(dictionary) = encoder.sample.take().and_then(|sample| sample.train(encoder.level))
        {
            encoder.with_dictionary = dictionary.encoder(encoder.level);
            self.dictionary = Some(Arc::new(dictionary));
        }
    }

    /// The bytes compressed; `None` when that saves too little.
    fn compress(&mut self, method: Method, plain: &[u8]) -> Option<&[u8]> {
        let most = plain.len() - plain.len().div_ceil(SAVED_SHARE);
        let bytes = match (&mut self.encoder, method) {
            (Encoder::None, _) => return None,
            (Encoder::Lz4, _) => {
                let room = lz4_flex::block::get_maximum_output_size(plain.len());
                lz4_flex::block::compress_into(plain, grown(&mut self.bytes, room)).ok()?
            }
            (Encoder::Zstd(encoder), method) => {
                let encoder = match method {
                    Method::ZstdDictionary => encoder.with_dictionary.as_mut()?,
                    _ => &mut encoder.plain,
                };
                encoder.compress_to_buffer(plain, grown(&mut self.bytes, most)).ok()?
            }
        };
        self.bytes.get(..bytes).filter(|bytes| bytes.len() <= most)
    }
}

/// The first bytes of a buffer, which is made longer where it is shorter.
fn grown(buffer: &mut Vec<u8>, bytes: usize) -> &mut [u8] {
    if buffer.len() < bytes {
        buffer.resize(bytes, 0);
    }
    &mut buffer[..bytes]
}

/// Brings values back; keeps its memory from one to the next. Bytes that are not what was written are found out where
/// they cannot be read or do not give as many as was said; the checksums of the blocks are there for the rest.
#[derive(Default)]
pub(crate) struct Decompressor {
    zstd: Option<DCtx<'static>>,
    plain: Vec<u8>,
}

impl Decompressor {
    /// Bytes of memory that its last value took.
    pub(crate) fn bytes(&self) -> usize {
        self.plain.capacity()
    }

    /// The value of a record in one piece, in a file with this dictionary; `None` for bytes that are not one.
    pub(crate) fn value(&mut self, value: &CompressedValue<'_>, dictionary: Option<&Dictionary>) -> Option<&[u8]> {
        self.plain.clear();
        self.append(value, dictionary)?;
        Some(&self.plain)
    }

    /// The value of `plain_bytes` whose parts stand in `bytes`; `None` for bytes that are not one. Memory grows with what
    /// the parts give, not with what was promised.
    pub(crate) fn parts(&mut self, method: Method, plain_bytes: u64, mut bytes: &[u8]) -> Option<&[u8]> {
        self.plain.clear();
        while !bytes.is_empty() {
            let Part { plain_bytes: of_part, bytes: stored } = Part::take(&mut bytes)?;
            if (self.plain.len() + of_part) as u64 > plain_bytes {
                return None;
            }
            if stored.len() == of_part {
                self.plain.extend_from_slice(stored);
            } else {
                self.append(&CompressedValue { method, plain_bytes: of_part, bytes: stored }, None)?;
            }
        }
        (self.plain.len() as u64 == plain_bytes).then_some(&*self.plain)
    }

    /// Appends what the bytes give, which must be as much as is said.
    fn append(&mut self, value: &CompressedValue<'_>, dictionary: Option<&Dictionary>) -> Option<()> {
        assert!(value.plain_bytes <= PART_BYTES_MAX, "what is promised is little");
        let before = self.plain.len();
        self.plain.resize(before + value.plain_bytes, 0);
        let room = &mut self.plain[before..];
        let given = match value.method {
            Method::Lz4 => lz4_flex::block::decompress_into(value.bytes, room).ok(),
            Method::Zstd => self.zstd.get_or_insert_default().decompress(room, value.bytes).ok(),
            Method::ZstdDictionary => {
                let decoder = dictionary?.decoder();
                self.zstd.get_or_insert_default().decompress_using_ddict(room, value.bytes, decoder).ok()
            }
        };
        given.filter(|given| *given == value.plain_bytes).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::tests::compression::short_text;
    use proptest::prelude::*;

    const ALL: [Compression; 4] =
        [Compression::None, Compression::Lz4, Compression::Zstd { level: 1 }, Compression::Zstd { level: 99 }];

    fn text(bytes: usize) -> Vec<u8> {
        br#"{"name":"value","numbers":[1,2,3]},"#.iter().copied().cycle().take(bytes).collect()
    }

    fn noise(bytes: usize) -> Vec<u8> {
        let mut state = 7u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u8
        };
        (0..bytes).map(|_| next()).collect()
    }

    #[test]
    fn what_becomes_smaller_is_compressed_and_nothing_else() {
        for compression in [Compression::Lz4, Compression::Zstd { level: 3 }] {
            let mut compressor = Compressor::new(compression, None, true);
            for bytes in [PLAIN_BELOW_BYTES, 1000, 48 * 1024] {
                let value = text(bytes);
                let found = compressor.value(Value::Bytes(&value)).map(|value| value.bytes.len());
                assert!(found.is_some_and(|stored| stored <= bytes * 7 / 8), "{compression:?}: {bytes} to {found:?}");
                assert_eq!(compressor.value(Value::Bytes(&noise(bytes))), None);
            }
            assert_eq!(compressor.value(Value::Bytes(&text(PLAIN_BELOW_BYTES - 1))), None);
            assert_eq!(compressor.value(Value::Bytes(b"")), None);
            assert_eq!(compressor.value(Value::Integer(7)), None);
        }
        assert_eq!(Compressor::new(Compression::None, None, true).value(Value::Bytes(&text(1000))), None);
    }

    #[test]
    fn a_value_that_gives_another_length_is_none() {
        for compression in [Compression::Lz4, Compression::Zstd { level: 3 }] {
            let (mut compressor, mut decompressor) =
                (Compressor::new(compression, None, true), Decompressor::default());
            let plain = text(1000);
            let value = compressor.value(Value::Bytes(&plain)).expect("it becomes smaller");
            assert_eq!(decompressor.value(&value, None), Some(&plain[..]));
            for plain_bytes in [0, 1, 999, 1001, 48 * 1024] {
                assert_eq!(decompressor.value(&CompressedValue { plain_bytes, ..value }, None), None);
            }
            for cut in 0..value.bytes.len() {
                let bytes = value.bytes.get(..cut).unwrap_or_default();
                assert_eq!(decompressor.value(&CompressedValue { bytes, ..value }, None), None, "{cut}");
            }
        }
    }

    #[test]
    fn short_values_that_are_alike_become_smaller_by_the_dictionary_and_by_no_other() {
        let mut compressor = Compressor::new(Compression::Zstd { level: 3 }, None, true);
        let mut number = 0;
        while compressor.dictionary().is_none() {
            number += 1;
            let _ = compressor.value(Value::Bytes(&short_text(number)));
        }
        let dictionary = compressor.dictionary().cloned().expect("a dictionary");
        let mut decompressor = Decompressor::default();
        let mut again = Compressor::new(Compression::Zstd { level: 9 }, Some(dictionary.clone()), true);
        for number in number..number + 1000 {
            let plain = short_text(number);
            for compressor in [&mut compressor, &mut again] {
                let value = compressor.value(Value::Bytes(&plain)).expect("it becomes smaller");
                assert!(value.method == Method::ZstdDictionary && value.bytes.len() < plain.len() * 3 / 4);
                assert_eq!(decompressor.value(&value, Some(&dictionary)), Some(&plain[..]));
                assert_eq!(decompressor.value(&value, None), None);
            }
        }
        let mut other = Compressor::new(Compression::Lz4, Some(dictionary), true);
        assert!(other.dictionary().is_some(), "records refer to it, whatever is set now");
        assert_eq!(other.value(Value::Bytes(&short_text(1))), None);
        let mut untrained = Compressor::new(Compression::Zstd { level: 3 }, None, false);
        for number in 0..number + 100 {
            let _ = untrained.value(Value::Bytes(&short_text(number)));
        }
        assert!(untrained.dictionary().is_none());
    }

    #[test]
    fn parts_that_give_more_than_the_record_says_are_not_read_on() {
        let plain = vec![0; PART_BYTES_MAX];
        let mut compressor = Compressor::new(Compression::Zstd { level: 1 }, None, true);
        let part = compressor.part(&plain);
        let one = [&part.head()[..], part.bytes].concat();
        let many = one.repeat(10_000);
        let mut decompressor = Decompressor::default();
        assert_eq!(decompressor.parts(Method::Zstd, 3 * PART_BYTES_MAX as u64 + 1, &many), None);
        assert!(decompressor.plain.capacity() <= 8 * PART_BYTES_MAX, "{} bytes", decompressor.plain.capacity());
        // A promise alone costs nothing either.
        let mut decompressor = Decompressor::default();
        assert_eq!(decompressor.parts(Method::Zstd, 500_000_000, &one), None);
        assert!(decompressor.plain.capacity() <= 2 * PART_BYTES_MAX);
    }

    proptest! {
        #[test]
        fn every_value_comes_back(
            plain in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..3000), prop::collection::vec(0u8..4, 0..20_000),
                (0usize..49_152).prop_map(text),
            ],
        ) {
            let mut decompressor = Decompressor::default();
            for compression in ALL {
                let mut compressor = Compressor::new(compression, None, true);
                if let Some(value) = compressor.value(Value::Bytes(&plain)) {
                    prop_assert!(value.bytes.len() <= plain.len() - plain.len() / 8);
                    prop_assert_eq!(decompressor.value(&value, None), Some(&plain[..]));
                }
            }
        }

        #[test]
        fn every_row_of_parts_comes_back(lengths in prop::collection::vec(1usize..PART_BYTES_MAX, 0..4), noisy: bool) {
            let mut decompressor = Decompressor::default();
            for compression in ALL {
                let mut compressor = Compressor::new(compression, None, true);
                let (mut bytes, mut all) = (Vec::new(), Vec::new());
                for length in &lengths {
                    let plain = if noisy { noise(*length) } else { text(*length) };
                    let part = compressor.part(&plain);
                    bytes.extend_from_slice(&part.head());
                    bytes.extend_from_slice(part.bytes);
                    all.extend_from_slice(&plain);
                }
                let method = compressor.part_method().unwrap_or(Method::Lz4);
                prop_assert_eq!(decompressor.parts(method, all.len() as u64, &bytes), Some(&all[..]));
                prop_assert_eq!(decompressor.parts(method, all.len() as u64 + 1, &bytes), None);
            }
        }

        #[test]
        fn any_bytes_give_what_was_said_or_nothing(
            bytes in prop::collection::vec(any::<u8>(), 0..300), plain_bytes in 0usize..1000, length in 0usize..2000,
            edits in prop::collection::vec((any::<usize>(), any::<u8>()), 0..4),
        ) {
            let mut decompressor = Decompressor::default();
            for (method, compression) in [(Method::Lz4, ALL[1]), (Method::Zstd, ALL[2])] {
                let given = decompressor.value(&CompressedValue { method, plain_bytes, bytes: &bytes }, None);
                prop_assert!(given.is_none_or(|given| given.len() == plain_bytes));
                let _ = decompressor.parts(method, plain_bytes as u64, &bytes);
                let mut compressor = Compressor::new(compression, None, true);
                let plain = text(length);
                if let Some(value) = compressor.value(Value::Bytes(&plain)) {
                    let mut wrong = value.bytes.to_vec();
                    for (at, byte) in &edits {
                        let at = at % wrong.len();
                        wrong[at] = *byte;
                    }
                    let given = decompressor.value(&CompressedValue { bytes: &wrong, ..value }, None);
                    prop_assert!(given.is_none_or(|given| given.len() == length));
                }
            }
        }
    }
}
