//! An approval that went from one node to another: used at one of them, once.
//!
//! The votes are in the journal of the node that gave it; here its signature stands for
//! them. Whose key that is, and that its journal says `given`, is for whoever has both.

use super::{Approvals, Checked, Commands, Known, Stage};
use crate::approval::HandOver;
use crate::id::SessionId;
use crate::record::Taken;

impl Approvals {
    /// Nothing here may use it any more.
    pub(in crate::record::verify) fn given(&mut self, word: &HandOver) -> Checked {
        let id = &word.approval;
        let known = match self.live.remove(id) {
            Some(known) => known,
            None if self.used.contains(id) => {
                return Err(format!(
                    "approval {id} was given to node `{}` after it was used",
                    word.to
                ));
            }
            None => {
                return Err(format!(
                    "approval {id} was given to node `{}`, and is not open",
                    word.to
                ));
            }
        };
        self.used.insert(id.clone());
        if !known.approved {
            return Err(format!(
                "approval {id} was given to node `{}` before it was approved",
                word.to
            ));
        }
        if known.digest != word.digest || known.rule != word.rule {
            return Err(format!(
                "approval {id} was given to node `{}` for another command",
                word.to
            ));
        }
        Ok(())
    }

    /// A session of `node` may use it, once.
    pub(in crate::record::verify) fn taken(
        &mut self,
        taken: &Taken,
        (node, session): (&str, &SessionId),
        commands: &Commands,
        at: (u64, u64),
    ) -> Checked {
        let word = &taken.word;
        let (id, from) = (&word.approval, &taken.from);
        if self.used.contains(id) || self.live.contains_key(id) {
            return Err(format!(
                "approval {id} of node `{from}` was taken over a second time, or is our own"
            ));
        }
        let Some(command) = commands.unfinished.get(&word.command) else {
            return Err(format!(
                "approval {id} of node `{from}` was taken over for command {}, which is not open",
                word.command
            ));
        };
        let Stage::Held(hold) = &command.stage else {
            return Err(format!(
                "approval {id} of node `{from}` was taken over for command {}, which is not held",
                word.command
            ));
        };
        // Counted as open from here on, so that a use of it is found once.
        let known = Known {
            digest: word.digest,
            behind: commands.behind.clone(),
            hold: (**hold).clone(),
            rule: word.rule.clone(),
            session: session.clone(),
            opened: at,
            step: 0,
            since: at,
            escalated: false,
            justified: false,
            approvals: Vec::new(),
            turn: 0,
            broken: None,
            denied: false,
            approved: true,
        };
        self.live.insert(id.clone(), known);
        match Taken::read(from, &taken.key, &taken.note) {
            Err(why) => {
                return Err(format!(
                    "node `{from}` did not give approval {id} to anybody: {why}"
                ));
            }
            Ok(said) if said.word != *word => {
                return Err(format!(
                    "node `{from}` gave approval {id} otherwise than is written"
                ));
            }
            Ok(_) => {}
        }
        if word.to != node || word.session != *session {
            return Err(format!(
                "node `{from}` gave approval {id} to another node or session"
            ));
        }
        if word.digest != command.digest || word.rule != command.rule {
            return Err(format!(
                "node `{from}` gave approval {id} for another command"
            ));
        }
        if word.by.is_empty() || word.by.iter().any(|who| commands.behind.contains(who)) {
            return Err(format!(
                "approval {id} of node `{from}` was approved by nobody, or by who asked"
            ));
        }
        Ok(())
    }
}
