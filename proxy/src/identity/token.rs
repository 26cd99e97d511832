//! The strict check of one JWT access token. Pure: time and key are arguments.
//!
//! `jsonwebtoken` verifies the signature and nothing else here. Its claim checks
//! read the clock themselves and let through what must not pass (a list as `iss`,
//! an `iat` of tomorrow, any `typ`, `crit`), so every claim is judged below.
//!
//! Order: length, parts, header, issuer (looked up by the *unverified* `iss`, in
//! the configured list only), algorithm, key, signature, claims. Nothing that a
//! token says is believed before its signature, except which issuer to ask.

use std::collections::BTreeMap;
use std::str::FromStr as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use holdpoint_core::config::{Agent, Issuer};
use holdpoint_core::id::Digest;
use holdpoint_core::principal::{Identity, Kind, Principal};
use jsonwebtoken::{Algorithm, AlgorithmFamily};
use serde_json::Value;

use super::error::{TokenError, shown};
use super::json;
use super::keys::{Key, name_of};

/// Header members that name keys, change what is signed, or ask for more than is
/// understood here. `crit` is refused whatever it lists: nothing is understood.
const REFUSED_HEADERS: [&str; 8] = ["crit", "jku", "jwk", "x5u", "x5c", "zip", "b64", "enc"];

/// Claims that only other kinds of token have: ID tokens and security events.
const FOREIGN_CLAIMS: [&str; 3] = ["at_hash", "c_hash", "events"];

/// Okta cuts group lists here without saying so.
const GROUPS_PROBABLY_CUT: usize = 100;

/// No issuer nests deeper; a chain that cannot be shown whole is not accepted.
const MAX_ACTORS: usize = 8;

/// Seconds. Later times are milliseconds by mistake, and would never expire.
const LAST_TIME: u64 = 100_000_000_000;

/// A token that has been read but not believed.
#[derive(Debug)]
pub(super) struct Presented<'a> {
    /// Header and claims as they were signed.
    signed: &'a str,
    signature: &'a str,
    pub(super) algorithm: Algorithm,
    pub(super) kid: Option<String>,
    /// Only good for choosing the issuer to check against.
    pub(super) issuer: String,
    /// An object.
    claims: Value,
    /// Of all its bytes.
    whole: Digest,
}

/// What a token is checked against.
#[derive(Debug, Clone, Copy)]
pub(super) struct Checks<'a> {
    pub(super) issuer: &'a Issuer,
    pub(super) agents: &'a BTreeMap<String, Agent>,
    /// Seconds that clocks may differ.
    pub(super) skew: u64,
    /// Unix seconds.
    pub(super) now: u64,
}

/// Names a token in logs and records without being of use to anyone.
pub(super) fn fingerprint(token: &[u8]) -> String {
    short(Digest::of(token))
}

/// See [`Principal::token`].
fn short(whole: Digest) -> String {
    hex::encode(&whole.0[..8])
}

impl<'a> Presented<'a> {
    /// Reads a token of at most `limit` bytes.
    pub(super) fn read(token: &'a [u8], limit: usize) -> Result<Self, TokenError> {
        if token.len() > limit {
            return Err(TokenError::TooLong { limit });
        }
        let text = std::str::from_utf8(token)
            .ok()
            .filter(|text| text.bytes().all(is_token_byte))
            .ok_or(TokenError::Malformed("it has characters that no JWT has"))?;
        let parts: Vec<&str> = text.split('.').collect();
        let [header, claims, signature] = parts[..] else {
            return Err(TokenError::Malformed(match parts.len() {
                5 => "it is encrypted",
                _ => "it does not have three parts",
            }));
        };
        let (algorithm, kid) = read_header(header)?;
        let claims = part(claims).ok_or(TokenError::Malformed("its claims are not JSON"))?;
        let issuer = match claims.get("iss") {
            Some(Value::String(issuer)) => issuer.clone(),
            Some(_) => return Err(bad("iss", "is not a string")),
            None => return Err(bad("iss", "is missing")),
        };
        if signature.is_empty() {
            return Err(TokenError::Malformed("it has no signature"));
        }
        Ok(Self {
            signed: &text[..text.len() - signature.len() - 1],
            signature,
            algorithm,
            kid,
            issuer,
            claims,
            whole: Digest::of(token),
        })
    }

