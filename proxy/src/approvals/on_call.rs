//! Who is on call, asked when somebody decides.
//!
//! The lists are kept elsewhere; this asks only those that a rule names, and only
//! for the vote at hand. Whoever votes cannot bring the answer along. A list that
//! does not answer makes nobody eligible.

use holdpoint_core::approval::{Reviewer, VoteError};
use holdpoint_core::decision::{Hold, Reviewers};
use holdpoint_core::principal::Identity;

use super::{Approvals, Later};

/// Lists of people on call, by name.
pub trait Rotas: Send + Sync {
    /// Who is on call by this list, now or a moment ago. An error is a clause for the
    /// reviewer and the log, without secrets.
    fn on_call<'a>(&'a self, list: &'a str) -> Later<'a, Result<Vec<Identity>, String>>;
}

/// The lists that a hold asks.
pub(super) fn lists(hold: &Hold) -> Vec<String> {
    let mut lists = Vec::new();
    for set in hold.everyone() {
        if let Reviewers::OnCall(list) = set
            && !lists.contains(list)
        {
            lists.push(list.clone());
        }
    }
    lists
}

impl Approvals {
    /// Where to ask; without it nobody is on call.
    pub fn ask_rotas(&self, rotas: std::sync::Arc<dyn Rotas>) {
        if self.0.rotas.set(rotas).is_err() {
            tracing::error!("the lists of who is on call were set twice; the first stay");
        }
    }

    /// Says of `reviewer` in which of `lists` they are on call, whatever it said before.
    /// Gives what could not be told.
    pub(super) async fn place(&self, reviewer: &mut Reviewer, lists: &[String]) -> Option<String> {
        reviewer.on_call.clear();
        let mut failed: Vec<String> = Vec::new();
        for list in lists {
            let answer = match self.0.rotas.get() {
                Some(rotas) => rotas.on_call(list).await,
                None => Err("no such list is configured".to_owned()),
            };
            match answer {
                Ok(people) if people.contains(&reviewer.identity) => {
                    reviewer.on_call.push(list.clone());
                }
                Ok(_) => {}
                Err(why) => {
                    tracing::warn!(list, why, "who is on call cannot be told, so nobody is");
                    failed.push(format!("who is on call by `{list}`: {why}"));
                }
            }
        }
        (!failed.is_empty()).then(|| failed.join("; "))
    }
}

/// Tells somebody who was not eligible that a list may be the reason.
pub(super) fn explained(why: VoteError, rule: &str, untold: Option<&String>) -> VoteError {
    match (why, untold) {
        (
            VoteError::NotEligible(_) | VoteError::OtherStep { .. } | VoteError::NoGlass(_),
            Some(untold),
        ) => VoteError::OnCall {
            rule: rule.to_owned(),
            why: untold.clone(),
        },
        (why, _) => why,
    }
}
