//! Reads that drivers make to learn what a type or a session is.
//!
//! Clients send them unasked on most connections, before the first statement
//! of their user, so a rule that held reads would hold every login. Only lists
//! count here: names of types, tables and columns. Catalogs that hold secrets,
//! code or other sessions' statements (`pg_authid`, `pg_proc`, `pg_stat_activity`)
//! are no set-up and are judged like any table.

use super::functions::holds;
use super::lexer::{Kind, Token};
use super::{Class, Statement, names};

/// Columns of [`CATALOGS`], sorted.
const COLUMNS: &str = include_str!("../../data/columns.txt");

const CATALOGS: [&str; 20] = [
    "pg_am",
    "pg_attrdef",
    "pg_attribute",
    "pg_cast",
    "pg_class",
    "pg_collation",
    "pg_constraint",
    "pg_depend",
    "pg_description",
    "pg_enum",
    "pg_extension",
    "pg_index",
    "pg_inherits",
    "pg_namespace",
    "pg_opclass",
    "pg_operator",
    "pg_range",
    "pg_sequence",
    "pg_tablespace",
    "pg_type",
];

/// None of them tells more than a name, a number or the text that it was given.
const FUNCTIONS: [&str; 40] = [
    "array_agg",
    "array_length",
    "array_position",
    "array_to_string",
    "array_upper",
    "bool_or",
    "coalesce",
    "col_description",
    "concat",
    "count",
    "current_database",
    "current_schema",
    "current_schemas",
    "current_user",
    "format_type",
    "generate_series",
    "generate_subscripts",
    "length",
    "lower",
    "max",
    "min",
    "now",
    "nullif",
    "obj_description",
    "pg_backend_pid",
    "pg_get_constraintdef",
    "pg_get_expr",
    "pg_get_indexdef",
    "pg_is_in_recovery",
    "pg_table_is_visible",
    "pg_type_is_visible",
    "quote_ident",
    "row_number",
    "session_user",
    "substring",
    "to_regtype",
    "trim",
    "unnest",
    "upper",
    "version",
];

/// Types whose casts run nobody's code but the server's.
const TYPES: [&str; 14] = [
    "bool", "char", "int", "int2", "int4", "int8", "integer", "name", "oid", "regclass", "regproc",
    "regtype", "text", "varchar",
];

/// Words behind which a string is a value and not of a type named by the word.
const BEFORE_STRINGS: [&str; 14] = [
    "and", "as", "between", "by", "else", "from", "ilike", "in", "like", "not", "or", "select",
    "then", "when",
];

/// Casts and typed constants call code of the type, which may be a user's.
fn plain_types(text: &str, tokens: &[Token]) -> bool {
    tokens.iter().enumerate().all(|(at, token)| {
        let one_of = |token: &Token, words: &[&str]| words.iter().any(|word| token.is(text, word));
        let after = |far: usize| tokens.get(at + far);
        match token.kind {
            Kind::Pair if token.text(text) == "::" => {
                after(1).is_some_and(|name| one_of(name, &TYPES))
                    && after(2).is_none_or(|next| next.kind != Kind::Dot)
            }
            Kind::Word if one_of(token, &["cast", "returning", "treat", "xmlserialize"]) => false,
            Kind::Word | Kind::QuotedName | Kind::UnicodeName => {
                after(1).is_none_or(|next| !next.kind.is_string()) || one_of(token, &BEFORE_STRINGS)
            }
            _ => true,
        }
    })
}

