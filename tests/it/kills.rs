//! The process is killed at random moments of a busy life. Whatever the moment: the
//! journal is whole, nothing ran twice, nothing ran that is not recorded, and of what
//! nobody can know it is said that nobody knows.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use holdpoint_tests::oracle::{Fate, fates};
use holdpoint_tests::random::Seeded;
use holdpoint_tests::wire::{Tls, query, read};
use holdpoint_tests::{Gateway, PgServer, Settings, need};
use tokio::io::AsyncWriteExt as _;

const ROUNDS: u64 = 15;
const CLIENTS: u64 = 4;

const RULES: &str = r#"
[[rule]]
name = "marks"
match = { classes = ["read", "write", "session", "transaction"], confidence = "proven" }
allow = true

[[rule]]
name = "ddl"
match = { classes = ["ddl"] }
hold = { reviewers = ["group:reviewers"] }
"#;

/// What the clients were told.
#[derive(Default)]
struct Told {
    sent: BTreeSet<String>,
    done: BTreeSet<String>,
}

/// Leaves marks until the gateway dies: rows, which are allowed, and every third
/// time a table, which is held.
async fn mark(mut stream: Tls, name: String, told: Arc<Mutex<Told>>) {
    for n in 0.. {
        let mark = format!("mark_{name}_{n}");
        let sql = if n % 3 == 2 {
            format!("CREATE TABLE {mark} ()")
        } else {
            format!("INSERT INTO marks VALUES ('{mark}')")
        };
        told.lock().unwrap().sent.insert(sql.clone());
        if stream.write_all(&query(sql.as_bytes())).await.is_err() {
            return;
        }
        let mut done = false;
        loop {
            match read(&mut stream).await {
                None => return,
                Some((b'C', _)) => done = true,
                Some((b'Z', _)) => break,
                Some(_) => {}
            }
        }
        if done {
            told.lock().unwrap().done.insert(sql);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_moment_runs_nothing_twice_and_nothing_unrecorded() {
    let Some(server) = need!(PgServer::shared(), "postgresql") else {
        return;
    };
    let database = server.database();
    let made = database.direct().run("CREATE TABLE marks (mark text)");
    made.unwrap_done();
    let settings = Settings {
        rules: RULES.to_owned(),
        ..Settings::default()
    };
    let gateway = Gateway::with(&database, settings).await;
    let mut random = Seeded::new("kills");
    let told = Arc::new(Mutex::new(Told::default()));
    let rita = gateway.reviewer("rita");
    for round in 0..ROUNDS {
        let mut tasks = Vec::new();
        for client in 0..CLIENTS {
            let stream = gateway.wire(&gateway.agent("ada")).await;
            let name = format!("{round}_{client}");
            tasks.push(tokio::spawn(mark(stream, name, told.clone())));
        }
        let reviewer = rita.clone();
        tasks.push(tokio::spawn(async move { reviewer.approve_all().await }));
        tokio::time::sleep(Duration::from_micros(random.below(300_000))).await;
        gateway.kill();
        for task in tasks {
            task.await.unwrap();
        }
        // What was sent still runs at the target.
        assert!(gateway.tap.quiet(Duration::from_secs(10)));
        gateway.spawn();
        gateway.wait_ready().await;
        gateway.verified();
    }
    gateway.stop();
    let report = gateway.verified();

    let rows = database.value("SELECT string_agg(mark, ',') FROM marks");
    let tables = database
        .value("SELECT string_agg(relname, ',') FROM pg_class WHERE relname LIKE 'mark\\_%'");
    let rows = rows.split(',').filter(|mark| !mark.is_empty());
    let tables = tables.split(',').filter(|mark| !mark.is_empty());
    let mut ran: Vec<_> = rows
        .map(|mark| format!("INSERT INTO marks VALUES ('{mark}')"))
        .chain(tables.map(|mark| format!("CREATE TABLE {mark} ()")))
        .collect();
    let count = ran.len();
    ran.sort();
    ran.dedup();
    assert_eq!(ran.len(), count, "something ran twice");

    let told = told.lock().unwrap();
    let fates: std::collections::BTreeMap<_, _> = fates(&gateway.journal()).into_iter().collect();
    for sql in &told.sent {
        assert!(gateway.tap.count(sql) <= 1, "sent twice: {sql}");
    }
    for sql in &ran {
        let fate = fates.get(sql);
        assert!(
            matches!(fate, Some(Fate::Done | Fate::Unknown)),
            "ran, and the journal says {fate:?}: {sql}"
        );
    }
    let ran: BTreeSet<_> = ran.into_iter().collect();
    for sql in &told.done {
        assert!(ran.contains(sql), "its client was told that it ran: {sql}");
    }
    let unknown = fates
        .values()
        .filter(|fate| **fate == Fate::Unknown)
        .count();
    assert_eq!(report["unknown_count"], unknown, "alarms");
    let seen = (count, told.done.len(), unknown);
    eprintln!("ran, told, unknown: {seen:?} of {} sent", told.sent.len());
    assert!(told.done.len() > 20, "not busy enough: {seen:?}");
}
