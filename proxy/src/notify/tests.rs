//! Webhooks against a receiver that checks signatures and can be unwell.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::post;
use holdpoint_core::approval::Verdict;
use holdpoint_core::config::{SecretRef, WebhookOut};
use holdpoint_core::record::Entry;
use serde_json::Value;
use standardwebhooks::Webhook;
use tokio::net::TcpListener;

use super::webhook::WebhookSender;
use super::*;
use crate::approvals::Approvals;
use crate::approvals::testing::{Hands, MemoryLedger, config, draft, vote};

const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

type Came = Arc<Mutex<Vec<(String, Value)>>>;

/// Answers `503` to the first `failing` attempts; keeps id and body of each.
async fn receiver(failing: usize) -> (String, Came) {
    let came = Came::default();
    let (kept, attempts) = (came.clone(), Arc::new(AtomicUsize::new(0)));
    let receive = move |headers: HeaderMap, body: Bytes| {
        let (kept, attempts) = (kept.clone(), attempts.clone());
        async move {
            Webhook::new(SECRET)
                .unwrap()
                .verify(&body, &headers)
                .expect("signed");
            let id = headers["webhook-id"].to_str().unwrap().to_owned();
            kept.lock()
                .unwrap()
                .push((id, serde_json::from_slice(&body).unwrap()));
            if attempts.fetch_add(1, Ordering::SeqCst) < failing {
                return StatusCode::SERVICE_UNAVAILABLE;
            }
            StatusCode::NO_CONTENT
        }
    };
    let moved = async || -> Response { Redirect::temporary("/hook").into_response() };
    let router = Router::new()
        .route("/hook", post(receive))
        .route("/moved", post(moved));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (base, came)
}

fn sender(url: String) -> Channel {
    told(url, None)
}

fn told(url: String, events: Option<Vec<&'static str>>) -> Channel {
    let config = WebhookOut {
        name: "ops".to_owned(),
        url,
        secret: SecretRef::Env("X".to_owned()),
        ca: None,
        events,
    };
    let sender = WebhookSender::new(&config, &SECRET.to_owned().into());
    Channel::Webhook(Arc::new(sender.unwrap()))
}

fn desk(url: String) -> (Approvals, Arc<MemoryLedger>, Hands) {
    desk_with(sender(url))
}

fn desk_with(sender: Channel) -> (Approvals, Arc<MemoryLedger>, Hands) {
    let (ledger, hands) = (Arc::new(MemoryLedger::default()), Hands::default());
    let (notices, inbox) = channel();
    let approvals = Approvals::new(config(), ledger.clone(), hands.clock(), Some(notices));
    let public = Some("https://holdpoint.example/".to_owned());
    spawn(inbox, vec![sender], public, approvals.clone()).unwrap();
    (approvals, ledger, hands)
}

async fn until(mut done: impl FnMut() -> bool) {
    for _ in 0..500 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("did not happen within 5 s");
}

#[tokio::test]
async fn a_receiver_gets_the_whole_command_and_how_to_decide() {
    let (base, came) = receiver(0).await;
    let (approvals, ledger, hands) = desk(format!("{base}/hook"));
    let long = format!("SELECT 1;{}DROP TABLE t", "\n".repeat(5_000));
    let draft = draft("agent", &long, 1);
    let (_, _waiter) = approvals.open(draft.clone(), hands.now()).await;
    until(|| came.lock().unwrap().len() == 1).await;
    let (id, body) = came.lock().unwrap()[0].clone();
    assert!(id.starts_with("msg_"));
    assert_eq!(body["type"], "approval.pending");
    assert_eq!(body["approval"]["shown"]["text"], long);
    assert_eq!(body["approval"]["digest"], draft.digest.to_string());
    let url = format!(
        "https://holdpoint.example/v1/approvals/{}/decision",
        draft.id
    );
    assert_eq!(body["vote"]["url"], url);
    let page = format!("https://holdpoint.example/console/approvals/{}", draft.id);
    assert_eq!(body["link"], page);
    until(|| {
        ledger
            .all()
            .iter()
            .any(|e| matches!(e, Entry::Notified { accepted: true, .. }))
    })
    .await;

    approvals
        .vote(vote(&draft, "rita", Verdict::Deny), hands.now())
        .await
        .unwrap();
    until(|| came.lock().unwrap().len() == 2).await;
    let (other, body) = came.lock().unwrap()[1].clone();
    assert_ne!(id, other);
    assert_eq!(
        (&body["type"], &body["approval"]["state"]),
        (&"approval.settled".into(), &"denied".into())
    );
}

