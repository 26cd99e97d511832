//! PostgreSQL end to end: a real server, the real psql, a held command.

use std::time::{Duration, Instant};

use holdpoint_tests::{Gateway, PgServer, Settings, eventually, need};
use hyper::StatusCode;
use serde_json::json;

async fn gateway() -> Option<Gateway> {
    let server = need!(PgServer::shared(), "postgresql")?;
    Some(Gateway::start(&server.database()).await)
}

async fn gateway_with(settings: Settings) -> Option<Gateway> {
    let server = need!(PgServer::shared(), "postgresql")?;
    Some(Gateway::with(&server.database(), settings).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_passes_and_answers_as_the_server_would() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let done = gateway
        .psql()
        .run("SELECT customer FROM invoices ORDER BY id");
    assert_eq!(
        (done.stdout.as_str(), done.code),
        ("ada\nbob\ncyd\n", Some(0)),
        "{}",
        done.stderr
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_the_target_reaches_the_client_as_it_is() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let through = gateway.psql().run("SELECT * FROM absent");
    let direct = gateway.database.direct().run("SELECT * FROM absent");
    assert_eq!((through.stderr, through.code), (direct.stderr, direct.code));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drop_waits_on_the_open_connection_and_runs_once_when_approved() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let mut psql = gateway.psql().start(&["DROP TABLE victims"]);
    let rita = gateway.reviewer("rita");
    let view = rita.pending("DROP TABLE victims").await;
    psql.wait_for_stderr(view["id"].as_str().unwrap(), 10);
    assert!(psql.is_running());
    assert!(
        !gateway.tap.saw("DROP TABLE"),
        "sent before it was approved"
    );

    let (status, answer) = rita.approve(&view).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let done = psql.wait();
    assert_eq!(
        (done.stdout.as_str(), done.code),
        ("DROP TABLE\n", Some(0)),
        "{}",
        done.stderr
    );
    assert_eq!(gateway.tap.count("DROP TABLE victims"), 1);
    assert!(!gateway.database.has_table("victims"));
    let seen = gateway
        .receiver
        .wait(5, |body| body["type"] == "approval.pending")
        .await;
    assert_eq!(seen.body["approval"]["digest"], view["digest"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_reaches_the_agent_with_its_reason_and_nothing_is_sent() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let psql = gateway.psql().start(&["DELETE FROM victims"]);
    let rita = gateway.reviewer("rita");
    let view = rita.pending("DELETE FROM victims").await;
    let (status, answer) = rita.deny(&view, "").await;
    assert_eq!(
        status,
        StatusCode::BAD_REQUEST,
        "a denial needs a reason: {answer}"
    );
    let (status, answer) = rita.deny(&view, "not on a Friday").await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let done = psql.wait();
    assert!(done.stderr.contains("not on a Friday"), "{}", done.stderr);
    assert_eq!(done.code, Some(1));
    assert!(!gateway.tap.saw("DELETE"));
    assert_eq!(gateway.database.value("SELECT count(*) FROM victims"), "2");
    // Final: a vote that comes later changes nothing.
    let (status, _) = rita.approve(&view).await;
    assert_eq!(status, StatusCode::CONFLICT);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_session_goes_on_after_a_denial() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let psql = gateway.psql().start(&["DELETE FROM victims", "SELECT 7"]);
    let rita = gateway.reviewer("rita");
    let view = rita.pending("DELETE FROM victims").await;
    rita.deny(&view, "no").await;
    let done = psql.wait();
    assert_eq!(done.stdout, "7\n", "{}", done.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_statement_of_the_same_session_is_held_again() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let psql = gateway.psql().start(&[
        "DELETE FROM victims WHERE id = 1",
        "DELETE FROM victims WHERE id = 2",
    ]);
    let rita = gateway.reviewer("rita");
    let first = rita.pending("id = 1").await;
    rita.approve(&first).await;
    let second = rita.pending("id = 2").await;
    assert_ne!(first["id"], second["id"]);
    rita.deny(&second, "one is enough").await;
    psql.wait();
    assert_eq!(gateway.database.value("SELECT count(*) FROM victims"), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_statements_in_one_message_are_judged_by_the_worst() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let psql = gateway.psql().start(&["SELECT 1; DROP TABLE victims"]);
    let rita = gateway.reviewer("rita");
    let view = rita.pending("SELECT 1; DROP TABLE victims").await;
    assert_eq!(view["shown"]["class"], "ddl");
    rita.deny(&view, "no").await;
    assert!(!psql.wait().stdout.contains('1'));
    assert!(!gateway.tap.saw("SELECT 1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_behind_a_request_can_approve_it() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let psql = gateway.psql().start(&["DROP TABLE victims"]);
    let rita = gateway.reviewer("rita");
    let view = rita.pending("DROP TABLE victims").await;
    // The agent's owner, and a person of the agent's own name.
    for own in ["olivia", "ada"] {
        let (status, answer) = gateway.reviewer(own).approve(&view).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{own}: {answer}");
    }
    // Somebody who is not among the reviewers.
    let stranger =
        holdpoint_tests::Reviewer::new(gateway.admin, gateway.issuer.reviewer("sam", &["sales"]));
    assert_eq!(stranger.approve(&view).await.0, StatusCode::FORBIDDEN);
    // The agent with its own token.
    let agent = holdpoint_tests::Reviewer::new(gateway.admin, gateway.agent("ada"));
    assert!(agent.approve(&view).await.0.is_client_error());
    // An agent that was given the review scope by mistake.
    let mut claims = gateway
        .issuer
        .claims("robot", "holdpoint.review", &["reviewers"], 600);
    claims["client_id"] = json!("robot");
    let robot = holdpoint_tests::Reviewer::new(gateway.admin, gateway.issuer.sign(&claims));
    assert!(robot.approve(&view).await.0.is_client_error());
    assert!(!gateway.tap.saw("DROP TABLE"));
    rita.deny(&view, "test").await;
    psql.wait();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vote_for_another_digest_does_not_count() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let psql = gateway.psql().start(&["DROP TABLE victims"]);
    let rita = gateway.reviewer("rita");
    let mut view = rita.pending("DROP TABLE victims").await;
    let honest = view.clone();
    view["digest"] = json!("0".repeat(64));
    assert_eq!(rita.approve(&view).await.0, StatusCode::CONFLICT);
    assert!(!gateway.tap.saw("DROP TABLE"));
    rita.deny(&honest, "test").await;
    psql.wait();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_people_are_needed_where_the_rule_says_two() {
    let rules = holdpoint_tests::RULES.replace(
        "reviewers = [\"group:reviewers\"]",
        "reviewers = [\"group:reviewers\"], quorum = 2",
    );
    let Some(gateway) = gateway_with(Settings {
        rules,
        ..Settings::default()
    })
    .await
    else {
        return;
    };
    let mut psql = gateway.psql().start(&["DROP TABLE victims"]);
    let (rita, bob) = (gateway.reviewer("rita"), gateway.reviewer("bob"));
    let view = rita.pending("DROP TABLE victims").await;
    for _ in 0..3 {
        assert_eq!(rita.approve(&view).await.0, StatusCode::OK);
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(
        psql.is_running() && !gateway.tap.saw("DROP TABLE"),
        "one person is not two"
    );
    assert_eq!(bob.approve(&view).await.0, StatusCode::OK);
    assert_eq!(psql.wait().code, Some(0));
    assert_eq!(gateway.tap.count("DROP TABLE victims"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_is_never_served_and_its_approval_becomes_one_grant() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let psql = gateway.psql().start(&["DELETE FROM victims WHERE id = 1"]);
    let rita = gateway.reviewer("rita");
    let view = rita.pending("DELETE FROM victims").await;
    psql.signal("KILL");
    psql.wait();
    for _ in 0..200 {
        if rita.show(view["id"].as_str().unwrap()).await["waiting"] == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(rita.approve(&view).await.0, StatusCode::OK);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(
        !gateway.tap.saw("DELETE"),
        "sent for a client that had left"
    );
    // Sent again by the same principal: passes once, then is held anew.
    let again = gateway.psql().run("DELETE FROM victims WHERE id = 1");
    assert_eq!(
        (again.stdout.as_str(), again.code),
        ("DELETE 1\n", Some(0)),
        "{}",
        again.stderr
    );
    assert_eq!(gateway.tap.count("DELETE FROM victims"), 1);
    let third = gateway.psql().start(&["DELETE FROM victims WHERE id = 1"]);
    let anew = rita.pending("DELETE FROM victims").await;
    assert_ne!(anew["id"], view["id"]);
    rita.deny(&anew, "test").await;
    third.wait();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_command_is_withdrawn_and_cannot_be_approved() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let psql = gateway.psql().start(&["DROP TABLE victims"]);
    let rita = gateway.reviewer("rita");
    let view = rita.pending("DROP TABLE victims").await;
    psql.signal("INT");
    let done = psql.wait();
    assert!(
        !done.stdout.contains("DROP TABLE"),
        "{}{}",
        done.stdout,
        done.stderr
    );
    let id = view["id"].as_str().unwrap();
    for _ in 0..200 {
        if rita.show(id).await["state"] != "pending" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(rita.approve(&view).await.0, StatusCode::CONFLICT);
    assert!(!gateway.tap.saw("DROP TABLE"));
}

#[tokio::test(flavor = "multi_thread")]
async fn past_the_inline_wait_the_agent_asks_again_with_the_same_command() {
    let hold =
        "inline_wait = { agent = \"1s\", person = \"1s\" }\nheartbeat = \"500ms\"\n".to_owned();
    let Some(gateway) = gateway_with(Settings {
        hold,
        ..Settings::default()
    })
    .await
    else {
        return;
    };
    let began = Instant::now();
    let done = gateway.psql().run("DELETE FROM victims WHERE id = 2");
    assert!(began.elapsed() < Duration::from_secs(8));
    let rita = gateway.reviewer("rita");
    let view = rita.pending("DELETE FROM victims").await;
    let id = view["id"].as_str().unwrap();
    for fact in [
        id,
        "HP-PENDING",
        "not executed",
        "do not rephrase",
        "holdpoint wait",
    ] {
        assert!(
            done.stderr.to_lowercase().contains(&fact.to_lowercase()),
            "no {fact:?} in: {}",
            done.stderr
        );
    }
    assert_eq!(rita.approve(&view).await.0, StatusCode::OK);
    // A changed command needs a new approval.
    let changed = gateway.psql().run("DELETE FROM victims WHERE id = 1");
    assert!(changed.stderr.contains("HP-PENDING"), "{}", changed.stderr);
    let again = gateway.psql().run("DELETE FROM victims WHERE id = 2");
    assert_eq!(
        (again.stdout.as_str(), again.code),
        ("DELETE 1\n", Some(0)),
        "{}",
        again.stderr
    );
    assert_eq!(gateway.tap.count("DELETE FROM victims"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_decides_in_time_and_it_is_refused() {
    let rules = holdpoint_tests::RULES.replace(
        "reviewers = [\"group:reviewers\"]",
        "reviewers = [\"group:reviewers\"], expires_in = \"1s\"",
    );
    let Some(gateway) = gateway_with(Settings {
        rules,
        ..Settings::default()
    })
    .await
    else {
        return;
    };
    let began = Instant::now();
    let done = gateway.psql().run("DROP TABLE victims");
    assert!(done.stderr.contains("HP-EXPIRED"), "{}", done.stderr);
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    assert!(!gateway.tap.saw("DROP TABLE"));
}

#[tokio::test(flavor = "multi_thread")]
async fn identical_commands_join_one_approval_and_one_of_them_runs() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let token = gateway.agent("ada");
    let sql = "DELETE FROM victims WHERE id = 1";
    let mut running: Vec<_> = (0..3)
        .map(|_| gateway.psql_as(&token).start(&[sql]))
        .collect();
    let rita = gateway.reviewer("rita");
    let view = rita.pending(sql).await;
    let id = view["id"].as_str().unwrap().to_owned();
    for psql in &running {
        psql.wait_for_stderr(&id, 10);
    }
    assert_eq!(rita.approve(&view).await.0, StatusCode::OK);
    // Exactly one goes through on this approval.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(gateway.tap.count(sql), 1);
    for psql in &mut running {
        if psql.is_running() {
            psql.signal("KILL");
        }
    }
    running.into_iter().for_each(|psql| drop(psql.wait()));
    assert_eq!(gateway.tap.count(sql), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_transaction_a_shorter_limit_applies_and_reviewers_see_it() {
    let hold = "max_hold_in_transaction = \"1s\"\nheartbeat = \"500ms\"\n".to_owned();
    let Some(gateway) = gateway_with(Settings {
        hold,
        ..Settings::default()
    })
    .await
    else {
        return;
    };
    let began = Instant::now();
    let psql = gateway
        .psql()
        .start(&["BEGIN", "DELETE FROM victims", "SELECT 5"]);
    let view = gateway
        .reviewer("rita")
        .pending("DELETE FROM victims")
        .await;
    assert_eq!(view["shown"]["in_transaction"], true);
    let done = psql.wait();
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "{:?}",
        began.elapsed()
    );
    assert!(
        !done.stdout.contains('5'),
        "the transaction is over: {}{}",
        done.stdout,
        done.stderr
    );
    assert!(!gateway.tap.saw("DELETE"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_rule_denies_names_the_rule_and_never_leaves() {
    let rules = format!(
        "[[rule]]\nname = \"no-ddl\"\nmatch = {{ classes = [\"ddl\"] }}\ndeny = \"use migrations\"\n{}",
        holdpoint_tests::RULES
    );
    let Some(gateway) = gateway_with(Settings {
        rules,
        ..Settings::default()
    })
    .await
    else {
        return;
    };
    let done = gateway.psql().run("CREATE TABLE t (id int)");
    for fact in ["no-ddl", "use migrations", "HP-DENIED"] {
        assert!(
            done.stderr.contains(fact),
            "no {fact:?} in: {}",
            done.stderr
        );
    }
    assert!(!gateway.tap.saw("CREATE TABLE"));
}

#[tokio::test(flavor = "multi_thread")]
async fn bind_values_are_shown_to_the_reviewer_and_forwarded_once() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let client = gateway.tokio_postgres(&gateway.agent("ada")).await;
    let rita = gateway.reviewer("rita");
    let run = tokio::spawn(async move {
        client
            .execute("DELETE FROM victims WHERE id = $1", &[&2i32])
            .await
    });
    let view = rita.pending("DELETE FROM victims WHERE id = $1").await;
    assert!(
        view["shown"]["parameters"].to_string().contains('2'),
        "{view}"
    );
    assert_eq!(rita.approve(&view).await.0, StatusCode::OK);
    assert_eq!(run.await.unwrap().unwrap(), 1);
    assert_eq!(gateway.database.value("SELECT count(*) FROM victims"), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_sees_a_denial_as_a_server_error_and_goes_on() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let client = gateway.tokio_postgres(&gateway.agent("ada")).await;
    let rita = gateway.reviewer("rita");
    let denial = async {
        let view = rita.pending("DELETE FROM victims").await;
        rita.deny(&view, "no").await;
    };
    let (result, ()) = tokio::join!(client.execute("DELETE FROM victims", &[]), denial);
    let error = result.unwrap_err();
    assert_eq!(
        error.code().map(|code| code.code()),
        Some("42501"),
        "{error:?}"
    );
    let row = client
        .query_one("SELECT 1 + $1::int4", &[&1i32])
        .await
        .unwrap();
    assert_eq!(row.get::<_, i32>(0), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn python_drivers_read_and_wait() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let Some(python) = need!(
        holdpoint_tests::needs::python_drivers(),
        "psycopg and asyncpg"
    ) else {
        return;
    };
    let token = gateway.agent("ada");
    let rita = gateway.reviewer("rita");
    for driver in ["psycopg", "asyncpg"] {
        let sql = format!("UPDATE invoices SET customer = '{driver}' WHERE id = 1");
        let child = std::process::Command::new(&python)
            .arg(holdpoint_tests::needs::workspace().join("tests/drivers/session.py"))
            .args([driver, &sql])
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", gateway.address.port().to_string())
            .env("PGPASSWORD", &token)
            .env("HOLDPOINT_CA", gateway.dir.join("ca.pem"))
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let view = rita.pending(&sql).await;
        assert_eq!(rita.approve(&view).await.0, StatusCode::OK);
        let done = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap())
            .await
            .unwrap();
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(
            done.status.success(),
            "{driver}: {said}{}",
            String::from_utf8_lossy(&done.stderr)
        );
        assert!(
            said.contains("rows 3") && said.contains("updated 1"),
            "{driver}: {said}"
        );
        assert!(
            said.contains(view["id"].as_str().unwrap()),
            "{driver} shows the notice: {said}"
        );
        assert_eq!(
            gateway
                .database
                .value("SELECT customer FROM invoices WHERE id = 1"),
            driver
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_out_streams_and_copy_in_is_held_with_its_data_recorded() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let out = gateway
        .psql()
        .run("COPY (SELECT customer FROM invoices ORDER BY id) TO STDOUT");
    assert_eq!(out.stdout, "ada\nbob\ncyd\n", "{}", out.stderr);
    let file = gateway.dir.write("rows.txt", "7\n8\n");
    let psql = gateway
        .psql()
        .start(&[&format!("\\copy victims FROM '{}'", file.display())]);
    let rita = gateway.reviewer("rita");
    let view = rita.pending("COPY").await;
    assert_eq!(rita.approve(&view).await.0, StatusCode::OK);
    let done = psql.wait();
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert_eq!(gateway.database.value("SELECT count(*) FROM victims"), "4");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_result_arrives_whole() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let sql = "SELECT repeat('x', 1000) FROM generate_series(1, 20000)";
    let done = gateway.psql().run(sql);
    assert_eq!(done.stdout.len(), 20000 * 1001, "{}", done.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_command_is_cancelled_at_the_target() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let rules = "[[rule]]\nname = \"all\"\nmatch = { classes = [\"read\", \"function_effect\"] }\nallow = true\n";
    gateway.rewrite("rules.toml", rules);
    gateway.signal("HUP");
    eventually("the new rules", 10, || {
        gateway.log().contains("in force").then_some(())
    });
    let psql = gateway
        .psql()
        .start(&["SELECT count(*) FROM generate_series(1, 10000000000)"]);
    eventually("the query", 10, || {
        gateway.tap.saw("generate_series").then_some(())
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let began = Instant::now();
    psql.signal("INT");
    let done = psql.wait();
    assert!(began.elapsed() < Duration::from_secs(10));
    assert!(done.stderr.contains("cancel"), "{}", done.stderr);
}
