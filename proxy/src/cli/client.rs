//! A small client of the gateway's HTTP API, shared by the subcommands.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use http::{Method, Request, StatusCode, Uri, header};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::login::{Purpose, Wanted, cached};
use super::sse::EventStream;
use crate::api::{About, Problem};
use crate::http_client::{HttpClient, USER_AGENT, checked};

const PATIENCE: Duration = Duration::from_secs(15);

/// A thousand approvals of some size fit in.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// What says why a request is refused is short.
const MAX_PROBLEM: usize = 64 * 1024;

/// Where the gateway is.
#[derive(Debug, Clone, Args)]
pub(super) struct ServerArgs {
    /// The gateway's admin address, such as `https://holdpoint.example`
    #[arg(long, value_name = "URL", env = "HOLDPOINT_SERVER")]
    pub server: String,
    /// PEM bundle that the gateway's certificate is checked against, in place of the system's
    #[arg(long, value_name = "FILE", env = "HOLDPOINT_CA")]
    pub ca: Option<PathBuf>,
}

/// Speaks to one gateway with the caller's token.
pub(super) struct Client {
    base: String,
    host: String,
    http: HttpClient,
    purpose: Purpose,
}

/// Where a target is reached.
#[derive(Debug, Clone)]
pub(super) struct TargetPlace {
    pub protocol: String,
    pub host: String,
    pub port: u16,
}

/// No token, or one that the gateway does not accept: exit code 3.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct LoginNeeded(pub String);

/// The gateway said no.
#[derive(Debug, thiserror::Error)]
#[error("{}: {}{}", .0.code, .0.detail, .0.hint.as_ref().map(|hint| format!("\nhint: {hint}")).unwrap_or_default())]
pub(super) struct Refused(pub Problem);

impl Refused {
    /// It was justified before.
    pub(super) fn justified(&self) -> bool {
        self.0.code == "HP-JUSTIFIED"
    }
}

/// The status that a plain GET of this URL gives.
///
/// # Errors
/// Nobody answers there.
pub(crate) async fn status(url: &str) -> anyhow::Result<StatusCode> {
    let http = HttpClient::new(None, MAX_ANSWER)?;
    let request = Request::get(url).body(Bytes::new())?;
    Ok(http.send(request, PATIENCE).await?.status)
}

impl Client {
    /// # Errors
    /// The URL is not `https` (or `http` to this machine), or the CA cannot be read.
    pub(super) fn new(args: &ServerArgs, purpose: Purpose) -> anyhow::Result<Self> {
        let base = args.server.trim_end_matches('/').to_owned();
        let uri: Uri = checked(&base)?;
        let host = uri
            .host()
            .unwrap_or_default()
            .trim_matches(['[', ']'])
            .to_owned();
        Ok(Self {
            base,
            host,
            purpose,
            http: HttpClient::new(args.ca.as_deref(), MAX_ANSWER)?,
        })
    }

    /// The caller's token: `HOLDPOINT_TOKEN_FILE`, or else `HOLDPOINT_TOKEN`, or else what
    /// `holdpoint login` left for this gateway.
    ///
    /// # Errors
    /// There is none, or it cannot be read or renewed.
    pub(super) async fn token(&self) -> anyhow::Result<String> {
        let set = |name| {
            std::env::var(name)
                .ok()
                .filter(|value| !value.trim().is_empty())
        };
        let token = match (set("HOLDPOINT_TOKEN_FILE"), set("HOLDPOINT_TOKEN")) {
            (Some(path), _) => std::fs::read_to_string(&path)
                .with_context(|| format!("cannot read HOLDPOINT_TOKEN_FILE, `{path}`"))?,
            (None, Some(token)) => token,
            (None, None) => {
                let wanted = Wanted {
                    server: Some(&self.base),
                    issuer: None,
                    client_id: None,
                    purpose: self.purpose,
                    scopes: &[],
                };
                let token = cached(&wanted).await?;
                String::from_utf8(token.expose().to_vec()).context("the token is not text")?
            }
        };
        Ok(token.trim().to_owned())
    }

