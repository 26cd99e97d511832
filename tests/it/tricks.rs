//! Ways past the gateway by the protocol alone: messages in an order or a form that no driver
//! sends, meant to make the gateway take a name for something else than the server does.
//!
//! Each trick prepares a write, which runs nothing and is let through, brings the gateway
//! to believe that its name stands for a read, and runs it. Rules allow reads and one
//! table to copy into.

use std::sync::Arc;
use std::time::Duration;

use holdpoint_tests::wire::{Tls, message, query, read};
use holdpoint_tests::{Database, Gateway, PgServer, Settings, need};
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

const RULES: &str = r#"
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

fn tricks() -> Vec<(&'static str, Vec<Step>)> {
    let prepared = || vec![parse("s", WRITE), sync()];
    // One more or one less answer than the gateway counts, and `t`'s is taken for `s`'s.
    let shift = || {
        vec![
            vec![parse("s", "SELECT 1"), sync()],
            vec![parse("t", "SELECT 1"), sync()],
            run("s"),
        ]
    };
    let copy = || {
        vec![
            parse("", "COPY scratch FROM STDIN"),
            bind("", ""),
            execute(""),
        ]
    };
    // An answer that is counted twice, or not, and a PREPARE that fails is taken for one that
    // did not.
    let missed = |steps: Vec<Step>| {
        let then = ["PREPARE s AS SELECT 1", "SELECT 1", "EXECUTE s"];
        let then = then.iter().map(|sql| vec![q(sql)]).collect();
        [vec![prepared()], steps, then].concat()
    };
    let shifted = |first: Step| [vec![prepared(), first], shift()].concat();
    vec![
        (
            "a Query that the server skips behind a Parse that fails",
            shifted(vec![parse("", "SELEC"), q("SELECT 1"), sync()]),
        ),
        (
            "two Queries that the server skips",
            shifted(vec![
                parse("", "SELEC"),
                q("SELECT 1"),
                q("SELECT 2"),
                sync(),
            ]),
        ),
        (
            "a Query that the server skips behind a Bind that fails",
            shifted(vec![bind("", "absent"), q("SELECT 1"), sync()]),
        ),
        (
            "a Query that the server skips behind a Flush",
            shifted(vec![parse("", "SELEC"), flush(), q("SELECT 1"), sync()]),
        ),
        (
            "bytes behind a Flush, which the server fails",
            shifted(vec![message(b'H', b"x"), q("SELECT 1"), sync()]),
        ),
        (
            "bytes behind a Sync, which the server fails",
            shifted(vec![parse("", "SELECT 1"), message(b'S', b"x"), sync()]),
        ),
        (
            "a Query that a COPY takes for data",
            shifted(vec![q("COPY scratch FROM STDIN"), q("SELECT 1")]),
        ),
        (
            "a unit that a COPY takes for data",
            shifted(vec![
                q("COPY scratch FROM STDIN"),
                parse("u", "SELECT 1"),
                sync(),
            ]),
        ),
        (
            "a Query that a COPY of the extended protocol takes for data",
            shifted(vec![
                parse("", "COPY scratch FROM STDIN"),
                bind("", ""),
                execute(""),
                sync(),
                q("SELECT 1"),
                sync(),
            ]),
        ),
        (
            "a COPY that fails before its Sync was read",
            shifted(vec![
                parse("", "COPY scratch FROM STDIN"),
                bind("", ""),
                execute(""),
                copy_data("no number\n"),
                sync(),
                sync(),
            ]),
        ),
        (
            "a name that is parsed again where the server has it already",
            vec![prepared(), vec![parse("s", "SELECT 1"), sync()], run("s")],
        ),
        (
            "a Parse that is skipped",
            vec![
                prepared(),
                vec![
                    parse("", "SELEC"),
                    close("Ss"),
                    parse("s", "SELECT 1"),
                    sync(),
                ],
                run("s"),
            ],
        ),
        (
            "a Close that is skipped",
            vec![
                vec![parse("s", "SELECT 1"), sync()],
                vec![close("Ss"), parse("s", WRITE), sync()],
                vec![parse("", "SELEC"), close("Ss"), sync()],
                run("s"),
            ],
        ),
        (
            "the unnamed statement, parsed anew in the same pipeline",
            vec![vec![
                parse("", "SELECT 1"),
                bind("p", ""),
                parse("", WRITE),
                bind("", ""),
                execute(""),
                sync(),
            ]],
        ),
        (
            "a read behind a Bind of the write",
            vec![
                prepared(),
                vec![
                    parse("r", "SELECT 1"),
                    bind("p", "s"),
                    bind("q", "r"),
                    execute("q"),
                    execute("p"),
                    sync(),
                ],
            ],
        ),
        (
            "EXECUTE of a name that the protocol prepared",
            vec![prepared(), vec![q("EXECUTE s")]],
        ),
        (
            "EXECUTE of a name that a refused PREPARE in the same text was to take",
            vec![prepared(), vec![q("PREPARE s AS SELECT 1; EXECUTE s")]],
        ),
        (
            "DEALLOCATE that is rolled back, which it never is",
            vec![
                vec![parse("s", "SELECT 1"), sync()],
                vec![q("BEGIN"), q("DEALLOCATE s"), q("ROLLBACK")],
                prepared(),
                run("s"),
            ],
        ),
        (
            "DISCARD between Parse and Bind",
            vec![
                vec![parse("s", "SELECT 1"), sync()],
                vec![q("DISCARD ALL"), parse("s", WRITE), sync()],
                run("s"),
            ],
        ),
        (
            "a cursor of the name of a portal",
            vec![
                vec![q("BEGIN")],
                vec![q("DECLARE k CURSOR FOR SELECT 1")],
                vec![q("CLOSE k"), parse("s", WRITE), bind("k", "s"), sync()],
                vec![execute("k"), sync()],
            ],
        ),
        (
            "long names that the server cuts",
            vec![
                vec![parse(&format!("{}a", "n".repeat(63)), "SELECT 1"), sync()],
                vec![
                    close(&format!("S{}b", "n".repeat(63))),
                    parse(&format!("{}c", "n".repeat(63)), WRITE),
                    sync(),
                ],
                run(&format!("{}d", "n".repeat(63))),
            ],
        ),
        (
            "a write behind a held read in one segment",
            vec![vec![q("SELECT 1"), q("SELECT 1; DELETE FROM victims")]],
        ),
        (
            "EXECUTE of a name that later messages of the unit give to a read",
            vec![
                prepared(),
                vec![
                    parse("", "EXECUTE s"),
                    bind("", ""),
                    execute(""),
                    close("Ss"),
                    parse("s", "SELECT 1"),
                    sync(),
                ],
            ],
        ),
        (
            "what SQL prepared, run from a portal after its name was given away",
            vec![
                vec![q("PREPARE s AS SELECT 1")],
                vec![
                    bind("p", "s"),
                    close("Ss"),
                    parse("s", WRITE),
                    execute("p"),
                    bind("", "s"),
                    execute(""),
                    sync(),
                ],
            ],
        ),
        (
            "the same in a transaction, a message at a time",
            vec![
                vec![q("BEGIN")],
                vec![q("PREPARE s AS SELECT 1")],
                vec![bind("p", "s"), sync()],
                vec![close("Ss"), parse("s", WRITE), sync()],
                vec![execute("p"), sync()],
                vec![q("EXECUTE s")],
                vec![q("COMMIT")],
            ],
        ),
        (
            "a Sync that a COPY ignores",
            missed(vec![
                vec![q("COPY scratch FROM STDIN"), sync()],
                vec![message(b'c', b"")],
            ]),
        ),
        (
            "two Syncs that a COPY ignores",
            missed(vec![
                [copy(), vec![sync(), sync()]].concat(),
                vec![message(b'c', b""), sync()],
            ]),
        ),
        (
            "a Sync that a COPY ignores, and a Query that the server skips once it failed",
            missed(vec![
                [copy(), vec![sync()]].concat(),
                vec![copy_data("no number\n"), message(b'c', b"")],
                vec![q("SELECT 42"), sync()],
            ]),
        ),
        (
            "a Sync amid the data of a COPY that has failed",
            missed(vec![
                vec![q("COPY scratch FROM STDIN")],
                vec![copy_data("no number\n"), sync(), message(b'c', b"")],
            ]),
        ),
        (
            "a COPY that EXECUTE runs, and what comes behind it",
            missed(vec![
                vec![parse("c", "COPY scratch FROM STDIN"), sync()],
                vec![q("EXECUTE c"), q("SELECT 1"), sync()],
                vec![message(b'c', b""), sync()],
            ]),
        ),
        (
            "a COMMIT that the gateway turns into a ROLLBACK, and a write behind it",
            vec![
                vec![parse("s", WRITE), sync(), q("BEGIN"), q(WRITE)],
                vec![
                    parse("c", "COMMIT"),
                    bind("", "c"),
                    execute(""),
                    sync(),
                    bind("", "s"),
                    execute(""),
                    sync(),
                ],
                vec![
                    q("BEGIN"),
                    q(WRITE),
                    parse("c", "COMMIT"),
                    bind("", "c"),
                    execute(""),
                    sync(),
                    parse("s", "SELECT 1"),
                    sync(),
                ],
                vec![parse("t", "SELECT 1"), sync()],
                run("s"),
            ],
        ),
    ]
}

