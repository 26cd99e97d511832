//! What a client asks a target to do, as far as a plugin could tell.

use std::sync::Arc;

use bytes::Bytes;
use memchr::memmem;
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
    /// Shared with the command's record.
    pub operations: Arc<[Operation]>,
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
            hasher
                .field(actor.issuer.as_bytes())
                .field(actor.subject.as_bytes());
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
        let rank = |class: &str| {
            classes
                .iter()
                .position(|c| c == class)
                .unwrap_or(usize::MAX)
        };
        self.operations
            .iter()
            .map(|op| op.class.as_str())
            .max_by_key(|class| rank(class))
    }

    /// The text with each byte of a secret overwritten by `*`: what may be
    /// recorded and shown. Spans that make no sense hide the whole text.
    pub fn starred_text(&self) -> Vec<u8> {
        let mut text = self.text.to_vec();
        for (start, end) in &self.secrets {
            match text.get_mut(*start as usize..*end as usize) {
                Some(secret) => secret.fill(b'*'),
                None => {
                    text.fill(b'*');
                    break;
                }
            }
        }
        text
    }

    /// The wire bytes with the secrets overwritten by `*`, as they are recorded.
    ///
    /// Secrets are known by their place in `text`, so the text is looked for in
    /// the wire bytes. Where it is not there in one piece, or where a secret
    /// stands elsewhere as well, nobody can tell what to overwrite and the
    /// bytes are withheld; their digest is still recorded.
    pub fn starred_wire(&self) -> Starred {
        if self.secrets.is_empty() {
            return Starred::Whole(self.wire.clone());
        }
        // Linear whatever the agent wrote: both may be as long as a command may be.
        let finder = memmem::Finder::new(&self.text);
        let places: Vec<usize> = match self.text.is_empty() {
            true => Vec::new(),
            false => finder.find_iter(&self.wire).collect(),
        };
        if places.is_empty() || self.has_secret_beside(&places) {
            return Starred::Withheld;
        }
        let starred = self.starred_text();
        let mut wire = self.wire.to_vec();
        for at in places {
            wire[at..at + starred.len()].copy_from_slice(&starred);
        }
        Starred::Starred(wire.into())
    }

    /// Whether a secret stands in the wire bytes also outside of the text, which is at `places`.
    fn has_secret_beside(&self, places: &[usize]) -> bool {
        let ends = places.iter().map(|at| at + self.text.len());
        let gaps: Vec<(usize, usize)> = std::iter::once(0)
            .chain(ends)
            .zip(places.iter().copied().chain([self.wire.len()]))
            .collect();
        let beside: usize = gaps.iter().map(|(start, end)| end - start).sum();
        if beside.saturating_mul(self.secrets.len()) > MAX_SECRET_SEARCH {
            return true;
        }
        self.secrets.iter().any(|(start, end)| {
            let Some(secret) = self.text.get(*start as usize..*end as usize) else {
                return true;
            };
            if secret.is_empty() {
                return false;
            }
            // One byte less than the secret on both sides: it may straddle the text's ends.
            let reach = secret.len() - 1;
            gaps.iter()
                .filter(|(from, to)| from < to)
                .any(|(from, to)| {
                    let from = from.saturating_sub(reach);
                    let to = to.saturating_add(reach).min(self.wire.len());
                    memmem::find(&self.wire[from..to], secret).is_some()
                })
        })
    }
}

/// Bytes compared before a command with very many secrets is withheld unseen.
const MAX_SECRET_SEARCH: usize = 16 << 20;

/// A command's wire bytes, fit for the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Starred {
    /// Exactly as they are sent: there is no secret in them.
    Whole(Bytes),
    /// As long as what is sent, secrets overwritten.
    Starred(Bytes),
    /// The secrets could not be found in them.
    Withheld,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn command(text: &str, secrets: &[(u32, u32)], wire: &str) -> Command {
        Command {
            operations: Arc::default(),
            text: Bytes::copy_from_slice(text.as_bytes()),
            parameters: Vec::new(),
            secrets: secrets.to_vec(),
            context: Vec::new(),
            in_transaction: false,
            canonical: None,
            reject: None,
            wire: Bytes::copy_from_slice(wire.as_bytes()),
        }
    }

    fn starred(text: &str, secrets: &[(u32, u32)], wire: &str) -> Starred {
        command(text, secrets, wire).starred_wire()
    }

    #[test]
    fn a_command_without_secrets_is_recorded_as_it_is_sent() {
        assert_eq!(starred("a", &[], "Qa"), Starred::Whole("Qa".into()));
    }

    #[test]
    fn secrets_are_overwritten_wherever_the_text_stands() {
        assert_eq!(
            starred("PW 'x1'", &[(4, 6)], "PPW 'x1'\0QPW 'x1'\0"),
            Starred::Starred("PPW '**'\0QPW '**'\0".into())
        );
    }

    #[test]
    fn bytes_in_which_the_text_cannot_be_found_are_withheld() {
        assert_eq!(starred("PW 'x1'", &[(4, 6)], "PW  'x1'"), Starred::Withheld);
    }

    #[test]
    fn bytes_that_hold_the_secret_once_more_are_withheld() {
        assert_eq!(
            starred("PW 'x1'", &[(4, 6)], "PPW 'x1'\0Bx1"),
            Starred::Withheld
        );
    }

    #[test]
    fn spans_outside_of_the_text_hide_all_of_it() {
        assert_eq!(command("abc", &[(2, 9)], "abc").starred_text(), b"***");
        assert_eq!(command("abc", &[(2, 1)], "abc").starred_text(), b"***");
        assert_eq!(starred("abc", &[(2, 9)], "abc"), Starred::Withheld);
    }

    proptest! {
        /// The marker stands for a secret that nothing else can look like.
        #[test]
        fn a_secret_is_in_no_recorded_byte(
            before in "[a-z' ]{0,6}", after in "[a-z' ]{0,6}",
            frame in proptest::collection::vec("[A-Z]{0,3}|#|##", 0..4),
        ) {
            let text = format!("{before}##{after}");
            let at = before.len() as u32;
            let wire = frame.join(&text);
            match starred(&text, &[(at, at + 2)], &wire) {
                Starred::Whole(_) => prop_assert!(false, "there is a secret"),
                Starred::Starred(bytes) => {
                    prop_assert_eq!(bytes.len(), wire.len());
                    prop_assert!(!bytes.windows(2).any(|pair| pair == b"##"));
                }
                Starred::Withheld => {}
            }
        }
    }
}
