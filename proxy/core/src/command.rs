//! What a client asks a target to do, as far as a plugin could tell.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::id::{Digest, FieldHasher};
use crate::principal::Principal;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    Proven,
    Unknown,
}

/// Something an operation touches.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Object {
    pub kind: String,
    pub schema: Option<String>,
    pub name: String,
    /// `read`, `write`, `lock`, `define`, `execute`.
    pub access: String,
}

/// One thing that a command does: a statement, a request, a program.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Operation {
    pub class: String,
    pub effects: Vec<String>,
    pub objects: Vec<Object>,
    pub functions: Vec<String>,
    pub unknown_functions: Vec<String>,
    pub confidence: Confidence,
    /// Session set-up that no rule may hold.
    pub housekeeping: bool,
    /// The protocol's own facts. An absent name is unknown, not empty.
    pub facts: Vec<(String, String)>,
}

/// A value bound to a placeholder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    pub type_name: String,
    pub binary: bool,
    /// `None` is null.
    pub value: Option<Bytes>,
}

/// The unit that is judged, held and sent as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// In the order in which they run; empty where nothing has an effect.
    pub operations: Vec<Operation>,
    /// The client's own bytes for a reviewer to read.
    pub text: Bytes,
    pub parameters: Vec<Parameter>,
    /// Byte ranges of `text` (start, exclusive end) that hold secrets; sorted,
    /// apart, inside the text.
    pub secrets: Vec<(u32, u32)>,
    /// Session state that changes what the text means.
    pub context: Vec<(String, String)>,
    pub in_transaction: bool,
    /// What the digest covers in place of `wire`, see the WIT.
    pub canonical: Option<Bytes>,
    /// Why this is refused whatever the policy says.
    pub reject: Option<String>,
    /// The bytes that go upstream, whole and unchanged, or not at all.
    pub wire: Bytes,
}

impl Command {
    /// Binds a decision to who asks what of which target under which rules.
    ///
    /// Two runs of the same command by the same principal have the same digest
    /// as long as the rules and the session state that gives it meaning are the same.
    pub fn digest(&self, principal: &Principal, target: &str, policy: &str) -> Digest {
        let mut hasher = FieldHasher::new("holdpoint.command.v1");
        hasher
            .field(principal.identity.issuer.as_bytes())
            .field(principal.identity.subject.as_bytes())
            .optional(principal.client_id.as_deref().map(str::as_bytes));
        hasher.count(principal.actors.len());
        for actor in &principal.actors {
            hasher.field(actor.issuer.as_bytes()).field(actor.subject.as_bytes());
        }
        hasher.field(target.as_bytes()).field(policy.as_bytes());
        hasher.field(self.canonical.as_ref().unwrap_or(&self.wire));
        hasher.field(&self.text);
        hasher.count(self.parameters.len());
        for parameter in &self.parameters {
            hasher
                .field(parameter.type_name.as_bytes())
                .field(&[u8::from(parameter.binary)])
                .optional(parameter.value.as_deref());
        }
        hasher.count(self.context.len());
        for (name, value) in &self.context {
            hasher.field(name.as_bytes()).field(value.as_bytes());
        }
        hasher.field(&[u8::from(self.in_transaction)]);
        hasher.finish()
    }

    /// The worst class among the operations, in the order the protocol declares
    /// (harmless first). A class that the protocol did not declare is worst of all.
    pub fn worst_class<'a>(&'a self, classes: &[String]) -> Option<&'a str> {
        let rank = |class: &str| classes.iter().position(|c| c == class).unwrap_or(usize::MAX);
        self.operations.iter().map(|op| op.class.as_str()).max_by_key(|class| rank(class))
    }
}
