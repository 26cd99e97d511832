//! Why a command is decided as it is: for `holdpoint policy explain`, that is for those who write
//! rules. An agent never sees it.

use serde::Serialize;

use super::matcher::Fit;
use super::{Ask, Policy, consider, is_housekeeping};
use crate::decision::{Decision, Outcome};

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    pub decision: Decision,
    pub operations: Vec<OperationExplained>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OperationExplained {
    pub class: String,
    pub housekeeping: bool,
    pub files: Vec<FileExplained>,
}

/// A file's rules in order, up to and including the one that decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileExplained {
    pub rules: Vec<RuleExplained>,
    /// The rule that decides for this file; absent where it abstains.
    pub decides: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleExplained {
    pub rule: String,
    /// `allow`, `deny` or `hold`.
    pub outcome: &'static str,
    pub monitor: bool,
    pub said: Said,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    Matches,
    /// Which part of the match does not fit.
    Differs(String),
    /// Why it cannot be told.
    Unknown(String),
    /// It matches, but a hold does not apply to housekeeping.
    Housekeeping,
}

impl Policy {
    pub fn explain(&self, ask: &Ask<'_>) -> Explanation {
        let operations = ask.command.operations.iter().map(|operation| {
            let files = self.files.iter().map(|file| {
                let mut rules = Vec::new();
                let mut decides = None;
                for rule in &file.rules {
                    let fit = rule.matcher.fit(ask, operation);
                    let found = consider(rule, fit.clone(), operation, ask);
                    rules.push(RuleExplained {
                        rule: rule.id.clone(),
                        outcome: match rule.outcome {
                            Outcome::Allow => "allow",
                            Outcome::Hold(_) => "hold",
                            Outcome::Deny { .. } => "deny",
                        },
                        monitor: rule.monitor,
                        said: match fit {
                            Fit::Yes if found.is_none() => Said::Housekeeping,
                            Fit::Yes => Said::Matches,
                            Fit::No(why) => Said::Differs(why.into_owned()),
                            Fit::Unknown(why) => Said::Unknown(why),
                        },
                    });
                    if found.is_some() && !rule.monitor {
                        decides = Some(rule.id.clone());
                        break;
                    }
                }
                FileExplained { rules, decides }
            });
            OperationExplained {
                class: operation.class.clone(),
                housekeeping: is_housekeeping(operation),
                files: files.collect(),
            }
        });
        Explanation {
            operations: operations.collect(),
            decision: self.decide(ask),
        }
    }
}
