//! What the requester says for a command, where its rule asks.

use holdpoint_core::Now;
use holdpoint_core::approval::JustifyError;
use holdpoint_core::id::ApprovalId;
use holdpoint_core::principal::Identity;
use holdpoint_core::record::{Durability, Entry};

use super::slot::Slot;
use super::{Approvals, Explained, NotWritten};
use crate::notify::Message;

/// Why a justification was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JustifyRefused {
    #[error("there is no approval `{0}`, or it was settled long ago")]
    Unknown(ApprovalId),
    #[error(transparent)]
    Refused(#[from] JustifyError),
    #[error("the justification was not taken: {0}")]
    NotWritten(#[from] NotWritten),
    /// The node that owns the approval refused it.
    #[error("{}", .0.detail)]
    Elsewhere(Explained),
    /// It did not reach the node that owns the approval; it may be said again.
    #[error("the justification was not taken: {0}")]
    NotDelivered(String),
}

impl Approvals {
    /// Takes the requester's words. When this returns, they are in the journal.
    ///
    /// # Errors
    /// They were not taken.
    pub async fn justify(
        &self,
        id: &ApprovalId,
        by: Identity,
        text: String,
        now: Now,
    ) -> Result<(), JustifyRefused> {
        let Some(slot) = self.table().get(id) else {
            return Err(JustifyRefused::Unknown(id.clone()));
        };
        let this = self.clone();
        let task = self
            .0
            .runtime
            .spawn(async move { this.justify_now(&slot, by, text, now).await });
        task.await.unwrap_or_else(|error| {
            tracing::error!(approval.id = %id, %error, "taking a justification failed");
            Err(NotWritten("taking it failed, see the log".to_owned()).into())
        })
    }

    async fn justify_now(
        &self,
        slot: &Slot,
        by: Identity,
        text: String,
        now: Now,
    ) -> Result<(), JustifyRefused> {
        let mut cell = slot.cell.lock().await;
        if !cell.recorded {
            return Err(JustifyRefused::Unknown(slot.id.clone()));
        }
        let now = self.latest(now);
        cell.approval.judge_justification(&by, &text, now)?;
        let session = cell.approval.draft().session.clone();
        let entry = Entry::Justified {
            approval: slot.id.clone(),
            by: by.clone(),
            text: text.clone(),
        };
        self.record(Some(session), entry, Durability::Synced)
            .await?;
        cell.act().justify(&by, &text, now)?;
        self.announce(slot, &cell, Some(Message::Justified));
        Ok(())
    }
}
