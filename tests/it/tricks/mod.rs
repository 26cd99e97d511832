//! Ways past the gateway by the protocol alone: messages in an order or a form that no driver
//! sends, meant to make the gateway take a name for something else than the server does.
//!
//! Each trick prepares a write, which runs nothing and is let through, brings the gateway
//! to believe that its name stands for a read, and runs it. Rules allow reads and one
//! table to copy into.

mod lists;

use std::sync::Arc;
use std::time::Duration;

use holdpoint_tests::wire::{Tls, message, query, read};
use holdpoint_tests::{Database, Gateway, PgServer, Settings, need};
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use lists::{foretold, tricks};

pub(crate) const RULES: &str = r#"
[[rule]]
name = "reads"
match = { classes = ["read", "session", "transaction", "copy_out"], confidence = "proven" }
allow = true

[[rule]]
name = "scratch"
match = { classes = ["copy_in", "write"], objects = ["scratch"], confidence = "proven" }
allow = true

[[rule]]
name = "the-rest"
deny = "not here"
"#;

const WRITE: &str = "DELETE FROM victims";

fn parse(name: &str, sql: &str) -> Vec<u8> {
    message(b'P', format!("{name}\0{sql}\0\0\0").as_bytes())
}

fn bind(portal: &str, name: &str) -> Vec<u8> {
    message(b'B', format!("{portal}\0{name}\0\0\0\0\0\0\0").as_bytes())
}

fn execute(portal: &str) -> Vec<u8> {
    message(b'E', format!("{portal}\0\0\0\0\0").as_bytes())
}

fn close(what: &str) -> Vec<u8> {
    message(b'C', format!("{what}\0").as_bytes())
}

fn q(sql: &str) -> Vec<u8> {
    query(sql.as_bytes())
}

fn sync() -> Vec<u8> {
    message(b'S', b"")
}

fn flush() -> Vec<u8> {
    message(b'H', b"")
}

fn copy_data(text: &str) -> Vec<u8> {
    message(b'd', text.as_bytes())
}

/// Runs `name` as the last step of a trick.
fn run(name: &str) -> Vec<Vec<u8>> {
    vec![bind("", name), execute(""), sync()]
}

/// What is sent at once; the next comes when the gateway has been silent for a while.
type Step = Vec<Vec<u8>>;

/// Sends a trick and reads what comes, until the session ends or nothing is left to say.
async fn play(stream: &mut Tls, number: usize, steps: Vec<Step>) -> String {
    let mut said = String::new();
    // Many sessions would look alike to the oracle.
    let first = vec![q(&format!("SELECT {number}"))];
    let steps = std::iter::once(first).chain(steps);
    for step in steps {
        if stream.write_all(&step.concat()).await.is_err() {
            break;
        }
        while let Ok(Some((kind, body))) = timeout(Duration::from_millis(250), read(stream)).await {
            said.push(char::from(kind));
            if kind == b'E' {
                said.push_str(&format!(
                    "[{}]",
                    String::from_utf8_lossy(&body).replace('\0', " ")
                ));
            }
        }
        said.push_str(" | ");
    }
    said
}

async fn gateway(database: &Database) -> Gateway {
    let settings = Settings {
        rules: RULES.to_owned(),
        ..Settings::default()
    };
    let direct = database.direct();
    direct.run("CREATE TABLE scratch (n int)").unwrap_done();
    Gateway::with(database, settings).await
}

