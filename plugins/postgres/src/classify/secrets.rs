//! Where a statement carries a secret that no record or reviewer may see.
//!
//! Found by tokens, so that a statement which does not parse gives nothing
//! away either. Only places where the grammar expects a secret count: hiding
//! any literal that looks like one would let an agent hide what it likes.

use super::lexer::{Kind, Token};

/// The bytes of the text that hold secrets of this statement.
pub(crate) fn secrets(text: &str, tokens: &[Token]) -> Vec<(u32, u32)> {
    let options = tokens.iter().position(|token| token.is(text, "options"));
    let at = Tokens {
        text,
        tokens,
        options: options.unwrap_or(usize::MAX),
    };
    let mut spans: Vec<(u32, u32)> = (1..tokens.len())
        .filter(|&index| tokens[index].kind.is_string() && at.holds_secret(index))
        .map(|index| (tokens[index].start, tokens[index].end))
        .collect();
    spans.extend(in_bodies(text, tokens));
    spans.sort_unstable();
    spans
}

/// One statement, asked word by word.
struct Tokens<'t> {
    text: &'t str,
    tokens: &'t [Token],
    /// Where the first `OPTIONS` stands.
    options: usize,
}

impl Tokens<'_> {
    fn word(&self, at: usize, words: &[&str]) -> bool {
        self.tokens
            .get(at)
            .is_some_and(|token| words.iter().any(|word| token.is(self.text, word)))
    }

    /// Whether the grammar expects a secret where the string at `index` stands.
    fn holds_secret(&self, index: usize) -> bool {
        let before = index - 1;
        let definition = self.word(0, &["create", "alter"]);
        let user = definition && self.word(1, &["user"]);
        let mapping = user && self.word(2, &["mapping"]);
        let role = user || (definition && self.word(1, &["role", "group"]));
        let server = definition && self.word(1, &["server", "foreign"]);
        let subscription = definition && self.word(1, &["subscription"]);
        let sets = self.word(0, &["set"])
            || (definition && self.word(1, &["system", "role", "user", "database"]));
        (role && self.word(before, &["password"]))
            || (subscription && self.word(before, &["connection"]))
            || (mapping && self.options < index && self.kind(before) != Some(Kind::LParen))
            || (server && self.options < index && self.names_secret(before))
            || (sets && self.assigned(index))
            || self.argument(index)
    }

    fn kind(&self, at: usize) -> Option<Kind> {
        self.tokens.get(at).map(|token| token.kind)
    }

    /// Whether a name is that of a secret. What cannot be read might be.
    fn names_secret(&self, at: usize) -> bool {
        let Some(token) = self.tokens.get(at) else {
            return false;
        };
        let name = token.text(self.text).to_ascii_lowercase();
        token.kind == Kind::UnicodeName
            || ["pass", "secret", "token", "key", "conninfo"]
                .iter()
                .any(|word| name.contains(word))
    }

    /// `SET app.password = 'x'`, `ALTER SYSTEM SET primary_conninfo TO 'x'`.
    fn assigned(&self, index: usize) -> bool {
        let is_sign = |at: usize| {
            self.word(at, &["to"])
                || self
                    .tokens
                    .get(at)
                    .is_some_and(|token| token.text(self.text) == "=")
        };
        (1..index)
            .rev()
            .take(64)
            .any(|at| is_sign(at) && self.names_secret(at - 1))
    }

    /// A value of `set_config` for such a name, and a connection string of dblink
    /// that holds a password. What dblink is to run stays visible.
    fn argument(&self, index: usize) -> bool {
        let opens = |at: usize| self.kind(at) == Some(Kind::LParen);
        let comma = |at: usize| self.kind(at) == Some(Kind::Comma);
        let string = |at: usize| self.kind(at).is_some_and(Kind::is_string);
        let second = index >= 4 && comma(index - 1) && string(index - 2) && opens(index - 3);
        if second && self.word(index - 4, &["set_config"]) {
            return self.names_secret(index - 2);
        }
        let connects = ["dblink_connect", "dblink_connect_u"];
        let first = index >= 2 && opens(index - 1);
        let connection = (first && self.word(index - 2, &connects))
            || (second && self.word(index - 4, &connects))
            || (first
                && self.word(index - 2, &["dblink", "dblink_exec"])
                && comma(index + 1)
                && string(index + 2));
        let text = self.tokens[index].text(self.text).to_ascii_lowercase();
        connection && (text.contains("pass") || (text.contains("://") && text.contains('@')))
    }
}

/// Passwords of roles in the bodies of `DO` and of routines.
fn in_bodies(text: &str, tokens: &[Token]) -> Vec<(u32, u32)> {
    let makes = |word| tokens.first().is_some_and(|token| token.is(text, word));
    if !makes("do") && !makes("create") {
        return Vec::new();
    }
    tokens
        .iter()
        .filter(|token| token.kind == Kind::DollarStr)
        .flat_map(|token| {
            unread(token.text(text).as_bytes())
                .into_iter()
                .map(|(start, end)| (token.start + start, token.start + end))
        })
        .collect()
}

