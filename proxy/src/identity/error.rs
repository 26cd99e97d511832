//! Why a token was not accepted, for two audiences.
//!
//! The log gets the cause ([`TokenError`]'s text); the agent gets a
//! [`Denial`] made of fixed sentences and names from our own configuration.
//! Neither carries the token, and text from the token is shown only in the log,
//! escaped and cut.

use holdpoint_core::denial::{Denial, Kind};

/// Why a token does not let its bearer in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("the token is longer than {limit} bytes (`identity.max_token_bytes`)")]
    TooLong { limit: usize },
    #[error("not a signed JWT: {0}")]
    Malformed(&'static str),
    #[error("the token's header has `{0}`, which is not accepted")]
    Header(&'static str),
    #[error("not an access token: {0}")]
    NotAnAccessToken(String),
    #[error(
        "a token of Okta's org authorization server, which cannot be verified: use a custom \
         authorization server (its issuer has `/oauth2/` in its path)"
    )]
    OktaOrg,
    #[error("issuer {0} is not configured; `identity.issuer` must equal it byte for byte")]
    UnknownIssuer(String),
    #[error("algorithm {algorithm} is not accepted of issuer `{issuer}`")]
    Algorithm {
        issuer: String,
        algorithm: &'static str,
    },
    #[error("issuer `{issuer}` publishes no key {kid}")]
    UnknownKey { issuer: String, kid: String },
    #[error("the keys of issuer `{issuer}` are not available: {cause}")]
    KeysUnavailable { issuer: String, cause: String },
    #[error("the token's algorithm does not fit its key")]
    KeyMismatch,
    #[error("the signature is wrong")]
    Signature,
    #[error("claim `{claim}`: {why}")]
    Claim {
        claim: &'static str,
        why: &'static str,
    },
    #[error("expired {seconds} s ago")]
    Expired { seconds: u64 },
    #[error("bound to its sender's key (`cnf`), which cannot be checked on this connection")]
    SenderBound,
    #[error("scope `{needed}` is missing")]
    Scope { needed: String },
    #[error("an agent's token cannot decide")]
    NotAPerson,
    #[error("revoked: {0}")]
    Revoked(&'static str),
}

impl TokenError {
    /// What the bearer is told.
    pub fn denial(&self) -> Denial {
        let refuse = |code, message: &str| Denial::new(Kind::Unauthenticated, code, message);
        match self {
            Self::TooLong { limit } => refuse(
                "HP-TOKEN-INVALID",
                &format!("the token is longer than {limit} bytes"),
            )
            .hint("ask for a token with fewer groups"),
            Self::Malformed(_) => refuse("HP-TOKEN-INVALID", "this is not an access token")
                .hint("give the output of `holdpoint token` as the password"),
            Self::Header(_) | Self::NotAnAccessToken(_) | Self::KeyMismatch | Self::Signature => {
                refuse("HP-TOKEN-INVALID", "the token was not accepted")
                    .hint("get a new one: `holdpoint token`")
            }
            Self::OktaOrg => refuse(
                "HP-TOKEN-INVALID",
                "the token is of Okta's org authorization server, which cannot be verified",
            )
            .hint("ask a custom authorization server (`/oauth2/…`) for it"),
            Self::UnknownIssuer(_) => refuse(
                "HP-TOKEN-INVALID",
                "the token's issuer is not accepted here",
            )
            .hint("get a token from the issuer that this gateway names: `holdpoint token`"),
            Self::Algorithm { algorithm, .. } => refuse(
                "HP-TOKEN-INVALID",
                &format!("tokens signed with {algorithm} are not accepted here"),
            ),
            Self::UnknownKey { .. } => refuse(
                "HP-TOKEN-INVALID",
                "the token is signed with a key that its issuer does not publish",
            )
            .hint("get a new one: `holdpoint token`"),
            Self::KeysUnavailable { .. } => refuse(
                "HP-TOKEN-INVALID",
                "the token cannot be verified now: its issuer's keys are not available",
            )
            .hint("try again in a minute; an operator finds the cause in the log"),
            Self::Claim { claim, why } => refuse(
                "HP-TOKEN-INVALID",
                &format!("the token was not accepted: claim `{claim}` {why}"),
            )
            .hint("get a new one: `holdpoint token`"),
            Self::Expired { .. } => refuse("HP-TOKEN-EXPIRED", "the token has expired")
                .hint("connect again with a fresh one: `holdpoint token`"),
            Self::SenderBound => refuse(
                "HP-TOKEN-INVALID",
                "the token is bound to its sender's key, which this protocol cannot prove",
            )
            .hint("ask for a plain bearer token"),
            Self::Scope { needed } => {
                refuse("HP-SCOPE", &format!("the token lacks the scope `{needed}`"))
                    .hint(format!("ask for a token with `{needed}`"))
            }
            Self::NotAPerson => refuse("HP-SCOPE", "an agent's token cannot decide approvals")
                .hint("a person decides, with a token of their own"),
            Self::Revoked(_) => {
                refuse("HP-REVOKED", "this identity or token was revoked").hint("ask an operator")
            }
        }
    }
}

/// Text from outside, for the log: escaped, in quotes, at most 80 characters of it.
pub(super) fn shown(text: &str) -> String {
    let head: String = text.chars().take(80).collect();
    let more = if head.len() < text.len() { "…" } else { "" };
    format!("{head:?}{more}")
}
