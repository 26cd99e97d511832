//! Access that ends while it is used: within moments, whatever the session does, and
//! nothing goes to the target afterwards.

use std::time::{Duration, Instant};

use holdpoint_tests::wire::{query, read, read_all};
use holdpoint_tests::{Gateway, PgServer, RULES, Reviewer, Settings, eventually, need};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

/// Within which a session is to be cut.
const SOON: Duration = Duration::from_secs(3);

async fn gateway() -> Option<Gateway> {
    let server = need!(PgServer::shared(), "postgresql")?;
    let sleeps = "[[rule]]\nname = \"sleeps\"\n\
                  match = { classes = [\"function_effect\"] }\nallow = true\n";
    let settings = Settings {
        rules: format!("{sleeps}{RULES}"),
        ..Settings::default()
    };
    Some(Gateway::with(&server.database(), settings).await)
}

async fn revoke(gateway: &Gateway, by: &Reviewer, subject: &str) -> (StatusCode, Value) {
    let whom = json!({ "issuer": gateway.issuer.url(), "subject": subject });
    by.call(Method::POST, "/v1/revoke", Some(whom)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_session_is_cut_and_the_identity_stays_out_also_after_a_restart() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let token = gateway.agent("ada");
    let mut ada = gateway.wire(&token).await;
    let mut bob = gateway.wire(&gateway.agent("bob")).await;
    let (status, answer) = revoke(&gateway, &gateway.reviewer("rita"), "ada").await;
    assert_eq!((status, &answer["sessions"]), (StatusCode::OK, &json!(1)));
    let (kinds, text) = tokio::time::timeout(SOON, read_all(&mut ada))
        .await
        .unwrap();
    assert_eq!(kinds, "E");
    for fact in ["FATAL", "28000", "HP-REVOKED"] {
        assert!(text.contains(fact), "no {fact} in {text}");
    }
    bob.write_all(&query(b"SELECT 'bob'")).await.unwrap();
    assert_eq!(read_all(&mut bob).await.0, "TDCZ", "others are not");

    let dialled = gateway.tap.conversations().len();
    for _ in 0..2 {
        for token in [&token, &gateway.agent("ada")] {
            let done = gateway.psql_as(token).run("SELECT 1");
            assert!(done.stderr.contains("HP-REVOKED"), "{}", done.stderr);
        }
        assert_eq!(
            gateway.tap.conversations().len(),
            dialled,
            "dialled for ada"
        );
        gateway.stop();
        gateway.spawn();
        gateway.wait_ready().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_command_is_stopped_at_the_target_and_nothing_follows_it() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let mut ada = gateway.wire(&gateway.agent("ada")).await;
    ada.write_all(&query(b"SELECT pg_sleep(60)")).await.unwrap();
    ada.write_all(&query(b"SELECT 'behind it'")).await.unwrap();
    eventually("the command", 10, || {
        gateway.tap.saw("pg_sleep").then_some(())
    });
    let began = Instant::now();
    revoke(&gateway, &gateway.reviewer("rita"), "ada").await;
    let (_, text) = read_all(&mut ada).await;
    assert!(text.contains("HP-REVOKED"), "{text}");
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    eventually("the target to stop", 5, || {
        (gateway.database.value(
            "SELECT count(*) FROM pg_stat_activity \
             WHERE datname = current_database() AND query LIKE 'SELECT pg_sleep%'",
        ) == "0")
            .then_some(())
    });
    gateway.stop();
    // Nobody saw its end: somebody has to look.
    assert!(gateway.verified()["unknown_count"].as_u64() >= Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_command_of_a_revoked_identity_can_not_be_approved_any_more() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let rita = gateway.reviewer("rita");
    let psql = gateway.psql().start(&["DROP TABLE victims"]);
    let view = rita.pending("DROP TABLE victims").await;
    // A second one waits for an approval whose session has left: a grant in the making.
    let left = gateway.psql().start(&["DELETE FROM victims"]);
    let grant = rita.pending("DELETE FROM victims").await;
    left.signal("KILL");
    left.wait();
    let (_, answer) = revoke(&gateway, &rita, "ada").await;
    assert_eq!(answer["warning"], Value::Null, "{answer}");
    let done = psql.wait();
    assert!(done.stderr.contains("HP-REVOKED"), "{}", done.stderr);
    for view in [&view, &grant] {
        assert_eq!(rita.approve(view).await.0, StatusCode::CONFLICT);
        let after = rita.show(view["id"].as_str().unwrap()).await;
        assert_eq!(after["state"], "revoked", "{after}");
    }
    assert!(!gateway.tap.saw("DROP TABLE") && !gateway.tap.saw("DELETE"));
    assert!(gateway.database.has_table("victims"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vote_and_a_revocation_at_the_same_moment_leave_one_story() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let rita = gateway.reviewer("rita");
    for round in 0..5 {
        let who = format!("agent-{round}");
        let sql = format!("DELETE FROM victims WHERE id = {round}");
        let mut stream = gateway.wire(&gateway.agent(&who)).await;
        stream.write_all(&query(sql.as_bytes())).await.unwrap();
        let view = rita.pending(&sql).await;
        let (vote, _) = tokio::join!(rita.approve(&view), revoke(&gateway, &rita, &who));
        let ended = async { while read(&mut stream).await.is_some() {} };
        tokio::time::timeout(SOON, ended).await.expect("it is cut");
        tokio::time::sleep(Duration::from_millis(100)).await;
        let ran = gateway.tap.count(&sql);
        assert!(
            ran <= usize::from(vote.0 == StatusCode::OK),
            "{vote:?} {ran}"
        );
    }
    // The oracle reconciles the rest.
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_can_revoke_nobody() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let mut bob = gateway.wire(&gateway.agent("bob")).await;
    let ada = Reviewer::new(gateway.admin, gateway.agent("ada"));
    let (status, answer) = revoke(&gateway, &ada, "bob").await;
    assert!(
        [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&status),
        "{status}: {answer}"
    );
    bob.write_all(&query(b"SELECT 1")).await.unwrap();
    assert_eq!(read_all(&mut bob).await.0, "TDCZ");
}
