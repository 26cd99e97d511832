//! A command that is sent again at another node while its approval is pending: it waits
//! there for this one, as a second session here would, and reviewers see one approval.
//!
//! Its owner counts that session among those that wait, so that the end of the first
//! connection does not withdraw what the client still asks for. The other node says again from
//! time to time that it waits; without that it has left, as a client that was told to ask
//! again. Once the approval is decided the other node asks for it as for any grant (`handover`),
//! so nothing passes there on anybody's word but the owner's.
//!
//! Limits: two nodes that are sent the same command at the same moment do not see each other
//! in time, and each opens an approval. An owner that is not heard in time is not waited for.

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use holdpoint_core::Now;
use holdpoint_core::approval::{Draft, State};
use holdpoint_core::display::unescape;
use holdpoint_core::gate::{Opened, Settlement};
use holdpoint_core::id::{ApprovalId, SessionId};
use holdpoint_core::principal::Identity;
use holdpoint_core::record::{Durability, Entry};

use super::handover::{Joined, Offer};
use super::steps::journal;
use super::table::Denied;
use super::{Approvals, View};

/// A node that did not say again that its session waits: it does not any more.
const GUEST: Duration = Duration::from_secs(60);
/// It says so this often.
const AGAIN: Duration = Duration::from_secs(20);

/// A session and what it waits for.
type Place = (ApprovalId, SessionId);

/// Sessions of other nodes that wait for approvals here: until when, in monotonic nanoseconds.
pub(super) type Guests = BTreeMap<Place, u64>;

/// Sessions here that wait for other nodes' approvals: of which node.
pub(super) type Away = BTreeMap<Place, String>;

impl Approvals {
    /// What a reviewer refused at another node stays refused here, as it does there.
    pub(crate) fn denied_elsewhere(&self, view: &View) {
        let (Some(denial), Ok(digest), Ok(approval)) =
            (&view.denial, view.digest.parse(), view.id.parse())
        else {
            return;
        };
        let now = self.latest((self.0.clock)());
        let label = unescape(&denial.label).unwrap_or_default();
        let denied = Denied {
            approval,
            until_mono_ns: now.deadline(self.0.config.deny_cooldown),
            label: String::from_utf8_lossy(&label).into_owned(),
            reason: denial.reason.clone(),
        };
        self.table().denied(digest, denied);
    }

    /// Lets the command of `draft`, at another node, wait for a pending approval. Gives how
    /// long that has; `None` where it does not cover the command, or is decided.
    pub(super) async fn host(&self, id: &ApprovalId, draft: &Draft) -> Option<Duration> {
        let slot = self.table().get(id)?;
        let mut cell = slot.cell.lock().await;
        let now = (self.0.clock)();
        let left = cell.approval.expires_mono_ns().saturating_sub(now.mono_ns);
        let open = *cell.approval.state() == State::Pending && left > 0;
        if !cell.recorded || !open || !cell.covers(draft) {
            return None;
        }
        let session = draft.session.clone();
        let until = now.deadline(GUEST);
        (self.guests()).insert((id.clone(), session.clone()), until);
        if cell.sessions.insert(session) {
            self.announce(&slot, &cell, None);
        }
        Some(Duration::from_nanos(left))
    }

    /// A session of another node does not wait any more.
    pub(crate) async fn guest_leaves(&self, id: &ApprovalId, session: &SessionId, grant: bool) {
        // Sessions of this node leave by themselves.
        let known = self.guests().remove(&(id.clone(), session.clone()));
        let Some(slot) = known.and_then(|_| self.table().get(id)) else {
            return;
        };
        let (this, session) = (self.clone(), session.clone());
        let leaving = async move { this.leave_now(&slot, &session, grant).await };
        // A panic in there has been reported; the approval then ends at its deadline.
        let _ = self.0.runtime.spawn(leaving).await;
    }

    pub(super) async fn sweep_guests(&self, now: Now) {
        let over: Vec<Place> = {
            let guests = self.guests();
            let over = guests.iter().filter(|(_, until)| now.mono_ns >= **until);
            over.map(|(place, _)| place.clone()).collect()
        };
        for (id, session) in over {
            // Its client may come back.
            self.guest_leaves(&id, &session, true).await;
        }
    }

    /// What another node has for a command that is about to be held here.
    pub(super) async fn elsewhere(&self, draft: &Draft, now: Now) -> Option<Opened> {
        let (_, elsewhere) = self.0.elsewhere.get()?;
        match elsewhere.take(draft, None).await? {
            Offer::Given(taken) => (self.take_over(draft, *taken, now).await).map(Opened::Granted),
            Offer::Joined(joined) => self.wait_away(draft, joined, now).await,
        }
    }

