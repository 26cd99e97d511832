//! A command that may run again: what its reviewers allowed beyond once.
//!
//! A window opens with its approval, and only as wide as the narrowest of the
//! approvals that led there. It lets the identical command of the same principal
//! pass without asking again; each time is a claim of its own, which its owner
//! writes to the journal before it counts. The digest names the rules, so a change
//! of rules ends it; its owner ends it too when its session or its principal goes.
//! Commands of other nodes have it from its owner, one use at a time.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{ClaimError, Clearance, Draft, Verdict, Vote};
use crate::Now;
use crate::decision::Window;
use crate::id::{CommandId, Digest, SessionId};

/// How far a window reaches. Both limits count where both are there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// Commands of this session only.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub session: Option<SessionId>,
    /// Milliseconds from the approval; without it the session's end is the end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub for_ms: Option<u64>,
}

impl Reach {
    /// What all who approved allow; `None` where one of them said once.
    pub fn of<'a>(votes: impl Iterator<Item = &'a Vote>, session: &SessionId) -> Option<Self> {
        let mut reach = Self {
            session: None,
            for_ms: None,
        };
        let mut some = false;
        for vote in votes.filter(|vote| vote.verdict == Verdict::Approve) {
            some = true;
            match vote.window? {
                Window::Session => reach.session = Some(session.clone()),
                Window::For(time) => {
                    let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
                    reach.for_ms = Some(reach.for_ms.map_or(ms, |other| other.min(ms)));
                }
            }
        }
        some.then_some(reach)
    }
}

/// A window in force. Its owner keeps exactly one of it.
#[derive(Debug)]
pub struct OpenWindow {
    draft: Arc<Draft>,
    reach: Reach,
    /// Monotonic nanoseconds.
    until: Option<u64>,
    uses: u64,
}

impl OpenWindow {
    /// For [`super::Approval`], which knows that it was approved so.
    pub(super) fn new(draft: Arc<Draft>, reach: Reach, now: Now) -> Self {
        let until = reach
            .for_ms
            .map(|ms| now.deadline(std::time::Duration::from_millis(ms)));
        Self {
            draft,
            reach,
            until,
            uses: 0,
        }
    }

    pub fn draft(&self) -> &Arc<Draft> {
        &self.draft
    }

    pub fn reach(&self) -> &Reach {
        &self.reach
    }

    pub fn until_mono_ns(&self) -> Option<u64> {
        self.until
    }

    /// Claims so far.
    pub fn uses(&self) -> u64 {
        self.uses
    }

    pub fn is_over(&self, now: Now) -> bool {
        self.until.is_some_and(|until| now.mono_ns >= until)
    }

    /// Whether a command that asks for `draft` need not ask: see
    /// [`super::Approval::serves`].
    pub fn serves(&self, draft: &Draft, now: Now) -> bool {
        self.draft.same_request(draft)
            && self.draft.policy == draft.policy
            && draft.hold.met_by(&self.draft.hold)
            && self.claimable(&draft.digest, &draft.session, now).is_ok()
    }

    /// What [`OpenWindow::claim`] would say. Changes nothing.
    ///
    /// # Errors
    /// It does not cover the command, for the reason given.
    pub fn claimable(
        &self,
        digest: &Digest,
        session: &SessionId,
        now: Now,
    ) -> Result<(), ClaimError> {
        if *digest != self.draft.digest {
            return Err(ClaimError::Digest);
        }
        if self
            .reach
            .session
            .as_ref()
            .is_some_and(|own| own != session)
        {
            return Err(ClaimError::Session);
        }
        if self.is_over(now) {
            return Err(ClaimError::Expired);
        }
        Ok(())
    }

    /// Whether a command of another node, which asks for `draft`, may have a use of it: as
    /// [`OpenWindow::serves`], and of exactly the same principal. What is for one session is
    /// for no other node.
    pub fn serves_elsewhere(&self, draft: &Draft, now: Now) -> bool {
        self.reach.session.is_none()
            && self.serves(draft, now)
            && self.draft.principal.behind().eq(draft.principal.behind())
    }

    /// Lets one more command pass, once.
    ///
    /// # Errors
    /// It does not cover the command, for the reason given; nothing changed.
    pub fn claim(
        &mut self,
        digest: &Digest,
        session: &SessionId,
        command: CommandId,
        now: Now,
    ) -> Result<Clearance, ClaimError> {
        self.claimable(digest, session, now)?;
        self.uses = self.uses.saturating_add(1);
        Ok(Clearance::new(&self.draft.id, digest, session, command))
    }
}
