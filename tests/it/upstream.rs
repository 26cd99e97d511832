//! Login at the target, by each method that it may ask for, and over TLS.

use std::sync::Arc;

use holdpoint_tests::certs::Authority;
use holdpoint_tests::{Gateway, PgServer, Settings, TestDir, need};

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
