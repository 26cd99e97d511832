//! Approvals: read, decide, wait.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use holdpoint_core::Now;
use holdpoint_core::approval::{Verdict, Vote};
use holdpoint_core::decision::Window;
use holdpoint_core::id::{ApprovalId, Digest};
use holdpoint_core::principal::Principal;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::auth::{Caller, voter};
use super::{Api, Problem, integration};
use crate::approvals::{Board, Cast, View};

/// Longest that one call waits; callers ask again.
const MAX_WAIT: u64 = 55;

/// Long polls at once; each costs a connection.
pub(super) const MAX_POLLS: usize = 1_024;

/// Of which one client may have so many.
pub(super) const MAX_POLLS_OF_ONE: usize = MAX_POLLS / 4;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    /// Only those in this state, such as `pending`.
    state: Option<String>,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Listed {
    pub approvals: Vec<View>,
}

/// Lists approvals, the newest first
#[utoipa::path(
    get, path = "/v1/approvals", params(Filter), tag = "review",
    security(("bearer" = [])),
    responses((status = 200, body = Listed), (status = 401, body = Problem)),
)]
pub(super) async fn list(
    State(api): State<Api>,
    headers: HeaderMap,
    filter: Result<Query<Filter>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Listed>, Problem> {
    api.reviewer(&headers).await?;
    let Query(filter) = filter.map_err(|error| Problem::bad_request(error.body_text()))?;
    let wanted = |view: &View| {
        filter
            .state
            .as_ref()
            .is_none_or(|state| *state == view.state)
    };
    let all = api.0.board.list();
    let approvals = all
        .iter()
        .filter(|view| wanted(view))
        .map(|view| (**view).clone())
        .collect();
    Ok(Json(Listed { approvals }))
}

/// Shows one approval, with the whole command
#[utoipa::path(
    get, path = "/v1/approvals/{id}", params(("id" = String, Path)), tag = "review",
    security(("bearer" = [])),
    responses(
        (status = 200, body = View), (status = 401, body = Problem), (status = 404, body = Problem),
    ),
)]
pub(super) async fn show(
    State(api): State<Api>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Json<View>, Problem> {
    api.reviewer(&headers).await?;
    let view = api.0.board.get(&approval_id(&id)?);
    let view = view.ok_or_else(|| Problem::not_found("approval"))?;
    Ok(Json((*view).clone()))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    Approve,
    Deny,
}

/// A reviewer's vote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    pub decision: Choice,
    /// Of what was shown, hex: a decision over anything else is refused.
    pub digest: String,
    /// Needed for a denial; the agent is told.
    #[serde(default)]
    pub reason: Option<String>,
    /// How an approval lets it run, of the `windows` that its rule offers; once unless given.
    #[serde(default)]
    pub window: Option<String>,
}

/// What came of a vote. Unless it is `submitted`, it is in the journal.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Decided {
    pub id: String,
    /// `counted` (more must approve), `advanced` (the next step is asked), `repeated` (this
    /// vote counted before), `settled`; or `submitted`: on its way to another node, which has
    /// not answered and may refuse it.
    pub outcome: String,
    /// The approval's state now.
    pub state: String,
    pub approvals: u32,
    pub quorum: u32,
    /// The step that is asked now, and how many there are.
    #[serde(default)]
    pub step: u32,
    #[serde(default)]
    pub steps: u32,
    /// The node that it was submitted to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub node: Option<String>,
}

