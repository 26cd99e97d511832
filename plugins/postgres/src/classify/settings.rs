//! Server settings that a session may change without asking, and the two that
//! it must never change.

use super::Object;
use super::lexer::{Kind, Token};

/// What a change of a setting means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Drivers do this all the time; nothing outside the session notices.
    Harmless,
    /// It may change what later statements mean or may do.
    Matters,
    /// It would move the ends of literals for everything after it.
    Refused,
}

const HARMLESS: [&str; 14] = [
    "application_name",
    "bytea_output",
    "client_min_messages",
    "datestyle",
    "extra_float_digits",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "intervalstyle",
    "jit",
    "lock_timeout",
    "statement_timeout",
    "timezone",
    "transaction_timeout",
    "xmloption",
];

/// The name under which `RESET ALL` is kept.
pub(crate) const ALL: &str = "all settings";

/// Settings that change how a session looks or how long it waits, and nothing
/// of what its statements mean.
const MEANINGLESS: [&str; 10] = [
    "application_name",
    "bytea_output",
    "client_min_messages",
    "extra_float_digits",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "jit",
    "lock_timeout",
    "statement_timeout",
    "transaction_timeout",
];

/// Whether what a later statement means may depend on this setting.
pub(crate) fn gives_meaning(name: &str) -> bool {
    !moves_quotes(name)
        && !MEANINGLESS
            .iter()
            .any(|plain| name.eq_ignore_ascii_case(plain))
}

/// Why a change of one of the two pinned settings is refused.
pub(crate) fn refused(name: &str) -> String {
    format!(
        "`{}` is pinned: it decides where literals end. Leave client_encoding at UTF8 and standard_conforming_strings on",
        name.to_ascii_lowercase()
    )
}

/// Why a write to the view of the settings is refused. It looks like one to a table, everybody
/// may do it, and it sets what it will: also what is pinned.
pub(crate) const WRITTEN: &str =
    "`pg_settings` is not written to, since that changes settings of any name: use SET";

/// Whether an object is the view of the settings, and more than read.
pub(crate) fn is_written(object: &Object) -> bool {
    object.name == "pg_settings"
        && object.access != "read"
        && object
            .schema
            .as_deref()
            .is_none_or(|schema| schema == "pg_catalog")
}

/// Settings that change where literals end.
pub(crate) fn moves_quotes(name: &str) -> bool {
    name.eq_ignore_ascii_case("client_encoding")
        || name.eq_ignore_ascii_case("standard_conforming_strings")
}

/// What setting `name` to `value` means; `None` is its default.
pub(crate) fn change(name: &str, value: Option<&str>) -> Change {
    let lower = name.to_ascii_lowercase();
    match lower.as_str() {
        "client_encoding" => match value {
            // The default is what the session started with, which was checked.
            None => Change::Harmless,
            Some(value) if is_utf8(value) => Change::Harmless,
            Some(_) => Change::Refused,
        },
        "standard_conforming_strings" => match value {
            None => Change::Harmless,
            Some(value) if boolean(value) == Some(true) => Change::Harmless,
            Some(_) => Change::Refused,
        },
        "default_transaction_read_only" if value.and_then(boolean) == Some(true) => {
            Change::Harmless
        }
        name if HARMLESS.contains(&name) => Change::Harmless,
        _ => Change::Matters,
    }
}

/// Whether the server takes this encoding name for UTF-8.
pub(crate) fn is_utf8(value: &str) -> bool {
    let plain: String = value
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect();
    matches!(plain.as_str(), "utf8" | "unicode")
}

/// The server's own reading of a boolean setting.
pub(crate) fn boolean(value: &str) -> Option<bool> {
    let value = value.trim().to_ascii_lowercase();
    let shortens =
        |word: &str, least: usize| value.len() >= least && word.starts_with(value.as_str());
    match value.as_str() {
        "1" => Some(true),
        "0" => Some(false),
        _ if shortens("true", 1) || shortens("yes", 1) || shortens("on", 2) => Some(true),
        _ if shortens("false", 1) || shortens("no", 1) || shortens("off", 2) => Some(false),
        _ => None,
    }
}

