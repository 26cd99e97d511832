//! An approval that was given where its client is no more: its owner hands it over to the
//! node that the client came back to.
//!
//! The owner writes that it is given away, and only then says so, signed by its journal's
//! key; from then on nothing there can use it. The other node writes that it took it, and
//! only then lets the one command use it. Between the two it may be lost: then nobody uses
//! it, and the command is held anew. An owner that is gone gives nothing.
//!
//! Of a window the owner gives one use after the other, counted with those at its own node;
//! the window stays where it is.

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use holdpoint_core::Now;
use holdpoint_core::approval::{Approval, ClaimError, Clearance, Draft, HandOver, State};
use holdpoint_core::id::{ApprovalId, CommandId, Digest, SessionId};
use holdpoint_core::principal::Identity;
use holdpoint_core::record::{Durability, Entry, Taken};

use super::{Approvals, Later, View, VoteRefused};
use crate::notify::Message;

/// A claim follows at once; what was not claimed by then is over.
const UNCLAIMED: Duration = Duration::from_secs(60);

/// The approvals of other nodes.
pub trait Elsewhere: Send + Sync {
    /// What another node has for the command of `draft`: of this approval, if one is named.
    fn take<'a>(
        &'a self,
        draft: &'a Draft,
        only: Option<&'a ApprovalId>,
    ) -> Later<'a, Option<Offer>>;

    /// Resolves once another node's approval is decided; with nothing where nobody can say
    /// any more.
    fn decided(&self, id: &ApprovalId) -> Later<'static, Option<Arc<View>>>;

    /// A session that waited for an approval of `node` does not any more.
    fn leave(
        &self,
        node: &str,
        id: &ApprovalId,
        session: &SessionId,
        grant: bool,
    ) -> Later<'static, ()>;
}

/// What another node has for a command.
#[derive(Debug)]
pub enum Offer {
    /// An approval, with its owner's word, whose signature is good.
    Given(Box<Taken>),
    /// One that is pending, and for which the command may wait.
    Joined(Joined),
}

/// An approval of another node for which a command waits here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    pub node: String,
    pub approval: ApprovalId,
    /// Until it expires.
    pub left: Duration,
}

/// What an owner answers to a command of another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Given {
    Word(HandOver),
    /// It may wait, for at most so long.
    Wait(Duration),
}

/// What whoever asks an owner knows beside an approval's single use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Asks {
    /// A use of its window.
    pub(crate) windows: bool,
    /// To wait for it.
    pub(crate) join: bool,
}

/// Those that were taken over and not claimed yet: for which command of which session.
pub(super) type TakenOver = BTreeMap<Place, Unclaimed>;

/// Several commands can have uses of one window at the same time.
type Place = (ApprovalId, SessionId, CommandId);

pub(super) struct Unclaimed {
    approval: Approval,
    /// A use of a window, which ends with its command.
    of_window: bool,
    until_mono_ns: u64,
}

impl Approvals {
    /// Where to look for an approval before a command is held; without it, nowhere.
    pub fn look_elsewhere(&self, node: &str, elsewhere: Arc<dyn Elsewhere>) {
        if self.0.elsewhere.set((node.to_owned(), elsewhere)).is_err() {
            tracing::error!("where other nodes' approvals are was set twice; the first stays");
        }
    }

