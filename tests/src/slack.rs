//! Plays Slack: takes what is posted, shows what people would see, and sends clicks that are signed as
//! Slack signs them.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::random;

pub const CHANNEL: &str = "C0123456789";
const TEAM: &str = "T0001";

/// A message in the channel.
#[derive(Debug, Clone)]
pub struct Posted {
    pub ts: String,
    pub blocks: Value,
    /// How often it was changed.
    pub updates: u32,
}

#[derive(Default)]
struct Kept {
    messages: BTreeMap<String, Posted>,
    /// To whom, and what.
    whispers: Vec<(String, Value)>,
    /// Modals that were opened.
    modals: Vec<Value>,
    faults: Vec<String>,
    triggers: Vec<String>,
}

pub struct FakeSlack {
    address: SocketAddr,
    pub token: String,
    pub signing_secret: String,
    kept: Arc<Mutex<Kept>>,
    server: tokio::task::JoinHandle<()>,
}

#[derive(Clone)]
struct Shared {
    token: String,
    kept: Arc<Mutex<Kept>>,
}

impl FakeSlack {
    pub async fn start() -> Self {
        let token = format!("xoxb-{}", random::hex(24));
        let kept = Arc::new(Mutex::new(Kept::default()));
        let shared = Shared {
            token: token.clone(),
            kept: kept.clone(),
        };
        let router = Router::new()
            .route("/api/{method}", post(called))
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
            token,
            signing_secret: random::hex(16),
            kept,
            server,
        }
    }

    pub fn api_url(&self) -> String {
        format!("http://{}/api", self.address)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        let kept = self.kept.lock().unwrap();
        assert!(kept.faults.is_empty(), "{:#?}", kept.faults);
        kept
    }

    /// Waits for a message that `wanted` accepts.
    pub async fn message(&self, what: &str, wanted: impl Fn(&Posted) -> bool) -> Posted {
        for _ in 0..500 {
            if let Some(found) = self.kept().messages.values().find(|one| wanted(one)) {
                return found.clone();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("no message {what} within 10 s: {:#?}", self.kept().messages);
    }

    pub fn messages(&self) -> Vec<Posted> {
        self.kept().messages.values().cloned().collect()
    }

    /// Waits for something that `user` alone is told, and takes it.
    pub async fn whisper(&self, user: &str) -> Value {
        self.take("whisper", |kept| {
            let at = kept.whispers.iter().position(|(to, _)| to == user)?;
            Some(kept.whispers.remove(at).1)
        })
        .await
    }

    /// Waits for a modal, and takes it.
    pub async fn modal(&self) -> Value {
        self.take("modal", |kept| kept.modals.pop()).await
    }

    async fn take(&self, what: &str, mut find: impl FnMut(&mut Kept) -> Option<Value>) -> Value {
        for _ in 0..500 {
            if let Some(found) = find(&mut self.kept()) {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("no {what} within 10 s");
    }

    /// The payload of pressing a button of a message.
    pub fn press(&self, message: &Posted, action: &str, user: &str) -> Value {
        let button = button(&message.blocks, action).expect("such a button");
        let trigger = random::hex(8);
        self.kept().triggers.push(trigger.clone());
        json!({
            "type": "block_actions",
            "user": {"id": user, "username": user.to_lowercase(), "team_id": TEAM},
            "team": {"id": TEAM, "domain": "acme"},
            "api_app_id": "A1",
            "container": {"type": "message", "message_ts": message.ts, "channel_id": CHANNEL},
            "channel": {"id": CHANNEL, "name": "ops"},
            "trigger_id": trigger,
            "message": {"ts": message.ts, "blocks": message.blocks},
            "actions": [{
                "type": "button", "action_id": action, "block_id": "b",
                "value": button["value"], "action_ts": random::hex(6),
            }],
        })
    }

    /// The payload of sending a modal off.
    pub fn submit(&self, modal: &Value, user: &str, reason: &str) -> Value {
        json!({
            "type": "view_submission",
            "user": {"id": user, "username": user.to_lowercase(), "team_id": TEAM},
            "team": {"id": TEAM},
            "view": {
                "id": random::hex(6),
                "callback_id": modal["callback_id"],
                "private_metadata": modal["private_metadata"],
                "state": {"values": {"reason": {"reason": {
                    "type": "plain_text_input", "value": reason,
                }}}},
            },
        })
    }

    /// As Slack sends it: the form, and the headers that sign it.
    pub fn signed(&self, payload: &Value) -> (String, Vec<(String, String)>) {
        let form = format!("payload={}", encoded(&payload.to_string()));
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.unwrap().as_secs();
        let headers = self.sign(&form, now);
        (form, headers)
    }

    pub fn sign(&self, form: &str, unix: u64) -> Vec<(String, String)> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.signing_secret.as_bytes()).unwrap();
        mac.update(format!("v0:{unix}:{form}").as_bytes());
        let signature = hex::encode(mac.finalize().into_bytes());
        vec![
            ("x-slack-request-timestamp".to_owned(), unix.to_string()),
            ("x-slack-signature".to_owned(), format!("v0={signature}")),
        ]
    }
}

impl Drop for FakeSlack {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A button, by its action.
pub fn button(blocks: &Value, action: &str) -> Option<Value> {
    let blocks = blocks.as_array()?.iter();
    let elements = blocks.filter_map(|block| block["elements"].as_array());
    let mut all = elements.flatten();
    all.find(|one| one["action_id"] == action).cloned()
}

fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

async fn called(
    State(shared): State<Shared>,
    Path(method): Path<String>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Result<Json<Value>, StatusCode> {
    let mut kept = shared.kept.lock().unwrap();
    let given = headers.get("authorization").and_then(|v| v.to_str().ok());
    if given != Some(&format!("Bearer {}", shared.token)) {
        kept.faults.push(format!("{method}: not our token"));
        return Ok(Json(json!({"ok": false, "error": "invalid_auth"})));
    }
    if method != "views.open" && body["channel"] != CHANNEL {
        return Ok(Json(json!({"ok": false, "error": "channel_not_found"})));
    }
    match method.as_str() {
        "chat.postMessage" => {
            let ts = format!("1700000000.{:06}", kept.messages.len());
            let posted = Posted {
                ts: ts.clone(),
                blocks: body["blocks"].clone(),
                updates: 0,
            };
            kept.messages.insert(ts.clone(), posted);
            Ok(Json(json!({"ok": true, "channel": CHANNEL, "ts": ts})))
        }
        "chat.update" => {
            let ts = body["ts"].as_str().unwrap_or_default().to_owned();
            let Some(message) = kept.messages.get_mut(&ts) else {
                return Ok(Json(json!({"ok": false, "error": "message_not_found"})));
            };
            message.blocks = body["blocks"].clone();
            message.updates += 1;
            Ok(Json(json!({"ok": true, "channel": CHANNEL, "ts": ts})))
        }
        "chat.postEphemeral" => {
            let to = body["user"].as_str().unwrap_or_default().to_owned();
            kept.whispers.push((to, body));
            Ok(Json(json!({"ok": true, "message_ts": "1"})))
        }
        "views.open" => {
            let trigger = body["trigger_id"].as_str().unwrap_or_default().to_owned();
            // Each is good once.
            let Some(at) = kept.triggers.iter().position(|one| *one == trigger) else {
                return Ok(Json(json!({"ok": false, "error": "expired_trigger_id"})));
            };
            kept.triggers.remove(at);
            kept.modals.push(body["view"].clone());
            Ok(Json(json!({"ok": true, "view": {"id": "V1"}})))
        }
        _ => Err(StatusCode::NOT_FOUND),
    }
}
