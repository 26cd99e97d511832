//! Names and secrets that no other test has, so that a leak can be traced.

use std::io::Read as _;

/// `bytes` random bytes as hex.
pub fn hex(bytes: usize) -> String {
    hex::encode(raw(bytes))
}

pub fn raw(bytes: usize) -> Vec<u8> {
    let mut out = vec![0; bytes];
    std::fs::File::open("/dev/urandom")
        .unwrap()
        .read_exact(&mut out)
        .unwrap();
    out
}

/// Numbers that come again with the same seed. Not for secrets.
pub struct Seeded(u64);

impl Seeded {
    /// The seed of `HOLDPOINT_SEED`, or a new one; said on standard error, so that a
    /// failure can be looked at again.
    pub fn new(test: &str) -> Self {
        let given = std::env::var("HOLDPOINT_SEED").ok();
        let seed = given.map_or_else(
            || u64::from_ne_bytes(raw(8).try_into().unwrap()),
            |text| text.parse().expect("HOLDPOINT_SEED is a number"),
        );
        eprintln!("{test}: HOLDPOINT_SEED={seed}");
        Self(seed | 1)
    }

    /// Another row of numbers, which this one sets.
    pub fn fork(&mut self) -> Self {
        Self(self.below(u64::MAX) | 1)
    }

    /// Below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound
    }
}
