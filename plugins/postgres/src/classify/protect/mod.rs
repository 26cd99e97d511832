//! Whether a statement can show what is protected, and whether the rows' fields
//! alone say where.
//!
//! A protected column may be shown in one way: by its own name, or by `*`, in the
//! select list of a plain `SELECT`. Its place among the fields then follows from
//! the text ([`outputs`]) and the row description. Used in any other way, such as in
//! a condition, an expression, a subquery or as part of a whole row, its value could come
//! out under another name or be guessed, so the statement is `used`, which policy
//! holds or refuses. Names are compared without knowing which table an unqualified
//! one belongs to: in doubt a column is protected.
//!
//! This reads the statement's own tokens and not its judged text, which leaves out
//! what repeats and so has other places. The tree only says which relations and
//! aliases there are.
//!
//! Limits that no text can lift: views, partitions and children have names of their
//! own, so a pattern must cover them; code in the database (functions behind
//! operators, casts, `t.f` of the operator's own, rules, policies) is not looked into.

mod outputs;
mod scan;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use super::lexer::{Kind, Token};
use super::{Act, Class, Object, Statement, names};
pub(crate) use outputs::{Field, Outputs};

/// What a statement shows of the protected columns.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Exposure {
    /// Nothing is protected, or the statement was not understood: policy decides
    /// with no answer from here.
    #[default]
    Unjudged,
    None,
    /// Fields of its rows, which are to be masked.
    Fields(Rc<Outputs>),
    Used,
}

/// The relations of a statement as its tree has them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Ranges {
    /// Every name that stands for a relation where it is brought in, as often as that is.
    pub(crate) names: Vec<String>,
    /// An alias renames columns, or a name could not be read.
    pub(crate) renamed: bool,
    /// Items of the statement's own select list.
    pub(crate) items: usize,
}

/// The columns that are protected in this session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Protected {
    patterns: Vec<Pattern>,
    mark: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    schema: Option<String>,
    table: Option<String>,
    column: Rc<str>,
}

impl Protected {
    /// From the settings `protected` (patterns, one a line) and `protected_set`.
    /// `None` where nothing is protected.
    pub(crate) fn new(list: &str, mark: &str) -> Option<Self> {
        let patterns: Vec<Pattern> = list
            .lines()
            .filter(|line| !line.is_empty())
            .map(|line| {
                let mut parts = line.rsplitn(3, '.').map(names::cut_pattern);
                let column = parts.next().unwrap_or_else(|| "*".to_owned()).into();
                let table = parts.next();
                let schema = parts.next();
                Pattern {
                    schema,
                    table,
                    column,
                }
            })
            .collect();
        (!patterns.is_empty()).then(|| Self {
            patterns,
            mark: mark.to_owned(),
        })
    }

    /// Judges one statement by its tokens, and writes the answer into its facts.
    pub(super) fn judge(&self, text: &str, tokens: &[Token], statement: &mut Statement) {
        let exposure = self.exposure(text, tokens, statement);
        let word = match &exposure {
            Exposure::Unjudged => return,
            Exposure::None => "none",
            Exposure::Fields(_) => "masked",
            Exposure::Used => "used",
        };
        statement.facts.push((FACT, word.to_owned()));
        statement.facts.push(("protected_set", self.mark.clone()));
        statement.exposure = exposure;
    }

    fn exposure(&self, text: &str, tokens: &[Token], statement: &Statement) -> Exposure {
        if !statement.proven || !statement.unknown_functions.is_empty() {
            return Exposure::Used;
        }
        match statement.class {
            Class::Session | Class::Transaction => return Exposure::None,
            Class::Read | Class::CopyOut | Class::Write | Class::CopyIn | Class::Maintenance => {}
            // What they define or run is not in the rows of this statement alone.
            Class::Ddl
            | Class::Dcl
            | Class::Procedural
            | Class::FunctionEffect
            | Class::Unknown => return Exposure::Used,
        }
        let telling = |name: &String| TELLING.contains(&name.as_str());
        if statement.functions.iter().any(telling) || statement.objects.iter().any(tells) {
            return Exposure::Used;
        }
        let mut touched: Vec<Rc<str>> = self
            .patterns
            .iter()
            .filter(|pattern| {
                statement
                    .objects
                    .iter()
                    .any(|object| pattern.covers(object))
            })
            .map(|pattern| Rc::clone(&pattern.column))
            .collect();
        // A default that was added to a table with rows is one of their values.
        if statement
            .objects
            .iter()
            .any(|object| object.name == "pg_attribute")
        {
            touched.push(Rc::from("attmissingval"));
        }
        if touched.is_empty() {
            return Exposure::None;
        }
        match (statement.class, &statement.act) {
            (Class::Read, Act::Other) => scan::read(text, tokens, &touched, &statement.ranges),
            // An error shows the whole row that an UPDATE could not write.
            (Class::Write, Act::Other) if only_inserts(text, tokens) => Exposure::None,
            _ => Exposure::Used,
        }
    }
}

