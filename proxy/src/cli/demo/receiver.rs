//! Receives what the gateway sends to reviewers, and checks each signature.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tokio::sync::broadcast;

use crate::cli::style::Style;

pub(super) struct Receiver {
    address: SocketAddr,
    secret: String,
    shared: Arc<Shared>,
}

struct Shared {
    webhook: standardwebhooks::Webhook,
    came: Mutex<Vec<Value>>,
    news: broadcast::Sender<Value>,
}

impl Receiver {
    pub(super) async fn start() -> anyhow::Result<Self> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).context("no randomness")?;
        let secret = format!("whsec_{}", STANDARD.encode(key));
        let shared = Arc::new(Shared {
            webhook: standardwebhooks::Webhook::new(&secret).context("bad webhook secret")?,
            came: Mutex::default(),
            news: broadcast::Sender::new(64),
        });
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let router = Router::new()
            .route("/reviewers", post(receive))
            .with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self {
            address,
            secret,
            shared,
        })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/reviewers", self.address)
    }

    pub(super) fn secret(&self) -> &str {
        &self.secret
    }

    /// Waits for a message about a pending approval whose text contains `text`.
    pub(super) async fn pending(&self, text: &str) -> anyhow::Result<Value> {
        let found = |message: &Value| {
            message["type"] == "approval.pending"
                && message["approval"]["shown"]["text"]
                    .as_str()
                    .is_some_and(|shown| shown.contains(text))
        };
        let wait = async {
            loop {
                let hit = self.came().iter().find(|message| found(message)).cloned();
                if let Some(message) = hit {
                    return message;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait)
            .await
            .with_context(|| format!("no signed webhook about `{text}` came within 20 s"))
    }

    fn came(&self) -> std::sync::MutexGuard<'_, Vec<Value>> {
        self.shared
            .came
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// For a person who watches.
    pub(super) fn print_as_they_come(&self, style: Style) {
        let mut news = self.shared.news.subscribe();
        tokio::spawn(async move {
            while let Ok(message) = news.recv().await {
                let approval = &message["approval"];
                let of = |name: &str| approval[name].as_str().unwrap_or("?").to_owned();
                println!(
                    "{} {}: {}",
                    style.yellow(message["type"].as_str().unwrap_or("?")),
                    of("id"),
                    approval["shown"]["text"].as_str().unwrap_or("?"),
                );
            }
        });
    }
}

async fn receive(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    if shared.webhook.verify(&body, &headers).is_err() {
        return StatusCode::UNAUTHORIZED;
    }
    let Ok(message) = serde_json::from_slice::<Value>(&body) else {
        return StatusCode::BAD_REQUEST;
    };
    shared
        .came
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(message.clone());
    // Nobody may be watching.
    let _ = shared.news.send(message);
    StatusCode::NO_CONTENT
}
