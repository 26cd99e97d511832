//! What an attacker would send in place of a good signature.

use super::testing::Authenticator;
use super::*;

const ASKED: [u8; 32] = [7; 32];

#[track_caller]
fn refused(assertion: &Assertion, why: WebauthnError) {
    assert_eq!(assertion.check(&ASKED), Err(why));
}

#[test]
fn a_registered_key_signs_what_was_asked() {
    let mut key = Authenticator::new();
    let (credential, counter) = key.registers(&ASKED).check(&ASKED, &key.rp).unwrap();
    assert_eq!((&credential, counter), (&key.credential(), Counter(1)));
    key.counter = 2;
    let signed = key.signs(&ASKED, "n");
    assert_eq!(signed.check(&ASKED), Ok(Counter(2)));
    let text = serde_json::to_string(&signed).unwrap();
    assert_eq!(serde_json::from_str::<Assertion>(&text).unwrap(), signed);
}

#[test]
fn a_signature_counts_for_its_own_request_alone() {
    let key = Authenticator::new();
    refused(&key.signs(&[8; 32], "n"), WebauthnError::Challenge);
    let create = key.client_data("webauthn.create", &ASKED);
    refused(&key.signs_client_data(&create, "n"), WebauthnError::Kind);
    let registration = key.registers(&[8; 32]);
    let checked = registration.check(&ASKED, &key.rp);
    assert_eq!(checked, Err(WebauthnError::Challenge));
}