/// Sends a trick and reads what comes, until the session ends or nothing is left to say.
/// Ways past what is foretold: the same burst is sent until the gateway need not ask its
/// plugin of it any more, and then it means something else, or comes in other company.
fn foretold() -> Vec<(&'static str, Vec<Step>)> {
    let again = |step: Step| vec![step.clone(), step.clone(), step.clone(), step];
    let known = || {
        let prepared = vec![vec![parse("s", "SELECT 1"), parse("t", WRITE), sync()]];
        [prepared, again(run("s"))].concat()
    };
    let whole = |sql: &str| [vec![parse("", sql)], run("")].concat();
    let divide = |by: &str| {
        let value = [&[0, 0, 0, by.len() as u8][..], by.as_bytes()].concat();
        let body = [b"\0d\0\0\0\0\x01", &value[..], b"\0\0"].concat();
        vec![message(b'B', &body), execute(""), sync()]
    };
    let then = |before: Vec<Step>, steps: Vec<Step>| [before, steps].concat();
    let anew = vec![close("Ss"), parse("s", WRITE), sync()];
    vec![
        (
            "a known name that stands for a write now",
            then(known(), vec![anew.clone(), run("s")]),
        ),
        (
            "a known name that stands for a write in the same burst",
            then(known(), vec![[anew.clone(), run("s")].concat(), run("s")]),
        ),
        (
            "a known name behind a name that changes and is not waited for",
            then(known(), vec![[run("s"), anew, run("s")].concat()]),
        ),
        (
            "a known name that SQL prepares anew",
            then(
                known(),
                vec![
                    vec![q(&format!("DEALLOCATE s; PREPARE s AS {WRITE}"))],
                    run("s"),
                ],
            ),
        ),
        (
            "a known name after DISCARD ALL",
            then(
                known(),
                vec![
                    vec![q("DISCARD ALL")],
                    vec![parse("s", WRITE), sync()],
                    run("s"),
                ],
            ),
        ),
        (
            "a known burst with another one behind it",
            then(known(), vec![[run("s"), run("t")].concat()]),
        ),
        (
            "a known burst with another portal in it",
            then(
                known(),
                vec![vec![
                    bind("p", "t"),
                    bind("", "s"),
                    execute(""),
                    execute("p"),
                    sync(),
                ]],
            ),
        ),
        (
            "the statement without a name, parsed anew",
            then(
                again(whole("SELECT 1")),
                vec![vec![parse("", WRITE), sync()], run("")],
            ),
        ),
        (
            "the statement without a name, between two known bursts",
            then(
                again(whole("SELECT 1")),
                vec![
                    vec![parse("", WRITE), sync()],
                    whole("SELECT 1"),
                    vec![parse("", WRITE), sync()],
                    run(""),
                ],
            ),
        ),
        (
            "numbers that are no numbers",
            then(
                vec![
                    vec![q("SELECT 1 WHERE 1 = 10")],
                    vec![q("SELECT 1 WHERE 1 = 11")],
                    vec![q("SELECT 1 WHERE 1 = 12")],
                    vec![q("SELECT 1 WHERE 1 = 13")],
                ],
                vec![
                    vec![q(&format!("SELECT 1 WHERE 1 = 14; {WRITE}"))],
                    vec![q(&format!("SELECT 1 WHERE 1 = 1/**/;{WRITE} WHERE 1 = 1"))],
                    vec![message(
                        b'Q',
                        format!("SELECT 1 WHERE 1 = 1\0{WRITE}\0").as_bytes(),
                    )],
                ],
            ),
        ),
        (
            "a known burst that fails at the server",
            [
                vec![vec![
                    parse("d", "SELECT 1 / $1::int"),
                    parse("t", WRITE),
                    sync(),
                ]],
                again(divide("1")),
                vec![
                    divide("0"),
                    divide("1"),
                    [divide("0"), run("t")].concat(),
                    run("t"),
                ],
            ]
            .concat(),
        ),
    ]
}

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
