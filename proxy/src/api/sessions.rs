//! Live sessions, and ending somebody's access.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use holdpoint_core::id::SessionId;
use holdpoint_core::principal::Identity;
use holdpoint_core::record::{Durability, Entry};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Api, Problem};
use crate::approvals::{IdentityView, PrincipalView};

/// The sessions that this process has.
pub trait Sessions: Send + Sync {
    fn list(&self) -> Vec<SessionView>;

    /// Ends every session that `identity` stands behind. Gives how many.
    fn revoke(&self, identity: &Identity) -> usize;

    /// Whether this session is open.
    fn has(&self, id: &SessionId) -> bool;

    /// Ends one session. Gives whether it was open.
    fn kill(&self, id: &SessionId) -> bool;
}

/// A live connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionView {
    pub id: String,
    pub principal: PrincipalView,
    pub target: String,
    pub protocol: String,
    /// The client's address and port.
    pub source: String,
    pub opened_at: String,
    pub commands: u64,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct SessionsListed {
    pub sessions: Vec<SessionView>,
}

/// Lists live sessions
#[utoipa::path(
    get, path = "/v1/sessions", tag = "operate", security(("bearer" = [])),
    responses((status = 200, body = SessionsListed), (status = 401, body = Problem)),
)]
pub(super) async fn list(
    State(api): State<Api>,
    headers: HeaderMap,
) -> Result<Json<SessionsListed>, Problem> {
    api.reviewer(&headers).await?;
    Ok(Json(SessionsListed {
        sessions: api.0.sessions.list(),
    }))
}

/// Whose access ends.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Revoke {
    pub issuer: String,
    pub subject: String,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Revoked {
    pub identity: IdentityView,
    /// Sessions that were cut.
    pub sessions: usize,
    /// Approvals that ended.
    pub approvals: usize,
    /// In force now, but a restart would forget it, and why.
    pub warning: Option<String>,
}

/// Ends an identity's access: new tokens, live sessions, pending approvals
///
/// Any reviewer may: it only ever refuses.
#[utoipa::path(
    post, path = "/v1/revoke", tag = "operate", request_body = Revoke,
    security(("bearer" = [])),
    responses(
        (status = 200, body = Revoked), (status = 400, body = Problem),
        (status = 401, body = Problem),
    ),
)]
pub(super) async fn revoke(
    State(api): State<Api>,
    headers: HeaderMap,
    raw: Bytes,
) -> Result<Json<Revoked>, Problem> {
    let by = api.reviewer(&headers).await?;
    let asked: Revoke = serde_json::from_slice(&raw)
        .map_err(|error| Problem::bad_request(format!("the body names no identity: {error}")))?;
    let identity = Identity {
        issuer: asked.issuer,
        subject: asked.subject,
    };
    // A task, so that a caller who hangs up does not leave it half done.
    let task = tokio::spawn(async move {
        let kept = api.0.tokens.revoke(&identity);
        let sessions = api.0.sessions.revoke(&identity);
        let approvals = api.0.approvals.revoke_principal(&identity).await;
        let entry = Entry::Revoked {
            identity: identity.clone(),
            by: by.identity,
            sessions: u64::try_from(sessions).unwrap_or(u64::MAX),
        };
        let recorded = api
            .0
            .approvals
            .record(None, entry, Durability::Synced)
            .await;
        let warning = kept
            .err()
            .or_else(|| recorded.err().map(|error| error.to_string()));
        Revoked {
            identity: (&identity).into(),
            sessions,
            approvals,
            warning,
        }
    });
    task.await.map(Json).map_err(|_| {
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "HP-REQUEST",
            "revoking failed, see the log",
        )
    })
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Killed {
    /// The session whose end was asked for.
    pub session: String,
}

/// Ends one live session; what it holds is withdrawn
///
/// Any reviewer may: it only ever refuses. Its identity may connect again; `/v1/revoke` ends that.
#[utoipa::path(
    post, path = "/v1/sessions/{id}/kill", tag = "operate", security(("bearer" = [])),
    params(("id" = String, Path, description = "The session, `s-…`")),
    responses(
        (status = 200, body = Killed), (status = 401, body = Problem),
        (status = 404, body = Problem),
    ),
)]
pub(super) async fn kill(
    State(api): State<Api>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Json<Killed>, Problem> {
    let by = api.reviewer(&headers).await?;
    let id: SessionId = id.parse().map_err(|_| Problem::not_found("session"))?;
    if !api.0.sessions.has(&id) {
        return Err(Problem::not_found("session"));
    }
    // A task, so that a caller who hangs up does not leave it half done.
    let task = tokio::spawn(async move {
        let entry = Entry::Killed {
            session: id.clone(),
            by: by.identity,
        };
        // Who did it is written before it is done; but a journal that fails keeps no session alive.
        let recorded = api
            .0
            .approvals
            .record(None, entry, Durability::Synced)
            .await;
        if let Err(error) = recorded {
            tracing::error!(%error, session = %id, "who ended this session is not recorded");
        }
        api.0.sessions.kill(&id).then(|| id.to_string())
    });
    match task.await {
        Ok(Some(session)) => Ok(Json(Killed { session })),
        // It ended by itself meanwhile.
        Ok(None) => Err(Problem::not_found("session")),
        Err(_) => Err(Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "HP-REQUEST",
            "ending the session failed, see the log",
        )),
    }
}
