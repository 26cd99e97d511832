//! The strictest of several outcomes.
//!
//! Two holds are both satisfied by the larger quorum from reviewers that both
//! name, so that is what they become. Where they name none in common, nobody
//! could be shown to satisfy both, and the command is refused with the names of the two rules.

use crate::decision::{Hold, Outcome};

/// An outcome and the rule it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) rule: String,
    pub(super) outcome: Outcome,
}

pub(super) const CONFLICT: &str = "conflicting-holds";
pub(super) const HOUSEKEEPING: &str = "housekeeping";

/// The strictest of both; of equals, the first.
pub(super) fn strictest(one: Found, two: Found) -> Found {
    match (&one.outcome, &two.outcome) {
        (Outcome::Deny { .. }, _) => one,
        (_, Outcome::Deny { .. }) => two,
        (Outcome::Hold(first), Outcome::Hold(second)) => match both(first, second) {
            Some(hold) => Found {
                rule: if second.quorum > first.quorum {
                    two.rule
                } else {
                    one.rule
                },
                outcome: Outcome::Hold(hold),
            },
            None => Found {
                outcome: Outcome::Deny {
                    message: Some(format!(
                        "`{}` and `{}` hold this for different reviewers; send its parts one at a time",
                        one.rule, two.rule
                    )),
                },
                rule: CONFLICT.to_owned(),
            },
        },
        (Outcome::Hold(_), Outcome::Allow) => one,
        (Outcome::Allow, Outcome::Hold(_)) => two,
        // A rule says more than that something was housekeeping.
        (Outcome::Allow, Outcome::Allow) if one.rule == HOUSEKEEPING => two,
        (Outcome::Allow, Outcome::Allow) => one,
    }
}

fn both(one: &Hold, two: &Hold) -> Option<Hold> {
    let shared = |reviewer: &&crate::decision::Reviewers| two.reviewers.contains(reviewer);
    let reviewers: Vec<_> = one.reviewers.iter().filter(shared).cloned().collect();
    let reason = match (&one.reason, &two.reason) {
        (Some(one), Some(two)) if one != two => Some(format!("{one}; {two}")),
        (one, two) => one.clone().or_else(|| two.clone()),
    };
    (!reviewers.is_empty()).then(|| Hold {
        reviewers,
        quorum: one.quorum.max(two.quorum),
        expires_in: one.expires_in.min(two.expires_in),
        reason,
    })
}
