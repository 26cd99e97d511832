//! How keys are fetched and kept, against an issuer that misbehaves on request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use holdpoint_core::config::Issuer;
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use super::error::TokenError;
use super::jwks::Jwks;
use super::testing::{self, RSA_1024, Signer, key_set};

/// What the issuer answers next.
pub(super) struct Knobs {
    pub(super) keys: Mutex<String>,
    pub(super) status: Mutex<StatusCode>,
    pub(super) delay_ms: AtomicU64,
    /// Fetches of the key set.
    pub(super) hits: AtomicUsize,
    /// What it says its name is, where that is not the truth.
    pub(super) alias: Mutex<Option<String>>,
    /// Whether only RFC 8414's place has the metadata.
    pub(super) oauth_only: Mutex<bool>,
    address: SocketAddr,
}

impl Knobs {
    pub(super) async fn start(signers: &[&Signer]) -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let knobs = Arc::new(Self {
            keys: Mutex::new(key_set(signers)),
            status: Mutex::new(StatusCode::OK),
            delay_ms: AtomicU64::new(0),
            hits: AtomicUsize::new(0),
            alias: Mutex::new(None),
            oauth_only: Mutex::new(false),
            address: listener.local_addr().unwrap(),
        });
        let app = Router::new()
            .route("/as/.well-known/openid-configuration", get(openid))
            .route("/.well-known/oauth-authorization-server/as", get(oauth))
            .route("/keys", get(keys))
            .with_state(Arc::clone(&knobs));
        tokio::spawn(async move { axum::serve(listener, app).await });
        knobs
    }

    pub(super) fn issuer(&self) -> Issuer {
        testing::issuer(&format!("http://{}/as", self.address))
    }

    pub(super) fn publish(&self, signers: &[&Signer]) {
        *self.keys.lock().unwrap() = key_set(signers);
    }

    fn answer(&self, status: StatusCode) {
        *self.status.lock().unwrap() = status;
    }

    fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }

    fn metadata(&self) -> Response {
        let issuer = format!("http://{}/as", self.address);
        let name = self.alias.lock().unwrap().clone().unwrap_or(issuer);
        let jwks_uri = format!("http://{}/keys", self.address);
        axum::Json(json!({ "issuer": name, "jwks_uri": jwks_uri })).into_response()
    }
}

async fn openid(State(knobs): State<Arc<Knobs>>) -> Response {
    if *knobs.oauth_only.lock().unwrap() {
        return StatusCode::NOT_FOUND.into_response();
    }
    knobs.metadata()
}

async fn oauth(State(knobs): State<Arc<Knobs>>) -> Response {
    knobs.metadata()
}

async fn keys(State(knobs): State<Arc<Knobs>>) -> Response {
    knobs.hits.fetch_add(1, Ordering::SeqCst);
    let delay = Duration::from_millis(knobs.delay_ms.load(Ordering::SeqCst));
    tokio::time::sleep(delay).await;
    let status = *knobs.status.lock().unwrap();
    let body = knobs.keys.lock().unwrap().clone();
    (status, [(header::LOCATION, "/elsewhere")], body).into_response()
}

fn cache(issuer: &Issuer) -> Arc<Jwks> {
    Arc::new(Jwks::new(issuer).unwrap())
}

async fn has(cache: &Arc<Jwks>, kid: &str) -> bool {
    cache.key(Some(kid), Algorithm::ES256).await.is_ok()
}

