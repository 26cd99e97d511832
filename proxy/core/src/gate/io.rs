//! What goes into the gate and what comes out of it.

use std::sync::Arc;

use super::Permit;
use crate::approval::{ClaimError, Clearance, Draft};
use crate::command::Command;
use crate::denial::Denial;
use crate::id::{ApprovalId, CommandId};
use crate::plugin::Completion;
use crate::policy::Judge;
use crate::principal::Identity;
use crate::record::{Durability, NewRecord};

/// What the driver tells the gate.
pub enum Input {
    /// The client's next command; refused as `Busy` while another is undecided.
    /// `random` names its approval, should it need one.
    Submitted { command: Box<Command>, random: u128 },
    /// Every record asked for so far is at its durability: not only the newest,
    /// since a later one may have asked for less than an earlier one.
    Recorded,
    /// The answer to [`Action::Open`]; answers come in the order of the questions.
    Opened(Opened),
    /// The approval that the command waits for was settled. Not for an approval
    /// that was left, see [`Action::Leave`].
    Settled(Settlement),
    /// The answer to [`Action::Claim`]; answers come in the order of the questions.
    Claimed(Result<Clearance, ClaimError>),
    /// The permit's bytes are with the kernel.
    Sent,
    /// The target's answer to the oldest forwarded commands.
    Completed(Completion),
    /// The client left, cancelled, or the session must end. The undecided
    /// command is never forwarded.
    Withdrawn { reason: Withdrawal },
    /// The rules changed.
    Rules(Arc<dyn Judge>),
    /// The time may have come for [`super::Gate::deadline`].
    Tick,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// Wait for [`Input::Settled`]. `joined`: it was pending already.
    Waiting {
        approval: ApprovalId,
        joined: bool,
        expires_mono_ns: u64,
    },
    /// A grant of an earlier approval covers it: claim this one.
    Granted(ApprovalId),
    Refused(Denial),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    Approved,
    Denied {
        by: Identity,
        label: String,
        reason: String,
    },
    Expired,
    /// The owner is going away.
    Orphaned,
    Revoked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withdrawal {
    ClientGone,
    Cancelled,
    Revoked,
    Shutdown,
}

impl Withdrawal {
    /// Whether the session goes on.
    pub(super) fn ends_session(self) -> bool {
        self != Self::Cancelled
    }

    /// Whether an approval that is still open may turn into a grant: the agent
    /// that lost its connection may come back, one that cancelled did not want it.
    pub(super) fn keeps_grant(self) -> bool {
        self == Self::ClientGone
    }
}

/// What the gate asks of the driver, in order.
pub enum Action {
    /// Write it; answer [`Input::Recorded`] once all records asked for are durable.
    Record(Box<NewRecord>, Durability),
    /// Open the approval, or join the pending one with its digest; answer [`Input::Opened`].
    Open(Box<Draft>),
    /// Use the approval up; answer [`Input::Claimed`].
    Claim(ApprovalId),
    /// This session no longer waits for it. `grant`: it stays open, and an
    /// approval that comes later (or came already) lets the identical command
    /// pass once. Otherwise it is withdrawn, unless another session waits for it.
    Leave { approval: ApprovalId, grant: bool },
    /// Send upstream; answer [`Input::Sent`].
    Forward(Permit),
    /// Tell the plugin that the undecided command is refused.
    Refuse(CommandId, Denial),
    /// Show the client, where its protocol can.
    Notice(String),
}

/// The driver broke the gate's contract, or the target answered what was not
/// asked. The session has to end; nothing more is forwarded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GateError {
    #[error("a command was submitted while another is undecided")]
    Busy,
    #[error("a command was submitted after the session ended")]
    Ended,
    #[error("`{0}` answers nothing that the gate asked")]
    Unasked(&'static str),
    #[error("the target completed {got} commands, but {outstanding} were sent")]
    Completion { got: u32, outstanding: usize },
}
