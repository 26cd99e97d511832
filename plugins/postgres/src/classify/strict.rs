//! What the tree parser lets through and the server's grammar refuses.
//!
//! The server would answer such a text with a syntax error, so nothing is lost
//! when it is held as `unknown`, and much is won: no text counts as harmless that
//! the two read differently. Every rule was found by `tests/differential`; the
//! list is no grammar and does not try to be complete.

use squawk_syntax::{SyntaxKind as K, SyntaxNode, SyntaxToken};

/// Whether the server would refuse the statement for what stands at `node`.
pub(crate) fn refused(node: &SyntaxNode) -> bool {
    let count = || node.children().count();
    match node.kind() {
        K::PAREN_SELECT => said_twice(node),
        K::FETCH_CLAUSE => {
            has(node, K::WITH_TIES)
                && !node
                    .parent()
                    .is_some_and(|query| has(&query, K::ORDER_BY_CLAUSE))
        }
        // `FROM t AS WHERE …`, `DISCARD`, `SET TRANSACTION`, `a[]`.
        K::DISCARD | K::TRANSACTION_MODES | K::SESSION_CHARACTERISTICS => count() == 0,
        K::FROM_ALIAS => wrong_alias(node),
        K::INDEX_EXPR => count() < 2 || !has_token(node, K::R_BRACK),
        K::AS_NAME => count() == 0 || (!has_token(node, K::AS_KW) && needs_as(node)),
        K::CTE_NAME
        | K::CURSOR
        | K::CURSOR_REF
        | K::PREPARED_STATEMENT
        | K::PREPARED_STATEMENT_REF
        | K::SAVEPOINT
        | K::SAVEPOINT_REF
        | K::TABLE_ALIAS
        | K::WINDOW_REF => reserved(node),
        K::WINDOW_DEF => node.first_child().is_some_and(|name| reserved(&name)),
        K::CONFIG_PARAMETER_REF => node
            .descendants()
            .any(|part| part.kind() == K::PATH_SEGMENT_REF && reserved(&part)),
        K::TO_CONFIG_VALUE | K::SET_ROLE | K::SET_SESSION_AUTH => !plain_values(node),
        K::TABLE => has(node, K::FROM_CLAUSE) || has(node, K::WHERE_CLAUSE),
        K::EXPLAIN_OPTION_VALUE => signed_word(node),
        K::FUNCTION_FROM_ITEM | K::ROWS_FROM_ARG => node
            .children()
            .filter(|child| child.kind() == K::CALL_EXPR)
            .any(|call| {
                [K::WITHIN_CLAUSE, K::FILTER_CLAUSE, K::OVER_CLAUSE]
                    .iter()
                    .any(|kind| has(&call, *kind))
            }),
        K::XML_PASSING_DOC => !node.children().all(|child| is_primary(&child)),
        K::LOCKING_OF => has(node, K::PAREN_EXPR),
        K::ARG_LIST => {
            let arguments = node
                .children()
                .filter(|child| child.kind() == K::ARG)
                .count();
            let commas = tokens(node)
                .filter(|token| token.kind() == K::COMMA)
                .count();
            arguments > 1 && arguments != commas + 1
        }
        K::CALL_EXPR => wrong_clock(node) || (has(node, K::EXISTS_FN) && has(node, K::OVER_CLAUSE)),
        // `OPERATOR(pg_catalog||)`
        K::OP => node
            .first_child()
            .is_some_and(|path| path.kind() == K::PATH_REF && !has_token(&path, K::DOT)),
        K::FIELD_EXPR => node.first_child().is_some_and(|base| {
            base.kind() == K::CAST_EXPR
                || (base.kind() == K::FIELD_EXPR && has_token(&base, K::STAR))
        }),
        K::BIN_EXPR | K::BETWEEN_EXPR => chained(node) || is_what(node),
        K::CYCLE_COLUMN_TO => !node.descendants().all(|part| {
            !matches!(
                part.kind(),
                K::NAME_REF | K::CALL_EXPR | K::PREFIX_EXPR | K::BIN_EXPR | K::PAREN_EXPR
            )
        }),
        K::PAREN_FROM_ITEM if has_token(node, K::ONLY_KW) => node
            .children()
            .filter(|child| child.kind() != K::FROM_ALIAS)
            .flat_map(|child| child.descendants())
            .any(|part| matches!(part.kind(), K::FROM_ALIAS | K::SELECT | K::PAREN_SELECT)),
        K::JSON_TABLE_NESTED_COLUMN => has(node, K::CAST_EXPR),
        K::XML_TABLE_COLUMN => has(node, K::ERROR),
        _ => false,
    }
}

