//! The embedded approval service: pending approvals, votes, grants, windows.
//!
//! One process holds the client's socket, owns the approval and keeps the order:
//! a step is judged, written to the journal, applied, and only then told. All
//! steps of one approval take turns; different approvals do not wait for each
//! other, so their records share syncs. Each step that writes runs as a task of
//! its own: a reviewer or a client that hangs up cannot leave it half done.
//!
//! Where the journal fails, whatever would release a command does not happen,
//! and whatever ends an approval happens anyway.
//!
//! Limits: memory of this process only. After a restart nothing is resumed.

mod board;
mod errand;
mod glass;
mod guests;
mod handover;
mod justify;
mod ledger;
mod on_call;
mod slot;
mod steps;
mod table;
mod view;
mod waiter;
mod windows;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use holdpoint_core::Now;
use holdpoint_core::approval::{
    ClaimError, Clearance, Draft, MAX_REASON, State, Verdict, Vote, VoteError, VoteOutcome,
};
use holdpoint_core::config::HoldConfig;
use holdpoint_core::denial::{Denial, Kind};
use holdpoint_core::display::escape_line;
use holdpoint_core::gate::Opened;
use holdpoint_core::id::{ApprovalId, CommandId, Digest, SessionId};
use holdpoint_core::principal::Identity;
use holdpoint_core::record::{Durability, Entry};
use tokio::sync::{Notify, broadcast, watch};

pub use board::{Board, Cast, Counted, Explained};
pub(crate) use errand::ask_all;
pub use errand::{Errand, NoAnswer, Others};
pub use glass::ReviewView;
pub(crate) use handover::{Asks, Given};
pub use handover::{Elsewhere, Joined, Offer};
pub use justify::JustifyRefused;
pub use ledger::{Later, Ledger, NotWritten};
pub use on_call::Rotas;
pub use slot::Change;
pub(crate) use slot::Known;
pub(crate) use view::rfc3339;
pub use view::{
    Delivery, DenialView, EscalationView, GlassView, IdentityView, JournalView, PrincipalView,
    ShownView, StepView, View, VoteView,
};
pub use waiter::Waiter;
pub use windows::{NoWindow, Surroundings, WindowView};

use crate::notify::{Message, Notice, Queue};
use slot::Slot;
use table::Table;

/// Changes that a slow subscriber may fall behind before it misses some.
const CHANGES: usize = 1_024;

/// The sweeper looks at least this often, whatever it expects.
const SWEEP: Duration = Duration::from_millis(500);

/// Reads both clocks; a test's own in tests.
pub type Clock = Arc<dyn Fn() -> Now + Send + Sync>;

/// The service; clones share it. Made inside of a runtime, which its tasks use.
#[derive(Clone)]
pub struct Approvals(Arc<Inner>);

struct Inner {
    config: HoldConfig,
    ledger: Arc<dyn Ledger>,
    clock: Clock,
    table: Mutex<Table>,
    windows: Mutex<windows::Windows>,
    /// Locked while one is closed, so that each is closed once.
    reviews: tokio::sync::Mutex<glass::Reviews>,
    rotas: OnceLock<Arc<dyn Rotas>>,
    around: OnceLock<Arc<dyn Surroundings>>,
    /// This node's name, and where other nodes' approvals are.
    elsewhere: OnceLock<(String, Arc<dyn Elsewhere>)>,
    taken: Mutex<handover::TakenOver>,
    guests: Mutex<guests::Guests>,
    away: Mutex<guests::Away>,
    closing: watch::Sender<bool>,
    /// The soonest deadline moved forward.
    sooner: Notify,
    notices: Option<Queue>,
    changes: broadcast::Sender<Change>,
    runtime: tokio::runtime::Handle,
}

/// Why a vote was not counted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VoteRefused {
    #[error("there is no approval `{0}`, or it was settled long ago")]
    Unknown(ApprovalId),
    #[error("{why}")]
    Refused {
        why: VoteError,
        /// What the approval is.
        state: State,
    },
    /// Nothing happened; the same vote may be cast again.
    #[error("the vote was not counted: {0}")]
    NotWritten(#[from] NotWritten),
    /// The node that owns the approval refused it.
    #[error("{}", .0.detail)]
    Elsewhere(Explained),
    /// It did not reach the node that owns the approval; it may be cast again.
    #[error("the vote was not counted: {0}")]
    NotDelivered(String),
}

