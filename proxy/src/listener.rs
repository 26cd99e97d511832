//! Accepts connections and starts sessions, on pingora's listeners.

use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use holdpoint_core::id::SessionId;
use pingora::apps::ServerApp;
use pingora::protocols::Stream;
use pingora::server::ShutdownWatch;
use tracing::Instrument as _;

use crate::session::{self, Accepted, Parts, Protocol, Route};

/// One listener: what is accepted here leads to one target.
pub struct Listener {
    pub parts: Arc<Parts>,
    pub route: Arc<ArcSwap<Route>>,
    /// The plugin for new sessions; those that are open keep theirs.
    pub protocol: Arc<ArcSwap<Arc<dyn Protocol>>>,
}

#[async_trait]
impl ServerApp for Listener {
    async fn process_new(
        self: &Arc<Self>,
        stream: Stream,
        _stop: &ShutdownWatch,
    ) -> Option<Stream> {
        let digest = stream.get_socket_digest();
        let source =
            digest.and_then(|digest| digest.peer_addr().and_then(|at| at.as_inet().copied()));
        let mut random = [0; 16];
        if let Err(error) = getrandom::fill(&mut random) {
            tracing::error!(%error, "no randomness, so no session");
            return None;
        }
        let id = SessionId::from_random(u128::from_ne_bytes(random));
        let route = self.route.load_full();
        let names = (route.listener.as_str(), route.name.as_str());
        let limit = self.parts.limits.max_sessions;
        let entered =
            self.parts
                .sessions
                .enter(id.clone(), names, source, limit, self.parts.clock.now());
        let Some((place, signals)) = entered else {
            tracing::warn!(
                listener = names.0,
                limit,
                "turned away: too many sessions, or stopping"
            );
            return None;
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
            signals,
        };
        session::serve(Arc::clone(&self.parts), route, protocol, accepted)
            .instrument(span)
            .await;
        None
    }
}
