//! Told to stop: what runs may end, what waits is answered, nobody new is let in,
//! and the journal closes over everything.

use std::time::{Duration, Instant};

use holdpoint_tests::wire::{query, read_all};
use holdpoint_tests::{Gateway, PgServer, RULES, Settings, eventually, need};
use tokio::io::AsyncWriteExt as _;

/// As [`RULES`], and functions with effects may run: `pg_sleep` is one.
fn settings(drain: &str) -> Settings {
    let sleeps = "[[rule]]\nname = \"sleeps\"\n\
                  match = { classes = [\"function_effect\"] }\nallow = true\n";
    Settings {
        rules: format!("{sleeps}{RULES}"),
        more: format!("[limits]\ndrain = \"{drain}\"\n"),
        ..Settings::default()
    }
}

async fn gateway(drain: &str) -> Option<Gateway> {
    let server = need!(PgServer::shared(), "postgresql")?;
    Some(Gateway::with(&server.database(), settings(drain)).await)
}

/// Sends the signal and waits until it is known to have arrived.
fn ask(gateway: &Gateway) {
    gateway.signal("TERM");
    eventually("the gateway to know", 10, || {
        gateway.log().contains("stopping").then_some(())
    });
}

/// The journal is whole, and the last checkpoint covers every record.
fn assert_closed(gateway: &Gateway) {
    let report = gateway.verified();
    assert_eq!(report["uncovered"], 0, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_ends_within_the_limit_and_its_answer_arrives() {
    let Some(gateway) = gateway("20s").await else {
        return;
    };
    let busy = gateway
        .psql()
        .start(&["SELECT 'slept' FROM pg_sleep(2)", "SELECT 'after'"]);
    let mut idle = gateway.wire(&gateway.agent("ada")).await;
    eventually("the command", 10, || {
        gateway.tap.saw("pg_sleep").then_some(())
    });
    ask(&gateway);
    // Whoever does nothing is sent away at once, with a word.
    let (kinds, text) = read_all(&mut idle).await;
    assert!(
        kinds.ends_with('E') && text.contains("HP-SHUTDOWN"),
        "{text}"
    );
    // Nobody new.
    let late = gateway.psql().run("SELECT 1");
    assert_eq!(late.code, Some(2), "{}", late.stdout);

    let done = busy.wait();
    assert_eq!(done.stdout, "slept\n", "{}", done.stderr);
    assert!(done.stderr.contains("HP-SHUTDOWN"), "{}", done.stderr);
    assert!(!gateway.tap.saw("'after'"), "a command of the time after");
    assert_eq!(gateway.wait_exit(10).code(), Some(0));
    assert_closed(&gateway);
    assert_eq!(gateway.verified()["unknown"], serde_json::json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_reviewer_is_refused_and_can_never_be_approved() {
    let Some(gateway) = gateway("20s").await else {
        return;
    };
    let psql = gateway.psql().start(&["DROP TABLE victims"]);
    let rita = gateway.reviewer("rita");
    let view = rita.pending("DROP TABLE victims").await;
    let began = Instant::now();
    ask(&gateway);
    let done = psql.wait();
    assert!(done.stderr.contains("HP-SHUTDOWN"), "{}", done.stderr);
    assert_eq!(gateway.wait_exit(10).code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(10), "it waited");
    assert!(!gateway.tap.saw("DROP TABLE"));
    assert_closed(&gateway);
    // The next process does not know it.
    gateway.spawn();
    gateway.wait_ready().await;
    assert!(rita.approve(&view).await.0.is_client_error());
    assert!(gateway.database.has_table("victims"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_past_the_limit_is_cut_and_recorded_as_unknown() {
    let Some(gateway) = gateway("1s").await else {
        return;
    };
    let psql = gateway.psql().start(&["SELECT pg_sleep(60)"]);
    eventually("the command", 10, || {
        gateway.tap.saw("pg_sleep").then_some(())
    });
    let began = Instant::now();
    ask(&gateway);
    let done = psql.wait();
    assert!(done.stderr.contains("HP-SHUTDOWN"), "{}", done.stderr);
    assert_eq!(gateway.wait_exit(10).code(), Some(0));
    let took = began.elapsed();
    assert!(
        took > Duration::from_millis(900) && took < Duration::from_secs(6),
        "{took:?}"
    );
    assert_closed(&gateway);
    let report = gateway.verified();
    assert_eq!(
        report["unknown"].as_array().map(Vec::len),
        Some(1),
        "{report}"
    );
    // The target is told as well: nothing runs there for nobody.
    eventually("the target to stop", 5, || {
        (gateway.database.value(
            "SELECT count(*) FROM pg_stat_activity \
             WHERE datname = current_database() AND query LIKE 'SELECT pg_sleep%'",
        ) == "0")
            .then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_everything_at_once() {
    let Some(gateway) = gateway("60s").await else {
        return;
    };
    let mut busy = gateway.wire(&gateway.agent("ada")).await;
    busy.write_all(&query(b"SELECT pg_sleep(60)"))
        .await
        .unwrap();
    eventually("the command", 10, || {
        gateway.tap.saw("pg_sleep").then_some(())
    });
    ask(&gateway);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(gateway.exited().is_none(), "it did not wait");
    let began = Instant::now();
    gateway.signal("TERM");
    let (_, text) = read_all(&mut busy).await;
    assert!(text.contains("HP-SHUTDOWN"), "{text}");
    assert_eq!(gateway.wait_exit(10).code(), Some(0));
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    assert_closed(&gateway);
}
