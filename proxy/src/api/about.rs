//! Health, numbers, and what an agent finds when it asks what this is.

use std::fmt::Write as _;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Api, Problem};

/// Says that the process answers
#[utoipa::path(get, path = "/healthz", tag = "about", responses((status = 200, body = String)))]
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Says whether commands can be served
#[utoipa::path(
    get, path = "/readyz", tag = "about",
    responses((status = 200, body = String), (status = 503, body = String)),
)]
pub(super) async fn readyz(State(api): State<Api>) -> Response {
    match (api.0.ready)() {
        // Commands are served and decided here without the store; others cannot help.
        Ok(()) => match api.0.board.health() {
            Ok(()) => "ready\n".into_response(),
            Err(_) => "ready, without the other nodes\n".into_response(),
        },
        // Why is for the log: nobody had to prove who they are.
        Err(why) => {
            tracing::warn!(why, "not ready");
            (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response()
        }
    }
}

/// Counters in the Prometheus text form
#[utoipa::path(
    get, path = "/metrics", tag = "operate", security(("bearer" = [])),
    responses((status = 200, body = String), (status = 401, body = Problem)),
)]
pub(super) async fn metrics(
    State(api): State<Api>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    api.anyone(&headers).await?;
    let mut text = String::new();
    let mut line = |name: &str, kind: &str, value: u64| {
        let _ = writeln!(
            text,
            "# TYPE holdpoint_{name} {kind}\nholdpoint_{name} {value}"
        );
    };
    let wide = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    line(
        "approvals_pending",
        "gauge",
        wide(api.0.approvals.pending()),
    );
    line(
        "approvals_pending_all_nodes",
        "gauge",
        wide(api.0.board.pending()),
    );
    line("store_up", "gauge", api.0.board.health().is_ok().into());
    line("sessions", "gauge", wide(api.0.sessions.count()));
    for (name, value) in (api.0.counters)() {
        line(&name, "counter", value);
    }
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}

/// What this gateway is and what it guards. No secrets: anyone may read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct About {
    pub name: String,
    pub version: String,
    pub targets: Vec<Place>,
    /// Issuers whose tokens are accepted.
    pub issuers: Vec<String>,
    /// How people sign in with `holdpoint login`, best first.
    #[serde(default)]
    pub login: Vec<LoginWay>,
    /// How to connect, what a hold is, and what to do then.
    pub how: Vec<String>,
}

/// Where a target is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Place {
    pub name: String,
    pub protocol: String,
    /// Absent: the host at which this document was found.
    pub host: Option<String>,
    pub port: u16,
}

/// What `holdpoint login` says to an issuer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LoginWay {
    pub issuer: String,
    /// A public client.
    pub client_id: String,
    /// Sent as `audience` and `resource`, where there is one.
    pub audience: Option<String>,
    /// Scope to ask for to connect.
    pub connect_scope: String,
    /// Scope to ask for to decide on held commands.
    pub review_scope: String,
}

impl About {
    pub fn new(targets: Vec<Place>, issuers: Vec<String>, login: Vec<LoginWay>) -> Self {
        let how = [
            "Connect to a target with your access token as the password, over TLS. You never \
             need the target's own password. `holdpoint psql TARGET` does it for you.",
            "Every command is judged. Some pass, some are denied, some are held until a person \
             decides. Wait for the answer: a held command has not been executed.",
            "If the answer is HP-PENDING, run `holdpoint wait ID` and then send exactly the same \
             command again; it passes once. Do not rephrase it: a changed command needs a new \
             approval.",
            "Some rules ask why: the answer says so, and nobody can approve before you have said it. \
             Say it once, plainly and truthfully: `holdpoint wait ID --because \"…\"`.",
            "Some rules ask the reviewer to sign in again or to sign with a security key. That \
             takes them longer, and there is nothing for you to do: go on waiting.",
            "If a command is denied, the reason is the reviewer's answer. Do something else; do \
             not look for another way to do the same.",
        ];
        Self {
            name: "holdpoint".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            targets,
            issuers,
            login,
            how: how.map(str::to_owned).to_vec(),
        }
    }

    fn prose(&self) -> String {
        let mut text =
            String::from("This is holdpoint, a gateway that holds commands for approval.\n\n");
        for place in &self.targets {
            let host = place.host.as_deref().unwrap_or("this host");
            let _ = writeln!(
                text,
                "- target `{}`: {} at {host}, port {}",
                place.name, place.protocol, place.port
            );
        }
        for issuer in &self.issuers {
            let _ = writeln!(text, "- tokens come from {issuer}");
        }
        if !self.login.is_empty() {
            text.push_str("- a person signs in with `holdpoint login`\n");
        }
        for paragraph in &self.how {
            let _ = write!(text, "\n{paragraph}\n");
        }
        text
    }
}

/// Tells an agent what it can reach and how holds work
///
/// JSON, or prose where `Accept` asks for text.
#[utoipa::path(
    get, path = "/.well-known/holdpoint", tag = "about",
    responses((status = 200, body = About)),
)]
pub(super) async fn well_known(State(api): State<Api>, headers: HeaderMap) -> Response {
    let about = &*api.0.about;
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok());
    let first = accept
        .and_then(|accept| accept.split(',').next())
        .unwrap_or_default();
    if first.trim_start().starts_with("text/") {
        (
            [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
            about.prose(),
        )
            .into_response()
    } else {
        Json(about.clone()).into_response()
    }
}
