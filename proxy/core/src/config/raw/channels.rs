//! The tables of channels to reviewers, as they are written.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Secret;
use crate::source::Span;

/// A Slack app of yours that posts to one channel.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Slack {
    /// The bot token, `xoxb-…`.
    pub(in crate::config) token: Secret,
    /// The app's signing secret: proves that a click comes from Slack.
    pub(in crate::config) signing_secret: Secret,
    /// The channel's id, such as `C0123456789`.
    pub(in crate::config) channel: String,
    /// Whether messages have buttons to decide; true unless set. Without them there is a link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) buttons: Option<bool>,
    /// How long a Slack account stands for the person who signed in for it; `12h` unless set, at most `7d`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) link_lasts: Option<Span>,
    /// `https://slack.com/api` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) api_url: Option<String>,
    /// PEM bundle; the system's roots otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) ca: Option<PathBuf>,
}

/// A Teams channel with the workflow "Post to a channel when a webhook request is received".
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Teams {
    /// The workflow's URL. Whoever has it can post, so it is a secret.
    pub(in crate::config) workflow_url: Secret,
    /// PEM bundle; the system's roots otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) ca: Option<PathBuf>,
}

/// Mail to reviewers.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Email {
    /// `HOST:PORT` of the mail server.
    pub(in crate::config) server: String,
    /// `starttls` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) tls: Option<MailTls>,
    /// Name to log in with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) user: Option<String>,
    /// Its password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) password: Option<Secret>,
    /// The sender, such as `holdpoint@acme.example`.
    pub(in crate::config) from: String,
    /// Who gets them.
    pub(in crate::config) to: Vec<String>,
    /// PEM bundle; the system's roots otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) ca: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum MailTls {
    /// Required, by STARTTLS; port 587 as a rule.
    Starttls,
    /// From the first byte; port 465 as a rule.
    Implicit,
    /// In clear: loopback only.
    Off,
}

/// A PagerDuty service.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct PagerDuty {
    /// The integration key of an "Events API v2" integration.
    pub(in crate::config) routing_key: Secret,
    /// Of the alert; `warning` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) severity: Option<Severity>,
    /// `https://events.pagerduty.com` unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) api_url: Option<String>,
    /// PEM bundle; the system's roots otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) ca: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum Severity {
    Critical,
    Error,
    Warning,
    Info,
}

/// What a channel can be told, in the words of its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(in crate::config) enum Event {
    #[serde(rename = "approval.pending")]
    Pending,
    #[serde(rename = "approval.step")]
    Step,
    #[serde(rename = "approval.escalated")]
    Escalated,
    #[serde(rename = "approval.justified")]
    Justified,
    #[serde(rename = "approval.settled")]
    Settled,
    #[serde(rename = "approval.break_glass")]
    BreakGlass,
    #[serde(rename = "approval.reviewed")]
    Reviewed,
    #[serde(rename = "approval.left")]
    Left,
    #[serde(rename = "approval.used")]
    Used,
}

impl Event {
    const ALL: [Self; 9] = [
        Self::Pending,
        Self::Step,
        Self::Escalated,
        Self::Justified,
        Self::Settled,
        Self::BreakGlass,
        Self::Reviewed,
        Self::Left,
        Self::Used,
    ];

    pub(in crate::config) fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.word() == word)
    }

    pub(in crate::config) fn word(self) -> &'static str {
        match self {
            Self::Pending => "approval.pending",
            Self::Step => "approval.step",
            Self::Escalated => "approval.escalated",
            Self::Justified => "approval.justified",
            Self::Settled => "approval.settled",
            Self::BreakGlass => "approval.break_glass",
            Self::Reviewed => "approval.reviewed",
            Self::Left => "approval.left",
            Self::Used => "approval.used",
        }
    }
}
