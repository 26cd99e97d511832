//! One approval: everything that a decision needs, on one page.

use std::fmt::Write as _;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use holdpoint_core::display::escape_line;
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Console;
use super::approvals::{found, frame, unknown};
use super::html::Html;
use super::sql::shape;
use crate::approvals::{IdentityView, ShownView, View};

/// Earlier decisions that are shown.
const EARLIER: usize = 5;

#[derive(Deserialize)]
pub(super) struct Told {
    told: Option<String>,
}

pub(super) async fn show(
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
    let mut html = Html::default();
    match told.as_deref() {
        Some("counted") => {
            html.raw("<p class=\"told\" role=\"status\">Your approval is recorded. More reviewers must approve before it runs.</p>");
        }
        Some("repeated") => {
            html.raw("<p class=\"told\" role=\"status\">Your vote was recorded before and counts once.</p>");
        }
        Some("advanced") => {
            html.raw("<p class=\"told\" role=\"status\">Your approval is recorded, and the next step is asked.</p>");
        }
        Some("submitted") => {
            html.raw("<p class=\"told\" role=\"status\">Your vote is on its way to the node that holds the command. It counts once it is listed below.</p>");
        }
        Some("settled") => {
            html.raw("<p class=\"told\" role=\"status\">Your vote is recorded, and it settled the approval.</p>");
        }
        _ => {}
    }
    heading(&mut html, &view, console.now().unix());
    if let Some(denial) = &view.denial {
        html.raw("<p class=\"told bad\">Denied by <b>")
            .text(&denial.label)
            .raw("</b>: ")
            .text(&denial.reason)
            .raw("</p>\n");
    }
    if let Some(glass) = &view.glass {
        html.raw("<p class=\"told bad\"><b>")
            .text(&glass.label)
            .raw("</b> let it run in an emergency, in place of its reviewers: ")
            .text(&glass.reason);
        if glass.reviewed_by.is_some() {
            html.raw(" (looked into)");
        } else {
            html.raw(" <a href=\"/console/reviews/")
                .text(&view.id)
                .raw("\">Look into it…</a>");
        }
        html.raw("</p>\n");
    }
    html.raw("<div class=\"split\">\n<div class=\"first\">\n");
    warnings(&mut html, &view);
    command(
        &mut html,
        &view.shown,
        console.sql_targets().contains(&view.target),
    );
    earlier(&mut html, &console, &view);
    html.raw("</div>\n<div class=\"second\">\n");
    facts(&mut html, &view);
    votes(&mut html, &view);
    told_of(&mut html, &view);
    html.raw("</div>\n</div>\n");
    if view.state == "pending" {
        html.raw("<nav class=\"decide\" aria-label=\"Decide\"><a class=\"button stop\" data-key=\"d\" href=\"/console/approvals/")
            .text(&view.id)
            .raw("/deny\">Deny…</a> <a class=\"button go\" data-key=\"a\" href=\"/console/approvals/")
            .text(&view.id)
            .raw("/approve\">Approve…</a></nav>\n");
        if !view.break_glass.is_empty() {
            html.raw("<p class=\"soft small emergency\">In an emergency, ")
                .text(&view.break_glass.join(", "))
                .raw(" may <a href=\"/console/approvals/")
                .text(&view.id)
                .raw("/glass\">let it run at once…</a></p>\n");
        }
    }
    evidence(&mut html, &view);
    frame(&console, &who, "Approval", true).page(StatusCode::OK, &html)
}

pub(super) fn heading(html: &mut Html, view: &View, now: u64) {
    html.raw("<p class=\"crumbs\"><a href=\"/console\">Approvals</a> <span aria-hidden=\"true\">/</span> <code>")
        .text(&view.id)
        .raw("</code></p>\n<div class=\"title\"><h1>")
        .text(&view.principal.label)
        .raw(" <span class=\"soft\">asks to run this on</span> ")
        .text(&view.target)
        .raw("</h1>");
    if view.state == "pending" {
        countdown(html, view, now);
    }
    html.raw("</div>\n<div class=\"line\">");
    state(html, view);
    chips(html, view);
    html.raw("</div>\n");
}