fn has(node: &SyntaxNode, kind: K) -> bool {
    node.children().any(|child| child.kind() == kind)
}

fn tokens(node: &SyntaxNode) -> impl Iterator<Item = SyntaxToken> {
    node.children_with_tokens()
        .filter_map(|child| child.into_token())
}

fn has_token(node: &SyntaxNode, kind: K) -> bool {
    tokens(node).any(|token| token.kind() == kind)
}

/// `(SELECT 1 LIMIT 1) LIMIT 2`: what is in the brackets and what is around
/// them is one query to the server.
fn said_twice(node: &SyntaxNode) -> bool {
    const CLAUSES: [&[K]; 4] = [
        &[K::WITH_CLAUSE],
        &[K::ORDER_BY_CLAUSE],
        &[K::LIMIT_CLAUSE, K::FETCH_CLAUSE],
        &[K::OFFSET_CLAUSE],
    ];
    let says = |query: &SyntaxNode, kinds: &[K]| kinds.iter().any(|kind| has(query, *kind));
    let Some(mut inner) = node.children().find(|child| is_query(child.kind())) else {
        return false;
    };
    // The tree hangs the WITH of a set operation on its first operand.
    let around = |kinds: &[K]| {
        let operand = node.parent().is_some_and(|up| {
            up.kind() == K::COMPOUND_SELECT && up.first_child().as_ref() == Some(node)
        });
        says(node, kinds) && !(operand && kinds == [K::WITH_CLAUSE])
    };
    let told: Vec<&[K]> = CLAUSES.into_iter().filter(|kinds| around(kinds)).collect();
    if told.is_empty() {
        return false;
    }
    loop {
        if told.iter().any(|kinds| says(&inner, kinds)) {
            return true;
        }
        match inner.children().find(|child| is_query(child.kind())) {
            Some(next) if matches!(inner.kind(), K::PAREN_SELECT | K::COMPOUND_SELECT) => {
                inner = next
            }
            _ => return false,
        }
    }
}

fn is_query(kind: K) -> bool {
    matches!(
        kind,
        K::SELECT | K::COMPOUND_SELECT | K::PAREN_SELECT | K::VALUES | K::TABLE
    )
}

/// `AS (a, b)`, and types of columns where no function gives them.
fn wrong_alias(node: &SyntaxNode) -> bool {
    let function = node
        .parent()
        .is_some_and(|item| matches!(item.kind(), K::FUNCTION_FROM_ITEM | K::ROWS_FROM_ITEM));
    let typed = has(node, K::COLUMN_DEF_LIST);
    if typed {
        !function
    } else {
        !has(node, K::TABLE_ALIAS)
    }
}

/// Keywords that no name may be where the grammar wants a `ColId`.
const RESERVED: [&str; 100] = [
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "authorization",
    "binary",
    "both",
    "case",
    "cast",
    "check",
    "collate",
    "collation",
    "column",
    "concurrently",
    "constraint",
    "create",
    "cross",
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "false",
    "fetch",
    "for",
    "foreign",
    "freeze",
    "from",
    "full",
    "grant",
    "group",
    "having",
    "ilike",
    "in",
    "initially",
    "inner",
    "intersect",
    "into",
    "is",
    "isnull",
    "join",
    "lateral",
    "leading",
    "left",
    "like",
    "limit",
    "localtime",
    "localtimestamp",
    "natural",
    "not",
    "notnull",
    "null",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "outer",
    "overlaps",
    "placing",
    "primary",
    "references",
    "returning",
    "right",
    "select",
    "session_user",
    "similar",
    "some",
    "symmetric",
    "system_user",
    "table",
    "tablesample",
    "then",
    "to",
    "trailing",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "variadic",
    "verbose",
    "when",
    "where",
    "window",
];

fn reserved(node: &SyntaxNode) -> bool {
    is_word(node, &RESERVED)
}

/// Longest of all words that are looked for.
const LONGEST: usize = 18;

/// Whether a node is one of the words, which are sorted.
fn is_word(node: &SyntaxNode, words: &[&str]) -> bool {
    let (mut word, mut end) = ([0; LONGEST], 0);
    let fits = node.text().try_for_each_chunk(|chunk| {
        let room = word.get_mut(end..end + chunk.len()).ok_or(())?;
        room.copy_from_slice(chunk.as_bytes());
        end += chunk.len();
        Ok::<(), ()>(())
    });
    word.make_ascii_lowercase();
    let word = word.get(..end).unwrap_or_default();
    fits.is_ok()
        && words
            .binary_search_by(|one| one.as_bytes().cmp(word))
            .is_ok()
}

