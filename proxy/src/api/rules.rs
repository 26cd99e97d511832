//! What rules of approval ask for beside votes: justifications, broken glass and what
//! comes after it, windows.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use holdpoint_core::approval::BreakGlass;
use holdpoint_core::id::ApprovalId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::approvals::{approval_id, channel, digest};
use super::auth::voter;
use super::{Api, Problem, sessions};
use crate::approvals::{Cast, Errand, ReviewView, WindowView, ask_all};

/// Why a held command is to run.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Justification {
    /// At most 2000 bytes; reviewers read it.
    pub text: String,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Justified {
    pub id: String,
    /// The node that it was submitted to, which has not answered yet and may refuse it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// Says why a held command is to run, where its rule asks: once, by who asked for it
///
/// With the token that the session was opened with, or another of the same identity.
#[utoipa::path(
    post, path = "/v1/approvals/{id}/justification", params(("id" = String, Path)),
    tag = "clients", request_body = Justification, security(("bearer" = [])),
    responses(
        (status = 200, body = Justified),
        (status = 202, body = Justified, description = "submitted to another node, which has not answered yet"),
        (status = 400, body = Problem),
        (status = 401, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem, description = "settled, or justified before"),
        (status = 503, body = Problem, description = "it was not taken"),
    ),
)]
pub(super) async fn justify(
    State(api): State<Api>,
    headers: HeaderMap,
    Path(id): Path<String>,
    raw: Bytes,
) -> Result<Response, Problem> {
    let by = api.client(&headers).await?;
    let id = approval_id(&id)?;
    let said: Justification = body(&raw, "a justification")?;
    let said = api.0.board.justify(&id, by.identity, said.text, api.now());
    let node = submitted(&said.await?);
    let id = id.to_string();
    Ok(accepted(
        node.is_some(),
        &id.clone(),
        Justified { id, node },
    ))
}

/// A held command that has to go now.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BreakGlassAsked {
    /// Of what was shown, hex.
    pub digest: String,
    /// Others will review it.
    pub reason: String,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct GlassBroken {
    pub id: String,
    /// The approval's state now.
    pub state: String,
    /// The node that it was submitted to, which has not answered yet and may refuse it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// Lets a held command run at once, where its rule lets this person
///
/// In an emergency, by name and with a reason; an alarm goes to every channel, and it stays
/// open until somebody else has reviewed it.
#[utoipa::path(
    post, path = "/v1/approvals/{id}/break-glass", params(("id" = String, Path)),
    tag = "review", request_body = BreakGlassAsked, security(("bearer" = [])),
    responses(
        (status = 200, body = GlassBroken),
        (status = 202, body = GlassBroken, description = "submitted to another node, which has not answered yet"),
        (status = 400, body = Problem),
        (status = 401, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem),
        (status = 409, body = Problem, description = "settled already, or another digest"),
        (status = 503, body = Problem, description = "it did not count"),
    ),
)]
pub(super) async fn break_glass(
    State(api): State<Api>,
    headers: HeaderMap,
    Path(id): Path<String>,
    raw: Bytes,
) -> Result<Response, Problem> {
    let by = api.reviewer(&headers).await?;
    let asked: BreakGlassAsked = body(&raw, "a reason with a digest")?;
    let glass = BreakGlass {
        approval: approval_id(&id)?,
        digest: digest(&asked.digest)?,
        by: voter(by),
        reason: asked.reason,
        channel: channel(&headers).to_owned(),
        at: api.now().unix(),
    };
    let id = glass.approval.clone();
    let broken = api.0.board.break_glass(glass, api.now()).await?;
    let node = submitted(&broken);
    let state = match broken {
        Cast::Final(state) => state,
        Cast::Submitted { .. } => "pending".to_owned(),
    };
    let id = id.to_string();
    Ok(accepted(
        node.is_some(),
        &id.clone(),
        GlassBroken { id, state, node },
    ))
}