/// What a reviewer should see before anything else of a command.
pub(super) fn chips(html: &mut Html, view: &View) {
    let shown = &view.shown;
    let open = match weight(view) {
        Weight::Heavy => "<span class=\"chip bad\">",
        Weight::Some => "<span class=\"chip waits\">",
        Weight::Light => "<span class=\"chip\">",
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

/// How much a class of commands can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weight {
    Light,
    Some,
    Heavy,
}

pub(super) fn weight(view: &View) -> Weight {
    match view.shown.class.as_str() {
        _ if !view.shown.proven => Weight::Heavy,
        "ddl" | "dcl" | "maintenance" | "procedural" | "unknown" => Weight::Heavy,
        "read" | "session" | "transaction" => Weight::Light,
        _ => Weight::Some,
    }
}

pub(super) fn state(html: &mut Html, view: &View) {
    let open = match view.state.as_str() {
        "pending" => "<span class=\"chip state waits\">",
        "approved" | "used" => "<span class=\"chip state good\">",
        "denied" | "revoked" => "<span class=\"chip state bad\">",
        _ => "<span class=\"chip state\">",
    };
    html.within(open, &view.state, "</span>");
}

/// Time left, in words and as a bar.
pub(super) fn countdown(html: &mut Html, view: &View, now: u64) {
    let at = |text: &str| {
        OffsetDateTime::parse(text, &Rfc3339)
            .map_or(0, |at| u64::try_from(at.unix_timestamp()).unwrap_or(0))
    };
    let until = at(&view.expires_at);
    let left = until.saturating_sub(now);
    let whole = until.saturating_sub(at(&view.opened_at)).max(1);
    html.raw(if left < 60 {
        "<span class=\"left soon\">"
    } else {
        "<span class=\"left\">"
    })
    .raw("<time datetime=\"")
    .text(&view.expires_at)
    .raw("\" data-left=\"")
    .show(left)
    .raw("\">")
    .text(&span(left))
    .raw("</time><progress aria-label=\"Time left\" max=\"")
    .show(whole)
    .raw("\" value=\"")
    .show(left.min(whole))
    .raw("\"></progress></span>");
}

fn span(seconds: u64) -> String {
    match seconds {
        0 => "over".to_owned(),
        1..=59 => format!("{seconds} s left"),
        60..=3599 => format!("{} min {:02} s left", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min left", seconds / 3600, seconds / 60 % 60),
    }
}

/// In sentences, what makes this one harder to judge than others.
pub(super) fn warnings(html: &mut Html, view: &View) {
    let shown = &view.shown;
    let hidden = shown.text.contains("\\u{") || shown.text.contains("\\x");
    let all = [
        (
            !shown.proven,
            "The parser could not establish all that this does: read it as if it did anything.",
        ),
        (
            hidden,
            "It has characters that would be invisible or move text. They are spelled out below.",
        ),
        (
            view.justify && view.justification.is_none() && view.state == "pending",
            "The requester has not said why yet. Nobody can approve before.",
        ),
        (
            shown.in_transaction && view.state == "pending",
            "A transaction is open: the locks that it has are held until you decide.",
        ),
    ];
    if !all.iter().any(|(is, _)| *is) {
        return;
    }
    html.raw("<ul class=\"warnings\">");
    for (_, text) in all.iter().filter(|(is, _)| *is) {
        html.raw("<li>").raw(text).raw("</li>");
    }
    html.raw("</ul>\n");
}

/// The whole of it.
pub(super) fn command(html: &mut Html, shown: &ShownView, sql: bool) {
    html.raw("<section class=\"whole\" aria-label=\"The command\">\n<div class=\"bar\"><h2>The command, whole</h2><span class=\"soft small\">")
        .count(shown.text.lines().count(), "line")
        .raw(", ")
        .count(shown.text.len(), "byte")
        .raw("</span></div>\n<pre class=\"command\" tabindex=\"0\">");
    if sql {
        html.statement(&shown.text);
    } else {
        html.block(&shown.text);
    }
    html.raw("</pre>\n");
    items(html, "<h3>Parameters</h3>", &shown.parameters);
    items(html, "<h3>Touches</h3>", &shown.objects);
    if !shown.context.is_empty() {
        html.raw("<details><summary>Session settings that change what it means</summary><ul class=\"mono\">");
        for pair in &shown.context {
            html.within("<li>", &pair.join(" = "), "</li>");
        }
        html.raw("</ul></details>\n");
    }
    html.raw("</section>\n");
}

fn items(html: &mut Html, title: &'static str, all: &[String]) {
    if all.is_empty() {
        return;
    }
    html.raw(title).raw("\n<ul class=\"mono items\">");
    for one in all {
        html.within("<li>", one, "</li>");
    }
    html.raw("</ul>\n");
}

/// What was decided about commands that differ in their values only.
fn earlier(html: &mut Html, console: &Console, view: &View) {
    let this = shape(&view.shown.text);
    let same: Vec<_> = (console.0.approvals.list().into_iter())
        .filter(|one| one.id != view.id && one.is_decided())
        .filter(|one| one.target == view.target && one.opened_at <= view.opened_at)
        .filter(|one| shape(&one.shown.text) == this)
        .collect();
    html.raw("<section class=\"earlier\"><h2>Decided before <span class=\"soft\">the same command on this target, whatever its values</span></h2>\n");
    if same.is_empty() {
        html.raw("<p class=\"soft\">Never since the gateway started.</p></section>\n");
        return;
    }
    html.raw("<ol class=\"rows\">");
    for one in same.iter().take(EARLIER) {
        html.raw("<li><a href=\"/console/approvals/")
            .text(&one.id)
            .raw("\">");
        state(html, one);
        html.raw(" ").text(&one.principal.label);
        match (&one.denial, one.votes.first()) {
            (Some(denial), _) => {
                html.raw(" <span class=\"soft\">by</span> ")
                    .text(&denial.label)
                    .raw(": ")
                    .text(&denial.reason);
            }
            (None, Some(_)) => {
                let voters: Vec<_> = one.votes.iter().map(|vote| vote.label.as_str()).collect();
                html.raw(" <span class=\"soft\">by</span> ")
                    .text(&voters.join(", "));
            }
            (None, None) => {}
        }
        html.raw(" <span class=\"soft\">· ");
        moment(html, &one.opened_at);
        html.raw("</span></a></li>\n");
    }
    html.raw("</ol>\n");
    if same.len() > EARLIER {
        html.raw("<p class=\"soft small\">and ")
            .show(same.len() - EARLIER)
            .raw(" more</p>");
    }
    html.raw("</section>\n");
}

fn facts(html: &mut Html, view: &View) {
    html.raw("<dl class=\"facts\">\n<dt>Who</dt><dd><b>")
        .text(&view.principal.label)
        .raw("</b>, ")
        .text(&view.principal.kind)
        .raw("<br><span class=\"soft small\">")
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
        .raw("<br><span class=\"soft small\">rule</span> <code>")
        .text(&view.rule)
        .raw("</code></dd>\n");
    if let Some(why) = &view.justification {
        html.within("<dt>Why, says the requester</dt><dd>", why, "</dd>\n");
    }
    html.raw("<dt>Who decides</dt><dd>");
    if view.steps.len() > 1 {
        steps(html, view);
    } else {
        html.show(view.quorum)
            .raw(" of ")
            .text(&view.reviewers.join(", "));
    }
    html.raw("</dd>\n");
    if let Some(max) = &view.step_up {
        html.within(
            "<dt>Approving takes</dt><dd>a sign-in of the last ",
            max,
            "</dd>\n",
        );
    }
    if view.webauthn {
        html.raw("<dt>Signed</dt><dd>by the reviewer's security key</dd>\n");
    }
    html.raw("<dt>Transaction</dt><dd>")
        .raw(if view.shown.in_transaction {
            "open"
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
        .count(view.waiting, "open connection")
        .raw("</dd>\n<dt>Asked</dt><dd>");
    moment(html, &view.opened_at);
    html.raw("</dd>\n<dt>Ends</dt><dd>");
    moment(html, &view.expires_at);
    html.raw("</dd>\n");
    if let Some(until) = &view.usable_until {
        html.raw("<dt>May run until</dt><dd>");
        moment(html, until);
        html.raw("</dd>\n");
    }
    if let Some(until) = &view.window_until {
        html.raw("<dt>May run again until</dt><dd>");
        moment(html, until);
        html.raw("</dd>\n");
    }
    html.raw("</dl>\n");
}

/// Agreements that are needed one after the other.
fn steps(html: &mut Html, view: &View) {
    html.raw("<ol class=\"steps\">");
    for step in &view.steps {
        html.raw(match step.state.as_str() {
            "done" => "<li><span class=\"chip good\">done</span> ",
            "current" => "<li><span class=\"chip waits\">now</span> ",
            _ => "<li><span class=\"chip\">later</span> ",
        })
        .show(step.approvals)
        .raw("/")
        .show(step.quorum)
        .raw(" of ")
        .text(&step.reviewers.join(", "));
        if let Some(escalation) = &step.escalation {
            html.raw(" <span class=\"soft\">")
                .raw(if escalation.done {
                    "and since "
                } else {
                    "and after "
                })
                .text(&escalation.after)
                .raw(" ")
                .text(&escalation.reviewers.join(", "))
                .raw("</span>");
        }
        html.raw("</li>");
    }
    html.raw("</ol>");
}

/// A time that the script shows in the reader's own zone.
pub(super) fn moment(html: &mut Html, at: &str) {
    let plain = at.replace('T', " ").replace('Z', " UTC");
    html.raw("<time class=\"at\" datetime=\"")
        .text(at)
        .raw("\">")
        .text(&plain)
        .raw("</time>");
}

fn votes(html: &mut Html, view: &View) {
    html.raw("<section><h2>Votes <span class=\"soft\">")
        .show(view.approvals)
        .raw(" of ")
        .show(view.quorum)
        .raw(" needed</span></h2>\n");
    if view.votes.is_empty() {
        html.raw("<p class=\"soft\">Nobody has voted.</p></section>\n");
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
            .raw("</b> <span class=\"soft small\">")
            .text(&person(&vote.reviewer))
            .raw(" · ")
            .text(&vote.channel);
        if vote.webauthn {
            html.raw(" · signed by a security key");
        }
        html.raw("</span>");
        if let Some(reason) = &vote.reason {
            html.within("<br>", reason, "");
        }
        html.raw("</li>");
    }
    html.raw("</ul></section>\n");
}

/// Channels that could not be told: somebody may wait for a message that never comes.
fn told_of(html: &mut Html, view: &View) {
    let mut lost = view
        .deliveries
        .iter()
        .filter(|one| one.error.is_some())
        .peekable();
    if lost.peek().is_none() {
        return;
    }
    html.raw("<section><h2>Not told</h2><ul class=\"votes\">");
    for one in lost {
        html.raw("<li><span class=\"chip bad\">")
            .text(&one.channel)
            .raw("</span> ")
            .text(one.error.as_deref().unwrap_or_default())
            .raw("</li>");
    }
    html.raw("</ul></section>\n");
}

/// What ties this page to the journal.
fn evidence(html: &mut Html, view: &View) {
    html.raw("<details class=\"evidence small\"><summary>Evidence</summary><dl class=\"facts\"><dt>Digest</dt><dd><code>")
        .text(&view.digest)
        .raw("</code></dd><dt>Rules</dt><dd><code>")
        .text(&view.policy)
        .raw("</code></dd><dt>Journal</dt><dd>")
        .show(view.journal.size)
        .raw("/<code>")
        .text(&view.journal.root8)
        .raw("</code></dd></dl></details>\n");
}

fn person(identity: &IdentityView) -> String {
    named(&identity.subject, &identity.issuer)
}

fn named(subject: &str, issuer: &str) -> String {
    let mut text = escape_line(subject.as_bytes());
    let _ = write!(text, " at {}", escape_line(issuer.as_bytes()));
    text
}
