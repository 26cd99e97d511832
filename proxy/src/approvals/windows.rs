//! Commands that may run again for a while, as their reviewers said.
//!
//! A window is found by digest when a command would be held, and each use is a claim
//! of its own: written to the journal while nothing else happens to that window, so
//! that claims and the window's end stand there in the order in which they counted.
//! An end is done first and written then. Memory of this process only, as approvals are.
//!
//! A command at another node has one use at a time from here (`turn_for`), which is counted
//! here as any other: so an end here is one everywhere, and an owner that is silent or gone
//! lets nothing pass.

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard, PoisonError};

use holdpoint_core::Now;
use holdpoint_core::approval::{ClaimError, Clearance, Draft, HandOver, OpenWindow};
use holdpoint_core::id::{ApprovalId, CommandId, Digest, SessionId};
use holdpoint_core::principal::Identity;
use holdpoint_core::record::{Durability, Entry};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use utoipa::ToSchema;

use super::view::{later, rfc3339};
use super::{Approvals, IdentityView, PrincipalView, ShownView};

/// Each took a person to open; past it approvals count once.
const MAX_OPEN: usize = 10_000;

/// What windows depend on besides time.
pub trait Surroundings: Send + Sync {
    /// Version of the rules in force.
    fn rules(&self) -> String;
    fn is_live(&self, session: &SessionId) -> bool;
}

pub(super) type Windows = BTreeMap<ApprovalId, Arc<Slot>>;

pub(super) struct Slot {
    opened_ns: u64,
    by: Vec<Identity>,
    /// What never changes, to look at without waiting.
    draft: Arc<Draft>,
    session: Option<SessionId>,
    until_mono_ns: Option<u64>,
    until_ns: Option<u64>,
    cell: Mutex<Cell>,
}

struct Cell {
    window: OpenWindow,
    ended: bool,
}

/// A command that may run again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WindowView {
    /// The approval that opened it.
    pub id: String,
    pub digest: String,
    pub target: String,
    pub principal: PrincipalView,
    pub rule: String,
    pub policy: String,
    pub approved_by: Vec<IdentityView>,
    pub shown: ShownView,
    /// The only session that may use it.
    #[serde(default)]
    pub session: Option<String>,
    pub opened_at: String,
    /// Without it, until its session ends.
    #[serde(default)]
    pub until: Option<String>,
    /// Claims so far, beside the approval's own.
    pub uses: u64,
    /// The node that has it, where that is not the one that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// Why a window does not end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no open window `{0}`")]
pub struct NoWindow(pub ApprovalId);

impl Approvals {
    /// What ends windows besides time and people; without it, rules and sessions stay.
    pub fn look_around(&self, around: Arc<dyn Surroundings>) {
        if self.0.around.set(around).is_err() {
            tracing::error!("what ends windows was set twice; the first stays");
        }
    }

    /// All that are open, the newest first.
    pub async fn windows(&self) -> Vec<WindowView> {
        let mut slots: Vec<_> = self.open_windows().values().cloned().collect();
        // Those that the sweeper has still to write off.
        slots.retain(|slot| !self.is_alone(slot));
        let mut views = Vec::new();
        for slot in slots {
            let cell = slot.cell.lock().await;
            if !cell.ended && !cell.window.is_over((self.0.clock)()) {
                views.push(slot.view(&cell.window));
            }
        }
        views.sort_by(|a, b| (&b.opened_at, &b.id).cmp(&(&a.opened_at, &a.id)));
        views
    }

    /// Ends a window at somebody's word.
    ///
    /// # Errors
    /// It is not open (any more).
    pub async fn revoke_window(&self, id: &ApprovalId, by: Identity) -> Result<(), NoWindow> {
        let (this, approval) = (self.clone(), id.clone());
        let task = self
            .0
            .runtime
            .spawn(async move { this.end_window(&approval, "revoked", Some(by)).await });
        match task.await {
            Ok(true) => Ok(()),
            _ => Err(NoWindow(id.clone())),
        }
    }

