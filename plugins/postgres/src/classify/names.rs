//! Names as the server resolves them: folded, unquoted, cut to 63 bytes.

use squawk_syntax::{SyntaxKind, SyntaxNode, SyntaxToken};

use super::lexer::{Kind, Token};

const MAX_NAME: usize = 63;

/// A name of one or more parts, the last being the object's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) parts: Vec<String>,
    /// The last part was written without quotes, so it may be a keyword.
    pub(crate) bare: bool,
}

impl Name {
    pub(crate) fn last(&self) -> &str {
        self.parts.last().map_or("", String::as_str)
    }

    /// The part before the last. A third part can only be the current database.
    pub(crate) fn schema(&self) -> Option<&str> {
        self.parts
            .len()
            .checked_sub(2)
            .and_then(|at| self.parts.get(at))
            .map(String::as_str)
    }
}

/// The name that a node spells, or `None` where it holds anything else.
pub(crate) fn name(node: &SyntaxNode) -> Option<Name> {
    // Each with the escape character that it says of itself.
    let mut parts: Vec<(String, char)> = Vec::new();
    let mut bare = false;
    let mut waiting = false;
    let mut dotted = false;
    let mut only = false;
    for element in node.descendants_with_tokens() {
        let Some(token) = element.into_token() else {
            continue;
        };
        match token.kind() {
            SyntaxKind::WHITESPACE | SyntaxKind::COMMENT => {}
            SyntaxKind::DOT => dotted = true,
            SyntaxKind::UESCAPE_KW if !parts.is_empty() && !dotted => waiting = true,
            SyntaxKind::STRING if waiting => {
                waiting = false;
                parts.last_mut()?.1 = escape(token.text())?;
            }
            SyntaxKind::STAR | SyntaxKind::L_PAREN | SyntaxKind::R_PAREN => {}
            // `ONLY t`; in `s.only` it is a name.
            SyntaxKind::ONLY_KW if !dotted => only = true,
            _ => {
                dotted = false;
                bare = is_bare(&token);
                parts.push((token.text().to_owned(), '\\'));
            }
        }
    }
    if parts.is_empty() {
        return only.then(|| Name {
            parts: vec!["only".to_owned()],
            bare: true,
        });
    }
    let parts = parts
        .iter()
        .map(|(part, escape)| fold(part, *escape))
        .collect::<Option<Vec<_>>>()?;
    Some(Name { parts, bare })
}

/// The character of `UESCAPE '!'`.
fn escape(text: &str) -> Option<char> {
    let mut inner = text.strip_prefix('\'')?.strip_suffix('\'')?.chars();
    let escape = inner.next()?;
    inner.next().is_none().then_some(escape)
}

/// Whether a name is spelled in a way that is not read here. Nothing is known of a
/// statement with one.
pub(crate) fn has_unreadable(text: &str, tokens: &[Token]) -> bool {
    tokens.iter().enumerate().any(|(at, token)| {
        if token.kind != Kind::UnicodeName {
            return false;
        }
        let after = |far: usize| tokens.get(at + far);
        let escape = if after(1).is_some_and(|next| next.is(text, "uescape")) {
            after(2)
                .filter(|value| value.kind == Kind::Str)
                .and_then(|value| escape(value.text(text)))
        } else {
            Some('\\')
        };
        escape.is_none_or(|escape| fold(token.text(text), escape).is_none())
    })
}

fn is_bare(token: &SyntaxToken) -> bool {
    token
        .text()
        .starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || !c.is_ascii())
        && !token.text().contains('"')
}

/// One part of a name as the server keeps it. `None`: not a name.
pub(crate) fn fold(text: &str, escape: char) -> Option<String> {
    let name = if let Some(quoted) = text.strip_prefix('"') {
        quoted.strip_suffix('"')?.replace("\"\"", "\"")
    } else if let Some(quoted) = text
        .get(..3)
        .filter(|head| head.eq_ignore_ascii_case("u&\""))
    {
        decode(
            &text
                .get(quoted.len()..)?
                .strip_suffix('"')?
                .replace("\"\"", "\""),
            escape,
        )?
    } else if text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || !c.is_ascii()) {
        text.to_ascii_lowercase()
    } else {
        return None;
    };
    Some(cut(name))
}

fn cut(mut name: String) -> String {
    if name.len() > MAX_NAME {
        let end = (0..=MAX_NAME)
            .rev()
            .find(|&at| name.is_char_boundary(at))
            .unwrap_or(0);
        name.truncate(end);
    }
    name
}

/// Whether a server that keeps text in another encoding may read this name, or the tag
/// around a string, as another one than it is here. It cuts names at 63 bytes of its own,
/// may know more capital letters, and some encodings have one character for two: the
/// end of `$¦$` may be `$￤$`. What is between quotes is no name.
pub(crate) fn may_differ(text: &str, token: &Token) -> bool {
    let spelled = token.text(text);
    match token.kind {
        // It may spell anything.
        Kind::UnicodeName => true,
        Kind::DollarStr => {
            let tag = spelled.split('$').nth(1);
            tag.is_none_or(|tag| !tag.is_ascii())
        }
        kind => !kind.is_string() && !spelled.is_ascii(),
    }
}

