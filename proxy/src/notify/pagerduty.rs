//! PagerDuty, Events API v2: `trigger` when a command waits, `resolve` when that is over.
//!
//! Both carry the same `dedup_key`, so that the incident closes by itself and a repeated attempt opens
//! no second one. An alarm is a critical incident, resolved once somebody has looked into it. It tells and
//! links; nobody decides there.

use bytes::Bytes;
use holdpoint_core::config::{PagerDutyOut, Severity};
use holdpoint_core::display::visible_line;
use holdpoint_core::secret::Secret;
use http::{HeaderMap, Uri};
use serde_json::{Map, Value, json};

use super::Message;
use super::card::Card;
use super::channel::{ChannelError, Letter, Post, SendError, address};
use crate::approvals::rfc3339;

/// PagerDuty's own limit on `summary`, in characters.
const MAX_SUMMARY: usize = 1024;

/// An event may have 512 KB.
const MAX_TEXT: usize = 256 * 1024;

pub struct PagerDuty {
    pub(super) name: String,
    url: Uri,
    routing_key: Secret,
    severity: Severity,
    post: Post,
}

impl PagerDuty {
    pub(super) fn new(
        name: &str,
        config: &PagerDutyOut,
        routing_key: &Secret,
    ) -> Result<Self, ChannelError> {
        let key = routing_key.expose();
        if key.len() != 32 || !key.iter().all(u8::is_ascii_alphanumeric) {
            let cause =
                "its routing key is not the 32 letters and digits of an Events API v2 integration";
            return Err(ChannelError::new(name, cause));
        }
        Ok(Self {
            name: name.to_owned(),
            url: address(name, &format!("{}/v2/enqueue", config.api_url))?,
            routing_key: routing_key.clone(),
            severity: config.severity,
            post: Post::new(config.ca.as_deref()).map_err(|e| ChannelError::new(name, e))?,
        })
    }

    /// Without the routing key, which is a secret and added on sending.
    pub(super) fn make(&self, letter: &Letter<'_>) -> Result<Bytes, SendError> {
        let card = Card::of(letter.notice, letter.public_url);
        let approval = &letter.notice.approval;
        // An alarm is an incident of its own: the one that asked is over by then.
        let key = match letter.notice.message {
            Message::BrokenGlass | Message::Reviewed => format!("holdpoint/{approval}/alarm"),
            _ => format!("holdpoint/{approval}"),
        };
        let event = match letter.notice.message {
            Message::Settled | Message::Used | Message::UsedLater | Message::Reviewed => {
                json!({"event_action": "resolve", "dedup_key": key})
            }
            Message::BrokenGlass => self.trigger(&card, letter, &key, Severity::Critical),
            Message::Pending
            | Message::Step
            | Message::Escalated
            | Message::Justified
            | Message::Left => self.trigger(&card, letter, &key, self.severity),
        };
        serde_json::to_vec(&event)
            .map(Bytes::from)
            .map_err(|e| SendError::Message(e.to_string()))
    }

    fn trigger(
        &self,
        card: &Card<'_>,
        letter: &Letter<'_>,
        key: &str,
        severity: Severity,
    ) -> Value {
        let view = card.view;
        let whole = format!("{}: {}", card.headline(), card.title());
        let summary = if whole.chars().count() <= MAX_SUMMARY {
            whole
        } else {
            format!("{}: {}", card.headline(), view.id)
        };
        let mut details = Map::new();
        let (facts, command, values) = (card.facts(), card.command(), card.values());
        let length: usize = facts.iter().map(|(_, value)| value.len()).sum();
        if length + command.len() + values.len() <= MAX_TEXT {
            for (name, value) in facts {
                details.insert(name.to_owned(), value.into());
            }
            details.insert("Command".to_owned(), command.into());
            if !values.is_empty() {
                details.insert("Values".to_owned(), values.into());
            }
        } else {
            details.insert("Command".to_owned(), card.too_long().into());
        }
        details.insert("Evidence".to_owned(), card.evidence().into());
        details.insert("Message".to_owned(), letter.id.clone().into());
        let mut event = json!({
            "event_action": "trigger",
            "dedup_key": key,
            "client": "holdpoint",
            "payload": {
                "summary": summary,
                "source": view.target,
                "severity": severity.word(),
                "timestamp": rfc3339(letter.wall_ns),
                "component": view.target,
                "class": visible_line(&view.shown.class),
                "custom_details": details,
            },
        });
        if let Some(link) = &card.link {
            event["client_url"] = link.clone().into();
            event["links"] = json!([{"href": link, "text": "Review"}]);
        }
        event
    }

    pub(super) async fn send(&self, body: &Bytes) -> Result<(), SendError> {
        let broken = |e: serde_json::Error| SendError::Message(e.to_string());
        let mut event: Map<String, Value> = serde_json::from_slice(body).map_err(broken)?;
        let key = String::from_utf8_lossy(self.routing_key.expose()).into_owned();
        event.insert("routing_key".to_owned(), key.into());
        let body = serde_json::to_vec(&event).map_err(broken)?;
        self.post
            .json(&self.url, HeaderMap::new(), body.into())
            .await
            .map(|_| ())
    }
}
