//! What a PostgreSQL text does: `classify` turns bytes into facts for policy.
//!
//! Two witnesses look at every statement. The tree (`syntax.rs`) says what it
//! is; the token scan (`witness.rs`), on a lexer of our own (`lexer.rs`), says
//! what it can be at worst. A statement is harmless only where both agree and
//! both lexers cut the text at the same places (`agree.rs`). Whatever is not
//! understood is `unknown`, which policy holds. `tests/differential` compares all
//! of it with the server's own parser.
//!
//! The functions are pure and never panic. Time and stack are bounded: text and
//! statement count are limited, and no tree is parsed whose depth could exceed
//! the stack (`shape.rs`).

mod agree;
mod cache;
mod catalog;
mod functions;
mod lexer;
mod names;
mod objects;
mod protect;
mod secrets;
mod settings;
mod shape;
mod strict;
mod syntax;
mod witness;

use std::rc::Rc;

use cache::Cache;
use lexer::Token;
use witness::Sort;

pub(crate) use protect::{Exposure, FACT as PROTECTED, Field, Protected};
pub(crate) use settings::{gives_meaning, is_utf8};
pub(crate) use shape::open_numbers;

/// What a statement does at worst, from harmless to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Class {
    Session,
    Transaction,
    Read,
    CopyOut,
    Write,
    CopyIn,
    Maintenance,
    Ddl,
    Dcl,
    Procedural,
    FunctionEffect,
    Unknown,
}

impl Class {
    /// All classes in their order, as the plugin's descriptor lists them.
    pub(crate) const ALL: [Self; 12] = [
        Self::Session,
        Self::Transaction,
        Self::Read,
        Self::CopyOut,
        Self::Write,
        Self::CopyIn,
        Self::Maintenance,
        Self::Ddl,
        Self::Dcl,
        Self::Procedural,
        Self::FunctionEffect,
        Self::Unknown,
    ];

    /// The word that policy and records use.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Transaction => "transaction",
            Self::Read => "read",
            Self::CopyOut => "copy_out",
            Self::Write => "write",
            Self::CopyIn => "copy_in",
            Self::Maintenance => "maintenance",
            Self::Ddl => "ddl",
            Self::Dcl => "dcl",
            Self::Procedural => "procedural",
            Self::FunctionEffect => "function_effect",
            Self::Unknown => "unknown",
        }
    }
}

/// The session's lexer state. The session pins both; anything else is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settings {
    pub client_encoding_utf8: bool,
    pub(crate) standard_conforming_strings: bool,
    /// The database's own encoding, which no session can change.
    pub(crate) server_encoding_utf8: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            client_encoding_utf8: true,
            standard_conforming_strings: true,
            server_encoding_utf8: true,
        }
    }
}

/// Past these a text is not judged, which makes it `unknown`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) max_text: usize,
    /// Bytes for the tree parser, constants and repeated rows not counted. Its
    /// work must fit the time of one call.
    pub(crate) max_parsed: usize,
    pub(crate) max_statements: usize,
    /// Deepest nesting, as `shape.rs` counts it.
    pub(crate) max_depth: u32,
    /// Words, constants and signs in all. Each takes memory and time whatever it is.
    pub(crate) max_tokens: usize,
}

impl Limits {
    /// What an operator may raise them to. The depth is the stack's.
    pub(crate) const MOST: Self = Self {
        max_text: 64 << 20,
        max_parsed: 16 << 20,
        max_statements: 100_000,
        max_depth: shape::MAX_DEPTH,
        max_tokens: 16 << 20,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_text: 1 << 20,
            max_parsed: 64 << 10,
            max_statements: 1000,
            max_depth: shape::MAX_DEPTH,
            max_tokens: 1 << 20,
        }
    }
}

/// Something that a statement names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) kind: &'static str,
    pub(crate) schema: Option<String>,
    pub(crate) name: String,
    /// `read`, `write`, `lock`, `define` or `execute`.
    pub(crate) access: &'static str,
}

