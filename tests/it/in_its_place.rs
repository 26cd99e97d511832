//! A refused command looks to the client as one that the server failed in the same place.
//!
//! The same messages go to PostgreSQL itself, with a statement that fails, and through the
//! gateway, with one that a rule denies. Kinds of messages, command tags, transaction states
//! and the places of "transaction is aborted" must be equal; texts and codes are our own.
//!
//! A unit is all or nothing, so it fails at its first statement: the server is given the
//! failing one there too. What else differs is meant and in [`MEANT`].

use std::sync::Arc;
use std::time::Duration;

use holdpoint_tests::wire::{self, message, query, read};
use holdpoint_tests::{Gateway, PgServer, Settings, need};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What the gateway denies. It would delete nothing.
const DENIED: &str = "DELETE FROM victims WHERE id = -1";
/// What PostgreSQL fails while it parses.
const AT_PARSE: &str = "DELETE FROM absent WHERE id = -1";
/// What PostgreSQL prepares, describes as it would the denied one, and fails to bind.
const AT_BIND: &str = "DELETE FROM victims WHERE 1 / 0 = 1";

const RULES: &str = r#"
[[rule]]
name = "no-deletes"
match = { classes = ["write"] }
deny = "not here"

[[rule]]
name = "reads"
match = { classes = ["read", "session", "transaction", "copy_out"], confidence = "proven" }
allow = true
"#;