async fn pause(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

#[tokio::test]
async fn keys_are_fetched_once_and_kept() {
    let knobs = Knobs::start(&[&Signer::es256("a")]).await;
    let cache = cache(&knobs.issuer());
    for _ in 0..20 {
        assert!(has(&cache, "a").await);
    }
    assert_eq!(knobs.hits(), 1);
}

#[tokio::test]
async fn metadata_is_found_where_rfc_8414_puts_it() {
    let knobs = Knobs::start(&[&Signer::es256("a")]).await;
    *knobs.oauth_only.lock().unwrap() = true;
    assert!(has(&cache(&knobs.issuer()), "a").await);
}

#[tokio::test]
async fn a_new_key_is_found_when_a_token_first_names_it() {
    let (old, new) = (Signer::es256("old"), Signer::es256("new"));
    let knobs = Knobs::start(&[&old]).await;
    let cache = cache(&knobs.issuer());
    assert!(has(&cache, "old").await);
    knobs.publish(&[&old, &new]);
    pause(60).await;
    assert!(has(&cache, "new").await);
    assert_eq!(knobs.hits(), 2);
}

#[tokio::test]
async fn a_key_that_is_gone_from_a_fetched_set_is_gone_at_once() {
    let (old, new) = (Signer::es256("old"), Signer::es256("new"));
    let knobs = Knobs::start(&[&old]).await;
    let cache = cache(&knobs.issuer());
    assert!(has(&cache, "old").await);
    knobs.publish(&[&new]);
    pause(60).await;
    assert!(has(&cache, "new").await, "this fetches the new set");
    assert!(!has(&cache, "old").await);
}

#[tokio::test]
async fn an_empty_set_takes_every_key_away() {
    let knobs = Knobs::start(&[&Signer::es256("a")]).await;
    let cache = cache(&knobs.issuer());
    assert!(has(&cache, "a").await);
    knobs.publish(&[]);
    pause(60).await;
    assert!(!has(&cache, "b").await);
    assert!(!has(&cache, "a").await);
}

#[tokio::test]
async fn a_storm_of_unknown_key_ids_costs_the_issuer_one_fetch() {
    let knobs = Knobs::start(&[&Signer::es256("a")]).await;
    let mut issuer = knobs.issuer();
    issuer.jwks_min_refetch = Duration::from_secs(60);
    let cache = cache(&issuer);
    let storm: Vec<_> = (0..200)
        .map(|n| {
            let cache = Arc::clone(&cache);
            tokio::spawn(async move { has(&cache, &format!("unknown-{n}")).await })
        })
        .collect();
    for one in storm {
        assert!(!one.await.unwrap());
    }
    assert!(has(&cache, "a").await, "the storm harms nobody else");
    assert_eq!(knobs.hits(), 1);
}

#[tokio::test]
async fn a_key_id_known_to_be_absent_is_not_asked_for_again() {
    let knobs = Knobs::start(&[&Signer::es256("a")]).await;
    let cache = cache(&knobs.issuer());
    for _ in 0..3 {
        assert!(!has(&cache, "junk").await);
        pause(60).await;
    }
    assert_eq!(knobs.hits(), 1);
}

#[tokio::test]
async fn a_client_that_leaves_does_not_cancel_the_fetch_for_others() {
    let knobs = Knobs::start(&[&Signer::es256("a")]).await;
    knobs.delay_ms.store(2000, Ordering::SeqCst);
    let mut issuer = knobs.issuer();
    issuer.jwks_min_refetch = Duration::from_secs(60);
    let cache = cache(&issuer);
    let left = tokio::time::timeout(Duration::from_millis(50), has(&cache, "a")).await;
    assert!(left.is_err());
    assert!(has(&cache, "a").await);
    assert_eq!(knobs.hits(), 1);
}

#[tokio::test]
async fn the_last_keys_serve_while_the_issuer_is_down_but_not_for_ever() {
    let knobs = Knobs::start(&[&Signer::es256("a")]).await;
    let mut issuer = knobs.issuer();
    issuer.jwks_refresh = Duration::from_millis(100);
    issuer.jwks_max_stale = Duration::from_millis(600);
    let cache = cache(&issuer);
    assert!(has(&cache, "a").await);
    knobs.answer(StatusCode::INTERNAL_SERVER_ERROR);
    pause(200).await;
    assert!(has(&cache, "a").await, "stale, within bounds");
    pause(500).await;
    let gone = cache.key(Some("a"), Algorithm::ES256).await;
    let error = gone.unwrap_err();
    assert!(
        matches!(error, TokenError::KeysUnavailable { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("500"), "{error}");
}

#[tokio::test]
async fn a_slow_issuer_delays_nobody_whose_key_is_known() {
    let knobs = Knobs::start(&[&Signer::es256("a")]).await;
    let mut issuer = knobs.issuer();
    issuer.jwks_refresh = Duration::from_millis(10);
    let cache = cache(&issuer);
    assert!(has(&cache, "a").await);
    knobs.delay_ms.store(60_000, Ordering::SeqCst);
    pause(60).await;
    let begun = std::time::Instant::now();
    assert!(has(&cache, "a").await);
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn keys_are_refreshed_without_being_asked_for() {
    let knobs = Knobs::start(&[&Signer::es256("a")]).await;
    let mut issuer = knobs.issuer();
    issuer.jwks_refresh = Duration::from_millis(100);
    let cache = cache(&issuer);
    assert_eq!(cache.warm().await, Ok(1));
    for _ in 0..100 {
        pause(100).await;
        if knobs.hits() >= 3 {
            break;
        }
    }
    assert!(knobs.hits() >= 3, "{}", knobs.hits());
    drop(cache);
    pause(300).await;
    let after = knobs.hits();
    pause(300).await;
    assert_eq!(knobs.hits(), after, "and it ends with the cache");
}

#[tokio::test]
async fn what_is_no_key_set_is_not_used() {
    let signer = Signer::es256("a");
    let many: Vec<Value> = (0..65).map(|_| signer.jwk()).collect();
    let mut huge = json!({ "keys": [signer.jwk()] });
    huge["padding"] = "x".repeat(300 * 1024).into();
    for (body, cause) in [
        (huge.to_string(), "bytes"),
        (json!({ "keys": many }).to_string(), "64 keys"),
        ("not json".to_owned(), "not a JWK set"),
        (json!({ "keys": {} }).to_string(), "not a JWK set"),
        (json!([signer.jwk()]).to_string(), "not a JWK set"),
    ] {
        let knobs = Knobs::start(&[]).await;
        *knobs.keys.lock().unwrap() = body;
        let failed = cache(&knobs.issuer()).warm().await.unwrap_err();
        assert!(failed.contains(cause), "{failed}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let knobs = Knobs::start(&[&Signer::es256("a")]).await;
    knobs.answer(StatusCode::FOUND);
    let failed = cache(&knobs.issuer()).warm().await.unwrap_err();
    assert!(failed.contains("302"), "{failed}");
}

#[tokio::test]
async fn an_issuer_that_gives_another_name_is_not_used() {
    let knobs = Knobs::start(&[&Signer::es256("a")]).await;
    let name = format!("{}/", knobs.issuer().issuer);
    *knobs.alias.lock().unwrap() = Some(name.clone());
    let failed = cache(&knobs.issuer()).warm().await.unwrap_err();
    assert!(failed.contains(&name), "both names are shown: {failed}");
}

#[tokio::test]
async fn a_set_of_weak_keys_gives_none() {
    let knobs = Knobs::start(&[&Signer::rsa("r", Algorithm::RS256, RSA_1024)]).await;
    *knobs.keys.lock().unwrap() = json!({ "keys": [
        Signer::rsa("r", Algorithm::RS256, RSA_1024).jwk(),
        { "kty": "oct", "k": "c2VjcmV0", "kid": "o" },
    ]})
    .to_string();
    assert_eq!(cache(&knobs.issuer()).warm().await, Ok(0));
}

#[tokio::test]
async fn an_issuer_in_clear_on_the_network_is_refused_at_once() {
    assert!(Jwks::new(&testing::issuer("http://issuer.example")).is_err());
    assert!(Jwks::new(&testing::issuer("issuer.example")).is_err());
}
