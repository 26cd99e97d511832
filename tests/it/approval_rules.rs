//! The rules of approval for teams, end to end: steps and escalation, the requester's
//! reasons, windows, broken glass.

use std::process::{Command, Output};
use std::time::Duration;

use holdpoint_tests::gateway::binary;
use holdpoint_tests::{Gateway, PgServer, Reviewer, Settings, need};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

const RULES: &str = r#"
[[rule]]
name = "reads"
match = { classes = ["read", "session", "transaction"], confidence = "proven" }
allow = true

[[rule]]
name = "tables"
match = { classes = ["ddl"] }
hold = { justify = true, steps = [
  { reviewers = ["group:reviewers"] },
  { reviewers = ["owner"], escalate = { after = "1s", reviewers = ["group:leads"] } },
] }

[[rule]]
name = "rows"
match = { classes = ["write"] }
hold = { reviewers = ["group:reviewers"], windows = ["session", "10m"] }

[[rule]]
name = "upkeep"
match = { classes = ["maintenance"] }
hold = { reviewers = ["group:reviewers"], break_glass = ["group:sre"] }
"#;

async fn gateway() -> Option<Gateway> {
    let server = need!(PgServer::shared(), "postgresql")?;
    let settings = Settings {
        rules: RULES.to_owned(),
        hold: "heartbeat = \"1s\"\ndeny_cooldown = \"0s\"\n".to_owned(),
        // The target's own key follows it.
        upstream_tls: "\"off\"\nowners = [\"group:owners\"]".to_owned(),
        ..Settings::default()
    };
    let database = server.database();
    let made = database.direct().run("CREATE TABLE notes (a int)");
    made.unwrap_done();
    Some(Gateway::with(&database, settings).await)
}

/// Somebody of one group, and their token.
fn of(gateway: &Gateway, subject: &str, group: &str) -> (Reviewer, String) {
    let token = gateway.issuer.reviewer(subject, &[group]);
    gateway.keep_secret(&token);
    (Reviewer::new(gateway.admin, &token), token)
}

/// `holdpoint ARGS` as the bearer of `token`.
fn run(gateway: &Gateway, token: &str, args: &[&str]) -> Output {
    let server = format!("http://{}", gateway.admin);
    let mut command = Command::new(binary());
    command.args(args).args(["--server", &server]);
    command.env("HOLDPOINT_TOKEN", token);
    command.current_dir(gateway.dir.path()).output().unwrap()
}

#[track_caller]
fn ran(done: &Output) -> String {
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}{errors}");
    said
}

async fn vote(by: &Reviewer, view: &Value, window: Option<&str>) -> (StatusCode, Value) {
    let path = format!("/v1/approvals/{}/decision", view["id"].as_str().unwrap());
    let body = json!({ "decision": "approve", "digest": view["digest"], "window": window });
    by.call(Method::POST, &path, Some(body)).await
}

