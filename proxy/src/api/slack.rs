//! What people press in Slack.
//!
//! Slack wants an answer within three seconds, so it gets one at once; what comes of a click is told
//! to its author alone and shown in the message. Three things must be true before a click counts: Slack
//! signed it just now, its account stands for a person who signed in ([`crate::links`]), and that person's
//! vote passes every check that any vote passes. Groups are those of the sign-in.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use holdpoint_core::Now;
use holdpoint_core::approval::{MAX_REASON, Reviewer, Verdict, Vote};
use holdpoint_core::decision::Window;
use holdpoint_core::display::escape_line;
use holdpoint_core::id::Digest;
use holdpoint_core::principal::Principal;
use serde_json::json;

use super::approvals::{cast, window as window_of};
use super::auth::voter;
use super::{Api, Decided, Problem};
use crate::approvals::View;
use crate::links::Account;
use crate::notify::slack::inbound::{About, Asked, Clicker, Payload, REASON_INPUT};
use crate::notify::slack::{Place, Slack, gone};

const TIMESTAMP: &str = "x-slack-request-timestamp";
const SIGNATURE: &str = "x-slack-signature";

/// Slack sends the whole message along.
const MAX_PAYLOAD: usize = 256 * 1024;

/// Longer than a signature is good (300 s to either side).
const REMEMBER: Duration = Duration::from_secs(600);

/// Payloads remembered; past it clicks are refused, not forgotten.
const MAX_REMEMBERED: usize = 10_000;

/// Payloads that were acted on: the same one again does nothing.
#[derive(Default)]
pub(super) struct Clicks(Mutex<HashMap<Digest, u64>>);

impl Clicks {
    /// Whether this is the first time. An error: too many to remember.
    fn first(&self, raw: &[u8], name: &str, mono_ns: u64) -> Result<bool, ()> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = Digest::of(&[name.as_bytes(), b"\0", raw].concat());
        if seen.get(&key).is_some_and(|until| mono_ns < *until) {
            return Ok(false);
        }
        if seen.len() >= MAX_REMEMBERED {
            seen.retain(|_, until| mono_ns < *until);
        }
        if seen.len() >= MAX_REMEMBERED {
            return Err(());
        }
        let span = u64::try_from(REMEMBER.as_nanos()).unwrap_or(u64::MAX);
        seen.insert(key, mono_ns.saturating_add(span));
        Ok(true)
    }
}

