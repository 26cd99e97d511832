//! What counts as shown, as masked and as used. The evasions are those of the end
//! to end tests, where a real server answers.

use super::*;
use crate::classify::{Limits, Settings, classify_protecting};

const EVASIONS: &str = include_str!("../../../../../tests/masking/evasions.sql");

fn exposures(patterns: &str, text: &str) -> Vec<Exposure> {
    let protected = Protected::new(patterns, "m").unwrap();
    let analysis = classify_protecting(
        text.as_bytes(),
        &Settings::default(),
        &Limits::default(),
        Some(&protected),
    );
    let each = |statement: &Rc<Statement>| statement.exposure.clone();
    analysis.statements.iter().map(each).collect()
}

fn exposure(text: &str) -> Exposure {
    exposures("public.customers.ssn", text).remove(0)
}

/// The fields that are masked, where each is given as `name` or `name:0` (computed).
fn masked(text: &str, fields: &[&str]) -> Option<Vec<usize>> {
    let Exposure::Fields(outputs) = exposure(text) else {
        panic!("{text}: {:?}", exposure(text));
    };
    let field = |field: &&str| Field {
        name: field.trim_end_matches(":0").as_bytes().to_vec(),
        table: if field.ends_with(":0") { 0 } else { 7 },
        type_number: 25,
    };
    outputs.masked(&fields.iter().map(field).collect::<Vec<_>>())
}

#[test]
fn every_evasion_counts_as_used_or_is_not_understood() {
    let lines = EVASIONS.lines().filter(|line| !line.starts_with("--"));
    let mut count = 0;
    for text in lines {
        count += 1;
        let found = exposure(text);
        let refused = matches!(found, Exposure::Used | Exposure::Unjudged);
        assert!(refused, "{text}: {found:?}");
    }
    assert!(count >= 260, "{count}");
}

#[test]
fn a_protected_column_is_masked_where_it_is_shown_as_it_is() {
    for (text, fields, wanted) in [
        ("SELECT ssn FROM customers", &["ssn"][..], &[0][..]),
        ("SELECT id, ssn FROM customers", &["id", "ssn"], &[1]),
        (
            "SELECT 1, 1, ssn, 1 FROM customers",
            &["a", "b", "ssn", "c"],
            &[2],
        ),
        ("SELECT ssn AS x, id FROM customers", &["x", "id"], &[0]),
        ("SELECT ssn x, ssn y FROM customers", &["x", "y"], &[0, 1]),
        (
            "SELECT c.ssn FROM public.customers c WHERE c.id = 1",
            &["ssn"],
            &[0],
        ),
        ("SELECT public.customers.ssn FROM customers", &["ssn"], &[0]),
        (
            "SELECT \"ssn\", SSN FROM CUSTOMERS",
            &["ssn", "ssn"],
            &[0, 1],
        ),
        (
            "SELECT round(1, 2), (3), ssn FROM customers",
            &["f", "x", "ssn"],
            &[2],
        ),
        ("SELECT * FROM customers", &["id", "ssn", "name"], &[1]),
        (
            "SELECT *, ssn AS z FROM customers",
            &["id", "ssn", "z"],
            &[1, 2],
        ),
        (
            "SELECT ssn AS z, * FROM customers",
            &["z", "id", "ssn"],
            &[0, 2],
        ),
        (
            "SELECT c.*, o.* FROM customers c, orders o",
            &["id", "ssn", "id"],
            &[1],
        ),
        (
            "SELECT ALL ssn FROM customers ORDER BY id LIMIT 1",
            &["ssn"],
            &[0],
        ),
        (
            "SELECT *, ssn AS x, 1 AS from, 2 FROM customers",
            &["id", "ssn", "name", "x", "from", "z"],
            &[1, 3],
        ),
        (
            "SELECT *, ssn AS x, q.from, 2 FROM customers, (SELECT 1 AS \"from\") q",
            &["id", "ssn", "x", "from", "z"],
            &[1, 2],
        ),
        (
            "SELECT *, ssn AS x, 1 AS as FROM customers",
            &["id", "ssn", "x", "as"],
            &[1, 2],
        ),
        (
            "SELECT id, ssn FROM customers ORDER BY id - 2",
            &["id", "ssn"],
            &[1],
        ),
        ("SELECT c.fullname FROM customers c", &["fullname:0"], &[0]),
        ("SELECT c.name FROM customers c", &["name"], &[]),
        (
            "SELECT c.id, o.note FROM customers c JOIN orders o ON o.id = c.id",
            &["id", "note"],
            &[],
        ),
    ] {
        assert_eq!(masked(text, fields).as_deref(), Some(wanted), "{text}");
    }
}

