//! What an agent is told when its command does not go forward.

use serde::{Deserialize, Serialize};

/// Which form the protocol gives to a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Policy or a reviewer said no.
    Denied,
    /// Not decided yet; the identical command may be sent again later.
    Pending,
    /// Nobody decided in time, or the client withdrew.
    Expired,
    /// The token or the login was not accepted.
    Unauthenticated,
    /// The client broke the protocol or asked for what is not supported.
    Malformed,
    /// The gateway or the target cannot serve this now.
    Unavailable,
}

/// A refusal as the agent sees it. Causes and rule internals belong in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    pub kind: Kind,
    /// Stable, upper case, such as `HP-DENIED`; listed in `docs/codes.md`.
    pub code: String,
    /// One sentence: what was refused and by what.
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The exact next step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Denial {
    pub fn new(kind: Kind, code: &str, message: impl Into<String>) -> Self {
        Self {
            kind,
            code: code.to_owned(),
            message: message.into(),
            detail: None,
            hint: None,
        }
    }

    #[must_use]
    pub fn detail(mut self, text: impl Into<String>) -> Self {
        self.detail = Some(text.into());
        self
    }

    #[must_use]
    pub fn hint(mut self, text: impl Into<String>) -> Self {
        self.hint = Some(text.into());
        self
    }
}
