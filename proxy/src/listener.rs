//! Accepts connections and starts sessions, as a service of pingora's.
//!
//! The socket is bound, or taken over from a predecessor, before anything else of
//! the gateway runs (`app::sockets`), so that a port that is taken shows at once and
//! clients that come early wait instead of being refused.

use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use holdpoint_core::id::SessionId;
use pingora::protocols::l4::ext::set_tcp_keepalive;
use pingora::server::{ListenFds, ShutdownWatch};
use pingora::services::Service;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tracing::Instrument as _;

use crate::session::{self, Accepted, Parts, Protocol, Route};
use crate::transport::KEEPALIVE;

/// After an accept that failed, which is for want of descriptors or memory.
const BREATH: Duration = Duration::from_millis(50);

/// One listener: what is accepted here leads to one target.
pub struct Listener {
    pub name: String,
    /// Taken when the service starts.
    pub socket: Option<StdListener>,
    /// False from when nobody new is let in.
    pub open: watch::Receiver<bool>,
    pub door: Arc<Door>,
}

/// Where a listener reads what it leads to.
pub type RouteCell = Arc<ArcSwap<Route>>;

/// Where a listener reads which plugin serves new sessions.
pub type ProtocolCell = Arc<ArcSwap<Arc<dyn Protocol>>>;

/// What a connection meets behind the socket.
pub struct Door {
    pub parts: Arc<Parts>,
    pub route: RouteCell,
    /// The plugin for new sessions; those that are open keep theirs.
    pub protocol: ProtocolCell,
}

#[async_trait]
impl Service for Listener {
    async fn start_service(
        &mut self,
        _fds: Option<ListenFds>,
        mut stop: ShutdownWatch,
        _listeners_per_fd: usize,
    ) {
        let Some(socket) = self.socket.take() else {
            return;
        };
        let socket = match TcpListener::from_std(socket) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::error!(listener = %self.name, %error, "cannot accept");
                return;
            }
        };
        let mut open = self.open.clone();
        loop {
            tokio::select! {
                biased;
                () = async { drop(open.wait_for(|open| !open).await) } => return,
                _ = stop.changed() => return,
                accepted = socket.accept() => match accepted {
                    Ok((stream, _)) => {
                        tokio::spawn(Arc::clone(&self.door).enter(stream));
                    }
                    Err(error) => {
                        tracing::warn!(listener = %self.name, %error, "cannot accept");
                        tokio::time::sleep(BREATH).await;
                    }
                },
            }
        }
    }

    fn name(&self) -> &str {
        &self.name
    }
}

impl Door {
    async fn enter(self: Arc<Self>, stream: TcpStream) {
        // Small answers should not wait for each other, and a client that vanished
        // without a word is noticed, also while it is held.
        let _ = stream.set_nodelay(true);
        let _ = set_tcp_keepalive(&stream, &KEEPALIVE);
        let source = stream.peer_addr().ok();
        let mut random = [0; 16];
        if let Err(error) = getrandom::fill(&mut random) {
            tracing::error!(%error, "no randomness, so no session");
            return;
        }
        let id = SessionId::from_random(u128::from_ne_bytes(random));
        let route = self.route.load_full();
        let names = (route.listener.as_str(), route.name.as_str());
        let limit = self.parts.limits.max_sessions;
        let now = self.parts.clock.now();
        let entered = self
            .parts
            .sessions
            .enter(id.clone(), names, source, limit, now);
        let Some(place) = entered else {
            tracing::warn!(listener = names.0, limit, "turned away: too many sessions");
            return;
        };
        let span = tracing::info_span!(
            "session",
            session.id = %id,
            target = names.1,
            source = source.map(tracing::field::display),
            principal.sub = tracing::field::Empty,
            principal.iss = tracing::field::Empty,
        );
        let protocol = Arc::clone(&*self.protocol.load_full());
        let accepted = Accepted {
            io: Box::new(stream),
            source,
            place,
        };
        session::serve(Arc::clone(&self.parts), route, protocol, accepted)
            .instrument(span)
            .await;
    }
}
