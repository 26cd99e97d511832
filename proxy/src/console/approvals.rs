//! Approvals: what waits, one of them, and the vote.
//!
//! A command is shown whole wherever it can be decided on; where it would not fit, nothing of it is
//! shown instead. The vote echoes the digest of the page it was cast from, and whether
//! it counts is for the approval service to say, as for every other channel.

use std::fmt::Write as _;
use std::time::Duration;

use axum::extract::rejection::{FormRejection, QueryRejection};
use axum::extract::{Form, Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use holdpoint_core::display::escape_line;
use holdpoint_core::id::Digest;
use holdpoint_core::source::Span;
use serde::Deserialize;

use super::Console;
use super::glass;
use super::html::Html;
use super::one::{Weight, chips, command, countdown, heading, moment, state, warnings, weight};
use super::page::{Frame, Tab, notice, refused};
use super::sign_in::Who;
use super::signing::{self, Challenges, Signature};
use crate::api::{Choice, Decision, Problem, approval_id, cast};
use crate::approvals::View;

/// Longer commands are not shown in lists.
const SHORT: usize = 600;
const SHORT_LINES: usize = 8;

/// The same, of decided ones.
const SHORT_ROW: usize = 80;

/// Decided ones that the list ends with.
const RECENT: usize = 15;

/// How long a page waits for a change before it asks again.
const PATIENCE: Duration = Duration::from_secs(25);

pub(super) async fn list(State(console): State<Console>, headers: HeaderMap) -> Response {
    let who = match console.who(&headers, "/console").await {
        Ok(who) => who,
        Err(page) => return *page,
    };
    let all = console.0.approvals.list();
    let (mut pending, decided): (Vec<_>, Vec<_>) =
        all.iter().partition(|view| view.state == "pending");
    pending.sort_by(|a, b| (&a.expires_at, &a.id).cmp(&(&b.expires_at, &b.id)));
    let now = console.now().unix();
    let mut html = Html::default();
    html.raw("<div class=\"title\"><h1>Waiting for a decision</h1>");
    if !pending.is_empty() {
        html.raw("<span class=\"soft\">soonest end first</span>");
    }
    html.raw("</div>\n");
    if pending.is_empty() {
        html.raw(
            "<p class=\"empty\">Nothing waits. Held commands appear here by themselves.</p>\n",
        );
    } else {
        let sql = console.sql_targets();
        html.raw("<ol class=\"cards\">\n");
        for view in &pending {
            card(&mut html, view, now, sql.contains(&view.target));
        }
        html.raw("</ol>\n");
    }
    glass::open(&mut html, &console.0.approvals.reviews().await);
    if !decided.is_empty() {
        html.raw("<h2>Decided</h2>\n<ol class=\"rows\">\n");
        for view in decided.iter().take(RECENT) {
            row(&mut html, view);
        }
        html.raw("</ol>\n");
    }
    let frame = Frame {
        title: "Approvals",
        tab: Tab::Approvals,
        who: Some(&who),
        pending: pending.len(),
        live: Some(fingerprint(&console)),
    };
    frame.page(StatusCode::OK, &html)
}

fn card(html: &mut Html, view: &View, now: u64, sql: bool) {
    html.raw(match weight(view) {
        Weight::Heavy => "<li class=\"heavy\">",
        Weight::Some => "<li class=\"some\">",
        Weight::Light => "<li>",
    })
    .raw("<a class=\"card\" href=\"/console/approvals/")
    .text(&view.id)
    .raw("\">\n<span class=\"line\">");
    chips(html, view);
    html.within("<b class=\"target\">", &view.target, "</b>");
    countdown(html, view, now);
    html.raw("</span>\n");
    let text = &view.shown.text;
    let lines = text.lines().count();
    if text.len() <= SHORT && lines <= SHORT_LINES && view.shown.parameters.is_empty() {
        html.raw("<pre class=\"command\">");
        if sql {
            html.statement(text);
        } else {
            html.block(text);
        }
        html.raw("</pre>\n");
    } else {
        html.raw("<span class=\"long\">")
            .count(lines, "line")
            .raw(", ")
            .count(text.len(), "byte")
            .raw(", ")
            .count(view.shown.parameters.len(), "parameter")
            .raw(": open to read it whole</span>\n");
    }
    html.raw("<span class=\"line soft\"><b>")
        .text(&view.principal.label)
        .raw("</b> ")
        .text(&view.principal.kind);
    behind(html, view);
    html.raw(" · ")
        .text(view.reason.as_deref().unwrap_or(&view.rule));
    if view.quorum > 1 {
        html.raw(" · ")
            .show(view.approvals)
            .raw(" of ")
            .show(view.quorum)
            .raw(" approved");
    }
    html.raw("</span></a></li>\n");
}

fn row(html: &mut Html, view: &View) {
    html.raw("<li><a href=\"/console/approvals/")
        .text(&view.id)
        .raw("\">");
    state(html, view);
    html.raw(" <b>")
        .text(&view.target)
        .raw("</b> ")
        .text(&view.principal.label)
        .raw(" ");
    let text = &view.shown.text;
    // Whole or not at all, here as well.
    if text.len() <= SHORT_ROW && !text.contains('\n') && view.shown.parameters.is_empty() {
        html.within("<code>", text, "</code>");
    } else {
        html.text(&view.shown.class);
    }
    html.raw(" <span class=\"soft\">· ");
    moment(html, &view.opened_at);
    html.raw("</span></a></li>\n");
}

/// On whose behalf: who it acts for, else who answers for it.
fn behind(html: &mut Html, view: &View) {
    let people = match view.principal.actors.as_slice() {
        [] => &view.principal.owners,
        _ => &view.principal.actors,
    };
    let names: Vec<_> = people
        .iter()
        .map(|one| escape_line(one.subject.as_bytes()))
        .collect();
    if !names.is_empty() {
        html.within(" for ", &names.join(", "), "");
    }
}

pub(super) async fn approve(
    console: State<Console>,
    headers: HeaderMap,
    id: Path<String>,
) -> Response {
    confirm(console, headers, id, Choice::Approve).await
}

pub(super) async fn deny(
    console: State<Console>,
    headers: HeaderMap,
    id: Path<String>,
) -> Response {
    confirm(console, headers, id, Choice::Deny).await
}

/// The last page before a vote: the command once more, and the form.
async fn confirm(
    State(console): State<Console>,
    headers: HeaderMap,
    Path(id): Path<String>,
    choice: Choice,
) -> Response {
    let word = word(choice);
    let next = format!("/console/approvals/{id}/{word}");
    let who = match console.who(&headers, &next).await {
        Ok(who) => who,
        Err(page) => return *page,
    };
    let Some(view) = found(&console, &id) else {
        return unknown();
    };
    if view.state != "pending" {
        return Redirect::to(&format!("/console/approvals/{}", view.id)).into_response();
    }
    let now = console.now().unix();
    let mut html = Html::default();
    heading(&mut html, &view, now);
    warnings(&mut html, &view);
    command(
        &mut html,
        &view.shown,
        console.sql_targets().contains(&view.target),
    );
    if matches!(choice, Choice::Approve) && !ready(&mut html, &console, &who, &view, &next) {
        return frame(&console, &who, "Decide", false).page(StatusCode::OK, &html);
    }
    html.raw("<form class=\"vote ")
        .raw(word)
        .raw("\" method=\"post\" action=\"/console/approvals/")
        .text(&view.id)
        .raw("/decision\"");
    let challenges = match choice {
        Choice::Approve if view.webauthn => signing::form(&mut html, &console, &who, &view),
        _ => None,
    };
    if let Some(challenges) = &challenges {
        html.raw(" data-challenge=\"")
            .text(&challenges.of(None))
            .raw("\"");
    }
    html.raw(">\n<input type=\"hidden\" name=\"csrf\" value=\"")
        .text(&who.session.csrf)
        .raw("\">\n<input type=\"hidden\" name=\"digest\" value=\"")
        .text(&view.digest)
        .raw("\">\n<input type=\"hidden\" name=\"decision\" value=\"")
        .text(word)
        .raw("\">\n");
    match choice {
        Choice::Approve => {
            html.raw("<h2>Approve this command?</h2>\n<p>It may run once, exactly as shown above, on <b>")
                .text(&view.target)
                .raw("</b>. This is recorded with your name and cannot be taken back.");
            if challenges.is_some() {
                html.raw(" Your security key signs it.");
            }
            html.raw("</p>\n");
            windows(&mut html, &view, challenges.as_ref());
            if let Some(challenges) = &challenges {
                challenges.inputs(&mut html);
            }
            html.raw("<p><label for=\"reason\">Note <span class=\"soft\">optional, recorded</span></label><textarea id=\"reason\" name=\"reason\" rows=\"2\" maxlength=\"2000\" autofocus></textarea></p>\n<p class=\"buttons\"><button class=\"button go\">Approve it</button> ");
        }
        Choice::Deny => {
            html.raw("<h2>Deny this command?</h2>\n<p>It will not run. The requester is told your reason, so say what to do instead.</p>\n<p><label for=\"reason\">Reason <span class=\"soft\">required</span></label><textarea id=\"reason\" name=\"reason\" rows=\"3\" maxlength=\"2000\" required autofocus></textarea></p>\n<p class=\"buttons\"><button class=\"button stop\">Deny it</button> ");
        }
    }
    html.raw("<a class=\"button quiet\" data-key=\"u\" href=\"/console/approvals/")
        .text(&view.id)
        .raw("\">Back</a></p>\n</form>\n");
    frame(&console, &who, "Decide", false).page(StatusCode::OK, &html)
}

/// Whether `who` may approve now. Otherwise the page says what to do first, and leads back to it.
fn ready(html: &mut Html, console: &Console, who: &Who, view: &View, next: &str) -> bool {
    if !signed_in_lately(html, console, who, view, next) {
        return false;
    }
    if view.webauthn {
        let own = (console.0.keys.as_ref()).map(|keys| keys.of(&who.principal.identity));
        if own.is_none_or(|own| own.is_empty()) {
            html.raw("<section class=\"vote approve\"><h2>Register a security key to approve</h2>\n<p>The rule wants approvals signed by your security key, and you have none here. To deny it, nothing is needed.</p>\n<p class=\"buttons\"><a class=\"button go\" href=\"/console/keys\">Register one</a> ");
            back(html, view);
            return false;
        }
    }
    true
}

/// Whether `who` signed in as lately as the rule asks; otherwise as [`ready`].
pub(super) fn signed_in_lately(
    html: &mut Html,
    console: &Console,
    who: &Who,
    view: &View,
    next: &str,
) -> bool {
    let Some(max) = &view.step_up else {
        return true;
    };
    // A time that cannot be read is no time.
    let span = Span::parse(max).map_or(Duration::ZERO, |Span(span)| span);
    let Some((why, url)) = console.again(who, span, next) else {
        return true;
    };
    html.raw("<section class=\"vote approve\"><h2>Sign in again first</h2>\n<p>To let it run, the rule wants a sign-in of the last ")
        .text(max)
        .raw(", and ")
        .text(&why.to_string())
        .raw(". You come back to this page. To deny it, nothing is needed.</p>\n<p class=\"buttons\"><a class=\"button go\" href=\"")
        .text(&url)
        .raw("\">Sign in again</a> ");
    back(html, view);
    false
}

fn back(html: &mut Html, view: &View) {
    html.raw("<a class=\"button quiet\" data-key=\"u\" href=\"/console/approvals/")
        .text(&view.id)
        .raw("\">Back</a></p>\n</section>\n");
}

/// How else than once it may run, where the rule offers that.
fn windows(html: &mut Html, view: &View, challenges: Option<&Challenges>) {
    if view.windows.is_empty() {
        return;
    }
    html.raw("<p><label for=\"window\">May run</label><select id=\"window\" name=\"window\"><option value=\"\" selected>once</option>");
    for window in &view.windows {
        html.raw("<option value=\"").text(window);
        if let (Some(challenges), Ok(window)) = (challenges, window.parse()) {
            html.raw("\" data-challenge=\"")
                .text(&challenges.of(Some(window)));
        }
        html.raw("\">as often as asked, the identical command: ")
            .text(window)
            .raw("</option>");
    }
    html.raw("</select></p>\n");
}

#[derive(Deserialize)]
pub(super) struct Ballot {
    csrf: String,
    digest: String,
    decision: Choice,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    window: String,
    #[serde(flatten)]
    signature: Signature,
}

pub(super) async fn decision(
    State(console): State<Console>,
    headers: HeaderMap,
    Path(id): Path<String>,
    form: Result<Form<Ballot>, FormRejection>,
) -> Response {
    let next = format!("/console/approvals/{id}");
    let csrf = form.as_ref().map_or("", |Form(ballot)| &ballot.csrf);
    // Whoever it is comes first: nothing is said of an id to a stranger.
    let who = match console.sender(&headers, csrf, &next).await {
        Ok(who) => who,
        Err(page) => return *page,
    };
    let Ok(Form(ballot)) = form else {
        return refused(
            "Not a vote",
            &Problem::bad_request("the form is incomplete"),
        );
    };
    let reason = ballot.reason.trim();
    let decision = Decision {
        decision: ballot.decision,
        digest: ballot.digest,
        reason: (!reason.is_empty()).then(|| reason.to_owned()),
        window: (!ballot.window.is_empty()).then_some(ballot.window),
    };
    let mut vote = match decision.vote(&id, who.principal, "console") {
        Ok(vote) => vote,
        Err(problem) => return refused("Your vote did not count", &problem),
    };
    if let Err(problem) = console.sign(&mut vote, ballot.signature).await {
        return refused("Your vote did not count", &problem);
    }
    match cast(&*console.0.approvals, vote, console.now()).await {
        Ok(decided) => Redirect::to(&format!(
            "/console/approvals/{}?told={}",
            decided.id, decided.outcome
        ))
        .into_response(),
        // The page says what to do.
        Err(problem) if problem.code == "HP-STEP-UP" => {
            Redirect::to(&format!("{next}/approve")).into_response()
        }
        Err(problem) => refused("Your vote did not count", &problem),
    }
}

#[derive(Deserialize)]
pub(super) struct Seen {
    seen: String,
}

/// Answers once there is something else to see than `seen`, or `204` after a while.
pub(super) async fn changes(
    State(console): State<Console>,
    headers: HeaderMap,
    query: Result<Query<Seen>, QueryRejection>,
) -> Response {
    if let Err(page) = console.who(&headers, "/console").await {
        return *page;
    }
    let Ok(Query(Seen { seen })) = query else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let Ok(_turn) = console.0.waiting.try_acquire() else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    // First, so that nothing happens between the look and the wait.
    let mut news = console.0.approvals.subscribe();
    let wait = async {
        while fingerprint(&console) == seen {
            // A subscriber that missed some looks again, too.
            if let Err(tokio::sync::broadcast::error::RecvError::Closed) = news.recv().await {
                return;
            }
        }
    };
    match tokio::time::timeout(PATIENCE, wait).await {
        Ok(()) => StatusCode::OK.into_response(),
        Err(_) => StatusCode::NO_CONTENT.into_response(),
    }
}

/// Changes with whatever the lists show.
fn fingerprint(console: &Console) -> String {
    let mut text = String::new();
    for view in console.0.approvals.list() {
        let _ = writeln!(
            text,
            "{} {} {} {} {}",
            view.id,
            view.state,
            view.votes.len(),
            view.waiting,
            view.deliveries.len()
        );
    }
    let digest = Digest::of(text.as_bytes()).to_string();
    digest.get(..16).unwrap_or_default().to_owned()
}

pub(super) fn frame<'a>(console: &Console, who: &'a Who, title: &'a str, live: bool) -> Frame<'a> {
    Frame {
        title,
        tab: Tab::Approvals,
        who: Some(who),
        pending: console.0.approvals.pending(),
        live: live.then(|| fingerprint(console)),
    }
}

pub(super) fn found(console: &Console, id: &str) -> Option<std::sync::Arc<View>> {
    console.0.approvals.get(&approval_id(id).ok()?)
}

pub(super) fn unknown() -> Response {
    notice(
        StatusCode::NOT_FOUND,
        "No such approval",
        "There is no such approval, or it was settled long ago.",
        None,
    )
}

fn word(choice: Choice) -> &'static str {
    match choice {
        Choice::Approve => "approve",
        Choice::Deny => "deny",
    }
}
