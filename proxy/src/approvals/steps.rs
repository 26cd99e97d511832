//! What happens to one approval, in the order judged, written, applied, told.

use std::sync::Arc;
use std::time::Duration;

use holdpoint_core::Now;
use holdpoint_core::approval::{Approval, Draft, Reach, State, Vote, VoteError, VoteOutcome};
use holdpoint_core::gate::Opened;
use holdpoint_core::id::SessionId;
use holdpoint_core::principal::Identity;
use holdpoint_core::record::{Durability, Entry};
use tokio::sync::OwnedMutexGuard;

use super::on_call::explained;
use super::slot::{Cell, Slot};
use super::table::Denied;
use super::{Approvals, Crowded, NotWritten, VoteRefused, unavailable};
use crate::crash;
use crate::notify::Message;

/// Between attempts to write an escalation down.
const AGAIN: Duration = Duration::from_secs(1);

impl Approvals {
    /// Joins a pending approval or points at a grant; `None` where this one does not serve.
    pub(super) async fn reuse(&self, slot: &Slot, draft: &Draft, now: Now) -> Option<Opened> {
        let mut cell = slot.cell.lock().await;
        let now = self.latest(now);
        if !cell.recorded || !cell.approval.serves(draft) {
            return None;
        }
        // Not `next_due`: an escalation that is due ends nothing.
        let over = cell.approval.deadline().is_some_and(|at| now.mono_ns >= at);
        match cell.approval.state() {
            _ if over => None,
            // Those who still wait for it come first; this command asks anew.
            State::Approved { .. } if cell.sessions.is_empty() => {
                Some(Opened::Granted(slot.id.clone()))
            }
            State::Pending => {
                let joined = Entry::Joined {
                    command: draft.command,
                    approval: slot.id.clone(),
                    node: None,
                };
                let session = Some(draft.session.clone());
                if let Err(error) = self.record(session, joined, Durability::Written).await {
                    return Some(Opened::Refused(journal(&error)));
                }
                cell.sessions.insert(draft.session.clone());
                self.announce(slot, &cell, None);
                Some(Opened::Waiting {
                    approval: slot.id.clone(),
                    joined: true,
                    expires_mono_ns: cell.approval.expires_mono_ns(),
                })
            }
            _ => None,
        }
    }

    /// Takes a place in the table, unless something changed since `seen`.
    pub(super) fn reserve(
        &self,
        draft: &Draft,
        now: Now,
        seen: &[Arc<Slot>],
    ) -> Result<(Arc<Slot>, OwnedMutexGuard<Cell>), Crowded> {
        let config = &self.0.config;
        let mut table = self.table();
        let same = table.with_digest(&draft.digest);
        let news = |slot: &Arc<Slot>| !seen.iter().any(|one| one.id == slot.id);
        if same.iter().any(news) || table.denial(&draft.digest, now.mono_ns).is_some() {
            return Err(Crowded::Again);
        }
        let refused = |code, message: &str| Err(Crowded::Refused(unavailable(code, message)));
        if table.closed {
            return refused("HP-SHUTDOWN", "the gateway is stopping");
        }
        if table.get(&draft.id).is_some() {
            return refused(
                "HP-LIMIT",
                "the approval's id is taken: send the command again",
            );
        }
        if table.pending() >= config.max_pending {
            return refused("HP-LIMIT", "too many commands wait for approval");
        }
        let own = table.pending_of(&draft.principal.identity);
        if own >= config.max_pending_per_principal {
            return Err(Crowded::Refused(
                unavailable(
                    "HP-LIMIT",
                    &format!("{own} of your commands wait for approval already"),
                )
                .hint("wait until those are decided, or cancel them"),
            ));
        }
        // Each asked people, who had looked for nothing.
        let withdrawn = table.withdrawn_of(&draft.principal.identity, now.mono_ns);
        if withdrawn >= 2 * config.max_pending_per_principal {
            return Err(Crowded::Refused(
                unavailable(
                    "HP-LIMIT",
                    &format!("{withdrawn} of your commands were held and given up within a minute"),
                )
                .hint("wait a minute; ask for what you want to wait for"),
            ));
        }
        let mut draft = draft.clone();
        draft.hold.expires_in = draft.hold.expires_in.min(config.max_hold);
        let approval = Approval::open(draft, now).with_grant_ttl(config.grant_ttl);
        let due = approval
            .next_due()
            .unwrap_or_else(|| approval.expires_mono_ns());
        let slot = Arc::new(Slot::new(approval, now, self.0.ledger.head()));
        // Locked before anyone can see it, so that nothing happens to it before
        // it is recorded.
        let Ok(cell) = Arc::clone(&slot.cell).try_lock_owned() else {
            return Err(Crowded::Again);
        };
        if table.insert(&slot, due) {
            self.0.sooner.notify_one();
        }
        Ok((slot, cell))
    }

