//! Keys, tokens and issuers for the tests beside this file.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use holdpoint_core::Now;
use holdpoint_core::config::{Agent, IdentityConfig, Issuer, OnTokenExpiry};
use holdpoint_core::principal::Identity;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use super::keys::name_of;

/// Made for these tests and used nowhere else.
pub(super) const RSA_2048: &str = include_str!("testdata/rsa2048.pem");
pub(super) const RSA_1024: &str = include_str!("testdata/rsa1024.pem");

pub(super) const ISSUER: &str = "https://issuer.example/oauth2/one";
pub(super) const NOW: u64 = 1_800_000_000;

pub(super) fn now() -> Now {
    Now {
        wall_ns: NOW * 1_000_000_000,
        mono_ns: 0,
    }
}

pub(super) struct Signer {
    pub(super) algorithm: Algorithm,
    pub(super) kid: &'static str,
    pub(super) key: EncodingKey,
}

impl Signer {
    pub(super) fn es256(kid: &'static str) -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        Self {
            algorithm: Algorithm::ES256,
            kid,
            key: EncodingKey::from_ec_der(pair.serialized_der()),
        }
    }

    pub(super) fn rsa(kid: &'static str, algorithm: Algorithm, pem: &str) -> Self {
        Self {
            algorithm,
            kid,
            key: EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap(),
        }
    }

    pub(super) fn jwk(&self) -> Value {
        let jwk = Jwk::from_encoding_key(&self.key, self.algorithm).unwrap();
        let mut jwk = serde_json::to_value(jwk).unwrap();
        jwk["kid"] = self.kid.into();
        jwk["use"] = "sig".into();
        jwk
    }

    pub(super) fn header(&self) -> Value {
        json!({ "alg": name_of(self.algorithm), "kid": self.kid, "typ": "at+jwt" })
    }

    pub(super) fn token(&self, claims: &Value) -> String {
        self.sign(&self.header().to_string(), &claims.to_string())
    }

    /// Any text as header and claims, signed as it is.
    pub(super) fn sign(&self, header: &str, claims: &str) -> String {
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode(claims)
        );
        let signature =
            jsonwebtoken::crypto::sign(signed.as_bytes(), &self.key, self.algorithm).unwrap();
        format!("{signed}.{signature}")
    }
}

pub(super) fn key_set(signers: &[&Signer]) -> String {
    let keys: Vec<Value> = signers.iter().map(|signer| signer.jwk()).collect();
    json!({ "keys": keys }).to_string()
}

/// Good claims of a person.
pub(super) fn claims() -> Value {
    json!({
        "iss": ISSUER, "sub": "rita", "aud": "api://holdpoint", "client_id": "console",
        "scope": "holdpoint.connect", "iat": NOW - 10, "exp": NOW + 300, "jti": "t-1",
    })
}

/// Good claims but for one.
pub(super) fn with(claim: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[claim] = value;
    claims
}

pub(super) fn without(claim: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(claim);
    claims
}

pub(super) fn issuer(issuer: &str) -> Issuer {
    Issuer {
        name: "main".to_owned(),
        issuer: issuer.to_owned(),
        audiences: vec!["api://holdpoint".to_owned()],
        algorithms: vec!["ES256".to_owned(), "RS256".to_owned()],
        connect_scope: "holdpoint.connect".to_owned(),
        review_scope: "holdpoint.review".to_owned(),
        subject_claim: None,
        groups_claim: "/groups".to_owned(),
        groups_prefix: None,
        jwks_refresh: Duration::from_secs(3600),
        jwks_min_refetch: Duration::from_millis(50),
        jwks_max_stale: Duration::from_secs(24 * 3600),
        ca: None,
        login: None,
        console: None,
    }
}

pub(super) fn identity(issuers: Vec<Issuer>) -> IdentityConfig {
    let agent = Agent {
        name: "CI agent".to_owned(),
        groups: vec!["agents".to_owned()],
        owners: vec![Identity {
            issuer: ISSUER.to_owned(),
            subject: "olivia".to_owned(),
        }],
    };
    IdentityConfig {
        issuers,
        agents: [("ci".to_owned(), agent)].into(),
        max_token_bytes: 16 * 1024,
        clock_skew: Duration::from_secs(30),
        max_session: Duration::from_secs(8 * 3600),
        on_token_expiry: OnTokenExpiry::RefuseNewCommands,
    }
}
