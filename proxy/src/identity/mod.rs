//! Tokens in, principals out.
//!
//! [`Authenticator::connect`] is for the ports that agents use, [`Authenticator::review`]
//! for decisions; they ask for different scopes, so that a token stolen from one side is
//! of no use on the other. What makes a token good is in `token`, where keys come from in
//! `jwks`, who is let in no more in `revoke`. [`DevIssuer`] signs tokens for demo and tests.
//!
//! Limits: opaque tokens and ID tokens are refused; a token that its issuer has
//! revoked stays good here until it expires or is revoked here.

mod dev_issuer;
mod discovery;
mod error;
mod json;
mod jwks;
mod keys;
mod revoke;
mod token;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use holdpoint_core::Now;
use holdpoint_core::approval::Reviewer;
use holdpoint_core::config::{Agent, IdentityConfig, Issuer};
use holdpoint_core::principal::{Identity, Kind, Principal};
use tokio::sync::watch;

pub use crate::http_client::HttpError;
pub(crate) use dev_issuer::AUDIENCE as DEV_AUDIENCE;
pub(crate) use dev_issuer::same_secret;
pub use dev_issuer::{DevIssuer, DevIssuerError};
pub(crate) use discovery::{MAX_BODY, Metadata, discover};
pub use error::TokenError;
pub use revoke::{Revocation, RevokeError, Revoked};

use jwks::Jwks;
use revoke::Revocations;
use token::{Checks, Presented, fingerprint};

/// Checks tokens. Cheap to clone; clones share keys and revocations.
#[derive(Debug, Clone)]
pub struct Authenticator(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// By the `iss` claim, byte for byte.
    issuers: HashMap<String, Known>,
    agents: BTreeMap<String, Agent>,
    max_token_bytes: usize,
    /// Seconds.
    skew: u64,
    revocations: Arc<Revocations>,
}

#[derive(Debug)]
struct Known {
    config: Issuer,
    keys: Arc<Jwks>,
}

/// The configuration of an issuer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("issuer `{name}`: {cause}")]
    Issuer { name: String, cause: HttpError },
    #[error("issuer `{name}`: algorithm `{algorithm}` is not one of {}", ALGORITHMS.join(", "))]
    Algorithm { name: String, algorithm: String },
    #[error("issuer `{name}`: no audience, so tokens for any service would pass; set `audiences`")]
    NoAudience { name: String },
    #[error("issuer `{issuer}` is configured twice")]
    Twice { issuer: String },
    #[error(transparent)]
    Revocations(#[from] RevokeError),
}

/// What was found of an issuer at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerReport {
    /// Its name in the configuration.
    pub name: String,
    /// How many keys can be used, or why there are none yet.
    pub keys: Result<usize, String>,
}

/// What an issuer may be configured to sign with. Never a shared secret.
const ALGORITHMS: [&str; 9] = [
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA",
];

impl Authenticator {
    /// Revocations are forgotten at the end of the process; see [`Authenticator::open`].
    ///
    /// # Errors
    /// An issuer's settings cannot be used. No network is touched.
    pub fn new(config: &IdentityConfig) -> Result<Self, IdentityError> {
        Self::with(config, Arc::new(Revocations::in_memory()))
    }

    /// Keeps revocations in `revoked.json` in the private directory `state`.
    ///
    /// # Errors
    /// As [`Authenticator::new`], or the file cannot be read.
    pub fn open(config: &IdentityConfig, state: &Path) -> Result<Self, IdentityError> {
        let revocations = Revocations::open(state.join("revoked.json"))?;
        Self::with(config, Arc::new(revocations))
    }

    /// For a reload: new settings, the same revocations.
    ///
    /// # Errors
    /// As [`Authenticator::new`].
    pub fn reconfigured(&self, config: &IdentityConfig) -> Result<Self, IdentityError> {
        Self::with(config, Arc::clone(&self.0.revocations))
    }

