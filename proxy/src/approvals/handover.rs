//! An approval that was given where its client is no more: its owner hands it over to the
//! node that the client came back to.
//!
//! The owner writes that it is given away, and only then says so, signed by its journal's
//! key; from then on nothing there can use it. The other node writes that it took it, and
//! only then lets the one command use it. Between the two it may be lost: then nobody uses
//! it, and the command is held anew. An owner that is gone gives nothing.
//!
//! Limits: windows are not handed over, each use of one is counted in one journal.

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use holdpoint_core::Now;
use holdpoint_core::approval::{Approval, ClaimError, Clearance, Draft, HandOver, State};
use holdpoint_core::id::{ApprovalId, CommandId, Digest, SessionId};
use holdpoint_core::principal::Identity;
use holdpoint_core::record::{Durability, Entry, Taken};

use super::{Approvals, Later, VoteRefused};
use crate::notify::Message;

/// A claim follows at once; what was not claimed by then is over.
const UNCLAIMED: Duration = Duration::from_secs(60);

/// The approvals of other nodes.
pub trait Elsewhere: Send + Sync {
    /// An approval that another node gives to the command of `draft`, with its owner's
    /// word, whose signature is good.
    fn take<'a>(&'a self, draft: &'a Draft) -> Later<'a, Option<Taken>>;
}

/// Those that were taken over and not claimed yet.
pub(super) type TakenOver = BTreeMap<ApprovalId, Unclaimed>;

pub(super) struct Unclaimed {
    approval: Approval,
    until_mono_ns: u64,
}

impl Approvals {
    /// Where to look for an approval before a command is held; without it, nowhere.
    pub fn look_elsewhere(&self, node: &str, elsewhere: Arc<dyn Elsewhere>) {
        if self.0.elsewhere.set((node.to_owned(), elsewhere)).is_err() {
            tracing::error!("where other nodes' approvals are was set twice; the first stays");
        }
    }

    /// Gives an approval of this node to the command of `draft` at node `to`. When this
    /// returns the word, the journal has it, and nothing here can use the approval.
    ///
    /// # Errors
    /// There is none that covers the command, or somebody waits for it here.
    pub(crate) async fn give(
        &self,
        id: &ApprovalId,
        draft: Draft,
        to: &str,
    ) -> Result<HandOver, VoteRefused> {
        let (this, approval, to) = (self.clone(), id.clone(), to.to_owned());
        let task = self
            .0
            .runtime
            .spawn(async move { this.give_now(&approval, &draft, to).await });
        task.await.unwrap_or_else(|error| {
            tracing::error!(approval.id = %id, %error, "handing over an approval failed");
            Err(VoteRefused::Unknown(id.clone()))
        })
    }

    async fn give_now(
        &self,
        id: &ApprovalId,
        draft: &Draft,
        to: String,
    ) -> Result<HandOver, VoteRefused> {
        let missing = || VoteRefused::Unknown(id.clone());
        let slot = self.table().get(id).ok_or_else(missing)?;
        let mut cell = slot.cell.lock().await;
        let now = (self.0.clock)();
        let own = cell.approval.draft();
        let same = cell.approval.serves(draft)
            && own.policy == draft.policy
            && own.principal.behind().eq(draft.principal.behind());
        let free = cell.recorded && cell.sessions.is_empty();
        if !same || !free || cell.approval.claimable(&draft.digest, now).is_err() {
            return Err(missing());
        }
        let State::Approved { by } = cell.approval.state() else {
            return Err(missing());
        };
        let word = HandOver {
            approval: id.clone(),
            to,
            session: draft.session.clone(),
            command: draft.command,
            digest: draft.digest,
            rule: draft.rule.clone(),
            by: by.clone(),
        };
        let given = Entry::Given { word: word.clone() };
        if let Err(error) = self
            .record(Some(own.session.clone()), given, Durability::Synced)
            .await
        {
            // It may or may not lie there: nobody uses it any more.
            self.end_locked(&slot, &mut cell, State::Orphaned).await;
            return Err(error.into());
        }
        // Used up; what this gives is for nobody here.
        let used = cell
            .approval
            .claim(&draft.digest, &draft.session, draft.command, now);
        if used.is_err() {
            return Err(missing());
        }
        self.table().settled(&slot);
        tracing::info!(approval.id = %id, to = %word.to, "an approval is given to another node");
        self.announce(&slot, &cell, Some(Message::UsedLater));
        Ok(word)
    }