/// Takes what people press in Slack
///
/// For Slack alone: the request URL of the app's interactivity. Signed by Slack
/// (`X-Slack-Signature`), answered at once; what came of it is shown in Slack.
#[utoipa::path(
    post, path = "/v1/slack/{name}/interactions", tag = "review",
    params(("name" = String, Path, description = "the one of `[review.slack.NAME]`")),
    request_body(content = String, content_type = "application/x-www-form-urlencoded"),
    security(("slack" = [])),
    responses(
        (status = 200, description = "taken"), (status = 400, body = Problem),
        (status = 401, body = Problem), (status = 503, body = Problem),
    ),
)]
pub(super) async fn interactions(
    State(api): State<Api>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let refused = || {
        Problem::new(
            StatusCode::UNAUTHORIZED,
            "HP-SIGNATURE",
            "this is not signed by Slack, or not now",
        )
        .hint("an operator: `signing_secret` of `[review.slack.NAME]`, and the clock")
    };
    let raw = axum::body::to_bytes(body, MAX_PAYLOAD)
        .await
        .map_err(|_| Problem::bad_request("the payload is too long, or broke off"))?;
    let now = api.now();
    let slack = api.0.slack.get(&name).ok_or_else(refused)?;
    let one = |name: &str| {
        let mut all = headers.get_all(name).iter();
        match (all.next(), all.next()) {
            (Some(value), None) => value.to_str().ok(),
            _ => None,
        }
    };
    let (timestamp, signature) = (one(TIMESTAMP), one(SIGNATURE));
    if !slack
        .signing()
        .signed(timestamp, signature, &raw, now.unix())
    {
        return Err(refused());
    }
    let payload = Payload::read(&raw)
        .ok_or_else(|| Problem::bad_request("the body is not a payload of Slack's"))?;
    let asked = payload
        .asked()
        .ok_or_else(|| Problem::bad_request("the payload is incomplete"))?;
    if asked == Asked::Nothing {
        return Ok(StatusCode::OK.into_response());
    }
    let clicker = payload
        .clicker()
        .ok_or_else(|| Problem::bad_request("the payload does not say who pressed"))?;
    if let Asked::Reason { reason, .. } = &asked {
        // The modal stays open and says so.
        let wrong = match reason.len() {
            0 => Some("A denial needs a reason."),
            length if length > MAX_REASON => Some("This is too long."),
            _ => None,
        };
        if let Some(wrong) = wrong {
            let errors = json!({"response_action": "errors", "errors": {REASON_INPUT: wrong}});
            return Ok(Json(errors).into_response());
        }
    }
    match api.0.clicks.first(&raw, &name, now.mono_ns) {
        Ok(true) => {}
        Ok(false) => return Ok(StatusCode::OK.into_response()),
        Err(()) => {
            return Err(Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "HP-LIMIT",
                "too many clicks within ten minutes",
            ));
        }
    }
    let click = Click {
        slack: Arc::clone(slack),
        api,
        clicker,
    };
    // Of its own: Slack does not wait, and a vote is not half done where it hangs up.
    tokio::spawn(async move { click.serve(asked, now).await });
    Ok(StatusCode::OK.into_response())
}

/// What somebody decided.
enum Choice {
    Approve(Option<Window>),
    Deny(String),
}

struct Click {
    api: Api,
    slack: Arc<Slack>,
    clicker: Clicker,
}

impl Click {
    async fn serve(&self, asked: Asked, now: Now) {
        match asked {
            Asked::Approve {
                about,
                place,
                window,
            } => {
                let Some((principal, view)) = self.ready(&about, &place, now).await else {
                    return;
                };
                // The button is not there; but a vote is not for buttons to prevent.
                if !self.slack.may_approve(&view) {
                    let text = if view.needs_console() {
                        "Approving this takes a fresh sign-in or a security key, which Slack cannot show. Open it instead."
                    } else {
                        "This command is not shown whole here, so it cannot be approved here. Open it instead."
                    };
                    self.whisper(&place, text, None).await;
                    return;
                }
                let Ok(window) = window_of(window.as_deref()) else {
                    let text = "Your vote did not count: there is no such choice. Open the command instead.";
                    self.whisper(&place, text, None).await;
                    return;
                };
                let choice = Choice::Approve(window);
                self.vote(&about, &place, principal, choice, now).await;
            }
            Asked::Deny {
                about,
                place,
                trigger,
            } => {
                let Some((_, view)) = self.ready(&about, &place, now).await else {
                    return;
                };
                let asked = self
                    .slack
                    .ask_reason(&trigger, &view, &about.memo(&place))
                    .await;
                if let Err(error) = asked {
                    tracing::warn!(channel = self.slack.name(), %error, "no modal was opened");
                    self.whisper(
                        &place,
                        "Slack did not open the form. Press the button again, or open the link.",
                        None,
                    )
                    .await;
                }
            }
            Asked::Reason {
                about,
                place,
                reason,
            } => {
                if let Some((principal, _)) = self.ready(&about, &place, now).await {
                    let choice = Choice::Deny(reason);
                    self.vote(&about, &place, principal, choice, now).await;
                }
            }
            Asked::Nothing => {}
        }
    }

