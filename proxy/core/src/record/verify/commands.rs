//! The commands of one session, from their decision to their end.

use std::collections::BTreeMap;

use super::linkage::Checked;
use crate::decision::{Hold, Outcome};
use crate::id::{ApprovalId, CommandId, Digest};
use crate::principal::{Identity, Principal};
use crate::record::CommandEntry;

/// A session's commands that have no end yet.
#[derive(Debug)]
pub(super) struct Commands {
    pub(super) behind: Vec<Identity>,
    last: u64,
    count: u64,
    pub(super) unfinished: BTreeMap<CommandId, Command>,
}

#[derive(Debug)]
pub(super) struct Command {
    pub(super) digest: Digest,
    /// That decided it, where it is held.
    pub(super) rule: String,
    pub(super) stage: Stage,
    /// The window of which it has a turn.
    pub(super) claimed: Option<ApprovalId>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Allowed,
    Held(Box<Hold>),
    Forwarded,
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
