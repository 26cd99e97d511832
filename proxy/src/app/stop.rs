//! When and how the gateway stops.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{Signal as Unix, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;

use super::sockets::Sockets;
use crate::approvals::Approvals;
use crate::session::{Sessions, Signal};

/// For sessions that were told to end at once.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(10);

/// pingora's own way is a fixed sleep; this one waits for sessions.
pub(super) struct Stop {
    pub(super) sessions: Arc<Sessions>,
    pub(super) approvals: Approvals,
    pub(super) drain: Duration,
    /// Where a successor waits for the sockets.
    pub(super) state: PathBuf,
    /// Gone once nobody new is let in here.
    pub(super) sockets: Arc<Mutex<Option<Sockets>>>,
    /// Tells the listeners to stop accepting.
    pub(super) open: watch::Sender<bool>,
    /// Taken when the server runs.
    pub(super) asked: Mutex<Option<Asked>>,
}

/// What we are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    /// SIGTERM, SIGINT.
    Stop,
    /// SIGQUIT: give the sockets to a successor, then stop.
    HandOver,
}

/// The signals that end the gateway. Listened for before we say that we are ready:
/// until then they end the process at once.
pub(super) struct Asked {
    terminate: Option<Unix>,
    interrupt: Option<Unix>,
    quit: Option<Unix>,
}

impl Asked {
    /// Needs a runtime that lives as long as this.
    pub(super) fn listen() -> Self {
        let listen = |kind| match signal(kind) {
            Ok(stream) => Some(stream),
            Err(error) => {
                tracing::error!(%error, "a signal cannot be waited for");
                None
            }
        };
        Self {
            terminate: listen(SignalKind::terminate()),
            interrupt: listen(SignalKind::interrupt()),
            quit: listen(SignalKind::quit()),
        }
    }

    async fn next(&mut self) -> Ask {
        let one = async |stream: &mut Option<Unix>| match stream {
            Some(stream) => drop(stream.recv().await),
            None => std::future::pending().await,
        };
        tokio::select! {
            () = one(&mut self.terminate) => Ask::Stop,
            () = one(&mut self.interrupt) => Ask::Stop,
            () = one(&mut self.quit) => Ask::HandOver,
        }
    }
}

impl Stop {
    /// Whether the sockets are with a successor now. Where they are not, we go on.
    async fn hand_over(&self) -> bool {
        let (sockets, state) = (Arc::clone(&self.sockets), self.state.clone());
        let done = tokio::task::spawn_blocking(move || match &*lock(&sockets) {
            Some(sockets) => sockets.hand_over(&state),
            None => Ok(()),
        });
        match done.await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::error!("not handed over, so going on: {error:#}");
                false
            }
            Err(error) => {
                tracing::error!(%error, "not handed over, so going on");
                false
            }
        }
    }

    async fn drain(&self, asked: &mut Asked) {
        tracing::info!(sessions = self.sessions.len(), limit = ?self.drain, "stopping");
        self.open.send_replace(false);
        drop(lock(&self.sockets).take());
        // Whoever waits for a reviewer is told that nobody will answer here any more. First:
        // a session that went by itself would withdraw, as if its client had left.
        self.approvals.orphan_all().await;
        self.sessions.drain(Signal::Drain);
        let busy = tokio::select! {
            () = self.sessions.empty() => false,
            () = tokio::time::sleep(self.drain) => {
                tracing::warn!(sessions = self.sessions.len(), "ending sessions that are still busy");
                true
            }
            // Asked twice: at once.
            _ = asked.next() => true,
        };
        if busy {
            self.sessions.drain(Signal::Shutdown);
            let _ = timeout(LAST_WORDS, self.sessions.empty()).await;
        }
    }
}

#[async_trait]
impl ShutdownSignalWatch for Stop {
    async fn recv(&self) -> ShutdownSignal {
        let early = lock(&self.asked).take();
        let mut asked = early.unwrap_or_else(Asked::listen);
        loop {
            match asked.next().await {
                Ask::Stop => break,
                Ask::HandOver if self.hand_over().await => {
                    tracing::info!("the sockets are with a successor");
                    break;
                }
                Ask::HandOver => {}
            }
        }
        self.drain(&mut asked).await;
        ShutdownSignal::FastShutdown
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
