//! A reviewer's own security keys: which they are, a new one, one less.
//!
//! Whoever holds a browser that somebody left open must not be able to make a key of their own, so that
//! both take a sign-in of just before. The journal has it first.

use std::time::Duration;

use axum::extract::rejection::FormRejection;
use axum::extract::{Form, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use holdpoint_core::id::Digest;
use holdpoint_core::principal::Identity;
use holdpoint_core::record::{Durability, Entry};
use holdpoint_core::webauthn::Registration;
use serde::Deserialize;

use super::Console;
use super::html::Html;
use super::one::moment;
use super::page::{Frame, Tab, notice};
use super::sign_in::Who;
use super::signing::encoded;
use crate::approvals::rfc3339;
use crate::security_keys::{KeysError, SecurityKey, SecurityKeys};

const HERE: &str = "/console/keys";

/// How long ago at most somebody signed in who changes their keys.
const RECENT: Duration = Duration::from_secs(300);

/// Characters of a key's name.
const MAX_NAME: usize = 60;

pub(super) async fn list(State(console): State<Console>, headers: HeaderMap) -> Response {
    let who = match console.who(&headers, HERE).await {
        Ok(who) => who,
        Err(page) => return *page,
    };
    let Some(keys) = &console.0.keys else {
        return none();
    };
    let again = console.again(&who, RECENT, HERE);
    let (own, disputed) = keys.registered(&who.principal.identity);
    let mut html = Html::default();
    html.raw("<div class=\"title\"><h1>Your security keys</h1></div>\n<p>They sign what you approve where a rule asks for it. The signature is kept in the journal with your vote.</p>\n");
    if !disputed.is_empty() {
        html.raw("<section class=\"told bad\"><p>Somebody else registered these keys, too. They count for nobody until you or they have removed them.</p>\n<ul class=\"rows keys\">\n");
        for key in &disputed {
            one(&mut html, &who, key, again.is_none());
        }
        html.raw("</ul></section>\n");
    }
    if own.is_empty() {
        html.raw("<p class=\"empty\">You have registered none.</p>\n");
    } else {
        html.raw("<ul class=\"rows keys\">\n");
        for key in &own {
            one(&mut html, &who, key, again.is_none());
        }
        html.raw("</ul>\n");
    }
    match again {
        Some((why, url)) => {
            html.raw("<section class=\"vote\"><h2>Sign in again to change them</h2><p>That takes a sign-in of the last five minutes, and ")
                .text(&why.to_string())
                .raw(".</p><p class=\"buttons\"><a class=\"button go\" href=\"")
                .text(&url)
                .raw("\">Sign in again</a></p></section>\n");
        }
        None => register(&mut html, &console, &who, keys, &own),
    }
    let frame = Frame {
        title: "Security keys",
        tab: Tab::None,
        who: Some(&who),
        pending: console.0.approvals.pending(),
        live: None,
    };
    frame.page(StatusCode::OK, &html)
}

fn one(html: &mut Html, who: &Who, key: &SecurityKey, may_remove: bool) {
    html.raw("<li><span class=\"pad\"><b>")
        .text(&key.name)
        .raw("</b> <span class=\"soft\">registered ");
    moment(html, &rfc3339(key.added_unix.saturating_mul(1_000_000_000)));
    match key.used_unix {
        Some(at) => {
            html.raw(", used last ");
            moment(html, &rfc3339(at.saturating_mul(1_000_000_000)));
        }
        None => {
            html.raw(", not used yet");
        }
    }
    if let Some(node) = &key.node {
        html.within(", at node ", node, "");
    }
    html.raw("</span></span>");
    // One of another node is removed there.
    if may_remove && key.node.is_none() {
        html.raw("<form method=\"post\" action=\"/console/keys/remove\"><input type=\"hidden\" name=\"csrf\" value=\"")
            .text(&who.session.csrf)
            .raw("\"><input type=\"hidden\" name=\"id\" value=\"")
            .text(&key.credential.id)
            .raw("\"><button class=\"plain\">Remove</button></form>");
    }
    html.raw("</li>\n");
}

fn register(
    html: &mut Html,
    console: &Console,
    who: &Who,
    keys: &SecurityKeys,
    own: &[SecurityKey],
) {
    let by = &who.principal.identity;
    let Some(nonce) = console.ask(by, None) else {
        html.raw("<p class=\"told bad\">There is no randomness to be had on this machine.</p>");
        return;
    };
    let ids: Vec<_> = own.iter().map(|key| key.credential.id.as_str()).collect();
    // Names somebody to their authenticator, and tells it nothing.
    let user = Digest::of(format!("{}\0{}", by.issuer, by.subject).as_bytes());
    html.raw("<form class=\"vote\" method=\"post\" action=\"/console/keys/add\" data-webauthn=\"create\" data-rp=\"")
        .text(&keys.rp().id)
        .raw("\" data-user=\"")
        .text(&encoded(&user.0))
        .raw("\" data-label=\"")
        .text(&who.label())
        .raw("\" data-keys=\"")
        .text(&ids.join(" "))
        .raw("\" data-challenge=\"")
        .text(&encoded(&challenge(by, &nonce)))
        .raw("\">\n<input type=\"hidden\" name=\"csrf\" value=\"")
        .text(&who.session.csrf)
        .raw("\">\n<input type=\"hidden\" name=\"nonce\" value=\"")
        .text(&nonce)
        .raw("\">\n<input type=\"hidden\" name=\"authenticator_data\">\n<input type=\"hidden\" name=\"client_data\">\n<h2>Register a security key</h2>\n<p>A security key with a PIN, or a passkey of this device. Your browser asks for it.</p>\n<p><label for=\"name\">Its name <span class=\"soft\">for you, such as “key at the desk”</span></label><input type=\"text\" id=\"name\" name=\"name\" maxlength=\"60\" required></p>\n<p class=\"told bad\" role=\"alert\" data-failed hidden></p>\n<noscript><p class=\"told bad\">A security key is registered only where script runs.</p></noscript>\n<p class=\"buttons\"><button class=\"button go\">Register it</button></p>\n</form>\n");
}

fn challenge(by: &Identity, nonce: &str) -> [u8; 32] {
    let text = format!("holdpoint.key.v1\0{}\0{}\0{nonce}", by.issuer, by.subject);
    Digest::of(text.as_bytes()).0
}

#[derive(Deserialize)]
pub(super) struct New {
    csrf: String,
    nonce: String,
    name: String,
    authenticator_data: String,
    client_data: String,
}

pub(super) async fn add(
    State(console): State<Console>,
    headers: HeaderMap,
    form: Result<Form<New>, FormRejection>,
) -> Response {
    let csrf = form.as_ref().map_or("", |Form(new)| &new.csrf);
    let (who, keys) = match console.changes_keys(&headers, csrf).await {
        Ok(both) => both,
        Err(page) => return *page,
    };
    let Ok(Form(new)) = form else {
        return failed(StatusCode::BAD_REQUEST, "The form is incomplete.");
    };
    let by = who.principal.identity.clone();
    if !console.was_asked(&new.nonce, &by, None) {
        return failed(
            StatusCode::BAD_REQUEST,
            "The page was used before, or is too old.",
        );
    }
    let name: String = new.name.trim().chars().take(MAX_NAME).collect();
    if name.is_empty() {
        return failed(StatusCode::BAD_REQUEST, "A key needs a name.");
    }
    let registration = Registration {
        authenticator_data: new.authenticator_data,
        client_data: new.client_data,
    };
    let checked = registration.check(&challenge(&by, &new.nonce), keys.rp());
    let (credential, counter) = match checked {
        Ok(checked) => checked,
        Err(why) => return refused(&why.into()),
    };
    if let Err(why) = keys.check(&by, &credential) {
        return refused(&why);
    }
    let entry = Entry::KeyAdded {
        by: by.clone(),
        name: name.clone(),
        credential: Box::new(credential.clone()),
        counter,
    };
    let key = SecurityKey {
        owner: by,
        name,
        credential,
        counter,
        added_unix: console.now().unix(),
        used_unix: None,
        node: None,
    };
    console.change(entry, move || keys.add(key)).await
}

#[derive(Deserialize)]
pub(super) struct Old {
    csrf: String,
    id: String,
}

pub(super) async fn remove(
    State(console): State<Console>,
    headers: HeaderMap,
    form: Result<Form<Old>, FormRejection>,
) -> Response {
    let csrf = form.as_ref().map_or("", |Form(old)| &old.csrf);
    let (who, keys) = match console.changes_keys(&headers, csrf).await {
        Ok(both) => both,
        Err(page) => return *page,
    };
    let Ok(Form(old)) = form else {
        return failed(StatusCode::BAD_REQUEST, "The form is incomplete.");
    };
    let by = who.principal.identity.clone();
    match keys.any(&by, &old.id) {
        Ok(key) => {
            if let Some(node) = key.node {
                return refused(&KeysError::Elsewhere(node));
            }
        }
        Err(why) => return refused(&why),
    }
    let entry = Entry::KeyRemoved {
        by: by.clone(),
        id: old.id.clone(),
    };
    console
        .change(entry, move || keys.remove(&by, &old.id))
        .await
}

impl Console {
    /// Somebody who signed in just now, from a form of ours.
    async fn changes_keys(
        &self,
        headers: &HeaderMap,
        csrf: &str,
    ) -> Result<(Who, std::sync::Arc<SecurityKeys>), Box<Response>> {
        let who = self.sender(headers, csrf, HERE).await?;
        let keys = self.0.keys.clone().ok_or_else(|| Box::new(none()))?;
        if self.again(&who, RECENT, HERE).is_some() {
            // The page says what to do.
            return Err(Box::new(Redirect::to(HERE).into_response()));
        }
        Ok((who, keys))
    }

    async fn change(
        &self,
        entry: Entry,
        change: impl FnOnce() -> Result<(), KeysError> + Send + 'static,
    ) -> Response {
        let recorded = self.0.own.record(None, entry, Durability::Synced);
        if let Err(error) = recorded.await {
            tracing::error!(%error, "a change of security keys is not in the journal, so there is none");
            return unavailable();
        }
        match tokio::task::spawn_blocking(change).await {
            Ok(Ok(())) => Redirect::to(HERE).into_response(),
            Ok(Err(why)) => refused(&why),
            Err(_) => unavailable(),
        }
    }
}

fn refused(why: &KeysError) -> Response {
    if let KeysError::File(error) = why {
        tracing::error!(%error, "security keys cannot be kept");
        return unavailable();
    }
    failed(StatusCode::FORBIDDEN, &why.to_string())
}

fn failed(status: StatusCode, why: &str) -> Response {
    notice(
        status,
        "Nothing was changed",
        why,
        Some("open your keys again"),
    )
}

fn unavailable() -> Response {
    failed(
        StatusCode::SERVICE_UNAVAILABLE,
        "The change could not be kept; the gateway's log says why.",
    )
}

fn none() -> Response {
    notice(
        StatusCode::NOT_FOUND,
        "No security keys here",
        "This gateway takes none.",
        Some("an operator sets `[review.webauthn]`"),
    )
}
