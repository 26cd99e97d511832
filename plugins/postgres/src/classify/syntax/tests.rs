//! What single statements are, where a rule was once evaded by them.

use std::rc::Rc;

use super::*;
use crate::classify::{Limits, Settings, classify};

fn statement(text: &str) -> Rc<Statement> {
    let analysis = classify(text.as_bytes(), &Settings::default(), &Limits::default());
    Rc::clone(&analysis.statements[0])
}

#[test]
fn what_changes_who_may_do_what_says_so() {
    for text in [
        "SET ROLE x",
        "SET role TO x",
        "SET \"role\" TO x",
        "SET U&\"rol\\0065\" TO x",
        "RESET role",
        "SET session_authorization TO 'x'",
        "CREATE SCHEMA z GRANT ALL ON s.t TO x",
        "ALTER TABLE t OWNER TO x",
        "ALTER TABLE t DISABLE ROW LEVEL SECURITY",
        "ALTER TABLE t NO FORCE ROW LEVEL SECURITY",
        "ALTER FUNCTION f() SECURITY DEFINER",
    ] {
        let found = statement(text);
        assert!(
            found.effects.contains(&"privilege"),
            "{text}: {:?}",
            found.effects
        );
        assert!(!found.housekeeping, "{text}");
    }
    assert_eq!(
        statement("CREATE SCHEMA z GRANT ALL ON s.t TO x").class,
        Class::Dcl
    );
    assert!(
        statement("SET application_name = 'role'")
            .effects
            .is_empty()
    );
}

#[test]
fn what_is_done_beside_the_worst_is_told() {
    use Class::{CopyIn, Dcl, Ddl, FunctionEffect, Read, Write};
    for (text, class, also) in [
        ("DELETE FROM t WHERE f(1) = 1", FunctionEffect, &[Write][..]),
        (
            "WITH d AS (INSERT INTO t VALUES (1) RETURNING a) SELECT f(a) FROM d",
            FunctionEffect,
            &[Write],
        ),
        (
            "ALTER TABLE t ALTER a TYPE int USING f(0)",
            FunctionEffect,
            &[Ddl],
        ),
        ("COPY t FROM STDIN WHERE f(a)", FunctionEffect, &[CopyIn]),
        (
            "CREATE TABLE z AS WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d",
            Ddl,
            &[Write],
        ),
        (
            "WITH d AS (DELETE FROM t RETURNING *) SELECT * INTO z FROM d",
            Ddl,
            &[Write],
        ),
        ("CREATE SCHEMA z GRANT ALL ON s.t TO x", Dcl, &[Ddl]),
        ("EXPLAIN ANALYZE DELETE FROM t", Write, &[]),
        ("SELECT f(a) FROM t", FunctionEffect, &[Read]),
        ("SELECT f(1)", FunctionEffect, &[]),
        ("SELECT a FROM t", Read, &[]),
        ("EXPLAIN DELETE FROM t", Read, &[]),
    ] {
        let found = statement(text);
        assert_eq!(
            (found.class, found.also.as_slice()),
            (class, also),
            "{text}"
        );
    }
}

#[test]
fn all_columns_are_a_star_however_they_are_named() {
    let star = |text: &str| statement(text).facts.contains(&("star", "true".to_owned()));
    for text in [
        "SELECT * FROM t",
        "TABLE t",
        "COPY t TO STDOUT",
        "SELECT t FROM t",
        "SELECT c FROM t c",
    ] {
        assert!(star(text), "{text}");
    }
    for text in [
        "SELECT a FROM t",
        "COPY t (a) TO STDOUT",
        "SELECT c.a FROM t c",
    ] {
        assert!(!star(text), "{text}");
    }
    assert!(
        statement("DROP SCHEMA s CASCADE")
            .effects
            .contains(&"cascade")
    );
    assert!(statement("TRUNCATE t CASCADE").effects.contains(&"cascade"));
    assert!(
        statement("CREATE TABLE t (a int REFERENCES u ON DELETE CASCADE)")
            .effects
            .is_empty()
    );
}