    async fn wait_away(&self, draft: &Draft, joined: Joined, now: Now) -> Option<Opened> {
        let Joined {
            node,
            approval,
            left,
        } = joined;
        if self.table().get(&approval).is_some() {
            return None;
        }
        let place = (approval.clone(), draft.session.clone());
        self.away().insert(place, node.clone());
        let entry = Entry::Joined {
            command: draft.command,
            approval: approval.clone(),
            node: Some(node),
        };
        let session = Some(draft.session.clone());
        if let Err(error) = self.record(session, entry, Durability::Written).await {
            self.leave_away(&approval, &draft.session, false);
            return Some(Opened::Refused(journal(&error)));
        }
        Some(Opened::Waiting {
            approval,
            joined: true,
            expires_mono_ns: self.latest(now).deadline(left),
        })
    }

    /// How an approval of another node, for which `draft` waits here, was decided. With
    /// [`Settlement::Approved`] it was asked for; whether it is ours is for the claim to say.
    pub(super) async fn settled_away(&self, id: &ApprovalId, draft: &Draft) -> Settlement {
        let settlement = self.decided_away(id, draft).await;
        if settlement == Settlement::Orphaned {
            // Perhaps by us alone: its client may come back.
            self.leave_away(id, &draft.session, true);
        } else {
            self.away().remove(&(id.clone(), draft.session.clone()));
        }
        settlement
    }

    async fn decided_away(&self, id: &ApprovalId, draft: &Draft) -> Settlement {
        let Some((_, elsewhere)) = self.0.elsewhere.get() else {
            return Settlement::Orphaned;
        };
        let mut closing = self.0.closing.subscribe();
        if *closing.borrow_and_update() {
            return Settlement::Orphaned;
        }
        let mut decided = elsewhere.decided(id);
        loop {
            tokio::select! {
                decided = &mut decided => return match decided {
                    Some(view) if view.state == "approved" => {
                        self.have(id, draft).await;
                        Settlement::Approved
                    }
                    Some(view) => settlement(&view),
                    None => Settlement::Orphaned,
                },
                () = tokio::time::sleep(AGAIN) => if self.have(id, draft).await {
                    return Settlement::Approved;
                },
                _ = closing.changed() => return Settlement::Orphaned,
            }
        }
    }

    /// Takes it over, if it is approved and ours; otherwise says that we still wait.
    async fn have(&self, id: &ApprovalId, draft: &Draft) -> bool {
        let (this, id, draft) = (self.clone(), id.clone(), draft.clone());
        // A task: a client that goes away leaves no half of it.
        let task = self.0.runtime.spawn(async move {
            let (_, elsewhere) = this.0.elsewhere.get()?;
            match elsewhere.take(&draft, Some(&id)).await? {
                Offer::Given(taken) => this.take_over(&draft, *taken, (this.0.clock)()).await,
                Offer::Joined(_) => None,
            }
        });
        task.await.ok().flatten().is_some()
    }

    /// Gives whether that session waited for another node's approval.
    pub(super) fn leave_away(&self, id: &ApprovalId, session: &SessionId, grant: bool) -> bool {
        let Some(node) = self.away().remove(&(id.clone(), session.clone())) else {
            return false;
        };
        if let Some((_, elsewhere)) = self.0.elsewhere.get() {
            // Where it is not heard, its owner finds out by itself.
            self.0
                .runtime
                .spawn(elsewhere.leave(&node, id, session, grant));
        }
        true
    }

    fn guests(&self) -> MutexGuard<'_, Guests> {
        self.0.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn away(&self) -> MutexGuard<'_, Away> {
        self.0.away.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn settlement(view: &Arc<View>) -> Settlement {
    match view.state.as_str() {
        // By another session: the claim says so.
        "used" => Settlement::Approved,
        "denied" => view.denial.as_ref().map_or(Settlement::Expired, |denial| {
            let by = Identity {
                issuer: denial.by.issuer.clone(),
                subject: denial.by.subject.clone(),
            };
            Settlement::Denied {
                by,
                label: denial.label.clone(),
                reason: denial.reason.clone(),
            }
        }),
        "orphaned" => Settlement::Orphaned,
        "revoked" => Settlement::Revoked,
        _ => Settlement::Expired,
    }
}
