//! Who may release a held command, and whether they have.
//!
//! [`Approval`] is a state machine over votes with time as an argument. Its
//! owner, the process that holds the client's socket, feeds it; the caller
//! writes each step to the journal before anyone is told of it.

mod shown;
mod state;
#[cfg(test)]
mod tests;

pub use shown::Shown;
pub use state::{Approval, ClaimError, Clearance, MAX_REASON, State, VoteError, VoteOutcome};

use serde::{Deserialize, Serialize};

use crate::decision::Hold;
use crate::id::{ApprovalId, CommandId, Digest, SessionId};
use crate::principal::{Identity, Principal};

/// What a held command asks of its reviewers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draft {
    pub id: ApprovalId,
    /// Of the whole command, see [`crate::command::Command::digest`]. Votes echo it.
    pub digest: Digest,
    pub session: SessionId,
    pub command: CommandId,
    pub target: String,
    pub principal: Principal,
    pub hold: Hold,
    /// The deciding rule, `file:rule`.
    pub rule: String,
    /// Version of the rules that held it.
    pub policy: String,
    pub shown: Shown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Approve,
    Deny,
}

/// One reviewer's answer, as it reached us.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    pub approval: ApprovalId,
    /// Of what the reviewer was shown.
    pub digest: Digest,
    pub verdict: Verdict,
    /// Needed for a denial; reaches the agent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    pub reviewer: Reviewer,
    /// `cli`, `api`, `console`, `slack:NAME`, `integration:NAME`.
    pub channel: String,
    /// Names this vote for idempotence, such as a webhook's id.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub nonce: Option<String>,
}

/// Who voted, as far as it was proved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reviewer {
    pub identity: Identity,
    pub label: String,
    pub groups: Vec<String>,
    /// True for an agent, which never counts.
    pub agent: bool,
    /// Further identities of the same person (`act` chain); none may be behind the request.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub also: Vec<Identity>,
}
