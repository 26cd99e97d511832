//! An authenticator in a few lines, for tests: a key, a counter, and flags to get wrong. Tests of
//! the console use this file, too.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use sha2::{Digest as _, Sha256};

use super::{Assertion, Credential, PublicKey, Registration, RelyingParty};

const PRESENT_AND_VERIFIED: u8 = 0x05;
const ATTESTED: u8 = 0x40;

pub(crate) struct Authenticator {
    pair: EcdsaKeyPair,
    pub(crate) rp: RelyingParty,
    pub(crate) flags: u8,
    pub(crate) counter: u32,
}

impl Authenticator {
    pub(crate) fn new() -> Self {
        let (algorithm, random) = (&ECDSA_P256_SHA256_ASN1_SIGNING, SystemRandom::new());
        let key = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        Self {
            pair: EcdsaKeyPair::from_pkcs8(algorithm, key.as_ref(), &random).unwrap(),
            rp: RelyingParty {
                id: "gw.example".to_owned(),
                origin: "https://gw.example".to_owned(),
            },
            flags: PRESENT_AND_VERIFIED,
            counter: 1,
        }
    }

    pub(crate) fn credential(&self) -> Credential {
        let point = self.pair.public_key().as_ref();
        Credential {
            id: URL_SAFE_NO_PAD.encode(&point[1..17]),
            key: PublicKey::Es256(URL_SAFE_NO_PAD.encode(point)),
            rp: self.rp.clone(),
        }
    }

    fn head(&self, more: u8) -> Vec<u8> {
        let mut data = Sha256::digest(self.rp.id.as_bytes()).to_vec();
        data.push(self.flags | more);
        data.extend(self.counter.to_be_bytes());
        data
    }

    pub(crate) fn client_data(&self, kind: &str, challenge: &[u8; 32]) -> String {
        let data = serde_json::json!({
            "type": kind, "challenge": URL_SAFE_NO_PAD.encode(challenge),
            "origin": self.rp.origin, "crossOrigin": false,
        });
        data.to_string()
    }

    pub(crate) fn registers(&self, challenge: &[u8; 32]) -> Registration {
        let mut data = self.head(ATTESTED);
        let point = self.pair.public_key().as_ref();
        data.extend([0; 16]);
        data.extend([0, 16]);
        data.extend(&point[1..17]);
        data.extend([0xa5, 1, 2, 3, 0x26, 0x20, 1, 0x21, 0x58, 32]);
        data.extend(&point[1..33]);
        data.extend([0x22, 0x58, 32]);
        data.extend(&point[33..65]);
        Registration {
            authenticator_data: URL_SAFE_NO_PAD.encode(data),
            client_data: URL_SAFE_NO_PAD.encode(self.client_data("webauthn.create", challenge)),
        }
    }

    pub(crate) fn signs(&self, challenge: &[u8; 32], nonce: &str) -> Assertion {
        self.signs_client_data(&self.client_data("webauthn.get", challenge), nonce)
    }

    pub(crate) fn signs_client_data(&self, client_data: &str, nonce: &str) -> Assertion {
        let data = self.head(0);
        let mut signed = data.clone();
        signed.extend_from_slice(&Sha256::digest(client_data.as_bytes()));
        let signature = self.pair.sign(&SystemRandom::new(), &signed).unwrap();
        Assertion {
            credential: self.credential(),
            nonce: nonce.to_owned(),
            authenticator_data: URL_SAFE_NO_PAD.encode(data),
            client_data: URL_SAFE_NO_PAD.encode(client_data),
            signature: URL_SAFE_NO_PAD.encode(signature),
        }
    }
}