fn rows(gateway: &Gateway) -> String {
    let done = gateway.psql().run("SELECT count(*) FROM notes");
    done.stdout.trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_waits_for_its_reason_and_for_each_step() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let rita = gateway.reviewer("rita");
    let psql = gateway.psql().start(&["CREATE TABLE stepped (a int)"]);
    let view = rita.pending("CREATE TABLE stepped").await;
    let id = view["id"].as_str().unwrap();
    let (status, early) = vote(&rita, &view, None).await;
    assert_eq!(status, StatusCode::CONFLICT, "{early}");
    assert_eq!(early["code"], "HP-NOT-JUSTIFIED");
    let named = format!("holdpoint approvals justify {id}");
    psql.wait_for_stderr(&named, 10);

    let other = gateway.issuer.agent("eve");
    let stranger = run(&gateway, &other, &["approvals", "justify", id, "mine"]);
    assert!(!stranger.status.success());
    let token = gateway.agent("ada");
    ran(&run(
        &gateway,
        &token,
        &["approvals", "justify", id, "release 7 needs it"],
    ));
    let view = rita.show(id).await;
    assert_eq!(view["justification"], "release 7 needs it");
    let (status, done) = vote(&rita, &view, None).await;
    assert_eq!(
        (status, &done["outcome"]),
        (StatusCode::OK, &json!("advanced"))
    );
    let (status, again) = vote(&rita, &view, None).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{again}");

    let (lea, lead) = of(&gateway, "lea", "leads");
    let (status, early) = vote(&lea, &view, None).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{early}");
    for _ in 0..200 {
        if rita.show(id).await["steps"][1]["escalation"]["done"] == true {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let shown = ran(&run(&gateway, &lead, &["approvals", "show", id]));
    for part in [
        "release 7 needs it",
        "step 2",
        "group owners",
        "group leads",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let (status, done) = vote(&lea, &view, None).await;
    assert_eq!(status, StatusCode::OK, "{done}");
    psql.wait().unwrap_done();
    gateway.stop();
    gateway.verified();
    let told: Vec<_> = gateway.receiver.log().receipts();
    let told: Vec<_> = told
        .iter()
        .map(|receipt| receipt.body["type"].clone())
        .collect();
    for kind in ["approval.justified", "approval.step", "approval.escalated"] {
        assert!(told.contains(&json!(kind)), "{kind}: {told:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_lets_the_identical_command_pass_until_it_ends() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let rita = gateway.reviewer("rita");
    let insert = "INSERT INTO notes VALUES (1)";
    let psql = gateway.psql().start(&[insert, insert, insert]);
    let view = rita.pending(insert).await;
    let (status, done) = vote(&rita, &view, Some("session")).await;
    assert_eq!(status, StatusCode::OK, "{done}");
    psql.wait().unwrap_done();
    assert_eq!(rows(&gateway), "3");

    // The session is over, and with it the window.
    let psql = gateway.psql().start(&[insert]);
    let view = rita.pending(insert).await;
    let (status, done) = vote(&rita, &view, Some("10m")).await;
    assert_eq!(status, StatusCode::OK, "{done}");
    psql.wait().unwrap_done();
    for _ in 0..2 {
        gateway.psql().run(insert).unwrap_done();
    }
    assert_eq!(rows(&gateway), "6");
    // Another command is another command.
    let other = "INSERT INTO notes VALUES (2)";
    let psql = gateway.psql().start(&[other]);
    let pending = rita.pending(other).await;
    rita.deny(&pending, "no").await;
    assert_ne!(psql.wait().code, Some(0));

    let (_, listed) = rita.call(Method::GET, "/v1/windows", None).await;
    assert_eq!(
        listed["windows"].as_array().map(Vec::len),
        Some(1),
        "{listed}"
    );
    assert_eq!(listed["windows"][0]["uses"], 2);
    let id = view["id"].as_str().unwrap();
    let (_, token) = of(&gateway, "sam", "reviewers");
    let shown = ran(&run(&gateway, &token, &["approvals", "windows"]));
    assert!(shown.contains(id) && shown.contains(insert), "{shown}");
    ran(&run(&gateway, &token, &["approvals", "revoke-window", id]));
    let psql = gateway.psql().start(&[insert]);
    let view = rita.pending(insert).await;
    rita.deny(&view, "enough").await;
    assert_ne!(psql.wait().code, Some(0));
    assert_eq!(rows(&gateway), "6");
    gateway.stop();
    gateway.verified();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_glass_lets_it_go_and_is_reviewed_even_after_a_restart() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let rita = gateway.reviewer("rita");
    let psql = gateway.psql().start(&["ANALYZE notes"]);
    let view = rita.pending("ANALYZE notes").await;
    let id = view["id"].as_str().unwrap();
    let attempt = |token: &str| {
        let args = [
            "approvals",
            "break-glass",
            id,
            "--reason",
            "it burns",
            "--yes",
        ];
        run(&gateway, token, &args)
    };
    let (_, reviewer) = of(&gateway, "tom", "reviewers");
    assert!(!attempt(&reviewer).status.success(), "not of that group");
    let (_, chief) = of(&gateway, "cleo", "sre");
    ran(&attempt(&chief));
    psql.wait().unwrap_done();
    let alarms = |gateway: &Gateway| {
        let receipts = gateway.receiver.log().receipts();
        let kind = json!("approval.break_glass");
        receipts
            .iter()
            .filter(|one| one.body["type"] == kind)
            .count()
    };
    for _ in 0..100 {
        if alarms(&gateway) > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(alarms(&gateway), 1);

    gateway.stop();
    gateway.spawn();
    gateway.wait_ready().await;
    let shown = ran(&run(&gateway, &reviewer, &["approvals", "reviews"]));
    for part in [id, "it burns", "cleo", "ANALYZE notes"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(
        !run(&gateway, &chief, &["approvals", "review", id])
            .status
            .success()
    );
    ran(&run(
        &gateway,
        &reviewer,
        &["approvals", "review", id, "--note", "it did burn"],
    ));
    let again = run(&gateway, &reviewer, &["approvals", "review", id]);
    assert!(!again.status.success());
    let (_, open) = rita.call(Method::GET, "/v1/reviews", None).await;
    assert_eq!(open["reviews"], json!([]));
    gateway.stop();
    gateway.verified();
}