impl Approvals {
    /// `notices` is the inbox of [`crate::notify::spawn`], where reviewers are to be told.
    pub fn new(
        config: HoldConfig,
        ledger: Arc<dyn Ledger>,
        clock: Clock,
        notices: Option<Queue>,
    ) -> Self {
        let approvals = Self(Arc::new(Inner {
            config,
            ledger,
            clock,
            table: Mutex::default(),
            windows: Mutex::default(),
            reviews: tokio::sync::Mutex::default(),
            rotas: OnceLock::new(),
            around: OnceLock::new(),
            elsewhere: OnceLock::new(),
            taken: Mutex::default(),
            guests: Mutex::default(),
            away: Mutex::default(),
            closing: watch::Sender::new(false),
            sooner: Notify::new(),
            notices,
            changes: broadcast::Sender::new(CHANGES),
            runtime: tokio::runtime::Handle::current(),
        }));
        approvals.start_sweeper();
        approvals
    }

    /// Answers [`holdpoint_core::gate::Action::Open`]. There is a [`Waiter`]
    /// with `Opened::Waiting` and only then.
    pub async fn open(&self, draft: Draft, now: Now) -> (Opened, Option<Waiter>) {
        let this = self.clone();
        let id = draft.id.clone();
        let session = draft.session.clone();
        let task = self.0.runtime.spawn(async move {
            let asked = this.0.elsewhere.get().map(|_| draft.clone());
            let (opened, slot) = this.open_now(draft, now).await;
            // Made here, so that it leaves by itself where nobody takes it.
            let waiter = match (&opened, slot, asked) {
                (_, Some(slot), _) => Some(Waiter::new(this.clone(), &slot, session)),
                (Opened::Waiting { approval, .. }, None, Some(asked)) => {
                    Some(Waiter::away(this.clone(), approval.clone(), asked))
                }
                _ => None,
            };
            (opened, waiter)
        });
        task.await.unwrap_or_else(|error| {
            tracing::error!(approval.id = %id, %error, "opening an approval failed");
            let denial = unavailable("HP-LIMIT", "no approval can be opened now");
            (Opened::Refused(denial), None)
        })
    }

    /// Without a slot, what is waited for is at another node.
    async fn open_now(&self, draft: Draft, now: Now) -> (Opened, Option<Arc<Slot>>) {
        let now = self.latest(now);
        let mut asked = false;
        loop {
            if let Some(denied) = self.table().denial(&draft.digest, now.mono_ns) {
                return (Opened::Refused(sticky(&denied, now)), None);
            }
            if let Some(approval) = self.window_for(&draft, now).await {
                return (Opened::Granted(approval), None);
            }
            let candidates = self.table().with_digest(&draft.digest);
            for slot in &candidates {
                if let Some(opened) = self.reuse(slot, &draft, now).await {
                    let slot = matches!(opened, Opened::Waiting { .. }).then(|| Arc::clone(slot));
                    return (opened, slot);
                }
            }
            // Once: an owner that gave one gives it to nobody else.
            if !std::mem::replace(&mut asked, true)
                && let Some(opened) = self.elsewhere(&draft, now).await
            {
                return (opened, None);
            }
            // Nothing was held while those were looked at: somebody may have
            // opened the same, or a reviewer may have denied it.
            match self.reserve(&draft, now, &candidates) {
                Err(Crowded::Again) => {}
                Err(Crowded::Refused(denial)) => return (Opened::Refused(denial), None),
                Ok((slot, cell)) => return self.begin(slot, cell).await,
            }
        }
    }

    /// Uses up an approval, at most once; or else one turn of its window, where it has one.
    ///
    /// # Errors
    /// It is not approved, was used, is for another command, or its time is over.
    pub async fn claim(
        &self,
        id: &ApprovalId,
        digest: &Digest,
        session: &SessionId,
        command: CommandId,
        now: Now,
    ) -> Result<Clearance, ClaimError> {
        if let Some(done) = self.claim_taken(id, (digest, session, command), now) {
            return done;
        }
        let refused = match self.claim_once(id, digest, session, command, now).await {
            Ok(clearance) => return Ok(clearance),
            Err(refused) => refused,
        };
        let window = self.claim_window(id, digest, session, command, now).await;
        window.unwrap_or(Err(refused))
    }

