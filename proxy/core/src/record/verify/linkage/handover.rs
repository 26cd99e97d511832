//! An approval that went from one node to another: used at one of them, once. Of a window,
//! each use that went is counted where it was opened, and used once where it went.
//!
//! The votes are in the journal of the node that gave it; here its signature stands for
//! them. Whose key that is, and that its journal says `given`, is for whoever has both.

use super::{Approvals, Checked, Commands, Known, Stage};
use crate::approval::HandOver;
use crate::id::SessionId;
use crate::record::Taken;

impl Approvals {
    /// Nothing here may use it any more.
    pub(in crate::record::verify) fn given(&mut self, word: &HandOver, at: (u64, u64)) -> Checked {
        let id = &word.approval;
        if let Some(number) = word.window {
            return self.turn_given(word, number, at);
        }
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

    fn turn_given(&mut self, word: &HandOver, number: u64, at: (u64, u64)) -> Checked {
        let (id, to) = (&word.approval, &word.to);
        let Some(window) = self.windows.get_mut(id) else {
            return Err(format!(
                "node `{to}` was given a use of the window of approval {id}, which is not open"
            ));
        };
        window.claims += 1;
        if window.digest != word.digest || window.rule != word.rule {
            return Err(format!(
                "node `{to}` was given a use of the window of approval {id} for another command"
            ));
        }
        if window.reach.session.is_some() || window.is_late(at) {
            return Err(format!(
                "node `{to}` was given a use of the window of approval {id} after its end, or \
                 of one that is for a session here"
            ));
        }
        if number != window.claims {
            return Err(format!(
                "claim {number} of the window of approval {id} stands where {} should",
                window.claims
            ));
        }
        Ok(())
    }

    /// A session of `node` may use it, once.
    pub(in crate::record::verify) fn taken(
        &mut self,
        taken: &Taken,
        (node, session): (&str, &SessionId),
        commands: &mut Commands,
        at: (u64, u64),
    ) -> Checked {
        let word = &taken.word;
        let (id, from) = (&word.approval, &taken.from);
        if let Some(number) = word.window {
            let new = self.turns.insert((id.clone(), number));
            if !new || self.windows.contains_key(id) {
                return Err(format!(
                    "use {number} of the window of approval {id} of node `{from}` was taken over \
                     a second time, or the window is our own"
                ));
            }
        } else if self.used.contains(id) || self.live.contains_key(id) {
            return Err(format!(
                "approval {id} of node `{from}` was taken over a second time, or is our own"
            ));
        }
        let behind = &commands.behind;
        let Some(command) = commands.unfinished.get_mut(&word.command) else {
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
            behind: behind.clone(),
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
        if word.window.is_none() {
            self.live.insert(id.clone(), known);
        } else if command.claimed.replace(id.clone()).is_some() {
            return Err(format!("command {} claimed twice", word.command));
        }
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
        if word.by.is_empty() || word.by.iter().any(|who| behind.contains(who)) {
            return Err(format!(
                "approval {id} of node `{from}` was approved by nobody, or by who asked"
            ));
        }
        Ok(())
    }
}
