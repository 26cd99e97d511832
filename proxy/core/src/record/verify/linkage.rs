//! I2 and I3 from the record alone: what went forward had been decided so.
//!
//! Who was entitled by group at the moment of the vote is taken from the vote
//! itself, which carries the groups that the reviewer's token proved.

mod handover;

use std::collections::{HashMap, HashSet};

use super::commands::{Commands, Stage};
use super::keys::Keys;
use super::known::Known;
use super::report::Unreviewed;
use crate::approval::{BreakGlass, Draft, Reach, Reviewer, Verdict, Vote};
use crate::decision::{Hold, Step};
use crate::id::{ApprovalId, CommandId, Digest, SessionId};
use crate::principal::Identity;

/// Clocks of the hold's and the settlement's record are read apart.
pub(super) const SLACK_NS: u64 = 1_000_000_000;

/// All approvals that can still change.
#[derive(Debug, Default)]
pub(super) struct Approvals {
    live: HashMap<ApprovalId, Known>,
    used: HashSet<ApprovalId>,
    windows: HashMap<ApprovalId, Window>,
    /// Uses of other nodes' windows, by their numbers there.
    turns: HashSet<(ApprovalId, u64)>,
    /// Glass that was broken and not looked into.
    broken: HashMap<ApprovalId, Broken>,
    pub(super) keys: Keys,
}

/// A command that may go forward again.
#[derive(Debug)]
struct Window {
    digest: Digest,
    behind: Vec<Identity>,
    hold: Hold,
    rule: String,
    reach: Reach,
    opened: (u64, u64),
    claims: u64,
}

impl Window {
    fn is_late(&self, at: (u64, u64)) -> bool {
        let ms = self.reach.for_ms;
        let limit = ms.map_or(u64::MAX, |ms| ms.saturating_mul(1_000_000));
        self.opened.0 != at.0 || at.1.saturating_sub(self.opened.1) > limit.saturating_add(SLACK_NS)
    }
}

#[derive(Debug)]
struct Broken {
    seq: u64,
    glass: BreakGlass,
    by: Vec<Identity>,
    behind: Vec<Identity>,
    hold: Hold,
    rule: String,
}

pub(super) type Checked = Result<(), String>;

/// One [`crate::record::Entry::Claimed`].
pub(super) struct Claim<'a> {
    pub(super) approval: &'a ApprovalId,
    pub(super) command: CommandId,
    pub(super) digest: &'a Digest,
    pub(super) number: u64,
}

impl Approvals {
    pub(super) fn hold(&mut self, draft: &Draft, commands: &Commands, at: (u64, u64)) -> Checked {
        if self.used.contains(&draft.id) || self.live.contains_key(&draft.id) {
            return Err(format!("approval {} was opened before", draft.id));
        }
        let known = Known {
            digest: draft.digest,
            behind: draft.principal.behind().cloned().collect(),
            hold: draft.hold.clone(),
            rule: draft.rule.clone(),
            session: draft.session.clone(),
            opened: at,
            step: 0,
            since: at,
            escalated: false,
            justified: false,
            approvals: Vec::new(),
            turn: 0,
            broken: None,
            denied: false,
            approved: false,
        };
        let checked = known.fits(draft, commands);
        self.live.insert(draft.id.clone(), known);
        checked
    }

    /// A vote that was counted, at this wall time.
    pub(super) fn vote(&mut self, vote: &Vote, at: (u64, u64), unix: u64) -> Checked {
        let known = self.live.get_mut(&vote.approval).ok_or_else(|| {
            format!(
                "a vote was counted for approval {}, which is not pending",
                vote.approval
            )
        })?;
        let who = &vote.reviewer.label;
        if vote.digest != known.digest {
            return Err(format!("the vote of `{who}` is for another command"));
        }
        let person = names(&vote.reviewer);
        if person.iter().any(|id| known.behind.contains(id)) {
            return Err(format!("`{who}` voted on a request of their own"));
        }
        if vote.reviewer.agent {
            return Err(format!("`{who}` is an agent, and its vote was counted"));
        }
        known.entitled(&vote.reviewer)?;
        match vote.verdict {
            Verdict::Deny => {
                known.denied = true;
                Ok(())
            }
            Verdict::Approve => {
                known.recent(&vote.reviewer, unix)?;
                if known.hold.webauthn && vote.assertion.is_none() {
                    return Err(format!(
                        "`{who}` approved without a signature, which rule `{}` wants",
                        known.rule
                    ));
                }
                self.keys.signed(vote)?;
                known.approve(vote, at)
            }
        }
    }

