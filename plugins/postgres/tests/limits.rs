//! Texts made to exhaust a parser. It recurses, so a text that nests too deep
//! must be turned away before it is parsed: natively a stack that overflows
//! ends the process, and no test could catch that.

#![allow(clippy::unwrap_used, reason = "a test may fail by it")]

use std::time::{Duration, Instant};

use holdpoint_plugin_postgres::classify;

/// The stack of a plugin in the gateway.
const STACK: usize = 1 << 20;

/// The worst class of a text, judged on a stack as small as the gateway's.
fn class(text: String) -> String {
    let judge = move || {
        let command = classify(vec![("sql".to_owned(), text.into_bytes())]).unwrap();
        let order = holdpoint_plugin_postgres::describe().classes;
        let rank = |class: &str| order.iter().position(|word| word == class);
        command
            .operations
            .into_iter()
            .map(|op| op.class)
            .max_by_key(|class| rank(class))
            .unwrap()
    };
    std::thread::Builder::new()
        .stack_size(STACK)
        .spawn(judge)
        .unwrap()
        .join()
        .unwrap()
}

#[test]
fn deep_nesting_is_unknown_and_ends_no_process() {
    let many = |part: &str, count: usize| part.repeat(count);
    for (name, text) in [
        (
            "parentheses",
            format!("SELECT {}1{}", many("(", 10_000), many(")", 10_000)),
        ),
        ("open parentheses", format!("SELECT {}", many("(", 10_000))),
        (
            "unions",
            format!("SELECT 1{}", many(" UNION ALL SELECT 1", 20_000)),
        ),
        (
            "sub-selects",
            format!("{}1{}", many("SELECT (", 10_000), many(")", 10_000)),
        ),
        ("terms", format!("SELECT 1{}", many("-1", 100_000))),
        ("negations", format!("SELECT {} a", many("NOT ", 50_000))),
        ("signs", format!("SELECT {} a", many("- ", 50_000))),
        ("casts", format!("SELECT a{}", many("::int", 50_000))),
        ("subscripts", format!("SELECT a{}", many("[1]", 50_000))),
        ("fields", format!("SELECT a{}", many(".b", 50_000))),
        ("cases", format!("SELECT {}", many("CASE WHEN ", 20_000))),
        (
            "joins",
            format!("SELECT * FROM a{}", many(" JOIN b ON true", 20_000)),
        ),
        ("arrays", format!("SELECT {}", many("ARRAY[", 20_000))),
        ("explains", format!("{} SELECT 1", many("EXPLAIN ", 20_000))),
        (
            "prepares",
            format!("{} SELECT 1", many("PREPARE a AS ", 20_000)),
        ),
        ("withs", many("WITH a AS (", 20_000)),
        (
            "collations",
            format!("SELECT a{}", many(" COLLATE \"C\"", 20_000)),
        ),
        ("tests", format!("SELECT a{}", many(" IS NULL", 20_000))),
        (
            "zones",
            format!("SELECT a{}", many(" AT TIME ZONE 'x'", 20_000)),
        ),
        ("schemas", many("CREATE SCHEMA a ", 20_000)),
        ("queries without an end", many("from with ", 2500)),
        (
            "cases and commas",
            format!("SELECT {}", many("case , ", 2500)),
        ),
        (
            "tests without an end",
            format!("SELECT * FROM {}", many("exists left ", 2500)),
        ),
        (
            "rows without an end",
            format!("SELECT * FROM {}", many("row left ", 2500)),
        ),
        (
            "joins without an end",
            format!("SELECT * FROM {}", many("exists natural ", 2500)),
        ),
        ("conditions without an end", many("where with ", 20_000)),
    ] {
        assert_eq!(class(text), "unknown", "{name}");
    }
}

/// What people write nests far less than the limit.
#[test]
fn ordinary_depth_is_judged() {
    let nested = format!("SELECT {}1{}", "(".repeat(40), ")".repeat(40));
    assert_eq!(class(nested), "read");
    assert_eq!(
        class(format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(60))),
        "read"
    );
    assert_eq!(
        class(format!(
            "SELECT * FROM t WHERE a = 1{}",
            " OR a = 2".repeat(80)
        )),
        "read"
    );
    assert_eq!(
        class(format!("SELECT 1 IN ({}1)", "1, ".repeat(50_000))),
        "read"
    );
}

