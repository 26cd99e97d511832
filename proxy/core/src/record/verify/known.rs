//! One approval that can still change: who may decide it, and whether enough have.

use std::time::Duration;

use super::commands::{Commands, Stage};
use super::linkage::{Checked, SLACK_NS, names};
use crate::approval::{Draft, Reviewer, SignIn, Vote, same_person};
use crate::decision::{Hold, Step};
use crate::id::{ApprovalId, Digest, SessionId};
use crate::principal::Identity;

#[derive(Debug)]
pub(super) struct Known {
    pub(super) digest: Digest,
    pub(super) behind: Vec<Identity>,
    pub(super) hold: Hold,
    pub(super) rule: String,
    pub(super) session: SessionId,
    /// Number of the process, and its monotonic clock at the hold.
    pub(super) opened: (u64, u64),
    /// The current step, from 0, and when it began.
    pub(super) step: usize,
    pub(super) since: (u64, u64),
    pub(super) escalated: bool,
    pub(super) justified: bool,
    /// Of all steps, and from where on they are of the current one.
    pub(super) approvals: Vec<Vote>,
    pub(super) turn: usize,
    /// Who broke the glass.
    pub(super) broken: Option<Identity>,
    pub(super) denied: bool,
    pub(super) approved: bool,
}

impl Known {
    pub(super) fn fits(&self, draft: &Draft, commands: &Commands) -> Checked {
        let id = draft.command;
        let Some(command) = commands.unfinished.get(&id) else {
            return Err(format!(
                "approval {} is for command {id}, which is not open",
                draft.id
            ));
        };
        let Stage::Held(hold) = &command.stage else {
            return Err(format!(
                "approval {} is for command {id}, which is not held",
                draft.id
            ));
        };
        if command.digest != draft.digest || self.behind != commands.behind {
            return Err(format!(
                "approval {} is not for the command and principal that it names",
                draft.id
            ));
        }
        let longest = Hold {
            expires_in: draft.hold.expires_in,
            ..(**hold).clone()
        };
        if longest != draft.hold || draft.hold.expires_in > hold.expires_in {
            return Err(format!(
                "approval {} asks for other reviewers than the decision on command {id}",
                draft.id
            ));
        }
        Ok(())
    }

    pub(super) fn current(&self) -> Option<&Step> {
        self.hold.steps.get(self.step)
    }

    pub(super) fn entitled(&self, reviewer: &Reviewer) -> Checked {
        let step = self.current();
        let more = step.and_then(|step| step.escalate.as_ref());
        let more = more.filter(|_| self.escalated);
        let sets = step.iter().flat_map(|step| &step.reviewers);
        let mut sets = sets.chain(more.iter().flat_map(|more| &more.reviewers));
        if sets.any(|set| reviewer.is_in(set)) {
            Ok(())
        } else {
            Err(format!(
                "`{}` is not among the reviewers of rule `{}`{}",
                reviewer.label,
                self.rule,
                match self.hold.steps.len() {
                    0 | 1 => String::new(),
                    _ => format!(" at step {}", self.step + 1),
                }
            ))
        }
    }

    /// Whether they had signed in as recently as the rule wants, by the record's time.
    pub(super) fn recent(&self, reviewer: &Reviewer, unix: u64) -> Checked {
        let Some(max) = self.hold.step_up else {
            return Ok(());
        };
        // The record may be written a moment after the vote was judged.
        let max = max.saturating_add(Duration::from_nanos(SLACK_NS));
        SignIn::within(reviewer.auth_time, max, unix).map_err(|why| {
            let why = match why {
                SignIn::Unknown => "without a known sign-in".to_owned(),
                SignIn::Old(age) => format!("{age} s after their sign-in"),
                SignIn::Future => "before their sign-in".to_owned(),
            };
            format!(
                "`{}` approved {why}, which rule `{}` does not let them",
                reviewer.label, self.rule
            )
        })
    }

    pub(super) fn approve(&mut self, vote: &Vote, at: (u64, u64)) -> Checked {
        let who = &vote.reviewer.label;
        if self.hold.justify && !self.justified {
            return Err(format!("`{who}` approved before the requester said why"));
        }
        if vote
            .window
            .is_some_and(|window| !self.hold.windows.contains(&window))
        {
            return Err(format!(
                "`{who}` opened a window that rule `{}` does not offer",
                self.rule
            ));
        }
        let mut earlier = self.approvals.iter().take(self.turn);
        if earlier.any(|one| same_person(&one.reviewer, &vote.reviewer)) {
            return Err(format!("`{who}` approved an earlier step as well"));
        }
        self.approvals.push(vote.clone());
        let need = self.current().map_or(1, |step| step.quorum.max(1));
        let enough = self.people() >= need as usize;
        if enough && self.step + 1 < self.hold.steps.len() {
            self.step += 1;
            self.since = at;
            self.escalated = false;
            self.turn = self.approvals.len();
        }
        Ok(())
    }

    /// How many people approved the current step: one person once, under whichever of
    /// their names.
    fn people(&self) -> usize {
        let votes = self.approvals.get(self.turn..).unwrap_or_default();
        let mut people: Vec<&Reviewer> = Vec::new();
        for vote in votes {
            if !people.iter().any(|one| same_person(one, &vote.reviewer)) {
                people.push(&vote.reviewer);
            }
        }
        people.len()
    }

    /// Whether it could be approved by then.
    pub(super) fn complete(
        &self,
        approval: &ApprovalId,
        by: &[Identity],
        at: (u64, u64),
    ) -> Checked {
        if self.denied {
            return Err(format!("approval {approval} was approved after a denial"));
        }
        if let Some(breaker) = &self.broken {
            if by != [breaker.clone()] {
                return Err(format!(
                    "approval {approval} does not name who broke the glass as its approver"
                ));
            }
        } else {
            let steps = self.hold.steps.len();
            let have = self.people();
            let need = self.current().map_or(1, |step| step.quorum.max(1));
            if self.step + 1 < steps {
                return Err(format!(
                    "approval {approval} was approved at step {} of {steps}",
                    self.step + 1
                ));
            }
            if have < need as usize {
                return Err(format!(
                    "approval {approval} was approved by {have} of {need} people"
                ));
            }
            let known = |id: &Identity| {
                let mut votes = self.approvals.iter();
                votes.any(|vote| names(&vote.reviewer).contains(id))
            };
            if let Some(stranger) = by.iter().find(|id| !known(id)) {
                return Err(format!(
                    "approval {approval} names `{}` as approver, whose vote is not recorded",
                    stranger.subject
                ));
            }
        }
        let limit = u64::try_from(self.hold.expires_in.as_nanos()).unwrap_or(u64::MAX);
        let late = self.opened.0 != at.0
            || at.1.saturating_sub(self.opened.1) > limit.saturating_add(SLACK_NS);
        if late {
            return Err(format!("approval {approval} was approved after its time"));
        }
        Ok(())
    }
}