/// Passwords in a text that could not be cut into tokens, or is too long for
/// it: the constant after the word, up to its quote or to the end.
pub(crate) fn unread(text: &[u8]) -> Vec<(u32, u32)> {
    const WORD: &[u8] = b"password";
    let mut spans: Vec<(u32, u32)> = Vec::new();
    let mut at = 0;
    // Such a text may be long, so its bytes are asked one by one first.
    while let Some(found) = text[at..].iter().position(|byte| byte | 0x20 == b'p') {
        at += found;
        let word = text.get(at..at + WORD.len());
        if !word.is_some_and(|word| word.eq_ignore_ascii_case(WORD)) {
            at += 1;
            continue;
        }
        at += WORD.len();
        let blanks = text[at..]
            .iter()
            .take_while(|byte| byte.is_ascii_whitespace() || **byte == 0x0b)
            .count();
        let start = at + blanks;
        // `'x'`, `''x''` inside a string, `E'x'`, `$$x$$`.
        let head = text[start..].iter().take(3);
        let Some(prefix) = head
            .clone()
            .position(|byte| matches!(byte, b'\'' | b'$'))
            .filter(|prefix| head.take(*prefix).all(|byte| b"eEuUnN&".contains(byte)))
        else {
            continue;
        };
        let open = start + prefix;
        let quote = text[open];
        let quotes = text[open..]
            .iter()
            .take_while(|byte| **byte == quote)
            .count();
        let body = open + quotes;
        let length = text[body..].iter().position(|byte| *byte == quote);
        let closed = length.map_or(text.len(), |length| {
            (body + length + quotes).min(text.len())
        });
        let (Ok(from), Ok(to)) = (u32::try_from(start), u32::try_from(closed)) else {
            break;
        };
        spans.push((from, to));
        at = closed;
    }
    spans
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
    fn a_role_called_mapping_has_a_password_too() {
        assert_eq!(hidden("CREATE USER mapping PASSWORD 'x'"), ["'x'"]);
        assert_eq!(
            hidden("ALTER SERVER s OPTIONS (SET U&\"p\\0061ssword\" 'x', host 'h')"),
            ["'x'"]
        );
    }

    #[test]
    fn secrets_in_settings_and_connection_strings_are_found() {
        assert_eq!(hidden("SET app.password = 'x'"), ["'x'"]);
        assert_eq!(hidden("ALTER ROLE r SET app.api_token TO 'x'"), ["'x'"]);
        assert_eq!(
            hidden("SELECT set_config('app.secret', 'x', false)"),
            ["'x'"]
        );
        assert_eq!(
            hidden("SELECT dblink_connect('c', 'host=h password=x')"),
            ["'host=h password=x'"]
        );
        assert_eq!(
            hidden(
                "SELECT * FROM dblink('postgres://u:x@h/d', 'DROP TABLE password') AS t (a int)"
            ),
            ["'postgres://u:x@h/d'"]
        );
        assert_eq!(
            hidden(
                "DO $$BEGIN ALTER ROLE r PASSWORD 'x'; EXECUTE 'ALTER ROLE r PASSWORD ''y'''; END$$"
            ),
            ["'x'", "''y''"]
        );
    }

    #[test]
    fn a_text_that_cannot_be_read_gives_no_password_away() {
        let unread = |text: &'static str| {
            unread(text.as_bytes())
                .into_iter()
                .map(|(start, end)| &text[start as usize..end as usize])
                .collect::<Vec<_>>()
        };
        assert_eq!(unread("ALTER ROLE r PASSWORD 'x'; SELECT 'open"), ["'x'"]);
        assert_eq!(unread("ALTER ROLE r Password\n'x; DROP"), ["'x; DROP"]);
        assert_eq!(unread("ALTER ROLE r PASSWORD E'x'; $1$"), ["E'x'"]);
        assert_eq!(unread("ALTER ROLE r PASSWORD $$x$$; '"), ["$$x$$"]);
        assert!(unread("SELECT password FROM t; '").is_empty());
    }

    #[test]
    fn other_literals_stay_visible() {
        assert!(hidden("SELECT dblink('password=x')").is_empty());
        assert!(hidden("SELECT dblink('c', 'SELECT password')").is_empty());
        assert!(hidden("SET search_path = 'password'").is_empty());
        assert!(hidden("INSERT INTO log VALUES ('password=x')").is_empty());
        assert!(hidden("ALTER ROLE r SET search_path = 'x'").is_empty());
        assert!(hidden("COMMENT ON ROLE r IS 'password'").is_empty());
    }
}
