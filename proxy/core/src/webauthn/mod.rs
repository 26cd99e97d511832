//! What a person's authenticator signs (W3C Web Authentication, level 2), checked from bytes alone.
//!
//! Bytes travel as base64url without padding, as browsers and JSON have them. What is checked is
//! what sections 7.1 and 7.2 of the specification ask of a server: the kind of ceremony, the
//! challenge, the origin, the hash of the relying party's id, that somebody was there (`UP`) and was
//! verified by the device (`UV`), and the signature. Whose key it is, that a challenge is used
//! once and that counters rise is for who keeps the keys.
//!
//! Limits: no attestation. Who may register a key decides which make it is.

mod cose;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Longest name of a credential, by the specification.
const MAX_ID: usize = 1_023;

/// Far beyond what any browser or authenticator makes.
const MAX_PART: usize = 16 * 1024;

/// Hash of the relying party's id, flags, counter.
const HEAD: usize = 37;

const PRESENT: u8 = 0x01;
const VERIFIED: u8 = 0x04;
const ATTESTED: u8 = 0x40;
const EXTENDED: u8 = 0x80;

/// A key that somebody registered, and where it is good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// As its authenticator named it.
    pub id: String,
    pub key: PublicKey,
    pub rp: RelyingParty,
}

/// For which site a key was made. Authenticators sign the first, browsers write the second.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelyingParty {
    /// A host, or a domain above it.
    pub id: String,
    /// Scheme, host, and the port where it is not the usual one.
    pub origin: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PublicKey {
    /// A point of P-256, uncompressed.
    Es256(String),
    /// Of Ed25519.
    EdDsa(String),
    Rs256 {
        n: String,
        e: String,
    },
}

/// A signature, and all that it takes to check it again years later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assertion {
    pub credential: Credential,
    /// What the server added to the challenge.
    pub nonce: String,
    pub authenticator_data: String,
    /// As the browser wrote it.
    pub client_data: String,
    pub signature: String,
}

/// What a browser gives when a key is registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    pub authenticator_data: String,
    pub client_data: String,
}

/// A key's counter as it was when it signed. One that stays 0 counts nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Counter(pub u32);

