//! Real drivers through the gateway: each does the same day's work and says the same lines.
//!
//! The programs are in `tests/drivers`. One reads, prepares, commits and rolls back, meets an
//! error, fetches much, waits for a reviewer, is denied, goes on, and exchanges binary values.

use std::process::{Command, Stdio};

use holdpoint_tests::needs::{self, workspace};
use holdpoint_tests::{Gateway, PgServer, Settings, need};
use hyper::{Method, StatusCode};

/// Writes to `scratch` pass, to `invoices` are held, to `victims` are denied.
const RULES: &str = r#"
[[rule]]
name = "reads"
match = { classes = ["read", "session", "transaction", "copy_out"], confidence = "proven" }
allow = true

[[rule]]
name = "scratch"
match = { classes = ["write"], objects = ["scratch"], confidence = "proven" }
allow = true

[[rule]]
name = "victims"
match = { objects = ["victims"], access = ["write"] }
deny = "not here"

[[rule]]
name = "changes"
match = { objects = ["invoices"], access = ["write"] }
hold = { reviewers = ["group:reviewers"], reason = "it changes something" }
"#;

/// What each program says.
const SAID: &str = "\
rows 3
prepared 12 15
scratch 1
error 22012
large 5000000
held 1
denied 42501
denied inside 42501
given up 1
usable 7
binary 00ff7f 9007199254740993
";

/// 10 before the held command, 15 once it has run once.
const AMOUNT: &str = "SELECT amount FROM invoices WHERE id = 1";

async fn gateway() -> Option<Gateway> {
    let server = need!(PgServer::shared(), "postgresql")?;
    let settings = Settings {
        rules: RULES.to_owned(),
        ..Settings::default()
    };
    let database = server.database();
    database
        .direct()
        .run("CREATE TABLE scratch (n int)")
        .unwrap_done();
    Some(Gateway::with(&database, settings).await)
}