/// What both are sent, and where the server fails: steps between `|`, each sent at once and
/// answered before the next; messages between `/`. `q` is a simple Query, `q-` one that is skipped, `p` to `e` are the
/// extended protocol's with `.` for the unnamed, `e1` stops after a row, `b+` has a value too
/// many, `run` is all it takes to run a statement, `400` that so often, `S` Sync and `H` Flush.
///
/// `BAD` is what fails or is refused. `ok` comes before it in the same unit: harmless to the
/// gateway, failing at the server.
#[rustfmt::skip]
const CASES: &[(&str, &str)] = &[
    // Simple queries.
    (AT_PARSE, "q BAD | q SELECT 1"),
    (AT_PARSE, "q SELECT 1 / q BAD / q SELECT 2 / q SELECT 3"),
    (AT_PARSE, "q ok; BAD | q SELECT 1"),
    (AT_PARSE, "q BAD; SELECT 1 | q SELECT 1"),
    (AT_PARSE, "q ok; BAD; COMMIT | q SELECT 1"),
    (AT_PARSE, "q BEGIN | q BAD | q SELECT 1 | q ROLLBACK | q SELECT 1"),
    (AT_PARSE, "q BEGIN | q BAD | q BAD | q ROLLBACK"),
    (AT_PARSE, "q BEGIN / q BAD / q SELECT 1 / q ROLLBACK / q SELECT 1"),
    (AT_PARSE, "q BEGIN / q BAD / q ROLLBACK / q BEGIN / q SELECT 1 / q COMMIT"),
    (AT_PARSE, "q BEGIN | q ok; BAD | q SELECT 1 | q ROLLBACK"),
    (AT_PARSE, "q BEGIN | q SAVEPOINT a | q BAD | q SAVEPOINT b | q ROLLBACK TO a | q SELECT 1 | q COMMIT"),
    (AT_PARSE, "q BEGIN | q SAVEPOINT a | q BAD | q ROLLBACK TO SAVEPOINT a | q BAD | q SELECT 1 | q ROLLBACK"),
    (AT_PARSE, "q BEGIN | q BAD | q ROLLBACK TO nowhere | q SELECT 1 | q ROLLBACK"),
    (AT_PARSE, "q BEGIN | q BAD | q ROLLBACK AND CHAIN | q SELECT 1 | q COMMIT"),
    (AT_PARSE, "q BEGIN | q BAD | q ABORT WORK | q SELECT 1"),
    (AT_PARSE, "q BEGIN | q BAD | q ROLLBACK; SELECT 1 | q SELECT 1"),
    (AT_PARSE, "q BEGIN | q BAD | q SELECT 1; ROLLBACK | q ROLLBACK"),
    (AT_PARSE, "q BEGIN | q BAD | q BEGIN | q SHOW work_mem | q DEALLOCATE ALL | q ROLLBACK | q ROLLBACK"),
    (AT_PARSE, "q BEGIN | q BAD | q | q -- nothing | q ROLLBACK"),
    // COMMIT where a command was refused: the transaction is rolled back.
    (AT_PARSE, "q BEGIN | q BAD | q COMMIT | q SELECT 1 | q ROLLBACK | q SELECT 1"),
    (AT_PARSE, "q BEGIN / q BAD / q COMMIT / q BEGIN / q SELECT 1 / q COMMIT"),
    (AT_PARSE, "q BEGIN | q SAVEPOINT a | q BAD | q END WORK | q SELECT 1"),
    (AT_PARSE, "q BEGIN | q BAD | q PREPARE TRANSACTION 'x' | q SELECT 1"),
    (AT_PARSE, "q BEGIN | q BAD | run COMMIT / S | run SELECT 1 / S | q COMMIT"),
    (AT_PARSE, "q BEGIN / q BAD / run COMMIT / S / run SELECT 1 / S"),
    (AT_PARSE, "q BEGIN | q BAD | p c COMMIT / b . c / e . / S | b . c / e . / S | q SELECT 1"),
    (AT_PARSE, "q BEGIN | q BAD | p c COMMIT / b p c / d Pp / e p / S / q SELECT 1"),
    (AT_PARSE, "p c COMMIT / S | q BEGIN | q BAD | b . c / e . / S | q BEGIN | q BAD | b . c / e . / S | q SELECT 1"),
    (AT_PARSE, "p c COMMIT / S | q BEGIN | q BAD | p c COMMIT / b . c / e . / S | q SELECT 1 | q COMMIT | q SELECT 1"),
    (AT_PARSE, "q BEGIN | q BAD | p c COMMIT / S | b . c / d P / e . / S | q SELECT 1"),
    (AT_PARSE, "q BEGIN | q BAD | p c COMMIT / d Sc / S | p . SELECT 1 / S | b . c / e . / S | q SELECT 1"),
    (AT_PARSE, "q BEGIN | run SELECT 1 / H | run BAD / S | q COMMIT | q SELECT 1"),
    (AT_PARSE, "q BEGIN | q BAD | q COMMIT | q BEGIN | q BAD | q ROLLBACK | q BEGIN | q BAD | q COMMIT | q SELECT 1"),
    // One group of the extended protocol.
    (AT_PARSE, "run BAD / S | q SELECT 1"),
    (AT_PARSE, "run ok / run BAD / S | run SELECT 1 / S"),
    (AT_PARSE, "run ok / run BAD / run SELECT 1 / S | run SELECT 1 / S"),
    (AT_PARSE, "run ok / run BAD / run COMMIT / S | q SELECT 1"),
    (AT_PARSE, "run SELECT 1 / S / run BAD / S / run SELECT 1 / S"),
    (AT_PARSE, "q BEGIN | run BAD / S | run SELECT 1 / S | run ROLLBACK / S | run SELECT 1 / S"),
    (AT_PARSE, "q BEGIN | run BAD / S / run SELECT 1 / S / run ROLLBACK / S"),
    (AT_PARSE, "p . BAD / b . . / e . / S | q SELECT 1"),
    (AT_PARSE, "p . BAD / b . . / S | q SELECT 1"),
    (AT_PARSE, "p . BAD / b+ . . / e . / S | q SELECT 1"),
    (AT_PARSE, "run BAD / S / S | q SELECT 1"),
    // Prepared before it is run.
    (AT_BIND, "p a BAD / d Sa / S | b . a / e . / S | b . a / e . / S | q SELECT 1"),
    (AT_BIND, "p a BAD / d Sa / H | b . a / e . / S | q SELECT 1"),
    (AT_BIND, "p a BAD / S | q BEGIN | b . a / e . / S | c Sa / S | q ROLLBACK"),
    (AT_BIND, "p a BAD / S | b . a / e . / S / b . a / e . / S | q SELECT 1"),
    // Around a Flush.
    (AT_PARSE, "run SELECT 1 / H | run BAD / S | q SELECT 1"),
    (AT_PARSE, "run SELECT 1 / H | run BAD / H | run SELECT 1 / S | q SELECT 1"),
    (AT_PARSE, "run BAD / H | run SELECT 1 / H | S | q SELECT 1"),
    (AT_PARSE, "q BEGIN | run BAD / H | run SELECT 1 / H | S | q SELECT 1 | q ROLLBACK"),
    (AT_PARSE, "run BEGIN / H | run BAD / S | run SELECT 1 / S | q ROLLBACK"),
    (AT_PARSE, "q BEGIN | run SELECT 1 / H | run BAD / S | q SELECT 1 | q ROLLBACK | q SELECT 1"),
    // In a transaction that failed already.
    (AT_PARSE, "q BEGIN | q BAD | S | S / S | H / S | q ROLLBACK"),
    (AT_PARSE, "q BEGIN | q BAD | c Sx / S | c Px / S | q ROLLBACK"),
    (AT_PARSE, "q BEGIN | q BAD | p x SELECT 1 / S | p x SELECT 1 / d Sx / S | q ROLLBACK"),
    (AT_PARSE, "p a SELECT 1 / S | q BEGIN | q BAD | b . a / e . / S | d Sa / S | q ROLLBACK | b . a / e . / S"),
    (AT_PARSE, "p r ROLLBACK / S | q BEGIN | q BAD | b . r / e . / S | q SELECT 1"),
    (AT_PARSE, "q BEGIN | q BAD | p r ROLLBACK / d Sr / S | b . r / e . / S | q SELECT 1"),
    (AT_PARSE, "q BEGIN | q BAD | run ROLLBACK / run SELECT 1 / S | q SELECT 1"),
    (AT_PARSE, "q BEGIN | p . SELECT 1 UNION ALL SELECT 2 / b c . / e1 c / S | q BAD | e c / S | q ROLLBACK"),
    (AT_PARSE, "q BEGIN | q BAD | run SELECT 1 / H | run ROLLBACK / S | run ROLLBACK / S | q SELECT 1"),
    (AT_PARSE, "q BEGIN | q BAD | q ROLLBACK / q BAD / q BEGIN / q BAD / q SELECT 1 / q ROLLBACK"),
    (AT_PARSE, "run SELECT 1 / q SELECT 2 / S | q SELECT 1"),
    (AT_PARSE, "400 SELECT 1 / run BAD / S | q SELECT 1"),
    (AT_PARSE, "q BEGIN | 400 SELECT 1 / run BAD / S | q SELECT 1 | q ROLLBACK"),
    (AT_PARSE, "400 SELECT 1 / run BAD / 400 SELECT 1 / S | q SELECT 1"),
    (AT_PARSE, "q BEGIN | q SAVEPOINT a | run BAD / S | run ROLLBACK TO a / S | run SELECT 1 / S | q ROLLBACK"),
    (AT_PARSE, "q BEGIN | q SAVEPOINT a | q BAD | q ROLLBACK TO a; SELECT 1 | q SELECT 2 | q ROLLBACK"),
    (AT_PARSE, "q BEGIN | run BAD / S / run SELECT 1 / S / q ROLLBACK / run SELECT 1 / S"),
    (AT_PARSE, "q BEGIN / run SELECT 1 / S / run BAD / S / q ROLLBACK / q SELECT 1"),
    (AT_PARSE, "q BEGIN READ ONLY | q BAD | q ROLLBACK | q BEGIN | q SELECT 1 | q END"),
    (AT_PARSE, "q START TRANSACTION | q BAD | q ROLLBACK WORK AND NO CHAIN | q SELECT 1"),
    // COPY and cursors around it.
    (AT_PARSE, "q COPY (SELECT 1) TO STDOUT / q BAD / q COPY (SELECT 2) TO STDOUT"),
    (AT_PARSE, "q BEGIN | q DECLARE k CURSOR FOR SELECT 1 | q BAD | q FETCH k | q CLOSE k | q ROLLBACK"),
    (AT_PARSE, "q BEGIN | q DECLARE k CURSOR WITH HOLD FOR SELECT 1 | q COMMIT | q BAD | q FETCH k | q CLOSE k"),
    (AT_PARSE, "q PREPARE z AS SELECT 1 | q BEGIN | q BAD | q EXECUTE z | q ROLLBACK | q EXECUTE z"),
    // The unnamed statement after a refusal.
    (AT_PARSE, "p a SELECT 1 / S | p a BAD / b . a / e . / S | b . a / e . / S | q SELECT 1"),
    (AT_PARSE, "p a ok / b c a / e1 c / p . BAD / b . . / e . / S | q SELECT 1"),
    (AT_PARSE, "run BAD / c Sa / S | run BAD / d Sa / S | q SELECT 1"),
    (AT_PARSE, "run BAD / q- SELECT 1 / S | q SELECT 1"),
    (AT_PARSE, "run BAD / H / q- SELECT 1 / S | q SELECT 1"),
    (AT_PARSE, "q BEGIN | run BAD / H / q- ROLLBACK / S | q SELECT 1 | q ROLLBACK"),
    // Not refused: the target's own errors.
    (AT_PARSE, "d Sx / S | q SELECT 1"),
    (AT_PARSE, "b . x / e . / S | e x / S | d Px / S | q SELECT 1"),
    (AT_PARSE, "p . SELECT 1 / b+ . . / e . / S | q SELECT 1"),
    (AT_PARSE, "S | H / S | S / S / S | q"),
    (AT_PARSE, "run SELECT 1 / S / run SELECT * FROM absent / S / run SELECT 1 / S"),
];

