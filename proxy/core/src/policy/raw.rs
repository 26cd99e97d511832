//! A rule file as it is written. The comments are the descriptions in `docs/policy.schema.json`.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor, value::MapAccessDeserializer};

use crate::source::Span;

/// Rules, read from the top: for each operation of a command the first rule that matches decides.
/// Across files, and across a command's operations, the strictest outcome wins.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    /// How much all rules of the file count.
    #[serde(default)]
    pub(super) mode: Mode,
    /// In the order in which they are tried.
    #[serde(default)]
    pub(super) rule: Vec<Rule>,
    /// Columns whose values the gateway takes out of the rows that it shows.
    #[serde(default)]
    pub(super) mask: Vec<Mask>,
}

/// Protects columns. A statement that shows one as it is has its values replaced; what
/// cannot be masked, because the column is used in any other way, is held or refused.
/// It counts beside the rules, also where a file or a rule is in monitor mode.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Mask {
    /// Shown to agents and in records as `file:name`.
    pub(super) name: String,
    /// Names of targets, with `*`; all unless set.
    pub(super) targets: Option<Vec<String>>,
    /// `SCHEMA.TABLE.COLUMN`, `TABLE.COLUMN` or `COLUMN`, with `*`, as the target keeps the names.
    pub(super) columns: Vec<String>,
    /// Who may release in clear what cannot be masked; refused unless set.
    pub(super) hold: Option<Hold>,
    /// A message for the agent where it is refused.
    pub(super) deny: Option<Deny>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mode {
    /// It decides.
    #[default]
    Enforce,
    /// Evaluated and recorded; decides nothing.
    Monitor,
}

/// One rule: `allow`, `deny` or `hold`, and what for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    /// Shown to agents and in records as `file:name`.
    pub(super) name: String,
    /// All that is given must fit. A rule without it matches everything.
    #[serde(default, rename = "match")]
    pub(super) matches: Match,
    /// A CEL expression over `command`, `principal`, `target`, `facts` and `now`.
    pub(super) when: Option<String>,
    /// How much this rule counts; `monitor` of the file counts for all of it.
    #[serde(default)]
    pub(super) mode: Mode,
    /// `true`: it runs at once.
    pub(super) allow: Option<bool>,
    /// A message for the agent: what it may do instead.
    pub(super) deny: Option<Deny>,
    /// It waits on the connection for somebody to decide.
    pub(super) hold: Option<Hold>,
    /// Lets `allow` release what the parser could not prove.
    #[serde(default)]
    pub(super) danger_allow_unknown: bool,
}

/// What a rule is for. Each key that is given has to fit; of a list, one entry.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Match {
    /// Names of targets; `*` stands for any text.
    pub(super) targets: Option<Vec<String>>,
    /// The target has one of these labels.
    pub(super) tags: Option<Vec<String>>,
    /// The principal is in one of these groups.
    pub(super) groups: Option<Vec<String>>,
    /// `ISSUER|SUBJECT`.
    pub(super) principals: Option<Vec<String>>,
    /// Who asks is an agent, or a person.
    pub(super) kinds: Option<Vec<Kind>>,
    /// The target speaks one of these, such as `postgres`.
    pub(super) protocols: Option<Vec<String>>,
    /// The operation's class is one of these.
    pub(super) classes: Option<Vec<String>>,
    /// `deny`, `hold`: it has one of these effects. `allow`: it has no others.
    pub(super) effects: Option<Vec<String>>,
    /// `SCHEMA.NAME` or `NAME`, with `*`. `deny`, `hold`: it touches one of
    /// these. `allow`: it touches some, and nothing else.
    pub(super) objects: Option<Vec<String>>,
    /// How the objects are touched, as for `objects`: `read`, `write`, `lock`, `define`, `execute`.
    pub(super) access: Option<Vec<String>>,
    /// Names of functions, with `*`. `deny`, `hold`: it calls one of these. `allow`: it calls no others.
    pub(super) functions: Option<Vec<String>>,
    /// Whether the parser can prove what the operation does.
    pub(super) confidence: Option<Confidence>,
    /// A regular expression, found anywhere in the command's text.
    pub(super) text: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Agent,
    Person,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Confidence {
    Proven,
    Unknown,
}

/// Who decides: `reviewers`, or `steps` where several agreements are needed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Hold {
    /// `group:NAME`, `person:ISSUER|SUBJECT`, `owner` (the target's owners) or `oncall:NAME`
    /// (of `[review.oncall.NAME]`); each of them may decide. The short form of one step.
    pub(super) reviewers: Option<Vec<String>>,
    /// How many people must approve; 1 unless set.
    pub(super) quorum: Option<u32>,
    /// Who may decide too after a while.
    pub(super) escalate: Option<Escalate>,
    /// All of them, in this order; nobody counts in two.
    pub(super) steps: Option<Vec<Step>>,
    /// How long they have, over all steps; `30m` unless set.
    pub(super) expires_in: Option<Span>,
    /// Tells reviewers why.
    pub(super) reason: Option<String>,
    /// The requester has to say why before anyone may approve.
    #[serde(default)]
    pub(super) justify: bool,
    /// How a reviewer may let the identical command run other than once: `session`, or a span
    /// of time such as `10m`.
    pub(super) windows: Option<Vec<String>>,
    /// People who may let it run at once, with a reason and an alarm; others review it afterwards.
    pub(super) break_glass: Option<Vec<String>>,
    /// How long ago at most whoever approves (or breaks the glass) has signed in, such as `5m`; at
    /// least `10s`. A denial needs no such thing.
    pub(super) step_up: Option<Span>,
    /// An approval has to be signed by the reviewer's security key, in the console
    /// (`[review.webauthn]`).
    #[serde(default)]
    pub(super) webauthn: bool,
}

/// One agreement.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Step {
    /// As for the short form.
    pub(super) reviewers: Vec<String>,
    /// How many people must approve; 1 unless set.
    pub(super) quorum: Option<u32>,
    /// Who may decide too after a while.
    pub(super) escalate: Option<Escalate>,
}

/// Widens who may decide, and tells them. It passes nothing by itself.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Escalate {
    /// From the step's beginning.
    pub(super) after: Span,
    /// Who joins those who may decide already.
    pub(super) reviewers: Vec<String>,
}

/// `"message"` or `{ message = "…" }`.
#[derive(Debug)]
pub(super) struct Deny {
    pub(super) message: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DenyTable {
    message: Option<String>,
}

impl<'de> Deserialize<'de> for Deny {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Deny;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a message, or a table with `message`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Deny, E> {
                Ok(Deny {
                    message: Some(text.to_owned()),
                })
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Deny, A::Error> {
                let table = DenyTable::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Deny {
                    message: table.message,
                })
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Deny {
    fn schema_name() -> Cow<'static, str> {
        "Deny".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let table = generator.subschema_for::<DenyTable>();
        json_schema!({ "anyOf": [{ "type": "string" }, table] })
    }
}