/// A pattern over names that are cut as the server cuts them: what is longer than a name
/// can be stands for the names that are its beginning.
pub(crate) fn cut_pattern(pattern: &str) -> String {
    let plain = pattern.split('*').next().unwrap_or_default();
    if plain.len() > MAX_NAME {
        cut(plain.to_owned())
    } else {
        pattern.to_owned()
    }
}

/// `\0061`, `\+000061` and `\\`, pairs of surrogates included.
fn decode(text: &str, escape: char) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    let mut high: Option<u32> = None;
    while let Some(c) = rest.next() {
        if c != escape {
            out.push(c);
            continue;
        }
        let mut ahead = rest.clone();
        let digits = match ahead.next()? {
            next if next == escape => {
                out.push(escape);
                rest = ahead;
                continue;
            }
            '+' => {
                rest = ahead;
                6
            }
            _ => 4,
        };
        let mut code = 0u32;
        for _ in 0..digits {
            code = code * 16 + rest.next()?.to_digit(16)?;
        }
        let code = match (high.take(), code) {
            (None, 0xd800..=0xdbff) => {
                high = Some(code);
                continue;
            }
            (Some(first), 0xdc00..=0xdfff) => 0x10000 + ((first - 0xd800) << 10) + (code - 0xdc00),
            (_, code) => code,
        };
        out.push(char::from_u32(code).filter(|&c| c != '\0')?);
    }
    high.is_none().then_some(out)
}

/// The value of a plain string constant; `None` for every other kind.
pub(crate) fn string(text: &str) -> Option<String> {
    let inner = text.strip_prefix('\'')?.strip_suffix('\'')?;
    Some(inner.replace("''", "'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fold_ascii_only_unless_quoted() {
        assert_eq!(fold("UsErÄ", '\\').as_deref(), Some("userÄ"));
        assert_eq!(fold("\"A\"\"b\"", '\\').as_deref(), Some("A\"b"));
        assert_eq!(fold("1", '\\'), None);
    }

    #[test]
    fn unicode_names_are_decoded() {
        assert_eq!(
            fold("U&\"d\\0061t\\+000061\"", '\\').as_deref(),
            Some("data")
        );
        assert_eq!(fold("u&\"d!0061!!\"", '!').as_deref(), Some("da!"));
        assert_eq!(
            fold("U&\"\\D83D\\DE00\"", '\\').as_deref(),
            Some("\u{1f600}")
        );
        assert_eq!(fold("U&\"\\D83Dx\"", '\\'), None);
    }

    #[test]
    fn what_is_not_read_is_said_to_be_unreadable() {
        let unreadable =
            |text: &str| has_unreadable(text, &super::super::lexer::lex(text).unwrap());
        for (text, is) in [
            ("U&\"hr\".U&\"t\"", false),
            ("U&\"h\\0072\".t", false),
            ("U&\"h!0072\" UESCAPE '!'.U&\"t\" /* */ uescape '?'", false),
            ("U&\"h\\00\"", true),
            ("U&\"hr\" UESCAPE 'r'", true),
            ("U&\"hr\" UESCAPE '??'", true),
            ("U&\"hr\" UESCAPE E'?'", true),
            ("U&\"hr\" UESCAPE", true),
        ] {
            assert_eq!(unreadable(text), is, "{text}");
        }
    }

    #[test]
    fn each_part_has_its_own_escape_character() {
        use crate::classify::{Limits, Settings, classify};
        for text in [
            "SELECT * FROM U&\"h\\0072\".U&\"salaries\" UESCAPE '!'",
            "SELECT * FROM U&\"h!0072\" UESCAPE '!'.U&\"salaries\" UESCAPE '?'",
            "SELECT * FROM U&\"hr\".U&\"salaries\" UESCAPE 'h'",
            "COPY U&\"hr\".U&\"salaries\" UESCAPE 'h' TO STDOUT",
            "DELETE FROM U&\"h\\0072\".U&\"sa!006caries\" UESCAPE '!'",
        ] {
            let analysis = classify(text.as_bytes(), &Settings::default(), &Limits::default());
            let [object] = analysis.statements[0].objects.as_slice() else {
                panic!("{text}: {:?}", analysis.statements);
            };
            let name = (object.schema.as_deref(), object.name.as_str());
            assert_eq!(name, (Some("hr"), "salaries"), "{text}");
        }
    }

    #[test]
    fn a_pattern_longer_than_a_name_is_cut_as_the_name_is() {
        let long = format!("salary_{}", "x".repeat(60));
        assert_eq!(cut_pattern(&long), long[..63]);
        assert_eq!(cut_pattern(&format!("{long}*")), long[..63]);
        assert_eq!(cut_pattern("sal*"), "sal*");
        assert_eq!(cut_pattern(&format!("*{long}")), format!("*{long}"));
    }

    #[test]
    fn long_names_are_cut_at_a_character() {
        assert_eq!(fold(&"é".repeat(40), '\\').map(|name| name.len()), Some(62));
    }
}
