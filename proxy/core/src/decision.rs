//! What policy says of a command.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::source::Span;

/// The verdict over a whole command: the strictest over its operations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Allow,
    Hold(Hold),
    Deny {
        /// The rule author's own words for the agent.
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
}

/// What it takes to release a held command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "HoldWords", into = "HoldWords")]
pub struct Hold {
    /// All of them, in this order. A hold without a step lets nobody decide.
    pub steps: Vec<Step>,
    /// How long the decision may take before the command expires, over all steps.
    pub expires_in: Duration,
    /// Shown to reviewers: why the rule holds.
    pub reason: Option<String>,
    /// The requester has to say why before anyone may approve.
    pub justify: bool,
    /// How else than once a reviewer may let it run.
    pub windows: Vec<Window>,
    /// Who may let it run at once in an emergency; reviewed afterwards.
    pub break_glass: Vec<Reviewers>,
    /// How long ago at most whoever approves has signed in.
    pub step_up: Option<Duration>,
    /// An approval has to be signed by the reviewer's security key.
    pub webauthn: bool,
}

/// One of the agreements that a hold needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Groups and people that may decide; in any of them is enough.
    pub reviewers: Vec<Reviewers>,
    /// How many distinct people must approve; at least 1.
    pub quorum: u32,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub escalate: Option<Escalation>,
}

/// Who may decide too once a step has waited for long. It passes nothing by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Escalation {
    /// From the step's beginning.
    pub after: Duration,
    pub reviewers: Vec<Reviewers>,
}

impl Hold {
    /// Whether what reviewers gave under `asked` is enough for this hold: it wants
    /// no more people at any step, and everyone who could decide then could decide now.
    pub fn met_by(&self, asked: &Hold) -> bool {
        let within = |some: &[Reviewers], all: &[Reviewers]| some.iter().all(|s| all.contains(s));
        self.steps.len() == asked.steps.len()
            && self
                .steps
                .iter()
                .zip(&asked.steps)
                .all(|(now, then)| now.met_by(then))
            && (asked.justify || !self.justify)
            && asked.windows.iter().all(|one| self.windows.contains(one))
            && within(&asked.break_glass, &self.break_glass)
            && match (self.step_up, asked.step_up) {
                (None, _) => true,
                (Some(now), Some(then)) => then <= now,
                (Some(_), None) => false,
            }
            && (asked.webauthn || !self.webauthn)
    }

    /// How many people must approve over all steps.
    pub fn people(&self) -> u32 {
        let all = self.steps.iter().map(|step| step.quorum.max(1));
        all.fold(0, u32::saturating_add)
    }

    /// Every set of people that may have a say at some time.
    pub fn everyone(&self) -> impl Iterator<Item = &Reviewers> {
        let steps = self.steps.iter().flat_map(Step::everyone);
        steps.chain(&self.break_glass)
    }
}

impl Step {
    pub fn of(reviewers: Vec<Reviewers>, quorum: u32) -> Self {
        Self {
            reviewers,
            quorum,
            escalate: None,
        }
    }

    /// Those who decide at once, and those who may later.
    pub fn everyone(&self) -> impl Iterator<Item = &Reviewers> {
        let later = self.escalate.iter().flat_map(|more| &more.reviewers);
        self.reviewers.iter().chain(later)
    }

    fn met_by(&self, asked: &Step) -> bool {
        let at_once = |set: &Reviewers| self.reviewers.contains(set);
        let in_time = |set: &Reviewers, after: Duration| {
            at_once(set)
                || self
                    .escalate
                    .as_ref()
                    .is_some_and(|mine| mine.after <= after && mine.reviewers.contains(set))
        };
        self.quorum <= asked.quorum
            && asked.reviewers.iter().all(at_once)
            && asked
                .escalate
                .iter()
                .all(|then| then.reviewers.iter().all(|set| in_time(set, then.after)))
    }
}

/// A hold as it is written. One plain step is written as it always was, so that
/// records of all versions read alike.
#[derive(Serialize, Deserialize)]
struct HoldWords {
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    reviewers: Vec<Reviewers>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    quorum: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    steps: Vec<Step>,
    expires_in: Duration,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    reason: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    justify: bool,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    windows: Vec<Window>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    break_glass: Vec<Reviewers>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    step_up: Option<Duration>,
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    webauthn: bool,
}

impl From<HoldWords> for Hold {
    fn from(words: HoldWords) -> Self {
        let mut steps = words.steps;
        if let Some(quorum) = words.quorum {
            steps.insert(0, Step::of(words.reviewers, quorum));
        }
        Self {
            steps,
            expires_in: words.expires_in,
            reason: words.reason,
            justify: words.justify,
            windows: words.windows,
            break_glass: words.break_glass,
            step_up: words.step_up,
            webauthn: words.webauthn,
        }
    }
}

impl From<Hold> for HoldWords {
    fn from(hold: Hold) -> Self {
        let mut words = Self {
            reviewers: Vec::new(),
            quorum: None,
            steps: hold.steps,
            expires_in: hold.expires_in,
            reason: hold.reason,
            justify: hold.justify,
            windows: hold.windows,
            break_glass: hold.break_glass,
            step_up: hold.step_up,
            webauthn: hold.webauthn,
        };
        if words.steps.len() == 1 && words.steps.iter().all(|step| step.escalate.is_none()) {
            for step in std::mem::take(&mut words.steps) {
                words.reviewers = step.reviewers;
                words.quorum = Some(step.quorum);
            }
        }
        words
    }
}

/// A set of people who may review.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reviewers {
    Group(String),
    /// The issuer itself (its URL, resolved from the name that rules use) and a subject.
    Person {
        issuer: String,
        subject: String,
    },
    /// The target's owners. Decisions on a known target have those in its place;
    /// nobody is a member of this itself.
    Owner,
    /// Whoever the named list says is on call when they vote.
    OnCall(String),
}

