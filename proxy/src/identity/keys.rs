//! An issuer's published keys: what a JWK set says, less what must not be used.
//!
//! Dropped with a reason: shared secrets (`oct`), RSA under 2048 bits, keys for
//! encryption, published private keys, unknown curves, and keys that share id and
//! algorithm, since nobody can say which one is meant. What is dropped
//! does not spoil the rest of the set.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use holdpoint_core::id::Digest;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::{Map, Value};

use super::json;

/// More than any issuer publishes.
const MAX_KEYS: usize = 64;

const MIN_RSA_BITS: usize = 2048;

/// Tokens of one key whose signatures are remembered.
const MAX_VERIFIED: usize = 1_024;

/// One key that signatures may be checked with.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) kid: Option<String>,
    /// From `kty`, `crv` and, where present, `alg`.
    algorithms: Vec<Algorithm>,
    material: DecodingKey,
    /// Tokens whose signature this key has verified, by the SHA-256 of all their bytes. Whoever
    /// casts many votes shows the same token with each, and the signature is what costs.
    /// Goes with the key; nothing else about a token is remembered.
    verified: Mutex<HashSet<Digest>>,
}

impl Key {
    pub(super) fn verifies(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    /// Whether this key signed the token: `whole` is of all its bytes, which hold the
    /// algorithm, what was `signed`, and the `signature`.
    pub(super) fn signed(
        &self,
        whole: Digest,
        algorithm: Algorithm,
        signed: &str,
        signature: &str,
    ) -> bool {
        let verified = || self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if verified().contains(&whole) {
            return true;
        }
        let good =
            jsonwebtoken::crypto::verify(signature, signed.as_bytes(), &self.material, algorithm);
        let good = matches!(good, Ok(true));
        if good {
            let mut verified = verified();
            if verified.len() >= MAX_VERIFIED {
                verified.clear();
            }
            verified.insert(whole);
        }
        good
    }
}

/// The usable keys of one JWK set.
#[derive(Debug, Default)]
pub(super) struct KeySet {
    pub(super) keys: Vec<Arc<Key>>,
    /// Why keys were left out; for the log.
    pub(super) dropped: Vec<String>,
}

/// The document is not a JWK set that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum KeySetError {
    #[error("not a JWK set")]
    NotASet,
    #[error("more than {MAX_KEYS} keys")]
    TooMany,
}

impl KeySet {
    pub(super) fn read(body: &[u8]) -> Result<Self, KeySetError> {
        let document = json::object(body).map_err(|_| KeySetError::NotASet)?;
        let Some(Value::Array(listed)) = document.get("keys") else {
            return Err(KeySetError::NotASet);
        };
        if listed.len() > MAX_KEYS {
            return Err(KeySetError::TooMany);
        }
        let mut set = Self::default();
        let mut keys: Vec<Key> = Vec::new();
        for (index, value) in listed.iter().enumerate() {
            match value.as_object().ok_or("not an object").and_then(read_key) {
                Ok(key) => keys.push(key),
                Err(why) => set.dropped.push(format!("key {index}: {why}")),
            }
        }
        let ambiguous: Vec<bool> = keys
            .iter()
            .map(|key| keys.iter().filter(|other| same_name(key, other)).count() > 1)
            .collect();
        for (key, ambiguous) in keys.into_iter().zip(ambiguous) {
            if ambiguous {
                set.dropped.push("two keys with one `kid`".to_owned());
            } else {
                set.keys.push(Arc::new(key));
            }
        }
        Ok(set)
    }

    /// The key that a token means. Without a `kid` only an only key can be meant.
    pub(super) fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<Arc<Key>> {
        let Some(kid) = kid else {
            return match &self.keys[..] {
                [only] => Some(Arc::clone(only)),
                _ => None,
            };
        };
        let mut named = self
            .keys
            .iter()
            .filter(|key| key.kid.as_deref() == Some(kid));
        match (named.next(), named.next()) {
            // A wrong algorithm is then told as such, not as an unknown key.
            (Some(only), None) => Some(Arc::clone(only)),
            _ => self
                .keys
                .iter()
                .find(|key| key.kid.as_deref() == Some(kid) && key.verifies(algorithm))
                .cloned(),
        }
    }
}

