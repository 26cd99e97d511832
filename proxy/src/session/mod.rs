//! One connection, from accept to close.
//!
//! A session is one task that owns both connections, the plugin's instance and the
//! gate. It waits for one event at a time ([`io`]), lets the plugin see what has
//! arrived ([`show`]), does what the plugin asks ([`actions`], [`login`]) and what
//! the gate asks ([`drive`]). Nothing in here knows a protocol.
//!
//! Three orders hold everywhere. What goes to the client is recorded first, and leaves
//! in the order of the records; the one exception is the word that the journal is gone. What goes to the target without a permit is recorded
//! first too. A client's frames are looked at only while nothing is undecided.

mod actions;
mod cancel;
mod drive;
mod end;
mod finish;
mod io;
mod journal;
mod line;
mod login;
mod parts;
mod registry;
mod show;
mod signals;
mod wire;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdpoint_core::framing::Side;
use holdpoint_core::gate::Gate;
use holdpoint_core::id::{CommandId, Digest};
use holdpoint_core::plugin::{Action, CredentialSlot, Setup};
use holdpoint_core::policy::{Judge, Protected};
use holdpoint_core::principal::Principal;
use tokio::time::{Instant, Sleep, sleep_until};
use tracing::Span;

use crate::transport::{Duplex, Outbox, Rewound};
use crate::upstream::{Login, Upstream};
use cancel::Registered;
use drive::Answer;
use end::End;
use io::Quiet;
use journal::Journal;
use line::Line;
use wire::Wire;

pub use cancel::Cancels;
pub use parts::{
    Claim, Custody, Desk, Gatekeeper, Instance, Later, Ledger, LedgerError, Parts, Protocol, Route,
    Rules, Ticket, Waiter,
};
pub use registry::{Place, SessionInfo, Sessions};
pub use signals::Signal;

/// Once the gateway stops, for a client to send its first command.
const FIRST_COMMAND: Duration = Duration::from_secs(2);

/// The first byte of a TLS handshake.
const TLS_HANDSHAKE: u8 = 0x16;

/// A connection that was accepted.
pub struct Accepted {
    pub io: Duplex,
    pub source: Option<SocketAddr>,
    pub place: Place,
}

struct Session {
    parts: Arc<Parts>,
    route: Arc<Route>,
    protocol: Arc<dyn Protocol>,
    place: Place,
    source: String,
    entropy: [u8; 32],
    plugin: Box<dyn Instance>,
    /// Answers of the plugin that are not carried out yet.
    todo: VecDeque<Vec<Action>>,
    /// Counts the frames shown, both sides together.
    seq: u64,

    client: Duplex,
    client_tls: bool,
    client_out: Outbox,
    client_wire: Wire,
    client_line: Line,

    upstream: Option<Upstream>,
    /// The right to author bytes for the target; gone once login is over.
    upstream_login: Option<Login>,
    upstream_wire: Wire,
    upstream_line: Line,

    /// The plugin said that login is over.
    ready: bool,
    /// The next client frame is the token.
    slot: Option<CredentialSlot>,
    principal: Option<Arc<Principal>>,
    gate: Option<Gate>,
    rules: Arc<Arc<dyn Judge>>,
    /// What the plugin was told to mask. Later rules may protect other columns: the
    /// mark in its answers then no longer fits, and they refuse.
    protected: Protected,
    /// A command is undecided; true where the plugin wants to hear that it went forward.
    undecided: Option<bool>,
    /// A command was refused and nothing was given up since.
    refused: bool,
    desk: VecDeque<Later<Answer>>,
    waiter: Option<Waiter>,
    /// Digest and command of the newest approval that was asked for.
    asked: Option<(Digest, CommandId)>,

    journal: Journal,
    cancel: Option<(Registered, Bytes)>,
    random: Random,
    /// The gateway stops: whoever has not begun by then is sent away too.
    drain_by: Option<Instant>,
    handshake_by: Instant,
    over_by: Option<Instant>,
    quiet: Quiet,
    timer: Pin<Box<Sleep>>,
}

/// Serves one connection to its end.
pub async fn serve(
    parts: Arc<Parts>,
    route: Arc<Route>,
    protocol: Arc<dyn Protocol>,
    accepted: Accepted,
) {
    match Box::pin(Session::start(parts, route, protocol, accepted)).await {
        Ok(session) => session.run().await,
        Err(end) => tracing::info!(reason = end.reason(), cause = %end, "no session"),
    }
}