async fn none_works(server: Arc<PgServer>) {
    let database = server.database();
    let gateway = gateway(&database).await;
    let token = gateway.agent("ada");
    let plays =
        tricks()
            .into_iter()
            .chain(foretold())
            .enumerate()
            .map(|(number, (name, steps))| {
                let (gateway, token) = (&gateway, &token);
                async move {
                    let mut stream = gateway.wire(token).await;
                    (name, play(&mut stream, number, steps).await)
                }
            });
    // Each in a session of its own, so that one that works is known by its answers.
    let mut worked = Vec::new();
    for one in plays {
        let (name, said) = one.await;
        if database.value("SELECT count(*) FROM victims") != "2" {
            worked.push(format!("{name}: {said}"));
            let again = "TRUNCATE victims; INSERT INTO victims VALUES (1), (2)";
            database.direct().run(again).unwrap_done();
        }
    }
    assert!(worked.is_empty(), "{}", worked.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_trick_of_the_protocol_runs_a_write() {
    if let Some(server) = need!(PgServer::shared(), "postgresql") {
        none_works(server).await;
    }
}

/// The oldest takes a Query inside the data of a COPY for a mistake and goes on.
#[tokio::test(flavor = "multi_thread")]
async fn no_trick_of_the_protocol_runs_a_write_on_the_oldest_server() {
    if let Some(server) = need!(PgServer::of_version(13), "PostgreSQL 13") {
        none_works(Arc::new(server)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_trick_of_the_protocol_runs_a_write_on_the_newest_server() {
    if let Some(server) = need!(PgServer::of_version(18), "PostgreSQL 18") {
        none_works(Arc::new(server)).await;
    }
}

/// A transaction in which a command was refused is not committed, whatever the client only
/// prepares.
#[tokio::test(flavor = "multi_thread")]
async fn what_only_prepares_a_rollback_does_not_leave_a_failed_transaction() {
    let Some(server) = need!(PgServer::shared(), "postgresql") else {
        return;
    };
    let database = server.database();
    let gateway = gateway(&database).await;
    let whole = |sql: &str| vec![parse("", sql), bind("", ""), execute(""), sync()];
    let ways: [(&str, Vec<Step>); 5] = [
        (
            "parsed, and the COMMIT of the same unit run",
            vec![vec![
                parse("r", "ROLLBACK"),
                parse("c", "COMMIT"),
                bind("", "c"),
                execute(""),
                sync(),
            ]],
        ),
        (
            "bound and not run",
            vec![
                vec![parse("", "ROLLBACK"), bind("p", ""), sync()],
                vec![q("COMMIT")],
            ],
        ),
        (
            "bound, and the COMMIT of a later unit run",
            vec![
                vec![parse("", "ROLLBACK"), bind("p", ""), sync()],
                whole("COMMIT"),
            ],
        ),
        (
            "to a savepoint, and refused again in the same group",
            vec![
                vec![
                    parse("", "ROLLBACK TO s"),
                    bind("", ""),
                    execute(""),
                    flush(),
                    parse("", WRITE),
                    bind("", ""),
                    execute(""),
                    sync(),
                ],
                vec![q("COMMIT")],
            ],
        ),
        ("not at all", vec![vec![q("COMMIT")]]),
    ];
    for (number, (name, steps)) in ways.into_iter().enumerate() {
        let mut stream = gateway.wire(&gateway.agent("ada")).await;
        let begin = vec![
            vec![q("BEGIN")],
            vec![q("INSERT INTO scratch VALUES (7)")],
            vec![q("SAVEPOINT s")],
            vec![q(WRITE)],
        ];
        let said = play(&mut stream, number, [begin, steps].concat()).await;
        let committed = database.value("SELECT count(*) FROM scratch");
        assert_eq!(committed, "0", "{name}: {said}");
    }
    // What does leave it leaves it.
    let mut stream = gateway.wire(&gateway.agent("ada")).await;
    let steps = vec![
        vec![q("BEGIN")],
        vec![q(WRITE)],
        vec![
            parse("r", "ROLLBACK"),
            bind("", "r"),
            message(b'D', b"P\0"),
            execute(""),
            sync(),
        ],
        vec![q("INSERT INTO scratch VALUES (8)")],
    ];
    let said = play(&mut stream, 9, steps).await;
    let committed = database.value("SELECT count(*) FROM scratch");
    assert_eq!(committed, "1", "{said}");
}

/// A database in another encoding cuts names elsewhere, and has one character for two.
#[tokio::test(flavor = "multi_thread")]
async fn names_in_a_database_of_another_encoding_are_told_apart_or_not_known() {
    let Some(server) = need!(PgServer::shared(), "postgresql") else {
        return;
    };
    let long = |end: &str| format!("{}{end}", "é".repeat(40));
    let cases: [(&str, Vec<Step>); 5] = [
        // Two names there, one where they are cut at 63 bytes.
        (
            "LATIN1",
            vec![
                vec![parse(&long("a"), WRITE), sync()],
                vec![parse(&long("b"), "SELECT 1"), sync()],
                run(&long("a")),
            ],
        ),
        (
            "LATIN1",
            vec![
                vec![parse(&long("a"), WRITE), sync()],
                vec![q(&format!(
                    "PREPARE \"{}\" AS SELECT 1; EXECUTE \"{}\"",
                    long("b"),
                    long("a")
                ))],
            ],
        ),
        (
            "SQL_ASCII",
            vec![
                vec![parse(&"n".repeat(62), WRITE), sync()],
                vec![q(&format!("PREPARE {}é AS SELECT 1", "n".repeat(62)))],
                run(&"n".repeat(62)),
            ],
        ),
        // One name there, two here.
        (
            "EUC_JP",
            vec![
                vec![parse("\u{a6}", "SELECT 1"), sync()],
                vec![close("S\u{ffe4}"), parse("\u{ffe4}", WRITE), sync()],
                run("\u{a6}"),
            ],
        ),
        // What is a string here ends there at the second tag.
        (
            "EUC_JP",
            vec![vec![q(
                "SELECT $\u{a6}$a$\u{ffe4}$; DELETE FROM victims; --$\u{a6}$",
            )]],
        ),
    ];
    for (number, (encoding, steps)) in cases.into_iter().enumerate() {
        let mut database = server.database();
        let name = format!("{}_{number}", database.name);
        let make = format!(
            "CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0 OWNER {}",
            database.user
        );
        server.superuser("postgres").run(&make).unwrap_done();
        database.name = name;
        let tables = "CREATE TABLE victims (id int); INSERT INTO victims VALUES (1), (2)";
        database.direct().run(tables).unwrap_done();
        let gateway = gateway(&database).await;
        let mut stream = gateway.wire(&gateway.agent("ada")).await;
        let said = play(&mut stream, number, steps).await;
        let left = database.value("SELECT count(*) FROM victims");
        assert_eq!(left, "2", "{encoding}: {said}");
    }
}

/// A rule names a table that is not ASCII; the server knows it by a name that is cut elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_in_a_database_of_another_encoding_is_not_taken_for_another() {
    let Some(server) = need!(PgServer::shared(), "postgresql") else {
        return;
    };
    let open = "é".repeat(31);
    // Here its first 62 bytes are all that is left of it, and those are the other's.
    let secret = format!("{open}éx");
    let mut database = server.database();
    let name = format!("{}_latin", database.name);
    let make = format!(
        "CREATE DATABASE {name} ENCODING 'LATIN1' TEMPLATE template0 OWNER {}",
        database.user
    );
    server.superuser("postgres").run(&make).unwrap_done();
    database.name = name;
    let tables = format!(
        "CREATE TABLE \"{open}\" (x text); CREATE TABLE \"{secret}\" (x text);
         INSERT INTO \"{secret}\" VALUES ('canary-91be')"
    );
    database.direct().run(&tables).unwrap_done();
    let rules = format!(
        "[[rule]]\nname = \"open\"\nmatch = {{ classes = [\"read\"], objects = [\"{open}\"], \
         confidence = \"proven\" }}\nallow = true\n"
    );
    let settings = Settings {
        rules,
        ..Settings::default()
    };
    let gateway = Gateway::with(&database, settings).await;
    let mut stream = gateway.wire(&gateway.agent("ada")).await;
    let steps = vec![
        vec![q(&format!("SELECT * FROM \"{secret}\""))],
        vec![q(&format!("SELECT * FROM U&\"{}x\"", "\\00e9".repeat(32)))],
        vec![q(&format!("COPY \"{secret}\" TO STDOUT"))],
    ];
    let said = play(&mut stream, 0, steps).await;
    assert_eq!(said.matches("C42501").count(), 3, "{said}");
    assert!(
        !gateway.tap.saw(&secret) && !gateway.tap.saw("00e9"),
        "{said}"
    );
}

/// The protocol prepares anything, and `EXECUTE` runs it: a `PREPARE` that is approved once
/// would stand for as many writes as the client likes.
#[tokio::test(flavor = "multi_thread")]
async fn what_execute_runs_gives_no_name_another_meaning() {
    let Some(server) = need!(PgServer::shared(), "postgresql") else {
        return;
    };
    let database = server.database();
    let rules = RULES.replace(
        "deny = \"not here\"",
        "hold = { reviewers = [\"group:reviewers\"] }",
    );
    let settings = Settings {
        rules,
        ..Settings::default()
    };
    let gateway = Gateway::with(&database, settings).await;
    let prepare = format!("PREPARE x AS {WRITE}");
    let steps = vec![
        vec![q("PREPARE x AS SELECT 1")],
        vec![parse("d", "DEALLOCATE x"), parse("z", &prepare), sync()],
        vec![q("EXECUTE d")],
        vec![q("EXECUTE z")],
        vec![q("EXECUTE x")],
    ];
    let mut stream = gateway.wire(&gateway.agent("ada")).await;
    let rita = gateway.reviewer("rita");
    let said = tokio::select! {
        said = async {
            let first = play(&mut stream, 0, steps).await;
            // More names than the gateway keeps, so that it does not know the last two.
            let many: Vec<_> = (0..10_000).map(|at| parse(&format!("n{at}"), "")).collect();
            let steps = vec![
                [many, vec![parse("e", "DEALLOCATE x"), parse("y", &prepare), sync()]].concat(),
                vec![q("EXECUTE e")],
                vec![q("EXECUTE y")],
                vec![q("EXECUTE x")],
            ];
            first + &play(&mut stream, 1, steps).await.replace('1', "")
        } => said,
        // Never comes to it: nobody is asked.
        () = rita.approve_all() => String::new(),
    };
    assert_eq!(
        database.value("SELECT count(*) FROM victims"),
        "2",
        "{said}"
    );
    // All are refused, and what the name stood for it still does.
    assert_eq!(said.matches("EXECUTE would run").count(), 4, "{said}");
    assert_eq!(said.matches("does not know").count(), 2, "{said}");
    assert!(said.ends_with("TDCZ | "), "{said}");
}
