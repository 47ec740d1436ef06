//! Sorting by hash in pieces, with a pause after each: a range of a large store has a hundred thousand changes, and sorting
//! them at once would hold up whoever shares the processor for milliseconds.
//!
//! Hashes are spread evenly, so parts of the span between the least and the greatest get about the same number of items.

/// Items in a piece, about.
const PIECE: usize = 512;
/// Items that are moved between two pauses.
const MOVED: usize = 4096;

/// Sorts by hash; items of the same hash keep their order.
pub(crate) fn by_hash<T: Copy>(items: &mut Vec<T>, hash: impl Fn(&T) -> u64, pause: &dyn Fn()) {
    let (least, greatest) = items.iter().map(&hash).fold((u64::MAX, 0), |(a, b), hash| (a.min(hash), b.max(hash)));
    if items.len() <= 2 * PIECE || least == greatest {
        items.sort_by_key(hash);
        return;
    }
    let pieces = items.len() / PIECE;
    let width = (greatest - least) / pieces as u64 + 1;
    let mut parts: Vec<Vec<T>> = vec![Vec::new(); pieces];
    for some in items.chunks(MOVED) {
        for item in some {
            // No greater than the last one: the width was rounded up.
            if let Some(part) = parts.get_mut(((hash(item) - least) / width) as usize) {
                part.push(*item);
            }
        }
        pause();
    }
    let before = items.len();
    items.clear();
    for mut part in parts {
        part.sort_by_key(&hash);
        items.append(&mut part);
        pause();
    }
    assert!(items.len() == before, "every item has its part");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::Cell;

    proptest! {
        #[test]
        fn items_are_in_order_and_those_of_one_hash_keep_theirs(
            count in 0usize..6000, bits in 0u32..64, base: u64, multiplier: u64,
        ) {
            let hash_of = |place: u64| base | place.wrapping_mul(multiplier | 1) >> bits;
            let mut items: Vec<(u64, usize)> = (0..count).map(|place| (hash_of(place as u64), place)).collect();
            let mut wanted = items.clone();
            wanted.sort();
            by_hash(&mut items, |item| item.0, &|| {});
            prop_assert_eq!(items, wanted);
        }
    }

    #[test]
    fn a_long_sort_pauses_often() {
        let pauses = Cell::new(0);
        let mut items: Vec<u64> = (0..100_000u64).map(|place| place.wrapping_mul(0x9E37_79B9_7F4A_7C15)).collect();
        by_hash(&mut items, |item| *item, &|| pauses.set(pauses.get() + 1));
        assert!(items.is_sorted() && pauses.get() > 100_000 / (2 * PIECE), "{}", pauses.get());
    }
}