/// Where the gateway answers otherwise, and how. All of it is an error to the client.
#[rustfmt::skip]
const MEANT: &[(&str, &str)] = &[
    // A COMMIT that is not alone, or begins anew, is refused like any other command in a
    // failed transaction: only what is declared may go to the target in a client's place.
    (
        "q BEGIN | q BAD | q COMMIT AND CHAIN | q COMMIT; SELECT 1 | run COMMIT / run SELECT 1 / S | q ROLLBACK | q SELECT 1",
        "C:BEGIN ZT | E ZE | E25 ZE | E25 ZE | E25 ZE | C:ROLLBACK ZI | T D C:SELECT 1 ZI",
    ),
    // The server looks for the name before it looks at the transaction.
    ("q BEGIN | q BAD | d Sx / S | e x / S | q ROLLBACK", "C:BEGIN ZT | E ZE | E25 ZE | E25 ZE | C:ROLLBACK ZI"),
    // A unit is all or nothing: the Close was not sent, and can be sent again.
    ("p a SELECT 1 / S | c Sa / run BAD / S | c Sa / S | b . a / S", "1 ZI | E ZI | 3 ZI | E ZI"),
    // The unnamed statement of a refused unit was not sent, so the one before it stands.
    ("p . SELECT 1 / S | run BAD / S | b . . / e . / S", "1 ZI | E ZI | 2 D C:SELECT 1 ZI"),
    // A Query ends what no Sync ended, and would commit it. The session is over instead.
    ("run SELECT 1 / q BAD", "E closed"),
    ("q BEGIN | run SELECT 1 / q BAD / q SELECT 1 / S", "C:BEGIN ZT | E closed"),
    // Messages behind the end of the session are nobody's fault.
    ("q BEGIN | q BAD | run ROLLBACK / q SELECT 1", "C:BEGIN ZT | E ZE | E closed"),
];

