//! Rules, and what they say of a command.
//!
//! Each operation of a command is judged by each file: the first rule that
//! matches decides for that file. The strictest outcome over all files and operations is the
//! decision. An operation that no file speaks of is refused, and so is one
//! where a rule that might have matched depends on a fact that is unknown.
//! Where columns are protected ([`mask`]), what cannot be masked is held or refused
//! besides, housekeeping included.
//! Housekeeping is allowed unless a rule denies it; it is never held.
//!
//! Evaluation is pure and bounded, see [`cel`]. Rules cannot be changed, only replaced.

mod cases;
mod cel;
mod compile;
mod explain;
mod glob;
mod hold;
mod judge;
mod mask;
mod matcher;
mod merge;
mod raw;
mod surroundings;
#[cfg(test)]
mod tests;
mod who;

use std::collections::BTreeMap;

use compile::{File, Rule};
use matcher::Fit;
use merge::{Found, HOUSEKEEPING, strictest};

use crate::command::{Command, Confidence, Operation};
use crate::decision::{Decision, Hold, Monitored, Outcome, Reviewers};
use crate::id::FieldHasher;
use crate::principal::Principal;
use crate::source::Problems;

pub use cases::{Case, CaseFile, CaseResult, Classify, run_cases};
pub use explain::{Explanation, FileExplained, OperationExplained, RuleExplained, Said};
pub use judge::Judge;
pub use mask::Protected;
pub use surroundings::Surroundings;
pub(crate) use who::{person, reviewers};

/// One rule file, as read.
#[derive(Debug, Clone)]
pub struct RuleFile {
    /// Its name in messages and in `file:rule`, without folder and extension.
    pub name: String,
    pub text: String,
}

/// What is judged.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    pub command: &'a Command,
    pub principal: &'a Principal,
    pub target: &'a str,
    pub tags: &'a [String],
    /// Who decides for `owner`; `None` in trials that know no target, where it stays.
    pub owners: Option<&'a [Reviewers]>,
    pub protocol: &'a str,
    /// The protocol's class words, harmless first.
    pub classes: &'a [String],
    /// Unix seconds.
    pub now: u64,
}

/// Compiled rules, immutable.
#[derive(Debug)]
pub struct Policy {
    version: String,
    sources: Vec<RuleFile>,
    files: Vec<File>,
    warnings: Vec<String>,
    lists: Vec<compile::Listed>,
}

/// What a file says of an operation.
enum Verdict {
    Abstains,
    Found(Found),
}

impl Policy {
    /// Compiles rule files. `issuers` maps the issuers' names to their URLs,
    /// see [`crate::config::Config::issuer_names`].
    pub fn compile(
        files: &[RuleFile],
        issuers: &BTreeMap<String, String>,
    ) -> Result<Self, Problems> {
        let compiled = compile::compile(files, issuers)?;
        let mut hasher = FieldHasher::new("holdpoint.policy.v1");
        hasher.count(files.len());
        for file in files {
            hasher
                .field(file.name.as_bytes())
                .field(file.text.as_bytes());
        }
        let mut version = hasher.finish().to_string();
        version.truncate(16);
        Ok(Self {
            version,
            sources: files.to_vec(),
            files: compiled.files,
            warnings: compiled.warnings,
            lists: compiled.lists,
        })
    }

    /// A digest of the rules' text, as shown in records: the first 16 hex digits of a SHA-256.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The rules' text, as it was compiled: what is on disk may be another by now.
    pub fn sources(&self) -> &[RuleFile] {
        &self.sources
    }

    /// What is odd about the rules, but no mistake.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Whether a rule looks at the target's tags.
    pub fn looks_at_tags(&self) -> bool {
        self.matchers().any(|matcher| {
            matcher.tags.is_some() || matcher.when.as_ref().is_some_and(cel::When::looks_at_tags)
        })
    }

    /// Whether a rule looks for words in the command's text.
    pub fn looks_at_text(&self) -> bool {
        self.matchers().any(|matcher| matcher.text.is_some())
    }

    /// The rules that may hold something at `target` for its owners.
    pub fn asks_owners(&self, target: &str) -> Vec<&str> {
        let asks = |outcome: &Outcome| match outcome {
            Outcome::Hold(hold) => hold.everyone().any(|set| *set == Reviewers::Owner),
            _ => false,
        };
        let rules = self.files.iter().flat_map(|file| &file.rules);
        let rules = rules.filter(|rule| {
            let targets = rule.matcher.targets.as_ref();
            targets.is_none_or(|targets| targets.iter().any(|glob| glob.fits(target)))
                && asks(&rule.outcome)
        });
        let masks = self.masks();
        let masks = masks.filter(|mask| mask.applies(target) && asks(&mask.otherwise));
        let ids = rules.map(|rule| &rule.id).chain(masks.map(|mask| &mask.id));
        ids.map(String::as_str).collect()
    }

    /// Whether all lists that rules ask who is on call are among `known`.
    ///
    /// # Errors
    /// Some are not; each with the places that ask it.
    pub fn check_lists(&self, known: &[&str]) -> Result<(), Problems> {
        let mut problems = Problems::default();
        for list in &self.lists {
            if !known.contains(&list.name.as_str()) {
                let missing = list.missing.clone();
                problems.push(missing.choices(&list.name, known.iter().copied()));
            }
        }
        problems.or(())
    }

