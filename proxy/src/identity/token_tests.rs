//! What the token check refuses.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use holdpoint_core::principal::Principal;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use super::error::TokenError;
use super::keys::KeySet;
use super::testing::*;
use super::token::{Checks, Presented};

/// Who signs, and a set with an ES256 and an RS256 key.
pub(super) struct World {
    pub(super) es: Signer,
    pub(super) rs: Signer,
    pub(super) set: KeySet,
}

impl World {
    pub(super) fn new() -> Self {
        let es = Signer::es256("k1");
        let rs = Signer::rsa("r1", Algorithm::RS256, RSA_2048);
        let set = KeySet::read(key_set(&[&es, &rs]).as_bytes()).unwrap();
        assert_eq!(set.keys.len(), 2, "{:?}", set.dropped);
        Self { es, rs, set }
    }

    pub(super) fn check(&self, token: impl AsRef<[u8]>) -> Result<Principal, TokenError> {
        self.check_with(token, |_| {})
    }

    pub(super) fn check_with(
        &self,
        token: impl AsRef<[u8]>,
        change: impl FnOnce(&mut holdpoint_core::config::Issuer),
    ) -> Result<Principal, TokenError> {
        let mut config = issuer(ISSUER);
        change(&mut config);
        let identity = identity(Vec::new());
        let presented = Presented::read(token.as_ref(), identity.max_token_bytes)?;
        if presented.issuer != ISSUER {
            return Err(TokenError::UnknownIssuer(presented.issuer));
        }
        presented.check_algorithm(&config)?;
        let key = self
            .set
            .find(presented.kid.as_deref(), presented.algorithm)
            .ok_or(TokenError::UnknownKey {
                issuer: config.name.clone(),
                kid: String::new(),
            })?;
        let checks = Checks {
            issuer: &config,
            agents: &identity.agents,
            skew: 30,
            now: NOW,
        };
        presented.verify(&key, checks)
    }

    /// Good claims under a header with one member more, or other.
    pub(super) fn headed(&self, name: &str, value: Value) -> String {
        let mut header = self.es.header();
        header[name] = value;
        self.es.sign(&header.to_string(), &claims().to_string())
    }

    pub(super) fn claiming(&self, claim: &str, value: Value) -> String {
        self.es.token(&with(claim, value))
    }

    fn lacking(&self, claim: &str) -> String {
        self.es.token(&without(claim))
    }
}

/// An unsigned token with `signature` in its place.
fn forged(header: &Value, signature: &[u8]) -> String {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let header = encode(header.to_string().as_bytes());
    let claims = encode(claims().to_string().as_bytes());
    format!("{header}.{claims}.{}", encode(signature))
}

/// HS256 with what everybody knows as the secret.
fn confused(kid: &str, public: &[u8]) -> String {
    let signer = Signer {
        algorithm: Algorithm::HS256,
        kid: "",
        key: EncodingKey::from_secret(public),
    };
    let header = json!({ "alg": "HS256", "kid": kid, "typ": "at+jwt" });
    signer.sign(&header.to_string(), &claims().to_string())
}