/// Keywords that are no label unless `AS` stands before them, or that the
/// grammar takes for the start of something else.
const NEEDS_AS: [&str; 40] = [
    "array",
    "as",
    "at",
    "char",
    "character",
    "create",
    "day",
    "except",
    "fetch",
    "filter",
    "for",
    "from",
    "grant",
    "group",
    "having",
    "hour",
    "intersect",
    "into",
    "isnull",
    "limit",
    "minute",
    "month",
    "notnull",
    "offset",
    "on",
    "order",
    "over",
    "overlaps",
    "precision",
    "returning",
    "second",
    "to",
    "union",
    "varying",
    "where",
    "window",
    "with",
    "within",
    "without",
    "year",
];

fn needs_as(node: &SyntaxNode) -> bool {
    is_word(node, &NEEDS_AS)
}

/// The values of `SET`: words, plain strings and numbers.
fn plain_values(node: &SyntaxNode) -> bool {
    !signed_word(node)
        && node.descendants_with_tokens().all(|part| {
            !matches!(
                part.kind(),
                K::NATIONAL_STRING | K::BIT_STRING | K::BYTE_STRING
            )
        })
}

/// A sign before anything but a number.
fn signed_word(node: &SyntaxNode) -> bool {
    node.descendants()
        .filter(|part| part.kind() == K::PREFIX_EXPR)
        .any(|part| !part.children().all(|child| child.kind() == K::LITERAL))
}

/// An operand that needs no brackets anywhere (`c_expr`).
fn is_primary(node: &SyntaxNode) -> bool {
    match node.kind() {
        K::BIN_EXPR | K::BETWEEN_EXPR | K::COLLATE | K::PREFIX_EXPR | K::POSTFIX_EXPR => false,
        K::CAST_EXPR => !has(node, K::COLON_COLON),
        _ => true,
    }
}

/// `LOCALTIME()` and `CURRENT_TIME(+3)`: a clock takes one plain number.
fn wrong_clock(node: &SyntaxNode) -> bool {
    const CLOCKS: [K; 4] = [
        K::CURRENT_TIME_KW,
        K::CURRENT_TIMESTAMP_KW,
        K::LOCALTIME_KW,
        K::LOCALTIMESTAMP_KW,
    ];
    let clock = node
        .first_child()
        .is_some_and(|target| tokens(&target).any(|token| CLOCKS.contains(&token.kind())));
    clock
        && !node
            .children()
            .filter(|child| child.kind() == K::ARG_LIST)
            .all(|list| {
                let mut parts = list.descendants().skip(1);
                matches!((parts.next(), parts.next(), parts.next()), (Some(arg), Some(value), None)
                if arg.kind() == K::ARG && value.kind() == K::LITERAL)
            })
}

/// Operators of one level that the grammar does not let follow each other.
fn chained(node: &SyntaxNode) -> bool {
    let level = level(node);
    // What ends in a bracket leaves nothing open: `a IN (1) IN (2)` is fine.
    let closed = |child: &SyntaxNode| has_token(child, K::IN_KW) || has(child, K::NOT_IN);
    level != 0
        && node
            .children()
            .any(|child| self::level(&child) == level && !closed(&child))
}

fn level(node: &SyntaxNode) -> u8 {
    match node.kind() {
        K::BETWEEN_EXPR => 1,
        K::BIN_EXPR => node
            .children_with_tokens()
            .find_map(|part| match part.kind() {
                K::IN_KW
                | K::LIKE_KW
                | K::ILIKE_KW
                | K::NOT_IN
                | K::NOT_LIKE
                | K::NOT_ILIKE
                | K::SIMILAR_TO
                | K::NOT_SIMILAR_TO => Some(1),
                K::EQ | K::L_ANGLE | K::R_ANGLE | K::LTEQ | K::GTEQ | K::NEQ | K::NEQB => Some(2),
                _ => None,
            })
            .unwrap_or(0),
        _ => 0,
    }
}

/// `a IS b`: only a few words may stand there.
fn is_what(node: &SyntaxNode) -> bool {
    let is = node
        .children_with_tokens()
        .any(|part| matches!(part.kind(), K::IS_KW | K::IS_NOT));
    is && node
        .last_child()
        .is_none_or(|what| !is_word(&what, &["document", "false", "null", "true", "unknown"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_sorted_and_none_is_too_long() {
        assert!(RESERVED.is_sorted() && NEEDS_AS.is_sorted());
        let longest = RESERVED
            .iter()
            .chain(&NEEDS_AS)
            .map(|word| word.len())
            .max();
        assert!(longest <= Some(LONGEST));
    }
}