/// What is sent at once, and how often the server is then ready.
struct Step {
    bytes: Vec<u8>,
    ends: usize,
}

fn steps(script: &str, bad: &str, ok: &str) -> Vec<Step> {
    let text = |sql: &str| sql.replace("BAD", bad).replace("ok", ok);
    let ready = |one: &&str| *one == "S" || *one == "q" || one.starts_with("q ");
    let step = |step: &str| {
        let all: Vec<_> = step.split(" / ").map(str::trim).collect();
        Step {
            bytes: all
                .iter()
                .flat_map(|one| messages(one, text))
                .flatten()
                .collect(),
            ends: all.iter().copied().filter(ready).count(),
        }
    };
    script.split(" | ").map(step).collect()
}

fn messages(one: &str, text: impl Fn(&str) -> String) -> Vec<Vec<u8>> {
    let (kind, rest) = one.split_once(' ').unwrap_or((one, ""));
    let (first, second) = rest.split_once(' ').unwrap_or((rest, ""));
    let name = |name: &str| name.trim_start_matches('.').to_owned();
    let (first, named) = (name(first), second.trim_start_matches('.'));
    let typed = |kind: u8, body: String| message(kind, body.as_bytes());
    let execute = |portal: &str, rows: &str| typed(b'E', format!("{portal}\0\0\0\0{rows}"));
    let parse = |name: &str, sql: &str| typed(b'P', format!("{name}\0{}\0\0\0", text(sql)));
    vec![match kind {
        "q" | "q-" => query(text(rest).as_bytes()),
        "p" => parse(&first, second),
        "b" => typed(b'B', format!("{first}\0{named}\0\0\0\0\0\0\0")),
        "b+" => typed(b'B', format!("{first}\0{named}\0\0\0\0\x01\0\0\0\x01x\0\0")),
        "d" => typed(b'D', format!("{rest}\0")),
        "c" => typed(b'C', format!("{rest}\0")),
        "e" => execute(&first, "\0"),
        "e1" => execute(&first, "\x01"),
        "S" => message(b'S', b""),
        "H" => message(b'H', b""),
        "400" => {
            let once = messages(&format!("run {rest}"), text);
            return (0..400).flat_map(|_| once.clone()).collect();
        }
        "run" => {
            let bind = typed(b'B', "\0\0\0\0\0\0\0\0".to_owned());
            let describe = message(b'D', b"P\0");
            return vec![parse("", rest), bind, describe, execute("", "\0")];
        }
        _ => panic!("{one:?} is no message"),
    }]
}