    /// Whether the issuer may sign with this algorithm at all.
    pub(super) fn check_algorithm(&self, issuer: &Issuer) -> Result<(), TokenError> {
        let algorithm = name_of(self.algorithm);
        if issuer.algorithms.iter().any(|name| name == algorithm) {
            return Ok(());
        }
        Err(TokenError::Algorithm {
            issuer: issuer.name.clone(),
            algorithm,
        })
    }

    /// Checks everything, the signature first.
    pub(super) fn verify(self, key: &Key, checks: Checks<'_>) -> Result<Principal, TokenError> {
        self.check_algorithm(checks.issuer)?;
        if !key.verifies(self.algorithm) {
            return Err(TokenError::KeyMismatch);
        }
        if !key.signed(self.whole, self.algorithm, self.signed, self.signature) {
            return Err(TokenError::Signature);
        }
        if self.issuer != checks.issuer.issuer {
            return Err(bad("iss", "is another issuer's"));
        }
        let expires = self.check_times(checks)?;
        self.check_audience(&checks.issuer.audiences)?;
        if self.claims.get("cnf").is_some() {
            return Err(TokenError::SenderBound);
        }
        if let Some(name) = FOREIGN_CLAIMS
            .into_iter()
            .find(|name| self.claims.get(name).is_some())
        {
            return Err(TokenError::NotAnAccessToken(format!("it has `{name}`")));
        }
        self.principal(checks, expires)
    }

    fn check_times(&self, checks: Checks<'_>) -> Result<u64, TokenError> {
        let expires = self.time("exp")?.ok_or(bad("exp", "is missing"))?;
        let not_before = self.time("nbf")?;
        let issued = self.time("iat")?;
        let Checks { skew, now, .. } = checks;
        if now >= expires.saturating_add(skew) {
            return Err(TokenError::Expired {
                seconds: now - expires,
            });
        }
        let future = now.saturating_add(skew);
        if not_before.is_some_and(|time| time > future) {
            return Err(bad("nbf", "lies in the future"));
        }
        if issued.is_some_and(|time| time > future) {
            return Err(bad("iat", "lies in the future"));
        }
        if self.time("auth_time")?.is_some_and(|time| time > future) {
            return Err(bad("auth_time", "lies in the future"));
        }
        Ok(expires)
    }

    fn time(&self, claim: &'static str) -> Result<Option<u64>, TokenError> {
        let Some(value) = self.claims.get(claim) else {
            return Ok(None);
        };
        let seconds = value.as_u64().or_else(|| {
            value
                .as_f64()
                .filter(|float| *float >= 0.0 && *float <= LAST_TIME as f64)
                .map(|float| float as u64)
        });
        seconds
            .filter(|seconds| *seconds <= LAST_TIME)
            .map(Some)
            .ok_or(bad(claim, "is not a time in seconds"))
    }

    fn check_audience(&self, ours: &[String]) -> Result<(), TokenError> {
        let given = match self.claims.get("aud") {
            None => return Err(bad("aud", "is missing")),
            Some(value) => strings(value).ok_or(bad("aud", "is not a string or a list of them"))?,
        };
        if given.iter().any(|one| ours.iter().any(|our| our == one)) {
            Ok(())
        } else {
            Err(bad("aud", "names another service"))
        }
    }

