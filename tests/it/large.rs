//! Texts and values at the edges of what is judged, and texts made to exhaust the plugin:
//! each is answered, and the next command on the same session works.
//!
//! That a text was answered at all bounds its cost: the host ends a call of the plugin
//! that uses more than 250 ms of CPU or 128 MiB, and the session with it.

use holdpoint_tests::needs::{self, workspace};
use holdpoint_tests::wire::{Tls, query, read_all};
use holdpoint_tests::{Gateway, PgServer, Settings, need};
use tokio::io::AsyncWriteExt as _;

/// What is not known is denied, and what is proven passes.
const RULES: &str = r#"
[[rule]]
name = "known"
match = { classes = ["read", "session", "transaction", "copy_out", "copy_in", "write"], confidence = "proven" }
allow = true

[[rule]]
name = "not-known"
deny = "not here"
"#;

async fn gateway(target_settings: &str, more: &str) -> Option<Gateway> {
    let server = need!(PgServer::shared(), "postgresql")?;
    let database = server.database();
    let table = "CREATE TABLE large (x text, b bytea)";
    database.direct().run(table).unwrap_done();
    let settings = Settings {
        rules: RULES.to_owned(),
        target_settings: target_settings.to_owned(),
        more: more.to_owned(),
        ..Settings::default()
    };
    Some(Gateway::with(&database, settings).await)
}

async fn ask(stream: &mut Tls, sql: &str) -> String {
    stream.write_all(&query(sql.as_bytes())).await.unwrap();
    let (kinds, text) = read_all(stream).await;
    if kinds.contains('E') { text } else { kinds }
}

