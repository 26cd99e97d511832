//! Free ports on loopback.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// `count` different addresses that were free a moment ago.
pub(super) fn free(count: usize) -> std::io::Result<Vec<SocketAddr>> {
    let held: Vec<_> = (0..count)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .collect::<Result<_, _>>()?;
    held.iter().map(TcpListener::local_addr).collect()
}