    /// Who it is, and what it is about; else whoever pressed is told why not.
    async fn ready(
        &self,
        about: &About,
        place: &Place,
        now: Now,
    ) -> Option<(Principal, Arc<View>)> {
        if !self.slack.has_buttons() {
            let text = "Nobody decides in Slack any more. Open the link instead.";
            self.whisper(place, text, None).await;
            return None;
        }
        let account = Account {
            channel: self.slack.name().to_owned(),
            team: self.clicker.team.clone(),
            user: self.clicker.user.clone(),
        };
        let links = &self.api.0.links;
        let unix = now.unix();
        let linked = links.who(&account, unix);
        let Some(principal) = linked else {
            tracing::info!(
                channel = self.slack.name(),
                account = account.text(),
                "a click of an account that is not linked"
            );
            let token = links.invite(account, &self.clicker.label, unix);
            let base = self.api.0.public_url.as_deref();
            let url = base.zip(token).map(|(base, token)| {
                format!("{}/console/link/{token}", base.trim_end_matches('/'))
            });
            let text = "Your vote did not count: nobody knows who you are here. Sign in once for this Slack account, within ten minutes, then press the button again. Do not give the link to others.";
            let link = url.as_deref().map(|url| ("Sign in", url));
            self.whisper(place, text, link).await;
            return None;
        };
        if self.api.0.tokens.is_revoked(&principal) {
            self.whisper(
                place,
                "Your vote did not count: your identity was revoked (HP-REVOKED).",
                None,
            )
            .await;
            return None;
        }
        let Some(view) = self.api.0.board.get(&about.approval) else {
            let text = gone(about.approval.as_str());
            if let Err(error) = self.slack.close(place, &text).await {
                tracing::warn!(channel = self.slack.name(), %error, "an old message keeps its buttons");
            }
            return None;
        };
        Some((principal, view))
    }

    async fn vote(
        &self,
        about: &About,
        place: &Place,
        principal: Principal,
        choice: Choice,
        now: Now,
    ) {
        let (verdict, reason, window) = match choice {
            Choice::Approve(window) => (Verdict::Approve, None, window),
            Choice::Deny(reason) => (Verdict::Deny, Some(reason), None),
        };
        let vote = Vote {
            approval: about.approval.clone(),
            digest: about.digest,
            verdict,
            reason,
            reviewer: Reviewer {
                // Of the sign-in for which the account was linked: of no click.
                auth_time: None,
                ..voter(principal)
            },
            channel: self.slack.name().to_owned(),
            nonce: Some(place.ts.clone()),
            window,
            assertion: None,
        };
        match cast(&*self.api.0.board, vote, now).await {
            Ok(decided) => {
                self.whisper(place, &told(&decided), None).await;
                if decided.outcome == "settled" {
                    // The notifier updates the message that it posted; this may be another copy.
                    return;
                }
            }
            Err(problem) => {
                let hint = problem.hint.as_deref().unwrap_or_default();
                let text = format!(
                    "Your vote did not count: {} ({}). {hint}",
                    escape_line(problem.detail.as_bytes()),
                    problem.code
                );
                self.whisper(place, text.trim_end(), None).await;
            }
        }
        // What others did meanwhile, or how many are missing.
        let Some(view) = self.api.0.board.get(&about.approval) else {
            return;
        };
        let base = self.api.0.public_url.as_deref();
        if let Err(error) = self.slack.refresh(place, &view, base).await {
            tracing::warn!(channel = self.slack.name(), %error, "a message was not brought up to date");
        }
    }

    async fn whisper(&self, place: &Place, text: &str, link: Option<(&str, &str)>) {
        let said = self
            .slack
            .whisper(&place.channel, &self.clicker.user, text, link);
        if let Err(error) = said.await {
            tracing::warn!(channel = self.slack.name(), %error, "nobody was told what came of a click");
        }
    }
}

fn told(decided: &Decided) -> String {
    match decided.outcome.as_str() {
        "counted" => format!(
            "Your vote on {} is recorded: {} of {}.",
            decided.id, decided.approvals, decided.quorum
        ),
        "repeated" => format!(
            "Your vote on {} was recorded before and counts once.",
            decided.id
        ),
        _ => format!(
            "Your vote on {} is recorded, and settled it: {}.",
            decided.id, decided.state
        ),
    }
}
