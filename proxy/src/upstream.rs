//! Connections to targets.
//!
//! Three ways lead to a target, one for each kind of bytes, and no other:
//! [`Upstream::author`] for what the plugin writes during login, whose handle is
//! gone once login is over; [`Upstream::send`] for commands, which takes a
//! [`Permit`]; [`Upstream::pass`] for the client's own frames that no rule judges.
//! None of them waits: [`Upstream::poll_flush`] writes.

use std::io;
use std::mem;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use holdpoint_core::config::Target;
use holdpoint_core::framing::{Delivery, Rule};
use holdpoint_core::gate::Permit;
use holdpoint_core::id::{CommandId, SessionId};
use pingora::protocols::l4::ext::set_tcp_keepalive;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::transport::{ClientTls, Duplex, KEEPALIVE, Outbox, nowhere};

#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    #[error("cannot reach `{host}:{port}`: {cause}")]
    Connect {
        host: String,
        port: u16,
        cause: io::Error,
    },
    #[error("`{host}:{port}` did not answer within {after:?}")]
    Timeout {
        host: String,
        port: u16,
        after: Duration,
    },
    #[error("TLS with the target failed: {0}")]
    Tls(io::Error),
    #[error("a permit of session {0} was brought to another session's target")]
    Foreign(SessionId),
}

/// The right to write what the plugin authored. There is one for each upstream, and
/// it is given up when login is over.
#[derive(Debug)]
#[must_use]
pub struct Login(());

/// A frame of the client that may go on without a permit: none that rules judge.
#[derive(Debug)]
pub struct Unjudged(Bytes);

impl Unjudged {
    /// `None` where the frame leaves only inside a submitted command.
    pub fn new(rule: Rule, bytes: Bytes) -> Option<Self> {
        let free = !rule.judged && rule.delivery != Delivery::Reject;
        free.then_some(Self(bytes))
    }

    pub fn bytes(&self) -> &Bytes {
        &self.0
    }
}

/// One connection to a target.
pub struct Upstream {
    session: SessionId,
    io: Duplex,
    tls: bool,
    outbox: Outbox,
    /// Commands whose bytes are not all with the kernel yet.
    sending: Vec<CommandId>,
}

impl Upstream {
    /// Connects, and no more: the protocol's own login comes next.
    ///
    /// # Errors
    /// The target cannot be reached in time.
    pub async fn dial(target: &Target, session: SessionId) -> Result<(Self, Login), UpstreamError> {
        let stream = connect(target).await?;
        Ok(Self::over(Box::new(stream), session))
    }

    /// As [`Upstream::dial`], over a connection that is there already.
    pub fn over(io: Duplex, session: SessionId) -> (Self, Login) {
        let outbox = Outbox::default();
        (
            Self {
                session,
                io,
                tls: false,
                outbox,
                sending: Vec::new(),
            },
            Login(()),
        )
    }

    /// Verified TLS over the live connection, once what was authored is out.
    ///
    /// # Errors
    /// The target's certificate did not verify, or the connection failed.
    pub async fn start_tls(
        &mut self,
        _login: &Login,
        tls: &ClientTls,
    ) -> Result<(), UpstreamError> {
        self.flush().await.map_err(UpstreamError::Tls)?;
        let io = mem::replace(&mut self.io, nowhere());
        self.io = tls.connect(io).await.map_err(UpstreamError::Tls)?;
        self.tls = true;
        Ok(())
    }

    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Bytes that the plugin wrote for the target's login.
    pub fn author(&mut self, _login: &Login, bytes: Bytes) {
        self.outbox.push(bytes);
    }

    /// Sends a command, which spends its permit.
    ///
    /// # Errors
    /// The permit is another session's; nothing was sent.
    pub fn send(&mut self, permit: Permit) -> Result<(), UpstreamError> {
        if *permit.session() != self.session {
            return Err(UpstreamError::Foreign(permit.session().clone()));
        }
        self.sending.push(permit.command());
        self.outbox.push(permit.into_bytes());
        Ok(())
    }

    /// Sends on what no rule judges. The caller has recorded it.
    pub fn pass(&mut self, frames: Unjudged) {
        self.outbox.push(frames.0);
    }

    /// Bytes that the target has not taken yet.
    pub fn backlog(&self) -> usize {
        self.outbox.len()
    }

    /// Gives memory back that it has no use for while nothing is sent.
    pub fn rest(&mut self) {
        self.outbox.rest();
        self.sending.shrink_to_fit();
    }

    /// The connection, for reading.
    pub fn io(&mut self) -> &mut Duplex {
        &mut self.io
    }

    /// Writes what waits. Ready once all of it is with the kernel.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.outbox.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.outbox.poll_flush(cx, &mut self.io)
    }

    /// How many commands went out whole since the last call; ask after a flush.
    pub fn sent(&mut self) -> usize {
        if self.outbox.is_empty() {
            mem::take(&mut self.sending).len()
        } else {
            0
        }
    }

    /// As [`Upstream::poll_flush`], waiting.
    ///
    /// # Errors
    /// The connection is broken.
    pub async fn flush(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Ends the connection in order.
    pub async fn close(mut self) {
        let _ = self.flush().await;
        let _ = self.io.shutdown().await;
    }
}

/// Delivers the target's own cancel packet, on a connection of its own.
///
/// In clear, as clients of such protocols do: the packet is of use only once, and
/// only for stopping what runs.
///
/// # Errors
/// The target cannot be reached.
pub async fn cancel(target: &Target, packet: &[u8]) -> Result<(), UpstreamError> {
    let mut stream = connect(target).await?;
    let failed = |cause| UpstreamError::Connect {
        host: target.host.clone(),
        port: target.port,
        cause,
    };
    stream.write_all(packet).await.map_err(failed)?;
    stream.shutdown().await.map_err(failed)
}

async fn connect(target: &Target) -> Result<TcpStream, UpstreamError> {
    let Target {
        host,
        port,
        connect_timeout,
        ..
    } = target;
    let failed = |cause| UpstreamError::Connect {
        host: host.clone(),
        port: *port,
        cause,
    };
    let stream = timeout(*connect_timeout, TcpStream::connect((host.as_str(), *port)))
        .await
        .map_err(|_| UpstreamError::Timeout {
            host: host.clone(),
            port: *port,
            after: *connect_timeout,
        })?
        .map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    // A target that vanished would otherwise be noticed after hours.
    let _ = set_tcp_keepalive(&stream, &KEEPALIVE);
    Ok(stream)
}