    /// Records the hold, then tells reviewers. Whoever wants to join waits meanwhile.
    pub(super) async fn begin(
        &self,
        slot: Arc<Slot>,
        mut cell: OwnedMutexGuard<Cell>,
    ) -> (Opened, Option<Arc<Slot>>) {
        let draft = Arc::clone(cell.approval.draft());
        let session = draft.session.clone();
        let hold = Entry::Hold(draft);
        crash::point("P0");
        if let Err(error) = self.record(Some(session), hold, Durability::Synced).await {
            // Never recorded, so it never was: nobody was told of it.
            self.table().remove(&slot);
            return (Opened::Refused(journal(&error)), None);
        }
        cell.recorded = true;
        crash::point("P1");
        self.announce(&slot, &cell, Some(Message::Pending));
        let opened = Opened::Waiting {
            approval: slot.id.clone(),
            joined: false,
            expires_mono_ns: cell.approval.expires_mono_ns(),
        };
        drop(cell);
        (opened, Some(slot))
    }

    pub(super) async fn vote_now(
        &self,
        slot: &Slot,
        mut vote: Vote,
        now: Now,
    ) -> Result<VoteOutcome, VoteRefused> {
        // Before it is our turn: a list that is slow keeps nobody else waiting.
        let untold = self.place(&mut vote.reviewer, &slot.on_call).await;
        let mut cell = slot.cell.lock().await;
        if !cell.recorded {
            return Err(VoteRefused::Unknown(vote.approval));
        }
        // One reading for judging and counting, taken now that it is our turn.
        let now = self.latest(now);
        let outcome = match cell.approval.judge(&vote, now) {
            Ok(outcome) => outcome,
            Err(VoteError::Final(_)) if cast_before(&cell.approval, &vote) => {
                return Ok(VoteOutcome::Repeated);
            }
            Err(why) => {
                let why = explained(why, &cell.approval.draft().rule, untold.as_ref());
                return Err(self.refuse(&cell, vote, why).await);
            }
        };
        let session = cell.approval.draft().session.clone();
        let entry = Entry::Vote {
            vote: vote.clone(),
            refused: None,
        };
        crash::point("P2");
        match &outcome {
            VoteOutcome::Repeated => return Ok(outcome),
            VoteOutcome::Counted { .. } | VoteOutcome::Advanced { .. } => {
                self.record(Some(session.clone()), entry, Durability::Synced)
                    .await?;
            }
            VoteOutcome::Settled(state) => {
                // The second record's sync takes the first one along.
                self.record(Some(session.clone()), entry, Durability::Written)
                    .await?;
                let window = cell.approval.reach_with(&vote);
                let settled = settled(slot, state, window);
                self.record(Some(session.clone()), settled, Durability::Synced)
                    .await?;
                crash::point("P3");
            }
        }
        let outcome = cell
            .act()
            .vote(vote, now)
            .map_err(|why| VoteRefused::Refused {
                why,
                state: cell.approval.state().clone(),
            })?;
        match &outcome {
            VoteOutcome::Settled(state) => self.apply(slot, &mut cell, state, now),
            VoteOutcome::Advanced { .. } => {
                // The next step may escalate on its own.
                self.wake(slot, &cell);
                self.announce(slot, &cell, Some(Message::Step));
            }
            VoteOutcome::Counted { .. } | VoteOutcome::Repeated => {
                self.announce(slot, &cell, None);
            }
        }
        Ok(outcome)
    }

    async fn refuse(&self, cell: &Cell, vote: Vote, why: VoteError) -> VoteRefused {
        let entry = Entry::Vote {
            vote,
            refused: Some(why.to_string()),
        };
        let session = Some(cell.approval.draft().session.clone());
        if let Err(error) = self.record(session, entry, Durability::Written).await {
            tracing::error!(%error, "a refused vote is not in the journal");
        }
        VoteRefused::Refused {
            why,
            state: cell.approval.state().clone(),
        }
    }

    pub(super) async fn leave_now(&self, slot: &Slot, session: &SessionId, grant: bool) {
        let mut cell = slot.cell.lock().await;
        if !cell.sessions.remove(session) || cell.approval.state().is_terminal() {
            return;
        }
        if grant || !cell.sessions.is_empty() {
            let alone = cell.sessions.is_empty() && *cell.approval.state() == State::Pending;
            self.announce(slot, &cell, alone.then_some(Message::Left));
            return;
        }
        self.end_locked(slot, &mut cell, State::Withdrawn).await;
    }

    /// Ends it at its deadline, widens its step at that one's, and asks to be woken again.
    pub(super) async fn due(&self, slot: &Slot) {
        let mut cell = slot.cell.lock().await;
        let now = (self.0.clock)();
        match cell.approval.deadline() {
            None => {}
            Some(at) if now.mono_ns >= at => {
                self.end_locked(slot, &mut cell, State::Expired).await;
            }
            Some(_) => {
                let due = cell.approval.escalates_at();
                if due.is_some_and(|at| now.mono_ns >= at)
                    && !self.escalate(slot, &mut cell, now).await
                {
                    // Nobody was asked; the journal may take it in a moment.
                    self.due_at(now.deadline(AGAIN), slot);
                } else {
                    self.wake(slot, &cell);
                }
            }
        }
    }

