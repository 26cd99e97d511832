//! What a person or a client does at one node for another: say why, break the glass, look
//! into it, and come back to another node with a grant.

use std::process::{Command, Output};
use std::time::Duration;

use holdpoint_tests::gateway::{binary, own_issuer};
use holdpoint_tests::{Gateway, PgServer, RedisServer, Reviewer, Settings, need};
use hyper::Method;
use serde_json::{Value, json};

use crate::two_nodes::{entries, node_with};

const RULES: &str = r#"
[[rule]]
name = "reads"
match = { classes = ["read", "session", "transaction"], confidence = "proven" }
allow = true

[[rule]]
name = "tables"
match = { classes = ["ddl"] }
hold = { reviewers = ["group:reviewers"], justify = true, break_glass = ["group:sre"] }

[[rule]]
name = "rows"
match = { classes = ["write"] }
hold = { reviewers = ["group:reviewers"], windows = ["10m"] }
"#;

/// Two nodes that know the same people.
async fn two(hold: &str) -> Option<(RedisServer, Gateway, Gateway)> {
    let server = need!(PgServer::shared(), "postgresql")?;
    let redis = need!(RedisServer::start(), "redis-server")?;
    let database = server.database();
    let made = database.direct().run("CREATE TABLE notes (a int)");
    made.unwrap_done();
    let settings = || Settings {
        rules: RULES.to_owned(),
        hold: format!("heartbeat = \"1s\"\n{hold}"),
        ..Settings::default()
    };
    let a = node_with("a", &database, &redis, settings()).await;
    let same = Settings {
        known: Some(own_issuer(&a.issuer)),
        ..settings()
    };
    let b = node_with("b", &database, &redis, same).await;
    Some((redis, a, b))
}

/// Somebody known to both nodes, at `gateway`; and their token.
fn at(gateway: &Gateway, a: &Gateway, subject: &str, group: &str) -> (Reviewer, String) {
    let token = a.issuer.reviewer(subject, &[group]);
    gateway.keep_secret(&token);
    (Reviewer::new(gateway.admin, &token), token)
}

