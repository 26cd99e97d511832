//! I2 and I3 from the record alone: what went forward had been decided so.
//!
//! Who was entitled by group at the moment of the vote is taken from the vote
//! itself, which carries the groups that the reviewer's token proved.

mod handover;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use super::report::Unreviewed;
use crate::approval::{BreakGlass, Draft, Reach, Reviewer, SignIn, Verdict, Vote, same_person};
use crate::decision::{Hold, Outcome, Step};
use crate::id::{ApprovalId, CommandId, Digest, SessionId};
use crate::principal::{Identity, Principal};
use crate::record::CommandEntry;

use super::keys::Keys;

/// Clocks of the hold's and the settlement's record are read apart.
const SLACK_NS: u64 = 1_000_000_000;

/// All approvals that can still change.
#[derive(Debug, Default)]
pub(super) struct Approvals {
    live: HashMap<ApprovalId, Known>,
    used: HashSet<ApprovalId>,
    windows: HashMap<ApprovalId, Window>,
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
    reach: Reach,
    opened: (u64, u64),
    claims: u64,
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

#[derive(Debug)]
struct Known {
    digest: Digest,
    behind: Vec<Identity>,
    hold: Hold,
    rule: String,
    session: SessionId,
    /// Number of the process, and its monotonic clock at the hold.
    opened: (u64, u64),
    /// The current step, from 0, and when it began.
    step: usize,
    since: (u64, u64),
    escalated: bool,
    justified: bool,
    /// Of all steps, and from where on they are of the current one.
    approvals: Vec<Vote>,
    turn: usize,
    /// Who broke the glass.
    broken: Option<Identity>,
    denied: bool,
    approved: bool,
}

/// A session's commands that have no end yet.
#[derive(Debug)]
pub(super) struct Commands {
    behind: Vec<Identity>,
    last: u64,
    count: u64,
    unfinished: BTreeMap<CommandId, Command>,
}

#[derive(Debug)]
struct Command {
    digest: Digest,
    /// That decided it, where it is held.
    rule: String,
    stage: Stage,
    /// The window of which it has a turn.
    claimed: Option<ApprovalId>,
}

#[derive(Debug, PartialEq, Eq)]
enum Stage {
    Allowed,
    Held(Box<Hold>),
    Forwarded,
}

pub(super) type Checked = Result<(), String>;

/// One [`crate::record::Entry::Claimed`].
pub(super) struct Claim<'a> {
    pub(super) approval: &'a ApprovalId,
    pub(super) command: CommandId,
    pub(super) digest: &'a Digest,
    pub(super) number: u64,
}

impl Commands {
    pub(super) fn new(principal: &Principal) -> Self {
        Self {
            behind: principal.behind().cloned().collect(),
            last: 0,
            count: 0,
            unfinished: BTreeMap::new(),
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn command(&mut self, entry: &CommandEntry) -> Checked {
        self.count += 1;
        let in_order = entry.id.0 > self.last;
        self.last = self.last.max(entry.id.0);
        let stage = match &entry.decision.outcome {
            Outcome::Allow => Some(Stage::Allowed),
            Outcome::Hold(hold) => Some(Stage::Held(Box::new(hold.clone()))),
            // Nothing may happen to it any more, so it need not be remembered.
            Outcome::Deny { .. } => None,
        };
        if let Some(stage) = stage {
            let digest = entry.digest;
            let claimed = None;
            let rule = match &stage {
                Stage::Held(_) => entry.decision.rule.clone(),
                _ => String::new(),
            };
            self.unfinished.insert(
                entry.id,
                Command {
                    digest,
                    rule,
                    stage,
                    claimed,
                },
            );
        }
        if in_order {
            Ok(())
        } else {
            Err(format!("command {} comes again or late", entry.id))
        }
    }

    pub(super) fn refused(&mut self, command: CommandId) {
        self.unfinished.remove(&command);
    }

    pub(super) fn unknown(&mut self, command: CommandId) -> Checked {
        match self.unfinished.remove(&command) {
            Some(Command {
                stage: Stage::Allowed | Stage::Forwarded,
                ..
            }) => Ok(()),
            _ => Err(format!(
                "command {command} is called unknown but was never forwarded"
            )),
        }
    }

    pub(super) fn completed(&mut self, commands: &[CommandId]) -> Checked {
        let mut result = Ok(());
        for command in commands {
            match self.unfinished.remove(command) {
                Some(Command {
                    stage: Stage::Allowed | Stage::Forwarded,
                    ..
                }) => {}
                Some(_) => {
                    result = Err(format!(
                        "command {command} was held and completed without a recorded forward"
                    ));
                }
                None => {
                    result = Err(format!(
                        "command {command} completed, but was denied, refused, completed before or never recorded"
                    ));
                }
            }
        }
        result
    }

    /// Called at the session's end.
    pub(super) fn closed(&self) -> Checked {
        let open = self
            .unfinished
            .iter()
            .find(|(_, command)| command.stage == Stage::Forwarded);
        match open {
            Some((id, _)) => Err(format!(
                "command {id} was forwarded under an approval and is neither completed nor unknown"
            )),
            None => Ok(()),
        }
    }
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
        let limit = window
            .reach
            .for_ms
            .map_or(u64::MAX, |ms| ms.saturating_mul(1_000_000));
        let late = window.opened.0 != at.0
            || at.1.saturating_sub(window.opened.1) > limit.saturating_add(SLACK_NS);
        if other || late {
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

impl Known {
    fn fits(&self, draft: &Draft, commands: &Commands) -> Checked {
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

    fn current(&self) -> Option<&Step> {
        self.hold.steps.get(self.step)
    }

    fn entitled(&self, reviewer: &Reviewer) -> Checked {
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
    fn recent(&self, reviewer: &Reviewer, unix: u64) -> Checked {
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

    fn approve(&mut self, vote: &Vote, at: (u64, u64)) -> Checked {
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
    fn complete(&self, approval: &ApprovalId, by: &[Identity], at: (u64, u64)) -> Checked {
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

/// Everyone that a person is known as.
fn names(reviewer: &Reviewer) -> Vec<Identity> {
    let first = std::iter::once(&reviewer.identity);
    first.chain(&reviewer.also).cloned().collect()
}