#[test]
fn limits_on_size_and_count_hold() {
    assert_eq!(
        class(format!("SELECT '{}'", "x".repeat(1 << 20))),
        "unknown"
    );
    assert_eq!(class("SELECT 1;".repeat(1000)), "read");
    assert_eq!(class("SELECT 1;".repeat(1001)), "unknown");
}

/// `settings` of a line of `holdpoint classify`.
#[test]
fn caps_are_settings_and_hold_at_their_edges() {
    let class = |cap: &str, value: &str, text: String| {
        let fields = vec![
            (format!("settings.{cap}"), value.as_bytes().to_vec()),
            ("sql".to_owned(), text.into_bytes()),
        ];
        classify(fields).map(|command| command.operations.last().unwrap().class.clone())
    };
    let literal = |size: usize| format!("SELECT '{}'", "x".repeat(size - 9));
    let ones = |count: usize| format!("SELECT 1{}", ", 1".repeat(count - 1));
    for (cap, value, within, past) in [
        ("max_statement", "4KiB", literal(4096), literal(4097)),
        (
            "max_statements",
            "3",
            "SELECT 1;".repeat(3),
            "SELECT 1;".repeat(4),
        ),
        ("max_tokens", "100", ones(50), ones(51)),
        (
            "max_parsed",
            "14",
            "SELECT a, b, c".to_owned(),
            "SELECT a, b, cd".to_owned(),
        ),
        (
            "max_nesting",
            "20",
            "SELECT ((1))".to_owned(),
            format!("SELECT {}1{}", "(".repeat(21), ")".repeat(21)),
        ),
    ] {
        assert_eq!(class(cap, value, within), Ok("read".to_owned()), "{cap}");
        assert_eq!(class(cap, value, past), Ok("unknown".to_owned()), "{cap}");
        let wrong = class(cap, "many", "SELECT 1".to_owned()).unwrap_err();
        assert!(wrong.contains(cap), "{wrong}");
    }
}

/// A server's lexer takes the signs behind each comment for an operator first: 200 KB
/// of this keep it busy for a minute.
#[test]
fn what_a_server_reads_over_and_over_is_unknown() {
    for (text, class_of) in [
        (format!("SELECT 1{}", "/**/".repeat(200)), "read"),
        (format!("SELECT 1{}", "/**/".repeat(300)), "unknown"),
        (format!("SELECT 1{}", " /**/".repeat(10_000)), "read"),
        (format!("SELECT 1 {}", "/*".repeat(501)), "unknown"),
        (format!("SELECT 1 +{}1", "/**/+".repeat(300)), "unknown"),
        (format!("/*{}*/ SELECT 1", "*".repeat(900)), "read"),
        (format!("SELECT '{}'", "/*".repeat(5000)), "read"),
        (format!("--{}\nSELECT 1", "-".repeat(5000)), "read"),
    ] {
        assert_eq!(class(text.clone()), class_of, "{text:.40}");
    }
}

#[test]
fn a_bulk_insert_is_a_write_however_many_rows_it_has() {
    let rows = "(1, 'x', NULL), ".repeat(60_000);
    assert_eq!(
        class(format!("INSERT INTO t VALUES {rows}(1, 'x', NULL)")),
        "write"
    );
    assert_eq!(
        class(format!("SELECT {}1", "a, ".repeat(30_000))),
        "unknown"
    );
}

#[test]
fn large_texts_take_time_in_proportion() {
    for text in [
        format!("{}SELECT 1{}", "/*".repeat(100_000), "*/".repeat(100_000)),
        format!("SELECT 1{}", " ".repeat((1 << 20) - 100)),
        format!("INSERT INTO t VALUES {}(1)", "(1),".repeat(200_000)),
        "';".repeat(400_000),
        "$a$ ".repeat(200_001),
        "\"a\".".repeat(200_000),
    ] {
        let start = Instant::now();
        let _ = classify(vec![("sql".to_owned(), text.into_bytes())]);
        // A quadratic step would take minutes; the margin is for a busy machine.
        assert!(start.elapsed() < Duration::from_secs(20));
    }
}