#[tokio::test]
async fn a_receiver_is_told_what_its_configuration_names_and_no_more() {
    let (base, came) = receiver(0).await;
    let events = vec!["approval.pending", "approval.used"];
    let (approvals, ledger, hands) = desk_with(told(format!("{base}/hook"), Some(events)));
    let draft = draft("agent", "DROP TABLE t", 1);
    let (_, _waiter) = approvals.open(draft.clone(), hands.now()).await;
    let yes = vote(&draft, "rita", Verdict::Approve);
    approvals.vote(yes, hands.now()).await.unwrap();
    let (digest, session) = (&draft.digest, &draft.session);
    let claimed = approvals.claim(&draft.id, digest, session, draft.command, hands.now());
    claimed.await.unwrap();
    until(|| came.lock().unwrap().len() == 2).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let types: Vec<_> = (came.lock().unwrap().iter())
        .map(|(_, body)| body["type"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(types, ["approval.pending", "approval.used"]);
    let notified = |entry: &Entry| matches!(entry, Entry::Notified { .. });
    assert_eq!(
        ledger.all().iter().filter(|entry| notified(entry)).count(),
        2
    );
}

#[test]
fn the_configuration_knows_every_message() {
    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/holdpoint.schema.json");
    let schema = std::fs::read_to_string(schema).unwrap();
    for message in [
        Message::Pending,
        Message::Step,
        Message::Escalated,
        Message::Justified,
        Message::Settled,
        Message::BrokenGlass,
        Message::Reviewed,
        Message::Left,
        Message::Used,
        Message::UsedLater,
    ] {
        let word = format!("\"{}\"", message.word());
        assert!(schema.contains(&word), "{word}");
    }
}

#[tokio::test]
async fn a_message_that_failed_is_sent_again_under_the_same_id() {
    let (base, came) = receiver(1).await;
    let (approvals, ledger, hands) = desk(format!("{base}/hook"));
    let draft = draft("agent", "DROP TABLE t", 1);
    let (_, _waiter) = approvals.open(draft.clone(), hands.now()).await;
    until(|| came.lock().unwrap().len() == 2).await;
    let came = came.lock().unwrap().clone();
    assert_eq!(came[0].0, came[1].0);
    until(|| {
        ledger
            .all()
            .iter()
            .any(|e| matches!(e, Entry::Notified { accepted: true, .. }))
    })
    .await;
    until(|| {
        let view = approvals.get(&draft.id).unwrap();
        view.deliveries
            .first()
            .is_some_and(|one| one.accepted && one.attempts == 2)
    })
    .await;
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_the_failure_is_shown() {
    let (base, came) = receiver(0).await;
    let (approvals, ledger, hands) = desk(format!("{base}/moved"));
    let draft = draft("agent", "DROP TABLE t", 1);
    let (_, _waiter) = approvals.open(draft.clone(), hands.now()).await;
    until(|| {
        ledger.all().iter().any(|e| {
            matches!(
                e,
                Entry::Notified {
                    accepted: false,
                    ..
                }
            )
        })
    })
    .await;
    assert!(came.lock().unwrap().is_empty());
    until(|| {
        let view = approvals.get(&draft.id).unwrap();
        view.deliveries
            .first()
            .is_some_and(|one| one.error.as_deref().is_some_and(|e| e.contains("307")))
    })
    .await;
}

#[test]
fn a_url_in_clear_or_a_weak_secret_is_refused() {
    let config = |url: &str| WebhookOut {
        name: "ops".to_owned(),
        url: url.to_owned(),
        secret: SecretRef::Env("X".to_owned()),
        ca: None,
        events: None,
    };
    let good = SECRET.to_owned().into();
    assert!(WebhookSender::new(&config("http://ops.example/hook"), &good).is_err());
    for weak in [
        "",
        "whsec_",
        "whsec_c2hvcnQ=",
        "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
    ] {
        let error =
            WebhookSender::new(&config("https://ops.example/hook"), &weak.to_owned().into());
        let text = error.err().unwrap().to_string();
        assert!(
            weak.is_empty() || !text.contains(&weak[6..]) || weak == "whsec_",
            "{text}"
        );
    }
}
