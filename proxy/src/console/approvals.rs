//! Approvals: what waits, one of them, and the vote.
//!
//! A command is shown whole wherever it can be decided on; where it would not fit, nothing of it is
//! shown instead. The vote echoes the digest of the page it was cast from, and whether
//! it counts is for the approval service to say, as for every other channel.

use std::fmt::Write as _;

use axum::extract::rejection::{FormRejection, QueryRejection};
use axum::extract::{Form, Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use holdpoint_core::display::escape_line;
use holdpoint_core::id::Digest;
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Console;
use super::html::Html;
use super::page::{Frame, Tab, notice, refused};
use super::sign_in::Who;
use crate::api::{Choice, Decision, Problem, approval_id, cast};
use crate::approvals::{IdentityView, View};

/// Longer commands are not shown in lists.
const SHORT: usize = 600;
const SHORT_LINES: usize = 8;

/// Decided ones that the list ends with.
const RECENT: usize = 15;

/// How long a page waits for a change before it asks again.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(25);

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
    html.raw("<h1>Waiting for a decision</h1>\n");
    if pending.is_empty() {
        html.raw(
            "<p class=\"empty\">Nothing waits. Held commands appear here by themselves.</p>\n",
        );
    } else {
        html.raw("<ol class=\"cards\">\n");
        for view in &pending {
            card(&mut html, view, now);
        }
        html.raw("</ol>\n");
    }
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

fn card(html: &mut Html, view: &View, now: u64) {
    html.raw("<li><a class=\"card\" href=\"/console/approvals/")
        .text(&view.id)
        .raw("\">\n<span class=\"line\">");
    chips(html, view);
    html.within("<b class=\"target\">", &view.target, "</b>");
    countdown(html, view, now);
    html.raw("</span>\n<span class=\"line soft\"><b>")
        .text(&view.principal.label)
        .raw("</b> ")
        .text(&view.principal.kind);
    behind(html, view);
    html.raw(" · ").text(&view.rule);
    if view.quorum > 1 {
        html.raw(" · ")
            .show(view.approvals)
            .raw(" of ")
            .show(view.quorum)
            .raw(" approved");
    }
    html.raw("</span>\n");
    let text = &view.shown.text;
    let lines = text.lines().count();
    if text.len() <= SHORT && lines <= SHORT_LINES && view.shown.parameters.is_empty() {
        html.raw("<pre class=\"command\">")
            .block(text)
            .raw("</pre>");
    } else {
        html.raw("<span class=\"line soft\">")
            .show(lines)
            .raw(" lines, ")
            .show(text.len())
            .raw(" bytes, ")
            .show(view.shown.parameters.len())
            .raw(" parameters: open to read it whole</span>");
    }
    html.raw("</a></li>\n");
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
        .raw(" <span class=\"soft\">")
        .text(&view.shown.class)
        .raw(" · ")
        .text(&view.opened_at)
        .raw("</span></a></li>\n");
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

#[derive(Deserialize)]
pub(super) struct Told {
    told: Option<String>,
}

pub(super) async fn one(
    State(console): State<Console>,
    headers: HeaderMap,
    Path(id): Path<String>,
    query: Result<Query<Told>, QueryRejection>,
) -> Response {
    let next = format!("/console/approvals/{id}");
    let who = match console.who(&headers, &next).await {
        Ok(who) => who,
        Err(page) => return *page,
    };
    let Some(view) = found(&console, &id) else {
        return unknown();
    };
    let told = query.ok().and_then(|Query(told)| told.told);
    let now = console.now().unix();
    let mut html = Html::default();
    match told.as_deref() {
        Some("counted") => {
            html.raw("<p class=\"told\" role=\"status\">Your approval is recorded. More reviewers must approve before it runs.</p>");
        }
        Some("repeated") => {
            html.raw("<p class=\"told\" role=\"status\">Your vote was recorded before and counts once.</p>");
        }
        Some("settled") => {
            html.raw("<p class=\"told\" role=\"status\">Your vote is recorded, and it settled the approval.</p>");
        }
        Some("submitted") => {
            html.raw("<p class=\"told\" role=\"status\">Your vote is on its way to the node that holds the command. It counts once it is listed below.</p>");
        }
        _ => {}
    }
    heading(&mut html, &view, now);
    if let Some(denial) = &view.denial {
        html.raw("<p class=\"told bad\">Denied by ")
            .text(&denial.label)
            .raw(": ")
            .text(&denial.reason)
            .raw("</p>\n");
    }
    command(&mut html, &view);
    facts(&mut html, &view);
    votes(&mut html, &view);
    if view.state == "pending" {
        html.raw("<nav class=\"decide\" aria-label=\"Decide\"><a class=\"button go\" data-key=\"a\" href=\"/console/approvals/")
            .text(&view.id)
            .raw("/approve\">Approve…</a> <a class=\"button stop\" data-key=\"d\" href=\"/console/approvals/")
            .text(&view.id)
            .raw("/deny\">Deny…</a></nav>\n");
    }
    evidence(&mut html, &view);
    frame(&console, &who, "Approval", true).page(StatusCode::OK, &html)
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
    command(&mut html, &view);
    html.raw("<form class=\"vote\" method=\"post\" action=\"/console/approvals/")
        .text(&view.id)
        .raw("/decision\">\n<input type=\"hidden\" name=\"csrf\" value=\"")
        .text(&who.session.csrf)
        .raw("\">\n<input type=\"hidden\" name=\"digest\" value=\"")
        .text(&view.digest)
        .raw("\">\n<input type=\"hidden\" name=\"decision\" value=\"")
        .text(word)
        .raw("\">\n");
    match choice {
        Choice::Approve => {
            html.raw("<h2>Approve this command?</h2>\n<p class=\"soft\">It may run once, exactly as shown above, on <b>")
                .text(&view.target)
                .raw("</b>. This is recorded with your name and cannot be taken back.</p>\n<p><label for=\"reason\">Note <span class=\"soft\">(optional, recorded)</span></label><textarea id=\"reason\" name=\"reason\" rows=\"2\" maxlength=\"2000\"></textarea></p>\n<p class=\"buttons\"><button class=\"button go\">Approve it</button> ");
        }
        Choice::Deny => {
            html.raw("<h2>Deny this command?</h2>\n<p class=\"soft\">It will not run. The requester is told your reason, so say what to do instead.</p>\n<p><label for=\"reason\">Reason <span class=\"soft\">(required)</span></label><textarea id=\"reason\" name=\"reason\" rows=\"3\" maxlength=\"2000\" required autofocus></textarea></p>\n<p class=\"buttons\"><button class=\"button stop\">Deny it</button> ");
        }
    }
    html.raw("<a class=\"button quiet\" data-key=\"u\" href=\"/console/approvals/")
        .text(&view.id)
        .raw("\">Back</a></p>\n</form>\n");
    frame(&console, &who, "Decide", false).page(StatusCode::OK, &html)
}

#[derive(Deserialize)]
pub(super) struct Ballot {
    csrf: String,
    digest: String,
    decision: Choice,
    #[serde(default)]
    reason: String,
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
        window: None,
    };
    let vote = match decision.vote(&id, who.principal, "console") {
        Ok(vote) => vote,
        Err(problem) => return refused("Your vote did not count", &problem),
    };
    match cast(&*console.0.approvals, vote, console.now()).await {
        Ok(decided) => Redirect::to(&format!(
            "/console/approvals/{}?told={}",
            decided.id, decided.outcome
        ))
        .into_response(),
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

fn frame<'a>(console: &Console, who: &'a Who, title: &'a str, live: bool) -> Frame<'a> {
    Frame {
        title,
        tab: Tab::Approvals,
        who: Some(who),
        pending: console.0.approvals.pending(),
        live: live.then(|| fingerprint(console)),
    }
}

fn found(console: &Console, id: &str) -> Option<std::sync::Arc<View>> {
    console.0.approvals.get(&approval_id(id).ok()?)
}

fn unknown() -> Response {
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

fn heading(html: &mut Html, view: &View, now: u64) {
    html.raw("<div class=\"line\">");
    state(html, view);
    chips(html, view);
    if view.state == "pending" {
        countdown(html, view, now);
    }
    html.raw("</div>\n<h1>")
        .text(&view.principal.label)
        .raw(" <span class=\"soft\">asks to run on</span> ")
        .text(&view.target)
        .raw("</h1>\n");
}

/// What a reviewer should see before anything else of a command.
fn chips(html: &mut Html, view: &View) {
    let shown = &view.shown;
    let open = match shown.class.as_str() {
        "ddl" | "dcl" | "maintenance" | "procedural" | "unknown" => "<span class=\"chip bad\">",
        "read" | "session" | "transaction" => "<span class=\"chip\">",
        _ => "<span class=\"chip waits\">",
    };
    html.within(open, &shown.class, "</span>");
    if !shown.proven {
        html.raw("<span class=\"chip bad\">parser not sure</span>");
    }
    for effect in &shown.effects {
        html.within("<span class=\"chip\">", effect, "</span>");
    }
    if shown.in_transaction {
        html.raw("<span class=\"chip waits\">in a transaction</span>");
    }
}

fn state(html: &mut Html, view: &View) {
    let open = match view.state.as_str() {
        "pending" => "<span class=\"chip state waits\">",
        "approved" | "used" => "<span class=\"chip state good\">",
        "denied" | "revoked" => "<span class=\"chip state bad\">",
        _ => "<span class=\"chip state\">",
    };
    html.within(open, &view.state, "</span>");
}

fn countdown(html: &mut Html, view: &View, now: u64) {
    let until = OffsetDateTime::parse(&view.expires_at, &Rfc3339)
        .map_or(0, |at| u64::try_from(at.unix_timestamp()).unwrap_or(0));
    let left = until.saturating_sub(now);
    html.raw("<time class=\"left\" datetime=\"")
        .text(&view.expires_at)
        .raw("\" data-left=\"")
        .show(left)
        .raw("\">")
        .text(&span(left))
        .raw("</time>");
}

fn span(seconds: u64) -> String {
    match seconds {
        0 => "over".to_owned(),
        1..=59 => format!("{seconds} s left"),
        60..=3599 => format!("{} min {:02} s left", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min left", seconds / 3600, seconds / 60 % 60),
    }
}

/// The whole of it.
fn command(html: &mut Html, view: &View) {
    let shown = &view.shown;
    html.raw("<section class=\"whole\">\n<p class=\"soft small\">The command, whole · ")
        .show(shown.text.lines().count())
        .raw(" lines, ")
        .show(shown.text.len())
        .raw(" bytes · invisible characters appear as <code>\\u{…}</code></p>\n<pre class=\"command\" tabindex=\"0\">")
        .block(&shown.text)
        .raw("</pre>\n");
    if !shown.parameters.is_empty() {
        html.raw("<h2>Parameters</h2>\n<ul class=\"mono\">");
        for parameter in &shown.parameters {
            html.within("<li>", parameter, "</li>");
        }
        html.raw("</ul>\n");
    }
    if !shown.objects.is_empty() {
        html.raw("<h2>Touches</h2>\n<ul class=\"mono\">");
        for object in &shown.objects {
            html.within("<li>", object, "</li>");
        }
        html.raw("</ul>\n");
    }
    if !shown.context.is_empty() {
        html.raw("<details><summary>Session settings</summary><ul class=\"mono\">");
        for pair in &shown.context {
            html.within("<li>", &pair.join(" = "), "</li>");
        }
        html.raw("</ul></details>\n");
    }
    html.raw("</section>\n");
}

fn facts(html: &mut Html, view: &View) {
    html.raw("<dl class=\"facts\">\n<dt>Who</dt><dd><b>")
        .text(&view.principal.label)
        .raw("</b>, ")
        .text(&view.principal.kind)
        .raw("<br><span class=\"soft\">")
        .text(&named(&view.principal.subject, &view.principal.issuer))
        .raw("</span></dd>\n");
    for (title, people) in [
        ("<dt>Acting for</dt><dd>", &view.principal.actors),
        ("<dt>Owned by</dt><dd>", &view.principal.owners),
    ] {
        if !people.is_empty() {
            let all: Vec<_> = people.iter().map(person).collect();
            html.within(title, &all.join(", "), "</dd>\n");
        }
    }
    html.within("<dt>Where</dt><dd><b>", &view.target, "</b></dd>\n")
        .raw("<dt>Why held</dt><dd>")
        .text(view.reason.as_deref().unwrap_or("the rule gives no reason"))
        .raw(" <span class=\"soft\">by rule</span> <code>")
        .text(&view.rule)
        .raw("</code></dd>\n<dt>Who decides</dt><dd>")
        .show(view.quorum)
        .raw(" of ")
        .text(&view.reviewers.join(", "))
        .raw("</dd>\n<dt>Transaction</dt><dd>")
        .raw(if view.shown.in_transaction {
            "open: locks it has are held while this waits"
        } else {
            "none open"
        })
        .raw("</dd>\n<dt>Session</dt><dd><a href=\"/console/sessions/")
        .text(&view.session)
        .raw("\"><code>")
        .text(&view.session)
        .raw("</code></a>, command ")
        .show(view.command)
        .raw("</dd>\n");
    if let Some(node) = &view.node {
        html.within("<dt>Held by node</dt><dd>", node, "</dd>\n");
    }
    html.raw("<dt>Waiting now</dt><dd>")
        .show(view.waiting)
        .raw(" open connections</dd>\n<dt>Asked, ends</dt><dd>")
        .text(&view.opened_at)
        .raw(" – ")
        .text(&view.expires_at)
        .raw("</dd>\n</dl>\n");
}

fn votes(html: &mut Html, view: &View) {
    html.raw("<h2>Votes <span class=\"soft\">")
        .show(view.approvals)
        .raw(" of ")
        .show(view.quorum)
        .raw(" approvals</span></h2>\n");
    if view.votes.is_empty() {
        html.raw("<p class=\"soft\">Nobody has voted.</p>\n");
        return;
    }
    html.raw("<ul class=\"votes\">");
    for vote in &view.votes {
        let open = match vote.decision.as_str() {
            "approve" => "<li><span class=\"chip good\">",
            _ => "<li><span class=\"chip bad\">",
        };
        html.within(open, &vote.decision, "</span> <b>")
            .text(&vote.label)
            .raw("</b> <span class=\"soft\">")
            .text(&person(&vote.reviewer))
            .raw(" · ")
            .text(&vote.channel)
            .raw("</span>");
        if let Some(reason) = &vote.reason {
            html.within("<br>", reason, "");
        }
        html.raw("</li>");
    }
    html.raw("</ul>\n");
}

/// What ties this page to the journal.
fn evidence(html: &mut Html, view: &View) {
    html.raw("<p class=\"evidence soft small\">digest <code>")
        .text(&view.digest)
        .raw("</code><br>rules <code>")
        .text(&view.policy)
        .raw("</code> · journal ")
        .show(view.journal.size)
        .raw("/<code>")
        .text(&view.journal.root8)
        .raw("</code> · <code>")
        .text(&view.id)
        .raw("</code></p>\n");
}

fn person(identity: &IdentityView) -> String {
    named(&identity.subject, &identity.issuer)
}

fn named(subject: &str, issuer: &str) -> String {
    format!(
        "{} at {}",
        escape_line(subject.as_bytes()),
        escape_line(issuer.as_bytes())
    )
}