    fn principal(self, checks: Checks<'_>, expires: u64) -> Result<Principal, TokenError> {
        let Checks { issuer, agents, .. } = checks;
        let sub = self.text("sub")?.ok_or(bad("sub", "is missing"))?;
        let subject = match issuer.subject_claim.as_deref() {
            Some(claim) => match self.claims.get(claim) {
                None => sub,
                Some(Value::String(subject)) if !subject.is_empty() => subject,
                Some(_) => return Err(bad("subject_claim", "is not a string")),
            },
            None => sub,
        };
        let mut client_id = None;
        for claim in ["client_id", "cid", "azp"] {
            if let Some(id) = self.text(claim)? {
                client_id = Some(id);
                break;
            }
        }
        let actors = self.actors(issuer)?;
        let agent = client_id.and_then(|id| agents.get(id));
        let kind = if self.is_a_clients_own(sub, client_id) || agent.is_some() || !actors.is_empty()
        {
            Kind::Agent
        } else {
            Kind::Person
        };

        let mut scopes = Vec::new();
        for claim in ["scp", "scope"] {
            let Some(value) = self.claims.get(claim) else {
                continue;
            };
            let given = strings(value).ok_or(bad(claim, "is not a string or a list of them"))?;
            for scope in given.iter().flat_map(|text| text.split_ascii_whitespace()) {
                push_once(&mut scopes, scope);
            }
        }
        if kind == Kind::Agent {
            // Whatever the issuer says: an agent never decides.
            scopes.retain(|scope| *scope != issuer.review_scope);
        }

        let mut groups = self.groups(issuer)?;
        // Owners of an actor answer for what it does under another's name, too.
        let acting = actors.iter().filter_map(|actor| agents.get(&actor.subject));
        let mut owners: Vec<Identity> = Vec::new();
        for agent in agent.into_iter().chain(acting) {
            for owner in &agent.owners {
                if !owners.contains(owner) {
                    owners.push(owner.clone());
                }
            }
        }
        for group in agent.iter().flat_map(|agent| &agent.groups) {
            push_once(&mut groups, group);
        }

        let label = agent.map(|agent| agent.name.as_str()).or_else(|| {
            ["name", "email", "preferred_username"]
                .into_iter()
                .filter_map(|claim| self.claims.get(claim)?.as_str())
                .find(|text| !text.is_empty())
        });
        Ok(Principal {
            identity: Identity {
                issuer: issuer.issuer.clone(),
                subject: subject.to_owned(),
            },
            kind,
            label: tidy(label.unwrap_or(subject)),
            client_id: client_id.map(str::to_owned),
            actors,
            owners,
            groups,
            scopes,
            expires,
            token_id: self.text("jti")?.map(str::to_owned),
            auth_time: self.time("auth_time")?,
            token: short(self.whole),
        })
    }

    /// A claim that is a string and not empty where it is present.
    /// Whether nobody signed in for it (RFC 6749, section 4.4). Issuers say so in ways of their own:
    /// Okta by `sub`, Auth0 by `sub` and `gty`, Keycloak by the name of the client's account,
    /// Entra ID by `idtyp`.
    fn is_a_clients_own(&self, sub: &str, client_id: Option<&str>) -> bool {
        let said = |claim: &str| self.claims.get(claim).and_then(Value::as_str);
        let account = said("preferred_username")
            .and_then(|name| name.strip_prefix("service-account-"))
            .zip(client_id);
        client_id == Some(sub)
            || sub.ends_with("@clients")
            || said("gty") == Some("client-credentials")
            || said("idtyp") == Some("app")
            || account.is_some_and(|(account, client)| account.eq_ignore_ascii_case(client))
    }

    fn text(&self, claim: &'static str) -> Result<Option<&str>, TokenError> {
        match self.claims.get(claim) {
            None => Ok(None),
            Some(Value::String(text)) if !text.is_empty() => Ok(Some(text)),
            Some(_) => Err(bad(claim, "is not a string, or empty")),
        }
    }