fn swap_signature(token: &str, signature: &[u8]) -> String {
    let (signed, _) = token.rsplit_once('.').unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn signature_of(token: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD
        .decode(token.rsplit_once('.').unwrap().1)
        .unwrap()
}

/// A DER SEQUENCE of two INTEGERs, as other ECDSA users encode signatures.
fn der(signature: &[u8]) -> Vec<u8> {
    let integer = |half: &[u8]| {
        let mut out = vec![2, 33, 0];
        out.extend_from_slice(half);
        out
    };
    let body = [integer(&signature[..32]), integer(&signature[32..])].concat();
    [vec![0x30, u8::try_from(body.len()).unwrap()], body].concat()
}

fn nested(levels: usize) -> Value {
    (0..levels).fold(Value::Null, |inner, _| match inner {
        Value::Null => json!({ "sub": "a" }),
        inner => json!({ "sub": "a", "act": inner }),
    })
}

/// What is wrong, the token, and words of the cause as the log has it.
fn bad_tokens(world: &World) -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let World { es, rs, .. } = world;
    let good = es.token(&claims());
    let signature = signature_of(&good);
    let (signed, encoded_signature) = good.rsplit_once('.').unwrap();
    let stranger = Signer::es256("k1");
    let es384 = {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        Signer {
            algorithm: Algorithm::ES384,
            kid: "k1",
            key: EncodingKey::from_ec_der(pair.serialized_der()),
        }
    };
    let doubled = |text: &str, again: &str| text.replacen('{', &format!("{{{again},"), 1);
    let deep = format!(
        "{{\"x\":{}{},{}",
        "[".repeat(200),
        "]".repeat(200),
        &claims().to_string()[1..]
    );
    let header = es.header().to_string();
    let rsa_jwk = rs.jwk();
    let modulus = rsa_jwk["n"].as_str().unwrap().to_owned();
    let mut long = claims();
    long["groups"] = (0..5000).map(|n| format!("group-{n}")).collect();
    let zero_r = [&[0; 32], &signature[32..]].concat();
    let zero_s = [&signature[..32], &[0; 32]].concat();
    let mut flipped = signature.clone();
    flipped[5] ^= 1;

    let text = |text: String| text.into_bytes();
    vec![
        ("an empty token", vec![], "three parts"),
        ("a password", b"hunter2".to_vec(), "three parts"),
        ("two parts", text(signed.to_owned()), "three parts"),
        ("four parts", text(format!("{good}.x")), "three parts"),
        (
            "five parts, encrypted",
            text(format!("{good}.x.y")),
            "encrypted",
        ),
        (
            "a line end that the shell left",
            text(format!("{good}\n")),
            "characters",
        ),
        ("a space in front", text(format!(" {good}")), "characters"),
        ("a null byte", text(format!("{good}\0")), "characters"),
        (
            "bytes that are no text",
            vec![0xff, 0xfe, b'.', b'.'],
            "characters",
        ),
        (
            "padding",
            text(format!("{signed}.{encoded_signature}==")),
            "characters",
        ),
        (
            "the other base64 alphabet",
            text(format!("{signed}.+/+/")),
            "characters",
        ),
        (
            "an empty signature",
            text(format!("{signed}.")),
            "no signature",
        ),
        ("a token of 1 MiB", vec![b'a'; 1 << 20], "longer than"),
        ("5,000 groups", text(es.token(&long)), "longer than"),
        (
            "a header that is not JSON",
            text(es.sign("x", "{}")),
            "header is not JSON",
        ),
        (
            "a header that is a list",
            text(es.sign("[]", "{}")),
            "header is not JSON",
        ),
        (
            "claims that are not JSON",
            text(es.sign(&header, "x")),
            "claims are not JSON",
        ),
        (
            "claims nested 200 deep",
            text(es.sign(&header, &deep)),
            "claims are not JSON",
        ),
        (
            "alg none",
            text(forged(&json!({"alg": "none"}), b"x")),
            "`alg`",
        ),
        (
            "alg None",
            text(forged(&json!({"alg": "None"}), b"x")),
            "`alg`",
        ),
        (
            "alg nOnE",
            text(forged(&json!({"alg": "nOnE"}), b"x")),
            "`alg`",
        ),
        (
            "no alg",
            text(forged(&json!({"typ": "JWT"}), b"x")),
            "`alg`",
        ),
        (
            "alg as a list",
            text(world.headed("alg", json!(["ES256"]))),
            "`alg`",
        ),
        (
            "HS256 with the RSA key's PEM as secret",
            text(confused("r1", RSA_2048.as_bytes())),
            "`alg`",
        ),
        (
            "HS256 with the modulus as secret",
            text(confused("r1", &URL_SAFE_NO_PAD.decode(&modulus).unwrap())),
            "`alg`",
        ),
        (
            "HS256 with the JWK as secret",
            text(confused("r1", rsa_jwk.to_string().as_bytes())),
            "`alg`",
        ),
        (
            "HS256 with the base64 modulus as secret",
            text(confused("r1", modulus.as_bytes())),
            "`alg`",
        ),
        (
            "crit with an unknown extension",
            text(world.headed("crit", json!(["x-unknown"]))),
            "`crit`",
        ),
        (
            "crit b64",
            text(world.headed("crit", json!(["b64"]))),
            "`crit`",
        ),
        (
            "b64 false",
            text(world.headed("b64", json!(false))),
            "`b64`",
        ),
        (
            "a key URL of its own",
            text(world.headed("jku", json!("https://evil.example/keys"))),
            "`jku`",
        ),
        (
            "a key of its own",
            text({
                let mut header = stranger.header();
                header["jwk"] = stranger.jwk();
                stranger.sign(&header.to_string(), &claims().to_string())
            }),
            "`jwk`",
        ),
        (
            "a certificate URL",
            text(world.headed("x5u", json!("https://evil.example/c"))),
            "`x5u`",
        ),
        (
            "a certificate of its own",
            text(world.headed("x5c", json!(["MIIB"]))),
            "`x5c`",
        ),
        (
            "compressed claims",
            text(world.headed("zip", json!("DEF"))),
            "`zip`",
        ),
        (
            "a logout token",
            text(world.headed("typ", json!("logout+jwt"))),
            "its type is",
        ),
        (
            "a DPoP proof",
            text(world.headed("typ", json!("dpop+jwt"))),
            "its type is",
        ),
        (
            "a token of Okta's org server",
            text(world.headed("typ", json!("application/okta-internal-at+jwt"))),
            "Okta's org",
        ),
        (
            "a typ that is no string",
            text(world.headed("typ", json!(7))),
            "`typ`",
        ),
        (
            "no kid where there are two keys",
            text({
                let header = json!({ "alg": "ES256", "typ": "at+jwt" });
                es.sign(&header.to_string(), &claims().to_string())
            }),
            "publishes no key",
        ),
        (
            "a kid that is a path",
            text(world.headed("kid", json!("../../etc/passwd"))),
            "publishes no key",
        ),
        (
            "a kid that is SQL",
            text(world.headed("kid", json!("k1' OR '1'='1"))),
            "publishes no key",
        ),
        (
            "a kid with a null",
            text(world.headed("kid", json!("k1\0"))),
            "publishes no key",
        ),
        (
            "a kid of 10,000 letters",
            text(world.headed("kid", json!("k".repeat(10_000)))),
            "`kid`",
        ),
        (
            "a kid that is a number",
            text(world.headed("kid", json!(1))),
            "`kid`",
        ),
        (
            "an empty kid",
            text(world.headed("kid", json!(""))),
            "`kid`",
        ),
        (
            "alg twice",
            text(es.sign(
                &doubled(&header, "\"alg\":\"ES256\""),
                &claims().to_string(),
            )),
            "header is not JSON",
        ),
        (
            "iss twice",
            text(es.sign(
                &header,
                &doubled(&claims().to_string(), "\"iss\":\"https://evil.example\""),
            )),
            "claims are not JSON",
        ),
        (
            "a member twice deep inside",
            text(es.sign(
                &header,
                &doubled(&claims().to_string(), "\"x\":{\"a\":1,\"a\":2}"),
            )),
            "claims are not JSON",
        ),
        (
            "a signature of zeros",
            text(swap_signature(&good, &[0; 64])),
            "signature",
        ),
        (
            "a signature with r = 0",
            text(swap_signature(&good, &zero_r)),
            "signature",
        ),
        (
            "a signature with s = 0",
            text(swap_signature(&good, &zero_s)),
            "signature",
        ),
        (
            "a signature in DER",
            text(swap_signature(&good, &der(&signature))),
            "signature",
        ),
        (
            "half a signature",
            text(swap_signature(&good, &signature[..32])),
            "signature",
        ),
        (
            "a signature with a bit flipped",
            text(swap_signature(&good, &flipped)),
            "signature",
        ),
        (
            "the signature of another token",
            text(swap_signature(
                &good,
                &signature_of(&world.claiming("sub", json!("x"))),
            )),
            "signature",
        ),
        (
            "a stranger's key under the same kid",
            text(stranger.token(&claims())),
            "signature",
        ),
        (
            "RS256 under the kid of the EC key",
            text({
                let header = json!({ "alg": "RS256", "kid": "k1" });
                rs.sign(&header.to_string(), &claims().to_string())
            }),
            "does not fit its key",
        ),
        (
            "ES256 under the kid of the RSA key",
            text(world.headed("kid", json!("r1"))),
            "does not fit its key",
        ),
        (
            "an algorithm that the issuer is not configured for",
            text(es384.token(&claims())),
            "ES384 is not accepted",
        ),
        (
            "PS256 with an RS256 key",
            text({
                let ps = Signer::rsa("r1", Algorithm::PS256, RSA_2048);
                ps.token(&claims())
            }),
            "PS256 is not accepted",
        ),
        ("no iss", text(world.lacking("iss")), "`iss`"),
        (
            "iss null",
            text(world.claiming("iss", Value::Null)),
            "`iss`",
        ),
        (
            "iss as a list with ours in it",
            text(world.claiming("iss", json!(["https://evil.example", ISSUER]))),
            "`iss`",
        ),
        (
            "iss with a slash more",
            text(world.claiming("iss", json!(format!("{ISSUER}/")))),
            "not configured",
        ),
        (
            "another issuer",
            text(world.claiming("iss", json!("https://evil.example"))),
            "not configured",
        ),
        ("no aud", text(world.lacking("aud")), "`aud`"),
        (
            "aud null",
            text(world.claiming("aud", Value::Null)),
            "`aud`",
        ),
        (
            "the audience of another service",
            text(world.claiming("aud", json!("api://other"))),
            "`aud`",
        ),
        (
            "an ID token of the CLI's client",
            text(world.claiming("aud", json!("cli-client"))),
            "`aud`",
        ),
        (
            "an audience that only begins as ours",
            text(world.claiming("aud", json!("api://holdpoint-2"))),
            "`aud`",
        ),
        (
            "an empty list of audiences",
            text(world.claiming("aud", json!([]))),
            "`aud`",
        ),
        (
            "an audience that is no string",
            text(world.claiming("aud", json!(["api://holdpoint", 7]))),
            "`aud`",
        ),
        ("no sub", text(world.lacking("sub")), "`sub`"),
        (
            "an empty sub",
            text(world.claiming("sub", json!(""))),
            "`sub`",
        ),
        (
            "a sub that is a number",
            text(world.claiming("sub", json!(7))),
            "`sub`",
        ),
        ("no exp", text(world.lacking("exp")), "`exp`"),
        (
            "exp null",
            text(world.claiming("exp", Value::Null)),
            "`exp`",
        ),
        (
            "exp as text",
            text(world.claiming("exp", json!("1900000000"))),
            "`exp`",
        ),
        (
            "exp 1e300",
            text(world.claiming("exp", json!(1e300))),
            "`exp`",
        ),
        (
            "a negative exp",
            text(world.claiming("exp", json!(-1))),
            "`exp`",
        ),
        (
            "exp in milliseconds",
            text(world.claiming("exp", json!((NOW + 300) * 1000))),
            "`exp`",
        ),
        (
            "expired by just more than the clocks may differ",
            text(world.claiming("exp", json!(NOW - 30))),
            "expired",
        ),
        (
            "expired for an hour",
            text(world.claiming("exp", json!(NOW - 3600))),
            "expired",
        ),
        (
            "not good for another hour",
            text(world.claiming("nbf", json!(NOW + 3600))),
            "`nbf`",
        ),
        (
            "nbf as text",
            text(world.claiming("nbf", json!("0"))),
            "`nbf`",
        ),
        (
            "issued in an hour",
            text(world.claiming("iat", json!(NOW + 3600))),
            "`iat`",
        ),
        (
            "bound to a DPoP key",
            text(world.claiming("cnf", json!({ "jkt": "x" }))),
            "`cnf`",
        ),
        (
            "bound to a certificate",
            text(world.claiming("cnf", json!({ "x5t#S256": "x" }))),
            "`cnf`",
        ),
        (
            "an ID token for our audience",
            text(world.claiming("at_hash", json!("x"))),
            "`at_hash`",
        ),
        (
            "a security event",
            text(world.claiming("events", json!({}))),
            "`events`",
        ),
        (
            "an actor without a name",
            text(world.claiming("act", json!({}))),
            "`act`",
        ),
        (
            "an actor that is a string",
            text(world.claiming("act", json!("a"))),
            "`act`",
        ),
        (
            "actors nested nine deep",
            text(world.claiming("act", nested(9))),
            "`act`",
        ),
        (
            "a scope that is a number",
            text(world.claiming("scope", json!(1))),
            "`scope`",
        ),
        (
            "groups that are numbers",
            text(world.claiming("groups", json!([1]))),
            "`groups`",
        ),
        (
            "a client id that is a list",
            text(world.claiming("client_id", json!(["ci"]))),
            "`client_id`",
        ),
    ]
}

