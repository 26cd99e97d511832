//! Whatever the bytes, classification ends with an answer.

#![allow(clippy::unwrap_used, reason = "a test may fail by it")]

use holdpoint_plugin_postgres::{classify, fuzz_client, fuzz_startup, fuzz_upstream};
use proptest::prelude::*;

fn input(sql: &[u8]) -> Vec<(String, Vec<u8>)> {
    vec![("sql".to_owned(), sql.to_vec())]
}

/// Pieces of SQL, in any order: closer to the grammar than bytes are.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let piece = proptest::sample::select(vec![
        "SELECT",
        "FROM",
        "t",
        "(",
        ")",
        "'",
        "''",
        "E'\\'",
        "$$",
        "$a$",
        "--",
        "\n",
        "/*",
        "*/",
        ";",
        ",",
        ".",
        "*",
        "1",
        "1.5e",
        "DELETE",
        "INSERT INTO",
        "VALUES",
        "WITH",
        "AS",
        "U&\"\\",
        "\"",
        "UESCAPE",
        "set_config",
        "COPY",
        "TO",
        "STDIN",
        "PROGRAM",
        "CREATE FUNCTION",
        "BEGIN ATOMIC",
        "END",
        "CASE",
        "WHEN",
        "EXPLAIN",
        "(ANALYZE",
        "é",
        "\u{feff}",
        "::",
        "[",
        "]",
        "DO",
        "PASSWORD",
        "ALTER ROLE r",
        "SET",
        "=",
        "NAMES",
        "$1",
        "OPERATOR(",
        "GRANT",
    ]);
    let space = prop_oneof![Just(""), Just(" "), Just("\t"), Just("\r")];
    proptest::collection::vec((piece, space), 0..24).prop_map(|all| {
        all.into_iter()
            .flat_map(|(piece, space)| [piece, space])
            .collect::<String>()
            .into_bytes()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_are_judged(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        fuzz_client(&bytes);
        fuzz_startup(&bytes);
        fuzz_upstream(&bytes);
        prop_assert!(classify(input(&bytes)).is_ok());
    }

    #[test]
    fn any_pieces_of_sql_are_judged(text in pieces()) {
        let command = classify(input(&text)).unwrap();
        for span in &command.secrets {
            prop_assert!(span.start <= span.end && span.end as usize <= text.len());
        }
        prop_assert!(command.secrets.is_sorted_by_key(|span| span.start));
    }

    /// What stands behind a statement cannot make it look more harmless.
    #[test]
    fn a_drop_in_front_is_always_seen(text in pieces()) {
        let mut all = b"DROP TABLE t;".to_vec();
        all.extend_from_slice(&text);
        let classes: Vec<String> =
            classify(input(&all)).unwrap().operations.into_iter().map(|op| op.class).collect();
        prop_assert!(
            classes.iter().any(|class| class == "ddl" || class == "unknown"),
            "{:?}", classes
        );
    }
}
