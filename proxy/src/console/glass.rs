//! An emergency, and looking into it afterwards.
//!
//! Of whichever node: the one that holds the approval decides.

use axum::extract::rejection::FormRejection;
use axum::extract::{Form, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use holdpoint_core::approval::BreakGlass;
use serde::Deserialize;

use super::Console;
use super::approvals::{found, frame, signed_in_lately, unknown};
use super::html::Html;
use super::one::{command, heading, moment, warnings};
use super::page::{notice, refused};
use crate::api::{Problem, approval_id, voter};
use crate::approvals::{Cast, ReviewView};

/// What the list says of commands that nobody has looked into.
pub(super) fn open(html: &mut Html, (reviews, missing): &(Vec<ReviewView>, Vec<String>)) {
    for node in missing {
        html.within(
            "<p class=\"told bad\">Node ",
            node,
            " does not answer: what is to be looked into there is not listed.</p>\n",
        );
    }
    if reviews.is_empty() {
        return;
    }
    html.raw("<h2>To be looked into <span class=\"soft\">they ran in an emergency, without their reviewers</span></h2>\n<ol class=\"rows\">\n");
    for review in reviews {
        html.raw("<li><a href=\"/console/reviews/")
            .text(&review.id)
            .raw("\"><span class=\"chip bad\">glass broken</span> <b>")
            .text(&review.target)
            .raw("</b> by ")
            .text(&review.glass.label)
            .raw(": ")
            .text(&review.glass.reason)
            .raw(" <span class=\"soft\">");
        if let Some(node) = &review.node {
            html.within("· at node ", node, " ");
        }
        html.raw("· ");
        moment(html, &review.glass.at);
        html.raw("</span></a></li>\n");
    }
    html.raw("</ol>\n");
}

/// The last page before the glass is broken.
pub(super) async fn confirm(
    State(console): State<Console>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Response {
    let next = format!("/console/approvals/{id}/glass");
    let who = match console.who(&headers, &next).await {
        Ok(who) => who,
        Err(page) => return *page,
    };
    let Some(view) = found(&console, &id) else {
        return unknown();
    };
    if view.state != "pending" || view.break_glass.is_empty() {
        return Redirect::to(&format!("/console/approvals/{}", view.id)).into_response();
    }
    let mut html = Html::default();
    heading(&mut html, &view, console.now().unix());
    warnings(&mut html, &view);
    let sql = console.sql_targets().contains(&view.target);
    command(&mut html, &view.shown, sql);
    if signed_in_lately(&mut html, &console, &who, &view, &next) {
        html.raw("<form class=\"vote deny\" method=\"post\" action=\"/console/approvals/")
            .text(&view.id)
            .raw("/glass\">\n<input type=\"hidden\" name=\"csrf\" value=\"")
            .text(&who.session.csrf)
            .raw("\">\n<input type=\"hidden\" name=\"digest\" value=\"")
            .text(&view.digest)
            .raw("\">\n<h2>Let it run without its reviewers?</h2>\n<p>For emergencies, and for ")
            .text(&view.break_glass.join(", "))
            .raw(" only. It runs at once on <b>")
            .text(&view.target)
            .raw("</b>, every channel gets an alarm with your name, and somebody else looks into it afterwards.</p>\n<p><label for=\"reason\">Reason <span class=\"soft\">required, shown to everyone</span></label><textarea id=\"reason\" name=\"reason\" rows=\"3\" maxlength=\"2000\" required></textarea></p>\n<p class=\"buttons\"><button class=\"button stop\">Break the glass</button> <a class=\"button quiet\" data-key=\"u\" href=\"/console/approvals/")
            .text(&view.id)
            .raw("\">Back</a></p>\n</form>\n");
    }
    frame(&console, &who, "Emergency", false).page(StatusCode::OK, &html)
}

#[derive(Deserialize)]
pub(super) struct Broken {
    csrf: String,
    digest: String,
    #[serde(default)]
    reason: String,
}

pub(super) async fn break_it(
    State(console): State<Console>,
    headers: HeaderMap,
    Path(id): Path<String>,
    form: Result<Form<Broken>, FormRejection>,
) -> Response {
    let next = format!("/console/approvals/{id}/glass");
    let csrf = form.as_ref().map_or("", |Form(broken)| &broken.csrf);
    let who = match console.sender(&headers, csrf, &next).await {
        Ok(who) => who,
        Err(page) => return *page,
    };
    let title = "It did not run";
    let Ok(Form(broken)) = form else {
        return refused(title, &Problem::bad_request("the form is incomplete"));
    };
    let Ok(approval) = approval_id(&id) else {
        return unknown();
    };
    let Ok(digest) = broken.digest.parse() else {
        return refused(
            title,
            &Problem::bad_request("`digest` is not 64 hex digits"),
        );
    };
    let glass = BreakGlass {
        approval: approval.clone(),
        digest,
        by: voter(who.principal),
        reason: broken.reason,
        channel: "console".to_owned(),
        at: console.now().unix(),
    };
    match (console.0.approvals)
        .break_glass(glass, console.now())
        .await
    {
        Ok(Cast::Final(_)) => {
            Redirect::to(&format!("/console/approvals/{approval}")).into_response()
        }
        Ok(Cast::Submitted { .. }) => {
            Redirect::to(&format!("/console/approvals/{approval}?told=submitted")).into_response()
        }
        Err(why) => refused(title, &why.into()),
    }
}

/// What went without its reviewers, for one of them.
pub(super) async fn show(
    State(console): State<Console>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Response {
    let next = format!("/console/reviews/{id}");
    let who = match console.who(&headers, &next).await {
        Ok(who) => who,
        Err(page) => return *page,
    };
    let (reviews, missing) = console.0.approvals.reviews().await;
    let Some(review) = reviews.iter().find(|one| one.id == id) else {
        return over(&missing);
    };
    let mut html = Html::default();
    html.raw("<p class=\"crumbs\"><a href=\"/console\">Approvals</a> <span aria-hidden=\"true\">/</span> <code>")
        .text(&review.id)
        .raw("</code></p>\n<div class=\"title\"><h1>")
        .text(&review.principal.label)
        .raw(" <span class=\"soft\">ran this without reviewers on</span> ")
        .text(&review.target)
        .raw("</h1></div>\n<p class=\"told bad\"><b>")
        .text(&review.glass.label)
        .raw("</b> let it run in an emergency, ");
    moment(&mut html, &review.glass.at);
    html.raw(": ").text(&review.glass.reason).raw("</p>\n");
    let sql = console.sql_targets().contains(&review.target);
    command(&mut html, &review.shown, sql);
    if let Some(node) = &review.node {
        html.within("<p class=\"soft\">It ran at node ", node, ".</p>\n");
    }
    html.raw("<form class=\"vote\" method=\"post\" action=\"/console/reviews/")
        .text(&review.id)
        .raw("\">\n<input type=\"hidden\" name=\"csrf\" value=\"")
        .text(&who.session.csrf)
        .raw("\">\n<h2>Have you looked into it?</h2>\n<p>For ")
        .text(&review.reviewers.join(", "))
        .raw(", but neither for who let it run nor for who asked. What it did, whether it had to be, and what is to be undone is recorded with your name; it changes nothing any more.</p>\n<p><label for=\"note\">Note <span class=\"soft\">optional, recorded</span></label><textarea id=\"note\" name=\"note\" rows=\"3\" maxlength=\"2000\"></textarea></p>\n<p class=\"buttons\"><button class=\"button go\">I have looked into it</button> <a class=\"button quiet\" data-key=\"u\" href=\"/console\">Not yet</a></p>\n</form>\n");
    frame(&console, &who, "To be looked into", false).page(StatusCode::OK, &html)
}

#[derive(Deserialize)]
pub(super) struct Reviewed {
    csrf: String,
    #[serde(default)]
    note: String,
}

pub(super) async fn review(
    State(console): State<Console>,
    headers: HeaderMap,
    Path(id): Path<String>,
    form: Result<Form<Reviewed>, FormRejection>,
) -> Response {
    let next = format!("/console/reviews/{id}");
    let csrf = form.as_ref().map_or("", |Form(reviewed)| &reviewed.csrf);
    let who = match console.sender(&headers, csrf, &next).await {
        Ok(who) => who,
        Err(page) => return *page,
    };
    let note = form.map(|Form(reviewed)| reviewed.note).unwrap_or_default();
    let Ok(approval) = approval_id(&id) else {
        return over(&[]);
    };
    let by = voter(who.principal);
    match console.0.approvals.review(&approval, by, Some(note)).await {
        Ok(Cast::Submitted { node }) => notice(
            StatusCode::ACCEPTED,
            "On its way",
            &format!(
                "Node `{node}` has it and has not answered yet: it is closed once it is listed no more."
            ),
            None,
        ),
        Ok(Cast::Final(())) => notice(
            StatusCode::OK,
            "Looked into",
            "It is recorded with your name, and the channels are told.",
            None,
        ),
        Err(why) => refused("It stays open", &why.into()),
    }
}

fn over(missing: &[String]) -> Response {
    let silent = match missing {
        [] => String::new(),
        nodes => format!(" Node `{}` did not answer.", nodes.join("`, `")),
    };
    notice(
        StatusCode::NOT_FOUND,
        "Nothing to look into",
        &format!("There is no such command, or somebody has looked into it.{silent}"),
        None,
    )
}