    /// Its approval is in the journal, with how far it reaches. Gives until when other nodes
    /// may have uses of it, if they may.
    pub(super) fn open_window(
        &self,
        window: OpenWindow,
        by: Vec<Identity>,
        now: Now,
    ) -> Option<u64> {
        let draft = Arc::clone(window.draft());
        let mut open = self.open_windows();
        if open.len() >= MAX_OPEN {
            tracing::error!(approval.id = %draft.id, "too many windows are open: it counts once");
            return None;
        }
        let reach = window.reach();
        let time = reach.for_ms.map(std::time::Duration::from_millis);
        let slot = Slot {
            opened_ns: now.wall_ns,
            by,
            session: reach.session.clone(),
            until_mono_ns: window.until_mono_ns(),
            until_ns: time.map(|time| later(now.wall_ns, time)),
            cell: Mutex::new(Cell {
                window,
                ended: false,
            }),
            draft: Arc::clone(&draft),
        };
        let anywhere = slot.until_ns.filter(|_| slot.session.is_none());
        open.insert(draft.id.clone(), Arc::new(slot));
        anywhere
    }

    /// The approval whose window lets a command pass, if there is one.
    pub(super) async fn window_for(&self, draft: &Draft, now: Now) -> Option<ApprovalId> {
        let slots: Vec<_> = self
            .open_windows()
            .values()
            .filter(|slot| slot.draft.digest == draft.digest)
            .cloned()
            .collect();
        for slot in slots {
            let cell = slot.cell.lock().await;
            if !cell.ended && cell.window.serves(draft, self.latest(now)) {
                return Some(slot.draft.id.clone());
            }
        }
        None
    }

    /// One more use; `None` where there is no such window.
    pub(super) async fn claim_window(
        &self,
        id: &ApprovalId,
        digest: &Digest,
        session: &SessionId,
        command: CommandId,
        now: Now,
    ) -> Option<Result<Clearance, ClaimError>> {
        let slot = self.open_windows().get(id).cloned()?;
        let (this, digest, session) = (self.clone(), *digest, session.clone());
        // A task: what is written and what is counted stay the same thing.
        let task = self.0.runtime.spawn(async move {
            let mut cell = slot.cell.lock().await;
            let now = this.latest(now);
            if cell.ended {
                return Err(ClaimError::Expired);
            }
            cell.window.claimable(&digest, &session, now)?;
            let claimed = Entry::Claimed {
                approval: slot.draft.id.clone(),
                command,
                digest,
                number: cell.window.uses().saturating_add(1),
            };
            let written = this.record(Some(session.clone()), claimed, Durability::Written);
            if let Err(error) = written.await {
                // It may or may not lie there: no further claim could be told from it.
                cell.ended = true;
                tracing::error!(approval.id = %slot.draft.id, %error, "a window's use is not in the journal");
                return Err(ClaimError::NotWritten);
            }
            cell.window.claim(&digest, &session, command, now)
        });
        Some(task.await.unwrap_or(Err(ClaimError::NotWritten)))
    }

    /// One more use, for the command of `draft` at node `to`. When this returns the word, the
    /// journal has it. `None` where no window covers that command.
    pub(super) async fn turn_for(
        &self,
        id: &ApprovalId,
        draft: &Draft,
        to: &str,
    ) -> Option<HandOver> {
        let slot = self.open_windows().get(id).cloned()?;
        let mut cell = slot.cell.lock().await;
        let now = (self.0.clock)();
        if cell.ended || !cell.window.serves_elsewhere(draft, now) {
            return None;
        }
        let word = HandOver {
            approval: id.clone(),
            to: to.to_owned(),
            session: draft.session.clone(),
            command: draft.command,
            digest: draft.digest,
            rule: draft.rule.clone(),
            by: slot.by.clone(),
            window: Some(cell.window.uses().saturating_add(1)),
        };
        let session = Some(slot.draft.session.clone());
        let given = Entry::Given { word: word.clone() };
        // Synced: what a node says to another must still be there after a crash.
        if let Err(error) = self.record(session, given, Durability::Synced).await {
            // As for a use here.
            cell.ended = true;
            tracing::error!(approval.id = %id, %error, "a window's use is not in the journal");
            return None;
        }
        let used = (cell.window).claim(&draft.digest, &draft.session, draft.command, now);
        used.is_ok().then_some(word)
    }

