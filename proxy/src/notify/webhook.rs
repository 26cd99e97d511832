//! Standard Webhooks out: signed, retried with the same id, never redirected.
//!
//! The URL comes from the configuration only. Receivers see the whole command,
//! so theirs is a place that reviewers trust. The signature proves to them who
//! sent it; deciding takes a reviewer's token or an integration's own secret.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use holdpoint_core::config::WebhookOut;
use holdpoint_core::secret::Secret;
use http::{HeaderMap, HeaderValue, Uri};
use serde::Serialize;
use sha2::Sha256;
use standardwebhooks::{
    HEADER_WEBHOOK_ID, HEADER_WEBHOOK_SIGNATURE, HEADER_WEBHOOK_TIMESTAMP, Webhook,
};
use zeroize::Zeroizing;

use super::Message;
use super::card::link;
use super::channel::{ChannelError, Letter, Post, SendError};
use crate::approvals::View;
use crate::http_client::checked;

/// One receiver.
pub struct WebhookSender {
    pub(super) name: String,
    url: Uri,
    /// Has seen the key and nothing else.
    signer: Hmac<Sha256>,
    post: Post,
    events: Option<Vec<&'static str>>,
}

impl WebhookSender {
    /// # Errors
    /// The URL is not `https` (or `http` to this machine), the CA bundle cannot
    /// be read, or the secret is not `whsec_` and base64.
    pub fn new(config: &WebhookOut, secret: &Secret) -> Result<Self, ChannelError> {
        let channel = format!("webhook `{}`", config.name);
        let failed = |cause: String| ChannelError::new(&channel, cause);
        Ok(Self {
            name: config.name.clone(),
            url: checked(&config.url).map_err(|e| failed(e.to_string()))?,
            signer: signer(secret).map_err(failed)?,
            post: Post::new(config.ca.as_deref()).map_err(|e| failed(e.to_string()))?,
            events: config.events.clone(),
        })
    }

    /// Whether its configuration asks for this.
    pub(super) fn wants(&self, message: Message) -> bool {
        let named = |events: &Vec<&str>| events.contains(&message.word());
        self.events.as_ref().is_none_or(named)
    }

    /// One attempt. `id` stays the same over all attempts of one message, so that
    /// the receiver can tell a repetition.
    pub(super) async fn send(&self, id: &str, body: &Bytes, unix: u64) -> Result<(), SendError> {
        let broken = |e: &dyn std::fmt::Display| SendError::Message(e.to_string());
        let timestamp = i64::try_from(unix).unwrap_or(i64::MAX);
        let signature = self.sign(id, timestamp, body);
        let mut headers = HeaderMap::new();
        for (name, value) in [
            (HEADER_WEBHOOK_ID, id),
            (HEADER_WEBHOOK_TIMESTAMP, &timestamp.to_string()),
            (HEADER_WEBHOOK_SIGNATURE, &signature),
        ] {
            let value = HeaderValue::from_str(value).map_err(|e| broken(&e))?;
            headers.insert(name, value);
        }
        self.post
            .json(&self.url, headers, body.clone())
            .await
            .map(|_| ())
    }

    /// As `standardwebhooks` would, by the processor's own SHA-256: a message has several KiB.
    fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let mut mac = self.signer.clone();
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

fn signer(secret: &Secret) -> Result<Hmac<Sha256>, String> {
    let key = Zeroizing::new(STANDARD.decode(encoded(secret)?).map_err(|_| wrong())?);
    Hmac::new_from_slice(&key).map_err(|_| wrong())
}

/// Reads a Standard Webhooks secret. The error says nothing of it.
pub(crate) fn key(secret: &Secret) -> Result<Webhook, String> {
    Webhook::new(encoded(secret)?).map_err(|_| wrong())
}

fn wrong() -> String {
    "the secret is not `whsec_` followed by base64 of 24 bytes or more".to_owned()
}

/// The key in base64.
fn encoded(secret: &Secret) -> Result<&str, String> {
    let text = std::str::from_utf8(secret.expose()).map_err(|_| wrong())?;
    let encoded = text.strip_prefix("whsec_").ok_or_else(wrong)?;
    // 24 bytes are 32 letters of base64.
    if encoded.len() < 32 {
        return Err(wrong());
    }
    Ok(encoded)
}

/// What a receiver reads.
#[derive(Serialize)]
struct Body<'a> {
    r#type: &'static str,
    timestamp: String,
    approval: &'a View,
    /// The console's page, for people.
    link: Option<String>,
    vote: HowToVote,
}

#[derive(Serialize)]
struct HowToVote {
    /// The API's, for programs.
    url: Option<String>,
    how: String,
}

pub(super) fn body(letter: &Letter<'_>) -> Result<Bytes, SendError> {
    let notice = letter.notice;
    let id = &notice.view().id;
    let base = letter.public_url.map(|base| base.trim_end_matches('/'));
    let how = match notice.message {
        Message::Settled | Message::Used | Message::UsedLater | Message::Reviewed => {
            "decided already; nothing to do".to_owned()
        }
        Message::BrokenGlass => format!(
            "ALARM: it runs without its reviewers, see `approval.glass`; look into it, then run \
             `holdpoint approvals review {id}`"
        ),
        Message::Pending
        | Message::Step
        | Message::Escalated
        | Message::Justified
        | Message::Left => format!(
            "read `approval.shown`, then POST {{\"decision\": \"approve\" or \"deny\", \
             \"digest\": \"{}\", \"reason\": \"…\"}} with a reviewer's bearer token, or run \
             `holdpoint approvals approve {id}`; a denial needs the reason",
            notice.view().digest
        ),
    };
    let body = Body {
        r#type: notice.message.word(),
        timestamp: crate::approvals::rfc3339(letter.wall_ns),
        approval: notice.view(),
        link: base.map(|base| link(base, id)),
        vote: HowToVote {
            url: base.map(|base| format!("{base}/v1/approvals/{id}/decision")),
            how,
        },
    };
    serde_json::to_vec(&body)
        .map(Bytes::from)
        .map_err(|e| SendError::Message(e.to_string()))
}
