//! Protected columns: what `[[mask]]` tables say, and what follows for an operation.
//!
//! Which columns a statement shows, and whether they can be masked, only the plugin
//! can tell; it is given the patterns of its target. It answers per operation with
//! the fact `protected`: `none`, `masked` (the values are replaced in the rows), or
//! anything else, which cannot be masked. It gives back the mark of the patterns that it went by, so that an
//! answer made under other rules, or none at all, counts as the last of these.

use super::glob::Glob;
use super::merge::{Found, strictest};
use super::{Ask, hold};
use crate::command::Operation;
use crate::decision::Outcome;
use crate::id::FieldHasher;

/// The facts by which a plugin answers.
const FACT: &str = "protected";
const SET: &str = "protected_set";

/// A compiled `[[mask]]` table.
#[derive(Debug)]
pub(super) struct Mask {
    /// `file:mask`.
    pub(super) id: String,
    /// Absent: all.
    pub(super) targets: Option<Vec<Glob>>,
    /// As written, checked by [`check`].
    pub(super) columns: Vec<String>,
    /// Of what cannot be masked: a hold or a denial.
    pub(super) otherwise: Outcome,
}

/// The columns that are protected at a target.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Protected {
    /// `COLUMN`, `TABLE.COLUMN` or `SCHEMA.TABLE.COLUMN`, with `*`; sorted.
    pub columns: Vec<String>,
}

impl Protected {
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// Names this list: no other has it.
    pub fn mark(&self) -> String {
        let mut hasher = FieldHasher::new("holdpoint.protected.v1");
        hasher.count(self.columns.len());
        for column in &self.columns {
            hasher.field(column.as_bytes());
        }
        let mut mark = hasher.finish().to_string();
        mark.truncate(16);
        mark
    }

    /// The settings by which a plugin learns of the list; none where nothing is protected.
    pub fn settings(&self) -> Vec<(String, String)> {
        if self.is_empty() {
            return Vec::new();
        }
        vec![
            (FACT.to_owned(), self.columns.join("\n")),
            (SET.to_owned(), self.mark()),
        ]
    }

    /// The same as fields for a classifier outside of a session.
    pub fn fields(&self) -> impl Iterator<Item = (String, Vec<u8>)> + use<> {
        let settings = self.settings().into_iter();
        settings.map(|(name, value)| (name, value.into_bytes()))
    }

    /// The names of those settings, which no operator may set.
    pub fn is_setting(name: &str) -> bool {
        name == FACT || name == SET
    }
}

/// Whether a pattern is one to three names with dots between.
pub(super) fn check(pattern: &str) -> Result<(), String> {
    let parts: Vec<&str> = pattern.split('.').collect();
    let odd = |c: char| c.is_control() || c == '"';
    if parts.len() > 3 || parts.iter().any(|part| part.is_empty()) || pattern.contains(odd) {
        return Err(format!(
            "`{}` is no `SCHEMA.TABLE.COLUMN`, `TABLE.COLUMN` or `COLUMN`",
            pattern.escape_debug()
        ));
    }
    Ok(())
}

pub(super) fn protected<'a>(masks: impl Iterator<Item = &'a Mask>, target: &str) -> Protected {
    let mut columns: Vec<String> = masks
        .filter(|mask| mask.applies(target))
        .flat_map(|mask| mask.columns.iter().cloned())
        .collect();
    columns.sort();
    columns.dedup();
    Protected { columns }
}

/// What the masks say of an operation; `None` where nothing stands in its way.
pub(super) fn consider<'a>(
    masks: impl Iterator<Item = &'a Mask> + Clone,
    ask: &Ask<'_>,
    operation: &Operation,
) -> Option<Found> {
    let protected = protected(masks.clone(), ask.target);
    if protected.is_empty() || is_answered(operation, &protected.mark()) {
        return None;
    }
    // Which of the columns it is about is not told, so all masks count.
    masks
        .filter(|mask| mask.applies(ask.target))
        .map(|mask| Found {
            rule: mask.id.clone(),
            outcome: hold::at_target(&mask.otherwise, &mask.id, ask),
        })
        .reduce(strictest)
}

/// Whether the plugin vouches that no protected value leaves unmasked. A fact that
/// is there twice is believed at its worst.
fn is_answered(operation: &Operation, mark: &str) -> bool {
    let all = |name: &str, fits: &dyn Fn(&str) -> bool| {
        let mut values = operation.facts.iter().filter(|(fact, _)| fact == name);
        let mut some = false;
        values.all(|(_, value)| {
            some = true;
            fits(value)
        }) && some
    };
    all(SET, &|set| set == mark) && all(FACT, &|fact| matches!(fact, "none" | "masked"))
}

impl Mask {
    pub(super) fn applies(&self, target: &str) -> bool {
        self.targets
            .as_ref()
            .is_none_or(|globs| globs.iter().any(|glob| glob.fits(target)))
    }
}
