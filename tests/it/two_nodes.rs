//! Two gateways that share a Redis, as processes of their own.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use holdpoint_tests::gateway::own_issuer;
use holdpoint_tests::wire::{query, read_all};
use holdpoint_tests::{
    Database, Gateway, PgServer, RedisServer, Reviewer, Settings, TestDir, eventually, gateway,
    need,
};
use hyper::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

const SECRET: &str = "what all nodes share, and is long enough to share";

#[test]
fn the_demo_of_two_nodes_plays_itself_and_leaves_two_journals_that_verify() {
    let Some(()) = need!(gateway::possible().then_some(()), "postgresql") else {
        return;
    };
    let Some(_) = need!(
        holdpoint_tests::needs::program("redis-server"),
        "redis-server"
    ) else {
        return;
    };
    let dir = TestDir::passable("demo");
    let place = dir.join("kept");
    let done = Command::new(gateway::binary())
        .args(["demo", "--auto", "--nodes", "2", "--dir"])
        .arg(&place)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
    assert!(done.status.success(), "{said}");
    assert!(said.contains("held by node demo-1"), "{said}");
    for journal in ["journal", "journal-2"] {
        let verified = Command::new(gateway::binary())
            .arg("verify")
            .arg(place.join(journal))
            .output()
            .unwrap();
        assert!(verified.status.success(), "{journal}");
    }
    for secret in ["redis-password", "cluster-secret"] {
        let secret = fs::read_to_string(place.join(secret)).unwrap();
        for file in ["gateway.log", "gateway-2.log"] {
            assert!(
                !fs::read_to_string(place.join(file))
                    .unwrap()
                    .contains(&secret),
                "{file}"
            );
        }
        for journal in ["journal", "journal-2"] {
            assert!(!mentions(&place.join(journal), &secret), "{journal}");
        }
    }
}

fn mentions(folder: &Path, text: &str) -> bool {
    let files = fs::read_dir(folder).unwrap().flatten();
    files.filter(|file| file.path().is_file()).any(|file| {
        let bytes = fs::read(file.path()).unwrap();
        bytes
            .windows(text.len())
            .any(|window| window == text.as_bytes())
    })
}

async fn node(name: &str, database: &Database, redis: &RedisServer) -> Gateway {
    node_with(name, database, redis, Settings::default()).await
}

pub(crate) async fn node_with(
    name: &str,
    database: &Database,
    redis: &RedisServer,
    settings: Settings,
) -> Gateway {
    let gateway = prepared(name, database, redis, settings).await;
    gateway.spawn();
    gateway.wait_ready().await;
    gateway
}

