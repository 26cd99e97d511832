//! Tells reviewers; never decides.
//!
//! A bounded queue carries what happened to one task, which hands it to each
//! channel. A channel that is slow or down costs its own messages and nothing
//! else; what became of each is shown with its approval and is in the journal, and what was given
//! up is listed for operators.
//!
//! [`Channel`] is the contract that all of them keep, one battery of tests holds them to it. What
//! people read is made in [`card`] once; a channel adds its own markup, and escapes what would be
//! taken for such.

mod aside;
mod card;
mod channel;
mod deliver;
mod email;
mod log;
#[cfg(test)]
mod mail_tests;
mod pagerduty;
pub(crate) mod slack;
mod teams;
pub(crate) mod webhook;

#[cfg(test)]
mod battery;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use holdpoint_core::id::{ApprovalId, SessionId};
use tokio::sync::mpsc;

pub use channel::{Channel, ChannelError, Channels};
pub use deliver::spawn;
pub use log::{ChannelState, Log, Undelivered};

use crate::approvals::{Change, View};

/// Messages that wait to be handed to channels.
const QUEUE: usize = 1_024;

/// What is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// Somebody has to decide. The first of an approval.
    Pending,
    /// The next step is asked.
    Step,
    /// More people may decide the step.
    Escalated,
    /// The requester said why: it can be approved now.
    Justified,
    /// Reviewers' part is over: decided, expired, withdrawn, revoked or orphaned. There may be
    /// two of an approval: one that was approved can still expire unused.
    Settled,
    /// An alarm: a command goes without its reviewers.
    BrokenGlass,
    /// Somebody looked into that.
    Reviewed,
    /// Nobody waits for it any more, but whoever asked may come back: it is still asked.
    Left,
    /// What was approved was sent at once.
    Used,
    /// What was approved was sent later, when whoever asked came back; here or at another node.
    UsedLater,
}

impl Message {
    pub fn word(self) -> &'static str {
        match self {
            Self::Pending => "approval.pending",
            Self::Step => "approval.step",
            Self::Escalated => "approval.escalated",
            Self::Justified => "approval.justified",
            Self::BrokenGlass => "approval.break_glass",
            Self::Reviewed => "approval.reviewed",
            Self::Settled => "approval.settled",
            Self::Left => "approval.left",
            Self::Used | Self::UsedLater => "approval.used",
        }
    }

    /// Whether it asks for a decision: no use once there is one.
    pub fn asks(self) -> bool {
        matches!(
            self,
            Self::Pending | Self::Step | Self::Escalated | Self::Justified | Self::Left
        )
    }

    /// Whether it says no more than how things stand with what was told before: no use where
    /// nothing was, and no decision is asked by it that was not asked then.
    pub fn follows(self) -> bool {
        matches!(self, Self::Left | Self::Used | Self::UsedLater)
    }
}

/// Something that reviewers should know.
#[derive(Clone)]
pub struct Notice {
    pub message: Message,
    pub approval: ApprovalId,
    /// The session that asked first.
    pub session: SessionId,
    /// What the approval was then.
    pub about: Change,
}

impl Notice {
    /// Made by the first who looks: thousands may wait, and each would be a few KiB.
    pub fn view(&self) -> &View {
        self.about.view()
    }
}

/// Where notices are put. Never waits.
#[derive(Clone)]
pub struct Queue {
    sender: mpsc::Sender<Notice>,
    log: Arc<Log>,
}

/// The other end, for [`spawn`].
pub struct Inbox {
    receiver: mpsc::Receiver<Notice>,
    log: Arc<Log>,
}

impl Queue {
    /// What does not fit is given up, and listed as that.
    pub fn tell(&self, notice: Notice) {
        self.log.queued();
        if let Err(error) = self.sender.try_send(notice) {
            self.log.handed();
            let notice = error.into_inner();
            tracing::error!(
                approval.id = %notice.approval,
                "reviewers are not told: too many messages wait"
            );
            self.log.lost(&notice);
        }
    }

    pub fn log(&self) -> Arc<Log> {
        Arc::clone(&self.log)
    }
}

#[cfg(test)]
impl Inbox {
    pub(crate) fn try_recv(&mut self) -> Result<Notice, mpsc::error::TryRecvError> {
        self.receiver.try_recv()
    }
}

/// The queue between [`crate::approvals::Approvals`] and [`spawn`].
pub fn channel() -> (Queue, Inbox) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let log = Arc::new(Log::default());
    let queue = Queue {
        sender,
        log: Arc::clone(&log),
    };
    (queue, Inbox { receiver, log })
}