    async fn claim_once(
        &self,
        id: &ApprovalId,
        digest: &Digest,
        session: &SessionId,
        command: CommandId,
        now: Now,
    ) -> Result<Clearance, ClaimError> {
        let slot = self
            .table()
            .get(id)
            .ok_or(ClaimError::NotApproved("unknown"))?;
        let mut cell = slot.cell.lock().await;
        let clearance = cell
            .act()
            .claim(digest, session, command, self.latest(now))?;
        // From here to the end nothing is awaited: the claim cannot be half done.
        let waited = cell.sessions.remove(session);
        self.table().settled(&slot);
        let used = if waited {
            Message::Used
        } else {
            Message::UsedLater
        };
        self.announce(&slot, &cell, Some(used));
        Ok(clearance)
    }

    /// A session no longer waits. With `grant` the approval stays open (or
    /// approved) for the identical command; otherwise the last one to leave
    /// withdraws it, unless it was used.
    pub async fn leave(&self, id: &ApprovalId, session: &SessionId, grant: bool) {
        if self.leave_taken(id, session).await || self.leave_away(id, session, grant) {
            return;
        }
        let Some(slot) = self.table().get(id) else {
            return;
        };
        let (this, session) = (self.clone(), session.clone());
        let task = self
            .0
            .runtime
            .spawn(async move { this.leave_now(&slot, &session, grant).await });
        // A panic in there has been reported; the approval then ends at its deadline.
        let _ = task.await;
    }

    /// Casts a vote. When this returns, what it says is in the journal.
    ///
    /// # Errors
    /// The vote did not count.
    pub async fn vote(&self, vote: Vote, now: Now) -> Result<VoteOutcome, VoteRefused> {
        let id = vote.approval.clone();
        let Some(slot) = self.table().get(&id) else {
            return Err(VoteRefused::Unknown(id));
        };
        let this = self.clone();
        let task = self
            .0
            .runtime
            .spawn(async move { this.vote_now(&slot, vote, now).await });
        task.await.unwrap_or_else(|error| {
            tracing::error!(approval.id = %id, %error, "counting a vote failed");
            Err(NotWritten("counting it failed, see the log".to_owned()).into())
        })
    }

    /// Ends every live approval and every window that `identity` stands behind or has voted
    /// for: what somebody approved who may act no more is to be asked again. Gives how
    /// many approvals.
    pub async fn revoke_principal(&self, identity: &Identity) -> usize {
        let mut slots = Vec::new();
        for slot in self.live() {
            let cell = slot.cell.lock().await;
            let behind = cell
                .approval
                .draft()
                .principal
                .behind()
                .any(|one| one == identity);
            let approved = cell.approval.votes().iter().any(|cast| {
                let reviewer = &cast.vote.reviewer;
                cast.vote.verdict == Verdict::Approve
                    && (reviewer.identity == *identity || reviewer.also.contains(identity))
            });
            drop(cell);
            if behind || approved {
                slots.push(slot);
            }
        }
        let ended = self.end_all(slots, State::Revoked).await;
        // After: what was approved meanwhile may have opened one.
        self.end_windows_of(identity).await;
        self.revoke_taken(identity).await;
        ended
    }

    /// For the end of the process: opens nothing more, orphans all that is live.
    pub async fn orphan_all(&self) {
        self.table().closed = true;
        self.0.closing.send_replace(true);
        let live = self.live();
        self.end_all(live, State::Orphaned).await;
        self.end_all_windows().await;
        self.end_taken("orphaned", |_, _| true).await;
    }

    /// All at once, so that their records share a sync. Gives how many this call ended.
    async fn end_all(&self, slots: Vec<Arc<Slot>>, state: State) -> usize {
        let tasks: Vec<_> = slots
            .into_iter()
            .map(|slot| {
                let (this, state) = (self.clone(), state.clone());
                self.0
                    .runtime
                    .spawn(async move { this.end(&slot, state).await })
            })
            .collect();
        let mut ended = 0;
        for task in tasks {
            ended += usize::from(task.await.unwrap_or(false));
        }
        ended
    }

    /// All that are remembered, the newest first.
    pub fn list(&self) -> Vec<Arc<View>> {
        let mut views: Vec<_> = self.table().all().iter().map(|slot| slot.view()).collect();
        views.sort_by(|a, b| (&b.opened_at, &b.id).cmp(&(&a.opened_at, &a.id)));
        views
    }

    pub fn get(&self, id: &ApprovalId) -> Option<Arc<View>> {
        self.table().get(id).map(|slot| slot.view())
    }

