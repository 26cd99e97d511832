//! The state machine of one approval.
//!
//! It knows nothing of sockets, stores or sessions. Its owner keeps the order:
//! [`Approval::judge`] says what a vote would do, the owner writes that to the
//! journal, and only then [`Approval::vote`] does it. In between, the owner
//! lets nothing else touch this approval and uses one reading of the clock.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Draft, Reviewer, Verdict, Vote};
use crate::Now;
use crate::decision::Reviewers;
use crate::id::{ApprovalId, CommandId, Digest, SessionId};
use crate::principal::Identity;

/// Bytes of a denial's reason that are kept; it is sent to the agent.
pub const MAX_REASON: usize = 2_000;

/// Terminal but for `Pending` and `Approved`; an approved one is claimed or expires.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Pending,
    /// Enough reviewers agreed; not used yet.
    Approved {
        by: Vec<Identity>,
    },
    /// Claimed by one command, which may have been forwarded.
    Used {
        by: Vec<Identity>,
        session: SessionId,
        command: CommandId,
    },
    Denied {
        by: Identity,
        label: String,
        reason: String,
    },
    Expired,
    Withdrawn,
    /// Its owner stopped or crashed.
    Orphaned,
    Revoked,
}

impl State {
    /// A terminal state never changes.
    pub fn is_terminal(&self) -> bool {
        !matches!(self, Self::Pending | Self::Approved { .. })
    }

