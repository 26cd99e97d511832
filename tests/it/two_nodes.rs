//! Two gateways that share a Redis, as processes of their own.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use holdpoint_tests::{
    Database, Gateway, PgServer, RedisServer, Settings, TestDir, eventually, gateway, need,
};
use hyper::Method;

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
    let settings = Settings {
        node: name.to_owned(),
        more: format!(
            "[store.redis]\nurl = \"{}\"\ncluster_secret = \"file:cluster-secret\"\nvote_wait = \"1s\"\n",
            redis.url()
        ),
        ..Settings::default()
    };
    let gateway = Gateway::prepare(database, settings).await;
    gateway.rewrite("cluster-secret", SECRET);
    gateway.keep_secret(SECRET);
    gateway.spawn();
    gateway.wait_ready().await;
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
    // What is no vote is taken by the owner alone, and whoever asks elsewhere is told where.
    let path = format!("/v1/approvals/{}/break-glass", view["id"].as_str().unwrap());
    let body = serde_json::json!({ "digest": view["digest"], "reason": "an emergency" });
    let (status, said) = reviewer.call(Method::POST, &path, Some(body)).await;
    assert_eq!(status.as_u16(), 404, "{said}");
    assert!(said["hint"].as_str().unwrap().contains("`a`"), "{said}");
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
