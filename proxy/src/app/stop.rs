//! When and how the gateway stops.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use crate::approvals::Approvals;
use crate::session::{Sessions, Signal};

/// For sessions that were told to end at once.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// pingora's own way is a fixed sleep; this one waits for sessions.
pub(super) struct Stop {
    sessions: Arc<Sessions>,
    approvals: Approvals,
    drain: Duration,
}

impl Stop {
    pub(super) fn new(sessions: Arc<Sessions>, approvals: Approvals, drain: Duration) -> Self {
        Self {
            sessions,
            approvals,
            drain,
        }
    }

    async fn asked(&self) {
        let listen = |kind| match signal(kind) {
            Ok(stream) => Some(stream),
            Err(error) => {
                tracing::error!(%error, "a signal cannot be waited for");
                None
            }
        };
        let (mut terminate, mut interrupt) = (
            listen(SignalKind::terminate()),
            listen(SignalKind::interrupt()),
        );
        let one = async |stream: &mut Option<tokio::signal::unix::Signal>| match stream {
            Some(stream) => drop(stream.recv().await),
            None => std::future::pending().await,
        };
        tokio::select! {
            () = one(&mut terminate) => {}
            () = one(&mut interrupt) => {}
        }
    }
}

#[async_trait]
impl ShutdownSignalWatch for Stop {
    async fn recv(&self) -> ShutdownSignal {
        self.asked().await;
        tracing::info!(sessions = self.sessions.len(), limit = ?self.drain, "stopping");
        self.sessions.drain(Signal::Drain);
        // Whoever waits for a reviewer is told that nobody will answer here any more.
        self.approvals.orphan_all().await;
        tokio::select! {
            () = self.sessions.empty() => {}
            () = tokio::time::sleep(self.drain) => {
                tracing::warn!(sessions = self.sessions.len(), "ending sessions that are still busy");
                self.sessions.drain(Signal::Shutdown);
                let _ = timeout(LAST_WORDS, self.sessions.empty()).await;
            }
            // Asked twice: at once.
            () = self.asked() => {
                self.sessions.drain(Signal::Shutdown);
                let _ = timeout(LAST_WORDS, self.sessions.empty()).await;
            }
        }
        ShutdownSignal::FastShutdown
    }
}
