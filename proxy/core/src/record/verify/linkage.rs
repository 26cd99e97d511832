//! I2 and I3 from the record alone: what went forward had been decided so.
//!
//! Who was entitled by group at the moment of the vote is taken from the vote
//! itself, which carries the groups that the reviewer's token proved.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::approval::{Draft, Verdict, Vote};
use crate::decision::{Hold, Outcome, Reviewers};
use crate::id::{ApprovalId, CommandId, Digest};
use crate::principal::{Identity, Principal};
use crate::record::CommandEntry;

/// Clocks of the hold's and the settlement's record are read apart.
const SLACK_NS: u64 = 1_000_000_000;

/// All approvals that can still change.
#[derive(Debug, Default)]
pub(super) struct Approvals {
    live: HashMap<ApprovalId, Known>,
    used: HashSet<ApprovalId>,
}

#[derive(Debug)]
struct Known {
    digest: Digest,
    behind: Vec<Identity>,
    hold: Hold,
    rule: String,
    /// Number of the process, and its monotonic clock at the hold.
    opened: (u64, u64),
    /// Everyone that one approving person is known as.
    people: Vec<Vec<Identity>>,
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
    stage: Stage,
}

#[derive(Debug, PartialEq, Eq)]
enum Stage {
    Allowed,
    Held(Box<Hold>),
    Forwarded,
}

type Checked = Result<(), String>;

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
            self.unfinished.insert(entry.id, Command { digest, stage });
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
            opened: at,
            people: Vec::new(),
            denied: false,
            approved: false,
        };
        let checked = known.fits(draft, commands);
        self.live.insert(draft.id.clone(), known);
        checked
    }

    /// A vote that was counted.
    pub(super) fn vote(&mut self, vote: &Vote) -> Checked {
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
        let person: Vec<Identity> = std::iter::once(&vote.reviewer.identity)
            .chain(&vote.reviewer.also)
            .cloned()
            .collect();
        if person.iter().any(|id| known.behind.contains(id)) {
            return Err(format!("`{who}` voted on a request of their own"));
        }
        if vote.reviewer.agent {
            return Err(format!("`{who}` is an agent, and its vote was counted"));
        }
        let entitled = known
            .hold
            .reviewers
            .iter()
            .any(|reviewers| match reviewers {
                Reviewers::Group(group) => vote.reviewer.groups.contains(group),
                // The configuration's short name for the issuer is not in the record.
                Reviewers::Person { subject, .. } => *subject == vote.reviewer.identity.subject,
            });
        if !entitled {
            return Err(format!(
                "`{who}` is not among the reviewers of rule `{}`",
                known.rule
            ));
        }
        match vote.verdict {
            Verdict::Deny => known.denied = true,
            Verdict::Approve => known.add(person),
        }
        Ok(())
    }

    pub(super) fn settled(
        &mut self,
        approval: &ApprovalId,
        state: &str,
        by: &[Identity],
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
        let known = self
            .live
            .get_mut(approval)
            .ok_or_else(|| format!("approval {approval} was approved, but was not pending"))?;
        let (have, need) = (known.people.len(), known.hold.quorum.max(1));
        known.approved = true;
        if known.denied {
            return Err(format!("approval {approval} was approved after a denial"));
        }
        if have < need as usize {
            return Err(format!(
                "approval {approval} was approved by {have} of {need} people"
            ));
        }
        if let Some(stranger) = by
            .iter()
            .find(|id| !known.people.iter().any(|person| person.contains(id)))
        {
            return Err(format!(
                "approval {approval} names `{}` as approver, whose vote is not recorded",
                stranger.subject
            ));
        }
        let limit = u64::try_from(known.hold.expires_in.as_nanos()).unwrap_or(u64::MAX);
        let late = known.opened.0 != at.0
            || at.1.saturating_sub(known.opened.1) > limit.saturating_add(SLACK_NS);
        if late {
            return Err(format!("approval {approval} was approved after its time"));
        }
        Ok(())
    }

    pub(super) fn forward(
        &mut self,
        command: CommandId,
        approval: &ApprovalId,
        digest: &Digest,
        commands: &mut Commands,
    ) -> Checked {
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
        if hold.quorum != draft.hold.quorum || hold.reviewers != draft.hold.reviewers {
            return Err(format!(
                "approval {} asks for other reviewers than the decision on command {id}",
                draft.id
            ));
        }
        Ok(())
    }

    /// One person once, under whichever of their names.
    fn add(&mut self, person: Vec<Identity>) {
        let (same, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.people)
            .into_iter()
            .partition(|known| known.iter().any(|id| person.contains(id)));
        self.people = others;
        let mut merged: Vec<Identity> = same.into_iter().flatten().collect();
        merged.extend(person);
        self.people.push(merged);
    }
}