    pub(super) fn escalated(
        &mut self,
        approval: &ApprovalId,
        step: u32,
        at: (u64, u64),
    ) -> Checked {
        let known = self.pending(approval, "escalated")?;
        let here = usize::try_from(step).ok() == known.step.checked_add(1);
        let more = known.current().and_then(|step| step.escalate.as_ref());
        let Some(more) = more.filter(|_| here && !known.escalated) else {
            return Err(format!(
                "step {step} of approval {approval} was escalated, which its rule does not say"
            ));
        };
        let after = u64::try_from(more.after.as_nanos()).unwrap_or(u64::MAX);
        let early = at.1.saturating_sub(known.since.1).saturating_add(SLACK_NS) < after;
        known.escalated = true;
        if early || known.since.0 != at.0 {
            return Err(format!(
                "step {step} of approval {approval} was escalated before its time"
            ));
        }
        Ok(())
    }

    pub(super) fn justified(&mut self, approval: &ApprovalId, by: &Identity) -> Checked {
        let known = self.pending(approval, "justified")?;
        if known.behind.first() != Some(by) {
            return Err(format!(
                "approval {approval} was justified by `{}`, who did not ask",
                by.subject
            ));
        }
        if std::mem::replace(&mut known.justified, true) {
            return Err(format!("approval {approval} was justified twice"));
        }
        Ok(())
    }

    /// Counted, not refused.
    pub(super) fn glass(&mut self, glass: &BreakGlass, seq: u64, unix: u64) -> Checked {
        let id = &glass.approval;
        let known = self.pending(id, "let go by a broken glass")?;
        let who = &glass.by.label;
        let mut sets = known.hold.break_glass.iter();
        let entitled = !glass.by.agent && sets.any(|set| glass.by.is_in(set));
        let by = names(&glass.by);
        known.broken = Some(glass.by.identity.clone());
        let broken = Broken {
            seq,
            glass: glass.clone(),
            by,
            behind: known.behind.clone(),
            hold: known.hold.clone(),
            rule: known.rule.clone(),
        };
        let same = known.digest == glass.digest;
        let recent = known.recent(&glass.by, unix);
        self.broken.insert(id.clone(), broken);
        if !entitled {
            return Err(format!("`{who}` may not break the glass of approval {id}"));
        }
        if !same {
            return Err(format!("`{who}` broke the glass of another command"));
        }
        if glass.reason.trim().is_empty() {
            return Err(format!("`{who}` broke the glass of {id} without a reason"));
        }
        recent
    }

    /// Glass that was broken and that nobody has looked into.
    pub(super) fn unreviewed(&self) -> Vec<Unreviewed> {
        let open = |(approval, broken): (&ApprovalId, &Broken)| Unreviewed {
            seq: broken.seq,
            approval: approval.clone(),
            by: broken.glass.by.label.clone(),
            reason: broken.glass.reason.clone(),
            at: broken.glass.at,
        };
        self.broken.iter().map(open).collect()
    }

    pub(super) fn reviewed(&mut self, approval: &ApprovalId, by: &Reviewer) -> Checked {
        let Some(broken) = self.broken.remove(approval) else {
            return Err(format!(
                "approval {approval} was reviewed afterwards, and there was nothing to review"
            ));
        };
        let person = names(by);
        let involved = |id: &Identity| broken.by.contains(id) || broken.behind.contains(id);
        let mut sets = broken.hold.steps.iter().flat_map(Step::everyone);
        if by.agent || person.iter().any(involved) || !sets.any(|set| by.is_in(set)) {
            return Err(format!(
                "`{}` reviewed approval {approval} afterwards, and may not under rule `{}`",
                by.label, broken.rule
            ));
        }
        Ok(())
    }

    pub(super) fn settled(
        &mut self,
        approval: &ApprovalId,
        state: &str,
        by: &[Identity],
        window: Option<&Reach>,
        at: (u64, u64),
    ) -> Checked {
        if state != "approved" {
            return match self.live.remove(approval) {
                Some(_) => Ok(()),
                None => Err(format!(
                    "approval {approval} became `{state}` after its last state"
                )),
            };
        }
        let known = self.pending(approval, "approved")?;
        known.approved = true;
        let checked = known.complete(approval, by, at);
        let reach = match known.broken {
            Some(_) => None,
            None => Reach::of(known.approvals.iter(), &known.session),
        };
        if window != reach.as_ref() {
            return Err(format!(
                "approval {approval} may be used more often or seldom than its reviewers said"
            ));
        }
        if let Some(reach) = reach {
            let window = Window {
                digest: known.digest,
                behind: known.behind.clone(),
                hold: known.hold.clone(),
                rule: known.rule.clone(),
                reach,
                opened: at,
                claims: 0,
            };
            self.windows.insert(approval.clone(), window);
        }
        checked
    }