    /// Lets more people decide the current step, and asks them. Gives whether it did.
    async fn escalate(&self, slot: &Slot, cell: &mut Cell, now: Now) -> bool {
        if !cell.recorded {
            return false;
        }
        let session = cell.approval.draft().session.clone();
        let escalated = Entry::Escalated {
            approval: slot.id.clone(),
            step: cell.approval.place().0,
        };
        let written = self.record(Some(session), escalated, Durability::Synced);
        if let Err(error) = written.await {
            tracing::error!(approval.id = %slot.id, %error, "not escalated: the journal does not take it");
            return false;
        }
        cell.act().escalate(now);
        self.announce(slot, cell, Some(Message::Escalated));
        true
    }

    fn wake(&self, slot: &Slot, cell: &Cell) {
        if let Some(at) = cell.approval.next_due() {
            self.due_at(at, slot);
        }
    }

    /// Has the sweeper look at it then, which sleeps no longer than to what was due first.
    fn due_at(&self, at: u64, slot: &Slot) {
        if self.table().due_at(at, &slot.id) {
            self.0.sooner.notify_one();
        }
    }

    /// Gives whether it was this call that ended it.
    pub(super) async fn end(&self, slot: &Slot, state: State) -> bool {
        let mut cell = slot.cell.lock().await;
        self.end_locked(slot, &mut cell, state).await
    }

    /// Ending without a reviewer's approval needs nobody's consent, the journal's
    /// neither: where it fails, the approval is over all the same.
    pub(super) async fn end_locked(&self, slot: &Slot, cell: &mut Cell, state: State) -> bool {
        if cell.approval.state().is_terminal() || !cell.recorded {
            return false;
        }
        let session = Some(cell.approval.draft().session.clone());
        let entry = settled(slot, &state, None);
        if let Err(error) = self.record(session, entry, Durability::Synced).await {
            tracing::error!(approval.id = %slot.id, %error, "an end is not in the journal");
        }
        let now = (self.0.clock)();
        let ended = match state {
            State::Expired => cell.act().tick(now),
            State::Withdrawn => cell.act().withdraw(),
            State::Revoked => cell.act().revoke(),
            _ => cell.act().orphan(),
        };
        if let Some(state) = &ended {
            self.apply(slot, cell, state, now);
        }
        ended.is_some()
    }

    /// The journal has it: keep the table in step and tell everyone.
    pub(super) fn apply(&self, slot: &Slot, cell: &mut Cell, state: &State, now: Now) {
        match state {
            State::Approved { by } => {
                cell.approved(now, self.0.config.grant_ttl);
                if let Some(window) = cell.approval.window(now) {
                    cell.times.window_until_ns = self.open_window(window, by.clone(), now);
                }
                self.table().decided(slot);
                if let Some(at) = cell.approval.deadline() {
                    self.due_at(at, slot);
                }
            }
            State::Denied { label, reason, .. } => {
                let mut table = self.table();
                let denied = Denied {
                    approval: slot.id.clone(),
                    until_mono_ns: now.deadline(self.0.config.deny_cooldown),
                    label: label.clone(),
                    reason: reason.clone(),
                };
                table.denied(slot.digest, denied);
                table.settled(slot);
            }
            State::Withdrawn => {
                let mut table = self.table();
                table.withdrew(slot.requester(), now.mono_ns);
                table.settled(slot);
            }
            _ => self.table().settled(slot),
        }
        self.announce(slot, cell, Some(Message::Settled));
    }
}

/// Whether this very vote is among those that led to the end.
fn cast_before(approval: &Approval, vote: &Vote) -> bool {
    vote.digest == approval.draft().digest
        && approval.votes().iter().any(|cast| {
            cast.vote.reviewer.identity == vote.reviewer.identity
                && cast.vote.verdict == vote.verdict
        })
}

pub(super) fn settled(slot: &Slot, state: &State, window: Option<Reach>) -> Entry {
    let (by, reason): (Vec<Identity>, _) = match state {
        State::Approved { by } => (by.clone(), None),
        State::Denied { by, reason, .. } => (vec![by.clone()], Some(reason.clone())),
        _ => (Vec::new(), None),
    };
    Entry::Settled {
        approval: slot.id.clone(),
        state: state.word().to_owned(),
        by,
        reason,
        // Only an approval opens one.
        window: window.filter(|_| matches!(state, State::Approved { .. })),
    }
}

pub(super) fn journal(error: &NotWritten) -> holdpoint_core::denial::Denial {
    tracing::error!(%error, "a hold is not in the journal");
    unavailable(
        "HP-JOURNAL",
        "the journal cannot be written, so nothing may run",
    )
}
