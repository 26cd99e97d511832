//! Changed rules, certificates and secrets, without dropping a connection.

use holdpoint_tests::wire::{query, read_all};
use holdpoint_tests::{Gateway, PgServer, RULES, eventually, need};
use tokio::io::AsyncWriteExt as _;

async fn gateway() -> Option<Gateway> {
    let server = need!(PgServer::shared(), "postgresql")?;
    Some(Gateway::start(&server.database()).await)
}

fn with_ddl_denied() -> String {
    format!(
        "[[rule]]\nname = \"no-ddl\"\nmatch = {{ classes = [\"ddl\"] }}\ndeny = \"use migrations\"\n{RULES}"
    )
}

fn in_force(gateway: &Gateway) -> usize {
    gateway.log().matches("in force").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn new_rules_apply_to_the_next_command_of_an_open_session() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let mut stream = gateway.wire(&gateway.agent("ada")).await;
    let before = in_force(&gateway);
    gateway.rewrite("rules.toml", &with_ddl_denied());
    gateway.signal("HUP");
    eventually("the new rules", 10, || {
        (in_force(&gateway) > before).then_some(())
    });
    stream
        .write_all(&query(b"CREATE TABLE t (id int)"))
        .await
        .unwrap();
    let (kinds, text) = read_all(&mut stream).await;
    assert_eq!(kinds, "EZ");
    assert!(text.contains("no-ddl"), "{text}");
    stream.write_all(&query(b"SELECT 1")).await.unwrap();
    assert_eq!(read_all(&mut stream).await.0, "TDCZ");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_is_noticed_without_a_signal() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let before = in_force(&gateway);
    gateway.rewrite("rules.toml", &with_ddl_denied());
    eventually("the new rules", 15, || {
        (in_force(&gateway) > before).then_some(())
    });
    let done = gateway.psql().run("CREATE TABLE t (id int)");
    assert!(done.stderr.contains("no-ddl"), "{}", done.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_command_is_judged_again_under_stricter_rules() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let psql = gateway.psql().start(&["DROP TABLE victims"]);
    let rita = gateway.reviewer("rita");
    let view = rita.pending("DROP TABLE victims").await;
    gateway.rewrite("rules.toml", &with_ddl_denied());
    gateway.signal("HUP");
    let done = psql.wait();
    assert!(done.stderr.contains("no-ddl"), "{}", done.stderr);
    assert!(rita.approve(&view).await.0.is_client_error());
    assert!(!gateway.tap.saw("DROP TABLE"));
}

#[tokio::test(flavor = "multi_thread")]
async fn looser_rules_do_not_release_what_is_held() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let mut psql = gateway.psql().start(&["DROP TABLE victims"]);
    let rita = gateway.reviewer("rita");
    let view = rita.pending("DROP TABLE victims").await;
    let before = in_force(&gateway);
    gateway.rewrite(
        "rules.toml",
        "[[rule]]\nname = \"all\"\nmatch = {}\nallow = true\n",
    );
    gateway.signal("HUP");
    eventually("the new rules", 10, || {
        (in_force(&gateway) > before).then_some(())
    });
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert!(psql.is_running() && !gateway.tap.saw("DROP TABLE"));
    rita.approve(&view).await;
    assert_eq!(psql.wait().code, Some(0));
    assert_eq!(gateway.tap.count("DROP TABLE victims"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_candidate_leaves_the_old_rules_in_force_and_says_so() {
    let Some(gateway) = gateway().await else {
        return;
    };
    gateway.rewrite(
        "rules.toml",
        "[[rule]]\nname = \"all\"\nmatch = {}\nalow = true\n",
    );
    gateway.signal("HUP");
    eventually("the complaint", 10, || {
        gateway.log().contains("alow").then_some(())
    });
    let psql = gateway.psql().start(&["SELECT 1", "DROP TABLE victims"]);
    let rita = gateway.reviewer("rita");
    let view = rita.pending("DROP TABLE victims").await;
    rita.deny(&view, "test").await;
    assert_eq!(psql.wait().stdout, "1\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_serves_new_connections() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let mut old = gateway.wire(&gateway.agent("ada")).await;
    let before = in_force(&gateway);
    let authority = holdpoint_tests::certs::Authority::new("another authority");
    authority.leaf(&gateway.dir, "gateway");
    gateway.rewrite("ca.pem", &authority.pem());
    gateway.signal("HUP");
    eventually("the certificate", 10, || {
        (in_force(&gateway) > before).then_some(())
    });
    assert_eq!(gateway.psql().run("SELECT 1").stdout, "1\n");
    old.write_all(&query(b"SELECT 2")).await.unwrap();
    assert_eq!(read_all(&mut old).await.0, "TDCZ", "old connections go on");
}
