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

/// A file that a refused configuration named is where the mistake is mended.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_file_with_a_mistake_is_watched_for_its_mending() {
    let Some(gateway) = gateway().await else {
        return;
    };
    // Not "the old set stays in force".
    let taken = || {
        let is = |line: &&str| line.contains("rules ") && line.ends_with("in force");
        gateway.log().lines().filter(is).count()
    };
    let before = taken();
    gateway.rewrite("more.toml", "[[rule]]\nname = \"x\"\nalow = true\n");
    let both = gateway.read("holdpoint.toml").replace(
        "files = [\"rules.toml\"]",
        "files = [\"rules.toml\", \"more.toml\"]",
    );
    gateway.rewrite("holdpoint.toml", &both);
    eventually("the complaint", 15, || {
        gateway.log().contains("alow").then_some(())
    });
    // Mended, and with a word that nothing here has.
    gateway.rewrite(
        "more.toml",
        "[[rule]]\nname = \"x\"\nmatch = { targets = [\"shpo\"] }\ndeny = \"no\"\n",
    );
    eventually("the new rules", 15, || (taken() > before).then_some(()));
    assert!(gateway.log().contains("target `shpo`"), "{}", gateway.log());
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

/// The gateway does not ask its plugin any more of what came often enough. It judges it all
/// the same, by the rules of the day.
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_again_and_again_is_held_and_refused_like_anything_else() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let mut stream = gateway.wire(&gateway.agent("ada")).await;
    // It reads a table: what reads none is housekeeping, which no rule holds.
    let text = |n: u32| format!("SELECT count(*) FROM victims WHERE 0 < {n}");
    let rita = gateway.reviewer("rita");
    // A change may be noticed twice, by the signal and by the file, so they are told by name.
    let named = || {
        let log = gateway.log();
        let (before, _) = log.rsplit_once(" in force").unwrap();
        before.rsplit_once(' ').unwrap().1.to_owned()
    };
    let new_rules = |rules: &str| {
        let before = named();
        gateway.rewrite("rules.toml", rules);
        gateway.signal("HUP");
        eventually("the new rules", 10, || (named() != before).then_some(()));
    };
    let holds = "[[rule]]\nname = \"reads\"\nmatch = { classes = [\"read\"] }\n\
                 hold = { reviewers = [\"group:reviewers\"] }\n";
    let denies =
        "[[rule]]\nname = \"reads\"\nmatch = { classes = [\"read\"] }\ndeny = \"not today\"\n";
    let mut next = 10;
    for (rules, approve) in [(holds, Some(true)), (holds, Some(false)), (denies, None)] {
        for _ in 0..5 {
            next += 1;
            let asked = query(text(next).as_bytes());
            stream.write_all(&asked).await.unwrap();
            assert_eq!(read_all(&mut stream).await.0, "TDCZ");
        }
        new_rules(rules);
        next += 1;
        let held = text(next);
        stream.write_all(&query(held.as_bytes())).await.unwrap();
        match approve {
            Some(true) => assert!(
                rita.approve(&rita.pending(&held).await)
                    .await
                    .0
                    .is_success()
            ),
            Some(false) => {
                let view = rita.pending(&held).await;
                assert!(rita.deny(&view, "not today").await.0.is_success());
            }
            None => {}
        }
        let (kinds, said) = read_all(&mut stream).await;
        let kinds = kinds.trim_start_matches('N');
        if approve == Some(true) {
            assert_eq!(kinds, "TDCZ", "{said}");
            assert_eq!(gateway.tap.count(&held), 1);
        } else {
            assert_eq!(kinds, "EZ", "{said}");
            assert!(said.contains("not today"), "{said}");
            assert!(!gateway.tap.saw(&held));
        }
        new_rules(RULES);
    }
    // The session is as good as new.
    stream.write_all(&query(b"SELECT 1")).await.unwrap();
    assert_eq!(read_all(&mut stream).await.0, "TDCZ");
}
