//! A new gateway process takes over from the old one, and nobody notices.

use std::time::{Duration, Instant};

use holdpoint_tests::{Gateway, PgServer, RULES, Settings, eventually, need};

async fn gateway() -> Option<Gateway> {
    let server = need!(PgServer::shared(), "postgresql")?;
    Some(Gateway::start(&server.database()).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_refuses_no_connection_and_loses_no_answer() {
    let Some(server) = need!(PgServer::shared(), "postgresql") else {
        return;
    };
    let sleeps =
        "[[rule]]\nname = \"sleeps\"\nmatch = { classes = [\"function_effect\"] }\nallow = true\n";
    let settings = Settings {
        rules: format!("{sleeps}{RULES}"),
        ..Settings::default()
    };
    let gateway = Gateway::with(&server.database(), settings).await;
    let running = gateway.psql().start(&["SELECT pg_sleep(3), 'finished'"]);
    eventually("the sleep at the target", 20, || {
        gateway.tap.saw("pg_sleep").then_some(())
    });
    let held = gateway.psql().start(&["DROP TABLE victims"]);
    gateway.reviewer("rita").pending("DROP TABLE victims").await;

    let mut old = gateway.upgrade().unwrap();
    let mut connections = 0;
    let until = Instant::now() + Duration::from_secs(6);
    while Instant::now() < until {
        // Different ones, so that the oracle can tell the sessions apart.
        let done = gateway.psql().run(&format!("SELECT {connections}"));
        assert_eq!(
            done.stdout,
            format!("{connections}\n"),
            "connection {connections}: {}",
            done.stderr
        );
        connections += 1;
    }
    assert!(connections > 3, "only {connections}");

    let running = running.wait();
    assert_eq!(running.stdout, "|finished\n", "{}", running.stderr);
    let held = held.wait();
    assert!(held.stderr.contains("HP-SHUTDOWN"), "{}", held.stderr);
    let status = eventually("the old process to end", 20, || old.try_wait().unwrap());
    assert!(status.success(), "{status}: {}", gateway.log());
    assert!(!gateway.tap.saw("DROP TABLE"));

    // The admin API is the new process's, and so is the rest.
    gateway.wait_ready().await;
    let held = gateway.psql().start(&["DROP TABLE other"]);
    let rita = gateway.reviewer("rita");
    let view = rita.pending("DROP TABLE other").await;
    assert!(rita.approve(&view).await.0.is_success());
    assert!(held.wait().stderr.contains("does not exist"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_nobody_succeeds_goes_on() {
    let Some(gateway) = gateway().await else {
        return;
    };
    gateway.signal("QUIT");
    eventually("word that nobody came", 20, || {
        gateway.log().contains("not handed over").then_some(())
    });
    assert_eq!(gateway.psql().run("SELECT 1").stdout, "1\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_with_a_broken_configuration_changes_nothing() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let good = gateway.read("rules.toml");
    gateway.rewrite("broken.toml", "[[rule]\n");
    let config = gateway.read("holdpoint.toml");
    let broken = config.replace("files = [\"rules.toml\"]", "files = [\"broken.toml\"]");
    gateway.rewrite("next.toml", &broken);
    let done = gateway.holdpoint(&["serve", "--upgrade", "--config", "next.toml"]);
    assert_eq!(done.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&done.stderr).contains("broken.toml"));
    assert_eq!(gateway.psql().run("SELECT 1").stdout, "1\n");
    assert_eq!(good, gateway.read("rules.toml"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_that_could_not_start_lets_the_running_gateway_be() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let config = gateway.read("holdpoint.toml");
    let renamed = config.replace("node = \"", "node = \"other-");
    let elsewhere = config.replace("[journal]\n", "[journal]\nkey = \"gone/journal.key\"\n");
    for (next, why) in [
        (renamed, "our key is `holdpoint/other-"),
        (elsewhere, "is not there"),
    ] {
        gateway.rewrite("next.toml", &next);
        for args in [&["serve", "--upgrade"][..], &["check", "--offline"]] {
            let done = gateway.holdpoint(&[args, &["--config", "next.toml"]].concat());
            let told = String::from_utf8_lossy(&done.stderr);
            assert_eq!(done.status.code(), Some(1), "{args:?}: {told}");
            assert!(told.contains(why), "{args:?}: {told}");
        }
        assert_eq!(gateway.psql().run("SELECT 1").stdout, "1\n");
    }
    // What is kept about people, which only a start reads.
    gateway.rewrite(".holdpoint/links.json", "[{");
    let done = gateway.holdpoint(&["serve", "--upgrade", "--config", "holdpoint.toml"]);
    let told = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{told}");
    assert!(told.contains("links.json"), "{told}");
    assert_eq!(gateway.psql().run("SELECT 1").stdout, "1\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_nobody_to_succeed_it_starts_afresh() {
    let Some(server) = need!(PgServer::shared(), "postgresql") else {
        return;
    };
    let gateway = Gateway::prepare(&server.database(), Settings::default()).await;
    assert!(gateway.upgrade().is_none());
    gateway.wait_ready().await;
    assert!(gateway.log().contains("starting afresh"));
    assert_eq!(gateway.psql().run("SELECT 1").stdout, "1\n");
}
