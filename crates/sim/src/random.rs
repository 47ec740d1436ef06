//! A small seeded random source (xoshiro256**, seeded through splitmix64): the same seed gives the same numbers on
//! every machine and in every release. Not for secrets.

/// A stream of random numbers that depends on its seed alone.
#[derive(Clone, Debug)]
pub struct Random {
    state: [u64; 4],
}

impl Random {
    /// The stream of `seed`.
    pub fn new(seed: u64) -> Random {
        let mut next = seed;
        Random { state: std::array::from_fn(|_| split_mix(&mut next)) }
    }

    /// A stream of its own for the part `part` of a run: streams of different parts share nothing visible.
    pub fn for_part(seed: u64, part: u64) -> Random {
        let mut mixed = part;
        Random::new(seed ^ split_mix(&mut mixed))
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        let [first, second, third, fourth] = self.state;
        let result = second.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let third = third ^ first;
        let fourth = fourth ^ second;
        self.state = [first ^ fourth, second ^ third, third ^ (second << 17), fourth.rotate_left(45)];
        result
    }

    /// A number in `0..bound`. Panics when `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "a random number below 0 does not exist");
        // The bias of a plain remainder is below 2^-32 for every bound that a simulation uses.
        self.bits() % bound
    }

    /// An index into something of `length` elements. Panics when it is empty.
    pub fn index(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }

    /// True in `parts` of `whole` cases.
    pub fn chance(&mut self, parts: u64, whole: u64) -> bool {
        self.below(whole) < parts
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for piece in bytes.chunks_mut(8) {
            let random = self.bits().to_le_bytes();
            for (byte, value) in piece.iter_mut().zip(random) {
                *byte = value;
            }
        }
    }
}

fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_for_ever() {
        let mut random = Random::new(1);
        let first: Vec<u64> = (0..3).map(|_| random.bits()).collect();
        let mut again = Random::new(1);
        let second: Vec<u64> = (0..3).map(|_| again.bits()).collect();
        assert_eq!(first, second);
        assert_ne!(Random::new(2).bits(), first[0]);
        assert_ne!(Random::for_part(1, 1).bits(), Random::for_part(1, 2).bits());
    }

    #[test]
    fn every_value_below_the_bound_comes_up() {
        let mut random = Random::new(7);
        let mut seen = [0u32; 10];
        for _ in 0..1_000 {
            seen[random.index(10)] += 1;
        }
        assert!(seen.iter().all(|count| *count > 50), "{seen:?}");
    }
}