#[tokio::test(flavor = "multi_thread")]
async fn caps_of_a_target_hold_at_their_edges() {
    let settings = r#", max_statement = "4KiB", max_statements = "3", max_nesting = "20", max_tokens = "100", max_parsed = "300""#;
    let Some(gateway) = gateway(settings, "").await else {
        return;
    };
    let mut stream = gateway.wire(&gateway.agent("ada")).await;
    let literal = |size: usize| format!("SELECT '{}'", "x".repeat(size - 9));
    let nested = |depth: usize| format!("SELECT {}1{}", "(".repeat(depth), ")".repeat(depth));
    let listed = |count: usize| format!("SELECT {}1", "a, ".repeat(count).replace("a, ", "1, "));
    let named = |count: usize| format!("SELECT {}id FROM invoices", "customer, id, ".repeat(count));
    for (what, within, past) in [
        ("max_statement", literal(4096), literal(4097)),
        (
            "max_statements",
            "SELECT 1;".repeat(3),
            "SELECT 1;".repeat(4),
        ),
        ("max_nesting", nested(4), nested(40)),
        // SELECT, two for each item but one.
        ("max_tokens", listed(49), listed(50)),
        ("max_parsed", named(5), named(24)),
    ] {
        let passed = ask(&mut stream, &within).await;
        assert!(passed.ends_with('Z'), "{what}: {passed}");
        let refused = ask(&mut stream, &past).await;
        assert!(refused.contains("42501"), "{what}: {refused}");
    }
    assert_eq!(ask(&mut stream, "SELECT 1").await, "TDCZ");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cap_that_makes_no_sense_is_found_before_anything_is_served() {
    let Some(gateway) = gateway("", "").await else {
        return;
    };
    let good = gateway.read("holdpoint.toml");
    for (setting, said) in [
        (
            r#"max_statement = "1 MB""#,
            r#"`max_statement` is a size such as "64KiB" or "1MiB", at most "64MiB", not "1 MB""#,
        ),
        (
            r#"max_statements = "0""#,
            r#"`max_statements` is a number from "1" to "100000", not "0""#,
        ),
        (
            r#"max_nesting = "301""#,
            r#"`max_nesting` is a number from "1" to "300", not "301""#,
        ),
        (
            r#"max_statment = "1MiB""#,
            "there is no setting `max_statment`: there are `database`,",
        ),
    ] {
        let bad = good.replacen("settings = { ", &format!("settings = {{ {setting}, "), 1);
        gateway.rewrite("holdpoint.toml", &bad);
        let done = gateway.holdpoint(&["check", "--offline"]);
        let errors = String::from_utf8_lossy(&done.stderr);
        assert!(!done.status.success(), "{setting}");
        assert!(errors.contains(said), "{setting}: {errors}");
        assert!(errors.contains("[target.shop.settings]"), "{errors}");
    }
    // A gateway that runs keeps what it has.
    gateway.signal("HUP");
    let done = gateway.psql().run("SELECT 1");
    assert_eq!(done.stdout, "1\n", "{}", done.stderr);
    gateway.rewrite("holdpoint.toml", &good);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_made_to_exhaust_the_plugin_is_not_known_and_the_next_command_works() {
    let Some(gateway) = gateway("", "").await else {
        return;
    };
    let many = |part: &str, count: usize| part.repeat(count);
    let mut stream = gateway.wire(&gateway.agent("ada")).await;
    for (what, text) in [
        (
            "parentheses",
            format!("SELECT {}1{}", many("(", 200_000), many(")", 200_000)),
        ),
        ("statements", many("SELECT 1;", 100_000)),
        ("short statements", many("a;", 500_000)),
        ("a MiB of blanks", format!("SELECT 1{}", many(" ", 1 << 20))),
        ("a MiB of signs", many(",", 1 << 20)),
        ("a MiB of words", many("a ", 1 << 19)),
        ("a MiB of strings", many("'',", 349_525)),
        ("quotes", many("';", 500_000)),
        (
            "signs and comments in turn",
            format!("SELECT {}1", many("+/**/", 200_000)),
        ),
        (
            "comments",
            format!("SELECT 1{}{}", many("/*", 200_000), many("*/", 200_000)),
        ),
        ("dollars", many("$a$ ", 250_001)),
        ("terms", format!("SELECT 1{}", many("-1", 500_000))),
        (
            "unions",
            format!("SELECT 1{}", many(" UNION ALL SELECT 1", 50_000)),
        ),
        ("names", format!("SELECT 1 FROM {}a", many("a.", 500_000))),
        ("passwords", many("PASSWORD 'x' ", 80_000)),
        ("cases", format!("SELECT {}", many("CASE WHEN ", 100_000))),
    ] {
        let said = ask(&mut stream, &text).await;
        assert!(
            said.contains("42501") && said.contains("HP-DENIED"),
            "{what}: {said}"
        );
        assert_eq!(ask(&mut stream, "SELECT 1").await, "TDCZ", "after {what}");
    }
}

/// As much as one command may have: 16 MiB less its frame.
#[tokio::test(flavor = "multi_thread")]
async fn values_and_data_of_16_mb_pass_and_a_text_of_it_is_refused_in_form() {
    // A host that is not optimized takes each byte out of the plugin by itself.
    let more = "[plugin.postgres]\ncpu_budget = \"3s\"\n";
    let Some(gateway) = gateway("", more).await else {
        return;
    };
    let size = (16 << 20) - 4096;
    let said = python(&gateway, "large");
    let Some(said) = said else { return };
    let expected = format!(
        "parameters 2 {size} {size}\ncopied True\nliteral 42501 HP-DENIED: Not executed. not here\nusable 7\n"
    );
    assert!(said.starts_with(&expected), "{said}\nexpected {expected}");
}

/// With caps and a budget that fit, the text is read to its end like any other.
#[tokio::test(flavor = "multi_thread")]
async fn a_text_of_16_mb_is_judged_where_the_caps_allow() {
    let more = "[plugin.postgres]\ncpu_budget = \"10s\"\nmemory = \"512MiB\"\n";
    let Some(gateway) = gateway(r#", max_statement = "16MiB""#, more).await else {
        return;
    };
    let Some(said) = python(&gateway, "large") else {
        return;
    };
    assert!(said.contains("\nliteral 1\nusable 7\n"), "{said}");
    // psql too: one literal, and what comes behind it is seen.
    let size = (16 << 20) - 4096;
    let file = gateway.dir.join("large.sql");
    let insert = format!("INSERT INTO large (x) VALUES ('{}');", "p".repeat(size));
    std::fs::write(&file, format!("{insert}\nSELECT 7;\n")).unwrap();
    let include = format!("\\i {}", file.display());
    let done = gateway.psql().run(&include);
    assert_eq!(done.stdout, "INSERT 0 1\n7\n", "{}", done.stderr);
    let hidden = format!(
        "SELECT '{}' \\; DROP TABLE large;\nSELECT 7;\n",
        "p".repeat(size)
    );
    std::fs::write(&file, hidden).unwrap();
    let done = gateway.psql().run(&include);
    assert!(done.stderr.contains("not here"), "{}", done.stderr);
    assert!(gateway.database.has_table("large"));
}

/// Whatever of the command is still on its way, psycopg reads the reason.
#[tokio::test(flavor = "multi_thread")]
async fn who_sends_a_command_past_the_limit_is_told_so_by_libpq() {
    let Some(gateway) = gateway("", "").await else {
        return;
    };
    let Some(said) = python(&gateway, "too-large") else {
        return;
    };
    let lines: Vec<&str> = said.lines().collect();
    let told = "too large 08P01 True ";
    let why = "a command is larger than 16777216 bytes";
    assert_eq!(lines.len(), 2, "{said}");
    for line in lines {
        assert!(line.starts_with(told) && line.contains(why), "{said}");
    }
}

/// Lines of `matrix.py`.
fn python(gateway: &Gateway, session: &str) -> Option<String> {
    let python = need!(needs::python_drivers(), "the Python drivers")?;
    let token = gateway.agent("ada");
    let done = std::process::Command::new(python)
        .arg(workspace().join("tests/drivers/matrix.py"))
        .arg(session)
        .env("PGHOST", "127.0.0.1")
        .env("PGPORT", gateway.address.port().to_string())
        .env("PGPASSWORD", &token)
        .env("HOLDPOINT_CA", gateway.dir.join("ca.pem"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}{errors}");
    Some(said)
}