    /// As written in records, the API and messages.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved { .. } => "approved",
            Self::Used { .. } => "used",
            Self::Denied { .. } => "denied",
            Self::Expired => "expired",
            Self::Withdrawn => "withdrawn",
            Self::Orphaned => "orphaned",
            Self::Revoked => "revoked",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VoteOutcome {
    /// Counted; more approvals are needed.
    Counted {
        have: u32,
        need: u32,
    },
    /// The same vote again; nothing changed.
    Repeated,
    Settled(State),
}

/// Why a vote does not count. Each has a sentence for the reviewer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VoteError {
    #[error("this approval is already {0}")]
    Final(&'static str),
    #[error("the digest is not the one of this approval: reload it and look again")]
    Digest,
    #[error("you are behind this request yourself, so you cannot decide it")]
    Own,
    #[error("agents cannot review")]
    Agent,
    #[error("you are not among the reviewers of rule `{0}`")]
    NotEligible(String),
    #[error("a denial needs a reason: it is what the agent is told")]
    NoReason,
    #[error("you have voted otherwise before; the first vote stands")]
    Changed,
    #[error("the time for this decision is over")]
    Expired,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    #[error("the approval is {0}, not approved")]
    NotApproved(&'static str),
    #[error("the approval was used already")]
    Used,
    #[error("the approval is for another command")]
    Digest,
    #[error("the approval's time is over")]
    Expired,
}

/// Proof that one command may use one approval. Made once per approval, by
/// [`Approval::claim`], and it cannot be made otherwise:
///
/// ```compile_fail,E0451
/// use holdpoint_core::approval::Clearance;
/// use holdpoint_core::id::{ApprovalId, CommandId, Digest, SessionId};
/// let forged = Clearance {
///     approval: ApprovalId::from_random(1),
///     digest: Digest([0; 32]),
///     session: SessionId::from_random(1),
///     command: CommandId(1),
/// };
/// ```
///
/// ```compile_fail,E0599
/// fn twice(clearance: holdpoint_core::approval::Clearance) {
///     let _copy = clearance.clone();
/// }
/// ```
#[derive(Debug, PartialEq, Eq)]
pub struct Clearance {
    approval: ApprovalId,
    digest: Digest,
    session: SessionId,
    command: CommandId,
}

impl Clearance {
    pub fn approval(&self) -> &ApprovalId {
        &self.approval
    }

    pub fn covers(&self, digest: &Digest, session: &SessionId, command: CommandId) -> bool {
        self.digest == *digest && self.session == *session && self.command == command
    }
}

/// One approval: what is asked, who answered, and where that led.
///
/// A copy is for reading only: its owner claims the one that it keeps.
#[derive(Debug, Clone)]
pub struct Approval {
    draft: Draft,
    state: State,
    /// Monotonic nanoseconds.
    expires: u64,
    grant_ttl: Option<Duration>,
    /// Monotonic nanoseconds; meaningful once approved.
    usable_until: u64,
    votes: Vec<Vote>,
}

impl Approval {
    pub fn open(draft: Draft, now: Now) -> Self {
        let expires = now.deadline(draft.hold.expires_in);
        Self {
            draft,
            state: State::Pending,
            expires,
            grant_ttl: None,
            usable_until: expires,
            votes: Vec::new(),
        }
    }

    /// How long it can be claimed once it is approved. Without this, until the
    /// deadline of the decision.
    #[must_use]
    pub fn with_grant_ttl(mut self, ttl: Duration) -> Self {
        self.grant_ttl = Some(ttl);
        self
    }

    pub fn draft(&self) -> &Draft {
        &self.draft
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    /// Votes that counted, in the order in which they came.
    pub fn votes(&self) -> &[Vote] {
        &self.votes
    }

    /// When the time to decide is over.
    pub fn expires_mono_ns(&self) -> u64 {
        self.expires
    }

    /// When an approval that was given can no longer be claimed; `None` unless approved.
    pub fn usable_until_mono_ns(&self) -> Option<u64> {
        matches!(self.state, State::Approved { .. }).then_some(self.usable_until)
    }

    /// When [`Approval::tick`] may next change something.
    pub fn deadline(&self) -> Option<u64> {
        match self.state {
            State::Pending => Some(self.expires),
            State::Approved { .. } => Some(self.usable_until),
            _ => None,
        }
    }

    /// How many people have approved, and how many must.
    pub fn progress(&self) -> (u32, u32) {
        let have = u32::try_from(self.approvers().count()).unwrap_or(u32::MAX);
        (have, self.need())
    }

    /// Whether a command that asks for `draft` may wait for this approval or
    /// use it: the same command, under a hold that asks for no more than was put
    /// to these reviewers.
    ///
    /// The digest alone does not say so: a principal's groups are not part of
    /// it, and other groups can mean another rule.
    pub fn serves(&self, draft: &Draft) -> bool {
        self.draft.digest == draft.digest
            && self.draft.rule == draft.rule
            && draft.hold.met_by(&self.draft.hold)
    }

    /// What [`Approval::vote`] would do. Changes nothing.
    ///
    /// # Errors
    /// The vote does not count, for the reason given.
    pub fn judge(&self, vote: &Vote, now: Now) -> Result<VoteOutcome, VoteError> {
        if self.state != State::Pending {
            return Err(VoteError::Final(self.state.word()));
        }
        if now.mono_ns >= self.expires {
            return Err(VoteError::Expired);
        }
        if vote.approval != self.draft.id || vote.digest != self.draft.digest {
            return Err(VoteError::Digest);
        }
        let reviewer = &vote.reviewer;
        if reviewer.agent {
            return Err(VoteError::Agent);
        }
        if self.is_behind(reviewer) {
            return Err(VoteError::Own);
        }
        if !self.is_eligible(reviewer) {
            return Err(VoteError::NotEligible(self.draft.rule.clone()));
        }
        let reason = vote.reason.as_deref().map(str::trim).unwrap_or_default();
        if vote.verdict == Verdict::Deny && reason.is_empty() {
            return Err(VoteError::NoReason);
        }
        if let Some(earlier) = self
            .votes
            .iter()
            .find(|v| same_person(&v.reviewer, reviewer))
        {
            return if earlier.verdict == vote.verdict {
                Ok(VoteOutcome::Repeated)
            } else {
                Err(VoteError::Changed)
            };
        }
        if vote.verdict == Verdict::Deny {
            return Ok(VoteOutcome::Settled(State::Denied {
                by: reviewer.identity.clone(),
                label: reviewer.label.clone(),
                reason: bounded(reason).to_owned(),
            }));
        }
        let (have, need) = (self.progress().0.saturating_add(1), self.need());
        if have < need {
            return Ok(VoteOutcome::Counted { have, need });
        }
        let by = self
            .approvers()
            .chain([&reviewer.identity])
            .cloned()
            .collect();
        Ok(VoteOutcome::Settled(State::Approved { by }))
    }

    /// Counts one reviewer's answer. The first denial ends the approval, and so
    /// does the last approval that was needed.
    ///
    /// # Errors
    /// The vote does not count, for the reason given; nothing changed.
    pub fn vote(&mut self, vote: Vote, now: Now) -> Result<VoteOutcome, VoteError> {
        let outcome = self.judge(&vote, now)?;
        if let VoteOutcome::Settled(state) = &outcome {
            if matches!(state, State::Approved { .. }) {
                self.usable_until = self.grant_ttl.map_or(self.expires, |ttl| now.deadline(ttl));
            }
            self.state = state.clone();
        }
        if outcome != VoteOutcome::Repeated {
            self.votes.push(vote);
        }
        Ok(outcome)
    }

    /// Lets time pass: gives the new state where it changed.
    pub fn tick(&mut self, now: Now) -> Option<State> {
        let over = self.deadline().is_some_and(|at| now.mono_ns >= at);
        if over { self.end(State::Expired) } else { None }
    }

    /// Nobody wants it any more. Gives the new state where it changed.
    pub fn withdraw(&mut self) -> Option<State> {
        self.end(State::Withdrawn)
    }

    /// Its owner is going away. Gives the new state where it changed.
    pub fn orphan(&mut self) -> Option<State> {
        self.end(State::Orphaned)
    }

    /// The requester may act no more. Gives the new state where it changed.
    pub fn revoke(&mut self) -> Option<State> {
        self.end(State::Revoked)
    }

    /// What [`Approval::claim`] would say. Changes nothing.
    ///
    /// # Errors
    /// It cannot be claimed, for the reason given.
    pub fn claimable(&self, digest: &Digest, now: Now) -> Result<(), ClaimError> {
        match &self.state {
            State::Approved { .. } => {}
            State::Used { .. } => return Err(ClaimError::Used),
            other => return Err(ClaimError::NotApproved(other.word())),
        }
        if *digest != self.draft.digest {
            return Err(ClaimError::Digest);
        }
        if now.mono_ns >= self.usable_until {
            return Err(ClaimError::Expired);
        }
        Ok(())
    }

    /// Uses the approval up for one command. Succeeds once, ever.
    ///
    /// # Errors
    /// It cannot be claimed, for the reason given; nothing changed.
    pub fn claim(
        &mut self,
        digest: &Digest,
        session: &SessionId,
        command: CommandId,
        now: Now,
    ) -> Result<Clearance, ClaimError> {
        self.claimable(digest, now)?;
        if let State::Approved { by } = &mut self.state {
            self.state = State::Used {
                by: std::mem::take(by),
                session: session.clone(),
                command,
            };
        }
        Ok(Clearance {
            approval: self.draft.id.clone(),
            digest: *digest,
            session: session.clone(),
            command,
        })
    }

    fn end(&mut self, state: State) -> Option<State> {
        if self.state.is_terminal() {
            return None;
        }
        self.state = state.clone();
        Some(state)
    }

    /// A hold that asks for nobody still needs somebody.
    fn need(&self) -> u32 {
        self.draft.hold.quorum.max(1)
    }

    fn approvers(&self) -> impl Iterator<Item = &Identity> {
        self.votes
            .iter()
            .filter(|vote| vote.verdict == Verdict::Approve)
            .map(|vote| &vote.reviewer.identity)
    }

    fn is_behind(&self, reviewer: &Reviewer) -> bool {
        self.draft
            .principal
            .behind()
            .any(|one| *one == reviewer.identity || reviewer.also.contains(one))
    }

    /// An empty list of reviewers makes nobody eligible.
    fn is_eligible(&self, reviewer: &Reviewer) -> bool {
        self.draft.hold.reviewers.iter().any(|set| match set {
            Reviewers::Group(group) => reviewer.groups.contains(group),
            // The configuration has put the issuer's URL in place of its name.
            Reviewers::Person { issuer, subject } => {
                *issuer == reviewer.identity.issuer && *subject == reviewer.identity.subject
            }
        })
    }
}

/// Two reviewers that merely share an actor, such as the console that both used,
/// are two people; one that the other names as itself is not.
fn same_person(a: &Reviewer, b: &Reviewer) -> bool {
    a.identity == b.identity || a.also.contains(&b.identity) || b.also.contains(&a.identity)
}

/// The longest start of `text` within [`MAX_REASON`] bytes that ends between characters.
fn bounded(text: &str) -> &str {
    let mut end = text.len().min(MAX_REASON);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
