//! The web console on the admin listener, under `/console`: what is held, and what to do about it.
//!
//! Pages are made here and work without script; the one script keeps lists fresh and gives
//! them keys. People sign in at their issuer (code flow, PKCE). The access token stays here
//! and is checked again for every request, by the same code as the API's: the console knows
//! no rights of its own, and a vote is cast where the API casts it.
//!
//! Limits: sign-ins are of this process, so a restart ends them. Past sessions are looked for in the
//! last part of the journal only, and answers of targets are not shown: they are for
//! who holds the journal.

mod approvals;
mod assets;
mod glass;
mod guard;
mod health;
mod html;
mod keys;
mod link;
mod one;
mod page;
mod rules;
mod sessions;
mod sign_in;
mod sign_out;
mod signing;
mod sql;
mod table;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::response::Redirect;
use axum::routing::{get, post};
use holdpoint_core::Now;
use holdpoint_core::config::Issuer;
use holdpoint_core::secret::Secret;
use tokio::sync::Semaphore;

pub use guard::ConsoleError;
pub use health::{Health, PluginInForce, RulesInForce};

use crate::api::{Sessions, Tokens};
use crate::approvals::{Approvals, Board, Clock, Others};
use crate::links::Links;
use crate::security_keys::SecurityKeys;
use guard::Origin;
use page::notice;
use sign_in::{Begun, SignedIn, Way};
use signing::Asked;
use table::Table;

/// No form of ours is longer.
const MAX_BODY: usize = 64 * 1024;

/// Reviewers who are signed in, in all their browsers.
const MAX_SIGNED_IN: usize = 1_024;

/// Sign-ins that have begun. Anyone may begin one; past this the oldest is forgotten.
const MAX_BEGUN: usize = 4_096;

/// Signatures that were asked for of security keys. Past this the oldest is forgotten.
const MAX_ASKED: usize = 4_096;

/// Pages that wait for a change; each costs a connection.
const MAX_WAITING: usize = 512;

/// What the console shows.
pub struct ConsoleParts {
    pub approvals: Arc<dyn Board>,
    /// Those of this node: the way to its journal.
    pub own: Approvals,
    pub tokens: Arc<dyn Tokens>,
    pub sessions: Arc<dyn Sessions>,
    /// The other nodes, where there are any.
    pub others: Option<Arc<dyn Others>>,
    /// Those with `login` or `console` offer to sign in. With the secret of a
    /// confidential client.
    pub issuers: Vec<(Issuer, Option<Secret>)>,
    /// Where browsers find the admin listener.
    pub public_url: Option<String>,
    /// Of chat accounts, where there are any.
    pub links: Option<Arc<Links>>,
    /// That sign what reviewers approve, where the configuration has them.
    pub keys: Option<Arc<SecurityKeys>>,
    /// The journal's directory.
    pub journal: PathBuf,
    pub health: Arc<dyn Fn() -> Health + Send + Sync>,
    pub clock: Clock,
}

#[derive(Clone)]
struct Console(Arc<Shared>);

struct Shared {
    approvals: Arc<dyn Board>,
    own: Approvals,
    tokens: Arc<dyn Tokens>,
    sessions: Arc<dyn Sessions>,
    others: Option<Arc<dyn Others>>,
    ways: Vec<Way>,
    origin: Origin,
    links: Option<Arc<Links>>,
    keys: Option<Arc<SecurityKeys>>,
    journal: PathBuf,
    health: Arc<dyn Fn() -> Health + Send + Sync>,
    clock: Clock,
    asked: Table<Asked>,
    begun: Table<Begun>,
    signed_in: Table<SignedIn>,
    waiting: Semaphore,
    /// The journal is read by one page at a time.
    reading: Semaphore,
}

impl Console {
    fn now(&self) -> Now {
        (self.0.clock)()
    }

    /// Targets whose commands are statements, and may be coloured as such.
    fn sql_targets(&self) -> HashSet<String> {
        let plugins = (self.0.health)().plugins.into_iter();
        plugins
            .filter(|plugin| matches!(plugin.name.as_str(), "postgres" | "mysql"))
            .map(|plugin| plugin.target)
            .collect()
    }
}

/// The console's routes, for the admin listener.
///
/// # Errors
/// Browsers could not reach it, or not sign in.
pub fn router(parts: ConsoleParts) -> Result<Router, ConsoleError> {
    Ok(routes(Console::new(parts)?))
}

impl Console {
    fn new(parts: ConsoleParts) -> Result<Self, ConsoleError> {
        let url = parts.public_url.ok_or(ConsoleError::NoAddress)?;
        Ok(Self(Arc::new(Shared {
            approvals: parts.approvals,
            own: parts.own,
            tokens: parts.tokens,
            sessions: parts.sessions,
            others: parts.others,
            ways: (parts.issuers.into_iter())
                .filter_map(|(issuer, secret)| Way::of(&issuer, secret))
                .collect(),
            origin: Origin::of(&url)?,
            links: parts.links,
            keys: parts.keys,
            asked: Table::new(MAX_ASKED),
            journal: parts.journal,
            health: parts.health,
            clock: parts.clock,
            begun: Table::new(MAX_BEGUN),
            signed_in: Table::new(MAX_SIGNED_IN),
            waiting: Semaphore::new(MAX_WAITING),
            reading: Semaphore::new(1),
        })))
    }
}

fn routes(console: Console) -> Router {
    Router::new()
        .route("/", get(async || Redirect::to("/console")))
        .route("/console", get(approvals::list))
        .route("/console/approvals/{id}", get(one::show))
        .route("/console/approvals/{id}/approve", get(approvals::approve))
        .route("/console/approvals/{id}/deny", get(approvals::deny))
        .route(
            "/console/approvals/{id}/decision",
            post(approvals::decision),
        )
        .route(
            "/console/approvals/{id}/glass",
            get(glass::confirm).post(glass::break_it),
        )
        .route(
            "/console/reviews/{id}",
            get(glass::show).post(glass::review),
        )
        .route("/console/changes", get(approvals::changes))
        .route("/console/sessions", get(sessions::list))
        .route("/console/sessions/{id}", get(sessions::one))
        .route("/console/rules", get(rules::show))
        .route("/console/health", get(health::show))
        .route("/console/keys", get(keys::list))
        .route("/console/keys/add", post(keys::add))
        .route("/console/keys/remove", post(keys::remove))
        .route("/console/link/{token}", get(link::show).post(link::confirm))
        .route("/console/login", get(sign_in::login))
        .route("/console/callback", get(sign_in::callback))
        .route("/console/logout", post(sign_out::logout))
        .route("/console/console.css", get(assets::style))
        .route("/console/console.js", get(assets::script))
        .route("/console/{*rest}", get(missing))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(axum::middleware::map_response(guard::guarded))
        .with_state(console)
}

async fn missing() -> axum::response::Response {
    notice(
        StatusCode::NOT_FOUND,
        "Not here",
        "There is no such page.",
        None,
    )
}
