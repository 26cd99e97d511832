//! Files that people write: TOML text in which every mistake has a place.
//!
//! A [`Source`] keeps the text and its parsed tree, so that checks made long
//! after parsing can still point at a key or a value by its dotted path. What is shown of the
//! text never contains a secret: values of keys that hold secrets are elided
//! unless they are references.

mod problem;
mod quantity;
mod suggest;

pub use problem::{Problem, Problems};
pub use quantity::{Size, Span};

use std::fmt;
use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Keys whose values are secrets or references to them.
const SECRET_KEYS: [&str; 8] = [
    "password",
    "secret",
    "cluster_secret",
    "sentinel_password",
    "token",
    "signing_secret",
    "routing_key",
    "workflow_url",
];

/// A way into a document: `target.shop.tls`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct At(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

impl At {
    pub fn root() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn key(&self, name: &str) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Key(name.to_owned()));
        Self(steps)
    }

    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Index(index));
        Self(steps)
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(name) => {
                    let dot = if n == 0 { "" } else { "." };
                    let bare = name
                        .chars()
                        .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
                    if bare && !name.is_empty() {
                        write!(f, "{dot}{name}")?;
                    } else {
                        write!(f, "{dot}{name:?}")?;
                    }
                }
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// A TOML text with a name, and where everything in it stands.
#[derive(Debug)]
pub struct Source<'a> {
    name: String,
    text: &'a str,
    tree: Spanned<DeTable<'a>>,
}

impl<'a> Source<'a> {
    /// Reads `text` as a `T`. The first mistake ends it: what follows could not be trusted.
    pub fn read<T: DeserializeOwned>(name: &str, text: &'a str) -> Result<(Self, T), Problems> {
        let (tree, errors) = DeTable::parse_recoverable(text);
        let source = Self {
            name: name.to_owned(),
            text,
            tree,
        };
        if let Some(error) = errors.first() {
            return Err(problem::of_syntax(&source, error).into());
        }
        match toml::from_str(text) {
            Ok(value) => Ok((source, value)),
            Err(error) => Err(problem::of_serde(&source, &error).into()),
        }
    }

    /// A mistake in the value at `at`, or in the nearest that exists.
    pub fn problem(&self, at: &At, message: impl Into<String>) -> Problem {
        let span = self.find(at, false);
        Problem::new(self, span, at.to_string(), message.into())
    }

    /// A mistake in the key at `at` itself.
    pub fn problem_of_key(&self, at: &At, message: impl Into<String>) -> Problem {
        let span = self.find(at, true);
        Problem::new(self, span, at.to_string(), message.into())
    }

    fn find(&self, at: &At, of_key: bool) -> Range<usize> {
        let root = DeValue::Table(self.tree.get_ref().clone());
        let mut here = &root;
        let mut span = 0..0;
        for (n, step) in at.0.iter().enumerate() {
            let last = n + 1 == at.0.len();
            match (step, here) {
                (Step::Key(name), DeValue::Table(table)) => {
                    let Some((key, value)) = table.iter().find(|(key, _)| *key.get_ref() == *name)
                    else {
                        break;
                    };
                    let header =
                        matches!(value.get_ref(), DeValue::Table(_) | DeValue::Array(_)) && !last;
                    span = if of_key || header {
                        key.span()
                    } else {
                        value.span()
                    };
                    here = value.get_ref();
                }
                (Step::Index(index), DeValue::Array(array)) => {
                    let Some(value) = array.get(*index) else {
                        break;
                    };
                    span = value.span();
                    here = value.get_ref();
                }
                _ => break,
            }
        }
        span
    }

    /// The innermost thing that covers a byte.
    fn path_at(&self, offset: usize) -> At {
        let mut best: Option<(usize, At)> = None;
        walk(&At::root(), self.tree.get_ref(), &mut |at, span, _| {
            let size = span.end.saturating_sub(span.start);
            let better = match &best {
                None => true,
                Some((have, path)) => size < *have || (size == *have && at.0.len() > path.0.len()),
            };
            if span.contains(&offset) && better {
                best = Some((size, at.clone()));
            }
        });
        best.map(|(_, at)| at).unwrap_or_default()
    }

    /// Where literal secrets stand in the text.
    fn secrets(&self) -> Vec<Range<usize>> {
        let mut found = Vec::new();
        walk(&At::root(), self.tree.get_ref(), &mut |at, span, value| {
            let secret =
                at.0.iter()
                    .any(|step| matches!(step, Step::Key(key) if is_secret(key)));
            let Some(value) = value else {
                return;
            };
            // A URL with credentials in it is refused wherever it stands, and not shown.
            let credentials = matches!(value, DeValue::String(text) if has_credentials(text));
            if credentials {
                found.push(span);
                return;
            }
            if !secret {
                return;
            }
            match value {
                DeValue::String(text) if text.starts_with("env:") || text.starts_with("file:") => {}
                DeValue::Table(_) | DeValue::Array(_) => {}
                _ => found.push(span),
            }
        });
        found
    }

    /// The value of a key by its path, for messages that must not show it.
    fn value_span(&self, at: &At) -> Range<usize> {
        self.find(at, false)
    }
}

/// `scheme://user:password@host`.
fn has_credentials(text: &str) -> bool {
    let authority = text
        .split_once("://")
        .map(|(_, rest)| rest.split(['/', '?', '#']).next().unwrap_or_default());
    // A password may hold a slash: whatever stands before an `@` counts.
    authority.is_some_and(|authority| authority.contains('@'))
        || (text.starts_with("redis") && text.contains('@'))
}

/// Mistyped keys too: what stands there is as secret.
fn is_secret(key: &str) -> bool {
    SECRET_KEYS
        .iter()
        .any(|secret| suggest::distance(key, secret) <= 2)
}

/// Takes a path, a place, and the value unless it is a key's place.
type Seen<'s> = dyn FnMut(&At, Range<usize>, Option<&DeValue<'_>>) + 's;

/// Calls `seen` with each key (no value) and each value.
fn walk(at: &At, table: &DeTable<'_>, seen: &mut Seen<'_>) {
    for (key, value) in table {
        let here = at.key(key.get_ref());
        seen(&here, key.span(), None);
        walk_value(&here, value, seen);
    }
}

fn walk_value(at: &At, value: &Spanned<DeValue<'_>>, seen: &mut Seen<'_>) {
    seen(at, value.span(), Some(value.get_ref()));
    match value.get_ref() {
        DeValue::Table(table) => walk(at, table, seen),
        DeValue::Array(array) => {
            for (index, value) in array.iter().enumerate() {
                walk_value(&at.index(index), value, seen);
            }
        }
        _ => {}
    }
}
