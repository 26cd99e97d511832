//! The strictest of several outcomes.
//!
//! Two holds of one plain step are both satisfied by the larger quorum from reviewers
//! that both name, so that is what they become. Where they name none in common, nobody
//! could be shown to satisfy both, and the command is refused with the names of the two rules.
//! Where one has several steps or escalates, the steps of both are asked, one after the other.

use crate::decision::{Hold, Outcome, Step};

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
                rule: if second.people() > first.people() {
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
    let reason = match (&one.reason, &two.reason) {
        (Some(one), Some(two)) if one != two => Some(format!("{one}; {two}")),
        (one, two) => one.clone().or_else(|| two.clone()),
    };
    Some(Hold {
        steps: steps(&one.steps, &two.steps)?,
        expires_in: one.expires_in.min(two.expires_in),
        reason,
        justify: one.justify || two.justify,
        windows: shared(&one.windows, &two.windows),
        break_glass: shared(&one.break_glass, &two.break_glass),
        step_up: match (one.step_up, two.step_up) {
            (Some(one), Some(two)) => Some(one.min(two)),
            (one, two) => one.or(two),
        },
        webauthn: one.webauthn || two.webauthn,
    })
}

fn steps(one: &[Step], two: &[Step]) -> Option<Vec<Step>> {
    let contains = |all: &[Step], some: &[Step]| {
        !some.is_empty() && all.windows(some.len()).any(|part| part == some)
    };
    if contains(one, two) {
        return Some(one.to_vec());
    }
    if contains(two, one) {
        return Some(two.to_vec());
    }
    if let ([first], [second]) = (one, two)
        && first.escalate.is_none()
        && second.escalate.is_none()
    {
        let reviewers = shared(&first.reviewers, &second.reviewers);
        let quorum = first.quorum.max(second.quorum);
        return (!reviewers.is_empty()).then(|| vec![Step::of(reviewers, quorum)]);
    }
    Some([one, two].concat())
}

fn shared<T: PartialEq + Clone>(one: &[T], two: &[T]) -> Vec<T> {
    let both = one.iter().filter(|item| two.contains(item));
    both.cloned().collect()
}
