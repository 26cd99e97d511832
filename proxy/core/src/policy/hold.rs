//! From a rule's `hold` to who decides what in which order.
//!
//! `owner` stands for the owners of whatever target a command is for, so it is only
//! replaced when a decision is made; a target without owners has nobody who could
//! decide, and the command is refused then.

use std::time::Duration;

use super::compile::Compiler;
use super::{Ask, raw, who};
use crate::decision::{Escalation, Hold, Outcome, Reviewers, Step, Window};
use crate::source::{At, Span};

pub(super) const DEFAULT_EXPIRY: Duration = Duration::from_secs(30 * 60);

/// More agreements than anyone would wait for.
const MAX_STEPS: usize = 8;

/// Nobody comes back from a sign-in and reads what they approve any faster.
const MIN_STEP_UP: Duration = Duration::from_secs(10);

/// A window is a leave for the work at hand, not a rule.
const MAX_WINDOW: Duration = Duration::from_secs(24 * 3600);

impl Compiler<'_> {
    pub(super) fn hold(&mut self, at: &At, id: &str, raw: &raw::Hold) -> Outcome {
        let steps = self.steps(at, id, raw);
        let expires_in = raw.expires_in.map_or(DEFAULT_EXPIRY, |span| span.0);
        if expires_in.is_zero() {
            self.fault(&at.key("expires_in"), "nobody could decide in no time", "");
        }
        for (n, step) in steps.iter().enumerate() {
            let late = step.escalate.iter().any(|more| more.after >= expires_in);
            if late {
                self.warn(format!(
                    "step {} of `{id}` escalates after the time to decide is over: it never does",
                    n + 1
                ));
            }
        }
        let windows = self.windows(
            &at.key("windows"),
            raw.windows.as_deref().unwrap_or_default(),
        );
        let glass = at.key("break_glass");
        if raw.break_glass.as_ref().is_some_and(Vec::is_empty) {
            self.fault(&glass, "an empty list lets nobody", "remove it");
        }
        let break_glass = self.people(&glass, raw.break_glass.as_deref().unwrap_or_default());
        let step_up = raw.step_up.map(|span| span.0);
        if step_up.is_some_and(|max| max < MIN_STEP_UP) {
            let message = format!(
                "at least {}: nobody could sign in and vote in time",
                Span(MIN_STEP_UP)
            );
            self.fault(&at.key("step_up"), message, "");
        }
        if steps.iter().any(|step| step.reviewers.is_empty()) {
            self.warn(format!(
                "`{id}` holds for reviewers but names none: what it matches is refused"
            ));
            return Outcome::Deny {
                message: Some("the rule that would hold this names no reviewers".to_owned()),
            };
        }
        Outcome::Hold(Hold {
            steps,
            expires_in,
            reason: raw.reason.clone(),
            justify: raw.justify,
            windows,
            break_glass,
            step_up,
            webauthn: raw.webauthn,
        })
    }

    fn steps(&mut self, at: &At, id: &str, raw: &raw::Hold) -> Vec<Step> {
        let list = at.key("steps");
        match (&raw.reviewers, &raw.steps) {
            (Some(_), Some(_)) => {
                let help = "keep `steps`, or the short form of one step";
                self.fault(&list, "`reviewers` and `steps` both say who decides", help);
                Vec::new()
            }
            (None, None) => {
                let help = "add `reviewers = [\"group:…\"]`, or `steps`";
                self.fault(at, "nobody is named who could decide", help);
                Vec::new()
            }
            (Some(reviewers), None) => {
                let (quorum, escalate) = (raw.quorum, raw.escalate.as_ref());
                vec![self.step(at, id, reviewers, quorum, escalate)]
            }
            (None, Some(steps)) => {
                for (key, is) in [
                    ("quorum", raw.quorum.is_some()),
                    ("escalate", raw.escalate.is_some()),
                ] {
                    if is {
                        self.fault(&at.key(key), "belongs into a step here", "");
                    }
                }
                if steps.is_empty() || steps.len() > MAX_STEPS {
                    self.fault(&list, format!("a hold has 1 to {MAX_STEPS} steps"), "");
                }
                let numbered = steps.iter().enumerate();
                numbered
                    .map(|(n, step)| {
                        let (quorum, escalate) = (step.quorum, step.escalate.as_ref());
                        self.step(&list.index(n), id, &step.reviewers, quorum, escalate)
                    })
                    .collect()
            }
        }
    }

    fn step(
        &mut self,
        at: &At,
        id: &str,
        reviewers: &[String],
        quorum: Option<u32>,
        escalate: Option<&raw::Escalate>,
    ) -> Step {
        let reviewers = self.people(&at.key("reviewers"), reviewers);
        let quorum = quorum.unwrap_or(1);
        if quorum == 0 {
            self.fault(
                &at.key("quorum"),
                "at least one person must approve",
                "write a rule with `allow = true` instead",
            );
        }
        let escalate = escalate.map(|raw| {
            let here = at.key("escalate");
            if raw.after.0.is_zero() {
                let help = "name those people among the step's own `reviewers`";
                self.fault(&here.key("after"), "no time passes before it", help);
            }
            if raw.reviewers.is_empty() {
                self.fault(&here.key("reviewers"), "an empty list adds nobody", "");
            }
            Escalation {
                after: raw.after.0,
                reviewers: self.people(&here.key("reviewers"), &raw.reviewers),
            }
        });
        let step = Step {
            reviewers,
            quorum,
            escalate,
        };
        let person = |set: &Reviewers| matches!(set, Reviewers::Person { .. });
        let people = step.everyone().count();
        if people > 0 && step.everyone().all(person) && people < quorum as usize {
            self.warn(format!(
                "`{id}` wants {quorum} approvals from {people} people: what it matches will expire"
            ));
        }
        step
    }

    fn people(&mut self, at: &At, texts: &[String]) -> Vec<Reviewers> {
        let mut people = Vec::new();
        for (n, text) in texts.iter().enumerate() {
            match who::deciders(text, self.issuers) {
                Ok(one) if people.contains(&one) => {}
                Ok(one) => {
                    if let Reviewers::OnCall(list) = &one {
                        self.asks_list(&at.index(n), list);
                    }
                    people.push(one);
                }
                Err(message) => self.fault(&at.index(n), message, ""),
            }
        }
        people
    }

    fn windows(&mut self, at: &At, texts: &[String]) -> Vec<Window> {
        let mut windows = Vec::new();
        for (n, text) in texts.iter().enumerate() {
            match text.parse() {
                Ok(Window::For(time)) if time > MAX_WINDOW => {
                    let message = format!("at most {}: write a rule instead", Span(MAX_WINDOW));
                    self.fault(&at.index(n), message, "");
                }
                Ok(one) if windows.contains(&one) => {}
                Ok(one) => windows.push(one),
                Err(message) => self.fault(&at.index(n), message, ""),
            }
        }
        windows
    }
}