#[test]
fn what_must_not_pass_does_not_and_the_log_says_why() {
    let world = World::new();
    for (what, token, cause) in bad_tokens(&world) {
        match world.check(&token) {
            Ok(_) => panic!("{what} passed"),
            Err(error) => {
                let said = error.to_string();
                assert!(said.contains(cause), "{what}: {said}");
            }
        }
    }
}

#[test]
fn no_refusal_repeats_any_of_the_token() {
    let world = World::new();
    for (what, token, _) in bad_tokens(&world) {
        let error = world.check(&token).unwrap_err();
        let said = format!("{error} {error:?} {:?}", error.denial());
        for part in String::from_utf8_lossy(&token).split('.') {
            assert!(part.len() < 8 || !said.contains(part), "{what}: {said}");
        }
    }
}

#[test]
fn every_refusal_has_a_documented_code() {
    let world = World::new();
    let documented = include_str!("../../../docs/codes.md");
    for (what, token, _) in bad_tokens(&world) {
        let denial = world.check(&token).unwrap_err().denial();
        assert!(documented.contains(&format!("`{}`", denial.code)), "{what}");
    }
}

#[test]
fn a_signature_is_remembered_for_the_very_same_token_and_excuses_nothing_else() {
    let world = World::new();
    let token = world.es.token(&claims());
    assert!(world.check(&token).is_ok());
    assert!(world.check(&token).is_ok());
    // The same claims, another signature.
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    bytes[40] ^= 1;
    let forged = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(&bytes));
    assert_eq!(world.check(forged), Err(TokenError::Signature));
    // Other claims, the same signature.
    let other = world.claiming("sub", json!("somebody"));
    let (signed, _) = other.rsplit_once('.').unwrap();
    let stolen = format!("{signed}.{signature}");
    assert_eq!(world.check(stolen), Err(TokenError::Signature));
    // What it is used for is checked each time.
    let elsewhere = world.check_with(&token, |issuer| issuer.audiences = vec!["other".to_owned()]);
    assert!(
        matches!(elsewhere, Err(TokenError::Claim { .. })),
        "{elsewhere:?}"
    );
}
