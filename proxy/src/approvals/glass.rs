//! Breaking the glass, and looking into it afterwards.
//!
//! The command goes as if it had been approved, under its own entry and with an alarm.
//! What is to be looked into outlives this process: the journal has it, and gives it
//! back at the next start.

use std::collections::BTreeMap;
use std::sync::Arc;

use holdpoint_core::Now;
use holdpoint_core::approval::{BreakGlass, Reviewer, State, VoteError, may_review};
use holdpoint_core::id::ApprovalId;
use holdpoint_core::record::tracker::OpenReview;
use holdpoint_core::record::{Durability, Entry};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::on_call::{explained, lists};
use super::slot::Slot;
use super::steps::settled;
use super::view::{GlassView, reviewers, rfc3339};
use super::{Approvals, IdentityView, PrincipalView, ShownView, VoteRefused};
use crate::notify::Message;

pub(super) type Reviews = BTreeMap<ApprovalId, OpenReview>;

/// A command that went by a broken glass and that nobody else has looked into yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReviewView {
    /// The approval.
    pub id: String,
    pub digest: String,
    pub session: String,
    pub target: String,
    pub principal: PrincipalView,
    pub rule: String,
    pub shown: ShownView,
    pub glass: GlassView,
    /// Any of these may look into it, but for who broke the glass or is behind the request.
    pub reviewers: Vec<String>,
    /// The node whose journal has it, where that is not the one that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

impl Approvals {
    /// What earlier processes left to be looked into.
    pub async fn keep_reviews(&self, open: impl IntoIterator<Item = OpenReview>) {
        let mut reviews = self.0.reviews.lock().await;
        for review in open {
            reviews.insert(review.draft.id.clone(), review);
        }
    }

    /// All that is to be looked into, the oldest first.
    pub async fn reviews(&self) -> Vec<ReviewView> {
        let reviews = self.0.reviews.lock().await;
        let mut all: Vec<&OpenReview> = reviews.values().collect();
        all.sort_by_key(|review| review.glass.at);
        all.into_iter().map(view).collect()
    }

    /// Lets a held command go at once.
    ///
    /// # Errors
    /// It did not count.
    pub async fn break_glass(&self, glass: BreakGlass, now: Now) -> Result<State, VoteRefused> {
        let id = glass.approval.clone();
        let Some(slot) = self.table().get(&id) else {
            return Err(VoteRefused::Unknown(id));
        };
        let this = self.clone();
        let task = self
            .0
            .runtime
            .spawn(async move { this.break_now(&slot, glass, now).await });
        task.await.unwrap_or_else(|error| {
            tracing::error!(approval.id = %id, %error, "breaking the glass failed");
            Err(super::NotWritten("it failed, see the log".to_owned()).into())
        })
    }

    async fn break_now(
        &self,
        slot: &Slot,
        mut glass: BreakGlass,
        now: Now,
    ) -> Result<State, VoteRefused> {
        let untold = self.place(&mut glass.by, &slot.on_call).await;
        let mut cell = slot.cell.lock().await;
        if !cell.recorded {
            return Err(VoteRefused::Unknown(glass.approval));
        }
        let now = self.latest(now);
        glass.at = now.unix();
        let draft = Arc::clone(cell.approval.draft());
        let session = Some(draft.session.clone());
        let state = match cell.approval.judge_glass(&glass, now) {
            Ok(state) => state,
            Err(why) => {
                let why = explained(why, &draft.rule, untold.as_ref());
                let refused = Entry::BreakGlass {
                    glass: Box::new(glass),
                    refused: Some(why.to_string()),
                };
                if let Err(error) = self.record(session, refused, Durability::Written).await {
                    tracing::error!(%error, "a refused attempt at the glass is not in the journal");
                }
                let state = cell.approval.state().clone();
                return Err(VoteRefused::Refused { why, state });
            }
        };
        let entry = Entry::BreakGlass {
            glass: Box::new(glass.clone()),
            refused: None,
        };
        // The second record's sync takes the first one along.
        self.record(session.clone(), entry, Durability::Written)
            .await?;
        let settled = settled(slot, &state, None);
        self.record(session, settled, Durability::Synced).await?;
        let done = cell.act().break_glass(glass.clone(), now);
        let state = done.map_err(|why| VoteRefused::Refused {
            why,
            state: cell.approval.state().clone(),
        })?;
        tracing::warn!(
            approval.id = %slot.id, by = %glass.by.identity.subject, target = draft.target,
            "the glass was broken: a held command goes without its reviewers"
        );
        let review = OpenReview {
            draft: Arc::clone(&draft),
            glass,
        };
        self.0.reviews.lock().await.insert(slot.id.clone(), review);
        self.apply(slot, &mut cell, &state, now);
        self.announce(slot, &cell, Some(Message::BrokenGlass));
        Ok(state)
    }

