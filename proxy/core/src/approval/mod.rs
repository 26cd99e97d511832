//! Who may release a held command, and whether they have.
//!
//! [`Approval`] is a state machine over votes with time as an argument. Its
//! owner, the process that holds the client's socket, feeds it; the caller
//! writes each step to the journal before anyone is told of it.

mod clearance;
mod glass;
mod handover;
mod refusals;
mod shown;
mod state;
mod step_up;
#[cfg(test)]
mod tests;
mod window;

pub use clearance::Clearance;
pub use glass::{BreakGlass, may_review};
pub use handover::HandOver;
pub use refusals::{ClaimError, JustifyError, VoteError};
pub use shown::Shown;
pub use state::{Approval, Cast, MAX_REASON, State, VoteOutcome};
pub use step_up::{SignIn, challenge};
pub use window::{OpenWindow, Reach};

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::decision::{Hold, Reviewers, Window};
use crate::id::{ApprovalId, CommandId, Digest, SessionId};
use crate::principal::{Identity, Principal};
use crate::webauthn::Assertion;

/// What a held command asks of its reviewers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draft {
    pub id: ApprovalId,
    /// Of the whole command, see [`crate::command::Command::digest`]. Votes echo it.
    pub digest: Digest,
    pub session: SessionId,
    pub command: CommandId,
    pub target: String,
    pub principal: Arc<Principal>,
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
    /// How an approval lets the command run; once unless set.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub window: Option<Window>,
    pub reviewer: Reviewer,
    /// `cli`, `api`, `console`, `slack:NAME`, `integration:NAME`.
    pub channel: String,
    /// Names this vote for idempotence, such as a webhook's id.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub nonce: Option<String>,
    /// The reviewer's own signature over this vote, where a rule asks for it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub assertion: Option<Box<Assertion>>,
}

/// Who voted, as far as it was proved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reviewer {
    pub identity: Identity,
    pub label: String,
    pub groups: Vec<String>,
    /// Lists that named this person as on call when the vote came. Never the
    /// voter's own claim: whoever takes the vote asks the lists.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub on_call: Vec<String>,
    /// True for an agent, which never counts.
    pub agent: bool,
    /// Further identities of the same person (`act` chain); none may be behind the request.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub also: Vec<Identity>,
    /// When they signed in, in Unix seconds, as their issuer says. Absent where nobody
    /// proved it, such as in a chat.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub auth_time: Option<u64>,
}

impl Draft {
    /// The same command under the same rule.
    fn same_request(&self, other: &Draft) -> bool {
        self.digest == other.digest && self.rule == other.rule
    }

    /// Whether the request is this person's own, under any of their names.
    fn is_behind(&self, reviewer: &Reviewer) -> bool {
        self.principal
            .behind()
            .any(|one| *one == reviewer.identity || reviewer.also.contains(one))
    }
}

impl Reviewer {
    /// Whether this person belongs to `set`, as far as it was proved.
    pub fn is_in(&self, set: &Reviewers) -> bool {
        match set {
            Reviewers::Group(group) => self.groups.contains(group),
            // The configuration has put the issuer's URL in place of its name.
            Reviewers::Person { issuer, subject } => {
                *issuer == self.identity.issuer && *subject == self.identity.subject
            }
            Reviewers::OnCall(list) => self.on_call.contains(list),
            // A decision on a known target has its owners in place of this.
            Reviewers::Owner => false,
        }
    }
}

/// Two reviewers that merely share an actor, such as the console that both used,
/// are two people; one that the other names as itself is not.
pub(crate) fn same_person(a: &Reviewer, b: &Reviewer) -> bool {
    a.identity == b.identity || a.also.contains(&b.identity) || b.also.contains(&a.identity)
}
