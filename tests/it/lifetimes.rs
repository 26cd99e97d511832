//! How long a token, a session and a grant are good, and for whom.

use std::time::{Duration, Instant};

use holdpoint_tests::wire::{query, read_all};
use holdpoint_tests::{Gateway, PgServer, Settings, need};
use hyper::StatusCode;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

const DELETE: &str = "DELETE FROM victims WHERE id = 1";

async fn gateway(identity: &str, hold: &str) -> Option<Gateway> {
    let server = need!(PgServer::shared(), "postgresql")?;
    let settings = Settings {
        identity: format!("clock_skew = \"1s\"\n{identity}"),
        hold: format!("heartbeat = \"1s\"\n{hold}"),
        ..Settings::default()
    };
    Some(Gateway::with(&server.database(), settings).await)
}

/// For grants: whoever asks is told to ask again within a second.
const IMPATIENT: &str = "inline_wait = { agent = \"1s\", person = \"1s\" }\n";

fn token_for(gateway: &Gateway, seconds: i64) -> String {
    let issuer = &gateway.issuer;
    issuer.sign(&issuer.claims("ada", "holdpoint.connect", &["agents"], seconds))
}

/// Asks for [`DELETE`], is sent away, and has it approved: a grant.
async fn grant(gateway: &Gateway, agent: &str) -> Value {
    let done = gateway.psql_as(&gateway.agent(agent)).run(DELETE);
    assert!(done.stderr.contains("HP-PENDING"), "{}", done.stderr);
    let rita = gateway.reviewer("rita");
    let view = rita.pending(DELETE).await;
    assert_eq!(rita.approve(&view).await.0, StatusCode::OK);
    view
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_can_be_made_to_end_with_its_token() {
    let Some(gateway) = gateway("on_token_expiry = \"close\"\n", "").await else {
        return;
    };
    let mut stream = gateway.wire(&token_for(&gateway, 3)).await;
    stream.write_all(&query(b"SELECT 1")).await.unwrap();
    assert_eq!(read_all(&mut stream).await.0, "TDCZ");
    let began = Instant::now();
    let (kinds, text) = read_all(&mut stream).await;
    assert_eq!(kinds, "E");
    for fact in ["FATAL", "28000", "HP-TOKEN-EXPIRED"] {
        assert!(text.contains(fact), "no {fact} in {text}");
    }
    assert!(
        began.elapsed() < Duration::from_secs(6),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_session_lasts_longer_than_the_longest_one_also_while_it_waits() {
    let Some(gateway) = gateway("max_session = \"3s\"\n", "").await else {
        return;
    };
    let began = Instant::now();
    let psql = gateway.psql().start(&["DROP TABLE victims"]);
    let rita = gateway.reviewer("rita");
    let view = rita.pending("DROP TABLE").await;
    let done = psql.wait();
    assert!(done.stderr.contains("HP-TOKEN-EXPIRED"), "{}", done.stderr);
    assert!(
        began.elapsed() < Duration::from_secs(6),
        "{:?}",
        began.elapsed()
    );
    assert!(rita.approve(&view).await.0.is_client_error());
    assert!(!gateway.tap.saw("DROP TABLE"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_held_under_a_good_token_may_run_after_it_and_nothing_else() {
    let Some(gateway) = gateway("", "").await else {
        return;
    };
    let mut stream = gateway.wire(&token_for(&gateway, 2)).await;
    stream.write_all(&query(DELETE.as_bytes())).await.unwrap();
    let rita = gateway.reviewer("rita");
    let view = rita.pending(DELETE).await;
    tokio::time::sleep(Duration::from_millis(4000)).await;
    assert_eq!(rita.approve(&view).await.0, StatusCode::OK);
    let (kinds, text) = read_all(&mut stream).await;
    assert!(kinds.ends_with("CZ"), "{kinds}: {text}");
    assert_eq!(gateway.tap.count(DELETE), 1);
    stream.write_all(&query(b"SELECT 'later'")).await.unwrap();
    let (_, text) = read_all(&mut stream).await;
    assert!(text.contains("HP-TOKEN-EXPIRED"), "{text}");
    assert!(!gateway.tap.saw("later"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_past_its_time_is_no_grant() {
    let Some(gateway) = gateway("", &format!("{IMPATIENT}grant_ttl = \"1s\"\n")).await else {
        return;
    };
    let old = grant(&gateway, "ada").await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let done = gateway.psql().run(DELETE);
    assert!(done.stderr.contains("HP-PENDING"), "{}", done.stderr);
    assert!(!gateway.tap.saw("DELETE"));
    let new = gateway.reviewer("rita").pending(DELETE).await;
    assert_ne!(new["id"], old["id"], "it is asked anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_is_for_one_principal_and_one_use() {
    let Some(gateway) = gateway("", IMPATIENT).await else {
        return;
    };
    let view = grant(&gateway, "ada").await;
    // The same words of somebody else.
    let bob = gateway.psql_as(&gateway.agent("bob")).run(DELETE);
    assert!(bob.stderr.contains("HP-PENDING"), "{}", bob.stderr);
    let id = view["id"].as_str().unwrap();
    assert!(!bob.stderr.contains(id), "bob joined it: {}", bob.stderr);
    assert!(!gateway.tap.saw("DELETE"));
    // Ada, with a newer token, in several sessions at once.
    let racing: Vec<_> = (0..4).map(|_| gateway.psql().start(&[DELETE])).collect();
    let ended: Vec<_> = racing.into_iter().map(|psql| psql.wait()).collect();
    let ran = ended.iter().filter(|done| done.code == Some(0)).count();
    assert_eq!(ran, 1, "{ended:#?}");
    for done in ended.iter().filter(|done| done.code != Some(0)) {
        // It came after the use, or saw the grant and lost the race for it.
        let asks = done.stderr.contains("HP-PENDING");
        let lost = done.stderr.contains("the approval was used already");
        assert!(asks || lost, "{}", done.stderr);
    }
    assert_eq!(gateway.tap.count(DELETE), 1);
    let rita = gateway.reviewer("rita");
    assert_eq!(rita.show(id).await["state"], "used");
    let late = gateway.reviewer("bob").approve(&view).await;
    assert_eq!(late.0, StatusCode::CONFLICT, "{}", late.1);
}
