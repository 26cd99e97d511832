//! Test cases for rules: `holdpoint policy test`.
//!
//! A case says who does what where, and what is expected. What is done is either stated as the
//! facts of one operation (`command`), or as input for a plugin to classify (`sql`, `input`).

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;

use super::{Ask, Policy};
use crate::command::{Command, Confidence, Object, Operation, Parameter};
use crate::decision::Outcome;
use crate::principal::{Identity, Kind, Principal};
use crate::source::{Problems, Source};

/// Gives the command that a plugin makes of an input: protocol, then fields by name.
pub type Classify<'a> = dyn FnMut(&str, &[(String, Vec<u8>)]) -> Result<Command, String> + 'a;

/// A file of cases, such as `policies/tests/postgres.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseFile {
    /// Of cases that name none.
    #[serde(default = "postgres")]
    pub protocol: String,
    /// The rule files that the cases are about, from this file's folder.
    #[serde(default)]
    pub policies: Vec<String>,
    #[serde(default)]
    pub case: Vec<Case>,
}

fn postgres() -> String {
    "postgres".to_owned()
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub name: String,
    #[serde(default)]
    pub principal: CasePrincipal,
    #[serde(default = "any_target")]
    pub target: String,
    #[serde(default)]
    pub tags: Vec<String>,
    pub protocol: Option<String>,
    pub command: Option<CaseCommand>,
    pub sql: Option<String>,
    /// Further or other fields for the classifier, such as `mode`.
    #[serde(default)]
    pub input: BTreeMap<String, String>,
    pub expect: Expect,
    /// `file:rule` or a built-in name.
    pub rule: Option<String>,
}

fn any_target() -> String {
    "target".to_owned()
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CasePrincipal {
    #[serde(default = "agent")]
    pub kind: Kind,
    #[serde(default = "nobody")]
    pub subject: String,
    #[serde(default)]
    pub issuer: String,
    #[serde(default)]
    pub groups: Vec<String>,
    pub client_id: Option<String>,
}

fn agent() -> Kind {
    Kind::Agent
}

fn nobody() -> String {
    "case".to_owned()
}

impl Default for CasePrincipal {
    fn default() -> Self {
        Self {
            kind: agent(),
            subject: nobody(),
            issuer: String::new(),
            groups: Vec::new(),
            client_id: None,
        }
    }
}

/// The facts of one operation.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseCommand {
    pub class: String,
    #[serde(default)]
    pub effects: Vec<String>,
    #[serde(default)]
    pub objects: Vec<CaseObject>,
    #[serde(default)]
    pub functions: Vec<String>,
    #[serde(default)]
    pub unknown_functions: Vec<String>,
    #[serde(default = "proven")]
    pub confidence: Confidence,
    #[serde(default)]
    pub housekeeping: bool,
    #[serde(default)]
    pub facts: BTreeMap<String, String>,
    #[serde(default)]
    pub in_transaction: bool,
    #[serde(default)]
    pub text: String,
}

fn proven() -> Confidence {
    Confidence::Proven
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseObject {
    #[serde(default = "table")]
    pub kind: String,
    pub schema: Option<String>,
    pub name: String,
    pub access: String,
}

fn table() -> String {
    "table".to_owned()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expect {
    Allow,
    Deny,
    Hold,
}

/// How one case went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseResult {
    pub name: String,
    /// Why it failed; `None` where it passed.
    pub failure: Option<String>,
}

impl CaseFile {
    pub fn parse(text: &str, name: &str) -> Result<Self, Problems> {
        Source::read(name, text).map(|(_, file)| file)
    }
}

/// Runs each case through the rules. A case that cannot be classified fails.
pub fn run_cases(policy: &Policy, file: &CaseFile, classify: &mut Classify<'_>) -> Vec<CaseResult> {
    let one = |case: &Case| {
        let protocol = case.protocol.as_deref().unwrap_or(&file.protocol);
        CaseResult {
            name: case.name.clone(),
            failure: run(policy, case, protocol, classify).err(),
        }
    };
    file.case.iter().map(one).collect()
}

fn run(
    policy: &Policy,
    case: &Case,
    protocol: &str,
    classify: &mut Classify<'_>,
) -> Result<(), String> {
    let command = match (&case.command, case.sql.is_some() || !case.input.is_empty()) {
        (Some(command), false) => command.clone().into(),
        (None, true) => {
            let sql = case
                .sql
                .iter()
                .map(|sql| ("sql".to_owned(), sql.clone().into_bytes()));
            let more = case
                .input
                .iter()
                .map(|(k, v)| (k.clone(), v.clone().into_bytes()));
            let protected = policy.protected(&case.target);
            let fields = sql.chain(more).chain(protected.fields());
            classify(protocol, &fields.collect::<Vec<_>>())?
        }
        _ => return Err("a case needs `command`, or `sql` and `input`, and not both".to_owned()),
    };
    let principal = case.principal.clone().into();
    // As the gate does: what a plugin rejects, no rule sees.
    let (outcome, rule, message) = if command.reject.is_some() {
        (Expect::Deny, "rejected".to_owned(), command.reject.clone())
    } else {
        let decision = policy.decide(&Ask {
            command: &command,
            principal: &principal,
            target: &case.target,
            tags: &case.tags,
            owners: None,
            protocol,
            classes: &[],
            now: 0,
        });
        match decision.outcome {
            Outcome::Allow => (Expect::Allow, decision.rule, None),
            Outcome::Hold(hold) => (Expect::Hold, decision.rule, hold.reason),
            Outcome::Deny { message } => (Expect::Deny, decision.rule, message),
        }
    };
    if outcome == case.expect && case.rule.as_ref().is_none_or(|wanted| *wanted == rule) {
        return Ok(());
    }
    let word = |expect: Expect| match expect {
        Expect::Allow => "allow",
        Expect::Deny => "deny",
        Expect::Hold => "hold",
    };
    let wanted = case
        .rule
        .as_ref()
        .map_or_else(String::new, |rule| format!(" by `{rule}`"));
    let said = message.map_or_else(String::new, |message| format!(" ({message})"));
    Err(format!(
        "expected {}{wanted}, got {} by `{rule}`{said}",
        word(case.expect),
        word(outcome)
    ))
}

impl From<CasePrincipal> for Principal {
    fn from(case: CasePrincipal) -> Self {
        Self {
            label: case.subject.clone(),
            identity: Identity {
                issuer: case.issuer,
                subject: case.subject,
            },
            kind: case.kind,
            client_id: case.client_id,
            actors: Vec::new(),
            owners: Vec::new(),
            groups: case.groups,
            scopes: Vec::new(),
            expires: u64::MAX,
            token: String::new(),
            token_id: None,
            auth_time: None,
        }
    }
}

impl From<CaseCommand> for Command {
    fn from(case: CaseCommand) -> Self {
        let object = |object: CaseObject| Object {
            kind: object.kind,
            schema: object.schema,
            name: object.name,
            access: object.access,
        };
        Self {
            operations: [Operation {
                class: case.class,
                effects: case.effects,
                objects: case.objects.into_iter().map(object).collect(),
                functions: case.functions,
                unknown_functions: case.unknown_functions,
                confidence: case.confidence,
                housekeeping: case.housekeeping,
                facts: case.facts.into_iter().collect(),
            }]
            .into(),
            text: case.text.into_bytes().into(),
            parameters: Vec::<Parameter>::new(),
            secrets: Vec::new(),
            context: Vec::new(),
            in_transaction: case.in_transaction,
            canonical: None,
            reject: None,
            wire: Bytes::new(),
        }
    }
}