/// What a statement does to the state that the session keeps. Names are folded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Act {
    Other,
    /// The text could not be read: it may do any of the below.
    Unreadable,
    Begin,
    /// Also `PREPARE TRANSACTION`, which ends the block as well.
    Commit {
        chain: bool,
    },
    Rollback {
        chain: bool,
    },
    RollbackTo,
    /// The statement's own class and facts are those of what it prepares.
    Prepare {
        name: String,
    },
    /// Class `unknown` until the session puts the prepared statement's in.
    Execute {
        name: String,
    },
    /// `None`: all.
    Deallocate {
        name: Option<String>,
    },
    /// The statement's own class and facts are those of the cursor's query.
    Declare {
        name: String,
        hold: bool,
    },
    /// `FETCH` and `MOVE`. Class `unknown` until the session puts the cursor's in.
    Fetch {
        name: String,
    },
    /// `None`: all.
    CloseCursor {
        name: Option<String>,
    },
    DiscardAll,
    /// A setting that changes what later text means. The value is the whole
    /// statement: `SET search_path = 'a, b'` and `SET search_path = a, b` differ.
    Set {
        name: String,
        value: String,
        local: bool,
    },
}

/// One statement of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Statement {
    pub(crate) class: Class,
    /// What else it does, less bad than its class: an `INSERT` that calls a function of
    /// which nothing is known is still a `write`.
    pub(crate) also: Vec<Class>,
    pub(crate) effects: Vec<&'static str>,
    pub(crate) objects: Vec<Object>,
    pub(crate) functions: Vec<String>,
    pub(crate) unknown_functions: Vec<String>,
    /// Both witnesses agree and nothing that matters is hidden from the text.
    pub(crate) proven: bool,
    /// Session set-up that no rule may hold.
    pub(crate) housekeeping: bool,
    pub(crate) facts: Vec<(&'static str, String)>,
    pub(crate) act: Act,
    /// What it shows of protected columns.
    pub(crate) exposure: Exposure,
    ranges: protect::Ranges,
    /// Why the gateway refuses this statement whatever the policy says.
    pub(crate) reject: Option<String>,
}

impl Statement {
    fn unknown(reason: &str) -> Self {
        Self {
            class: Class::Unknown,
            also: Vec::new(),
            effects: Vec::new(),
            objects: Vec::new(),
            functions: Vec::new(),
            unknown_functions: Vec::new(),
            proven: false,
            housekeeping: false,
            facts: vec![("unknown_reason", reason.to_owned())],
            act: Act::Unreadable,
            exposure: Exposure::Unjudged,
            ranges: protect::Ranges::default(),
            reject: None,
        }
    }
}

/// A judged text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Analysis {
    /// In the order in which they run. Empty for a text without a statement.
    pub(crate) statements: Vec<Rc<Statement>>,
    /// Why the gateway refuses the text and forwards nothing of it.
    pub(crate) reject: Option<String>,
    /// Bytes of the text that hold secrets.
    pub(crate) secrets: Vec<(u32, u32)>,
}

impl Analysis {
    fn rejected(reason: &str) -> Self {
        Self {
            reject: Some(reason.to_owned()),
            ..Self::unknown(reason)
        }
    }

    fn unknown(reason: &str) -> Self {
        Self {
            statements: vec![Rc::new(Statement::unknown(reason))],
            ..Self::default()
        }
    }
}

/// Judges a text without remembering anything.
#[cfg(test)]
pub(crate) fn classify(text: &[u8], settings: &Settings, limits: &Limits) -> Analysis {
    classify_protecting(text, settings, limits, None)
}

/// The same, where columns are protected.
#[cfg(test)]
pub(crate) fn classify_protecting(
    text: &[u8],
    settings: &Settings,
    limits: &Limits,
    protected: Option<&Protected>,
) -> Analysis {
    match admit(text, settings) {
        Ok(text) => run(text, settings, limits, None, protected),
        Err(refused) => Analysis {
            secrets: secrets::unread(text),
            ..refused
        },
    }
}