/// A rule's outcome for one target: with its owners in place of `owner`. Where the
/// target is not known, as in trials of rules, `owner` stays.
pub(super) fn at_target(outcome: &Outcome, rule: &str, ask: &Ask<'_>) -> Outcome {
    let (Outcome::Hold(hold), Some(owners)) = (outcome, ask.owners) else {
        return outcome.clone();
    };
    if !hold.everyone().any(|set| *set == Reviewers::Owner) {
        return outcome.clone();
    }
    let mut hold = hold.clone();
    for step in &mut hold.steps {
        step.reviewers = with_owners(&step.reviewers, owners);
        if step.reviewers.is_empty() {
            return Outcome::Deny {
                message: Some(format!(
                    "`{rule}` wants the owners of target `{}` to decide, and it has none",
                    ask.target
                )),
            };
        }
        if let Some(more) = &mut step.escalate {
            more.reviewers = with_owners(&more.reviewers, owners);
        }
    }
    hold.break_glass = with_owners(&hold.break_glass, owners);
    Outcome::Hold(hold)
}

fn with_owners(sets: &[Reviewers], owners: &[Reviewers]) -> Vec<Reviewers> {
    let mut all: Vec<Reviewers> = Vec::new();
    for set in sets {
        let these = match set {
            Reviewers::Owner => owners,
            other => std::slice::from_ref(other),
        };
        for one in these {
            if !all.contains(one) {
                all.push(one.clone());
            }
        }
    }
    all
}
