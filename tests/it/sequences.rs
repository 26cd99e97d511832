//! Messages in random order, at random times: whatever names, portals and transactions come
//! out of it, no write runs that no rule allows, and no masked value reaches the client.
//!
//! `tricks` has the orders that somebody thought of. `HOLDPOINT_SEED` plays the same sessions
//! again, though not with the same delays; `HOLDPOINT_SEQUENCES` sets how many.

use std::sync::Arc;
use std::time::Duration;

use holdpoint_tests::random::Seeded;
use holdpoint_tests::wire::{Tls, message};
use holdpoint_tests::{Gateway, PgServer, Settings, need};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::tricks::RULES;

/// Beside the rules of the tricks.
const MASK: &str = r#"
[[mask]]
name = "numbers"
columns = ["public.customers.ssn"]
"#;

const CANARY: &str = "canary-a81c55";

/// `hits` moves whenever a write runs that no rule allows, committed or not.
fn tables() -> String {
    format!(
        "CREATE SEQUENCE hits MINVALUE -1 START -1; SELECT setval('hits', -1);
         CREATE TABLE scratch (n int); CREATE TABLE customers (ssn text, id int);
         INSERT INTO customers VALUES ('{CANARY}-1', 1), ('{CANARY}-2', 2), ('{CANARY}-3', 3);"
    )
}

/// One session's messages, made as they are sent.
struct Sender {
    random: Seeded,
    session: u64,
    /// For whoever looks at a failure.
    sent: Vec<String>,
}

impl Sender {
    fn one_of(&mut self, of: &[&'static str]) -> &'static str {
        let bound = u64::try_from(of.len()).unwrap();
        of[usize::try_from(self.random.below(bound)).unwrap()]
    }

    fn statement(&mut self) -> &'static str {
        self.one_of(&["", "s", "s", "t"])
    }

    fn portal(&mut self) -> &'static str {
        self.one_of(&["", "", "c", "d"])
    }

    /// What reads, shows a masked column, or would write.
    fn query(&mut self) -> String {
        match self.random.below(10) {
            0..4 => format!("SELECT {}", self.random.below(100)),
            4 => "VALUES (1), (2), (3)".to_owned(),
            5 => "SELECT ssn FROM customers".to_owned(),
            6 => "SELECT id, ssn FROM customers".to_owned(),
            7 => "SELECT id, id FROM customers".to_owned(),
            _ => format!("SELECT setval('hits', {})", self.session),
        }
    }

    fn text(&mut self) -> String {
        let (s, c) = (self.one_of(&["s", "t"]), self.one_of(&["c", "d"]));
        match self.random.below(24) {
            0..6 => self.query(),
            6 => format!("PREPARE {s} AS {}", self.query()),
            7 | 8 => format!("EXECUTE {s}"),
            9 => format!("DEALLOCATE {}", self.one_of(&["s", "t", "ALL"])),
            10 => {
                let hold = self.one_of(&["", "", "WITH HOLD "]);
                format!("DECLARE {c} CURSOR {hold}FOR {}", self.query())
            }
            11 => format!("FETCH {}{c}", self.one_of(&["", "ALL "])),
            12 => format!("MOVE {c}"),
            13 => format!("CLOSE {}", self.one_of(&["c", "d", "ALL"])),
            14 => self
                .one_of(&["BEGIN", "BEGIN", "COMMIT", "ROLLBACK"])
                .to_owned(),
            15 => "BEGIN".to_owned(),
            16 => self
                .one_of(&["COMMIT", "ROLLBACK", "COMMIT AND CHAIN"])
                .to_owned(),
            17 => self
                .one_of(&["SAVEPOINT a", "ROLLBACK TO a", "RELEASE a"])
                .to_owned(),
            18 => self.one_of(&["SELECT 1/0", "SELEC", ""]).to_owned(),
            19 => self
                .one_of(&["COPY scratch FROM STDIN", "COPY scratch TO STDOUT"])
                .to_owned(),
            20 => self
                .one_of(&["DISCARD ALL", "RESET ALL", "SELECT 1/0"])
                .to_owned(),
            21 => "INSERT INTO scratch VALUES (1)".to_owned(),
            22 => format!("EXPLAIN EXECUTE {s}"),
            _ => format!("EXPLAIN ANALYZE {}", self.query()),
        }
    }

    fn say(&mut self, said: String, kind: u8, body: &[u8]) -> Vec<u8> {
        self.sent.push(said);
        message(kind, body)
    }

    fn parse(&mut self, name: &str) -> Vec<u8> {
        let text = if self.random.below(3) == 0 {
            self.text()
        } else {
            self.query()
        };
        let body = format!("{name}\0{text}\0\0\0");
        self.say(format!("Parse {name:?} {text}"), b'P', body.as_bytes())
    }

    fn bind(&mut self, portal: &str, name: &str) -> Vec<u8> {
        let format = u8::try_from(self.random.below(2)).unwrap();
        let mut body = format!("{portal}\0{name}\0\0\0\0\0").into_bytes();
        body.extend_from_slice(&[0, 1, 0, format]);
        self.say(format!("Bind {portal:?} {name:?} {format}"), b'B', &body)
    }

    fn execute(&mut self, portal: &str) -> Vec<u8> {
        let rows = u8::try_from(self.random.below(3)).unwrap();
        let mut body = format!("{portal}\0").into_bytes();
        body.extend_from_slice(&[0, 0, 0, rows]);
        self.say(format!("Execute {portal:?} {rows}"), b'E', &body)
    }

    fn about(&mut self, what: &str, kind: u8) -> Vec<u8> {
        let (space, name) = match self.random.below(2) {
            0 => ("S", self.statement()),
            _ => ("P", self.portal()),
        };
        let said = format!("{what} {space} {name:?}");
        self.say(said, kind, format!("{space}{name}\0").as_bytes())
    }

