//! Breaking the glass: one person lets a held command go at once, answers for it
//! with a name and a reason, and another person looks at it afterwards.

use serde::{Deserialize, Serialize};

use super::{Draft, Reviewer, VoteError, same_person};
use crate::decision::Step;
use crate::id::{ApprovalId, Digest};

/// A person's word that a held command has to go now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakGlass {
    pub approval: ApprovalId,
    /// Of what that person was shown.
    pub digest: Digest,
    pub by: Reviewer,
    /// Shown to everyone, and reviewed.
    pub reason: String,
    /// As for a vote.
    pub channel: String,
    /// Unix seconds.
    pub at: u64,
}

/// Whether `reviewer` may look into it afterwards: anyone who could have decided it
/// at some step, but neither who broke the glass nor who is behind the request.
///
/// # Errors
/// That reviewer may not, for the reason given.
pub fn may_review(
    draft: &Draft,
    broken: &BreakGlass,
    reviewer: &Reviewer,
) -> Result<(), VoteError> {
    if reviewer.agent {
        return Err(VoteError::Agent);
    }
    if same_person(&broken.by, reviewer) {
        return Err(VoteError::OwnGlass);
    }
    if draft.is_behind(reviewer) {
        return Err(VoteError::Own);
    }
    let mut sets = draft.hold.steps.iter().flat_map(Step::everyone);
    if sets.any(|set| reviewer.is_in(set)) {
        Ok(())
    } else {
        Err(VoteError::NotEligible(draft.rule.clone()))
    }
}
