//! A session that waits for an approval.

use std::sync::Arc;

use holdpoint_core::approval::{Draft, State};
use holdpoint_core::gate::Settlement;
use holdpoint_core::id::{ApprovalId, SessionId};
use tokio::sync::watch;

use super::Approvals;
use super::slot::{Known, Slot};

/// Waits for one approval on behalf of one session.
///
/// Dropped before it has told a settlement, it leaves without a grant: an
/// approval that nobody else waits for is withdrawn.
pub struct Waiter {
    approvals: Approvals,
    id: ApprovalId,
    session: SessionId,
    at: At,
    told: bool,
}

enum At {
    Here(watch::Receiver<Arc<Known>>),
    /// At another node; what was asked for here.
    Away(Box<Draft>),
}

impl Waiter {
    pub(super) fn new(approvals: Approvals, slot: &Arc<Slot>, session: SessionId) -> Self {
        Self {
            approvals,
            id: slot.id.clone(),
            session,
            at: At::Here(slot.known.subscribe()),
            told: false,
        }
    }

    /// For an approval of another node.
    pub(super) fn away(approvals: Approvals, id: ApprovalId, draft: Draft) -> Self {
        Self {
            approvals,
            id,
            session: draft.session.clone(),
            at: At::Away(Box::new(draft)),
            told: false,
        }
    }

    pub fn approval(&self) -> &ApprovalId {
        &self.id
    }

    /// Resolves once the reviewers' part is over. May be dropped and called again.
    pub async fn settled(&mut self) -> Settlement {
        let settlement = match &mut self.at {
            At::Away(draft) => self.approvals.settled_away(&self.id, draft).await,
            At::Here(known) => match known
                .wait_for(|known| *known.approval.state() != State::Pending)
                .await
            {
                Ok(known) => settlement(known.approval.state()),
                // The slot is gone, which takes the service with it.
                Err(_) => Settlement::Orphaned,
            },
        };
        self.told = true;
        settlement
    }

    /// Leaves, see [`Approvals::leave`].
    pub async fn leave(mut self, grant: bool) {
        self.told = true;
        self.approvals.leave(&self.id, &self.session, grant).await;
    }

    /// Somebody else sees to leaving: the driver, by [`Approvals::leave`].
    pub fn disarm(&mut self) {
        self.told = true;
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if self.told {
            return;
        }
        let (approvals, id) = (self.approvals.clone(), self.id.clone());
        let session = self.session.clone();
        let runtime = approvals.0.runtime.clone();
        runtime.spawn(async move { approvals.leave(&id, &session, false).await });
    }
}

fn settlement(state: &State) -> Settlement {
    match state {
        State::Approved { .. } | State::Used { .. } => Settlement::Approved,
        State::Denied { by, label, reason } => Settlement::Denied {
            by: by.clone(),
            label: label.clone(),
            reason: reason.clone(),
        },
        State::Orphaned => Settlement::Orphaned,
        State::Revoked => Settlement::Revoked,
        // Withdrawn only where nobody waits; whoever still asks gets no.
        State::Pending | State::Expired | State::Withdrawn => Settlement::Expired,
    }
}
