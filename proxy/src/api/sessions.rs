//! Live sessions, and ending somebody's access.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use holdpoint_core::id::SessionId;
use holdpoint_core::principal::Identity;
use holdpoint_core::record::{Durability, Entry};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{Api, Problem, Tokens};
use crate::approvals::{Approvals, Errand, IdentityView, NoAnswer, Others, PrincipalView, ask_all};

/// The sessions that this process has.
pub trait Sessions: Send + Sync {
    fn list(&self) -> Vec<SessionView>;

    /// How many that lists, without making the list.
    fn count(&self) -> usize;

    /// Ends every session that `identity` stands behind. Gives how many.
    fn revoke(&self, identity: &Identity) -> usize;

    /// Whether this session is open, and nobody has killed it yet.
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
    /// The node that has it, where that is not the one that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// That node's own page of it: its recording is in that node's journal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct SessionsListed {
    pub sessions: Vec<SessionView>,
    /// Nodes that did not answer, or were there within the last hour and are not now: theirs
    /// are not among these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

/// The live sessions of all nodes.
pub(crate) async fn everywhere(
    own: &dyn Sessions,
    others: Option<&Arc<dyn Others>>,
) -> SessionsListed {
    let mut sessions = own.list();
    let mut missing = Vec::new();
    for (node, said) in ask_all(others, &Errand::Sessions).await {
        match read::<Vec<SessionView>>(said) {
            Ok(theirs) => sessions.extend(theirs.into_iter().map(|view| SessionView {
                node: Some(node.clone()),
                ..view
            })),
            Err(_) => missing.push(node),
        }
    }
    missing.extend(others.iter().flat_map(|others| others.gone()));
    SessionsListed { sessions, missing }
}

/// Lists live sessions, of all nodes
#[utoipa::path(
    get, path = "/v1/sessions", tag = "operate", security(("bearer" = [])),
    responses((status = 200, body = SessionsListed), (status = 401, body = Problem)),
)]
pub(super) async fn list(
    State(api): State<Api>,
    headers: HeaderMap,
) -> Result<Json<SessionsListed>, Problem> {
    api.reviewer(&headers).await?;
    let listed = everywhere(&*api.0.sessions, api.0.others.as_ref());
    Ok(Json(listed.await))
}

/// What another node answered.
pub(super) fn read<T: for<'de> Deserialize<'de>>(
    said: Result<Value, NoAnswer>,
) -> Result<T, NoAnswer> {
    serde_json::from_value(said?).map_err(|error| NoAnswer(error.to_string()))
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
    /// The other nodes that were seen, and what it ended there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<RevokedThere>,
}

/// What a revocation ended at one other node.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct RevokedThere {
    pub node: String,
    /// It answered: it is in force there.
    pub done: bool,
    pub sessions: usize,
    pub approvals: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// What a revocation ended at this node.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RevokedHere {
    pub(crate) sessions: usize,
    pub(crate) approvals: usize,
    pub(crate) warning: Option<String>,
}

/// Ends an identity's access here. `node` says it, where that is another one.
///
/// In force first and written then: a journal that fails lets nobody in.
pub(crate) async fn revoke_here(
    (tokens, sessions, approvals): (&dyn Tokens, &dyn Sessions, &Approvals),
    identity: &Identity,
    by: Option<Identity>,
    node: Option<String>,
) -> RevokedHere {
    let kept = tokens.revoke(identity, by.as_ref());
    let cut = sessions.revoke(identity);
    let ended = approvals.revoke_principal(identity).await;
    let entry = Entry::Revoked {
        identity: identity.clone(),
        by,
        sessions: u64::try_from(cut).unwrap_or(u64::MAX),
        node,
    };
    let recorded = approvals.record(None, entry, Durability::Synced).await;
    RevokedHere {
        sessions: cut,
        approvals: ended,
        warning: kept
            .err()
            .or_else(|| recorded.err().map(|error| error.to_string())),
    }
}

/// Ends one session of this node. Gives whether it was here.
pub(crate) async fn kill_here(
    (sessions, approvals): (&dyn Sessions, &Approvals),
    id: &SessionId,
    by: Identity,
    node: Option<String>,
) -> bool {
    if !sessions.has(id) {
        return false;
    }
    let entry = Entry::Killed {
        session: id.clone(),
        by,
        node,
    };
    // Who did it is written before it is done; but a journal that fails keeps no session alive.
    if let Err(error) = approvals.record(None, entry, Durability::Synced).await {
        tracing::error!(%error, session = %id, "who ended this session is not recorded");
    }
    sessions.kill(id)
}