/// Judges the texts of a session and remembers what it said: of the same text,
/// and of the same statement with other constants.
#[derive(Default)]
pub(crate) struct Classifier {
    texts: Cache<Analysis>,
    statements: Cache<Statement>,
    settings: Settings,
    limits: Limits,
    protected: Option<Protected>,
}

impl Classifier {
    /// Within these limits, and says of each statement also what it shows of `protected`.
    pub(crate) fn new(settings: Settings, limits: Limits, protected: Option<Protected>) -> Self {
        Self {
            settings,
            limits,
            protected,
            ..Self::default()
        }
    }

    pub(crate) fn protects(&self) -> bool {
        self.protected.is_some()
    }

    /// Same answer as [`classify`] under the settings that a session is held to.
    pub(crate) fn classify(&mut self, text: &[u8]) -> Rc<Analysis> {
        match admit(text, &self.settings) {
            Ok(text) => self.texts.get_or(text, |text| {
                let cache = Some(&mut self.statements);
                let protected = self.protected.as_ref();
                run(text, &self.settings, &self.limits, cache, protected)
            }),
            Err(refused) => Rc::new(Analysis {
                secrets: secrets::unread(text),
                ..refused
            }),
        }
    }
}

/// The text, where the server and this code read it alike.
fn admit<'t>(text: &'t [u8], settings: &Settings) -> Result<&'t str, Analysis> {
    if !settings.client_encoding_utf8 || !settings.standard_conforming_strings {
        return Err(Analysis::rejected(
            "the session must use client_encoding UTF8 and standard_conforming_strings on",
        ));
    }
    if text.contains(&0) {
        return Err(Analysis::rejected("the text holds a NUL byte"));
    }
    std::str::from_utf8(text).map_err(|_| Analysis::rejected("the text is not valid UTF-8"))
}

fn run(
    text: &str,
    settings: &Settings,
    limits: &Limits,
    mut cache: Option<&mut Cache<Statement>>,
    protected: Option<&Protected>,
) -> Analysis {
    let unread = |reason: &str| Analysis {
        secrets: secrets::unread(text.as_bytes()),
        ..Analysis::unknown(reason)
    };
    if text.len() > limits.max_text {
        return unread("the text is longer than the limit");
    }
    // The server lexes all of a text before it runs the first statement, so a
    // text with one bad token is bad as a whole.
    let tokens = match lexer::lex_within(text, limits.max_tokens) {
        Ok(tokens) => tokens,
        Err(error) => return unread(&error.to_string()),
    };
    if !settings.server_encoding_utf8 && tokens.iter().any(|token| names::may_differ(text, token)) {
        return unread("a name that is not ASCII, in a database that is not UTF8");
    }
    if names::has_unreadable(text, &tokens) {
        return unread("a name in Unicode escapes that cannot be read");
    }
    let pieces = shape::split(text, &tokens);
    let secrets = pieces
        .iter()
        .flat_map(|piece| secrets::secrets(text, &tokens[piece.tokens.clone()]))
        .collect();
    if !agree::agree(text, &tokens) {
        return Analysis {
            secrets,
            ..Analysis::unknown("the two lexers disagree")
        };
    }
    let mut analysis = Analysis {
        secrets,
        ..Analysis::default()
    };
    if pieces.len() > limits.max_statements {
        analysis.statements = Analysis::unknown("more statements than the limit").statements;
        return analysis;
    }
    let mut left = limits.max_parsed;
    for piece in &pieces {
        let judged = shape::judged(text, &tokens[piece.tokens.clone()]);
        let fits = judged.len() <= left;
        left = left.saturating_sub(judged.len());
        let statement = match cache.as_deref_mut() {
            _ if piece.depth > limits.max_depth => {
                Rc::new(Statement::unknown("nested deeper than the limit"))
            }
            // Counted with a cache or without, so that both say the same.
            _ if !fits => Rc::new(Statement::unknown("more to parse than the limit")),
            Some(cache) => cache.get_or(&judged, judge),
            None => Rc::new(judge(&judged)),
        };
        if analysis.reject.is_none() {
            analysis.reject.clone_from(&statement.reject);
        }
        // Places in a select list are those of the text itself, not of its shape.
        let statement = match protected {
            None => statement,
            Some(protected) => {
                let mut judged = Statement::clone(&statement);
                protected.judge(text, &tokens[piece.tokens.clone()], &mut judged);
                Rc::new(judged)
            }
        };
        analysis.statements.push(statement);
    }
    if driver_reset(&analysis.statements) {
        for statement in &mut analysis.statements {
            Rc::make_mut(statement).housekeeping = true;
        }
    }
    analysis
}