impl Session {
    async fn start(
        parts: Arc<Parts>,
        route: Arc<Route>,
        protocol: Arc<dyn Protocol>,
        accepted: Accepted,
    ) -> Result<Box<Self>, End> {
        let Accepted {
            mut io,
            source,
            place,
        } = accepted;
        let handshake_by = Instant::now() + parts.limits.handshake;
        let descriptor = protocol.descriptor();
        let limit = parts.limits.max_command;
        let mut client_wire = Wire::new(Side::Client, descriptor.client_layout.clone(), limit);
        let mut client_tls = false;
        if let Some(alpn) = &descriptor.direct_tls_alpn {
            let read = poll_fn(|cx| client_wire.poll_read(cx, &mut io));
            let count = login::within(handshake_by, place.signals(), read).await?;
            if count.map_err(End::ClientBroke)? == 0 {
                return Err(End::ClientLeft);
            }
            if client_wire.peek().first() == Some(&TLS_HANDSHAKE) {
                let rewound = Box::new(Rewound::new(client_wire.take_all(), io));
                let accept = route.tls.accept(rewound);
                let accepted = login::within(handshake_by, place.signals(), accept).await?;
                let (inner, agreed) = accepted.map_err(End::ClientBroke)?;
                if agreed.as_deref() != Some(alpn.as_bytes()) {
                    return Err(End::Protocol(
                        "TLS from the first byte without ALPN".to_owned(),
                    ));
                }
                io = inner;
                client_tls = true;
            }
        }
        let mut entropy = [0; 32];
        getrandom::fill(&mut entropy).map_err(End::Random)?;
        let rules = parts.rules.load_full();
        let protected = rules.protected(&route.name);
        let setup = Setup {
            settings: settings(&route, &protected),
            client_tls,
            entropy,
        };
        let auth = parts.custody.auth(&route.name, &route.target.user);
        let plugin = protocol.instance(setup, auth)?;
        for subscription in &descriptor.subscriptions {
            actions::check_subscription(subscription)?;
        }
        let mut upstream_wire =
            Wire::new(Side::Upstream, descriptor.upstream_layout.clone(), limit);
        for subscription in &descriptor.subscriptions {
            let wire = match subscription.side {
                Side::Client => &mut client_wire,
                Side::Upstream => &mut upstream_wire,
            };
            wire.subscribe(&subscription.filters, subscription.otherwise);
        }
        Ok(Box::new(Self {
            rules,
            protected,
            parts,
            route,
            protocol,
            place,
            source: source.map(|at| at.to_string()).unwrap_or_default(),
            entropy,
            plugin,
            todo: VecDeque::new(),
            seq: 0,
            client: io,
            client_tls,
            client_out: Outbox::default(),
            client_wire,
            client_line: Line::default(),
            upstream: None,
            upstream_login: None,
            upstream_wire,
            upstream_line: Line::default(),
            ready: false,
            slot: None,
            principal: None,
            gate: None,
            undecided: None,
            refused: false,
            desk: VecDeque::new(),
            waiter: None,
            asked: None,
            journal: Journal::default(),
            cancel: None,
            random: Random::default(),
            drain_by: None,
            handshake_by,
            over_by: None,
            quiet: Quiet::from(Instant::now()),
            timer: Box::pin(sleep_until(handshake_by)),
        }))
    }

    async fn run(mut self: Box<Self>) {
        let end = match self.converse().await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        Box::pin(self.finish(end)).await;
    }

    /// Goes on until there is a reason to end.
    async fn converse(&mut self) -> Result<Infallible, End> {
        let actions = self.plugin.open()?;
        self.todo.push_back(actions);
        loop {
            self.act().await?;
            self.show().await?;
            if self.is_drained() {
                return Err(End::Shutdown);
            }
            let event = self.next().await;
            self.on_event(event)?;
        }
    }

    /// Stopping, and nothing is with the target that could still be answered. Who
    /// came just before that may have one command answered.
    fn is_drained(&mut self) -> bool {
        if !self.place.is_draining() {
            return false;
        }
        // A held command cannot outlive the process; one at the target can end.
        if self.waiter.is_some() {
            return true;
        }
        let soon = || Instant::now() + FIRST_COMMAND;
        let by = *self.drain_by.get_or_insert_with(soon);
        // The target is slow, which is not the client's doing.
        if self.principal.is_some() && !self.ready {
            return false;
        }
        let (begun, rests) = match &self.gate {
            Some(gate) => (
                gate.submitted() > 0,
                gate.idle() && gate.outstanding() == 0 && self.journal.is_empty(),
            ),
            None => (false, self.journal.is_empty()),
        };
        rests && (begun || self.is_past(Some(by)))
    }

    fn plugin_name(&self) -> &str {
        &self.protocol.descriptor().name
    }

    fn note_principal(&self, principal: &Principal) {
        let span = Span::current();
        span.record("principal.sub", principal.identity.subject.as_str());
        span.record("principal.iss", principal.identity.issuer.as_str());
    }
}

/// The operator's settings, and how the target is to be spoken to, which no
/// setting may contradict.
fn settings(route: &Route, protected: &Protected) -> Vec<(String, String)> {
    let tls = if route.upstream_tls.is_some() {
        "on"
    } else {
        "off"
    };
    let own = ("upstream_tls".to_owned(), tls.to_owned());
    let settings = route.target.settings.iter();
    settings
        .filter(|(name, _)| *name != "upstream_tls" && !Protected::is_setting(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .chain([own])
        .chain(protected.settings())
        .collect()
}

/// Random bits for ids, drawn from the system in handfuls.
#[derive(Default)]
struct Random {
    pool: Vec<u8>,
}

impl Random {
    /// Gives memory back; what is left was never used for anything.
    fn rest(&mut self) {
        self.pool = Vec::new();
    }

    fn next(&mut self) -> Result<u128, End> {
        if self.pool.len() < 16 {
            self.pool.resize(256, 0);
            getrandom::fill(&mut self.pool).map_err(End::Random)?;
        }
        let rest = self.pool.split_off(self.pool.len() - 16);
        Ok(rest
            .iter()
            .fold(0, |bits, byte| (bits << 8) | u128::from(*byte)))
    }
}
