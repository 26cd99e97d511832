//! A protocol plugin that traps, loops or eats memory in the midst of live sessions:
//! it costs that command and that session, and nothing else.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use holdpoint_tests::needs::workspace;
use holdpoint_tests::wire::{message, query, read_all};
use holdpoint_tests::{Gateway, PgServer, Settings, eventually, need};
use tokio::io::AsyncWriteExt as _;

/// The PostgreSQL plugin with faults that a command can name.
static FAULTY: LazyLock<PathBuf> = LazyLock::new(|| {
    // Beside those that the gateway carries: they share what is compiled already.
    let out = workspace().join("target/plugins");
    let built = holdpoint_plugin_build::build(&workspace().join("tests/faulty"), &out);
    built.unwrap().path
});

async fn gateway() -> Option<Gateway> {
    let server = need!(PgServer::shared(), "postgresql")?;
    let faulty = tokio::task::spawn_blocking(|| FAULTY.clone())
        .await
        .unwrap();
    let settings = Settings {
        more: format!("[plugin.postgres]\npath = \"{}\"\n", faulty.display()),
        ..Settings::default()
    };
    Some(Gateway::with(&server.database(), settings).await)
}

/// Sends one command that the plugin fails over, and gives the answer.
async fn fail(gateway: &Gateway, agent: &str, fault: &str) -> String {
    let mut stream = gateway.wire(&gateway.agent(agent)).await;
    let sql = format!("SELECT 'faulty_{fault}'");
    stream.write_all(&query(sql.as_bytes())).await.unwrap();
    let (kinds, text) = tokio::time::timeout(Duration::from_secs(20), read_all(&mut stream))
        .await
        .unwrap();
    assert_eq!(kinds, "E", "{text}");
    text
}

/// Logs in as far as it goes.
async fn login(gateway: &Gateway, agent: &str) -> String {
    let done = gateway.psql_as(&gateway.agent(agent)).run("SELECT 40 + 2");
    done.stdout + &done.stderr
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_costs_that_command_and_that_session_alone() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let mut other = gateway.wire(&gateway.agent("bob")).await;
    let pid = gateway.pid();
    for fault in ["trap", "loop", "eat"] {
        let began = Instant::now();
        let text = fail(&gateway, "ada", fault).await;
        for fact in ["FATAL", "57P01", "HP-PLUGIN"] {
            assert!(text.contains(fact), "{fault}: no {fact} in {text}");
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{fault}");
        other.write_all(&query(b"SELECT 1")).await.unwrap();
        assert_eq!(read_all(&mut other).await.0, "TDCZ", "{fault}: the other");
    }
    // In the extended protocol, behind a command that is well.
    let mut stream = gateway.wire(&gateway.agent("ada")).await;
    let mut pipeline = query(b"SELECT 'well'");
    pipeline.extend(message(b'P', b"\0SELECT 'faulty_trap'\0\0\0"));
    pipeline.extend(message(b'S', b""));
    stream.write_all(&pipeline).await.unwrap();
    let (mut kinds, mut text) = read_all(&mut stream).await;
    if kinds.ends_with('Z') {
        (kinds, text) = read_all(&mut stream).await;
    }
    assert!(kinds.ends_with('E') && text.contains("HP-PLUGIN"), "{text}");

    assert!(!gateway.tap.saw("faulty"), "forwarded unjudged");
    assert_eq!(gateway.pid(), pid);
    assert!(gateway.exited().is_none());
    gateway.stop();
    gateway.verified();
    let journal = gateway.journal().display().to_string();
    let done = gateway.holdpoint(&["sessions", "list", &journal]);
    let listed = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(listed.contains("plugin"), "the reason: {listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_agent_can_shut_itself_out_and_nobody_else() {
    let Some(gateway) = gateway().await else {
        return;
    };
    for _ in 0..5 {
        fail(&gateway, "ada", "trap").await;
    }
    let said = login(&gateway, "ada").await;
    assert!(
        said.contains("HP-PLUGIN") && said.contains("out of service"),
        "{said}"
    );
    assert_eq!(login(&gateway, "bob").await, "42\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_fails_for_many_denies_its_scope_until_a_good_one_is_loaded() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let mut before = gateway.wire(&gateway.agent("bob")).await;
    for agent in ["a", "b", "c", "d", "e"] {
        fail(&gateway, agent, "trap").await;
    }
    let dialled = gateway.tap.conversations().len();
    let said = login(&gateway, "bob").await;
    assert!(
        said.contains("HP-PLUGIN") && said.contains("out of service"),
        "{said}"
    );
    assert_eq!(gateway.tap.conversations().len(), dialled);
    // Whoever is in stays in.
    before.write_all(&query(b"SELECT 1")).await.unwrap();
    assert_eq!(read_all(&mut before).await.0, "TDCZ");

    // Back to the plugin that the gateway carries.
    let config = gateway.read("holdpoint.toml");
    let good: Vec<_> = config
        .lines()
        .filter(|line| !line.starts_with("path = ") && *line != "[plugin.postgres]")
        .collect();
    gateway.rewrite("holdpoint.toml", &good.join("\n"));
    gateway.signal("HUP");
    eventually("the good plugin", 60, || {
        (gateway.log().matches("in force").count() > 1).then_some(())
    });
    assert_eq!(login(&gateway, "bob").await, "42\n");
    assert_eq!(login(&gateway, "a").await, "42\n");
    before.write_all(&query(b"SELECT 2")).await.unwrap();
    assert_eq!(read_all(&mut before).await.0, "TDCZ");
}