/// Decides: with a reviewer's token, or signed by an integration
///
/// A signed body is a `SignedDecision`; the header `holdpoint-integration` names
/// who signed it by Standard Webhooks.
#[utoipa::path(
    post, path = "/v1/approvals/{id}/decision", params(("id" = String, Path)), tag = "review",
    request_body = Decision, security(("bearer" = []), ("integration" = [])),
    responses(
        (status = 200, body = Decided),
        (status = 202, body = Decided, description = "submitted to another node, which has not answered yet"),
        (status = 400, body = Problem),
        (status = 401, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem),
        (status = 409, body = Problem, description = "settled already, or another digest"),
        (status = 503, body = Problem, description = "the vote was not counted"),
    ),
)]
pub(super) async fn decide(
    State(api): State<Api>,
    headers: HeaderMap,
    Path(id): Path<String>,
    raw: Bytes,
) -> Result<Response, Problem> {
    let signed = headers.contains_key(integration::HEADER);
    if signed && headers.contains_key(axum::http::header::AUTHORIZATION) {
        return Err(Problem::bad_request(
            "send a bearer token or a signature, not both",
        ));
    }
    // Whoever it is comes first: nothing is said of an id to a stranger.
    let vote = if signed {
        let (signed, reviewer, name, webhook) =
            api.0
                .integrations
                .verify(&headers, &raw, api.now().mono_ns)?;
        if api.0.tokens.issuer(&reviewer.identity.issuer).as_ref() != Ok(&reviewer.identity.issuer)
        {
            return Err(Problem::new(
                axum::http::StatusCode::FORBIDDEN,
                "HP-NOT-ELIGIBLE",
                "the issuer of this reviewer is none of this gateway's",
            )
            .hint("give the `iss` of the reviewer's own tokens, to the letter"));
        }
        if !api.0.tokens.admits(&reviewer) {
            return Err(Problem::new(
                axum::http::StatusCode::FORBIDDEN,
                "HP-REVOKED",
                "this reviewer was revoked",
            )
            .hint("ask an operator"));
        }
        let id = approval_id(&id)?;
        if approval_id(&signed.approval_id)? != id {
            return Err(Problem::bad_request(
                "`approval_id` is not the one of the path",
            ));
        }
        Vote {
            approval: id,
            digest: digest(&signed.digest)?,
            verdict: verdict(signed.decision),
            reason: signed.reason,
            window: window(signed.window.as_deref())?,
            reviewer,
            channel: format!("integration:{name}"),
            nonce: Some(format!("{webhook}/{}", signed.nonce)),
            assertion: None,
        }
    } else {
        let principal = api.reviewer(&headers).await?;
        let decision: Decision = serde_json::from_slice(&raw).map_err(|error| {
            Problem::bad_request(format!("the body is not a decision: {error}"))
        })?;
        decision.vote(&id, principal, channel(&headers))?
    };
    let decided = cast(&*api.0.board, vote, api.now()).await?;
    if decided.node.is_none() {
        return Ok(Json(decided).into_response());
    }
    let place = format!("/v1/approvals/{}", decided.id);
    Ok((StatusCode::ACCEPTED, [(LOCATION, place)], Json(decided)).into_response())
}

/// Which program speaks.
pub(super) fn channel(headers: &HeaderMap) -> &'static str {
    let client = headers.get("holdpoint-client");
    match client.map(|value| value.as_bytes()) {
        Some(b"cli") => "cli",
        _ => "api",
    }
}

impl Decision {
    /// The vote of a person whose token was checked just now.
    pub(crate) fn vote(self, id: &str, by: Principal, channel: &str) -> Result<Vote, Problem> {
        Ok(Vote {
            approval: approval_id(id)?,
            digest: digest(&self.digest)?,
            verdict: verdict(self.decision),
            reason: self.reason,
            window: window(self.window.as_deref())?,
            reviewer: voter(by),
            channel: channel.to_owned(),
            nonce: None,
            assertion: None,
        })
    }
}