    fn with(config: &IdentityConfig, revocations: Arc<Revocations>) -> Result<Self, IdentityError> {
        let mut issuers = HashMap::new();
        for issuer in &config.issuers {
            let name = || issuer.name.clone();
            let unknown = |algorithm: &&String| !ALGORITHMS.contains(&algorithm.as_str());
            if let Some(algorithm) = issuer.algorithms.iter().find(unknown) {
                return Err(IdentityError::Algorithm {
                    name: name(),
                    algorithm: algorithm.clone(),
                });
            }
            if issuer.audiences.is_empty() {
                return Err(IdentityError::NoAudience { name: name() });
            }
            if is_okta_org(&issuer.issuer) {
                tracing::warn!(
                    issuer = issuer.name,
                    "this is Okta's org authorization server, whose access tokens cannot be \
                     verified: use a custom one (`/oauth2/…` in its issuer)"
                );
            }
            let keys = Jwks::new(issuer).map_err(|cause| IdentityError::Issuer {
                name: name(),
                cause,
            })?;
            let known = Known {
                config: issuer.clone(),
                keys: Arc::new(keys),
            };
            if issuers.insert(issuer.issuer.clone(), known).is_some() {
                return Err(IdentityError::Twice {
                    issuer: issuer.issuer.clone(),
                });
            }
        }
        Ok(Self(Arc::new(Inner {
            issuers,
            agents: config.agents.clone(),
            max_token_bytes: config.max_token_bytes,
            skew: config.clock_skew.as_secs(),
            revocations,
        })))
    }

    /// Fetches every issuer's keys and starts keeping them fresh. An issuer that does
    /// not answer is reported and asked again later; its tokens are refused until then.
    pub async fn warm(&self) -> Vec<IssuerReport> {
        let mut reports = Vec::new();
        for known in self.0.issuers.values() {
            let keys = known.keys.warm().await;
            match &keys {
                Ok(count) => tracing::info!(issuer = known.config.name, keys = count, "keys ready"),
                Err(cause) => tracing::error!(issuer = known.config.name, cause, "no keys"),
            }
            reports.push(IssuerReport {
                name: known.config.name.clone(),
                keys,
            });
        }
        reports.sort_by(|one, other| one.name.cmp(&other.name));
        reports
    }

    /// Who may connect with `token`.
    ///
    /// # Errors
    /// The token is not good, lacks `connect_scope`, or is revoked.
    pub async fn connect(&self, token: &[u8], now: Now) -> Result<Principal, TokenError> {
        self.log(token, self.check(token, now, Purpose::Connect).await)
    }

    /// Who may decide with `token`: a person, whatever scopes an agent's token carries.
    ///
    /// # Errors
    /// The token is not good, lacks `review_scope`, is an agent's, or is revoked.
    pub async fn review(&self, token: &[u8], now: Now) -> Result<Principal, TokenError> {
        self.log(token, self.check(token, now, Purpose::Review).await)
    }

    async fn check(
        &self,
        token: &[u8],
        now: Now,
        purpose: Purpose,
    ) -> Result<Principal, TokenError> {
        let inner = &*self.0;
        let presented = Presented::read(token, inner.max_token_bytes)?;
        let Known { config, keys } = inner.issuers.get(&presented.issuer).ok_or_else(|| {
            match is_okta_org(&presented.issuer) {
                true => TokenError::OktaOrg,
                false => TokenError::UnknownIssuer(error::shown(&presented.issuer)),
            }
        })?;
        // Before the key: a token that cannot pass must not cause a fetch.
        presented.check_algorithm(config)?;
        let key = keys
            .key(presented.kid.as_deref(), presented.algorithm)
            .await?;
        let principal = presented.verify(
            &key,
            Checks {
                issuer: config,
                agents: &inner.agents,
                skew: inner.skew,
                now: now.unix(),
            },
        )?;
        if let Some(what) = inner.revocations.matching(&principal) {
            return Err(TokenError::Revoked(what));
        }
        let needed = match purpose {
            Purpose::Connect => &config.connect_scope,
            Purpose::Review if principal.kind != Kind::Person => {
                return Err(TokenError::NotAPerson);
            }
            Purpose::Review => &config.review_scope,
        };
        if !principal.has_scope(needed) {
            return Err(TokenError::Scope {
                needed: needed.clone(),
            });
        }
        Ok(principal)
    }

