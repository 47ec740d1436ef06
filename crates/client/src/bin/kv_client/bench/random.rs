//! Random numbers that a seed repeats, and the choice of keys.
//!
//! The zipf distribution is sampled by rejection-inversion (Hörmann and Derflinger, 1996): constant time and memory for
//! any number of keys and any exponent above 0. Popular ranks are spread over the key space by a permutation, so that
//! the hot keys are not neighbours.

/// SplitMix64: small, fast, and good enough to choose keys with.
#[derive(Debug, Clone)]
pub(super) struct Random {
    state: u64,
}

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Random { state: seed }
    }

    pub(super) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; the bias is below 2^-24 for any number of keys in use.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// A number from 0 up to but without 1.
    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Chooses the number of the next key.
#[derive(Debug, Clone)]
pub(super) enum Chooser {
    /// Each of `keys` alike.
    Uniform { keys: u64 },
    /// The k-th most popular key k^exponent times less than the first.
    Zipf(Zipf, Spread),
    /// One after the other.
    Sequential { next: u64 },
}

impl Chooser {
    pub(super) fn zipf(keys: u64, exponent: f64) -> Self {
        Chooser::Zipf(Zipf::new(keys, exponent), Spread::new(keys))
    }

    pub(super) fn next(&mut self, random: &mut Random) -> u64 {
        match self {
            Chooser::Uniform { keys } => random.below(*keys),
            Chooser::Zipf(zipf, spread) => spread.place(zipf.rank(random) - 1),
            Chooser::Sequential { next } => {
                let key = *next;
                *next += 1;
                key
            }
        }
    }
}

/// A sampler of ranks from 1 to `ranks`.
#[derive(Debug, Clone)]
pub(super) struct Zipf {
    ranks: f64,
    exponent: f64,
    /// The integral of the hat function up to the last rank, and up to the first.
    area_all: f64,
    area_first: f64,
    /// Below this distance a candidate is accepted without further computing.
    quick: f64,
}

impl Zipf {
    fn new(ranks: u64, exponent: f64) -> Self {
        let ranks = ranks as f64;
        let mut zipf = Zipf { ranks, exponent, area_all: 0.0, area_first: 0.0, quick: 0.0 };
        zipf.area_all = zipf.area(ranks + 0.5);
        zipf.area_first = zipf.area(1.5) - 1.0;
        zipf.quick = 2.0 - zipf.area_inverse(zipf.area(2.5) - zipf.height(2.0));
        zipf
    }

    fn rank(&self, random: &mut Random) -> u64 {
        loop {
            let area = self.area_all + random.fraction() * (self.area_first - self.area_all);
            let place = self.area_inverse(area);
            let rank = place.round().clamp(1.0, self.ranks);
            if rank - place <= self.quick || area >= self.area(rank + 0.5) - self.height(rank) {
                return rank as u64;
            }
        }
    }

    fn height(&self, place: f64) -> f64 {
        (-self.exponent * place.ln()).exp()
    }

    /// The integral of `height`, written so that an exponent of 1 is no special case.
    fn area(&self, place: f64) -> f64 {
        let log = place.ln();
        let power = (1.0 - self.exponent) * log;
        let slope = if power.abs() > 1e-8 { power.exp_m1() / power } else { 1.0 + power / 2.0 };
        slope * log
    }

    fn area_inverse(&self, area: f64) -> f64 {
        let power = (area * (1.0 - self.exponent)).max(-1.0);
        let slope = if power.abs() > 1e-8 { power.ln_1p() / power } else { 1.0 - power / 2.0 };
        (slope * area).exp()
    }
}

/// A permutation of the numbers below `count`: multiplication by a number without common factor.
#[derive(Debug, Clone)]
pub(super) struct Spread {
    count: u64,
    factor: u64,
}

impl Spread {
    fn new(count: u64) -> Self {
        let mut factor = (count as f64 * 0.618_033_988_75) as u64 | 1;
        while greatest_common_divisor(factor, count) != 1 {
            factor += 2;
        }
        Spread { count, factor }
    }

    fn place(&self, rank: u64) -> u64 {
        match rank.checked_mul(self.factor) {
            Some(product) => product % self.count,
            None => (u128::from(rank) * u128::from(self.factor) % u128::from(self.count)) as u64,
        }
    }
}

fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(mut chooser: Chooser, keys: usize, draws: usize) -> Vec<usize> {
        let mut random = Random::new(42);
        let mut counts = vec![0; keys];
        for _ in 0..draws {
            counts[chooser.next(&mut random) as usize] += 1;
        }
        counts
    }

    #[test]
    fn uniform_keys_are_all_alike() {
        let counts = counts(Chooser::Uniform { keys: 10 }, 10, 100_000);
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
    }

    #[test]
    fn zipf_keys_follow_their_law() {
        for exponent in [0.5, 0.99, 1.0, 1.5] {
            let keys = 1000;
            let mut counts = counts(Chooser::zipf(keys as u64, exponent), keys, 400_000);
            counts.sort_unstable_by(|a, b| b.cmp(a));
            let total: f64 = (1..=keys).map(|rank| (rank as f64).powf(-exponent)).sum();
            for rank in [1, 2, 5, 20] {
                let expected = 400_000.0 * (rank as f64).powf(-exponent) / total;
                let found = counts[rank - 1] as f64;
                assert!(
                    (found / expected - 1.0).abs() < 0.12,
                    "exponent {exponent} rank {rank}: {found} for {expected}"
                );
            }
        }
    }

    #[test]
    fn the_spread_meets_every_key_once() {
        for count in [1, 2, 6, 100, 1001] {
            let spread = Spread::new(count);
            let mut places: Vec<u64> = (0..count).map(|rank| spread.place(rank)).collect();
            places.sort_unstable();
            assert!(places.into_iter().eq(0..count), "{count}");
        }
        assert!(Spread::new(1 << 40).place((1 << 40) - 1) < 1 << 40);
    }

    #[test]
    fn the_same_seed_makes_the_same_choices() {
        let draw = || {
            let (mut random, mut chooser) = (Random::new(7), Chooser::zipf(1000, 0.99));
            (0..50).map(|_| chooser.next(&mut random)).collect::<Vec<_>>()
        };
        assert_eq!(draw(), draw());
    }
}
