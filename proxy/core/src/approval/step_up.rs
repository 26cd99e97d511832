//! What an approval may need beyond its voter: a recent sign-in, and their own signature.
//!
//! A stolen token or an open browser is then not enough to approve. A denial needs neither:
//! stopping a command is never to be made hard.
//!
//! Limits: a sign-in is dated by the issuer's wall clock and judged by ours. Whoever sets ours back
//! makes a sign-in look younger by as much.

use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::{Reviewer, Verdict, Vote, VoteError};
use crate::decision::{Hold, Window};
use crate::id::{ApprovalId, Digest};
use crate::source::Span;

/// Seconds by which an issuer's clock may be ahead of ours.
const AHEAD: u64 = 60;

/// How long ago somebody signed in, where that is not as a rule wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignIn {
    #[error("when you signed in is not known here")]
    Unknown,
    #[error("you signed in {} ago", Span(Duration::from_secs(*.0)))]
    Old(u64),
    /// Of a clock that is wrong, or of somebody's making.
    #[error("the time at which you signed in has not come yet")]
    Future,
}

impl SignIn {
    /// Whether somebody who signed in at `auth_time` did so within `max` before `unix`.
    ///
    /// # Errors
    /// They did not, or nobody can tell.
    pub fn within(auth_time: Option<u64>, max: Duration, unix: u64) -> Result<(), Self> {
        let at = auth_time.ok_or(Self::Unknown)?;
        if at > unix.saturating_add(AHEAD) {
            return Err(Self::Future);
        }
        let age = unix.saturating_sub(at);
        if age > max.as_secs() {
            return Err(Self::Old(age));
        }
        Ok(())
    }
}

/// What a security key signs for a vote: which approval, of which command, how it is decided
/// and for how long, and a number that is used once.
pub fn challenge(
    approval: &ApprovalId,
    digest: &Digest,
    verdict: Verdict,
    window: Option<Window>,
    nonce: &str,
) -> [u8; 32] {
    let decision = match (verdict, window) {
        (Verdict::Deny, _) => "deny".to_owned(),
        (Verdict::Approve, None) => "approve".to_owned(),
        (Verdict::Approve, Some(window)) => format!("approve for {window}"),
    };
    let mut hash = Sha256::new_with_prefix(b"holdpoint.vote.v1\0");
    for part in [
        approval.as_str().as_bytes(),
        &digest.0,
        decision.as_bytes(),
        nonce.as_bytes(),
    ] {
        // Each with its length, so that nothing can be moved from one part to the next.
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

impl Vote {
    /// See [`challenge`].
    pub fn challenge(&self, nonce: &str) -> [u8; 32] {
        challenge(
            &self.approval,
            &self.digest,
            self.verdict,
            self.window,
            nonce,
        )
    }
}

/// Whether `reviewer` signed in as recently as `hold` asks.
pub(super) fn recent(
    hold: &Hold,
    rule: &str,
    reviewer: &Reviewer,
    unix: u64,
) -> Result<(), VoteError> {
    let Some(max) = hold.step_up else {
        return Ok(());
    };
    SignIn::within(reviewer.auth_time, max, unix).map_err(|why| VoteError::StepUp {
        rule: rule.to_owned(),
        max: Span(max).to_string(),
        why,
    })
}

/// Whether an approval is signed as `hold` asks. What was signed without being asked for has
/// to be right as well.
pub(super) fn signed(hold: &Hold, rule: &str, vote: &Vote) -> Result<(), VoteError> {
    match &vote.assertion {
        None if hold.webauthn => Err(VoteError::NotSigned(rule.to_owned())),
        None => Ok(()),
        Some(assertion) => assertion
            .check(&vote.challenge(&assertion.nonce))
            .map(|_| ())
            .map_err(VoteError::Signature),
    }
}