#[test]
fn a_signature_of_another_site_does_not_count() {
    let ours = Authenticator::new().rp;
    let mut key = Authenticator::new();
    key.rp.origin = "https://gw.example.evil".to_owned();
    let mut elsewhere = key.signs(&ASKED, "n");
    elsewhere.credential.rp = ours.clone();
    refused(&elsewhere, WebauthnError::Origin);
    key.rp.origin = ours.origin.clone();
    key.rp.id = "evil".to_owned();
    let mut elsewhere = key.signs(&ASKED, "n");
    elsewhere.credential.rp = ours.clone();
    refused(&elsewhere, WebauthnError::RelyingParty);
    key.rp = ours;
    for framed in [
        r#""crossOrigin":true"#,
        r#""crossOrigin":false,"topOrigin":"https://evil""#,
    ] {
        let data = key.client_data("webauthn.get", &ASKED);
        let data = data.replace(r#""crossOrigin":false"#, framed);
        refused(&key.signs_client_data(&data, "n"), WebauthnError::Origin);
    }
}

#[test]
fn somebody_has_to_be_there_and_be_verified() {
    let mut key = Authenticator::new();
    for (flags, why) in [
        (0, WebauthnError::NotPresent),
        (VERIFIED, WebauthnError::NotPresent),
        (PRESENT, WebauthnError::NotVerified),
    ] {
        key.flags = flags;
        refused(&key.signs(&ASKED, "n"), why);
        let checked = key.registers(&ASKED).check(&ASKED, &key.rp);
        assert_eq!(checked, Err(why));
    }
}

#[test]
fn another_keys_signature_or_changed_bytes_do_not_count() {
    let (mine, other) = (Authenticator::new(), Authenticator::new());
    let mut signed = other.signs(&ASKED, "n");
    signed.credential = mine.credential();
    refused(&signed, WebauthnError::Signature);
    // Flags and counter are signed as well.
    let mut low = mine;
    low.flags = PRESENT;
    let mut raised = low.signs(&ASKED, "n");
    low.flags |= VERIFIED;
    raised.authenticator_data = low.signs(&ASKED, "n").authenticator_data;
    refused(&raised, WebauthnError::Signature);
    let good = low.signs(&ASKED, "n");
    for part in ["", "AA", "=", "\u{e9}"] {
        let mut bad = good.clone();
        bad.signature = part.to_owned();
        assert!(bad.check(&ASKED).is_err(), "{part}");
        let mut bad = good.clone();
        bad.authenticator_data = part.to_owned();
        assert!(bad.check(&ASKED).is_err(), "{part}");
        let mut bad = good.clone();
        bad.client_data = part.to_owned();
        assert!(bad.check(&ASKED).is_err(), "{part}");
    }
    let mut longer = good.clone();
    let mut data = bytes(&good.authenticator_data).unwrap();
    data.push(0);
    longer.authenticator_data = URL_SAFE_NO_PAD.encode(data);
    assert!(longer.check(&ASKED).is_err());
}

#[test]
fn all_kinds_of_keys_verify() {
    use ed25519_dalek::Signer as _;

    let key = Authenticator::new();
    let mut signed = key.signs(&ASKED, "n");
    let mut message = bytes(&signed.authenticator_data).unwrap();
    message.extend_from_slice(&Sha256::digest(bytes(&signed.client_data).unwrap()));
    let pair = ed25519_dalek::SigningKey::from_bytes(&[3; 32]);
    signed.credential.key = PublicKey::EdDsa(URL_SAFE_NO_PAD.encode(pair.verifying_key()));
    signed.signature = URL_SAFE_NO_PAD.encode(pair.sign(&message).to_bytes());
    assert_eq!(signed.check(&ASKED), Ok(Counter(1)));
    signed.credential.key = key.credential().key;
    refused(&signed, WebauthnError::Signature);
    // No key of a kind stands for one of another.
    signed.credential.key = PublicKey::Rs256 {
        n: URL_SAFE_NO_PAD.encode([0xff; 256]),
        e: "AQAB".to_owned(),
    };
    refused(&signed, WebauthnError::Signature);
}

/// The key of the identity tests, in PKCS#1.
const RSA: &str = include_str!("../../../src/identity/testdata/rsa2048.pem");

#[test]
fn a_good_rsa_signature_counts_and_one_of_other_bytes_or_another_padding_does_not() {
    use base64::engine::general_purpose::STANDARD;
    use ring::rsa::{KeyPair, PublicKeyComponents};
    use ring::signature::{RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RsaEncoding};

    let body: String = RSA.lines().filter(|line| !line.contains("--")).collect();
    let pair = KeyPair::from_der(&STANDARD.decode(body).unwrap()).unwrap();
    let sign = |padding: &'static dyn RsaEncoding, message: &[u8]| {
        let mut signature = vec![0; pair.public().modulus_len()];
        let random = ring::rand::SystemRandom::new();
        pair.sign(padding, &random, message, &mut signature)
            .unwrap();
        URL_SAFE_NO_PAD.encode(signature)
    };
    let public = PublicKeyComponents::<Vec<u8>>::from(pair.public());
    let mut signed = Authenticator::new().signs(&ASKED, "n");
    let mut message = bytes(&signed.authenticator_data).unwrap();
    message.extend_from_slice(&Sha256::digest(bytes(&signed.client_data).unwrap()));
    signed.credential.key = PublicKey::Rs256 {
        n: URL_SAFE_NO_PAD.encode(&public.n),
        e: URL_SAFE_NO_PAD.encode(&public.e),
    };
    signed.signature = sign(&RSA_PKCS1_SHA256, &message);
    assert_eq!(signed.check(&ASKED), Ok(Counter(1)));
    for signature in [
        sign(&RSA_PKCS1_SHA256, b"something else"),
        sign(&RSA_PKCS1_SHA512, &message),
        sign(&RSA_PSS_SHA256, &message),
    ] {
        signed.signature = signature;
        refused(&signed, WebauthnError::Signature);
    }
}

#[test]
fn a_counter_rises_or_stays_nothing() {
    let may = |a, b| Counter(a).may_become(Counter(b));
    assert!(may(0, 0) && may(0, 1) && may(1, 2) && may(5, 900));
    assert!(!may(1, 1) && !may(2, 1) && !may(1, 0));
}
