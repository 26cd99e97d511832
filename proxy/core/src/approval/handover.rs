//! An approval that another node gives to this one: its owner's word that one command
//! here may use it, and nothing there may any more. Of an approval that opened a window
//! the owner gives one use after the other.

use serde::{Deserialize, Serialize};

use super::Draft;
use crate::id::{ApprovalId, CommandId, Digest, SessionId};
use crate::principal::Identity;

/// What the owner of an approval says when it gives it to another node. Signed by its
/// journal's key, so that nobody else can say it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandOver {
    pub approval: ApprovalId,
    /// The node that it is given to, and the only command there that may use it.
    pub to: String,
    pub session: SessionId,
    pub command: CommandId,
    pub digest: Digest,
    /// The rule under which it was approved. With the digest, which names the version of
    /// the rules, it says what was asked of the reviewers.
    pub rule: String,
    /// Who approved it; their votes are in the owner's journal.
    pub by: Vec<Identity>,
    /// Which use of its window this is, from 1; without it, the approval's own single use.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub window: Option<u64>,
}

impl HandOver {
    /// Whether it is for this very command.
    pub fn is_for(&self, node: &str, draft: &Draft) -> bool {
        self.to == node
            && self.session == draft.session
            && self.command == draft.command
            && self.digest == draft.digest
            && self.rule == draft.rule
            && !self.by.is_empty()
    }
}