/// The JOSE name.
pub(super) fn name_of(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::RS256 => "RS256",
        Algorithm::RS384 => "RS384",
        Algorithm::RS512 => "RS512",
        Algorithm::PS256 => "PS256",
        Algorithm::PS384 => "PS384",
        Algorithm::PS512 => "PS512",
        Algorithm::ES256 => "ES256",
        Algorithm::ES384 => "ES384",
        Algorithm::EdDSA => "EdDSA",
        _ => "unsupported",
    }
}

fn same_name(one: &Key, other: &Key) -> bool {
    one.kid.is_some()
        && one.kid == other.kid
        && one.algorithms.iter().any(|a| other.algorithms.contains(a))
}

fn read_key(jwk: &Map<String, Value>) -> Result<Key, &'static str> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    if jwk.get("use").is_some_and(|value| value != "sig") {
        return Err("not for signatures");
    }
    let operations = jwk.get("key_ops").and_then(Value::as_array);
    if operations.is_some_and(|list| !list.iter().any(|one| one == "verify")) {
        return Err("not for verifying");
    }
    if jwk.contains_key("d") {
        return Err("a private key, published: nobody should trust it");
    }
    let kid = match jwk.get("kid") {
        None => None,
        Some(Value::String(kid)) => Some(kid.clone()),
        Some(_) => return Err("its `kid` is not a string"),
    };
    let coordinate = |name: &str, length: usize| {
        text(name)
            .filter(|text| decode(text).is_some_and(|bytes| bytes.len() == length))
            .ok_or("a coordinate is missing or of the wrong length")
    };
    let (fits, material) = match (text("kty"), text("crv")) {
        (Some("RSA"), _) => {
            let modulus = text("n").ok_or("no modulus")?;
            let bits = decode(modulus).map_or(0, |bytes| bit_length(&bytes));
            if bits < MIN_RSA_BITS {
                return Err("RSA under 2048 bits");
            }
            let exponent = text("e").ok_or("no exponent")?;
            let rsa = vec![
                Algorithm::RS256,
                Algorithm::RS384,
                Algorithm::RS512,
                Algorithm::PS256,
                Algorithm::PS384,
                Algorithm::PS512,
            ];
            (rsa, DecodingKey::from_rsa_components(modulus, exponent))
        }
        (Some("EC"), Some("P-256")) => (
            vec![Algorithm::ES256],
            DecodingKey::from_ec_components(coordinate("x", 32)?, coordinate("y", 32)?),
        ),
        (Some("EC"), Some("P-384")) => (
            vec![Algorithm::ES384],
            DecodingKey::from_ec_components(coordinate("x", 48)?, coordinate("y", 48)?),
        ),
        (Some("OKP"), Some("Ed25519")) => (
            vec![Algorithm::EdDSA],
            DecodingKey::from_ed_components(coordinate("x", 32)?),
        ),
        (Some("oct"), _) => return Err("a shared secret"),
        _ => return Err("a type or curve that is not supported"),
    };
    let algorithms = match jwk.get("alg") {
        None => fits,
        Some(named) => fits.into_iter().filter(|a| named == name_of(*a)).collect(),
    };
    if algorithms.is_empty() {
        return Err("its `alg` does not fit its type");
    }
    Ok(Key {
        kid,
        algorithms,
        material: material.map_err(|_| "its numbers cannot be read")?,
        verified: Mutex::default(),
    })
}

fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

fn bit_length(bytes: &[u8]) -> usize {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.get(zeros).map_or(0, |first| {
        (bytes.len() - zeros) * 8 - first.leading_zeros() as usize
    })
}
