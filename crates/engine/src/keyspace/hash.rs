//! The seeded hash of a key. SipHash-1-3 (Aumasson and Bernstein 2012, the reduced form that Rust's own maps use): a
//! client that does not know the seed cannot choose keys that collide.

use siphasher::sip::SipHasher13;

/// Hashes keys with a secret seed of 128 bits. Hashes are never written to disk.
#[derive(Clone, Copy, Debug)]
pub struct KeyHasher(SipHasher13);

impl KeyHasher {
    /// A hasher whose secret follows from `seed`.
    pub fn new(seed: u128) -> KeyHasher {
        KeyHasher(SipHasher13::new_with_keys(seed as u64, (seed >> 64) as u64))
    }

    /// The hash of a key.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> u64 {
        self.0.hash(key)
    }
}
