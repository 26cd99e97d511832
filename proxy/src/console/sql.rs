//! Colours for statements, and their shape.
//!
//! An aid to the eye, never a judgement: what a command does is said by its parser. A token
//! is cut wrongly where the server's settings differ from the usual ones, so nothing is
//! hidden or made faint by its colour, and the text stays whole in any case.

/// What a piece of text looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Names, signs, white space.
    Plain,
    Keyword,
    /// A word that takes away or gives rights.
    Danger,
    Text,
    Number,
    Comment,
    /// `\u{…}` or `\x…`: something that would not have been seen.
    Escape,
}

/// Words that take away or give rights.
const DANGER: [&str; 14] = [
    "alter",
    "copy",
    "cascade",
    "delete",
    "disable",
    "drop",
    "execute",
    "grant",
    "lock",
    "reassign",
    "revoke",
    "superuser",
    "truncate",
    "update",
];

const KEYWORDS: [&str; 84] = [
    "add",
    "all",
    "analyze",
    "and",
    "any",
    "as",
    "asc",
    "begin",
    "between",
    "by",
    "call",
    "case",
    "check",
    "column",
    "commit",
    "conflict",
    "constraint",
    "create",
    "cross",
    "cursor",
    "database",
    "declare",
    "default",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "exists",
    "explain",
    "false",
    "fetch",
    "for",
    "foreign",
    "from",
    "full",
    "function",
    "group",
    "having",
    "if",
    "in",
    "index",
    "inner",
    "insert",
    "intersect",
    "into",
    "is",
    "join",
    "key",
    "left",
    "like",
    "limit",
    "not",
    "null",
    "offset",
    "on",
    "or",
    "order",
    "outer",
    "owner",
    "primary",
    "procedure",
    "references",
    "returning",
    "right",
    "rollback",
    "role",
    "schema",
    "select",
    "set",
    "show",
    "table",
    "then",
    "to",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "values",
    "view",
    "where",
    "with",
];

/// Cuts text that is escaped for display; the pieces together are the text. Escapes are
/// pieces of their own also within values and comments.
pub(super) fn pieces(text: &str) -> Vec<(Look, &str)> {
    let mut all: Vec<(Look, &str)> = Vec::new();
    for (look, mut token) in tokens(text) {
        while let Some(at) = token.find('\\') {
            let (found, length) = escape(&token[at..]);
            if found == Look::Escape {
                let (before, rest) = token.split_at(at);
                let (escape, after) = rest.split_at(length);
                all.extend([(look, before), (Look::Escape, escape)]);
                token = after;
            } else {
                let (before, after) = token.split_at(at + length);
                all.push((look, before));
                token = after;
            }
        }
        all.push((look, token));
    }
    all.retain(|(_, piece)| !piece.is_empty());
    all
}

fn tokens(text: &str) -> Vec<(Look, &str)> {
    let mut all: Vec<(Look, &str)> = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (look, length) = first(rest);
        let (piece, after) = rest.split_at(length);
        all.push((look, piece));
        rest = after;
    }
    all
}