    /// Where the gateway serves target `name`.
    ///
    /// # Errors
    /// The gateway cannot be asked, or has no such target.
    pub(super) async fn target(&self, name: &str) -> anyhow::Result<TargetPlace> {
        let answer = self
            .call(Method::GET, "/.well-known/holdpoint", None, None, PATIENCE)
            .await?;
        let about: About = serde_json::from_slice(&answer).context("this is not a holdpoint")?;
        let Some(place) = about.targets.iter().find(|place| place.name == name) else {
            let known: Vec<_> = about
                .targets
                .iter()
                .map(|place| place.name.as_str())
                .collect();
            bail!(
                "the gateway has no target `{name}`; it has: {}",
                known.join(", ")
            );
        };
        Ok(TargetPlace {
            protocol: place.protocol.clone(),
            host: place.host.clone().unwrap_or_else(|| self.host.clone()),
            port: place.port,
        })
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.get_slow(path, Duration::ZERO).await
    }

    /// For answers that the gateway holds back for up to `wait`.
    pub(crate) async fn get_slow<T: DeserializeOwned>(
        &self,
        path: &str,
        wait: Duration,
    ) -> anyhow::Result<T> {
        let token = self.token().await?;
        let answer = self
            .call(Method::GET, path, Some(&token), None, PATIENCE + wait)
            .await?;
        serde_json::from_slice(&answer).context("the gateway answered something else")
    }

    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> anyhow::Result<T> {
        let token = self.token().await?;
        let body = Bytes::from(serde_json::to_vec(body)?);
        let answer = self
            .call(Method::POST, path, Some(&token), Some(body), PATIENCE)
            .await?;
        serde_json::from_slice(&answer).context("the gateway answered something else")
    }

    /// Follows the gateway's approvals, from after the event `last` if it can.
    pub(super) async fn follow(&self, last: Option<&str>) -> anyhow::Result<EventStream> {
        let token = self.token().await?;
        let mut request = self.request(Method::GET, "/v1/approvals/events", Some(&token))?;
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let answer = self
            .http
            .stream(request.body(Bytes::new())?, PATIENCE)
            .await;
        let mut answer =
            answer.with_context(|| format!("cannot ask the gateway at `{}`", self.base))?;
        if answer.status.is_success() {
            return Ok(EventStream::new(answer));
        }
        let mut body = Vec::new();
        while let Ok(Some(Ok(bytes))) = tokio::time::timeout(PATIENCE, answer.next()).await {
            body.extend_from_slice(&bytes);
            if body.len() > MAX_PROBLEM {
                break;
            }
        }
        Err(refusal(answer.status, &body))
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<Bytes>,
        timeout: Duration,
    ) -> anyhow::Result<Bytes> {
        let mut request = self.request(method, path, token)?;
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(body.unwrap_or_default())?;
        let answer = self
            .http
            .send(request, timeout)
            .await
            .with_context(|| format!("cannot ask the gateway at `{}`", self.base))?;
        if answer.status.is_success() {
            return Ok(answer.body);
        }
        Err(refusal(answer.status, &answer.body))
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
    ) -> anyhow::Result<http::request::Builder> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(header::ACCEPT, "application/json, text/event-stream")
            .header(header::USER_AGENT, USER_AGENT)
            .header("holdpoint-client", "cli");
        // The client speaks HTTP/1.1 and adds the host by itself.
        if let Some(token) = token {
            let mut value = header::HeaderValue::try_from(format!("Bearer {token}"))
                .map_err(|_| LoginNeeded("the token is not one line of plain text".to_owned()))?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        Ok(request)
    }
}

/// What a gateway says when it says no.
fn refusal(status: StatusCode, body: &[u8]) -> anyhow::Error {
    let Ok(problem) = serde_json::from_slice::<Problem>(body) else {
        return anyhow::anyhow!("the gateway answered {status}");
    };
    if status == StatusCode::UNAUTHORIZED {
        return LoginNeeded(Refused(problem).to_string()).into();
    }
    Refused(problem).into()
}
