//! Standard Webhooks out: signed, retried with the same id, never redirected.
//!
//! The URL comes from the configuration only. Receivers see the whole command,
//! so theirs is a place that reviewers trust. The signature proves to them who
//! sent it; deciding takes a reviewer's token or an integration's own secret.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use holdpoint_core::config::WebhookOut;
use holdpoint_core::secret::Secret;
use http::{Method, Request, Uri, header};
use serde::Serialize;
use standardwebhooks::{
    HEADER_WEBHOOK_ID, HEADER_WEBHOOK_SIGNATURE, HEADER_WEBHOOK_TIMESTAMP, Webhook,
};

use super::{Message, Notice};
use crate::approvals::View;
use crate::http_client::{HttpClient, HttpError, USER_AGENT, checked};

/// Of one attempt, from dialling to the last byte of the answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Nothing in an answer is of use; this much of it is read.
const MAX_ANSWER: usize = 64 * 1024;

/// One receiver.
pub struct WebhookSender {
    pub(super) name: String,
    url: Uri,
    secret: Webhook,
    http: HttpClient,
}

/// A webhook cannot be used as configured.
#[derive(Debug, thiserror::Error)]
#[error("webhook `{name}`: {cause}")]
pub struct WebhookError {
    name: String,
    cause: String,
}

/// Why one attempt failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("answered {0}")]
    Status(http::StatusCode),
    #[error("the message cannot be made: {0}")]
    Message(String),
}

impl SendError {
    /// Whether trying again may help. A redirect never does: it is not followed.
    pub(super) fn passing(&self) -> bool {
        match self {
            Self::Http(_) => true,
            Self::Status(status) => {
                status.is_server_error() || status.as_u16() == 429 || status.as_u16() == 408
            }
            Self::Message(_) => false,
        }
    }
}

impl WebhookSender {
    /// # Errors
    /// The URL is not `https` (or `http` to this machine), the CA bundle cannot
    /// be read, or the secret is not `whsec_` and base64.
    pub fn new(config: &WebhookOut, secret: &Secret) -> Result<Self, WebhookError> {
        let failed = |cause: String| WebhookError {
            name: config.name.clone(),
            cause,
        };
        Ok(Self {
            name: config.name.clone(),
            url: checked(&config.url).map_err(|e| failed(e.to_string()))?,
            secret: key(secret).map_err(failed)?,
            http: HttpClient::new(config.ca.as_deref().map(Path::new), MAX_ANSWER)
                .map_err(|e| failed(e.to_string()))?,
        })
    }

    /// One attempt. `id` stays the same over all attempts of one message, so that
    /// the receiver can tell a repetition.
    pub(super) async fn send(&self, id: &str, body: &Bytes, unix: u64) -> Result<(), SendError> {
        let broken = |e: &dyn std::fmt::Display| SendError::Message(e.to_string());
        let timestamp = i64::try_from(unix).unwrap_or(i64::MAX);
        let signature = self
            .secret
            .sign(id, timestamp, body)
            .map_err(|e| broken(&e))?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(self.url.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, USER_AGENT)
            .header(HEADER_WEBHOOK_ID, id)
            .header(HEADER_WEBHOOK_TIMESTAMP, timestamp)
            .header(HEADER_WEBHOOK_SIGNATURE, signature)
            .body(body.clone())
            .map_err(|e| broken(&e))?;
        let status = self.http.send(request, TIMEOUT).await?.status;
        if status.is_success() {
            Ok(())
        } else {
            Err(SendError::Status(status))
        }
    }
}

/// Reads a Standard Webhooks secret. The error says nothing of it.
pub(crate) fn key(secret: &Secret) -> Result<Webhook, String> {
    let wrong = || "the secret is not `whsec_` followed by base64 of 24 bytes or more".to_owned();
    let text = std::str::from_utf8(secret.expose()).map_err(|_| wrong())?;
    let encoded = text.strip_prefix("whsec_").ok_or_else(wrong)?;
    // 24 bytes are 32 letters of base64.
    if encoded.len() < 32 {
        return Err(wrong());
    }
    Webhook::new(text).map_err(|_| wrong())
}

/// What a receiver reads.
#[derive(Serialize)]
struct Body<'a> {
    r#type: &'static str,
    timestamp: String,
    approval: &'a View,
    link: Option<String>,
    vote: HowToVote,
}

#[derive(Serialize)]
struct HowToVote {
    url: Option<String>,
    how: String,
}

pub(super) fn body(
    notice: &Notice,
    public_url: Option<&str>,
    wall_ns: u64,
) -> Result<Bytes, serde_json::Error> {
    let id = &notice.view.id;
    let link = public_url.map(|base| format!("{}/v1/approvals/{id}", base.trim_end_matches('/')));
    let how = match notice.message {
        Message::Settled | Message::Reviewed => "decided already; nothing to do".to_owned(),
        Message::BrokenGlass => format!(
            "ALARM: it runs without its reviewers, see `approval.glass`; look into it, then run \
             `holdpoint approvals review {id}`"
        ),
        Message::Pending | Message::Step | Message::Escalated | Message::Justified => format!(
            "read `approval.shown`, then POST {{\"decision\": \"approve\" or \"deny\", \
             \"digest\": \"{}\", \"reason\": \"…\"}} with a reviewer's bearer token, or run \
             `holdpoint approvals approve {id}`; a denial needs the reason",
            notice.view.digest
        ),
    };
    let body = Body {
        r#type: notice.message.word(),
        timestamp: crate::approvals::rfc3339(wall_ns),
        approval: &notice.view,
        vote: HowToVote {
            url: link.as_ref().map(|link| format!("{link}/decision")),
            how,
        },
        link,
    };
    serde_json::to_vec(&body).map(Bytes::from)
}
