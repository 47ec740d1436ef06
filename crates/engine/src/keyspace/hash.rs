//! The seeded hash of a key. SipHash-1-3 (Aumasson and Bernstein 2012, the reduced form that Rust's own maps use): a
//! client that does not know the seed cannot choose keys that collide.

use siphasher::sip::SipHasher13;

/// Hashes keys with a secret seed of 128 bits, in two independent ways.
///
/// The block file orders its index by the hash and tells keys of one hash apart by the fingerprint, so both are part of a
/// file format: they follow from the seed alone, for ever.
#[derive(Clone, Copy, Debug)]
pub struct KeyHasher {
    hash: SipHasher13,
    fingerprint: SipHasher13,
}

impl KeyHasher {
    /// A hasher whose secret follows from `seed`.
    pub fn new(seed: u128) -> KeyHasher {
        let hash = SipHasher13::new_with_keys(seed as u64, (seed >> 64) as u64);
        let (low, high) = (hash.hash(b"fingerprint: low"), hash.hash(b"fingerprint: high"));
        KeyHasher { hash, fingerprint: SipHasher13::new_with_keys(low, high) }
    }

    /// The hash of a key.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> u64 {
        self.hash.hash(key)
    }

    /// A second hash of a key, which tells keys apart whose first one is the same.
    pub fn fingerprint(&self, key: &[u8]) -> u64 {
        self.fingerprint.hash(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_that_files_hold() {
        let hasher = KeyHasher::new(0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100);
        // The hash of no bytes is SipHash-1-3's usual test vector for this seed.
        assert_eq!((hasher.hash(b""), hasher.fingerprint(b"")), (0xabac_0158_050f_c4dc, 0xdcf2_b9cc_5f60_1b35));
        let key: [u8; 8] = std::array::from_fn(|n| n as u8);
        assert_eq!((hasher.hash(&key), hasher.fingerprint(&key)), (0x3690_9511_8d29_9a8e, 0x56d9_a8b1_7c56_d48a));
    }
}