/// One reply, without what is its own: rows, texts, and codes but for 25P02.
fn shown((kind, body): (u8, Vec<u8>)) -> Option<String> {
    let text = String::from_utf8_lossy(&body);
    Some(match kind {
        b'S' | b'N' => return None,
        b'Z' => format!("Z{text}"),
        b'C' => format!("C:{}", text.trim_end_matches('\0')),
        b'E' if text.contains("\0C25P02\0") => "E25".to_owned(),
        kind => char::from(kind).to_string(),
    })
}

/// Sends the steps one by one and reads their answers. A step with a Sync or a Query ends
/// with its last ReadyForQuery, another one with silence.
async fn play(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), steps: Vec<Step>) -> String {
    let mut said = Vec::new();
    for Step { bytes, ends } in steps {
        stream.write_all(&bytes).await.unwrap();
        let (mut seen, mut line) = (0, Vec::new());
        // Long enough for a slow machine; only a Flush has to wait for it.
        let silence = Duration::from_millis(if ends == 0 { 700 } else { 10_000 });
        while ends == 0 || seen < ends {
            match tokio::time::timeout(silence, read(stream)).await {
                Ok(Some(reply)) => {
                    seen += usize::from(reply.0 == b'Z');
                    line.extend(shown(reply));
                }
                Ok(None) => {
                    line.push("closed".to_owned());
                    break;
                }
                Err(_) if ends == 0 => break,
                Err(_) => {
                    line.push("silence".to_owned());
                    break;
                }
            }
        }
        said.push(line.join(" "));
    }
    // How many of many are in the unit that is refused is not in question.
    let many = "1 2 T D C:SELECT 1 ".repeat(2);
    let mut said = said.join(" | ");
    while said.contains(&many) {
        said = said.replace(&many, &many[..many.len() / 2]);
    }
    said
}

async fn direct(server: &PgServer, database: &str, user: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let packet = wire::startup(&[("user", user), ("database", database)]);
    stream.write_all(&packet).await.unwrap();
    while read(&mut stream).await.expect("the login goes on").0 != b'Z' {}
    stream
}

async fn gateway() -> Option<Gateway> {
    let server = need!(PgServer::start("trust"), "postgresql")?;
    let settings = Settings {
        rules: RULES.to_owned(),
        ..Settings::default()
    };
    Some(Gateway::with(&Arc::new(server).database(), settings).await)
}

async fn through(gateway: &Gateway, script: &str) -> String {
    let mut stream = gateway.wire(&gateway.agent("ada")).await;
    play(&mut stream, steps(script, DENIED, "SELECT 1")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_command_fails_in_its_place_as_the_servers_own_would() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let database = &gateway.database;
    let mut differences = Vec::new();
    for (fails, script) in CASES {
        let mut stream = direct(&database.server, &database.name, &database.user).await;
        let (expected, found) = tokio::join!(
            play(&mut stream, steps(script, fails, fails)),
            through(&gateway, script)
        );
        if expected != found {
            differences.push(format!("{script}\n  server  {expected}\n  gateway {found}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_it_does_not_the_client_has_an_error_and_nothing_is_committed() {
    let Some(gateway) = gateway().await else {
        return;
    };
    let mut differences = Vec::new();
    for (script, expected) in MEANT {
        let found = through(&gateway, script).await;
        // What the target happened to send of many answers is not in question.
        let found = found
            .replace("1 2 T D C:SELECT 1 ", "")
            .replace("1 2 T D C:SELECT 1", "");
        if found != expected.replace("… ", "") {
            differences.push(format!(
                "{script}\n  expected {expected}\n  gateway  {found}"
            ));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(!gateway.tap.saw("COMMIT"));
}
