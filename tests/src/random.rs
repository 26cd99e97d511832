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