/// One that is not started yet.
pub(crate) async fn prepared(
    name: &str,
    database: &Database,
    redis: &RedisServer,
    settings: Settings,
) -> Gateway {
    let settings = Settings {
        node: name.to_owned(),
        more: format!(
            "{}[store.redis]\nurl = \"{}\"\ncluster_secret = \"file:cluster-secret\"\nvote_wait = \"1s\"\n",
            settings.more,
            redis.url()
        ),
        ..settings
    };
    let gateway = Gateway::prepare(database, settings).await;
    gateway.rewrite("cluster-secret", SECRET);
    gateway.keep_secret(SECRET);
    gateway
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vote_is_submitted_until_its_owner_answers_and_then_the_command_runs_once() {
    let Some(server) = need!(PgServer::shared(), "postgresql") else {
        return;
    };
    let Some(mut redis) = need!(RedisServer::start(), "redis-server") else {
        return;
    };
    let database = server.database();
    let (a, b) = (
        node("a", &database, &redis).await,
        node("b", &database, &redis).await,
    );
    let reviewer = b.reviewer("rita");

    let psql = a.psql();
    let agent = tokio::task::spawn_blocking(move || psql.run("DROP TABLE victims"));
    let view = reviewer.pending("DROP TABLE victims").await;
    assert_eq!(view["node"], "a");
    // Its rule lets nobody break the glass, says the owner.
    let path = format!("/v1/approvals/{}/break-glass", view["id"].as_str().unwrap());
    let body = serde_json::json!({ "digest": view["digest"], "reason": "an emergency" });
    let (status, said) = reviewer.call(Method::POST, &path, Some(body)).await;
    assert_eq!(
        (status.as_u16(), &said["code"]),
        (403, &json!("HP-NOT-ELIGIBLE")),
        "{said}"
    );
    // The owner cannot answer now; so nothing is final.
    a.signal("STOP");
    let (status, said) = reviewer.approve(&view).await;
    assert_eq!(
        (status.as_u16(), &said["outcome"], &said["node"]),
        (202, &"submitted".into(), &"a".into()),
        "{said}"
    );
    assert!(database.has_table("victims"));
    a.signal("CONT");
    agent.await.unwrap().unwrap_done();
    assert!(!database.has_table("victims"));
    let id = view["id"].as_str().unwrap();
    for _ in 0..200 {
        if reviewer.show(id).await["state"] == "used" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(reviewer.show(id).await["state"], "used");

    // Without the store a node shows and decides its own.
    let (_, metrics) = reviewer.call(Method::GET, "/metrics", None).await;
    assert!(
        metrics.as_str().unwrap().contains("holdpoint_store_up 1"),
        "{metrics}"
    );
    redis.kill();
    eventually("the log to say so", 20, || {
        b.log().contains("the store is lost").then_some(())
    });
    let mut ready = reviewer.call(Method::GET, "/readyz", None).await;
    for _ in 0..200 {
        if ready.1 != "ready\n" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        ready = reviewer.call(Method::GET, "/readyz", None).await;
    }
    assert_eq!(ready.0.as_u16(), 200);
    assert_eq!(ready.1, "ready, without the other nodes\n");
    let psql = b.psql();
    let agent = tokio::task::spawn_blocking(move || psql.run("DROP TABLE invoices"));
    let view = reviewer.pending("DROP TABLE invoices").await;
    let (status, said) = reviewer.approve(&view).await;
    assert_eq!(
        (status.as_u16(), &said["state"]),
        (200, &"approved".into()),
        "{said}"
    );
    agent.await.unwrap().unwrap_done();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_cannot_be_used_stops_check_and_start_with_a_way_to_mend_it() {
    let Some(server) = need!(PgServer::shared(), "postgresql") else {
        return;
    };
    let settings = ["--maxmemory", "10mb", "--maxmemory-policy", "allkeys-lru"];
    let Some(redis) = need!(RedisServer::with(&settings), "redis-server") else {
        return;
    };
    let database = server.database();
    let more = format!(
        "[store.redis]\nurl = \"{}\"\ncluster_secret = \"file:cluster-secret\"\n",
        redis.url()
    );
    let settings = Settings {
        node: "a".to_owned(),
        more,
        ..Settings::default()
    };
    let gateway = Gateway::prepare(&database, settings).await;
    gateway.rewrite("cluster-secret", SECRET);
    for command in ["check", "serve"] {
        let done = gateway.holdpoint(&[command, "--config", "holdpoint.toml"]);
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(!done.status.success(), "{said}");
        assert!(said.contains("set `maxmemory-policy noeviction`"), "{said}");
    }
}

/// Entries of this kind in a journal, as `sessions export` has them.
pub(crate) fn entries(gateway: &Gateway, kind: &str) -> Vec<Value> {
    let journal = gateway.journal().display().to_string();
    let done = gateway.holdpoint(&["sessions", "export", &journal]);
    assert!(done.status.success());
    let lines = String::from_utf8_lossy(&done.stdout).into_owned();
    let lines = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines
        .filter_map(|line| line["entry"].get(kind).cloned())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ends_somebodys_access_at_one_node_ends_it_at_all() {
    let Some(server) = need!(PgServer::shared(), "postgresql") else {
        return;
    };
    let Some(redis) = need!(RedisServer::start(), "redis-server") else {
        return;
    };
    let database = server.database();
    // All know the same people.
    let a = node("a", &database, &redis).await;
    let same = || Settings {
        known: Some(own_issuer(&a.issuer)),
        ..Settings::default()
    };
    let b = node_with("b", &database, &redis, same()).await;
    let token = a.issuer.reviewer("rita", &["reviewers"]);
    b.keep_secret(&token);
    let rita = Reviewer::new(b.admin, token);
    let sessions = async || {
        let (status, listed) = rita.call(Method::GET, "/v1/sessions", None).await;
        assert_eq!(status, 200, "{listed}");
        listed["sessions"].as_array().unwrap().clone()
    };
    // Each sees the other within moments.
    let mut bob = a.wire(&a.agent("bob")).await;
    let mut seen = Vec::new();
    for _ in 0..200 {
        seen = sessions().await;
        if !seen.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!((seen.len(), &seen[0]["node"]), (1, &json!("a")), "{seen:?}");
    let path = format!("/v1/sessions/{}/kill", seen[0]["id"].as_str().unwrap());
    let (status, killed) = rita.call(Method::POST, &path, None).await;
    assert_eq!(
        (status.as_u16(), &killed["node"]),
        (200, &json!("a")),
        "{killed}"
    );
    let soon = Duration::from_secs(3);
    let ended = tokio::time::timeout(soon, read_all(&mut bob))
        .await
        .unwrap();
    assert_eq!(ended.0, "E", "{}", ended.1);
    let (status, again) = rita.call(Method::POST, &path, None).await;
    assert_eq!(status.as_u16(), 404, "{again}");
    let record = entries(&a, "killed");
    assert_eq!(
        (record.len(), &record[0]["node"]),
        (1, &json!("b")),
        "{record:?}"
    );
    assert_eq!(record[0]["by"]["subject"], "rita");
    // Who was killed may come again.
    let mut bob = a.wire(&a.agent("bob")).await;
    bob.write_all(&query(b"SELECT 1")).await.unwrap();
    assert_eq!(read_all(&mut bob).await.0, "TDCZ");

    let token = a.agent("ada");
    let mut ada = a.wire(&token).await;
    let whom = json!({ "issuer": a.issuer.url(), "subject": "ada" });
    let (status, revoked) = rita.call(Method::POST, "/v1/revoke", Some(whom)).await;
    assert_eq!(
        (status.as_u16(), &revoked["sessions"]),
        (200, &json!(0)),
        "{revoked}"
    );
    let there = &revoked["nodes"][0];
    assert_eq!(
        (&there["node"], &there["done"], &there["sessions"]),
        (&json!("a"), &json!(true), &json!(1)),
        "{revoked}"
    );
    let ended = tokio::time::timeout(soon, read_all(&mut ada))
        .await
        .unwrap();
    assert!(ended.1.contains("HP-REVOKED"), "{}", ended.1);
    let refused = a.psql_as(&token).run("SELECT 1");
    assert!(refused.stderr.contains("HP-REVOKED"), "{}", refused.stderr);
    for (gateway, from) in [(&a, json!("b")), (&b, Value::Null)] {
        let record = entries(gateway, "revoked");
        assert_eq!((record.len(), &record[0]["node"]), (1, &from), "{record:?}");
        assert_eq!(record[0]["by"]["subject"], "rita");
    }
    // A node that was not there learns of it when it comes.
    let c = node_with("c", &database, &redis, same()).await;
    eventually("node c to know", 10, || {
        let list = fs::read_to_string(c.dir.join(".holdpoint/revoked.json"));
        list.is_ok_and(|text| text.contains("ada")).then_some(())
    });
    let record = entries(&c, "revoked");
    assert_eq!(record.len(), 1, "{record:?}");
    assert_eq!(record[0]["by"]["subject"], "rita");
    bob.write_all(&query(b"SELECT 1")).await.unwrap();
    assert_eq!(read_all(&mut bob).await.0, "TDCZ", "others go on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_comes_back_with_another_past_is_found_out_by_the_others() {
    let Some(server) = need!(PgServer::shared(), "postgresql") else {
        return;
    };
    let Some(redis) = need!(RedisServer::start(), "redis-server") else {
        return;
    };
    let database = server.database();
    let (a, b) = (
        node("a", &database, &redis).await,
        node("b", &database, &redis).await,
    );
    let work = |times: usize| {
        for _ in 0..times {
            a.psql().run("SELECT 1").unwrap_done();
        }
    };
    let kept = || {
        let file = fs::read_to_string(b.dir.join(".holdpoint/peers/a.json")).unwrap_or_default();
        let head: Value = serde_json::from_str(&file).unwrap_or_default();
        head["size"].as_u64().unwrap_or_default()
    };
    eventually("the first head", 20, || (kept() > 0).then_some(()));
    // A copy is made, as of a disk; what comes then is seen by the other node and proved to it.
    a.stop();
    let copy = a.dir.join("copy");
    copy_dir(&a.journal(), &copy);
    a.spawn();
    a.wait_ready().await;
    let first = kept();
    work(5);
    eventually("the proof that it grew", 30, || {
        (kept() > first).then_some(())
    });
    assert!(!b.log().contains("rewritten"), "{}", b.log());
    let seen = kept();
    b.stop();
    a.stop();
    // The copy in place of it, and another story from there on, which is longer.
    fs::remove_dir_all(a.journal()).unwrap();
    copy_dir(&copy, &a.journal());
    a.spawn();
    a.wait_ready().await;
    let head = || {
        let head = redis.ask(&["HGET", "hp:{a}:checkpoint", "note"]);
        let head = head.as_str().unwrap_or_default().lines().nth(1);
        head.and_then(|size| size.parse::<u64>().ok())
            .unwrap_or_default()
    };
    for _ in 0..40 {
        work(5);
        if head() > seen {
            break;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    b.spawn();
    b.wait_ready().await;
    eventually("the other node to say so", 30, || {
        b.log().contains("its past was rewritten").then_some(())
    });
    assert_eq!(kept(), seen, "what cannot be proved is not kept");
    let alarms = entries(&b, "alarm");
    assert_eq!(
        (&alarms[0]["what"], &alarms[0]["about"]),
        (&json!("checkpoint"), &json!("a"))
    );
    // Nobody decides for it from here.
    let psql = a.psql();
    let agent = tokio::task::spawn_blocking(move || psql.run("DROP TABLE victims"));
    let rita = b.reviewer("rita");
    let view = rita.pending("DROP TABLE victims").await;
    let (status, said) = rita.approve(&view).await;
    assert_eq!(
        (status.as_u16(), &said["code"]),
        (503, &json!("HP-STORE")),
        "{said}"
    );
    a.reviewer("ruth").deny(&view, "look into it first").await;
    assert_ne!(agent.await.unwrap().code, Some(0));
    // Its journal lacks on purpose what its target saw.
    a.waive("all");
}

fn copy_dir(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(done.unwrap().success());
}
