//! Whether the tree parser's lexer cut the text where ours did.
//!
//! The tree is believed only then. A literal that one lexer ends early and the
//! other does not is the classic way to hide a statement.

use squawk_lexer::{LiteralKind, TokenKind};

use super::lexer::{Kind, Token};

/// True when both lexers see the same tokens at the same places.
pub(crate) fn agree(text: &str, tokens: &[Token]) -> bool {
    let mut at = 0u32;
    let mut ours = tokens.iter();
    let mut open: Option<&Token> = None;
    for token in squawk_lexer::tokenize(text) {
        let (start, end) = (at, at + token.len);
        at = end;
        if matches!(
            token.kind,
            TokenKind::Whitespace | TokenKind::LineComment | TokenKind::BlockComment { .. }
        ) {
            continue;
        }
        // One of our tokens may be several of theirs: operators, `::`, and
        // strings continued on the next line.
        let current = match open.take() {
            Some(current) => current,
            None => match ours.next() {
                Some(current) if current.start == start => current,
                _ => return false,
            },
        };
        if end > current.end || !same_sort(current, token.kind) {
            return false;
        }
        if end < current.end {
            open = Some(current);
        }
    }
    open.is_none() && ours.next().is_none()
}

fn same_sort(ours: &Token, theirs: TokenKind) -> bool {
    use LiteralKind as L;
    use TokenKind as T;
    match ours.kind {
        Kind::Word => matches!(theirs, T::Ident),
        Kind::QuotedName => matches!(
            theirs,
            T::QuotedIdent {
                terminated: true,
                uescape: false
            }
        ),
        Kind::UnicodeName => matches!(
            theirs,
            T::QuotedIdent {
                terminated: true,
                uescape: true
            }
        ),
        Kind::Str if !ours.continued => matches!(
            theirs,
            T::Literal {
                kind: L::Str { terminated: true }
            }
        ),
        Kind::Str | Kind::EscapeStr | Kind::UnicodeStr | Kind::NationalStr | Kind::BitStr => {
            matches!(
                theirs,
                T::Literal {
                    kind: L::Str { terminated: true }
                        | L::EscStr { terminated: true }
                        | L::UnicodeEscStr { terminated: true }
                        | L::NationalStr { terminated: true }
                        | L::BitStr { terminated: true }
                        | L::ByteStr { terminated: true }
                }
            )
        }
        Kind::DollarStr => matches!(
            theirs,
            T::Literal {
                kind: L::DollarQuotedString { terminated: true }
            }
        ),
        Kind::Int | Kind::Decimal | Kind::Number => {
            matches!(
                theirs,
                T::Literal {
                    kind: L::Int { .. } | L::Numeric { .. }
                }
            )
        }
        Kind::Param => matches!(theirs, T::PositionalParam { .. }),
        Kind::Semi => matches!(theirs, T::Semi),
        Kind::Comma => matches!(theirs, T::Comma),
        Kind::Dot => matches!(theirs, T::Dot),
        Kind::LParen => matches!(theirs, T::OpenParen),
        Kind::RParen => matches!(theirs, T::CloseParen),
        Kind::LBracket => matches!(theirs, T::OpenBracket),
        Kind::RBracket => matches!(theirs, T::CloseBracket),
        Kind::Colon | Kind::Pair => matches!(theirs, T::Colon | T::Eq | T::DotDot),
        Kind::Op => matches!(
            theirs,
            T::Eq
                | T::Gt
                | T::Lt
                | T::And
                | T::Or
                | T::Bang
                | T::Plus
                | T::Minus
                | T::Tilde
                | T::Pound
                | T::Question
                | T::Percent
                | T::Caret
                | T::Star
                | T::Slash
                | T::Backtick
                | T::At
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::lexer::lex;

    fn same(text: &str) -> bool {
        agree(text, &lex(text).unwrap())
    }

    #[test]
    fn ordinary_texts_are_cut_alike() {
        for text in [
            "select 'a', E'b\\'', $$c$$, U&\"d\", x'0f', 1.5, $1, a::int, a #>> b -- c\n, /* d */ e[1:2]",
            "select 'a'\n'b' from \"T\" where a <= 3",
        ] {
            assert!(same(text), "{text}");
        }
    }

    #[test]
    fn a_continued_escape_string_is_cut_differently_and_noticed() {
        assert!(!same("SELECT E'a'\n'\\''; DROP TABLE t; --'"));
        assert!(!same("\u{feff}SELECT 1"));
    }
}