/// A function of the judged text alone: whatever is remembered under that text
/// is what a fresh look would say.
fn judge(judged: &str) -> Statement {
    // The judged text was written token by token, so it lexes; a text that does
    // not is a fault of ours and therefore unknown.
    let Ok(tokens) = lexer::lex(judged) else {
        return Statement::unknown("the statement cannot be lexed");
    };
    if let Some(statement) = special(judged, &tokens) {
        return statement;
    }
    let Some(mut statement) = syntax::judge(judged) else {
        return Statement::unknown("the statement cannot be parsed");
    };
    if statement.objects.iter().any(settings::is_written) {
        statement.effects.push("parser_setting");
        statement.reject = Some(settings::WRITTEN.to_owned());
    }
    let sort = witness::witness(judged, &tokens);
    let agreed = match statement.class {
        Class::Session => sort == Sort::Session,
        Class::Transaction => sort == Sort::Transaction,
        Class::Read => sort == Sort::Read,
        Class::CopyOut => sort == Sort::CopyOut || !statement.proven,
        _ => true,
    };
    if agreed {
        let mut statement = statement;
        statement.housekeeping |=
            statement.act == Act::Other && catalog::looks_up(&statement, judged, &tokens);
        statement
    } else {
        Statement {
            class: Class::Unknown,
            proven: false,
            housekeeping: false,
            facts: vec![("unknown_reason", "the two witnesses disagree".to_owned())],
            ..statement
        }
    }
}

/// Calls that are session set-up when they are the whole statement: drivers
/// send them on every connection.
fn special(text: &str, tokens: &[Token]) -> Option<Statement> {
    let session = |function: &str| Statement {
        class: Class::Session,
        functions: vec![function.to_owned()],
        proven: true,
        housekeeping: true,
        facts: vec![("statement", "select".to_owned())],
        act: Act::Other,
        ..Statement::unknown("")
    };
    if let Some(set) = settings::set_config(text, tokens) {
        let mut statement = session("set_config");
        match settings::change(&set.name, Some(&set.value)) {
            settings::Change::Harmless => {}
            settings::Change::Refused => {
                statement.effects.push("parser_setting");
                statement.housekeeping = false;
                statement.reject = Some(settings::refused(&set.name));
            }
            settings::Change::Matters => return None,
        }
        if settings::gives_meaning(&set.name) {
            statement.act = Act::Set {
                name: set.name.to_ascii_lowercase(),
                value: text.to_owned(),
                local: set.local,
            };
        }
        return Some(statement);
    }
    // It gives up locks of this session only. Pools send it between users.
    let words = ["select", "pg_advisory_unlock_all", "(", ")"];
    let unlock = tokens.len() == words.len()
        && tokens
            .iter()
            .zip(words)
            .all(|(token, word)| token.text(text).eq_ignore_ascii_case(word));
    unlock.then(|| session("pg_advisory_unlock_all"))
}

/// The text that asyncpg's pool sends when a connection comes back. `RESET ALL`
/// on its own can undo a guard that an operator set with `SET`; at the end of
/// exactly this text it is a driver at work.
fn driver_reset(statements: &[Rc<Statement>]) -> bool {
    match statements {
        [unlock, close, unlisten, reset] => {
            unlock.functions == ["pg_advisory_unlock_all"]
                && unlock.housekeeping
                && close.act == Act::CloseCursor { name: None }
                && unlisten.facts.iter().any(|(_, value)| value == "unlisten")
                && matches!(&reset.act, Act::Set { name, .. } if name == settings::ALL)
        }
        _ => false,
    }
}
