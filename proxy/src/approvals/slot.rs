//! One live approval in memory: its state machine, who waits for it, and what
//! others see of it.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use holdpoint_core::Now;
use holdpoint_core::approval::{Approval, Draft};
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
    draft: Arc<Draft>,
    /// Lists of who is on call that its rule asks.
    pub(super) on_call: Vec<String>,
    /// Serialises everything that happens to this approval. Held while the
    /// journal is written, so that nothing comes between a vote being judged,
    /// written and applied.
    pub(super) cell: Arc<Mutex<Cell>>,
    /// What the world knows: changed only after the journal has it.
    pub(super) known: watch::Sender<Arc<Known>>,
}

/// A cell as it was when that was last published. Most approvals are never looked at
/// while they wait, and a view is many times as big: it is made for whoever asks.
pub(crate) struct Known {
    pub(crate) approval: Arc<Approval>,
    times: Times,
    waiting: usize,
    deliveries: Arc<[Delivery]>,
    reviewed_by: Option<Identity>,
    head: Head,
}

impl Known {
    pub(crate) fn view(&self) -> View {
        View::of(
            &self.approval,
            self.times,
            self.waiting,
            &self.deliveries,
            self.reviewed_by.as_ref(),
            self.head,
        )
    }
}

/// What an approval was after a change. Thousands come, and few are looked at: the view is
/// made for the first who does.
#[derive(Clone)]
pub struct Change(Arc<Seen>);

enum Seen {
    Ours(Arc<Known>, OnceLock<Arc<View>>),
    /// Another node's.
    Theirs(Arc<View>),
}

impl Change {
    pub(super) fn of(known: Arc<Known>) -> Self {
        Self(Arc::new(Seen::Ours(known, OnceLock::new())))
    }

    pub fn view(&self) -> &Arc<View> {
        match &*self.0 {
            Seen::Ours(known, view) => view.get_or_init(|| Arc::new(known.view())),
            Seen::Theirs(view) => view,
        }
    }

    /// The approval's state, without a view: see [`View::state`].
    pub fn state(&self) -> &str {
        match &*self.0 {
            Seen::Ours(known, _) => known.approval.state().word(),
            Seen::Theirs(view) => &view.state,
        }
    }
}

impl From<Arc<View>> for Change {
    fn from(view: Arc<View>) -> Self {
        Self(Arc::new(Seen::Theirs(view)))
    }
}

pub(super) struct Cell {
    /// In common with what is known, while that says the same.
    pub(super) approval: Arc<Approval>,
    pub(super) sessions: BTreeSet<SessionId>,
    pub(super) deliveries: Arc<[Delivery]>,
    pub(super) times: Times,
    /// Who looked into a broken glass.
    pub(super) reviewed_by: Option<Identity>,
    /// False until the hold is in the journal; never true where that failed.
    pub(super) recorded: bool,
}

impl Slot {
    pub(super) fn new(approval: Approval, now: Now, head: Head) -> Self {
        let draft = Arc::clone(approval.draft());
        let cell = Cell {
            sessions: BTreeSet::from([draft.session.clone()]),
            deliveries: Arc::default(),
            times: Times::opened(now, draft.hold.expires_in),
            reviewed_by: None,
            recorded: false,
            approval: Arc::new(approval),
        };
        Self {
            id: draft.id.clone(),
            digest: draft.digest,
            on_call: lists(&draft.hold),
            known: watch::Sender::new(Arc::new(cell.known(head))),
            cell: Arc::new(Mutex::new(cell)),
            draft,
        }
    }

    /// What others see of it, all of it in the journal.
    pub(super) fn view(&self) -> Arc<View> {
        Arc::new(self.known.borrow().view())
    }

    pub(super) fn requester(&self) -> &Identity {
        &self.draft.principal.identity
    }
}

impl Cell {
    pub(super) fn known(&self, head: Head) -> Known {
        Known {
            approval: Arc::clone(&self.approval),
            times: self.times,
            waiting: self.sessions.len(),
            deliveries: Arc::clone(&self.deliveries),
            reviewed_by: self.reviewed_by.clone(),
            head,
        }
    }

    /// For what is done to it once the journal has that.
    pub(super) fn act(&mut self) -> &mut Approval {
        Arc::make_mut(&mut self.approval)
    }

    /// Whether a command of another node, which asks for `draft`, may wait for it or have it.
    pub(super) fn covers(&self, draft: &Draft) -> bool {
        let own = self.approval.draft();
        self.approval.serves(draft)
            && own.policy == draft.policy
            && own.principal.behind().eq(draft.principal.behind())
    }

    pub(super) fn approved(&mut self, now: Now, ttl: std::time::Duration) {
        self.times.usable_until_ns = Some(later(now.wall_ns, ttl));
    }

    pub(super) fn delivered(&mut self, delivery: Delivery) {
        let same =
            |one: &Delivery| one.channel == delivery.channel && one.message == delivery.message;
        match self.deliveries.iter().position(same) {
            Some(at) => Arc::make_mut(&mut self.deliveries)[at] = delivery,
            None if self.deliveries.len() < MAX_DELIVERIES => {
                let before = self.deliveries.iter().cloned();
                self.deliveries = before.chain([delivery]).collect();
            }
            None => {}
        }
    }
}
