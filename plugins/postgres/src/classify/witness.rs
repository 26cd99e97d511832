//! The second witness: what a statement can be at worst, from its tokens alone.
//!
//! It knows no grammar. It says `Read` only when no word outside literals,
//! comments and quoted names could start an effect, so a column that is called
//! `update` makes it say `Other`. That is noise, never a bypass: a statement is
//! harmless only where this and the tree agree.

use super::lexer::{Kind, Token};

/// The harmless sorts, and everything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sort {
    Session,
    Transaction,
    Read,
    CopyOut,
    Other,
}

const QUERY: [&str; 4] = ["select", "values", "table", "with"];
const SESSION: [&str; 9] = [
    "set",
    "reset",
    "discard",
    "listen",
    "unlisten",
    "notify",
    "deallocate",
    "close",
    "load",
];
const TRANSACTION: [&str; 9] = [
    "begin",
    "start",
    "commit",
    "end",
    "rollback",
    "abort",
    "savepoint",
    "release",
    "prepare",
];

/// Words that can start an effect inside a query.
const EFFECTS: [&str; 6] = ["into", "insert", "update", "delete", "merge", "execute"];
/// `FOR` followed by one of these locks rows.
const LOCKS: [&str; 4] = ["update", "share", "no", "key"];

/// Judges the tokens of one statement.
pub(crate) fn witness(text: &str, tokens: &[Token]) -> Sort {
    let Some(first) = tokens.first() else {
        return Sort::Session;
    };
    let starts = |words: &[&str]| words.iter().any(|word| first.is(text, word));
    let second = |word| tokens.get(1).is_some_and(|token| token.is(text, word));
    if starts(&["set"]) && (second("transaction") || second("constraints")) {
        return Sort::Transaction;
    }
    if starts(&["prepare"]) && !second("transaction") {
        return after(text, tokens, "as");
    }
    if starts(&TRANSACTION) {
        return Sort::Transaction;
    }
    if starts(&SESSION) {
        return Sort::Session;
    }
    if starts(&["show"]) {
        return Sort::Read;
    }
    if starts(&["declare"]) {
        return after(text, tokens, "for");
    }
    if starts(&["explain"]) {
        return explain(text, tokens);
    }
    if starts(&["copy"]) {
        let to_client = tokens.iter().any(|token| token.is(text, "stdout"))
            && tokens.iter().any(|token| token.is(text, "to"))
            && !tokens.iter().any(|token| {
                token.is(text, "program") || token.is(text, "from") && !in_brackets(text, tokens)
            });
        return if to_client && quiet(text, tokens) {
            Sort::CopyOut
        } else {
            Sort::Other
        };
    }
    query(text, tokens)
}

/// Whether the copied thing is a query, in which `FROM` is no direction.
fn in_brackets(_text: &str, tokens: &[Token]) -> bool {
    tokens
        .get(1)
        .is_some_and(|token| token.kind == Kind::LParen)
}

fn query(text: &str, tokens: &[Token]) -> Sort {
    let first = tokens.iter().find(|token| token.kind != Kind::LParen);
    let starts = first.is_some_and(|first| QUERY.iter().any(|word| first.is(text, word)));
    if starts && quiet(text, tokens) {
        Sort::Read
    } else {
        Sort::Other
    }
}

/// Judges what follows the first `word`.
fn after(text: &str, tokens: &[Token], word: &str) -> Sort {
    match tokens.iter().position(|token| token.is(text, word)) {
        Some(at) => query(text, tokens.get(at + 1..).unwrap_or_default()),
        None => Sort::Other,
    }
}

/// No word that could start an effect.
fn quiet(text: &str, tokens: &[Token]) -> bool {
    let mut before_is_for = false;
    for token in tokens.iter() {
        if token.kind != Kind::Word {
            before_is_for = false;
            continue;
        }
        let is = |words: &[&str]| words.iter().any(|word| token.is(text, word));
        if is(&EFFECTS) || (before_is_for && is(&LOCKS)) {
            return false;
        }
        before_is_for = token.is(text, "for");
    }
    true
}

/// Planning alone reads; running is whatever the statement is.
fn explain(text: &str, tokens: &[Token]) -> Sort {
    match analyzes(text, tokens) {
        Some((false, _)) => Sort::Read,
        Some((true, at)) => query(text, tokens.get(at..).unwrap_or_default()),
        None => Sort::Other,
    }
}

