//! Free ports on loopback.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// Below those that the kernel gives out by itself: between now and the time when it is
/// used, nobody's connection takes one of these.
const FIRST: u16 = 12_000;
const COUNT: u16 = 20_000;

/// `count` different addresses that were free a moment ago.
pub(super) fn free(count: usize) -> std::io::Result<Vec<SocketAddr>> {
    let mut random = [0; 2];
    getrandom::fill(&mut random).map_err(std::io::Error::other)?;
    let start = u16::from_le_bytes(random) % COUNT;
    let mut held = Vec::with_capacity(count);
    for step in 0..COUNT {
        let port = FIRST + (start + step) % COUNT;
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            held.push(listener);
        }
        if held.len() == count {
            break;
        }
    }
    if held.len() < count {
        return Err(std::io::Error::other("no port is free on loopback"));
    }
    held.iter().map(TcpListener::local_addr).collect()
}
