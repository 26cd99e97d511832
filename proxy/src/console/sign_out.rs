//! Signing out: here at once, and as far as the issuer takes part, there.
//!
//! The token goes back to the issuer (RFC 7009), so that a copy of it ends where the issuer is asked.
//! The issuer's own sign-in is the person's to end: the page has the link.

use axum::extract::{Form, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Deserialize;

use super::Console;
use super::guard::cookie;
use super::html::Html;
use super::page::{Frame, Tab};
use super::sign_in::{SignedIn, with_cookie};

#[derive(Deserialize)]
pub(super) struct Leave {
    csrf: String,
}

pub(super) async fn logout(
    State(console): State<Console>,
    headers: HeaderMap,
    form: Result<Form<Leave>, axum::extract::rejection::FormRejection>,
) -> Response {
    let csrf = form.map(|Form(leave)| leave.csrf).unwrap_or_default();
    if let Err(page) = console.sender(&headers, &csrf, "/console").await {
        return *page;
    }
    let origin = &console.0.origin;
    let name = origin.cookie_name("");
    let session = cookie(&headers, &name)
        .and_then(|value| console.0.signed_in.take(value, console.now().mono_ns));
    let page = match session {
        Some(session) => console.signed_out(&session).await,
        None => signed_out_page(false, None),
    };
    with_cookie(page, &origin.cookie(&name, "", Some(0)))
}

impl Console {
    /// Here it is over already, whatever the issuer does.
    async fn signed_out(&self, session: &SignedIn) -> Response {
        let Some(way) = self.0.ways.get(session.way) else {
            return signed_out_page(false, None);
        };
        let (mut revoked, mut leave) = (false, None);
        let given_back = async {
            let provider = way.provider(self.now().mono_ns).await?;
            leave = provider.sign_out_url();
            revoked = provider.revoke(&session.token).await?;
            anyhow::Ok(())
        };
        if let Err(error) = given_back.await {
            tracing::warn!(
                issuer = way.name,
                error = format!("{error:#}"),
                "console: a token was not given back"
            );
        }
        signed_out_page(revoked, leave.as_deref())
    }
}

fn signed_out_page(revoked: bool, leave: Option<&str>) -> Response {
    let mut html = Html::default();
    html.raw(
        "<section class=\"notice\"><h1>Signed out</h1><p>This browser is signed out of holdpoint.",
    );
    if revoked {
        html.raw(" The token was given back to your issuer.");
    }
    html.raw("</p>");
    match leave {
        Some(url) => html
            .raw("<p>Your issuer may still know you: <a href=\"")
            .text(url)
            .raw("\" rel=\"noreferrer\">sign out there, too</a>.</p>"),
        None => html.raw("<p class=\"soft\">Your issuer may still know you.</p>"),
    };
    html.raw("<p><a href=\"/console\">Back to approvals</a></p></section>");
    let frame = Frame {
        title: "Signed out",
        tab: Tab::None,
        who: None,
        pending: 0,
        live: None,
    };
    frame.page(StatusCode::OK, &html)
}
