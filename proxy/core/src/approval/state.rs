//! The state machine of one approval.
//!
//! While it is pending, one of its steps is current. Votes count for that step
//! alone; the last approval that it needs makes the next one current, or approves the
//! whole. Time widens who may decide a step, and never passes anything.
//!
//! It knows nothing of sockets, stores or sessions. Its owner keeps the order:
//! `judge` says what an act would do, the owner writes that to the
//! journal, and only then the act is done. In between, the owner
//! lets nothing else touch this approval and uses one reading of the clock.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    BreakGlass, ClaimError, Clearance, Draft, HandOver, JustifyError, OpenWindow, Reach, Reviewer,
    Verdict, Vote, VoteError, same_person, step_up,
};
use crate::Now;
use crate::decision::Step;
use crate::id::{CommandId, Digest, SessionId};
use crate::principal::Identity;

/// Bytes of a denial's reason that are kept; it is sent to the agent. Longer
/// justifications, and reasons for breaking the glass, are refused.
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
    /// Counted, and the step has enough: this one, from 1, is asked now.
    Advanced {
        step: u32,
        of: u32,
    },
    /// The same vote again; nothing changed.
    Repeated,
    Settled(State),
}

/// One approval: what is asked, who answered, and where that led.
///
/// A copy is for reading only: its owner claims the one that it keeps.
#[derive(Debug, Clone)]
pub struct Approval {
    draft: Arc<Draft>,
    state: State,
    /// Monotonic nanoseconds.
    expires: u64,
    grant_ttl: Option<Duration>,
    /// Monotonic nanoseconds; meaningful once approved.
    usable_until: u64,
    votes: Vec<Cast>,
    current: Current,
    justification: Option<String>,
    /// Rare, and large.
    broken: Option<Box<BreakGlass>>,
}

/// A vote that counted, and for which step, from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cast {
    pub step: u32,
    pub vote: Vote,
}

/// The step that is asked now.
#[derive(Debug, Clone)]
struct Current {
    /// From 1.
    step: u32,
    /// Monotonic nanoseconds.
    since: u64,
    escalated: bool,
}

impl Approval {
    pub fn open(draft: impl Into<Arc<Draft>>, now: Now) -> Self {
        let draft = draft.into();
        let expires = now.deadline(draft.hold.expires_in);
        Self {
            draft,
            state: State::Pending,
            expires,
            grant_ttl: None,
            usable_until: expires,
            votes: Vec::new(),
            current: Current {
                step: 1,
                since: now.mono_ns,
                escalated: false,
            },
            justification: None,
            broken: None,
        }
    }

    /// One that another node's reviewers approved and its owner gave to this command, as
    /// `draft` of node `node` asks for it. `None` where it was given to something else.
    /// The caller has found the owner's signature to be good.
    pub fn given(mut draft: Draft, node: &str, word: &HandOver, now: Now) -> Option<Self> {
        if !word.is_for(node, &draft) {
            return None;
        }
        draft.id = word.approval.clone();
        let mut given = Self::open(draft, now);
        given.state = State::Approved {
            by: word.by.clone(),
        };
        Some(given)
    }

    /// How long it can be claimed once it is approved. Without this, until the
    /// deadline of the decision.
    #[must_use]
    pub fn with_grant_ttl(mut self, ttl: Duration) -> Self {
        self.grant_ttl = Some(ttl);
        self
    }

