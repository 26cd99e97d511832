//! The one command that is not decided yet, and how far it has come.

use crate::command::Command;
use crate::decision::Decision;
use crate::denial::Denial;
use crate::id::{ApprovalId, CommandId, Digest};

pub(super) struct Undecided {
    pub(super) id: CommandId,
    pub(super) command: Box<Command>,
    pub(super) digest: Digest,
    /// Version of the rules that are part of `digest`.
    pub(super) policy: String,
    pub(super) decision: Decision,
    /// Names the approval, should it need one.
    pub(super) random: u128,
    pub(super) stage: Stage,
    /// The approval whose settlement this session waits for, to be left on giving up.
    pub(super) waits_for: Option<ApprovalId>,
    /// The approval that was used up for it.
    pub(super) released_by: Option<ApprovalId>,
}

/// A command moves downwards only, or to a refusal.
pub(super) enum Stage {
    /// Until the records are durable; then the next step.
    Recording(Next),
    /// Until [`super::Input::Opened`].
    Opening,
    /// Until reviewers, the clock or the client end it.
    Holding(Holding),
    /// Until [`super::Input::Claimed`].
    Claiming(ApprovalId),
    /// Its permit is made when the driver takes it out.
    Ready,
}

pub(super) enum Next {
    Open,
    Forward,
    Refuse(Denial),
}

/// Instants are monotonic nanoseconds.
#[derive(Clone)]
pub(super) struct Holding {
    pub(super) approval: ApprovalId,
    /// Of the decision.
    pub(super) expires: u64,
    /// Of the client's patience.
    pub(super) inline_end: u64,
    pub(super) next_notice: Option<u64>,
}

impl Undecided {
    pub(super) fn is_ready(&self) -> bool {
        matches!(self.stage, Stage::Ready)
    }

    pub(super) fn is_refused(&self) -> bool {
        matches!(self.stage, Stage::Recording(Next::Refuse(_)))
    }

    pub(super) fn deadline(&self) -> Option<u64> {
        match &self.stage {
            Stage::Holding(hold) => {
                let end = hold.expires.min(hold.inline_end);
                Some(hold.next_notice.map_or(end, |notice| end.min(notice)))
            }
            _ => None,
        }
    }
}