/// The fact that policy reads.
pub(crate) const FACT: &str = "protected";

impl Pattern {
    /// An unqualified name may be that of any schema.
    fn covers(&self, object: &Object) -> bool {
        let fits = |pattern: &Option<String>, name: &str| {
            pattern.as_ref().is_none_or(|pattern| glob(pattern, name))
        };
        let schema = object
            .schema
            .as_ref()
            .is_none_or(|schema| fits(&self.schema, schema));
        matches!(object.kind, "table" | "view")
            && schema
            && fits(&self.table, &object.name)
            && !is_catalog(object)
    }
}

/// `INSERT … VALUES` of constants and calls: it shows its author's own values only.
fn only_inserts(text: &str, tokens: &[Token]) -> bool {
    const READING: [&str; 6] = ["select", "returning", "conflict", "with", "table", "from"];
    tokens.first().is_some_and(|first| first.is(text, "insert"))
        && !tokens
            .iter()
            .any(|token| READING.iter().any(|word| token.is(text, word)))
}

/// Functions that tell the statements of other sessions, with the values in them.
const TELLING: [&str; 5] = [
    "pg_cursor",
    "pg_prepared_statement",
    "pg_stat_get_activity",
    "pg_stat_get_backend_activity",
    "pg_event_trigger_ddl_commands",
];

/// Catalogs that hold names and numbers, but no values of columns.
const CATALOGS: [&str; 35] = [
    "pg_am",
    "pg_attrdef",
    "pg_attribute",
    "pg_cast",
    "pg_class",
    "pg_collation",
    "pg_constraint",
    "pg_database",
    "pg_depend",
    "pg_description",
    "pg_enum",
    "pg_extension",
    "pg_index",
    "pg_indexes",
    "pg_inherits",
    "pg_language",
    "pg_locks",
    "pg_matviews",
    "pg_namespace",
    "pg_opclass",
    "pg_operator",
    "pg_partitioned_table",
    "pg_policies",
    "pg_policy",
    "pg_proc",
    "pg_range",
    "pg_roles",
    "pg_sequence",
    "pg_settings",
    "pg_stat_user_tables",
    "pg_tables",
    "pg_tablespace",
    "pg_trigger",
    "pg_type",
    "pg_views",
];

fn is_catalog(object: &Object) -> bool {
    match object.schema.as_deref() {
        Some("information_schema") => true,
        // A user's table cannot come before `pg_catalog` unless it is in the path
        // by name, and then its name is one that the operator chose.
        Some("pg_catalog") | None => CATALOGS.contains(&object.name.as_str()),
        Some(_) => false,
    }
}

/// Statistics and the like hold values of columns, whatever table is asked for.
fn tells(object: &Object) -> bool {
    let schema = object.schema.as_deref();
    // Extensions put theirs into any schema.
    let system = object.name.starts_with("pg_")
        || schema.is_some_and(|schema| schema.starts_with("pg_") && !schema.starts_with("pg_temp"));
    matches!(object.kind, "table" | "view") && system && !is_catalog(object)
}

/// A name as the server keeps it; `None` for what is no name.
fn ident(text: &str, token: &Token) -> Option<String> {
    match token.kind {
        Kind::Word | Kind::QuotedName => names::fold(token.text(text), '\\'),
        _ => None,
    }
}

/// Whether `*` in the pattern can stand for something so that both are the same.
fn glob(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, n));
            p += 1;
        } else if pattern.get(p) == name.get(n) {
            p += 1;
            n += 1;
        } else if let Some((at, from)) = star {
            star = Some((at, from + 1));
            p = at + 1;
            n = from + 1;
        } else {
            return false;
        }
    }
    pattern
        .get(p..)
        .unwrap_or_default()
        .iter()
        .all(|byte| *byte == b'*')
}
