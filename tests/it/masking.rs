//! Protected columns: what a client sees of them, and the ways around it.

use std::time::Duration;

use holdpoint_tests::wire::{Tls, message, query, read_all};
use holdpoint_tests::{Gateway, PgServer, Settings, need};
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

const CANARY: &str = "canary-6f1d0c";
const EVASIONS: &str = include_str!("../masking/evasions.sql");

/// Everything is allowed, known or not: what is stopped, the mask stops.
const ALL: &str = r#"
[[rule]]
name = "everything"
danger_allow_unknown = true
allow = true
"#;

const MASK: &str = r#"
[[mask]]
name = "numbers"
columns = ["public.customers.ssn", "public.customers.pin"]
"#;

fn tables() -> String {
    format!(
        "CREATE TABLE customers (id int PRIMARY KEY, ssn text, pin int, name text);
         INSERT INTO customers VALUES (1, '{CANARY}-1', 777001, 'ada'), (2, '{CANARY}-2', 777002, 'bob'), (3, NULL, NULL, 'cyd');
         CREATE TABLE orders (id int, note text); INSERT INTO orders VALUES (1, 'one');"
    )
}

async fn gateway(rules: &str) -> Option<Gateway> {
    let server = need!(PgServer::shared(), "postgresql")?;
    let database = server.database();
    database.direct().run(&tables()).unwrap_done();
    let settings = Settings {
        rules: rules.to_owned(),
        ..Settings::default()
    };
    Some(Gateway::with(&database, settings).await)
}

/// A gateway that must not write a protected value anywhere; see the harness.
async fn masking() -> Option<Gateway> {
    let gateway = gateway(&format!("{ALL}{MASK}")).await?;
    gateway.keep_secret(CANARY);
    Some(gateway)
}

async fn send(stream: &mut Tls, bytes: &[u8]) -> (String, String) {
    stream.write_all(bytes).await.unwrap();
    let read = timeout(Duration::from_secs(20), read_all(stream));
    read.await.expect("an answer")
}

fn parse(name: &str, sql: &str) -> Vec<u8> {
    message(b'P', format!("{name}\0{sql}\0\0\0").as_bytes())
}

/// Binds without parameters; all results in one format.
fn bind(portal: &str, name: &str, binary: bool) -> Vec<u8> {
    let mut body = format!("{portal}\0{name}\0\0\0\0\0").into_bytes();
    body.extend_from_slice(&[0, 1, 0, u8::from(binary)]);
    message(b'B', &body)
}

fn describe(what: &str) -> Vec<u8> {
    message(b'D', format!("{what}\0").as_bytes())
}

fn execute(portal: &str, rows: u8) -> Vec<u8> {
    message(
        b'E',
        format!("{portal}\0\0\0\0{}", char::from(rows)).as_bytes(),
    )
}

fn sync() -> Vec<u8> {
    message(b'S', b"")
}

