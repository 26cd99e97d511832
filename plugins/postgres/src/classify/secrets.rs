//! Where a statement carries a secret that no record or reviewer may see.
//!
//! Found by tokens, so that a statement which does not parse gives nothing
//! away either. Only places where the grammar expects a secret count: hiding
//! any literal that looks like one would let an agent hide what it likes.

use super::lexer::{Kind, Token};

/// The bytes of the text that hold secrets of this statement.
pub(crate) fn secrets(text: &str, tokens: &[Token]) -> Vec<(u32, u32)> {
    let word = |at: usize, words: &[&str]| {
        tokens
            .get(at)
            .is_some_and(|token: &Token| words.iter().any(|word| token.is(text, word)))
    };
    let makes = word(0, &["create", "alter"]);
    if !makes {
        return Vec::new();
    }
    let role = word(1, &["role", "user", "group"]) && !word(2, &["mapping"]);
    let server = word(1, &["server", "foreign"]) || (word(1, &["user"]) && word(2, &["mapping"]));
    let mapping = word(1, &["user"]) && word(2, &["mapping"]);
    let subscription = word(1, &["subscription"]);
    let system = word(1, &["system"]);
    let mut spans = Vec::new();
    let mut options = false;
    for (at, token) in tokens.iter().enumerate() {
        options |= token.is(text, "options");
        if !token.kind.is_string() || at == 0 {
            continue;
        }
        let named = |words: &[&str]| {
            tokens.get(at - 1).is_some_and(|name| {
                let name = name.text(text).to_ascii_lowercase();
                words.iter().any(|word| name.contains(word))
            })
        };
        // A string that belongs to no OPTIONS list of the mapping is a name.
        let secret = (role && word(at - 1, &["password"]))
            || (subscription && word(at - 1, &["connection"]))
            || (mapping
                && options
                && tokens
                    .get(at - 1)
                    .is_some_and(|before| before.kind != Kind::LParen))
            || (server && options && named(&["pass", "secret", "token", "key"]))
            || (system && after_assignment(text, tokens, at) && sensitive_setting(text, tokens));
        if secret {
            spans.push((token.start, token.end));
        }
    }
    spans
}

fn after_assignment(text: &str, tokens: &[Token], at: usize) -> bool {
    tokens.get(at - 1).is_some_and(|token| {
        token.is(text, "to") || token.text(text) == "=" || token.kind == Kind::Comma
    })
}

fn sensitive_setting(text: &str, tokens: &[Token]) -> bool {
    tokens.iter().any(|token| {
        let name = token.text(text).to_ascii_lowercase();
        ["conninfo", "passphrase", "password", "secret"]
            .iter()
            .any(|word| name.contains(word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::lexer::lex;

    fn hidden(text: &str) -> Vec<&str> {
        let tokens = lex(text).unwrap();
        secrets(text, &tokens)
            .into_iter()
            .map(|(start, end)| &text[start as usize..end as usize])
            .collect()
    }

    #[test]
    fn passwords_and_connection_strings_are_found() {
        assert_eq!(
            hidden("ALTER ROLE r VALID UNTIL '2030' ENCRYPTED PASSWORD 'p''q'"),
            ["'p''q'"]
        );
        assert_eq!(hidden("CREATE USER u PASSWORD $$x$$"), ["$$x$$"]);
        assert_eq!(
            hidden("CREATE USER MAPPING FOR u SERVER s OPTIONS (user 'a', password E'b')"),
            ["'a'", "E'b'"]
        );
        assert_eq!(
            hidden("ALTER SUBSCRIPTION s CONNECTION 'password=x'"),
            ["'password=x'"]
        );
        assert_eq!(
            hidden("ALTER SYSTEM SET primary_conninfo = 'password=x'"),
            ["'password=x'"]
        );
    }

    #[test]
    fn other_literals_stay_visible() {
        assert!(hidden("INSERT INTO log VALUES ('password=x')").is_empty());
        assert!(hidden("ALTER ROLE r SET search_path = 'x'").is_empty());
        assert!(hidden("COMMENT ON ROLE r IS 'password'").is_empty());
    }
}