impl Counter {
    /// Whether a key that stood at `self` can stand at `next` now. Otherwise there are two of it.
    pub fn may_become(self, next: Self) -> bool {
        (self.0 == 0 && next.0 == 0) || next.0 > self.0
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WebauthnError {
    #[error("it cannot be read ({0})")]
    Malformed(&'static str),
    #[error("it is not of this kind of request")]
    Kind,
    #[error("it was made for another request")]
    Challenge,
    #[error("it was made on another site")]
    Origin,
    #[error("it was made for another relying party")]
    RelyingParty,
    #[error("the key did not tell that somebody was there")]
    NotPresent,
    #[error("the key did not verify who was there: set a PIN or a fingerprint for it")]
    NotVerified,
    #[error("keys of this kind are not supported: it takes ES256, EdDSA or RS256")]
    Algorithm,
    #[error("the signature is not of this key")]
    Signature,
    #[error("this key is not one of yours here")]
    NotYours,
    #[error("the key's counter went back, so there may be two of it: remove it")]
    Counter,
}

type Checked<T> = Result<T, WebauthnError>;

impl Assertion {
    /// Checks that the credential's key signed `challenge` on its site, by somebody who was
    /// verified. Gives its counter.
    ///
    /// # Errors
    /// What of it is wrong.
    pub fn check(&self, challenge: &[u8; 32]) -> Checked<Counter> {
        let rp = &self.credential.rp;
        let client_data = bytes(&self.client_data)?;
        check_client_data(&client_data, "webauthn.get", challenge, rp)?;
        let mut signed = bytes(&self.authenticator_data)?;
        let head = Head::read(&signed, rp)?;
        if head.flags & (ATTESTED | EXTENDED) == 0 && signed.len() != HEAD {
            return Err(WebauthnError::Malformed("there is more than it says"));
        }
        signed.extend_from_slice(&Sha256::digest(&client_data));
        self.credential
            .key
            .verify(&signed, &bytes(&self.signature)?)?;
        Ok(head.counter)
    }
}

impl Registration {
    /// The new key, and its counter.
    ///
    /// # Errors
    /// What of it is wrong.
    pub fn check(&self, challenge: &[u8; 32], rp: &RelyingParty) -> Checked<(Credential, Counter)> {
        check_client_data(&bytes(&self.client_data)?, "webauthn.create", challenge, rp)?;
        let data = bytes(&self.authenticator_data)?;
        let head = Head::read(&data, rp)?;
        if head.flags & ATTESTED == 0 {
            return Err(WebauthnError::Malformed("there is no key in it"));
        }
        let short = WebauthnError::Malformed("it is too short");
        // After the head: which make it is, and how long the name.
        let length = data.get(HEAD + 16..HEAD + 18).ok_or(short)?;
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        let rest = data.get(HEAD + 18..).unwrap_or_default();
        let (id, rest) = rest.split_at_checked(length).ok_or(short)?;
        if id.is_empty() || id.len() > MAX_ID {
            return Err(WebauthnError::Malformed("its name is empty or too long"));
        }
        let (key, rest) = cose::key(rest)?;
        if head.flags & EXTENDED == 0 && !rest.is_empty() {
            return Err(WebauthnError::Malformed("there is more than it says"));
        }
        let credential = Credential {
            id: URL_SAFE_NO_PAD.encode(id),
            key,
            rp: rp.clone(),
        };
        Ok((credential, head.counter))
    }
}

impl PublicKey {
    fn verify(&self, message: &[u8], signature: &[u8]) -> Checked<()> {
        let good = match self {
            Self::Es256(point) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, bytes(point)?)
                .verify(message, signature),
            Self::EdDsa(key) => {
                UnparsedPublicKey::new(&ED25519, bytes(key)?).verify(message, signature)
            }
            Self::Rs256 { n, e } => RsaPublicKeyComponents {
                n: bytes(n)?,
                e: bytes(e)?,
            }
            .verify(&RSA_PKCS1_2048_8192_SHA256, message, signature),
        };
        good.map_err(|_| WebauthnError::Signature)
    }
}

/// What stands first in an authenticator's data.
struct Head {
    flags: u8,
    counter: Counter,
}

impl Head {
    fn read(data: &[u8], rp: &RelyingParty) -> Checked<Self> {
        let (hash, rest) = data
            .split_first_chunk::<32>()
            .ok_or(WebauthnError::Malformed("it is too short"))?;
        let &[flags, a, b, c, d, ..] = rest else {
            return Err(WebauthnError::Malformed("it is too short"));
        };
        if hash[..] != Sha256::digest(rp.id.as_bytes())[..] {
            return Err(WebauthnError::RelyingParty);
        }
        if flags & PRESENT == 0 {
            return Err(WebauthnError::NotPresent);
        }
        if flags & VERIFIED == 0 {
            return Err(WebauthnError::NotVerified);
        }
        Ok(Self {
            flags,
            counter: Counter(u32::from_be_bytes([a, b, c, d])),
        })
    }
}

/// The browser's part: what the page asked for, and which page.
fn check_client_data(
    json: &[u8],
    kind: &str,
    challenge: &[u8; 32],
    rp: &RelyingParty,
) -> Checked<()> {
    let data: Value = serde_json::from_slice(json)
        .map_err(|_| WebauthnError::Malformed("the browser's part is not JSON"))?;
    let is = |name: &str, value: &str| data.get(name).and_then(Value::as_str) == Some(value);
    if !is("type", kind) {
        return Err(WebauthnError::Kind);
    }
    if !is("challenge", &URL_SAFE_NO_PAD.encode(challenge)) {
        return Err(WebauthnError::Challenge);
    }
    let framed = match data.get("crossOrigin") {
        None | Some(Value::Bool(false)) => data.get("topOrigin").is_some(),
        Some(_) => true,
    };
    if framed || !is("origin", &rp.origin) {
        return Err(WebauthnError::Origin);
    }
    Ok(())
}

fn bytes(text: &str) -> Checked<Vec<u8>> {
    if text.len() > MAX_PART {
        return Err(WebauthnError::Malformed("it is too long"));
    }
    URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| WebauthnError::Malformed("it is not base64url"))
}