fn extended(sql: &str, binary: bool) -> Vec<u8> {
    [
        parse("", sql),
        bind("", "", binary),
        describe("P"),
        execute("", 0),
        sync(),
    ]
    .concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_way_around_a_protected_column_shows_it() {
    let Some(gateway) = masking().await else {
        return;
    };
    let token = gateway.agent("agent-1");
    let mut simple = gateway.wire(&token).await;
    let mut other = gateway.wire(&token).await;
    let mut count = 0;
    for sql in EVASIONS.lines().filter(|line| !line.starts_with("--")) {
        count += 1;
        let answers = [
            send(&mut simple, &query(sql.as_bytes())).await,
            send(&mut other, &extended(sql, count % 2 == 0)).await,
        ];
        for (kinds, text) in answers {
            assert!(!text.contains("canary"), "{sql}: {text}");
            assert!(!kinds.contains(['D', 'd']), "{sql}: {kinds} {text}");
            assert!(kinds.contains('E') && text.contains("HP-"), "{sql}: {text}");
        }
    }
    assert!(count >= 260, "{count}");
    assert!(!gateway.tap.saw("customers"), "sent to the target");
    let untouched = "SELECT count(*) FROM customers WHERE ssn LIKE 'canary%'";
    assert_eq!(gateway.database.value(untouched), "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_statements_are_refused_for_the_one_that_shows_too_much() {
    let Some(gateway) = masking().await else {
        return;
    };
    let mut stream = gateway.wire(&gateway.agent("agent-1")).await;
    let sql = "SELECT ssn FROM customers; SELECT upper(ssn) FROM customers";
    let (kinds, text) = send(&mut stream, &query(sql.as_bytes())).await;
    assert!(
        !kinds.contains('D') && !text.contains("canary"),
        "{kinds} {text}"
    );
    // Each of these has rows, and each is masked by its own description.
    let sql =
        "SELECT ssn FROM customers; SELECT 1, note FROM orders; SELECT name, ssn FROM customers";
    let (kinds, text) = send(&mut stream, &query(sql.as_bytes())).await;
    assert_eq!(kinds.matches('D').count(), 7, "{kinds} {text}");
    assert!(
        !text.contains("canary") && text.contains("bob") && text.contains("one"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_show_a_mark_in_the_place_of_the_value_in_either_format() {
    let Some(gateway) = masking().await else {
        return;
    };
    let done = gateway
        .psql()
        .run("SELECT id, ssn, pin, name FROM customers ORDER BY id");
    assert_eq!(
        done.stdout, "1|****||ada\n2|****||bob\n3|****||cyd\n",
        "{}",
        done.stderr
    );
    for sql in [
        "SELECT * FROM customers WHERE id = 1",
        "TABLE orders",
        "SELECT c.*, c.ssn AS x, 5 FROM customers c",
    ] {
        let done = gateway.psql().run(sql);
        assert!(
            !done.stdout.contains("canary") && !done.stdout.contains("777"),
            "{}",
            done.stdout
        );
    }
    // Binary, prepared and described once: this is how a driver reads.
    let client = gateway.tokio_postgres(&gateway.agent("agent-1")).await;
    let statement = client
        .prepare("SELECT id, ssn AS x, pin, name FROM customers WHERE id = $1")
        .await
        .unwrap();
    for id in [1, 2] {
        let row = client.query_one(&statement, &[&id]).await.unwrap();
        assert_eq!(row.get::<_, i32>(0), id);
        assert_eq!(row.get::<_, String>(1), "****");
        assert_eq!(row.get::<_, Option<i32>>(2), None);
        assert!(["ada", "bob"].contains(&row.get::<_, &str>(3)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_any_size_and_number_are_masked() {
    let Some(gateway) = masking().await else {
        return;
    };
    let fill = format!(
        "INSERT INTO customers SELECT n, '{CANARY}' || repeat('x', CASE n % 500 WHEN 0 THEN 300000 ELSE n % 40 END), n,
         repeat('y', CASE n % 700 WHEN 0 THEN 200000 ELSE 3 END) FROM generate_series(10, 5009) n"
    );
    gateway.database.direct().run(&fill).unwrap_done();
    let sql = "SELECT id, ssn, name FROM customers WHERE id >= 10";
    let done = gateway.psql().run(sql);
    assert!(!done.stdout.contains("canary"));
    let direct = gateway.database.direct().run(&sql.replace("ssn", "'****'"));
    assert!(
        done.stdout == direct.stdout,
        "{} rows {}",
        done.stdout.lines().count(),
        done.stderr
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_statement_shows_nothing_under_any_of_its_names() {
    let Some(gateway) = masking().await else {
        return;
    };
    let token = gateway.agent("agent-1");
    let mut stream = gateway.wire(&token).await;
    let prepare = [
        parse("s", "SELECT ssn FROM customers"),
        describe("Ss"),
        sync(),
    ]
    .concat();
    let (kinds, _) = send(&mut stream, &prepare).await;
    assert_eq!(kinds, "1tTZ");
    // Described before: the rows can be placed, in parts too.
    let run = [bind("", "s", true), execute("", 1), execute("", 0), sync()].concat();
    let (kinds, text) = send(&mut stream, &run).await;
    assert_eq!(kinds, "2DsDDCZ", "{text}");
    assert!(text.contains("****") && !text.contains("canary"), "{text}");
    for sql in [
        "EXECUTE s",
        "EXPLAIN EXECUTE s",
        "CREATE TABLE copied AS EXECUTE s",
    ] {
        let (kinds, text) = send(&mut stream, &query(sql.as_bytes())).await;
        assert!(
            !kinds.contains('D') && !text.contains("canary"),
            "{sql}: {text}"
        );
    }
    let open = [query(b"BEGIN"), bind("p", "s", false), sync()].concat();
    stream.write_all(&open).await.unwrap();
    let (begun, _) = read_all(&mut stream).await;
    let (bound, _) = read_all(&mut stream).await;
    assert_eq!((begun.as_str(), bound.as_str()), ("CZ", "2Z"));
    let (kinds, text) = send(&mut stream, &query(b"FETCH ALL FROM p")).await;
    assert!(
        !kinds.contains('D') && !text.contains("canary"),
        "{kinds} {text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_described_does_not_run() {
    let Some(gateway) = masking().await else {
        return;
    };
    let token = gateway.agent("agent-1");
    for sql in ["SELECT ssn FROM customers", "SELECT * FROM customers"] {
        let mut stream = gateway.wire(&token).await;
        let run = [parse("", sql), bind("", "", true), execute("", 0), sync()].concat();
        let (kinds, text) = send(&mut stream, &run).await;
        assert_eq!(kinds, "EZ", "{text}");
        assert!(
            text.contains("not described") && !text.contains("canary"),
            "{text}"
        );
    }
    assert!(!gateway.tap.saw("customers"), "sent to the target");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_masks_each_of_its_results() {
    let Some(gateway) = masking().await else {
        return;
    };
    let mut stream = gateway.wire(&gateway.agent("agent-1")).await;
    let one = |sql: &str| {
        [
            parse("", sql),
            bind("", "", false),
            describe("P"),
            execute("", 0),
        ]
        .concat()
    };
    let run = [
        one("SELECT name, ssn FROM customers"),
        one("SELECT note FROM orders"),
        one("SELECT ssn, name FROM customers"),
        sync(),
    ]
    .concat();
    let (kinds, text) = send(&mut stream, &run).await;
    assert_eq!(kinds, "12TDDDC12TDC12TDDDCZ", "{text}");
    assert!(!text.contains("canary") && text.contains("one"), "{text}");
}

/// Rows that come while other rules, and the plugin itself, are loaded anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_in_the_midst_of_a_masked_result_unmasks_nothing() {
    let Some(gateway) = masking().await else {
        return;
    };
    let fill = format!(
        "INSERT INTO customers SELECT n, '{CANARY}' || n, n, repeat('y', 2000) FROM generate_series(10, 6009) n"
    );
    gateway.database.direct().run(&fill).unwrap_done();
    let token = gateway.agent("agent-1");
    let other = "[[mask]]\nname = \"other\"\ncolumns = [\"public.orders.note\"]\n";
    let rules = [
        ALL.to_owned(),
        format!("{ALL}{other}"),
        format!("{ALL}{MASK}"),
    ];
    for (number, next) in rules.iter().enumerate() {
        let mut stream = gateway.wire(&token).await;
        let sql = "SELECT id, ssn, name FROM customers WHERE id >= 10";
        stream.write_all(&query(sql.as_bytes())).await.unwrap();
        // Some of it is read, the rest waits at the target.
        let mut rows = 0;
        while rows < 1000 {
            let (kind, body) = holdpoint_tests::wire::read(&mut stream).await.unwrap();
            assert!(!String::from_utf8_lossy(&body).contains("canary"));
            rows += u32::from(kind == b'D');
        }
        gateway.rewrite("rules.toml", next);
        gateway.signal("HUP");
        tokio::time::sleep(Duration::from_millis(700)).await;
        let (kinds, text) = send(&mut stream, &query(b"SELECT 1")).await;
        assert!(!text.contains("canary"), "rules {number}");
        assert!(kinds.len() > 4_000, "{number}: {} {text:.200}", kinds.len());
        // The session's plugin knows the old columns only.
        let (_, text) = send(&mut stream, b"").await;
        assert!(!text.contains("canary"), "{number}: {text}");
        let (kinds, text) = send(
            &mut stream,
            &query(b"SELECT ssn FROM customers WHERE id = 1"),
        )
        .await;
        assert!(!text.contains("canary"), "{number}: {kinds} {text}");
        gateway.rewrite("rules.toml", &format!("{ALL}{MASK}"));
        gateway.signal("HUP");
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
}

/// One after the other on one session; nothing of what is protected comes with any.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_protocol_can_do_around_a_masked_statement_shows_nothing() {
    let Some(gateway) = masking().await else {
        return;
    };
    let token = gateway.agent("agent-1");
    let masked = "SELECT id, ssn FROM customers ORDER BY id";
    let portal = |binary| [parse("", masked), bind("p", "", binary), describe("Pp")].concat();
    let admin = |sql: &str| gateway.database.direct().run(sql).unwrap_done();
    let scripts: Vec<(&str, Vec<Vec<u8>>)> = vec![
        ("a portal row by row, in both formats", vec![
            [query(b"BEGIN"), portal(true), execute("p", 1), sync()].concat(),
            [execute("p", 1), execute("p", 0), sync()].concat(),
            [query(b"ROLLBACK; BEGIN"), portal(false), execute("p", 2), sync()].concat(),
            [execute("p", 1), sync()].concat(),
        ]),
        ("a portal that SQL fetches from", vec![
            [query(b"BEGIN"), portal(false), sync()].concat(),
            query(b"FETCH 1 FROM p"),
        ]),
        ("a portal that SQL moves in", vec![
            [query(b"BEGIN"), portal(false), sync()].concat(),
            query(b"MOVE 1 FROM p"),
        ]),
        ("a description of another statement in the same pipeline", vec![
            [parse("a", "SELECT id, name FROM customers"), describe("Sa"), parse("b", masked), bind("", "b", false), execute("", 0), sync()].concat(),
        ]),
        ("a description of one portal and rows of another", vec![
            [parse("a", "SELECT id, name FROM customers"), parse("b", masked), bind("p", "b", false), bind("", "a", false), describe("P"), execute("p", 0), sync()].concat(),
        ]),
        ("a statement that is described, parsed anew, and run", vec![
            [parse("", "SELECT id, name FROM customers"), describe("S"), sync()].concat(),
            [parse("", "SELECT ssn, id FROM customers"), bind("", "", false), execute("", 0), sync()].concat(),
        ]),
        ("a Query between Describe and Execute", vec![
            [parse("s", masked), describe("Ss"), sync()].concat(),
            query(b"SELECT 1, 2; SELECT name, id FROM customers"),
            [bind("", "s", false), execute("", 0), sync()].concat(),
        ]),
        ("an error between Describe and Execute", vec![
            [parse("s2", masked), describe("Ss2"), sync()].concat(),
            [parse("", "SELEC"), describe("S"), sync()].concat(),
            [bind("", "s2", true), execute("", 0), sync()].concat(),
        ]),
        ("several statements with an error in their midst", vec![
            query(b"SELECT ssn FROM customers; SELECT 1 / 0; SELECT ssn FROM customers"),
        ]),
        ("no rows, no columns, and then some", vec![
            query(b"SELECT FROM customers; SELECT ssn FROM customers WHERE id < 0; SELECT ssn, id FROM customers"),
        ]),
    ];
    for (what, steps) in scripts {
        let mut stream = gateway.wire(&token).await;
        for bytes in steps {
            stream.write_all(&bytes).await.unwrap();
            while let Ok(Some((_, body))) = timeout(
                Duration::from_millis(400),
                holdpoint_tests::wire::read(&mut stream),
            )
            .await
            {
                let text = String::from_utf8_lossy(&body).into_owned();
                assert!(!text.contains("canary"), "{what}: {text}");
            }
        }
    }
    // Somebody else renames and replaces between Parse and Execute.
    for (change, back) in [
        (
            "ALTER TABLE customers RENAME COLUMN ssn TO harmless",
            "ALTER TABLE customers RENAME COLUMN harmless TO ssn",
        ),
        (
            "ALTER TABLE customers ADD COLUMN first int",
            "ALTER TABLE customers DROP COLUMN first",
        ),
    ] {
        for sql in [
            "SELECT * FROM customers",
            "SELECT ssn, name FROM customers",
            "SELECT name FROM customers",
        ] {
            let mut stream = gateway.wire(&token).await;
            let (_, text) = send(
                &mut stream,
                &[parse("s", sql), describe("Ss"), sync()].concat(),
            )
            .await;
            assert!(!text.contains("canary"));
            admin(change);
            let (kinds, text) = send(
                &mut stream,
                &[bind("", "s", false), execute("", 0), sync()].concat(),
            )
            .await;
            admin(back);
            assert!(!text.contains("canary"), "{change}; {sql}: {kinds} {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_masked_waits_for_a_reviewer_where_the_mask_says_so() {
    let held = MASK.to_owned() + "hold = { reviewers = [\"group:reviewers\"] }\n";
    let Some(gateway) = gateway(&format!("{ALL}{held}")).await else {
        return;
    };
    let psql = gateway
        .psql()
        .start(&["SELECT count(*) FROM customers WHERE ssn IS NULL"]);
    let rita = gateway.reviewer("rita");
    let view = rita.pending("ssn IS NULL").await;
    assert!(
        !gateway.tap.saw("ssn IS NULL"),
        "sent before it was approved"
    );
    rita.approve(&view).await;
    let done = psql.wait();
    assert_eq!(done.stdout, "1\n", "{}", done.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_from_before_a_column_was_protected_is_refused() {
    let Some(gateway) = gateway(ALL).await else {
        return;
    };
    let mut stream = gateway.wire(&gateway.agent("agent-1")).await;
    let sql = b"SELECT name FROM customers WHERE id = 1";
    let (_, text) = send(&mut stream, &query(sql)).await;
    assert!(text.contains("ada"), "{text}");
    gateway.rewrite("rules.toml", &format!("{ALL}{MASK}"));
    gateway.signal("HUP");
    let mut refused = String::new();
    for _ in 0..50 {
        let (_, text) = send(&mut stream, &query(sql)).await;
        if text.contains("HP-") {
            refused = text;
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(refused.contains("numbers"), "{refused}");
}
