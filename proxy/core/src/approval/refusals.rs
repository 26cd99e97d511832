//! Why something does not count. Each has a sentence for whoever is refused.

use super::SignIn;
use crate::webauthn::WebauthnError;

/// Why a vote, or another act of a reviewer, does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VoteError {
    #[error("this approval is already {0}")]
    Final(&'static str),
    #[error("the digest is not the one of this approval: reload it and look again")]
    Digest,
    #[error("you are behind this request yourself, so you cannot decide it")]
    Own,
    #[error("agents cannot review")]
    Agent,
    #[error("you are not among the reviewers of rule `{0}`")]
    NotEligible(String),
    #[error("step {step} of {of} of rule `{rule}` is not yours to decide now")]
    OtherStep { rule: String, step: u32, of: u32 },
    #[error("you approved an earlier step: another person must approve this one")]
    EarlierStep,
    /// Whether somebody is on call could not be told, so nobody is.
    #[error("you are not among the reviewers of rule `{rule}` as far as could be told: {why}")]
    OnCall { rule: String, why: String },
    #[error("the requester has not said why yet, and rule `{0}` asks for that first")]
    NotJustified(String),
    #[error("rule `{rule}` does not offer `{window}`: approve it once{}", offers(.offered))]
    NoWindow {
        rule: String,
        window: String,
        offered: Vec<String>,
    },
    #[error("rule `{rule}` wants a sign-in of the last {max} before an approval, and {why}")]
    StepUp {
        rule: String,
        max: String,
        why: SignIn,
    },
    #[error("rule `{0}` wants approvals signed by your security key")]
    NotSigned(String),
    #[error("the security key's signature is not good for this vote: {0}")]
    Signature(WebauthnError),
    #[error("a denial needs a reason: it is what the agent is told")]
    NoReason,
    #[error("breaking the glass needs a reason: others will review it")]
    NoCause,
    #[error("the reason is too long: at most {0} bytes")]
    LongReason(usize),
    #[error("rule `{0}` lets you break no glass")]
    NoGlass(String),
    #[error("you broke the glass: somebody else reviews it")]
    OwnGlass,
    #[error("you have voted otherwise before; the first vote stands")]
    Changed,
    #[error("the time for this decision is over")]
    Expired,
}

fn offers(offered: &[String]) -> String {
    if offered.is_empty() {
        return String::new();
    }
    let offered: Vec<String> = offered.iter().map(|one| format!("`{one}`")).collect();
    format!(", or for {}", offered.join(", "))
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    #[error("the approval is {0}, not approved")]
    NotApproved(&'static str),
    #[error("the approval was used already")]
    Used,
    #[error("the approval is for another command")]
    Digest,
    #[error("the approval is for another session")]
    Session,
    #[error("the approval's time is over")]
    Expired,
    #[error("the journal does not take the claim")]
    NotWritten,
}

/// Why a justification is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JustifyError {
    #[error("this approval is already {0}")]
    Final(&'static str),
    #[error("the time for this decision is over")]
    Expired,
    /// Not to be told apart from an approval that does not exist.
    #[error("this approval is somebody else's")]
    NotYours,
    #[error("rule `{0}` asks for no justification")]
    NotAsked(String),
    #[error("it was justified before; the first justification stands")]
    Already,
    #[error("a justification says something")]
    Empty,
    #[error("the justification is too long: at most {0} bytes")]
    TooLong(usize),
}
