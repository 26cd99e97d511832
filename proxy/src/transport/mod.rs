//! How bytes arrive and leave: TCP with in-band TLS.
//!
//! A connection is a [`Duplex`] whatever lies below it. TLS begins on a live one,
//! after bytes in clear, so the handshake is ours and not the listener's. What is
//! to be written waits in an [`Outbox`], so that nobody who writes has to wait.

mod outbox;
mod rewound;
mod sealed;
mod tls;

pub use outbox::Outbox;
pub use rewound::Rewound;
pub use tls::{ClientTls, ServerTls, TlsError};

use std::time::Duration;

use pingora::protocols::l4::ext::TcpKeepalive;
use tokio::io::{AsyncRead, AsyncWrite};

/// Bytes in both directions.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

pub type Duplex = Box<dyn Io>;

/// Stands where a connection was taken out, and for one that is closed.
pub fn nowhere() -> Duplex {
    Box::new(tokio::io::join(tokio::io::empty(), tokio::io::sink()))
}

/// On both sides: a peer that vanished is noticed within two minutes.
pub const KEEPALIVE: TcpKeepalive = TcpKeepalive {
    idle: Duration::from_secs(60),
    interval: Duration::from_secs(15),
    count: 4,
    #[cfg(target_os = "linux")]
    user_timeout: Duration::ZERO,
};
