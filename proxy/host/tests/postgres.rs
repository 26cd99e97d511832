//! The PostgreSQL plugin in the real sandbox, with the limits that the gateway
//! gives it: texts made to exhaust a parser end as `unknown`, never as a trap,
//! and the next statement of the same instance is judged as ever. Five traps
//! would quarantine the plugin for everybody.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use holdpoint_core::command::Operation;
use holdpoint_core::config;
use holdpoint_core::framing::Side;
use holdpoint_core::plugin::{
    Action, AuthError, Exchange, Frame, IdentityOutcome, Setup, UpstreamAuth,
};
use holdpoint_host::{Classifier, Engine, Limits, Plugin, Session};

/// The depth at which `plugins/postgres` stops parsing (`shape.rs`).
const MAX_DEPTH: usize = 300;

fn classifier() -> Classifier {
    plugin().classifier()
}

fn plugin() -> Plugin {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/postgres");
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../plugins");
    let built = holdpoint_plugin_build::build(&dir, &out).unwrap();
    let budget = config::Plugin::default();
    let limits = Limits {
        call: budget.cpu_budget,
        memory: usize::try_from(budget.memory).unwrap(),
        ..Limits::default()
    };
    let engine = Engine::new(limits, None).unwrap();
    engine
        .load(&std::fs::read(built.path).unwrap(), None)
        .unwrap()
}

/// A target that trusts.
struct Trusted;

impl UpstreamAuth for Trusted {
    fn username(&self) -> String {
        "app".to_owned()
    }

    fn start(&mut self, _: &str) -> Result<Box<dyn Exchange>, AuthError> {
        Err(AuthError::NoCredential)
    }
}

struct Talk {
    session: Session,
    seq: u64,
}

impl Talk {
    fn told(&mut self, side: Side, messages: &[(u8, &str)]) -> Vec<Action> {
        let frames: Vec<Frame> = messages
            .iter()
            .map(|(kind, body)| {
                self.seq += 1;
                Frame {
                    seq: self.seq,
                    kind: (*kind != 0).then_some(*kind),
                    body: Bytes::copy_from_slice(body.as_bytes()),
                }
            })
            .collect();
        self.session.on_frames(side, &frames).unwrap()
    }

    /// What the command does that this text is.
    fn asked(&mut self, sql: &str) -> Arc<[Operation]> {
        let actions = self.told(Side::Client, &[(b'Q', &format!("{sql}\0"))]);
        let [Action::Submit(submission)] = actions.as_slice() else {
            panic!("{actions:?}");
        };
        let operations = Arc::clone(&submission.command.operations);
        self.told(Side::Upstream, &[(b'C', "SELECT 1\0"), (b'Z', "I")]);
        operations
    }
}

#[test]
fn what_was_told_by_number_means_the_same_once_the_instance_was_made_again() {
    let setup = Setup {
        settings: vec![("upstream_tls".to_owned(), "off".to_owned())],
        client_tls: true,
        entropy: [7; 32],
    };
    let session = plugin().session(setup, Box::new(Trusted)).unwrap();
    let mut talk = Talk { session, seq: 0 };
    talk.session.open().unwrap();
    let hello = "\0\x03\0\0user\0agent\0database\0shop\0\0";
    talk.told(Side::Client, &[(0, hello)]);
    let accepted = IdentityOutcome::Accepted {
        subject: "agent".to_owned(),
        label: "agent".to_owned(),
        groups: Vec::new(),
    };
    talk.session.on_identity(&accepted).unwrap();
    let ready = [
        (b'R', "\0\0\0\0"),
        (b'S', "client_encoding\0UTF8\0"),
        (b'S', "standard_conforming_strings\0on\0"),
        (b'K', "\0\0\0\x07\0\0\0\x09"),
        (b'Z', "I"),
    ];
    talk.told(Side::Upstream, &ready);
    let (read, write) = (talk.asked("SELECT a FROM t"), talk.asked("DELETE FROM u"));
    assert_eq!(
        (read[0].class.as_str(), write[0].class.as_str()),
        ("read", "write")
    );
    // The very same: it was looked up and not told.
    assert!(Arc::ptr_eq(&talk.asked("SELECT a FROM t"), &read));
    for _ in 0..2 {
        talk.session.rest(None);
        assert!(!talk.session.is_awake());
        let again = talk.asked("DELETE FROM u");
        assert!(
            !Arc::ptr_eq(&again, &write),
            "nothing is kept while it rests"
        );
        assert_eq!(again, write);
        assert_eq!(talk.asked("SELECT a FROM t"), read);
    }
}

/// The worst class, and how long it took.
fn class(classifier: &mut Classifier, name: &str, sql: &str) -> (String, Duration) {
    let order = [
        "session",
        "transaction",
        "read",
        "copy_out",
        "write",
        "copy_in",
        "maintenance",
        "ddl",
        "dcl",
        "procedural",
        "function_effect",
        "unknown",
    ];
    let start = Instant::now();
    let answer = classifier.classify(&[("sql".to_owned(), sql.as_bytes().to_vec())]);
    let took = start.elapsed();
    let command = answer.unwrap_or_else(|error| panic!("{name}: {error}"));
    let rank = |class: &str| order.iter().position(|word| *word == class).unwrap();
    let worst = command
        .operations
        .iter()
        .map(|op| op.class.clone())
        .max_by_key(|class| rank(class));
    (worst.unwrap_or_default(), took)
}