/// `t.f` and `(x).f` call a function `f` where there is no such column, so only columns of the
/// catalogs may stand behind a dot.
fn plain_fields(text: &str, tokens: &[Token]) -> bool {
    let named = |token: &Token| match token.kind {
        Kind::Word | Kind::QuotedName => names::fold(token.text(text), '\\'),
        _ => None,
    };
    let mut dots = tokens
        .iter()
        .enumerate()
        .filter(|(_, token)| token.kind == Kind::Dot);
    dots.all(|(at, _)| {
        let before = at.checked_sub(1).and_then(|at| tokens.get(at));
        let (after, next) = (tokens.get(at + 1), tokens.get(at + 2));
        before.and_then(named).is_some()
            && after.is_some_and(|after| match named(after) {
                None => after.text(text) == "*",
                // A function that is called, or a schema.
                Some(_)
                    if next.is_some_and(|next| matches!(next.kind, Kind::LParen | Kind::Dot)) =>
                {
                    true
                }
                Some(name) => holds(COLUMNS, &name) || CATALOGS.contains(&name.as_str()),
            })
    })
}

/// Whether a statement that was judged a read is no more than such a look.
/// `tokens` are those of its judged text.
pub(crate) fn looks_up(statement: &Statement, text: &str, tokens: &[Token]) -> bool {
    statement.class == Class::Read
        && statement.proven
        && statement.effects.is_empty()
        && statement.unknown_functions.is_empty()
        && statement
            .functions
            .iter()
            .all(|name| FUNCTIONS.contains(&name.as_str()))
        && statement.objects.iter().all(|object| {
            object.access == "read"
                && object
                    .schema
                    .as_deref()
                    .is_none_or(|schema| schema == "pg_catalog")
                && CATALOGS.contains(&object.name.as_str())
        })
        && plain_types(text, tokens)
        && plain_fields(text, tokens)
}

#[cfg(test)]
mod tests {
    use crate::classify::{Limits, Settings, classify};

    fn set_up(text: &str) -> bool {
        let analysis = classify(text.as_bytes(), &Settings::default(), &Limits::default());
        analysis
            .statements
            .iter()
            .all(|statement| statement.housekeeping)
    }

    #[test]
    fn what_drivers_ask_before_their_users_do_is_set_up() {
        for text in [
            "SELECT 1",
            "select version()",
            "SHOW transaction_read_only",
            "SELECT t.oid, t.typname FROM pg_catalog.pg_type t WHERE t.typname = 'hstore'",
            "SELECT oid, typarray FROM pg_type WHERE oid = to_regtype($1)",
            "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace",
            "WITH RECURSIVE typeinfo_tree(oid, ns) AS (SELECT t.oid, ns.nspname FROM pg_type t \
             JOIN pg_namespace ns ON ns.oid = t.typnamespace WHERE t.oid = any($1::oid[]) \
             UNION ALL SELECT t.oid, ns FROM pg_type t, typeinfo_tree tt WHERE tt.oid = t.oid) \
             SELECT DISTINCT * FROM typeinfo_tree",
        ] {
            assert!(set_up(text), "{text}");
        }
    }

    #[test]
    fn what_tells_more_than_names_is_not() {
        for text in [
            "SELECT * FROM pg_authid",
            "SELECT query FROM pg_stat_activity",
            "SELECT prosrc FROM pg_proc",
            "SELECT current_setting('a.b') FROM pg_type",
            "SELECT * FROM pg_type, orders",
            "SELECT * FROM public.pg_type",
            "SELECT pg_get_functiondef(1)",
            "SELECT * FROM pg_type FOR UPDATE",
            "SELECT 1; DELETE FROM t",
            "PREPARE p AS SELECT 1",
            "SELECT '1'::evil",
            "SELECT '1'::public.text",
            "SELECT CAST(1 AS evil)",
            "SELECT evil '1'",
            "SELECT (777).refund",
            "SELECT (777).\"refund\"",
            "SELECT b.refund FROM generate_series(1, 10) b",
            "SELECT (c.oid).pg_get_viewdef FROM pg_class c",
            "SELECT (relname).relname FROM pg_class",
            "SELECT c.evil FROM pg_class c",
            "SELECT c.U&\"relname\" FROM pg_class c",
        ] {
            assert!(!set_up(text), "{text}");
        }
    }
}
