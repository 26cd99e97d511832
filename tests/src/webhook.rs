//! Plays the receiver of signed webhooks: checks each signature, keeps what came.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use standardwebhooks::Webhook;

use crate::random;

#[derive(Debug, Clone)]
pub struct Receipt {
    pub id: String,
    pub body: Value,
    pub raw: Bytes,
}

#[derive(Default)]
struct Kept {
    receipts: Vec<Receipt>,
    /// Signatures that did not verify.
    forged: Vec<String>,
    /// The status to answer with, for the next so many deliveries.
    failing: u32,
}

/// Serves `POST /hook` on loopback until dropped.
pub struct WebhookReceiver {
    address: SocketAddr,
    secret: String,
    kept: Arc<Mutex<Kept>>,
    server: tokio::task::JoinHandle<()>,
}

struct Shared {
    webhook: Webhook,
    kept: Arc<Mutex<Kept>>,
}

impl WebhookReceiver {
    pub async fn start() -> Self {
        let key = random::raw(32);
        let secret = format!("whsec_{}", STANDARD.encode(&key));
        let kept = Arc::new(Mutex::new(Kept::default()));
        let webhook = Webhook::new(&secret).unwrap();
        let shared = Arc::new(Shared {
            webhook,
            kept: kept.clone(),
        });
        let router = Router::new()
            .route("/hook", post(receive))
            .with_state(shared);
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Self {
            address,
            secret,
            kept,
            server,
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The shared secret, in the `whsec_` form.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// Answers the next `deliveries` with 503.
    pub fn fail(&self, deliveries: u32) {
        self.kept.lock().unwrap().failing = deliveries;
    }

    pub fn receipts(&self) -> Vec<Receipt> {
        self.kept.lock().unwrap().receipts.clone()
    }

    /// Signatures that did not verify; empty unless somebody forges.
    pub fn forged(&self) -> Vec<String> {
        self.kept.lock().unwrap().forged.clone()
    }

    /// A handle for the oracle, which runs when the gateway is dropped.
    pub fn log(&self) -> WebhookLog {
        WebhookLog {
            kept: self.kept.clone(),
        }
    }

    /// Waits for the first receipt that `wanted` accepts.
    pub async fn wait(&self, seconds: u64, wanted: impl Fn(&Value) -> bool) -> Receipt {
        for _ in 0..seconds * 50 {
            if let Some(found) = self.receipts().into_iter().find(|one| wanted(&one.body)) {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!(
            "no such webhook within {seconds} s; came: {:#?}",
            self.receipts()
        );
    }

    /// Signs a body as this receiver would for a callback: id, timestamp, signature.
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        Webhook::new(&self.secret)
            .unwrap()
            .sign(id, timestamp, body)
            .unwrap()
    }
}

impl Drop for WebhookReceiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

#[derive(Clone)]
pub struct WebhookLog {
    kept: Arc<Mutex<Kept>>,
}

impl WebhookLog {
    pub fn receipts(&self) -> Vec<Receipt> {
        self.kept
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .receipts
            .clone()
    }

    pub fn forged(&self) -> usize {
        self.kept
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .forged
            .len()
    }
}

async fn receive(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let mut kept = shared.kept.lock().unwrap();
    if let Err(error) = shared.webhook.verify(&body, &headers) {
        kept.forged.push(error.to_string());
        return StatusCode::UNAUTHORIZED;
    }
    if kept.failing > 0 {
        kept.failing -= 1;
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    let id = headers
        .get("webhook-id")
        .and_then(|id| id.to_str().ok())
        .unwrap_or_default();
    let Ok(json) = serde_json::from_slice(&body) else {
        return StatusCode::BAD_REQUEST;
    };
    kept.receipts.push(Receipt {
        id: id.to_owned(),
        body: json,
        raw: body.clone(),
    });
    StatusCode::NO_CONTENT
}