    /// Ends those of a principal, or by a reviewer, who may act no more.
    pub(super) async fn end_windows_of(&self, identity: &Identity) {
        self.end_windows("principal", |slot| {
            slot.draft.principal.behind().any(|one| one == identity) || slot.by.contains(identity)
        })
        .await;
    }

    pub(super) async fn end_all_windows(&self) {
        self.end_windows("shutdown", |_| true).await;
    }

    /// Ends what time, other rules or the end of a session have ended.
    pub(super) async fn sweep_windows(&self, now: Now) {
        if self.open_windows().is_empty() {
            return;
        }
        let over = |slot: &Slot| slot.until_mono_ns.is_some_and(|until| now.mono_ns >= until);
        self.end_windows("expired", over).await;
        let Some(around) = self.0.around.get() else {
            return;
        };
        let rules = around.rules();
        self.end_windows("rules", |slot| slot.draft.policy != rules)
            .await;
        self.end_windows("session", |slot| self.is_alone(slot))
            .await;
    }

    /// Whether the only session that may use it is over.
    fn is_alone(&self, slot: &Slot) -> bool {
        let session = slot.session.as_ref().zip(self.0.around.get());
        session.is_some_and(|(id, around)| !around.is_live(id))
    }

    async fn end_windows(&self, why: &str, which: impl Fn(&Slot) -> bool) {
        let ids: Vec<_> = {
            let open = self.open_windows();
            let ended = open.iter().filter(|(_, slot)| which(slot));
            ended.map(|(id, _)| id.clone()).collect()
        };
        for id in ids {
            self.end_window(&id, why, None).await;
        }
    }

    /// Gives whether it was this call that ended it.
    async fn end_window(&self, id: &ApprovalId, why: &str, by: Option<Identity>) -> bool {
        let Some(slot) = self.open_windows().remove(id) else {
            return false;
        };
        let mut cell = slot.cell.lock().await;
        cell.ended = true;
        let ended = Entry::WindowEnded {
            approval: id.clone(),
            why: why.to_owned(),
            by,
        };
        if let Err(error) = self.record(None, ended, Durability::Synced).await {
            tracing::error!(approval.id = %id, %error, "a window's end is not in the journal");
        }
        drop(cell);
        self.show_no_window(id).await;
        true
    }

    /// Other nodes need not ask for it any more.
    async fn show_no_window(&self, id: &ApprovalId) {
        let Some(slot) = self.table().get(id) else {
            return;
        };
        let mut cell = slot.cell.lock().await;
        if cell.times.window_until_ns.take().is_some() {
            self.announce(&slot, &cell, None);
        }
    }

    fn open_windows(&self) -> MutexGuard<'_, Windows> {
        let windows = self.0.windows.lock();
        windows.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn view(&self, window: &OpenWindow) -> WindowView {
        let draft = &self.draft;
        WindowView {
            id: draft.id.to_string(),
            digest: draft.digest.to_string(),
            target: draft.target.clone(),
            principal: (&*draft.principal).into(),
            rule: draft.rule.clone(),
            policy: draft.policy.clone(),
            approved_by: self.by.iter().map(Into::into).collect(),
            shown: (&draft.shown).into(),
            session: self.session.as_ref().map(ToString::to_string),
            opened_at: rfc3339(self.opened_ns),
            until: self.until_ns.map(rfc3339),
            uses: window.uses(),
            node: None,
        }
    }
}