    /// Gives an approval of this node to the command of `draft` at node `to`; or else, with
    /// `asks`, one use of its window, or a place among those who wait for it. When this returns
    /// a word, the journal has it, and nothing here can use what was given.
    ///
    /// # Errors
    /// There is none that covers the command, or somebody waits for it here.
    pub(crate) async fn give(
        &self,
        id: &ApprovalId,
        draft: Draft,
        to: &str,
        asks: Asks,
    ) -> Result<Given, VoteRefused> {
        let (this, approval, to) = (self.clone(), id.clone(), to.to_owned());
        let task = self.0.runtime.spawn(async move {
            let given = this.give_now(&approval, &draft, to.clone()).await;
            let refused = match given {
                Ok(word) => return Ok(Given::Word(word)),
                Err(refused) => refused,
            };
            if asks.windows
                && let Some(word) = this.turn_for(&approval, &draft, &to).await
            {
                return Ok(Given::Word(word));
            }
            if asks.join
                && let Some(left) = this.host(&approval, &draft).await
            {
                return Ok(Given::Wait(left));
            }
            Err(refused)
        });
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
        let same = cell.covers(draft);
        // Those who wait for it on an open connection come first.
        let mut waiting = cell.sessions.iter();
        let free = cell.recorded && waiting.all(|session| *session == draft.session);
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
            window: None,
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
            .act()
            .claim(&draft.digest, &draft.session, draft.command, now);
        if used.is_err() {
            return Err(missing());
        }
        let waited = cell.sessions.remove(&draft.session);
        self.table().settled(&slot);
        tracing::info!(approval.id = %id, to = %word.to, "an approval is given to another node");
        let used = if waited {
            Message::Used
        } else {
            Message::UsedLater
        };
        self.announce(&slot, &cell, Some(used));
        Ok(word)
    }

    /// Takes over what another node gave for a command here.
    pub(super) async fn take_over(
        &self,
        draft: &Draft,
        taken: Taken,
        now: Now,
    ) -> Option<ApprovalId> {
        let (node, _) = self.0.elsewhere.get()?;
        let id = taken.word.approval.clone();
        let now = self.latest(now);
        let Some(approval) = Approval::given(draft.clone(), node, &taken.word, now) else {
            tracing::error!(approval.id = %id, from = taken.from, "an approval was given to something else: not used");
            return None;
        };
        let place = (id.clone(), draft.session.clone(), draft.command);
        if self.table().get(&id).is_some() || self.taken().contains_key(&place) {
            tracing::error!(approval.id = %id, from = taken.from, "an approval was given that is ours: not used");
            return None;
        }
        let (from, of_window) = (taken.from.clone(), taken.word.window.is_some());
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
            of_window,
            until_mono_ns,
        };
        self.taken().insert(place, unclaimed);
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
        let place = (id.clone(), session.clone(), command);
        let one = taken.get_mut(&place)?;
        let claimed = one
            .approval
            .claim(digest, session, command, self.latest(now));
        if claimed.is_ok() {
            taken.remove(&place);
        }
        Some(claimed)
    }

    /// Ends those that this session does not use; gives whether there was one.
    pub(super) async fn leave_taken(&self, id: &ApprovalId, session: &SessionId) -> bool {
        let mine = |(one, own, _): &Place, _: &Unclaimed| one == id && own == session;
        self.end_taken("withdrawn", mine).await
    }

    pub(super) async fn sweep_taken(&self, now: Now) {
        let over = |_: &Place, one: &Unclaimed| now.mono_ns >= one.until_mono_ns;
        self.end_taken("expired", over).await;
    }

    pub(super) async fn revoke_taken(&self, identity: &Identity) {
        let behind = |_: &Place, one: &Unclaimed| {
            let mut behind = one.approval.draft().principal.behind();
            behind.any(|id| id == identity)
        };
        self.end_taken("revoked", behind).await;
    }

    /// Ended first and written then, as every end is. A use of a window ends with its command,
    /// which has a record of its own. Gives whether there was one.
    pub(super) async fn end_taken(
        &self,
        state: &str,
        which: impl Fn(&Place, &Unclaimed) -> bool,
    ) -> bool {
        let ended: Vec<_> = {
            let mut taken = self.taken();
            let due = taken.iter().filter(|(place, one)| which(place, one));
            let due: Vec<_> = due.map(|(place, _)| place.clone()).collect();
            due.iter().filter_map(|place| taken.remove(place)).collect()
        };
        let some = !ended.is_empty();
        for one in ended.into_iter().filter(|one| !one.of_window) {
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
        some
    }

    fn taken(&self) -> MutexGuard<'_, TakenOver> {
        let taken = self.0.taken.lock();
        taken.unwrap_or_else(PoisonError::into_inner)
    }
}
