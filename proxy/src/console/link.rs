//! Linking a chat account with whoever is signed in.
//!
//! The invitation proves that somebody with that account asked; the sign-in proves who confirms. That both
//! are the same person nobody can prove: the page says whose account it is, in words that
//! a reviewer who was sent somebody else's link can stumble over.

use std::sync::Arc;

use axum::extract::rejection::FormRejection;
use axum::extract::{Form, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use holdpoint_core::record::{Durability, Entry};
use serde::Deserialize;

use super::Console;
use super::html::Html;
use super::page::{Frame, Tab, notice};
use crate::approvals::rfc3339;
use crate::links::{Invitation, Links};

pub(super) async fn show(
    State(console): State<Console>,
    headers: HeaderMap,
    Path(token): Path<String>,
) -> Response {
    let Some((_, invitation)) = console.invited(&token) else {
        return over();
    };
    let who = match console
        .who(&headers, &format!("/console/link/{token}"))
        .await
    {
        Ok(who) => who,
        Err(page) => return *page,
    };
    let mut html = Html::default();
    html.raw("<form class=\"vote\" method=\"post\" action=\"/console/link/")
        .text(&token)
        .raw("\">\n<input type=\"hidden\" name=\"csrf\" value=\"")
        .text(&who.session.csrf)
        .raw("\">\n<h1>Is this your account?</h1>\n<p>The account <b>")
        .text(&invitation.label)
        .raw("</b> (")
        .text(&invitation.account.text())
        .raw(", ")
        .text(&invitation.account.channel)
        .raw(") asks to decide on held commands as <b>")
        .text(&who.label())
        .raw("</b>: whatever it decides is recorded with your name.</p>\n<p>Go on only if you pressed a button there yourself a moment ago. If somebody sent you this link, close the page and tell an operator.</p>\n<p class=\"buttons\"><button class=\"button go\">This account is mine</button> <a class=\"button quiet\" href=\"/console\">Not mine</a></p>\n</form>\n");
    let frame = Frame {
        title: "Link an account",
        tab: Tab::None,
        who: Some(&who),
        pending: 0,
        live: None,
    };
    frame.page(StatusCode::OK, &html)
}

#[derive(Deserialize)]
pub(super) struct Confirm {
    csrf: String,
}

pub(super) async fn confirm(
    State(console): State<Console>,
    headers: HeaderMap,
    Path(token): Path<String>,
    form: Result<Form<Confirm>, FormRejection>,
) -> Response {
    let csrf = form.map(|Form(form)| form.csrf).unwrap_or_default();
    let next = format!("/console/link/{token}");
    let who = match console.sender(&headers, &csrf, &next).await {
        Ok(who) => who,
        Err(page) => return *page,
    };
    let Some((links, invitation)) = console.invited(&token) else {
        return over();
    };
    let account = invitation.account;
    let unix = console.now().unix();
    let until = links
        .lasts(&account.channel)
        .map_or(unix, |lasts| unix.saturating_add(lasts.as_secs()));
    // Written down first: who could decide as whom is known even if the next step fails.
    let entry = Entry::Linked {
        channel: account.channel.clone(),
        account: account.text(),
        by: who.principal.identity.clone(),
        groups: who.principal.groups.clone(),
        until_unix: until,
    };
    let recorded = console.0.own.record(None, entry, Durability::Synced);
    if let Err(error) = recorded.await {
        tracing::error!(%error, "a link is not in the journal, so there is none");
        return failed();
    }
    let (principal, of) = (who.principal.clone(), account.clone());
    let linked = tokio::task::spawn_blocking(move || links.link(&of, principal, unix));
    let until = match linked.await {
        Ok(Ok(until)) => until,
        Ok(Err(error)) => {
            tracing::error!(%error, "an account was not linked");
            return failed();
        }
        Err(_) => return failed(),
    };
    tracing::info!(
        principal.iss = who.principal.identity.issuer,
        principal.sub = who.principal.identity.subject,
        channel = account.channel,
        account = account.text(),
        "an account is linked"
    );
    let until = rfc3339(until.saturating_mul(1_000_000_000));
    let text = format!(
        "Until {until} what this account decides counts as yours. Go back and press the button again."
    );
    notice(StatusCode::OK, "Linked", &text, None)
}

impl Console {
    fn invited(&self, token: &str) -> Option<(Arc<Links>, Invitation)> {
        let links = self.0.links.as_ref()?;
        let invitation = links.invited(token, self.now().unix())?;
        Some((Arc::clone(links), invitation))
    }
}

fn over() -> Response {
    notice(
        StatusCode::NOT_FOUND,
        "Not this link",
        "It is older than ten minutes, or not from this gateway. Nothing was done.",
        Some("press the button again to get a new one"),
    )
}

fn failed() -> Response {
    notice(
        StatusCode::SERVICE_UNAVAILABLE,
        "Not linked",
        "The account could not be linked; the gateway's log says why.",
        None,
    )
}