/// `holdpoint ARGS` at `gateway`, as the bearer of `token`.
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_an_emergency_and_its_review_go_through_another_node() {
    let Some((_redis, a, b)) = two("").await else {
        return;
    };
    let (rita, rita_token) = at(&b, &a, "rita", "reviewers");
    let (_, sue) = at(&b, &a, "sue", "sre");
    let ada = a.agent("ada");

    // Why, on the command line at the other node.
    let psql = a.psql_as(&ada).start(&["CREATE TABLE one (a int)"]);
    let view = rita.pending("CREATE TABLE one").await;
    let id = view["id"].as_str().unwrap().to_owned();
    assert_eq!(view["node"], "a");
    let (status, early) = rita.approve(&view).await;
    assert_eq!(
        (status.as_u16(), &early["code"]),
        (409, &json!("HP-NOT-JUSTIFIED"))
    );
    let eve = a.issuer.agent("eve");
    let stranger = run(&b, &eve, &["approvals", "justify", &id, "mine"]);
    assert!(!stranger.status.success());
    ran(&run(&b, &ada, &["approvals", "justify", &id, "release 7"]));
    let again = run(&b, &ada, &["approvals", "justify", &id, "or 8"]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("HP-JUSTIFIED"));
    let (status, done) = rita.approve(&view).await;
    assert_eq!(
        (status.as_u16(), &done["state"]),
        (200, &json!("approved")),
        "{done}"
    );
    psql.wait().unwrap_done();

    // An emergency: by who may, with a reason; another looks into it.
    let psql = a.psql_as(&ada).start(&["CREATE TABLE two (a int)"]);
    let view = rita.pending("CREATE TABLE two").await;
    let id = view["id"].as_str().unwrap().to_owned();
    let glass = [
        "approvals",
        "break-glass",
        &id,
        "--reason",
        "it burns",
        "--yes",
    ];
    let refused = run(&b, &rita_token, &glass);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("HP-NOT-ELIGIBLE"));
    let told = ran(&run(&b, &sue, &glass));
    assert!(told.contains("approved"), "{told}");
    psql.wait().unwrap_done();
    let listed = ran(&run(&b, &rita_token, &["approvals", "reviews"]));
    assert!(
        listed.contains(&id) && listed.contains("at node a"),
        "{listed}"
    );
    let own = run(&b, &sue, &["approvals", "review", &id]);
    assert!(String::from_utf8_lossy(&own.stderr).contains("HP-NOT-ELIGIBLE"));
    ran(&run(
        &b,
        &rita_token,
        &["approvals", "review", &id, "--note", "fine"],
    ));
    let (status, gone) = rita
        .call(Method::POST, &format!("/v1/approvals/{id}/review"), None)
        .await;
    assert_eq!(status.as_u16(), 404, "{gone}");

    // All of it is in the owner's journal, under their names, and none at the other node.
    for (kind, who) in [
        ("justified", "ada"),
        ("break_glass", "sue"),
        ("reviewed", "rita"),
    ] {
        let at_a = entries(&a, kind);
        let refused = |entry: &&Value| entry["refused"].is_null();
        let counted: Vec<_> = at_a.iter().filter(refused).collect();
        assert_eq!(counted.len(), 1, "{kind}: {at_a:?}");
        assert!(counted[0].to_string().contains(who), "{kind}: {at_a:?}");
        assert!(entries(&b, kind).is_empty(), "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_of_one_node_is_used_at_another_once() {
    let Some((_redis, a, b)) =
        two("inline_wait = { agent = \"1s\" }\ndeny_cooldown = \"0s\"\n").await
    else {
        return;
    };
    let (rita, _) = at(&b, &a, "rita", "reviewers");
    let ada = a.agent("ada");
    let sql = "INSERT INTO notes VALUES (1)";
    // Told to ask again, and approved meanwhile at the other node.
    let told = a.psql_as(&ada).run(sql);
    assert!(told.stderr.contains("holdpoint wait"), "{}", told.stderr);
    let view = rita.pending(sql).await;
    assert_eq!(view["node"], "a");
    let (_, done) = rita.approve(&view).await;
    assert_eq!(done["state"], "approved", "{done}");

    // The client comes back, to the other node.
    let back = b.psql_as(&ada).run(sql);
    back.unwrap_done();
    let rows = || database_rows(&b);
    assert_eq!(rows(), "1");
    // What this node sees of it comes through the store.
    let id = view["id"].as_str().unwrap();
    let mut state = rita.show(id).await["state"].clone();
    for _ in 0..100 {
        if state == "used" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        state = rita.show(id).await["state"].clone();
    }
    assert_eq!(state, "used");
    let given = entries(&a, "given");
    assert_eq!(
        (given.len(), &given[0]["word"]["to"]),
        (1, &json!("b")),
        "{given:?}"
    );
    let taken = entries(&b, "taken");
    assert_eq!(
        (taken.len(), &taken[0]["from"]),
        (1, &json!("a")),
        "{taken:?}"
    );

    // Once: the next one asks anew, at either.
    for gateway in [&a, &b] {
        let again = gateway.psql_as(&ada).run(sql);
        assert!(again.stderr.contains("holdpoint wait"), "{}", again.stderr);
    }
    assert_eq!(rows(), "1");

    // Each journal verifies by itself, and the second says whose votes it stands on.
    for gateway in [&a, &b] {
        let report = gateway.verified();
        assert_eq!(report["ok"], true, "{report}");
    }
    let report = b.verified();
    let key = a.read("journal/journal.pub");
    assert_eq!(
        (
            report["taken_count"].as_u64(),
            report["taken"][0]["key"].as_str()
        ),
        (Some(1), Some(key.trim())),
        "{report}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_of_one_node_is_used_at_another_until_it_is_ended() {
    let Some((_redis, a, b)) = two("inline_wait = { agent = \"1s\" }\n").await else {
        return;
    };
    let (rita, token) = at(&b, &a, "rita", "reviewers");
    let ada = a.agent("ada");
    let sql = "INSERT INTO notes VALUES (1)";
    let psql = a.psql_as(&ada).start(&[sql]);
    let view = rita.pending(sql).await;
    let id = view["id"].as_str().unwrap();
    let body = json!({ "decision": "approve", "digest": view["digest"], "window": "10m" });
    let path = format!("/v1/approvals/{id}/decision");
    let (status, done) = rita.call(Method::POST, &path, Some(body)).await;
    assert_eq!(status.as_u16(), 200, "{done}");
    psql.wait().unwrap_done();
    // What this node sees of it comes through the store.
    for _ in 0..100 {
        if rita.show(id).await["window_until"].is_string() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for gateway in [&b, &a, &b] {
        gateway.psql_as(&ada).run(sql).unwrap_done();
    }
    assert_eq!(database_rows(&b), "4");
    // All uses are told at any node, and counted where it was opened.
    let (_, listed) = rita.call(Method::GET, "/v1/windows", None).await;
    let window = &listed["windows"][0];
    assert_eq!(
        (&window["id"], &window["uses"]),
        (&json!(id), &json!(3)),
        "{listed}"
    );
    assert_eq!(window["node"], "a", "{listed}");
    let given: Vec<_> = entries(&a, "given")
        .iter()
        .map(|given| given["word"]["window"].clone())
        .collect();
    assert_eq!(given, [json!(1), json!(3)]);
    let taken = entries(&b, "taken");
    assert_eq!(taken.len(), 2, "{taken:?}");
    assert!(entries(&b, "hold").is_empty(), "nobody was asked there");

    // Ended through the other node, it is over at both.
    ran(&run(&b, &token, &["approvals", "revoke-window", id]));
    for gateway in [&b, &a] {
        let told = gateway.psql_as(&ada).run(sql);
        assert!(told.stderr.contains("holdpoint wait"), "{}", told.stderr);
    }
    assert_eq!(database_rows(&b), "4");
    for gateway in [&a, &b] {
        gateway.stop();
        let report = gateway.verified();
        assert_eq!(report["ok"], true, "{report}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_is_pending_and_sent_again_at_another_node_is_asked_once() {
    let Some((_redis, a, b)) = two("inline_wait = { agent = \"20s\" }\n").await else {
        return;
    };
    let (rita, _) = at(&b, &a, "rita", "reviewers");
    let ada = a.agent("ada");
    let sql = "INSERT INTO notes VALUES (1)";
    let first = a.psql_as(&ada).start(&[sql]);
    let view = rita.pending(sql).await;
    let id = view["id"].as_str().unwrap();
    let second = b.psql_as(&ada).start(&[sql]);
    let waits = async |count: u64| {
        for _ in 0..200 {
            if rita.show(id).await["waiting"] == json!(count) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{}", rita.show(id).await);
    };
    waits(2).await;
    // The first connection is gone, and nothing is withdrawn: somebody still asks.
    drop(first);
    waits(1).await;
    let (_, listed) = rita.call(Method::GET, "/v1/approvals", None).await;
    let same: Vec<_> = (listed["approvals"].as_array().unwrap().iter())
        .filter(|one| one.to_string().contains(id) || one["state"] == "pending")
        .collect();
    assert_eq!(same.len(), 1, "{listed}");
    let (_, done) = rita.approve(&view).await;
    assert_eq!(done["state"], "approved", "{done}");
    second.wait().unwrap_done();
    assert_eq!(database_rows(&b), "1");
    assert!(entries(&b, "hold").is_empty(), "it opened one of its own");
    let joined = entries(&b, "joined");
    assert_eq!(
        (joined.len(), &joined[0]["node"]),
        (1, &json!("a")),
        "{joined:?}"
    );
    for gateway in [&a, &b] {
        gateway.stop();
        let report = gateway.verified();
        assert_eq!(report["ok"], true, "{report}");
    }
}

fn database_rows(gateway: &Gateway) -> String {
    let done = gateway.database.direct().run("SELECT count(*) FROM notes");
    done.stdout.trim().to_owned()
}