    /// A command takes a turn of a window.
    pub(super) fn claimed(
        &mut self,
        claim: &Claim<'_>,
        session: &SessionId,
        commands: &mut Commands,
        at: (u64, u64),
    ) -> Checked {
        let (approval, command) = (claim.approval, claim.command);
        let Some(window) = self.windows.get_mut(approval) else {
            return Err(format!(
                "command {command} uses the window of approval {approval}, which is not open"
            ));
        };
        window.claims += 1;
        let Some(found) = commands.unfinished.get_mut(&command) else {
            return Err(format!(
                "command {command} uses a window, but was denied, ended or never recorded"
            ));
        };
        let held = match &found.stage {
            Stage::Held(hold) => hold.met_by(&window.hold),
            _ => false,
        };
        let digests = found.digest == window.digest && *claim.digest == window.digest;
        if !held || !digests || window.behind != commands.behind {
            return Err(format!(
                "the window of approval {approval} does not cover command {command}"
            ));
        }
        let other = window
            .reach
            .session
            .as_ref()
            .is_some_and(|own| own != session);
        if other || window.is_late(at) {
            return Err(format!(
                "command {command} uses the window of approval {approval} after its end or in \
                 another session"
            ));
        }
        if claim.number != window.claims {
            return Err(format!(
                "claim {} of the window of approval {approval} stands where {} should",
                claim.number, window.claims
            ));
        }
        if found.claimed.replace(approval.clone()).is_some() {
            return Err(format!("command {command} claimed twice"));
        }
        Ok(())
    }

    pub(super) fn window_ended(&mut self, approval: &ApprovalId) -> Checked {
        match self.windows.remove(approval) {
            Some(_) => Ok(()),
            None => Err(format!(
                "the window of approval {approval} ended, and was not open"
            )),
        }
    }

    fn pending(&mut self, approval: &ApprovalId, what: &str) -> Result<&mut Known, String> {
        self.live
            .get_mut(approval)
            .filter(|known| !known.approved)
            .ok_or_else(|| format!("approval {approval} was {what}, but was not pending"))
    }

    pub(super) fn forward(
        &mut self,
        command: CommandId,
        approval: &ApprovalId,
        digest: &Digest,
        commands: &mut Commands,
    ) -> Checked {
        let turn = commands.unfinished.get_mut(&command);
        let turn = turn.and_then(|found| found.claimed.take());
        let of_command = match commands.unfinished.get_mut(&command) {
            Some(found) if found.digest != *digest => Err(format!(
                "the forward of command {command} carries another command's digest"
            )),
            Some(found) => {
                let before = std::mem::replace(&mut found.stage, Stage::Forwarded);
                match before {
                    Stage::Held(_) => Ok(()),
                    Stage::Allowed => Err(format!(
                        "command {command} needed no approval and was forwarded under one"
                    )),
                    Stage::Forwarded => Err(format!("command {command} was forwarded twice")),
                }
            }
            None => Err(format!(
                "command {command} was forwarded, but was denied, ended or never recorded"
            )),
        };
        let of_approval = match self.live.remove(approval) {
            known if turn.is_some() => {
                // Its own single use, if it is left, stays.
                if let Some(known) = known {
                    self.live.insert(approval.clone(), known);
                }
                if turn.as_ref() == Some(approval) {
                    Ok(())
                } else {
                    Err(format!(
                        "command {command} claimed another approval's window"
                    ))
                }
            }
            Some(known) => {
                self.used.insert(approval.clone());
                if !known.approved {
                    Err(format!(
                        "command {command} was forwarded before approval {approval} was approved"
                    ))
                } else if known.digest != *digest {
                    Err(format!("approval {approval} is for another command"))
                } else if known.behind != commands.behind {
                    Err(format!("approval {approval} is for another principal"))
                } else {
                    Ok(())
                }
            }
            None if self.used.contains(approval) => Err(format!(
                "approval {approval} was used a second time, by command {command}"
            )),
            None => Err(format!(
                "command {command} was forwarded under approval {approval}, which is not open"
            )),
        };
        match (of_command, of_approval) {
            (Err(one), Err(other)) => Err(format!("{one}; {other}")),
            (one, other) => one.and(other),
        }
    }
}

/// Everyone that a person is known as.
pub(super) fn names(reviewer: &Reviewer) -> Vec<Identity> {
    let first = std::iter::once(&reviewer.identity);
    first.chain(&reviewer.also).cloned().collect()
}
