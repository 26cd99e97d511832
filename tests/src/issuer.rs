//! An OIDC issuer of the tests' own, which signs whatever a test asks for.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::routing::get;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _};
use serde_json::{Value, json};

use crate::random;

pub const AUDIENCE: &str = "api://holdpoint";

/// Serves discovery and keys on loopback until dropped.
pub struct Issuer {
    address: SocketAddr,
    key: EncodingKey,
    server: tokio::task::JoinHandle<()>,
}

impl Issuer {
    pub async fn start() -> Self {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
        // An uncompressed point: 4, x, y.
        let point = pair.der_bytes().to_vec();
        let coordinate = |at: usize| URL_SAFE_NO_PAD.encode(&point[at..at + 32]);
        let keys = json!({ "keys": [{
            "kty": "EC", "crv": "P-256", "kid": "k1", "use": "sig", "alg": "ES256",
            "x": coordinate(1), "y": coordinate(33),
        }] });
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .unwrap();
        let address = listener.local_addr().unwrap();
        let issuer = format!("http://{address}");
        let discovery = json!({
            "issuer": issuer,
            "jwks_uri": format!("{issuer}/keys"),
            "token_endpoint": format!("{issuer}/token"),
            "authorization_endpoint": format!("{issuer}/authorize"),
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        });
        let router = Router::new()
            .route(
                "/.well-known/openid-configuration",
                get(move || async move { Json(discovery) }),
            )
            .route("/keys", get(move || async move { Json(keys) }));
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Self {
            address,
            key,
            server,
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// An agent's token: may connect, never review.
    pub fn agent(&self, subject: &str) -> String {
        self.sign(&self.claims(subject, "holdpoint.connect", &["agents"], 600))
    }

    /// A reviewer's token.
    pub fn reviewer(&self, subject: &str, groups: &[&str]) -> String {
        let mut claims = self.claims(subject, "holdpoint.review", groups, 600);
        claims["client_id"] = json!("reviewer-cli");
        self.sign(&claims)
    }

    /// Good claims, for a test to spoil.
    pub fn claims(&self, subject: &str, scope: &str, groups: &[&str], seconds: i64) -> Value {
        json!({
            "iss": self.url(), "sub": subject, "aud": AUDIENCE, "client_id": subject,
            "iat": now(), "exp": now() + seconds, "jti": random::hex(8),
            "scope": scope, "groups": groups,
        })
    }

    pub fn sign(&self, claims: &Value) -> String {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some("k1".to_owned());
        header.typ = Some("at+jwt".to_owned());
        encode(&header, claims, &self.key).unwrap()
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Unix time in seconds.
pub fn now() -> i64 {
    i64::try_from(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs(),
    )
    .unwrap()
}
