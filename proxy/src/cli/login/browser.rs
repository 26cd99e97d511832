//! Where the browser comes back to: a listener on 127.0.0.1 that serves one path, until the
//! issuer has answered (RFC 8252).
//!
//! Whatever else comes to it, with no state or a wrong one, is refused and changes nothing.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::get;
use openidconnect::CsrfToken;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::identity::same_secret;
use crate::oidc::plain;

/// For somebody to type a password and find a phone.
const PATIENCE: Duration = Duration::from_secs(300);

/// A place that is listened at, and nobody answered yet.
pub(super) struct Callback {
    listener: TcpListener,
    address: SocketAddr,
}

/// What has to be true of an answer.
struct Expected {
    state: CsrfToken,
    issuer: String,
    /// `iss` must be there, not only be right.
    names_itself: bool,
    host: String,
    answers: mpsc::Sender<Result<String, String>>,
}

#[derive(Deserialize)]
struct Answer {
    code: Option<String>,
    state: Option<String>,
    iss: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
}

impl Callback {
    /// Port 0 is any.
    pub(super) async fn listen(port: u16) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .await
            .with_context(|| format!("cannot listen on 127.0.0.1:{port} for the browser"))?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    pub(super) fn redirect_uri(&self) -> String {
        format!("http://{}/callback", self.address)
    }

    /// Waits for the code.
    pub(super) async fn code(
        self,
        state: CsrfToken,
        issuer: &str,
        names_itself: bool,
    ) -> anyhow::Result<String> {
        let (answers, mut inbox) = mpsc::channel(1);
        let expected = Arc::new(Expected {
            state,
            issuer: issuer.to_owned(),
            names_itself,
            host: self.address.to_string(),
            answers,
        });
        let app = Router::new()
            .route("/callback", get(callback))
            .with_state(expected);
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let server = axum::serve(self.listener, app).with_graceful_shutdown(async {
            // Either way it is over.
            let _ = stopped.await;
        });
        let server = tokio::spawn(server.into_future());
        let answer = tokio::select! {
            answer = tokio::time::timeout(PATIENCE, inbox.recv()) => answer,
            _ = tokio::signal::ctrl_c() => bail!("stopped; nobody signed in"),
        };
        // The page is on its way: let it arrive, but wait for no idle connection.
        let _ = stop.send(());
        let _ = tokio::time::timeout(Duration::from_millis(500), server).await;
        match answer {
            Ok(Some(Ok(code))) => Ok(code),
            Ok(Some(Err(why))) => bail!("issuer `{issuer}` refused: {why}"),
            Ok(None) => bail!("the listener for the browser is gone"),
            Err(_) => bail!("nobody signed in within {} min", PATIENCE.as_secs() / 60),
        }
    }
}

async fn callback(
    State(expected): State<Arc<Expected>>,
    headers: HeaderMap,
    Query(answer): Query<Answer>,
) -> Response {
    let host = headers.get(header::HOST).map(HeaderValue::as_bytes);
    let state = answer.state.as_deref().unwrap_or_default();
    if host != Some(expected.host.as_bytes()) || !same_secret(state, expected.state.secret()) {
        return page(
            StatusCode::BAD_REQUEST,
            "This answer belongs to no sign-in of ours. Nothing was done.",
        );
    }
    let right = match &answer.iss {
        Some(iss) => *iss == expected.issuer,
        None => !expected.names_itself,
    };
    if !right {
        return page(
            StatusCode::BAD_REQUEST,
            "This answer comes from another issuer. Nothing was done.",
        );
    }
    let (told, outcome) = match (answer.code, answer.error) {
        (Some(code), None) => ("Signed in. Go back to the terminal.", Ok(code)),
        (_, error) => {
            let error = error.unwrap_or_else(|| "no code came".to_owned());
            let text = answer.error_description.unwrap_or_default();
            let why = format!("{} {}", plain(&error), plain(&text));
            (
                "Not signed in. The terminal says why.",
                Err(why.trim_end().to_owned()),
            )
        }
    };
    // A second answer finds no room, which is right.
    let _ = expected.answers.try_send(outcome);
    page(StatusCode::OK, told)
}

fn page(status: StatusCode, text: &str) -> Response {
    let html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>holdpoint</title>\
         <body><h1>holdpoint</h1><p>{text}</p>"
    );
    let mut response = (status, Html(html)).into_response();
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'"),
        (header::CONNECTION, "close"),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Opens a browser where there is one to be opened.
///
/// The URL shows in the process list. Nothing in it is a secret: its state and nonce are
/// of no use without the verifier, which stays here.
pub(super) fn open(url: &str) -> bool {
    use std::process::{Command, Stdio};
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let program = if cfg!(target_os = "macos") {
        "open"
    } else if set("DISPLAY") || set("WAYLAND_DISPLAY") {
        "xdg-open"
    } else {
        return false;
    };
    Command::new(program)
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http_client::HttpClient;

    const ISSUER: &str = "https://issuer.example";

    async fn visit(query: &[&str]) -> (Vec<u16>, anyhow::Result<String>) {
        let callback = Callback::listen(0).await.unwrap();
        let base = callback.redirect_uri();
        let waiting = tokio::spawn(callback.code(CsrfToken::new("s1".to_owned()), ISSUER, true));
        let http = HttpClient::new(None, 1 << 16).unwrap();
        let mut seen = Vec::new();
        for query in query {
            let answer = http.get(&format!("{base}?{query}")).await.unwrap();
            seen.push(answer.status.as_u16());
        }
        (seen, waiting.await.unwrap())
    }

    #[tokio::test]
    async fn an_answer_with_another_state_or_issuer_is_refused_and_the_right_one_still_counts() {
        let (seen, code) = visit(&[
            "code=evil",
            "code=evil&state=s2&iss=https://issuer.example",
            "code=evil&state=s1",
            "code=evil&state=s1&iss=https://evil.example",
            "code=good&state=s1&iss=https://issuer.example",
        ])
        .await;
        assert_eq!(seen, [400, 400, 400, 400, 200]);
        assert_eq!(code.unwrap(), "good");
    }

    #[tokio::test]
    async fn a_refusal_is_told_without_what_could_move_the_cursor() {
        let (seen, code) = visit(&[
            "error=access_denied&error_description=no%1b%5b2J&state=s1&iss=https://issuer.example",
        ])
        .await;
        assert_eq!(seen, [200]);
        let text = code.unwrap_err().to_string();
        assert!(text.contains("access_denied no[2J"), "{text:?}");
    }
}
