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

use super::signals::{Signal, Signals};

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
    signals: Signals,
    /// An operator ended it, and it is on its way out.
    killed: bool,
}

/// A session's place in the registry, given up when dropped.
#[derive(Debug)]
pub struct Place {
    sessions: Arc<Sessions>,
    id: SessionId,
    commands: Arc<AtomicU64>,
    signals: Signals,
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
    ) -> Option<Place> {
        let mut open = self.lock();
        if open.len() >= limit {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let signals = Signals::default();
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
            killed: false,
        };
        open.insert(id.clone(), entry);
        self.opened.fetch_add(1, Ordering::Relaxed);
        Some(Place {
            sessions: Arc::clone(self),
            id,
            commands,
            signals,
        })
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

    /// How many of them have shown a token.
    pub fn admitted(&self) -> usize {
        let open = self.lock();
        open.values()
            .filter(|open| open.info.principal.is_some())
            .count()
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

    /// Whether this session is open, and nobody has killed it yet.
    pub fn has(&self, id: &SessionId) -> bool {
        self.lock().get(id).is_some_and(|open| !open.killed)
    }

    /// Ends one session. Gives whether it was there.
    pub fn kill(&self, id: &SessionId) -> bool {
        let mut all = self.lock();
        let Some(open) = all.get_mut(id) else {
            return false;
        };
        open.killed = true;
        open.signals.tell(Signal::Killed);
        true
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
            .map(|open| open.signals.tell(Signal::Revoked))
            .count()
    }

    /// Tells all that new rules are in force.
    pub fn rules_changed(&self) {
        for open in self.lock().values() {
            open.signals.tell(Signal::Rules);
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
            open.signals.tell(signal);
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

impl Place {
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// The gateway stops.
    pub(super) fn is_draining(&self) -> bool {
        self.sessions.is_draining()
    }

    pub(super) fn signals(&self) -> &Signals {
        &self.signals
    }

    pub(super) fn refused(&self) {
        self.sessions.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_command(&self) {
        self.commands.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes down whose session this is; `None` where that principal has too many. What is
    /// given says the same, in the memory of another session of theirs where there is one.
    pub(super) fn admit(&self, principal: Principal, limit: usize) -> Option<Arc<Principal>> {
        let mut open = self.sessions.lock();
        let mut same = None;
        let mut count = 0;
        for other in open
            .values()
            .filter_map(|open| open.info.principal.as_ref())
        {
            if other.identity == principal.identity {
                count += 1;
                if same.is_none() && **other == principal {
                    same = Some(Arc::clone(other));
                }
            }
        }
        if count >= limit {
            return None;
        }
        let principal = same.unwrap_or_else(|| Arc::new(principal));
        if let Some(own) = open.get_mut(&self.id) {
            own.info.principal = Some(Arc::clone(&principal));
        }
        Some(principal)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.sessions.lock().remove(&self.id);
        self.sessions.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use holdpoint_core::principal::{Identity, Kind};

    use super::*;

    #[test]
    fn a_session_counts_once_it_is_known_and_is_killed_once() {
        let sessions = Arc::new(Sessions::default());
        let enter = |number| {
            let id = SessionId::from_random(number);
            sessions.enter(id, ("pg", "shop"), None, 9, crate::clock::now())
        };
        let (one, two) = (enter(1).unwrap(), enter(2).unwrap());
        let principal = Principal {
            identity: Identity {
                issuer: "https://issuer.example".to_owned(),
                subject: "ada".to_owned(),
            },
            kind: Kind::Agent,
            label: "ada".to_owned(),
            client_id: None,
            groups: Vec::new(),
            actors: Vec::new(),
            owners: Vec::new(),
            scopes: Vec::new(),
            expires: u64::MAX,
            token: String::new(),
            token_id: None,
            auth_time: None,
        };
        one.admit(principal, 9).unwrap();
        assert_eq!((sessions.len(), sessions.admitted()), (2, 1));
        assert!(sessions.has(one.id()) && sessions.kill(one.id()));
        assert!(!sessions.has(one.id()) && sessions.has(two.id()));
        let id = one.id().clone();
        drop(one);
        assert!(!sessions.kill(&id));
        assert_eq!((sessions.len(), sessions.admitted()), (1, 0));
    }
}
