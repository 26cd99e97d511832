//! All open sessions, so that they can be listed, limited, ended and waited for.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdpoint_core::Now;
use holdpoint_core::id::SessionId;
use holdpoint_core::principal::Principal;
use serde::Serialize;
use tokio::sync::Notify;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// What a session is told from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Its client asked, on another connection, to stop what runs.
    Cancel,
    /// Its identity was revoked.
    Revoked,
    /// An operator ended it.
    Killed,
    /// New rules are in force: a held command is judged again.
    Rules,
    /// The gateway stops: end once nothing is with the target.
    Drain,
    /// The gateway stops now.
    Shutdown,
}

/// One open session, as an operator sees it.
#[derive(Debug, Clone, Serialize)]
pub struct SessionInfo {
    pub id: SessionId,
    pub listener: String,
    pub target: String,
    pub source: String,
    pub since: Now,
    /// Absent while the client has not shown a token.
    pub principal: Option<Arc<Principal>>,
    /// Submitted so far.
    pub commands: u64,
}

#[derive(Debug, Default)]
pub struct Sessions {
    open: Mutex<HashMap<SessionId, Open>>,
    /// Told whenever one ends.
    ended: Notify,
    draining: AtomicBool,
    opened: AtomicU64,
    refused: AtomicU64,
}

#[derive(Debug)]
struct Open {
    info: SessionInfo,
    commands: Arc<AtomicU64>,
    signals: Sender<Signal>,
}

/// A session's place in the registry, given up when dropped.
#[derive(Debug)]
pub struct Place {
    sessions: Arc<Sessions>,
    id: SessionId,
    commands: Arc<AtomicU64>,
    signals: Sender<Signal>,
}

impl Sessions {
    /// Room for one more session, or `None`: too many are open.
    pub fn enter(
        self: &Arc<Self>,
        id: SessionId,
        (listener, target): (&str, &str),
        source: Option<SocketAddr>,
        limit: usize,
        now: Now,
    ) -> Option<(Place, Receiver<Signal>)> {
        let mut open = self.lock();
        if open.len() >= limit {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let (signals, receiver) = channel(8);
        let info = SessionInfo {
            id: id.clone(),
            listener: listener.to_owned(),
            target: target.to_owned(),
            source: source.map(|at| at.to_string()).unwrap_or_default(),
            since: now,
            principal: None,
            commands: 0,
        };
        let commands = Arc::new(AtomicU64::new(0));
        let entry = Open {
            info,
            commands: Arc::clone(&commands),
            signals: signals.clone(),
        };
        open.insert(id.clone(), entry);
        self.opened.fetch_add(1, Ordering::Relaxed);
        Some((
            Place {
                sessions: Arc::clone(self),
                id,
                commands,
                signals,
            },
            receiver,
        ))
    }

    pub fn list(&self) -> Vec<SessionInfo> {
        let info = |open: &Open| SessionInfo {
            commands: open.commands.load(Ordering::Relaxed),
            ..open.info.clone()
        };
        let mut all: Vec<_> = self.lock().values().map(info).collect();
        all.sort_by_key(|info| info.since.mono_ns);
        all
    }

    pub fn len(&self) -> usize {
        self.lock().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sessions since the start, and those that were turned away or refused a login.
    pub fn totals(&self) -> (u64, u64) {
        (
            self.opened.load(Ordering::Relaxed),
            self.refused.load(Ordering::Relaxed),
        )
    }

    /// Ends one session. Gives whether it was there.
    pub fn kill(&self, id: &SessionId) -> bool {
        self.lock()
            .get(id)
            .map(|open| tell(&open.signals, Signal::Killed))
            .is_some()
    }

    /// Ends the sessions of principals that are revoked now. Gives how many.
    pub fn revoke(&self, is_revoked: impl Fn(&Principal) -> bool) -> usize {
        let open = self.lock();
        let revoked = open.values().filter(|open| {
            open.info
                .principal
                .as_ref()
                .is_some_and(|who| is_revoked(who))
        });
        revoked
            .map(|open| tell(&open.signals, Signal::Revoked))
            .count()
    }

    /// Tells all that new rules are in force.
    pub fn rules_changed(&self) {
        for open in self.lock().values() {
            tell(&open.signals, Signal::Rules);
        }
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Asks all to end; who comes after that learns it at once.
    pub fn drain(&self, signal: Signal) {
        let open = self.lock();
        self.draining.store(true, Ordering::Relaxed);
        for open in open.values() {
            tell(&open.signals, signal);
        }
    }

    /// Waits until none is open.
    pub async fn empty(&self) {
        loop {
            let ended = self.ended.notified();
            if self.is_empty() {
                return;
            }
            ended.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A full queue is a session that has not looked yet; it must hear of its end all the same.
fn tell(session: &Sender<Signal>, signal: Signal) {
    if session.try_send(signal).is_err() && !session.is_closed() {
        let session = session.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { session.send(signal).await });
        }
    }
}

impl Place {
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// The gateway stops.
    pub(super) fn is_draining(&self) -> bool {
        self.sessions.is_draining()
    }

    pub(super) fn signals(&self) -> Sender<Signal> {
        self.signals.clone()
    }

    pub(super) fn refused(&self) {
        self.sessions.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_command(&self) {
        self.commands.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes down whose session this is; false where that principal has too many.
    pub(super) fn admit(&self, principal: &Arc<Principal>, limit: usize) -> bool {
        let mut open = self.sessions.lock();
        let same = |open: &&Open| {
            open.info
                .principal
                .as_ref()
                .is_some_and(|other| other.identity == principal.identity)
        };
        if open.values().filter(same).count() >= limit {
            return false;
        }
        if let Some(own) = open.get_mut(&self.id) {
            own.info.principal = Some(Arc::clone(principal));
        }
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.sessions.lock().remove(&self.id);
        self.sessions.ended.notify_waiters();
    }
}
