//! One live approval in memory: its state machine, who waits for it, and what
//! others see of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use holdpoint_core::Now;
use holdpoint_core::approval::{Approval, Draft, State};
use holdpoint_core::id::{ApprovalId, Digest, SessionId};
use holdpoint_core::principal::Identity;
use tokio::sync::{Mutex, watch};

use super::on_call::lists;
use super::view::{Delivery, Times, View, later};
use crate::recorder::Head;

/// Messages about one approval whose fate is kept.
const MAX_DELIVERIES: usize = 32;

/// Shared by everyone who looks at one approval. What never changes is outside
/// of the cell, so that the table can be kept without waiting for it.
pub(super) struct Slot {
    pub(super) id: ApprovalId,
    pub(super) digest: Digest,
    pub(super) requester: Identity,
    /// Lists of who is on call that its rule asks.
    pub(super) on_call: Vec<String>,
    /// Serialises everything that happens to this approval. Held while the
    /// journal is written, so that nothing comes between a vote being judged,
    /// written and applied.
    pub(super) cell: Arc<Mutex<Cell>>,
    /// What the world knows: changed only after the journal has it.
    pub(super) known: watch::Sender<Known>,
}

#[derive(Clone)]
pub(crate) struct Known {
    pub(crate) state: State,
    pub(crate) view: Arc<View>,
}

pub(super) struct Cell {
    pub(super) approval: Approval,
    pub(super) sessions: BTreeSet<SessionId>,
    pub(super) deliveries: Vec<Delivery>,
    pub(super) times: Times,
    /// Who looked into a broken glass.
    pub(super) reviewed_by: Option<Identity>,
    /// False until the hold is in the journal; never true where that failed.
    pub(super) recorded: bool,
}

impl Slot {
    pub(super) fn new(draft: Draft, approval: Approval, now: Now, head: Head) -> Self {
        let times = Times::opened(now, draft.hold.expires_in);
        let sessions = BTreeSet::from([draft.session.clone()]);
        let known = Known {
            state: State::Pending,
            view: Arc::new(View::of(&approval, times, sessions.len(), &[], None, head)),
        };
        Self {
            id: draft.id,
            digest: draft.digest,
            on_call: lists(&draft.hold),
            requester: draft.principal.identity,
            cell: Arc::new(Mutex::new(Cell {
                approval,
                sessions,
                deliveries: Vec::new(),
                times,
                reviewed_by: None,
                recorded: false,
            })),
            known: watch::Sender::new(known),
        }
    }

    /// Shows the world what the cell holds.
    pub(super) fn publish(&self, cell: &Cell, head: Head) -> Arc<View> {
        let view = Arc::new(View::of(
            &cell.approval,
            cell.times,
            cell.sessions.len(),
            &cell.deliveries,
            cell.reviewed_by.as_ref(),
            head,
        ));
        self.known.send_replace(Known {
            state: cell.approval.state().clone(),
            view: Arc::clone(&view),
        });
        view
    }

    pub(super) fn view(&self) -> Arc<View> {
        Arc::clone(&self.known.borrow().view)
    }
}

impl Cell {
    pub(super) fn approved(&mut self, now: Now, ttl: std::time::Duration) {
        self.times.usable_until_ns = Some(later(now.wall_ns, ttl));
    }

    pub(super) fn delivered(&mut self, delivery: Delivery) {
        let same =
            |one: &Delivery| one.channel == delivery.channel && one.message == delivery.message;
        match self.deliveries.iter().position(same) {
            Some(at) => self.deliveries[at] = delivery,
            None if self.deliveries.len() < MAX_DELIVERIES => self.deliveries.push(delivery),
            None => {}
        }
    }
}
