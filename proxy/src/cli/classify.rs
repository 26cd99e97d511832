//! `holdpoint classify`: what commands do, outside any session.
//!
//! One JSON object a line in, one out, in order. A line that makes no sense gives
//! `{"error": …}` in its place and the run goes on.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufWriter, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use clap::Args;
use holdpoint_core::command::{Command, Confidence, Object};
use holdpoint_core::decision::Outcome as Decided;
use holdpoint_core::policy::{Ask, Policy};
use holdpoint_core::principal::{Identity, Kind, Principal};
use holdpoint_host::{Classifier, Plugin};
use serde_json::{Map, Value, json};

use super::Outcome;
use crate::plugins::shipped;
use crate::reload::read_rules;

#[derive(Args)]
pub(crate) struct ClassifyArgs {
    /// The protocol plugin, such as `postgres`
    plugin: String,
    /// Also give the decision of these rule files for an ordinary agent
    #[arg(long, value_name = "FILE")]
    policy: Vec<PathBuf>,
}

impl ClassifyArgs {
    pub(crate) fn run(self) -> Outcome {
        let plugin = shipped(&self.plugin)?;
        let rules = match self.policy.as_slice() {
            [] => None,
            files => Some(read_rules(files, &BTreeMap::new())?),
        };
        let mut classifier = plugin.classifier();
        let input = std::io::stdin().lock();
        let mut output = BufWriter::new(std::io::stdout().lock());
        for line in input.split(b'\n') {
            let line = line.context("cannot read standard input")?;
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let mut answer = Map::new();
            let by = (&plugin, &mut classifier);
            if let Err(error) = answer_to(&line, by, rules.as_ref(), &mut answer) {
                answer.insert("error".to_owned(), Value::String(format!("{error:#}")));
            }
            serde_json::to_writer(&mut output, &answer)?;
            output.write_all(b"\n")?;
        }
        output.flush()?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Of the question that rules are asked.
const TARGET: &str = "classify";

fn answer_to(
    line: &[u8],
    (plugin, classifier): (&Plugin, &mut Classifier),
    rules: Option<&Policy>,
    answer: &mut Map<String, Value>,
) -> anyhow::Result<()> {
    let asked: Map<String, Value> = serde_json::from_slice(line).context("not a JSON object")?;
    if let Some(id) = asked.get("id") {
        answer.insert("id".to_owned(), id.clone());
    }
    let classes = &*plugin.descriptor().classes;
    let mut fields = fields(&asked)?;
    if let Some(rules) = rules {
        fields.extend(rules.protected(TARGET).fields());
    }
    let command = match classifier.classify(&fields) {
        Ok(command) => command,
        // Not understood, for whatever reason: the gateway would hold or refuse it.
        Err(holdpoint_core::plugin::PluginError::Fault { message, .. }) => anyhow::bail!(message),
        Err(error) => unknown(&error.to_string()),
    };
    describe(&command, classes, answer);
    if let Some(rules) = rules {
        let decision = rules.decide(&Ask {
            command: &command,
            principal: &ordinary_agent(),
            target: TARGET,
            tags: &[],
            owners: None,
            protocol: &plugin.descriptor().name,
            classes,
            now: 0,
        });
        let word = match decision.outcome {
            _ if command.reject.is_some() => "deny",
            Decided::Allow => "allow",
            Decided::Hold(_) => "hold",
            Decided::Deny { .. } => "deny",
        };
        answer.insert("decision".to_owned(), word.into());
        answer.insert("rule".to_owned(), decision.rule.into());
    }
    Ok(())
}

/// The line's members as the plugin's fields: `settings` becomes `settings.NAME`,
/// `sql_b64` becomes `sql`.
fn fields(asked: &Map<String, Value>) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let mut fields = Vec::new();
    for (name, value) in asked {
        match value {
            Value::String(text) => match name.strip_suffix("_b64") {
                Some(plain) => {
                    let bytes = STANDARD
                        .decode(text)
                        .with_context(|| format!("`{name}` is not base64"))?;
                    fields.push((plain.to_owned(), bytes));
                }
                None => fields.push((name.clone(), text.clone().into_bytes())),
            },
            Value::Object(members) => {
                for (key, member) in members {
                    let text = member
                        .as_str()
                        .map_or_else(|| member.to_string(), str::to_owned);
                    fields.push((format!("{name}.{key}"), text.into_bytes()));
                }
            }
            _ => {}
        }
    }
    Ok(fields)
}

fn describe(command: &Command, classes: &[String], answer: &mut Map<String, Value>) {
    let operations = &command.operations;
    let worst = command.worst_class(classes).unwrap_or("read");
    let objects: Vec<Value> = distinct(operations.iter().flat_map(|op| &op.objects))
        .into_iter()
        .map(
            |Object {
                 kind,
                 schema,
                 name,
                 access,
             }| {
                json!({ "kind": kind, "schema": schema, "name": name, "access": access })
            },
        )
        .collect();
    let proven = operations
        .iter()
        .all(|op| op.confidence == Confidence::Proven);
    let all_classes: Vec<_> = operations.iter().map(|op| op.class.as_str()).collect();
    let facts: Map<String, Value> = operations
        .iter()
        .flat_map(|op| &op.facts)
        .map(|(name, value)| (name.clone(), Value::String(value.clone())))
        .collect();
    let mut set = |name: &str, value: Value| answer.insert(name.to_owned(), value);
    set("class", worst.into());
    set("classes", json!(all_classes));
    set(
        "effects",
        json!(distinct(operations.iter().flat_map(|op| &op.effects))),
    );
    set("objects", Value::Array(objects));
    set(
        "functions",
        json!(distinct(operations.iter().flat_map(|op| &op.functions))),
    );
    set(
        "unknown_functions",
        json!(distinct(
            operations.iter().flat_map(|op| &op.unknown_functions)
        )),
    );
    set(
        "confidence",
        if proven { "proven" } else { "unknown" }.into(),
    );
    set(
        "reject",
        command.reject.clone().map_or(Value::Null, Value::String),
    );
    set("facts", Value::Object(facts));
}

/// Each once, in order of appearance.
fn distinct<'a, T: PartialEq + 'a>(items: impl Iterator<Item = &'a T>) -> Vec<&'a T> {
    let mut seen: Vec<&T> = Vec::new();
    for item in items {
        if !seen.contains(&item) {
            seen.push(item);
        }
    }
    seen
}

/// What stands in where the plugin could not answer.
fn unknown(why: &str) -> Command {
    Command {
        operations: [holdpoint_core::command::Operation {
            class: "unknown".to_owned(),
            effects: Vec::new(),
            objects: Vec::new(),
            functions: Vec::new(),
            unknown_functions: Vec::new(),
            confidence: Confidence::Unknown,
            housekeeping: false,
            facts: vec![("plugin_error".to_owned(), why.to_owned())],
        }]
        .into(),
        text: Bytes::new(),
        parameters: Vec::new(),
        secrets: Vec::new(),
        context: Vec::new(),
        in_transaction: false,
        canonical: None,
        reject: None,
        wire: Bytes::new(),
    }
}

/// An agent with no group and no owner.
pub(super) fn ordinary_agent() -> Principal {
    Principal {
        identity: Identity {
            issuer: "classify".to_owned(),
            subject: "agent".to_owned(),
        },
        kind: Kind::Agent,
        label: "agent".to_owned(),
        client_id: None,
        actors: Vec::new(),
        owners: Vec::new(),
        groups: vec!["holdpoint-agents".to_owned()],
        scopes: vec!["holdpoint.connect".to_owned()],
        expires: u64::MAX,
        token: String::new(),
        token_id: None,
        auth_time: None,
    }
}