/// What a call of `set_config` sets.
pub(crate) struct SetConfig {
    pub(crate) name: String,
    pub(crate) value: String,
    pub(crate) local: bool,
}

/// `SELECT [pg_catalog.]set_config('name', 'value', bool)` and nothing else.
pub(crate) fn set_config(text: &str, tokens: &[Token]) -> Option<SetConfig> {
    let rest = tokens
        .first()
        .filter(|token| token.is(text, "select"))
        .and(tokens.get(1..))?;
    let rest = match rest {
        [schema, dot, ..] if schema.is(text, "pg_catalog") && dot.kind == Kind::Dot => {
            rest.get(2..)?
        }
        _ => rest,
    };
    let [function, open, name, comma, value, comma2, local, close] = rest else {
        return None;
    };
    let shape = [
        (open, Kind::LParen),
        (comma, Kind::Comma),
        (comma2, Kind::Comma),
        (close, Kind::RParen),
    ];
    let plain = |token: &Token| token.kind == Kind::Str && !token.continued;
    let matches = function.is(text, "set_config")
        && shape.iter().all(|(token, kind)| token.kind == *kind)
        && plain(name)
        && plain(value)
        && (local.is(text, "true") || local.is(text, "false"));
    if !matches {
        return None;
    }
    Some(SetConfig {
        name: super::names::string(name.text(text))?,
        value: super::names::string(value.text(text))?,
        local: local.is(text, "true"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_utf8_and_standard_strings_are_let_through() {
        assert_eq!(change("CLIENT_ENCODING", Some("UTF-8")), Change::Harmless);
        assert_eq!(change("client_encoding", Some("sjis")), Change::Refused);
        assert_eq!(
            change("standard_conforming_strings", Some("ON")),
            Change::Harmless
        );
        assert_eq!(
            change("standard_conforming_strings", Some("of")),
            Change::Refused
        );
        assert_eq!(
            change("standard_conforming_strings", Some("o")),
            Change::Refused
        );
    }

    #[test]
    fn the_view_of_the_settings_is_not_written_to() {
        let refused = |text: &str| {
            let limits = crate::classify::Limits::default();
            let settings = crate::classify::Settings::default();
            let analysis = crate::classify::classify(text.as_bytes(), &settings, &limits);
            analysis.reject.is_some()
        };
        for text in [
            "UPDATE pg_settings SET setting = 'off' WHERE name = 'standard_conforming_strings'",
            "UPDATE ONLY pg_catalog.\"pg_settings\" SET setting = $1 WHERE name = $2",
            "UPDATE U&\"pg!005fsettings\" UESCAPE '!' AS s SET setting = 'x'",
            "WITH a AS (UPDATE PG_SETTINGS SET setting = 'x' RETURNING 1) SELECT * FROM a",
            "PREPARE p AS UPDATE pg_settings SET setting = 'x'",
            "EXPLAIN ANALYZE UPDATE pg_settings SET setting = 'x'",
            "SELECT 1; UPDATE pg_settings SET setting = 'x'",
            "MERGE INTO pg_settings USING t ON true WHEN MATCHED THEN UPDATE SET setting = 'x'",
        ] {
            assert!(refused(text), "{text}");
        }
        for text in [
            "SELECT * FROM pg_settings",
            "UPDATE t SET a = (SELECT setting FROM pg_settings LIMIT 1)",
            "UPDATE app.pg_settings SET setting = 'x'",
        ] {
            assert!(!refused(text), "{text}");
        }
    }

    #[test]
    fn settings_that_change_meaning_matter() {
        assert_eq!(change("search_path", Some("x")), Change::Matters);
        assert_eq!(change("TimeZone", Some("UTC")), Change::Harmless);
        assert_eq!(
            change("default_transaction_read_only", Some("off")),
            Change::Matters
        );
    }
}