    /// Closes what was to be looked into.
    ///
    /// # Errors
    /// There is no such thing, this reviewer may not, or the journal does not take it.
    pub async fn review(
        &self,
        id: &ApprovalId,
        by: Reviewer,
        note: Option<String>,
    ) -> Result<(), VoteRefused> {
        let (this, approval) = (self.clone(), id.clone());
        let task = self
            .0
            .runtime
            .spawn(async move { this.review_now(&approval, by, note).await });
        task.await.unwrap_or_else(|error| {
            tracing::error!(approval.id = %id, %error, "closing a review failed");
            Err(super::NotWritten("it failed, see the log".to_owned()).into())
        })
    }

    async fn review_now(
        &self,
        id: &ApprovalId,
        mut by: Reviewer,
        note: Option<String>,
    ) -> Result<(), VoteRefused> {
        let missing = || VoteRefused::Unknown(id.clone());
        let open = self.0.reviews.lock().await.get(id).cloned();
        let open = open.ok_or_else(missing)?;
        let untold = self.place(&mut by, &lists(&open.draft.hold)).await;
        may_review(&open.draft, &open.glass, &by).map_err(|why| VoteRefused::Refused {
            why: explained(why, &open.draft.rule, untold.as_ref()),
            state: State::Approved { by: Vec::new() },
        })?;
        let note = note.filter(|note| !note.trim().is_empty());
        if note
            .as_ref()
            .is_some_and(|note| note.len() > super::MAX_REASON)
        {
            return Err(VoteRefused::Refused {
                why: VoteError::LongReason(super::MAX_REASON),
                state: State::Approved { by: Vec::new() },
            });
        }
        let session = open.draft.session.clone();
        {
            // Held while it is written: it closes once.
            let mut reviews = self.0.reviews.lock().await;
            if !reviews.contains_key(id) {
                return Err(missing());
            }
            let entry = Entry::Reviewed {
                approval: id.clone(),
                by: by.clone(),
                note,
            };
            self.record(Some(session), entry, Durability::Synced)
                .await?;
            reviews.remove(id);
        }
        // Only if it is remembered still.
        let slot = self.table().get(id);
        if let Some(slot) = slot {
            let mut cell = slot.cell.lock().await;
            cell.reviewed_by = Some(by.identity);
            self.announce(&slot, &cell, Some(Message::Reviewed));
        }
        Ok(())
    }
}

fn view(review: &OpenReview) -> ReviewView {
    let OpenReview { draft, glass } = review;
    let mut people = Vec::new();
    for set in draft.hold.steps.iter().flat_map(|step| step.everyone()) {
        let set = reviewers(set);
        if !people.contains(&set) {
            people.push(set);
        }
    }
    ReviewView {
        id: draft.id.to_string(),
        digest: draft.digest.to_string(),
        session: draft.session.to_string(),
        target: draft.target.clone(),
        principal: (&*draft.principal).into(),
        rule: draft.rule.clone(),
        shown: (&draft.shown).into(),
        glass: GlassView::of(glass, None),
        reviewers: people,
        node: None,
    }
}

impl GlassView {
    pub(super) fn of(
        glass: &BreakGlass,
        reviewed_by: Option<&holdpoint_core::principal::Identity>,
    ) -> Self {
        Self {
            by: IdentityView::from(&glass.by.identity),
            label: holdpoint_core::display::escape_line(glass.by.label.as_bytes()),
            reason: holdpoint_core::display::escape(glass.reason.as_bytes()),
            at: rfc3339(glass.at.saturating_mul(1_000_000_000)),
            reviewed_by: reviewed_by.map(Into::into),
        }
    }
}