    fn log(
        &self,
        token: &[u8],
        outcome: Result<Principal, TokenError>,
    ) -> Result<Principal, TokenError> {
        match &outcome {
            Ok(principal) => tracing::debug!(
                principal.iss = principal.identity.issuer,
                principal.sub = principal.identity.subject,
                token = principal.token,
                "token accepted"
            ),
            // A token that is too long is not worth hashing.
            Err(error @ TokenError::TooLong { .. }) => tracing::warn!(%error, "token refused"),
            Err(error) => tracing::warn!(%error, token = fingerprint(token), "token refused"),
        }
        outcome
    }

    /// Lets somebody in no more. In force for new tokens at once; sessions watch
    /// [`Authenticator::revocations`] and ask [`Authenticator::is_revoked`].
    ///
    /// # Errors
    /// It is in force, but could not be kept for the next start.
    pub fn revoke(&self, revocation: Revocation) -> Result<(), RevokeError> {
        self.revoke_by(revocation, None)
    }

    /// As [`Authenticator::revoke`], and keeps whose word it was.
    ///
    /// # Errors
    /// It is in force, but could not be kept for the next start.
    pub fn revoke_by(
        &self,
        revocation: Revocation,
        by: Option<Identity>,
    ) -> Result<(), RevokeError> {
        tracing::warn!(?revocation, "revoked");
        self.0.revocations.add(revocation, by)
    }

    /// Takes a revocation back. Gives whether there was one.
    ///
    /// # Errors
    /// It is in force, but could not be kept for the next start.
    pub fn restore(&self, revocation: &Revocation) -> Result<bool, RevokeError> {
        tracing::warn!(?revocation, "revocation taken back");
        self.0.revocations.remove(revocation)
    }

    pub fn is_revoked(&self, principal: &Principal) -> bool {
        self.0.revocations.matching(principal).is_some()
    }

    /// Whether a reviewer whom somebody else vouches for is neither revoked here nor an agent, as
    /// far as a subject tells: issuers name a client that has no user by its id.
    pub fn admits(&self, reviewer: &Reviewer) -> bool {
        let subject = reviewer.identity.subject.as_str();
        let client = subject.strip_suffix("@clients").unwrap_or(subject);
        let agent = reviewer.agent || self.0.agents.contains_key(client);
        !agent
            && !self.revoked().iter().any(|revocation| {
                matches!(revocation, Revocation::Identity(identity)
                if *identity == reviewer.identity || reviewer.also.contains(identity))
            })
    }

    /// The issuer of a name in the configuration, or of its own URL.
    ///
    /// # Errors
    /// There is none; what there is.
    pub fn issuer(&self, named: &str) -> Result<String, String> {
        let mut issuers = self.0.issuers.values().map(|known| &known.config);
        if let Some(issuer) = issuers.find(|one| one.name == named || one.issuer == named) {
            return Ok(issuer.issuer.clone());
        }
        let known = self.0.issuers.values().map(|known| {
            let Issuer { name, issuer, .. } = &known.config;
            format!("`{name}` ({issuer})")
        });
        let mut known: Vec<_> = known.collect();
        known.sort();
        Err(known.join(", "))
    }

    pub fn revoked(&self) -> Vec<Revocation> {
        self.0.revocations.all()
    }

    /// The same, with whose word it was.
    pub fn revoked_by(&self) -> Vec<Revoked> {
        self.0.revocations.entries()
    }

    /// Whether this is on the list.
    pub fn has_revoked(&self, revocation: &Revocation) -> bool {
        self.0.revocations.has(revocation)
    }

    /// Changes whenever the list of revocations does.
    pub fn revocations(&self) -> watch::Receiver<u64> {
        self.0.revocations.changes()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Connect,
    Review,
}

/// Okta's org server issues tokens for Okta alone; only custom ones have `/oauth2/`.
fn is_okta_org(issuer: &str) -> bool {
    let rest = issuer.strip_prefix("https://").unwrap_or_default();
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let okta = ["okta.com", "oktapreview.com", "okta-emea.com"]
        .iter()
        .any(|domain| {
            host.strip_suffix(domain)
                .is_some_and(|head| head.ends_with('.'))
        });
    okta && !path.starts_with("oauth2/")
}

#[cfg(test)]
mod jwks_tests;
#[cfg(test)]
mod principal_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod token_tests;