fn first(text: &str) -> (Look, usize) {
    let bytes = text.as_bytes();
    let next = bytes.get(1).copied();
    match bytes[0] {
        b'-' if next == Some(b'-') => (Look::Comment, text.find('\n').unwrap_or(text.len())),
        b'/' if next == Some(b'*') => (Look::Comment, comment(bytes)),
        b'\'' => (Look::Text, quoted(bytes, b'\'', 1)),
        b'"' => (Look::Plain, quoted(bytes, b'"', 1)),
        b'$' => match dollar(text) {
            Some(length) => (Look::Text, length),
            None => (Look::Plain, 1 + run(&bytes[1..], u8::is_ascii_digit)),
        },
        b'\\' => escape(text),
        b'0'..=b'9' => {
            let more = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_');
            (Look::Number, run(bytes, more))
        }
        byte if is_word(byte) => {
            let length = run(bytes, |byte| is_word(*byte) || byte.is_ascii_digit());
            (word(&text[..length]), length)
        }
        byte if byte.is_ascii_whitespace() => (Look::Plain, run(bytes, u8::is_ascii_whitespace)),
        _ => (Look::Plain, 1),
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn word(text: &str) -> Look {
    let lower = text.to_ascii_lowercase();
    if DANGER.contains(&lower.as_str()) {
        Look::Danger
    } else if KEYWORDS.contains(&lower.as_str()) {
        Look::Keyword
    } else {
        Look::Plain
    }
}

fn run(bytes: &[u8], is: impl Fn(&u8) -> bool) -> usize {
    bytes
        .iter()
        .position(|byte| !is(byte))
        .unwrap_or(bytes.len())
}

/// To the closing quote, where a doubled one does not close.
fn quoted(bytes: &[u8], quote: u8, from: usize) -> usize {
    let mut at = from;
    while let Some(found) = bytes
        .get(at..)
        .and_then(|rest| rest.iter().position(|b| *b == quote))
    {
        at += found + 1;
        if bytes.get(at) != Some(&quote) {
            return at;
        }
        at += 1;
    }
    bytes.len()
}

/// They nest.
fn comment(bytes: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < bytes.len() {
        match (bytes[at], bytes.get(at + 1)) {
            (b'/', Some(b'*')) => {
                depth += 1;
                at += 2;
            }
            (b'*', Some(b'/')) => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    bytes.len()
}

/// `$tag$ … $tag$`.
fn dollar(text: &str) -> Option<usize> {
    let name = text[1..].find('$')? + 2;
    let tag = &text[..name];
    let inner = &tag.as_bytes()[1..name - 1];
    let is_tag = inner
        .iter()
        .all(|byte| is_word(*byte) || byte.is_ascii_digit())
        && !inner.first().is_some_and(u8::is_ascii_digit);
    let end = || {
        text[name..]
            .find(tag)
            .map_or(text.len(), |at| name + at + name)
    };
    is_tag.then(end)
}

fn escape(text: &str) -> (Look, usize) {
    // A backslash of the command's own.
    if text.starts_with("\\\\") {
        return (Look::Plain, 2);
    }
    if text.starts_with("\\u{") {
        return match text.find('}') {
            Some(end) => (Look::Escape, end + 1),
            None => (Look::Plain, 1),
        };
    }
    let is_byte = text.starts_with("\\x")
        && text
            .get(2..4)
            .is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
    if is_byte {
        (Look::Escape, 4)
    } else {
        (Look::Plain, 1)
    }
}

/// The same for commands that differ in values, letter case, comments and white space only.
pub(super) fn shape(text: &str) -> String {
    let mut shape = String::new();
    for (look, piece) in tokens(text) {
        match look {
            Look::Text | Look::Number => {
                // A list of values has the shape of one.
                if shape.ends_with("?,") {
                    shape.pop();
                } else if shape.ends_with("?, ") {
                    shape.truncate(shape.len() - 2);
                } else {
                    shape.push('?');
                }
            }
            Look::Comment => space(&mut shape),
            Look::Plain if piece.starts_with('"') => shape.push_str(piece),
            Look::Plain if piece.trim().is_empty() => space(&mut shape),
            _ => shape.push_str(&piece.to_lowercase()),
        }
    }
    shape.trim().trim_end_matches(';').trim_end().to_owned()
}

fn space(shape: &mut String) {
    if !shape.ends_with(' ') && !shape.is_empty() {
        shape.push(' ');
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn looks(text: &str) -> Vec<(Look, &str)> {
        let all = pieces(text).into_iter();
        all.filter(|(look, _)| *look != Look::Plain).collect()
    }

    #[test]
    fn words_values_and_what_would_be_invisible_look_different() {
        assert_eq!(
            looks("drop table a1 -- '\nwhere x = 'it''s' and y > 1.5"),
            [
                (Look::Danger, "drop"),
                (Look::Keyword, "table"),
                (Look::Comment, "-- '"),
                (Look::Keyword, "where"),
                (Look::Text, "'it''s'"),
                (Look::Keyword, "and"),
                (Look::Number, "1.5"),
            ]
        );
        assert_eq!(
            looks(
                "\\\\x41a\\u{202e}b\\xffc$x$ drop $x$ /* a /* b */ c */ \"drop\" $1 'x\\u{200b}y'"
            ),
            [
                (Look::Escape, "\\u{202e}"),
                (Look::Escape, "\\xff"),
                (Look::Text, "$x$ drop $x$"),
                (Look::Comment, "/* a /* b */ c */"),
                (Look::Text, "'x"),
                (Look::Escape, "\\u{200b}"),
                (Look::Text, "y'"),
            ]
        );
    }

    #[test]
    fn what_does_not_end_goes_to_the_end() {
        for open in ["'a", "/* a", "$x$ a", "-- a", "\\u{12"] {
            assert_eq!(
                pieces(open).iter().map(|(_, p)| p.len()).sum::<usize>(),
                open.len()
            );
        }
    }

    #[test]
    fn values_do_not_change_a_shape_and_names_do() {
        let one = shape("DELETE FROM t  WHERE id IN (1, 2,3) AND n = 'x' -- why\n;");
        assert_eq!(one, "delete from t where id in (?) and n = ?");
        assert_eq!(one, shape("delete from t where id in (9) and n = 'yy'"));
        assert_ne!(one, shape("delete from u where id in (9) and n = 'yy'"));
        assert_ne!(shape("select \"A\""), shape("select \"a\""));
    }

    proptest! {
        #[test]
        fn the_pieces_are_the_text(text in "[-a-z'\"$/*\\\\{}0-9 \n\u{e9}]{0,40}") {
            let whole: String = pieces(&text).iter().map(|(_, piece)| *piece).collect();
            prop_assert_eq!(whole, text);
        }
    }
}
