//! Login at the target, by each method that it may ask for, and over TLS; and targets
//! that take their time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use holdpoint_tests::certs::Authority;
use holdpoint_tests::tap::Behaviour;
use holdpoint_tests::wire::{query, read, read_all};
use holdpoint_tests::{Gateway, PgServer, Settings, TestDir, eventually, need};
use tokio::io::AsyncWriteExt as _;

async fn through(server: PgServer, settings: Settings) -> Gateway {
    Gateway::with(&Arc::new(server).database(), settings).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_logs_in_by_md5_and_by_trust() {
    for method in ["md5", "trust"] {
        let Some(server) = need!(PgServer::start(method), "postgresql") else {
            return;
        };
        let gateway = through(server, Settings::default()).await;
        let done = gateway.psql().run("SELECT 1");
        assert_eq!(done.stdout, "1\n", "{method}: {}", done.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_goes_to_the_target_in_clear_only_where_the_operator_says_so() {
    let Some(server) = need!(PgServer::start("password"), "postgresql") else {
        return;
    };
    let database = Arc::new(server).database();
    let gateway = Gateway::with(&database, Settings::default()).await;
    let done = gateway.psql().run("SELECT 1");
    assert!(done.stderr.contains("HP-UPSTREAM"), "{}", done.stderr);
    assert!(!gateway.tap.saw(&database.password));
    drop(gateway);

    let target_settings = ", upstream_clear_password = \"on\"".to_owned();
    let settings = Settings {
        target_settings,
        ..Settings::default()
    };
    let gateway = Gateway::with(&database, settings).await;
    assert_eq!(
        gateway.psql().run("SELECT 1").stdout,
        "1\n",
        "{}",
        gateway.log()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_to_the_target_is_verified() {
    let dir = TestDir::new("upstream");
    let authority = Authority::new("target");
    let leaf = authority.leaf(&dir, "target");
    let Some(server) = need!(
        PgServer::start_with("scram-sha-256", Some(&leaf)),
        "postgresql"
    ) else {
        return;
    };
    let database = Arc::new(server).database();
    let good = dir.write("good.pem", authority.pem());
    let other = dir.write("other.pem", Authority::new("somebody else").pem());
    for (ca, works) in [(good, true), (other, false)] {
        let upstream_tls = format!("{{ verify = {{ ca = \"{}\" }} }}", ca.display());
        let settings = Settings {
            upstream_tls,
            ..Settings::default()
        };
        let gateway = Gateway::with(&database, settings).await;
        // The tap sees TLS, which says nothing to the oracle.
        gateway.waive("bytes");
        let done = gateway.psql().run("SELECT 40 + 2");
        assert!(!gateway.tap.saw("SELECT 40"), "in clear");
        if works {
            assert_eq!(done.stdout, "42\n", "{}", done.stderr);
        } else {
            assert!(done.stderr.contains("HP-UPSTREAM"), "{}", done.stderr);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_never_answers_the_login_is_given_up() {
    let dir = TestDir::new("upstream");
    let ca = dir.write("ca.pem", Authority::new("target").pem());
    for upstream_tls in [
        "\"off\"".to_owned(),
        format!("{{ verify = {{ ca = \"{}\" }} }}", ca.display()),
    ] {
        let Some(server) = need!(PgServer::shared(), "postgresql") else {
            return;
        };
        let settings = Settings {
            upstream_tls,
            more: "[limits]\nhandshake = \"2s\"\n".to_owned(),
            ..Settings::default()
        };
        let gateway = Gateway::with(&server.database(), settings).await;
        gateway.tap.behave(Behaviour::Silent);
        let began = Instant::now();
        let done = gateway.psql().run("SELECT 1");
        assert_eq!(done.code, Some(2));
        assert!(
            done.stderr.contains("FATAL") && done.stderr.contains("HP-UPSTREAM"),
            "{}",
            done.stderr
        );
        assert!(began.elapsed() < Duration::from_secs(6));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_stalls_in_a_result_costs_the_client_its_patience_alone() {
    let Some(server) = need!(PgServer::shared(), "postgresql") else {
        return;
    };
    let gateway = Gateway::with(&server.database(), Settings::default()).await;
    gateway.tap.behave(Behaviour::Stall(100_000));
    let mut stream = gateway.wire(&gateway.agent("ada")).await;
    gateway.tap.behave(Behaviour::Relay);
    let sql = b"SELECT repeat('x', 1000) FROM generate_series(1, 1000)";
    stream.write_all(&query(sql)).await.unwrap();
    let mut rows = 0;
    let patience = Duration::from_secs(2);
    while let Ok(message) = tokio::time::timeout(patience, read(&mut stream)).await {
        let (kind, _) = message.expect("the session goes on");
        rows += usize::from(kind == b'D');
    }
    assert!((90..100).contains(&rows), "what came, and no more: {rows}");
    // What it sends behind that waits for nobody else.
    assert_eq!(gateway.psql().run("SELECT 1").stdout, "1\n");
    // It gives up, and so does the gateway.
    drop(stream);
    eventually("the target to be left", 10, || {
        gateway
            .tap
            .conversations()
            .iter()
            .all(|one| one.ended)
            .then_some(())
    });
    gateway.stop();
    assert_eq!(gateway.verified()["unknown_count"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_leaves_in_a_result_is_an_error_behind_what_came() {
    let Some(server) = need!(PgServer::shared(), "postgresql") else {
        return;
    };
    let rules = "[[rule]]\nname = \"all\"\n\
                 match = { classes = [\"read\", \"function_effect\"] }\nallow = true\n";
    let settings = Settings {
        rules: rules.to_owned(),
        ..Settings::default()
    };
    let gateway = Gateway::with(&server.database(), settings).await;
    let mut stream = gateway.wire(&gateway.agent("ada")).await;
    let sql = b"SELECT 'first'; SELECT pg_sleep(60)";
    stream.write_all(&query(sql)).await.unwrap();
    eventually("the command", 10, || {
        gateway.tap.saw("pg_sleep").then_some(())
    });
    let database = &gateway.database;
    let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                WHERE query LIKE '%pg_sleep(60)' AND datname = current_database()";
    database
        .server
        .superuser(&database.name)
        .run(kill)
        .unwrap_done();
    let (kinds, text) = read_all(&mut stream).await;
    assert!(kinds.ends_with('E'), "{kinds}: {text}");
    // The target's own last word, as it was.
    assert!(
        text.contains("57P01") && text.contains("terminating"),
        "{text}"
    );
}