    /// Takes over an approval of another node for a command here, if one covers it.
    pub(super) async fn take_over(&self, draft: &Draft, now: Now) -> Option<ApprovalId> {
        let (node, elsewhere) = self.0.elsewhere.get()?;
        let taken = elsewhere.take(draft).await?;
        let id = taken.word.approval.clone();
        let now = self.latest(now);
        let Some(approval) = Approval::given(draft.clone(), node, &taken.word, now) else {
            tracing::error!(approval.id = %id, from = taken.from, "an approval was given to something else: not used");
            return None;
        };
        if self.table().get(&id).is_some() || self.taken().contains_key(&id) {
            tracing::error!(approval.id = %id, from = taken.from, "an approval was given that is ours: not used");
            return None;
        }
        let from = taken.from.clone();
        let entry = Entry::Taken(Box::new(taken));
        let session = Some(draft.session.clone());
        if let Err(error) = self.record(session, entry, Durability::Synced).await {
            tracing::error!(approval.id = %id, from, %error, "an approval of another node is lost: the journal does not take it");
            return None;
        }
        tracing::info!(approval.id = %id, from, "an approval of another node is taken over");
        let until_mono_ns = now.deadline(UNCLAIMED);
        let unclaimed = Unclaimed {
            approval,
            until_mono_ns,
        };
        self.taken().insert(id.clone(), unclaimed);
        Some(id)
    }

    /// Uses one up; `None` where it was not taken over.
    pub(super) fn claim_taken(
        &self,
        id: &ApprovalId,
        (digest, session, command): (&Digest, &SessionId, CommandId),
        now: Now,
    ) -> Option<Result<Clearance, ClaimError>> {
        let mut taken = self.taken();
        let one = taken.get_mut(id)?;
        let own = one.approval.draft();
        if own.session != *session || own.command != command {
            return Some(Err(ClaimError::Session));
        }
        let claimed = one
            .approval
            .claim(digest, session, command, self.latest(now));
        if claimed.is_ok() {
            taken.remove(id);
        }
        Some(claimed)
    }

    /// Ends one that nobody uses; gives whether there was one.
    pub(super) async fn leave_taken(&self, id: &ApprovalId, session: &SessionId) -> bool {
        let mine = |one: &Unclaimed| one.approval.draft().session == *session;
        if !self.taken().get(id).is_some_and(mine) {
            return false;
        }
        self.end_taken("withdrawn", |one| one == id).await;
        true
    }

    pub(super) async fn sweep_taken(&self, now: Now) {
        let over = |one: &Unclaimed| now.mono_ns >= one.until_mono_ns;
        let due: Vec<_> = (self.taken().iter())
            .filter(|(_, one)| over(one))
            .map(|(id, _)| id.clone())
            .collect();
        if !due.is_empty() {
            self.end_taken("expired", |id| due.contains(id)).await;
        }
    }

    pub(super) async fn revoke_taken(&self, identity: &Identity) {
        let due: Vec<_> = (self.taken().iter())
            .filter(|(_, one)| {
                one.approval
                    .draft()
                    .principal
                    .behind()
                    .any(|id| id == identity)
            })
            .map(|(id, _)| id.clone())
            .collect();
        self.end_taken("revoked", |id| due.contains(id)).await;
    }

    /// Ended first and written then, as every end is.
    pub(super) async fn end_taken(&self, state: &str, which: impl Fn(&ApprovalId) -> bool) {
        let ended: Vec<_> = {
            let mut taken = self.taken();
            let ids: Vec<_> = taken.keys().filter(|id| which(id)).cloned().collect();
            ids.iter().filter_map(|id| taken.remove(id)).collect()
        };
        for one in ended {
            let draft = one.approval.draft();
            let settled = Entry::Settled {
                approval: draft.id.clone(),
                state: state.to_owned(),
                by: Vec::new(),
                reason: None,
                window: None,
            };
            let session = Some(draft.session.clone());
            if let Err(error) = self.record(session, settled, Durability::Synced).await {
                tracing::error!(approval.id = %draft.id, %error, "an end is not in the journal");
            }
        }
    }

    fn taken(&self) -> MutexGuard<'_, TakenOver> {
        let taken = self.0.taken.lock();
        taken.unwrap_or_else(PoisonError::into_inner)
    }
}