    fn end(&mut self) -> Vec<u8> {
        match self.random.below(4) {
            0 => self.say("Flush".to_owned(), b'H', b""),
            _ => self.say("Sync".to_owned(), b'S', b""),
        }
    }

    fn messages(&mut self) -> Vec<u8> {
        let (name, portal) = (self.statement(), self.portal());
        match self.random.below(16) {
            0..4 => {
                let texts: Vec<_> = (0..=self.random.below(3)).map(|_| self.text()).collect();
                let text = texts.join("; ");
                self.say(
                    format!("Query {text}"),
                    b'Q',
                    format!("{text}\0").as_bytes(),
                )
            }
            4 | 5 => [
                self.parse(name),
                self.bind(portal, name),
                self.execute(portal),
                self.end(),
            ]
            .concat(),
            6 | 7 => [self.bind(portal, name), self.execute(portal), self.end()].concat(),
            8 => self.parse(name),
            9 => self.bind(portal, name),
            10 => self.execute(portal),
            11 => self.about("Close", b'C'),
            12 => self.about("Describe", b'D'),
            13 | 14 => self.end(),
            _ => match self.random.below(3) {
                0 => self.say("CopyData".to_owned(), b'd', b"1\n"),
                1 => self.say("CopyDone".to_owned(), b'c', b""),
                _ => self.say("CopyFail".to_owned(), b'f', b"no\0"),
            },
        }
    }
}

/// Reads what comes until nothing does for a while. Whether the session goes on.
async fn listen(stream: &mut Tls, heard: &mut Vec<u8>, quiet: Duration) -> bool {
    loop {
        match timeout(quiet, stream.read_buf(heard)).await {
            Err(_) => return true,
            Ok(Ok(0) | Err(_)) => return false,
            Ok(Ok(_)) => {}
        }
    }
}

/// Plays one session; what was sent, and what came.
async fn play(
    gateway: Arc<Gateway>,
    token: Arc<str>,
    random: Seeded,
    session: u64,
) -> (Vec<String>, Vec<u8>) {
    let mut stream = gateway.wire(&token).await;
    let (sent, mut heard) = (Vec::new(), Vec::new());
    let mut sender = Sender {
        random,
        session,
        sent,
    };
    // Sessions that begin alike would look alike to the oracle.
    let first = format!("SELECT {session}");
    let mut next = sender.say(
        format!("Query {first}"),
        b'Q',
        format!("{first}\0").as_bytes(),
    );
    for _ in 0..30 {
        for _ in 0..sender.random.below(4) {
            next.extend(sender.messages());
        }
        if stream.write_all(&next).await.is_err() {
            break;
        }
        let wait = [0, 1, 5, 20][usize::try_from(sender.random.below(4)).unwrap()];
        sender.sent.push(format!("-- {wait} ms"));
        if !listen(&mut stream, &mut heard, Duration::from_millis(wait)).await {
            break;
        }
        next.clear();
    }
    let _ = stream.write_all(&message(b'X', b"")).await;
    listen(&mut stream, &mut heard, Duration::from_millis(200)).await;
    (sender.sent, heard)
}

async fn nothing_gets_past(server: Arc<PgServer>) {
    let database = server.database();
    database.direct().run(&tables()).unwrap_done();
    let settings = Settings {
        rules: format!("{RULES}{MASK}"),
        log: "holdpoint=info".to_owned(),
        ..Settings::default()
    };
    let gateway = Arc::new(Gateway::with(&database, settings).await);
    gateway.keep_secret(CANARY);
    let token = Arc::from(gateway.agent("ada"));
    let given = std::env::var("HOLDPOINT_SEQUENCES").ok();
    let sessions: u64 = given.map_or(160, |text| text.parse().unwrap());
    let mut seeds = Seeded::new("sequences");
    let (mut rows, mut refused, mut masked) = (0, 0, 0);
    for batch in 0..sessions.div_ceil(8) {
        let mut plays = JoinSet::new();
        for session in batch * 8..batch * 8 + 8 {
            let random = seeds.fork();
            let (gateway, token) = (Arc::clone(&gateway), Arc::clone(&token));
            plays.spawn(async move { (session, play(gateway, token, random, session).await) });
        }
        let mut played = plays.join_all().await;
        played.sort_by_key(|(session, _)| *session);
        for (session, (sent, heard)) in &played {
            let heard = String::from_utf8_lossy(heard);
            assert!(
                !heard.contains(CANARY),
                "session {session}:\n{}",
                sent.join("\n")
            );
            let faulty = heard.contains("HP-PLUGIN");
            assert!(!faulty, "session {session}: a fault:\n{}", sent.join("\n"));
            rows += heard.matches("SELECT 1\0").count();
            refused += heard.matches("not here").count();
            masked += heard.matches("***").count();
        }
        let hit = database.value("SELECT last_value FROM hits");
        if let Some((_, (sent, _))) = played
            .iter()
            .find(|(session, _)| session.to_string() == hit)
        {
            panic!("session {hit}:\n{}", sent.join("\n"));
        }
    }
    let hit = database.value("SELECT last_value FROM hits");
    assert_eq!(hit, "-1", "some session of an earlier batch");
    eprintln!(
        "sequences: {rows} reads of one row answered, {refused} refused, {masked} values masked"
    );
    assert!(
        rows > 0 && refused > 0 && masked > 0,
        "the test tries nothing"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_order_of_messages_runs_a_write_or_shows_what_is_masked() {
    if let Some(server) = need!(PgServer::shared(), "postgresql") {
        nothing_gets_past(server).await;
    }
}