    fn groups(&self, issuer: &Issuer) -> Result<Vec<String>, TokenError> {
        let mut groups = Vec::new();
        let Some(value) = self.claims.pointer(&issuer.groups_claim) else {
            return Ok(groups);
        };
        let given = strings(value).ok_or(bad("groups", "is not a string or a list of them"))?;
        if given.len() == GROUPS_PROBABLY_CUT {
            tracing::warn!(
                issuer = issuer.name,
                token = short(self.whole),
                "exactly {GROUPS_PROBABLY_CUT} groups: the issuer probably left some out; \
                 filter the claim to a prefix"
            );
        }
        for group in given {
            let ours = issuer
                .groups_prefix
                .as_ref()
                .is_none_or(|prefix| group.starts_with(prefix.as_str()));
            if ours && !group.is_empty() {
                push_once(&mut groups, group);
            }
        }
        Ok(groups)
    }

    fn actors(&self, issuer: &Issuer) -> Result<Vec<Identity>, TokenError> {
        let mut actors = Vec::new();
        let mut next = self.claims.get("act");
        while let Some(act) = next {
            if actors.len() == MAX_ACTORS {
                return Err(bad("act", "is nested too deep"));
            }
            let text = |claim: &str| act.get(claim).and_then(Value::as_str);
            let subject = issuer
                .subject_claim
                .as_deref()
                .and_then(text)
                .or_else(|| text("sub"))
                .filter(|subject| !subject.is_empty())
                .ok_or(bad("act", "names nobody"))?;
            let of = match act.get("iss") {
                None => issuer.issuer.as_str(),
                Some(Value::String(of)) => of,
                Some(_) => return Err(bad("act", "has an issuer that is not a string")),
            };
            actors.push(Identity {
                issuer: of.to_owned(),
                subject: subject.to_owned(),
            });
            next = act.get("act");
        }
        Ok(actors)
    }
}

fn read_header(encoded: &str) -> Result<(Algorithm, Option<String>), TokenError> {
    let header = part(encoded).ok_or(TokenError::Malformed("its header is not JSON"))?;
    if let Some(name) = REFUSED_HEADERS
        .into_iter()
        .find(|name| header.get(name).is_some())
    {
        return Err(TokenError::Header(name));
    }
    match header.get("typ") {
        None => {}
        Some(Value::String(kind)) => check_type(kind)?,
        Some(_) => return Err(TokenError::Header("typ")),
    }
    let algorithm = header
        .get("alg")
        .and_then(Value::as_str)
        .and_then(|name| Algorithm::from_str(name).ok())
        // A shared secret cannot tell issuer from gateway, and published keys are no secret.
        .filter(|algorithm| algorithm.family() != AlgorithmFamily::Hmac)
        .ok_or(TokenError::Header("alg"))?;
    let kid = match header.get("kid") {
        None => None,
        Some(Value::String(kid)) if !kid.is_empty() && kid.len() <= 256 => Some(kid.clone()),
        Some(_) => return Err(TokenError::Header("kid")),
    };
    Ok((algorithm, kid))
}

fn check_type(kind: &str) -> Result<(), TokenError> {
    let lower = kind.to_ascii_lowercase();
    match lower.as_str() {
        "jwt" | "at+jwt" | "application/at+jwt" => Ok(()),
        "application/okta-internal-at+jwt" | "okta-internal-at+jwt" => Err(TokenError::OktaOrg),
        _ => Err(TokenError::NotAnAccessToken(format!(
            "its type is {}",
            shown(kind)
        ))),
    }
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

/// An object.
fn part(encoded: &str) -> Option<Value> {
    let bytes = URL_SAFE_NO_PAD.decode(encoded).ok()?;
    json::object(&bytes).ok().map(Value::Object)
}

fn bad(claim: &'static str, why: &'static str) -> TokenError {
    TokenError::Claim { claim, why }
}

/// One string, or a list of nothing else.
fn strings(value: &Value) -> Option<Vec<&str>> {
    match value {
        Value::String(one) => Some(vec![one]),
        Value::Array(items) => items.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

fn push_once(list: &mut Vec<String>, text: &str) {
    if !list.iter().any(|have| have == text) {
        list.push(text.to_owned());
    }
}

/// A label is shown on one line and decides nothing.
fn tidy(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}
