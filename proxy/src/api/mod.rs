//! The reviewer API, callbacks and health, on the admin listener.
//!
//! Every route but health and `/.well-known/holdpoint` asks who calls before it
//! says anything; a test goes through all of them. Credentials are headers that
//! a browser never adds by itself, there is no CORS, nothing may be cached.
//! `docs/openapi.json` describes it and is checked against the code.

mod about;
mod approvals;
mod auth;
mod crowd;
mod events;
mod integration;
mod notifications;
mod problem;
mod rules;
mod serve;
mod sessions;
mod slack;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use holdpoint_core::Now;
use holdpoint_core::principal::Identity;
use tokio::sync::Semaphore;
use utoipa::OpenApi;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use about::{About, LoginWay, Place};
pub use approvals::{Choice, Decided, Decision, Listed, Status};
pub(crate) use approvals::{approval_id, cast};
pub use auth::Tokens;
pub(crate) use auth::voter;
pub use integration::{AssertedReviewer, Integrations, SignedDecision};
pub use notifications::Notifications;
pub use problem::Problem;
pub use rules::{
    BreakGlassAsked, GlassBroken, Justification, Justified, ReviewClosed, ReviewNote,
    ReviewsListed, WindowClosed, WindowsListed,
};
pub use serve::{ServeError, serve};
pub use sessions::{Killed, Revoke, Revoked, RevokedThere, SessionView, Sessions, SessionsListed};
pub(crate) use sessions::{everywhere, kill_here, revoke_here};

use crowd::Crowd;

use crate::approvals::{Approvals, Board, Clock, Others};
use crate::links::Links;
use crate::notify::Log;
use crate::notify::slack::Slack;

/// No request has a longer body.
const MAX_BODY: usize = 64 * 1024;

/// What the API answers from.
pub struct ApiParts {
    /// Those of this node.
    pub approvals: Approvals,
    /// Those of all nodes.
    pub board: Arc<dyn Board>,
    pub tokens: Arc<dyn Tokens>,
    pub integrations: Integrations,
    /// By the name in the configuration.
    pub slack: BTreeMap<String, Arc<Slack>>,
    pub links: Arc<Links>,
    /// What became of messages.
    pub told: Arc<Log>,
    /// Where browsers find the console.
    pub public_url: Option<String>,
    pub sessions: Arc<dyn Sessions>,
    /// The other nodes, where there are any.
    pub others: Option<Arc<dyn Others>>,
    pub about: About,
    /// Whether commands can be served; otherwise why not, for the log.
    pub ready: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
    /// Further counters: name without prefix, value. A fixed set of names.
    pub counters: Arc<dyn Fn() -> Vec<(String, u64)> + Send + Sync>,
    pub clock: Clock,
}

/// Shared by all handlers.
#[derive(Clone)]
pub(crate) struct Api(Arc<Shared>);

struct Shared {
    approvals: Approvals,
    board: Arc<dyn Board>,
    tokens: Arc<dyn Tokens>,
    integrations: Integrations,
    slack: BTreeMap<String, Arc<Slack>>,
    links: Arc<Links>,
    clicks: slack::Clicks,
    told: Arc<Log>,
    public_url: Option<String>,
    sessions: Arc<dyn Sessions>,
    others: Option<Arc<dyn Others>>,
    about: Arc<About>,
    ready: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
    counters: Arc<dyn Fn() -> Vec<(String, u64)> + Send + Sync>,
    clock: Clock,
    polls: Semaphore,
    polls_of: Arc<Crowd<Identity>>,
    events: Arc<events::Events>,
    streams: Arc<Semaphore>,
}

impl Api {
    fn now(&self) -> Now {
        (self.0.clock)()
    }
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "holdpoint",
        description = "Review held commands, and see what is going on."
    ),
    components(schemas(integration::SignedDecision, integration::AssertedReviewer))
)]
struct Doc;

/// The routes of the admin listener. Made inside of a runtime, which a task of it uses.
pub fn router(parts: ApiParts) -> Router {
    let (router, _) = routes().split_for_parts();
    let api = Api(Arc::new(Shared {
        events: events::Events::follow(&*parts.board),
        streams: Arc::new(Semaphore::new(events::MAX_STREAMS)),
        approvals: parts.approvals,
        board: parts.board,
        tokens: parts.tokens,
        integrations: parts.integrations,
        slack: parts.slack,
        links: parts.links,
        clicks: slack::Clicks::default(),
        told: parts.told,
        public_url: parts.public_url,
        sessions: parts.sessions,
        others: parts.others,
        about: Arc::new(parts.about),
        ready: parts.ready,
        counters: parts.counters,
        clock: parts.clock,
        polls: Semaphore::new(approvals::MAX_POLLS),
        polls_of: Crowd::new(approvals::MAX_POLLS_OF_ONE),
    }));
    router
        .fallback(async || Problem::not_found("page"))
        .method_not_allowed_fallback(async || {
            Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "HP-REQUEST",
                "not with this method",
            )
        })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(axum::middleware::map_response(guarded))
        .with_state(api)
}

/// The API's description, as committed in `docs/openapi.json`.
pub fn openapi() -> utoipa::openapi::OpenApi {
    let mut doc = routes().into_openapi();
    let components = doc.components.get_or_insert_with(Default::default);
    components.add_security_scheme(
        "bearer",
        SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)),
    );
    components.add_security_scheme(
        "integration",
        SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description(
            integration::HEADER,
            "with the headers of Standard Webhooks over the raw body",
        ))),
    );
    components.add_security_scheme(
        "slack",
        SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description(
            "x-slack-signature",
            "of Slack, over the raw body and `x-slack-request-timestamp`",
        ))),
    );
    doc
}

fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(Doc::openapi())
        .routes(routes!(about::healthz))
        .routes(routes!(about::readyz))
        .routes(routes!(about::metrics))
        .routes(routes!(about::well_known))
        .routes(routes!(approvals::list))
        .routes(routes!(events::events))
        .routes(routes!(approvals::show))
        .routes(routes!(approvals::decide))
        .routes(routes!(approvals::wait))
        .routes(routes!(rules::justify))
        .routes(routes!(rules::break_glass))
        .routes(routes!(rules::review))
        .routes(routes!(rules::reviews))
        .routes(routes!(rules::windows))
        .routes(routes!(rules::revoke_window))
        .routes(routes!(slack::interactions))
        .routes(routes!(notifications::list))
        .routes(routes!(sessions::list))
        .routes(routes!(sessions::revoke))
        .routes(routes!(sessions::kill))
        .routes(routes!(described))
}

/// This description
#[utoipa::path(
    get, path = "/v1/openapi.json", tag = "about", security(("bearer" = [])),
    responses((status = 200), (status = 401, body = Problem)),
)]
async fn described(State(api): State<Api>, headers: HeaderMap) -> Result<Response, Problem> {
    api.anyone(&headers).await?;
    Ok(axum::Json(openapi()).into_response())
}

/// Answers are for the caller alone, and never a page.
async fn guarded(mut response: Response) -> Response {
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; frame-ancestors 'none'",
        ),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}
