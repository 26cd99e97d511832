//! What policy says of a command.

use std::time::Duration;

use serde::{Deserialize, Serialize};

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
pub struct Hold {
    /// Groups and people that may decide; in any of them is enough.
    pub reviewers: Vec<Reviewers>,
    /// How many distinct people must approve; at least 1.
    pub quorum: u32,
    /// How long the decision may take before the command expires.
    pub expires_in: Duration,
    /// Shown to reviewers: why the rule holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Hold {
    /// Whether what reviewers gave under `asked` is enough for this hold: it wants
    /// no more people, and everyone who could decide then could decide now.
    pub fn met_by(&self, asked: &Hold) -> bool {
        self.quorum <= asked.quorum
            && asked
                .reviewers
                .iter()
                .all(|set| self.reviewers.contains(set))
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
