//! Which approvals there are. Memory only: the journal is the ledger, and after
//! a restart nothing that was held is resumed.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use holdpoint_core::id::{ApprovalId, Digest};
use holdpoint_core::principal::Identity;

use super::slot::Slot;

/// Settled approvals that can still be looked at; the oldest goes first.
const KEEP_SETTLED: usize = 1_000;

/// Sticky denials; past it the one that ends soonest goes. Each took a person
/// to make, so a flood of commands cannot push them out.
const MAX_DENIALS: usize = 10_000;

/// Over which withdrawals are counted, in nanoseconds.
const MINUTE: u64 = 60_000_000_000;

/// Principals of whom withdrawals are kept; past it those of older minutes go.
const MAX_WITHDRAWERS: usize = 1_000;

#[derive(Default)]
pub(super) struct Table {
    slots: HashMap<ApprovalId, Arc<Slot>>,
    /// Pending and approved ones.
    live: HashMap<Digest, Vec<Arc<Slot>>>,
    pending: BTreeSet<ApprovalId>,
    per_principal: HashMap<Identity, usize>,
    settled: VecDeque<ApprovalId>,
    /// When [`super::Approvals::sweep`] has to look at which.
    due: BTreeSet<(u64, ApprovalId)>,
    denials: HashMap<Digest, Denied>,
    /// When a principal's minute began, and how many of theirs were withdrawn in it.
    withdrawn: HashMap<Identity, (u64, usize)>,
    pub(super) closed: bool,
}

/// A reviewer's no, which also answers the same command for a while.
#[derive(Clone)]
pub(super) struct Denied {
    pub(super) approval: ApprovalId,
    pub(super) until_mono_ns: u64,
    pub(super) label: String,
    pub(super) reason: String,
}

impl Table {
    pub(super) fn get(&self, id: &ApprovalId) -> Option<Arc<Slot>> {
        self.slots.get(id).cloned()
    }

    pub(super) fn all(&self) -> Vec<Arc<Slot>> {
        self.slots.values().cloned().collect()
    }

    pub(super) fn live(&self) -> Vec<Arc<Slot>> {
        self.live.values().flatten().cloned().collect()
    }

    pub(super) fn with_digest(&self, digest: &Digest) -> Vec<Arc<Slot>> {
        self.live.get(digest).cloned().unwrap_or_default()
    }

    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn pending_of(&self, principal: &Identity) -> usize {
        self.per_principal.get(principal).copied().unwrap_or(0)
    }

    /// Gives whether it is due sooner than all others.
    pub(super) fn insert(&mut self, slot: &Arc<Slot>, due: u64) -> bool {
        self.slots.insert(slot.id.clone(), Arc::clone(slot));
        self.live
            .entry(slot.digest)
            .or_default()
            .push(Arc::clone(slot));
        self.pending.insert(slot.id.clone());
        *self
            .per_principal
            .entry(slot.requester().clone())
            .or_default() += 1;
        self.due_at(due, &slot.id)
    }

    /// It no longer counts against the limits.
    pub(super) fn decided(&mut self, slot: &Slot) {
        if !self.pending.remove(&slot.id) {
            return;
        }
        if let Some(count) = self.per_principal.get_mut(slot.requester()) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.per_principal.remove(slot.requester());
            }
        }
    }

    /// The client gave up what reviewers have been asked already.
    pub(super) fn withdrew(&mut self, principal: &Identity, mono_ns: u64) {
        if self.withdrawn.len() >= MAX_WITHDRAWERS {
            self.withdrawn
                .retain(|_, (since, _)| mono_ns.saturating_sub(*since) < MINUTE);
        }
        let (since, count) = self
            .withdrawn
            .entry(principal.clone())
            .or_insert((mono_ns, 0));
        if mono_ns.saturating_sub(*since) >= MINUTE {
            (*since, *count) = (mono_ns, 0);
        }
        *count += 1;
    }

    /// How many of a principal's were withdrawn in the minute that is going on.
    pub(super) fn withdrawn_of(&self, principal: &Identity, mono_ns: u64) -> usize {
        match self.withdrawn.get(principal) {
            Some((since, count)) if mono_ns.saturating_sub(*since) < MINUTE => *count,
            _ => 0,
        }
    }

    /// It is in a terminal state.
    pub(super) fn settled(&mut self, slot: &Slot) {
        self.decided(slot);
        if !self.forget_live(slot) {
            return;
        }
        self.settled.push_back(slot.id.clone());
        while self.settled.len() > KEEP_SETTLED {
            if let Some(oldest) = self.settled.pop_front() {
                self.slots.remove(&oldest);
            }
        }
    }

    /// It was never recorded, so it never was.
    pub(super) fn remove(&mut self, slot: &Slot) {
        self.decided(slot);
        self.forget_live(slot);
        self.slots.remove(&slot.id);
    }

    fn forget_live(&mut self, slot: &Slot) -> bool {
        let Some(same) = self.live.get_mut(&slot.digest) else {
            return false;
        };
        let before = same.len();
        same.retain(|one| one.id != slot.id);
        let was = same.len() < before;
        if same.is_empty() {
            self.live.remove(&slot.digest);
        }
        was
    }

    /// Gives whether it is due sooner than all others.
    pub(super) fn due_at(&mut self, at: u64, id: &ApprovalId) -> bool {
        let sooner = self.next_due().is_none_or(|first| at < first);
        self.due.insert((at, id.clone()));
        sooner
    }

    pub(super) fn next_due(&self) -> Option<u64> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes out those whose time has come.
    pub(super) fn take_due(&mut self, mono_ns: u64) -> Vec<Arc<Slot>> {
        let mut ids = Vec::new();
        while let Some((at, id)) = self.due.pop_first() {
            if at > mono_ns {
                self.due.insert((at, id));
                break;
            }
            ids.push(id);
        }
        ids.iter().filter_map(|id| self.get(id)).collect()
    }

    pub(super) fn denied(&mut self, digest: Digest, denied: Denied) {
        if self.denials.len() >= MAX_DENIALS {
            let soonest = self.denials.iter().min_by_key(|(_, one)| one.until_mono_ns);
            if let Some(digest) = soonest.map(|(digest, _)| *digest) {
                self.denials.remove(&digest);
            }
        }
        self.denials.insert(digest, denied);
    }

    pub(super) fn denial(&mut self, digest: &Digest, mono_ns: u64) -> Option<Denied> {
        let denied = self.denials.get(digest)?.clone();
        if mono_ns >= denied.until_mono_ns {
            self.denials.remove(digest);
            return None;
        }
        Some(denied)
    }

    pub(super) fn forget_denials(&mut self, mono_ns: u64) {
        self.denials
            .retain(|_, denied| mono_ns < denied.until_mono_ns);
    }
}