/// A head, a part that nests or chains, a middle, and what closes each part.
const SHAPES: [(&str, &str, &str, &str, &str); 34] = [
    ("parentheses", "SELECT ", "(", "1", ")"),
    ("sub-selects", "", "SELECT (", "1", ")"),
    (
        "sub-selects in FROM",
        "SELECT * FROM ",
        "(SELECT * FROM ",
        "t",
        ") x",
    ),
    ("unions", "SELECT 1", " UNION ALL SELECT 1", "", ""),
    ("bracketed unions", "", "(SELECT 1 UNION ", "SELECT 1", ")"),
    ("terms", "SELECT 1", "-1", "", ""),
    ("negations", "SELECT ", "NOT ", "a", ""),
    ("signs", "SELECT ", "- ", "a", ""),
    ("casts", "SELECT a", "::int", "", ""),
    ("subscripts", "SELECT a", "[1]", "", ""),
    ("fields", "SELECT a", ".b", "", ""),
    ("cases", "SELECT ", "CASE WHEN a THEN ", "1", " END"),
    ("joins", "SELECT * FROM a", " JOIN b ON true", "", ""),
    (
        "bracketed joins",
        "SELECT * FROM ",
        "(a JOIN ",
        "b",
        " ON true)",
    ),
    ("arrays", "SELECT ", "ARRAY[", "1", "]"),
    ("calls", "SELECT ", "lower(", "a", ")"),
    ("rows", "SELECT ", "ROW(1,", "1", ")"),
    ("in-lists", "SELECT ", "1 IN (", "1", ")"),
    ("withs", "", "WITH a AS (", "SELECT 1", ") SELECT 1"),
    ("explains", "", "EXPLAIN ", "SELECT 1", ""),
    ("conditions", "SELECT 1 WHERE a", " AND a", "", ""),
    ("collations", "SELECT a", " COLLATE \"C\"", "", ""),
    ("tests", "SELECT a", " IS NULL", "", ""),
    ("zones", "SELECT a", " AT TIME ZONE 'x'", "", ""),
    ("coalesces", "SELECT ", "coalesce(a,", "1", ")"),
    ("filters", "SELECT ", "count(*) FILTER (WHERE ", "a", ")"),
    ("exists", "SELECT ", "EXISTS (SELECT ", "1", ")"),
    ("json", "SELECT ", "json_object('a': ", "1", ")"),
    ("xml", "SELECT ", "xmlelement(name a, ", "b", ")"),
    ("values", "", "VALUES ((", "1", "))"),
    ("types", "SELECT a::", "numeric(", "1", ")"),
    ("betweens", "SELECT ", "a BETWEEN b AND (", "1", ")"),
    ("schemas", "", "CREATE SCHEMA a ", "", ""),
    ("operators", "SELECT a", " OPERATOR(pg_catalog.+) a", "", ""),
];

#[test]
fn no_nesting_traps_whatever_its_depth() {
    let mut classifier = classifier();
    for (name, head, part, middle, close) in SHAPES {
        let mut parsed = 0;
        // Every depth around the limit, where a tree is at its deepest, and far past it.
        let near = (1..=12).map(|step| MAX_DEPTH * step / 12);
        for depth in near.chain([MAX_DEPTH - 1, MAX_DEPTH + 1, 1000, 20_000]) {
            let text = format!(
                "{head}{}{middle}{}",
                part.repeat(depth),
                close.repeat(depth)
            );
            let (class, _) = class(&mut classifier, &format!("{depth} {name}"), &text);
            if class != "unknown" {
                parsed = depth;
            }
        }
        println!("{name}: judged up to {parsed}");
        assert_eq!(
            class(&mut classifier, name, "SELECT 1").0,
            "read",
            "after {name}"
        );
    }
}

#[test]
fn large_texts_are_answered_within_the_budget_and_the_next_statement_is_judged() {
    let mut classifier = classifier();
    let mib = 1 << 20;
    for (name, text) in [
        ("blanks", format!("SELECT 1{}", " ".repeat(mib - 100))),
        (
            "too many blanks",
            format!("SELECT 1{}", " ".repeat(8 * mib)),
        ),
        ("statements", "SELECT 1;".repeat(100_000)),
        (
            "different statements",
            (0..1000)
                .map(|n| format!("SELECT a{n} FROM t{n};"))
                .collect(),
        ),
        (
            "comments",
            format!("{}SELECT 1{}", "/*".repeat(100_000), "*/".repeat(100_000)),
        ),
        (
            "rows",
            format!("INSERT INTO t VALUES {}(1)", "(1),".repeat(200_000)),
        ),
        (
            "different rows",
            format!(
                "INSERT INTO t VALUES {}(1)",
                (0..60_000).map(|n| format!("(a{n}),")).collect::<String>()
            ),
        ),
        ("columns", format!("SELECT {}1", "a, ".repeat(20_000))),
        ("quotes", "';".repeat(400_000)),
        ("dollars", "$a$ ".repeat(200_001)),
        ("names", "\"a\".".repeat(200_000)),
        ("operators", format!("SELECT {}", "+ ".repeat(400_000))),
        (
            "strings in a server",
            format!("ALTER SERVER s {}", "x 'y',".repeat(150_000)),
        ),
        ("passwords", "password ''".repeat(90_000)),
        ("brackets", "(".repeat(mib - 1)),
        ("closing brackets", ")".repeat(mib - 1)),
        ("errors", "SELECT FROM WHERE ".repeat(3500)),
        ("commas", format!("SELECT {}", ",".repeat(60_000))),
        ("joins of errors", "with from with ".repeat(4000)),
        ("parameters", format!("SELECT {}1", "$1,".repeat(20_000))),
        ("identifiers", format!("SELECT {}", "é".repeat(30_000))),
    ] {
        let (class, took) = class(&mut classifier, name, &text);
        println!("{name}: {class}, {} ms", took.as_millis());
        let (next, _) = self::class(&mut classifier, name, "SELECT 1");
        assert_eq!(next, "read", "after {name}");
    }
}