/// Ends an identity's access at all nodes: new tokens, live sessions, pending approvals
///
/// Any reviewer may: it only ever refuses. A node that does not answer, or is not there now,
/// takes it up as soon as it reads what the others have revoked.
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
    // Else it would be in force against nobody.
    let issuer = (api.0.tokens.issuer(&asked.issuer)).map_err(|known| {
        Problem::bad_request(format!("no issuer `{}` is configured", asked.issuer))
            .hint(format!("one of {known}"))
    })?;
    let identity = Identity {
        issuer,
        subject: asked.subject,
    };
    // A task, so that a caller who hangs up does not leave it half done.
    let task = tokio::spawn(async move {
        let shared = &api.0;
        let here = (&*shared.tokens, &*shared.sessions, &shared.approvals);
        let errand = Errand::Revoke {
            identity: identity.clone(),
            by: by.identity.clone(),
        };
        // Here first: it is in force before anybody else is waited for.
        let done = revoke_here(here, &identity, Some(by.identity), None).await;
        let asked = ask_all(shared.others.as_ref(), &errand).await;
        let away = shared.board.health().err();
        let later = |why: String| {
            format!("nodes that could not be asked take it up when they can read the store: {why}")
        };
        Revoked {
            identity: (&identity).into(),
            sessions: done.sessions,
            approvals: done.approvals,
            warning: done.warning.or_else(|| away.map(later)),
            nodes: asked.into_iter().map(there).collect(),
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
    /// The node that had it, where that is not the one that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// The node that did what all were asked to do, of which one at most can.
pub(super) fn found(
    answers: Vec<(String, Result<Value, NoAnswer>)>,
) -> Result<Option<String>, Problem> {
    let mut silent = Vec::new();
    for (node, said) in answers {
        match read::<bool>(said) {
            Ok(true) => return Ok(Some(node)),
            Ok(false) => {}
            Err(why) => silent.push(format!("node `{node}` did not answer ({why})")),
        }
    }
    if silent.is_empty() {
        return Ok(None);
    }
    let problem = Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "HP-STORE",
        format!("it is not here, and {}", silent.join(", ")),
    );
    Err(problem.hint("ask again, or ask that node"))
}

fn there((node, said): (String, Result<Value, NoAnswer>)) -> RevokedThere {
    match read::<RevokedHere>(said) {
        Ok(done) => RevokedThere {
            node,
            done: true,
            sessions: done.sessions,
            approvals: done.approvals,
            warning: done.warning,
        },
        Err(why) => RevokedThere {
            node,
            done: false,
            sessions: 0,
            approvals: 0,
            warning: Some(why.to_string()),
        },
    }
}

/// Ends one live session, of whichever node; what it holds is withdrawn
///
/// Any reviewer may: it only ever refuses. Its identity may connect again; `/v1/revoke` ends that.
#[utoipa::path(
    post, path = "/v1/sessions/{id}/kill", tag = "operate", security(("bearer" = [])),
    params(("id" = String, Path, description = "The session, `s-…`")),
    responses(
        (status = 200, body = Killed), (status = 401, body = Problem),
        (status = 404, body = Problem),
        (status = 503, body = Problem, description = "a node that may have it does not answer"),
    ),
)]
pub(super) async fn kill(
    State(api): State<Api>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Json<Killed>, Problem> {
    let by = api.reviewer(&headers).await?;
    let id: SessionId = id.parse().map_err(|_| Problem::not_found("session"))?;
    // A task, so that a caller who hangs up does not leave it half done.
    let task = tokio::spawn(async move {
        let shared = &api.0;
        let here = (&*shared.sessions, &shared.approvals);
        if kill_here(here, &id, by.identity.clone(), None).await {
            return Ok(Some(Killed {
                session: id.to_string(),
                node: None,
            }));
        }
        let errand = Errand::Kill {
            session: id.clone(),
            by: by.identity,
        };
        let found = found(ask_all(shared.others.as_ref(), &errand).await)?;
        Ok(found.map(|node| Killed {
            session: id.to_string(),
            node: Some(node),
        }))
    });
    match task.await {
        Ok(Ok(Some(killed))) => Ok(Json(killed)),
        Ok(Err(problem)) => Err(problem),
        // Or it ended by itself meanwhile.
        Ok(Ok(None)) => Err(Problem::not_found("session")),
        Err(_) => Err(Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "HP-REQUEST",
            "ending the session failed, see the log",
        )),
    }
}
