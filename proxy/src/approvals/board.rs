//! The seam between approvals and those who show them and vote: API, console, command line.
//!
//! One gateway alone answers from its own memory ([`Approvals`]); several that share a
//! store answer for all of them (`crate::cluster`). Both pass the same tests.

use std::sync::Arc;

use holdpoint_core::Now;
use holdpoint_core::approval::{BreakGlass, Reviewer, State, Vote, VoteOutcome};
use holdpoint_core::id::ApprovalId;
use holdpoint_core::principal::Identity;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use super::{Approvals, Change, JustifyRefused, Later, ReviewView, View, VoteRefused};

/// All approvals that can be seen from here, and the way to vote on them.
///
/// What is seen may be a moment old; a vote is judged by the node that owns the
/// approval, by what it is then.
pub trait Board: Send + Sync {
    /// All that are remembered, on every node, the newest first.
    fn list(&self) -> Vec<Arc<View>>;

    fn get(&self, id: &ApprovalId) -> Option<Arc<View>>;

    /// Resolves once the approval is decided; never before. `None` where it is not known.
    fn decided(&self, id: &ApprovalId) -> Option<Later<'static, Arc<View>>>;

    /// Every change from now on. A subscriber that falls behind misses some and is told.
    fn subscribe(&self) -> broadcast::Receiver<Change>;

    fn pending(&self) -> usize;

    /// Casts a vote. With [`Cast::Final`] what it says is in the owner's journal;
    /// with [`Cast::Submitted`] the owner has not answered yet, and may refuse.
    fn vote(&self, vote: Vote, now: Now) -> Later<'_, Result<Cast, VoteRefused>>;

    /// Takes the requester's words, as [`Board::vote`] takes a vote.
    fn justify<'a>(
        &'a self,
        id: &'a ApprovalId,
        by: Identity,
        text: String,
        now: Now,
    ) -> Later<'a, Result<Cast<()>, JustifyRefused>>;

    /// Lets a held command go at once, as [`Board::vote`] takes a vote. Gives the state's word.
    fn break_glass(
        &self,
        glass: BreakGlass,
        now: Now,
    ) -> Later<'_, Result<Cast<String>, VoteRefused>>;

    /// Closes what was to be looked into, as [`Board::vote`] takes a vote.
    fn review<'a>(
        &'a self,
        id: &'a ApprovalId,
        by: Reviewer,
        note: Option<String>,
    ) -> Later<'a, Result<Cast<()>, VoteRefused>>;

    /// All that is to be looked into, the oldest first; and the nodes that did not say.
    fn reviews(&self) -> Later<'_, (Vec<ReviewView>, Vec<String>)>;

    /// Whether the approvals of all nodes can be seen and decided here; otherwise why not.
    ///
    /// # Errors
    /// Some cannot. Those of this node can be, all the same.
    fn health(&self) -> Result<(), String> {
        Ok(())
    }
}

/// What became of a vote, or of what else is for the owner to decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cast<T = Counted> {
    /// Counted by the owner, and in its journal.
    Final(T),
    /// On its way to this node, which has not answered yet.
    Submitted { node: String },
}

/// A vote that counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// `counted` (more must approve), `advanced` (the next step is asked), `repeated` (this
    /// vote counted before), or `settled`.
    pub outcome: String,
    /// The approval's state now.
    pub state: String,
    pub approvals: u32,
    pub quorum: u32,
    /// The step that is asked now, and how many there are.
    #[serde(default)]
    pub step: u32,
    #[serde(default)]
    pub steps: u32,
}

/// How the node that owns an approval refused a vote, in words that travel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// HTTP status.
    pub status: u16,
    /// One of `docs/codes.md`.
    pub code: String,
    pub detail: String,
    pub hint: Option<String>,
    /// The approval's state, where that is why.
    pub state: Option<String>,
}

impl Board for Approvals {
    fn list(&self) -> Vec<Arc<View>> {
        Self::list(self)
    }

    fn get(&self, id: &ApprovalId) -> Option<Arc<View>> {
        Self::get(self, id)
    }

    fn decided(&self, id: &ApprovalId) -> Option<Later<'static, Arc<View>>> {
        let mut known = self.watch(id)?;
        Some(Box::pin(async move {
            // With the service gone, the state as it was.
            let _ = known
                .wait_for(|known| *known.approval.state() != State::Pending)
                .await;
            Arc::new(known.borrow().view())
        }))
    }

    fn subscribe(&self) -> broadcast::Receiver<Change> {
        Self::subscribe(self)
    }

    fn pending(&self) -> usize {
        Self::pending(self)
    }

    fn vote(&self, vote: Vote, now: Now) -> Later<'_, Result<Cast, VoteRefused>> {
        Box::pin(async move { self.cast(vote, now).await.map(Cast::Final) })
    }

    fn justify<'a>(
        &'a self,
        id: &'a ApprovalId,
        by: Identity,
        text: String,
        now: Now,
    ) -> Later<'a, Result<Cast<()>, JustifyRefused>> {
        Box::pin(async move {
            let done = Self::justify(self, id, by, text, now).await;
            done.map(Cast::Final)
        })
    }

    fn break_glass(
        &self,
        glass: BreakGlass,
        now: Now,
    ) -> Later<'_, Result<Cast<String>, VoteRefused>> {
        Box::pin(async move {
            let state = Self::break_glass(self, glass, now).await?;
            Ok(Cast::Final(state.word().to_owned()))
        })
    }

    fn review<'a>(
        &'a self,
        id: &'a ApprovalId,
        by: Reviewer,
        note: Option<String>,
    ) -> Later<'a, Result<Cast<()>, VoteRefused>> {
        Box::pin(async move { Self::review(self, id, by, note).await.map(Cast::Final) })
    }

    fn reviews(&self) -> Later<'_, (Vec<ReviewView>, Vec<String>)> {
        Box::pin(async move { (Self::reviews(self).await, Vec::new()) })
    }
}

impl Approvals {
    /// As [`Approvals::vote`], in the words of a board.
    ///
    /// # Errors
    /// The vote did not count.
    pub(crate) async fn cast(&self, vote: Vote, now: Now) -> Result<Counted, VoteRefused> {
        let id = vote.approval.clone();
        let outcome = Self::vote(self, vote, now).await?;
        let known = self.watch(&id).ok_or(VoteRefused::Unknown(id))?;
        let approval = &known.borrow().approval;
        let (word, state) = match &outcome {
            VoteOutcome::Counted { .. } => ("counted", approval.state()),
            VoteOutcome::Advanced { .. } => ("advanced", approval.state()),
            VoteOutcome::Repeated => ("repeated", approval.state()),
            VoteOutcome::Settled(state) => ("settled", state),
        };
        let (approvals, quorum) = approval.progress();
        Ok(Counted {
            outcome: word.to_owned(),
            state: state.word().to_owned(),
            approvals,
            quorum,
            step: approval.place().0,
            steps: u32::try_from(approval.draft().hold.steps.len()).unwrap_or(u32::MAX),
        })
    }
}