#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReviewNote {
    /// For the record.
    #[serde(default)]
    pub note: Option<String>,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ReviewClosed {
    pub id: String,
    /// The node that it was submitted to, which has not answered yet and may refuse it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// Closes the review of a command that ran by a broken glass
///
/// By somebody who could have decided it, and who is neither who broke the glass nor behind
/// the request.
#[utoipa::path(
    post, path = "/v1/approvals/{id}/review", params(("id" = String, Path)), tag = "review",
    request_body = ReviewNote, security(("bearer" = [])),
    responses(
        (status = 200, body = ReviewClosed),
        (status = 202, body = ReviewClosed, description = "submitted to another node, which has not answered yet"),
        (status = 400, body = Problem),
        (status = 401, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem, description = "there is nothing to review"),
        (status = 503, body = Problem, description = "it stays open"),
    ),
)]
pub(super) async fn review(
    State(api): State<Api>,
    headers: HeaderMap,
    Path(id): Path<String>,
    raw: Bytes,
) -> Result<Response, Problem> {
    let by = api.reviewer(&headers).await?;
    let id = approval_id(&id)?;
    let said: ReviewNote = if raw.is_empty() {
        ReviewNote::default()
    } else {
        body(&raw, "a note")?
    };
    let reviewed = api.0.board.review(&id, voter(by), said.note).await?;
    let node = submitted(&reviewed);
    let id = id.to_string();
    Ok(accepted(
        node.is_some(),
        &id.clone(),
        ReviewClosed { id, node },
    ))
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ReviewsListed {
    pub reviews: Vec<ReviewView>,
    /// Nodes that did not answer: theirs are not among these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

/// Lists commands that ran by a broken glass and that nobody has reviewed, of all nodes, the
/// oldest first
#[utoipa::path(
    get, path = "/v1/reviews", tag = "review", security(("bearer" = [])),
    responses((status = 200, body = ReviewsListed), (status = 401, body = Problem)),
)]
pub(super) async fn reviews(
    State(api): State<Api>,
    headers: HeaderMap,
) -> Result<Json<ReviewsListed>, Problem> {
    api.reviewer(&headers).await?;
    let (reviews, missing) = api.0.board.reviews().await;
    Ok(Json(ReviewsListed { reviews, missing }))
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct WindowsListed {
    pub windows: Vec<WindowView>,
    /// Nodes that did not answer: theirs are not among these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

/// Lists commands that may run again without asking, of all nodes, the newest first
#[utoipa::path(
    get, path = "/v1/windows", tag = "review", security(("bearer" = [])),
    responses((status = 200, body = WindowsListed), (status = 401, body = Problem)),
)]
pub(super) async fn windows(
    State(api): State<Api>,
    headers: HeaderMap,
) -> Result<Json<WindowsListed>, Problem> {
    api.reviewer(&headers).await?;
    let mut windows = api.0.approvals.windows().await;
    let mut missing = Vec::new();
    for (node, said) in ask_all(api.0.others.as_ref(), &Errand::Windows).await {
        match sessions::read::<Vec<WindowView>>(said) {
            Ok(theirs) => windows.extend(theirs.into_iter().map(|view| WindowView {
                node: Some(node.clone()),
                ..view
            })),
            Err(_) => missing.push(node),
        }
    }
    windows.sort_by(|a, b| (&b.opened_at, &b.id).cmp(&(&a.opened_at, &a.id)));
    Ok(Json(WindowsListed { windows, missing }))
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct WindowClosed {
    pub id: String,
    /// The node that had it, where that is not the one that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// Ends a window, of whichever node: the command is held again the next time
///
/// Any reviewer may: it only ever refuses.
#[utoipa::path(
    post, path = "/v1/windows/{id}/revoke", params(("id" = String, Path)), tag = "review",
    security(("bearer" = [])),
    responses(
        (status = 200, body = WindowClosed), (status = 401, body = Problem),
        (status = 404, body = Problem),
        (status = 503, body = Problem, description = "a node that may have it does not answer"),
    ),
)]
pub(super) async fn revoke_window(
    State(api): State<Api>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Json<WindowClosed>, Problem> {
    let by = api.reviewer(&headers).await?;
    let id: ApprovalId = id.parse().map_err(|_| Problem::not_found("window"))?;
    let who = by.identity.clone();
    let mut node = None;
    if api.0.approvals.revoke_window(&id, who).await.is_err() {
        let errand = Errand::EndWindow {
            approval: id.clone(),
            by: by.identity,
        };
        let answers = ask_all(api.0.others.as_ref(), &errand).await;
        node = Some(sessions::found(answers)?.ok_or_else(|| Problem::not_found("window"))?);
    }
    let id = id.to_string();
    Ok(Json(WindowClosed { id, node }))
}

/// The node that has not answered yet.
fn submitted<T>(cast: &Cast<T>) -> Option<String> {
    match cast {
        Cast::Final(_) => None,
        Cast::Submitted { node } => Some(node.clone()),
    }
}

/// As of a vote: where it is only submitted, `202` and where to look.
fn accepted(submitted: bool, id: &str, said: impl Serialize) -> Response {
    if !submitted {
        return Json(said).into_response();
    }
    let place = format!("/v1/approvals/{id}");
    (StatusCode::ACCEPTED, [(LOCATION, place)], Json(said)).into_response()
}

fn body<T: for<'de> Deserialize<'de>>(raw: &[u8], what: &str) -> Result<T, Problem> {
    serde_json::from_slice(raw)
        .map_err(|error| Problem::bad_request(format!("the body is not {what}: {error}")))
}
