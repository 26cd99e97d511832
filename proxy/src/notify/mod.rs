//! Tells reviewers; never decides.
//!
//! A bounded queue carries what happened to one task, which hands it to each
//! channel. A channel that is slow or down costs its own messages and nothing
//! else; what became of each is shown with its approval and is in the journal.

pub(crate) mod webhook;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdpoint_core::id::{ApprovalId, Digest, FieldHasher, SessionId};
use holdpoint_core::record::{Durability, Entry};
use tokio::sync::{Semaphore, mpsc};

pub use webhook::{WebhookError, WebhookSender};

use crate::approvals::{Approvals, Delivery, View};
use crate::recorder::now;

/// Messages that wait to be handed to channels.
const QUEUE: usize = 1_024;

/// What is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    Pending,
    /// The next step is asked.
    Step,
    /// More people may decide the step.
    Escalated,
    /// The requester said why: it can be approved now.
    Justified,
    Settled,
    /// An alarm: a command goes without its reviewers.
    BrokenGlass,
    /// Somebody looked into that.
    Reviewed,
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
        }
    }

    /// Whether it asks for a decision: no use once there is one.
    pub fn asks(self) -> bool {
        matches!(
            self,
            Self::Pending | Self::Step | Self::Escalated | Self::Justified
        )
    }
}

/// Something that reviewers should know.
#[derive(Debug, Clone)]
pub struct Notice {
    pub message: Message,
    pub approval: ApprovalId,
    /// The session that asked first.
    pub session: SessionId,
    pub view: Arc<View>,
}

/// The queue between [`crate::approvals::Approvals`] and [`spawn`].
pub fn channel() -> (mpsc::Sender<Notice>, mpsc::Receiver<Notice>) {
    mpsc::channel(QUEUE)
}

/// Attempts at one message, the pauses between them doubling from a second.
const ATTEMPTS: u32 = 8;
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Messages under way to one channel; past it the next ones wait in the queue.
const PER_CHANNEL: usize = 32;

/// Delivers what comes out of `inbox` until its senders are gone.
///
/// `public_url` is the base of the links in messages.
pub fn spawn(
    mut inbox: mpsc::Receiver<Notice>,
    senders: Vec<WebhookSender>,
    public_url: Option<String>,
    approvals: Approvals,
) -> tokio::task::JoinHandle<()> {
    let channels: Vec<_> = senders
        .into_iter()
        .map(|sender| (Arc::new(sender), Arc::new(Semaphore::new(PER_CHANNEL))))
        .collect();
    tokio::spawn(async move {
        while let Some(notice) = inbox.recv().await {
            let body = match webhook::body(&notice, public_url.as_deref(), now().wall_ns) {
                Ok(body) => body,
                Err(error) => {
                    tracing::error!(approval.id = %notice.approval, %error, "no message made");
                    continue;
                }
            };
            for (sender, room) in &channels {
                let sender = Arc::clone(sender);
                let (room, approvals) = (Arc::clone(room), approvals.clone());
                let (notice, body) = (notice.clone(), body.clone());
                // One task a message and channel: bounded by what is pending.
                tokio::spawn(async move {
                    let Ok(_turn) = room.acquire_owned().await else {
                        return;
                    };
                    deliver(&sender, &notice, &body, &approvals).await;
                });
            }
        }
    })
}

async fn deliver(sender: &WebhookSender, notice: &Notice, body: &Bytes, approvals: &Approvals) {
    let id = message_id(notice, &sender.name);
    let mut attempts = 0;
    let mut pause = Duration::from_secs(1);
    let error = loop {
        attempts += 1;
        let error = match sender.send(&id, body, now().unix()).await {
            Ok(()) => break None,
            Err(error) => error,
        };
        tracing::warn!(
            approval.id = %notice.approval, channel = sender.name, attempts, %error,
            "a message to reviewers was not accepted"
        );
        if attempts >= ATTEMPTS || !error.passing() {
            break Some(error.to_string());
        }
        report(
            approvals,
            notice,
            &sender.name,
            attempts,
            Some(error.to_string()),
        )
        .await;
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(MAX_PAUSE);
        let decided = approvals
            .get(&notice.approval)
            .is_none_or(|view| view.is_decided());
        if notice.message.asks() && decided {
            break Some("decided before it could be delivered".to_owned());
        }
    };
    let entry = Entry::Notified {
        approval: notice.approval.clone(),
        channel: sender.name.clone(),
        shown: Digest::of(body),
        accepted: error.is_none(),
    };
    let session = Some(notice.session.clone());
    if let Err(error) = approvals.record(session, entry, Durability::Written).await {
        tracing::error!(approval.id = %notice.approval, %error, "a delivery is not in the journal");
    }
    report(approvals, notice, &sender.name, attempts, error).await;
}

async fn report(
    approvals: &Approvals,
    notice: &Notice,
    channel: &str,
    attempts: u32,
    error: Option<String>,
) {
    let delivery = Delivery {
        channel: channel.to_owned(),
        message: notice.message.word().to_owned(),
        attempts,
        accepted: error.is_none(),
        error,
    };
    approvals.delivered(&notice.approval, delivery).await;
}

/// One message to one channel, whatever the attempt.
fn message_id(notice: &Notice, channel: &str) -> String {
    let mut hasher = FieldHasher::new("holdpoint.message.v1");
    hasher
        .field(notice.approval.as_str().as_bytes())
        .field(notice.message.word().as_bytes())
        .field(channel.as_bytes());
    // Each step is asked, and may be widened, once.
    if matches!(notice.message, Message::Step | Message::Escalated) {
        hasher.field(&notice.view.step.to_be_bytes());
    }
    format!("msg_{}", &hasher.finish().to_string()[..32])
}