    pub fn draft(&self) -> &Arc<Draft> {
        &self.draft
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    /// In the order in which they came.
    pub fn votes(&self) -> &[Cast] {
        &self.votes
    }

    /// What the requester said.
    pub fn justification(&self) -> Option<&str> {
        self.justification.as_deref()
    }

    /// Who let it run without the reviewers.
    pub fn broken(&self) -> Option<&BreakGlass> {
        self.broken.as_deref()
    }

    /// When the time to decide is over.
    pub fn expires_mono_ns(&self) -> u64 {
        self.expires
    }

    /// When an approval that was given can no longer be claimed; `None` unless approved.
    pub fn usable_until_mono_ns(&self) -> Option<u64> {
        matches!(self.state, State::Approved { .. }).then_some(self.usable_until)
    }

    /// When [`Approval::tick`] ends it.
    pub fn deadline(&self) -> Option<u64> {
        match self.state {
            State::Pending => Some(self.expires),
            State::Approved { .. } => Some(self.usable_until),
            _ => None,
        }
    }

    /// When the current step widens, unless it is decided before.
    pub fn escalates_at(&self) -> Option<u64> {
        if self.state != State::Pending || self.current.escalated {
            return None;
        }
        let more = self.step()?.escalate.as_ref()?;
        let after = u64::try_from(more.after.as_nanos()).unwrap_or(u64::MAX);
        let at = self.current.since.saturating_add(after);
        (at < self.expires).then_some(at)
    }

    /// When time may next change something.
    pub fn next_due(&self) -> Option<u64> {
        let end = self.deadline()?;
        Some(self.escalates_at().map_or(end, |at| at.min(end)))
    }

    /// The current step and how many there are, from 1.
    pub fn place(&self) -> (u32, u32) {
        let of = u32::try_from(self.draft.hold.steps.len()).unwrap_or(u32::MAX);
        (self.current.step, of)
    }

    /// Whether more people may decide the current step than at its beginning.
    pub fn is_escalated(&self) -> bool {
        self.current.escalated
    }

    /// How many people have approved the current step, and how many must.
    pub fn progress(&self) -> (u32, u32) {
        let current = self
            .votes
            .iter()
            .filter(|cast| cast.step == self.current.step);
        let have = u32::try_from(approvers(current).count()).unwrap_or(u32::MAX);
        (have, self.need())
    }

    /// Whether a command that asks for `draft` may wait for this approval or
    /// use it: the same command, under a hold that asks for no more than was put
    /// to these reviewers.
    ///
    /// The digest alone does not say so: a principal's groups are not part of
    /// it, and other groups can mean another rule.
    pub fn serves(&self, draft: &Draft) -> bool {
        self.draft.same_request(draft) && draft.hold.met_by(&self.draft.hold)
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
        if self.draft.is_behind(reviewer) {
            return Err(VoteError::Own);
        }
        if self.votes.iter().any(|cast| is_again(&cast.vote, vote)) {
            return Ok(VoteOutcome::Repeated);
        }
        self.eligible(reviewer)?;
        let reason = vote.reason.as_deref().map(str::trim).unwrap_or_default();
        if vote.verdict == Verdict::Deny && reason.is_empty() {
            return Err(VoteError::NoReason);
        }
        let earlier = self
            .votes
            .iter()
            .find(|cast| same_person(&cast.vote.reviewer, reviewer));
        match earlier {
            Some(cast) if cast.step == self.current.step => {
                return if cast.vote.verdict == vote.verdict {
                    Ok(VoteOutcome::Repeated)
                } else {
                    Err(VoteError::Changed)
                };
            }
            Some(_) if vote.verdict == Verdict::Approve => return Err(VoteError::EarlierStep),
            // To stop a step is everybody's who may decide it.
            _ => {}
        }
        if vote.verdict == Verdict::Deny {
            return Ok(VoteOutcome::Settled(State::Denied {
                by: reviewer.identity.clone(),
                label: reviewer.label.clone(),
                reason: bounded(reason).to_owned(),
            }));
        }
        self.approvable(vote, now)?;
        let (have, need) = (self.progress().0.saturating_add(1), self.need());
        if have < need {
            return Ok(VoteOutcome::Counted { have, need });
        }
        let (step, of) = self.place();
        if step < of {
            let step = step + 1;
            return Ok(VoteOutcome::Advanced { step, of });
        }
        let by = approvers(self.votes.iter())
            .chain([&reviewer.identity])
            .cloned()
            .collect();
        Ok(VoteOutcome::Settled(State::Approved { by }))
    }

    /// Counts one reviewer's answer. The first denial ends the approval; so
    /// does the last approval that its last step needed.
    ///
    /// # Errors
    /// The vote does not count, for the reason given; nothing changed.
    pub fn vote(&mut self, vote: Vote, now: Now) -> Result<VoteOutcome, VoteError> {
        let outcome = self.judge(&vote, now)?;
        if outcome != VoteOutcome::Repeated {
            let step = self.current.step;
            self.votes.push(Cast { step, vote });
        }
        match &outcome {
            VoteOutcome::Settled(state) => self.decide(state.clone(), now),
            VoteOutcome::Advanced { step, .. } => {
                self.current = Current {
                    step: *step,
                    since: now.mono_ns,
                    escalated: false,
                };
            }
            VoteOutcome::Counted { .. } | VoteOutcome::Repeated => {}
        }
        Ok(outcome)
    }

    /// Lets more people decide the current step, if its time has come. Gives whether it did.
    pub fn escalate(&mut self, now: Now) -> bool {
        let due =
            now.mono_ns < self.expires && self.escalates_at().is_some_and(|at| now.mono_ns >= at);
        self.current.escalated |= due;
        due
    }

    /// What [`Approval::justify`] would say. Changes nothing.
    ///
    /// # Errors
    /// It is not taken, for the reason given.
    pub fn judge_justification(
        &self,
        by: &Identity,
        text: &str,
        now: Now,
    ) -> Result<(), JustifyError> {
        if *by != self.draft.principal.identity {
            return Err(JustifyError::NotYours);
        }
        if self.state != State::Pending {
            return Err(JustifyError::Final(self.state.word()));
        }
        if now.mono_ns >= self.expires {
            return Err(JustifyError::Expired);
        }
        if !self.draft.hold.justify {
            return Err(JustifyError::NotAsked(self.draft.rule.clone()));
        }
        if self.justification.is_some() {
            return Err(JustifyError::Already);
        }
        if text.trim().is_empty() {
            return Err(JustifyError::Empty);
        }
        if text.len() > MAX_REASON {
            return Err(JustifyError::TooLong(MAX_REASON));
        }
        Ok(())
    }

    /// Takes the requester's own words, once.
    ///
    /// # Errors
    /// They are not taken, for the reason given; nothing changed.
    pub fn justify(&mut self, by: &Identity, text: &str, now: Now) -> Result<(), JustifyError> {
        self.judge_justification(by, text, now)?;
        self.justification = Some(text.to_owned());
        Ok(())
    }

    /// What [`Approval::break_glass`] would do. Changes nothing.
    ///
    /// # Errors
    /// It does not count, for the reason given.
    pub fn judge_glass(&self, glass: &BreakGlass, now: Now) -> Result<State, VoteError> {
        if self.state != State::Pending {
            return Err(VoteError::Final(self.state.word()));
        }
        if now.mono_ns >= self.expires {
            return Err(VoteError::Expired);
        }
        if glass.approval != self.draft.id || glass.digest != self.draft.digest {
            return Err(VoteError::Digest);
        }
        if glass.by.agent {
            return Err(VoteError::Agent);
        }
        let mut sets = self.draft.hold.break_glass.iter();
        if !sets.any(|set| glass.by.is_in(set)) {
            return Err(VoteError::NoGlass(self.draft.rule.clone()));
        }
        if glass.reason.trim().is_empty() {
            return Err(VoteError::NoCause);
        }
        if glass.reason.len() > MAX_REASON {
            return Err(VoteError::LongReason(MAX_REASON));
        }
        // A signature is not asked for: in an emergency the key may be elsewhere.
        step_up::recent(&self.draft.hold, &self.draft.rule, &glass.by, now.unix())?;
        Ok(State::Approved {
            by: vec![glass.by.identity.clone()],
        })
    }

    /// Approves it in place of the reviewers. Gives the new state.
    ///
    /// # Errors
    /// It does not count, for the reason given; nothing changed.
    pub fn break_glass(&mut self, glass: BreakGlass, now: Now) -> Result<State, VoteError> {
        let state = self.judge_glass(&glass, now)?;
        self.decide(state.clone(), now);
        self.broken = Some(Box::new(glass));
        Ok(state)
    }

    /// How often the command may run once `vote` has approved it; `None` is once.
    /// Of a vote that settles it.
    pub fn reach_with(&self, vote: &Vote) -> Option<Reach> {
        let votes = self.votes.iter().map(|cast| &cast.vote);
        Reach::of(votes.chain([vote]), &self.draft.session)
    }

    /// The window that its reviewers opened; to be asked once, when it was approved.
    pub fn window(&self, now: Now) -> Option<OpenWindow> {
        if !matches!(self.state, State::Approved { .. }) || self.broken.is_some() {
            return None;
        }
        let votes = self.votes.iter().map(|cast| &cast.vote);
        let reach = Reach::of(votes, &self.draft.session)?;
        Some(OpenWindow::new(self.draft.clone(), reach, now))
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
        Ok(Clearance::new(&self.draft.id, digest, session, command))
    }

    fn end(&mut self, state: State) -> Option<State> {
        if self.state.is_terminal() {
            return None;
        }
        self.state = state.clone();
        Some(state)
    }

    fn decide(&mut self, state: State, now: Now) {
        if matches!(state, State::Approved { .. }) {
            self.usable_until = self.grant_ttl.map_or(self.expires, |ttl| now.deadline(ttl));
        }
        self.state = state;
    }

    /// `None` where the hold has no steps: then nobody decides.
    fn step(&self) -> Option<&Step> {
        let at = usize::try_from(self.current.step).ok()?.checked_sub(1)?;
        self.draft.hold.steps.get(at)
    }

    /// A step that asks for nobody still needs somebody.
    fn need(&self) -> u32 {
        self.step().map_or(1, |step| step.quorum.max(1))
    }

    /// Whether somebody may decide the current step.
    fn eligible(&self, reviewer: &Reviewer) -> Result<(), VoteError> {
        let rule = || self.draft.rule.clone();
        let current = self.step().ok_or_else(|| VoteError::NotEligible(rule()))?;
        let escalated = self.current.escalated;
        let more = current.escalate.iter().filter(|_| escalated);
        let mut sets = current
            .reviewers
            .iter()
            .chain(more.flat_map(|more| &more.reviewers));
        if sets.any(|set| reviewer.is_in(set)) {
            return Ok(());
        }
        let mut others = self.draft.hold.steps.iter().flat_map(Step::everyone);
        if others.any(|set| reviewer.is_in(set)) {
            let (step, of) = self.place();
            let rule = rule();
            return Err(VoteError::OtherStep { rule, step, of });
        }
        Err(VoteError::NotEligible(rule()))
    }

    /// What an approval needs beyond somebody who may give it.
    fn approvable(&self, vote: &Vote, now: Now) -> Result<(), VoteError> {
        let (hold, rule) = (&self.draft.hold, &self.draft.rule);
        if hold.justify && self.justification.is_none() {
            return Err(VoteError::NotJustified(self.draft.rule.clone()));
        }
        step_up::recent(hold, rule, &vote.reviewer, now.unix())?;
        step_up::signed(hold, rule, vote)?;
        match vote.window {
            Some(window) if !hold.windows.contains(&window) => Err(VoteError::NoWindow {
                rule: self.draft.rule.clone(),
                window: window.to_string(),
                offered: hold.windows.iter().map(ToString::to_string).collect(),
            }),
            _ => Ok(()),
        }
    }
}

fn approvers<'a>(votes: impl Iterator<Item = &'a Cast>) -> impl Iterator<Item = &'a Identity> {
    votes
        .map(|cast| &cast.vote)
        .filter(|vote| vote.verdict == Verdict::Approve)
        .map(|vote| &vote.reviewer.identity)
}

/// The very same message, sent again: whatever came in between, it counted.
fn is_again(cast: &Vote, vote: &Vote) -> bool {
    cast.nonce.is_some()
        && cast.nonce == vote.nonce
        && cast.verdict == vote.verdict
        && cast.reviewer.identity == vote.reviewer.identity
}

/// The longest start of `text` within [`MAX_REASON`] bytes that ends between characters.
fn bounded(text: &str) -> &str {
    let mut end = text.len().min(MAX_REASON);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