/// How a reviewer may let a command run other than once: again and again, for as
/// long as this lasts, by the same principal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Window {
    /// In the session that asked, until it ends.
    Session,
    For(Duration),
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session => f.write_str("session"),
            Self::For(time) => Span(*time).fmt(f),
        }
    }
}

impl FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "session" {
            return Ok(Self::Session);
        }
        match Span::parse(text) {
            Ok(Span(time)) if !time.is_zero() => Ok(Self::For(time)),
            _ => Err(format!(
                "`{text}` is neither `session` nor a span of time such as `10m`"
            )),
        }
    }
}

impl TryFrom<String> for Window {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Window> for String {
    fn from(window: Window) -> Self {
        window.to_string()
    }
}

/// An outcome and where it came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    pub outcome: Outcome,
    /// The deciding rule as `file:rule`, or a built-in name such as
    /// `no-rule`, `unknown-fact`, `rejected`.
    pub rule: String,
    /// Version of the rules in force: a digest of their text.
    pub policy: String,
    /// What a rule in monitor mode would have said; recorded, not enforced.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub monitored: Vec<Monitored>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Monitored {
    pub rule: String,
    pub outcome: Outcome,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(name: &str) -> Reviewers {
        Reviewers::Group(name.to_owned())
    }

    fn hold(steps: Vec<Step>) -> Hold {
        Hold {
            steps,
            expires_in: Duration::from_secs(60),
            reason: None,
            justify: false,
            windows: Vec::new(),
            break_glass: Vec::new(),
            step_up: None,
            webauthn: false,
        }
    }

    fn escalating(after: u64, more: &str) -> Step {
        Step {
            escalate: Some(Escalation {
                after: Duration::from_secs(after),
                reviewers: vec![group(more)],
            }),
            ..Step::of(vec![group("dba")], 1)
        }
    }

    #[test]
    fn records_of_older_versions_read_as_one_step() {
        let old =
            r#"{"reviewers":[{"group":"dba"}],"quorum":2,"expires_in":{"secs":60,"nanos":0}}"#;
        let read: Hold = serde_json::from_str(old).unwrap();
        assert_eq!(read, hold(vec![Step::of(vec![group("dba")], 2)]));
        assert_eq!(serde_json::to_string(&read).unwrap(), old);
    }

    #[test]
    fn all_of_a_hold_survives_the_record() {
        let full = Hold {
            justify: true,
            windows: vec![Window::Session, Window::For(Duration::from_secs(600))],
            break_glass: vec![Reviewers::OnCall("sre".to_owned()), Reviewers::Owner],
            step_up: Some(Duration::from_secs(300)),
            webauthn: true,
            ..hold(vec![
                Step::of(vec![group("dba")], 1),
                escalating(300, "leads"),
            ])
        };
        for hold in [full, hold(vec![escalating(1, "leads")]), hold(Vec::new())] {
            let text = serde_json::to_string(&hold).unwrap();
            assert_eq!(serde_json::from_str::<Hold>(&text).unwrap(), hold, "{text}");
        }
    }

    #[test]
    fn what_was_asked_of_more_people_is_enough_and_of_others_is_not() {
        let step = |groups: &[&str], quorum| {
            Step::of(groups.iter().map(|one| group(one)).collect(), quorum)
        };
        let two = hold(vec![step(&["dba"], 1), step(&["sre"], 1)]);
        let one = hold(vec![step(&["dba"], 1)]);
        let swapped = hold(vec![step(&["sre"], 1), step(&["dba"], 1)]);
        assert!(two.met_by(&two));
        for other in [&one, &swapped] {
            assert!(!two.met_by(other) && !other.met_by(&two));
        }
        assert!(hold(vec![step(&["dba", "sre"], 1)]).met_by(&one));
        assert!(!one.met_by(&hold(vec![step(&["dba", "sre"], 1)])));
        assert!(one.met_by(&hold(vec![step(&["dba"], 2)])));

        let late = hold(vec![escalating(600, "leads")]);
        let soon = hold(vec![escalating(300, "leads")]);
        assert!(soon.met_by(&late) && !late.met_by(&soon) && !one.met_by(&late));
        assert!(late.met_by(&one));
        assert!(hold(vec![step(&["dba", "leads"], 1)]).met_by(&soon));

        let why = Hold {
            justify: true,
            ..one.clone()
        };
        let window = Hold {
            windows: vec![Window::Session],
            ..one.clone()
        };
        let glass = Hold {
            break_glass: vec![group("sre")],
            ..one.clone()
        };
        assert!(!why.met_by(&one) && one.met_by(&why));
        assert!(!one.met_by(&window) && window.met_by(&one));
        assert!(!one.met_by(&glass) && glass.met_by(&one));
        let fresh = |seconds| Hold {
            step_up: Some(Duration::from_secs(seconds)),
            ..one.clone()
        };
        let (strict, mild) = (fresh(60), fresh(300));
        assert!(mild.met_by(&strict) && !strict.met_by(&mild));
        assert!(one.met_by(&mild) && !mild.met_by(&one));
        let signed = Hold {
            webauthn: true,
            ..one.clone()
        };
        assert!(one.met_by(&signed) && !signed.met_by(&one));
    }

    #[test]
    fn a_window_is_a_session_or_some_time() {
        let read = |text: &str| text.parse::<Window>().map(|window| window.to_string());
        assert_eq!(read("session"), Ok("session".to_owned()));
        assert_eq!(read("10m"), Ok("10m".to_owned()));
        for wrong in ["", "0s", "once", "10", "Session", "-1m"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
