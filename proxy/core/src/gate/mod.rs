//! Decides whether a session's command may run. Sans-IO: the driver feeds
//! [`Input`], drains [`Action`], and answers each action that asks for an answer.
//!
//! One command at a time is undecided; forwarded ones wait in order for the
//! target's answer. Only this module makes a [`Permit`], and only in
//! [`Gate::poll`]: until the driver takes it out, a withdrawal still stops it.
//!
//! When rules change, the stricter of old and new wins. A held command keeps
//! its digest, which names the rules it was held under; new rules that deny it
//! end the hold at once, new rules that ask for more make the approval
//! insufficient at its release, and new rules that ask for less release nothing
//! by themselves.
//!
//! Limits: the gate trusts its driver to write what it says it wrote, to answer
//! in order, and to leave an approval when asked to. It does not end a session whose token
//! expires; it refuses what that session submits from then on. What is held by then
//! may still be approved.

mod entry;
mod io;
mod permit;
mod steps;
#[cfg(test)]
mod tests;
mod text;
mod undecided;

pub use io::{Action, GateError, Input, Opened, Settlement, Withdrawal};
pub use permit::Permit;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::Now;
use crate::decision::Reviewers;
use crate::id::{ApprovalId, CommandId, SessionId};
use crate::policy::Judge;
use crate::principal::Principal;
use crate::record::{Entry, NewRecord};

use undecided::Undecided;

/// How long commands are held; from the configuration's `hold` table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldLimits {
    pub inline_wait_agent: Duration,
    pub inline_wait_person: Duration,
    /// Caps a rule's `expires_in`.
    pub max_hold: Duration,
    /// Caps the inline wait inside of a transaction, whose locks others wait for.
    pub max_hold_in_transaction: Duration,
    /// Between notices; zero for the first notice only.
    pub heartbeat: Duration,
}

/// What stays the same for a session.
pub struct GateSetup {
    pub session: SessionId,
    pub principal: Arc<Principal>,
    /// The target's name.
    pub target: String,
    pub tags: Vec<String>,
    /// Who decides for the target where a rule leaves it to its owners.
    pub owners: Vec<Reviewers>,
    /// The plugin's name.
    pub protocol: String,
    /// Harmless first.
    pub classes: Arc<[String]>,
    pub limits: HoldLimits,
    pub rules: Arc<dyn Judge>,
    /// Added to the token's expiry.
    pub clock_skew: Duration,
    /// Commands that policy allows need only be written, not synced, before they go.
    pub relaxed: bool,
}

/// One session's gate.
pub struct Gate {
    setup: GateSetup,
    queue: VecDeque<Action>,
    undecided: Option<Undecided>,
    /// Oldest first; with the approval that released it.
    forwarded: VecDeque<(CommandId, Option<ApprovalId>)>,
    /// Permits taken out whose bytes are not known to be with the kernel.
    unsent: usize,
    submitted: u64,
    response_bytes: u64,
    /// Questions whose command was given up before the answer came: for each
    /// opening, whether the approval may become a grant.
    stale_opens: VecDeque<bool>,
    stale_claims: usize,
    ended: bool,
}

impl Gate {
    pub fn new(setup: GateSetup) -> Self {
        Self {
            setup,
            queue: VecDeque::new(),
            undecided: None,
            forwarded: VecDeque::new(),
            unsent: 0,
            submitted: 0,
            response_bytes: 0,
            stale_opens: VecDeque::new(),
            stale_claims: 0,
            ended: false,
        }
    }

    /// Takes one input.
    ///
    /// # Errors
    /// The driver broke the contract of [`Input`], or the target completed more
    /// than was sent. The undecided command is refused and no other is taken; the
    /// session has to end.
    pub fn input(&mut self, input: Input, now: Now) -> Result<(), GateError> {
        let taken = self.step(input, now);
        if taken.is_err() {
            self.ended = true;
            self.give_up(text::internal(), false, now);
        }
        taken
    }

    /// The next thing to do. Drain after every input.
    pub fn poll(&mut self) -> Option<Action> {
        if let Some(action) = self.queue.pop_front() {
            return Some(action);
        }
        let ready = self.undecided.take_if(|command| command.is_ready())?;
        self.forwarded.push_back((ready.id, ready.released_by));
        self.unsent += 1;
        Some(Action::Forward(Permit::new(
            self.setup.session.clone(),
            ready.id,
            ready.command.wire,
        )))
    }

    /// What the client hears at each heartbeat while its command is held.
    pub fn heartbeat(&self, now: Now) -> Option<String> {
        match &self.undecided.as_ref()?.stage {
            undecided::Stage::Holding(hold) if hold.next_notice.is_some() => {
                Some(text::still_holding(&hold.approval, hold.expires, now))
            }
            _ => None,
        }
    }

    /// When to give [`Input::Tick`], in monotonic nanoseconds.
    pub fn deadline(&self) -> Option<u64> {
        self.undecided.as_ref()?.deadline()
    }

    /// Nothing is undecided and nothing is to be drained: a command may be submitted.
    pub fn idle(&self) -> bool {
        self.undecided.is_none() && self.queue.is_empty()
    }

    /// Whether records wait to be taken out with [`Gate::poll`]. Together they need
    /// one [`Input::Recorded`].
    pub fn queued_records(&self) -> bool {
        self.queue
            .iter()
            .any(|action| matches!(action, Action::Record(..)))
    }

    /// Whether a command waits for reviewers, or will once its record is safe. What is
    /// told to the client meanwhile comes from here; the target hears of nothing.
    pub fn holds(&self) -> bool {
        use undecided::{Next, Stage};
        self.undecided.as_ref().is_some_and(|one| {
            let held = matches!(one.decision.outcome, crate::decision::Outcome::Hold(_));
            let stage = matches!(
                one.stage,
                Stage::Recording(Next::Open) | Stage::Opening | Stage::Holding(_)
            );
            held && stage
        })
    }

    /// Gives memory back that it has no use for while nothing happens.
    pub fn rest(&mut self) {
        self.queue.shrink_to_fit();
        self.forwarded.shrink_to_fit();
    }

    /// Commands forwarded whose end was not seen.
    pub fn outstanding(&self) -> usize {
        self.forwarded.len()
    }

    /// Permits taken out and not yet reported as [`Input::Sent`].
    pub fn unsent(&self) -> usize {
        self.unsent
    }

    /// Commands submitted so far.
    pub fn submitted(&self) -> u64 {
        self.submitted
    }

    /// Counts bytes of the target's answers, for the record of the next completion.
    pub fn responded(&mut self, bytes: u64) {
        self.response_bytes = self.response_bytes.saturating_add(bytes);
    }

    /// Ends the session. Gives the records still to be written, in order: those
    /// not drained yet, the refusal of what was undecided, and an *unknown* for each
    /// command whose end was never seen.
    ///
    /// Give [`Input::Withdrawn`] first and drain, so that held approvals are left.
    pub fn close(&mut self, now: Now) -> Vec<NewRecord> {
        self.ended = true;
        self.give_up(text::withdrawn(), false, now);
        self.undecided = None;
        let mut records: Vec<NewRecord> = self
            .queue
            .drain(..)
            .filter_map(|action| match action {
                Action::Record(record, _) => Some(*record),
                _ => None,
            })
            .collect();
        let session = &self.setup.session;
        records.extend(self.forwarded.drain(..).map(|(command, approval)| {
            let unknown = Entry::Unknown { command, approval };
            entry::record(session, now, unknown, Bytes::new())
        }));
        self.unsent = 0;
        records
    }
}
