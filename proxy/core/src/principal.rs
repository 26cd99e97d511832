//! Who acts.

use serde::{Deserialize, Serialize};

/// One identity: an issuer and its name for somebody. The same `subject` under
/// two issuers is two identities.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// The `iss` claim, byte for byte.
    pub issuer: String,
    /// The `sub` claim, or the claim that the issuer's settings name instead.
    pub subject: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Agent,
    Person,
}

/// Who acts, as established from one verified token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    pub identity: Identity,
    pub kind: Kind,
    /// For people to read (name, e-mail); never decides anything.
    pub label: String,
    /// The OAuth client that obtained the token.
    pub client_id: Option<String>,
    /// The `act` claims of RFC 8693, outermost first: who acts on whose behalf.
    pub actors: Vec<Identity>,
    /// Who answers for an agent; none of them may approve its commands.
    pub owners: Vec<Identity>,
    /// Presence grants; absence never does.
    pub groups: Vec<String>,
    pub scopes: Vec<String>,
    /// Unix seconds after which the token is no longer good.
    pub expires: u64,
    /// First 8 bytes of the token's SHA-256 in hex: names the token in records
    /// without being of use to anyone.
    pub token: String,
    /// The `jti` claim.
    pub token_id: Option<String>,
    /// The `auth_time` claim: when the person signed in, in Unix seconds. Renewing a token
    /// does not change it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub auth_time: Option<u64>,
}

impl Principal {
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|have| have == group)
    }

    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes.iter().any(|have| have == scope)
    }

    /// Everyone whose own request this is: the principal, each actor, each owner.
    pub fn behind(&self) -> impl Iterator<Item = &Identity> {
        std::iter::once(&self.identity)
            .chain(&self.actors)
            .chain(&self.owners)
    }
}