#[test]
fn a_description_that_does_not_fit_the_text_gives_no_plan() {
    assert_eq!(masked("SELECT ssn FROM customers", &["ssn", "more"]), None);
    assert_eq!(masked("SELECT ssn, id FROM customers", &["ssn"]), None);
    assert_eq!(masked("SELECT ssn, *, id FROM customers", &["ssn"]), None);
}

#[test]
fn what_cannot_show_a_protected_column_goes_on_as_before() {
    for text in [
        "SELECT id FROM orders",
        "SELECT * FROM orders",
        "SELECT o FROM orders o",
        "SELECT ssn FROM audit.customers",
        "SELECT count(*) FROM customers",
        "SELECT count(*), 2 * 3 FROM customers WHERE id > 1 ORDER BY 1",
        "SELECT id FROM customers ORDER BY 1",
        "SELECT id FROM orders o WHERE EXISTS (SELECT 1 FROM customers c WHERE c.id = o.id)",
        "SELECT id FROM customers UNION SELECT id FROM orders",
        "INSERT INTO customers (id, ssn) VALUES (1, 'x')",
        "UPDATE orders SET note = 'x' WHERE id = 1",
        "DELETE FROM orders",
        "BEGIN",
        "SET search_path = public",
        "SHOW server_version",
        "SELECT relname FROM pg_class",
        "SELECT column_name FROM information_schema.columns",
        "COPY orders TO STDOUT",
        "EXPLAIN SELECT id FROM customers WHERE id = 1",
    ] {
        assert_eq!(exposure(text), Exposure::None, "{text}");
    }
}

#[test]
fn a_pattern_of_a_column_alone_covers_every_relation() {
    let any = |text| exposures("*.ssn", text).remove(0);
    let shown = |text| matches!(exposures("ssn", text).remove(0), Exposure::Fields(_));
    assert!(shown("SELECT ssn FROM some_view"));
    assert!(shown("SELECT * FROM orders"));
    assert_eq!(any("SELECT v FROM some_view v"), Exposure::Used);
    assert_eq!(any("SELECT oid FROM pg_class"), Exposure::None);
    let globs = exposures(
        "pub*.cust*.s?n\npub*.cust*.s*n",
        "SELECT ssn FROM customers_2024",
    );
    assert!(matches!(globs[0], Exposure::Fields(_)));
}

#[test]
fn each_statement_of_a_text_is_judged_for_itself() {
    let found = exposures(
        "customers.ssn",
        "SELECT 1; SELECT ssn FROM customers; SELECT customers FROM customers",
    );
    assert_eq!(found[0], Exposure::None);
    assert!(matches!(found[1], Exposure::Fields(_)));
    assert_eq!(found[2], Exposure::Used);
}

#[test]
fn without_protected_columns_nothing_is_said() {
    assert_eq!(Protected::new("\n", "m"), None);
    let analysis = crate::classify::classify(
        b"SELECT ssn FROM customers",
        &Settings::default(),
        &Limits::default(),
    );
    assert_eq!(analysis.statements[0].exposure, Exposure::Unjudged);
    assert!(
        analysis.statements[0]
            .facts
            .iter()
            .all(|(name, _)| *name != FACT)
    );
}

#[test]
fn a_pattern_longer_than_a_name_protects_what_the_server_made_of_it() {
    let long = format!("salary_{}", "x".repeat(60));
    let cut = &long[..63];
    for patterns in [long.clone(), format!("public.customers.{long}")] {
        for text in [
            format!("SELECT max({long}) FROM customers"),
            format!("SELECT {cut} || '' FROM customers"),
        ] {
            assert_eq!(
                exposures(&patterns, &text)[0],
                Exposure::Used,
                "{patterns} {text}"
            );
        }
    }
    let table = format!("{long}.ssn");
    let text = format!("SELECT max(ssn) FROM {cut}");
    assert_eq!(exposures(&table, &text)[0], Exposure::Used);
}

/// The catalog of columns is read by drivers, but for what was once a column's value.
#[test]
fn a_default_that_was_added_is_a_value() {
    assert_eq!(exposure("SELECT attname FROM pg_attribute"), Exposure::None);
    assert_eq!(
        exposure("SELECT a.attmissingval FROM pg_attribute a WHERE attmissingval IS NULL"),
        Exposure::Used
    );
    let Exposure::Fields(outputs) = exposure("SELECT * FROM pg_attribute") else {
        panic!("not masked");
    };
    let field = |name: &str| Field {
        name: name.into(),
        table: 1249,
        type_number: 2277,
    };
    assert_eq!(
        outputs.masked(&[field("attname"), field("attmissingval")]),
        Some(vec![1])
    );
}