/// Casts a vote, whichever way it came.
///
/// # Errors
/// It did not count.
pub(crate) async fn cast(board: &dyn Board, vote: Vote, now: Now) -> Result<Decided, Problem> {
    let id = vote.approval.clone();
    match board.vote(vote, now).await? {
        Cast::Final(counted) => Ok(Decided {
            id: id.to_string(),
            outcome: counted.outcome,
            state: counted.state,
            approvals: counted.approvals,
            quorum: counted.quorum,
            step: counted.step,
            steps: counted.steps,
            node: None,
        }),
        Cast::Submitted { node } => {
            let view = board
                .get(&id)
                .ok_or_else(|| Problem::not_found("approval"))?;
            Ok(Decided {
                id: view.id.clone(),
                outcome: "submitted".to_owned(),
                state: view.state.clone(),
                approvals: view.approvals,
                quorum: view.quorum,
                step: view.step,
                steps: u32::try_from(view.steps.len()).unwrap_or(u32::MAX),
                node: Some(node),
            })
        }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct Patience {
    /// Seconds, at most 55; 30 unless given.
    timeout: Option<u64>,
}

/// What the one who asked may know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    pub id: String,
    pub state: String,
    /// Why it was denied, in the reviewer's words.
    pub reason: Option<String>,
    /// Nobody can approve it before the one who asked said why.
    #[serde(default)]
    pub to_justify: bool,
    pub expires_at: String,
    /// Once approved: until when the identical command passes.
    pub usable_until: Option<String>,
}

/// Waits until an approval is decided, or gives its state after `timeout`
///
/// With a reviewer's token any approval, with a client's only its own.
#[utoipa::path(
    get, path = "/v1/approvals/{id}/wait", params(("id" = String, Path), Patience),
    tag = "clients", security(("bearer" = [])),
    responses(
        (status = 200, body = Status), (status = 401, body = Problem),
        (status = 404, body = Problem), (status = 503, body = Problem),
    ),
)]
pub(super) async fn wait(
    State(api): State<Api>,
    headers: HeaderMap,
    Path(id): Path<String>,
    patience: Result<Query<Patience>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Status>, Problem> {
    let caller = api.anyone(&headers).await?;
    let Query(patience) = patience.map_err(|error| Problem::bad_request(error.body_text()))?;
    let missing = || Problem::not_found("approval");
    let id = approval_id(&id)?;
    let view = api.0.board.get(&id).ok_or_else(missing)?;
    let too_many = || {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "HP-LIMIT",
            "too many callers wait",
        )
    };
    let mut _own_turn = None;
    if let Caller::Client(principal) = caller {
        let asked = &view.principal;
        let own = asked.issuer == principal.identity.issuer
            && asked.subject == principal.identity.subject;
        if !own {
            return Err(missing());
        }
        let turn = api.0.polls_of.enter(principal.identity);
        _own_turn = Some(turn.ok_or_else(too_many)?);
    }
    let _turn = api.0.polls.try_acquire().map_err(|_| too_many())?;
    let limit = Duration::from_secs(patience.timeout.unwrap_or(30).min(MAX_WAIT));
    let decided = api.0.board.decided(&id).ok_or_else(missing)?;
    // After the time, the state as it is.
    let view = match tokio::time::timeout(limit, decided).await {
        Ok(view) => view,
        Err(_) => api.0.board.get(&id).unwrap_or(view),
    };
    Ok(Json(Status {
        id: view.id.clone(),
        state: view.state.clone(),
        reason: view.denial.as_ref().map(|denial| denial.reason.clone()),
        to_justify: view.justify && view.justification.is_none() && !view.is_decided(),
        expires_at: view.expires_at.clone(),
        usable_until: view.usable_until.clone(),
    }))
}

pub(crate) fn approval_id(text: &str) -> Result<ApprovalId, Problem> {
    text.parse().map_err(|_| Problem::not_found("approval"))
}

pub(super) fn window(text: Option<&str>) -> Result<Option<Window>, Problem> {
    match text {
        None | Some("once") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(Problem::bad_request),
    }
}

pub(super) fn digest(text: &str) -> Result<Digest, Problem> {
    text.parse()
        .map_err(|_| Problem::bad_request("`digest` is not 64 hex digits"))
}

fn verdict(choice: Choice) -> Verdict {
    match choice {
        Choice::Approve => Verdict::Approve,
        Choice::Deny => Verdict::Deny,
    }
}