/// Runs a program to its end, approves the one command that is held, and gives its lines.
pub(crate) async fn day(
    gateway: &Gateway,
    driver: &str,
    mut command: Command,
    holds: bool,
) -> String {
    let token = gateway.agent("ada");
    let child = command
        .env("PGHOST", "127.0.0.1")
        .env("PGPORT", gateway.address.port().to_string())
        .env("PGUSER", "agent")
        .env("PGDATABASE", "shop")
        .env("PGPASSWORD", &token)
        .env("PGSSLMODE", "verify-full")
        .env("PGSSLROOTCERT", gateway.dir.join("ca.pem"))
        .env("HOLDPOINT_CA", gateway.dir.join("ca.pem"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let end = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
    let rita = gateway.reviewer("rita");
    let mut held = 0;
    while !end.is_finished() {
        let (_, list) = rita
            .call(Method::GET, "/v1/approvals?state=pending", None)
            .await;
        for view in list["approvals"].as_array().into_iter().flatten() {
            held += 1;
            let text = view["shown"]["text"].as_str().unwrap();
            assert!(
                holds && text.contains("UPDATE invoices"),
                "{driver}: held {text:?}"
            );
            // Drivers prepare first, which runs nothing.
            assert_eq!(gateway.database.value(AMOUNT), "10", "{driver}");
            assert_eq!(rita.approve(view).await.0, StatusCode::OK);
        }
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
    }
    let done = end.await.unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{driver}: {said}{errors}");
    assert_eq!(held, u32::from(holds), "{driver}: {said}{errors}");
    said
}

/// All of it, and that what was approved ran once.
async fn works(driver: &str, command: Command) {
    let Some(gateway) = gateway().await else {
        return;
    };
    let said = day(&gateway, driver, command, true).await;
    assert_eq!(said, SAID, "{driver}");
    assert_eq!(gateway.database.value(AMOUNT), "15", "{driver}");
    assert_eq!(
        gateway.database.value("SELECT count(*) FROM victims"),
        "2",
        "{driver}"
    );
}

/// A program of `tests/drivers`.
pub(crate) fn python(program: &str, session: &str) -> Option<Command> {
    let python = need!(needs::python_drivers(), "the Python drivers")?;
    let mut command = Command::new(python);
    command
        .arg(workspace().join("tests/drivers").join(program))
        .arg(session);
    Some(command)
}

/// A program of `tests/drivers/node`.
pub(crate) fn node(program: &str) -> Option<Command> {
    let (node, modules) = need!(needs::node_drivers(), "the Node drivers")?;
    let mut command = Command::new(node);
    command
        .arg(workspace().join("tests/drivers/node").join(program))
        .arg(modules);
    Some(command)
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_works() {
    let Some(program) = need!(needs::postgres_program("psql"), "psql") else {
        return;
    };
    let mut command = Command::new(program);
    command.args(["-X", "-A", "-t", "-q", "-f"]);
    command.arg(workspace().join("tests/drivers/matrix.sql"));
    works("psql", command).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn psycopg_works() {
    if let Some(command) = python("matrix.py", "psycopg") {
        works("psycopg", command).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn psycopg_works_in_libpqs_pipeline_mode() {
    if let Some(command) = python("matrix.py", "pipeline") {
        works("pipeline", command).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn asyncpg_works() {
    if let Some(command) = python("matrix.py", "asyncpg") {
        works("asyncpg", command).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn node_postgres_works() {
    if let Some(command) = node("matrix.mjs") {
        works("node-postgres", command).await;
    }
}

/// Only where a JDK is already there: it is too large to be installed for this.
#[tokio::test(flavor = "multi_thread")]
async fn pgjdbc_works() {
    let jar = std::path::Path::new("/usr/share/java/postgresql.jar");
    let (Some(java), Some(_), true) = (
        needs::program("java"),
        needs::program("javac"),
        jar.is_file(),
    ) else {
        eprintln!("skipped: there is no JDK, or no libpostgresql-jdbc-java");
        return;
    };
    let mut command = Command::new(java);
    command.args(["-Xshare:auto", "-XX:TieredStopAtLevel=1", "-cp"]);
    command
        .arg(jar)
        .arg(workspace().join("tests/drivers/Matrix.java"));
    works("pgjdbc", command).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokio_postgres_works() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let mut client = gateway.tokio_postgres(&gateway.agent("ada")).await;
    let rows = client.simple_query("SELECT id FROM invoices").await;
    assert_eq!(rows.unwrap().len(), 5, "a description, three rows, an end");
    let add = client.prepare("SELECT $1::int + 10").await.unwrap();
    for (value, sum) in [(2, 12), (5, 15)] {
        let row = client.query_one(&add, &[&value]).await.unwrap();
        assert_eq!(row.get::<_, i32>(0), sum);
    }
    let insert = "INSERT INTO scratch VALUES ($1)";
    let transaction = client.transaction().await.unwrap();
    transaction.execute(insert, &[&1i32]).await.unwrap();
    transaction.commit().await.unwrap();
    let transaction = client.transaction().await.unwrap();
    transaction.execute(insert, &[&2i32]).await.unwrap();
    transaction.rollback().await.unwrap();
    let row = client.query_one("SELECT count(*) FROM scratch", &[]).await;
    assert_eq!(row.unwrap().get::<_, i64>(0), 1);
    let transaction = client.transaction().await.unwrap();
    let error = transaction.query("SELECT 1 / 0", &[]).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "22012");
    drop(transaction);
    let large = "SELECT repeat('x', 1000) FROM generate_series(1, 5000)";
    let rows = client.query(large, &[]).await.unwrap();
    let sum: usize = rows.iter().map(|row| row.get::<_, &str>(0).len()).sum();
    assert_eq!(sum, 5_000_000);

    let rita = gateway.reviewer("rita");
    let approval = async {
        let view = rita.pending("UPDATE invoices").await;
        assert_eq!(rita.approve(&view).await.0, StatusCode::OK);
    };
    let held = "UPDATE invoices SET amount = amount + $1::int WHERE id = 1";
    let (done, ()) = tokio::join!(client.execute(held, &[&5i32]), approval);
    assert_eq!(done.unwrap(), 1);
    assert_eq!(gateway.database.value(AMOUNT), "15");

    let denied = client.execute("DELETE FROM victims", &[]).await;
    assert_eq!(denied.unwrap_err().code().unwrap().code(), "42501");
    let transaction = client.transaction().await.unwrap();
    let denied = transaction.execute("DELETE FROM victims", &[]).await;
    assert_eq!(denied.unwrap_err().code().unwrap().code(), "42501");
    drop(transaction);
    let transaction = client.transaction().await.unwrap();
    transaction.execute(insert, &[&3i32]).await.unwrap();
    let denied = transaction.execute("DELETE FROM victims", &[]).await;
    assert!(denied.is_err());
    transaction.commit().await.unwrap();
    let row = client.query_one("SELECT count(*) FROM scratch", &[]).await;
    assert_eq!(row.unwrap().get::<_, i64>(0), 1, "given up");
    let values: (&[u8], i64) = (b"\0\xff\x7f", 9_007_199_254_740_993);
    let row = client
        .query_one("SELECT $1::bytea, $2::int8", &[&values.0, &values.1])
        .await
        .unwrap();
    assert_eq!((row.get::<_, &[u8]>(0), row.get::<_, i64>(1)), values);
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlx_works() {
    if let Some(program) = need!(needs::sqlx_driver(), "the program with sqlx") {
        works("sqlx", Command::new(program)).await;
    }
}