    /// Whether a rule asks for the signature of a security key.
    pub fn wants_webauthn(&self) -> bool {
        self.holds().any(|hold| hold.webauthn)
    }

    fn holds(&self) -> impl Iterator<Item = &Hold> {
        let outcomes = self.files.iter().flat_map(|file| {
            let rules = file.rules.iter().map(|rule| &rule.outcome);
            rules.chain(file.masks.iter().map(|mask| &mask.otherwise))
        });
        outcomes.filter_map(|outcome| match outcome {
            Outcome::Hold(hold) => Some(hold),
            _ => None,
        })
    }

    fn matchers(&self) -> impl Iterator<Item = &matcher::Matcher> {
        let rules = self.files.iter().flat_map(|file| &file.rules);
        rules.map(|rule| &rule.matcher)
    }

    /// The columns that are protected at a target.
    pub fn protected(&self, target: &str) -> Protected {
        mask::protected(self.masks(), target)
    }

    pub fn decide(&self, ask: &Ask<'_>) -> Decision {
        let mut monitored = Vec::new();
        let found = ask
            .command
            .operations
            .iter()
            .map(|operation| self.judge(ask, operation, &mut monitored))
            .reduce(strictest);
        let found = found.unwrap_or_else(|| Found {
            rule: "no-operation".to_owned(),
            outcome: Outcome::Allow,
        });
        Decision {
            outcome: found.outcome,
            rule: found.rule,
            policy: self.version.clone(),
            monitored,
        }
    }

    fn judge(&self, ask: &Ask<'_>, operation: &Operation, monitored: &mut Vec<Monitored>) -> Found {
        let found = self
            .files
            .iter()
            .filter_map(|file| match judge_file(file, ask, operation, monitored) {
                Verdict::Abstains => None,
                Verdict::Found(found) => Some(found),
            })
            .reduce(strictest);
        let found = found.unwrap_or_else(|| unspoken(operation));
        match mask::consider(self.masks(), ask, operation) {
            Some(unmasked) => strictest(found, unmasked),
            None => found,
        }
    }

    fn masks(&self) -> impl Iterator<Item = &mask::Mask> + Clone {
        self.files.iter().flat_map(|file| &file.masks)
    }
}

/// A plugin that cannot tell what an operation does cannot vouch for it either.
fn is_housekeeping(operation: &Operation) -> bool {
    operation.housekeeping && operation.confidence == Confidence::Proven
}

/// No file has a rule for it.
fn unspoken(operation: &Operation) -> Found {
    if is_housekeeping(operation) {
        return Found {
            rule: HOUSEKEEPING.to_owned(),
            outcome: Outcome::Allow,
        };
    }
    let rule = match operation.confidence {
        Confidence::Proven => "no-rule",
        Confidence::Unknown => "unknown-fact",
    };
    Found {
        rule: rule.to_owned(),
        outcome: Outcome::Deny { message: None },
    }
}

fn judge_file(
    file: &File,
    ask: &Ask<'_>,
    operation: &Operation,
    monitored: &mut Vec<Monitored>,
) -> Verdict {
    let mut monitoring = true;
    for rule in &file.rules {
        if rule.monitor && !monitoring {
            continue;
        }
        let Some(found) = consider(rule, rule.matcher.fit(ask, operation), operation, ask) else {
            continue;
        };
        if !rule.monitor {
            return Verdict::Found(found);
        }
        // The first is what would have decided.
        monitoring = false;
        let would = Monitored {
            rule: rule.id.clone(),
            outcome: found.outcome,
        };
        if !monitored.contains(&would) {
            monitored.push(would);
        }
    }
    Verdict::Abstains
}

/// What follows from how a rule fits; `None` goes on to the next rule.
fn consider(rule: &Rule, fit: Fit, operation: &Operation, ask: &Ask<'_>) -> Option<Found> {
    let denies = matches!(rule.outcome, Outcome::Deny { .. });
    match fit {
        Fit::No(_) => None,
        // Holds never apply to housekeeping, and what is proven to be that needs no facts.
        Fit::Yes if is_housekeeping(operation) && matches!(rule.outcome, Outcome::Hold(_)) => None,
        Fit::Unknown(_) if is_housekeeping(operation) => None,
        Fit::Yes => Some(Found {
            rule: rule.id.clone(),
            outcome: hold::at_target(&rule.outcome, &rule.id, ask),
        }),
        // It might have denied, so it does; the message may not fit.
        Fit::Unknown(_) if denies => Some(Found {
            rule: rule.id.clone(),
            outcome: Outcome::Deny { message: None },
        }),
        // Which fact, only `explain` tells: an agent need not learn how rules work.
        Fit::Unknown(_) => Some(Found {
            rule: "unknown-fact".to_owned(),
            outcome: Outcome::Deny {
                message: Some(format!(
                    "what `{}` has to know could not be established",
                    rule.id
                )),
            },
        }),
    }
}

/// The JSON Schema of rule files, as kept in `docs/policy.schema.json`.
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(raw::File)
}