/// Whether an option's value says no for certain. The server refuses the short
/// forms here that it takes elsewhere.
pub(crate) fn declines(value: &str) -> bool {
    let value = value.trim_matches([' ', '\t', '\n', '\r', '\u{c}']);
    let plain = value
        .strip_prefix('\'')
        .and_then(|rest| rest.strip_suffix('\''))
        .unwrap_or(value);
    ["off", "false", "0"]
        .iter()
        .any(|no| plain.eq_ignore_ascii_case(no))
}

/// Whether an `EXPLAIN` runs its statement, and where that statement starts.
pub(crate) fn analyzes(text: &str, tokens: &[Token]) -> Option<(bool, usize)> {
    let is = |at: usize, word: &str| {
        tokens
            .get(at)
            .is_some_and(|token: &Token| token.is(text, word))
    };
    let analyze = |at| is(at, "analyze") || is(at, "analyse");
    let options = tokens.get(1)?.kind == Kind::LParen
        && tokens.get(2)?.kind != Kind::LParen
        && !QUERY.iter().any(|word| is(2, word));
    if !options {
        let mut at = 1;
        let runs = analyze(at);
        at += usize::from(runs);
        at += usize::from(is(at, "verbose"));
        return Some((runs, at));
    }
    let close = tokens.iter().position(|token| token.kind == Kind::RParen)?;
    let mut runs = false;
    for option in tokens
        .get(2..close)?
        .split(|token| token.kind == Kind::Comma)
    {
        let [name, value @ ..] = option else {
            return None;
        };
        // `"analyze"` is that option too.
        let quoted = name.kind != Kind::Word;
        if !(quoted || name.is(text, "analyze") || name.is(text, "analyse")) {
            continue;
        }
        // The last one wins. What the server would refuse counts as a yes.
        runs = match value {
            [] => true,
            [value] => !declines(value.text(text)),
            _ => true,
        };
    }
    Some((runs, close + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::lexer::lex;

    fn sort(text: &str) -> Sort {
        witness(text, &lex(text).unwrap())
    }

    #[test]
    fn an_effect_word_outside_literals_is_noticed() {
        assert_eq!(
            sort("SELECT 'delete' FROM \"update\" -- insert"),
            Sort::Read
        );
        assert_eq!(sort("WITH x AS (DELETE FROM t) SELECT 1"), Sort::Other);
        assert_eq!(sort("SELECT 1 INTO t"), Sort::Other);
        assert_eq!(sort("SELECT 1 FOR NO KEY UPDATE"), Sort::Other);
        assert_eq!(sort("SELECT substring(a FROM 1 FOR 2)"), Sort::Read);
        assert_eq!(sort("DROP TABLE t"), Sort::Other);
    }

    #[test]
    fn explain_runs_its_statement_by_the_last_option() {
        assert_eq!(sort("EXPLAIN DELETE FROM t"), Sort::Read);
        assert_eq!(
            sort("EXPLAIN (ANALYZE off, ANALYZE) DELETE FROM t"),
            Sort::Other
        );
        assert_eq!(
            sort("EXPLAIN (ANALYZE, ANALYZE 'off') DELETE FROM t"),
            Sort::Read
        );
        for option in [
            "ANALYZE maybe",
            "ANALYZE of",
            "\"analyze\"",
            "U&\"an\\0061lyze\"",
        ] {
            assert_eq!(
                sort(&format!("EXPLAIN ({option}) DELETE FROM t")),
                Sort::Other,
                "{option}"
            );
        }
        assert_eq!(sort("EXPLAIN ANALYZE VERBOSE SELECT 1"), Sort::Read);
    }

    #[test]
    fn copying_to_the_client_is_told_from_the_rest() {
        assert_eq!(sort("COPY t TO STDOUT"), Sort::CopyOut);
        assert_eq!(
            sort("COPY (SELECT a FROM t) TO STDOUT (FORMAT csv)"),
            Sort::CopyOut
        );
        assert_eq!(
            sort("COPY (DELETE FROM t RETURNING 1) TO STDOUT"),
            Sort::Other
        );
        assert_eq!(sort("COPY t TO PROGRAM 'x'"), Sort::Other);
        assert_eq!(sort("COPY t FROM STDIN"), Sort::Other);
    }
}
