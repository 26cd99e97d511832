//! Who calls: a bearer token, and nothing that a browser would send by itself.

use axum::http::{HeaderMap, header};
use holdpoint_core::Now;
use holdpoint_core::approval::Reviewer;
use holdpoint_core::denial::Denial;
use holdpoint_core::principal::{Identity, Kind, Principal};

use super::{Api, Problem};
use crate::approvals::Later;
use crate::identity::{Authenticator, Revocation};

/// A token for something else.
const SCOPE: &str = "HP-SCOPE";

/// Checks tokens. The gateway's is [`Authenticator`].
pub trait Tokens: Send + Sync {
    /// Who may decide with `token`.
    fn review<'a>(&'a self, token: &'a [u8], now: Now) -> Later<'a, Result<Principal, Denial>>;

    /// Who may connect with `token`.
    fn connect<'a>(&'a self, token: &'a [u8], now: Now) -> Later<'a, Result<Principal, Denial>>;

    /// Whether the identity behind an earlier token was revoked since.
    fn is_revoked(&self, principal: &Principal) -> bool;

    /// Whether a reviewer whom an integration vouches for is not revoked.
    fn admits(&self, reviewer: &Reviewer) -> bool;

    /// The URL of an issuer, given as such or by its name. An error says which there are.
    fn issuer(&self, named: &str) -> Result<String, String>;

    /// Lets an identity in no more. An error says that a restart would forget it.
    fn revoke(&self, identity: &Identity, by: Option<&Identity>) -> Result<(), String>;
}

impl Tokens for Authenticator {
    fn review<'a>(&'a self, token: &'a [u8], now: Now) -> Later<'a, Result<Principal, Denial>> {
        Box::pin(async move {
            Authenticator::review(self, token, now)
                .await
                .map_err(|error| error.denial())
        })
    }

    fn connect<'a>(&'a self, token: &'a [u8], now: Now) -> Later<'a, Result<Principal, Denial>> {
        Box::pin(async move {
            Authenticator::connect(self, token, now)
                .await
                .map_err(|error| error.denial())
        })
    }

    fn is_revoked(&self, principal: &Principal) -> bool {
        Authenticator::is_revoked(self, principal)
    }

    fn admits(&self, reviewer: &Reviewer) -> bool {
        Authenticator::admits(self, reviewer)
    }

    fn issuer(&self, named: &str) -> Result<String, String> {
        Authenticator::issuer(self, named)
    }

    fn revoke(&self, identity: &Identity, by: Option<&Identity>) -> Result<(), String> {
        let revocation = Revocation::Identity(identity.clone());
        self.revoke_by(revocation, by.cloned())
            .map_err(|error| error.to_string())
    }
}

impl Api {
    /// A person who may decide.
    pub(super) async fn reviewer(&self, headers: &HeaderMap) -> Result<Principal, Problem> {
        let token = bearer(headers)?;
        Ok(self.0.tokens.review(token, self.now()).await?)
    }

    /// Whoever may connect, as themselves.
    pub(super) async fn client(&self, headers: &HeaderMap) -> Result<Principal, Problem> {
        let token = bearer(headers)?;
        Ok(self.0.tokens.connect(token, self.now()).await?)
    }

    /// A reviewer, or else whoever may connect.
    pub(super) async fn anyone(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        let token = bearer(headers)?;
        let Err(no_reviewer) = self.0.tokens.review(token, self.now()).await else {
            return Ok(Caller::Reviewer);
        };
        match self.0.tokens.connect(token, self.now()).await {
            Ok(principal) => Ok(Caller::Client(Box::new(principal))),
            // Of a token for reviewing, that it is not one for connecting is not why.
            Err(no_client) if no_client.code == SCOPE => Err(no_reviewer.into()),
            Err(no_client) => Err(no_client.into()),
        }
    }
}

pub(super) enum Caller {
    Reviewer,
    Client(Box<Principal>),
}

/// The one bearer token of a request.
pub(super) fn bearer(headers: &HeaderMap) -> Result<&[u8], Problem> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (all.next(), all.next()) else {
        return Err(Problem::no_credentials());
    };
    let bytes = value.as_bytes();
    match bytes.split_at_checked(7) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty() => {
            Ok(token)
        }
        _ => Err(Problem::no_credentials()),
    }
}

/// What a verified token says of a voter. Everyone in its `act` chain and every
/// owner counts as involved: none of them may be behind the request.
pub(crate) fn voter(principal: Principal) -> Reviewer {
    let mut also = principal.actors;
    also.extend(principal.owners);
    Reviewer {
        identity: principal.identity,
        label: principal.label,
        groups: principal.groups,
        on_call: Vec::new(),
        agent: principal.kind == Kind::Agent,
        also,
        auth_time: principal.auth_time,
    }
}