    /// Follows one approval.
    pub(crate) fn watch(&self, id: &ApprovalId) -> Option<watch::Receiver<Arc<Known>>> {
        self.table().get(id).map(|slot| slot.known.subscribe())
    }

    /// Every change from now on. A subscriber that falls behind misses some and is told.
    pub fn subscribe(&self) -> broadcast::Receiver<Change> {
        self.0.changes.subscribe()
    }

    pub fn pending(&self) -> usize {
        self.table().pending()
    }

    /// What became of a message to reviewers.
    pub(crate) async fn delivered(&self, id: &ApprovalId, delivery: Delivery) {
        let Some(slot) = self.table().get(id) else {
            return;
        };
        let mut cell = slot.cell.lock().await;
        cell.delivered(delivery);
        self.announce(&slot, &cell, None);
    }

    /// Writes to the journal for those who serve this service, such as the notifier.
    pub(crate) async fn record(
        &self,
        session: Option<SessionId>,
        entry: Entry,
        durability: Durability,
    ) -> Result<(), NotWritten> {
        let record = holdpoint_core::record::NewRecord {
            session,
            at: (self.0.clock)(),
            entry,
            blob: bytes::Bytes::new(),
        };
        self.0.ledger.write(record, durability).await
    }

    /// Does what is due: ends what is over, and escalates. Runs by itself at each deadline.
    pub async fn sweep(&self) {
        let now = (self.0.clock)();
        self.sweep_windows(now).await;
        self.sweep_taken(now).await;
        self.sweep_guests(now).await;
        let due = {
            let mut table = self.table();
            table.forget_denials(now.mono_ns);
            table.take_due(now.mono_ns)
        };
        let tasks: Vec<_> = due
            .into_iter()
            .map(|slot| {
                let this = self.clone();
                self.0.runtime.spawn(async move { this.due(&slot).await })
            })
            .collect();
        for task in tasks {
            let _ = task.await;
        }
    }

    fn start_sweeper(&self) {
        let inner = Arc::downgrade(&self.0);
        self.0.runtime.spawn(async move {
            // Does not keep the service alive.
            while let Some(inner) = inner.upgrade() {
                let this = Self(inner);
                this.sweep().await;
                let wait = {
                    let now = (this.0.clock)().mono_ns;
                    let next = this.table().next_due();
                    next.map_or(SWEEP, |at| {
                        Duration::from_nanos(at.saturating_sub(now)).min(SWEEP)
                    })
                };
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = this.0.sooner.notified() => {}
                }
            }
        });
    }

    fn live(&self) -> Vec<Arc<Slot>> {
        self.table().live()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The caller's reading or ours, whichever is later: it may have waited for its turn.
    fn latest(&self, now: Now) -> Now {
        let ours = (self.0.clock)();
        if ours.mono_ns > now.mono_ns {
            ours
        } else {
            now
        }
    }

    /// Shows the world what the cell holds, and tells reviewers if there is something to tell.
    fn announce(&self, slot: &Slot, cell: &slot::Cell, message: Option<Message>) {
        let known = Arc::new(cell.known(self.0.ledger.head()));
        slot.known.send_replace(Arc::clone(&known));
        if let Some((notices, message)) = self.0.notices.as_ref().zip(message) {
            notices.tell(Notice {
                message,
                approval: slot.id.clone(),
                session: cell.approval.draft().session.clone(),
                // Its own, so that the view goes when the messages are out.
                about: Change::of(Arc::clone(&known)),
            });
        }
        // Nobody may be listening.
        let _ = self.0.changes.send(Change::of(known));
    }
}

enum Crowded {
    Again,
    Refused(Denial),
}

fn unavailable(code: &str, message: &str) -> Denial {
    Denial::new(Kind::Unavailable, code, message)
}

fn sticky(denied: &table::Denied, now: Now) -> Denial {
    let seconds = denied
        .until_mono_ns
        .saturating_sub(now.mono_ns)
        .div_ceil(1_000_000_000);
    Denial::new(
        Kind::Denied,
        "HP-DENIED",
        format!("denied by {}: {}", escape_line(denied.label.as_bytes()), denied.reason),
    )
    .detail(format!(
        "not executed; approval {} was denied, and that answer stands for this command for {seconds} s",
        denied.approval
    ))
    .hint("do something else; do not rephrase it to get around the answer")
}
